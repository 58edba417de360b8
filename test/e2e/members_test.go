package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Members that are added to a large group, and removed, by what changes alone are in force for new connections and for those that stand.
func TestGroupMembersByTraffic(t *testing.T) {
	t.Parallel()
	s := ground(t, 3)
	s.wall()
	var feed strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&feed, "198.18.%d.%d/32 # %d\n", i>>8, i&255, i)
	}
	file := filepath.Join(t.TempDir(), "feed.txt")
	must(t, os.WriteFile(file, []byte(feed.String()), 0o600))
	s.applyUncached(`
kind: Group
name: friends
spec: {members: [{port: vm3}]}
---
kind: Policy
name: p
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: in, action: allow, from: [{group: friends}], services: [{protocol: udp, ports: ["5001"]}, {protocol: tcp, ports: ["5001"]}]}
`)
	s.tapwall("group", "add", "friends", "-f", file, "--wait")
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
	other := s.datagrams(s.vm[3], s.vm[2], 5001, 10*time.Millisecond)
	s.running(other)

	if out := s.tapwall("group", "add", "friends", s.vm[1].IPv4, "198.18.0.0/32", "--wait=effective"); !strings.Contains(out,
		"1 added, 1 there already; it has 3002 members") {
		t.Errorf("it says %q", out)
	}
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	stream := s.datagrams(s.vm[1], s.vm[2], 5001, 10*time.Millisecond)
	s.running(stream)
	// Others leave, which is news for none that stays but for the new id of the rule.
	s.tapwall("group", "remove", "friends", "198.18.0.1", "198.18.0.2", "198.18.200.0", "--wait=effective")
	s.lossless(stream, "what others leave")
	s.lossless(other, "what others leave")

	s.unchangedByRestart()
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)

	gone := time.Now()
	s.tapwall("group", "remove", "friends", s.vm[1].IPv4+"/32", "--wait=effective")
	s.quiet(stream, gone, time.Second, "the member has left")
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.lossless(other, "of another member")
	s.tapwall("group", "remove", "friends", "-f", file, "--wait")
	if doc := s.tapwall("get", "group", "friends", "-o", "jsonpath={.spec.members}"); strings.Contains(doc, "198.18") {
		t.Errorf("it still has %.200s", doc)
	}
	s.lossless(other, "the feed has gone")
}
