package wall_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// lab builds small worlds by hand.
type lab struct{ *world }

func newLab(t *testing.T, apps ...string) lab {
	l := lab{newWorld(t)}
	for i, app := range apps {
		l.vm(i, app)
	}
	l.tell()
	return l
}

// vm sets workload number i.
func (l lab) vm(i int, app string) {
	key := fmt.Sprint("w", i)
	l.workloads[key] = &policy.Workload{
		Key: key, Bridge: "br0", Port: "tap-" + key, OFPort: uint32(i + 1), MAC: macOf(key), Labels: map[string]string{"app": app},
	}
}

// edit changes workload number i, which is immutable, in a copy.
func (l lab) edit(i int, change func(*policy.Workload)) {
	w := *l.workloads[fmt.Sprint("w", i)]
	change(&w)
	l.workloads[w.Key] = &w
	l.tell()
}

// put sets a policy for app=a and compiles.
func (l lab) put(name string, change func(*policy.PolicySpec)) wall.Changes {
	p := &policy.Policy{Meta: policy.Meta{Name: name}, Spec: policy.PolicySpec{AppliesTo: []policy.Selector{app("a")}}}
	change(&p.Spec)
	l.policies[name] = p
	l.fw.SetPolicy(p)
	return l.compile()
}

func app(v string) policy.Selector { return policy.Selector{Labels: map[string]string{"app": v}} }

// class returns what is persisted of the class of an endpoint.
func (l lab) class(key string) wall.ClassAssignment {
	return l.assignments.Classes[l.assignments.Endpoints[key].Class]
}

// rule returns the id of a rule, 0 without flows.
func (l lab) rule(policy, name string) uint32 {
	l.t.Helper()
	s := l.states[policy]
	if s == nil {
		l.t.Fatalf("no policy %s", policy)
	}
	for _, r := range s.Rules {
		if r.Ref.Rule == name {
			return r.ID
		}
	}
	l.t.Fatalf("no rule %s of %s", name, policy)
	return 0
}

func tcp(ports ...string) []policy.Service { return []policy.Service{{Protocol: "tcp", Ports: ports}} }

func cidr(s string) []policy.Selector { return []policy.Selector{{CIDR: s}} }

