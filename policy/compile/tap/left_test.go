package tap_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// What passes a patch port is copied once, where it leaves a bridge, and nothing else is.
func TestPatchPortAsSource(t *testing.T) {
	for _, direction := range []string{"", "fromSource", "toSource"} {
		in := mirrorWorld()
		join(in, "br0", "br1")
		m := mirror("m", toNewPort("tap0"), policy.Selector{Port: "br0-br1"})
		m.Spec.Direction = direction
		in.Mirrors = []*policy.Mirror{m}
		plan := stagedWorld(in)
		if info := plan.Info["m"]; codes(info) != "" || !info.Form.Staged || strings.Join(info.Sources, " ") != "br0/br0-br1" {
			t.Fatalf("%s: %+v", direction, info)
		}
		var flows []flow.Flow
		for _, owned := range plan.Flows[tapBridge].Owners {
			flows = append(flows, owned...)
		}
		// A packet that crosses is switched by both bridges; it comes into the second by a port at which nothing is copied.
		count := func(hops ...passage) int {
			x := tables{t: t, flows: flows, sent: map[uint32][]packet{}, native: map[string][]packet{}}
			for _, p := range hops {
				p.EtherType = policy.EtherARP
				x.pass(in, plan.Specs, p)
			}
			return len(x.sent[number(in, "tap0")])
		}
		all := []string{"vm2", "eth0", "br0"}
		inward := count(passage{bridge: "br1", from: "vm3", to: []string{"br1"}}, passage{bridge: "br0", to: all})
		outward := count(passage{bridge: "br0", from: "vm1", to: all}, passage{bridge: "br1", to: []string{"vm3", "br1"}})
		local := count(passage{bridge: "br0", from: "vm1", to: all}) + count(passage{bridge: "br1", from: "vm3", to: []string{"br1"}})
		want := map[string][3]int{"": {1, 1, 0}, "fromSource": {1, 0, 0}, "toSource": {0, 1, 0}}[direction]
		if got := [3]int{inward, outward, local}; got != want {
			t.Errorf("%s: copies in, out and within a bridge %v, want %v", direction, got, want)
		}
	}
}

// A mirror of a patch port does not copy its own tunnel packets, which come through it where the collector is reached by the other bridge.
func TestPatchPortCarriesTarget(t *testing.T) {
	for device, want := range map[string]string{"br1": "SourceCarriesTarget!", "br0": "SourceCarriesTarget!", "eth9": ""} {
		in := mirrorWorld()
		join(in, "br0", "br1")
		in.Mirrors = []*policy.Mirror{mirror("m", toVXLAN("192.0.2.9", 5), policy.Selector{Port: "br0-br1"})}
		in.Routes = map[netip.Addr]tap.Route{netip.MustParseAddr("192.0.2.9"): {Device: device}}
		if got := codes(stagedWorld(in).Info["m"]); got != want {
			t.Errorf("reached through %s: %q, want %q", device, got, want)
		}
	}
}

// Where it cannot be known what passed a patch port or left a bridge, the mirror says so and is not Active.
func TestPatchPortRefused(t *testing.T) {
	patch, vm1 := policy.Selector{Port: "br0-br1"}, policy.Selector{Port: "vm1"}
	for _, c := range []struct {
		name    string
		sources []policy.Selector
		change  func(*tap.Input, *policy.MirrorSpec)
		codes   string
		rows    int
	}{
		{"another patch port of its bridge", []policy.Selector{patch}, func(in *tap.Input, _ *policy.MirrorSpec) { join(*in, "br0", "br9") },
			"PatchPort", 0},
		{"the other bridge is not managed", []policy.Selector{patch}, func(in *tap.Input, _ *policy.MirrorSpec) { in.Bridges = []string{"br0"} },
			"PatchPort", 0},
		{"of which one direction does not need", []policy.Selector{patch}, func(in *tap.Input, s *policy.MirrorSpec) {
			in.Bridges, s.Direction = []string{"br0"}, policy.MirrorFromSource
		}, "", 2},
		{"leads nowhere", []policy.Selector{patch}, func(in *tap.Input, _ *policy.MirrorSpec) {
			delete(in.Topology.Bridges["br1"].Ports, "br1-br0")
		}, "SourceMissing", 0},
		{"beside another source", []policy.Selector{patch, vm1}, func(*tap.Input, *policy.MirrorSpec) {}, "DUPLICATES_POSSIBLE", 5},
		{"refused beside another source", []policy.Selector{patch, vm1}, func(in *tap.Input, _ *policy.MirrorSpec) { join(*in, "br0", "br9") },
			"PatchPort", 1},
		{"delivered, on a bridge with a patch port", []policy.Selector{vm1}, func(_ *tap.Input, s *policy.MirrorSpec) {
			s.CapturePoint = policy.CaptureDelivered
		}, "CapturePoint!", 0},
		{"delivered to the source", []policy.Selector{vm1}, func(_ *tap.Input, s *policy.MirrorSpec) {
			s.CapturePoint, s.Direction = policy.CaptureDelivered, policy.MirrorToSource
		}, "", 1},
	} {
		in := mirrorWorld()
		join(in, "br0", "br1")
		m := mirror("m", toNewPort("tap0"), c.sources...)
		c.change(&in, &m.Spec)
		in.Mirrors = []*policy.Mirror{m}
		plan := stagedWorld(in)
		if got := codes(plan.Info["m"]); got != c.codes || len(plan.Specs) != c.rows {
			t.Errorf("%s: %q and %d rows, want %q and %d: %+v", c.name, got, len(plan.Specs), c.codes, c.rows, plan.Info["m"])
		}
	}
}
