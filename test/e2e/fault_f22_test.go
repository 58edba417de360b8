package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// What a change does to isolation is said in words, before the flows, by diff, by a dry run and by apply; and it is what the traffic
// then sees.
func TestFault_F22_IsolationIsSaidInWords(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	const ssh = `
kind: Policy
name: ssh
spec:
  appliesTo: [{port: vm1}, {port: vm2}]
  ingress:
  - {name: ssh, action: allow, services: [{protocol: tcp, ports: ["5001"]}]}
`
	const watch = `
kind: Policy
name: watch
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: see, action: allow, log: true}
`
	run := func(docs string, args ...string) string {
		out, _ := s.tw.RunInput(docs, append(args, "-f", "-")...) // diff says by its exit code that there is a difference
		return out
	}
	said := func(out, words string) {
		t.Helper()
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(words) + `$`).MatchString(out) {
			t.Errorf("nobody says %q:\n%s", words, out)
		}
	}
	s.mustConnect(s.vm[3], s.vm[1].IPv4, 5000)
	s.mustConnect(s.vm[3], s.vm[2].IPv6, 5000)

	const closes = "2 endpoints become default-deny for ingress: vm1, vm2"
	out := run(ssh, "diff")
	said(out, closes)
	if words, flows := strings.Index(out, closes), strings.Index(out, "bridge br0"); words > flows || flows < 0 {
		t.Errorf("the flows come before the words:\n%s", out)
	}
	if strings.Contains(out, "actions=") || !regexp.MustCompile(`(?m)^  [1-9][0-9]* flows would come and \d+ go \(diff --flows`).MatchString(
		out) {
		t.Errorf("it lists flows, or does not say how many there are:\n%s", out)
	}
	all := run(ssh, "diff", "--flows")
	said(all, closes)
	if n := strings.Count(all, "actions="); n < 3 || !strings.Contains(out, fmt.Sprintf("%d flows would come", strings.Count(all, "\n  + "))) {
		t.Errorf("with --flows it lists %d:\n%s\nand without:\n%s", n, all, out)
	}
	said(run(ssh, "apply", "--dry-run"), closes)
	s.mustConnect(s.vm[3], s.vm[1].IPv4, 5000)
	said(run(ssh, "apply", "--wait"), closes)
	s.mustNotConnect(s.vm[3], s.vm[1].IPv4, 5000)
	s.mustNotConnect(s.vm[3], s.vm[2].IPv6, 5000)
	s.mustConnect(s.vm[3], s.vm[2].IPv6, 5001)
	if out := run(ssh, "apply", "--wait"); strings.Contains(out, "default-deny") {
		t.Errorf("applying the same again changes nothing:\n%s", out)
	}

	const opens = "ingress of 1 endpoint opens to everybody: vm2 (by watch/see)"
	said(run(watch, "diff"), opens)
	said(run(watch, "apply", "--wait"), opens)
	s.mustConnect(s.vm[3], s.vm[2].IPv6, 5000)
	s.mustNotConnect(s.vm[3], s.vm[1].IPv4, 5000)

	s.tapwall("delete", "policy", "watch", "--wait")
	said(run(strings.Replace(ssh, "[{port: vm1}, {port: vm2}]", "[{port: vm1}]", 1), "apply", "--wait"),
		"1 endpoint is no longer default-deny for ingress: vm2")
	s.mustConnect(s.vm[3], s.vm[2].IPv4, 5000)
	s.mustNotConnect(s.vm[3], s.vm[1].IPv4, 5000)
}
