package ovsdb_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/ovsdbtest"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

func controllers(specs ...vswitch.ControllerSpec) ovsdb.Desired {
	return ovsdb.Desired{Controllers: specs}
}

// local is a spec that listens on the loopback address, at a port that was free a moment ago.
func local(t *testing.T, bridge string) vswitch.ControllerSpec {
	t.Helper()
	return vswitch.ControllerSpec{Bridge: bridge, Port: uint16(freePort(t)), Addr: netip.MustParseAddr("127.0.0.1")}
}

// targets are the targets of a bridge's rows, ours marked by a star.
func targets(c *ovsdb.Client, bridge string) string {
	var out []string
	for _, row := range c.Topology().Bridges[bridge].Controllers {
		if row.ExternalIDs[vswitch.MarkOwner] == vswitch.OwnerValue {
			row.Target += "*"
		}
		out = append(out, row.Target)
	}
	return strings.Join(out, " ")
}

// flowsOf are the flows of a bridge by number of packets, the hidden ones of fail-open and of in-band control included.
func flowsOf(o *ovsdbtest.OVS, bridge string) []string {
	flows := strings.Split(regexp.MustCompile(`duration=\d+s, `).ReplaceAllString(o.Appctl("bridge/dump-flows", bridge), ""), "\n")
	slices.Sort(flows)
	return flows
}

// A row that comes and goes leaves flows, the fail mode and what the bridge forwards as they are, on all kinds of bridges.
func TestControllerKeepsFlows(t *testing.T) {
	o := ovsdbtest.New(t)
	o.Vsctl("set", "Open_vSwitch", ".", "other_config:stats-update-interval=600000", "--",
		"add-br", "secure", "--", "set-fail-mode", "secure", "secure", "--", "add-port", "secure", "s1", "--", "add-port", "secure", "s2", "--",
		"add-br", "alone", "--", "add-port", "alone", "a1", "--", "add-port", "alone", "a2", "--",
		"add-br", "bare", "--", "add-port", "bare", "b1", "--", "add-port", "bare", "b2", "--",
		"add-br", "led", "--", "set-fail-mode", "led", "secure", "--", "add-port", "led", "l1", "--", "add-port", "led", "l2", "--",
		"--id=@c", "create", "Controller", `target="tcp:127.0.0.1:1"`, "external_ids:by=them", "max_backoff=5000", "--",
		"--id=@p", "create", "Controller", fmt.Sprintf(`target="ptcp:%d:127.0.0.1"`, freePort(t)), "connection_mode=out-of-band", "--",
		"set", "Bridge", "led", "controller=@c,@p")
	bridges := map[string]string{"secure": "s1", "alone": "a1", "bare": "b1", "led": "l1"}
	for bridge := range bridges {
		if bridge != "alone" {
			// Not the bridge with the flow that Open vSwitch makes itself.
			o.Ofctl("del-flows", bridge)
		}
		o.Ofctl("add-flow", bridge, "table=200,cookie=0x7,priority=1,actions=drop")
		o.Ofctl("add-flow", bridge, "table=0,cookie=0x7,priority=9,tcp,actions=NORMAL")
	}
	state := func() map[string][]string {
		out := map[string][]string{
			"foreign": {o.Vsctl("--columns=_uuid,target,type,connection_mode,max_backoff,inactivity_probe,external_ids,other_config",
				"find", "Controller", "external_ids:tapwall-owner!=tapwall")},
		}
		for bridge, port := range bridges {
			udp, tcp := "in_port="+port+",udp", "in_port="+port+",tcp"
			_, u, _ := strings.Cut(o.Appctl("ofproto/trace", bridge, udp), "Datapath actions")
			_, p, _ := strings.Cut(o.Appctl("ofproto/trace", bridge, tcp), "Datapath actions")
			out[bridge] = append(flowsOf(o, bridge), u, p, o.Vsctl("get-fail-mode", bridge))
		}
		return out
	}
	c := connected(t, o)
	before := state()
	for bridge, forwards := range map[string]bool{"secure": false, "alone": true, "bare": false, "led": false} {
		if drops := strings.Contains(before[bridge][len(before[bridge])-3], "drop"); drops == forwards {
			t.Fatalf("bridge %s forwards UDP: %v, want %v", bridge, !drops, forwards)
		}
	}
	var specs []vswitch.ControllerSpec
	for bridge := range bridges {
		specs = append(specs, local(t, bridge))
	}
	for round := range 2 {
		r := apply(t, c, 1, controllers(specs...))
		for i, spec := range specs {
			if r.Controllers[i].Code != ovsdb.CodeOK || r.Controllers[i].UUID == "" {
				t.Errorf("round %d: %+v", round, r.Controllers[i])
			}
			// It listens, and speaks OpenFlow.
			if have := o.OfctlAt("dump-flows", fmt.Sprintf("tcp:127.0.0.1:%d", spec.Port), "cookie=7/-1"); strings.Count(have, "cookie=0x7") != 2 {
				t.Errorf("round %d: bridge %s shows at its row\n%s", round, spec.Bridge, have)
			}
		}
		if diff := cmp.Diff(before, state()); diff != "" {
			t.Errorf("round %d: with the rows (-before +after):\n%s", round, diff)
		}
		apply(t, c, 0, controllers(specs...))
		apply(t, c, 1, ovsdb.Desired{})
		if diff := cmp.Diff(before, state()); diff != "" {
			t.Errorf("round %d: without the rows (-before +after):\n%s", round, diff)
		}
	}
	if out := o.Vsctl("--bare", "--columns=target", "find", "Controller", "external_ids:tapwall-owner=tapwall"); out != "" {
		t.Errorf("left behind: %s", out)
	}
}

