package compile

import (
	"cmp"
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
	services serviceSet
}

// peerSet is the other side of the connections a rule matches: any station, or those with one of the endpoint ids in their register or
// an address in one of the prefixes. Endpoint 0 is every station that is not an endpoint of the bridge.
type peerSet struct {
	any       bool
	endpoints []uint32       // sorted
	prefixes  []netip.Prefix // disjoint and joined as far as possible, IPv4 first, by address
}

// serviceSet is the set of protocols and destination ports of a rule: any, or those listed, at most one entry per protocol.
type serviceSet struct {
	any    bool
	protos []service // by protocol number
}

type service struct {
	proto uint8
	ports []policy.PortRange // sorted, disjoint, not adjacent; nil = all of the protocol
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

func (s service) families() families {
	switch s.proto {
	case policy.ProtoICMP:
		return ipv4
	case policy.ProtoICMPv6:
		return ipv6
	}
	return bothFamilies
}

func (s *serviceSet) families() families {
	if s.any {
		return bothFamilies
	}
	var f families
	for _, p := range s.protos {
		f |= p.families()
	}
	return f
}

// empty reports whether no packet is in the space.
func (s *space) empty() bool { return len(s.subjects) == 0 || s.families() == 0 }

func (s *space) families() families { return s.peers.families() & s.services.families() }

// newPeerSet brings a set into canonical form; it takes over the slices.
func newPeerSet(any bool, endpoints []uint32, prefixes []netip.Prefix) peerSet {
	if any {
		return peerSet{any: true}
	}
	slices.Sort(endpoints)
	return peerSet{endpoints: slices.Compact(endpoints), prefixes: joinPrefixes(prefixes)}
}

// joinPrefixes sorts the prefixes, drops those that are inside others and joins neighbours, in place. Then whatever is covered by the
// set is covered by one of its members.
func joinPrefixes(in []netip.Prefix) []netip.Prefix {
	slices.SortFunc(in, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
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

// newServiceSet brings the services of a rule into canonical form. Invalid services, which validation refuses, match nothing.
func newServiceSet(services []policy.Service) serviceSet {
	if len(services) == 0 {
		return serviceSet{any: true}
	}
	var set serviceSet
	for _, s := range services {
		proto, ports, err := policy.ParseService(s)
		if err != nil {
			continue
		}
		i, found := slices.BinarySearchFunc(set.protos, proto, func(s service, p uint8) int { return cmp.Compare(s.proto, p) })
		switch {
		case !found:
			set.protos = slices.Insert(set.protos, i, service{proto, ports})
		case set.protos[i].ports != nil && ports != nil:
			set.protos[i].ports = joinPorts(append(set.protos[i].ports, ports...))
		default:
			set.protos[i].ports = nil
		}
	}
	return set
}

func joinPorts(in []policy.PortRange) []policy.PortRange {
	slices.SortFunc(in, func(a, b policy.PortRange) int { return cmp.Compare(a.Lo, b.Lo) })
	out := in[:0]
	for _, r := range in {
		if n := len(out); n > 0 && int(r.Lo) <= int(out[n-1].Hi)+1 {
			out[n-1].Hi = max(out[n-1].Hi, r.Hi)
			continue
		}
		out = append(out, r)
	}
	return out
}

// equal reports whether both spaces are the same.
func (s *space) equal(o *space) bool {
	return slices.Equal(s.subjects, o.subjects) && s.peers.equal(&o.peers) && s.services.equal(&o.services)
}

func (s *peerSet) equal(o *peerSet) bool {
	return s.any == o.any && slices.Equal(s.endpoints, o.endpoints) && slices.Equal(s.prefixes, o.prefixes)
}

func (s *serviceSet) equal(o *serviceSet) bool {
	return s.any == o.any && slices.EqualFunc(s.protos, o.protos, func(a, b service) bool {
		return a.proto == b.proto && (a.ports == nil) == (b.ports == nil) && slices.Equal(a.ports, b.ports)
	})
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
	flag(s.services.any)
	for _, sv := range s.services.protos {
		num(int(sv.proto), len(sv.ports))
		for _, r := range sv.ports {
			num(int(r.Lo), int(r.Hi))
		}
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}
