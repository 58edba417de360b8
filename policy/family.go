package policy

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
)

// family is one version of IP, as far as address ranges go.
type family struct {
	name  string
	all   netip.Prefix
	proto int // 4 or 6, see protoFamily
}

// has reports whether only this family has the protocol.
func (f family) has(p Protocol) bool {
	n, err := p.Number()
	return err == nil && protoFamily(n) == f.proto
}

var families = [...]family{
	{"IPv4", netip.PrefixFrom(netip.IPv4Unspecified(), 0), 4},
	{"IPv6", netip.PrefixFrom(netip.IPv6Unspecified(), 0), 6},
}

// covered reports whether the ranges, which are of the family, leave out no address of it. Most do, which their sizes tell at once.
func (f family) covered(r familyRanges) bool {
	return r.size >= 1 && len(CIDRMinus(f.all, r.prefixes)) == 0
}

// OneFamily returns a WarnOneFamily for every rule of p that shuts out one IP version and leaves the other open, which is seldom meant:
// a deny of all addresses of one version that says nothing of the other, and an allow of all addresses of both that excepts some of one
// version only, since who has an excepted address has another of the other version. Groups are looked into; unknown ones have no members.
func OneFamily(p *Policy, groups map[string]*Group) []Warning {
	var out []Warning
	known := make(map[string]ranges) // of groups
	for _, d := range [...]Direction{Ingress, Egress} {
		rules := p.Rules(d)
		for i := range rules {
			r := &rules[i]
			if tooFew(r.Peers(d), groups) {
				continue
			}
			peers := peerRanges(r.Peers(d), groups, known)
			for f := range families {
				if why := oneFamily(r, peers, families[f], families[1-f]); why != "" {
					out = append(out, Warning{Code: WarnOneFamily, Policy: p.Name, Rule: string(d) + "/" + r.Name,
						Message: fmt.Sprintf("rule %q (%s, %s) of policy %q %s", r.Name, d, r.Action, p.Name, why)})
				}
			}
		}
	}
	return out
}

// ranges are the cidr selectors of a rule's peers.
type ranges struct {
	everybody bool // an entity of both families is among the peers
	of        [len(families)]familyRanges
}

type familyRanges struct {
	prefixes []netip.Prefix // without regard to excepts
	size     float64        // of all of them together, in families
	except   string         // one of the excepts, "" = none
}

// tooFew reports whether groups alone are the peers and their ranges are known to be too small for all of a family.
func tooFew(peers []Selector, groups map[string]*Group) bool {
	var size [len(families)]float64
	for i := range peers {
		g := groups[peers[i].Group]
		if g == nil {
			return false
		}
		x, ok := g.Spec.index()
		if !ok {
			return false
		}
		for f := range size {
			size[f] += x.size[f]
		}
	}
	const rounded = 1e-6 // by many additions and subtractions
	return len(peers) > 0 && size[0] < 1-rounded && size[1] < 1-rounded
}

// peerRanges returns the ranges of a rule's peers; known holds those of groups that were looked into.
func peerRanges(peers []Selector, groups map[string]*Group, known map[string]ranges) (out ranges) {
	for i := range peers {
		g := groups[peers[i].Group]
		switch {
		case peers[i].Group == "":
			out.add(&peers[i])
		case g != nil:
			in, ok := known[g.Name]
			if !ok {
				for j := range g.Spec.Members {
					in.add(&g.Spec.Members[j])
				}
				known[g.Name] = in
			}
			if len(peers) == 1 {
				return in
			}
			out.everybody = out.everybody || in.everybody
			for f := range out.of {
				out.of[f].prefixes = append(out.of[f].prefixes, in.of[f].prefixes...)
				out.of[f].size += in.of[f].size
				out.of[f].except = cmp.Or(in.of[f].except, out.of[f].except)
			}
		}
	}
	return out
}

// add takes one selector.
func (x *ranges) add(s *Selector) {
	x.everybody = x.everybody || s.Entity != ""
	if s.CIDR == "" {
		return
	}
	p, err := ParseCIDR(s.CIDR)
	if err != nil {
		return
	}
	o := &x.of[0]
	if p.Addr().Is6() {
		o = &x.of[1]
	}
	o.prefixes = append(o.prefixes, p)
	o.size += math.Ldexp(1, -p.Bits())
	if len(s.Except) > 0 {
		o.except = s.Except[0]
	}
}

// oneFamily says what is wrong with a rule as far as its ranges of family f go.
func oneFamily(r *Rule, peers ranges, f, other family) string {
	mine, theirs := peers.of[0], peers.of[1]
	if f == families[1] {
		mine, theirs = theirs, mine
	}
	onlyMine := len(r.Services) > 0 && !slices.ContainsFunc(r.Services, func(s Service) bool { return !f.has(s.Protocol) })
	switch {
	case peers.everybody || onlyMine || !f.covered(mine):
		return ""
	case !r.Action.Passes() && r.Action != Pass && len(theirs.prefixes) == 0:
		return fmt.Sprintf("covers all of %s and nothing of %s, which other rules and the default decide about: add {cidr: %q}, or write "+
			"{entity: any} instead", f.name, other.name, other.all)
	case r.Action == Allow && mine.except != "" && theirs.except == "" && other.covered(theirs):
		return fmt.Sprintf("excepts %s of %s and nothing of %s, by which the same machines get in: except their %s addresses too, or deny "+
			"them by a rule", mine.except, f.name, other.name, other.name)
	}
	return ""
}
