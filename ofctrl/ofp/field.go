package ofp

import "github.com/tapwall/tapwall/ofctrl/flow"

// OXM classes (§7.2.3.3). Classes 0 and 1 are the NXM classes of ovs-fields(7).
const (
	classNXM0         = 0x0000
	classNXM1         = 0x0001
	classBasic        = 0x8000
	classPacketReg    = 0x8001
	classExperimenter = 0xffff
)

// wireField says how a field goes on the wire in a match and in an action.
type wireField struct {
	class uint16
	id    uint8
	bytes uint8  // of the value, of which flow.FieldID.Bits have meaning
	exp   uint32 // vendor of the experimenter class, else 0
}

// header returns the OXM header for a value alone, or for a value and a mask. Experimenter fields have the vendor after it.
func (f wireField) header(masked bool) uint32 {
	n := uint32(f.bytes)
	var m uint32
	if masked {
		n, m = 2*n, 1
	}
	if f.exp != 0 {
		n += 4
	}
	return uint32(f.class)<<16 | uint32(f.id)<<9 | m<<8 | n
}

// basic is a field of the OpenFlow class, nxm one of a Nicira class, nxet one that Nicira has in the experimenter class.
func basic(id, bytes uint8) wireField { return wireField{classBasic, id, bytes, 0} }
func nxm(id, bytes uint8) wireField   { return wireField{classNXM1, id, bytes, 0} }
func nxet(id, bytes uint8) wireField  { return wireField{classExperimenter, id, bytes, VendorNicira} }

// wire returns the wire form of f. The OpenFlow class is used where OpenFlow 1.3 has the field and the Nicira class
// elsewhere, as Open vSwitch does; tcp_flags alone goes by its Nicira name, because the ONF one does not fit into the
// 32-bit header of reg_load.
func wire(f flow.FieldID) (wireField, bool) {
	if int(f) >= len(wireFields) || wireFields[f].bytes == 0 {
		return wireField{}, false
	}
	return wireFields[f], true
}

