// Package fleet manages many hosts in one process: it hands the stored resources to the engine of each, and answers for all of them
// together.
//
// The engines know nothing of each other but which workloads each has (host.Neighbours). A host that hangs, or is away, delays no other:
// not its changes, not its events, not an answer.
package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/policy"
)

// Store is what the fleet needs of the store.
type Store interface {
	host.Store
	Status() wire.StoreStatus
	// Commit writes all changes in one transaction. Errors match backend.ErrConflict and backend.ErrNotFound.
	Commit(ctx context.Context, changes []backend.Change) ([]policy.Resource, error)
	// Lives and PutLife keep what became of mirrors that begin and end by themselves, by name. A write needs the revision that it replaces,
	// 0 = none, or its error matches backend.ErrConflict; nil removes.
	Lives(ctx context.Context) (map[string]backend.Life, error)
	PutLife(ctx context.Context, mirror string, value []byte, expect int64) (revision int64, err error)
}

// Options of New. Store and Recorder are mandatory.
type Options struct {
	Version  string
	Store    Store
	Recorder *record.Recorder
	// Hosts are the options of each engine; Store, Recorder and Claim are the fleet's to fill in. Names are unique.
	Hosts    []host.Options
	Lists    Lists                 // nil = groups take nothing from elsewhere
	Logger   *slog.Logger          // nil discards
	Registry prometheus.Registerer // nil = no metrics
}

// Fleet is the hosts of a process. Its methods are safe for concurrent use.
type Fleet struct {
	opt   Options
	hosts []*host.Engine
	feeds []*feed
	// roster is what the hosts were told last of the groups, which they see flat. Run replaces it.
	roster atomic.Pointer[policy.Roster]
	lives  *lives
}

