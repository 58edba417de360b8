package packet

import (
	"crypto/sha1" //nolint:gosec // the Community ID specification names it; it protects nothing
	"encoding/base64"
	"encoding/binary"
	"net/netip"
)

// CommunityIDLen is the length of a Community ID v1: "1:" and a SHA-1 in base64.
const CommunityIDLen = 2 + 28

// CommunityID is the Community ID v1 of a flow: the same text for both directions, in every tool that follows the specification
// (https://github.com/corelight/community-id-spec). For ICMP and ICMPv6 srcPort is the type and dstPort the code; for protocols
// without ports both are left out. Addresses of different families or invalid ones give "".
func CommunityID(seed uint16, proto uint8, src, dst netip.Addr, srcPort, dstPort uint16) string {
	var b [CommunityIDLen]byte
	out := AppendCommunityID(b[:0], seed, proto, src, dst, srcPort, dstPort)
	return string(out)
}

// AppendCommunityID is CommunityID without an allocation.
func AppendCommunityID(b []byte, seed uint16, proto uint8, src, dst netip.Addr, srcPort, dstPort uint16) []byte {
	src, dst = src.Unmap(), dst.Unmap()
	if !src.IsValid() || !dst.IsValid() || src.Is4() != dst.Is4() {
		return b
	}
	ports, oneWay := true, false
	switch proto {
	case ProtoTCP, ProtoUDP, ProtoSCTP:
	case ProtoICMP:
		dstPort, oneWay = icmpPeer(srcPort, dstPort)
	case ProtoICMPv6:
		dstPort, oneWay = icmpv6Peer(srcPort, dstPort)
	default:
		ports = false
		srcPort, dstPort = 0, 0
	}
	// The smaller end comes first, except for messages that know no answer: for those the direction stays in the hash.
	if c := src.Compare(dst); !oneWay && (c > 0 || c == 0 && srcPort > dstPort) {
		src, dst = dst, src
		srcPort, dstPort = dstPort, srcPort
	}
	var in [2 + 16 + 16 + 2 + 4]byte
	h := binary.BigEndian.AppendUint16(in[:0], seed)
	h = appendAddr(h, src)
	h = appendAddr(h, dst)
	h = append(h, proto, 0)
	if ports {
		h = binary.BigEndian.AppendUint16(h, srcPort)
		h = binary.BigEndian.AppendUint16(h, dstPort)
	}
	sum := sha1.Sum(h) //nolint:gosec // see the import
	b = append(b, '1', ':')
	return base64.StdEncoding.AppendEncode(b, sum[:])
}

func appendAddr(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		x := a.As4()
		return append(b, x[:]...)
	}
	x := a.As16()
	return append(b, x[:]...)
}

// icmpPeer returns the type of the answer to (or of the question of) an ICMP type as the second port; without one the code is
// used and the flow has one direction.
func icmpPeer(typ, code uint16) (peer uint16, oneWay bool) {
	switch typ {
	case 0: // echo
		return 8, false
	case 8:
		return 0, false
	case 13: // timestamp
		return 14, false
	case 14:
		return 13, false
	case 15: // information
		return 16, false
	case 16:
		return 15, false
	case 10: // router solicitation, advertisement
		return 9, false
	case 9:
		return 10, false
	case 17: // address mask
		return 18, false
	case 18:
		return 17, false
	}
	return code, true
}

// icmpv6Peer is icmpPeer for ICMPv6.
func icmpv6Peer(typ, code uint16) (peer uint16, oneWay bool) {
	switch typ {
	case 128, 130, 133, 135, 139, 144: // echo, listener query, router and neighbour solicitation, node information, home agent discovery
		return typ + 1, false
	case 129, 131, 134, 136, 140, 145:
		return typ - 1, false
	}
	return code, true
}
