package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// Where both sides send from and to the same port (WireGuard, NTP, IKE), or without ports (tunnels such as GRE), each opens what the other
// takes for an answer: conntrack has one connection, and its initiator is who happened to send first. When policy takes his direction
// away, what the other sends is still a reply to conntrack, and would be cut with it for as long as both go on.
//
// So such a reply on a connection that is denied is judged once more, as its sender's own. Where a rule allows that, he becomes the
// initiator. A default does not suffice: it would give back at once, by any answer, what was revoked. Nor do other ports: there an answer
// on its way when a rule goes is just that, and made an initiator it would let the revoked requests pass as its replies.

// tunnels are the protocols without ports in which either side speaks first (IANA): IPv4 and IPv6 in IP, GRE, ESP, AH.
var tunnels = [...]uint64{4, 41, 47, 50, 51}

// samePort is a value of Forward: the packet is a reply on a denied connection, without ports or with the same on both sides.
const samePort = 2

// The ports of a UDP packet, between two judgements.
var scratchSource, scratchDestination = sub(flow.Reg15, 0, 16), sub(flow.Reg15, 16, 16)

func (p *program) samePort() {
	allowed := bothAllow(nil)
	own := Forward.Is(allowed, samePort)
	turn := []flow.Action{Turn.Load(1), table(TableVerdict)}
	p.system(TableSamePort, 110, EgressRule.IsMasked(own, 0, uint64(IDKindMask)), turn...)
	p.system(TableSamePort, 100, IngressRule.IsMasked(own, 0, uint64(IDKindMask)), turn...)
	p.system(TableSamePort, 80, allowed, table(TableVerdict))
	for bit := range uint16(16) { // they differ if any bit does
		for _, one := range []uint64{0, 1} {
			m := sub(flow.Reg15, scratchSource.Ofs+bit, 1)
			n := sub(flow.Reg15, scratchDestination.Ofs+bit, 1)
			p.system(TableSamePort, 70, Field{SubField: n}.Is(Field{SubField: m}.Is(nil, one), 1-one), table(TableVerdict))
		}
	}
	p.system(TableRecheck, 200, Forward.Is(nil, samePort), p.judge()...) // not as its sender's own: denied as any other reply
	p.system(TableWrongEnd, 120, Forward.Is(CtState(nil, flow.CtNew, flow.CtNew), samePort), append(p.evaluate(), table(TableSamePort))...)
	for _, ether := range []uint64{EthIPv4, EthIPv6} {
		reply := CtState(etherType(ether), flow.CtEst|flow.CtRpl, flow.CtEst|flow.CtRpl)
		of := func(proto uint64, ports ...flow.Action) {
			m := reply.With(flow.IPProto, flow.U64(proto))
			p.system(TableRecheck, 100, m, append(append(p.evaluate(), ports...), table(TableSamePort))...)
		}
		of(ProtoUDP, flow.Move{Src: flow.Whole(flow.UDPSrc), Dst: scratchSource},
			flow.Move{Src: flow.Whole(flow.UDPDst), Dst: scratchDestination})
		for _, proto := range tunnels {
			of(proto, flow.Load{Dst: flow.Whole(flow.Reg15)})
		}

		mark := []flow.Action{forget, Forward.Load(samePort)}
		p.system(TableSamePort, 90, Forward.Is(etherType(ether), samePort), append(mark, flow.CT{Table: TableState, ZoneSrc: CtZone.SubField})...)
		p.system(TableSamePort, 0, etherType(ether), append(append(mark, exchange()...), flow.CT{Table: TableWrongEnd, Zone: WrongEndZone})...)
	}
}
