package policy

import (
	"net/netip"
	"slices"
	"strings"
)

func (p *coverPolicy) services(d Direction, i int) []coverService {
	r := p.rule(d, i)
	if !r.parsed {
		r.parsed = true
		for _, s := range p.Rules(d)[i].Services {
			if proto, ports, err := ParseService(s); err == nil {
				r.services = append(r.services, coverService{proto, ports})
			}
		}
	}
	return r.services
}

func (x *coverIndex) servicesCover(q *coverPolicy, d Direction, j int, p *coverPolicy, i int) bool {
	if len(q.Rules(d)[j].Services) == 0 {
		return true
	}
	if len(p.Rules(d)[i].Services) == 0 {
		return false
	}
	high := q.services(d, j)
	return !slices.ContainsFunc(p.services(d, i), func(low coverService) bool {
		return !slices.ContainsFunc(high, func(h coverService) bool { return h.covers(low) })
	})
}

func (h coverService) covers(low coverService) bool {
	switch {
	case h.proto != low.proto:
		return false
	case h.ports == nil:
		return true
	case low.ports == nil:
		return false
	}
	return !slices.ContainsFunc(low.ports, func(l PortRange) bool {
		return !slices.ContainsFunc(h.ports, func(r PortRange) bool { return r.Lo <= l.Lo && l.Hi <= r.Hi })
	})
}

// peerSet is the peers of a rule, groups replaced by their members.
type peerSet struct {
	any       bool
	world     bool
	prefixes  []netip.Prefix // sorted, none inside another
	selectors []Selector
}

func (x *coverIndex) peers(p *coverPolicy, d Direction, i int) *peerSet {
	r := p.rule(d, i)
	if r.peers != nil {
		return r.peers
	}
	set := &peerSet{any: len(p.Rules(d)[i].Peers(d)) == 0}
	r.peers = set
	for _, s := range x.expand(p.Rules(d)[i].Peers(d)) {
		switch s.Kind() {
		case SelectEntity:
			set.any = set.any || s.Entity == EntityAny
			set.world = set.world || s.Entity == EntityWorld
		case SelectCIDR:
			if prefixes, err := s.Prefixes(); err == nil {
				set.prefixes = append(set.prefixes, prefixes...)
			}
		default:
			set.selectors = append(set.selectors, s)
		}
	}
	set.prefixes = outermost(set.prefixes)
	if len(set.prefixes) == 2 && set.prefixes[0].Bits() == 0 && set.prefixes[1].Bits() == 0 {
		set.any = true // 0.0.0.0/0 and ::/0
	}
	return set
}

// expand replaces groups by their members; an unknown group has none.
func (x *coverIndex) expand(ss []Selector) []Selector { return expandGroups(ss, x.set.Groups) }

func expandGroups(ss []Selector, groups map[string]*Group) []Selector {
	var out []Selector
	for _, s := range ss {
		if s.Group == "" {
			out = append(out, s)
		} else if g := groups[s.Group]; g != nil {
			out = append(out, g.Spec.Members...)
		}
	}
	return out
}

// outermost sorts prefixes and drops those inside others.
func outermost(ps []netip.Prefix) []netip.Prefix {
	slices.SortFunc(ps, netip.Prefix.Compare)
	var out []netip.Prefix
	for _, p := range ps {
		if !within(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// within reports whether one of the prefixes, sorted and disjoint, contains p: it can only be the last that begins at or before p.
func within(ps []netip.Prefix, p netip.Prefix) bool {
	n, _ := slices.BinarySearchFunc(ps, p, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return -1 // equal beginnings count as before
	})
	return n > 0 && ps[n-1].Bits() <= p.Bits() && ps[n-1].Contains(p.Addr())
}

func (x *coverIndex) peersCover(q *coverPolicy, d Direction, j int, p *coverPolicy, i int) bool {
	high := x.peers(q, d, j)
	if high.any {
		return true
	}
	low := x.peers(p, d, i)
	switch {
	case low.any, low.world && !high.world:
		return false
	case len(low.prefixes) == 0 && len(low.selectors) == 0 && !low.world:
		return false // selects nobody (yet): nothing to say
	}
	for _, pre := range low.prefixes {
		if !within(high.prefixes, pre) {
			return false
		}
	}
	return selectorsCover(high.selectors, low.selectors)
}

// selectorsCover reports whether each of low is included in one of high.
func selectorsCover(high, low []Selector) bool {
	return !slices.ContainsFunc(low, func(l Selector) bool {
		return !slices.ContainsFunc(high, func(h Selector) bool { return selectorCovers(&h, &l) })
	})
}

// selectorCovers reports whether whoever l selects, h selects too: equal ones, and labels that ask for less.
func selectorCovers(h, l *Selector) bool {
	k := h.Kind()
	if k != l.Kind() || k == "" {
		return false
	}
	switch k {
	case SelectLabels:
		return len(h.Labels) > 0 && includes(l.Labels, h.Labels)
	case SelectVLAN:
		return *h.VLAN == *l.VLAN
	case SelectMAC:
		return strings.EqualFold(h.MAC, l.MAC)
	}
	return h.Port == l.Port && h.VM == l.VM && h.NeutronPort == l.NeutronPort && h.Bridge == l.Bridge && h.Group == l.Group
}

// includes reports whether m has every pair of part.
func includes(m, part map[string]string) bool {
	for key, v := range part {
		if have, ok := m[key]; !ok || have != v {
			return false
		}
	}
	return true
}
