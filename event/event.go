// Package event says what an event is: its document, how it is selected, printed and written as JSON, and what the record counts.
// These are values; package record makes, keeps and hands on events. Documents use ECS 9.x names with tapwall.* beside them; one
// shape serves the API, the CLI, files and the index.
package event

import "time"

// Event is one document. Empty fields are left out of its JSON. AppendJSON is generated from the tags here and below: after a change,
// go test ./event -run TestGenerated -update.
type Event struct {
	Timestamp   time.Time  `json:"@timestamp"` // when the packet was seen, or what else the event tells of happened
	ECS         ECS        `json:"ecs"`
	Event       Meta       `json:"event"`
	Source      *Side      `json:"source,omitempty"`
	Destination *Side      `json:"destination,omitempty"`
	Network     *Network   `json:"network,omitempty"`
	Host        *Host      `json:"host,omitempty"`
	Observer    *Observer  `json:"observer,omitempty"`
	Rule        *Rule      `json:"rule,omitempty"`
	DNS         *DNS       `json:"dns,omitempty"`
	TLS         *TLS       `json:"tls,omitempty"`
	HTTP        *HTTP      `json:"http,omitempty"`
	URL         *URL       `json:"url,omitempty"`
	UserAgent   *UserAgent `json:"user_agent,omitempty"`
	User        *User      `json:"user,omitempty"`
	Client      *Client    `json:"client,omitempty"`
	Tapwall     Tapwall    `json:"tapwall"`
	Related     *Related   `json:"related,omitempty"`
}

// ECS is the version of the field names.
type ECS struct {
	Version string `json:"version"` // of ECS: 9.x
}

// Meta is ECS event.*.
type Meta struct {
	ID       string    `json:"id"`                 // unique; also the _id of the document
	Sequence int64     `json:"sequence"`           // grows by one per event, within a run and over restarts
	Kind     string    `json:"kind"`               // event | metric
	Category []string  `json:"category,omitempty"` // network, or configuration
	Type     []string  `json:"type,omitempty"`     // connection with allowed, denied or end; creation, change, deletion; access; info
	Action   string    `json:"action"`             // policy-verdict | connection-ended | events-lost | foreign-flows-removed | …
	Dataset  string    `json:"dataset"`            // tapwall.flow, .packet, .loss, .switch or .change: decides about the index
	Module   string    `json:"module"`             // tapwall
	Provider string    `json:"provider"`           // packet-in, conntrack, mirror, counter, switch, api: what it was made of
	Outcome  string    `json:"outcome,omitempty"`  // success, or failure of what was denied
	Reason   string    `json:"reason,omitempty"`   // why it was dropped or lost, or how well its end is known, in a word
	Created  time.Time `json:"created"`            // when the document was made
	Start    time.Time `json:"start,omitzero"`     // of a connection that has ended
	End      time.Time `json:"end,omitzero"`       // likewise; at the latest, where reason is not exact
	Duration *int64    `json:"duration,omitempty"` // between them, in ns
}

// Side is ECS source.* or destination.*: source is the initiator.
type Side struct {
	IP   string `json:"ip,omitempty" es:"ip"` // address
	Port int    `json:"port,omitempty"`       // of TCP, UDP and SCTP
	MAC  string `json:"mac,omitempty"`        // as ECS spells it: 52-54-00-00-00-01
	// Domain is what DNS answers called the address when the other side asked for it.
	Domain  string `json:"domain,omitempty"`
	Packets int64  `json:"packets,omitempty"` // that it sent in a connection that has ended, where the datapath counts that
	Bytes   int64  `json:"bytes,omitempty"`   // likewise
}

// Network is ECS network.*.
type Network struct {
	Type        string `json:"type,omitempty"`         // ipv4 | ipv6
	Transport   string `json:"transport,omitempty"`    // tcp, udp, icmp, ipv6-icmp, …
	IANANumber  string `json:"iana_number,omitempty"`  // of the protocol of IP
	Direction   string `json:"direction,omitempty"`    // ingress or egress: which side decided
	CommunityID string `json:"community_id,omitempty"` // the same for both directions of a connection, and in Zeek and Suricata: version 1
	Bytes       int64  `json:"bytes,omitempty"`        // of this packet; of a connection that has ended, of all that were counted
	Packets     int64  `json:"packets,omitempty"`      // how many packets it tells of; likewise
	VLAN        *VLAN  `json:"vlan,omitempty"`
}

