package wall

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"
)

// A connection that an id allowed passes while the id's gate stands and its ends have the ids that it was opened under, unseen by any rule.
// So when something that was allowed no longer is, one of these ids must be another. What a rule lost by its own change, but for endpoints,
// assign has seen, and the rule has a new id. Here is the rest:
//
//   - an endpoint has left what an allow names, or come into what a deny names, or is isolated: the endpoint gets a new id. The rule's
//     other connections are not looked at. Where many endpoints leave few rules, the rules get new ids instead;
//   - addresses have left what an allow names: nothing in a connection's label says which, so the rules get new ids;
//   - a deny newly stands above an allow: the allow gets a new id;
//   - a rule with action pass gains, loses or moves: see reviewPass.
//
// That endpoints appear takes nothing from anybody: no connection carries their ids.

// manyEndpoints is from how many endpoints on rules get new ids instead, where they are fewer.
const manyEndpoints = 16

// reversion gives new ids to what loses something in this change.
func (f *Firewall) reversion(c *change) {
	byHash := func(a, b *choice) int { return cmp.Compare(a.hash, b.hash) }
	for _, x := range slices.SortedFunc(maps.Keys(f.changedChoices), byHash) { // ids are given in this order: a plan gives the same
		f.reviewChoice(x, c)
	}
	f.reviewPolicies(c)
	if !f.compiled {
		f.reviewImported()
	}
	for _, r := range slices.Clone(c.rules) {
		moved := r.before.id == r.id && r.rank != r.before.rank && (f.led[r.side] || f.leads(r.side))
		switch {
		case r.leads():
			f.reviewPass(r)
		case r.id == 0 || r.rank.Audit:
		case r.denies():
			if f.loseTo(r, c); moved { // what a pass led past it may meet it now
				for _, e := range r.scope.now().subjects {
					f.members[e] = struct{}{}
				}
			}
		case moved: // a pass may lead past it now
			f.renumber(r)
		case r.before.id == r.id && r.rank.Compare(r.before.rank) > 0:
			f.lower(r, c)
		}
	}
}

// reviewChoice looks at what a choice lost and gained while the rules that name it read the same.
func (f *Firewall) reviewChoice(x *choice, c *change) {
	joined := slices.DeleteFunc(without(x.now.endpoints, x.was.endpoints), func(e *endpoint) bool { return e.born })
	left := slices.DeleteFunc(without(x.was.endpoints, x.now.endpoints), func(e *endpoint) bool { return e.gone })
	narrowed := x.foreign || x.was.loses(&x.now)
	grown := x.foreign || x.now.loses(&x.was)
	if x.grown, x.narrowed = grown, narrowed; len(joined)+len(left) == 0 && !narrowed && !grown {
		return
	}
	var losers []*rule
	var leaving []*endpoint
	for _, r := range slices.SortedFunc(x.users(), byRef) {
		peer := slices.Contains(r.scope.peers, x)
		switch {
		case r.id == 0 || r.rank.Audit || !r.before.scope.same(&r.scope):
		case r.leads():
			if (grown || narrowed) && peer {
				c.rules = append(c.rules, r) // reviewPass sees to it
			}
			for _, e := range union(joined, left) {
				f.members[e] = struct{}{}
			}
		case r.denies():
			if grown && peer {
				c.rules = append(c.rules, r) // loseTo sees what
			}
			for _, e := range joined {
				f.members[e] = struct{}{}
			}
		case r.before.id != r.id:
		case narrowed && peer && !r.scope.any && (!x.now.keep || x.foreign):
			f.renumber(r)
			c.rules = append(c.rules, r)
		default:
			x.kept = x.kept || narrowed && peer
			out := r.outside(x, left)
			if len(out) > 0 {
				losers, leaving = append(losers, r), union(leaving, out)
			}
		}
	}
	if x.now.keep {
		x.kept = x.kept || len(leaving) > 0
		for _, e := range leaving {
			e.kept = true
			f.dirtyEndpoints[e.w.Key] = struct{}{}
		}
		return
	}
	f.lose(losers, leaving, c)
}

