package tables

import (
	"encoding/binary"
	"net/netip"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// ctFields are those that ct() fills and ct_clear empties.
var ctFields = []flow.FieldID{
	flow.CtState, flow.CtZone, flow.CtMark, flow.CtLabel, flow.CtNwProto, flow.CtNwSrc, flow.CtNwDst, flow.CtIPv6Src, flow.CtIPv6Dst,
	flow.CtTpSrc, flow.CtTpDst,
}

// IP builds an untagged packet of IP; the zone in the tuple is ignored.
func IP(inPort uint32, dlSrc, dlDst uint64, t Tuple, tcpFlags uint16) Packet {
	p := Packet{
		flow.InPort: flow.U64(uint64(inPort)), flow.EthSrc: flow.U64(dlSrc), flow.EthDst: flow.U64(dlDst),
		flow.IPProto: flow.U64(uint64(t.Proto)),
	}
	if t.Src.Is4() {
		p[flow.EthType], p[flow.IPSrc], p[flow.IPDst] = flow.U64(0x0800), addr(t.Src), addr(t.Dst)
	} else {
		p[flow.EthType], p[flow.IPv6Src], p[flow.IPv6Dst] = flow.U64(0x86dd), addr(t.Src), addr(t.Dst)
	}
	switch t.Proto {
	case 6:
		p[flow.TCPSrc], p[flow.TCPDst], p[flow.TCPFlags] = flow.U64(uint64(t.SrcPort)), flow.U64(uint64(t.DstPort)), flow.U64(uint64(tcpFlags))
	case 17:
		p[flow.UDPSrc], p[flow.UDPDst] = flow.U64(uint64(t.SrcPort)), flow.U64(uint64(t.DstPort))
	case 132:
		p[flow.SCTPSrc], p[flow.SCTPDst] = flow.U64(uint64(t.SrcPort)), flow.U64(uint64(t.DstPort))
	case 1:
		p[flow.ICMPType], p[flow.ICMPCode] = flow.U64(uint64(t.Type)), flow.U64(uint64(t.Code))
	case 58:
		p[flow.ICMPv6Type], p[flow.ICMPv6Code] = flow.U64(uint64(t.Type)), flow.U64(uint64(t.Code))
	}
	return p
}

// Tag adds an 802.1Q header.
func (p Packet) Tag(vlan uint16) Packet {
	p[flow.VlanTCI] = flow.U64(uint64(vlan) | 0x1000)
	return p
}

// With sets one more field.
func (p Packet) With(f flow.FieldID, v flow.U128) Packet {
	p[f] = v
	return p
}

func addr(a netip.Addr) flow.U128 {
	if a.Is4() {
		b := a.As4()
		return flow.U64(uint64(binary.BigEndian.Uint32(b[:])))
	}
	b := a.As16()
	return flow.U128{Hi: binary.BigEndian.Uint64(b[:8]), Lo: binary.BigEndian.Uint64(b[8:])}
}

func toAddr(v flow.U128, v6 bool) netip.Addr {
	if v6 {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:8], v.Hi)
		binary.BigEndian.PutUint64(b[8:], v.Lo)
		return netip.AddrFrom16(b)
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(v.Lo))
	return netip.AddrFrom4(b)
}

// tuple reads the packet's headers. As in userspace conntrack, SCTP has no ports there.
func (w *walk) tuple(zone uint16) Tuple {
	num := func(f flow.FieldID) uint16 { return uint16(w.p[f].Lo) }
	t := Tuple{Zone: zone, Proto: uint8(w.p[flow.IPProto].Lo)}
	if w.p[flow.EthType].Lo == 0x86dd {
		t.Src, t.Dst = toAddr(w.p[flow.IPv6Src], true), toAddr(w.p[flow.IPv6Dst], true)
	} else {
		t.Src, t.Dst = toAddr(w.p[flow.IPSrc], false), toAddr(w.p[flow.IPDst], false)
	}
	switch t.Proto {
	case 6:
		t.SrcPort, t.DstPort = num(flow.TCPSrc), num(flow.TCPDst)
	case 17:
		t.SrcPort, t.DstPort = num(flow.UDPSrc), num(flow.UDPDst)
	case 1:
		t.Type, t.Code = uint8(num(flow.ICMPType)), uint8(num(flow.ICMPCode))
	case 58:
		t.Type, t.Code = uint8(num(flow.ICMPv6Type)), uint8(num(flow.ICMPv6Code))
	}
	return t
}

