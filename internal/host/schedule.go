package host

import (
	"fmt"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

// schedules are the policies that begin or end by the clock on the wall. The loop owns it.
type schedules struct {
	names map[string]struct{} // of policies that have a time
	timer *time.Timer         // wakes the loop when the next one begins or ends
}

// note keeps track of a policy that was written or, nil, deleted.
func (s *schedules) note(name string, r policy.Resource) {
	if p, ok := r.(*policy.Policy); ok && p.Scheduled() {
		s.names[name] = struct{}{}
	} else {
		delete(s.names, name)
	}
}

// turned reports whether a policy has begun or ended that was not told so by the timer: a clock that is set is followed within a second.
func (e *Engine) turned(now time.Time) bool {
	for name := range e.schedules.names {
		p, ok := e.resources.get(policy.KindPolicy, name).(*policy.Policy)
		if _, in := e.force.Get(name); ok && in != p.InForce(now) {
			return true
		}
	}
	return false
}

// tendSchedules finds out which policies are in force. Beginning and end are changes like any other.
func (e *Engine) tendSchedules(now time.Time) {
	for name := range e.stale.policies {
		e.force = forced(e.force, name, e.resources.get(policy.KindPolicy, name), now)
	}
	var next time.Time
	for name := range e.schedules.names {
		p, ok := e.resources.get(policy.KindPolicy, name).(*policy.Policy)
		if !ok {
			continue
		}
		if t := p.Turns(now); !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
		_, in := e.force.Get(name)
		if in == p.InForce(now) {
			continue
		}
		e.force = forced(e.force, name, p, now)
		e.stale.policies[name] = true
		e.unsettled = e.unsettled.Set(resource{policy.KindPolicy, name}.key(), struct{}{})
		switch {
		case !in:
			e.tellPolicy(event.ActionPolicyBegan, fmt.Sprintf("policy %s begins, as it said", name))
		case p.Over(now):
			e.tellPolicy(event.ActionPolicyEnded, fmt.Sprintf("policy %s has ended, as it said: %s", name, p.Ends().Format(time.RFC3339)))
		default:
			e.tellPolicy(event.ActionPolicyEnded, fmt.Sprintf("policy %s is not in force any more: the clock was set to before it begins", name))
		}
	}
	if e.schedules.timer != nil {
		e.schedules.timer.Stop()
		e.schedules.timer = nil
	}
	if !next.IsZero() {
		e.schedules.timer = time.AfterFunc(next.Sub(now), e.poke)
	}
}

// tellPolicy logs and records that a policy has begun or ended.
func (e *Engine) tellPolicy(action, message string) {
	e.log.Info(message)
	e.opt.Recorder.Record(event.NewNotice(action, e.host, "", event.Notice{Message: message, Count: 1}))
}

// forced returns the policies in force after a change of one; r nil = it is deleted.
func forced(in shelf[policy.Resource], name string, r policy.Resource, now time.Time) shelf[policy.Resource] {
	if p, ok := r.(*policy.Policy); ok && p.InForce(now) {
		return in.Set(name, p)
	}
	return in.Delete(name)
}

// policiesOn returns the policies on a shelf, in the order of their names.
func policiesOn(s shelf[policy.Resource]) []*policy.Policy {
	out := make([]*policy.Policy, 0, s.Len())
	for _, r := range each(s) {
		out = append(out, r.(*policy.Policy))
	}
	return out
}

// away says of a policy that is not in force why that is so, for its status; false = it is in force.
func (v *view) away(p *policy.Policy) (phase policy.Phase, reason policy.Reason, message string, away bool) {
	now := time.Now()
	if p.InForce(now) {
		return "", "", "", false
	}
	for i := range v.walls {
		if b := &v.walls[i]; lookUp(b.policies, p.Name) != nil {
			message = fmt.Sprintf("it is not in force any more, and it is not known whether the switch has let go: bridge %s: %s", b.cfg.Name,
				orElse(linkTrouble(b.sw.State()), "the change is being installed"))
			return policy.PhaseDegraded, policy.ReasonNotInstalled, message, true
		}
	}
	if p.Over(now) {
		return policy.PhaseStopped, policy.ReasonExpired, "it ended at " + p.Ends().Format(time.RFC3339) +
			"; nothing of it is in force, and it is kept until it is deleted", true
	}
	return policy.PhasePending, policy.ReasonScheduled, "it begins at " + p.Spec.NotBefore.Format(time.RFC3339), true
}
