package policy

import (
	"cmp"
	"slices"
	"strings"
)

// ServiceSet is the set of what a rule's services name, in canonical form: any, or those listed, at most one entry per protocol.
type ServiceSet struct {
	Any    bool
	Protos []ProtoPorts // by protocol number
}

// ProtoPorts is a part of a ServiceSet: all of a protocol if both lists are nil, else what is in one of them.
type ProtoPorts struct {
	Proto uint8
	// Ports are the destination ports that may be reached from every source port; sorted, disjoint, not adjacent.
	Ports []PortRange
	// Pairs hold what else may be reached from some source ports only; of ICMP and ICMPv6, messages by type and code.
	Pairs []PortPairs
}

// PortPairs are all pairs of a source and a destination port that two lists of ranges have. For ICMP and ICMPv6 these are types and codes,
// as in OVS's ct_tp_src and ct_tp_dst. The lists are like Ports, and 0-65535 stands for every port or code. In a ProtoPorts, no source port
// is in two of them, no two have the same destination ports, and they are in the order of their first source port.
type PortPairs struct{ Src, Dst []PortRange }

var everyPort = []PortRange{{0, 65535}}

// All reports whether it is all of the protocol.
func (p *ProtoPorts) All() bool { return p.Ports == nil && p.Pairs == nil }

// NewServiceSet returns the set of a rule's services; none are any. Invalid services, which Validate refuses, match nothing.
func NewServiceSet(services []Service) ServiceSet {
	if len(services) == 0 {
		return ServiceSet{Any: true}
	}
	var set ServiceSet
	for i := range services {
		p, err := ParseService(&services[i])
		if err != nil {
			continue
		}
		i, found := slices.BinarySearchFunc(set.Protos, p.Proto, func(s ProtoPorts, p uint8) int { return cmp.Compare(s.Proto, p) })
		if !found {
			set.Protos = slices.Insert(set.Protos, i, p.portsOf())
			continue
		}
		set.Protos[i] = set.Protos[i].join(p.portsOf())
	}
	for i := range set.Protos {
		if p := &set.Protos[i]; p.Pairs != nil {
			*p = canonical(p.Proto, p.slabs(p.edges(nil)))
		}
	}
	return set
}

// portsOf is what the service names.
func (s *ParsedService) portsOf() ProtoPorts {
	out := ProtoPorts{Proto: s.Proto, Ports: s.Ports}
	pair := PortPairs{Src: s.SourcePorts, Dst: s.Ports}
	if s.Type != nil {
		pair.Src = []PortRange{{uint16(*s.Type), uint16(*s.Type)}}
	}
	if s.Code != nil {
		pair.Dst = []PortRange{{uint16(*s.Code), uint16(*s.Code)}}
	}
	if pair.Src == nil {
		return out
	}
	if pair.Dst == nil {
		pair.Dst = everyPort
	}
	out.Ports, out.Pairs = nil, []PortPairs{pair}
	return out
}

// join returns what is in either of two parts of one protocol. Its pairs are not canonical.
func (p ProtoPorts) join(o ProtoPorts) ProtoPorts {
	if p.All() || o.All() {
		return ProtoPorts{Proto: p.Proto}
	}
	if o.Ports != nil {
		p.Ports = joinRanges(append(slices.Clone(p.Ports), o.Ports...))
	}
	p.Pairs = append(p.Pairs, o.Pairs...)
	return p
}

// A slab is a range of source ports from which the same destination ports may be reached.
type slab struct {
	src PortRange
	dst []PortRange
}

// edges adds to a list of source ports those at which p may begin to have other destination ports.
func (p *ProtoPorts) edges(out []int) []int {
	for _, x := range p.Pairs {
		for _, r := range x.Src {
			out = append(out, int(r.Lo), int(r.Hi)+1)
		}
	}
	return out
}

// slabs returns p cut at edges, which are all of its own and may be more. The slabs together have every source port.
func (p *ProtoPorts) slabs(edges []int) []slab {
	edges = append(edges, 0, 65536)
	slices.Sort(edges)
	edges = slices.Compact(edges)
	out := make([]slab, len(edges)-1)
	base := p.Ports
	if p.All() {
		base = everyPort
	}
	for i := range out {
		out[i] = slab{PortRange{uint16(edges[i]), uint16(edges[i+1] - 1)}, base}
	}
	for _, x := range p.Pairs {
		for _, r := range x.Src {
			i, _ := slices.BinarySearch(edges, int(r.Lo))
			for ; i < len(out) && out[i].src.Hi <= r.Hi; i++ {
				out[i].dst = joinRanges(append(slices.Clone(out[i].dst), x.Dst...))
			}
		}
	}
	return out
}

