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
	v, err := s.read(rctx, kind, name, resp.Kvs[0], resp.Header.Revision)
	if ofEtcd(err) {
		return nil, s.fail(ctx, err)
	}
	return v.resource, err
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
	revision, err := s.scan(rctx, from, clientv3.GetPrefixRangeEnd(prefix(kind)), 0, limit, func(kv *mvccpb.KeyValue, at int64) error {
		_, name, _ := splitKey(string(kv.Key))
		v, err := s.read(rctx, kind, name, kv, at)
		out = append(out, v.resource)
		return err
	})
	if err != nil {
		return nil, 0, s.fail(ctx, err)
	}
	return out, revision, nil
}

// scan calls f for every key of [from, to) in order, all as of one revision (0 = now), which it is told, reading pages so that no answer of
// etcd grows with the number of resources. limit 0 = all.
func (s *Store) scan(ctx context.Context, from, to string, revision int64, limit int,
	f func(kv *mvccpb.KeyValue, revision int64) error) (int64, error) {
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
			if err := f(kv, revision); ofEtcd(err) {
				return 0, err
			} else if err != nil {
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
	return s.write(ctx, changes, nil)
}

// write is Commit with a note, if it is not nil.
func (s *Store) write(ctx context.Context, changes []backend.Change, n *backend.Note) ([]policy.Resource, error) {
	if err := checkChanges(changes); err != nil {
		return nil, err
	}
	if s.space != nil {
		check := s.space.check
		if undoes := n != nil && n.Value == nil; undoes || n == nil && urgent(changes) {
			check = s.space.urgent
		}
		if err := check(); err != nil {
			return nil, err
		}
	}
	rctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	out, err := s.commit(rctx, changes, n)
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

// commit is write without checks and translation of errors.
func (s *Store) commit(ctx context.Context, changes []backend.Change, n *backend.Note) ([]policy.Resource, error) {
	current, err := s.current(ctx, changes)
	if err != nil {
		return nil, err
	}
	var cmps []clientv3.Cmp
	var ops []clientv3.Op
	out := make([]policy.Resource, len(changes))
	written := make([]*sharedValue, len(changes))
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
			if old.revision = *c.Expect; c.Before != nil {
				if old, err = s.storedAs(c); err != nil {
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
			if ops = append(ops, clientv3.OpDelete(k)); old.Apart != nil {
				ops = append(ops, deleteMembers(c.Name))
			}
		default:
			e, err := encode(c.Resource, old, now)
			if err != nil {
				return nil, encodingError{fmt.Errorf("store: %s %q: %w", c.Kind, c.Name, err)}
			}
			out[i] = withMeta(c.Resource, e.meta)
			if !e.same {
				ops = append(append(ops, clientv3.OpPut(k, string(e.value))), e.ops...)
				size += e.size
				written[i] = &sharedValue{resource: out[i], sum: s.shared.sum(e.value), apart: e.apart, folded: e.folded}
				coming := *written[i]
				coming.resource = withMeta(c.Resource, e.meta)
				defer s.shared.announce(k, coming)()
			}
		}
	}
	if n != nil {
		cmp, op := notePart(n)
		cmps, ops, size = append(cmps, cmp), append(ops, op), size+len(n.Value)
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
			s.shared.put(key(c.Kind, c.Name), *written[i])
			s.fold(c.Name, *written[i])
		case c.Resource == nil && !c.Guard:
			s.shared.drop(key(c.Kind, c.Name))
		}
	}
	return out, nil
}

// stored is what is there before a change.
type stored struct {
	record
	revision int64         // 0 = nothing
	group    *policy.Group // instead of Spec; it may be long
	folded   int64         // as sharedValue has it
}

// storedAs is what was stored of the resource that a change replaces, as it was read.
func (s *Store) storedAs(c backend.Change) (stored, error) {
	m := c.Before.GetMeta()
	out := stored{record: record{UID: m.UID, CreatedAt: m.CreatedAt, Labels: m.Labels, Writer: m.Writer}, revision: m.Revision}
	var err error
	if g, ok := c.Before.(*policy.Group); ok {
		v, _ := s.shared.at(key(c.Kind, c.Name), m.Revision)
		out.group, out.Apart, out.folded = g, v.apart, v.folded
	} else if c.Resource != nil {
		out.Spec, err = encodeSpec(c.Before)
	}
	return out, err
}

// current reads what the writers of changes do not say that they know, by key. The transaction compares the revisions, so they need not
// be of one moment.
func (s *Store) current(ctx context.Context, changes []backend.Change) (map[string]stored, error) {
	var keys []string
	var gets []clientv3.Op
	for _, c := range changes {
		known := c.Expect != nil && (c.Guard || c.Resource == nil || c.Before != nil || *c.Expect == 0)
		if c.Kind == policy.KindGroup && known && !c.Guard && *c.Expect != 0 { // and where its members are
			_, known = s.shared.at(key(c.Kind, c.Name), *c.Expect)
			known = known && c.Before != nil
		}
		if !known {
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
					continue
				}
				if kind, name, _ := splitKey(keys[0]); kind == policy.KindGroup {
					v, err := s.read(ctx, kind, name, kv, resp.Header.Revision)
					if ofEtcd(err) {
						return nil, err
					}
					was.group, _ = v.resource.(*policy.Group)
					if was.folded = v.folded; err != nil {
						was.group = nil
					}
				}
			}
			out[keys[0]], keys = was, keys[1:]
		}
	}
	return out, nil
}

// encoded is what to write of a resource, and the Meta to answer with.
type encoded struct {
	value  []byte
	ops    []clientv3.Op // beside the put of value
	size   int           // of all
	meta   policy.Meta
	same   bool // the same is there already
	apart  *apart
	folded int64
}

// encode makes what to write of a resource that replaces another.
func encode(r policy.Resource, old stored, now time.Time) (e encoded, err error) {
	m := r.GetMeta()
	rec := record{Kind: r.Kind(), Name: m.Name, Labels: m.Labels, UID: old.UID, CreatedAt: old.CreatedAt, Writer: m.Writer}
	isApart := false
	if g, ok := r.(*policy.Group); ok {
		if e.same = old.UID != "" && old.group != nil && maps.Equal(old.Labels, rec.Labels) && g.Spec.Same(&old.group.Spec); !e.same {
			if e.ops, e.size, isApart, err = encodeApart(&rec, g, old); err != nil {
				return encoded{}, err
			}
		}
		if e.apart = rec.Apart; isApart && old.Apart != nil && rec.Apart.List == old.Apart.List {
			e.folded = old.folded
		}
	} else if rec.Spec, err = encodeSpec(r); err != nil {
		return encoded{}, err
	} else {
		e.same = old.UID != "" && bytes.Equal(old.Spec, rec.Spec) && maps.Equal(old.Labels, rec.Labels)
	}
	if rec.UID == "" {
		rec.UID, rec.CreatedAt = uuid.NewString(), now
	}
	e.meta = policy.Meta{Name: m.Name, Labels: m.Labels, UID: rec.UID, CreatedAt: rec.CreatedAt, Revision: old.revision, Writer: rec.Writer}
	if e.same {
		e.meta.Writer = old.Writer
		return e, nil
	}
	if rec.Spec == nil {
		if rec.Spec, err = encodeSpec(r); err != nil {
			return encoded{}, err
		}
	}
	if e.value, err = json.Marshal(rec); err == nil {
		e.value, err = pack(e.value)
	}
	e.size += len(e.value)
	return e, err
}
