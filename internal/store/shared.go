package store

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/tapwall/tapwall/policy"
)

// shared holds the newest known version of each resource, so that a value is decoded once, not for every host that watches and every
// request that reads: a group of 100,000 ranges takes a quarter of a second. Resources are not changed once they are handed on, so all may
// have the same one, and what the engines keep is kept anyway.
type shared struct {
	mu    sync.Mutex
	seed  maphash.Seed
	byKey map[string]sharedValue
	// coming are those that are being written: whoever watches may read one before its writer is told that it is stored.
	coming map[string]sharedValue
}

// sharedValue is a resource and the sum of the value that it was read from or written as: of a cluster that was restored from a backup, a
// revision may come again with another value.
type sharedValue struct {
	resource policy.Resource
	sum      uint64
	apart    *apart // where the members of a group are; immutable
	folded   int64  // the edits up to this one are in the list
}

func newShared() shared {
	return shared{seed: maphash.MakeSeed(), byKey: map[string]sharedValue{}, coming: map[string]sharedValue{}}
}

// find returns the resource that a pair holds, if it is known; else the newest version that is, or nothing.
func (s *shared) find(kv *mvccpb.KeyValue) (v sharedValue, found bool) {
	k := string(kv.Key)
	s.mu.Lock()
	have, known := s.byKey[k]
	next, coming := s.coming[k]
	s.mu.Unlock()
	sum := maphash.Bytes(s.seed, kv.Value)
	if known && have.resource.GetMeta().Revision == kv.ModRevision && have.sum == sum {
		return have, true
	}
	if coming && next.sum == sum {
		m := *next.resource.GetMeta()
		m.Revision = kv.ModRevision
		next.resource = withMeta(next.resource, m)
		s.put(k, next)
		return next, true
	}
	return have, false
}

// at returns a resource at a revision, if it is known.
func (s *shared) at(key string, revision int64) (v sharedValue, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, found = s.byKey[key]
	return v, found && v.resource.GetMeta().Revision == revision
}

// folded notes that edits of a group up to the last one of a are in its list.
func (s *shared) folded(key string, a *apart) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, known := s.byKey[key]; known && v.apart != nil && v.apart.List == a.List {
		v.folded = max(v.folded, a.Edit)
		s.byKey[key] = v
	}
}

// read returns the resource that a pair holds, as it was at revision.
func (s *Store) read(ctx context.Context, kind policy.Kind, name string, kv *mvccpb.KeyValue, revision int64) (sharedValue, error) {
	v, found := s.shared.find(kv)
	if found {
		return v, nil
	}
	r, a, err := decode(kind, name, kv.Value, kv.ModRevision)
	if err != nil {
		return v, err
	}
	now := sharedValue{resource: r, sum: s.shared.sum(kv.Value), apart: a}
	if g, ok := r.(*policy.Group); ok && a != nil {
		if now.folded, err = s.readApart(ctx, g, a, v, revision); err != nil {
			return v, fmt.Errorf("store: %s: %w", kv.Key, err)
		}
	}
	s.shared.put(string(kv.Key), now)
	return now, nil
}

func (s *shared) sum(value []byte) uint64 { return maphash.Bytes(s.seed, value) }

// put remembers a resource, unless a newer version is known.
func (s *shared) put(key string, v sharedValue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, known := s.byKey[key]; !known || old.resource.GetMeta().Revision <= v.resource.GetMeta().Revision {
		s.byKey[key] = v
	}
}

// announce tells of a resource that is about to be stored; what it returns is called when that is done, or has failed.
func (s *shared) announce(key string, x sharedValue) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.coming[key] = x
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.coming[key] == x { // nobody else has begun to write it since
			delete(s.coming, key)
		}
	}
}

// drop forgets a resource that is gone.
func (s *shared) drop(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byKey, key)
}

// withMeta returns the same resource under another Meta.
func withMeta(r policy.Resource, m policy.Meta) policy.Resource {
	switch r := r.(type) {
	case *policy.Mirror:
		return &policy.Mirror{Meta: m, Spec: r.Spec}
	case *policy.Policy:
		return &policy.Policy{Meta: m, Spec: r.Spec}
	case *policy.Group:
		return &policy.Group{Meta: m, Spec: r.Spec}
	case *policy.Endpoint:
		return &policy.Endpoint{Meta: m, Spec: r.Spec}
	case *policy.Quarantine:
		return &policy.Quarantine{Meta: m, Spec: r.Spec}
	}
	return nil
}
