package wall_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// TestFewNumbers holds a crowd to the reference while there are too few numbers for it: 16 for its classes, and hardly any for addresses
// and services. Who has a class is judged as ever; who has none reaches nobody and is reached by nobody, until there is a number.
func TestFewNumbers(t *testing.T) {
	t.Parallel()
	const worlds, steps, tries = 3, 20, 60
	judged, shut, reopened, raw := 0, 0, 0, 0
	for seed := range worlds {
		h := &history{world: newWorld(t)}
		c := seeded(uint64(seed))
		h.fw.Narrow(3 + seed)
		draw := func(f func(*rapid.T)) { example(c, f) }
		draw(func(rt *rapid.T) {
			h.randomize(rt, false)
			h.genCrowd(rt, c)
		})
		for n := range steps {
			draw(func(rt *rapid.T) {
				if n%5 == 4 { // some leave for good
					for _, key := range h.crowd[:min(len(h.crowd), 6)] {
						delete(h.workloads, key)
					}
					h.crowd = h.crowd[min(len(h.crowd)-1, 6):]
					h.tell()
					return
				}
				h.restate(rt)
			})
			before := h.fw.Shut()
			h.compile()
			now := h.fw.Shut()
			for _, key := range before {
				if h.workloads[key] != nil && !slices.Contains(now, key) {
					reopened++
				}
			}
			for _, u := range h.fw.Usage() {
				if u.Used > u.Max && u.Limit != "class-numbers" {
					t.Fatalf("more in use than there is: %+v", u)
				}
			}
			if h.fw.Usage()[1].Used > 0 && rawPrefixes(h.world) {
				raw++
			}
			h.sw = h.sw.Fresh()
			for range tries {
				x, _ := h.genTalk(c)
				if slices.Contains(now, x.from.key) || slices.Contains(now, x.to.key) {
					shut++
					if r := h.sw.Process(h.packet(x, false, syn)); r.Normal {
						t.Fatalf("%v passes, and an end of it has no class: tables %v", x, r.Tables)
					}
					continue
				}
				judged++
				h.sameVerdict(x)
			}
		}
		a := stored(t, h.assignments)
		again := h.again(t, &a)
		if n := len(again.fw.Shut()); n > 0 {
			t.Errorf("%d endpoints have no class although there are numbers", n)
		}
	}
	t.Logf("%d talks judged, %d of endpoints without a class; %d endpoints got one again; in %d states addresses were both numbered and raw",
		judged, shut, reopened, raw)
	if judged < 200 || shut < 200 || reopened == 0 || raw == 0 {
		t.Error("hardly tested")
	}
}

// rawPrefixes reports whether a rule matches many addresses raw.
func rawPrefixes(w *world) bool {
	n := 0
	for _, f := range w.flows() {
		if k := f.String(); isClause(f) && (strings.Contains(k, "_src=") || strings.Contains(k, "_dst=")) {
			n++
		}
	}
	return n > 4
}

// TestUsage tells how much is in use.
func TestUsage(t *testing.T) {
	w := newWorld(t)
	label := func(v string) map[string]string { return map[string]string{"app": v} }
	for i, app := range []string{"web", "db", "lb"} {
		key := keys[i]
		w.workloads[key] = &policy.Workload{Key: key, Bridge: "br0", Port: "tap-" + key, OFPort: uint32(i + 1), MAC: macOf(key),
			Labels: label(app)}
	}
	var peers []policy.Selector
	var services []policy.Service
	for _, p := range []string{"10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16"} {
		peers = append(peers, policy.Selector{CIDR: p})
	}
	for _, p := range []string{"22", "80", "443", "8080"} {
		services = append(services, policy.Service{Protocol: "tcp", Ports: []string{p}})
	}
	w.policies["p"] = &policy.Policy{Meta: policy.Meta{Name: "p"}, Spec: policy.PolicySpec{
		AppliesTo: []policy.Selector{{Labels: label("web")}, {Labels: label("db")}},
		Ingress: []policy.Rule{
			{Name: "many", Action: policy.Allow, From: append(peers[:4:4], policy.Selector{Labels: label("lb")}), Services: services},
			{Name: "feed", Action: policy.Allow, From: peers}},
		Egress: []policy.Rule{{Name: "out", Action: policy.Allow}},
	}}
	w.start(nil)
	used := func() map[string]int {
		out := map[string]int{}
		for _, u := range w.fw.Usage() {
			out[u.Limit] = u.Used
			if u.Max < 500 || u.Near() {
				t.Errorf("%+v: at most what?", u)
			}
		}
		return out
	}
	want := map[string]int{"class-numbers": 2, "address-numbers": 1, "service-numbers": 0, "egress-priorities": 1, "ingress-priorities": 2,
		"egress-conjunctions": 0, "ingress-conjunctions": 1}
	if got := used(); !maps.Equal(got, want) {
		t.Errorf("in use: %v\nwant    %v", got, want)
	}
	w.fw.DeletePolicy("p")
	w.compile()
	want = map[string]int{"class-numbers": 1}
	for limit, n := range used() {
		if n != want[limit] && limit != "class-numbers" {
			t.Errorf("without a policy %d %s", n, limit)
		}
	}
	if !(wall.Use{Used: 80, Max: 100}).Near() || (wall.Use{Used: 79, Max: 100}).Near() {
		t.Error("near is from 80 % on")
	}
}
