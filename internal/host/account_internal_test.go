package host

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// fakeCounters is a switch as far as counters go: rules have flows, and cached flows whose packets it counts late, for the flows of that
// time.
type fakeCounters struct {
	flows  map[flow.Key]*reading
	cached map[flow.Cookie]uint64 // passed for a rule, not counted yet
	lost   uint64                 // went with flows
}

// count has the caches follow: what they passed is counted for the rule itself, or, if somebody else took its place, for him.
func (s *fakeCounters) count(heirs map[flow.Cookie]flow.Key) {
	for c, n := range s.cached {
		for _, f := range s.flows {
			if f.cookie == c && heirs[c] == "" {
				f.packets += n
				n = 0
			}
		}
		if f := s.flows[heirs[c]]; f != nil {
			f.packets += n
		} else {
			s.lost += n
		}
	}
	clear(s.cached)
}

func (s *fakeCounters) readings() []reading {
	var out []reading
	for _, f := range s.flows {
		if f.packets > 0 {
			out = append(out, *f)
		}
	}
	return out
}

// Whatever happens to the flows: no total goes back, no rule is credited with more than its own packets, and what is credited and
// unattributed together is no more than what passed; nothing is missing where no flow was deleted unread.
func TestAccountProperties(t *testing.T) {
	ref := func(c flow.Cookie) policy.RuleRef {
		return policy.RuleRef{Policy: "p", Direction: policy.Ingress, Rule: fmt.Sprint(c % 4)}
	}
	rapid.Check(t, func(t *rapid.T) {
		a := newAccount(func(c flow.Cookie) []policy.RuleRef { return []policy.RuleRef{ref(c)} })
		s := fakeCounters{flows: map[flow.Key]*reading{}, cached: map[flow.Cookie]uint64{}}
		truth := map[policy.RuleRef]uint64{}
		heirs := map[flow.Cookie]flow.Key{}
		var passed uint64
		next := flow.Cookie(0)
		before := map[policy.RuleRef]counter{}
		check := func() {
			var all uint64
			for r, n := range a.totals {
				all += n.packets
				if n.packets < before[r].packets || n.bytes < before[r].bytes {
					t.Fatalf("%v went back from %d to %d", r, before[r], n)
				}
				if r.Rule != unattributedOf(r) && n.packets > truth[r] {
					t.Fatalf("%v is credited with %d packets and had %d", r, n.packets, truth[r])
				}
			}
			before = maps.Clone(a.totals)
			if all > passed {
				t.Fatalf("%d packets are counted, %d passed", all, passed)
			}
		}
		read := func() { a.read(s.readings(), true) }
		follow := func() {
			turn := a.turn
			s.count(heirs)
			clear(heirs)
			read()
			a.follow(turn)
		}
		places := func() []flow.Key { return slices.Sorted(maps.Keys(s.flows)) }
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check() },
			"pass": func(t *rapid.T) {
				if len(s.flows) == 0 {
					return
				}
				f := s.flows[rapid.SampledFrom(places()).Draw(t, "flow")]
				n := uint64(rapid.IntRange(1, 1000).Draw(t, "packets"))
				s.cached[f.cookie] += n
				truth[ref(f.cookie)] += n
				passed += n
			},
			"count": func(*rapid.T) { s.count(heirs); clear(heirs) },
			"read":  func(*rapid.T) { read() },
			"change": func(t *rapid.T) { // one flow is made, perhaps in the place of another one, or one goes
				place := flow.Key(fmt.Sprint(rapid.IntRange(0, 5).Draw(t, "place")))
				old := s.flows[place]
				if rapid.Bool().Draw(t, "read before") {
					read()
				} else if old != nil {
					s.lost += old.packets
				}
				next++
				var touched scope
				touched.add(next)
				if old != nil {
					touched.add(old.cookie)
					heirs[old.cookie] = place
				}
				if old != nil && rapid.Bool().Draw(t, "delete") {
					delete(s.flows, place)
					heirs[old.cookie] = "" // nobody's
					s.lost += s.cached[old.cookie]
					delete(s.cached, old.cookie)
				} else {
					s.flows[place] = &reading{place: place, cookie: next}
				}
				a.change(touched, func(yield func(flow.Key) bool) { yield(place) })
			},
			"follow": func(*rapid.T) { follow() },
			"wipe": func(t *rapid.T) { // a restart of the switch, flows that somebody deleted: all are made again under the same cookies
				for _, f := range s.flows {
					s.lost += f.packets
					f.packets = 0
				}
				for _, n := range s.cached {
					s.lost += n
				}
				clear(s.cached)
				if rapid.Bool().Draw(t, "seen empty") {
					a.read(nil, true)
				}
				a.change(scope{all: true}, slices.Values(places()))
			},
		})
		follow()
		check()
		var all uint64
		for _, n := range a.totals {
			all += n.packets
		}
		if all+s.lost < passed {
			t.Fatalf("%d packets are counted and at most %d were lost with their flows, of %d", all, s.lost, passed)
		}
		if s := a.open(); s.all || len(s.cookies) > 0 {
			t.Fatalf("in doubt after all has been followed: %v", s)
		}
	})
}

