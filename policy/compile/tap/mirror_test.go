package tap_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
	"github.com/tapwall/tapwall/policy/inventory"
)

// mirrorWorld has br0 with two endpoints (vm1 app=web, vm2 app=db), an uplink, a collector port and an access port in VLAN 10; br1 has one
// endpoint (vm3 app=web) and an overlay tunnel; br9 is not managed.
func mirrorWorld() tap.Input {
	ten := 10
	port := func(name string, of int64) *vswitch.Port {
		return &vswitch.Port{Name: name, Interfaces: []*vswitch.Interface{{Name: name, OFPort: of, MTU: 1400}}}
	}
	bridge := func(name string, ports ...*vswitch.Port) *vswitch.Bridge {
		b := &vswitch.Bridge{Name: name, Ports: map[string]*vswitch.Port{name: port(name, 65534)}}
		for _, p := range ports {
			b.Ports[p.Name] = p
		}
		return b
	}
	acc, tunnel, old := port("acc", 5), port("vx0", 2), port("old", 9)
	acc.Tag = &ten
	tunnel.Interfaces[0].Type, tunnel.Interfaces[0].Options = "vxlan", map[string]string{"remote_ip": "192.0.2.50", "key": "flow"}
	old.ExternalIDs = map[string]string{vswitch.MarkOwner: vswitch.OwnerValue, vswitch.MarkMirror: "old"}
	machine := func(name string, of int64, app, mac string) *vswitch.Port {
		p := port(name, of)
		p.Interfaces[0].ExternalIDs = map[string]string{"app": app, "vm-id": name, "iface-id": "np-" + name, "attached-mac": mac}
		return p
	}
	return tap.Input{
		Topology: &vswitch.Topology{Bridges: map[string]*vswitch.Bridge{
			"br0": bridge("br0", machine("vm1", 1, "web", "52:54:00:00:00:01"), machine("vm2", 2, "db", "52:54:00:00:00:02"),
				port("eth0", 3), port("ids", 4), acc, old),
			"br1": bridge("br1", machine("vm3", 1, "web", "52:54:00:00:00:03"), tunnel),
			"br9": bridge("br9", port("vm9", 1)),
		}},
		Groups:  map[string]*policy.Group{"dbs": {Spec: policy.GroupSpec{Members: []policy.Selector{{Labels: map[string]string{"app": "db"}}}}}},
		Bridges: []string{"br1", "br0", "missing"},
	}
}

// compile compiles the mirrors with what is found in the topology; there is an endpoint with app=far elsewhere.
func compile(in tap.Input) tap.Plan {
	far := &policy.Endpoint{Meta: policy.Meta{Name: "far"}}
	far.Spec = policy.EndpointSpec{Match: policy.Selector{Port: "far"}, Labels: map[string]string{"app": "far"}}
	vm1 := &policy.Endpoint{Meta: policy.Meta{Name: "vm1"}}
	vm1.Spec = policy.EndpointSpec{Match: policy.Selector{Port: "vm1"}, Addresses: []string{"10.0.0.1"}}
	in.Inventory = inventory.Build([]inventory.Host{{Topology: in.Topology, Bridges: in.Bridges}}, []*policy.Endpoint{far, vm1})
	return tap.Compile(in)
}

// mirror is one for which a row suffices: into a tunnel nothing has to be cut.
func mirror(name string, target policy.MirrorTarget, sources ...policy.Selector) *policy.Mirror {
	m := &policy.Mirror{Meta: policy.Meta{Name: name}, Spec: policy.MirrorSpec{Sources: sources, Targets: []policy.MirrorTarget{target}}}
	if _, tunnel := target.Tunnel(); tunnel {
		m.Spec.MTUPolicy = policy.MTUFail
	}
	return m
}

func toPort(name string) policy.MirrorTarget {
	return policy.MirrorTarget{Port: &policy.PortTarget{Name: name}}
}

func toNewPort(name string) policy.MirrorTarget {
	return policy.MirrorTarget{Port: &policy.PortTarget{Name: name, Create: true}}
}

func toVXLAN(remote string, vni int) policy.MirrorTarget {
	v := &policy.VXLANTarget{Remote: remote}
	if vni >= 0 {
		v.VNI = &vni
	}
	return policy.MirrorTarget{VXLAN: v}
}

