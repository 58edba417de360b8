package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/test/lab"
)

// planned runs `tapwall diff` and returns what it says of connections.
func (s *stage) planned(docs string) *client.ConnectionPlan {
	s.t.Helper()
	out, _ := s.tw.RunInput(docs, "diff", "-f", "-", "-o", "json") // it exits with 6 where something differs
	var r client.ApplyResult
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Plan == nil || r.Plan.Connections == nil {
		s.t.Fatalf("diff: %v\n%s", err, out)
	}
	return r.Plan.Connections
}

const diffBefore = connectionsPolicies + `
---
kind: Group
name: clients
spec: {members: [{port: vm1}, {port: vm3}]}
---
kind: Policy
name: shared
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: web, action: allow, from: [{group: clients}], services: [{protocol: tcp, ports: ["5000"]}]}
  defaultDeny: {ingress: true, log: true}
`

// What diff says would be cut is what is cut, and nothing else; what it says would be allowed is allowed.
func TestDiffConnections(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.applyUncached(diffBefore)
	s.pickupClosed()
	probes := s.connected() // tcp, udp and default, each by IPv4 and IPv6
	for name, from := range map[string]*lab.VM{"web1": s.vm[1], "web3": s.vm[3]} {
		probes[name] = s.echo(from, s.vm[2], 5000)
		s.running(probes[name])
	}
	if s.vm[3].CanConnect(s.vm[2].IPv4, 5004, 300*time.Millisecond) || s.vm[3].CanConnect(s.vm[2].IPv4, 5005, 300*time.Millisecond) {
		t.Error("vm3 can connect to closed ports of vm2")
	}
	lab.Eventually(t, 5*time.Second, "the denials are recorded", func() bool {
		return strings.Contains(s.tapwall("observe", "--to-port", "5004"), "default-deny") &&
			strings.Contains(s.tapwall("observe", "--to-port", "5005"), "default-deny")
	})

	same := s.planned(
		"kind: Policy\nname: feed\nspec:\n  appliesTo: [{port: vm2}]\n  defaultDeny: {ingress: false}\n  ingress: [{name: bad, action: " +
			"deny, from: [{cidr: 203.0.113.0/24}]}]\n")
	if same.Cut != 0 || same.Moved != 0 || same.Allowed != 0 || same.Kept < len(probes) || len(same.Problems) > 0 {
		t.Errorf("a deny of nobody who is there: %+v", same)
	}

	// vm3 leaves the group, dns goes, vm3 is isolated, sql is allowed by another rule, and 5004 becomes open.
	after := strings.NewReplacer("members: [{port: vm1}, {port: vm3}]", "members: [{port: vm1}]",
		`  - {name: dns, action: allow, from: [{port: vm1}], services: [{protocol: udp, ports: ["5002"]}]}`+"\n", "",
		"name: sql,", "name: postgres,").Replace(diffBefore) + `
---
kind: Policy
name: late
spec:
  appliesTo: [{port: vm3}]
  defaultDeny: {ingress: true}
---
kind: Policy
name: open
spec:
  appliesTo: [{port: vm2}]
  ingress: [{name: any-5004, action: allow, from: [{port: vm3}], services: [{protocol: tcp, ports: ["5004"]}]}]
`
	plan := s.planned(after)
	var cuts []string
	for _, c := range plan.Cuts {
		cuts = append(cuts, fmt.Sprintf("%s %s>%s %d %s %s", c.Protocol, c.Source.Endpoint, c.Destination.Endpoint, c.Destination.Port, c.Side,
			c.Rule))
	}
	slices.Sort(cuts)
	want := []string{"tcp vm1>vm3 5003 ingress late/ingress/default-deny", "tcp vm1>vm3 5003 ingress late/ingress/default-deny",
		"tcp vm3>db 5000 ingress data/ingress/default-deny", "udp vm1>db 5002 ingress data/ingress/default-deny",
		"udp vm1>db 5002 ingress data/ingress/default-deny"}
	if !slices.Equal(cuts, want) || plan.Cut != len(want) || plan.Moved != 2 {
		t.Errorf("%d would be cut:\n%s\nwant\n%s\n%+v", plan.Cut, strings.Join(cuts, "\n"), strings.Join(want, "\n"), plan)
	}
	if plan.Allowed != 1 || len(plan.Allows) != 1 || plan.Allows[0].Destination.Port != 5004 ||
		plan.Allows[0].Rule != "open/ingress/any-5004" ||
		plan.Allows[0].Source.Endpoint != "vm3" || plan.Allows[0].Last.IsZero() {
		t.Errorf("would be allowed: %+v", plan.Allows)
	}
	words, _ := s.tw.RunInput(after, "diff", "-f", "-")
	for _, w := range []string{"live connections: 5 would be cut, ", "(2 of them by another rule)",
		"denied in the last ten minutes 1 would be allowed",
		"cut: tcp vm3 10.77.0.3:", "-> db 10.77.0.2:5000 (ingress denied by data/ingress/default-deny)",
		"allowed: tcp vm3 10.77.0.3 -> db 10.77.0.2:5004 (ingress allowed by open/ingress/any-5004)", "become", "vm3"} {
		if !strings.Contains(words, w) {
			t.Errorf("diff does not say %q:\n%s", w, words)
		}
	}
	for _, p := range probes { // nothing has been changed yet
		s.lossless(p, "before the change")
	}

	s.apply(after)
	s.revalidated()
	then := time.Now().Add(100 * time.Millisecond)
	time.Sleep(700 * time.Millisecond)
	cut := map[string]bool{"web3": true, "udp4": true, "udp6": true, "default4": true, "default6": true}
	for _, name := range slices.Sorted(maps.Keys(probes)) {
		if silent := probes[name].ReceivedSince(then) == 0; silent != cut[name] {
			t.Errorf("%s is silent: %v, and diff said that it would be cut: %v", name, silent, cut[name])
		}
	}
	s.mustConnect(s.vm[3], s.vm[2].IPv4, 5004)
	s.mustNotConnect(s.vm[3], s.vm[2].IPv4, 5005)
}
