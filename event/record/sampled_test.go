package record_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
)

// A packet of a connection that a rule samples is a document about the packet that names the rule and what it stands for; of its payload
// nothing is read. The beginning of the connection stands for as many.
func TestSampledDocument(t *testing.T) {
	r, _ := start(t, record.Options{Host: "node1"})
	pi := newSYN(record.VerdictSide{Direction: event.Ingress, RuleID: 2, Sampled: true})
	pi.Weight, pi.EgressRule, pi.IngressRule, pi.Table, pi.CtState = 100, 1, 2, 211, 0x2a
	pi.Data = carrying(t, "tcp", netip.AddrPortFrom(db, 5432), netip.AddrPortFrom(web, 40108),
		[]byte("GET /secret HTTP/1.1\r\nHost: a\r\n\r\n"))
	r.HandlePacketIn("br0", pi)
	began := newSYN(ingressOK)
	began.Weight = 100
	r.HandlePacketIn("br0", began)
	settle(t, r)
	got := r.Recent(event.Filter{}).Items
	p := got[0]
	if p.Event.Action != event.ActionSampled || p.Event.Dataset != event.DatasetPacket || p.Tapwall.Verdict != event.Sampled ||
		p.Tapwall.Weight != 100 || p.Rule.ID != "db/ingress/from-web" || p.Tapwall.EgressRule.ID != "web/egress/to-db" || p.HTTP != nil ||
		p.Class() != event.P2 || p.Event.Outcome != "" {
		t.Errorf("%+v", p)
	}
	if line := event.Compact(p, event.PrintOptions{Location: time.UTC}); !strings.HasPrefix(line,
		"Nov 20 12:00:00.123: web1(10.0.0.5):40108 <- db1(10.0.0.9):5432 packet-sampled:db/from-web INGRESS SAMPLED (TCP Flags: ") {
		t.Error(line)
	}
	if b := got[1]; b.Event.Action != event.ActionVerdict || b.Tapwall.Weight != 100 || b.Tapwall.Verdict != event.Forwarded {
		t.Errorf("%+v", b)
	}
}

// Samples leave half of the queue to verdicts, and are counted where they find no room.
func TestSamplesLeaveRoomForVerdicts(t *testing.T) {
	r, err := record.NewRecorder(record.Options{QueueLen: 8}) // does not run: nothing leaves the queue
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		r.HandlePacketIn("br0", newSYN(record.VerdictSide{Direction: event.Ingress, RuleID: 2, Sampled: true}))
	}
	for range 4 {
		r.HandlePacketIn("br0", newSYN(ingressDrop))
	}
	if c := r.Counters(); c.Observed != 14 || c.Pending != 8 || c.Lost["of_queue"] != 6 {
		t.Errorf("%+v", c)
	}
}
