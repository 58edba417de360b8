package e2e

import (
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// Scenario 12, the firewall: what a policy drops is copied by a mirror at the wire and not by one of what is delivered.
func TestMirrorScenario12CapturePoint(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	s.ping3(s.vm[1], s.vm[2])
	const mirror = "---\nkind: Mirror\nname: %s\nspec: {sources: [{port: vm1}], capturePoint: %s, direction: %s, targets: [{port: {name: " +
		"%s, " +
		"create: true}}]}\n"
	s.force(sprintf(mirror, "wire", "wire", "both", "wire0") + sprintf(mirror, "left", "delivered", "both", "left0") +
		sprintf(mirror, "sent", "delivered", "fromSource", "sent0") +
		"---\nkind: Policy\nname: shut\nspec: {appliesTo: [{port: vm2}], ingress: [{name: no, action: deny, from: [{port: vm1}]}]}\n")
	for _, name := range []string{"wire", "left", "sent"} {
		s.becomes("mirror", name, policy.PhaseActive, "", "")
	}
	s.realised("wire", policy.RealisedNative, true)
	s.realised("left", policy.RealisedStaged, true)
	wire, left, sent := s.capture("wire0"), s.capture("left0"), s.capture("sent0")
	counts := func(from, to *lab.VM) (n [3]int) {
		t.Helper()
		for i, c := range []*lab.Capture{wire, left, sent} {
			n[i] = -len(c.Frames(lab.ICMP))
		}
		_, _ = from.Run("ping", "-c", "3", "-i", "0.2", "-W", "1", to.IPv4)
		settle()
		for i, c := range []*lab.Capture{wire, left, sent} {
			n[i] += len(c.Frames(lab.ICMP))
		}
		return n
	}
	if n := counts(s.vm[1], s.vm[2]); n != [3]int{3, 0, 0} {
		t.Errorf("of three requests that a policy drops %v were copied, want 3 at the wire", n)
	}
	if n := counts(s.vm[1], s.vm[3]); n != [3]int{6, 6, 3} {
		t.Errorf("of three requests and answers that pass %v were copied, want 6, 6 and the 3 that the source sent", n)
	}
	if n := counts(s.vm[3], s.vm[1]); n != [3]int{6, 6, 3} {
		t.Errorf("of three requests to the source and its answers %v were copied, want 6, 6 and 3", n)
	}
	if n := counts(s.vm[3], s.vm[2]); n != [3]int{} {
		t.Errorf("of what is not the source's %v were copied", n)
	}
	s.tapwall("delete", "policy", "shut", "--wait")
	s.revalidated()
	if n := counts(s.vm[1], s.vm[2]); n != [3]int{6, 6, 3} {
		t.Errorf("without the policy %v were copied, want 6, 6 and 3", n)
	}
	s.refused(
		"kind: Mirror\nname: no\nspec: {sources: [{port: vm1}, {vlan: 7}], capturePoint: delivered, targets: [{port: {name: no0, create: "+
			"true}}]}\n", "apply", "-f", "-")
	s.unchangedByRestart()
}

// Scenario 12, headers that change on the way: the status is true of what comes.
func TestMirrorScenario12HeadersChange(t *testing.T) {
	t.Parallel()
	s := ground(t, 2)
	var err error
	s.tw, err = s.StartTapwall("--bridge", "br0=guest")
	must(t, err)
	_, err = s.Ofctl("add-flow", "br0", "priority=9,icmp,actions=dec_ttl,NORMAL")
	must(t, err)
	s.ping3(s.vm[1], s.vm[2])
	s.force("kind: Mirror\nname: pair\nspec: {sources: [{port: vm1}, {port: vm2}], targets: [{port: {name: pair0, create: true}}]}\n")
	s.becomes("mirror", "pair", policy.PhaseActive, "", "")
	hosts := s.status("mirror", "pair").Hosts
	pair := s.capture("pair0")
	if n := s.copied(pair, func() { s.ping3(s.vm[1], s.vm[2]) }); hosts[0].ExactOnce == nil || *hosts[0].ExactOnce != (n == 6) {
		t.Errorf("%d copies of 6 frames whose TTL changes on the way, and the status says %+v", n, hosts)
	}
}

// Scenario 12, source NAT on the way: the status is true of what comes.
func TestMirrorScenario12SNAT(t *testing.T) {
	t.Parallel()
	s := ground(t, 2)
	var err error
	s.tw, err = s.StartTapwall("--bridge", "br0=guest")
	must(t, err)
	const outside = "10.77.0.100"
	for _, f := range []string{
		"priority=9,icmp,nw_src=" + s.vm[1].IPv4 + ",actions=ct(commit,nat(src=" + outside + "),table=1)",
		"priority=9,icmp,nw_dst=" + outside + ",actions=ct(nat,table=1)",
		"table=1,actions=NORMAL",
	} {
		_, err := s.Ofctl("add-flow", "br0", f)
		must(t, err)
	}
	_, err = s.vm[2].Run("ip", "neigh", "replace", outside, "lladdr", s.vm[1].MAC, "dev", "eth0")
	must(t, err)
	s.ping3(s.vm[1], s.vm[2])
	s.force("kind: Mirror\nname: pair\nspec: {sources: [{port: vm1}, {port: vm2}], targets: [{port: {name: pair0, create: true}}]}\n")
	s.becomes("mirror", "pair", policy.PhaseActive, "", "")
	hosts := s.status("mirror", "pair").Hosts
	pair := s.capture("pair0")
	n := s.copied(pair, func() { s.ping3(s.vm[1], s.vm[2]) })
	if len(hosts) != 1 || hosts[0].ExactOnce == nil || *hosts[0].ExactOnce != (n == 6) {
		t.Errorf("%d copies of 6 frames whose source changes on the way, and the status says %+v", n, hosts)
	}
	translated := func(f lab.Frame) bool {
		return lab.ICMP(f) && (string(f.Data[26:30]) == "\x0a\x4d\x00\x64" || string(f.Data[30:34]) == "\x0a\x4d\x00\x64")
	}
	seen, err := s.Capture(s.vm[2].NS, "eth0")
	must(t, err)
	s.ping3(s.vm[1], s.vm[2])
	settle()
	if len(seen.Frames(translated)) != 3 {
		t.Error("nothing was translated, so the test shows nothing")
	}
}

// A patch port is a source like any other, where nothing else comes in like that; else the mirror says why not.
func TestMirrorScenarioSourcesPatchPort(t *testing.T) {
	t.Parallel()
	s := twoBridges(t)
	s.force("kind: Mirror\nname: patch\nspec: {sources: [{port: pa}], targets: [{port: {name: patch0, create: true}}]}\n---\n" +
		"kind: Mirror\nname: in\nspec: {sources: [{port: pa}], direction: fromSource, targets: [{port: {name: in0, create: true}}]}\n")
	s.becomes("mirror", "patch", policy.PhaseActive, "", "")
	s.becomes("mirror", "in", policy.PhaseActive, "", "")
	s.realised("patch", policy.RealisedStaged, true)
	patch, in := s.capture("patch0"), s.capture("in0")
	if n := s.copied(patch, func() { s.ping3(s.vm[1], s.vm[3]) }); n != 6 {
		t.Errorf("of what passes a patch port %d frames were copied, want 6", n)
	}
	if n := len(in.Frames(lab.ICMP)); n != 3 {
		t.Errorf("of what comes out of a patch port %d frames were copied, want the 3 answers", n)
	}
	if n := s.copied(patch, func() { s.ping3(s.vm[1], s.vm[2]) }); n != 0 {
		t.Errorf("of what does not pass the patch port %d frames were copied", n)
	}
	_, err := s.Vsctl("--", "add-port", "br0", "other", "--", "set", "interface", "other", "type=patch", "options:peer=nobody")
	must(t, err)
	s.becomes("mirror", "patch", policy.PhaseDegraded, policy.ReasonPatchPort, "has other patch ports (other)")
	lab.Eventually(t, 5*time.Second, "no row is left", func() bool {
		out, err := s.Vsctl("--bare", "--columns=name", "list", "mirror")
		return err == nil && out == ""
	})
}
