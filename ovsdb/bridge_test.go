package ovsdb_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/ovsdbtest"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// tapBridge wants a bridge of our own with a sink and a patch pair from br0, and a mirror of vm1 into it.
func tapBridge() ovsdb.Desired {
	tag := 4000
	const near, far = "tw-patch-from-br0", "tw-patch-into-tap" // longer than a device's name may be
	return ovsdb.Desired{
		Bridges: []vswitch.BridgeSpec{{
			Owner: "taps", Name: "tw-tap", Protocols: []string{"OpenFlow15", "OpenFlow13"},
			OtherConfig: map[string]string{"disable-in-band": "true", "mac-table-size": "10"},
		}},
		Ports: []vswitch.PortSpec{
			{Owner: "web", Bridge: "br0", Name: near, Type: "patch", Options: map[string]string{"peer": far}},
			{Owner: "web", Bridge: "tw-tap", Name: far, Type: "patch", Options: map[string]string{"peer": near}},
			{Owner: "web", Bridge: "tw-tap", Name: "tw-sink", Type: "internal", Tag: &tag},
		},
		Mirrors: []vswitch.MirrorSpec{{
			Owner: "web", Bridge: "br0", Name: "tw.web", SelectSrcPort: []string{"vm1"}, Output: vswitch.OutputSpec{Port: near},
		}},
	}
}

// held is d with every mirror held back.
func held(d ovsdb.Desired) ovsdb.Desired {
	d.Mirrors = slices.Clone(d.Mirrors)
	for i := range d.Mirrors {
		d.Mirrors[i].Hold = true
	}
	return d
}

// allCodes are the codes of every result that is not CodeOK, with their messages.
func allCodes(r ovsdb.Result) []string {
	var out []string
	add := func(what string, code ovsdb.Code, message string) {
		if code != ovsdb.CodeOK {
			out = append(out, what+" "+code.String()+": "+message)
		}
	}
	for _, b := range r.Bridges {
		add("bridge "+b.Name, b.Code, b.Message)
	}
	for _, p := range r.Ports {
		add("port "+p.Name, p.Code, p.Message)
	}
	for _, m := range r.Mirrors {
		add("mirror "+m.Name, m.Code, m.Message)
	}
	for _, c := range r.Controllers {
		add("controller "+c.Target, c.Code, c.Message)
	}
	for _, t := range r.TimeoutPolicies {
		add(fmt.Sprintf("zone %d", t.Zone), t.Code, t.Message)
	}
	return out
}

// stand fails the test unless every bridge, port and timeout policy does.
func stand(t *testing.T, r ovsdb.Result) {
	t.Helper()
	for _, b := range r.Bridges {
		if !b.Stands() {
			t.Errorf("bridge does not stand: %+v", b)
		}
	}
	for _, p := range r.Ports {
		if !p.Stands() {
			t.Errorf("port does not stand: %+v", p)
		}
	}
	for _, p := range r.TimeoutPolicies {
		if p.Code != ovsdb.CodeOK || p.UUID == "" {
			t.Errorf("timeout policy does not stand: %+v", p)
		}
	}
}

// counts are the numbers of rows of the tables that Apply writes to.
func counts(o *ovsdbtest.OVS) string {
	var out []string
	for _, table := range []string{
		"Bridge", "Port", "Interface", "Mirror", "Flow_Table", "Controller", "Datapath", "CT_Zone", "CT_Timeout_Policy",
	} {
		out = append(out, fmt.Sprintf("%s %d", table, len(strings.Fields(o.Vsctl("--bare", "--columns=_uuid", "list", table)))))
	}
	return strings.Join(out, ", ")
}

