package ovsdb

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/ovn-kubernetes/libovsdb/cache"
	"github.com/ovn-kubernetes/libovsdb/model"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// snapshot is a published topology together with what only this package needs.
type snapshot struct {
	topo *vswitch.Topology
	root string // _uuid of the Open_vSwitch row
}

var (
	// errNoRoot: a database that nobody has initialised yet. It is not an empty topology.
	errNoRoot = errors.New("the database has no Open_vSwitch row yet (ovs-vsctl init has not run)")
	// errTorn: rows that one transaction wrote together were read apart.
	errTorn = errors.New("rows changed while they were read")
)

// tables are the cached rows of the monitored tables by _uuid. The rows are shared with the cache and never written to: the cache
// replaces a row that changes.
type tables struct {
	root, bridges, ports, interfaces, mirrors, controllers, flowTables, datapaths, zones, policies map[string]model.Model
}

func (t *tables) each() []map[string]model.Model {
	return []map[string]model.Model{
		t.root, t.bridges, t.ports, t.interfaces, t.mirrors, t.controllers, t.flowTables, t.datapaths, t.zones, t.policies,
	}
}

func readOnce(c *cache.TableCache) tables {
	read := func(name string) map[string]model.Model { return c.Table(name).RowsShallow() }
	return tables{
		root:        read(tableRoot),
		bridges:     read(tableBridge),
		ports:       read(tablePort),
		interfaces:  read(tableInterface),
		mirrors:     read(tableMirror),
		controllers: read(tableController),
		flowTables:  read(tableFlowTable),
		datapaths:   read(tableDatapath),
		zones:       read(tableZone),
		policies:    read(tablePolicy),
	}
}

// readTables reads all tables as they were at one moment. The cache can lock one table only, so everything is read twice: an update
// from the server is applied under a lock that TableCache.Table also takes, and a row that changes becomes another object, so when
// both readings hold the same objects, no transaction was half applied at the moment between them.
func readTables(c *cache.TableCache) (tables, error) {
	first := readOnce(c)
	second := readOnce(c)
	a, b := first.each(), second.each()
	for i := range a {
		if len(a[i]) != len(b[i]) {
			return tables{}, errTorn
		}
		for uuid, row := range a[i] {
			if b[i][uuid] != row {
				return tables{}, errTorn
			}
		}
	}
	return first, nil
}

// builder makes snapshots out of tables. It keeps the values of the last one, so that what did not change is neither converted nor
// allocated again and stays the same pointer in the next snapshot. It outlives connections: after a reconnect every row is a new
// object, but an equal row still becomes the old value.
type builder struct {
	address    string // of the database
	last       *snapshot
	interfaces map[string]entry[*interfaceRow, *vswitch.Interface]
	ports      map[string]entry[*portRow, *vswitch.Port]
	mirrors    map[string]entry[*mirrorRow, *vswitch.Mirror]
	bridges    map[string]entry[*bridgeRow, *vswitch.Bridge]
}

type entry[R, V any] struct {
	row R
	val V
}

func newBuilder(address string) *builder {
	return &builder{
		address:    address,
		interfaces: map[string]entry[*interfaceRow, *vswitch.Interface]{},
		ports:      map[string]entry[*portRow, *vswitch.Port]{},
		mirrors:    map[string]entry[*mirrorRow, *vswitch.Mirror]{},
		bridges:    map[string]entry[*bridgeRow, *vswitch.Bridge]{},
	}
}

