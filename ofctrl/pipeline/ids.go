package pipeline

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// An id of 32 bits says what decided about one side of a connection. It stands in reg11 and reg12, in ct_label, in cookies and in
// packet-ins. The two top bits tell the sort:
//
//	00 n           rule n
//	01 n           default allow of a class of endpoints in one direction; 01 0 = there is no endpoint on that side
//	10 d class     default deny of the class, d = 0 egress, 1 ingress; such a connection is never committed
//
// The numbers come from one counter, endpoints' too, and are not used twice, so that a stale id in a conntrack entry cannot come
// alive again.
const (
	IDKindMask     uint32 = 0xc0000000
	IDDefaultAllow uint32 = 0x40000000
	IDDefaultDeny  uint32 = 0x80000000
	// IDNoEndpoint allows a side that has no endpoint. In the ends of ct_label it says that there was none.
	IDNoEndpoint = IDDefaultAllow
	// IDIngress tells the default deny of ingress from that of egress.
	IDIngress uint32 = 0x20000000
	// MaxNumber bounds the numbers of rules, default allows and endpoints.
	MaxNumber uint32 = 1<<29 - 1
)

// IsRule reports whether id is that of a rule.
func IsRule(id uint32) bool { return id&IDKindMask == 0 && id != 0 }

// EndpointGenerations is how many ids in a row one endpoint may have, the first a multiple of it. An endpoint that may have lost something
// takes the next, and what its old id was written into is judged again. Flows that mean the endpoint under whatever id match the base.
const EndpointGenerations = 16

// ClassHost is the class of the bridge's own port, which is no endpoint: beside the 0 of other stations that are none, so that ClassNobody
// matches both.
const (
	ClassHost   uint16 = 1
	ClassNobody uint16 = 0xfffe // mask
)

// KnownAddress is set in the numbers of addresses that are those of endpoints, where a rule names entity world.
const KnownAddress uint16 = 0x8000

// EndpointBase is the first of the ids of an endpoint.
func EndpointBase(id uint32) uint32 { return id &^ (EndpointGenerations - 1) }

// anyGeneration narrows m to packets in which the field is an endpoint under any of its ids.
func anyGeneration(f Field, m flow.Match, endpoint uint32) flow.Match {
	return f.IsMasked(m, uint64(EndpointBase(endpoint)), uint64(^uint32(EndpointGenerations-1)))
}

// Identity is what SOURCE and DESTINATION write of an endpoint.
type Identity struct {
	Endpoint uint32 // id; 0 = none, and reg8 and reg9 hold that already
	Class    uint16
}

// AsSource returns the actions that make the endpoint the sender.
func (i Identity) AsSource() []flow.Action {
	if i.Endpoint == 0 {
		return []flow.Action{SourceClass.Load(uint64(i.Class))}
	}
	return []flow.Action{SourceEndpoint.Load(uint64(i.Endpoint)), SourceClass.Load(uint64(i.Class))}
}

// AsDestination returns the actions that make the endpoint the receiver.
func (i Identity) AsDestination() []flow.Action {
	if i.Endpoint == 0 {
		return []flow.Action{DestinationClass.Load(uint64(i.Class))}
	}
	return []flow.Action{DestinationEndpoint.Load(uint64(i.Endpoint)), DestinationClass.Load(uint64(i.Class))}
}

// MaxBridges is how many bridges of one host have a range of conntrack zones: zones of the kernel are shared by all bridges.
const MaxBridges = 8

// ErrBridgeIndex is returned for a bridge index outside 0..MaxBridges-1 or a VLAN outside 0..4095.
var ErrBridgeIndex = errors.New("no conntrack zone for this bridge index and VLAN")

// ZoneBase returns the first of the 4096 zones of the bridge with index k, 0 ≤ k < MaxBridges: 0xE000 for the first, 0x7000 for
// the last. That is clear of Neutron (zones up to 4095, 4097 and up for hybrid plugging) and of Antrea (65510–65521).
func ZoneBase(k int) uint16 { return 0xE000 - uint16(k)*0x1000 }

// Zone returns the conntrack zone of a VLAN (0 = untagged) on the bridge with index k.
func Zone(k, vlan int) (uint16, error) {
	if k < 0 || k >= MaxBridges || vlan < 0 || vlan > 4095 {
		return 0, fmt.Errorf("bridge index %d, VLAN %d: %w", k, vlan, ErrBridgeIndex)
	}
	return ZoneBase(k) + uint16(vlan), nil
}

