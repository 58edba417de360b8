package pipeline

import (
	"net/netip"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// Values of Forward.
const (
	forwardDenied  = 0
	forwardDefault = 1
	knownReply     = 3
)

// pickup builds the pickup window: for a while, TCP packets that conntrack does not know and that are no SYN are taken for the middle of
// a connection that is older than conntrack's memory. The window is that of the whole bridge or of endpoints that have arrived. While none
// is open, PICKUP has no flows and nothing leads there.
//
// Who opened such a connection may be remembered (Remembered); it is then judged in that orientation alone. Otherwise the packet is
// judged both as its initiator's and as a reply. Where both are allowed, a rule counts more than a default and the packet as sent more than
// the reverse; no verdict of the policy is broken whatever the truth is. Where only one is, the truth decides whether the connection may
// live: a rule that allows one orientation is taken for it, a default is not.
//
// What is judged a reply passes uncommitted, and the initiator's own next packet commits. No connection is ever committed the wrong way
// round, so the window leaves nothing behind but ct_mark bits.
//
// To be judged as a reply, the packet becomes what its initiator would have sent: its addresses and ports and its ends change places, and
// conntrack sees it in WrongEndZone, which makes these the original tuple that all rules match. Then they change back.
func (p *program) pickup(o Options) {
	if o.Pickup || o.Arrivals {
		p.system(TablePickup, 0, nil, append(p.evaluate(), table(TablePickupForward))...)
	}
	within := func(m flow.Match) flow.Match {
		if o.Pickup {
			return m
		}
		return Arriving.Is(m, 1)
	}

	allowed := bothAllow(nil)
	byEgressRule := EgressRule.IsMasked(allowed, 0, uint64(IDKindMask))
	byIngressRule := IngressRule.IsMasked(allowed, 0, uint64(IDKindMask))
	p.system(TablePickupForward, 30, byEgressRule, PickedUp.Load(1), table(TableVerdict))
	p.system(TablePickupForward, 20, byIngressRule, PickedUp.Load(1), table(TableVerdict))

	exit := table(TableExit)
	// The reply of a connection that is remembered.
	p.system(TablePickupReversed, 90, Forward.Is(allowed, knownReply), exit)
	p.drop(TablePickupReversed, 80, DropNotTakenUp, Forward.Is(nil, knownReply))
	// By default at best as its initiator's, by a rule as a reply.
	p.system(TablePickupReversed, 60, byEgressRule, exit)
	p.system(TablePickupReversed, 50, byIngressRule, exit)
	// By default one way, and denied the other.
	p.drop(TablePickupReversed, 30, DropNotTakenUp, allowed)
	p.drop(TablePickupReversed, 20, DropNotTakenUp, Forward.Is(nil, forwardDefault))

	for _, ether := range []uint64{EthIPv4, EthIPv6} {
		tcp := ipProto(ether, ProtoTCP)
		p.system(TableState, 155, within(CtState(tcpWithoutSYN(ether), flow.CtNew, flow.CtNew)), goTo(TablePickup))
		p.system(TablePickupForward, 10, bothAllow(tcp), asReply(ether, forwardDefault)...)
		p.system(TablePickupForward, 0, tcp, asReply(ether, forwardDenied)...)
		p.system(TablePickupReply, 10, CtState(tcp, flow.CtNew, flow.CtNew),
			append(append(append(p.evaluate(), exchangeHeaders(ether)...), exchange()...), table(TablePickupReversed))...)

		// Conntrack sees the packet again as it is: by default both ways, or denied both ways and dropped as any other packet.
		again := []flow.Action{forget, PickedUp.Load(1), flow.CT{Table: TableState, ZoneSrc: CtZone.SubField}}
		p.system(TablePickupReversed, 40, Forward.Is(bothAllow(tcp), forwardDefault), again...)
		p.system(TablePickupReversed, 0, tcp, again...)

		// Conntrack knows the connection as that of a station that was no endpoint when it opened it, and now is one. What it is sent
		// passes as a reply, uncommitted; its own packets, but for a RST, put its id into the label.
		stranger := LabelInitiator.Is(tcp, uint64(IDNoEndpoint))
		p.system(TableLiveEgress, 295, within(Stray.Is(stranger, 1)),
			append(append(append([]flow.Action{Forward.Load(knownReply)}, p.evaluate()...), exchange()...), table(TablePickupReversed))...)
		p.system(TableBoundInitiator, 95, within(CtState(stranger, flow.CtEst, flow.CtEst|flow.CtRpl)), PickedUp.Load(1), recheck)

		// A RST answers something that may have been forged.
		p.system(TableCommit, 130, PickedUp.Is(tcp.WithMasked(flow.TCPFlags, flow.U64(tcpRST), flow.U64(tcpRST)), 1), exit)
	}
	p.system(TableState, 160, PickedUp.Is(CtState(nil, flow.CtNew, flow.CtNew), 1), p.judge()...)
	p.drop(TablePickupReply, 0, DropInvalid, nil)
}

// forget takes back what EGRESS and INGRESS wrote.
var forget = flow.Load{Dst: flow.SubField{Field: flow.Reg13, Bits: 32}}

// asReply judges a TCP packet as a reply; forward is what it is as its initiator's.
func asReply(ether, forward uint64) []flow.Action {
	out := append([]flow.Action{forget, Forward.Load(forward)}, exchangeHeaders(ether)...)
	return append(append(out, exchange()...), flow.CT{Table: TablePickupReply, Zone: WrongEndZone})
}

// exchangeHeaders makes the addresses and ports of a TCP packet change places. Checksums stay right: they are sums.
func exchangeHeaders(ether uint64) []flow.Action {
	src, dst := flow.Whole(flow.IPSrc), flow.Whole(flow.IPDst)
	if ether == EthIPv6 {
		src, dst = flow.Whole(flow.IPv6Src), flow.Whole(flow.IPv6Dst)
	}
	return append(swap(src, dst), swap(flow.Whole(flow.TCPSrc), flow.Whole(flow.TCPDst))...)
}

// Arrive has flows of SOURCE and DESTINATION say that the endpoint that they recognise has a pickup window.
func Arrive(flows []flow.Flow) {
	for i, f := range flows {
		if (f.Table == TableSource || f.Table == TableDestination) && len(f.Actions) > 0 {
			flows[i].Actions = append([]flow.Action{Arriving.Load(1)}, f.Actions...)
		}
	}
}

// Connection is a TCP connection in its own direction, with the zones that packets of either direction are looked up in first when
// conntrack knows nothing of it, and the endpoint ids of its ends, 0 = none.
type Connection struct {
	Zone, ReplyZone      uint16
	Src, Dst             netip.AddrPort // of one family
	Initiator, Responder uint32
}

// Remembered returns the flows that take up a connection whose initiator is known. o are those of the fixed flows.
func Remembered(o Options, c Connection) []flow.Flow {
	p := program{opt: o}
	cookie := SystemCookie(TablePickup, ItemRemembered)
	ether, srcField, dstField := uint64(EthIPv4), flow.IPSrc, flow.IPDst
	if c.Src.Addr().Is6() {
		ether, srcField, dstField = EthIPv6, flow.IPv6Src, flow.IPv6Dst
	}
	match := func(zone uint16, src, dst netip.AddrPort, from, to uint32) flow.Match {
		a, _ := flow.Prefix(netip.PrefixFrom(src.Addr(), src.Addr().BitLen()))
		b, _ := flow.Prefix(netip.PrefixFrom(dst.Addr(), dst.Addr().BitLen()))
		m := ipProto(ether, ProtoTCP).With(srcField, a).With(dstField, b).
			With(flow.TCPSrc, flow.U64(uint64(src.Port()))).With(flow.TCPDst, flow.U64(uint64(dst.Port())))
		return anyGeneration(DestinationEndpoint, anyGeneration(SourceEndpoint, CtZone.Is(m, uint64(zone)), from), to)
	}
	return []flow.Flow{
		{Table: TablePickup, Priority: 100, Cookie: cookie, Match: match(c.Zone, c.Src, c.Dst, c.Initiator, c.Responder),
			Actions: append([]flow.Action{PickedUp.Load(1)}, p.judge()...)},
		{Table: TablePickup, Priority: 100, Cookie: cookie, Match: match(c.ReplyZone, c.Dst, c.Src, c.Responder, c.Initiator),
			Actions: asReply(ether, knownReply)},
	}
}
