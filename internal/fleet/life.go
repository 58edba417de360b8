package fleet

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/policy"
)

// life is what became of a mirror that begins or ends by itself, of one specification of it. It is kept in the store, and is not changed
// once it is handed on.
type life struct {
	// Run tells it from others of the same mirror.
	Run string `json:"run"`
	UID string `json:"uid"`
	// Spec is the digest of the specification, and Revision the newest of the mirror that had it: of a version of tapwall that knows more
	// defaults the digest is another one, and the mirror still the same.
	Spec     string `json:"spec"`
	Revision int64  `json:"revision"`
	// Since is when it was written so, or started by hand, after which startAt counts no more.
	Since   mark `json:"since"`
	Started bool `json:"started,omitempty"`
	// Began is when the first host copied, and Ended when it was over, and why.
	Began *mark      `json:"began,omitempty"`
	Ended *time.Time `json:"ended,omitempty"`
	Why   string     `json:"why,omitempty"`
	// Hosts are what is counted on each, by id.
	Hosts map[string]tally `json:"hosts,omitempty"`
}

// mark is a moment, by the clock on the wall and by that of the machine which nobody can set.
type mark struct {
	At   time.Time     `json:"at"`
	Boot string        `json:"boot,omitempty"` // which start of which machine Up counts from
	Up   time.Duration `json:"up,omitempty"`
}

// clock tells the time.
type clock struct {
	boot string
	wall func() time.Time
	up   func() time.Duration
}

func newClock() clock {
	return clock{host.BootID(), func() time.Time { return time.Now().UTC().Round(0) }, host.SinceBoot}
}

func (c clock) mark() mark {
	return mark{At: c.wall().Truncate(time.Millisecond), Boot: c.boot, Up: c.up()}
}

// since is how long ago a moment was: however the clock was set since then, if it was on this machine and since it was started.
func (c clock) since(m mark) time.Duration {
	if m.Boot == c.boot && c.boot != "" {
		return c.up() - m.Up
	}
	return c.wall().Sub(m.At)
}

// adopt returns a moment as this machine counts from it: from now on nobody can set that.
func (c clock) adopt(m mark) mark {
	if m.Boot != c.boot {
		m.Boot, m.Up = c.boot, c.up()-c.since(m)
	}
	return m
}

// after is when something is that comes so long after a moment.
func (c clock) after(m mark, d time.Duration) time.Time {
	at := m.At.Add(d)
	if now := c.wall().Add(d - c.since(m)); now.Sub(at).Abs() > time.Second { // the clock was set
		at = now.Truncate(time.Second)
	}
	return at
}

// tally is what one host counted in a life.
type tally struct {
	Packets int64 `json:"packets"`
	Bytes   int64 `json:"bytes"`
	// Last is where the host's own counters stood.
	Last reading `json:"last"`
}

type reading struct {
	Packets int64 `json:"packets"`
	Bytes   int64 `json:"bytes"`
}

// below reports whether counters have gone back, which means that they were begun anew.
func (r reading) below(o reading) bool { return r.Packets < o.Packets || r.Bytes < o.Bytes }

// plus adds what was counted up to a reading; anew: the counters began at 0 since the last one.
func (t tally) plus(r reading, anew bool) tally {
	from := t.Last
	if anew {
		from = reading{}
	}
	return tally{t.Packets + r.Packets - from.Packets, t.Bytes + r.Bytes - from.Bytes, r}
}

// newLife begins the life of a mirror as it is.
func newLife(m *policy.Mirror, now mark) life {
	return life{Run: rand.Text()[:8], UID: m.UID, Spec: digest(m), Revision: m.Revision, Since: now}
}

// digest is the same for specifications that mean the same.
func digest(m *policy.Mirror) string {
	text, err := json.Marshal(m.WithDefaults().(*policy.Mirror).Spec)
	if err != nil {
		panic(err) // it was read from JSON
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:12])
}

// of reports whether it is the life of a mirror as that is now.
func (l *life) of(m *policy.Mirror) bool {
	return l.UID == m.UID && (l.Revision == m.Revision || l.Spec == digest(m))
}

// counted is what all hosts together have counted.
func (l *life) counted() (sum reading) {
	for _, t := range l.Hosts {
		sum.Packets += t.Packets
		sum.Bytes += t.Bytes
	}
	return sum
}

// over says why a mirror that has begun ends now; "" = it does not.
func (l *life) over(m *policy.Mirror, c clock) string {
	x := m.Spec.StopAfter
	if x == nil || l.Began == nil {
		return ""
	}
	n := l.counted()
	switch lasts := m.Lasts(); {
	case lasts > 0 && c.since(*l.Began) >= lasts:
		return "it was to copy for " + x.Duration
	case x.Packets > 0 && n.Packets >= x.Packets:
		return fmt.Sprintf("it was to copy %d packets, and took %d", x.Packets, n.Packets)
	case x.Bytes > 0 && n.Bytes >= x.Bytes:
		return fmt.Sprintf("it was to copy %d bytes, and took %d", x.Bytes, n.Bytes)
	}
	return ""
}

