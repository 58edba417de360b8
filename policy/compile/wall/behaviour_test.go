package wall_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ofctrl/tables"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// TestDefaultAllowIsRenewed holds what gives the default allow of w0 (app=a) for ingress a new id.
func TestDefaultAllowIsRenewed(t *testing.T) {
	no := false
	open := func(rules ...policy.Rule) func(*policy.PolicySpec) {
		return func(s *policy.PolicySpec) {
			s.DefaultDeny, s.Ingress = &policy.DefaultDeny{Ingress: &no}, rules
		}
	}
	deny := func(from string) policy.Rule {
		return policy.Rule{Name: "d", Action: policy.Deny, From: cidr(from), Services: tcp("22")}
	}
	for _, c := range []struct {
		name    string
		change  func(l lab)
		renewed bool
	}{
		{"an allow", func(l lab) { l.put("two", open(policy.Rule{Name: "x", Action: policy.Allow})) }, false},
		{"a deny", func(l lab) { l.put("two", open(deny("10.0.1.0/24"))) }, true},
		{"the same deny", func(l lab) { l.put("one", open(deny("10.0.0.0/24"))) }, false},
		{"a narrower deny", func(l lab) { l.put("one", open(deny("10.0.0.0/25"))) }, false},
		{"a wider deny", func(l lab) { l.put("one", open(deny("10.0.0.0/23"))) }, true},
		{"a deny deleted, so that w0 comes into the class of others", func(l lab) { l.fw.DeletePolicy("one"); l.compile() }, true},
		{"a deny raised", func(l lab) {
			l.put("one", func(s *policy.PolicySpec) { open(deny("10.0.0.0/24"))(s); s.Tier = policy.TierSecurity })
		}, false},
		{"a deny for others", func(l lab) {
			l.put("two", func(s *policy.PolicySpec) { open(deny("10.0.1.0/24"))(s); s.AppliesTo = []policy.Selector{app("b")} })
		}, false},
		{"a deny for egress", func(l lab) {
			l.put("two", func(s *policy.PolicySpec) {
				s.DefaultDeny, s.Egress = &policy.DefaultDeny{Egress: &no}, []policy.Rule{{Name: "x", Action: policy.Deny}}
			})
		}, true}, // an id of an endpoint is in both directions
		{"a new endpoint", func(l lab) { l.vm(3, "a"); l.tell(); l.compile() }, false},
		{"isolated and no longer", func(l lab) {
			l.put("two", func(s *policy.PolicySpec) { s.Ingress = []policy.Rule{{Name: "x", Action: policy.Allow}} })
			l.fw.DeletePolicy("two")
			l.compile()
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, "a", "a", "b")
			l.put("one", open(deny("10.0.0.0/24")))
			number := func() uint32 { return l.class("w0").IngressAllow }
			stamp := func() [2]uint32 { return [2]uint32{l.assignments.Endpoints["w0"].ID, number()} }
			before := stamp()
			c.change(l)
			after := stamp()
			if (after != before) != c.renewed || number() == 0 {
				t.Errorf("endpoint and default %d are now %d, want renewed %v", before, after, c.renewed)
			}
			if info, ok := l.fw.Rule(pipeline.IDDefaultAllow | number()); !ok || info.Removed || info.Ref.Direction != policy.Ingress {
				t.Errorf("%d stands for %+v", number(), info)
			}
		})
	}
}

