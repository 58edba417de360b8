package host

import (
	"net/netip"
	"testing"

	"github.com/tapwall/tapwall/policy"
)

// What becomes of connections where more than the verdict on a new one counts.
func TestForecast(t *testing.T) {
	a, b := &policy.Workload{Key: "a", Bridge: "br0", Port: "a"}, &policy.Workload{Key: "b", Bridge: "br0", Port: "b"}
	group := func(keep string, members ...policy.Selector) map[string]*policy.Group {
		return map[string]*policy.Group{"g": {Meta: policy.Meta{Name: "g"}, Spec: policy.GroupSpec{Members: members, OnMemberRemoved: keep}}}
	}
	allow := func(applies string, dir policy.Direction, r policy.Rule) *policy.Policy {
		p := &policy.Policy{Meta: policy.Meta{Name: "p-" + applies}, Spec: policy.PolicySpec{AppliesTo: []policy.Selector{{Port: applies}}}}
		if r.Name, r.Action = "r", policy.Allow; dir == policy.Ingress {
			p.Spec.Ingress = []policy.Rule{r}
		} else {
			p.Spec.Egress = []policy.Rule{r}
		}
		return p
	}
	ws := []*policy.Workload{a, b}
	ofGroup := []*policy.Policy{allow("b", policy.Ingress, policy.Rule{From: []policy.Selector{{Group: "g"}}})}
	shut := &policy.Policy{Meta: policy.Meta{Name: "shut"}, Spec: policy.PolicySpec{AppliesTo: []policy.Selector{{Port: "b"}},
		DefaultDeny: &policy.DefaultDeny{Ingress: new(true)}}}
	toA := allow("b", policy.Egress, policy.Rule{To: []policy.Selector{{Port: "a"}}})
	packet := func(proto uint8, src, dst uint16) policy.Packet {
		return policy.Packet{Bridge: "br0", Src: a, Dst: b, SrcIP: netip.MustParseAddr("10.0.0.1"), DstIP: netip.MustParseAddr("10.0.0.2"),
			Proto: proto, SrcPort: src, DstPort: dst}
	}
	for _, tt := range []struct {
		name     string
		was, now policy.Set
		p        policy.Packet
		goesOn   bool
	}{
		{"a member leaves", policy.Set{Policies: ofGroup, Groups: group("", policy.Selector{Port: "a"})},
			policy.Set{Policies: ofGroup, Groups: group("")}, packet(6, 4000, 80), false},
		{"a member leaves a group that keeps", policy.Set{Policies: ofGroup, Groups: group("keep", policy.Selector{Port: "a"})},
			policy.Set{Policies: ofGroup, Groups: group("keep")}, packet(6, 4000, 80), true},
		{"and the rule goes", policy.Set{Policies: ofGroup, Groups: group("keep", policy.Selector{Port: "a"})},
			policy.Set{Policies: []*policy.Policy{shut}, Groups: group("keep")}, packet(6, 4000, 80), false},
		{"from another port", policy.Set{}, policy.Set{Policies: []*policy.Policy{shut, toA}}, packet(17, 4000, 500), false},
		{"from the same port, and a rule allows the other direction", policy.Set{}, policy.Set{Policies: []*policy.Policy{shut, toA}},
			packet(17, 500, 500), true},
		{"from the same port, and no rule does", policy.Set{}, policy.Set{Policies: []*policy.Policy{shut}}, packet(17, 500, 500), false},
		{"a tunnel", policy.Set{}, policy.Set{Policies: []*policy.Policy{shut, toA}}, packet(47, 0, 0), true},
	} {
		tt.was.Workloads, tt.now.Workloads = ws, ws
		o, ok := newForecast(&tt.was, &tt.now).of(tt.p)
		if !ok || !o.before.Effect.Passes() || o.goesOn != tt.goesOn {
			t.Errorf("%s: %+v, want that it goes on: %v", tt.name, o, tt.goesOn)
		}
	}
	// Who is an endpoint no longer is judged as nobody.
	f := newForecast(&policy.Set{Workloads: ws}, &policy.Set{Workloads: ws[:1], Policies: []*policy.Policy{shut}})
	if o, _ := f.of(packet(6, 4000, 80)); !o.goesOn || o.after.Ingress.Judged {
		t.Errorf("the endpoint is gone: %+v", o)
	}
}
