package tap_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

func toFiles(name string) policy.MirrorTarget {
	return policy.MirrorTarget{Pcap: &policy.PcapTarget{File: name}}
}

// What this host reads itself is a port of the tap bridge, which gets what the mirror's other targets get, and is told from other mirrors'.
func TestCapture(t *testing.T) {
	in := mirrorWorld()
	m := mirror("web", toFiles("web.pcapng"), policy.Selector{Port: "vm1"}, policy.Selector{Port: "eth0"})
	m.Spec.Direction = policy.MirrorToSource
	m.Spec.Targets = append(m.Spec.Targets, toNewPort("tap0"))
	in.Mirrors = []*policy.Mirror{m, mirror("db", toFiles("db"), policy.Selector{Port: "vm2"})}
	plan := stagedWorld(in)
	info := plan.Info["web"]
	if len(info.Captures) != 1 || len(info.Problems) > 0 || info.Through != tapBridge {
		t.Fatalf("%+v", info)
	}
	c := info.Captures[0]
	want := tap.Capture{Port: c.Port, Pcap: &policy.PcapTarget{File: "web.pcapng"}, Direction: policy.MirrorToSource,
		Sources: []tap.CaptureSource{{Bridge: "br0", Port: "eth0"}, {Bridge: "br0", Port: "vm1", MACs: []string{"52:54:00:00:00:01"}}}}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"port": c.Port, "bridge": tapBridge, "pcap": "web", "rotate": "100000000", "keep": "10"},
		info.Targets[0]); diff != "" {
		t.Errorf("target (-want +got):\n%s", diff)
	}
	db := plan.Info["db"].Captures[0].Port
	x := tables{t: t, sent: map[uint32][]packet{}}
	for _, owned := range plan.Flows[tapBridge].Owners {
		x.flows = append(x.flows, owned...)
	}
	x.pass(in, plan.Specs, passage{Sighting: policy.Sighting{EtherType: 0x88cc}, bridge: "br0", from: "vm2", to: []string{"vm1"}})
	for port, copies := range map[string]int{c.Port: 1, "tap0": 1, db: 1} {
		if n := len(x.sent[number(in, port)]); n != copies {
			t.Errorf("%s got %d copies, want %d", port, n, copies)
		}
	}
	if i := slices.IndexFunc(plan.Ports, func(p vswitch.PortSpec) bool { return p.Name == c.Port }); i < 0 ||
		plan.Ports[i].Type != "internal" {
		t.Errorf("ports %+v", plan.Ports)
	}

	// A host whose devices are elsewhere cannot read them, and no two mirrors write one file.
	in.NoDevices = true
	if p := compile(in).Info["db"].Problems; len(p) != 1 || p[0].Reason != policy.ReasonNoLocalDevices || !p[0].Fatal {
		t.Errorf("%+v", p)
	}
	in.NoDevices = false
	in.Mirrors[1].Spec.Targets[0].Pcap.File = "web"
	if p := compile(in).Info["web"].Problems; len(p) != 1 || p[0].Reason != policy.ReasonOutputShared || !p[0].Fatal {
		t.Errorf("%+v", p)
	}
}
