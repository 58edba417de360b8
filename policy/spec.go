// Package policy holds tapwall's resources as values: mirrors, policies, groups, endpoints; their validation; and the
// reference evaluator that says what a policy set means for one packet. It knows nothing of OpenFlow, OVSDB or HTTP.
package policy

import "time"

// Kind names a resource type as documents spell it.
type Kind string

// The kinds of API version v1.
const (
	KindMirror   Kind = "Mirror"
	KindPolicy   Kind = "Policy"
	KindGroup    Kind = "Group"
	KindEndpoint Kind = "Endpoint"
)

// Meta is what every resource carries beside its spec. UID, Revision and CreatedAt are the server's.
type Meta struct {
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels,omitempty"`
	UID       string            `json:"uid,omitempty"`
	Revision  int64             `json:"revision,omitempty"`
	CreatedAt time.Time         `json:"createdAt,omitzero"`
	// Writer is who wrote this revision. It is kept for the record and is in no document.
	Writer Writer `json:"-"`
}

// Writer says who wrote something and from where, for people; the zero value: nobody knows.
type Writer struct {
	By   string `json:"by,omitempty"`   // "root (uid 0)", "the holder of the token"
	From string `json:"from,omitempty"` // "unix socket, process 4711", "10.0.0.7:50414"
}

// String is "BY, from FROM", or "" if nothing is known.
func (w Writer) String() string {
	switch {
	case w.By == "":
		return ""
	case w.From == "":
		return w.By
	}
	return w.By + ", from " + w.From
}

// Mirror is a virtual tap.
type Mirror struct {
	Meta
	Spec MirrorSpec `json:"spec"`
	// Idle says why it does not copy now; nil = Spec alone says whether it does. It is in no document.
	Idle *Idle `json:"-"`
}

// Policy is a set of firewall rules for the endpoints it applies to.
type Policy struct {
	Meta
	Spec PolicySpec `json:"spec"`
}

// Group is a named set of peers.
type Group struct {
	Meta
	Spec GroupSpec `json:"spec"`
}

// Endpoint adds labels and addresses to a port that OVSDB alone cannot tell.
type Endpoint struct {
	Meta
	Spec EndpointSpec `json:"spec"`
}

