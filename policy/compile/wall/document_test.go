package wall_test

import (
	"os"
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
	fw, err := wall.NewFirewall(wall.Options{Bridge: "br0"})
	if err != nil {
		t.Fatal(err)
	}
	endpoint := func(key string, port uint32, mac string) *policy.Workload {
		return &policy.Workload{Key: key, Bridge: "br0", Port: key, OFPort: port, MAC: mac, VLAN: 10, Labels: map[string]string{"app": key}}
	}
	router := endpoint("router", 4, "52:54:00:00:00:04")
	router.Forwards = true
	fw.SetWorkloads([]*policy.Workload{endpoint("web", 1, "52:54:00:00:00:01"), endpoint("db", 2, "52:54:00:00:00:02"), router},
		[]wall.Port{{Name: "eth0", OFPort: 3, Tagged: true}})
	fw.SetPolicy(&policy.Policy{Meta: policy.Meta{Name: "web"}, Spec: policy.PolicySpec{
		AppliesTo: []policy.Selector{app("web")},
		Ingress: []policy.Rule{{Name: "in", Action: policy.Allow, From: []policy.Selector{{CIDR: "10.0.0.0/24"}, app("db")},
			Services: tcp("80", "443"), Log: true}},
	}})
	fw.SetPickup(true, nil)
	c := fw.Compile()
	examples := map[uint8]flow.Flow{}
	// What a policy makes says more than a fixed flow.
	for _, owner := range []string{wall.OwnerPolicy("web"), wall.OwnerEndpoint("web"), wall.OwnerSystem} {
		for _, f := range c.Owners[owner] {
			if _, ok := examples[f.Table]; !ok {
				examples[f.Table] = f
			}
		}
	}
	got := pipeline.Document(examples)
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
		reserved := table.ID == pipeline.TableDNSAnswer || table.ID == pipeline.TableDNSResume
		if _, ok := examples[table.ID]; ok == reserved {
			t.Errorf("table %s has an example: %v", table.Name, ok)
		}
	}
}
