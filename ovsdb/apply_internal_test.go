package ovsdb

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/ovsdb/ovsdbtest"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// live starts a client and returns it with its session and snapshot.
func live(t testing.TB, o *ovsdbtest.OVS) (*Client, *session, *snapshot) {
	t.Helper()
	c, err := New(Options{Address: o.Address(), BackoffMin: 10 * time.Millisecond})
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

// The same for the rows of bridges, ports and timeout policies, and for what somebody puts on a bridge that is about to go.
func TestStaleRowsConflict(t *testing.T) {
	o := ovsdbtest.New(t)
	o.Vsctl("add-br", "br0")
	c, s, snap := live(t, o)
	d := Desired{
		Bridges: []vswitch.BridgeSpec{{Owner: "x", Name: "tw-tap"}},
		Ports: []vswitch.PortSpec{
			{Owner: "x", Bridge: "br0", Name: "tw-a", Type: "patch", Options: map[string]string{"peer": "tw-b"}},
			{Owner: "x", Bridge: "tw-tap", Name: "tw-b", Type: "patch", Options: map[string]string{"peer": "tw-a"}},
		},
		TimeoutPolicies: []vswitch.TimeoutPolicySpec{{Owner: "x", Zone: 1, Timeouts: map[string]int{"udp_first": 5}}},
	}
	for _, part := range []Desired{{Bridges: d.Bridges}, {Ports: d.Ports[:1]}, {TimeoutPolicies: d.TimeoutPolicies}} {
		create := makePlan(snap, part).ops
		if _, err := c.commit(t.Context(), s, create); err != nil {
			t.Fatal(err)
		}
		if _, err := c.commit(t.Context(), s, create); !errors.Is(err, ErrConflict) {
			t.Errorf("the creation of %+v again: %v", part, err)
		}
	}
	if r, err := c.Apply(t.Context(), d); err != nil || r.Transactions != 1 || !r.Ports[1].Stands() {
		t.Fatalf("result %+v, %v", r, err)
	}

	change := func(args string) {
		t.Helper()
		before := c.Topology().NextCfg
		o.Vsctl(strings.Fields(args)...)
		if _, err := c.await(t.Context(), s, func(t *vswitch.Topology) bool { return t.NextCfg > before }); err != nil {
			t.Fatalf("%s: %v", args, err)
		}
	}
	for _, tt := range []struct{ add, remove, kept string }{
		{"add-port tw-tap eth9", "del-port eth9", "bridge tw-tap: port eth9 is not tapwall's"},
		{"set-controller tw-tap tcp:127.0.0.1:1", "del-controller tw-tap", "bridge tw-tap: controller tcp:127.0.0.1:1 is not tapwall's"},
		{"--id=@m create Mirror name=m -- add Bridge tw-tap mirrors @m", "clear Bridge tw-tap mirrors",
			"bridge tw-tap: mirror m is not tapwall's"},
		{"--id=@f create Flow_Table name=f -- set Bridge tw-tap flow_tables:5=@f", "clear Bridge tw-tap flow_tables",
			"bridge tw-tap: the name of table 5 is not tapwall's"},
		{"add-zone-tp system zone=2 udp_first=2", "del-zone-tp system zone=2", ""},
	} {
		_, snap, err := c.connected()
		if err != nil {
			t.Fatal(err)
		}
		remove := makePlan(snap, Desired{}).ops
		change(tt.add)
		if _, err := c.commit(t.Context(), s, remove); !errors.Is(err, ErrConflict) {
			t.Errorf("removal after %s: %v", tt.add, err)
		}
		if r, err := c.Apply(t.Context(), Desired{}); err != nil || strings.Join(r.Kept, "; ") != tt.kept {
			t.Errorf("after %s: kept %q, %v", tt.add, r.Kept, err)
		}
		change(tt.remove)
		if _, err := c.Apply(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
}
