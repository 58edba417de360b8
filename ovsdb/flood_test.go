package ovsdb_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// The VLANs that mirrors copy to come to those on which a bridge learns nothing, and go with the last mirror: not those that others have
// put there, and also when nobody knows any more but the bridge.
func TestFloodVLANs(t *testing.T) {
	o := newSwitch(t)
	o.Vsctl("set", "Bridge", "br0", "flood_vlans=300", "external_ids:theirs=1")
	c := connected(t, o)
	to := func(vlans ...int) (d ovsdb.Desired) {
		for i, v := range vlans {
			owner := string(rune('a' + i))
			d.Mirrors = append(d.Mirrors, vswitch.MirrorSpec{Owner: owner, Bridge: "br0", Name: owner, SelectAll: true, OutputVLAN: v})
		}
		return d
	}
	for _, step := range []struct {
		what         string
		before       []string // what somebody does, ovs-vsctl's words
		want         ovsdb.Desired
		transactions int
		vlans        []int
		mark         string
	}{
		{"made", nil, to(100), 1, []int{100, 300}, "100"},
		{"again", nil, to(100), 0, []int{100, 300}, "100"},
		{"two of one VLAN, and one of theirs", nil, to(100, 100, 300), 1, []int{100, 300}, "100"},
		{"one of the two goes", nil, to(100, 300, 200), 1, []int{100, 200, 300}, "100,200"},
		{"emptied by somebody", []string{"clear", "Bridge", "br0", "flood_vlans"}, to(100, 200), 1, []int{100, 200}, "100,200"},
		{"no longer theirs", []string{"set", "Bridge", "br0", "flood_vlans=7,200"}, to(100), 1, []int{7, 100}, "100"},
		{"the rows are taken", []string{"clear", "Bridge", "br0", "mirrors"}, ovsdb.Desired{}, 1, []int{7}, ""},
		{"all gone", nil, ovsdb.Desired{}, 0, []int{7}, ""},
	} {
		if step.before != nil {
			o.Vsctl(step.before...)
			eventually(t, c, step.what, func(s *vswitch.Topology) bool {
				b := s.Bridges["br0"]
				return b.FloodVLANs == nil || len(b.Mirrors) == 0 || slices.Contains(b.FloodVLANs, 7) && len(b.Mirrors) > 2
			})
		}
		apply(t, c, step.transactions, step.want)
		b := c.Topology().Bridges["br0"]
		if !slices.Equal(b.FloodVLANs, step.vlans) || b.ExternalIDs[vswitch.MarkFloods] != step.mark || b.ExternalIDs["theirs"] != "1" {
			t.Errorf("%s: %v, %v; want %v, marked %q", step.what, b.FloodVLANs, b.ExternalIDs, step.vlans, step.mark)
		}
		for _, m := range b.Mirrors {
			if m.Name != "foreign" && (m.OutputPort != "" || m.OutputVLAN == nil) {
				t.Errorf("%s: %+v", step.what, m)
			}
		}
	}
	if out := o.Vsctl("get", "Bridge", "br0", "external_ids"); strings.TrimSpace(out) != `{theirs="1"}` {
		t.Errorf("left in external_ids: %s", out)
	}
}
