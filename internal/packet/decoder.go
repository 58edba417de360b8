package packet

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

const maxErr = 120

var errMissing = errors.New("the header is missing")

// Decoder reads frames. It is reused for frame after frame by one goroutine; it is not safe for concurrent use. Make one with
// NewDecoder.
type Decoder struct {
	parser  *gopacket.DecodingLayerParser
	decoded []gopacket.LayerType
	at      Layer // the layer whose turn it is

	eth      ethernetLayer
	vlan     vlanLayer
	arp      arpLayer
	ip4      ipv4Layer
	ip6      ipv6Layer
	ext      extensionLayer
	fragment fragmentLayer
	tcp      tcpLayer
	udp      udpLayer
	sctp     sctpLayer
	icmp     icmpLayer
	icmpv6   icmpv6Layer
}

// NewDecoder makes a decoder; it takes a few kilobytes.
func NewDecoder() *Decoder {
	d := &Decoder{decoded: make([]gopacket.LayerType, 0, 16)}
	d.parser = gopacket.NewDecodingLayerParser(layers.LayerTypeEthernet)
	d.parser.IgnoreUnsupported = true
	for _, at := range []**Layer{
		&d.eth.at, &d.vlan.at, &d.arp.at, &d.ip4.at, &d.ip6.at, &d.ext.at, &d.fragment.at,
		&d.tcp.at, &d.udp.at, &d.sctp.at, &d.icmp.at, &d.icmpv6.at,
	} {
		*at = &d.at
	}
	// An array is searched faster than a map for so few layers. The fragment layer comes after the skipper, whose place it takes.
	c := gopacket.DecodingLayerContainer(gopacket.DecodingLayerArray(nil))
	for _, l := range []gopacket.DecodingLayer{
		&d.eth, &d.ip4, &d.tcp, &d.udp, &d.ip6, &d.arp, &d.vlan, &d.icmp, &d.icmpv6, &d.sctp, &d.ext, &d.fragment,
	} {
		c = c.Put(l)
	}
	d.parser.SetDecodingLayerContainer(c)
	return d
}

// Decode reads the first MaxBytes of data, a frame that had wireLen bytes (0 = len(data)), into p, all of whose fields it sets.
// It never panics and keeps no reference to data after it returns: neither in p nor, in a way that is read again, in d.
func (d *Decoder) Decode(data []byte, wireLen int, p *Parsed) {
	if wireLen < len(data) {
		wireLen = len(data)
	}
	if len(data) > MaxBytes {
		data = data[:MaxBytes]
	}
	*p = Parsed{Length: wireLen, Status: StatusOK}
	d.at, d.decoded = LayerEthernet, d.decoded[:0]
	d.eth.seen, d.arp.seen, d.ip4.seen, d.ip6.seen = false, false, false, false
	d.vlan.depth = 0
	d.ext.seen, d.fragment.seen = false, false
	d.tcp.seen, d.udp.seen, d.sctp.seen, d.icmp.seen, d.icmpv6.seen = false, false, false, false, false

	err := d.parse(data)
	p.Truncated = d.parser.Truncated || wireLen > len(data)
	d.link(p)
	d.network(p)
	d.transport(p)
	d.judge(p, err)
	d.payload(data, p)
}

// payload finds what the transport carries. All that the layers hand on are parts of data, up to its end or before.
func (d *Decoder) payload(data []byte, p *Parsed) {
	var b []byte
	switch {
	case p.Status != StatusOK || !p.HasPorts:
	case p.Proto == ProtoTCP:
		b = d.tcp.LayerPayload()
	case p.Proto == ProtoUDP:
		b = d.udp.LayerPayload()
	}
	if len(b) > 0 {
		p.PayloadAt, p.PayloadLen = cap(data)-cap(b), len(b)
	}
}

// parse runs the parser. gopacket turns panics into errors already; the guard here is for a version of it that does not.
func (d *Decoder) parse(data []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return d.parser.DecodeLayers(data, &d.decoded)
}

func (d *Decoder) link(p *Parsed) {
	if !d.eth.seen {
		return
	}
	p.HasEthernet = true
	copy(p.EthSrc[:], d.eth.SrcMAC)
	copy(p.EthDst[:], d.eth.DstMAC)
	t := d.eth.EthernetType
	if d.vlan.depth > 0 {
		p.VLANs, p.VLAN = d.vlan.depth, d.vlan.outer
		t = d.vlan.Type
	}
	if t >= 0x600 {
		p.EthType = uint16(t)
	}
}

