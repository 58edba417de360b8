package wall_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/policy"
)

// expire takes away what ends by itself until a time, as a switch does that nobody looks after, and returns the policies that end.
func (w *world) expire(until time.Time) (over []*policy.Policy) {
	w.t.Helper()
	for owner, at := range w.ends {
		if at <= until.UnixMilli() {
			delete(w.owners, owner)
			delete(w.ends, owner)
		}
	}
	for name, p := range w.policies {
		if p.Over(until) {
			over = append(over, p)
			delete(w.policies, name)
		}
	}
	if err := w.sw.SetFlows(w.flows()); err != nil {
		w.t.Fatalf("%v", err)
	}
	return over
}

// leads reports whether a policy has a rule that leads to the next tier.
func leads(p *policy.Policy) bool {
	is := func(r policy.Rule) bool { return r.Action == policy.Pass }
	return slices.ContainsFunc(p.Spec.Ingress, is) || slices.ContainsFunc(p.Spec.Egress, is)
}

// TestEndsByItself: when the flows that are to end have gone, whether or not anybody has noticed, the others judge as if there never had
// been such policies: new connections, and established ones, but for what a rule with action pass led past others. A compiler that goes
// on then, in this run or in the next one, cuts nothing that was opened meanwhile.
func TestEndsByItself(t *testing.T) {
	check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.randomize(t, true)
		first := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		second := first.Add(time.Hour)
		for _, p := range w.set().Policies {
			if at := rapid.SampledFrom([]*time.Time{nil, &first, &second}).Draw(t, "ends"); at != nil && !p.Audits() {
				c := *p
				c.Spec.ExpiresAt = at
				w.policies[p.Name] = &c
				w.fw.SetPolicy(&c)
			}
		}
		w.compile()
		for range 6 {
			if x, ok := w.genTalk(drawn(t)); ok {
				w.sameVerdict(x)
			}
		}
		for _, until := range []time.Time{first, second} {
			x, ok := w.genTalk(drawn(t))
			if !ok {
				return
			}
			opens := func() bool {
				w.sw.Forget()
				return w.sw.Process(w.packet(x, false, syn)).Normal && w.sw.Process(w.packet(x, true, ack)).Normal
			}
			established := opens()
			over := w.expire(until)
			wants := func(when string) {
				want := w.evaluate(x)
				if w.local(x.to.key) != nil && w.local(x.to.key).MAC == "" {
					return
				}
				flags := uint16(syn)
				if established {
					flags = ack
				}
				if got := w.sw.Process(w.packet(x, false, flags)); got.Normal != want.Effect.Passes() && (!established || !slices.ContainsFunc(over,
					leads)) {
					t.Fatalf("%v: %s: established %v, passed %v by %v, reference says %+v", x, when, established, got.Normal, got.Tables, want)
				}
			}
			wants("ended")
			established = opens()
			wants("begun again")
			if rapid.Bool().Draw(t, "restart") {
				w.start(new(stored(w.t, w.assignments)))
			} else {
				for _, p := range over {
					w.fw.DeletePolicy(p.Name)
				}
				w.compile()
			}
			wants("looked after again")
			for range 3 {
				if x, ok := w.genTalk(drawn(t)); ok {
					w.sameVerdict(x)
				}
			}
		}
	})
}

// TestEndsOnRestart: what ends by itself survives a restart unchanged.
func TestEndsOnRestart(t *testing.T) {
	l := newLab(t, "a", "a", "b")
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l.put("shut", func(s *policy.PolicySpec) {
		s.Ingress, s.ExpiresAt = []policy.Rule{{Name: "x", Action: policy.Allow, From: cidr("10.0.0.0/24")}}, &at
	})
	before, assigned := l.flows(), l.assignments
	if len(l.ends) != 2 || l.ends["policy/shut"] != at.UnixMilli() {
		t.Errorf("what ends: %v", l.ends)
	}
	l.start(&assigned)
	if after := l.flows(); !slices.EqualFunc(before, after, func(a, b flow.Flow) bool { return a.Equal(b) }) {
		t.Errorf("flows were\n%v\nand are\n%v", before, after)
	}
}
