package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// at spells a time in a document.
func at(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// shuts isolates a machine between two times; a zero one is left out.
func shuts(name, target string, from, until time.Time, rules string) string {
	var b strings.Builder
	b.WriteString(sprintf("kind: Policy\nname: %s\nspec:\n  appliesTo: [{port: %s}]\n  defaultDeny: {ingress: true}\n", name, target))
	if !from.IsZero() {
		b.WriteString("  notBefore: " + at(from) + "\n")
	}
	if !until.IsZero() {
		b.WriteString("  expiresAt: " + at(until) + "\n")
	}
	return b.String() + rules
}

// TestFirewallSchedule: a policy is in force between its two times, to the second: what it does not allow is cut at its beginning, what it
// alone allowed at its end, and its isolation ends with it. Status and events say so.
func TestFirewallSchedule(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	const allow = "  ingress: [{name: in, action: allow, from: [{port: vm1}], services: [{protocol: tcp, ports: [\"5001\"]}]}]\n"
	// vm2 is open but for the time of the policy; vm3 is shut but for it.
	begin := time.Now().Add(4 * time.Second)
	end := begin.Add(5 * time.Second)
	s.applyUncached(shuts("shut", "vm3", time.Time{}, time.Time{}, "") + "---\n" + shuts("two", "vm2", begin, end, allow) + "---\n" +
		shuts("three", "vm3", begin, end, allow))
	if h := s.status("policy", "two"); h.Phase != policy.PhasePending || h.Reason != policy.ReasonScheduled {
		t.Errorf("before it begins: %+v", h)
	}
	stays, cut := s.echo(s.vm[1], s.vm[2], 5001), s.echo(s.vm[3], s.vm[2], 5002)
	s.running(stays, cut)
	s.mustNotConnect(s.vm[1], s.vm[3].IPv4, 5001)

	time.Sleep(time.Until(begin))
	s.becomes("policy", "two", policy.PhaseActive, "", "until")
	s.quiet(cut, begin, time.Second, "a connection that the policy does not allow")
	s.mustNotConnect(s.vm[3], s.vm[2].IPv4, 5002)
	s.lossless(stays, "a connection that it allows")
	allowed := s.echo(s.vm[1], s.vm[3], 5001)
	s.running(allowed)

	time.Sleep(time.Until(end))
	s.quiet(allowed, end, time.Second, "a connection that the policy alone allowed")
	s.becomes("policy", "two", policy.PhaseStopped, policy.ReasonExpired, "it ended at")
	s.mustNotConnect(s.vm[1], s.vm[3].IPv4, 5001)
	s.mustConnect(s.vm[3], s.vm[2].IPv4, 5002)
	s.lossless(stays, "a connection that the default allows again")
	for _, action := range []string{"policy-began", "policy-ended"} {
		if out := s.tapwall("observe", "--action", action, "--last", "10"); !strings.Contains(out, "two") || !strings.Contains(out, "three") {
			t.Errorf("%s is not recorded:\n%s", action, out)
		}
	}
	s.inStep(5 * time.Second)
	if out := s.answer(shuts("two", "vm2", time.Time{}, end, allow)); !strings.Contains(out, "EXPIRED") {
		t.Errorf("a policy that is over is written without a word: %s", out)
	}
	s.mustConnect(s.vm[3], s.vm[2].IPv4, 5002)
}

// TestFirewallScheduleDead: policies end while tapwall is dead: the switch ends them by itself, with their isolation, and cuts what they
// alone allowed. Nobody revives them: neither the switch nor tapwall, when it comes back.
func TestFirewallScheduleDead(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	const allow = "  ingress: [{name: in, action: allow, from: [{port: vm1}], services: [{protocol: tcp, ports: [\"5001\"]}]}]\n"
	const deny = "  ingress: [{name: out, action: deny, from: [{port: vm3}], services: [{protocol: tcp, ports: [\"5003\"]}]}]\n"
	s.applyUncached(shuts("shut", "vm3", time.Time{}, time.Time{}, "") + "---\n" +
		strings.Replace(shuts("wide", "vm1", time.Time{}, time.Time{}, ""), "{ingress: true}", "{ingress: false}", 1) +
		"  ingress: [{name: all, action: allow}]\n")
	end := time.Now().Add(8 * time.Second)
	lockdown := shuts("lockdown", "vm2", time.Time{}, end, allow)
	denied := strings.Replace(shuts("denied", "vm1", time.Time{}, end, deny), "{ingress: true}", "{ingress: false}", 1)
	s.applyUncached(lockdown + "---\n" + shuts("window", "vm3", time.Time{}, end, allow) + "---\n" + denied)
	allowed, stays := s.echo(s.vm[1], s.vm[3], 5001), s.echo(s.vm[1], s.vm[2], 5001)
	s.running(allowed, stays)
	s.mustNotConnect(s.vm[3], s.vm[2].IPv4, 5002)
	s.mustNotConnect(s.vm[3], s.vm[1].IPv4, 5003)
	if n := len(s.flows()); n == 0 || !strings.Contains(strings.Join(s.flows(), "\n"), "hard_timeout=") {
		t.Error("no flow ends by itself")
	}
	s.tw.Kill()
	if left := time.Until(end); left < time.Second {
		t.Fatalf("too late: %v before the end", left)
	}
	s.mustNotConnect(s.vm[3], s.vm[2].IPv4, 5002)
	s.lossless(allowed, "until the end")

	// The switch looks once a second, and counts whole seconds.
	time.Sleep(time.Until(end))
	s.quiet(allowed, end, 3*time.Second, "a connection that a policy alone allowed")
	s.mustNotConnect(s.vm[1], s.vm[3].IPv4, 5001)
	s.mustConnect(s.vm[3], s.vm[2].IPv4, 5002)
	s.mustConnect(s.vm[3], s.vm[1].IPv4, 5003)
	s.lossless(stays, "a connection that the default allows now")
	meanwhile := s.echo(s.vm[3], s.vm[2], 5003)
	s.running(meanwhile)
	if flows := strings.Join(s.flows(), "\n"); strings.Contains(flows, "hard_timeout=") {
		t.Errorf("a flow has outlived its time:\n%s", flows)
	}

	must(t, s.tw.Start())
	for _, name := range []string{"lockdown", "window", "denied"} {
		s.becomes("policy", name, policy.PhaseStopped, policy.ReasonExpired, "")
	}
	s.inStep(10 * time.Second)
	s.revalidated()
	s.mustNotConnect(s.vm[1], s.vm[3].IPv4, 5001)
	s.mustConnect(s.vm[3], s.vm[2].IPv4, 5002)
	s.lossless(meanwhile, "a connection that was opened while tapwall was dead")
	s.lossless(stays, "a connection from before")
	if n := allowed.ReceivedSince(end.Add(3*time.Second + lab.Late(end))); n > 0 {
		t.Errorf("%d messages came by a policy that is over", n)
	}
}

// TestFirewallScheduleArmed: a restart changes nothing of flows that end; what somebody takes away comes back for the rest of its time; and
// what is further off than the switch can count is told.
func TestFirewallScheduleArmed(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	end := time.Now().Add(time.Hour)
	const allow = `  ingress:
  - {name: in, action: allow, from: [{port: vm1}, {cidr: 10.9.0.0/16}], services: [{protocol: tcp, ports: ["5001"]}]}
`
	s.applyUncached(shuts("hour", "vm2", time.Time{}, end, allow))
	live := s.echo(s.vm[1], s.vm[2], 5001)
	s.running(live)
	armed := func() (n int, least, most time.Duration) {
		least = 1 << 62
		for _, f := range s.flows() {
			if _, rest, ok := strings.Cut(f, "hard_timeout="); ok {
				text, _, _ := strings.Cut(rest, ",")
				d, err := time.ParseDuration(strings.Fields(text)[0] + "s")
				must(t, err)
				n, least, most = n+1, min(least, d), max(most, d)
			}
		}
		return n, least, most
	}
	n, _, most := armed()
	if n < 3 || most > time.Hour {
		t.Errorf("%d flows end, the last within %v", n, most)
	}
	time.Sleep(4 * time.Second)
	s.unchangedByRestart()
	_, err := s.Ofctl("del-flows", "br0", "table=208")
	must(t, err)
	s.inStep(10 * time.Second)
	left := time.Until(end)
	if m, _, most := armed(); m != n || most > left+3*time.Second {
		t.Errorf("%d of %d flows end, the last within %v, and the policy in %v", m, n, most, left)
	}
	s.lossless(live, "a connection")

	counted := s.rule("hour", "in").Packets
	s.apply(shuts("hour", "vm2", time.Time{}, time.Now().Add(24*time.Hour), allow))
	if m, _, _ := armed(); m != 0 {
		t.Errorf("%d flows end, and the policy is too far off its end", m)
	}
	if h := s.status("policy", "hour"); h.Phase != policy.PhaseActive || !warned(h.Warnings, policy.WarnNotArmed, "only while tapwall runs") {
		t.Errorf("%+v", h)
	}
	s.apply(shuts("hour", "vm2", time.Time{}, time.Now().Add(10*time.Minute), allow))
	if m, _, most := armed(); m != n || most > 10*time.Minute {
		t.Errorf("%d of %d flows end, the last within %v", m, n, most)
	}
	s.lossless(live, "a connection")
	if now := s.rule("hour", "in").Packets; counted == 0 || now < counted {
		t.Errorf("a rule had %d packets, and armed again it has %d", counted, now)
	}
}
