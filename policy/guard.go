package policy

import (
	"net/netip"
	"slices"
)

// Guard is the anti-spoofing of an endpoint: the addresses that it is held to in what it sends. It is immutable. Which they are is
// declared; what was learned of an endpoint is never among them, nor does it put an endpoint under guard.
type Guard struct {
	// Demanded: its Endpoint resource says antiSpoof: on, so a time of grace does not apply to it.
	Demanded bool
	// Addresses are those that it may speak of as its own, sorted: declared and allowed ones, and the link-local ones that its MACs make.
	Addresses []netip.Prefix
	// AnySource: it sends on packets of others, so the source of IP is not looked at.
	AnySource bool
	// AnyMAC: other MAC addresses may be behind the port, or its own is not known.
	AnyMAC bool
	// MACs are its own, unless AnyMAC; sorted.
	MACs []string
}

// Tells reports whether what the guard refuses passes and is only told of; grace: the time of grace is not over.
func (g *Guard) Tells(grace bool) bool { return grace && !g.Demanded }

// DropsUnknownMAC reports whether frames are dropped that the endpoint sends under MAC addresses that are not its own; grace: the time of
// grace of guards is not over.
func (w *Workload) DropsUnknownMAC(grace bool) bool {
	return w.DropUnknownMAC || w.Guard != nil && !w.Guard.AnyMAC && !w.Guard.Tells(grace)
}

// Frame is what the guard looks at of something that an endpoint sends. It is ARP if ARP is not nil, IP if Src is valid, else none of them.
type Frame struct {
	SrcMAC string
	ARP    *ARP

	Src, Dst         netip.Addr
	Proto            uint8
	SrcPort, DstPort uint16
	ICMPType         uint8
	// ND is set for neighbour solicitations and advertisements (ICMPv6 types 135 and 136).
	ND *ND
}

// ARP are the addresses that a packet of ARP speaks of as its sender's. IP is not valid in one that Open vSwitch does not look into while
// receivers may: of other hardware than Ethernet (Linux takes that of IEEE 802 as well), or neither request nor reply.
type ARP struct {
	MAC string
	IP  netip.Addr
}

// ND is what a neighbour solicitation or advertisement is about. LinkLayer is that of its option, the source's or the target's; "" = it has
// none.
type ND struct {
	Target    netip.Addr
	LinkLayer string
}

// Spoof is why a guard refuses a frame; the words are those of drop reasons.
type Spoof string

// The reasons; NotSpoofed = it passes.
const (
	NotSpoofed      Spoof = ""
	SpoofedMAC      Spoof = "unknown-mac"
	SpoofedAddress  Spoof = "spoofed-address"
	SpoofedARP      Spoof = "spoofed-arp"
	SpoofedND       Spoof = "spoofed-nd"
	RogueDHCPServer Spoof = "rogue-dhcp-server"
	RogueRouter     Spoof = "rogue-router"
)

// Spoofs says why the guard of the endpoint refuses a frame that it sends. It is the reference for what is compiled.
//
//   - An endpoint is held to its MAC addresses, in Ethernet and inside ARP and neighbour discovery, unless others may be behind its port.
//   - It speaks of addresses as its own as the sender of ARP, as the target of an advertisement, as the target of a solicitation without
//     source (a probe whether somebody else has the address), and as the source of IP. Each has to be among its addresses. One that
//     forwards may have any source of IP.
//   - Who has no address yet may ask for one and look about: DHCP and IGMP from 0.0.0.0, ARP probes, and from :: router solicitations,
//     reports of MLD, and solicitations as above.
//   - What goes to the port of DHCP clients, from whichever port, is for declared servers: clients do not look where it comes from. Router
//     advertisements are for endpoints that forward.
func (w *Workload) Spoofs(f *Frame) Spoof {
	g := w.Guard
	if g == nil {
		return NotSpoofed
	}
	ownMAC := func(mac string) bool { return g.AnyMAC || slices.Contains(g.MACs, mac) }
	own := func(a netip.Addr) bool {
		return slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	switch {
	case !ownMAC(f.SrcMAC):
		return SpoofedMAC
	case f.ARP != nil:
		if !f.ARP.IP.IsValid() || f.ARP.IP != netip.IPv4Unspecified() && !own(f.ARP.IP) || !ownMAC(f.ARP.MAC) {
			return SpoofedARP
		}
		return NotSpoofed
	case !f.Src.IsValid():
		return NotSpoofed
	case f.dhcpAnswer() && !w.DHCPServer:
		return RogueDHCPServer
	case f.Proto == ProtoICMPv6 && f.ICMPType == 134 && !w.Forwards:
		return RogueRouter
	case f.looksAbout():
		return NotSpoofed
	}
	if nd := f.ND; nd != nil {
		probes := f.ICMPType == 135 && f.Src == netip.IPv6Unspecified()
		if (probes || f.ICMPType == 136) && !own(nd.Target) || nd.LinkLayer != "" && !ownMAC(nd.LinkLayer) {
			return SpoofedND
		}
		if probes && nd.LinkLayer == "" {
			return NotSpoofed
		}
	}
	if !g.AnySource && !own(f.Src) {
		return SpoofedAddress
	}
	return NotSpoofed
}

func (f *Frame) dhcpAnswer() bool {
	return f.Proto == 17 && (f.Src.Is4() && f.DstPort == 68 || f.Src.Is6() && f.DstPort == 546)
}

// looksAbout reports whether the frame is one that those send who have no address yet, and speaks of none.
func (f *Frame) looksAbout() bool {
	switch f.Src {
	case netip.IPv4Unspecified():
		toAll := netip.AddrFrom4([4]byte{255, 255, 255, 255})
		return f.Proto == 2 || f.Proto == 17 && f.SrcPort == 68 && f.DstPort == 67 && f.Dst == toAll
	case netip.IPv6Unspecified():
		return f.Proto == ProtoICMPv6 && slices.Contains([]uint8{131, 132, 133, 143}, f.ICMPType)
	}
	return false
}

// LinkLocal returns the link-local address that a MAC address makes (RFC 4291 appendix A); mac is canonical.
func LinkLocal(mac string) netip.Addr {
	b := [16]byte{0xfe, 0x80, 11: 0xff, 12: 0xfe}
	at := [...]int{8, 9, 10, 13, 14, 15}
	for i, place := range at {
		var n byte
		for _, c := range []byte(mac[3*i : 3*i+2]) {
			n = n<<4 | hexDigit(c)
		}
		b[place] = n
	}
	b[8] ^= 2
	return netip.AddrFrom16(b)
}

func hexDigit(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}