func TestAccount(t *testing.T) {
	rule := func(name string) policy.RuleRef {
		return policy.RuleRef{Policy: "p", Direction: policy.Egress, Rule: name}
	}
	names := map[flow.Cookie][]policy.RuleRef{1: {rule("a")}, 2: {rule("b")}, 3: {rule("a"), {Policy: "q", Rule: "x"}}, 4: {{Rule: "invalid"}}}
	at := func(place flow.Key, c flow.Cookie, n uint64) reading {
		return reading{place: place, cookie: c, counter: counter{n, 10 * n}}
	}
	touch := func(cs ...flow.Cookie) (s scope) {
		for _, c := range cs {
			s.add(c)
		}
		return s
	}
	for name, c := range map[string]struct {
		do   func(*account)
		want map[policy.RuleRef]uint64
	}{
		"two flows of one rule, one of which goes": {func(a *account) {
			a.read([]reading{at("x", 1, 10), at("y", 1, 5)}, true)
			a.read([]reading{at("y", 1, 6)}, true)
		}, map[policy.RuleRef]uint64{rule("a"): 16}},
		"a flow that begins anew": {func(a *account) {
			a.read([]reading{at("x", 1, 10)}, true)
			a.read([]reading{at("x", 1, 4)}, true)
		}, map[policy.RuleRef]uint64{rule("a"): 14}},
		"a flow made anew that counts more than the old one did": {func(a *account) {
			a.read([]reading{at("x", 1, 10)}, true)
			a.change(touch(2), slices.Values([]flow.Key{"x"}))
			a.read([]reading{at("x", 1, 40)}, true)
		}, map[policy.RuleRef]uint64{rule("a"): 50}},
		"a flow that went unseen and came again": {func(a *account) {
			a.read([]reading{at("x", 1, 10)}, true)
			a.read(nil, true)
			a.read([]reading{at("x", 1, 40)}, true)
		}, map[policy.RuleRef]uint64{rule("a"): 50}},
		"a reading of some flows says nothing of others": {func(a *account) {
			a.read([]reading{at("x", 1, 10), at("y", 2, 7)}, true)
			a.read([]reading{at("x", 1, 11)}, false)
			a.read([]reading{at("x", 1, 11), at("y", 2, 8)}, true)
		}, map[policy.RuleRef]uint64{rule("a"): 11, rule("b"): 8}},
		"a new deny": {func(a *account) {
			a.read([]reading{at("x", 1, 400)}, true)
			a.change(touch(1, 2), slices.Values([]flow.Key{"y"}))
			a.read([]reading{at("x", 1, 400), at("y", 2, 367)}, true)
			a.follow(1)
			a.read([]reading{at("x", 1, 400), at("y", 2, 370)}, true)
		}, map[policy.RuleRef]uint64{rule("a"): 400, rule("b"): 3, rule("(unattributed)"): 367}},
		"a later change is not followed with an earlier one": {func(a *account) {
			a.change(touch(1, 2), none)
			a.change(touch(2), none)
			a.follow(1)
			a.read([]reading{at("x", 1, 1), at("y", 2, 2)}, true)
		}, map[policy.RuleRef]uint64{rule("a"): 1, rule("(unattributed)"): 2}},
		"everything in doubt": {func(a *account) {
			a.change(scope{all: true}, none)
			a.read([]reading{at("x", 3, 1), at("y", 4, 2)}, true)
			a.follow(1)
			a.read([]reading{at("x", 3, 11), at("y", 4, 22)}, true)
		}, map[policy.RuleRef]uint64{rule("a"): 10, rule("(unattributed)"): 1, {Policy: "q", Rule: "x"}: 10,
			{Policy: "q", Rule: "(unattributed)"}: 1,
			{Rule: "invalid"}:                     20, {Rule: "unattributed"}: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(func(c flow.Cookie) []policy.RuleRef { return names[c] })
			c.do(&a)
			got := map[policy.RuleRef]uint64{}
			for r, n := range a.totals {
				if got[r] = n.packets; n.bytes != 10*n.packets {
					t.Errorf("%v: %d bytes in %d packets", r, n.bytes, n.packets)
				}
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("totals %v, want %v", got, c.want)
			}
		})
	}
}

