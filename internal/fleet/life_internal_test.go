package fleet

import (
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
)

// settable is a machine whose clock somebody sets.
type settable struct {
	wall time.Time
	up   time.Duration
}

func (s *settable) clock(boot string) clock {
	return clock{boot, func() time.Time { return s.wall }, func() time.Duration { return s.up }}
}

func (s *settable) pass(d time.Duration) { s.wall, s.up = s.wall.Add(d), s.up+d }

func bounded() *policy.Mirror {
	return &policy.Mirror{Meta: policy.Meta{Name: "m", UID: "u", Revision: 5}, Spec: policy.MirrorSpec{
		Sources: []policy.Selector{{Port: "vm1"}}, Targets: []policy.MirrorTarget{{Port: &policy.PortTarget{Name: "ids0"}}},
		StopAfter: &policy.StopAfter{Duration: "10m"}, TTL: "1h"}}
}

// A clock that is set neither ends a mirror nor prolongs it, also over a restart of tapwall; after one of the machine the wall counts.
func TestLifeClockSet(t *testing.T) {
	s := &settable{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Hour}
	c, m := s.clock("boot"), bounded()
	l := newLife(m, c.mark())
	s.pass(time.Second)
	began := c.mark()
	l.Began = &began
	is := func(what string, over bool, c clock) {
		t.Helper()
		if got := l.over(m, c) != ""; got != over {
			t.Errorf("%s: over = %v", what, got)
		}
	}
	s.pass(time.Minute)
	is("a minute later", false, c)
	ends := *l.status(m, c).EndsAt
	if want := began.At.Add(10 * time.Minute); !ends.Equal(want) {
		t.Errorf("it ends at %v, want %v", ends, want)
	}
	s.wall = s.wall.Add(24 * time.Hour)
	is("set forward", false, c)
	if left := l.status(m, c).EndsAt.Sub(s.wall); left.Round(time.Second) != 9*time.Minute {
		t.Errorf("by the new clock it ends in %v", left)
	}
	if l.idle(m, c) != nil || l.expired(m, c) {
		t.Error("set forward it is idle")
	}
	s.wall = s.wall.Add(-72 * time.Hour)
	is("set back", false, c)
	s.pass(9*time.Minute - time.Second)
	is("a second before its end", false, c)
	s.pass(time.Second)
	is("at its end", true, c)
	// Another machine, or the same one started again, knows the wall alone, and takes it over once.
	s = &settable{began.At.Add(4 * time.Minute), time.Second}
	c = s.clock("another")
	adopted := c.adopt(began)
	l.Began = &adopted
	is("on another machine", false, c)
	s.wall = s.wall.Add(time.Hour)
	is("where the clock is set", false, c)
	s.pass(6 * time.Minute)
	is("at its end there", true, c)
}

// What is idle, and why: startAt follows the wall, until the mirror has begun or is started by hand; a ttl goes before all.
func TestLifeIdle(t *testing.T) {
	s := &settable{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Hour}
	c, m := s.clock("boot"), bounded()
	at := s.wall.Add(time.Minute)
	m.Spec.StartAt = &at
	l := newLife(m, c.mark())
	is := func(what string, reason policy.Reason) {
		t.Helper()
		got := policy.Reason("")
		if i := l.idle(m, c); i != nil {
			got = i.Reason
		}
		if got != reason {
			t.Errorf("%s: %q, want %q", what, got, reason)
		}
	}
	is("before", policy.ReasonScheduled)
	if in := l.next(m, c); in != time.Minute {
		t.Errorf("it begins in %v", in)
	}
	started := l
	started.Started = true
	if started.idle(m, c) != nil {
		t.Error("started by hand it waits")
	}
	s.wall = at
	is("at its time", "")
	began := c.mark()
	l.Began = &began
	s.wall = at.Add(-time.Hour)
	is("set back behind its beginning", "")
	ended := s.wall
	l.Ended, l.Why = &ended, "it was to copy for 10m"
	is("ended", policy.ReasonCompleted)
	s.pass(time.Hour)
	is("its ttl is over", policy.ReasonExpired)
	off := false
	m.Spec.Enabled = &off
	is("also if it is not enabled", policy.ReasonExpired)
}

