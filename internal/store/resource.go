package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// maxAttempts bounds the optimistic loop of Commit. Every failed attempt means that somebody else succeeded.
const maxAttempts = 32

// Get implements api.Store.
func (s *Store) Get(ctx context.Context, kind policy.Kind, name string) (policy.Resource, error) {
	if policy.New(kind) == nil || name == "" {
		return nil, fmt.Errorf("%s %q: %w", kind, name, backend.ErrNotFound)
	}
	rctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.Get(rctx, key(kind, name), s.readOpts...)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	s.saw(resp.Header.Revision)
	if len(resp.Kvs) == 0 {
		return nil, fmt.Errorf("%s %q: %w", kind, name, backend.ErrNotFound)
	}
	return decode(kind, name, resp.Kvs[0].Value, resp.Kvs[0].ModRevision)
}

// List implements api.Store. A stored value that cannot be read is an error that names its key.
func (s *Store) List(ctx context.Context, kind policy.Kind, after string, limit int) ([]policy.Resource, int64, error) {
	if policy.New(kind) == nil {
		return nil, 0, fmt.Errorf("store: unknown kind %q", kind)
	}
	from := prefix(kind)
	if after != "" {
		from = key(kind, after) + "\x00"
	}
	rctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var out []policy.Resource
	revision, err := s.scan(rctx, from, clientv3.GetPrefixRangeEnd(prefix(kind)), 0, limit, func(kv *mvccpb.KeyValue) error {
		_, name, _ := splitKey(string(kv.Key))
		r, err := decode(kind, name, kv.Value, kv.ModRevision)
		out = append(out, r)
		return err
	})
	if err != nil {
		return nil, 0, s.fail(ctx, err)
	}
	return out, revision, nil
}

// scan calls f for every key of [from, to) in order, all as of one revision (0 = now), reading pages so that no answer of etcd grows with the
// number of resources. limit 0 = all.
func (s *Store) scan(ctx context.Context, from, to string, revision int64, limit int, f func(*mvccpb.KeyValue) error) (int64, error) {
	const page = 1000
	for n := 0; ; {
		size := page
		if limit > 0 {
			size = min(size, limit-n)
		}
		resp, err := s.client.Get(ctx, from, append(s.readOpts, clientv3.WithRange(to), clientv3.WithLimit(int64(size)), clientv3.WithRev(revision))...)
		if err != nil {
			return 0, err
		}
		s.saw(resp.Header.Revision)
		if revision == 0 {
			revision = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			if err := f(kv); err != nil {
				return 0, &badValue{err}
			}
		}
		n += len(resp.Kvs)
		if !resp.More || n == limit && limit > 0 {
			return revision, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// badValue is an error of a stored value, not of etcd.
type badValue struct{ error }

func (e *badValue) Unwrap() error { return e.error }

// Commit implements api.Store. It reads what is there, builds one transaction that holds only if nothing of that has changed since, and
// starts again if it has.
func (s *Store) Commit(ctx context.Context, changes []backend.Change) ([]policy.Resource, error) {
	if err := checkChanges(changes); err != nil {
		return nil, err
	}
	if s.space != nil {
		if err := s.space.check(); err != nil {
			return nil, err
		}
	}
	rctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for attempt := range maxAttempts {
		if attempt > 2 { // several writers of one resource: let one of them win
			select {
			case <-time.After(rand.N(time.Duration(attempt) * time.Millisecond)):
			case <-rctx.Done():
				return nil, s.fail(ctx, rctx.Err())
			}
		}
		out, done, err := s.tryCommit(rctx, changes)
		if err != nil {
			if errors.Is(err, backend.ErrConflict) || errors.Is(err, backend.ErrNotFound) || isEncoding(err) {
				return nil, err
			}
			return nil, s.fail(ctx, err)
		}
		if done {
			return out, nil
		}
	}
	return nil, fmt.Errorf("store: %w: too many writers at once", backend.ErrConflict)
}

func checkChanges(changes []backend.Change) error {
	type id struct {
		kind policy.Kind
		name string
	}
	seen := make(map[id]bool, len(changes))
	for _, c := range changes {
		switch {
		case policy.New(c.Kind) == nil:
			return fmt.Errorf("store: unknown kind %q", c.Kind)
		case c.Guard:
			if c.Expect == nil || c.Resource != nil {
				return errors.New("store: a guard has a revision and no resource")
			}
			continue
		case c.Name == "":
			return errors.New("store: a change without a name")
		case c.Resource != nil && (c.Resource.Kind() != c.Kind || c.Resource.GetMeta().Name != c.Name):
			return fmt.Errorf("store: the change of %s %q carries another resource", c.Kind, c.Name)
		case seen[id{c.Kind, c.Name}]:
			return fmt.Errorf("store: %s %q is changed twice in one transaction", c.Kind, c.Name)
		}
		seen[id{c.Kind, c.Name}] = true
	}
	return nil
}

type encodingError struct{ error }

func isEncoding(err error) bool { var e encodingError; return errors.As(err, &e) }

// tryCommit does one round; done is false if something changed between reading and writing.
func (s *Store) tryCommit(ctx context.Context, changes []backend.Change) (out []policy.Resource, done bool, err error) {
	current, err := s.current(ctx, changes)
	if err != nil {
		return nil, false, err
	}
	var cmps []clientv3.Cmp
	var ops []clientv3.Op
	out = make([]policy.Resource, len(changes))
	written := make([]bool, len(changes))
	now := time.Now().UTC().Truncate(time.Millisecond)
	for i, c := range changes {
		if c.Guard && c.Name == "" {
			cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(prefix(c.Kind)).WithPrefix(), "<", *c.Expect+1))
			continue
		}
		k := key(c.Kind, c.Name)
		kv := current[k]
		var rev int64
		if kv != nil {
			rev = kv.ModRevision
		}
		if c.Expect != nil && *c.Expect != rev {
			return nil, false, fmt.Errorf("%s %q: %w", c.Kind, c.Name, backend.ErrConflict)
		}
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(k), "=", rev))
		switch {
		case c.Guard:
		case c.Resource == nil:
			if kv == nil {
				return nil, false, fmt.Errorf("%s %q: %w", c.Kind, c.Name, backend.ErrNotFound)
			}
			ops = append(ops, clientv3.OpDelete(k))
		default:
			value, meta, same, err := encode(c.Resource, kv, now)
			if err != nil {
				return nil, false, encodingError{fmt.Errorf("store: %s %q: %w", c.Kind, c.Name, err)}
			}
			out[i] = c.Resource.Clone()
			*out[i].GetMeta() = meta
			if !same {
				ops = append(ops, clientv3.OpPut(k, string(value)))
				written[i] = true
			}
		}
	}
	if len(ops) == 0 && len(cmps) == 0 {
		return out, true, nil
	}
	resp, err := s.client.Txn(ctx).If(cmps...).Then(ops...).Commit()
	if err != nil {
		return nil, false, err
	}
	s.saw(resp.Header.Revision)
	if !resp.Succeeded {
		// A guard over a whole kind has no revision of its own to look at, so it cannot succeed on another try.
		for _, c := range changes {
			if c.Guard && c.Name == "" {
				return nil, false, fmt.Errorf("%s: %w", c.Kind.Plural(), backend.ErrConflict)
			}
		}
		return nil, false, nil
	}
	for i := range out {
		if written[i] {
			out[i].GetMeta().Revision = resp.Header.Revision
		}
	}
	return out, true, nil
}

