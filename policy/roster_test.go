package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/policy"
)

// TestRosterRandom holds the roster to what it is made of, over changes of which some are known and some are not.
func TestRosterRandom(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	rapid.Check(t, func(t *rapid.T) {
		r := policy.NewRoster()
		raw := map[string]*policy.Group{}
		for step := range rapid.IntRange(1, 12).Draw(t, "steps") {
			changes := map[string]*policy.Group{}
			for range rapid.IntRange(1, 2).Draw(t, "changes") {
				at := rapid.IntRange(0, len(names)-1).Draw(t, "name")
				name := names[at]
				member := rapid.Custom(func(t *rapid.T) policy.Selector {
					if at > 0 && rapid.IntRange(0, 3).Draw(t, "nests") == 0 {
						return policy.Selector{Group: names[rapid.IntRange(0, at-1).Draw(t, "in")]}
					}
					if rapid.IntRange(0, 3).Draw(t, "endpoint") == 0 {
						return policy.Selector{VM: fmt.Sprint("vm", rapid.IntRange(0, 3).Draw(t, "n"))}
					}
					return policy.Selector{CIDR: fmt.Sprintf("10.%d.0.0/16", rapid.IntRange(0, 5).Draw(t, "n"))}
				})
				list := rapid.SliceOfN(member, 0, 5)
				switch g := raw[name]; {
				case g != nil && rapid.IntRange(0, 4).Draw(t, "gone") == 0:
					changes[name] = nil
				case g != nil && rapid.IntRange(0, 2).Draw(t, "edit") > 0:
					e := policy.MemberEdit{Add: list.Draw(t, "add"), Remove: list.Draw(t, "remove")}
					if len(e.Validate()) > 0 {
						continue
					}
					changes[name], _, _ = g.Edit(e)
				default:
					changes[name] = &policy.Group{Meta: policy.Meta{Name: name, Revision: int64(step)}, Spec: policy.GroupSpec{Members: list.Draw(t,
						"members"),
						OnMemberRemoved: rapid.SampledFrom([]string{"", policy.OnMemberRemovedKeep}).Draw(t, "keep")}}
				}
			}
			before := r.All()
			next, named := r.With(changes)
			for name, g := range changes {
				if raw[name] = g; g == nil {
					delete(raw, name)
				}
			}
			after := next.All()
			if len(after) != len(raw) {
				t.Fatalf("it has %d groups, not %d", len(after), len(raw))
			}
			for _, name := range names {
				g := after[name]
				if (g == nil) != (raw[name] == nil) {
					t.Fatalf("%s is there: %v", name, g != nil)
				}
				if before[name] != g && !slices.Contains(named, name) {
					t.Fatalf("%s is another, and not named", name)
				}
				if g == nil {
					continue
				}
				if g.Revision != raw[name].Revision || g.Spec.OnMemberRemoved != raw[name].Spec.OnMemberRemoved {
					t.Fatalf("%s is %+v", name, g)
				}
				want, got := memberTexts(membersOf(raw, name, map[string]bool{})), memberTexts(g.Spec.Members)
				if !slices.Equal(got, want) {
					t.Fatalf("%s has %v, not %v", name, got, want)
				}
				if o := before[name]; o != nil {
					checkSince(t, o, g)
				}
			}
			r = next
		}
	})
}

// membersOf lists the members of a group and of those in it, the plain way; each group once.
func membersOf(groups map[string]*policy.Group, name string, seen map[string]bool) (out []policy.Selector) {
	if seen[name] || groups[name] == nil {
		return nil
	}
	seen[name] = true
	for _, m := range groups[name].Spec.Members {
		if m.Group == "" {
			out = append(out, m)
		} else {
			out = append(out, membersOf(groups, m.Group, seen)...)
		}
	}
	return out
}

func memberTexts(members []policy.Selector) []string {
	var out []string
	for _, m := range members {
		out = append(out, m.String())
	}
	slices.Sort(out)
	return out
}

// checkSince holds a change that is known to the lists.
func checkSince(t *rapid.T, before, after *policy.Group) {
	c, ok := after.Spec.Since(&before.Spec)
	if !ok {
		return
	}
	want := memberTexts(before.Spec.Members)
	for _, m := range memberTexts(c.Removed) {
		i := slices.Index(want, m)
		if i < 0 {
			t.Fatalf("%s has lost %s, which it did not have", after.Name, m)
		}
		want = slices.Delete(want, i, i+1)
	}
	want = append(want, memberTexts(c.Added)...)
	if slices.Sort(want); !slices.Equal(want, memberTexts(after.Spec.Members)) {
		t.Fatalf("%s: with its change it would be %v, and is %v", after.Name, want, memberTexts(after.Spec.Members))
	}
	if !slices.Equal(memberTexts(after.Spec.Others()), memberTexts(policy.WithoutCIDRs(after.Spec.Members))) {
		t.Fatalf("%s: others are %v", after.Name, memberTexts(after.Spec.Others()))
	}
}

