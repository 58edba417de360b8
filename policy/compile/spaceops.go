package compile

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/tapwall/tapwall/policy"
)

// within reports whether every packet of s is in o, dimension by dimension.
func (s *space) within(o *space) bool {
	return subset(s.subjects, o.subjects) && s.peers.within(&o.peers) && s.services.within(&o.services)
}

// overlaps reports whether a packet may be in both spaces. It is true too often rather than too seldom: an endpoint may have any
// address.
func (s *space) overlaps(o *space) bool {
	return s.families()&o.families() != 0 && intersect(s.subjects, o.subjects) && s.peers.overlaps(&o.peers) && s.services.overlaps(&o.services)
}

// added returns spaces that together hold every packet of s that is not in old: what one dimension gained, times the whole of the
// others.
func (s *space) added(old *space) []space {
	var out []space
	if ids := minus(s.subjects, old.subjects); len(ids) > 0 {
		out = append(out, space{ids, s.peers, s.services})
	}
	if p := s.peers.minus(&old.peers); p.families() != 0 {
		out = append(out, space{s.subjects, p, s.services})
	}
	if v := s.services.minus(&old.services); v.families() != 0 {
		out = append(out, space{s.subjects, s.peers, v})
	}
	return out
}

// subset reports whether every id of the sorted list a is in the sorted list b.
func subset(a, b []uint32) bool {
	i := 0
	for _, id := range a {
		for i < len(b) && b[i] < id {
			i++
		}
		if i == len(b) || b[i] != id {
			return false
		}
	}
	return true
}

// intersect reports whether the sorted lists have an id in common.
func intersect(a, b []uint32) bool {
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch cmp.Compare(a[i], b[j]) {
		case 0:
			return true
		case -1:
			i++
		default:
			j++
		}
	}
	return false
}

// minus returns the ids of a that are not in b; both lists are sorted.
func minus(a, b []uint32) []uint32 {
	var out []uint32
	for _, id := range a {
		if _, found := slices.BinarySearch(b, id); !found {
			out = append(out, id)
		}
	}
	return out
}

func (s *peerSet) within(o *peerSet) bool {
	if o.any {
		return true
	}
	return !s.any && subset(s.endpoints, o.endpoints) && !slices.ContainsFunc(s.prefixes, func(p netip.Prefix) bool { return !o.covers(p) })
}

// covers reports whether the prefix is inside one of the set's.
func (s *peerSet) covers(p netip.Prefix) bool {
	i := s.after(p)
	return i > 0 && covers(s.prefixes[i-1], p)
}

// after returns how many prefixes of the set begin at or before p.
func (s *peerSet) after(p netip.Prefix) int {
	i, found := slices.BinarySearchFunc(s.prefixes, p.Addr(), func(x netip.Prefix, a netip.Addr) int { return x.Addr().Compare(a) })
	if found {
		i++
	}
	return i
}

func (s *peerSet) overlaps(o *peerSet) bool {
	switch {
	case s.any || o.any:
		return true
	case len(s.endpoints) > 0 && len(o.prefixes) > 0, len(s.prefixes) > 0 && len(o.endpoints) > 0:
		return true
	case intersect(s.endpoints, o.endpoints):
		return true
	}
	return slices.ContainsFunc(s.prefixes, func(p netip.Prefix) bool {
		i := o.after(p)
		return i > 0 && o.prefixes[i-1].Overlaps(p) || i < len(o.prefixes) && o.prefixes[i].Overlaps(p)
	})
}

func (s *peerSet) minus(old *peerSet) peerSet {
	switch {
	case old.any:
		return peerSet{}
	case s.any:
		return *s
	}
	gained := peerSet{endpoints: minus(s.endpoints, old.endpoints)}
	for _, p := range s.prefixes {
		if !old.covers(p) {
			gained.prefixes = append(gained.prefixes, policy.CIDRMinus(p, old.inside(p))...)
		}
	}
	return gained
}

// inside returns the set's prefixes that lie in p.
func (s *peerSet) inside(p netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	i, _ := slices.BinarySearchFunc(s.prefixes, p.Addr(), func(x netip.Prefix, a netip.Addr) int { return x.Addr().Compare(a) })
	for ; i < len(s.prefixes) && covers(p, s.prefixes[i]); i++ {
		out = append(out, s.prefixes[i])
	}
	return out
}

func (s *serviceSet) within(o *serviceSet) bool {
	if o.any {
		return true
	}
	if s.any {
		return false
	}
	gained := s.minus(o)
	return len(gained.protos) == 0
}

func (s *serviceSet) overlaps(o *serviceSet) bool {
	if s.any || o.any {
		return true
	}
	for _, a := range s.protos {
		b, ok := o.proto(a.proto)
		if !ok {
			continue
		}
		if a.ports == nil || b.ports == nil {
			return true
		}
		for _, r := range a.ports {
			if slices.ContainsFunc(b.ports, func(q policy.PortRange) bool { return r.Lo <= q.Hi && q.Lo <= r.Hi }) {
				return true
			}
		}
	}
	return false
}

func (s *serviceSet) proto(p uint8) (service, bool) {
	for _, v := range s.protos {
		if v.proto == p {
			return v, true
		}
	}
	return service{}, false
}

func (s *serviceSet) minus(old *serviceSet) serviceSet {
	switch {
	case old.any:
		return serviceSet{}
	case s.any:
		return *s
	}
	var gained serviceSet
	for _, v := range s.protos {
		before, ok := old.proto(v.proto)
		switch {
		case !ok || v.ports == nil && before.ports != nil:
			gained.protos = append(gained.protos, v)
		case v.ports != nil && before.ports != nil:
			if ports := portsMinus(v.ports, before.ports); len(ports) > 0 {
				gained.protos = append(gained.protos, service{v.proto, ports})
			}
		}
	}
	return gained
}

// portsMinus returns what of a is not in b; both lists are canonical.
func portsMinus(a, b []policy.PortRange) []policy.PortRange {
	var out []policy.PortRange
	for _, r := range a {
		lo := int(r.Lo)
		for _, q := range b {
			if int(q.Hi) < lo || q.Lo > r.Hi {
				continue
			}
			if int(q.Lo) > lo {
				out = append(out, policy.PortRange{Lo: uint16(lo), Hi: q.Lo - 1})
			}
			lo = int(q.Hi) + 1
		}
		if lo <= int(r.Hi) {
			out = append(out, policy.PortRange{Lo: uint16(lo), Hi: r.Hi})
		}
	}
	return out
}
