package tap_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/policy"
)

// A mirror to a VLAN is a row on each bridge with sources, also beside another one to the same VLAN.
func TestRSPAN(t *testing.T) {
	web := policy.Selector{Labels: map[string]string{"app": "web"}}
	to := policy.MirrorTarget{RSPAN: &policy.RSPANTarget{VLAN: 100, AcknowledgeFlooding: true}}
	in := mirrorWorld()
	in.Mirrors = []*policy.Mirror{mirror("a", to, web), mirror("b", to, policy.Selector{Port: "vm1"})}
	plan := compile(in)
	var rows []string
	for _, s := range plan.Specs {
		rows = append(rows, s.Owner+" "+s.Bridge)
		if s.OutputVLAN != 100 || s.Output.Port != "" {
			t.Errorf("%+v", s)
		}
	}
	if want := []string{"a br0", "a br1", "b br0"}; !slices.Equal(rows, want) {
		t.Errorf("rows %v, want %v", rows, want)
	}
	if len(plan.Bridges)+len(plan.Ports) > 0 || plan.Info["a"].Form.Staged || plan.Info["a"].Targets[0]["vlan"] != "100" {
		t.Errorf("%+v", plan.Info["a"])
	}

	vlan := 100
	in = mirrorWorld()
	in.Topology.Bridges["br0"].Ports["vm1"].Tag = &vlan
	in.Mirrors = []*policy.Mirror{mirror("a", to, policy.Selector{Port: "vm1"}), mirror("all", to, policy.Selector{Bridge: "br0"})}
	plan = compile(in)
	if p := plan.Info["a"].Problems; len(p) != 1 || p[0].Reason != policy.ReasonSourceCarriesTarget ||
		!strings.Contains(p[0].Message, "VLAN 100") {
		t.Errorf("a source of the VLAN: %+v", p)
	}
	if len(plan.Specs) != 1 || !plan.Specs[0].SelectAll {
		t.Errorf("a bridge with a port of the VLAN: %+v, %s", plan.Specs, codes(plan.Info["all"]))
	}
}