func TestOwnBridgeLifecycle(t *testing.T) {
	o := newSwitch(t)
	c := connected(t, o)
	before, rows := foreignRows(o), counts(o)
	d := tapBridge()

	// Rows, then flows, then the mirror.
	r := apply(t, c, 1, held(d))
	stand(t, r)
	if m := r.Mirrors[0]; m.Code != ovsdb.CodeHeld || m.UUID != "" || r.Pending {
		t.Errorf("held mirror: %+v", m)
	}
	apply(t, c, 0, held(d))
	into, sink := r.Ports[1], r.Ports[2]
	o.Ofctl("add-flow", "tw-tap", "-OOpenFlow13", fmt.Sprintf("in_port=%d,actions=output:%d", into.OFPort, sink.OFPort))
	r = apply(t, c, 1, d)
	stand(t, r)
	mirror, near := r.Mirrors[0], r.Ports[0]
	if mirror.Code != ovsdb.CodeOK || mirror.UUID == "" || mirror.OutputUUID != near.UUID || mirror.OutputOFPort != near.OFPort {
		t.Errorf("mirror %+v, port %+v", mirror, near)
	}
	if !traced(o, "vm1", "tw-sink") {
		t.Errorf("no copy at the sink:\n%s", o.Appctl("ofproto/trace", "br0", "in_port=vm1"))
	}
	apply(t, c, 0, d)
	r = apply(t, c, 0, held(d)) // goes on
	if r.Mirrors[0].UUID != mirror.UUID || r.Mirrors[0].Code != ovsdb.CodeHeld || len(r.Removed) > 0 {
		t.Errorf("held mirror: %+v, removed %v", r.Mirrors[0], r.Removed)
	}

	b := c.Topology().Bridges["tw-tap"]
	if b.FailMode != "secure" || b.OtherConfig["disable-in-band"] != "true" ||
		!slices.Equal(b.Protocols, []string{"OpenFlow13", "OpenFlow15"}) ||
		b.Ports["tw-tap"] == nil || b.Ports["tw-tap"].Interfaces[0].Type != "internal" {
		t.Errorf("bridge %+v", b)
	}
	for _, ids := range []map[string]string{b.ExternalIDs, b.Ports["tw-tap"].ExternalIDs} {
		if ids[vswitch.MarkOwner] != vswitch.OwnerValue || ids[vswitch.MarkResource] != "taps" {
			t.Errorf("marks %v", ids)
		}
	}
	port := c.Topology().Bridges["br0"].Ports["tw-patch-from-br0"]
	for _, ids := range []map[string]string{port.ExternalIDs, port.Interfaces[0].ExternalIDs} {
		if ids[vswitch.MarkOwner] != vswitch.OwnerValue || ids[vswitch.MarkResource] != "web" {
			t.Errorf("marks %v", ids)
		}
	}

	// All goes in one transaction, and nothing is left.
	r = apply(t, c, 1, ovsdb.Desired{})
	if diff := cmp.Diff([]string{"bridge tw-tap", "mirror br0/tw.web", "port br0/tw-patch-from-br0"}, r.Removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	if have := counts(o); have != rows {
		t.Errorf("rows are left: %s, were %s", have, rows)
	}
	if diff := cmp.Diff(before, foreignRows(o)); diff != "" {
		t.Errorf("foreign rows changed (-before +after):\n%s", diff)
	}
	apply(t, c, 0, ovsdb.Desired{})
}

// Another process finds everything done, and so does one whose ovsdb-server comes back.
func TestOwnBridgeRestarts(t *testing.T) {
	o := newSwitch(t)
	d := tapBridge()
	r := apply(t, connected(t, o), 1, d)
	c := connected(t, o)
	apply(t, c, 0, d)
	o.KillDB()
	eventually(t, c, "loss", func(*vswitch.Topology) bool { return !c.Status().Connected })
	o.StartDB()
	// What ovs-vswitchd tells is not in the database's file.
	eventually(t, c, "ovs-vswitchd", func(s *vswitch.Topology) bool { return c.Status().Connected && s.Bridges["tw-tap"].DatapathID != "" })
	again := apply(t, c, 0, d)
	stand(t, again)
	if diff := cmp.Diff(r.Ports, again.Ports); diff != "" {
		t.Errorf("ports after the restart (-before +after):\n%s", diff)
	}
}

// What somebody changes in our rows is put right in place, and what they keep in external_ids is theirs.
func TestOwnBridgeCorrected(t *testing.T) {
	o := newSwitch(t)
	c := connected(t, o)
	d := tapBridge()
	r := apply(t, c, 1, d)
	for _, tt := range []struct {
		name string
		args string
	}{
		{"fail mode", "set-fail-mode tw-tap standalone"},
		{"no fail mode", "del-fail-mode tw-tap"},
		{"other config", "set Bridge tw-tap other_config:disable-in-band=false other_config:x=y"},
		{"protocols", "set Bridge tw-tap protocols=OpenFlow10"},
		{"datapath type", "set Bridge tw-tap datapath_type=netdev"},
		{"owner of the bridge", "set Bridge tw-tap external_ids:tapwall-resource=else external_ids:note=mine"},
		{"peer", "set Interface tw-patch-into-tap options:peer=nobody"},
		{"tag", "set Port tw-patch-into-tap tag=7 trunks=1,2 vlan_mode=access other_config:x=y"},
		{"no tag", "clear Port tw-sink tag"},
		{"owner of a port", "remove Port tw-sink external_ids tapwall-resource"},
		{"marks of an interface", "clear Interface tw-sink external_ids"},
		{"LOCAL port", "remove Bridge tw-tap ports " + c.Topology().Bridges["tw-tap"].Ports["tw-tap"].UUID},
		{"port", "del-port tw-patch-from-br0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := c.Topology().NextCfg
			o.Vsctl(strings.Fields(tt.args)...)
			eventually(t, c, "the change", func(s *vswitch.Topology) bool { return s.NextCfg > cfg && s.CurCfg == s.NextCfg })
			have := apply(t, c, 1, d)
			stand(t, have)
			if len(allCodes(have))+len(have.Removed) > 0 || have.Bridges[0].UUID != r.Bridges[0].UUID ||
				have.Ports[2].UUID != r.Ports[2].UUID {
				t.Errorf("result %+v", have)
			}
			apply(t, c, 0, d)
		})
	}
	b := c.Topology().Bridges["tw-tap"]
	if b.ExternalIDs["note"] != "mine" || b.DatapathType != "" || b.FailMode != "secure" {
		t.Errorf("bridge %+v", b)
	}
	o.Ofctl("add-flow", "tw-tap", "-OOpenFlow13", "actions=output:tw-sink")
	if !traced(o, "vm1", "tw-sink") {
		t.Errorf("no copy at the sink:\n%s", o.Appctl("ofproto/trace", "br0", "in_port=vm1"))
	}

	// Another kind of port takes two calls: the old one has to be gone first.
	o.Vsctl("set", "Interface", "tw-sink", "type=tap")
	eventually(t, c, "the change", func(s *vswitch.Topology) bool {
		return s.Bridges["tw-tap"].Ports["tw-sink"].Interfaces[0].Type == "tap"
	})
	if have := apply(t, c, 1, d); !have.Pending || have.Ports[2].Code != ovsdb.CodePending || have.Ports[2].Stands() {
		t.Errorf("result %+v", have)
	}
	stand(t, apply(t, c, 1, d))
	// So does a port that moves, and one that becomes a bridge.
	d.Mirrors, d.Ports[2].Bridge = nil, "br0"
	if have := apply(t, c, 1, d); !have.Pending || have.Ports[2].Code != ovsdb.CodePending {
		t.Errorf("result %+v", have)
	}
	stand(t, apply(t, c, 1, d))
	d.Ports = d.Ports[:2]
	d.Bridges = append(d.Bridges, vswitch.BridgeSpec{Owner: "taps", Name: "tw-sink"})
	if have := apply(t, c, 1, d); !have.Pending || have.Bridges[1].Code != ovsdb.CodePending || have.Bridges[1].Stands() {
		t.Errorf("result %+v", have)
	}
	stand(t, apply(t, c, 1, d))
	apply(t, c, 0, d)
	// And a bridge whose name becomes that of a port.
	d.Bridges = d.Bridges[:1]
	d.Ports = append(d.Ports, vswitch.PortSpec{Owner: "web", Bridge: "br0", Name: "tw-sink", Type: "internal"})
	if have := apply(t, c, 1, d); !have.Pending || have.Ports[2].Code != ovsdb.CodePending ||
		!slices.Equal(have.Removed, []string{"bridge tw-sink"}) {
		t.Errorf("result %+v", have)
	}
	stand(t, apply(t, c, 1, d))
}

