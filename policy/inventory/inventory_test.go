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

func endpoint(name string, match policy.Selector, edit ...func(*policy.EndpointSpec)) *policy.Endpoint {
	e := &policy.Endpoint{Meta: policy.Meta{Name: name}, Spec: policy.EndpointSpec{Match: match}}
	for _, f := range edit {
		f(&e.Spec)
	}
	return e
}

func withMAC(mac string) func(*policy.EndpointSpec) {
	return func(s *policy.EndpointSpec) { s.MAC = mac }
}

func withLabels(kv ...string) func(*policy.EndpointSpec) {
	return func(s *policy.EndpointSpec) {
		s.Labels = map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			s.Labels[kv[i]] = kv[i+1]
		}
	}
}

func withMACs(ms ...string) func(*policy.EndpointSpec) {
	return func(s *policy.EndpointSpec) { s.MACs = ms }
}

func withAddresses(as ...string) func(*policy.EndpointSpec) {
	return func(s *policy.EndpointSpec) { s.Addresses = as }
}

// plug is a port with where it is.
type plug struct {
	host, bridge string
	*vswitch.Port
}

func port(bridge, name string, edit ...func(*vswitch.Port)) plug {
	p := &vswitch.Port{Name: name, Interfaces: []*vswitch.Interface{{Name: name, OFPort: 1}}}
	for _, f := range edit {
		f(p)
	}
	return plug{bridge: bridge, Port: p}
}

func on(host string, p plug) plug { p.host = host; return p }

// hostsOf puts ports where they belong. All bridges are managed.
func hostsOf(ports []plug) []inventory.Host {
	hosts := map[string]*inventory.Host{}
	for _, p := range ports {
		h := hosts[p.host]
		if h == nil {
			h = &inventory.Host{Topology: &vswitch.Topology{Host: p.host, Bridges: map[string]*vswitch.Bridge{}}}
			hosts[p.host] = h
		}
		b := h.Topology.Bridges[p.bridge]
		if b == nil {
			b = &vswitch.Bridge{Name: p.bridge, Ports: map[string]*vswitch.Port{}}
			h.Topology.Bridges[p.bridge] = b
			h.Bridges = append(h.Bridges, p.bridge)
		}
		b.Ports[p.Name] = p.Port
	}
	var out []inventory.Host
	for _, h := range hosts {
		out = append(out, *h)
	}
	return out
}

func ids(kv ...string) func(*vswitch.Port) {
	return iface(func(i *vswitch.Interface) {
		i.ExternalIDs = map[string]string{}
		for n := 0; n < len(kv); n += 2 {
			i.ExternalIDs[kv[n]] = kv[n+1]
		}
	})
}

// iface edits the first interface.
func iface(edit func(*vswitch.Interface)) func(*vswitch.Port) {
	return func(p *vswitch.Port) { edit(p.Interfaces[0]) }
}

func ofType(s string) func(*vswitch.Port) { return iface(func(i *vswitch.Interface) { i.Type = s }) }
func inUse(mac string) func(*vswitch.Port) {
	return iface(func(i *vswitch.Interface) { i.MACInUse = mac })
}
func number(n int64) func(*vswitch.Port) { return iface(func(i *vswitch.Interface) { i.OFPort = n }) }
func tag(v int) func(*vswitch.Port)      { return func(p *vswitch.Port) { p.Tag = &v } }
func mode(s string) func(*vswitch.Port)  { return func(p *vswitch.Port) { p.VLANMode = s } }

// without takes the device away.
func without(p *vswitch.Port) { p.Interfaces[0].OFPort = -1 }

// gone is without, as it is where the device was there before.
func gone(p *vswitch.Port) {
	p.Interfaces[0].AdminState, p.Interfaces[0].Error = "down", "no such thing"
}

// made marks a port that tapwall made.
func made(p *vswitch.Port) { p.ExternalIDs = map[string]string{vswitch.MarkOwner: vswitch.OwnerValue} }

