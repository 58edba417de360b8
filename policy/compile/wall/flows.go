package wall

import (
	"net/netip"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// localPort is LOCAL as OVSDB numbers it (OpenFlow 1.0); OpenFlow 1.1 and later have another number.
const localPort = 65534

// appendSource adds the flows that classify what a port sends.
func appendSource(out []flow.Flow, bridge int, cookie flow.Cookie, endpoint uint32, p Port) []flow.Flow {
	if p.OFPort == 0 {
		return out
	}
	port := p.OFPort
	if port == localPort {
		port = flow.PortLocal
	}
	add := func(c flow.Cookie, m flow.Match, actions ...flow.Action) {
		out = append(out, flow.Flow{Table: pipeline.TableSource, Priority: pipeline.PriorityPort, Cookie: c, Match: m, Actions: actions})
	}
	var who []flow.Action
	if endpoint != 0 {
		who = append(who, pipeline.SourceEndpoint.Load(uint64(endpoint)))
	}
	next := flow.GotoTable{Table: pipeline.TableSpoof}
	zone := uint64(pipeline.ZoneBase(bridge)) + uint64(p.VLAN)
	add(cookie, pipeline.Untagged(port), append(who[:len(who):len(who)], pipeline.CtZone.Load(zone), next)...)
	if !p.Tagged || p.VLAN != 0 { // a tag of VLAN 0 names none: NORMAL takes the frame for an untagged one, on access ports too
		add(cookie, pipeline.PriorityTagged(port), append(who[:len(who):len(who)], pipeline.CtZone.Load(zone), next)...)
		out[len(out)-1].Priority++
	}
	if p.Tagged {
		add(cookie, pipeline.Tagged(port), append(append(who[:len(who):len(who)], pipeline.LoadTag(bridge)...), next)...)
	} else {
		add(pipeline.DropTaggedAccess.Cookie(), pipeline.Tagged(port))
	}
	return out
}

// destination returns the flow that recognises frames to an endpoint, in its VLAN or (0) in any.
func destination(bridge int, cookie flow.Cookie, endpoint uint32, mac uint64, vlan int) flow.Flow {
	m, priority := flow.Match{}.With(flow.EthDst, flow.U64(mac)), pipeline.PriorityTrunkMAC
	if vlan != 0 {
		m, priority = m.With(flow.Reg10, flow.U64(uint64(pipeline.ZoneBase(bridge))+uint64(vlan))), pipeline.PriorityAccessMAC
	}
	return flow.Flow{
		Table: pipeline.TableDestination, Priority: priority, Cookie: cookie, Match: m,
		Actions: []flow.Action{pipeline.DestinationEndpoint.Load(uint64(endpoint)), flow.GotoTable{Table: pipeline.TablePre}},
	}
}

// dimensions builds the matches of the rules of one side.
type dimensions int

func (d dimensions) table() uint8 {
	if d == egress {
		return pipeline.TableEgress
	}
	return pipeline.TableIngress
}

func exact(f flow.FieldID, v uint64, bits int) flow.Term {
	return flow.Term{Field: f, Value: flow.U64(v), Mask: flow.Ones(bits)}
}

// subject matches the endpoint that is judged.
func (d dimensions) subject(id uint32) flow.Match {
	if d == egress {
		return flow.Match{exact(flow.Reg8, uint64(id), 32)}
	}
	return flow.Match{exact(flow.Reg9, uint64(id), 32)}
}

// peer matches the other side's endpoint.
func (d dimensions) peer(id uint32) flow.Match {
	return (egress + ingress - d).subject(id)
}

// tracked makes the fields of conntrack's original tuple available (ovs-fields(7)).
var tracked = flow.Term{Field: flow.CtState, Value: flow.U64(flow.CtTrk), Mask: flow.U64(flow.CtTrk | flow.CtInv)}

func ether(f families) flow.Term {
	if f == ipv4 {
		return exact(flow.EthType, pipeline.EthIPv4, 16)
	}
	return exact(flow.EthType, pipeline.EthIPv6, 16)
}

// address matches the other side's address in the original tuple.
func (d dimensions) address(p netip.Prefix) flow.Match {
	fam, src, dst := familyOf(p), flow.CtNwSrc, flow.CtNwDst
	if fam == ipv6 {
		src, dst = flow.CtIPv6Src, flow.CtIPv6Dst
	}
	if p.Bits() == 0 {
		return flow.Match{tracked, ether(fam)}
	}
	field := src
	if d == egress {
		field = dst
	}
	value, mask := flow.Prefix(p)
	return flow.Match{tracked, {Field: field, Value: value, Mask: mask}, ether(fam)}
}

// services appends the matches of one protocol in one family.
func (d dimensions) services(out []flow.Match, fam families, s policy.ProtoPorts) []flow.Match {
	proto := exact(flow.CtNwProto, uint64(s.Proto), 8)
	if s.Ports == nil {
		return append(out, flow.Match{tracked, proto, ether(fam)})
	}
	for _, r := range s.Ports {
		for _, m := range flow.PortMasks(r.Lo, r.Hi) {
			out = append(out, flow.Match{tracked, proto, {Field: flow.CtTpDst, Value: flow.U64(uint64(m.Value)),
				Mask: flow.U64(uint64(m.Mask))}, ether(fam)})
		}
	}
	return out
}

// clauses returns the matches of each dimension that restricts anything: subjects always, then peers, then services. IP versions that
// not every dimension can match are left out.
func (d dimensions) clauses(s *space) [][]flow.Match {
	fams := s.families()
	subjects := make([]flow.Match, 0, len(s.subjects))
	for _, id := range s.subjects {
		subjects = append(subjects, d.subject(id))
	}
	out := append(make([][]flow.Match, 0, 3), subjects)
	if !s.peers.any {
		peers := make([]flow.Match, 0, len(s.peers.endpoints)+len(s.peers.prefixes))
		for _, id := range s.peers.endpoints {
			peers = append(peers, d.peer(id))
		}
		for _, p := range s.peers.prefixes {
			if fams&familyOf(p) != 0 {
				peers = append(peers, d.address(p))
			}
		}
		out = append(out, peers)
	}
	if !s.services.Any {
		var services []flow.Match
		for _, v := range s.services.Protos {
			for _, fam := range []families{ipv4, ipv6} {
				if fams&familiesOf(v)&fam != 0 {
					services = d.services(services, fam, v)
				}
			}
		}
		out = append(out, services)
	}
	return out
}

// maxProduct is up to how many flows a rule is multiplied out, even where clauses of a conjunction were fewer.
const maxProduct = 16

// multiply returns the matches of a rule without a conjunction: one for each combination of a match of each clause that a packet can
// meet. It returns false where that takes more flows than both the conjunction and maxProduct. Without conjunctions a packet is looked up
// once, and no rule adds to the lists of flows with equal matches (all rules of an endpoint have its clause) that Open vSwitch walks
// whenever one is installed.
func multiply(clauses [][]flow.Match) ([]flow.Match, bool) {
	product, most := 1, 1
	for _, c := range clauses {
		most += len(c)
	}
	most = max(most, maxProduct)
	for _, c := range clauses {
		if product *= len(c); len(clauses) > 1 && product > most {
			return nil, false
		}
	}
	out := clauses[0]
	for _, c := range clauses[1:] {
		var next []flow.Match
		for _, a := range out {
			for _, b := range c {
				if m, ok := both(a, b); ok {
					next = append(next, m)
				}
			}
		}
		out = next
	}
	return out, true
}

// both matches what a and b match; false = nothing. Terms of one field are the same or exclude each other.
func both(a, b flow.Match) (flow.Match, bool) {
	out := make(flow.Match, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch x, y := a[0], b[0]; {
		case x.Field < y.Field:
			out, a = append(out, x), a[1:]
		case x.Field > y.Field:
			out, b = append(out, y), b[1:]
		case x != y:
			return nil, false
		default:
			out, a, b = append(out, x), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...), true
}

// ruleFlows returns all flows of a rule that has an id: in the policy table and, if it allows, its gate. conj_id is the rule's id
// (conjunction ids are per table).
func ruleFlows(r *rule) []flow.Flow {
	decide := pipeline.Decide(r.side == ingress, verdict(r.rank.Effect), r.id, r.log)
	d, cookie := dimensions(r.side), pipeline.NewCookie(pipeline.CookieRule, r.id)
	var out []flow.Flow
	add := func(m flow.Match, actions []flow.Action) {
		out = append(out, flow.Flow{Table: d.table(), Priority: r.priority, Cookie: cookie, Match: m, Actions: actions})
	}
	clauses := d.clauses(&r.space)
	if matches, ok := multiply(clauses); ok {
		for _, m := range matches {
			add(m, decide)
		}
	} else {
		for i, matches := range clauses {
			clause := []flow.Action{flow.Conjunction{ID: r.id, Clause: uint8(i + 1), N: uint8(len(clauses))}}
			for _, m := range matches {
				add(m, clause)
			}
		}
		add(flow.Match{exact(flow.ConjID, uint64(r.id), 32)}, decide)
	}
	if r.passes() {
		out = append(out, pipeline.Gate(r.side == ingress, cookie, r.id))
	}
	return out
}
