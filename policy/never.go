package policy

import "fmt"

// NeverMatches returns a WarnNeverMatches for every rule of p that names, in its services, what Open vSwitch's conntrack takes for no first
// packet of a connection, so that policy is not asked about it.
func NeverMatches(p *Policy) []Warning {
	var out []Warning
	for _, d := range [...]Direction{Ingress, Egress} {
		rules := p.Rules(d)
		for i := range rules {
			r := &rules[i]
			for j := range r.Services {
				s, err := ParseService(&r.Services[j])
				if err != nil {
					continue
				}
				if why := s.never(); why != "" {
					out = append(out, Warning{Code: WarnNeverMatches, Policy: p.Name, Rule: string(d) + "/" + r.Name,
						Message: fmt.Sprintf("rule %q (%s, %s) of policy %q matches no %s: %s", r.Name, d, r.Action, p.Name, s.text(), why)})
					break
				}
			}
		}
	}
	return out
}

// text spells a message of ICMP or ICMPv6.
func (s *ParsedService) text() string {
	out := fmt.Sprintf("%s type %d", ProtocolName(s.Proto), *s.Type)
	if s.Code != nil {
		out += fmt.Sprintf(" code %d", *s.Code)
	}
	return out
}

// never says why a service is about no first packet, "" where it is.
func (s *ParsedService) never() string {
	if s.Type == nil {
		return ""
	}
	kind, v6 := *s.Type, s.Proto == ProtoICMPv6
	switch {
	case !v6 && (kind == 3 || kind == 4 || kind == 5 || kind == 11 || kind == 12), v6 && kind >= 1 && kind <= 4: // RFC 792, RFC 4443
		return "errors and redirects pass with the connection that they are about, and otherwise not at all"
	case !v6 && (kind == 0 || kind == 14 || kind == 16), v6 && kind == 129:
		return "answers pass with the request; allow that"
	case v6 && (kind >= 130 && kind <= 136 || kind == 143):
		return "neighbour discovery and MLD pass without policy"
	case !v6 && kind != 8 && kind != 13 && kind != 15, v6 && kind != 128:
		return "conntrack knows no connections of that type, and the messages are dropped as invalid"
	case s.Code != nil && *s.Code != 0:
		return "requests have code 0, and conntrack drops others as invalid"
	}
	return ""
}
