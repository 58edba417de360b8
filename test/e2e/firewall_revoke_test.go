package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// revoker writes the policies of one side of connections from vm1 to vm2: which direction decides, how its rules name peers, whose
// policies they are and who is the peer.
type revoker struct{ direction, peers, subject, peer string }

// rule is a logged rule for ports of udp and tcp.
func (r revoker) rule(name, action, peer, ports string) string {
	services := sprintf(`[{protocol: udp, ports: ["%[1]s"]}, {protocol: tcp, ports: ["%[1]s"]}]`, ports)
	return sprintf(`{name: %s, action: %s, log: true, %s: [%s], services: %s}`, name, action, r.peers, peer, services)
}

// policy is one that isolates nobody. rank is its tier or priority.
func (r revoker) policy(name, rank, appliesTo, rules string) string {
	return sprintf(`
kind: Policy
name: %s
spec:
  %s
  appliesTo: [%s]
  %[5]s: [%[4]s]
  defaultDeny: {%[5]s: false}
---
`, name, rank, appliesTo, rules, r.direction)
}

// isolate denies by default, and says so.
func (r revoker) isolate() string {
	return sprintf("kind: Policy\nname: base\nspec: {appliesTo: [{port: %s}], defaultDeny: {%s: true, log: true}}\n---\n", r.subject,
		r.direction)
}

func (r revoker) endpoint(vm, role string) string {
	return sprintf("kind: Endpoint\nname: e-%s\nspec: {match: {port: %[1]s}, labels: {role: %s}}\n---\n", vm, role)
}

func (r revoker) group(members string) string {
	return sprintf("kind: Group\nname: g\nspec: {members: [%s]}\n---\n", members)
}

// revocation is a change that takes away what allowed connections.
type revocation struct {
	name, before, change, remove string // remove is a policy
	by                           string // who denies from then on
	first                        bool   // what two rules allow stays with the first
	open                         bool   // nobody isolates the subject before
}

// Whatever takes away what allowed a connection ends it at once in both directions, for the policies of either side, and an event names
// who denies it now. Until then ct_label names who allows it. What another rule allows too goes on under that rule, and what only other
// rules allow loses nothing.
func TestFirewallRevocationNamesTheRule(t *testing.T) {
	t.Parallel()
	for _, r := range []revoker{{"ingress", "from", "vm2", "vm1"}, {"egress", "to", "vm1", "vm2"}} {
		t.Run(r.direction, func(t *testing.T) {
			t.Parallel()
			s := ground(t, 3)
			s.wall()
			subject, peer := "{port: "+r.subject+"}", "{port: "+r.peer+"}"
			// Ports 60xx are for what is to be cut, 61xx for what a second rule allows too.
			main := func(peer, ports string) string {
				return r.policy("p", "priority: 50", subject, r.rule("main", "allow", peer, ports))
			}
			const all, base = "6000-6199", "base/default-deny"
			always := r.isolate() + r.policy("kept", "priority: 60", subject, r.rule("kept", "allow", peer, "5001")) +
				r.policy("z", "priority: 200", subject, r.rule("second", "allow", peer, "6100-6199")) + r.endpoint(r.peer, "peer") +
				r.endpoint(r.subject, "subject") + r.group("{port: vm3}, "+peer)
			s.applyUncached(always)
			kept := s.datagrams(s.vm[1], s.vm[2], 5001, 10*time.Millisecond)
			s.running(kept)
			entry := s.names(r, "kept/kept", 5001)
			for i, c := range []revocation{
				{name: "rule deleted", before: main(peer, all), by: base,
					change: r.policy("p", "priority: 50", subject, r.rule("other", "allow", "{port: vm3}", "6200"))},
				{name: "policy deleted", before: main(peer, all), remove: "p", by: base},
				{name: "out-ranked", before: main(peer, all), by: "d/no", first: true,
					change: r.policy("d", "tier: security", subject, r.rule("no", "deny", peer, "6000-6099"))},
				{name: "turned", before: main(peer, "6000-6099"), by: "p/main", first: true,
					change: r.policy("p", "priority: 50", subject, r.rule("main", "deny", peer, "6000-6099"))},
				{name: "narrowed", before: main(peer, all), change: main(peer, "6200"), by: base},
				{name: "peer replaced", before: main(peer, all), change: main("{port: vm3}", all), by: base},
				{name: "peer's label changed", before: main("{labels: {role: peer}}", all), change: r.endpoint(r.peer, "other"), by: base},
				{name: "group member removed", before: main("{group: g}", all), change: r.group("{port: vm3}"), by: base},
				{name: "subject's label changed", by: base, change: r.endpoint(r.subject, "other"),
					before: r.policy("p", "priority: 50", "{labels: {role: subject}}", r.rule("main", "allow", peer, all))},
				{name: "isolated", change: r.isolate(), by: base, first: true, open: true},
			} {
				for _, p := range []string{"p", "d"} {
					_, _ = s.tw.Run("delete", "policy", p, "--wait")
				}
				c.before = always + c.before
				s.revoke(r, c, i)
				s.lossless(kept, c.name+": what another rule allows")
				if now := s.names(r, "kept/kept", 5001); now != entry {
					t.Errorf("%s: the entry of another rule changed from %s to %s", c.name, entry, now)
				}
			}
		})
	}
}

