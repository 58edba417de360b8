package flow

import "fmt"

// ParseMatch reads a match as Match.String writes it, and the other spellings of ovs-fields(7) and ovs-ofctl(8): names
// and aliases of fields, protocol abbreviations, dl_vlan, tp_src, nw_tos, sub-fields such as reg0[0..3]=5. The result
// is in normal form and valid. The error is a *[ParseError].
func ParseMatch(s string) (Match, error) {
	var p matchParser
	sc := scanner{s: s}
	for {
		it, ok, err := sc.next()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		if known, err := p.item(&it); err != nil {
			return nil, err
		} else if !known {
			return nil, it.errorf("%q is not a field", it.key)
		}
	}
	return p.finish(Match.validate)
}

// matchParser gathers terms. Names that mean one field or another by the protocol wait until all is read.
type matchParser struct {
	m     Match
	at    [numFields]item // where each field was named
	later []laterItem
}

type laterItem struct {
	item
	choose func(m Match) (FieldID, string)
}

// item takes one part of a match; known is false if it is none.
func (p *matchParser) item(it *item) (known bool, err error) {
	if it.delim == 0 {
		for _, a := range protocolsRead() {
			if a.name == it.key {
				err := p.add(it, EthType, U64(uint64(a.ethType)), Ones(16))
				if err == nil && a.proto >= 0 {
					err = p.add(it, IPProto, U64(uint64(a.proto)), Ones(8))
				}
				return true, err
			}
		}
	}
	if choose := chooser(it.key); choose != nil {
		p.later = append(p.later, laterItem{*it, choose})
		return true, p.wantValue(it)
	}
	switch it.key {
	case "dl_vlan":
		return true, p.vlanID(it)
	case "dl_vlan_pcp", "vlan_pcp":
		if err := p.field(it, VlanPCP); err != nil {
			return true, err
		}
		return true, p.add(it, VlanVID, U64(tciPresent), U64(tciPresent))
	case "nw_tos":
		if err := p.wantValue(it); err != nil {
			return true, err
		}
		v, err := parseUint(it.value, 8)
		if err == nil && v&3 != 0 {
			err = fmt.Errorf("the low two bits are those of nw_ecn")
		}
		if err != nil {
			return true, it.errorf("%v", err)
		}
		return true, p.add(it, IPDSCP, U64(v>>2), Ones(6))
	}
	if f, ok := FieldByName(it.key); ok {
		return true, p.field(it, f)
	}
	if n := len(it.key); n > 0 && it.key[n-1] == ']' {
		return true, p.subField(it)
	}
	return false, nil
}

// protocolsRead adds to the names that are printed those that are only read.
func protocolsRead() []protocolName {
	return append(protocols(), protocolName{"ipv4", EthTypeIPv4, -1}, protocolName{"ip4", EthTypeIPv4, -1}, protocolName{"ip6", EthTypeIPv6,
		-1})
}

// chooser returns how to tell which field a name means, or nil for a name that means one.
func chooser(name string) func(m Match) (FieldID, string) {
	byProto := func(need string, choices map[uint64]FieldID) func(Match) (FieldID, string) {
		return func(m Match) (FieldID, string) {
			proto, _ := m.exact(IPProto)
			return choices[proto], need
		}
	}
	byType := func(arp, other FieldID) func(Match) (FieldID, string) {
		return func(m Match) (FieldID, string) {
			if t, _ := m.exact(EthType); t == EthTypeARP || t == ethTypeRARP {
				return arp, ""
			}
			return other, ""
		}
	}
	switch name {
	case "tp_src":
		return byProto("tcp, udp or sctp", map[uint64]FieldID{ProtoTCP: TCPSrc, ProtoUDP: UDPSrc, ProtoSCTP: SCTPSrc})
	case "tp_dst":
		return byProto("tcp, udp or sctp", map[uint64]FieldID{ProtoTCP: TCPDst, ProtoUDP: UDPDst, ProtoSCTP: SCTPDst})
	case "icmp_type":
		return byProto("icmp or icmp6", map[uint64]FieldID{ProtoICMP: ICMPType, ProtoICMPv6: ICMPv6Type})
	case "icmp_code":
		return byProto("icmp or icmp6", map[uint64]FieldID{ProtoICMP: ICMPCode, ProtoICMPv6: ICMPv6Code})
	case "nw_src", "ip_src":
		return byType(ARPSpa, IPSrc)
	case "nw_dst", "ip_dst":
		return byType(ARPTpa, IPDst)
	case "nw_proto", "ip_proto":
		return byType(ARPOp, IPProto)
	}
	return nil
}

