package ovsdb_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/ovsdbtest"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testWriter sends a log to the test's output.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

// run starts a client with short times and ends it with the test, before the servers end.
func run(t testing.TB, o *ovsdbtest.OVS, change ...func(*ovsdb.Options)) *ovsdb.Client {
	t.Helper()
	opts := ovsdb.Options{
		Address:    o.Address(),
		Logger:     slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo})),
		BackoffMin: 10 * time.Millisecond,
		BackoffMax: 100 * time.Millisecond,
	}
	for _, f := range change {
		f(&opts)
	}
	c, err := ovsdb.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return c
}

// connected is run, and waits for the first snapshot.
func connected(t testing.TB, o *ovsdbtest.OVS, change ...func(*ovsdb.Options)) *ovsdb.Client {
	t.Helper()
	c := run(t, o, change...)
	eventually(t, c, "first snapshot", func(s *vswitch.Topology) bool { return s != nil && c.Status().Connected })
	return c
}

// eventually waits until ok holds for the newest snapshot, looking after every wake-up.
func eventually(t testing.TB, c *ovsdb.Client, what string, ok func(*vswitch.Topology) bool) *vswitch.Topology {
	t.Helper()
	wake, cancel := c.Subscribe()
	defer cancel()
	timeout := time.After(20 * time.Second)
	for {
		if s := c.Topology(); ok(s) {
			return s
		}
		select {
		case <-wake:
		case <-timeout:
			t.Fatalf("%s: not within 20 s; status %+v, topology %+v", what, c.Status(), c.Topology())
		}
	}
}