// Names that come and go do not fill the memory.
func TestAccountForgets(t *testing.T) {
	a := newAccount(func(c flow.Cookie) []policy.RuleRef { return []policy.RuleRef{{Policy: fmt.Sprint(c), Rule: "r"}} })
	for i := range maxTotals + 10 {
		a.read([]reading{{place: "x", cookie: flow.Cookie(i), counter: counter{1, 1}}}, true)
	}
	a.forget(func(ref policy.RuleRef) bool { return ref.Policy == "7" })
	if len(a.totals) != 1 || a.totals[policy.RuleRef{Policy: "7", Rule: "r"}].packets != 1 {
		t.Errorf("%d totals are left", len(a.totals))
	}
}

// What probes made flows count is not credited to anybody, however late it is read, and what others are counted for is.
func TestAccountProbes(t *testing.T) {
	rule, other := pipeline.NewCookie(pipeline.CookieRule, 7), pipeline.NewCookie(pipeline.CookieRule, 8)
	ref := func(c flow.Cookie) policy.RuleRef { return policy.RuleRef{Policy: fmt.Sprint(uint32(c)), Rule: "r"} }
	a := newAccount(func(c flow.Cookie) []policy.RuleRef { return []policy.RuleRef{ref(c)} })
	total := func(c flow.Cookie, want uint64) {
		t.Helper()
		if got := a.totals[ref(c)]; got != (counter{want, 60 * want}) {
			t.Errorf("%+v is counted, want %d packets", got, want)
		}
	}
	read := func(n, m uint64) {
		a.read([]reading{{place: "x", cookie: rule, counter: counter{n, 60 * n}}, {place: "y", cookie: other, counter: counter{m, 60 * m}}}, true)
	}
	a.probe([]flow.Cookie{rule, rule, pipeline.SystemCookie(pipeline.TableState, 0)}, 60)
	read(0, 1) // not counted yet
	total(rule, 0)
	total(other, 1)
	read(1, 1)
	total(rule, 0)
	read(5, 2)
	total(rule, 3)
	read(9, 2)
	total(rule, 7)
	// A change that touches the rule ends it: its flow may be another one, which never counted the probe.
	a.probe([]flow.Cookie{rule}, 60)
	a.change(scope{cookies: map[flow.Cookie]struct{}{rule: {}}}, none)
	a.follow(a.turn)
	read(10, 2)
	total(rule, 8)
}

// TestUncounted holds that what is asked of the switch for the account has all that counts.
func TestUncounted(t *testing.T) {
	for k := range pipeline.CookieKind(255) {
		for _, id := range []uint32{0, 1, pipeline.IDDefaultDeny, pipeline.IDDefaultDeny | 7, ^uint32(0)} {
			if c := pipeline.NewCookie(k, id); counts(c) && c&uncounted != 0 {
				t.Errorf("%v %#x counts, and would not be read", k, id)
			}
		}
	}
	for _, k := range []pipeline.CookieKind{pipeline.CookieNumber, pipeline.CookieClause, pipeline.CookieEndpoint} {
		if pipeline.NewCookie(k, 1)&uncounted == 0 {
			t.Errorf("%v would be read for nothing", k)
		}
	}
}
