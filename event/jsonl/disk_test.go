package jsonl_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/jsonl"
	"github.com/tapwall/tapwall/event/spool"
)

// faultyFile fails writes, in the middle of a line too, and truncations.
type faultyFile struct {
	*os.File
	room  *atomic.Int64 // bytes the disk still takes; negative = all
	stuck *atomic.Bool  // truncation fails
}

func (f *faultyFile) Write(p []byte) (int, error) {
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

func faulty(room *atomic.Int64, stuck *atomic.Bool) func(string) (jsonl.File, error) {
	return func(path string) (jsonl.File, error) {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		return &faultyFile{File: f, room: room, stuck: stuck}, nil
	}
}

// TestDiskFull runs out of space in the middle of lines, again and again: everything is written once, in order, and nothing is lost.
func TestDiskFull(t *testing.T) {
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 7))
		var room atomic.Int64
		var stuck atomic.Bool
		dir := t.TempDir()
		r := open(t, dir, jsonl.Options{MaxBytes: 20_000, Keep: 1000, Open: faulty(&room, &stuck)}, spool.Options{})
		sent, failures := 0, 0
		for sent < 3000 {
			if rng.IntN(4) == 0 {
				stuck.Store(rng.IntN(3) == 0)
				room.Store(int64(rng.IntN(20_000)))
			}
			n := 1 + rng.IntN(60)
			add(t, r.spool, sent, n)
			sent += n
			if rng.IntN(5) == 0 { // the writer gets its turn
				r.until(func(st event.SinkStatus) bool { return st.Error != "" || st.Written >= int64(sent-100) })
			}
			if st := r.Status(); st.Error != "" {
				failures++
			}
		}
		room.Store(0)
		st := r.until(func(st event.SinkStatus) bool { return st.Error != "" })
		if failures == 0 || !strings.Contains(st.Error, "no space left") && !strings.Contains(st.Error, "cannot be removed") {
			t.Errorf("failures seen %d, status %+v", failures, st)
		}
		stuck.Store(false)
		room.Store(-1) // space is back
		if st = r.settle(); st.Error != "" || st.Written != int64(sent) {
			t.Errorf("of %d: %+v", sent, st)
		}
		r.close()
		if diff := cmp.Diff(count(0, sent), sequences(t, files(t, dir)...)); diff != "" {
			t.Errorf("seed %d: (-want +got)\n%s", seed, diff)
		}
	}
}

