package spool_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/spool"
)

// plainScan reads the files one after the other and record by record, by what the format says alone.
func plainScan(t testing.TB, dir string, q spool.Query) (got []int64) {
	t.Helper()
	for _, path := range segments(t, dir) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		table := crc32.MakeTable(crc32.Castagnoli)
		if len(b) < 20 || string(b[:8]) != "twspool1" || binary.LittleEndian.Uint32(b[16:]) != crc32.Checksum(b[:16], table) {
			continue
		}
		for b = b[20:]; len(b) >= 28; {
			n := 28 + int(binary.LittleEndian.Uint32(b))
			if n < 28 || n > len(b) || binary.LittleEndian.Uint32(b[4:]) != crc32.Checksum(b[8:n], table) || b[24] == 0xff {
				break
			}
			seq, at, doc := int64(binary.LittleEndian.Uint64(b[8:])), int64(binary.LittleEndian.Uint64(b[16:])), b[28:n]
			wanted := seq > q.After && (q.Before == 0 || seq < q.Before) && (q.Since == 0 || at >= q.Since) && (q.Until == 0 || at <= q.Until)
			for _, group := range q.Texts {
				wanted = wanted && slices.ContainsFunc(group, func(text []byte) bool { return bytes.Contains(doc, text) })
			}
			if wanted {
				got = append(got, seq)
			}
			b = b[n:]
		}
	}
	if q.Newest {
		slices.Reverse(got)
	}
	return got
}

// Segments are read ahead, and what a scan finds is what reading them one after the other does, whatever the query, with spoilt and missing
// files, and however early it ends; nothing runs on behind it.
func TestScanIsSequential(t *testing.T) {
	found := 0
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		dir := t.TempDir()
		var told outcomes
		s := open(t, spool.Options{Dir: dir, SegmentBytes: int64(2_000 + rnd.IntN(30_000)), Now: func() time.Time { return begin }}, &told)
		n := 1
		for range 1 + rnd.IntN(40) {
			k := 1 + rnd.IntN(60)
			add(t, s, n, k)
			n += k
			settle(t, s)
		}
		for range rnd.IntN(4) {
			files := segments(t, dir)
			path := files[rnd.IntN(len(files))]
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			switch rnd.IntN(3) {
			case 0:
				b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
				err = os.WriteFile(path, b, 0o640)
			case 1:
				err = os.Truncate(path, int64(rnd.IntN(len(b))))
			case 2:
				err = os.Remove(path)
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(segments(t, dir)) == 0 {
				break
			}
		}
		for range 20 {
			q := spool.Query{Newest: rnd.IntN(2) == 0}
			if rnd.IntN(2) == 0 {
				q.After, q.Before = int64(rnd.IntN(n)), int64(rnd.IntN(2*n))
			}
			if rnd.IntN(3) == 0 {
				q.Since = begin.Add(time.Duration(rnd.IntN(n)) * time.Second).UnixNano()
				q.Until = q.Since + int64(rnd.IntN(n))*int64(time.Second)
			}
			if rnd.IntN(2) == 0 {
				q.Texts = [][][]byte{{[]byte(`"verdict":"DROPPED"`), fmt.Appendf(nil, `"ip":"10.0.0.%d"`, rnd.IntN(256))}}
				for range rnd.IntN(3) { // a piece of a document, or of none
					doc, err := event.AppendJSON(nil, newEvent(rnd.IntN(n)))
					if err != nil {
						t.Fatal(err)
					}
					a := rnd.IntN(len(doc))
					piece := doc[a : a+rnd.IntN(len(doc)-a)]
					q.Texts = append(q.Texts, [][]byte{piece[:min(len(piece), 1+rnd.IntN(40))], []byte("nowhere")})
				}
			}
			want := plainScan(t, dir, q)
			most := 1 + rnd.IntN(2*n)
			var got []int64
			if err := s.Scan(t.Context(), q, func(r spool.Record) bool {
				got = append(got, r.Sequence)
				return len(got) < most
			}); err != nil {
				t.Fatal(err)
			}
			if want = want[:min(len(want), most)]; !slices.Equal(got, want) {
				t.Fatalf("seed %d, %+v: %d records, want %d\n%v\n%v", seed, q, len(got), len(want), got, want)
			}
			found += len(got)
		}
		_ = s.Close()
	}
	if found < 10_000 {
		t.Errorf("only %d records were found: the test says little", found)
	}
}

// A scan ends with its context, in the middle of a segment too.
func TestScanEnds(t *testing.T) {
	s := open(t, spool.Options{Dir: t.TempDir(), SegmentBytes: 20_000, Now: func() time.Time { return begin }})
	for i := range 50 {
		add(t, s, 1+100*i, 100)
		settle(t, s)
	}
	for _, most := range []int{1, 150, 2000} {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		err := s.Scan(ctx, spool.Query{}, func(spool.Record) bool {
			if n++; n == most {
				cancel()
			}
			return true
		})
		if !errors.Is(err, context.Canceled) || n < most || n > most+200 {
			t.Errorf("%d records after %d: %v", n, most, err)
		}
		cancel()
	}
}
