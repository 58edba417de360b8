package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/policy"
)

// lives has mirrors begin and end by themselves. Hosts are told of a mirror that has ended, or has not begun, that it is idle; what they
// do about it is the same as if it were not enabled.
//
// One goroutine (run) owns the lives and publishes them. follow, which hands changes to the hosts, says of each mirror what is published of
// it, and hears from run when that turns. The store is written by a task of its own: an end waits for no disk.
type lives struct {
	fleet     *Fleet
	clock     clock
	published atomic.Pointer[map[string]life] // by mirror
	turned    chan []string                   // mirrors that follow is to tell the hosts of again
	poked     chan struct{}
	kept      chan outcome // of the task that writes; it holds one

	mu      sync.Mutex
	pending map[string]*policy.Mirror // written, or nil = deleted, since run looked
	seen    bool                      // follow has told of all mirrors
	begun   map[string]backend.Life   // by hand, likewise

	// Of run.
	mirrors map[string]*policy.Mirror // that have a life
	known   map[string]*entry
	whole   bool // those are all
	busy    bool // the task writes
	polled  time.Duration
	looking atomic.Bool // the task that reads counters is on its way

	// Of follow.
	current map[string]*policy.Mirror // that have a life
}

// entry is what run keeps of a life.
type entry struct {
	life
	stored  int64 // revision in the store; 0 = none
	version int   // counts the changes
	saved   int   // version that is stored
	urgent  bool  // something other than counters has changed since
	gone    bool  // it is to be removed
	dying   bool  // the mirror was deleted, of which the store has not told yet
	tried   time.Duration
	failed  bool          // then
	told    *policy.Idle  // what follow was asked to tell of it
	untold  []event.Event // of changes that are not stored yet
	doubt   map[string]time.Duration
}

const (
	// begins is how often it is looked whether a mirror has begun, and looks what it has counted: OVS itself brings counters up to date about
	// twice a second.
	begins, looks = 100 * time.Millisecond, 250 * time.Millisecond
	// keeps is how often counters are written that only grew.
	keeps = 5 * time.Second
	// again is how long after a failure the store is tried again, and how often another process's lives are read.
	again = time.Second
	// anew is for how long the counters of a host must be below what they were to be taken for new ones: after a restart of tapwall they are
	// 0 until the switch has been read.
	anew = 3 * time.Second
	// clocked is how often the clock is looked at, which somebody may have set.
	clocked = time.Second
)

func newLives(f *Fleet) *lives {
	l := &lives{fleet: f, clock: newClock(), turned: make(chan []string), poked: make(chan struct{}, 1), kept: make(chan outcome, 1),
		pending: map[string]*policy.Mirror{}, begun: map[string]backend.Life{},
		mirrors: map[string]*policy.Mirror{}, known: map[string]*entry{}, current: map[string]*policy.Mirror{}}
	l.published.Store(&map[string]life{})
	return l
}

// load reads the lives, before the first mirror is handed to a host: else one that has ended would begin again.
func (l *lives) load(ctx context.Context) error {
	for {
		stored, err := l.fleet.opt.Store.Lives(ctx)
		if err == nil {
			for name, x := range stored {
				l.adopt(name, x)
				l.known[name].gone = true // unless the mirror is still there
			}
			l.publish()
			return nil
		}
		l.fleet.opt.Logger.Warn("what became of mirrors that end by themselves cannot be read, trying again", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(again):
		}
	}
}

// adopt takes what the store has.
func (l *lives) adopt(name string, x backend.Life) {
	var theirs life
	if err := json.Unmarshal(x.Value, &theirs); err != nil {
		l.fleet.opt.Logger.Error("what became of a mirror cannot be read", "mirror", name, "err", err)
		theirs = life{}
	}
	theirs.Since = l.clock.adopt(theirs.Since)
	if theirs.Began != nil {
		began := l.clock.adopt(*theirs.Began)
		theirs.Began = &began
	}
	r := l.known[name]
	if r == nil {
		l.known[name] = &entry{life: theirs, stored: x.Revision}
		return
	}
	if r.stored = x.Revision; r.saved == r.version && !r.gone {
		r.life = theirs
		return
	}
	if now := merge(r.life, theirs, l.own()); now.Run != r.Run {
		r.life, r.untold, r.doubt, r.urgent, r.saved = now, nil, nil, false, r.version
	} else {
		r.life = now
	}
}

