package spool_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/spool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var begin = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// newEvent is number i: every tenth is denied, every tenth a mirrored packet; a second lies between two.
func newEvent(i int) *event.Event {
	e := &event.Event{
		Timestamp: begin.Add(time.Duration(i) * time.Second),
		Event:     event.Meta{ID: event.ID{Install: 1, Epoch: 1, Sequence: int64(i)}.String(), Sequence: int64(i), Action: event.ActionVerdict},
		Source:    &event.Side{IP: fmt.Sprintf("10.0.%d.%d", i>>8&255, i&255)},
		Tapwall:   event.Tapwall{Verdict: event.Forwarded},
	}
	switch i % 10 {
	case 3:
		e.Tapwall.Verdict = event.Dropped
	case 7:
		e.Tapwall.Verdict = event.Mirrored
	}
	return e
}

// outcomes adds up what became of records.
type outcomes struct {
	mu     sync.Mutex
	kept   int64
	lost   spool.Tally
	why    map[string]int64
	spoilt int64
}

func (o *outcomes) done(out spool.Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept += out.Kept
	o.lost.P0 += out.Lost.P0
	o.lost.P1 += out.Lost.P1
	o.lost.P2 += out.Lost.P2
	if o.why == nil {
		o.why = map[string]int64{}
	}
	if n := out.Lost.Total(); n > 0 {
		o.why[string(out.Stage)+"/"+out.Reason] += n
	}
}

func (o *outcomes) tellSpoilt(n int64, _ string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spoilt += n
}

func open(t testing.TB, o spool.Options, told ...*outcomes) *spool.Spool {
	t.Helper()
	s, err := spool.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range told {
		s.Tell(out.done, out.tellSpoilt)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func add(t testing.TB, s *spool.Spool, from, n int) {
	t.Helper()
	b := s.Batch()
	for i := from; i < from+n; i++ {
		if err := b.Add(newEvent(i)); err != nil {
			t.Fatal(err)
		}
	}
	s.Append(b)
}

// settle waits until nothing is pending.
func settle(t testing.TB, s *spool.Spool) event.SpoolStatus {
	t.Helper()
	return until(t, s, func(st event.SpoolStatus) bool { return st.Pending == 0 })
}

func until(t testing.TB, s *spool.Spool, ok func(event.SpoolStatus) bool) event.SpoolStatus {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		st := s.Status()
		if ok(st) {
			if st.Appended != st.Written+st.Lost+st.Pending {
				t.Fatalf("the figures do not add up: %+v", st)
			}
			return st
		}
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %+v", st)
		}
	}
}

