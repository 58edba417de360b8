package ovsdb

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// PortResult is the state of one PortSpec.
type PortResult struct {
	Owner, Bridge, Name string
	Code                Code
	Message             string // one sentence; "" for CodeOK
	UUID                string // of our Port row; "" when there is none
	OFPort              int64  // 0 while not assigned and -1 when refused
	Error               string // Interface.error
}

// Stands says whether the rows are as wanted and ovs-vswitchd has given the port a number, so that flows can name it.
func (r PortResult) Stands() bool { return r.Code == CodeOK && r.UUID != "" && r.OFPort > 0 }

// wantedPort is what became of a PortSpec, for the mirrors that send to it.
type wantedPort struct {
	result *PortResult
	ref    string        // UUID of the Port row, or the name of its insert
	port   *vswitch.Port // nil: it is made in this transaction
}

func validatePort(s *vswitch.PortSpec) error {
	errs := []error{checkName(s.Name, s.Type != "patch")}
	if s.Owner == "" {
		errs = append(errs, errors.New("no owner"))
	}
	if s.Name == s.Bridge {
		errs = append(errs, fmt.Errorf("%s is the LOCAL port of the bridge", s.Name))
	}
	if s.Tag != nil && (*s.Tag < 0 || *s.Tag > 4095) {
		errs = append(errs, fmt.Errorf("tag %d is not in 0…4095", *s.Tag))
	}
	return errors.Join(errs...)
}

// setPorts makes and corrects the wanted ports. Those that nobody wants go with removeOrphans.
func (p *planner) setPorts(specs []vswitch.PortSpec) {
	p.portResults = make([]PortResult, len(specs))
	order := make([]int, len(specs))
	for i, s := range specs {
		order[i] = i
		p.portResults[i] = PortResult{Owner: s.Owner, Bridge: s.Bridge, Name: s.Name}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(specs[a].Name, specs[b].Name), cmp.Compare(specs[a].Bridge, specs[b].Bridge))
	})
	for _, i := range order {
		s, r := &specs[i], &p.portResults[i]
		if p.wanted[s.Name] != nil {
			r.Code, r.Message = CodeInvalid, "another port has the same name"
			continue
		}
		w := &wantedPort{result: r}
		p.wanted[s.Name] = w
		if r.Code, r.Message = p.checkPort(s); r.Code != CodeOK {
			continue
		}
		if h, there := p.holders[s.Name]; there {
			w.port, w.ref = h.port, h.port.UUID
			p.correctWanted(h.port, s)
		} else {
			w.ref = p.insertPort(s)
		}
	}
}

func (p *planner) checkPort(s *vswitch.PortSpec) (Code, string) {
	err := validatePort(s)
	h, taken := p.holders[s.Name]
	refused := p.refused[s.Bridge]
	switch {
	case err != nil:
		return CodeInvalid, oneLine(err)
	case p.own[s.Name] || p.refused[s.Name] != nil:
		return CodeInvalid, fmt.Sprintf("%s is also wanted as a bridge", s.Name)
	case refused != nil && refused.Code == CodePending:
		return CodePending, refused.Message
	case p.bridge(s.Bridge) == nil:
		return CodeBridgeMissing, p.noBridge(s.Bridge)
	case !taken:
		return CodeOK, ""
	case !oursPort(h.port) && h.port.Name != s.Name:
		return CodePortTaken, fmt.Sprintf("an interface %s exists in port %s of bridge %s and was not made by tapwall",
			s.Name, h.port.Name, h.bridge.Name)
	case !oursPort(h.port):
		return CodePortTaken, fmt.Sprintf("a port %s exists on bridge %s and was not made by tapwall", s.Name, h.bridge.Name)
	case !p.goes(h):
		return CodePortTaken, fmt.Sprintf("%s is the LOCAL port of a bridge", s.Name)
	}
	why := ""
	switch {
	case h.bridge.Name != s.Bridge || h.port.Name != s.Name:
		why = "in another place"
	default:
		why = replaceReason(h.port, s.Type)
	}
	if why == "" {
		return CodeOK, ""
	}
	p.replace(h)
	return CodePending, fmt.Sprintf("port %s %s is removed from bridge %s first", h.port.Name, why, h.bridge.Name)
}

// replaceReason says why a port of ours cannot become the wanted one by updates; "" = it can.
func replaceReason(port *vswitch.Port, kind string) string {
	switch {
	case len(port.Interfaces) != 1 || port.Interfaces[0].Name != port.Name || port.Interfaces[0].Type != kind:
		return "of another type"
	case port.Interfaces[0].OFPort > 0 && !port.HasDevice():
		return "whose device somebody took away"
	}
	return ""
}

// insertPort makes the rows and returns the name of the Port insert.
func (p *planner) insertPort(s *vswitch.PortSpec) (ref string) {
	iface := p.name()
	ref = p.name()
	row := ovsdb.Row{"name": s.Name, "interfaces": uuids(iface), "external_ids": stringMap(resourceMarks(s.Owner))}
	if s.Tag != nil {
		row["tag"] = optional(s.Tag)
	}
	p.rowOps = append(p.rowOps,
		insertOp(tableInterface, iface, ovsdb.Row{
			"name": s.Name, "type": s.Type, "options": stringMap(s.Options), "external_ids": stringMap(resourceMarks(s.Owner)),
		}),
		insertOp(tablePort, ref, row))
	e := p.edit(s.Bridge)
	e.addPorts = append(e.addPorts, ref)
	return ref
}

func (p *planner) correctWanted(port *vswitch.Port, s *vswitch.PortSpec) {
	iface := port.Interfaces[0]
	if !maps.Equal(iface.Options, s.Options) {
		p.rowOps = append(p.rowOps, updateOp(tableInterface, iface.UUID, ovsdb.Row{"options": stringMap(s.Options)}))
	}
	change := ovsdb.Row{}
	if (port.Tag == nil) != (s.Tag == nil) || s.Tag != nil && *port.Tag != *s.Tag {
		change["tag"] = optional(s.Tag)
	}
	if len(port.Trunks) > 0 {
		change["trunks"] = set[int](nil)
	}
	if port.VLANMode != "" {
		change["vlan_mode"] = set[string](nil)
	}
	if len(port.OtherConfig) > 0 {
		change["other_config"] = stringMap(nil)
	}
	if len(change) > 0 {
		p.rowOps = append(p.rowOps, updateOp(tablePort, port.UUID, change))
	}
	p.mark(tablePort, port.UUID, port.ExternalIDs, s.Owner)
	p.mark(tableInterface, iface.UUID, iface.ExternalIDs, s.Owner)
}

// readPorts completes the results with what a snapshot holds.
func (p *plan) readPorts(t *vswitch.Topology) {
	for i := range p.portResults {
		r := &p.portResults[i]
		bridge := t.Bridges[r.Bridge]
		if bridge == nil || bridge.Ports[r.Name] == nil || !oursPort(bridge.Ports[r.Name]) || r.Name == r.Bridge {
			continue
		}
		port := bridge.Ports[r.Name]
		r.UUID = port.UUID
		if len(port.Interfaces) == 0 {
			continue
		}
		r.OFPort, r.Error = port.Interfaces[0].OFPort, port.Interfaces[0].Error
		if r.Code == CodeOK && (r.OFPort < 0 || r.Error != "") {
			r.Code, r.Message = CodePortError, refusedPort(r.Name, r.Error)
		}
	}
}
