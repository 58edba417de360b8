package ofp_test

import (
	"fmt"
	"net/netip"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// term is a short way to write terms in tables.
func term(f flow.FieldID, v uint64) flow.Term {
	return flow.Term{Field: f, Value: flow.U64(v), Mask: flow.Ones(f.Bits())}
}

func masked(f flow.FieldID, v, m uint64) flow.Term {
	return flow.Term{Field: f, Value: flow.U64(v & m), Mask: flow.U64(m)}
}

func wide(f flow.FieldID, hi, lo uint64) flow.Term {
	return flow.Term{Field: f, Value: flow.U128{Hi: hi, Lo: lo}, Mask: flow.Ones(128)}
}

func wideMasked(f flow.FieldID, hi, lo, mhi, mlo uint64) flow.Term {
	return flow.Term{Field: f, Value: flow.U128{Hi: hi & mhi, Lo: lo & mlo}, Mask: flow.U128{Hi: mhi, Lo: mlo}}
}

func match(ts ...flow.Term) flow.Match {
	var m flow.Match
	for _, t := range ts {
		m = m.WithMasked(t.Field, t.Value, t.Mask)
	}
	return m
}

func sub(f flow.FieldID, ofs, bits uint16) flow.SubField {
	return flow.SubField{Field: f, Ofs: ofs, Bits: bits}
}

func set(f flow.FieldID, v uint64) flow.SetField { return flow.SetField(term(f, v)) }

// matches covers every field, exact and with each kind of mask, at values that no other field has.
func matches() []flow.Match {
	ip := func(ts ...flow.Term) flow.Match { return match(append(ts, term(flow.EthType, 0x800))...) }
	ip6 := func(ts ...flow.Term) flow.Match { return match(append(ts, term(flow.EthType, 0x86dd))...) }
	arp := func(ts ...flow.Term) flow.Match { return match(append(ts, term(flow.EthType, 0x806))...) }
	mpls := func(ts ...flow.Term) flow.Match { return match(append(ts, term(flow.EthType, 0x8847))...) }
	proto := func(p uint64, ts ...flow.Term) flow.Match { return ip(append(ts, term(flow.IPProto, p))...) }
	proto6 := func(p uint64, ts ...flow.Term) flow.Match { return ip6(append(ts, term(flow.IPProto, p))...) }
	ct := func(ts ...flow.Term) flow.Match { return ip(append(ts, masked(flow.CtState, 0x22, 0x22))...) }
	ct6 := func(ts ...flow.Term) flow.Match { return ip6(append(ts, masked(flow.CtState, 0x22, 0x22))...) }
	ns := func(ts ...flow.Term) flow.Match {
		return proto6(58, append(ts, term(flow.ICMPv6Type, 135), term(flow.ICMPv6Code, 0))...)
	}
	na := func(ts ...flow.Term) flow.Match {
		return proto6(58, append(ts, term(flow.ICMPv6Type, 136), term(flow.ICMPv6Code, 0))...)
	}
	out := []flow.Match{
		nil,
		match(term(flow.InPort, 7)), match(term(flow.InPort, uint64(flow.PortLocal))),
		match(term(flow.PktMark, 0x11)), match(masked(flow.PktMark, 0x1200, 0xff00)),
		match(term(flow.ConjID, 77)),
		match(term(flow.Metadata, 0x1234567890abcdef)), match(masked(flow.Metadata, 0x5500, 0xff00)),
		match(term(flow.TunID, 0x10001)), match(masked(flow.TunID, 0x30, 0xf0)),
		match(term(flow.TunSrc, 0xc0000201)), match(masked(flow.TunSrc, 0xc0000300, 0xffffff00)),
		match(term(flow.TunDst, 0xc0000202)), match(masked(flow.TunDst, 0xc0000400, 0xffffff00)),
		match(wide(flow.TunIPv6Src, 0x20010db800000000, 1)), match(wideMasked(flow.TunIPv6Src, 0x20010db800000001, 0, ^uint64(0), 0)),
		match(wide(flow.TunIPv6Dst, 0x20010db800000000, 2)), match(wideMasked(flow.TunIPv6Dst, 0x20010db800000002, 0, ^uint64(0), 0)),
		match(term(flow.TunFlags, 1)), match(term(flow.TunFlags, 0)),
		match(term(flow.TunGBPID, 0x21)), match(masked(flow.TunGBPID, 0x300, 0xff00)),
		match(term(flow.TunGBPFlags, 0x40)),
		match(term(flow.CtState, 0x21)), match(masked(flow.CtState, 0x2a, 0x2e)), match(masked(flow.CtState, 0x20, 0x21),
			term(flow.CtZone, 0xfff0)),
		match(term(flow.CtMark, 0x31)), match(masked(flow.CtMark, 0x4, 0x7)),
		match(wide(flow.CtLabel, 0x0102030405060708, 0x090a0b0c0d0e0f10)), match(wideMasked(flow.CtLabel, 0x5<<32, 0, 0xffffffff<<32, 0)),
		ct(term(flow.CtNwProto, 6)),
		ct(term(flow.CtNwSrc, 0x0a000001)), ct(masked(flow.CtNwSrc, 0x0a010000, 0xffff0000)),
		ct(term(flow.CtNwDst, 0x0a000002)), ct(masked(flow.CtNwDst, 0x0a020000, 0xffff0000)),
		ct6(wide(flow.CtIPv6Src, 0xfd00000000000000, 3)), ct6(wideMasked(flow.CtIPv6Src, 0xfd01<<48, 0, 0xffff<<48, 0)),
		ct6(wide(flow.CtIPv6Dst, 0xfd00000000000000, 4)), ct6(wideMasked(flow.CtIPv6Dst, 0xfd02<<48, 0, 0xffff<<48, 0)),
		ct(term(flow.CtNwProto, 6), term(flow.CtTpSrc, 1025)), ct(term(flow.CtNwProto, 17), masked(flow.CtTpSrc, 0x400, 0xff00)),
		ct(term(flow.CtNwProto, 6), term(flow.CtTpDst, 1026)), ct(term(flow.CtNwProto, 17), masked(flow.CtTpDst, 0x500, 0xff00)),
		match(term(flow.EthSrc, 0x0200000000a1)), match(masked(flow.EthSrc, 0x010000000000, 0x010000000000)),
		match(term(flow.EthDst, 0x0200000000a2)), match(masked(flow.EthDst, 0x0200000000a3, 0xffffffffff00)),
		match(term(flow.EthType, 0x88cc)),
		match(term(flow.VlanVID, 0x1064)), match(masked(flow.VlanVID, 0x1000, 0x1000)), match(term(flow.VlanVID, 0)),
		match(masked(flow.VlanVID, 0x1010, 0x1ff0)),
		match(term(flow.VlanVID, 0x1065), term(flow.VlanPCP, 5)),
		mpls(term(flow.MPLSLabel, 0x54321)), mpls(term(flow.MPLSTC, 6)), mpls(term(flow.MPLSBOS, 1)),
		ip(term(flow.IPSrc, 0xc0a80101)), ip(masked(flow.IPSrc, 0xc0a80200, 0xffffff00)), ip(masked(flow.IPSrc, 0xc0000001, 0xff0000ff)),
		ip(term(flow.IPDst, 0xc0a80102)), ip(masked(flow.IPDst, 0xc0a80300, 0xffffff00)),
		ip6(wide(flow.IPv6Src, 0xfd10<<48, 5)), ip6(wideMasked(flow.IPv6Src, 0xfd11<<48, 0, ^uint64(0), 0)),
		ip6(wide(flow.IPv6Dst, 0xfd10<<48, 6)), ip6(wideMasked(flow.IPv6Dst, 0xfd12<<48, 0, ^uint64(0), 0)),
		ip6(term(flow.IPv6Label, 0x12345)), ip6(masked(flow.IPv6Label, 0x12000, 0xff000)),
		ip(term(flow.IPProto, 47)), ip(term(flow.IPDSCP, 46)), ip6(term(flow.IPDSCP, 10)), ip(term(flow.IPECN, 2)), ip(term(flow.IPTTL, 63)),
		ip(term(flow.IPFrag, 3)), ip(masked(flow.IPFrag, 0, 2)), ip(term(flow.IPFrag, 1)),
		arp(term(flow.ARPOp, 2)), arp(term(flow.ARPSpa, 0x0a000005)), arp(masked(flow.ARPSpa, 0x0a050000, 0xffff0000)),
		arp(term(flow.ARPTpa, 0x0a000006)), arp(term(flow.ARPSha, 0x0200000000b1)), arp(term(flow.ARPTha, 0x0200000000b2)),
		arp(masked(flow.ARPSha, 0x0200000000b3, 0xffffff000000)), arp(masked(flow.ARPTha, 0x0200000000b4, 0xffffff000000)),
		proto(6, term(flow.TCPSrc, 1001)), proto(6, masked(flow.TCPSrc, 0x2000, 0xe000)),
		proto(6, term(flow.TCPDst, 1002)), proto6(6, masked(flow.TCPDst, 0x1f40, 0xffc0)),
		proto(6, term(flow.TCPFlags, 0x012)), proto(6, masked(flow.TCPFlags, 0x002, 0x012)),
		proto(17, term(flow.UDPSrc, 1003)), proto(17, masked(flow.UDPSrc, 0x100, 0xff00)),
		proto(17, term(flow.UDPDst, 1004)), proto6(17, masked(flow.UDPDst, 0x200, 0xff00)),
		proto(132, term(flow.SCTPSrc, 1005)), proto(132, masked(flow.SCTPSrc, 0x300, 0xff00)),
		proto(132, term(flow.SCTPDst, 1006)), proto6(132, masked(flow.SCTPDst, 0x600, 0xff00)),
		proto(1, term(flow.ICMPType, 8)), proto(1, term(flow.ICMPType, 3), term(flow.ICMPCode, 4)),
		proto6(58, term(flow.ICMPv6Type, 128)), proto6(58, term(flow.ICMPv6Type, 1), term(flow.ICMPv6Code, 2)),
		ns(wide(flow.NDTarget, 0xfd20<<48, 7)), ns(wideMasked(flow.NDTarget, 0xfd21<<48, 0, 0xffff<<48, 0)),
		ns(term(flow.NDSll, 0x0200000000c1)), ns(masked(flow.NDSll, 0x0200000000c3, 0xffffff000000)),
		na(term(flow.NDTll, 0x0200000000c2)), na(masked(flow.NDTll, 0x0200000000c4, 0xffffff000000)),
		match(term(flow.ActsetOutput, 9)),
		match(term(flow.XReg1, 0x1111222233334444)), match(masked(flow.XReg3, 0xff00000000, 0xffff00000000)),
		match(wide(flow.XXReg2, 0x1, 0x2)), match(wideMasked(flow.XXReg0, 0x30, 0x40, 0xf0, 0xf0)),
		// Everything at once that a packet of the pipeline can have.
		ct(term(flow.InPort, 3), term(flow.Metadata, 1), term(flow.TunID, 2), masked(flow.CtMark, 1, 1), term(flow.CtZone, 5),
			wideMasked(flow.CtLabel, 1, 2, 0xff, 0xff), term(flow.CtNwProto, 6), term(flow.CtNwSrc, 1), term(flow.CtTpDst, 80),
			term(flow.Reg8, 8), masked(flow.Reg15, 0x150, 0xff0), term(flow.EthSrc, 1), term(flow.EthDst, 2), term(flow.VlanVID, 0x1002),
			term(flow.IPProto, 6), term(flow.IPSrc, 3), term(flow.IPDst, 4), term(flow.TCPDst, 80), masked(flow.TCPFlags, 2, 2)),
	}
	for n := range 8 {
		out = append(out, match(term(flow.XReg0+flow.FieldID(n), uint64(n)<<40+2)))
	}
	for n := range 4 {
		out = append(out, match(wide(flow.XXReg0+flow.FieldID(n), uint64(n)<<40+3, 4)))
	}
	for n := range 16 {
		out = append(out, match(term(flow.Reg(n), 0x100+uint64(n))), match(masked(flow.Reg(n), 1, 1)), match(masked(flow.Reg(n), 0, 0x10001)))
	}
	return out
}

// internalMatches are fields that a switch has but does not let a flow match on.
func internalMatches() []flow.Match {
	return []flow.Match{match(term(flow.RecircID, 41)), match(term(flow.DpHash, 42)), match(masked(flow.DpHash, 0x20, 0xf0))}
}

// reworded are matches that a switch reads back or prints in other words: vlan_tci, which OpenFlow 1.3 says with vlan_vid and
// vlan_pcp, and a masked tun_gbp_flags, of which ovs-ofctl prints the value alone.
func reworded() []flow.Match {
	return []flow.Match{
		match(term(flow.VlanTCI, 0x1064)), match(masked(flow.VlanTCI, 0x1000, 0x1000)),
		match(masked(flow.TunGBPFlags, 0x8, 0x8)), match(masked(flow.TunGBPFlags, 0, 0x8)),
	}
}

// erspan are matches whose masks Open vSwitch 3.1 gets wrong: it takes value AND mask for the mask of all these fields but
// the index.
func erspan() []flow.Match {
	return []flow.Match{
		match(term(flow.TunERSPANVer, 1), term(flow.TunERSPANIdx, 0x3a5)),
		match(term(flow.TunERSPANVer, 2), term(flow.TunERSPANDir, 1), term(flow.TunERSPANHWID, 0x2a)),
	}
}

type actionCase struct {
	match   flow.Match // what the actions need
	actions []flow.Action
}

// actions covers every action and instruction and the forms each has on the wire.
func actions() []actionCase {
	const all = flow.NoTable
	addr := netip.MustParseAddr
	one := func(a ...flow.Action) actionCase { return actionCase{nil, a} }
	tcp := match(term(flow.EthType, 0x800), term(flow.IPProto, 6))
	onTCP := func(a ...flow.Action) actionCase { return actionCase{tcp, a} }
	onTCP6 := func(a ...flow.Action) actionCase {
		return actionCase{match(term(flow.EthType, 0x86dd), term(flow.IPProto, 6)), a}
	}
	tracked := match(masked(flow.CtState, 0x22, 0x22), term(flow.EthType, 0x800))
	nat := func(n flow.NAT) actionCase { return onTCP(flow.CT{Commit: true, Table: 9, Zone: 3, NAT: &n}) }
	nat6 := func(n flow.NAT) actionCase { return onTCP6(flow.CT{Commit: true, Table: 9, Zone: 3, NAT: &n}) }
	var userdata [60]byte
	for i := range userdata {
		userdata[i] = byte(i)
	}
	return []actionCase{
		one(),
		one(flow.Output{Port: 1}), one(flow.Output{Port: 65000}), one(flow.Output{Port: flow.PortInPort}),
		one(flow.Output{Port: flow.PortNormal}),
		one(flow.Output{Port: flow.PortLocal}), one(flow.Output{Port: flow.PortFlood}), one(flow.Output{Port: flow.PortAll}),
		one(flow.Output{Port: flow.PortController, MaxLen: 128}),
		one(flow.OutputTrunc{Port: 5, MaxLen: 70000}), one(flow.OutputTrunc{Port: flow.PortLocal, MaxLen: 100}),
		one(flow.OutputReg{Src: sub(flow.Reg8, 0, 16)}), one(flow.OutputReg{Src: sub(flow.XXReg0, 64, 32), MaxLen: 9}),
		one(flow.Controller{MaxLen: 64, ID: 3, Reason: 1}), one(flow.Controller{MaxLen: 0xffff, Reason: 0}),
		one(flow.Controller{MaxLen: 0xffff, ID: 9, Reason: 2}),
		one(flow.Controller{MaxLen: 0xffff, Reason: 1, UserData: "\x01\x02\x03"}),
		one(flow.Controller{MaxLen: 128, ID: 7, Reason: 0, UserData: string(userdata[:]), Pause: true, MeterID: 1}),
		one(flow.Controller{MaxLen: 0xffff, Reason: 1, Pause: true}), one(flow.Controller{MaxLen: 0xffff, Reason: 1, MeterID: 1}),
		one(flow.Group{ID: 1}),
		onTCP(set(flow.IPSrc, 0x0a0b0c0d)), onTCP(set(flow.TCPDst, 8080)), onTCP(set(flow.IPDSCP, 12)), onTCP(set(flow.IPECN, 1)),
		onTCP(set(flow.IPTTL, 9)),
		onTCP6(flow.SetField(wide(flow.IPv6Dst, 0xfd30<<48, 8))), onTCP6(flow.SetField(term(flow.IPv6Label, 0x54321))),
		one(set(flow.EthDst, 0x0200000000d1)), one(flow.SetField(masked(flow.EthSrc, 0x0200000000d2, 0xffff000000ff))),
		one(set(flow.Reg3, 0x33)), one(flow.SetField(masked(flow.Reg4, 0x40, 0xf0))), one(set(flow.TunID, 0x77)),
		one(set(flow.TunDst, 0xc0000209)),
		one(flow.SetField(wide(flow.TunIPv6Dst, 0x20010db8<<32, 9))), one(set(flow.Metadata, 0x88)), one(set(flow.PktMark, 0x99)),
		one(set(flow.XReg2, 0x1000000002)), one(flow.SetField(wideMasked(flow.XXReg1, 0x5, 0, 0xf, 0))),
		one(set(flow.TunERSPANIdx, 0x123), set(flow.TunERSPANVer, 1)),
		{match(masked(flow.VlanVID, 0x1000, 0x1000)), []flow.Action{set(flow.VlanVID, 0x1007), set(flow.VlanPCP, 3)}},
		{match(term(flow.EthType, 0x806)), []flow.Action{set(flow.ARPOp, 2), set(flow.ARPSpa, 0x01020304), set(flow.ARPTpa, 0x01020305),
			set(flow.ARPSha, 0x0200000000e1), set(flow.ARPTha, 0x0200000000e2)}},
		one(flow.Load{Dst: sub(flow.Reg9, 0, 32), Value: 0xffffffff}), one(flow.Load{Dst: sub(flow.Reg9, 4, 8), Value: 0xa5}),
		one(flow.Load{Dst: sub(flow.InPort, 0, 16), Value: 0}), one(flow.Load{Dst: sub(flow.Metadata, 0, 64), Value: 1 << 63}),
		one(flow.Load{Dst: sub(flow.XXReg3, 100, 28), Value: 0xabcdef}),
		one(flow.Move{Src: sub(flow.Reg0, 0, 16), Dst: sub(flow.Reg1, 16, 16)}), one(flow.Move{Src: sub(flow.InPort, 0, 16), Dst: sub(flow.Reg2,
			0, 16)}),
		one(flow.Move{Src: sub(flow.EthSrc, 0, 48), Dst: sub(flow.EthDst, 0, 48)}), one(flow.Move{Src: sub(flow.XXReg0, 0, 128),
			Dst: sub(flow.XXReg1, 0, 128)}),
		one(flow.Move{Src: sub(flow.TunERSPANIdx, 0, 20), Dst: sub(flow.Reg1, 0, 20)}),
		one(flow.Push{Src: sub(flow.Reg8, 0, 32)}, flow.Pop{Dst: sub(flow.Reg9, 0, 32)}), one(flow.Push{Src: sub(flow.CtLabel, 32, 32)},
			flow.Pop{Dst: sub(flow.XXReg3, 96, 32)}),
		one(flow.PushVLAN{EthType: 0x8100}, set(flow.VlanVID, 0x1009), flow.Output{Port: 2}),
		{match(masked(flow.VlanVID, 0x1000, 0x1000)), []flow.Action{flow.PopVLAN{}, flow.Output{Port: 2}}},
		onTCP(flow.DecTTL{}, flow.Output{Port: 2}),
		one(flow.SetQueue{ID: 4}, flow.Output{Port: 2}, flow.PopQueue{}),
		one(flow.Resubmit{Port: flow.PortInPort, Table: 22}), one(flow.Resubmit{Port: 4, Table: all}), one(flow.Resubmit{Port: 5, Table: 23}),
		one(flow.Resubmit{Port: flow.PortLocal, Table: 24}), {tracked, []flow.Action{flow.Resubmit{Port: flow.PortInPort, Table: 25, CT: true}}},
		onTCP(flow.CT{Table: all}), onTCP(flow.CT{Table: 3, Zone: 0xfff1}), onTCP(flow.CT{Table: 4, ZoneSrc: sub(flow.Reg10, 0, 16)}),
		onTCP(flow.CT{Commit: true, Table: all}), onTCP(flow.CT{Commit: true, Force: true, Table: 5, Zone: 6}),
		onTCP(flow.CT{Commit: true, Table: all, Alg: flow.AlgFTP}),
		onTCP(flow.CT{Table: 5, NAT: &flow.NAT{}}), nat(flow.NAT{Src: true}), nat(flow.NAT{Dst: true}),
		nat(flow.NAT{Src: true, AddrMin: addr("10.1.0.1")}), nat(flow.NAT{Src: true, AddrMin: addr("10.1.0.1"), AddrMax: addr("10.1.0.9")}),
		nat(flow.NAT{Dst: true, AddrMin: addr("10.1.0.1"), PortMin: 80}), nat(flow.NAT{Dst: true, AddrMin: addr("10.1.0.1"), PortMin: 80,
			PortMax: 90, Random: true}),
		nat(flow.NAT{Src: true, AddrMin: addr("10.1.0.1"), AddrMax: addr("10.1.0.9"), PortMin: 1024, PortMax: 2048, Persistent: true,
			Hash: true}),
		nat6(flow.NAT{Dst: true, AddrMin: addr("fd40::1"), AddrMax: addr("fd40::9"), PortMin: 1, PortMax: 2}),
		nat6(flow.NAT{Src: true, AddrMin: addr("fd40::1")}),
		onTCP(flow.CT{Commit: true, Table: all, Zone: 7, NAT: &flow.NAT{Src: true, AddrMin: addr("10.1.0.2")}, Exec: []flow.Action{
			flow.Load{Dst: sub(flow.CtMark, 0, 32), Value: 5}, flow.Load{Dst: sub(flow.CtLabel, 32, 32), Value: 6},
			set(flow.CtMark, 7), flow.SetField(masked(flow.CtMark, 0x8, 0xf)), flow.SetField(wideMasked(flow.CtLabel, 0x9<<32, 0, 0xffffffff<<32,
				0)),
			flow.Move{Src: sub(flow.Reg12, 0, 32), Dst: sub(flow.CtLabel, 0, 32)},
		}}),
		one(flow.CTClear{}, flow.Resubmit{Port: flow.PortInPort, Table: 0}),
		one(flow.Conjunction{ID: 0x1234, Clause: 1, N: 2}), one(flow.Conjunction{ID: 5, Clause: 3, N: 3}, flow.Conjunction{ID: 6, Clause: 2,
			N: 64}),
		one(flow.Clone{Actions: []flow.Action{set(flow.Reg0, 1), flow.Output{Port: 3},
			flow.Clone{Actions: []flow.Action{flow.Output{Port: 4}}}}}, flow.Output{Port: 5}),
		one(flow.Sample{Probability: 65535, CollectorSet: 1, ObsDomainID: 2, ObsPointID: 3, SamplingPort: flow.PortAny}),
		one(flow.Sample{Probability: 100, CollectorSet: 4, ObsDomainID: 5, ObsPointID: 6, SamplingPort: 7}),
		one(flow.Sample{Probability: 100, CollectorSet: 4, ObsDomainID: 5, ObsPointID: 6, SamplingPort: 7, Direction: 1}),
		one(flow.Sample{Probability: 100, CollectorSet: 4, ObsDomainID: 5, ObsPointID: 6, SamplingPort: flow.PortAny, Direction: 2}),
		one(flow.CheckPktLarger{Len: 1400, Dst: sub(flow.Reg0, 5, 1)}), one(flow.CheckPktLarger{Len: 99, Dst: sub(flow.XXReg0, 127, 1)}),
		one(flow.Multipath{Fields: flow.HashSymmetricL3L4, Links: 4, Dst: sub(flow.Reg2, 0, 32)}),
		one(flow.Multipath{Fields: flow.HashSymmetricL3L4UDP, Basis: 0x1234, Algorithm: flow.LinkHRW, Links: 65536, Arg: 0x12345678,
			Dst: sub(flow.Reg1, 3, 23)}),
		one(flow.Multipath{Fields: flow.HashSymmetricL3, Algorithm: flow.LinkIterHash, Links: 1, Dst: sub(flow.XXReg0, 5, 64)}),
		one(flow.Note{Data: "\x01\x02\x03\x04\x05\x06"}), one(flow.Note{Data: "\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e"}),
		one(flow.Meter{ID: 1}), one(flow.Meter{ID: 1}, flow.Output{Port: 1}), one(flow.ClearActions{}), one(flow.GotoTable{Table: 100}),
		one(flow.WriteActions{Actions: []flow.Action{set(flow.EthDst, 0x0200000000f1), flow.Output{Port: 6}}}),
		one(flow.WriteMetadata{Value: 0x10, Mask: 0xf0}),
		one(flow.WriteMetadata{Value: 0x1122334455667788, Mask: ^uint64(0)}),
		one(flow.Meter{ID: 1}, set(flow.Reg5, 5), flow.Output{Port: 7}, flow.ClearActions{},
			flow.WriteActions{Actions: []flow.Action{flow.Group{ID: 1}}},
			flow.WriteMetadata{Value: 3, Mask: 3}, flow.GotoTable{Table: 200}),
	}
}

// golden returns flows with all of matches and actions, each an entry of its own on a switch.
func golden() []flow.Flow {
	var fs []flow.Flow
	n := 0
	next := func() flow.Flow {
		n++
		return flow.Flow{Priority: uint16(1000 + n), Cookie: flow.Cookie(0x1000000000000000 + uint64(n)), Table: uint8(n % 90)}
	}
	for _, m := range matches() {
		f := next()
		f.Match, f.Actions = m, []flow.Action{flow.Output{Port: uint32(n)}}
		fs = append(fs, f)
	}
	for _, a := range actions() {
		f := next()
		f.Match, f.Actions = a.match, a.actions
		fs = append(fs, f)
	}
	f := next()
	f.IdleTimeout, f.HardTimeout, f.Flags = 301, 602, flow.SendFlowRem|flow.ResetCounts
	fs = append(fs, f)
	f = next()
	f.Flags = flow.CheckOverlap | flow.NoPktCounts | flow.NoBytCounts
	f.Match = match(term(flow.InPort, 99))
	return append(fs, f)
}

func label(f flow.Flow) string { return fmt.Sprintf("%v/%v", f.Match, f.Actions) }