func (p *matchParser) wantValue(it *item) error {
	if it.delim != '=' && it.delim != ':' || it.value == "" {
		return it.errorf("a value is missing")
	}
	return nil
}

func (p *matchParser) field(it *item, f FieldID) error {
	if err := p.wantValue(it); err != nil {
		return err
	}
	v, mask, err := parseFieldValue(f, it.value)
	if err != nil {
		return it.errorf("%v", err)
	}
	return p.add(it, f, v, mask)
}

// vlanID reads dl_vlan, which counts without the present bit; 0xffff means no tag.
func (p *matchParser) vlanID(it *item) error {
	if err := p.wantValue(it); err != nil {
		return err
	}
	v, err := parseUint(it.value, 16)
	switch {
	case err != nil:
		return it.errorf("%v", err)
	case v == 0xffff:
		return p.add(it, VlanVID, U128{}, Ones(13))
	case v > tciVID:
		return it.errorf("a VLAN id is 0..4095, or 0xffff for no tag")
	}
	return p.add(it, VlanVID, U64(v|tciPresent), Ones(13))
}

func (p *matchParser) subField(it *item) error {
	if err := p.wantValue(it); err != nil {
		return err
	}
	sf, err := parseSubField(it.key)
	var v, mask U128
	if err == nil {
		v, mask, err = parseMasked(it.value, int(sf.Bits))
	}
	if err == nil && mask.Shl(int(sf.Ofs)) != Ones(sf.Field.Bits()) && !sf.Field.Maskable() {
		err = fmt.Errorf("%s cannot be masked", sf.Field)
	}
	if err != nil {
		return it.errorf("%v", err)
	}
	return p.add(it, sf.Field, v.And(mask).Shl(int(sf.Ofs)), mask.Shl(int(sf.Ofs)))
}

// add merges a term into the match; saying a thing twice is fine, saying two things is not.
func (p *matchParser) add(it *item, f FieldID, v, mask U128) error {
	if have, ok := p.m.Get(f); ok {
		both := have.Mask.And(mask)
		if have.Value.And(both) != v.And(both) {
			return it.errorf("contradicts %q at %d", p.at[f].text, p.at[f].off)
		}
		v, mask = v.Or(have.Value), mask.Or(have.Mask)
	}
	p.m = p.m.WithMasked(f, v, mask)
	p.at[f] = *it
	return nil
}

// finish settles what waited for the protocol and has the match checked.
func (p *matchParser) finish(validate func(Match) (FieldID, error)) (Match, error) {
	// nw_proto first: the others depend on it.
	for _, protoTurn := range [...]bool{true, false} {
		for i := range p.later {
			it := &p.later[i]
			if (it.key == "nw_proto" || it.key == "ip_proto") != protoTurn {
				continue
			}
			f, need := it.choose(p.m)
			if f == 0 {
				return nil, invalidAt(&it.item, invalidf("%s needs %s", it.key, need))
			}
			if err := p.field(&it.item, f); err != nil {
				return nil, err
			}
		}
	}
	if f, err := validate(p.m); err != nil {
		it := &p.at[0]
		if f.Valid() {
			it = &p.at[f]
		}
		return nil, invalidAt(it, err)
	}
	return p.m.Normalize(), nil
}

// invalidAt ties what Validate says to its place in the text.
func invalidAt(it *item, err error) error {
	e := errorAt(it.off, it.text, "%s", trimSentinel(err)).(*ParseError)
	e.Err = err
	return e
}
