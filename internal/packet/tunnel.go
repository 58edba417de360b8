package packet

import (
	"encoding/binary"
	"net/netip"
)

// Ports that IANA has given to tunnels.
const (
	portVXLAN  = 4789 // RFC 7348
	portGeneve = 6081 // RFC 8926
)

// Tunnel is what a frame was wrapped in.
type Tunnel struct {
	Type        string // vxlan, geneve
	VNI         uint32
	Source      netip.Addr // of the packet that carries it
	Destination netip.Addr
}

// Inside finds the Ethernet frame that a packet carries, as far as the frame was read; p is what Decode made of the frame. ok = there is
// one.
func Inside(frame []byte, p *Parsed) (t Tunnel, inner []byte, ok bool) {
	if !p.HasPorts || p.Proto != ProtoUDP || p.PayloadLen < 8 || p.PayloadAt+p.PayloadLen > len(frame) {
		return t, nil, false
	}
	b := frame[p.PayloadAt : p.PayloadAt+p.PayloadLen]
	t = Tunnel{VNI: binary.BigEndian.Uint32(b[4:]) >> 8, Source: p.Src, Destination: p.Dst}
	switch p.DstPort {
	case portVXLAN:
		if b[0]&0x08 == 0 { // the flag I: the VNI is valid
			return t, nil, false
		}
		t.Type, inner = "vxlan", b[8:]
	case portGeneve:
		const transparentEthernetBridging = 0x6558
		options := int(b[0]&0x3f) * 4
		if b[0]>>6 != 0 || binary.BigEndian.Uint16(b[2:]) != transparentEthernetBridging || len(b) < 8+options {
			return t, nil, false
		}
		t.Type, inner = "geneve", b[8+options:]
	}
	return t, inner, len(inner) > 0
}
