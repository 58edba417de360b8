package policy

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Shadowed returns a WarnShadowed for every rule that can never match because one rule before it, in the order of Evaluate, covers it:
// it has the same direction, and its endpoints, peers and services include all those of the covered rule. Only pairs with a
// rule of changed are looked at: the rules of changed that others (or itself) cover, and those of others that changed covers, which
// Warning.Policy tells apart. s holds the policies as they are after the change; whether changed is among them does not matter.
//
// Cover is by a single rule and errs towards silence. Endpoints are compared by what selects them and, where workloads are known, by
// whom that selects now. Rules of equal rank do not shadow each other: they say the same. A covered rule is named once, with the first
// rule that covers it.
func Shadowed(changed *Policy, s *Set) []Warning { return NewShadows(s).Of(changed) }

// Shadows finds the rules of a set of policies that can never match. What many policies have to know of the others is gathered once. It is
// for one goroutine.
type Shadows struct {
	index  coverIndex
	ranks  []rankOfAll
	rules  []coverRules // of each policy: whoever is looked at next meets most of them again
	passes passes
}

// policy returns the i-th of the set.
func (s *Shadows) policy(i int) *coverPolicy {
	return &coverPolicy{Policy: s.index.set.Policies[i], rules: &s.rules[i]}
}

// rankOfAll is what decides whether a policy may come before another one.
type rankOfAll struct {
	tier, priority int
	first, last    int // places of its rules among others of the same priority
}

// passes are the first passes of each tier, by direction: what is behind one decides about what it does not match only.
type passes map[passPlace]Rank

type passPlace struct {
	dir  Direction
	tier int
}

// add takes those of a policy.
func (x passes) add(p *Policy) {
	for _, d := range [...]Direction{Ingress, Egress} {
		rules := p.Rules(d)
		for i := range rules {
			if rules[i].Action != Pass {
				continue
			}
			r := RankOf(p, &rules[i])
			if first, ok := x[passPlace{d, r.Tier}]; !ok || r.Compare(first) < 0 {
				x[passPlace{d, r.Tier}] = r
			}
		}
	}
}

// covers reports whether a rule of rank high decides about everything that it matches before one of rank low does: not if a pass may stand
// before it and lead to a lower tier.
func (x passes) covers(d Direction, high, low Rank) bool {
	switch {
	case high.Compare(low) >= 0, high.Audit && !low.Audit, high.Effect == Pass && high.Tier != low.Tier:
		return false
	case high.Tier == low.Tier:
		return true
	}
	first, ok := x[passPlace{d, high.Tier}]
	return !ok || high.Compare(first) < 0
}

// NewShadows gathers what has to be known of a set.
func NewShadows(s *Set) *Shadows {
	x := &Shadows{index: coverIndex{set: s}, ranks: make([]rankOfAll, len(s.Policies)), rules: make([]coverRules, len(s.Policies)),
		passes: passes{}}
	for i, p := range s.Policies {
		x.ranks[i] = p.ranks()
		x.passes.add(p)
	}
	return x
}

func (p *Policy) ranks() rankOfAll {
	r := rankOfAll{tier: p.Spec.Tier.Rank(), priority: p.EffectivePriority(), first: math.MaxInt, last: -1}
	for _, d := range [...]Direction{Ingress, Egress} {
		rules := p.Rules(d)
		for i := range rules {
			n := RankOf(p, &rules[i]).place()
			r.first, r.last = min(r.first, n), max(r.last, n)
		}
	}
	return r
}

// before reports whether a rule of r may rank before one of low: the policy does or, at equal tier and priority, denies what low allows,
// and the like.
func (r rankOfAll) before(low rankOfAll) bool {
	c := cmp.Or(cmp.Compare(r.tier, low.tier), cmp.Compare(r.priority, low.priority))
	return c < 0 || c == 0 && r.first < low.last
}