// TestRestartWithChange changes a policy while nobody looked: a rule that comes back as it was keeps its id, one that differs does not,
// and denies that are new renew what they meet.
func TestRestartWithChange(t *testing.T) {
	rule := func(name string, a policy.Effect, from, port string) policy.Rule {
		return policy.Rule{Name: name, Action: a, From: cidr(from), Services: tcp(port)}
	}
	same, wider := rule("same", policy.Allow, "10.1.0.0/24", "80"), rule("differs", policy.Allow, "10.2.0.0/24", "80")
	met := rule("met", policy.Allow, "10.3.0.0/24", "80")
	l := newLab(t, "a", "a", "b")
	l.put("one", func(s *policy.PolicySpec) { s.Ingress = []policy.Rule{same, wider, met} })
	l.put("gone", func(s *policy.PolicySpec) { s.Ingress = []policy.Rule{same} })
	ids := func() [3]uint32 {
		return [3]uint32{l.rule("one", "same"), l.rule("one", "differs"), l.rule("one", "met")}
	}
	before, priority := ids(), l.assignments.Policies["one"]["ingress/same"].Priority

	a := l.assignments
	delete(l.policies, "gone")
	p := *l.policies["one"]
	wider.From = cidr("10.2.0.0/23")
	p.Spec.Ingress = []policy.Rule{met, wider, same, rule("new", policy.Deny, "10.3.0.9/32", "80")}
	l.policies["one"] = &p
	delete(l.workloads, "w2")
	l.start(&a)
	after := ids()
	if before[0] != after[0] || before[1] == after[1] || before[2] == after[2] {
		t.Errorf("ids of same, differs, met were %d and are %d", before, after)
	}
	if got := l.assignments.Policies["one"]["ingress/same"].Priority; got != priority {
		t.Errorf("priority of same was %d and is %d", priority, got)
	}
	if _, ok := l.assignments.Policies["gone"]; ok {
		t.Error("the assignments of a policy that is gone are kept")
	}
	if _, ok := l.assignments.Endpoints["w2"]; ok {
		t.Error("the assignments of an endpoint that is gone are kept")
	}
	for _, id := range after {
		if id >= a.Next {
			continue
		}
		if id != before[0] {
			t.Errorf("id %d was given before", id)
		}
	}
}