// A bridge gets all of its rows in the transaction that makes it.
func TestOwnBridgeWithAll(t *testing.T) {
	o := newSwitch(t)
	c := connected(t, o)
	rows := counts(o)
	d := tapBridge()
	d.Controllers = []vswitch.ControllerSpec{local(t, "tw-tap")}
	d.TableNames = map[string]map[int]string{"tw-tap": {3: "three"}}
	d.FailModes = map[string]string{"tw-tap": "standalone"} // not asked
	own := mirrorSpec("inside")
	own.Bridge, own.SelectAll = "tw-tap", true
	d.Mirrors = append(d.Mirrors, own)
	r := apply(t, c, 1, d)
	stand(t, r)
	if bad := allCodes(r); len(bad) > 0 {
		t.Errorf("codes %q", bad)
	}
	b := c.Topology().Bridges["tw-tap"]
	if b.FlowTables[3].Name != "three" || len(b.Controllers) != 1 || len(b.Mirrors) != 1 || len(b.Ports) != 4 || b.FailMode != "secure" {
		t.Errorf("bridge %+v", b)
	}
	at := fmt.Sprintf("tcp:127.0.0.1:%d", d.Controllers[0].Port)
	if have := o.OfctlAt("show", at, "-OOpenFlow13"); !strings.Contains(have, "tw-sink") {
		t.Errorf("the row leads to\n%s", have)
	}
	apply(t, c, 0, d)
	apply(t, c, 1, ovsdb.Desired{})
	if have := counts(o); have != rows {
		t.Errorf("rows are left: %s, were %s", have, rows)
	}
}

