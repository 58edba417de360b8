package jsonl_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/jsonl"
	"github.com/tapwall/tapwall/event/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a sink that is closed at the end of the test.
func open(t testing.TB, o jsonl.Options) *jsonl.Sink {
	t.Helper()
	if o.RetryEvery == 0 {
		o.RetryEvery = time.Millisecond
	}
	s, err := jsonl.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// numbered is an event whose sequence is n.
func numbered(n int) *event.Event {
	e := &event.Event{Timestamp: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
	e.Event.ID, e.Event.Sequence, e.Event.Action = event.ID{Install: 1, Epoch: 1, Sequence: int64(n)}.String(), int64(n), event.ActionVerdict
	e.Tapwall.Verdict = event.Forwarded
	if n%2 == 0 {
		e.Tapwall.Verdict = event.Dropped
	}
	return e
}

func events(from, n int) []*event.Event {
	var out []*event.Event
	for i := range n {
		out = append(out, numbered(from+i))
	}
	return out
}

// sequences reads the sequence numbers of the files, every line of which must be whole.
func sequences(t testing.TB, paths ...string) []int64 {
	t.Helper()
	var out []int64
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(f)
		for {
			text, err := in.ReadBytes('\n')
			if len(text) == 0 {
				break
			}
			if err != nil {
				t.Fatalf("%s ends with %q", p, text)
			}
			var e event.Event
			if err := json.Unmarshal(text, &e); err != nil {
				t.Fatalf("%s: %v in %q", p, err, text)
			}
			out = append(out, e.Event.Sequence)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func files(t testing.TB, dir string) (current string, rotated []string) {
	t.Helper()
	rotated, err := filepath.Glob(filepath.Join(dir, "events-*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(rotated)
	return filepath.Join(dir, "events.jsonl"), rotated
}

func count(from, n int) []int64 {
	out := []int64{}
	for i := range n {
		out = append(out, int64(from+i))
	}
	return out
}

// settle waits until nothing is pending.
func settle(t testing.TB, s *jsonl.Sink) event.SinkStatus {
	t.Helper()
	return until(t, s, func(st event.SinkStatus) bool { return st.Pending == 0 })
}

func until(t testing.TB, s *jsonl.Sink, ok func(event.SinkStatus) bool) event.SinkStatus {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		st := s.Status()
		if st.Appended != st.Written+st.LostQueue+st.LostIO+st.Pending {
			t.Fatalf("the figures do not add up: %+v", st)
		}
		if ok(st) {
			return st
		}
		if time.Now().After(end) {
			t.Fatalf("did not happen within 20 s: %+v", st)
		}
	}
}

// losses collects what a sink reports.
type losses struct {
	mu sync.Mutex
	n  map[string]int64
}

func (l *losses) report(stage event.Stage, class event.Class, reason string, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == nil {
		l.n = make(map[string]int64)
	}
	l.n[fmt.Sprintf("%s/%s/%s", stage, class, reason)] += n
}

func (l *losses) of(prefix string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var sum int64
	for k, n := range l.n {
		if strings.HasPrefix(k, prefix) {
			sum += n
		}
	}
	return sum
}

func TestRestartAndTornLine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by", "open")
	path, _ := files(t, dir)
	s := open(t, jsonl.Options{Dir: dir})
	if err := s.Append(events(0, 5)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"@timestamp":"2026-11` + strings.Repeat("x", 200_000)); err != nil { // longer than one look back
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var l losses
	s = open(t, jsonl.Options{Dir: dir})
	s.ReportLoss(l.report)
	if err := s.Append(events(5, 5)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(count(0, 10), sequences(t, path)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	st := s.Status()
	if st.Damaged != 1 || l.of("file_io//torn_line") != 1 || st.Written != 5 || st.Target != path {
		t.Errorf("%+v, reported %v", st, l.n)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != st.Bytes {
		t.Errorf("status says %d bytes: %v, %v", st.Bytes, info, err)
	}
	// A file of nothing but a torn line becomes empty.
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, jsonl.Options{Dir: dir})
	if st := s.Status(); st.Damaged != 1 || st.Bytes != 0 {
		t.Errorf("%+v", st)
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "events-of-mine.jsonl"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	clock := time.Date(2026, 11, 20, 22, 14, 5, 0, time.UTC) // stands still, then is set back
	var back atomic.Bool
	now := func() time.Time {
		if back.Load() {
			return clock.Add(-time.Hour)
		}
		return clock
	}
	const maxBytes, keep, total = 8 << 10, 3, 1000
	s := open(t, jsonl.Options{Dir: dir, MaxBytes: maxBytes, Keep: keep, Now: now})
	for i := 0; i < total; i += 10 {
		if err := s.Append(events(i, 10)); err != nil {
			t.Fatal(err)
		}
		if i%200 == 0 {
			settle(t, s)
		}
		back.Store(i > total/2)
	}
	st := settle(t, s)
	if st.Written != total {
		t.Errorf("%+v", st)
	}
	current, rotated := files(t, dir)
	rotated = slices.DeleteFunc(rotated, func(p string) bool { return strings.HasSuffix(p, "of-mine.jsonl") })
	if len(rotated) != keep {
		t.Fatalf("%d rotated files are kept: %v", len(rotated), rotated)
	}
	if _, err := os.Stat(filepath.Join(dir, "events-of-mine.jsonl")); err != nil {
		t.Errorf("a file of somebody else is gone: %v", err)
	}
	all := sequences(t, append(rotated, current)...)
	if diff := cmp.Diff(count(total-len(all), len(all)), all); diff != "" {
		t.Errorf("the files do not hold the newest events in order (-want +got):\n%s", diff)
	}
	for _, p := range append(rotated, current) {
		info, err := os.Stat(p)
		if err != nil || info.Size() > maxBytes {
			t.Errorf("%s: %d bytes, %v", p, info.Size(), err)
		}
		if p != current && info.Size() < maxBytes-1000 {
			t.Errorf("%s was rotated with %d bytes", p, info.Size())
		}
	}
	if want := "events-20261120T221405.0000000"; !strings.HasPrefix(filepath.Base(rotated[0]), want) {
		t.Errorf("a rotated file is called %s", rotated[0])
	}
}

// TestOutsiders lets others move, delete and empty the file.
func TestOutsiders(t *testing.T) {
	dir := t.TempDir()
	path, _ := files(t, dir)
	s := open(t, jsonl.Options{Dir: dir})
	step := func(from int) {
		t.Helper()
		if err := s.Append(events(from, 10)); err != nil {
			t.Fatal(err)
		}
		settle(t, s)
	}
	step(0)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	step(10)
	if diff := cmp.Diff(count(0, 10), sequences(t, path+".1")); diff != "" {
		t.Errorf("moved file (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(count(10, 10), sequences(t, path)); diff != "" {
		t.Errorf("new file (-want +got):\n%s", diff)
	}
	if err := os.Truncate(path, 0); err != nil { // copytruncate
		t.Fatal(err)
	}
	step(20)
	if diff := cmp.Diff(count(20, 10), sequences(t, path)); diff != "" {
		t.Errorf("emptied file (-want +got):\n%s", diff)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	step(30)
	if diff := cmp.Diff(count(30, 10), sequences(t, path)); diff != "" {
		t.Errorf("after the directory went (-want +got):\n%s", diff)
	}
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	s.Reopen() // as on SIGHUP: the name is there again without an event
	until(t, s, func(event.SinkStatus) bool { _, err := os.Stat(path); return err == nil })
	step(40)
	if diff := cmp.Diff(count(40, 10), sequences(t, path)); diff != "" {
		t.Errorf("reopened file (-want +got):\n%s", diff)
	}
	if st := s.Status(); st.Written != 50 || st.LostIO+st.LostQueue != 0 {
		t.Errorf("%+v", st)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := jsonl.Open(jsonl.Options{}); err == nil {
		t.Error("no directory is accepted")
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := jsonl.Open(jsonl.Options{Dir: file}); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file as directory: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "events.jsonl"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := jsonl.Open(jsonl.Options{Dir: dir}); err == nil {
		t.Error("a directory as file is accepted")
	}
}

// TestWithRecorder: what the recorder accepted is in the file or counted, and the loss is told as an event.
func TestWithRecorder(t *testing.T) {
	dir := t.TempDir()
	var room atomic.Int64
	s := open(t, jsonl.Options{Dir: dir, QueueLen: 50, RetryEvery: time.Hour, Open: faulty(&room, new(atomic.Bool), nil)})
	r, err := record.NewRecorder(record.Options{Sinks: []record.Sink{s}, LossEvery: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	// Until the writer has met the full disk what does not fit is told as lost to a full queue, from then on as lost to the disk.
	until(t, s, func(st event.SinkStatus) bool {
		for range 100 {
			r.HandlePacketIn("br0", record.PacketIn{Data: make([]byte, 60), Verdicts: []record.VerdictSide{{Direction: event.Ingress, Drop: true}}})
		}
		return st.LostIO > 0
	})
	for end := time.Now().Add(10 * time.Second); len(r.Recent(event.Filter{Action: []string{event.ActionLost}}).Items) == 0; time.Sleep(
		time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no loss was told")
		}
	}
	if c := r.Counters(); c.File == "" || !strings.Contains(c.FileError, "no space left") {
		t.Errorf("%+v", c)
	}
	room.Store(-1)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	c, st := r.Counters(), s.Status()
	if c.Accepted != st.Appended || c.Lost["file_io"] != st.LostIO || c.Lost["file_queue"] != st.LostQueue || st.LostIO == 0 {
		t.Errorf("recorder %+v\nsink %+v", c, st)
	}
	if got := sequences(t, filepath.Join(dir, "events.jsonl")); int64(len(got)) != st.Written || st.Written+st.LostIO+
		st.LostQueue != c.Accepted {
		t.Errorf("%d lines\nrecorder %+v\nsink %+v", len(got), c, st)
	}
}
