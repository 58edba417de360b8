package tables

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// multipath chooses as Open vSwitch does in what matters: both directions of a session get one number, another basis gives another
// choice, and what is no IP gets 0; by hash_threshold the first of few links has all of the first of many. The numbers themselves are not
// Open vSwitch's.
func (w *walk) multipath(a *flow.Multipath) {
	udp := a.Fields == flow.HashSymmetricL3L4UDP
	if a.Fields != flow.HashSymmetricL3L4 && !udp {
		panic(fault(fmt.Sprintf("action %s is not known here", a)))
	}
	hash, link := SessionHash(w.p, a.Basis, udp), uint32(0)
	switch {
	case a.Algorithm == flow.LinkModuloN:
		link = hash % a.Links
	case a.Algorithm == flow.LinkHashThreshold && a.Links > 1:
		link = hash / (math.MaxUint32/a.Links + 1)
	case a.Algorithm != flow.LinkHashThreshold:
		panic(fault(fmt.Sprintf("action %s is not known here", a)))
	}
	w.put(a.Dst, flow.U64(uint64(link)))
}

// SessionHash is a hash of the session that a packet is of, the same for both directions: of the addresses and the protocol of IP, and of
// the ports of TCP and SCTP and, if asked for, of UDP. It is 0 for a packet that is no IP.
func SessionHash(p *Fields, basis uint16, udp bool) uint32 {
	h := fnv.New64a()
	add := func(v flow.U128) {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:8], v.Hi)
		binary.BigEndian.PutUint64(b[8:], v.Lo)
		h.Write(b[:])
	}
	// Which of two goes where is forgotten: what both have, and what either has.
	pair := func(x, y flow.FieldID) {
		a, b := p[x], p[y]
		add(a.And(b))
		add(a.Or(b))
	}
	switch p[flow.EthType].Lo {
	case flow.EthTypeIPv4:
		pair(flow.IPSrc, flow.IPDst)
	case flow.EthTypeIPv6:
		pair(flow.IPv6Src, flow.IPv6Dst)
	default:
		return 0
	}
	add(p[flow.IPProto])
	switch p[flow.IPProto].Lo {
	case 6:
		pair(flow.TCPSrc, flow.TCPDst)
	case 132:
		pair(flow.SCTPSrc, flow.SCTPDst)
	case 17:
		if udp {
			pair(flow.UDPSrc, flow.UDPDst)
		}
	}
	add(flow.U64(uint64(basis)))
	x := h.Sum64() // its low bits depend on few of the last bytes
	x = (x ^ x>>32) * 0xd6e8feb86659fd93
	return uint32(x >> 32)
}
