package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// traffic is all ways in which a connection from vm1 to vm2 port 5001 can be alive: both sides send, only the server sends, datagrams, and
// datagrams of which only one direction flows.
type traffic struct {
	probes map[string]*lab.Probe
}

func (s *stage) everyWay(from, to *lab.VM, port int) traffic {
	s.t.Helper()
	tr := traffic{map[string]*lab.Probe{
		"echo": s.echo(from, to, port), "push": s.push(from, to, port), "datagrams": s.datagrams(from, to, port, 10*time.Millisecond),
	}}
	for _, p := range tr.probes {
		s.running(p)
	}
	return tr
}

func (s *stage) mustBeCut(tr traffic, t0 time.Time) {
	s.t.Helper()
	for name, p := range tr.probes {
		s.quiet(p, t0, 300*time.Millisecond, name)
	}
}

func (s *stage) mustGoOn(tr traffic, since time.Time) {
	s.t.Helper()
	for name, p := range tr.probes {
		if name == "push" {
			if gap := p.MaxGap(since); gap > 300*time.Millisecond+lab.Late(since) || p.Err() != nil {
				s.t.Errorf("%s stood still for %v: %v", name, gap, p.Err())
			}
			continue
		}
		s.lossless(p, name)
	}
}

const anyFromVM1 = `
kind: Policy
name: p
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: all, action: allow, from: [{port: vm1}]}
`

// denyPolicy denies vm1's way to vm2 port 5001 without isolating anybody.
func denyPolicy(head, from string) string {
	return sprintf(`
kind: Policy
name: d
spec:
  %s
  appliesTo: [{port: vm2}]
  defaultDeny: {ingress: false}
  ingress:
  - {name: no, action: deny, from: [%s], services: [{protocol: tcp, ports: ["5001"]}, {protocol: udp, ports: ["5001"]}]}
`, head, from)
}

// Everything that takes away what allowed a connection cuts it in whichever direction it flows, and hurts no other.
func TestAttackRevocation(t *testing.T) {
	t.Parallel()
	group := "kind: Group\nname: g\nspec: {members: [%s]}\n---"
	byGroup := strings.Replace(allowPorts("p", "vm2", "vm1", "5001"), "{port: vm1}", "{group: g}", 1)
	label := "kind: Endpoint\nname: e1\nspec: {match: {port: vm1}, labels: {role: %s}}\n---"
	byLabel := strings.Replace(allowPorts("p", "vm2", "vm1", "5001"), "{port: vm1}", "{labels: {role: client}}", 1)
	address := "kind: Endpoint\nname: far\nspec: {match: {vm: far}, labels: {role: client}, addresses: [%s]}\n---"
	for name, c := range map[string]struct {
		before, after string
		remove        []string // policies
		setUp         func(*stage)
		survives      bool
	}{
		"policy deleted":       {before: allowPorts("p", "vm2", "vm1", "5001"), remove: []string{"p"}},
		"ports narrowed":       {before: allowPorts("p", "vm2", "vm1", "5001-5002"), after: allowPorts("p", "vm2", "vm1", "5002")},
		"peer replaced":        {before: allowPorts("p", "vm2", "vm1", "5001"), after: allowPorts("p", "vm2", "vm3", "5001")},
		"rule renamed":         {before: anyFromVM1, after: strings.Replace(anyFromVM1, "name: all", "name: other", 1), survives: true},
		"rule turned":          {before: anyFromVM1, after: strings.Replace(anyFromVM1, "action: allow", "action: deny", 1)},
		"moved to another":     {before: allowPorts("p", "vm2", "vm1", "5001"), after: allowPorts("p", "vm3", "vm1", "5001")},
		"group member removed": {before: sprintf(group, "{port: vm1}, {port: vm3}") + byGroup, after: sprintf(group, "{port: vm3}")},
		"group member added": {before: sprintf(group, "{port: vm1}") + byGroup, after: sprintf(group, "{port: vm1}, {port: vm3}"),
			survives: true},
		"label changed": {before: sprintf(label, "client") + byLabel, after: sprintf(label, "guest")},
		"deny gains a label": {before: sprintf(label, "client") + anyFromVM1 + "---" + denyPolicy("tier: security", "{labels: {role: guest}}"),
			after: sprintf(label, "guest")},
		"deny gains a member": {before: sprintf(group, "{port: vm3}") + anyFromVM1 + "---" + denyPolicy("tier: security", "{group: g}"),
			after: sprintf(group, "{port: vm3}, {port: vm1}")},
		"address changed": {before: sprintf(address, "10.77.0.1") + byLabel, after: sprintf(address, "10.77.0.9"), setUp: makeStranger},
		"became an endpoint": {before: strings.Replace(allowPorts("p", "vm2", "vm1", "5001"), "{port: vm1}", "{entity: world}", 1),
			after: strings.Replace(sprintf(label, "client"), "spec: {", `spec: {mac: "02:77:00:00:00:01", `, 1), setUp: makeStranger},
		"deny above a default": {before: denyPolicy("", "{port: vm3}"), after: denyPolicy("", "{port: vm1}")},
		"deny above an allow":  {before: anyFromVM1, after: denyPolicy("tier: security", "{port: vm1}")},
		"deny beside an allow": {before: anyFromVM1, after: denyPolicy("", "{port: vm1}")},
		"deny below an allow":  {before: anyFromVM1, after: denyPolicy("tier: baseline", "{port: vm1}"), survives: true},
		"deny raised by tier": {before: anyFromVM1 + "---" + denyPolicy("tier: baseline", "{port: vm1}"),
			after: denyPolicy("tier: emergency", "{port: vm1}")},
		"deny raised by number": {before: anyFromVM1 + "---" + denyPolicy("priority: 200", "{port: vm1}"), after: denyPolicy("priority: 50",
			"{port: vm1}")},
		"allow lowered": {before: strings.Replace(anyFromVM1, "spec:", "spec:\n  priority: 10", 1) + "---" +
			denyPolicy("", "{port: vm1}"), after: strings.Replace(anyFromVM1, "spec:", "spec:\n  priority: 900", 1)},
		"isolated later": {before: strings.Replace(denyPolicy("", "{port: vm3}"), "name: d", "name: p", 1), after: allowPorts("p",
			"vm2", "vm3", "5001")},
		"isolated at the sender": {before: anyFromVM1,
			after: "kind: Policy\nname: out\nspec:\n  appliesTo: [{port: vm1}]\n  egress:\n  - {name: o, action: allow, to: [{port: vm3}]}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := ground(t, 3)
			if c.setUp != nil {
				c.setUp(s)
			}
			s.wall()
			s.applyUncached(c.before + "---" + allowPorts("kept", "vm3", "vm2", "5005"))
			doomed, kept := s.everyWay(s.vm[1], s.vm[2], 5001), s.everyWay(s.vm[2], s.vm[3], 5005)
			changed := time.Now()
			for _, p := range c.remove {
				s.tapwall("delete", "policy", p, "--wait")
			}
			if len(c.remove) == 1 { // the policy isolated vm2, so without it everything is allowed
				s.apply("kind: Policy\nname: q\nspec:\n  appliesTo: [{port: vm2}]\n  ingress: []\n  defaultDeny: {ingress: true}\n")
			}
			if c.after != "" {
				s.apply(c.after)
			}
			if c.survives {
				time.Sleep(time.Second)
				s.mustGoOn(doomed, changed)
			} else if name == "moved to another" { // vm2 is nobody's any more: what it had goes on, by default
				time.Sleep(time.Second)
				s.mustGoOn(doomed, changed)
			} else {
				s.mustBeCut(doomed, time.Now())
			}
			s.mustGoOn(kept, changed)
		})
	}
}

