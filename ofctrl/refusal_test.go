package ofctrl_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/oftest"
)

// badBit in a cookie makes refusingSwitch refuse the flow.
const badBit = 1 << 30

// refusingSwitch is a switch that refuses flows by their cookies, as they are put into a bundle or by failing its commit, until it is
// told to take all.
type refusingSwitch struct {
	*oftest.Fake
	mu       sync.Mutex
	lenient  bool
	atCommit bool
	bad      uint32 // transaction id of the first bad flow of the bundle; 0 = none
}

func newRefusingSwitch() *refusingSwitch {
	p := &refusingSwitch{}
	p.Fake = oftest.NewFake(oftest.FakeOptions{React: func(r oftest.Request) oftest.Reaction {
		p.mu.Lock()
		defer p.mu.Unlock()
		const cookie, command = 16 + 8, 16 + 25 // in the body of a bundle-add
		switch {
		case r.Kind == oftest.BundleOpen:
			p.bad = 0
		case p.lenient:
		case r.Kind == oftest.BundleAdd && r.Body[command] != byte(ofp.FlowDeleteStrict) && binary.BigEndian.Uint64(r.Body[cookie:])&badBit != 0:
			if !p.atCommit {
				return oftest.Reaction{Error: ofp.TableFull}
			}
			if p.bad == 0 {
				p.bad = r.XID
			}
		case r.Kind == oftest.BundleCommit && p.bad != 0:
			return oftest.Reaction{FailXID: p.bad, Fail: ofp.TableFull}
		}
		return oftest.Reaction{}
	}})
	return p
}

func (p *refusingSwitch) takeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lenient = true
}

// ofOwner are n flows in places that no other owner has, some of them bad.
func ofOwner(owner, version, n int, bad ...int) []flow.Flow {
	fs := make([]flow.Flow, n)
	for i := range fs {
		fs[i] = flow.Flow{
			Table: 205, Priority: uint16(1 + owner*100 + version*n/2 + i), Cookie: testCookie | flow.Cookie(version),
			Actions: []flow.Action{flow.Output{Port: uint32(1 + i)}},
		}
		if slices.Contains(bad, i) {
			fs[i].Cookie |= badBit
		}
	}
	return fs
}

// refusedOwners returns the owners of an Apply's refusals, sorted, after checking each.
func refusedOwners(t *testing.T, res ofctrl.Result, err error) (names []string) {
	t.Helper()
	if res.Refused == nil {
		if err != nil {
			t.Errorf("Apply: %v", err)
		}
		return nil
	}
	if err != error(res.Refused) || !errors.Is(err, ofctrl.ErrRejected) {
		t.Errorf("Apply: %v", err)
	}
	for _, r := range res.Refused.Refusals {
		var e *ofctrl.RequestError
		if !errors.As(r.Err, &e) || e.Owner != r.Owner || e.Object != r.Flow.String() || e.Err.Code != ofp.TableFull ||
			r.Flow.Cookie&badBit == 0 {
			t.Errorf("refusal of %s: %s: %v", r.Owner, r.Flow.String(), r.Err)
		}
		names = append(names, r.Owner)
	}
	slices.Sort(names)
	return names
}

