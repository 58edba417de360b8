package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// Field is a named part of a register, of ct_mark or of ct_label.
type Field struct {
	Name string
	flow.SubField
	Doc string
}

// The register fields. reg0–reg7 are left to others (Neutron's agent uses reg3–reg7 on a bridge that tapwall is a guest on).
var (
	SourceEndpoint      = Field{"source endpoint", sub(flow.Reg8, 0, 32), "endpoint id of the sender; 0 = not an endpoint"}
	DestinationEndpoint = Field{"destination endpoint", sub(flow.Reg9, 0, 32), "endpoint id of the receiver; 0 = not an endpoint"}
	ZoneVLAN            = Field{"zone: VLAN", sub(flow.Reg10, 0, 12), "VLAN of the packet, 0 = untagged"}
	ZoneBridge          = Field{"zone: bridge", sub(flow.Reg10, 12, 4), "0xE minus the index of the bridge"}
	CtZone              = Field{"zone", sub(flow.Reg10, 0, 16), "conntrack zone"}
	ReplyZone           = Field{"reply zone", sub(flow.Reg10, 16, 16),
		"PRE to LEG_REPLY: zone of the connection that the packet may be a reply of; where policy is asked: service number, 0 = none"}
	Service = Field{"service", ReplyZone.SubField,
		"number of the protocol and destination port of the original tuple; 0 = in no numbered service"}
	EgressRule  = Field{"egress rule", sub(flow.Reg11, 0, 32), "id of the rule or default that decided for the initiator"}
	IngressRule = Field{"ingress rule", sub(flow.Reg12, 0, 32),
		"id of the rule or default that decided for the responder; in SPOOF, what the guard asks (0-2), whether it only tells (3) and why it " +
			"refuses " +
			"(8-15)"}
	GuardState  = Field{"guard", sub(flow.Reg12, 0, 3), "SPOOF: the next question of the guard; 0 = there is none"}
	GuardTells  = Field{"guard tells", sub(flow.Reg12, 3, 1), "SPOOF: what the guard refuses is told of, and passes"}
	GuardReason = Field{"guard reason", sub(flow.Reg12, 8, 8), "SPOOF: why the guard refuses the packet, as in cookies"}
	Passed      = Field{"tiers passed", sub(flow.Reg13, 0, 4),
		"EGRESS, INGRESS: a bit for each tier, emergency first: a pass has led behind it"}
	EgressVerdict  = Field{"egress verdict", sub(flow.Reg13, 4, 2), "0 none, 1 allow, 2 drop, 3 reject"}
	IngressVerdict = Field{"ingress verdict", sub(flow.Reg13, 6, 2), "0 none, 1 allow, 2 drop, 3 reject"}
	NoRecord       = Field{"quiet", sub(flow.Reg13, 8, 1), "a rule that allows wants no record; one that wants one goes before it"}
	EgressLog      = Field{"egress log", sub(flow.Reg13, 9, 1), "the egress rule wants a record"}
	Audit          = Field{"audit", sub(flow.Reg13, 10, 1),
		"EGRESS, INGRESS: the verdict is looked at for endpoints in mode audit; COMMIT: something would have denied the connection"}
	IngressLog = Field{"ingress log", sub(flow.Reg13, 11, 1), "the ingress rule wants a record"}
	Recorded   = Field{"recorded", sub(flow.Reg13, 12, 1), "the connection was copied to the controller; COMMIT remembers it"}
	PickedUp   = Field{"picked up", sub(flow.Reg13, 13, 1), "committed in the middle of the connection"}
	Forward    = Field{"forward verdict", sub(flow.Reg13, 14, 2),
		"PICKUP: as initiator denied (0), allowed by default (1); 3 = known to be a reply; 2: see SAME_PORT"}
	Turn       = Field{"turn", sub(flow.Reg13, 16, 1), "the connection is committed in the packet's direction, whatever it was before"}
	Stray      = Field{"stray", sub(flow.Reg13, 17, 1), "conntrack takes the packet for a reply, and its receiver did not open the connection"}
	Arriving   = Field{"arriving", sub(flow.Reg13, 18, 1), "sender or receiver has arrived in the middle of its connections: a pickup window"}
	Told       = Field{"told", sub(flow.Reg13, 31, 1), "COMMIT, EXIT: what the packet says was told to the controller, or is not to be"}
	PassedFrom = Field{"passed from", sub(flow.Reg13, 19, 1), "the sender is quarantined, and its pass list lets the packet through"}
	PassedTo   = Field{"passed to", sub(flow.Reg13, 20, 1), "the receiver is quarantined, and its pass list lets the packet through"}
	Sampled    = Field{"sampled", sub(flow.Reg13, 21, 1), "a rule that samples has drawn the connection; COMMIT remembers it"}
	Messages   = Field{"messages", sub(flow.Reg13, 22, 1), "a rule wants to know what is said first; COMMIT remembers it"}
	ProbeTag   = Field{"probe tag", sub(flow.Reg13, 23, 3), "4–7: a probe of the controller; 0 on whatever comes in by a port"}
	Audited    = Field{"audit tiers passed", sub(flow.Reg13, 26, 5),
		"EGRESS, INGRESS: as reg13[0..3], for rules in mode audit alone; the last bit is for what their policies isolate"}

	SourceClass      = Field{"source class", sub(flow.Reg14, 0, 16), "class of the source endpoint; 0 = not an endpoint; 1 = the host"}
	DestinationClass = Field{"destination class", sub(flow.Reg14, 16, 16), "class of the destination endpoint; likewise"}
	SourceAddress    = Field{"source address", sub(flow.Reg15, 0, 16),
		"address number of the original tuple's source; 0 = in no numbered set"}
	DestinationAddress = Field{"destination address", sub(flow.Reg15, 16, 16), "address number of its destination; 0 = in no numbered set"}

	// The metadata field is written and matched only while something is in mode audit.
	EgressAudit = Field{"egress audit", sub(flow.Metadata, 0, 32),
		"with bit 30: id of what would have denied the initiator, but for mode audit; 0 = nothing"}
	IngressAudit = Field{"ingress audit", sub(flow.Metadata, 32, 32), "likewise for the responder"}
)

