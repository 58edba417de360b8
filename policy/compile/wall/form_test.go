package wall_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/policy"
)

// TestForm: beyond so many conjunctions of a class rules are multiplied out. What form a rule has, others do not change, nor does a
// restart.
func TestForm(t *testing.T) {
	const rules, most = 6, 2
	l := newLab(t, "a", "peer")
	l.walked, l.surplus = most, 40
	l.start(nil)
	set := func(i, service int) {
		l.put(fmt.Sprint("p", i), func(s *policy.PolicySpec) {
			from := []policy.Selector{app("peer")}
			for n := range 4 {
				from = append(from, cidr(fmt.Sprintf("10.%d.%d.0/24", i, n))...)
			}
			s.Ingress = []policy.Rule{{Name: "r", Action: policy.Allow, From: from,
				Services: tcp(fmt.Sprint(service), fmt.Sprint(service+2), fmt.Sprint(service+4))}}
		})
	}
	// conjoined says which policies' rules are conjunctions, and how many the usage says they are.
	conjoined := func() (out []int, used int) {
		for i := range rules {
			for _, f := range l.owners[fmt.Sprint("policy/p", i)] {
				if isClause(f) {
					out = append(out, i)
					break
				}
			}
		}
		return out, l.fw.Usage()[6].Used
	}
	expect := func(when string, want ...int) {
		t.Helper()
		got, used := conjoined()
		if diff := cmp.Diff(want, got); diff != "" || used != len(want) {
			t.Errorf("%s the conjunctions are those of %v (%d counted), want %v", when, got, used, want)
		}
		a := stored(t, l.assignments)
		again := (&history{world: l.world}).again(t, &a)
		for owner, diff := range diffOwners(l.owners, again.owners) {
			t.Errorf("%s a restart changes %s (-before +after):\n%s", when, owner, diff)
		}
	}
	for i := range rules {
		set(i, 1000*(i+1))
	}
	expect("at first", 0, 1)
	// Multiplied out each takes 18 flows: three ports in two IP versions by a class, and in one by four networks. A conjunction is 13.
	for i := rules; i < 3*rules; i++ {
		set(i, 1000*(i+1))
	}
	if n := l.fw.Usage()[6].Used; n != 3*rules-40/5 {
		t.Errorf("%d conjunctions where no more flows may be multiplied out", n)
	}
	for i := rules; i < 3*rules; i++ {
		name := fmt.Sprint("p", i)
		delete(l.policies, name)
		l.fw.DeletePolicy(name)
	}
	l.compile()
	before := l.owners["policy/p4"]
	delete(l.policies, "p0")
	l.fw.DeletePolicy("p0")
	l.compile()
	expect("after one is gone", 1)
	set(3, 9000)
	expect("after another names something else", 1, 3)
	set(5, 9100)
	expect("after one names something else while there are enough", 1, 3)
	if diff := cmp.Diff(texts(before), texts(l.owners["policy/p4"])); diff != "" {
		t.Errorf("a rule that nobody changed (-before +after):\n%s", diff)
	}
}
