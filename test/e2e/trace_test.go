package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/test/lab"
)

// traced runs `tapwall trace`; the switch has to agree.
func (s *stage) traced(args string) client.Trace {
	s.t.Helper()
	var out client.Trace
	must(s.t, json.Unmarshal([]byte(s.tapwall(append([]string{"trace", "-o", "json"}, strings.Fields(args)...)...)), &out))
	for _, x := range out.Crossings {
		if x.Probe == nil || !x.Probe.Agrees {
			s.t.Errorf("trace %s: the switch %+v; notes %q", args, x.Probe, x.Notes)
		}
	}
	return out
}

const tracePolicies = connectionsPolicies + `
---
kind: Policy
name: shut
spec:
  tier: security
  appliesTo: [{port: vm3}]
  defaultDeny: {ingress: false, log: false}
  ingress:
  - {name: no-5003, action: deny, from: [{port: vm2}], services: [{protocol: tcp, ports: ["5003"]}], log: true}
`

// Why a packet passes, and why another does not, in words and by any name.
func TestTraceExplains(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.apply(strings.Replace(tracePolicies, ", log: false", "", 1))
	words := func(args string, want ...string) {
		t.Helper()
		out := s.tapwall(append([]string{"trace"}, strings.Fields(args)...)...)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("trace %s: without %q:\n%s", args, w, out)
			}
		}
	}
	words("vm1 db tcp 5001", "tcp vm1 192.0.2.1:", "-> db 192.0.2.2:5001: allowed", "egress of vm1: allow by out/egress/to-db",
		"policies: out (application 100)", "matches: allow out/egress/to-db (application 100, decides)",
		"ingress of db: allow by data/ingress/sql",
		"policies: data (application 100, isolates)", "the switch: allow", "EGRESS", "out/egress/to-db", "COMMIT", "EXIT",
		"the address of vm1 is not known")
	words("vm1 vm2 tcp 5432 --from-ip 10.77.0.1 --to-ip 10.77.0.2", "vm1 10.77.0.1:", "denied",
		"ingress of db: deny by data/ingress/default-deny",
		"ingress of db: no rule allows tcp 5432 from vm1, and policy data isolates it. Add a rule that allows it, to policy data",
		"rule data/ingress/sql allows vm1, but only tcp 5001", "the switch: deny")
	words("vm3 uuid-vm2 udp 5002", "rule data/ingress/dns allows udp 5002, but vm3 is not among those that it names")
	words("vm2 br0/vm3 tcp 5003",
		"ingress of vm3: shut/ingress/no-5003 denies it. Change or delete that rule, or allow tcp 5003 from db ahead of it",
		"in a higher tier than security, or in that tier with a priority below 100", "egress of db: allow by egress/default-allow")
	words(s.vm[1].MAC+" db", "icmp type 8 code 0", "allow by data/ingress/ping")
	words("vm1 db --family 6", "icmpv6 type 128", "2001:db8::1", "allow by data/ingress/ping")
	words("203.0.113.9 db tcp 5001 -o wide", "egress: the sender is no endpoint", "denied", "as the policies say",
		"rule data/ingress/sql allows tcp 5001, but 203.0.113.9 is not among those that it names", "table=206")
	words("vm1 203.0.113.9 sctp 3868", "ingress: the receiver is no endpoint", "allowed")
	words("vm1 db icmp --type 3", "conntrack takes icmp type 3 for the first packet of nothing", "denied", "as its flows say")
	if out := s.refused("", "trace", "vm1", "nobody", "tcp", "1"); !strings.Contains(out, "nobody") {
		t.Error(out)
	}
	s.refused("", "trace", "10.1.1.1", "10.1.1.2", "tcp", "1")

	// What was said to be needed is what is needed, and a change is traced as soon as it is installed.
	s.apply("kind: Policy\nname: extra\nspec:\n  appliesTo: [{port: vm2}]\n  ingress: [{name: pg, action: allow, from: [{port: vm1}], " +
		"services: " +
		"[{protocol: tcp, ports: [\"5432\"]}]}]\n")
	words("vm1 db tcp 5432", "allowed", "ingress of db: allow by extra/ingress/pg", "policies: data (application 100, isolates), extra (")
}

