// Package packet reads the headers of a frame without allocating: Ethernet, VLAN tags, ARP, IPv4, IPv6 with its extension
// headers, TCP, UDP, SCTP, ICMP and ICMPv6. It makes sense of frames a guest may have crafted to kill the reader: no input
// panics or loops. It also computes Community IDs.
package packet

import (
	"net/netip"
	"strconv"
	"strings"
)

// MaxBytes is how much of a frame is read.
const MaxBytes = 1600

// IP protocol numbers (IANA "Protocol Numbers").
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
	ProtoSCTP   = 132
)

// EtherTypes (IEEE 802).
const (
	EtherTypeIPv4 = 0x0800
	EtherTypeARP  = 0x0806
	EtherTypeIPv6 = 0x86dd
)

// Status says how far a frame could be read.
type Status uint8

// The states of a decode.
const (
	// StatusFailed: no addresses of the network layer could be read, or there is not even an Ethernet header.
	StatusFailed Status = iota
	// StatusPartial: the addresses are valid, something behind them is not.
	StatusPartial
	// StatusOK: everything this package knows to read was there. A payload it does not know (LLDP, MPLS, ESP) is no fault.
	StatusOK
)

// String is the word used in tapwall.decode.status.
func (s Status) String() string {
	switch s {
	case StatusFailed:
		return "failed"
	case StatusPartial:
		return "partial"
	case StatusOK:
		return "ok"
	}
	return "unknown"
}

// Layer is a header, or a message behind the headers.
type Layer uint8

// The layers.
const (
	LayerNone Layer = iota
	LayerEthernet
	LayerVLAN
	LayerARP
	LayerIPv4
	LayerIPv6
	LayerIPv6Extension
	LayerTCP
	LayerUDP
	LayerSCTP
	LayerICMP
	LayerICMPv6
	// Messages of applications, which package l7 reads.
	LayerDNS
	LayerTLS
	LayerHTTP
	layerCount
)

// LayerCount is the number of Layer values; valid layers are smaller.
const LayerCount = int(layerCount)

// String is the word used in tapwall.decode.layer and in metrics.
func (l Layer) String() string {
	switch l {
	case LayerNone:
		return "none"
	case LayerEthernet:
		return "ethernet"
	case LayerVLAN:
		return "vlan"
	case LayerARP:
		return "arp"
	case LayerIPv4:
		return "ipv4"
	case LayerIPv6:
		return "ipv6"
	case LayerIPv6Extension:
		return "ipv6_extension"
	case LayerTCP:
		return "tcp"
	case LayerUDP:
		return "udp"
	case LayerSCTP:
		return "sctp"
	case LayerICMP:
		return "icmp"
	case LayerICMPv6:
		return "icmpv6"
	case LayerDNS:
		return "dns"
	case LayerTLS:
		return "tls"
	case LayerHTTP:
		return "http"
	case layerCount:
	}
	return "layer(" + strconv.Itoa(int(l)) + ")"
}

// TCP flags, in the order of the header (RFC 9293 §3.1, RFC 3540 for NS).
const (
	FIN uint16 = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
	NS
)

// AppendTCPFlags appends the names of the flags, in the order FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, NS.
func AppendTCPFlags(names []string, flags uint16) []string {
	for i, n := range [...]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS"} {
		if flags&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return names
}

// TCPFlags is the names of flags joined by commas.
func TCPFlags(flags uint16) string { return strings.Join(AppendTCPFlags(nil, flags), ",") }

// MAC is an Ethernet address.
type MAC [6]byte

// Parsed is what a frame says of itself. It holds no reference to the frame.
type Parsed struct {
	Status Status
	Layer  Layer  // the header that could not be read; LayerNone iff Status is ok
	Err    string // why; "" iff Status is ok. At most 120 bytes

	// Length is the length of the frame on the wire, in bytes; always valid.
	Length int
	// Truncated: the frame is shorter than its headers say, or was cut before it came here. Always valid.
	Truncated bool

	// HasEthernet: EthSrc, EthDst and EthType are valid. EthType is the one behind all VLAN tags, 0 for an IEEE 802.3 frame with LLC.
	HasEthernet    bool
	EthSrc, EthDst MAC
	EthType        uint16
	// VLANs is the number of tags; VLAN is the id of the outermost, valid iff VLANs > 0.
	VLANs int
	VLAN  uint16

	// IPVersion is 4 or 6, or 0 for what is not IP.
	IPVersion uint8
	// Src and Dst are valid iff Src.IsValid(): the addresses of the IP header, or of an ARP packet for IPv4 over Ethernet.
	Src, Dst netip.Addr
	// ARPOp is valid iff EthType is ARP and Src is valid: 1 request, 2 reply.
	ARPOp uint16
	// Proto is valid iff IPVersion is not 0: the protocol behind all extension headers that could be read.
	Proto uint8
	TTL   uint8 // TTL or hop limit; valid iff IPVersion is not 0
	// Fragment: the packet is a part of a larger one. FragOffset is in bytes; only the first part (offset 0) has ports.
	Fragment   bool
	FragOffset uint16

	// HasPorts: SrcPort and DstPort are valid (TCP, UDP, SCTP).
	HasPorts         bool
	SrcPort, DstPort uint16
	TCPFlags         uint16 // valid iff HasPorts and Proto is TCP
	// PayloadAt and PayloadLen say where in the frame the payload of TCP or UDP lies, as much of it as was read; 0, 0 = there is none.
	PayloadAt, PayloadLen int
	// HasICMP: ICMPType and ICMPCode are valid (ICMP, ICMPv6).
	HasICMP            bool
	ICMPType, ICMPCode uint8
	ICMPID             uint16 // the identifier of an echo request or reply
}

// CommunityID is the Community ID v1 of the packet with seed 0, or "" when it is no IP packet.
func (p *Parsed) CommunityID() string {
	if p.IPVersion == 0 || !p.Src.IsValid() {
		return ""
	}
	a, b := p.SrcPort, p.DstPort
	if p.HasICMP {
		a, b = uint16(p.ICMPType), uint16(p.ICMPCode)
	}
	return CommunityID(0, p.Proto, p.Src, p.Dst, a, b)
}
