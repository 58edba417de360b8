package ofctrl_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/oftest"
)

// dump returns the flows without statistics, in a fixed order.
func dump(o *oftest.OVS) string {
	text := strings.ReplaceAll(o.Ofctl("--no-stats", "dump-flows", "br0"), "reset_counts ", "") // of flow-mods, not of flows
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// told is the longest wait for news of a change, which the monitor brings: without it they would take a round of reading back (30 s).
const told = 10 * time.Second

func TestForeignChanges(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		ofctl    []string
		lost     int
		mods     int  // that put it right
		modified bool // put right with the counters kept
	}{
		{"delete one", []string{"--strict", "del-flows", "br0", "table=205,priority=1000,tcp,reg8=0,nw_src=10.0.0.3,tp_dst=80"}, 1, 1, false},
		{"delete all", []string{"del-flows", "br0"}, 100, 100, false},
		{"other actions", []string{"mod-flows", "br0", "table=205,tcp,nw_src=10.0.0.4,actions=drop"}, 1, 1, true},
		{"other cookie bits", []string{"add-flow", "br0",
			"table=205,priority=1000,cookie=0x74617000000000ff,tcp,reg8=0,nw_src=10.0.0.5,tp_dst=80,actions=drop"}, 1, 1, false},
		{"stray with our cookie", []string{"add-flow", "br0", "table=206,cookie=0x746170000000beef,actions=NORMAL"}, 1, 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := startOVS(t)
			s := run(t, options(o.MgmtAddr("br0")))
			s.ready()
			s.apply(ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": flows(100)}})
			want := dump(o)
			select { // the wake-ups so far
			case <-s.Wake():
			default:
			}

			o.Ofctl(tt.ofctl...)
			start := time.Now()
			select {
			case <-s.Wake():
			case <-time.After(told):
				t.Fatalf("not told within %v", told)
			}
			t.Logf("told %v after ovs-ofctl had returned", time.Since(start))
			s.until("all lost", func(st ofctrl.State) bool { return st.Lost == tt.lost && st.Installed == 0 && st.Missing == tt.lost })
			if got := dump(o); got == want {
				t.Error("the change did not happen")
			}
			res := s.apply(ofctrl.Update{Revision: 2})
			if n := res.Added + res.Modified + res.Deleted; n != tt.mods || (res.Modified > 0) != tt.modified || res.Installed != 2 {
				t.Errorf("put right by %+v", res)
			}
			if diff := cmp.Diff(want, dump(o)); diff != "" {
				t.Errorf("flows afterwards (-want +got):\n%s", diff)
			}
			if st := s.State(); st.Lost != 0 || st.Missing != 0 || st.Stats.LostFlows != uint64(tt.lost) {
				t.Errorf("state afterwards: %+v", st)
			}
		})
	}
}

