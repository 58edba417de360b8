package packet

import (
	"errors"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// The layers below wrap gopacket's for three reasons: each notes in at that its turn came and in seen that its header was read,
// which the list of decoded layers does not tell of a header that fails in its options; NextLayerType names only what this package
// reads, so that a tunnel never overwrites the headers outside of it; and the first part of a fragmented packet is read on.

var (
	errVersion4 = errors.New("version is not 4")
	errVersion6 = errors.New("version is not 6")
)

type ethernetLayer struct {
	layers.Ethernet
	at   *Layer
	seen bool
}

func (l *ethernetLayer) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	*l.at = LayerEthernet
	err := l.Ethernet.DecodeFromBytes(data, df)
	l.seen = err == nil
	return err
}

func (l *ethernetLayer) NextLayerType() gopacket.LayerType { return etherNext(l.EthernetType) }

type vlanLayer struct {
	layers.Dot1Q
	at    *Layer
	depth int
	outer uint16
}

func (l *vlanLayer) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	*l.at = LayerVLAN
	if err := l.Dot1Q.DecodeFromBytes(data, df); err != nil {
		return err
	}
	if l.depth == 0 {
		l.outer = l.VLANIdentifier
	}
	l.depth++
	return nil
}

func (l *vlanLayer) NextLayerType() gopacket.LayerType { return etherNext(l.Type) }

type arpLayer struct {
	layers.ARP
	at   *Layer
	seen bool
}

func (l *arpLayer) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	*l.at = LayerARP
	err := l.ARP.DecodeFromBytes(data, df)
	l.seen = err == nil
	return err
}

func (l *arpLayer) NextLayerType() gopacket.LayerType { return gopacket.LayerTypeZero }

type ipv4Layer struct {
	layers.IPv4
	at   *Layer
	seen bool
}

func (l *ipv4Layer) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	*l.at = LayerIPv4
	if len(data) > 0 && data[0]>>4 != 4 {
		return errVersion4 // gopacket takes the EtherType's word for it
	}
	err := l.IPv4.DecodeFromBytes(data, df)
	l.seen = err == nil
	return err
}

func (l *ipv4Layer) NextLayerType() gopacket.LayerType {
	if l.FragOffset != 0 {
		return gopacket.LayerTypeZero
	}
	if l.Protocol == layers.IPProtocolICMPv4 {
		return layers.LayerTypeICMPv4
	}
	return transportNext(l.Protocol)
}

type ipv6Layer struct {
	layers.IPv6
	at   *Layer
	seen bool // the fixed header was read, though an extension in it may not be
}

func (l *ipv6Layer) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	*l.at = LayerIPv6
	if len(data) > 0 && data[0]>>4 != 6 {
		return errVersion6
	}
	err := l.IPv6.DecodeFromBytes(data, df)
	l.seen = len(data) >= 40
	if err != nil && l.seen && l.NextHeader == layers.IPProtocolIPv6HopByHop {
		*l.at = LayerIPv6Extension // gopacket reads the hop-by-hop options with the fixed header
	}
	return err
}

// next is the protocol behind the fixed header and the hop-by-hop options, which gopacket reads with it.
func (l *ipv6Layer) next() layers.IPProtocol {
	if l.HopByHop != nil {
		return l.HopByHop.NextHeader
	}
	return l.NextHeader
}

func (l *ipv6Layer) NextLayerType() gopacket.LayerType { return ipv6Next(l.next()) }

type extensionLayer struct {
	layers.IPv6ExtensionSkipper
	at   *Layer
	seen bool
}

func (l *extensionLayer) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	*l.at = LayerIPv6Extension
	err := l.IPv6ExtensionSkipper.DecodeFromBytes(data, df)
	l.seen = l.seen || err == nil
	return err
}

func (l *extensionLayer) NextLayerType() gopacket.LayerType { return ipv6Next(l.NextHeader) }

// fragmentLayer stands in for the skipper, which would take the reserved byte for a length and read on in the middle of a packet.
type fragmentLayer struct {
	layers.IPv6Fragment
	at   *Layer
	seen bool
}

func (l *fragmentLayer) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	*l.at = LayerIPv6Extension
	err := l.IPv6Fragment.DecodeFromBytes(data, df)
	l.seen = err == nil
	return err
}

