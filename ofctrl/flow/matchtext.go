package flow

// String returns m as ovs-ofctl prints it, without the priority, such as ct_state=+new+trk,tcp,nw_dst=10.0.0.0/8,tp_dst=80.
// The nil match is "". A term whose prerequisites are missing, which ovs-ofctl cannot print, follows under its own name.
func (m Match) String() string { return string(m.append(nil)) }

// matchPrinter remembers which terms are already written. ovs-ofctl writes fields in an order and under names that
// depend on each other (see match_format in Open vSwitch), so this is a list of steps rather than a loop over the terms.
type matchPrinter struct {
	m    Match
	done [256]bool // by any FieldID, valid or not
	dst  []byte
}

// take returns the term of f and marks it as written.
func (p *matchPrinter) take(f FieldID) (Term, bool) {
	t, ok := p.m.Get(f)
	if !ok || p.done[f] {
		return Term{}, false
	}
	p.done[f] = true
	return t, true
}

func (p *matchPrinter) key(name string) { p.dst = append(append(p.dst, name...), '=') }

func (p *matchPrinter) end() { p.dst = append(p.dst, ',') }

func (m Match) append(dst []byte) []byte {
	p := matchPrinter{m: m, dst: dst}
	p.metadata()
	abbreviated, protoDone := p.protocol()
	p.registers()
	p.tunnel()
	p.plain(Metadata)
	p.plain(InPort)
	p.vlan()
	p.as("dl_src", EthSrc)
	p.as("dl_dst", EthDst)
	if !abbreviated {
		if t, ok := p.take(EthType); ok {
			p.key("dl_type")
			p.dst = appendHexPad(p.dst, t.Value.Lo, 4)
			p.end()
		}
	}
	p.network(protoDone)
	p.transport()
	for _, t := range m {
		if _, ok := p.take(t.Field); ok {
			p.key(t.Field.String())
			p.dst = appendFieldValue(p.dst, t.Field, t.Value, t.Mask)
			p.end()
		}
	}
	if n := len(p.dst); n > len(dst) {
		p.dst = p.dst[:n-1]
	}
	return p.dst
}

// hex writes name=0x5[/0xf], the form of registers and marks.
func (p *matchPrinter) hex(f FieldID) {
	if t, ok := p.take(f); ok {
		p.key(f.String())
		p.dst = appendHex128(p.dst, t.Value)
		if t.Mask != Ones(f.Bits()) {
			p.dst = appendHex128(append(p.dst, '/'), t.Mask)
		}
		p.end()
	}
}

// dec writes name=5 or name=0x5/0xf, the form of ports and numbers.
func (p *matchPrinter) dec(name string, f FieldID) {
	if t, ok := p.take(f); ok {
		p.key(name)
		if t.Mask == Ones(f.Bits()) {
			p.dst = appendDec(p.dst, t.Value.Lo)
		} else {
			p.dst = appendHexPad(p.dst, t.Value.Lo, 1) // 0x0/0xf, where registers say 0/0xf
			p.dst = appendHexPad(append(p.dst, '/'), t.Mask.Lo, 1)
		}
		p.end()
	}
}

// plain writes f under its own name with the value as set_field has it.
func (p *matchPrinter) plain(f FieldID) { p.as(f.String(), f) }

func (p *matchPrinter) as(name string, f FieldID) {
	if t, ok := p.take(f); ok {
		p.key(name)
		p.dst = appendFieldValue(p.dst, f, t.Value, t.Mask)
		p.end()
	}
}

func (p *matchPrinter) metadata() {
	p.hex(PktMark)
	p.hex(RecircID)
	p.hex(DpHash)
	p.dec("conj_id", ConjID)
	p.plain(ActsetOutput)
	p.plain(CtState)
	p.dec("ct_zone", CtZone)
	p.hex(CtMark)
	p.hex(CtLabel)
	p.plain(CtNwSrc)
	p.plain(CtIPv6Src)
	p.plain(CtNwDst)
	p.plain(CtIPv6Dst)
	p.dec("ct_nw_proto", CtNwProto)
	p.dec("ct_tp_src", CtTpSrc)
	p.dec("ct_tp_dst", CtTpDst)
}

