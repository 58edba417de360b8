// Package reject makes what the sender of a rejected packet is told: a TCP reset, or an ICMP or ICMPv6 error. It is pure, and its input is
// hostile: any bytes that a machine may have sent. It never panics.
//
// An answer is as if it came from the machine that the packet was for: addresses, and the tags of the frame, are those of the packet the
// other way round. Which packets must not be answered is by RFC 1122 §3.2.2, RFC 4443 §2.4 and RFC 9293 §3.5.2.
package reject

import "encoding/binary"

var be = binary.BigEndian

// Bounds of the packet that an error quotes: an IPv4 error has at most 576 bytes (RFC 1812 §4.3.2.3), an IPv6 one 1280 (RFC 4443 §2.4).
const (
	quote4 = 576 - ipv4Len - icmpLen
	quote6 = 1280 - ipv6Len - icmpLen
)

// ttl is that of answers.
const ttl = 64

// Answer returns the answer to a frame, which may be cut behind its headers, or nil if it must not or cannot be answered: no packet to one
// machine from one machine, a fragment but the first, a TCP reset, ICMP that is no request, and whatever is malformed. It keeps no
// reference to frame.
func Answer(frame []byte) []byte {
	p, ok := parse(frame)
	if !ok {
		return nil
	}
	switch p.proto {
	case protoTCP:
		return p.reset()
	case protoICMP, protoICMPv6:
		if !p.asks() {
			return nil
		}
	}
	return p.unreachable()
}

// reset answers a segment as RFC 9293 §3.5.2 does where there is no connection. One that acknowledges something is believed: it came from
// the sender's own port, and the sender checks the number.
func (p *packet) reset() []byte {
	const rst, ack, syn, fin = 0x04, 0x10, 0x02, 0x01
	seg := p.payload
	if len(seg) < tcpLen {
		return nil
	}
	header, flags := int(seg[12]>>4)*4, seg[13]
	if header < tcpLen || header > p.payloadLen || flags&rst != 0 {
		return nil
	}
	out, tcp := p.begin(protoTCP, tcpLen)
	copy(tcp[0:2], seg[2:4])
	copy(tcp[2:4], seg[0:2])
	tcp[12] = tcpLen / 4 << 4
	if tcp[13] = rst; flags&ack != 0 {
		copy(tcp[4:8], seg[8:12])
	} else {
		n := uint32(p.payloadLen - header)
		if flags&syn != 0 {
			n++
		}
		if flags&fin != 0 {
			n++
		}
		tcp[13] |= ack
		be.PutUint32(tcp[8:], be.Uint32(seg[4:])+n)
	}
	be.PutUint16(tcp[16:], p.checksum(protoTCP, tcp))
	return out
}

// asks reports whether the packet is an ICMP request: neither an error nor an answer is answered, and nothing else opens a connection.
func (p *packet) asks() bool {
	if len(p.payload) < icmpLen {
		return false
	}
	t := p.payload[0]
	if p.proto == protoICMPv6 {
		return p.six && t == 128
	}
	return !p.six && (t == 8 || t == 13 || t == 15 || t == 17)
}

// unreachable answers what is no TCP: the port is, where the protocol has ports, else communication is administratively prohibited.
func (p *packet) unreachable() []byte {
	port := p.proto == protoUDP || p.proto == protoDCCP || p.proto == protoSCTP || p.proto == protoUDPLite
	kind, code, proto, most := byte(3), byte(13), byte(protoICMP), quote4
	if port {
		code = 3
	}
	if p.six {
		kind, code, proto, most = 1, 1, protoICMPv6, quote6
		if port {
			code = 4
		}
	}
	quote := p.ip[:min(len(p.ip), most)]
	out, icmp := p.begin(proto, icmpLen+len(quote))
	icmp[0], icmp[1] = kind, code
	copy(icmp[icmpLen:], quote)
	be.PutUint16(icmp[2:], p.checksum(proto, icmp))
	return out
}

// begin returns a frame to the sender with n bytes of payload, which it also returns by itself, zeroed.
func (p *packet) begin(proto byte, n int) (frame, payload []byte) {
	head := ipv4Len
	if p.six {
		head = ipv6Len
	}
	out := make([]byte, len(p.link)+head+n)
	copy(out, p.link)
	copy(out[0:6], p.link[6:12])
	copy(out[6:12], p.link[0:6])
	ip, rest := out[len(p.link):len(p.link)+head], out[len(p.link)+head:]
	if p.six {
		ip[0] = 6 << 4
		be.PutUint16(ip[4:], uint16(n))
		ip[6], ip[7] = proto, ttl
		copy(ip[8:], p.dst)
		copy(ip[24:], p.src)
		return out, rest
	}
	ip[0] = 4<<4 | ipv4Len/4
	be.PutUint16(ip[2:], uint16(ipv4Len+n))
	ip[6] = 0x40 // don't fragment, so that no identification is needed (RFC 6864)
	ip[8], ip[9] = ttl, proto
	copy(ip[12:], p.dst)
	copy(ip[16:], p.src)
	be.PutUint16(ip[10:], fold(sum(0, ip)))
	return out, rest
}

// checksum is that of the payload of an answer, whose field for it is zero. ICMP over IPv4 alone has no pseudo header.
func (p *packet) checksum(proto byte, payload []byte) uint16 {
	var s uint64
	if p.six || proto != protoICMP {
		s = sum(sum(uint64(proto)+uint64(len(payload)), p.src), p.dst)
	}
	return fold(sum(s, payload))
}

// sum adds up 16-bit words, the last one padded with zero.
func sum(s uint64, b []byte) uint64 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint64(be.Uint16(b))
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}

func fold(s uint64) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}
