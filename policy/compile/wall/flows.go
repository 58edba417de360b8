package wall

import (
	"net/netip"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// localPort is LOCAL as OVSDB numbers it (OpenFlow 1.0); OpenFlow 1.1 and later have another number.
const localPort = 65534

// appendSource adds the flows that classify what a port sends; who is nobody where the port is not an endpoint's.
func appendSource(out []flow.Flow, bridge int, cookie flow.Cookie, who pipeline.Identity, p Port) []flow.Flow {
	if p.OFPort == 0 {
		return out
	}
	port := p.OFPort
	if port == localPort {
		port = flow.PortLocal
	}
	add := func(c flow.Cookie, priority uint16, m flow.Match, actions ...flow.Action) {
		out = append(out, flow.Flow{Table: pipeline.TableSource, Priority: priority, Cookie: c, Match: m, Actions: actions})
	}
	var as []flow.Action
	if who != (pipeline.Identity{}) {
		as = who.AsSource()
	}
	next := flow.GotoTable{Table: pipeline.TableSpoof}
	zone := pipeline.CtZone.Load(uint64(pipeline.ZoneBase(bridge)) + uint64(p.VLAN))
	untagged := append(slices.Clip(as), zone, next)
	if !p.Tagged || p.VLAN != 0 { // a tag of VLAN 0 names none: NORMAL takes the frame for an untagged one, on access ports too
		add(cookie, pipeline.PriorityPort+1, pipeline.NoVLAN(port), untagged...)
	} else {
		add(cookie, pipeline.PriorityPort, pipeline.Untagged(port), untagged...)
	}
	if p.Tagged {
		add(cookie, pipeline.PriorityPort, pipeline.Tagged(port), append(append(slices.Clip(as), pipeline.LoadTag(bridge)...), next)...)
	} else {
		add(pipeline.DropTaggedAccess.Cookie(), pipeline.PriorityPort, pipeline.Tagged(port))
	}
	return out
}

// destination returns the flow that recognises frames to an endpoint, in its VLAN or (0) in any.
func destination(bridge int, cookie flow.Cookie, who pipeline.Identity, mac uint64, vlan int) flow.Flow {
	m, priority := flow.Match{}.With(flow.EthDst, flow.U64(mac)), pipeline.PriorityTrunkMAC
	if vlan != 0 {
		m, priority = m.With(flow.Reg10, flow.U64(uint64(pipeline.ZoneBase(bridge))+uint64(vlan))), pipeline.PriorityAccessMAC
	}
	return flow.Flow{
		Table: pipeline.TableDestination, Priority: priority, Cookie: cookie, Match: m,
		Actions: append(who.AsDestination(), flow.GotoTable{Table: pipeline.TablePre}),
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

// subject is where the class of the endpoint that is judged stands, peer where that of the other side does.
func (d dimensions) subject() pipeline.Field {
	if d == egress {
		return pipeline.SourceClass
	}
	return pipeline.DestinationClass
}

func (d dimensions) peer() pipeline.Field { return (egress + ingress - d).subject() }

func exact(f flow.FieldID, v uint64, bits int) flow.Term {
	return flow.Term{Field: f, Value: flow.U64(v), Mask: flow.Ones(bits)}
}

// tracked makes the fields of conntrack's original tuple available (ovs-fields(7)).
var tracked = flow.Term{Field: flow.CtState, Value: flow.U64(flow.CtTrk), Mask: flow.U64(flow.CtTrk | flow.CtInv)}

func ether(f families) flow.Term {
	if f == ipv4 {
		return exact(flow.EthType, pipeline.EthIPv4, 16)
	}
	return exact(flow.EthType, pipeline.EthIPv6, 16)
}

// prefixMatch matches an address in the original tuple.
func prefixMatch(p netip.Prefix, source bool) flow.Match {
	fam := familyOf(p)
	if p.Bits() == 0 {
		return flow.Match{tracked, ether(fam)}
	}
	var field flow.FieldID
	switch {
	case source && fam == ipv4:
		field = flow.CtNwSrc
	case source:
		field = flow.CtIPv6Src
	case fam == ipv4:
		field = flow.CtNwDst
	default:
		field = flow.CtIPv6Dst
	}
	value, mask := flow.Prefix(p)
	return flow.Match{tracked, {Field: field, Value: value, Mask: mask}, ether(fam)}
}

// serviceMatches appends the matches of one protocol in one family that Wide returned.
func serviceMatches(out []flow.Match, fam families, s policy.ProtoPorts) []flow.Match {
	proto := exact(flow.CtNwProto, uint64(s.Proto), 8)
	if s.Ports == nil {
		return append(out, flow.Match{tracked, proto, ether(fam)})
	}
	for _, m := range portMasks(s.Ports) {
		out = append(out, flow.Match{tracked, proto, {Field: flow.CtTpDst, Value: flow.U64(uint64(m.Value)), Mask: flow.U64(uint64(m.Mask))},
			ether(fam)})
	}
	return out
}

// narrowMatches appends the matches of the rest of one protocol in one family. OVS has the type and code of the message that began the
// connection in ct_tp_src and ct_tp_dst.
func narrowMatches(out []flow.Match, fam families, s policy.ProtoPorts) []flow.Match {
	if s.Proto == policy.ProtoSCTP {
		if s.Ports != nil {
			out = sctpMatches(out, fam, everyPort, portMasks(s.Ports))
		}
		for _, x := range s.Pairs {
			out = sctpMatches(out, fam, portMasks(x.Src), portMasks(x.Dst))
		}
		return out
	}
	base := flow.Match{tracked, exact(flow.CtNwProto, uint64(s.Proto), 8), ether(fam)}
	for _, x := range s.Pairs {
		for _, src := range portMasks(x.Src) {
			for _, dst := range portMasks(x.Dst) {
				out = append(out, withPort(withPort(base, flow.CtTpSrc, src), flow.CtTpDst, dst))
			}
		}
	}
	return out
}

// everyPort is all ports as one mask.
var everyPort = []flow.PortMask{{}}

func withPort(m flow.Match, f flow.FieldID, p flow.PortMask) flow.Match {
	if p.Mask == 0 {
		return m
	}
	return m.WithMasked(f, flow.U64(uint64(p.Value)), flow.U64(uint64(p.Mask)))
}

// sctpMatches appends the matches of pairs of SCTP ports. OVS's userspace conntrack knows SCTP by addresses only and has no ports in the
// original tuple. So the packet's own are matched, the other way round in replies; see pipeline.JudgeSCTP.
func sctpMatches(out []flow.Match, fam families, src, dst []flow.PortMask) []flow.Match {
	for _, way := range []struct {
		rpl      uint64
		src, dst flow.FieldID
	}{{0, flow.SCTPSrc, flow.SCTPDst}, {flow.CtRpl, flow.SCTPDst, flow.SCTPSrc}} {
		state := flow.Term{Field: flow.CtState, Value: flow.U64(flow.CtTrk | way.rpl), Mask: flow.U64(flow.CtTrk | flow.CtInv | flow.CtRpl)}
		base := flow.Match{state, ether(fam)}.With(flow.IPProto, flow.U64(uint64(policy.ProtoSCTP)))
		for _, a := range src {
			for _, b := range dst {
				out = append(out, withPort(withPort(base, way.src, a), way.dst, b))
			}
		}
	}
	return out
}

// clauses returns the matches of each dimension that restricts anything: subjects always, then peers, then services. IP versions that
// not every dimension can match are left out. Subjects are narrowed to before: a conjunction needs all of its clauses.
func (d dimensions) clauses(r *rule, before flow.Match) [][]flow.Match {
	fams := familiesOfAll(&r.scope.services)
	if p, all := r.peerFamilies(); !all {
		fams &= p
	}
	var subjects, peers, services []flow.Match
	for _, t := range terms(r.scope.subjects) {
		subjects = append(subjects, d.subject().IsMasked(before, uint64(t.value), uint64(t.mask)))
	}
	out := append(make([][]flow.Match, 0, 3), subjects)
	if !r.anyPeer() {
		for _, t := range terms(r.scope.peers) {
			peers = append(peers, d.peer().IsMasked(nil, uint64(t.value), uint64(t.mask)))
		}
		out = append(out, d.addresses(r, fams, peers))
	}
	if x := r.service; x != nil {
		for _, n := range x.numbers {
			services = append(services, pipeline.Service.Is(nil, uint64(n)))
		}
		for _, v := range x.set.Protos {
			wide, some := v.Wide()
			for _, fam := range []families{ipv4, ipv6} {
				if fams&familiesOf(v)&fam == 0 {
					continue
				}
				if some && x.numbers == nil {
					services = serviceMatches(services, fam, wide)
				}
				services = narrowMatches(services, fam, v)
			}
		}
		out = append(out, services)
	}
	return out
}

// addresses appends what matches peers by what is not their class.
func (d dimensions) addresses(r *rule, fams families, out []flow.Match) []flow.Match {
	number := pipeline.DestinationAddress
	if d == ingress {
		number = pipeline.SourceAddress
	}
	// Several choices may have the same.
	out = d.strangers(r, number, out)
	var numbers []uint16
	var prefixes []netip.Prefix
	for _, x := range r.scope.peers {
		if x.address.listed == nil {
			prefixes = append(prefixes, x.now.prefixes...)
		}
		numbers = append(numbers, x.address.numbers...)
	}
	if len(r.scope.peers) > 1 {
		slices.Sort(numbers)
		numbers, prefixes = slices.Compact(numbers), policy.DistinctPrefixes(prefixes)
	}
	for _, n := range numbers {
		out = append(out, number.Is(nil, uint64(n)))
	}
	for _, p := range prefixes {
		if fams&familyOf(p) != 0 {
			out = append(out, prefixMatch(p, d == ingress))
		}
	}
	return out
}

// terms returns those of all classes in the choices.
func terms(xs []*choice) []term {
	if len(xs) == 1 {
		return xs[0].terms
	}
	var out []term
	for _, x := range xs {
		out = append(out, x.terms...)
	}
	slices.SortFunc(out, compareTerms)
	return slices.Compact(out)
}

// before returns what a packet has to meet for a rule to be looked at: that no pass has led behind its tier, if there is any, and that no
// rule in mode audit has come first.
func (f *Firewall) before(r *rule) (m flow.Match) {
	if f.guarded[r.side][r.rank.Tier] {
		m = pipeline.BeforePass(m, r.rank.Tier)
	}
	if r.rank.Audit {
		m = pipeline.BeforeAudit(m, r.rank.Tier)
	}
	return m
}

// leaf returns what a flow of the rule does that decides.
func (r *rule) leaf() []flow.Action {
	switch {
	case r.rank.Effect == policy.Pass:
		return pipeline.Pass(r.side == ingress, r.rank.Audit, r.rank.Tier)
	case r.rank.Audit:
		return pipeline.AuditLeaf(r.side == ingress, !r.rank.Effect.Passes(), r.id)
	}
	out := pipeline.Decide(r.side == ingress, verdict(r.rank.Effect), r.id, wish(r.log, r.quiet))
	if r.oneOf > 0 {
		out = append(out, pipeline.Draw(r.oneOf)...)
	}
	if r.l7 {
		out = append(out, pipeline.Message())
	}
	return out
}

func wish(log, quiet bool) pipeline.Wish {
	switch {
	case log:
		return pipeline.Log
	case quiet:
		return pipeline.Quiet
	}
	return pipeline.Unsaid
}

// maxProduct is up to how many flows a rule is multiplied out, even where clauses of a conjunction were fewer.
const maxProduct = 16

// multiply returns the matches of a rule without a conjunction: one for each combination of a match of each clause that a packet can
// meet. It returns false where that takes more flows than both the conjunction and maxProduct. Without conjunctions a packet is looked up
// once, and no rule adds to the lists of flows with equal matches (all rules of an endpoint have its clause) that Open vSwitch walks
// whenever one is installed.
func multiply(clauses [][]flow.Match, maxProduct int) ([]flow.Match, bool) {
	product, most := 1, max(conjunctionSize(clauses), maxProduct)
	if maxProduct == 0 {
		most = 0
	}
	for _, c := range clauses {
		if product *= len(c); len(clauses) > 1 && product > most {
			return nil, false
		}
	}
	out := clauses[0]
	for _, c := range clauses[1:] {
		out = times(out, c)
	}
	return out, true
}

// conjunctionSize is how many flows in the policy table a conjunction of these clauses takes.
func conjunctionSize(clauses [][]flow.Match) int {
	n := 1
	for _, c := range clauses {
		n += len(c)
	}
	return n
}

// times returns the matches of each combination of one of a and one of b that a packet can meet.
func times(a, b []flow.Match) []flow.Match {
	out := make([]flow.Match, 0, len(a)*len(b))
	for _, x := range a {
		for _, y := range b {
			if m, ok := both(x, y); ok {
				out = append(out, m)
			}
		}
	}
	return out
}

// fold takes the subjects of a conjunction of three clauses into both of the others, where that takes no more flows, or up to maxProduct:
// all rules of an endpoint would have the clause of its class, and the classifier of Open vSwitch looks at each flow with the match of a
// clause that a packet meets. So it looks at the rules that name the packet's peer or its service only.
func fold(clauses [][]flow.Match, maxProduct int) [][]flow.Match {
	if len(clauses) != 3 {
		return clauses
	}
	k, others := len(clauses[0]), len(clauses[1])+len(clauses[2])
	if k*others > max(k+others, maxProduct) {
		return clauses
	}
	return [][]flow.Match{times(clauses[0], clauses[1]), times(clauses[0], clauses[2])}
}

// both matches what a and b match; false = nothing.
func both(a, b flow.Match) (flow.Match, bool) {
	out := make(flow.Match, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch x, y := a[0], b[0]; {
		case x.Field < y.Field:
			out, a = append(out, x), a[1:]
		case x.Field > y.Field:
			out, b = append(out, y), b[1:]
		case x.Value.And(y.Mask) != y.Value.And(x.Mask):
			return nil, false
		default:
			x.Value, x.Mask = x.Value.Or(y.Value), x.Mask.Or(y.Mask)
			out, a, b = append(out, x), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...), true
}

// ruleFlows returns all flows of a rule that has an id: in the policy table and, if it allows, its gate. Its conjunction has a number of
// its own, which also is in the cookies of clauses, so that a new id changes no clause (conjunction ids are per table).
func (f *Firewall) ruleFlows(r *rule) []flow.Flow {
	decide := r.leaf()
	d, cookie := dimensions(r.side), pipeline.NewCookie(pipeline.CookieRule, r.id)
	var out []flow.Flow
	add := func(c flow.Cookie, m flow.Match, actions []flow.Action) {
		out = append(out, flow.Flow{Table: d.table(), Priority: r.priority, Cookie: c, Match: m, Actions: actions})
	}
	clauses := d.clauses(r, f.before(r))
	if r.empty() { // it lingers
		clauses = [][]flow.Match{nil}
	}
	if matches, ok := f.expand(r, clauses); ok {
		for _, m := range matches {
			add(cookie, m, decide)
		}
	} else {
		clauses = fold(clauses, f.maxProduct)
		for i, matches := range clauses {
			clause := []flow.Action{flow.Conjunction{ID: r.conj, Clause: uint8(i + 1), N: uint8(len(clauses))}}
			for _, m := range matches {
				add(pipeline.NewCookie(pipeline.CookieClause, r.conj), m, clause)
			}
		}
		add(cookie, flow.Match{exact(flow.ConjID, uint64(r.conj), 32)}, decide)
	}
	if r.passes() {
		out = append(out, pipeline.Gate(r.side == ingress, cookie, r.id))
	}
	return out
}