// relatedTo is set in a packet that is an ICMP error about a connection: 1 + 2*reply, with the connection found by its tuple.
const relatedTo = flow.FieldID(250)

// ErrorAbout marks p as an ICMP error about the connection whose original tuple the headers of the packet hold; reply says that it goes to
// the initiator.
func (p Packet) ErrorAbout(reply bool) Packet {
	v := uint64(1)
	if reply {
		v |= 2
	}
	p[relatedTo] = flow.U64(v)
	return p
}

func (w *walk) ct(a *flow.CT, depth int) {
	zone := a.Zone
	if a.ZoneSrc.Bits != 0 {
		zone = uint16(w.get(a.ZoneSrc).Lo)
	}
	t := w.tuple(zone)
	c := w.s.conns[t]
	related := w.p[relatedTo].Lo
	if a.Commit {
		if related != 0 {
			panic(fault("commit of an ICMP error"))
		}
		if a.Force && c != nil && t != c.Orig {
			delete(w.s.conns, t)
			delete(w.s.conns, t.Reversed())
			c = nil
		}
		if c == nil {
			c = &Conn{Orig: t}
			w.s.conns[t], w.s.conns[t.Reversed()] = c, c
		}
		for _, x := range a.Exec {
			switch x := x.(type) {
			case flow.Load:
				c.write(x.Dst, flow.U64(x.Value))
			case flow.Move:
				c.write(x.Dst, w.get(x.Src))
			default:
				panic(fault("exec of " + x.String()))
			}
		}
		w.r.Committed = c
	}
	if a.Table == flow.NoTable { // what conntrack knows is for the table alone
		for _, f := range ctFields {
			w.p[f] = flow.U128{}
		}
		return
	}
	state := uint64(flow.CtTrk)
	switch {
	case related != 0 && c == nil:
		state |= flow.CtInv
	case related != 0:
		state |= flow.CtRel
		if related&2 != 0 {
			state |= flow.CtRpl
		}
	case c == nil:
		state |= flow.CtNew
		c = &Conn{Orig: t}
	case t != c.Orig:
		state |= flow.CtEst | flow.CtRpl
		c.Replied = true
	case c.Replied:
		state |= flow.CtEst
	default:
		state |= flow.CtNew
	}
	w.p[flow.CtState], w.p[flow.CtZone] = flow.U64(state), flow.U64(uint64(zone))
	if c != nil {
		w.p[flow.CtMark], w.p[flow.CtLabel] = flow.U64(uint64(c.Mark)), c.Label
		if related == 0 { // OVS has no original tuple for related packets that are neither new nor established nor replies
			w.original(c.Orig)
		}
	}
	if w.s.Recirculates != nil {
		w.s.Recirculates()
	}
	w.table(a.Table, depth+1)
}

func (c *Conn) write(dst flow.SubField, v flow.U128) {
	switch dst.Field {
	case flow.CtMark:
		c.Mark = uint32(set(flow.U64(uint64(c.Mark)), dst, v).Lo)
	case flow.CtLabel:
		c.Label = set(c.Label, dst, v)
	default:
		panic(fault("exec writes elsewhere"))
	}
}

func (w *walk) original(t Tuple) {
	w.p[flow.CtNwProto] = flow.U64(uint64(t.Proto))
	if t.Src.Is4() {
		w.p[flow.CtNwSrc], w.p[flow.CtNwDst] = addr(t.Src), addr(t.Dst)
	} else {
		w.p[flow.CtIPv6Src], w.p[flow.CtIPv6Dst] = addr(t.Src), addr(t.Dst)
	}
	w.p[flow.CtTpSrc], w.p[flow.CtTpDst] = flow.U64(uint64(t.SrcPort)), flow.U64(uint64(t.DstPort))
	if t.Proto == 1 || t.Proto == 58 {
		w.p[flow.CtTpSrc], w.p[flow.CtTpDst] = flow.U64(uint64(t.Type)), flow.U64(uint64(t.Code))
	}
}
