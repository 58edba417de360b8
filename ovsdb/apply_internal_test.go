package ovsdb

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tapwall/tapwall/ovsdb/ovsdbtest"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// live starts a client and returns it with its session and snapshot.
func live(t testing.TB, o *ovsdbtest.OVS) (*Client, *session, *snapshot) {
	t.Helper()
	c, err := New(Options{Endpoint: o.Endpoint(), BackoffMin: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	wake, stop := c.Subscribe()
	defer stop()
	for {
		if s, snap, err := c.connected(); err == nil {
			return c, s, snap
		}
		select {
		case <-wake:
		case <-time.After(10 * time.Second):
			t.Fatal("no connection")
		}
	}
}

// A plan that is carried out late, after another was made from the same snapshot, must change nothing.
func TestStalePlanConflicts(t *testing.T) {
	o := ovsdbtest.New(t)
	o.Vsctl("add-br", "br0", "--", "add-port", "br0", "vm1", "--", "add-port", "br0", "sink", "--", "add-port", "br0", "sink2")
	c, s, _ := live(t, o)
	spec := func(name, sink string) vswitch.MirrorSpec {
		return vswitch.MirrorSpec{Owner: name, Name: name, Bridge: "br0", SelectSrcPort: []string{"vm1"}, Output: vswitch.OutputSpec{Port: sink}}
	}
	both := Desired{Mirrors: []vswitch.MirrorSpec{spec("a", "sink"), spec("b", "sink2")}}
	_, snap, err := c.connected()
	if err != nil {
		t.Fatal(err)
	}
	create := makePlan(snap, both).ops
	if _, err := c.commit(t.Context(), s, create); err != nil {
		t.Fatal(err)
	}
	if _, err := c.commit(t.Context(), s, create); !errors.Is(err, ErrConflict) {
		t.Errorf("the same creation again: %v", err)
	}

	r, err := c.Apply(t.Context(), both)
	if err != nil || r.Transactions != 0 || len(c.Topology().Bridges["br0"].Mirrors) != 2 {
		t.Fatalf("%d mirrors, result %+v, %v", len(c.Topology().Bridges["br0"].Mirrors), r, err)
	}

	// An update of a row that is gone meanwhile is noticed too.
	_, snap, err = c.connected()
	if err != nil {
		t.Fatal(err)
	}
	both.Mirrors[0].SelectSrcPort = nil
	update := makePlan(snap, both).ops
	if _, err := c.Apply(t.Context(), Desired{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.commit(t.Context(), s, update); !errors.Is(err, ErrConflict) {
		t.Errorf("update of a row that is gone: %v", err)
	}
}
