package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of names and labels.
const (
	MaxNameLength       = 63  // a DNS label, RFC 1123 §2.1
	MaxLabelKeyLength   = 253 // bytes
	MaxLabelValueLength = 253 // bytes
	MaxPortNameLength   = 15  // bytes; IFNAMSIZ without its terminator
	MaxMACs             = 64  // of an Endpoint; each is two flows
)

// checker collects the faults of one resource.
type checker struct{ faultList }

// later records that something is known but of a later version, and what to do until then.
func (c *checker) later(at pointer, value any, what, instead string) {
	detail := "comes later: this version does not support " + what + " yet"
	if instead != "" {
		detail += "; " + instead
	}
	c.add(Fault{Pointer: at.String(), Value: value, Code: CodeNotSupported, Detail: detail})
}

func (c *checker) meta(root *pointer, m *Meta) {
	c.name(root.field("name"), m.Name)
	c.labels(root.field("labels"), m.Labels)
	if m.Revision < 0 {
		c.addf(root.field("revision"), m.Revision, "must not be negative")
	}
}

func (c *checker) name(at pointer, name string) {
	switch {
	case name == "":
		c.addf(at, nil, "is required")
	case !isDNSLabel(name):
		c.addf(at, name, "must be a DNS label: 1-%d of a-z, 0-9 and -, with a letter or digit at both ends", MaxNameLength)
	}
}

func isDNSLabel(s string) bool {
	if len(s) == 0 || len(s) > MaxNameLength || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, b := range []byte(s) {
		if (b < 'a' || b > 'z') && (b < '0' || b > '9') && b != '-' {
			return false
		}
	}
	return true
}

// labels checks keys and values. They are as wide as external_ids of OVSDB, which they are compared with, but for what would break the
// "key=value,…" of a label filter.
func (c *checker) labels(at pointer, labels map[string]string) {
	for _, k := range sortedKeys(labels) {
		switch {
		case k == "":
			c.addf(at.field(k), nil, "a label key must not be empty")
		case len(k) > MaxLabelKeyLength:
			c.addf(at.field(shorten(k).(string)), nil, "the label key is longer than %d bytes", MaxLabelKeyLength)
		case !isPrintable(k) || strings.ContainsAny(k, " =,!\"'"):
			c.addf(at.field(k), nil, `a label key must not contain spaces, control characters or any of =,!"'`)
		}
		switch v := labels[k]; {
		case len(v) > MaxLabelValueLength:
			c.addf(at.field(k), v, "the label value is longer than %d bytes", MaxLabelValueLength)
		case !isPrintable(v):
			c.addf(at.field(k), v, "a label value must be printable text")
		}
	}
}

func isPrintable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// word checks a name that OVSDB or an orchestrator gave, which tapwall only compares with.
func (c *checker) word(at pointer, s string) {
	switch {
	case len(s) > MaxLabelValueLength:
		c.addf(at, s, "is longer than %d bytes", MaxLabelValueLength)
	case !isPrintable(s):
		c.addf(at, s, "must be printable text")
	case strings.TrimSpace(s) != s:
		c.addf(at, s, "must not begin or end with a space")
	}
}

func (c *checker) mac(at pointer, s string) {
	if _, err := ParseMAC(s); err != nil {
		c.addf(at, s, "%v", err)
	}
}

// macs checks the list of further addresses beside the first one.
func (c *checker) macs(at pointer, list []string, first string) {
	if list != nil && len(list) == 0 {
		c.addf(at, nil, "an empty list declares nothing: leave it out")
	}
	if len(list) > MaxMACs {
		c.addf(at, nil, "has %d addresses, more than %d", len(list), MaxMACs)
		return
	}
	seen := make(map[string]int, len(list))
	main, _ := ParseMAC(first)
	for i, s := range list {
		m, err := ParseMAC(s)
		switch j, dup := seen[m]; {
		case err != nil:
			c.addf(at.at(i), s, "%v", err)
		case dup:
			c.addf(at.at(i), s, "repeats address %d of the list", j)
		case m == main:
			c.addf(at.at(i), s, "is the address in mac already")
		default:
			seen[m] = i
		}
	}
}

func (c *checker) vlan(at pointer, v int) {
	if v < 1 || v > 4094 {
		c.addf(at, v, "VLAN %d is outside the range 1-4094", v)
	}
}

// unicast reads the address of one host.
func (c *checker) unicast(at pointer, s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		if p, err := netip.ParsePrefix(s); err == nil {
			c.addf(at, s, "must be an address without a length: %q", p.Addr())
		} else {
			c.addf(at, s, "must be an IPv4 or IPv6 address")
		}
		return netip.Addr{}, false
	}
	switch {
	case a.Is4In6():
		c.addf(at, s, "IPv4 inside IPv6 is not accepted: write %q", a.Unmap().WithZone(""))
	case a.Zone() != "":
		c.addf(at, s, "must not have a zone: write %q", a.WithZone(""))
	case a.IsMulticast(), a.IsUnspecified(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		c.addf(at, s, "must be the address of one host, not a multicast, broadcast or unspecified address")
	default:
		return a, true
	}
	return netip.Addr{}, false
}