// read returns the numbers of the records that q chooses, and checks that each is what was written.
func read(t testing.TB, s *spool.Spool, q spool.Query) (got []int) {
	t.Helper()
	err := s.Scan(context.Background(), q, func(r spool.Record) bool {
		var e event.Event
		if err := json.Unmarshal(r.JSON, &e); err != nil {
			t.Errorf("%d: %v", r.Sequence, err)
		}
		want := newEvent(int(e.Event.Sequence))
		if e.Event.Sequence != r.Sequence || r.Time != want.Timestamp.UnixNano() || !e.Timestamp.Equal(want.Timestamp) ||
			r.Class != want.Class() {
			t.Errorf("%+v of %+v", r, e)
		}
		got = append(got, int(r.Sequence))
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// numbers are from, from+1, … to.
func numbers(from, to int) (all []int) {
	for i := from; i <= to; i++ {
		all = append(all, i)
	}
	return all
}

func segments(t testing.TB, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*.events"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// TestKeeps writes over many segments and two restarts, and reads by every condition.
func TestKeeps(t *testing.T) {
	dir := t.TempDir()
	o := spool.Options{Dir: dir, SegmentBytes: 20_000}
	for from := 1; from <= 801; from += 400 {
		s := open(t, o)
		for i := from; i < from+400; i += 40 {
			add(t, s, i, 40)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, o)
	if n := len(segments(t, dir)); n < 8 || n > 40 {
		t.Errorf("%d segments", n)
	}
	if st := s.Status(); st.Events != 1200 || !st.Oldest.Equal(newEvent(1).Timestamp) || st.Spoilt != 0 {
		t.Errorf("%+v", st)
	}
	at := func(i int) int64 { return newEvent(i).Timestamp.UnixNano() }
	for name, c := range map[string]struct {
		q    spool.Query
		want []int
	}{
		"all":           {spool.Query{}, numbers(1, 1200)},
		"since, until":  {spool.Query{Since: at(390), Until: at(811)}, numbers(390, 811)},
		"after, before": {spool.Query{After: 390, Before: 811}, numbers(391, 810)},
		"text":          {spool.Query{Texts: [][][]byte{{[]byte(`"ip":"10.0.1.0"`), []byte(`"ip":"10.0.2.1"`)}}}, []int{256, 513}},
		"two texts": {spool.Query{Texts: [][][]byte{{[]byte(`"ip":"10.0.1.7"`), []byte(`"ip":"10.0.1.6"`)}, {[]byte(`DROPPED`)}}},
			[]int{263}},
		"nothing": {spool.Query{Since: at(1201)}, nil},
	} {
		if got := read(t, s, c.q); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		c.q.Newest = true
		got := read(t, s, c.q)
		if slices.Reverse(got); !slices.Equal(got, c.want) {
			t.Errorf("%s, newest first: %v, want %v", name, got, c.want)
		}
	}
	n := 0
	if err := s.Scan(context.Background(), spool.Query{}, func(spool.Record) bool { n++; return n < 3 }); err != nil || n != 3 {
		t.Errorf("%d records after it was told to stop: %v", n, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Scan(ctx, spool.Query{}, func(spool.Record) bool { return true }); err == nil {
		t.Error("a scan that nobody waits for went on")
	}
}

// TestTornTail cuts a segment at every byte of its last two records: what is whole is kept, and writing goes on.
func TestTornTail(t *testing.T) {
	whole := t.TempDir()
	s := open(t, spool.Options{Dir: whole})
	add(t, s, 1, 8)
	settle(t, s)
	ends := []int64{s.Status().Bytes}
	for i := 9; i <= 10; i++ {
		add(t, s, i, 1)
		ends = append(ends, settle(t, s).Bytes)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(segments(t, whole)[0])
	if err != nil {
		t.Fatal(err)
	}
	for size := ends[0]; size <= ends[2]; size++ {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(segments(t, whole)[0])), data[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		var out outcomes
		s := open(t, spool.Options{Dir: dir}, &out)
		add(t, s, 20, 5)
		settle(t, s)
		want, torn := numbers(1, 8), int64(1)
		for i, end := range ends {
			if size >= end {
				want = numbers(1, 8+i)
			}
			if size == end {
				torn = 0
			}
		}
		if got := read(t, s, spool.Query{}); !slices.Equal(got, append(want, numbers(20, 24)...)) || out.spoilt != torn {
			t.Errorf("cut at %d: %v, %d torn", size, got, out.spoilt)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestFlippedBit flips a bit in a segment that is closed: the rest of that segment is gone, counted exactly, and nothing else.
func TestFlippedBit(t *testing.T) {
	dir := t.TempDir()
	s := open(t, spool.Options{Dir: dir, SegmentBytes: 10_000})
	for i := 1; i <= 200; i += 20 {
		add(t, s, i, 20)
	}
	settle(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	all := segments(t, dir)
	data, err := os.ReadFile(all[2])
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 4
	if err := os.WriteFile(all[2], data, 0o600); err != nil {
		t.Fatal(err)
	}
	var out outcomes
	s = open(t, spool.Options{Dir: dir, SegmentBytes: 10_000}, &out)
	got := read(t, s, spool.Query{})
	missing := int64(200 - len(got))
	if missing < 5 || missing > 60 || out.spoilt != missing || s.Status().Events != int64(len(got)) {
		t.Errorf("%d of 200 read, %d told of, %+v", len(got), out.spoilt, s.Status())
	}
	for i := 1; i < len(got); i++ { // one gap
		if got[i] != got[i-1]+1 && int64(got[i]) != int64(got[i-1])+1+missing {
			t.Errorf("%d follows %d", got[i], got[i-1])
		}
	}
	if read(t, s, spool.Query{}); out.spoilt != missing {
		t.Errorf("told again: %d", out.spoilt)
	}
}

// TestBounds: bytes, age and the room on the disk decide what is kept, and the newest is.
func TestBounds(t *testing.T) {
	dir := t.TempDir()
	var now, free atomic.Int64
	now.Store(newEvent(3000).Timestamp.UnixNano())
	free.Store(90)
	var out outcomes
	o := spool.Options{
		Dir: dir, MaxBytes: 100_000, SegmentBytes: 10_000, MaxAge: 100 * time.Hour, FsyncEvery: 5 * time.Millisecond,
		Now:  func() time.Time { return time.Unix(0, now.Load()) },
		Free: func(string) (int64, int64, error) { return free.Load(), 1000, nil }, // 50 are to be left
	}
	s := open(t, o, &out)
	for i := 1; i <= 3000; i += 10 {
		add(t, s, i, 10)
		if st := settle(t, s); st.Bytes > o.MaxBytes {
			t.Fatalf("%+v", st)
		}
	}
	got := read(t, s, spool.Query{})
	if n := len(got); n < 150 || !slices.Equal(got, numbers(3001-n, 3000)) {
		t.Fatalf("kept %d: %v", n, got)
	}
	now.Store(newEvent(2950).Timestamp.Add(o.MaxAge).UnixNano())
	last := int64(-1)
	st := until(t, s, func(st event.SpoolStatus) bool { // all that is to go has gone
		done := st.Events < 100 && st.Events == last
		if last = st.Events; !done {
			time.Sleep(100 * time.Millisecond)
		}
		return done
	})
	if got := read(t, s, spool.Query{}); got[len(got)-1] != 3000 || got[0] > 2950 || int64(len(got)) != st.Events {
		t.Errorf("by age: %v", got)
	}
	if out.lost.Total() != 0 {
		t.Errorf("lost %+v by keeping the bounds", out.lost)
	}
	// Less room than is to be left: what can go goes, and of the new the most important is kept, then nothing.
	for _, c := range []struct {
		free       int64
		kept, lost int
	}{{49, 10, 90}, {24, 0, 100}, {60, 100, 0}} {
		free.Store(c.free)
		before := out.lost.Total()
		add(t, s, 3001, 100)
		settle(t, s)
		if lost := out.lost.Total() - before; lost != int64(c.lost) {
			t.Errorf("with %d free %d were lost", c.free, lost)
		}
		if said := s.Status().Error; strings.Contains(said, "is nearly full") != (c.lost > 0) ||
			strings.Contains(said, "nothing is kept") != (c.kept == 0) {
			t.Errorf("with %d free the status says %q", c.free, said)
		}
		got := read(t, s, spool.Query{After: 3000})
		if c.kept == 10 && (len(got) != 10 || got[0] != 3003) || c.kept == 0 && len(got) > 10 || c.kept == 100 && len(got) < 100 {
			t.Errorf("with %d free: %v", c.free, got)
		}
	}
	if out.why["spool_shed/disk_nearly_full"] != 190 || len(out.why) != 1 {
		t.Errorf("%v", out.why)
	}
	free.Store(49) // it is known, and over, without an event
	until(t, s, func(st event.SpoolStatus) bool { return st.Error != "" })
	free.Store(60)
	until(t, s, func(st event.SpoolStatus) bool { return st.Error == "" })
}

// faultyFile fails writes, in the middle of a record too, and truncations.
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

// TestDiskFull runs out of space in the middle of records, again and again, with restarts: what was said to be kept is there, once, in
// order.
func TestDiskFull(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 11))
		var room atomic.Int64
		var stuck atomic.Bool
		var out outcomes
		room.Store(-1)
		o := spool.Options{
			Dir: t.TempDir(), SegmentBytes: 8_000, RetryEvery: time.Millisecond,
			OpenFile: func(path string) (spool.File, error) {
				f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
				if err != nil {
					return nil, err
				}
				return &faultyFile{f, &room, &stuck}, nil
			},
		}
		s := open(t, o, &out)
		sent, failed := 0, 0
		for sent < 3000 {
			if rng.IntN(4) == 0 {
				stuck.Store(rng.IntN(3) == 0)
				room.Store(int64(rng.IntN(3000)))
			}
			n := 1 + rng.IntN(60)
			add(t, s, sent+1, n)
			sent += n
			if rng.IntN(3) == 0 {
				if st := until(t, s, func(st event.SpoolStatus) bool { return st.Error != "" || st.Pending == 0 }); st.Error != "" {
					failed++
				}
				room.Store(-1)
			}
			if rng.IntN(20) == 0 {
				_ = s.Close()
				s = open(t, o, &out)
			}
		}
		stuck.Store(false)
		room.Store(-1)
		until(t, s, func(st event.SpoolStatus) bool { return st.Pending == 0 && st.Error == "" })
		got := read(t, s, spool.Query{})
		if failed == 0 || out.kept+out.lost.Total() != int64(sent) || int64(len(got)) != out.kept {
			t.Errorf("seed %d: %d appended, %d kept, %+v lost, %d read, %d failures", seed, sent, out.kept, out.lost, len(got), failed)
		}
		if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Errorf("seed %d: out of order or twice: %v", seed, got)
		}
	}
}

// TestTornAtTheBeginning: a segment whose first record is torn and cannot be cut off gives its place to another one, which stays.
func TestTornAtTheBeginning(t *testing.T) {
	var room atomic.Int64
	var stuck atomic.Bool
	room.Store(50)
	stuck.Store(true)
	s := open(t, spool.Options{Dir: t.TempDir(), RetryEvery: time.Millisecond, FsyncEvery: 5 * time.Millisecond,
		OpenFile: func(path string) (spool.File, error) {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
			if err != nil {
				return nil, err
			}
			return &faultyFile{f, &room, &stuck}, nil
		}})
	add(t, s, 1, 1)
	until(t, s, func(st event.SpoolStatus) bool { return st.Error != "" })
	room.Store(-1)
	settle(t, s)
	time.Sleep(100 * time.Millisecond) // the bounds are looked at many times
	if got := read(t, s, spool.Query{}); !slices.Equal(got, []int{1}) || s.Status().Segments != 1 {
		t.Errorf("%v is left, %+v", got, s.Status())
	}
}

// TestSlowDisk: a disk that hangs holds up nobody; what does not fit into the queue is lost and counted.
func TestSlowDisk(t *testing.T) {
	hang := make(chan struct{})
	var out outcomes
	s := open(t, spool.Options{Dir: t.TempDir(), OpenFile: func(path string) (spool.File, error) {
		<-hang
		return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	}}, &out)
	sent := 0
	for started := time.Now(); s.Status().Lost == 0; {
		add(t, s, sent+1, 500)
		if sent += 500; time.Since(started) > 10*time.Second {
			t.Fatal("nothing was lost, so the queue has no bound")
		}
	}
	if st := s.Status(); st.Written != 0 || st.Pending > 60_000 || st.Pending < 10_000 {
		t.Errorf("%+v", st)
	}
	close(hang)
	st := settle(t, s)
	if got := read(t, s, spool.Query{}); int64(len(got)) != st.Written || st.Written+st.Lost != int64(sent) {
		t.Errorf("%d read: %+v", len(got), st)
	}
	if out.why["spool_io/slow_disk"] != st.Lost || out.kept != st.Written {
		t.Errorf("told %v and %d kept: %+v", out.why, out.kept, st)
	}
}

// TestDeletedUnderneath: somebody deletes the directory while it is used.
func TestDeletedUnderneath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	s := open(t, spool.Options{Dir: dir, SegmentBytes: 10_000})
	add(t, s, 1, 100)
	settle(t, s)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, spool.Query{}); len(got) != 0 {
		t.Errorf("read %v", got)
	}
	add(t, s, 101, 100)
	settle(t, s)
	if got := read(t, s, spool.Query{After: 100}); !slices.Equal(got, numbers(101, 200)) {
		t.Errorf("read %v", got)
	}
}

// TestReadWhileWritten: every reader sees whole records in order, while segments come and go.
func TestReadWhileWritten(t *testing.T) {
	s := open(t, spool.Options{Dir: t.TempDir(), SegmentBytes: 5_000, MaxBytes: 50_000})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var scans atomic.Int64
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				last := int64(0)
				err := s.Scan(context.Background(), spool.Query{}, func(r spool.Record) bool {
					if r.Sequence <= last || !json.Valid(r.JSON) {
						t.Errorf("%d after %d: %s", r.Sequence, last, r.JSON)
					}
					last = r.Sequence
					return true
				})
				if err != nil {
					t.Error(err)
				}
				scans.Add(1)
			}
		})
	}
	for i := 1; i < 20_000 || scans.Load() < 20; i += 20 {
		add(t, s, i, 20)
		settle(t, s)
	}
	close(stop)
	wg.Wait()
	if st := s.Status(); st.Spoilt != 0 || st.Lost != 0 {
		t.Errorf("%+v", st)
	}
}

// FuzzOpen: whatever a segment holds, the spool opens, says no nonsense, and takes events.
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	s := open(f, spool.Options{Dir: dir, SegmentBytes: 1200})
	add(f, s, 1, 9)
	settle(f, s)
	_ = s.Close()
	for _, path := range segments(f, dir) {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, true)
		f.Add(data[:len(data)-1], false)
	}
	f.Fuzz(func(t *testing.T, data []byte, second bool) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%020d.events", 0)), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if second { // so that the first one need not be the last
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%020d.events", 7)), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := spool.Open(spool.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close() //nolint:errcheck // judged below
		if err := s.Scan(context.Background(), spool.Query{Newest: true}, func(spool.Record) bool { return true }); err != nil {
			t.Fatal(err)
		}
		add(t, s, 1<<40, 3)
		settle(t, s)
		if got := read(t, s, spool.Query{After: 1<<40 - 1}); len(got) < 3 {
			t.Fatalf("read %v, %+v", got, s.Status())
		}
	})
}
