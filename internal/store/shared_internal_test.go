package store

import (
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/tapwall/tapwall/policy"
)

// TestSharedAnnounced holds that a value which is being written is not decoded by who reads it first, and that no other value is taken for
// it.
func TestSharedAnnounced(t *testing.T) {
	s := newShared()
	kv := func(value string) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte(key(policy.KindGroup, "g")), Value: []byte(value), ModRevision: 7}
	}
	g := &policy.Group{Meta: policy.Meta{Name: "g"}, Spec: policy.GroupSpec{Members: []policy.Selector{{CIDR: "10.0.0.0/8"}}}}
	done := s.announce(key(policy.KindGroup, "g"), sharedValue{resource: g, sum: s.sum([]byte("never decoded"))})
	if r, found := s.find(kv("another")); found {
		t.Errorf("another value is read as %+v", r)
	}
	r, found := s.find(kv("never decoded"))
	if !found {
		t.Fatal("it is decoded")
	}
	if got := r.resource.(*policy.Group); got.Revision != 7 || &got.Spec.Members[0] != &g.Spec.Members[0] || g.Revision != 0 {
		t.Errorf("read %+v, and %+v was announced", got, g)
	}
	done()
	s.drop(key(policy.KindGroup, "g"))
	if r, found := s.find(kv("never decoded")); found {
		t.Errorf("a value is read as %+v after its writer has gone", r)
	}
}
