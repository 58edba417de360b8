package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/policy"
)

// A universe so small that random policies and packets meet: eight addresses, four ports, two labels.

func drawLabels(t *rapid.T) map[string]string {
	m := map[string]string{}
	for _, k := range []string{"a", "b"} {
		if v := rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, k); v != "" {
			m[k] = v
		}
	}
	return m
}

func drawAddr(t *rapid.T) netip.Addr {
	n := byte(rapid.IntRange(0, 7).Draw(t, "host"))
	if rapid.IntRange(0, 3).Draw(t, "family") == 0 {
		return netip.AddrFrom16([16]byte{0x20, 1, 15: n})
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, n})
}

func drawPrefix(t *rapid.T) netip.Prefix {
	a := drawAddr(t)
	return netip.PrefixFrom(a, a.BitLen()-rapid.IntRange(0, 3).Draw(t, "host bits")).Masked()
}

func drawEndpointSelector(t *rapid.T) policy.Selector {
	if rapid.IntRange(0, 3).Draw(t, "by") == 0 {
		return policy.Selector{Bridge: rapid.SampledFrom([]string{"br0", "br1"}).Draw(t, "bridge")}
	}
	m := drawLabels(t)
	if len(m) == 0 {
		m["a"] = "1"
	}
	return policy.Selector{Labels: m}
}

func drawPeer(t *rapid.T, groups bool) policy.Selector {
	switch rapid.IntRange(0, 6).Draw(t, "peer") {
	case 6:
		s := policy.Selector{CIDR: rapid.SampledFrom([]string{"0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/1", "64.0.0.0/2",
			"2000::/3"}).Draw(t, "wide")}
		if s.CIDR == "0.0.0.0/0" && rapid.Bool().Draw(t, "with except") {
			s.Except = []string{rapid.SampledFrom([]string{"10.0.0.0/8", "0.0.0.0/1", "32.0.0.0/3"}).Draw(t, "except")}
		}
		return s
	case 0:
		return policy.Selector{Entity: rapid.SampledFrom([]string{"any", "world"}).Draw(t, "entity")}
	case 1, 2:
		p := drawPrefix(t)
		s := policy.Selector{CIDR: p.String()}
		if x := drawPrefix(t); x.Overlaps(p) && x.Bits() > p.Bits() {
			s.Except = []string{x.String()}
		}
		return s
	case 3:
		if groups {
			return policy.Selector{Group: rapid.SampledFrom([]string{"g1", "g2", "unknown"}).Draw(t, "group")}
		}
	}
	return drawEndpointSelector(t)
}

func drawRules(t *rapid.T, d policy.Direction) []policy.Rule {
	var rules []policy.Rule
	actions := []policy.Effect{policy.Allow, policy.Deny, policy.Allow, policy.Deny, policy.Pass, policy.Reject}
	for i := range rapid.IntRange(0, 3).Draw(t, "rules") {
		r := policy.Rule{Name: fmt.Sprintf("r%d", i), Action: rapid.SampledFrom(actions).Draw(t, "action"),
			Log: policy.RuleLog{All: rapid.Bool().Draw(t, "log")}}
		var peers []policy.Selector
		for range rapid.IntRange(0, 2).Draw(t, "peers") {
			peers = append(peers, drawPeer(t, true))
		}
		if d == policy.Ingress {
			r.From = peers
		} else {
			r.To = peers
		}
		for range rapid.IntRange(0, 2).Draw(t, "services") {
			r.Services = append(r.Services, drawService(t))
		}
		rules = append(rules, r)
	}
	return rules
}

// drawService names ports and ICMP types of 1 to 4.
func drawService(t *rapid.T) policy.Service {
	s := policy.Service{Protocol: rapid.SampledFrom([]policy.Protocol{"tcp", "tcp", "udp", "icmp", "icmpv6", "sctp", "6", "gre", "112"}).
		Draw(t, "protocol")}
	ports := func(of *[]string, name string) {
		for rapid.Bool().Draw(t, "with "+name) && len(*of) < 2 {
			lo := rapid.IntRange(1, 4).Draw(t, "lo")
			*of = append(*of, fmt.Sprintf("%d-%d", lo, rapid.IntRange(lo, 4).Draw(t, "hi")))
		}
	}
	switch s.Protocol {
	case "tcp", "udp", "sctp", "6":
		ports(&s.Ports, "ports")
		if rapid.Bool().Draw(t, "narrow") {
			ports(&s.SourcePorts, "source ports")
		}
	case "icmp", "icmpv6":
		if rapid.Bool().Draw(t, "with type") {
			s.Type = new(rapid.IntRange(1, 4).Draw(t, "type"))
			if rapid.Bool().Draw(t, "with code") {
				s.Code = new(rapid.IntRange(0, 2).Draw(t, "code"))
			}
		}
	}
	return s
}

