package ofp_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/contiv/libOpenflow/openflow13"
	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// libField is a field of the other library by its NXM or OXM name.
func libField(t *testing.T, name string) *openflow13.MatchField {
	t.Helper()
	f, err := openflow13.FindFieldHeaderByName(name, false)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// An encoder by other hands must arrive at the same bytes, for all that it encodes rightly. Where it does not (register bit 0
// alone, nat with one port, resubmit without a table, ct_nw_*, masks on ports) there is nothing to compare.
func TestSameBytesAsLibOpenflow(t *testing.T) {
	tcp := match(term(flow.EthType, 0x800), term(flow.IPProto, 6))
	libTCP := []*openflow13.MatchField{openflow13.NewEthTypeField(0x800), openflow13.NewIpProtoField(6)}
	ip := func(s string) net.IP { return net.ParseIP(s) }
	mask24 := net.IP(net.CIDRMask(24, 32))
	reg := func(n int, v uint32, from, to int) *openflow13.MatchField {
		return openflow13.NewRegMatchField(n, v, openflow13.NewNXRange(from, to))
	}
	newEst := openflow13.NewCTStates()
	newEst.UnsetNew()
	newEst.SetEst()
	newEst.SetTrk()
	mark := uint32(0xff)
	mac, macMask := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{255, 255, 255, 255, 255, 0}
	label, labelMask := [16]byte{3: 5, 15: 7}, [16]byte{3: 0xff, 15: 0xff}
	metaMask := uint64(0xff00)
	nat := openflow13.NewNXActionCTNAT()
	nat.SetSNAT()
	nat.SetRangeIPv4Min(ip("10.1.0.1"))
	nat.SetRangeIPv4Max(ip("10.1.0.9"))
	portMin, portMax := uint16(1024), uint16(2048)
	nat.SetRangeProtoMin(&portMin)
	nat.SetRangeProtoMax(&portMax)
	nat.SetRandom()
	load := func(name string, from, to int, v uint64) openflow13.Action {
		return openflow13.NewNXActionRegLoad(openflow13.NewNXRange(from, to).ToOfsBits(), libField(t, name), v)
	}
	write := func(as ...openflow13.Action) openflow13.Instruction {
		w := openflow13.NewInstrWriteActions()
		for _, a := range as {
			w.AddAction(a, false)
		}
		return w
	}
	controller := openflow13.NewNXActionController(3)
	controller.MaxLen, controller.Reason = 128, 1
	for _, tt := range []struct {
		name    string
		match   flow.Match
		actions []flow.Action
		libM    []*openflow13.MatchField
		libA    []openflow13.Action // of apply_actions
		libI    []openflow13.Instruction
	}{
		{name: "drop"},
		{name: "in_port, MACs", match: match(term(flow.InPort, 7), term(flow.EthSrc, 0x020000000001), masked(flow.EthDst, 0x020000000001,
			0xffffffffff00)),
			libM: []*openflow13.MatchField{openflow13.NewInPortField(7), openflow13.NewEthSrcField(mac, nil),
				openflow13.NewEthDstField(net.HardwareAddr{2, 0, 0, 0, 0, 0}, &macMask)}},
		{name: "tcp", match: match(append(tcp, masked(flow.IPSrc, 0x0a000000, 0xffffff00), term(flow.IPDst, 0x0a000102),
			term(flow.TCPDst, 80))...),
			libM: []*openflow13.MatchField{openflow13.NewEthTypeField(0x800), openflow13.NewIpv4SrcField(ip("10.0.0.0").To4(), &mask24),
				openflow13.NewIpv4DstField(ip("10.0.1.2").To4(), nil), openflow13.NewIpProtoField(6), openflow13.NewTcpDstField(80)}},
		{name: "udp over IPv6", match: match(term(flow.EthType, 0x86dd), wide(flow.IPv6Src, 0xfd<<56, 1), term(flow.IPProto, 17),
			term(flow.UDPSrc, 53)),
			libM: []*openflow13.MatchField{openflow13.NewEthTypeField(0x86dd), openflow13.NewIpv6SrcField(ip("fd00::1"), nil),
				openflow13.NewIpProtoField(17), openflow13.NewUdpSrcField(53)}},
		{name: "sctp", match: match(term(flow.EthType, 0x800), term(flow.IPProto, 132), term(flow.SCTPDst, 9)),
			libM: []*openflow13.MatchField{openflow13.NewEthTypeField(0x800), openflow13.NewIpProtoField(132), openflow13.NewSctpDstField(9)}},
		{name: "arp", match: match(term(flow.EthType, 0x806), term(flow.ARPOp, 1), term(flow.ARPSpa, 0x0a000001)),
			libM: []*openflow13.MatchField{openflow13.NewEthTypeField(0x806), openflow13.NewArpOperField(1),
				openflow13.NewArpSpaField(ip("10.0.0.1").To4())}},
		{name: "registers, metadata, tunnel", match: match(masked(flow.Metadata, 0x1200, 0xff00), term(flow.TunID, 5), masked(flow.Reg0, 0x50,
			0xf0), masked(flow.Reg9, 0x3<<16, 0xffff<<16)),
			libM: []*openflow13.MatchField{openflow13.NewMetadataField(0x1200, &metaMask), openflow13.NewTunnelIdField(5), reg(0, 0x50, 4, 7),
				reg(9, 3<<16, 16, 31)}},
		{name: "conntrack", match: match(masked(flow.CtState, 0x22, 0x23), term(flow.CtZone, 4), masked(flow.CtMark, 3, 0xff),
			wideMasked(flow.CtLabel, 5<<32, 7, 0xff<<32, 0xff)),
			libM: []*openflow13.MatchField{openflow13.NewCTStateMatchField(newEst), openflow13.NewCTZoneMatchField(4),
				openflow13.NewCTMarkMatchField(3, &mark), openflow13.NewCTLabelMatchField(label, &labelMask)}},
		{name: "conj_id", match: match(term(flow.ConjID, 99)), libM: []*openflow13.MatchField{openflow13.NewConjIDMatchField(99)}},
		{name: "output, group, queue, push and pop", actions: []flow.Action{flow.Output{Port: 5, MaxLen: 256}, flow.Group{ID: 6},
			flow.SetQueue{ID: 7}, flow.PushVLAN{EthType: 0x8100}, flow.PopVLAN{}},
			libA: []openflow13.Action{openflow13.NewActionOutput(5), openflow13.NewActionGroup(6), openflow13.NewActionSetQueue(7),
				openflow13.NewActionPushVlan(0x8100), openflow13.NewActionPopVlan()}},
		{name: "set_field", match: tcp, actions: []flow.Action{set(flow.IPDst, 0x0a0b0c0d), set(flow.EthDst, 0x020000000001),
			set(flow.TCPDst, 81)}, libM: libTCP,
			libA: []openflow13.Action{openflow13.NewActionSetField(*openflow13.NewIpv4DstField(ip("10.11.12.13").To4(), nil)),
				openflow13.NewActionSetField(*openflow13.NewEthDstField(mac, nil)), openflow13.NewActionSetField(*openflow13.NewTcpDstField(81))}},
		{name: "set_field with a mask", actions: []flow.Action{flow.SetField(masked(flow.Reg3, 0x30, 0xf0))},
			libA: []openflow13.Action{openflow13.NewNXActionRegLoad2(reg(3, 0x30, 4, 7))}},
		{name: "load, move", actions: []flow.Action{flow.Load{Dst: sub(flow.Reg2, 4, 8), Value: 0x5a}, flow.Move{Src: sub(flow.Reg0, 0, 16),
			Dst: sub(flow.Reg1, 16, 16)}},
			libA: []openflow13.Action{load("NXM_NX_REG2", 4, 11, 0x5a), openflow13.NewNXActionRegMove(16, 0, 16, libField(t, "NXM_NX_REG0"),
				libField(t, "NXM_NX_REG1"))}},
		{name: "output of a register", actions: []flow.Action{flow.OutputReg{Src: sub(flow.Reg4, 0, 16), MaxLen: 77}},
			libA: []openflow13.Action{openflow13.NewOutputFromFieldWithMaxLen(libField(t, "NXM_NX_REG4"), openflow13.NewNXRange(0, 15).ToOfsBits(),
				77)}},
		{name: "resubmit", actions: []flow.Action{flow.Resubmit{Port: 9, Table: 22}, flow.Resubmit{Port: flow.PortInPort, Table: 23, CT: true}},
			libA: []openflow13.Action{openflow13.NewNXActionResubmitTableAction(9, 22), openflow13.NewNXActionResubmitTableCT(0xfff8, 23)}},
		{name: "conjunction", actions: []flow.Action{flow.Conjunction{ID: 88, Clause: 2, N: 3}},
			libA: []openflow13.Action{openflow13.NewNXActionConjunction(1, 3, 88)}},
		{name: "controller", actions: []flow.Action{flow.Controller{MaxLen: 128, ID: 3, Reason: 1}}, libA: []openflow13.Action{controller}},
		{name: "ct", actions: []flow.Action{flow.CT{Table: 5, ZoneSrc: sub(flow.Reg6, 0, 16)}, flow.CT{Commit: true, Force: true,
			Table: flow.NoTable, Zone: 9}},
			libA: []openflow13.Action{openflow13.NewNXActionConnTrack().Table(5).ZoneRange(libField(t, "NXM_NX_REG6"), openflow13.NewNXRange(0,
				15)), openflow13.NewNXActionConnTrack().Commit().Force().ZoneImm(9)}},
		{name: "ct nat exec", actions: []flow.Action{flow.CT{Commit: true, Table: 6, Zone: 3,
			NAT: &flow.NAT{Src: true, AddrMin: netip.MustParseAddr("10.1.0.1"), AddrMax: netip.MustParseAddr("10.1.0.9"), PortMin: 1024,
				PortMax: 2048, Random: true},
			Exec: []flow.Action{flow.Load{Dst: sub(flow.CtMark, 0, 32), Value: 5}, flow.Load{Dst: sub(flow.CtLabel, 32, 32), Value: 6}}}},
			libA: []openflow13.Action{openflow13.NewNXActionConnTrack().Commit().Table(6).ZoneImm(3).AddAction(nat, load("NXM_NX_CT_MARK", 0, 31,
				5), load("NXM_NX_CT_LABEL", 32, 63, 6))}},
		{name: "instructions", actions: []flow.Action{flow.Meter{ID: 4}, flow.Output{Port: 1, MaxLen: 256},
			flow.WriteActions{Actions: []flow.Action{flow.Group{ID: 2}}}, flow.WriteMetadata{Value: 3, Mask: 0xff}, flow.GotoTable{Table: 9}},
			libI: []openflow13.Instruction{openflow13.NewInstrMeter(4), nil, write(openflow13.NewActionGroup(2)),
				openflow13.NewInstrWriteMetadata(3, 0xff), openflow13.NewInstrGotoTable(9)},
			libA: []openflow13.Action{openflow13.NewActionOutput(1)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := flow.Flow{Table: 3, Priority: 100, Cookie: 0x1122, IdleTimeout: 10, HardTimeout: 20, Flags: flow.SendFlowRem, Match: tt.match,
				Actions: tt.actions}
			opt := ofp.FlowModOptions{CookieMask: 0xff}
			fm := openflow13.NewFlowMod()
			fm.Header.Xid = 77
			fm.TableId, fm.Priority, fm.Cookie, fm.CookieMask = 3, 100, 0x1122, 0xff
			fm.IdleTimeout, fm.HardTimeout, fm.Flags = 10, 20, 1
			for _, m := range tt.libM {
				fm.Match.AddField(*m)
			}
			var apply openflow13.Instruction
			if tt.libA != nil {
				apply = openflow13.NewInstrApplyActions()
				for _, a := range tt.libA {
					apply.AddAction(a, false)
				}
			}
			if tt.libI == nil && apply != nil {
				tt.libI = []openflow13.Instruction{apply}
			}
			for _, i := range tt.libI {
				if i == nil {
					i = apply
				}
				fm.AddInstruction(i)
			}
			want, err := fm.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			got, err := ofp.AppendFlowMod(nil, 77, ofp.FlowAdd, &f, opt)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(hexOf(want), hexOf(got)); diff != "" {
				t.Errorf("(-libOpenflow +ours)\n%s", diff)
			}

			add := openflow13.NewBundleAdd(&openflow13.BundleAdd{BundleID: 12, Flags: 3, Message: fm})
			add.Header.Xid = 77
			if want, err = add.MarshalBinary(); err != nil {
				t.Fatal(err)
			}
			got, err = ofp.AppendBundleFlowMod(nil, 77, 12, ofp.BundleAtomic|ofp.BundleOrdered, ofp.FlowAdd, &f, opt)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(hexOf(want), hexOf(got)); diff != "" {
				t.Errorf("in a bundle (-libOpenflow +ours)\n%s", diff)
			}
		})
	}
}
