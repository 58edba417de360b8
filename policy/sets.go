package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// Prefixes is a set of addresses in canonical form: disjoint prefixes, joined as far as possible, IPv4 first, by address. Then whatever is
// covered by the set is covered by one of its members.
type Prefixes []netip.Prefix

// JoinPrefixes brings prefixes into canonical form, in place.
func JoinPrefixes(in []netip.Prefix) Prefixes {
	slices.SortFunc(in, netip.Prefix.Compare)
	out := in[:0]
	for _, p := range in {
		if n := len(out); n > 0 && covers(out[n-1], p) {
			continue
		}
		out = append(out, p)
		for n := len(out); n > 1 && siblings(out[n-2], out[n-1]); n = len(out) {
			out = append(out[:n-2], netip.PrefixFrom(out[n-2].Addr(), out[n-2].Bits()-1))
		}
	}
	return out
}

// DistinctPrefixes brings prefixes into order and drops those that others cover, in place. Halves stay two prefixes: a set that changes one
// of them changes one.
func DistinctPrefixes(in []netip.Prefix) []netip.Prefix {
	slices.SortFunc(in, netip.Prefix.Compare)
	return distinct(in[:0], in)
}

// DistinctOf is DistinctPrefixes for prefixes that are in order already, which stay as they are.
func DistinctOf(sorted []netip.Prefix) []netip.Prefix {
	return distinct(make([]netip.Prefix, 0, len(sorted)), sorted)
}

func distinct(out, sorted []netip.Prefix) []netip.Prefix {
	for _, p := range sorted {
		if n := len(out); n == 0 || !covers(out[n-1], p) {
			out = append(out, p)
		}
	}
	return out
}

// LostPrefixes returns those of before that after does not cover, one by one or together. Both are distinct.
func LostPrefixes(before, after []netip.Prefix) []netip.Prefix {
	if len(before) == len(after) && (len(before) == 0 || &before[0] == &after[0]) {
		return nil
	}
	var out []netip.Prefix
	j := 0
	for _, p := range before {
		if j < len(after) && after[j] == p { // most are in both
			j++
			continue
		}
		for j < len(after) && after[j].Compare(p) < 0 {
			j++
		}
		if j < len(after) && after[j] == p || Prefixes(after).Covers(p) {
			continue
		}
		if in := JoinPrefixes(Prefixes(after).inside(p)); len(in) != 1 || in[0] != p {
			out = append(out, p)
		}
	}
	return out
}

// covers reports whether b is inside a.
func covers(a, b netip.Prefix) bool { return a.Bits() <= b.Bits() && a.Contains(b.Addr()) }

// siblings reports whether a and b are the two halves of one prefix, a the lower.
func siblings(a, b netip.Prefix) bool {
	if a.Bits() == 0 || a.Bits() != b.Bits() || a.Addr().Is4() != b.Addr().Is4() {
		return false
	}
	parent := netip.PrefixFrom(a.Addr(), a.Bits()-1).Masked()
	return parent.Addr() == a.Addr() && parent.Contains(b.Addr())
}

// Covers reports whether every address of the prefix is in the set.
func (s Prefixes) Covers(p netip.Prefix) bool {
	i := s.after(p)
	return i > 0 && covers(s[i-1], p)
}

// after returns how many prefixes of the set begin at or before p.
func (s Prefixes) after(p netip.Prefix) int {
	i, found := slices.BinarySearchFunc(s, p.Addr(), func(x netip.Prefix, a netip.Addr) int { return x.Addr().Compare(a) })
	if found {
		i++
	}
	return i
}

// Within reports whether every address of s is in o.
func (s Prefixes) Within(o Prefixes) bool {
	return !slices.ContainsFunc(s, func(p netip.Prefix) bool { return !o.Covers(p) })
}

// Overlaps reports whether an address is in both sets.
func (s Prefixes) Overlaps(o Prefixes) bool {
	return slices.ContainsFunc(s, func(p netip.Prefix) bool {
		i := o.after(p)
		return i > 0 && o[i-1].Overlaps(p) || i < len(o) && o[i].Overlaps(p)
	})
}

// Minus returns what of s is not in o.
func (s Prefixes) Minus(o Prefixes) Prefixes {
	var out Prefixes
	for _, p := range s {
		if !o.Covers(p) {
			out = append(out, CIDRMinus(p, o.inside(p))...)
		}
	}
	return out
}

