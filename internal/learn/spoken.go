package learn

import "net/netip"

// Spoken returns what a frame of ARP or neighbour discovery says, be it true or not; Read returns what may be believed. ok is false of
// other frames, and of those that are too short. It is the address of the sender, of an advertisement or a probe (from ::) the target, and
// the link-layer address that stands beside it or, where none does, the sender's. The frame may be cut.
func Spoken(frame []byte) (c Claim, ok bool) {
	sender, kind, b := open(frame)
	switch {
	case kind == etherARP && len(b) >= arpLen && b[4] == 6 && b[5] == 4:
		return Claim{MAC: MAC(b[8:14]), Address: netip.AddrFrom4([4]byte(b[14:18])), Source: ARP}, true
	case kind != etherIPv6 || len(b) < ipv6Len+ndLen || b[6] != protoICMPv6:
		return Claim{}, false
	}
	m, option := b[ipv6Len:], byte(optionTarget)
	source, target := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(m[8:24]))
	c = Claim{MAC: sender, Address: target, Source: ND}
	switch m[0] {
	case solicitation:
		option = optionSource
		if !source.IsUnspecified() {
			c.Address = source
		}
	case advertisement:
	default:
		return Claim{}, false
	}
	for o := m[ndLen:]; len(o) >= 8 && o[1] != 0 && int(o[1])*8 <= len(o); o = o[int(o[1])*8:] {
		if o[0] == option {
			c.MAC = MAC(o[2:8])
			break
		}
	}
	return c, true
}