// TestRefusals has the switch refuse one or two flows of some of six owners, in every position: the others' changes are in force, and each
// refused owner has what it had, until the switch takes what it is to have.
func TestRefusals(t *testing.T) {
	t.Parallel()
	const owners, n = 6, 4
	for _, atCommit := range []bool{false, true} {
		for set := range 1 << owners {
			if atCommit && set%5 != 1 {
				continue
			}
			t.Run(fmt.Sprintf("commit=%v,owners=%06b", atCommit, set), func(t *testing.T) {
				t.Parallel()
				p := newRefusingSwitch()
				p.atCommit = atCommit
				s := run(t, quick(p.Listen(t)))
				s.ready()
				before, after, mixed := map[string][]flow.Flow{}, map[string][]flow.Flow{}, []flow.Flow{}
				var refused []string
				sum := map[string][]flow.Flow{}
				for o := range owners {
					name := fmt.Sprint("owner", o)
					if o > 0 { // which had nothing before
						before[name] = ofOwner(o, 0, n)
					}
					after[name] = ofOwner(o, 1, n)
					sum[name] = after[name]
					if set>>o&1 == 1 {
						bad := (set + o) % n
						after[name] = ofOwner(o, 1, n, bad, (bad+set%2)%n)
						refused = append(refused, name)
						sum[name] = before[name]
					}
					mixed = append(mixed, sum[name]...)
				}
				before["gone"], after["gone"] = ofOwner(owners, 0, n), nil
				s.apply(ofctrl.Update{Revision: 1, Owners: before})
				res, err := s.Apply(t.Context(), ofctrl.Update{Revision: 2, Owners: after})
				if diff := cmp.Diff(refused, refusedOwners(t, res, err)); diff != "" {
					t.Errorf("refused (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(texts(mixed), texts(p.Flows())); diff != "" {
					t.Errorf("installed (-want +got):\n%s", diff)
				}
				st := s.State()
				if st.Missing != 0 || st.Desired != len(mixed) || (st.Err != "") != (len(refused) > 0) || (st.Installed == 2) != (len(refused) == 0) {
					t.Errorf("with refusals: %+v", st)
				}
				if bundles := st.Stats.BundlesSent; !atCommit && len(refused) > 0 && bundles != 3 {
					t.Errorf("%d bundles instead of 3", bundles)
				}
				for name, want := range sum {
					if diff := cmp.Diff(texts(want), texts(s.Desired(name))); diff != "" {
						t.Errorf("desired of %s (-want +got):\n%s", name, diff)
					}
				}
				if res := s.apply(ofctrl.Update{Revision: 2}); res.Bundles != 0 {
					t.Errorf("again: %+v", res)
				}
				p.takeAll()
				again := map[string][]flow.Flow{}
				var all []flow.Flow
				for name, fs := range after {
					all = append(all, fs...)
					if slices.Contains(refused, name) {
						again[name] = fs
					}
				}
				if res := s.apply(ofctrl.Update{Revision: 3, Owners: again}); res.Installed != 3 {
					t.Errorf("in the end: %+v", res)
				}
				if diff := cmp.Diff(texts(all), texts(p.Flows())); diff != "" {
					t.Errorf("in the end (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestRefusedPlaces: what a refused owner had gives way where others have its places now, and what others had goes where they gave it up.
func TestRefusedPlaces(t *testing.T) {
	t.Parallel()
	p := newRefusingSwitch()
	s := run(t, quick(p.Listen(t)))
	s.ready()
	bad := place(20, 0)
	bad.Cookie |= badBit
	s.apply(ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{
		"a": {place(1, 0), place(2, 0), place(3, 0), place(8, 0)}, "b": {place(4, 0), place(5, 0)},
	}})
	res, err := s.Apply(t.Context(), ofctrl.Update{Revision: 2, Owners: map[string][]flow.Flow{
		"a": {bad, place(4, 2), place(5, 0), place(7, 0), place(8, 2)}, // takes both places of b, one of them with its flow
		"b": {place(1, 2), place(7, 0), place(8, 2)},                   // takes one place of a, and shares two with it
		"c": {place(2, 0)},                                             // takes one with its flow
	}})
	if got := refusedOwners(t, res, err); !slices.Equal(got, []string{"a"}) {
		t.Errorf("refused: %v", got)
	}
	want := []flow.Flow{place(1, 2), place(2, 0), place(3, 0), place(5, 0), place(7, 0), place(8, 2)}
	if diff := cmp.Diff(texts(want), texts(p.Flows())); diff != "" {
		t.Errorf("installed (-want +got):\n%s", diff)
	}
	if res := s.apply(ofctrl.Update{Revision: 3, Owners: map[string][]flow.Flow{"a": nil}}); res.Deleted != 2 || res.Installed != 3 {
		t.Errorf("without the refused owner: %+v", res)
	}
}

// TestRandomRefusals gives random flows, bad ones among them, to owners that take each other's places. What is refused and what is in
// force must be what Apply says, and nothing may be left behind.
func TestRandomRefusals(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 2))
			p := newRefusingSwitch()
			s := run(t, quick(p.Listen(t)))
			s.ready()
			steps := 0
			for step := range 300 {
				u := ofctrl.Update{Revision: int64(step), Owners: map[string][]flow.Flow{}}
				for n := range 24 {
					name := fmt.Sprint("owner", r.IntN(4))
					f := place(n, r.IntN(4))
					if r.IntN(12) == 0 {
						f.Cookie |= badBit
					}
					if r.IntN(2) == 0 {
						u.Owners[name] = append(u.Owners[name], f)
					}
					if other := fmt.Sprint("owner", r.IntN(4)); r.IntN(8) == 0 && other != name {
						u.Owners[other] = append(u.Owners[other], f)
					}
				}
				res, err := s.Apply(t.Context(), u)
				if errors.Is(err, ofctrl.ErrConflict) {
					continue
				}
				steps++
				refused := refusedOwners(t, res, err)
				var want []flow.Flow
				seen := map[string]bool{}
				for _, name := range s.Owners() {
					for _, f := range s.Desired(name) {
						if !seen[f.String()] {
							seen[f.String()] = true
							want = append(want, f)
						}
					}
				}
				if diff := cmp.Diff(texts(want), texts(p.Flows())); diff != "" {
					t.Fatalf("step %d: installed (-desired +got):\n%s", step, diff)
				}
				for name, fs := range u.Owners {
					bad := slices.ContainsFunc(fs, func(f flow.Flow) bool { return f.Cookie&badBit != 0 })
					if bad != slices.Contains(refused, name) || !bad && !cmp.Equal(texts(fs), texts(s.Desired(name))) {
						t.Fatalf("step %d: %s, refused: %v", step, name, refused)
					}
				}
				if st := s.State(); st.Missing != 0 || st.Desired != len(want) {
					t.Fatalf("step %d: %+v", step, st)
				}
			}
			if steps < 100 {
				t.Errorf("only %d of 300 updates without a conflict", steps)
			}
		})
	}
}

// TestManyRefused: one attempt finds all owners that are refused as they are put into the bundle.
func TestManyRefused(t *testing.T) {
	t.Parallel()
	const owners, n = 90, 100
	p := newRefusingSwitch()
	s := run(t, quick(p.Listen(t)))
	s.ready()
	update := map[string][]flow.Flow{}
	var good []flow.Flow
	for o := range owners {
		fs := ofOwner(o, 0, n)
		for i := range fs { // so long that the first refusals come before the last flow is on its way
			fs[i].Actions = slices.Repeat(fs[i].Actions, 50)
		}
		if o%9 == 0 {
			good = append(good, fs...)
		} else {
			fs[o].Cookie |= badBit
			fs[n-1].Cookie |= badBit
		}
		update[fmt.Sprint(o)] = fs
	}
	res, err := s.Apply(t.Context(), ofctrl.Update{Revision: 1, Owners: update})
	if got := refusedOwners(t, res, err); len(got) != owners-len(good)/n || s.State().Stats.BundlesSent != 2 || res.Added != len(good) {
		t.Errorf("%d refused, %+v, %+v", len(got), res, s.State().Stats)
	}
	if diff := cmp.Diff(texts(good), texts(p.Flows())); diff != "" {
		t.Errorf("installed (-want +got):\n%s", diff)
	}
}

// TestTooLong: a flow that fits a flow-mod and not the bundle message around it is refused as one that the switch refuses.
func TestTooLong(t *testing.T) {
	t.Parallel()
	f := oftest.NewFake(oftest.FakeOptions{})
	s := run(t, quick(f.Listen(t)))
	s.ready()
	long := place(1, 0)
	long.Actions = make([]flow.Action, 4090)
	for i := range long.Actions {
		long.Actions[i] = flow.Output{Port: 1}
	}
	res, err := s.Apply(t.Context(), ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{
		"long": {place(2, 0), long}, "short": {place(3, 0)},
	}})
	if !errors.Is(err, ofctrl.ErrInvalid) || !errors.Is(err, ofp.ErrLength) || res.Refused == nil ||
		len(res.Refused.Refusals) != 1 || res.Refused.Refusals[0].Owner != "long" {
		t.Errorf("%+v, %.200v", res, err)
	}
	if diff := cmp.Diff(texts([]flow.Flow{place(3, 0)}), texts(f.Flows())); diff != "" {
		t.Errorf("installed (-want +got):\n%s", diff)
	}
}

// TestRefusalsOVS does with Open vSwitch what TestRefusals does with the fake.
func TestRefusalsOVS(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	s := run(t, options(o.MgmtAddr("br0")))
	s.ready()
	bad := func(owner int) []flow.Flow {
		fs := ofOwner(owner, 1, 4)
		fs[owner%4].Actions = []flow.Action{flow.Group{ID: 4711}}
		return fs
	}
	s.apply(ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{
		"a": ofOwner(0, 0, 4), "b": ofOwner(1, 0, 4), "gone": ofOwner(2, 0, 4), "d": ofOwner(3, 0, 4),
	}})
	res, err := s.Apply(t.Context(), ofctrl.Update{Revision: 2, Owners: map[string][]flow.Flow{
		"a": bad(0), "b": ofOwner(1, 1, 4), "gone": nil, "d": bad(3), "e": bad(4),
	}})
	if !errors.Is(err, ofp.BadOutGroup) || res.Refused == nil || len(res.Refused.Refusals) != 3 || strings.Count(err.Error(), "4711") < 3 {
		t.Errorf("Apply: %+v, %v", res, err)
	}
	var got []flow.Flow
	for _, name := range s.Owners() {
		got = append(got, s.Desired(name)...)
	}
	if diff := cmp.Diff(texts(slices.Concat(ofOwner(0, 0, 4), ofOwner(1, 1, 4), ofOwner(3, 0, 4))), texts(got)); diff != "" {
		t.Errorf("desired (-want +got):\n%s", diff)
	}
	s.end()
	again := run(t, options(o.MgmtAddr("br0")))
	again.ready()
	if res := again.apply(ofctrl.Update{Revision: 3, Owners: map[string][]flow.Flow{"all": got}}); res != (ofctrl.Result{Installed: 3}) {
		t.Errorf("the switch holds something else: %+v", res)
	}
}

