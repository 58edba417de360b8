package flow

import "slices"

// Normalize returns m in the one form that a switch speaking OpenFlow 1.3 reports it in, so that two matches that hold
// for the same packets for the same reasons compare equal: terms ordered by field with values cut to their masks,
// xreg and xxreg terms as the registers they overlay, vlan_tci as vlan_vid and vlan_pcp, ct_state cut to the bits there
// are. Terms with an empty mask go. A contradiction (two terms of one field that disagree) keeps the first and is left
// for Validate, which must be asked about m itself. It returns m itself where that is in normal form.
func (m Match) Normalize() Match {
	if m.isNormal() {
		return m
	}
	var out Match
	var r regs
	r.gather(m)
	for _, t := range m {
		switch f := t.Field; {
		case !f.Valid() || f >= Reg0 && f <= XXReg3:
		case f == VlanTCI:
			out = normalTCI(out, t)
		default:
			if have, ok := out.Get(f); ok {
				fresh := t.Mask.And(have.Mask.Not())
				t.Value = t.Value.And(fresh).Or(have.Value)
				t.Mask = t.Mask.Or(have.Mask)
			}
			out = out.WithMasked(f, t.Value, t.Mask)
		}
	}
	for n := range 16 {
		out = out.WithMasked(Reg(n), U64(uint64(r.value[n])), U64(uint64(r.mask[n])))
	}
	return out
}

// normalTCI adds vlan_tci as OpenFlow 1.3 knows it. What it cannot say stays a VlanTCI term.
func normalTCI(m Match, t Term) Match {
	v, mask := t.Value.Lo&t.Mask.Lo&0xffff, t.Mask.Lo&0xffff
	pcp := mask & tciPCP
	switch {
	case pcp == 0, v == 0 && mask&tciPresent != 0:
		// A packet without a tag has no priority either: all of the TCI is zero.
		return m.WithMasked(VlanVID, U64(v&0x1fff), U64(mask&0x1fff))
	case pcp == tciPCP && v&tciPresent != 0:
		return m.WithMasked(VlanVID, U64(v&0x1fff), U64(mask&0x1fff)).With(VlanPCP, U64(v>>13))
	}
	return m.WithMasked(VlanTCI, U64(v), U64(mask))
}

// isNormal reports whether Normalize has nothing to do. It does not allocate.
func (m Match) isNormal() bool {
	last := FieldID(0)
	for i := range m {
		t := &m[i]
		switch f := t.Field; {
		case f <= last || !f.Valid() || f >= XReg0 && f <= XXReg3:
			return false
		case t.Mask.IsZero() || t.Mask != t.Mask.And(Ones(f.Bits())) || t.Value != t.Value.And(t.Mask):
			return false
		case f == VlanTCI:
			if rest := normalTCI(nil, *t); len(rest) != 1 || rest[0].Field != VlanTCI {
				return false
			}
		}
		last = t.Field
	}
	return true
}

// regs holds the sixteen registers with the wider ones laid over them: xreg0 is reg0 (high) and reg1 (low), xxreg0 is
// reg0..reg3.
type regs struct{ value, mask [16]uint32 }

// gather adds all register terms of m; where two disagree the first stays. It returns the last one that disagreed, or 0.
func (r *regs) gather(m Match) (odd FieldID) {
	for _, t := range m {
		words, first := 0, 0
		switch f := t.Field; {
		case f >= Reg0 && f <= Reg15:
			words, first = 1, int(f-Reg0)
		case f >= XReg0 && f <= XReg7:
			words, first = 2, 2*int(f-XReg0)
		case f >= XXReg0 && f <= XXReg3:
			words, first = 4, 4*int(f-XXReg0)
		}
		for i := range words {
			shift := 32 * (words - 1 - i)
			v, mask := uint32(t.Value.Shr(shift).Lo), uint32(t.Mask.Shr(shift).Lo)
			n := first + i
			if (v^r.value[n])&mask&r.mask[n] != 0 {
				odd = t.Field
			}
			r.value[n] |= v & mask &^ r.mask[n]
			r.mask[n] |= mask
		}
	}
	return odd
}

// Equal reports whether m and o have the same normal form. It does not allocate for matches in normal form.
func (m Match) Equal(o Match) bool { return slices.Equal(m.Normalize(), o.Normalize()) }

// Covers reports whether every packet that o matches is one that m matches too.
func (m Match) Covers(o Match) bool {
	o = o.Normalize()
	for _, t := range m.Normalize() {
		have, ok := o.Get(t.Field)
		if !ok || t.Mask.And(have.Mask) != t.Mask || have.Value.And(t.Mask) != t.Value {
			return false
		}
	}
	return true
}

// Overlaps reports whether a packet can match both m and o as far as their terms tell: no field is asked for two values.
func (m Match) Overlaps(o Match) bool {
	o = o.Normalize()
	for _, t := range m.Normalize() {
		if have, ok := o.Get(t.Field); ok {
			both := t.Mask.And(have.Mask)
			if t.Value.And(both) != have.Value.And(both) {
				return false
			}
		}
	}
	return true
}
