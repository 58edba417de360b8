package inventory_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/inventory"
)

func options(kv ...string) func(*vswitch.Port) {
	return iface(func(i *vswitch.Interface) {
		i.Options = map[string]string{}
		for n := 0; n < len(kv); n += 2 {
			i.Options[kv[n]] = kv[n+1]
		}
	})
}

func member(ifaceType string) func(*vswitch.Port) {
	return func(p *vswitch.Port) {
		p.Interfaces = append(p.Interfaces, &vswitch.Interface{Name: p.Name + "-2", Type: ifaceType, OFPort: 2})
	}
}

func TestKinds(t *testing.T) {
	machine := ids("iface-id", "i")
	tests := []struct {
		name string
		port plug
		want inventory.Kind
	}{
		{"a bare device", port("br0", "eth0"), inventory.KindUplink},
		{"system", port("br0", "p", ofType("system")), inventory.KindUplink},
		{"tap", port("br0", "p", ofType("tap")), inventory.KindUplink},
		{"dpdk", port("br0", "p", ofType("dpdk")), inventory.KindUplink},
		{"afxdp", port("br0", "p", ofType("afxdp")), inventory.KindUplink},
		{"afxdp-nonpmd", port("br0", "p", ofType("afxdp-nonpmd")), inventory.KindUplink},
		{"internal", port("br0", "p", ofType("internal")), inventory.KindLocal},
		{"patch", port("br0", "p", ofType("patch")), inventory.KindPatch},
		{"vxlan", port("br0", "p", ofType("vxlan")), inventory.KindTunnel},
		{"geneve", port("br0", "p", ofType("geneve")), inventory.KindTunnel},
		{"gre", port("br0", "p", ofType("gre")), inventory.KindTunnel},
		{"ip6gre", port("br0", "p", ofType("ip6gre")), inventory.KindTunnel},
		{"erspan", port("br0", "p", ofType("erspan")), inventory.KindTunnel},
		{"ip6erspan", port("br0", "p", ofType("ip6erspan")), inventory.KindTunnel},
		{"stt", port("br0", "p", ofType("stt")), inventory.KindTunnel},
		{"lisp", port("br0", "p", ofType("lisp")), inventory.KindTunnel},
		{"gtpu", port("br0", "p", ofType("gtpu")), inventory.KindTunnel},
		{"bareudp", port("br0", "p", ofType("bareudp")), inventory.KindTunnel},
		{"srv6", port("br0", "p", ofType("srv6")), inventory.KindTunnel},
		{"dpdkvhostuser", port("br0", "p", ofType("dpdkvhostuser")), inventory.KindUnknown},
		{"dpdkvhostuserclient", port("br0", "p", ofType("dpdkvhostuserclient")), inventory.KindUnknown},
		{"a type of tomorrow", port("br0", "p", ofType("quantum")), inventory.KindUnknown},
		{"a row without interfaces", port("br0", "p", func(p *vswitch.Port) { p.Interfaces = nil }), inventory.KindUnknown},
		{"LOCAL", port("br0", "br0", ofType("internal")), inventory.KindLocal},
		{"LOCAL whatever is written there", port("br0", "br0", ofType("internal"), machine), inventory.KindLocal},
		{"a mirror's output", port("br0", "p", ofType("internal"), made), inventory.KindTap},
		{"a mirror's tunnel", port("br0", "p", ofType("vxlan"), made, machine), inventory.KindTap},
		{"a machine", port("br0", "p", machine), inventory.KindEndpoint},
		{"a machine by its MAC", port("br0", "p", ids("attached-mac", "52:54:00:00:00:01")), inventory.KindEndpoint},
		{"a machine by its id", port("br0", "p", ofType("internal"), ids("vm-uuid", "u")), inventory.KindEndpoint},
		{"a machine on a vhost-user socket", port("br0", "p", ofType("dpdkvhostuserclient"), ids("vm-id", "1")), inventory.KindEndpoint},
		{"a mark on the Port", port("br0", "p", func(p *vswitch.Port) { p.ExternalIDs = map[string]string{"vm-id": "1"} }),
			inventory.KindEndpoint},
		{"a name is no mark", port("br0", "p", ids("vm-name", "web")), inventory.KindUplink},
		{"a patch port with a mark", port("br0", "p", ofType("patch"), machine), inventory.KindPatch},
		{"a tunnel with a mark", port("br0", "p", ofType("geneve"), machine), inventory.KindTunnel},
		{"a bond", port("br0", "bond", ofType("dpdk"), member("dpdk")), inventory.KindUplink},
		{"a bond of a machine", port("br0", "bond", machine, member("")), inventory.KindEndpoint},
		{"a bond whose first says nothing", port("br0", "bond", ofType("dummy"), member("")), inventory.KindUplink},
		{"what an Endpoint resource finds", port("br0", "named"), inventory.KindEndpoint},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inv := inventory.Build(hostsOf([]plug{tt.port}), []*policy.Endpoint{endpoint("e", policy.Selector{Port: "named"})})
			p := inv.Port("", tt.port.bridge, tt.port.Name)
			if p.Kind != tt.want {
				t.Errorf("is %s, want %s", p.Kind, tt.want)
			}
			if (p.Workload != nil) != (tt.want == inventory.KindEndpoint) {
				t.Errorf("workload %v", p.Workload)
			}
		})
	}
}

