package pipeline

import "github.com/tapwall/tapwall/ofctrl/flow"

// A forwarding endpoint (a router with one leg, a bridge) carries a packet over the bridge twice with one tuple. In one conntrack zone both
// crossings would be one connection, and each would overwrite the other's ends and rules. So what such an endpoint sends and gets has
// zones of its own, one for each leg of a connection's way: In for connections that others open to or through it, Out for those that it
// opens or forwards. Each crossing is then a connection with two ends like any other.
//
// A packet to the endpoint may be a reply on its Out leg, and one from it a reply on its In leg: LEG looks there first. If it is none, the
// packet is on its way in its own direction, to In or from Out.

// MaxForwarders is how many forwarding endpoints a bridge can have: each takes two zones.
const MaxForwarders = 250

// ForwarderZones returns the zones of the forwarding endpoint with index n, 0 ≤ n < MaxForwarders, of the bridge with index k,
// 0 ≤ k < MaxBridges: two of 0xF010…0xFFAF, which is clear of the zones of Zone, of Neutron and of Antrea. An endpoint on a trunk has the
// same two for all of its VLANs.
func ForwarderZones(k, n int) (in, out uint16) {
	in = 0xF010 + uint16(k*2*MaxForwarders+2*n)
	return in, in + 1
}

// OppositeZone returns the zone in which a packet of the other direction of a connection in the zone is looked up when nothing is known of
// it, and whether the zone is one of the bridge with index k.
func OppositeZone(k int, zone uint16) (uint16, bool) {
	first, _ := ForwarderZones(k, 0)
	if base := ZoneBase(k); zone >= base && zone-base <= 0xfff {
		return zone, true
	}
	if zone < first || zone-first >= 2*MaxForwarders {
		return 0, false
	}
	return first + (zone - first) ^ 1, true
}

// Legs returns the flows that take what a forwarding endpoint sends and gets through its zones.
func Legs(c flow.Cookie, endpoint uint32, in, out uint16) []flow.Flow {
	var flows []flow.Flow
	for _, ether := range []uint64{EthIPv4, EthIPv6} {
		m := etherType(ether)
		toLeg := goTo(TableLeg)
		for _, from := range []uint8{TablePre, TableLink} { // where track hands packets to conntrack
			flows = append(flows,
				flow.Flow{Table: from, Priority: PriorityForwarder, Cookie: c, Match: anyGeneration(SourceEndpoint, m, endpoint),
					Actions: []flow.Action{CtZone.Load(uint64(out)), ReplyZone.Load(uint64(in)), toLeg}},
				flow.Flow{Table: from, Priority: PriorityForwarder - 1, Cookie: c, Match: anyGeneration(DestinationEndpoint, m, endpoint),
					Actions: []flow.Action{CtZone.Load(uint64(in)), toLeg}})
		}
		flows = append(flows,
			// Between two of them the sender's Out is the packet's own zone, and a reply is one on the receiver's Out.
			flow.Flow{Table: TableLeg, Priority: PriorityForwarder, Cookie: c, Match: anyGeneration(DestinationEndpoint, m, endpoint),
				Actions: []flow.Action{ReplyZone.Load(uint64(out)), lookForReply}})
	}
	return flows
}

var lookForReply = flow.CT{Table: TableLegReply, ZoneSrc: ReplyZone.SubField}

func (p *program) legs() {
	for _, ether := range []uint64{EthIPv4, EthIPv6} {
		m := etherType(ether)
		p.system(TableLeg, 0, m, lookForReply)
		p.system(TableLegReply, 100, CtState(m, flow.CtRpl, flow.CtRpl|flow.CtInv),
			flow.Move{Src: ReplyZone.SubField, Dst: CtZone.SubField}, ReplyZone.Load(0), table(TableState))
		p.system(TableLegReply, 0, m, ReplyZone.Load(0), flow.CT{Table: TableState, ZoneSrc: CtZone.SubField})
	}
}
