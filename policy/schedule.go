package policy

import (
	"fmt"
	"slices"
	"time"
)

// A policy with NotBefore or ExpiresAt is in force between the two alone. The rest of this package knows no time: a [Set] holds the
// policies that are in force.

// MaxHardTimeout is how far off the end of a policy may be for a switch to end it by itself: the field has 16 bits of seconds
// (OpenFlow 1.3.5 §7.3.4.1).
const MaxHardTimeout = 65535 * time.Second

// Codes of the warnings about schedules.
const (
	WarnExpired  Code = "EXPIRED"   // the end of a policy is in the past
	WarnNotArmed Code = "NOT_ARMED" // something would not end while tapwall is down
)

// Scheduled reports whether there are times when the policy is not in force.
func (p *Policy) Scheduled() bool { return p.Spec.NotBefore != nil || p.Spec.ExpiresAt != nil }

// Ends is when the policy ends; zero = it does not.
func (p *Policy) Ends() time.Time {
	if p.Spec.ExpiresAt == nil {
		return time.Time{}
	}
	return *p.Spec.ExpiresAt
}

// EndsAt is Ends for what knows no clock, in milliseconds since 1970; 0 = it does not end.
func (p *Policy) EndsAt() int64 {
	if p.Spec.ExpiresAt == nil {
		return 0
	}
	return p.Spec.ExpiresAt.UnixMilli()
}

// Over reports whether the policy has ended.
func (p *Policy) Over(now time.Time) bool {
	return p.Spec.ExpiresAt != nil && !now.Before(*p.Spec.ExpiresAt)
}

// InForce reports whether the policy has begun and not ended.
func (p *Policy) InForce(now time.Time) bool {
	return !p.Over(now) && (p.Spec.NotBefore == nil || !now.Before(*p.Spec.NotBefore))
}

// Turns is when next the policy begins or ends; zero = never again.
func (p *Policy) Turns(now time.Time) time.Time {
	switch {
	case p.Over(now):
		return time.Time{}
	case p.Spec.NotBefore != nil && now.Before(*p.Spec.NotBefore):
		return *p.Spec.NotBefore
	}
	return p.Ends()
}

// NotArmed warns of what of a policy that is in force would not end on a switch while tapwall is down.
func NotArmed(p *Policy, now time.Time) (out []Warning) {
	if p.Spec.ExpiresAt == nil {
		return nil
	}
	warn := func(rule, format string, args ...any) {
		out = append(out, Warning{Code: WarnNotArmed, Policy: p.Name, Rule: rule, Message: fmt.Sprintf(format, args...)})
	}
	if left := p.Ends().Sub(now); left > MaxHardTimeout {
		warn("", "the end is further off than a switch can count (%v), so the policy ends only while tapwall runs, until %s", MaxHardTimeout,
			p.Ends().Add(-MaxHardTimeout).UTC().Format(time.RFC3339))
	}
	for _, d := range []Direction{Ingress, Egress} {
		for _, r := range p.Rules(d) {
			if r.Action == Pass && !p.Audits() {
				warn(string(d)+"/"+r.Name, "if tapwall is down at the end, connections that the rule has led past others go on until it is back; "+
					"new ones are judged without it")
			}
		}
	}
	return out
}

// Expired warns of a policy whose end is in the past.
func Expired(p *Policy, now time.Time) []Warning {
	if !p.Over(now) {
		return nil
	}
	return []Warning{{Code: WarnExpired, Policy: p.Name,
		Message: fmt.Sprintf("policy %q ended at %s, so it is stored and not in force", p.Name, p.Ends().UTC().Format(time.RFC3339))}}
}

// InForce returns those of the policies that are.
func InForce(in []*Policy, now time.Time) []*Policy {
	return slices.DeleteFunc(slices.Clone(in), func(p *Policy) bool { return !p.InForce(now) })
}

// schedule checks the order of the two times.
func (c *checker) schedule(spec pointer, s *PolicySpec) {
	if s.NotBefore != nil && s.ExpiresAt != nil && !s.NotBefore.Before(*s.ExpiresAt) {
		c.addf(spec.field("expiresAt"), s.ExpiresAt, "must be later than notBefore, or the policy is never in force")
	}
}
