package host

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/policy/compile/wall"
)

func TestStrays(t *testing.T) {
	a, b := address{10, "02:00:00:00:00:01"}, address{10, "02:00:00:00:00:02"}
	now := time.Now()
	var s strays
	claims, drops := map[address]string{}, map[string]bool{}
	start := func() {
		s = strays{seen: map[string]map[address]time.Time{}, holders: map[address]*holder{}}
		clear(claims)
		clear(drops)
	}
	note := func(key string, at address) { s.note(key, at, drops[key], now) }
	check := func(what string, want map[string][]wall.Stray) {
		t.Helper()
		got := s.flows(func(key string) bool { return drops[key] }, func() map[address]string { return claims })
		for key, x := range got {
			if len(x) == 0 {
				delete(got, key)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", what, diff)
		}
	}
	bound, quiet := []wall.Stray{{MAC: a.mac, VLAN: 10, Bound: true}}, []wall.Stray{{MAC: a.mac, VLAN: 10}}
	all := func(string, address) bool { return true }

	start()
	note("e1", a)
	check("seen", map[string][]wall.Stray{"e1": bound})
	note("e2", a)
	check("it moves", map[string][]wall.Stray{"e2": bound})
	note("", a)
	check("a station that is no endpoint has it", map[string][]wall.Stray{})
	note("e1", a)
	check("it is back", map[string][]wall.Stray{"e1": bound})
	for range maxStrayMoves {
		note("e2", a)
		note("e1", a)
	}
	check("two use it in turn", map[string][]wall.Stray{"e1": quiet, "e2": quiet})
	now = now.Add(strayAge / 2)
	note("e1", a)
	now = now.Add(strayAge/2 + time.Second)
	s.forget(now, all)
	check("the other has gone", map[string][]wall.Stray{"e1": bound})
	if s.next.IsZero() || s.next.After(now.Add(strayAge)) {
		t.Errorf("looks again at %v, now is %v", s.next, now)
	}
	now = now.Add(strayAge)
	s.forget(now, all)
	check("old", map[string][]wall.Stray{})
	if !s.next.IsZero() || len(s.holders) > 0 || len(s.seen) > 0 {
		t.Errorf("something is left: %+v", &s)
	}

	start()
	claims[address{anyVLAN, a.mac}], claims[address{11, b.mac}] = "somebody", "somebody"
	note("e1", a)
	note("e1", b)
	check("somebody's address", map[string][]wall.Stray{"e1": {quiet[0], {MAC: b.mac, VLAN: 10, Bound: true}}})
	s.forget(now, func(_ string, x address) bool { return x != b })
	check("declared since", map[string][]wall.Stray{"e1": quiet})

	start()
	drops["e2"] = true
	note("e1", a)
	note("e2", a)
	check("what is dropped takes nothing", map[string][]wall.Stray{"e1": bound, "e2": quiet})

	start()
	for i := range 100 {
		note("e1", address{i, a.mac})
	}
	nobody := func() map[address]string { return nil }
	if n := len(s.flows(func(string) bool { return false }, nobody)["e1"]); n != wall.MaxStrays || len(s.holders) != wall.MaxStrays {
		t.Errorf("a flood leaves %d addresses", n)
	}
	var seen sightings
	for i := range 2 * maxSightings {
		seen.report(sighting{uint32(i), a}, false)
	}
	if n := len(seen.take()); n != maxSightings {
		t.Errorf("a flood leaves %d reports", n)
	}
	// What was seen anew is not made old news by its counter.
	seen.report(sighting{1, a}, true)
	seen.report(sighting{1, a}, false)
	seen.report(sighting{1, a}, true)
	seen.report(sighting{2, a}, true)
	if diff := cmp.Diff(map[string]bool{"1": false, "2": true}, func() map[string]bool {
		out := map[string]bool{}
		for x, used := range seen.take() {
			out[string(rune('0'+x.endpoint))] = used
		}
		return out
	}()); diff != "" {
		t.Error(diff)
	}
}
