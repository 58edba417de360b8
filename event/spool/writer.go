package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/tapwall/tapwall/event"
)

// writer owns the file that is written. Its methods run in the spool's goroutine, prune also before it starts.
type writer struct {
	s      *Spool
	f      File
	g      *segment // that f is; the last one of the spool's
	next   uint64   // number of the next record
	sealed bool     // the last segment has its footer
	torn   bool     // a failed write may have left a part of a record behind g.size
	dirty  bool     // written since the last fsync
	synced time.Time

	batches []*Batch // being written
	from    int      // records of batches[0] that are done
}

func (w *writer) run() {
	s := w.s
	defer close(s.gone)
	w.synced = time.Now()
	timer := time.NewTimer(s.o.FsyncEvery)
	defer timer.Stop()
	closing := false
	for {
		w.take()
		var err error
		for len(w.batches) > 0 && err == nil {
			err = w.write()
		}
		if closing {
			w.refuse("closed")
			w.close()
			return
		}
		w.sync(s.o.FsyncEvery)
		wait := s.o.FsyncEvery
		wake := s.wake
		if err != nil {
			// What waits is tried again; new records fill the queue meanwhile. They do not wake: each would try the disk again.
			wait, wake = s.o.RetryEvery, nil
		}
		timer.Reset(wait)
		select {
		case <-wake:
		case <-timer.C:
			w.prune()
			w.shortOfDisk()
		case <-s.quit:
			closing = true
		}
	}
}

// take moves what waits into the writer's hands, if they are empty.
func (w *writer) take() {
	s := w.s
	if len(w.batches) > 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	size := 0
	n := 0
	for n < len(s.queue) && (n == 0 || size+len(s.queue[n].buf) <= batchBytes) {
		size += len(s.queue[n].buf)
		n++
	}
	w.batches = append(w.batches, s.queue[:n]...)
	s.queue = slices.Delete(s.queue, 0, n)
	s.queued -= size
}

// write writes the first batch, or the part of it that fits into the segment, then takes more. An error means that the disk did not take
// all.
func (w *writer) write() error {
	b := w.batches[0]
	if kept, short := w.shortOfDisk(); short {
		w.shed(b, kept)
	}
	if w.from == len(b.heads) {
		w.finish()
		return nil
	}
	err := w.ready()
	n := 0
	if err == nil {
		n, err = w.put(b)
	}
	w.kept(b, n, err)
	if w.from == len(b.heads) {
		w.finish()
	}
	return err
}

// finish is done with the first batch.
func (w *writer) finish() {
	w.s.recycle(w.batches[0])
	w.batches = slices.Delete(w.batches, 0, 1)
	w.from = 0
	if len(w.batches) == 0 {
		w.take()
	}
}

// put writes the records of b from w.from on that fit into the segment, one at least, and returns how many are whole in it.
func (w *writer) put(b *Batch) (n int, err error) {
	start := b.start(w.from)
	for n = 1; w.from+n < len(b.heads) && w.g.size+int64(b.heads[w.from+n].end-start) <= w.s.o.SegmentBytes; n++ {
	}
	data := b.buf[start:b.heads[w.from+n-1].end]
	got, err := w.f.Write(data)
	if err == nil && got < len(data) {
		err = io.ErrShortWrite
	}
	w.dirty = w.dirty || got > 0
	if err != nil {
		for n > 0 && b.heads[w.from+n-1].end-start > got {
			n--
		}
		w.torn = true
		err = fmt.Errorf("write: %w", err)
	}
	return n, err
}

// start is where record i begins in buf.
func (b *Batch) start(i int) int {
	if i == 0 {
		return 0
	}
	return b.heads[i-1].end
}

// kept takes n records of b for written, and the health from err.
func (w *writer) kept(b *Batch, n int, err error) {
	s := w.s
	s.mu.Lock()
	if n > 0 {
		w.g.size += int64(b.heads[w.from+n-1].end - b.start(w.from))
		for _, h := range b.heads[w.from : w.from+n] {
			w.g.note(h.seq, h.time)
		}
		w.next += uint64(n)
		s.status.Written += int64(n)
		s.status.Pending -= int64(n)
		for _, c := range s.cursors {
			if w.next < c.want {
				continue
			}
			select {
			case c.wake <- struct{}{}:
			default:
			}
		}
	}
	before := s.status.Error
	s.status.Error = ""
	if err != nil {
		s.status.Error = err.Error()
	}
	after := s.status.Error
	s.mu.Unlock()
	w.from += n
	if w.torn {
		w.mend()
	}
	if n > 0 {
		s.done(Outcome{Quiet: b.Quiet, Kept: int64(n)})
	}
	switch {
	case before == "" && after != "":
		s.log.Error("events cannot be written to the spool; they wait, and are counted when lost", "dir", s.o.Dir, "err", err)
	case before != "" && after == "":
		s.log.Info("events are written to the spool again", "dir", s.o.Dir)
	}
}

// mend removes what a failed write left behind; until it succeeds nothing else is written to the segment.
func (w *writer) mend() {
	if w.f != nil && w.f.Truncate(w.g.size) == nil {
		w.torn = false
	}
}