// A life is that of a specification: labels and defaults that are written out change nothing.
func TestLifeOf(t *testing.T) {
	m := bounded()
	l := newLife(m, mark{})
	same := bounded()
	same.Revision, same.Labels, same.Spec.Direction = 6, map[string]string{"a": "b"}, policy.MirrorBoth
	yes := true
	same.Spec.Enabled = &yes
	if !l.of(same) {
		t.Error("with the defaults written out it is another one")
	}
	newer := bounded()
	newer.Spec.Snaplen = 64 // as if a newer tapwall read the document otherwise
	if !l.of(newer) {
		t.Error("at the same revision it is another one")
	}
	newer.Revision = 6
	if l.of(newer) {
		t.Error("a change of its spec is the same life")
	}
	again := bounded()
	again.UID = "v"
	if l.of(again) {
		t.Error("a mirror of the same name that was made again is the same")
	}
}

// Packets are those of all hosts; counters that were begun anew add what they have.
func TestLifeCounts(t *testing.T) {
	m := bounded()
	m.Spec.StopAfter = &policy.StopAfter{Packets: 100}
	l := newLife(m, mark{})
	l.Began = &mark{}
	h1, h2 := tally{Last: reading{1000, 1}}, tally{}
	h1 = h1.plus(reading{1040, 41}, false)
	h2 = h2.plus(reading{30, 30}, false)
	h2 = h2.plus(reading{20, 20}, true)
	l.Hosts = map[string]tally{"h1": h1, "h2": h2}
	c := (&settable{}).clock("boot")
	if n := l.counted(); n != (reading{90, 90}) || l.over(m, c) != "" {
		t.Errorf("counted %v: %q", n, l.over(m, c))
	}
	if s := l.status(m, c); s.Packets != 90 || s.LeftPackets != 10 {
		t.Errorf("it shows %+v", s)
	}
	l.Hosts["h1"] = h1.plus(reading{1055, 56}, false)
	if got := l.over(m, c); got != "it was to copy 100 packets, and took 105" {
		t.Errorf("over: %q", got)
	}
}

// Two processes whose hosts have a mirror in common come to one life.
func TestLifeMerge(t *testing.T) {
	early, late := mark{At: time.Unix(100, 0)}, mark{At: time.Unix(200, 0)}
	end := time.Unix(300, 0)
	own := map[string]bool{"a": true}
	ours := life{Run: "x", UID: "u", Revision: 5, Began: &early, Hosts: map[string]tally{"a": {Packets: 7}, "b": {Packets: 1}}}
	theirs := life{Run: "x", UID: "u", Revision: 6, Began: &late, Ended: &end, Why: "enough", Hosts: map[string]tally{"a": {Packets: 2},
		"b": {Packets: 9}}}
	got := merge(ours, theirs, own)
	if got.Began.At != early.At || got.Ended != &end || got.Why != "enough" || got.Revision != 6 || got.Hosts["a"].Packets != 7 ||
		got.Hosts["b"].Packets != 9 {
		t.Errorf("merged: %+v", got)
	}
	if theirs.Hosts["a"].Packets != 2 {
		t.Error("it changed what was handed on")
	}
	// One that was begun again by another process is theirs; one that is older than what the mirror is now, is not.
	if got := merge(ours, life{Run: "y", UID: "u", Revision: 5}, own); got.Run != "y" {
		t.Errorf("a life that another began: %+v", got)
	}
	if got := merge(ours, life{Run: "y", UID: "u", Revision: 4}, own); got.Run != "x" {
		t.Errorf("a life of before: %+v", got)
	}
}
