package ovsdb

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// output is one output port of one bridge with the mirrors that share it. A created port stays as long as one of them is wanted.
type output struct {
	key   portKey
	spec  *vswitch.OutputSpec // of the first mirror that creates the port; nil: the port must exist
	owner string              // of that mirror
	ref   string              // UUID of the Port row, or the name of its insert
	port  *vswitch.Port       // nil: does not exist (here)

	code    Code // applies to every mirror of the port
	message string
}

// checkOutputs decides for every output port whether it can be used, and gives the specs of those that cannot their code.
func (p *planner) checkOutputs() {
	created := map[string]string{} // name of a port → bridge on which a mirror makes it
	for _, i := range p.order {
		if p.results[i].Code != CodeOK || p.specs[i].OutputVLAN > 0 {
			continue
		}
		m := &p.specs[i]
		key := portKey{m.Bridge, m.Output.Port}
		if m.Output.Create {
			if other, taken := created[key.port]; taken && other != key.bridge {
				p.fail(i, CodeOutputPortTaken, "another mirror makes port %s on bridge %s", key.port, other)
				continue
			}
			created[key.port] = key.bridge
		}
		out := p.outputs[key]
		if out == nil {
			out = &output{key: key}
			p.outputs[key] = out
		}
		switch {
		case !m.Output.Create:
		case out.spec == nil:
			out.spec, out.owner = &m.Output, m.Owner
		case !reflect.DeepEqual(out.spec, &m.Output):
			p.fail(i, CodeOutputPortTaken, "mirror %s wants another kind of port %s", out.owner, key.port)
		}
	}
	foreign := p.foreignOutputs()
	for _, out := range p.outputs {
		p.checkOutput(out, foreign)
	}
	for _, i := range p.order {
		m := &p.specs[i]
		if out := p.outputs[portKey{m.Bridge, m.Output.Port}]; p.results[i].Code == CodeOK && out != nil && out.code != CodeOK {
			p.fail(i, out.code, "%s", out.message)
		}
	}
}

// foreignOutputs are the ports that mirrors of others send to. Open vSwitch reserves such a port: sharing it would cut off one of
// the two in ways that depend on the order of rows.
func (p *planner) foreignOutputs() map[portKey]string {
	out := map[portKey]string{}
	for name, bridge := range p.topo.Bridges {
		for _, m := range bridge.Mirrors {
			if !ours(m.ExternalIDs) && m.OutputPort != "" {
				out[portKey{name, m.OutputPort}] = m.Name
			}
		}
	}
	return out
}

func (p *planner) checkOutput(out *output, foreign map[portKey]string) {
	set := func(code Code, format string, args ...any) {
		out.code, out.message = code, fmt.Sprintf(format, args...)
	}
	name := out.key.port
	where, port := p.findPort(out.key)
	wanted := p.wanted[name]
	switch {
	case out.spec != nil && (wanted != nil || p.own[name] || p.refused[name] != nil):
		set(CodeOutputPortTaken, "%s is also wanted as a port or bridge of its own", name)
	case wanted != nil && wanted.result.Bridge == out.key.bridge && wanted.result.Code == CodeOK:
		out.port, out.ref = wanted.port, wanted.ref
	case wanted != nil && wanted.result.Bridge == out.key.bridge && wanted.result.Code == CodePending:
		set(CodePending, "%s", wanted.result.Message)
	case wanted != nil && wanted.result.Bridge == out.key.bridge:
		set(CodeOutputMissing, "%s", wanted.result.Message)
	case name == out.key.bridge:
		set(CodeOutputPortTaken, "%s is the LOCAL port of the bridge", name)
	case port == nil && out.spec == nil:
		set(CodeOutputMissing, "there is no port %s on bridge %s", name, out.key.bridge)
	case port == nil && p.holders[name].port != nil:
		set(CodeOutputPortTaken, "an interface %s exists in port %s", name, p.holders[name].port.Name)
	case port == nil:
		// To be created.
	case where != out.key.bridge && oursPort(port) && out.spec != nil && p.goes(holder{p.before.Bridges[where], port}):
		// An orphan that is removed in this transaction. Port names are unique over all bridges.
		p.pending = true
		set(CodePending, "port %s is removed from bridge %s first", name, where)
	case where != out.key.bridge && out.spec == nil:
		set(CodeOutputMissing, "port %s is on bridge %s, not on %s", name, where, out.key.bridge)
	case where != out.key.bridge:
		set(CodeOutputPortTaken, "a port %s exists on bridge %s", name, where)
	case oursPort(port):
		out.port, out.ref = port, port.UUID
		why := ""
		if out.spec != nil {
			why = replaceReason(port, out.spec.Type)
		}
		if why != "" {
			out.ref = ""
			p.replace(holder{p.before.Bridges[where], port})
			set(CodePending, "port %s %s is removed first", name, why)
		}
	case out.spec != nil:
		set(CodeOutputPortTaken, "a port %s exists and was not made by tapwall", name)
	case foreign[out.key] != "":
		set(CodeOutputPortTaken, "port %s is the output of mirror %s, which is not tapwall's", name, foreign[out.key])
	default:
		for _, i := range port.Interfaces {
			for _, id := range []string{"iface-id", "attached-mac"} {
				if i.ExternalIDs[id] != "" {
					set(CodeOutputPortTaken, "port %s belongs to a VM (%s=%s)", name, id, i.ExternalIDs[id])
					return
				}
			}
		}
		out.port, out.ref = port, port.UUID
	}
}

