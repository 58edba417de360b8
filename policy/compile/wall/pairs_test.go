package wall_test

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/policy"
)

// outcomes counts the first packets of connections by what decided about them.
type outcomes struct {
	allow, deny, defaultAllow, defaultDeny int
	// Of these the ones that a rule led to a lower tier, and those that something would have denied.
	pass, audit int
	reject      int
}

func (o *outcomes) sum() int { return o.allow + o.deny + o.reject + o.defaultAllow + o.defaultDeny }

// of returns the counters of a decision: a drop is that of the side that drops, and what passes is allowed by a rule if one of its sides
// is.
func (o *outcomes) of(d policy.Decision) (out []*int) {
	rule := func(s policy.SideDecision) bool {
		return s.Judged && s.Ref.Rule != policy.RuleDefaultAllow && s.Ref.Rule != policy.RuleDefaultDeny
	}
	if none := (policy.RuleRef{}); d.Egress.Passed != none || d.Ingress.Passed != none {
		out = append(out, &o.pass)
	}
	if isAudited(d.Egress) || isAudited(d.Ingress) {
		out = append(out, &o.audit)
	}
	side := d.Egress
	if side.Effect != d.Effect {
		side = d.Ingress
	}
	switch {
	case d.Effect == policy.Reject:
		return append(out, &o.reject)
	case !d.Effect.Passes() && rule(side):
		return append(out, &o.deny)
	case !d.Effect.Passes():
		return append(out, &o.defaultDeny)
	case rule(d.Egress) || rule(d.Ingress):
		return append(out, &o.allow)
	}
	return append(out, &o.defaultAllow)
}

// add counts a decision.
func (o *outcomes) add(d policy.Decision) {
	for _, n := range o.of(d) {
		*n++
	}
}

// seldom draws a few packets and returns the one of the kind that was tried least.
func (o *outcomes) seldom(w *world, c chooser) (best talk, ok bool) {
	least := math.MaxInt
	for range 4 {
		x, some := w.genTalk(c)
		if !some {
			return best, false
		}
		for _, n := range o.of(w.evaluate(x)) {
			if *n < least {
				best, least = x, *n
			}
		}
	}
	return best, true
}

// balanced fails the test if one of the outcomes is so rare that it was hardly tested.
func (o *outcomes) balanced(t *testing.T) {
	t.Helper()
	for _, n := range []int{o.allow, o.deny, o.defaultAllow, o.defaultDeny, o.pass, o.audit, o.reject} {
		if n*10 < o.sum() {
			t.Errorf("each outcome should decide a tenth of the packets: %+v", *o)
		}
	}
}

// TestPairs holds 100,000 pairs of policies and packets to the reference: worlds change step by step, in what is wanted, in who is there
// and in which labels endpoints have, so that endpoints of one kind part and come together. After each step connections of before are
// judged (see judge) and many first packets tried.
func TestPairs(t *testing.T) {
	whole(t)
	t.Parallel()
	const steps, tries = 12, 100
	var first outcomes
	var live struct{ passed, moved, cut int }
	runs, states, conjunctions := 0, 0, 0
	check(t, func(t *rapid.T) {
		runs++
		h := &history{world: newWorld(t)}
		if h.conjoin, h.shares = runs%3 == 0, runs%6 == 0; h.conjoin {
			h.walked, h.surplus = 1+runs%2*100, 1000 // at times in both forms
			h.start(nil)
		}
		h.randomize(t, false)
		c := seeded(rapid.Uint64().Draw(t, "packets"))
		for n := 0; n < steps*tries; {
			if len(h.locals()) == 0 {
				w0 := &policy.Workload{Key: "w0", Bridge: "br0", Port: "tap-w0", OFPort: 1, MAC: macOf("w0"), Labels: genLabels(t)}
				h.workloads["w0"] = w0
				h.tell()
				h.compile()
				h.judge(t, step{"w0 came", func(uint32, string) bool { return false }})
			}
			h.connect(t)
			s := h.change(t)
			h.compile()
			h.judge(t, s)
			states++
			if slices.ContainsFunc(h.flows(), isClause) {
				conjunctions++
			}
			aside := h.sw
			h.sw = aside.Fresh()
			for range tries {
				if x, ok := first.seldom(h.world, c); ok {
					h.sameVerdict(x)
					first.add(h.evaluate(x))
					n++
				}
			}
			h.sw = aside
		}
		live.passed += h.judged.passed
		live.moved += h.judged.moved
		live.cut += h.judged.cut
	})
	t.Logf("first packets %+v, packets of live connections %+v, in %d histories; %d of %d states with conjunctions", first, live, runs,
		conjunctions, states)
	if first.sum() < 1000*runs {
		t.Errorf("only %d pairs in %d histories", first.sum(), runs)
	}
	first.balanced(t)
	for _, n := range []int{live.passed, live.moved, live.cut} {
		if n < 5*runs {
			t.Errorf("packets of live connections %+v: hardly tested", live)
		}
	}
	if conjunctions*10 < states {
		t.Errorf("%d of %d states with conjunctions", conjunctions, states)
	}
}

// whole skips a test that takes long under the race detector; `make property` runs it without.
func whole(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("make property runs it whole")
	}
}

// isClause reports whether a flow is a clause of a conjunction.
func isClause(f flow.Flow) bool {
	return slices.ContainsFunc(f.Actions, func(a flow.Action) bool { _, ok := a.(flow.Conjunction); return ok })
}
