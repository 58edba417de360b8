package policy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Bounds of a filter.
const (
	MaxFilterRules    = 256   // of one mirror
	MaxFilterMatches  = 4096  // that the rules of one mirror may take together: see [ParsedFilterRule.Matches]
	MaxFilterPriority = 32000 // of a rule
)

// EtherTypes with a name.
const (
	EtherIPv4 uint16 = 0x0800
	EtherARP  uint16 = 0x0806
	EtherIPv6 uint16 = 0x86dd
)

// ParsedFilter is a filter in numbers, its rules in the order in which they decide.
type ParsedFilter struct {
	Default bool // accept what no rule matches
	Rules   []ParsedFilterRule
}

// ParsedFilterRule is a rule in numbers. What is nil or zero is not restricted. A symmetric rule is two of them.
type ParsedFilterRule struct {
	Priority  int
	Accept    bool
	Direction string // MirrorFromSource, MirrorToSource, or MirrorBoth
	EtherType uint16
	Service   *ParsedService
	Src, Dst  []netip.Prefix
	TCPFlags  TCPFlags
	VLAN      *uint16 // 0 = packets without a tag, or with a priority tag
}

// TCPFlags asks for flags of TCP to be set and others to be clear, as bits of RFC 9293 §3.1.
type TCPFlags struct{ Set, Clear uint16 }

// tcpFlagNames are in the order of their bits.
var tcpFlagNames = []string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns"}

// ParseTCPFlags reads a text like "+syn-ack".
func ParseTCPFlags(s string) (f TCPFlags, err error) {
	const form = `must be flags that are set or clear, like "+syn-ack": `
	for rest := s; rest != ""; {
		sign := rest[0]
		if sign != '+' && sign != '-' {
			return TCPFlags{}, errors.New(form + "write + or - before each of " + strings.Join(tcpFlagNames, ", "))
		}
		end := strings.IndexAny(rest[1:], "+-") + 1
		if end == 0 {
			end = len(rest)
		}
		name := rest[1:end]
		rest = rest[end:]
		bit := slices.Index(tcpFlagNames, name)
		switch {
		case bit < 0:
			return TCPFlags{}, errors.New(form + "there is no flag " + quote(name))
		case (f.Set|f.Clear)>>bit&1 != 0:
			return TCPFlags{}, fmt.Errorf("names %s twice", name)
		case sign == '+':
			f.Set |= 1 << bit
		default:
			f.Clear |= 1 << bit
		}
	}
	return f, nil
}

// ParseEtherType reads ipv4, ipv6, arp or a number like "0x88cc".
func ParseEtherType(s string) (uint16, error) {
	switch s {
	case "ipv4":
		return EtherIPv4, nil
	case "ipv6":
		return EtherIPv6, nil
	case "arp":
		return EtherARP, nil
	}
	digits, ok := strings.CutPrefix(s, "0x")
	n, err := strconv.ParseUint(digits, 16, 32)
	switch {
	case !ok || err != nil:
		return 0, errors.New(`must be ipv4, ipv6, arp or a number in hexadecimal like "0x88cc"`)
	case n < 0x600 || n > 0xffff:
		return 0, fmt.Errorf("EtherType %s is outside the range 0x600-0xffff", shorten(s))
	case n == 0x8100 || n == 0x88a8:
		return 0, errors.New("is that of a VLAN tag: rules look behind it; write vlan for its number")
	}
	return uint16(n), nil
}

