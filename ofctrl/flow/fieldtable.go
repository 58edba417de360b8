package flow

// fieldInfo is what ovs-fields(7) says about one field.
type fieldInfo struct {
	name    string // as set_field prints it
	alias   string // a second name, or ""
	nxm     string // as sub-fields print it: the NXM name where there is one
	oxm     string // a second OXM name, or ""
	bits    uint8  // what a match may look at
	subBits uint8  // width as a sub-field where that differs, or 0
	format  format
	prereq  prereq

	maskable, writable bool
}

// format is how the value of a field is written.
type format uint8

const (
	fmtHex format = iota
	fmtDec
	fmtIPv4
	fmtIPv6
	fmtMAC
	fmtPort
	fmtCtState
	fmtTCPFlags
	fmtTunFlags
	fmtFrag
)

// prereq is what else a match must say before it may say something about a field.
type prereq uint8

const (
	preNone prereq = iota
	preIPv4
	preIPv6
	preIP // either
	preARP
	preMPLS
	preVLAN
	preTCP
	preUDP
	preSCTP
	preICMP
	preICMPv6
	preND
	preNDSolicit
	preNDAdvert
	preCT
	preCTIPv4
	preCTIPv6
	preCTPort
	preERSPAN1 // ours, not the switch's: ovs-ofctl prints these fields only beside tun_erspan_ver
	preERSPAN2
)

