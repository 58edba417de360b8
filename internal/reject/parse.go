package reject

// Lengths of headers, in bytes, and numbers of protocols.
const (
	etherLen = 14
	ipv4Len  = 20
	ipv6Len  = 40
	tcpLen   = 20
	icmpLen  = 8

	protoHopByHop    = 0
	protoICMP        = 1
	protoTCP         = 6
	protoUDP         = 17
	protoDCCP        = 33
	protoRouting     = 43
	protoFragment    = 44
	protoAH          = 51
	protoICMPv6      = 58
	protoDestination = 60
	protoSCTP        = 132
	protoUDPLite     = 136
)

// packet is an IP packet that may be answered. Its slices are parts of the frame.
type packet struct {
	link       []byte // the frame up to the IP header
	ip         []byte // the packet from its IP header on, as far as it is there, without the padding of the frame
	six        bool
	src, dst   []byte
	proto      byte
	payload    []byte // behind all headers of IP, as far as it is there
	payloadLen int    // how long it was
}

// parse reads a frame; ok is false if it is no whole header of IP from one machine to one machine, or of a fragment but the first.
func parse(frame []byte) (p packet, ok bool) {
	at := etherLen
	if len(frame) < at || group(frame[0:6]) || group(frame[6:12]) || zero(frame[6:12]) {
		return p, false
	}
	for tag := be.Uint16(frame[at-2:]); tag == 0x8100 || tag == 0x88a8; tag = be.Uint16(frame[at-2:]) {
		if at += 4; len(frame) < at {
			return p, false
		}
	}
	p.link, p.ip = frame[:at], frame[at:]
	switch be.Uint16(frame[at-2:]) {
	case 0x0800:
		return p, p.four()
	case 0x86dd:
		p.six = true
		return p, p.sixth()
	}
	return p, false
}

func (p *packet) four() bool {
	b := p.ip
	if len(b) < ipv4Len || b[0]>>4 != 4 {
		return false
	}
	head, total := int(b[0]&15)*4, int(be.Uint16(b[2:]))
	if head < ipv4Len || head > total || head > len(b) || be.Uint16(b[6:])&0x1fff != 0 {
		return false
	}
	p.ip = b[:min(len(b), total)]
	p.src, p.dst, p.proto = b[12:16], b[16:20], b[9]
	p.payload, p.payloadLen = p.ip[head:], total-head
	return host4(p.src) && host4(p.dst)
}

// host4 reports whether an address can be that of one machine on a network.
func host4(a []byte) bool { return a[0] != 0 && a[0] != 127 && a[0] < 224 }

// sixth reads IPv6, whose header is followed by others.
func (p *packet) sixth() bool {
	b := p.ip
	if len(b) < ipv6Len || b[0]>>4 != 6 {
		return false
	}
	rest := int(be.Uint16(b[4:])) // 0: a jumbogram, which no Ethernet carries, or nothing
	p.ip = b[:min(len(b), ipv6Len+rest)]
	p.src, p.dst, p.proto = b[8:24], b[24:40], b[6]
	if !host6(p.src) || !host6(p.dst) {
		return false
	}
	p.payload = p.ip[ipv6Len:]
	for {
		var n int
		switch h := p.payload; {
		case !extends(p.proto):
			p.payloadLen = rest
			return true
		case len(h) < 8, p.proto == protoFragment && be.Uint16(h[2:])&^7 != 0:
			return false
		case p.proto == protoFragment:
			n = 8
		case p.proto == protoAH:
			n = 4 * (int(h[1]) + 2)
		default:
			n = 8 * (int(h[1]) + 1)
		}
		if n > len(p.payload) {
			return false
		}
		p.proto, p.payload, rest = p.payload[0], p.payload[n:], rest-n
	}
}

// extends reports whether a header is an extension of IPv6, which is followed by another.
func extends(proto byte) bool {
	switch proto {
	case protoHopByHop, protoRouting, protoFragment, protoAH, protoDestination:
		return true
	}
	return false
}

// host6 is host4 for IPv6: neither a group nor ::, ::1.
func host6(a []byte) bool { return a[0] != 0xff && !(zero(a[:15]) && a[15] <= 1) }

func group(mac []byte) bool { return mac[0]&1 != 0 }

func zero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
