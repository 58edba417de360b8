package jsonl_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
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
	"github.com/tapwall/tapwall/event/spool"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("JSONL_TEST_DIR"); dir != "" {
		feed(dir)
	}
	goleak.VerifyTestMain(m)
}

// rig is a spool and the sink that reads it.
type rig struct {
	t     testing.TB
	spool *spool.Spool
	*jsonl.Sink
}

// open opens both below dir; they are closed at the end of the test.
func open(t testing.TB, dir string, o jsonl.Options, so spool.Options) *rig {
	t.Helper()
	so.Dir = filepath.Join(dir, "spool")
	sp, err := spool.Open(so)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sp.Close() })
	return &rig{t, sp, openSink(t, dir, sp, o)}
}

func openSink(t testing.TB, dir string, sp *spool.Spool, o jsonl.Options) *jsonl.Sink {
	t.Helper()
	o.Spool = sp
	if o.Dir == "" {
		o.Dir = filepath.Join(dir, "events")
	}
	if o.Linger == 0 {
		o.Linger = time.Millisecond
	}
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

// close ends both, as the recorder does.
func (r *rig) close() {
	r.t.Helper()
	if err := errors.Join(r.spool.Close(), r.Close()); err != nil {
		r.t.Fatal(err)
	}
}

// numbered is an event whose sequence is n.
func numbered(n int) *event.Event {
	e := &event.Event{Timestamp: time.Now().UTC()}
	e.Event.ID, e.Event.Sequence, e.Event.Action = event.ID{Install: 1, Epoch: 1, Sequence: int64(n)}.String(), int64(n), event.ActionVerdict
	e.Tapwall.Verdict = event.Forwarded
	return e
}

// add spools n events.
func add(t testing.TB, sp *spool.Spool, from, n int) {
	t.Helper()
	b := sp.Batch()
	for i := range n {
		if err := b.Add(numbered(from + i)); err != nil {
			t.Fatal(err)
		}
	}
	sp.Append(b)
}

// sequences reads the sequence numbers of the files, every line of which must be whole.
func sequences(t testing.TB, paths ...string) []int64 {
	t.Helper()
	out := []int64{}
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

// files are those of a sink, the oldest first.
func files(t testing.TB, dir string) (all []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "events", "events-2*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return append(all, filepath.Join(dir, "events", "events.jsonl"))
}

// spooled are the sequence numbers of what is in a spool.
func spooled(t testing.TB, sp *spool.Spool) []int64 {
	t.Helper()
	out := []int64{}
	if err := sp.Scan(t.Context(), spool.Query{}, func(r spool.Record) bool { out = append(out, r.Sequence); return true }); err != nil {
		t.Fatal(err)
	}
	return out
}

func count(from, n int) []int64 {
	out := []int64{}
	for i := range n {
		out = append(out, int64(from+i))
	}
	return out
}

// settle waits until nothing is pending.
func (r *rig) settle() event.SinkStatus {
	r.t.Helper()
	for r.spool.Status().Pending > 0 {
		time.Sleep(time.Millisecond)
	}
	return r.until(func(st event.SinkStatus) bool { return st.Pending == 0 })
}

func (r *rig) until(ok func(event.SinkStatus) bool) event.SinkStatus {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		st := r.Status()
		if x := st.Export; st.Appended != x.Created+x.Duplicates+x.DeadLetters+x.Expired+x.Corrupt+st.Pending ||
			st.Appended != st.Written+st.LostIO+st.Pending {
			r.t.Fatalf("the figures do not add up: %+v", st)
		}
		if ok(st) {
			return st
		}
		if time.Now().After(end) {
			r.t.Fatalf("did not happen within 20 s: %+v", st)
		}
	}
}

// The lines are what the spool has, byte for byte.
func TestSameBytes(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir, jsonl.Options{}, spool.Options{})
	add(t, r.spool, 1, 5000) // a scan begins behind 0
	r.settle()
	var want bytes.Buffer
	if err := r.spool.Scan(t.Context(), spool.Query{}, func(rec spool.Record) bool {
		want.Write(rec.JSON)
		want.WriteByte('\n')
		return true
	}); err != nil {
		t.Fatal(err)
	}
	path := files(t, dir)[0]
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want.Bytes()) || bytes.Count(got, []byte("\n")) != 5000 {
		t.Errorf("%d bytes of %d, %v", len(got), want.Len(), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&^0o640 != 0 || info.Size() != r.Status().Bytes {
		t.Errorf("%+v, %v, %+v", info, err, r.Status())
	}
}

func TestRestartAndTornLine(t *testing.T) {
	dir := t.TempDir()
	path := files(t, dir)[0]
	r := open(t, dir, jsonl.Options{}, spool.Options{})
	add(t, r.spool, 0, 5)
	r.close()
	for i, torn := range []string{`{"@timestamp":"2026-11` + strings.Repeat("x", 200_000) /* longer than one look back */, "{", "\x00"} {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString(torn)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		r = open(t, dir, jsonl.Options{}, spool.Options{})
		add(t, r.spool, 5+5*i, 5)
		r.close()
	}
	if diff := cmp.Diff(count(0, 20), sequences(t, path)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if st := r.Status(); st.Written != 20 || st.Appended != 20 || st.Export.Duplicates != 0 || st.Target != path {
		t.Errorf("%+v", st)
	}
}

// A file that is ahead of its checkpoint, as after a crash, or that has none, as one of an earlier version, gets nothing twice; also if it
// was rotated just before. A file of another installation says nothing about what is missing.
func TestFileAhead(t *testing.T) {
	for name, spoil := range map[string]func(checkpoint string, old []byte) error{
		"old checkpoint": func(path string, old []byte) error { return os.WriteFile(path, old, 0o640) },
		"no checkpoint":  func(path string, _ []byte) error { return os.Remove(path) },
	} {
		for _, rotated := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				checkpoint := filepath.Join(dir, "spool", "jsonl.checkpoint")
				r := open(t, dir, jsonl.Options{}, spool.Options{})
				add(t, r.spool, 1, 100)
				r.close()
				old, err := os.ReadFile(checkpoint)
				if err != nil {
					t.Fatal(err)
				}
				r = open(t, dir, jsonl.Options{}, spool.Options{})
				add(t, r.spool, 101, 100)
				r.close()
				if err := spoil(checkpoint, old); err != nil {
					t.Fatal(err)
				}
				if rotated {
					must(t, os.Rename(files(t, dir)[0], filepath.Join(dir, "events", "events-20261120T221405.000000000Z.jsonl")))
				}
				r = open(t, dir, jsonl.Options{}, spool.Options{})
				add(t, r.spool, 201, 100)
				r.close()
				if diff := cmp.Diff(count(1, 300), sequences(t, files(t, dir)...)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if st := r.Status(); st.Appended != 300 || st.Export.Duplicates < 100 {
					t.Errorf("%+v", st)
				}
			})
		}
	}
	dir := t.TempDir()
	other := numbered(1 << 40)
	other.Event.ID = event.ID{Install: 2, Epoch: 1, Sequence: 1 << 40}.String()
	b, err := event.AppendJSON(nil, other)
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(dir, "events"), 0o750))
	must(t, os.WriteFile(files(t, dir)[0], append(b, '\n'), 0o640))
	r := open(t, dir, jsonl.Options{}, spool.Options{})
	add(t, r.spool, 1, 10)
	r.close()
	if got := sequences(t, files(t, dir)...); len(got) != 11 {
		t.Errorf("%v", got)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "events"), 0o750))
	mine := filepath.Join(dir, "events", "events-2of-mine.jsonl")
	must(t, os.WriteFile(mine, nil, 0o600))
	clock := time.Date(2026, 11, 20, 22, 14, 5, 0, time.UTC) // stands still, then is set back
	var back atomic.Bool
	now := func() time.Time {
		if back.Load() {
			return clock.Add(-time.Hour)
		}
		return clock
	}
	const maxBytes, keep, total = 8 << 10, 3, 1000
	r := open(t, dir, jsonl.Options{MaxBytes: maxBytes, Keep: keep, Now: now}, spool.Options{})
	for i := 0; i < total; i += 10 {
		add(t, r.spool, i, 10)
		if i%200 == 0 {
			r.settle()
		}
		back.Store(i > total/2)
	}
	if st := r.settle(); st.Written != total {
		t.Errorf("%+v", st)
	}
	if _, err := os.Stat(mine); err != nil {
		t.Errorf("a file of somebody else is gone: %v", err)
	}
	kept := slices.DeleteFunc(files(t, dir), func(p string) bool { return p == mine })
	if len(kept) != keep+1 {
		t.Fatalf("%d files are kept: %v", len(kept), kept)
	}
	all := sequences(t, kept...)
	if diff := cmp.Diff(count(total-len(all), len(all)), all); diff != "" {
		t.Errorf("the files do not hold the newest events in order (-want +got):\n%s", diff)
	}
	for i, p := range kept {
		info, err := os.Stat(p)
		if err != nil || info.Size() > maxBytes {
			t.Errorf("%s: %d bytes, %v", p, info.Size(), err)
		}
		if i < keep && info.Size() < maxBytes-1000 {
			t.Errorf("%s was rotated with %d bytes", p, info.Size())
		}
	}
	if want := "events-20261120T221405.0000000"; !strings.HasPrefix(filepath.Base(kept[0]), want) {
		t.Errorf("a rotated file is called %s", kept[0])
	}
}

