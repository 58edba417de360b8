// Package jsonl copies the record from the spool to a file, one JSON object per line as the spool has it, rotated by size. It reads by a
// cursor of its own: a slow or full disk holds up nobody, events wait in the spool, and how far the file has come survives any crash.
package jsonl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/spool"
)

// Defaults and bounds of Options.
const (
	DefaultMaxBytes   = 64 << 20
	DefaultKeep       = 10
	DefaultFsyncEvery = time.Second
	DefaultRetryEvery = 500 * time.Millisecond
	DefaultLinger     = 200 * time.Millisecond

	// fileName is the file that is written; rotated ones carry the time of their rotation.
	fileName = "events.jsonl"

	batchBytes   = 1 << 20
	batchRecords = 4096
	parting      = 3 * time.Second // for what waits when the sink is closed
)

// Options of a Sink.
type Options struct {
	Dir        string        // mandatory; made when missing
	Spool      *spool.Spool  // mandatory
	MaxBytes   int64         // a file is rotated before it grows beyond; 0 = DefaultMaxBytes. One longer line is still written whole
	Keep       int           // rotated files kept; 0 = DefaultKeep
	Linger     time.Duration // that events wait for others, so that many are one write; 0 = DefaultLinger
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

// Sink appends events to Dir/events.jsonl, each once, from Open to Close. A file moved or deleted from outside is noticed at the next write
// and begun anew. All methods are safe for concurrent use.
//
// The checkpoint is written behind the file, so that after a crash the file may have more than it says, and never less: what the last whole
// line of the newest file has already is not written again.
type Sink struct {
	o      Options
	log    *slog.Logger
	path   string
	cursor *spool.Cursor
	loss   atomic.Pointer[event.LossFunc]

	reading context.Context // ends when Close begins
	stop    context.CancelFunc
	gone    chan struct{}

	mu      sync.Mutex
	bytes   int64
	failing time.Time // since when; zero = it is not
	failure string
	success time.Time

	// Of the goroutine.
	w     writer
	chunk *spool.Chunk // that is being written; nil = none
	fate  spool.Done   // of its records
	last  event.ID     // what the file ended with at the start; zero = nothing that matters any more
}

// Open opens or continues Dir/events.jsonl and goes on where the last run came to; without a checkpoint, with the oldest event of the
// spool that is newer than the file. A line that a crash left without its end is cut off, and written again. An error means that
// the file cannot be opened or written at all.
func Open(o Options) (*Sink, error) {
	if o.Dir == "" || o.Spool == nil {
		return nil, errors.New("jsonl: no directory or no spool given")
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.Keep <= 0 {
		o.Keep = DefaultKeep
	}
	if o.Linger <= 0 {
		o.Linger = DefaultLinger
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
	s := &Sink{o: o, log: o.Logger.With("sink", "jsonl"), path: filepath.Join(o.Dir, fileName), gone: make(chan struct{})}
	s.w = writer{s: s}
	last, err := s.w.open()
	if err == nil && last == nil {
		last, err = s.w.lastRotated()
	}
	if err == nil {
		s.last = idOf(last)
		s.cursor, err = o.Spool.Cursor("jsonl")
	}
	if err != nil {
		s.w.close()
		return nil, fmt.Errorf("jsonl: %w", err)
	}
	s.bytes = s.w.size
	s.reading, s.stop = context.WithCancel(context.Background())
	go s.run()
	return s, nil
}

// openFile refuses nothing but what the system refuses; 0640 lets a group read the record.
func openFile(path string) (File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640) //nolint:gosec // path is the operator's
}

// idOf is the id of a document; zero if it has none.
func idOf(doc []byte) event.ID {
	var e struct {
		Event struct {
			ID string `json:"id"`
		} `json:"event"`
	}
	if json.Unmarshal(doc, &e) != nil {
		return event.ID{}
	}
	id, err := event.ParseID(e.Event.ID)
	if err != nil {
		return event.ID{}
	}
	return id
}

// Name is "jsonl".
func (s *Sink) Name() string { return "jsonl" }

// ReportLoss has f told of events that fell to the bounds of the spool before they were in the file.
func (s *Sink) ReportLoss(f event.LossFunc) { s.loss.Store(&f) }

// Status says how it is.
func (s *Sink) Status() event.SinkStatus {
	st := s.cursor.SinkStatus(s.o.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Name, st.Target, st.Bytes, st.Error = s.Name(), s.path, s.bytes, s.failure
	st.Export.LastSuccess, st.Export.FailingSince = s.success, s.failing
	return st
}

// Close writes what waits, for a few seconds and until the disk does not take it, and ends the goroutine. What is not written then is
// by the next run. Later calls return nil.
func (s *Sink) Close() error {
	if s.reading.Err() != nil {
		<-s.gone
		return nil
	}
	s.stop()
	<-s.gone
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != "" {
		return fmt.Errorf("jsonl: %s: %s", s.path, s.failure)
	}
	return nil
}

// run copies what comes until Close, then what is there.
func (s *Sink) run() {
	defer close(s.gone)
	for s.reading.Err() == nil {
		if s.step(s.reading, s.o.Linger) != nil {
			select {
			case <-s.reading.Done():
			case <-time.After(s.o.RetryEvery):
			}
		}
		s.save(s.o.FsyncEvery)
	}
	last, cancel := context.WithTimeout(context.Background(), parting)
	defer cancel()
	for s.pending() && s.step(last, 0) == nil && last.Err() == nil {
	}
	s.save(0)
	s.w.close()
}

func (s *Sink) pending() bool {
	_, n, _ := s.cursor.Status()
	return n > 0
}

// step writes some of the chunk in hand, or of the next that comes before ctx ends or something is to be saved. The error is a disk's.
func (s *Sink) step(ctx context.Context, linger time.Duration) error {
	if s.chunk == nil {
		if s.w.unsaved {
			short, cancel := context.WithTimeout(ctx, s.o.FsyncEvery)
			defer cancel()
			ctx = short
		}
		ch, err := s.cursor.Read(ctx, batchRecords, batchBytes, linger)
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return nil
		}
		if err != nil {
			s.health(fmt.Errorf("reading the spool: %w", err))
			return err
		}
		s.take(ch)
	}
	n, err := s.w.write()
	s.health(err)
	s.fate.Created += int64(n)
	if s.w.empty() {
		s.cursor.Done(s.chunk, s.fate)
		s.chunk = nil
		s.w.unsaved = true
	}
	return err
}

// take makes lines of a chunk, but of what the file has already.
func (s *Sink) take(ch *spool.Chunk) {
	s.chunk, s.fate = ch, spool.Done{}
	for _, r := range ch.Records {
		if s.known(r) {
			s.fate.Duplicates++
		} else {
			s.w.add(r.JSON)
		}
	}
}

// known says that the file had the record at the start. Those that it may have are the first ones that are read.
func (s *Sink) known(r spool.Record) bool {
	if s.last == (event.ID{}) {
		return false
	}
	if r.Sequence <= s.last.Sequence && idOf(r.JSON).Install == s.last.Install {
		return true
	}
	s.last = event.ID{}
	return false
}

// save makes what is written durable, then says so in the checkpoint, when the last time is at least every ago.
func (s *Sink) save(every time.Duration) {
	if !s.w.unsaved || time.Since(s.w.saved) < every {
		return
	}
	s.w.saved = time.Now()
	if err := s.w.sync(); err != nil {
		s.health(fmt.Errorf("fsync: %w", err))
		return
	}
	if s.chunk == nil {
		s.health(nil)
	}
	if err := s.cursor.Save(); err != nil {
		s.log.Error("how far the file has come cannot be written", "err", err)
	}
	s.w.unsaved = false
	if f := s.loss.Load(); f != nil {
		s.cursor.TellExpired(*f)
	}
}

// health takes over size and trouble.
func (s *Sink) health(err error) {
	s.mu.Lock()
	s.bytes = s.w.size
	since := s.failing
	if err == nil {
		s.failing, s.failure, s.success = time.Time{}, "", s.o.Now()
	} else {
		s.failure = err.Error()
		if since.IsZero() {
			s.failing = s.o.Now()
		}
	}
	s.mu.Unlock()
	switch {
	case err != nil && since.IsZero():
		s.log.Error("events cannot be written to the file; they wait in the spool", "file", s.path, "err", err)
	case err == nil && !since.IsZero():
		s.log.Info("events are written to the file again", "file", s.path, "after", s.o.Now().Sub(since).Round(time.Millisecond))
	}
}
