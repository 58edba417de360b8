package tap_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

func toVM(name string) policy.MirrorTarget { return policy.MirrorTarget{VM: name} }

// forced is a mirror that may deliver to whom it likes.
func forced(name string, target policy.MirrorTarget, sources ...policy.Selector) *policy.Mirror {
	m := mirror(name, target, sources...)
	m.Spec.Force = true
	return m
}

// A way back is a pair of patch ports, a row without sources that reserves the returning one, and one flow for each length that copies are
// cut to, and copies are sent on it only when that flow stands. Mirrors share it.
func TestWayBack(t *testing.T) {
	in := mirrorWorld()
	in.Mirrors = []*policy.Mirror{forced("a", toVM("vm2"), policy.Selector{Port: "vm1"}), forced("b", toPort("vm2"),
		policy.Selector{Port: "vm1"})}
	in.Mirrors[1].Spec.Snaplen = 100
	plan := stagedWorld(in)
	if len(plan.Ways) != 1 || len(plan.Specs) != 2 {
		t.Fatalf("ways %v, rows %+v", plan.Ways, plan.Specs)
	}
	for key, way := range plan.Ways {
		var row *vswitch.MirrorSpec
		for i := range plan.Specs {
			if plan.Specs[i].Owner == way.Owner {
				row = &plan.Specs[i]
			}
		}
		want := &vswitch.MirrorSpec{Owner: "targets/vm2", Bridge: "br0", Name: "tapwall-" + key, Output: vswitch.OutputSpec{Port: "twr-" + key}}
		if diff := cmp.Diff(want, row); diff != "" {
			t.Errorf("row (-want +got):\n%s", diff)
		}
		var flows []string
		for _, f := range plan.Flows["br0"].Owners[way.Owner] {
			flows = append(flows, f.String())
		}
		in0 := in.Topology.Bridges["br0"].Ports["twr-"+key].Interfaces[0].OFPort
		text := "cookie=0x7a9a110100000000, priority=65534,pkt_mark=%#x,in_port=%d actions=set_field:0->pkt_mark,%s"
		if diff := cmp.Diff([]string{fmt.Sprintf(text, 0x7a110000, in0, "output:2"),
			fmt.Sprintf(text, 0x7a110064, in0, "output(port=2,max_len=100)")}, flows); diff != "" {
			t.Errorf("flows (-want +got):\n%s", diff)
		}
	}
	closed := compile(in) // as if nobody had seen the flow
	for _, owned := range closed.Flows[tapBridge].Owners {
		for _, f := range owned {
			if strings.Contains(f.String(), "pkt_mark") {
				t.Errorf("copies are sent on a way that does not stand: %s", &f)
			}
		}
	}
	if !closed.Info["a"].Unfinished || plan.Info["a"].Unfinished {
		t.Error("a mirror whose way does not stand is not Unfinished, or one whose way stands is")
	}
	// Without the row that reserves the returning port there is no flow either.
	in.Topology.Bridges["br0"].Mirrors = nil
	if plan := compile(in); len(plan.Flows["br0"].Owners) > 0 || !plan.Info["a"].Unfinished {
		t.Errorf("without the row: %v", plan.Flows["br0"])
	}
	// The machine moves, and the way with it.
	in.Topology.Bridges["br1"].Ports["vm2"] = in.Topology.Bridges["br0"].Ports["vm2"]
	delete(in.Topology.Bridges["br0"].Ports, "vm2")
	for _, way := range stagedWorld(in).Ways {
		if way.Bridge != "br1" {
			t.Errorf("a way to %s, want br1", way.Bridge)
		}
	}
}

