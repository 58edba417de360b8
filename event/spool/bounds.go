package spool

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/tapwall/tapwall/event"
)

// last is the newest segment, nil = there is none.
func (s *Spool) last() *segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.segments); n > 0 {
		return s.segments[n-1]
	}
	return nil
}

// drop forgets a segment.
func (s *Spool) drop(g *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments = slices.DeleteFunc(s.segments, func(x *segment) bool { return x == g })
}

// prune deletes the oldest segments beyond the bounds, but never the one that is written.
func (w *writer) prune() {
	s := w.s
	for {
		s.mu.Lock()
		var total int64
		for _, g := range s.segments {
			total += g.size
		}
		var oldest *segment
		if len(s.segments) > 0 && (s.segments[0] != w.g || w.f == nil) {
			oldest = s.segments[0]
		}
		s.mu.Unlock()
		if oldest == nil {
			return
		}
		// One more segment must fit until this is asked again.
		full := total+s.o.SegmentBytes > s.o.MaxBytes
		aged := oldest.newest < s.o.Now().Add(-s.o.MaxAge).UnixNano()
		if free, reserve := s.disk(); !full && !aged && free >= reserve {
			return
		}
		if err := os.Remove(oldest.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.log.Warn("an old segment cannot be deleted", "file", oldest.path, "err", err)
			return
		}
		s.drop(oldest)
	}
}

// disk says how many bytes of the disk are free, and how many of them the spool leaves so.
func (s *Spool) disk() (free, reserve int64) {
	free, total, err := s.o.Free(s.o.Dir)
	if err != nil {
		return 0, 0 // the write will say
	}
	return free, min(total/minFreeShare, minFreeBytes)
}

// shortOfDisk says that the disk has less room than the spool leaves free, though it has deleted what it could, and which class is still
// kept: none (NoClass) below the half of that. The status says so, too.
func (w *writer) shortOfDisk() (kept event.Class, short bool) {
	free, reserve := w.s.disk()
	if free < reserve {
		w.prune()
		free, reserve = w.s.disk()
	}
	kept, what := event.P0, "only denies, losses and notices are kept"
	if free < reserve/2 {
		kept, what = event.NoClass, "nothing is kept"
	}
	said := ""
	if short = free < reserve; short {
		said = fmt.Sprintf("the disk of %s is nearly full: %.1f MiB of the %.1f MiB that are left to others are free; %s",
			w.s.o.Dir, float64(free)/(1<<20), float64(reserve)/(1<<20), what)
	}
	w.s.mu.Lock()
	before := w.s.short
	w.s.short = said
	w.s.mu.Unlock()
	switch {
	case before == "" && short:
		w.s.log.Error("events are not kept", "why", said)
	case before != "" && !short:
		w.s.log.Info("the disk has room again: events are kept", "dir", w.s.o.Dir)
	}
	return kept, short
}
