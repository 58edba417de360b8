package spool_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/spool"
)

func cursor(t testing.TB, s *spool.Spool) *spool.Cursor {
	t.Helper()
	c, err := s.Cursor("sink")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// adds up what a checkpoint says.
func whole(t testing.TB, c *spool.Cursor) (cp spool.Checkpoint, pending int64) {
	t.Helper()
	cp, pending, _ = c.Status()
	if int64(cp.Next)-cp.Origin != cp.Total() {
		t.Fatalf("the figures do not add up: %+v", cp)
	}
	return cp, pending
}

// next reads a chunk and returns the numbers of its records.
func next(t testing.TB, c *spool.Cursor, records, bytes int) (*spool.Chunk, []int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ch, err := c.Read(ctx, records, bytes, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, r := range ch.Records {
		var e event.Event
		if err := json.Unmarshal(r.JSON, &e); err != nil || e.Event.Sequence != r.Sequence || e.Timestamp.UnixNano() != r.Time {
			t.Fatalf("%v: %s", err, r.JSON)
		}
		got = append(got, int(r.Sequence))
	}
	return ch, got
}

// A reader gets every record once, in order, over segments, out-of-order answers and crashes, but for those that were not done with when
// the checkpoint was written, which it gets again; its figures always add up.
func TestCursor(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		o := spool.Options{Dir: dir, SegmentBytes: 8 << 10, Now: func() time.Time { return begin }}
		s := open(t, o)
		c := cursor(t, s)
		seen := map[int]int{}
		made := 0
		var held []*spool.Chunk
		for range 60 {
			switch rnd.IntN(6) {
			case 0, 1:
				n := 1 + rnd.IntN(60)
				add(t, s, made, n)
				made += n
				settle(t, s)
			case 2, 3:
				if _, pending := whole(t, c); pending == 0 || len(held) > 3 {
					continue
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				ch, err := c.Read(ctx, 1+rnd.IntN(40), 1+rnd.IntN(20_000), 0)
				cancel()
				if errors.Is(err, context.DeadlineExceeded) {
					continue // all is read, and not done with
				} else if err != nil {
					t.Fatal(err)
				}
				for _, r := range ch.Records {
					seen[int(r.Sequence)]++
				}
				held = append(held, ch)
			case 4:
				if len(held) == 0 {
					continue
				}
				i := rnd.IntN(len(held))
				c.Done(held[i], spool.Done{Created: int64(len(held[i].Records))})
				held = slices.Delete(held, i, i+1)
			case 5: // a crash: the checkpoint may be old
				if rnd.IntN(2) == 0 {
					if err := c.Save(); err != nil {
						t.Fatal(err)
					}
				}
				_ = s.Close()
				s = open(t, o)
				c, held = cursor(t, s), nil
				whole(t, c)
			}
		}
		for _, ch := range held {
			c.Done(ch, spool.Done{Duplicates: int64(len(ch.Records))})
		}
		for _, pending := whole(t, c); pending > 0; _, pending = whole(t, c) {
			ch, got := next(t, c, 50, 1<<20)
			for _, i := range got {
				seen[i]++
			}
			c.Done(ch, spool.Done{Created: int64(len(got))})
		}
		for i := range made {
			if seen[i] == 0 {
				t.Fatalf("seed %d: record %d of %d never came", seed, i, made)
			}
		}
		if cp, _ := whole(t, c); cp.Total() != int64(made) || cp.Expired+cp.Corrupt != 0 {
			t.Fatalf("seed %d: %d records, figures %+v", seed, made, cp)
		}
		_ = s.Close()
	}
}

// What falls to the bounds before it is delivered is expired, what cannot be read is corrupt, and the rest still comes.
func TestCursorLosses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, spool.Options{Dir: dir, SegmentBytes: 8 << 10, MaxBytes: 64 << 10, Now: func() time.Time { return begin }})
	c := cursor(t, s)
	for i := range 20 {
		add(t, s, 20*i, 20)
		settle(t, s)
	}
	kept := read(t, s, spool.Query{})
	if len(kept) == 400 || len(kept) < 50 {
		t.Fatalf("%d records are kept", len(kept))
	}
	files := segments(t, dir)
	spoil := files[2]
	b, err := os.ReadFile(spoil)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(spoil, b, 0o640); err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, pending := whole(t, c); pending > 0; _, pending = whole(t, c) {
		ch, part := next(t, c, 7, 1<<20)
		got = append(got, part...)
		c.Done(ch, spool.Done{Created: int64(len(part))})
	}
	cp, _ := whole(t, c)
	if cp.Expired != int64(400-len(kept)) || cp.Corrupt < 1 || cp.Corrupt > 20 || cp.Created != int64(len(got)) || cp.Total() != 400 {
		t.Errorf("%d of 400 were kept: %+v", len(kept), cp)
	}
	if !slices.IsSorted(got) || int64(len(got)) != int64(len(kept))-cp.Corrupt {
		t.Errorf("%d records came", len(got))
	}
	// The segment that is written is spoilt, too: what is appended behind it comes.
	add(t, s, 400, 1)
	settle(t, s)
	files = segments(t, dir)
	last := files[len(files)-1]
	if b, err = os.ReadFile(last); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(last, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{b[len(b)-1] ^ 1}, int64(len(b)-1)); err != nil {
		t.Fatal(err)
	}
	ch, part := next(t, c, 7, 1<<20)
	if len(part) != 0 {
		t.Errorf("a spoilt record was read: %v", part)
	}
	c.Done(ch, spool.Done{})
	add(t, s, 401, 1)
	settle(t, s)
	ch, part = next(t, c, 7, 1<<20)
	c.Done(ch, spool.Done{Created: 1})
	if after, _ := whole(t, c); !slices.Equal(part, []int{401}) || after.Corrupt != cp.Corrupt+1 {
		t.Errorf("%v, %+v", part, after)
	}
}

