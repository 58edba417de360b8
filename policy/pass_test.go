package policy_test

import (
	"testing"

	"github.com/tapwall/tapwall/policy"
)

// TestPassAndAudit holds which rule decides about a connection to b, and which one would have denied it.
func TestPassAndAudit(t *testing.T) {
	const none = ""
	rules := func(name string, tier policy.Tier, mode string, actions ...policy.Effect) *policy.Policy {
		p := &policy.Policy{Meta: policy.Meta{Name: name}, Spec: policy.PolicySpec{Tier: tier, Mode: mode,
			AppliesTo: []policy.Selector{{Port: "b"}}, DefaultDeny: &policy.DefaultDeny{Ingress: new(false)}}}
		for _, a := range actions {
			p.Spec.Ingress = append(p.Spec.Ingress, policy.Rule{Name: string(a), Action: a})
		}
		return p
	}
	isolating := func(p *policy.Policy) *policy.Policy {
		p.Spec.DefaultDeny = nil
		return p
	}
	first := func(p *policy.Policy) *policy.Policy {
		p.Spec.Priority = new(1)
		return p
	}
	const sec, app, audit = policy.TierSecurity, policy.TierApplication, policy.ModeAudit
	for _, tt := range []struct {
		name     string
		policies []*policy.Policy
		inAudit  bool // the endpoint
		effect   policy.Effect
		ref      string
		audited  string
	}{
		{"a pass before a deny of its tier", []*policy.Policy{first(rules("p", sec, "", policy.Pass)), rules("q", sec, "", policy.Deny)}, false,
			policy.Allow, "/(default-allow)", none},
		{"at equal priority it is last", []*policy.Policy{rules("p", sec, "", policy.Pass, policy.Deny)}, false, policy.Deny, "p/deny", none},
		{"a deny of the next tier", []*policy.Policy{rules("p", sec, "", policy.Pass), rules("q", app, "", policy.Deny)}, false, policy.Deny,
			"q/deny", none},
		{"the default behind it", []*policy.Policy{isolating(rules("p", policy.TierBaseline, "", policy.Pass))}, false, policy.Deny,
			"p/(default-deny)", none},
		{"a deny in audit", []*policy.Policy{rules("p", app, audit, policy.Deny)}, false, policy.Allow, "/(default-allow)", "p/deny"},
		{"an enforced deny behind it", []*policy.Policy{rules("p", sec, audit, policy.Deny), rules("q", app, "", policy.Deny)}, false,
			policy.Deny, "q/deny", "p/deny"},
		{"an enforced deny before it", []*policy.Policy{rules("p", sec, "", policy.Deny), rules("q", app, audit, policy.Deny)}, false,
			policy.Deny, "p/deny", none},
		{"its allow allows nothing", []*policy.Policy{rules("p", sec, audit, policy.Allow), rules("q", app, "", policy.Deny)}, false,
			policy.Deny, "q/deny", none},
		{"its allow ends the notes", []*policy.Policy{rules("p", sec, audit, policy.Allow), rules("q", app, audit, policy.Deny)}, false,
			policy.Allow, "/(default-allow)", none},
		{"it alone isolates", []*policy.Policy{isolating(rules("p", app, audit, policy.Pass))}, false, policy.Allow, "/(default-allow)",
			"p/(default-deny)"},
		{"its pass is for its kind", []*policy.Policy{first(rules("p", app, audit, policy.Pass)), rules("q", app, audit, policy.Deny),
			rules("r", app, "", policy.Deny)}, false, policy.Deny, "r/deny", none},
		{"an endpoint in audit", []*policy.Policy{rules("p", app, "", policy.Deny)}, true, policy.Audit, "p/deny", "p/deny"},
		{"both", []*policy.Policy{rules("p", sec, audit, policy.Deny), rules("q", app, "", policy.Deny)}, true, policy.Audit, "q/deny", "p/deny"},
	} {
		b := &policy.Workload{Key: "br0/b", Bridge: "br0", Port: "b", Audit: tt.inAudit}
		s := &policy.Set{Policies: tt.policies, Workloads: []*policy.Workload{b}}
		d := policy.Evaluate(s, policy.Packet{Bridge: "br0", Dst: b, Proto: policy.ProtoTCP, DstPort: 80}).Ingress
		audited := none
		if d.Audited != (policy.RuleRef{}) {
			audited = d.Audited.Policy + "/" + d.Audited.Rule
		}
		if ref := d.Ref.Policy + "/" + d.Ref.Rule; d.Effect != tt.effect || ref != tt.ref || audited != tt.audited {
			t.Errorf("%s: %s by %s, noted %q; want %s by %s, noted %q", tt.name, d.Effect, ref, audited, tt.effect, tt.ref, tt.audited)
		}
	}
}