// A range more in a group is known as such in the group that contains it, and one that both have stays when one of them loses it.
func TestRosterKnowsChanges(t *testing.T) {
	cidr := func(s string) policy.Selector { return policy.Selector{CIDR: s} }
	inner := &policy.Group{Meta: policy.Meta{Name: "inner"}, Spec: policy.GroupSpec{Members: []policy.Selector{cidr("10.1.0.0/16"),
		cidr("10.2.0.0/16")}}}
	outer := &policy.Group{Meta: policy.Meta{Name: "outer"}, Spec: policy.GroupSpec{Members: []policy.Selector{cidr("10.1.0.0/16"),
		{Group: "inner"}}}}
	r, _ := policy.NewRoster().With(map[string]*policy.Group{"inner": inner, "outer": outer})
	was := r.Get("outer")
	edited, _, _ := inner.Edit(policy.MemberEdit{Add: []policy.Selector{cidr("10.3.0.0/16")}, Remove: []policy.Selector{cidr("10.1.0.0/16")}})
	r, names := r.With(map[string]*policy.Group{"inner": edited})
	if !slices.Equal(names, []string{"inner", "outer"}) {
		t.Errorf("changed are %v", names)
	}
	now := r.Get("outer")
	c, ok := now.Spec.Since(&was.Spec)
	if !ok || !slices.Equal(memberTexts(c.Added), []string{"cidr 10.3.0.0/16"}) || !slices.Equal(memberTexts(c.Removed),
		[]string{"cidr 10.1.0.0/16"}) {
		t.Errorf("the change is %+v, known: %v", c, ok)
	}
	if got := memberTexts(now.Spec.Members); !slices.Equal(got, []string{"cidr 10.1.0.0/16", "cidr 10.2.0.0/16", "cidr 10.3.0.0/16"}) {
		t.Errorf("it has %v", got)
	}
}

// Groups that contain themselves, or each other too deep, are refused by name.
func TestGroupNesting(t *testing.T) {
	group := func(name string, in ...string) *policy.Group {
		g := &policy.Group{Meta: policy.Meta{Name: name}, Spec: policy.GroupSpec{Members: []policy.Selector{}}}
		for _, n := range in {
			g.Spec.Members = append(g.Spec.Members, policy.Selector{Group: n})
		}
		return g
	}
	faults := func(name string, groups ...*policy.Group) string {
		byName := map[string]*policy.Group{}
		for _, g := range groups {
			byName[g.Name] = g
		}
		lookup := policy.Lookup{Group: func(name string) (*policy.Group, bool) { g, ok := byName[name]; return g, ok }}
		var out []string
		for _, f := range policy.ValidateRefs(byName[name], lookup) {
			out = append(out, fmt.Sprintf("%s %s: %s", f.Code, f.Pointer, f.Detail))
		}
		return strings.Join(out, "\n")
	}
	deep := []*policy.Group{group("g0")}
	for i := range policy.MaxGroupDepth {
		deep = append(deep, group(fmt.Sprint("g", i+1), fmt.Sprint("g", i)))
	}
	for _, tc := range []struct{ name, got, want string }{
		{"OK", faults("a", group("a", "b", "c"), group("b", "c"), group("c")), ""},
		{"OK depth", faults("g7", deep...), ""},
		{"bad depth", faults("g8", deep...), "TOO_LARGE /spec/members/0/group: groups would contain groups 9 deep, more than 8"},
		{"bad self", faults("a", group("a", "a")), `GROUP_CYCLE /spec/members/0/group: group "a" would contain itself: a > a`},
		{"bad circle", faults("a", group("a", "x", "b"), group("b", "c"), group("c", "x", "a"), group("x")),
			`GROUP_CYCLE /spec/members/1/group: group "a" would contain itself: a > b > c > a`},
		{"circle of others", faults("a", group("a", "b"), group("b", "c"), group("c", "b")), ""},
		{"bad unknown", faults("a", group("a", "b")), `UNKNOWN_REFERENCE /spec/members/0/group: there is no group "b"`},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, tc.got, tc.want)
		}
	}
}
