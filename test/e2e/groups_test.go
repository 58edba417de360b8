package e2e

import (
	"strings"
	"testing"
	"time"
)

// Members of a group that is in a group that is in a group are what a rule names by the outermost, for new connections and for those that
// stand; one more costs a few flow-mods. What would be a circle is refused by name, and so is the deletion of a group that is in another.
func TestFirewallNestedGroups(t *testing.T) {
	t.Parallel()
	s := ground(t, 4)
	s.wall()
	s.applyUncached(sprintf(`
kind: Group
name: leaf
spec: {members: [{cidr: 192.0.2.0/24}]}
---
kind: Group
name: middle
spec: {members: [{group: leaf}, {cidr: %s/24, except: [%s/32, %s/32]}]}
---
kind: Group
name: outer
spec: {members: [{group: middle}, {port: vm4}], onMemberRemoved: revoke}
---
kind: Policy
name: p
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: in, action: allow, from: [{group: outer}], services: [{protocol: udp, ports: ["5001"]}, {protocol: tcp, ports: ["5001"]}]}
`, network(s.vm[1].IPv4), s.vm[1].IPv4, s.vm[3].IPv4))
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.mustNotConnect(s.vm[3], s.vm[2].IPv4, 5001)
	other := s.datagrams(s.vm[4], s.vm[2], 5001, 10*time.Millisecond)
	s.running(other)

	for _, member := range []string{s.vm[1].IPv4 + "/32", "port=vm1"} {
		before := s.health().FlowMods
		s.tapwall("group", "add", "leaf", member, "--wait=effective")
		if n := s.health().FlowMods - before; n == 0 || n > 12 {
			t.Errorf("a member more in the innermost group (%s) cost %d flow-mods", member, n)
		}
		s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
		s.mustNotConnect(s.vm[3], s.vm[2].IPv4, 5001)
		stream := s.datagrams(s.vm[1], s.vm[2], 5001, 10*time.Millisecond)
		s.running(stream)
		s.unchangedByRestart()
		gone := time.Now()
		s.tapwall("group", "remove", "leaf", member, "--wait=effective")
		s.quiet(stream, gone, time.Second, "the member "+member+" has left the innermost group")
		s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
	}
	s.lossless(other, "of another member")

	circle := s.refused(
		"kind: Group\nname: leaf\nspec: {members: [{group: outer}]}\n---\nkind: Group\nname: more\nspec: {members: [{group: leaf}]}\n",
		"apply", "-f", "-")
	if !strings.Contains(circle, "leaf > outer > middle > leaf") {
		t.Errorf("a circle: %s", circle)
	}
	if out := s.refused("", "delete", "group", "leaf"); !strings.Contains(out, "group/middle") {
		t.Errorf("the deletion of a group that is in another: %s", out)
	}
	// Where only endpoints can be selected, a group in a group may not bring addresses.
	if out := s.refused("kind: Policy\nname: q\nspec: {appliesTo: [{group: outer}], defaultDeny: {ingress: true}}\n", "apply", "-f",
		"-"); !strings.Contains(
		out, `group "leaf" has the address range`) && !strings.Contains(out, `group "middle" has the address range`) {
		t.Errorf("applied to addresses: %s", out)
	}
}

// network is the /24 of an IPv4 address, without its length.
func network(addr string) string { return addr[:strings.LastIndexByte(addr, '.')] + ".0" }
