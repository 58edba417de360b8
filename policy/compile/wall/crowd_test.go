package wall_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/policy"
)

// The universe of a crowd: so many endpoints, label sets, prefixes and services that no list of numbers is short.
const (
	crowdSize     = 48
	crowdZones    = 8
	crowdPolicies = 10
)

// genCrowd adds workloads with one label more, and policies that use it, prefixes and port ranges at random.
func (h *history) genCrowd(t *rapid.T, c chooser) {
	for i := range crowdSize {
		key := fmt.Sprintf("x%x", 0x40+i)
		h.crowd = append(h.crowd, key)
		h.workloads[key] = &policy.Workload{Key: key, Bridge: "br0", Port: "tap-" + key, OFPort: uint32(200 + i), MAC: macOf(key),
			Labels: crowdLabels(c)}
	}
	h.tell()
	for i := range crowdPolicies {
		h.setCrowdPolicy(t, c, i)
	}
	h.compile()
}

func crowdLabels(c chooser) map[string]string {
	return map[string]string{"app": choose(c, apps), "env": choose(c, envs), "zone": fmt.Sprint(c(crowdZones))}
}

func (h *history) setCrowdPolicy(t *rapid.T, c chooser, i int) step {
	name := fmt.Sprint("crowd", i)
	before := h.policies[name]
	p := genPolicy(t, name)
	zone := func() policy.Selector {
		return policy.Selector{Labels: map[string]string{"zone": fmt.Sprint(c(crowdZones))}}
	}
	p.Spec.AppliesTo = append(p.Spec.AppliesTo, zone())
	widen := func(r *policy.Rule, peers *[]policy.Selector) {
		for range c(4) {
			*peers = append(*peers, zone())
		}
		for range c(4) {
			*peers = append(*peers, policy.Selector{CIDR: crowdPrefix(c).String()})
		}
		for range c(4) {
			low := []int{1, 20, 79, 400, 8000, 8060}[c(6)] + c(30)
			r.Services = append(r.Services, policy.Service{Protocol: choose(c, []policy.Protocol{"tcp", "udp"}),
				Ports: []string{fmt.Sprintf("%d-%d", low, low+c(2000))}})
		}
	}
	for i := range p.Spec.Ingress {
		widen(&p.Spec.Ingress[i], &p.Spec.Ingress[i].From)
	}
	for i := range p.Spec.Egress {
		widen(&p.Spec.Egress[i], &p.Spec.Egress[i].To)
	}
	if c(6) > 0 { // else hardly anybody would be left who is not isolated
		p.Spec.DefaultDeny = &policy.DefaultDeny{Ingress: new(false), Egress: new(false)}
	}
	h.policies[name] = p
	h.fw.SetPolicy(p)
	return step{"policy " + name, h.beside(before, p)}
}

// crowdPrefix holds one of the universe's addresses, so prefixes lie in each other.
func crowdPrefix(c chooser) netip.Prefix {
	if c(3) == 0 {
		return netip.PrefixFrom(netip.MustParseAddr(choose(c, addresses6)), 16*(1+c(7))+c(17)).Masked()
	}
	return netip.PrefixFrom(netip.MustParseAddr(choose(c, addresses4)), 6+c(27)).Masked()
}

// stir changes something of the crowd.
func (h *history) stir(t *rapid.T, c chooser) step {
	none := func(uint32, string) bool { return false }
	switch c(4) {
	case 0:
		return h.setCrowdPolicy(t, c, c(crowdPolicies))
	case 1:
		name := fmt.Sprint("crowd", c(crowdPolicies))
		before := h.policies[name]
		delete(h.policies, name)
		h.fw.DeletePolicy(name)
		return step{"no policy " + name, h.beside(before, nil)}
	case 2:
		return h.change(t)
	}
	key := choose(c, h.crowd)
	after := *h.workloads[key]
	after.Labels = maps.Clone(after.Labels)
	label := choose(c, []string{"app", "env", "zone"})
	after.Labels[label] = crowdLabels(c)[label]
	h.workloads[key] = &after
	h.tell()
	return step{"labels of " + key, none}
}

// example runs what draws, outside of a check.
func example(c chooser, f func(*rapid.T)) {
	rapid.Custom(func(rt *rapid.T) int {
		f(rt)
		return rapid.Int().Draw(rt, "end")
	}).Example(c(1 << 30))
}

// TestPairsOfACrowd is TestPairs with more of everything: fifty endpoints of dozens of kinds, ten policies with long lists. At the end
// a restart must change nothing.
func TestPairsOfACrowd(t *testing.T) {
	whole(t)
	t.Parallel()
	const worlds, steps, tries = 5, 40, 60
	var first outcomes
	var passed, moved, cut int
	for seed := range worlds {
		h := &history{world: newWorld(t)}
		c := seeded(uint64(seed) + 5) // by which each outcome comes up
		draw := func(f func(*rapid.T)) { example(c, f) }
		draw(func(rt *rapid.T) {
			h.randomize(rt, false)
			h.genCrowd(rt, c)
		})
		kinds := map[string]bool{}
		for _, w := range h.workloads {
			kinds[fmt.Sprint(w.Labels)] = true
		}
		if len(kinds) <= 16 || !slices.ContainsFunc(h.flows(), isClause) {
			t.Fatalf("%d kinds of endpoints, or no conjunction: no crowd", len(kinds))
		}
		for range steps {
			draw(func(rt *rapid.T) {
				h.connect(rt)
				s := h.stir(rt, c)
				h.compile()
				h.judge(rt, s)
			})
			aside := h.sw
			h.sw = aside.Fresh()
			for range tries {
				x, _ := first.seldom(h.world, c)
				h.sameVerdict(x)
				first.add(h.evaluate(x))
			}
			h.sw = aside
		}
		h.same(t, steps)
		passed, moved, cut = passed+h.judged.passed, moved+h.judged.moved, cut+h.judged.cut
	}
	t.Logf("first packets %+v; packets of live connections: %d passed, %d were moved, %d cut", first, passed, moved, cut)
	first.balanced(t)
	if passed < 100 || moved < 20 || cut < 20 {
		t.Errorf("%d packets of live connections passed, %d were moved, %d cut: hardly tested", passed, moved, cut)
	}
}
