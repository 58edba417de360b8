package wall_test

import (
	"maps"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// TestAttackClassesChangesAtOnce makes several changes in one Compile, also such as take each other back.
func TestAttackClassesChangesAtOnce(t *testing.T) {
	check(t, func(t *rapid.T) {
		h := &history{world: newWorld(t)}
		h.randomize(t, false)
		h.connect(t)
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			s := step{untouched: func(uint32, string) bool { return false }}
			for range rapid.IntRange(1, 6).Draw(t, "at once") {
				s.name += h.edit(t).name + "; "
			}
			h.compile()
			h.judge(t, s)
			h.inForce(t)
			h.connect(t)
		}
	})
}

// proven is what a process that was killed leaves to the next one: of the entries that were saved, those that are still true. An endpoint
// whose entry is not keeps no more than that there was one.
func proven(saved, is wall.Assignments) *wall.Assignments {
	out := &wall.Assignments{Next: is.Next, Policies: still(saved.Policies, is.Policies), Classes: still(saved.Classes, is.Classes),
		Endpoints: still(saved.Endpoints, is.Endpoints), Addresses: still(saved.Addresses, is.Addresses),
		AddressNumbers: saved.AddressNumbers, ServiceNumbers: saved.ServiceNumbers, Retired: maps.Clone(saved.Retired)}
	if out.Retired == nil {
		out.Retired = map[uint32]wall.Station{}
	}
	for key, e := range saved.Endpoints {
		if _, ok := out.Endpoints[key]; !ok {
			out.Retired[e.ID] = e.Station
		}
	}
	return out
}

func still[K comparable, V any](saved, is map[K]V) map[K]V {
	out := map[K]V{}
	for k, v := range saved {
		if now, ok := is[k]; ok && reflect.DeepEqual(now, v) {
			out[k] = v
		}
	}
	return out
}

// TestAttackClassesCrash kills the process, with what it last saved some changes old, changes what is wanted while nobody looks, and starts
// it again: what is not allowed must not pass, in either direction, and the first word of who opened an allowed connection brings it back.
func TestAttackClassesCrash(t *testing.T) {
	check(t, func(t *rapid.T) {
		h := &history{world: newWorld(t)}
		h.randomize(t, false)
		h.connect(t)
		for range rapid.IntRange(1, 4).Draw(t, "crashes") {
			saved := stored(t, *h.fw.Assignments())
			name := ""
			for range rapid.IntRange(0, 3).Draw(t, "unsaved") {
				name += h.edit(t).name + "; "
				h.compile()
				h.connect(t)
			}
			is := stored(t, *h.fw.Assignments())
			for range rapid.IntRange(0, 3).Draw(t, "meanwhile") {
				name += "meanwhile " + h.edit(t).name + "; "
			}
			h.start(proven(saved, is))
			h.onlyAllowed(t, name)
			h.connect(t)
		}
	})
}

// onlyAllowed sends packets of each live connection, an answer first or last.
func (h *history) onlyAllowed(t *rapid.T, name string) {
	for _, l := range h.live {
		if !h.fits(l.from, l.vlan) || !h.fits(l.to, l.vlan) || h.local(l.from.key) == nil && h.local(l.to.key) == nil {
			continue
		}
		want := h.evaluate(l.talk)
		back := h.evaluate(talk{from: l.to, to: l.from, vlan: l.vlan, tuple: l.tuple.Reversed()})
		label := l.conn.Label
		if back.Effect.Passes() && l.tuple.Proto != policy.ProtoTCP {
			continue // an answer may be taken for the answerer's own
		}
		first := rapid.Bool().Draw(t, "answer first")
		for _, reply := range []bool{first, !first, first} {
			r := h.sw.Process(h.packet(l.talk, reply, ack))
			if r.Normal && !want.Effect.Passes() {
				t.Fatalf("after %s: %v, answer %v, passes, though %+v; label %#x; %v", name, l.talk, reply, want, label, r.Tables)
			}
			if !r.Normal && want.Effect.Passes() && !reply {
				t.Fatalf("after %s: %v is cut, though %+v; label %#x; %v", name, l.talk, want, label, r.Tables)
			}
		}
		l.passed = want.Effect.Passes()
	}
}

// TestAttackClassesPeerAlsoSubject: an endpoint leaves a group that a rule names on both sides, and still is one of its subjects by
// another.
func TestAttackClassesPeerAlsoSubject(t *testing.T) {
	l := lab{newWorld(t)}
	l.vm(0, "a")
	l.vm(1, "b")
	l.groups["g0"] = &policy.Group{Meta: policy.Meta{Name: "g0"}, Spec: policy.GroupSpec{Members: []policy.Selector{app("a"), app("b")}}}
	l.groups["g1"] = &policy.Group{Meta: policy.Meta{Name: "g1"}, Spec: policy.GroupSpec{Members: []policy.Selector{app("a"), app("b")}}}
	l.tell()
	l.put("p", func(s *policy.PolicySpec) {
		s.AppliesTo = []policy.Selector{{Group: "g0"}, {Group: "g1"}}
		s.Ingress = []policy.Rule{{Name: "r", Action: policy.Allow, From: []policy.Selector{{Group: "g0"}}}}
	})
	x := talk{from: station{"w1"}, to: station{"w0"}, tuple: genTuple(func(int) int { return 0 })}
	r := l.sw.Process(l.packet(x, false, syn))
	if r.Committed == nil {
		t.Fatalf("refused: %v", r.Tables)
	}
	l.groups["g0"] = &policy.Group{Meta: policy.Meta{Name: "g0"}, Spec: policy.GroupSpec{Members: []policy.Selector{app("a")}}}
	l.tell()
	l.compile()
	if l.evaluate(x).Effect.Passes() {
		t.Fatal("still allowed")
	}
	for _, reply := range []bool{true, false} {
		if r := l.sw.Process(l.packet(x, reply, ack)); r.Normal {
			t.Errorf("reply %v of who is no peer any more passes: %v", reply, r.Tables)
		}
	}
}

// TestAttackClassesDenyWaitsForNothing: a deny comes when all reserved numbers are used up.
func TestAttackClassesDenyWaitsForNothing(t *testing.T) {
	l := newLab(t, "a", "b")
	no := false
	rules := func(more ...policy.Rule) func(*policy.PolicySpec) {
		return func(s *policy.PolicySpec) {
			s.DefaultDeny = &policy.DefaultDeny{Ingress: &no}
			s.Ingress = append([]policy.Rule{{Name: "one", Action: policy.Allow, From: []policy.Selector{app("b")}, Services: tcp("1")}}, more...)
		}
	}
	l.put("p", rules())
	x := talk{from: station{"w1"}, to: station{"w0"}, tuple: genTuple(func(int) int { return 0 })}
	if r := l.sw.Process(l.packet(x, false, syn)); r.Committed == nil {
		t.Fatalf("refused: %v", r.Tables)
	}
	l.fw.Reserve(l.fw.Next())
	l.put("p", rules(policy.Rule{Name: "two", Action: policy.Deny, From: []policy.Selector{app("b")}}))
	for _, reply := range []bool{true, false} {
		if r := l.sw.Process(l.packet(x, reply, ack)); r.Normal {
			t.Errorf("reply %v passes in spite of a deny: %v", reply, r.Tables)
		}
	}
}
