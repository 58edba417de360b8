package wall_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// TestDocument keeps docs/pipeline.md what the code says, with examples that are compiled.
func TestDocument(t *testing.T) {
	const file = "../../../docs/pipeline.md"
	fw, err := wall.NewFirewall(wall.Options{Bridge: "br0", Record: recordAll})
	if err != nil {
		t.Fatal(err)
	}
	endpoint := func(key string, port uint32, mac string) *policy.Workload {
		return &policy.Workload{Key: key, Bridge: "br0", Port: key, OFPort: port, MAC: mac, VLAN: 10, Labels: map[string]string{"app": key}}
	}
	router := endpoint("router", 4, "52:54:00:00:00:04")
	router.Forwards = true
	cache := endpoint("cache", 5, "52:54:00:00:00:05")
	db := endpoint("db", 2, "52:54:00:00:00:02")
	db.Labels["tier"], cache.Labels["tier"] = "data", "data"
	fw.SetWorkloads([]*policy.Workload{endpoint("web", 1, "52:54:00:00:00:01"), db, cache, router},
		[]wall.Port{{Name: "eth0", OFPort: 3, Tagged: true}})
	var networks []policy.Selector
	for _, cidr := range []string{"10.1.0.0/16", "10.3.0.0/16", "10.5.0.0/16", "10.7.0.0/16", "10.9.0.0/16"} {
		networks = append(networks, policy.Selector{CIDR: cidr})
	}
	fw.SetGroups([]*policy.Group{{Meta: policy.Meta{Name: "offices"}, Spec: policy.GroupSpec{Members: networks}}})
	offices, long := []policy.Selector{{Group: "offices"}}, tcp("22", "8000-8099", "9000-9999")
	fw.SetPolicy(&policy.Policy{Meta: policy.Meta{Name: "web"}, Spec: policy.PolicySpec{
		AppliesTo: []policy.Selector{app("web")},
		Ingress: []policy.Rule{
			{Name: "in", Action: policy.Allow, From: []policy.Selector{{Labels: map[string]string{"tier": "data"}}},
				Services: tcp("80", "443"), Log: policy.RuleLog{All: true}},
			{Name: "offices", Action: policy.Allow, From: offices, Services: long},
		},
		Egress: []policy.Rule{{Name: "back", Action: policy.Allow, To: offices, Log: policy.RuleLog{Sample: "1/100"}}},
	}})
	fw.SetPickup(true, nil)
	owners := fw.Compile().Owners
	fw.SetPolicy(&policy.Policy{Meta: policy.Meta{Name: "db"}, Spec: policy.PolicySpec{
		AppliesTo: []policy.Selector{app("db")},
		Ingress:   []policy.Rule{{Name: "in", Action: policy.Allow, From: []policy.Selector{app("web")}}},
	}}) // it parts db and cache
	maps.Copy(owners, fw.Compile().Owners)
	examples := map[uint8]flow.Flow{}
	// What a policy makes says more than a fixed flow.
	order := []string{wall.OwnerPolicy("web"), wall.OwnerEndpoint("web"), wall.OwnerServices}
	for _, owner := range slices.Sorted(maps.Keys(owners)) {
		if strings.HasPrefix(owner, "addresses/") {
			order = append(order, owner)
		}
	}
	for _, owner := range append(order, wall.OwnerSystem) {
		for _, f := range owners[owner] {
			if _, ok := examples[f.Table]; !ok {
				examples[f.Table] = f
			}
		}
	}
	var rules []flow.Flow
	for _, f := range owners[wall.OwnerPolicy("web")] {
		if text := f.String(); f.Table == pipeline.TableIngress || strings.Contains(text, "conjunction(") {
			rules = append(rules, f)
		}
	}
	got := pipeline.Document(examples, rules)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("run with -update (-file +code):\n%s", diff)
	}
	for _, table := range pipeline.Tables() {
		reserved := table.ID == pipeline.TableDNSAnswer
		if _, ok := examples[table.ID]; ok == reserved {
			t.Errorf("table %s has an example: %v", table.Name, ok)
		}
	}
}
