package record_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/event/spool"
)

func TestVerdictDocument(t *testing.T) {
	r, _ := start(t, record.Options{Host: "node1", Now: func() time.Time { return noon.Add(time.Millisecond) }})
	in := newSYN(ingressDrop)
	in.EgressRule, in.IngressRule = egressAllow.RuleID, ingressDrop.RuleID
	r.HandlePacketIn("br0", in)
	settle(t, r)
	items := r.Recent(event.Filter{}).Items
	if len(items) != 1 {
		t.Fatalf("got %d events, want 1", len(items))
	}
	for _, f := range []event.Filter{{Rule: []string{"to-db"}}, {Policy: []string{"web"}}, {Rule: []string{"db/ingress/deny-all"}}} {
		if n := len(r.Recent(f).Items); n != 1 {
			t.Errorf("%+v finds %d events, want 1", f, n)
		}
	}
	if n := len(r.Recent(event.Filter{Rule: []string{"from-web"}}).Items); n != 0 {
		t.Errorf("a rule that was not asked finds %d events", n)
	}
	got, err := json.MarshalIndent(items[0], "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(`{
 "@timestamp": "2026-11-20T12:00:00.123456789Z",
 "ecs": {"version": "9.4.0"},
 "event": {"id": "ID", "sequence": SEQ, "kind": "event", "category": ["network"], "type": ["connection", "denied"],
  "action": "policy-verdict", "dataset": "tapwall.flow", "module": "tapwall", "provider": "packet-in",
  "outcome": "failure", "reason": "POLICY_DENIED", "created": "2026-11-20T12:00:00.124456789Z"},
 "source": {"ip": "10.0.0.5", "port": 40108, "mac": "02-00-00-00-00-05"},
 "destination": {"ip": "10.0.0.9", "port": 5432, "mac": "02-00-00-00-00-09"},
 "network": {"type": "ipv4", "transport": "tcp", "iana_number": "6", "direction": "ingress",
  "community_id": "1:SatrzNEftFE5qf42/2JD8jiUo4c=", "bytes": 54, "packets": 1},
 "host": {"name": "node1"},
 "observer": {"name": "node1", "serial_number": "0000aabbccddeeff", "ingress": {"interface": {"name": "tap1", "id": "7"}}},
 "rule": {"id": "db/ingress/deny-all", "name": "deny-all", "ruleset": "db", "version": "7"},
 "tapwall": {"schema": 1, "verdict": "DROPPED", "drop_reason": "POLICY_DENIED", "direction": "ingress", "enforcement": "enforce",
  "bridge": "br0", "table": 209, "cookie": "0x7a00000000000003", "rule_id": 3,
  "egress_rule": {"id": "web/egress/to-db", "name": "to-db", "ruleset": "web", "version": "12"},
  "ingress_rule": {"id": "db/ingress/deny-all", "name": "deny-all", "ruleset": "db", "version": "7"},
  "ct": {"state": ["new", "trk"], "zone": 11}, "tcp": {"flags": ["SYN"]},
  "source": {"name": "web1", "port_name": "tap1", "labels": {"app": "web"}}, "destination": {"name": "db1", "port_name": "tap2"},
  "decode": {"status": "ok"}},
 "related": {"ip": ["10.0.0.5", "10.0.0.9"]}
}`, "ID", items[0].Event.ID)
	want = strings.ReplaceAll(want, "SEQ", fmt.Sprint(items[0].Event.Sequence))
	var g, w any
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(w, g); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// brief is what the cases below are about.
type brief struct {
	Rule, Direction, Verdict, Reason string
	Source, Destination              event.Side
	SourceName                       string
	Transport, Decode, Layer         string
}

func briefOf(e *event.Event) brief {
	b := brief{
		Rule: e.Rule.ID, Direction: e.Tapwall.Direction, Verdict: string(e.Tapwall.Verdict), Reason: e.Tapwall.DropReason,
		Transport: e.Network.Transport, Decode: e.Tapwall.Decode.Status, Layer: e.Tapwall.Decode.Layer,
	}
	if e.Source != nil {
		b.Source = *e.Source
	}
	if e.Destination != nil {
		b.Destination = *e.Destination
	}
	if e.Tapwall.Source != nil {
		b.SourceName = e.Tapwall.Source.Name
	}
	return b
}

func TestEvents(t *testing.T) {
	const webMAC, dbMAC = "02-00-00-00-00-05", "02-00-00-00-00-09"
	ends := func(b brief) brief {
		b.Source = event.Side{IP: "10.0.0.5", Port: 40108, MAC: webMAC}
		b.Destination = event.Side{IP: "10.0.0.9", Port: 5432, MAC: dbMAC}
		b.Transport, b.Decode, b.SourceName = "tcp", "ok", "web1"
		return b
	}
	untracked := func(pi record.PacketIn) record.PacketIn {
		pi.CtState, pi.CtNwProto, pi.CtSrc, pi.CtDst, pi.CtTpSrc, pi.CtTpDst = 0, 0, netip.Addr{}, netip.Addr{}, 0, 0
		return pi
	}
	with := func(pi record.PacketIn, data string) record.PacketIn {
		pi.Data = frame(data)
		pi.TotalLen = 0
		return pi
	}
	icmpError := "020000000005 0200000000fe 0800 4500003800010000400100000a0000fe0a000005 0301000000000000 45000028000100004006 0000 " +
		"0a000005 0a000009 9cac1538"
	for _, tc := range []struct {
		name string
		pi   record.PacketIn
		want []brief
	}{
		{"both sides allow", newSYN(egressAllow, ingressOK), []brief{
			ends(brief{Rule: "web/egress/to-db", Direction: "egress", Verdict: "FORWARDED"}),
			ends(brief{Rule: "db/ingress/from-web", Direction: "ingress", Verdict: "FORWARDED"}),
		}},
		{"egress drop ends it", newSYN(record.VerdictSide{Direction: event.Egress, RuleID: 1, Drop: true}, ingressOK), []brief{
			ends(brief{Rule: "web/egress/to-db", Direction: "egress", Verdict: "DROPPED", Reason: "POLICY_DENIED"}),
		}},
		{"reject", newSYN(record.VerdictSide{Direction: event.Ingress, RuleID: 3, Reject: true}), []brief{
			ends(brief{Rule: "db/ingress/deny-all", Direction: "ingress", Verdict: "REJECTED", Reason: "POLICY_DENIED"}),
		}},
		{"unknown rule", newSYN(record.VerdictSide{Direction: event.Ingress, RuleID: 0xbeef, Drop: true}), []brief{
			ends(brief{Rule: "0x0000beef", Direction: "ingress", Verdict: "DROPPED", Reason: "UNKNOWN_RULE"}),
		}},
		{"no verdict", newSYN(), nil},
		{"not tracked: the sender is the source", untracked(newSYN(ingressDrop)), []brief{
			ends(brief{Rule: "db/ingress/deny-all", Direction: "ingress", Verdict: "DROPPED", Reason: "POLICY_DENIED"}),
		}},
		{"reply: the initiator stays the source", func() record.PacketIn {
			pi := with(newSYN(ingressDrop),
				"020000000005 020000000009 0800 45000028000100004006 0000 0a000009 0a000005 1538 9cac 00000001 00000002 5012 ffff 0000 0000")
			pi.CtState = 0x2a
			return pi
		}(), []brief{ends(brief{Rule: "db/ingress/deny-all", Direction: "ingress", Verdict: "DROPPED", Reason: "POLICY_DENIED"})}},
		{"ICMP error from a router: ends of the connection, no MAC", func() record.PacketIn {
			pi := with(newSYN(ingressDrop), icmpError)
			pi.CtState = 0x24
			return pi
		}(), []brief{{
			Rule: "db/ingress/deny-all", Direction: "ingress", Verdict: "DROPPED", Reason: "POLICY_DENIED",
			Source: event.Side{IP: "10.0.0.5", Port: 40108}, Destination: event.Side{IP: "10.0.0.9", Port: 5432},
			Transport: "tcp", Decode: "ok", SourceName: "web1",
		}}},
		{"not readable, not tracked", untracked(with(newSYN(ingressDrop), "0200")), []brief{{
			Rule: "db/ingress/deny-all", Direction: "ingress", Verdict: "DROPPED", Reason: "POLICY_DENIED",
			Decode: "failed", Layer: "ethernet", SourceName: "web1",
		}}},
		{"not readable, tracked", with(newSYN(ingressDrop), "020000000009 020000000005 0800 40000028"), []brief{
			func() brief {
				b := ends(brief{Rule: "db/ingress/deny-all", Direction: "ingress", Verdict: "DROPPED", Reason: "POLICY_DENIED"})
				b.Decode, b.Layer = "failed", "ipv4"
				return b
			}(),
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, _ := start(t, record.Options{})
			r.HandlePacketIn("br0", tc.pi)
			c := settle(t, r)
			var got []brief
			for _, e := range r.Recent(event.Filter{}).Items {
				got = append(got, briefOf(e))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			unknown := int64(0)
			if tc.want == nil {
				unknown = 1
			}
			if c.PacketIns != 1 || c.Unknown != unknown || c.Accepted != int64(len(tc.want)) || c.Observed != c.Accepted {
				t.Errorf("counters %+v", c)
			}
		})
	}
}

// TestConservation overloads a recorder from several goroutines, with a queue far too short, losses reported from elsewhere and
// faults, while readers check the identity at any moment.
func TestConservation(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			reg := prometheus.NewRegistry()
			sp := openSpool(t, spool.Options{Dir: t.TempDir()})
			r, stop := start(t, record.Options{
				QueueLen: 1 + rng.IntN(64), RingLen: 1 + rng.IntN(2000), LossEvery: time.Millisecond, Registry: reg, Spool: sp,
			})
			const producers, each = 4, 20_000
			var packets, unknown, sides, metered atomic.Int64
			r.HandlePacketIn("br0", newSYN(record.VerdictSide{Direction: event.Egress, RuleID: 9})) // panics
			packets.Add(1)
			sides.Add(1)
			settle(t, r)
			var wg sync.WaitGroup
			for p := range producers {
				rng := rand.New(rand.NewPCG(seed, uint64(p)+10))
				wg.Go(func() {
					for range each {
						var vs []record.VerdictSide
						for range rng.IntN(3) {
							vs = append(vs, record.VerdictSide{Direction: event.Egress, RuleID: uint32(1 + rng.IntN(3)), Drop: rng.IntN(4) == 0})
						}
						if rng.IntN(500) == 0 && len(vs) > 0 {
							vs[0].RuleID = 9
						}
						pi := newSYN(vs...)
						pi.Data = pi.Data[:rng.IntN(len(pi.Data)+1)]
						packets.Add(1)
						if len(vs) == 0 {
							unknown.Add(1)
						}
						for _, v := range vs {
							sides.Add(1)
							if v.Drop {
								break
							}
						}
						r.HandlePacketIn("br0", pi)
						if rng.IntN(1000) == 0 {
							n := int64(rng.IntN(100))
							metered.Add(n)
							r.AddLoss(event.StagePacketInMeter, event.NoClass, "rate", n)
						}
					}
				})
			}
			check := make(chan struct{})
			var checks int
			wg2 := sync.WaitGroup{}
			wg2.Go(func() {
				for {
					select {
					case <-check:
						return
					default:
					}
					c := r.Counters()
					if c.Observed != c.Accepted+c.Pending+lost(c) {
						t.Errorf("observed %d, accepted %d, pending %d, lost %v", c.Observed, c.Accepted, c.Pending, c.Lost)
						return
					}
					checks++
					time.Sleep(100 * time.Microsecond)
				}
			})
			wg.Wait()
			close(check)
			wg2.Wait()
			stop()
			r.HandlePacketIn("br0", newSYN(ingressDrop)) // too late: counted as well
			packets.Add(1)
			sides.Add(1)

			c := r.Counters()
			if c.PacketIns != packets.Load() || c.Unknown != unknown.Load() || c.Pending != 0 {
				t.Errorf("%d packet-ins, %d unknown: %+v", packets.Load(), unknown.Load(), c)
			}
			kept, losses, told := spooled(t, sp)
			if want := sides.Load() + metered.Load() + losses; c.Observed != want {
				t.Errorf("observed %d, want %d", c.Observed, want)
			}
			if c.Observed != c.Accepted+lost(c) {
				t.Errorf("observed %d, accepted %d, lost %v", c.Observed, c.Accepted, c.Lost)
			}
			if c.Lost["packet_in_meter"] != metered.Load() {
				t.Errorf("metered %d, want %d", c.Lost["packet_in_meter"], metered.Load())
			}
			if kept != c.Accepted {
				t.Errorf("the spool has %d of %d accepted", kept, c.Accepted)
			}
			if c.Lost["of_queue"] == 0 || c.Lost["decode"] == 0 || checks == 0 {
				t.Errorf("nothing was tried: %d checks, %v", checks, c.Lost)
			}
			if c.RingEntries > c.RingCapacity {
				t.Errorf("ring holds %d of %d", c.RingEntries, c.RingCapacity)
			}
			// What loss events told is what was counted, but for what was lost after the last of them.
			if diff := c.Lost["of_queue"] - told["of_queue"]; diff != 1 {
				t.Errorf("%d of_queue losses not told, want only the one after the end", diff)
			}
			checkMetrics(t, reg, c)
		})
	}
}

// spooled reads what is on disk: how many events, how many of them are losses, and how many of a stage these tell of.
func spooled(t *testing.T, s *spool.Spool) (n, losses int64, told map[string]int64) {
	t.Helper()
	told = map[string]int64{}
	last := int64(0)
	err := s.Scan(t.Context(), spool.Query{}, func(rec spool.Record) bool {
		var e event.Event
		if err := json.Unmarshal(rec.JSON, &e); err != nil || e.Event.Sequence <= last {
			t.Fatalf("sequence %d after %d, %v", e.Event.Sequence, last, err)
		}
		last = e.Event.Sequence
		n++
		if l := e.Tapwall.Loss; l != nil {
			losses++
			told[l.Stage] += l.Count
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, losses, told
}

// export is one that loses an event as soon as it is told whom to report it to.
type export struct {
	name   string
	closed atomic.Bool
}

func (x *export) Name() string                { return x.name }
func (x *export) Close() error                { x.closed.Store(true); return nil }
func (x *export) Status() event.SinkStatus    { return event.SinkStatus{Name: x.name, Written: 3} }
func (x *export) ReportLoss(f event.LossFunc) { f(event.StageExpired, event.NoClass, x.name, 1) }

// checkMetrics compares what is scraped with the counters.
func checkMetrics(t *testing.T, reg *prometheus.Registry, c event.Counters) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, f := range families {
		for _, m := range f.Metric {
			key := f.GetName()
			if key == "tapwall_lost_events_total" {
				for _, l := range m.Label {
					if l.GetName() == "stage" {
						key += "/" + l.GetValue()
					}
				}
			}
			got[key] += int64(m.GetCounter().GetValue()+m.GetGauge().GetValue()) + int64(m.GetSummary().GetSampleCount())
		}
	}
	want := map[string]int64{
		"tapwall_events_total":                 c.Accepted,
		"tapwall_packetin_received_total":      c.PacketIns,
		"tapwall_packetin_meter_dropped_total": c.Lost["packet_in_meter"],
		"tapwall_ring_entries":                 int64(c.RingEntries),
		"tapwall_open_connections":             int64(c.Open),
		"tapwall_ring_capacity":                int64(c.RingCapacity),
		"tapwall_stream_clients":               int64(c.Clients),
		"tapwall_stream_gaps_total":            c.StreamGaps,
		"tapwall_dns_cache_entries":            0,
	}
	if c.Spool != nil {
		want["tapwall_spool_bytes"], want["tapwall_spool_segments"] = c.Spool.Bytes, int64(c.Spool.Segments)
		if got["tapwall_spool_oldest_age_seconds"] <= 0 {
			t.Error("events of the past have no age")
		}
		delete(got, "tapwall_spool_oldest_age_seconds")
		if n := got["tapwall_spool_fsync_seconds"]; n < c.Spool.Syncs {
			t.Errorf("%d of %d fsyncs", n, c.Spool.Syncs)
		}
		delete(got, "tapwall_spool_fsync_seconds") // there may be another meanwhile
	}
	for stage, n := range c.Lost {
		want["tapwall_lost_events_total/"+stage] = n
	}
	for _, n := range c.DecodeErrors {
		want["tapwall_decode_errors_total"] += n
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// TestHostilePackets sends 100,000 frames made of broken pieces, and the known malicious ones. All of them are counted and none of
// them is lost; then a good one is decoded.
func TestHostilePackets(t *testing.T) {
	const eth4, eth6 = "020000000009 020000000005 0800 ", "020000000009 020000000005 86dd "
	const v6 = "20010db8000000000000000000000001 20010db8000000000000000000000002 "
	malicious := [][]byte{
		frame(eth4 + "40000028000100004006 0000 0a000005 0a000009 9cac 1538 00000001 00000000 5002 ffff 0000 0000"),
		frame(eth4 + "4f000028000100004006 0000 0a000005 0a000009 9cac 1538 00000001 00000000 5002 ffff 0000 0000"),
		frame(eth6 + "60000000 0004 2b 40" + v6 + "06 02 00 01"),
		frame(eth6 + "60000000 0008 00 40" + v6 + "06 ff 01 04 00 00 00 00"),
		frame(eth6 + "60000000 0008 00 40" + v6 + "06 00 1e fe 00 00 00 00"),
	}
	r, stop := start(t, record.Options{})
	rng := rand.New(rand.NewPCG(3, 4))
	const n = 100_000
	for i := range n {
		data := append([]byte(nil), malicious[i%len(malicious)]...)
		if i >= 1000 { // the first ones as they are
			if i%3 == 0 {
				data = append([]byte(nil), syn...)
			}
			for range rng.IntN(8) {
				data[rng.IntN(len(data))] = byte(rng.Uint32())
			}
			data = data[:rng.IntN(len(data)+1)]
		}
		pi := newSYN(ingressDrop)
		pi.Data, pi.TotalLen = data, rng.IntN(3)*len(data)
		if i%2 == 0 {
			pi.CtState, pi.CtSrc, pi.CtDst = rng.Uint32(), netip.Addr{}, netip.Addr{}
		}
		r.HandlePacketIn("br0", pi)
		if i%4096 == 0 {
			settle(t, r) // the queue is not what is tested here
		}
	}
	c := settle(t, r)
	var bad int64
	for _, x := range c.DecodeErrors {
		bad += x
	}
	if c.PacketIns != n || c.Accepted != n || lost(c) != 0 {
		t.Errorf("of %d packets: %+v", n, c)
	}
	if bad < n/2 || bad >= n {
		t.Errorf("%d decode errors in %d packets", bad, n)
	}
	r.HandlePacketIn("br0", newSYN(ingressDrop))
	settle(t, r)
	last := r.Recent(event.Filter{Limit: 1}).Items
	if len(last) != 1 || last[0].Tapwall.Decode.Status != "ok" || last[0].Destination.Port != 5432 {
		t.Errorf("the good packet afterwards: %+v", last)
	}
	stop()
	if c := r.Counters(); c.Accepted != n+1 {
		t.Errorf("%d events were accepted", c.Accepted)
	}
}

func TestHandlePacketInCopies(t *testing.T) {
	r, _ := start(t, record.Options{})
	data, sides := append([]byte(nil), syn...), []record.VerdictSide{ingressDrop}
	pi := newSYN(sides...)
	pi.Data = data
	r.HandlePacketIn("br0", pi)
	clear(data)
	clear(sides)
	settle(t, r)
	e := r.Recent(event.Filter{}).Items[0]
	if e.Source.MAC != "02-00-00-00-00-05" || e.Rule.Name != "deny-all" {
		t.Errorf("what the caller did afterwards shows: %+v %+v", e.Source, e.Rule)
	}
	pi.Data, pi.TotalLen = make([]byte, 9000), 0
	copy(pi.Data, syn)
	r.HandlePacketIn("br0", pi)
	settle(t, r)
	if got := r.Recent(event.Filter{Limit: 1}).Items[0].Network.Bytes; got != 9000 {
		t.Errorf("network.bytes is %d, want the length before the cut", got)
	}
}

func TestHandlePacketInDoesNotAllocate(t *testing.T) {
	r, err := record.NewRecorder(record.Options{QueueLen: 2000}) // not running: nothing else allocates
	if err != nil {
		t.Fatal(err)
	}
	pi := newSYN(egressAllow, ingressOK)
	for range 2000 {
		r.HandlePacketIn("br0", pi)
	}
	pi.Verdicts = []record.VerdictSide{ingressDrop}
	r.HandlePacketIn("br0", pi)
	if n := testing.AllocsPerRun(1000, func() { r.HandlePacketIn("br0", pi) }); n != 0 {
		t.Errorf("%v allocations when the queue is full", n)
	}
	c := r.Counters()
	if c.Pending != 4000 || c.Observed != c.Pending+lost(c) {
		t.Errorf("%+v", c)
	}
}

// Record takes events of any kind: they come into the same order, are completed, selected, handed on and counted like verdicts.
func TestRecord(t *testing.T) {
	sp := openSpool(t, spool.Options{Dir: t.TempDir()})
	later := noon.Add(time.Millisecond)
	r, stop := start(t, record.Options{Host: "node1", Now: func() time.Time { return later }, Spool: sp})
	r.HandlePacketIn("br0", newSYN(ingressDrop))
	settle(t, r)
	what := event.Notice{Message: "one is gone", Count: 1, Objects: []string{"cookie=0x9"}}
	notice := event.NewNotice(event.ActionForeignFlows, "node2", "br0", what)
	r.Record(notice)
	audit := event.Event{Timestamp: noon.In(time.FixedZone("", 3600))}
	audit.Event = event.Meta{Action: event.ActionConfirmed, Dataset: "tapwall.audit", Kind: "state"}
	r.Record(audit)
	c := settle(t, r)
	if c.Observed != 3 || c.Accepted != 3 || c.PacketIns != 1 {
		t.Errorf("counters %+v", c)
	}
	items := r.Recent(event.Filter{}).Items
	if len(items) != 3 || items[1].Event.Sequence != items[0].Event.Sequence+1 || items[2].Event.Sequence != items[0].Event.Sequence+2 {
		t.Fatalf("%d events in a wrong order", len(items))
	}
	got, err := json.Marshal(items[1])
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"@timestamp":"2026-11-20T12:00:00.124456789Z","ecs":{"version":"9.4.0"},`+
		`"event":{"id":%q,"sequence":%d,"kind":"event","category":["configuration"],"type":["change"],"action":"foreign-flows-removed",`+
		`"dataset":"tapwall.switch","module":"tapwall","provider":"switch","created":"2026-11-20T12:00:00.124456789Z"},`+
		`"host":{"name":"node2"},"observer":{"name":"node2"},`+
		`"tapwall":{"schema":1,"bridge":"br0","notice":{"message":"one is gone","count":1,"objects":["cookie=0x9"]}}}`,
		items[1].Event.ID, items[1].Event.Sequence)
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	e := items[2]
	if !e.Timestamp.Equal(noon) || e.Timestamp.Location() != time.UTC || e.Event.Kind != "state" || e.Observer.Name != "node1" ||
		e.Event.Created != later {
		t.Errorf("the audit event is %+v, seen by %+v", e, e.Observer)
	}
	if notice.Event.ID != "" || audit.Observer != nil {
		t.Errorf("the caller's events changed: %+v, %+v", notice, audit)
	}
	for action, n := range map[string]int{event.ActionConfirmed: 1, event.ActionForeignFlows: 1, event.ActionLost: 0} {
		if got := r.Recent(event.Filter{Action: []string{action}}).Items; len(got) != n {
			t.Errorf("%d events of %s, want %d", len(got), action, n)
		}
	}
	stop()
	r.Record(notice)
	kept, _, _ := spooled(t, sp)
	if c := r.Counters(); kept != 3 || c.Observed != 4 || c.Lost["of_queue"] != 1 {
		t.Errorf("the spool has %d; %+v", kept, c)
	}
}