// TestRevision holds what gives an allow a new id and what does not. Each row changes a policy with the rules
//
//	allow: ingress from 10.0.0.0/24, tcp 80-99
//	deny:  ingress from 10.0.0.9/32, tcp 22, at a later priority than allow
//
// of app=a (w0, w1); w2 is app=b.
func TestRevision(t *testing.T) {
	base := func(s *policy.PolicySpec) {
		s.Ingress = []policy.Rule{{Name: "allow", Action: policy.Allow, From: cidr("10.0.0.0/24"), Services: tcp("80-99")}}
	}
	later := func(change func(*policy.PolicySpec)) func(*policy.PolicySpec) {
		return func(s *policy.PolicySpec) {
			n := 200
			s.Priority = &n
			s.Ingress = []policy.Rule{{Name: "deny", Action: policy.Deny, From: cidr("10.0.0.9/32"), Services: tcp("22")}}
			change(s)
		}
	}
	priority := func(n int) func(*policy.PolicySpec) {
		return func(s *policy.PolicySpec) { s.Priority = &n }
	}
	nothing := func(*policy.PolicySpec) {}
	for _, c := range []struct {
		name    string
		change  func(l lab)
		renewed bool
		moved   string // the endpoints that have another id afterwards
	}{
		{"same again", func(l lab) { l.put("one", base) }, false, ""},
		{"log", func(l lab) { l.put("one", func(s *policy.PolicySpec) { base(s); s.Ingress[0].Log.All = true }) }, false, ""},
		{"sample", func(l lab) { l.put("one", func(s *policy.PolicySpec) { base(s); s.Ingress[0].Log.Sample = "1/4" }) }, true, ""},
		{"wider service", func(l lab) {
			l.put("one", func(s *policy.PolicySpec) { base(s); s.Ingress[0].Services = tcp("80-100", "22") })
		}, false, ""},
		{"every service", func(l lab) { l.put("one", func(s *policy.PolicySpec) { base(s); s.Ingress[0].Services = nil }) }, false, ""},
		{"narrower service", func(l lab) {
			l.put("one", func(s *policy.PolicySpec) { base(s); s.Ingress[0].Services = tcp("80-98") })
		}, true, ""},
		{"other service", func(l lab) {
			l.put("one", func(s *policy.PolicySpec) { base(s); s.Ingress[0].Services[0].Protocol = "udp" })
		}, true, ""},
		{"wider peer", func(l lab) {
			l.put("one", func(s *policy.PolicySpec) { base(s); s.Ingress[0].From = cidr("10.0.0.0/23") })
		}, false, ""},
		{"same peer in two", func(l lab) {
			l.put("one", func(s *policy.PolicySpec) {
				base(s)
				s.Ingress[0].From = append(cidr("10.0.0.0/25"), cidr("10.0.0.128/25")...)
			})
		}, false, ""},
		{"every peer", func(l lab) { l.put("one", func(s *policy.PolicySpec) { base(s); s.Ingress[0].From = nil }) }, false, ""},
		{"peer with a hole", func(l lab) {
			l.put("one", func(s *policy.PolicySpec) { base(s); s.Ingress[0].From[0].Except = []string{"10.0.0.9/32"} })
		}, true, ""},
		{"one endpoint more", func(l lab) { l.vm(3, "a"); l.tell(); l.compile() }, false, ""},
		{"one endpoint less", func(l lab) { l.vm(1, "c"); l.tell(); l.compile() }, false, "w1"},
		{"endpoint deleted", func(l lab) { delete(l.workloads, "w1"); l.tell(); l.compile() }, false, "w1"},
		{"endpoint with another MAC", func(l lab) {
			l.edit(1, func(w *policy.Workload) { w.MAC = macOf("w8") })
			l.compile()
		}, false, "w1"},
		{"endpoint on another port", func(l lab) { l.edit(1, func(w *policy.Workload) { w.OFPort = 77 }); l.compile() }, false, ""},
		{"another allow above", func(l lab) {
			l.put("two", func(s *policy.PolicySpec) {
				priority(50)(s)
				s.Ingress = []policy.Rule{{Name: "x", Action: policy.Allow}}
			})
		}, false, ""},
		{"new deny above", func(l lab) {
			l.put("two", func(s *policy.PolicySpec) {
				s.Ingress = []policy.Rule{{Name: "x", Action: policy.Deny, From: cidr("10.0.0.7/32")}}
			})
		}, true, ""},
		{"new deny above beside it", func(l lab) {
			l.put("two", func(s *policy.PolicySpec) {
				s.Ingress = []policy.Rule{{Name: "x", Action: policy.Deny, From: cidr("10.0.1.0/24")}}
			})
		}, false, ""},
		{"new deny above for others", func(l lab) {
			l.put("two", func(s *policy.PolicySpec) {
				s.AppliesTo = []policy.Selector{app("b")}
				s.Ingress = []policy.Rule{{Name: "x", Action: policy.Deny}}
			})
		}, false, "w2"},
		{"new deny in the other direction", func(l lab) {
			l.put("two", func(s *policy.PolicySpec) { s.Egress = []policy.Rule{{Name: "x", Action: policy.Deny}} })
		}, false, "w0 w1"},
		{"deny below widened", func(l lab) {
			l.put("later", later(func(s *policy.PolicySpec) { s.Ingress[0].Services = nil; s.Ingress[0].From = nil }))
		}, false, ""},
		{"deny raised beside it", func(l lab) { l.put("later", later(priority(50))) }, false, ""},
		{"deny raised and widened", func(l lab) {
			l.put("later", later(func(s *policy.PolicySpec) { priority(50)(s); s.Ingress[0].Services = nil }))
		}, true, ""},
		{"allow lowered below a deny beside it", func(l lab) {
			l.put("one", func(s *policy.PolicySpec) { base(s); priority(300)(s) })
		}, false, ""},
		{"allow lowered below a deny that meets it", func(l lab) {
			l.put("later", later(func(s *policy.PolicySpec) { s.Ingress[0].Services = nil }))
			l.put("one", func(s *policy.PolicySpec) { base(s); priority(300)(s) })
		}, true, ""},
		{"deny that meets it raised", func(l lab) {
			l.put("later", later(func(s *policy.PolicySpec) { s.Ingress[0].Services = nil }))
			l.put("later", later(func(s *policy.PolicySpec) { s.Ingress[0].Services = nil; priority(50)(s) }))
		}, true, ""},
		{"deny by label whose endpoint appears", func(l lab) {
			l.put("two", func(s *policy.PolicySpec) {
				s.Ingress = []policy.Rule{{Name: "x", Action: policy.Deny, From: []policy.Selector{app("bad")}}}
			})
			l.vm(4, "bad")
			l.tell()
			l.compile()
		}, false, ""},
		{"deny by label that an endpoint gets", func(l lab) {
			l.put("two", func(s *policy.PolicySpec) {
				s.Ingress = []policy.Rule{{Name: "x", Action: policy.Deny, From: []policy.Selector{app("bad")}}}
			})
			l.vm(2, "bad")
			l.tell()
			l.compile()
		}, false, "w2"},
		{"rank changed and back in one go", func(l lab) {
			l.put("one", func(s *policy.PolicySpec) { base(s); nothing(s) })
		}, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, "a", "a", "b")
			l.put("one", base)
			l.put("later", later(nothing))
			before, endpoints := l.rule("one", "allow"), maps.Clone(l.assignments.Endpoints)
			c.change(l)
			for key, e := range endpoints {
				if after := l.assignments.Endpoints[key].ID; (after != e.ID) != strings.Contains(c.moved, key) {
					t.Errorf("endpoint %s had id %d and has %d", key, e.ID, after)
				}
			}
			if after := l.rule("one", "allow"); (after != before) != c.renewed {
				t.Errorf("id %d is now %d, want renewed %v", before, after, c.renewed)
			}
			if info, _ := l.fw.Rule(before); info.Removed != c.renewed || info.Ref.Rule != "allow" {
				t.Errorf("the old id stands for %+v", info)
			}
		})
	}
}

// Rules that lose at once get their new ids in the order of their names, so that a plan, which compiles apart, speaks of the ids that come.
func TestRevisionOfManyIsInOrder(t *testing.T) {
	l := newLab(t, "a")
	group := func(cidrs ...string) {
		g := &policy.Group{Meta: policy.Meta{Name: "g"}}
		for _, c := range cidrs {
			g.Spec.Members = append(g.Spec.Members, policy.Selector{CIDR: c})
		}
		l.groups["g"] = g
		l.tell()
	}
	group("10.0.0.0/24", "10.0.1.0/24")
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, name := range names {
		l.put(name, func(s *policy.PolicySpec) {
			s.Ingress = []policy.Rule{{Name: "in", Action: policy.Allow, From: []policy.Selector{{Group: "g"}}, Services: tcp("80")}}
		})
	}
	before := l.rule("h", "in")
	group("10.0.0.0/24")
	l.compile()
	last := before
	for _, name := range names {
		id := l.rule(name, "in")
		if id <= last {
			t.Errorf("%s got %d after %d", name, id, last)
		}
		last = id
	}
}
