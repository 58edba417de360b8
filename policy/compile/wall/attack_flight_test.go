package wall_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ofctrl/tables"
	"github.com/tapwall/tapwall/policy"
)

// TestAttackClassesPacketsInFlight has packets in conntrack while flows change: they come out of it with ids and class numbers of before.
// None may pass that neither state allows, or leave a connection that goes on though the new state denies it.
func TestAttackClassesPacketsInFlight(t *testing.T) {
	check(t, func(t *rapid.T) {
		h := &history{world: newWorld(t)}
		h.randomize(t, false)
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			var talks []talk
			for range 8 {
				if x, ok := h.genTalk(drawn(t)); ok {
					talks = append(talks, x)
				}
			}
			var packets []tables.Packet
			var before []policy.Decision
			was := map[string]policy.Workload{}
			for _, x := range talks {
				packets, before = append(packets, h.packet(x, false, syn)), append(before, h.evaluate(x))
				for _, key := range []string{x.from.key, x.to.key} {
					if w := h.local(key); w != nil {
						was[key] = *w
					}
				}
			}
			old := h.flows()
			s := h.edit(t)
			h.compile()
			now := h.flows()
			same := func(key string) bool {
				w, old := h.local(key), was[key]
				return w == nil && old.Key == "" || w != nil && old.Key != "" && w.MAC == old.MAC && w.VLAN == old.VLAN && w.OFPort == old.OFPort
			}
			for i, x := range talks {
				if !same(x.from.key) || !same(x.to.key) {
					continue
				}
				want := h.evaluate(x)
				sw := tables.New()
				h.must(sw.SetFlows(old))
				sw.Recirculates = func() {
					sw.Recirculates = nil
					h.must(sw.SetFlows(now))
				}
				first := sw.Process(packets[i])
				sw.Recirculates = nil
				if first.Normal && !before[i].Effect.Passes() && !want.Effect.Passes() {
					t.Fatalf("%v passed during %s, though before %+v and after %+v: %v", x, s.name, before[i], want, first.Tables)
				}
				if !first.Normal && before[i].Effect.Passes() && want.Effect.Passes() {
					t.Fatalf("%v lost during %s, though before %+v and after %+v: %v", x, s.name, before[i], want, first.Tables)
				}
				if first.Committed == nil {
					continue
				}
				h.must(sw.SetFlows(now))
				for _, reply := range []bool{true, false} {
					back := h.evaluate(talk{from: x.to, to: x.from, vlan: x.vlan, tuple: x.tuple.Reversed()})
					if reply && back.Effect.Passes() {
						continue
					}
					if r := sw.Process(h.packet(x, reply, ack)); r.Normal && !want.Effect.Passes() {
						t.Fatalf("%v, answer %v, passed after %s, though %+v: %v then %v", x, reply, s.name, want, first.Tables, r.Tables)
					}
				}
			}
		}
	})
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("%v", err)
	}
}
