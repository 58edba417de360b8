package api

import (
	"encoding/json"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/policy"
)

// TestDiffOfGroups holds the diff of groups, which has a way of its own, to that of all other resources.
func TestDiffOfGroups(t *testing.T) {
	selector := rapid.Custom(func(t *rapid.T) policy.Selector {
		n := rapid.IntRange(0, 4).Draw(t, "n")
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			return policy.Selector{VM: fmt.Sprint("vm", n), Host: "h"}
		case 1:
			return policy.Selector{CIDR: "10.0.0.0/8", Except: []string{fmt.Sprintf("10.%d.0.0/16", n)}}
		}
		return policy.Selector{CIDR: fmt.Sprintf("10.%d.0.0/16", n)}
	})
	group := rapid.Custom(func(t *rapid.T) *policy.Group {
		g := &policy.Group{Meta: policy.Meta{Name: "g"}, Spec: policy.GroupSpec{Members: rapid.SliceOfN(selector, 0, 6).Draw(t, "members")}}
		g.Spec.OnMemberRemoved = rapid.SampledFrom([]string{"", "keep", "revoke"}).Draw(t, "onMemberRemoved")
		g.Labels = rapid.SampledFrom([]map[string]string{nil, {"a": "1"}, {"a": "2", "b": "x"}}).Draw(t, "labels")
		return g
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := group.Draw(t, "a"), group.Draw(t, "b")
		var want []FieldChange
		diffAny("", wish(a), wish(b), &want)
		if got := diff(a, b); asText(t, got) != asText(t, want) {
			t.Fatalf("%s\nand not\n%s", asText(t, got), asText(t, want))
		}
		if sameWish(a, b) != (len(want) == 0) {
			t.Fatalf("the same: %t", sameWish(a, b))
		}
	})
}

func asText(t *rapid.T, v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
