package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// An established connection belongs to its two ends. COMMIT writes both into ct_label; STATE exchanges reg8 and reg9 of what conntrack
// takes for a reply, so that everywhere behind it reg8 is the initiator and reg9 the responder; BOUND_INITIATOR and BOUND_RESPONDER let
// pass what is between the connection's own ends.
//
// The port that a packet came in by proves its sender and nothing else. So a packet in the connection's own direction may always be
// judged anew (RECHECK): its sender speaks for itself. A reply may be judged as one only where the connection was opened by its
// receiver; otherwise somebody else may have opened it in the receiver's name, and the receiver's egress must not be asked. Such a packet
// is judged as what it is, a packet that its sender sends unasked: see WRONG_END.

// WrongEndZone is a conntrack zone in which nothing is ever committed: in it every packet is the first of a connection of its sender's.
// It is clear of the zones of bridges and of those that ForwarderZones has.
const WrongEndZone uint16 = 0xF000

// exchange makes the ends of a connection and their classes change places. Address numbers stay: they come from the original tuple.
func exchange() []flow.Action {
	return append(swap(SourceEndpoint.SubField, DestinationEndpoint.SubField), swap(SourceClass.SubField, DestinationClass.SubField)...)
}

func swap(a, b flow.SubField) []flow.Action {
	return []flow.Action{flow.Push{Src: a}, flow.Push{Src: b}, flow.Pop{Dst: a}, flow.Pop{Dst: b}}
}

// initiator and responder narrow m to packets whose end is the endpoint here, and the endpoint stamped in ct_label; 0 here = none.
func initiator(m flow.Match, here, stamped uint32) flow.Match {
	return LabelInitiator.Is(SourceEndpoint.Is(m, uint64(here)), uint64(stamped))
}

func responder(m flow.Match, here, stamped uint32) flow.Match {
	return LabelResponder.Is(DestinationEndpoint.Is(m, uint64(here)), uint64(stamped))
}

// relatedError matches ICMP errors about a connection, towards its initiator (reply) or its responder.
func relatedError(m flow.Match, reply bool) flow.Match {
	var rpl uint64
	if reply {
		rpl = flow.CtRpl
	}
	return CtState(m, flow.CtRel|rpl, flow.CtRel|flow.CtNew|flow.CtEst|flow.CtRpl)
}

// Bind returns the flows that let the connections of an endpoint pass as its own. Where its MAC address is not known, what is sent to it
// can be told from what is sent to nobody by its connections only. A forwarding endpoint, a router, also sends ICMP errors about
// connections of others. A station that is no endpoint and forwards what the endpoint sent does not become who opened the connection.
func Bind(c flow.Cookie, who Identity, macKnown, forwards bool) []flow.Flow {
	endpoint := who.Endpoint
	out := []flow.Flow{
		{Table: TableBoundInitiator, Priority: priorityBase, Cookie: c,
			Match:   anyGeneration(LabelInitiator, anyGeneration(SourceEndpoint, nil, endpoint), endpoint),
			Actions: []flow.Action{sameEndpoint}},
		{Table: TableBoundResponder, Priority: priorityBase, Cookie: c,
			Match:   anyGeneration(LabelResponder, anyGeneration(DestinationEndpoint, nil, endpoint), endpoint),
			Actions: []flow.Action{sameEndpoint}},
		{Table: TableCommit, Priority: 110, Cookie: c, Match: anyGeneration(LabelInitiator, SourceEndpoint.Is(nil, 0), endpoint),
			Actions: []flow.Action{flow.Move{Src: LabelInitiator.SubField, Dst: SourceEndpoint.SubField}, table(TableCommit)}},
	}
	if EndpointBase(endpoint) != endpoint {
		out = append(out, bindEarlier(c, endpoint, endpoint))
	}
	if !macKnown {
		out = append(out,
			flow.Flow{Table: TableBoundInitiator, Priority: PriorityGate, Cookie: c, Match: CtState(initiator(nil, 0, endpoint), flow.CtRpl,
				flow.CtRpl),
				Actions: append(who.AsSource(), goTo(TableBoundResponder))},
			flow.Flow{Table: TableBoundResponder, Priority: PriorityGate, Cookie: c, Match: CtState(responder(nil, 0, endpoint), 0, flow.CtRpl),
				Actions: append(who.AsDestination(), table(TableLiveEgress))})
		if EndpointBase(endpoint) != endpoint {
			out = append(out,
				flow.Flow{Table: TableBoundInitiator, Priority: PriorityRetired, Cookie: c,
					Match:   CtState(anyGeneration(LabelInitiator, SourceEndpoint.Is(nil, 0), endpoint), flow.CtRpl, flow.CtRpl),
					Actions: append(who.AsSource(), recheck)},
				flow.Flow{Table: TableBoundResponder, Priority: PriorityRetired, Cookie: c,
					Match:   CtState(anyGeneration(LabelResponder, DestinationEndpoint.Is(nil, 0), endpoint), 0, flow.CtRpl),
					Actions: append(who.AsDestination(), recheck)})
		}
	}
	if forwards {
		out = append(out, bindRouter(c, endpoint)...)
	}
	return out
}

