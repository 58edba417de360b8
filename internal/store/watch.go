package store

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// Watch follows the resources. With from = 0 the first batch is a snapshot; otherwise the batches continue after revision from, unless that
// is compacted already, when they begin with a snapshot. A watch survives lost connections and compaction. The channel is closed when ctx
// ends or the store is closed. A slow reader delays only itself. Values that cannot be read are logged and left out.
func (s *Store) Watch(ctx context.Context, from int64) <-chan backend.Batch {
	w := &watch{store: s, out: make(chan backend.Batch), known: map[string]bool{}, next: from + 1, synced: from > 0}
	s.wg.Go(func() {
		defer close(w.out)
		w.run(ctx)
	})
	return w.out
}

// watch is owned by its goroutine.
type watch struct {
	store *Store
	out   chan backend.Batch
	// known holds the keys of resources that exist as far as batches told.
	known  map[string]bool
	next   int64 // first revision not told yet
	synced bool  // false = a snapshot comes first
}

func (w *watch) run(ctx context.Context) {
	// The client's own context ends with Close.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(w.store.client.Ctx(), cancel)
	defer stop()
	const minDelay, maxDelay = 50 * time.Millisecond, 2 * time.Second
	delay := minDelay
	for ctx.Err() == nil {
		progress, err := w.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if progress {
			delay = minDelay
		}
		w.store.log.Warn("watch of the store is interrupted", slog.Any("error", err), slog.Duration("retry", delay))
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
		delay = min(2*delay, maxDelay)
	}
}

// session lists if needed and follows until something breaks.
func (w *watch) session(ctx context.Context) (progress bool, err error) {
	if !w.synced {
		if err := w.snapshot(ctx); err != nil {
			return false, w.store.fail(ctx, err)
		}
		progress = true
	}
	wctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	ch := w.store.client.Watch(wctx, root, clientv3.WithPrefix(), clientv3.WithRev(w.next))
	for resp := range ch {
		if err := resp.Err(); err != nil {
			if errors.Is(err, rpctypes.ErrCompacted) {
				w.synced = false
			}
			return progress, w.store.fail(ctx, err)
		}
		progress = true
		w.store.saw(resp.Header.Revision)
		if err := w.deliver(ctx, resp.Events); err != nil {
			if errors.Is(err, rpctypes.ErrCompacted) {
				w.synced = false
			}
			return progress, err
		}
	}
	return progress, errors.New("the stream has ended")
}

func (w *watch) snapshot(ctx context.Context) error {
	b := backend.Batch{Snapshot: true}
	found := map[string]bool{}
	for _, k := range policy.Kinds() {
		rev, err := w.store.scan(ctx, prefix(k), clientv3.GetPrefixRangeEnd(prefix(k)), b.Revision, 0, func(kv *mvccpb.KeyValue, at int64) error {
			c, ok, err := w.change(ctx, kv, at)
			if ok {
				found[string(kv.Key)] = true
				b.Changes = append(b.Changes, c)
			}
			return err
		})
		if err != nil {
			return err
		}
		b.Revision = rev
	}
	for key := range w.known {
		if !found[key] {
			k, name, _ := splitKey(key)
			b.Changes = append(b.Changes, backend.Change{Kind: k, Name: name})
		}
	}
	w.known = found
	if !w.send(ctx, b) {
		return ctx.Err()
	}
	w.synced, w.next = true, b.Revision+1
	return nil
}

// deliver sends one batch per transaction: all events of one revision.
func (w *watch) deliver(ctx context.Context, events []*clientv3.Event) error {
	for len(events) > 0 {
		rev := events[0].Kv.ModRevision
		n := 1
		for n < len(events) && events[n].Kv.ModRevision == rev {
			n++
		}
		b := backend.Batch{Revision: rev}
		for _, e := range events[:n] {
			k, name, ok := splitKey(string(e.Kv.Key))
			if !ok {
				continue
			}
			c := backend.Change{Kind: k, Name: name}
			if e.Type == mvccpb.PUT {
				var err error
				if c, ok, err = w.change(ctx, e.Kv, rev); err != nil {
					return w.store.fail(ctx, err)
				}
				if !ok {
					continue
				}
				w.known[string(e.Kv.Key)] = true
			} else {
				delete(w.known, string(e.Kv.Key))
				w.store.shared.drop(string(e.Kv.Key))
			}
			b.Changes = append(b.Changes, c)
		}
		events = events[n:]
		if len(b.Changes) > 0 && !w.send(ctx, b) {
			return ctx.Err()
		}
		w.next = rev + 1
	}
	return nil
}

// change reads what a pair holds, as of a revision; ok is false if it is left out. Errors are those of etcd.
func (w *watch) change(ctx context.Context, kv *mvccpb.KeyValue, revision int64) (c backend.Change, ok bool, err error) {
	k, name, ok := splitKey(string(kv.Key))
	if !ok {
		return backend.Change{}, false, nil
	}
	v, err := w.store.read(ctx, k, name, kv, revision)
	if ofEtcd(err) {
		return backend.Change{}, false, err
	}
	if err != nil {
		w.store.log.Error("a stored resource cannot be read and is left out", slog.String("key", string(kv.Key)), slog.Any("error", err))
		return backend.Change{}, false, nil
	}
	return backend.Change{Kind: k, Name: name, Resource: v.resource}, true, nil
}

func (w *watch) send(ctx context.Context, b backend.Batch) bool {
	select {
	case w.out <- b:
		return true
	case <-ctx.Done():
		return false
	}
}
