package record

import (
	"context"
	"encoding/json"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/spool"
)

// Bounds of a reader's way through the spool.
const (
	catchUpBatch = 2048 // events that are read before they are handed on, so that a slow reader holds up no other's scan
	// catchUpPatience is how long the spool may take to write what the ring no longer has.
	catchUpPatience = 2 * time.Second
	catchUpRetry    = 20 * time.Millisecond
)

// catchUp hands on what the ring no longer has and the spool does, after the sequence number s.seen, until the ring takes over. It
// reports false when the stream is to end.
func (s *stream) catchUp(ctx context.Context) (more bool) {
	began := time.Now()
	for {
		kept := s.r.ring.from(0)
		var first int64 // of the ring
		if kept.start < kept.end {
			first = kept.at(kept.start).seq
		}
		if first == 0 || s.seen >= first-1 {
			s.takeOver(&kept)
			return true
		}
		s.tellPruned()
		batch, seen, met, err := s.scan(ctx, first)
		for _, e := range batch {
			if !s.hand(ctx, e) {
				return false
			}
		}
		switch {
		case ctx.Err() != nil:
			return false
		case seen > s.seen:
			s.seen, began = seen, time.Now()
		}
		if met {
			s.takeOver(&kept)
			return true
		}
		if len(batch) > 0 && err == nil {
			continue
		}
		if err != nil || time.Since(began) > catchUpPatience {
			s.lose(event.StageRingOverwrite, event.NoClass, "not_spooled", between(s.seen, first), s.r.now().UTC())
			s.seen = first - 1
			continue
		}
		select {
		case <-time.After(catchUpRetry):
		case <-ctx.Done():
			return false
		case <-s.r.done: // nothing more will be written
			began = time.Time{}
		}
	}
}

// scan reads a batch of the events that are chosen. seen is the last sequence number that was looked at, below first, and met says that
// one from first on was seen: all before it have been looked at.
func (s *stream) scan(ctx context.Context, first int64) (batch []*event.Event, seen int64, met bool, err error) {
	seen = s.seen
	since := int64(0)
	if s.seen == 0 { // later on the place says it
		since, _ = s.m.Times()
	}
	err = s.r.opts.Spool.Scan(ctx, spool.Query{After: s.seen, Since: since}, func(rec spool.Record) bool {
		if rec.Sequence >= first {
			met = true
			return false
		}
		seen = rec.Sequence
		if !s.m.MayMatch(rec.JSON) {
			return true
		}
		e := new(event.Event)
		if json.Unmarshal(rec.JSON, e) != nil {
			return true
		}
		facts := event.FactsOf(e)
		if id, err := event.ParseID(e.Event.ID); err == nil && id.Install == s.r.began.Install && s.m.MatchStream(&facts) {
			batch = append(batch, e)
		}
		return len(batch) < catchUpBatch
	})
	return batch, seen, met, err
}

// takeOver has the ring go on where the spool ended.
func (s *stream) takeOver(kept *span) {
	s.behind = false
	s.pos = kept.after(s.seen)
}

// tellPruned tells of what the spool does not have any more.
func (s *stream) tellPruned() {
	oldest := s.r.opts.Spool.First()
	if s.seen == 0 || oldest == 0 || oldest <= s.seen+1 {
		return
	}
	s.lose(event.StageRingOverwrite, event.NoClass, "overwritten", between(s.seen, oldest), s.r.now().UTC())
	s.seen = oldest - 1
}

// between is how many events there were after the sequence number a and before b; 0 = nobody knows, since they are of different runs.
func between(a, b int64) int64 {
	if a>>seqBits != b>>seqBits {
		return 0
	}
	return b - a - 1
}

// hand gives the reader one event, and before it the gap that is to be told. It waits for the reader.
func (s *stream) hand(ctx context.Context, e *event.Event) bool {
	next := []*event.Event{e}
	if s.hasGap {
		next = []*event.Event{s.gapEvent(s.r.now().UTC()), e}
	}
	for _, e := range next {
		done, deadline := s.r.done, (<-chan time.Time)(nil)
		for given := false; !given; {
			select {
			case s.ch <- e:
				given = true
			case <-ctx.Done():
				return false
			case <-done: // as in run
				done, deadline = nil, time.After(time.Second)
			case <-deadline:
				return false
			}
		}
	}
	if s.hasGap {
		s.toldGap()
	}
	s.place, s.afterGap = e.Event.ID, false
	return true
}