func drawPolicy(t *rapid.T, name string) *policy.Policy {
	p := &policy.Policy{Meta: policy.Meta{Name: name}}
	p.Spec.Tier = rapid.SampledFrom([]policy.Tier{"", policy.TierSecurity, policy.TierApplication}).Draw(t, "tier")
	if rapid.Bool().Draw(t, "with priority") {
		p.Spec.Priority = new(rapid.SampledFrom([]int{1, 100, 200}).Draw(t, "priority"))
	}
	if rapid.IntRange(0, 4).Draw(t, "audit") == 0 {
		p.Spec.Mode = policy.ModeAudit
	}
	for range rapid.IntRange(1, 2).Draw(t, "subjects") {
		p.Spec.AppliesTo = append(p.Spec.AppliesTo, drawEndpointSelector(t))
	}
	p.Spec.Ingress, p.Spec.Egress = drawRules(t, policy.Ingress), drawRules(t, policy.Egress)
	if rapid.Bool().Draw(t, "with defaultDeny") {
		p.Spec.DefaultDeny = &policy.DefaultDeny{Log: rapid.Bool().Draw(t, "log default")}
		if rapid.Bool().Draw(t, "with ingress") {
			p.Spec.DefaultDeny.Ingress = new(rapid.Bool().Draw(t, "ingress"))
		}
	}
	if !p.Isolates(policy.Ingress) && !p.Isolates(policy.Egress) && (len(p.Spec.Ingress)+len(p.Spec.Egress) == 0 || p.LogsDefaultDeny()) {
		p.Spec.DefaultDeny = &policy.DefaultDeny{Egress: new(true)} // or it would be refused
	}
	return p
}

func drawSet(t *rapid.T) *policy.Set {
	s := &policy.Set{Groups: map[string]*policy.Group{}}
	for i := range rapid.IntRange(1, 4).Draw(t, "policies") {
		s.Policies = append(s.Policies, drawPolicy(t, fmt.Sprintf("p%d", i)))
	}
	for _, name := range []string{"g1", "g2"} {
		g := &policy.Group{Meta: policy.Meta{Name: name}}
		for range rapid.IntRange(0, 2).Draw(t, "members") {
			if m := drawPeer(t, false); m.Entity == "" {
				g.Spec.Members = append(g.Spec.Members, m)
			}
		}
		s.Groups[name] = g
	}
	if rapid.IntRange(0, 3).Draw(t, "nested") == 0 {
		g := s.Groups["g2"]
		g.Spec.Members = append(g.Spec.Members, policy.Selector{Group: "g1"})
	}
	for i := range rapid.IntRange(1, 5).Draw(t, "workloads") {
		w := &policy.Workload{Key: fmt.Sprintf("w%d", i), Labels: drawLabels(t), Addresses: []netip.Addr{drawAddr(t)},
			Audit: rapid.IntRange(0, 9).Draw(t, "audit") == 0}
		switch rapid.IntRange(0, 3).Draw(t, "place") {
		case 0:
			w.Remote = true
		case 1:
			w.Bridge = "br1"
		default:
			w.Bridge = "br0"
		}
		s.Workloads = append(s.Workloads, w)
	}
	for _, p := range s.Policies {
		if faults := p.Validate(); faults != nil {
			t.Fatalf("drew an invalid policy: %+v", faults)
		}
	}
	return s
}

func drawPacket(t *rapid.T, s *policy.Set) policy.Packet {
	p := policy.Packet{Bridge: "br0", SrcIP: drawAddr(t), DstIP: drawAddr(t), SrcPort: 9}
	side := func(name string, ip *netip.Addr) *policy.Workload {
		local := []*policy.Workload{nil}
		for _, w := range s.Workloads {
			if w.Bridge == "br0" {
				local = append(local, w)
			}
		}
		w := rapid.SampledFrom(local).Draw(t, name)
		if w != nil && rapid.Bool().Draw(t, "own address") {
			*ip = w.Addresses[0]
		}
		return w
	}
	p.Src, p.Dst = side("source", &p.SrcIP), side("destination", &p.DstIP)
	p.Proto = rapid.SampledFrom([]uint8{policy.ProtoTCP, policy.ProtoTCP, policy.ProtoUDP, policy.ProtoICMP, policy.ProtoICMPv6,
		policy.ProtoSCTP, 47, 112}).Draw(t, "proto")
	p.SrcPort = 0
	switch p.Proto {
	case policy.ProtoICMP, policy.ProtoICMPv6:
		p.ICMPType, p.ICMPCode = uint8(rapid.IntRange(0, 5).Draw(t, "type")), uint8(rapid.IntRange(0, 2).Draw(t, "code"))
	case policy.ProtoTCP, policy.ProtoUDP, policy.ProtoSCTP:
		p.SrcPort, p.DstPort = uint16(rapid.IntRange(1, 5).Draw(t, "sport")), uint16(rapid.IntRange(1, 5).Draw(t, "dport"))
	}
	return p
}

