package wall

import (
	"cmp"
	"slices"
)

// Use is how much a bridge uses of something that there is a limited number of.
type Use struct {
	Limit string // its name: see Usage
	Used  int
	Max   int
}

// Near reports whether so much is in use that somebody should know: 80 % or more.
func (u Use) Near() bool { return u.Used*5 >= u.Max*4 }

// maxConjunctions is how many conjunctions of a direction may apply to an endpoint before first packets get dear: the classifier of Open
// vSwitch looks at all flows with the match of one of their clauses, about 37 ns each. Most packets meet the clauses of a part of them; see
// fold.
const maxConjunctions = 500

// Usage says how much is in use of what is limited, as of the last Compile:
//
//   - class-numbers: an endpoint for which there is none may neither send nor be sent anything;
//   - address-numbers, service-numbers: beyond them, sets that few rules name are matched by what is in them;
//   - egress-priorities, ingress-priorities: a policy for whose rules there are none fails with ErrTooManyRules;
//   - egress-conjunctions, ingress-conjunctions: of the class with most. More work, and cost each first packet.
func (f *Firewall) Usage() []Use {
	var conj [2]int
	for _, c := range f.classes.byNumber {
		for side, n := range c.conj {
			conj[side] = max(conj[side], n)
		}
	}
	return []Use{
		{"class-numbers", len(f.classes.byNumber), f.classes.numbers.room()},
		{"address-numbers", max(f.atlas.settled[0], f.atlas.settled[1]), f.atlas.most},
		{"service-numbers", len(f.services.parts), f.services.most},
		{"egress-priorities", f.used[egress], maxRules},
		{"ingress-priorities", f.used[ingress], maxRules},
		{"egress-conjunctions", conj[egress], maxConjunctions},
		{"ingress-conjunctions", conj[ingress], maxConjunctions},
	}
}

// shutNumber is the class of endpoints for which there was no number. No rule names it, and nothing is allowed to it: an endpoint must
// not be judged as if it were nobody, or one of another class.
const shutNumber = maxNumbers - 1

func (c *class) shut() bool { return c != nil && c.number == shutNumber }

// shut puts endpoints into that class.
func (f *Firewall) shut(es []*endpoint) {
	c := f.classes.byNumber[shutNumber]
	if c == nil {
		c = &class{number: shutNumber, endpoints: map[*endpoint]struct{}{}}
		f.classes.numbers.take(shutNumber)
		f.classes.byNumber[shutNumber] = c
	}
	f.put(es, c)
}

// reopen has the endpoints of that class looked at again, if there are numbers now.
func (f *Firewall) reopen() {
	if c := f.classes.byNumber[shutNumber]; c != nil && len(f.classes.numbers.taken) <= f.classes.numbers.room() {
		for e := range c.endpoints {
			f.moved[e] = struct{}{}
		}
	}
}

// parts counts the parts that services are cut into.
func parts(segments []segment) int {
	keys := map[string]struct{}{}
	for _, g := range segments {
		keys[g.key] = struct{}{}
	}
	return len(keys)
}

// fewer leaves out services that few rules use, for there to be fewer parts; too many = how many there are too many.
func fewer(xs []*service, tooMany int) []*service {
	out := slices.Clone(xs)
	slices.SortStableFunc(out, func(a, b *service) int { return cmp.Compare(len(b.users), len(a.users)) })
	out = out[:len(out)-min(len(out), 1+tooMany/8)]
	slices.SortFunc(out, func(a, b *service) int { return cmp.Compare(a.text, b.text) })
	return out
}
