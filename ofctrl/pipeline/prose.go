package pipeline

// The parts of docs/pipeline.md that are prose.
const (
	documentHead = `
# The OpenFlow pipeline

This page is generated from package ofctrl/pipeline; do not edit it, run ` + "`go test ./policy/compile/wall -run Document -update`" + `.

tapwall's flows are in table 0 (one entry flow) and in the tables 200–229. They can be read with ` +
		"`ovs-ofctl -O OpenFlow13 --no-names dump-flows BRIDGE`" + `;
everything of tapwall bears its cookie.

`

	documentWay = `
## A packet's way

` + "```" + `
 ENTRY ─▶ SOURCE ─▶ SPOOF ─▶ DESTINATION ─▶ PRE ─▶ LINK ────────── ARP, ND, DHCP, … ─────────────▶ EXIT
                                             │ ct()  (forwarding endpoints: LEG, LEG_REPLY)         ▲
                                             ▼                                                      │
                                           STATE ── established ─▶ BOUND_INITIATOR ─▶ BOUND_RESPONDER
                                             │ new                     │      │ miss       │ miss   │
                                             │                     WRONG_END  └──┬─────────┘        ▼
                                             │                         │      RECHECK ◀── miss ── LIVE_EGRESS ─▶ LIVE_INGRESS ─▶ EXIT
                                             ▼                         ▼         ▼
                                        EGRESS, INGRESS (leaves) ◀─────┴─────────┘
                                             ▼
                                          VERDICT ── allow ─▶ COMMIT (both rule ids and both ends in ct_label) ─▶ EXIT
                                             └────── drop, perhaps with a copy to the controller
` + "```" + `

- A **new** connection is judged twice: by the egress policy of its sender and by the ingress policy of its receiver. Both tables match
  conntrack's *original tuple*, write a verdict and the id of the rule (or default) that decided, and VERDICT acts on the two.
- The ids of the rules and of the two ends are committed in ct_label. An **established** packet has to be between these ends and passes two
  gates, one flow per id that is in force; it never meets a policy table. Its counters are those of the gates. From STATE on, reg8 is the
  connection's initiator and reg9 its responder, whoever sent the packet.
- A packet in the connection's own direction from another sender, or to another receiver, is judged again in **RECHECK**. What ` +
		`conntrack takes
  for a reply is one only if its receiver opened the connection; otherwise it is dropped or judged as its sender's own (**WRONG_END**).
- When a rule goes, or may have lost something that it allowed (it became narrower, a deny came to stand above it), its gate goes in ` +
		`the same
  bundle; if it still exists it has a new id. The connections it stood for miss the gate and are judged again in **RECHECK**, also by ` +
		`packets
  of the responder. They get new ids or are dropped. Nothing is flushed, and no other connection notices.
- Where both sides send from the same UDP port, or by a tunnel without ports, a reply on a connection that is denied is judged once more as
  its sender's own (**SAME_PORT**). Where a rule allows that, it is committed in its own direction.
- A side without an endpoint is allowed under one id, whose gates look at the registers: when a station becomes an endpoint, its connections
  are judged again.
- An ICMP error passes with the connection it is about, and is dropped while that connection waits for its re-check.
- TCP that is unknown to conntrack and is not a SYN is dropped, except in a **pickup window** (after a take-over or a restart of the ` +
		`switch; for endpoints that arrive). Then
  a connection whose initiator tapwall remembers is judged as his. For others an explicit rule that allows the packet as its sender's own
  commits the connection; one that allows the reverse lets it pass uncommitted, until the initiator's next packet commits; only then do
  defaults count, and only where the other orientation is not denied.

What passes without policy, each with its own counter: ARP; frames that are not IP; traffic between two stations that are not ` +
		`endpoints; and, in
LINK, neighbour discovery (types 133–136) with hop limit 255, MLD and IGMP with hop limit or TTL 1 to a group, DHCP from 0.0.0.0 to ` +
		`255.255.255.255, DHCPv6
from fe80::/10 to ff02::1:2, and the answers of DHCP servers that are not endpoints or are declared. What is not exactly that is ` +
		`judged. IP multicast and limited broadcast
(255.255.255.255) are judged by the sender's policy only. While any rule or any isolation of ingress is in force, IP to one receiver in a
broadcast or multicast frame is dropped, because it would reach the receiver unjudged; directed broadcasts (10.0.0.255) are the price. ` +
		`Frames with
more VLAN tags than OVS looks behind are dropped where one side is an endpoint. Frames to an unknown unicast MAC are flooded by NORMAL, so
endpoints may see them. What an endpoint sends under an address that it does not declare is judged as its own, by its port, and a ` +
		`metered copy goes to the
controller, which then binds the address to the endpoint (SPOOF and DESTINATION); an endpoint with ` + "`unknownMac: drop`" +
		` drops it. While the MAC of an endpoint is unknown, its ingress is not enforced, and all IP goes through conntrack.

`

	documentRules = `
## Rules

A rule has up to three dimensions: the endpoints it applies to (reg8 in EGRESS, reg9 in INGRESS), its peers (the other register for ` +
		`endpoints
of the bridge, 0 for entity world, addresses of the original tuple for everything else) and its services. Dimensions that restrict ` +
		`nothing are
left out. A rule of up to 16 combinations of elements, or of no more than the other way takes, has a flow for each, which decides. With
more, each element is a clause of conjunction(id, k/n), and one flow with conj_id = id decides: 1,000 endpoints and 1,000 peers cost 2,001
flows.

Every rule has an OpenFlow priority of its own in its table (2–65000), by tier, priority, deny before allow, and name. The defaults of the
endpoints are at priority 1.

The examples are from a bridge with the endpoints web (port 1, VLAN 10), db (port 2, VLAN 10) and router (port 4, VLAN 10, which ` +
		`forwards), an uplink (port 3), and the policy: web may be
reached on tcp/80 and tcp/443 from 10.0.0.0/24 and from db, recorded; a pickup window is open.
`
)
