package wall_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
	"github.com/tapwall/tapwall/policy/inventory"
)

// Whatever may pass traffic and is no endpoint is a plain port, each interface of a bond for itself.
func TestPlainPorts(t *testing.T) {
	live := func(name string, n uint32) inventory.Interface {
		return inventory.Interface{Name: name, OFPort: n, HasDevice: true}
	}
	got := wall.PlainPorts([]inventory.Port{
		{Name: "bond", Kind: inventory.KindUplink, VLAN: 4, Tagged: true, Interfaces: []inventory.Interface{live("eth0", 1),
			{Name: "eth1", OFPort: 2}, live("eth2", 3)}},
		{Name: "br0", Kind: inventory.KindLocal, Interfaces: []inventory.Interface{live("br0", 65534)}},
		{Name: "ids", Kind: inventory.KindTap, Interfaces: []inventory.Interface{live("ids", 5)}},
		{Name: "left", Kind: inventory.KindEndpoint, Interfaces: []inventory.Interface{{Name: "left", OFPort: 6}}},
		{Name: "vhost", Kind: inventory.KindUnknown, VLAN: 7, Interfaces: []inventory.Interface{live("vhost", 7)}},
		{Name: "vm", Kind: inventory.KindEndpoint, Workload: &policy.Workload{}, Interfaces: []inventory.Interface{live("vm", 8)}},
	})
	want := []wall.Port{{Name: "eth0", OFPort: 1, VLAN: 4, Tagged: true}, {Name: "eth2", OFPort: 3, VLAN: 4, Tagged: true},
		{Name: "br0", OFPort: 65534},
		{Name: "vhost", OFPort: 7, VLAN: 7}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