// AuditNoted is set beside the id in EgressAudit and IngressAudit: no id of what denies has this bit.
const AuditNoted uint32 = 0x40000000

// The fields of ct_mark; all writes are masked.
var (
	MarkOurs     = Field{"ours", sub(flow.CtMark, 0, 1), "committed by tapwall"}
	MarkLogged   = Field{"logged", sub(flow.CtMark, 1, 1), "a record of the connection was sent"}
	MarkPickedUp = Field{"picked up", sub(flow.CtMark, 2, 1), "committed in the middle of the connection"}
	MarkAudit    = Field{"audit", sub(flow.CtMark, 3, 1), "passed by mode audit: something would have denied it"}
	MarkSampled  = Field{"sampled", sub(flow.CtMark, 8, 1), "of a sample: all its packets are copied"}
	MarkRequest  = Field{"request", sub(flow.CtMark, 9, firstPackets), "the initiator has not said anything yet; 0 = nobody asks"}
	MarkAnswer   = Field{"answer", sub(flow.CtMark, 12, firstPackets), "likewise the responder"}
	MarkTaps     = Field{"tap set", sub(flow.CtMark, 16, 8), "reserved for mirrors by connection"}
)

// The fields of ct_label.
var (
	LabelIngress   = Field{"ingress rule", sub(flow.CtLabel, 0, 32), "id that allowed the connection on the responder's side"}
	LabelEgress    = Field{"egress rule", sub(flow.CtLabel, 32, 32), "id that allowed the connection on the initiator's side"}
	LabelInitiator = Field{"initiator", sub(flow.CtLabel, 64, 32), "endpoint id of the initiator; IDNoEndpoint = not an endpoint; 0 = unknown"}
	LabelResponder = Field{"responder", sub(flow.CtLabel, 96, 32), "endpoint id of the responder; IDNoEndpoint = not an endpoint; 0 = unknown"}
)

// Fields returns every declared field, grouped by the field it is a part of. The two halves of the zone are listed instead of the
// whole, and Service goes by the name of ReplyZone.
func Fields() []Field {
	return []Field{
		SourceEndpoint, DestinationEndpoint, ZoneVLAN, ZoneBridge, ReplyZone, EgressRule, IngressRule,
		Passed, EgressVerdict, IngressVerdict, NoRecord, EgressLog, Audit, IngressLog, Recorded, PickedUp, Forward, Turn, Stray, Arriving,
		PassedFrom, PassedTo, Sampled, Messages, ProbeTag, Audited, Told,
		SourceClass, DestinationClass, SourceAddress, DestinationAddress,
		EgressAudit, IngressAudit,
		MarkOurs, MarkLogged, MarkPickedUp, MarkAudit, MarkSampled, MarkRequest, MarkAnswer, MarkTaps,
		LabelIngress, LabelEgress, LabelInitiator, LabelResponder,
	}
}

func sub(f flow.FieldID, ofs, bits uint16) flow.SubField {
	return flow.SubField{Field: f, Ofs: ofs, Bits: bits}
}

// Load returns the action that writes v into the field.
func (f Field) Load(v uint64) flow.Action { return flow.Load{Dst: f.SubField, Value: v} }

// Is returns m narrowed to packets in which the field equals v, keeping what m says of the other bits.
func (f Field) Is(m flow.Match, v uint64) flow.Match {
	return f.IsMasked(m, v, flow.Ones(int(f.Bits)).Lo)
}

// IsMasked is Is for the bits of mask only; bit 0 of mask is the lowest bit of the field.
func (f Field) IsMasked(m flow.Match, v, mask uint64) flow.Match {
	value, bits := flow.U64(v&mask).Shl(int(f.Ofs)), flow.U64(mask).Shl(int(f.Ofs))
	if t, ok := m.Get(f.Field); ok {
		value, bits = t.Value.And(bits.Not()).Or(value), t.Mask.Or(bits)
	}
	return m.WithMasked(f.Field, value, bits)
}

// Verdict is what EGRESS or INGRESS decided, as EgressVerdict and IngressVerdict hold it.
type Verdict uint8

// The verdicts. None means that no flow of the table matched; it is treated as a drop.
const (
	VerdictNone   Verdict = 0
	VerdictAllow  Verdict = 1
	VerdictDrop   Verdict = 2
	VerdictReject Verdict = 3 // drop, and have the controller answer
)

// String returns the verdict as the documents spell it.
func (v Verdict) String() string {
	switch v {
	case VerdictAllow:
		return "allow"
	case VerdictDrop:
		return "drop"
	case VerdictReject:
		return "reject"
	}
	return "none"
}
