package wall_test

import (
	"fmt"
	"testing"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// TestFold: each packet to an endpoint meets the clauses that it has in common with all rules of the endpoint, and the classifier of Open
// vSwitch walks all of them. So there is none, as long as the endpoints of the rules are few.
func TestFold(t *testing.T) {
	l := newLab(t, "a", "peer")
	const rules, networks = 30, 4
	service := func(i int) []policy.Service { return tcp(fmt.Sprint(1000+i), fmt.Sprint(2000+i), fmt.Sprint(3000+i)) }
	fill := func(s *policy.PolicySpec) {
		for i := range rules {
			r := policy.Rule{Name: fmt.Sprint("r", i), Action: policy.Allow, From: []policy.Selector{app("peer")}, Services: service(i)}
			for n := range networks {
				r.From = append(r.From, cidr(fmt.Sprintf("10.%d.%d.0/24", i, n))...)
			}
			s.Ingress = append(s.Ingress, r)
		}
	}
	count := func() (flows, alone int) {
		for _, f := range l.owners["policy/many"] {
			if f.Table != pipeline.TableIngress {
				continue
			}
			flows++
			if class, _ := f.Match.Get(pipeline.DestinationClass.Field); isClause(f) && len(f.Match) == 1 &&
				class.Mask == flow.U64(0xfff00000) {
				alone++
			}
		}
		return flows, alone
	}
	l.put("many", fill)
	// Of each rule a class and four networks, three ports, raw and so in IPv4 and IPv6, and what decides.
	if flows, alone := count(); alone != 0 || flows != rules*(1+networks+3*2+1) {
		t.Errorf("%d flows, of which %d are clauses of the class alone", flows, alone)
	}
	// The clauses with each of several classes, of blocks of their own, would be many.
	l.vm(2, "c")
	l.vm(3, "d")
	l.tell()
	for _, name := range []string{"c", "d"} {
		l.put(name, func(s *policy.PolicySpec) {
			s.AppliesTo, s.Ingress = []policy.Selector{app(name)}, []policy.Rule{{Name: "x", Action: policy.Allow, Services: tcp("22")}}
		})
	}
	l.put("many", func(s *policy.PolicySpec) {
		s.AppliesTo = append(s.AppliesTo, app("c"), app("d"))
		fill(s)
	})
	if flows, alone := count(); alone == 0 || flows != rules*(3+1+networks+3*2+1) {
		t.Errorf("%d flows, of which %d are clauses of a class alone", flows, alone)
	}
	if n := l.fw.Usage()[6]; n.Limit != "ingress-conjunctions" || n.Used != rules {
		t.Errorf("%+v, want %d", n, rules)
	}
}
