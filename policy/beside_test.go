package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/policy"
)

// Rules of one rank are told what the other makes of them, each with the other's name; exceptions and disjoint rules are left alone.
func TestBeside(t *testing.T) {
	cidr := func(s string) []policy.Selector { return []policy.Selector{{CIDR: s}} }
	web := []policy.Service{{Protocol: "tcp", Ports: []string{"80"}}}
	more := []policy.Service{{Protocol: "tcp", Ports: []string{"80-81"}}}
	rule := func(name string, a policy.Effect, from []policy.Selector, s []policy.Service) policy.Rule {
		return policy.Rule{Name: name, Action: a, From: from, Services: s}
	}
	p := func(name, app string, rules ...policy.Rule) *policy.Policy {
		return &policy.Policy{Meta: policy.Meta{Name: name},
			Spec: policy.PolicySpec{AppliesTo: []policy.Selector{{Labels: map[string]string{"app": app}}},
				Ingress: rules}}
	}
	narrow, wide := rule("narrow", policy.Allow, cidr("10.1.0.0/16"), web), rule("wide", policy.Allow, cidr("10.0.0.0/8"), more)
	for _, tc := range []struct {
		name     string
		policies []*policy.Policy
		want     string
	}{
		{"wider in one policy", []*policy.Policy{p("p", "a", narrow, wide)}, "WIDER p/ingress/wide by p/ingress/narrow"},
		{"wider than another's", []*policy.Policy{p("p", "a", wide), p("q", "a", narrow)}, "WIDER p/ingress/wide by q/ingress/narrow"},
		{"narrower than another's", []*policy.Policy{p("p", "a", narrow), p("q", "a", wide)}, "WIDER q/ingress/wide by p/ingress/narrow"},
		{"for others", []*policy.Policy{p("p", "a", wide), p("q", "b", narrow)}, ""},
		{"the same", []*policy.Policy{p("p", "a", narrow, rule("again", policy.Allow, cidr("10.1.0.0/16"), web))},
			"WIDER p/ingress/again by p/ingress/narrow"},
		{"overlap", []*policy.Policy{p("p", "a", narrow, rule("no", policy.Deny, cidr("10.1.2.0/24"), more))},
			"CONTRADICTS p/ingress/narrow by p/ingress/no"},
		{"exception", []*policy.Policy{p("p", "a", wide, rule("no", policy.Deny, cidr("10.1.2.0/24"), web))}, ""},
		{"shadowed", []*policy.Policy{p("p", "a", narrow, rule("no", policy.Deny, cidr("10.0.0.0/8"), more))}, ""},
		{"disjoint", []*policy.Policy{p("p", "a", narrow, rule("no", policy.Deny, cidr("192.0.2.0/24"), more))}, ""},
	} {
		var got []string
		for _, w := range policy.NewShadows(&policy.Set{Policies: tc.policies}).Beside(tc.policies[0], 10) {
			got = append(got, fmt.Sprintf("%s %s/%s by %s", w.Code, w.Policy, w.Rule, w.By))
		}
		if text := strings.Join(got, ", "); text != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, text, tc.want)
		}
	}
}
