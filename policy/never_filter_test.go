package policy_test

import (
	"strings"
	"testing"

	"github.com/tapwall/tapwall/policy"
)

// A rule of a filter that no packet can match is told of, with why; one that matches something is not.
func TestFilterNeverMatches(t *testing.T) {
	v4, v6 := []string{"10.0.0.0/8"}, []string{"2001:db8::/32"}
	for name, c := range map[string]struct {
		direction string
		rule      policy.FilterRule
		want      string // "" = no warning
	}{
		"two versions":         {"", policy.FilterRule{Src: v4, Dst: v6}, "src is of IPv4, dst is of IPv6"},
		"two, symmetric":       {"", policy.FilterRule{Src: v4, Dst: v6, Symmetric: true}, "src is of IPv4, dst is of IPv6"},
		"one in common":        {"", policy.FilterRule{Src: append(v6, v4...), Dst: v6}, ""},
		"icmp of IPv6":         {"", policy.FilterRule{Protocol: "icmp", Dst: v6}, "protocol icmp is of IPv4, dst is of IPv6"},
		"icmpv6 of IPv6":       {"", policy.FilterRule{Protocol: "icmpv6", Dst: v6}, ""},
		"etherType":            {"", policy.FilterRule{EtherType: "ipv6", Src: v4}, "etherType is of IPv6, src is of IPv4"},
		"tcp of IPv6":          {"", policy.FilterRule{Protocol: "tcp", Src: v6}, ""},
		"arp":                  {"", policy.FilterRule{EtherType: "arp"}, ""},
		"the other way":        {"fromSource", policy.FilterRule{Direction: "toSource"}, "the mirror copies fromSource only"},
		"the other, symmetric": {"fromSource", policy.FilterRule{Direction: "toSource", Symmetric: true}, ""},
		"its own way":          {"fromSource", policy.FilterRule{Direction: "fromSource"}, ""},
		"one way of both":      {"both", policy.FilterRule{Direction: "toSource"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.rule.Action, c.rule.Priority = policy.FilterAccept, 7
			m := &policy.Mirror{Meta: policy.Meta{Name: "m"}}
			m.Spec.Direction = c.direction
			m.Spec.Filter = &policy.MirrorFilter{Default: policy.FilterAccept, Rules: []policy.FilterRule{{Action: policy.FilterReject}, c.rule}}
			got := policy.FilterNeverMatches(m)
			if c.want == "" {
				if len(got) > 0 {
					t.Errorf("%+v", got)
				}
				return
			}
			if len(got) != 1 || got[0].Code != policy.WarnNeverMatches || got[0].Rule != "filter/1" ||
				!strings.Contains(got[0].Message, "rule 2 of the filter of mirror \"m\" (priority 7, accept) matches nothing: ") ||
				!strings.Contains(got[0].Message, c.want) {
				t.Errorf("%+v", got)
			}
		})
	}
}