func TestMirrorSources(t *testing.T) {
	ten := 10
	ids := vswitch.OutputSpec{Port: "ids"}
	both := func(ports ...string) vswitch.MirrorSpec {
		return vswitch.MirrorSpec{SelectSrcPort: ports, SelectDstPort: ports, Output: ids}
	}
	for _, c := range []struct {
		name    string
		sources []policy.Selector
		exclude []policy.Selector
		dir     string
		want    *vswitch.MirrorSpec // nil = none; Owner, Bridge br0 and Name are understood
		codes   string
	}{
		{"port", []policy.Selector{{Port: "vm1"}}, nil, "", ptr(both("vm1")), ""},
		{"port that is no endpoint", []policy.Selector{{Port: "eth0"}}, nil, "both", ptr(both("eth0")), ""},
		{"vm", []policy.Selector{{VM: "vm2"}}, nil, "", ptr(both("vm2")), ""},
		{"neutron port", []policy.Selector{{NeutronPort: "np-vm2"}}, nil, "", ptr(both("vm2")), ""},
		{"mac", []policy.Selector{{MAC: "52:54:00:00:00:01"}}, nil, "", ptr(both("vm1")), ""},
		{"group", []policy.Selector{{Group: "dbs"}}, nil, "", ptr(both("vm2")), ""},
		{"several, one twice", []policy.Selector{{Port: "vm2"}, {VM: "vm1"}, {Port: "vm1"}}, nil, "", ptr(both("vm1", "vm2")), ""},
		{"from the source", []policy.Selector{{Port: "vm1"}}, nil, "fromSource", &vswitch.MirrorSpec{SelectSrcPort: []string{"vm1"},
			Output: ids}, ""},
		{"to the source", []policy.Selector{{Port: "vm1"}}, nil, "toSource", &vswitch.MirrorSpec{SelectDstPort: []string{"vm1"}, Output: ids},
			""},
		{"bridge", []policy.Selector{{Bridge: "br0"}}, nil, "", &vswitch.MirrorSpec{SelectAll: true, Output: ids}, ""},
		{"bridge, one direction", []policy.Selector{{Bridge: "br0"}}, nil, "fromSource",
			&vswitch.MirrorSpec{SelectSrcPort: []string{"acc", "br0", "eth0", "vm1", "vm2"}, Output: ids}, ""},
		{"bridge without a vm", []policy.Selector{{Bridge: "br0"}}, []policy.Selector{{VM: "vm2"}, {Port: "br0"}}, "",
			ptr(both("acc", "eth0", "vm1")), ""},
		{"vlan", []policy.Selector{{VLAN: &ten}}, nil, "", &vswitch.MirrorSpec{SelectAll: true, SelectVLAN: []int{10}, Output: ids},
			""},
		{"vlan without its access port", []policy.Selector{{VLAN: &ten}}, []policy.Selector{{VLAN: &ten}}, "",
			&vswitch.MirrorSpec{SelectSrcPort: []string{"br0", "eth0", "vm1", "vm2"}, SelectDstPort: []string{"br0", "eth0", "vm1", "vm2"},
				SelectVLAN: []int{10}, Output: ids},
			""},
		{"labels", []policy.Selector{{Labels: map[string]string{"app": "web"}}}, nil, "", ptr(both("vm1")), ""},
		{"missing port beside another", []policy.Selector{{Port: "vm1"}, {Port: "vm7"}}, nil, "", ptr(both("vm1")), "SourceMissing"},
		{"bad: missing vm", []policy.Selector{{VM: "vm7"}}, nil, "", nil, "SourceMissing"},
		{"bad: labels of nobody here", []policy.Selector{{Labels: map[string]string{"app": "far"}}}, nil, "", nil, "SourceMissing"},
		{"bad: port of a bridge that is not managed", []policy.Selector{{Port: "vm9"}}, nil, "", nil, "SourceMissing"},
		{"bad: everything excluded", []policy.Selector{{Port: "vm1"}}, []policy.Selector{{VM: "vm1"}}, "", nil, "SourceMissing"},
		{"bad: source is target", []policy.Selector{{Port: "ids"}, {Port: "vm1"}}, nil, "", nil, "SourceCarriesTarget!"},
		{"bad: source is tapwall's", []policy.Selector{{Port: "old"}, {Port: "vm1"}}, nil, "", nil, "SourceCarriesTarget!"},
		{"address range", []policy.Selector{{CIDR: "10.0.0.0/24"}}, nil, "", ptr(both("vm1")), ""},
		{"address range, excepted", []policy.Selector{{CIDR: "10.0.0.0/24", Except: []string{"10.0.0.1/32"}}, {Port: "vm2"}}, nil, "",
			ptr(both("vm2")), ""},
		{"address range, excluded", []policy.Selector{{Bridge: "br0"}}, []policy.Selector{{CIDR: "10.0.0.1/32"}}, "",
			ptr(both("acc", "br0", "eth0", "vm2")), ""},
		{"bad: address range of nobody", []policy.Selector{{CIDR: "10.9.0.0/16"}}, nil, "", nil, "SourceMissing"},
		{"bad: source on a bridge that is not managed", []policy.Selector{{Port: "vm3"}}, nil, "", nil, "SourceMissing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := mirrorWorld()
			in.Bridges = []string{"br0", "missing"} // sources on br1 would take another form
			m := mirror("m", toPort("ids"), c.sources...)
			m.Spec.Exclude, m.Spec.Direction = c.exclude, c.dir
			in.Mirrors = []*policy.Mirror{m}
			plan := compile(in)
			var want []vswitch.MirrorSpec
			if c.want != nil {
				c.want.Owner, c.want.Bridge, c.want.Name = "m", "br0", "tapwall-m"
				want = append(want, *c.want)
			}
			if diff := cmp.Diff(want, plan.Specs, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("specs (-want +got):\n%s", diff)
			}
			if got := codes(plan.Info["m"]); got != c.codes {
				t.Errorf("problems %q, want %q: %v", got, c.codes, plan.Info["m"].Problems)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

// codes lists the problems, the fatal ones with an exclamation mark, and the warnings.
func codes(i tap.Info) string {
	var out []string
	for _, p := range i.Problems {
		if p.Fatal {
			p.Reason += "!"
		}
		out = append(out, string(p.Reason))
	}
	for _, w := range i.Warnings {
		out = append(out, string(w.Code))
	}
	return strings.Join(out, " ")
}

func TestMirrorTargets(t *testing.T) {
	vm1 := policy.Selector{Port: "vm1"}
	disabled := mirror("m", toPort("ids"), vm1)
	disabled.Spec.Enabled = ptr(false)
	local := mirror("m", toVXLAN("2001:db8::9", 7), vm1)
	local.Spec.Targets[0].VXLAN.Local, local.Spec.Targets[0].VXLAN.DstPort = "2001:db8::1", 4790
	for _, c := range []struct {
		name   string
		mirror *policy.Mirror
		want   *vswitch.OutputSpec
		codes  string
		target map[string]string
	}{
		{"port", mirror("m", toPort("ids"), vm1), &vswitch.OutputSpec{Port: "ids"}, "", map[string]string{"port": "ids", "bridge": "br0"}},
		{"new port", mirror("m", toNewPort("tap0"), vm1), &vswitch.OutputSpec{Port: "tap0", Create: true, Type: "internal",
			Tag: new(int)}, "",
			map[string]string{"port": "tap0", "bridge": "br0"}},
		{"vxlan", mirror("m", toVXLAN("192.0.2.9", 129057), vm1), &vswitch.OutputSpec{Port: "tw30547e1b3292", Create: true, Type: "vxlan",
			Tag:     new(int),
			Options: map[string]string{"remote_ip": "192.0.2.9", "key": "129057", "dst_port": "4789"}}, "",
			map[string]string{"port": "tw30547e1b3292", "bridge": "br0", "remote": "192.0.2.9", "vni": "129057", "dstPort": "4789",
				"maxInnerBytes": "1464"}},
		{"vxlan, IPv6", local, &vswitch.OutputSpec{Port: "tw8848471a2df0", Create: true, Type: "vxlan", Tag: new(int),
			Options: map[string]string{"remote_ip": "2001:db8::9", "local_ip": "2001:db8::1", "key": "7", "dst_port": "4790"}}, "",
			map[string]string{"port": "tw8848471a2df0", "bridge": "br0", "remote": "2001:db8::9", "local": "2001:db8::1", "vni": "7",
				"dstPort": "4790", "maxInnerBytes": "1444"}},
		{"vxlan to an overlay peer", mirror("m", toVXLAN("192.0.2.50", 1), vm1), &vswitch.OutputSpec{Port: "tw0bc263d879d5", Create: true,
			Type: "vxlan", Tag: new(int),
			Options: map[string]string{"remote_ip": "192.0.2.50", "key": "1", "dst_port": "4789"}}, "OVERLAY_REMOTE",
			map[string]string{"port": "tw0bc263d879d5", "bridge": "br0", "remote": "192.0.2.50", "vni": "1", "dstPort": "4789",
				"maxInnerBytes": "1464"}},
		{"disabled", disabled, nil, "", nil},
		{"bad: no such port", mirror("m", toPort("nope"), vm1), nil, "TargetMissing!", map[string]string{"port": "nope"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := mirrorWorld()
			in.Mirrors = []*policy.Mirror{c.mirror}
			plan := compile(in)
			var got *vswitch.OutputSpec
			if len(plan.Specs) == 1 {
				got = &plan.Specs[0].Output
				if len(got.Port) > 15 {
					t.Errorf("port name %q is too long", got.Port)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
			if got := codes(plan.Info["m"]); got != c.codes {
				t.Errorf("problems %q, want %q", got, c.codes)
			}
			if diff := cmp.Diff(c.target, targetOf(plan, "m")); diff != "" {
				t.Errorf("target (-want +got):\n%s", diff)
			}
		})
	}
}

// TestMirrorLoops: with the route known, a mirror that would copy its own tunnel packets is refused; else it is warned of.
func TestMirrorLoops(t *testing.T) {
	collector := netip.MustParseAddr("192.0.2.9")
	all, vm1, eth0, host := policy.Selector{Bridge: "br0"}, policy.Selector{Port: "vm1"}, policy.Selector{Port: "eth0"},
		policy.Selector{Port: "br0"}
	for _, c := range []struct {
		name    string
		device  string // "" = unknown
		sources []policy.Selector
		exclude []policy.Selector
		want    string
	}{
		{"vm", "br0", []policy.Selector{vm1}, nil, ""},
		{"uplink of the bridge with the host's address", "br0", []policy.Selector{eth0}, nil, "SourceCarriesTarget!"},
		{"LOCAL", "br0", []policy.Selector{host}, nil, "SourceCarriesTarget!"},
		{"all", "br0", []policy.Selector{all}, nil, "SourceCarriesTarget!"},
		{"all but the carriers", "br0", []policy.Selector{all}, []policy.Selector{eth0, host, {Port: "acc"}, {Port: "ids"}}, ""},
		{"internal port", "mgmt", []policy.Selector{{Port: "mgmt"}}, nil, "SourceCarriesTarget!"},
		{"uplink of the bridge with the internal port", "mgmt", []policy.Selector{eth0}, nil, "SourceCarriesTarget!"},
		{"vm beside the internal port", "mgmt", []policy.Selector{vm1}, nil, ""},
		{"all, reached elsewhere", "eth9", []policy.Selector{all}, nil, ""},
		{"the very port", "eth0", []policy.Selector{eth0}, nil, "SourceCarriesTarget!"},
		{"all, unknown", "", []policy.Selector{all}, nil, "SOURCE_MAY_CARRY_TARGET"},
		{"vm, unknown", "", []policy.Selector{vm1}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := mirrorWorld()
			if c.device == "mgmt" {
				in.Topology.Bridges["br0"].Ports["mgmt"] = &vswitch.Port{Name: "mgmt", Interfaces: []*vswitch.Interface{{Name: "mgmt",
					Type: "internal", OFPort: 8, MTU: 1400}}}
			}
			m := mirror("m", toVXLAN(collector.String(), 5), c.sources...)
			m.Spec.Exclude = c.exclude
			in.Mirrors = []*policy.Mirror{m}
			if c.device != "" {
				in.Routes = map[netip.Addr]tap.Route{collector: {Device: c.device}}
			}
			plan := compile(in)
			if got := codes(plan.Info["m"]); got != c.want {
				t.Errorf("problems %q, want %q: %v", got, c.want, plan.Info["m"])
			}
			if refused := strings.HasSuffix(c.want, "!"); refused == (len(plan.Specs) == 1) {
				t.Errorf("specs %+v", plan.Specs)
			}
		})
	}
}

// TestMirrorsTogether: two mirrors never share the output of a row, and VNIs that are not given are chosen apart.
func TestMirrorsTogether(t *testing.T) {
	vm1, vm2 := policy.Selector{Port: "vm1"}, policy.Selector{Port: "vm2"}
	in := mirrorWorld()
	in.Mirrors = []*policy.Mirror{
		mirror("b", toPort("ids"), vm2), mirror("a", toPort("ids"), vm1),
		mirror("c", toVXLAN("192.0.2.9", 5), vm1), mirror("d", toVXLAN("192.0.2.9", 5), vm2),
		mirror("e", toVXLAN("192.0.2.9", -1), vm1), mirror("f", toVXLAN("192.0.2.9", 6), vm1),
		mirror("g", toPort("nope"), vm1), mirror("h", toPort("nope"), vm1),
	}
	plan := compile(in)
	got := map[string]string{}
	for name, i := range plan.Info {
		got[name] = codes(i)
	}
	want := map[string]string{"a": "", "b": "", "c": "VNI_SHARED", "d": "VNI_SHARED", "e": "", "f": "", "g": "TargetMissing!",
		"h": "TargetMissing!"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	var owners []string
	for _, s := range plan.Specs {
		owners = append(owners, s.Owner)
	}
	for i := range owners { // a and b have one port in common, c and d one tunnel
		owners[i], _, _ = strings.Cut(owners[i], "/")
	}
	if diff := cmp.Diff([]string{"e", "f", "sources", "sources", "targets"}, owners); diff != "" {
		t.Errorf("owners (-want +got):\n%s", diff)
	}
	vni := targetOf(plan, "e")["vni"]
	// Another mirror takes the derived VNI: the derived one moves aside.
	var n int
	for _, r := range vni {
		n = n*10 + int(r-'0')
	}
	in.Mirrors = append(in.Mirrors, mirror("z", toVXLAN("192.0.2.9", n), vm2))
	again := compile(in)
	if got := targetOf(again, "e")["vni"]; got == vni || got == "" {
		t.Errorf("the derived VNI is still %s, which z has", got)
	}
	if diff := cmp.Diff(plan, compile(mirrorsOf(in, in.Mirrors[:8])), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("same input, other plan:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"br0/vm1"}, plan.Info["a"].Sources); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
	if empty := tap.Compile(tap.Input{Mirrors: in.Mirrors[:1]}); len(empty.Specs) != 0 || codes(empty.Info["b"]) == "" {
		t.Errorf("without a topology: %+v", empty)
	}
}

// targetOf is the only target of a mirror, nil = it has none.
func targetOf(plan tap.Plan, mirror string) map[string]string {
	if targets := plan.Info[mirror].Targets; len(targets) == 1 {
		return targets[0]
	}
	return nil
}

func mirrorsOf(in tap.Input, m []*policy.Mirror) tap.Input {
	in.Mirrors = m
	return in
}

// A port that tapwall has just made is soon there; one that Open vSwitch has refused is not.
func TestMirrorNewPortIsSoonThere(t *testing.T) {
	for _, tc := range []struct {
		name  string
		iface vswitch.Interface
		soon  bool
	}{
		{"not taken up yet", vswitch.Interface{Name: "tap0", Type: "internal"}, true},
		{"refused", vswitch.Interface{Name: "tap0", Type: "internal", OFPort: -1, Error: "File exists"}, false},
	} {
		in := mirrorWorld()
		in.Mirrors = []*policy.Mirror{mirror("m", toNewPort("tap0"), policy.Selector{Port: "vm1"})}
		in.Topology.Bridges["br0"].Ports["tap0"] = &vswitch.Port{Name: "tap0", Interfaces: []*vswitch.Interface{&tc.iface},
			ExternalIDs: map[string]string{vswitch.MarkOwner: vswitch.OwnerValue, vswitch.MarkMirror: "m"}}
		problems := compile(in).Info["m"].Problems
		if len(problems) != 1 || problems[0].Reason != policy.ReasonTargetMissing || problems[0].Soon != tc.soon {
			t.Errorf("%s: %+v", tc.name, problems)
		}
	}
}

// A port cannot have a name that tapwall gives itself, whatever form the mirror has.
func TestMirrorPortOfOurName(t *testing.T) {
	for _, name := range []string{"tw-tap-netdev", "tws-0123456789", "twr-x"} {
		for _, change := range []func(*policy.Mirror){func(*policy.Mirror) {}, func(m *policy.Mirror) { m.Spec.Snaplen = 64 }} {
			in := mirrorWorld()
			m := mirror("m", toNewPort(name), policy.Selector{Port: "vm1"})
			change(m)
			in.Mirrors = []*policy.Mirror{m}
			plan := compile(in)
			p := plan.Info["m"].Problems
			if len(p) != 1 || !p[0].Fatal || p[0].At != "/spec/targets/0/port/name" || len(plan.Specs)+len(plan.Ports)+len(plan.Bridges) > 0 {
				t.Errorf("%s: %+v, rows %+v", name, p, plan.Specs)
			}
		}
	}
}
