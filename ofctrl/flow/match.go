package flow

import (
	"net/netip"
	"slices"
)

// FieldID names a match field of ovs-fields(7). The numbers have no meaning outside this process; they order a Match.
type FieldID uint8

// Term is one field of a match: the packet's field AND Mask equals Value. Mask is all ones over the field's width for
// an exact match and never zero. Bits of Value outside Mask are zero.
type Term struct {
	Field       FieldID
	Value, Mask U128
}

// Match is a conjunction of terms, at most one per field, ordered by FieldID. The nil Match matches every packet.
// Prerequisites (dl_type, nw_proto, …) are ordinary terms and must be present.
type Match []Term

// With returns a copy of m in which f equals v exactly, replacing an earlier term of f.
func (m Match) With(f FieldID, v U128) Match { return m.WithMasked(f, v, Ones(f.Bits())) }

// WithMasked is With for the bits of mask only. A zero mask removes the term.
func (m Match) WithMasked(f FieldID, v, mask U128) Match {
	mask = mask.And(Ones(f.Bits()))
	i, found := slices.BinarySearchFunc(m, f, func(t Term, f FieldID) int { return int(t.Field) - int(f) })
	out := make(Match, 0, len(m)+1)
	out = append(out, m[:i]...)
	if !mask.IsZero() {
		out = append(out, Term{f, v.And(mask), mask})
	}
	if found {
		i++
	}
	return append(out, m[i:]...)
}

// Get returns the term of f, if there is one.
func (m Match) Get(f FieldID) (Term, bool) {
	i, ok := slices.BinarySearchFunc(m, f, func(t Term, f FieldID) int { return int(t.Field) - int(f) })
	if !ok {
		return Term{}, false
	}
	return m[i], true
}

// WithPrefix is With for the addresses of a prefix; one that holds all addresses removes the term. The field must be as
// wide as the prefix's addresses (IPv4 mapped into IPv6 counts as IPv4).
func (m Match) WithPrefix(f FieldID, p netip.Prefix) Match {
	v, mask := Prefix(p)
	return m.WithMasked(f, v, mask)
}

// WithSub is With for a part of a field: what the match says about the rest of the field stays.
func (m Match) WithSub(s SubField, v uint64) Match {
	have, _ := m.Get(s.Field)
	mask := Ones(int(s.Bits)).Shl(int(s.Ofs))
	value := have.Value.And(mask.Not()).Or(U64(v).Shl(int(s.Ofs)).And(mask))
	return m.WithMasked(s.Field, value, have.Mask.Or(mask))
}

// WithCt asks for bits of ct_state to be set and others to be clear: WithCt(CtTrk|CtNew, CtInv) is ct_state=+new-inv+trk.
func (m Match) WithCt(set, clear uint8) Match {
	return m.WithMasked(CtState, U64(uint64(set)), U64(uint64(set|clear)))
}

// Set is the set_field of a whole field.
func Set(f FieldID, v U128) SetField {
	all := Ones(f.Bits())
	return SetField{Field: f, Value: v.And(all), Mask: all}
}
