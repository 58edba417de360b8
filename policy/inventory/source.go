package inventory

import (
	"maps"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/policy"
)

// source is what an inventory was made of, and what was found of each part. It is immutable.
type source struct {
	hosts     []Host             // by id
	endpoints []*policy.Endpoint // by name
	rows      []candidate        // one for each of Ports
	remotes   map[*policy.Endpoint]*policy.Workload
}

// rows are those of a bridge, ordered by name.
func (inv Inventory) rows(host, bridge string) []candidate {
	if inv.source == nil {
		return nil
	}
	first, last := inv.place(host, bridge)
	return inv.source.rows[first:last]
}

// again is the candidate as it was when its row had just been read, but for its port, with what was found of it since.
func (c *candidate) again() candidate {
	return candidate{Port: c.Port, row: c.row, ids: c.ids, kind: c.kind, names: c.names, before: found{c.Workload, c.use}}
}

// sameRows reports whether two hosts have the same bridges, and the same of them are managed.
func (h *Host) sameRows(o *Host) bool {
	switch {
	case h.id() != o.id() || !slices.Equal(h.Bridges, o.Bridges):
		return false
	case h.Topology == nil || o.Topology == nil || h.Topology == o.Topology:
		return h.Topology == o.Topology
	}
	return maps.Equal(h.Topology.Bridges, o.Topology.Bridges)
}

// relabelled returns the inventory with other sources, if all that differs is what Endpoint resources say of what they find: whom they
// find and who has which address stays, and with that all keys and warnings.
func (inv Inventory) relabelled(now *source) (Inventory, bool) {
	was := inv.source
	if was == nil || len(was.endpoints) != len(now.endpoints) ||
		!slices.EqualFunc(was.hosts, now.hosts, func(a, b Host) bool { return a.sameRows(&b) }) {
		return Inventory{}, false
	}
	changed := make(map[*policy.Endpoint]*policy.Endpoint)
	for i, e := range was.endpoints {
		switch n := now.endpoints[i]; {
		case n == e:
		case n.Name != e.Name || !sameClaims(&n.Spec, &e.Spec):
			return Inventory{}, false
		default:
			changed[e] = n
		}
	}
	if len(changed) == 0 {
		inv.source = &source{hosts: now.hosts, endpoints: now.endpoints, rows: was.rows, remotes: was.remotes}
		return inv, true
	}
	inv.Workloads = slices.Clone(inv.Workloads)
	replace := func(old, w *policy.Workload) {
		w.Key = old.Key
		i, _ := slices.BinarySearchFunc(inv.Workloads, old, byKey)
		inv.Workloads[i] = w
	}
	now.rows, now.remotes = was.rows, was.remotes
	shared := true
	for i := range was.rows {
		c := &was.rows[i]
		e := changed[c.use.endpoint]
		if e == nil || c.Workload == nil {
			continue
		}
		if shared {
			inv.Ports, now.rows, shared = slices.Clone(inv.Ports), slices.Clone(was.rows), false
			for j := range now.rows {
				now.rows[j].Port = &inv.Ports[j]
			}
		}
		n := &now.rows[i]
		n.use.endpoint = e
		w := n.workload()
		replace(c.Workload, w)
		n.Workload = w
	}
	shared = true
	for e, n := range changed {
		w := was.remotes[e]
		if w == nil {
			continue
		}
		if shared {
			now.remotes, shared = maps.Clone(was.remotes), false
		}
		x := remote(n)
		replace(w, x)
		delete(now.remotes, e)
		now.remotes[n] = x
	}
	inv.source = now
	return inv, true
}

// sameClaims reports whether two versions of an Endpoint resource find the same ports and give them the same addresses.
func sameClaims(a, b *policy.EndpointSpec) bool {
	return nameIn(&a.Match) == nameIn(&b.Match) && a.MAC == b.MAC && slices.Equal(a.MACs, b.MACs) && slices.Equal(a.Addresses, b.Addresses)
}

// byKey orders workloads.
func byKey(a, b *policy.Workload) int {
	if c := strings.Compare(a.Key, b.Key); c != 0 {
		return c
	}
	return strings.Compare(a.Host, b.Host)
}
