package e2e

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// What is wrong with rules is told with the name of the other rule: in the answer to a write, before it, and by lint, which also knows the
// rules that were never used.
func TestFirewallLint(t *testing.T) {
	t.Parallel()
	s := ground(t, 2)
	s.wall()
	const used = `
kind: Policy
name: p
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: used, action: allow, from: [{cidr: 10.0.0.0/8}], services: [{protocol: tcp, ports: ["5001"]}]}
  - {name: unused, action: allow, services: [{protocol: tcp, ports: ["5003"]}]}
`
	const more = used + "  - {name: inside, action: allow, from: [{cidr: 10.1.0.0/16}], services: [{protocol: tcp, ports: [\"5001\"]}]}\n"
	s.applyUncached(used)
	time.Sleep(time.Second)
	if out := s.tapwall("lint"); out != "" {
		t.Errorf("nothing is wrong, and it says %s", out)
	}
	if out := s.refused(more, "lint", "-f", "-"); !strings.Contains(out, "WIDER") || !strings.Contains(out, `"inside"`) {
		t.Errorf("before the write it says %s", out)
	}
	if out, err := s.tw.RunInput(more, "apply", "-f", "-"); err != nil || !strings.Contains(out, "WIDER") {
		t.Errorf("the answer to the write is %s (%v)", out, err)
	}
	lab.Eventually(t, 10*time.Second, "the rule is hit", func() bool { // what a change leaves in doubt is nobody's
		s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
		return s.rule("p", "used").LastHit != nil
	})
	lab.Eventually(t, 10*time.Second, "lint knows what was used", func() bool {
		out, err := s.tw.Run("lint", "--unused-for", "1s")
		return err != nil && strings.Contains(out, "ingress/unused of policy p was never hit") && !strings.Contains(out,
			"ingress/used of policy p was never") &&
			strings.Contains(out, "WIDER")
	})
	if out := s.tapwall("get", "policies",
		"--never-hit"); !regexp.MustCompile(`(?m)^p .* ingress/inside,ingress/unused$|^p .* ingress/unused,ingress/inside$`).MatchString(out) {
		t.Errorf("of rules that were never hit it says\n%s", out)
	}
	if out := s.tapwall("get", "policies", "--never-hit=30d"); out != "no policies\n" {
		t.Errorf("of rules that were not hit for 30 days it says\n%s", out)
	}
	if out := s.tapwall("get", "policies", "-o", "wide"); !strings.Contains(out, "NEVER-HIT") ||
		!regexp.MustCompile(`(?m)^p .* \d+s ago +2 of 3 `).MatchString(out) {
		t.Errorf("the wide table is\n%s", out)
	}
}
