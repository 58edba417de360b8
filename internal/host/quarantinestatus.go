package host

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// WarnPassListIgnored is the code of the warning that nothing passes a quarantine although it has a pass list.
const WarnPassListIgnored policy.Code = "PASS_LIST_IGNORED"

// sentence is what is known of the term of a quarantine, for its status.
type sentence struct {
	over   bool
	until  time.Time
	jumped string
}

// sentences are those of all quarantines.
func (e *Engine) sentences() map[string]sentence {
	out := map[string]sentence{}
	for name, x := range e.terms.known {
		out[name] = sentence{e.terms.over(name), x.Until, e.terms.jumped(name)}
	}
	return out
}

// lingers says why what quarantines no longer want may still be on a switch; "" = it is not.
func (v *view) lingers() string {
	for i := range v.walls {
		switch b := &v.walls[i]; {
		case b.err != nil:
			return fmt.Sprintf("bridge %s: %v", b.cfg.Name, b.err)
		case b.releasing && !b.sw.State().Ready:
			return fmt.Sprintf("bridge %s: %s", b.cfg.Name, orElse(linkTrouble(b.sw.State()), "not connected"))
		case b.releasing:
			return fmt.Sprintf("bridge %s: a port is still configured", b.cfg.Name)
		}
	}
	return ""
}

func (v *view) quarantineStatus(q *policy.Quarantine) policy.Status {
	r := resource{policy.KindQuarantine, q.Name}
	h := policy.HostStatus{Host: v.topo.Host, Phase: policy.PhaseActive, Observed: lookUp(v.observed, r.key()), Counters: map[string]int64{}}
	var warnings []policy.Warning
	worse := func(phase policy.Phase, reason policy.Reason, message string) {
		if h.Phase == policy.PhaseActive {
			h.Phase, h.Reason, h.Message = phase, reason, message
		}
	}
	s, known := v.sentences[q.Name]
	if s.jumped != "" {
		warnings = append(warnings, policy.Warning{Code: WarnClockJumped, Message: s.jumped})
	}
	var drops quarantineCount
	for i := range v.walls {
		b := &v.walls[i]
		n := b.link.held.count(q.Name)
		drops.from, drops.to = drops.from.plus(n.from), drops.to.plus(n.to)
	}
	h.Counters["droppedFromPackets"], h.Counters["droppedFromBytes"] = int64(drops.from.packets), int64(drops.from.bytes)
	h.Counters["droppedToPackets"], h.Counters["droppedToBytes"] = int64(drops.to.packets), int64(drops.to.bytes)
	switch {
	case q.Spec.Match.Host != "" && q.Spec.Match.Host != v.topo.Host:
		worse(policy.PhasePending, policy.ReasonNoEndpoints, "it is for another host")
		return fromHost(h, warnings)
	case h.Observed < q.Revision || !known:
		worse(policy.PhasePending, policy.ReasonNotInstalled, "the change is being installed")
	case s.over && v.lingers() != "":
		worse(policy.PhaseDegraded, policy.ReasonNotInstalled, "it has ended, and it is not known whether the switch has let go: "+v.lingers())
	case s.over:
		worse(policy.PhaseStopped, policy.ReasonExpired, "it has ended at "+s.until.Format(time.RFC3339)+
			"; it holds nothing any more, and is kept until it is deleted")
	case len(v.walls) == 0:
		worse(policy.PhaseDegraded, policy.ReasonNoOwnedBridge, "tapwall owns no bridge on this host (--bridge NAME=owned)")
	}
	for i := range v.walls {
		b := &v.walls[i]
		c, ok := b.cells[q.Name]
		if !ok {
			continue
		}
		h.Bridges = append(h.Bridges, b.cfg.Name)
		for _, p := range c.ports {
			h.Endpoints = append(h.Endpoints, b.cfg.Name+"/"+p)
		}
		for _, why := range c.covered {
			warnings = append(warnings, policy.Warning{Code: WarnPassListIgnored, Message: why})
		}
		st, bypass := b.sw.State(), b.bypass()
		switch {
		case !st.Connected:
			worse(policy.PhaseDegraded, policy.ReasonDisconnected, fmt.Sprintf("bridge %s: %s", b.cfg.Name, linkTrouble(st)))
		case st.Silent >= silentLimit:
			worse(policy.PhaseDegraded, policy.ReasonSilent, fmt.Sprintf("bridge %s: %s", b.cfg.Name, linkTrouble(st)))
		case b.refused[wall.OwnerQuarantine(q.Name)].err != nil:
			worse(policy.PhaseFailed, policy.ReasonRejected, b.refused[wall.OwnerQuarantine(q.Name)].err.Error())
		case b.err != nil:
			worse(policy.PhaseDegraded, policy.ReasonNotInstalled, b.err.Error())
		case b.refusedOther() != nil:
			worse(policy.PhaseDegraded, policy.ReasonNotInstalled, b.refusedOther().Error())
		case bypass != nil:
			worse(policy.PhaseDegraded, policy.ReasonBypassed, fmt.Sprintf("bridge %s: %v", b.cfg.Name, bypass))
		case len(c.trouble) > 0:
			worse(policy.PhaseDegraded, policy.ReasonPortNotConfigured, fmt.Sprintf("bridge %s: %s", b.cfg.Name,
				strings.Join(slices.Compact(c.trouble), "; ")))
		case st.Missing > 0 || st.Blocked > 0:
			worse(policy.PhaseDegraded, policy.ReasonFlowsMissing, fmt.Sprintf("bridge %s: %d flows are missing, %d are blocked by foreign ones",
				b.cfg.Name, st.Missing, st.Blocked))
		}
	}
	if len(h.Endpoints) == 0 {
		worse(policy.PhasePending, policy.ReasonNoEndpoints,
			"there is no such port on this host; one that appears is held before it has sent anything")
	}
	if h.Phase == policy.PhaseActive && !s.until.IsZero() {
		h.Message = "until " + s.until.Format(time.RFC3339)
	}
	return fromHost(h, warnings)
}