// oneOf checks a word against the list of what is possible; the empty word is the default.
func (c *checker) oneOf(at pointer, s string, words ...string) {
	if s != "" && !slices.Contains(words, s) {
		c.addf(at, s, "unknown value %s: must be %s", quote(s), orList(words))
	}
}

func orList(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " or " + words[n-1]
	}
	return strings.Join(words, "")
}

// Validate implements Resource.
func (g *Group) Validate() Faults {
	var c checker
	var root pointer
	c.meta(&root, &g.Meta)
	at := root.path("spec", "members")
	if g.Spec.From != nil {
		c.source(root.path("spec", "from"), g.Spec.From)
	} else if g.Spec.Members == nil {
		c.addf(at, nil, "is required; an empty list is a group of nobody")
	}
	if n := len(g.Spec.Members); n > MaxMembers {
		c.add(Fault{Pointer: at.String(), Code: CodeTooLarge, Detail: fmt.Sprintf("has %d members, more than %d", n, MaxMembers)})
		return c.faults
	}
	for i := range g.Spec.Members {
		if g.Spec.Members[i].validCIDR() {
			continue
		}
		c.selector(at.at(i), &g.Spec.Members[i], asMember)
	}
	c.oneOf(root.path("spec", "onMemberRemoved"), g.Spec.OnMemberRemoved, OnMemberRemovedRevoke, OnMemberRemovedKeep)
	return c.faults
}

// Validate implements Resource.
func (e *Endpoint) Validate() Faults {
	var c checker
	var root pointer
	c.meta(&root, &e.Meta)
	spec := root.field("spec")
	c.selector(spec.field("match"), &e.Spec.Match, asMatch)
	c.labels(spec.field("labels"), e.Spec.Labels)
	if e.Spec.MAC != "" {
		c.mac(spec.field("mac"), e.Spec.MAC)
	}
	c.macs(spec.field("macs"), e.Spec.MACs, e.Spec.MAC)
	c.oneOf(spec.field("unknownMac"), e.Spec.UnknownMAC, UnknownMACJudge, UnknownMACDrop)
	c.oneOf(spec.field("mode"), e.Spec.Mode, ModeEnforce, ModeAudit)
	c.oneOf(spec.field("antiSpoof"), e.Spec.AntiSpoof, AntiSpoofAuto, AntiSpoofOn, AntiSpoofOff)
	c.allowed(spec.field("allowedAddresses"), e.Spec.AllowedAddresses)
	if len(e.Spec.AllowedAddresses) > 0 && len(e.Spec.Addresses) == 0 && e.Spec.AntiSpoof != AntiSpoofOn {
		c.addf(spec.field("allowedAddresses"), nil, "allows nothing: without addresses, anti-spoofing is off unless antiSpoof is on")
	}
	seen := make(map[netip.Addr]int, len(e.Spec.Addresses))
	for i, s := range e.Spec.Addresses {
		at := spec.path("addresses", i)
		a, ok := c.unicast(at, s)
		if !ok {
			continue
		}
		if j, dup := seen[a]; dup {
			c.addf(at, s, "repeats address %d of the list", j)
			continue
		}
		seen[a] = i
	}
	return c.faults
}

// MaxAllowed is how many allowedAddresses an endpoint may have.
const MaxAllowed = 64

func (c *checker) allowed(at pointer, list []string) {
	if len(list) > MaxAllowed {
		c.addf(at, nil, "has %d addresses, more than %d: use ranges", len(list), MaxAllowed)
		return
	}
	seen := make(map[netip.Prefix]int, len(list))
	for i, s := range list {
		p, err := ParseAllowed(s)
		switch j, dup := seen[p]; {
		case err != nil:
			c.addf(at.at(i), s, "%v", err)
		case dup:
			c.addf(at.at(i), s, "repeats address %d of the list", j)
		default:
			seen[p] = i
		}
	}
}

// role is what a selector is used for; it decides which kinds make sense.
type role uint8

const (
	asSubject role = iota // appliesTo
	asPeer                // from, to
	asMember              // of a group
	asMatch               // of an Endpoint resource
	asSource              // of a mirror, and what it excludes
)

// endpointKinds are those that say what an endpoint is.
var endpointKinds = []SelectorKind{SelectPort, SelectLabels, SelectVM, SelectNeutronPort, SelectMAC, SelectVLAN, SelectBridge}

// kindsOf lists what may be selected by in each role.
var kindsOf = [...][]SelectorKind{
	asSubject: slices.Concat(endpointKinds, []SelectorKind{SelectGroup}),
	asPeer:    slices.Concat(endpointKinds, []SelectorKind{SelectGroup, SelectCIDR, SelectEntity}),
	asMember:  slices.Concat(endpointKinds, []SelectorKind{SelectGroup, SelectCIDR}),
	asMatch:   {SelectPort, SelectNeutronPort, SelectVM, SelectMAC},
	asSource:  slices.Concat(endpointKinds, []SelectorKind{SelectGroup, SelectCIDR}),
}