// A probe leaves nothing behind: not with the receiver, not in conntrack, not in counters and not in the record.
func TestTraceTouchesNothing(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.applyUncached(strings.Replace(tracePolicies, ", log: false", "", 1))
	s.pickupClosed()
	p := s.datagrams(s.vm[1], s.vm[2], 5002, 20*time.Millisecond)
	q := s.echo(s.vm[1], s.vm[2], 5001)
	s.running(p, q)
	live := s.listed("--to-port", "5001")[0]
	wire, err := s.Capture(s.vm[3].NS, "eth0")
	must(t, err)
	events := s.metric("tapwall_events_total{verdict=\"DROPPED\"}")
	for range 5 {
		s.traced("vm2 vm3 tcp 5003") // denied, with a record
		s.traced("vm1 vm3 udp 5000")
		s.traced("vm1 vm3 tcp 5003")
		s.traced(fmt.Sprintf("vm1 vm2 tcp 5001 --from-ip %s --to-ip %s --from-port %d", s.vm[1].IPv4, s.vm[2].IPv4, live.Source.Port))
	}
	for _, reaches := range []func(lab.Frame) bool{lab.TCPTo(5003), lab.UDPTo(5000)} {
		if n := len(wire.Frames(reaches)); n > 0 {
			t.Errorf("vm3 received %d probes", n)
		}
	}
	if es := s.conntrack("192.0.2."); len(es) > 0 {
		t.Errorf("connections were made: %+v", es)
	}
	if now := s.listed("--to-port", "5001"); len(now) != 1 || now[0].Label != live.Label || now[0].State != live.State {
		t.Errorf("the live connection was %+v and is %+v", live, now)
	}
	s.lossless(q, "the live connection")
	s.revalidated()
	for _, r := range []rule{s.rule("shut", "no-5003"), s.rule("data", "ping")} {
		if r.Packets != 0 {
			t.Errorf("%+v counts probes", r)
		}
	}
	if out := s.tapwall("observe", "--to", "vm3"); strings.Contains(out, "vm3") {
		t.Errorf("the record tells of probes:\n%s", out)
	}
	if n := s.metric("tapwall_events_total{verdict=\"DROPPED\"}"); n != events {
		t.Errorf("%v events more", n-events)
	}
	s.mustConnect(s.vm[1], s.vm[3].IPv4, 5003)
	lab.Eventually(t, 5*time.Second, "what is real reaches vm3", func() bool { return len(wire.Frames(lab.TCPTo(5003))) > 0 })
	if s.vm[2].CanConnect(s.vm[3].IPv4, 5003, 300*time.Millisecond) {
		t.Error("vm2 can connect to vm3")
	}
	lab.Eventually(t, 5*time.Second, "what is real is counted and recorded", func() bool {
		return s.rule("shut", "no-5003").Packets > 0 && strings.Contains(s.tapwall("observe", "--to", "vm3"), "no-5003")
	})
}