// VLAN is ECS network.vlan.*.
type VLAN struct {
	ID string `json:"id"` // of the tag; absent = untagged
}

// Host is ECS host.*: where it happened.
type Host struct {
	Name string `json:"name"` // as Open vSwitch calls it: the same as the observer's
}

// Observer is ECS observer.*: the host and the port that saw the packet.
type Observer struct {
	Name         string `json:"name"`                    // the host, as Open vSwitch calls it
	SerialNumber string `json:"serial_number,omitempty"` // datapath id
	Ingress      *Port  `json:"ingress,omitempty"`
}

// Port is ECS observer.ingress.
type Port struct {
	Interface Interface `json:"interface"`
}

// Interface is ECS observer.ingress.interface.
type Interface struct {
	Name string `json:"name,omitempty"` // port where the packet came in
	ID   string `json:"id,omitempty"`   // its OpenFlow number
}

// Rule is ECS rule.*: ID is "policy/direction/rule", Ruleset the policy.
type Rule struct {
	ID      string `json:"id"`                // policy/direction/rule
	Name    string `json:"name"`              // of the rule; default-deny for the default
	Ruleset string `json:"ruleset,omitempty"` // the policy
	Version string `json:"version,omitempty"` // reserved
}

// Related is ECS related.*.
type Related struct {
	IP []string `json:"ip,omitempty" es:"ip"` // all addresses of the event
}

// Tapwall holds what ECS has no name for.
type Tapwall struct {
	Schema      int     `json:"schema"`                // of the document: 1
	Verdict     Verdict `json:"verdict,omitempty"`     // FORWARDED, DROPPED, AUDIT (would be dropped), QUARANTINED, MIRRORED, SAMPLED, …
	DropReason  string  `json:"drop_reason,omitempty"` // POLICY_DENIED, QUARANTINE, SPOOFED, OUT_OF_STATE, UNKNOWN_RULE
	Direction   string  `json:"direction,omitempty"`   // ingress | egress: which side decided
	Enforcement string  `json:"enforcement,omitempty"` // enforce | audit
	Bridge      string  `json:"bridge,omitempty"`      // where
	Table       *int    `json:"table,omitempty"`       // of the pipeline, that decided
	Cookie      string  `json:"cookie,omitempty"`      // of the flow that decided, in hexadecimal
	RuleID      *uint32 `json:"rule_id,omitempty"`     // as in ct_label and the flows
	// EgressRule and IngressRule decided about the initiator's and the other side, where these are endpoints; Event.Rule is one of them.
	EgressRule  *Rule     `json:"egress_rule,omitempty"`
	IngressRule *Rule     `json:"ingress_rule,omitempty"`
	CT          *CT       `json:"ct,omitempty"`
	Ended       *Ended    `json:"ended,omitempty"`
	TCP         *TCP      `json:"tcp,omitempty"`
	ICMP        *ICMP     `json:"icmp,omitempty"`
	Tunnel      *Tunnel   `json:"tunnel,omitempty"`
	Source      *Endpoint `json:"source,omitempty"`
	Destination *Endpoint `json:"destination,omitempty"`
	Claim       *Claim    `json:"claim,omitempty"`
	Mirror      string    `json:"mirror,omitempty"` // that copied the packet
	Weight      int64     `json:"weight,omitempty"` // how many packets like it the event stands for
	Decode      *Decode   `json:"decode,omitempty"`
	// Truncated: texts or answers were longer or more than a document holds.
	Truncated bool    `json:"truncated,omitempty"`
	Loss      *Loss   `json:"loss,omitempty"`
	Notice    *Notice `json:"notice,omitempty"`
	Change    *Change `json:"change,omitempty"`
}

// CT is the connection tracking state of the packet.
type CT struct {
	State []string `json:"state,omitempty"` // new, est, rel, rpl, inv, trk, snat, dnat
	Zone  int      `json:"zone,omitempty"`  // conntrack zone
}

