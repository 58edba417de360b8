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
	// AllTables makes a delete or modify act on every table; the flow's Table is ignored.
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

// Meter is a rate limiter (§5.7).
type Meter struct {
	ID    uint32
	Flags MeterFlags
	Bands []MeterBand
}

// MeterBand is one threshold of a meter.
type MeterBand struct {
	Type      BandType
	Rate      uint32 // kbit/s or packets/s, by the meter's flags
	Burst     uint32 // kbit or packets; used iff the meter has MeterBurst
	PrecLevel uint8  // BandDSCPRemark: by how much to raise the drop precedence
}

// Group is a set of buckets (§5.6).
type Group struct {
	ID      uint32
	Type    GroupType
	Buckets []Bucket
}

// Bucket is one list of actions of a group.
type Bucket struct {
	Weight     uint16 // GroupSelect only
	WatchPort  uint32 // GroupFastFailover: live iff this port is; 0 = none
	WatchGroup uint32 // likewise; 0 = none
	Actions    []flow.Action
}

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
