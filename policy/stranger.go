package policy

import (
	"cmp"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
)

// A stranger is a peer of whom nothing is known but an address: no endpoint of any host. The strangers of a family stand for everybody:
// one in each sixteenth of the IPv4 addresses that are not multicast or reserved (RFC 1112 §4), and of the global unicast addresses of
// IPv6 (RFC 4291 §2.4), none private. A rule with a prefix of /8 or longer matches one of them at most; entity any or world, 0.0.0.0/0
// with or without exceptions, and 2000::/3 match most.
const (
	strangers4 = 14
	strangers6 = 16
)

// strangers holds those of IPv4, then those of IPv6.
var strangers = func() (out [strangers4 + strangers6]netip.Addr) {
	for i := range strangers4 {
		out[i] = netip.AddrFrom4([4]byte{byte(16*i + 5), 203, 7, 119})
	}
	for i := range strangers6 {
		out[strangers4+i] = netip.AddrFrom16([16]byte{0: byte(0x20 + 2*i), 1: 0xb3, 4: 0x7, 15: 0x77})
	}
	return out
}()

// crowd is a set of strangers, by bit.
type crowd uint32

const everyStranger crowd = 1<<(strangers4+strangers6) - 1

// everybody has a bit for each family of which more than half of the strangers are in the crowd.
func (c crowd) everybody() (families uint8) {
	const v4 = 1<<strangers4 - 1
	if bits.OnesCount32(uint32(c&v4)) > strangers4/2 {
		families |= 1
	}
	if bits.OnesCount32(uint32(c&^v4)) > strangers6/2 {
		families |= 2
	}
	return families
}

// strangerRule is a rule as strangers meet it.
type strangerRule struct {
	rank     Rank
	ref      RuleRef
	whom     crowd
	services *ServiceSet
}

// compare is the order of Evaluate.
func (r strangerRule) compare(o strangerRule) int {
	return cmp.Or(r.rank.Compare(o.rank), cmp.Compare(r.ref.Policy, o.ref.Policy), cmp.Compare(r.ref.Rule, o.ref.Rule))
}

func (r strangerRule) equal(o strangerRule) bool {
	return r.rank == o.rank && r.ref == o.ref && r.whom == o.whom && r.services.Equal(o.services)
}

func (r strangerRule) serves(at service) bool { return r.services.Has(at.proto, at.src, at.dst) }

// strangerRules lists the rules of a policy that match any stranger.
func (s *stances) strangerRules(p *coverPolicy, dir Direction) []strangerRule {
	key := strangersOf{p.Policy, dir}
	if out, ok := s.rules[key]; ok {
		return out
	}
	var out []strangerRule
	rules := p.Rules(dir)
	if p.Audits() {
		rules = nil
	}
	for i := range rules {
		if whom := s.crowdOf(rules[i].Peers(dir)); whom != 0 {
			out = append(out, strangerRule{RankOf(p.Policy, &rules[i]), RuleRef{p.Name, dir, rules[i].Name}, whom, p.services(dir, i)})
		}
	}
	s.rules[key] = out
	return out
}

// crowdOf returns the strangers among peers.
func (s *stances) crowdOf(peers []Selector) (whom crowd) {
	if len(peers) == 0 {
		return everyStranger
	}
	for i := range peers {
		if g := s.set.Groups[peers[i].Group]; g != nil {
			whom |= s.crowdOfGroup(g)
		}
	}
	return whom | crowdAmong(peers)
}

// crowdOfGroup returns the strangers among the members of a group.
func (s *stances) crowdOfGroup(g *Group) crowd {
	whom, ok := s.crowds[g]
	if !ok {
		whom = crowdAmong(g.Spec.Members)
		s.crowds[g] = whom
	}
	return whom
}

// crowdAmong returns the strangers whom selectors choose, but for those of groups.
func crowdAmong(selectors []Selector) (whom crowd) {
	for i := range selectors {
		switch p := &selectors[i]; p.Kind() {
		case SelectEntity:
			if p.Entity == EntityAny || p.Entity == EntityWorld {
				return everyStranger
			}
		case SelectCIDR:
			prefixes, _ := p.Prefixes() // none on an error
			for _, x := range prefixes {
				whom |= crowdIn(x)
			}
		}
	}
	return whom
}

// crowdIn returns the strangers in a prefix. Most are long: only one can be there, that of their sixteenth.
func crowdIn(p netip.Prefix) (whom crowd) {
	first, n, sixteenth := strangers4, strangers6, 0
	if p.Addr().Is4() {
		first, n = 0, strangers4
		sixteenth = int(p.Addr().As4()[0]) / 16
	} else {
		sixteenth = (int(p.Addr().As16()[0]) - 0x20) / 2
	}
	if p.Bits() < 8 {
		sixteenth = 0
	} else if sixteenth < 0 || sixteenth >= n {
		return 0
	} else {
		n = sixteenth + 1
	}
	for i := sixteenth; i < n; i++ {
		if p.Contains(strangers[first+i]) {
			whom |= 1 << (first + i)
		}
	}
	return whom
}

