package ofctrl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/oftest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// react returns a reaction for the requests of one kind, by their number.
func react(kind oftest.Kind, on func(n int, r oftest.Request) oftest.Reaction) func(oftest.Request) oftest.Reaction {
	return func(r oftest.Request) oftest.Reaction {
		if r.Kind == kind {
			return on(r.N, r)
		}
		return oftest.Reaction{}
	}
}

// once reacts to the first request of a kind only.
func once(kind oftest.Kind, x oftest.Reaction) func(oftest.Request) oftest.Reaction {
	return react(kind, func(n int, _ oftest.Request) oftest.Reaction {
		if n == 0 {
			return x
		}
		return oftest.Reaction{}
	})
}

// quick are options with short times, but not so short that a fake on a busy machine misses them.
func quick(address string) ofctrl.Options {
	o := options(address)
	o.BackoffMin, o.BackoffMax = 5*time.Millisecond, 20*time.Millisecond
	o.Timeout, o.ProbeInterval = 3*time.Second, time.Second
	return o
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	hello := func(versions ...ofp.Version) []byte { return ofp.AppendHello(nil, 0, versions...) }
	tests := []struct {
		name  string
		hello []byte
		react func(oftest.Request) oftest.Reaction
		want  error
	}{
		{name: "OK"},
		// What Open vSwitch sends by default: version 1.5 and no bitmap.
		{name: "OK without elements", hello: []byte{6, 0, 0, 8, 0, 0, 0, 1}},
		{name: "OK with an unknown element", hello: append([]byte{4, 0, 0, 16, 0, 0, 0, 1}, 0, 99, 0, 8, 1, 2, 3, 4)},
		{name: "OK with several versions", hello: hello(ofp.Version13, ofp.Version14, ofp.Version15)},
		{name: "bad: only 1.5", hello: hello(ofp.Version15), want: ofctrl.ErrVersion},
		{name: "bad: only 1.0", hello: []byte{1, 0, 0, 8, 0, 0, 0, 1}, want: ofctrl.ErrVersion},
		{
			name: "bad: hello refused", hello: append(oftest.ErrorMessage(0, ofp.NewErrorCode(0, 0, 0), []byte("no")), hello(ofp.Version15)...),
			want: ofctrl.ErrVersion,
		},
		{name: "bad: something else", hello: []byte{4, 21, 0, 8, 0, 0, 0, 1}, want: ofctrl.ErrProtocol},
		{name: "bad: not OpenFlow", hello: []byte("SSH-2.0-OpenSSH_9.2p1\r\n"), want: ofctrl.ErrProtocol},
		{name: "bad: length 4", hello: []byte{4, 0, 0, 4, 0, 0, 0, 1}, want: ofctrl.ErrProtocol},
		{name: "bad: silent", hello: []byte{}, want: context.DeadlineExceeded},
		{name: "bad: hangs later", react: once(oftest.Features, oftest.Reaction{Ignore: true}), want: context.DeadlineExceeded},
		{name: "bad: refuses features", react: once(oftest.Features, oftest.Reaction{Error: ofp.IsSecondary}), want: ofp.IsSecondary},
		{name: "bad: refuses configuration", react: once(oftest.SetConfig, oftest.Reaction{Error: ofp.IsSecondary}), want: ofctrl.ErrRejected},
		{name: "bad: closes", react: once(oftest.Barrier, oftest.Reaction{Close: true, Ignore: true}), want: io.ErrUnexpectedEOF},
		{
			name:  "bad: malformed features",
			react: once(oftest.Features, oftest.Reaction{Ignore: true, Before: []byte{4, 6, 0, 8, 0, 0, 0, 2}}), want: ofctrl.ErrProtocol,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := oftest.NewFake(oftest.FakeOptions{DatapathID: 0xabc, Hello: tt.hello, React: tt.react})
			ours, theirs := net.Pipe()
			var wg sync.WaitGroup
			wg.Go(func() { _ = f.Serve(theirs) })
			c, err := ofctrl.NewConn(t.Context(), ours, ofctrl.ConnOptions{Timeout: 3 * time.Second})
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if err == nil {
				if id := c.Features().DatapathID; id != 0xabc {
					t.Errorf("datapath id %#x, want 0xabc", id)
				}
				c.Close()
			}
			wg.Wait()
		})
	}
}

