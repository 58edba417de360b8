package flow

// The fields, in the order in which a Match holds them. Names follow ovs-fields(7).
const (
	InPort FieldID = iota + 1
	PktMark
	RecircID
	DpHash
	ConjID
	Metadata
	TunID
	TunSrc
	TunDst
	TunIPv6Src
	TunIPv6Dst
	TunFlags
	TunGBPID
	TunGBPFlags
	TunERSPANVer
	TunERSPANIdx
	TunERSPANDir
	TunERSPANHWID
	Reg0
	Reg1
	Reg2
	Reg3
	Reg4
	Reg5
	Reg6
	Reg7
	Reg8
	Reg9
	Reg10
	Reg11
	Reg12
	Reg13
	Reg14
	Reg15
	XReg0
	XReg1
	XReg2
	XReg3
	XReg4
	XReg5
	XReg6
	XReg7
	XXReg0
	XXReg1
	XXReg2
	XXReg3
	CtState
	CtZone
	CtMark
	CtLabel
	CtNwProto
	CtNwSrc
	CtNwDst
	CtIPv6Src
	CtIPv6Dst
	CtTpSrc
	CtTpDst
	EthSrc
	EthDst
	EthType
	VlanTCI // NXM_OF_VLAN_TCI: the 16-bit tag with the CFI bit as "present"
	VlanVID // OXM: 12 bits plus the present bit 0x1000
	VlanPCP
	MPLSLabel
	MPLSTC
	MPLSBOS
	IPSrc
	IPDst
	IPv6Src
	IPv6Dst
	IPv6Label
	IPProto
	IPDSCP // 6 bits
	IPECN
	IPTTL
	IPFrag
	ARPOp
	ARPSpa
	ARPTpa
	ARPSha
	ARPTha
	TCPSrc
	TCPDst
	TCPFlags
	UDPSrc
	UDPDst
	SCTPSrc
	SCTPDst
	ICMPType
	ICMPCode
	ICMPv6Type
	ICMPv6Code
	NDTarget
	NDSll
	NDTll
	ActsetOutput
	numFields
)

// Reg returns register n, 0..15.
func Reg(n int) FieldID { return Reg0 + FieldID(n) }

// Bits of ct_state (ovs-fields(7)).
const (
	CtNew  = 1 << 0
	CtEst  = 1 << 1
	CtRel  = 1 << 2
	CtRpl  = 1 << 3
	CtInv  = 1 << 4
	CtTrk  = 1 << 5
	CtSnat = 1 << 6
	CtDnat = 1 << 7
)

// SubField is Bits bits of a field starting at bit Ofs, written name[ofs..ofs+bits-1].
type SubField struct {
	Field     FieldID
	Ofs, Bits uint16
}

// Whole is the sub-field that covers all of f.
func Whole(f FieldID) SubField { return SubField{Field: f, Bits: uint16(f.SubBits())} }
