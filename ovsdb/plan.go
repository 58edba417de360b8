package ovsdb

import (
	"fmt"
	"maps"
	"slices"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// plan is the difference between a snapshot and what is wanted: pure, no I/O.
type plan struct {
	ops         []ovsdb.Operation // empty: nothing differs
	results     []MirrorResult
	bridges     []BridgeResult
	portResults []PortResult
	controllers []ControllerResult
	timeouts    []TimeoutPolicyResult
	removed     []string
	kept        []string
	missing     []string
	pending     bool
}

// planner holds what is known while a plan is made.
type planner struct {
	plan
	root   string            // _uuid of the Open_vSwitch row
	before *vswitch.Topology // as read
	topo   *vswitch.Topology // with our bridges as they will be: new ones empty, those that go away
	specs  []vswitch.MirrorSpec
	order  []int // of specs, sorted by key so that equal input gives equal output

	holders                map[string]holder        // who has a port's or interface's name before
	own                    map[string]bool          // bridges that are ours and wanted
	refused                map[string]*BridgeResult // bridges that are wanted and cannot be had
	made                   map[string]ovsdb.Row     // the inserts of new bridges, by name
	newBridges, oldBridges []string                 // references to bridges that come and go
	wanted                 map[string]*wantedPort   // PortSpecs by the port's name
	rootEdit               []ovsdb.Mutation

	rows    map[mirrorKey]*vswitch.Mirror // our rows; of several with one key the first by UUID
	outputs map[portKey]*output
	edits   map[string]*bridgeEdit // by bridge name
	rowOps  []ovsdb.Operation
	names   int
}

type portKey struct{ bridge, port string }

// bridgeEdit gathers the changes of one bridge's sets.
type bridgeEdit struct {
	addPorts, delPorts, addMirrors, delMirrors []string
	addControllers, delControllers             []string
	addTables, delTables                       map[any]any // number of a table → reference of a row
}

// dropPort removes a port, once.
func (e *bridgeEdit) dropPort(uuid string) {
	if !slices.Contains(e.delPorts, uuid) {
		e.delPorts = append(e.delPorts, uuid)
	}
}

func makePlan(s *snapshot, d Desired) *plan {
	p := &planner{
		root:    s.root,
		before:  s.topo,
		specs:   d.Mirrors,
		own:     map[string]bool{},
		refused: map[string]*BridgeResult{},
		made:    map[string]ovsdb.Row{},
		wanted:  map[string]*wantedPort{},
		rows:    map[mirrorKey]*vswitch.Mirror{},
		outputs: map[portKey]*output{},
		edits:   map[string]*bridgeEdit{},
	}
	p.results = make([]MirrorResult, len(p.specs))
	p.order = make([]int, len(p.specs))
	for i := range p.specs {
		p.order[i] = i
		p.results[i] = MirrorResult{Owner: p.specs[i].Owner, Bridge: p.specs[i].Bridge, Name: p.specs[i].Name}
	}
	slices.SortStableFunc(p.order, func(a, b int) int { return compareKeys(keyOf(&p.specs[a]), keyOf(&p.specs[b])) })

	p.findNames()
	p.setBridges(d.Bridges)
	p.setPorts(d.Ports)
	p.findRows()
	p.checkSpecs()
	p.checkOutputs()
	p.checkLimit()
	p.writeOutputs()
	for _, i := range p.order {
		if p.results[i].Code == CodeOK {
			p.writeMirror(i)
		}
	}
	p.removeOrphans()
	p.setFloods()
	p.setFailModes(d.FailModes)
	p.setTables(d.TableNames, d.TablePrefixes)
	p.setControllers(d.Controllers)
	p.setTimeouts(d.TimeoutPolicies)
	p.finish()
	return &p.plan
}

func (p *planner) fail(i int, code Code, format string, args ...any) {
	p.results[i].Code, p.results[i].Message = code, fmt.Sprintf(format, args...)
}

func (p *planner) edit(bridge string) *bridgeEdit {
	e := p.edits[bridge]
	if e == nil {
		e = &bridgeEdit{addTables: map[any]any{}, delTables: map[any]any{}}
		p.edits[bridge] = e
	}
	return e
}

func (p *planner) name() string {
	p.names++
	return fmt.Sprintf("row%d", p.names)
}

func (p *planner) findRows() {
	for _, bridge := range p.topo.Bridges {
		for _, m := range bridge.Mirrors {
			if !ours(m.ExternalIDs) {
				continue
			}
			key := mirrorKey{bridge.Name, m.ExternalIDs[vswitch.MarkMirror], m.Name}
			if p.rows[key] == nil {
				p.rows[key] = m
			}
		}
	}
}

func (p *planner) checkSpecs() {
	seen := map[mirrorKey]bool{}
	for _, i := range p.order {
		m := &p.specs[i]
		if err := validate(m); err != nil {
			p.fail(i, CodeInvalid, "%s", oneLine(err))
			continue
		}
		if seen[keyOf(m)] {
			p.fail(i, CodeInvalid, "another mirror has the same bridge, owner and name")
			continue
		}
		seen[keyOf(m)] = true
		if p.bridge(m.Bridge) == nil {
			p.fail(i, CodeBridgeMissing, "%s", p.noBridge(m.Bridge))
			continue
		}
		if m.Hold {
			p.fail(i, CodeHeld, "mirror %s is held back", m.Name)
		}
	}
}

// checkLimit refuses new rows where ovs-vswitchd would ignore them. Rows that exist come first, then the others in order.
func (p *planner) checkLimit() {
	count := map[string]int{}
	wanted := map[*vswitch.Mirror]bool{}
	for i := range p.specs {
		if m := p.rows[keyOf(&p.specs[i])]; m != nil {
			wanted[m] = true
		}
	}
	for name, bridge := range p.topo.Bridges {
		for _, m := range bridge.Mirrors {
			if !ours(m.ExternalIDs) || wanted[m] {
				count[name]++
			}
		}
	}
	for _, i := range p.order {
		m := &p.specs[i]
		if p.results[i].Code != CodeOK || p.rows[keyOf(m)] != nil {
			continue
		}
		if count[m.Bridge] >= MaxMirrors {
			p.fail(i, CodeMirrorLimit, "bridge %s has %d mirrors already, the most that Open vSwitch runs", m.Bridge, count[m.Bridge])
			continue
		}
		count[m.Bridge]++
	}
}

// writeMirror makes the row of a spec, or changes the columns in which it differs.
func (p *planner) writeMirror(i int) {
	m := &p.specs[i]
	bridge := p.topo.Bridges[m.Bridge]
	port, vlan := uuids(), set[int](nil)
	if m.OutputVLAN > 0 {
		vlan = set([]int{m.OutputVLAN})
	} else {
		port = uuids(p.outputs[portKey{m.Bridge, m.Output.Port}].ref)
	}
	src, dst := p.present(bridge, m.SelectSrcPort), p.present(bridge, m.SelectDstPort)
	vlans := slices.Compact(slices.Sorted(slices.Values(m.SelectVLAN)))
	hash := specHash(m)

	row := p.rows[keyOf(m)]
	if row == nil {
		name := p.name()
		p.rowOps = append(p.rowOps, insertOp(tableMirror, name, ovsdb.Row{
			"name":            m.Name,
			"select_all":      m.SelectAll,
			"select_src_port": portRefs(bridge, src),
			"select_dst_port": portRefs(bridge, dst),
			"select_vlan":     set(vlans),
			"output_port":     port,
			"output_vlan":     vlan,
			"snaplen":         snaplen(m),
			"external_ids":    marks(m.Owner, hash),
		}))
		e := p.edit(m.Bridge)
		e.addMirrors = append(e.addMirrors, name)
		return
	}

	change := ovsdb.Row{}
	if row.SelectAll != m.SelectAll {
		change["select_all"] = m.SelectAll
	}
	if !slices.Equal(row.SelectSrcPort, src) {
		change["select_src_port"] = portRefs(bridge, src)
	}
	if !slices.Equal(row.SelectDstPort, dst) {
		change["select_dst_port"] = portRefs(bridge, dst)
	}
	if !slices.Equal(row.SelectVLAN, vlans) {
		change["select_vlan"] = set(vlans)
	}
	if row.OutputPort != m.Output.Port {
		change["output_port"] = port
	}
	if deref(row.OutputVLAN) != m.OutputVLAN {
		change["output_vlan"] = vlan
	}
	if have := row.Snaplen; have == nil && m.Snaplen > 0 || have != nil && *have != m.Snaplen {
		change["snaplen"] = snaplen(m)
	}
	if len(change) > 0 {
		p.rowOps = append(p.rowOps, updateOp(tableMirror, row.UUID, change))
	}
	if row.ExternalIDs[vswitch.MarkSpecHash] != hash {
		p.rowOps = append(p.rowOps, markOp(tableMirror, row.UUID, hash))
	}
}

func snaplen(m *vswitch.MirrorSpec) ovsdb.OvsSet {
	if m.Snaplen == 0 {
		return set[int](nil)
	}
	return set([]int{m.Snaplen})
}

// present returns those of the named ports that the bridge has, sorted.
func (p *planner) present(bridge *vswitch.Bridge, names []string) []string {
	var out []string
	for _, n := range names {
		if bridge.Ports[n] != nil {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func portRefs(bridge *vswitch.Bridge, names []string) ovsdb.OvsSet {
	refs := make([]string, 0, len(names))
	for _, n := range names {
		refs = append(refs, bridge.Ports[n].UUID)
	}
	return uuids(refs...)
}

// removeOrphans removes marked mirrors and ports that no spec stands for. A spec that failed keeps what it has.
func (p *planner) removeOrphans() {
	keep := map[*vswitch.Mirror]bool{}
	used := map[portKey]bool{}
	for i := range p.specs {
		m := &p.specs[i]
		if row := p.rows[keyOf(m)]; row != nil {
			keep[row] = true
		}
		used[portKey{m.Bridge, m.Output.Port}] = true
	}
	for _, w := range p.wanted {
		used[portKey{w.result.Bridge, w.result.Name}] = true
	}
	for _, name := range slices.Sorted(maps.Keys(p.topo.Bridges)) {
		bridge := p.topo.Bridges[name]
		for _, m := range bridge.Mirrors {
			if ours(m.ExternalIDs) && !keep[m] {
				e := p.edit(name)
				e.delMirrors = append(e.delMirrors, m.UUID)
				p.removed = append(p.removed, "mirror "+name+"/"+m.Name)
			}
		}
		var orphans []string
		for portName, port := range bridge.Ports {
			// A LOCAL port comes and goes with its bridge.
			if oursPort(port) && portName != name && !used[portKey{name, portName}] {
				orphans = append(orphans, portName)
			}
		}
		slices.Sort(orphans)
		for _, portName := range orphans {
			p.edit(name).dropPort(bridge.Ports[portName].UUID)
			p.removed = append(p.removed, "port "+name+"/"+portName)
		}
	}
}

func (p *planner) setFailModes(modes map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(modes)) {
		bridge := p.topo.Bridges[name]
		switch mode := modes[name]; {
		case bridge == nil:
			p.missing = append(p.missing, name)
		case p.own[name] || p.refused[name] != nil: // always secure
		case bridge.FailMode == mode:
		case mode == "":
			p.rowOps = append(p.rowOps, updateOp(tableBridge, bridge.UUID, ovsdb.Row{"fail_mode": set[string](nil)}))
		default:
			p.rowOps = append(p.rowOps, updateOp(tableBridge, bridge.UUID, ovsdb.Row{"fail_mode": set([]string{mode})}))
		}
	}
}

// setTables makes, changes and removes Flow_Table rows. All other columns stay empty, for which Open vSwitch has the same defaults as for a
// table without a row (bridge_configure_tables in vswitchd/bridge.c). Neither names nor prefixes change what a table does.
func (p *planner) setTables(names map[string]map[int]string, prefixes map[string]map[int][]string) {
	for _, bridgeName := range slices.Sorted(maps.Keys(p.topo.Bridges)) {
		bridge := p.topo.Bridges[bridgeName]
		want, managed := names[bridgeName]
		if managed && want == nil {
			continue
		}
		tries := prefixes[bridgeName]
		if p.refused[bridgeName] != nil || !managed {
			want, tries = nil, nil
		}
		for _, number := range slices.Sorted(maps.Keys(bridge.FlowTables)) {
			row := bridge.FlowTables[number]
			change := ovsdb.Row{}
			switch {
			case !ours(row.ExternalIDs):
				continue
			case want[number] == "" && len(tries[number]) == 0:
				p.edit(bridgeName).delTables[number] = ovsdb.UUID{GoUUID: row.UUID}
				p.removed = append(p.removed, fmt.Sprintf("settings of table %s/%d", bridgeName, number))
				continue
			case row.Name != want[number]:
				change["name"] = nameOf(want[number])
			}
			if len(row.Prefixes) == 0 && len(tries[number]) > 0 {
				change["prefixes"] = set(tries[number])
			}
			if len(change) > 0 {
				p.rowOps = append(p.rowOps, updateOp(tableFlowTable, row.UUID, change))
			}
		}
		wanted := slices.Concat(slices.Collect(maps.Keys(want)), slices.Collect(maps.Keys(tries)))
		slices.Sort(wanted)
		for _, number := range slices.Compact(wanted) {
			if _, there := bridge.FlowTables[number]; there {
				continue
			}
			ref := p.name()
			p.rowOps = append(p.rowOps, insertOp(tableFlowTable, ref, ovsdb.Row{"name": nameOf(want[number]), "prefixes": set(tries[number]),
				"external_ids": stringMap(map[string]string{vswitch.MarkOwner: vswitch.OwnerValue}),
			}))
			p.edit(bridgeName).addTables[number] = ovsdb.UUID{GoUUID: ref}
		}
	}
}

// nameOf is the value of an optional text.
func nameOf(text string) ovsdb.OvsSet {
	if text == "" {
		return set([]string{})
	}
	return set([]string{text})
}

// finish puts the operations in order: preconditions, rows, the sets of the bridges, the request for a confirmation.
func (p *planner) finish() {
	var sets []ovsdb.Operation
	for _, name := range slices.Sorted(maps.Keys(p.edits)) {
		bridge, e := p.topo.Bridges[name], p.edits[name]
		if bridge == nil {
			continue // what was to be removed from it goes with it
		}
		if row := p.made[name]; row != nil {
			row["ports"], row["mirrors"], row["controller"] = uuids(e.addPorts...), uuids(e.addMirrors...), uuids(e.addControllers...)
			row["flow_tables"] = ovsdb.OvsMap{GoMap: e.addTables}
			continue
		}
		if len(e.addMirrors)+len(e.delMirrors) > 0 {
			// Without this, a transaction whose answer was lost and that is done after all would make the rows twice.
			p.ops = append(p.ops, waitBridge(bridge, "mirrors"))
		}
		if len(e.addControllers)+len(e.delControllers) > 0 {
			p.ops = append(p.ops, waitBridge(bridge, "controller"))
		}
		var mutations []ovsdb.Mutation
		mutate := func(column string, mutator ovsdb.Mutator, refs []string) {
			mutations = mutateSet(mutations, column, mutator, refs)
		}
		mutate("mirrors", ovsdb.MutateOperationDelete, e.delMirrors)
		mutate("ports", ovsdb.MutateOperationDelete, e.delPorts)
		mutate("ports", ovsdb.MutateOperationInsert, e.addPorts)
		mutate("mirrors", ovsdb.MutateOperationInsert, e.addMirrors)
		mutate("controller", ovsdb.MutateOperationDelete, e.delControllers)
		mutate("controller", ovsdb.MutateOperationInsert, e.addControllers)
		// Neither touches the row of somebody who was faster: pairs are deleted only if key and value are those, and inserted only if the key
		// is not there (RFC 7047 §5.1). A row that nothing refers to is not kept.
		mutations = mutateMap(mutations, "flow_tables", ovsdb.MutateOperationDelete, e.delTables)
		mutations = mutateMap(mutations, "flow_tables", ovsdb.MutateOperationInsert, e.addTables)
		sets = append(sets, mutateOp(tableBridge, bridge.UUID, mutations...))
	}
	p.rootEdit = mutateSet(p.rootEdit, "bridges", ovsdb.MutateOperationDelete, p.oldBridges)
	p.rootEdit = mutateSet(p.rootEdit, "bridges", ovsdb.MutateOperationInsert, p.newBridges)
	if len(p.rootEdit) > 0 {
		sets = append(sets, mutateOp(tableRoot, p.root, p.rootEdit...))
	}
	p.ops = append(p.ops, p.rowOps...)
	p.ops = append(p.ops, sets...)
	if len(p.ops) > 0 {
		p.ops = append(p.ops, cfgOps(p.root)...)
	}
}

func mutateSet(to []ovsdb.Mutation, column string, mutator ovsdb.Mutator, refs []string) []ovsdb.Mutation {
	if len(refs) == 0 {
		return to
	}
	return append(to, ovsdb.Mutation{Column: column, Mutator: mutator, Value: uuids(refs...)})
}