func (l *fragmentLayer) NextLayerType() gopacket.LayerType {
	if l.FragmentOffset != 0 {
		return gopacket.LayerTypeZero
	}
	return ipv6Next(l.NextHeader)
}

type tcpLayer struct {
	layers.TCP
	at   *Layer
	seen bool // ports and flags were read, though the options may be bad
}

func (l *tcpLayer) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	*l.at = LayerTCP
	err := l.TCP.DecodeFromBytes(data, df)
	l.seen = len(data) >= 20
	return err
}

func (l *tcpLayer) NextLayerType() gopacket.LayerType { return gopacket.LayerTypeZero }

func (l *tcpLayer) flags() uint16 {
	var f uint16
	for i, on := range [...]bool{l.FIN, l.SYN, l.RST, l.PSH, l.ACK, l.URG, l.ECE, l.CWR, l.NS} {
		if on {
			f |= 1 << i
		}
	}
	return f
}

type udpLayer struct {
	layers.UDP
	at   *Layer
	seen bool
}

func (l *udpLayer) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	*l.at = LayerUDP
	err := l.UDP.DecodeFromBytes(data, df)
	l.seen = len(data) >= 8
	return err
}

func (l *udpLayer) NextLayerType() gopacket.LayerType { return gopacket.LayerTypeZero }

type sctpLayer struct {
	layers.SCTP
	at   *Layer
	seen bool
}

func (l *sctpLayer) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	*l.at = LayerSCTP
	err := l.SCTP.DecodeFromBytes(data, df)
	l.seen = err == nil
	return err
}

func (l *sctpLayer) NextLayerType() gopacket.LayerType { return gopacket.LayerTypeZero }

type icmpLayer struct {
	layers.ICMPv4
	at   *Layer
	seen bool
}

func (l *icmpLayer) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	*l.at = LayerICMP
	err := l.ICMPv4.DecodeFromBytes(data, df)
	l.seen = err == nil
	return err
}

func (l *icmpLayer) NextLayerType() gopacket.LayerType { return gopacket.LayerTypeZero }

type icmpv6Layer struct {
	layers.ICMPv6
	at   *Layer
	seen bool
}

func (l *icmpv6Layer) DecodeFromBytes(data []byte, df gopacket.DecodeFeedback) error {
	*l.at = LayerICMPv6
	err := l.ICMPv6.DecodeFromBytes(data, df)
	l.seen = err == nil
	return err
}

func (l *icmpv6Layer) NextLayerType() gopacket.LayerType { return gopacket.LayerTypeZero }

// etherNext names what follows an EtherType. LayerTypeZero ends the decode.
func etherNext(t layers.EthernetType) gopacket.LayerType {
	switch t {
	case layers.EthernetTypeIPv4:
		return layers.LayerTypeIPv4
	case layers.EthernetTypeIPv6:
		return layers.LayerTypeIPv6
	case layers.EthernetTypeARP:
		return layers.LayerTypeARP
	case layers.EthernetTypeDot1Q, layers.EthernetTypeQinQ:
		return layers.LayerTypeDot1Q
	default:
		return gopacket.LayerTypeZero
	}
}

func ipv6Next(p layers.IPProtocol) gopacket.LayerType {
	switch p {
	case layers.IPProtocolIPv6HopByHop:
		return layers.LayerTypeIPv6HopByHop
	case layers.IPProtocolIPv6Routing:
		return layers.LayerTypeIPv6Routing
	case layers.IPProtocolIPv6Fragment:
		return layers.LayerTypeIPv6Fragment
	case layers.IPProtocolIPv6Destination:
		return layers.LayerTypeIPv6Destination
	case layers.IPProtocolICMPv6:
		return layers.LayerTypeICMPv6
	default:
		return transportNext(p)
	}
}

func transportNext(p layers.IPProtocol) gopacket.LayerType {
	switch p {
	case layers.IPProtocolTCP:
		return layers.LayerTypeTCP
	case layers.IPProtocolUDP:
		return layers.LayerTypeUDP
	case layers.IPProtocolSCTP:
		return layers.LayerTypeSCTP
	default:
		return gopacket.LayerTypeZero
	}
}
