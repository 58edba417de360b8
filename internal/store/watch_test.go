package store_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/store"
	"github.com/tapwall/tapwall/policy"
)

// next returns the next batch as text: "snapshot" or "batch", then + for written and - for deleted.
func next(t *testing.T, ch <-chan backend.Batch) (backend.Batch, []string) {
	t.Helper()
	select {
	case b, ok := <-ch:
		if !ok {
			t.Fatal("the watch has ended")
		}
		out := []string{"batch"}
		if b.Snapshot {
			out[0] = "snapshot"
		}
		for _, c := range b.Changes {
			sign := "+"
			if c.Resource == nil {
				sign = "-"
			} else if c.Resource.GetMeta().Name != c.Name || c.Resource.Kind() != c.Kind {
				t.Errorf("%s %s carries %s %s", c.Kind, c.Name, c.Resource.Kind(), c.Resource.GetMeta().Name)
			}
			out = append(out, fmt.Sprintf("%s%s/%s", sign, c.Kind, c.Name))
		}
		return b, out
	case <-time.After(10 * time.Second):
		t.Fatal("no batch")
		return backend.Batch{}, nil
	}
}

func wantNext(t *testing.T, ch <-chan backend.Batch, want ...string) backend.Batch {
	t.Helper()
	b, got := next(t, ch)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	return b
}

