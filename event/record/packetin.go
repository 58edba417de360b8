package record

import (
	"net/netip"
	"time"

	"github.com/tapwall/tapwall/event"
)

// MaxPacketBytes is how much of a packet is kept for decoding; the rest is cut in HandlePacketIn.
const MaxPacketBytes = 1600

// PacketIn is one packet a switch sent to the controller, as values. The engine that owns the OpenFlow connection converts
// its wire message to it, so that this package knows neither OpenFlow encoding nor the register layout.
type PacketIn struct {
	Host       string // observer.name; "" = Options.Host
	Bridge     string
	DatapathID uint64
	Data       []byte // the frame from its Ethernet header; only the first MaxPacketBytes are kept, copied before HandlePacketIn returns
	TotalLen   int    // length of the frame on the wire; 0 = len(Data)
	Table      uint8
	Cookie     uint64
	Reason     uint8 // OpenFlow ofp_packet_in_reason
	UserData   []byte
	Registers  [8]uint32 // reg8..reg15; not interpreted here
	Metadata   uint64    // likewise
	InPort     uint32    // OpenFlow port number; 0 = not known
	InPortName string    // "" = not known

	// CtState holds ct_state bits as in ovs-fields(7); 0 = not tracked.
	CtState uint32
	CtZone  uint16
	CtMark  uint32
	// The conntrack original tuple: CtSrc is the initiator. Valid iff CtSrc.IsValid() and not unspecified. For ICMP, CtTpSrc and
	// CtTpDst are type and code.
	CtNwProto        uint8
	CtSrc, CtDst     netip.Addr
	CtTpSrc, CtTpDst uint16

	// Watched says that somebody looks for the end of its connection (ConnectionsSeen); else none is told of.
	Watched bool
	// Time of the packet; zero = time of the call.
	Time time.Time

	// Verdicts are what is told of the packet, each an event: what dropped it; or each side that would have, but for mode audit; or what
	// allowed it. Empty means that the packet-in is no verdict of ours: it is counted as unknown and makes no event. Nothing behind a drop
	// makes one.
	Verdicts []VerdictSide
	// Passed says that the packet passed, and is told of for what an application says in it; it has no Verdicts.
	Passed bool
	// Weight is how many packets, or connections of which it is the first, the packet stands for; 0 = 1.
	Weight int64
	// EgressRule and IngressRule are the ids that decided about the sender's and the receiver's side; 0 = nobody was asked.
	EgressRule, IngressRule uint32
	// Copy says that it is no packet-in but a packet that a mirror copied, and has no Verdicts: see HandleCopy.
	Copy *MirrorCopy
	// Directory names the rules and endpoints; nil = none is known. It is read when the event is made.
	Directory *Directory
	// SrcEndpoint and DstEndpoint are the endpoint ids of the initiator's and the responder's side; 0 = unmanaged.
	SrcEndpoint, DstEndpoint uint32
}

// VerdictSide is what one direction decided.
type VerdictSide struct {
	Direction event.Direction
	RuleID    uint32
	Drop      bool
	Reject    bool // the drop was answered with RST or ICMP; implies Drop
	// Sampled: the packet passed, and is told of because the rule samples its connection. It is the only one of its packet, whose headers
	// alone are read.
	Sampled bool
	// Audit: the rule would have dropped, and its policy or the endpoint is in mode audit; Drop is not set.
	Audit bool
	// Quarantine is the name of the quarantine that dropped the packet; "" = a policy decided. It implies Drop.
	Quarantine string
	// Guard is the reason for which the sender's guard refused the packet; "" = a policy decided.
	Guard string
	// Claim is what the frame says of addresses; nil = nothing. Valid iff Guard is not "".
	Claim *event.Claim
	// OutOfState is the reason for which TCP that has no place in a connection was dropped; "" = a policy decided. It implies Drop.
	OutOfState string
}
