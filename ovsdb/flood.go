package ovsdb

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// setFloods has bridges learn no addresses on the VLANs that mirrors copy to (Bridge.flood_vlans), as ovs-vswitchd.conf.db(5) asks for: a
// copy that comes back from another switch would teach the bridge that its machines are there. What others have put there stays. The
// bridge itself keeps which VLANs are ours, so that they go with the last mirror also when a crash or somebody else has taken its row.
func (p *planner) setFloods() {
	want := map[string][]int{}
	for i := range p.specs {
		if m := &p.specs[i]; m.OutputVLAN > 0 {
			want[m.Bridge] = append(want[m.Bridge], m.OutputVLAN)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.topo.Bridges)) {
		b := p.topo.Bridges[name]
		before := b.ExternalIDs[vswitch.MarkFloods]
		if p.made[name] != nil || len(want[name]) == 0 && before == "" {
			continue
		}
		ours := vlansOf(before)
		var add, keep []int
		for _, v := range slices.Compact(slices.Sorted(slices.Values(want[name]))) {
			there := slices.Contains(b.FloodVLANs, v)
			if !there {
				add = append(add, v)
			}
			if !there || slices.Contains(ours, v) {
				keep = append(keep, v)
			}
		}
		remove := slices.DeleteFunc(ours, func(v int) bool {
			return slices.Contains(want[name], v) || !slices.Contains(b.FloodVLANs, v)
		})
		var mutations []ovsdb.Mutation
		change := func(column string, mutator ovsdb.Mutator, value any) {
			mutations = append(mutations, ovsdb.Mutation{Column: column, Mutator: mutator, Value: value})
		}
		if len(remove) > 0 {
			change("flood_vlans", ovsdb.MutateOperationDelete, set(remove))
		}
		if len(add) > 0 {
			change("flood_vlans", ovsdb.MutateOperationInsert, set(add))
		}
		if after := vlanText(keep); after != before {
			change("external_ids", ovsdb.MutateOperationDelete, set([]string{vswitch.MarkFloods}))
			if after != "" {
				change("external_ids", ovsdb.MutateOperationInsert, stringMap(map[string]string{vswitch.MarkFloods: after}))
			}
		}
		if len(mutations) > 0 {
			p.rowOps = append(p.rowOps, mutateOp(tableBridge, b.UUID, mutations...))
		}
	}
}

// vlansOf reads a list of VLANs; what is none is nobody's.
func vlansOf(text string) (out []int) {
	for part := range strings.SplitSeq(text, ",") {
		if v, err := strconv.Atoi(part); err == nil {
			out = append(out, v)
		}
	}
	return out
}

func vlanText(vlans []int) string {
	var out []string
	for _, v := range vlans {
		out = append(out, strconv.Itoa(v))
	}
	return strings.Join(out, ",")
}
