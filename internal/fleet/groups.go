package fleet

import (
	"slices"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// enrol brings the roster up to date with a batch of the store, and the batch with the roster: its groups become flat, and those that
// contain them, or are built of them by way of others, come along.
func (f *Fleet) enrol(b *backend.Batch) {
	next, changes := rewrite(f.roster.Load(), b.Changes)
	f.roster.Store(next)
	b.Changes = changes
}

// flat returns what changes would be for the hosts if they were in the store.
func (f *Fleet) flat(changes []backend.Change) []backend.Change {
	_, out := rewrite(f.roster.Load(), changes)
	return out
}

// flatBoth does so for changes and for what they replace, as they may be in the store already.
func (f *Fleet) flatBoth(changes []backend.Change, before []policy.Resource) ([]backend.Change, []policy.Resource) {
	undone := slices.Clone(changes)
	for i := range undone {
		undone[i].Resource = before[i]
	}
	was, _ := rewrite(f.roster.Load(), undone)
	_, out := rewrite(was, changes)
	old := make([]policy.Resource, len(out))
	copy(old, before)
	for i, c := range out {
		if c.Kind == policy.KindGroup {
			old[i] = resource(was.Get(c.Name))
		}
	}
	return out, old
}

// rewrite returns the roster after changes, and the changes with flat groups, behind them those of further groups that they change.
func rewrite(r *policy.Roster, changes []backend.Change) (*policy.Roster, []backend.Change) {
	groups := map[string]*policy.Group{}
	for _, c := range changes {
		if c.Kind == policy.KindGroup && !c.Guard {
			groups[c.Name], _ = c.Resource.(*policy.Group)
		}
	}
	if len(groups) == 0 {
		return r, changes
	}
	next, names := r.With(groups)
	out := slices.Clone(changes)
	for i, c := range out {
		if c.Kind == policy.KindGroup && !c.Guard {
			out[i].Resource = resource(next.Get(c.Name))
		}
	}
	for _, name := range names {
		if _, told := groups[name]; told {
			continue
		}
		if g := next.Get(name); g != nil {
			out = append(out, backend.Change{Kind: policy.KindGroup, Name: name, Resource: g})
		}
	}
	return next, out
}

// resource is a group, or nothing.
func resource(g *policy.Group) policy.Resource {
	if g == nil {
		return nil
	}
	return g
}
