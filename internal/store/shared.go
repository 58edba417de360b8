package store

import (
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
}

func newShared() shared {
	return shared{seed: maphash.MakeSeed(), byKey: map[string]sharedValue{}, coming: map[string]sharedValue{}}
}

// read returns the resource that a pair holds.
func (s *shared) read(kind policy.Kind, name string, kv *mvccpb.KeyValue) (policy.Resource, error) {
	k := string(kv.Key)
	s.mu.Lock()
	have, known := s.byKey[k]
	next, coming := s.coming[k]
	s.mu.Unlock()
	sum := maphash.Bytes(s.seed, kv.Value)
	if known && have.resource.GetMeta().Revision == kv.ModRevision && have.sum == sum {
		return have.resource, nil
	}
	if coming && next.sum == sum {
		m := *next.resource.GetMeta()
		m.Revision = kv.ModRevision
		r := withMeta(next.resource, m)
		s.put(k, r, kv.Value)
		return r, nil
	}
	r, err := decode(kind, name, kv.Value, kv.ModRevision)
	if err == nil {
		s.put(k, r, kv.Value)
	}
	return r, err
}

// put remembers r, which is stored as value, unless a newer version is known.
func (s *shared) put(key string, r policy.Resource, value []byte) {
	sum := maphash.Bytes(s.seed, value)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, known := s.byKey[key]; !known || old.resource.GetMeta().Revision <= r.GetMeta().Revision {
		s.byKey[key] = sharedValue{r, sum}
	}
}

// announce tells of a resource that is about to be stored as value; what it returns is called when that is done, or has failed.
func (s *shared) announce(key string, r policy.Resource, value []byte) (done func()) {
	x := sharedValue{r, maphash.Bytes(s.seed, value)}
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
	}
	return nil
}
