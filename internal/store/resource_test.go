package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/store"
	"github.com/tapwall/tapwall/policy"
)

func TestCommit(t *testing.T) {
	s := open(t, store.Options{DataDir: t.TempDir()})
	ctx := t.Context()
	first := put(t, s, group("lbs", "10.0.0.0/8"))
	m := first.GetMeta()
	if m.UID == "" || m.Revision == 0 || time.Since(m.CreatedAt) > time.Minute {
		t.Errorf("the server's fields are not set: %+v", m)
	}
	got, err := s.Get(ctx, policy.KindGroup, "lbs")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, got); diff != "" {
		t.Errorf("what was committed is not what is read (-committed +read):\n%s", diff)
	}

	second := put(t, s, group("lbs", "10.0.0.0/9"))
	if second.GetMeta().UID != m.UID || !second.GetMeta().CreatedAt.Equal(m.CreatedAt) || second.GetMeta().Revision <= m.Revision {
		t.Errorf("update: uid and createdAt must stay and the revision grow: %+v then %+v", m, second.GetMeta())
	}
	third := put(t, s, group("lbs", "10.0.0.0/9"))
	if third.GetMeta().Revision != second.GetMeta().Revision {
		t.Errorf("an equal resource was written again: revision %d then %d", second.GetMeta().Revision, third.GetMeta().Revision)
	}
	// A resource that comes back is another one.
	if _, err := s.Commit(ctx, []backend.Change{{Kind: policy.KindGroup, Name: "lbs"}}); err != nil {
		t.Fatal(err)
	}
	if again := put(t, s, group("lbs", "10.0.0.0/9")); again.GetMeta().UID == m.UID {
		t.Error("a resource that was deleted and made again kept its uid")
	}
}

func TestCommitConditions(t *testing.T) {
	s := open(t, store.Options{DataDir: t.TempDir()})
	rev := put(t, s, group("a", "10.0.0.0/8")).GetMeta().Revision
	old, none := rev-1, int64(0)
	change := func(name string, expect *int64) backend.Change {
		return backend.Change{Kind: policy.KindGroup, Name: name, Resource: group(name, "10.9.0.0/16"), Expect: expect}
	}
	for _, tt := range []struct {
		name    string
		changes []backend.Change
		want    error
	}{
		{"bad stale revision", []backend.Change{change("a", &old)}, backend.ErrConflict},
		{"bad must not exist", []backend.Change{change("a", &none)}, backend.ErrConflict},
		{"bad must exist", []backend.Change{change("b", &rev)}, backend.ErrConflict},
		{"bad deletion of nothing", []backend.Change{{Kind: policy.KindGroup, Name: "b"}}, backend.ErrNotFound},
		{"bad one of two", []backend.Change{change("c", nil), change("a", &old)}, backend.ErrConflict},
		{"bad guard", []backend.Change{change("c", nil), {Kind: policy.KindGroup, Name: "a", Expect: &old, Guard: true}}, backend.ErrConflict},
		{"bad guard of a kind", []backend.Change{change("c", nil), {Kind: policy.KindGroup, Expect: &old, Guard: true}}, backend.ErrConflict},
		{"OK guards", []backend.Change{
			{Kind: policy.KindMirror, Name: "m", Resource: &policy.Mirror{Meta: policy.Meta{Name: "m"}}},
			{Kind: policy.KindGroup, Name: "a", Expect: &rev, Guard: true},
			{Kind: policy.KindGroup, Expect: &rev, Guard: true},
			{Kind: policy.KindPolicy, Expect: &none, Guard: true},
		}, nil},
		{"OK create", []backend.Change{change("b", &none)}, nil},
		{"OK replace", []backend.Change{change("a", &rev)}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.Commit(t.Context(), tt.changes)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if _, err := s.Get(t.Context(), policy.KindGroup, "c"); !errors.Is(err, backend.ErrNotFound) {
				t.Errorf("part of a refused transaction was written: %v", err)
			}
		})
	}
}

