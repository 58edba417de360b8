package flow

import "net/netip"

// Action is one action or instruction, one of the types of this file. Implementations are comparable values or hold
// slices only of such values; use [Flow.Equal] or the text form to compare.
type Action interface {
	// String returns the action as ovs-ofctl dump-flows prints it.
	String() string
	action()
}

type (
	// Output sends the packet to Port. MaxLen bounds a copy to PortController (bytes; 0xffff = all) and is 0 otherwise.
	Output struct {
		Port   uint32
		MaxLen uint16
	}
	// OutputTrunc sends the first MaxLen bytes to Port: output(port=…,max_len=…).
	OutputTrunc struct{ Port, MaxLen uint32 }
	// OutputReg sends the packet to the port number held in Src.
	OutputReg struct {
		Src    SubField
		MaxLen uint16
	}
	// Controller is NXAST_CONTROLLER or, when it needs to be, NXAST_CONTROLLER2. MeterID 0 means none: the meter limits
	// the copy, never the packet. MaxLen WholePacket = all of it. Reason is what the packet-in will say; the usual one is
	// ReasonAction, which is not the zero value.
	Controller struct {
		MaxLen   uint16
		ID       uint16
		Reason   uint8
		UserData string // raw bytes
		Pause    bool
		MeterID  uint32
	}
	// Group hands the packet to group ID.
	Group struct{ ID uint32 }
	// SetField writes Value under Mask (all ones = whole field) into Field: set_field, or reg_load2 on the wire where
	// OpenFlow 1.3 refuses a masked set_field.
	SetField struct {
		Field       FieldID
		Value, Mask U128
	}
	// Load is NXAST_REG_LOAD: load:VALUE->DST.
	Load struct {
		Dst   SubField
		Value uint64
	}
	// Move copies Src to Dst (same width).
	Move struct{ Src, Dst SubField }
	// Push and Pop move a sub-field to and from the stack.
	Push struct{ Src SubField }
	// Pop is the reverse of Push.
	Pop struct{ Dst SubField }
	// PushVLAN, PopVLAN change the 802.1Q header.
	PushVLAN struct{ EthType uint16 }
	// PopVLAN removes the outermost VLAN tag.
	PopVLAN struct{}
	// DecTTL decrements nw_ttl.
	DecTTL struct{}
	// SetQueue selects queue ID for later outputs.
	SetQueue struct{ ID uint32 }
	// PopQueue restores the queue.
	PopQueue struct{}
	// Resubmit searches Table again with in_port Port (PortInPort = unchanged). CT swaps in the conntrack original tuple.
	Resubmit struct {
		Port  uint32
		Table uint8
		CT    bool
	}
	// CT is the ct action. Table is NoTable (not 0, which is a table) when the packet is not recirculated. Zone is used when ZoneSrc is the
	// zero SubField. Exec runs on the connection: SetField, Load and Move on ct_mark and ct_label only.
	CT struct {
		Commit, Force bool
		Table         uint8
		Zone          uint16
		ZoneSrc       SubField
		Alg           uint16 // 21 ftp, 69 tftp
		NAT           *NAT
		Exec          []Action
	}
	// CTClear forgets the connection tracking state of the packet.
	CTClear struct{}
	// Conjunction makes the flow clause Clause (1-based) of N of conjunction ID.
	Conjunction struct {
		ID        uint32
		Clause, N uint8
	}
	// Clone runs Actions on a copy.
	Clone struct{ Actions []Action }
	// Sample sends the packet to IPFIX collectors with the given probability (of 65535).
	Sample struct {
		Probability  uint16
		CollectorSet uint32
		ObsDomainID  uint32
		ObsPointID   uint32
		SamplingPort uint32 // 0xffffffff (PortAny) = none
		Direction    uint8  // 0 default, 1 ingress, 2 egress
	}
	// CheckPktLarger writes into the one-bit Dst whether the packet is longer than Len bytes.
	CheckPktLarger struct {
		Len uint16
		Dst SubField
	}
	// Note carries bytes without effect.
	Note struct{ Data string }
	// Meter (instruction) passes the packet through meter ID; ovs-ofctl prints it first.
	Meter struct{ ID uint32 }
	// ClearActions (instruction) empties the action set.
	ClearActions struct{}
	// WriteActions (instruction) merges Actions into the action set.
	WriteActions struct{ Actions []Action }
	// WriteMetadata (instruction).
	WriteMetadata struct{ Value, Mask uint64 }
	// GotoTable (instruction) continues in Table, which must be higher than the flow's own.
	GotoTable struct{ Table uint8 }
)

// NoTable as CT.Table means that the packet is not recirculated.
const NoTable uint8 = 0xff

// NAT is the nat argument of ct. With neither Src nor Dst set it is a plain "nat".
type NAT struct {
	Src, Dst         bool
	AddrMin, AddrMax netip.Addr // zero = none; AddrMax zero = one address
	PortMin, PortMax uint16     // 0 = none
	Persistent       bool
	Hash, Random     bool
}

func (Output) action()         {}
func (OutputTrunc) action()    {}
func (OutputReg) action()      {}
func (Controller) action()     {}
func (Group) action()          {}
func (SetField) action()       {}
func (Load) action()           {}
func (Move) action()           {}
func (Push) action()           {}
func (Pop) action()            {}
func (PushVLAN) action()       {}
func (PopVLAN) action()        {}
func (DecTTL) action()         {}
func (SetQueue) action()       {}
func (PopQueue) action()       {}
func (Resubmit) action()       {}
func (CT) action()             {}
func (CTClear) action()        {}
func (Conjunction) action()    {}
func (Clone) action()          {}
func (Sample) action()         {}
func (CheckPktLarger) action() {}
func (Note) action()           {}
func (Meter) action()          {}
func (ClearActions) action()   {}
func (WriteActions) action()   {}
func (WriteMetadata) action()  {}
func (GotoTable) action()      {}