// outside returns those of the endpoints that left x which are in no other choice that stands beside x in the rule, be it as subjects or as
// peers.
func (r *rule) outside(x *choice, left []*endpoint) (out []*endpoint) {
	for _, beside := range [][]*choice{r.scope.subjects, r.scope.peers} {
		if !slices.Contains(beside, x) {
			continue
		}
		lost := left
		for _, y := range beside {
			if y != x {
				lost = without(lost, y.now.endpoints)
			}
		}
		out = union(out, lost)
	}
	return out
}

// byRef orders rules as they are named. A policy has no two of one name in a direction.
func byRef(a, b *rule) int {
	return cmp.Or(strings.Compare(a.ref.Policy, b.ref.Policy), cmp.Compare(a.side, b.side), strings.Compare(a.ref.Rule, b.ref.Rule))
}

// users yields the rules that name the choice, in no order.
func (x *choice) users() iter.Seq[*rule] {
	return func(yield func(*rule) bool) {
		for r := range x.peerOf {
			if !yield(r) {
				return
			}
		}
		for ps := range x.subjectOf {
			for _, r := range ps.rules {
				if _, told := x.peerOf[r]; !told && !yield(r) {
					return
				}
			}
		}
	}
}

// reviewPolicies looks at the endpoints that allows lost because they read otherwise.
func (f *Firewall) reviewPolicies(c *change) {
	losers, leaving := map[*policyState][]*rule{}, map[*policyState][]*endpoint{}
	for _, r := range c.rules {
		if r.id == 0 || r.before.id != r.id || !r.passes() || r.before.scope.same(&r.scope) {
			continue
		}
		before, now := r.before.scope.was(), r.scope.now()
		left := without(before.subjects, now.subjects)
		if !now.peers.any {
			left = union(left, without(before.peers.endpoints, now.peers.endpoints))
		}
		left = slices.DeleteFunc(slices.Clone(left), func(e *endpoint) bool { return e.gone })
		if len(left) > 0 {
			losers[r.owner], leaving[r.owner] = append(losers[r.owner], r), union(leaving[r.owner], left)
		}
	}
	for _, ps := range sortedPolicies(maps.Keys(losers)) {
		f.lose(losers[ps], leaving[ps], c)
	}
}

// lose gives new ids to the endpoints that allows lost, or to the allows.
func (f *Firewall) lose(losers []*rule, leaving []*endpoint, c *change) {
	if len(leaving) > max(manyEndpoints, len(losers)) {
		for _, r := range losers {
			if r.id == r.before.id {
				f.renumber(r)
				c.rules = append(c.rules, r)
			}
		}
		return
	}
	for _, e := range leaving {
		f.members[e] = struct{}{}
	}
}

// loseTo re-versions what a changed deny takes something from.
func (f *Firewall) loseTo(deny *rule, c *change) {
	// What the deny matches now and did not before is taken from the allows that were below it all the time; all of it is taken from
	// those that have come to be below it.
	grown := func(x *choice) bool { return x.grown }
	if deny.rank == deny.before.rank && deny.before.scope.same(&deny.scope) && !slices.ContainsFunc(deny.scope.peers, grown) {
		return // it has come by endpoints alone: see reviewChoice
	}
	now, before := deny.scope.now(), deny.before.scope.was()
	whole, gained := f.aged([]space{now}), f.aged(now.added(&before))
	if slices.ContainsFunc(deny.scope.peers, func(x *choice) bool { return x.foreign }) {
		gained = whole
	}
	rose := deny.before.id == 0 || deny.rank.Compare(deny.before.rank) < 0
	if len(gained) == 0 && !rose || len(whole) == 0 {
		return
	}
	for _, s := range gained {
		for _, e := range s.subjects {
			if e.open[deny.side] {
				f.closed[deny.side][e] = struct{}{}
			}
		}
	}
	kept := gained
	if rose {
		kept = whole
	}
	for _, s := range kept {
		for _, e := range union(s.subjects, s.peers.endpoints) {
			if e.kept {
				f.members[e] = struct{}{}
			}
		}
	}
	for _, allow := range f.beside(deny, &now) {
		if !allow.passes() || allow.id == 0 || allow.id != allow.before.id || deny.rank.Compare(allow.rank) >= 0 {
			continue
		}
		taken := gained
		if deny.before.rank.Compare(allow.before.rank) > 0 {
			taken = whole
		}
		if meets(allow, taken) {
			f.renumber(allow)
			c.rules = append(c.rules, allow)
		}
	}
}

