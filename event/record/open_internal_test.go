package record

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/packet"
)

// BenchmarkConnections is what remembering a connection costs from its start to its end, without the event of that; and what a look costs
// for each connection that is still there.
func BenchmarkConnections(b *testing.B) {
	o := newOpenTable()
	builder := builder{open: &o, lose: func(string) { b.Fatal("no room") }}
	began := time.Now()
	start := &event.Event{Observer: &event.Observer{Name: "node1"}, Event: event.Meta{Action: event.ActionVerdict}}
	pi := PacketIn{Bridge: "br0", Watched: true, CtState: ctNew, CtNwProto: packet.ProtoTCP, CtSrc: netip.MustParseAddr("10.0.0.5"),
		CtDst: netip.MustParseAddr("10.0.0.9"), CtTpDst: 5432, Verdicts: []VerdictSide{{}}, Time: began}
	const many = 50_000
	for name, found := range map[string]bool{"start and end": false, "look": true} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			l := Look{Host: "node1", Bridge: "br0", Began: began.Add(time.Hour), Ended: began.Add(time.Hour)}
			if found {
				l.Found = map[uint16]map[Tuple]Tracked{0: {}}
				for port := range many {
					t, _ := tupleOf(&pi, nil)
					t.SrcPort = uint16(port)
					l.Found[0][t] = Tracked{}
				}
			}
			for i := 0; b.Loop(); i++ {
				if i%many == 0 && (i == 0 || !found) { // all have ended, or none is there yet
					o.look(&Look{Host: "node1", Bridge: "br0", Began: l.Began, Ended: l.Ended})
					o.take(many)
				}
				switch {
				case !found || i < many:
					pi.CtTpSrc = uint16(i % many)
					pi.Time = began.Add(time.Duration(i))
					builder.follow(&pi, start)
				case i%many == 0:
					if o.look(&l) {
						b.Fatal("one has ended")
					}
				}
			}
		})
	}
}