// revoke plays one revocation with ports of its own.
func (s *stage) revoke(r revoker, c revocation, i int) {
	s.t.Helper()
	doomed, both := 6000+i, 6100+i
	must(s.t, s.Serve(s.vm[2], doomed, both))
	s.apply(c.before)
	allowing, allowingBoth := "p/main", "p/main"
	if c.open {
		s.tapwall("delete", "policy", "base", "--wait")
		allowing = "/default-allow"
	}
	if c.open || c.name == "turned" {
		allowingBoth = "z/second"
	}
	s.revalidated()
	push, udp := s.push(s.vm[1], s.vm[2], doomed), s.datagrams(s.vm[1], s.vm[2], doomed, 10*time.Millisecond)
	stream := s.datagrams(s.vm[1], s.vm[2], both, 10*time.Millisecond)
	defer stream.Stop()
	s.running(push, udp, stream)
	s.names(r, allowing, doomed)
	s.names(r, allowingBoth, both)
	if c.remove != "" {
		s.tapwall("delete", "policy", c.remove, "--wait")
	} else {
		s.apply(c.change)
	}
	t0 := time.Now()
	s.quiet(push, t0, 300*time.Millisecond, c.name+": a stream of the server's")
	s.quiet(udp, t0, 300*time.Millisecond, c.name+": datagrams")
	push.Stop()
	udp.Stop()
	s.lossless(stream, c.name+": what a second rule allows")
	if !c.first {
		allowingBoth = "z/second"
	}
	s.names(r, allowingBoth, both) // by the id that it has now: a deny above a rule gives it another
	said := map[string]int{}
	lab.Eventually(s.t, 5*time.Second, c.name+": events tell who cut tcp and udp", func() bool {
		clear(said)
		for _, v := range s.events("--last", "5000", "--verdict", "DROPPED", "--port", sprintf("%d", doomed)) {
			said[v.Network.Transport+" "+v.Tapwall.Direction+" "+v.Rule.Ruleset+"/"+v.Rule.Name]++
		}
		return said["udp "+r.direction+" "+c.by] > 0 && said["tcp "+r.direction+" "+c.by] > 0
	})
	if len(said) != 2 {
		s.t.Errorf("%s: events name others than %s: %v", c.name, c.by, said)
	}
}

// names checks that the connections to a port of vm2 bear the id of a rule, "policy/rule", and returns their entries.
func (s *stage) names(r revoker, who string, port int) (entries string) {
	s.t.Helper()
	es := s.conntrack("orig=(src="+s.vm[1].IPv4, sprintf("dport=%d)", port))
	if len(es) == 0 {
		s.t.Errorf("no connection to port %d", port)
	}
	policy, name, _ := strings.Cut(who, "/")
	for _, e := range es {
		id := uint32(e.label)
		if r.direction == "egress" {
			id = uint32(e.label >> 32)
		}
		if policy == "" && id>>30 != 1 || policy != "" && id != s.rule(policy, name).ID {
			s.t.Errorf("the connection to port %d is not %s's: %s", port, who, e.text)
		}
		// What the rules' half of the label says stays; an end that may have lost something by another rule has a new id.
		tuple, _, _ := strings.Cut(e.text, "labels=")
		entries += sprintf("%s labels of rules %#x ", tuple, e.label)
	}
	return entries
}

