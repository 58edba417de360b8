package flow

import "encoding/binary"

// Key identifies an entry on a switch: table, priority and match, in a compact binary form that is good as a map key and
// for nothing else. Two flows have the same key iff one would replace the other.
type Key string

// Key returns the identity of f.
func (f Flow) Key() Key { return Key(f.AppendKey(nil)) }

// AppendKey appends the bytes of Key to dst. It allocates nothing where dst has room and the match is in normal form.
func (f Flow) AppendKey(dst []byte) []byte {
	dst = append(dst, f.Table, byte(f.Priority>>8), byte(f.Priority))
	for _, t := range f.Match.Normalize() {
		bits := t.Field.Bits()
		// The top bit of the field says whether a mask follows; field and width then make each term parse one way only.
		if t.Mask == Ones(bits) {
			dst = appendBits(append(dst, byte(t.Field)), t.Value, bits)
			continue
		}
		dst = appendBits(append(dst, byte(t.Field)|0x80), t.Value, bits)
		dst = appendBits(dst, t.Mask, bits)
	}
	return dst
}

// appendBits appends the low bits of v, rounded up to 1, 2, 4, 8 or 16 bytes.
func appendBits(dst []byte, v U128, bits int) []byte {
	switch {
	case bits <= 8:
		return append(dst, byte(v.Lo))
	case bits <= 16:
		return binary.BigEndian.AppendUint16(dst, uint16(v.Lo))
	case bits <= 32:
		return binary.BigEndian.AppendUint32(dst, uint32(v.Lo))
	case bits <= 64:
		return binary.BigEndian.AppendUint64(dst, v.Lo)
	}
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, v.Hi), v.Lo)
}

// Equal reports whether f and o are the same entry with the same effect and bookkeeping: all fields, matches by
// [Match.Equal] and actions by [ActionsEqual]. It does not allocate for matches in normal form.
func (f Flow) Equal(o Flow) bool {
	return f.Table == o.Table && f.Priority == o.Priority && f.Cookie == o.Cookie &&
		f.IdleTimeout == o.IdleTimeout && f.HardTimeout == o.HardTimeout && f.Importance == o.Importance &&
		f.Flags == o.Flags && f.Match.Equal(o.Match) && ActionsEqual(f.Actions, o.Actions)
}

// ActionsEqual reports whether two lists have the same text. A plain copy to the controller may be an Output or a
// Controller: both are the same message to the switch. It does not allocate.
func ActionsEqual(a, b []Action) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !actionEqual(a[i], b[i]) {
			return false
		}
	}
	return true
}

func actionEqual(a, b Action) bool {
	switch x := a.(type) {
	case CT:
		y, ok := b.(CT)
		return ok && x.equal(&y)
	case Clone:
		y, ok := b.(Clone)
		return ok && ActionsEqual(x.Actions, y.Actions)
	case WriteActions:
		y, ok := b.(WriteActions)
		return ok && ActionsEqual(x.Actions, y.Actions)
	case Output:
		if y, ok := b.(Controller); ok {
			return y.plain() && x == Output{PortController, y.MaxLen}
		}
	case Controller:
		if y, ok := b.(Output); ok {
			return x.plain() && y == Output{PortController, x.MaxLen}
		}
	}
	switch b.(type) {
	case CT, Clone, WriteActions:
		return false
	}
	return a == b
}

func (a *CT) equal(b *CT) bool {
	switch {
	case a.Commit != b.Commit, a.Force != b.Force, a.Table != b.Table, a.ZoneSrc != b.ZoneSrc, a.Alg != b.Alg,
		a.ZoneSrc == (SubField{}) && a.Zone != b.Zone, (a.NAT == nil) != (b.NAT == nil):
		return false
	}
	return (a.NAT == nil || *a.NAT == *b.NAT) && ActionsEqual(a.Exec, b.Exec)
}
