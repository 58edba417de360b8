package jsonl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tapwall/tapwall/event"
)

// The name of a rotated file holds the UTC time of its rotation; names sort by age.
const (
	rotatedPrefix = "events-"
	rotatedFormat = "20060102T150405.000000000Z"
	rotatedSuffix = ".jsonl"
)

// writer owns the file. Its methods run in the sink's goroutine, open also before it starts.
type writer struct {
	s      *Sink
	f      File
	size   int64 // up to here the file holds whole lines
	torn   bool  // a failed write may have left a part of a line behind size
	dirty  bool  // written since the last fsync
	synced time.Time

	batch []*event.Event
	buf   []byte
	ends  []int // ends[i] is where the line of batch[i] ends in buf
}

func (s *Sink) run() {
	defer close(s.done)
	w := &s.w
	w.synced = time.Now()
	timer := time.NewTimer(s.opts.FsyncEvery)
	defer timer.Stop()
	for {
		if s.wantReopen() {
			w.close()
			if err := w.ready(); err != nil {
				s.written(0, 0, err)
			}
		}
		w.batch = s.take(w.batch)
		var err error
		if len(w.batch) > 0 {
			err = w.write()
		}
		w.sync(s.opts.FsyncEvery)
		if err == nil && len(w.batch) > 0 {
			continue // a part was written; the rest comes with the next events
		}
		wait := s.opts.FsyncEvery
		if err != nil {
			wait = s.opts.RetryEvery
		} else if w.pending() {
			continue
		}
		timer.Reset(wait)
		if err != nil {
			// Not on wake: each new event would try the disk again.
			select {
			case <-timer.C:
			case <-s.quit:
			}
		} else {
			select {
			case <-s.wake:
			case <-timer.C:
			case <-s.quit:
			}
		}
		select {
		case <-s.quit:
			w.finish()
			return
		default:
		}
	}
}

func (w *writer) pending() bool {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.s.n > 0
}

// finish writes the rest, gives up at the first error, and closes.
func (w *writer) finish() {
	for {
		w.batch = w.s.take(w.batch)
		if len(w.batch) == 0 {
			break
		}
		if err := w.write(); err != nil {
			for {
				w.s.lose(w.batch, "closed")
				if w.batch = w.s.take(w.batch[:0]); len(w.batch) == 0 {
					break
				}
			}
			break
		}
	}
	w.sync(0)
	w.close()
}

// write writes as much of the batch as it can and keeps the rest. An error means that the disk did not take all of it.
func (w *writer) write() error {
	n, err := w.try()
	w.s.written(n, w.size, err)
	rest := copy(w.batch, w.batch[n:])
	clear(w.batch[rest:])
	w.batch = w.batch[:rest]
	return err
}

// try returns how many events of the batch are in the file now.
func (w *writer) try() (int, error) {
	if err := w.ready(); err != nil {
		return 0, err
	}
	n := w.encode()
	if n == 0 {
		return 0, nil
	}
	if w.size > 0 && w.size+int64(w.ends[n-1]) > w.s.opts.MaxBytes {
		// Fill the file up with the lines that still fit, then rotate.
		fit := 0
		for fit < n && w.size+int64(w.ends[fit]) <= w.s.opts.MaxBytes {
			fit++
		}
		if fit == 0 {
			if err := w.rotate(); err != nil {
				return 0, err
			}
		} else {
			n = fit
		}
	}
	return w.put(n)
}

// encode fills buf with the lines of the batch, up to batchBytes or one file. An event that cannot be encoded is lost.
func (w *writer) encode() int {
	w.buf, w.ends = w.buf[:0], w.ends[:0]
	limit := min(batchBytes, int(min(w.s.opts.MaxBytes, batchBytes)))
	for i := 0; i < len(w.batch); {
		b, err := line(w.buf, w.batch[i])
		if err != nil {
			w.s.log.Error("an event cannot be written as JSON", "id", w.batch[i].Event.ID, "err", err)
			w.s.lose(w.batch[i:i+1], "encoding")
			w.batch = slices.Delete(w.batch, i, i+1)
			continue
		}
		if len(b) > limit && i > 0 {
			break
		}
		w.buf = b
		w.ends = append(w.ends, len(b))
		i++
	}
	return len(w.ends)
}

// put writes the first n lines of buf. After an error it says how many lines are whole in the file and cuts the rest off.
func (w *writer) put(n int) (int, error) {
	data := w.buf[:w.ends[n-1]]
	got, err := w.f.Write(data)
	if err == nil && got < len(data) {
		err = io.ErrShortWrite
	}
	w.dirty = w.dirty || got > 0
	if err == nil {
		w.size += int64(len(data))
		if w.unlinked() {
			// Deleted between looking and writing: the lines are gone with the file, so they go to the next one.
			w.close()
			return 0, nil
		}
		return n, nil
	}
	whole := 0
	for whole < n && w.ends[whole] <= got {
		whole++
	}
	if whole > 0 {
		w.size += int64(w.ends[whole-1])
	}
	w.torn = true
	w.cut()
	return whole, fmt.Errorf("write: %w", err)
}

// cut removes what a failed write left behind; until it succeeds nothing else is written.
func (w *writer) cut() {
	if w.torn && w.f != nil && w.f.Truncate(w.size) == nil {
		w.torn = false
	}
}

