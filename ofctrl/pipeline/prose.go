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
- What a side **rejects** and the other does not deny is dropped like what is denied, and copied to the controller within a meter of its
  own. The controller answers with a RST or an ICMP error by the port that the packet came from, past all tables.
- A side without an endpoint is allowed under one id, whose gates look at the registers: when a station becomes an endpoint, its connections
  are judged again.
- A **probe** (reg13, probe tag) is a packet-out of the controller that is judged as the first packet of a connection, in a zone without
  any. At VERDICT, COMMIT or EXIT it ends as a copy to the controller: it reaches nobody, and no connection is made or touched.
- A rule may **sample**: its leaf draws a number by a hash of addresses, protocol and ports, and SAMPLE looks whether it is the one of
  N. COMMIT copies the packet to the controller, under a meter of its own, and writes that into ct_mark (bit 8), by which EXIT copies the
  later ones of both directions. Cached decisions of such a rule's first packets are by address and port, one for each; all others are as
  they were.
- Where the switch may mend a wrong cached flow (ofctrl.Renewal says when), each change exchanges a flow of priority 65535 in SOURCE, STATE,
  PICKUP_REPLY, WRONG_END and LEG_REPLY. It matches nothing; that it looks at other bits of pkt_mark than the one before has all that is
  cached thrown away.
- A rule may want to know what is **said first** on its TCP connections. COMMIT sets bits of ct_mark for each direction, EXIT copies packets
  while they are there and takes them away: with the third packet all but one, with the first that has PSH all.
- An ICMP error passes with the connection it is about, and is dropped while that connection waits for its re-check.
- TCP that is unknown to conntrack and is not a SYN is dropped, except in a **pickup window** (after a take-over or a restart of the ` +
		`switch; for endpoints that arrive). Then
  a connection whose initiator tapwall remembers is judged as his. For others an explicit rule that allows the packet as its sender's own
  commits the connection; one that allows the reverse lets it pass uncommitted, until the initiator's next packet commits; only then do
  defaults count, and only where the other orientation is not denied.

ARP and neighbour discovery of endpoints, and the answers of DHCP servers that may answer, are copied to the controller under a meter of ` +
		`their own as they pass, while addresses are
learned from them.

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

	documentNumbers = `
## Classes, address numbers and service numbers

**Classes.** Endpoints that the same groups and selector lists choose, of all that policies name, are a class. SOURCE
and DESTINATION write its number into reg14 beside the endpoint id in reg8 and reg9; 0 is a station that is no
endpoint. Numbers are given in blocks of 16: a new class that splits off another, and that a rule may
name with it, gets a number of the same block, and a rule that names
all classes of a block, often one, matches the block (reg14=0x200030/0xfff0fff0: from any of 48–63
to any of 32–47). When memberships change, the largest part of what a class was keeps the number. No conntrack entry
has a class number. A number that is given up rests until 256 others have been, because a packet that conntrack hands
back while flows change may carry it. Class 65535 is for endpoints beyond the last number: it is denied everything.

**Address numbers.** ADDRESS_SOURCE and ADDRESS_DESTINATION find the longest prefix, at priority 10 + its length, that
holds the source and destination of the original tuple, and write its number into the halves of reg15. Addresses that
are in the same lists have one number. **Service numbers**: SERVICE writes into reg10[16..31] the number of the
protocol and destination port; ports that are in the same lists have one number. 0 = in no list that is numbered. A
list stays raw, matched as ct_nw_src=…, ct_tp_dst=…, if it would have more numbers than elements because other lists
divide it, or if it is short and one rule names it. These numbers are in no conntrack entry either; flows that give
them and flows that match them change in one bundle.

How to read a flow: ` + "`reg14=0x110012`" + ` in INGRESS is from class 18 to class 17,
` + "`reg14=0x110000/0xffff0000,reg15=0x1/0xffff`" + ` from addresses of number 1 to class 17, ` + "`reg10=0x10000/0xffff0000`" + `
services of number 1. ` + "`tapwall flows`" + ` says what they stand for.

## Ids and generations

Rules, defaults that allow, and endpoints have ids, which conntrack entries carry in ct_label; an established packet
passes while those of its entry are in force. So whatever takes something away gives one of them another value, in the
bundle that takes it away:

- An endpoint that leaves what an allow names, joins what a deny names or becomes isolated takes the next of 16
  **generations**: id + 1, at the cost of its classifying and binding flows. Flows that mean it under any id match the
  first 28 bits (reg8=…/0xfffffff0). Its connections miss BOUND_INITIATOR or BOUND_RESPONDER and are judged in
  RECHECK; nobody else's are. After the last generation it gets another block of ids.
- A rule from which addresses are taken, that is narrowed, or that falls behind a deny gets a new id, as connections
  do not say which part of it they used. If more than 16 endpoints leave fewer rules at once, those rules get new ids
  instead.
- Endpoints that appear, join allows or only change their class, and lists that are numbered anew, change no id.

A group with ` + "`onMemberRemoved: keep`" + ` gives no new ids for members that leave. Endpoints without a class on record (of
versions before classes) get new ids at the first start.

`

	documentRules = `
## Rules

A rule has up to three dimensions, each a list of things to match: the endpoints it applies to, as classes (one half
of reg14: the low one in EGRESS, the high one in INGRESS); its peers, as classes for endpoints of the bridge (the
other half, 0 or 1 for entity world, 1 for entity host) and as addresses for everything else; and its services. Dimensions that restrict
nothing are left out. A rule of up to 16 combinations of elements, or of no more than the other way takes, has a flow
for each, which decides. With more, each element is a clause of conjunction(n, k/m), and one flow with conj_id = n
decides. n is a number that the rule keeps when its id changes, so that a new id changes the flow that decides and the
gate, and no clause. Where a rule applies to one class, or to few and its lists are short, the class stands in the
clauses of the other dimensions and has none of its own: all rules of an endpoint would share that one, and a first
packet pays for each rule of which it meets a clause. Beyond 100 conjunctions of a class, rules of up to 256
combinations that come then are multiplied out, too, as long as that takes no more than 32,768 flows more.

Every rule has an OpenFlow priority of its own in its table (2–65000), by tier, priority, deny before allow, and name.
The defaults of the classes are at priority 1.

The examples are from a bridge with the endpoints web (port 1, VLAN 10), db and cache (ports 2 and 5, VLAN 10), which
are two classes of one block, and router (port 4, VLAN 10, which forwards), an uplink (port 3), and the policies: web
may be reached from db and cache by tcp/80 and tcp/443, recorded, and from a group of five networks by a list of
ports; one of 100 of its own connections to those is sampled; a policy of db tells the two apart. A pickup window is open.

`
)