// own are the ids of the hosts of this process.
func (l *lives) own() map[string]bool {
	out := map[string]bool{}
	for _, e := range l.fleet.hosts {
		out[e.Name()] = true
	}
	return out
}

// enrol brings a batch of the store up to date with the lives: its mirrors are idle whose time it is not. It is follow's.
func (l *lives) enrol(b *backend.Batch) {
	cloned := false
	for i, c := range b.Changes {
		if c.Kind != policy.KindMirror || c.Guard {
			continue
		}
		m, _ := c.Resource.(*policy.Mirror)
		if m == nil || !m.HasLife() {
			delete(l.current, c.Name)
		} else {
			if !cloned {
				b.Changes, cloned = slices.Clone(b.Changes), true
			}
			l.current[c.Name] = m
			b.Changes[i].Resource = l.judged(m)
		}
		l.mu.Lock()
		l.pending[c.Name] = m
		l.mu.Unlock()
	}
	if b.Snapshot {
		l.mu.Lock()
		l.seen = true
		l.mu.Unlock()
	}
	l.poke()
}

// turn returns the mirrors of these names as they are now. It is follow's.
func (l *lives) turn(names []string) (out []backend.Change) {
	for _, name := range names {
		if m := l.current[name]; m != nil {
			out = append(out, backend.Change{Kind: policy.KindMirror, Name: name, Resource: l.judged(m)})
		}
	}
	return out
}

// judged returns a mirror with what is published of it.
func (l *lives) judged(m *policy.Mirror) *policy.Mirror {
	x, known := (*l.published.Load())[m.Name]
	if !known || !x.of(m) {
		x = newLife(m, l.clock.mark())
	}
	c := *m
	c.Idle = x.idle(m, l.clock)
	return &c
}

// judgedAll does so for changes that may not be in the store.
func (l *lives) judgedAll(changes []backend.Change) []backend.Change {
	out := changes
	for i, c := range changes {
		if m, ok := c.Resource.(*policy.Mirror); ok && m.HasLife() {
			if &out[0] == &changes[0] {
				out = slices.Clone(changes)
			}
			out[i].Resource = l.judged(m)
		}
	}
	return out
}

func (l *lives) poke() {
	select {
	case l.poked <- struct{}{}:
	default:
	}
}

// run is the loop.
func (l *lives) run(ctx context.Context) error {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.poked:
		case o := <-l.kept:
			l.settle(o)
		case <-timer.C:
		}
		turned := l.take()
		again, wait := l.tend(ctx, &tasks)
		l.publish()
		if turned = append(turned, again...); len(turned) > 0 {
			select {
			case l.turned <- turned:
			case <-ctx.Done():
				return nil
			}
		}
		l.write(ctx, &tasks)
		timer.Reset(wait)
	}
}

// take takes what follow and Start have left.
func (l *lives) take() (turned []string) {
	l.mu.Lock()
	pending, begun := l.pending, l.begun
	l.whole = l.seen
	l.pending, l.begun = map[string]*policy.Mirror{}, map[string]backend.Life{}
	l.mu.Unlock()
	for name, m := range pending {
		r := l.known[name]
		switch {
		case m == nil || !m.HasLife():
			delete(l.mirrors, name)
			if r != nil {
				r.gone = true
			}
			continue
		case r == nil:
			r = &entry{}
			l.known[name] = r
			fallthrough
		case !r.of(m):
			r.life = newLife(m, l.clock.mark())
			r.untold, r.doubt = nil, nil
			l.count(name, m, r)
			r.changed(true)
		case r.Revision != m.Revision:
			r.Revision, r.Spec = m.Revision, digest(m)
			r.changed(true)
		}
		r.gone, r.dying = false, false
		l.mirrors[name] = m
		r.told = r.idle(m, l.clock)
		turned = append(turned, name)
	}
	for name, x := range begun {
		l.adopt(name, x)
	}
	return turned
}

func (r *entry) changed(urgent bool) {
	r.version++
	r.urgent = r.urgent || urgent
}