// kinds lists what may be selected by in this role. It is not changed.
func (r role) kinds() []SelectorKind { return kindsOf[r] }

// refusal says why a kind makes no sense in this role.
func (r role) refusal(k SelectorKind) string {
	switch {
	case r == asSubject && k == SelectCIDR:
		return "a policy applies to endpoints, not to addresses: select by labels, or give an Endpoint resource these addresses and a label"
	case r == asSubject && k == SelectEntity:
		return "a policy applies to endpoints, not to entities: for all endpoints of a bridge write {bridge: NAME}"
	case r == asMember && k == SelectEntity:
		return "a group cannot contain entities: write the entity beside the group where it is used"
	case r == asSource && k == SelectEntity:
		return "a mirror takes from endpoints, not from entities: for everything of a bridge write {bridge: NAME}"
	}
	kinds := r.kinds()
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = string(k)
	}
	return fmt.Sprintf("%s cannot be used here: only %s", k, orList(words))
}

func (c *checker) selector(at pointer, s *Selector, r role) {
	kind, n := s.kinds()
	switch {
	case n == 0 && len(s.Except) > 0:
		c.addf(at.field("except"), nil, "except goes with cidr")
	case n == 0 && s.Host != "":
		c.addf(at, nil, "host narrows what else the selector says: add one of %s; for everybody on a host write {labels: {host: %s}}",
			orList(strs(endpointKinds)), s.Host)
	case n == 0:
		c.addf(at, nil, "selects by nothing: give one of %s", orList(strs(r.kinds())))
	case n > 1:
		c.addf(at, nil, "must select by exactly one thing, not %d; list them separately for any of them, or use several labels for all of them",
			n)
	case kind == SelectFQDN:
		c.later(at.field("fqdn"), s.FQDN, "names", "write cidr")
	case !slices.Contains(r.kinds(), kind):
		c.add(Fault{Pointer: at.field(string(kind)).String(), Detail: r.refusal(kind)})
	}
	if s.Host != "" {
		c.word(at.field("host"), s.Host)
		if n == 1 && !slices.Contains(endpointKinds, kind) {
			c.addf(at.field("host"), nil, "host goes with %s, not with %s", orList(strs(endpointKinds)), kind)
		}
	}
	c.selectorValues(at, s)
	if kind != SelectCIDR && n == 1 && len(s.Except) > 0 {
		c.addf(at.field("except"), nil, "except goes with cidr, not with %s", kind)
	}
}

func strs[T ~string](in []T) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = string(s)
	}
	return out
}

// selectorValues checks every field that is set, also where there is one too many.
func (c *checker) selectorValues(at pointer, s *Selector) {
	if s.Labels != nil {
		if len(s.Labels) == 0 {
			c.addf(at.field("labels"), nil, "empty labels select nobody; for all endpoints of a bridge write {bridge: NAME}")
		}
		c.labels(at.field("labels"), s.Labels)
	}
	for _, f := range []struct{ key, value string }{{"port", s.Port}, {"vm", s.VM}, {"neutronPort", s.NeutronPort}, {"bridge", s.Bridge}} {
		c.word(at.field(f.key), f.value)
	}
	if s.MAC != "" {
		c.mac(at.field("mac"), s.MAC)
	}
	if s.VLAN != nil {
		c.vlan(at.field("vlan"), *s.VLAN)
	}
	if s.Group != "" {
		c.name(at.field("group"), s.Group)
	}
	if s.Entity != "" && !slices.Contains(entities[:], s.Entity) {
		c.addf(at.field("entity"), s.Entity, "must be %s", orList(entities[:]))
	}
	if s.CIDR != "" {
		c.cidr(at, s)
	}
}

func (c *checker) cidr(at pointer, s *Selector) {
	p, err := ParseCIDR(s.CIDR)
	if err != nil {
		c.addf(at.field("cidr"), s.CIDR, "%v", err)
	}
	if s.Except != nil && len(s.Except) == 0 {
		c.addf(at.field("except"), nil, "an empty list excepts nothing: leave it out")
	}
	for i, text := range s.Except {
		at := at.path("except", i)
		x, xerr := ParseCIDR(text)
		switch {
		case xerr != nil:
			c.addf(at, text, "%v", xerr)
		case err != nil: // nothing to compare with
		case x.Addr().Is4() != p.Addr().Is4():
			c.addf(at, text, "is of another address family than cidr %s", p)
		case x.Bits() < p.Bits() || !p.Contains(x.Addr()):
			c.addf(at, text, "is not inside cidr %s", p)
		case x == p:
			c.addf(at, text, "excepts all of cidr %s, so that nothing is left", p)
		}
	}
}
