package host

import (
	"net/netip"

	"github.com/tapwall/tapwall/internal/packet"
)

// sampler takes one packet of so many. Beside them it takes each first packet of a connection, and all of TCP that begin or end one (SYN,
// FIN, RST): those stand for themselves alone. It is for one goroutine.
type sampler struct {
	oneOf   int
	left    int // out, since the last one that was taken as one of many
	decoder *packet.Decoder
	parsed  packet.Parsed
	begun   map[conversation]struct{}
}

// conversation is a connection, whichever way a packet of it goes.
type conversation struct {
	a, b  netip.AddrPort
	proto uint8
}

// maxBegun bounds the connections that are remembered: guests choose them. When there are more all are forgotten, and the next packet of
// each is a first one again.
const maxBegun = 65_536

func newSampler(oneOf int) *sampler {
	return &sampler{oneOf: oneOf, decoder: packet.NewDecoder(), begun: map[conversation]struct{}{}}
}

// weight is for how many packets a packet is to be taken; 0 = it is left out.
func (s *sampler) weight(data []byte, length int) int64 {
	if s.oneOf == 1 || s.first(data, length) {
		return 1
	}
	if s.left++; s.left < s.oneOf {
		return 0
	}
	s.left = 0
	return int64(s.oneOf)
}

// first reports whether a packet is always taken.
func (s *sampler) first(data []byte, length int) bool {
	p := &s.parsed
	s.decoder.Decode(data, length, p)
	if p.IPVersion == 0 || p.FragOffset != 0 {
		return false
	}
	c := conversation{netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort), p.Proto}
	if c.b.Compare(c.a) < 0 {
		c.a, c.b = c.b, c.a
	}
	if _, known := s.begun[c]; !known {
		if len(s.begun) >= maxBegun {
			clear(s.begun)
		}
		s.begun[c] = struct{}{}
		return true
	}
	return p.HasPorts && p.Proto == packet.ProtoTCP && p.TCPFlags&(packet.SYN|packet.FIN|packet.RST) != 0
}
