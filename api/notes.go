package api

import "github.com/tapwall/tapwall/policy"

func span(lo, hi float64) (*float64, *float64) { return &lo, &hi }

func ranged(at, text string, lo, hi float64) note {
	n := note{at: at, text: text}
	n.min, n.max = span(lo, hi)
	return n
}

func words(at, text string, enum ...any) note { return note{at: at, text: text, enum: enum} }

func shaped(at, text, pattern string) note { return note{at: at, text: text, shape: pattern} }

func text(at, text string) note { return note{at: at, text: text} }

// schemaNotes describe the fields of specifications and answers. A note for a field that does not exist fails NewServer.
func schemaNotes() []note {
	var notes []note
	for _, k := range policy.Kinds() {
		of := string(k) + "."
		notes = append(notes,
			shaped(of+"name", "DNS label of at most 63 characters", dnsLabel),
			text(of+"uid", "Random UUID, given by the server; a resource that is deleted and made again has another one"),
			text(of+"revision", "Grows with every change; the ETag"),
			text(of+"createdAt", "Given by the server"),
			text(of+"labels", "Free pairs, for lists and for prune"),
			text(of+"status", "What was observed, per host; given by the server"))
	}
	return append(notes, []note{
		words("PolicySpec.tier", "Tiers decide in this order; default application", "emergency", "security", "application", "baseline"),
		ranged("PolicySpec.priority",
			"Within the tier, smaller first; default 100. At equal priority deny wins over reject, and that over allow", 0,
			policy.MaxPriority),
		words("PolicySpec.mode", "Default enforce. audit = it decides nothing, and what it would deny is recorded", "enforce", "audit"),
		text("PolicySpec.appliesTo", "The endpoints that the policy is about; selected by any entry"),
		text("PolicySpec.ingress", "Rules for new connections to the endpoints; their order means nothing"),
		text("PolicySpec.egress", "Rules for new connections from the endpoints; their order means nothing"),
		text("PolicySpec.defaultDeny", "Whether what no rule allows is denied; default: for each direction that has a rule"),
		text("PolicySpec.record", "What is recorded of what the policy decides, beyond rules with log; absent = what the bridge records"),
		words("Record.connections", "Of connections that are allowed: all, or only what a rule says log of; none = likewise, and no rule should",
			"all", "logged", "none"),
		words("Record.denies", "Of packets that are denied or rejected", "all", "logged"),
		text("PolicySpec.notBefore", "From when on it is in force (RFC 3339); absent = at once"),
		text("PolicySpec.expiresAt", "When it ends by itself, also while tapwall is down if that is at most 18 h off; absent = when it is "+
			"deleted. It then stays, Stopped, until it is deleted"),
		shaped("Rule.name", "DNS label, unique within the direction; events name it", dnsLabel),
		words("Rule.action", "reject = deny, and tell the sender; pass = the rules of the next tier decide, after the last one the default",
			"allow", "deny",
			"reject", "pass"),
		text("Rule.from", "Ingress only: peers; absent = everybody"),
		text("Rule.to", "Egress only: peers; absent = everybody"),
		text("Rule.services", "Protocols, ports and ICMP types; absent = everything"),
		note{at: "Rule.log", as: ruleLog,
			text: "true: record each verdict of the rule as an event, whatever record says; a map, of rules that allow: what else"},
		shaped("RuleLog.sample", `Record one of so many connections, "1/100": its beginning and all its packets, with the weight 100; nothing `+
			"of the others", `^1/[1-9][0-9]{0,4}$`),
		text("RuleLog.l7", "Record what TCP connections begin with: the hello of a TLS client, the first request and response of HTTP/1"),
		text("Rule.stateless", "Comes later: true is refused"),
		note{at: "Service.protocol", text: "IP protocol, by name or number, which may be a text or a number", as: protocol},
		shaped("Service.ports", `Destination ports of tcp, udp or sctp, "80", "8000-8099" or a name such as "https"; absent = all`, portRange),
		shaped("Service.sourcePorts", "Source ports of who opens the connection; absent = all", portRange),
		ranged("Service.type", "Type of the message that opens the connection, with icmp and icmpv6; absent = all", 0, 255),
		ranged("Service.code", "Its code; goes with type", 0, 255),
		text("DefaultDeny.log", "Record what the default denies"),
		text("Selector.labels", "Endpoints that carry all these labels, from external_ids or Endpoint resources"),
		text("Selector.host", "Narrows labels, port, vm, neutronPort, mac, vlan or bridge to endpoints of the host with this system-id"),
		text("Selector.port", "Name of the port"),
		text("Selector.vm", "UUID or name of the VM"),
		text("Selector.neutronPort", "external_ids:iface-id"),
		shaped("Selector.mac", "MAC address", macAddress),
		ranged("Selector.vlan", "Access VLAN", 1, 4094),
		text("Selector.bridge", "All endpoints of a bridge"),
		shaped("Selector.group", "Members of a Group resource", dnsLabel),
		words("Selector.entity",
			"any = everybody; world = who is no known endpoint of any host; host = the bridge's own port and the host's addresses; "+
				"same-network = the endpoints of the bridge in the same VLAN; peers only", "any", "world", "host", "same-network"),
		text("Selector.cidr", "Address range without host bits: of peers, of members of groups, and of the endpoints that a mirror copies"),
		text("Selector.except", "With cidr: ranges inside it that are left out"),
		text("Selector.fqdn", "Comes later"),
		text("GroupSpec.members", "Endpoints, address ranges and other groups; no entities or names"),
		text("GroupSpec.from", "A list of addresses that is kept elsewhere: members beside those of members. Each process reads it"),
		text("GroupSource.file", "Name of a file below the directory that the configuration names"),
		text("GroupSource.url", "https:// (http:// where the configuration allows it). What may be secret of it is in no status and no log"),
		text("GroupSource.every", "How often it is read again, 10s to 720h; default 1m for a file, 1h for a URL"),
		text("RuleStatus.packets", "All that the rule judged, or let pass as part of established connections"),
		text("RuleStatus.new", "Of a rule that does not deny: those that it judged, first packets and what was judged again"),
		text("RuleStatus.established", "Of a rule that does not deny: the others"),
		text("RuleStatus.denied", "Of a rule that denies: all of them"),
		text("RuleStatus.lastHit", "When a packet met the rule last, at most a minute late; absent = never since countedSince"),
		text("RuleStatus.countedSince", "Since when hits have been counted without a gap, also over restarts"),
		text("Status.source", "Of a group that takes members from a file or URL"),
		text("SourceStatus.from", "File or URL, without what may be secret of it"),
		text("SourceStatus.entries", "Addresses and ranges of the list that are in force"),
		text("SourceStatus.skipped", "Lines that are no address and were left out"),
		text("SourceStatus.skippedLines", "The first of them"),
		text("SourceStatus.fetchedAt", "When what is in force was last seen to be the newest; absent = never"),
		text("SourceStatus.checkedAt", "When it was last tried; absent = not since the process began"),
		text("SourceStatus.error", "Of the last try. What is in force is from before"),
		words("GroupSpec.onMemberRemoved", "What becomes of connections that rules allowed because of a member that leaves: revoke = cut, "+
			"unless another rule allows them (default); keep = they go on until they end or something denies them",
			policy.OnMemberRemovedRevoke, policy.OnMemberRemovedKeep),
		text("MemberEdit.add", "Become members, if they are none yet"),
		text("MemberEdit.remove", "Are no members from now on"),
		text("Members.members", "How many members the group has"),
		text("Members.added", "New members"),
		text("Members.removed", "Members that are none any more"),
		text("Members.present", "To be added, but members already"),
		text("Members.absent", "To be removed, but no members"),
		text("EndpointSpec.match", "Which port: port, neutronPort, vm or mac"),
		text("EndpointSpec.labels", "Added to those of OVSDB, and winning over them"),
		shaped("EndpointSpec.mac", "Where external_ids:attached-mac is absent", macAddress),
		shaped("EndpointSpec.macs", "Further MAC addresses behind the port: virtual routers, macvlans, nested machines", macAddress),
		words("EndpointSpec.unknownMac",
			"What becomes of frames from other MAC addresses: judge = as the endpoint's (default), drop (default where macs are given)", "judge",
			"drop"),
		text("EndpointSpec.addresses", "IPv4 and IPv6 addresses of the endpoint"),
		words("EndpointSpec.antiSpoof",
			"Whether what it sends is held to its MAC and IP addresses: auto (default) = where addresses are given, on, off",
			policy.AntiSpoofAuto, policy.AntiSpoofOn, policy.AntiSpoofOff),
		text("EndpointSpec.allowedAddresses", "Further addresses or ranges that it may send from: virtual routers, machines behind it"),
		text("EndpointSpec.forwards", "It sends on what others sent to it, as a router or bridge with one port does"),
		words("EndpointSpec.mode", "Default enforce. audit = what policies would deny it passes, and is recorded", "enforce", "audit"),
		text("EndpointSpec.dhcpServer", "It may answer DHCP clients, whatever policies say; without it, only stations that are no endpoint may"),

		text("QuarantineSpec.match", "Which ports: port (any of an owned bridge), vm (all of its ports), neutronPort or mac"),
		words("QuarantineSpec.mode", "drop (default): nothing passes but by the pass list; dns: DNS passes as well", policy.QuarantineDrop,
			policy.QuarantineDNS),
		text("QuarantineSpec.until", "When it ends by itself; absent = when it is deleted. It then stays, Stopped, until it is deleted"),
		text("QuarantineSpec.pass", "Whom the machine may still talk with, in both directions, as far as policies allow it; absent = nobody"),
		text("QuarantineSpec.reason", "Why, for people"),
		text("Passage.cidr", "An address or a range"),
		text("Passage.services", "Which services of theirs; absent = all IP"),
		words("PassedService.protocol", "Protocol", "tcp", "udp", "icmp", "icmpv6"),
		shaped("PassedService.ports", `Ports of those that cidr names, "80" or "8000-8099"; absent = all`, portRange),

		text("MirrorSpec.enabled", "false stops the mirror; default true"),
		text("MirrorSpec.sources", "Whose traffic; selected by any entry"),
		text("MirrorSpec.exclude", "Taken out of the sources"),
		words("MirrorSpec.direction", "Seen from the source; default both", "both", "fromSource", "toSource"),
		text("MirrorSpec.targets", "Where copies go: each target gets all of them"),
		text("MirrorSpec.filter", "Which packets of the sources are copied; absent = all"),
		words("MirrorFilter.default", "What becomes of packets that no rule matches; default reject", policy.FilterAccept, policy.FilterReject),
		text("MirrorFilter.rules", "The rule with the smallest priority that matches decides; at equal priority reject goes before accept"),
		ranged("FilterRule.priority", "Smaller first; default 0", 0, policy.MaxFilterPriority),
		words("FilterRule.action", "accept = copy, reject = do not", policy.FilterAccept, policy.FilterReject),
		words("FilterRule.direction", "Which way the packet goes, seen from the source; default both", "both", "fromSource", "toSource"),
		text("FilterRule.etherType", `ipv4, ipv6, arp or a number like "0x88cc"; absent = all`),
		note{at: "FilterRule.protocol", text: "Protocol of IP, by name or number, which may be a text or a number; absent = all", as: protocol},
		text("FilterRule.src", "Source addresses of IP, as ranges; absent = all"),
		text("FilterRule.dst", "Destination addresses of IP, as ranges; absent = all"),
		shaped("FilterRule.srcPorts", "Source ports of tcp, udp or sctp; absent = all", portRange),
		shaped("FilterRule.dstPorts", `Destination ports, "443", "8000-8099" or a name such as "https"; absent = all`, portRange),
		ranged("FilterRule.type", "Type of icmp or icmpv6; absent = all", 0, 255),
		ranged("FilterRule.code", "Code of the type; absent = all", 0, 255),
		text("FilterRule.tcpFlags", `Flags of TCP that are set and clear, like "+syn-ack"`),
		ranged("FilterRule.vlan", "VLAN of the packet, 0 = none; absent = any", 0, 4094),
		text("FilterRule.symmetric", "Match answers too: with source and destination exchanged, and the direction"),
		ranged("MirrorSpec.snaplen", "How many bytes of each packet are copied at most; absent = all", policy.MinSnaplen, policy.MaxSnaplen),
		text("MirrorSpec.sample", "Bounds of what is copied"),
		ranged("MirrorSample.maxPacketsPerSecond",
			"How many packets the mirror delivers in a second at most; what is copied from does not notice",
			1, policy.MaxPacketsPerSecond),
		text("MirrorSample.sessions", `One session of so many is copied, whole: "1/4"`),
		note{at: "MirrorSpec.vlanTag",
			text: "What becomes of the VLAN tag of copies: strip (default), keep, or the number of the VLAN that they get",
			as:   vlanTag},
		text("MirrorSpec.stopAfter",
			"When it ends by itself, whatever comes first. It then stays, Stopped (Completed), and begins again when the "+
				"spec is changed, or by POST …/start"),
		text("StopAfter.duration", "Since the first host copied: 90s, 10m, 2d"),
		text("StopAfter.packets", "That the filter accepts, on all hosts together; it may be what comes within a second more"),
		text("StopAfter.bytes", "Likewise, as the packets are before they are cut"),
		text("MirrorSpec.startAt", "When it begins to copy (RFC 3339); absent = at once"),
		text("MirrorSpec.ttl", "How long after it was written so, or started, it is deleted: 90s, 10m, 2d"),
		text("Status.life", "Of a mirror with startAt, stopAfter or ttl"),
		text("LifeStatus.beganAt", "When the first host copied; absent = none has"),
		text("LifeStatus.endsAt", "When stopAfter.duration is over"),
		text("LifeStatus.endedAt", "When it ended by stopAfter"),
		text("LifeStatus.deletedAt", "When ttl is over and the mirror is deleted"),
		text("LifeStatus.packets", "That stopAfter counts, on all hosts, since it began"),
		text("LifeStatus.bytes", "Likewise"),
		text("LifeStatus.leftPackets", "Until stopAfter.packets ends it"),
		text("LifeStatus.leftBytes", "Until stopAfter.bytes ends it"),
		text("MirrorSpec.capturePoint",
			"What of the packets that sources send is copied: wire (default) = all, before policies judge it; delivered = "+
				"what leaves the bridge at another port"),
		words("MirrorSpec.mtuPolicy", "What becomes of frames that are larger than a tunnel carries: copies are cut to fit (default), or the "+
			"mirror is refused", policy.MTUTruncate, policy.MTUFail),
		text("MirrorSpec.balance", "Each session goes to one of the targets, instead of a copy to all"),
		text("MirrorSpec.force", "Deliver to a port that is somebody's, such as a machine's; default false"),
		text("MirrorTarget.vm", "UUID or name of a machine, to whose port copies go; goes with force"),
		text("MirrorTarget.rspan", "Copies flood a VLAN: they leave by every port of the bridge that has it, tagged unless it is the port's own"),
		ranged("RSPANTarget.vlan", "The VLAN", 1, policy.MaxVLAN),
		text("RSPANTarget.acknowledgeFlooding", "Must be true: every port that has the VLAN gets the copies"),
		text("MirrorTarget.pcap", "Files that tapwall writes, of the mirrored packets"),
		text("PcapTarget.file", "What the names of the files begin with; no other mirror may have it"),
		text("PcapTarget.rotate", "Size at which another file is begun; default 100MB"),
		ranged("PcapTarget.keep", "How many files there are at most; default 10", 1, 10000),
		text("MirrorTarget.buffer", "The last packets, in memory, to be saved after the event that matters"),
		text("MirrorTarget.events", "Events of packets: who sent them to whom"),
		text("EventsTarget.sample", `One packet of so many, "1/100"; absent = each`),
		shaped("PortTarget.name", "At most 15 characters, the longest name of a network device", deviceName),
		text("PortTarget.create", "Make the port if it does not exist"),
		ranged("VXLANTarget.vni", "Default: derived from the name of the mirror, shown in the status", 0, 1<<24-1),
		ranged("VXLANTarget.dstPort", "Default 4789", 1, 65535),
		text("VXLANTarget.remote", "Address of the receiver"),
		ranged("GeneveTarget.vni", "Default: derived from the name of the mirror, shown in the status", 0, policy.MaxVNI),
		ranged("GeneveTarget.dstPort", "Default 6081", 1, 65535),
		text("GeneveTarget.remote", "Address of the receiver"),
		ranged("GRETarget.key", "Default: derived from the name of the mirror, shown in the status", 0, policy.MaxGREKey),
		text("GRETarget.remote", "Address of the receiver"),
		text("ERSPANTarget.remote", "Address of the receiver"),
		ranged("ERSPANTarget.version", "1 (type II) or 2 (type III); default 2", 1, 2),
		ranged("ERSPANTarget.session", "0, the default: derived from the name of the mirror, shown in the status", 0, policy.MaxERSPANSession),
		ranged("ERSPANTarget.index", "Goes with version 1; default 0", 0, policy.MaxERSPANIndex),
		ranged("ERSPANTarget.hardwareId", "Goes with version 2; default 0", 0, policy.MaxERSPANHardwareID),

		words("Status.phase", "Nothing is Active that was not read back",
			policy.PhasePending, policy.PhaseActive, policy.PhaseDegraded, policy.PhaseStopped, policy.PhaseFailed),
		text("Status.reason", reasons),
		text("HostStatus.reason", reasons),
		text("Warning.code", warnings),
		text("Status.observedRevision", "The revision that is installed; behind revision = not yet"),
		text("Status.warnings", "What is valid but suspicious, such as SHADOWED"),
		words("Consequence.code", "DEFAULT_DENY: what no rule allows is denied from now on; NO_DEFAULT_DENY: no longer; OPEN_TO_EVERYBODY: "+
			"strangers may what they could not",
			policy.ConsequenceIsolated, policy.ConsequenceReleased, policy.ConsequenceOpened),
		text("Consequence.endpoints", "The first of them, ordered; more counts the others"),
		text("Consequence.by", "The first rules that open, with OPEN_TO_EVERYBODY; absent = nothing denies it any more"),
		text("Consequence.message", "All of it in a sentence"),
		text("EventPage.at", "Id of the newest event when the answer was made, chosen or not: following from there misses nothing"),
		text("EventPage.oldest", "Time of the oldest event still kept; the answer says nothing of the time before"),
		text("Workload.key", "What it is known by on its host: external_ids:iface-id, else BRIDGE/PORT; endpoint/NAME if remote"),
		text("Workload.host", "Id of the host; absent if remote"),
		text("Workload.remote", "It is on no managed bridge: an Endpoint resource describes it by its addresses"),
		text("Workload.mac", "Absent = not known, so that nothing can be addressed to it"),
		text("Workload.macs", "Further ones that its Endpoint resource declares"),
		text("Workload.vlan", "Access VLAN; absent = untagged or a trunk"),
		text("Workload.addresses", "Declared by its Endpoint resource"),
		text("Workload.learned", "Beside those, what it was seen to use"),
		words("LearnedAddress.source", "By what it was learned: ARP, neighbour discovery, or a DHCP server that gave it", "arp", "nd", "dhcp"),
		text("LearnedAddress.since", "When it was learned"),
		text("LearnedAddress.seen", "When the endpoint last spoke of it"),
		text("LearnedAddress.until", "When it is forgotten, unless the endpoint speaks of it before"),
		text("HostStatus.learned", "Of an Endpoint: addresses that its ports were seen to use"),
		text("Workload.endpoint", "Name of the Endpoint resource that matches it"),
		text("Workload.labels", "With where each comes from: ovsdb or endpoint/NAME"),
		text("FlowEntry.rule", "The rule or default that the flow was compiled from, POLICY/DIRECTION/RULE as in events"),
		text("FlowEntry.tableName", "Name of the table in the pipeline, as ovs-ofctl --names prints it on owned bridges"),
		text("FlowEntry.names", "What numbers in the flow stand for, where owner and rule do not say it"),
		text("FlowName.field", "Name of the field, as in docs/pipeline.md, such as source class or destination address"),
		text("FlowName.number", "As the field holds it; 16-31 = all of these"),
		text("FlowName.name", "The endpoints, addresses or ports: vm1, vm2 and 3 more; 10.0.0.0/8 and 12 more (group lbs); tcp 80, 8000-8099"),
		text("HostBridge.dropped", "Packets that the pipeline dropped, by reason, as in tapwall_dropped_packets_total; absent = none"),
		text("BridgeHealth.dropped", "Packets that the pipeline dropped, by reason; absent = none"),
		text("Finding.code", "Code of a warning about wording, such as SHADOWED or WIDER; or UNUSED: nothing has met the rule"),
		text("Finding.rule", "DIRECTION/NAME"),
		text("Finding.by", "The other rule"),
		text("Finding.lastHit", "Of UNUSED: when a packet met it last; absent = never since countedSince"),
		text("EventNotice.by", "Who asked for it: the user of the process on the unix socket, or the holder of the token"),
		text("EventNotice.from", "From where"),
		text("Connection.vlan", "0 = untagged; absent = of a forwarding endpoint, which has zones of its own for all VLANs"),
		text("Connection.state", "Of TCP and SCTP, as the datapath has it, in the original direction"),
		text("Connection.ours", "tapwall committed it; otherwise its numbers mean nothing"),
		text("Connection.logged", "A record of it was sent"),
		text("Connection.pickedUp", "tapwall came into the middle of it"),
		text("Connection.timeout", "Seconds until it is forgotten if it stays silent"),
		text("Connection.packets", "Both directions, where the datapath counts"),
		text("Connection.notKilled", "In the answer to a kill: why it lives on"),
		text("ConnectionEnd.inForce", "The connection may go on as this endpoint's; otherwise its next packet is judged anew"),
		text("ConnectionEnd.endpoint", "As events name it; absent = none, or its id stands for nothing any more"),
		text("ConnectionRule.rule", "POLICY/DIRECTION/RULE or a default, as in events; absent = the id stands for nothing any more"),
		text("ConnectionRule.inForce", "It still lets pass what it has allowed; otherwise the next packet is judged anew"),
		text("Class.number", "As flows match it in reg14"),
		text("Class.endpoints", "Names of the endpoints that are in it, as in events, sorted"),
		text("Class.chosenBy", "Groups and lists of selectors that policies name and that choose them"),
		text("Class.policies", "Those that apply to it"),
		text("Class.rules", "Those that apply to it (subject) or have it among their peers (peer)"),
		text("ClassRule.rule", "POLICY/DIRECTION/RULE as in events"),
		words("ClassRule.as", "subject: it is judged by the rule; peer: it is in its from or to", "subject", "peer"),
		words("FlowEntry.state", "missing = desired, not on the switch; foreign = not tapwall's", "installed", "missing", "foreign"),
	}...)
}

