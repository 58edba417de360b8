package ovsdb

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// TimeoutPolicyResult is the state of one TimeoutPolicySpec. The row stands when Code is CodeOK and UUID is set; whether the datapath
// can do it, ovs-vswitchd says nowhere but in its log.
type TimeoutPolicyResult struct {
	Owner, DatapathType string
	Zone                int
	Code                Code
	Message             string // one sentence; "" for CodeOK
	UUID                string // of our CT_Timeout_Policy row; "" when there is none
}

// timeoutNames are sorted.
var timeoutNames = vswitch.TimeoutNames()

// datapathValues are the rows of Open_vSwitch.datapaths with their zones; nil when there are none.
func datapathValues(t tables, root *rootRow) (map[string]vswitch.Datapath, error) {
	var out map[string]vswitch.Datapath
	for kind, uuid := range root.Datapaths {
		row, ok := t.datapaths[uuid].(*datapathRow)
		if !ok {
			return nil, fmt.Errorf("%w: datapath %s is missing", errTorn, uuid)
		}
		d := vswitch.Datapath{UUID: uuid, ExternalIDs: nilIfNone(row.ExternalIDs), Capabilities: nilIfNone(row.Capabilities)}
		for number, uuid := range row.Zones {
			zone, ok := t.zones[uuid].(*zoneRow)
			if !ok {
				return nil, fmt.Errorf("%w: the row of zone %d of datapath %s is missing", errTorn, number, kind)
			}
			z := vswitch.Zone{UUID: uuid, ExternalIDs: nilIfNone(zone.ExternalIDs)}
			if zone.Policy != nil {
				policy, ok := t.policies[*zone.Policy].(*policyRow)
				if !ok {
					return nil, fmt.Errorf("%w: the timeout policy of zone %d of datapath %s is missing", errTorn, number, kind)
				}
				z.Policy = &vswitch.TimeoutPolicy{UUID: policy.UUID, ExternalIDs: nilIfNone(policy.ExternalIDs)}
				if len(policy.Timeouts) > 0 {
					z.Policy.Timeouts = policy.Timeouts
				}
			}
			if d.Zones == nil {
				d.Zones = make(map[int]vswitch.Zone, len(row.Zones))
			}
			d.Zones[number] = z
		}
		if out == nil {
			out = make(map[string]vswitch.Datapath, len(root.Datapaths))
		}
		out[kind] = d
	}
	return out, nil
}

// zoneKey identifies a conntrack zone of the host.
type zoneKey struct {
	datapath string
	zone     int
}

// zonesEdit gathers the changes of one datapath's zones: number → reference of a row.
type zonesEdit struct{ add, del map[any]any }

func validateTimeouts(s *vswitch.TimeoutPolicySpec) error {
	var errs []error
	if s.Owner == "" {
		errs = append(errs, errors.New("no owner"))
	}
	if name := vswitch.DatapathName(s.DatapathType); name != "system" && name != "netdev" {
		errs = append(errs, fmt.Errorf("datapath type %q has no conntrack zones", s.DatapathType))
	}
	if s.Zone < 0 || s.Zone > 65535 {
		errs = append(errs, fmt.Errorf("zone %d is not in 0…65535", s.Zone))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Timeouts)) {
		if _, known := slices.BinarySearch(timeoutNames, name); !known {
			errs = append(errs, fmt.Errorf("there is no timeout %q", name))
		}
		if v := s.Timeouts[name]; v < 0 || v > 1<<32-1 {
			errs = append(errs, fmt.Errorf("%s = %d is not in 0…4294967295", name, v))
		}
	}
	return errors.Join(errs...)
}

// oursWhole: a zone is ours only with all of it. A policy that somebody put into our zone is not ours to remove.
func oursWhole(z vswitch.Zone) bool {
	return ours(z.ExternalIDs) && (z.Policy == nil || ours(z.Policy.ExternalIDs))
}

// setTimeouts makes, corrects and removes the rows of timeout policies, and the Datapath row where nobody else has made one.
func (p *planner) setTimeouts(specs []vswitch.TimeoutPolicySpec) {
	p.timeouts = make([]TimeoutPolicyResult, len(specs))
	order := make([]int, len(specs))
	for i, s := range specs {
		order[i] = i
		p.timeouts[i] = TimeoutPolicyResult{Owner: s.Owner, DatapathType: s.DatapathType, Zone: s.Zone}
	}
	keyOf := func(i int) zoneKey { return zoneKey{vswitch.DatapathName(specs[i].DatapathType), specs[i].Zone} }
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := keyOf(a), keyOf(b)
		return cmp.Or(cmp.Compare(x.datapath, y.datapath), cmp.Compare(x.zone, y.zone))
	})
	wanted := map[zoneKey]bool{}
	edits := map[string]*zonesEdit{}
	edit := func(datapath string) *zonesEdit {
		if edits[datapath] == nil {
			edits[datapath] = &zonesEdit{map[any]any{}, map[any]any{}}
		}
		return edits[datapath]
	}
	for _, i := range order {
		s, r, key := &specs[i], &p.timeouts[i], keyOf(i)
		fail := func(code Code, format string, args ...any) { r.Code, r.Message = code, fmt.Sprintf(format, args...) }
		zone, there := p.topo.Datapaths[key.datapath].Zones[key.zone]
		err := validateTimeouts(s)
		switch {
		case err != nil:
			fail(CodeInvalid, "%s", oneLine(err))
		case wanted[key]:
			fail(CodeInvalid, "another timeout policy has the same datapath and zone")
		case there && !oursWhole(zone):
			fail(CodeZoneTaken, "zone %d of datapath %s was not set up by tapwall", key.zone, key.datapath)
		case there:
			p.correctZone(zone, s)
		default:
			ref := p.name()
			p.rowOps = append(p.rowOps, insertOp(tableZone, ref, ovsdb.Row{
				"timeout_policy": uuids(p.insertPolicy(s)), "external_ids": stringMap(resourceMarks(s.Owner)),
			}))
			edit(key.datapath).add[key.zone] = ovsdb.UUID{GoUUID: ref}
		}
		wanted[key] = true
	}

	for _, name := range slices.Sorted(maps.Keys(p.topo.Datapaths)) {
		d := p.topo.Datapaths[name]
		for _, number := range slices.Sorted(maps.Keys(d.Zones)) {
			if oursWhole(d.Zones[number]) && !wanted[zoneKey{name, number}] {
				edit(name).del[number] = ovsdb.UUID{GoUUID: d.Zones[number].UUID}
				p.removed = append(p.removed, fmt.Sprintf("timeout policy %s/%d", name, number))
			}
		}
		if ours(d.ExternalIDs) {
			edit(name) // it may have become superfluous
		}
	}
	p.writeZones(edits)
}