// makeStranger makes vm1 a station that is no endpoint.
func makeStranger(s *stage) {
	_, err := s.Vsctl("clear", "interface", "vm1", "external_ids")
	must(s.t, err)
}

// A machine that is plugged again, under another port number, has its rules and nothing of its old connections is hurt that is still
// allowed; under another address it is another machine.
func TestAttackReplug(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001") + "---" + allowPorts("kept", "vm3", "vm2", "5005"))
	live, kept := s.everyWay(s.vm[1], s.vm[2], 5001), s.everyWay(s.vm[2], s.vm[3], 5005)
	before, err := s.Vsctl("get", "interface", "vm1", "ofport")
	must(t, err)
	changed := time.Now()
	must(t, s.Unplug(s.vm[1]))
	must(t, s.Plug(s.vm[1], "ofport=none"))
	_, err = s.Vsctl("set", "interface", "vm1", "ofport_request=77")
	must(t, err)
	lab.Eventually(t, 5*time.Second, "the port has another number", func() bool {
		now, err := s.Vsctl("get", "interface", "vm1", "ofport")
		return err == nil && now != before
	})
	now := time.Now()
	lab.Eventually(t, 5*time.Second, "datagrams and streams go on", func() bool {
		return live.probes["datagrams"].ReceivedSince(now) > 20 && live.probes["push"].ReceivedSince(now) > 20
	})
	s.mustGoOn(kept, changed)
	// The same port with another station behind it.
	_, err = s.Vsctl("set", "interface", "vm1", `external_ids:attached-mac="02:77:00:00:00:77"`, "external_ids:iface-id=somebody-else")
	must(t, err)
	s.apply(allowPorts("p", "vm2", "vm3", "5001"))
	s.mustBeCut(live, time.Now())
	s.mustGoOn(kept, changed)
}

// A policy that goes from one machine to another and back leaves each time exactly what is allowed.
func TestAttackPolicyMovedAndBack(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	isolate := "kind: Policy\nname: base\nspec:\n  tier: baseline\n  appliesTo: [{port: vm2}, {port: vm3}]\n  ingress: []\n  defaultDeny: " +
		"{ingress: true}\n---"
	s.applyUncached(isolate + allowPorts("p", "vm2", "vm1", "5001"))
	two := s.everyWay(s.vm[1], s.vm[2], 5001)
	s.apply(allowPorts("p", "vm3", "vm1", "5001"))
	s.mustBeCut(two, time.Now())
	three := s.everyWay(s.vm[1], s.vm[3], 5001)
	t0 := s.apply(allowPorts("p", "vm2", "vm1", "5001"))
	s.mustBeCut(three, time.Now())
	lab.Eventually(t, 8*time.Second, "what stood still goes on", func() bool {
		for _, p := range two.probes {
			if p.ReceivedSince(t0) < 20 {
				return false
			}
		}
		return true
	})
}

