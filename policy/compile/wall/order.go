package wall

import (
	"cmp"
	"math"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// maxRules bounds the rules with flows per direction: each needs a priority of its own, and inserting needs room.
const maxRules = 60000

// step is the distance at which rules are put before the first or behind the last one, and the distance at which crowded rules are put
// apart, if there are not too many.
const step = 32

// priorities is what rules are spread over. It is one more than there are, which the lowest of maxRules rules does not reach.
const priorities = int(pipeline.PriorityRuleMax-pipeline.PriorityRuleMin) + 3

// ordered holds the rules of one direction that have flows, first to decide first, each with an OpenFlow priority of its own: at one
// priority overlapping conjunctions are undefined (ovs-fields(7)). Priorities are sparse, so that a rule can be put in between; where
// there is no room, the rules around are moved apart, no more of them than need be, because a moved rule is sent anew.
type ordered struct{ rules []*rule }

// compareRules orders rules by who decides first. It is total: names break ties that cannot change a verdict.
func compareRules(a, b *rule) int {
	return cmp.Or(a.rank.Compare(b.rank), cmp.Compare(a.ref.Policy, b.ref.Policy), cmp.Compare(a.ref.Rule, b.ref.Rule))
}

// update takes the rules in gone out, puts the added ones in and gives priorities to those that have none. It returns the added rules
// and those whose priority changed.
func (o *ordered) update(gone, added []*rule) []*rule {
	if len(gone) > 0 {
		for _, r := range gone {
			r.leaving = true
		}
		o.rules = slices.DeleteFunc(o.rules, func(r *rule) bool { return r.leaving })
		for _, r := range gone {
			r.leaving = false
		}
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
	changed, without := added, 0
	for _, r := range added {
		at, _ := slices.BinarySearchFunc(o.rules, r, compareRules)
		if !o.fits(at) { // an earlier run was of another opinion about the order
			r.priority = 0
		}
		if r.priority == 0 {
			without++
		}
	}
	many := 2*without >= len(o.rules) // at once
	for _, r := range added {
		if r.priority != 0 {
			continue
		}
		moved := o.fill(r)
		changed = append(changed, moved...)
		if len(moved) > 0 && many {
			return append(changed, o.even()...)
		}
	}
	return changed
}

// even spreads all rules evenly, so that later ones find room anywhere, and returns those that had to move. Where as many have come at once
// as there were, it costs little beside them.
func (o *ordered) even() (moved []*rule) {
	for i, r := range o.rules {
		p := pipeline.PriorityRuleMax + 1 - uint16((i+1)*priorities/(len(o.rules)+1))
		if r.priority != 0 && r.priority != p {
			moved = append(moved, r)
		}
		r.priority = p
	}
	return moved
}

// fits reports whether the rule's priority, if it has one, is between those of its neighbours.
func (o *ordered) fits(at int) bool {
	p := o.rules[at].priority
	if p == 0 {
		return true
	}
	if p < pipeline.PriorityRuleMin || p > pipeline.PriorityRuleMax {
		return false
	}
	for i := at - 1; i >= 0; i-- {
		if above := o.rules[i].priority; above != 0 {
			if above <= p {
				return false
			}
			break
		}
	}
	for i := at + 1; i < len(o.rules); i++ {
		if below := o.rules[i].priority; below != 0 {
			return below < p
		}
	}
	return true
}

// fill gives priorities to a rule that has none and to those beside it that have none either, and returns the rules that had to move.
func (o *ordered) fill(r *rule) []*rule {
	first, _ := slices.BinarySearchFunc(o.rules, r, compareRules)
	last := first + 1
	for first > 0 && o.rules[first-1].priority == 0 {
		first--
	}
	for last < len(o.rules) && o.rules[last].priority == 0 {
		last++
	}
	if o.place(first, last) {
		return nil
	}
	return o.makeRoom(first, last)
}

// place gives the rules first..last-1 priorities between those of their neighbours and reports whether there was room.
func (o *ordered) place(first, last int) bool {
	high, low := o.bounds(first, last)
	n := last - first
	gap := (high - low) / (n + 1)
	if gap == 0 {
		return false
	}
	top := high - gap
	switch {
	case first == 0 && last == len(o.rules): // the first rules of all: room on both sides
		gap = min(gap, step)
		top = (high+low)/2 + gap*n/2
	case first == 0:
		gap = min(gap, step)
		top = low + gap*n
	case last == len(o.rules):
		gap = min(gap, step)
		top = high - gap
	default:
		// Rules tend to come one behind the other. The ids of the neighbours tell which of them is younger, and the room is kept on its
		// far side.
		near := max(1, gap/4)
		switch above, below := o.rules[first-1].id, o.rules[last].id; {
		case above > below:
			gap, top = near, high-near
		case above < below:
			gap, top = near, low+near*n
		}
	}
	o.spread(first, last, top, gap)
	return true
}

// bounds returns the priorities between which the rules first..last-1 must stay, both exclusive.
func (o *ordered) bounds(first, last int) (high, low int) {
	high, low = int(pipeline.PriorityRuleMax)+1, int(pipeline.PriorityRuleMin)-1
	if first > 0 {
		high = int(o.rules[first-1].priority)
	}
	if last < len(o.rules) {
		low = int(o.rules[last].priority)
	}
	return high, low
}

func (o *ordered) spread(first, last, top, gap int) {
	for i, r := range o.rules[first:last] {
		r.priority = uint16(top - i*gap)
	}
}

// makeRoom places the rules first..last-1, between which and their neighbours there is no room, by moving those around. It doubles how
// far it looks until there is enough room per rule, and asks for more the farther it looks, so that those who come next find what it
// leaves. A quarter of the room becomes a gap where it is needed. It returns the rules that moved.
func (o *ordered) makeRoom(first, last int) []*rule {
	all := float64(len(o.rules))
	average := float64(priorities) / (all + 1)
	for width := 4; ; width *= 2 {
		f, l := max(0, first-width), min(len(o.rules), last+width)
		for f > 0 && o.rules[f-1].priority == 0 {
			f--
		}
		for l < len(o.rules) && o.rules[l].priority == 0 {
			l++
		}
		high, low := o.bounds(f, l)
		room := float64(high-low) / float64(l-f+1)
		wanted := 1 + (0.8*average-1)*math.Log(float64(l-f))/math.Log(all)
		if l-f < len(o.rules) && (room < wanted || room < 1) {
			continue
		}
		gap := max(1, room*3/4)
		for i, r := range o.rules[f:first] {
			r.priority = uint16(high - int(gap*float64(i+1)))
		}
		for i, r := range o.rules[last:l] {
			r.priority = uint16(low + int(gap*float64(l-last-i)))
		}
		o.place(first, last)
		return o.rules[f:l]
	}
}
