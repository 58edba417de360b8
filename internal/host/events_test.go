package host_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

func TestVerdicts(t *testing.T) {
	t.Parallel()
	const (
		e, i, none = 7, 9, pipeline.IDNoEndpoint
		byDefault  = pipeline.IDDefaultAllow | 5
		audit      = 21
		ok, drop   = pipeline.VerdictAllow, pipeline.VerdictDrop
		reject     = pipeline.VerdictReject
	)
	type side = record.VerdictSide
	for _, tc := range []struct {
		name                      string
		egress, ingress           pipeline.Verdict
		egressLog, ingressLog     bool
		egressRule, ingressRule   uint32 // 0 = e and i
		egressAudit, ingressAudit bool
		want                      []side
	}{
		{name: "one event for both sides, named after the receiver's rule", egress: ok, ingress: ok,
			want: []side{{Direction: event.Ingress, RuleID: i}}},
		{name: "a rule before a default", egress: ok, ingress: ok, ingressLog: true, ingressRule: byDefault,
			want: []side{{Direction: event.Egress, RuleID: e}}},
		{name: "of defaults the receiver's", egress: ok, ingress: ok, ingressLog: true, egressRule: byDefault, ingressRule: byDefault + 1,
			want: []side{{Direction: event.Ingress, RuleID: byDefault + 1}}},
		{name: "the receiver is no endpoint", egress: ok, ingress: ok, egressLog: true, egressRule: byDefault, ingressRule: none,
			want: []side{{Direction: event.Egress, RuleID: byDefault}}},
		{name: "the sender is no endpoint", egress: ok, ingress: ok, ingressLog: true, egressRule: none, ingressRule: byDefault,
			want: []side{{Direction: event.Ingress, RuleID: byDefault}}},
		{name: "a deny is one event, whatever allowed before it", egress: ok, ingress: drop, egressLog: true, ingressLog: true,
			want: []side{{Direction: event.Ingress, RuleID: i, Drop: true}}},
		{name: "ingress drops unlogged", egress: ok, ingress: drop, egressLog: true},
		{name: "egress drops and ingress never decided", egress: drop, ingress: ok, egressLog: true, ingressLog: true,
			want: []side{{Direction: event.Egress, RuleID: e, Drop: true}}},
		{name: "egress drops unlogged", egress: drop, ingress: drop, ingressLog: true},
		{name: "ingress rejects", egress: ok, ingress: reject, ingressLog: true,
			want: []side{{Direction: event.Ingress, RuleID: i, Drop: true, Reject: true}}},
		{name: "both reject", egress: reject, ingress: reject, egressLog: true, ingressLog: true,
			want: []side{{Direction: event.Egress, RuleID: e, Drop: true, Reject: true}}},
		{name: "egress rejects what ingress denies", egress: reject, ingress: drop, egressLog: true, ingressLog: true,
			want: []side{{Direction: event.Ingress, RuleID: i, Drop: true}}},
		{name: "egress denies what ingress rejects", egress: drop, ingress: reject, egressLog: true, ingressLog: true,
			want: []side{{Direction: event.Egress, RuleID: e, Drop: true}}},
		{name: "nobody decided", egressLog: true, ingressLog: true, want: []side{{Direction: event.Egress, RuleID: e, Drop: true}}},
		{name: "what would have been denied is told instead of what allowed it", egress: ok, ingress: ok, egressLog: true, ingressLog: true,
			ingressAudit: true, want: []side{{Direction: event.Ingress, RuleID: audit, Audit: true}}},
		{name: "on both sides", egress: ok, ingress: ok, egressAudit: true, ingressAudit: true,
			want: []side{{Direction: event.Egress, RuleID: audit, Audit: true}, {Direction: event.Ingress, RuleID: audit, Audit: true}}},
		{name: "and beside what is denied anyhow", egress: ok, ingress: drop, ingressLog: true, egressAudit: true,
			want: []side{{Direction: event.Egress, RuleID: audit, Audit: true}, {Direction: event.Ingress, RuleID: i, Drop: true}}},
	} {
		var in record.PacketIn
		egressRule, ingressRule := max(tc.egressRule, e), max(tc.ingressRule, i)
		host.SetRegister(&in, pipeline.EgressRule, egressRule)
		host.SetRegister(&in, pipeline.IngressRule, ingressRule)
		host.SetRegister(&in, pipeline.EgressVerdict, uint32(tc.egress))
		host.SetRegister(&in, pipeline.IngressVerdict, uint32(tc.ingress))
		if tc.egressLog {
			host.SetRegister(&in, pipeline.EgressLog, 1)
		}
		if tc.ingressLog {
			host.SetRegister(&in, pipeline.IngressLog, 1)
		}
		if tc.egressAudit {
			in.Metadata |= uint64(audit | pipeline.AuditNoted)
		}
		if tc.ingressAudit {
			in.Metadata |= uint64(audit|pipeline.AuditNoted) << 32
		}
		// The fields between are somebody else's.
		host.SetRegister(&in, pipeline.Recorded, 1)
		host.SetRegister(&in, pipeline.PickedUp, 1)
		if diff := diff(tc.want, host.Verdicts(&in)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
		asked := func(id uint32, was bool) uint32 {
			if id == none || !was {
				return 0
			}
			return id
		}
		if got, want := in.EgressRule, asked(egressRule, true); got != want {
			t.Errorf("%s: the sender's side was decided by %d, want %d", tc.name, got, want)
		}
		stopped := tc.egress == drop || tc.egress == pipeline.VerdictNone || tc.egress == reject && tc.ingress != drop
		if got, want := in.IngressRule, asked(ingressRule, !stopped); got != want {
			t.Errorf("%s: the receiver's side was decided by %d, want %d", tc.name, got, want)
		}
	}
}

// Every kind of copy that our flows send has somebody who takes it.
func TestPacketInKinds(t *testing.T) {
	t.Parallel()
	kinds := 0
	for second := range 256 {
		reason, ours := pipeline.ParseUserData([]byte{pipeline.CopyAllow.UserData()[0], byte(second)})
		if !ours {
			continue
		}
		if kinds++; !host.Takes(reason) {
			t.Errorf("nobody takes a packet-in of the kind %q", reason)
		}
	}
	if kinds < 5 {
		t.Errorf("only %d kinds were looked at", kinds)
	}
}

func TestRegister(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		field pipeline.Field
		reg   int
		value uint32
		want  uint32
	}{
		{pipeline.SourceEndpoint, 0, 0xffffffff, 0xffffffff},
		{pipeline.DestinationEndpoint, 1, 0x12345678, 0x12345678},
		{pipeline.ZoneVLAN, 2, 0xe123, 0x123},
		{pipeline.ZoneBridge, 2, 0xe123, 0xe},
		{pipeline.EgressRule, 3, 0x80000001, 0x80000001},
		{pipeline.EgressVerdict, 5, 0x30, 3},
		{pipeline.EgressVerdict, 5, 0xffffffcf, 0},
		{pipeline.IngressVerdict, 5, 0x40, 1},
		{pipeline.EgressLog, 5, 0x200, 1},
		{pipeline.IngressLog, 5, 0x7ff, 0},
		{pipeline.Told, 5, 0x80000000, 1},
	} {
		var in record.PacketIn
		in.Registers[tc.reg] = tc.value
		if got := host.Register(&in, tc.field); got != tc.want {
			t.Errorf("%s of %#x: %#x, want %#x", tc.field.Name, tc.value, got, tc.want)
		}
	}
}