// build returns the snapshot for t: the last one when nothing differs.
func (b *builder) build(t tables) (*snapshot, error) {
	if len(t.root) == 0 {
		return nil, errNoRoot
	}
	if len(t.root) > 1 { // the schema allows one
		return nil, fmt.Errorf("%w: there are %d Open_vSwitch rows", errTorn, len(t.root))
	}
	var root *rootRow
	for _, m := range t.root {
		root = m.(*rootRow)
	}

	host, doubt := hostID(b.address, root.ExternalIDs)
	topo := &vswitch.Topology{
		Host:       host,
		HostDoubt:  doubt,
		OVSVersion: deref(root.OVSVersion),
		DBVersion:  deref(root.DBVersion),
		NextCfg:    int64(root.NextCfg),
		CurCfg:     int64(root.CurCfg),

		InterfaceTypes: nilIfEmpty(slices.Sorted(slices.Values(root.IfaceTypes))),

		RestoreWait: root.OtherConfig["flow-restore-wait"] == "true",

		Bridges: make(map[string]*vswitch.Bridge, len(root.Bridges)),
	}
	structure, differs := false, false
	for _, uuid := range root.Bridges {
		row, ok := t.bridges[uuid].(*bridgeRow)
		if !ok {
			return nil, fmt.Errorf("%w: bridge %s is missing", errTorn, uuid)
		}
		bridge, change, err := b.bridge(t, row)
		if err != nil {
			return nil, err
		}
		structure = structure || change == changeStructure
		differs = differs || change != changeNone
		topo.Bridges[bridge.Name] = bridge
	}
	var err error
	if topo.Datapaths, err = datapathValues(t, root); err != nil {
		return nil, err
	}
	b.forget(t)

	old := b.last
	if old == nil || old.root != root.UUID || old.topo.Host != topo.Host || old.topo.HostDoubt != topo.HostDoubt ||
		old.topo.OVSVersion != topo.OVSVersion ||
		old.topo.DBVersion != topo.DBVersion || len(old.topo.Bridges) != len(topo.Bridges) ||
		!reflect.DeepEqual(old.topo.Datapaths, topo.Datapaths) || !slices.Equal(old.topo.InterfaceTypes, topo.InterfaceTypes) {
		structure = true
	}
	for name, bridge := range topo.Bridges {
		// Another row under the same name: its parts may all be equal, but its UUID is not.
		if old != nil && (old.topo.Bridges[name] == nil || old.topo.Bridges[name].UUID != bridge.UUID) {
			structure = true
		}
	}
	if old != nil {
		differs = differs || structure || old.topo.NextCfg != topo.NextCfg || old.topo.CurCfg != topo.CurCfg ||
			old.topo.RestoreWait != topo.RestoreWait
		if !differs {
			return old, nil
		}
		topo.Generation, topo.Structure = old.topo.Generation, old.topo.Structure
	}
	topo.Generation++
	if structure {
		topo.Structure++
	}
	b.last = &snapshot{topo: topo, root: root.UUID}
	return b.last, nil
}

// forget drops remembered values of rows that are gone.
func (b *builder) forget(t tables) {
	sweep(b.interfaces, t.interfaces)
	sweep(b.ports, t.ports)
	sweep(b.mirrors, t.mirrors)
	sweep(b.bridges, t.bridges)
}

func sweep[E any](known map[string]E, rows map[string]model.Model) {
	if len(known) <= len(rows) {
		// Every known row was looked up in this build or the last; equal sizes mean equal sets, and a few too many do no harm.
		return
	}
	maps.DeleteFunc(known, func(uuid string, _ E) bool { return rows[uuid] == nil })
}

type change int

const (
	changeNone      change = iota
	changeCounters         // Mirror.statistics only
	changeStructure        // anything else
)

