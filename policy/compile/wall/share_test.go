package wall_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tapwall/tapwall/policy"
)

// TestShare: ten rules of a policy for thirty endpoints that are all of different classes list them once, as long as no packet can match
// two of the rules.
func TestShare(t *testing.T) {
	l := newLab(t)
	for i := range 30 {
		key := fmt.Sprint("w", i)
		l.workloads[key] = &policy.Workload{Key: key, Bridge: "br0", Port: "tap-" + key, OFPort: uint32(i + 1),
			MAC: fmt.Sprintf("52:54:00:00:00:%02x", i), Labels: map[string]string{"app": "a", "n": fmt.Sprint(i)}}
	}
	l.tell()
	for i := range 30 { // so that each is a class of its own, in no block of which all are in use
		name := fmt.Sprint("single", i)
		p := &policy.Policy{Meta: policy.Meta{Name: name}, Spec: policy.PolicySpec{
			AppliesTo: []policy.Selector{{Labels: map[string]string{"n": fmt.Sprint(i)}}}, Ingress: []policy.Rule{{Name: "x", Action: policy.Allow,
				Services: tcp("22")}}}}
		l.policies[name] = p
		l.fw.SetPolicy(p)
	}
	l.compile()
	rules := func(ports func(i int) string) func(*policy.PolicySpec) {
		return func(s *policy.PolicySpec) {
			for i := range 10 {
				s.Ingress = append(s.Ingress, policy.Rule{Name: fmt.Sprint("r", i), Action: policy.Allow, From: cidr("10.0.0.0/24"),
					Services: tcp(ports(i))})
			}
		}
	}
	count := func() (flows int, priorities map[uint16]bool) {
		priorities = map[uint16]bool{}
		for _, r := range l.states["shared"].Rules {
			priorities[r.Priority] = true
		}
		return len(l.owners["policy/shared"]), priorities
	}
	l.put("shared", rules(func(i int) string { return fmt.Sprint(1000 + i) }))
	// 30 classes, one prefix or number, and of each rule a port in two IP versions, what decides, and a gate.
	if n, at := count(); n > 30+2+10*4 || len(at) != 1 {
		t.Errorf("%d flows at priorities %v", n, at)
	}
	l.put("shared", rules(func(i int) string { return fmt.Sprintf("1000-%d", 1000+i) }))
	if n, at := count(); n < 10*30 || len(at) != 10 {
		t.Errorf("rules that overlap have %d flows at priorities %v", n, at)
	}
}

// TestRestartOfManyClasses: every endpoint is a class of its own, and policies for an eighth of them share the clauses of these. A restart
// changes nothing, whatever came to be in whatever order.
func TestRestartOfManyClasses(t *testing.T) {
	const endpoints, policies, bits = 120, 40, 12
	random := rand.New(rand.NewPCG(20, 3))
	h := &history{world: newWorld(t)}
	label := func(b int) (string, string) { return fmt.Sprint("b", b), fmt.Sprint(random.IntN(2)) }
	endpoint := func(i int) {
		key, labels := fmt.Sprint("w", i), map[string]string{}
		for b := range bits {
			k, v := label(b)
			labels[k] = v
		}
		h.workloads[key] = &policy.Workload{Key: key, Bridge: "br0", Port: "tap-" + key, OFPort: uint32(1000 + i),
			MAC: fmt.Sprintf("52:54:00:00:00:%02x", i), Labels: labels}
	}
	put := func(i int) {
		labels := map[string]string{}
		for _, b := range random.Perm(bits)[:3] {
			k, v := label(b)
			labels[k] = v
		}
		p := &policy.Policy{Meta: policy.Meta{Name: fmt.Sprint("p", i)}, Spec: policy.PolicySpec{AppliesTo: []policy.Selector{{Labels: labels}}}}
		for r := range 10 {
			p.Spec.Ingress = append(p.Spec.Ingress, policy.Rule{Name: fmt.Sprint("r", r), Action: policy.Allow,
				From: cidr(fmt.Sprintf("10.0.%d.0/24", i)), Services: tcp(fmt.Sprint(1000 + (i*10+r)%70))})
		}
		h.policies[p.Name] = p
		h.fw.SetPolicy(p)
	}
	for i := range endpoints {
		endpoint(i)
	}
	h.tell()
	h.compile()
	for i := range policies {
		if put(i); i%7 == 0 {
			h.compile()
		}
	}
	h.compile()
	if n := len(h.assignments.Classes); n < endpoints*9/10 {
		t.Fatalf("%d classes", n)
	}
	sharing := 0
	for _, s := range h.states {
		if len(s.Rules) == 10 && s.Rules[0].Priority == s.Rules[9].Priority {
			sharing++
		}
	}
	if sharing < policies/4 {
		t.Errorf("the rules of %d of %d policies share clauses", sharing, policies)
	}
	h.same(t, 0)
	for n := 1; n <= 5; n++ {
		put(random.IntN(policies))
		endpoint(random.IntN(endpoints))
		h.tell()
		h.compile()
		h.same(t, n)
	}
}