// tend notes what begins and ends. It returns the mirrors of which that is so, and when to look again.
func (l *lives) tend(ctx context.Context, tasks *sync.WaitGroup) (turned []string, wait time.Duration) {
	wait = time.Hour
	soon := func(d time.Duration) { wait = min(wait, d) }
	counts := false
	for name, m := range l.mirrors {
		r := l.known[name]
		soon(clocked)
		if r.idle(m, l.clock) == nil && m.IsEnabled() {
			if r.Began == nil && l.copies(name) {
				now := l.clock.mark()
				r.Began = &now
				r.changed(true)
				r.tell(event.ActionMirrorBegan, name, fmt.Sprintf("mirror %s has begun to copy", name), m.Writer)
			}
			if m.Counts() {
				counts = true
				l.count(name, m, r)
				soon(looks)
			}
			if r.Began == nil {
				soon(begins)
			}
		}
		if why := r.over(m, l.clock); why != "" && r.Ended == nil {
			now := l.clock.wall().Truncate(time.Millisecond)
			r.Ended, r.Why = &now, why
			r.changed(true)
			r.tell(event.ActionMirrorEnded, name, fmt.Sprintf("mirror %s has ended: %s", name, why), m.Writer)
		}
		if at := r.next(m, l.clock); at > 0 {
			soon(at)
		}
		if now := r.idle(m, l.clock); now != r.told && (now == nil || r.told == nil || *now != *r.told) {
			r.told = now
			turned = append(turned, name)
		}
	}
	for _, r := range l.known {
		if r.dirty() {
			soon(again)
		}
	}
	if counts && l.looking.CompareAndSwap(false, true) {
		tasks.Go(func() {
			defer l.looking.Store(false)
			ctx, cancel := context.WithTimeout(ctx, refreshFor)
			defer cancel()
			l.fleet.Refresh(ctx, policy.KindMirror)
		})
	}
	return turned, wait
}

// tell notes an event, which is recorded when what it is about is stored: of several processes one says so.
func (r *entry) tell(action, name, message string, who policy.Writer) {
	r.untold = append(r.untold, event.NewChange(action, event.Notice{Message: message, Count: 1, Objects: []string{"mirror/" + name},
		By: who.By, From: who.From}))
}

// copies reports whether a host has begun to copy, be it from a part of the sources alone.
func (l *lives) copies(name string) bool {
	for _, e := range l.fleet.hosts {
		switch s := e.Status(policy.KindMirror, name); {
		case s.Phase == policy.PhaseActive:
			return true
		case s.Phase == policy.PhaseDegraded && s.Reason != policy.ReasonTargetMissing && len(s.Hosts) > 0 && len(s.Hosts[0].Endpoints) > 0:
			return true
		}
	}
	return false
}

// count takes the counters of the hosts.
func (l *lives) count(name string, m *policy.Mirror, r *entry) {
	if !m.Counts() {
		return
	}
	hosts := maps.Clone(r.Hosts)
	if hosts == nil {
		hosts = map[string]tally{}
	}
	grew := false
	for _, e := range l.fleet.hosts {
		now, ok := readingOf(e, name)
		if !ok {
			continue
		}
		id := e.Name()
		t, there := hosts[id]
		if !there { // counts from here on
			t.Last = now
		}
		low := now.below(t.Last)
		if low {
			if r.doubt == nil {
				r.doubt = map[string]time.Duration{}
			}
			if since, doubted := r.doubt[id]; !doubted {
				r.doubt[id] = l.clock.up()
				continue
			} else if l.clock.up()-since < anew {
				continue
			}
		}
		delete(r.doubt, id)
		next := t.plus(now, low)
		grew = grew || !there || next != t
		hosts[id] = next
	}
	if grew {
		r.Hosts = hosts
		r.changed(false)
	}
}

// readingOf are the counters of a mirror on a host.
func readingOf(e *host.Engine, name string) (reading, bool) {
	s := e.Status(policy.KindMirror, name)
	if len(s.Hosts) == 0 || s.Hosts[0].Counters == nil {
		return reading{}, false
	}
	c := s.Hosts[0].Counters
	return reading{c["acceptedPackets"], c["acceptedBytes"]}, true
}

// publish lets readers see the lives.
func (l *lives) publish() {
	now := make(map[string]life, len(l.known))
	for name, r := range l.known {
		now[name] = r.life
	}
	l.published.Store(&now)
}

// status adds the life of a mirror to its status.
func (l *lives) status(kind policy.Kind, name string, s policy.Status) policy.Status {
	if kind != policy.KindMirror {
		return s
	}
	for _, e := range l.fleet.hosts {
		m := e.Mirror(name)
		if x, known := (*l.published.Load())[name]; m != nil && known && m.HasLife() && x.of(m) {
			s.Life = x.status(m, l.clock)
			return s
		}
	}
	return s
}
