package pipeline

// The tables. 200–229 are tapwall's in every mode; table 0 only holds entry flows.
const (
	TableEntry       uint8 = 0
	TableSource      uint8 = 200
	TableSpoof       uint8 = 201
	TableDestination uint8 = 202
	TablePre         uint8 = 203
	TableState       uint8 = 204
	TableEgress      uint8 = 205
	TableIngress     uint8 = 206
	TableLiveEgress  uint8 = 207
	TableLiveIngress uint8 = 208
	TableVerdict     uint8 = 209
	TableRecheck     uint8 = 210
	TableExit        uint8 = 211
	TableCommit      uint8 = 212
	TablePickup      uint8 = 213
	// TableAddressSource, TableAddressDestination and TableService number what rules match.
	TableAddressSource      uint8 = 214
	TableAddressDestination uint8 = 215
	TablePickupForward      uint8 = 216
	TablePickupReversed     uint8 = 217
	TableBoundInitiator     uint8 = 218
	TableBoundResponder     uint8 = 219
	TableService            uint8 = 220
	TableLink               uint8 = 221
	TablePickupReply        uint8 = 222
	TableSamePort           uint8 = 223
	TableWrongEnd           uint8 = 224
	TableLeg                uint8 = 225
	TableLegReply           uint8 = 226
	// TableDNSAnswer is reserved for DNS answers that wait for the rules they bring; it has no flows.
	TableDNSAnswer uint8 = 227
	TableSample    uint8 = 228

	// TableFirst and TableLast bound the range that is tapwall's alone: every flow in it was made by tapwall.
	TableFirst uint8 = 200
	TableLast  uint8 = 229
)

// Table describes one table of the pipeline.
type Table struct {
	ID   uint8
	Name string
	// Matches and Does say in a line what the flows of the table look at and what they do.
	Matches, Does string
	// Pickup: the table holds flows during pickup windows only.
	Pickup bool
}

// Tables returns the tables in the order of their numbers.
func Tables() []Table {
	return []Table{
		{TableEntry, "ENTRY", "everything, at priority 1", "hands the packet to SOURCE", false},
		{TableSource, "SOURCE", "in_port and whether there is a VLAN tag",
			"names the source endpoint (reg8), its class (reg14) and the conntrack zone (reg10); an unknown port is dropped", false},
		{TableSpoof, "SPOOF", "reg8, dl_src and, of guarded endpoints, addresses in IP, ARP and neighbour discovery",
			"tells the controller of addresses that an endpoint does not declare; drops them where it says so, or where it is guarded", false},
		{TableDestination, "DESTINATION", "zone and dl_dst",
			"names the destination endpoint (reg9) and its class (reg14); drops unicast IP in group-addressed frames while there are rules", false},
		{TablePre, "PRE", "ARP, non-IP, traffic between unmanaged stations",
			"lets pass without conntrack; ND, MLD, IGMP and DHCP go to LINK, all other IP through ct() to STATE", false},
		{TableState, "STATE", "ct_state", "established to BOUND, replies with the ends exchanged; new to the policy, invalid to the bin", false},
		{TableEgress, "EGRESS", "classes (reg14), address numbers (reg15), service (reg10), or the original tuple",
			"leaf: writes egress verdict and rule id into registers", false},
		{TableIngress, "INGRESS", "classes (reg14), address numbers (reg15), service (reg10), or the original tuple",
			"leaf: writes ingress verdict and rule id into registers", false},
		{TableLiveEgress, "LIVE_EGRESS", "egress rule id in ct_label: one flow per rule that is in force",
			"goes on while the rule lives, else to RECHECK", false},
		{TableLiveIngress, "LIVE_INGRESS", "ingress rule id in ct_label: one flow per rule that is in force",
			"goes on while the rule lives, else to RECHECK", false},
		{TableVerdict, "VERDICT", "the verdict bits", "logs, drops or commits", false},
		{TableRecheck, "RECHECK", "ct_state", "judges an established connection again, then VERDICT", false},
		{TableExit, "EXIT", "everything; port 53 of UDP; ct_mark",
			"NORMAL; tells the controller of DNS messages of endpoints, of connections that rules sample, and of what is said first", false},
		{TableCommit, "COMMIT", "the log, pickup and turn bits; port 53 of UDP",
			"tells the controller of DNS messages of endpoints; commits the connection with both rule ids and both ends in ct_label, then EXIT",
			false},
		{TablePickup, "PICKUP", "TCP without SYN that conntrack does not know", "judges the packet as its own initiator", true},
		{TableAddressSource, "ADDRESS_SOURCE", "source of the original tuple, longest prefix first", "numbers it (reg15)", false},
		{TableAddressDestination, "ADDRESS_DESTINATION", "destination of the original tuple, longest prefix first", "numbers it (reg15)", false},
		{TablePickupForward, "PICKUP_FORWARD", "the forward verdict",
			"commits what an explicit rule allows; else exchanges addresses, ports and ends, and hands the packet to ct() as a reply", false},
		{TablePickupReversed, "PICKUP_REVERSED", "the reversed verdict",
			"lets a reply pass uncommitted, commits by the forward verdict, or drops what nobody vouches for", false},
		{TableBoundInitiator, "BOUND_INITIATOR", "initiator id in ct_label against reg8: per endpoint, and per generation of ids",
			"goes on with the connection's own initiator; else a sender is judged in RECHECK, a reply in WRONG_END", false},
		{TableBoundResponder, "BOUND_RESPONDER", "responder id in ct_label against reg9: per endpoint, and per generation of ids",
			"goes on to the LIVE gates with the connection's own responder, else to RECHECK", false},
		{TableService, "SERVICE", "protocol and destination port of the original tuple", "numbers them (reg10)", false},
		{TableLink, "LINK", "hop limits and addresses of ND, MLD, IGMP and DHCP",
			"lets pass without conntrack what is within the RFCs; the rest goes through ct() to STATE", false},
		{TablePickupReply, "PICKUP_REPLY", "ct_state in a zone without connections",
			"judges the packet as its initiator would have sent it, and exchanges back", false},
		{TableSamePort, "SAME_PORT", "the verdict of a reply, and its ports",
			"judges a reply on a denied connection as its sender's own, where both ports are the same", false},
		{TableWrongEnd, "WRONG_END", "ct_state in a zone without connections",
			"judges a packet that is no reply of its receiver's connection as its sender's own", false},
		{TableLeg, "LEG", "reg9 of what forwarding endpoints send and get", "looks first for the connection that the packet may be a reply of",
			false},
		{TableLegReply, "LEG_REPLY", "ct_state", "replies to STATE; all else through ct() in the packet's own zone to STATE", false},
		{TableDNSAnswer, "DNS_ANSWER", "reserved for names", "nothing yet", false},
		{TableSample, "SAMPLE", "the number that a leaf has drawn by a hash of the packet's addresses, protocol and ports",
			"0: the connection is of the sample (reg13)", false},
	}
}

