// Package flow holds OpenFlow entries as plain values: matches, actions, flows, meters and cookies, with the text form
// of ovs-ofctl(8) in both directions.
//
// Names are those of ovs-fields(7) and ovs-actions(7). A value of this package does no I/O, knows no wire format
// (package ofp does) and no policy. Values are compared by their canonical text or by [Flow.Equal]; they are immutable
// once handed to another package, so they may be shared between goroutines.
package flow

// OpenFlow 1.3 reserved ports (OpenFlow 1.3.5 §7.2.1) that tapwall uses.
const (
	PortMax        uint32 = 0xffffff00
	PortUnset      uint32 = 0xfffffff7 // OpenFlow 1.5 §7.2.1: no output action so far; in ActsetOutput only
	PortInPort     uint32 = 0xfffffff8
	PortTable      uint32 = 0xfffffff9
	PortNormal     uint32 = 0xfffffffa
	PortFlood      uint32 = 0xfffffffb
	PortAll        uint32 = 0xfffffffc
	PortController uint32 = 0xfffffffd
	PortLocal      uint32 = 0xfffffffe
	PortAny        uint32 = 0xffffffff
)

// Cookie is the opaque 64-bit value that a flow carries; package pipeline draws its layout.
type Cookie uint64

// Flags are the OFPFF_* bits of a flow (OpenFlow 1.3.5 §7.3.4.1).
type Flags uint16

// The flags of OpenFlow 1.3.
const (
	SendFlowRem  Flags = 1 << 0
	CheckOverlap Flags = 1 << 1
	ResetCounts  Flags = 1 << 2
	NoPktCounts  Flags = 1 << 3
	NoBytCounts  Flags = 1 << 4
)

// Flow is one entry of a flow table. Its identity on a switch is [Flow.Key].
type Flow struct {
	Table       uint8
	Priority    uint16
	Cookie      Cookie
	IdleTimeout uint16 // seconds; 0 = never
	HardTimeout uint16 // seconds; 0 = never
	Importance  uint16 // OpenFlow 1.4+; 0 in 1.3
	Flags       Flags
	Match       Match
	// Actions holds the apply-actions in order, with the instructions that ovs-ofctl prints among the actions
	// (Meter first, then apply-actions, ClearActions, WriteActions, WriteMetadata, GotoTable last).
	Actions []Action
}

// Stats are the counters of an installed flow.
type Stats struct {
	Packets, Bytes uint64
	DurationSec    uint32
	DurationNsec   uint32
}

// Installed is a flow as read back from a switch.
type Installed struct {
	Flow
	Stats Stats
}