func shuffled(t *rapid.T, s *policy.Set) *policy.Set {
	out := &policy.Set{Groups: map[string]*policy.Group{}, Workloads: rapid.Permutation(s.Workloads).Draw(t, "workloads shuffled")}
	for _, p := range rapid.Permutation(s.Policies).Draw(t, "policies shuffled") {
		c := p.Clone().(*policy.Policy)
		c.Spec.AppliesTo = rapid.Permutation(c.Spec.AppliesTo).Draw(t, "subjects shuffled")
		c.Spec.Ingress = rapid.Permutation(c.Spec.Ingress).Draw(t, "ingress shuffled")
		c.Spec.Egress = rapid.Permutation(c.Spec.Egress).Draw(t, "egress shuffled")
		out.Policies = append(out.Policies, c)
	}
	for n, g := range s.Groups {
		c := g.Clone().(*policy.Group)
		c.Spec.Members = rapid.Permutation(c.Spec.Members).Draw(t, "members shuffled")
		out.Groups[n] = c
	}
	return out
}

func TestEvaluateDoesNotDependOnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSet(t)
		o := shuffled(t, s)
		for range 5 {
			p := drawPacket(t, s)
			if diff := cmp.Diff(policy.Evaluate(s, p), policy.Evaluate(o, p)); diff != "" {
				t.Fatalf("%+v (-as drawn +shuffled)\n%s", p, diff)
			}
		}
	})
}

func TestDenyNeverAllowsMoreAndAllowNeverLess(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSet(t)
		more := &policy.Set{Groups: s.Groups, Workloads: s.Workloads}
		at := rapid.IntRange(0, len(s.Policies)-1).Draw(t, "changed policy")
		dir := rapid.SampledFrom([]policy.Direction{policy.Ingress, policy.Egress}).Draw(t, "direction")
		added := drawRules(t, dir)
		if len(added) == 0 {
			t.Skip()
		}
		action := rapid.SampledFrom([]policy.Effect{policy.Allow, policy.Deny, policy.Reject}).Draw(t, "added action")
		for i := range added {
			added[i].Name, added[i].Action = fmt.Sprintf("new%d", i), action
		}
		isolatedBefore := false
		for i, p := range s.Policies {
			c := p.Clone().(*policy.Policy)
			if i == at {
				isolatedBefore = c.Isolates(dir)
				if dir == policy.Ingress {
					c.Spec.Ingress = append(c.Spec.Ingress, added...)
				} else {
					c.Spec.Egress = append(c.Spec.Egress, added...)
				}
			}
			more.Policies = append(more.Policies, c)
		}
		if action == policy.Allow && isolatedBefore != more.Policies[at].Isolates(dir) {
			t.Skip() // the first rule isolates, which is meant to deny
		}
		for range 8 {
			p := drawPacket(t, s)
			before, after := policy.Evaluate(s, p), policy.Evaluate(more, p)
			if action != policy.Allow && after.Effect.Passes() && !before.Effect.Passes() {
				t.Fatalf("a %s rule allowed %+v: %s, then %s", action, p, verdict(before), verdict(after))
			}
			if action == policy.Allow && before.Effect.Passes() && !after.Effect.Passes() {
				t.Fatalf("an allow rule denied %+v: %s, then %s", p, verdict(before), verdict(after))
			}
		}
	})
}

func TestGroupIsItsMembers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSet(t)
		flat := &policy.Set{Workloads: s.Workloads}
		expand := func(rules []policy.Rule) {
			for i := range rules {
				for _, peers := range []*[]policy.Selector{&rules[i].From, &rules[i].To} {
					var out []policy.Selector
					for _, sel := range *peers {
						if s.Groups[sel.Group] != nil {
							out = append(out, membersOf(s.Groups, sel.Group, map[string]bool{})...)
						} else {
							out = append(out, sel) // an unknown group stays one
						}
					}
					if *peers != nil && len(out) == 0 {
						out = []policy.Selector{{Group: "nobody"}}
					}
					*peers = out
				}
			}
		}
		for _, p := range s.Policies {
			c := p.Clone().(*policy.Policy)
			expand(c.Spec.Ingress)
			expand(c.Spec.Egress)
			flat.Policies = append(flat.Policies, c)
		}
		for range 5 {
			p := drawPacket(t, s)
			if diff := cmp.Diff(policy.Evaluate(s, p), policy.Evaluate(flat, p)); diff != "" {
				t.Fatalf("%+v (-with groups +with members)\n%s", p, diff)
			}
		}
	})
}

// A rule of which Shadowed says that it can never match decides nothing.
func TestShadowedRulesDecideNothing(t *testing.T) {
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		s := drawSet(t)
		var dead []string
		for _, p := range s.Policies {
			for _, w := range policy.Shadowed(p, s) {
				dead = append(dead, w.Policy+"/"+w.Rule)
			}
		}
		found += len(dead)
		for range 10 {
			p := drawPacket(t, s)
			d := policy.Evaluate(s, p)
			for _, side := range []policy.SideDecision{d.Egress, d.Ingress} {
				for _, ref := range []policy.RuleRef{side.Ref, side.Audited} {
					if slices.Contains(dead, ref.Policy+"/"+string(ref.Direction)+"/"+ref.Rule) {
						t.Fatalf("%v decided %+v although it is shadowed", ref, p)
					}
				}
			}
		}
	})
	if found == 0 {
		t.Error("no rule was ever shadowed, so nothing was tested")
	}
}
