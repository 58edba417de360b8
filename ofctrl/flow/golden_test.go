package flow_test

import (
	"net/netip"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// The golden rows say what ovs-ofctl prints; TestGoldenOVS holds them against the real one.

func term(f flow.FieldID, v uint64) flow.Term {
	return flow.Term{Field: f, Value: flow.U64(v), Mask: flow.Ones(f.Bits())}
}

func masked(f flow.FieldID, v, mask uint64) flow.Term {
	return flow.Term{Field: f, Value: flow.U64(v), Mask: flow.U64(mask)}
}

func wide(f flow.FieldID, hi, lo uint64) flow.Term {
	return flow.Term{Field: f, Value: flow.U128{Hi: hi, Lo: lo}, Mask: flow.Ones(128)}
}

func in(f flow.FieldID, prefix string) flow.Term {
	v, mask := flow.Prefix(netip.MustParsePrefix(prefix))
	return flow.Term{Field: f, Value: v, Mask: mask}
}

func match(terms ...flow.Term) flow.Match {
	var m flow.Match
	for _, t := range terms {
		m = m.WithMasked(t.Field, t.Value, t.Mask)
	}
	return m
}

func set(t flow.Term) flow.SetField { return flow.SetField(t) }

func sub(f flow.FieldID, ofs, bits uint16) flow.SubField {
	return flow.SubField{Field: f, Ofs: ofs, Bits: bits}
}

type matchRow struct {
	match flow.Match
	text  string
	// internal is true for fields that only the switch's own flows may match.
	internal bool
}

func goldenMatches() []matchRow {
	ip, ip6 := term(flow.EthType, flow.EthTypeIPv4), term(flow.EthType, flow.EthTypeIPv6)
	proto := func(p uint64) flow.Term { return term(flow.IPProto, p) }
	arp := term(flow.EthType, flow.EthTypeARP)
	mpls := term(flow.EthType, 0x8847)
	tracked := masked(flow.CtState, flow.CtTrk, flow.CtTrk|flow.CtInv)
	rows := []matchRow{
		{nil, "", false},
		{match(term(flow.InPort, 7)), "in_port=7", false},
		{match(term(flow.InPort, uint64(flow.PortLocal))), "in_port=LOCAL", false},
		{match(term(flow.InPort, uint64(flow.PortController))), "in_port=CONTROLLER", false},
		{match(term(flow.RecircID, 9)), "recirc_id=0x9", true},
		{match(masked(flow.DpHash, 3, 15)), "dp_hash=0x3/0xf", true},
		{match(term(flow.PktMark, 0)), "pkt_mark=0", false},
		{match(masked(flow.PktMark, 0x100, 0x300)), "pkt_mark=0x100/0x300", false},
		{match(term(flow.ConjID, 77)), "conj_id=77", false},
		{match(term(flow.Metadata, 5), term(flow.InPort, 1)), "metadata=0x5,in_port=1", false},
		{match(masked(flow.Metadata, 0, 0xff)), "metadata=0/0xff", false},
		{match(term(flow.ActsetOutput, 3)), "actset_output=3", false},
		{match(term(flow.ActsetOutput, uint64(flow.PortUnset))), "actset_output=UNSET", false},
		{match(term(flow.TunID, 5), in(flow.TunSrc, "1.2.3.4/32"), in(flow.TunDst, "1.2.3.0/24")),
			"tun_id=0x5,tun_src=1.2.3.4,tun_dst=1.2.3.0/24", false},
		{match(masked(flow.TunID, 0, 1), in(flow.TunIPv6Src, "2001:db8::1/128"), in(flow.TunIPv6Dst, "2001:db8::/32")),
			"tun_id=0/0x1,tun_ipv6_src=2001:db8::1,tun_ipv6_dst=2001:db8::/32", false},
		{match(term(flow.TunFlags, 1)), "tun_flags=+oam", false},
		{match(term(flow.TunFlags, 0)), "tun_flags=-oam", false},
		{match(term(flow.TunGBPID, 5), term(flow.TunGBPFlags, 8)), "tun_gbp_id=5,tun_gbp_flags=0x8", false},
		{match(masked(flow.TunGBPID, 0, 0xf)), "tun_gbp_id=0x0/0xf", false},
		{match(term(flow.TunERSPANVer, 1), term(flow.TunERSPANIdx, 0x12345)), "tun_erspan_ver=1,tun_erspan_idx=0x12345", false},
		{match(term(flow.TunERSPANVer, 2), term(flow.TunERSPANDir, 1), term(flow.TunERSPANHWID, 0x3f)),
			"tun_erspan_ver=2,tun_erspan_dir=1,tun_erspan_hwid=0x3f", false},
		{match(term(flow.XReg0, 1)), "reg0=0,reg1=0x1", false},
		{match(masked(flow.XReg7, 0x1200000000, 0xff00000000)), "reg14=0x12/0xff", false},
		{match(wide(flow.XXReg0, 0x0000000100000002, 0x0000000300000004)), "reg0=0x1,reg1=0x2,reg2=0x3,reg3=0x4", false},
		{match(wide(flow.XXReg3, 0, 0)), "reg12=0,reg13=0,reg14=0,reg15=0", false},
		{match(masked(flow.CtState, flow.CtNew|flow.CtTrk, flow.CtNew|flow.CtTrk|flow.CtInv), term(flow.CtZone, 5)),
			"ct_state=+new-inv+trk,ct_zone=5", false},
		{match(term(flow.CtState, flow.CtEst|flow.CtRpl|flow.CtTrk)), "ct_state=est|rpl|trk", false},
		{match(term(flow.CtState, 0)), "ct_state=0", false},
		{match(masked(flow.CtState, 0xff&^flow.CtNew, 0xfe)), "ct_state=+est+rel+rpl+inv+trk+snat+dnat", false},
		{match(term(flow.CtMark, 0), wide(flow.CtLabel, 0, 0)), "ct_mark=0,ct_label=0", false},
		{match(masked(flow.CtMark, 3, 15), wide(flow.CtLabel, 0x1, 0x00000002000000ff)), "ct_mark=0x3/0xf,ct_label=0x100000002000000ff", false},
		{match(flow.Term{Field: flow.CtLabel, Value: flow.U64(7 << 32), Mask: flow.U64(0xffffffff << 32)}),
			"ct_label=0x700000000/0xffffffff00000000", false},
		{match(tracked, ip, in(flow.CtNwSrc, "10.0.0.1/32"), in(flow.CtNwDst, "10.77.0.0/24"), term(flow.CtNwProto, 6), term(flow.CtTpSrc,
			5001), masked(flow.CtTpDst, 5002, 0xfffe)),
			"ct_state=-inv+trk,ct_nw_src=10.0.0.1,ct_nw_dst=10.77.0.0/24,ct_nw_proto=6,ct_tp_src=5001,ct_tp_dst=0x138a/0xfffe,ip", false},
		{match(tracked, ip6, in(flow.CtIPv6Src, "2001:db8::1/128"), in(flow.CtIPv6Dst, "2001:db8::/32"), term(flow.CtNwProto, 17)),
			"ct_state=-inv+trk,ct_ipv6_src=2001:db8::1,ct_ipv6_dst=2001:db8::/32,ct_nw_proto=17,ipv6", false},
		{match(term(flow.EthSrc, 0x001122334455), masked(flow.EthDst, 0x010000000000, 0x010000000000)),
			"dl_src=00:11:22:33:44:55,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00", false},
		{match(term(flow.EthType, 0x88cc)), "dl_type=0x88cc", false},
		{match(term(flow.EthType, 0x0101)), "dl_type=0x0101", false},
		{match(term(flow.VlanVID, 0x100a)), "dl_vlan=10", false},
		{match(term(flow.VlanVID, 0x1005), term(flow.VlanPCP, 3)), "dl_vlan=5,dl_vlan_pcp=3", false},
		{match(masked(flow.VlanVID, 0x1000, 0x1000), term(flow.VlanPCP, 0)), "dl_vlan_pcp=0", false},
		{match(masked(flow.VlanVID, 0x1000, 0x1000)), "vlan_tci=0x1000/0x1000", false},
		{match(term(flow.VlanVID, 0)), "vlan_tci=0x0000/0x1fff", false},
		{match(masked(flow.VlanVID, 0x1005, 0x100f)), "vlan_tci=0x1005/0x100f", false},
		{match(masked(flow.VlanTCI, 0x1007, 0x1fff)), "dl_vlan=7", false},
		{match(mpls, term(flow.MPLSLabel, 0xfffff), term(flow.MPLSTC, 7), term(flow.MPLSBOS, 0)),
			"mpls,mpls_label=1048575,mpls_tc=7,mpls_bos=0", false},
		{match(term(flow.EthType, 0x8848)), "mplsm", false},
		{match(ip), "ip", false},
		{match(ip, masked(flow.IPSrc, 0x0a000100, 0xff00ff00), in(flow.IPDst, "10.0.0.0/8")),
			"ip,nw_src=10.0.1.0/255.0.255.0,nw_dst=10.0.0.0/8", false},
		{match(ip, proto(47)), "ip,nw_proto=47", false},
		{match(ip, proto(58)), "ip,nw_proto=58", false},
		{match(ip, term(flow.IPDSCP, 46), term(flow.IPECN, 3), term(flow.IPTTL, 1)), "ip,nw_tos=184,nw_ecn=3,nw_ttl=1", false},
		{match(ip, term(flow.IPFrag, 0)), "ip,nw_frag=no", false},
		{match(ip, term(flow.IPFrag, 1)), "ip,nw_frag=first", false},
		{match(ip, term(flow.IPFrag, 3)), "ip,nw_frag=later", false},
		{match(ip, masked(flow.IPFrag, 1, 1)), "ip,nw_frag=yes", false},
		{match(ip6, masked(flow.IPFrag, 0, 2)), "ipv6,nw_frag=not_later", false},
		{match(ip6, proto(47), term(flow.IPv6Label, 5)), "ipv6,ipv6_label=0x00005,nw_proto=47", false},
		{match(ip6, in(flow.IPv6Src, "::102:304/128"), flow.Term{Field: flow.IPv6Dst, Value: flow.U64(5), Mask: flow.U64(0xffffffff)},
			masked(flow.IPv6Label, 0, 0xff)),
			"ipv6,ipv6_src=::1.2.3.4,ipv6_dst=::5/::255.255.255.255,ipv6_label=0x00000/0x000ff", false},
		{match(ip6, in(flow.IPv6Src, "2001:0:0:1::1/128"), in(flow.IPv6Dst, "1:0:1:0:1:0:1:0/112")),
			"ipv6,ipv6_src=2001:0:0:1::1,ipv6_dst=1:0:1:0:1:0:1:0/112", false},
		{match(arp, term(flow.ARPOp, 2), in(flow.ARPSpa, "1.2.3.4/32"), in(flow.ARPTpa, "1.2.3.0/24"), term(flow.ARPSha, 1), masked(flow.ARPTha,
			0x0200, 0xff00)),
			"arp,arp_spa=1.2.3.4,arp_tpa=1.2.3.0/24,arp_op=2,arp_sha=00:00:00:00:00:01,arp_tha=00:00:00:00:02:00/00:00:00:00:ff:00", false},
		{match(term(flow.EthType, 0x8035), term(flow.ARPOp, 3)), "rarp,arp_op=3", false},
		{match(ip, proto(flow.ProtoTCP), term(flow.TCPSrc, 1), term(flow.TCPDst, 65535), term(flow.TCPFlags, 0x012)),
			"tcp,tp_src=1,tp_dst=65535,tcp_flags=syn|ack", false},
		{match(ip6, proto(flow.ProtoTCP), masked(flow.TCPDst, 0x400, 0xfc00), masked(flow.TCPFlags, 0x002, 0x012)),
			"tcp6,tp_dst=0x400/0xfc00,tcp_flags=+syn-ack", false},
		{match(ip, proto(flow.ProtoTCP), term(flow.TCPFlags, 0)), "tcp,tcp_flags=0", false},
		{match(ip, proto(flow.ProtoTCP), masked(flow.TCPFlags, 0xa00, 0xe01)), "tcp,tcp_flags=-fin+[200]-[400]+[800]", false},
		{match(ip, proto(flow.ProtoUDP), term(flow.UDPSrc, 68), masked(flow.UDPDst, 0, 0xfffe)), "udp,tp_src=68,tp_dst=0x0/0xfffe", false},
		{match(ip6, proto(flow.ProtoUDP)), "udp6", false},
		{match(ip, proto(flow.ProtoSCTP), term(flow.SCTPSrc, 1), term(flow.SCTPDst, 2)), "sctp,tp_src=1,tp_dst=2", false},
		{match(ip6, proto(flow.ProtoSCTP), term(flow.SCTPDst, 2)), "sctp6,tp_dst=2", false},
		{match(ip, proto(flow.ProtoICMP), term(flow.ICMPType, 8), term(flow.ICMPCode, 0)), "icmp,icmp_type=8,icmp_code=0", false},
		{match(ip6, proto(flow.ProtoICMPv6), term(flow.ICMPv6Type, 128), term(flow.ICMPv6Code, 0)), "icmp6,icmp_type=128,icmp_code=0", false},
		{match(ip6, proto(flow.ProtoICMPv6), term(flow.ICMPv6Type, 135), in(flow.NDTarget, "fe80::/10"), term(flow.NDSll, 0x001122334455)),
			"icmp6,icmp_type=135,nd_target=fe80::/10,nd_sll=00:11:22:33:44:55", false},
		{match(ip6, proto(flow.ProtoICMPv6), term(flow.ICMPv6Type, 136), term(flow.ICMPv6Code, 0), in(flow.NDTarget, "fe80::1/128"),
			term(flow.NDTll, 0x001122334455)),
			"icmp6,icmp_type=136,icmp_code=0,nd_target=fe80::1,nd_tll=00:11:22:33:44:55", false},
		// All at once, for the order.
		{match(ip, proto(flow.ProtoTCP), term(flow.TCPDst, 22), in(flow.IPSrc, "10.0.0.1/32"), term(flow.EthDst, 1), term(flow.EthSrc, 2),
			term(flow.VlanVID, 0x1001), term(flow.InPort, 4),
			term(flow.Metadata, 1), term(flow.TunID, 2), term(flow.Reg8, 3), term(flow.Reg15, 4), tracked, term(flow.CtZone, 1),
			term(flow.CtMark, 2), wide(flow.CtLabel, 0, 3), term(flow.PktMark, 5), term(flow.ConjID, 6)),
			"pkt_mark=0x5,conj_id=6,ct_state=-inv+trk,ct_zone=1,ct_mark=0x2,ct_label=0x3,tcp,reg8=0x3,reg15=0x4,tun_id=0x2,metadata=0x1," +
				"in_port=4,dl_vlan=1,dl_src=00:00:00:00:00:02,dl_dst=00:00:00:00:00:01,nw_src=10.0.0.1,tp_dst=22", false},
	}
	for n := range 16 {
		rows = append(rows, matchRow{match(masked(flow.Reg(n), 5, 15)), flow.Reg(n).String() + "=0x5/0xf", false})
	}
	for n := range 6 { // the middle ones; the rest are above
		rows = append(rows, matchRow{match(masked(flow.XReg1+flow.FieldID(n), 1, 1)), flow.Reg(2*n+3).String() + "=0x1/0x1", false})
	}
	for n := range 2 {
		rows = append(rows, matchRow{match(masked(flow.XXReg1+flow.FieldID(n), 1, 1)), flow.Reg(4*n+7).String() + "=0x1/0x1", false})
	}
	return rows
}

type actionRow struct {
	needs   string // the match that the switch asks for
	actions []flow.Action
	text    string
	// of15 is true where ovs-ofctl itself turns the text into something else for OpenFlow 1.3: it has no masked
	// set_field, and loads the part of the field instead.
	of15 bool
}

func goldenActions() []actionRow {
	nat := func(n flow.NAT) []flow.Action {
		return []flow.Action{flow.CT{Commit: true, Table: flow.NoTable, NAT: &n}}
	}
	addr := netip.MustParseAddr
	const all = flow.WholePacket
	action := flow.ReasonAction
	rows := []actionRow{
		{"", nil, "drop", false},
		{"", []flow.Action{flow.Output{Port: 1}, flow.Output{Port: 0xfeff}, flow.Output{Port: flow.PortNormal},
			flow.Output{Port: flow.PortInPort}, flow.Output{Port: flow.PortLocal}, flow.Output{Port: flow.PortFlood},
			flow.Output{Port: flow.PortAll}, flow.Output{Port: flow.PortTable}},
			"output:1,output:65279,NORMAL,IN_PORT,LOCAL,FLOOD,ALL,TABLE", false},
		{"", []flow.Action{flow.OutputTrunc{Port: 1, MaxLen: 64}, flow.OutputTrunc{Port: flow.PortLocal, MaxLen: 65},
			flow.OutputTrunc{Port: flow.PortInPort, MaxLen: 70000}},
			"output(port=1,max_len=64),output(port=LOCAL,max_len=65),output(port=IN_PORT,max_len=70000)", false},
		{"", []flow.Action{flow.OutputReg{Src: flow.Whole(flow.Reg0), MaxLen: all}, flow.OutputReg{Src: sub(flow.Reg1, 3, 1), MaxLen: all},
			flow.OutputReg{Src: sub(flow.XXReg2, 0, 16), MaxLen: all}}, "output:NXM_NX_REG0[],output:NXM_NX_REG1[3],output:NXM_NX_XXREG2[0..15]",
			false},
		{"", []flow.Action{flow.Controller{MaxLen: all, Reason: action}}, "CONTROLLER:65535", false},
		{"", []flow.Action{flow.Controller{MaxLen: 0, Reason: action}}, "CONTROLLER:0", false},
		{"", []flow.Action{flow.Controller{MaxLen: 128, Reason: flow.ReasonNoMatch, ID: 7}}, "controller(reason=no_match,max_len=128,id=7)",
			false},
		{"", []flow.Action{flow.Controller{MaxLen: all, Reason: flow.ReasonInvalidTTL}}, "controller(reason=invalid_ttl)", false},
		{"", []flow.Action{flow.Controller{MaxLen: all, Reason: flow.ReasonActionSet}, flow.Controller{MaxLen: all, Reason: flow.ReasonGroup},
			flow.Controller{MaxLen: all, Reason: flow.ReasonPacketOut}},
			"controller(reason=action_set),controller(reason=group),controller(reason=packet_out)", false},
		{"", []flow.Action{flow.Controller{MaxLen: 64, Reason: action, ID: 2, UserData: "\x01\x02\xff", Pause: true, MeterID: 5}},
			"controller(max_len=64,id=2,userdata=01.02.ff,pause,meter_id=5)", false},
		{"", []flow.Action{flow.Controller{MaxLen: all, Reason: action, MeterID: 5}}, "controller(meter_id=5)", false},
		{"", []flow.Action{flow.Group{ID: 5}}, "group:5", false},
		{"", []flow.Action{set(term(flow.Reg0, 0)), set(term(flow.XReg2, 5)), set(wide(flow.XXReg3, 1, 5)), set(term(flow.Metadata, 5)),
			set(term(flow.PktMark, 5)), set(term(flow.InPort, 9)), set(term(flow.InPort, uint64(flow.PortLocal)))},
			"set_field:0->reg0,set_field:0x5->xreg2,set_field:0x10000000000000005->xxreg3,set_field:0x5->metadata,set_field:0x5->pkt_mark," +
				"set_field:9->in_port,set_field:LOCAL->in_port", false},
		{"", []flow.Action{set(masked(flow.Reg0, 5, 15)), set(masked(flow.EthSrc, 0x001100000000, 0xffff00000000)),
			set(masked(flow.TunID, 5, 0xff))},
			"set_field:0x5/0xf->reg0,set_field:00:11:00:00:00:00/ff:ff:00:00:00:00->eth_src,set_field:0x5/0xff->tun_id", true},
		{"ip", []flow.Action{set(in(flow.IPSrc, "10.0.0.0/8")), set(masked(flow.IPDst, 1, 0xff0000ff))},
			"set_field:10.0.0.0/8->ip_src,set_field:0.0.0.1/255.0.0.255->ip_dst", true},
		{"tcp6", []flow.Action{set(in(flow.IPv6Dst, "fe80::/16")), set(masked(flow.TCPDst, 0x50, 0xff)), set(masked(flow.IPv6Label, 1, 3))},
			"set_field:fe80::/16->ipv6_dst,set_field:80/0xff->tcp_dst,set_field:0x1/0x3->ipv6_label", true},
		{"vlan_tci=0x1000/0x1000", []flow.Action{set(masked(flow.VlanVID, 0x1005, 0x10ff))}, "set_field:4101/0x10ff->vlan_vid", true},
		{"", []flow.Action{set(term(flow.EthSrc, 1)), set(term(flow.EthDst, 0xffffffffffff))},
			"set_field:00:00:00:00:00:01->eth_src,set_field:ff:ff:ff:ff:ff:ff->eth_dst", false},
		{"", []flow.Action{set(term(flow.TunID, 5)), set(in(flow.TunSrc, "1.2.3.4/32")), set(in(flow.TunDst, "1.2.3.5/32")),
			set(in(flow.TunIPv6Src, "fe80::1/128")), set(in(flow.TunIPv6Dst, "fe80::2/128"))},
			"set_field:0x5->tun_id,set_field:1.2.3.4->tun_src,set_field:1.2.3.5->tun_dst,set_field:fe80::1->tun_ipv6_src," +
				"set_field:fe80::2->tun_ipv6_dst", false},
		{"", []flow.Action{set(term(flow.TunFlags, 1)), set(term(flow.TunFlags, 0)), set(term(flow.TunGBPID, 5)),
			set(term(flow.TunGBPFlags, 8))},
			"set_field:oam->tun_flags,set_field:0->tun_flags,set_field:5->tun_gbp_id,set_field:0x8->tun_gbp_flags", false},
		{"", []flow.Action{set(term(flow.TunERSPANVer, 1)), set(term(flow.TunERSPANIdx, 0x10)), set(term(flow.TunERSPANDir, 1)),
			set(term(flow.TunERSPANHWID, 3))},
			"set_field:1->tun_erspan_ver,set_field:0x10->tun_erspan_idx,set_field:1->tun_erspan_dir,set_field:0x3->tun_erspan_hwid", false},
		{"vlan_tci=0x1000/0x1000", []flow.Action{set(term(flow.VlanVID, 0x100a)), set(term(flow.VlanPCP, 3)), set(term(flow.VlanTCI, 0x1005))},
			"set_field:4106->vlan_vid,set_field:3->vlan_pcp,set_field:0x1005->vlan_tci", false},
		{"ip", []flow.Action{set(in(flow.IPSrc, "10.0.0.1/32")), set(in(flow.IPDst, "10.0.0.2/32")), set(term(flow.IPDSCP, 5)),
			set(term(flow.IPECN, 1)), set(term(flow.IPTTL, 9))},
			"set_field:10.0.0.1->ip_src,set_field:10.0.0.2->ip_dst,set_field:5->ip_dscp,set_field:1->nw_ecn,set_field:9->nw_ttl", false},
		{"ipv6", []flow.Action{set(in(flow.IPv6Src, "fe80::1/128")), set(in(flow.IPv6Dst, "fe80::2/128")), set(term(flow.IPv6Label, 0x12345))},
			"set_field:fe80::1->ipv6_src,set_field:fe80::2->ipv6_dst,set_field:0x12345->ipv6_label", false},
		{"arp", []flow.Action{set(term(flow.ARPOp, 2)), set(in(flow.ARPSpa, "1.2.3.4/32")), set(in(flow.ARPTpa, "1.2.3.5/32")),
			set(term(flow.ARPSha, 1)), set(term(flow.ARPTha, 2))}, "set_field:2->arp_op,set_field:1.2.3.4->arp_spa,set_field:1.2.3.5->arp_tpa," +
			"set_field:00:00:00:00:00:01->arp_sha,set_field:00:00:00:00:00:02->arp_tha", false},
		{"mpls", []flow.Action{set(term(flow.MPLSLabel, 5)), set(term(flow.MPLSTC, 1))}, "set_field:5->mpls_label,set_field:1->mpls_tc", false},
		{"tcp", []flow.Action{set(term(flow.TCPSrc, 80)), set(term(flow.TCPDst, 81))}, "set_field:80->tcp_src,set_field:81->tcp_dst", false},
		{"udp", []flow.Action{set(term(flow.UDPSrc, 80)), set(term(flow.UDPDst, 81))}, "set_field:80->udp_src,set_field:81->udp_dst", false},
		{"sctp", []flow.Action{set(term(flow.SCTPSrc, 80)), set(term(flow.SCTPDst, 81))}, "set_field:80->sctp_src,set_field:81->sctp_dst", false},
		{"icmp", []flow.Action{set(term(flow.ICMPType, 1)), set(term(flow.ICMPCode, 2))}, "set_field:1->icmp_type,set_field:2->icmp_code", false},
		{"icmp6,icmp_type=136,icmp_code=0", []flow.Action{set(in(flow.NDTarget, "fe80::1/128")), set(term(flow.NDTll, 1)),
			set(term(flow.ICMPv6Code, 0)), set(term(flow.ICMPv6Type, 136))},
			"set_field:fe80::1->nd_target,set_field:00:00:00:00:00:01->nd_tll,set_field:0->icmpv6_code,set_field:136->icmpv6_type", false},
		{"icmp6,icmp_type=135,icmp_code=0", []flow.Action{set(term(flow.NDSll, 1))}, "set_field:00:00:00:00:00:01->nd_sll", false},
		{"", []flow.Action{flow.Load{Dst: flow.Whole(flow.Reg0), Value: 5}, flow.Load{Dst: sub(flow.Reg1, 3, 1)},
			flow.Load{Dst: sub(flow.Reg2, 0, 16), Value: 0xffff}, flow.Load{Dst: flow.Whole(flow.XReg0), Value: 1 << 63},
			flow.Load{Dst: sub(flow.XXReg1, 32, 64), Value: 7}, flow.Load{Dst: flow.Whole(flow.TunID), Value: 1}},
			"load:0x5->NXM_NX_REG0[],load:0->NXM_NX_REG1[3],load:0xffff->NXM_NX_REG2[0..15],load:0x8000000000000000->OXM_OF_PKT_REG0[]," +
				"load:0x7->NXM_NX_XXREG1[32..95],load:0x1->NXM_NX_TUN_ID[]", false},
		{"", []flow.Action{flow.Load{Dst: sub(flow.InPort, 0, 16)}, flow.Load{Dst: flow.Whole(flow.InPort), Value: 1},
			flow.Load{Dst: sub(flow.InPort, 2, 3), Value: 1}},
			"load:0->NXM_OF_IN_PORT[],load:0x1->OXM_OF_IN_PORT[],load:0x1->NXM_OF_IN_PORT[2..4]", false},
		{"vlan_tci=0x1000/0x1000", []flow.Action{flow.Load{Dst: flow.Whole(flow.VlanVID), Value: 5}, flow.Move{Src: flow.Whole(flow.VlanVID),
			Dst: sub(flow.Reg0, 0, 12)}, flow.Move{Src: sub(flow.VlanTCI, 0, 13), Dst: sub(flow.Reg0, 0, 13)},
			flow.Load{Dst: flow.Whole(flow.VlanPCP), Value: 1}},
			"load:0x5->OXM_OF_VLAN_VID[],move:OXM_OF_VLAN_VID[]->NXM_NX_REG0[0..11],move:NXM_OF_VLAN_TCI[0..12]->NXM_NX_REG0[0..12]," +
				"load:0x1->OXM_OF_VLAN_PCP[]", false},
		{"", []flow.Action{flow.Move{Src: flow.Whole(flow.CtState), Dst: flow.Whole(flow.Reg0)}, flow.Move{Src: sub(flow.CtLabel, 32, 32),
			Dst: flow.Whole(flow.Reg2)}, flow.Move{Src: flow.Whole(flow.CtZone), Dst: sub(flow.Reg1, 16, 16)},
			flow.Move{Src: flow.Whole(flow.EthSrc), Dst: flow.Whole(flow.EthDst)}},
			"move:NXM_NX_CT_STATE[]->NXM_NX_REG0[],move:NXM_NX_CT_LABEL[32..63]->NXM_NX_REG2[],move:NXM_NX_CT_ZONE[]->NXM_NX_REG1[16..31]," +
				"move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]", false},
		{"ip", []flow.Action{flow.Move{Src: flow.Whole(flow.IPDSCP), Dst: sub(flow.Reg0, 0, 6)}, flow.Move{Src: flow.Whole(flow.IPProto),
			Dst: sub(flow.Reg0, 0, 8)}, flow.Move{Src: flow.Whole(flow.IPSrc), Dst: flow.Whole(flow.IPDst)}},
			"move:OXM_OF_IP_DSCP[]->NXM_NX_REG0[0..5],move:NXM_OF_IP_PROTO[]->NXM_NX_REG0[0..7],move:NXM_OF_IP_SRC[]->NXM_OF_IP_DST[]", false},
		{"", []flow.Action{flow.Push{Src: flow.Whole(flow.XXReg0)}, flow.Pop{Dst: sub(flow.Reg1, 0, 8)}},
			"push:NXM_NX_XXREG0[],pop:NXM_NX_REG1[0..7]", false},
		{"", []flow.Action{flow.PushVLAN{EthType: flow.EthTypeVLAN}, flow.PushVLAN{EthType: flow.EthTypeQinQ}, flow.PopVLAN{}},
			"push_vlan:0x8100,push_vlan:0x88a8,pop_vlan", false},
		{"ip", []flow.Action{flow.DecTTL{}, flow.SetQueue{ID: 5}, flow.Output{Port: 1}, flow.PopQueue{}},
			"dec_ttl,set_queue:5,output:1,pop_queue", false},
		{"", []flow.Action{flow.Resubmit{Port: 1, Table: flow.NoTable}, flow.Resubmit{Port: flow.PortInPort, Table: 5}, flow.Resubmit{Port: 1,
			Table: 0}, flow.Resubmit{Port: flow.PortLocal, Table: flow.NoTable}}, "resubmit:1,resubmit(,5),resubmit(1,0),resubmit:LOCAL", false},
		{"ct_state=-inv+trk,ip", []flow.Action{flow.Resubmit{Port: flow.PortInPort, Table: 5, CT: true}, flow.Resubmit{Port: 1, Table: 6,
			CT: true}}, "resubmit(,5,ct),resubmit(1,6,ct)", false},
		{"ip", []flow.Action{flow.CT{Table: flow.NoTable}}, "ct()", false},
		{"ip", []flow.Action{flow.CT{Table: 5, Zone: 3}}, "ct(table=5,zone=3)", false},
		{"tcp", []flow.Action{flow.CT{Commit: true, Force: true, Table: flow.NoTable, ZoneSrc: sub(flow.Reg6, 0, 16), Alg: flow.AlgFTP}},
			"ct(commit,force,zone=NXM_NX_REG6[0..15],alg=ftp)", false},
		{"udp", []flow.Action{flow.CT{Commit: true, Table: flow.NoTable, Alg: flow.AlgTFTP}}, "ct(commit,alg=tftp)", false},
		{"ip", []flow.Action{flow.CT{Table: 1, NAT: &flow.NAT{}}}, "ct(table=1,nat)", false},
		{"ip", nat(flow.NAT{Src: true}), "ct(commit,nat(src))", false},
		{"ip", nat(flow.NAT{Src: true, AddrMin: addr("1.2.3.4"), AddrMax: addr("1.2.3.9"), PortMin: 100, PortMax: 200, Persistent: true,
			Random: true}), "ct(commit,nat(src=1.2.3.4-1.2.3.9:100-200,persistent,random))", false},
		{"ip", nat(flow.NAT{Dst: true, AddrMin: addr("1.2.3.4"), PortMin: 80, Hash: true}), "ct(commit,nat(dst=1.2.3.4:80,hash))", false},
		{"ipv6", nat(flow.NAT{Dst: true, AddrMin: addr("fe80::1"), AddrMax: addr("fe80::5")}), "ct(commit,nat(dst=fe80::1-fe80::5))", false},
		{"ipv6", nat(flow.NAT{Dst: true, AddrMin: addr("fe80::1"), AddrMax: addr("fe80::7"), PortMin: 80, PortMax: 90}),
			"ct(commit,nat(dst=[fe80::1]-[fe80::7]:80-90))", false},
		{"ip", []flow.Action{flow.CT{Commit: true, Table: 3, Zone: 5, NAT: &flow.NAT{Src: true, AddrMin: addr("1.2.3.4")}, Exec: []flow.Action{
			set(term(flow.CtMark, 5)), set(wide(flow.CtLabel, 1, 2)), flow.Load{Dst: sub(flow.CtLabel, 32, 32), Value: 1},
			flow.Load{Dst: flow.Whole(flow.CtMark), Value: 5}, flow.Move{Src: flow.Whole(flow.Reg8), Dst: sub(flow.CtLabel, 0, 32)}}}},
			"ct(commit,table=3,zone=5,nat(src=1.2.3.4),exec(set_field:0x5->ct_mark,set_field:0x10000000000000002->ct_label," +
				"load:0x1->NXM_NX_CT_LABEL[32..63],load:0x5->NXM_NX_CT_MARK[],move:NXM_NX_REG8[]->NXM_NX_CT_LABEL[0..31]))", false},
		{"ip", []flow.Action{flow.CT{Commit: true, Table: flow.NoTable, Exec: []flow.Action{set(masked(flow.CtMark, 5, 0xff))}}},
			"ct(commit,exec(set_field:0x5/0xff->ct_mark))", true},
		{"ip", []flow.Action{flow.CTClear{}}, "ct_clear", false},
		{"", []flow.Action{flow.Conjunction{ID: 7, Clause: 1, N: 2}, flow.Conjunction{ID: 0xffffffff, Clause: 64, N: 64},
			flow.Note{Data: "\x01\x02\x03\x04\x05\x06"}}, "conjunction(7,1/2),conjunction(4294967295,64/64),note:01.02.03.04.05.06", false},
		{"", []flow.Action{flow.Clone{Actions: []flow.Action{flow.Output{Port: 1}, flow.Clone{Actions: []flow.Action{set(term(flow.Reg0, 1)),
			flow.Resubmit{Port: flow.PortInPort, Table: 9}}}}}, flow.Clone{}, flow.Output{Port: 2}},
			"clone(output:1,clone(set_field:0x1->reg0,resubmit(,9))),clone(drop),output:2", false},
		{"", []flow.Action{flow.Sample{Probability: 100, CollectorSet: 1, ObsDomainID: 2, ObsPointID: 3, SamplingPort: flow.PortAny}},
			"sample(probability=100,collector_set_id=1,obs_domain_id=2,obs_point_id=3)", false},
		{"", []flow.Action{flow.Sample{Probability: 65535, ObsPointID: 0xffffffff, SamplingPort: 1, Direction: flow.SampleIngress},
			flow.Sample{Probability: 1, SamplingPort: flow.PortLocal, Direction: flow.SampleEgress}},
			"sample(probability=65535,collector_set_id=0,obs_domain_id=0,obs_point_id=4294967295,sampling_port=1,ingress),sample(probability=1," +
				"collector_set_id=0,obs_domain_id=0,obs_point_id=0,sampling_port=LOCAL,egress)", false},
		{"", []flow.Action{flow.CheckPktLarger{Len: 1500, Dst: sub(flow.Reg0, 0, 1)}, flow.CheckPktLarger{Len: 65535, Dst: sub(flow.XXReg0, 100,
			1)}}, "check_pkt_larger(1500)->NXM_NX_REG0[0],check_pkt_larger(65535)->NXM_NX_XXREG0[100]", false},
		{"", []flow.Action{flow.Multipath{Fields: flow.HashSymmetricL3L4, Links: 4, Dst: flow.Whole(flow.Reg2)}, flow.Multipath{
			Fields: flow.HashSymmetricL3L4UDP, Basis: 7, Algorithm: flow.LinkHRW, Links: 65536, Arg: 3, Dst: sub(flow.Reg1, 3, 23)}},
			"multipath(symmetric_l3l4,0,modulo_n,4,0,NXM_NX_REG2[]),multipath(symmetric_l3l4+udp,7,hrw,65536,3,NXM_NX_REG1[3..25])", false},
		{"", []flow.Action{
			flow.Multipath{Fields: flow.HashEthSrc, Basis: 50, Algorithm: flow.LinkHashThreshold, Links: 1, Dst: sub(flow.Reg0, 31, 1)},
			flow.Multipath{Fields: flow.HashSymmetricL4, Algorithm: flow.LinkIterHash, Links: 2, Arg: 1 << 31, Dst: sub(flow.XXReg0, 100, 1)},
			flow.Multipath{Fields: flow.HashNwSrc, Links: 9, Dst: sub(flow.XXReg0, 5, 64)},
			flow.Multipath{Fields: flow.HashNwDst, Basis: 65535, Links: 9, Dst: sub(flow.Metadata, 0, 16)},
			flow.Multipath{Fields: flow.HashSymmetricL3, Links: 9, Dst: flow.Whole(flow.TunID)}},
			"multipath(eth_src,50,hash_threshold,1,0,NXM_NX_REG0[31]),multipath(symmetric_l4,0,iter_hash,2,2147483648,NXM_NX_XXREG0[100])," +
				"multipath(nw_src,0,modulo_n,9,0,NXM_NX_XXREG0[5..68]),multipath(nw_dst,65535,modulo_n,9,0,OXM_OF_METADATA[0..15])," +
				"multipath(symmetric_l3,0,modulo_n,9,0,NXM_NX_TUN_ID[])", false},
		{"", []flow.Action{flow.Meter{ID: 5}, flow.Output{Port: 1}, flow.ClearActions{},
			flow.WriteActions{Actions: []flow.Action{flow.Output{Port: 2}, flow.Group{ID: 5}}}, flow.WriteMetadata{Value: 1, Mask: 0xff},
			flow.GotoTable{Table: 3}},
			"meter:5,output:1,clear_actions,write_actions(output:2,group:5),write_metadata:0x1/0xff,goto_table:3", false},
		{"", []flow.Action{flow.WriteMetadata{Value: 0, Mask: ^uint64(0)}, flow.GotoTable{Table: 254}}, "write_metadata:0,goto_table:254", false},
	}
	return rows
}

type headerRow struct {
	flow flow.Flow
	text string
}

func goldenHeaders() []headerRow {
	const p = flow.DefaultPriority
	return []headerRow{
		{flow.Flow{Table: 1, Priority: p}, "table=1, actions=drop"},
		{flow.Flow{Priority: p}, "actions=drop"},
		{flow.Flow{Priority: 0}, "priority=0 actions=drop"},
		{flow.Flow{Priority: 65535, Table: 253, Cookie: 0xffffffffffffff12}, "cookie=0xffffffffffffff12, table=253, priority=65535 actions=drop"},
		{flow.Flow{Priority: p, Table: 5, Cookie: 1, Match: match(term(flow.InPort, 1))}, "cookie=0x1, table=5, in_port=1 actions=drop"},
		{flow.Flow{Priority: 9, Table: 2, IdleTimeout: 100, HardTimeout: 65535},
			"table=2, idle_timeout=100, hard_timeout=65535, priority=9 actions=drop"},
		{flow.Flow{Priority: p, Table: 3, IdleTimeout: 100,
			Flags: flow.SendFlowRem | flow.CheckOverlap | flow.ResetCounts | flow.NoPktCounts | flow.NoBytCounts},
			"table=3, idle_timeout=100, send_flow_rem check_overlap reset_counts no_packet_counts no_byte_counts actions=drop"},
		{flow.Flow{Priority: 7, Table: 4, Flags: flow.SendFlowRem, Match: match(term(flow.InPort, 1))},
			"table=4, send_flow_rem priority=7,in_port=1 actions=drop"},
	}
}