// exampleOf is a document to send.
func exampleOf(kind policy.Kind) map[string]any {
	spec := map[policy.Kind]any{
		policy.KindMirror: map[string]any{
			"sources": []any{map[string]any{"labels": map[string]any{"app": "web"}}},
			"targets": []any{map[string]any{"port": map[string]any{"name": "ids0", "create": true}}},
		},
		policy.KindPolicy: map[string]any{
			"appliesTo": []any{map[string]any{"labels": map[string]any{"app": "web"}}},
			"ingress": []any{map[string]any{"name": "from-lb", "action": "allow", "log": true, "from": []any{map[string]any{"group": "lbs"}},
				"services": []any{map[string]any{"protocol": "tcp", "ports": []any{"80", "8000-8099"}}}}},
		},
		policy.KindGroup: map[string]any{"members": []any{map[string]any{"labels": map[string]any{"role": "lb"}},
			map[string]any{"cidr": "10.0.5.0/24"}}},
		policy.KindEndpoint: map[string]any{"match": map[string]any{"port": "tap123"}, "labels": map[string]any{"app": "web"},
			"addresses": []any{"10.0.0.5", "2001:db8::5"}},
		policy.KindQuarantine: map[string]any{"match": map[string]any{"vm": "vm7"}, "until": "2026-01-02T17:04:05Z", "reason": "ticket 4711",
			"pass": []any{map[string]any{"cidr": "10.0.0.9/32", "services": []any{map[string]any{"protocol": "tcp", "ports": []any{"22"}}}}}},
	}[kind]
	return map[string]any{"kind": string(kind), "name": exampleName(kind), "spec": spec}
}

