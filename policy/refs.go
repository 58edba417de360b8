package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Lookup finds what resources refer to. A nil function leaves references of that sort unchecked.
type Lookup struct {
	Group func(name string) (*Group, bool)
	// Bridge reports whether a bridge of that name is managed on some host.
	Bridge func(name string) bool
}

// Ref is a reference to another resource.
type Ref struct {
	Pointer string
	Kind    Kind
	Name    string
}

// Refs lists the references of a resource to other resources, so that a caller can find who uses a resource before it changes or goes.
func Refs(r Resource) []Ref {
	var refs []Ref
	if g, ok := r.(*Group); ok && len(g.Spec.Nested()) == 0 {
		return nil // it may have many members
	}
	eachSelector(r, func(at pointer, s *Selector, _ role) {
		if s.Group != "" {
			refs = append(refs, Ref{at.field("group").String(), KindGroup, s.Group})
		}
	})
	return refs
}

// RefersTo reports whether the policy names one of the groups.
func (p *Policy) RefersTo(groups map[string]bool) bool {
	names := func(ss []Selector) bool {
		for i := range ss {
			if ss[i].Group != "" && groups[ss[i].Group] {
				return true
			}
		}
		return false
	}
	if len(groups) == 0 || names(p.Spec.AppliesTo) {
		return len(groups) > 0
	}
	for _, d := range [...]Direction{Ingress, Egress} {
		rules := p.Rules(d)
		for i := range rules {
			if names(rules[i].Peers(d)) {
				return true
			}
		}
	}
	return false
}

// HostsNamed lists the hosts that selectors of a resource name, each once, in order.
func HostsNamed(r Resource) []string {
	var names []string
	if g, ok := r.(*Group); ok { // it may have many address ranges, which are on no host
		r = &Group{Spec: GroupSpec{Members: g.Spec.Others()}}
	}
	eachSelector(r, func(_ pointer, s *Selector, _ role) {
		if s.Host != "" {
			names = append(names, s.Host)
		}
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// ValidateRefs lists the references of a resource that lead nowhere, and those to a group that cannot be used there: where endpoints are
// selected (appliesTo, mirror sources), a group with address ranges would be taken for less than it says. After a change of a group,
// check those who refer to it again.
func ValidateRefs(r Resource, l Lookup) Faults {
	var c checker
	eachSelector(r, func(at pointer, s *Selector, as role) {
		if s.Group != "" && l.Group != nil {
			g, ok := l.Group(s.Group)
			switch {
			case !ok:
				c.add(Fault{Pointer: at.field("group").String(), Value: s.Group, Code: CodeUnknownRef, Detail: fmt.Sprintf("there is no group %s",
					quote(s.Group))})
			case as == asSubject || as == asSource:
				if what := l.ranges(g, map[string]bool{}); what != "" {
					c.addf(at.field("group"), s.Group, "%s, but only endpoints can be selected here", what)
				}
			case as == asMember:
				c.nesting(at.field("group"), r.GetMeta().Name, s.Group, l)
			}
		}
		if s.Bridge != "" && l.Bridge != nil && !l.Bridge(s.Bridge) {
			c.add(Fault{Pointer: at.field("bridge").String(), Value: s.Bridge, Code: CodeUnknownRef,
				Detail: fmt.Sprintf("bridge %s is not managed on any host", quote(s.Bridge))})
		}
	})
	return c.faults
}

// ranges says which address range a group has, itself or by a group in it; "" = none.
func (l Lookup) ranges(g *Group, seen map[string]bool) string {
	seen[g.Name] = true
	if g.Spec.From != nil {
		return fmt.Sprintf("group %s has address ranges from %s", quote(g.Name), g.Spec.From)
	}
	for i := range g.Spec.Members {
		if m := &g.Spec.Members[i]; m.CIDR != "" {
			return fmt.Sprintf("group %s has the address range %s", quote(g.Name), m.CIDR)
		}
	}
	for _, name := range g.Spec.Nested() {
		if in, ok := l.Group(name); ok && !seen[name] {
			if what := l.ranges(in, seen); what != "" {
				return what
			}
		}
	}
	return ""
}

// nesting refuses that group outer contains inner where outer is in inner already, or groups contain each other too deep.
func (c *checker) nesting(at pointer, outer, inner string, l Lookup) {
	n := nest{lookup: l, depths: map[string]int{}}
	depth := n.depth(inner, []string{outer})
	switch {
	case n.circle != nil && n.circle[0] == outer:
		c.add(Fault{Pointer: at.String(), Value: inner, Code: CodeGroupCycle,
			Detail: fmt.Sprintf("group %s would contain itself: %s", quote(outer), strings.Join(n.circle, " > "))})
	case depth >= MaxGroupDepth:
		c.add(Fault{Pointer: at.String(), Value: inner, Code: CodeTooLarge,
			Detail: fmt.Sprintf("groups would contain groups %d deep, more than %d", depth+1, MaxGroupDepth)})
	}
}

// nest follows groups into groups.
type nest struct {
	lookup Lookup
	depths map[string]int
	circle []string // one that was found: the names from a group to itself
}

// depth returns how deep groups are in a group, 1 = it contains none; path leads to it.
func (n *nest) depth(name string, path []string) int {
	if i := slices.Index(path, name); i >= 0 {
		if n.circle == nil || i == 0 {
			n.circle = append(slices.Clone(path[i:]), name)
		}
		return 0
	}
	if d, known := n.depths[name]; known {
		return d
	}
	most := 0
	if g, ok := n.lookup.Group(name); ok {
		path = append(slices.Clip(path), name)
		for _, in := range g.Spec.Nested() {
			most = max(most, n.depth(in, path))
		}
	}
	n.depths[name] = most + 1
	return most + 1
}

// Holders adds to names those of the groups that contain one of them, directly or by way of others.
func Holders(names map[string]bool, groups []*Group) {
	for more := true; more; {
		more = false
		for _, g := range groups {
			if !names[g.Name] && slices.ContainsFunc(g.Spec.Nested(), func(in string) bool { return names[in] }) {
				names[g.Name], more = true, true
			}
		}
	}
}

// eachSelector visits every selector of a resource with its place and role.
func eachSelector(r Resource, visit func(at pointer, s *Selector, as role)) {
	var root pointer
	spec := root.field("spec")
	list := func(at pointer, ss []Selector, as role) {
		for i := range ss {
			visit(at.at(i), &ss[i], as)
		}
	}
	switch r := r.(type) {
	case *Mirror:
		list(spec.field("sources"), r.Spec.Sources, asSource)
		list(spec.field("exclude"), r.Spec.Exclude, asSource)
	case *Policy:
		list(spec.field("appliesTo"), r.Spec.AppliesTo, asSubject)
		for i := range r.Spec.Ingress {
			list(spec.path("ingress", i, "from"), r.Spec.Ingress[i].From, asPeer)
		}
		for i := range r.Spec.Egress {
			list(spec.path("egress", i, "to"), r.Spec.Egress[i].To, asPeer)
		}
	case *Group:
		list(spec.field("members"), r.Spec.Members, asMember)
	case *Endpoint:
		visit(spec.field("match"), &r.Spec.Match, asMatch)
	case *Quarantine:
		visit(spec.field("match"), &r.Spec.Match, asMatch)
	}
}
