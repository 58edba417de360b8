package store_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/store"
	"github.com/tapwall/tapwall/policy"
)

// large returns a group of n address ranges and some other members.
func large(name string, n int) *policy.Group {
	g := group(name)
	for i := range n {
		g.Spec.Members = append(g.Spec.Members, policy.Selector{CIDR: fmt.Sprintf("10.%d.%d.%d/32", i>>16, i>>8&255, i&255)})
	}
	g.Spec.Members[n/2] = policy.Selector{Labels: map[string]string{"app": "{\n"}}
	g.Spec.Members[n/3] = policy.Selector{CIDR: "192.0.2.0/24", Except: []string{"192.0.2.7/32"}}
	return g
}

// change writes an edit on top of what the store has.
func change(t *testing.T, s *store.Store, name string, e policy.MemberEdit) *policy.Group {
	t.Helper()
	old, err := s.Get(t.Context(), policy.KindGroup, name)
	if err != nil {
		t.Fatal(err)
	}
	now, _, _ := old.(*policy.Group).Edit(e)
	rev := old.GetMeta().Revision
	out, err := s.Commit(t.Context(), []backend.Change{{Kind: policy.KindGroup, Name: name, Resource: now, Before: old, Expect: &rev}})
	if err != nil {
		t.Fatal(err)
	}
	return out[0].(*policy.Group)
}

func same(t *testing.T, want, got policy.Resource, what string) {
	t.Helper()
	if a, b := want.Clone(), got.Clone(); !reflect.DeepEqual(a, b) { // without how they came to be
		t.Fatalf("%s (-want +got):\n%.2000s", what, cmp.Diff(a, b))
	}
}

// A change of some members of a large group writes what changed, in one transaction, and every reader has the group as it was written:
// this process, another one that follows, one that begins later; also across what folds the edits, and a write of the whole.
func TestEditsOfLargeGroup(t *testing.T) {
	c := startCluster(t, nil)
	raw := c.client(t)
	options := store.Options{External: []string{"http://" + c.addr}}
	s, other := open(t, options), open(t, options)
	put(t, s, large("feed", 5000))
	put(t, s, group("feed-2", "10.0.0.0/8"))
	watch, theirs := s.Watch(t.Context(), 0), other.Watch(t.Context(), 0)
	<-watch
	<-theirs
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 80 {
		e := policy.MemberEdit{Add: []policy.Selector{{CIDR: fmt.Sprintf("172.16.%d.0/24", i)}, {VM: fmt.Sprint("vm", i)}}}
		for range 5 {
			n := r.IntN(5000)
			e.Remove = append(e.Remove, policy.Selector{CIDR: fmt.Sprintf("10.%d.%d.%d/32", n>>16, n>>8&255, n&255)})
		}
		by, before := s, lastRevision(t, raw)
		if i%7 == 6 {
			by = other
		}
		want := change(t, by, "feed", e)
		if i == 0 {
			if n := bytesSince(t, raw, before); n > 2000 {
				t.Errorf("a change of 7 members wrote %d bytes", n)
			}
		}
		for who, ch := range map[string]<-chan backend.Batch{"this": watch, "another": theirs} {
			b := <-ch
			if len(b.Changes) != 1 || b.Changes[0].Resource == nil {
				t.Fatalf("%s process is told %+v", who, b)
			}
			same(t, want, b.Changes[0].Resource, who+" process is told otherwise")
		}
		if i%40 == 39 {
			fresh := open(t, options)
			got, err := fresh.Get(t.Context(), policy.KindGroup, "feed")
			if err != nil {
				t.Fatal(err)
			}
			same(t, want, got, "a later process reads otherwise")
		}
	}
	eventually(t, "the edits are folded", func() bool { return len(keys(t, raw, "members/feed/edits/")) < 60 })

	// A change of the labels alone, a whole write of less, and the deletion.
	old, err := s.Get(t.Context(), policy.KindGroup, "feed")
	if err != nil {
		t.Fatal(err)
	}
	labelled := old.Clone().(*policy.Group)
	labelled.Labels = map[string]string{"a": "b"}
	want := put(t, other, labelled)
	got, err := s.Get(t.Context(), policy.KindGroup, "feed")
	if err != nil {
		t.Fatal(err)
	}
	same(t, want, got, "after a write of the whole")
	if n := keys(t, raw, "members/feed/"); len(n) != 1 {
		t.Errorf("a write of the whole leaves %v", n)
	}
	change(t, s, "feed", policy.MemberEdit{Remove: []policy.Selector{{VM: "vm3"}}})
	put(t, other, group("feed", "10.0.0.0/8"))
	if n := keys(t, raw, "members/"); len(n) != 0 {
		t.Errorf("a small group leaves %v", n)
	}
	put(t, s, large("feed", 3000))
	put(t, s, large("feed-2", 3000))
	if _, err := other.Commit(t.Context(), []backend.Change{{Kind: policy.KindGroup, Name: "feed"}}); err != nil {
		t.Fatal(err)
	}
	if n := keys(t, raw, "members/"); len(n) != 1 || !strings.Contains(n[0], "/feed-2/") {
		t.Errorf("the deletion leaves %v", n)
	}
}

