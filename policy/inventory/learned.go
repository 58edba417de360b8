package inventory

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/tapwall/tapwall/policy"
)

// learned is what an inventory knows beyond its sources: addresses that workloads of a host were seen to use. It is immutable.
type learned struct {
	host   string
	by     map[string][]netip.Addr // by key
	plain  *Inventory              // without
	copies map[*policy.Workload]*policy.Workload
}

// Learn returns the inventory with other addresses that workloads of a host were seen to use, by their keys; those of one are sorted and
// not changed any more. What somebody declares is left out. Rebuild keeps them. A workload that is what it was stays the same pointer.
func (inv Inventory) Learn(host string, by map[string][]netip.Addr) Inventory {
	return inv.plain().with(learned{host: host, by: by}, inv.learned)
}

// Learned reports whether Learn would change nothing.
func (inv Inventory) Learned(host string, by map[string][]netip.Addr) bool {
	if inv.learned == nil {
		return len(by) == 0
	}
	return inv.learned.host == host && maps.EqualFunc(inv.learned.by, by, slices.Equal[[]netip.Addr])
}

// plain is the inventory without what was learned.
func (inv Inventory) plain() Inventory {
	if inv.learned == nil {
		return inv
	}
	return *inv.learned.plain
}

// with adds what was learned to an inventory without. before is what was known of an earlier one; nil = nothing.
func (inv Inventory) with(l learned, before *learned) Inventory {
	if len(l.by) == 0 {
		return inv
	}
	declared := map[netip.Addr]struct{}{}
	for _, w := range inv.Workloads {
		for _, a := range w.Addresses {
			declared[a] = struct{}{}
		}
	}
	isDeclared := func(a netip.Addr) bool { _, is := declared[a]; return is }
	out := inv
	l.plain, l.copies = &inv, make(map[*policy.Workload]*policy.Workload, len(l.by))
	out.Workloads = slices.Clone(inv.Workloads)
	for i, w := range inv.Workloads {
		addresses := l.by[w.Key]
		if w.Remote || w.Host != l.host || len(addresses) == 0 {
			continue
		}
		if slices.ContainsFunc(addresses, isDeclared) {
			if addresses = slices.DeleteFunc(slices.Clone(addresses), isDeclared); len(addresses) == 0 {
				continue
			}
		}
		var x *policy.Workload
		if before != nil {
			x = before.copies[w]
		}
		if x == nil || !slices.Equal(x.Learned, addresses) {
			c := *w
			x, c.Learned = &c, addresses
		}
		l.copies[w], out.Workloads[i] = x, x
	}
	out.Ports = slices.Clone(inv.Ports)
	for i := range out.Ports {
		if x := l.copies[out.Ports[i].Workload]; x != nil {
			out.Ports[i].Workload = x
		}
	}
	out.learned = &l
	return out
}
