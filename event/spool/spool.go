// Package spool keeps the record on disk: events in segments of a bounded size, with a checksum each, from which they are searched
// and read back after a restart. Appending never waits for the disk: batches go to one goroutine, which says later what became of
// them. A torn tail is cut off, a spoilt record costs the rest of its segment, a full disk costs what comes while it is full, and
// each is counted. What is oldest goes when bounds of bytes, age or free disk say so.
package spool

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/tapwall/tapwall/event"
)

// Defaults of Options.
const (
	DefaultMaxBytes     = 2 << 30
	DefaultMaxAge       = 72 * time.Hour
	DefaultSegmentBytes = 16 << 20
	DefaultFsyncEvery   = time.Second
	DefaultRetryEvery   = 500 * time.Millisecond

	// minFree is what the spool leaves free of its disk: a twentieth, and a GiB is always enough.
	minFreeShare, minFreeBytes = 20, 1 << 30

	queueBytes = 8 << 20 // that wait for the disk
	batchBytes = 1 << 20 // that are written at once
)

// Options of Open.
type Options struct {
	Dir          string        // mandatory; made when missing
	MaxBytes     int64         // of all segments; 0 = DefaultMaxBytes
	MaxAge       time.Duration // of what is kept, by the clock; 0 = DefaultMaxAge
	SegmentBytes int64         // a segment is followed by the next before it grows beyond; 0 = DefaultSegmentBytes
	FsyncEvery   time.Duration // what a power failure may cost; 0 = DefaultFsyncEvery
	RetryEvery   time.Duration // after a failed write; 0 = DefaultRetryEvery
	Logger       *slog.Logger  // nil = discard
	Now          func() time.Time

	// A test puts faults here; nil = the operating system's.
	OpenFile func(path string) (File, error)
	Free     func(dir string) (free, total int64, err error)
}

// File is what the spool needs of an *os.File that it appends to.
type File interface {
	Write(p []byte) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// Outcome is what became of records that were appended together.
type Outcome struct {
	Quiet bool  // of the Batch
	Kept  int64 // the write has returned
	Lost  Tally
	// Stage and Reason say why some were lost.
	Stage  event.Stage
	Reason string
}

// Tally counts records by class.
type Tally struct{ P0, P1, P2 int64 }

// Add counts n of a class.
func (t *Tally) Add(c event.Class, n int64) {
	switch c {
	case event.P0:
		t.P0 += n
	case event.P2:
		t.P2 += n
	case event.P1, event.NoClass:
		t.P1 += n
	}
}

// Total is the sum of all classes.
func (t Tally) Total() int64 { return t.P0 + t.P1 + t.P2 }

// Spool is open from Open to Close. All methods are safe for concurrent use.
type Spool struct {
	o   Options
	log *slog.Logger

	wake chan struct{}
	quit chan struct{}
	gone chan struct{} // closed when the goroutine has ended

	scans chan struct{} // bounds how many read at once

	mu       sync.Mutex
	closed   bool
	queue    []*Batch
	queued   int // bytes
	free     []*Batch
	segments []*segment        // oldest first; the last one is written if writer.file is open
	status   event.SpoolStatus // Bytes, Segments, Events and Oldest are worked out
	short    string            // that the disk has no room, and what is kept all the same; "" = it has
	cursors  []*Cursor

	done   func(Outcome)
	spoilt func(n int64, reason string)
	torn   int64 // not told yet

	w writer // the goroutine's
}

// Open opens or makes the spool and starts its goroutine; Close ends it. What a crash left torn is cut off and counted.
func Open(o Options) (*Spool, error) {
	if o.Dir == "" {
		return nil, errors.New("spool: no directory given")
	}
	o.MaxBytes = cmp.Or(max(o.MaxBytes, 0), DefaultMaxBytes)
	o.MaxAge = cmp.Or(max(o.MaxAge, 0), DefaultMaxAge)
	o.SegmentBytes = min(cmp.Or(max(o.SegmentBytes, 0), DefaultSegmentBytes), max(o.MaxBytes/4, int64(headerLen)))
	o.FsyncEvery = cmp.Or(max(o.FsyncEvery, 0), DefaultFsyncEvery)
	o.RetryEvery = cmp.Or(max(o.RetryEvery, 0), DefaultRetryEvery)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OpenFile == nil {
		o.OpenFile = openFile
	}
	if o.Free == nil {
		o.Free = freeOf
	}
	s := &Spool{
		o: o, log: o.Logger, wake: make(chan struct{}, 1), quit: make(chan struct{}), gone: make(chan struct{}), scans: make(chan struct{}, 2),
	}
	s.done, s.spoilt = func(Outcome) {}, func(int64, string) {}
	s.status.Dir, s.status.MaxBytes = o.Dir, o.MaxBytes
	s.w = writer{s: s}
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	s.w.prune()
	go s.w.run()
	return s, nil
}

// Tell has done told what became of records, in the order in which they were appended, but for those that found no room in the queue, which
// are told of at once; and spoilt of records that were kept once and cannot be read any more, also of those that Open found. Neither may
// block or call the spool. It must be called before the first Append.
func (s *Spool) Tell(done func(Outcome), spoilt func(n int64, reason string)) {
	s.done, s.spoilt = done, spoilt
	if s.torn > 0 {
		spoilt(s.torn, "torn")
	}
}

func openFile(path string) (File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640) //nolint:gosec // path is the operator's
}