// Of is Shadowed for a policy of the set, or a version of one.
func (s *Shadows) Of(changed *Policy) []Warning {
	x := &s.index
	own := changed.ranks()
	s.passes.add(changed)
	mine := newCoverPolicy(changed)
	x.selected(mine) // first, for the sake of subjectsCover
	above, below := []relation{{policy: mine}}, []relation(nil)
	for i, p := range x.set.Policies {
		// Most policies end here, of the same rank and with no rule that denies: nothing is derived of them.
		over, under := s.ranks[i].before(own), own.before(s.ranks[i])
		if !over && !under || p.Name == changed.Name {
			continue
		}
		q := s.policy(i)
		if ok, now := x.subjectsCover(q, mine); over && ok {
			above = append(above, relation{q, now})
		}
		if ok, now := x.subjectsCover(mine, q); under && ok {
			below = append(below, relation{q, now})
		}
	}
	var out []Warning
	for _, d := range [...]Direction{Ingress, Egress} {
		for i := range changed.Rules(d) {
			if by, ok := x.firstCover(d, mine, i, above, s.passes); ok {
				out = append(out, by.warning(mine, &changed.Rules(d)[i]))
			}
		}
		for _, o := range below {
			self := []relation{{policy: mine, now: o.now}}
			for i := range o.policy.Rules(d) {
				if by, ok := x.firstCover(d, o.policy, i, self, s.passes); ok {
					out = append(out, by.warning(o.policy, &o.policy.Rules(d)[i]))
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Warning) int { return cmp.Or(cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Rule, b.Rule)) })
	return out
}

// relation is a policy that applies to everybody that another one applies to.
type relation struct {
	policy *coverPolicy
	now    bool // only as far as the endpoints known now go
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
	advice := fmt.Sprintf(" Remove it, or %s.", c.outrank(p, r.Action))
	if c.rule.Action == Deny && r.Action == Allow {
		advice = fmt.Sprintf(" To deny what no rule allows, write defaultDeny: {%s: true} instead of rule %q, or %s.", c.dir, c.rule.Name,
			c.outrank(p, r.Action))
	}
	return Warning{
		Code:   WarnShadowed,
		Policy: p.Name,
		Rule:   string(c.dir) + "/" + r.Name,
		By:     &RuleRef{c.policy.Name, c.dir, c.rule.Name},
		Message: fmt.Sprintf("rule %q (%s, %s) of policy %q can never match: rule %q (%s) %s at tier %s, priority %d decides first for %s.%s",
			r.Name, c.dir,
			r.Action, p.Name, c.rule.Name, c.rule.Action, where, c.policy.EffectiveTier(), c.policy.EffectivePriority(), scope, advice),
	}
}

// outrank says how a rule with that action of policy p could decide before the covering rule.
func (c cover) outrank(p *coverPolicy, action Effect) string {
	who := fmt.Sprintf("give policy %q", p.Name)
	if c.policy.Name == p.Name {
		who = fmt.Sprintf("give the %s, in a policy of its own,", action)
	}
	if high := c.policy.Spec.Tier.Rank(); high < p.Spec.Tier.Rank() || c.policy.EffectivePriority() == 0 {
		if high == 0 {
			return "remove that rule"
		}
		return fmt.Sprintf("%s the tier %s", who, Tiers()[high-1])
	}
	return fmt.Sprintf("%s a smaller priority than %d", who, c.policy.EffectivePriority())
}

// coverIndex holds what is derived from a Set, each part when it is first needed.
type coverIndex struct {
	set     *Set
	byLabel map[[2]string][]*Workload // nil until needed
	scans   int                       // how often all workloads were looked at instead
}

// manyScans is from when on the index by label is cheaper than another scan.
const manyScans = 4

// coverPolicy is a policy with what was derived of it so far. Most pairs of policies differ in rank or endpoints, so that their rules are
// never looked at.
type coverPolicy struct {
	*Policy
	rules    *coverRules
	subjects []Selector // appliesTo with groups replaced by their members
	selected []*Workload
	expanded bool
	resolved bool
}

func newCoverPolicy(p *Policy) *coverPolicy { return &coverPolicy{Policy: p, rules: &coverRules{}} }

// coverRules are what was derived of the rules of a policy; nil until needed.
type coverRules struct{ ingress, egress []coverRule }

type coverRule struct {
	peers    *peerSet
	services ServiceSet
	parsed   bool
}

func (p *coverPolicy) rule(d Direction, i int) *coverRule {
	rules := &p.rules.ingress
	if d == Egress {
		rules = &p.rules.egress
	}
	if *rules == nil {
		*rules = make([]coverRule, len(p.Rules(d)))
	}
	return &(*rules)[i]
}

// firstCover finds the first rule, in the order of Evaluate, that covers rule i of p.
func (x *coverIndex) firstCover(d Direction, p *coverPolicy, i int, by []relation, passes passes) (cover, bool) {
	low := RankOf(p.Policy, &p.Rules(d)[i])
	var best cover
	var bestRank Rank
	for _, q := range by {
		rules := q.policy.Rules(d)
		for j := range rules {
			high := RankOf(q.policy.Policy, &rules[j])
			if !passes.covers(d, high, low) {
				continue
			}
			if best.rule != nil && cmp.Or(bestRank.Compare(high), cmp.Compare(best.policy.Name, q.policy.Name), cmp.Compare(best.rule.Name,
				rules[j].Name)) <= 0 {
				continue
			}
			if p.services(d, i).Within(q.policy.services(d, j)) && x.peersCover(q.policy, d, j, p, i) {
				best, bestRank = cover{d, q.policy, &rules[j], q.now}, high
			}
		}
	}
	return best, best.rule != nil
}

// fewSelected is up to how many endpoints are asked one by one whether another policy selects them too.
const fewSelected = 32

// subjectsCover reports whether q applies to everybody that p applies to: by the selectors, or (now) by whom they select at present.
func (x *coverIndex) subjectsCover(q, p *coverPolicy) (ok, now bool) {
	if low := x.subjectsOf(p); len(low) > 0 && selectorsCover(x.subjectsOf(q), low) {
		return true, false
	}
	// Most pairs have no endpoint in common. Where q was resolved already and selects few, that is cheap to see.
	if q.resolved && len(q.selected) <= fewSelected && !slices.ContainsFunc(q.selected, func(w *Workload) bool { return x.selects(p, w) }) {
		return false, false
	}
	selected := x.selected(p)
	return len(selected) > 0 && !slices.ContainsFunc(selected, func(w *Workload) bool { return !x.selects(q, w) }), true
}

func (x *coverIndex) selects(p *coverPolicy, w *Workload) bool {
	subjects := x.subjectsOf(p)
	for i := range subjects {
		if subjects[i].MatchesWorkload(w) {
			return true
		}
	}
	return false
}

func (x *coverIndex) subjectsOf(p *coverPolicy) []Selector {
	if !p.expanded {
		p.expanded, p.subjects = true, p.Spec.AppliesTo
		if slices.ContainsFunc(p.subjects, func(s Selector) bool { return s.Group != "" }) {
			p.subjects = x.expand(p.subjects)
		}
	}
	return p.subjects
}

// selected lists the workloads of this host that p applies to.
func (x *coverIndex) selected(p *coverPolicy) []*Workload {
	if p.resolved {
		return p.selected
	}
	p.resolved = true
	seen := make(map[*Workload]bool)
	for _, s := range x.subjectsOf(p) {
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
	if x.scans++; len(s.Labels) == 0 || x.scans <= manyScans {
		return x.set.Workloads
	}
	if x.byLabel == nil {
		x.byLabel = make(map[[2]string][]*Workload, 2*len(x.set.Workloads))
		for _, w := range x.set.Workloads {
			for k, v := range w.Labels {
				x.byLabel[[2]string{k, v}] = append(x.byLabel[[2]string{k, v}], w)
			}
		}
	}
	best, found := []*Workload(nil), false
	for k, v := range s.Labels {
		if ws := x.byLabel[[2]string{k, v}]; !found || len(ws) < len(best) {
			best, found = ws, true
		}
	}
	return best
}