// Tunnel is what a mirrored packet was wrapped in: all else of the document is of the packet inside.
type Tunnel struct {
	Type   string `json:"type"`                     // vxlan, geneve
	VNI    int64  `json:"vni"`                      // of VXLAN or Geneve
	Local  string `json:"local,omitempty" es:"ip"`  // who sent it
	Remote string `json:"remote,omitempty" es:"ip"` // who it was sent to
}

// TCP holds the flags of the packet.
type TCP struct {
	Flags []string `json:"flags,omitempty"` // those that are set: SYN, ACK, …
}

// ICMP holds the type and code of an ICMP or ICMPv6 packet.
type ICMP struct {
	Type int `json:"type"`         // as its RFC numbers them
	Code int `json:"code"`         // likewise
	ID   int `json:"id,omitempty"` // identifier of an echo
}

// Claim is what a refused frame of ARP or neighbour discovery says: that an address is reached under a MAC.
type Claim struct {
	Protocol string `json:"protocol"`   // arp, or nd: neighbour discovery
	IP       string `json:"ip" es:"ip"` // address that it speaks of as its sender's own
	MAC      string `json:"mac"`        // that it gives for the address, as ECS spells it
}

// Endpoint is what tapwall knows of one side.
type Endpoint struct {
	Name     string            `json:"name,omitempty"`      // of the Endpoint, or of the port
	PortName string            `json:"port_name,omitempty"` // in Open vSwitch
	Labels   map[string]string `json:"labels,omitempty"`    // a label is found as labels.KEY
	// NamesSource says where the side's domain comes from: dns.
	NamesSource string `json:"names_source,omitempty"`
}

// NamesFromDNS is where names come from that were seen in DNS answers.
const NamesFromDNS = "dns"

// Decode says how far the packet could be read.
type Decode struct {
	Status string `json:"status"`          // ok | partial | failed
	Layer  string `json:"layer,omitempty"` // where it ended
	Error  string `json:"error,omitempty"` // why
}

// Loss tells of events that are missing from the record.
type Loss struct {
	Stage  string    `json:"stage"`           // where events were lost
	Class  string    `json:"class,omitempty"` // of the most important one: P0 denials and notices, P1 what passed, P2 packets
	Reason string    `json:"reason"`          // why
	Count  int64     `json:"count"`           // how many
	First  time.Time `json:"first"`           // when the first was lost
	Last   time.Time `json:"last"`            // and the last
}

// Verdict is tapwall.verdict.
type Verdict string

// The verdicts.
const (
	Forwarded   Verdict = "FORWARDED"
	Dropped     Verdict = "DROPPED"
	Rejected    Verdict = "REJECTED"
	Audit       Verdict = "AUDIT"
	Mirrored    Verdict = "MIRRORED"
	Sampled     Verdict = "SAMPLED"
	Quarantined Verdict = "QUARANTINED"
	Errored     Verdict = "ERROR"
)

// Direction says which side of a connection decided.
type Direction uint8

// The directions, seen from the endpoint the policy applies to.
const (
	Egress Direction = iota + 1
	Ingress
)

// String is the word in events: "egress", "ingress".
func (d Direction) String() string {
	switch d {
	case Egress:
		return "egress"
	case Ingress:
		return "ingress"
	}
	return "unknown"
}

// Actions lists the values of event.action.
func Actions() []string {
	return []string{ActionVerdict, ActionEnded, ActionPacket, ActionSampled, ActionDNSQuery, ActionDNSResponse, ActionClientHello,
		ActionHTTPRequest, ActionHTTPResponse, ActionLost, ActionForeignFlows, ActionChangedFlows, ActionChangedMeters, ActionTakeOver,
		ActionPickupOpened, ActionPickupClosed, ActionConfirming, ActionConfirmed, ActionUndone, ActionTraceDisagrees,
		ActionQuarantineBegan, ActionQuarantineEnded, ActionQuarantineReleased, ActionPolicyBegan, ActionPolicyEnded, ActionMirrorBegan,
		ActionMirrorEnded,
		ActionMirrorStarted, ActionMirrorExpired, ActionZoneNearFull,
		ActionZoneFull, ActionAddressLearned, ActionAddressForgotten, ActionAddressRefused, ActionCapturesRead, ActionExportTested,
		ActionCreated, ActionUpdated, ActionDeleted, ActionKilled, ActionReplayed, ActionUnauthorized,
		ActionEndsStopped, ActionEndsResumed, ActionResumed}
}

