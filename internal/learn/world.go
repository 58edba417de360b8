package learn

import (
	"net"
	"net/netip"
	"slices"

	"github.com/tapwall/tapwall/policy"
)

// World is who is there and has what, by whomever's word it is had but that of the machines themselves. It is immutable.
type World struct {
	byKey    map[string]*policy.Workload
	declared map[netip.Addr][]*policy.Workload
	stations map[station][]*policy.Workload
	own      []netip.Addr
}

// station is a MAC address on a bridge.
type station struct{ bridge, mac string }

// NewWorld takes over the workloads of a host and those elsewhere that are known by their addresses, and the host's own addresses.
func NewWorld(workloads []*policy.Workload, own []netip.Addr) *World {
	w := &World{byKey: make(map[string]*policy.Workload, len(workloads)), declared: map[netip.Addr][]*policy.Workload{},
		stations: map[station][]*policy.Workload{}, own: own}
	for _, x := range workloads {
		for _, a := range x.Addresses {
			w.declared[a] = append(w.declared[a], x)
		}
		if x.Remote {
			continue
		}
		w.byKey[x.Key] = x
		for _, mac := range append([]string{x.MAC}, x.MACs...) {
			if at := (station{x.Bridge, mac}); mac != "" {
				w.stations[at] = append(w.stations[at], x)
			}
		}
	}
	return w
}

// String is the address as everything else spells it.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// At returns the endpoint whose MAC address that is on a bridge and in a VLAN (0 = untagged); nil = it is nobody's, or that of several. An
// endpoint without a VLAN of its own is in all of them.
func (w *World) At(bridge string, vlan int, mac MAC) *policy.Workload {
	return w.at(bridge, vlan, mac.String())
}

func (w *World) at(bridge string, vlan int, mac string) *policy.Workload {
	var found *policy.Workload
	for _, x := range w.stations[station{bridge, mac}] {
		if x.VLAN != 0 && x.VLAN != vlan {
			continue
		}
		if found != nil {
			return nil
		}
		found = x
	}
	return found
}

// objection says why an endpoint cannot learn an address, whatever has been learned; by is who has it, in words.
func (w *World) objection(x *policy.Workload, a netip.Addr) (why Reason, by string) {
	for _, o := range w.declared[a] {
		if o == x {
			return Declared, ""
		}
	}
	if others := w.declared[a]; len(others) > 0 {
		return Taken, "endpoint " + others[0].Key + " declares"
	}
	if slices.Contains(w.own, a) {
		return Taken, "the host has"
	}
	if g := x.Guard; g != nil && !slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return Spoofed, ""
	}
	return "", ""
}
