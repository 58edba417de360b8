package host

import (
	"testing"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

func TestFixedReleases(t *testing.T) {
	topo := func(version, kind string) *vswitch.Topology {
		return &vswitch.Topology{OVSVersion: version, Bridges: map[string]*vswitch.Bridge{"b": {DatapathType: kind}}}
	}
	for version, want := range map[string]struct{ fragments, mixesUp bool }{
		"": {false, true}, "?": {false, true}, "2.17.7": {false, true}, "2.17.8": {false, false}, "3.0.4": {false, true}, "3.0.7": {false, false},
		"3.1.0": {false, true}, "3.1.2": {false, true}, "3.1.6": {false, false}, "3.1.7": {true, false}, "3.1.10": {true, false},
		"3.2.0": {false, false}, "3.2.5": {true, false}, "3.3.3": {false, false}, "3.3.4-2ubuntu1": {true, false}, "3.4.1": {false, false},
		"3.4.2": {true, false}, "3.5.0": {true, false}, "3.6.1": {true, false}, "4.0.0": {true, false},
	} {
		if got := firstFragments(topo(version, "netdev"), []BridgeConfig{{Name: "b", Mode: Owned}}); got != want.fragments {
			t.Errorf("%q may begin with fragments: %v", version, got)
		}
		if got := mixesUpCaches(topo(version, "netdev"), "b"); got != want.mixesUp {
			t.Errorf("%q mixes up its caches: %v", version, got)
		}
		if mixesUpCaches(topo(version, "system"), "b") || mixesUpCaches(topo(version, ""), "b") || mixesUpCaches(topo(version, "netdev"), "c") {
			t.Errorf("%q mixes up the caches of the kernel", version)
		}
	}
}

// The userspace datapath alone has the fault, and on bridges that are not owned it does not matter.
func TestFirstFragments(t *testing.T) {
	topo := &vswitch.Topology{OVSVersion: "3.1.0", Bridges: map[string]*vswitch.Bridge{
		"netdev": {DatapathType: "netdev"}, "kernel": {DatapathType: "system"}, "default": {}}}
	for _, c := range []struct {
		bridges []BridgeConfig
		want    bool
	}{
		{[]BridgeConfig{{Name: "kernel", Mode: Owned}, {Name: "default", Mode: Owned}, {Name: "netdev", Mode: Guest}}, true},
		{[]BridgeConfig{{Name: "kernel", Mode: Owned}, {Name: "netdev", Mode: Owned}}, false},
	} {
		if got := firstFragments(topo, c.bridges); got != c.want {
			t.Errorf("%v: %v", c.bridges, got)
		}
	}
}