// TestOnItsWay: what an Apply is about to change is not missing meanwhile, but what was missing before and what others take is.
func TestOnItsWay(t *testing.T) {
	t.Parallel()
	asked, release := make(chan struct{}), make(chan struct{})
	f := oftest.NewFake(oftest.FakeOptions{React: react(oftest.BundleCommit, func(n int, _ oftest.Request) oftest.Reaction {
		if n == 1 {
			close(asked)
			<-release
		}
		return oftest.Reaction{}
	})})
	address := f.Listen(t)
	done := sync.OnceFunc(func() { close(release) })
	t.Cleanup(done)
	opts := quick(address)
	opts.ProbeInterval = -1
	s := run(t, opts)
	s.ready()
	s.apply(ofctrl.Update{Revision: 1, Meters: []flow.MeterDesc{dropMeter(100, 5)}, Owners: map[string][]flow.Flow{
		"a": {place(1, 0), place(2, 0)}, "b": {place(3, 0), place(4, 0)}, "c": {place(5, 0)},
	}})
	del := func(n int) {
		t.Helper()
		if err := f.Change(ofp.FlowDeleteStrict, place(n, 0), ofp.FlowModOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	del(1)
	s.until("one missing", func(st ofctrl.State) bool { return st.Missing == 1 })
	var wg sync.WaitGroup
	wg.Go(func() {
		res, err := s.Apply(t.Context(), ofctrl.Update{Revision: 2, Meters: []flow.MeterDesc{dropMeter(101, 5)}, Owners: map[string][]flow.Flow{
			"a": {place(1, 0), place(2, 1), place(6, 0)}, "b": nil, "d": {place(7, 0)},
		}})
		if err != nil || res.Installed != 2 {
			t.Errorf("%+v, %v", res, err)
		}
	})
	<-asked
	if st := s.State(); st.Missing != 1 || st.Desired != 5 {
		t.Errorf("under way: %+v", st)
	}
	del(5)
	s.until("two missing", func(st ofctrl.State) bool { return st.Missing == 2 })
	done()
	wg.Wait()
	if st := s.State(); st.Missing != 0 || len(f.Flows()) != 5 {
		t.Errorf("in the end: %+v", st)
	}
}
