package wall_test

import (
	"net/netip"
	"testing"

	"github.com/tapwall/tapwall/ofctrl/tables"
	"github.com/tapwall/tapwall/policy"
)

// TestAttackClassesUnknownMAC: an endpoint whose MAC address is not known loses what it was allowed to open. What it is sent on such a
// connection can be told by the connection alone, which bears the id that the endpoint had.
func TestAttackClassesUnknownMAC(t *testing.T) {
	for _, again := range []bool{false, true} {
		l := newLab(t, "a", "b", "a")
		l.edit(0, func(w *policy.Workload) { w.MAC = "" })
		l.put("base", func(s *policy.PolicySpec) {
			yes := true
			s.AppliesTo, s.DefaultDeny = []policy.Selector{{Port: "tap-w0"}}, &policy.DefaultDeny{Egress: &yes}
			if again {
				s.Egress = []policy.Rule{{Name: "s", Action: policy.Allow, To: []policy.Selector{app("b")}}}
			}
		})
		l.put("p", func(s *policy.PolicySpec) {
			n := 1
			s.Priority, s.Egress = &n, []policy.Rule{{Name: "r", Action: policy.Allow, To: []policy.Selector{app("b")}}}
		})
		x := talk{from: station{"w0"}, to: station{"w1"}, tuple: tables.Tuple{Proto: 6, SrcPort: 40000, DstPort: 80,
			Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2")}}
		if r := l.sw.Process(l.packet(x, false, syn)); r.Committed == nil {
			t.Fatalf("refused: %v", r.Tables)
		}
		l.edit(0, func(w *policy.Workload) { w.Labels = map[string]string{"app": "z"} })
		l.compile()
		want := l.evaluate(x).Effect.Passes()
		if want != again {
			t.Fatalf("the reference says %v", want)
		}
		for _, reply := range []bool{true, true, false, true} {
			if r := l.sw.Process(l.packet(x, reply, ack)); r.Normal != want {
				t.Errorf("again %v: answer %v passes: %v; %v", again, reply, r.Normal, r.Tables)
			}
		}
	}
}
