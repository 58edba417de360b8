package ofctrl

import (
	"testing"
	"time"
)

// Packet-ins wait for others only while they come thick and fast, and the less the more there are of them.
func TestGathering(t *testing.T) {
	g := gathering{wait: gatherFirst}
	now := time.Duration(0)
	step := func(after time.Duration, n int) time.Duration {
		now += after
		g.n = n
		return g.next(now)
	}
	if d := step(time.Second, 1); d != 0 {
		t.Errorf("the first one waits %v", d)
	}
	if d := step(time.Millisecond, gatherMany/2); d != gatherFirst {
		t.Errorf("the second one waits %v", d)
	}
	for range 20 {
		before := g.wait
		if d := step(g.wait, 1000); d > before/2 && d != gatherLeast {
			t.Fatalf("of a flood they wait %v after %v", d, before)
		}
	}
	if g.wait != gatherLeast {
		t.Errorf("of a flood they wait %v", g.wait)
	}
	for range 100 {
		if d := step(g.wait, 1); d > gatherMost {
			t.Fatalf("they wait %v", d)
		}
	}
	if g.wait != gatherMost {
		t.Errorf("behind a flood they wait %v", g.wait)
	}
	if d := step(thick, 1); d != 0 {
		t.Errorf("after a pause one waits %v", d)
	}
}
