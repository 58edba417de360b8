package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// Set is everything that decides about packets of one host.
type Set struct {
	Policies  []*Policy
	Groups    map[string]*Group
	Workloads []*Workload // of all hosts, as far as they are known
	// HostAddresses are the host's own.
	HostAddresses []netip.Addr
	// Record is that of the bridge. It decides no verdict.
	Record Record
}

// Packet is the first packet of a new connection as a bridge sees it. Replies, related errors and later packets of a connection follow
// the verdict of the first and are not evaluated.
type Packet struct {
	Bridge string
	// Src and Dst are the endpoints of this bridge that send and receive it; nil = not an endpoint of this bridge.
	Src, Dst *Workload
	// SrcHost and DstHost: it is sent from, or to, the bridge's own port, which is none of the Workloads.
	SrcHost, DstHost bool

	SrcIP, DstIP netip.Addr
	Proto        uint8  // IP protocol number
	SrcPort      uint16 // 0 for protocols without ports
	DstPort      uint16
	ICMPType     uint8 // 0 for protocols but ICMP and ICMPv6
	ICMPCode     uint8
}

// Decision is the verdict on a packet. It passes if it passes on both sides.
type Decision struct {
	Effect  Effect       // of both sides, see Effect.Both; Audit also if a side noted somebody who would deny
	Egress  SideDecision // by the policies of the sender
	Ingress SideDecision // by the policies of the receiver
	// Spoof is why the guard of the sender drops the packet; then no policy is asked, and Effect is Deny. What a guard only tells of, in
	// its time of grace, is Deny here, too.
	Spoof Spoof
}

// SideDecision is the verdict of one side. A side without an endpoint of this bridge is not judged: its Effect is Allow and it has no Ref.
type SideDecision struct {
	Judged bool
	Effect Effect  // Audit: Ref denies or rejects, and the endpoint is in mode audit
	Ref    RuleRef // what is enforced
	Log    bool    // the deciding rule or default wants a record
	Quiet  bool    // it wants none, of a connection that it allows
	L7     bool    // it wants to know what is said first on a connection
	OneOf  int     // it samples one of so many connections, which has a record whatever Quiet says; 0 = it samples none
	// Passed is the last rule that led judgement to the next tier; zero = none.
	Passed RuleRef
	// Audited is the rule or default that would deny, and does not because its policy or the endpoint is in mode audit; zero = none would.
	Audited RuleRef
}

