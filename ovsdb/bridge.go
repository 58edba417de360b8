package ovsdb

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// BridgeResult is the state of one BridgeSpec.
type BridgeResult struct {
	Owner, Name string
	Code        Code
	Message     string // one sentence; "" for CodeOK
	UUID        string // of our Bridge row; "" when there is none
	DatapathID  string // 16 hex digits; "" until ovs-vswitchd runs the bridge
}

// Stands says whether the row is as wanted and ovs-vswitchd runs the bridge: it takes OpenFlow connections.
func (r BridgeResult) Stands() bool { return r.Code == CodeOK && r.UUID != "" && r.DatapathID != "" }

// protocols are what the schema lets Bridge.protocols hold; later versions of Open vSwitch know these too.
var protocols = []string{"OpenFlow10", "OpenFlow11", "OpenFlow12", "OpenFlow13", "OpenFlow14", "OpenFlow15"}

// checkName refuses what Open vSwitch or the kernel would not take as the name of a bridge or port. limited: a device will have it.
func checkName(name string, limited bool) error {
	switch {
	case name == "":
		return errors.New("no name")
	case limited && len(name) > maxInterfaceName:
		return fmt.Errorf("name %q is longer than %d bytes", name, maxInterfaceName)
	case name == "." || name == ".." || strings.ContainsFunc(name, func(r rune) bool {
		return r == '/' || r == unicode.ReplacementChar || unicode.IsSpace(r) || !unicode.IsPrint(r)
	}):
		return fmt.Errorf("name %q is not possible", name)
	}
	return nil
}

func validateBridge(s *vswitch.BridgeSpec) error {
	errs := []error{checkName(s.Name, true)}
	if s.Owner == "" {
		errs = append(errs, errors.New("no owner"))
	}
	for _, v := range s.Protocols {
		if !slices.Contains(protocols, v) {
			errs = append(errs, fmt.Errorf("there is no protocol %q", v))
		}
	}
	return errors.Join(errs...)
}

// holder is what has a name on the host: names of ports and interfaces are unique over all bridges.
type holder struct {
	bridge *vswitch.Bridge
	port   *vswitch.Port
}

// findNames notes who has which name before anything is changed.
func (p *planner) findNames() {
	p.holders = map[string]holder{}
	for _, b := range p.before.Bridges {
		for _, port := range b.Ports {
			p.holders[port.Name] = holder{b, port}
			for _, i := range port.Interfaces {
				p.holders[i.Name] = holder{b, port}
			}
		}
	}
}

// setBridges makes and corrects our bridges, removes those that nobody wants, and leaves in p.topo the bridges as they will be, so
// that everything else is planned against those.
func (p *planner) setBridges(specs []vswitch.BridgeSpec) {
	p.bridges = make([]BridgeResult, len(specs))
	order := make([]int, len(specs))
	for i, s := range specs {
		order[i] = i
		p.bridges[i] = BridgeResult{Owner: s.Owner, Name: s.Name}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(specs[a].Name, specs[b].Name) })

	after := *p.before
	after.Bridges = maps.Clone(p.before.Bridges)
	p.topo = &after
	wanted := map[string]bool{}
	for _, i := range order {
		s, r := &specs[i], &p.bridges[i]
		row := p.before.Bridges[s.Name]
		if wanted[s.Name] {
			r.Code, r.Message = CodeInvalid, "another bridge has the same name"
			continue
		}
		wanted[s.Name] = true
		if r.Code, r.Message = p.checkBridge(s, row); r.Code != CodeOK {
			if row == nil || !ours(row.ExternalIDs) {
				p.refused[s.Name] = r
			}
			continue
		}
		p.own[s.Name] = true
		if row == nil {
			p.makeBridge(s)
		} else {
			p.correctBridge(row, s)
		}
	}
	p.removeBridges(wanted)
}

// bridge returns the bridge that a spec names, or nil. Nothing that is meant for a bridge of ours may land on one of theirs.
func (p *planner) bridge(name string) *vswitch.Bridge {
	if p.refused[name] != nil {
		return nil
	}
	return p.topo.Bridges[name]
}

// noBridge says why bridge returns nil.
func (p *planner) noBridge(name string) string {
	if r := p.refused[name]; r != nil {
		return r.Message
	}
	return "there is no bridge " + name
}

func (p *planner) checkBridge(s *vswitch.BridgeSpec, row *vswitch.Bridge) (Code, string) {
	err := validateBridge(s)
	h, taken := p.holders[s.Name]
	switch {
	case err != nil:
		return CodeInvalid, oneLine(err)
	case row != nil && !ours(row.ExternalIDs):
		return CodeBridgeTaken, fmt.Sprintf("a bridge %s exists and was not made by tapwall", s.Name)
	case row != nil || !taken:
		return CodeOK, ""
	case oursPort(h.port):
		p.replace(h)
		return CodePending, fmt.Sprintf("port %s is removed from bridge %s first", s.Name, h.bridge.Name)
	}
	return CodeBridgeTaken, fmt.Sprintf("port %s of bridge %s has the name and was not made by tapwall", h.port.Name, h.bridge.Name)
}

// goes says whether a port of ours can go: a LOCAL port does so only with its bridge.
func (p *planner) goes(h holder) bool {
	return h.port.Name != h.bridge.Name || p.topo.Bridges[h.bridge.Name] == nil
}