func TestStateOfPolicies(t *testing.T) {
	l := newLab(t, "a", "b")
	l.edit(1, func(w *policy.Workload) { w.MAC = "" })
	l.put("nobody", func(s *policy.PolicySpec) {
		s.AppliesTo = []policy.Selector{app("z")}
		s.Ingress = []policy.Rule{{Name: "x", Action: policy.Allow}}
	})
	l.put("blind", func(s *policy.PolicySpec) {
		s.AppliesTo = []policy.Selector{app("b")}
		s.Ingress = []policy.Rule{{Name: "x", Action: policy.Allow}}
	})
	l.put("empty", func(s *policy.PolicySpec) {
		s.Ingress = []policy.Rule{
			{Name: "peerless", Action: policy.Allow, From: []policy.Selector{app("z")}},
			{Name: "groupless", Action: policy.Allow, From: []policy.Selector{{Group: "none"}}},
			{Name: "families", Action: policy.Allow, From: cidr("10.0.0.0/8"), Services: []policy.Service{{Protocol: "icmpv6"}}},
			{Name: "fine", Action: policy.Deny, From: cidr("10.0.0.0/8")},
		}
	})
	codes := func(name string) (out []string) {
		for _, w := range l.states[name].Warnings {
			out = append(out, string(w.Code)+" "+w.Rule)
		}
		return out
	}
	for name, want := range map[string][]string{
		"nobody": {"NO_ENDPOINTS "},
		"blind":  {"ENDPOINT_MAC_UNKNOWN "},
		"empty":  {"GROUP_UNKNOWN ", "RULE_EMPTY ingress/peerless", "RULE_EMPTY ingress/groupless", "RULE_EMPTY ingress/families"},
	} {
		if diff := cmp.Diff(want, codes(name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if s := l.states["empty"]; !slices.Equal(s.Endpoints, []string{"w0"}) || s.Rules[3].ID == 0 || s.Rules[3].Flows == 0 ||
		s.Rules[0].ID != 0 {
		t.Errorf("state %+v", s)
	}
	// What was missing comes: the warnings go.
	l.vm(1, "b")
	l.vm(2, "z")
	l.groups["none"] = &policy.Group{Meta: policy.Meta{Name: "none"}, Spec: policy.GroupSpec{Members: cidr("10.9.0.0/16")}}
	l.tell()
	l.compile()
	if diff := cmp.Diff([]string{"RULE_EMPTY ingress/families"}, codes("empty")); diff != "" {
		t.Errorf("empty (-want +got):\n%s", diff)
	}
	for _, name := range []string{"nobody", "blind"} {
		if got := codes(name); got != nil {
			t.Errorf("%s still warns %v", name, got)
		}
	}
	c := l.put("nobody", func(s *policy.PolicySpec) {})
	l.fw.DeletePolicy("nobody")
	if c = l.compile(); c.Policies["nobody"] != nil || len(c.Policies) != 1 || len(c.Owners) == 0 || c.Owners["policy/nobody"] != nil {
		t.Errorf("deletion says %+v", c)
	}
}

func TestRuleNames(t *testing.T) {
	l := newLab(t, "a")
	l.put("one", func(s *policy.PolicySpec) {
		s.Ingress = []policy.Rule{{Name: "x", Action: policy.Allow, Log: policy.RuleLog{All: true}}}
	})
	id, class := l.rule("one", "x"), uint32(l.assignments.Endpoints["w0"].Class)
	for _, c := range []struct {
		id   uint32
		want wall.RuleInfo
	}{
		{id, wall.RuleInfo{Ref: policy.RuleRef{Policy: "one", Direction: policy.Ingress, Rule: "x"}, Action: policy.Allow, Log: true}},
		{pipeline.IDDefaultDeny | pipeline.IDIngress | class,
			wall.RuleInfo{Ref: policy.RuleRef{Policy: "one", Direction: policy.Ingress, Rule: policy.RuleDefaultDeny}, Action: policy.Deny,
				Endpoint: "w0"}},
		{pipeline.IDDefaultAllow | l.class("w0").EgressAllow,
			wall.RuleInfo{Ref: policy.RuleRef{Direction: policy.Egress, Rule: policy.RuleDefaultAllow}, Action: policy.Allow, Endpoint: "w0"}},
		{pipeline.IDNoEndpoint, wall.RuleInfo{Ref: policy.RuleRef{Rule: policy.RuleDefaultAllow}, Action: policy.Allow}},
	} {
		if got, ok := l.fw.Rule(c.id); !ok || got != c.want {
			t.Errorf("%#x is %+v, %v, want %+v", c.id, got, ok, c.want)
		}
	}
	if _, ok := l.fw.Rule(12345); ok {
		t.Error("an id that was never given stands for something")
	}
	l.fw.DeletePolicy("one")
	l.compile()
	if got, ok := l.fw.Rule(id); !ok || !got.Removed || got.Ref.Rule != "x" {
		t.Errorf("the deleted rule is %+v, %v", got, ok)
	}
	// Ids of removed rules are remembered, but not for ever.
	for i := range 10000 {
		l.put("churn", func(s *policy.PolicySpec) {
			s.Ingress = []policy.Rule{{Name: "x", Action: policy.Allow, From: cidr(fmt.Sprintf("10.0.%d.%d/32", i/256, i%256))}}
		})
	}
	if _, ok := l.fw.Rule(id); ok {
		t.Error("10,000 ids later the deleted rule is still remembered")
	}
	if _, ok := l.fw.Rule(l.rule("churn", "x") - 1); !ok {
		t.Error("the last id but one is not remembered")
	}
}

// TestBesidePolicy walks packets through what comes before the policy tables.
func TestBesidePolicy(t *testing.T) {
	l := newLab(t, "a", "b", "dhcp")
	l.edit(1, func(w *policy.Workload) { w.VLAN = 10 })
	l.edit(2, func(w *policy.Workload) { w.DHCPServer = true })
	l.put("closed", func(s *policy.PolicySpec) {
		yes := true
		s.AppliesTo = []policy.Selector{{Bridge: "br0"}}
		s.DefaultDeny = &policy.DefaultDeny{Ingress: &yes, Egress: &yes}
	})
	const broadcast = 0xffffffffffff
	v4 := func(src, dst string, proto uint8, sport, dport uint16) tables.Tuple {
		return tables.Tuple{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Proto: proto, SrcPort: sport, DstPort: dport}
	}
	type fields map[flow.FieldID]uint64
	frame := func(port uint32, dst uint64, f fields) tables.Packet {
		p := tables.Packet{flow.InPort: flow.U64(uint64(port)), flow.EthDst: flow.U64(dst)}
		for k, v := range f {
			p[k] = flow.U64(v)
		}
		if f[flow.EthType] == 0x86dd {
			p[flow.IPv6Dst] = flow.U128{Hi: 0xff02 << 48, Lo: 1}
		}
		return p
	}
	w0, w1, w2, stranger := macNumber(macOf("w0")), macNumber(macOf("w1")), macNumber(macOf("w2")), macNumber(macOf("w9"))
	nd := func(t, ttl uint64) fields {
		return fields{flow.EthType: 0x86dd, flow.IPProto: 58, flow.ICMPv6Type: t, flow.IPTTL: ttl}
	}
	igmp := func(ttl, to uint64) fields {
		return fields{flow.EthType: 0x800, flow.IPProto: 2, flow.IPTTL: ttl, flow.IPDst: to}
	}
	link := func(i pipeline.Item) flow.Cookie { return pipeline.SystemCookie(pipeline.TableLink, i) }
	for _, c := range []struct {
		name   string
		p      tables.Packet
		cookie flow.Cookie // of the flow that decides: the last but EXIT's
	}{
		{"ARP", frame(1, broadcast, fields{flow.EthType: 0x806}), pipeline.SystemCookie(pipeline.TablePre, pipeline.ItemARP)},
		{"neighbour solicitation", frame(1, 0x3333ff000001, nd(135, 255)), link(pipeline.ItemND)},
		{"unicast solicitation", frame(1, w1, nd(135, 255)), link(pipeline.ItemND)},
		{"neighbour advertisement", frame(1, w1, nd(136, 255)), link(pipeline.ItemND)},
		{"solicitation that was forwarded", frame(1, 0x3333ff000001, nd(135, 254)), pipeline.DropEgress.Cookie()},
		{"advertisement with another code", frame(1, w1, fields{flow.EthType: 0x86dd, flow.IPProto: 58, flow.ICMPv6Type: 136,
			flow.ICMPv6Code: 1, flow.IPTTL: 255}),
			pipeline.DropEgress.Cookie()},
		{"router advertisement", frame(1, w1, nd(134, 255)).With(flow.IPv6Src, flow.U128{Hi: 0xfe80 << 48, Lo: 1}), link(pipeline.ItemND)},
		{"router advertisement of a global address", frame(1, w1, nd(134, 255)).With(flow.IPv6Src, flow.U128{Hi: 0xfd77 << 48, Lo: 1}),
			pipeline.DropEgress.Cookie()},
		{"router solicitation", frame(1, 0x333300000002, nd(133, 255)).With(flow.IPv6Dst, flow.U128{Hi: 0xff02 << 48, Lo: 2}),
			link(pipeline.ItemND)},
		{"router solicitation to a machine", frame(1, w1, nd(133, 255)), pipeline.DropEgress.Cookie()},
		{"multicast listener report", frame(1, 0x333300000016, nd(143, 1)), link(pipeline.ItemMLD)},
		{"multicast listener report from afar", frame(1, 0x333300000016, nd(143, 2)), pipeline.DropEgress.Cookie()},
		{"multicast listener report to a machine", frame(1, w1, nd(143, 1)).With(flow.IPv6Dst, flow.U128{Hi: 0xfd77 << 48, Lo: 1}),
			pipeline.DropEgress.Cookie()},
		{"multicast listener report in a frame to a machine", frame(1, w1, nd(143, 1)), pipeline.DropEgress.Cookie()},
		{"IGMP report", frame(1, 0x01005e000016, igmp(1, 0xe0000016)), link(pipeline.ItemIGMP)},
		{"IGMP report from afar", frame(1, 0x01005e000016, igmp(2, 0xe0000016)), pipeline.DropEgress.Cookie()},
		{"IGMP to a machine", frame(1, w1, igmp(1, 0x0a000002)), pipeline.DropEgress.Cookie()},
		{"IGMP in a frame to a machine", frame(1, w1, igmp(1, 0xe0000016)), pipeline.DropEgress.Cookie()},
		{"IGMP from outside", frame(uplink, 0x01005e000001, igmp(7, 0xe0000001)), link(pipeline.ItemUnmanaged)},
		{"echo request", frame(1, 0x333300000001, nd(128, 255)), pipeline.DropEgress.Cookie()},
		{"not IP", frame(1, 0x0180c2000000, fields{flow.EthType: 0x88cc}), pipeline.SystemCookie(pipeline.TablePre, pipeline.ItemNonIP)},
		{"DHCP request", tables.IP(1, w0, broadcast, v4("0.0.0.0", "255.255.255.255", 17, 68, 67), 0), link(pipeline.ItemDHCP)},
		{"DHCP request from an address", tables.IP(1, w0, broadcast, v4("10.0.0.1", "255.255.255.255", 17, 68, 67), 0),
			pipeline.DropEgress.Cookie()},
		{"DHCP request in a frame to a machine", tables.IP(1, w0, w1, v4("0.0.0.0", "255.255.255.255", 17, 68, 67), 0),
			pipeline.DropEgress.Cookie()},
		{"DHCP renewal", tables.IP(1, w0, stranger, v4("10.0.0.1", "10.0.0.9", 17, 68, 67), 0), pipeline.DropEgress.Cookie()},
		{"DHCPv6 request", tables.IP(1, w0, 0x333300010002, v4("fe80::1", "ff02::1:2", 17, 546, 547), 0), link(pipeline.ItemDHCP)},
		{"DHCPv6 request from a global address", tables.IP(1, w0, 0x333300010002, v4("fd77::1", "ff02::1:2", 17, 546, 547), 0),
			pipeline.DropEgress.Cookie()},
		{"DHCPv6 request in a frame to a machine", tables.IP(1, w0, w1, v4("fe80::1", "ff02::1:2", 17, 546, 547), 0),
			pipeline.DropEgress.Cookie()},
		{"DHCPv6 request to a machine", tables.IP(1, w0, stranger, v4("fe80::1", "fe80::9", 17, 546, 547), 0), pipeline.DropEgress.Cookie()},
		{"DHCPv6 answer from outside", tables.IP(uplink, stranger, w0, v4("fe80::9", "fe80::1", 17, 547, 546), 0), link(pipeline.ItemDHCP)},
		{"DHCPv6 answer of a global address", tables.IP(uplink, stranger, w0, v4("fd77::9", "fe80::1", 17, 547, 546), 0),
			pipeline.DropIngress.Cookie()},
		{"DHCPv6 answer to a global address", tables.IP(uplink, stranger, w0, v4("fe80::9", "fd77::1", 17, 547, 546), 0),
			pipeline.DropIngress.Cookie()},
		{"DHCPv6 answer from an endpoint", tables.IP(1, w0, stranger, v4("fe80::1", "fe80::9", 17, 547, 546), 0),
			pipeline.DropEgress.Cookie()},
		{"DHCP request to an endpoint", tables.IP(uplink, stranger, w0, v4("10.0.0.9", "10.0.0.1", 17, 68, 67), 0),
			pipeline.DropIngress.Cookie()},
		{"DHCP answer from outside", tables.IP(uplink, stranger, w0, v4("10.0.0.9", "10.0.0.1", 17, 67, 68), 0), link(pipeline.ItemDHCP)},
		{"DHCP answer from outside by broadcast", tables.IP(uplink, stranger, broadcast, v4("10.0.0.9", "255.255.255.255", 17, 67, 68), 0),
			link(pipeline.ItemDHCP)},
		{"DHCP answer from the declared server", tables.IP(3, w2, w0, v4("10.0.0.3", "10.0.0.1", 17, 67, 68), 0), link(pipeline.ItemDHCP)},
		{"DHCP answer from the declared server by broadcast", tables.IP(3, w2, broadcast, v4("10.0.0.3", "255.255.255.255", 17, 67, 68), 0),
			link(pipeline.ItemDHCP)},
		{"DHCPv6 answer from the declared server", tables.IP(3, w2, w0, v4("fe80::3", "fe80::1", 17, 547, 546), 0), link(pipeline.ItemDHCP)},
		{"other datagram of the declared server", tables.IP(3, w2, w0, v4("10.0.0.3", "10.0.0.1", 17, 67, 69), 0),
			pipeline.DropEgress.Cookie()},
		{"DHCP answer from an endpoint", tables.IP(1, w0, stranger, v4("10.0.0.1", "10.0.0.9", 17, 67, 68), 0), pipeline.DropEgress.Cookie()},
		{"strangers", tables.IP(uplink, stranger, stranger, v4("10.0.0.8", "10.0.0.9", 6, 1, 2), syn),
			pipeline.SystemCookie(pipeline.TablePre, pipeline.ItemUnmanaged)},
		{"unicast IP in a broadcast frame", tables.IP(uplink, stranger, broadcast, v4("10.0.0.9", "10.0.0.1", 17, 1, 2), 0),
			pipeline.DropGroupUnicast.Cookie()},
		{"directed broadcast", tables.IP(uplink, stranger, broadcast, v4("10.0.0.9", "10.0.0.255", 17, 1, 2), 0),
			pipeline.DropGroupUnicast.Cookie()},
		{"multicast from outside", tables.IP(uplink, stranger, 0x01005e000001, v4("10.0.0.9", "224.0.0.1", 17, 1, 2), 0),
			pipeline.SystemCookie(pipeline.TablePre, pipeline.ItemUnmanaged)},
		{"limited broadcast from outside", tables.IP(uplink, stranger, broadcast, v4("10.0.0.9", "255.255.255.255", 17, 1, 2), 0),
			pipeline.SystemCookie(pipeline.TablePre, pipeline.ItemUnmanaged)},
		{"unknown port", tables.IP(77, stranger, w0, v4("10.0.0.9", "10.0.0.1", 17, 1, 2), 0), pipeline.DropUnknownPort.Cookie()},
		{"priority-tagged on an access port", tables.IP(2, w1, w0, v4("10.0.0.2", "10.0.0.1", 17, 1, 2), 0).Tag(0),
			pipeline.DropEgress.Cookie()},
		{"tagged on an access port", tables.IP(2, w1, w0, v4("10.0.0.2", "10.0.0.1", 17, 1, 2), 0).Tag(10),
			pipeline.DropTaggedAccess.Cookie()},
		{"other VLAN's address", tables.IP(uplink, stranger, w1, v4("10.0.0.9", "10.0.0.2", 17, 1, 2), 0).Tag(11),
			pipeline.SystemCookie(pipeline.TablePre, pipeline.ItemUnmanaged)},
		{"error about nothing", tables.IP(1, w0, w1, v4("10.0.0.1", "10.0.0.2", 17, 1, 2), 0).ErrorAbout(false),
			pipeline.DropInvalid.Cookie()},
		{"SYN and FIN", tables.IP(1, w0, stranger, v4("10.0.0.1", "10.0.0.9", 6, 1, 2), syn|fin).ErrorAbout(false),
			pipeline.DropStrangeFlags.Cookie()},
		{"SYN, FIN and RST", tables.IP(1, w0, stranger, v4("10.0.0.1", "10.0.0.9", 6, 1, 2), syn|fin|rst).ErrorAbout(false),
			pipeline.DropStrangeFlags.Cookie()},
		{"no flag at all", tables.IP(1, w0, stranger, v4("10.0.0.1", "10.0.0.9", 6, 1, 2), 0).ErrorAbout(false),
			pipeline.DropStrangeFlags.Cookie()},
		{"FIN without ACK", tables.IP(1, w0, stranger, v4("10.0.0.1", "10.0.0.9", 6, 1, 2), fin).ErrorAbout(false),
			pipeline.DropStrangeFlags.Cookie()},
		{"SYN and ACK of nothing", tables.IP(1, w0, stranger, v4("10.0.0.1", "10.0.0.9", 6, 1, 2), syn|ack).ErrorAbout(false),
			pipeline.DropStraySYNACK.Cookie()},
		{"segment that does not fit", tables.IP(1, w0, stranger, v4("10.0.0.1", "10.0.0.9", 6, 1, 2), ack).ErrorAbout(false),
			pipeline.DropUnfitSegment.Cookie()},
		{"RST of nothing", tables.IP(1, w0, stranger, v4("10.0.0.1", "10.0.0.9", 6, 1, 2), rst|ack), pipeline.DropStrayReset.Cookie()},
		{"FIN of nothing", tables.IP(1, w0, stranger, v4("10.0.0.1", "10.0.0.9", 6, 1, 2), fin|ack), pipeline.DropStrayFIN.Cookie()},
		{"SYN and ACK of nothing, IPv6", tables.IP(1, w0, stranger, v4("fd77::1", "fd77::9", 6, 1, 2), syn|ack).ErrorAbout(false),
			pipeline.DropStraySYNACK.Cookie()},
		{"RST of nothing, IPv6", tables.IP(1, w0, stranger, v4("fd77::1", "fd77::9", 6, 1, 2), rst), pipeline.DropStrayReset.Cookie()},
		{"datagram that is invalid", tables.IP(1, w0, stranger, v4("10.0.0.1", "10.0.0.9", 17, 1, 2), 0).ErrorAbout(false),
			pipeline.DropInvalid.Cookie()},
		{"ACK of nothing", tables.IP(1, w0, stranger, v4("10.0.0.1", "10.0.0.9", 6, 1, 2), ack), pipeline.DropOutOfState.Cookie()},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := l.sw.Process(c.p)
			i := len(r.Cookies) - 1
			if r.Normal {
				i--
			}
			if r.Cookies[i] != c.cookie {
				t.Errorf("decided by %#x in table %d, want %#x; tables %v", r.Cookies[i], r.Tables[i], c.cookie, r.Tables)
			}
			kind, _, _ := pipeline.ParseCookie(c.cookie)
			if r.Normal != (kind == pipeline.CookieSystem) {
				t.Errorf("passed %v", r.Normal)
			}
			// Of what is out of state a copy goes out, under the meter for it.
			stray := slices.ContainsFunc(pipeline.OutOfStateReasons(), func(r pipeline.DropReason) bool { return r.Cookie() == c.cookie })
			told := slices.ContainsFunc(r.Copies, func(a flow.Controller) bool {
				return a.UserData == pipeline.CopyOutOfState.UserData() && a.MeterID == pipeline.MeterOutOfState
			})
			if told != stray {
				t.Errorf("copied to the controller as out of state: %v", told)
			}
		})
	}
	t.Run("arrives tracked", func(t *testing.T) {
		p := frame(1, broadcast, fields{flow.EthType: 0x806, flow.CtState: flow.CtTrk | flow.CtInv})
		if r := l.sw.Process(p); !r.Normal || !r.Visited(pipeline.TablePre) {
			t.Errorf("passed %v by %v", r.Normal, r.Tables)
		}
	})
	t.Run("without policy", func(t *testing.T) {
		l.fw.DeletePolicy("closed")
		l.compile()
		if r := l.sw.Process(tables.IP(uplink, stranger, broadcast, v4("10.0.0.9", "10.0.0.255", 17, 1, 2), 0)); !r.Normal {
			t.Errorf("directed broadcast is dropped although there are no rules: %v", r.Tables)
		}
	})
	t.Run("with a rule that isolates nobody", func(t *testing.T) {
		no := false
		for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
			l.put("open", func(s *policy.PolicySpec) {
				s.DefaultDeny = &policy.DefaultDeny{Ingress: &no, Egress: &no}
				rules := []policy.Rule{{Name: "x", Action: policy.Deny, Services: tcp("22")}}
				if d == policy.Ingress {
					s.Ingress = rules
				} else {
					s.Egress = rules
				}
			})
			if r := l.sw.Process(tables.IP(uplink, stranger, broadcast, v4("10.0.0.9", "10.0.0.1", 17, 1, 2), 0)); r.Normal {
				t.Errorf("unicast IP in a broadcast frame passes an %s rule: %v", d, r.Tables)
			}
		}
	})
}

