package ofp

import (
	"fmt"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// Types of OpenFlow actions (§7.2.4) that flow.Action knows.
const (
	actOutput       = 0
	actPushVLAN     = 17
	actPopVLAN      = 18
	actSetQueue     = 21
	actGroup        = 22
	actDecNwTTL     = 24
	actSetField     = 25
	actExperimenter = 0xffff
)

// Subtypes of Nicira actions (NXAST_*, ovs-actions(7)).
const (
	nxResubmit        = 1
	nxPopQueue        = 5
	nxRegMove         = 6
	nxRegLoad         = 7
	nxNote            = 8
	nxMultipath       = 10
	nxResubmitTable   = 14
	nxOutputReg       = 15
	nxController      = 20
	nxStackPush       = 27
	nxStackPop        = 28
	nxSample          = 29
	nxOutputReg2      = 32
	nxRegLoad2        = 33
	nxConjunction     = 34
	nxCT              = 35
	nxNAT             = 36
	nxController2     = 37
	nxSample2         = 38
	nxOutputTrunc     = 39
	nxSample3         = 41
	nxClone           = 42
	nxCTClear         = 43
	nxResubmitTableCT = 44
	nxCheckPktLarger  = 49
)

// Types of instructions (§7.2.5).
const (
	insGotoTable     = 1
	insWriteMetadata = 2
	insWriteActions  = 3
	insApplyActions  = 4
	insClearActions  = 5
	insMeter         = 6
)

// maxDepth bounds how deep actions nest (clone in clone in …, ct); the switch's own limit is not far above.
const maxDepth = 32

// ofprAction is OFPR_ACTION, the reason of a controller action that names none.
const ofprAction = uint8(ReasonAction)

// Properties of NXAST_CONTROLLER2.
const (
	ctlrMaxLen = iota
	ctlrID
	ctlrReason
	ctlrUserData
	ctlrPause
	ctlrMeter
)

// Flags of NXAST_CT and NXAST_NAT, and what may follow the latter.
const (
	ctCommit = 1 << 0
	ctForce  = 1 << 1

	natSrc        = 1 << 0
	natDst        = 1 << 1
	natPersistent = 1 << 2
	natHash       = 1 << 3
	natRandom     = 1 << 4

	natIPv4Min = 1 << 0
	natIPv4Max = 1 << 1
	natIPv6Min = 1 << 2
	natIPv6Max = 1 << 3
	natPortMin = 1 << 4
	natPortMax = 1 << 5
)

// bad says that action a cannot be encoded.
func bad(a flow.Action, why string) error { return fmt.Errorf("action %T: %s: %w", a, why, ErrValue) }

// appendNX appends the header of a Nicira action of n bytes; the caller fills in what follows the 10 bytes of it.
func appendNX(dst []byte, n, subtype uint16) []byte {
	dst = be.AppendUint16(dst, actExperimenter)
	dst = be.AppendUint16(dst, n)
	dst = be.AppendUint32(dst, VendorNicira)
	return be.AppendUint16(dst, subtype)
}

// appendZeros appends n zero bytes, at most 16.
func appendZeros(dst []byte, n int) []byte {
	var zeros [16]byte
	return append(dst, zeros[:n]...)
}

// endAction pads the action that begins at start and writes its length.
func endAction(dst []byte, start int) ([]byte, error) {
	dst = appendPad(dst, start)
	n := len(dst) - start
	if n > 0xffff {
		return dst, fmt.Errorf("action of %d bytes: %w", n, ErrLength)
	}
	be.PutUint16(dst[start+2:], uint16(n))
	return dst, nil
}

// subHeader returns the field header of a sub-field, after checking that it lies within its field. Fields of the experimenter
// class come out with their vendor in exp. The low 16 bits of in_port go by NXM_OF_IN_PORT, the name by which the
// switch's own tools load and move them.
func subHeader(s flow.SubField) (h, exp uint32, ok bool) {
	w, ok := wire(s.Field)
	if !ok || s.Bits == 0 || int(s.Ofs)+int(s.Bits) > s.Field.SubBits() {
		return 0, 0, false
	}
	if s.Field == flow.InPort && s.Ofs+s.Bits <= 16 {
		w = wireField{classNXM0, 0, 2, 0}
	}
	return w.header(false), w.exp, true
}

// appendHeader appends a field header with its vendor.
func appendHeader(dst []byte, h, exp uint32) []byte {
	dst = be.AppendUint32(dst, h)
	if exp != 0 {
		dst = be.AppendUint32(dst, exp)
	}
	return dst
}

// ofsBits packs a bit range as the register actions do; bits is 1 to 64.
func ofsBits(s flow.SubField) uint16 { return s.Ofs<<6 | (s.Bits - 1) }

// AppendActions appends a list of actions (§7.2.4). Instructions (Meter, GotoTable, …) are refused with [ErrValue]: they go
// by [AppendInstructions].
func AppendActions(dst []byte, actions []flow.Action) ([]byte, error) {
	start := len(dst)
	dst, err := appendActions(dst, actions, 0)
	if err != nil {
		return dst[:start], err
	}
	return dst, nil
}

func appendActions(dst []byte, actions []flow.Action, depth int) ([]byte, error) {
	if depth > maxDepth {
		return dst, fmt.Errorf("actions nested deeper than %d: %w", maxDepth, ErrValue)
	}
	var err error
	for _, a := range actions {
		if dst, err = appendAction(dst, a, depth); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func appendAction(dst []byte, a flow.Action, depth int) ([]byte, error) {
	switch a := a.(type) {
	case flow.Output:
		dst = be.AppendUint32(dst, actOutput<<16|16)
		dst = be.AppendUint32(dst, a.Port)
		dst = be.AppendUint16(dst, a.MaxLen)
		return appendZeros(dst, 6), nil
	case flow.PushVLAN:
		dst = be.AppendUint32(dst, actPushVLAN<<16|8)
		dst = be.AppendUint16(dst, a.EthType)
		return appendZeros(dst, 2), nil
	case flow.PopVLAN:
		return appendZeros(be.AppendUint32(dst, actPopVLAN<<16|8), 4), nil
	case flow.SetQueue:
		return be.AppendUint32(be.AppendUint32(dst, actSetQueue<<16|8), a.ID), nil
	case flow.Group:
		return be.AppendUint32(be.AppendUint32(dst, actGroup<<16|8), a.ID), nil
	case flow.DecTTL:
		return appendZeros(be.AppendUint32(dst, actDecNwTTL<<16|8), 4), nil
	case flow.SetField:
		return appendSetField(dst, a)
	case flow.PopQueue:
		return appendZeros(appendNX(dst, 16, nxPopQueue), 6), nil
	case flow.CTClear:
		return appendZeros(appendNX(dst, 16, nxCTClear), 6), nil
	case flow.Resubmit:
		return appendResubmit(dst, a)
	case flow.OutputTrunc:
		p, ok := port16(a.Port)
		if !ok {
			return dst, bad(a, "port")
		}
		dst = be.AppendUint16(appendNX(dst, 16, nxOutputTrunc), p)
		return be.AppendUint32(dst, a.MaxLen), nil
	case flow.Conjunction:
		// The clause is counted from 1 in text and from 0 on the wire.
		if a.Clause < 1 || a.Clause > a.N || a.N < 2 || a.N > 64 {
			return dst, bad(a, "clause")
		}
		dst = append(appendNX(dst, 16, nxConjunction), a.Clause-1, a.N)
		return be.AppendUint32(dst, a.ID), nil
	case flow.Note:
		start := len(dst)
		dst = append(appendNX(dst, 0, nxNote), a.Data...)
		if len(a.Data) < 6 {
			dst = appendZeros(dst, 6-len(a.Data))
		}
		return endAction(dst, start)
	case flow.Clone:
		start := len(dst)
		dst, err := appendActions(appendZeros(appendNX(dst, 0, nxClone), 6), a.Actions, depth+1)
		if err != nil {
			return dst, err
		}
		return endAction(dst, start)
	case flow.CT:
		return appendCT(dst, a, depth)
	case flow.Controller:
		return appendController(dst, a)
	case flow.Sample:
		return appendSample(dst, a)
	}
	return appendRegAction(dst, a)
}

// appendRegAction appends the actions that name sub-fields.
func appendRegAction(dst []byte, a flow.Action) ([]byte, error) {
	start := len(dst)
	switch a := a.(type) {
	case flow.Load:
		h, exp, ok := subHeader(a.Dst)
		if !ok || exp != 0 || a.Dst.Bits > 64 {
			return dst, bad(a, "destination")
		}
		if a.Dst.Bits < 64 && a.Value>>a.Dst.Bits != 0 {
			return dst, bad(a, "value")
		}
		dst = be.AppendUint16(appendNX(dst, 24, nxRegLoad), ofsBits(a.Dst))
		return be.AppendUint64(be.AppendUint32(dst, h), a.Value), nil
	case flow.Move:
		hs, es, ok1 := subHeader(a.Src)
		hd, ed, ok2 := subHeader(a.Dst)
		if !ok1 || !ok2 || a.Src.Bits != a.Dst.Bits {
			return dst, bad(a, "source or destination")
		}
		dst = be.AppendUint16(appendNX(dst, 0, nxRegMove), a.Src.Bits)
		dst = be.AppendUint16(be.AppendUint16(dst, a.Src.Ofs), a.Dst.Ofs)
		return endAction(appendHeader(appendHeader(dst, hs, es), hd, ed), start)
	case flow.Push:
		return appendStack(dst, nxStackPush, a.Src)
	case flow.Pop:
		return appendStack(dst, nxStackPop, a.Dst)
	case flow.OutputReg:
		h, exp, ok := subHeader(a.Src)
		if !ok || a.Src.Bits > 64 {
			return dst, bad(a, "source")
		}
		if exp == 0 {
			dst = be.AppendUint16(appendNX(dst, 24, nxOutputReg), ofsBits(a.Src))
			dst = be.AppendUint16(be.AppendUint32(dst, h), a.MaxLen)
			return appendZeros(dst, 6), nil
		}
		dst = be.AppendUint16(appendNX(dst, 24, nxOutputReg2), ofsBits(a.Src))
		dst = be.AppendUint16(dst, a.MaxLen)
		return endAction(appendHeader(dst, h, exp), start)
	case flow.Multipath:
		h, exp, ok := subHeader(a.Dst)
		if !ok || exp != 0 || a.Dst.Bits > 64 {
			return dst, bad(a, "destination")
		}
		if a.Links < 1 || a.Links > 1<<16 {
			return dst, bad(a, "links")
		}
		dst = be.AppendUint16(appendNX(dst, 32, nxMultipath), uint16(a.Fields))
		dst = be.AppendUint16(dst, a.Basis)
		dst = be.AppendUint16(appendZeros(dst, 2), uint16(a.Algorithm))
		dst = be.AppendUint16(dst, uint16(a.Links-1))
		dst = be.AppendUint32(dst, a.Arg)
		return be.AppendUint32(be.AppendUint16(appendZeros(dst, 2), ofsBits(a.Dst)), h), nil
	case flow.CheckPktLarger:
		h, exp, ok := subHeader(a.Dst)
		if !ok || a.Dst.Bits != 1 {
			return dst, bad(a, "destination")
		}
		dst = be.AppendUint16(appendNX(dst, 24, nxCheckPktLarger), a.Len)
		dst = appendHeader(be.AppendUint16(dst, a.Dst.Ofs), h, exp)
		return appendZeros(dst, start+24-len(dst)), nil
	}
	return dst, bad(a, "no action of an action list")
}

// appendSetField appends OFPAT_SET_FIELD, or NXAST_REG_LOAD2 for a part of a field: OpenFlow 1.3 has no masked
// set-field (ONF error 4250).
func appendSetField(dst []byte, a flow.SetField) ([]byte, error) {
	start := len(dst)
	if ones := flow.Ones(a.Field.Bits()); a.Mask.And(ones) == ones {
		dst = be.AppendUint32(dst, actSetField<<16)
	} else {
		dst = appendNX(dst, 0, nxRegLoad2)
	}
	dst, err := appendOXM(dst, flow.Term(a))
	if err != nil {
		return dst, fmt.Errorf("action %T: %w", a, err)
	}
	return endAction(dst, start)
}

func appendResubmit(dst []byte, a flow.Resubmit) ([]byte, error) {
	p, ok := port16(a.Port)
	if !ok {
		return dst, bad(a, "port")
	}
	sub := uint16(nxResubmitTable)
	if a.CT {
		sub = nxResubmitTableCT
	}
	dst = be.AppendUint16(appendNX(dst, 16, sub), p)
	return append(dst, a.Table, 0, 0, 0), nil
}

func appendStack(dst []byte, subtype uint16, s flow.SubField) ([]byte, error) {
	h, exp, ok := subHeader(s)
	if !ok {
		return dst, bad(flow.Push{Src: s}, "field")
	}
	start := len(dst)
	dst = be.AppendUint16(appendNX(dst, 24, subtype), s.Ofs)
	dst = be.AppendUint16(appendHeader(dst, h, exp), s.Bits)
	return appendZeros(dst, start+24-len(dst)), nil
}

func appendSample(dst []byte, a flow.Sample) ([]byte, error) {
	p, ok := port16(a.SamplingPort)
	if !ok || a.Probability == 0 || a.Direction > 2 {
		return dst, bad(a, "probability, port or direction")
	}
	n, sub := uint16(32), uint16(nxSample3)
	if a.Direction == 0 {
		if sub = nxSample2; a.SamplingPort == flow.PortAny {
			n, sub = 24, nxSample
		}
	}
	dst = be.AppendUint16(appendNX(dst, n, sub), a.Probability)
	dst = be.AppendUint32(dst, a.CollectorSet)
	dst = be.AppendUint32(dst, a.ObsDomainID)
	dst = be.AppendUint32(dst, a.ObsPointID)
	if sub == nxSample {
		return dst, nil
	}
	dst = append(be.AppendUint16(dst, p), a.Direction)
	return appendZeros(dst, 5), nil
}

// appendController appends NXAST_CONTROLLER, or NXAST_CONTROLLER2 for what only that can say. It never becomes OFPAT_OUTPUT,
// so that a flow reads back as the type it was made of.
func appendController(dst []byte, a flow.Controller) ([]byte, error) {
	if a.UserData == "" && !a.Pause && a.MeterID == 0 {
		dst = be.AppendUint16(appendNX(dst, 16, nxController), a.MaxLen)
		return append(be.AppendUint16(dst, a.ID), a.Reason, 0), nil
	}
	start := len(dst)
	dst = appendZeros(appendNX(dst, 0, nxController2), 6)
	if a.MaxLen != 0xffff {
		dst = appendProp16(dst, ctlrMaxLen, a.MaxLen)
	}
	if a.ID != 0 {
		dst = appendProp16(dst, ctlrID, a.ID)
	}
	if a.Reason != ofprAction {
		dst = append(dst, 0, ctlrReason, 0, 5, a.Reason, 0, 0, 0)
	}
	if a.UserData != "" {
		if len(a.UserData) > 0xff00 {
			return dst, bad(a, "user data")
		}
		at := len(dst)
		dst = be.AppendUint16(be.AppendUint16(dst, ctlrUserData), uint16(4+len(a.UserData)))
		dst = appendPad(append(dst, a.UserData...), at)
	}
	if a.Pause {
		dst = append(dst, 0, ctlrPause, 0, 4, 0, 0, 0, 0)
	}
	if a.MeterID != 0 {
		dst = be.AppendUint32(append(dst, 0, ctlrMeter, 0, 8), a.MeterID)
	}
	return endAction(dst, start)
}

// appendProp16 appends a property of 16 bits with its padding.
func appendProp16(dst []byte, typ, v uint16) []byte {
	dst = be.AppendUint16(be.AppendUint16(dst, typ), 6)
	return append(be.AppendUint16(dst, v), 0, 0)
}
