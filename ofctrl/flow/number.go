package flow

import (
	"net"
	"net/netip"
)

// Ethernet types (IEEE 802 numbers).
const (
	EthTypeIPv4 = 0x0800
	EthTypeARP  = 0x0806
	EthTypeVLAN = 0x8100 // 802.1Q
	EthTypeIPv6 = 0x86dd
	EthTypeQinQ = 0x88a8 // 802.1ad

	ethTypeRARP          = 0x8035
	ethTypeMPLS          = 0x8847
	ethTypeMPLSMulticast = 0x8848
)

// IP protocols (IANA protocol numbers).
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
	ProtoSCTP   = 132
)

// FromAddr returns an address as the value of a match field: 32 bits for IPv4, also where it is mapped into IPv6, and
// 128 for IPv6. The zero Addr is 0. Zones are dropped.
func FromAddr(a netip.Addr) U128 {
	a = a.Unmap()
	if a.Is4() {
		b := a.As4()
		return U128{Lo: uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])}
	}
	if !a.IsValid() {
		return U128{}
	}
	return from16(a)
}

// from16 returns all 128 bits of an address, mapped into IPv6 where it is IPv4.
func from16(a netip.Addr) U128 {
	b := a.As16()
	var u U128
	for i := range 8 {
		u.Hi = u.Hi<<8 | uint64(b[i])
		u.Lo = u.Lo<<8 | uint64(b[i+8])
	}
	return u
}

// Prefix returns a prefix as value and mask of a match field, 32 or 128 bits wide as in [FromAddr]. Host bits of the
// value are zero. An invalid prefix gives a zero mask, that is no term at all: check for it where input is untrusted.
func Prefix(p netip.Prefix) (value, mask U128) {
	if !p.IsValid() {
		return U128{}, U128{}
	}
	width, bits := p.Addr().BitLen(), p.Bits()
	if p.Addr().Is4In6() {
		width, bits = 32, max(bits-96, 0)
	}
	mask = Ones(width).And(Ones(width - bits).Not())
	return FromAddr(p.Addr()).And(mask), mask
}

// MAC returns a 48-bit Ethernet address as the value of a match field. Any other length gives 0, the address that no
// packet has.
func MAC(hw net.HardwareAddr) U128 {
	if len(hw) != 6 {
		return U128{}
	}
	var u uint64
	for _, b := range hw {
		u = u<<8 | uint64(b)
	}
	return U64(u)
}

// ParseMAC reads a 48-bit Ethernet address in any form that net.ParseMAC knows.
func ParseMAC(s string) (U128, error) {
	hw, err := net.ParseMAC(s)
	if err == nil && len(hw) != 6 {
		err = &net.AddrError{Err: "not a 48-bit address", Addr: s}
	}
	if err != nil {
		return U128{}, err
	}
	return MAC(hw), nil
}

// Addr4 returns the low 32 bits as an IPv4 address.
func (u U128) Addr4() netip.Addr {
	return netip.AddrFrom4([4]byte{byte(u.Lo >> 24), byte(u.Lo >> 16), byte(u.Lo >> 8), byte(u.Lo)})
}

// Addr6 returns u as an IPv6 address.
func (u U128) Addr6() netip.Addr {
	var b [16]byte
	for i := range 8 {
		b[i] = byte(u.Hi >> (56 - 8*i))
		b[i+8] = byte(u.Lo >> (56 - 8*i))
	}
	return netip.AddrFrom16(b)
}

// HardwareAddr returns the low 48 bits as an Ethernet address.
func (u U128) HardwareAddr() net.HardwareAddr {
	hw := make(net.HardwareAddr, 6)
	for i := range hw {
		hw[i] = byte(u.Lo >> (40 - 8*i))
	}
	return hw
}

// PortMask is one term over a 16-bit port number: it holds for p iff p&Mask == Value.
type PortMask struct{ Value, Mask uint16 }

// PortMasks covers the ports lo..hi, both inclusive, with terms that do not overlap and that together hold for exactly
// those ports. The masks are prefixes (ovs-fields(7), "Matching"), and there are as few as prefixes allow, at most 30.
// Masks with holes would need fewer terms for some ranges (1..6: three instead of four), but each shape of mask is one
// more lookup table in the switch, and prefixes have 17 shapes in all. lo > hi gives nil.
func PortMasks(lo, hi uint16) []PortMask {
	var out []PortMask
	for next := uint32(lo); next <= uint32(hi); {
		// The largest aligned block that starts at next and ends at hi or before.
		size := next & -next
		if size == 0 {
			size = 1 << 16
		}
		for next+size-1 > uint32(hi) {
			size >>= 1
		}
		out = append(out, PortMask{Value: uint16(next), Mask: uint16(-size)})
		next += size
	}
	return out
}