// wireFields is the table behind wire; ovs-fields(7) is its source. It is never written to.
var wireFields = [...]wireField{
	flow.InPort:        basic(0, 4),
	flow.PktMark:       nxm(33, 4),
	flow.RecircID:      nxm(36, 4),
	flow.DpHash:        nxm(35, 4),
	flow.ConjID:        nxm(37, 4),
	flow.Metadata:      basic(2, 8),
	flow.TunID:         basic(38, 8),
	flow.TunSrc:        nxm(31, 4),
	flow.TunDst:        nxm(32, 4),
	flow.TunIPv6Src:    nxm(109, 16),
	flow.TunIPv6Dst:    nxm(110, 16),
	flow.TunFlags:      nxm(104, 2),
	flow.TunGBPID:      nxm(38, 2),
	flow.TunGBPFlags:   nxm(39, 1),
	flow.TunERSPANVer:  nxet(12, 1),
	flow.TunERSPANIdx:  nxet(11, 4),
	flow.TunERSPANDir:  nxet(13, 1),
	flow.TunERSPANHWID: nxet(14, 1),
	flow.Reg0:          nxm(0, 4),
	flow.Reg1:          nxm(1, 4),
	flow.Reg2:          nxm(2, 4),
	flow.Reg3:          nxm(3, 4),
	flow.Reg4:          nxm(4, 4),
	flow.Reg5:          nxm(5, 4),
	flow.Reg6:          nxm(6, 4),
	flow.Reg7:          nxm(7, 4),
	flow.Reg8:          nxm(8, 4),
	flow.Reg9:          nxm(9, 4),
	flow.Reg10:         nxm(10, 4),
	flow.Reg11:         nxm(11, 4),
	flow.Reg12:         nxm(12, 4),
	flow.Reg13:         nxm(13, 4),
	flow.Reg14:         nxm(14, 4),
	flow.Reg15:         nxm(15, 4),
	flow.XReg0:         {classPacketReg, 0, 8, 0},
	flow.XReg1:         {classPacketReg, 1, 8, 0},
	flow.XReg2:         {classPacketReg, 2, 8, 0},
	flow.XReg3:         {classPacketReg, 3, 8, 0},
	flow.XReg4:         {classPacketReg, 4, 8, 0},
	flow.XReg5:         {classPacketReg, 5, 8, 0},
	flow.XReg6:         {classPacketReg, 6, 8, 0},
	flow.XReg7:         {classPacketReg, 7, 8, 0},
	flow.XXReg0:        nxm(111, 16),
	flow.XXReg1:        nxm(112, 16),
	flow.XXReg2:        nxm(113, 16),
	flow.XXReg3:        nxm(114, 16),
	flow.CtState:       nxm(105, 4),
	flow.CtZone:        nxm(106, 2),
	flow.CtMark:        nxm(107, 4),
	flow.CtLabel:       nxm(108, 16),
	flow.CtNwProto:     nxm(119, 1),
	flow.CtNwSrc:       nxm(120, 4),
	flow.CtNwDst:       nxm(121, 4),
	flow.CtIPv6Src:     nxm(122, 16),
	flow.CtIPv6Dst:     nxm(123, 16),
	flow.CtTpSrc:       nxm(124, 2),
	flow.CtTpDst:       nxm(125, 2),
	flow.EthSrc:        basic(4, 6),
	flow.EthDst:        basic(3, 6),
	flow.EthType:       basic(5, 2),
	flow.VlanTCI:       {classNXM0, 4, 2, 0},
	flow.VlanVID:       basic(6, 2),
	flow.VlanPCP:       basic(7, 1),
	flow.MPLSLabel:     basic(34, 4),
	flow.MPLSTC:        basic(35, 1),
	flow.MPLSBOS:       basic(36, 1),
	flow.IPSrc:         basic(11, 4),
	flow.IPDst:         basic(12, 4),
	flow.IPv6Src:       basic(26, 16),
	flow.IPv6Dst:       basic(27, 16),
	flow.IPv6Label:     basic(28, 4),
	flow.IPProto:       basic(10, 1),
	flow.IPDSCP:        basic(8, 1),
	flow.IPECN:         basic(9, 1),
	flow.IPTTL:         nxm(29, 1),
	flow.IPFrag:        nxm(26, 1),
	flow.ARPOp:         basic(21, 2),
	flow.ARPSpa:        basic(22, 4),
	flow.ARPTpa:        basic(23, 4),
	flow.ARPSha:        basic(24, 6),
	flow.ARPTha:        basic(25, 6),
	flow.TCPSrc:        basic(13, 2),
	flow.TCPDst:        basic(14, 2),
	flow.TCPFlags:      nxm(34, 2),
	flow.UDPSrc:        basic(15, 2),
	flow.UDPDst:        basic(16, 2),
	flow.SCTPSrc:       basic(17, 2),
	flow.SCTPDst:       basic(18, 2),
	flow.ICMPType:      basic(19, 1),
	flow.ICMPCode:      basic(20, 1),
	flow.ICMPv6Type:    basic(29, 1),
	flow.ICMPv6Code:    basic(30, 1),
	flow.NDTarget:      basic(31, 16),
	flow.NDSll:         basic(32, 6),
	flow.NDTll:         basic(33, 6),
	flow.ActsetOutput:  {classExperimenter, 43, 4, VendorONF},
}

