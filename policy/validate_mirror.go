package policy

import "strings"

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
	c.notYet(s.CapturePoint != "", spec.field("capturePoint"), "a choice of where copies are taken",
		"leave it out: what comes in is copied before policies judge it, and what goes out after", func(at pointer) {
			c.oneOf(at, s.CapturePoint, CaptureWire, CaptureDelivered)
		})
	c.notYet(s.MTUPolicy != "", spec.field("mtuPolicy"), "cutting to what a tunnel carries", "use snaplen", func(at pointer) {
		c.oneOf(at, s.MTUPolicy, MTUTruncate, MTUFail)
	})
	c.notYet(s.Balance != nil, spec.field("balance"), "balancing over targets", "without it each target gets every copy", func(at pointer) {
		c.balance(at, s.Balance)
	})
	c.notYet(s.Force, spec.field("force"), "targets that are somebody's ports", "", nil)
	targets := spec.field("targets")
	switch n := len(s.Targets); {
	case n == 0:
		c.addf(targets, nil, "is required: one target, port or vxlan")
	case n > MaxTargets:
		c.addf(targets, nil, "has %d targets; at most %d are possible", n, MaxTargets)
	}
	for i := range s.Targets {
		c.target(targets.at(i), &s.Targets[i])
		c.sourceIsTarget(spec.field("sources"), s.Sources, s.Targets[i].Port)
		for j := range i {
			if s.Targets[i].same(&s.Targets[j]) {
				c.addf(targets.at(i), nil, "is where target %d leads: it would get each packet twice", j)
			}
		}
	}
	return c.faults
}

// notYet checks what is of a later version, and refuses it for that if there is no other fault.
func (c *checker) notYet(given bool, at pointer, what, instead string, check func(at pointer)) {
	if !given {
		return
	}
	before := len(c.faults)
	if check != nil {
		check(at)
	}
	if len(c.faults) == before {
		c.later(at, nil, what, instead)
	}
}

// same reports whether two targets are certainly one.
func (t *MirrorTarget) same(o *MirrorTarget) bool {
	if t.Port != nil && o.Port != nil {
		return t.Port.Name == o.Port.Name
	}
	x, is := t.Tunnel()
	y, too := o.Tunnel()
	return is && too && x.same(&y)
}

// sourceIsTarget refuses a mirror that would take its own copies.
func (c *checker) sourceIsTarget(at pointer, sources []Selector, t *PortTarget) {
	if t == nil || t.Name == "" {
		return
	}
	for i := range sources {
		if sources[i].Port == t.Name {
			c.add(Fault{Pointer: at.path(i, "port").String(), Value: t.Name, Code: CodeSourceIsTarget,
				Detail: "is also the target: the mirror would copy its own copies"})
		}
	}
}

func (c *checker) target(at pointer, t *MirrorTarget) {
	n := 0
	if t.Port != nil {
		n++
		c.portName(at.path("port", "name"), t.Port.Name)
	}
	n += c.tunnels(at, t) + c.laterTargets(at, t)
	switch {
	case n == 0:
		c.addf(at, nil, "leads nowhere: give port, vxlan, geneve, gre or erspan")
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
