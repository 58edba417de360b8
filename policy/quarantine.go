package policy

import (
	"net/netip"
	"time"
)

// Quarantine takes what it matches off the network, before conntrack and before every policy.
type Quarantine struct {
	Meta
	Spec QuarantineSpec `json:"spec"`
}

// QuarantineSpec says who is cut off, from what, and for how long. A packet to or from a quarantined port passes only if it is on the pass
// list, and then still has to pass the policies: a quarantine never allows what they deny.
type QuarantineSpec struct {
	// Match selects by port (any of an owned bridge, whether an endpoint's or not), vm (all of its ports), neutronPort or mac.
	Match Selector `json:"match"`
	// Mode is drop (default) or dns: the same, but the machine may ask everybody by DNS, and gets the answers.
	Mode string `json:"mode,omitempty"`
	// Until is when it ends by itself; nil = when it is deleted.
	Until *time.Time `json:"until,omitempty"`
	// Pass lists whom the machine may still talk with, in both directions.
	Pass []Passage `json:"pass,omitempty"`
	// Reason is for people.
	Reason string `json:"reason,omitempty"`
}

// Passage is one entry of a pass list: addresses, and which services of them; absent Services means all IP.
type Passage struct {
	CIDR     string          `json:"cidr"` // an address or a prefix
	Services []PassedService `json:"services,omitempty"`
	// Asks: the machine opens the connections, and nobody else. It goes with Services.
	Asks bool `json:"-"`
}

// PassedService is a protocol, with ports of those that CIDR names: what the machine sends goes there, what it gets comes from there.
type PassedService struct {
	Protocol string   `json:"protocol"` // tcp | udp | icmp | icmpv6
	Ports    []string `json:"ports,omitempty"`
}

// Parse returns the IP protocol and the ports; nil ports are all.
func (s *PassedService) Parse() (proto uint8, ports []PortRange, err error) {
	x, err := ParseService(&Service{Protocol: Protocol(s.Protocol), Ports: s.Ports})
	return x.Proto, x.Ports, err
}

// The values of QuarantineSpec.Mode.
const (
	QuarantineDrop = "drop"
	QuarantineDNS  = "dns"
)

// Bounds of a quarantine.
const (
	MaxPassages     = 64  // of one quarantine
	MaxReasonLength = 500 // bytes
)

// KindQuarantine is that of *Quarantine.
const KindQuarantine Kind = "Quarantine"

// Kind implements Resource.
func (*Quarantine) Kind() Kind { return KindQuarantine }

// Clone implements Resource.
func (q *Quarantine) Clone() Resource { return clone(q) }

// WithDefaults implements Resource: the mode.
func (q *Quarantine) WithDefaults() Resource {
	c := clone(q)
	if c.Spec.Mode == "" {
		c.Spec.Mode = QuarantineDrop
	}
	return c
}

// dnsPort is that of RFC 1035 §4.2.
const dnsPort = "53"

// PassList is who may still be talked with; empty = nobody. By DNS the machine asks: whoever calls from port 53 could be anybody.
func (q *Quarantine) PassList() []Passage {
	out := q.Spec.Pass
	if q.Spec.Mode == QuarantineDNS {
		dns := []PassedService{{Protocol: "udp", Ports: []string{dnsPort}}, {Protocol: "tcp", Ports: []string{dnsPort}}}
		out = append(out[:len(out):len(out)], Passage{CIDR: "0.0.0.0/0", Services: dns, Asks: true},
			Passage{CIDR: "::/0", Services: dns, Asks: true})
	}
	return out
}

// Prefix is the passage's CIDR; an address is the prefix of itself alone.
func (p *Passage) Prefix() (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(p.CIDR); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), a.Zone() == "" && !a.Is4In6()
	}
	x, err := netip.ParsePrefix(p.CIDR)
	return x, err == nil && x == x.Masked() && !x.Addr().Is4In6()
}

// Validate implements Resource.
func (q *Quarantine) Validate() Faults {
	var c checker
	var root pointer
	c.meta(&root, &q.Meta)
	spec := root.field("spec")
	c.selector(spec.field("match"), &q.Spec.Match, asMatch)
	c.oneOf(spec.field("mode"), q.Spec.Mode, QuarantineDrop, QuarantineDNS)
	pass := spec.field("pass")
	if q.Spec.Pass != nil && len(q.Spec.Pass) == 0 {
		c.addf(pass, nil, "an empty list passes nobody: leave it out")
	}
	if n := len(q.Spec.Pass); n > MaxPassages {
		c.add(Fault{Pointer: pass.String(), Code: CodeTooLarge, Detail: "has more entries than a pass list may have; use prefixes"})
		return c.faults
	}
	for i := range q.Spec.Pass {
		p := &q.Spec.Pass[i]
		at := pass.at(i)
		if _, ok := p.Prefix(); p.CIDR == "" {
			c.addf(at.field("cidr"), nil, "is required")
		} else if !ok {
			c.addf(at.field("cidr"), p.CIDR, "must be an IPv4 or IPv6 address, or a prefix without bits behind its length")
		}
		services := at.field("services")
		if p.Services != nil && len(p.Services) == 0 {
			c.addf(services, nil, "an empty list matches nothing; leave it out for all IP")
		}
		for j, s := range p.Services {
			switch s.Protocol {
			case "tcp", "udp", "icmp", "icmpv6":
				c.service(services.at(j), &Service{Protocol: Protocol(s.Protocol), Ports: s.Ports})
			default:
				c.addf(services.path(j, "protocol"), s.Protocol, "must be tcp, udp, icmp or icmpv6")
			}
		}
	}
	if len(q.Spec.Reason) > MaxReasonLength {
		c.addf(spec.field("reason"), q.Spec.Reason, "is longer than %d bytes", MaxReasonLength)
	} else if !isPrintable(q.Spec.Reason) {
		c.addf(spec.field("reason"), q.Spec.Reason, "must be printable text")
	}
	return c.faults
}
