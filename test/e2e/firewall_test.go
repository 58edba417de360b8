package e2e

import (
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// allowPorts is a policy for one machine: ingress tcp of some ports from another machine.
func allowPorts(name, target, peer, ports string) string {
	return sprintf(`
kind: Policy
name: %s
spec:
  appliesTo: [{port: %s}]
  ingress:
  - {name: allow, action: allow, from: [{port: %s}], services: [{protocol: tcp, ports: ["%s"]}, {protocol: udp, ports: ["%s"]}]}
`, name, target, peer, ports, ports)
}

// Scenario 1 of the firewall: an allowed port range, v4 and v6, and a deny counter that counts exactly.
func TestFirewallScenario01Matrix(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.applyUncached(`
kind: Policy
name: out
spec:
  appliesTo: [{port: vm1}]
  egress:
  - {name: to-vm2, action: allow, to: [{port: vm2}], services: [{protocol: tcp, ports: ["5001-5003"]}]}
`)
	before := s.packets("table=205", "priority=1,", "load:0x2->NXM_NX_REG13[4..5]")
	tries := 0
	for _, to := range []string{s.vm[2].IPv4, s.vm[2].IPv6} {
		for _, port := range []int{5001, 5002, 5003} {
			s.mustConnect(s.vm[1], to, port)
		}
		for _, port := range []int{5000, 5004} {
			s.mustTimeOut(s.vm[1], to, port)
			tries++
		}
	}
	lab.Eventually(t, 3*time.Second, "the counter of the default deny rises by the SYNs sent", func() bool {
		return s.packets("table=205", "priority=1,", "load:0x2->NXM_NX_REG13[4..5]") >= before+tries
	})
	c := s.stable("out")
	if n := s.packets("table=205", "priority=1,", "load:0x2->NXM_NX_REG13[4..5]") - before; n != tries {
		t.Errorf("the deny counter rose by %d for %d SYNs", n, tries)
	}
	if n := c.counters["defaultDenyEgressPackets"]; n != int64(tries) || c.rules["to-vm2"] == 0 {
		t.Errorf("the policy counts %d packets that it denied by default, %d were, and %v", n, tries, c.rules)
	}
}

// The classic case as a newcomer writes it: vm1 may open connections to vm2, replies come back, vm2 may not open any to vm1.
func TestClassicOneWay(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply(`
kind: Policy
name: vm2
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: from-vm1, action: allow, from: [{port: vm1}]}
---
kind: Policy
name: vm1
spec:
  appliesTo: [{port: vm1}]
  ingress:
  - {name: not-from-vm2, action: deny, from: [{port: vm2}]}
`)
	for _, to := range []string{s.vm[2].IPv4, s.vm[2].IPv6} {
		s.mustConnect(s.vm[1], to, 5001)
	}
	for _, to := range []string{s.vm[1].IPv4, s.vm[1].IPv6} {
		s.mustNotConnect(s.vm[2], to, 5001)
	}
	p := s.echo(s.vm[1], s.vm[2], 5002)
	s.running(p)
	s.lossless(p, "replies to vm1")
	if gates := s.flows("table=208"); len(gates) < 2 {
		t.Errorf("no gate of a live rule in table 208: %q", gates)
	}
	es := s.conntrack("src="+s.vm[1].IPv4, "dport=5002)")
	if len(es) != 1 || es[0].label == 0 {
		t.Errorf("conntrack has %v, want one entry of vm1 to port 5002 whose label names its rules", es)
	}
	if es := s.conntrack("orig=(src=" + s.vm[2].IPv4); len(es) != 0 {
		t.Errorf("conntrack has connections opened by vm2: %v", es)
	}
}

// Scenario 2: being selected denies by default, in that direction only, also what is running.
func TestFirewallScenario02DefaultDenyOnSelection(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	if !s.ping(s.vm[1], s.vm[3].IPv4) || !s.ping(s.vm[3], s.vm[1].IPv4) {
		t.Fatal("unselected machines do not reach each other")
	}
	capture, err := s.Capture(s.vm[3].NS, "eth0")
	must(t, err)
	for _, to := range []string{s.vm[3].IPv4, s.vm[3].IPv6} {
		ping, err := s.SpawnIn(s.vm[1].NS, "ping"+to, "ping", "-i", "0.02", to)
		must(t, err)
		defer lab.Kill(ping)
	}
	arrived := func(version byte, since time.Time) int {
		return len(capture.Frames(func(f lab.Frame) bool { return lab.ICMP(f) && f.Data[14]>>4 == version && f.At.After(since) }))
	}
	running := s.datagrams(s.vm[1], s.vm[3], 5000, 10*time.Millisecond)
	s.running(running)
	lab.Eventually(t, 5*time.Second, "pings of both families arrive", func() bool {
		return arrived(4, time.Time{}) > 20 && arrived(6, time.Time{}) > 20
	})
	t0 := s.apply(allowPorts("isolate", "vm3", "vm2", "5001"))
	s.quiet(running, t0, time.Second, "running datagrams to vm3")
	for _, version := range []byte{4, 6} {
		if n := arrived(version, t0.Add(time.Second+lab.Late(t0))); n > 0 {
			t.Errorf("%d running pings of IPv%d came later than a second after the change", n, version)
		}
	}
	if s.ping(s.vm[1], s.vm[3].IPv4) || s.ping(s.vm[1], s.vm[3].IPv6) {
		t.Error("a new ping reaches vm3")
	}
	if !s.ping(s.vm[3], s.vm[1].IPv4) || !s.ping(s.vm[3], s.vm[1].IPv6) {
		t.Error("vm3 can no longer ping vm1")
	}
	s.mustConnect(s.vm[2], s.vm[3].IPv4, 5001)
}

// Scenario 3: at equal tier and priority deny wins, in whichever order the rules came.
func TestFirewallScenario03DenyWins(t *testing.T) {
	t.Parallel()
	allow := allowPorts("a-allow", "vm2", "vm1", "5001-5003")
	deny := `
kind: Policy
name: b-deny
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: deny, action: deny, services: [{protocol: tcp, ports: ["5003"]}]}
`
	for name, order := range map[string][]string{"allow first": {allow, deny}, "deny first": {deny, allow}} {
		t.Run(name, func(t *testing.T) {
			s := open(t, 2)
			for _, doc := range order {
				s.applyUncached(doc) // what comes before the caches have followed counts as unattributed
			}
			there, err := s.Capture(s.vm[2].NS, "eth0")
			must(t, err)
			back, err := s.Capture(s.vm[1].NS, "eth0")
			must(t, err)
			for range 3 {
				for _, port := range []int{5001, 5002} {
					s.mustConnect(s.vm[1], s.vm[2].IPv4, port)
				}
				s.mustTimeOut(s.vm[1], s.vm[2].IPv4, 5003)
			}
			allowed := func() (n int) {
				for _, port := range []uint16{5001, 5002} {
					n += len(there.Frames(lab.TCPTo(port))) + len(back.Frames(lab.TCPFrom(port)))
				}
				return n
			}
			lab.Eventually(t, 10*time.Second, "both rules count exactly", func() bool {
				return s.rule("b-deny", "deny").Packets == 3 && s.rule("a-allow", "allow").Packets == uint64(allowed())
			})
			s.stable("a-allow")
			if a, d := s.rule("a-allow", "allow").Packets, s.rule("b-deny", "deny").Packets; a != uint64(allowed()) || a < 6*3 || d != 3 {
				t.Errorf("the rules count %d and %d packets; %d passed, 3 SYNs did not", a, d, allowed())
			}
		})
	}
}

// Scenario 4: a deleted rule ends its live connections, also one in which only the far side sends, and no other.
func TestFirewallScenario04RuleDeleted(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.apply(allowPorts("doomed", "vm2", "vm1", "5001-5002") + "---" + allowPorts("other", "vm3", "vm1", "5001") +
		"---" + allowPorts("base", "vm2", "vm3", "5005"))
	echo, push := s.echo(s.vm[1], s.vm[2], 5001), s.push(s.vm[1], s.vm[2], 5002)
	udp := s.datagrams(s.vm[1], s.vm[2], 5001, 10*time.Millisecond)
	other := s.echo(s.vm[1], s.vm[3], 5001)
	s.running(echo, push, udp, other)
	unrelated := s.conntrack("dst="+s.vm[3].IPv4, "dport=5001)")
	s.tapwall("delete", "policy", "doomed", "--wait")
	t0 := time.Now()
	s.quiet(echo, t0, time.Second, "echo")
	s.quiet(push, t0, time.Second, "push stream")
	s.quiet(udp, t0, time.Second, "datagrams")
	s.lossless(other, "the connection of another rule")
	after := s.conntrack("dst="+s.vm[3].IPv4, "dport=5001)")
	if len(unrelated) != 1 || len(after) != 1 || unrelated[0].text != after[0].text {
		t.Errorf("the conntrack entry of the other rule changed: %v -> %v", unrelated, after)
	}
}

// Scenario 5: a stream that two rules allow goes on under the second when the first is deleted.
func TestFirewallScenario05SecondRuleStillAllows(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply(strings.Replace(allowPorts("first", "vm2", "vm1", "5001"), "spec:", "spec:\n  priority: 10", 1) + "---" + allowPorts("second",
		"vm2", "vm1", "5001"))
	push := s.push(s.vm[1], s.vm[2], 5001)
	s.running(push)
	first, second := s.rule("first", "allow").ID, s.rule("second", "allow").ID
	if es := s.conntrack("dport=5001)"); len(es) != 1 || uint32(es[0].label) != first {
		t.Fatalf("conntrack has %v, want the label of rule first (%#x)", es, first)
	}
	before := time.Now()
	s.tapwall("delete", "policy", "first", "--wait")
	time.Sleep(time.Second)
	if gap := push.MaxGap(before); gap > 200*time.Millisecond+lab.Late(before) {
		t.Errorf("the stream stood still for %v", gap)
	}
	if push.Err() != nil {
		t.Errorf("the stream broke: %v", push.Err())
	}
	if es := s.conntrack("dport=5001)"); len(es) != 1 || uint32(es[0].label) != second {
		t.Errorf("conntrack has %v, want the label of rule second (%#x)", es, second)
	}
	counted := s.rule("second", "allow").Packets
	lab.Eventually(t, 3*time.Second, "rule second counts on", func() bool { return s.rule("second", "allow").Packets > counted })
	if push.Err() != nil {
		t.Errorf("the stream broke: %v", push.Err())
	}
}

// Scenario 6: a rule that comes back revives the connection it had.
func TestFirewallScenario06RuleRecreated(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.apply(allowPorts("base", "vm2", "vm3", "5005") + "---" + allowPorts("rule", "vm2", "vm1", "5001"))
	echo := s.echo(s.vm[1], s.vm[2], 5001)
	s.running(echo)
	s.tapwall("delete", "policy", "rule", "--wait")
	s.quiet(echo, time.Now(), time.Second, "echo")
	time.Sleep(4 * time.Second)
	t0 := s.apply(allowPorts("rule", "vm2", "vm1", "5001"))
	// TCP's own retransmission timer decides when the sender tries again: after 6 s or so, and the next time after 13 s.
	lab.Eventually(t, 10*time.Second, "the stalled connection goes on", func() bool { return echo.ReceivedSince(t0) > 50 })
	if echo.Err() != nil {
		t.Errorf("the connection broke: %v", echo.Err())
	}
}

// Scenario 7: a deny above a live allow cuts what it denies and nothing else of that rule.
func TestFirewallScenario07DenyInserted(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply(allowPorts("allow", "vm2", "vm1", "5001-5003"))
	p1, p2, p3 := s.echo(s.vm[1], s.vm[2], 5001), s.echo(s.vm[1], s.vm[2], 5002), s.echo(s.vm[1], s.vm[2], 5003)
	s.running(p1, p2, p3)
	t0 := s.apply(`
kind: Policy
name: deny
spec:
  tier: security
  appliesTo: [{port: vm2}]
  ingress:
  - {name: no-5003, action: deny, services: [{protocol: tcp, ports: ["5003"]}]}
`)
	s.quiet(p3, t0, time.Second, "5003")
	s.lossless(p1, "5001")
	s.lossless(p2, "5002")
	id := s.rule("allow", "allow").ID
	for _, port := range []string{"dport=5001)", "dport=5002)"} {
		if es := s.conntrack("src="+s.vm[1].IPv4, port); len(es) != 1 || uint32(es[0].label) != id {
			t.Errorf("conntrack has %v, want the label of rule allow (%#x)", es, id)
		}
	}
	lab.Eventually(t, 5*time.Second, "the deny counts what it cut", func() bool { return s.rule("deny", "no-5003").Packets > 0 })
}

// Scenario 9: packets that belong to no connection do not reach an allowed port, and every one is counted, by what it is; a sample of
// them is in the record. What belongs to the connection beside them passes.
func TestFirewallScenario09OutOfState(t *testing.T) {
	t.Parallel()
	s := open(t, 2, "--pickup-window", "300ms")
	s.apply(allowPorts("allow", "vm2", "vm1", "5001"))
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001) // resolves the address
	echo := s.echo(s.vm[1], s.vm[2], 5001)
	capture, err := s.Capture(s.vm[2].NS, "eth0")
	must(t, err)
	s.pickupClosed()
	reasons := []string{"out-of-state", "out-of-state-syn-ack", "out-of-state-reset", "out-of-state-fin", "out-of-state-flags",
		"out-of-state-segment"}
	dropped := func() map[string]int {
		s.revalidated() // so that the counters are up to date
		out := map[string]int{}
		for _, reason := range reasons {
			out[reason] = int(s.metric(fmt.Sprintf(`tapwall_dropped_packets_total{bridge="br0",reason=%q}`, reason)))
		}
		return out
	}
	before := dropped()
	const each = 5
	port := uint16(20000)
	want := map[string]int{}
	for _, x := range []struct {
		flags    byte
		checksum uint16 // added to the right one
		reason   string
	}{
		{0x10, 0, "out-of-state"}, {0x18, 0, "out-of-state"}, {0x12, 0, "out-of-state-syn-ack"}, {0x04, 0, "out-of-state-reset"},
		{0x14, 0, "out-of-state-reset"}, {0x11, 0, "out-of-state-fin"}, {0x29, 0, "out-of-state-flags"}, {0x03, 0, "out-of-state-flags"},
		{0x06, 0, "out-of-state-flags"}, {0x00, 0, "out-of-state-flags"}, {0x02, 1, "out-of-state-segment"}, {0x10, 1, "out-of-state-segment"},
	} {
		for range each {
			frame, err := s.vm[1].CraftTCP(s.vm[1].IPv4, s.vm[2], port, 5001, x.flags)
			must(t, err)
			frame[51] += byte(x.checksum)
			must(t, s.vm[1].Send(frame))
			want[x.reason]++
			port++
		}
	}
	var rose map[string]int
	lab.Eventually(t, 5*time.Second, "the counters account for every packet", func() bool {
		rose = dropped()
		total := 0
		for reason, n := range before {
			rose[reason] -= n
			total += rose[reason] - want[reason]
		}
		return total >= 0
	})
	if !maps.Equal(rose, want) {
		t.Errorf("the counters rose by %v, want %v", rose, want)
	}
	crafted := func(f lab.Frame) bool {
		return lab.TCPTo(5001)(f) && int(f.Data[34])<<8+int(f.Data[35]) >= 20000 && int(f.Data[34])<<8+int(f.Data[35]) < int(port)
	}
	if got := capture.Frames(crafted); len(got) != 0 {
		t.Errorf("%d of the packets reached vm2", len(got))
	}
	s.running(echo)

	// The status of the host says the same, and the record names who sent some of them.
	now, host := dropped(), strings.TrimSpace(s.tapwall("get", "hosts", "-o", "name"))
	for reason, n := range now {
		line := regexp.MustCompile(`(?m)^ +` + reason + ` +` + fmt.Sprint(n) + `$`)
		if out := s.tapwall("describe", host); !line.MatchString(out) {
			t.Errorf("describe host does not say that %d packets were dropped as %s:\n%s", n, reason, out)
		}
	}
	if out := s.tapwall("status"); !strings.Contains(out, fmt.Sprintf("out-of-state-reset %d", now["out-of-state-reset"])) {
		t.Errorf("status:\n%s", out)
	}
	lab.Eventually(t, 5*time.Second, "a sample is recorded", func() bool {
		return strings.Contains(s.tapwall("observe", "--verdict", "DROPPED", "--from", "vm1", "--all"),
			"policy-verdict:out-of-state EGRESS DENIED")
	})
}
