package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// What a rule judged, what it let pass because of that and what it denied are told apart; when it was hit, or that it never was and since
// when that is known, outlives a restart and other versions of the policy.
func TestFirewallRuleHits(t *testing.T) {
	t.Parallel()
	s := ground(t, 2)
	s.wall()
	const rules = `
kind: Policy
name: p
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: used, action: allow, services: [{protocol: tcp, ports: ["5001"]}]}
  - {name: no, action: deny, services: [{protocol: tcp, ports: ["5002"]}]}
  - {name: unused, action: allow, services: [{protocol: tcp, ports: ["5003"]}]}
`
	began := time.Now().Add(-time.Minute)
	s.applyUncached(rules)
	time.Sleep(time.Second) // what a change leaves in doubt is nobody's
	stream := s.echo(s.vm[1], s.vm[2], 5001)
	s.running(stream)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5002)
	lab.Eventually(t, 10*time.Second, "the rules are hit", func() bool {
		return s.rule("p", "used").Established > 20 && s.rule("p", "no").Denied > 0
	})
	used, no, unused := s.rule("p", "used"), s.rule("p", "no"), s.rule("p", "unused")
	if used.New == 0 || used.New > 3 || used.Denied != 0 || used.LastHit == nil || time.Since(*used.LastHit) > time.Minute {
		t.Errorf("used: %+v", used)
	}
	if no.New != 0 || no.Established != 0 || no.LastHit == nil {
		t.Errorf("denying: %+v", no)
	}
	if unused.Packets != 0 || unused.LastHit != nil || unused.CountedSince == nil || unused.CountedSince.Before(began) {
		t.Errorf("unused: %+v", unused)
	}
	if out := s.tapwall("describe", "policy", "p"); !strings.Contains(out, "never since ") || !strings.Contains(out, "s ago") {
		t.Error(out)
	}
	stream.Stop()
	time.Sleep(1500 * time.Millisecond) // for the switch to count the last of it
	used = s.rule("p", "used")
	s.unchangedByRestart()
	s.apply(rules + "  - {name: more, action: allow, services: [{protocol: tcp, ports: [\"5005\"]}]}\n")
	again, never, more := s.rule("p", "used"), s.rule("p", "unused"), s.rule("p", "more")
	if again.LastHit == nil || !again.LastHit.Equal(*used.LastHit) || again.Packets < used.Packets {
		t.Errorf("after a restart it was hit %v, before it %v", again.LastHit, used.LastHit)
	}
	if never.LastHit != nil || never.CountedSince == nil || !never.CountedSince.Equal(*unused.CountedSince) {
		t.Errorf("after a restart the other one is %+v, before it %+v", never, unused)
	}
	if more.LastHit != nil || more.CountedSince == nil || !more.CountedSince.After(*unused.CountedSince) {
		t.Errorf("a rule that came later is %+v", more)
	}
	if n := s.metric(`tapwall_rule_new_packets_total{direction="ingress",policy="p",rule="used"}`); n == 0 {
		t.Error("the metrics know nothing of it")
	}
}
