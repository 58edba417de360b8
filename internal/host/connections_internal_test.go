package host

import (
	"slices"
	"testing"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb/unixctl"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// namesOf is a bridge, the second of its host, with endpoints in VLAN 7, without tag and on a trunk, one that forwards, and one that is no
// more.
func namesOf(t *testing.T) (*view, *wallView) {
	t.Helper()
	tag := func(n int) *int { return &n }
	numbers := newNumbers(&wall.Assignments{
		Endpoints: map[string]wall.EndpointAssignment{"a": {ID: 0x21}, "b": {ID: 0x30}, "c": {ID: 0x40, Forwarder: 1}},
		Retired:   map[uint32]wall.Station{0x50: {Port: "gone"}}})
	v := &view{host: "h1", topo: &vswitch.Topology{Bridges: map[string]*vswitch.Bridge{"br1": {Name: "br1", Ports: map[string]*vswitch.Port{
		"pa": {Tag: tag(7)}, "pb": {Tag: tag(0)}, "pc": {}}}}}}
	v.inventory.Workloads = []*policy.Workload{{Key: "a", Bridge: "br1", Port: "pa", VLAN: 7, Labels: map[string]string{"vm-name": "alice"}},
		{Key: "b", Bridge: "br1", Port: "pb", Endpoint: "bob"}, {Key: "c", Bridge: "br1", Port: "pc"},
		{Key: "d", Bridge: "br0", Port: "pd", VLAN: 9}}
	return v, &wallView{bridgeView: bridgeView{link: &link{cfg: BridgeConfig{Name: "br1"}}}, numbers: numbers, index: 1}
}

// Zones are looked at where what is asked for may be, and nowhere else: each costs.
func TestZonesOfAQuery(t *testing.T) {
	v, b := namesOf(t)
	in, out := pipeline.ForwarderZones(1, 0)
	for _, tc := range []struct {
		q      backend.ConnectionQuery
		want   []uint16
		others bool
	}{
		{backend.ConnectionQuery{}, []uint16{0xD000, 0xD007, in, out}, true},
		{backend.ConnectionQuery{VLAN: []int{7}}, []uint16{0xD007}, false},
		{backend.ConnectionQuery{VLAN: []int{9, 0, 9}}, []uint16{0xD000, 0xD009}, false},
		{backend.ConnectionQuery{Endpoint: []string{"pa"}}, []uint16{0xD007, in, out}, false},
		{backend.ConnectionQuery{From: []string{"alice"}}, []uint16{0xD007, in, out}, false},
		{backend.ConnectionQuery{To: []string{"bob"}, From: []string{"br1/pa"}}, []uint16{0xD000, 0xD007, in, out}, false},
		{backend.ConnectionQuery{To: []string{"c"}}, []uint16{0xD000, in, out}, true},
		{backend.ConnectionQuery{To: []string{"pd"}}, []uint16{0xD000, 0xD007, in, out}, true}, // of another bridge, or of none
	} {
		s := search{v: v, b: b, q: tc.q}
		if got, others := s.zones(); !slices.Equal(got, tc.want) || others != tc.others {
			t.Errorf("%+v: zones %#x, others %v; want %#x, %v", tc.q, got, others, tc.want, tc.others)
		}
	}
}

func TestNamesOfEnds(t *testing.T) {
	v, b := namesOf(t)
	d := newDirectory(v, b)
	d.stands = func(f flow.Flow) bool { return f.Table == pipeline.TableLiveEgress }
	in, _ := pipeline.ForwarderZones(1, 0)
	x := unixctl.Entry{Proto: 58, Zone: in, Mark: 1 | 4, LabelsHi: 0x00000050_00000020, LabelsLo: 0x00000001_00000002}
	c := d.connection(x)
	if c.Source.PortName != "pa" || c.Source.InForce || c.Destination.PortName != "gone" || c.Destination.Endpoint != "" ||
		c.VLAN != nil || !c.PickedUp || c.Logged || c.ICMP == nil || c.Label != "0x50000000200000000100000002" ||
		c.Egress.ID != 1 || !c.Egress.InForce || c.Ingress.ID != 2 || c.Ingress.InForce {
		t.Errorf("%+v", c)
	}
	for name, want := range map[string]bool{"pa": true, "alice": true, "br1/pa": true, "a": true, "gone": false, "": false, "pb": false} {
		if got := d.goesBy(&c.Source, name); got != want {
			t.Errorf("the initiator goes by %q: %v", name, got)
		}
	}
	if !d.goesBy(&c.Destination, "gone") || d.goesBy(&c.Destination, "") {
		t.Error("who is no more goes by the port")
	}
	x.LabelsHi, x.Zone = 0x00000060_40000000, 0xD007
	c = d.connection(x)
	if !c.Source.InForce || c.Source.PortName != "" || c.Destination.InForce || c.Destination.PortName != "" || *c.VLAN != 7 {
		t.Errorf("nobody, and an id that stands for nothing: %+v", c)
	}
	x.Mark = 0
	if c = d.connection(x); c.Ours || c.Source.InForce || c.Egress.ID != 0 {
		t.Errorf("somebody else's: %+v", c)
	}
}
