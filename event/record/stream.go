package record

import (
	"context"
	"sync"
	"time"

	"github.com/tapwall/tapwall/event"
)

// streams are the readers that follow.
type streams struct {
	mu   sync.Mutex
	open map[*stream]struct{}
	gaps int64
	wg   sync.WaitGroup
}

func (s *streams) wakeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

func (s *streams) figures() (clients int, gaps int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open), s.gaps
}

func (s *streams) wait() { s.wg.Wait() }

// stream is one reader. It scans the ring in its own goroutine into a bounded queue, so that a reader costs the recorder one wake
// per batch, and the step from what was to what comes is one position in the ring: no gap and no overlap.
type stream struct {
	r    *Recorder
	m    *event.Matcher
	ch   chan *event.Event
	wake chan struct{}

	pos      int64 // next position to scan
	seen     int64 // sequence number of the last event that was looked at; 0 = none
	behind   bool  // what comes next is in the spool only
	catching bool  // not up to date yet: the scan waits for the reader instead of dropping

	queue    []*event.Event // a circle
	head, n  int
	place    string     // id of the newest event delivered or dropped
	gap      event.Loss // not told yet; valid iff hasGap
	hasGap   bool
	gapClass event.Class
	told     time.Time // when a gap was last told
	afterGap bool      // the last thing delivered was a gap
}

// Subscribe follows events that match f. It begins with what is kept after the event with id after, or if that is "" from f.Since,
// or if that is zero too with the newest f.Limit matches; with none of them it begins now. Then it goes on with new events, without
// gap or overlap. What the ring no longer has is read from the spool. Losses are told whatever the filter.
//
// A reader that lags by more than Options.StreamLen events loses the oldest of them; that is counted at StageStreamClient (at
// StageRingOverwrite for what it asked for and is not kept any more) and told in its stream alone by an events-lost event, at
// most one per second. Its id ends in "-lost" and can be given as after to go on behind the gap. A count of 0 means that it is not
// known how many were lost.
//
// The channel is closed when ctx or the recorder ends. The error matches ErrStopped, or joins ParamErrors of f. The events are
// shared and must not be changed.
func (r *Recorder) Subscribe(ctx context.Context, f event.Filter, after string) (<-chan *event.Event, error) {
	if after != "" {
		f.After = after
	}
	m, err := f.Compile()
	if err != nil {
		return nil, err
	}
	s := &stream{
		r: r, m: m, ch: make(chan *event.Event), wake: make(chan struct{}, 1), queue: make([]*event.Event, r.opts.StreamLen), catching: true,
	}
	// From here on new events wake it; what was there is found in the ring.
	r.streams.mu.Lock()
	select {
	case <-r.done:
		r.streams.mu.Unlock()
		return nil, ErrStopped
	default:
	}
	r.streams.open[s] = struct{}{}
	r.streams.wg.Add(1)
	r.streams.mu.Unlock()

	kept := r.ring.from(0)
	switch {
	case f.After != "":
		id, _ := event.ParseID(f.After) // Compile has checked it
		if id.Sequence>>seqBits > int64(r.began.Epoch) || kept.start < kept.end && id.Sequence > kept.at(kept.end-1).seq {
			// One that there was not yet, as after the data directory was restored: to wait until the numbers are there would be silence.
			id.Install = 0
		}
		if s.place = f.After; r.opts.Spool != nil && id.Install == r.began.Install {
			s.seen, s.behind = id.Sequence, true
			break
		}
		var missed int64
		s.pos, missed = kept.resume(id, r.began)
		s.place = f.After
		if missed != 0 {
			s.placeBefore(&kept)
		}
		switch {
		case missed > 0:
			s.lose(event.StageRingOverwrite, event.NoClass, "overwritten", missed, r.now().UTC())
		case missed < 0:
			s.lose(event.StageRingOverwrite, event.NoClass, "other_run", 0, r.now().UTC())
		}
	case !f.Since.IsZero():
		s.pos = kept.start
		s.behind = r.opts.Spool != nil && kept.start < kept.end && kept.at(kept.start).ev.Timestamp.After(f.Since)
	default:
		s.pos = kept.end
		for n := 0; s.pos > kept.start && n < f.Limit; {
			s.pos--
			if e := kept.at(s.pos); m.MatchFacts(&e.Facts) {
				n++
			}
		}
	}
	go s.run(ctx)
	return s.ch, nil
}