// The fields by class and number, 0 where there is none.
var (
	nxm0Fields = [128]flow.FieldID{
		0: flow.InPort, 1: flow.EthDst, 2: flow.EthSrc, 3: flow.EthType, 4: flow.VlanTCI, 5: flow.IPDSCP, 6: flow.IPProto,
		7: flow.IPSrc, 8: flow.IPDst, 9: flow.TCPSrc, 10: flow.TCPDst, 11: flow.UDPSrc, 12: flow.UDPDst,
		13: flow.ICMPType, 14: flow.ICMPCode, 15: flow.ARPOp, 16: flow.ARPSpa, 17: flow.ARPTpa,
	}
	nxm1Fields = [128]flow.FieldID{
		0: flow.Reg0, 1: flow.Reg1, 2: flow.Reg2, 3: flow.Reg3, 4: flow.Reg4, 5: flow.Reg5, 6: flow.Reg6, 7: flow.Reg7,
		8: flow.Reg8, 9: flow.Reg9, 10: flow.Reg10, 11: flow.Reg11, 12: flow.Reg12, 13: flow.Reg13, 14: flow.Reg14,
		15: flow.Reg15, 16: flow.TunID, 17: flow.ARPSha, 18: flow.ARPTha, 19: flow.IPv6Src, 20: flow.IPv6Dst,
		21: flow.ICMPv6Type, 22: flow.ICMPv6Code, 23: flow.NDTarget, 24: flow.NDSll, 25: flow.NDTll, 26: flow.IPFrag,
		27: flow.IPv6Label, 28: flow.IPECN, 29: flow.IPTTL, 31: flow.TunSrc, 32: flow.TunDst, 33: flow.PktMark,
		34: flow.TCPFlags, 35: flow.DpHash, 36: flow.RecircID, 37: flow.ConjID, 38: flow.TunGBPID, 39: flow.TunGBPFlags,
		104: flow.TunFlags, 105: flow.CtState, 106: flow.CtZone, 107: flow.CtMark, 108: flow.CtLabel,
		109: flow.TunIPv6Src, 110: flow.TunIPv6Dst, 111: flow.XXReg0, 112: flow.XXReg1, 113: flow.XXReg2,
		114: flow.XXReg3, 119: flow.CtNwProto, 120: flow.CtNwSrc, 121: flow.CtNwDst, 122: flow.CtIPv6Src,
		123: flow.CtIPv6Dst, 124: flow.CtTpSrc, 125: flow.CtTpDst,
	}
	basicFields = [128]flow.FieldID{
		0: flow.InPort, 2: flow.Metadata, 3: flow.EthDst, 4: flow.EthSrc, 5: flow.EthType, 6: flow.VlanVID, 7: flow.VlanPCP,
		8: flow.IPDSCP, 9: flow.IPECN, 10: flow.IPProto, 11: flow.IPSrc, 12: flow.IPDst, 13: flow.TCPSrc, 14: flow.TCPDst,
		15: flow.UDPSrc, 16: flow.UDPDst, 17: flow.SCTPSrc, 18: flow.SCTPDst, 19: flow.ICMPType, 20: flow.ICMPCode,
		21: flow.ARPOp, 22: flow.ARPSpa, 23: flow.ARPTpa, 24: flow.ARPSha, 25: flow.ARPTha, 26: flow.IPv6Src,
		27: flow.IPv6Dst, 28: flow.IPv6Label, 29: flow.ICMPv6Type, 30: flow.ICMPv6Code, 31: flow.NDTarget,
		32: flow.NDSll, 33: flow.NDTll, 34: flow.MPLSLabel, 35: flow.MPLSTC, 36: flow.MPLSBOS, 38: flow.TunID,
	}
)

// byWire returns the field that an OXM header names, or 0. NXM_OF_IN_PORT and NXM_OF_IP_TOS come out as the OpenFlow
// fields that they are other forms of; the caller must convert their values.
func byWire(class uint16, id uint8, exp uint32) flow.FieldID {
	switch class {
	case classNXM0:
		return nxm0Fields[id&127]
	case classNXM1:
		return nxm1Fields[id&127]
	case classBasic:
		return basicFields[id&127]
	case classPacketReg:
		if id < 8 {
			return flow.XReg0 + flow.FieldID(id)
		}
	case classExperimenter:
		return byExperimenter(exp, id)
	}
	return 0
}

func byExperimenter(exp uint32, id uint8) flow.FieldID {
	switch exp {
	case VendorONF:
		switch id {
		case 42:
			return flow.TCPFlags
		case 43:
			return flow.ActsetOutput
		}
	case VendorNicira:
		switch id {
		case 0:
			return flow.DpHash
		case 11:
			return flow.TunERSPANIdx
		case 12:
			return flow.TunERSPANVer
		case 13:
			return flow.TunERSPANDir
		case 14:
			return flow.TunERSPANHWID
		}
	}
	return 0
}