// TestCommitConcurrent has writers of one resource read, change and write it; with Expect none of the changes may be lost.
func TestCommitConcurrent(t *testing.T) {
	s := open(t, store.Options{DataDir: t.TempDir()})
	put(t, s, group("n", "10.0.0.0/32"))
	const writers, each = 8, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := 0; i < each; {
				r, err := s.Get(t.Context(), policy.KindGroup, "n")
				if err != nil {
					t.Error(err)
					return
				}
				g := r.Clone().(*policy.Group)
				g.Spec.Members = append(g.Spec.Members, policy.Selector{CIDR: fmt.Sprintf("10.%d.%d.0/24", w, i)})
				_, err = s.Commit(t.Context(), []backend.Change{{Kind: policy.KindGroup, Name: "n", Resource: g, Expect: &g.Revision}})
				switch {
				case err == nil:
					i++
				case !errors.Is(err, backend.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	r, err := s.Get(t.Context(), policy.KindGroup, "n")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(r.(*policy.Group).Spec.Members); n != 1+writers*each {
		t.Errorf("%d members, want %d", n, 1+writers*each)
	}
}

func TestList(t *testing.T) {
	s := open(t, store.Options{DataDir: t.TempDir()})
	var changes []backend.Change
	for i := range 1500 { // more than one page of the scan
		name := fmt.Sprintf("g%04d", i)
		changes = append(changes, backend.Change{Kind: policy.KindGroup, Name: name, Resource: group(name, "10.0.0.0/8")})
	}
	changes = append(changes, backend.Change{Kind: policy.KindMirror, Name: "g0001",
		Resource: &policy.Mirror{Meta: policy.Meta{Name: "g0001"}}})
	written, err := s.Commit(t.Context(), changes)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		after       string
		limit, want int
		first       string
	}{
		{"", 0, 1500, "g0000"},
		{"", 3, 3, "g0000"},
		{"g0002", 2, 2, "g0003"},
		{"g0002x", 2, 2, "g0003"},
		{"g1499", 2, 0, ""},
		{"", 1200, 1200, "g0000"},
	} {
		got, rev, err := s.List(t.Context(), policy.KindGroup, tt.after, tt.limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != tt.want || len(got) > 0 && got[0].GetMeta().Name != tt.first {
			t.Errorf("after %q limit %d: %d resources, want %d from %q", tt.after, tt.limit, len(got), tt.want, tt.first)
		}
		if want := written[0].GetMeta().Revision; rev != want {
			t.Errorf("revision %d, want %d", rev, want)
		}
	}
}

func TestStatus(t *testing.T) {
	s := open(t, store.Options{DataDir: t.TempDir()})
	rev := put(t, s, group("a", "10.0.0.0/8")).GetMeta().Revision
	want := wire.StoreStatus{Kind: "embedded", Connected: true, Revision: rev}
	if diff := cmp.Diff(want, s.Status()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What an earlier version accepted and this one refuses must still load, or a policy would be gone from the wall, and must be deletable.
func TestFault_F19_RefusedNowLoadsStill(t *testing.T) {
	dir := t.TempDir()
	old := &policy.Policy{Meta: policy.Meta{Name: "old"}, Spec: policy.PolicySpec{AppliesTo: []policy.Selector{{Port: "vm1"}}}}
	if len(old.Validate()) == 0 {
		t.Fatal("the control is valid")
	}
	s, err := store.Open(t.Context(), store.Options{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), []backend.Change{{Kind: policy.KindPolicy, Name: "old", Resource: old}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, store.Options{DataDir: dir})
	if all, _, err := s.List(t.Context(), policy.KindPolicy, "", 0); err != nil || len(all) != 1 || all[0].GetMeta().Name != "old" {
		t.Errorf("%v: %v", all, err)
	}
	if _, err := s.Commit(t.Context(), []backend.Change{{Kind: policy.KindPolicy, Name: "old"}}); err != nil {
		t.Errorf("it cannot be deleted: %v", err)
	}
}

// TestCommitReadsNothingTwice: who has read what he replaces, as the API has, pays for one request. The outcome is the same.
func TestCommitReadsNothingTwice(t *testing.T) {
	s := open(t, store.Options{DataDir: t.TempDir()})
	ctx, none := t.Context(), int64(0)
	first := put(t, s, group("a", "10.0.0.0/8"))
	m := first.GetMeta()
	change := backend.Change{Kind: policy.KindGroup, Name: "a", Resource: group("a", "10.0.0.0/9"), Expect: &m.Revision, Before: first}

	requests := store.CountRequests(s)
	got, err := s.Commit(ctx, []backend.Change{change, {Kind: policy.KindGroup, Name: "b", Resource: group("b"), Expect: &none}})
	if err != nil || requests.Load() != 1 {
		t.Fatalf("%d requests, want 1: %v", requests.Load(), err)
	}
	if n := got[0].GetMeta(); n.UID != m.UID || !n.CreatedAt.Equal(m.CreatedAt) || n.Revision <= m.Revision {
		t.Errorf("update: uid and createdAt must stay and the revision grow: %+v then %+v", m, n)
	}
	for _, want := range got {
		read, err := s.Get(ctx, policy.KindGroup, want.GetMeta().Name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, read); diff != "" {
			t.Errorf("what was committed is not what is read (-committed +read):\n%s", diff)
		}
	}
	if _, err := s.Commit(ctx, []backend.Change{change}); !errors.Is(err, backend.ErrConflict) {
		t.Errorf("a second write on top of the same revision: %v", err)
	}
	rev := got[0].GetMeta().Revision
	same, err := s.Commit(ctx, []backend.Change{{Kind: policy.KindGroup, Name: "a", Resource: group("a", "10.0.0.0/9"), Expect: &rev,
		Before: got[0]}})
	if err != nil || same[0].GetMeta().Revision != rev {
		t.Errorf("an equal resource was written again: %+v, %v", same, err)
	}
	if _, err := s.Commit(ctx, []backend.Change{{Kind: policy.KindGroup, Name: "a", Resource: group("a"), Expect: &rev,
		Before: first}}); err == nil {
		t.Error("a change that expects another revision than that of what is before it was taken")
	}
}

// TestWriter: who wrote a revision is stored with it, and a write that changes nothing leaves the earlier writer.
func TestWriter(t *testing.T) {
	s := open(t, store.Options{DataDir: t.TempDir()})
	ctx := t.Context()
	write := func(r policy.Resource, by string, before policy.Resource) policy.Resource {
		t.Helper()
		r.GetMeta().Writer = policy.Writer{By: by, From: "here"}
		c := backend.Change{Kind: r.Kind(), Name: r.GetMeta().Name, Resource: r, Before: before}
		if before != nil {
			c.Expect = &before.GetMeta().Revision
		}
		out, err := s.Commit(ctx, []backend.Change{c})
		if err != nil {
			t.Fatal(err)
		}
		return out[0]
	}
	check := func(r policy.Resource, by string) {
		t.Helper()
		got, err := s.Get(ctx, r.Kind(), r.GetMeta().Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range []policy.Writer{r.GetMeta().Writer, got.GetMeta().Writer} {
			if w != (policy.Writer{By: by, From: "here"}) {
				t.Errorf("%s: written by %+v, want %s", r.GetMeta().Name, w, by)
			}
		}
	}
	for _, kind := range []func(n int) policy.Resource{
		func(n int) policy.Resource {
			return &policy.Quarantine{Meta: policy.Meta{Name: "cell"}, Spec: policy.QuarantineSpec{Match: policy.Selector{Port: fmt.Sprint(n)}}}
		},
		func(n int) policy.Resource {
			return &policy.Group{Meta: policy.Meta{Name: "g"}, Spec: policy.GroupSpec{Members: []policy.Selector{{Port: fmt.Sprint(n)}}}}
		},
	} {
		first := write(kind(1), "first", nil)
		check(first, "first")
		same := write(kind(1), "second", first)
		if check(same, "first"); same.GetMeta().Revision != first.GetMeta().Revision {
			t.Error("the same again is another revision")
		}
		check(write(kind(2), "third", same), "third")
	}
}
