package flow

import "slices"

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