func (s *stream) run(ctx context.Context) {
	defer func() {
		st := &s.r.streams
		st.mu.Lock()
		delete(st.open, s)
		st.mu.Unlock()
		close(s.ch)
		st.wg.Done()
	}()
	done := s.r.done
	var deadline <-chan time.Time // once the recorder has ended
	for {
		if s.fill(); s.behind {
			if !s.catchUp(ctx) {
				return
			}
			continue
		}
		next, isGap, wait := s.next()
		var out chan *event.Event
		if next != nil {
			out = s.ch
		} else if deadline != nil {
			return
		}
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case out <- next:
			s.delivered(next, isGap)
		case <-s.wake:
		case <-timer:
		case <-ctx.Done():
			return
		case <-done: // a reader that takes them at once gets the last events too
			done, deadline = nil, time.After(time.Second)
		case <-deadline:
			return
		}
	}
}

// fill scans the ring into the queue.
func (s *stream) fill() {
	if s.catching && s.n == len(s.queue) {
		return
	}
	if s.behind {
		return
	}
	span := s.r.ring.from(s.pos)
	if span.start > s.pos && s.catching && s.r.opts.Spool != nil {
		s.behind = s.n == 0 // what is queued comes first
		return
	}
	if span.start > s.pos {
		s.lose(event.StageRingOverwrite, event.NoClass, "overwritten", span.start-s.pos, s.r.now().UTC())
		s.pos = span.start
		s.placeBefore(&span)
	}
	for s.pos < span.end {
		e := span.at(s.pos)
		// What earlier runs left is put into the ring after readers may have come, who have seen it perhaps.
		if e.seq > s.seen && s.m.MatchStream(&e.Facts) {
			if s.n == len(s.queue) {
				if s.catching {
					return
				}
				s.dropOldest()
			}
			s.queue[(s.head+s.n)%len(s.queue)] = e.ev
			s.n++
		}
		s.pos++
		s.seen = max(s.seen, e.seq)
	}
	if s.n < len(s.queue) {
		s.catching = false
	}
}

// placeBefore says that the reader is past everything before the span.
func (s *stream) placeBefore(kept *span) {
	if kept.start == kept.end {
		return
	}
	if id, err := event.ParseID(kept.at(kept.start).ev.Event.ID); err == nil {
		id.Sequence--
		s.place = id.String()
	}
}

func (s *stream) dropOldest() {
	old := s.queue[s.head]
	s.head = (s.head + 1) % len(s.queue)
	s.n--
	s.place = old.Event.ID
	s.lose(event.StageStreamClient, old.Class(), "slow", 1, s.r.now().UTC())
}

// lose counts lost events and remembers to tell of them.
func (s *stream) lose(stage event.Stage, class event.Class, reason string, n int64, now time.Time) {
	s.r.losses.add("", stage, class, reason, n, now, true)
	if !s.hasGap {
		s.hasGap = true
		s.gap = event.Loss{Stage: string(stage), Reason: reason, First: now}
		s.gapClass = class
	}
	if event.Stage(s.gap.Stage) != stage { // both kinds at once: told as what the reader can do something about
		s.gap.Stage, s.gap.Reason = string(event.StageStreamClient), "slow"
	}
	s.gapClass = moreImportant(s.gapClass, class)
	s.gap.Class = string(s.gapClass)
	s.gap.Count += n
	s.gap.Last = now
}

// next is what to deliver, or how long until a gap may be told.
func (s *stream) next() (e *event.Event, isGap bool, wait time.Duration) {
	if s.hasGap && !s.afterGap {
		since := time.Since(s.told)
		if s.told.IsZero() || since >= s.r.opts.LossEvery {
			return s.gapEvent(s.r.now().UTC()), true, 0
		}
		if s.n == 0 {
			return nil, false, max(s.r.opts.LossEvery-since, time.Millisecond)
		}
	}
	if s.n == 0 {
		return nil, false, 0
	}
	return s.queue[s.head], false, 0
}

// gapEvent tells of the gap. Its place in the record is that of the newest event the reader is past.
func (s *stream) gapEvent(now time.Time) *event.Event {
	id, err := event.ParseID(s.place)
	if err != nil {
		id = event.ID{}
	}
	e := lossEvent("", s.gap)
	complete(e, id.Gap(), id.Sequence, now, s.r.opts.Host)
	return e
}

func (s *stream) delivered(e *event.Event, isGap bool) {
	s.afterGap = isGap
	if isGap {
		s.toldGap()
		return
	}
	s.place = e.Event.ID
	s.queue[s.head] = nil
	s.head = (s.head + 1) % len(s.queue)
	s.n--
}

// toldGap takes note that the reader has the gap.
func (s *stream) toldGap() {
	s.hasGap = false
	s.gap = event.Loss{}
	s.told = time.Now()
	st := &s.r.streams
	st.mu.Lock()
	st.gaps++
	st.mu.Unlock()
}
