package inventory_test

import (
	"fmt"
	"testing"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/inventory"
)

// Who is held to what: declared addresses alone put an endpoint under guard by themselves.
func TestGuards(t *testing.T) {
	const eui = "fe80::5054:ff:fe00:1/128"
	for _, c := range []struct {
		name string
		spec policy.EndpointSpec
		mac  string
		want string
	}{
		{"nothing declared", policy.EndpointSpec{}, "52:54:00:00:00:01", "none"},
		{"declared", policy.EndpointSpec{Addresses: []string{"10.0.0.5", "fd00::5"}}, "52:54:00:00:00:01", "[10.0.0.5/32 fd00::5/128 " + eui +
			"]"},
		{"off", policy.EndpointSpec{Addresses: []string{"10.0.0.5"}, AntiSpoof: "off"}, "52:54:00:00:00:01", "none"},
		{"allowed beside", policy.EndpointSpec{Addresses: []string{"10.0.0.5"}, AllowedAddresses: []string{"10.0.0.50", "10.9.0.0/16",
			"fe80::/10"}},
			"52:54:00:00:00:01", "[10.0.0.5/32 10.0.0.50/32 10.9.0.0/16 fe80::/10 " + eui + "]"},
		{"on without addresses", policy.EndpointSpec{AntiSpoof: "on"}, "52:54:00:00:00:01", "demanded [0.0.0.0/0 ::/0 " + eui + "]"},
		{"forwards", policy.EndpointSpec{Addresses: []string{"10.0.0.5"}, Forwards: true}, "52:54:00:00:00:01", "any source [10.0.0.5/32 " +
			eui + "]"},
		{"virtual router", policy.EndpointSpec{Addresses: []string{"10.0.0.5"}, MACs: []string{"00:00:5e:00:01:01"}}, "52:54:00:00:00:01",
			"[10.0.0.5/32 fe80::200:5eff:fe00:101/128 " + eui + "]"},
		{"other MACs are judged", policy.EndpointSpec{Addresses: []string{"10.0.0.5"}, UnknownMAC: "judge"}, "52:54:00:00:00:01",
			"any MAC [10.0.0.5/32 fe80::/10]"},
		{"MAC unknown", policy.EndpointSpec{Addresses: []string{"10.0.0.5"}}, "", "any MAC [10.0.0.5/32 fe80::/10]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ids := map[string]string{"iface-id": "x"}
			if c.mac != "" {
				ids["attached-mac"] = c.mac
			}
			port := &vswitch.Port{Name: "tap0", Interfaces: []*vswitch.Interface{{Name: "tap0", OFPort: 1, AdminState: "up",
				MACInUse:    "52:54:00:00:00:99",
				ExternalIDs: ids}}}
			topo := &vswitch.Topology{Host: "h", Bridges: map[string]*vswitch.Bridge{"br0": {Name: "br0",
				Ports: map[string]*vswitch.Port{"tap0": port}}}}
			c.spec.Match = policy.Selector{Port: "tap0"}
			e := &policy.Endpoint{Meta: policy.Meta{Name: "e"}, Spec: c.spec}
			if faults := e.Validate(); len(faults) > 0 {
				t.Fatal(faults)
			}
			w := inventory.Build([]inventory.Host{{Topology: topo, Bridges: []string{"br0"}}}, []*policy.Endpoint{e}).Workloads[0]
			got := "none"
			if g := w.Guard; g != nil {
				got = fmt.Sprint(g.Addresses)
				for what, is := range map[string]bool{"any MAC ": g.AnyMAC, "any source ": g.AnySource, "demanded ": g.Demanded} {
					if is {
						got = what + got
					}
				}
			}
			if got != c.want {
				t.Errorf("held to %s, want %s", got, c.want)
			}
		})
	}
}
