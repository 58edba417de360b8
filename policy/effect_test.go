package policy_test

import (
	"testing"

	"github.com/tapwall/tapwall/policy"
)

// TestEffectOfBothSides holds what becomes of a packet to the side that denies it, or else the one that rejects it.
func TestEffectOfBothSides(t *testing.T) {
	vm := func(name string) *policy.Workload {
		return &policy.Workload{Key: "br0/" + name, Bridge: "br0", Port: name, Endpoint: name}
	}
	a, b := vm("a"), vm("b")
	rule := func(port string, d policy.Direction, e policy.Effect) *policy.Policy {
		p := &policy.Policy{Meta: policy.Meta{Name: port}, Spec: policy.PolicySpec{AppliesTo: []policy.Selector{{Port: port}}}}
		if rules := []policy.Rule{{Name: "r", Action: e}}; d == policy.Egress {
			p.Spec.Egress = rules
		} else {
			p.Spec.Ingress = rules
		}
		return p
	}
	for _, tt := range []struct{ egress, ingress, want policy.Effect }{
		{policy.Allow, policy.Allow, policy.Allow}, {policy.Allow, policy.Deny, policy.Deny}, {policy.Deny, policy.Allow, policy.Deny},
		{policy.Reject, policy.Deny, policy.Deny}, {policy.Deny, policy.Reject, policy.Deny}, {policy.Allow, policy.Reject, policy.Reject},
		{policy.Audit, policy.Allow, policy.Audit}, {policy.Allow, policy.Audit, policy.Audit}, {policy.Audit, policy.Deny, policy.Deny},
		{policy.Reject, policy.Audit, policy.Reject}, {policy.Reject, policy.Reject, policy.Reject}, {policy.Reject, policy.Allow, policy.Reject},
		{policy.Audit, policy.Reject, policy.Reject}, {policy.Audit, policy.Audit, policy.Audit},
	} {
		s := &policy.Set{
			Policies:  []*policy.Policy{rule("a", policy.Egress, tt.egress), rule("b", policy.Ingress, tt.ingress)},
			Workloads: []*policy.Workload{a, b},
		}
		d := policy.Evaluate(s, policy.Packet{Bridge: "br0", Src: a, Dst: b, Proto: policy.ProtoTCP, DstPort: 80})
		if d.Egress.Effect != tt.egress || d.Ingress.Effect != tt.ingress || d.Effect != tt.want {
			t.Errorf("%s, then %s: %+v, want %s", tt.egress, tt.ingress, d, tt.want)
		}
	}
}