// OpenFlow identities of tapwall on a switch.
const (
	// ControllerID is what tapwall's connection calls itself (NXT_SET_CONTROLLER_ID) and what controller actions address, so
	// that copies reach nobody else.
	ControllerID uint16 = 0x7a11
	// MeterLog limits the copies of what VERDICT lets pass to the controller; it never touches the packet. Those of what it denies have
	// MeterDeny, so that a flood of denied packets displaces no connection from the record.
	MeterLog uint32 = 0x7a11
	// LogBytes is how much of a packet a copy carries.
	LogBytes uint16 = 128
	// MeterUnknownMAC limits the copies of SPOOF, which have MACBytes bytes: enough for the addresses.
	MeterUnknownMAC uint32 = 0x7a12
	// MeterStray limits the copies of BOUND_RESPONDER, whose frames are of no interest: ct_label and the registers are.
	MeterStray uint32 = 0x7a13
	// MeterDNS is reserved for DNS answers that wait for the rules they bring; it is not installed.
	MeterDNS uint32 = 0x7a14
	// MeterOutOfState limits the copies of STATE: of TCP that has no place in a connection.
	MeterOutOfState uint32 = 0x7a15
	// MeterQuarantine limits the copies of what quarantined ports send and would get. It is installed while there are any.
	MeterQuarantine uint32 = 0x7a18
	// MeterReject limits how many rejected packets are answered; the others are dropped without an answer. A copy has RejectBytes: as
	// much as an ICMPv6 error may quote, with the headers of its frame.
	MeterReject uint32 = 0x7a19
	RejectBytes uint16 = 1254
	MACBytes    uint16 = 64
	// MeterGuard limits the copies of what SPOOF refuses, for the record.
	MeterGuard uint32 = 0x7a1a
	// MeterLearn limits the copies of what machines say of their addresses, which have up to LearnBytes: enough for the options of DHCP that
	// count.
	MeterLearn uint32 = 0x7a1b
	LearnBytes uint16 = 600
	// MeterMessage limits the copies of COMMIT and EXIT, of what applications say, which are whole as far as it is read.
	MeterMessage uint32 = 0x7a1c
	MessageBytes uint16 = 1600
	// MeterDeny limits the copies of what VERDICT denies.
	MeterDeny uint32 = 0x7a1d
	// MeterSample limits the copies of COMMIT and EXIT, of the packets of connections that rules sample, which have LogBytes.
	MeterSample uint32 = 0x7a1e
	// MeterData limits the copies of EXIT, of what is said first on connections, which have MessageBytes.
	MeterData uint32 = 0x7a1f
	// MeterLast is the last one that is tapwall's; MeterLog is the first.
	MeterLast uint32 = 0x7a1f
)

// CopyReason says why the controller got a copy of a packet; it is the second byte of the copy's userdata.
type CopyReason uint8

// The reasons.
const (
	CopyEgressDrop  CopyReason = 1
	CopyIngressDrop CopyReason = 2
	CopyAllow       CopyReason = 3
	CopyUnknownMAC  CopyReason = 4
	CopyStray       CopyReason = 5
	CopyReject      CopyReason = 6 // to be answered
	CopyQuarantine  CopyReason = 8
	CopyOutOfState  CopyReason = 9
	CopyGuard       CopyReason = 10
	CopyAddress     CopyReason = 11 // a machine says something of its address
	CopyMessage     CopyReason = 12 // an application says something
	CopyMACDrop     CopyReason = 13 // an endpoint sends under an address that it does not declare, and it is dropped
	CopyProbe       CopyReason = 14
	CopySample      CopyReason = 15 // of a connection that a rule samples
	CopyData        CopyReason = 16 // what may be said first on a connection
)

// CopyReasons returns all of them.
func CopyReasons() []CopyReason {
	return []CopyReason{CopyEgressDrop, CopyIngressDrop, CopyAllow, CopyUnknownMAC, CopyStray, CopyReject, CopyQuarantine,
		CopyOutOfState, CopyGuard, CopyAddress, CopyMessage, CopyMACDrop, CopyProbe, CopySample, CopyData}
}

