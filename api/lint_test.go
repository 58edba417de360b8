package api_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/api"
	"github.com/tapwall/tapwall/policy"
)

// Lint answers with the warnings about wording, once each, and with the rules that nothing has used if that is asked for.
func TestLint(t *testing.T) {
	f := newFixture(t)
	body := strings.Replace(policyBody, `"from":[{"group":"lbs"}],`, "", 1)
	f.must(201, "PUT", "/v1/policies/a", body)
	f.must(201, "PUT", "/v1/policies/b", body)
	long := time.Now().AddDate(0, 0, -40)
	day := time.Now().AddDate(0, 0, -1)
	by := &policy.RuleRef{Policy: "b", Direction: policy.Ingress, Rule: "deny"}
	shadowed := policy.Warning{Code: policy.WarnShadowed, Policy: "a", Rule: "ingress/lb", Message: "is covered", By: by}
	f.engine.statuses = map[string]policy.Status{
		"a": {Warnings: []policy.Warning{shadowed, {Code: policy.WarnAudit, Message: "is in mode audit"}}, Hosts: []policy.HostStatus{{
			Rules: []policy.RuleStatus{{Name: "lb", Direction: policy.Ingress, CountedSince: &long}}}}},
		"b": {Warnings: []policy.Warning{shadowed, {Code: policy.WarnOneFamily, Message: "says nothing of IPv6"}}, Hosts: []policy.HostStatus{{
			Rules: []policy.RuleStatus{{Name: "lb", Direction: policy.Ingress, CountedSince: &long, LastHit: &day}}}}},
	}
	ask := func(query string) (out []string) {
		t.Helper()
		var page struct{ Items []api.Finding }
		if err := json.Unmarshal(f.must(200, "GET", "/v1/lint"+query, "").Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		for _, x := range page.Items {
			text := string(x.Code) + " " + x.Policy + " " + x.Rule
			if x.By != nil {
				text += " by " + x.By.String()
			}
			if x.Code == policy.LintUnused && (x.CountedSince == nil || !x.CountedSince.Equal(long) || (x.LastHit != nil) != (x.Policy == "b")) {
				t.Errorf("%+v", x)
			}
			out = append(out, strings.TrimSpace(text))
		}
		return out
	}
	for query, want := range map[string]string{
		"":                             "SHADOWED a ingress/lb by " + by.String() + ", ONE_FAMILY b",
		"?policy=b":                    "ONE_FAMILY b",
		"?unusedFor=30d":               "SHADOWED a ingress/lb by " + by.String() + ", UNUSED a ingress/lb, ONE_FAMILY b",
		"?policy=b&unusedFor=12h":      "ONE_FAMILY b, UNUSED b ingress/lb",
		"?policy=a&unusedFor=0s":       "SHADOWED a ingress/lb by " + by.String() + ", UNUSED a ingress/lb",
		"?policy=a&unusedFor=40d1h":    "SHADOWED a ingress/lb by " + by.String(),
		"?policy=b&unusedFor=876000h":  "ONE_FAMILY b",
		"?policy=nobody&unusedFor=30d": "",
	} {
		if got := strings.Join(ask(query), ", "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	for _, bad := range []string{"soon", "-1h", "30", "1w", ""} {
		if w := f.must(422, "GET", "/v1/lint?unusedFor="+bad, ""); bad != "" && !strings.Contains(w.Body.String(), "30d") {
			t.Errorf("%q: the answer does not say what is accepted: %s", bad, w.Body)
		}
	}
}
