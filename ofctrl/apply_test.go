package ofctrl_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"weak"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/oftest"
)

func texts(fs []flow.Flow) []string {
	out := make([]string, len(fs))
	for i, f := range fs {
		f.Flags &^= flow.ResetCounts // of its flow-mod, not of the flow
		out[i] = f.String()
	}
	slices.Sort(out)
	return out
}

// place is a flow in one of few places with one of few contents.
func place(n, variant int) flow.Flow {
	return flow.Flow{
		Table: uint8(n % 3), Priority: uint16(n), Cookie: testCookie | flow.Cookie(variant/2),
		Match:   flow.Match{}.With(flow.Reg(0), flow.U64(uint64(n))),
		Actions: []flow.Action{flow.Output{Port: uint32(1 + variant)}},
	}
}

func TestRefusedUpdates(t *testing.T) {
	t.Parallel()
	f := oftest.NewFake(oftest.FakeOptions{})
	s := run(t, quick(f.Listen(t)))
	s.ready()
	s.apply(ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": {place(1, 0), place(2, 0)}, "b": {place(3, 0)}}})
	want := texts(f.Flows())
	tests := []struct {
		name   string
		owners map[string][]flow.Flow
		want   error
		words  []string
	}{
		{"conflict with another owner", map[string][]flow.Flow{"c": {place(9, 0), place(1, 1)}}, ofctrl.ErrConflict, []string{"a wants",
			"c wants", "output:2"}},
		{"conflict within the update", map[string][]flow.Flow{"c": {place(9, 0)}, "d": {place(9, 1)}}, ofctrl.ErrConflict, []string{"c wants",
			"d wants"}},
		{"conflict with itself", map[string][]flow.Flow{"a": {place(9, 0), place(9, 1)}}, ofctrl.ErrConflict, []string{"a wants"}},
		{"foreign cookie", map[string][]flow.Flow{"b": {{Table: 1, Cookie: 1}}}, ofctrl.ErrInvalid, []string{"of b", "cookie"}},
		{"cannot be encoded", map[string][]flow.Flow{"a": nil, "b": {{Cookie: testCookie, Importance: 1}}}, ofctrl.ErrInvalid,
			[]string{"of b", "importance"}},
	}
	for _, tt := range tests {
		_, err := s.Apply(t.Context(), ofctrl.Update{Revision: 2, Owners: tt.owners})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		for _, w := range tt.words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q is not in %q", tt.name, w, err)
			}
		}
		st := s.State()
		if diff := cmp.Diff(want, texts(f.Flows())); diff != "" || st.Missing != 0 || st.Desired != 3 || st.Installed != 1 ||
			st.Stats.BundlesSent != 1 {
			t.Errorf("%s: %+v (-want +got):\n%s", tt.name, st, diff)
		}
		if got := s.Owners(); len(got) != 2 || len(s.Desired("a")) != 2 || s.Desired("c") != nil {
			t.Errorf("%s: owners %v", tt.name, got)
		}
	}
	// A flow may move from one owner to another in one update, and nothing is sent for it.
	res := s.apply(ofctrl.Update{Revision: 3, Owners: map[string][]flow.Flow{"a": {place(1, 0)}, "c": {place(2, 0)}}})
	if res != (ofctrl.Result{Installed: 3}) {
		t.Errorf("move: %+v", res)
	}
	// Two owners may want the same; it goes with the last.
	s.apply(ofctrl.Update{Revision: 4, Owners: map[string][]flow.Flow{"d": {place(1, 0)}}})
	if res := s.apply(ofctrl.Update{Revision: 5, Owners: map[string][]flow.Flow{"a": nil}}); res != (ofctrl.Result{Installed: 5}) {
		t.Errorf("one of two owners goes: %+v", res)
	}
	if res := s.apply(ofctrl.Update{Revision: 6, Owners: map[string][]flow.Flow{"d": nil}}); res != (ofctrl.Result{Deleted: 1, Bundles: 1,
		Installed: 6}) {
		t.Errorf("both are gone: %+v", res)
	}
}

