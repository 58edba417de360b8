package flow

import (
	"fmt"
	"math/bits"
	"net/netip"
	"strings"
)

// parseNumber reads a decimal or 0x number of at most width bits. Leading zeros, which C would take for octal, are refused.
func parseNumber(s string, width int) (U128, error) {
	digits, base := s, uint64(10)
	if strings.HasPrefix(s, "0x") || strings.HasPrefix(s, "0X") {
		digits, base = s[2:], 16
	}
	if digits == "" {
		return U128{}, fmt.Errorf("a number is missing")
	}
	if base == 10 && len(digits) > 1 && digits[0] == '0' {
		return U128{}, fmt.Errorf("%q has a leading zero", s)
	}
	var v U128
	for i := range len(digits) {
		d := hexValue(digits[i])
		if d < 0 || uint64(d) >= base {
			return U128{}, fmt.Errorf("%q is not a number", s)
		}
		var carry uint64
		if base == 16 {
			v, carry = v.Shl(4).Or(U64(uint64(d))), v.Hi>>60
		} else {
			v, carry = v.mul10(uint64(d))
		}
		if carry != 0 {
			return U128{}, fmt.Errorf("does not fit into %d bits", width)
		}
	}
	if v != v.And(Ones(width)) {
		return U128{}, fmt.Errorf("does not fit into %d bits", width)
	}
	return v, nil
}

// mul10 returns 10u+d and what does not fit.
func (u U128) mul10(d uint64) (v U128, carry uint64) {
	hi, lo := bits.Mul64(u.Lo, 10)
	lo, c := bits.Add64(lo, d, 0)
	top, mid := bits.Mul64(u.Hi, 10)
	mid, c = bits.Add64(mid, hi, c)
	return U128{Hi: mid, Lo: lo}, top + c
}