func TestPorts(t *testing.T) {
	bond := port("br0", "bond", inUse("52:54:00:00:00:01"), member("dpdk"), mode("native-untagged"), tag(4))
	bond.Interfaces[1].Error, bond.Interfaces[1].AdminState = "no such device", "down"
	ports := []plug{
		port("br1", "z", tag(3), without),
		port("br0", "vx", ofType("vxlan"), mode("trunk"), tag(9), options("remote_ip", "192.0.2.9")),
		port("br0", "vx6", ofType("vxlan"), options("remote_ip", "2001:db8:0::9", "dst_port", "4790")),
		port("br0", "vxflow", ofType("vxlan"), options("remote_ip", "flow")),
		port("br0", "gre", ofType("gre"), options("remote_ip", "192.0.2.9")),
		port("br0", "qinq", mode("dot1q-tunnel"), tag(5)),
		port("br0", "int", ofType("internal"), inUse("52:54:00:00:00:0A"), mode("access")),
		bond, port("br9", "vm9", ids("iface-id", "x")),
	}
	hosts := hostsOf(ports)
	hosts[0].Bridges = []string{"br1", "br0", "br7"}
	inv := inventory.Build(hosts, []*policy.Endpoint{endpoint("e", policy.Selector{Port: "vm9"}), endpoint("z", policy.Selector{Port: "z"})})
	one := func(i inventory.Interface) []inventory.Interface {
		i.OFPort, i.HasDevice = 1, true
		return []inventory.Interface{i}
	}
	z := inv.Workloads[0]
	want := []inventory.Port{
		{Bridge: "br0", Name: "bond", Kind: inventory.KindUplink, VLAN: 4, Tagged: true, Interfaces: []inventory.Interface{
			{Name: "bond", OFPort: 1, HasDevice: true, MAC: "52:54:00:00:00:01", System: true}, {Name: "bond-2", OFPort: 2}}},
		{Bridge: "br0", Name: "gre", Kind: inventory.KindTunnel, Tagged: true, Interfaces: one(inventory.Interface{Name: "gre",
			Tunnel: inventory.Tunnel{Type: "gre", Remote: netip.MustParseAddr("192.0.2.9")}})},
		{Bridge: "br0", Name: "int", Kind: inventory.KindLocal, MAC: "52:54:00:00:00:0a",
			Interfaces: one(inventory.Interface{Name: "int", MAC: "52:54:00:00:00:0A", Internal: true})},
		{Bridge: "br0", Name: "qinq", Kind: inventory.KindUplink, VLAN: 5, Interfaces: one(inventory.Interface{Name: "qinq", System: true})},
		{Bridge: "br0", Name: "vx", Kind: inventory.KindTunnel, Tagged: true,
			Interfaces: one(inventory.Interface{Name: "vx", Tunnel: inventory.Tunnel{Type: "vxlan", Remote: netip.MustParseAddr("192.0.2.9"),
				DstPort: 4789}})},
		{Bridge: "br0", Name: "vx6", Kind: inventory.KindTunnel, Tagged: true,
			Interfaces: one(inventory.Interface{Name: "vx6", Tunnel: inventory.Tunnel{Type: "vxlan", Remote: netip.MustParseAddr("2001:db8::9"),
				DstPort: 4790}})},
		{Bridge: "br0", Name: "vxflow", Kind: inventory.KindTunnel, Tagged: true, Interfaces: one(inventory.Interface{Name: "vxflow"})},
		{Bridge: "br1", Name: "z", Kind: inventory.KindEndpoint, VLAN: 3, Fault: "Open vSwitch has refused it", Workload: z,
			Interfaces: []inventory.Interface{{Name: "z", System: true}}},
		{Bridge: "br9", Name: "vm9", Kind: inventory.KindEndpoint, Tagged: true, // and its bridge is not managed
			Interfaces: one(inventory.Interface{Name: "vm9", System: true})},
	}
	if diff := cmp.Diff(want, inv.Ports, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if len(inv.Workloads) != 2 || z.Key != "br1/z" || inv.Workloads[1].Key != "endpoint/e" || !inv.Workloads[1].Remote {
		t.Errorf("workloads %+v", inv.Workloads)
	}
	if got := inv.On("", "br1"); len(got) != 1 || got[0].String() != "br1/z (no device: Open vSwitch has refused it)" {
		t.Errorf("on br1: %v", got)
	}
	if len(inv.On("", "br7")) != 0 || len(inv.On("h", "br0")) != 0 || inv.Port("", "br0", "z") != nil {
		t.Error("there is something where nothing is")
	}
}

// What was left of a port that went is still the machine's, so it is no uplink, and nobody's workload.
func TestLeftoverHasNoWorkload(t *testing.T) {
	inv := inventory.Build(hostsOf([]plug{port("br0", "a", without, ids("iface-id", "i")), port("br0", "b", ids("iface-id", "i"))}), nil)
	if p := inv.Port("", "br0", "a"); p.Kind != inventory.KindEndpoint || p.Workload != nil {
		t.Errorf("%+v", p)
	}
	if p := inv.Port("", "br0", "b"); p.Workload == nil || p.Workload.Key != "i" || p.Workload != inv.Workloads[0] {
		t.Errorf("%+v", p)
	}
}
