package wall_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/oftest"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

var reg13 = regexp.MustCompile(`[,=]reg13=0x([0-9a-f]+)`)

// Open vSwitch draws as the sample is described: about one of N, the same in both directions, by ports of TCP and UDP, and what one of
// twelve draws, one of four does, too.
func TestSwitchDraws(t *testing.T) {
	s := liveSwitch{oftest.StartOVS(t, oftest.OVSOptions{}), t}
	s.AddBridge("br0", "")
	for port := range uint32(3) {
		s.AddPort("br0", fmt.Sprint("p", port+1), port+1)
	}
	var flows []flow.Flow
	for _, f := range pipeline.Fixed(pipeline.Options{Samples: true}) {
		if f.Table == pipeline.TableSample {
			flows = append(flows, f)
		}
	}
	ofN := map[int]int{1: 4, 2: 12, 3: 1}
	for port, n := range ofN {
		flows = append(flows, flow.Flow{Priority: 1, Match: flow.Match{}.With(flow.InPort, flow.U64(uint64(port))), Actions: pipeline.Draw(n)})
	}
	s.install(flows)
	drawn := func(port int, proto, src, dst string, sport, dport int) bool {
		out := s.Appctl("ofproto/trace", "br0", fmt.Sprintf("in_port=%d,%[2]s,nw_src=%[3]s,nw_dst=%[4]s,%[2]s_src=%[5]d,%[2]s_dst=%[6]d", port,
			proto, src, dst, sport, dport))
		_, final, ok := strings.Cut(out, "Final flow: ")
		if !ok {
			t.Fatalf("trace: %s", out)
		}
		m := reg13.FindStringSubmatch(strings.SplitN(final, "\n", 2)[0])
		if m == nil {
			return false
		}
		v, err := strconv.ParseUint(m[1], 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		return v>>pipeline.Sampled.Ofs&1 == 1
	}
	const a, b, each = "10.0.0.1", "10.0.0.2", 100
	for _, proto := range []string{"tcp", "udp"} {
		four, twelve := 0, 0
		for i := range each {
			sport := 40000 + i
			is := drawn(1, proto, a, b, sport, 80)
			if is {
				four++
			}
			if drawn(1, proto, b, a, 80, sport) != is {
				t.Errorf("%s from port %d: drawn one way only", proto, sport)
			}
			if drawn(2, proto, a, b, sport, 80) {
				if twelve++; !is {
					t.Errorf("%s from port %d is one of twelve, and not one of four", proto, sport)
				}
			}
		}
		if four < 8 || four > 42 || twelve > 20 || twelve == 0 { // four standard deviations
			t.Errorf("%s: of %d connections %d and %d are drawn, one of 4 and of 12", proto, each, four, twelve)
		}
		if !drawn(3, proto, a, b, 40000, 80) {
			t.Errorf("%s: one of one is not drawn", proto)
		}
	}
}
