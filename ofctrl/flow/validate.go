package flow

import "fmt"

// Validate reports what a switch speaking OpenFlow 1.3 would refuse about m, or print back as something else: a missing
// prerequisite, a mask wider than its field or not allowed, terms that contradict each other. The error matches
// ErrInvalid and names the field.
func (m Match) Validate() error {
	_, err := m.validate()
	return err
}

func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// validate is Validate with the field that is wrong.
func (m Match) validate() (FieldID, error) {
	last := FieldID(0)
	for _, t := range m {
		f := t.Field
		all := Ones(f.Bits())
		switch {
		case !f.Valid():
			return f, invalidf("%s is not a field", f)
		case f <= last:
			return f, invalidf("%s is out of order or given twice", f)
		case t.Mask.IsZero():
			return f, invalidf("%s has an empty mask", f)
		case t.Mask != t.Mask.And(all):
			return f, invalidf("mask of %s is wider than %d bits", f, f.Bits())
		case t.Value != t.Value.And(t.Mask):
			return f, invalidf("%s has bits outside its mask", f)
		case t.Mask != all && !f.Maskable():
			return f, invalidf("%s cannot be masked", f)
		}
		last = f
	}
	var r regs
	if f := r.gather(m); f != 0 {
		return f, invalidf("%s contradicts a register that it overlays", f)
	}
	if t, ok := m.Get(VlanTCI); ok {
		_, vid := m.Get(VlanVID)
		_, pcp := m.Get(VlanPCP)
		if vid || pcp {
			return VlanTCI, invalidf("vlan_tci beside vlan_vid or vlan_pcp")
		}
		if n := normalTCI(nil, t); len(n) == 1 && n[0].Field == VlanTCI {
			return VlanTCI, invalidf("OpenFlow 1.3 cannot match vlan_tci=0x%04x/0x%04x", t.Value.Lo, t.Mask.Lo)
		}
	}
	n := m.Normalize()
	for _, t := range n {
		if need := n.missing(t.Field.info().prereq); need != "" {
			return t.Field, invalidf("%s needs %s", t.Field, need)
		}
		if why := t.impossible(); why != "" {
			return t.Field, invalidf("%s", why)
		}
	}
	return 0, nil
}

// impossible says what is wrong with the value of t alone.
func (t Term) impossible() string {
	v := t.Value.Lo
	switch t.Field {
	case ARPOp:
		if v > 0xff {
			return "arp_op above 255 is not seen by Open vSwitch"
		}
	case IPFrag:
		switch {
		case fragName(v, t.Mask.Lo) == "":
			return "a later fragment is a fragment: nw_frag=later has both bits"
		case t.Mask.Lo == fragAny && v == 0, t.Mask.Lo == fragLater && v != 0:
			return fmt.Sprintf("nw_frag=%s must have both bits in its mask", fragName(v, t.Mask.Lo))
		}
	case InPort, ActsetOutput:
		if v > 0xfeff && v < uint64(PortUnset) {
			return fmt.Sprintf("%d is not a port of Open vSwitch", v)
		}
	}
	return ""
}

// missing returns what of p a normal match lacks, in the words of ovs-fields(7), or "".
func (m Match) missing(p prereq) string {
	ethType, _ := m.exact(EthType)
	proto, hasProto := m.exact(IPProto)
	frag, _ := m.Get(IPFrag)
	isIP := ethType == EthTypeIPv4 || ethType == EthTypeIPv6
	transport := func(name string, want uint64) string {
		switch {
		case !isIP || !hasProto || proto != want:
			return name + " or " + name + "6"
		case frag.Value.Lo&fragLater != 0:
			return "a packet that is not a later fragment"
		}
		return ""
	}
	need := func(ok bool, what string) string {
		if ok {
			return ""
		}
		return what
	}
	switch p {
	case preNone:
		return ""
	case preIPv4:
		return need(ethType == EthTypeIPv4, "ip")
	case preIPv6:
		return need(ethType == EthTypeIPv6, "ipv6")
	case preIP:
		return need(isIP, "ip or ipv6")
	case preARP:
		return need(ethType == EthTypeARP || ethType == ethTypeRARP, "arp or rarp")
	case preMPLS:
		return need(ethType == ethTypeMPLS || ethType == ethTypeMPLSMulticast, "mpls or mplsm")
	case preVLAN:
		vid, _ := m.Get(VlanVID)
		return need(vid.Value.Lo&tciPresent != 0, "a VLAN tag")
	case preTCP:
		return transport("tcp", ProtoTCP)
	case preUDP:
		return transport("udp", ProtoUDP)
	case preSCTP:
		return transport("sctp", ProtoSCTP)
	case preICMP:
		return need(ethType == EthTypeIPv4 && hasProto && proto == ProtoICMP, "icmp")
	case preICMPv6:
		return need(ethType == EthTypeIPv6 && hasProto && proto == ProtoICMPv6, "icmp6")
	case preND, preNDSolicit, preNDAdvert:
		return m.missingND(p)
	case preCT, preCTIPv4, preCTIPv6, preCTPort:
		return m.missingCT(p, ethType)
	case preERSPAN1, preERSPAN2:
		ver, _ := m.exact(TunERSPANVer)
		want := uint64(p-preERSPAN1) + 1
		return need(ver == want, fmt.Sprintf("tun_erspan_ver=%d", want))
	}
	return "nothing that is known"
}

// ICMPv6 types of neighbour discovery (RFC 4861 §4.3, §4.4).
const (
	icmp6Solicit = 135
	icmp6Advert  = 136
)

func (m Match) missingND(p prereq) string {
	if need := m.missing(preICMPv6); need != "" {
		return need
	}
	typ, _ := m.exact(ICMPv6Type)
	code, _ := m.Get(ICMPv6Code)
	switch {
	case code.Value.Lo != 0:
		return "icmp_code=0"
	case p != preNDAdvert && typ == icmp6Solicit, p != preNDSolicit && typ == icmp6Advert:
		return ""
	case p == preNDSolicit:
		return "icmp_type=135"
	case p == preNDAdvert:
		return "icmp_type=136"
	}
	return "icmp_type=135 or icmp_type=136"
}

// missingCT asks for what makes the original tuple of a connection known (ovs-fields(7), "Connection Tracking Fields").
func (m Match) missingCT(p prereq, ethType uint64) string {
	const known = CtNew | CtEst | CtRel | CtRpl | CtSnat | CtDnat
	state, _ := m.Get(CtState)
	v, mask := state.Value.Lo, state.Mask.Lo
	_, hasProto := m.exact(CtNwProto)
	switch {
	case v&known == 0 && (v&CtTrk == 0 || mask&CtInv == 0 || v&CtInv != 0):
		return "ct_state=+trk-inv, or one of +new, +est, +rel, +rpl, +snat, +dnat"
	case p == preCTIPv4 && ethType != EthTypeIPv4:
		return "ip"
	case p == preCTIPv6 && ethType != EthTypeIPv6:
		return "ipv6"
	case p == preCTPort && !hasProto:
		return "ct_nw_proto"
	}
	return ""
}
