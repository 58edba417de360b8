package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Session is what a mirror that samples or balances treats alike: the packets between two addresses, in both directions, of one protocol
// and, with TCP and SCTP, of one pair of ports. It goes by no ports of UDP, because fragments have none and those of UDP are common.
// Packets that are no IP are one session together.
type Session struct {
	Addrs [2]netip.Addr
	Ports [2]uint16
	Proto uint8
}

// Session is that of a packet. A fragment of TCP or SCTP behind the first is of a session without ports.
func (p *Sighting) Session() (s Session) {
	if p.EtherType != EtherIPv4 && p.EtherType != EtherIPv6 {
		return s
	}
	s.Proto = p.Proto
	if s.Addrs = [2]netip.Addr{p.Src, p.Dst}; p.Dst.Less(p.Src) {
		s.Addrs = [2]netip.Addr{p.Dst, p.Src}
	}
	if !p.Later && (p.Proto == ProtoTCP || p.Proto == ProtoSCTP) {
		s.Ports = [2]uint16{min(p.SrcPort, p.DstPort), max(p.SrcPort, p.DstPort)}
	}
	return s
}

// ParseShare reads "1/4" and returns the 4, at most 65536.
func ParseShare(text string) (int, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "1/"), 10, 32)
	if !strings.HasPrefix(text, "1/") || err != nil || n < 1 || n > maxShare {
		return 0, fmt.Errorf(`must be one of so many, like "1/4", at most 1/%d`, maxShare)
	}
	return int(n), nil
}

// OneOf is the number of sessions of which the mirror takes one; 1 = it takes all.
func (s *MirrorSample) OneOf() int {
	if s == nil {
		return 1
	}
	return oneOf(s.Sessions)
}

// oneOf is the number in a share; 1 = there is none, or one that Validate does not let through.
func oneOf(share string) int {
	n, err := ParseShare(share)
	if err != nil {
		return 1
	}
	return n
}

// Limited reports whether there is a bound on packets per second.
func (s *MirrorSample) Limited() bool { return s != nil && s.MaxPacketsPerSecond > 0 }

// The values of MirrorBalance.Hash and, beside "tcp:PORT", MirrorBalance.Probe.
const (
	BalanceSymmetric = "symmetric"
	ProbeNone        = "none"
	ProbeARP         = "arp"
	ProbeICMP        = "icmp"
	probeTCP         = "tcp:"
)

// ProbePort is the port of a probe by TCP; 0 = it is none.
func (b *MirrorBalance) ProbePort() uint16 {
	text, tcp := strings.CutPrefix(b.Probe, probeTCP)
	if !tcp {
		return 0
	}
	port, err := parsePort(text)
	if err != nil {
		return 0 // Validate lets none of these through
	}
	return port
}

func (c *checker) balance(at pointer, b *MirrorBalance, targets int) {
	if b.Hash == "" {
		c.addf(at.field("hash"), nil, "is required: symmetric")
	}
	c.oneOf(at.field("hash"), b.Hash, BalanceSymmetric)
	switch port, tcp := strings.CutPrefix(b.Probe, probeTCP); {
	case !tcp:
		c.oneOf(at.field("probe"), b.Probe, ProbeNone, ProbeARP, ProbeICMP, `"tcp:PORT"`)
	default:
		if _, err := parsePort(port); err != nil {
			c.addf(at.field("probe"), b.Probe, "%s", err)
		}
	}
	if targets == 1 {
		c.addf(at, nil, "has one target to balance over; give two or more, or leave it out")
	}
}
