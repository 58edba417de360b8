package host

import (
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
)

// A clock that is set neither ends a quarantine nor prolongs it, also where tapwall is restarted meanwhile; its status says so.
func TestTermsClockSet(t *testing.T) {
	dir := t.TempDir()
	wall, boot := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Hour
	start := func() *terms {
		x := newTerms(dir, "")
		x.clock = func() time.Duration { return boot }
		return x
	}
	until := wall.Add(10 * time.Minute)
	q := &policy.Quarantine{Meta: policy.Meta{Name: "q", UID: "u"}, Spec: policy.QuarantineSpec{Until: &until}}
	x := start()
	is := func(what string, over, jumped bool) {
		t.Helper()
		x.set([]*policy.Quarantine{q}, wall)
		if got := x.over("q"); got != over {
			t.Errorf("%s: over = %v", what, got)
		}
		if got := x.jumped("q"); (got != "") != jumped {
			t.Errorf("%s: %q", what, got)
		}
		if err := x.save(); err != nil {
			t.Fatal(err)
		}
	}
	is("at the beginning", false, false)
	wall, boot = wall.Add(time.Minute), boot+time.Minute
	is("a minute later", false, false)
	wall = wall.Add(24 * time.Hour)
	is("set forward", false, true)
	x = start()
	is("and restarted", false, true)
	wall = wall.Add(-72 * time.Hour)
	is("set back", false, true)
	boot += 9*time.Minute - time.Second
	is("a second before its end", false, true)
	boot += time.Second
	is("at its end", true, true)
	x = start()
	is("and restarted", true, true)
}