// Selector chooses endpoints (or, as a peer, address ranges). Exactly one field is set, save that Except goes with CIDR and that Host
// narrows the fields that say what an endpoint is, up to Bridge, to those of one host.
type Selector struct {
	Host        string            `json:"host,omitempty"` // its external_ids:system-id
	Port        string            `json:"port,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	VM          string            `json:"vm,omitempty"`
	NeutronPort string            `json:"neutronPort,omitempty"`
	MAC         string            `json:"mac,omitempty"`
	VLAN        *int              `json:"vlan,omitempty"`
	Bridge      string            `json:"bridge,omitempty"`
	Group       string            `json:"group,omitempty"`
	Entity      string            `json:"entity,omitempty"` // any | world | host | same-network
	CIDR        string            `json:"cidr,omitempty"`
	Except      []string          `json:"except,omitempty"`
	FQDN        string            `json:"fqdn,omitempty"` // refused until names land
}

// GroupSpec lists members; a group may not contain entities or names.
type GroupSpec struct {
	Members []Selector `json:"members,omitzero"`
	// From adds a list of addresses that is kept elsewhere.
	From *GroupSource `json:"from,omitempty"`
	// OnMemberRemoved says what becomes of connections that rules allowed because of a member that leaves: revoke (default) cuts those that
	// nothing else allows, keep lets them go on until they end. What a rule denies from then on is cut either way.
	OnMemberRemoved string `json:"onMemberRemoved,omitempty"`
	// Change says how Members came to be from those of an earlier version; nil = not known. It is in no document.
	Change *MemberChange `json:"-"`
}

// The values of GroupSpec.OnMemberRemoved.
const (
	OnMemberRemovedRevoke = "revoke"
	OnMemberRemovedKeep   = "keep"
)

// Keeps reports whether connections outlive the membership that they were allowed by.
func (g *GroupSpec) Keeps() bool { return g.OnMemberRemoved == OnMemberRemovedKeep }

// EndpointSpec finds one port (by Match) and adds to what OVSDB says of it.
type EndpointSpec struct {
	Match  Selector          `json:"match"` // port | neutronPort | vm | mac
	Labels map[string]string `json:"labels,omitempty"`
	MAC    string            `json:"mac,omitempty"` // where external_ids:attached-mac is absent
	// MACs are further addresses behind the port: of a virtual router, macvlans, nested machines.
	MACs []string `json:"macs,omitempty"`
	// UnknownMAC says what becomes of frames from other addresses: judge (as the endpoint's, default) or drop (default where MACs are given).
	UnknownMAC string   `json:"unknownMac,omitempty"`
	Addresses  []string `json:"addresses,omitempty"`
	// AntiSpoof holds what the endpoint sends to its addresses: auto (default: where Addresses are given), on or off.
	AntiSpoof string `json:"antiSpoof,omitempty"`
	// AllowedAddresses are further addresses, or ranges, that it may send from: of a virtual router, of machines behind it.
	AllowedAddresses []string `json:"allowedAddresses,omitempty"`
	// Forwards: it is a router or bridge with one port: it sends on what others sent to it.
	Forwards bool `json:"forwards,omitempty"`
	// DHCPServer lets the endpoint answer DHCP clients, whatever policies say.
	DHCPServer bool `json:"dhcpServer,omitempty"`
	// Mode: enforce (default) or audit: what would be denied on its side passes, and is recorded.
	Mode string `json:"mode,omitempty"`
}

// The values of EndpointSpec.UnknownMAC.
const (
	UnknownMACJudge = "judge"
	UnknownMACDrop  = "drop"
)

// The values of EndpointSpec.AntiSpoof.
const (
	AntiSpoofAuto = "auto"
	AntiSpoofOn   = "on"
	AntiSpoofOff  = "off"
)

// Tier orders policies: a higher tier decides first.
type Tier string

// The tiers, highest first.
const (
	TierEmergency   Tier = "emergency"
	TierSecurity    Tier = "security"
	TierApplication Tier = "application"
	TierBaseline    Tier = "baseline"
)

// PolicySpec is the firewall part of design §3.
type PolicySpec struct {
	Tier        Tier         `json:"tier,omitempty"`     // default application
	Priority    *int         `json:"priority,omitempty"` // 0..65535, default 100; smaller first
	Mode        string       `json:"mode,omitempty"`     // enforce (default) or audit: what it would deny passes, and is recorded
	AppliesTo   []Selector   `json:"appliesTo"`
	Ingress     []Rule       `json:"ingress,omitempty"`
	Egress      []Rule       `json:"egress,omitempty"`
	DefaultDeny *DefaultDeny `json:"defaultDeny,omitempty"`
	Record      *Record      `json:"record,omitempty"`    // of what it decides; nil = as the bridge has it
	NotBefore   *time.Time   `json:"notBefore,omitempty"` // from when on it is in force; nil = it is at once
	ExpiresAt   *time.Time   `json:"expiresAt,omitempty"` // until when, exclusively; nil = until it is deleted
}

// DefaultDeny says for each direction whether being selected denies what no rule allows. A nil direction means "if the policy has
// a rule of that direction".
type DefaultDeny struct {
	Ingress *bool `json:"ingress,omitempty"`
	Egress  *bool `json:"egress,omitempty"`
	Log     bool  `json:"log,omitempty"` // record what the default denies
}

// Rule is one rule of a policy. From is for ingress, To for egress; absent means every peer. Absent Services means every
// protocol and port.
type Rule struct {
	Name     string     `json:"name"`
	Action   Effect     `json:"action"`
	From     []Selector `json:"from,omitempty"`
	To       []Selector `json:"to,omitempty"`
	Services []Service  `json:"services,omitempty"`
	Log      RuleLog    `json:"log,omitzero"`
	// Stateless: each packet is judged by itself, answers by rules of their own. It comes later.
	Stateless bool `json:"stateless,omitempty"`
}

// Service is a protocol, with tcp, udp and sctp narrowed by ports and with icmp and icmpv6 by type and code. Ports are "80", "8000-8099" or
// a name of [PortNames]; absent means all of the protocol.
type Service struct {
	Protocol    Protocol `json:"protocol"`
	Ports       []string `json:"ports,omitempty"`       // destination
	SourcePorts []string `json:"sourcePorts,omitempty"` // of who opens the connection
	Type        *int     `json:"type,omitempty"`        // of the message that opens it
	Code        *int     `json:"code,omitempty"`        // goes with Type
}

// Protocol is an IP protocol: one of [ProtocolNames], or its number. Documents may write that as a number or as a text.
type Protocol string

// MirrorSpec is a tap of design §3. What this version cannot do yet is refused by Validate.
type MirrorSpec struct {
	Enabled   *bool         `json:"enabled,omitempty"` // default true
	Sources   []Selector    `json:"sources"`
	Exclude   []Selector    `json:"exclude,omitempty"`
	Direction string        `json:"direction,omitempty"` // both (default) | fromSource | toSource
	Filter    *MirrorFilter `json:"filter,omitempty"`
	Snaplen   int           `json:"snaplen,omitempty" minimum:"14"` // at most so many bytes of a packet, 14..65535; absent = all
	Sample    *MirrorSample `json:"sample,omitempty"`
	// VLANTag says what becomes of the VLAN tag of copies: strip (default), keep, or the VLAN that they get instead. A port that was there
	// before, without a filter, gets them as its own VLAN says.
	VLANTag VLANTag        `json:"vlanTag,omitempty"`
	Targets []MirrorTarget `json:"targets"` // each gets a copy, or one of them with Balance
	// Balance has each session go to one of the targets.
	Balance *MirrorBalance `json:"balance,omitempty"`
	// MTUPolicy says what becomes of frames that are larger than a tunnel carries: truncate (default) cuts copies to fit, fail refuses the
	// mirror if sources may have such frames.
	MTUPolicy string `json:"mtuPolicy,omitempty"`
	// Force delivers to ports that belong to machines, too, which then see what the mirror copies.
	Force bool `json:"force,omitempty"`

	// StartAt is when it begins to copy; absent = at once.
	StartAt *time.Time `json:"startAt,omitempty"`
	// StopAfter is when it ends by itself, and is kept. Any change of the specification lets it begin anew.
	StopAfter *StopAfter `json:"stopAfter,omitempty"`
	TTL       string     `json:"ttl,omitempty"` // a duration since it was written so; then the mirror is deleted

	// CapturePoint says what of the packets that sources send is copied: wire (default) = all, delivered = what leaves the bridge.
	CapturePoint string `json:"capturePoint,omitempty"`
}

// VLANTag is keep, strip or the number of a VLAN, which documents may write as a number or as a text.
type VLANTag string

// The values of MirrorSpec.VLANTag that are no numbers.
const (
	VLANTagKeep  VLANTag = "keep"
	VLANTagStrip VLANTag = "strip"
)

// The values of MirrorSpec.CapturePoint and MirrorSpec.MTUPolicy.
const (
	CaptureWire      = "wire"
	CaptureDelivered = "delivered"
	MTUTruncate      = "truncate"
	MTUFail          = "fail"
)

// MirrorBalance has each session (see [Session]) go to one of the targets, whichever is well. A port is well while it has a link.
type MirrorBalance struct {
	Hash string `json:"hash"` // symmetric: both directions go to the same target
	// Probe asks the collectors of tunnels whether they are there, from the host, by another way than the mirror's: none (default) |
	// icmp | "tcp:22".
	Probe string `json:"probe,omitempty"`
}

// MirrorFilter says which packets of the sources are copied. Rules are a set: the smaller priority decides first, and at equal priority
// reject goes before accept, wherever they stand.
type MirrorFilter struct {
	Default string       `json:"default,omitempty"` // for packets that no rule matches: accept or reject (default)
	Rules   []FilterRule `json:"rules,omitempty"`
}

// The values of FilterRule.Action and MirrorFilter.Default.
const (
	FilterAccept = "accept"
	FilterReject = "reject"
)

// FilterRule matches packets by all that it names. Addresses are those of IP, of the outermost header.
type FilterRule struct {
	Priority  int      `json:"priority,omitempty"` // 0..32000, default 0
	Action    string   `json:"action"`
	Direction string   `json:"direction,omitempty"` // both (default) | fromSource | toSource
	EtherType string   `json:"etherType,omitempty"` // ipv4 | ipv6 | arp | "0x88cc"; behind VLAN tags
	Protocol  Protocol `json:"protocol,omitempty"`
	Src       []string `json:"src,omitempty"` // address ranges
	Dst       []string `json:"dst,omitempty"`
	SrcPorts  []string `json:"srcPorts,omitempty"`
	DstPorts  []string `json:"dstPorts,omitempty"`
	Type      *int     `json:"type,omitempty"`     // of ICMP and ICMPv6
	Code      *int     `json:"code,omitempty"`     // goes with Type
	TCPFlags  string   `json:"tcpFlags,omitempty"` // set and clear: "+syn-ack"
	VLAN      *int     `json:"vlan,omitempty"`     // 0 = none
	// Symmetric makes the rule match answers too: with src and dst, srcPorts and dstPorts and the directions exchanged.
	Symmetric bool `json:"symmetric,omitempty"`
}

// MirrorSample bounds what is copied of what the filter accepts.
type MirrorSample struct {
	Sessions            string `json:"sessions,omitempty"`                        // "1/4": one session of four, whole; what is no IP always
	MaxPacketsPerSecond int    `json:"maxPacketsPerSecond,omitempty" minimum:"1"` // to each host's targets together
}

// MirrorTarget is where copies go; exactly one field is set.
type MirrorTarget struct {
	Port   *PortTarget   `json:"port,omitempty"`
	VXLAN  *VXLANTarget  `json:"vxlan,omitempty"`
	VM     string        `json:"vm,omitempty"`     // the port of this machine, wherever it is on the host; goes with Force
	Pcap   *PcapTarget   `json:"pcap,omitempty"`   // read by tapwall itself
	Buffer *BufferTarget `json:"buffer,omitempty"` // likewise
	Geneve *GeneveTarget `json:"geneve,omitempty"`
	GRE    *GRETarget    `json:"gre,omitempty"`
	ERSPAN *ERSPANTarget `json:"erspan,omitempty"`
	Events *EventsTarget `json:"events,omitempty"` // likewise
	RSPAN  *RSPANTarget  `json:"rspan,omitempty"`
}

// PortTarget delivers to a local port: one that is there, or one that is made for that, with Create.
type PortTarget struct {
	Name   string `json:"name"` // at most 15 bytes
	Create bool   `json:"create,omitempty"`
}

// VXLANTarget delivers through a tunnel of VXLAN (RFC 7348).
type VXLANTarget struct {
	Remote  string `json:"remote"`
	VNI     *int   `json:"vni,omitempty"`                                 // 0..16777215; absent = derived from the name, shown in status
	DstPort int    `json:"dstPort,omitempty" minimum:"1" maximum:"65535"` // default 4789
	Local   string `json:"local,omitempty"`
}

// GeneveTarget delivers through a tunnel of Geneve (RFC 8926), without options.
type GeneveTarget struct {
	Remote  string `json:"remote"`
	VNI     *int   `json:"vni,omitempty"`                                 // 0..16777215; absent = derived from the name, shown in status
	DstPort int    `json:"dstPort,omitempty" minimum:"1" maximum:"65535"` // default 6081
	Local   string `json:"local,omitempty"`
}

// GRETarget delivers through a tunnel of GRE (RFC 2784) with a key (RFC 2890).
type GRETarget struct {
	Remote string `json:"remote"`
	Key    *int64 `json:"key,omitempty"` // 0..4294967295; absent = derived from the name, shown in status
	Local  string `json:"local,omitempty"`
}

// ERSPANTarget delivers through a tunnel of ERSPAN (draft-foschiano-erspan-03), whose types II and III are versions 1 and 2.
type ERSPANTarget struct {
	Remote     string `json:"remote"`
	Version    int    `json:"version,omitempty" minimum:"1"` // 1 or 2 (default)
	Session    int    `json:"session,omitempty"`             // 1..1023; absent or 0 = derived from the name, shown in status
	Index      int    `json:"index,omitempty"`               // 0..1048575, of version 1
	HardwareID int    `json:"hardwareId,omitempty"`          // 0..63, of version 2
	Local      string `json:"local,omitempty"`
}

// RSPANTarget has copies flood a VLAN: they leave by every port of the bridge that has it, and on every switch behind that.
type RSPANTarget struct {
	VLAN                int  `json:"vlan"` // 1..4094
	AcknowledgeFlooding bool `json:"acknowledgeFlooding,omitempty"`
}

// PcapTarget keeps packets in pcapng files below the data directory.
type PcapTarget struct {
	File   string `json:"file"`                       // a name without a path, which no other mirror has; each file's name begins with it
	Rotate string `json:"rotate,omitempty"`           // size at which another file is begun, default "100MB"
	Keep   int    `json:"keep,omitempty" minimum:"1"` // files, default 10; the oldest one goes
}

// BufferTarget keeps the last packets in memory, as long as no bound is reached.
type BufferTarget struct {
	Duration string `json:"duration,omitempty"` // no packet is older; default: there is no such bound
	Size     string `json:"size,omitempty"`     // of memory, default "64MB"
}

// EventsTarget has tapwall make an event of each packet, or of one of so many: who sent it to whom, and of what it
// carries no more than what DNS, TLS and HTTP/1 say in clear.
type EventsTarget struct {
	Sample string `json:"sample,omitempty"` // "1/100": one packet of a hundred, and each first one of a connection, SYN, FIN and RST
}

// StopAfter says what ends a mirror: whatever comes first.
type StopAfter struct {
	Duration string `json:"duration,omitempty"` // since the first host copied
	// Packets and Bytes are of what the filter accepts, on all hosts together.
	Packets int64 `json:"packets,omitempty" minimum:"1"`
	Bytes   int64 `json:"bytes,omitempty" minimum:"1"`
}