func TestForeignFlowInTheWay(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	theirs := "cookie=0x99,table=205,priority=1000,tcp,reg8=0,nw_src=10.0.0.2,tp_dst=80"
	o.Ofctl("add-flow", "br0", theirs+",actions=NORMAL")
	s := run(t, options(o.MgmtAddr("br0")))
	s.ready()

	check := func(when string, err error, blocked int, installed int64) {
		t.Helper()
		var fe *ofctrl.ForeignError
		if !errors.Is(err, ofctrl.ErrForeignFlow) || !errors.As(err, &fe) || fe.Count != blocked || fe.Owner != "a" {
			t.Errorf("%s: %v", when, err)
		}
		if st := s.State(); st.Blocked != blocked || st.Missing != blocked || st.Installed != installed || st.OurFlows != 5-blocked {
			t.Errorf("%s: %+v", when, st)
		}
		if got := dump(o); strings.Count(got, "cookie=0x99,") != blocked {
			t.Errorf("%s: want %d foreign flows:\n%s", when, blocked, got)
		}
	}
	_, err := s.Apply(t.Context(), ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": flows(5)}})
	check("there before", err, 1, 0)

	// Somebody takes the place of a flow of ours.
	o.Ofctl("add-flow", "br0", "cookie=0x99,table=205,priority=1000,tcp,reg8=0,nw_src=10.0.0.3,tp_dst=80,actions=NORMAL")
	s.until("blocked twice", func(st ofctrl.State) bool { return st.Blocked == 2 })
	_, err = s.Apply(t.Context(), ofctrl.Update{Revision: 2})
	check("taken over", err, 2, 0)

	// Others are not told of it, and get what they want.
	res, err := s.Apply(t.Context(), ofctrl.Update{Revision: 3, Owners: map[string][]flow.Flow{"b": {{Table: 200, Cookie: testCookie}}}})
	if err != nil || res.Added != 1 || res.Installed != 0 {
		t.Errorf("another owner: %+v, %v", res, err)
	}

	// Withdrawing ours does not delete theirs.
	s.apply(ofctrl.Update{Revision: 4, Owners: map[string][]flow.Flow{"a": nil}})
	if n := strings.Count(dump(o), "cookie=0x99"); n != 2 {
		t.Errorf("%d foreign flows, want 2", n)
	}
	_, err = s.Apply(t.Context(), ofctrl.Update{Revision: 5, Owners: map[string][]flow.Flow{"a": flows(5), "b": nil}})
	check("again", err, 2, 4)
	select {
	case <-s.Wake():
	default:
	}
	o.Ofctl("del-flows", "br0", "cookie=0x99/-1")
	select {
	case <-s.Wake():
	case <-time.After(told):
		t.Error("not told that the places are free")
	}
	s.until("free", func(st ofctrl.State) bool { return st.Blocked == 0 })
	if res := s.apply(ofctrl.Update{Revision: 6}); res.Added != 2 || res.Installed != 6 {
		t.Errorf("with the places free: %+v", res)
	}
}

func TestVswitchdKilled(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	s := run(t, options(o.MgmtAddr("br0")))
	s.ready()
	owners := map[string][]flow.Flow{"a": flows(1000), "b": {{Table: 200, Cookie: testCookie}}}
	meters := []flow.MeterDesc{{ID: 100, Flags: flow.MeterPktps | flow.MeterStats, Bands: []flow.Band{{Type: flow.BandDrop, Rate: 10}}}}
	s.apply(ofctrl.Update{Revision: 3, Owners: owners, Meters: meters})
	want, wantMeters := dump(o), o.Ofctl("dump-meters", "br0")

	o.KillVswitchd()
	st := s.until("disconnected with a reason", func(st ofctrl.State) bool { return !st.Connected && st.Err != "" })
	if st.Ready || s.Has(owners["b"][0]) {
		t.Errorf("while vswitchd is dead: %+v", st)
	}
	t.Logf("while vswitchd is dead: %s", st.Err)
	if _, err := s.Apply(t.Context(), ofctrl.Update{Revision: 4, Owners: map[string][]flow.Flow{"c": nil}}); !errors.Is(err,
		ofctrl.ErrNotConnected) {
		t.Errorf("Apply: %v", err)
	}
	if err := s.PacketOut(t.Context(), &ofp.PacketOut{}); !errors.Is(err, ofctrl.ErrNotConnected) {
		t.Errorf("PacketOut: %v", err)
	}
	if _, err := s.Flows(t.Context()); !errors.Is(err, ofctrl.ErrNotConnected) {
		t.Errorf("Flows: %v", err)
	}

	start := time.Now()
	o.StartVswitchd()
	st = s.ready()
	t.Logf("back %v after the start of vswitchd", time.Since(start))
	if st.Epoch != 2 || st.OurFlows != 0 || st.Missing != 1002 || st.Installed != 0 || st.Err != "" || st.Stats.Reconnects != 1 {
		t.Errorf("after the restart of vswitchd: %+v", st)
	}
	if res := s.apply(ofctrl.Update{Revision: 5}); res != (ofctrl.Result{Added: 1001, Meters: 1, Bundles: 1, Installed: 5}) {
		t.Errorf("restored by %+v", res)
	}
	if diff := cmp.Diff(want, dump(o)); diff != "" {
		t.Errorf("flows after the restart (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantMeters, o.Ofctl("dump-meters", "br0")); diff != "" {
		t.Errorf("meters after the restart (-want +got):\n%s", diff)
	}
}

// TestVswitchdHangs stops vswitchd: only the probe can notice.
func TestVswitchdHangs(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	opts := options(o.MgmtAddr("br0"))
	opts.ProbeInterval = time.Second // less would take a busy switch for one that hangs
	opts.Timeout = 3 * time.Second
	s := run(t, opts)
	s.ready()
	s.apply(ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": flows(10)}})
	o.SignalVswitchd(syscall.SIGSTOP)
	start := time.Now()
	st := s.until("disconnected", func(st ofctrl.State) bool { return !st.Connected && st.Err != "" })
	t.Logf("noticed after %v: %s", time.Since(start), st.Err)
	if !strings.Contains(st.Err, ofctrl.ErrProbe.Error()) && !strings.Contains(st.Err, "deadline") {
		t.Errorf("reason %q does not tell that the switch hangs", st.Err)
	}
	o.SignalVswitchd(syscall.SIGCONT)
	s.ready()
	if res := s.apply(ofctrl.Update{Revision: 2}); res != (ofctrl.Result{Installed: 2}) {
		t.Errorf("after the pause: %+v", res)
	}
}

// TestConcurrentUsers lets others change their flows while we change ours.
func TestConcurrentUsers(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	s := run(t, options(o.MgmtAddr("br0")))
	s.ready()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	errs := make(chan error, 2)
	for user := range 2 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				spec := fmt.Sprintf("cookie=0x%d,table=%d,priority=%d,ip", user+1, user, 1+i%50)
				if out, err := o.OfctlErr("add-flow", "br0", spec+",actions=NORMAL"); err != nil {
					errs <- fmt.Errorf("%w: %s", err, out)
					return
				}
				if i%7 == 6 {
					if out, err := o.OfctlErr("del-flows", "br0", fmt.Sprintf("cookie=0x%d/-1", user+1)); err != nil {
						errs <- fmt.Errorf("%w: %s", err, out)
						return
					}
				}
			}
		})
	}
	const rounds = 60
	for i := range rounds {
		res := s.apply(ofctrl.Update{Revision: int64(i + 1), Owners: map[string][]flow.Flow{"a": flows(20 + i%10)}})
		if res.Installed != int64(i+1) {
			t.Errorf("round %d: %+v", i, res)
		}
	}
	close(stop)
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	want := 20 + (rounds-1)%10
	if n := strings.Count(dump(o), "cookie=0x746170"); n != want {
		t.Errorf("%d flows of ours, want %d", n, want)
	}
	st := s.State()
	if st.OurFlows != want || st.Missing != 0 || st.Stats.LostFlows != 0 {
		t.Errorf("state: %+v", st)
	}
	if n := count(o) - want; n != st.ForeignFlows {
		t.Errorf("%d foreign flows known, the switch has %d", st.ForeignFlows, n)
	}
}