// New checks the options.
func New(o Options) (*Fleet, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Fleet{opt: o}
	f.lives = newLives(f)
	f.roster.Store(policy.NewRoster())
	ids := claims{holders: map[string]string{}, kept: map[string]string{}}
	neighbours := host.NewNeighbours()
	names := map[string]bool{}
	for _, ho := range o.Hosts {
		if names[ho.Name] {
			return nil, fmt.Errorf("host %q is named twice", ho.Name)
		}
		names[ho.Name] = true
		feed := newFeed(o.Store)
		ho.Store, ho.Recorder, ho.Neighbours = feed, o.Recorder, neighbours
		ho.Claim = func(id string) error { return ids.claim(ho.Name, id) }
		ho.Keep = func(kept ...string) error { return ids.keep(ho.Name, kept) }
		e, err := host.New(ho)
		if err != nil {
			if ho.Name != "" {
				err = fmt.Errorf("host %s: %w", ho.Name, err)
			}
			return nil, err
		}
		f.hosts, f.feeds = append(f.hosts, e), append(f.feeds, feed)
	}
	if o.Registry != nil {
		// The host of a process that has one only goes without saying.
		c := collector{f, host.NewMetrics(len(o.Hosts) > 1)}
		if err := o.Registry.Register(c); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// String names the task.
func (f *Fleet) String() string { return "fleet" }

// Engines returns those of the hosts, in the order of the options.
func (f *Fleet) Engines() []*host.Engine { return f.hosts }

// Run reconciles all hosts until ctx ends. Flows and mirrors stay on the switches.
func (f *Fleet) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := f.lives.load(ctx); err != nil {
			return nil // ctx has ended
		}
		g.Go(func() error { return f.lives.run(ctx) })
		return f.follow(ctx, f.opt.Store.Watch(ctx, 0))
	})
	for _, e := range f.hosts {
		g.Go(func() error {
			if err := e.Run(ctx); err != nil {
				return fmt.Errorf("%s: %w", e, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// claims knows which host goes by which id, and under which something is kept of it: for a while these are two, and hosts may exchange
// their ids.
type claims struct {
	mu            sync.Mutex
	holders, kept map[string]string // name in the configuration, by id
}

// claim takes an id for a host, which gives up the one that it had.
func (c *claims) claim(name, id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if holder, taken := c.holders[id]; taken && holder != name {
		meanwhile := "is not managed"
		for held, by := range c.holders {
			if by == name {
				meanwhile = "goes by " + held
			}
		}
		return fmt.Errorf("hosts %s and %s both have the system-id %q; %[2]s %[4]s until one of them has another "+
			"(ovs-vsctl set open_vswitch . external_ids:system-id=…)", called(holder), called(name), id, meanwhile)
	}
	for held, holder := range c.holders {
		if holder == name && held != id {
			delete(c.holders, held)
		}
	}
	c.holders[id] = name
	return nil
}

// keep notes under which ids something is kept of a host.
func (c *claims) keep(name string, ids []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if by, taken := c.kept[id]; taken && by != name {
			return fmt.Errorf("what is kept of host %s is under %q", called(by), id)
		}
	}
	maps.DeleteFunc(c.kept, func(_, by string) bool { return by == name })
	for _, id := range ids {
		c.kept[id] = name
	}
	return nil
}

// called spells the name of a host in the configuration.
func called(name string) string {
	if name == "" {
		return "of this process (--ovsdb)"
	}
	return name
}

// feed gives one engine the resources at its own pace: what it has not taken yet is merged, so that it costs at most one entry per
// resource.
type feed struct {
	Store
	ready chan struct{} // there is something to take

	mu      sync.Mutex
	batch   *backend.Batch
	changes map[change]int // index into batch.Changes
}

// change names what a change is about.
type change struct {
	kind policy.Kind
	name string
}

func newFeed(s Store) *feed { return &feed{Store: s, ready: make(chan struct{}, 1)} }

func (f *feed) push(b backend.Batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.batch == nil {
		f.batch, f.changes = &backend.Batch{}, map[change]int{}
	}
	f.batch.Revision, f.batch.Snapshot = b.Revision, f.batch.Snapshot || b.Snapshot
	for _, c := range b.Changes {
		key := change{c.Kind, c.Name}
		if i, ok := f.changes[key]; ok {
			f.batch.Changes[i] = c
			continue
		}
		f.changes[key] = len(f.batch.Changes)
		f.batch.Changes = append(f.batch.Changes, c)
	}
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

func (f *feed) take() (b backend.Batch, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.batch == nil {
		return b, false
	}
	b = *f.batch
	f.batch, f.changes = nil, nil
	return b, true
}

// Watch implements host.Store, for one watcher that begins at the beginning.
func (f *feed) Watch(ctx context.Context, _ int64) <-chan backend.Batch {
	out := make(chan backend.Batch)
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case <-f.ready:
			}
			b, ok := f.take()
			if !ok {
				continue
			}
			select {
			case <-ctx.Done():
				return
			case out <- b:
			}
		}
	}()
	return out
}

// each asks all hosts at once and returns their answers in order.
func each[T any](f *Fleet, ask func(*host.Engine) T) []T {
	if len(f.hosts) == 1 {
		return []T{ask(f.hosts[0])}
	}
	out := make([]T, len(f.hosts))
	var wg sync.WaitGroup
	for i, e := range f.hosts {
		wg.Go(func() { out[i] = ask(e) })
	}
	wg.Wait()
	return out
}

// together makes one list of the warnings of all hosts, each of them once. That a rule never matches has to be so on every host: a
// policy of one host may decide first there, or the other one may have nobody to decide about elsewhere. So has that something is for
// nobody.
func together(lists [][]policy.Warning) (out []policy.Warning) {
	has := func(list []policy.Warning, w policy.Warning) bool {
		return slices.ContainsFunc(list, func(x policy.Warning) bool { return reflect.DeepEqual(x, w) })
	}
	for _, list := range lists {
		for _, w := range list {
			lacks := func(list []policy.Warning) bool { return !has(list, w) }
			everywhere := w.Code == policy.WarnShadowed || w.Code == host.WarnNoEndpoints
			if !has(out, w) && (!everywhere || !slices.ContainsFunc(lists, lacks)) {
				out = append(out, w)
			}
		}
	}
	return out
}
