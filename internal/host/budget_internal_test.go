package host

import (
	"testing"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// Only what names something new may part classes and numbers: a policy whose lists others have, too, is not worth a whole compilation.
func TestParting(t *testing.T) {
	web := []policy.Selector{{Labels: map[string]string{"app": "web", "env": "prod"}}}
	db := []policy.Selector{{Labels: map[string]string{"app": "db", "env": "prod"}}}
	ssh, sql := []policy.Service{{Protocol: "tcp", Ports: []string{"22"}}}, []policy.Service{{Protocol: "tcp", Ports: []string{"5432"}}}
	p := func(name string, to, from []policy.Selector, services []policy.Service) *policy.Policy {
		return &policy.Policy{Meta: policy.Meta{Name: name}, Spec: policy.PolicySpec{AppliesTo: to,
			Ingress: []policy.Rule{{Name: "r", Action: policy.Allow, From: from, Services: services}}}}
	}
	v := &view{resources: newCatalog().with([]backend.Change{
		{Kind: policy.KindPolicy, Name: "a", Resource: p("a", web, db, ssh)},
		{Kind: policy.KindPolicy, Name: "b", Resource: p("b", db, web, sql)},
	})}
	cidr := []policy.Selector{{CIDR: "10.0.0.0/8"}}
	for _, tc := range []struct {
		name     string
		resource policy.Resource
		want     int
	}{
		{"the lists of others, each from another", p("c", web, web, sql), 0},
		{"it applies to others", p("c", []policy.Selector{{Labels: map[string]string{"app": "web"}}}, web, sql), 1},
		{"other peers", p("c", web, []policy.Selector{web[0], db[0]}, sql), 1},
		{"other services", p("c", web, web, []policy.Service{{Protocol: "tcp", SourcePorts: []string{"22"}}}), 1},
		{"peers that are addresses", p("c", web, cidr, sql), 0},
		{"an endpoint", &policy.Endpoint{}, 1},
		{"a deletion", nil, 0},
	} {
		if got := v.parting([]backend.Change{{Kind: policy.KindPolicy, Name: "c", Resource: tc.resource}}); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
	numbered := wallView{usage: []wall.Use{{Limit: "address-numbers", Used: 1, Max: 9}}}
	v.walls = []wallView{numbered}
	if got := v.parting([]backend.Change{{Resource: p("c", web, cidr, sql)}}); got != 1 {
		t.Errorf("where addresses are numbered, others part them %d times, want 1", got)
	}
}