func hexValue(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// parseUint is parseNumber for what fits into 64 bits.
func parseUint(s string, width int) (uint64, error) {
	v, err := parseNumber(s, min(width, 64))
	return v.Lo, err
}

// parsePort reads a port number or the name of a reserved port. The 16-bit numbers of OpenFlow 1.0 for reserved ports
// are understood as ovs-ofctl does.
func parsePort(s string) (uint32, error) {
	if s == "" {
		return 0, fmt.Errorf("a port is missing")
	}
	if s[0] >= '0' && s[0] <= '9' {
		v, err := parseUint(s, 32)
		switch {
		case err != nil:
			return 0, err
		case v >= 0xfff7 && v <= 0xffff:
			v += 0xffff0000
		case v >= 0xff00 && v < uint64(PortUnset):
			return 0, fmt.Errorf("%s is not a port of Open vSwitch: 0..65279 or a reserved one", s)
		}
		return uint32(v), nil
	}
	for p := PortUnset; ; p++ {
		if n := portName(p); n != "" && strings.EqualFold(s, n) {
			return p, nil
		}
		if p == PortAny {
			break
		}
	}
	if strings.EqualFold(s, "NONE") {
		return PortAny, nil
	}
	return 0, fmt.Errorf("%q is not a port", s)
}

// parseAddr reads addr[/prefix length or mask].
func parseAddr(s string, width int) (v, mask U128, err error) {
	addr, tail, masked := strings.Cut(s, "/")
	if v, err = parseOneAddr(addr, width); err != nil {
		return v, mask, err
	}
	mask = Ones(width)
	if !masked {
		return v, mask, nil
	}
	if n, err := parseUint(tail, 8); err == nil {
		if int(n) > width {
			return v, mask, fmt.Errorf("prefix length %d exceeds %d", n, width)
		}
		return v, mask.And(Ones(width - int(n)).Not()), nil
	}
	mask, err = parseOneAddr(tail, width)
	return v, mask, err
}

func parseOneAddr(s string, width int) (U128, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4() != (width == 32) {
		family := "IPv4"
		if width == 128 {
			family = "IPv6"
		}
		return U128{}, fmt.Errorf("%q is not an %s address", s, family)
	}
	if width == 128 {
		return from16(a), nil
	}
	return FromAddr(a), nil
}

func parseEth(s string) (U128, error) {
	var v uint64
	parts := strings.Split(s, ":")
	for _, p := range parts {
		if len(parts) != 6 || len(p) == 0 || len(p) > 2 || hexValue(p[0]) < 0 || hexValue(p[len(p)-1]) < 0 {
			return U128{}, fmt.Errorf("%q is not an Ethernet address", s)
		}
		b := hexValue(p[0])
		if len(p) == 2 {
			b = b<<4 | hexValue(p[1])
		}
		v = v<<8 | uint64(b)
	}
	return U64(v), nil
}

// parseFlagSet reads +a-b, a|b, 0 or numbers value/mask.
func parseFlagSet(s string, names []string, all uint64) (v, mask U128, err error) {
	bit := func(name string) (uint64, error) {
		for i, n := range names {
			if n == name {
				return 1 << i, nil
			}
		}
		return 0, fmt.Errorf("%q is not one of %s", name, strings.Join(names, ", "))
	}
	var set, seen uint64
	switch {
	case s != "" && (s[0] == '+' || s[0] == '-'):
		for s != "" {
			sign := s[0]
			n := strings.IndexAny(s[1:], "+-")
			if n < 0 {
				n = len(s) - 1
			}
			b, err := bit(s[1 : n+1])
			if err != nil {
				return v, mask, err
			}
			if seen&b != 0 {
				return v, mask, fmt.Errorf("%q is given twice", s[1:n+1])
			}
			seen |= b
			if sign == '+' {
				set |= b
			}
			s = s[n+1:]
		}
		return U64(set), U64(seen), nil
	case s != "" && s[0] >= '0' && s[0] <= '9':
		v, mask, err = parseMasked(s, 16)
		if mask == Ones(16) {
			mask = U64(all)
		}
		if v.Or(mask).Lo&^all != 0 {
			err = fmt.Errorf("%q has bits that do not exist", s)
		}
		return v, mask, err
	}
	for n := range strings.SplitSeq(s, "|") {
		b, err := bit(n)
		if err != nil {
			return v, mask, err
		}
		set |= b
	}
	return U64(set), U64(all), nil
}

// parseMasked reads value[/mask] as numbers.
func parseMasked(s string, width int) (v, mask U128, err error) {
	val, m, masked := strings.Cut(s, "/")
	if v, err = parseNumber(val, width); err != nil {
		return v, mask, err
	}
	mask = Ones(width)
	if masked {
		mask, err = parseNumber(m, width)
	}
	return v, mask, err
}

// parseFieldValue reads what appendFieldValue writes, and the other spellings of ovs-fields(7). "*" is an empty mask.
// Bits of the value outside the mask are dropped, as ovs-ofctl does.
func parseFieldValue(f FieldID, s string) (v, mask U128, err error) {
	if s == "*" {
		return U128{}, U128{}, nil
	}
	all := Ones(f.Bits())
	switch f.info().format {
	case fmtIPv4:
		v, mask, err = parseAddr(s, 32)
	case fmtIPv6:
		v, mask, err = parseAddr(s, 128)
	case fmtMAC:
		addr, m, masked := strings.Cut(s, "/")
		if v, err = parseEth(addr); err == nil {
			if mask = all; masked {
				mask, err = parseEth(m)
			}
		}
	case fmtPort:
		var p uint32
		p, err = parsePort(s)
		v, mask = U64(uint64(p)), all
	case fmtCtState:
		v, mask, err = parseFlagSet(s, ctStateNames(), all.Lo)
	case fmtTCPFlags:
		v, mask, err = parseFlagSet(s, tcpFlagNames(), all.Lo)
	case fmtTunFlags:
		v, mask, err = parseFlagSet(s, tunFlagNames(), all.Lo)
	case fmtFrag:
		v, mask, err = parseFrag(s)
	default:
		v, mask, err = parseFieldNumber(s, f)
	}
	if err == nil && mask != all && !f.Maskable() && !mask.IsZero() {
		err = fmt.Errorf("%s cannot be masked", f)
	}
	return v.And(mask), mask, err
}

// parseFieldNumber reads value[/mask] where a mask of the whole bytes that hold the field is none at all: 0x50/0xffff.
func parseFieldNumber(s string, f FieldID) (v, mask U128, err error) {
	val, m, masked := strings.Cut(s, "/")
	if v, err = parseNumber(val, f.Bits()); err != nil {
		return v, mask, err
	}
	if mask = Ones(f.Bits()); masked {
		mask, err = parseNumber(m, storeBits(f))
	}
	return v, mask.And(Ones(f.Bits())), err
}

// storeBits is the width of f rounded up to what holds it on the wire: 8, 16, 32, 64 or 128.
func storeBits(f FieldID) int {
	n := 8
	for n < f.Bits() {
		n *= 2
	}
	return n
}

func parseFrag(s string) (v, mask U128, err error) {
	for _, m := range [...]uint64{fragAny | fragLater, fragAny, fragLater} {
		for val := range uint64(4) {
			if val&^m == 0 && fragName(val, m) != "" && strings.EqualFold(fragName(val, m), s) {
				return U64(val), U64(m), nil
			}
		}
	}
	return v, mask, fmt.Errorf("%q is not one of no, yes, first, later, not_later", s)
}

// parseSubField reads name, name[], name[bit] or name[first..last], by any name of the field.
func parseSubField(s string) (SubField, error) {
	name, tail, ranged := strings.Cut(s, "[")
	f, ok := FieldByName(name)
	shift := 0
	if !ok {
		switch name {
		case "nw_tos", "NXM_OF_IP_TOS": // the DSCP is its upper six bits, all that may be used
			f, shift = IPDSCP, 2
		default:
			return SubField{}, fmt.Errorf("%q is not a field", name)
		}
	}
	width := f.SubBits()
	if f == InPort && (name == nxmInPort || name == "in_port") {
		width = 16
	}
	first, last := 0, width-1
	if ranged {
		inner, found := strings.CutSuffix(tail, "]")
		if !found {
			return SubField{}, fmt.Errorf("%q lacks its closing bracket", s)
		}
		if inner != "" {
			lo, hi, two := strings.Cut(inner, "..")
			if !two {
				hi = lo
			}
			a, err := parseUint(lo, 8)
			if err != nil {
				return SubField{}, err
			}
			b, err := parseUint(hi, 8)
			if err != nil {
				return SubField{}, err
			}
			first, last = int(a)-shift, int(b)-shift
			if first < 0 || first > last || last >= width {
				return SubField{}, fmt.Errorf("bits %d to %d are not within the %d bits of %s", a, b, width+shift, name)
			}
		}
	}
	return SubField{Field: f, Ofs: uint16(first), Bits: uint16(last - first + 1)}, nil
}