// exact returns the value of f if m fixes all of it.
func (m Match) exact(f FieldID) (uint64, bool) {
	t, ok := m.Get(f)
	return t.Value.Lo, ok && t.Mask == Ones(f.Bits())
}

// protocol writes ip, tcp6, arp and the like. It reports whether that said the Ethernet type and the IP protocol.
func (p *matchPrinter) protocol() (typeDone, protoDone bool) {
	ethType, ok := p.m.exact(EthType)
	if !ok {
		return false, false
	}
	proto := -1
	if v, ok := p.m.exact(IPProto); ok {
		proto = int(v)
	}
	name := ""
	for _, a := range protocols() {
		if uint64(a.ethType) == ethType && (a.proto == proto || a.proto < 0) {
			if name == "" || a.proto >= 0 {
				name, protoDone = a.name, a.proto >= 0
			}
		}
	}
	if name == "" {
		return false, false
	}
	p.take(EthType)
	if protoDone {
		p.take(IPProto)
	}
	p.dst = append(append(p.dst, name...), ',')
	return true, protoDone
}

// protocolName is an abbreviation of ovs-fields(7) for an Ethernet type and, unless proto is negative, an IP protocol.
type protocolName struct {
	name    string
	ethType uint16
	proto   int
}

// protocols lists the abbreviations; where two mean the same, ovs-ofctl prints the first.
func protocols() []protocolName {
	return []protocolName{
		{"ip", EthTypeIPv4, -1}, {"ipv6", EthTypeIPv6, -1}, {"arp", EthTypeARP, -1}, {"rarp", ethTypeRARP, -1},
		{"icmp", EthTypeIPv4, ProtoICMP}, {"tcp", EthTypeIPv4, ProtoTCP}, {"udp", EthTypeIPv4, ProtoUDP}, {"sctp", EthTypeIPv4, ProtoSCTP},
		{"icmp6", EthTypeIPv6, ProtoICMPv6}, {"tcp6", EthTypeIPv6, ProtoTCP}, {"udp6", EthTypeIPv6, ProtoUDP}, {"sctp6", EthTypeIPv6, ProtoSCTP},
		{"mpls", ethTypeMPLS, -1}, {"mplsm", ethTypeMPLSMulticast, -1},
	}
}

// registers writes xreg and xxreg terms as the registers they overlay, which is all that ovs-ofctl knows of in a match.
func (p *matchPrinter) registers() {
	var r regs
	r.gather(p.m)
	for n, mask := range r.mask {
		if mask == 0 {
			continue
		}
		p.key(Reg(n).String())
		p.dst = appendHex(p.dst, uint64(r.value[n]))
		if mask != 1<<32-1 {
			p.dst = appendHex(append(p.dst, '/'), uint64(mask))
		}
		p.end()
	}
	for f := Reg0; f <= XXReg3; f++ {
		p.take(f)
	}
}

func (p *matchPrinter) tunnel() {
	p.hex(TunID)
	p.plain(TunSrc)
	p.plain(TunDst)
	p.plain(TunIPv6Src)
	p.plain(TunIPv6Dst)
	p.dec("tun_gbp_id", TunGBPID)
	p.plain(TunGBPFlags)
	p.plain(TunERSPANVer)
	p.plain(TunERSPANIdx)
	p.plain(TunERSPANDir)
	p.plain(TunERSPANHWID)
	if t, ok := p.take(TunFlags); ok {
		// Always +oam or -oam: the switch has more flags than a match may name, so "all of them" does not occur.
		p.key("tun_flags")
		p.dst = appendFlags(p.dst, tunFlagNames(), t.Value.Lo, t.Mask.Lo, 0)
		p.end()
	}
}

// Bits of a VLAN TCI. tciPresent is the CFI bit, which stands for "there is a tag".
const (
	tciVID     = 0x0fff
	tciPresent = 0x1000
	tciPCP     = 0xe000
)

// tci puts together what m says about the VLAN tag.
func (m Match) tci() (value, mask uint64) {
	for _, f := range [...]FieldID{VlanTCI, VlanVID, VlanPCP} {
		t, ok := m.Get(f)
		if !ok {
			continue
		}
		shift := 0
		if f == VlanPCP {
			shift = 13
		}
		value |= t.Value.Lo << shift
		mask |= t.Mask.Lo << shift
	}
	return value, mask
}

