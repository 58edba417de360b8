// Package jsonl keeps events in a file, one JSON object per line, rotated by size. It is a record.Sink: it has its own
// bounded queue and its own goroutine, so that a slow or full disk never holds up the recorder, and it counts exactly what it
// could not write.
package jsonl

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tapwall/tapwall/event"
)

// Defaults of Options.
const (
	DefaultMaxBytes   = 64 << 20
	DefaultKeep       = 10
	DefaultQueueLen   = 16_384
	DefaultFsyncEvery = time.Second
	DefaultRetryEvery = 500 * time.Millisecond

	// fileName is the file that is written; rotated ones carry the time of their rotation.
	fileName = "events.jsonl"

	batchBytes  = 256 << 10
	batchEvents = 512
)

// Options of a Sink.
type Options struct {
	Dir        string        // mandatory; made when missing
	MaxBytes   int64         // a file is rotated before it grows beyond; 0 = DefaultMaxBytes. One longer line is still written whole
	Keep       int           // rotated files kept; 0 = DefaultKeep
	QueueLen   int           // events waiting at most; 0 = DefaultQueueLen
	FsyncEvery time.Duration // what a power failure may cost; 0 = DefaultFsyncEvery
	RetryEvery time.Duration // after a failed write; 0 = DefaultRetryEvery
	Logger     *slog.Logger  // nil = discard
	Now        func() time.Time
	// Open opens the file for appending; nil = the operating system's. A test puts a failing disk here.
	Open func(path string) (File, error)
}

// File is what the sink needs of an *os.File.
type File interface {
	Write(p []byte) (int, error)
	Truncate(size int64) error
	Sync() error
	Stat() (os.FileInfo, error)
	Close() error
}

// Sink appends events to Dir/events.jsonl. A file moved or deleted from outside is noticed at the next write and begun anew; Reopen
// does that at once. All methods are safe for concurrent use.
//
// While the disk does not take anything, events wait in the queue and writing is tried again; what does not fit meanwhile is lost at
// stage file_io, else, when the sink just cannot keep up, at stage file_queue.
type Sink struct {
	opts Options
	log  *slog.Logger
	path string
	wake chan struct{}
	quit chan struct{}
	done chan struct{}

	mu      sync.Mutex
	queue   []*event.Event // a circle
	head, n int
	closed  bool
	reopen  bool
	loss    event.LossFunc
	status  event.SinkStatus // Pending is kept for the batch in the writer's hands; failing iff Error != ""
	torn    int64            // not reported yet

	w writer // the goroutine's
}

// Open opens or continues Dir/events.jsonl and starts the writer; Close ends it. A line that a crash left without its end is cut
// off and counted. An error means that the file cannot be opened or written at all.
func Open(o Options) (*Sink, error) {
	if o.Dir == "" {
		return nil, errors.New("jsonl: no directory given")
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.Keep <= 0 {
		o.Keep = DefaultKeep
	}
	if o.QueueLen <= 0 {
		o.QueueLen = DefaultQueueLen
	}
	if o.FsyncEvery <= 0 {
		o.FsyncEvery = DefaultFsyncEvery
	}
	if o.RetryEvery <= 0 {
		o.RetryEvery = DefaultRetryEvery
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Open == nil {
		o.Open = openFile
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Sink{
		opts: o, log: o.Logger, path: filepath.Join(o.Dir, fileName),
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}), queue: make([]*event.Event, o.QueueLen),
	}
	s.status.Target = s.path
	s.w = writer{s: s}
	torn, err := s.w.open()
	if err != nil {
		return nil, fmt.Errorf("jsonl: %w", err)
	}
	s.status.Bytes = s.w.size
	s.noteTorn(torn)
	go s.run()
	return s, nil
}

// openFile refuses nothing but what the system refuses; 0640 lets a group read the record.
func openFile(path string) (File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640) //nolint:gosec // path is the operator's
}

// Name is "jsonl".
func (s *Sink) Name() string { return "jsonl" }

// ReportLoss implements record.LossSource.
func (s *Sink) ReportLoss(f event.LossFunc) {
	s.mu.Lock()
	s.loss = f
	torn := s.torn
	s.torn = 0
	s.mu.Unlock()
	if torn > 0 {
		f(event.StageFileIO, event.NoClass, "torn_line", torn)
	}
}

