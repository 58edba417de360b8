package wall_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/tapwall/tapwall/ofctrl/tables"
	"github.com/tapwall/tapwall/policy"
)

// TestAttackClassesKept holds what becomes of connections that were kept: a member left group g0, which keeps, and its connection to w0
// goes on, over a restart, too. The member is w1, which is app=b, or 10.0.0.2 behind the uplink; w2 is app=b and w3 app=c.
func TestAttackClassesKept(t *testing.T) {
	no := false
	group := func(l lab, keep string, members ...policy.Selector) {
		l.groups["g0"] = &policy.Group{Meta: policy.Meta{Name: "g0"}, Spec: policy.GroupSpec{Members: members, OnMemberRemoved: keep}}
		l.tell()
	}
	rule := func(s *policy.PolicySpec) {
		s.Ingress = []policy.Rule{{Name: "r", Action: policy.Allow, From: []policy.Selector{{Group: "g0"}}}}
	}
	deny := func(n int, applies string, from ...policy.Selector) func(l lab) {
		return func(l lab) {
			l.put("deny", func(s *policy.PolicySpec) {
				s.Priority, s.AppliesTo, s.DefaultDeny = &n, []policy.Selector{app(applies)}, &policy.DefaultDeny{Ingress: &no}
				s.Ingress = []policy.Rule{{Name: "d", Action: policy.Deny, From: from}}
			})
		}
	}
	ranked := func(n int) func(l lab) {
		return func(l lab) { l.put("p", func(s *policy.PolicySpec) { rule(s); s.Priority = &n }) }
	}
	member := policy.Selector{Port: "tap-w1"}
	address := policy.Selector{CIDR: "10.0.0.2/32"}
	for _, c := range []struct {
		name    string
		leaves  policy.Selector
		stays   []policy.Selector
		before  func(l lab) // while it is a member
		then    func(l lab)
		survive bool
	}{
		{"nothing", member, []policy.Selector{app("c")}, nil, nil, true},
		{"nothing, of an address", address, []policy.Selector{app("c")}, nil, nil, true},
		{"the last member", member, nil, nil, nil, true},
		{"the last address", address, nil, nil, nil, true},
		{"the last, and another comes", member, nil, nil, func(l lab) { group(l, "keep", app("c")); l.compile() }, true},
		{"the last address, and a deny comes", address, nil, nil, deny(1, "a", address), false},
		{"the last, and a deny comes", member, nil, nil, deny(1, "a", app("b")), false},
		{"the last, and the rule is deleted", member, nil, nil, func(l lab) {
			l.put("p", func(s *policy.PolicySpec) { rule(s); s.Ingress[0].From = cidr("192.0.2.1/32") })
		}, false},
		{"the last, and the group is deleted", member, nil, nil, func(l lab) {
			delete(l.groups, "g0")
			l.tell()
			l.compile()
		}, false},
		{"a deny comes", member, []policy.Selector{app("c")}, nil, deny(1, "a", app("b")), false},
		{"a deny for all comes", member, []policy.Selector{app("c")}, nil, deny(1, "a"), false},
		{"a deny for the address", address, []policy.Selector{app("c")}, nil, deny(1, "a", address), false},
		{"a deny rises", member, []policy.Selector{app("c")}, deny(500, "a", app("b")), deny(1, "a", app("b")), false},
		{"the rule falls below a deny", member, []policy.Selector{app("c")}, deny(500, "a", app("b")), ranked(600), false},
		{"another group", member, []policy.Selector{app("c")}, nil, func(l lab) {
			l.put("p", func(s *policy.PolicySpec) { rule(s); s.Ingress[0].From = []policy.Selector{app("c")} })
		}, false},
		{"another group, of an address", address, []policy.Selector{app("c")}, nil, func(l lab) {
			l.put("p", func(s *policy.PolicySpec) { rule(s); s.Ingress[0].From = []policy.Selector{app("c")} })
		}, false},
		{"many become isolated", member, []policy.Selector{app("c")}, func(l lab) {
			for i := range 20 {
				key := fmt.Sprintf("w%x", 0x20+i)
				l.workloads[key] = &policy.Workload{Key: key, Bridge: "br0", Port: "tap-" + key, OFPort: uint32(200 + i), MAC: macOf(key),
					Labels: map[string]string{"app": "a"}}
			}
			l.tell()
			l.put("p", func(s *policy.PolicySpec) { rule(s); s.DefaultDeny = &policy.DefaultDeny{Ingress: &no} })
		}, func(l lab) {
			yes := true
			l.put("isolate", func(s *policy.PolicySpec) { s.DefaultDeny = &policy.DefaultDeny{Ingress: &yes} })
		}, false},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %v", c.name, restart), func(t *testing.T) {
				l := newLab(t, "a", "b", "b", "c")
				group(l, "keep", append(c.stays, c.leaves)...)
				l.put("p", rule)
				if c.before != nil {
					c.before(l)
				}
				x := talk{from: station{"w1"}, to: station{"w0"}, tuple: tables.Tuple{Proto: 6, SrcPort: 40000, DstPort: 80,
					Src: netip.MustParseAddr("10.0.0.2"), Dst: netip.MustParseAddr("10.0.0.1")}}
				if c.leaves.CIDR != "" {
					x.from = station{outside}
				}
				if r := l.sw.Process(l.packet(x, false, syn)); r.Committed == nil {
					t.Fatalf("refused: %v", r.Tables)
				}
				again := func() {
					if restart {
						before := texts(l.flows())
						a := l.assignments
						l.start(&a)
						if now := texts(l.flows()); fmt.Sprint(before) != fmt.Sprint(now) {
							t.Errorf("a restart changes flows")
						}
					}
				}
				passes := func(want bool, when string) {
					for _, reply := range []bool{true, false} {
						if r := l.sw.Process(l.packet(x, reply, ack)); r.Normal != want {
							t.Errorf("%s: answer %v passes: %v, want %v; %v", when, reply, r.Normal, want, r.Tables)
						}
					}
				}
				group(l, "keep", c.stays...)
				l.compile()
				if l.evaluate(x).Effect.Passes() && c.name != "many become isolated" {
					t.Fatal("still allowed")
				}
				again()
				passes(true, "kept")
				if c.then != nil {
					c.then(l)
				}
				again()
				passes(c.survive, "then")
			})
		}
	}
}