// Names that others have are refused with who has them, and what was meant for our bridge does not land on theirs.
func TestForeignNames(t *testing.T) {
	o := newSwitch(t)
	o.Vsctl(strings.Fields("add-br tw-tap -- add-port br0 tw-patch-from-br0 -- add-bond br0 bond tw-b1 tw-b2 -- add-port br0 tw-x")...)
	c := connected(t, o)
	d := tapBridge()
	d.Controllers = []vswitch.ControllerSpec{local(t, "tw-tap")}
	d.Bridges = append(d.Bridges, vswitch.BridgeSpec{Owner: "taps", Name: "tw-x"}, vswitch.BridgeSpec{Owner: "taps", Name: "tw-b2"})
	d.Ports = append(d.Ports,
		vswitch.PortSpec{Owner: "web", Bridge: "br0", Name: "tw-b1"},
		vswitch.PortSpec{Owner: "web", Bridge: "br7", Name: "tw-p"},
		vswitch.PortSpec{Owner: "web", Bridge: "br1", Name: "br0", Type: "internal"})
	theirs := o.Dump("Bridge") + o.Dump("Port") + o.Dump("Mirror")
	want := []string{
		"bridge tw-tap BRIDGE_TAKEN: a bridge tw-tap exists and was not made by tapwall",
		"bridge tw-x BRIDGE_TAKEN: port tw-x of bridge br0 has the name and was not made by tapwall",
		"bridge tw-b2 BRIDGE_TAKEN: port bond of bridge br0 has the name and was not made by tapwall",
		"port tw-patch-from-br0 PORT_TAKEN: a port tw-patch-from-br0 exists on bridge br0 and was not made by tapwall",
		"port tw-patch-into-tap BRIDGE_MISSING: a bridge tw-tap exists and was not made by tapwall",
		"port tw-sink BRIDGE_MISSING: a bridge tw-tap exists and was not made by tapwall",
		"port tw-b1 PORT_TAKEN: an interface tw-b1 exists in port bond of bridge br0 and was not made by tapwall",
		"port tw-p BRIDGE_MISSING: there is no bridge br7",
		"port br0 BRIDGE_MISSING: there is no bridge br1",
		"mirror tw.web OUTPUT_MISSING: a port tw-patch-from-br0 exists on bridge br0 and was not made by tapwall",
		"controller " + d.Controllers[0].Target() + " BRIDGE_MISSING: a bridge tw-tap exists and was not made by tapwall",
	}
	if diff := cmp.Diff(want, allCodes(apply(t, c, 0, d))); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(theirs, o.Dump("Bridge")+o.Dump("Port")+o.Dump("Mirror")); diff != "" {
		t.Errorf("foreign rows changed (-before +after):\n%s", diff)
	}
	// When they go, ours come.
	o.Vsctl(strings.Fields("del-br tw-tap -- del-port tw-patch-from-br0 -- del-port bond -- del-port tw-x -- add-br br7 -- add-br br1")...)
	eventually(t, c, "their leaving", func(s *vswitch.Topology) bool { return s.Bridges["tw-tap"] == nil && s.Bridges["br1"] != nil })
	d.Ports = slices.Delete(d.Ports, 3, 5)
	want = []string{"port br0 PORT_TAKEN: a port br0 exists on bridge br0 and was not made by tapwall"}
	if diff := cmp.Diff(want, allCodes(apply(t, c, 1, d))); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
}

