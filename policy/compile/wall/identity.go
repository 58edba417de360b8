package wall

import (
	"slices"
	"strings"
)

// identities are the rules of a policy as they were, in this run or, by their assignments, in an earlier one.
type identities struct {
	rules    map[string]*rule // by rule.key
	assigned PolicyAssignment
	taken    map[string]bool // keys of assigned
	// content indexes what may be found by hash: keys by direction and hash.
	content map[string][]string
}

func newIdentities(rules []*rule, assigned PolicyAssignment) *identities {
	x := &identities{rules: make(map[string]*rule, len(rules)), assigned: assigned, taken: map[string]bool{}}
	for _, r := range rules {
		x.rules[r.key()] = r
	}
	return x
}

// byName returns the rule that had the name, action, mode and direction of r, or nil.
func (x *identities) byName(r *rule) *rule {
	key := r.key()
	if old := x.rules[key]; old != nil && old.rank.Effect == r.rank.Effect && old.rank.Audit == r.rank.Audit {
		delete(x.rules, key)
		return old
	}
	a, ok := x.assigned[key]
	if !ok {
		return nil
	}
	x.taken[key] = true
	return revive(r, a)
}

// byContent returns a rule, none of those that byName found, that matched and ranked as r does.
func (x *identities) byContent(r *rule) *rule {
	if r.empty() || len(x.rules) == 0 && len(x.taken) == len(x.assigned) {
		return nil
	}
	if x.content == nil {
		x.content = map[string][]string{}
		for key, old := range x.rules {
			if old.id != 0 {
				x.index(key, old.hash)
			}
		}
		for key, a := range x.assigned {
			if !x.taken[key] {
				x.index(key, a.Hash)
			}
		}
		for _, keys := range x.content {
			slices.Sort(keys)
		}
	}
	at := string(r.ref.Direction) + r.digest()
	keys := x.content[at]
	if len(keys) == 0 {
		return nil
	}
	key := keys[0]
	x.content[at] = keys[1:]
	if old := x.rules[key]; old != nil {
		delete(x.rules, key)
		return old
	}
	a := x.assigned[key]
	x.taken[key] = true
	a.Priority = 0 // ties are broken by name, so the place in the order may be another
	return revive(r, a)
}

// index notes that the rule with this key has this hash.
func (x *identities) index(key, hash string) {
	direction, _, _ := strings.Cut(key, "/")
	x.content[direction+hash] = append(x.content[direction+hash], key)
}

// left returns the rules that are no more.
func (x *identities) left() []*rule {
	out := make([]*rule, 0, len(x.rules))
	for _, r := range x.rules {
		out = append(out, r)
	}
	return out
}

// revive returns the rule as it was in an earlier run if it matched and ranked as r does; otherwise nobody knows what was lost since,
// and it gets new numbers.
func revive(r *rule, a RuleAssignment) *rule {
	if a.Hash != r.digest() || a.ID == 0 {
		return nil
	}
	out := &rule{
		ref: r.ref, side: r.side, rank: r.rank, oneOf: r.oneOf, scope: r.scope,
		id: a.ID, conj: a.Conjunction, form: a.Form, priority: a.Priority, hash: a.Hash,
		before: ruleBefore{a.ID, r.rank, r.scope},
	}
	if out.empty() && !out.lingers() {
		return nil
	}
	return out
}
