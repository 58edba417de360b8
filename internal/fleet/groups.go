package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// Lists keeps the lists that groups take from elsewhere.
type Lists interface {
	// Follow says from where a group takes members from now on, nil = from nowhere, and returns those that are known, nil = none.
	Follow(group string, from *policy.GroupSource) *policy.Group
	// News tells that Take has something: the lists that have become others, by group.
	News() <-chan struct{}
	Take() map[string]*policy.Group
	// Status is nil for a group that is not followed.
	Status(group string) *policy.SourceStatus
}

// follow tells the hosts of what changes in the store and in lists, until the store's watch ends.
func (f *Fleet) follow(ctx context.Context, batches <-chan backend.Batch) error {
	var news <-chan struct{}
	if f.opt.Lists != nil {
		news = f.opt.Lists.News()
	}
	var revision int64
	for {
		var b backend.Batch
		select {
		case next, ok := <-batches:
			if !ok && ctx.Err() == nil {
				return errors.New("the store's watch ended")
			}
			if !ok {
				return nil
			}
			b, revision = next, next.Revision
			f.enrol(&b)
			f.lives.enrol(&b)
		case <-news:
			b = backend.Batch{Revision: revision, Changes: f.relist()}
		case names := <-f.lives.turned:
			b = backend.Batch{Revision: revision, Changes: f.lives.turn(names)}
		}
		for _, feed := range f.feeds {
			feed.push(b)
		}
	}
}

// relist takes in the lists that have become others, and returns the groups that have thereby.
func (f *Fleet) relist() (out []backend.Change) {
	next, names := f.roster.Load().WithLists(f.opt.Lists.Take())
	f.roster.Store(next)
	for _, name := range names {
		if g := next.Get(name); g != nil {
			out = append(out, backend.Change{Kind: policy.KindGroup, Name: name, Resource: g})
		}
	}
	return out
}

// enrol brings the roster up to date with a batch of the store, and the batch with the roster: its groups become flat, and those that
// contain them, or are built of them by way of others, come along.
func (f *Fleet) enrol(b *backend.Batch) {
	before := f.roster.Load()
	if f.opt.Lists != nil {
		lists := map[string]*policy.Group{}
		for _, c := range b.Changes {
			g, _ := c.Resource.(*policy.Group)
			was := before.Raw(c.Name)
			if c.Kind == policy.KindGroup && (g != nil && g.Spec.From != nil || was != nil && was.Spec.From != nil) {
				var from *policy.GroupSource
				if g != nil {
					from = g.Spec.From
				}
				lists[c.Name] = f.opt.Lists.Follow(c.Name, from)
			}
		}
		if len(lists) > 0 {
			before, _ = before.WithLists(lists) // those whom that touches change all the same
		}
	}
	next, changes := rewrite(before, b.Changes)
	f.roster.Store(next)
	b.Changes = changes
}

// flat returns what changes would be for the hosts if they were in the store.
func (f *Fleet) flat(changes []backend.Change) []backend.Change {
	_, out := rewrite(f.roster.Load(), changes)
	return f.lives.judgedAll(out)
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

// withList adds to the status of a group what became of the list that it takes from elsewhere.
func (f *Fleet) withList(kind policy.Kind, name string, s policy.Status) policy.Status {
	if kind != policy.KindGroup || f.opt.Lists == nil {
		return s
	}
	s.Source = f.opt.Lists.Status(name)
	switch list := s.Source; {
	case list == nil || s.Phase != policy.PhaseActive:
	case list.Error != "" && list.FetchedAt == nil:
		s.Phase, s.Reason, s.Message = policy.PhaseDegraded, policy.ReasonListMissing, fmt.Sprintf("%s could not be read yet: %s", list.From,
			list.Error)
	case list.Error != "":
		s.Phase, s.Reason = policy.PhaseDegraded, policy.ReasonListStale
		s.Message = fmt.Sprintf("%s cannot be read now: %s; in force are the %d entries of %s", list.From, list.Error, list.Entries,
			list.FetchedAt.UTC().Format(time.RFC3339))
	case list.FetchedAt == nil:
		s.Phase, s.Reason, s.Message = policy.PhasePending, policy.ReasonListPending, fmt.Sprintf("%s has not been read yet", list.From)
	}
	return s
}

// awaitList waits until the list of a group was tried to be read, or ctx ends.
func (f *Fleet) awaitList(ctx context.Context, kind policy.Kind, name string) {
	for kind == policy.KindGroup && f.opt.Lists != nil {
		if s := f.opt.Lists.Status(name); s == nil || s.CheckedAt != nil || s.FetchedAt != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// resource is a group, or nothing.
func resource(g *policy.Group) policy.Resource {
	if g == nil {
		return nil
	}
	return g
}