// An endpoint's own connections are those under the id that it has now: the conjunction of flows that know the endpoint under whatever
// generation of its id, and of sixteen for all endpoints that compare generations. So another generation changes none of them.
var sameEndpoint, sameGeneration = flow.Conjunction{ID: conjBound, Clause: 1, N: 2}, flow.Conjunction{ID: conjBound, Clause: 2, N: 2}

const (
	conjBound    = 1
	priorityBase = PriorityGate - 1 // beneath what matches whole ids
)

// generations holds the part of the conjunctions that is the same for all endpoints.
func (p *program) generations() {
	const mask = EndpointGenerations - 1
	for _, t := range []struct {
		table        uint8
		here, stamps Field
		next         flow.Action
	}{{TableBoundInitiator, SourceEndpoint, LabelInitiator, goTo(TableBoundResponder)},
		{TableBoundResponder, DestinationEndpoint, LabelResponder, table(TableLiveEgress)}} {
		for g := range uint64(EndpointGenerations) {
			p.system(t.table, priorityBase, t.stamps.IsMasked(t.here.IsMasked(nil, g, mask), g, mask), sameGeneration)
		}
		p.system(t.table, priorityBase, flow.Match{}.With(flow.ConjID, flow.U64(conjBound)), t.next)
	}
}

// bindNobody lets the connections of stations that are no endpoints pass.
func bindNobody() []flow.Flow {
	return []flow.Flow{
		{Table: TableBoundInitiator, Priority: PriorityGate, Cookie: SystemCookie(TableBoundInitiator, ItemNone),
			Match: initiator(nil, 0, IDNoEndpoint), Actions: []flow.Action{goTo(TableBoundResponder)}},
		{Table: TableBoundResponder, Priority: PriorityGate, Cookie: SystemCookie(TableBoundResponder, ItemNone),
			Match: responder(nil, 0, IDNoEndpoint), Actions: []flow.Action{table(TableLiveEgress)}},
	}
}

// bindRouter passes ICMP errors that a router on either side sends about a connection: it is not the end whose place it takes.
func bindRouter(c flow.Cookie, here uint32) []flow.Flow {
	return []flow.Flow{
		{Table: TableBoundInitiator, Priority: PriorityRetired - 10, Cookie: c, Match: relatedError(SourceEndpoint.Is(nil, uint64(here)), false),
			Actions: []flow.Action{goTo(TableBoundResponder)}},
		{Table: TableBoundResponder, Priority: PriorityRetired - 10, Cookie: c, Match: relatedError(DestinationEndpoint.Is(nil, uint64(here)),
			true),
			Actions: []flow.Action{table(TableLiveEgress)}},
	}
}

// BindRetired returns the flows by which connections that an endpoint opened under an id that it no longer has are judged anew, also by
// replies; now is its id. Its earlier generations need none: Bind has them.
func BindRetired(c flow.Cookie, old, now uint32) []flow.Flow {
	return append(Reclassify(c, old), bindEarlier(c, EndpointBase(old), now))
}

// bindEarlier has connections judged anew that the endpoint opened under any generation of the id old.
func bindEarlier(c flow.Cookie, old, now uint32) flow.Flow {
	m := anyGeneration(SourceEndpoint, nil, now)
	return flow.Flow{Table: TableBoundInitiator, Priority: PriorityRetired, Cookie: c, Match: anyGeneration(LabelInitiator, m, old),
		Actions: []flow.Action{recheck}}
}

// Reclassify returns the flows for packets that were on their way through conntrack, by a cached decision, when the id of an endpoint
// changed: they come out of it with the old id and class, and begin again.
func Reclassify(c flow.Cookie, old uint32) []flow.Flow {
	return []flow.Flow{
		{Table: TableState, Priority: 300, Cookie: c, Match: SourceEndpoint.Is(nil, uint64(old)), Actions: again()},
		{Table: TableState, Priority: 290, Cookie: c, Match: DestinationEndpoint.Is(nil, uint64(old)), Actions: again()},
	}
}

// ReclassifyMoved is Reclassify for an endpoint that was in another class, whose number may stand for others now, and kept its id.
func ReclassifyMoved(c flow.Cookie, was Identity) []flow.Flow {
	return []flow.Flow{
		{Table: TableState, Priority: 280, Cookie: c, Match: SourceClass.Is(SourceEndpoint.Is(nil, uint64(was.Endpoint)), uint64(was.Class)),
			Actions: again()},
		{Table: TableState, Priority: 270, Cookie: c,
			Match:   DestinationClass.Is(DestinationEndpoint.Is(nil, uint64(was.Endpoint)), uint64(was.Class)),
			Actions: again()},
	}
}

