package jsonl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The name of a rotated file holds the UTC time of its rotation; names sort by age.
const (
	rotatedPrefix = "events-"
	rotatedFormat = "20060102T150405.000000000Z"
	rotatedSuffix = ".jsonl"
)

// writer owns the file. Its methods run in the sink's goroutine, open also before it starts.
type writer struct {
	s     *Sink
	f     File
	size  int64 // up to here the file holds whole lines
	torn  bool  // a failed write may have left a part of a line behind size
	dirty bool  // written since the last fsync

	unsaved bool // the checkpoint is behind
	saved   time.Time

	buf  []byte
	ends []int // ends[i] is where line i ends in buf
	at   int   // the first line that is to be written
}

// add takes a document as the next line.
func (w *writer) add(doc []byte) {
	w.buf = append(append(w.buf, doc...), '\n')
	w.ends = append(w.ends, len(w.buf))
}

func (w *writer) empty() bool { return w.at == len(w.ends) }

// start is where line i begins in buf.
func (w *writer) start(i int) int {
	if i == 0 {
		return 0
	}
	return w.ends[i-1]
}

// write writes the lines that fit into the file, one at least, and returns how many it wrote. The rest stays. An error means that the disk
// did not take all of them.
func (w *writer) write() (n int, err error) {
	if !w.empty() {
		if err = w.ready(); err == nil && w.fit() == 0 {
			err = w.rotate()
		}
		if err == nil {
			n, err = w.put(max(w.fit(), 1))
		}
		w.at += n
		w.unsaved = w.unsaved || n > 0
	}
	if w.empty() {
		w.buf, w.ends, w.at = w.buf[:0], w.ends[:0], 0
	}
	return n, err
}

// fit is how many lines go into the file before it is to be rotated. An empty file takes a line of any length.
func (w *writer) fit() (n int) {
	start := w.start(w.at)
	for w.at+n < len(w.ends) && w.size+int64(w.ends[w.at+n]-start) <= w.s.o.MaxBytes {
		n++
	}
	if w.size == 0 {
		n = max(n, 1)
	}
	return n
}

// put writes n lines. After an error it says how many are whole in the file and cuts the rest off.
func (w *writer) put(n int) (int, error) {
	start := w.start(w.at)
	data := w.buf[start:w.ends[w.at+n-1]]
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
	for n > 0 && w.ends[w.at+n-1]-start > got {
		n--
	}
	if n > 0 {
		w.size += int64(w.ends[w.at+n-1] - start)
	}
	w.torn = true
	w.cut()
	return n, fmt.Errorf("write: %w", err)
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
			w.s.save(0) // what is in it was moved or deleted, and is not written again
			w.close()
		case own.Size() < w.size: // emptied in place, as logrotate's copytruncate does
			w.size, w.torn = own.Size(), false
		case own.Size() > w.size && !w.torn: // somebody else writes too
			w.size = own.Size()
		}
	}
	if w.f == nil {
		if _, err := w.open(); err != nil {
			return err
		}
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

// open opens the file, cuts off a last line without its end, and returns the last whole one; nil = there is none.
func (w *writer) open() (last []byte, err error) {
	if err := os.MkdirAll(w.s.o.Dir, 0o750); err != nil {
		return nil, err
	}
	f, err := w.s.o.Open(w.s.path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", w.s.path)
	}
	last, end, err := tail(w.s.path, info.Size())
	if err != nil {
		return nil, err
	}
	if end < info.Size() {
		w.s.log.Warn("a line without its end was cut off; it is written again", "file", w.s.path)
		if err := f.Truncate(end); err != nil {
			return nil, err
		}
	}
	w.f, w.size, w.torn = f, end, false
	return last, nil
}

// lastRotated is the last line of the newest rotated file; nil = there is none.
func (w *writer) lastRotated() ([]byte, error) {
	names, err := w.rotated()
	if err != nil || len(names) == 0 {
		return nil, err
	}
	path := filepath.Join(w.s.o.Dir, names[len(names)-1])
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	last, _, err := tail(path, info.Size())
	return last, err
}

// tail returns the last whole line of a file, without its end, and the length of the file up to there.
func tail(path string, size int64) (line []byte, end int64, err error) {
	f, err := os.Open(path) //nolint:gosec // path is the operator's
	if err != nil {
		return nil, 0, err
	}
	defer f.Close() //nolint:errcheck // read only
	for start := size; start > 0; {
		part := make([]byte, min(start, 64<<10))
		start -= int64(len(part))
		if _, err := f.ReadAt(part, start); err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, err
		}
		for i := bytes.LastIndexByte(part, '\n'); i >= 0; i = bytes.LastIndexByte(part, '\n') {
			if end > 0 {
				return append(part[i+1:], line...), end, nil
			}
			end, line, part = start+int64(i)+1, nil, part[:i]
		}
		if end > 0 {
			line = append(part, line...)
		}
	}
	return line, end, nil
}

// rotate gives the file a name with the time, opens a new one and deletes the oldest beyond Keep.
func (w *writer) rotate() error {
	names, err := w.rotated()
	if err != nil {
		return fmt.Errorf("rotate: %w", err)
	}
	at := w.s.o.Now().UTC()
	if n := len(names); n > 0 && w.rotatedName(at) <= names[n-1] {
		// The clock stands still or was set back: the newest file must still have the last name, or it would be deleted first.
		last, err := rotationTime(names[n-1])
		if err != nil {
			return fmt.Errorf("rotate: %w", err)
		}
		at = last.Add(time.Nanosecond)
	}
	name := w.rotatedName(at)
	if err := os.Rename(w.s.path, filepath.Join(w.s.o.Dir, name)); err != nil {
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
	entries, err := os.ReadDir(w.s.o.Dir) // sorted by name
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
		w.s.log.Warn("old event files cannot be listed", "dir", w.s.o.Dir, "err", err)
		return
	}
	for len(names) > w.s.o.Keep {
		if err := os.Remove(filepath.Join(w.s.o.Dir, names[0])); err != nil {
			w.s.log.Warn("an old event file cannot be deleted", "file", names[0], "err", err)
		}
		names = names[1:]
	}
}

// sync makes what is written durable.
func (w *writer) sync() error {
	if !w.dirty || w.f == nil {
		return nil
	}
	if err := w.f.Sync(); err != nil {
		return err
	}
	w.dirty = false
	return nil
}

func (w *writer) close() {
	if w.f == nil {
		return
	}
	if err := errors.Join(w.sync(), w.f.Close()); err != nil {
		w.s.log.Warn("closing the event file failed", "file", w.s.path, "err", err)
	}
	w.f, w.size, w.torn, w.dirty = nil, 0, false, false
}
