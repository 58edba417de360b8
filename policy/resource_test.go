package policy_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/policy"
)

func TestKinds(t *testing.T) {
	var got []string
	for _, k := range policy.Kinds() {
		r := policy.New(k)
		if r == nil || r.Kind() != k {
			t.Errorf("New(%s) is %v", k, r)
			continue
		}
		r.GetMeta().Name = "x"
		if r.GetMeta().Name != "x" {
			t.Errorf("GetMeta of %s is a copy", k)
		}
		got = append(got, k.String()+" "+k.Plural())
	}
	want := []string{"Endpoint endpoints", "Group groups", "Policy policies", "Mirror mirrors", "Quarantine quarantines"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if policy.New("List") != nil || policy.Kind("List").Plural() != "" {
		t.Error("List is taken for a resource")
	}
}

func TestWithDefaults(t *testing.T) {
	m := &policy.Mirror{Spec: policy.MirrorSpec{Targets: []policy.MirrorTarget{{VXLAN: &policy.VXLANTarget{Remote: "192.0.2.1"}}}}}
	wantMirror := &policy.Mirror{Spec: policy.MirrorSpec{Enabled: new(true), Direction: "both",
		Targets: []policy.MirrorTarget{{VXLAN: &policy.VXLANTarget{Remote: "192.0.2.1", DstPort: 4789}}}}}
	if diff := cmp.Diff(policy.Resource(wantMirror), m.WithDefaults()); diff != "" {
		t.Errorf("mirror (-want +got)\n%s", diff)
	}
	if m.Spec.Enabled != nil || m.Spec.Targets[0].VXLAN.DstPort != 0 {
		t.Error("WithDefaults changed the mirror itself")
	}
	rules := []policy.Rule{{Name: "r", Action: policy.Allow}}
	tests := []struct {
		name string
		spec policy.PolicySpec
		want policy.PolicySpec
	}{
		{"nothing given", policy.PolicySpec{},
			policy.PolicySpec{Tier: "application", Priority: new(100), Mode: "enforce", DefaultDeny: &policy.DefaultDeny{Ingress: new(false),
				Egress: new(false)}}},
		{"each direction with a rule is denied", policy.PolicySpec{Egress: rules, Tier: "security", Priority: new(0)},
			policy.PolicySpec{Egress: rules, Tier: "security", Priority: new(0), Mode: "enforce",
				DefaultDeny: &policy.DefaultDeny{Ingress: new(false), Egress: new(true)}}},
		{"what is given stays", policy.PolicySpec{Ingress: rules, DefaultDeny: &policy.DefaultDeny{Ingress: new(false), Egress: new(true),
			Log: true}},
			policy.PolicySpec{Ingress: rules, Tier: "application", Priority: new(100), Mode: "enforce",
				DefaultDeny: &policy.DefaultDeny{Ingress: new(false), Egress: new(true), Log: true}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &policy.Policy{Spec: tt.spec}
			got := p.WithDefaults().(*policy.Policy)
			if diff := cmp.Diff(tt.want, got.Spec); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
				if got.Isolates(d) != p.Isolates(d) {
					t.Errorf("%s: defaults changed what is isolated", d)
				}
			}
		})
	}
}

// What is changed in a clone does not show in the original, at any depth.
func TestCloneSharesNothing(t *testing.T) {
	p := everythingAsValues()[1].(*policy.Policy)
	p.Labels = map[string]string{"a": "b"}
	c := p.Clone().(*policy.Policy)
	c.Labels["a"] = "x"
	*c.Spec.Priority = 1
	c.Spec.AppliesTo[0].Labels["app"] = "x"
	c.Spec.Ingress[0].From[1].Except[0] = "x"
	c.Spec.Ingress[0].Services[0].Ports[0] = "x"
	*c.Spec.DefaultDeny.Egress = true
	want := everythingAsValues()[1].(*policy.Policy)
	want.Labels = map[string]string{"a": "b"}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestRankOrder(t *testing.T) {
	rank := func(tier policy.Tier, priority int, action policy.Effect) policy.Rank {
		p := &policy.Policy{Spec: policy.PolicySpec{Tier: tier, Priority: &priority}}
		return policy.RankOf(p, &policy.Rule{Action: action})
	}
	order := []policy.Rank{
		rank(policy.TierEmergency, 65535, policy.Allow), rank(policy.TierSecurity, 0, policy.Deny), rank(policy.TierSecurity, 0, policy.Allow),
		rank("", 99, policy.Allow), rank(policy.TierApplication, 100, policy.Deny), rank("", 100, policy.Reject), rank("", 100, policy.Audit),
		rank("", 100, policy.Allow), rank("", 100, policy.Pass), rank(policy.TierBaseline, 0, policy.Deny),
	}
	for i, a := range order {
		for j, b := range order {
			if got := a.Compare(b); got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%+v against %+v is %d", a, b, got)
			}
		}
	}
}

func TestSelectorString(t *testing.T) {
	for want, s := range map[string]policy.Selector{
		"labels a=1,b=2":                     {Labels: map[string]string{"b": "2", "a": "1"}},
		"cidr 10.0.0.0/8 except 10.1.0.0/16": {CIDR: "10.0.0.0/8", Except: []string{"10.1.0.0/16"}},
		"cidr ::/0":                          {CIDR: "::/0"},
		"vlan 7":                             {VLAN: new(7)},
		"mac 52:54:00:00:00:0a":              {MAC: "52:54:00:00:00:0A"},
		"group g":                            {Group: "g"},
		"invalid selector":                   {},
	} {
		if got := fmt.Sprint(s); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestRefs(t *testing.T) {
	got := policy.Refs(everythingAsValues()[1])
	if diff := cmp.Diff([]policy.Ref{{Pointer: "/spec/ingress/0/from/0/group", Kind: policy.KindGroup, Name: "lbs"}}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
