package host

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// Whatever came before: subjects are those of the policies as they are now.
func TestSubjects(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type state struct {
			ps *wall.PolicyState
			p  *policy.Policy
		}
		now := map[string]state{}
		s := newSubjects()
		for range rapid.IntRange(1, 20).Draw(t, "changes") {
			i := rapid.IntRange(0, 3).Draw(t, "policy")
			name := fmt.Sprint("p", i)
			if rapid.IntRange(0, 4).Draw(t, "gone") == 0 {
				delete(now, name)
				s.set(name, nil, nil)
				continue
			}
			p := &policy.Policy{Meta: policy.Meta{Name: name}}
			p.Spec.DefaultDeny = &policy.DefaultDeny{Ingress: new(rapid.Bool().Draw(t, "isolates"))}
			ps := &wall.PolicyState{}
			for n := range rapid.IntRange(0, 3).Draw(t, "rules") {
				ps.Rules = append(ps.Rules, wall.RuleState{
					Ref: policy.RuleRef{Policy: name, Direction: policy.Ingress, Rule: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "rule")},
					ID:  uint32(10*i + n), Action: rapid.SampledFrom([]policy.Effect{policy.Allow, policy.Deny}).Draw(t, "effect")})
			}
			for _, key := range []string{"e1", "e2", "e3", "e4"} {
				if rapid.Bool().Draw(t, key) {
					ps.Endpoints = append(ps.Endpoints, key)
				}
			}
			now[name] = state{ps, p}
			s.set(name, ps, p)
		}
		want := newSubjects()
		for _, name := range slices.Sorted(maps.Keys(now)) {
			want.set(name, now[name].ps, now[name].p)
		}
		if diff := cmp.Diff(want, s, cmp.AllowUnexported(subjects{}, appliers{}, subject{}), cmpopts.IgnoreFields(subjects{}, "lookup"),
			cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-want +got)\n%s", diff)
		}
	})
}