// TestFaults applies an update while the switch misbehaves once, and then once more: in the end everything must stand, and
// nothing may have been installed in half.
func TestFaults(t *testing.T) {
	t.Parallel()
	const n = 300
	garbage := bytes.Repeat([]byte{0xff}, 64)
	tests := []struct {
		name  string
		react func(oftest.Request) oftest.Reaction
		want  error // of the first Apply
		// recorded: the second Apply is empty, because the first has recorded its update.
		recorded bool
		epoch    uint64 // connections needed in the end
		decode   uint64 // malformed messages counted
	}{
		{name: "none", recorded: true, epoch: 1},
		{
			name:  "refuses one add",
			react: once(oftest.BundleAdd, oftest.Reaction{Error: ofp.TableFull}), want: ofp.TableFull, epoch: 1,
		},
		{
			name: "refuses the last add",
			react: react(oftest.BundleAdd, func(k int, _ oftest.Request) oftest.Reaction {
				if k == n-1 {
					return oftest.Reaction{Error: ofp.TableFull}
				}
				return oftest.Reaction{}
			}), want: ofctrl.ErrRejected, epoch: 1,
		},
		{name: "refuses the bundle", react: once(oftest.BundleOpen, oftest.Reaction{Error: ofp.BundleExists}), want: ofp.BundleExists,
			recorded: true, epoch: 1},
		{name: "refuses the commit", react: once(oftest.BundleCommit, oftest.Reaction{Error: ofp.BundleFailed}), want: ofp.BundleFailed,
			recorded: true, epoch: 1},
		{
			name: "bundle expires while it is filled",
			react: react(oftest.BundleAdd, func(k int, _ oftest.Request) oftest.Reaction {
				return oftest.Reaction{ExpireBundles: k == n/2}
			}), want: ofp.BundleTimeout, recorded: true, epoch: 1,
		},
		{name: "bundle expires before its commit", react: once(oftest.BundleCommit, oftest.Reaction{ExpireBundles: true}),
			want: ofp.BundleTimeout, recorded: true, epoch: 1},
		{
			name:  "closes in mid-bundle",
			react: react(oftest.BundleAdd, func(k int, _ oftest.Request) oftest.Reaction { return oftest.Reaction{Close: k == n/2} }),
			want:  ofctrl.ErrNotConnected, recorded: true, epoch: 2,
		},
		{name: "closes before the commit", react: once(oftest.BundleCommit, oftest.Reaction{Close: true, Ignore: true}),
			want: ofctrl.ErrUnknownOutcome, recorded: true, epoch: 2},
		{
			// The reply is lost, the work is done.
			name:  "closes after the commit",
			react: once(oftest.BundleCommit, oftest.Reaction{Close: true, Before: []byte{4, 33, 0, 4}}), want: ofctrl.ErrUnknownOutcome,
			recorded: true, epoch: 2,
		},
		{name: "hangs at the commit", react: once(oftest.BundleCommit, oftest.Reaction{Ignore: true}), want: ofctrl.ErrUnknownOutcome,
			recorded: true, epoch: 2},
		{name: "answers the commit late", react: once(oftest.BundleCommit, oftest.Reaction{Delay: 80 * time.Millisecond}), recorded: true,
			epoch: 1},
		{
			name: "hangs at the barrier",
			react: react(oftest.Barrier, func(k int, _ oftest.Request) oftest.Reaction {
				return oftest.Reaction{Ignore: k == 1} // 0 is that of the handshake
			}), want: context.DeadlineExceeded, recorded: true, epoch: 1,
		},
		{
			name:  "sends a malformed message",
			react: once(oftest.BundleOpen, oftest.Reaction{Before: []byte{4, 10, 0, 12, 0, 0, 0, 0, 1, 2, 3, 4}}), recorded: true, epoch: 1,
			decode: 1,
		},
		{
			name: "sends a malformed commit reply",
			react: react(oftest.BundleCommit, func(k int, r oftest.Request) oftest.Reaction {
				if k > 0 {
					return oftest.Reaction{}
				}
				bad := []byte{4, 4, 0, 18, byte(r.XID >> 24), byte(r.XID >> 16), byte(r.XID >> 8), byte(r.XID), 0x4f, 0x4e, 0x46, 0, 0, 0, 0x08, 0xfc,
					0, 0}
				return oftest.Reaction{Before: bad, Ignore: true}
			}), want: ofctrl.ErrUnknownOutcome, recorded: true, epoch: 2, decode: 1,
		},
		{name: "sends garbage", react: once(oftest.BundleOpen, oftest.Reaction{Before: garbage, Close: true}), want: ofctrl.ErrNotConnected,
			recorded: true, epoch: 2},
		{name: "sends a length of 7", react: once(oftest.BundleCommit, oftest.Reaction{Before: []byte{4, 2, 0, 7, 0, 0, 0, 0}, Ignore: true}),
			want: ofctrl.ErrUnknownOutcome, recorded: true, epoch: 2},
		{name: "asks for an echo", react: once(oftest.BundleOpen, oftest.Reaction{Before: []byte{4, 2, 0, 9, 1, 2, 3, 4, 5}}), recorded: true,
			epoch: 1},
		{name: "refuses a monitor", react: once(oftest.Monitor, oftest.Reaction{Error: ofp.IsSecondary}), recorded: true, epoch: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := oftest.NewFake(oftest.FakeOptions{React: tt.react})
			opts := quick(f.Listen(t))
			s := run(t, opts)
			s.ready()
			u := ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": flows(n)}}
			res, err := s.Apply(t.Context(), u)
			if tt.want == ofctrl.ErrNotConnected {
				// While it breaks, the connection's own error may be told.
				if err == nil {
					t.Error("Apply succeeded")
				}
			} else if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if err != nil {
				if res.Installed != 0 {
					t.Errorf("with %v: %+v", err, res)
				}
				if k := len(f.Flows()); k != 0 && (k != n || !errors.Is(err, ofctrl.ErrUnknownOutcome)) {
					t.Errorf("%d flows after %v", k, err)
				}
			}
			if want := map[bool]int{true: n}[tt.recorded]; s.State().Desired != want {
				t.Errorf("%d flows desired after %v, want %d", s.State().Desired, err, want)
			}
			s.until("connected as often as needed", func(st ofctrl.State) bool { return st.Epoch >= tt.epoch && st.Ready })
			u.Revision = 2
			if tt.recorded {
				u.Owners = nil
			}
			res = s.apply(u)
			if res.Installed != 2 || len(f.Flows()) != n {
				t.Errorf("second Apply: %+v, %d flows", res, len(f.Flows()))
			}
			st := s.State()
			if st.Epoch != tt.epoch || st.Stats.DecodeErrors != tt.decode || st.Missing != 0 || st.OurFlows != n {
				t.Errorf("in the end: %+v", st)
			}
		})
	}
}