// Append queues the batch; what does not fit is counted. It never blocks and returns nil.
func (s *Sink) Append(batch []*event.Event) error {
	var lost tally
	s.mu.Lock()
	s.status.Appended += int64(len(batch))
	for _, e := range batch {
		if s.closed || s.n == len(s.queue) {
			lost.add(e)
			continue
		}
		s.queue[(s.head+s.n)%len(s.queue)] = e
		s.n++
	}
	stage, reason := event.StageFileQueue, "full"
	switch {
	case s.closed:
		stage, reason = event.StageFileIO, "closed"
	case s.status.Error != "":
		stage, reason = event.StageFileIO, "write_failed"
	}
	if stage == event.StageFileIO {
		s.status.LostIO += lost.total()
	} else {
		s.status.LostQueue += lost.total()
	}
	report := s.loss
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	lost.report(report, stage, reason)
	return nil
}

// tally counts lost events by class.
type tally struct{ p0, p1, p2 int64 }

func (t *tally) add(e *event.Event) {
	switch e.Class() {
	case event.P0:
		t.p0++
	case event.P2:
		t.p2++
	case event.P1, event.NoClass:
		t.p1++
	}
}

func (t *tally) total() int64 { return t.p0 + t.p1 + t.p2 }

func (t *tally) report(f event.LossFunc, stage event.Stage, reason string) {
	if f == nil {
		return
	}
	for _, c := range []struct {
		class event.Class
		n     int64
	}{{event.P0, t.p0}, {event.P1, t.p1}, {event.P2, t.p2}} {
		if c.n > 0 {
			f(stage, c.class, reason, c.n)
		}
	}
}

// Reopen closes the file and opens its name again, as after SIGHUP from logrotate.
func (s *Sink) Reopen() {
	s.mu.Lock()
	s.reopen = true
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Status implements record.Sink.
func (s *Sink) Status() event.SinkStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Pending += int64(s.n)
	return st
}

// Close writes what is queued, tries once only if the disk does not take it, and ends the writer. What could not be written is
// counted at stage file_io. Later calls return nil.
func (s *Sink) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.done
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.quit)
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.Error != "" {
		return fmt.Errorf("jsonl: %s: %s", s.path, s.status.Error)
	}
	return nil
}

// take moves up to batchEvents from the queue into the writer's hands.
func (s *Sink) take(buf []*event.Event) []*event.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.n > 0 && len(buf) < batchEvents {
		buf = append(buf, s.queue[s.head])
		s.queue[s.head] = nil
		s.head = (s.head + 1) % len(s.queue)
		s.n--
		s.status.Pending++
	}
	return buf
}

// wantReopen reports and clears a wish to reopen.
func (s *Sink) wantReopen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := s.reopen
	s.reopen = false
	return want
}

// written counts n events as written and takes over size and health.
func (s *Sink) written(n int, size int64, err error) {
	s.mu.Lock()
	s.status.Written += int64(n)
	s.status.Pending -= int64(n)
	s.status.Bytes = size
	before := s.status.Error
	s.status.Error = ""
	if err != nil {
		s.status.Error = err.Error()
	}
	after := s.status.Error
	s.mu.Unlock()
	switch {
	case before == "" && after != "":
		s.log.Error("events cannot be written to the file; they wait, and are counted when lost", "file", s.path, "err", err)
	case before != "" && after == "":
		s.log.Info("events are written to the file again", "file", s.path)
	}
}

// lose counts events in the writer's hands as lost.
func (s *Sink) lose(events []*event.Event, reason string) {
	if len(events) == 0 {
		return
	}
	var lost tally
	for _, e := range events {
		lost.add(e)
	}
	s.mu.Lock()
	s.status.LostIO += lost.total()
	s.status.Pending -= lost.total()
	report := s.loss
	s.mu.Unlock()
	lost.report(report, event.StageFileIO, reason)
}

// noteTorn counts lines cut off.
func (s *Sink) noteTorn(n int64) {
	if n == 0 {
		return
	}
	s.log.Warn("a line without its end was cut off", "file", s.path)
	s.mu.Lock()
	s.status.Damaged += n
	report := s.loss
	if report == nil {
		s.torn += n
	}
	s.mu.Unlock()
	if report != nil {
		report(event.StageFileIO, event.NoClass, "torn_line", n)
	}
}

// line appends the event as one line.
func line(b []byte, e *event.Event) ([]byte, error) {
	b, err := event.AppendJSON(b, e)
	if err != nil {
		return b, err
	}
	return append(b, '\n'), nil
}