// inside returns the set's prefixes that lie in p.
func (s Prefixes) inside(p netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	i, _ := slices.BinarySearchFunc(s, p.Addr(), func(x netip.Prefix, a netip.Addr) int { return x.Addr().Compare(a) })
	for ; i < len(s) && covers(p, s[i]); i++ {
		out = append(out, s[i])
	}
	return out
}

// ServiceSet is the set of protocols and destination ports of a rule in canonical form: any, or those listed, at most one entry per
// protocol.
type ServiceSet struct {
	Any    bool
	Protos []ProtoPorts // by protocol number
}

// ProtoPorts is a part of a ServiceSet.
type ProtoPorts struct {
	Proto uint8
	Ports []PortRange // sorted, disjoint, not adjacent; nil = all of the protocol
}

// NewServiceSet returns the set of a rule's services; none are any. Invalid services, which Validate refuses, match nothing.
func NewServiceSet(services []Service) ServiceSet {
	if len(services) == 0 {
		return ServiceSet{Any: true}
	}
	var set ServiceSet
	for _, s := range services {
		proto, ports, err := ParseService(s)
		if err != nil {
			continue
		}
		i, found := slices.BinarySearchFunc(set.Protos, proto, func(s ProtoPorts, p uint8) int { return cmp.Compare(s.Proto, p) })
		switch {
		case !found:
			set.Protos = slices.Insert(set.Protos, i, ProtoPorts{proto, ports})
		case set.Protos[i].Ports != nil && ports != nil:
			set.Protos[i].Ports = joinRanges(append(set.Protos[i].Ports, ports...))
		default:
			set.Protos[i].Ports = nil
		}
	}
	return set
}

func (s *ServiceSet) proto(p uint8) (ProtoPorts, bool) {
	for _, v := range s.Protos {
		if v.Proto == p {
			return v, true
		}
	}
	return ProtoPorts{}, false
}

// Has reports whether a protocol and destination port are in the set.
func (s *ServiceSet) Has(proto uint8, port uint16) bool {
	v, ok := s.proto(proto)
	return s.Any || ok && (v.Ports == nil || slices.ContainsFunc(v.Ports, func(r PortRange) bool { return r.Contains(port) }))
}

// Equal reports whether both sets are the same.
func (s *ServiceSet) Equal(o *ServiceSet) bool {
	return s.Any == o.Any && slices.EqualFunc(s.Protos, o.Protos, func(a, b ProtoPorts) bool {
		return a.Proto == b.Proto && (a.Ports == nil) == (b.Ports == nil) && slices.Equal(a.Ports, b.Ports)
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
	return !slices.ContainsFunc(s.Protos, func(v ProtoPorts) bool {
		w, ok := o.proto(v.Proto)
		if !ok || v.Ports == nil && w.Ports != nil {
			return true
		}
		return w.Ports != nil && slices.ContainsFunc(v.Ports, func(r PortRange) bool {
			return !slices.ContainsFunc(w.Ports, func(q PortRange) bool { return q.Lo <= r.Lo && r.Hi <= q.Hi })
		})
	})
}

// Overlaps reports whether the sets have something in common.
func (s *ServiceSet) Overlaps(o *ServiceSet) bool {
	if s.Any || o.Any {
		return true
	}
	return slices.ContainsFunc(s.Protos, func(a ProtoPorts) bool {
		b, ok := o.proto(a.Proto)
		return ok && (a.Ports == nil || b.Ports == nil || slices.ContainsFunc(a.Ports, func(r PortRange) bool {
			return slices.ContainsFunc(b.Ports, func(q PortRange) bool { return r.Lo <= q.Hi && q.Lo <= r.Hi })
		}))
	})
}

// Minus returns what of s is not in o, or more than that: what "all but these" leaves is not a set of this kind.
func (s *ServiceSet) Minus(o *ServiceSet) ServiceSet {
	switch {
	case o.Any:
		return ServiceSet{}
	case s.Any:
		return *s
	}
	var out ServiceSet
	for _, v := range s.Protos {
		w, ok := o.proto(v.Proto)
		switch {
		case !ok || v.Ports == nil && w.Ports != nil:
			out.Protos = append(out.Protos, v)
		case v.Ports != nil && w.Ports != nil:
			if ports := rangesMinus(v.Ports, w.Ports); len(ports) > 0 {
				out.Protos = append(out.Protos, ProtoPorts{v.Proto, ports})
			}
		}
	}
	return out
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