// One of two machines of one kind leaves what one of two rules applies to: exactly those of its connections end that this rule alone
// allowed, those that the other allows too go on under it, and nothing becomes of the connections of the machine that stays.
func TestFirewallRevocationOfOneOfMany(t *testing.T) {
	t.Parallel()
	s := ground(t, 3)
	s.wall()
	kind := func(vm, role string) string {
		return sprintf("kind: Endpoint\nname: e-%s\nspec: {match: {port: %[1]s}, labels: {role: %s, env: prod}}\n---\n", vm, role)
	}
	s.applyUncached(kind("vm2", "web") + kind("vm3", "web") + `
kind: Policy
name: web
spec:
  priority: 50
  appliesTo: [{labels: {role: web}}]
  ingress: [{name: in, action: allow, from: [{port: vm1}], services: [{protocol: udp, ports: ["5001-5002"]}]}]
---
kind: Policy
name: prod
spec:
  appliesTo: [{labels: {env: prod}}]
  ingress: [{name: in, action: allow, from: [{port: vm1}], services: [{protocol: udp, ports: ["5002"]}]}]
`)
	type place struct{ vm, port int }
	places := []place{{2, 5001}, {2, 5002}, {3, 5001}, {3, 5002}}
	probes := map[place][]*lab.Probe{}
	const each = 100
	for range each {
		for _, at := range places {
			probes[at] = append(probes[at], s.datagrams(s.vm[1], s.vm[at.vm], at.port, 500*time.Millisecond))
		}
	}
	answered := func(at place) (n int) {
		for _, p := range probes[at] {
			if p.Received() > 0 {
				n++
			}
		}
		return n
	}
	for _, at := range places {
		lab.Eventually(t, 5*time.Second, "each connection is answered", func() bool { return answered(at) == each })
	}
	entries := func(at place) map[string]bool {
		out := map[string]bool{}
		for _, e := range s.conntrack("orig=(src="+s.vm[1].IPv4+",dst="+s.vm[at.vm].IPv4, sprintf("dport=%d)", at.port)) {
			out[e.text] = true
		}
		return out
	}
	same := func(a, b map[string]bool) (n int) {
		for e := range a {
			if b[e] {
				n++
			}
		}
		return n
	}
	before := map[place]map[string]bool{}
	for _, at := range places {
		if before[at] = entries(at); len(before[at]) != each {
			t.Fatalf("%d connections to %+v, want %d", len(before[at]), at, each)
		}
	}
	drops := func() int { return s.packets("cookie=0x7a9a1102") } // by the wall, for whatever reason
	s.revalidated()
	dropped := drops()
	s.apply(kind("vm2", "former"))
	t0 := time.Now()
	s.revalidated() // until then cached decisions may be left
	cut := time.Now()
	sent := map[*lab.Probe]int64{}
	for _, at := range places {
		for _, p := range probes[at] {
			sent[p] = p.Sent()
		}
	}
	lab.Eventually(t, 5*time.Second, "the connections of the other rule are relabelled", func() bool {
		return same(before[places[1]], entries(places[1])) == 0
	})
	lab.Eventually(t, 10*time.Second, "each connection sends twice more", func() bool {
		for p, n := range sent {
			if p.Sent() < n+2 {
				return false
			}
		}
		return true
	})
	for p := range sent {
		p.Hush()
	}
	lost := func(at place) (n int64) {
		for _, p := range probes[at] {
			n += p.Sent() - p.Received()
		}
		return n
	}
	for _, at := range places[1:] { // a busy machine may lose some on the way
		for end := time.Now().Add(time.Second); lost(at) > 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
	s.revalidated()
	if n, most := drops()-dropped, lost(places[0]); int64(n) > most {
		t.Errorf("%d packets were dropped, and the connections that were cut have sent %d", n, most)
	}
	for _, at := range places {
		after := 0
		for _, p := range probes[at] {
			after += p.ReceivedSince(cut)
			p.Stop()
		}
		now := entries(at)
		t.Logf("%+v: %d lost, %d answers later than %v, %d of %d entries as before", at, lost(at), after, cut.Sub(t0), same(before[at], now),
			len(now))
		if cutOff := at == places[0]; cutOff && after > 0 || !cutOff && after < each {
			t.Errorf("%+v: %d lost, %d answers after the change", at, lost(at), after)
		}
		if at.vm == 3 && same(before[at], now) != each {
			t.Errorf("%+v: %d of %d entries changed, though the machine stays what it was", at, each-same(before[at], now), each)
		}
	}
	id := s.rule("prod", "in").ID
	for _, e := range s.conntrack("orig=(src="+s.vm[1].IPv4+",dst="+s.vm[2].IPv4, "dport=5002)") {
		if uint32(e.label) != id {
			t.Errorf("a connection that policy prod allows is not its (%#x): %s", id, e.text)
		}
	}
	if n := s.counted("web").counters["defaultDenyIngressPackets"] + s.counted("prod").counters["defaultDenyIngressPackets"]; n < each {
		t.Errorf("%d packets of %d connections that were cut are counted as denied", n, each)
	}
}