// Tricks with the life of a connection: a tuple used again, a segment that ends a connection, both sides that open at once, an ICMP id
// used again.
func TestAttackConnectionReuse(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001-5002"))
	a, b := s.vm[1], s.vm[2]
	in := s.inbox(b, 6001)
	udp := s.datagrams(a, b, 5001, 10*time.Millisecond)
	ping, err := s.SpawnIn(a.NS, "ping", "ping", "-i", "0.2", "-e", "4242", b.IPv4)
	must(t, err)
	defer lab.Kill(ping)
	s.running(udp)
	echo := s.echo(a, b, 5001)
	s.running(echo)
	capture, err := s.Capture(b.NS, "eth0")
	must(t, err)
	time.Sleep(200 * time.Millisecond)
	if n := len(capture.Frames(lab.ICMP)); n > 0 {
		t.Errorf("%d pings reached a machine that allows none", n)
	}
	// The tuple of a closed connection, under rules that allow it no more.
	c, err := a.Dial("tcp", b.IPv4, 5002, time.Second)
	must(t, err)
	tuple := c.LocalAddr().String()
	port := 0
	if _, p, ok := strings.Cut(tuple, ":"); ok {
		for _, d := range p {
			port = port*10 + int(d-'0')
		}
	}
	_ = c.Close()
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001"))
	arrived := func() int { return len(capture.Frames(lab.TCPFrom(uint16(port)))) }
	before := arrived()
	for _, flags := range []byte{0x02, 0x10, 0x11, 0x04, 0x14, 0x18, 0x12, 0x00, 0x3f} { // SYN, ACK, FIN, RST…
		must(t, a.SendTCP(b, uint16(port), 5002, flags))
	}
	time.Sleep(passage)
	if n := arrived() - before; n > 0 {
		t.Errorf("%d segments of a closed and forbidden connection got through", n)
	}
	// Both open: vm2 may call vm1, vm1 may not call vm2 at the port from which vm2 called.
	must(t, a.SendTCP(b, 7000, 7001, 0x02))
	must(t, b.SendTCP(a, 7001, 7000, 0x02))
	time.Sleep(50 * time.Millisecond)
	s.applyUncached("kind: Policy\nname: out\nspec:\n  appliesTo: [{port: vm2}]\n  egress: []\n  defaultDeny: {egress: true}\n")
	before = len(capture.Frames(lab.TCPFrom(7000)))
	for _, flags := range []byte{0x02, 0x12, 0x10, 0x18} {
		must(t, a.SendTCP(b, 7000, 7001, flags))
	}
	// What only one side sends stays new for conntrack, and is judged packet by packet.
	s.tell(a, b, nil, b.MAC, a.IPv4, b.IPv4, 4444, 6001, "denied")
	time.Sleep(passage)
	s.misses(in, "denied")
	if n := len(capture.Frames(lab.TCPFrom(7000))) - before; n > 0 {
		t.Errorf("%d segments of a revoked simultaneous open got through", n)
	}
	s.lossless(echo, "a connection that is allowed all the time")
	s.lossless(udp, "datagrams that are allowed all the time")
}

// Nothing binds an IP address to a port, but a connection is bound to its two ends: a machine that knows both ends of a live connection
// cannot send into it under the sender's name.
func TestAttackInjection(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	s.applyUncached(onlyPort6001)
	in := s.inbox(s.vm[2], 6001)
	friend, victim, liar := s.vm[1], s.vm[2], s.vm[3]
	s.tell(liar, victim, nil, victim.MAC, friend.IPv4, victim.IPv4, 4000, 6001, "new under a false name")
	s.tell(friend, victim, nil, victim.MAC, friend.IPv4, victim.IPv4, 4000, 6001, "true")
	s.arrives(in, "true")
	s.tell(liar, victim, nil, victim.MAC, friend.IPv4, victim.IPv4, 4000, 6001, "one way under a false name")
	s.tell(victim, friend, nil, friend.MAC, victim.IPv4, friend.IPv4, 6001, 4000, "answer")
	lab.Eventually(t, 3*time.Second, "the connection is established", func() bool { return len(s.conntrack("sport=4000", "dport=6001")) > 0 })
	time.Sleep(passage)
	s.misses(in, "new under a false name")
	s.misses(in, "one way under a false name")
	s.tell(liar, victim, nil, victim.MAC, friend.IPv4, victim.IPv4, 4000, 6001, "into a live connection")
	s.tell(friend, victim, nil, victim.MAC, friend.IPv4, victim.IPv4, 4000, 6001, "true again")
	s.arrives(in, "true again")
	time.Sleep(passage)
	s.misses(in, "into a live connection")
}