// freeOf says how much of the disk of dir is free for this process, and how large it is.
func freeOf(dir string) (free, total int64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

// Batch collects events to append. It belongs to one goroutine until it is given to Append.
type Batch struct {
	Quiet bool // passed on to Outcome
	buf   []byte
	heads []head
}

// head is what is known of a record of a batch.
type head struct {
	end   int // in buf
	seq   int64
	time  int64
	class event.Class
}

// Batch gives an empty one.
func (s *Spool) Batch() *Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		b := s.free[n-1]
		s.free = s.free[:n-1]
		return b
	}
	return new(Batch)
}

// Add appends the document of e. The error is that of event.AppendJSON, or says that it is too large to be read back; then e is not in the
// batch.
func (b *Batch) Add(e *event.Event) error {
	h := head{seq: e.Event.Sequence, time: e.Timestamp.UnixNano(), class: e.Class()}
	start := len(b.buf)
	b.buf = append(b.buf, make([]byte, recordLen)...)
	buf, err := event.AppendJSON(b.buf, e)
	if n := len(buf) - start - recordLen; err == nil && n > maxRecord {
		err = fmt.Errorf("the document has %d bytes, which is more than %d", n, maxRecord)
	}
	if err != nil {
		b.buf = b.buf[:start]
		return err
	}
	b.buf = buf
	seal(b.buf[start:], h)
	h.end = len(b.buf)
	b.heads = append(b.heads, h)
	return nil
}

// Append has the batch written, which belongs to the spool from now on, and does not wait. The function given to Tell is told what became
// of it.
func (s *Spool) Append(b *Batch) {
	n := int64(len(b.heads))
	if n == 0 {
		s.recycle(b)
		return
	}
	s.mu.Lock()
	s.status.Appended += n
	if !s.closed && (s.queued == 0 || s.queued+len(b.buf) <= queueBytes) {
		s.queue = append(s.queue, b)
		s.queued += len(b.buf)
		s.status.Pending += n
		s.mu.Unlock()
		select {
		case s.wake <- struct{}{}:
		default:
		}
		return
	}
	reason := "slow_disk"
	switch {
	case s.closed:
		reason = "closed"
	case s.status.Error != "":
		reason = "write_failed"
	}
	s.status.Lost += n
	s.mu.Unlock()
	s.done(Outcome{Quiet: b.Quiet, Lost: b.tally(0, len(b.heads)), Stage: event.StageSpoolIO, Reason: reason})
	s.recycle(b)
}

// tally counts the records from i to j.
func (b *Batch) tally(i, j int) (t Tally) {
	for _, h := range b.heads[i:j] {
		t.Add(h.class, 1)
	}
	return t
}

// recycle takes back a batch.
func (s *Spool) recycle(b *Batch) {
	if cap(b.buf) > batchBytes {
		return // an unusual one
	}
	b.buf, b.heads, b.Quiet = b.buf[:0], b.heads[:0], false
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) < 16 {
		s.free = append(s.free, b)
	}
}

// Status says how it is.
func (s *Spool) Status() event.SpoolStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Error = cmp.Or(st.Error, s.short)
	st.Segments = len(s.segments)
	oldest := int64(0)
	for _, g := range s.segments {
		st.Bytes += g.size
		st.Events += g.count
		if g.count > 0 && (oldest == 0 || g.oldest < oldest) {
			oldest = g.oldest
		}
	}
	if oldest != 0 {
		st.Oldest = time.Unix(0, oldest).UTC()
	}
	return st
}

// Newest is the time of the newest event that can be read back; zero = there is none.
func (s *Spool) Newest() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := int64(0)
	for _, g := range s.segments {
		newest = max(newest, g.newest)
	}
	if newest == 0 {
		return time.Time{}
	}
	return time.Unix(0, newest).UTC()
}

// First is the least sequence number of what can be read back, 0 = there is nothing.
func (s *Spool) First() (seq int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.segments {
		if g.count > 0 && (seq == 0 || g.firstSeq < seq) {
			seq = g.firstSeq
		}
	}
	return seq
}

// Whole says that nothing has fallen to the bounds since the spool was made.
func (s *Spool) Whole() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.segments) == 0 {
		return s.w.next == 0
	}
	return s.segments[0].first == 0
}

// Close writes what waits, tries once only if the disk does not take it, and ends the goroutine. Later calls return nil.
func (s *Spool) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if !closed {
		close(s.quit)
	}
	<-s.gone
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.Error != "" && !closed {
		return fmt.Errorf("spool: %s", s.status.Error)
	}
	return nil
}
