package policy

import (
	"fmt"
	"slices"
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
				for i := range g.Spec.Members {
					if m := &g.Spec.Members[i]; m.CIDR != "" {
						c.addf(at.field("group"), s.Group, "group %s has the address range %s, but only endpoints can be selected here", quote(s.Group),
							m.CIDR)
						break
					}
				}
			}
		}
		if s.Bridge != "" && l.Bridge != nil && !l.Bridge(s.Bridge) {
			c.add(Fault{Pointer: at.field("bridge").String(), Value: s.Bridge, Code: CodeUnknownRef,
				Detail: fmt.Sprintf("bridge %s is not managed on any host", quote(s.Bridge))})
		}
	})
	return c.faults
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