// TestCommitOutlivesCaller cancels Apply while the switch is busy with the commit: the answer must count all the same.
func TestCommitOutlivesCaller(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	f := oftest.NewFake(oftest.FakeOptions{React: react(oftest.BundleCommit, func(n int, _ oftest.Request) oftest.Reaction {
		if n == 0 {
			cancel()
			return oftest.Reaction{Delay: 100 * time.Millisecond}
		}
		return oftest.Reaction{}
	})})
	s := run(t, quick(f.Listen(t)))
	s.ready()
	_, err := s.Apply(ctx, ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": flows(5)}})
	if !errors.Is(err, ofctrl.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	// The next one waits for the answer, and finds nothing to do.
	if res := s.apply(ofctrl.Update{Revision: 2}); res != (ofctrl.Result{Installed: 2}) {
		t.Errorf("next Apply: %+v", res)
	}
	if st := s.State(); st.Epoch != 1 || st.Stats.BundlesSent != 1 {
		t.Errorf("state: %+v", st)
	}
}

// TestProbe lets the switch fall silent.
func TestProbe(t *testing.T) {
	t.Parallel()
	var silent atomic.Bool
	f := oftest.NewFake(oftest.FakeOptions{React: func(r oftest.Request) oftest.Reaction {
		return oftest.Reaction{Ignore: r.Kind == oftest.Echo && silent.Load()}
	}})
	s := run(t, quick(f.Listen(t)))
	s.ready()
	if st := s.until("probed", func(ofctrl.State) bool { return f.Count(oftest.Echo) >= 3 }); st.Epoch != 1 { // two were answered
		t.Errorf("an idle connection that answers probes did not last: %+v", st)
	}
	silent.Store(true)
	s.until("given up", func(st ofctrl.State) bool { return st.Epoch >= 2 })
	silent.Store(false)
	s.ready()
}

// TestRefusedLater records a flow while disconnected that the switch then refuses: its owner is left out, others are not.
func TestRefusedLater(t *testing.T) {
	t.Parallel()
	bad := flow.Flow{Table: 9, Cookie: testCookie | 0xbad}
	f := oftest.NewFake(oftest.FakeOptions{React: react(oftest.BundleAdd, func(_ int, r oftest.Request) oftest.Reaction {
		if bytes.Contains(r.Body, []byte{0x0b, 0xad}) {
			return oftest.Reaction{Error: ofp.BadOutGroup}
		}
		return oftest.Reaction{}
	})})
	address := f.Listen(t)
	opts := quick(address)
	s, err := ofctrl.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Apply(t.Context(), ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"bad": append(flows(3), bad)}})
	if !errors.Is(err, ofctrl.ErrNotConnected) {
		t.Fatalf("before Run: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	r := &running{Switch: s, t: t}
	r.ready()

	good := flow.Flow{Table: 10, Cookie: testCookie}
	for i := range 2 {
		res, err := s.Apply(t.Context(), ofctrl.Update{Revision: int64(2 + i), Owners: map[string][]flow.Flow{"good": {good}}})
		var re *ofctrl.RequestError
		if i == 0 && (!errors.As(err, &re) || re.Owner != "bad" || res.Added != 1) {
			t.Errorf("with a bad flow of another owner: %+v, %v", res, err)
		}
		if i == 1 && (err != nil || res != (ofctrl.Result{})) {
			t.Errorf("told twice: %+v, %v", res, err)
		}
	}
	if st := s.State(); len(f.Flows()) != 1 || st.Missing != 4 || st.Err == "" || st.Installed != 0 {
		t.Errorf("%d flows, %+v", len(f.Flows()), st)
	}
	if res := r.apply(ofctrl.Update{Revision: 4, Owners: map[string][]flow.Flow{"bad": flows(3)}}); res.Added != 3 || res.Installed != 4 {
		t.Errorf("with the flow mended: %+v", res)
	}
}

// TestAudit is about a switch that reports no changes.
func TestAudit(t *testing.T) {
	t.Parallel()
	f := oftest.NewFake(oftest.FakeOptions{React: react(oftest.Monitor, func(int, oftest.Request) oftest.Reaction {
		return oftest.Reaction{Error: ofp.IsSecondary}
	})})
	opts := quick(f.Listen(t))
	opts.AuditInterval = 30 * time.Millisecond
	s := run(t, opts)
	if st := s.ready(); st.Monitored {
		t.Error("monitored")
	}
	s.apply(ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": flows(10)}})
	f.Reset()
	s.until("all missing", func(st ofctrl.State) bool { return st.Missing == 10 && st.OurFlows == 0 && st.Installed == 0 })
	if res := s.apply(ofctrl.Update{Revision: 2}); res.Added != 10 || res.Installed != 2 {
		t.Errorf("restored by %+v", res)
	}
}

// TestChangeDuringBundle lets somebody delete a flow between the plan that modifies it and the commit.
func TestChangeDuringBundle(t *testing.T) {
	t.Parallel()
	var f *oftest.Fake
	fs := flows(3)
	f = oftest.NewFake(oftest.FakeOptions{React: react(oftest.BundleCommit, func(n int, _ oftest.Request) oftest.Reaction {
		if n == 1 {
			if err := f.Change(ofp.FlowDeleteStrict, fs[1], ofp.FlowModOptions{}); err != nil {
				t.Error(err)
			}
		}
		return oftest.Reaction{}
	})})
	s := run(t, quick(f.Listen(t)))
	s.ready()
	s.apply(ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": fs}})
	changed := flows(3)
	for i := range changed {
		changed[i].Actions = nil
	}
	res := s.apply(ofctrl.Update{Revision: 2, Owners: map[string][]flow.Flow{"a": changed}})
	if want := (ofctrl.Result{Added: 1, Modified: 3, Bundles: 2, Installed: 2}); res != want {
		t.Errorf("result %+v, want %+v", res, want)
	}
	for _, fl := range f.Flows() {
		if len(fl.Actions) != 0 {
			t.Errorf("%s is not changed", fl.String())
		}
	}
	if n := len(f.Flows()); n != 3 {
		t.Errorf("%d flows, want 3", n)
	}
}

// TestMonitorPaused loses reports while the monitor is paused.
func TestMonitorPaused(t *testing.T) {
	t.Parallel()
	f := oftest.NewFake(oftest.FakeOptions{})
	s := run(t, quick(f.Listen(t)))
	s.ready()
	s.apply(ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": flows(10)}})
	paused := func(subtype uint32) []byte {
		return []byte{4, 4, 0, 16, 0, 0, 0, 0, 0x4f, 0x4e, 0x46, 0, 0, 0, byte(subtype >> 8), byte(subtype)}
	}
	f.Send(paused(1871))
	f.Reset() // nobody is told
	f.Send(paused(1872))
	s.until("all missing", func(st ofctrl.State) bool { return st.Missing == 10 && st.Stats.Resyncs == 2 })
}
