package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// link holds what machines need of each other before policy has a say, each no wider than its standard makes it: neighbour discovery, group
// membership and DHCP. What is not exactly that is judged like all other IP.
//
// It is a table of its own because a TTL that were matched in PRE would split the cached decisions of all traffic by TTL: the classifier
// looks at every field of the tables that a packet passes.
func (p *program) link(o Options) {
	item := func(i Item, m flow.Match) { p.add(TableLink, 500, SystemCookie(TableLink, i), m, table(TableExit)) }
	nd := func(t uint64) flow.Match { // RFC 4861 §4, §6.1, §7.1: from this link, so no router has forwarded it
		return icmpv6(t).With(flow.ICMPv6Code, flow.U64(0)).With(flow.IPTTL, flow.U64(255))
	}
	item(ItemND, nd(133).With(flow.IPv6Dst, allRouters))
	item(ItemND, nd(134).WithMasked(flow.IPv6Src, linkLocal, linkLocalMask))
	for _, t := range []uint64{135, 136} {
		p.learnable(TableLink, 500, ItemND, nd(t), table(TableExit))
	}
	for _, t := range mldTypes {
		item(ItemMLD, framed(icmpv6(t).With(flow.IPTTL, flow.U64(1))).WithMasked(flow.IPv6Dst, multicast6, multicast6))
	}
	item(ItemIGMP, framed(ipProto(EthIPv4, ProtoIGMP).With(flow.IPTTL, flow.U64(1))).WithMasked(flow.IPDst, flow.U64(0xe0000000),
		flow.U64(0xf0000000)))

	// A client that has no address yet asks everybody (RFC 2131 §4.1, RFC 8415 §7.1). What it sends to one machine is judged.
	item(ItemDHCP, udp(EthIPv4, 68, 67).With(flow.EthDst, flow.U64(broadcast)).With(flow.IPSrc, flow.U64(0)).With(flow.IPDst,
		flow.U64(0xffffffff)))
	item(ItemDHCP, framed(udp(EthIPv6, 546, 547)).WithMasked(flow.IPv6Src, linkLocal, linkLocalMask).With(flow.IPv6Dst, allDHCPServers))
	p.flows = append(p.flows, DHCPServer(0, o.Learning)...)
	p.track(TableLink, o)
}

// DHCPServer returns the flows that let an endpoint answer DHCP clients, by broadcast or unicast; endpoint 0 stands for the stations
// that are none. learning: addresses are learned from what it answers, by DHCP of IPv4.
func DHCPServer(endpoint uint32, learning bool) []flow.Flow {
	p := program{opt: Options{Learning: learning}}
	answers := func(m flow.Match, actions ...flow.Action) {
		p.add(TableLink, 500, SystemCookie(TableLink, ItemDHCP), anyGeneration(SourceEndpoint, m, endpoint), actions...)
	}
	answers(udp(EthIPv4, 67, 68), p.learning(table(TableExit))...)
	answers(udp(EthIPv6, 547, 546).WithMasked(flow.IPv6Src, linkLocal, linkLocalMask).WithMasked(flow.IPv6Dst, linkLocal, linkLocalMask),
		table(TableExit))
	return p.flows
}

const broadcast = 1<<48 - 1

var (
	linkLocal      = flow.U128{Hi: 0xfe80 << 48} // fe80::/10
	linkLocalMask  = flow.U128{Hi: 0xffc0 << 48}
	multicast6     = flow.U128{Hi: 0xff << 56}          // ff00::/8, its own mask
	allRouters     = flow.U128{Hi: 0xff02 << 48, Lo: 2} // ff02::2
	allDHCPServers = flow.U128{Hi: 0xff02 << 48, Lo: 0x10002}
)

// mldTypes are query, report and done of RFC 2710 and the report of RFC 3810.
var mldTypes = [...]uint64{130, 131, 132, 143}

// framed narrows m to frames to many: what is for a group is not for one machine.
func framed(m flow.Match) flow.Match {
	return m.WithMasked(flow.EthDst, flow.U64(groupBit), flow.U64(groupBit))
}
