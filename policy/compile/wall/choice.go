package wall

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/tapwall/tapwall/policy"
)

// A choice is what some selectors choose together: endpoints of the bridge, and addresses of everything else. Policies apply to choices
// and rules have them as peers. Those that name the same selectors share one, however many they are, so what it holds is computed once,
// and flows match its numbers instead of its members: class numbers of its endpoints (class), address numbers of its addresses (atlas). A
// group is a choice by itself.
type choice struct {
	// hash is that of the selectors' text: the name of the choice, also for later runs.
	hash      uint64
	text      string            // for people
	group     string            // named; else
	selectors []policy.Selector // chosen by
	fixed     []netip.Prefix    // those of CIDR selectors, in order
	read      *policy.GroupSpec // the group as it was read last
	// constant: the addresses are in the selectors' text, so they cannot be others under this hash.
	constant bool

	subjectOf map[*policyState]struct{}
	peerOf    map[*rule]struct{}

	// Resolved. Slices are immutable.
	selections map[*selection]struct{}
	now, was   content // was is as the last Compile left it
	unknown    bool    // the group does not exist

	classes map[*class]struct{}
	conj    [2]int // conjunctions of rules that apply to it, by side
	terms   []term // the numbers of classes
	address addressing
	// foreign: was is not known of the addresses, because an earlier run left no word of them.
	foreign bool
	// kept: members have left that were to keep their connections.
	kept bool

	staleMembers, staleAddresses, changed bool
	grown, narrowed                       bool // other addresses or entities have come in, or left
}

// content is what a choice holds.
type content struct {
	any, world bool
	known      []netip.Prefix // with world: addresses that are not in it
	host       hosts
	keep       bool           // members that leave keep their connections
	endpoints  []*endpoint    // by serial
	prefixes   []netip.Prefix // distinct
	fams       families       // of prefixes
}

// shape is what decides whether rules that name the choice match anything.
type shape struct {
	any, world, host, endpoints, unknown bool
	fams                                 families
}

func (x *choice) shape() shape {
	return shape{x.now.any, x.now.world, x.now.host.is, len(x.now.endpoints) > 0, x.unknown, x.now.fams}
}

type choiceSet map[*choice]struct{}

func (s choiceSet) add(xs []*choice) {
	for _, x := range xs {
		s[x] = struct{}{}
	}
}

// choices holds the choices in use.
type choices struct {
	byHash map[uint64]*choice
	groups map[string]*choice
}

