package record

import (
	"testing"
	"time"
)

func TestRate(t *testing.T) {
	var r rate
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	if got := r.perSecond(now, 5); got != 0 {
		t.Errorf("before the first look: %v", got)
	}
	accepted := int64(0)
	tick := func(seconds int, each int64) {
		for range seconds {
			r.note(now, accepted)
			r.note(now.Add(time.Millisecond), accepted+each) // too early
			now, accepted = now.Add(time.Second), accepted+each
		}
	}
	for _, x := range []struct {
		seconds int
		each    int64
		want    float64
	}{{3, 100, 100}, {30, 50, 50}, {5, 0, 25}, {5, 0, 0}, {1, 1000, 100}} {
		tick(x.seconds, x.each)
		if got := r.perSecond(now, accepted); got < x.want*0.85 || got > x.want*1.15+0.01 {
			t.Errorf("after %d s of %d: %v, want %v", x.seconds, x.each, got, x.want)
		}
	}
	if got := r.perSecond(now.Add(time.Hour), accepted); got != 0 {
		t.Errorf("an hour later: %v", got)
	}
}
