package policy

import (
	"fmt"
	"net/netip"
	"strings"
)

// FilterNeverMatches returns a WarnNeverMatches for every rule of the mirror's filter that can match no packet: its addresses, protocol and
// EtherType have no version of IP in common, or it is about a direction that the mirror does not copy.
func FilterNeverMatches(m *Mirror) (out []Warning) {
	if m.Spec.Filter == nil {
		return nil
	}
	for i := range m.Spec.Filter.Rules {
		r := &m.Spec.Filter.Rules[i]
		parsed, err := parseFilterRule(r)
		if err != nil {
			continue
		}
		if why := r.never(&parsed, m.Spec.Direction); why != "" {
			out = append(out, Warning{Code: WarnNeverMatches, Rule: fmt.Sprintf("filter/%d", i),
				Message: fmt.Sprintf("rule %d of the filter of mirror %q (priority %d, %s) matches nothing: %s", i+1, m.Name, r.Priority, r.Action,
					why)})
		}
	}
	return out
}

// never says why a rule of a mirror that copies a direction matches nothing, "" where it may match something.
func (r *FilterRule) never(parsed *ParsedFilterRule, direction string) string {
	oneWay := func(d string) bool { return d == MirrorFromSource || d == MirrorToSource }
	switch {
	case oneWay(direction) && oneWay(r.Direction) && r.Direction != direction && !r.Symmetric:
		return fmt.Sprintf("it is about direction %s, and the mirror copies %s only", r.Direction, direction)
	case len(parsed.Families()) > 0:
		return ""
	}
	var parts []string
	say := func(what string, v4, v6 bool) {
		switch {
		case v4 && v6:
		case v4:
			parts = append(parts, what+" is of IPv4")
		default:
			parts = append(parts, what+" is of IPv6")
		}
	}
	if e := parsed.EtherType; e != 0 {
		say("etherType", e == EtherIPv4, e == EtherIPv6)
	}
	if r.Protocol != "" {
		v := protoFamily(parsed.Service.Proto)
		say(string("protocol "+r.Protocol), v != 6, v != 4)
	}
	for _, x := range [...]struct {
		name   string
		ranges []netip.Prefix
	}{{"src", parsed.Src}, {"dst", parsed.Dst}} {
		if x.ranges != nil {
			say(x.name, addressesOf(x.ranges, 4) > 0, addressesOf(x.ranges, 6) > 0)
		}
	}
	return strings.Join(parts, ", ")
}
