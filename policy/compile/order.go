package compile

import (
	"cmp"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// maxRules bounds the rules with flows per direction: each needs a priority of its own, and inserting needs room.
const maxRules = 60000

// step is the distance at which rules are put before the first or behind the last one.
const step = 32

// ordered holds the rules of one direction that have flows, first to decide first, each with an OpenFlow priority of its own: at one
// priority overlapping conjunctions are undefined (ovs-fields(7)). Priorities are sparse, so that a rule can be put in between; only
// when there is no room all are numbered anew.
type ordered struct{ rules []*rule }

// compareRules orders rules by who decides first. It is total: names break ties that cannot change a verdict.
func compareRules(a, b *rule) int {
	return cmp.Or(a.rank.Compare(b.rank), cmp.Compare(a.ref.Policy, b.ref.Policy), cmp.Compare(a.ref.Rule, b.ref.Rule))
}

// update takes the rules in gone out, puts the added ones in and gives priorities to those that have none. It returns the rules whose
// priority changed.
func (o *ordered) update(gone map[*rule]struct{}, added []*rule) []*rule {
	if len(gone) > 0 {
		o.rules = slices.DeleteFunc(o.rules, func(r *rule) bool { _, ok := gone[r]; return ok })
	}
	if len(added) == 0 {
		return nil
	}
	slices.SortFunc(added, compareRules)
	merged := make([]*rule, 0, len(o.rules)+len(added))
	rest := o.rules
	for _, r := range added {
		i, _ := slices.BinarySearchFunc(rest, r, compareRules)
		merged = append(append(merged, rest[:i]...), r)
		rest = rest[i:]
	}
	o.rules = append(merged, rest...)
	if !o.fill(added) {
		return o.renumber()
	}
	return added
}

// fill gives priorities to the added rules that have none and reports whether there was room. Priorities that come from earlier runs are
// not trusted to be in order.
func (o *ordered) fill(added []*rule) bool {
	for i := 0; i < len(added); i++ {
		at, _ := slices.BinarySearchFunc(o.rules, added[i], compareRules)
		first := at
		for first > 0 && o.rules[first-1].priority == 0 {
			first--
		}
		last := first
		for last < len(o.rules) && o.rules[last].priority == 0 {
			last++
		}
		if last > first && !o.spread(first, last) {
			return false
		}
	}
	for _, r := range added {
		at, _ := slices.BinarySearchFunc(o.rules, r, compareRules)
		if at > 0 && o.rules[at-1].priority <= r.priority || at+1 < len(o.rules) && o.rules[at+1].priority >= r.priority ||
			r.priority < pipeline.PriorityRuleMin || r.priority > pipeline.PriorityRuleMax {
			return false
		}
	}
	return true
}

// spread numbers the rules first..last-1, none of which has a priority, between their neighbours.
func (o *ordered) spread(first, last int) bool {
	n := last - first
	high, low := int(pipeline.PriorityRuleMax)+1, int(pipeline.PriorityRuleMin)-1
	if first > 0 {
		high = int(o.rules[first-1].priority)
	}
	if last < len(o.rules) {
		low = int(o.rules[last].priority)
	}
	gap := (high - low) / (n + 1)
	if gap == 0 {
		return false
	}
	top := high - gap
	switch {
	case first == 0 && last == len(o.rules): // the first rules of all: leave room on both sides
		gap = min(gap, step)
		top = (high+low)/2 + gap*n/2
	case first == 0:
		gap = min(gap, step)
		top = low + gap*n
	case last == len(o.rules):
		gap = min(gap, step)
		top = high - gap
	}
	for i := range n {
		o.rules[first+i].priority = uint16(top - i*gap)
	}
	return true
}

// renumber spreads all rules over the whole range and returns those that moved.
func (o *ordered) renumber() []*rule {
	gap := (int(pipeline.PriorityRuleMax) - int(pipeline.PriorityRuleMin) + 2) / (len(o.rules) + 1)
	var moved []*rule
	for i, r := range o.rules {
		if p := pipeline.PriorityRuleMax + 1 - uint16((i+1)*gap); p != r.priority {
			r.priority = p
			moved = append(moved, r)
		}
	}
	return moved
}
