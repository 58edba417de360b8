package policy

import (
	"net/netip"
	"strings"
)

// MaxVNI is the largest VXLAN network identifier (RFC 7348 §5).
const MaxVNI = 1<<24 - 1

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
	if s.Sample != nil {
		c.later(spec.field("sample"), nil, "sampling of mirrored packets", "")
	}
	if s.StopAfter != nil {
		c.later(spec.field("stopAfter"), nil, "mirrors that stop by themselves", "set enabled: false to stop it")
	}
	targets := spec.field("targets")
	switch n := len(s.Targets); {
	case n == 0:
		c.addf(targets, nil, "is required: one target, port or vxlan")
	case n > 1:
		c.later(targets, nil, "several targets of one mirror", "make one mirror for each")
	}
	for i := range s.Targets {
		c.target(targets.at(i), &s.Targets[i])
		c.sourceIsTarget(spec.field("sources"), s.Sources, s.Targets[i].Port)
	}
	return c.faults
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
	if t.VXLAN != nil {
		n++
		c.vxlan(at.field("vxlan"), t.VXLAN)
	}
	if t.Pcap != nil {
		n++
		c.later(at.field("pcap"), nil, "pcap files", "")
	}
	if t.Events != nil {
		n++
		c.later(at.field("events"), nil, "events as a target", "")
	}
	switch {
	case n == 0:
		c.addf(at, nil, "leads nowhere: give port or vxlan")
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

func (c *checker) vxlan(at pointer, t *VXLANTarget) {
	var remote, local netip.Addr
	var rok, lok bool
	if t.Remote == "" {
		c.addf(at.field("remote"), nil, "is required")
	} else {
		remote, rok = c.unicast(at.field("remote"), t.Remote)
	}
	if t.Local != "" {
		local, lok = c.unicast(at.field("local"), t.Local)
	}
	if rok && lok {
		switch {
		case remote.Is4() != local.Is4():
			c.addf(at.field("local"), t.Local, "is of another address family than remote")
		case remote == local:
			c.addf(at.field("local"), t.Local, "is the same as remote")
		}
	}
	if t.VNI != nil && (*t.VNI < 0 || *t.VNI > MaxVNI) {
		c.addf(at.field("vni"), *t.VNI, "VNI %d is outside the range 0-%d", *t.VNI, MaxVNI)
	}
	if t.DstPort < 0 || t.DstPort > 65535 {
		c.addf(at.field("dstPort"), t.DstPort, "port %d is outside the range 1-65535", t.DstPort)
	}
}
