package e2e

import (
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// ownersOf is a policy of the tier security with some rules and a deny, and one of the owners of the application.
func ownersOf(rules string) string {
	return `
kind: Policy
name: guard
spec:
  tier: security
  appliesTo: [{port: vm3}]
  defaultDeny: {ingress: false}
  ingress:
` + rules + `
  - {name: no, action: deny, services: [{protocol: tcp, ports: ["5001-5005"]}]}
---
kind: Policy
name: app
spec:
  appliesTo: [{port: vm3}]
  ingress:
  - {name: from-vm1, action: allow, from: [{port: vm1}]}
`
}

const passRule = `
  - {name: leave, action: pass, from: [{port: vm1}, {port: vm2}], services: [{protocol: tcp, ports: ["5001"]}]}`

// A pass leaves what it matches to the next tier, although a deny of its own tier is behind it, and takes what it let through along when it
// goes; the default decides what no tier does.
func TestFirewallPassLeavesItToTheNextTier(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	above := func(rules string) string { // the same, one priority above
		return `
kind: Policy
name: leave
spec:
  tier: security
  priority: 50
  appliesTo: [{port: vm3}]
  defaultDeny: {ingress: false}
  ingress:` + rules
	}
	s.apply(ownersOf("") + "---" + above(passRule))
	for _, to := range []string{s.vm[3].IPv4, s.vm[3].IPv6} {
		s.mustConnect(s.vm[1], to, 5001)
		s.mustNotConnect(s.vm[1], to, 5002) // the deny of the tier
		s.mustNotConnect(s.vm[2], to, 5001) // the default behind all tiers
	}
	lab.Eventually(t, 10*time.Second, "the pass counts what it led on", func() bool { return s.counted("leave").rules["leave"] > 0 })

	live := s.echo(s.vm[1], s.vm[3], 5001)
	s.running(live)
	s.tapwall("delete", "policy", "leave", "--wait")
	s.quiet(live, time.Now(), time.Second, "a connection that the pass let through to an allow of a lower tier")
	s.mustNotConnect(s.vm[1], s.vm[3].IPv4, 5001)

	s.apply(above(passRule))
	s.mustConnect(s.vm[1], s.vm[3].IPv4, 5001)
	second := s.echo(s.vm[1], s.vm[3], 5001)
	s.running(second)
	// What the pass gains is taken from an allow of its own tier, to be denied by default.
	s.apply(`
kind: Policy
name: temporary
spec:
  tier: security
  priority: 60
  appliesTo: [{port: vm3}]
  defaultDeny: {ingress: false}
  ingress:
  - {name: also, action: allow, from: [{port: vm2}], services: [{protocol: tcp, ports: ["5002"]}]}
`)
	other := s.echo(s.vm[2], s.vm[3], 5002)
	s.running(other)
	t0 := s.apply(above(`
  - {name: leave, action: pass, from: [{port: vm1}, {port: vm2}], services: [{protocol: tcp, ports: ["5001-5002"]}]}`))
	s.quiet(other, t0, time.Second, "a connection that the pass has come before")
	s.lossless(second, "what the pass led on all the time")
}

// A policy in mode audit decides nothing: what it would deny passes and is recorded, what enforced policies deny behind it is denied, what
// it allows is not allowed by it. The same policy enforced cuts what it recorded.
func TestFirewallAuditRecordsAndPasses(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	web := func(mode string) string {
		return sprintf(`
kind: Policy
name: web
spec:
  mode: %s
  priority: 50
  appliesTo: [{port: vm3}]
  ingress:
  - {name: no-telnet, action: deny, from: [{port: vm1}], services: [{protocol: tcp, ports: ["5001-5002"]}]}
  - {name: ssh, action: allow, services: [{protocol: tcp, ports: ["5003-5004"]}]}
`, mode)
	}
	enforced := `
---
kind: Policy
name: floor
spec:
  appliesTo: [{port: vm3}]
  defaultDeny: {ingress: false}
  ingress:
  - {name: never, action: deny, services: [{protocol: tcp, ports: ["5002", "5004"]}], log: true}
`
	s.apply(web("audit") + enforced)
	recorded := func(rule string, verdict string) bool {
		for _, v := range s.events("--last", "200") {
			if v.Rule.Name == rule && v.Tapwall.Verdict == verdict {
				return true
			}
		}
		return false
	}
	live := s.echo(s.vm[1], s.vm[3], 5001)
	s.running(live)
	lab.Eventually(t, 5*time.Second, "what the rule would have denied is recorded", func() bool { return recorded("no-telnet", "AUDIT") })
	once := 0
	for _, v := range s.events("--last", "1000") {
		if v.Rule.Name == "no-telnet" {
			once++
		}
	}
	if once != 1 {
		t.Errorf("%d events of one connection", once)
	}
	s.mustNotConnect(s.vm[1], s.vm[3].IPv4, 5002) // an enforced deny behind it
	s.mustNotConnect(s.vm[2], s.vm[3].IPv4, 5004) // although the audit would allow it
	s.mustConnect(s.vm[2], s.vm[3].IPv4, 5003)
	s.mustConnect(s.vm[2], s.vm[3].IPv4, 5000) // it alone would isolate
	lab.Eventually(t, 5*time.Second, "what the default would have denied is recorded, and what is denied", func() bool {
		return recorded("default-deny", "AUDIT") && recorded("never", "DROPPED")
	})
	if recorded("ssh", "AUDIT") || recorded("ssh", "FORWARDED") {
		t.Error("an allow of a policy in mode audit is recorded")
	}
	if st := s.status("policy", "web"); !warned(st.Warnings, policy.WarnAudit, "mode audit") {
		t.Errorf("the status does not say that the policy is in mode audit: %+v", st.Warnings)
	}
	lab.Eventually(t, 10*time.Second, "the counters tell what would have been denied", func() bool {
		c := s.counted("web")
		return c.rules["no-telnet"] > 0 && c.counters["defaultDenyIngressPackets"] > 0
	})
	s.lossless(live, "what is denied in mode audit")

	t0 := s.apply(web("enforce"))
	s.quiet(live, t0, time.Second, "what was recorded only")
	s.mustNotConnect(s.vm[1], s.vm[3].IPv4, 5001)
	s.mustConnect(s.vm[2], s.vm[3].IPv4, 5003)
	s.mustNotConnect(s.vm[2], s.vm[3].IPv4, 5000)
	s.apply(web("audit"))
	s.mustConnect(s.vm[1], s.vm[3].IPv4, 5001)
}

// What an endpoint in mode audit is denied passes, new or established, until it is in mode enforce.
func TestFirewallAuditOfAnEndpoint(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	endpoint := func(mode string) string {
		return sprintf(`
kind: Endpoint
name: m3
spec: {match: {port: vm3}, mode: %s}
`, mode)
	}
	s.apply(endpoint("audit") + `
---
kind: Policy
name: shut
spec:
  appliesTo: [{port: vm3}, {port: vm2}]
  ingress: [{name: no, action: deny, services: [{protocol: tcp, ports: ["5001"]}]}]
`)
	live := s.echo(s.vm[1], s.vm[3], 5001)
	s.running(live)
	s.mustConnect(s.vm[1], s.vm[3].IPv6, 5002) // denied by default
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
	lab.Eventually(t, 5*time.Second, "what the rule would have denied is recorded", func() bool {
		for _, v := range s.events("--last", "200") {
			if v.Rule.Name == "no" && v.Tapwall.Verdict == "AUDIT" && v.Tapwall.Destination.Name == "m3" {
				return true
			}
		}
		return false
	})
	s.lossless(live, "what an endpoint in mode audit is denied")
	t0 := s.apply(endpoint("enforce"))
	s.quiet(live, t0, time.Second, "what mode audit let through")
	s.mustNotConnect(s.vm[1], s.vm[3].IPv4, 5001)
}
