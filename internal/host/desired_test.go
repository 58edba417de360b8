package host_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

const staged = "kind: Mirror\nname: staged\nspec: {sources: [{port: vm1}], targets: [{port: {name: ids0}}]}\n"

// stagedTap compiles the mirror "staged" into a bridge of our own between the sources and the target, as compilers of taps may.
func stagedTap(action *atomic.Pointer[string]) func(tap.Input) tap.Plan {
	return func(in tap.Input) tap.Plan {
		plan := tap.Plan{Info: map[string]tap.Info{}}
		for _, m := range in.Mirrors {
			plan.Info[m.Name] = tap.Info{Sources: []string{"br0/vm1"}, Behind: []string{"tw-tap"}}
			plan.Bridges = []vswitch.BridgeSpec{{Owner: m.Name, Name: "tw-tap", DatapathType: "netdev"}}
			patch := func(bridge, name, peer string) vswitch.PortSpec {
				return vswitch.PortSpec{Owner: m.Name, Bridge: bridge, Name: name, Type: "patch", Options: map[string]string{"peer": peer}}
			}
			plan.Ports = []vswitch.PortSpec{patch("br0", "tw-out", "tw-in"), patch("tw-tap", "tw-in", "tw-out"),
				{Owner: m.Name, Bridge: "tw-tap", Name: "ids0", Type: "dummy"}}
			plan.Specs = []vswitch.MirrorSpec{{Owner: m.Name, Bridge: "br0", Name: "tapwall-staged", SelectSrcPort: []string{"vm1"},
				SelectDstPort: []string{"vm1"},
				Output:        vswitch.OutputSpec{Port: "tw-out"}}}
			br := in.Topology.Bridges["tw-tap"]
			if br == nil || br.Ports["ids0"] == nil || br.Ports["ids0"].Interfaces[0].OFPort <= 0 {
				continue // the ports have no numbers yet
			}
			f, err := flow.ParseFlow(fmt.Sprintf("table=0,priority=10,ip,actions=meter:%d,", pipeline.MeterLog) +
				strings.ReplaceAll(*action.Load(), "IDS", fmt.Sprint(br.Ports["ids0"].Interfaces[0].OFPort)))
			if err != nil {
				panic(err)
			}
			f.Cookie = pipeline.SystemCookie(0, pipeline.ItemNone)
			plan.Flows = map[string]tap.Flows{"tw-tap": {Owners: map[string][]flow.Flow{"mirror/staged": {f}},
				Meters: []flow.MeterDesc{{ID: pipeline.MeterLog, Flags: flow.MeterPktps, Bands: []flow.Band{{Type: flow.BandDrop, Rate: 1000}}}}}}
		}
		return plan
	}
}

// A desired state with a bridge of our own comes into force in steps: the bridge and its ports, its meters and flows, and only then the
// mirror that leads there. It is put right when others change it, survives the switch's restart, and leaves nothing.
func TestDesiredBridgeOfOurOwn(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	var action atomic.Pointer[string]
	act := func(s string) { action.Store(&s) }
	act("group:77") // there is no such group, so the switch refuses the flow
	r := h.start(settings{tapCompiler: stagedTap(&action)})
	r.eventually("ready", r.Ready)
	h.put(staged)
	r.eventually("refused", func() error {
		if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "mirror/staged is refused") {
			return fmt.Errorf("ready: %v", err)
		}
		return nil
	})
	if out := h.ovs.Vsctl("list", "Mirror"); out != "" {
		t.Errorf("flows are missing, and traffic is led there:\n%s", out)
	}
	if s := r.Status(policy.KindMirror, "staged"); s.Phase != policy.PhasePending {
		t.Errorf("a mirror that waits for flows: %+v", s)
	}

	act("output:IDS")
	if s := r.apply(strings.Replace(staged, "spec:", "labels: {again: \"1\"}\nspec:", 1)); s.Phase != policy.PhaseActive {
		t.Errorf("a mirror whose flows are there: %+v", s)
	}
	next := uint16(40000)
	delivered := func() error {
		next++
		h.ovs.InjectPacket("vm2", syn(t, macOf("vm2"), macOf("vm1"), "10.0.0.2", "10.0.0.1", next, 80))
		if out := h.ovs.Ofctl("dump-ports", "tw-tap", "ids0"); strings.Contains(out, "tx pkts=0") {
			return fmt.Errorf("no copy: %s", out)
		}
		return nil
	}
	r.eventually("copied", delivered)
	if !strings.Contains(h.ovs.Ofctl("dump-meters", "tw-tap"), "rate=1000") {
		t.Error("the meter is not there")
	}

	// Others change the bridge.
	h.ovs.Ofctl("del-flows", "tw-tap")
	h.ovs.Ofctl("add-flow", "tw-tap", "table=3,priority=7,actions=drop")
	right := func() error {
		if out := h.ovs.Ofctl("dump-flows", "--no-stats", "tw-tap"); !strings.Contains(out, "output:") || strings.Contains(out, "table=3") {
			return fmt.Errorf("flows %s", out)
		}
		return nil
	}
	r.eventually("put right", right)
	h.ovs.KillVswitchd()
	h.ovs.StartVswitchd()
	r.eventually("restored", right)
	r.eventually("copied again", delivered)

	r.remove(policy.KindMirror, "staged")
	r.eventually("cleared away", func() error {
		if br, ports := h.ovs.Vsctl("list-br"), h.ovs.Vsctl("list-ports", "br0"); strings.TrimSpace(br) != "br0" || strings.Contains(ports,
			"tw-") {
			return fmt.Errorf("bridges %s, ports %s", br, ports)
		}
		return nil
	})
	if out := h.ovs.Vsctl("list", "Mirror"); out != "" {
		t.Errorf("it left a mirror: %s", out)
	}
}