// Evaluate says what a policy set means for one packet. It is the reference: what is compiled for a switch must give the same verdicts
// and deciding rules. It is written to be read, not to be fast. Policies must be valid.
//
//   - What the guard of the sender refuses is dropped before any policy is asked, see [Workload.Spoofs].
//   - The sender's side is judged by egress rules if Src is an endpoint, the receiver's by ingress rules if Dst is one. The
//     packet passes if no judged side denies or rejects it, and is rejected if one does and none denies it.
//   - For a side, the candidates are the rules of that direction of every policy whose appliesTo selects the endpoint. They are a set:
//     their order is tier, then smaller priority, then deny before reject before allow before pass, inside one policy as between policies.
//     Rules that are still equal have the same action, so their order (policy name, then rule name) matters for the attribution only.
//   - The first candidate that matches decides, save that a pass has judgement go on with the next tier. If none does and at least one of
//     the policies isolates the endpoint in that direction, the default denies, attributed to the first such policy by name and recorded if
//     any of them has it so; otherwise the default allows.
//   - Policies in mode audit decide nothing. If one of their rules is the first of all to match and denies or rejects, or if they alone
//     isolate the endpoint and nothing matches, that is noted (Audited), and judgement goes on with what is enforced. Their first allow to
//     match ends the notes, their passes are for their own rules alone.
//   - What an endpoint in mode audit would be denied passes, and is noted.
//   - A rule matches if it has no peers or any of its peers matches, and it has no services or any of its services matches.
//   - A peer is judged against the other side: a cidr by the address, in the same family, outside the exceptions; entity any always;
//     entity world if the other side is no endpoint of this bridge and its address is that of no workload; entity host if it is the
//     bridge's own port, or no endpoint of this bridge and has an address of the host; entity same-network if it is an endpoint
//     of this bridge, in the same VLAN; any other selector if the other side is an endpoint of this bridge that it selects, or if the
//     address is one of those of a workload that it selects and that is Remote or on another bridge.
//     A group matches if any of its members does, or of those of a group in it; an unknown group matches nothing.
//   - A service matches if the protocol is equal and, where it has ports, one of their ranges has the destination port; likewise source
//     ports, and type and code. ICMP is of IPv4 and ICMPv6 of IPv6 only, also by number.
func Evaluate(s *Set, p Packet) Decision {
	d := Decision{Egress: SideDecision{Effect: Allow}, Ingress: SideDecision{Effect: Allow}}
	if p.Src != nil && p.Src.Guard != nil {
		d.Spoof = p.Src.Spoofs(&Frame{SrcMAC: p.Src.MAC, Src: p.SrcIP, Dst: p.DstIP, Proto: p.Proto, SrcPort: p.SrcPort, DstPort: p.DstPort,
			ICMPType: p.ICMPType})
		if d.Spoof != NotSpoofed {
			d.Effect = Deny
			return d
		}
	}
	if p.Src != nil {
		d.Egress = s.judge(Egress, p.Src, other{p.Src, p.Dst, p.DstHost, p.DstIP}, p)
	}
	if p.Dst != nil {
		d.Ingress = s.judge(Ingress, p.Dst, other{p.Dst, p.Src, p.SrcHost, p.SrcIP}, p)
	}
	d.Effect = d.Egress.Effect.Both(d.Ingress.Effect)
	if d.Effect == Allow && (d.Egress.Audited != (RuleRef{}) || d.Ingress.Audited != (RuleRef{})) {
		d.Effect = Audit
	}
	return d
}

// other is the other side of a packet, seen from the endpoint that is judged.
type other struct {
	of       *Workload
	workload *Workload
	host     bool // it is the bridge's own port, and no workload
	ip       netip.Addr
}

// candidate is a rule of a policy that applies to the endpoint.
type candidate struct {
	rank   Rank
	policy *Policy
	rule   *Rule
}

func (s *Set) judge(dir Direction, w *Workload, o other, p Packet) SideDecision {
	var candidates []candidate
	isolated, audit := RuleRef{Direction: dir}, RuleRef{Direction: dir}
	logs := false
	for _, pol := range s.Policies {
		if !AnyMatches(pol.Spec.AppliesTo, s.Groups, w) {
			continue
		}
		rules := pol.Rules(dir)
		for i := range rules {
			candidates = append(candidates, candidate{RankOf(pol, &rules[i]), pol, &rules[i]})
		}
		if !pol.Isolates(dir) {
			continue
		}
		by := &isolated
		if pol.Audits() {
			by = &audit
		} else {
			logs = logs || pol.RecordsDefaultDeny(s.Record)
		}
		if by.Rule == "" || pol.Name < by.Policy {
			by.Policy, by.Rule = pol.Name, RuleDefaultDeny
		}
	}
	slices.SortFunc(candidates, func(a, b candidate) int {
		return cmp.Or(a.rank.Compare(b.rank), cmp.Compare(a.policy.Name, b.policy.Name), cmp.Compare(a.rule.Name, b.rule.Name))
	})
	d := SideDecision{Judged: true}
	passed, auditPassed, audited := -1, -1, false // the tiers that are done with, for all rules and for those in audit
	for _, c := range candidates {
		ref := RuleRef{c.policy.Name, dir, c.rule.Name}
		switch {
		case c.rank.Tier == passed, c.rank.Audit && (audited || c.rank.Tier == auditPassed), !s.ruleMatches(c.rule, dir, o, p):
			continue
		case c.rank.Audit && c.rule.Action == Pass:
			auditPassed = c.rank.Tier
			continue
		case c.rank.Audit:
			if audited = true; !c.rule.Action.Passes() {
				d.Audited = ref
			}
			continue
		case c.rule.Action == Pass:
			passed, d.Passed = c.rank.Tier, ref
			continue
		}
		d.Effect, d.Ref = c.rule.Action, ref
		d.Log, d.Quiet = c.policy.Records(s.Record, c.rule)
		d.OneOf, d.L7 = c.rule.OneOf(), c.rule.Log.L7
		return d.at(w)
	}
	if isolated.Rule != "" {
		d.Effect, d.Ref, d.Log = Deny, isolated, logs
		return d.at(w)
	}
	if audit.Rule != "" && !audited {
		d.Audited = audit
	}
	d.Effect, d.Ref = Allow, RuleRef{Direction: dir, Rule: RuleDefaultAllow}
	return d
}

