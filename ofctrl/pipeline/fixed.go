package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// Options choose among the variants of the fixed flows.
type Options struct {
	// BridgeIndex is 0..MaxBridges-1.
	BridgeIndex int
	// Pickup opens the pickup window for the whole bridge, and Arrivals for the endpoints whose SOURCE and DESTINATION flows set Arriving.
	Pickup, Arrivals bool
	// GuardGroupFrames drops IP packets to one receiver in frames to many (broadcast or multicast dl_dst), by which a sender could
	// reach a receiver without being judged as its peer. The price is directed broadcast (10.0.0.255 and the like). It is on
	// while any rule or any isolation of ingress is in force.
	GuardGroupFrames bool
	// TrackUnmanaged sends traffic between two stations that are not endpoints through conntrack too. It is needed while the MAC
	// address of an endpoint is unknown: replies to it are then indistinguishable from such traffic, and conntrack must see both
	// directions of a connection or declares it invalid.
	TrackUnmanaged bool
	// Unstamped has connections judged anew whose ct_label was written by a version that did not write the ends, also by replies. It is on
	// for a while after an upgrade.
	Unstamped bool
	// Passes: there are rules that lead to the next tier. AuditPolicies: there are policies in mode audit. AuditEndpoints: there are endpoints
	// in mode audit. Only then a packet's way has what these need.
	Passes, AuditPolicies, AuditEndpoints bool
	// Guards: there are endpoints that are held to their addresses.
	Guards bool
	// Learning: addresses are learned from what machines say of them.
	Learning bool
	// DNS copies questions and answers of endpoints to the controller.
	DNS bool
	// Records: connections of endpoints are recorded where no rule says otherwise.
	Records bool
	// Messages: there are rules that want to know what is said first on connections.
	Messages bool
	// Samples: there are rules that sample connections.
	Samples bool
	// Forwarders adds the tables that what forwarding endpoints send and get goes through.
	Forwarders bool
}

// Fixed returns the flows that depend on no policy and no endpoint, ordered by table and falling priority. All bear the kinds
// CookieSystem, CookieDrop or CookieDefault.
func Fixed(o Options) []flow.Flow {
	p := program{opt: o}
	p.entry()
	p.destination(o)
	p.pre(o)
	p.link(o)
	p.state()
	p.numbers()
	p.defaults()
	p.bound(o)
	p.gates()
	p.verdict()
	p.recheck()
	p.wrongEnd()
	p.samePort()
	if o.Forwarders {
		p.legs()
	}
	p.leave(0, nil)
	p.commit()
	p.pickup(o)
	p.messages()
	p.firstData()
	p.sample()
	p.probe()
	return p.flows
}

// program collects flows.
type program struct {
	opt   Options
	flows []flow.Flow
}

func (p *program) add(table uint8, priority uint16, c flow.Cookie, m flow.Match, actions ...flow.Action) {
	p.flows = append(p.flows, flow.Flow{Table: table, Priority: priority, Cookie: c, Match: m, Actions: actions})
}

// system adds a flow whose counter has no meaning of its own.
func (p *program) system(table uint8, priority uint16, m flow.Match, actions ...flow.Action) {
	p.add(table, priority, SystemCookie(table, ItemNone), m, actions...)
}

// drop adds a flow without actions.
func (p *program) drop(table uint8, priority uint16, r DropReason, m flow.Match) {
	p.add(table, priority, r.Cookie(), m)
}

func table(t uint8) flow.Action { return flow.Resubmit{Port: flow.PortInPort, Table: t} }
func goTo(t uint8) flow.Action  { return flow.GotoTable{Table: t} }

func (p *program) entry() {
	p.system(TableEntry, 1, nil, table(TableSource))
	p.drop(TableSource, 0, DropUnknownPort, nil)
	p.spoof()
}

func (p *program) destination(o Options) {
	if o.GuardGroupFrames {
		pass := goTo(TablePre)
		ip, ip6 := group(EthIPv4), group(EthIPv6)
		p.system(TableDestination, 200, ip.WithMasked(flow.IPDst, flow.U64(0xe0000000), flow.U64(0xf0000000)), pass)
		p.system(TableDestination, 200, ip.With(flow.IPDst, flow.U64(0xffffffff)), pass)
		p.system(TableDestination, 200, ip6.WithMasked(flow.IPv6Dst, flow.U128{Hi: 0xff << 56}, flow.U128{Hi: 0xff << 56}), pass)
		p.drop(TableDestination, 190, DropGroupUnicast, ip)
		p.drop(TableDestination, 190, DropGroupUnicast, ip6)
		for _, tpid := range stackedTags {
			p.drop(TableDestination, 190, DropStackedTags, group(tpid))
		}
	}
	p.system(TableDestination, 0, nil, goTo(TablePre))
}

