package wall_test

import (
	"net/netip"
	"testing"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ofctrl/tables"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// TestMessages: questions and answers of endpoints that pass, and those alone, are copied, each once and whole, whether or not their
// connection is known.
func TestMessages(t *testing.T) {
	const stranger, other = 0x0200000000fe, 0x0200000000fd
	v4 := func(src, dst string, proto uint8, sport, dport uint16) tables.Tuple {
		return tables.Tuple{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Proto: proto, SrcPort: sport, DstPort: dport}
	}
	query, answer := v4("10.0.0.1", "10.0.0.9", 17, 40000, 53), v4("10.0.0.9", "10.0.0.1", 17, 53, 40000)
	outside := v4("10.0.0.8", "10.0.0.9", 17, 40000, 53)
	for _, on := range []bool{true, false} {
		l := lab{newWorld(t)}
		fw, err := wall.NewFirewall(wall.Options{Bridge: "br0", DNS: on})
		if err != nil {
			t.Fatal(err)
		}
		l.fw = fw
		l.vm(0, "a")
		l.tell()
		l.compile()
		w0 := macNumber(macOf("w0"))
		check := func(what string, p tables.Packet, normal bool, want int) {
			t.Helper()
			if !on {
				want = 0
			}
			r := l.sw.Process(p)
			n := 0
			for _, c := range r.Copies {
				if c.UserData == pipeline.CopyMessage.UserData() && c.MeterID == pipeline.MeterMessage && c.MaxLen == pipeline.MessageBytes {
					n++
				}
			}
			if n != want || r.Normal != normal {
				t.Errorf("DNS %v: %s: %d copies, passed %v; tables %v", on, what, n, r.Normal, r.Tables)
			}
		}
		check("the first question", tables.IP(1, w0, stranger, query, 0), true, 1)
		check("the answer", tables.IP(uplink, stranger, w0, answer, 0), true, 1)
		check("the next question of the connection", tables.IP(1, w0, stranger, query, 0), true, 1)
		check("another datagram", tables.IP(1, w0, stranger, v4("10.0.0.1", "10.0.0.9", 17, 40000, 54), 0), true, 0)
		check("DNS over TCP", tables.IP(1, w0, stranger, v4("10.0.0.1", "10.0.0.9", 6, 40000, 53), syn), true, 0)
		check("between stations that are no endpoints", tables.IP(uplink, other, stranger, outside, 0), true, 0)
		l.put("closed", func(s *policy.PolicySpec) { s.Egress = []policy.Rule{{Name: "none", Action: policy.Deny}} })
		l.compile()
		check("a question that is denied", tables.IP(1, w0, stranger, v4("10.0.0.1", "10.0.0.9", 17, 40001, 53), 0), false, 0)
		for _, f := range l.owners[wall.OwnerSystem] {
			for _, a := range f.Actions {
				if c, is := a.(flow.Controller); is && c.MeterID == pipeline.MeterMessage && !on {
					t.Errorf("a flow copies although nothing is to be: %v", f)
				}
			}
		}
	}
}
