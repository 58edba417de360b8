package policy_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/policy"
)

// TestMemberEditRandom holds the edit of a group to what it means for the set of its members, and the change that it tells to the lists.
func TestMemberEditRandom(t *testing.T) {
	selector := rapid.Custom(func(t *rapid.T) policy.Selector {
		n := rapid.IntRange(0, 9).Draw(t, "n")
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			return policy.Selector{VM: fmt.Sprint("vm", n)}
		case 1:
			return policy.Selector{CIDR: fmt.Sprintf("2001:db8:%x::/48", n)}
		case 2:
			return policy.Selector{CIDR: fmt.Sprintf("2001:DB8:%X:0::/48", n)}
		case 3:
			return policy.Selector{CIDR: "10.0.0.0/8", Except: []string{fmt.Sprintf("10.%d.0.0/16", n)}}
		}
		return policy.Selector{CIDR: fmt.Sprintf("10.%d.0.0/16", n)}
	})
	name := func(s policy.Selector) string {
		if p, err := policy.ParseCIDR(s.CIDR); err == nil && s.Except == nil {
			return p.String()
		}
		return s.String()
	}
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(selector, 0, 12)
		g := &policy.Group{Spec: policy.GroupSpec{Members: list.Draw(t, "members")}}
		e := policy.MemberEdit{Add: list.Draw(t, "add"), Remove: list.Draw(t, "remove")}
		if len(e.Validate()) > 0 {
			t.Skip("it is added and removed")
		}
		before := slices.Clone(g.Spec.Members)
		out, n, addedAt := g.Edit(e)
		if !slices.EqualFunc(before, g.Spec.Members, func(a, b policy.Selector) bool { return a.String() == b.String() }) {
			t.Fatal("the group itself has changed")
		}
		want := map[string]bool{}
		for _, s := range slices.Concat(before, e.Add) {
			want[name(s)] = true
		}
		for _, s := range e.Remove {
			delete(want, name(s))
		}
		got := map[string]bool{}
		for _, s := range out.Spec.Members {
			got[name(s)] = true
		}
		if len(got) != len(want) {
			t.Fatalf("it has %v, not %v", got, want)
		}
		for s := range want {
			if !got[s] {
				t.Fatalf("it lacks %s", s)
			}
		}
		if n.Added != len(addedAt) || n.Added+n.Present != len(e.Add) || len(out.Spec.Members) != len(before)+n.Added-n.Removed ||
			n.Added+n.Removed == 0 && out != g {
			t.Fatalf("%+v of %d", n, len(before))
		}
		c, ok := out.Spec.Since(&g.Spec)
		if ok != (len(before) > 0) {
			t.Fatalf("what changed is known: %t", ok)
		}
		if ok && (len(c.Added) != n.Added || len(c.Removed) != n.Removed) {
			t.Fatalf("it was told to have changed by %+v", c)
		}
		if other := (&policy.GroupSpec{Members: before}); ok && len(out.Spec.Members) > 0 {
			if _, known := out.Spec.Since(other); known {
				t.Fatal("it is said to have come from another list")
			}
		}
	})
}