// findPort looks on the wanted bridge first, then on the others, those that go included.
func (p *planner) findPort(key portKey) (bridge string, port *vswitch.Port) {
	if port := p.topo.Bridges[key.bridge].Ports[key.port]; port != nil {
		return key.bridge, port
	}
	for name, b := range p.before.Bridges {
		if port := b.Ports[key.port]; port != nil {
			return name, port
		}
	}
	return "", nil
}

// writeOutputs makes the created ports that at least one mirror is going to use, and corrects those that exist.
func (p *planner) writeOutputs() {
	used := map[portKey]bool{}
	for i := range p.specs {
		if p.results[i].Code == CodeOK {
			used[portKey{p.specs[i].Bridge, p.specs[i].Output.Port}] = true
		}
	}
	for _, i := range p.order {
		key := portKey{p.specs[i].Bridge, p.specs[i].Output.Port}
		out := p.outputs[key]
		if !used[key] || out == nil || out.code != CodeOK || out.spec == nil {
			continue
		}
		delete(used, key) // once
		if out.port == nil {
			p.createPort(out)
		} else {
			p.correctPort(out)
		}
	}
}

func (p *planner) createPort(out *output) {
	hash := specHash(out.spec)
	iface := p.name()
	out.ref = p.name()
	row := ovsdb.Row{
		"name":         out.spec.Port,
		"interfaces":   uuids(iface),
		"external_ids": marks(out.owner, hash),
	}
	if out.spec.Tag != nil {
		row["tag"] = optional(out.spec.Tag)
	}
	p.rowOps = append(p.rowOps,
		insertOp(tableInterface, iface, ovsdb.Row{
			"name":         out.spec.Port,
			"type":         out.spec.Type,
			"options":      stringMap(out.spec.Options),
			"external_ids": marks(out.owner, hash),
		}),
		insertOp(tablePort, out.ref, row))
	e := p.edit(out.key.bridge)
	e.addPorts = append(e.addPorts, out.ref)
}

func (p *planner) correctPort(out *output) {
	hash := specHash(out.spec)
	port, iface := out.port, out.port.Interfaces[0]
	if !maps.Equal(iface.Options, out.spec.Options) {
		p.rowOps = append(p.rowOps, updateOp(tableInterface, iface.UUID, ovsdb.Row{"options": stringMap(out.spec.Options)}))
	}
	if want := out.spec.Tag; want != nil && (port.Tag == nil || *port.Tag != *want) {
		p.rowOps = append(p.rowOps, updateOp(tablePort, port.UUID, ovsdb.Row{"tag": optional(want)}))
	}
	if port.ExternalIDs[vswitch.MarkSpecHash] != hash {
		p.rowOps = append(p.rowOps, markOp(tablePort, port.UUID, hash))
	}
	if iface.ExternalIDs[vswitch.MarkSpecHash] != hash {
		p.rowOps = append(p.rowOps, markOp(tableInterface, iface.UUID, hash))
	}
}

// readBack completes the results with what a snapshot holds.
func (p *plan) readBack(t *vswitch.Topology, specs []vswitch.MirrorSpec) {
	for i := range specs {
		m, r := &specs[i], &p.results[i]
		bridge := t.Bridges[m.Bridge]
		if bridge == nil {
			continue
		}
		seen := func(name string) bool { return bridge.Ports[name] != nil }
		for _, row := range bridge.Mirrors {
			if ours(row.ExternalIDs) && row.ExternalIDs[vswitch.MarkMirror] == m.Owner && row.Name == m.Name {
				r.UUID, r.Counting, r.OutputVLAN = row.UUID, len(row.Statistics) > 0, deref(row.OutputVLAN)
				seen = func(name string) bool {
					return slices.Contains(row.SelectSrcPort, name) || slices.Contains(row.SelectDstPort, name)
				}
				if port := bridge.Ports[row.OutputPort]; port != nil {
					p.readOutput(r, port)
				}
				break
			}
		}
		for _, name := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(m.SelectSrcPort, m.SelectDstPort)))) {
			if !seen(name) {
				r.MissingSources = append(r.MissingSources, name)
			}
		}
	}
}

// refusedPort says that ovs-vswitchd would not have a port, and why; of some names, such as its own devices', it says nothing.
func refusedPort(name, why string) string {
	return fmt.Sprintf("ovs-vswitchd refused port %s: %s", name, cmp.Or(why, "it does not say why; see its log, or choose another name"))
}

func (p *plan) readOutput(r *MirrorResult, port *vswitch.Port) {
	r.OutputUUID = port.UUID
	for _, i := range port.Interfaces {
		r.OutputOFPort = i.OFPort
		if i.Error == "" && i.OFPort != -1 {
			continue
		}
		r.OutputError = i.Error
		if r.Code == CodeOK {
			r.Code, r.Message = CodeOutputError, refusedPort(port.Name, i.Error)
		}
		return
	}
}
