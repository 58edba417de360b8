package policy

import (
	"slices"
	"strings"
)

// MaxVNI is the largest VXLAN network identifier (RFC 7348 §5).
const MaxVNI = 1<<24 - 1

// MaxTargets is how many targets a mirror may have.
const MaxTargets = 16

// Bounds of MirrorSpec.Snaplen: the header of a frame, and what Open vSwitch can cut to.
const (
	MinSnaplen = 14
	MaxSnaplen = 65535
)

// Validate implements Resource.
func (m *Mirror) Validate() Faults {
	var c checker
	var root pointer
	c.meta(&root, &m.Meta)
	spec := root.field("spec")
	s := &m.Spec
	if len(s.Sources) == 0 {
		c.addf(spec.field("sources"), nil, "is required and must not be empty: for everything of a bridge write [{bridge: NAME}]")
	}
	for i := range s.Sources {
		c.selector(spec.path("sources", i), &s.Sources[i], asSource)
	}
	for i := range s.Exclude {
		c.selector(spec.path("exclude", i), &s.Exclude[i], asSource)
	}
	c.oneOf(spec.field("direction"), s.Direction, MirrorBoth, MirrorFromSource, MirrorToSource)
	if s.Filter != nil {
		c.filter(spec.field("filter"), s.Filter)
	}
	if s.Snaplen != 0 && (s.Snaplen < MinSnaplen || s.Snaplen > MaxSnaplen) {
		c.addf(spec.field("snaplen"), s.Snaplen, "%d is outside the range %d-%d", s.Snaplen, MinSnaplen, MaxSnaplen)
	}
	c.sample(spec.field("sample"), s.Sample)
	c.vlanTag(spec.field("vlanTag"), s.VLANTag)
	c.life(spec, s)
	c.capturePoint(spec.field("capturePoint"), s)
	c.oneOf(spec.field("mtuPolicy"), s.MTUPolicy, MTUTruncate, MTUFail)
	if s.Balance != nil {
		c.balance(spec.field("balance"), s.Balance, len(s.Targets))
	}
	targets := spec.field("targets")
	switch n := len(s.Targets); {
	case n == 0:
		c.addf(targets, nil, "is required: one target, port or vxlan")
	case n > MaxTargets:
		c.addf(targets, nil, "has %d targets; at most %d are possible", n, MaxTargets)
	}
	for i := range s.Targets {
		c.target(targets.at(i), &s.Targets[i])
		c.sourceIsTarget(spec.field("sources"), s.Sources, &s.Targets[i])
		if s.Targets[i].VM != "" && !s.Force {
			c.addf(targets.path(i, "vm"), s.Targets[i].VM, "the machine would see what the mirror copies; if it is to, write force: true")
		}
		for j := range i {
			if s.Targets[i].same(&s.Targets[j]) {
				c.addf(targets.at(i), nil, "is where target %d leads: it would get each packet twice", j)
			}
		}
	}
	c.flooding(spec, s)
	if s.Force && len(s.Targets) > 0 && !slices.ContainsFunc(s.Targets, MirrorTarget.There) {
		c.addf(spec.field("force"), nil, "forces nothing: no target is a machine or a port that is there without tapwall")
	}
	return c.faults
}

// There reports whether the target is there without tapwall: a machine, or a port that is not to be made.
func (t MirrorTarget) There() bool { return t.VM != "" || t.Port != nil && !t.Port.Create }

// MixesVLANs reports whether there are sources by VLAN and others beside them.
func (s *MirrorSpec) MixesVLANs() bool {
	byVLAN := func(x Selector) bool { return x.VLAN != nil }
	return slices.ContainsFunc(s.Sources, byVLAN) && slices.ContainsFunc(s.Sources, func(x Selector) bool { return !byVLAN(x) })
}

// capturePoint checks where copies are taken.
func (c *checker) capturePoint(at pointer, s *MirrorSpec) {
	c.oneOf(at, s.CapturePoint, CaptureWire, CaptureDelivered)
	if s.CapturePoint == CaptureDelivered && s.MixesVLANs() {
		c.addf(at, s.CapturePoint, "cannot be had with vlan sources beside others: make one mirror for the VLANs and one for the others")
	}
}

// same reports whether two targets are certainly one.
func (t *MirrorTarget) same(o *MirrorTarget) bool {
	switch {
	case t.Port != nil && o.Port != nil:
		return t.Port.Name == o.Port.Name
	case t.Pcap != nil && o.Pcap != nil:
		return t.Pcap.BaseName() == o.Pcap.BaseName()
	case t.Buffer != nil && o.Buffer != nil, t.Events != nil && o.Events != nil:
		return true
	}
	if t.VM != "" {
		return t.VM == o.VM
	}
	x, is := t.Tunnel()
	y, too := o.Tunnel()
	return is && too && x.same(&y)
}

// sourceIsTarget refuses a mirror that would take its own copies.
func (c *checker) sourceIsTarget(at pointer, sources []Selector, t *MirrorTarget) {
	is := func(i int, field, source, target string) {
		if target != "" && source == target {
			c.add(Fault{Pointer: at.path(i, field).String(), Value: target, Code: CodeSourceIsTarget,
				Detail: "is also the target: the mirror would copy its own copies"})
		}
	}
	for i := range sources {
		if t.Port != nil {
			is(i, "port", sources[i].Port, t.Port.Name)
		}
		is(i, "vm", sources[i].VM, t.VM)
	}
}

func (c *checker) target(at pointer, t *MirrorTarget) {
	n := 0
	if t.Port != nil {
		n++
		c.portName(at.path("port", "name"), t.Port.Name)
	}
	if t.VM != "" {
		n++
		c.word(at.field("vm"), t.VM)
	}
	n += c.tunnels(at, t) + c.captures(at, t) + c.rspan(at, t)
	switch {
	case n == 0:
		c.addf(at, nil, "leads nowhere: give port, vm, vxlan, geneve, gre, erspan, rspan, pcap, buffer or events")
	case n > 1:
		c.addf(at, nil, "must lead to exactly one thing, not %d", n)
	}
}

func (c *checker) portName(at pointer, name string) {
	ok := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '.' || r == '-'
	}
	switch {
	case name == "":
		c.addf(at, nil, "is required")
	case len(name) > MaxPortNameLength:
		c.addf(at, name, "is longer than %d bytes, which a network device cannot be called", MaxPortNameLength)
	case strings.IndexFunc(name, func(r rune) bool { return !ok(r) }) >= 0, name == ".", name == "..", name[0] == '-':
		c.addf(at, name, "must be a device name of letters, digits, _, . and -")
	}
}