// TestRealDiskFull is the same on a real file system of 1 MB.
func TestRealDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root; TestDiskFull covers the same with an injected fault")
	}
	dir, small := t.TempDir(), t.TempDir()
	if err := syscall.Mount("tapwall-test", small, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	t.Cleanup(func() { // after the sink is closed
		if err := syscall.Unmount(small, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	ballast := filepath.Join(small, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 960<<10), 0o600))
	r := open(t, dir, jsonl.Options{Dir: small}, spool.Options{})
	for i := range 50 {
		add(t, r.spool, i*20, 20)
		time.Sleep(time.Millisecond)
	}
	if st := r.until(func(st event.SinkStatus) bool { return st.Error != "" }); !strings.Contains(st.Error, "no space left on device") ||
		st.Pending == 0 {
		t.Errorf("on the full disk: %+v", st)
	}
	must(t, os.Remove(ballast))
	if st := r.settle(); st.Written != 1000 || st.Error != "" {
		t.Errorf("%+v", st)
	}
	if diff := cmp.Diff(count(0, 1000), sequences(t, filepath.Join(small, "events.jsonl"))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// What falls to the bounds of the spool while the disk is full is expired, what is spoilt in it is corrupt, and both are counted once.
func TestExpired(t *testing.T) {
	dir := t.TempDir()
	var room atomic.Int64
	var l losses
	so := spool.Options{MaxBytes: 200_000, SegmentBytes: 10_000}
	r := open(t, dir, jsonl.Options{FsyncEvery: time.Millisecond, Open: faulty(&room, new(atomic.Bool))}, so)
	r.ReportLoss(l.report)
	for i := range 100 {
		add(t, r.spool, 50*i, 50)
		if i == 0 {
			r.until(func(st event.SinkStatus) bool { return st.Error != "" })
		}
	}
	for end := time.Now().Add(20 * time.Second); r.spool.Status().Pending > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	segments, err := filepath.Glob(filepath.Join(dir, "spool", "*.events"))
	must(t, err)
	spoil := segments[len(segments)/2]
	b, err := os.ReadFile(spoil)
	must(t, err)
	b[len(b)/2] ^= 1
	must(t, os.WriteFile(spoil, b, 0o640))
	room.Store(-1)
	st := r.settle()
	if st.Export.Expired == 0 || st.Export.Corrupt == 0 || st.Export.Corrupt > 100 || st.Appended != 5000 {
		t.Errorf("%+v", st)
	}
	r.until(func(event.SinkStatus) bool { return l.of("expired/not_delivered_in_time") == st.Export.Expired })
	r.close()
	got := sequences(t, files(t, dir)...)
	if int64(len(got)) != st.Written || !slices.IsSorted(got) || got[len(got)-1] != 4999 {
		t.Errorf("%d lines: %+v", len(got), st)
	}
	r = open(t, dir, jsonl.Options{}, so) // the figures go on, and are not told again
	var again losses
	r.ReportLoss(again.report)
	add(t, r.spool, 5000, 1)
	if after := r.settle(); after.Export.Expired != st.Export.Expired || after.Appended != 5001 {
		t.Errorf("%+v", after)
	}
	r.close()
	if n := again.of("expired/not_delivered_in_time"); n != 0 {
		t.Errorf("%d were told of again", n)
	}
}

// A disk that stays full holds up no end: what waits is written by the next run.
func TestCloseOnFullDisk(t *testing.T) {
	var room atomic.Int64
	dir := t.TempDir()
	r := open(t, dir, jsonl.Options{Open: faulty(&room, new(atomic.Bool))}, spool.Options{})
	add(t, r.spool, 0, 1000)
	must(t, r.spool.Close())
	begin := time.Now()
	if err := r.Close(); err == nil || !strings.Contains(err.Error(), "no space left") || time.Since(begin) > 2*time.Second {
		t.Errorf("Close says %v after %v", err, time.Since(begin))
	}
	must(t, r.Close())
	if st := r.Status(); st.LostIO != 0 || st.Pending != 1000 {
		t.Errorf("%+v", st)
	}
	r = open(t, dir, jsonl.Options{}, spool.Options{})
	r.close()
	if diff := cmp.Diff(count(0, 1000), sequences(t, files(t, dir)...)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// feed spools events and copies them to small files, until the process is killed.
func feed(dir string) {
	round, _ := strconv.Atoi(os.Getenv("JSONL_TEST_ROUND"))
	sp, err := spool.Open(spool.Options{Dir: filepath.Join(dir, "spool"), SegmentBytes: 100_000})
	if err == nil {
		_, err = jsonl.Open(jsonl.Options{Dir: filepath.Join(dir, "events"), Spool: sp, MaxBytes: 50_000, Keep: 10_000,
			FsyncEvery: 20 * time.Millisecond})
	}
	if err != nil {
		panic(err)
	}
	if _, err := os.Stdout.WriteString("ready\n"); err != nil {
		panic(err)
	}
	for i := 1; ; {
		b := sp.Batch()
		for range 1 + rand.IntN(40) {
			if err := b.Add(numbered(round<<36 + i)); err != nil {
				panic(err)
			}
			i++
		}
		sp.Append(b)
		time.Sleep(time.Millisecond)
	}
}

// Killed at any moment, again and again: the files have what the spool has, all of it, in order, and nothing twice.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	for round := 1; round <= 12; round++ {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "JSONL_TEST_DIR="+dir, "JSONL_TEST_ROUND="+strconv.Itoa(round))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		if _, err := out.Read(make([]byte, 8)); err != nil {
			_ = cmd.Wait()
			t.Fatalf("%v: %s", err, stderr.String())
		}
		time.Sleep(200*time.Millisecond + time.Duration(rand.IntN(300))*time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	r := open(t, dir, jsonl.Options{MaxBytes: 50_000, Keep: 10_000}, spool.Options{SegmentBytes: 100_000})
	st := r.settle()
	r.close()
	want := spooled(t, r.spool)
	if diff := cmp.Diff(want, sequences(t, files(t, dir)...)); diff != "" || len(want) < 12*100 {
		t.Errorf("%d events (-spool +file):\n%s", len(want), diff)
	}
	if st.Appended != int64(len(want)) || st.LostIO != 0 {
		t.Errorf("%d events: %+v", len(want), st)
	}
	t.Logf("%d events in %d files, %d of them were met again after a crash", len(want), len(files(t, dir)), st.Export.Duplicates)
}
