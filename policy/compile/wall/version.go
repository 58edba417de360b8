package wall

import (
	"maps"
	"slices"
)

// A connection that an id allowed passes while the id's gate stands, unseen by any rule. So an allow must get a new id when something
// that it allowed is no longer allowed by it. What it lost by its own change, assign has seen. Here is the rest: a deny that newly
// stands above it. (That endpoints appear takes nothing from anybody: no connection carries their ids, and the gates of sides without
// an endpoint look at the registers.)

// reversion gives new ids to the allows, by rule or by default, that lose something to a deny in this change.
func (f *Firewall) reversion(c *change) {
	for _, r := range c.rules {
		switch {
		case r.id == 0:
		case !r.passes():
			f.loseTo(r, c)
		case r.before.id == r.id && r.rank.Compare(r.before.rank) > 0:
			f.lower(r)
		}
	}
}

// loseTo re-versions what a changed deny takes something from.
func (f *Firewall) loseTo(deny *rule, c *change) {
	// What the deny matches now and did not before is taken from the allows that were below it all the time; all of it is taken from
	// those that have come to be below it.
	isNew := deny.before.id == 0
	whole := f.aged([]space{deny.space})
	gained := whole
	if !isNew {
		gained = f.aged(deny.space.added(&deny.before.space))
	}
	rose := isNew || deny.rank.Compare(deny.before.rank) < 0
	if len(gained) == 0 && !rose || len(whole) == 0 {
		return
	}
	for _, s := range gained {
		for _, id := range s.subjects {
			if e := f.byID[id]; e.allow[deny.side] != 0 {
				f.renew(e, deny.side)
			}
		}
	}
	for _, allow := range f.beside(deny) {
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
func (f *Firewall) beside(r *rule) []*rule {
	seen := map[*policyState]struct{}{}
	for _, id := range r.space.subjects {
		for ps := range f.byID[id].policies {
			seen[ps] = struct{}{}
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
func (f *Firewall) lower(allow *rule) {
	for _, deny := range f.beside(allow) {
		if deny.passes() || deny.id == 0 || deny.rank.Compare(allow.rank) >= 0 {
			continue
		}
		if deny.before.id != 0 && deny.before.rank.Compare(allow.before.rank) < 0 {
			continue // it was above before; loseTo knows what it gained
		}
		if meets(allow, []space{deny.space}) {
			f.renumber(allow)
			return
		}
	}
}

// meets reports whether a rule may have allowed something in one of the spaces.
func meets(allow *rule, taken []space) bool {
	for i := range taken {
		if allow.space.overlaps(&taken[i]) {
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
	born := func(id uint32) bool { e := f.byID[id]; return e != nil && e.born }
	out := in[:0]
	for _, s := range in {
		s.subjects = slices.DeleteFunc(slices.Clone(s.subjects), born)
		if !s.peers.any {
			s.peers.endpoints = slices.DeleteFunc(slices.Clone(s.peers.endpoints), born)
		}
		if !s.empty() {
			out = append(out, s)
		}
	}
	return out
}
