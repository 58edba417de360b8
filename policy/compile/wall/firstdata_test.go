package wall_test

import (
	"net/netip"
	"testing"

	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ofctrl/tables"
	"github.com/tapwall/tapwall/policy"
)

// TestFirstData: of a connection whose rule wants to know what is said first, each side's first packet with PSH is copied, and two before
// it at most, by both IP versions; a rule that is written anew, or a connection that is judged anew, brings none of it back.
func TestFirstData(t *testing.T) {
	const psh = 0x08
	for _, addrs := range [][2]string{{"10.0.0.1", "10.0.0.2"}, {"fd00::1", "fd00::2"}} {
		l := newLab(t, "b", "a")
		put := func(log policy.RuleLog, ports ...string) {
			l.put("p", func(s *policy.PolicySpec) {
				s.Ingress = []policy.Rule{{Name: "heard", Action: policy.Allow, Services: tcp(ports...), Log: log}}
			})
		}
		heard := policy.RuleLog{L7: true}
		put(heard, "80-90")
		x := talk{from: station{"w0"}, to: station{"w1"}, tuple: tables.Tuple{
			Src: netip.MustParseAddr(addrs[0]), Dst: netip.MustParseAddr(addrs[1]), Proto: policy.ProtoTCP, SrcPort: 40000, DstPort: 80,
		}}
		send := func(what string, reply bool, flags uint16, want int) {
			t.Helper()
			r, n := l.sw.Process(l.packet(x, reply, flags)), 0
			for _, c := range r.Copies {
				if c.UserData == pipeline.CopyData.UserData() && c.MeterID == pipeline.MeterData && c.MaxLen == pipeline.MessageBytes {
					n++
				}
			}
			if n != want || !r.Normal {
				t.Errorf("%s: %s: %d copies, want %d; passed %v by tables %v", addrs[0], what, n, want, r.Normal, r.Tables)
			}
		}
		send("SYN", false, syn, 0)
		send("SYN again", false, syn, 0)
		send("the answer to it", true, syn|ack, 0)
		send("the end of the handshake", false, ack, 1)
		send("the beginning of a long request", false, ack, 1)
		send("its middle", false, ack, 0)
		send("its end", false, ack|psh, 1)
		send("another request", false, ack|psh, 0)
		put(heard, "80-89") // it has another id
		send("a request that is judged anew", false, ack|psh, 0)
		send("the next", false, ack|psh, 0)
		send("the response", true, ack|psh, 1)
		send("its rest", true, ack|psh, 0)
		put(policy.RuleLog{All: true}, "80-88")
		put(heard, "80-87")
		for _, reply := range []bool{false, true} {
			send("what is said behind changes of the rule", reply, ack|psh, 0)
		}

		x.tuple.SrcPort = 40001
		put(policy.RuleLog{}, "80-86")
		send("SYN to a rule that does not ask", false, syn, 0)
		send("the answer to it", true, syn|ack, 0)
		put(heard, "80-85")
		send("what an older connection says", false, ack|psh, 0)
		send("and is answered", true, ack|psh, 0)
	}
}
