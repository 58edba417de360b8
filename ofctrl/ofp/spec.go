package ofp

import (
	"net/netip"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// FlowModOptions are the parts of a flow-mod that are no part of the flow. The zero value asks for nothing special.
type FlowModOptions struct {
	// CookieMask restricts a modify or delete to flows whose cookie equals the flow's under this mask; 0 = any cookie.
	CookieMask uint64
	// OutPort and OutGroup restrict a delete to flows that output there; 0 = any.
	OutPort, OutGroup uint32
	// AllTables makes a delete act on every table; the flow's Table is ignored. Other commands refuse it.
	AllTables bool
}

// FlowFilter selects flows of a statistics request.
type FlowFilter struct {
	Table              uint8 // AllTables = all
	OutPort, OutGroup  uint32
	Cookie, CookieMask uint64 // flows whose cookie equals Cookie under CookieMask
	Match              flow.Match
}

// PacketOut is a packet to send or to run through the pipeline (§7.3.7).
type PacketOut struct {
	InPort  uint32 // where the packet pretends to come from; PortController if from nowhere
	Actions []flow.Action
	Data    []byte // the packet from its Ethernet header on
}

// PortMod changes the configuration of a port (§7.3.4.3): the bits of Mask become those of Config.
type PortMod struct {
	No           uint32
	HWAddr       [6]byte // must be that of the port
	Config, Mask uint32
	Advertise    uint32 // 0 = unchanged
}

// AsyncConfig says which asynchronous messages the switch sends (§7.3.10): bit 1<<reason, for index 0 while we are equal or
// primary, for index 1 while we are secondary.
type AsyncConfig struct {
	PacketIn    [2]uint32
	PortStatus  [2]uint32
	FlowRemoved [2]uint32
}

// FlowMonitor asks for reports of changes of the flow tables.
type FlowMonitor struct {
	ID      uint32 // ours, unique on the connection
	Flags   MonitorFlags
	OutPort uint32 // only flows that output there; 0 = any
	Table   uint8  // AllTables = all
	Match   flow.Match
}

// The values of meters are those of package flow; these are other names for them.
type (
	Meter      = flow.MeterDesc
	MeterBand  = flow.Band
	MeterFlags = flow.MeterFlags
	BandType   = flow.BandType
)

// CTFlush selects conntrack entries to remove (NXT_CT_FLUSH). Only entries that agree with all that is set go.
type CTFlush struct {
	Proto       uint8 // IP protocol; 0 = any
	Orig, Reply CTTuple
	Zone        uint16
	AnyZone     bool
}

// CTTuple is one direction of a connection. The zero value of a part leaves it open; the ICMP parts are used by ICMP and
// ICMPv6 only and there all of them.
type CTTuple struct {
	Src, Dst           netip.Addr
	SrcPort, DstPort   uint16
	ICMPID             uint16
	ICMPType, ICMPCode uint8
}

// addr128 is an address as 16 bytes, IPv4 mapped into IPv6; the zero Addr is 0.
func addr128(a netip.Addr) flow.U128 {
	if !a.IsValid() {
		return flow.U128{}
	}
	b := a.As16()
	return parseUint(b[:])
}
