package policy_test

import (
	"strings"
	"testing"

	"github.com/tapwall/tapwall/policy"
)

// A deny, or an except, of one IP version leaves the other open.
func TestFault_F23_OneFamily(t *testing.T) {
	const groups = `
---
kind: Group
name: all4
spec: {members: [{cidr: 0.0.0.0/1}, {cidr: 128.0.0.0/1}]}
---
kind: Group
name: most4
spec: {members: [{cidr: 0.0.0.0/1}, {cidr: 128.0.0.0/2}]}
---
kind: Group
name: all
spec: {members: [{cidr: 0.0.0.0/0}, {cidr: "::/0"}]}
`
	for _, tt := range []struct {
		name, rule string
		want       string // part of the message, "" = no warning
	}{
		{"deny IPv4", `action: deny, from: [{cidr: 0.0.0.0/0}]`,
			`nothing of IPv6, which other rules and the default decide about: add {cidr: "::/0"}`},
		{"deny IPv6", `action: deny, from: [{cidr: "::/0"}]`, `add {cidr: "0.0.0.0/0"}`},
		{"deny IPv4 but for some", `action: deny, from: [{cidr: 0.0.0.0/0, except: [10.0.0.0/8]}]`, "nothing of IPv6"},
		{"deny IPv4 in halves by a group", `action: deny, from: [{group: all4}]`, "nothing of IPv6"},
		{"deny IPv4 beside endpoints", `action: deny, from: [{cidr: 0.0.0.0/0}, {labels: {a: b}}]`, "nothing of IPv6"},
		{"deny IPv4 for TCP", `action: deny, from: [{cidr: 0.0.0.0/0}], services: [{protocol: tcp}]`, "nothing of IPv6"},
		{"deny IPv4 for ICMP", `action: deny, from: [{cidr: 0.0.0.0/0}], services: [{protocol: icmp}]`, ""},
		{"deny IPv6 for ICMPv6", `action: deny, from: [{cidr: "::/0"}], services: [{protocol: icmpv6}]`, ""},
		{"deny both", `action: deny, from: [{cidr: 0.0.0.0/0}, {cidr: "::/0"}]`, ""},
		{"deny both by a group", `action: deny, from: [{group: all}]`, ""},
		{"deny IPv4 and some IPv6", `action: deny, from: [{cidr: 0.0.0.0/0}, {cidr: "2001:db8::/32"}]`, ""},
		{"deny the world", `action: deny, from: [{cidr: 0.0.0.0/0}, {entity: world}]`, ""},
		{"deny everybody", `action: deny`, ""},
		{"deny a net", `action: deny, from: [{cidr: 10.0.0.0/8}]`, ""},
		{"deny most of IPv4", `action: deny, from: [{group: most4}]`, ""},
		{"deny by an unknown group", `action: deny, from: [{group: none}]`, ""},
		{"allow IPv4", `action: allow, from: [{cidr: 0.0.0.0/0}]`, ""},
		{"allow all but some IPv4", `action: allow, from: [{cidr: 0.0.0.0/0, except: [10.0.0.9/32]}, {cidr: "::/0"}]`,
			"excepts 10.0.0.9/32 of IPv4 and nothing of IPv6"},
		{"allow all but some IPv6", `action: allow, from: [{cidr: 0.0.0.0/0}, {cidr: "::/0", except: ["2001:db8::/32"]}]`,
			"excepts 2001:db8::/32 of IPv6 and nothing of IPv4"},
		{"allow all but some of each",
			`action: allow, from: [{cidr: 0.0.0.0/0, except: [10.0.0.9/32]}, {cidr: "::/0", except: ["fd00::9/128"]}]`, ""},
		{"allow IPv4 but for some", `action: allow, from: [{cidr: 0.0.0.0/0, except: [10.0.0.9/32]}]`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for dir, peers := range map[string]string{"ingress": "from", "egress": "to"} {
				text := "kind: Policy\nname: p\nspec:\n  appliesTo: [{labels: {a: b}}]\n  " + dir + ":\n  - {name: r, " + strings.Replace(tt.rule,
					"from:", peers+":", 1) + "}\n"
				s := scene(t, text+groups)
				got := policy.OneFamily(find(t, s, "p"), s.Groups)
				if tt.want == "" && len(got) == 0 {
					continue
				}
				if tt.want == "" || len(got) != 1 || got[0].Code != policy.WarnOneFamily || got[0].Policy != "p" || got[0].Rule != dir+"/r" ||
					!strings.Contains(got[0].Message, tt.want) {
					t.Errorf("%s: got %+v, want %q", dir, got, tt.want)
				}
			}
		})
	}
}
