package ovsdb_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/ovsdbtest"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// Each case is one spec beside a good one, which must not suffer from it.
func TestRefusedSpecs(t *testing.T) {
	o := newSwitch(t)
	o.Vsctl("add-br", "br1", "--", "add-port", "br1", "far", "--", "add-port", "br0", "near", "--",
		"add-port", "br0", "mac", "--", "set", "Interface", "mac", "external_ids:attached-mac=02:00:00:00:00:09")
	c := connected(t, o)
	good := mirrorSpec("good", "vm1")
	apply(t, c, 1, desired(good))
	before := foreignRows(o)
	existing := func(port string) vswitch.OutputSpec { return vswitch.OutputSpec{Port: port} }
	created := func(port string) vswitch.OutputSpec {
		return vswitch.OutputSpec{Port: port, Create: true, Type: "internal"}
	}
	tag := 4096
	tests := []struct {
		name   string
		change func(*vswitch.MirrorSpec)
		want   string
		text   string
	}{
		{"bad no name", func(m *vswitch.MirrorSpec) { m.Name = "" }, "INVALID", "no name"},
		{"bad no owner", func(m *vswitch.MirrorSpec) { m.Owner = "" }, "INVALID", "no owner"},
		{"bad all and some", func(m *vswitch.MirrorSpec) { m.SelectAll = true }, "INVALID", "exclude each other"},
		{"bad VLAN", func(m *vswitch.MirrorSpec) { m.SelectVLAN = []int{4096} }, "INVALID", "VLAN 4096"},
		{"bad tag", func(m *vswitch.MirrorSpec) { m.Output.Tag = &tag }, "INVALID", "tag 4096"},
		{"bad no output", func(m *vswitch.MirrorSpec) { m.Output.Port = "" }, "INVALID", "no output port"},
		{"bad long name", func(m *vswitch.MirrorSpec) { m.Output.Port = "a234567890123456" }, "INVALID", "longer than 15"},
		{"bad no type", func(m *vswitch.MirrorSpec) { m.Output.Type = "" }, "INVALID", "no type"},
		{"bad source is output", func(m *vswitch.MirrorSpec) { m.Output = existing("vm1") }, "INVALID", "also a source"},
		{"bad key twice", func(m *vswitch.MirrorSpec) { m.Owner, m.Name = "good", "tw.good" }, "INVALID", "another mirror"},
		{"bad bridge", func(m *vswitch.MirrorSpec) { m.Bridge = "br9" }, "BRIDGE_MISSING", "br9"},
		{"bad port to create exists", func(m *vswitch.MirrorSpec) { m.Output = created("near") }, "OUTPUT_PORT_TAKEN", "not made by tapwall"},
		{"bad port to create is on another bridge", func(m *vswitch.MirrorSpec) { m.Output = created("far") }, "OUTPUT_PORT_TAKEN",
			"on bridge br1"},
		{"bad other bridge's port", func(m *vswitch.MirrorSpec) { m.Output = existing("far") }, "OUTPUT_MISSING", "on bridge br1"},
		{"bad no such port", func(m *vswitch.MirrorSpec) { m.Output = existing("none") }, "OUTPUT_MISSING", "no port none"},
		{"bad foreign mirror's output", func(m *vswitch.MirrorSpec) { m.Output = existing("ids") }, "OUTPUT_PORT_TAKEN", "mirror foreign"},
		{"bad LOCAL", func(m *vswitch.MirrorSpec) { m.Output = existing("br0") }, "OUTPUT_PORT_TAKEN", "LOCAL"},
		{"bad VM by iface-id", func(m *vswitch.MirrorSpec) { m.Output = existing("vm2") }, "OUTPUT_PORT_TAKEN", "iface-id=id-vm2"},
		{"bad VM by MAC", func(m *vswitch.MirrorSpec) { m.Output = existing("mac") }, "OUTPUT_PORT_TAKEN", "attached-mac"},
		{"bad other kind of the same port", func(m *vswitch.MirrorSpec) { m.Output = created("tw-good"); m.Output.Type = "vxlan" },
			"OUTPUT_PORT_TAKEN", "mirror good wants another kind"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := mirrorSpec("new", "vm1")
			tt.change(&spec)
			r := apply(t, c, 0, desired(good, spec))
			if diff := cmp.Diff([]string{"OK", tt.want}, codes(r)); diff != "" {
				t.Errorf("codes (-want +got):\n%s", diff)
			}
			if got := r.Mirrors[1].Message; !strings.Contains(got, tt.text) || strings.Contains(got, "\n") {
				t.Errorf("message %q does not contain %q", got, tt.text)
			}
		})
	}
	if diff := cmp.Diff(before, foreignRows(o)); diff != "" {
		t.Errorf("foreign rows changed (-before +after):\n%s", diff)
	}
	// A plain existing port is a good output.
	near := mirrorSpec("new", "vm1")
	near.Output = existing("near")
	apply(t, c, 1, desired(good, near))
	if !traced(o, "vm1", "near") {
		t.Error("vm1 is not mirrored to near")
	}
}

