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
	done := s.announce(key(policy.KindGroup, "g"), g, []byte("never decoded"))
	if r, err := s.read(policy.KindGroup, "g", kv("another")); err == nil {
		t.Errorf("another value is read as %+v", r)
	}
	r, err := s.read(policy.KindGroup, "g", kv("never decoded"))
	if err != nil {
		t.Fatal(err)
	}
	if got := r.(*policy.Group); got.Revision != 7 || &got.Spec.Members[0] != &g.Spec.Members[0] || g.Revision != 0 {
		t.Errorf("read %+v, and %+v was announced", got, g)
	}
	done()
	s.drop(key(policy.KindGroup, "g"))
	if r, err := s.read(policy.KindGroup, "g", kv("never decoded")); err == nil {
		t.Errorf("a value is read as %+v after its writer has gone", r)
	}
}
