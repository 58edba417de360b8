// Package learn makes sense of what machines say of their addresses: it reads claims out of frames of ARP, neighbour discovery and DHCP,
// and keeps a table of those that are believed. A guest chooses what it claims, so everything is bounded, nobody is believed an address
// that somebody else of its network has, and no frame can do more harm than be left out. It is pure: no I/O, and the caller brings the
// clock.
package learn

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Source says by what an address was learned.
type Source string

// The sources.
const (
	ARP  Source = "arp"
	ND   Source = "nd"
	DHCP Source = "dhcp"
)

// MAC is an address of Ethernet.
type MAC [6]byte

// Claim is what a frame says: under this MAC address somebody is reached by this IP address.
type Claim struct {
	MAC     MAC
	Address netip.Addr
	Source  Source
	// Lease is for how long a DHCP server gives the address, in whole seconds; 0 of other sources.
	Lease time.Duration
}

// Sizes of headers, in bytes, and numbers of protocols.
const (
	etherLen = 14
	ipv4Len  = 20
	ipv6Len  = 40
	udpLen   = 8
	arpLen   = 28
	ndLen    = 24  // neighbour solicitations and advertisements without options (RFC 4861 §4.3, §4.4)
	bootpLen = 240 // with the magic cookie (RFC 2131 §2, RFC 2132 §2)

	protoUDP    = 17
	protoICMPv6 = 58

	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd

	solicitation  = 135
	advertisement = 136
	// Options with a link-layer address.
	optionSource = 1
	optionTarget = 2
)

var be = binary.BigEndian

// Read returns what a frame claims; ok is false if it claims nothing that could be believed:
//
//   - ARP speaks of its sender's addresses (RFC 826), if Ethernet has the same sender. Probes (from 0.0.0.0) claim nothing;
//   - a neighbour solicitation speaks of its source, an advertisement of its target (RFC 4861). The link-layer address in the options, if
//     there is one, has to be the sender's. Probes whether somebody else has the address (from ::) claim nothing;
//   - an acknowledgement of a DHCP server (RFC 2131 §4.3) speaks of its client. Whoever calls has to know that the sender may be one.
//
// The address is one that a single machine can have beyond its own link: no multicast, unspecified, loopback or link-local one. The frame
// may be cut.
func Read(frame []byte) (c Claim, ok bool) {
	sender, kind, body := open(frame)
	switch kind {
	case etherARP:
		c, ok = readARP(sender, body)
	case etherIPv6:
		c, ok = readND(sender, body)
	case etherIPv4:
		c, ok = readDHCP(body)
	}
	if !ok || c.MAC[0]&1 != 0 || c.MAC == (MAC{}) || !Plausible(c.Address) {
		return Claim{}, false
	}
	return c, true
}

// open returns the sender of a frame, the type that it has behind its VLAN tags, and what it carries; 0 = it is too short.
func open(frame []byte) (sender MAC, kind uint16, body []byte) {
	if len(frame) < etherLen {
		return MAC{}, 0, nil
	}
	at := etherLen
	for tag := be.Uint16(frame[at-2:]); tag == 0x8100 || tag == 0x88a8; tag = be.Uint16(frame[at-2:]) {
		if at += 4; len(frame) < at {
			return MAC{}, 0, nil
		}
	}
	return MAC(frame[6:12]), be.Uint16(frame[at-2:]), frame[at:]
}

// Plausible reports whether an address can be that of one machine beyond its own link.
func Plausible(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.Is4In6() && (a.Is6() || a.As4()[0] != 0 && a.As4()[0] < 224)
}

func readARP(sender MAC, b []byte) (Claim, bool) {
	if len(b) < arpLen || be.Uint16(b) != 1 || be.Uint16(b[2:]) != 0x0800 || b[4] != 6 || b[5] != 4 {
		return Claim{}, false
	}
	if op := be.Uint16(b[6:]); op != 1 && op != 2 || MAC(b[8:14]) != sender {
		return Claim{}, false
	}
	return Claim{MAC: sender, Address: netip.AddrFrom4([4]byte(b[14:18])), Source: ARP}, true
}

// readND wants what RFC 4861 §7.1 wants. The checksum is not looked at: who could forge the message could as well make it right.
func readND(sender MAC, b []byte) (Claim, bool) {
	const hopLimit = 255
	if len(b) < ipv6Len+ndLen || b[0]>>4 != 6 || b[6] != protoICMPv6 || b[7] != hopLimit || b[ipv6Len+1] != 0 {
		return Claim{}, false
	}
	length := int(be.Uint16(b[4:]))
	if length < ndLen || len(b) < ipv6Len+length {
		return Claim{}, false
	}
	m, option := b[ipv6Len:ipv6Len+length], byte(optionSource)
	c := Claim{MAC: sender, Source: ND}
	switch m[0] {
	case solicitation:
		c.Address = netip.AddrFrom16([16]byte(b[8:24]))
	case advertisement:
		c.Address, option = netip.AddrFrom16([16]byte(m[8:24])), optionTarget
	default:
		return Claim{}, false
	}
	for o := m[ndLen:]; len(o) > 0; o = o[int(o[1])*8:] {
		if len(o) < 8 || o[1] == 0 || int(o[1])*8 > len(o) || o[0] == option && MAC(o[2:8]) != sender {
			return Claim{}, false
		}
	}
	return c, true
}

// Options of DHCP, and the message that gives an address (RFC 2132 §3, §9).
const (
	optionPad     = 0
	optionLease   = 51
	optionMessage = 53
	optionEnd     = 255
	messageACK    = 5
)

// readDHCP reads the options as far as they are there: an acknowledgement without a lease gives nothing.
func readDHCP(b []byte) (Claim, bool) {
	if len(b) < ipv4Len || b[0]>>4 != 4 || b[9] != protoUDP || be.Uint16(b[6:])&0x1fff != 0 {
		return Claim{}, false
	}
	head := int(b[0]&15) * 4
	if head < ipv4Len || len(b) < head+udpLen+bootpLen || be.Uint16(b[head:]) != 67 || be.Uint16(b[head+2:]) != 68 {
		return Claim{}, false
	}
	m := b[head+udpLen:]
	if m[0] != 2 || m[1] != 1 || m[2] != 6 || be.Uint32(m[236:]) != 0x63825363 { // a reply to a client of Ethernet
		return Claim{}, false
	}
	c := Claim{MAC: MAC(m[28:34]), Address: netip.AddrFrom4([4]byte(m[16:20])), Source: DHCP}
	acknowledges := false
	for o := m[bootpLen:]; len(o) > 0 && o[0] != optionEnd; {
		if o[0] == optionPad {
			o = o[1:]
			continue
		}
		if len(o) < 2 || len(o) < 2+int(o[1]) {
			break
		}
		value := o[2 : 2+int(o[1])]
		switch {
		case o[0] == optionMessage && len(value) == 1:
			acknowledges = value[0] == messageACK
		case o[0] == optionLease && len(value) == 4:
			c.Lease = time.Duration(be.Uint32(value)) * time.Second
		}
		o = o[2+len(value):]
	}
	return c, acknowledges && c.Lease > 0
}
