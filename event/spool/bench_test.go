package spool_test

import (
	"context"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event/spool"
)

// BenchmarkAppend is the time of one event from its document to the end of the write.
func BenchmarkAppend(b *testing.B) {
	s := open(b, spool.Options{Dir: b.TempDir()})
	e := newEvent(3)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		batch := s.Batch()
		for range 100 {
			if err := batch.Add(e); err != nil {
				b.Fatal(err)
			}
		}
		s.Append(batch)
		n += 100
		for s.Status().Pending > 5000 {
			time.Sleep(50 * time.Microsecond)
		}
	}
	settle(b, s)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
}

// BenchmarkScan looks for an address among a million events; the budget is a second.
func BenchmarkScan(b *testing.B) {
	const events = 1_000_000
	s := open(b, spool.Options{Dir: b.TempDir()})
	for i := 0; i < events; i += 1000 {
		add(b, s, i, 1000)
		for s.Status().Pending > 5000 {
			time.Sleep(time.Millisecond)
		}
	}
	st := settle(b, s)
	if st.Events != events {
		b.Fatalf("%+v", st)
	}
	for b.Loop() {
		n := 0
		q := spool.Query{Newest: true, Texts: [][][]byte{{[]byte(`"ip":"10.0.1.7"`)}, {[]byte(`"verdict":"DROPPED"`)}}}
		if err := s.Scan(context.Background(), q, func(spool.Record) bool { n++; return true }); err != nil || n == 0 {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(st.Bytes)/events, "B/event")
}
