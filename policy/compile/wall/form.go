package wall

import (
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// A Form is how a rule with long lists is written. Conjunctions take the fewest flows, and each first packet pays for those of its endpoint
// that name its peer or its service. So where an endpoint has many, rules that come then are multiplied out further than others. The
// form is decided when a rule first has lists that long, by what there is at that time. It stays as long as the rule names the same, also
// over a restart: no rule is rewritten because others come or go.
type Form uint8

const (
	undecided Form = iota // lists have been short so far
	conjunct
	multiplied
)

// Bounds of multiplying out. A flow takes some 1.2 KiB of ovs-vswitchd.
const (
	maxWalked  = 100     // rules of a direction that are conjunctions of a class before others are multiplied out
	maxSpread  = 256     // flows of a rule that is
	maxSurplus = 1 << 15 // flows of all of them, beyond what conjunctions would take: 40 MiB
)

// expand returns the matches of a rule without a conjunction; false = it is to be one.
func (f *Firewall) expand(r *rule, clauses [][]flow.Match) ([]flow.Match, bool) {
	r.conjoined, r.surplus = false, 0
	out, ok := multiply(clauses, f.maxProduct)
	if !ok {
		if r.form == undecided {
			if r.form = conjunct; f.crowded(r) {
				r.form = multiplied
			}
		}
		if r.form == multiplied {
			if out, ok = multiply(clauses, maxSpread); ok {
				r.surplus = len(out) - conjunctionSize(clauses)
			}
		}
	}
	r.conjoined = !ok
	return out, ok
}

// crowded reports whether a class that the rule applies to has so many conjunctions that no more should come, while there may be more
// flows.
func (f *Firewall) crowded(r *rule) bool {
	ps, most := r.owner, 0
	for _, x := range ps.subjects {
		counted := 0
		if slices.Contains(ps.counted.in, x) {
			counted = ps.counted.n[r.side]
		}
		for c := range x.classes {
			most = max(most, c.conj[r.side]-counted)
		}
	}
	now := ps.count()
	return most+now.n[r.side] >= f.maxWalked && f.surplus-ps.counted.surplus+now.surplus < f.maxSurplus
}

// conjunctions are those of a policy as they are counted in the choices that it applies to.
type conjunctions struct {
	in      []*choice
	n       [2]int
	surplus int // flows that multiplied rules take beyond what conjunctions would
}

// count counts the conjunctions of a policy whose flows are built.
func (ps *policyState) count() conjunctions {
	out := conjunctions{in: ps.subjects}
	for _, r := range ps.rules {
		if r.id == 0 {
			continue
		}
		out.surplus += r.surplus
		if r.conjoined {
			out.n[r.side]++
		}
	}
	return out
}

// countConjunctions brings up to date how many conjunctions of a policy whose flows are built are counted.
func (f *Firewall) countConjunctions(ps *policyState) {
	before := ps.counted
	ps.counted = ps.count()
	f.surplus += ps.counted.surplus - before.surplus
	if before.n == ps.counted.n && slices.Equal(before.in, ps.counted.in) {
		return
	}
	f.addConjunctions(before.in, [2]int{-before.n[egress], -before.n[ingress]})
	f.addConjunctions(ps.counted.in, ps.counted.n)
}

func (f *Firewall) addConjunctions(in []*choice, n [2]int) {
	for _, x := range in {
		if f.choices.byHash[x.hash] != x {
			continue // nobody is in it any more
		}
		for side := range n {
			x.conj[side] += n[side]
		}
		for c := range x.classes {
			c.count(n)
		}
	}
}

// count adds to the conjunctions of the class.
func (c *class) count(n [2]int) {
	for side := range n {
		c.conj[side] += n[side]
	}
}
