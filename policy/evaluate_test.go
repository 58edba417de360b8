package policy_test

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// scene is a policy set from documents with the endpoints of a small host:
// web1 and web2 (app=web), db (app=db, VLAN 10) on br0; other on br1; far on another host.
func scene(t *testing.T, docs string) *policy.Set {
	t.Helper()
	s := &policy.Set{Groups: map[string]*policy.Group{}, HostAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.200")}}
	loaded, err := policy.Load(strings.NewReader(docs))
	if err != nil {
		t.Fatalf("%+v", err)
	}
	for _, d := range loaded {
		switch r := d.Resource.(type) {
		case *policy.Policy:
			s.Policies = append(s.Policies, r)
		case *policy.Group:
			s.Groups[r.Name] = r
		}
	}
	endpoint := func(name string, match policy.Selector, app string, addresses ...string) *policy.Endpoint {
		spec := policy.EndpointSpec{Match: match, Labels: map[string]string{"app": app}, Addresses: addresses}
		spec.AntiSpoof = policy.AntiSpoofOff // what policies make of addresses that nobody declares is asked here, too
		return &policy.Endpoint{Meta: policy.Meta{Name: name}, Spec: spec}
	}
	web1 := endpoint("web1", policy.Selector{Port: "tap1"}, "web", "10.0.0.1", "2001:db8::1")
	web1.Spec.MAC = "52:54:00:00:00:01"
	far := endpoint("far", policy.Selector{NeutronPort: "f"}, "lb", "10.0.9.9", "2001:db8::9")
	far.Spec.Labels["site"] = "b"
	tap3 := machine("tap3", "3")
	tap3.Tag = new(10)
	ports := map[string][]*vswitch.Port{"br0": {machine("tap1", "1"), machine("tap2", "2"), tap3}, "br1": {machine("tap4", "4")}}
	s.Workloads = workloads(ports,
		[]*policy.Endpoint{web1, far, endpoint("web2", policy.Selector{Port: "tap2"}, "web", "10.0.0.2"),
			endpoint("db", policy.Selector{Port: "tap3"}, "db", "10.0.0.3"), endpoint("other", policy.Selector{Port: "tap4"}, "lb", "10.0.1.4")})
	return s
}

// packet is "source > destination proto port": endpoints of br0 by name, anything else by address. An endpoint may be given an address
// that is not its own as name@address, and host@address is behind the bridge's own port. The port may be "source>destination", and is
// "type/code" with ICMP.
func packet(t *testing.T, s *policy.Set, text string) policy.Packet {
	t.Helper()
	f := strings.Fields(text)
	p := policy.Packet{Bridge: "br0", SrcPort: 40000}
	side := func(word string) (*policy.Workload, netip.Addr) {
		name, addr, isSpoofed := strings.Cut(word, "@")
		if name == "host" {
			return nil, netip.MustParseAddr(addr)
		}
		for _, w := range s.Workloads {
			if w.Endpoint == name && !w.Remote && w.Bridge == "br0" {
				if isSpoofed {
					return w, netip.MustParseAddr(addr)
				}
				return w, w.Addresses[0]
			}
		}
		return nil, netip.MustParseAddr(word)
	}
	p.Src, p.SrcIP = side(f[0])
	p.Dst, p.DstIP = side(f[2])
	p.SrcHost, p.DstHost = strings.HasPrefix(f[0], "host@"), strings.HasPrefix(f[2], "host@")
	proto, err := policy.Protocol(f[3]).Number()
	if err != nil {
		t.Fatal(err)
	}
	p.Proto = proto
	if isICMP := proto == policy.ProtoICMP || proto == policy.ProtoICMPv6; isICMP && len(f) > 4 {
		p.SrcPort = 0
		if _, err := fmt.Sscanf(f[4], "%d/%d", &p.ICMPType, &p.ICMPCode); err != nil {
			t.Fatal(err)
		}
	} else if len(f) > 4 {
		src, dst, given := strings.Cut(f[4], ">")
		if given {
			n, _ := strconv.ParseUint(src, 10, 16)
			p.SrcPort, f[4] = uint16(n), dst
		}
		r, err := policy.ParsePortRange(f[4])
		if err != nil {
			t.Fatal(err)
		}
		p.DstPort = r.Lo
	} else {
		p.SrcPort = 0
	}
	return p
}

// verdict is "allow" or "deny" with who decided on each judged side.
func verdict(d policy.Decision) string {
	out := "deny"
	if d.Effect.Passes() {
		out = "allow"
	}
	side := func(name string, s policy.SideDecision) {
		if !s.Judged {
			return
		}
		out += " " + name + "=" + s.Ref.Policy + "/" + s.Ref.Rule
		if s.Log {
			out += "+log"
		}
	}
	side("e", d.Egress)
	side("i", d.Ingress)
	return out
}

func TestEvaluate(t *testing.T) {
	type row struct{ packet, want string }
	tests := []struct {
		name string
		docs string
		rows []row
	}{
		{"nothing selects: the default allows", "", []row{
			{"web1 > db tcp 80", "allow e=/(default-allow) i=/(default-allow)"},
			{"192.0.2.1 > db tcp 80", "allow i=/(default-allow)"},
			{"db > 192.0.2.1 udp 53", "allow e=/(default-allow)"},
			{"192.0.2.1 > 192.0.2.2 tcp 80", "allow"},
		}},
		{"selection denies what no rule allows, in that direction only", `
kind: Policy
name: p
spec: {appliesTo: [{labels: {app: web}}], ingress: [{name: http, action: allow, services: [{protocol: tcp, ports: ["80"]}], log: ` +
			`true}], defaultDeny: {log: true}}`, []row{
			{"192.0.2.1 > web1 tcp 80", "allow i=p/http+log"},
			{"192.0.2.1 > web1 tcp 81", "deny i=p/(default-deny)+log"},
			{"192.0.2.1 > web1 udp 80", "deny i=p/(default-deny)+log"},
			{"192.0.2.1 > web1 icmp", "deny i=p/(default-deny)+log"},
			{"web1 > 192.0.2.1 tcp 81", "allow e=/(default-allow)"},
			{"web1 > web2 tcp 80", "allow e=/(default-allow) i=p/http+log"},
			{"db > web2 tcp 22", "deny e=/(default-allow) i=p/(default-deny)+log"},
		}},
		{"defaultDeny says otherwise", `
kind: Policy
name: open
spec: {appliesTo: [{port: tap1}], ingress: [{name: ssh, action: deny, services: [{protocol: tcp, ports: ["22"]}]}], defaultDeny: ` +
			`{ingress: false}}
---
kind: Policy
name: closed
spec: {appliesTo: [{port: tap2}], defaultDeny: {ingress: true}}`, []row{
			{"192.0.2.1 > web1 tcp 22", "deny i=open/ssh"},
			{"192.0.2.1 > web1 tcp 23", "allow i=/(default-allow)"},
			{"192.0.2.1 > web2 tcp 23", "deny i=closed/(default-deny)"},
			{"web2 > 192.0.2.1 tcp 23", "allow e=/(default-allow)"},
		}},
		{"one isolating policy is enough, the first by name is named, any of them logs", `
kind: Policy
name: b
spec: {appliesTo: [{bridge: br0}], defaultDeny: {ingress: true, log: true}}
---
kind: Policy
name: c
spec: {appliesTo: [{bridge: br0}], defaultDeny: {ingress: true}}
---
kind: Policy
name: a
spec: {appliesTo: [{bridge: br0}], ingress: [{name: dns, action: allow, services: [{protocol: udp, ports: ["53"]}]}], defaultDeny: ` +
			`{ingress: false}}`, []row{
			{"192.0.2.1 > db udp 53", "allow i=a/dns"},
			{"192.0.2.1 > db udp 54", "deny i=b/(default-deny)+log"},
		}},
		{"both sides must allow", `
kind: Policy
name: out
spec: {appliesTo: [{port: tap1}], egress: [{name: db, action: allow, to: [{labels: {app: db}}]}]}
---
kind: Policy
name: in
spec: {appliesTo: [{port: tap3}], ingress: [{name: web, action: allow, from: [{labels: {app: web}}], services: [{protocol: tcp, ports: ` +
			`["5432"]}]}]}`, []row{
			{"web1 > db tcp 5432", "allow e=out/db i=in/web"},
			{"web1 > db tcp 22", "deny e=out/db i=in/(default-deny)"},
			{"web1 > 192.0.2.1 tcp 5432", "deny e=out/(default-deny)"},
			{"web2 > db tcp 5432", "allow e=/(default-allow) i=in/web"},
			{"192.0.2.1 > db tcp 5432", "deny i=in/(default-deny)"},
			{"db > web1 tcp 1", "allow e=/(default-allow) i=/(default-allow)"},
		}},
		{"order in the file means nothing, deny wins at equal tier and priority, inside a policy and between policies", `
kind: Policy
name: p
spec:
  appliesTo: [{port: tap1}]
  ingress:
  - {name: range, action: allow, services: [{protocol: tcp, ports: ["5001-5003"]}]}
  - {name: not-5003, action: deny, services: [{protocol: tcp, ports: ["5003"]}]}
---
kind: Policy
name: q
spec: {appliesTo: [{port: tap1}], ingress: [{name: not-5002, action: deny, services: [{protocol: tcp, ports: ["5002"]}]}]}`, []row{
			{"db > web1 tcp 5001", "allow e=/(default-allow) i=p/range"},
			{"db > web1 tcp 5002", "deny e=/(default-allow) i=q/not-5002"},
			{"db > web1 tcp 5003", "deny e=/(default-allow) i=p/not-5003"},
		}},
		{"smaller priority first, higher tier before that", `
kind: Policy
name: last
spec: {tier: baseline, priority: 0, appliesTo: [{port: tap1}], ingress: [{name: a, action: deny}]}
---
kind: Policy
name: late
spec: {priority: 200, appliesTo: [{port: tap1}], ingress: [{name: a, action: deny, services: [{protocol: tcp}]}]}
---
kind: Policy
name: early
spec: {priority: 50, appliesTo: [{port: tap1}], ingress: [{name: a, action: allow, services: [{protocol: tcp, ports: ["80-90"]}]}]}
---
kind: Policy
name: default
spec: {appliesTo: [{port: tap1}], ingress: [{name: a, action: deny, services: [{protocol: tcp, ports: ["85-95"]}]}]}
---
kind: Policy
name: sec
spec: {tier: security, priority: 65535, appliesTo: [{port: tap1}], ingress: [{name: a, action: deny, services: [{protocol: tcp, ports: ` +
			`["90"]}]}]}
---
kind: Policy
name: sos
spec: {tier: emergency, priority: 65535, appliesTo: [{port: tap1}], ingress: [{name: a, action: allow, services: [{protocol: tcp, ` +
			`ports: ["90"]}], from: [{cidr: 192.0.2.7/32}]}]}`, []row{
			{"192.0.2.1 > web1 tcp 85", "allow i=early/a"},
			{"192.0.2.1 > web1 tcp 90", "deny i=sec/a"},
			{"192.0.2.7 > web1 tcp 90", "allow i=sos/a"},
			{"192.0.2.1 > web1 tcp 95", "deny i=default/a"},
			{"192.0.2.1 > web1 tcp 96", "deny i=late/a"},
			{"192.0.2.1 > web1 udp 85", "deny i=last/a"},
		}},
		{"equal actions: attributed by policy, then rule name", `
kind: Policy
name: z
spec: {appliesTo: [{port: tap1}], ingress: [{name: a, action: allow}]}
---
kind: Policy
name: y
spec: {appliesTo: [{port: tap1}], ingress: [{name: c, action: allow}, {name: b, action: allow}]}`, []row{
			{"192.0.2.1 > web1 tcp 1", "allow i=y/b"},
		}},
		{"peers: addresses, exceptions, families", `
kind: Policy
name: p
spec: {appliesTo: [{port: tap1}], ingress: [{name: net, action: allow, from: [{cidr: 192.0.2.0/24, except: [192.0.2.128/25]}, {cidr: ` +
			`"2001:db8::/64"}]}]}`, []row{
			{"192.0.2.127 > web1 tcp 1", "allow i=p/net"},
			{"192.0.2.128 > web1 tcp 1", "deny i=p/(default-deny)"},
			{"2001:db8::77 > web1@2001:db8::1 tcp 1", "allow i=p/net"},
			{"2001:db9::77 > web1@2001:db8::1 tcp 1", "deny i=p/(default-deny)"},
			{"db@192.0.2.1 > web1 tcp 1", "allow e=/(default-allow) i=p/net"},
		}},
		{"peers: entities", `
kind: Policy
name: p
spec: {appliesTo: [{port: tap1}], ingress: [{name: w, action: deny, from: [{entity: world}], services: [{protocol: tcp, ports: ` +
			`["22"]}]}, {name: any, action: allow, from: [{entity: any}]}]}`, []row{
			{"192.0.2.1 > web1 tcp 22", "deny i=p/w"},
			{"db > web1 tcp 22", "allow e=/(default-allow) i=p/any"},
			{"10.0.1.4 > web1 tcp 22", "allow i=p/any"}, // an endpoint's of another bridge
			{"10.0.9.9 > web1 tcp 22", "allow i=p/any"}, // one's of whom nothing else is known
			{"10.0.0.3 > web1 tcp 22", "allow i=p/any"}, // db, by way of a router
			{"db@192.0.2.1 > web1 tcp 22", "allow e=/(default-allow) i=p/any"},
			{"host@192.0.2.9 > web1 tcp 22", "deny i=p/w"},
			{"192.0.2.1 > web1 tcp 23", "allow i=p/any"},
		}},
		{"peers: the host", `
kind: Policy
name: p
spec: {appliesTo: [{port: tap1}], ingress: [{name: h, action: allow, from: [{entity: host}]}], egress: [{name: h, action: allow, to: ` +
			`[{entity: host}]}]}`,
			[]row{
				{"host@192.0.2.9 > web1 tcp 22", "allow i=p/h"},
				{"192.0.2.200 > web1 tcp 22", "allow i=p/h"},
				{"192.0.2.201 > web1 tcp 22", "deny i=p/(default-deny)"},
				{"db@192.0.2.200 > web1 tcp 22", "deny e=/(default-allow) i=p/(default-deny)"},
				{"web1 > host@192.0.2.9 tcp 22", "allow e=p/h"},
				{"web1 > 192.0.2.200 tcp 22", "allow e=p/h"},
				{"web1 > 192.0.2.201 tcp 22", "deny e=p/(default-deny)"},
			}},
		{"peers: the same network", `
kind: Endpoint
name: trunk
spec: {match: {port: tap2}}
---
kind: Policy
name: p
spec: {appliesTo: [{port: tap3}], ingress: [{name: n, action: allow, from: [{entity: same-network}]}]}`, []row{
			{"web2 > db tcp 22", "allow e=/(default-allow) i=p/n"}, // a trunk is in all VLANs
			{"10.0.0.1 > db tcp 22", "deny i=p/(default-deny)"},    // by way of a router
			{"host@192.0.2.9 > db tcp 22", "deny i=p/(default-deny)"},
			{"192.0.2.1 > db tcp 22", "deny i=p/(default-deny)"},
		}},
		{"peers: endpoints of this bridge by what they are, others by address", `
kind: Policy
name: p
spec: {appliesTo: [{port: tap1}], ingress: [{name: lb, action: allow, from: [{labels: {app: lb}}, {labels: {app: db}}]}]}`, []row{
			{"10.0.1.4 > web1 tcp 1", "allow i=p/lb"},
			{"10.0.9.9 > web1 tcp 1", "allow i=p/lb"},
			{"2001:db8::9 > web1@2001:db8::1 tcp 1", "allow i=p/lb"},
			{"10.0.9.8 > web1 tcp 1", "deny i=p/(default-deny)"},
			{"db > web1 tcp 1", "allow e=/(default-allow) i=p/lb"},
			{"db@10.0.0.77 > web1 tcp 1", "allow e=/(default-allow) i=p/lb"},
			{"10.0.0.3 > web1 tcp 1", "deny i=p/(default-deny)"},
			{"web2 > web1 tcp 1", "deny e=/(default-allow) i=p/(default-deny)"},
		}},
		{"peers and subjects: groups, also unknown ones", `
kind: Group
name: friends
spec: {members: [{vm: far}, {cidr: 198.51.100.0/24}, {vlan: 10}]}
---
kind: Group
name: webs
spec: {members: [{labels: {app: web}}]}
---
kind: Policy
name: p
spec: {appliesTo: [{group: webs}], ingress: [{name: f, action: allow, from: [{group: friends}, {group: unknown}]}]}
---
kind: Policy
name: q
spec: {appliesTo: [{group: unknown}], defaultDeny: {egress: true}}`, []row{
			{"10.0.9.9 > web1 tcp 1", "allow i=p/f"},
			{"198.51.100.7 > web2 tcp 1", "allow i=p/f"},
			{"db > web2 tcp 1", "allow e=/(default-allow) i=p/f"},
			{"10.0.1.4 > web2 tcp 1", "deny i=p/(default-deny)"},
			{"web1 > db tcp 1", "allow e=/(default-allow) i=/(default-allow)"},
		}},
		{"the classic: vm1 may open connections to vm2, vm2 none to vm1", `
kind: Policy
name: vm2
spec: {appliesTo: [{vm: web2}], ingress: [{name: from-vm1, action: allow, from: [{vm: web1}]}]}
---
kind: Policy
name: vm1
spec: {appliesTo: [{vm: web1}], defaultDeny: {ingress: true}}`, []row{
			{"web1 > web2 tcp 5001", "allow e=/(default-allow) i=vm2/from-vm1"},
			{"web2 > web1 tcp 5001", "deny e=/(default-allow) i=vm1/(default-deny)"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := scene(t, tt.docs)
			for _, r := range tt.rows {
				if diff := cmp.Diff(r.want, verdict(policy.Evaluate(s, packet(t, s, r.packet)))); diff != "" {
					t.Errorf("%s (-want +got)\n%s", r.packet, diff)
				}
			}
		})
	}
}
