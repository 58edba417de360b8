package host

import (
	"testing"
	"time"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// TestEndings: flows are armed once what is left fits; handed over again they keep their timeouts; what is lost, changed or goes at another
// time than it should gets what is left; what an earlier process armed stays.
func TestEndings(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	up := ofctrl.State{Ready: true}
	one, two := flow.Flow{Table: 1, Cookie: 1}, flow.Flow{Table: 2, Cookie: 1}
	start := func() *firewall {
		return &firewall{bridge: &bridge{link: &link{}}, endings: endings{owners: map[string]ending{}, stamps: map[flow.Key]stamp{}}}
	}
	w := start()
	end := now.Add(24 * time.Hour)
	compile := func(flows ...flow.Flow) {
		ch := wall.Changes{Owners: map[string][]flow.Flow{"policy/p": flows}, Ends: map[string]int64{}}
		if !end.IsZero() {
			ch.Ends["policy/p"] = end.UnixMilli()
		}
		w.tendEndings(up, now)
		w.wantEnding(ch, now)
	}
	is := func(what string, want ...uint16) {
		t.Helper()
		var got []uint16
		for _, f := range w.owners["policy/p"] {
			got = append(got, f.HardTimeout)
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %d, want %d", what, got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s: %d, want %d", what, got, want)
			}
		}
	}
	compile(one)
	is("too far off", 0)
	now = end.Add(-10*time.Hour - 500*time.Millisecond)
	if !w.due(now) {
		t.Error("it is not time to arm")
	}
	w.tendEndings(up, now)
	is("armed", 36001)
	if w.due(now) {
		t.Error("it is armed, and time to arm again")
	}
	now = now.Add(time.Hour)
	compile(one, two)
	is("one more", 36001, 32401)
	two.Actions = []flow.Action{flow.CTClear{}}
	now = now.Add(time.Hour)
	compile(one, two)
	is("one changed", 36001, 28801)
	now = now.Add(time.Hour)
	w.tendEndings(ofctrl.State{Ready: true, Lost: 1}, now)
	is("something lost", 25201, 25201)

	// The next process, on a switch that has one of the two.
	w = start()
	now = now.Add(time.Hour)
	kept := one
	kept.HardTimeout = 25201
	w.timeouts.readBack(&kept, 0)
	w.timeouts.readBack(nil, 0)
	found := w.timeouts.take()
	s := found[one.Key()]
	s.goes = end
	found[one.Key()] = s
	w.timeouts.found = found
	compile(one, two)
	is("read back", 25201, 21601)

	end = end.Add(-time.Hour) // as if the clock was set by an hour
	compile(one, two)
	is("the clock was set", 18001, 18001)
	end = time.Time{}
	compile(one, two)
	is("without end", 0, 0)
	if len(w.endings.owners) != 0 || w.due(now.Add(time.Hour)) {
		t.Error("what does not end is still armed")
	}
}