// TestRelatedErrors follows ICMP errors: they pass with their connection and not without.
func TestRelatedErrors(t *testing.T) {
	l := newLab(t, "b", "a")
	allow := func(port string) {
		l.put("one", func(s *policy.PolicySpec) {
			s.Ingress = []policy.Rule{{Name: "x", Action: policy.Allow, Services: tcp(port)}}
		})
	}
	allow("80")
	x := talk{from: station{"w0"}, to: station{"w1"}, tuple: tables.Tuple{
		Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Proto: 6, SrcPort: 4000, DstPort: 80,
	}}
	if r := l.sw.Process(l.packet(x, false, syn)); !r.Normal {
		t.Fatalf("SYN dropped: %v", r.Tables)
	}
	l.sw.Process(l.packet(x, true, syn|ack))
	for _, reply := range []bool{false, true} {
		if r := l.sw.Process(l.packet(x, reply, 0).ErrorAbout(reply)); !r.Normal || r.Visited(pipeline.TableRecheck) {
			t.Errorf("error, to the initiator %v: passed %v by %v", reply, r.Normal, r.Tables)
		}
	}
	allow("81")
	for _, reply := range []bool{false, true} {
		r := l.sw.Process(l.packet(x, reply, 0).ErrorAbout(reply))
		if last := r.Cookies[len(r.Cookies)-1]; r.Normal || last != pipeline.DropStaleRelated.Cookie() {
			t.Errorf("error about a revoked connection, to the initiator %v: passed %v by %v", reply, r.Normal, r.Tables)
		}
	}
}

