package jsonl_test

import (
	"context"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/jsonl"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/event/spool"
)

// cpu is the processor time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPacketIn goes from packet-in to the ring, the spool and the file. The budget is 100,000 events per second of one core's CPU; a
// full queue waits, so that none is lost and all is counted.
func BenchmarkPacketIn(b *testing.B) {
	data := make([]byte, 128)
	copy(data, []byte{2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 5, 8, 0, 0x45, 0, 0, 114, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 5, 10, 0, 0, 9,
		0x9c, 0xac, 0x15, 0x38, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff})
	endpoint := &event.Endpoint{Name: "web1", PortName: "tap1", Labels: map[string]string{"app": "web"}}
	pi := record.PacketIn{
		DatapathID: 1, Data: data, TotalLen: 128, Table: 209, Cookie: 0x7a00000000000003, InPort: 7, CtState: 0x21, CtZone: 11, CtNwProto: 6,
		CtSrc: netip.MustParseAddr("10.0.0.5"), CtDst: netip.MustParseAddr("10.0.0.9"), CtTpSrc: 40108, CtTpDst: 5432,
		SrcEndpoint: 1, DstEndpoint: 2, Directory: new(record.Directory), Verdicts: []record.VerdictSide{{Direction: event.Ingress, RuleID: 3,
			Drop: true}},
	}
	rule := &event.Rule{ID: "db/ingress/deny-all", Name: "deny-all", Ruleset: "db", Version: "7"}
	names := (*record.Names)(nil).WithRules(map[uint32]*event.Rule{3: rule})
	pi.Directory.Publish(names.WithEndpoints(map[uint32]*event.Endpoint{1: endpoint, 2: endpoint}))
	for _, name := range []string{"ring", "ring and spool", "ring, spool and file"} {
		b.Run(name, func(b *testing.B) {
			o := record.Options{}
			dir := b.TempDir()
			var err error
			if name != "ring" {
				if o.Spool, err = spool.Open(spool.Options{Dir: filepath.Join(dir, "spool")}); err != nil {
					b.Fatal(err)
				}
			}
			if name == "ring, spool and file" {
				s, err := jsonl.Open(jsonl.Options{Dir: filepath.Join(dir, "events"), Spool: o.Spool, Keep: 2})
				if err != nil {
					b.Fatal(err)
				}
				o.Exports = []record.Export{s}
			}
			r, err := record.NewRecorder(o)
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			go func() { done <- r.Run(ctx) }()
			b.ReportAllocs()
			begin := cpu()
			n := 0
			for b.Loop() {
				if n++; n%4096 == 0 {
					for r.Counters().Pending > 2048 {
						time.Sleep(200 * time.Microsecond)
					}
				}
				r.HandlePacketIn("br0", pi)
			}
			cancel()
			if err := <-done; err != nil { // the file is written to its end
				b.Fatal(err)
			}
			used := cpu() - begin
			c := r.Counters()
			if lost := c.Lost["of_queue"] + c.Lost["spool_io"]; lost > 0 || c.Accepted != c.PacketIns {
				b.Fatalf("%+v", c)
			}
			for _, s := range c.Sinks {
				if s.Written != c.Accepted {
					b.Fatalf("%d of %d events are in the file", s.Written, c.Accepted)
				}
			}
			b.ReportMetric(float64(n)/used.Seconds(), "events/CPU-s")
			b.ReportMetric(float64(used.Nanoseconds())/float64(n), "CPU-ns/event")
		})
	}
}