func (b *builder) bridge(t tables, row *bridgeRow) (*vswitch.Bridge, change, error) {
	old := b.bridges[row.UUID]
	ports := make([]*vswitch.Port, 0, len(row.Ports))
	for _, uuid := range row.Ports {
		p, err := b.port(t, uuid)
		if err != nil {
			return nil, 0, err
		}
		ports = append(ports, p)
	}
	mirrors := make([]*vswitch.Mirror, 0, len(row.Mirrors))
	for _, uuid := range row.Mirrors {
		m, err := b.mirror(t, uuid)
		if err != nil {
			return nil, 0, err
		}
		mirrors = append(mirrors, m)
	}
	slices.SortFunc(mirrors, func(x, y *vswitch.Mirror) int { return strings.Compare(x.UUID, y.UUID) })
	controllers := make([]vswitch.Controller, 0, len(row.Controller))
	for _, uuid := range row.Controller {
		c, ok := t.controllers[uuid].(*controllerRow)
		if !ok {
			return nil, 0, fmt.Errorf("%w: controller %s of bridge %s is missing", errTorn, uuid, row.Name)
		}
		controllers = append(controllers, vswitch.Controller{UUID: uuid, Target: c.Target, ExternalIDs: nilIfNone(c.ExternalIDs)})
	}
	slices.SortFunc(controllers, func(x, y vswitch.Controller) int {
		return cmp.Or(strings.Compare(x.Target, y.Target), strings.Compare(x.UUID, y.UUID))
	})

	var names map[int]vswitch.FlowTable
	for number, uuid := range row.FlowTables {
		f, ok := t.flowTables[uuid].(*flowTableRow)
		if !ok {
			return nil, 0, fmt.Errorf("%w: the row of table %d of bridge %s is missing", errTorn, number, row.Name)
		}
		if names == nil {
			names = make(map[int]vswitch.FlowTable, len(row.FlowTables))
		}
		names[number] = vswitch.FlowTable{UUID: uuid, Name: deref(f.Name), Prefixes: nilIfEmpty(slices.Sorted(slices.Values(f.Prefixes))),
			ExternalIDs: nilIfNone(f.ExternalIDs)}
	}

	kind := compareBridge(old.val, row, ports, mirrors, controllers, names)
	if kind == changeNone {
		b.bridges[row.UUID] = entry[*bridgeRow, *vswitch.Bridge]{row, old.val}
		return old.val, changeNone, nil
	}
	bridge := bridgeValue(row)
	bridge.Controllers = nilIfEmpty(controllers)
	bridge.Mirrors = nilIfEmpty(mirrors)
	bridge.FlowTables = names
	bridge.Ports = make(map[string]*vswitch.Port, len(ports))
	for _, p := range ports {
		bridge.Ports[p.Name] = p
	}
	b.bridges[row.UUID] = entry[*bridgeRow, *vswitch.Bridge]{row, bridge}
	return bridge, kind, nil
}

func bridgeValue(row *bridgeRow) *vswitch.Bridge {
	protocols := slices.Sorted(slices.Values(row.Protocols))
	return &vswitch.Bridge{
		UUID:         row.UUID,
		Name:         row.Name,
		DatapathType: row.DatapathType,
		DatapathID:   deref(row.DatapathID),
		FailMode:     deref(row.FailMode),
		Protocols:    nilIfEmpty(protocols),
		ExternalIDs:  nilIfNone(row.ExternalIDs),
		OtherConfig:  nilIfNone(row.OtherConfig),
		FloodVLANs:   nilIfEmpty(slices.Sorted(slices.Values(row.FloodVLANs))),
	}
}

func compareBridge(old *vswitch.Bridge, row *bridgeRow, ports []*vswitch.Port, mirrors []*vswitch.Mirror, controllers []vswitch.Controller,
	names map[int]vswitch.FlowTable) change {
	if old == nil || len(old.Ports) != len(ports) || len(old.Mirrors) != len(mirrors) ||
		!reflect.DeepEqual(old.Controllers, nilIfEmpty(controllers)) || !reflect.DeepEqual(old.FlowTables, names) {
		return changeStructure
	}
	for _, p := range ports {
		if old.Ports[p.Name] != p {
			return changeStructure
		}
	}
	own := *old
	own.Ports, own.Mirrors, own.Controllers, own.FlowTables = nil, nil, nil, nil
	if !reflect.DeepEqual(&own, bridgeValue(row)) {
		return changeStructure
	}
	result := changeNone
	for i, m := range mirrors {
		if old.Mirrors[i] == m {
			continue
		}
		x, y := *old.Mirrors[i], *m
		x.Statistics, y.Statistics = nil, nil
		if !reflect.DeepEqual(x, y) {
			return changeStructure
		}
		result = changeCounters
	}
	return result
}

