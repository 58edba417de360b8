package host_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/oftest"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// dump returns a bridge's flows as ovs-ofctl prints them.
func (h *machine) dump(bridge string) string { return h.ovs.Ofctl("--no-stats", "dump-flows", bridge) }

// notices returns the messages and objects of what was recorded of a bridge under an action.
func (r *run) notices(action string) string {
	var b strings.Builder
	for _, e := range r.rec.Recent(event.Filter{Action: []string{action}}).Items {
		fmt.Fprintf(&b, "%s %s %q\n", e.Tapwall.Bridge, e.Tapwall.Notice.Message, e.Tapwall.Notice.Objects)
	}
	return b.String()
}

// Before the first change on a bridge, what will be removed is told.
func TestFault_F08_TakeOverTellsFirst(t *testing.T) {
	t.Parallel()
	for mode, already := range map[string]string{"wiped by the fail mode": "standalone", "removed by tapwall": "secure"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			h := newMachine(t, "br0")
			h.ovs.Vsctl("set-fail-mode", "br0", already)
			h.ovs.Ofctl("add-flow", "br0", "cookie=0xbad,table=203,actions=NORMAL")
			h.ovs.Ofctl("add-flow", "br0", "cookie=0xbad,table=0,priority=3,tcp,actions=drop")
			h.ovs.Ofctl("add-flow", "br0", "cookie=0xbad,table=0,priority=1,actions=NORMAL")
			r := h.start(settings{})
			r.eventually("gone", func() error {
				if s := h.dump("br0"); strings.Contains(s, "table=203, priority=32768 actions=NORMAL") || !strings.Contains(s, "resubmit(,200)") {
					return fmt.Errorf("%s", s)
				}
				return nil
			})
			told := r.notices(event.ActionTakeOver)
			if !strings.HasPrefix(told, "br0 ") || !strings.Contains(told, "table=203") || !strings.Contains(told, "priority=1 actions") ||
				strings.Contains(told, "priority=3,tcp") != (already == "standalone") {
				t.Errorf("told at the take-over: %s", told)
			}
			r.eventually("told, and then installed", func() error { // it is logged behind the answer of the switch
				log := r.logs.String()
				if first, then := strings.Index(log, "tapwall takes the bridge over"), strings.Index(log, "msg=installed"); first < 0 || then < 0 ||
					first > then {
					return fmt.Errorf("told at %d, installed at %d:\n%s", first, then, log)
				}
				return nil
			})
			if already == "secure" { // nothing of table 0 was ours to take away
				r.eventually("not ready behind a foreign flow", func() error {
					if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "priority=3,tcp actions=drop") {
						return fmt.Errorf("Ready: %v", err)
					}
					return nil
				})
				h.ovs.Ofctl("del-flows", "br0", "cookie=0xbad/-1")
			}
			r.eventually("ready", r.Ready)
		})
	}
}

// A flow that bears tapwall's magic and can be no tapwall's is a reason to keep off a bridge that is not known, and is removed from one
// that is.
func TestFault_F08_StrangeMagicIsRefused(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0", "br1")
	h.ovs.Vsctl("set-fail-mode", "br0", "standalone")
	strange := "cookie=0x7a9a11ff00000001,table=205,ip,actions=drop"
	h.ovs.Ofctl("add-flow", "br0", strange)
	h.ovs.Ofctl("add-flow", "br0", "cookie=0x99,table=203,actions=NORMAL")
	before := h.dump("br0")
	h.plug("br1", vms("vm1")...)
	h.put(allow("p", "vm1", "{cidr: 10.0.0.0/8}", "80"))
	r := h.start(settings{bridges: owned("br0", "br1")})
	refused := func(r *run) {
		t.Helper()
		r.eventually("refused", func() error {
			if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "br0") || !strings.Contains(err.Error(), "table=205, ip") &&
				!strings.Contains(err.Error(), "0x7a9a11ff00000001") {
				return fmt.Errorf("Ready: %v", err)
			}
			if s := r.System(); s.Healthy || !strings.Contains(strings.Join(s.Problems, "; "), "not taken over") {
				return fmt.Errorf("%+v", s.Problems)
			}
			return nil
		})
		if s := h.dump("br0"); s != before {
			t.Errorf("flows of a bridge that is not taken over:\n%s", s)
		}
		if mode := strings.TrimSpace(h.ovs.Vsctl("get", "Bridge", "br0", "fail_mode")); mode != "standalone" {
			t.Errorf("fail mode of a bridge that is not taken over: %s", mode)
		}
	}
	refused(r)
	r.eventually("the other bridge works", func() error {
		if s := h.dump("br1"); !strings.Contains(s, "ct_tp_dst=80") {
			return fmt.Errorf("%s", s)
		}
		return nil
	})
	r.stop()
	r = h.start(settings{bridges: owned("br0", "br1")}) // a refusal makes the bridge no more known
	refused(r)
	h.ovs.Ofctl("del-flows", "br0", "cookie=0x7a9a11ff00000001/-1")
	r.eventually("ready without it", r.Ready)

	h.ovs.Ofctl("add-flow", "br0", strange)
	r.eventually("removed from a bridge of ours", func() error {
		if s := h.dump("br0"); strings.Contains(s, "0x7a9a11ff") || !strings.Contains(s, "resubmit(,200)") {
			return fmt.Errorf("%s", s)
		}
		return nil
	})
	r.stop()
	h.ovs.Ofctl("add-flow", "br0", strange) // as one of another version
	r = h.start(settings{bridges: owned("br0", "br1")})
	r.eventually("ready", r.Ready)
	if s := h.dump("br0"); strings.Contains(s, "0x7a9a11ff") {
		t.Errorf("a flow of another version is still there:\n%s", s)
	}
}