func hashOf(parts ...string) uint64 {
	h := sha256.New()
	for _, p := range parts {
		h.Write(binary.AppendUvarint(nil, uint64(len(p))))
		h.Write([]byte(p))
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// choose returns the choices of selectors.
func (f *Firewall) choose(selectors []policy.Selector) []*choice {
	var out []*choice
	var rest []policy.Selector
	for _, s := range selectors {
		if s.Kind() != policy.SelectGroup {
			rest = append(rest, s)
			continue
		}
		x := f.choices.groups[s.Group]
		if x == nil {
			x = f.newChoice(hashOf("group", s.Group))
			x.group, x.text = s.Group, "group "+s.Group
			f.choices.groups[s.Group] = x
			f.resolve(x)
		}
		out = append(out, x)
	}
	if len(rest) > 0 {
		texts := make([]string, len(rest))
		for i := range rest {
			texts[i] = rest[i].String()
		}
		slices.Sort(texts)
		texts = slices.Compact(texts)
		hash := hashOf(texts...)
		x := f.choices.byHash[hash]
		if x == nil {
			x = f.newChoice(hash)
			x.selectors, x.fixed, x.text = rest, orderedPrefixes(rest), few(texts)
			x.constant = !slices.ContainsFunc(rest, func(s policy.Selector) bool {
				return s.Kind() != policy.SelectCIDR && s.Entity != policy.EntityAny
			})
			f.resolve(x)
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b *choice) int { return cmp.Compare(a.hash, b.hash) })
	return slices.Compact(out)
}

func (f *Firewall) newChoice(hash uint64) *choice {
	x := &choice{hash: hash, subjectOf: map[*policyState]struct{}{}, peerOf: map[*rule]struct{}{}, selections: map[*selection]struct{}{},
		classes: map[*class]struct{}{}, staleMembers: true, staleAddresses: true}
	f.choices.byHash[hash] = x
	f.newChoices = append(f.newChoices, x)
	return x
}

// resolve brings what the choice holds up to date, and with it the memberships of endpoints.
func (f *Firewall) resolve(x *choice) {
	if !x.staleMembers && !x.staleAddresses {
		return
	}
	if x.group != "" && x.staleAddresses {
		f.readGroup(x)
	}
	before := x.now
	if x.staleMembers {
		x.now.endpoints = f.endpointsOf(x)
	}
	if x.staleAddresses {
		f.readAddresses(x)
		x.changed = true
		f.readdressed[x] = struct{}{}
	}
	x.staleMembers, x.staleAddresses = false, false
	for _, e := range without(before.endpoints, x.now.endpoints) {
		f.leave(e, x)
	}
	for _, e := range without(x.now.endpoints, before.endpoints) {
		f.join(e, x)
	}
	f.changedChoices[x] = struct{}{}
}

// readGroup takes the selectors of a group as it now reads.
func (f *Firewall) readGroup(x *choice) {
	g := f.groups[x.group]
	if g != nil && x.read != nil && f.readChange(x, &g.Spec) {
		return
	}
	old := x.selections
	x.selections, x.selectors, x.unknown, x.now.keep = map[*selection]struct{}{}, nil, g == nil, false
	x.read, x.fixed = nil, nil
	if g != nil {
		x.selectors, x.now.keep = g.Spec.Others(), g.Spec.Keeps()
		x.read, x.fixed = &g.Spec, orderedPrefixes(g.Spec.Members)
	}
	x.staleMembers = true
	f.useSelections(x)
	f.selected.release(old, x)
}

// readChange does the same where it is known that only address ranges have come and gone.
func (f *Firewall) readChange(x *choice, now *policy.GroupSpec) bool {
	c, ok := now.Since(x.read)
	if !ok || len(policy.WithoutCIDRs(c.Added))+len(policy.WithoutCIDRs(c.Removed)) > 0 {
		return false
	}
	fixed, ok := exchanged(x.fixed, orderedPrefixes(c.Removed), orderedPrefixes(c.Added))
	if ok {
		x.read, x.fixed, x.now.keep = now, fixed, now.Keeps()
	}
	return ok
}

// exchanged returns list, in order, without some of its elements and with others. ok is false if it does not have those to be taken out.
func exchanged(list, out, in []netip.Prefix) (now []netip.Prefix, ok bool) {
	now = make([]netip.Prefix, 0, max(0, len(list)+len(in)-len(out)))
	for len(out)+len(in) > 0 {
		take := len(in) == 0 || len(out) > 0 && out[0].Compare(in[0]) <= 0
		next := in
		if take {
			next = out
		}
		i, found := slices.BinarySearchFunc(list, next[0], netip.Prefix.Compare)
		now, list = append(now, list[:i]...), list[i:]
		switch {
		case !take:
			now, in = append(now, next[0]), in[1:]
		case found:
			list, out = list[1:], out[1:]
		default:
			return nil, false
		}
	}
	return append(now, list...), true
}

func (f *Firewall) useSelections(x *choice) {
	for i := range x.selectors {
		switch s := &x.selectors[i]; s.Kind() {
		case policy.SelectCIDR, policy.SelectGroup, policy.SelectFQDN, "":
		default:
			if s.Entity != policy.EntityAny && s.Entity != policy.EntityWorld { // endpoints may be meant
				f.selected.use(*s, x)
			}
		}
	}
}

// endpointsOf returns the endpoints that are chosen.
func (f *Firewall) endpointsOf(x *choice) []*endpoint {
	if x.group == "" && len(x.selections) == 0 {
		f.useSelections(x)
	}
	var out []*endpoint
	for s := range x.selections {
		if len(x.selections) == 1 {
			return s.endpoints
		}
		out = append(out, s.endpoints...)
	}
	slices.SortFunc(out, bySerial)
	return slices.Compact(out)
}

// readAddresses computes the addresses and entities that are chosen.
func (f *Firewall) readAddresses(x *choice) {
	f.readEntities(x)
	var more []netip.Prefix
	for s := range x.selections {
		more = append(more, f.selected.addresses(s)...)
	}
	if len(more) == 0 {
		x.now.prefixes = policy.DistinctOf(x.fixed)
	} else {
		x.now.prefixes = policy.DistinctPrefixes(append(more, x.fixed...))
	}
	x.now.fams = 0
	for _, p := range x.now.prefixes {
		x.now.fams |= familyOf(p)
	}
}

// orderedPrefixes returns the addresses that CIDR selectors name, in order.
func orderedPrefixes(selectors []policy.Selector) []netip.Prefix {
	var out []netip.Prefix
	for i := range selectors {
		if s := &selectors[i]; s.CIDR != "" {
			if p, err := s.Prefixes(); err == nil {
				out = append(out, p...)
			}
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// release gives up a choice that nobody uses any more.
func (f *Firewall) release(x *choice) {
	if len(x.subjectOf) > 0 || len(x.peerOf) > 0 || f.choices.byHash[x.hash] != x {
		return
	}
	delete(f.choices.byHash, x.hash)
	if x.group != "" {
		delete(f.choices.groups, x.group)
	}
	old := x.selections
	x.selections = map[*selection]struct{}{}
	f.selected.release(old, x)
	for _, e := range x.now.endpoints {
		f.leave(e, x)
	}
	f.atlas.remove(x)
	f.entities.leave(x)
	f.dropped = append(f.dropped, x.hash)
}

// join and leave note that an endpoint has come to be, or no longer is, in a choice.
func (f *Firewall) join(e *endpoint, x *choice) {
	if i, found := slices.BinarySearchFunc(e.choices, x.hash, compareHash); !found {
		e.choices = slices.Insert(e.choices, i, x)
		e.key ^= x.hash
		f.moved[e] = struct{}{}
	}
}

func (f *Firewall) leave(e *endpoint, x *choice) {
	if i, found := slices.BinarySearchFunc(e.choices, x.hash, compareHash); found {
		e.choices = slices.Delete(e.choices, i, i+1)
		e.key ^= x.hash
		f.moved[e] = struct{}{}
	}
}

func compareHash(x *choice, hash uint64) int { return cmp.Compare(x.hash, hash) }

func bySerial(a, b *endpoint) int { return cmp.Compare(a.serial, b.serial) }

// without returns the endpoints of a that are not in b; both are sorted.
func without(a, b []*endpoint) []*endpoint {
	if len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) {
		return nil
	}
	var out []*endpoint
	j := 0
	for _, e := range a {
		for j < len(b) && b[j].serial < e.serial {
			j++
		}
		if j == len(b) || b[j] != e {
			out = append(out, e)
		}
	}
	return out
}

// contentHash is a digest of the addresses and entities of a choice: hashOf of what it is, and of all prefixes, which are not put together
// for that.
func (c *content) contentHash() string {
	flags := "p"
	if c.any {
		flags += "a"
	}
	if c.world {
		flags += "w"
	}
	if c.host.is {
		flags += "h" + c.host.local
	}
	h := sha256.New()
	buf := append(binary.AppendUvarint(make([]byte, 0, 4096), uint64(len(flags))), flags...)
	lists := [][]netip.Prefix{c.prefixes}
	if c.world || c.host.is {
		lists = append(lists, c.known, c.host.addresses)
	}
	for _, list := range lists {
		size := 0
		for _, p := range list {
			size += p.Addr().BitLen()/8 + 1
		}
		buf = binary.AppendUvarint(buf, uint64(size))
		for _, p := range list {
			if len(buf) > cap(buf)-32 {
				h.Write(buf)
				buf = buf[:0]
			}
			buf, _ = p.AppendBinary(buf)
		}
	}
	h.Write(buf)
	return hexHash(binary.BigEndian.Uint64(h.Sum(nil)))
}