func (b *builder) port(t tables, uuid string) (*vswitch.Port, error) {
	row, ok := t.ports[uuid].(*portRow)
	if !ok {
		return nil, fmt.Errorf("%w: port %s is missing", errTorn, uuid)
	}
	old := b.ports[uuid]
	same := old.row == row && old.val != nil
	interfaces := make([]*vswitch.Interface, 0, len(row.Interfaces))
	for _, id := range row.Interfaces {
		i, err := b.iface(t, id)
		if err != nil {
			return nil, err
		}
		interfaces = append(interfaces, i)
	}
	slices.SortFunc(interfaces, func(x, y *vswitch.Interface) int { return strings.Compare(x.Name, y.Name) })
	if same && slices.Equal(interfaces, old.val.Interfaces) {
		return old.val, nil
	}
	trunks := slices.Sorted(slices.Values(row.Trunks))
	p := &vswitch.Port{
		UUID:        row.UUID,
		Name:        row.Name,
		Tag:         row.Tag,
		Trunks:      nilIfEmpty(trunks),
		VLANMode:    deref(row.VLANMode),
		ExternalIDs: nilIfNone(row.ExternalIDs),
		OtherConfig: nilIfNone(row.OtherConfig),
		Interfaces:  interfaces,
	}
	if old.val != nil && reflect.DeepEqual(old.val, p) {
		p = old.val
	}
	b.ports[uuid] = entry[*portRow, *vswitch.Port]{row, p}
	return p, nil
}

func (b *builder) iface(t tables, uuid string) (*vswitch.Interface, error) {
	row, ok := t.interfaces[uuid].(*interfaceRow)
	if !ok {
		return nil, fmt.Errorf("%w: interface %s is missing", errTorn, uuid)
	}
	old := b.interfaces[uuid]
	if old.row == row && old.val != nil {
		return old.val, nil
	}
	i := &vswitch.Interface{
		UUID:        row.UUID,
		Name:        row.Name,
		Type:        row.Type,
		OFPort:      int64(deref(row.OFPort)),
		MACInUse:    deref(row.MACInUse),
		AdminState:  deref(row.AdminState),
		LinkState:   deref(row.LinkState),
		MTU:         int64(deref(row.MTU)),
		Error:       deref(row.Error),
		ExternalIDs: nilIfNone(row.ExternalIDs),
		Options:     nilIfNone(row.Options),
	}
	if old.val != nil && reflect.DeepEqual(old.val, i) {
		i = old.val
	}
	b.interfaces[uuid] = entry[*interfaceRow, *vswitch.Interface]{row, i}
	return i, nil
}

func (b *builder) mirror(t tables, uuid string) (*vswitch.Mirror, error) {
	row, ok := t.mirrors[uuid].(*mirrorRow)
	if !ok {
		return nil, fmt.Errorf("%w: mirror %s is missing", errTorn, uuid)
	}
	old := b.mirrors[uuid]
	if old.row == row && old.val != nil {
		return old.val, nil
	}
	// The references are weak: a port that is gone is gone from the row too, in the same transaction.
	torn := false
	names := func(uuids []string) []string {
		var out []string
		for _, id := range uuids {
			p, ok := t.ports[id].(*portRow)
			if !ok {
				torn = true
				continue
			}
			out = append(out, p.Name)
		}
		slices.Sort(out)
		return out
	}
	m := &vswitch.Mirror{
		UUID:          row.UUID,
		Name:          row.Name,
		SelectAll:     row.SelectAll,
		SelectSrcPort: names(row.SelectSrcPort),
		SelectDstPort: names(row.SelectDstPort),
		SelectVLAN:    nilIfEmpty(slices.Sorted(slices.Values(row.SelectVLAN))),
		OutputVLAN:    row.OutputVLAN,
		Snaplen:       row.Snaplen,
		ExternalIDs:   nilIfNone(row.ExternalIDs),
	}
	if row.OutputPort != nil {
		if out := names([]string{*row.OutputPort}); len(out) == 1 {
			m.OutputPort = out[0]
		}
	}
	if torn {
		return nil, fmt.Errorf("%w: a port of mirror %s is missing", errTorn, row.Name)
	}
	if len(row.Statistics) > 0 {
		m.Statistics = make(map[string]int64, len(row.Statistics))
		for k, v := range row.Statistics {
			m.Statistics[k] = int64(v)
		}
	}
	if old.val != nil && reflect.DeepEqual(old.val, m) {
		m = old.val
	}
	b.mirrors[uuid] = entry[*mirrorRow, *vswitch.Mirror]{row, m}
	return m, nil
}

func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// nilIfEmpty and nilIfNone give "no value" one form: the library yields an empty set for a row of the first download and nil for one
// that was inserted later.
func nilIfEmpty[S ~[]E, E any](s S) S {
	if len(s) == 0 {
		return nil
	}
	return s
}

func nilIfNone(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return m
}
