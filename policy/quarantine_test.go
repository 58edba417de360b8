package policy_test

import (
	"testing"

	"github.com/tapwall/tapwall/policy"
)

func TestQuarantineSpec(t *testing.T) {
	runSpecs(t, policy.KindQuarantine, []specTest{
		{"OK port", "match: {port: tap1}", nil},
		{"OK everything", `{match: {vm: vm1, host: h1}, mode: dns, until: "2026-01-02T15:04:05Z", reason: why,
			pass: [{cidr: 10.0.0.1}, {cidr: "2001:db8::/64", services: [{protocol: tcp, ports: ["22"]}, {protocol: icmpv6}]}]}`, nil},
		{"bad match", "match: {bridge: br0}", []string{"/spec/match/bridge: bridge cannot be used here: only port, neutronPort, vm or mac"}},
		{"bad mode", "{match: {port: a}, mode: half}", []string{`/spec/mode: unknown value "half": must be drop or dns`}},
		{"bad pass", `{match: {port: a}, pass: [{cidr: 10.0.0.1/8}, {cidr: "fe80::1%eth0"}, {cidr: 10.0.0.1, services: []}]}`, []string{
			"/spec/pass/0/cidr: must be an IPv4 or IPv6 address, or a prefix without bits behind its length",
			"/spec/pass/1/cidr: must be an IPv4 or IPv6 address, or a prefix without bits behind its length",
			"/spec/pass/2/services: an empty list matches nothing; leave it out for all IP"}},
		{"bad service", `{match: {port: a}, pass: [{cidr: 10.0.0.1, services: [{protocol: gre}, {protocol: tcp, ports: [x]}]}]}`, []string{
			"/spec/pass/0/services/0/protocol: must be tcp, udp, icmp or icmpv6",
			`/spec/pass/0/services/1/ports/0: unknown name "x": write the number; names are those of docs/policies.md, such as "ssh" or "https"`}},
	})
}

func TestQuarantinePassList(t *testing.T) {
	q := &policy.Quarantine{Spec: policy.QuarantineSpec{Pass: []policy.Passage{{CIDR: "10.0.0.1"}}}}
	if n := len(q.PassList()); n != 1 {
		t.Errorf("drop: %d", n)
	}
	q.Spec.Mode = policy.QuarantineDNS
	if n := len(q.PassList()); n != 3 || len(q.Spec.Pass) != 1 {
		t.Errorf("dns: %d", n)
	}
}
