package policy

import (
	"fmt"
	"slices"
)

// Beside returns what rules of changed and rules of the same tier, priority and mode make of each other, where one of the policies applies
// to everybody that the other applies to: WarnWider for an allow that allows all that another one does, and WarnContradicts for an allow
// and a deny which overlap, neither being inside the other. (A deny inside an allow is an exception from it, an allow inside a deny is
// shadowed.) Only pairs with a rule of changed are looked at. With more than most other policies of that rank only changed itself is.
// It errs towards silence, as Of does.
func (s *Shadows) Beside(changed *Policy, most int) []Warning {
	x := &s.index
	mine := newCoverPolicy(changed)
	x.selected(mine)
	own := changed.ranks()
	others := []*coverPolicy{}
	for i, p := range x.set.Policies {
		if r := s.ranks[i]; p.Name != changed.Name && r.tier == own.tier && r.priority == own.priority && p.Audits() == changed.Audits() {
			others = append(others, s.policy(i))
		}
	}
	if len(others) > most {
		others = nil
	}
	var out []Warning
	for _, d := range [...]Direction{Ingress, Egress} {
		for i := range changed.Rules(d) {
			for j := range i {
				out = append(out, x.beside(d, mine, i, mine, j, true, true)...)
			}
		}
	}
	for _, q := range others {
		over, _ := x.subjectsCover(mine, q)
		under, _ := x.subjectsCover(q, mine)
		if !over && !under {
			continue
		}
		for _, d := range [...]Direction{Ingress, Egress} {
			for i := range changed.Rules(d) {
				for j := range q.Rules(d) {
					out = append(out, x.beside(d, mine, i, q, j, over, under)...)
				}
			}
		}
	}
	return out
}

// beside compares rule i of p with rule j of q. over: p applies to everybody that q does; under: the other way round.
func (x *coverIndex) beside(d Direction, p *coverPolicy, i int, q *coverPolicy, j int, over, under bool) []Warning {
	a, b := &p.Rules(d)[i], &q.Rules(d)[j]
	both, mixed := a.Action == Allow && b.Action == Allow, a.Action == Allow && b.Action == Deny || a.Action == Deny && b.Action == Allow
	if !both && !mixed || !p.services(d, i).Overlaps(q.services(d, j)) {
		return nil
	}
	covers := func(p *coverPolicy, i int, q *coverPolicy, j int, subjects bool) bool {
		return subjects && q.services(d, j).Within(p.services(d, i)) && x.peersCover(p, d, i, q, j)
	}
	aCovers, bCovers := covers(p, i, q, j, over), covers(q, j, p, i, under)
	switch {
	case both && aCovers:
		return []Warning{wider(d, p, a, q, b, bCovers)}
	case both && bCovers:
		return []Warning{wider(d, q, b, p, a, false)}
	case mixed && !aCovers && !bCovers && x.peersOverlap(p, i, q, j, d):
		if a.Action == Deny {
			p, a, q, b = q, b, p, a
		}
		return []Warning{{Code: WarnContradicts, Policy: p.Name, Rule: string(d) + "/" + a.Name, By: &RuleRef{q.Name, d, b.Name},
			Message: fmt.Sprintf("rule %q (%s, allow) of policy %q and rule %q (deny) of policy %q, of the same tier and priority, overlap and "+
				"neither is inside "+
				"the other: what both match is denied", a.Name, d, p.Name, b.Name, q.Name)}}
	}
	return nil
}

// wider is about an allow that makes another one superfluous.
func wider(d Direction, p *coverPolicy, a *Rule, q *coverPolicy, b *Rule, same bool) Warning {
	what := "allows all that rule %q of policy %q allows, and more: the narrow one changes nothing, or this one is too wide"
	if same {
		what = "allows just what rule %q of policy %q allows: one of them is enough"
	}
	return Warning{Code: WarnWider, Policy: p.Name, Rule: string(d) + "/" + a.Name, By: &RuleRef{q.Name, d, b.Name},
		Message: fmt.Sprintf("rule %q (%s, allow) of policy %q "+what, a.Name, d, p.Name, b.Name, q.Name)}
}

// peersOverlap reports whether somebody is known to be a peer of both rules.
func (x *coverIndex) peersOverlap(p *coverPolicy, i int, q *coverPolicy, j int, d Direction) bool {
	a, b := x.peers(p, d, i), x.peers(q, d, j)
	some := func(s *peerSet) bool { return s.any || len(s.entities)+len(s.prefixes)+len(s.selectors) > 0 }
	switch {
	case a.any || b.any:
		return some(a) && some(b)
	case slices.ContainsFunc(a.entities, func(e string) bool { return slices.Contains(b.entities, e) }), a.prefixes.Overlaps(b.prefixes):
		return true
	}
	for k := range a.selectors {
		for l := range b.selectors {
			if selectorCovers(&a.selectors[k], &b.selectors[l]) || selectorCovers(&b.selectors[l], &a.selectors[k]) {
				return true
			}
		}
	}
	return false
}