// String returns the name of the reason.
func (r CopyReason) String() string {
	switch r {
	case CopyEgressDrop:
		return "egress drop"
	case CopyIngressDrop:
		return "ingress drop"
	case CopyAllow:
		return "allow"
	case CopyStray:
		return "stray"
	case CopyUnknownMAC:
		return "unknown MAC"
	case CopyGuard:
		return "guard"
	case CopyAddress:
		return "address"
	case CopyMessage:
		return "message"
	case CopyMACDrop:
		return "unknown MAC, dropped"
	case CopyProbe:
		return "probe"
	case CopySample:
		return "sample"
	case CopyData:
		return "data"
	case CopyQuarantine:
		return "quarantine"
	case CopyReject:
		return "reject"
	case CopyOutOfState:
		return "out of state"
	}
	return fmt.Sprintf("copy reason %d", uint8(r))
}

// userDataMagic starts the userdata of every copy.
const userDataMagic = 0x7a

// UserData returns the userdata of a copy.
func (r CopyReason) UserData() string { return string([]byte{userDataMagic, byte(r)}) }

// ParseUserData reads the userdata of a packet-in; ok is false when it is not tapwall's.
func ParseUserData(b []byte) (r CopyReason, ok bool) {
	if len(b) != 2 || b[0] != userDataMagic || !slices.Contains(CopyReasons(), CopyReason(b[1])) {
		return 0, false
	}
	return CopyReason(b[1]), true
}

// CookieKind says what sort of object a flow was made for.
type CookieKind uint8

// The kinds of cookies, with what the object id of the cookie then is.
const (
	CookieSystem     CookieKind = 1  // table<<8 | item
	CookieDrop       CookieKind = 2  // DropReason
	CookieRule       CookieKind = 3  // rule id
	CookieDefault    CookieKind = 4  // id of the default
	CookiePickup     CookieKind = 5  // unused: earlier versions had copies of policy flows during a pickup window
	CookieSample     CookieKind = 6  // reserved for sampling and mirrors
	CookieDNS        CookieKind = 7  // reserved for names
	CookieQuarantine CookieKind = 8  // hash of the quarantine's name, even; odd for what is sent to its ports
	CookieEndpoint   CookieKind = 9  // base of the endpoint's ids: the classifying flows
	CookieNumber     CookieKind = 10 // address or service number, by table
	CookieClause     CookieKind = 11 // number of a rule's conjunction: its clauses
	CookieGuard      CookieKind = 16 // base of the endpoint's ids: what the guard refuses of it
)

var cookieKinds = [...]string{"none", "system", "drop", "rule", "default", "pickup", "sample", "dns", "quarantine", "endpoint", "number",
	"clause", CookieGuard: "guard"}