// replace removes a port of ours whose name is wanted for something else. It is never replaced under the same name in one transaction:
// that has crashed ovs-vswitchd.
func (p *planner) replace(h holder) {
	p.pending = true
	if p.topo.Bridges[h.bridge.Name] != nil { // else it goes with its bridge
		p.edit(h.bridge.Name).dropPort(h.port.UUID)
	}
}

func (p *planner) makeBridge(s *vswitch.BridgeSpec) {
	ref := p.name()
	p.made[s.Name] = ovsdb.Row{
		"name":          s.Name,
		"datapath_type": s.DatapathType,
		"fail_mode":     set([]string{"secure"}),
		"protocols":     set(slices.Compact(slices.Sorted(slices.Values(s.Protocols)))),
		"other_config":  stringMap(s.OtherConfig),
		"external_ids":  stringMap(resourceMarks(s.Owner)),
	}
	p.rowOps = append(p.rowOps, insertOp(tableBridge, ref, p.made[s.Name]))
	p.topo.Bridges[s.Name] = &vswitch.Bridge{Name: s.Name}
	p.newBridges = append(p.newBridges, ref)
	p.makeLocal(s)
}

// makeLocal makes the LOCAL port, without which ovs-vswitchd runs a bridge only with a warning (bridge_collect_wanted_ports in
// vswitchd/bridge.c).
func (p *planner) makeLocal(s *vswitch.BridgeSpec) {
	p.insertPort(&vswitch.PortSpec{Owner: s.Owner, Bridge: s.Name, Name: s.Name, Type: "internal"})
}

func (p *planner) correctBridge(row *vswitch.Bridge, s *vswitch.BridgeSpec) {
	change := ovsdb.Row{}
	if row.DatapathType != s.DatapathType {
		change["datapath_type"] = s.DatapathType
	}
	if row.FailMode != "secure" {
		change["fail_mode"] = set([]string{"secure"})
	}
	if want := slices.Compact(slices.Sorted(slices.Values(s.Protocols))); !slices.Equal(row.Protocols, want) {
		change["protocols"] = set(want)
	}
	if !maps.Equal(row.OtherConfig, s.OtherConfig) {
		change["other_config"] = stringMap(s.OtherConfig)
	}
	if len(change) > 0 {
		p.rowOps = append(p.rowOps, updateOp(tableBridge, row.UUID, change))
	}
	p.mark(tableBridge, row.UUID, row.ExternalIDs, s.Owner)
	switch h, taken := p.holders[s.Name]; {
	case !taken:
		p.makeLocal(s)
	case h.bridge == row && oursPort(h.port):
		p.mark(tablePort, h.port.UUID, h.port.ExternalIDs, s.Owner)
	}
}

// removeBridges removes our bridges that nobody wants, unless something of somebody else's would go with one.
func (p *planner) removeBridges(wanted map[string]bool) {
	for _, name := range slices.Sorted(maps.Keys(p.before.Bridges)) {
		row := p.before.Bridges[name]
		if !ours(row.ExternalIDs) || wanted[name] {
			continue
		}
		if what := foreignPart(row); what != "" {
			p.kept = append(p.kept, fmt.Sprintf("bridge %s: %s is not tapwall's", name, what))
			continue
		}
		delete(p.topo.Bridges, name)
		p.oldBridges = append(p.oldBridges, row.UUID)
		p.removed = append(p.removed, "bridge "+name)
		// Nor may somebody's part go that came after the snapshot.
		for _, column := range []string{"ports", "mirrors", "controller", "flow_tables"} {
			p.ops = append(p.ops, waitBridge(row, column))
		}
	}
}

// foreignPart names something on a bridge that is not ours, or "". The LOCAL port is part of the bridge.
func foreignPart(b *vswitch.Bridge) string {
	for _, name := range slices.Sorted(maps.Keys(b.Ports)) {
		if name != b.Name && !oursPort(b.Ports[name]) {
			return "port " + name
		}
	}
	for _, m := range b.Mirrors {
		if !ours(m.ExternalIDs) {
			return "mirror " + m.Name
		}
	}
	for _, c := range b.Controllers {
		if !ours(c.ExternalIDs) {
			return "controller " + c.Target
		}
	}
	for _, number := range slices.Sorted(maps.Keys(b.FlowTables)) {
		if !ours(b.FlowTables[number].ExternalIDs) {
			return fmt.Sprintf("the name of table %d", number)
		}
	}
	return ""
}

// readBridges completes the results with what a snapshot holds. confirmed: ovs-vswitchd has taken the rows over. It writes the
// datapath ids of all bridges that it runs at once, so if others have one, a bridge without one is a bridge that it does not run. All of
// them are away for a moment after a restart of ovsdb-server.
func (p *plan) readBridges(t *vswitch.Topology, confirmed bool) {
	told := false
	for _, b := range t.Bridges {
		told = told || b.DatapathID != ""
	}
	for i := range p.bridges {
		r := &p.bridges[i]
		row := t.Bridges[r.Name]
		if row == nil || !ours(row.ExternalIDs) {
			continue
		}
		r.UUID, r.DatapathID = row.UUID, row.DatapathID
		if r.Code == CodeOK && confirmed && told && r.DatapathID == "" {
			r.Code = CodeBridgeError
			r.Message = fmt.Sprintf("ovs-vswitchd does not run bridge %s of datapath type %q: its log says why", r.Name, row.DatapathType)
		}
	}
}
