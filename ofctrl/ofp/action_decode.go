package ofp

import (
	"github.com/tapwall/tapwall/ofctrl/flow"
)

// DecodeActions reads a list of actions that fills b. Errors are *[ParseError]; for [ErrUnsupported] the list holds all
// that is known.
func DecodeActions(b []byte) ([]flow.Action, error) {
	st := state{msg: "actions"}
	r := reader{st: &st, b: b}
	as := r.actions(0, nil)
	if st.err != nil {
		return nil, st.err
	}
	return as, st.unsupported
}

// actions reads actions to the end. nat takes the nat action, which stands only inside ct; nil = none is allowed here.
func (r *reader) actions(depth int, nat **flow.NAT) []flow.Action {
	if depth > maxDepth {
		r.fail("nested actions", ErrUnsupported)
		return nil
	}
	var as []flow.Action
	var e reader // declared here because it lives on the heap
	for r.more() {
		at := r.off
		e = r.sized(2, 8, "action")
		typ := e.u16("action type")
		e.skip(2, "action length")
		if r.st.err != nil {
			return nil
		}
		var a flow.Action
		if typ == actExperimenter {
			a = e.vendorAction(at, depth, nat)
		} else {
			a = e.standardAction(at, typ)
		}
		if a != nil && r.st.err == nil {
			as = append(as, a)
		}
	}
	if r.st.err != nil {
		return nil
	}
	return as
}

func (r *reader) standardAction(at int, typ uint16) flow.Action {
	switch typ {
	case actOutput:
		a := flow.Output{Port: r.u32("output port"), MaxLen: r.u16("output max_len")}
		r.skip(6, "output padding")
		return a
	case actPushVLAN:
		return flow.PushVLAN{EthType: r.u16("push_vlan")}
	case actPopVLAN:
		return flow.PopVLAN{}
	case actSetQueue:
		return flow.SetQueue{ID: r.u32("set_queue")}
	case actGroup:
		return flow.Group{ID: r.u32("group")}
	case actDecNwTTL:
		return flow.DecTTL{}
	case actSetField:
		return r.setField()
	}
	r.unknown(at, "action", uint64(typ))
	return nil
}

// setField reads an OXM, exact or masked.
func (r *reader) setField() flow.Action {
	t, ok := r.oxm()
	if !ok {
		return nil
	}
	return flow.SetField(t)
}

// vendorAction reads an action from its vendor on.
func (r *reader) vendorAction(at, depth int, nat **flow.NAT) flow.Action {
	vendor := r.u32("action vendor")
	sub := r.u16("action subtype")
	if r.st.err != nil {
		return nil
	}
	if vendor != VendorNicira {
		r.unknown(at, "action of a vendor", uint64(vendor))
		return nil
	}
	switch sub {
	case nxResubmit:
		return flow.Resubmit{Port: port32(r.u16("resubmit port")), Table: 0xff}
	case nxResubmitTable, nxResubmitTableCT:
		return flow.Resubmit{Port: port32(r.u16("resubmit port")), Table: r.u8("resubmit table"), CT: sub == nxResubmitTableCT}
	case nxPopQueue:
		return flow.PopQueue{}
	case nxCTClear:
		return flow.CTClear{}
	case nxOutputTrunc:
		return flow.OutputTrunc{Port: port32(r.u16("output port")), MaxLen: r.u32("output max_len")}
	case nxConjunction:
		a := flow.Conjunction{Clause: r.u8("clause"), N: r.u8("clauses"), ID: r.u32("conjunction id")}
		if a.Clause >= a.N {
			r.fail("clause", ErrValue)
		}
		a.Clause++
		return a
	case nxNote:
		return flow.Note{Data: string(r.rest())}
	case nxClone:
		r.skip(6, "clone padding")
		return flow.Clone{Actions: r.actions(depth+1, nil)}
	case nxCT:
		return r.ct(depth)
	case nxNAT:
		if nat == nil || *nat != nil {
			r.failAt(at, "nat", ErrValue)
			return nil
		}
		*nat = r.nat()
		return nil
	case nxController:
		return flow.Controller{MaxLen: r.u16("controller max_len"), ID: r.u16("controller id"), Reason: r.u8("controller reason")}
	case nxController2:
		return r.controller2()
	case nxSample, nxSample2, nxSample3:
		return r.sample(sub)
	}
	return r.regAction(at, sub)
}

