package wall_test

import (
	"fmt"
	"testing"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ofctrl/tables"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// What is sent to any MAC that an endpoint declares is judged as sent to it. A MAC that is added costs no connection; one that is taken
// away takes with it what was allowed to it.
func TestDeclaredMACs(t *testing.T) {
	l := newLab(t, "a", "b")
	l.put("web", func(s *policy.PolicySpec) {
		s.Ingress = []policy.Rule{{Name: "x", Action: policy.Allow, Services: tcp("80")}}
	})
	virtual := macNumber("00:00:5e:00:01:01")
	packet := func(dst uint64, port uint16, flags uint16) tables.Packet {
		return tables.IP(2, macNumber(macOf("w1")), dst,
			tables.Tuple{Src: mustAddr(t, "10.0.0.2"), Dst: mustAddr(t, "10.0.0.1"), Proto: 6, SrcPort: 4000, DstPort: port}, flags)
	}
	id := func() uint32 { return l.assignments.Endpoints["w0"].ID }
	declare := func(macs ...string) {
		l.edit(0, func(w *policy.Workload) { w.MACs, w.DropUnknownMAC = macs, len(macs) > 0 })
		l.compile()
	}
	before := id()
	if r := l.sw.Process(packet(virtual, 443, syn)); !r.Normal {
		t.Error("what is sent to an unknown station is judged")
	}
	declare("00:00:5e:00:01:01")
	if id() != before {
		t.Error("a MAC more makes it another endpoint")
	}
	if r := l.sw.Process(packet(virtual, 443, syn)); r.Normal {
		t.Error("what is sent to a declared MAC is not judged")
	}
	if r := l.sw.Process(packet(virtual, 80, syn)); !r.Normal || r.Committed == nil {
		t.Error("what is allowed does not reach a declared MAC")
	}
	declare("00:00:5e:00:01:01", "00:00:5e:00:01:02")
	if id() != before {
		t.Error("a second MAC more makes it another endpoint")
	}
	// After a restart the same holds.
	a := l.assignments
	l.start(&a)
	if id() != before {
		t.Error("it is another endpoint after a restart")
	}
	declare("00:00:5e:00:01:02")
	if id() == before {
		t.Error("it keeps its id when a MAC is taken away")
	}
	if r := l.sw.Process(packet(virtual, 443, syn)); !r.Normal {
		t.Error("a MAC that is declared no more is still the endpoint's")
	}
	if f := l.find(pipeline.TableDestination, virtual); f != nil {
		t.Errorf("a flow is left: %s", f.String())
	}
}

func (w *world) find(table uint8, mac uint64) *flow.Flow {
	for _, f := range w.flows() {
		if t, ok := f.Match.Get(flow.EthDst); ok && f.Table == table && t.Value == flow.U64(mac) {
			return &f
		}
	}
	return nil
}

// Frames from a MAC that is not the endpoint's are told of, until it is known, and judged as the endpoint's or dropped.
func TestUnknownMACs(t *testing.T) {
	l := newLab(t, "a", "b")
	l.put("web", func(s *policy.PolicySpec) {
		s.Ingress = []policy.Rule{{Name: "x", Action: policy.Allow, Services: tcp("80")}}
	})
	stray := macNumber("02:00:00:00:0a:01")
	from := func(port uint32, mac uint64) tables.Result {
		return l.sw.Process(tables.IP(port, mac, macNumber(macOf("w1")),
			tables.Tuple{Src: mustAddr(t, "10.0.0.1"), Dst: mustAddr(t, "10.0.0.2"), Proto: 17, SrcPort: 5, DstPort: 6}, 0))
	}
	to := func(port uint16) tables.Result {
		return l.sw.Process(tables.IP(2, macNumber(macOf("w1")), stray,
			tables.Tuple{Src: mustAddr(t, "10.0.0.2"), Dst: mustAddr(t, "10.0.0.1"), Proto: 17, SrcPort: 7, DstPort: port}, 0))
	}
	copies := func(r tables.Result) (n int) {
		for _, c := range r.Copies {
			if reason, ok := pipeline.ParseUserData([]byte(c.UserData)); ok && reason == pipeline.CopyUnknownMAC &&
				c.MeterID == pipeline.MeterUnknownMAC {
				n++
			}
		}
		return n
	}
	check := func(what string, r tables.Result, passes bool, told int) {
		t.Helper()
		if r.Normal != passes || copies(r) != told {
			t.Errorf("%s: passes %v, told %d times", what, r.Normal, copies(r))
		}
	}
	check("own MAC", from(1, macNumber(macOf("w0"))), true, 0)
	check("stray", from(1, stray), true, 1)
	check("station that is none", from(uplink, stray), true, 0)
	check("to the stray", to(443), true, 0)

	l.fw.SetStrays(map[string][]wall.Stray{"w0": {{MAC: "02:00:00:00:0a:01", Bound: true}}})
	l.compile()
	check("known stray", from(1, stray), true, 0)
	check("known stray from outside", from(uplink, stray), true, 1)
	check("known stray from another endpoint", from(2, stray), true, 1)
	check("to the known stray", to(443), false, 0)
	check("other stray", from(1, stray+1), true, 1)

	many := make([]wall.Stray, wall.MaxStrays)
	for i := range many {
		many[i] = wall.Stray{MAC: fmt.Sprintf("02:00:00:00:0a:%02x", i+1)}
	}
	l.fw.SetStrays(map[string][]wall.Stray{"w0": many})
	l.compile()
	check("one too many", from(1, stray+wall.MaxStrays), true, 0)

	l.fw.SetStrays(nil)
	l.edit(0, func(w *policy.Workload) { w.DropUnknownMAC = true })
	l.compile()
	check("dropped stray", from(1, stray), false, 1)
	if r := from(1, stray); r.Cookies[len(r.Cookies)-1] != pipeline.DropUnknownMAC.Cookie() {
		t.Error("the drop is not counted as one of an unknown MAC")
	}
	check("own MAC of who drops others", from(1, macNumber(macOf("w0"))), true, 0)
	l.fw.SetStrays(map[string][]wall.Stray{"w0": {{MAC: "02:00:00:00:0a:01"}}})
	l.compile()
	check("dropped and known", from(1, stray), false, 0)
	check("to who is dropped", to(443), true, 0)
}
