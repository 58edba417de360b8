package policy

import (
	"cmp"
	"slices"
)

// Why says what Evaluate looked at on one side, for people.
type Why struct {
	Applying []*Policy // the policies that apply to the endpoint, in the order in which their rules come
	// Matching are their rules that match the packet, in the order in which they are asked. Not all of them have a say: see Evaluate.
	Matching []Match
	// Near are their rules that allow and would match but for one thing, in the same order.
	Near []Near
}

// Match is a rule with its place.
type Match struct {
	Ref    RuleRef
	Policy *Policy
	Rule   *Rule
}

// Near is a rule that matches but for its peers or, Service, its services.
type Near struct {
	Match
	Service bool
}

// Why looks at the sender's side of a packet or, Ingress, at the receiver's, which must be an endpoint. Like Evaluate it is written to be
// read: its cost grows with all policies.
func (s *Set) Why(dir Direction, p Packet) Why {
	self, o := p.Src, other{p.Src, p.Dst, p.DstHost, p.DstIP}
	if dir == Ingress {
		self, o = p.Dst, other{p.Dst, p.Src, p.SrcHost, p.SrcIP}
	}
	var why Why
	for _, pol := range s.Policies {
		if AnyMatches(pol.Spec.AppliesTo, s.Groups, self) {
			why.Applying = append(why.Applying, pol)
		}
	}
	slices.SortFunc(why.Applying, func(a, b *Policy) int {
		return cmp.Or(cmp.Compare(a.Spec.Tier.Rank(), b.Spec.Tier.Rank()), cmp.Compare(a.EffectivePriority(), b.EffectivePriority()),
			cmp.Compare(a.Name, b.Name))
	})
	for _, pol := range why.Applying {
		rules := pol.Rules(dir)
		for i := range rules {
			r := &rules[i]
			m := Match{RuleRef{pol.Name, dir, r.Name}, pol, r}
			anybody, anything := *r, *r
			anybody.From, anybody.To, anything.Services = nil, nil, nil
			peer, service := s.ruleMatches(&anything, dir, o, p), s.ruleMatches(&anybody, dir, o, p)
			switch {
			case peer && service:
				why.Matching = append(why.Matching, m)
			case (peer || service) && r.Action == Allow && !pol.Audits():
				why.Near = append(why.Near, Near{m, peer})
			}
		}
	}
	slices.SortFunc(why.Matching, Match.compare)
	slices.SortFunc(why.Near, func(a, b Near) int { return a.compare(b.Match) })
	return why
}

// compare is the order in which rules are asked.
func (m Match) compare(o Match) int {
	return cmp.Or(RankOf(m.Policy, m.Rule).Compare(RankOf(o.Policy, o.Rule)), cmp.Compare(m.Ref.Policy, o.Ref.Policy),
		cmp.Compare(m.Ref.Rule, o.Ref.Rule))
}
