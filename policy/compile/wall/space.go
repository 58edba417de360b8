package wall

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"

	"github.com/tapwall/tapwall/policy"
)

// scope is what a rule names: the product of three dimensions. It is immutable; what its choices hold is not.
type scope struct {
	subjects []*choice
	any      bool // every station is a peer
	peers    []*choice
	services policy.ServiceSet
}

// choices are all that the scope names.
func (s *scope) choices() []*choice { return slices.Concat(s.subjects, s.peers) }

// space is what a scope holds at one time. Spaces are immutable, so that they may share slices.
type space struct {
	subjects []*endpoint // by serial
	peers    peerSet
	services policy.ServiceSet
}

// peerSet is the other side of the connections a rule matches: any station, the endpoints, all that is no known endpoint (world), the host,
// or those with an address in one of the prefixes.
type peerSet struct {
	any, world bool
	known      []netip.Prefix // with world: addresses that are not in it
	host       hosts
	endpoints  []*endpoint     // by serial
	prefixes   policy.Prefixes // distinct
	fams       families        // of prefixes
}

// now and was return what the scope holds, and what it held at the end of the last Compile.
func (s *scope) now() space { return s.space(func(x *choice) *content { return &x.now }) }

func (s *scope) was() space { return s.space(func(x *choice) *content { return &x.was }) }

func (s *scope) space(of func(*choice) *content) space {
	out := space{services: s.services, peers: peerSet{any: s.any}}
	for _, x := range s.subjects {
		out.subjects = union(out.subjects, of(x).endpoints)
	}
	for i, x := range s.peers {
		c, p := of(x), &out.peers
		p.any, p.world, p.fams = p.any || c.any, p.world || c.world, p.fams|c.fams
		p.endpoints = union(p.endpoints, c.endpoints)
		if c.world {
			p.known = c.known
		}
		if c.host.is {
			p.host = c.host
		}
		if i == 0 || len(p.prefixes) == 0 {
			p.prefixes = c.prefixes
		} else if len(c.prefixes) > 0 {
			p.prefixes = policy.DistinctPrefixes(slices.Concat(p.prefixes, c.prefixes))
		}
	}
	if out.peers.any {
		out.peers = peerSet{any: true}
	}
	return out
}

// union joins two lists of endpoints.
func union(a, b []*endpoint) []*endpoint {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0 || len(a) == len(b) && &a[0] == &b[0]:
		return a
	}
	out := slices.Concat(a, b)
	slices.SortFunc(out, bySerial)
	return slices.Compact(out)
}

// same reports whether both scopes name the same.
func (s *scope) same(o *scope) bool {
	return s.any == o.any && slices.Equal(s.subjects, o.subjects) && slices.Equal(s.peers, o.peers) && s.services.Equal(&o.services)
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
	if s.any || s.world || s.host.is || len(s.endpoints) > 0 {
		return bothFamilies
	}
	return s.fams
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

func (s *space) families() families { return s.peers.families() & familiesOfAll(&s.services) }

// hash is a digest of what the scope names, of how the rule ranks and of how many connections it samples one.
func (s *scope) hash(rank policy.Rank, oneOf int) string {
	b := make([]byte, 0, 256)
	num := func(vs ...int) {
		for _, v := range vs {
			b = binary.AppendVarint(b, int64(v))
		}
	}
	names := func(xs []*choice) {
		num(len(xs))
		for _, x := range xs {
			b = binary.BigEndian.AppendUint64(b, x.hash)
		}
	}
	num(rank.Tier, rank.Priority, digits[rank.Effect])
	names(s.subjects)
	names(s.peers)
	if s.any {
		num(1)
	}
	b = append(b, serviceText(&s.services)...)
	if s.services.Any {
		num(1)
	}
	if rank.Audit {
		num(2)
	}
	if oneOf != 0 {
		num(3, oneOf)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

func hexHash(h uint64) string { return strconv.FormatUint(h, 16) }

// nameOf is hexHash, "" for 0.
func nameOf(h uint64) string {
	if h == 0 {
		return ""
	}
	return hexHash(h)
}
