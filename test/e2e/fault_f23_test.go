package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// answer applies documents and returns what apply printed.
func (s *stage) answer(docs string) string {
	s.t.Helper()
	out, err := s.tw.RunInput(docs, "apply", "-f", "-", "--wait")
	if err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// A deny of one IP version leaves the other open, and says so: in the answer, in the status, and when a group comes to mean it.
func TestFault_F23_OneFamilyIsTold(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	a, b := s.vm[1], s.vm[2]
	rule := func(peers string) string {
		return "kind: Policy\nname: shut\nspec:\n  appliesTo: [{port: vm2}]\n  defaultDeny: {ingress: false}\n  ingress:\n  - {name: all, " +
			"action: deny, from: [" + peers + "]}\n"
	}
	const both, group = `{cidr: 0.0.0.0/0}, {cidr: "::/0"}`, "kind: Group\nname: everybody\nspec: {members: [%s]}\n"
	told := func(out string) bool {
		return strings.Contains(out, "ONE_FAMILY") && strings.Contains(out, `add {cidr: "::/0"}`)
	}
	if out, err := s.tw.RunInput(rule("{cidr: 0.0.0.0/0}"), "apply", "-f", "-", "--dry-run"); err != nil || !told(out) {
		t.Errorf("the dry run: %v\n%s", err, out)
	}
	if out := s.answer(rule("{cidr: 0.0.0.0/0}")); !told(out) {
		t.Errorf("the answer:\n%s", out)
	}
	s.mustNotConnect(a, b.IPv4, 5001)
	s.mustConnect(a, b.IPv6, 5001) // this is what the warning is about
	lab.Eventually(t, 5*time.Second, "the status says so", func() bool {
		return warned(s.status("policy", "shut").Warnings,
			policy.WarnOneFamily, "IPv6")
	})
	if out := s.answer(rule(both)); strings.Contains(out, "warning") {
		t.Errorf("the answer to both families:\n%s", out)
	}
	s.mustNotConnect(a, b.IPv4, 5001)
	s.mustNotConnect(a, b.IPv6, 5001)
	lab.Eventually(t, 5*time.Second, "the status is quiet", func() bool { return len(s.status("policy", "shut").Warnings) == 0 })
	if out := s.answer(sprintf(group, both) + "---\n" + rule("{group: everybody}")); strings.Contains(out, "warning") {
		t.Errorf("the answer to a group of both families:\n%s", out)
	}
	if out := s.answer(sprintf(group, "{cidr: 0.0.0.0/0}")); !told(out) || !strings.Contains(out, "policy/shut ingress/all") {
		t.Errorf("the answer to a group that loses one:\n%s", out)
	}
	s.mustNotConnect(a, b.IPv4, 5001)
	s.mustConnect(a, b.IPv6, 5001)
	lab.Eventually(t, 5*time.Second, "the status says so", func() bool {
		return warned(s.status("policy", "shut").Warnings,
			policy.WarnOneFamily, "IPv6")
	})
}

// Two endpoints elsewhere have one address of each family. Both are told, and the access by that address ends with the second, not with
// the first.
func TestFault_F23_DuplicateAddress(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	station, target := s.vm[3], s.vm[1]
	_, err := s.Vsctl("clear", "interface", "vm3", "external_ids") // somebody beyond the bridge
	must(t, err)
	far := func(name string) string {
		return sprintf("kind: Endpoint\nname: %s\nspec: {match: {port: tap-%s}, labels: {role: lb}, addresses: [%s, \"%s\"]}\n", name, name,
			station.IPv4, station.IPv6)
	}
	for _, peers := range []string{"{labels: {role: lb}}", "{group: lbs}"} {
		out := s.answer("kind: Group\nname: lbs\nspec: {members: [{labels: {role: lb}}]}\n---\n" + far("far1") + "---\n" + far("far2") + "---\n" +
			"kind: Policy\nname: vm1\nspec:\n  appliesTo: [{port: vm1}]\n  ingress:\n  - {name: lb, action: allow, from: [" + peers + "]}\n")
		for _, name := range []string{"far1", "far2"} {
			if !strings.Contains(out, "DUPLICATE_ADDRESS") {
				t.Errorf("the answer:\n%s", out)
			}
			if ws := s.status("endpoint", name).Warnings; !warned(ws, policy.WarnDuplicateAddress, station.IPv4) ||
				!warned(ws, policy.WarnDuplicateAddress, station.IPv6) {
				t.Errorf("%s: %+v", name, ws)
			}
		}
		s.mustNotConnect(s.vm[2], target.IPv4, 5001)
		live := s.echo(station, target, 5001)
		s.running(live)
		s.tapwall("delete", "endpoint", "far1", "--wait")
		s.mustConnect(station, target.IPv4, 5001)
		s.mustConnect(station, target.IPv6, 5001)
		s.lossless(live, "a connection by the address that far2 has still")
		if ws := s.status("endpoint", "far2").Warnings; len(ws) > 0 {
			t.Errorf("far2 alone: %+v", ws)
		}
		s.tapwall("delete", "endpoint", "far2", "--wait")
		s.quiet(live, time.Now(), 500*time.Millisecond, "nobody has the address")
		s.mustNotConnect(station, target.IPv4, 5001)
		s.mustNotConnect(station, target.IPv6, 5001)
	}
	// Ports of one VLAN, and of two.
	out := s.answer("kind: Endpoint\nname: e1\nspec: {match: {port: vm1}, addresses: [10.77.0.1]}\n---\nkind: Endpoint\nname: e2\nspec: " +
		"{match: {port: vm2}, addresses: [10.77.0.1]}\n")
	for _, name := range []string{"e1", "e2"} {
		if ws := s.status("endpoint", name).Warnings; !warned(ws, policy.WarnDuplicateAddress, "10.77.0.1") || !strings.Contains(out,
			"DUPLICATE_ADDRESS") {
			t.Errorf("%s: %+v\n%s", name, ws, out)
		}
	}
	_, err = s.Vsctl("set", "port", "vm2", "tag=7")
	must(t, err)
	lab.Eventually(t, 5*time.Second, "they do not meet in two VLANs", func() bool {
		return len(s.status("endpoint", "e1").Warnings)+len(s.status("endpoint", "e2").Warnings) == 0
	})
}