// canonical makes a part of slabs, which have every source port. It is All also where there is nothing in them.
func canonical(proto uint8, slabs []slab) ProtoPorts {
	out := ProtoPorts{Proto: proto}
	common := slabs[0].dst
	for _, s := range slabs[1:] {
		common = rangesMinus(common, rangesMinus(everyPort, s.dst))
	}
	if slices.Equal(common, everyPort) {
		return out
	}
	if len(common) > 0 {
		out.Ports = common
	}
	at := map[string]int{}
	for _, s := range slabs {
		rest := rangesMinus(s.dst, common)
		if len(rest) == 0 {
			continue
		}
		text := rangesText(rest)
		i, ok := at[text]
		if !ok {
			i, at[text] = len(out.Pairs), len(out.Pairs)
			out.Pairs = append(out.Pairs, PortPairs{Dst: rest})
		}
		out.Pairs[i].Src = joinRanges(append(out.Pairs[i].Src, s.src))
	}
	return out
}

func rangesText(rs []PortRange) string {
	var b strings.Builder
	for _, r := range rs {
		b.WriteString(r.String() + " ")
	}
	return b.String()
}

// slabsOf cuts two parts of one protocol at the same source ports.
func slabsOf(a, b *ProtoPorts) ([]slab, []slab) {
	edges := b.edges(a.edges(nil))
	return a.slabs(slices.Clone(edges)), b.slabs(edges)
}

// Of returns what the set has of a protocol; nil = nothing of its own.
func (s *ServiceSet) Of(proto uint8) *ProtoPorts {
	for i := range s.Protos {
		if s.Protos[i].Proto == proto {
			return &s.Protos[i]
		}
	}
	return nil
}

// Has reports whether the first packet of a connection is in the set, by its protocol and ports or, with ICMP and ICMPv6, type and code.
func (s *ServiceSet) Has(proto uint8, src, dst uint16) bool {
	v := s.Of(proto)
	return s.Any || v != nil && v.has(src, dst)
}

func (p *ProtoPorts) has(src, dst uint16) bool {
	return p.All() || within(p.Ports, dst) || slices.ContainsFunc(p.Pairs, func(x PortPairs) bool {
		return within(x.Src, src) && within(x.Dst, dst)
	})
}

func within(rs []PortRange, port uint16) bool {
	return slices.ContainsFunc(rs, func(r PortRange) bool { return r.Contains(port) })
}

// Equal reports whether both sets are the same.
func (s *ServiceSet) Equal(o *ServiceSet) bool {
	return s.Any == o.Any && slices.EqualFunc(s.Protos, o.Protos, func(a, b ProtoPorts) bool {
		return a.Proto == b.Proto && a.All() == b.All() && slices.Equal(a.Ports, b.Ports) && slices.EqualFunc(a.Pairs, b.Pairs,
			func(x, y PortPairs) bool { return slices.Equal(x.Src, y.Src) && slices.Equal(x.Dst, y.Dst) })
	})
}

// Within reports whether all of s is in o.
func (s *ServiceSet) Within(o *ServiceSet) bool {
	switch {
	case o.Any:
		return true
	case s.Any:
		return false
	}
	for i := range s.Protos {
		v := &s.Protos[i]
		w := o.Of(v.Proto)
		if w == nil || !w.All() && v.All() {
			return false
		}
		if w.All() {
			continue
		}
		if v.Pairs == nil && w.Pairs == nil {
			if slices.ContainsFunc(v.Ports, func(r PortRange) bool {
				return !slices.ContainsFunc(w.Ports, func(q PortRange) bool { return q.Lo <= r.Lo && r.Hi <= q.Hi })
			}) {
				return false
			}
			continue
		}
		a, b := slabsOf(v, w)
		for i := range a {
			if len(rangesMinus(a[i].dst, b[i].dst)) > 0 {
				return false
			}
		}
	}
	return true
}

// Overlaps reports whether the sets have something in common.
func (s *ServiceSet) Overlaps(o *ServiceSet) bool {
	if s.Any || o.Any {
		return true
	}
	if a, b := s.span(), o.span(); a.hi < b.lo || b.hi < a.lo {
		return false // most pairs of rules: writes look at thousands
	}
	for i := range s.Protos {
		if w := o.Of(s.Protos[i].Proto); w != nil && s.Protos[i].overlaps(w) {
			return true
		}
	}
	return false
}