// TableNames maps the numbers of the tables to their names.
func TableNames() map[uint8]string {
	out := map[uint8]string{}
	for _, t := range Tables() {
		out[t.ID] = t.Name
	}
	return out
}

// Priorities of the fixed flows and the range that is left to rules in EGRESS and INGRESS.
const (
	// PriorityRuleMin and PriorityRuleMax bound (inclusive) the priorities of rules; one rule, one priority.
	PriorityRuleMin uint16 = 3
	PriorityRuleMax uint16 = 65000
	// PriorityEnding is that of a default deny that ends by itself, above the default that is there then.
	PriorityEnding uint16 = 2
	// PriorityDefault is where an endpoint's default stands, below every rule.
	PriorityDefault uint16 = 1
	// PriorityPrefix is that of a prefix without length in ADDRESS_SOURCE and ADDRESS_DESTINATION; longer ones come before.
	PriorityPrefix uint16 = 10
	// PriorityService and PriorityProtocol are those of ports, and of whole protocols, in SERVICE.
	PriorityService  uint16 = 20
	PriorityProtocol uint16 = 10
	// PriorityPort is that of the classifying flows of SOURCE.
	PriorityPort uint16 = 100
	// PriorityAccessMAC and PriorityTrunkMAC are those of DESTINATION: an address that is bound to one VLAN is looked at before
	// one that a trunk endpoint uses in every VLAN.
	PriorityAccessMAC uint16 = 100
	PriorityTrunkMAC  uint16 = 90
	// PriorityStrayMAC is that of addresses that an endpoint uses without declaring them.
	PriorityStrayMAC uint16 = 80
	// PriorityHostMAC is that of the bridge's own port, which an endpoint may have the address of.
	PriorityHostMAC uint16 = 70
	// PriorityGate is that of the LIVE gates and of the bindings of ends.
	PriorityGate uint16 = 100
	// PriorityRetired is that of the flows for ids that an endpoint had before, in BOUND_INITIATOR.
	PriorityRetired uint16 = 90
	// PriorityForwarder is that of the flows for what a forwarding endpoint sends, in PRE and LINK; one less for what it gets.
	PriorityForwarder uint16 = 120
)
