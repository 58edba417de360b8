package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Shadowed returns a WarnShadowed for every rule that can never match because one rule before it, in the order of Evaluate, covers it:
// it has the same direction, and its endpoints, peers and services include all those of the covered rule. Only pairs with a
// rule of changed are looked at: the rules of changed that others (or itself) cover, and those of others that changed covers, which
// Warning.Policy tells apart. s holds the policies as they are after the change; whether changed is among them does not matter.
//
// Cover is by a single rule and errs towards silence. Endpoints are compared by what selects them and, where workloads are known, by
// whom that selects now. Rules of equal rank do not shadow each other: they say the same. A covered rule is named once, with the first
// rule that covers it.
func Shadowed(changed *Policy, s *Set) []Warning {
	x := newCoverIndex(s)
	mine := x.policy(changed)
	all := []*coverPolicy{mine}
	for _, p := range s.Policies {
		if p.Name != changed.Name {
			all = append(all, x.policy(p))
		}
	}
	var out []Warning
	for _, d := range [...]Direction{Ingress, Egress} {
		for i := range changed.Rules(d) {
			if by, ok := x.firstCover(d, mine, i, all); ok {
				out = append(out, by.warning(mine, &changed.Rules(d)[i]))
			}
		}
		for _, o := range all[1:] {
			for i := range o.Rules(d) {
				if by, ok := x.firstCover(d, o, i, all[:1]); ok {
					out = append(out, by.warning(o, &o.Rules(d)[i]))
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Warning) int { return cmp.Or(cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Rule, b.Rule)) })
	return out
}

// cover is a rule that covers another one.
type cover struct {
	dir    Direction
	policy *coverPolicy
	rule   *Rule
	now    bool // only for the endpoints that are selected now
}

func (c cover) warning(p *coverPolicy, r *Rule) Warning {
	where := "of the same policy"
	if c.policy.Name != p.Name {
		where = fmt.Sprintf("of policy %q", c.policy.Name)
	}
	scope := "the same endpoints, peers and services"
	if c.now {
		scope = "all endpoints that it applies to now, and its peers and services"
	}
	advice := " Remove it, or give it a smaller priority."
	if c.rule.Action == Deny && r.Action == Allow {
		advice = fmt.Sprintf(" To deny what no rule allows, write defaultDeny: {%s: true} instead of rule %q, or %s.", c.dir, c.rule.Name, c.outrank(p))
	}
	return Warning{
		Code:   WarnShadowed,
		Policy: p.Name,
		Rule:   string(c.dir) + "/" + r.Name,
		By:     &RuleRef{c.policy.Name, c.dir, c.rule.Name},
		Message: fmt.Sprintf("rule %q (%s, %s) of policy %q can never match: rule %q (%s) %s at tier %s, priority %d decides first for %s.%s", r.Name, c.dir,
			r.Action, p.Name, c.rule.Name, c.rule.Action, where, c.policy.EffectiveTier(), c.policy.EffectivePriority(), scope, advice),
	}
}

// outrank says how policy p could decide before the covering rule.
func (c cover) outrank(p *coverPolicy) string {
	who := fmt.Sprintf("give policy %q", p.Name)
	if c.policy.Name == p.Name {
		who = "give the allow, in a policy of its own,"
	}
	if high := c.policy.Spec.Tier.Rank(); high < p.Spec.Tier.Rank() || c.policy.EffectivePriority() == 0 {
		if high == 0 {
			return "remove that rule"
		}
		return fmt.Sprintf("%s the tier %s", who, Tiers()[high-1])
	}
	return fmt.Sprintf("%s a smaller priority than %d", who, c.policy.EffectivePriority())
}

// coverIndex holds what is derived from a Set, each part when it is first needed: most pairs differ in rank or services already.
type coverIndex struct {
	set     *Set
	byLabel map[[2]string][]*Workload // nil until needed
}

func newCoverIndex(s *Set) *coverIndex { return &coverIndex{set: s} }

// coverPolicy is a policy with what was derived of it so far.
type coverPolicy struct {
	*Policy
	rules    map[Direction][]coverRule
	selected []*Workload // whom appliesTo selects now
	resolved bool
	keys     []Selector // appliesTo with groups replaced by their members
	expanded bool
}

type coverRule struct {
	rank     Rank
	peers    *peerSet
	services []coverService
	parsed   bool
}

type coverService struct {
	proto uint8
	ports []PortRange // nil = all
}

func (x *coverIndex) policy(p *Policy) *coverPolicy {
	c := &coverPolicy{Policy: p, rules: make(map[Direction][]coverRule, 2)}
	for _, d := range [...]Direction{Ingress, Egress} {
		rules := p.Rules(d)
		out := make([]coverRule, len(rules))
		for i := range rules {
			out[i].rank = RankOf(p, &rules[i])
		}
		c.rules[d] = out
	}
	return c
}

// firstCover finds the first rule, in the order of Evaluate, that covers rule i of p.
func (x *coverIndex) firstCover(d Direction, p *coverPolicy, i int, by []*coverPolicy) (cover, bool) {
	low := &p.rules[d][i]
	var best cover
	var bestRank Rank
	for _, q := range by {
		for j := range q.rules[d] {
			high := &q.rules[d][j]
			if high.rank.Compare(low.rank) >= 0 {
				continue
			}
			rule := &q.Rules(d)[j]
			if best.rule != nil && cmp.Or(bestRank.Compare(high.rank), cmp.Compare(best.policy.Name, q.Name), cmp.Compare(best.rule.Name, rule.Name)) <= 0 {
				continue
			}
			if !x.servicesCover(q, d, j, p, i) || !x.peersCover(q, d, j, p, i) {
				continue
			}
			if ok, now := x.subjectsCover(q, p); ok {
				best, bestRank = cover{d, q, rule, now}, high.rank
			}
		}
	}
	return best, best.rule != nil
}

func (p *coverPolicy) services(d Direction, i int) []coverService {
	r := &p.rules[d][i]
	if !r.parsed {
		r.parsed = true
		for _, s := range p.Rules(d)[i].Services {
			if proto, ports, err := ParseService(s); err == nil {
				r.services = append(r.services, coverService{proto, ports})
			}
		}
	}
	return r.services
}

func (x *coverIndex) servicesCover(q *coverPolicy, d Direction, j int, p *coverPolicy, i int) bool {
	if len(q.Rules(d)[j].Services) == 0 {
		return true
	}
	if len(p.Rules(d)[i].Services) == 0 {
		return false
	}
	high := q.services(d, j)
	return !slices.ContainsFunc(p.services(d, i), func(low coverService) bool {
		return !slices.ContainsFunc(high, func(h coverService) bool { return h.covers(low) })
	})
}

func (h coverService) covers(low coverService) bool {
	switch {
	case h.proto != low.proto:
		return false
	case h.ports == nil:
		return true
	case low.ports == nil:
		return false
	}
	return !slices.ContainsFunc(low.ports, func(l PortRange) bool {
		return !slices.ContainsFunc(h.ports, func(r PortRange) bool { return r.Lo <= l.Lo && l.Hi <= r.Hi })
	})
}

// peerSet is the peers of a rule, groups replaced by their members.
type peerSet struct {
	any       bool
	world     bool
	prefixes  []netip.Prefix // sorted, none inside another
	selectors []Selector
}

func (x *coverIndex) peers(p *coverPolicy, d Direction, i int) *peerSet {
	r := &p.rules[d][i]
	if r.peers != nil {
		return r.peers
	}
	set := &peerSet{any: len(p.Rules(d)[i].Peers(d)) == 0}
	r.peers = set
	for _, s := range x.expand(p.Rules(d)[i].Peers(d)) {
		switch s.Kind() {
		case SelectEntity:
			set.any = set.any || s.Entity == EntityAny
			set.world = set.world || s.Entity == EntityWorld
		case SelectCIDR:
			if prefixes, err := s.Prefixes(); err == nil {
				set.prefixes = append(set.prefixes, prefixes...)
			}
		default:
			set.selectors = append(set.selectors, s)
		}
	}
	set.prefixes = outermost(set.prefixes)
	if len(set.prefixes) == 2 && set.prefixes[0].Bits() == 0 && set.prefixes[1].Bits() == 0 {
		set.any = true // 0.0.0.0/0 and ::/0
	}
	return set
}

// expand replaces groups by their members; an unknown group has none.
func (x *coverIndex) expand(ss []Selector) []Selector {
	var out []Selector
	for _, s := range ss {
		if s.Group == "" {
			out = append(out, s)
		} else if g := x.set.Groups[s.Group]; g != nil {
			out = append(out, g.Spec.Members...)
		}
	}
	return out
}

// outermost sorts prefixes and drops those inside others.
func outermost(ps []netip.Prefix) []netip.Prefix {
	slices.SortFunc(ps, netip.Prefix.Compare)
	var out []netip.Prefix
	for _, p := range ps {
		if !within(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// within reports whether one of the prefixes, sorted and disjoint, contains p: it can only be the last that begins at or before p.
func within(ps []netip.Prefix, p netip.Prefix) bool {
	n, _ := slices.BinarySearchFunc(ps, p, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return -1 // equal beginnings count as before
	})
	return n > 0 && ps[n-1].Bits() <= p.Bits() && ps[n-1].Contains(p.Addr())
}

func (x *coverIndex) peersCover(q *coverPolicy, d Direction, j int, p *coverPolicy, i int) bool {
	high := x.peers(q, d, j)
	if high.any {
		return true
	}
	low := x.peers(p, d, i)
	switch {
	case low.any, low.world && !high.world:
		return false
	case len(low.prefixes) == 0 && len(low.selectors) == 0 && !low.world:
		return false // selects nobody (yet): nothing to say
	}
	for _, pre := range low.prefixes {
		if !within(high.prefixes, pre) {
			return false
		}
	}
	return selectorsCover(high.selectors, low.selectors)
}

// selectorsCover reports whether each of low is included in one of high.
func selectorsCover(high, low []Selector) bool {
	return !slices.ContainsFunc(low, func(l Selector) bool {
		return !slices.ContainsFunc(high, func(h Selector) bool { return selectorCovers(&h, &l) })
	})
}

// selectorCovers reports whether whoever l selects, h selects too: equal ones, and labels that ask for less.
func selectorCovers(h, l *Selector) bool {
	k := h.Kind()
	if k != l.Kind() || k == "" {
		return false
	}
	if k != SelectLabels {
		return k == SelectMAC && strings.EqualFold(h.MAC, l.MAC) || h.String() == l.String()
	}
	for key, v := range h.Labels {
		if have, ok := l.Labels[key]; !ok || have != v {
			return false
		}
	}
	return len(h.Labels) > 0
}

// subjectsCover reports whether q applies to everybody that p applies to: by the selectors, or (now) by whom they select at present.
func (x *coverIndex) subjectsCover(q, p *coverPolicy) (ok, now bool) {
	if q == p {
		return true, false
	}
	low := x.subjects(p)
	if len(low) > 0 && selectorsCover(x.subjects(q), low) {
		return true, false
	}
	selected := x.selected(p)
	if len(selected) == 0 {
		return false, false
	}
	return !slices.ContainsFunc(selected, func(w *Workload) bool { return !AnyMatches(q.Spec.AppliesTo, x.set.Groups, w) }), true
}

func (x *coverIndex) subjects(p *coverPolicy) []Selector {
	if !p.expanded {
		p.expanded, p.keys = true, x.expand(p.Spec.AppliesTo)
	}
	return p.keys
}

// selected lists the workloads of this host that p applies to.
func (x *coverIndex) selected(p *coverPolicy) []*Workload {
	if p.resolved {
		return p.selected
	}
	p.resolved = true
	seen := make(map[*Workload]bool)
	for _, s := range x.subjects(p) {
		for _, w := range x.candidates(&s) {
			if !w.Remote && !seen[w] && s.MatchesWorkload(w) {
				seen[w] = true
				p.selected = append(p.selected, w)
			}
		}
	}
	return p.selected
}

// candidates narrows the workloads by one label pair, so that a thousand policies by labels do not each look at every workload.
func (x *coverIndex) candidates(s *Selector) []*Workload {
	if x.byLabel == nil {
		x.byLabel = make(map[[2]string][]*Workload)
		for _, w := range x.set.Workloads {
			for k, v := range w.Labels {
				x.byLabel[[2]string{k, v}] = append(x.byLabel[[2]string{k, v}], w)
			}
		}
	}
	if len(s.Labels) == 0 {
		return x.set.Workloads
	}
	best, found := []*Workload(nil), false
	for k, v := range s.Labels {
		if ws := x.byLabel[[2]string{k, v}]; !found || len(ws) < len(best) {
			best, found = ws, true
		}
	}
	return best
}