// DropReasons lists the values of tapwall.drop_reason.
func DropReasons() []string {
	return []string{PolicyDenied, InQuarantine, Spoofed, OutOfState, UnknownRule}
}

// Values of event.action, event.dataset and tapwall.drop_reason.
const (
	ActionVerdict = "policy-verdict"
	ActionEnded   = "connection-ended"
	ActionLost    = "events-lost"
	ActionPacket  = "packet-mirrored"
	ActionSampled = "packet-sampled" // of a connection that a rule samples
	// Packets in which an application said something that could be read.
	ActionDNSQuery     = "dns-query"
	ActionDNSResponse  = "dns-response"
	ActionClientHello  = "tls-client-hello"
	ActionHTTPRequest  = "http-request"
	ActionHTTPResponse = "http-response"
	// What others did to a switch, and what became of it.
	ActionForeignFlows  = "foreign-flows-removed"
	ActionChangedFlows  = "flows-restored"
	ActionChangedMeters = "meters-restored"
	ActionTakeOver      = "bridge-taken-over"
	ActionPickupOpened  = "pickup-window-opened"
	ActionPickupClosed  = "pickup-window-closed"
	ActionConfirming    = "apply-to-be-confirmed"
	ActionConfirmed     = "apply-confirmed"
	ActionUndone        = "apply-undone"
	// A probe was judged otherwise than policies say.
	ActionTraceDisagrees = "trace-disagrees"
	// Quarantines, which are of no bridge. That somebody released one comes before its end.
	ActionQuarantineBegan    = "quarantine-began"
	ActionQuarantineEnded    = "quarantine-ended"
	ActionQuarantineReleased = "quarantine-released"
	// Policies with a time, likewise.
	ActionPolicyBegan = "policy-began"
	ActionPolicyEnded = "policy-ended"

	ActionMirrorBegan   = "mirror-began"
	ActionMirrorEnded   = "mirror-ended"
	ActionMirrorStarted = "mirror-started"
	ActionMirrorExpired = "mirror-expired"
	// Conntrack zones with a limit.
	ActionZoneNearFull = "ct-zone-near-full"
	ActionZoneFull     = "ct-zone-full"
	// Addresses that endpoints were seen to use.
	ActionAddressLearned   = "address-learned"
	ActionAddressForgotten = "address-forgotten"
	ActionAddressRefused   = "address-refused"
	// Somebody had packets handed out.
	ActionCapturesRead = "captures-read"
	// Somebody tried whether events arrive where they are exported to.
	ActionExportTested = "export-tested"
	// Somebody wrote a resource, had live connections forgotten, had dead letters sent again, or came without the token.
	ActionCreated      = "resource-created"
	ActionUpdated      = "resource-updated"
	ActionDeleted      = "resource-deleted"
	ActionKilled       = "connections-killed"
	ActionReplayed     = "export-replayed"
	ActionUnauthorized = "request-unauthorized"
	// Ends of connections are not told of any more, or again: there are too many to look for them.
	ActionEndsStopped = "connection-ends-stopped"
	ActionEndsResumed = "connection-ends-resumed"
	// tapwall began to run, and there is a record of before.
	ActionResumed = "record-resumed"

	DatasetFlow   = "tapwall.flow"
	DatasetPacket = "tapwall.packet"
	DatasetLoss   = "tapwall.loss"
	DatasetSwitch = "tapwall.switch"
	DatasetChange = "tapwall.change"

	PolicyDenied = "POLICY_DENIED"
	InQuarantine = "QUARANTINE"
	Spoofed      = "SPOOFED"
	OutOfState   = "OUT_OF_STATE"
	UnknownRule  = "UNKNOWN_RULE"
)