func TestAddresses(t *testing.T) {
	destinations := func(l lab) (out []string) {
		for _, f := range l.flows() {
			if f.Table == pipeline.TableDestination && f.Priority <= pipeline.PriorityAccessMAC && f.Priority > pipeline.PriorityHostMAC {
				out = append(out, f.Match.String()+" "+f.Actions[0].String())
			}
		}
		return out
	}
	l := newLab(t, "a", "b")
	l.edit(0, func(w *policy.Workload) { w.VLAN = 10 })
	l.edit(1, func(w *policy.Workload) { w.VLAN, w.MAC = 10, macOf("w0") })
	l.compile()
	first := l.assignments.Endpoints["w0"].ID
	if diff := cmp.Diff([]string{fmt.Sprintf("reg10=0xe00a,dl_dst=52:54:00:00:00:00 load:%#x->NXM_NX_REG9[]", first)},
		destinations(l)); diff != "" {
		t.Errorf("one address, two endpoints (-want +got):\n%s", diff)
	}
	delete(l.workloads, "w0")
	l.tell()
	l.compile()
	second := l.assignments.Endpoints["w1"].ID
	if diff := cmp.Diff([]string{fmt.Sprintf("reg10=0xe00a,dl_dst=52:54:00:00:00:00 load:%#x->NXM_NX_REG9[]", second)},
		destinations(l)); diff != "" {
		t.Errorf("the first is gone (-want +got):\n%s", diff)
	}
	l.edit(1, func(w *policy.Workload) { w.VLAN, w.MAC = 0, "" })
	l.compile()
	if got := destinations(l); got != nil {
		t.Errorf("an unknown address is recognised: %v", got)
	}
	if f := l.owners[wall.OwnerSystem]; slices.ContainsFunc(f, func(f flow.Flow) bool {
		return f.Cookie == pipeline.SystemCookie(pipeline.TablePre, pipeline.ItemUnmanaged)
	}) {
		t.Error("answers to the endpoint of unknown address bypass conntrack, which then takes its connections for invalid")
	}
}

