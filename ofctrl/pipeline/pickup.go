package pipeline

import (
	"net/netip"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// Values of Forward.
const (
	forwardDenied  = 0
	forwardDefault = 1
	forwardRule    = 2
	knownReply     = 3
)

// pickup builds the tables of the pickup window: for a while, TCP packets that conntrack does not know and that are no SYN are taken
// for the middle of a connection that is older than conntrack's memory.
//
// Who opened such a connection may be remembered (Remembered); it is then judged in that orientation alone. Otherwise the packet is
// judged both as its initiator's and as a reply. Where both are allowed, a rule counts more than a default and the packet as sent more than
// the reverse; no verdict of the policy is broken whatever the truth is. Where only one is, the truth decides whether the connection may
// live: a rule that allows one orientation is taken for it, a default is not.
//
// What is judged a reply passes uncommitted, and the initiator's own next packet commits. No connection is ever committed the wrong way
// round, so the window leaves nothing behind but ct_mark bits.
func (p *program) pickup() {
	p.system(TablePickup, 0, nil, table(TableEgress), table(TableIngress), table(TablePickupForward))

	allowed := bothAllow()
	byEgressRule := EgressRule.IsMasked(allowed, 0, uint64(IDKindMask))
	byIngressRule := IngressRule.IsMasked(allowed, 0, uint64(IDKindMask))
	p.system(TablePickupForward, 30, byEgressRule, reversed(forwardRule)...)
	p.system(TablePickupForward, 20, byIngressRule, reversed(forwardRule)...)
	p.system(TablePickupForward, 10, allowed, reversed(forwardDefault)...)
	p.system(TablePickupForward, 0, nil, reversed(forwardDenied)...)

	exit := table(TableExit)
	// A RST answers something that may have been forged.
	for _, ether := range []uint64{EthIPv4, EthIPv6} {
		p.system(TableCommit, 130, PickedUp.Is(ipProto(ether, ProtoTCP).WithMasked(flow.TCPFlags, flow.U64(tcpRST), flow.U64(tcpRST)), 1), exit)
	}
	verdict := func(priority uint16, m flow.Match, forward uint64, actions ...flow.Action) {
		p.system(TablePickupReversed, priority, Forward.Is(m, forward), actions...)
	}
	// The reply of a connection that is remembered.
	verdict(90, allowed, knownReply, exit)
	p.drop(TablePickupReversed, 80, DropNotTakenUp, Forward.Is(nil, knownReply))
	// Both orientations are allowed.
	verdict(70, allowed, forwardRule, asInitiator(true)...)
	verdict(60, byEgressRule, forwardDefault, exit)
	verdict(50, byIngressRule, forwardDefault, exit)
	verdict(40, allowed, forwardDefault, asInitiator(true)...)
	// One is denied.
	p.system(TablePickupReversed, 36, byEgressRule, exit)
	p.system(TablePickupReversed, 34, byIngressRule, exit)
	p.drop(TablePickupReversed, 30, DropNotTakenUp, allowed)
	verdict(20, nil, forwardRule, asInitiator(true)...)
	p.drop(TablePickupReversed, 10, DropNotTakenUp, Forward.Is(nil, forwardDefault))
	p.system(TablePickupReversed, 0, nil, asInitiator(false)...) // both are: dropped as any other packet
}

// forget takes back what EGRESS and INGRESS wrote.
var forget = flow.Load{Dst: flow.SubField{Field: flow.Reg13, Bits: 32}}

// reversed judges the packet as a reply; forward is what it is as its initiator's.
func reversed(forward uint64) []flow.Action {
	return []flow.Action{forget, Forward.Load(forward), table(TableEgressReversed), table(TableIngressReversed), table(TablePickupReversed)}
}

// asInitiator judges the packet as its initiator's, to be committed if it is allowed.
func asInitiator(take bool) []flow.Action {
	out := []flow.Action{forget}
	if take {
		out = append(out, PickedUp.Load(1))
	}
	return append(out, judge()...)
}

// Connection is a TCP connection in its own direction, with the zones that packets of either direction are looked up in first when
// conntrack knows nothing of it, and the endpoint ids of its ends, 0 = none.
type Connection struct {
	Zone, ReplyZone      uint16
	Src, Dst             netip.AddrPort // of one family
	Initiator, Responder uint32
}

// Remembered returns the flows that take up a connection whose initiator is known.
func Remembered(c Connection) []flow.Flow {
	cookie := SystemCookie(TablePickup, ItemRemembered)
	match := func(zone uint16, src, dst netip.AddrPort, from, to uint32) flow.Match {
		ether, srcField, dstField := uint64(EthIPv4), flow.IPSrc, flow.IPDst
		if src.Addr().Is6() {
			ether, srcField, dstField = EthIPv6, flow.IPv6Src, flow.IPv6Dst
		}
		a, _ := flow.Prefix(netip.PrefixFrom(src.Addr(), src.Addr().BitLen()))
		b, _ := flow.Prefix(netip.PrefixFrom(dst.Addr(), dst.Addr().BitLen()))
		m := ipProto(ether, ProtoTCP).With(srcField, a).With(dstField, b).
			With(flow.TCPSrc, flow.U64(uint64(src.Port()))).With(flow.TCPDst, flow.U64(uint64(dst.Port())))
		return DestinationEndpoint.Is(SourceEndpoint.Is(CtZone.Is(m, uint64(zone)), uint64(from)), uint64(to))
	}
	return []flow.Flow{
		{Table: TablePickup, Priority: 100, Cookie: cookie, Match: match(c.Zone, c.Src, c.Dst, c.Initiator, c.Responder),
			Actions: asInitiator(true)},
		{Table: TablePickup, Priority: 100, Cookie: cookie, Match: match(c.ReplyZone, c.Dst, c.Src, c.Responder, c.Initiator),
			Actions: reversed(knownReply)},
	}
}