// expired reports whether a mirror is to be deleted.
func (l *life) expired(m *policy.Mirror, c clock) bool {
	ttl := m.TimeToLive()
	return ttl > 0 && c.since(l.Since) >= ttl
}

// waits reports whether the time of a mirror has not come. What has begun goes on, however the clock is set.
func (l *life) waits(m *policy.Mirror, c clock) bool {
	return m.Spec.StartAt != nil && !l.Started && l.Began == nil && c.wall().Before(*m.Spec.StartAt)
}

// idle says why a mirror is not to copy now; nil = it is.
func (l *life) idle(m *policy.Mirror, c clock) *policy.Idle {
	switch {
	case !m.HasLife() || !m.IsEnabled() && !l.expired(m, c):
		return nil
	case l.expired(m, c):
		return &policy.Idle{Phase: policy.PhaseStopped, Reason: policy.ReasonExpired, Message: "its ttl is over, and it is being deleted"}
	case l.Ended != nil:
		return &policy.Idle{Phase: policy.PhaseStopped, Reason: policy.ReasonCompleted, Message: fmt.Sprintf("it ended at %s: %s; "+
			"tapwall mirror start %s begins it again", l.Ended.Format(time.RFC3339), l.Why, m.Name)}
	case l.waits(m, c):
		return &policy.Idle{Phase: policy.PhasePending, Reason: policy.ReasonScheduled, Message: "it begins at " +
			m.Spec.StartAt.Format(time.RFC3339)}
	}
	return nil
}

// next is in how long something of this comes about by the clock alone; 0 = nothing does.
func (l *life) next(m *policy.Mirror, c clock) (in time.Duration) {
	sooner := func(d time.Duration) {
		if d > 0 && (in == 0 || d < in) {
			in = d
		}
	}
	if ttl := m.TimeToLive(); ttl > 0 {
		sooner(ttl - c.since(l.Since))
	}
	if l.waits(m, c) {
		sooner(m.Spec.StartAt.Sub(c.wall()))
	}
	if lasts := m.Lasts(); lasts > 0 && l.Began != nil && l.Ended == nil {
		sooner(lasts - c.since(*l.Began))
	}
	return in
}

// status is what is shown of it.
func (l *life) status(m *policy.Mirror, c clock) *policy.LifeStatus {
	s := &policy.LifeStatus{EndedAt: l.Ended}
	if l.Began != nil {
		s.BeganAt = &l.Began.At
		if lasts := m.Lasts(); lasts > 0 && l.Ended == nil {
			at := c.after(*l.Began, lasts)
			s.EndsAt = &at
		}
	}
	if ttl := m.TimeToLive(); ttl > 0 {
		at := c.after(l.Since, ttl)
		s.DeletedAt = &at
	}
	if x := m.Spec.StopAfter; m.Counts() {
		n := l.counted()
		s.Packets, s.Bytes = n.Packets, n.Bytes
		if x.Packets > 0 {
			s.LeftPackets = max(0, x.Packets-n.Packets)
		}
		if x.Bytes > 0 {
			s.LeftBytes = max(0, x.Bytes-n.Bytes)
		}
	}
	return s
}

// merge makes one life of ours and of what another process has written: the hosts that are ours, ours; what began first began it, and what
// ended it anywhere has ended it. Of two lives it is that of theirs, unless they do not know yet that the mirror is another one.
func merge(ours, theirs life, own map[string]bool) life {
	if ours.Run != theirs.Run {
		if theirs.Revision < ours.Revision || theirs.UID != ours.UID && theirs.Revision == ours.Revision {
			return ours
		}
		return theirs
	}
	out := theirs
	out.Revision, out.Spec = ours.Revision, ours.Spec
	if theirs.Revision > ours.Revision {
		out.Revision, out.Spec = theirs.Revision, theirs.Spec
	}
	if ours.Began != nil && (out.Began == nil || ours.Began.At.Before(out.Began.At)) {
		out.Began = ours.Began
	}
	if out.Ended == nil {
		out.Ended, out.Why = ours.Ended, ours.Why
	}
	out.Hosts = maps.Clone(theirs.Hosts)
	for id, t := range ours.Hosts {
		if _, there := out.Hosts[id]; own[id] || !there {
			if out.Hosts == nil {
				out.Hosts = map[string]tally{}
			}
			out.Hosts[id] = t
		}
	}
	return out
}