// fieldTable holds one row per FieldID. It is never written.
//
// ct_state is 32 bits on the wire and as a sub-field, but no switch has more than the eight bits CtNew…CtDnat; a match
// over more would not read back as it was sent. vlan_vid counts 12 bits in a sub-field and carries the present bit
// 0x1000 as a 13th in a match and in set_field.
var fieldTable = [numFields]fieldInfo{
	InPort:   {name: "in_port", alias: "in_port_oxm", nxm: "OXM_OF_IN_PORT", bits: 32, format: fmtPort, writable: true},
	PktMark:  {name: "pkt_mark", nxm: "NXM_NX_PKT_MARK", bits: 32, format: fmtHex, maskable: true, writable: true},
	RecircID: {name: "recirc_id", nxm: "NXM_NX_RECIRC_ID", bits: 32, format: fmtDec},
	DpHash:   {name: "dp_hash", nxm: "NXM_NX_DP_HASH", oxm: "NXOXM_ET_DP_HASH", bits: 32, format: fmtHex, maskable: true},
	ConjID:   {name: "conj_id", nxm: "NXM_NX_CONJ_ID", bits: 32, format: fmtDec},
	Metadata: {name: "metadata", nxm: "OXM_OF_METADATA", bits: 64, format: fmtHex, maskable: true, writable: true},
	TunID: {name: "tun_id", alias: "tunnel_id", nxm: "NXM_NX_TUN_ID", oxm: "OXM_OF_TUNNEL_ID", bits: 64, format: fmtHex,
		maskable: true, writable: true},
	TunSrc:       {name: "tun_src", nxm: "NXM_NX_TUN_IPV4_SRC", bits: 32, format: fmtIPv4, maskable: true, writable: true},
	TunDst:       {name: "tun_dst", nxm: "NXM_NX_TUN_IPV4_DST", bits: 32, format: fmtIPv4, maskable: true, writable: true},
	TunIPv6Src:   {name: "tun_ipv6_src", nxm: "NXM_NX_TUN_IPV6_SRC", bits: 128, format: fmtIPv6, maskable: true, writable: true},
	TunIPv6Dst:   {name: "tun_ipv6_dst", nxm: "NXM_NX_TUN_IPV6_DST", bits: 128, format: fmtIPv6, maskable: true, writable: true},
	TunFlags:     {name: "tun_flags", nxm: "NXM_NX_TUN_FLAGS", bits: 1, format: fmtTunFlags, maskable: true, writable: true},
	TunGBPID:     {name: "tun_gbp_id", nxm: "NXM_NX_TUN_GBP_ID", bits: 16, format: fmtDec, maskable: true, writable: true},
	TunGBPFlags:  {name: "tun_gbp_flags", nxm: "NXM_NX_TUN_GBP_FLAGS", bits: 8, format: fmtHex, maskable: true, writable: true},
	TunERSPANVer: {name: "tun_erspan_ver", nxm: "NXOXM_ET_ERSPAN_VER", bits: 4, format: fmtDec, maskable: true, writable: true},
	TunERSPANIdx: {name: "tun_erspan_idx", nxm: "NXOXM_ET_ERSPAN_IDX", bits: 20, format: fmtHex, prereq: preERSPAN1, maskable: true,
		writable: true},
	TunERSPANDir: {name: "tun_erspan_dir", nxm: "NXOXM_ET_ERSPAN_DIR", bits: 1, format: fmtDec, prereq: preERSPAN2, maskable: true,
		writable: true},
	TunERSPANHWID: {name: "tun_erspan_hwid", nxm: "NXOXM_ET_ERSPAN_HWID", bits: 6, format: fmtHex, prereq: preERSPAN2, maskable: true,
		writable: true},
	Reg0:      {name: "reg0", nxm: "NXM_NX_REG0", bits: 32, format: fmtHex, maskable: true, writable: true},
	Reg1:      {name: "reg1", nxm: "NXM_NX_REG1", bits: 32, format: fmtHex, maskable: true, writable: true},
	Reg2:      {name: "reg2", nxm: "NXM_NX_REG2", bits: 32, format: fmtHex, maskable: true, writable: true},
	Reg3:      {name: "reg3", nxm: "NXM_NX_REG3", bits: 32, format: fmtHex, maskable: true, writable: true},
	Reg4:      {name: "reg4", nxm: "NXM_NX_REG4", bits: 32, format: fmtHex, maskable: true, writable: true},
	Reg5:      {name: "reg5", nxm: "NXM_NX_REG5", bits: 32, format: fmtHex, maskable: true, writable: true},
	Reg6:      {name: "reg6", nxm: "NXM_NX_REG6", bits: 32, format: fmtHex, maskable: true, writable: true},
	Reg7:      {name: "reg7", nxm: "NXM_NX_REG7", bits: 32, format: fmtHex, maskable: true, writable: true},
	Reg8:      {name: "reg8", nxm: "NXM_NX_REG8", bits: 32, format: fmtHex, maskable: true, writable: true},
	Reg9:      {name: "reg9", nxm: "NXM_NX_REG9", bits: 32, format: fmtHex, maskable: true, writable: true},
	Reg10:     {name: "reg10", nxm: "NXM_NX_REG10", bits: 32, format: fmtHex, maskable: true, writable: true},
	Reg11:     {name: "reg11", nxm: "NXM_NX_REG11", bits: 32, format: fmtHex, maskable: true, writable: true},
	Reg12:     {name: "reg12", nxm: "NXM_NX_REG12", bits: 32, format: fmtHex, maskable: true, writable: true},
	Reg13:     {name: "reg13", nxm: "NXM_NX_REG13", bits: 32, format: fmtHex, maskable: true, writable: true},
	Reg14:     {name: "reg14", nxm: "NXM_NX_REG14", bits: 32, format: fmtHex, maskable: true, writable: true},
	Reg15:     {name: "reg15", nxm: "NXM_NX_REG15", bits: 32, format: fmtHex, maskable: true, writable: true},
	XReg0:     {name: "xreg0", nxm: "OXM_OF_PKT_REG0", bits: 64, format: fmtHex, maskable: true, writable: true},
	XReg1:     {name: "xreg1", nxm: "OXM_OF_PKT_REG1", bits: 64, format: fmtHex, maskable: true, writable: true},
	XReg2:     {name: "xreg2", nxm: "OXM_OF_PKT_REG2", bits: 64, format: fmtHex, maskable: true, writable: true},
	XReg3:     {name: "xreg3", nxm: "OXM_OF_PKT_REG3", bits: 64, format: fmtHex, maskable: true, writable: true},
	XReg4:     {name: "xreg4", nxm: "OXM_OF_PKT_REG4", bits: 64, format: fmtHex, maskable: true, writable: true},
	XReg5:     {name: "xreg5", nxm: "OXM_OF_PKT_REG5", bits: 64, format: fmtHex, maskable: true, writable: true},
	XReg6:     {name: "xreg6", nxm: "OXM_OF_PKT_REG6", bits: 64, format: fmtHex, maskable: true, writable: true},
	XReg7:     {name: "xreg7", nxm: "OXM_OF_PKT_REG7", bits: 64, format: fmtHex, maskable: true, writable: true},
	XXReg0:    {name: "xxreg0", nxm: "NXM_NX_XXREG0", bits: 128, format: fmtHex, maskable: true, writable: true},
	XXReg1:    {name: "xxreg1", nxm: "NXM_NX_XXREG1", bits: 128, format: fmtHex, maskable: true, writable: true},
	XXReg2:    {name: "xxreg2", nxm: "NXM_NX_XXREG2", bits: 128, format: fmtHex, maskable: true, writable: true},
	XXReg3:    {name: "xxreg3", nxm: "NXM_NX_XXREG3", bits: 128, format: fmtHex, maskable: true, writable: true},
	CtState:   {name: "ct_state", nxm: "NXM_NX_CT_STATE", bits: 8, subBits: 32, format: fmtCtState, maskable: true},
	CtZone:    {name: "ct_zone", nxm: "NXM_NX_CT_ZONE", bits: 16, format: fmtHex},
	CtMark:    {name: "ct_mark", nxm: "NXM_NX_CT_MARK", bits: 32, format: fmtHex, maskable: true, writable: true},
	CtLabel:   {name: "ct_label", nxm: "NXM_NX_CT_LABEL", bits: 128, format: fmtHex, maskable: true, writable: true},
	CtNwProto: {name: "ct_nw_proto", nxm: "NXM_NX_CT_NW_PROTO", bits: 8, format: fmtDec, prereq: preCT},
	CtNwSrc:   {name: "ct_nw_src", nxm: "NXM_NX_CT_NW_SRC", bits: 32, format: fmtIPv4, prereq: preCTIPv4, maskable: true},
	CtNwDst:   {name: "ct_nw_dst", nxm: "NXM_NX_CT_NW_DST", bits: 32, format: fmtIPv4, prereq: preCTIPv4, maskable: true},
	CtIPv6Src: {name: "ct_ipv6_src", nxm: "NXM_NX_CT_IPV6_SRC", bits: 128, format: fmtIPv6, prereq: preCTIPv6, maskable: true},
	CtIPv6Dst: {name: "ct_ipv6_dst", nxm: "NXM_NX_CT_IPV6_DST", bits: 128, format: fmtIPv6, prereq: preCTIPv6, maskable: true},
	CtTpSrc:   {name: "ct_tp_src", nxm: "NXM_NX_CT_TP_SRC", bits: 16, format: fmtDec, prereq: preCTPort, maskable: true},
	CtTpDst:   {name: "ct_tp_dst", nxm: "NXM_NX_CT_TP_DST", bits: 16, format: fmtDec, prereq: preCTPort, maskable: true},
	EthSrc: {name: "eth_src", alias: "dl_src", nxm: "NXM_OF_ETH_SRC", oxm: "OXM_OF_ETH_SRC", bits: 48, format: fmtMAC, maskable: true,
		writable: true},
	EthDst: {name: "eth_dst", alias: "dl_dst", nxm: "NXM_OF_ETH_DST", oxm: "OXM_OF_ETH_DST", bits: 48, format: fmtMAC, maskable: true,
		writable: true},
	EthType:   {name: "eth_type", alias: "dl_type", nxm: "NXM_OF_ETH_TYPE", oxm: "OXM_OF_ETH_TYPE", bits: 16, format: fmtHex},
	VlanTCI:   {name: "vlan_tci", nxm: "NXM_OF_VLAN_TCI", bits: 16, format: fmtHex, maskable: true, writable: true},
	VlanVID:   {name: "vlan_vid", nxm: "OXM_OF_VLAN_VID", bits: 13, subBits: 12, format: fmtDec, maskable: true, writable: true},
	VlanPCP:   {name: "vlan_pcp", nxm: "OXM_OF_VLAN_PCP", bits: 3, format: fmtDec, prereq: preVLAN, writable: true},
	MPLSLabel: {name: "mpls_label", nxm: "OXM_OF_MPLS_LABEL", bits: 20, format: fmtDec, prereq: preMPLS, writable: true},
	MPLSTC:    {name: "mpls_tc", nxm: "OXM_OF_MPLS_TC", bits: 3, format: fmtDec, prereq: preMPLS, writable: true},
	MPLSBOS:   {name: "mpls_bos", nxm: "OXM_OF_MPLS_BOS", bits: 1, format: fmtDec, prereq: preMPLS},
	IPSrc: {name: "ip_src", alias: "nw_src", nxm: "NXM_OF_IP_SRC", oxm: "OXM_OF_IPV4_SRC", bits: 32, format: fmtIPv4, prereq: preIPv4,
		maskable: true, writable: true},
	IPDst: {name: "ip_dst", alias: "nw_dst", nxm: "NXM_OF_IP_DST", oxm: "OXM_OF_IPV4_DST", bits: 32, format: fmtIPv4, prereq: preIPv4,
		maskable: true, writable: true},
	IPv6Src: {name: "ipv6_src", nxm: "NXM_NX_IPV6_SRC", oxm: "OXM_OF_IPV6_SRC", bits: 128, format: fmtIPv6, prereq: preIPv6,
		maskable: true, writable: true},
	IPv6Dst: {name: "ipv6_dst", nxm: "NXM_NX_IPV6_DST", oxm: "OXM_OF_IPV6_DST", bits: 128, format: fmtIPv6, prereq: preIPv6,
		maskable: true, writable: true},
	IPv6Label: {name: "ipv6_label", nxm: "NXM_NX_IPV6_LABEL", oxm: "OXM_OF_IPV6_FLABEL", bits: 20, format: fmtHex, prereq: preIPv6,
		maskable: true, writable: true},
	IPProto: {name: "nw_proto", alias: "ip_proto", nxm: "NXM_OF_IP_PROTO", oxm: "OXM_OF_IP_PROTO", bits: 8, format: fmtDec,
		prereq: preIP},
	IPDSCP: {name: "ip_dscp", nxm: "OXM_OF_IP_DSCP", bits: 6, format: fmtDec, prereq: preIP, writable: true},
	IPECN: {name: "nw_ecn", alias: "ip_ecn", nxm: "NXM_NX_IP_ECN", oxm: "OXM_OF_IP_ECN", bits: 2, format: fmtDec, prereq: preIP,
		writable: true},
	IPTTL:  {name: "nw_ttl", nxm: "NXM_NX_IP_TTL", bits: 8, format: fmtDec, prereq: preIP, writable: true},
	IPFrag: {name: "ip_frag", alias: "nw_frag", nxm: "NXM_NX_IP_FRAG", bits: 2, format: fmtFrag, prereq: preIP, maskable: true},
	ARPOp:  {name: "arp_op", nxm: "NXM_OF_ARP_OP", oxm: "OXM_OF_ARP_OP", bits: 16, format: fmtDec, prereq: preARP, writable: true},
	ARPSpa: {name: "arp_spa", nxm: "NXM_OF_ARP_SPA", oxm: "OXM_OF_ARP_SPA", bits: 32, format: fmtIPv4, prereq: preARP, maskable: true,
		writable: true},
	ARPTpa: {name: "arp_tpa", nxm: "NXM_OF_ARP_TPA", oxm: "OXM_OF_ARP_TPA", bits: 32, format: fmtIPv4, prereq: preARP, maskable: true,
		writable: true},
	ARPSha: {name: "arp_sha", nxm: "NXM_NX_ARP_SHA", oxm: "OXM_OF_ARP_SHA", bits: 48, format: fmtMAC, prereq: preARP, maskable: true,
		writable: true},
	ARPTha: {name: "arp_tha", nxm: "NXM_NX_ARP_THA", oxm: "OXM_OF_ARP_THA", bits: 48, format: fmtMAC, prereq: preARP, maskable: true,
		writable: true},
	TCPSrc: {name: "tcp_src", nxm: "NXM_OF_TCP_SRC", oxm: "OXM_OF_TCP_SRC", bits: 16, format: fmtDec, prereq: preTCP, maskable: true,
		writable: true},
	TCPDst: {name: "tcp_dst", nxm: "NXM_OF_TCP_DST", oxm: "OXM_OF_TCP_DST", bits: 16, format: fmtDec, prereq: preTCP, maskable: true,
		writable: true},
	TCPFlags: {name: "tcp_flags", nxm: "NXM_NX_TCP_FLAGS", oxm: "ONFOXM_ET_TCP_FLAGS", bits: 12, format: fmtTCPFlags, prereq: preTCP,
		maskable: true},
	UDPSrc: {name: "udp_src", nxm: "NXM_OF_UDP_SRC", oxm: "OXM_OF_UDP_SRC", bits: 16, format: fmtDec, prereq: preUDP, maskable: true,
		writable: true},
	UDPDst: {name: "udp_dst", nxm: "NXM_OF_UDP_DST", oxm: "OXM_OF_UDP_DST", bits: 16, format: fmtDec, prereq: preUDP, maskable: true,
		writable: true},
	SCTPSrc: {name: "sctp_src", nxm: "OXM_OF_SCTP_SRC", bits: 16, format: fmtDec, prereq: preSCTP, maskable: true, writable: true},
	SCTPDst: {name: "sctp_dst", nxm: "OXM_OF_SCTP_DST", bits: 16, format: fmtDec, prereq: preSCTP, maskable: true, writable: true},
	ICMPType: {name: "icmp_type", nxm: "NXM_OF_ICMP_TYPE", oxm: "OXM_OF_ICMPV4_TYPE", bits: 8, format: fmtDec, prereq: preICMP,
		writable: true},
	ICMPCode: {name: "icmp_code", nxm: "NXM_OF_ICMP_CODE", oxm: "OXM_OF_ICMPV4_CODE", bits: 8, format: fmtDec, prereq: preICMP,
		writable: true},
	ICMPv6Type: {name: "icmpv6_type", nxm: "NXM_NX_ICMPV6_TYPE", oxm: "OXM_OF_ICMPV6_TYPE", bits: 8, format: fmtDec, prereq: preICMPv6,
		writable: true},
	ICMPv6Code: {name: "icmpv6_code", nxm: "NXM_NX_ICMPV6_CODE", oxm: "OXM_OF_ICMPV6_CODE", bits: 8, format: fmtDec, prereq: preICMPv6,
		writable: true},
	NDTarget: {name: "nd_target", nxm: "NXM_NX_ND_TARGET", oxm: "OXM_OF_IPV6_ND_TARGET", bits: 128, format: fmtIPv6, prereq: preND,
		maskable: true, writable: true},
	NDSll: {name: "nd_sll", nxm: "NXM_NX_ND_SLL", oxm: "OXM_OF_IPV6_ND_SLL", bits: 48, format: fmtMAC, prereq: preNDSolicit,
		maskable: true, writable: true},
	NDTll: {name: "nd_tll", nxm: "NXM_NX_ND_TLL", oxm: "OXM_OF_IPV6_ND_TLL", bits: 48, format: fmtMAC, prereq: preNDAdvert,
		maskable: true, writable: true},
	ActsetOutput: {name: "actset_output", nxm: "ONFOXM_ET_ACTSET_OUTPUT", bits: 32, format: fmtPort},
}
