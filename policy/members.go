package policy

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"weak"
)

// MaxMembers bounds a group.
const MaxMembers = 500_000

// MemberEdit says only what is to change in the members of a group.
type MemberEdit struct {
	Add    []Selector `json:"add,omitempty"`
	Remove []Selector `json:"remove,omitempty"`
}

// CheckMemberEdit reads and checks the JSON text of an edit, as strictly as CheckJSON reads a document.
func CheckMemberEdit(text []byte) (MemberEdit, Faults) {
	t, faults := oneJSON(text)
	if faults != nil {
		return MemberEdit{}, faults
	}
	var e MemberEdit
	o, ok := t.(object)
	if !ok {
		return e, Faults{{Detail: fmt.Sprintf("must be a map with add, remove or both, not %s", describe(t))}}
	}
	w := newWalker()
	var root pointer
	w.structure(root, o, reflect.ValueOf(&e).Elem())
	d := Document{tree: t}
	faults = append(w.faults, notCovered(e.Validate(), w.faults)...)
	for i := range faults {
		faults[i] = d.place(faults[i])
	}
	return e, inOrder(faults)
}

// Validate lists everything that is wrong with the edit by itself.
func (e *MemberEdit) Validate() Faults {
	var c checker
	var root pointer
	if e.Add == nil && e.Remove == nil {
		c.addf(root, nil, "says nothing to change: give add, remove or both")
	}
	add, remove := root.field("add"), root.field("remove")
	wanted := make(map[memberID]bool, len(e.Add))
	for i := range e.Add {
		c.selector(add.at(i), &e.Add[i], asMember)
		wanted[e.Add[i].member()] = true
	}
	for i := range e.Remove {
		n := len(c.faults)
		c.selector(remove.at(i), &e.Remove[i], asMember)
		if len(c.faults) == n && wanted[e.Remove[i].member()] {
			c.addf(remove.at(i), e.Remove[i].String(), "is to be added, too: say one of both")
		}
	}
	return c.faults
}

// memberID is the same for selectors that select the same by the same means, however their addresses are written.
type memberID struct {
	prefix netip.Prefix
	text   string // of all but plain address ranges
}

func (s *Selector) member() memberID {
	if s.plainCIDR() {
		if p, err := ParseCIDR(s.CIDR); err == nil {
			return memberID{prefix: p}
		}
	}
	return memberID{text: s.String()}
}

// plainCIDR reports whether the selector is an address range without exceptions, as most members of a large group are.
func (s *Selector) plainCIDR() bool { return s.CIDR != "" && s.Except == nil && s.Kind() == SelectCIDR }

// validCIDR reports whether the selector is a plain address range, and nothing is wrong with it.
func (s *Selector) validCIDR() bool {
	if !s.plainCIDR() || s.Host != "" {
		return false
	}
	_, err := ParseCIDR(s.CIDR)
	return err == nil
}

// MemberCount says what came of an edit.
type MemberCount struct {
	Added   int // new members
	Removed int // members that were there, repeated ones counted each
	Present int // of those to be added: are members already, or were given twice
	Absent  int // of those to be removed: were no members
}

// Edit returns the group with an edit applied: new members come after the others. It is g itself if nothing changes. addedAt are the
// indices in e.Add of the new members.
func (g *Group) Edit(e MemberEdit) (out *Group, n MemberCount, addedAt []int) {
	const (
		add = iota
		remove
		gone // to be removed, and found
		there
	)
	wanted := make(map[memberID]uint8, len(e.Add)+len(e.Remove))
	byText := make(map[string]*Selector, len(e.Add)+len(e.Remove)) // plain ranges as they are written
	for _, list := range []struct {
		selectors []Selector
		what      uint8
	}{{e.Add, add}, {e.Remove, remove}} {
		for i := range list.selectors {
			s := &list.selectors[i]
			if wanted[s.member()] = list.what; s.plainCIDR() {
				byText[s.CIDR] = s
			}
		}
	}
	var removed []int // indices of members
	for i := range g.Spec.Members {
		m := &g.Spec.Members[i]
		// Most members are IPv4 ranges, of which there is one spelling.
		if m.CIDR != "" && m.Except == nil && byText[m.CIDR] == nil && strings.IndexByte(m.CIDR, ':') < 0 {
			continue
		}
		id := m.member()
		switch state, ok := wanted[id]; {
		case !ok:
		case state == add:
			wanted[id] = there
		case state == remove, state == gone:
			wanted[id] = gone
			removed = append(removed, i)
		}
	}
	var added []Selector
	for i := range e.Add {
		if id := e.Add[i].member(); wanted[id] == add {
			wanted[id] = there
			added, addedAt = append(added, e.Add[i]), append(addedAt, i)
		} else {
			n.Present++
		}
	}
	for i := range e.Remove {
		if id := e.Remove[i].member(); wanted[id] == remove {
			n.Absent++
		}
	}
	n.Added, n.Removed = len(added), len(removed)
	if n.Added+n.Removed == 0 {
		return g, n, nil
	}
	c := &MemberChange{Added: added, of: placeOf(g.Spec.Members)}
	for _, i := range removed {
		c.Removed, c.RemovedAt = append(c.Removed, g.Spec.Members[i]), append(c.RemovedAt, i)
	}
	return g.Changed(c), n, addedAt
}