// TestOutsiders lets others move, delete and empty the file.
func TestOutsiders(t *testing.T) {
	dir := t.TempDir()
	path := files(t, dir)[0]
	r := open(t, dir, jsonl.Options{FsyncEvery: time.Hour}, spool.Options{})
	step := func(from int) {
		t.Helper()
		add(t, r.spool, from, 10)
		r.settle()
	}
	step(1)
	must(t, os.Rename(path, path+".1"))
	step(11)
	if diff := cmp.Diff(count(1, 10), sequences(t, path+".1")); diff != "" {
		t.Errorf("moved file (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(count(11, 10), sequences(t, path)); diff != "" {
		t.Errorf("new file (-want +got):\n%s", diff)
	}
	cp, err := os.ReadFile(filepath.Join(dir, "spool", "jsonl.checkpoint"))
	if err != nil || !strings.Contains(string(cp), `"next":10,`) {
		t.Errorf("what was moved away is not in the checkpoint: %s, %v", cp, err)
	}
	must(t, os.Truncate(path, 0)) // copytruncate
	step(21)
	if diff := cmp.Diff(count(21, 10), sequences(t, path)); diff != "" {
		t.Errorf("emptied file (-want +got):\n%s", diff)
	}
	must(t, os.RemoveAll(filepath.Join(dir, "events")))
	step(31)
	if diff := cmp.Diff(count(31, 10), sequences(t, path)); diff != "" {
		t.Errorf("after the directory went (-want +got):\n%s", diff)
	}
	if st := r.Status(); st.Written != 40 || st.LostIO != 0 {
		t.Errorf("%+v", st)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	sp, err := spool.Open(spool.Options{Dir: filepath.Join(dir, "spool")})
	must(t, err)
	defer sp.Close()
	if _, err := jsonl.Open(jsonl.Options{Spool: sp}); err == nil {
		t.Error("no directory is accepted")
	}
	if _, err := jsonl.Open(jsonl.Options{Dir: dir}); err == nil {
		t.Error("no spool is accepted")
	}
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if _, err := jsonl.Open(jsonl.Options{Dir: file, Spool: sp}); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file as directory: %v", err)
	}
	must(t, os.Mkdir(filepath.Join(dir, "events.jsonl"), 0o700))
	if _, err := jsonl.Open(jsonl.Options{Dir: dir, Spool: sp}); err == nil {
		t.Error("a directory as file is accepted")
	}
}

// losses collects what a sink reports.
type losses struct {
	mu sync.Mutex
	n  map[string]int64
}

func (l *losses) report(stage event.Stage, _ event.Class, reason string, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == nil {
		l.n = make(map[string]int64)
	}
	l.n[string(stage)+"/"+reason] += n
}

func (l *losses) of(what string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n[what]
}

// What the recorder accepted is in the file when it has ended, though the file was full until then.
func TestWithRecorder(t *testing.T) {
	dir := t.TempDir()
	var room atomic.Int64
	r := open(t, dir, jsonl.Options{Open: faulty(&room, new(atomic.Bool))}, spool.Options{})
	rec, err := record.NewRecorder(record.Options{Spool: r.spool, Exports: []record.Export{r.Sink}, LossEvery: 10 * time.Millisecond})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rec.Run(ctx) }()
	for range 3000 {
		rec.HandlePacketIn("br0", record.PacketIn{Data: make([]byte, 60), Verdicts: []record.VerdictSide{{Direction: event.Ingress, Drop: true}}})
	}
	r.until(func(st event.SinkStatus) bool {
		return st.Pending >= 3000 && strings.Contains(st.Error, "no space left")
	})
	if c := rec.Counters(); len(c.Sinks) != 1 || c.Sinks[0].Error == "" || c.Sinks[0].Export.FailingSince.IsZero() || c.Accepted != 3000 {
		t.Errorf("%+v", c)
	}
	room.Store(-1)
	cancel()
	must(t, <-done)
	c, st := rec.Counters(), r.Status()
	if c.Accepted != st.Appended || st.Written != c.Accepted || st.Pending+st.LostIO != 0 {
		t.Errorf("recorder %+v\nsink %+v", c, st)
	}
	if got := sequences(t, files(t, dir)...); int64(len(got)) != c.Accepted || !slices.IsSorted(got) {
		t.Errorf("%d lines\nrecorder %+v\nsink %+v", len(got), c, st)
	}
}