func exampleName(kind policy.Kind) string {
	switch kind {
	case policy.KindMirror:
		return "web-tap"
	case policy.KindGroup:
		return "lbs"
	case policy.KindEndpoint:
		return "vm1"
	case policy.KindQuarantine:
		return "vm7"
	}
	return "web"
}

// exampleDocument is the answer.
func exampleDocument(kind policy.Kind) map[string]any {
	doc := exampleOf(kind)
	doc["uid"], doc["revision"], doc["createdAt"] = "0f8fad5b-d9cb-469f-a165-70867728950e", 17, "2026-01-02T15:04:05Z"
	doc["status"] = map[string]any{"phase": "Active", "observedRevision": 17, "hosts": []any{map[string]any{
		"host": "a1b2c3", "bridges": []any{"br0"}, "phase": "Active", "observedRevision": 17}}}
	return doc
}

func patchExampleOf(kind policy.Kind) map[string]any {
	spec := map[policy.Kind]any{
		policy.KindMirror:   map[string]any{"enabled": false},
		policy.KindPolicy:   map[string]any{"priority": 50},
		policy.KindGroup:    map[string]any{"members": []any{map[string]any{"cidr": "10.0.6.0/24"}}},
		policy.KindEndpoint: map[string]any{"labels": map[string]any{"app": nil, "tier": "front"}},

		policy.KindQuarantine: map[string]any{"until": "2026-01-02T19:04:05Z"},
	}[kind]
	return map[string]any{"spec": spec}
}