// pre holds what goes on without conntrack. Each item has its own counter.
func (p *program) pre(o Options) {
	exit := goTo(TableExit)
	item := func(priority uint16, i Item, m flow.Match) {
		p.add(TablePre, priority, SystemCookie(TablePre, i), m, exit)
	}
	// A packet may arrive with the tracking state of another switch or of the host; conntrack would not look at it again.
	p.system(TablePre, 600, CtState(nil, 0, 0), flow.CTClear{}, table(TablePre))
	p.learnable(TablePre, 500, ItemARP, etherType(EthARP), exit)
	link := func(priority uint16, m flow.Match) { p.system(TablePre, priority, m, goTo(TableLink)) }
	for t := uint64(133); t <= 136; t++ {
		link(500, icmpv6(t))
	}
	for _, t := range mldTypes {
		link(500, icmpv6(t))
	}
	link(500, ipProto(EthIPv4, ProtoIGMP))
	for _, m := range []flow.Match{udp(EthIPv4, 68, 67), udp(EthIPv4, 67, 68), udp(EthIPv6, 546, 547), udp(EthIPv6, 547, 546)} {
		link(400, m)
	}
	// OVS looks behind one VLAN tag. What stands behind a second one cannot be judged, while Linux strips any number of tags of VLAN 0
	// and takes the packet inside.
	for _, tpid := range stackedTags {
		p.drop(TablePre, 200, DropStackedTags, etherType(tpid))
	}
	p.track(TablePre, o)
	item(0, ItemNonIP, nil)
}

// priorityUnmanaged is that of what passes without conntrack because no side is an endpoint.
const priorityUnmanaged uint16 = 300

// track sends what no flow above has taken through conntrack if one side is an endpoint.
func (p *program) track(t uint8, o Options) {
	if !o.TrackUnmanaged {
		p.add(t, priorityUnmanaged, SystemCookie(t, ItemUnmanaged), DestinationEndpoint.Is(SourceEndpoint.Is(nil, 0), 0), table(TableExit))
	}
	ct := flow.CT{Table: TableState, ZoneSrc: CtZone.SubField}
	p.system(t, 100, etherType(EthIPv4), ct)
	p.system(t, 100, etherType(EthIPv6), ct)
}

func (p *program) state() {
	p.outOfState()
	// From here on reg8 is the initiator's endpoint and reg9 the responder's, as the original tuple has it, whoever sent the packet.
	bound := goTo(TableBoundInitiator)
	p.system(TableState, 195, CtState(nil, flow.CtEst|flow.CtRpl, flow.CtEst|flow.CtRpl), append(exchange(), bound)...)
	p.system(TableState, 195, CtState(nil, flow.CtRel|flow.CtRpl, flow.CtRel|flow.CtRpl|flow.CtNew|flow.CtEst), append(exchange(), bound)...)
	p.system(TableState, 190, CtState(nil, flow.CtEst, flow.CtEst), bound)
	p.system(TableState, 190, CtState(nil, flow.CtRel, flow.CtRel|flow.CtNew|flow.CtEst), bound)
	p.system(TableState, 100, CtState(nil, flow.CtNew, flow.CtNew), p.judge()...)
	p.drop(TableState, 0, DropUntracked, nil)
}

// evaluate numbers what the rules match and asks both policies for their verdict.
func (p *program) evaluate() []flow.Action {
	out := []flow.Action{table(TableAddressSource)}
	if p.audits() {
		out = append(out, EgressAudit.Load(0), IngressAudit.Load(0))
	}
	for _, t := range []uint8{TableEgress, TableIngress} {
		if p.opt.Passes {
			out = append(out, Passed.Load(0))
		}
		if p.opt.AuditPolicies {
			out = append(out, Audited.Load(0))
		}
		out = append(out, table(t))
		if p.opt.AuditEndpoints {
			out = append(out, Audit.Load(1), table(t))
		}
	}
	return out
}

