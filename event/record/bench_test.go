package record_test

import (
	"encoding/json"
	"runtime"
	"testing"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
)

// BenchmarkQuery scans a ring of a million events for what is not there, or is rare.
func BenchmarkQuery(b *testing.B) {
	r, _ := start(b, record.Options{RingLen: 1_000_000})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 1_000_000 {
		if i%4096 == 0 {
			settle(b, r)
		}
		side := egressAllow
		if i%10 == 0 {
			side = ingressDrop
		}
		r.HandlePacketIn("br0", newSYN(side))
	}
	settle(b, r)
	runtime.GC()
	runtime.ReadMemStats(&after)
	perEvent := float64(after.HeapAlloc-before.HeapAlloc) / 1e6
	for name, f := range map[string]event.Filter{
		"address": {IP: []string{"192.0.2.1"}},
		"policy":  {Policy: []string{"nobody"}},
		"verdict": {Verdict: []string{"REJECTED"}},
		"everything": {Verdict: []string{"DROPPED"}, Policy: []string{"db"}, FromName: []string{"web1"}, ToIP: []string{"192.0.2.0/24"},
			ToPort: []string{"5432"}},
		"newest 20":    {Verdict: []string{"DROPPED"}},
		"newest 10000": {Verdict: []string{"DROPPED"}, Limit: event.MaxLimit},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				r.Recent(f)
			}
			b.ReportMetric(perEvent, "heap-B/event")
		})
	}
}

func BenchmarkHandlePacketIn(b *testing.B) {
	r, _ := start(b, record.Options{})
	pi := newSYN(ingressDrop)
	b.ReportAllocs()
	for b.Loop() {
		r.HandlePacketIn("br0", pi)
	}
}

func BenchmarkMarshal(b *testing.B) {
	r, _ := start(b, record.Options{Host: "node1"})
	r.HandlePacketIn("br0", newSYN(ingressDrop))
	settle(b, r)
	e := r.Recent(event.Filter{}).Items[0]
	b.Run("json.Marshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(e); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("AppendJSON", func(b *testing.B) {
		var doc []byte
		b.ReportAllocs()
		for b.Loop() {
			var err error
			if doc, err = event.AppendJSON(doc[:0], e); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(doc)), "B/event")
	})
}
