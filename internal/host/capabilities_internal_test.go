package host

import (
	"testing"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

func TestFragmentsFixed(t *testing.T) {
	for version, want := range map[string]bool{
		"": false, "?": false, "2.17.9": false, "3.0.7": false, "3.1.0": false, "3.1.6": false, "3.1.7": true, "3.1.10": true, "3.2.4": false,
		"3.2.5": true, "3.3.3": false, "3.3.4-2ubuntu1": true, "3.4.1": false, "3.4.2": true, "3.5.0": true, "3.6.1": true, "4.0.0": true,
	} {
		if got := fragmentsFixed(version); got != want {
			t.Errorf("%q: %v", version, got)
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
