// Package search holds the export to the account of a real OpenSearch, with a proxy before it that fails as servers and networks do.
package search

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/opensearch"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/event/spool"
	"github.com/tapwall/tapwall/test/lab"
)

// server is the one that all tests share, each with a prefix of its own.
var server *lab.OpenSearch

func TestMain(m *testing.M) {
	if os.Getenv(feederDir) != "" {
		os.Exit(m.Run()) // the server is the parent's
	}
	var err error
	server, err = lab.StartOpenSearch()
	switch {
	case errors.Is(err, lab.ErrNoOpenSearch) && os.Getenv("CI") == "":
		fmt.Println("skipped:", err)
		os.Exit(0)
	case err != nil:
		fmt.Println(err)
		os.Exit(1)
	}
	code := m.Run()
	server.Close()
	os.Exit(code)
}

// rig is a record with its spool and the export of it, in this process.
type rig struct {
	*testing.T
	proxy  *lab.FaultProxy
	prefix string
	dir    string
	opts   func(*opensearch.Options)
	disk   spool.Options

	spool *spool.Spool
	sink  *opensearch.Sink
	rec   *record.Recorder
	end   func()
}

func newRig(t *testing.T, prefix string, opts func(*opensearch.Options)) *rig {
	t.Helper()
	r := idleRig(t, prefix, opts)
	r.start()
	return r
}

// idleRig is one that start begins.
func idleRig(t *testing.T, prefix string, opts func(*opensearch.Options)) *rig {
	t.Helper()
	p, err := lab.NewFaultProxy(server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, proxy: p, prefix: prefix, dir: t.TempDir(), opts: opts}
	t.Cleanup(p.Close)
	t.Cleanup(func() {
		for _, path := range []string{"/", "/_index_template/", "/_component_template/"} {
			if status, b, err := server.Do("DELETE", path+prefix+"-*", ""); err != nil || status != 200 && status != 404 {
				t.Error(path, status, string(b), err)
			}
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *rig) start() {
	r.Helper()
	var err error
	r.disk.Dir = r.dir + "/spool"
	if r.spool, err = spool.Open(r.disk); err != nil {
		r.Fatal(err)
	}
	o := opensearch.Options{
		URLs: []string{r.proxy.URL}, Prefix: r.prefix, Dir: r.dir + "/dead", Spool: r.spool, Timeout: 5 * time.Second, MaxWait: time.Second,
	}
	if r.opts != nil {
		r.opts(&o)
	}
	if r.sink, err = opensearch.Open(o); err != nil {
		r.Fatal(err)
	}
	ro := record.Options{Host: "lab", DataDir: r.dir, Spool: r.spool, QueueLen: 1 << 16, RingLen: 4096, Exports: []record.Export{r.sink}}
	if r.rec, err = record.NewRecorder(ro); err != nil {
		r.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.rec.Run(ctx) }()
	r.end = func() {
		cancel()
		if err := <-done; err != nil {
			r.Error(err)
		}
	}
}

func (r *rig) stop() {
	if r.end != nil {
		r.end()
		r.end = nil
	}
}

// newEvent is one that says which it is by its port.
func newEvent(i int) event.Event {
	return event.Event{
		Event:  event.Meta{Action: event.ActionVerdict, Dataset: event.DatasetFlow, Module: "tapwall", Provider: "packet-in"},
		Source: &event.Side{IP: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String(), Port: i & 0xffff},
		Tapwall: event.Tapwall{Verdict: event.Forwarded, Source: &event.Endpoint{Name: "vm1",
			Labels: map[string]string{"app": "web", "app.kubernetes.io/name": "web"}}},
	}
}

// record makes n events.
func (r *rig) record(from, n int) {
	for i := from; i < from+n; i++ {
		r.rec.Record(newEvent(i))
	}
}

// drained waits until nothing is pending and checks that the index holds what the figures say, each event once.
func (r *rig) drained(within time.Duration) event.SinkStatus {
	r.Helper()
	var st event.SinkStatus
	for end := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		c := r.rec.Counters()
		if st = r.sink.Status(); c.Pending == 0 && st.Pending == 0 {
			break
		}
		if time.Now().After(end) {
			r.Fatalf("not all is delivered within %v: %+v %+v", within, st, st.Export)
		}
	}
	return r.account(st)
}

// account holds the figures to each other and to the index.
func (r *rig) account(st event.SinkStatus) event.SinkStatus {
	r.Helper()
	c := r.rec.Counters()
	lost := int64(0)
	for stage, n := range c.Lost {
		if event.Stage(stage).BeforeAcceptance() {
			lost += n
		}
	}
	if c.Observed != c.Accepted+lost {
		r.Errorf("observed %d, accepted %d, lost %d", c.Observed, c.Accepted, lost)
	}
	x := st.Export
	if st.Appended != x.Created+x.Duplicates+x.DeadLetters+x.Expired+x.Corrupt+st.Pending {
		r.Errorf("the figures do not add up: %+v %+v", st, x)
	}
	n, err := server.Count(r.prefix+"-all", "")
	if err != nil {
		r.Fatal(err)
	}
	distinct, err := server.Distinct(r.prefix+"-all", "event.id")
	if err != nil {
		r.Fatal(err)
	}
	if want := st.Appended - x.DeadLetters - x.Expired - x.Corrupt; int64(n) != want || distinct != n {
		r.Errorf("%d documents, %d ids, want %d: %+v", n, distinct, want, x)
	}
	return st
}