func TestReadMetadata(t *testing.T) {
	t.Parallel()
	m := func(fields ...any) flow.Match {
		var m flow.Match
		for i := 0; i < len(fields); i += 2 {
			m = m.With(fields[i].(flow.FieldID), fields[i+1].(flow.U128))
		}
		return m
	}
	v6 := func(hi, lo uint64) flow.U128 { return flow.U128{Hi: hi, Lo: lo} }
	for _, tc := range []struct {
		name string
		in   flow.Match
		want record.PacketIn
	}{
		{name: "nothing"},
		{"registers and port", m(flow.InPort, flow.U64(7), flow.Reg8, flow.U64(1), flow.Reg15, flow.U64(0xffffffff), flow.CtState,
			flow.U64(0x21), flow.CtZone, flow.U64(0xe000), flow.CtMark, flow.U64(3), flow.Metadata, flow.U64(1<<40)),
			record.PacketIn{InPort: 7, Metadata: 1 << 40, Registers: [8]uint32{0: 1, 7: 0xffffffff}, CtState: 0x21, CtZone: 0xe000, CtMark: 3}},
		{"an IPv4 tuple", m(flow.CtNwProto, flow.U64(6), flow.CtNwSrc, flow.U64(0x0a000001), flow.CtNwDst, flow.U64(0xc0000201), flow.CtTpSrc,
			flow.U64(40000), flow.CtTpDst, flow.U64(80)),
			record.PacketIn{CtNwProto: 6, CtSrc: netip.MustParseAddr("10.0.0.1"), CtDst: netip.MustParseAddr("192.0.2.1"), CtTpSrc: 40000,
				CtTpDst: 80}},
		{"an IPv6 tuple", m(flow.CtNwProto, flow.U64(17), flow.CtIPv6Src, v6(0x20010db8_00000000, 1), flow.CtIPv6Dst, v6(0xfe80_0000_0000_0000,
			2)),
			record.PacketIn{CtNwProto: 17, CtSrc: netip.MustParseAddr("2001:db8::1"), CtDst: netip.MustParseAddr("fe80::2")}},
		{"registers of others", m(flow.Reg0, flow.U64(5), flow.Reg0+7, flow.U64(6)), record.PacketIn{}},
	} {
		var got record.PacketIn
		host.ReadMetadata(&got, tc.in)
		if got.InPort != tc.want.InPort || got.Registers != tc.want.Registers || got.CtState != tc.want.CtState ||
			got.CtZone != tc.want.CtZone || got.CtMark != tc.want.CtMark ||
			got.CtNwProto != tc.want.CtNwProto || got.CtSrc != tc.want.CtSrc || got.CtDst != tc.want.CtDst || got.CtTpSrc != tc.want.CtTpSrc ||
			got.CtTpDst != tc.want.CtTpDst {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

// A logged verdict becomes an event that names rule and endpoints, from a packet that the switch really copied.
func TestVerdictEvent(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	r := h.ready(settings{})
	r.apply(`
kind: Policy
name: p
spec:
  appliesTo: [{port: vm1}]
  ingress: [{name: no-telnet, action: deny, from: [{port: vm2}], services: [{protocol: tcp, ports: ["23"]}], log: true}]
`)
	events, err := r.rec.Subscribe(t.Context(), event.Filter{}, "")
	if err != nil {
		t.Fatal(err)
	}
	h.ovs.InjectPacket("vm2", syn(t, macOf("vm2"), macOf("vm1"), "10.0.0.2", "10.0.0.1", 40000, 23))
	var e *event.Event
	select {
	case e = <-events:
	case <-time.After(patience):
		t.Fatal("no event")
	}
	id := r.ids("p")["ingress/no-telnet"]
	if e.Rule == nil || e.Rule.Name != "p/ingress/no-telnet" && e.Rule.Name != "no-telnet" || e.Tapwall.RuleID == nil ||
		*e.Tapwall.RuleID != id {
		t.Errorf("rule %+v, id %v, want %d", e.Rule, e.Tapwall.RuleID, id)
	}
	if e.Tapwall.Verdict != event.Dropped || e.Tapwall.Direction != "ingress" || e.Tapwall.Bridge != "br0" || e.Observer.Ingress == nil ||
		e.Observer.Ingress.Interface.Name != "vm2" {
		t.Errorf("verdict %+v, observer %+v", e.Tapwall, e.Observer)
	}
	if s, d := e.Tapwall.Source, e.Tapwall.Destination; s == nil || d == nil || s.Name != "vm2" || d.Name != "vm1" ||
		e.Source.IP != "10.0.0.2" || e.Destination.Port != 23 {
		t.Errorf("from %+v (%+v) to %+v (%+v)", s, e.Source, d, e.Destination)
	}
}

// syn is the first segment of a connection.
func syn(t *testing.T, srcMAC, dstMAC, src, dst string, srcPort, dstPort uint16) []byte {
	t.Helper()
	mac := func(s string) net.HardwareAddr {
		m, err := net.ParseMAC(s)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.ParseIP(src).To4(), DstIP: net.ParseIP(dst).To4()}
	tcp := &layers.TCP{SrcPort: layers.TCPPort(srcPort), DstPort: layers.TCPPort(dstPort), SYN: true, Window: 1024}
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: mac(srcMAC), DstMAC: mac(dstMAC), EthernetType: layers.EthernetTypeIPv4}, ip, tcp)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Names are read by the recorder while the firewall changes.
func TestNamesDuringChange(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	r := h.ready(settings{})
	r.apply(allow("p", "vm1", "{port: vm2}", "80"))
	first := r.ids("p")["ingress/in"]
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	found := make([]int, 4)
	for i := range found {
		wg.Go(func() {
			for ctx.Err() == nil {
				for id := first - 10; id < first+30; id++ {
					names := r.engine.Names("br0")
					if rule := names.Rule(id); rule != nil && rule.Ruleset != "" {
						found[i]++
					}
					if ep := names.Endpoint(id); ep != nil && ep.Name != "vm1" && ep.Name != "vm2" {
						t.Errorf("endpoint %d is %+v", id, ep)
					}
				}
			}
		})
	}
	for i := range 15 {
		r.apply(allow("p", "vm1", "{port: vm2}", fmt.Sprint(81+i)))
	}
	id := r.ids("p")["ingress/in"]
	cancel()
	wg.Wait()
	if rule := r.engine.Names("br0").Rule(id); rule == nil || *rule != (event.Rule{ID: "p/ingress/in", Name: "in", Ruleset: "p"}) {
		t.Errorf("rule %d is %+v", id, rule)
	}
	for _, bridge := range []string{"br1", ""} {
		if r.engine.Names(bridge).Rule(id) != nil {
			t.Errorf("bridge %q knows rule %d", bridge, id)
		}
		if r.engine.Names(bridge).Endpoint(1) != nil {
			t.Errorf("bridge %q knows endpoint 1", bridge)
		}
	}
	for i, n := range found {
		if n == 0 {
			t.Errorf("reader %d found nothing", i)
		}
	}
}
