package policy_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/policy"
)

// TestWhy holds that the rules that are said to match are those that decide: what Evaluate names is the first of them that may.
func TestWhy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSet(t)
		p := drawPacket(t, s)
		d := policy.Evaluate(s, p)
		for _, side := range []struct {
			dir  policy.Direction
			self *policy.Workload
			d    policy.SideDecision
		}{{policy.Egress, p.Src, d.Egress}, {policy.Ingress, p.Dst, d.Ingress}} {
			if side.self == nil {
				continue
			}
			why := s.Why(side.dir, p)
			var first *policy.Match
			passed := -1
			for i := range why.Matching {
				m := &why.Matching[i]
				tier := m.Policy.Spec.Tier.Rank()
				if m.Policy.Audits() || tier == passed {
					continue
				}
				if m.Rule.Action == policy.Pass {
					passed = tier
					continue
				}
				first = m
				break
			}
			byRule := side.d.Ref.Rule != policy.RuleDefaultAllow && side.d.Ref.Rule != policy.RuleDefaultDeny
			if byRule != (first != nil) || byRule && first.Ref != side.d.Ref {
				t.Fatalf("%s is decided by %+v, and of what matches the first is %+v", side.dir, side.d, first)
			}
			for _, n := range why.Near { // what it lacks is all that it lacks
				r := *n.Rule
				if n.Service {
					r.Services = nil
				} else {
					r.From, r.To = nil, nil
				}
				pol := *n.Policy
				pol.Name, pol.Spec.Tier, pol.Spec.Priority = "aaa", policy.TierEmergency, new(0)
				pol.Spec.Ingress, pol.Spec.Egress = nil, nil
				if side.dir == policy.Ingress {
					pol.Spec.Ingress = []policy.Rule{r}
				} else {
					pol.Spec.Egress = []policy.Rule{r}
				}
				with := *s
				with.Policies = append([]*policy.Policy{&pol}, s.Policies...)
				if now := with.Why(side.dir, p); len(now.Matching) != len(why.Matching)+1 {
					t.Fatalf("%+v, without what it is said to lack, does not match", n)
				}
			}
		}
	})
}