// A bridge of ours on which others have put something stays until that is gone.
func TestOwnBridgeWithForeignPart(t *testing.T) {
	for _, tt := range []struct{ name, add, remove, want string }{
		{"port", "add-port tw-tap eth9", "del-port eth9", "port eth9"},
		{"controller", "set-controller tw-tap tcp:127.0.0.1:1", "del-controller tw-tap", "controller tcp:127.0.0.1:1"},
		{"mirror", "--id=@m create Mirror name=theirs -- add Bridge tw-tap mirrors @m", "clear Bridge tw-tap mirrors", "mirror theirs"},
		{"table", "--id=@f create Flow_Table name=theirs -- set Bridge tw-tap flow_tables:5=@f", "clear Bridge tw-tap flow_tables",
			"the name of table 5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newSwitch(t)
			rows := counts(o)
			c := connected(t, o)
			d := tapBridge()
			apply(t, c, 1, d)
			cfg := c.Topology().NextCfg
			o.Vsctl(strings.Fields(tt.add)...)
			eventually(t, c, "the part", func(s *vswitch.Topology) bool { return s.NextCfg > cfg })
			apply(t, c, 0, d)
			r := apply(t, c, 1, ovsdb.Desired{})
			if diff := cmp.Diff([]string{"bridge tw-tap: " + tt.want + " is not tapwall's"}, r.Kept); diff != "" {
				t.Errorf("kept (-want +got):\n%s", diff)
			}
			if s := c.Topology(); s.Bridges["tw-tap"] == nil || s.Bridges["tw-tap"].Ports["tw-sink"] != nil {
				t.Errorf("bridges %+v", s.Bridges)
			}
			if have := apply(t, c, 0, ovsdb.Desired{}).Kept; len(have) != 1 {
				t.Errorf("kept %v", have)
			}
			cfg = c.Topology().NextCfg
			o.Vsctl(strings.Fields(tt.remove)...)
			eventually(t, c, "its leaving", func(s *vswitch.Topology) bool { return s.NextCfg > cfg })
			if r := apply(t, c, 1, ovsdb.Desired{}); len(r.Kept) > 0 {
				t.Errorf("kept %v", r.Kept)
			}
			if have := counts(o); have != rows {
				t.Errorf("rows are left: %s, were %s", have, rows)
			}
		})
	}
}