// span is what all of a set lies between: protocols, and within them destination ports.
type span struct{ lo, hi uint32 }

func (s *ServiceSet) span() span {
	if len(s.Protos) == 0 {
		return span{lo: 1} // nothing
	}
	first, last := &s.Protos[0], &s.Protos[len(s.Protos)-1]
	out := span{uint32(first.Proto) << 16, uint32(last.Proto)<<16 | 0xffff}
	if first.Pairs == nil && first.Ports != nil {
		out.lo |= uint32(first.Ports[0].Lo)
	}
	if last.Pairs == nil && last.Ports != nil {
		out.hi = uint32(last.Proto)<<16 | uint32(last.Ports[len(last.Ports)-1].Hi)
	}
	return out
}

func (p *ProtoPorts) overlaps(o *ProtoPorts) bool {
	if p.All() || o.All() || meet(p.Ports, o.Ports) {
		return true
	}
	meets := func(ports []PortRange, pairs []PortPairs) bool {
		return slices.ContainsFunc(pairs, func(x PortPairs) bool { return meet(ports, x.Dst) })
	}
	return meets(p.Ports, o.Pairs) || meets(o.Ports, p.Pairs) || slices.ContainsFunc(p.Pairs, func(x PortPairs) bool {
		return slices.ContainsFunc(o.Pairs, func(y PortPairs) bool { return meet(x.Src, y.Src) && meet(x.Dst, y.Dst) })
	})
}

// meet reports whether a port is in both lists.
func meet(a, b []PortRange) bool {
	return slices.ContainsFunc(a, func(r PortRange) bool {
		return slices.ContainsFunc(b, func(q PortRange) bool { return r.Lo <= q.Hi && q.Lo <= r.Hi })
	})
}

// Minus returns what of s is not in o, or more than that: of all of a protocol, or of everything, all remains unless o has that, too.
func (s *ServiceSet) Minus(o *ServiceSet) ServiceSet {
	switch {
	case o.Any:
		return ServiceSet{}
	case s.Any:
		return *s
	}
	var out ServiceSet
	for i := range s.Protos {
		v := &s.Protos[i]
		w := o.Of(v.Proto)
		switch {
		case w == nil || v.All() && !w.All():
			out.Protos = append(out.Protos, *v)
			continue
		case w.All():
			continue
		}
		a, b := slabsOf(v, w)
		for i := range a {
			a[i].dst = rangesMinus(a[i].dst, b[i].dst)
		}
		if left := canonical(v.Proto, a); !left.All() { // it is part of v, which is not all
			out.Protos = append(out.Protos, left)
		}
	}
	return out
}

// Wide returns the part of the protocol that its number and the destination port of conntrack's original tuple tell; false = there is
// none. The rest also depends on source ports, types and codes, or is ports of SCTP, which Open vSwitch's own conntrack does not look at.
func (p *ProtoPorts) Wide() (ProtoPorts, bool) {
	return ProtoPorts{Proto: p.Proto, Ports: p.Ports}, p.All() || p.Ports != nil && p.Proto != ProtoSCTP
}

// matches is how many matches what is not wide takes.
func (s *ServiceSet) matches() (n int) {
	for i := range s.Protos {
		p, here := &s.Protos[i], 0
		for _, x := range p.Pairs {
			here += masks(x.Src) * masks(x.Dst)
		}
		if p.Proto == ProtoSCTP {
			here = 2 * (here + masks(p.Ports)) // in either direction
		}
		n += here
	}
	return n
}

// masks is how many matches of a value and a mask ranges take.
func masks(rs []PortRange) (n int) {
	for _, r := range rs {
		for lo := int(r.Lo); lo <= int(r.Hi); n++ {
			size := 1
			for lo&size == 0 && lo+2*size-1 <= int(r.Hi) && size < 1<<16 {
				size *= 2
			}
			lo += size
		}
	}
	return n
}

// rangesMinus returns what of a is not in b; both are canonical.
func rangesMinus(a, b []PortRange) []PortRange {
	var out []PortRange
	for _, r := range a {
		lo := int(r.Lo)
		for _, q := range b {
			if int(q.Hi) < lo || q.Lo > r.Hi {
				continue
			}
			if int(q.Lo) > lo {
				out = append(out, PortRange{Lo: uint16(lo), Hi: q.Lo - 1})
			}
			lo = int(q.Hi) + 1
		}
		if lo <= int(r.Hi) {
			out = append(out, PortRange{Lo: uint16(lo), Hi: r.Hi})
		}
	}
	return out
}
