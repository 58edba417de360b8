package ofp

import (
	"strconv"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// Version is the OpenFlow version of a header.
type Version uint8

// The versions that a hello may name. This package encodes and decodes 1.3 only.
const (
	Version10 Version = 1
	Version13 Version = 4
	Version14 Version = 5
	Version15 Version = 6
)

// String returns the name that ovs-ofctl gives the version, such as OpenFlow13.
func (v Version) String() string {
	if v >= 1 && v <= 6 {
		return "OpenFlow1" + strconv.Itoa(int(v)-1)
	}
	return "version " + strconv.Itoa(int(v))
}

// The vendors whose extensions this package knows.
const (
	VendorNicira uint32 = 0x00002320
	VendorONF    uint32 = 0x4f4e4600
)

// Reserved values of requests and replies.
const (
	NoBuffer  uint32 = 0xffffffff // OFP_NO_BUFFER: the whole packet is in the message
	AllTables uint8  = 0xff       // OFPTT_ALL
	AllGroups uint32 = 0xfffffffc // OFPG_ALL
	AllMeters uint32 = flow.MeterAll
)

// name returns the i-th of names, or typ(i) for what has no name.
func name[T ~uint8 | ~uint16 | ~uint32](names []string, typ string, i T) string {
	if uint64(i) < uint64(len(names)) && names[i] != "" {
		return names[i]
	}
	return typ + "(" + strconv.FormatUint(uint64(i), 10) + ")"
}

// Type is the type of a message (OpenFlow 1.3.5 §7.1).
type Type uint8

// The message types of OpenFlow 1.3.
const (
	TypeHello Type = iota
	TypeError
	TypeEchoRequest
	TypeEchoReply
	TypeExperimenter
	TypeFeaturesRequest
	TypeFeaturesReply
	TypeGetConfigRequest
	TypeGetConfigReply
	TypeSetConfig
	TypePacketIn
	TypeFlowRemoved
	TypePortStatus
	TypePacketOut
	TypeFlowMod
	TypeGroupMod
	TypePortMod
	TypeTableMod
	TypeMultipartRequest
	TypeMultipartReply
	TypeBarrierRequest
	TypeBarrierReply
	TypeQueueGetConfigRequest
	TypeQueueGetConfigReply
	TypeRoleRequest
	TypeRoleReply
	TypeGetAsyncRequest
	TypeGetAsyncReply
	TypeSetAsync
	TypeMeterMod
)

// String returns the name of the specification, such as OFPT_FLOW_MOD.
func (t Type) String() string {
	return name([]string{
		"OFPT_HELLO", "OFPT_ERROR", "OFPT_ECHO_REQUEST", "OFPT_ECHO_REPLY", "OFPT_EXPERIMENTER", "OFPT_FEATURES_REQUEST",
		"OFPT_FEATURES_REPLY", "OFPT_GET_CONFIG_REQUEST", "OFPT_GET_CONFIG_REPLY", "OFPT_SET_CONFIG", "OFPT_PACKET_IN",
		"OFPT_FLOW_REMOVED", "OFPT_PORT_STATUS", "OFPT_PACKET_OUT", "OFPT_FLOW_MOD", "OFPT_GROUP_MOD", "OFPT_PORT_MOD",
		"OFPT_TABLE_MOD", "OFPT_MULTIPART_REQUEST", "OFPT_MULTIPART_REPLY", "OFPT_BARRIER_REQUEST", "OFPT_BARRIER_REPLY",
		"OFPT_QUEUE_GET_CONFIG_REQUEST", "OFPT_QUEUE_GET_CONFIG_REPLY", "OFPT_ROLE_REQUEST", "OFPT_ROLE_REPLY",
		"OFPT_GET_ASYNC_REQUEST", "OFPT_GET_ASYNC_REPLY", "OFPT_SET_ASYNC", "OFPT_METER_MOD",
	}, "OFPT", t)
}

// MultipartType is what a multipart request asks for (§7.3.5).
type MultipartType uint16

// The multipart types of OpenFlow 1.3.
const (
	MultipartDesc          MultipartType = 0
	MultipartFlow          MultipartType = 1
	MultipartAggregate     MultipartType = 2
	MultipartTable         MultipartType = 3
	MultipartPortStats     MultipartType = 4
	MultipartQueue         MultipartType = 5
	MultipartGroup         MultipartType = 6
	MultipartGroupDesc     MultipartType = 7
	MultipartGroupFeatures MultipartType = 8
	MultipartMeter         MultipartType = 9
	MultipartMeterConfig   MultipartType = 10
	MultipartMeterFeatures MultipartType = 11
	MultipartTableFeatures MultipartType = 12
	MultipartPortDesc      MultipartType = 13
	MultipartExperimenter  MultipartType = 0xffff
)

// String returns the name of the specification, such as OFPMP_FLOW.
func (t MultipartType) String() string {
	if t == MultipartExperimenter {
		return "OFPMP_EXPERIMENTER"
	}
	return name([]string{
		"OFPMP_DESC", "OFPMP_FLOW", "OFPMP_AGGREGATE", "OFPMP_TABLE", "OFPMP_PORT_STATS", "OFPMP_QUEUE", "OFPMP_GROUP",
		"OFPMP_GROUP_DESC", "OFPMP_GROUP_FEATURES", "OFPMP_METER", "OFPMP_METER_CONFIG", "OFPMP_METER_FEATURES",
		"OFPMP_TABLE_FEATURES", "OFPMP_PORT_DESC",
	}, "OFPMP", t)
}

// FlowModCommand is the command of a flow-mod (§7.3.4.1).
type FlowModCommand uint8

// The flow-mod commands.
const (
	FlowAdd FlowModCommand = iota
	FlowModify
	FlowModifyStrict
	FlowDelete
	FlowDeleteStrict
)

// String returns the name of the specification, such as OFPFC_ADD.
func (c FlowModCommand) String() string {
	return name([]string{"OFPFC_ADD", "OFPFC_MODIFY", "OFPFC_MODIFY_STRICT", "OFPFC_DELETE", "OFPFC_DELETE_STRICT"}, "OFPFC", c)
}

// GroupModCommand is the command of a group-mod (§7.3.4.2).
type GroupModCommand uint16

// The group-mod commands.
const (
	GroupAdd GroupModCommand = iota
	GroupModify
	GroupDelete
)

// String returns the name of the specification, such as OFPGC_ADD.
func (c GroupModCommand) String() string {
	return name([]string{"OFPGC_ADD", "OFPGC_MODIFY", "OFPGC_DELETE"}, "OFPGC", c)
}

// MeterModCommand is the command of a meter-mod (§7.3.4.4).
type MeterModCommand uint16

// The meter-mod commands.
const (
	MeterAdd MeterModCommand = iota
	MeterModify
	MeterDelete
)

// String returns the name of the specification, such as OFPMC_ADD.
func (c MeterModCommand) String() string {
	return name([]string{"OFPMC_ADD", "OFPMC_MODIFY", "OFPMC_DELETE"}, "OFPMC", c)
}

// BundleKind is the step of a bundle that a bundle control message asks for or answers.
type BundleKind uint16

// The bundle control messages of ONF extension 230.
const (
	BundleOpenRequest BundleKind = iota
	BundleOpenReply
	BundleCloseRequest
	BundleCloseReply
	BundleCommitRequest
	BundleCommitReply
	BundleDiscardRequest
	BundleDiscardReply
)

// String returns the name of the specification, such as OFPBCT_COMMIT_REQUEST.
func (k BundleKind) String() string {
	return name([]string{
		"OFPBCT_OPEN_REQUEST", "OFPBCT_OPEN_REPLY", "OFPBCT_CLOSE_REQUEST", "OFPBCT_CLOSE_REPLY",
		"OFPBCT_COMMIT_REQUEST", "OFPBCT_COMMIT_REPLY", "OFPBCT_DISCARD_REQUEST", "OFPBCT_DISCARD_REPLY",
	}, "OFPBCT", k)
}

// BundleFlags are OFPBF_*. Every message of one bundle must carry the same.
type BundleFlags uint16

// The bundle flags.
const (
	BundleAtomic  BundleFlags = 1 << 0
	BundleOrdered BundleFlags = 1 << 1
)

// PacketInReason says why a packet was handed to us (§7.4.1).
type PacketInReason uint8

// The reasons, with those of OpenFlow 1.4 that NXT_PACKET_IN2 may carry.
const (
	ReasonNoMatch PacketInReason = iota
	ReasonAction
	ReasonInvalidTTL
	ReasonActionSet
	ReasonGroup
	ReasonPacketOut
)

// String returns the name that ovs-ofctl prints, such as no_match.
func (r PacketInReason) String() string {
	return name([]string{"no_match", "action", "invalid_ttl", "action_set", "group", "packet_out"}, "reason", r)
}

// FlowRemovedReason says why a flow went (§7.4.2).
type FlowRemovedReason uint8

// The reasons, with those of OpenFlow 1.4.
const (
	RemovedIdle FlowRemovedReason = iota
	RemovedHard
	RemovedDelete
	RemovedGroupDelete
	RemovedMeterDelete
	RemovedEviction
)

// String returns the name that ovs-ofctl prints, such as idle.
func (r FlowRemovedReason) String() string {
	return name([]string{"idle", "hard", "delete", "group_delete", "meter_delete", "eviction"}, "reason", r)
}

// PortReason says what happened to a port (§7.4.3).
type PortReason uint8

// What may happen to a port.
const (
	PortAdded PortReason = iota
	PortDeleted
	PortModified
)

// String returns the name that ovs-ofctl prints, such as ADD.
func (r PortReason) String() string { return name([]string{"ADD", "DEL", "MOD"}, "reason", r) }

// Role is the role of a controller (§7.3.9).
type Role uint32

// The roles.
const (
	RoleNoChange Role = iota
	RoleEqual
	RolePrimary
	RoleSecondary
)

// String returns the name that ovs-ofctl prints, such as equal.
func (r Role) String() string {
	return name([]string{"nochange", "equal", "primary", "secondary"}, "role", r)
}

// FlowEvent is what happened to a monitored flow.
type FlowEvent uint16

// The events of NXST_FLOW_MONITOR.
const (
	FlowAddedEvent FlowEvent = iota
	FlowRemovedEvent
	FlowModifiedEvent
	FlowAbbrev // a change by our own request, told by its transaction id
)

// String returns the name that ovs-ofctl prints, such as ADDED.
func (e FlowEvent) String() string {
	return name([]string{"ADDED", "DELETED", "MODIFIED", "ABBREV"}, "event", e)
}

// MonitorFlags say when a flow monitor reports and what.
type MonitorFlags uint16

// The flags of NXST_FLOW_MONITOR.
const (
	MonitorInitial MonitorFlags = 1 << iota // the flows that are there now
	MonitorAdd
	MonitorDelete
	MonitorModify
	MonitorActions // include actions
	MonitorOwn     // report our own changes in full instead of abbreviated
)

// PacketInFormat selects how the switch sends packet-ins.
type PacketInFormat uint32

// The formats of NXT_SET_PACKET_IN_FORMAT.
const (
	FormatStandard PacketInFormat = 0
	FormatNXM      PacketInFormat = 1 // NXT_PACKET_IN, which this package does not decode
	FormatNXM2     PacketInFormat = 2 // NXT_PACKET_IN2
)

// String returns the name that ovs-ofctl knows, such as nxt_packet_in2.
func (f PacketInFormat) String() string {
	return name([]string{"standard", "nxt_packet_in", "nxt_packet_in2"}, "format", f)
}