// Each case is one spec beside good ones, which must not suffer from it.
func TestRefusedBridgesAndPorts(t *testing.T) {
	o := newSwitch(t)
	c := connected(t, o)
	apply(t, c, 1, tapBridge())
	tag := 4096
	withBridge := func(change func(*vswitch.BridgeSpec)) func(*ovsdb.Desired) {
		return func(d *ovsdb.Desired) {
			b := vswitch.BridgeSpec{Owner: "x", Name: "tw-new"}
			change(&b)
			d.Bridges = append(d.Bridges, b)
		}
	}
	withPort := func(change func(*vswitch.PortSpec)) func(*ovsdb.Desired) {
		return func(d *ovsdb.Desired) {
			p := vswitch.PortSpec{Owner: "x", Bridge: "br0", Name: "tw-new", Type: "internal"}
			change(&p)
			d.Ports = append(d.Ports, p)
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*ovsdb.Desired)
		want   string
	}{
		{"bad bridge without an owner", withBridge(func(b *vswitch.BridgeSpec) { b.Owner = "" }), "INVALID: no owner"},
		{"bad bridge without a name", withBridge(func(b *vswitch.BridgeSpec) { b.Name = "" }), "INVALID: no name"},
		{"bad bridge with a slash", withBridge(func(b *vswitch.BridgeSpec) { b.Name = "a/b" }), `INVALID: name "a/b" is not possible`},
		{"bad bridge with a long name", withBridge(func(b *vswitch.BridgeSpec) { b.Name = "a234567890123456" }), "longer than 15"},
		{"bad bridge twice", withBridge(func(b *vswitch.BridgeSpec) { b.Name = "tw-tap" }), "INVALID: another bridge"},
		{"bad protocol", withBridge(func(b *vswitch.BridgeSpec) { b.Protocols = []string{"OpenFlow9"} }), "OpenFlow9"},
		{"bad port without an owner", withPort(func(p *vswitch.PortSpec) { p.Owner = "" }), "INVALID: no owner"},
		{"bad port with invalid bytes", withPort(func(p *vswitch.PortSpec) { p.Name = "a\xff" }), "is not possible"},
		{"bad port with a long name", withPort(func(p *vswitch.PortSpec) { p.Name = "a234567890123456" }), "longer than 15"},
		{"bad tag", withPort(func(p *vswitch.PortSpec) { p.Tag = &tag }), "tag 4096"},
		{"bad LOCAL", withPort(func(p *vswitch.PortSpec) { p.Name = "br0" }), "LOCAL"},
		{"bad port twice", withPort(func(p *vswitch.PortSpec) { p.Name, p.Bridge = "tw-sink", "tw-tap" }), "INVALID: another port"},
		{"bad port that is a bridge", withPort(func(p *vswitch.PortSpec) { p.Name = "tw-tap" }), "also wanted as a bridge"},
		{"bad mirror that makes a wanted port", func(d *ovsdb.Desired) {
			m := mirrorSpec("new", "vm2")
			m.Bridge, m.Output.Port = "tw-tap", "tw-sink"
			d.Mirrors = append(d.Mirrors, m)
		}, "OUTPUT_PORT_TAKEN: tw-sink is also wanted"},
		{"bad mirror to LOCAL", func(d *ovsdb.Desired) {
			m := mirrorSpec("new", "vm2")
			m.Bridge, m.Output = "tw-tap", vswitch.OutputSpec{Port: "tw-tap"}
			d.Mirrors = append(d.Mirrors, m)
		}, "OUTPUT_PORT_TAKEN: tw-tap is the LOCAL port"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := tapBridge()
			tt.change(&d)
			have := allCodes(apply(t, c, 0, d))
			if len(have) != 1 || !strings.Contains(have[0], tt.want) {
				t.Errorf("codes %q do not contain %q", have, tt.want)
			}
		})
	}
}

// Open vSwitch takes every row and says what came of it only there.
func TestRefusedByVswitchd(t *testing.T) {
	o := ovsdbtest.Prepare(t, nil)
	o.RealTunnels = true
	o.StartDB()
	o.StartSwitch()
	c := connected(t, o)
	tunnel := func(name string) vswitch.PortSpec {
		options := map[string]string{"remote_ip": "192.0.2.1", "key": "5"}
		return vswitch.PortSpec{Owner: "web", Bridge: "tw-tap", Name: name, Type: "vxlan", Options: options}
	}
	d := ovsdb.Desired{
		Bridges: []vswitch.BridgeSpec{
			{Owner: "taps", Name: "tw-tap", DatapathType: "dummy"},
			{Owner: "taps", Name: "tw-bad", DatapathType: "nosuch"},
		},
		Ports: []vswitch.PortSpec{tunnel("tw-a")},
	}
	r := apply(t, c, 1, d)
	d.Ports = append(d.Ports, tunnel("tw-b"))
	r2 := apply(t, c, 1, d)
	bad := r2.Ports[1]
	if !r.Ports[0].Stands() || !r2.Ports[0].Stands() || bad.Stands() || bad.OFPort != -1 || !strings.Contains(bad.Error, "File exists") {
		t.Errorf("ports %+v, then %+v", r.Ports, r2.Ports)
	}
	have := allCodes(r2)
	if len(have) != 2 ||
		!strings.Contains(have[0], `tw-bad BRIDGE_ERROR: ovs-vswitchd does not run bridge tw-bad of datapath type "nosuch"`) ||
		!strings.Contains(have[1], "tw-b PORT_ERROR: ovs-vswitchd refused port tw-b: ") {
		t.Errorf("codes %q", have)
	}
	apply(t, c, 0, d)
}