// ParseFilter reads a filter. It fails only on filters that Validate refuses.
func ParseFilter(f *MirrorFilter) (ParsedFilter, error) {
	out := ParsedFilter{Default: f.Default == FilterAccept}
	for i := range f.Rules {
		r, err := parseFilterRule(&f.Rules[i])
		if err != nil {
			return ParsedFilter{}, fmt.Errorf("rule %d: %w", i, err)
		}
		out.Rules = append(out.Rules, r)
		if f.Rules[i].Symmetric {
			out.Rules = append(out.Rules, r.reverse())
		}
	}
	slices.SortStableFunc(out.Rules, func(a, b ParsedFilterRule) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), -compareBools(!a.Accept, !b.Accept))
	})
	return out, nil
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func parseFilterRule(r *FilterRule) (out ParsedFilterRule, err error) {
	out = ParsedFilterRule{Priority: r.Priority, Accept: r.Action == FilterAccept, Direction: cmp.Or(r.Direction, MirrorBoth)}
	if r.EtherType != "" {
		if out.EtherType, err = ParseEtherType(r.EtherType); err != nil {
			return out, err
		}
	}
	if r.Protocol != "" {
		s, err := ParseService(&Service{Protocol: r.Protocol, Ports: r.DstPorts, SourcePorts: r.SrcPorts, Type: r.Type, Code: r.Code})
		if err != nil {
			return out, err
		}
		out.Service = &s
	}
	for _, x := range [...]struct {
		texts []string
		to    *[]netip.Prefix
	}{{r.Src, &out.Src}, {r.Dst, &out.Dst}} {
		for _, text := range x.texts {
			p, err := ParseCIDR(text)
			if err != nil {
				return out, err
			}
			*x.to = append(*x.to, p)
		}
	}
	if out.TCPFlags, err = ParseTCPFlags(r.TCPFlags); err != nil {
		return out, err
	}
	if r.VLAN != nil {
		v := uint16(*r.VLAN)
		out.VLAN = &v
	}
	return out, nil
}

// reverse is the rule for answers.
func (r ParsedFilterRule) reverse() ParsedFilterRule {
	r.Src, r.Dst = r.Dst, r.Src
	if r.Service != nil {
		s := *r.Service
		s.Ports, s.SourcePorts = s.SourcePorts, s.Ports
		r.Service = &s
	}
	switch r.Direction {
	case MirrorFromSource:
		r.Direction = MirrorToSource
	case MirrorToSource:
		r.Direction = MirrorFromSource
	}
	return r
}

// Families returns the IP versions whose packets the rule can match, 0 standing for one that may be of any kind; none = it matches nothing.
func (r *ParsedFilterRule) Families() []int {
	var out []int
	byAddress := func(v int) bool {
		is := func(p netip.Prefix) bool { return p.Addr().Is4() == (v == 4) }
		return (r.Src == nil || slices.ContainsFunc(r.Src, is)) && (r.Dst == nil || slices.ContainsFunc(r.Dst, is))
	}
	if r.Service == nil && r.Src == nil && r.Dst == nil && r.EtherType != EtherIPv4 && r.EtherType != EtherIPv6 {
		return []int{0}
	}
	for _, v := range []int{4, 6} {
		ether := map[int]uint16{4: EtherIPv4, 6: EtherIPv6}[v]
		switch {
		case r.EtherType != 0 && r.EtherType != ether:
		case r.Service != nil && protoFamily(r.Service.Proto) != 0 && protoFamily(r.Service.Proto) != v:
		case byAddress(v):
			out = append(out, v)
		}
	}
	return out
}

// Matches is how many matches the rule takes on a switch: each address range of one side with each of the other, and so the ports, a range
// of which is one match for each power of two in it.
func (r *ParsedFilterRule) Matches() int {
	n := 0
	for _, v := range r.Families() {
		n += addressesOf(r.Src, v) * addressesOf(r.Dst, v)
	}
	if s := r.Service; s != nil {
		n *= max(1, masks(s.Ports)) * max(1, masks(s.SourcePorts))
	}
	return n
}

func addressesOf(ps []netip.Prefix, v int) int {
	if ps == nil || v == 0 {
		return 1
	}
	n := 0
	for _, p := range ps {
		if p.Addr().Is4() == (v == 4) {
			n++
		}
	}
	return n
}

