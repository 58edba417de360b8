package policy

import "strings"

// filter checks a mirror's filter.
func (c *checker) filter(at pointer, f *MirrorFilter) {
	before, accepts, matches := len(c.faults), f.Default == FilterAccept, 0
	c.oneOf(at.field("default"), f.Default, FilterAccept, FilterReject)
	rules := at.field("rules")
	if n := len(f.Rules); n > MaxFilterRules {
		c.addf(rules, nil, "has %d rules; at most %d are possible", n, MaxFilterRules)
		return
	}
	for i := range f.Rules {
		r := &f.Rules[i]
		c.filterRule(rules.at(i), r)
		accepts = accepts || r.Action == FilterAccept
		if p, err := parseFilterRule(r); err == nil {
			n := p.Matches()
			if r.Symmetric {
				n *= 2
			}
			matches += n
		}
	}
	switch {
	case len(c.faults) > before:
	case !accepts:
		c.addf(at, nil, "accepts nothing: add a rule with action accept, or write default: accept")
	case matches > MaxFilterMatches:
		c.addf(rules, nil, "take %d matches on the switch (each address range of src with each of dst and each part of a port range); "+
			"at most %d are possible: use fewer or wider ranges", matches, MaxFilterMatches)
	}
}

func (c *checker) filterRule(at pointer, r *FilterRule) {
	if r.Priority < 0 || r.Priority > MaxFilterPriority {
		c.addf(at.field("priority"), r.Priority, "priority %d is outside the range 0-%d", r.Priority, MaxFilterPriority)
	}
	if r.Action == "" {
		c.addf(at.field("action"), nil, "is required: accept or reject")
	}
	c.oneOf(at.field("action"), r.Action, FilterAccept, FilterReject)
	c.oneOf(at.field("direction"), r.Direction, MirrorBoth, MirrorFromSource, MirrorToSource)
	ether := uint16(0)
	if r.EtherType != "" {
		var err error
		if ether, err = ParseEtherType(r.EtherType); err != nil {
			c.addf(at.field("etherType"), r.EtherType, "%s", err)
		}
	}
	for _, x := range [...]struct {
		name  string
		texts []string
	}{{"src", r.Src}, {"dst", r.Dst}} {
		for i, text := range x.texts {
			if _, err := ParseCIDR(text); err != nil {
				c.addf(at.path(x.name, i), text, "%s", err)
			}
		}
		if x.texts != nil && len(x.texts) == 0 {
			c.addf(at.field(x.name), nil, "must not be empty: leave it out for every address")
		}
	}
	notIP := ether != 0 && ether != EtherIPv4 && ether != EtherIPv6
	if notIP && (r.Src != nil || r.Dst != nil || r.Protocol != "") {
		c.addf(at.field("etherType"), r.EtherType, "is not IP, so the rule cannot have src, dst or protocol")
	}
	c.filterProtocol(at, r, ether)
	if r.VLAN != nil && (*r.VLAN < 0 || *r.VLAN > 4094) {
		c.addf(at.field("vlan"), *r.VLAN, "VLAN %d is outside the range 0-4094, where 0 means none", *r.VLAN)
	}
}

// filterProtocol checks what goes with a protocol.
func (c *checker) filterProtocol(at pointer, r *FilterRule, ether uint16) {
	var proto uint8
	if r.Protocol != "" {
		var err error
		if proto, err = r.Protocol.Number(); err != nil {
			c.addf(at.field("protocol"), string(r.Protocol), "%s", err)
			return
		}
		if v := protoFamily(proto); v == 4 && ether == EtherIPv6 || v == 6 && ether == EtherIPv4 {
			c.addf(at.field("protocol"), string(r.Protocol), "is no protocol of %s", r.EtherType)
		}
	}
	for _, x := range [...]struct {
		name  string
		texts []string
	}{{"srcPorts", r.SrcPorts}, {"dstPorts", r.DstPorts}} {
		switch {
		case x.texts == nil:
		case len(x.texts) == 0:
			c.addf(at.field(x.name), nil, "must not be empty: leave it out for every port")
		case !hasPorts(proto):
			c.addf(at.field(x.name), strings.Join(x.texts, ","), "go with protocol: tcp, udp or sctp")
		}
		for i, text := range x.texts {
			if _, err := ParsePortRange(text); err != nil {
				c.addf(at.path(x.name, i), text, "%s", err)
			}
		}
	}
	for _, x := range [...]struct {
		name  string
		value *int
	}{{"type", r.Type}, {"code", r.Code}} {
		switch {
		case x.value == nil:
		case !isICMP(proto):
			c.addf(at.field(x.name), *x.value, "goes with protocol: icmp or icmpv6")
		case *x.value < 0 || *x.value > 255:
			c.addf(at.field(x.name), *x.value, "%d is outside the range 0-255", *x.value)
		}
	}
	if r.Code != nil && r.Type == nil {
		c.addf(at.field("code"), *r.Code, "goes with a type")
	}
	if r.Symmetric && r.Type != nil {
		c.addf(at.field("symmetric"), true, "cannot go with a type of ICMP, whose answers have another: write a rule for each")
	}
	if r.TCPFlags != "" {
		if proto != ProtoTCP {
			c.addf(at.field("tcpFlags"), r.TCPFlags, "goes with protocol: tcp")
		}
		if _, err := ParseTCPFlags(r.TCPFlags); err != nil {
			c.addf(at.field("tcpFlags"), r.TCPFlags, "%s", err)
		}
	}
}
