package ofctrl_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/oftest"
)

// TestSlowCommit: a switch that says nothing for longer than the timeouts of a small request, because it is busy with a large bundle, is
// waited for, by the probe and by the audits that come due meanwhile, too.
func TestSlowCommit(t *testing.T) {
	t.Parallel()
	const n = 10_000
	release := make(chan struct{})
	f := oftest.NewFake(oftest.FakeOptions{React: func(r oftest.Request) oftest.Reaction {
		switch r.Kind {
		case oftest.BundleCommit:
			<-release
		case oftest.Monitor: // so that it is read back instead
			return oftest.Reaction{Error: ofp.IsSecondary}
		}
		return oftest.Reaction{}
	}})
	opts := quick(f.Listen(t))
	opts.AuditInterval = 100 * time.Millisecond
	done := sync.OnceFunc(func() { close(release) })
	t.Cleanup(done)
	s := run(t, opts)
	s.ready()
	var wg sync.WaitGroup
	wg.Go(func() {
		res, err := s.Apply(t.Context(), ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": flows(n)}})
		if err != nil || res.Installed != 1 {
			t.Errorf("%+v, %v", res, err)
		}
	})
	s.until("silent for long", func(st ofctrl.State) bool { return st.Silent > opts.Timeout+opts.ProbeInterval/2 })
	done()
	wg.Wait()
	if st := s.State(); st.Epoch != 1 || st.Stats.BundlesSent != 1 || st.Missing != 0 || len(f.Flows()) != n {
		t.Errorf("in the end: %+v", st)
	}
}

// TestLostCommit loses the connection between commit and answer. What the switch then has is read back, and only what is missing is sent.
func TestLostCommit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		react   oftest.Reaction
		want    ofctrl.Result
		bundles uint64
	}{
		{"done", oftest.Reaction{Close: true, Before: []byte{4, 33, 0, 4}}, ofctrl.Result{Installed: 2}, 2},
		{"not done", oftest.Reaction{Close: true, Ignore: true}, ofctrl.Result{Added: 200, Deleted: 50, Bundles: 1, Installed: 2}, 3},
		{"never answered", oftest.Reaction{Ignore: true}, ofctrl.Result{Added: 200, Deleted: 50, Bundles: 1, Installed: 2}, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := oftest.NewFake(oftest.FakeOptions{React: react(oftest.BundleCommit, func(n int, _ oftest.Request) oftest.Reaction {
				if n == 1 {
					return tt.react
				}
				return oftest.Reaction{}
			})})
			s := run(t, quick(f.Listen(t)))
			s.ready()
			all := flows(300)
			s.apply(ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": all[:100]}})
			_, err := s.Apply(t.Context(), ofctrl.Update{Revision: 2, Owners: map[string][]flow.Flow{"a": all[50:]}})
			if !errors.Is(err, ofctrl.ErrUnknownOutcome) {
				t.Errorf("Apply: %v", err)
			}
			s.until("read back", func(st ofctrl.State) bool { return st.Epoch == 2 && st.Ready })
			if res := s.apply(ofctrl.Update{Revision: 2}); res != tt.want {
				t.Errorf("next Apply: %+v, want %+v", res, tt.want)
			}
			if st := s.State(); st.Stats.BundlesSent != tt.bundles || st.Missing != 0 {
				t.Errorf("in the end: %+v", st)
			}
			if diff := cmp.Diff(texts(all[50:]), texts(f.Flows())); diff != "" {
				t.Errorf("in the end (-want +got):\n%s", diff)
			}
		})
	}
}

// TestBundleOrder: in lists of flows that differ in priority alone, the switch finds each place at once.
func TestBundleOrder(t *testing.T) {
	t.Parallel()
	const cookie, priority = 16 + 8, 16 + 30 // in the body of a bundle-add (ONF extension 230, OpenFlow 1.3.5 §7.3.4.1)
	var mu sync.Mutex
	var got []uint16
	f := oftest.NewFake(oftest.FakeOptions{React: react(oftest.BundleAdd, func(_ int, r oftest.Request) oftest.Reaction {
		mu.Lock()
		defer mu.Unlock()
		if binary.BigEndian.Uint64(r.Body[cookie:]) == uint64(testCookie) {
			got = append(got, binary.BigEndian.Uint16(r.Body[priority:]))
		}
		return oftest.Reaction{}
	})})
	s := run(t, quick(f.Listen(t)))
	s.ready()
	var fs []flow.Flow
	var up []uint16
	for i := range 200 {
		fs = append(fs, flow.Flow{Table: 201, Priority: uint16(1 + i*77%200), Cookie: testCookie})
		up = append(up, uint16(1+i))
	}
	s.apply(ofctrl.Update{Owners: map[string][]flow.Flow{"a": fs}})
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(up, got); diff != "" {
		t.Errorf("adds (-want +got):\n%s", diff)
	}
	got = nil
	mu.Unlock()
	s.apply(ofctrl.Update{Owners: map[string][]flow.Flow{"a": nil}})
	mu.Lock()
	slices.Reverse(up)
	if diff := cmp.Diff(up, got); diff != "" {
		t.Errorf("deletes (-want +got):\n%s", diff)
	}
}
