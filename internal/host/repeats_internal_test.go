package host

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event/record"
)

func TestRepeats(t *testing.T) {
	in := func(proto uint8, port uint16, data string, change func(*record.PacketIn)) *record.PacketIn {
		p := &record.PacketIn{CtSrc: netip.MustParseAddr("10.0.0.1"), CtDst: netip.MustParseAddr("10.0.0.2"), CtNwProto: proto, CtTpSrc: port,
			CtTpDst: 53, CtZone: 7, EgressRule: 1, IngressRule: 2, Data: []byte(data)}
		if change != nil {
			change(p)
		}
		return p
	}
	const udp, tcp = 17, 6
	r, now := newRepeats(), time.Now()
	for _, x := range []struct {
		name  string
		in    *record.PacketIn
		after time.Duration
		want  bool
	}{
		{"the first", in(udp, 9, "a", nil), 0, false},
		{"another of its burst", in(udp, 9, "b", nil), 0, true},
		{"another connection", in(udp, 10, "b", nil), 0, false},
		{"another zone", in(udp, 9, "b", func(p *record.PacketIn) { p.CtZone = 8 }), 0, false},
		{"another verdict", in(udp, 9, "b", func(p *record.PacketIn) { p.IngressRule = 3 }), 0, false},
		{"nothing that conntrack knows", in(udp, 9, "b", func(p *record.PacketIn) { p.CtSrc = netip.Addr{} }), 0, false},
		{"some time later", in(udp, 9, "a", nil), repeatWithin, false},
		{"a SYN", in(tcp, 9, "seq 1", nil), 0, false},
		{"the same one", in(tcp, 9, "seq 1", nil), 0, true},
		{"the same ends anew", in(tcp, 9, "seq 2", nil), 0, false},
	} {
		now = now.Add(x.after)
		if got := r.again(x.in, now); got != x.want {
			t.Errorf("%s: again %v, want %v", x.name, got, x.want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { r.again(in(udp, 9, "", nil), now) }); n > 2 { // of the test itself
		t.Errorf("%v allocations", n)
	}
}