// What the words are that programs may compare; a test of the whole tree holds the lists to the constants. More may come, so they are no
// enumerations.
const (
	reasons = "Why, in one word: " +
		"NotSeen, NotInstalled, UnknownKind, NoEndpoints, NoOwnedBridge, NotCompiled, Rejected, Disconnected, Silent, " +
		"Bypassed, RestoreWait, FlowsMissing, EndpointMACUnknown, NoPort, Elsewhere, NoDevice, MACContradiction, Disabled, Completed, " +
		"ListPending, ListMissing, ListStale, Expired, PortNotConfigured, Scheduled, " +
		"NotWritten, Pending, NotProgrammed, SourceMissing, SourceDown, TargetMissing, TargetDown, TargetOnOtherBridge, " +
		"SourceCarriesTarget, OutputShared, OutputPortTaken, TargetAmbiguous, MirrorLimit, Invalid, " +
		"CapturePoint, PatchPort, OwnAddress, MTUExceeded, TargetUnresolved, TunnelUnsupported, CaptureFailed, NoLocalDevices"
	warnings = "Sort of warning: " +
		"SHADOWED, WIDER, CONTRADICTS, ENDPOINT_CONFLICT, ENDPOINT_AMBIGUOUS, DUPLICATE_MAC, DUPLICATE_IFACE_ID, DUPLICATE_ADDRESS, " +
		"ONE_FAMILY, NEVER_MATCHES, BAD_MAC, MAC_CONTRADICTION, UNKNOWN_MAC, SPOOFED, SPOOF_WOULD_DROP, ADDRESS_REFUSED, AUDIT, NO_ENDPOINTS, " +
		"ENDPOINT_MAC_UNKNOWN, RULE_EMPTY, " +
		"WORLD_WITHOUT_PEERS, " +
		"GROUP_UNKNOWN, TOO_MANY_FORWARDERS, LIMIT_NEAR, FORWARDS, CHECKSUM_OFFLOAD, SYSTEM_ID, OVERLAY_REMOTE, DUPLICATES_POSSIBLE, " +
		"COPIES_MAY_BE_CUT, COPIES_MAY_GO_ON, VNI_SHARED, " +
		"SOURCE_MAY_CARRY_TARGET, TARGETS_NOT_PROBED, TARGET_EXCLUDED, TARGET_TWICE, " +
		"NO_SUCH_HOST, HOST_UNKNOWN, CLOCK_JUMPED, PASS_LIST_IGNORED, EXPIRED, NOT_ARMED, " +
		"CT_ZONE_NEAR_FULL, CT_ZONE_FULL, CT_ZONE_LIMIT"
)