// at is the decision for an endpoint, which may be in mode audit.
func (d SideDecision) at(w *Workload) SideDecision {
	if w.Audit && !d.Effect.Passes() {
		d.Effect, d.Log = Audit, false
		if d.Audited == (RuleRef{}) {
			d.Audited = d.Ref
		}
	}
	return d
}

func (s *Set) ruleMatches(r *Rule, dir Direction, o other, p Packet) bool {
	peers := r.Peers(dir)
	if len(peers) > 0 && !slices.ContainsFunc(peers, func(sel Selector) bool { return s.peerMatches(sel, o, p.Bridge) }) {
		return false
	}
	return len(r.Services) == 0 || slices.ContainsFunc(r.Services, func(svc Service) bool { return serviceMatches(svc, p) })
}

func (s *Set) peerMatches(sel Selector, o other, bridge string) bool {
	switch sel.Kind() {
	case SelectEntity:
		return s.entityMatches(sel.Entity, o)
	case SelectCIDR:
		prefixes, err := sel.Prefixes()
		return err == nil && slices.ContainsFunc(prefixes, func(x netip.Prefix) bool { return x.Contains(o.ip) })
	case SelectGroup:
		for m := range eachMember(s.Groups, sel.Group) {
			if s.peerMatches(*m, o, bridge) {
				return true
			}
		}
		return false
	}
	if o.workload != nil && sel.MatchesWorkload(o.workload) {
		return true
	}
	return slices.ContainsFunc(s.Workloads, func(w *Workload) bool {
		return (w.Remote || w.Bridge != bridge) && sel.MatchesWorkload(w) && w.HasAddress(o.ip)
	})
}

func (s *Set) entityMatches(entity string, o other) bool {
	switch entity {
	case EntityAny:
		return true
	case EntityWorld:
		return o.workload == nil && !slices.ContainsFunc(s.Workloads, func(w *Workload) bool { return w.HasAddress(o.ip) })
	case EntityHost:
		return o.host || o.workload.isHost() || o.workload == nil && slices.Contains(s.HostAddresses, o.ip)
	case EntitySameNetwork:
		return o.workload != nil && (o.workload.VLAN == o.of.VLAN || o.workload.VLAN == 0 || o.of.VLAN == 0) // 0 may be a trunk
	}
	return false
}

// isHost reports whether the workload is what is behind its bridge's own port.
func (w *Workload) isHost() bool { return w != nil && !w.Remote && w.Port == w.Bridge }

func serviceMatches(svc Service, p Packet) bool {
	s, err := ParseService(&svc)
	if err != nil || s.Proto != p.Proto {
		return false
	}
	if f := protoFamily(s.Proto); f == 4 && (p.SrcIP.Is6() || p.DstIP.Is6()) || f == 6 && (p.SrcIP.Is4() || p.DstIP.Is4()) {
		return false
	}
	return (s.Ports == nil || within(s.Ports, p.DstPort)) && (s.SourcePorts == nil || within(s.SourcePorts, p.SrcPort)) &&
		(s.Type == nil || *s.Type == p.ICMPType) && (s.Code == nil || *s.Code == p.ICMPCode)
}
