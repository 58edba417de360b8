package wall

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"

	"github.com/tapwall/tapwall/policy"
)

// space is what a rule matches: the product of three dimensions. Spaces are in canonical form, so that equal spaces are equal values,
// and immutable, so that they may share slices.
type space struct {
	subjects []uint32 // endpoint ids the rule applies to, sorted
	peers    peerSet
	services policy.ServiceSet
}

// peerSet is the other side of the connections a rule matches: any station, or those with one of the endpoint ids in their register or
// an address in one of the prefixes. Endpoint 0 is every station that is not an endpoint of the bridge.
type peerSet struct {
	any       bool
	endpoints []uint32 // sorted
	prefixes  policy.Prefixes
}

// families are the IP versions that a set can match.
type families uint8

const (
	ipv4 families = 1 << iota
	ipv6
	bothFamilies = ipv4 | ipv6
)

func familyOf(p netip.Prefix) families {
	if p.Addr().Is4() {
		return ipv4
	}
	return ipv6
}

func (s *peerSet) families() families {
	if s.any || len(s.endpoints) > 0 {
		return bothFamilies
	}
	var f families
	for _, p := range s.prefixes {
		f |= familyOf(p)
	}
	return f
}

func familiesOf(s policy.ProtoPorts) families {
	switch s.Proto {
	case policy.ProtoICMP:
		return ipv4
	case policy.ProtoICMPv6:
		return ipv6
	}
	return bothFamilies
}

func familiesOfAll(s *policy.ServiceSet) families {
	if s.Any {
		return bothFamilies
	}
	var f families
	for _, p := range s.Protos {
		f |= familiesOf(p)
	}
	return f
}

// empty reports whether no packet is in the space.
func (s *space) empty() bool { return len(s.subjects) == 0 || s.families() == 0 }

func (s *space) families() families { return s.peers.families() & familiesOfAll(&s.services) }

// newPeerSet brings a set into canonical form; it takes over the slices.
func newPeerSet(any bool, endpoints []uint32, prefixes []netip.Prefix) peerSet {
	if any {
		return peerSet{any: true}
	}
	slices.Sort(endpoints)
	return peerSet{endpoints: slices.Compact(endpoints), prefixes: policy.JoinPrefixes(prefixes)}
}

// equal reports whether both spaces are the same.
func (s *space) equal(o *space) bool {
	return slices.Equal(s.subjects, o.subjects) && s.peers.equal(&o.peers) && s.services.Equal(&o.services)
}

func (s *peerSet) equal(o *peerSet) bool {
	return s.any == o.any && slices.Equal(s.endpoints, o.endpoints) && slices.Equal(s.prefixes, o.prefixes)
}

// hash is a digest of the space and of how the rule ranks.
func (s *space) hash(rank policy.Rank) string {
	b := make([]byte, 0, 256)
	num := func(vs ...int) {
		for _, v := range vs {
			b = binary.AppendVarint(b, int64(v))
		}
	}
	flag := func(v bool) {
		if v {
			num(1)
		} else {
			num(0)
		}
	}
	ids := func(ids []uint32) {
		num(len(ids))
		for _, id := range ids {
			b = binary.AppendUvarint(b, uint64(id))
		}
	}
	num(rank.Tier, rank.Priority)
	num(digits[rank.Effect])
	ids(s.subjects)
	flag(s.peers.any)
	ids(s.peers.endpoints)
	num(len(s.peers.prefixes))
	for _, p := range s.peers.prefixes {
		a := p.Addr().As16()
		flag(p.Addr().Is4())
		b = append(b, a[:]...)
		num(p.Bits())
	}
	flag(s.services.Any)
	for _, sv := range s.services.Protos {
		num(int(sv.Proto), len(sv.Ports))
		for _, r := range sv.Ports {
			num(int(r.Lo), int(r.Hi))
		}
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}