// On a guest bridge a way back is one flow and nothing else is touched; whoever takes it away is told of, and it is back. A start finds
// nothing to do, and what an earlier process left there goes.
func TestWayBackOnGuest(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	h.ovs.Ofctl("add-flow", "br0", "cookie=0xbad,priority=9,ip,actions=NORMAL")
	before := h.dump("br0")
	guest := settings{bridges: []host.BridgeConfig{{Name: "br0", Mode: host.Guest}}}
	r := h.ready(guest)
	doc := "kind: Mirror\nname: m\nspec: {sources: [{bridge: br0}], snaplen: 90, targets: [{port: {name: vm2}}], force: true}\n"
	if s := r.apply(doc); s.Phase != policy.PhaseActive || len(s.Warnings) == 0 || s.Warnings[0].Code != tap.WarnTargetExcluded {
		t.Errorf("%+v", s)
	}
	way := func() error {
		more := strings.Split(strings.TrimSpace(strings.ReplaceAll(h.dump("br0"), "\r", "")), "\n")
		more = slices.DeleteFunc(more, func(f string) bool { return strings.Contains(before, f) })
		if len(more) != 1 || !strings.Contains(more[0], "pkt_mark=0x7a11005a") || !strings.Contains(more[0], "max_len=90") {
			return fmt.Errorf("beside what was there: %q", more)
		}
		return nil
	}
	r.eventually("one flow", way)
	row := h.ovs.Vsctl("--bare", "--columns=select_all,select_src_port,select_dst_port", "find", "Mirror", "name!=x")
	if strings.Contains(row, "true") {
		t.Errorf("a row that selects all of a bridge with a target: %s", row)
	}
	h.ovs.Ofctl("del-flows", "br0", "cookie=0x7a9a110000000000/0xffffff0000000000")
	r.eventually("one flow again", way)
	r.eventually("somebody is told of the flow that went", func() error {
		if text := r.notices(event.ActionChangedFlows); !strings.Contains(text, "pkt_mark=0x7a11005a") {
			return errors.New(text)
		}
		return nil
	})

	r.stop()
	taps := h.dump("tw-tap-netdev")
	r = h.ready(guest)
	for _, b := range r.System().Hosts[0].Bridges {
		if b.FlowMods != 0 {
			t.Errorf("a start sent %d flow-mods to %s", b.FlowMods, b.Bridge)
		}
	}
	if now := h.dump("tw-tap-netdev"); now != taps || way() != nil {
		t.Errorf("after a start %v and\n%s---\n%s", way(), now, taps)
	}
	r.stop()
	h.drop(policy.KindMirror, "m")
	h.ready(guest).eventually("all gone", func() error {
		if now := h.dump("br0"); now != before {
			return fmt.Errorf("%s", now)
		}
		return nil
	})
}
