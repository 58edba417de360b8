package wall_test

import (
	"strings"
	"testing"

	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// TestSwitchTakesUp plays the pickup window on a switch whose conntrack is empty, in IPv4 and IPv6, under rules that name addresses (these
// match the original tuple, which a packet that is judged as a reply must have the other way round) and under rules that name endpoints:
// w0:4000 has a connection to w1:80, and who is heard first differs.
func TestSwitchTakesUp(t *testing.T) {
	both := []policy.Selector{{CIDR: "10.0.0.0/30"}, {CIDR: "fd00::/126"}}
	no := false
	open := func(s *policy.PolicySpec) { s.DefaultDeny = &policy.DefaultDeny{Ingress: &no, Egress: &no} }
	for _, c := range []struct {
		name string
		rule func(*policy.PolicySpec)
		// Whether the responder's packets pass and then the initiator's, whether his commit, and the drop of the responder's.
		responder, initiator bool
		reason               pipeline.DropReason
	}{
		{"the responder's ingress by addresses, nothing else allowed", func(s *policy.PolicySpec) {
			s.AppliesTo = []policy.Selector{app("a")}
			s.DefaultDeny = &policy.DefaultDeny{Ingress: new(true), Egress: new(true)}
			s.Ingress = []policy.Rule{{Name: "x", Action: policy.Allow, From: both, Services: tcp("80")}}
		}, true, true, 0},
		{"the initiator's egress by addresses, nothing else allowed", func(s *policy.PolicySpec) {
			s.AppliesTo = []policy.Selector{app("b")}
			s.DefaultDeny = &policy.DefaultDeny{Ingress: new(true), Egress: new(true)}
			s.Egress = []policy.Rule{{Name: "x", Action: policy.Allow, To: both, Services: tcp("80")}}
		}, true, true, 0},
		{"the initiator's egress denied by addresses, all else by default", func(s *policy.PolicySpec) {
			open(s)
			s.AppliesTo = []policy.Selector{app("b")}
			s.Egress = []policy.Rule{{Name: "x", Action: policy.Deny, To: both, Services: tcp("80")}}
		}, false, false, pipeline.DropNotTakenUp},
		{"the responder's ingress denied by endpoint, all else by default", func(s *policy.PolicySpec) {
			open(s)
			s.AppliesTo = []policy.Selector{app("a")}
			s.Ingress = []policy.Rule{{Name: "x", Action: policy.Deny, From: []policy.Selector{app("b")}, Services: tcp("80")}}
		}, false, false, pipeline.DropNotTakenUp},
		{"by source port it would be allowed", func(s *policy.PolicySpec) {
			s.AppliesTo = []policy.Selector{app("a")}
			s.DefaultDeny = &policy.DefaultDeny{Ingress: new(true), Egress: new(true)}
			s.Ingress = []policy.Rule{{Name: "x", Action: policy.Allow, From: both, Services: tcp("4000")}}
		}, false, false, pipeline.DropEgress},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, "b", "a")
			l.put("one", c.rule)
			l.fw.SetPickup(true, nil)
			l.compile()
			s := startSwitch(t, l.world)
			s.install(l.flows())
			s.settle()
			for _, v6 := range []bool{false, true} {
				forth := segment{from: 0, to: 1, srcPort: 4000, dstPort: 80, flags: ack, seq: 101, ack: 201, v6: v6}
				back := segment{from: 1, to: 0, srcPort: 80, dstPort: 4000, flags: ack, seq: 201, ack: 101, v6: v6}
				expect := func(who string, g segment, want bool) {
					t.Helper()
					if got := s.delivers(g); got != want {
						t.Fatalf("IPv6 %v, %s: delivered %v, want %v\n%s\n%s", v6, who, got, want, s.Appctl("dpctl/dump-conntrack"), s.Ofctl("dump-flows",
							"br0"))
					}
				}
				before := s.droppedFor(c.reason)
				expect("responder", back, c.responder)
				if !c.responder && s.droppedFor(c.reason) == before {
					t.Errorf("IPv6 %v: dropped, but not as %s", v6, c.reason)
				}
				if out := s.Appctl("dpctl/dump-conntrack"); strings.Contains(out, "orig=(src=10.0.0.2") || strings.Contains(out, "orig=(src=fd00::2") {
					t.Errorf("committed the wrong way round:\n%s", out)
				}
				expect("initiator", forth, c.initiator)
				if out := s.Appctl("dpctl/dump-conntrack"); c.initiator != strings.Contains(out, "sport=4000,dport=80") {
					t.Errorf("IPv6 %v: committed %v, want %v:\n%s", v6, !c.initiator, c.initiator, out)
				}
				expect("responder again", back, c.responder)
				s.Appctl("dpctl/flush-conntrack")
			}
		})
	}
}
