package flow_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// randomFlow draws a valid flow. Its fields and actions are those that every context allows plus those of one protocol.
func randomFlow(r *rand.Rand) flow.Flow {
	f := flow.Flow{Table: uint8(r.IntN(200)), Priority: uint16(r.IntN(65536)), Match: randomMatch(r)}
	if r.IntN(3) == 0 {
		f.Cookie = flow.Cookie(r.Uint64() >> r.IntN(64))
		f.IdleTimeout = uint16(r.IntN(3) * r.IntN(65536))
		f.HardTimeout = uint16(r.IntN(2) * r.IntN(65536))
		f.Flags = flow.Flags(r.IntN(32)) &^ flow.CheckOverlap
	}
	f.Actions = randomActions(r, f.Match, 2)
	if len(f.Actions) > 0 && isConjunction(f.Actions[0]) {
		return f
	}
	if r.IntN(8) == 0 {
		f.Actions = append([]flow.Action{flow.Meter{ID: 5}}, f.Actions...)
	}
	if r.IntN(8) == 0 {
		f.Actions = append(f.Actions, flow.GotoTable{Table: uint8(201 + r.IntN(54))})
	}
	return f
}

func random128(r *rand.Rand) flow.U128 {
	v := flow.U128{Hi: r.Uint64(), Lo: r.Uint64()}
	switch r.IntN(4) {
	case 0: // the forms that print specially: small numbers, gaps of zeros
		v = v.And(flow.Ones(r.IntN(129)))
	case 1:
		v.Hi &= r.Uint64() & 0xffff0000ffff0000
		v.Lo &= 0x0000ffff0000ffff
	}
	return v
}

