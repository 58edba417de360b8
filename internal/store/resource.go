package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

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
	return s.shared.read(kind, name, resp.Kvs[0])
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
		r, err := s.shared.read(kind, name, kv)
		out = append(out, r)
		return err
	})
	if err != nil {
		return nil, 0, s.fail(ctx, err)
	}
	return out, revision, nil
}

// scan calls f for every key of [from, to) in order, all as of one revision (0 = now), reading pages so that no answer of etcd grows
// with the number of resources. limit 0 = all.
func (s *Store) scan(ctx context.Context, from, to string, revision int64, limit int, f func(*mvccpb.KeyValue) error) (int64, error) {
	const page = 1000
	for n := 0; ; {
		size := page
		if limit > 0 {
			size = min(size, limit-n)
		}
		resp, err := s.client.Get(ctx, from, append(s.readOpts, clientv3.WithRange(to), clientv3.WithLimit(int64(size)),
			clientv3.WithRev(revision))...)
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

// Commit implements api.Store. It builds one transaction that holds only if nothing has changed since the writer, or here in his place,
// Commit looked.
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
	out, err := s.commit(rctx, changes)
	if err == nil || errors.Is(err, backend.ErrConflict) || errors.Is(err, backend.ErrNotFound) || isEncoding(err) {
		return out, err
	}
	return nil, s.fail(ctx, err)
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
		case c.Before != nil && (c.Expect == nil || *c.Expect != c.Before.GetMeta().Revision):
			return fmt.Errorf("store: the change of %s %q does not expect what is said to be before it", c.Kind, c.Name)
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

// commit is Commit without checks and translation of errors.
func (s *Store) commit(ctx context.Context, changes []backend.Change) ([]policy.Resource, error) {
	current, err := s.current(ctx, changes)
	if err != nil {
		return nil, err
	}
	var cmps []clientv3.Cmp
	var ops []clientv3.Op
	out := make([]policy.Resource, len(changes))
	written := make([][]byte, len(changes))
	size := 0
	now := time.Now().UTC().Truncate(time.Millisecond)
	for i, c := range changes {
		if c.Guard && c.Name == "" {
			cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(prefix(c.Kind)).WithPrefix(), "<", *c.Expect+1))
			continue
		}
		k := key(c.Kind, c.Name)
		old, known := current[k]
		if !known && c.Expect != nil {
			if old.revision = *c.Expect; c.Before != nil && c.Resource != nil {
				if old, err = storedAs(c.Before); err != nil {
					return nil, encodingError{fmt.Errorf("store: %s %q: %w", c.Kind, c.Name, err)}
				}
			}
		}
		if c.Expect != nil && *c.Expect != old.revision {
			return nil, fmt.Errorf("%s %q: %w", c.Kind, c.Name, backend.ErrConflict)
		}
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(k), "=", old.revision))
		switch {
		case c.Guard:
		case c.Resource == nil:
			if old.revision == 0 {
				return nil, fmt.Errorf("%s %q: %w", c.Kind, c.Name, backend.ErrNotFound)
			}
			ops = append(ops, clientv3.OpDelete(k))
		default:
			value, meta, same, err := encode(c.Resource, old, now)
			if err != nil {
				return nil, encodingError{fmt.Errorf("store: %s %q: %w", c.Kind, c.Name, err)}
			}
			out[i] = withMeta(c.Resource, meta)
			if !same {
				ops = append(ops, clientv3.OpPut(k, string(value)))
				size += len(value)
				written[i] = value
				defer s.shared.announce(k, withMeta(c.Resource, meta), value)()
			}
		}
	}
	if len(cmps) == 0 {
		return out, nil
	}
	resp, err := s.client.Txn(ctx).If(cmps...).Then(ops...).Commit()
	if err != nil {
		return nil, err
	}
	s.saw(resp.Header.Revision)
	if !resp.Succeeded {
		return nil, fmt.Errorf("store: %w", backend.ErrConflict)
	}
	s.member.wrote(ctx, size)
	for i, c := range changes {
		switch {
		case written[i] != nil:
			out[i].GetMeta().Revision = resp.Header.Revision
			s.shared.put(key(c.Kind, c.Name), out[i], written[i])
		case c.Resource == nil && !c.Guard:
			s.shared.drop(key(c.Kind, c.Name))
		}
	}
	return out, nil
}

// stored is what is there before a change.
type stored struct {
	record
	revision int64 // 0 = nothing
}

// storedAs is what was stored of a resource as it was read.
func storedAs(r policy.Resource) (stored, error) {
	m := r.GetMeta()
	spec, err := encodeSpec(r)
	return stored{record{UID: m.UID, CreatedAt: m.CreatedAt, Labels: m.Labels, Spec: spec}, m.Revision}, err
}

// current reads what the writers of changes do not say that they know, by key. The transaction compares the revisions, so they need not
// be of one moment.
func (s *Store) current(ctx context.Context, changes []backend.Change) (map[string]stored, error) {
	var keys []string
	var gets []clientv3.Op
	for _, c := range changes {
		if known := c.Expect != nil && (c.Resource == nil || c.Before != nil || *c.Expect == 0); !known {
			keys = append(keys, key(c.Kind, c.Name))
			gets = append(gets, clientv3.OpGet(keys[len(keys)-1], s.readOpts...))
		}
	}
	out := make(map[string]stored, len(gets))
	for ops := range slices.Chunk(gets, externalTxnOps) {
		resp, err := s.client.Txn(ctx).Then(ops...).Commit()
		if err != nil {
			return nil, err
		}
		for _, r := range resp.Responses {
			var was stored
			for _, kv := range r.GetResponseRange().Kvs {
				was.revision = kv.ModRevision
				if was.record, err = readRecord(kv.Value); err != nil {
					was.record = record{} // what cannot be read is replaced as a whole
				}
			}
			out[keys[0]], keys = was, keys[1:]
		}
	}
	return out, nil
}

// encode makes the value to store and the Meta to answer with. same is true if old says the same already.
func encode(r policy.Resource, old stored, now time.Time) (value []byte, meta policy.Meta, same bool, err error) {
	m := r.GetMeta()
	rec := record{Kind: r.Kind(), Name: m.Name, Labels: m.Labels, UID: old.UID, CreatedAt: old.CreatedAt}
	if rec.Spec, err = encodeSpec(r); err != nil {
		return nil, meta, false, err
	}
	same = old.UID != "" && bytes.Equal(old.Spec, rec.Spec) && maps.Equal(old.Labels, rec.Labels)
	if rec.UID == "" {
		rec.UID, rec.CreatedAt = uuid.NewString(), now
	}
	meta = policy.Meta{Name: m.Name, Labels: m.Labels, UID: rec.UID, CreatedAt: rec.CreatedAt, Revision: old.revision}
	if value, err = json.Marshal(rec); err == nil {
		value, err = pack(value)
	}
	return value, meta, same, err
}