// Records that a power failure took give their numbers to others; a reader that had them gets the others all the same. A checkpoint that
// is spoilt, or of no sense, is as none.
func TestCursorCheckpointAhead(t *testing.T) {
	dir := t.TempDir()
	s := open(t, spool.Options{Dir: dir})
	c := cursor(t, s)
	add(t, s, 0, 30)
	settle(t, s)
	ch, _ := next(t, c, 30, 1<<20)
	c.Done(ch, spool.Done{Created: 30})
	if err := c.Save(); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	path := segments(t, dir)[0]
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()/2); err != nil {
		t.Fatal(err)
	}
	s = open(t, spool.Options{Dir: dir})
	c = cursor(t, s)
	if _, pending := whole(t, c); pending != 0 {
		t.Errorf("%d pending", pending)
	}
	add(t, s, 30, 5)
	settle(t, s)
	ch, got := next(t, c, 30, 1<<20)
	if !slices.Equal(got, numbers(30, 34)) {
		t.Errorf("%v", got)
	}
	c.Done(ch, spool.Done{Created: 5})
	if cp, _ := whole(t, c); cp.Created != 35 {
		t.Errorf("%+v", cp)
	}
	for _, text := range []string{"", "{", `{"next":3}`, `{"next":7,"origin":0,"created":-1}`, "[]"} {
		_ = s.Close()
		if err := os.WriteFile(filepath.Join(dir, "sink.checkpoint"), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		s = open(t, spool.Options{Dir: dir})
		c = cursor(t, s)
		if cp, pending := whole(t, c); cp.Next != 0 || pending == 0 {
			t.Errorf("%q: %+v, %d pending", text, cp, pending)
		}
	}
}

// Who waits is woken by what is appended, and waits a little for more.
func TestCursorLingers(t *testing.T) {
	s := open(t, spool.Options{Dir: t.TempDir()})
	c := cursor(t, s)
	type result struct {
		n   int
		err error
	}
	came := make(chan result)
	go func() {
		ch, err := c.Read(t.Context(), 3, 1<<20, time.Minute)
		if err != nil {
			came <- result{0, err}
			return
		}
		came <- result{len(ch.Records), nil}
	}()
	for i := range 3 {
		select {
		case r := <-came:
			t.Fatalf("before record %d: %+v", i, r)
		case <-time.After(20 * time.Millisecond):
		}
		add(t, s, i, 1)
	}
	if r := <-came; r.n != 3 || r.err != nil {
		t.Errorf("%+v", r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := c.Read(ctx, 1, 1, 0)
		came <- result{0, err}
	}()
	cancel()
	if r := <-came; !errors.Is(r.err, context.Canceled) {
		t.Errorf("%+v", r)
	}
}
