package wall

import (
	"cmp"
	"slices"
)

// within reports whether every packet of s is in o, dimension by dimension.
func (s *space) within(o *space) bool {
	return subset(s.subjects, o.subjects) && s.peers.within(&o.peers) && s.services.Within(&o.services)
}

// overlaps reports whether a packet may be in both spaces. It is true too often rather than too seldom: an endpoint may have any
// address.
func (s *space) overlaps(o *space) bool {
	return s.families()&o.families() != 0 && intersect(s.subjects, o.subjects) && s.peers.overlaps(&o.peers) &&
		s.services.Overlaps(&o.services)
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
	if v := s.services.Minus(&old.services); familiesOfAll(&v) != 0 {
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
	return !s.any && subset(s.endpoints, o.endpoints) && s.prefixes.Within(o.prefixes)
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
	return s.prefixes.Overlaps(o.prefixes)
}

func (s *peerSet) minus(old *peerSet) peerSet {
	switch {
	case old.any:
		return peerSet{}
	case s.any:
		return *s
	}
	return peerSet{endpoints: minus(s.endpoints, old.endpoints), prefixes: s.prefixes.Minus(old.prefixes)}
}
