package store_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/internal/store"
	"github.com/tapwall/tapwall/policy"
)

// A cluster with etcd's default limits takes a group of 100,000 ranges; it is read back as it was written, by this process and by another.
func TestLargeGroup(t *testing.T) {
	g := group("feed")
	for i := range 100_000 {
		n := uint32(i) * 2654435761 // spread over all addresses
		g.Spec.Members = append(g.Spec.Members, policy.Selector{CIDR: fmt.Sprintf("%d.%d.%d.%d/32", n>>24, n>>16&255, n>>8&255, n&255)})
	}
	c := startCluster(t, nil)
	options := store.Options{External: []string{"http://" + c.addr}}
	s := open(t, options)
	written := put(t, s, g)
	read := func(s *store.Store, by string) {
		t.Helper()
		got, err := s.Get(t.Context(), policy.KindGroup, "feed")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(written, got); diff != "" {
			t.Errorf("what %s reads differs (-written +read):\n%.2000s", by, diff)
		}
	}
	read(s, "this process")
	other := open(t, options)
	read(other, "another process")
	if again := put(t, other, g); again.GetMeta().Revision != written.GetMeta().Revision {
		t.Error("the same group was written again")
	}
	less := group("feed")
	less.Spec.Members = g.Spec.Members[1:]
	if again := put(t, other, less); again.GetMeta().UID != written.GetMeta().UID || again.GetMeta().Revision == written.GetMeta().Revision {
		t.Errorf("the group without a member became %+v", again.GetMeta())
	}
	written, _ = s.Get(t.Context(), policy.KindGroup, "feed")
	if n := len(written.(*policy.Group).Spec.Members); n != 99_999 {
		t.Errorf("the first process reads %d members after the change of another one", n)
	}
}
