package policy

import (
	"net/netip"
	"slices"
	"strings"
)

func (p *coverPolicy) services(d Direction, i int) *ServiceSet {
	r := p.rule(d, i)
	if !r.parsed {
		r.parsed, r.services = true, NewServiceSet(p.Rules(d)[i].Services)
	}
	return &r.services
}

// peerSet is the peers of a rule, groups replaced by their members.
type peerSet struct {
	any       bool
	entities  []string // others than any
	prefixes  Prefixes
	selectors []Selector
}

func (x *coverIndex) peers(p *coverPolicy, d Direction, i int) *peerSet {
	r := p.rule(d, i)
	if r.peers != nil {
		return r.peers
	}
	set := &peerSet{any: len(p.Rules(d)[i].Peers(d)) == 0}
	var prefixes []netip.Prefix
	r.peers = set
	for _, s := range x.expand(p.Rules(d)[i].Peers(d)) {
		switch s.Kind() {
		case SelectEntity:
			set.any = set.any || s.Entity == EntityAny
			set.entities = append(set.entities, s.Entity)
		case SelectCIDR:
			if ps, err := s.Prefixes(); err == nil {
				prefixes = append(prefixes, ps...)
			}
		default:
			set.selectors = append(set.selectors, s)
		}
	}
	set.prefixes = JoinPrefixes(prefixes)
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

func (x *coverIndex) peersCover(q *coverPolicy, d Direction, j int, p *coverPolicy, i int) bool {
	high := x.peers(q, d, j)
	if high.any {
		return true
	}
	low := x.peers(p, d, i)
	switch {
	case low.any, slices.ContainsFunc(low.entities, func(e string) bool { return !slices.Contains(high.entities, e) }):
		return false
	case len(low.prefixes) == 0 && len(low.selectors) == 0 && len(low.entities) == 0:
		return false // selects nobody (yet): nothing to say
	}
	return low.prefixes.Within(high.prefixes) && selectorsCover(high.selectors, low.selectors)
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
	if k != l.Kind() || k == "" || h.Host != "" && h.Host != l.Host {
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
