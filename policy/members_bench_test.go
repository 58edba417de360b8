package policy_test

import (
	"fmt"
	"testing"

	"github.com/tapwall/tapwall/policy"
)

// BenchmarkMemberEdit exchanges 100 of 100,000 members.
func BenchmarkMemberEdit(b *testing.B) {
	at := func(i int) policy.Selector {
		return policy.Selector{CIDR: fmt.Sprintf("%d.%d.%d.%d/32", 20+i>>24, i>>16&255, i>>8&255, i&255)}
	}
	g := &policy.Group{}
	for i := range 100_000 {
		g.Spec.Members = append(g.Spec.Members, at(i))
	}
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		var e policy.MemberEdit
		for i := range 100 {
			e.Add, e.Remove = append(e.Add, at(100_000+n+i)), append(e.Remove, at(n+i))
		}
		n += 100
		g, _, _ = g.Edit(e)
	}
}

// BenchmarkCheckGroup reads a group of 100,000 members.
func BenchmarkCheckGroup(b *testing.B) {
	text := []byte(`{"kind":"Group","name":"feed","spec":{"members":[`)
	for i := range 100_000 {
		if i > 0 {
			text = append(text, ',')
		}
		text = fmt.Appendf(text, `{"cidr":"%d.%d.%d.%d/32"}`, 20+i>>24, i>>16&255, i>>8&255, i&255)
	}
	text = append(text, `]}}`...)
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, faults := policy.CheckJSON(policy.KindGroup, text); len(faults) > 0 {
			b.Fatal(faults)
		}
	}
}
