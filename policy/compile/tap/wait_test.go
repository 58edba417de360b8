package tap_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// Without sources the ports that mirrors create are there, where they were before; what nobody of this host reads is not.
func TestWithoutSources(t *testing.T) {
	gone, filter := policy.Selector{VM: "gone"}, &policy.MirrorFilter{Default: policy.FilterAccept}
	far := gone
	far.Host = "other"
	staged := func(m *policy.Mirror) *policy.Mirror { m.Spec.Filter = filter; return m }
	stands := func(in tap.Input, bridge, port string) {
		in.Topology.Bridges[bridge].Ports[port] = &vswitch.Port{Name: port, Interfaces: []*vswitch.Interface{{Name: port, Type: "internal",
			OFPort: 20}}, ExternalIDs: map[string]string{vswitch.MarkOwner: vswitch.OwnerValue}}
	}
	files := mirror("m", toFiles("f"), gone)
	reads := compile(tap.Input{Topology: mirrorWorld().Topology, Bridges: []string{"br0"},
		Mirrors: []*policy.Mirror{mirror("m", toFiles("f"), policy.Selector{Port: "vm1"})}}).Info["m"].Captures[0].Port
	for _, c := range []struct {
		name string
		m    *policy.Mirror
		at   []string          // bridge and port that are there
		want map[string]string // ports that are wanted, with their bridge
	}{
		{"native", mirror("m", toNewPort("ids0"), gone), nil, map[string]string{"ids0": "br0"}},
		{"native, made on another bridge", mirror("m", toNewPort("ids0"), gone), []string{"br1", "ids0"}, map[string]string{"ids0": "br1"}},
		{"native, staged before a restart", mirror("m", toNewPort("ids0"), gone), []string{tapBridge, "ids0"},
			map[string]string{"ids0": tapBridge}},
		{"staged", staged(mirror("m", toNewPort("ids0"), gone)), nil, map[string]string{"ids0": tapBridge}},
		{"sources of another host", mirror("m", toNewPort("ids0"), far), nil, nil},
		{"staged, sources of another host", staged(mirror("m", toNewPort("ids0"), far)), nil, nil},
		{"a port that is there", mirror("m", toPort("ids"), gone), nil, nil},
		{"a tunnel", mirror("m", toVXLAN("192.0.2.9", 5), gone), nil, nil},
		{"files that nobody has begun", files, nil, nil},
		{"files", files, []string{tapBridge, reads}, map[string]string{reads: tapBridge}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := mirrorWorld()
			if c.at != nil {
				in.Topology.Bridges[tapBridge] = &vswitch.Bridge{Name: tapBridge, Ports: map[string]*vswitch.Port{},
					ExternalIDs: map[string]string{vswitch.MarkOwner: vswitch.OwnerValue}}
				stands(in, c.at[0], c.at[1])
			}
			in.Mirrors = []*policy.Mirror{c.m}
			plan := compile(in)
			got, needs := map[string]string{}, false
			for _, p := range plan.Ports {
				got[p.Name], needs = p.Bridge, needs || p.Bridge == tapBridge
			}
			if diff := cmp.Diff(c.want, got); len(c.want)+len(got) > 0 && diff != "" {
				t.Errorf("ports (-want +got):\n%s", diff)
			}
			has := slices.ContainsFunc(plan.Bridges, func(b vswitch.BridgeSpec) bool { return b.Name == tapBridge })
			if has != needs || len(plan.Specs) > 0 {
				t.Errorf("bridges %v, rows %v", plan.Bridges, plan.Specs)
			}
		})
	}
}
