package flow

import (
	"net/netip"
	"strconv"
)

func appendDec(dst []byte, v uint64) []byte { return strconv.AppendUint(dst, v, 10) }

// appendHex writes v as C's %#x does: 0 without the prefix.
func appendHex(dst []byte, v uint64) []byte {
	if v == 0 {
		return append(dst, '0')
	}
	return strconv.AppendUint(append(dst, "0x"...), v, 16)
}

// appendHexPad writes 0x and at least width digits.
func appendHexPad(dst []byte, v uint64, width int) []byte {
	dst = append(dst, "0x"...)
	for w := 1; w < width; w++ {
		if v>>(4*w) == 0 {
			dst = append(dst, '0')
		}
	}
	return strconv.AppendUint(dst, v, 16)
}

func appendHex128(dst []byte, v U128) []byte {
	if v.Hi == 0 {
		return appendHex(dst, v.Lo)
	}
	dst = appendHex(dst, v.Hi)
	for i := 60; i >= 0; i -= 4 {
		dst = append(dst, hexDigits[v.Lo>>i&15])
	}
	return dst
}

const hexDigits = "0123456789abcdef"

func appendMAC(dst []byte, v uint64) []byte {
	for i := 40; i >= 0; i -= 8 {
		dst = append(dst, hexDigits[v>>(i+4)&15], hexDigits[v>>i&15])
		if i > 0 {
			dst = append(dst, ':')
		}
	}
	return dst
}

func appendIPv4(dst []byte, v uint64) []byte {
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}).AppendTo(dst)
}

// appendIPv6 writes an address as the C library's inet_ntop does. That differs from netip in one place: an address of
// which only the last 32 bits are set, the upper half of them not zero, ends in dotted quads (::1.2.3.4).
func appendIPv6(dst []byte, v U128) []byte {
	if v.Hi == 0 && v.Lo>>32 == 0 && v.Lo>>16 != 0 {
		return appendIPv4(append(dst, "::"...), v.Lo)
	}
	return v.Addr6().AppendTo(dst)
}

// prefixLen returns the length of a contiguous mask that is width bits wide, or -1.
func prefixLen(mask U128, width int) int {
	for n := 0; n <= width; n++ {
		if mask == Ones(width).And(Ones(width-n).Not()) {
			return n
		}
	}
	return -1
}

func appendPrefix(dst []byte, v, mask U128, width int) []byte {
	addr := appendIPv6
	if width == 32 {
		addr = func(dst []byte, v U128) []byte { return appendIPv4(dst, v.Lo) }
	}
	dst = addr(dst, v)
	if mask == Ones(width) {
		return dst
	}
	dst = append(dst, '/')
	if n := prefixLen(mask, width); n >= 0 {
		return appendDec(dst, uint64(n))
	}
	return addr(dst, mask)
}

// appendFlags writes bits by name: a|b where the mask is all, else +a-b.
func appendFlags(dst []byte, names []string, v, mask, all uint64) []byte {
	if mask == all {
		if v == 0 {
			return append(dst, '0')
		}
		first := true
		for i, n := range names {
			if v>>i&1 != 0 {
				if !first {
					dst = append(dst, '|')
				}
				dst, first = append(dst, n...), false
			}
		}
		return dst
	}
	for i, n := range names {
		if mask>>i&1 != 0 {
			dst = append(dst, "-+"[v>>i&1])
			dst = append(dst, n...)
		}
	}
	return dst
}

func ctStateNames() []string {
	return []string{"new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"}
}

func tcpFlagNames() []string {
	return []string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"}
}

func tunFlagNames() []string { return []string{"oam"} }

// Bits of ip_frag (ovs-fields(7)): any fragment, and one that is not the first.
const (
	fragAny   = 1
	fragLater = 2
)

func fragName(v, mask uint64) string {
	switch v &= mask; mask {
	case fragAny | fragLater:
		return [4]string{"no", "first", "", "later"}[v]
	case fragAny:
		return [2]string{"no", "yes"}[v]
	case fragLater:
		return [3]string{"not_later", "", "later"}[v]
	}
	return ""
}

// portName is the name of a reserved port as ovs-ofctl prints it, or "".
func portName(port uint32) string {
	switch port {
	case PortUnset:
		return "UNSET"
	case PortInPort:
		return "IN_PORT"
	case PortTable:
		return "TABLE"
	case PortNormal:
		return "NORMAL"
	case PortFlood:
		return "FLOOD"
	case PortAll:
		return "ALL"
	case PortController:
		return "CONTROLLER"
	case PortLocal:
		return "LOCAL"
	case PortAny:
		return "ANY"
	}
	return ""
}

func appendPort(dst []byte, port uint32) []byte {
	if n := portName(port); n != "" {
		return append(dst, n...)
	}
	return appendDec(dst, uint64(port))
}

// appendFieldValue writes value[/mask] the way set_field does.
func appendFieldValue(dst []byte, f FieldID, v, mask U128) []byte {
	info, all := f.info(), Ones(f.Bits())
	exact := mask == all
	switch info.format {
	case fmtIPv4:
		return appendPrefix(dst, v, mask, 32)
	case fmtIPv6:
		return appendPrefix(dst, v, mask, 128)
	case fmtMAC:
		dst = appendMAC(dst, v.Lo)
		if !exact {
			dst = appendMAC(append(dst, '/'), mask.Lo)
		}
		return dst
	case fmtCtState:
		return appendFlags(dst, ctStateNames(), v.Lo, mask.Lo, all.Lo)
	case fmtTCPFlags:
		return appendFlags(dst, tcpFlagNames(), v.Lo, mask.Lo, all.Lo)
	case fmtTunFlags:
		return appendFlags(dst, tunFlagNames(), v.Lo, mask.Lo, all.Lo)
	case fmtFrag:
		return append(dst, fragName(v.Lo, mask.Lo)...)
	case fmtPort:
		dst = appendPort(dst, uint32(v.Lo))
	case fmtDec:
		dst = appendDec(dst, v.Lo)
	default:
		dst = appendHex128(dst, v)
	}
	if !exact {
		dst = appendHex128(append(dst, '/'), mask)
	}
	return dst
}

// appendHexBytes writes bytes as note and userdata do: 01.02.ff.
func appendHexBytes(dst []byte, data string) []byte {
	for i := range len(data) {
		if i > 0 {
			dst = append(dst, '.')
		}
		dst = append(dst, hexDigits[data[i]>>4], hexDigits[data[i]&15])
	}
	return dst
}