// AsksForDirection reports whether a rule decides by the way that a packet goes.
func (f *MirrorFilter) AsksForDirection() bool {
	return f != nil && slices.ContainsFunc(f.Rules, func(r FilterRule) bool {
		return r.Direction == MirrorFromSource || r.Direction == MirrorToSource
	})
}

// Sighting is a packet as it was seen at a source, for [ParsedFilter.Accepts].
type Sighting struct {
	// Direction is which way it went: MirrorFromSource, MirrorToSource, or MirrorBoth if no rule of the filter asks.
	Direction        string
	EtherType        uint16 // behind VLAN tags
	VLAN             uint16 // 0 = none
	Src, Dst         netip.Addr
	Proto            uint8
	Dropped          bool // it left the bridge nowhere
	Later            bool // a fragment behind the first, which has nothing of the following
	SrcPort, DstPort uint16
	Type, Code       uint8
	TCPFlags         uint16
}

// Copies says how many copies of a packet each target of a mirror gets, which a source of it sent (from) or received (to), or both: one,
// or none. Only if rules ask for the direction is a packet between two sources judged once for each. It is what compiled mirrors are tested
// against; p.Direction is not looked at. A mirror that samples takes so many or none, and one that balances gives them to one of its
// targets: whatever it does with one packet of a [Session] it does with all.
func (s *MirrorSpec) Copies(p Sighting, from, to bool) (n int) {
	filter := ParsedFilter{Default: true}
	if s.Filter != nil {
		var err error
		if filter, err = ParseFilter(s.Filter); err != nil {
			return 0
		}
	}
	from = from && !(s.CapturePoint == CaptureDelivered && p.Dropped)
	judge := func(seen bool, direction string) {
		if p.Direction = direction; seen && filter.Accepts(&p) {
			n++
		}
	}
	switch {
	case s.Direction == MirrorFromSource:
		judge(from, MirrorFromSource)
	case s.Direction == MirrorToSource:
		judge(to, MirrorToSource)
	case s.Filter.AsksForDirection():
		judge(from, MirrorFromSource)
		judge(to, MirrorToSource)
	default:
		judge(from || to, MirrorBoth)
	}
	return n
}

// Accepts says whether the filter takes the packet.
func (f *ParsedFilter) Accepts(p *Sighting) bool {
	for i := range f.Rules {
		if f.Rules[i].matches(p) {
			return f.Rules[i].Accept
		}
	}
	return f.Default
}

func (r *ParsedFilterRule) matches(p *Sighting) bool {
	ip := p.EtherType == EtherIPv4 || p.EtherType == EtherIPv6
	in := func(ps []netip.Prefix, a netip.Addr) bool {
		return ps == nil || ip && slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	switch {
	case r.Direction != MirrorBoth && r.Direction != p.Direction:
	case r.EtherType != 0 && r.EtherType != p.EtherType:
	case r.VLAN != nil && *r.VLAN != p.VLAN:
	case !in(r.Src, p.Src) || !in(r.Dst, p.Dst):
	case r.Service != nil && !(ip && r.Service.seenIn(p)):
	case r.TCPFlags != (TCPFlags{}) && (p.Later || p.TCPFlags&r.TCPFlags.Set != r.TCPFlags.Set || p.TCPFlags&r.TCPFlags.Clear != 0):
	default:
		return true
	}
	return false
}

func (s *ParsedService) seenIn(p *Sighting) bool {
	in := func(rs []PortRange, port uint16) bool {
		return rs == nil || !p.Later && slices.ContainsFunc(rs, func(r PortRange) bool { return r.Contains(port) })
	}
	is := func(want *uint8, have uint8) bool { return want == nil || !p.Later && *want == have }
	family := map[uint16]int{EtherIPv4: 4, EtherIPv6: 6}[p.EtherType]
	return s.Proto == p.Proto && (protoFamily(s.Proto) == 0 || protoFamily(s.Proto) == family) &&
		in(s.Ports, p.DstPort) && in(s.SourcePorts, p.SrcPort) && is(s.Type, p.Type) && is(s.Code, p.Code)
}