// current reads the named resources of changes, by key. The transaction compares their revisions, so they need not be of one moment.
func (s *Store) current(ctx context.Context, changes []backend.Change) (map[string]*mvccpb.KeyValue, error) {
	var gets []clientv3.Op
	for _, c := range changes {
		if c.Name != "" {
			gets = append(gets, clientv3.OpGet(key(c.Kind, c.Name), s.readOpts...))
		}
	}
	out := make(map[string]*mvccpb.KeyValue, len(gets))
	const page = externalTxnOps
	for len(gets) > 0 {
		n := min(page, len(gets))
		resp, err := s.client.Txn(ctx).Then(gets[:n]...).Commit()
		if err != nil {
			return nil, err
		}
		for _, r := range resp.Responses {
			for _, kv := range r.GetResponseRange().Kvs {
				out[string(kv.Key)] = kv
			}
		}
		gets = gets[n:]
	}
	return out, nil
}

// encode makes the value to store and the Meta to answer with. same is true if old says the same already.
func encode(r policy.Resource, old *mvccpb.KeyValue, now time.Time) (value []byte, meta policy.Meta, same bool, err error) {
	m := r.GetMeta()
	rec := record{Kind: r.Kind(), Name: m.Name, Labels: m.Labels}
	if rec.Spec, err = encodeSpec(r); err != nil {
		return nil, meta, false, err
	}
	meta = policy.Meta{Name: m.Name, Labels: m.Labels}
	if old != nil {
		var was record
		if err := json.Unmarshal(old.Value, &was); err == nil { // what cannot be read is replaced as a whole
			rec.UID, rec.CreatedAt = was.UID, was.CreatedAt
			same = bytes.Equal(was.Spec, rec.Spec) && maps.Equal(was.Labels, rec.Labels)
			meta.Revision = old.ModRevision
		}
	}
	if rec.UID == "" {
		rec.UID, rec.CreatedAt = uuid.NewString(), now
	}
	meta.UID, meta.CreatedAt = rec.UID, rec.CreatedAt
	value, err = json.Marshal(rec)
	return value, meta, same, err
}
