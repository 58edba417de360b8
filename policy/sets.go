package policy

import (
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