func TestControllerLifecycle(t *testing.T) {
	o := ovsdbtest.New(t)
	foreign := fmt.Sprintf("ptcp:%d:127.0.0.1", freePort(t))
	o.Vsctl("add-br", "br0", "--", "add-br", "br1", "--", "set-controller", "br0", foreign)
	c := connected(t, o)
	eventually(t, c, "the foreign row", func(s *vswitch.Topology) bool {
		return s.Bridges["br0"] != nil && len(s.Bridges["br0"].Controllers) == 1
	})
	theirs := o.Dump("Controller")
	a, b := local(t, "br0"), local(t, "br1")

	r := apply(t, c, 1, controllers(a, b, vswitch.ControllerSpec{Bridge: "nosuch", Port: a.Port}, vswitch.ControllerSpec{Bridge: "br0"}))
	var have []string
	for _, r := range r.Controllers {
		have = append(have, r.Code.String())
	}
	if diff := cmp.Diff([]string{"OK", "OK", "BRIDGE_MISSING", "INVALID"}, have); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
	row := o.Vsctl("--columns=type,connection_mode,external_ids", "list", "Controller", r.Controllers[0].UUID)
	if strings.Join(strings.Fields(row), " ") != "type : service connection_mode : [] external_ids : {tapwall-owner=tapwall}" {
		t.Errorf("the row is\n%s", row)
	}

	// What somebody takes away is restored; a second row with our mark goes.
	o.Vsctl("remove", "Bridge", "br1", "controller", r.Controllers[1].UUID)
	o.Vsctl("--id=@c", "create", "Controller", `target="`+a.Target()+`"`, "external_ids:tapwall-owner=tapwall", "--",
		"add", "Bridge", "br0", "controller", "@c")
	eventually(t, c, "the tampering", func(s *vswitch.Topology) bool {
		return len(s.Bridges["br1"].Controllers) == 0 && len(s.Bridges["br0"].Controllers) == 3
	})
	apply(t, c, 1, controllers(a, b))
	if got := targets(c, "br1"); got != b.Target()+"*" {
		t.Errorf("br1 has %s", got)
	}

	// A place where somebody listens already is refused, one of our own is left first.
	port := a.Port
	a.Addr = netip.Addr{}
	taken := vswitch.ControllerSpec{Bridge: "br1"}
	if at, ok := (vswitch.Controller{Target: foreign}).Listens(); ok {
		taken.Port = at.Port()
	}
	r = apply(t, c, 1, controllers(a, taken))
	if r.Controllers[0].Code != ovsdb.CodePending || !r.Pending || r.Controllers[1].Code != ovsdb.CodeTargetTaken ||
		!strings.Contains(r.Controllers[1].Message, "bridge br0 at "+foreign) {
		t.Errorf("result %+v", r)
	}
	r = apply(t, c, 1, controllers(a))
	if r.Controllers[0].Code != ovsdb.CodeOK || r.Pending || a.Target() != fmt.Sprintf("ptcp:%d", port) {
		t.Errorf("result %+v", r)
	}
	if have := o.OfctlAt("show", fmt.Sprintf("tcp:127.0.0.1:%d", port)); !strings.Contains(have, "LOCAL(br0)") {
		t.Errorf("the moved row leads to\n%s", have)
	}
	r = apply(t, c, 1, ovsdb.Desired{})
	if diff := cmp.Diff([]string{"controller br0/" + a.Target()}, r.Removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(theirs, o.Dump("Controller")); diff != "" {
		t.Errorf("the foreign row changed (-before +after):\n%s", diff)
	}
}