// lose counts records in the writer's hands as lost.
func (w *writer) lose(b *Batch, t Tally, stage event.Stage, reason string) {
	n := t.Total()
	if n == 0 {
		return
	}
	s := w.s
	s.mu.Lock()
	s.status.Lost += n
	s.status.Pending -= n
	s.mu.Unlock()
	s.done(Outcome{Quiet: b.Quiet, Lost: t, Stage: stage, Reason: reason})
}

// refuse loses all that waits.
func (w *writer) refuse(reason string) {
	for w.take(); len(w.batches) > 0; {
		b := w.batches[0]
		w.lose(b, b.tally(w.from, len(b.heads)), event.StageSpoolIO, reason)
		w.from = len(b.heads)
		w.finish()
	}
}

// shed takes from b what is not of the class, if any.
func (w *writer) shed(b *Batch, keep event.Class) {
	var lost Tally
	kept := b.heads[:w.from:w.from]
	at := b.start(w.from)
	begin := at
	for _, h := range b.heads[w.from:] {
		if h.class != keep {
			lost.Add(h.class, 1)
		} else {
			at += copy(b.buf[at:], b.buf[begin:h.end])
			kept = append(kept, head{end: at, seq: h.seq, time: h.time, class: h.class})
		}
		begin = h.end
	}
	b.heads, b.buf = kept, b.buf[:at]
	w.lose(b, lost, event.StageSpoolShed, "disk_nearly_full")
}

// ready makes sure that there is a segment with room.
func (w *writer) ready() error {
	s := w.s
	if w.f != nil {
		info, err := os.Stat(w.g.path)
		switch {
		case errors.Is(err, os.ErrNotExist): // deleted by others
			w.abandon()
			s.drop(w.g)
		case err == nil && !w.torn && info.Size() != w.g.size: // cut short, added to or replaced: what is written now would not be found
			w.abandon()
		}
	}
	if w.torn {
		if w.mend(); w.torn {
			w.abandon() // what is torn is found when it is read
		}
	}
	last := s.last()
	if w.f == nil && last != nil && !w.sealed && last.size < s.o.SegmentBytes {
		f, err := s.o.OpenFile(last.path)
		if err != nil {
			return err
		}
		w.f, w.g = f, last
	}
	if w.f != nil {
		b := w.batches[0]
		if w.g.count == 0 || w.g.size+int64(b.heads[w.from].end-b.start(w.from)) <= s.o.SegmentBytes {
			return nil
		}
		if err := w.seal(); err != nil {
			return err
		}
	}
	return w.begin()
}

// begin begins a segment.
func (w *writer) begin() error {
	s := w.s
	g := &segment{path: pathOf(s.o.Dir, w.next), first: w.next}
	if err := os.MkdirAll(s.o.Dir, 0o750); err != nil {
		return err
	}
	if err := os.Remove(g.path); err != nil && !errors.Is(err, os.ErrNotExist) { // one that never got a record
		return err
	}
	f, err := s.o.OpenFile(g.path)
	if err != nil {
		return err
	}
	header := appendHeader(nil, g.first)
	if n, err := f.Write(header); err != nil || n < len(header) {
		return errors.Join(fmt.Errorf("write: %w", errors.Join(err, io.ErrShortWrite)), f.Close(), os.Remove(g.path))
	}
	g.size = int64(len(header))
	s.mu.Lock()
	s.segments = append(s.segments, g)
	s.mu.Unlock()
	w.f, w.g, w.sealed = f, g, false
	w.prune()
	return nil
}

// seal ends a segment with its footer.
func (w *writer) seal() error {
	footer := w.g.appendFooter(nil)
	if n, err := w.f.Write(footer); err != nil || n < len(footer) {
		w.torn = true
		w.mend()
		return fmt.Errorf("write: %w", errors.Join(err, io.ErrShortWrite))
	}
	w.s.mu.Lock()
	w.g.size += int64(len(footer))
	w.s.mu.Unlock()
	w.sealed = true
	w.dirty = true
	w.close()
	return nil
}

// abandon leaves a segment as it is. One without records is forgotten: the next one has its name.
func (w *writer) abandon() {
	w.close()
	if w.g.count == 0 {
		w.s.drop(w.g)
	}
	w.sealed, w.torn = true, false
}

// sync makes what is written durable when the last time is at least every ago.
func (w *writer) sync(every time.Duration) {
	if !w.dirty || w.f == nil || time.Since(w.synced) < every {
		return
	}
	w.synced = time.Now()
	w.dirty = false
	if err := w.f.Sync(); err != nil {
		w.s.log.Error("the spool may lose events if power fails now", "dir", w.s.o.Dir, "err", err)
	}
	w.s.mu.Lock()
	w.s.status.Syncs++
	w.s.status.SyncTime += time.Since(w.synced).Seconds()
	w.s.mu.Unlock()
}

func (w *writer) close() {
	if w.f == nil {
		return
	}
	w.sync(0)
	if err := w.f.Close(); err != nil {
		w.s.log.Warn("closing a segment failed", "file", w.g.path, "err", err)
	}
	w.f = nil
}
