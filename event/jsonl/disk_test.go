package jsonl_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/jsonl"
)

// faultyFile fails writes, in the middle of a line too, and truncations.
type faultyFile struct {
	*os.File
	room  *atomic.Int64 // bytes the disk still takes; negative = all
	stuck *atomic.Bool  // truncation fails
	block chan struct{} // writes wait for it
}

func (f *faultyFile) Write(p []byte) (int, error) {
	if f.block != nil {
		<-f.block
	}
	room := f.room.Load()
	if room < 0 || int64(len(p)) <= room {
		if room >= 0 {
			f.room.Add(-int64(len(p)))
		}
		return f.File.Write(p)
	}
	f.room.Store(0)
	n, err := f.File.Write(p[:room])
	if err != nil {
		return n, err
	}
	return n, syscall.ENOSPC
}

func (f *faultyFile) Truncate(size int64) error {
	if f.stuck.Load() {
		return syscall.EIO
	}
	return f.File.Truncate(size)
}

func faulty(room *atomic.Int64, stuck *atomic.Bool, block chan struct{}) func(string) (jsonl.File, error) {
	return func(path string) (jsonl.File, error) {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		return &faultyFile{File: f, room: room, stuck: stuck, block: block}, nil
	}
}

// TestDiskFull runs out of space in the middle of lines, again and again: everything is written once, waiting, or counted.
func TestDiskFull(t *testing.T) {
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 7))
		var room atomic.Int64
		var stuck atomic.Bool
		var l losses
		dir := t.TempDir()
		s := open(t, jsonl.Options{Dir: dir, QueueLen: 200, MaxBytes: 20_000, Keep: 1000, Open: faulty(&room, &stuck, nil)})
		s.ReportLoss(l.report)
		const total = 3000
		sent, failures := 0, 0
		for sent < total {
			if rng.IntN(4) == 0 {
				stuck.Store(rng.IntN(3) == 0)
				room.Store(int64(rng.IntN(3000)))
			}
			n := min(1+rng.IntN(60), total-sent)
			if err := s.Append(events(sent, n)); err != nil {
				t.Fatal(err)
			}
			sent += n
			if rng.IntN(3) == 0 { // the writer gets its turn
				until(t, s, func(st event.SinkStatus) bool { return st.Error != "" || st.Pending == 0 })
			}
			if st := s.Status(); st.Error != "" {
				failures++
			}
		}
		// Once the writer has met the full disk, what does not fit is the disk's fault.
		room.Store(0)
		before := s.Status().LostIO
		st := until(t, s, func(st event.SinkStatus) bool {
			if st.LostIO >= before+500 {
				return true
			}
			if err := s.Append(events(sent, 100)); err != nil {
				t.Fatal(err)
			}
			sent += 100
			return false
		})
		if failures == 0 || !strings.Contains(st.Error, "no space left") && !strings.Contains(st.Error, "cannot be removed") {
			t.Errorf("failures seen %d, status %+v", failures, st)
		}
		stuck.Store(false)
		room.Store(-1) // space is back
		st = settle(t, s)
		until(t, s, func(st event.SinkStatus) bool { return st.Error == "" })
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		current, rotated := files(t, dir)
		got := sequences(t, append(rotated, current)...)
		if int64(len(got)) != st.Written || st.Appended != int64(sent) {
			t.Errorf("%d lines in the files: %+v", len(got), st)
		}
		if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Error("lines are out of order or twice")
		}
		if l.of("file_io/") != st.LostIO || l.of("file_queue/") != st.LostQueue || st.LostIO+st.LostQueue+st.Written != st.Appended {
			t.Errorf("reported %v: %+v", l.n, st)
		}
	}
}

// TestRealDiskFull is the same on a real file system of 1 MB.
func TestRealDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root; TestDiskFull covers the same with an injected fault")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tapwall-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	t.Cleanup(func() { // after the sink is closed
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 960<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	var l losses
	s := open(t, jsonl.Options{Dir: dir, QueueLen: 100})
	s.ReportLoss(l.report)
	for i := range 50 {
		if i == 40 { // what does not fit from here on is the disk's fault
			until(t, s, func(st event.SinkStatus) bool { return st.Error != "" })
		}
		if err := s.Append(events(i*20, 20)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	st := s.Status()
	if !strings.Contains(st.Error, "no space left on device") || st.LostIO == 0 || l.of("file_io/P0/write_failed") == 0 {
		t.Errorf("on the full disk: %+v, reported %v", st, l.n)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	st = settle(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	got := sequences(t, filepath.Join(dir, "events.jsonl"))
	if int64(len(got)) != st.Written || st.Written+st.LostIO+st.LostQueue != 1000 || !slices.IsSorted(got) {
		t.Errorf("%d lines: %+v", len(got), st)
	}
	if l.of("file_") != st.LostIO+st.LostQueue {
		t.Errorf("reported %v: %+v", l.n, st)
	}
}

// TestSlowDisk: a write that hangs holds up nobody; what does not fit is counted.
func TestSlowDisk(t *testing.T) {
	var room atomic.Int64
	room.Store(-1)
	block := make(chan struct{})
	var l losses
	dir := t.TempDir()
	s := open(t, jsonl.Options{Dir: dir, QueueLen: 100, Open: faulty(&room, new(atomic.Bool), block)})
	s.ReportLoss(l.report)
	begin := time.Now()
	for i := range 100 {
		if err := s.Append(events(i*10, 10)); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("Append took %v", d)
	}
	st := s.Status()
	if st.LostQueue < 1000-100-512 || st.LostIO != 0 || st.Error != "" || l.of("file_queue/P0/full") == 0 {
		t.Errorf("%+v, reported %v", st, l.n)
	}
	close(block)
	st = settle(t, s)
	if got := sequences(t, filepath.Join(dir, "events.jsonl")); int64(len(got)) != st.Written || l.of("file_queue/") != st.LostQueue {
		t.Errorf("%d lines, reported %v: %+v", len(got), l.n, st)
	}
}

func TestCloseOnFullDisk(t *testing.T) {
	var room atomic.Int64
	var l losses
	s := open(t, jsonl.Options{Dir: t.TempDir(), Open: faulty(&room, new(atomic.Bool), nil)})
	s.ReportLoss(l.report)
	if err := s.Append(events(0, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("Close says %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("the second Close says %v", err)
	}
	if err := s.Append(events(0, 3)); err != nil {
		t.Error(err)
	}
	if st := s.Status(); st.LostIO != 1003 || st.Pending != 0 || l.of("file_io/") != 1003 {
		t.Errorf("%+v, reported %v", st, l.n)
	}
}