// writeZones changes the sets of zones, and makes or removes the rows that hold them.
func (p *planner) writeZones(edits map[string]*zonesEdit) {
	add, del := map[any]any{}, map[any]any{}
	for _, name := range slices.Sorted(maps.Keys(edits)) {
		e, d := edits[name], p.topo.Datapaths[name]
		if d.UUID == "" {
			ref := p.name()
			p.rowOps = append(p.rowOps, insertOp(tableDatapath, ref, ovsdb.Row{
				"ct_zones": ovsdb.OvsMap{GoMap: e.add}, "external_ids": stringMap(map[string]string{vswitch.MarkOwner: vswitch.OwnerValue}),
			}))
			add[name] = ovsdb.UUID{GoUUID: ref}
			continue
		}
		superfluous := ours(d.ExternalIDs) && len(d.Zones)+len(e.add) == len(e.del)
		if len(e.add)+len(e.del) == 0 && !superfluous {
			continue
		}
		seen := make(map[any]any, len(d.Zones))
		for number, z := range d.Zones {
			seen[number] = ovsdb.UUID{GoUUID: z.UUID}
		}
		p.ops = append(p.ops, waitOp(tableDatapath, d.UUID, "ct_zones", ovsdb.OvsMap{GoMap: seen}))
		if superfluous {
			del[name] = ovsdb.UUID{GoUUID: d.UUID}
			continue
		}
		var mutations []ovsdb.Mutation
		mutations = mutateMap(mutations, "ct_zones", ovsdb.MutateOperationDelete, e.del)
		mutations = mutateMap(mutations, "ct_zones", ovsdb.MutateOperationInsert, e.add)
		p.rowOps = append(p.rowOps, mutateOp(tableDatapath, d.UUID, mutations...))
	}
	if len(add)+len(del) == 0 {
		return
	}
	seen := make(map[any]any, len(p.topo.Datapaths))
	for name, d := range p.topo.Datapaths {
		seen[name] = ovsdb.UUID{GoUUID: d.UUID}
	}
	p.ops = append(p.ops, waitOp(tableRoot, p.root, "datapaths", ovsdb.OvsMap{GoMap: seen}))
	p.rootEdit = mutateMap(p.rootEdit, "datapaths", ovsdb.MutateOperationDelete, del)
	p.rootEdit = mutateMap(p.rootEdit, "datapaths", ovsdb.MutateOperationInsert, add)
}

func mutateMap(to []ovsdb.Mutation, column string, mutator ovsdb.Mutator, pairs map[any]any) []ovsdb.Mutation {
	if len(pairs) == 0 {
		return to
	}
	return append(to, ovsdb.Mutation{Column: column, Mutator: mutator, Value: ovsdb.OvsMap{GoMap: pairs}})
}

func (p *planner) insertPolicy(s *vswitch.TimeoutPolicySpec) (ref string) {
	ref = p.name()
	p.rowOps = append(p.rowOps, insertOp(tablePolicy, ref, ovsdb.Row{
		"timeouts": intMap(s.Timeouts), "external_ids": stringMap(resourceMarks(s.Owner)),
	}))
	return ref
}

func (p *planner) correctZone(z vswitch.Zone, s *vswitch.TimeoutPolicySpec) {
	p.mark(tableZone, z.UUID, z.ExternalIDs, s.Owner)
	if z.Policy == nil {
		p.rowOps = append(p.rowOps, updateOp(tableZone, z.UUID, ovsdb.Row{"timeout_policy": uuids(p.insertPolicy(s))}))
		return
	}
	if !maps.Equal(z.Policy.Timeouts, s.Timeouts) {
		p.rowOps = append(p.rowOps, updateOp(tablePolicy, z.Policy.UUID, ovsdb.Row{"timeouts": intMap(s.Timeouts)}))
	}
	p.mark(tablePolicy, z.Policy.UUID, z.Policy.ExternalIDs, s.Owner)
}

// readTimeouts completes the results with what a snapshot holds.
func (p *plan) readTimeouts(t *vswitch.Topology) {
	for i := range p.timeouts {
		r := &p.timeouts[i]
		if z := t.Datapaths[vswitch.DatapathName(r.DatapathType)].Zones[r.Zone]; z.Policy != nil && oursWhole(z) {
			r.UUID = z.Policy.UUID
		}
	}
}

// oneLine makes a sentence of joined errors.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