// regAction reads the actions that name sub-fields.
func (r *reader) regAction(at int, sub uint16) flow.Action {
	var a flow.Action
	switch sub {
	case nxRegLoad:
		ofs := r.u16("load range")
		dst := r.subField(at, r.u32("load field"), 0, ofs>>6, ofs&63+1)
		a = flow.Load{Dst: dst, Value: r.u64("load value")}
		if dst.Field == 0 {
			return nil
		}
	case nxRegLoad2:
		return r.setField()
	case nxRegMove:
		n, so, do := r.u16("move bits"), r.u16("move source"), r.u16("move destination")
		m := flow.Move{Src: r.fieldRange(at, so, n), Dst: r.fieldRange(at, do, n)}
		if m.Src.Field == 0 || m.Dst.Field == 0 {
			return nil
		}
		a = m
	case nxStackPush, nxStackPop:
		ofs := r.u16("stack range")
		h, exp := r.fieldHeader()
		s := r.subField(at, h, exp, ofs, r.u16("stack bits"))
		if s.Field == 0 {
			return nil
		}
		if sub == nxStackPop {
			return flow.Pop{Dst: s}
		}
		a = flow.Push{Src: s}
	case nxOutputReg:
		ofs := r.u16("output range")
		s := r.subField(at, r.u32("output field"), 0, ofs>>6, ofs&63+1)
		a = flow.OutputReg{Src: s, MaxLen: r.u16("output max_len")}
		if s.Field == 0 {
			return nil
		}
	case nxOutputReg2:
		ofs, maxLen := r.u16("output range"), r.u16("output max_len")
		s := r.fieldRange(at, ofs>>6, ofs&63+1)
		if s.Field == 0 {
			return nil
		}
		a = flow.OutputReg{Src: s, MaxLen: maxLen}
	case nxMultipath:
		m := flow.Multipath{Fields: flow.HashFields(r.u16("hash fields")), Basis: r.u16("basis")}
		r.skip(2, "multipath padding")
		m.Algorithm, m.Links = flow.LinkAlgorithm(r.u16("algorithm")), uint32(r.u16("links"))+1
		m.Arg = r.u32("argument")
		r.skip(2, "multipath padding")
		ofs := r.u16("multipath range")
		if m.Dst = r.subField(at, r.u32("multipath field"), 0, ofs>>6, ofs&63+1); m.Dst.Field == 0 {
			return nil
		}
		a = m
	case nxCheckPktLarger:
		n, ofs := r.u16("packet length"), r.u16("bit")
		s := r.fieldRange(at, ofs, 1)
		if s.Field == 0 {
			return nil
		}
		a = flow.CheckPktLarger{Len: n, Dst: s}
	default:
		r.unknown(at, "Nicira action", uint64(sub))
	}
	return a
}

// fieldHeader reads a field header with its vendor.
func (r *reader) fieldHeader() (h, exp uint32) {
	h = r.u32("field")
	if h>>16 == classExperimenter {
		exp = r.u32("field experimenter")
	}
	return h, exp
}

func (r *reader) fieldRange(at int, ofs, bits uint16) flow.SubField {
	h, exp := r.fieldHeader()
	return r.subField(at, h, exp, ofs, bits)
}

// subField makes a sub-field of a field header. It is zero if reading failed or the field is unknown.
func (r *reader) subField(at int, h, exp uint32, ofs, bits uint16) flow.SubField {
	if r.st.err != nil {
		return flow.SubField{}
	}
	class, id := uint16(h>>16), uint8(h>>9)&0x7f
	f := byWire(class, id, exp)
	if f == 0 || f == flow.IPDSCP && class == classNXM0 {
		r.unknown(at, "field", uint64(h))
		return flow.SubField{}
	}
	width := uint16(f.SubBits())
	if f == flow.InPort && class == classNXM0 {
		width = 16
	}
	if h&0x100 != 0 || bits == 0 || ofs > width || bits > width-ofs {
		r.failAt(at, "bit range", ErrValue)
		return flow.SubField{}
	}
	return flow.SubField{Field: f, Ofs: ofs, Bits: bits}
}

func (r *reader) sample(sub uint16) flow.Action {
	a := flow.Sample{
		Probability: r.u16("probability"), CollectorSet: r.u32("collector set"),
		ObsDomainID: r.u32("obs domain"), ObsPointID: r.u32("obs point"), SamplingPort: flow.PortAny,
	}
	if sub != nxSample {
		a.SamplingPort = port32(r.u16("sampling port"))
		if d := r.u8("direction"); sub == nxSample3 {
			a.Direction = d
		}
	}
	return a
}

// controller2 reads the properties of NXAST_CONTROLLER2.
func (r *reader) controller2() flow.Action {
	a := flow.Controller{MaxLen: 0xffff, Reason: ofprAction}
	r.skip(6, "controller padding")
	for r.more() {
		at := r.off
		typ, p := r.property()
		switch typ {
		case ctlrMaxLen:
			a.MaxLen = p.u16("controller max_len")
		case ctlrID:
			a.ID = p.u16("controller id")
		case ctlrReason:
			a.Reason = p.u8("controller reason")
		case ctlrUserData:
			a.UserData = string(p.rest())
		case ctlrPause:
			a.Pause = true
		case ctlrMeter:
			a.MeterID = p.u32("controller meter")
		default:
			r.unknown(at, "controller property", uint64(typ))
		}
	}
	return a
}

// property reads one type-length-value with its padding and returns a reader of the value.
func (r *reader) property() (typ uint16, p reader) {
	at := r.off
	typ = r.u16("property type")
	n := int(r.u16("property length"))
	if r.st.err == nil && n < 4 {
		r.failAt(at, "property length", ErrLength)
	}
	p = r.sub(n-4, "property")
	if pad := -n & 7; pad <= len(r.b) {
		r.skip(pad, "property padding")
	} else {
		r.rest()
	}
	return typ, p
}
