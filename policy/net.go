package policy

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// PortRange is a range of transport ports, both ends inclusive. Where documents write it, 1 <= Lo.
type PortRange struct{ Lo, Hi uint16 }

// Contains reports whether the range has the port.
func (r PortRange) Contains(port uint16) bool { return r.Lo <= port && port <= r.Hi }

// String is "80" or "8000-8099".
func (r PortRange) String() string {
	if r.Lo == r.Hi {
		return strconv.Itoa(int(r.Lo))
	}
	return fmt.Sprintf("%d-%d", r.Lo, r.Hi)
}

// ParsePortRange reads "80", "8000-8099" or a name of [PortNames]. The error says what is allowed.
func ParsePortRange(s string) (PortRange, error) {
	if s != "" && !isDigits(s[:1]) {
		return namedPorts(s)
	}
	lo, hi, isRange := strings.Cut(s, "-")
	if !isRange {
		hi = lo
	}
	var r PortRange
	var err error
	if r.Lo, err = parsePort(lo); err != nil {
		return PortRange{}, err
	}
	if r.Hi, err = parsePort(hi); err != nil {
		return PortRange{}, err
	}
	if r.Lo > r.Hi {
		return PortRange{}, fmt.Errorf("the range is reversed: write %q", fmt.Sprintf("%d-%d", r.Hi, r.Lo))
	}
	return r, nil
}

func parsePort(s string) (uint16, error) {
	if !isDigits(s) {
		return 0, errors.New(portForm)
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n < 1 || n > 65535 {
		return 0, fmt.Errorf("port %s is outside the range 1-65535", shorten(s))
	}
	if s[0] == '0' {
		return 0, fmt.Errorf("write the port without leading zeros: %q", strconv.FormatUint(n, 10))
	}
	return uint16(n), nil
}

func isDigits(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' }) < 0
}

func joinRanges(rs []PortRange) []PortRange {
	slices.SortFunc(rs, func(a, b PortRange) int { return cmp.Or(cmp.Compare(a.Lo, b.Lo), cmp.Compare(a.Hi, b.Hi)) })
	out := rs[:0]
	for _, r := range rs {
		if n := len(out); n > 0 && int(r.Lo) <= int(out[n-1].Hi)+1 {
			out[n-1].Hi = max(out[n-1].Hi, r.Hi)
			continue
		}
		out = append(out, r)
	}
	return out
}

// ParseCIDR reads an address range strictly: with a length, no bits set beyond it, no zone, and IPv4 as IPv4. The error says what
// to write instead where that can be guessed.
func ParseCIDR(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
			a = a.Unmap()
			return netip.Prefix{}, fmt.Errorf("a single address is written with its length: %q", netip.PrefixFrom(a, a.BitLen()))
		}
		return netip.Prefix{}, cidrError(s)
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, errors.New("IPv4 inside IPv6 is not accepted: write the IPv4 range")
	}
	if m := p.Masked(); m != p {
		return netip.Prefix{}, fmt.Errorf("has bits set beyond /%d: write %q for the range or %q for the address", p.Bits(), m,
			netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
	}
	return p, nil
}

// ParseAllowed reads an address, or a range of addresses, that an endpoint may send from.
func ParseAllowed(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" || a.Is4In6() || a.IsMulticast() || a.IsUnspecified() {
			return netip.Prefix{}, errors.New("must be the plain address of one host, or a range")
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return ParseCIDR(s)
}

// cidrError explains what ParsePrefix refused.
func cidrError(s string) error {
	addr, bits, ok := strings.Cut(s, "/")
	if a, err := netip.ParseAddr(addr); ok && err == nil && a.Zone() == "" && isDigits(bits) {
		if n, err := strconv.Atoi(bits); err != nil || n > a.BitLen() {
			return fmt.Errorf("the length /%s is outside the range 0-%d", shorten(bits), a.BitLen())
		}
	}
	return errors.New(`must be an address range like "10.0.0.0/24" or "2001:db8::/32"`)
}

// CIDRMinus returns what is left of a range without the excepted ones: the smallest set of disjoint ranges, in order.
// Excepted ranges of the other family or outside of cidr take nothing away.
func CIDRMinus(cidr netip.Prefix, except []netip.Prefix) []netip.Prefix {
	cidr = cidr.Masked()
	inside := make([]netip.Prefix, 0, len(except))
	for _, e := range except {
		if e = e.Masked(); !e.Overlaps(cidr) {
			continue
		}
		if e.Bits() <= cidr.Bits() {
			return nil // the whole range is taken away
		}
		inside = append(inside, e)
	}
	if len(inside) == 0 {
		return []netip.Prefix{cidr}
	}
	// Halving is minimal: a half without exceptions is whole, and two whole halves would have been one.
	low, high := halves(cidr)
	return append(CIDRMinus(low, inside), CIDRMinus(high, inside)...)
}

// halves splits a range that is longer than one address.
func halves(p netip.Prefix) (low, high netip.Prefix) {
	n := p.Bits()
	b := p.Addr().AsSlice()
	low = netip.PrefixFrom(p.Addr(), n+1)
	b[n/8] |= 0x80 >> (n % 8)
	a, _ := netip.AddrFromSlice(b)
	return low, netip.PrefixFrom(a, n+1)
}

// Prefixes returns the address ranges of a cidr selector: CIDR without Except. It fails only on selectors that Validate refuses.
func (s Selector) Prefixes() ([]netip.Prefix, error) {
	p, err := ParseCIDR(s.CIDR)
	switch {
	case err != nil:
		return nil, err
	case len(s.Except) == 0:
		return []netip.Prefix{p}, nil
	}
	except := make([]netip.Prefix, 0, len(s.Except))
	for _, e := range s.Except {
		x, err := ParseCIDR(e)
		if err != nil {
			return nil, err
		}
		except = append(except, x)
	}
	return CIDRMinus(p, except), nil
}

// ParseMAC reads a unicast MAC in colon form and returns it in lower case.
func ParseMAC(s string) (string, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 || strings.Count(s, ":") != 5 {
		return "", fmt.Errorf("must be a MAC address like %q", "52:54:00:12:34:56")
	}
	if hw[0]&1 != 0 {
		return "", fmt.Errorf("is a multicast or broadcast address, not that of one endpoint")
	}
	if [6]byte(hw) == [6]byte{} {
		return "", fmt.Errorf("is all zeros")
	}
	return hw.String(), nil
}