// numbers holds what has no number. That is written, too: a packet may be judged twice.
func (p *program) numbers() {
	p.system(TableAddressSource, 0, nil, SourceAddress.Load(0), goTo(TableAddressDestination))
	p.system(TableAddressDestination, 0, nil, DestinationAddress.Load(0), goTo(TableService))
	p.system(TableService, 0, nil, Service.Load(0))
}

// judge evaluates both policies and acts on the verdict.
func (p *program) judge() []flow.Action { return append(p.evaluate(), table(TableVerdict)) }

// defaults allow the side that has no endpoint.
func (p *program) defaults() {
	none := NewCookie(CookieDefault, IDNoEndpoint)
	nobody := func(f Field) flow.Match { return f.IsMasked(nil, 0, uint64(ClassNobody)) }
	p.add(TableEgress, PriorityDefault, none, nobody(SourceClass), Decide(false, VerdictAllow, IDNoEndpoint, Unsaid)...)
	p.add(TableIngress, PriorityDefault, none, nobody(DestinationClass), Decide(true, VerdictAllow, IDNoEndpoint, Unsaid)...)
	p.auditEnds()
}

// Wish is what a leaf of EGRESS or INGRESS wants of the record.
type Wish uint8

// The wishes. Quiet is for leaves that allow.
const (
	Unsaid Wish = iota
	Log
	Quiet
)

// Decide returns the actions of a leaf of EGRESS or INGRESS: verdict, deciding id and what it wants of the record.
func Decide(ingress bool, v Verdict, id uint32, w Wish) []flow.Action {
	verdict, rule, logBit := EgressVerdict, EgressRule, EgressLog
	if ingress {
		verdict, rule, logBit = IngressVerdict, IngressRule, IngressLog
	}
	actions := []flow.Action{verdict.Load(uint64(v)), rule.Load(uint64(id))}
	switch w {
	case Log:
		actions = append(actions, logBit.Load(1))
	case Quiet:
		actions = append(actions, NoRecord.Load(1))
	}
	return actions
}

// Gate returns the flow that passes established connections which id allowed; ingress chooses the side.
func Gate(ingress bool, c flow.Cookie, id uint32) flow.Flow {
	f := flow.Flow{Table: TableLiveEgress, Priority: PriorityGate, Cookie: c}
	label, next := LabelEgress, TableLiveIngress
	if ingress {
		f.Table, label, next = TableLiveIngress, LabelIngress, TableExit
	}
	f.Match = label.Is(nil, uint64(id))
	f.Actions = []flow.Action{goTo(next)}
	return f
}

// gates are those of sides without an endpoint. They stay open only while there is none: a station without an endpoint may have forwarded
// what an endpoint sent, and its verdict is not that of the endpoint.
func (p *program) gates() {
	for _, ingress := range []bool{false, true} {
		side := SourceEndpoint
		if ingress {
			side = DestinationEndpoint
		}
		f := Gate(ingress, NewCookie(CookieDefault, IDNoEndpoint), IDNoEndpoint)
		f.Match = side.Is(f.Match, 0)
		p.flows = append(p.flows, f)
		p.system(f.Table, 0, nil, goTo(TableRecheck))
	}
}

func (p *program) verdict() {
	send := func(r CopyReason) flow.Action {
		meter := MeterDeny
		if r == CopyAllow {
			meter = MeterLog
		}
		return flow.Controller{MaxLen: LogBytes, ID: ControllerID, Reason: reasonAction, UserData: r.UserData(), MeterID: meter}
	}
	p.auditVerdict(send)
	p.reject(send)
	denied := EgressVerdict.Is(nil, uint64(VerdictDrop))
	p.add(TableVerdict, 400, DropEgress.Cookie(), EgressLog.Is(denied, 1), send(CopyEgressDrop))
	p.drop(TableVerdict, 390, DropEgress, denied)
	denied = IngressVerdict.Is(nil, uint64(VerdictDrop))
	p.add(TableVerdict, 380, DropIngress.Cookie(), IngressLog.Is(denied, 1), send(CopyIngressDrop))
	p.drop(TableVerdict, 370, DropIngress, denied)

	// One record per connection: a one-way UDP stream stays +new for ever, and a re-check is not a new connection.
	allowed := bothAllow(nil)
	// What passes packet by packet, uncommitted, is no connection.
	unlogged := Stray.Is(Recorded.Is(MarkLogged.Is(allowed, 0), 0), 0)
	record := []flow.Action{send(CopyAllow), Recorded.Load(1), table(TableCommit)}
	p.system(TableVerdict, 320, EgressLog.Is(unlogged, 1), record...)
	p.system(TableVerdict, 310, IngressLog.Is(unlogged, 1), record...)
	if p.opt.Samples {
		p.system(TableVerdict, 309, Sampled.Is(unlogged, 1), record...)
	}
	if p.opt.Records {
		stranger := uint64(IDNoEndpoint)
		p.system(TableVerdict, 308, EgressRule.Is(IngressRule.Is(allowed, stranger), stranger), table(TableCommit))
		p.system(TableVerdict, 304, NoRecord.Is(unlogged, 0), record...)
	}
	p.system(TableVerdict, 300, allowed, table(TableCommit))
	p.drop(TableVerdict, 0, DropUndecided, nil)
}

