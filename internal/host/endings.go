package host

import (
	"math"
	"sync"
	"time"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// endings arm flows that are to end (wall.Changes.Ends), so that the switch ends them where nobody else does: with a hard_timeout, as soon
// as what is left fits into it. How long a flow lasts counts from when it came to the switch, so each flow is remembered with when it goes;
// what an earlier process armed is known by what is read back. The loop owns it.
type endings struct {
	owners map[string]ending
	stamps map[flow.Key]stamp
}

// ending is what an owner has until it ends.
type ending struct {
	at    time.Time   // by the clock on the wall
	flows []flow.Flow // as compiled
	armed bool        // with timeouts
}

// stamp is the timeout of a flow.
type stamp struct {
	flow    flow.Flow // which: another one in its place, even with the same timeout, counts anew
	seconds uint16
	goes    time.Time // by the clock that cannot be set
}

const (
	// slack is by how much a flow may go earlier or later than it should: timeouts are whole seconds, and the switch looks once a second.
	slack = 2 * time.Second
	// armsAt is how much is left when flows are armed.
	armsAt = policy.MaxHardTimeout - 5*time.Second
)

// want hands over what was compiled, armed where it ends.
func (w *firewall) wantEnding(ch wall.Changes, now time.Time) {
	for owner, flows := range ch.Owners {
		at, ends := ch.Ends[owner]
		if !ends || flows == nil {
			delete(w.endings.owners, owner)
			continue
		}
		x := ending{at: time.UnixMilli(at), flows: flows}
		ch.Owners[owner] = w.arm(&x, now)
		w.endings.owners[owner] = x
	}
	w.want(ch.Owners)
}

// arm returns the flows of an owner with their timeouts. A flow that goes when it should keeps the one that it has.
func (w *firewall) arm(x *ending, now time.Time) []flow.Flow {
	left := x.at.Sub(now.Round(0))
	if x.armed = left <= armsAt; !x.armed {
		return x.flows
	}
	out := make([]flow.Flow, len(x.flows))
	for i, f := range x.flows {
		key := f.Key()
		s, known := w.endings.stamps[key]
		if off := s.goes.Sub(now) - left; !known || off < -slack || off > slack || !s.flow.Equal(f) {
			s.flow, s.seconds = f, uint16(max(1, math.Ceil(left.Seconds())))
			s.goes = now.Add(time.Duration(s.seconds) * time.Second)
			w.endings.stamps[key] = s
		}
		f.HardTimeout = s.seconds
		out[i] = f
	}
	return out
}

// tendEndings arms what is to be armed by now, and arms again what the switch has lost, or what goes at another time than it should because
// the clock was set.
func (w *firewall) tendEndings(st ofctrl.State, now time.Time) {
	x := &w.endings
	if found := w.timeouts.take(); found != nil && st.Ready {
		x.stamps = found
	} else if len(x.owners) == 0 {
		clear(x.stamps)
		return
	} else if st.Ready && st.Lost > 0 {
		clear(x.stamps) // what comes back counts from then on
	} else if !w.endingsDue(now) {
		return
	}
	for owner, e := range x.owners {
		w.want(map[string][]flow.Flow{owner: w.arm(&e, now)})
		x.owners[owner] = e
	}
}

// endingsDue reports whether flows are to be armed, or armed otherwise because the clock was set.
func (w *firewall) endingsDue(now time.Time) bool {
	for _, x := range w.endings.owners {
		left := x.at.Sub(now.Round(0))
		if x.armed != (left <= armsAt) {
			return true
		}
		if !x.armed || len(x.flows) == 0 {
			continue
		}
		// The flows of an owner go at about the same time; one stands for all.
		if off := w.endings.stamps[x.flows[0].Key()].goes.Sub(now) - left; off < -slack || off > slack {
			return true
		}
	}
	return false
}

// timeouts are the flows with timeouts that were read back. It is safe for concurrent use.
type timeouts struct {
	mu          sync.Mutex
	part, found map[flow.Key]stamp
}

// readBack takes a flow that is read back; nil = that was all.
func (t *timeouts) readBack(f *flow.Flow, age time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.part == nil {
		t.part = map[flow.Key]stamp{}
	}
	switch {
	case f == nil:
		t.found, t.part = t.part, nil
	case f.HardTimeout > 0:
		s := stamp{*f, f.HardTimeout, time.Now().Add(time.Duration(f.HardTimeout)*time.Second - age)}
		s.flow.HardTimeout = 0
		t.part[f.Key()] = s
	}
}

// take returns what was read back since the last call; nil = nothing was.
func (t *timeouts) take() map[flow.Key]stamp {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := t.found
	t.found = nil
	return found
}