// Folding leaves the group's revision, and what is not whole is refused rather than taken for a group of fewer members.
func TestFoldedAndDamaged(t *testing.T) {
	c := startCluster(t, nil)
	raw := c.client(t)
	options := store.Options{External: []string{"http://" + c.addr}}
	s := open(t, options)
	put(t, s, large("feed", 3000))
	var last *policy.Group
	for i := range 70 {
		last = change(t, s, "feed", policy.MemberEdit{Add: []policy.Selector{{VM: fmt.Sprint("vm", i)}}})
	}
	eventually(t, "the edits are folded", func() bool { return len(keys(t, raw, "members/feed/edits/")) < 10 })
	fresh := open(t, options)
	got, err := fresh.Get(t.Context(), policy.KindGroup, "feed")
	if err != nil {
		t.Fatal(err)
	}
	same(t, last, got, "after the folding")
	lost := append(keys(t, raw, "members/feed/edits/"), "/tapwall/v1/members/feed/list")[0]
	if _, err := raw.Delete(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	if got, err := open(t, options).Get(t.Context(), policy.KindGroup, "feed"); err == nil {
		t.Fatalf("without %s it is read with %d members", lost, len(got.(*policy.Group).Spec.Members))
	}
	// A write of the whole puts it right.
	want := put(t, open(t, options), large("feed", 3000))
	if got, err = open(t, options).Get(t.Context(), policy.KindGroup, "feed"); err != nil {
		t.Fatal(err)
	}
	same(t, want, got, "after a write of the whole")
}

// What earlier versions stored is read, and edited.
func TestLargeGroupOfEarlierVersion(t *testing.T) {
	c := startCluster(t, nil)
	raw := c.client(t)
	g := large("feed", 2500)
	spec, err := json.Marshal(struct {
		Members []policy.Selector `json:"members"`
	}{g.Spec.Members})
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`{"kind":"Group","name":"feed","uid":"u","createdAt":"2026-01-02T03:04:05Z","spec":%s}`, spec)
	if _, err := raw.Put(t.Context(), "/tapwall/v1/groups/feed", text); err != nil {
		t.Fatal(err)
	}
	options := store.Options{External: []string{"http://" + c.addr}}
	s := open(t, options)
	got, err := s.Get(t.Context(), policy.KindGroup, "feed")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(g.Spec, got.(*policy.Group).Spec); diff != "" {
		t.Error(diff)
	}
	for i := range 2 {
		want := change(t, s, "feed", policy.MemberEdit{Add: []policy.Selector{{VM: fmt.Sprint("vm", i)}}})
		got, err := open(t, options).Get(t.Context(), policy.KindGroup, "feed")
		if err != nil {
			t.Fatal(err)
		}
		if same(t, want, got, "after an edit"); want.UID != "u" {
			t.Errorf("it has another uid: %s", want.UID)
		}
	}
	// This version's groups are nothing that an earlier one takes for empty.
	resp, err := raw.Get(t.Context(), "/tapwall/v1/groups/feed")
	if err != nil || !strings.Contains(string(resp.Kvs[0].Value), `"membersApart":true`) {
		t.Errorf("%v %v", resp, err)
	}
}

// client is etcd's own, which knows nothing of tapwall.
func (c *cluster) client(t *testing.T) *clientv3.Client {
	t.Helper()
	raw, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + c.addr}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	return raw
}

func keys(t *testing.T, raw *clientv3.Client, below string) (out []string) {
	t.Helper()
	resp, err := raw.Get(t.Context(), "/tapwall/v1/"+below, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		out = append(out, string(kv.Key))
	}
	return out
}

func lastRevision(t *testing.T, raw *clientv3.Client) int64 {
	t.Helper()
	resp, err := raw.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

// bytesSince is how many bytes of values were written after a revision.
func bytesSince(t *testing.T, raw *clientv3.Client, revision int64) (n int) {
	t.Helper()
	resp, err := raw.Get(t.Context(), "/tapwall/", clientv3.WithPrefix(), clientv3.WithMinModRev(revision+1))
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		n += len(kv.Value)
	}
	return n
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in 10 s: " + what)
		}
	}
}