// service is one protocol, source and destination port, or type and code.
type service struct {
	proto    uint8
	src, dst uint16
}

// admitted returns the strangers who may use a service, and the rules that allow it.
func (s *stance) admitted(at service) (in crowd, by []RuleRef) {
	undecided, passed, tier := everyStranger, crowd(0), -1 // passed: not by this tier
	for _, r := range s.rules {
		if r.rank.Tier != tier {
			passed, tier = 0, r.rank.Tier
		}
		hit := undecided & r.whom &^ passed
		if !r.services.Any {
			hit &= ofFamily(at.proto)
		}
		if hit == 0 || !r.serves(at) {
			continue
		}
		if r.rank.Effect == Pass {
			passed |= hit
			continue
		}
		if undecided &^= hit; r.rank.Effect.Passes() {
			in |= hit
			by = append(by, r.ref)
		}
	}
	if !s.isolated {
		in |= undecided
	}
	return in, by
}

// ofFamily returns the strangers whose packets of a protocol services may match.
func ofFamily(proto uint8) crowd {
	const v4 = 1<<strangers4 - 1
	switch protoFamily(proto) {
	case 4:
		return v4
	case 6:
		return everyStranger &^ v4
	}
	return everyStranger
}

// opening is what opens to everybody between two stances.
type opening struct {
	any bool
	by  []RuleRef
}

// opens reports whether there is a service that everybody of a family may use after and could not before, and which rules allow it.
func (c *comparison) opens(was, is *stance) ([]RuleRef, bool) {
	pair := [2]*stance{was, is}
	if o, ok := c.pairs[pair]; ok {
		return o.by, o.any
	}
	var o opening
	for _, at := range cases(was, is) {
		before, _ := was.admitted(at)
		after, by := is.admitted(at)
		if after.everybody()&^before.everybody() == 0 {
			continue
		}
		o.any = true
		for _, r := range by {
			if !slices.Contains(o.by, r) {
				o.by = append(o.by, r)
			}
		}
	}
	if c.pairs == nil {
		c.pairs = make(map[[2]*stance]opening)
	}
	c.pairs[pair] = o
	return o.by, o.any
}

// fewSources is how many ranges of source ports of a protocol are told apart.
const fewSources = 64

// cases lists services such that each service is judged like one of them by both stances, leaving out those that the rules which differ
// do not match where the stances differ in rules only. Where rules name more source ports than fewSources, some are left out, too.
func cases(was, is *stance) []service {
	type points struct{ src, dst []uint16 }
	named := map[uint8]*points{ProtoICMP: {}, ProtoICMPv6: {}, ProtoTCP: {}, ProtoUDP: {}}
	begin := func(out *[]uint16, rs []PortRange) {
		for _, r := range rs {
			*out = append(*out, r.Lo)
			if r.Hi < 65535 {
				*out = append(*out, r.Hi+1)
			}
		}
	}
	for _, s := range [...]*stance{was, is} {
		for _, r := range s.rules {
			for _, sv := range r.services.Protos {
				p := named[sv.Proto]
				if p == nil {
					p = new(points)
					named[sv.Proto] = p
				}
				begin(&p.dst, sv.Ports)
				for _, x := range sv.Pairs {
					begin(&p.src, x.Src)
					begin(&p.dst, x.Dst)
				}
			}
		}
	}
	var out []service
	for other := 253; other > 0; other-- { // a protocol that no service names; 253 is for experiments (RFC 3692)
		if named[uint8(other)] == nil {
			out = append(out, service{proto: uint8(other)})
			break
		}
	}
	for _, proto := range slices.Sorted(maps.Keys(named)) {
		p, first := named[proto], uint16(0)
		if hasPorts(proto) {
			first = 1
		}
		sorted := func(at []uint16) []uint16 {
			at = append(at, first)
			slices.Sort(at)
			return slices.Compact(at)
		}
		sources := sorted(p.src)
		for _, src := range sources[:min(len(sources), fewSources)] {
			for _, dst := range sorted(p.dst) {
				out = append(out, service{proto, src, dst})
			}
		}
	}
	if was.isolated != is.isolated {
		return out
	}
	changed := append(missing(was.rules, is.rules), missing(is.rules, was.rules)...)
	return slices.DeleteFunc(out, func(at service) bool {
		return !slices.ContainsFunc(changed, func(r strangerRule) bool { return r.serves(at) })
	})
}

// missing lists the rules of a that b does not have; both are in order.
func missing(a, b []strangerRule) []strangerRule {
	var out []strangerRule
	for _, r := range a {
		for len(b) > 0 && b[0].compare(r) < 0 {
			b = b[1:]
		}
		if len(b) == 0 || !b[0].equal(r) {
			out = append(out, r)
		}
	}
	return out
}
