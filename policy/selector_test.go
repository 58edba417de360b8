package policy_test

import (
	"testing"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/inventory"
)

// machine is a port with the machine that an orchestrator says is there, and more external_ids as keys and values.
func machine(port, id string, more ...string) *vswitch.Port {
	ids := map[string]string{"vm-id": id}
	for i := 0; i < len(more); i += 2 {
		ids[more[i]] = more[i+1]
	}
	return &vswitch.Port{Name: port, Interfaces: []*vswitch.Interface{{Name: port, OFPort: 1, ExternalIDs: ids}}}
}

// workloads are those of the ports of bridges and of Endpoint resources.
func workloads(bridges map[string][]*vswitch.Port, endpoints []*policy.Endpoint) []*policy.Workload {
	h := inventory.Host{Topology: &vswitch.Topology{Bridges: map[string]*vswitch.Bridge{}}}
	for name, ports := range bridges {
		b := &vswitch.Bridge{Name: name, Ports: map[string]*vswitch.Port{}}
		for _, p := range ports {
			b.Ports[p.Name] = p
		}
		h.Topology.Bridges[name] = b
		h.Bridges = append(h.Bridges, name)
	}
	return inventory.Build([]inventory.Host{h}, endpoints).Workloads
}

func TestMatchesWorkload(t *testing.T) {
	w := &policy.Workload{
		Key: "i", Bridge: "br0", Port: "tap1", MAC: "52:54:00:00:00:0a", VLAN: 10, Endpoint: "vm1",
		Labels: map[string]string{"app": "web", "tier": "", "iface-id": "i", "vm-uuid": "u", "vm-name": "n"},
	}
	untagged := &policy.Workload{Key: "k", Bridge: "br1", Port: "tap2"}
	tests := []struct {
		name     string
		selector policy.Selector
		w        *policy.Workload
		want     bool
	}{
		{"OK label", policy.Selector{Labels: map[string]string{"app": "web"}}, w, true},
		{"OK all labels", policy.Selector{Labels: map[string]string{"app": "web", "tier": ""}}, w, true},
		{"bad one label differs", policy.Selector{Labels: map[string]string{"app": "web", "tier": "x"}}, w, false},
		{"bad empty is not absent", policy.Selector{Labels: map[string]string{"zone": ""}}, w, false},
		{"bad no labels", policy.Selector{Labels: map[string]string{}}, w, false},
		{"OK vm by uuid", policy.Selector{VM: "u"}, w, true},
		{"OK vm by name", policy.Selector{VM: "n"}, w, true},
		{"OK vm by endpoint", policy.Selector{VM: "vm1"}, w, true},
		{"bad vm", policy.Selector{VM: "web"}, w, false},
		{"OK Neutron port", policy.Selector{NeutronPort: "i"}, w, true},
		{"bad Neutron port", policy.Selector{NeutronPort: "j"}, untagged, false},
		{"OK MAC in any case", policy.Selector{MAC: "52:54:00:00:00:0A"}, w, true},
		{"bad MAC unknown", policy.Selector{MAC: "52:54:00:00:00:0a"}, untagged, false},
		{"OK port", policy.Selector{Port: "tap1"}, w, true},
		{"OK VLAN", policy.Selector{VLAN: new(10)}, w, true},
		{"bad VLAN", policy.Selector{VLAN: new(10)}, untagged, false},
		{"bad VLAN 0", policy.Selector{VLAN: new(0)}, untagged, false},
		{"OK bridge", policy.Selector{Bridge: "br0"}, w, true},
		{"bad bridge", policy.Selector{Bridge: "br0"}, untagged, false},
		{"bad cidr, entity, group and nothing are not for here", policy.Selector{CIDR: "0.0.0.0/0"}, w, false},
		{"bad entity", policy.Selector{Entity: "any"}, w, false},
		{"bad group", policy.Selector{Group: "g"}, w, false},
		{"bad nothing", policy.Selector{}, w, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.selector.MatchesWorkload(tt.w); got != tt.want {
				t.Errorf("%v matches: %v", tt.selector, got)
			}
		})
	}
}
