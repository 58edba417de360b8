package ofp

import (
	"encoding/binary"
	"fmt"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

var be = binary.BigEndian

// appendUint appends the low n bytes of v, n being 1 to 16.
func appendUint(dst []byte, v flow.U128, n int) []byte {
	switch n {
	case 1:
		return append(dst, byte(v.Lo))
	case 2:
		return be.AppendUint16(dst, uint16(v.Lo))
	case 4:
		return be.AppendUint32(dst, uint32(v.Lo))
	case 8:
		return be.AppendUint64(dst, v.Lo)
	case 16:
		return be.AppendUint64(be.AppendUint64(dst, v.Hi), v.Lo)
	}
	for i := n - 1; i >= 0; i-- {
		dst = append(dst, byte(v.Shr(8*i).Lo))
	}
	return dst
}

// parseUint reads at most 16 big-endian bytes.
func parseUint(b []byte) flow.U128 {
	var v flow.U128
	for _, c := range b {
		v = v.Shl(8)
		v.Lo |= uint64(c)
	}
	return v
}

// appendPad appends zeros up to a multiple of 8 bytes counted from start.
func appendPad(dst []byte, start int) []byte {
	for (len(dst)-start)%8 != 0 {
		dst = append(dst, 0)
	}
	return dst
}

// appendOXM appends one field with its value, and with its mask unless that is exact.
func appendOXM(dst []byte, t flow.Term) ([]byte, error) {
	w, ok := wire(t.Field)
	if !ok {
		return dst, fmt.Errorf("field %d: %w", t.Field, ErrUnsupported)
	}
	ones := flow.Ones(t.Field.Bits())
	mask := t.Mask.And(ones)
	if mask.IsZero() || !t.Value.And(mask.Not()).IsZero() {
		return dst, fmt.Errorf("field %d: value %#x/%#x: %w", t.Field, t.Value, t.Mask, ErrValue)
	}
	// A ct_state without a mask would also be compared in the bits that no switch has yet.
	exact := mask == ones && t.Field != flow.CtState
	dst = be.AppendUint32(dst, w.header(!exact))
	if w.exp != 0 {
		dst = be.AppendUint32(dst, w.exp)
	}
	dst = appendUint(dst, t.Value, int(w.bytes))
	if !exact {
		dst = appendUint(dst, mask, int(w.bytes))
	}
	return dst, nil
}

// isCtTuple tells the fields that Open vSwitch takes only after eth_type, whatever their place in a flow.Match.
func isCtTuple(f flow.FieldID) bool { return f >= flow.CtNwProto && f <= flow.CtTpDst }

// appendOXMs appends the fields of m with every prerequisite before what needs it, which the switch insists on.
func appendOXMs(dst []byte, m flow.Match) ([]byte, error) {
	var err error
	for _, t := range m {
		if !isCtTuple(t.Field) {
			if dst, err = appendOXM(dst, t); err != nil {
				return dst, err
			}
		}
	}
	for _, t := range m {
		if isCtTuple(t.Field) {
			if dst, err = appendOXM(dst, t); err != nil {
				return dst, err
			}
		}
	}
	return dst, nil
}

// AppendMatch appends m as an ofp_match (§7.2.3) with its padding. Errors match [ErrValue] for a value outside its mask or
// a mask that is zero, and [ErrUnsupported] for an unknown field.
func AppendMatch(dst []byte, m flow.Match) ([]byte, error) {
	start := len(dst)
	dst = append(dst, 0, 1, 0, 0) // OFPMT_OXM
	dst, err := appendOXMs(dst, m)
	if err != nil {
		return dst[:start], err
	}
	n := len(dst) - start
	if n > 0xffff {
		return dst[:start], fmt.Errorf("match of %d bytes: %w", n, ErrLength)
	}
	be.PutUint16(dst[start+2:], uint16(n))
	return appendPad(dst, start), nil
}

// oxmHeader reads an OXM header and its vendor, if it has one. n is the number of bytes left to the field.
func (r *reader) oxmHeader() (class uint16, id uint8, masked bool, exp uint32, n int) {
	h := r.u32("OXM header")
	class, id, masked, n = uint16(h>>16), uint8(h>>9)&0x7f, h&0x100 != 0, int(h&0xff)
	if class == classExperimenter {
		if n < 4 {
			r.fail("OXM length", ErrLength)
			return
		}
		exp = r.u32("OXM experimenter")
		n -= 4
	}
	return
}

// oxm reads one field. ok is false if reading failed or the field is unknown, which is recorded as such, or its mask is
// zero, so that it says nothing.
func (r *reader) oxm() (t flow.Term, ok bool) {
	at := r.off
	class, id, masked, exp, n := r.oxmHeader()
	b := r.bytes(n, "OXM value")
	if r.st.err != nil {
		return t, false
	}
	f := byWire(class, id, exp)
	if f == 0 {
		r.unknown(at, "OXM field", uint64(class)<<7|uint64(id))
		return t, false
	}
	size := int(wireFields[f].bytes)
	if f == flow.InPort && class == classNXM0 {
		size = 2
	}
	want := size
	if masked {
		want = 2 * size
	}
	if n != want {
		r.failAt(at, "OXM length", ErrLength)
		return t, false
	}
	ones := flow.Ones(f.Bits())
	t = flow.Term{Field: f, Value: parseUint(b[:size]), Mask: ones}
	if masked {
		t.Mask = parseUint(b[size:])
	}
	if class == classNXM0 {
		switch f {
		case flow.InPort: // 16 bits, never masked
			t.Value = flow.U64(uint64(port32(uint16(t.Value.Lo))))
			t.Mask = ones
		case flow.IPDSCP: // the whole TOS byte
			t.Value, t.Mask = t.Value.Shr(2), ones
		}
	}
	t.Mask = t.Mask.And(ones)
	t.Value = t.Value.And(t.Mask)
	return t, !t.Mask.IsZero()
}

// oxms reads fields to the end and adds them to m, in the order of a flow.Match.
func (r *reader) oxms(m flow.Match) flow.Match {
	for r.more() {
		at := r.off
		t, ok := r.oxm()
		if !ok {
			continue
		}
		i := len(m)
		for i > 0 && m[i-1].Field > t.Field {
			i--
		}
		if i > 0 && m[i-1].Field == t.Field {
			r.failAt(at, "duplicate OXM field", ErrValue)
			return m
		}
		m = append(m, flow.Term{})
		copy(m[i+1:], m[i:])
		m[i] = t
	}
	return m
}

// match reads an ofp_match with its padding.
func (r *reader) match(m flow.Match) flow.Match {
	at := r.off
	typ := r.u16("match type")
	n := int(r.u16("match length"))
	if r.st.err != nil {
		return m
	}
	if typ != 1 {
		r.failAt(at, "match type", ErrUnsupported)
		return m
	}
	if n < 4 {
		r.failAt(at, "match length", ErrLength)
		return m
	}
	fields := r.sub(n-4, "match")
	if r.st.err != nil {
		return m
	}
	if m == nil && n > 4 {
		m = make(flow.Match, 0, 8)
	}
	m = fields.oxms(m)
	r.skip(-n&7, "match padding")
	if len(m) == 0 {
		return m[:0]
	}
	return m
}

// DecodeMatch reads an ofp_match at the start of b and returns how many bytes it takes with its padding. Errors are
// *[ParseError]; for [ErrUnsupported] the match holds all fields that are known and the size is right.
func DecodeMatch(b []byte) (flow.Match, int, error) {
	st := state{msg: "match"}
	r := reader{st: &st, b: b}
	m := r.match(nil)
	if st.err != nil {
		return nil, 0, st.err
	}
	return m, r.off, st.unsupported
}

// port32 widens a 16-bit port number of the extensions: the reserved ones move to the top (nicira ofp_port_t).
func port32(p uint16) uint32 {
	if p >= 0xff00 {
		return 0xffff0000 | uint32(p)
	}
	return uint32(p)
}

// port16 is the reverse of port32; ok is false for a port that 16 bits cannot name.
func port16(p uint32) (uint16, bool) {
	if p < 0xff00 || p >= 0xffffff00 {
		return uint16(p), true
	}
	return 0, false
}