// Exports are in the figures in their order, what they lose is counted and told, and they are closed.
func TestExports(t *testing.T) {
	a, b := &export{name: "a"}, &export{name: "b"}
	r, stop := start(t, record.Options{Exports: []record.Export{a, b}})
	stop()
	c := r.Counters()
	if len(c.Sinks) != 2 || c.Sinks[0].Name != "a" || c.Sinks[1].Name != "b" || c.Sinks[1].Written != 3 ||
		c.Lost["expired"] != 2 || lost(c) != 0 {
		t.Errorf("%+v", c)
	}
	if n := len(r.Recent(event.Filter{Action: []string{event.ActionLost}}).Items); n != 2 || !a.closed.Load() || !b.closed.Load() {
		t.Errorf("%d losses are told of, closed %v %v", n, a.closed.Load(), b.closed.Load())
	}
}

// Packet-ins that come thick and fast are worked on together, soon all the same, in their order; a single one is at once.
func TestPacketInsGather(t *testing.T) {
	r, _ := start(t, record.Options{})
	single := time.Now()
	r.HandlePacketIn("br0", newSYN(egressAllow))
	settle(t, r)
	if d := time.Since(single); d > time.Second {
		t.Errorf("a single event took %v", d)
	}
	const n = 400
	var slowest time.Duration
	began := time.Now()
	for range n {
		pi := newSYN(egressAllow)
		pi.Time = time.Now()
		r.HandlePacketIn("br0", pi)
		time.Sleep(500 * time.Microsecond)
	}
	settle(t, r)
	made := map[time.Time]int{}
	items := r.Recent(event.Filter{Limit: n}).Items
	for i, e := range items {
		if i > 0 && (e.Event.Sequence != items[i-1].Event.Sequence+1 || e.Timestamp.Before(items[i-1].Timestamp)) {
			t.Fatalf("event %d is out of order", i)
		}
		slowest = max(slowest, e.Event.Created.Sub(e.Timestamp))
		made[e.Event.Created]++
	}
	if most := int(time.Since(began)/(8*time.Millisecond)) + 10; len(items) != n || len(made) > most || slowest > time.Second {
		t.Errorf("%d events were made at %d times, the slowest after %v", len(items), len(made), slowest)
	}
	t.Logf("%d events were made at %d times, the slowest after %v", len(items), len(made), slowest)
}

// What finds no room is counted by what it was, and pushes no packet-in out.
func TestRecordBounded(t *testing.T) {
	r, err := record.NewRecorder(record.Options{QueueLen: 8})
	if err != nil {
		t.Fatal(err)
	}
	for range 8 {
		r.HandlePacketIn("br0", newSYN(egressAllow))
	}
	for range 10 {
		r.Record(event.NewNotice(event.ActionTakeOver, "node1", "br0", event.Notice{}))
	}
	if c := r.Counters(); c.Observed != 18 || c.Pending != 16 || c.Lost["of_queue"] != 2 {
		t.Errorf("%+v", c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
	c := r.Counters()
	told := r.Recent(event.Filter{Action: []string{event.ActionLost}}).Items
	if c.Observed != 19 || c.Observed != c.Accepted+lost(c) || len(told) != 1 {
		t.Fatalf("%+v; told %+v", c, told)
	}
	if l := told[0].Tapwall.Loss; l.Count != 2 || l.Class != "P0" {
		t.Errorf("told %+v", l)
	}
}
