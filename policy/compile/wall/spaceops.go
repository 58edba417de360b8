package wall

import (
	"cmp"

	"github.com/tapwall/tapwall/policy"
)

// overlaps reports whether a packet may be in both spaces. It is true too often rather than too seldom: an endpoint may have any
// address.
func (s *space) overlaps(o *space) bool {
	return s.families()&o.families() != 0 && meet(s.subjects, o.subjects) && s.peers.overlaps(&o.peers) &&
		s.services.Overlaps(&o.services)
}

// added returns spaces that together hold every packet of s that is not in old: what one dimension gained, times the whole of the
// others.
func (s *space) added(old *space) []space {
	var out []space
	if es := without(s.subjects, old.subjects); len(es) > 0 {
		out = append(out, space{es, s.peers, s.services})
	}
	if p := s.peers.minus(&old.peers); p.families() != 0 {
		out = append(out, space{s.subjects, p, s.services})
	}
	if v := s.services.Minus(&old.services); familiesOfAll(&v) != 0 {
		out = append(out, space{s.subjects, s.peers, v})
	}
	return out
}

// meet reports whether the lists have an endpoint in common.
func meet(a, b []*endpoint) bool {
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch cmp.Compare(a[i].serial, b[j].serial) {
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

func (s *peerSet) overlaps(o *peerSet) bool {
	switch {
	case s.any || o.any:
		return true
	case (s.world || len(s.endpoints) > 0) && len(o.prefixes) > 0, len(s.prefixes) > 0 && (o.world || len(o.endpoints) > 0):
		return true
	case (s.world || s.host.is) && (o.world || o.host.is), meet(s.endpoints, o.endpoints):
		return true
	case s.host.is && len(o.prefixes) > 0, o.host.is && len(s.prefixes) > 0:
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
	out := peerSet{world: s.world && !old.world, endpoints: without(s.endpoints, old.endpoints), prefixes: s.prefixes.Minus(old.prefixes)}
	if s.world && old.world { // what is known no more
		out.prefixes = append(out.prefixes, policy.LostPrefixes(old.known, s.known)...)
	}
	if s.host.loses(&old.host) {
		out.host = s.host
	}
	for _, p := range out.prefixes {
		out.fams |= familyOf(p)
	}
	return out
}