// String returns the name of the kind.
func (k CookieKind) String() string {
	if int(k) < len(cookieKinds) && cookieKinds[k] != "" {
		return cookieKinds[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// A cookie is 24 bits of magic, 8 bits of kind and 32 bits of object id. A magic of 24 bits, because other agents use random
// cookies.
const (
	CookieMagic     flow.Cookie = 0x7a9a11 << 40
	CookieMagicMask flow.Cookie = 0xffffff << 40
)

// NewCookie returns the cookie of an object.
func NewCookie(k CookieKind, id uint32) flow.Cookie {
	return CookieMagic | flow.Cookie(k)<<32 | flow.Cookie(id)
}

// ParseCookie takes a cookie apart; ok is false when it is not tapwall's.
func ParseCookie(c flow.Cookie) (k CookieKind, id uint32, ok bool) {
	if c&CookieMagicMask != CookieMagic {
		return 0, 0, false
	}
	return CookieKind(c >> 32), uint32(c), true
}

// Plausible reports whether a flow of table t whose cookie c bears the magic can be tapwall's. A cookie that somebody drew by
// lot seldom has the magic, and hardly ever a kind and an id that fit as well.
func Plausible(t uint8, c flow.Cookie) bool {
	kind, id, ours := ParseCookie(c)
	ours = ours && (t == TableEntry || t >= TableFirst && t <= TableLast)
	if kind == CookieSystem {
		return ours && id>>8 == uint32(t)
	}
	return ours && t != TableEntry && kind > CookieSystem && int(kind) < len(cookieKinds) && cookieKinds[kind] != ""
}

// SystemCookie is the cookie of a fixed flow: item tells flows of one table apart, for their counters.
func SystemCookie(table uint8, item Item) flow.Cookie {
	return NewCookie(CookieSystem, uint32(table)<<8|uint32(item))
}

// Item names a fixed flow whose counter means something by itself. 0 is everything else of a table.
type Item uint8

// The items.
const (
	ItemNone      Item = 0
	ItemARP       Item = 1
	ItemND        Item = 2
	ItemMLD       Item = 3
	ItemDHCP      Item = 4
	ItemUnmanaged Item = 5
	ItemNonIP     Item = 6
	ItemPort      Item = 7 // SOURCE: a port that is not an endpoint
	ItemIGMP      Item = 8

	ItemRemembered Item = 9  // PICKUP: a connection whose initiator is remembered
	ItemUnknownMAC Item = 10 // SPOOF: sent under an address that the endpoint does not declare, told of and judged
)

// String returns the name of the item.
func (i Item) String() string {
	names := [...]string{"", "arp", "nd", "mld", "dhcp", "unmanaged", "non-ip", "port", "igmp", "remembered", "unknown-mac"}
	if int(i) < len(names) {
		return names[i]
	}
	return fmt.Sprintf("item %d", uint8(i))
}

// DropReason says why a fixed flow drops; it is the object id of the flow's cookie.
type DropReason uint32

// The reasons. Flows of one reason (IPv4 and IPv6, logged or not) share the cookie, so that their counters add up.
const (
	DropUnknownPort  DropReason = 1
	DropTaggedAccess DropReason = 2
	DropGroupUnicast DropReason = 3
	DropInvalid      DropReason = 4
	DropOutOfState   DropReason = 5
	DropUntracked    DropReason = 6
	DropEgress       DropReason = 7
	DropIngress      DropReason = 8
	DropUndecided    DropReason = 9
	DropStaleRelated DropReason = 10
	DropStackedTags  DropReason = 11
	DropWrongEnd     DropReason = 12
	DropNotTakenUp   DropReason = 13
	DropUnknownMAC   DropReason = 14

	// Of TCP that has no place in a connection, beside DropOutOfState, which is the middle of one that nobody knows.
	DropStrangeFlags DropReason = 15 // flags that go with none: SYN with FIN or RST, or neither of SYN, ACK and RST
	DropStraySYNACK  DropReason = 16 // SYN and ACK that answer no SYN
	DropUnfitSegment DropReason = 17 // outside of the window of its connection, or with a wrong checksum
	DropStrayReset   DropReason = 18 // RST of no connection
	DropStrayFIN     DropReason = 19 // FIN of no connection

	// Those of the guard.
	DropSpoofedAddress DropReason = 24 // the source of IP
	DropSpoofedARP     DropReason = 25 // sender addresses of ARP
	DropSpoofedND      DropReason = 26 // target or link-layer address of neighbour discovery
	DropRogueDHCP      DropReason = 27 // an answer to a DHCP client
	DropRogueRouter    DropReason = 28 // a router advertisement
)

// DropReasons returns all reasons in order.
func DropReasons() []DropReason {
	return []DropReason{DropUnknownPort, DropTaggedAccess, DropGroupUnicast, DropInvalid, DropOutOfState, DropUntracked,
		DropEgress, DropIngress, DropUndecided, DropStaleRelated, DropStackedTags, DropWrongEnd, DropNotTakenUp,
		DropUnknownMAC, DropStrangeFlags, DropStraySYNACK, DropUnfitSegment, DropStrayReset, DropStrayFIN,
		DropSpoofedAddress, DropSpoofedARP, DropSpoofedND, DropRogueDHCP, DropRogueRouter}
}

// String returns the reason as metrics and documents spell it.
func (r DropReason) String() string {
	names := [...]string{"", "unknown-port", "tagged-on-access-port", "unicast-in-group-frame", "invalid", "out-of-state", "untracked",
		"egress-policy", "ingress-policy", "undecided", "stale-related", "stacked-vlan-tags",
		"wrong-end", "not-taken-up", "unknown-mac", "out-of-state-flags", "out-of-state-syn-ack", "out-of-state-segment",
		"out-of-state-reset", "out-of-state-fin", DropSpoofedAddress: "spoofed-address", DropSpoofedARP: "spoofed-arp",
		DropSpoofedND: "spoofed-nd", DropRogueDHCP: "rogue-dhcp-server", DropRogueRouter: "rogue-router"}
	if int(r) < len(names) && names[r] != "" {
		return names[r]
	}
	return fmt.Sprintf("reason %d", uint32(r))
}

// Cookie is the cookie of flows that drop for this reason.
func (r DropReason) Cookie() flow.Cookie { return NewCookie(CookieDrop, uint32(r)) }