// reasonAction is OFPR_ACTION (OpenFlow 1.3.5 §7.4.1).
const reasonAction = 1

func bothAllow(m flow.Match) flow.Match {
	return IngressVerdict.Is(EgressVerdict.Is(m, uint64(VerdictAllow)), uint64(VerdictAllow))
}

func (p *program) recheck() {
	// An error message about a connection whose rule is gone has no tuple to judge; it waits for the connection itself.
	p.drop(TableRecheck, 300, DropStaleRelated, CtState(nil, flow.CtRel, flow.CtRel|flow.CtEst))
	p.system(TableRecheck, 0, nil, p.judge()...)
}

// commit has its flows twice, because OVS accepts ct(commit) only where the match says IPv4 or IPv6 (OFPBAC_MATCH_INCONSISTENT).
func (p *program) commit() {
	// That a side has no endpoint is written down too, as a value that a label without ends does not have.
	p.system(TableCommit, 100, SourceEndpoint.Is(nil, 0), SourceEndpoint.Load(uint64(IDNoEndpoint)), table(TableCommit))
	p.system(TableCommit, 90, DestinationEndpoint.Is(nil, 0), DestinationEndpoint.Load(uint64(IDNoEndpoint)), table(TableCommit))
	p.system(TableCommit, 140, Stray.Is(nil, 1), table(TableExit))
	type variant struct {
		priority               uint16
		logged, pickedUp, turn bool
		await                  awaits
	}
	variants := []variant{{60, true, false, true, nothing}, {50, false, false, true, nothing}, {40, true, true, false, nothing},
		{30, true, false, false, nothing}, {20, false, true, false, nothing}, {10, false, false, false, nothing}}
	if p.opt.Messages {
		variants = append(variants, variant{66, true, false, true, first}, variant{56, false, false, true, first},
			variant{36, true, false, false, first}, variant{33, true, false, false, more},
			variant{16, false, false, false, first}, variant{13, false, false, false, more})
	}
	for _, v := range variants {
		var m flow.Match
		exec := []flow.Action{
			flow.Move{Src: IngressRule.SubField, Dst: LabelIngress.SubField},
			flow.Move{Src: EgressRule.SubField, Dst: LabelEgress.SubField},
			flow.Move{Src: SourceEndpoint.SubField, Dst: LabelInitiator.SubField},
			flow.Move{Src: DestinationEndpoint.SubField, Dst: LabelResponder.SubField},
			MarkOurs.Load(1),
			flow.Move{Src: Sampled.SubField, Dst: MarkSampled.SubField},
		}
		if p.audits() {
			exec = append(exec, flow.Move{Src: Audit.SubField, Dst: MarkAudit.SubField})
		}
		if v.logged {
			m = Recorded.Is(m, 1)
			exec = append(exec, MarkLogged.Load(1))
		}
		if v.pickedUp {
			m = PickedUp.Is(m, 1)
			exec = append(exec, MarkPickedUp.Load(1))
		}
		if v.turn {
			m = Turn.Is(m, 1)
		}
		m, exec = v.await.add(m, exec)
		ct := flow.CT{Commit: true, Force: v.turn, Table: flow.NoTable, ZoneSrc: CtZone.SubField, Exec: exec}
		for _, ether := range []uint64{EthIPv4, EthIPv6} {
			p.system(TableCommit, v.priority, m.With(flow.EthType, flow.U64(ether)), ct, table(TableExit))
		}
	}
}
