package ofctrl_test

import (
	"iter"
	"slices"
	"sync"
	"testing"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// TestReplacingResetsCounters: a flow with another cookie in the place of an old one means something else and counts from 0; whoever
// keeps accounts is told of it in the order in which the switch did things.
func TestReplacingResetsCounters(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	o.AddPort("br0", "p1", 1)
	o.AddPort("br0", "p2", 2)
	var mu sync.Mutex
	var told []string
	var readBack []uint64
	tell := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, what)
	}
	opt := options(o.MgmtAddr("br0"))
	opt.OnCommit = func(changed iter.Seq[*flow.Flow]) {
		for f := range changed {
			tell(f.String())
		}
		tell("commit")
	}
	opt.OnReadBack = func(f *ofp.FlowStats) {
		mu.Lock()
		defer mu.Unlock()
		if f == nil {
			told = append(told, "read back")
		} else {
			readBack = append(readBack, f.Stats.Packets)
		}
	}
	s := run(t, opt)
	s.ready()
	f := flow.Flow{Priority: 5, Cookie: testCookie | 1, Actions: []flow.Action{flow.Output{Port: 2}}}
	other := flow.Flow{Table: 7, Cookie: testCookie | 3}
	s.apply(ofctrl.Update{Owners: map[string][]flow.Flow{"a": {f, other}}})
	inject := func(n int) {
		for range n {
			o.InjectPacket("p1", make([]byte, 64))
		}
	}
	read := func() (packets uint64) {
		ends := 0
		both := []ofp.FlowFilter{{Table: ofp.AllTables, Cookie: uint64(testCookie | 1), CookieMask: ^uint64(1)}, {Table: 7}}
		if err := s.ReadFlows(t.Context(), both, func(f *ofp.FlowStats) { packets += f.Stats.Packets }, func() { ends++ }); err != nil ||
			ends != 2 {
			t.Fatalf("%d readings ended (%v)", ends, err)
		}
		return packets
	}
	inject(3)
	s.until("3 packets counted", func(ofctrl.State) bool { return read() == 3 })

	g := f
	g.Cookie = testCookie
	g.Actions = nil
	if res := s.apply(ofctrl.Update{Owners: map[string][]flow.Flow{"a": {g}}}); res.Added != 1 || res.Modified != 0 || res.Deleted != 1 {
		t.Fatalf("%+v", res)
	}
	if n := read(); n != 0 {
		t.Errorf("the new flow counts %d packets of the old one", n)
	}
	inject(2)
	s.until("2 packets counted", func(ofctrl.State) bool { return read() == 2 })
	s.end()

	mu.Lock()
	defer mu.Unlock()
	gone := flow.Flow{Table: other.Table, Cookie: testCookie} // named by its place alone
	g.Flags = flow.ResetCounts
	want := []string{"read back", f.String(), other.String(), "commit", g.String(), gone.String(), "commit"}
	for _, bundle := range [][2]int{{1, 3}, {4, 6}} { // their order says nothing
		slices.Sort(told[bundle[0]:min(bundle[1], len(told))])
		slices.Sort(want[bundle[0]:bundle[1]])
	}
	if !slices.Equal(told, want) {
		t.Errorf("told\n%q, want\n%q", told, want)
	}
	if len(readBack) != 0 {
		t.Errorf("flows were read back from an empty switch: %d", readBack)
	}
}