func remove(t *testing.T, s *store.Store, names ...string) {
	t.Helper()
	var changes []backend.Change
	for _, n := range names {
		changes = append(changes, backend.Change{Kind: policy.KindGroup, Name: n})
	}
	if _, err := s.Commit(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
}

func TestWatch(t *testing.T) {
	s := open(t, store.Options{DataDir: t.TempDir()})
	put(t, s, group("a", "10.0.0.0/8"))
	if _, err := s.Commit(t.Context(), []backend.Change{{Kind: policy.KindEndpoint, Name: "e",
		Resource: &policy.Endpoint{Meta: policy.Meta{Name: "e"}}}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ch := s.Watch(ctx, 0)
	first := wantNext(t, ch, "snapshot", "+Endpoint/e", "+Group/a")

	// One transaction is one batch, with the revision of its resources.
	stored, err := s.Commit(t.Context(), []backend.Change{
		{Kind: policy.KindGroup, Name: "a"},
		{Kind: policy.KindGroup, Name: "b", Resource: group("b", "10.0.0.0/8")},
		{Kind: policy.KindMirror, Name: "m", Resource: &policy.Mirror{Meta: policy.Meta{Name: "m"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	b := wantNext(t, ch, "batch", "-Group/a", "+Group/b", "+Mirror/m")
	if b.Revision != stored[1].GetMeta().Revision || b.Revision <= first.Revision {
		t.Errorf("revision %d, stored %d, first %d", b.Revision, stored[1].GetMeta().Revision, first.Revision)
	}
	// What is not a resource makes no batch.
	if err := s.PutStates(t.Context(), "h1", map[string][]byte{"x": nil, "y": []byte("1")}); err != nil {
		t.Fatal(err)
	}
	remove(t, s, "b")
	wantNext(t, ch, "batch", "-Group/b")

	// From a revision on: nothing but what came after it.
	later := s.Watch(ctx, first.Revision)
	wantNext(t, later, "batch", "-Group/a", "+Group/b", "+Mirror/m")
	wantNext(t, later, "batch", "-Group/b")

	cancel()
	for range ch {
		t.Error("a batch after the end")
	}
}

// TestWatchClose ends the store below a watch.
func TestWatchClose(t *testing.T) {
	s := open(t, store.Options{DataDir: t.TempDir()})
	ch := s.Watch(context.Background(), 0)
	wantNext(t, ch, "snapshot")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := <-ch; ok {
		t.Error("a batch after Close")
	}
}

// cluster is an etcd of its own that tapwall knows as external; it can be stopped and started on the same data.
type cluster struct {
	dir, addr string
	etcd      *embed.Etcd
	config    func(*embed.Config)
}

func (c *cluster) start(t *testing.T) {
	t.Helper()
	if c.addr == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.addr = l.Addr().String()
		_ = l.Close()
	}
	cfg := embed.NewConfig()
	cfg.Dir = c.dir
	cfg.Name = "ext"
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	cfg.TickMs, cfg.ElectionMs = 10, 100
	client := []url.URL{{Scheme: "http", Host: c.addr}}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = client, client
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = nil, []url.URL{{Scheme: "http", Host: "localhost:0"}}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	if c.config != nil {
		c.config(cfg)
	}
	var err error
	if c.etcd, err = embed.StartEtcd(cfg); err != nil {
		t.Fatal(err)
	}
	<-c.etcd.Server.ReadyNotify()
}

func (c *cluster) stop() {
	if c.etcd != nil {
		c.etcd.Close()
		c.etcd = nil
	}
}

func startCluster(t *testing.T, config func(*embed.Config)) *cluster {
	t.Helper()
	c := &cluster{dir: t.TempDir(), config: config}
	c.start(t)
	t.Cleanup(c.stop)
	return c
}

// TestWatchResume stops the cluster below a watch, and changes and compacts behind its back.
func TestWatchResume(t *testing.T) {
	c := startCluster(t, nil)
	s := open(t, store.Options{External: []string{"http://" + c.addr}})
	put(t, s, group("a", "10.0.0.0/8"))
	put(t, s, group("b", "10.0.0.0/8"))
	ch := s.Watch(t.Context(), 0)
	wantNext(t, ch, "snapshot", "+Group/a", "+Group/b")

	c.stop()
	if _, err := s.Commit(shortly(t), []backend.Change{{Kind: policy.KindGroup, Name: "x", Resource: group("x")}}); err == nil {
		t.Error("a write without a cluster succeeded")
	}
	if st := s.Status(); st.Connected || st.Message == "" {
		t.Errorf("status without a cluster: %+v", st)
	}
	c.start(t)
	put(t, s, group("c", "10.0.0.0/8"))
	wantNext(t, ch, "batch", "+Group/c")
	if st := s.Status(); !st.Connected || st.Message != "" {
		t.Errorf("status with the cluster back: %+v", st)
	}

}

// TestWatchCompacted cuts a watch off, and deletes, writes and compacts meanwhile: the next batch is a snapshot that also tells what has
// gone.
func TestWatchCompacted(t *testing.T) {
	c := startCluster(t, nil)
	p := newProxy(t, c.addr)
	s := open(t, store.Options{External: []string{"http://" + p.addr()}})
	for _, name := range []string{"a", "b", "c"} {
		put(t, s, group(name, "10.0.0.0/8"))
	}
	ch := s.Watch(t.Context(), 0)
	wantNext(t, ch, "snapshot", "+Group/a", "+Group/b", "+Group/c")

	p.cut()
	direct := open(t, store.Options{External: []string{"http://" + c.addr}})
	remove(t, direct, "a", "c")
	rev := put(t, direct, group("d", "10.0.0.0/8")).GetMeta().Revision
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + c.addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()
	if _, err := cli.Compact(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
	p.mend()
	b, got := next(t, ch)
	slices.Sort(got[1:])
	if diff := cmp.Diff([]string{"snapshot", "+Group/b", "+Group/d", "-Group/a", "-Group/c"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if b.Revision < rev {
		t.Errorf("revision %d is before %d", b.Revision, rev)
	}
	// Then it goes on as usual, and one that begins at a compacted revision begins with a snapshot.
	remove(t, direct, "b")
	wantNext(t, ch, "batch", "-Group/b")
	wantNext(t, direct.Watch(t.Context(), 1), "snapshot", "+Group/d")
}

// proxy passes TCP connections on, until it is cut.
type proxy struct {
	l      net.Listener
	target string
	mu     sync.Mutex
	down   bool
	conns  []net.Conn
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, target: target}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			out, err := net.Dial("tcp", target)
			if p.down || err != nil {
				_ = in.Close()
				if err == nil {
					_ = out.Close()
				}
				p.mu.Unlock()
				continue
			}
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			wg.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
			wg.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
		}
	})
	t.Cleanup(func() { _ = l.Close(); p.cut(); wg.Wait() })
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

func shortly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
