package pipeline

import (
	"net/netip"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// The guard of SPOOF holds endpoints to the addresses that are declared as theirs. What a guarded endpoint sends meets the flow of its MAC
// address first; from there it goes round in SPOOF, with the next question in the field Guard, until the last is answered. Then the
// field is zero again. Which questions there are is said by fixed flows; what is the endpoint's own, by one flow for each of its
// addresses. What is refused meets the endpoint's flow that counts, and then that of the reason, which drops, or in a time of grace only
// tells.

// The questions.
const (
	guardKind    = 1 // what sort of packet is it, and does it speak of an address of its own?
	guardLink    = 2 // is the link-layer address inside of ARP or neighbour discovery its own?
	guardSource  = 3 // is the source of IP its own?
	guardCount   = 4 // refused, and not counted
	guardRefused = 5
)

// Priorities of the guard in SPOOF, above all others there. The same stands for the order within a question.
const (
	priorityGuardExempt uint16 = 330 // an endpoint that may what others may not
	priorityGuardFirst  uint16 = 320
	priorityGuardOwn    uint16 = 310
	priorityGuardLast   uint16 = 300
)

// Guarded is an endpoint as the guard knows it.
type Guarded struct {
	Endpoint uint32
	// MACs are its own; nil = any.
	MACs []uint64
	// Addresses are those that it may speak of as its own: in ARP, in neighbour discovery and as a source.
	Addresses []netip.Prefix
	// AnySource: it sends on packets of others.
	AnySource bool
	// DHCPServer and Router say that it may answer DHCP clients, and send router advertisements.
	DHCPServer, Router bool
}

// Guard turns the flows of an endpoint in SPOOF, which let what it sends go on, to the guard. tells: what is refused is told of and passes.
func Guard(flows []flow.Flow, endpoint uint32, tells bool) {
	begin := uint64(guardKind)
	if tells {
		begin |= 1 << (GuardTells.Ofs - GuardState.Ofs)
	}
	enter := []flow.Action{flow.Load{Dst: sub(GuardState.Field, GuardState.Ofs, GuardState.Bits+GuardTells.Bits), Value: begin},
		table(TableSpoof)}
	for i, f := range flows {
		t, ok := f.Match.Get(SourceEndpoint.Field)
		n := len(f.Actions) - 1
		if f.Table != TableSpoof || !ok || EndpointBase(uint32(t.Value.Lo)) != EndpointBase(endpoint) || n < 0 ||
			f.Actions[n] != goTo(TableDestination) {
			continue
		}
		flows[i].Actions = append(f.Actions[:n:n], enter...)
	}
}

// GuardFlows returns what the guard knows of an endpoint.
func GuardFlows(c flow.Cookie, g Guarded) []flow.Flow {
	var p program
	own := func(question uint64, m flow.Match, next uint64) {
		p.add(TableSpoof, priorityGuardOwn, c, asked(question, anyGeneration(SourceEndpoint, m, g.Endpoint)), ask(next)...)
	}
	exempt := func(m flow.Match) {
		p.add(TableSpoof, priorityGuardExempt, c, asked(guardKind, anyGeneration(SourceEndpoint, m, g.Endpoint)), ask(guardSource)...)
	}
	if g.DHCPServer {
		for _, m := range dhcpAnswers() {
			exempt(m)
		}
	}
	if g.Router {
		exempt(icmpv6(134))
	}
	for _, a := range g.Addresses {
		value, mask := flow.Prefix(a)
		narrow := func(m flow.Match, f flow.FieldID) flow.Match {
			if a.Bits() == 0 {
				return m
			}
			return m.WithMasked(f, value, mask)
		}
		if a.Addr().Is4() {
			own(guardKind, narrow(etherType(EthARP), flow.ARPSpa), guardLink)
		} else {
			own(guardKind, narrow(icmpv6(136), flow.NDTarget), guardLink)
			own(guardKind, narrow(icmpv6(135).With(flow.IPv6Src, flow.U128{}), flow.NDTarget), guardLink)
		}
		switch {
		case g.AnySource:
		case a.Addr().Is4():
			own(guardSource, narrow(etherType(EthIPv4), flow.IPSrc), 0)
		default:
			own(guardSource, narrow(etherType(EthIPv6), flow.IPv6Src), 0)
		}
	}
	if g.AnySource {
		own(guardSource, nil, 0)
	}
	for _, mac := range g.MACs {
		own(guardLink, etherType(EthARP).With(flow.ARPSha, flow.U64(mac)), 0)
		own(guardLink, icmpv6(135).With(flow.NDSll, flow.U64(mac)), guardSource)
		own(guardLink, icmpv6(136).With(flow.NDTll, flow.U64(mac)), guardSource)
	}
	if g.MACs == nil {
		own(guardLink, etherType(EthARP), 0)
		own(guardLink, etherType(EthIPv6), guardSource)
	}
	p.add(TableSpoof, priorityGuardLast, NewCookie(CookieGuard, EndpointBase(g.Endpoint)),
		asked(guardCount, anyGeneration(SourceEndpoint, nil, g.Endpoint)), ask(guardRefused)...)
	return p.flows
}

// asked narrows m to packets of which this is the question.
func asked(question uint64, m flow.Match) flow.Match { return GuardState.Is(m, question) }

// ask returns the actions that go on to a question; 0 = there is none left.
func ask(next uint64) []flow.Action {
	if next == 0 {
		return []flow.Action{guardAll.Load(0), goTo(TableDestination)}
	}
	return []flow.Action{GuardState.Load(next), table(TableSpoof)}
}

// guardAll is everything that the guard writes.
var guardAll = Field{SubField: sub(GuardState.Field, 0, 16)}

// GuardReasons are the reasons for which the guard refuses a packet.
func GuardReasons() []DropReason {
	return []DropReason{DropSpoofedAddress, DropSpoofedARP, DropSpoofedND, DropRogueDHCP, DropRogueRouter}
}

// dhcpAnswers are what DHCP clients take for answers: most look at the destination port alone.
func dhcpAnswers() []flow.Match {
	to := func(ether, port uint64) flow.Match { return ipProto(ether, ProtoUDP).With(flow.UDPDst, flow.U64(port)) }
	return []flow.Match{to(EthIPv4, 68), to(EthIPv6, 546)}
}

// guard holds what is the same for all guarded endpoints.
func (p *program) guard() {
	at := func(priority uint16, question uint64, m flow.Match, actions []flow.Action) {
		p.system(TableSpoof, priority, asked(question, m), actions...)
	}
	refuse := func(r DropReason) []flow.Action {
		return append([]flow.Action{GuardReason.Load(uint64(r))}, ask(guardCount)...)
	}
	first, last := priorityGuardFirst, priorityGuardLast
	none6 := func(m flow.Match) flow.Match { return m.With(flow.IPv6Src, flow.U128{}) }

	// Who has no address yet: RFC 2131 §4.1, RFC 3376 §4.2.13, RFC 5227 §2.1.1, RFC 4861 §4.1, RFC 3590 §4.
	none4 := ipProto(EthIPv4, ProtoIGMP).With(flow.IPSrc, flow.U64(0))
	at(first, guardKind, none4, ask(0))
	at(first, guardKind, udp(EthIPv4, 68, 67).With(flow.IPSrc, flow.U64(0)).With(flow.IPDst, flow.U64(0xffffffff)), ask(0))
	at(first, guardKind, etherType(EthARP).With(flow.ARPSpa, flow.U64(0)), ask(guardLink))
	// Linux takes ARP of the hardware type of IEEE 802 as well; Open vSwitch does not look into it, and has no operation either.
	at(first+1, guardKind, etherType(EthARP).With(flow.ARPOp, flow.U64(0)), refuse(DropSpoofedARP))
	for _, t := range []uint64{133, 131, 132, 143} {
		at(first, guardKind, none6(icmpv6(t)), ask(0))
	}
	for _, m := range dhcpAnswers() {
		at(first, guardKind, m, refuse(DropRogueDHCP))
	}
	at(first, guardKind, icmpv6(134), refuse(DropRogueRouter))

	// Here stand the endpoints' own: priorityGuardOwn.
	at(last+6, guardKind, none6(icmpv6(135)), refuse(DropSpoofedND))
	at(last+5, guardKind, icmpv6(135), ask(guardLink))
	at(last+4, guardKind, icmpv6(136), refuse(DropSpoofedND))
	at(last+3, guardKind, etherType(EthARP), refuse(DropSpoofedARP))
	at(last+2, guardKind, etherType(EthIPv4), ask(guardSource))
	at(last+2, guardKind, etherType(EthIPv6), ask(guardSource))
	at(last, guardKind, nil, ask(0))

	// The link-layer address may be left out. Open vSwitch has no target where it could not read the options.
	noSll, noTll := icmpv6(135).With(flow.NDSll, flow.U64(0)), icmpv6(136).With(flow.NDTll, flow.U64(0))
	at(first+2, guardLink, icmpv6(135).With(flow.NDTarget, flow.U128{}), refuse(DropSpoofedND))
	at(first+2, guardLink, icmpv6(136).With(flow.NDTarget, flow.U128{}), refuse(DropSpoofedND))
	at(first+1, guardLink, none6(noSll), ask(0))
	at(first, guardLink, noSll, ask(guardSource))
	at(first, guardLink, noTll, ask(guardSource))
	at(last+1, guardLink, etherType(EthARP), refuse(DropSpoofedARP))
	at(last, guardLink, nil, refuse(DropSpoofedND))

	at(last, guardSource, nil, refuse(DropSpoofedAddress))

	tell := tellRefused(CopyGuard)
	for _, r := range GuardReasons() {
		m := GuardReason.Is(asked(guardRefused, nil), uint64(r))
		p.add(TableSpoof, last, r.Cookie(), GuardTells.Is(m, 0), tell)
		p.system(TableSpoof, last, GuardTells.Is(m, 1), append([]flow.Action{tell}, ask(0)...)...)
	}
}