func TestSharedOutput(t *testing.T) {
	o := newSwitch(t)
	c := connected(t, o)
	a, b := mirrorSpec("a", "vm1"), mirrorSpec("b", "vm2")
	a.Output.Port, b.Output.Port = "tw-both", "tw-both"
	r := apply(t, c, 1, desired(a, b))
	uuid := r.Mirrors[0].OutputUUID
	if uuid == "" || r.Mirrors[1].OutputUUID != uuid {
		t.Fatalf("outputs %q and %q", uuid, r.Mirrors[1].OutputUUID)
	}
	// The first goes, whose name the port carries: the port stays as it is.
	port := o.Select("Port", "tw-both")
	r = apply(t, c, 1, desired(b))
	if r.Mirrors[0].OutputUUID != uuid || o.Select("Port", "tw-both") != port {
		t.Errorf("the port changed: %+v", r.Mirrors[0])
	}
	apply(t, c, 0, desired(b))
	r = apply(t, c, 1, ovsdb.Desired{})
	if diff := cmp.Diff([]string{"mirror br0/tw.b", "port br0/tw-both"}, r.Removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
}

// A port of another type under the same name takes two calls: the old one has to be gone first.
func TestOutputChangesType(t *testing.T) {
	o := newSwitch(t)
	c := connected(t, o)
	spec := mirrorSpec("web", "vm1")
	uuid := apply(t, c, 1, desired(spec)).Mirrors[0].UUID
	spec.Output.Type, spec.Output.Options = "vxlan", map[string]string{"remote_ip": "192.0.2.1"}
	r := apply(t, c, 1, desired(spec))
	if !r.Pending || r.Mirrors[0].Code != ovsdb.CodePending || r.Mirrors[0].OutputUUID != "" ||
		c.Topology().Bridges["br0"].Ports["tw-web"] != nil {
		t.Fatalf("result %+v", r)
	}
	r = apply(t, c, 1, desired(spec))
	if r.Pending || r.Mirrors[0].Code != ovsdb.CodeOK || r.Mirrors[0].UUID != uuid ||
		c.Topology().Bridges["br0"].Ports["tw-web"].Interfaces[0].Type != "vxlan" {
		t.Fatalf("result %+v", r)
	}
	apply(t, c, 0, desired(spec))

	// The same when the mirror moves to another bridge and keeps the name of its port.
	o.Vsctl("add-br", "br1")
	eventually(t, c, "br1", func(s *vswitch.Topology) bool { return s.Bridges["br1"] != nil })
	spec.Bridge = "br1"
	if r = apply(t, c, 1, desired(spec)); !r.Pending || r.Mirrors[0].Code != ovsdb.CodePending {
		t.Fatalf("result %+v", r)
	}
	if r = apply(t, c, 1, desired(spec)); r.Pending || r.Mirrors[0].Code != ovsdb.CodeOK || len(c.Topology().Bridges["br0"].Mirrors) != 1 {
		t.Fatalf("result %+v", r)
	}
}

// Two tunnels with one key: Open vSwitch refuses the second, and only the row says so.
func TestTunnelRefused(t *testing.T) {
	o := ovsdbtest.Prepare(t, nil)
	o.RealTunnels = true
	o.StartDB()
	o.StartSwitch()
	o.Vsctl("add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=dummy", "--", "add-port", "br0", "vm1", "--", "set", "Interface",
		"vm1", "type=dummy")
	c := connected(t, o)
	eventually(t, c, "br0", func(s *vswitch.Topology) bool { return s.Bridges["br0"] != nil })
	tunnel := func(owner string) vswitch.MirrorSpec {
		m := mirrorSpec(owner, "vm1")
		m.Output.Type, m.Output.Options = "vxlan", map[string]string{"remote_ip": "192.0.2.1", "key": "5"}
		return m
	}
	r := apply(t, c, 1, desired(tunnel("a")))
	if r.Mirrors[0].Code != ovsdb.CodeOK || r.Mirrors[0].OutputOFPort <= 0 {
		t.Fatalf("result %+v", r)
	}
	r = apply(t, c, 1, desired(tunnel("a"), tunnel("b")))
	if diff := cmp.Diff([]string{"OK", "OUTPUT_ERROR"}, codes(r)); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
	if m := r.Mirrors[1]; m.OutputOFPort != -1 || !strings.Contains(m.OutputError, "File exists") || !strings.Contains(m.Message, "tw-b") ||
		m.UUID == "" {
		t.Errorf("result %+v", m)
	}
}