// beside returns the rules of the same direction that apply to an endpoint that r applies to, in a fixed order.
func (f *Firewall) beside(r *rule, s *space) []*rule {
	seen := map[*policyState]struct{}{}
	for _, e := range s.subjects {
		for _, x := range e.choices {
			for ps := range x.subjectOf {
				seen[ps] = struct{}{}
			}
		}
	}
	var out []*rule
	for _, ps := range sortedPolicies(maps.Keys(seen)) {
		for _, o := range ps.rules {
			if o.side == r.side {
				out = append(out, o)
			}
		}
	}
	return out
}

// lower re-versions an allow that has come to be below a deny.
func (f *Firewall) lower(allow *rule, c *change) {
	if slices.ContainsFunc(allow.scope.choices(), func(x *choice) bool { return x.kept }) {
		f.renumber(allow) // what was kept is not known any more
		return
	}
	now := allow.scope.now()
	for _, deny := range f.beside(allow, &now) {
		if !deny.denies() || deny.id == 0 || deny.rank.Compare(allow.rank) >= 0 {
			continue
		}
		if deny.before.id != 0 && deny.before.rank.Compare(allow.before.rank) < 0 {
			continue // it was above before; loseTo knows what it gained
		}
		if meets(allow, []space{deny.scope.now()}) {
			f.renumber(allow)
			return
		}
	}
}

// meets reports whether a rule may have allowed something in one of the spaces.
func meets(allow *rule, taken []space) bool {
	s := allow.scope.now()
	if slices.ContainsFunc(allow.scope.peers, func(x *choice) bool { return x.kept }) {
		s.peers = peerSet{any: true} // what was kept is not known any more
	}
	for i := range taken {
		if s.overlaps(&taken[i]) {
			return true
		}
	}
	return false
}

// aged returns the spaces without the endpoints that have appeared in this change.
func (f *Firewall) aged(in []space) []space {
	if !f.anyBorn {
		return in
	}
	born := func(e *endpoint) bool { return e.born }
	out := in[:0]
	for _, s := range in {
		s.subjects = slices.DeleteFunc(slices.Clone(s.subjects), born)
		if !s.peers.any {
			s.peers.endpoints = slices.DeleteFunc(slices.Clone(s.peers.endpoints), born)
		}
		if len(s.subjects) > 0 && s.families() != 0 {
			out = append(out, s)
		}
	}
	return out
}

// renewFlows is how many times as many flows change with the id of an endpoint as with that of a default.
const renewFlows = 3

// renewDue gives new ids to the endpoints that lost something: by rules, or by default, where that takes less than new ids for all
// defaults.
func (f *Firewall) renewDue() {
	for side, closed := range f.closed {
		if len(closed) == 0 {
			continue
		}
		extra := 0
		for e := range closed {
			if _, anyway := f.members[e]; !anyway {
				extra++
			}
		}
		open := 0
		for _, c := range f.classes.byNumber {
			if c.allow[side] != 0 && !c.isolation[side].is() {
				open++
			}
		}
		if extra > max(manyEndpoints, open/renewFlows) && !f.keeps() {
			f.renewDefaults(side)
		} else {
			for e := range closed {
				f.members[e] = struct{}{}
			}
		}
		clear(closed)
	}
	for _, e := range slices.SortedFunc(maps.Keys(f.members), bySerial) {
		if !e.born && !e.gone {
			f.renew(e)
		}
	}
	clear(f.members)
}

// keeps reports whether there may be connections that are kept: rules that do not match them any more stand for them.
func (f *Firewall) keeps() bool {
	for _, x := range f.choices.byHash {
		if x.kept {
			return true
		}
	}
	return false
}