// A bridge that tapwall is a guest on is somebody else's, whatever it holds.
func TestFault_F08_GuestUntouched(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "guest", "br0")
	for _, f := range []string{"cookie=0xbad,table=203,actions=NORMAL", "cookie=0xbad,priority=1,actions=resubmit(,203)"} {
		h.ovs.Ofctl("add-flow", "guest", f)
		h.ovs.Ofctl("add-flow", "br0", f)
	}
	h.ovs.Ofctl("add-flow", "guest", "cookie=0xbad,priority=9,ip,actions=NORMAL")
	before := h.dump("guest")
	r := h.start(settings{bridges: append(owned("br0"), host.BridgeConfig{Name: "guest", Mode: host.Guest})})
	r.apply(strings.ReplaceAll(localTap, "vm1", "guest"))
	r.eventually("the owned one is cleaned", func() error { // the control
		if s := h.dump("br0"); strings.Contains(s, "0xbad") || !strings.Contains(s, "resubmit(,200)") {
			return fmt.Errorf("%s", s)
		}
		return nil
	})
	h.ovs.Ofctl("add-flow", "guest", "cookie=0xbad,table=206,actions=NORMAL")
	h.ovs.Ofctl("del-flows", "guest", "cookie=0xbad/-1,table=206")
	r.eventually("ready", r.Ready)
	if s := h.dump("guest"); s != before {
		t.Errorf("flows of the guest bridge:\n%s", s)
	}
	for _, p := range r.System().Problems {
		if strings.Contains(p, "guest") {
			t.Errorf("problem %s", p)
		}
	}
}

// A switch that takes no meter gets the wall all the same, without the copies for the record, and status says so. When it takes the
// meter, the copies come.
func TestFault_F09_RefusedMeter(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	var full atomic.Bool
	full.Store(true)
	fake := oftest.NewFake(oftest.FakeOptions{DatapathID: 1, React: func(q oftest.Request) oftest.Reaction {
		if full.Load() && q.Kind == oftest.MeterMod {
			return oftest.Reaction{Error: ofp.OutOfMeters}
		}
		return oftest.Reaction{}
	}})
	cfg := owned("br0")
	cfg[0].OpenFlow = fake.Listen(t)
	r := h.ready(settings{bridges: cfg})
	if s := r.apply(allow("p", "vm1", "{port: vm2}", "80")); s.Phase != policy.PhaseActive {
		t.Errorf("the policy without a meter: %+v", s)
	}
	copied := func() int {
		return len(r.flows(backend.FlowQuery{Table: table(pipeline.TableVerdict), Match: "meter_id="})) // a probe has none
	}
	deny := func() int { return len(r.flows(backend.FlowQuery{Table: table(pipeline.TableVerdict)})) }
	if copied() != 0 || deny() < 5 {
		t.Errorf("%d flows of VERDICT, %d of them copy", deny(), copied())
	}
	s := strings.Join(r.System().Problems, "; ")
	if !strings.Contains(s, "bridge br0") || !strings.Contains(s, "record is degraded") || !strings.Contains(s, "OFPMMFC_OUT_OF_METERS") {
		t.Errorf("problems: %s", s)
	}
	if err := r.Ready(); err != nil {
		t.Errorf("the wall stands, and Ready: %v", err)
	}
	full.Store(false)
	r.eventually("healthy, with copies", func() error {
		if copied() < 3 {
			return fmt.Errorf("%d flows copy", copied())
		}
		return r.unhealthy()
	})
	full.Store(true) // somebody takes the meter, and there is none left
	fake.DeleteMeters()
	r.eventually("without copies again", func() error {
		if copied() != 0 || deny() < 5 {
			return fmt.Errorf("%d flows of VERDICT, %d of them copy", deny(), copied())
		}
		return r.Ready()
	})
}
