// Package inventory says what is plugged in where: of the topologies of all hosts and the Endpoint resources it makes ports, each with its
// kind, and workloads, each with its host. It alone knows what external_ids and types of interfaces mean. It is pure: no I/O, no clock.
package inventory

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// Host is one Open vSwitch.
type Host struct {
	// Topology is what is known of it; nil = nothing yet. The ids of the hosts differ.
	Topology *vswitch.Topology
	// Bridges are the names of the managed ones, whether they exist or not. There are no workloads on others.
	Bridges []string
}

// Inventory is what was found. It is immutable; the zero value has nothing.
type Inventory struct {
	Ports []Port // of all bridges, ordered by host, bridge and name
	// Workloads are ordered by Key, and those of several hosts with one key by Host. On one host no two have the same key, and no key of a
	// Remote one is that of another.
	Workloads []*policy.Workload
	Warnings  []Warning

	source  *source  // what it was made of; nil = nothing
	learned *learned // beside that; nil = nothing
}

// Warning is one about a workload of a host or, with AboutResource, about what an Endpoint resource finds there.
type Warning struct {
	policy.Warning
	Host string // "" = it is about an Endpoint resource wherever it finds something, or about a Remote workload
}

// Build takes stock. Its cost grows with the sum of ports and endpoints, and its result does not depend on the order of the arguments,
// which are not changed. The endpoints must be valid and their names unique.
//
// A port of a managed bridge has a workload if the orchestrator marked it (external_ids iface-id, attached-mac, vm-uuid or vm-id) or an
// Endpoint resource matches it. Endpoint resources that match no port of any host become Remote workloads. A port row without a device
// claims nothing against one of its host with: where both have an iface-id, or a MAC in one VLAN of a bridge, in common, it is what was
// left of a port that went, so it has no workload, and a warning names it.
func Build(hosts []Host, endpoints []*policy.Endpoint) Inventory {
	return Inventory{}.Rebuild(hosts, endpoints)
}

// Rebuild is Build at less cost where most is as it was when inv was built: rows of topologies and resources that are the same pointers. A
// workload that is what it was stays the same pointer, so that whoever compares inventories sees at once what differs.
func (inv Inventory) Rebuild(hosts []Host, endpoints []*policy.Endpoint) Inventory {
	out := inv.plain().rebuild(hosts, endpoints)
	if inv.learned != nil {
		out = out.with(learned{host: inv.learned.host, by: inv.learned.by}, inv.learned)
	}
	return out
}

func (inv Inventory) rebuild(hosts []Host, endpoints []*policy.Endpoint) Inventory {
	now := &source{
		hosts:     slices.SortedFunc(slices.Values(hosts), func(a, b Host) int { return strings.Compare(a.id(), b.id()) }),
		endpoints: slices.SortedFunc(slices.Values(endpoints), func(a, b *policy.Endpoint) int { return strings.Compare(a.Name, b.Name) }),
	}
	if out, ok := inv.relabelled(now); ok {
		return out
	}
	n := 0
	for _, h := range hosts {
		if h.Topology != nil {
			for _, b := range h.Topology.Bridges {
				n += len(b.Ports)
			}
		}
	}
	out := Inventory{Ports: make([]Port, 0, n), source: now} // it never grows: candidates point into it
	now.rows = make([]candidate, 0, n)
	candidates := make([]*candidate, 0, n)
	for _, h := range now.hosts {
		if h.Topology == nil {
			continue
		}
		managed := make(map[string]bool, len(h.Bridges))
		for _, name := range h.Bridges {
			managed[name] = true
		}
		for _, bridge := range slices.Sorted(maps.Keys(h.Topology.Bridges)) {
			ports := h.Topology.Bridges[bridge].Ports
			before := inv.rows(h.id(), bridge)
			for _, name := range slices.Sorted(maps.Keys(ports)) {
				for len(before) > 0 && before[0].Name < name {
					before = before[1:]
				}
				var c candidate
				if len(before) > 0 && before[0].row == ports[name] {
					c = before[0].again()
				} else {
					c = read(h.id(), bridge, ports[name])
				}
				out.Ports = append(out.Ports, *c.Port)
				c.Port = &out.Ports[len(out.Ports)-1]
				c.Kind, c.Workload = c.kind, nil
				now.rows = append(now.rows, c)
				if managed[bridge] && c.Kind != KindTap && len(c.Interfaces) > 0 {
					candidates = append(candidates, &now.rows[len(now.rows)-1])
				}
			}
		}
	}
	var before map[*policy.Endpoint]*policy.Workload
	if inv.source != nil {
		before = inv.source.remotes
	}
	out.Workloads, out.Warnings, now.remotes = resolve(candidates, now.endpoints, before)
	return out
}

func (h *Host) id() string {
	if h.Topology == nil {
		return ""
	}
	return h.Topology.Host
}

// On returns the ports of a bridge, ordered by name.
func (inv Inventory) On(host, bridge string) []Port {
	first, last := inv.place(host, bridge)
	return inv.Ports[first:last]
}

// place is where the ports of a bridge are.
func (inv Inventory) place(host, bridge string) (first, last int) {
	at := func(p *Port) int { return cmp.Or(strings.Compare(p.Host, host), strings.Compare(p.Bridge, bridge)) }
	first, _ = slices.BinarySearchFunc(inv.Ports, 0, func(p Port, than int) int { return cmp.Compare(at(&p), than) })
	last, _ = slices.BinarySearchFunc(inv.Ports, 1, func(p Port, than int) int { return cmp.Compare(at(&p), than) })
	return first, last
}

// Port returns a port; nil = there is none.
func (inv Inventory) Port(host, bridge, name string) *Port {
	ports := inv.On(host, bridge)
	i, ok := slices.BinarySearchFunc(ports, name, func(p Port, name string) int { return strings.Compare(p.Name, name) })
	if !ok {
		return nil
	}
	return &ports[i]
}

// About returns the warnings that concern a host: those about it and those about none.
func (inv Inventory) About(host string) []policy.Warning {
	var out []policy.Warning
	for _, w := range inv.Warnings {
		if w.Host == host || w.Host == "" {
			out = append(out, w.Warning)
		}
	}
	return out
}