// Where one row would not do, a target that exists is reached by a way back, too: from other bridges, and for several mirrors.
func TestWayBackByCircumstances(t *testing.T) {
	for _, c := range []struct {
		name    string
		mirrors []*policy.Mirror
		rows    map[string]int // by bridge
		warns   string
	}{
		{"sources on two bridges", []*policy.Mirror{mirror("m", toPort("ids"), policy.Selector{Labels: map[string]string{"app": "web"}})},
			map[string]int{"br0": 2, "br1": 1}, ""},
		{"sources elsewhere", []*policy.Mirror{mirror("m", toPort("ids"), policy.Selector{Port: "vm3"})}, map[string]int{"br0": 1, "br1": 1}, ""},
		{"a target in common", []*policy.Mirror{mirror("m", toPort("ids"), policy.Selector{Port: "vm1"}),
			mirror("n", toPort("ids"), policy.Selector{Port: "vm2"})}, map[string]int{"br0": 3}, ""},
		{"everything", []*policy.Mirror{mirror("m", toPort("ids"), policy.Selector{Bridge: "br0"}, policy.Selector{Bridge: "br1"})},
			map[string]int{"br0": 2, "br1": 1}, "TARGET_EXCLUDED"},
		{"by itself", []*policy.Mirror{mirror("m", toPort("ids"), policy.Selector{Bridge: "br0"})}, map[string]int{"br0": 1}, ""},
	} {
		in := mirrorWorld()
		in.Mirrors = c.mirrors
		plan := stagedWorld(in)
		if diff := cmp.Diff(c.rows, count(plan.Specs)); diff != "" {
			t.Errorf("%s: rows (-want +got):\n%s", c.name, diff)
		}
		for _, m := range c.mirrors {
			info := plan.Info[m.Name]
			if codes(info) != c.warns || info.Unfinished || info.Form.Staged != (len(info.Ways) == 1) || info.Form.Staged == (len(plan.Specs) == 1) {
				t.Errorf("%s: %s: %+v", c.name, m.Name, info)
			}
		}
	}
}

// What may be a target by a way back, and what is said of the others.
func TestWayBackTargets(t *testing.T) {
	vm1 := []policy.Selector{{Port: "vm1"}}
	for _, c := range []struct {
		name   string
		target policy.MirrorTarget
		want   string
		says   string
	}{
		{"port", toPort("ids"), "", ""},
		{"vm", toVM("vm2"), "", ""},
		{"vm of another bridge", toVM("vm3"), "", ""},
		{"endpoint by port", toPort("vm2"), "", ""},
		{"no such vm", toVM("vm9"), "TargetMissing!", "no managed bridge of this host has a port of the machine vm9"},
		{"no such port", toPort("nope"), "TargetMissing!", "create: true would make it"},
		{"of an unmanaged bridge", toPort("vm9"), "TargetMissing!", "no managed bridge"},
		{"LOCAL", toPort("br0"), "OutputPortTaken!", "LOCAL"},
		{"LOCAL of another bridge", toPort("br1"), "OutputPortTaken!", "LOCAL"},
		{"patch", toPort("patch0"), "OutputPortTaken!", "leads from bridge br0 to another one"},
		{"tunnel", toPort("vx0"), "OutputPortTaken!", "is a tunnel"},
		{"bond", toPort("bond0"), "OutputPortTaken!", "to the network"},
		{"the only network card", toPort("eth0"), "OutputPortTaken!", "leads from bridge br0 to the network"},
		{"the host's address", toPort("mgmt"), "OutputPortTaken!", "has an address of this host"},
		{"ours", toPort("old"), "OutputPortTaken!", "was made by tapwall"},
		{"taken by a foreign mirror", toPort("acc"), "OutputPortTaken!", "is the output of mirror spy, which is not tapwall's"},
		{"a machine with two ports", toVM("twice"), "TargetAmbiguous!", "has 2 ports (br0/two0, br0/two1)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := mirrorWorld()
			br0 := in.Topology.Bridges["br0"]
			add := func(name, kind string, ids map[string]string, more ...string) {
				p := &vswitch.Port{Name: name}
				for i, n := range append([]string{name}, more...) {
					p.Interfaces = append(p.Interfaces, &vswitch.Interface{Name: n, Type: kind, OFPort: int64(30 + i), ExternalIDs: ids})
				}
				br0.Ports[name] = p
			}
			add("patch0", "patch", nil)
			add("bond0", "", nil, "bond1")
			add("mgmt", "internal", nil)
			add("two0", "", map[string]string{"vm-id": "twice", "iface-id": "t0"})
			add("two1", "", map[string]string{"vm-id": "twice", "iface-id": "t1"})
			in.Addressed, in.Hardware = map[string]bool{"mgmt": true}, map[string]bool{"eth0": true}
			br0.Mirrors = append(br0.Mirrors, &vswitch.Mirror{Name: "spy", OutputPort: "acc"})
			in.Mirrors = []*policy.Mirror{forced("m", c.target, vm1...)}
			plan := stagedWorld(in)
			info := plan.Info["m"]
			if got := codes(info); got != c.want {
				t.Errorf("%q, want %q: %v", got, c.want, info)
			}
			if c.want != "" && !strings.Contains(info.Problems[0].Message, c.says) {
				t.Errorf("says %q", info.Problems[0].Message)
			}
			if refused := c.want != ""; refused == (len(plan.Ways) == 1) || refused == (len(plan.Specs) == 2) {
				t.Errorf("ways %v, rows %+v", plan.Ways, plan.Specs)
			}
			// Beside a target that can be had, it costs that nothing.
			in.Mirrors[0].Spec.Targets = append(in.Mirrors[0].Spec.Targets, toNewPort("tap0"))
			if got, want := codes(stagedWorld(in).Info["m"]), strings.TrimSuffix(c.want, "!"); got != want {
				t.Errorf("beside another target %q, want %q", got, want)
			}
		})
	}
	in := mirrorWorld()
	for i, target := range []policy.MirrorTarget{toPort("vm2"), toPort("ids")} {
		in.Mirrors = []*policy.Mirror{mirror("m", target, vm1...)}
		in.Mirrors[0].Spec.Snaplen = 100
		if got, want := codes(stagedWorld(in).Info["m"]), []string{"OutputPortTaken!", ""}[i]; got != want {
			t.Errorf("unforced %+v: %q, want %q", target.Port, got, want)
		}
	}
}