func again() []flow.Action {
	return []flow.Action{SourceEndpoint.Load(0), DestinationEndpoint.Load(0), SourceClass.Load(0), DestinationClass.Load(0),
		flow.CTClear{}, table(TableSource)}
}

// recheck is a resubmit, because goto_table cannot go back.
var recheck = table(TableRecheck)

// Stamps returns a flow that is on a switch whose connections bear their ends in ct_label, and UnstampedFlow the one that is there as
// long as some may not.
func Stamps() flow.Flow { return bindNobody()[0] }

// UnstampedFlow: see Stamps.
func UnstampedFlow() flow.Flow {
	return flow.Flow{Table: TableBoundInitiator, Priority: PriorityRetired, Cookie: SystemCookie(TableBoundInitiator, ItemNone),
		Match: LabelResponder.Is(LabelInitiator.Is(nil, 0), 0), Actions: []flow.Action{recheck}}
}

func (p *program) bound(o Options) {
	p.flows = append(p.flows, bindNobody()...)
	p.generations()
	for _, f := range bindRouter(0, 0) {
		f.Cookie = SystemCookie(f.Table, ItemNone)
		p.flows = append(p.flows, f)
	}
	if o.Unstamped {
		p.flows = append(p.flows, UnstampedFlow())
	}
	// An error message about a connection is passed or dropped with it; it has no tuple that could be judged.
	for _, t := range []uint8{TableBoundInitiator, TableBoundResponder} {
		p.drop(t, 70, DropWrongEnd, CtState(nil, flow.CtRel, flow.CtRel|flow.CtEst|flow.CtNew))
		p.system(t, 0, nil, recheck)
	}
	// Without an endpoint, a receiver has no policy that could be asked in its name; what it is sent is judged by the sender's.
	p.system(TableBoundInitiator, 65, CtState(SourceEndpoint.Is(nil, 0), flow.CtRpl, flow.CtRpl), recheck)
	p.system(TableBoundInitiator, 60, CtState(nil, flow.CtRpl, flow.CtRpl), Stray.Load(1), goTo(TableBoundResponder))
}

// wrongEnd judges a packet that is no reply of its receiver's connection as its sender's own, in a zone where it is the first of a
// connection; that is how its own direction becomes the original tuple that policy is judged by. If both ends allow it, the connection is
// committed in its direction and the one that stood in its place, in somebody else's name, is no more.
//
// The connection's own responder may be answering, though, to one who is no longer there. Such an answer must not open a connection the
// other way round: what both ends allow passes, packet by packet, and is not committed. Of TCP, only a SYN is none.
func (p *program) wrongEnd() {
	// If the sender is who opened the connection, he answers what somebody else asked for: an endpoint that forwards and does not say so.
	tell := flow.Controller{MaxLen: MACBytes, ID: ControllerID, Reason: reasonAction, UserData: CopyStray.UserData(), MeterID: MeterStray}
	again := append(exchange(), flow.CT{Table: TableWrongEnd, Zone: WrongEndZone})
	own := append([]flow.Action{Stray.Load(0)}, again...)
	p.drop(TableWrongEnd, 300, DropWrongEnd, CtState(nil, flow.CtInv, flow.CtInv))
	for _, ether := range []uint64{EthIPv4, EthIPv6} {
		p.system(TableBoundResponder, 50, Stray.Is(etherType(ether), 1), append([]flow.Action{tell}, own...)...)
		tcp := ipProto(ether, ProtoTCP)
		syn := tcp.WithMasked(flow.TCPFlags, flow.U64(tcpSYN), flow.U64(tcpSYN|tcpACK))
		p.system(TableLiveEgress, 300, Stray.Is(syn, 1), own...)
		p.drop(TableLiveEgress, 290, DropWrongEnd, Stray.Is(tcp, 1))
		p.system(TableLiveEgress, 280, Stray.Is(etherType(ether), 1), again...)
		// Userspace conntrack takes a SYN against the direction of a half-open connection for a new one, without saying so (+new-rpl).
		again, half := flow.CT{Table: TableWrongEnd, Zone: WrongEndZone}, MarkOurs.Is(CtState(syn, flow.CtNew, flow.CtNew), 1)
		p.system(TableState, 121, MarkLogged.Is(half, 1), Recorded.Load(1), again)
		p.system(TableState, 120, half, again)
		p.system(TableWrongEnd, 200, CtState(syn, flow.CtNew, flow.CtNew), p.turn()...)
		p.drop(TableWrongEnd, 190, DropWrongEnd, tcp) // the middle of somebody else's connection
	}
	p.system(TableWrongEnd, 110, Stray.Is(CtState(nil, flow.CtNew, flow.CtNew), 1), p.judge()...)
	p.system(TableWrongEnd, 100, CtState(nil, flow.CtNew, flow.CtNew), p.turn()...)
	p.drop(TableWrongEnd, 0, DropWrongEnd, nil)
}

func (p *program) turn() []flow.Action { return append([]flow.Action{Turn.Load(1)}, p.judge()...) }
