package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// EtherTypes and IP protocols that the pipeline names.
const (
	EthIPv4 = 0x0800
	EthARP  = 0x0806
	EthIPv6 = 0x86dd

	ProtoICMP   = 1
	ProtoIGMP   = 2
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
	ProtoSCTP   = 132
)

// stackedTags are the EtherTypes that a frame with one more VLAN tag than OVS looks behind has: those that Linux strips.
var stackedTags = [...]uint64{0x8100, 0x88a8}

// vlanPresent is the CFI bit of vlan_tci, which OVS uses as "there is a tag" (ovs-fields(7)).
const vlanPresent = 0x1000

// groupBit is the bit of a MAC address that makes it a multicast or broadcast address.
const groupBit = 1 << 40

// NoVLAN, Untagged and Tagged build the matches of SOURCE. NoVLAN is for frames from port without a tag and for those whose tag names no
// VLAN (IEEE 802.1Q priority tag).
func NoVLAN(port uint32) flow.Match {
	return flow.Match{}.With(flow.InPort, flow.U64(uint64(port))).WithMasked(flow.VlanTCI, flow.U128{}, flow.U64(0xfff))
}

// Untagged matches frames without a tag from port.
func Untagged(port uint32) flow.Match {
	return flow.Match{}.With(flow.InPort, flow.U64(uint64(port))).WithMasked(flow.VlanTCI, flow.U128{}, flow.U64(vlanPresent))
}

// Tagged matches frames with a VLAN tag from port.
func Tagged(port uint32) flow.Match {
	return flow.Match{}.With(flow.InPort, flow.U64(uint64(port))).WithMasked(flow.VlanTCI, flow.U64(vlanPresent), flow.U64(vlanPresent))
}

// LoadTag returns the actions that build the zone of a tagged packet on the bridge with index k, 0 ≤ k < MaxBridges.
func LoadTag(k int) []flow.Action {
	return []flow.Action{
		flow.Move{Src: sub(flow.VlanTCI, 0, 12), Dst: ZoneVLAN.SubField},
		ZoneBridge.Load(uint64(ZoneBase(k) >> 12)),
	}
}

// CtState matches the bits of mask in ct_state; +trk always belongs to it.
func CtState(m flow.Match, value, mask uint64) flow.Match {
	return m.WithMasked(flow.CtState, flow.U64(value|flow.CtTrk), flow.U64(mask|flow.CtTrk))
}

func etherType(t uint64) flow.Match { return flow.Match{}.With(flow.EthType, flow.U64(t)) }

func ipProto(ether, proto uint64) flow.Match {
	return etherType(ether).With(flow.IPProto, flow.U64(proto))
}

func icmpv6(t uint64) flow.Match {
	return ipProto(EthIPv6, ProtoICMPv6).With(flow.ICMPv6Type, flow.U64(t))
}

func udp(ether, src, dst uint64) flow.Match {
	return ipProto(ether, ProtoUDP).With(flow.UDPSrc, flow.U64(src)).With(flow.UDPDst, flow.U64(dst))
}

func group(ether uint64) flow.Match {
	return etherType(ether).WithMasked(flow.EthDst, flow.U64(groupBit), flow.U64(groupBit))
}

// Flags of TCP (RFC 9293 §3.1).
const (
	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpRST = 0x04
	tcpPSH = 0x08
	tcpACK = 0x10
)

// tcpWithoutSYN matches TCP with the SYN flag clear.
func tcpWithoutSYN(ether uint64) flow.Match {
	return ipProto(ether, ProtoTCP).WithMasked(flow.TCPFlags, flow.U128{}, flow.U64(tcpSYN))
}
