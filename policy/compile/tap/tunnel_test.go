package tap_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// What a tunnel of each kind is in the database, and in the status. erspan_idx and erspan_hwid are hexadecimal there.
func TestTunnels(t *testing.T) {
	key := func(n int64) *int64 { return &n }
	names := map[string]string{}
	for _, c := range []struct {
		name    string
		target  policy.MirrorTarget
		kind    string
		options map[string]string
		status  map[string]string // beside port, bridge and remote
		room    string            // what fits into an MTU of 1500
	}{
		{"vxlan", policy.MirrorTarget{VXLAN: &policy.VXLANTarget{Remote: "192.0.2.9", VNI: ptr(7), Local: "192.0.2.1"}}, "vxlan",
			map[string]string{"key": "7", "dst_port": "4789", "local_ip": "192.0.2.1"},
			map[string]string{"vni": "7", "dstPort": "4789", "local": "192.0.2.1"}, "1464"},
		{"geneve", policy.MirrorTarget{Geneve: &policy.GeneveTarget{Remote: "192.0.2.9", VNI: ptr(7)}}, "geneve",
			map[string]string{"key": "7", "dst_port": "6081"}, map[string]string{"vni": "7", "dstPort": "6081"}, "1464"},
		{"geneve, IPv6", policy.MirrorTarget{Geneve: &policy.GeneveTarget{Remote: "2001:db8::9", VNI: ptr(0), DstPort: 6082}}, "geneve",
			map[string]string{"key": "0", "dst_port": "6082"}, map[string]string{"vni": "0", "dstPort": "6082"}, "1444"},
		{"gre", policy.MirrorTarget{GRE: &policy.GRETarget{Remote: "192.0.2.9", Key: key(1<<32 - 1)}}, "gre",
			map[string]string{"key": "4294967295"}, map[string]string{"key": "4294967295"}, "1472"},
		{"gre, IPv6", policy.MirrorTarget{GRE: &policy.GRETarget{Remote: "2001:db8::9", Key: key(77)}}, "ip6gre",
			map[string]string{"key": "77"}, map[string]string{"key": "77"}, "1452"},
		{"erspan 1", policy.MirrorTarget{ERSPAN: &policy.ERSPANTarget{Remote: "192.0.2.9", Version: 1, Session: 102, Index: 102}}, "erspan",
			map[string]string{"key": "102", "erspan_ver": "1", "erspan_idx": "0x66"}, map[string]string{"session": "102"}, "1464"},
		{"erspan 2", policy.MirrorTarget{ERSPAN: &policy.ERSPANTarget{Remote: "192.0.2.9", Session: 77, HardwareID: 10}}, "erspan",
			map[string]string{"key": "77", "erspan_ver": "2", "erspan_dir": "0", "erspan_hwid": "0xa"}, map[string]string{"session": "77"}, "1460"},
		{"erspan 1, IPv6", policy.MirrorTarget{ERSPAN: &policy.ERSPANTarget{Remote: "2001:db8::9", Version: 1, Session: 102}}, "ip6erspan",
			map[string]string{"key": "102", "erspan_ver": "1", "erspan_idx": "0x0"}, map[string]string{"session": "102"}, "1444"},
	} {
		in := mirrorWorld()
		in.Mirrors = []*policy.Mirror{mirror("m", c.target, policy.Selector{Port: "vm1"})}
		in.Mirrors[0].Spec.Filter = &policy.MirrorFilter{Default: policy.FilterAccept}
		plan := stagedWorld(in)
		tunnel, _ := c.target.Tunnel()
		c.options["remote_ip"] = tunnel.Remote
		var got vswitch.PortSpec
		for _, p := range plan.Ports {
			if p.Type != "patch" {
				got = p
			}
		}
		if len(got.Name) > 15 || names[got.Name] != "" {
			t.Errorf("%s: the name %s is too long, or that of %s", c.name, got.Name, names[got.Name])
		}
		names[got.Name] = c.name
		if diff := cmp.Diff(c.options, got.Options); got.Type != c.kind || diff != "" {
			t.Errorf("%s: type %s, options (-want +got):\n%s", c.name, got.Type, diff)
		}
		c.status["port"], c.status["bridge"], c.status["remote"], c.status["maxInnerBytes"] = got.Name, tapBridge, tunnel.Remote, c.room
		if diff := cmp.Diff(c.status, targetOf(plan, "m")); diff != "" {
			t.Errorf("%s: status (-want +got):\n%s", c.name, diff)
		}
	}
}

// What cannot be is refused: a type that the switch has not, and two kinds of ERSPAN in one session. A session that nobody names is found.
func TestTunnelProblems(t *testing.T) {
	vm1 := policy.Selector{Port: "vm1"}
	erspan := func(name string, x policy.ERSPANTarget) *policy.Mirror {
		x.Remote = "192.0.2.9"
		m := mirror(name, policy.MirrorTarget{ERSPAN: &x}, vm1)
		m.Spec.Filter = &policy.MirrorFilter{Default: policy.FilterAccept}
		return m
	}
	in := mirrorWorld()
	in.Mirrors = []*policy.Mirror{erspan("a", policy.ERSPANTarget{Session: 7}), erspan("b", policy.ERSPANTarget{Session: 7, HardwareID: 3}),
		erspan("c", policy.ERSPANTarget{Session: 7})}
	plan := compile(in)
	if a, b, c := codes(plan.Info["a"]), codes(plan.Info["b"]), codes(plan.Info["c"]); a != "VNI_SHARED" ||
		b != "OutputShared! VNI_SHARED" || c != a {
		t.Errorf("two kinds in one session: %q, %q, %q", a, b, c)
	}
	in.Topology.InterfaceTypes = []string{"geneve", "vxlan"}
	if got := codes(compile(in).Info["a"]); got != "TunnelUnsupported! VNI_SHARED" {
		t.Errorf("without the type: %q", got)
	}

	in = mirrorWorld()
	for i := range 1100 { // more than there are sessions
		in.Mirrors = append(in.Mirrors, erspan("m"+string(rune('a'+i%26))+string(rune('a'+i/26)), policy.ERSPANTarget{}))
	}
	sessions := map[string]int{}
	plan = tap.Compile(in)
	for _, info := range plan.Info {
		for _, x := range info.Targets {
			sessions[x["session"]]++
		}
	}
	if len(sessions) < 1023 {
		t.Errorf("%d sessions are in use of 1023", len(sessions))
	}
}
