package policy_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/policy"
)

// What a rule says of the record is written as it was read, by documents and by clients alike.
func TestRuleLog(t *testing.T) {
	for _, tt := range []struct {
		text string
		want policy.RuleLog
		out  string // "" = as text
		n    int
	}{
		{`true`, policy.RuleLog{All: true}, "", 0},
		{`false`, policy.RuleLog{}, "left out", 0},
		{`{"sample":"1/100"}`, policy.RuleLog{Sample: "1/100"}, "", 100},
		{`{"l7":true}`, policy.RuleLog{L7: true}, "", 0},
		{`{"sample":"1/4","l7":true}`, policy.RuleLog{Sample: "1/4", L7: true}, "", 4},
		{`{"sample":"1/1"}`, policy.RuleLog{Sample: "1/1"}, "", 1},
	} {
		const before, after = `{"kind":"Policy","name":"p","spec":{"appliesTo":[{"port":"a"}],"ingress":[{"name":"r","action":"allow"`, `}]}}`
		docs, err := policy.Load(strings.NewReader(before + `,"log":` + tt.text + after))
		if err != nil {
			t.Fatalf("%s: %v", tt.text, err)
		}
		rule := docs[0].Resource.(*policy.Policy).Spec.Ingress[0]
		if rule.Log != tt.want || rule.OneOf() != tt.n {
			t.Errorf("%s is read as %+v, one of %d", tt.text, rule.Log, rule.OneOf())
		}
		want := before + `,"log":` + tt.text + after
		if tt.out != "" {
			want = before + after
		}
		if got, err := policy.EncodeJSON(docs[0].Resource); err != nil || string(got) != want {
			t.Errorf("%s is written as %s (%v)", tt.text, got, err)
		}
		var l policy.RuleLog
		if err := json.Unmarshal([]byte(tt.text), &l); err != nil || l != tt.want {
			t.Errorf("a client reads %s as %+v (%v)", tt.text, l, err)
		}
	}
	if err := json.Unmarshal([]byte(`"yes"`), new(policy.RuleLog)); err == nil {
		t.Error("a client takes a text")
	}
}
