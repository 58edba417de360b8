package policy

import (
	"maps"
	"slices"
)

// MaxGroupDepth bounds how deep groups may contain groups: a group of groups that contain none has depth 2.
const MaxGroupDepth = 8

// Nested lists the groups among the members, each once, in order.
func (s *GroupSpec) Nested() (names []string) {
	others := s.Others()
	for i := range others {
		if g := others[i].Group; g != "" && !slices.Contains(names, g) {
			names = append(names, g)
		}
	}
	return names
}

// A Roster holds groups as those see them who have to know who is in them: flat, the members of groups that are members in their place. It
// is immutable. A group that takes nothing from elsewhere, and has no groups in it, is
// the same as it came.
//
// What becomes of connections when a member leaves (OnMemberRemoved) is for each group to say of itself: that of the group which a rule
// names counts, whichever group in it the member has left.
type Roster struct {
	raw map[string]*Group
	// lists are what groups take from elsewhere, by name, as groups that have nothing else.
	lists map[string]*Group
	flat  map[string]*flatGroup // those that are not as they came
}

// flatGroup is a group with the members of others.
type flatGroup struct {
	group *Group
	names []string // the group and those in it, also those that do not exist
	parts []*Group // of names, nil = none, each with its list
}

// NewRoster returns a roster of nobody.
func NewRoster() *Roster {
	return &Roster{raw: map[string]*Group{}, lists: map[string]*Group{}, flat: map[string]*flatGroup{}}
}

// Get returns a group, nil if there is none.
func (r *Roster) Get(name string) *Group {
	if f := r.flat[name]; f != nil {
		return f.group
	}
	return r.raw[name]
}

// Raw returns a group as it came.
func (r *Roster) Raw(name string) *Group { return r.raw[name] }

// All returns all groups by name.
func (r *Roster) All() map[string]*Group {
	out := maps.Clone(r.raw)
	for name, f := range r.flat {
		out[name] = f.group
	}
	return out
}

// With returns the roster after changes, nil = the group is gone, and the names of all groups that have thereby become others, in order.
// Its cost follows the number of groups and the members of those that become others. Groups that contain each other in a circle, which
// are refused where they are written, have all members that are in the circle.
func (r *Roster) With(changes map[string]*Group) (*Roster, []string) {
	if len(changes) == 0 {
		return r, nil
	}
	next := &Roster{raw: maps.Clone(r.raw), lists: r.lists, flat: maps.Clone(r.flat)}
	touched := make(map[string]bool, len(changes))
	for name, g := range changes {
		touched[name] = true
		if g == nil {
			delete(next.raw, name)
		} else {
			next.raw[name] = g
		}
	}
	return next, next.update(touched)
}

// WithLists returns the roster after groups have got other lists from elsewhere, nil = none, by the names of these groups, and the names
// of all groups that have thereby become others, in order. The list of a group that takes nothing from elsewhere is not looked at.
func (r *Roster) WithLists(lists map[string]*Group) (*Roster, []string) {
	next := &Roster{raw: r.raw, lists: maps.Clone(r.lists), flat: maps.Clone(r.flat)}
	touched := make(map[string]bool, len(lists))
	for name, list := range lists {
		if list == nil {
			delete(next.lists, name)
		} else {
			next.lists[name] = list
		}
		if r.raw[name] != nil {
			touched[name] = true
		}
	}
	return next, next.update(touched)
}

// update brings touched groups, and those that contain them, up to date.
func (r *Roster) update(touched map[string]bool) []string {
	all := maps.Clone(touched)
	for name, f := range r.flat {
		if slices.ContainsFunc(f.names, func(in string) bool { return touched[in] }) {
			all[name] = true
		}
	}
	for name := range all {
		r.flatten(name)
	}
	return sortedKeys(all)
}

// flatten brings one group up to date.
func (r *Roster) flatten(name string) {
	g := r.raw[name]
	if g == nil || len(g.Spec.Nested()) == 0 && g.Spec.From == nil {
		delete(r.flat, name)
		return
	}
	f := &flatGroup{names: []string{name}}
	for i := 0; i < len(f.names); i++ {
		in := r.raw[f.names[i]]
		f.parts = append(f.parts, in, nil)
		if in == nil {
			continue
		}
		if in.Spec.From != nil {
			f.parts[len(f.parts)-1] = r.lists[in.Name]
		}
		for _, n := range in.Spec.Nested() {
			if !slices.Contains(f.names, n) {
				f.names = append(f.names, n)
			}
		}
	}
	if f.group = f.after(r.flat[name]); f.group == nil {
		f.group = f.whole()
	}
	r.flat[name] = f
}

// whole puts the members of all parts together.
func (f *flatGroup) whole() *Group {
	n := 0
	for _, p := range f.parts {
		if p != nil {
			n += len(p.Spec.Members)
		}
	}
	members := make([]Selector, 0, n)
	for _, p := range f.parts {
		if p == nil {
			continue
		}
		for i := range p.Spec.Members {
			if p.Spec.Members[i].Group == "" {
				members = append(members, p.Spec.Members[i])
			}
		}
	}
	return f.named(&Group{Spec: GroupSpec{Members: members}})
}

// named gives the members what else the group is.
func (f *flatGroup) named(g *Group) *Group {
	self := f.parts[0]
	g.Meta, g.Spec.OnMemberRemoved, g.Spec.From = self.Meta, self.Spec.OnMemberRemoved, self.Spec.From
	return g
}

// after makes the group of what it was before, where it is known that only address ranges have come or gone, in one part: so that whoever
// works with it need not compare long lists. It returns nil where that is not known.
func (f *flatGroup) after(before *flatGroup) *Group {
	if before == nil || !slices.Equal(f.names, before.names) {
		return nil
	}
	var change *MemberChange
	for i, p := range f.parts {
		was := before.parts[i]
		if p == was {
			continue
		}
		if p == nil || was == nil {
			return nil
		}
		c, ok := p.Spec.Since(&was.Spec)
		if !ok || len(WithoutCIDRs(c.Added))+len(WithoutCIDRs(c.Removed)) > 0 {
			return nil
		}
		if len(c.Added)+len(c.Removed) == 0 {
			continue
		}
		if change != nil {
			return nil
		}
		change = c
	}
	if change == nil { // the same members, for all who ask
		g := *before.group
		return f.named(&g)
	}
	leaving := make(map[memberID]int, len(change.Removed))
	for i := range change.Removed {
		leaving[change.Removed[i].member()]++
	}
	c := &MemberChange{Added: change.Added}
	members := before.group.Spec.Members
	for i := 0; i < len(members) && len(leaving) > 0; i++ {
		if members[i].CIDR == "" {
			continue
		}
		// The same range may be in other parts: as many of them go as have gone in this one.
		if id := members[i].member(); leaving[id] > 0 {
			c.Removed, c.RemovedAt = append(c.Removed, members[i]), append(c.RemovedAt, i)
			if leaving[id]--; leaving[id] == 0 {
				delete(leaving, id)
			}
		}
	}
	if len(leaving) > 0 {
		return nil
	}
	return f.named(before.group.Changed(c))
}
