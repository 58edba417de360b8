package ofp

import (
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// Message is a decoded message of a switch: a pointer to one of the message types of this package.
type Message interface {
	// Head returns the header, with the transaction id that ties a reply to its request.
	Head() Header
}

// Header is the common header of every message (OpenFlow 1.3.5 §7.1).
type Header struct {
	Version Version
	Type    Type
	Length  uint16 // bytes of the whole message, header included
	XID     uint32
}

// Head returns h; it makes every type that embeds a Header a [Message].
func (h Header) Head() Header { return h }

// Hello opens the connection (§7.5.1). Versions has bit 1<<wire set for each version of the bitmap element and is 0 if
// the switch sent none, which then means every version up to that of the header.
type Hello struct {
	Header
	Versions uint32
}

// Supports reports whether the sender speaks v.
func (h *Hello) Supports(v Version) bool {
	if h.Versions == 0 {
		return v <= h.Version && v != 0
	}
	return v < 32 && h.Versions>>v&1 == 1
}

// Error tells that a request failed (§7.4.4). Its XID is that of the request. Data aliases the decoded buffer and holds
// at least the first 64 bytes of the request, or text if the hello failed. *Error is a Go error.
type Error struct {
	Header
	Code ErrorCode
	Data []byte
}

// EchoRequest must be answered with the same transaction id and Data (§7.5.2). Data aliases the decoded buffer.
type EchoRequest struct {
	Header
	Data []byte
}

// EchoReply answers an echo request of ours. Data aliases the decoded buffer.
type EchoReply struct {
	Header
	Data []byte
}

// FeaturesReply describes the switch (§7.3.1).
type FeaturesReply struct {
	Header
	DatapathID   uint64
	Buffers      uint32
	Tables       uint8
	AuxiliaryID  uint8
	Capabilities uint32 // OFPC_*
}

// ConfigReply is the answer to a get-config request (§7.3.2).
type ConfigReply struct {
	Header
	Flags       uint16 // OFPC_FRAG_*
	MissSendLen uint16 // bytes
}

// BarrierReply says that everything sent before its request has been done (§7.3.8).
type BarrierReply struct{ Header }

// RoleReply is the role that the switch now has us in (§7.3.9).
type RoleReply struct {
	Header
	Role         Role
	GenerationID uint64
}

// PacketIn is a packet that the switch handed to us: OFPT_PACKET_IN (§7.4.1) or NXT_PACKET_IN2. Data, UserData and
// Continuation alias the decoded buffer; see [PacketIn.Clone].
type PacketIn struct {
	Header
	Extended bool // NXT_PACKET_IN2; UserData and Continuation exist only there
	BufferID uint32
	TotalLen uint32 // bytes of the packet before it was cut; at least len(Data)
	Reason   PacketInReason
	Table    uint8
	Cookie   flow.Cookie
	// Match holds the pipeline fields of the packet: in_port, registers, metadata, tun_*, ct_*.
	Match flow.Match
	// UnknownFields counts pipeline fields that this package has no name for and left out of Match.
	UnknownFields int
	Data          []byte // the packet from its Ethernet header on
	UserData      []byte
	Continuation  []byte // opaque; non-nil iff the packet waits for [AppendResume]
}

// Clone returns a copy that shares no memory with the buffer that p was decoded from.
func (p *PacketIn) Clone() *PacketIn {
	c := *p
	c.Match = slices.Clone(p.Match)
	c.Data = slices.Clone(p.Data)
	c.UserData = slices.Clone(p.UserData)
	c.Continuation = slices.Clone(p.Continuation)
	return &c
}

// FlowRemoved tells that a flow with the flag SendFlowRem has gone (§7.4.2). Its Actions and flags are not told.
type FlowRemoved struct {
	Header
	Reason FlowRemovedReason
	Flow   flow.Installed
	// Err matches [ErrUnsupported] if the match holds fields that this package does not know, which Flow then lacks.
	Err error
}

// PortStatus tells that a port appeared, changed or went (§7.4.3).
type PortStatus struct {
	Header
	Reason PortReason
	Port   Port
}

// Port is the description of one port (§7.2.1).
type Port struct {
	No         uint32
	HWAddr     [6]byte
	Name       string
	Config     uint32 // OFPPC_*
	State      uint32 // OFPPS_*
	Current    uint32 // OFPPF_*, like the next three
	Advertised uint32
	Supported  uint32
	Peer       uint32
	CurrSpeed  uint32 // kbit/s
	MaxSpeed   uint32 // kbit/s
}

// The bits of Port.Config and Port.State that matter here.
const (
	PortConfigDown    uint32 = 1 << 0 // OFPPC_PORT_DOWN
	PortStateLinkDown uint32 = 1 << 0 // OFPPS_LINK_DOWN
)

// BundleReply answers a bundle control message (ONF extension 230).
type BundleReply struct {
	Header
	ID    uint32
	Kind  BundleKind
	Flags BundleFlags
}

// MonitorPaused tells that the switch stopped sending flow updates for want of buffer space (NXT_FLOW_MONITOR_PAUSED).
// Updates may be missing until [MonitorResumed].
type MonitorPaused struct{ Header }

// MonitorResumed ends what [MonitorPaused] began.
type MonitorResumed struct{ Header }

// Part is the header of a multipart reply (§7.3.5). More means that further parts with the same transaction id follow.
type Part struct {
	Header
	Kind MultipartType
	More bool
}

// MultipartHead returns p; every multipart reply has it.
func (p Part) MultipartHead() Part { return p }

// Multipart is implemented by every multipart reply.
type Multipart interface {
	Message
	MultipartHead() Part
}

// DescReply names the switch's maker and build (§7.3.5.1).
type DescReply struct {
	Part
	Manufacturer, Hardware, Software, Serial, Datapath string
}

// FlowStatsReply is a part of the flow tables (§7.3.5.2).
type FlowStatsReply struct {
	Part
	Flows []FlowStats
}

// FlowStats is one flow of the switch. Err is non-nil and matches [ErrUnsupported] if the entry holds a field or an action
// that this package does not know, as flows of other controllers may; everything but Match and Actions is then right,
// and these lack what was not known.
type FlowStats struct {
	flow.Installed
	Err error
}

// AggregateReply sums up flows (§7.3.5.3).
type AggregateReply struct {
	Part
	Packets, Bytes uint64
	Flows          uint32
}

// TableStatsReply holds the counters of flow tables (§7.3.5.4).
type TableStatsReply struct {
	Part
	Tables []TableStats
}

// TableStats are the counters of one table.
type TableStats struct {
	ID               uint8
	Active           uint32 // flows
	Lookups, Matched uint64 // packets looked up, and those that matched a flow
}

// PortStatsReply holds the counters of ports (§7.3.5.6).
type PortStatsReply struct {
	Part
	Ports []PortStats
}

// PortStats are the counters of one port; a counter that the switch does not keep is all ones.
type PortStats struct {
	No                                                   uint32
	RxPackets, TxPackets, RxBytes, TxBytes               uint64
	RxDropped, TxDropped, RxErrors, TxErrors             uint64
	RxFrameErrors, RxOverErrors, RxCRCErrors, Collisions uint64
	DurationSec, DurationNsec                            uint32
}

// PortDescReply describes ports (§7.3.5.7).
type PortDescReply struct {
	Part
	Ports []Port
}

// GroupDescReply describes groups (§7.3.5.10).
type GroupDescReply struct {
	Part
	Groups []GroupDesc
}

// GroupDesc is one group of the switch. Err is as in [FlowStats].
type GroupDesc struct {
	flow.GroupDesc
	Err error
}

// GroupStatsReply holds the counters of groups (§7.3.5.9).
type GroupStatsReply struct {
	Part
	Groups []GroupStats
}

// GroupStats are the counters of one group.
type GroupStats struct {
	ID             uint32
	References     uint32 // flows and groups that name it
	Packets, Bytes uint64
	DurationSec    uint32
	DurationNsec   uint32
	Buckets        []Counter
}

// Counter counts packets and their bytes.
type Counter struct{ Packets, Bytes uint64 }

// MeterStatsReply holds the counters of meters (§7.3.5.12).
type MeterStatsReply struct {
	Part
	Meters []MeterStats
}

// MeterStats are the counters of one meter. Bands count what each band took, in the order of its configuration.
type MeterStats struct {
	ID             uint32
	Flows          uint32
	Packets, Bytes uint64 // of all that passed through
	DurationSec    uint32
	DurationNsec   uint32
	Bands          []Counter
}

// MeterConfigReply describes meters (§7.3.5.13).
type MeterConfigReply struct {
	Part
	Meters []Meter
}

// MeterFeaturesReply says what meters the switch has (§7.3.5.14).
type MeterFeaturesReply struct {
	Part
	MaxMeters    uint32
	BandTypes    uint32 // bit 1<<OFPMBT_*
	Capabilities uint32 // OFPMF_*
	MaxBands     uint8
	MaxColor     uint8
}

// FlowUpdates is a part of what a flow monitor reports (NXST_FLOW_MONITOR, which OpenFlow 1.3 knows as ONF extension 187).
// Updates that a monitor reports later come with transaction id 0.
type FlowUpdates struct {
	Part
	Updates []FlowUpdate
}

// FlowUpdate is one change of a flow table.
type FlowUpdate struct {
	Event  FlowEvent
	Reason FlowRemovedReason // valid iff Event is FlowRemovedEvent
	// AbbrevXID is the transaction id of our own request that made the change; valid iff Event is FlowAbbrev, which has no
	// Flow.
	AbbrevXID uint32
	// Flow is the flow after the change, or as it was when it went. Its Actions are there iff the monitor asked for them.
	Flow flow.Flow
	Err  error // as in [FlowStats]
}

// Unknown is a well-formed message of a kind that this package does not decode. Body aliases the decoded buffer.
type Unknown struct {
	Header
	// Vendor and Subtype are valid iff Type is TypeExperimenter or, for a multipart reply, Kind is MultipartExperimenter.
	Vendor, Subtype uint32
	Kind            MultipartType // valid iff Type is TypeMultipartReply
	Body            []byte        // after the header, or after the vendor header where there is one
}
