package policy_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/policy"
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

func port(bridge, name string, edit ...func(*policy.PortInfo)) policy.PortInfo {
	p := policy.PortInfo{Bridge: bridge, Port: name, IfaceName: name, OFPort: 1}
	for _, f := range edit {
		f(&p)
	}
	return p
}

func ids(kv ...string) func(*policy.PortInfo) {
	return func(p *policy.PortInfo) {
		p.ExternalIDs = map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			p.ExternalIDs[kv[i]] = kv[i+1]
		}
	}
}

func ofType(s string) func(*policy.PortInfo) { return func(p *policy.PortInfo) { p.Type = s } }
func tag(v int) func(*policy.PortInfo)       { return func(p *policy.PortInfo) { p.Tag = &v } }

// without takes the device away.
func without(p *policy.PortInfo) { p.OFPort = -1 }

func addrs(ss ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func codes(ws []policy.Warning) []string {
	var out []string
	for _, w := range ws {
		out = append(out, w.Code+" "+w.Endpoint)
	}
	return out
}

var sameAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestResolveWorkloads(t *testing.T) {
	tests := []struct {
		name      string
		ports     []policy.PortInfo
		endpoints []*policy.Endpoint
		want      []*policy.Workload
		warnings  []string
	}{
		{
			name: "OK everything OVSDB says",
			ports: []policy.PortInfo{port("br0", "tap1", tag(10), func(p *policy.PortInfo) { p.OFPort = 7 },
				ids("iface-id", "5a1c", "attached-mac", "52:54:00:AA:00:01", "vm-uuid", "u1", "vlan", "not this one", "team", "net"))},
			want: []*policy.Workload{{
				Key: "5a1c", Bridge: "br0", Port: "tap1", OFPort: 7, MAC: "52:54:00:aa:00:01", VLAN: 10,
				Labels: map[string]string{"iface-id": "5a1c", "attached-mac": "52:54:00:AA:00:01", "vm-uuid": "u1", "vlan": "10", "team": "net", "bridge": "br0", "port": "tap1"},
				LabelFrom: map[string]string{"iface-id": "ovsdb", "attached-mac": "ovsdb", "vm-uuid": "ovsdb", "vlan": "ovsdb", "team": "ovsdb", "bridge": "ovsdb",
					"port": "ovsdb"},
			}},
		},
		{
			name: "OK a bond, whose first interface has no number",
			ports: []policy.PortInfo{port("br0", "bond", ids("iface-id", "b"), func(p *policy.PortInfo) {
				p.OFPort, p.Members = -1, []int64{4, 0, 3}
			})},
			want: []*policy.Workload{{Key: "b", Bridge: "br0", Port: "bond", OFPort: 4, Members: []uint32{3}}},
		},
		{
			name:      "OK what an Endpoint resource adds wins",
			ports:     []policy.PortInfo{port("br0", "tap1", ids("vm-id", "1", "app", "db"))},
			endpoints: []*policy.Endpoint{endpoint("vm1", policy.Selector{Port: "tap1"}, withMAC("52:54:00:00:00:0A"), withLabels("app", "web"), withAddresses("2001:db8::5", "10.0.0.5"))},
			want: []*policy.Workload{{
				Key: "br0/tap1", Bridge: "br0", Port: "tap1", OFPort: 1, MAC: "52:54:00:00:00:0a", Endpoint: "vm1",
				Labels:    map[string]string{"vm-id": "1", "app": "web", "bridge": "br0", "port": "tap1"},
				LabelFrom: map[string]string{"vm-id": "ovsdb", "app": "endpoint/vm1", "bridge": "ovsdb", "port": "ovsdb"},
				Addresses: addrs("10.0.0.5", "2001:db8::5"),
			}},
		},
		{
			name:  "OK further MACs, in whatever case and order",
			ports: []policy.PortInfo{port("br0", "a", ids("attached-mac", "52:54:00:00:00:01")), port("br0", "b"), port("br0", "c", ids("attached-mac", "52:54:00:00:00:03"))},
			endpoints: []*policy.Endpoint{endpoint("a", policy.Selector{Port: "a"}, withMACs("00:00:5E:00:01:02", "00:00:5e:00:01:01")),
				endpoint("b", policy.Selector{Port: "b"}, withMACs("00:00:5e:00:01:04", "00:00:5e:00:01:03"), func(s *policy.EndpointSpec) { s.UnknownMAC = "judge" }),
				endpoint("c", policy.Selector{Port: "c"}, withMAC("52:54:00:00:00:0c"), withMACs("52:54:00:00:00:03"))},
			want: []*policy.Workload{
				{Key: "br0/a", Bridge: "br0", Port: "a", OFPort: 1, MAC: "52:54:00:00:00:01", MACs: []string{"00:00:5e:00:01:01", "00:00:5e:00:01:02"}, DropUnknownMAC: true, Endpoint: "a"},
				{Key: "br0/b", Bridge: "br0", Port: "b", OFPort: 1, MAC: "00:00:5e:00:01:04", MACs: []string{"00:00:5e:00:01:03"}, Endpoint: "b"},
				{Key: "br0/c", Bridge: "br0", Port: "c", OFPort: 1, MAC: "52:54:00:00:00:0c", MACs: []string{"52:54:00:00:00:03"}, DropUnknownMAC: true, Endpoint: "c"},
			},
		},
		{
			name:  "bad one MAC declared twice",
			ports: []policy.PortInfo{port("br0", "a", ids("attached-mac", "52:54:00:00:00:01")), port("br0", "b", ids("attached-mac", "52:54:00:00:00:02"))},
			endpoints: []*policy.Endpoint{endpoint("a", policy.Selector{Port: "a"}, withMACs("00:00:5e:00:01:01")),
				endpoint("b", policy.Selector{Port: "b"}, withMACs("00:00:5e:00:01:01"))},
			want: []*policy.Workload{
				{Key: "br0/a", Bridge: "br0", Port: "a", OFPort: 1, MAC: "52:54:00:00:00:01", MACs: []string{"00:00:5e:00:01:01"}, DropUnknownMAC: true, Endpoint: "a"},
				{Key: "br0/b", Bridge: "br0", Port: "b", OFPort: 1, MAC: "52:54:00:00:00:02", MACs: []string{"00:00:5e:00:01:01"}, DropUnknownMAC: true, Endpoint: "b"},
			},
			warnings: []string{"DUPLICATE_MAC br0/a", "DUPLICATE_MAC br0/b"},
		},
		{
			name:  "bad a port that went to another machine gets nothing of the Endpoint, and none takes its addresses for it",
			ports: []policy.PortInfo{port("br0", "tap1", ids("attached-mac", "52:54:00:00:00:02")), port("br0", "tap2", ids("iface-id", "i", "attached-mac", "52:54:00:00:00:03"))},
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
				endpoint("faster", policy.Selector{VM: "m"}), endpoint("fast", policy.Selector{MAC: "52:54:00:00:00:01"}), endpoint("fax", policy.Selector{Port: "tap9"})},
			want: []*policy.Workload{
				{Key: "endpoint/far", Remote: true, Endpoint: "far", Labels: map[string]string{"app": "web", "iface-id": "77"},
					LabelFrom: map[string]string{"app": "endpoint/far", "iface-id": "endpoint/far"}, Addresses: addrs("10.0.9.9")},
				{Key: "endpoint/fast", Remote: true, Endpoint: "fast", MAC: "52:54:00:00:00:01", Labels: map[string]string{}, LabelFrom: map[string]string{}},
				{Key: "endpoint/faster", Remote: true, Endpoint: "faster", Labels: map[string]string{"vm-id": "m"}, LabelFrom: map[string]string{"vm-id": "endpoint/faster"}},
				{Key: "endpoint/fax", Remote: true, Endpoint: "fax", Port: "tap9", Labels: map[string]string{}, LabelFrom: map[string]string{}},
			},
		},
		{
			name: "OK MAC of an internal port, none of a system port, trunk without VLAN, ports without a number",
			ports: []policy.PortInfo{
				port("br0", "a", ofType("internal"), ids("vm-id", "1"), func(p *policy.PortInfo) { p.MACInUse = "52:54:00:00:00:0a"; p.OFPort = -1 }),
				port("br0", "b", ids("vm-id", "1"), func(p *policy.PortInfo) { p.MACInUse = "52:54:00:00:00:0b" }),
				port("br0", "c", ids("vm-id", "1"), tag(5), func(p *policy.PortInfo) { p.Trunk = true }),
			},
			want: []*policy.Workload{
				{Key: "br0/a", Bridge: "br0", Port: "a", MAC: "52:54:00:00:00:0a"},
				{Key: "br0/b", Bridge: "br0", Port: "b", OFPort: 1},
				{Key: "br0/c", Bridge: "br0", Port: "c", OFPort: 1},
			},
		},
		{
			name: "OK ports that lead elsewhere are none",
			ports: []policy.PortInfo{
				port("br0", "br0", ofType("internal"), ids("iface-id", "x")),
				port("br0", "eth0"),
				port("br0", "patch0", ofType("patch"), ids("iface-id", "y")),
				port("br0", "vx0", ofType("vxlan"), ids("attached-mac", "52:54:00:00:00:01")),
				port("br0", "gw", ofType("internal")),
				port("br0", "ids0", ofType("internal"), ids("tapwall-owner", "tapwall")),
				port("br0", "empty", ids("iface-id", "")),
			},
		},
		{
			name:      "OK unless an Endpoint resource names them",
			ports:     []policy.PortInfo{port("br0", "br0", ofType("internal"), func(p *policy.PortInfo) { p.MACInUse = "52:54:00:00:00:01" }), port("br0", "eth0")},
			endpoints: []*policy.Endpoint{endpoint("host", policy.Selector{Port: "br0"}), endpoint("gw", policy.Selector{Port: "eth0"}, withMAC("52:54:00:00:00:02"))},
			want: []*policy.Workload{
				{Key: "br0/br0", Bridge: "br0", Port: "br0", OFPort: 1, MAC: "52:54:00:00:00:01", Endpoint: "host"},
				{Key: "br0/eth0", Bridge: "br0", Port: "eth0", OFPort: 1, MAC: "52:54:00:00:00:02", Endpoint: "gw"},
			},
		},
		{
			name:  "OK every way to match",
			ports: []policy.PortInfo{port("br0", "a", ids("iface-id", "i")), port("br0", "b", ids("vm-name", "v")), port("br0", "c", ids("attached-mac", "52:54:00:00:00:0c"))},
			endpoints: []*policy.Endpoint{endpoint("e1", policy.Selector{NeutronPort: "i"}), endpoint("e2", policy.Selector{VM: "v"}),
				endpoint("e3", policy.Selector{MAC: "52:54:00:00:00:0C"})},
			want: []*policy.Workload{
				{Key: "br0/b", Bridge: "br0", Port: "b", OFPort: 1, Endpoint: "e2"},
				{Key: "br0/c", Bridge: "br0", Port: "c", OFPort: 1, MAC: "52:54:00:00:00:0c", Endpoint: "e3"},
				{Key: "i", Bridge: "br0", Port: "a", OFPort: 1, Endpoint: "e1"},
			},
		},
		{
			name:      "bad two resources for one port",
			ports:     []policy.PortInfo{port("br0", "a", ids("iface-id", "i"))},
			endpoints: []*policy.Endpoint{endpoint("z", policy.Selector{Port: "a"}, withAddresses("10.0.0.1")), endpoint("b", policy.Selector{NeutronPort: "i"}, withAddresses("10.0.0.2"))},
			want:      []*policy.Workload{{Key: "i", Bridge: "br0", Port: "a", OFPort: 1, Endpoint: "b", Addresses: addrs("10.0.0.2")}},
			warnings:  []string{"ENDPOINT_CONFLICT z"},
		},
		{
			name:      "bad addresses for two ports",
			ports:     []policy.PortInfo{port("br0", "a", ids("vm-id", "v")), port("br0", "b", ids("vm-id", "v"))},
			endpoints: []*policy.Endpoint{endpoint("e", policy.Selector{VM: "v"}, withAddresses("10.0.0.1"), withMAC("52:54:00:00:00:01"))},
			want:      []*policy.Workload{{Key: "br0/a", Bridge: "br0", Port: "a", OFPort: 1, Endpoint: "e"}, {Key: "br0/b", Bridge: "br0", Port: "b", OFPort: 1, Endpoint: "e"}},
			warnings:  []string{"ENDPOINT_AMBIGUOUS e"},
		},
		{
			name:      "OK labels for two ports",
			ports:     []policy.PortInfo{port("br0", "a", ids("vm-id", "v")), port("br0", "b", ids("vm-id", "v"))},
			endpoints: []*policy.Endpoint{endpoint("e", policy.Selector{VM: "v"}, withLabels("app", "web"))},
			want:      []*policy.Workload{{Key: "br0/a", Bridge: "br0", Port: "a", OFPort: 1, Endpoint: "e"}, {Key: "br0/b", Bridge: "br0", Port: "b", OFPort: 1, Endpoint: "e"}},
		},
		{
			name: "bad one MAC twice in a VLAN",
			ports: []policy.PortInfo{
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
			name:  "bad iface-id twice, and one like another key",
			ports: []policy.PortInfo{port("br0", "a", ids("iface-id", "i")), port("br0", "b", ids("iface-id", "i")), port("br0", "c", ids("iface-id", "br0/b"))},
			want: []*policy.Workload{
				{Key: "br0/b", Bridge: "br0", Port: "b", OFPort: 1},
				{Key: "br0/c", Bridge: "br0", Port: "c", OFPort: 1},
				{Key: "i", Bridge: "br0", Port: "a", OFPort: 1},
			},
			warnings: []string{"DUPLICATE_IFACE_ID i", "DUPLICATE_IFACE_ID br0/b", "DUPLICATE_IFACE_ID br0/b", "DUPLICATE_IFACE_ID br0/c"},
		},
		{
			name: "bad what was left of a port claims nothing, neither by iface-id nor by MAC",
			ports: []policy.PortInfo{
				port("br0", "a", without, ids("iface-id", "i", "vm-id", "v")), port("br0", "b", ids("iface-id", "i", "vm-id", "v", "attached-mac", "52:54:00:00:00:01")),
				port("br0", "c", without, ids("attached-mac", "52:54:00:00:00:01")),
				port("br0", "d", func(p *policy.PortInfo) { p.Gone, p.Fault = true, "no such thing" }, ids("iface-id", "d", "attached-mac", "52:54:00:00:00:01"))},
			endpoints: []*policy.Endpoint{endpoint("e", policy.Selector{VM: "v"}, withAddresses("10.0.0.1"))},
			want:      []*policy.Workload{{Key: "i", Bridge: "br0", Port: "b", OFPort: 1, MAC: "52:54:00:00:00:01", Endpoint: "e", Addresses: addrs("10.0.0.1")}},
			warnings:  []string{"DUPLICATE_IFACE_ID i", "DUPLICATE_MAC i", "DUPLICATE_MAC i"},
		},
		{
			name: "bad nor by a MAC of an Endpoint resource; elsewhere it is itself",
			ports: []policy.PortInfo{port("br0", "a", without, ids("attached-mac", "52:54:00:00:00:01")), port("br0", "b"),
				port("br0", "c", tag(7), without, ids("attached-mac", "52:54:00:00:00:01"))},
			endpoints: []*policy.Endpoint{endpoint("e", policy.Selector{Port: "b"}, withMAC("52:54:00:00:00:01"))},
			want: []*policy.Workload{{Key: "br0/b", Bridge: "br0", Port: "b", OFPort: 1, MAC: "52:54:00:00:00:01", Endpoint: "e"},
				{Key: "br0/c", Bridge: "br0", Port: "c", MAC: "52:54:00:00:00:01", VLAN: 7}},
			warnings: []string{"DUPLICATE_MAC br0/b"},
		},
		{
			name:      "OK a port without a device is an endpoint where nobody else is, with what its Endpoint resource says",
			ports:     []policy.PortInfo{port("br0", "a", without, ids("iface-id", "i"))},
			endpoints: []*policy.Endpoint{endpoint("e", policy.Selector{NeutronPort: "i"}, withMAC("52:54:00:00:00:01"), withAddresses("10.0.0.1"))},
			want:      []*policy.Workload{{Key: "i", Bridge: "br0", Port: "a", MAC: "52:54:00:00:00:01", Endpoint: "e", Addresses: addrs("10.0.0.1")}},
		},
		{
			name:  "bad one address twice where they can meet",
			ports: []policy.PortInfo{port("br0", "a"), port("br0", "b"), port("br0", "c", tag(7)), port("br1", "d")},
			endpoints: []*policy.Endpoint{
				endpoint("a", policy.Selector{Port: "a"}, withAddresses("10.0.0.1")), endpoint("b", policy.Selector{Port: "b"}, withAddresses("10.0.0.1", "10.0.0.2")),
				endpoint("c", policy.Selector{Port: "c"}, withAddresses("10.0.0.1")), endpoint("d", policy.Selector{Port: "d"}, withAddresses("10.0.0.1")),
				endpoint("x", policy.Selector{Port: "x"}, withAddresses("fd00::1")), endpoint("y", policy.Selector{Port: "y"}, withAddresses("fd00::1", "10.0.0.2"))},
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
			ports:    []policy.PortInfo{port("br0", "a", ids("attached-mac", "01:00:5e:00:00:01"))},
			want:     []*policy.Workload{{Key: "br0/a", Bridge: "br0", Port: "a", OFPort: 1}},
			warnings: []string{"BAD_MAC br0/a"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, warnings := policy.ResolveWorkloads(tt.ports, tt.endpoints)
			opts := []cmp.Option{sameAddr, cmpopts.EquateEmpty()}
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

// Whatever is plugged and however it is ordered: keys are unique and in order, each marked port is an endpoint once, and the answer is
// the same.
func TestResolveWorkloadsIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		few := func(name string, vs ...string) string { return rapid.SampledFrom(vs).Draw(t, name) }
		var ports []policy.PortInfo
		for i := range rapid.IntRange(0, 6).Draw(t, "ports") {
			p := port(few("bridge", "br0", "br1"), "p"+string(rune('a'+i)))
			p.ExternalIDs = map[string]string{
				"iface-id":     few("iface-id", "", "i1", "i2", "br0/pb"),
				"vm-id":        few("vm-id", "", "v1"),
				"attached-mac": few("mac", "", "52:54:00:00:00:01", "52:54:00:00:00:02"),
			}
			if rapid.IntRange(0, 3).Draw(t, "dead") == 0 {
				p.OFPort = -1
			}
			ports = append(ports, p)
		}
		var endpoints []*policy.Endpoint
		for i := range rapid.IntRange(0, 4).Draw(t, "endpoints") {
			match := rapid.SampledFrom([]policy.Selector{{Port: "pa"}, {Port: "px"}, {NeutronPort: "i1"}, {VM: "v1"}, {MAC: "52:54:00:00:00:01"}}).Draw(t, "match")
			endpoints = append(endpoints, endpoint("e"+string(rune('a'+i)), match, withAddresses("10.0.0.1")))
		}
		got, warnings := policy.ResolveWorkloads(ports, endpoints)
		for i := 1; i < len(got); i++ {
			if got[i-1].Key >= got[i].Key {
				t.Fatalf("keys %q, %q", got[i-1].Key, got[i].Key)
			}
		}
		seen := map[string]bool{}
		for _, w := range got {
			if !w.Remote && seen[w.Port] {
				t.Fatalf("port %s twice", w.Port)
			}
			seen[w.Port] = true
		}
		for _, p := range ports {
			if (p.ExternalIDs["iface-id"] != "" || p.ExternalIDs["vm-id"] != "" || p.ExternalIDs["attached-mac"] != "") && !seen[p.Port] && p.OFPort > 0 {
				t.Fatalf("port %s is no endpoint", p.Port)
			}
		}
		again, warningsAgain := policy.ResolveWorkloads(rapid.Permutation(ports).Draw(t, "ports in another order"), rapid.Permutation(endpoints).Draw(t, "endpoints in another order"))
		if diff := cmp.Diff(got, again, sameAddr); diff != "" {
			t.Fatalf("(-want +got)\n%s", diff)
		}
		if diff := cmp.Diff(warnings, warningsAgain); diff != "" {
			t.Fatalf("warnings (-want +got)\n%s", diff)
		}
	})
}

func TestMatchesWorkload(t *testing.T) {
	w := &policy.Workload{
		Key: "i", Bridge: "br0", Port: "tap1", MAC: "52:54:00:00:00:0a", VLAN: 10, Endpoint: "vm1",
		Labels: map[string]string{"app": "web", "tier": "", "iface-id": "i", "vm-uuid": "u", "vm-name": "n"},
	}
	untagged := &policy.Workload{Key: "k", Bridge: "br1", Port: "tap2"}
	tests := []struct {
		name     string
		selector policy.Selector
		w        *policy.Workload
		want     bool
	}{
		{"OK label", policy.Selector{Labels: map[string]string{"app": "web"}}, w, true},
		{"OK all labels", policy.Selector{Labels: map[string]string{"app": "web", "tier": ""}}, w, true},
		{"bad one label differs", policy.Selector{Labels: map[string]string{"app": "web", "tier": "x"}}, w, false},
		{"bad empty is not absent", policy.Selector{Labels: map[string]string{"zone": ""}}, w, false},
		{"bad no labels", policy.Selector{Labels: map[string]string{}}, w, false},
		{"OK vm by uuid", policy.Selector{VM: "u"}, w, true},
		{"OK vm by name", policy.Selector{VM: "n"}, w, true},
		{"OK vm by endpoint", policy.Selector{VM: "vm1"}, w, true},
		{"bad vm", policy.Selector{VM: "web"}, w, false},
		{"OK Neutron port", policy.Selector{NeutronPort: "i"}, w, true},
		{"bad Neutron port", policy.Selector{NeutronPort: "j"}, untagged, false},
		{"OK MAC in any case", policy.Selector{MAC: "52:54:00:00:00:0A"}, w, true},
		{"bad MAC unknown", policy.Selector{MAC: "52:54:00:00:00:0a"}, untagged, false},
		{"OK port", policy.Selector{Port: "tap1"}, w, true},
		{"OK VLAN", policy.Selector{VLAN: new(10)}, w, true},
		{"bad VLAN", policy.Selector{VLAN: new(10)}, untagged, false},
		{"bad VLAN 0", policy.Selector{VLAN: new(0)}, untagged, false},
		{"OK bridge", policy.Selector{Bridge: "br0"}, w, true},
		{"bad bridge", policy.Selector{Bridge: "br0"}, untagged, false},
		{"bad cidr, entity, group and nothing are not for here", policy.Selector{CIDR: "0.0.0.0/0"}, w, false},
		{"bad entity", policy.Selector{Entity: "any"}, w, false},
		{"bad group", policy.Selector{Group: "g"}, w, false},
		{"bad nothing", policy.Selector{}, w, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.selector.MatchesWorkload(tt.w); got != tt.want {
				t.Errorf("%v matches: %v", tt.selector, got)
			}
		})
	}
}