// TestRandom applies random updates while others change, take and delete flows, and connections break. A model says what
// must stand in the end.
func TestRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 1))
			f := oftest.NewFake(oftest.FakeOptions{})
			s := run(t, quick(f.Listen(t)))
			s.ready()
			model := map[string][]flow.Flow{}
			claimed := func(n int, but string) (flow.Flow, bool) {
				for name, fs := range model {
					for _, fl := range fs {
						if name != but && int(fl.Priority) == n {
							return fl, true
						}
					}
				}
				return flow.Flow{}, false
			}
			for step := range 400 {
				switch k := r.IntN(20); {
				case k < 12:
					name := fmt.Sprint("owner", r.IntN(4))
					var fs []flow.Flow
					for n := range 24 {
						if r.IntN(3) > 0 {
							continue
						}
						fl := place(n, r.IntN(4))
						if other, ok := claimed(n, name); ok {
							fl = other // the same as another owner wants, or a conflict
						}
						fs = append(fs, fl)
					}
					model[name] = fs
					_, err := s.Apply(t.Context(), ofctrl.Update{Revision: int64(step), Owners: map[string][]flow.Flow{name: fs}})
					if err != nil && !errors.Is(err, ofctrl.ErrNotConnected) && !errors.Is(err, ofctrl.ErrUnknownOutcome) &&
						!errors.Is(err, ofctrl.ErrForeignFlow) {
						// The connection may break at any point; what stands in the end counts.
						if errors.Is(err, ofctrl.ErrRejected) || errors.Is(err, ofctrl.ErrConflict) || errors.Is(err, ofctrl.ErrInvalid) {
							t.Fatalf("step %d: %v", step, err)
						}
					}
				case k < 14:
					_ = f.Change(ofp.FlowDeleteStrict, place(r.IntN(24), 0), ofp.FlowModOptions{})
				case k < 16:
					fl := place(r.IntN(24), 3)
					fl.Actions = nil
					_ = f.Change(ofp.FlowModifyStrict, fl, ofp.FlowModOptions{})
				case k < 17: // a stray with our cookie
					_ = f.Change(ofp.FlowAdd, flow.Flow{Table: 7, Priority: uint16(r.IntN(5)), Cookie: testCookie}, ofp.FlowModOptions{})
				case k < 18: // a foreign flow, perhaps in our place, for a while
					fl := place(r.IntN(24), 0)
					fl.Cookie = 0x99
					_ = f.Change(ofp.FlowAdd, fl, ofp.FlowModOptions{})
				default:
					epoch := s.State().Epoch
					if k == 19 {
						f.Reset()
					}
					f.Disconnect()
					if r.IntN(4) > 0 { // otherwise the next steps meet a dead connection
						s.until("connected again", func(st ofctrl.State) bool { return st.Epoch > epoch && st.Ready })
					}
				}
			}
			_ = f.Change(ofp.FlowDelete, flow.Flow{Table: ofp.AllTables, Cookie: 0x99}, ofp.FlowModOptions{CookieMask: ^uint64(0)})
			_ = f.Change(ofp.FlowAdd, flow.Flow{Table: 9, Cookie: 0x99}, ofp.FlowModOptions{})
			var res ofctrl.Result
			s.until("in sync", func(ofctrl.State) bool {
				if s.Barrier(t.Context()) != nil { // behind the last report of a change
					return false
				}
				var err error
				res, err = s.Apply(t.Context(), ofctrl.Update{Revision: 1000})
				return err == nil && res.Installed == 1000
			})
			want := []flow.Flow{{Table: 9, Cookie: 0x99}}
			seen := map[uint16]bool{}
			for _, fs := range model {
				for _, fl := range fs {
					if !seen[fl.Priority] {
						seen[fl.Priority] = true
						want = append(want, fl)
					}
				}
			}
			if diff := cmp.Diff(texts(want), texts(f.Flows())); diff != "" {
				t.Errorf("in the end (-want +got):\n%s", diff)
			}
			st := s.State()
			if st.Desired != len(seen) || st.OurFlows != len(seen) || st.ForeignFlows != 1 || st.Missing != 0 || st.Blocked != 0 {
				t.Errorf("figures for %d flows: %+v", len(seen), st)
			}
			t.Logf("%d connections, %+v", st.Epoch, st.Stats)
		})
	}
}

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in, method, address string
		bad                 bool
	}{
		{in: "unix:/run/x.mgmt", method: "unix", address: "/run/x.mgmt"},
		{in: "tcp:192.0.2.1:6653", method: "tcp", address: "192.0.2.1:6653"},
		{in: "ssl:[2001:db8::1]:6653", method: "ssl", address: "[2001:db8::1]:6653"},
		{in: "", bad: true},
		{in: "unix:", bad: true},
		{in: "tcp:192.0.2.1", bad: true},
		{in: "tcp::6653", bad: true},
		{in: "tcp:192.0.2.1:", bad: true},
		{in: "tcp:2001:db8::1:6653", bad: true},
		{in: "ptcp:6653:x", bad: true},
	} {
		method, address, err := ofctrl.ParseAddress(tt.in)
		if method != tt.method || address != tt.address || errors.Is(err, ofctrl.ErrInvalid) != tt.bad {
			t.Errorf("%q: %q, %q, %v", tt.in, method, address, err)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		edit func(*ofctrl.Options)
	}{
		{"no bridge", func(o *ofctrl.Options) { o.Bridge = "" }},
		{"bad address", func(o *ofctrl.Options) { o.Address = "x" }},
		{"ssl without TLS", func(o *ofctrl.Options) { o.Address = "ssl:h:1" }},
		{"no cookie mask", func(o *ofctrl.Options) { o.CookieMask = 0 }},
		{"meters the wrong way round", func(o *ofctrl.Options) { o.MeterFirst, o.MeterLast = 2, 1 }},
		{"meters from 0", func(o *ofctrl.Options) { o.MeterFirst, o.MeterLast = 0, 1 }},
		{"foreign nudge flow", func(o *ofctrl.Options) { o.NudgeFlow.Cookie = 1 }},
	} {
		opts := options("unix:/x")
		tt.edit(&opts)
		if _, err := ofctrl.New(opts); err == nil {
			t.Errorf("%s: accepted", tt.name)
		}
	}
}

// What was desired once is not held on to: changes for months would add up.
func TestReplacedFlowsAreForgotten(t *testing.T) {
	t.Parallel()
	f := oftest.NewFake(oftest.FakeOptions{})
	s := run(t, quick(f.Listen(t)))
	s.ready()
	var before []weak.Pointer[flow.Flow]
	for revision := range 10 {
		flows := []flow.Flow{place(1, revision), place(2+revision, 0)}
		before = append(before, weak.Make(&flows[0]))
		s.apply(ofctrl.Update{Revision: int64(revision + 1), Owners: map[string][]flow.Flow{"a": flows}})
	}
	for end := time.Now().Add(10 * time.Second); ; {
		runtime.GC()
		held := slices.DeleteFunc(slices.Clone(before[:9]), func(p weak.Pointer[flow.Flow]) bool { return p.Value() == nil })
		if len(held) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the flows of %d of 9 earlier updates are still there", len(held))
		}
	}
	if before[9].Value() == nil {
		t.Error("the flows that are desired are gone")
	}
}