// randomTerm draws a value and, where the field allows, a mask that is a prefix or has holes.
func randomTerm(r *rand.Rand, f flow.FieldID) flow.Term {
	all := flow.Ones(f.Bits())
	t := flow.Term{Field: f, Value: random128(r).And(all), Mask: all}
	if f.Maskable() {
		switch r.IntN(3) {
		case 0:
			t.Mask = all.And(flow.Ones(r.IntN(f.Bits())).Not())
		case 1:
			if f.Bits() == 128 {
				// ovs-ofctl prints an IPv6 mask that begins with a decimal digit but takes it for a prefix length
				// when it reads it back.
				t.Mask = random128(r).Or(flow.U128{Hi: 0xf << 60})
			} else if m := random128(r).And(all); !m.IsZero() {
				t.Mask = m
			}
		}
	}
	t.Value = t.Value.And(t.Mask)
	return t
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func randomMatch(r *rand.Rand) flow.Match {
	var m flow.Match
	some := func(fields ...flow.FieldID) {
		for _, f := range fields {
			if r.IntN(3) == 0 {
				t := randomTerm(r, f)
				m = m.WithMasked(f, t.Value, t.Mask)
			}
		}
	}
	some(pick(r, flow.PktMark, flow.Metadata, flow.TunID, flow.ConjID, flow.TunGBPID, flow.CtZone, flow.CtMark, flow.CtLabel),
		pick(r, flow.EthSrc, flow.EthDst), flow.Reg(r.IntN(16)), flow.Reg(r.IntN(16)), flow.XReg0+flow.FieldID(r.IntN(8)), flow.XXReg0+
			flow.FieldID(r.IntN(4)),
		pick(r, flow.TunSrc, flow.TunDst, flow.TunIPv6Src, flow.TunIPv6Dst, flow.TunFlags))
	for m.Validate() != nil { // registers that contradict wider ones
		for n := range 16 {
			m = m.WithMasked(flow.Reg(n), flow.U128{}, flow.U128{})
		}
		for f := flow.XXReg0; f <= flow.XXReg3; f++ {
			m = m.WithMasked(f, flow.U128{}, flow.U128{})
		}
	}
	if r.IntN(3) == 0 {
		m = m.With(flow.InPort, flow.U64(uint64(pick(r, 1, 65000, flow.PortLocal, flow.PortController))))
	}
	switch r.IntN(5) {
	case 0:
		m = m.With(flow.VlanVID, flow.U64(0x1000|r.Uint64N(4096)))
		some(flow.VlanPCP)
	case 1:
		some(flow.VlanVID)
	}
	if r.IntN(3) == 0 {
		some(flow.CtState)
	}
	switch r.IntN(8) {
	case 0:
		m = m.With(flow.EthType, flow.U64(flow.EthTypeARP))
		some(flow.ARPSpa, flow.ARPTpa, flow.ARPSha, flow.ARPTha)
		if r.IntN(2) == 0 {
			m = m.With(flow.ARPOp, flow.U64(r.Uint64N(256)))
		}
	case 1:
		m = m.With(flow.EthType, flow.U64(pick[uint64](r, 0x8847, 0x8848)))
		some(flow.MPLSLabel, flow.MPLSTC, flow.MPLSBOS)
	case 2:
	default:
		m = randomIP(r, m, some)
	}
	return m.Normalize()
}

func randomIP(r *rand.Rand, m flow.Match, some func(...flow.FieldID)) flow.Match {
	v6 := r.IntN(2) == 0
	set := func(f flow.FieldID, v uint64) { m = m.With(f, flow.U64(v)) }
	put := func(fields ...flow.FieldID) {
		for _, f := range fields {
			if r.IntN(2) == 0 {
				t := randomTerm(r, f)
				m = m.WithMasked(f, t.Value, t.Mask)
			}
		}
	}
	set(flow.EthType, flow.EthTypeIPv4)
	tracked := r.IntN(3) == 0
	if tracked {
		m = m.WithMasked(flow.CtState, flow.U64(flow.CtTrk|flow.CtEst), flow.U64(flow.CtTrk|flow.CtEst|r.Uint64N(256)&flow.CtInv))
	}
	if v6 {
		set(flow.EthType, flow.EthTypeIPv6)
		put(flow.IPv6Src, flow.IPv6Dst, flow.IPv6Label)
		if tracked {
			put(flow.CtIPv6Src, flow.CtIPv6Dst)
		}
	} else {
		put(flow.IPSrc, flow.IPDst)
		if tracked {
			put(flow.CtNwSrc, flow.CtNwDst)
		}
	}
	if tracked && r.IntN(2) == 0 {
		set(flow.CtNwProto, pick[uint64](r, flow.ProtoTCP, flow.ProtoUDP, flow.ProtoSCTP))
		put(flow.CtTpSrc, flow.CtTpDst)
	}
	if r.IntN(3) == 0 {
		put(flow.IPDSCP, flow.IPECN, flow.IPTTL)
	}
	if r.IntN(4) == 0 {
		m = m.WithMasked(flow.IPFrag, flow.U64(0), flow.U64(pick[uint64](r, 2, 3)))
	}
	switch r.IntN(6) {
	case 0:
		set(flow.IPProto, flow.ProtoTCP)
		put(flow.TCPSrc, flow.TCPDst, flow.TCPFlags)
	case 1:
		set(flow.IPProto, flow.ProtoUDP)
		put(flow.UDPSrc, flow.UDPDst)
	case 2:
		set(flow.IPProto, flow.ProtoSCTP)
		put(flow.SCTPSrc, flow.SCTPDst)
	case 3:
		set(flow.IPProto, r.Uint64N(256))
	case 4:
		if !v6 {
			set(flow.IPProto, flow.ProtoICMP)
			put(flow.ICMPType, flow.ICMPCode)
			break
		}
		set(flow.IPProto, flow.ProtoICMPv6)
		typ := pick[uint64](r, 135, 136)
		set(flow.ICMPv6Type, typ)
		set(flow.ICMPv6Code, 0)
		put(flow.NDTarget)
		if typ == 135 {
			put(flow.NDSll)
		} else {
			put(flow.NDTll)
		}
	}
	return m
}

func randomActions(r *rand.Rand, m flow.Match, depth int) []flow.Action {
	if r.IntN(10) == 0 {
		return []flow.Action{flow.Conjunction{ID: r.Uint32(), Clause: 2, N: uint8(2 + r.IntN(63))}}
	}
	var out []flow.Action
	for range r.IntN(4) {
		out = append(out, randomAction(r, m, depth))
	}
	return out
}

// randomSub draws a part of a register.
func randomSub(r *rand.Rand, bits int) flow.SubField {
	f := pick(r, flow.Reg(r.IntN(16)), flow.XReg0+flow.FieldID(r.IntN(8)), flow.XXReg0+flow.FieldID(r.IntN(4)))
	if bits == 0 {
		bits = 1 + r.IntN(min(64, f.Bits()))
	}
	bits = min(bits, f.Bits())
	return sub(f, uint16(r.IntN(f.Bits()-bits+1)), uint16(bits))
}

func randomAction(r *rand.Rand, m flow.Match, depth int) flow.Action {
	port := func() uint32 { return pick(r, 1, 2, 65000, flow.PortLocal, flow.PortInPort) }
	switch r.IntN(17) {
	case 0:
		return flow.Output{Port: pick(r, port(), flow.PortNormal, flow.PortFlood, flow.PortAll)}
	case 1:
		return flow.OutputTrunc{Port: port(), MaxLen: 14 + r.Uint32()>>r.IntN(32)&0xffff}
	case 2:
		return flow.OutputReg{Src: randomSub(r, 16), MaxLen: flow.WholePacket}
	case 3:
		c := flow.Controller{MaxLen: uint16(r.IntN(65536)), Reason: uint8(r.IntN(6)), ID: uint16(r.IntN(2) * r.IntN(65536)),
			Pause: r.IntN(2) == 0, MeterID: uint32(r.IntN(2) * 5)}
		if r.IntN(2) == 0 {
			c.UserData = string(binary.BigEndian.AppendUint64(nil, r.Uint64()))[:1+r.IntN(8)]
		}
		return c
	case 4:
		f := pick(r, flow.Reg(r.IntN(16)), flow.XReg3, flow.XXReg1, flow.EthSrc, flow.EthDst, flow.TunID, flow.TunDst, flow.TunIPv6Src,
			flow.Metadata, flow.PktMark, flow.TunGBPID)
		t := randomTerm(r, f)
		t.Mask = flow.Ones(f.Bits()) // ovs-ofctl turns a masked set_field into loads
		return flow.SetField(t)
	case 5:
		s := randomSub(r, 0)
		return flow.Load{Dst: s, Value: random128(r).And(flow.Ones(int(s.Bits))).Lo}
	case 6:
		n := 1 + r.IntN(32)
		return flow.Move{Src: randomSub(r, n), Dst: randomSub(r, n)}
	case 7:
		return pick[flow.Action](r, flow.Push{Src: randomSub(r, 0)}, flow.Pop{Dst: randomSub(r, 0)}, flow.Group{ID: 5},
			flow.SetQueue{ID: r.Uint32()}, flow.PopQueue{}, flow.CTClear{})
	case 8:
		return pick[flow.Action](r, flow.Resubmit{Port: port(), Table: uint8(r.IntN(255))}, flow.Resubmit{Port: 3, Table: flow.NoTable})
	case 9:
		return flow.Sample{Probability: uint16(1 + r.IntN(65535)), CollectorSet: r.Uint32(), ObsDomainID: r.Uint32(), ObsPointID: r.Uint32(),
			SamplingPort: pick(r, 1, flow.PortAny), Direction: uint8(r.IntN(3))}
	case 10:
		return flow.CheckPktLarger{Len: uint16(r.IntN(65536)), Dst: randomSub(r, 1)}
	case 16:
		bits := 1 + r.IntN(32)
		return flow.Multipath{Fields: flow.HashFields(r.IntN(7)), Basis: uint16(r.IntN(65536)), Algorithm: flow.LinkAlgorithm(r.IntN(4)),
			Links: 1 + uint32(r.IntN(1<<min(bits, 16))), Arg: r.Uint32(), Dst: randomSub(r, bits)}
	case 11:
		data := string(binary.BigEndian.AppendUint64(nil, r.Uint64()))
		return flow.Note{Data: pick(r, data[:6], data+data[:6])}
	case 12:
		if depth > 0 {
			if inner := randomActions(r, m, depth-1); len(inner) == 0 || !isConjunction(inner[0]) {
				return flow.Clone{Actions: inner}
			}
		}
	case 13, 14, 15:
		if t, ok := m.Get(flow.EthType); ok && (t.Value.Lo == flow.EthTypeIPv4 || t.Value.Lo == flow.EthTypeIPv6) {
			state, _ := m.Get(flow.CtState)
			invalid := state.Value.Lo&flow.CtInv != 0 // which the switch refuses to commit
			return randomCT(r, t.Value.Lo == flow.EthTypeIPv6, !invalid && r.IntN(2) == 0)
		}
	}
	return flow.Output{Port: port()}
}

func isConjunction(a flow.Action) bool {
	_, ok := a.(flow.Conjunction)
	return ok
}

func randomCT(r *rand.Rand, v6, commit bool) flow.Action {
	c := flow.CT{Table: pick(r, flow.NoTable, uint8(r.IntN(255))), Commit: commit}
	if r.IntN(3) == 0 {
		c.ZoneSrc = randomSub(r, 16)
	} else {
		c.Zone = uint16(r.IntN(2) * r.IntN(65536))
	}
	if !c.Commit {
		if r.IntN(2) == 0 {
			c.NAT = &flow.NAT{}
		}
		return c
	}
	c.Force = r.IntN(2) == 0
	if r.IntN(2) == 0 {
		n := flow.NAT{Src: r.IntN(2) == 0}
		n.Dst = !n.Src
		if r.IntN(4) != 0 {
			n.AddrMin, n.AddrMax = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.9")
			if v6 {
				n.AddrMin, n.AddrMax = random128(r).And(flow.Ones(120)).Addr6(), netip.MustParseAddr("ff00::1")
			}
			if r.IntN(2) == 0 {
				n.AddrMax = netip.Addr{}
			}
			if r.IntN(2) == 0 {
				n.PortMin = uint16(1 + r.IntN(30000))
				n.PortMax = uint16(r.IntN(2)) * (n.PortMin + uint16(1+r.IntN(30000)))
			}
			n.Persistent, n.Hash = r.IntN(2) == 0, r.IntN(2) == 0
			n.Random = !n.Hash && r.IntN(2) == 0
		}
		c.NAT = &n
	}
	for range r.IntN(3) {
		c.Exec = append(c.Exec, pick[flow.Action](r,
			flow.Load{Dst: sub(flow.CtLabel, 32, 64), Value: r.Uint64()}, flow.Load{Dst: sub(flow.CtMark, 3, 7), Value: r.Uint64N(128)},
			flow.SetField{Field: flow.CtLabel, Value: random128(r), Mask: flow.Ones(128)}, flow.SetField{Field: flow.CtMark,
				Value: flow.U64(uint64(r.Uint32())), Mask: flow.Ones(32)},
			flow.Move{Src: randomSub(r, 20), Dst: sub(flow.CtLabel, 100, 20)}))
	}
	return c
}
