package ofctrl_test

import (
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/oftest"
)

// renewing is a renewal of table 0.
func renewing(needed func() bool) *ofctrl.Renewal {
	never := flow.Match{}.With(flow.Reg8, flow.U64(1<<32-1))
	return &ofctrl.Renewal{
		Needed: needed,
		Flows: func(n uint16) []flow.Flow {
			m := never.WithMasked(flow.PktMark, flow.U64(0), flow.U64(uint64(n)|uint64(^n)<<16))
			return []flow.Flow{{Priority: 65535, Cookie: testCookie, Match: m}}
		},
		Number: func(f *flow.Flow) (uint16, bool) {
			mark, ok := f.Match.Get(flow.PktMark)
			return uint16(mark.Mask.Lo), ok
		},
	}
}

// TestRenewal: of two cached flows that match the same packets, made under different rules, Open vSwitch 3.1.0 mends the one for the other,
// so that a packet goes on where no rule sends it any more. With a renewal none of them is left.
func TestRenewal(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{false, true} {
		t.Run(fmt.Sprint(on), func(t *testing.T) {
			t.Parallel()
			o := oftest.StartOVS(t, oftest.OVSOptions{})
			o.AddBridge("br0", "", "protocols=OpenFlow13,OpenFlow15")
			for i := range uint32(3) {
				o.AddPort("br0", fmt.Sprintf("p%d", i+1), i+1)
			}
			opts := options(o.MgmtAddr("br0"))
			opts.Renewal = renewing(func() bool { return on })
			w := run(t, opts)
			w.ready()
			set := func(prefix uint64, mask uint64, actions ...flow.Action) {
				t.Helper()
				to := func(prefix, mask uint64, actions ...flow.Action) flow.Flow {
					m := flow.Match{}.With(flow.EthType, flow.U64(0x800)).WithMasked(flow.IPDst, flow.U64(prefix), flow.U64(mask))
					return flow.Flow{Priority: 10, Cookie: testCookie, Match: m, Actions: actions}
				}
				w.apply(ofctrl.Update{Owners: map[string][]flow.Flow{
					"a": {to(prefix, mask, actions...), to(0x0a090000, 0xffff0000, flow.Output{Port: 3})}}})
			}
			looks := func() {
				for range 2 {
					o.Appctl("revalidator/wait")
				}
			}
			send := func(to string, n int) {
				p := "in_port(1),eth(src=02:00:00:00:00:01,dst=02:00:00:00:00:02),eth_type(0x0800),ipv4(src=10.0.0.1,dst=" + to +
					",proto=17,frag=no),udp(src=1,dst=2)"
				o.Appctl(append([]string{"netdev-dummy/receive", "p1"}, strings.Split(strings.Repeat(p+" ", n), " ")[:n]...)...)
			}
			cached := func() (drops, others []string) {
				for line := range strings.Lines(o.Appctl("dpctl/dump-flows")) {
					if line = strings.TrimSpace(line); !strings.Contains(line, "ipv4(dst=10.1.") {
						continue
					}
					if strings.HasSuffix(line, "actions:drop") {
						drops = append(drops, line)
					} else {
						others = append(others, line)
					}
				}
				return drops, others
			}
			// The other network's cached flow comes first, so that those of 16 bits are looked at before those of 24.
			set(0x0a010200, 0xffffff00, flow.Output{Port: 2})
			looks()
			send("10.9.0.2", 2)
			send("10.1.2.2", 2)
			set(0x0a010000, 0xffff0000, flow.Output{Port: 2}, flow.Output{Port: 3})
			looks()
			send("10.1.0.2", 2)
			if _, others := cached(); len(others) == 0 {
				t.Fatal("nothing is cached, so that this shows nothing")
			}
			o.Appctl("revalidator/pause") // several changes before it looks
			for port := range uint32(3) {
				set(0x0a010000, 0xffff0000, flow.Output{Port: port + 1})
			}
			set(0x0a010000, 0xffff0000)
			o.Appctl("revalidator/resume")
			looks()
			send("10.1.2.2", 1)
			send("10.1.0.2", 1)
			drops, others := cached()
			if len(drops) == 0 || on && len(others) > 0 {
				t.Errorf("behind the last change these pass:\n%s\nthese are dropped:\n%s", strings.Join(others, "\n"), strings.Join(drops, "\n"))
			}
			if !on && len(others) == 0 && strings.Contains(w.State().Software, "3.1.0") {
				t.Error("this version mends the right flow: the fault that is mended with a renewal does not show")
			}
		})
	}
}

// TestRenewalIsAPartOfBundles: one set is there behind each bundle, each bundle exchanges it for one that was not there before, and it is
// no reason for one.
func TestRenewalIsAPartOfBundles(t *testing.T) {
	t.Parallel()
	o := oftest.StartOVS(t, oftest.OVSOptions{})
	o.AddBridge("br0", "", "protocols=OpenFlow13,OpenFlow15")
	var needed atomic.Bool
	opts := options(o.MgmtAddr("br0"))
	opts.Renewal = renewing(needed.Load)
	w := run(t, opts)
	w.ready()
	marks := regexp.MustCompile(`pkt_mark=0/0x[0-9a-f]+`)
	mark := func() string { return strings.Join(marks.FindAllString(dump(o), -1), " ") }
	revision := int64(0)
	change := func(n int) ofctrl.Result {
		t.Helper()
		revision++
		return w.apply(ofctrl.Update{Revision: revision, Owners: map[string][]flow.Flow{"a": flows(n)}})
	}
	seen, last := map[string]bool{"": true}, ""
	for i, step := range []struct {
		needed      bool
		flows, mods int
		new, none   bool
	}{
		{false, 3, 3, false, true}, {true, 3, 0, false, true}, {true, 4, 1, true, false}, {true, 4, 0, false, false}, {true, 5, 1, true, false},
		{true, 3, 2, true, false}, {false, 3, 0, false, false}, {false, 4, 1, false, true}, {true, 5, 1, true, false},
	} {
		needed.Store(step.needed)
		r := change(step.flows)
		now := mark()
		if got := r.Added + r.Modified + r.Deleted; got != step.mods || r.Installed != revision {
			t.Errorf("step %d: %d flow-mods, revision %d installed; want %d, %d", i, got, r.Installed, step.mods, revision)
		}
		kept := now == last || step.new || step.none
		if step.new == seen[now] || step.none != (now == "") || !kept || strings.Contains(now, " ") {
			t.Errorf("step %d: %q behind %q", i, now, last)
		}
		seen[now], last = true, now
	}
	if err := w.Renew(t.Context()); err != nil || seen[mark()] {
		t.Errorf("renewed by itself: %q, %v", mark(), err)
	}
	if st := w.State(); st.Missing > 0 || st.Installed != revision {
		t.Errorf("renewed by itself: %+v", st)
	}

	// A new process takes what is there, and somebody else's hand in it is put right.
	last = mark()
	w.end()
	w = run(t, opts)
	w.ready()
	if r := change(5); r.Added+r.Modified+r.Deleted != 0 || mark() != last || w.State().Missing > 0 {
		t.Errorf("a restart: %+v, %q", r, mark())
	}
	o.Ofctl("del-flows", "br0", strings.Fields(last)[0])
	w.until("missed", func(st ofctrl.State) bool { return st.Missing > 0 })
	if change(5); mark() == "" || mark() == last {
		t.Errorf("deleted by somebody else: %q", mark())
	}
	needed.Store(false)
	if err := w.Renew(t.Context()); err != nil {
		t.Errorf("where there is no need: %v", err)
	}
}
