package e2e

import (
	"testing"
	"time"
)

// A member that leaves a group with onMemberRemoved: keep keeps the connections that it has, also across a restart of tapwall, and opens no
// new ones. A later deny, the isolation of an end and the deletion of the rule cut them like any. Without keep they are cut at once.
func TestFirewallMemberKept(t *testing.T) {
	t.Parallel()
	group := func(keep, members string) string {
		return sprintf("kind: Group\nname: g\nspec: {members: [%s], onMemberRemoved: %s}\n---\n", members, keep)
	}
	label := func(role string) string {
		return sprintf("kind: Endpoint\nname: e1\nspec: {match: {port: vm1}, labels: {role: %s}}\n---\n", role)
	}
	const base = "kind: Policy\nname: base\nspec: {appliesTo: [{port: vm2}], defaultDeny: {ingress: true}}\n---\n"
	const byGroup = `
kind: Policy
name: p
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: in, action: allow, from: [{group: g}], services: [{protocol: tcp, ports: ["5001"]}, {protocol: udp, ports: ["5001"]}]}
---
`
	members := map[string]struct {
		before, after func(s *stage, keep string) string
	}{
		"label": {
			before: func(_ *stage, keep string) string {
				return label("client") + group(keep, "{labels: {role: client}}, {port: vm3}")
			},
			after: func(*stage, string) string { return label("guest") },
		},
		"listed port": {
			before: func(_ *stage, keep string) string { return group(keep, "{port: vm1}, {port: vm3}") },
			after:  func(_ *stage, keep string) string { return group(keep, "{port: vm3}") },
		},
		"cidr": {
			before: func(s *stage, keep string) string {
				return group(keep, sprintf("{cidr: %s/32}, {cidr: 192.0.2.0/24}", s.vm[1].IPv4))
			},
			after: func(_ *stage, keep string) string { return group(keep, "{cidr: 192.0.2.0/24}") },
		},
	}
	ends := map[string]func(s *stage){
		"deny": func(s *stage) { s.apply(denyPolicy("tier: security", "{port: vm1}")) },
		"isolation": func(s *stage) {
			s.apply("kind: Policy\nname: out\nspec: {appliesTo: [{port: vm1}], defaultDeny: {egress: true}}\n")
		},
		"rule deleted": func(s *stage) { s.tapwall("delete", "policy", "p", "--wait") },
	}
	for name, m := range members {
		for end, cut := range ends {
			t.Run(name+", "+end, func(t *testing.T) {
				t.Parallel()
				s := openForAttack(t, 3)
				s.applyUncached(base + m.before(s, "keep") + byGroup)
				kept, other := s.everyWay(s.vm[1], s.vm[2], 5001), s.everyWay(s.vm[2], s.vm[3], 5005)
				changed := time.Now()
				s.apply(m.after(s, "keep"))
				s.revalidated()
				s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
				s.mustGoOn(kept, changed)
				must(t, s.tw.Stop())
				must(t, s.tw.Start())
				s.becomesHealthy("tapwall is back")
				s.revalidated()
				s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
				s.mustGoOn(kept, changed)
				cut(s)
				s.mustBeCut(kept, time.Now())
				s.mustGoOn(other, changed)
			})
		}
		t.Run(name+", revoke", func(t *testing.T) {
			t.Parallel()
			s := openForAttack(t, 3)
			s.applyUncached(base + m.before(s, "revoke") + byGroup)
			revoked, other := s.everyWay(s.vm[1], s.vm[2], 5001), s.everyWay(s.vm[2], s.vm[3], 5005)
			changed := time.Now()
			s.apply(m.after(s, "revoke"))
			s.mustBeCut(revoked, time.Now())
			s.mustGoOn(other, changed)
		})
	}
}
