package host

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/policy"
)

// remedy says what would have to change for one side to let the packet pass.
func (x *crossing) remedy(dir policy.Direction, d policy.SideDecision, why policy.Why) []string {
	self, peer := x.named(x.packet.Src, x.packet.SrcIP.String()), x.named(x.packet.Dst, x.packet.DstIP.String())
	preposition := "to"
	if dir == policy.Ingress {
		self, peer, preposition = peer, self, "from"
	}
	what := fmt.Sprintf("%s %s %s", x.service(), preposition, peer)
	var out []string
	if i := slices.IndexFunc(why.Matching, func(m policy.Match) bool { return m.Ref == d.Ref }); i >= 0 {
		p := why.Matching[i].Policy
		out = append(out, fmt.Sprintf("%s of %s: %s denies it. Change or delete that rule, or allow %s ahead of it: in a policy for %s in a "+
			"higher tier than %s%s", dir, self, d.Ref, what, self, p.EffectiveTier(), smaller(p)))
	} else {
		var isolating []string
		for _, p := range why.Applying {
			if p.Shuts(dir) {
				isolating = append(isolating, p.Name)
			}
		}
		by := fmt.Sprintf("policy %s isolates it", some(isolating))
		if len(isolating) > 1 {
			by = fmt.Sprintf("policies %s isolate it", some(isolating))
		}
		out = append(out, fmt.Sprintf(
			"%s of %s: no rule allows %s, and %s. Add a rule that allows it, to policy %s or to any other that applies "+
				"to %s", dir, self, what, by, d.Ref.Policy, self))
	}
	for i, n := range why.Near {
		if i == 3 {
			out = append(out, fmt.Sprintf("… and %d more rules that nearly match", len(why.Near)-i))
			break
		}
		if n.Service {
			out = append(out, fmt.Sprintf("rule %s allows %s, but only %s", n.Ref, peer, services(n.Rule.Services)))
		} else {
			out = append(out, fmt.Sprintf("rule %s allows %s, but %s is not among those that it names", n.Ref, x.service(), peer))
		}
	}
	return out
}

// smaller says which priority comes before that of a policy in its tier.
func smaller(p *policy.Policy) string {
	if n := p.EffectivePriority(); n > 0 {
		return fmt.Sprintf(", or in that tier with a priority below %d", n)
	}
	return ""
}

func (x *crossing) named(w *policy.Workload, otherwise string) string {
	if w == nil {
		return otherwise
	}
	return orElse(w.Endpoint, w.Port)
}

// service spells protocol and port of the packet.
func (x *crossing) service() string {
	name := policy.ProtocolName(x.Proto)
	switch x.Proto {
	case policy.ProtoICMP, policy.ProtoICMPv6:
		return fmt.Sprintf("%s type %d", name, x.Type)
	case policy.ProtoTCP, policy.ProtoUDP, policy.ProtoSCTP:
		return fmt.Sprintf("%s %d", name, x.DstPort)
	}
	return name
}

// services spells the services of a rule.
func services(all []policy.Service) string {
	var out []string
	for _, s := range all {
		text := string(s.Protocol)
		if len(s.Ports) > 0 {
			text += " " + strings.Join(s.Ports, ", ")
		}
		if len(s.SourcePorts) > 0 {
			text += " from " + strings.Join(s.SourcePorts, ", ")
		}
		if s.Type != nil {
			text += fmt.Sprintf(" type %d", *s.Type)
		}
		if s.Code != nil {
			text += fmt.Sprintf(" code %d", *s.Code)
		}
		out = append(out, text)
	}
	if len(out) > 3 {
		out = append(out[:3], fmt.Sprintf("and %d more", len(out)-3))
	}
	return strings.Join(out, "; ")
}