func addrs(ss ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func codes(ws []inventory.Warning) []string {
	var out []string
	for _, w := range ws {
		out = append(out, string(w.Code)+" "+w.Endpoint)
	}
	return out
}

var sameAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestWorkloads(t *testing.T) {
	tests := []struct {
		name      string
		ports     []plug
		endpoints []*policy.Endpoint
		want      []*policy.Workload
		warnings  []string
	}{
		{
			name: "OK everything OVSDB says",
			ports: []plug{port("br0", "tap1", tag(10), number(7),
				ids("iface-id", "5a1c", "attached-mac", "52:54:00:AA:00:01", "vm-uuid", "u1", "vlan", "not this one", "team", "net"))},
			want: []*policy.Workload{{
				Key: "5a1c", Bridge: "br0", Port: "tap1", OFPort: 7, MAC: "52:54:00:aa:00:01", VLAN: 10,
				Labels: map[string]string{"iface-id": "5a1c", "attached-mac": "52:54:00:AA:00:01", "vm-uuid": "u1", "vlan": "10", "team": "net",
					"bridge": "br0", "port": "tap1"},
				LabelFrom: map[string]string{"iface-id": "ovsdb", "attached-mac": "ovsdb", "vm-uuid": "ovsdb", "vlan": "ovsdb", "team": "ovsdb",
					"bridge": "ovsdb",
					"port":   "ovsdb"},
			}},
		},
		{
			name: "OK a bond, whose first interface has no number",
			ports: []plug{port("br0", "bond", ids("iface-id", "b"), number(-1), func(p *vswitch.Port) {
				for _, n := range []int64{4, 0, 3} {
					p.Interfaces = append(p.Interfaces, &vswitch.Interface{OFPort: n})
				}
			})},
			want: []*policy.Workload{{Key: "b", Bridge: "br0", Port: "bond", OFPort: 4, Members: []uint32{3}}},
		},
		{
			name:  "OK what an Endpoint resource adds wins",
			ports: []plug{port("br0", "tap1", ids("vm-id", "1", "app", "db"))},
			endpoints: []*policy.Endpoint{endpoint("vm1", policy.Selector{Port: "tap1"}, withMAC("52:54:00:00:00:0A"), withLabels("app", "web"),
				withAddresses("2001:db8::5", "10.0.0.5"))},
			want: []*policy.Workload{{
				Key: "br0/tap1", Bridge: "br0", Port: "tap1", OFPort: 1, MAC: "52:54:00:00:00:0a", Endpoint: "vm1",
				Labels:    map[string]string{"vm-id": "1", "app": "web", "bridge": "br0", "port": "tap1"},
				LabelFrom: map[string]string{"vm-id": "ovsdb", "app": "endpoint/vm1", "bridge": "ovsdb", "port": "ovsdb"},
				Addresses: addrs("10.0.0.5", "2001:db8::5"),
			}},
		},
		{
			name: "OK further MACs, in whatever case and order",
			ports: []plug{port("br0", "a", ids("attached-mac", "52:54:00:00:00:01")), port("br0", "b"), port("br0", "c", ids("attached-mac",
				"52:54:00:00:00:03"))},
			endpoints: []*policy.Endpoint{endpoint("a", policy.Selector{Port: "a"}, withMACs("00:00:5E:00:01:02", "00:00:5e:00:01:01")),
				endpoint("b", policy.Selector{Port: "b"}, withMACs("00:00:5e:00:01:04", "00:00:5e:00:01:03"),
					func(s *policy.EndpointSpec) { s.UnknownMAC = "judge" }),
				endpoint("c", policy.Selector{Port: "c"}, withMAC("52:54:00:00:00:0c"), withMACs("52:54:00:00:00:03"))},
			want: []*policy.Workload{
				{Key: "br0/a", Bridge: "br0", Port: "a", OFPort: 1, MAC: "52:54:00:00:00:01", MACs: []string{"00:00:5e:00:01:01",
					"00:00:5e:00:01:02"}, DropUnknownMAC: true, Endpoint: "a"},
				{Key: "br0/b", Bridge: "br0", Port: "b", OFPort: 1, MAC: "00:00:5e:00:01:04", MACs: []string{"00:00:5e:00:01:03"}, Endpoint: "b"},
				{Key: "br0/c", Bridge: "br0", Port: "c", OFPort: 1, MAC: "52:54:00:00:00:0c", MACs: []string{"52:54:00:00:00:03"},
					DropUnknownMAC: true, Endpoint: "c"},
			},
		},
		{
			name:  "bad one MAC declared twice",
			ports: []plug{port("br0", "a", ids("attached-mac", "52:54:00:00:00:01")), port("br0", "b", ids("attached-mac", "52:54:00:00:00:02"))},
			endpoints: []*policy.Endpoint{endpoint("a", policy.Selector{Port: "a"}, withMACs("00:00:5e:00:01:01")),
				endpoint("b", policy.Selector{Port: "b"}, withMACs("00:00:5e:00:01:01"))},
			want: []*policy.Workload{
				{Key: "br0/a", Bridge: "br0", Port: "a", OFPort: 1, MAC: "52:54:00:00:00:01", MACs: []string{"00:00:5e:00:01:01"},
					DropUnknownMAC: true, Endpoint: "a"},
				{Key: "br0/b", Bridge: "br0", Port: "b", OFPort: 1, MAC: "52:54:00:00:00:02", MACs: []string{"00:00:5e:00:01:01"},
					DropUnknownMAC: true, Endpoint: "b"},
			},
			warnings: []string{"DUPLICATE_MAC br0/a", "DUPLICATE_MAC br0/b"},
		},
		{
			name: "bad a port that went to another machine gets nothing of the Endpoint, and none takes its addresses for it",
			ports: []plug{port("br0", "tap1", ids("attached-mac", "52:54:00:00:00:02")), port("br0", "tap2", ids("iface-id", "i", "attached-mac",
				"52:54:00:00:00:03"))},
			endpoints: []*policy.Endpoint{
				endpoint("vm1", policy.Selector{Port: "tap1"}, withMAC("52:54:00:00:00:01"), withLabels("app", "db"), withAddresses("10.0.0.5")),
				endpoint("vm2", policy.Selector{NeutronPort: "i"}, withMAC("52:54:00:00:00:01"), withLabels("app", "db")),
				endpoint("vm3", policy.Selector{Port: "tap2"}, withMAC("52:54:00:00:00:03"))},
			want: []*policy.Workload{
				{Key: "br0/tap1", Bridge: "br0", Port: "tap1", OFPort: 1, MAC: "52:54:00:00:00:02"},
				{Key: "i", Bridge: "br0", Port: "tap2", OFPort: 1, MAC: "52:54:00:00:00:03", Endpoint: "vm3"},
			},
			warnings: []string{"MAC_CONTRADICTION vm1", "MAC_CONTRADICTION vm2"},
		},
		{
			name:  "OK an endpoint elsewhere is remote",
			ports: nil,
			endpoints: []*policy.Endpoint{endpoint("far", policy.Selector{NeutronPort: "77"}, withLabels("app", "web"), withAddresses("10.0.9.9")),
				endpoint("faster", policy.Selector{VM: "m"}), endpoint("fast", policy.Selector{MAC: "52:54:00:00:00:01"}),
				endpoint("fax", policy.Selector{Port: "tap9"})},
			want: []*policy.Workload{
				{Key: "endpoint/far", Remote: true, Endpoint: "far", Labels: map[string]string{"app": "web", "iface-id": "77"},
					LabelFrom: map[string]string{"app": "endpoint/far", "iface-id": "endpoint/far"}, Addresses: addrs("10.0.9.9")},
				{Key: "endpoint/fast", Remote: true, Endpoint: "fast", MAC: "52:54:00:00:00:01", Labels: map[string]string{},
					LabelFrom: map[string]string{}},
				{Key: "endpoint/faster", Remote: true, Endpoint: "faster", Labels: map[string]string{"vm-id": "m"},
					LabelFrom: map[string]string{"vm-id": "endpoint/faster"}},
				{Key: "endpoint/fax", Remote: true, Endpoint: "fax", Port: "tap9", Labels: map[string]string{}, LabelFrom: map[string]string{}},
			},
		},
		{
			name: "OK MAC of an internal port, none of a system port, trunk without VLAN, ports without a number",
			ports: []plug{
				port("br0", "a", ofType("internal"), ids("vm-id", "1"), inUse("52:54:00:00:00:0a"), number(-1)),
				port("br0", "b", ids("vm-id", "1"), inUse("52:54:00:00:00:0b")),
				port("br0", "c", ids("vm-id", "1"), tag(5), mode("trunk")),
			},
			want: []*policy.Workload{
				{Key: "br0/a", Bridge: "br0", Port: "a", MAC: "52:54:00:00:00:0a"},
				{Key: "br0/b", Bridge: "br0", Port: "b", OFPort: 1},
				{Key: "br0/c", Bridge: "br0", Port: "c", OFPort: 1},
			},
		},
		{
			name: "OK ports that lead elsewhere are none",
			ports: []plug{
				port("br0", "br0", ofType("internal"), ids("iface-id", "x")),
				port("br0", "eth0"),
				port("br0", "patch0", ofType("patch"), ids("iface-id", "y")),
				port("br0", "vx0", ofType("vxlan"), ids("attached-mac", "52:54:00:00:00:01")),
				port("br0", "gw", ofType("internal")),
				port("br0", "ids0", ofType("internal"), made, ids("iface-id", "z")),
				port("br0", "empty", ids("iface-id", "")),
			},
		},
		{
			name:  "OK unless an Endpoint resource names them",
			ports: []plug{port("br0", "br0", ofType("internal"), inUse("52:54:00:00:00:01")), port("br0", "eth0")},
			endpoints: []*policy.Endpoint{endpoint("host", policy.Selector{Port: "br0"}), endpoint("gw", policy.Selector{Port: "eth0"},
				withMAC("52:54:00:00:00:02"))},
			want: []*policy.Workload{
				{Key: "br0/br0", Bridge: "br0", Port: "br0", OFPort: 1, MAC: "52:54:00:00:00:01", Endpoint: "host"},
				{Key: "br0/eth0", Bridge: "br0", Port: "eth0", OFPort: 1, MAC: "52:54:00:00:00:02", Endpoint: "gw"},
			},
		},
		{
			name: "OK every way to match",
			ports: []plug{port("br0", "a", ids("iface-id", "i")), port("br0", "b", ids("vm-name", "v")), port("br0", "c", ids("attached-mac",
				"52:54:00:00:00:0c"))},
			endpoints: []*policy.Endpoint{endpoint("e1", policy.Selector{NeutronPort: "i"}), endpoint("e2", policy.Selector{VM: "v"}),
				endpoint("e3", policy.Selector{MAC: "52:54:00:00:00:0C"})},
			want: []*policy.Workload{
				{Key: "br0/b", Bridge: "br0", Port: "b", OFPort: 1, Endpoint: "e2"},
				{Key: "br0/c", Bridge: "br0", Port: "c", OFPort: 1, MAC: "52:54:00:00:00:0c", Endpoint: "e3"},
				{Key: "i", Bridge: "br0", Port: "a", OFPort: 1, Endpoint: "e1"},
			},
		},
		{
			name:  "bad two resources for one port",
			ports: []plug{port("br0", "a", ids("iface-id", "i"))},
			endpoints: []*policy.Endpoint{endpoint("z", policy.Selector{Port: "a"}, withAddresses("10.0.0.1")),
				endpoint("b", policy.Selector{NeutronPort: "i"}, withAddresses("10.0.0.2"))},
			want:     []*policy.Workload{{Key: "i", Bridge: "br0", Port: "a", OFPort: 1, Endpoint: "b", Addresses: addrs("10.0.0.2")}},
			warnings: []string{"ENDPOINT_CONFLICT z"},
		},
		{
			name:      "bad addresses for two ports",
			ports:     []plug{port("br0", "a", ids("vm-id", "v")), port("br0", "b", ids("vm-id", "v"))},
			endpoints: []*policy.Endpoint{endpoint("e", policy.Selector{VM: "v"}, withAddresses("10.0.0.1"), withMAC("52:54:00:00:00:01"))},
			want: []*policy.Workload{{Key: "br0/a", Bridge: "br0", Port: "a", OFPort: 1, Endpoint: "e"}, {Key: "br0/b", Bridge: "br0",
				Port: "b", OFPort: 1, Endpoint: "e"}},
			warnings: []string{"ENDPOINT_AMBIGUOUS e"},
		},
		{
			name:      "OK labels for two ports",
			ports:     []plug{port("br0", "a", ids("vm-id", "v")), port("br0", "b", ids("vm-id", "v"))},
			endpoints: []*policy.Endpoint{endpoint("e", policy.Selector{VM: "v"}, withLabels("app", "web"))},
			want: []*policy.Workload{{Key: "br0/a", Bridge: "br0", Port: "a", OFPort: 1, Endpoint: "e"}, {Key: "br0/b", Bridge: "br0",
				Port: "b", OFPort: 1, Endpoint: "e"}},
		},
		{
			name: "bad one MAC twice in a VLAN",
			ports: []plug{
				port("br0", "a", tag(1), ids("attached-mac", "52:54:00:00:00:01")), port("br0", "b", tag(1), ids("attached-mac", "52:54:00:00:00:01")),
				port("br0", "c", tag(2), ids("attached-mac", "52:54:00:00:00:01")), port("br1", "d", tag(1), ids("attached-mac", "52:54:00:00:00:01"))},
			want: []*policy.Workload{
				{Key: "br0/a", Bridge: "br0", Port: "a", OFPort: 1, MAC: "52:54:00:00:00:01", VLAN: 1},
				{Key: "br0/b", Bridge: "br0", Port: "b", OFPort: 1, MAC: "52:54:00:00:00:01", VLAN: 1},
				{Key: "br0/c", Bridge: "br0", Port: "c", OFPort: 1, MAC: "52:54:00:00:00:01", VLAN: 2},
				{Key: "br1/d", Bridge: "br1", Port: "d", OFPort: 1, MAC: "52:54:00:00:00:01", VLAN: 1},
			},
			warnings: []string{"DUPLICATE_MAC br0/a", "DUPLICATE_MAC br0/b"},
		},
		{
			name: "bad iface-id twice, and one like another key",
			ports: []plug{port("br0", "a", ids("iface-id", "i")), port("br0", "b", ids("iface-id", "i")),
				port("br0", "c", ids("iface-id", "br0/b"))},
			want: []*policy.Workload{
				{Key: "br0/b", Bridge: "br0", Port: "b", OFPort: 1},
				{Key: "br0/c", Bridge: "br0", Port: "c", OFPort: 1},
				{Key: "i", Bridge: "br0", Port: "a", OFPort: 1},
			},
			warnings: []string{"DUPLICATE_IFACE_ID i", "DUPLICATE_IFACE_ID br0/b", "DUPLICATE_IFACE_ID br0/b", "DUPLICATE_IFACE_ID br0/c"},
		},
		{
			name: "bad what was left of a port claims nothing, neither by iface-id nor by MAC",
			ports: []plug{
				port("br0", "a", without, ids("iface-id", "i", "vm-id", "v")), port("br0", "b", ids("iface-id", "i", "vm-id", "v", "attached-mac",
					"52:54:00:00:00:01")),
				port("br0", "c", without, ids("attached-mac", "52:54:00:00:00:01")),
				port("br0", "d", gone, ids("iface-id", "d", "attached-mac", "52:54:00:00:00:01"))},
			endpoints: []*policy.Endpoint{endpoint("e", policy.Selector{VM: "v"}, withAddresses("10.0.0.1"))},
			want: []*policy.Workload{{Key: "i", Bridge: "br0", Port: "b", OFPort: 1, MAC: "52:54:00:00:00:01", Endpoint: "e",
				Addresses: addrs("10.0.0.1")}},
			warnings: []string{"DUPLICATE_IFACE_ID i", "DUPLICATE_MAC i", "DUPLICATE_MAC i"},
		},
		{
			name: "bad nor by a MAC of an Endpoint resource; elsewhere it is itself",
			ports: []plug{port("br0", "a", without, ids("attached-mac", "52:54:00:00:00:01")), port("br0", "b"),
				port("br0", "c", tag(7), without, ids("attached-mac", "52:54:00:00:00:01"))},
			endpoints: []*policy.Endpoint{endpoint("e", policy.Selector{Port: "b"}, withMAC("52:54:00:00:00:01"))},
			want: []*policy.Workload{{Key: "br0/b", Bridge: "br0", Port: "b", OFPort: 1, MAC: "52:54:00:00:00:01", Endpoint: "e"},
				{Key: "br0/c", Bridge: "br0", Port: "c", MAC: "52:54:00:00:00:01", VLAN: 7}},
			warnings: []string{"DUPLICATE_MAC br0/b"},
		},
		{
			name:      "OK a port without a device is an endpoint where nobody else is, with what its Endpoint resource says",
			ports:     []plug{port("br0", "a", without, ids("iface-id", "i"))},
			endpoints: []*policy.Endpoint{endpoint("e", policy.Selector{NeutronPort: "i"}, withMAC("52:54:00:00:00:01"), withAddresses("10.0.0.1"))},
			want: []*policy.Workload{{Key: "i", Bridge: "br0", Port: "a", MAC: "52:54:00:00:00:01", Endpoint: "e",
				Addresses: addrs("10.0.0.1")}},
		},
		{
			name:  "bad one address twice where they can meet",
			ports: []plug{port("br0", "a"), port("br0", "b"), port("br0", "c", tag(7)), port("br1", "d")},
			endpoints: []*policy.Endpoint{
				endpoint("a", policy.Selector{Port: "a"}, withAddresses("10.0.0.1")), endpoint("b", policy.Selector{Port: "b"},
					withAddresses("10.0.0.1", "10.0.0.2")),
				endpoint("c", policy.Selector{Port: "c"}, withAddresses("10.0.0.1")), endpoint("d", policy.Selector{Port: "d"},
					withAddresses("10.0.0.1")),
				endpoint("x", policy.Selector{Port: "x"}, withAddresses("fd00::1")), endpoint("y", policy.Selector{Port: "y"},
					withAddresses("fd00::1", "10.0.0.2"))},
			want: []*policy.Workload{
				{Key: "br0/a", Bridge: "br0", Port: "a", OFPort: 1, Endpoint: "a", Addresses: addrs("10.0.0.1")},
				{Key: "br0/b", Bridge: "br0", Port: "b", OFPort: 1, Endpoint: "b", Addresses: addrs("10.0.0.1", "10.0.0.2")},
				{Key: "br0/c", Bridge: "br0", Port: "c", OFPort: 1, VLAN: 7, Endpoint: "c", Addresses: addrs("10.0.0.1")},
				{Key: "br1/d", Bridge: "br1", Port: "d", OFPort: 1, Endpoint: "d", Addresses: addrs("10.0.0.1")},
				{Key: "endpoint/x", Remote: true, Port: "x", Endpoint: "x", Addresses: addrs("fd00::1")},
				{Key: "endpoint/y", Remote: true, Port: "y", Endpoint: "y", Addresses: addrs("10.0.0.2", "fd00::1")},
			},
			warnings: []string{"DUPLICATE_ADDRESS br0/a", "DUPLICATE_ADDRESS br0/b", "DUPLICATE_ADDRESS br0/b", "DUPLICATE_ADDRESS endpoint/x",
				"DUPLICATE_ADDRESS endpoint/y", "DUPLICATE_ADDRESS endpoint/y"},
		},
		{
			name:     "bad MAC",
			ports:    []plug{port("br0", "a", ids("attached-mac", "01:00:5e:00:00:01"))},
			want:     []*policy.Workload{{Key: "br0/a", Bridge: "br0", Port: "a", OFPort: 1}},
			warnings: []string{"BAD_MAC br0/a"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inv := inventory.Build(hostsOf(tt.ports), tt.endpoints)
			got, warnings := inv.Workloads, inv.Warnings
			opts := []cmp.Option{sameAddr, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(policy.Workload{}, "Guard")}
			if len(tt.want) > 0 && tt.want[0].Labels == nil {
				opts = append(opts, cmpopts.IgnoreFields(policy.Workload{}, "Labels", "LabelFrom"))
			}
			if diff := cmp.Diff(tt.want, got, opts...); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(tt.warnings, codes(warnings)); diff != "" {
				t.Errorf("warnings (-want +got)\n%s", diff)
			}
		})
	}
}
