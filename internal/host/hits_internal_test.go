package host

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// When a rule was hit, and since when that is known, outlives a restart; what was counted meanwhile is a hit, and what was lost a gap.
func TestHitsOverARestart(t *testing.T) {
	ref := func(name string) policy.RuleRef {
		return policy.RuleRef{Policy: "p", Direction: policy.Ingress, Rule: name}
	}
	names := map[flow.Cookie]policy.RuleRef{1: ref("used"), 2: ref("unused"), 3: ref("meanwhile"), 4: ref("restarted"), 5: ref("wiped")}
	rules := map[policy.RuleRef]bool{}
	for _, r := range names {
		rules[r] = true
	}
	clock := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	begin := func(at time.Time) *account {
		a := newAccount(func(c flow.Cookie) []policy.RuleRef { return []policy.RuleRef{names[c]} })
		clock = at
		a.clock = func() time.Time { return clock }
		a.begin("p", rules, clock)
		return &a
	}
	at := func(place flow.Key, c flow.Cookie, n uint64, table uint8) reading {
		return reading{place: place, cookie: c, counter: counter{n, 10 * n}, table: table}
	}
	first := clock
	a := begin(first)
	clock = clock.Add(time.Hour)
	wasHit := clock
	a.read([]reading{at("leaf", 1, 2, pipeline.TableIngress), at("gate", 1, 5, pipeline.TableLiveIngress),
		at("m", 3, 1, pipeline.TableIngress),
		at("r", 4, 7, pipeline.TableIngress), at("w", 5, 7, pipeline.TableIngress)}, true)
	clock = clock.Add(time.Hour)
	a.read([]reading{at("leaf", 1, 2, pipeline.TableIngress), at("gate", 1, 5, pipeline.TableLiveIngress),
		at("m", 3, 1, pipeline.TableIngress),
		at("r", 4, 7, pipeline.TableIngress), at("w", 5, 7, pipeline.TableIngress)}, true)
	if h := a.hits[ref("used")]; h.judged != 2 || !h.Last.Equal(wasHit) || !h.Since.Equal(first) {
		t.Errorf("%+v", h)
	}
	if h := a.hits[ref("unused")]; !h.Last.IsZero() || !h.Since.Equal(first) {
		t.Errorf("%+v", h)
	}
	kept := map[string]hit{}
	counted := a.counted()
	for r, h := range a.hits {
		x := *h
		x.Flows = counted[r].packets
		kept[r.String()] = x
	}
	text, err := json.Marshal(kept)
	if err != nil {
		t.Fatal(err)
	}
	var earlier map[string]hit
	if err := json.Unmarshal(text, &earlier); err != nil {
		t.Fatal(err)
	}

	later := clock.Add(24 * time.Hour)
	b := begin(later)
	b.read([]reading{at("leaf", 1, 2, pipeline.TableIngress), at("gate", 1, 5, pipeline.TableLiveIngress),
		at("m", 3, 4, pipeline.TableIngress),
		at("r", 4, 1, pipeline.TableIngress)}, true)
	b.resume(earlier, later)
	for name, want := range map[string]struct{ since, last time.Time }{
		"used": {first, wasHit}, "unused": {first, time.Time{}}, "meanwhile": {first, later}, "restarted": {later, later},
		"wiped": {later, wasHit},
	} {
		if h := b.hits[ref(name)]; !h.Since.Equal(want.since) || !h.Last.Equal(want.last) {
			t.Errorf("%s: since %v, last %v", name, h.Since, h.Last)
		}
	}
	// A rule that goes, and comes again, is another.
	b.begin("p", map[policy.RuleRef]bool{ref("used"): true}, later)
	clock = later.Add(time.Minute)
	b.begin("p", rules, clock)
	if h := b.hits[ref("unused")]; !h.Since.Equal(clock) {
		t.Errorf("%+v", h)
	}
	if h := b.hits[ref("used")]; !h.Since.Equal(first) {
		t.Errorf("%+v", h)
	}
}

// What flows count while it is not known for whom is no hit, and nobody can say any more that there was none.
func TestHitsPerhaps(t *testing.T) {
	ref := policy.RuleRef{Policy: "p", Direction: policy.Ingress, Rule: "r"}
	a := newAccount(func(flow.Cookie) []policy.RuleRef { return []policy.RuleRef{ref} })
	clock := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	a.clock = func() time.Time { return clock }
	a.begin("p", map[policy.RuleRef]bool{ref: true}, clock)
	count := func(n uint64) hit {
		clock = clock.Add(time.Hour)
		a.read([]reading{{place: "leaf", cookie: 1, counter: counter{n, 60 * n}, table: pipeline.TableIngress}}, true)
		return *a.hits[ref]
	}
	begun := clock
	touched := scope{}
	touched.add(1)
	a.change(touched, func(func(flow.Key) bool) {})
	if h := count(0); !h.Since.Equal(begun) || !h.Last.IsZero() {
		t.Errorf("nothing was counted: %+v", h)
	}
	if h := count(3); !h.Since.Equal(clock) || !h.Last.IsZero() {
		t.Errorf("what is in doubt was counted at %v: %+v", clock, h)
	}
	gap := clock
	a.follow(a.turn)
	if h := count(4); !h.Since.Equal(gap) || !h.Last.Equal(clock) {
		t.Errorf("a packet was counted at %v: %+v", clock, h)
	}
}
