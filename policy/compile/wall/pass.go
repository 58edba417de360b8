package wall

import (
	"slices"

	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// tallied is what a rule counts as.
type tallied struct {
	enforced, leads bool
	side, tier      int
}

// tally counts a rule as what it is now.
func (f *Firewall) tally(r *rule) {
	var now tallied
	if r.id != 0 && !r.rank.Audit {
		now = tallied{true, r.leads(), r.side, r.rank.Tier}
	}
	f.add(r.tallied, -1)
	f.add(now, 1)
	r.tallied = now
}

func (f *Firewall) add(t tallied, n int) {
	if t.enforced {
		f.enforced[t.side] += n
	}
	if t.leads {
		f.leading[t.side][t.tier] += n
	}
}

// leads reports whether rules of a direction lead to the next tier.
func (f *Firewall) leads(side int) bool { return f.leading[side] != [pipeline.Tiers]int{} }

// tallyAll counts the rules that changed, and has those built again for whose tier there is a first rule that leads behind it, or none any
// more.
func (f *Firewall) tallyAll(c *change) {
	for _, r := range c.rules {
		f.tally(r)
	}
	for side := range f.guarded {
		for tier := range f.guarded[side] {
			guarded := f.leading[side][tier] > 0
			if f.guarded[side][tier] == guarded {
				continue
			}
			f.guarded[side][tier] = guarded
			for _, ps := range f.policies {
				for _, r := range ps.rules {
					if r.id != 0 && r.side == side && r.rank.Tier == tier {
						f.rewrite(r)
					}
				}
			}
		}
	}
}

// reviewPass looks at a rule that leads to the next tier. What it gains it takes from allows of its own tier behind it; what it loses, or
// what it leads past when it moves, is decided by what stands behind it in its tier, and taken from allows of lower tiers and from
// defaults. Which of these is the case is not looked at: all connections of the endpoints that it applies to, or did, are judged again.
// That is true too often rather than too seldom, and costs a few flows per endpoint.
func (f *Firewall) reviewPass(r *rule) {
	changed := func(x *choice) bool { return x.grown || x.narrowed || x.foreign }
	if r.id == r.before.id && r.rank == r.before.rank && r.before.scope.same(&r.scope) && !slices.ContainsFunc(r.scope.peers, changed) {
		return // endpoints alone: see reviewChoice
	}
	var es []*endpoint
	if r.before.id != 0 {
		es = r.before.scope.was().subjects
	}
	if r.id != 0 {
		es = union(es, r.scope.now().subjects)
	}
	for _, e := range es {
		f.members[e] = struct{}{}
	}
}

// reviewImported has everything judged again if a rule that led to the next tier when an earlier run ended is no more: nobody knows what
// it led past which rules.
func (f *Firewall) reviewImported() {
	for name, rules := range f.imported.Policies {
		for _, a := range rules {
			is := func(r *rule) bool { return r.id == a.ID && a.ID != 0 }
			if ps := f.policies[name]; !a.Pass || ps != nil && slices.ContainsFunc(ps.rules, is) {
				continue
			}
			for _, e := range f.endpoints {
				f.members[e] = struct{}{}
			}
			return
		}
	}
}