func (p *matchPrinter) vlan() {
	value, mask := p.m.tci()
	p.take(VlanTCI)
	p.take(VlanVID)
	p.take(VlanPCP)
	vid, pcp := mask&tciVID, mask&tciPCP
	switch {
	case mask == 0:
		return
	case value&mask&tciPresent != 0 && (vid == 0 || vid == tciVID) && (pcp == 0 || pcp == tciPCP) && vid|pcp != 0:
		if vid != 0 {
			p.key("dl_vlan")
			p.dst = appendDec(p.dst, value&tciVID)
			p.end()
		}
		if pcp != 0 {
			p.key("dl_vlan_pcp")
			p.dst = appendDec(p.dst, value>>13)
			p.end()
		}
		return
	}
	p.key("vlan_tci")
	p.dst = appendHexPad(p.dst, value, 4)
	if mask != 0xffff {
		p.dst = appendHexPad(append(p.dst, '/'), mask, 4)
	}
	p.end()
}

func (p *matchPrinter) network(protoDone bool) {
	switch ethType, _ := p.m.exact(EthType); ethType {
	case EthTypeIPv6:
		p.plain(IPv6Src)
		p.plain(IPv6Dst)
		if t, ok := p.take(IPv6Label); ok {
			p.key("ipv6_label")
			p.dst = appendHexPad(p.dst, t.Value.Lo, 5)
			if t.Mask != Ones(IPv6Label.Bits()) {
				p.dst = appendHexPad(append(p.dst, '/'), t.Mask.Lo, 5)
			}
			p.end()
		}
		p.ip(protoDone)
	case EthTypeIPv4:
		p.as("nw_src", IPSrc)
		p.as("nw_dst", IPDst)
		p.ip(protoDone)
	case EthTypeARP, ethTypeRARP:
		p.plain(ARPSpa)
		p.plain(ARPTpa)
		p.plain(ARPOp)
		p.as("arp_sha", ARPSha)
		p.as("arp_tha", ARPTha)
	case ethTypeMPLS, ethTypeMPLSMulticast:
		p.plain(MPLSLabel)
		p.plain(MPLSTC)
		p.plain(MPLSBOS)
	}
}

// ip writes what IPv4 and IPv6 have in common.
func (p *matchPrinter) ip(protoDone bool) {
	if !protoDone {
		p.plain(IPProto)
	}
	if t, ok := p.take(IPDSCP); ok {
		// nw_tos is the whole former TOS byte, of which the DSCP is the upper six bits.
		p.key("nw_tos")
		p.dst = appendDec(p.dst, t.Value.Lo<<2)
		p.end()
	}
	p.plain(IPECN)
	p.plain(IPTTL)
	p.as("nw_frag", IPFrag)
}

// transport writes ports as tp_src and tp_dst and ICMPv6 types as icmp_type whatever the protocol.
func (p *matchPrinter) transport() {
	ethType, _ := p.m.exact(EthType)
	proto, ok := p.m.exact(IPProto)
	if !ok || ethType != EthTypeIPv4 && ethType != EthTypeIPv6 {
		return
	}
	switch {
	case proto == ProtoTCP:
		p.dec("tp_src", TCPSrc)
		p.dec("tp_dst", TCPDst)
		p.plain(TCPFlags)
	case proto == ProtoUDP:
		p.dec("tp_src", UDPSrc)
		p.dec("tp_dst", UDPDst)
	case proto == ProtoSCTP:
		p.dec("tp_src", SCTPSrc)
		p.dec("tp_dst", SCTPDst)
	case proto == ProtoICMP && ethType == EthTypeIPv4:
		p.dec("icmp_type", ICMPType)
		p.dec("icmp_code", ICMPCode)
	case proto == ProtoICMPv6 && ethType == EthTypeIPv6:
		p.dec("icmp_type", ICMPv6Type)
		p.dec("icmp_code", ICMPv6Code)
		p.plain(NDTarget)
		p.as("nd_sll", NDSll)
		p.as("nd_tll", NDTll)
	}
}
