package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/policy"
)

func find(t *testing.T, s *policy.Set, name string) *policy.Policy {
	t.Helper()
	for _, p := range s.Policies {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("no policy %q", name)
	return nil
}

func TestShadowed(t *testing.T) {
	// pol writes a policy for app=web with rules "name action peers service"; peers "-" is everybody.
	pol := func(name, head string, rules ...string) string {
		var b strings.Builder
		fmt.Fprintf(&b, "---\nkind: Policy\nname: %s\nspec:\n  %s\n", name, head)
		if !strings.Contains(head, "appliesTo") {
			b.WriteString("  appliesTo: [{labels: {app: web}}]\n")
		}
		b.WriteString("  ingress:\n")
		for _, r := range rules {
			f := strings.SplitN(r, " ", 4)
			fmt.Fprintf(&b, "  - {name: %s, action: %s", f[0], f[1])
			if f[2] != "-" {
				fmt.Fprintf(&b, ", from: %s", f[2])
			}
			if f[3] != "-" {
				fmt.Fprintf(&b, ", services: %s", f[3])
			}
			b.WriteString("}\n")
		}
		return b.String()
	}
	const http = `[{protocol: tcp, ports: ["80"]}]`
	tests := []struct {
		name    string
		docs    string
		changed string
		want    []string // "policy rule by"
	}{
		{"bad what a newcomer writes", pol("p", "priority: 100", "http allow - "+http, "rest deny - -"), "p",
			[]string{"p ingress/http p/ingress/rest"}},
		{"OK defaultDeny instead", pol("p", "defaultDeny: {ingress: true}", "http allow - "+http), "p", nil},
		{"OK a narrower deny", pol("p", "tier: security", "http allow - "+http, "one deny [{cidr:\u00a010.0.0.0/8}] -"), "p", nil},
		{"OK the deny is later", pol("p", "priority: 100", "http allow - "+http) + pol("q", "priority: 101", "rest deny - -"), "p", nil},
		{"bad the deny is earlier", pol("p", "priority: 100", "http allow - "+http) + pol("q", "priority: 99", "rest deny - -"), "p",
			[]string{"p ingress/http q/ingress/rest"}},
		{"bad found from the other side too", pol("p", "priority: 100", "http allow - "+http) + pol("q", "priority: 99", "rest deny - -"), "q",
			[]string{"p ingress/http q/ingress/rest"}},
		{"bad the tier is higher", pol("p", "priority: 1", "http allow - "+http) + pol("q", "tier: emergency", "rest deny - -"), "p",
			[]string{"p ingress/http q/ingress/rest"}},
		{"bad a deny under an allow", pol("p", "priority: 100", "no deny - "+http) + pol("q", "priority: 1", "all allow - -"), "p",
			[]string{"p ingress/no q/ingress/all"}},
		{"OK a deny on one host", pol("p", "priority: 100", "http allow - "+http) +
			pol("q", "appliesTo: [{labels: {app: web}, host: h2}]\n  priority: 9", "rest deny - -"), "p", nil},
		{"bad the same host", pol("p", "appliesTo: [{labels: {app: web}, host: h2}]", "http allow - "+http) +
			pol("q", "appliesTo: [{labels: {app: web}, host: h2}]\n  priority: 9", "rest deny - -"), "p", []string{"p ingress/http q/ingress/rest"}},
		{"OK equal rules do not shadow each other", pol("p", "priority: 100", "a allow - "+http, "b allow - -"), "p", nil},
		{"bad the first that covers is named", pol("p", "priority: 100", "http allow - "+http) + pol("r", "priority: 5", "rest deny - -") +
			pol("q", "priority: 9", "rest deny - -"), "p",
			[]string{"p ingress/http r/ingress/rest"}},
		{"bad ports inside a range", pol("p", "priority: 100", `a allow - [{protocol: tcp, ports: ["80", "90-99"]}, {protocol: udp}]`,
			`b deny - [{protocol: tcp, ports: ["70-100"]}, {protocol: udp}]`), "p",
			[]string{"p ingress/a p/ingress/b"}},
		{"bad ports of two services together", pol("p", "priority: 100", `a allow - [{protocol: tcp, ports: ["80-82"]}]`,
			`b deny - [{protocol: tcp, ports: ["80-81"]}, {protocol: tcp, ports: ["82"]}]`), "p", []string{"p ingress/a p/ingress/b"}},
		{"bad two halves of a range", pol("p", "priority: 100", "a allow [{cidr:\u00a010.0.0.0/8}] -",
			"b deny [{cidr:\u00a010.0.0.0/9},{cidr:\u00a010.128.0.0/9}] -"), "p",
			[]string{"p ingress/a p/ingress/b"}},
		{"OK one port outside", pol("p", "priority: 100", `a allow - [{protocol: tcp, ports: ["80", "101"]}]`,
			`b deny - [{protocol: tcp, ports: ["70-100"]}]`), "p", nil},
		{"OK all ports against some", pol("p", "priority: 100", "a allow - [{protocol: tcp}]", "b deny - "+http), "p", nil},
		{"OK all services against some", pol("p", "priority: 100", "a allow - -", "b deny - [{protocol: tcp},{protocol: udp}]"), "p", nil},
		{"bad address inside a range", pol("p", "priority: 100",
			"a allow [{cidr:\u00a010.1.0.0/16},{cidr:\u00a010.2.0.0/16,except:\u00a0[10.2.3.0/24]}] -", "b deny [{cidr:\u00a010.0.0.0/8}] -"), "p",
			[]string{"p ingress/a p/ingress/b"}},
		{"OK address in an exception", pol("p", "priority: 100", "a allow [{cidr:\u00a010.1.0.0/16}] -",
			"b deny [{cidr:\u00a010.0.0.0/8,except:\u00a0[10.1.2.0/24]}] -"), "p", nil},
		{"OK other family", pol("p", "priority: 100", "a allow [{cidr:\u00a0'2001:db8::/32'}] -", "b deny [{cidr:\u00a00.0.0.0/0}] -"), "p", nil},
		{"bad both families are everybody", pol("p", "priority: 100", "a allow [{labels:\u00a0{app:\u00a0db}}] -",
			"b deny [{cidr:\u00a00.0.0.0/0},{cidr:\u00a0'::/0'}] -"), "p", []string{"p ingress/a p/ingress/b"}},
		{"bad entity any", pol("p", "priority: 100", "a allow [{entity:\u00a0world}] -", "b deny [{entity:\u00a0any}] -"), "p",
			[]string{"p ingress/a p/ingress/b"}},
		{"OK world is not everybody", pol("p", "priority: 100", "a allow - -", "b deny [{entity:\u00a0world}] -"), "p", nil},
		{"bad labels that ask for more", pol("p", "priority: 100", "a allow [{labels:\u00a0{app:\u00a0db,tier:\u00a0x}}] -",
			"b deny [{labels:\u00a0{app:\u00a0db}}] -"), "p", []string{"p ingress/a p/ingress/b"}},
		{"OK labels that ask for less", pol("p", "priority: 100", "a allow [{labels:\u00a0{app:\u00a0db}}] -",
			"b deny [{labels:\u00a0{app:\u00a0db,tier:\u00a0x}}] -"), "p", nil},
		{"bad member of a group", "kind: Group\nname: g\nspec: {members: [{vm: a}, {cidr: 10.0.0.0/8}]}\n" + pol("p", "priority: 100",
			"a allow [{vm:\u00a0a},{cidr:\u00a010.1.0.0/16}] -", "b deny [{group:\u00a0g}] -"), "p",
			[]string{"p ingress/a p/ingress/b"}},
		{"bad every kind of selector", pol("p", "priority: 100",
			"a allow [{mac:\u00a0'52:54:00:00:00:0a'},{vlan:\u00a07},{bridge:\u00a0b},{port:\u00a0p},{neutronPort:\u00a0n}] -",
			"b deny [{neutronPort:\u00a0n},{port:\u00a0p},{bridge:\u00a0b},{vlan:\u00a07},{mac:\u00a0'52:54:00:00:00:0A'}] -"), "p",
			[]string{"p ingress/a p/ingress/b"}},
		{"OK another VLAN", pol("p", "priority: 100", "a allow [{vlan:\u00a07}] -", "b deny [{vlan:\u00a08}] -"), "p", nil},
		{"bad subjects by a group", "kind: Group\nname: g\nspec: {members: [{port: tap1}, {port: tap2}, {port: none}]}\n" +
			pol("p", "appliesTo: [{port: none}]", "a allow - -") +
			pol("q", "appliesTo: [{group: g}]", "b deny - -"), "q", []string{"p ingress/a q/ingress/b"}},
		{"OK a group nobody knows", pol("p", "priority: 100", "a allow [{group:\u00a0x}] -", "b deny [{group:\u00a0y}] -"), "p", nil},
		{"bad subjects by fewer labels", pol("p", "appliesTo: [{labels: {app: none, x: z}}]", "a allow - -") +
			pol("q", "appliesTo: [{labels: {app: none}}]", "b deny - -"), "p", []string{"p ingress/a q/ingress/b"}},
		{"OK other subjects", pol("p", "appliesTo: [{labels: {app: web}}]", "a allow - -") + pol("q", "appliesTo: [{labels: {app: db}}]",
			"b deny - -"), "p", nil},
		{"OK some of the subjects", pol("p", "appliesTo: [{labels: {app: web}}]", "a allow - -") + pol("q", "appliesTo: [{vm: web1}]",
			"b deny - -"), "p", nil},
		{"bad all subjects by other words", pol("p", "appliesTo: [{labels: {app: web}}]", "a allow - -") +
			pol("q", "appliesTo: [{vm: web1}, {port: tap2}]", "b deny - -"), "p", []string{"p ingress/a q/ingress/b"}},
		{"OK nobody selected yet", pol("p", "appliesTo: [{vm: none}]", "a allow - -") + pol("q", "appliesTo: [{port: none}]", "b deny - -"),
			"p", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := scene(t, strings.ReplaceAll(tt.docs, "\u00a0", " "))
			var got []string
			for _, w := range policy.Shadowed(find(t, s, tt.changed), s) {
				if w.Code != policy.WarnShadowed {
					t.Errorf("code %q", w.Code)
				}
				got = append(got, w.Policy+" "+w.Rule+" "+w.By.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}

	t.Run("message", func(t *testing.T) {
		s := scene(t, pol("p", "priority: 100", "http allow - "+http, "rest deny - -"))
		want := `rule "http" (ingress, allow) of policy "p" can never match: rule "rest" (deny) of the same policy at tier application, ` +
			`priority 100 decides first for ` +
			`the same endpoints, peers and services. To deny what no rule allows, write defaultDeny: {ingress: true} instead of rule "rest", or ` +
			`give the allow, in a ` +
			`policy of its own, a smaller priority than 100.`
		if diff := cmp.Diff(want, policy.Shadowed(s.Policies[0], s)[0].Message); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
	t.Run("message across tiers", func(t *testing.T) {
		s := scene(t, pol("p", "priority: 1", "http allow - "+http)+pol("q", "tier: security", "rest deny - -"))
		got := policy.Shadowed(find(t, s, "p"), s)[0].Message
		if want := `or give policy "p" the tier emergency.`; !strings.HasSuffix(got, want) {
			t.Errorf("message %q does not end with %q", got, want)
		}
	})
	for _, tt := range []struct{ name, tier, action, want string }{
		{"a reject across tiers", "tier: security", "reject", ` Remove it, or give policy "p" the tier emergency.`},
		{"a reject of the same tier", "priority: 1", "reject", ` Remove it, or give policy "p" a smaller priority than 1.`},
		{"an allow before an allow", "tier: security", "allow", ` Remove it, or give policy "p" the tier emergency.`},
	} {
		t.Run("message of "+tt.name, func(t *testing.T) {
			s := scene(t, pol("p", "priority: 7", "http allow - "+http)+pol("q", tt.tier, "rest "+tt.action+" - -"))
			if got := policy.Shadowed(find(t, s, "p"), s)[0].Message; !strings.HasSuffix(got, tt.want) {
				t.Errorf("message %q does not end with %q", got, tt.want)
			}
		})
	}
}

// manyPolicies has 1,000 policies of 10 rules for 1,000 endpoints, two policies for each pair of them.
func manyPolicies() *policy.Set {
	s := &policy.Set{Groups: map[string]*policy.Group{}}
	for i := range 1000 {
		labels := map[string]string{"app": fmt.Sprintf("app%d", i/2), "bridge": "br0", "port": fmt.Sprintf("tap%d", i),
			"team": fmt.Sprintf("t%d", i%7)}
		s.Workloads = append(s.Workloads, &policy.Workload{Key: fmt.Sprintf("w%d", i), Bridge: "br0", Port: fmt.Sprintf("tap%d", i),
			Labels: labels})
		p := &policy.Policy{Meta: policy.Meta{Name: fmt.Sprintf("p%d", i)}, Spec: policy.PolicySpec{
			Priority: new(100 + 2*(i%50)), AppliesTo: []policy.Selector{{Labels: map[string]string{"app": fmt.Sprintf("app%d", i/2)}}},
		}}
		for j := range 10 {
			p.Spec.Ingress = append(p.Spec.Ingress, policy.Rule{
				Name: fmt.Sprintf("r%d", j), Action: policy.Allow,
				From: []policy.Selector{{CIDR: fmt.Sprintf("10.%d.%d.0/24", i%250, j)},
					{Labels: map[string]string{"team": fmt.Sprintf("t%d", j%7)}}},
				Services: []policy.Service{{Protocol: "tcp", Ports: []string{fmt.Sprint(1000 + j), "8000-8099"}}},
			})
		}
		s.Policies = append(s.Policies, p)
	}
	return s
}

func TestShadowedIsQuick(t *testing.T) {
	s := manyPolicies()
	worst := &policy.Policy{Meta: policy.Meta{Name: "worst"}, Spec: policy.PolicySpec{
		AppliesTo: []policy.Selector{{Labels: map[string]string{"bridge": "br0"}}}, Priority: new(1),
		Ingress: []policy.Rule{{Name: "all", Action: policy.Deny}},
	}}
	took := func(changed *policy.Policy, want int) time.Duration {
		start := time.Now()
		got := policy.Shadowed(changed, s)
		if len(got) != want {
			t.Fatalf("%s: %d warnings, want %d", changed.Name, len(got), want)
		}
		return time.Since(start)
	}
	// Looking at one policy of a thousand must not look at all of them, as that at a deny above all of them does (it is some 100 times
	// slower). A busy machine may steal time from any run, but hardly from all of them.
	all, best := took(worst, 10000), time.Hour
	for n := 0; n < 20 && best > all/20; n++ {
		best = min(best, took(s.Policies[500], 0))
	}
	t.Logf("one of many: %v, a deny above all of them: %v", best, all)
	if best > all/20 {
		t.Errorf("one of many took %v, a deny above all of them %v", best, all)
	}
}

func BenchmarkShadowed(b *testing.B) {
	s := manyPolicies()
	for b.Loop() {
		policy.Shadowed(s.Policies[500], s)
	}
}