// MemberChange is what has become of the members of a group since they were others: those at RemovedAt have left, Added have come behind
// the rest. It is immutable.
type MemberChange struct {
	Added     []Selector
	Removed   []Selector
	RemovedAt []int // ascending
	of, to    place
	index     memberIndex // of what the members have become
}

// memberIndex says of the members of a group what would take a look at each of them.
type memberIndex struct {
	others []Selector             // those that are no address ranges, in order
	size   [len(families)]float64 // of all address ranges together, without regard to overlaps and excepts
}

// add takes in members, or takes them out again.
func (x *memberIndex) add(members []Selector, sign float64) {
	for i := range members {
		if p, err := ParseCIDR(members[i].CIDR); err == nil {
			f := 0
			if p.Addr().Is6() {
				f = 1
			}
			x.size[f] += sign * math.Ldexp(1, -p.Bits())
		}
	}
}

// index is known of groups that came from others by a change.
func (s *GroupSpec) index() (*memberIndex, bool) {
	if s.Change == nil || s.Change.to != placeOf(s.Members) {
		return nil, false
	}
	return &s.Change.index, true
}

// Others returns the members that are no address ranges, in order.
func (s *GroupSpec) Others() []Selector {
	if x, ok := s.index(); ok {
		return x.others
	}
	return WithoutCIDRs(s.Members)
}

// place tells a list of members, which is never changed, from all others, without keeping it alive.
type place struct {
	first weak.Pointer[Selector]
	n     int
}

func placeOf(members []Selector) place {
	if len(members) == 0 {
		return place{}
	}
	return place{weak.Make(&members[0]), len(members)}
}

// Changed returns the group after a change of its members, which knows it: see Since.
func (g *Group) Changed(c *MemberChange) *Group {
	old := g.Spec.Members
	members := make([]Selector, 0, len(old)-len(c.RemovedAt)+len(c.Added))
	at := 0
	for _, i := range c.RemovedAt {
		members, at = append(members, old[at:i]...), i+1
	}
	members = append(append(members, old[at:]...), c.Added...)
	out := &Group{Meta: g.Meta, Spec: g.Spec}
	out.Spec.Members = members
	out.Spec.Change = &MemberChange{Added: c.Added, Removed: c.Removed, RemovedAt: c.RemovedAt, of: placeOf(old),
		to: placeOf(members), index: g.Spec.after(c)}
	return out
}

// after is the index of the members after a change.
func (s *GroupSpec) after(c *MemberChange) (x memberIndex) {
	if known, ok := s.index(); ok {
		x = *known
	} else {
		x.others = WithoutCIDRs(s.Members)
		x.add(s.Members, 1)
	}
	x.add(c.Removed, -1)
	x.add(c.Added, 1)
	if gone := WithoutCIDRs(c.Removed); len(gone) > 0 {
		names := make(map[memberID]bool, len(gone)) // a change takes all members that select the same
		for i := range gone {
			names[gone[i].member()] = true
		}
		x.others = slices.DeleteFunc(slices.Clone(x.others), func(s Selector) bool { return names[s.member()] })
	}
	if come := WithoutCIDRs(c.Added); len(come) > 0 {
		x.others = slices.Concat(x.others, come)
	}
	return x
}

// Since returns by what the members differ from those of before, if that is known without comparing them; a group that has not changed
// differs by nothing.
func (s *GroupSpec) Since(before *GroupSpec) (*MemberChange, bool) {
	was := placeOf(before.Members)
	switch {
	case len(before.Members) == 0: // all of them are new
		return nil, false
	case was == placeOf(s.Members):
		return &MemberChange{of: was}, true
	case s.Change != nil && s.Change.of == was && s.Change.to == placeOf(s.Members):
		return s.Change, true
	}
	return nil, false
}

// Same reports whether both ask for the same, in the same order.
func (s *GroupSpec) Same(o *GroupSpec) bool {
	if s.OnMemberRemoved != o.OnMemberRemoved || len(s.Members) != len(o.Members) || !s.From.same(o.From) {
		return false
	}
	if c, ok := s.Since(o); ok {
		return len(c.Added)+len(c.RemovedAt) == 0
	}
	for i := range s.Members {
		if !s.Members[i].equal(&o.Members[i]) {
			return false
		}
	}
	return true
}

// HasCIDR reports whether there are address ranges among the members, or may come from elsewhere.
func (g *Group) HasCIDR() bool {
	return g.Spec.From != nil || slices.ContainsFunc(g.Spec.Members, func(s Selector) bool { return s.CIDR != "" })
}
