package ofp

import "github.com/tapwall/tapwall/ofctrl/flow"

// rank is the place of an action in the order that flow.Flow prescribes: meter, apply-actions, clear, write, metadata, goto.
func rank(a flow.Action) int {
	switch a.(type) {
	case flow.Meter:
		return 0
	case flow.ClearActions:
		return 2
	case flow.WriteActions:
		return 3
	case flow.WriteMetadata:
		return 4
	case flow.GotoTable:
		return 5
	}
	return 1
}

// AppendInstructions appends the actions of a flow as instructions (§7.2.5). Errors match [ErrValue] if they are out of the
// order that [flow.Flow] prescribes or an instruction stands twice.
func AppendInstructions(dst []byte, actions []flow.Action) ([]byte, error) {
	start := len(dst)
	out, err := appendInstructions(dst, actions)
	if err != nil {
		return dst[:start], err
	}
	return out, nil
}

func appendInstructions(dst []byte, actions []flow.Action) ([]byte, error) {
	var err error
	for i := 0; i < len(actions); {
		k := rank(actions[i])
		if i > 0 && k <= rank(actions[i-1]) {
			return dst, bad(actions[i], "out of order or repeated")
		}
		start := len(dst)
		switch a := actions[i].(type) {
		case flow.Meter:
			dst = be.AppendUint32(be.AppendUint32(dst, insMeter<<16|8), a.ID)
		case flow.ClearActions:
			dst = appendZeros(be.AppendUint32(dst, insClearActions<<16|8), 4)
		case flow.WriteActions:
			dst = appendZeros(be.AppendUint32(dst, insWriteActions<<16), 4)
			if dst, err = appendActions(dst, a.Actions, 0); err != nil {
				return dst, err
			}
			if dst, err = endAction(dst, start); err != nil {
				return dst, err
			}
		case flow.WriteMetadata:
			if a.Mask == 0 || a.Value&^a.Mask != 0 {
				return dst, bad(a, "value outside mask")
			}
			dst = appendZeros(be.AppendUint32(dst, insWriteMetadata<<16|24), 4)
			dst = be.AppendUint64(be.AppendUint64(dst, a.Value), a.Mask)
		case flow.GotoTable:
			dst = append(be.AppendUint32(dst, insGotoTable<<16|8), a.Table, 0, 0, 0)
		default:
			n := 1
			for i+n < len(actions) && rank(actions[i+n]) == 1 {
				n++
			}
			dst = appendZeros(be.AppendUint32(dst, insApplyActions<<16), 4)
			if dst, err = appendActions(dst, actions[i:i+n], 0); err != nil {
				return dst, err
			}
			if dst, err = endAction(dst, start); err != nil {
				return dst, err
			}
			i += n - 1
		}
		i++
	}
	return dst, nil
}

// DecodeInstructions reads instructions that fill b into the order of [flow.Flow]. Errors are as in [DecodeActions].
func DecodeInstructions(b []byte) ([]flow.Action, error) {
	st := state{msg: "instructions"}
	r := reader{st: &st, b: b}
	as := r.instructions()
	if st.err != nil {
		return nil, st.err
	}
	return as, st.unsupported
}

// instructions reads instructions to the end.
func (r *reader) instructions() []flow.Action {
	var seen uint8
	var apply []flow.Action
	var others [6]flow.Action // by rank
	n := 0
	for r.more() {
		at := r.off
		i := r.sized(2, 8, "instruction")
		typ := i.u16("instruction type")
		i.skip(2, "instruction length")
		if r.st.err != nil {
			return nil
		}
		if typ >= insGotoTable && typ <= insMeter {
			if seen>>typ&1 == 1 {
				r.failAt(at, "repeated instruction", ErrValue)
				return nil
			}
			seen |= 1 << typ
		}
		var a flow.Action
		switch typ {
		case insGotoTable:
			a = flow.GotoTable{Table: i.u8("goto_table")}
		case insWriteMetadata:
			i.skip(4, "write_metadata padding")
			a = flow.WriteMetadata{Value: i.u64("write_metadata"), Mask: i.u64("write_metadata mask")}
		case insWriteActions:
			i.skip(4, "write_actions padding")
			a = flow.WriteActions{Actions: i.actions(0, nil)}
		case insApplyActions:
			i.skip(4, "apply_actions padding")
			apply = i.actions(0, nil)
			n += len(apply)
			continue
		case insClearActions:
			a = flow.ClearActions{}
		case insMeter:
			a = flow.Meter{ID: i.u32("meter")}
		default:
			r.unknown(at, "instruction", uint64(typ))
			continue
		}
		others[rank(a)] = a
		n++
	}
	if r.st.err != nil || n == 0 {
		return nil
	}
	if n == len(apply) {
		return apply
	}
	as := make([]flow.Action, 0, n)
	for k, a := range others {
		if k == 1 {
			as = append(as, apply...)
		} else if a != nil {
			as = append(as, a)
		}
	}
	return as
}