func (d *Decoder) network(p *Parsed) {
	switch {
	case d.arp.seen:
		if len(d.arp.SourceProtAddress) == 4 && len(d.arp.DstProtAddress) == 4 {
			p.Src = netip.AddrFrom4([4]byte(d.arp.SourceProtAddress))
			p.Dst = netip.AddrFrom4([4]byte(d.arp.DstProtAddress))
			p.ARPOp = d.arp.Operation
		}
	case d.ip4.seen:
		ip := &d.ip4
		p.IPVersion = 4
		p.Src, p.Dst = netip.AddrFrom4([4]byte(ip.SrcIP)), netip.AddrFrom4([4]byte(ip.DstIP))
		p.Proto, p.TTL = uint8(ip.Protocol), ip.TTL
		p.Fragment = ip.FragOffset != 0 || ip.Flags&layers.IPv4MoreFragments != 0
		p.FragOffset = ip.FragOffset * 8
	case d.ip6.seen:
		ip := &d.ip6
		p.IPVersion = 6
		p.Src, p.Dst = netip.AddrFrom16([16]byte(ip.SrcIP)), netip.AddrFrom16([16]byte(ip.DstIP))
		p.TTL = ip.HopLimit
		p.Proto = uint8(d.upper())
		if d.fragment.seen {
			p.Fragment = d.fragment.FragmentOffset != 0 || d.fragment.MoreFragments
			p.FragOffset = d.fragment.FragmentOffset * 8
		}
	}
}

// upper is the protocol behind the last IPv6 extension header that was read.
func (d *Decoder) upper() layers.IPProtocol {
	for i := len(d.decoded) - 1; i >= 0; i-- {
		switch d.decoded[i] {
		case layers.LayerTypeIPv6Fragment:
			return d.fragment.NextHeader
		case layers.LayerTypeIPv6HopByHop, layers.LayerTypeIPv6Routing, layers.LayerTypeIPv6Destination:
			return d.ext.NextHeader
		}
	}
	return d.ip6.next()
}

func (d *Decoder) transport(p *Parsed) {
	switch {
	case d.tcp.seen:
		p.HasPorts, p.SrcPort, p.DstPort = true, uint16(d.tcp.SrcPort), uint16(d.tcp.DstPort)
		p.TCPFlags = d.tcp.flags()
	case d.udp.seen:
		p.HasPorts, p.SrcPort, p.DstPort = true, uint16(d.udp.SrcPort), uint16(d.udp.DstPort)
	case d.sctp.seen:
		p.HasPorts, p.SrcPort, p.DstPort = true, uint16(d.sctp.SrcPort), uint16(d.sctp.DstPort)
	case d.icmp.seen:
		p.HasICMP, p.ICMPType, p.ICMPCode = true, d.icmp.TypeCode.Type(), d.icmp.TypeCode.Code()
		if t := p.ICMPType; t == layers.ICMPv4TypeEchoRequest || t == layers.ICMPv4TypeEchoReply {
			p.ICMPID = d.icmp.Id
		}
	case d.icmpv6.seen:
		p.HasICMP, p.ICMPType, p.ICMPCode = true, d.icmpv6.TypeCode.Type(), d.icmpv6.TypeCode.Code()
		body := d.icmpv6.LayerPayload()
		if t := p.ICMPType; len(body) >= 2 && (t == layers.ICMPv6TypeEchoRequest || t == layers.ICMPv6TypeEchoReply) {
			p.ICMPID = uint16(body[0])<<8 | uint16(body[1])
		}
	}
}

// judge sets Status, Layer and Err.
func (d *Decoder) judge(p *Parsed, err error) {
	if err == nil {
		// The parser ends without an error where a header announced the next one and then the frame ends.
		if l := expected(p); l != LayerNone {
			err = errMissing
			p.Layer = l
		}
	} else {
		p.Layer = d.at
	}
	if err == nil {
		return
	}
	p.Status = StatusFailed
	if p.Src.IsValid() {
		p.Status = StatusPartial
	}
	p.Err = err.Error()
	if len(p.Err) > maxErr {
		p.Err = strings.ToValidUTF8(p.Err[:maxErr], "")
	}
}

// expected is the header that should have been read and was not.
func expected(p *Parsed) Layer {
	switch {
	case p.EthType == 0x8100 || p.EthType == 0x88a8:
		return LayerVLAN
	case p.EthType == EtherTypeARP && !p.Src.IsValid():
		// Also ARP that is not for IPv4 over Ethernet: nothing on an Ethernet uses it.
		return LayerARP
	case p.EthType == EtherTypeIPv4 && p.IPVersion == 0:
		return LayerIPv4
	case p.EthType == EtherTypeIPv6 && p.IPVersion == 0:
		return LayerIPv6
	case p.IPVersion == 0 || p.FragOffset != 0:
		return LayerNone
	case p.HasPorts || p.HasICMP:
		return LayerNone
	}
	switch {
	case p.Proto == ProtoTCP:
		return LayerTCP
	case p.Proto == ProtoUDP:
		return LayerUDP
	case p.Proto == ProtoSCTP:
		return LayerSCTP
	case p.Proto == ProtoICMP && p.IPVersion == 4:
		return LayerICMP
	case p.Proto == ProtoICMPv6 && p.IPVersion == 6:
		return LayerICMPv6
	case p.IPVersion == 6 && isExtension(p.Proto):
		return LayerIPv6Extension
	}
	return LayerNone
}

func isExtension(proto uint8) bool {
	switch layers.IPProtocol(proto) {
	case layers.IPProtocolIPv6HopByHop, layers.IPProtocolIPv6Routing, layers.IPProtocolIPv6Fragment, layers.IPProtocolIPv6Destination:
		return true
	default:
		return false
	}
}
