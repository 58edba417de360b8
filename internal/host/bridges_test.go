package host_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

const localTap = `
kind: Mirror
name: tap
spec:
  sources: [{port: vm1}]
  targets: [{port: {name: ids0, create: true}}]
`

// A bridge that goes takes nothing else with it, not even one with a mirror; when it comes back, everything does, under the same ids.
func TestBridgeGoesAndComesBack(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0", "br1")
	h.plug("br0", vms("vm1", "vm2")...)
	h.plug("br1", vms("vm3")...)
	r := h.ready(settings{bridges: owned("br0", "br1")})
	h.put(allow("p", "vm1", "{port: vm2}", "80"))
	h.put(allow("q", "vm3", "{cidr: 10.0.0.0/8}", "80"))
	r.apply(localTap)
	before, ids := r.flows(backend.FlowQuery{Bridge: "br0", Table: table(pipeline.TableIngress)}), r.ids("p")

	h.ovs.Vsctl("del-br", "br0")
	r.eventually("gone", func() error {
		if hosts := r.Hosts(); len(hosts[0].Bridges) != 1 {
			return fmt.Errorf("%+v", hosts)
		}
		return nil
	})
	if s := strings.Join(r.System().Problems, "; "); !strings.Contains(s, "bridge br0 does not exist") {
		t.Errorf("problems without the bridge: %s", s)
	}
	if s := r.Status(policy.KindPolicy, "p"); s.Phase != policy.PhasePending || s.Reason != policy.ReasonNoEndpoints {
		t.Errorf("policy without its bridge: %+v", s)
	}
	if s := r.apply(allow("q", "vm3", "{cidr: 10.0.0.0/8}", "81")); s.Phase != policy.PhaseActive {
		t.Errorf("the other bridge's policy: %+v", s)
	}
	r.eventually("the mirror is degraded", func() error {
		if s := r.Status(policy.KindMirror, "tap"); s.Phase != policy.PhaseDegraded || s.Reason != policy.ReasonSourceMissing {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})

	h.ovs.Vsctl(append([]string{"add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev", "--"},
		plugs("br0", vms("vm1", "vm2")...)...)...)
	r.eventually("active again", func() error {
		for kind, name := range map[policy.Kind]string{policy.KindPolicy: "p", policy.KindMirror: "tap"} {
			if s := r.Status(kind, name); s.Phase != policy.PhaseActive {
				return fmt.Errorf("%s %+v", name, s)
			}
		}
		return nil
	})
	r.settled()
	if diff := diff(ids, r.ids("p")); diff != "" {
		t.Errorf("ids (-before +after):\n%s", diff)
	}
	if diff := diff(before, r.flows(backend.FlowQuery{Bridge: "br0", Table: table(pipeline.TableIngress)})); diff != "" {
		t.Errorf("flows (-before +after):\n%s", diff)
	}
}

// A bridge that is named before it exists is managed as soon as it does.
func TestBridgeAppearsLater(t *testing.T) {
	t.Parallel()
	h := newMachine(t)
	h.put(allow("p", "vm1", "{cidr: 10.0.0.0/8}", "80"))
	r := h.start(settings{})
	r.eventually("seen", func() error {
		if s := r.Status(policy.KindPolicy, "p"); s.Phase != policy.PhaseDegraded || s.Reason != policy.ReasonNoOwnedBridge {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if s := r.System(); s.Healthy || strings.Join(s.Problems, "") != "bridge br0 does not exist" {
		t.Errorf("health without the bridge: %+v", s)
	}
	if h := r.System().Hosts[0]; h.Desired == 0 || h.Installed != 0 {
		t.Errorf("in force without the bridge: revision %d of %d", h.Installed, h.Desired)
	}
	h.ovs.Vsctl("add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev")
	h.plug("br0", vms("vm1")...)
	r.eventually("active", func() error {
		if s := r.Status(policy.KindPolicy, "p"); s.Phase != policy.PhaseActive {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if got := strings.TrimSpace(h.ovs.Vsctl("get-fail-mode", "br0")); got != "secure" {
		t.Errorf("fail mode %q", got)
	}
}

// Every owned bridge has conntrack zones of its own, which stay when bridges go and processes end.
func TestBridgeZones(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0", "br1")
	h.plug("br0", vms("vm1")...)
	h.plug("br1", vms("vm2")...)
	zones := func(r *run) map[string]bool {
		out := map[string]bool{}
		for _, b := range []string{"br0", "br1"} {
			if zone := r.zone(b); zone != "" {
				out[b+" "+zone] = true
			}
		}
		return out
	}
	r := h.ready(settings{bridges: owned("br0")})
	want := map[string]bool{"br0 0xe000": true}
	if diff := diff(want, zones(r)); diff != "" {
		t.Fatalf("zones (-want +got):\n%s", diff)
	}
	r.stop()
	// The new one comes first in the list and gets the next index all the same.
	r = h.ready(settings{bridges: owned("br1", "br0")})
	want["br1 0xd000"] = true
	if diff := diff(want, zones(r)); diff != "" {
		t.Errorf("zones (-want +got):\n%s", diff)
	}
	r.stop()
	h.ovs.Vsctl("del-br", "br0")
	r = h.ready(settings{bridges: owned("br1")})
	delete(want, "br0 0xe000")
	if diff := diff(want, zones(r)); diff != "" {
		t.Errorf("zones alone (-want +got):\n%s", diff)
	}
}

// One bridge too many is said to be so, and costs the others nothing.
func TestTooManyBridges(t *testing.T) {
	t.Parallel()
	h := newMachine(t)
	var names []string
	for i := range pipeline.MaxBridges + 1 {
		names = append(names, fmt.Sprintf("b%d", i))
		h.ovs.AddBridge(names[i], "netdev")
	}
	h.plug("b0", vms("vm1")...)
	h.put(allow("p", "vm1", "{cidr: 10.0.0.0/8}", "80"))
	r := h.start(settings{bridges: owned(names...)})
	r.eventually("the first bridges work", func() error {
		if s := r.Status(policy.KindPolicy, "p"); s.Phase != policy.PhaseActive {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	r.eventually("the last is refused", func() error {
		s := r.System()
		if text := strings.Join(s.Problems, "; "); !strings.Contains(text, "at most 8 bridges") || strings.Count(text, "bridge b") != 1 {
			return fmt.Errorf("%s", text)
		}
		return nil
	})
	if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "at most 8 bridges") {
		t.Errorf("Ready: %v", err)
	}
	if s := r.apply(allow("p", "vm1", "{cidr: 10.0.0.0/8}", "81")); s.Phase != policy.PhaseActive {
		t.Errorf("a change while the last bridge is refused: %+v", s)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	cfg := func(name string, mode host.Mode, fail string) host.BridgeConfig {
		return host.BridgeConfig{Name: name, Mode: mode, FailMode: fail}
	}
	for want, bridges := range map[string][]host.BridgeConfig{
		"without a name":            {cfg("", host.Owned, "")},
		"named twice":               {cfg("br0", host.Owned, ""), cfg("br0", host.Guest, "")},
		"neither owned nor guest":   {cfg("br0", "borrowed", "")},
		"neither secure nor standa": {cfg("br0", host.Owned, "open")},
	} {
		if _, err := host.New(host.Options{Bridges: bridges}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("bridges %+v: error %v, want %q", bridges, err, want)
		}
	}
	mine := []host.BridgeConfig{cfg("br0", host.Owned, "")}
	if _, err := host.New(host.Options{Bridges: mine}); err != nil || mine[0].FailMode != "" {
		t.Errorf("New changed its caller's bridges to %+v (%v)", mine, err)
	}
}

func table(id uint8) *uint8 { return &id }
