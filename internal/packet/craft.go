package packet

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// First says what the first packet of a connection looks like.
type First struct {
	SrcMAC, DstMAC   net.HardwareAddr
	VLAN             uint16     // of the tag; 0 = none
	Src, Dst         netip.Addr // of one family
	Proto            uint8
	SrcPort, DstPort uint16 // TCP, UDP and SCTP
	Type, Code       uint8  // ICMP and ICMPv6
}

// Frame returns the packet: a SYN of TCP, an empty datagram of UDP, a message of ICMP with an identifier, else some bytes. It fails on
// addresses of different families.
func (f *First) Frame() ([]byte, error) {
	if f.Src.Is4() != f.Dst.Is4() {
		return nil, fmt.Errorf("%v and %v are of different families", f.Src, f.Dst)
	}
	ether, proto := layers.EthernetTypeIPv4, layers.IPProtocol(f.Proto)
	var network interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	} = &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: f.Src.AsSlice(), DstIP: f.Dst.AsSlice()}
	if f.Src.Is6() {
		ether = layers.EthernetTypeIPv6
		network = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: f.Src.AsSlice(), DstIP: f.Dst.AsSlice()}
	}
	eth := &layers.Ethernet{SrcMAC: f.SrcMAC, DstMAC: f.DstMAC, EthernetType: ether}
	stack := []gopacket.SerializableLayer{eth}
	if f.VLAN != 0 {
		eth.EthernetType = layers.EthernetTypeDot1Q
		stack = append(stack, &layers.Dot1Q{VLANIdentifier: f.VLAN, Type: ether})
	}
	upper, err := f.upper(network)
	if err != nil {
		return nil, err
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		append(append(stack, network), upper...)...); err != nil {
		return nil, err
	}
	frame := buf.Bytes()
	if n := minFrame - len(frame); n > 0 {
		frame = append(frame, make([]byte, n)...)
	}
	return frame, nil
}

// minFrame is that of Ethernet without its checksum.
const minFrame = 60

func (f *First) upper(network gopacket.NetworkLayer) ([]gopacket.SerializableLayer, error) {
	switch f.Proto {
	case ProtoTCP:
		seg := &layers.TCP{SrcPort: layers.TCPPort(f.SrcPort), DstPort: layers.TCPPort(f.DstPort), Seq: 1, Window: 65535, SYN: true}
		return []gopacket.SerializableLayer{seg}, seg.SetNetworkLayerForChecksum(network)
	case ProtoUDP:
		datagram := &layers.UDP{SrcPort: layers.UDPPort(f.SrcPort), DstPort: layers.UDPPort(f.DstPort)}
		return []gopacket.SerializableLayer{datagram}, datagram.SetNetworkLayerForChecksum(network)
	case ProtoSCTP:
		init := []byte{1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1} // RFC 9260 §3.3.2
		return []gopacket.SerializableLayer{&layers.SCTP{SrcPort: layers.SCTPPort(f.SrcPort), DstPort: layers.SCTPPort(f.DstPort)},
			gopacket.Payload(init)}, nil
	case ProtoICMP:
		return []gopacket.SerializableLayer{&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(f.Type, f.Code), Id: 1},
			gopacket.Payload(make([]byte, 16))}, nil
	case ProtoICMPv6:
		m := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(f.Type, f.Code)}
		return []gopacket.SerializableLayer{m, &layers.ICMPv6Echo{Identifier: 1}, gopacket.Payload(make([]byte, 16))},
			m.SetNetworkLayerForChecksum(network)
	}
	return []gopacket.SerializableLayer{gopacket.Payload(make([]byte, 16))}, nil
}