// What is delivered to a port is never copied from it: not by its own mirror, which leaves it out or is refused, and not by others.
func TestWayBackCopiesNoCopies(t *testing.T) {
	for _, c := range []struct {
		name      string
		sources   []policy.Selector
		direction string
		want      string
		src, dst  []string // of the row of mirror m, which delivers to vm2, on br0
	}{
		{"its bridge", []policy.Selector{{Bridge: "br0"}}, "", "TARGET_EXCLUDED", []string{"acc", "br0", "eth0", "ids", "vm1"},
			[]string{"acc", "br0", "eth0", "ids", "vm1"}},
		{"its label", []policy.Selector{{Labels: map[string]string{"app": "db"}}, {Port: "vm1"}}, "toSource", "TARGET_EXCLUDED", nil,
			[]string{"vm1"}},
		{"by name", []policy.Selector{{VM: "vm2"}, {Port: "vm1"}}, "", "SourceCarriesTarget!", nil, nil},
		{"by port", []policy.Selector{{Port: "vm2"}, {Port: "vm1"}}, "", "SourceCarriesTarget!", nil, nil},
	} {
		in := mirrorWorld()
		m := forced("m", toVM("vm2"), c.sources...)
		m.Spec.Direction = c.direction
		in.Mirrors = []*policy.Mirror{m}
		plan := stagedWorld(in)
		if got := codes(plan.Info["m"]); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		i := slices.IndexFunc(plan.Specs, func(s vswitch.MirrorSpec) bool { return strings.HasPrefix(s.Owner, "sources/") })
		if (i < 0) != (c.src == nil && c.dst == nil) {
			t.Errorf("%s: rows %+v", c.name, plan.Specs)
			continue
		}
		if i < 0 {
			continue
		}
		if row := plan.Specs[i]; row.SelectAll || !slices.Equal(row.SelectSrcPort, c.src) || !slices.Equal(row.SelectDstPort, c.dst) {
			t.Errorf("%s: row %+v", c.name, row)
		}
	}
	// Another mirror, of whatever form, copies what the target sends, and not what it gets.
	in := mirrorWorld()
	other, all := mirror("other", toPort("ids"), policy.Selector{Port: "vm2"}), mirror("all", toNewPort("tap0"),
		policy.Selector{Bridge: "br0"})
	deaf := mirror("deaf", toNewPort("tap0"), policy.Selector{VM: "vm2"})
	deaf.Spec.Direction, deaf.Spec.Snaplen = "toSource", 100
	in.Mirrors = []*policy.Mirror{forced("m", toVM("vm2"), policy.Selector{Port: "vm1"}), other, all, deaf}
	in.Mirrors[2].Spec.Snaplen = 100
	plan := stagedWorld(in)
	for _, row := range plan.Specs {
		if row.SelectAll || slices.Contains(row.SelectDstPort, "vm2") {
			t.Errorf("copies would be copied: %+v", row)
		}
		if row.Owner == "other" && !slices.Contains(row.SelectSrcPort, "vm2") {
			t.Errorf("what the target sends is not copied: %+v", row)
		}
	}
	for name, want := range map[string]string{"m": "", "other": "TARGET_EXCLUDED", "all": "TARGET_EXCLUDED",
		"deaf": "SourceMissing TARGET_EXCLUDED"} {
		if got := codes(plan.Info[name]); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