func TestNewFirewallRefuses(t *testing.T) {
	for _, o := range []wall.Options{{}, {Bridge: "br0", BridgeIndex: -1}, {Bridge: "br0", BridgeIndex: pipeline.MaxBridges}} {
		if _, err := wall.NewFirewall(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

// TestTooManyRules fills all priorities: the policy that finds no room says so, and gets in when there is room again.
func TestTooManyRules(t *testing.T) {
	l := newLab(t, "a")
	states := map[string]*wall.PolicyState{}
	put := func(name string, change func(*policy.PolicySpec)) {
		p := &policy.Policy{Meta: policy.Meta{Name: name}, Spec: policy.PolicySpec{AppliesTo: []policy.Selector{app("a")}}}
		change(&p.Spec)
		l.fw.SetPolicy(p)
		maps.Copy(states, l.fw.Compile().Policies)
	}
	rules := func(n int) func(s *policy.PolicySpec) {
		return func(s *policy.PolicySpec) {
			for i := range n {
				s.Ingress = append(s.Ingress, policy.Rule{Name: fmt.Sprint("r", i), Action: policy.Allow, Services: tcp(fmt.Sprint(i%65000 + 1))})
			}
		}
	}
	put("most", rules(59999))
	put("last", rules(1))
	put("over", rules(2))
	if err := states["over"].Err; !errors.Is(err, wall.ErrTooManyRules) {
		t.Fatalf("error %v", err)
	}
	if states["last"].Err != nil || states["last"].Rules[0].ID == 0 || states["over"].Rules[0].ID != 0 {
		t.Error("the wrong policy has no flows")
	}
	put("most", rules(59998))
	if err := states["over"].Err; err == nil {
		t.Error("one place for two rules suffices")
	}
	put("most", rules(59997))
	if err := states["over"].Err; err != nil || states["over"].Rules[1].ID == 0 {
		t.Errorf("there is room again, but %v", err)
	}
}

// TestLocalPort: OVSDB numbers LOCAL as OpenFlow 1.0 does, flows of OpenFlow 1.3 otherwise.
func TestLocalPort(t *testing.T) {
	fw, err := wall.NewFirewall(wall.Options{Bridge: "br0"})
	if err != nil {
		t.Fatal(err)
	}
	fw.SetWorkloads(nil, []wall.Port{{Name: "br0", OFPort: 65534}})
	if c := fw.Compile(); !slices.ContainsFunc(c.Owners[wall.OwnerSystem], func(f flow.Flow) bool {
		t, ok := f.Match.Get(flow.InPort)
		return ok && t.Value.Lo == uint64(flow.PortLocal)
	}) {
		t.Errorf("LOCAL is not classified: %s", texts(c.Owners[wall.OwnerSystem]))
	}
}
