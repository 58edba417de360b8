package flow

// Valid reports whether f is one of the constants of this package.
func (f FieldID) Valid() bool { return f > 0 && f < numFields }

func (f FieldID) info() *fieldInfo {
	if !f.Valid() {
		return &fieldTable[0]
	}
	return &fieldTable[f]
}

// Bits is the number of bits of f that a match can look at, 1..128; 0 if f is not valid. VlanVID has 13: the VLAN id and
// the present bit. CtState has 8.
func (f FieldID) Bits() int { return int(f.info().bits) }

// SubBits is the width of f as a sub-field in load, move, push, pop and output: that of Bits but for VlanVID (12, without
// the present bit) and CtState (32).
func (f FieldID) SubBits() int {
	if i := f.info(); i.subBits != 0 {
		return int(i.subBits)
	}
	return f.Bits()
}

// Maskable reports whether a match may look at only some bits of f.
func (f FieldID) Maskable() bool { return f.info().maskable }

// Writable reports whether actions may change f. CtMark and CtLabel change only inside ct(exec(…)).
func (f FieldID) Writable() bool { return f.info().writable }

// String returns the name of f in ovs-fields(7), as set_field prints it.
func (f FieldID) String() string {
	if !f.Valid() {
		return "field" + string(appendDec(nil, uint64(f)))
	}
	return f.info().name
}

// FieldByName finds a field by any of its names: that of ovs-fields(7) or its alias, or the NXM or OXM name that
// sub-fields print. Names whose meaning depends on the protocol of the match (tp_src, tp_dst) and those that stand for
// part of a field (dl_vlan, nw_tos) are understood by ParseMatch only.
func FieldByName(name string) (FieldID, bool) {
	if name == "" {
		return 0, false
	}
	for f := FieldID(1); f < numFields; f++ {
		i := &fieldTable[f]
		if name == i.name || name == i.alias || name == i.nxm || name == i.oxm {
			return f, true
		}
	}
	if name == nxmInPort {
		return InPort, true
	}
	return 0, false
}

// nxmInPort names the 16-bit form of InPort, the one that Nicira's extensions know.
const nxmInPort = "NXM_OF_IN_PORT"

// String returns s as ovs-ofctl prints it: name[], name[bit] or name[first..last] with the NXM name where there is one.
//
// InPort has two forms: sub-fields within its low 16 bits are those of NXM_OF_IN_PORT, wider ones of OXM_OF_IN_PORT.
func (s SubField) String() string { return string(s.append(nil)) }

func (s SubField) append(dst []byte) []byte {
	name, width := s.Field.info().nxm, s.Field.SubBits()
	switch {
	case !s.Field.Valid():
		name = s.Field.String()
	case s.Field == InPort && int(s.Ofs)+int(s.Bits) <= 16:
		name, width = nxmInPort, 16
	}
	dst = append(append(dst, name...), '[')
	switch {
	case s.Ofs == 0 && int(s.Bits) == width:
	case s.Bits == 1:
		dst = appendDec(dst, uint64(s.Ofs))
	default:
		dst = appendDec(dst, uint64(s.Ofs))
		dst = append(dst, ".."...)
		dst = appendDec(dst, uint64(s.Ofs)+uint64(s.Bits)-1)
	}
	return append(dst, ']')
}

// valid reports whether s lies within its field.
func (s SubField) valid() bool {
	return s.Field.Valid() && s.Bits > 0 && int(s.Ofs)+int(s.Bits) <= s.Field.SubBits()
}