// What trace says of a connection is what the record says of a real one.
func TestTraceAgreesWithObserve(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.apply(`
kind: Policy
name: in
spec:
  appliesTo: [{port: vm2}, {port: vm3}]
  defaultDeny: {ingress: true, log: true}
  ingress:
  - {name: from-1, action: allow, from: [{port: vm1}], services: [{protocol: tcp, ports: ["5001-5003"]}], log: true}
  - {name: by-address, action: allow, from: [{cidr: 10.77.0.2/31}], services: [{protocol: tcp, ports: ["5004"]}], log: true}
---
kind: Policy
name: first
spec:
  tier: security
  appliesTo: [{port: vm2}]
  defaultDeny: {ingress: false}
  ingress:
  - {name: to-owners, action: pass, from: [{port: vm1}], services: [{protocol: tcp, ports: ["5001"]}]}
  - {name: no-5002, action: deny, services: [{protocol: tcp, ports: ["5002"]}], log: true}
---
kind: Policy
name: tried
spec:
  mode: audit
  appliesTo: [{port: vm3}]
  defaultDeny: {ingress: false}
  ingress:
  - {name: no-5003, action: deny, services: [{protocol: tcp, ports: ["5003"]}]}
---
kind: Policy
name: out
spec:
  appliesTo: [{port: vm3}]
  defaultDeny: {egress: false}
  egress:
  - {name: not-to-1, action: deny, to: [{port: vm1}], log: true}
  - {name: rest, action: allow, log: true}
`)
	verdicts := map[string]int{}
	for from := 1; from <= 3; from++ {
		for to := 1; to <= 3; to++ {
			for port := 5000; port <= 5004 && from != to; port++ {
				for _, v6 := range []bool{false, true} {
					src, dst := s.vm[from].IPv4, s.vm[to].IPv4
					if v6 {
						src, dst = s.vm[from].IPv6, s.vm[to].IPv6
					}
					x := s.traced(fmt.Sprintf("vm%d vm%d tcp %d --from-ip %s --to-ip %s", from, to, port, src, dst)).Crossings[0]
					c, err := s.vm[from].Dial("tcp", dst, port, 150*time.Millisecond)
					if err == nil {
						_ = c.Close()
					}
					what := fmt.Sprintf("vm%d to vm%d port %d, IPv6 %v", from, to, port, v6)
					if passes := x.Verdict == "allow" || x.Verdict == "audit"; passes != (err == nil) {
						t.Errorf("%s: trace says %s, and the connection: %v", what, x.Verdict, err)
					}
					verdicts[x.Verdict]++
					s.sameAsRecorded(what, x, src, dst, port)
				}
			}
		}
	}
	t.Log(verdicts)
	if verdicts["allow"] < 10 || verdicts["deny"] < 10 || verdicts["audit"] < 2 {
		t.Errorf("%v: too one-sided", verdicts)
	}
}

// sameAsRecorded compares a trace with what is recorded of a real connection: one event, that names who decided about both sides, or who
// would have denied it.
func (s *stage) sameAsRecorded(what string, x client.TraceCrossing, src, dst string, port int) {
	s.t.Helper()
	passes := func(side client.TraceSide) bool { return side.Effect == "allow" || side.Effect == "audit" }
	id := func(r *event.Rule) string {
		if r == nil {
			return ""
		}
		return strings.TrimPrefix(r.ID, "/") // of a default allow
	}
	want := map[string]bool{}
	tell := func(v event.Verdict, rule string) {
		ingress := x.Ingress.Rule
		if !passes(x.Egress) {
			ingress = ""
		}
		want[fmt.Sprintf("%s %s of %s and %s", v, rule, x.Egress.Rule, ingress)] = true
	}
	for _, side := range []client.TraceSide{x.Egress, x.Ingress} {
		if side.Audited != "" {
			tell(event.Audit, side.Audited)
		}
		if !passes(side) {
			tell(event.Dropped, side.Rule)
			break
		}
	}
	if len(want) == 0 {
		rule := x.Ingress.Rule
		if strings.HasSuffix(rule, "default-allow") && !strings.HasSuffix(x.Egress.Rule, "default-allow") {
			rule = x.Egress.Rule
		}
		tell(event.Forwarded, rule)
	}
	var got map[string]bool
	defer func() {
		if s.t.Failed() {
			s.t.Logf("recorded %v, want %v", got, want)
		}
	}()
	lab.Eventually(s.t, 5*time.Second, what+" is recorded as it was traced", func() bool {
		got = map[string]bool{}
		for line := range strings.Lines(s.tapwall("observe", "--last", "100", "--from-ip", src, "--to-ip", dst, "--to-port", fmt.Sprint(port),
			"-o", "json")) {
			var e event.Event
			if strings.HasPrefix(line, "{") { // else how far back the record goes
				must(s.t, json.Unmarshal([]byte(line), &e))
				got[fmt.Sprintf("%s %s of %s and %s", e.Tapwall.Verdict, id(e.Rule), id(e.Tapwall.EgressRule), id(e.Tapwall.IngressRule))] = true
			}
		}
		return fmt.Sprint(got) == fmt.Sprint(want)
	})
}
