package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
)

// A rule is unused if no host has seen it hit for so long, and all have counted for so long.
func TestUnusedRules(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	ago := func(days int) *time.Time { at := now.AddDate(0, 0, -days); return &at }
	rule := func(name string, since, last *time.Time) policy.RuleStatus {
		return policy.RuleStatus{Name: name, Direction: policy.Ingress, CountedSince: since, LastHit: last, Packets: 1}
	}
	s := policy.Status{Hosts: []policy.HostStatus{
		{Rules: []policy.RuleStatus{rule("never", ago(60), nil), rule("old", ago(60), ago(40)), rule("young", ago(10), nil),
			rule("elsewhere", ago(60), nil), rule("unknown", nil, nil), rule("half", ago(60), nil), rule("gap", ago(60), nil)}},
		{Rules: []policy.RuleStatus{rule("elsewhere", ago(60), ago(1)), rule("half", nil, nil), rule("gap", ago(5), nil)}},
		{Rules: []policy.RuleStatus{rule("half", ago(60), nil)}},
	}}
	for _, c := range []struct {
		long time.Duration
		want string
	}{{30 * day, "never old"}, {50 * day, "never"}, {7 * day, "never old young"}, {0, "never young gap"}, {90 * day, ""}} {
		var names []string
		for _, h := range s.Hits() {
			if h.Unused(c.long, now) {
				names = append(names, h.Name)
			}
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("unused for %v: %q, want %q", c.long, got, c.want)
		}
	}
	if h := s.Hits()[5]; h.Name != "half" || h.Packets != 3 || !h.Since.IsZero() {
		t.Errorf("%+v", h)
	}
}