// ready makes sure that the file is open, still under its name, and ends with a whole line.
func (w *writer) ready() error {
	if w.f != nil {
		named, err1 := os.Stat(w.s.path)
		own, err2 := w.f.Stat()
		switch {
		case err1 != nil || err2 != nil || !os.SameFile(named, own):
			w.cut()
			w.close() // moved or deleted
		case own.Size() < w.size: // emptied in place, as logrotate's copytruncate does
			w.size, w.torn = own.Size(), false
		case own.Size() > w.size && !w.torn: // somebody else writes too
			w.size = own.Size()
		}
	}
	if w.f == nil {
		torn, err := w.open()
		if err != nil {
			return err
		}
		w.s.noteTorn(torn)
	}
	if w.torn {
		if w.cut(); w.torn {
			return errors.New("the end of a failed write cannot be removed")
		}
	}
	return nil
}

func (w *writer) unlinked() bool {
	named, err := os.Stat(w.s.path)
	if err == nil {
		own, err := w.f.Stat()
		return err == nil && !os.SameFile(named, own) && links(own) == 0
	}
	own, err := w.f.Stat()
	return err == nil && links(own) == 0
}

// open opens the file and cuts off a last line without its end; torn is the number of lines cut, 0 or 1.
func (w *writer) open() (torn int64, err error) {
	if err := os.MkdirAll(w.s.opts.Dir, 0o750); err != nil {
		return 0, err
	}
	f, err := w.s.opts.Open(w.s.path)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is not a regular file", w.s.path)
	}
	end, err := wholeLines(w.s.path, info.Size())
	if err != nil {
		return 0, err
	}
	if end < info.Size() {
		if err := f.Truncate(end); err != nil {
			return 0, err
		}
		torn = 1
	}
	w.f, w.size, w.torn = f, end, false
	return torn, nil
}

// wholeLines returns the length of the file up to its last line end.
func wholeLines(path string, size int64) (int64, error) {
	if size == 0 {
		return 0, nil
	}
	f, err := os.Open(path) //nolint:gosec // path is the operator's
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // read only
	buf := make([]byte, 64<<10)
	for end := size; end > 0; {
		start := max(0, end-int64(len(buf)))
		part := buf[:end-start]
		if _, err := f.ReadAt(part, start); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			return start + int64(i) + 1, nil
		}
		end = start
	}
	return 0, nil
}

// rotate gives the file a name with the time, opens a new one and deletes the oldest beyond Keep.
func (w *writer) rotate() error {
	w.sync(0)
	names, err := w.rotated()
	if err != nil {
		return fmt.Errorf("rotate: %w", err)
	}
	at := w.s.opts.Now().UTC()
	if n := len(names); n > 0 && w.rotatedName(at) <= names[n-1] {
		// The clock stands still or was set back: the newest file must still have the last name, or it would be deleted first.
		last, err := rotationTime(names[n-1])
		if err != nil {
			return fmt.Errorf("rotate: %w", err)
		}
		at = last.Add(time.Nanosecond)
	}
	name := w.rotatedName(at)
	if err := os.Rename(w.s.path, filepath.Join(w.s.opts.Dir, name)); err != nil {
		return fmt.Errorf("rotate: %w", err)
	}
	w.close()
	w.prune()
	if _, err := w.open(); err != nil {
		return fmt.Errorf("rotate: %w", err)
	}
	return nil
}

func (w *writer) rotatedName(at time.Time) string {
	return rotatedPrefix + at.Format(rotatedFormat) + rotatedSuffix
}

// rotationTime reads the time in the name of a rotated file; an error means that it is none.
func rotationTime(name string) (time.Time, error) {
	at := strings.TrimSuffix(strings.TrimPrefix(name, rotatedPrefix), rotatedSuffix)
	if rotatedPrefix+at+rotatedSuffix != name {
		return time.Time{}, fmt.Errorf("%s is no rotated file", name)
	}
	return time.Parse(rotatedFormat, at)
}

// rotated lists the names of the rotated files, oldest first, and no other names.
func (w *writer) rotated() ([]string, error) {
	entries, err := os.ReadDir(w.s.opts.Dir) // sorted by name
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if _, err := rotationTime(e.Name()); err == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// prune deletes the oldest rotated files beyond Keep.
func (w *writer) prune() {
	names, err := w.rotated()
	if err != nil {
		w.s.log.Warn("old event files cannot be listed", "dir", w.s.opts.Dir, "err", err)
		return
	}
	for len(names) > w.s.opts.Keep {
		if err := os.Remove(filepath.Join(w.s.opts.Dir, names[0])); err != nil {
			w.s.log.Warn("an old event file cannot be deleted", "file", names[0], "err", err)
		}
		names = names[1:]
	}
}

// sync makes what is written durable when the last time is at least every ago.
func (w *writer) sync(every time.Duration) {
	if !w.dirty || w.f == nil || time.Since(w.synced) < every {
		return
	}
	w.synced = time.Now()
	w.dirty = false
	if err := w.f.Sync(); err != nil {
		w.s.written(0, w.size, fmt.Errorf("fsync: %w", err))
	}
}

func (w *writer) close() {
	if w.f == nil {
		return
	}
	w.sync(0)
	if err := w.f.Close(); err != nil {
		w.s.log.Warn("closing the event file failed", "file", w.s.path, "err", err)
	}
	w.f, w.size, w.torn = nil, 0, false
}
