package main

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/policy"
)

// A rule is unused if no host has seen it hit for so long, and all have counted for so long.
func TestUnusedRules(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	ago := func(days int) *time.Time { at := now.AddDate(0, 0, -days); return &at }
	rule := func(name string, since, last *time.Time) policy.RuleStatus {
		return policy.RuleStatus{Name: name, Direction: policy.Ingress, CountedSince: since, LastHit: last}
	}
	d := &client.Document{}
	d.Name = "p"
	d.Status.Hosts = []policy.HostStatus{
		{Rules: []policy.RuleStatus{rule("never", ago(60), nil), rule("old", ago(60), ago(40)), rule("young", ago(10), nil),
			rule("elsewhere", ago(60), nil), rule("unknown", nil, nil), rule("gap", ago(60), nil)}},
		{Rules: []policy.RuleStatus{rule("elsewhere", ago(60), ago(1)), rule("gap", ago(5), nil)}},
	}
	var names []string
	for _, text := range unusedRules(d, 30*24*time.Hour, now) {
		names = append(names, strings.Fields(text)[2]+" "+strings.Fields(text)[7])
	}
	if got := strings.Join(names, ", "); got != "ingress/never never, ingress/old hit" {
		t.Errorf("%q", got)
	}
}
