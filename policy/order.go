package policy

import "cmp"

// Defaults and fixed words of specifications.
const (
	DefaultTier      = TierApplication
	DefaultPriority  = 100
	MaxPriority      = 65535
	DefaultVXLANPort = 4789
	ModeEnforce      = "enforce"
	ModeAudit        = "audit" // what would be denied passes, and is recorded

	EntityAny   = "any"   // everybody
	EntityWorld = "world" // whoever is no endpoint that is known, on whichever host
	// EntityHost is the host itself: what is behind the bridge's own port (LOCAL), and its addresses.
	EntityHost = "host"
	// EntitySameNetwork are the endpoints whose frames come without a router: those of the bridge, in the same VLAN.
	EntitySameNetwork = "same-network"

	MirrorBoth       = "both"
	MirrorFromSource = "fromSource"
	MirrorToSource   = "toSource"
)

// entities are those that rules may name. It is not changed.
var entities = [...]string{EntityAny, EntityWorld, EntityHost, EntitySameNetwork}

// Tiers lists the tiers, highest first.
func Tiers() []Tier { return []Tier{TierEmergency, TierSecurity, TierApplication, TierBaseline} }

// Rank is the place of the tier: 0 decides first. The empty tier ranks as the default; an unknown one is -1.
func (t Tier) Rank() int {
	switch t {
	case TierEmergency:
		return 0
	case TierSecurity:
		return 1
	case TierApplication, "":
		return 2
	case TierBaseline:
		return 3
	}
	return -1
}

// EffectiveTier is the tier with the default applied.
func (p *Policy) EffectiveTier() Tier {
	if p.Spec.Tier == "" {
		return DefaultTier
	}
	return p.Spec.Tier
}

// EffectivePriority is the priority with the default applied; the smaller decides first.
func (p *Policy) EffectivePriority() int {
	if p.Spec.Priority == nil {
		return DefaultPriority
	}
	return *p.Spec.Priority
}

// Rules returns the rules of one direction.
func (p *Policy) Rules(d Direction) []Rule {
	if d == Ingress {
		return p.Spec.Ingress
	}
	return p.Spec.Egress
}

// Isolates reports whether the policy denies, to the endpoints it applies to, everything in that direction that no rule allows:
// defaultDeny where it says so, else whether there is a rule of that direction.
func (p *Policy) Isolates(d Direction) bool {
	if dd := p.Spec.DefaultDeny; dd != nil {
		if b := dd.Ingress; d == Ingress && b != nil {
			return *b
		}
		if b := dd.Egress; d == Egress && b != nil {
			return *b
		}
	}
	return len(p.Rules(d)) > 0
}

// Audits reports whether the policy decides nothing: what it would deny is recorded.
func (p *Policy) Audits() bool { return p.Spec.Mode == ModeAudit }

// Shuts reports whether the policy isolates in that direction and is enforced.
func (p *Policy) Shuts(d Direction) bool { return !p.Audits() && p.Isolates(d) }

// LogsDefaultDeny reports whether denials by the default are to be recorded.
func (p *Policy) LogsDefaultDeny() bool { return p.Spec.DefaultDeny != nil && p.Spec.DefaultDeny.Log }

// Peers returns the selectors of the rule's other side, nil for everybody.
func (r *Rule) Peers(d Direction) []Selector {
	if d == Ingress {
		return r.From
	}
	return r.To
}

// Rank is the place of a rule among all rules of a direction, for comparison only. Rules of equal Rank have the same tier, priority, action
// and mode, so their order among each other cannot change a verdict.
type Rank struct {
	Tier     int // Tier.Rank
	Priority int
	Effect   Effect // at equal tier and priority Deny comes first, then Reject, Allow, Pass
	Audit    bool   // of a policy in mode audit: behind rules that rank equally and are enforced
}

// RankOf returns the rank of rule r of policy p.
func RankOf(p *Policy, r *Rule) Rank {
	return Rank{Tier: p.Spec.Tier.Rank(), Priority: p.EffectivePriority(), Effect: r.Action, Audit: p.Audits()}
}

// Compare is negative if a decides before b and 0 if they rank equally.
func (a Rank) Compare(b Rank) int {
	return cmp.Or(cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.place(), b.place()))
}

// place is that among rules of one tier and priority.
func (a Rank) place() int {
	n := 2 * a.Effect.precedence()
	if a.Audit {
		n++
	}
	return n
}

// String is "policy/direction/rule", as events and counters name a rule.
func (r RuleRef) String() string { return r.Policy + "/" + string(r.Direction) + "/" + r.Rule }
