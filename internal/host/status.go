package host

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// updateStatus notes, at the end of a sync, which resources are in force at which revision, and what the mirrors are doing.
func (e *Engine) updateStatus(flowsDone, rowsDone bool) {
	now := time.Now()
	mirrors, rows := mirrorsByName(e.resources), map[string]bool{}
	status := map[string]policy.Status{}
	for _, m := range mirrors {
		status[m.Name] = e.mirrorStatus(m, now)
	}
	for _, br := range e.topo.Bridges {
		for _, m := range br.Mirrors {
			rows[m.UUID] = true
		}
		for _, p := range br.Ports {
			rows[p.UUID] = true
		}
	}
	e.mirrors.forget(rows)
	e.counts.readRows(e.topo, mirrors, &e.mirrors.plan)
	e.counts.forget(mirrors, rows)

	e.mirrors.statuses = status
	for key := range each(e.unsettled) {
		r := ofKey(key)
		if r.kind == policy.KindMirror && !rowsDone || r.kind != policy.KindMirror && !flowsDone || e.refused(r) {
			continue
		}
		if res := e.resources.get(r.kind, r.name); res == nil {
			e.observed = e.observed.Delete(key)
		} else {
			e.observed = e.observed.Set(key, res.GetMeta().Revision)
		}
		e.unsettled = e.unsettled.Delete(key)
	}
}

// refused reports whether a switch would not take a policy's flows.
func (e *Engine) refused(r resource) bool {
	for _, w := range e.walls {
		if r.kind == policy.KindPolicy && w.aside[wall.OwnerPolicy(r.name)].err != nil {
			return true
		}
	}
	return false
}

// refusedOther returns why flows that every policy relies on, those of an endpoint or of the pipeline itself, are missing.
func (b bridgeView) refusedOther() error {
	for owner, r := range b.refused {
		if _, isPolicy := wall.PolicyOf(owner); !isPolicy {
			return r.err
		}
	}
	return nil
}

// fromHost makes the status of a resource that lives on one host.
func fromHost(h policy.HostStatus, warnings []policy.Warning) policy.Status {
	return policy.Status{Phase: h.Phase, Reason: h.Reason, Message: h.Message, ObservedRevision: h.Observed, Hosts: []policy.HostStatus{h},
		Warnings: warnings}
}

// Mirror returns a mirror as the engine has taken it; nil = it has none of that name.
func (e *Engine) Mirror(name string) *policy.Mirror {
	m, _ := e.view.Load().resources.get(policy.KindMirror, name).(*policy.Mirror)
	return m
}

// Status is that of one resource on this host, as observed.
func (e *Engine) Status(kind policy.Kind, name string) policy.Status {
	return e.view.Load().status(kind, name, e.shadows.Load())
}

func (v *view) status(kind policy.Kind, name string, advice *shadows) policy.Status {
	res := v.resources.get(kind, name)
	if res == nil || v.topo == nil {
		message := "not seen yet"
		if len(v.problems) > 0 {
			message = strings.Join(v.problems, "; ")
		}
		return policy.Status{Phase: policy.PhasePending, Reason: policy.ReasonNotSeen, Message: message}
	}
	r := resource{kind, name}
	switch kind {
	case policy.KindMirror:
		if s, ok := v.mirrors[name]; ok {
			v.countMirror(&s, res.(*policy.Mirror))
			v.countCaptures(&s, name)
			s.Warnings = slices.Concat(s.Warnings, v.notices.about(res, v.resources.groups(), v.inventory.Workloads))
			return s
		}
		return policy.Status{Phase: policy.PhasePending, Reason: policy.ReasonNotSeen, Message: "not seen yet"}
	case policy.KindPolicy:
		return v.policyStatus(res.(*policy.Policy), advice)
	case policy.KindGroup, policy.KindEndpoint:
		return v.memberStatus(r, res)
	case policy.KindQuarantine:
		return v.quarantineStatus(res.(*policy.Quarantine))
	}
	return policy.Status{Phase: policy.PhaseFailed, Reason: policy.ReasonUnknownKind, Message: fmt.Sprintf("no status for kind %q", kind)}
}

func (v *view) policyStatus(p *policy.Policy, advice *shadows) policy.Status {
	r := resource{policy.KindPolicy, p.Name}
	h := policy.HostStatus{Host: v.topo.Host, Phase: policy.PhaseActive, Observed: lookUp(v.observed, r.key()), Counters: map[string]int64{}}
	worse := func(phase policy.Phase, reason policy.Reason, message string) {
		if h.Phase == policy.PhaseActive || phase == policy.PhaseFailed {
			h.Phase, h.Reason, h.Message = phase, reason, message
		}
	}
	warnings := slices.Clone(advice.of(p))
	if p.Audits() {
		warnings = append(warnings, policy.Warning{Code: policy.WarnAudit, Policy: p.Name,
			Message: fmt.Sprintf("policy %q is in mode audit: it decides nothing, and what it would deny is recorded as AUDIT", p.Name)})
	}
	if !slices.ContainsFunc(p.Spec.AppliesTo, func(s policy.Selector) bool { return s.Host == "" || s.Host == v.topo.Host }) {
		// It is for other hosts, whatever becomes of this one.
		worse(policy.PhasePending, policy.ReasonNoEndpoints, "it applies to no endpoint on this host")
		return fromHost(h, warnings)
	}
	if phase, reason, message, away := v.away(p); away && h.Observed >= p.Revision {
		v.countRules(&h, p.Name)
		worse(phase, reason, message)
		return fromHost(h, append(warnings, policy.Expired(p, time.Now())...))
	}
	warnings = append(warnings, policy.NotArmed(p, time.Now())...)
	for _, b := range v.walls {
		ps := lookUp(b.policies, p.Name)
		if ps == nil {
			// Not installed on this bridge yet; whether it applies to anything there is not known.
			message := "the change is being installed"
			if why := linkTrouble(b.sw.State()); why != "" {
				message = fmt.Sprintf("bridge %s: %s", b.cfg.Name, why)
			} else if b.err != nil {
				message = b.err.Error()
			}
			worse(policy.PhasePending, policy.ReasonNotInstalled, message)
			continue
		}
		if len(ps.Endpoints) > 0 {
			h.Bridges = append(h.Bridges, b.cfg.Name)
		}
		if audited := v.inAudit(ps.Endpoints); audited != "" && !p.Audits() {
			warnings = append(warnings, policy.Warning{Code: policy.WarnAudit, Policy: p.Name,
				Message: fmt.Sprintf("of the endpoints that policy %q applies to, these are in mode audit, and what it denies them passes: %s", p.Name,
					audited)})
		}
		for _, key := range ps.Endpoints {
			h.Endpoints = append(h.Endpoints, v.portOf(key))
			warnings = append(warnings, v.notices.byWorkload[key]...)
		}
		st, bypass := b.sw.State(), b.bypass()
		switch {
		case ps.Err != nil:
			worse(policy.PhaseFailed, policy.ReasonNotCompiled, ps.Err.Error())
		case len(ps.Endpoints) == 0:
		case !st.Connected:
			worse(policy.PhaseDegraded, policy.ReasonDisconnected, fmt.Sprintf("bridge %s: %s", b.cfg.Name, linkTrouble(st)))
		case st.Silent >= silentLimit:
			worse(policy.PhaseDegraded, policy.ReasonSilent, fmt.Sprintf("bridge %s: %s", b.cfg.Name, linkTrouble(st)))
		case b.refused[wall.OwnerPolicy(p.Name)].err != nil:
			worse(policy.PhaseFailed, policy.ReasonRejected, b.refused[wall.OwnerPolicy(p.Name)].err.Error())
		case b.err != nil:
			worse(policy.PhaseDegraded, policy.ReasonNotInstalled, b.err.Error())
		case b.refusedOther() != nil:
			worse(policy.PhaseDegraded, policy.ReasonNotInstalled, b.refusedOther().Error())
		case v.topo.RestoreWait:
			worse(policy.PhaseDegraded, policy.ReasonRestoreWait, restoreWait)
		case bypass != nil:
			worse(policy.PhaseDegraded, policy.ReasonBypassed, fmt.Sprintf("bridge %s: %v", b.cfg.Name, bypass))
		case st.Missing > 0 || st.Blocked > 0:
			worse(policy.PhaseDegraded, policy.ReasonFlowsMissing, fmt.Sprintf("bridge %s: %d flows are missing, %d are blocked by foreign ones",
				b.cfg.Name, st.Missing, st.Blocked))
		}
		for _, w := range ps.Warnings {
			if w.Code == wall.WarnNoEndpoints {
				continue // said for the whole host below
			}
			if w.Code == wall.WarnEndpointMACUnknown {
				worse(policy.PhaseDegraded, policy.ReasonEndpointMACUnknown, w.Message)
			}
			warnings = append(warnings, w)
		}
		listRules(&h, ps)
	}
	v.countRules(&h, p.Name)
	switch {
	case len(v.walls) == 0:
		worse(policy.PhaseDegraded, policy.ReasonNoOwnedBridge, "tapwall owns no bridge on this host (--bridge NAME=owned)")
	case h.Observed < p.Revision:
		worse(policy.PhasePending, policy.ReasonNotInstalled, "the change is being installed")
	case len(h.Endpoints) == 0:
		worse(policy.PhasePending, policy.ReasonNoEndpoints, "it applies to no endpoint on this host")
	}
	if h.Phase == policy.PhaseActive && p.Spec.ExpiresAt != nil {
		h.Message = "until " + p.Ends().Format(time.RFC3339)
	}
	return fromHost(h, warnings)
}

// inAudit names those of the workloads that are in mode audit, the first of many.
func (v *view) inAudit(keys []string) string {
	const most = 10
	var names []string
	for _, w := range v.inventory.Workloads {
		if w.Audit && !w.Remote && slices.Contains(keys, w.Key) {
			names = append(names, w.Bridge+"/"+w.Port)
		}
	}
	more := ""
	if n := len(names) - most; n > 0 {
		names, more = names[:most], fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(names, ", ") + more
}

func (v *view) memberStatus(r resource, res policy.Resource) policy.Status {
	h := policy.HostStatus{Host: v.topo.Host, Phase: policy.PhaseActive, Observed: lookUp(v.observed, r.key())}
	var members []policy.Selector
	if g, ok := res.(*policy.Group); ok {
		members = g.Spec.Others()
	}
	for _, w := range v.inventory.Workloads {
		var member bool
		switch res := res.(type) {
		case *policy.Group:
			member = policy.AnyMatches(members, nil, w)
		case *policy.Endpoint:
			member = w.Endpoint == res.Name && !w.Remote
		}
		if !member {
			continue
		}
		if w.Remote {
			h.Endpoints = append(h.Endpoints, w.Key)
		} else {
			h.Endpoints = append(h.Endpoints, w.Bridge+"/"+w.Port)
			if r.kind == policy.KindEndpoint && w.Guard != nil {
				h.Counters = map[string]int64{"spoofedPackets": h.Counters["spoofedPackets"] + int64(v.spoofedPackets(w))}
			}
			if r.kind == policy.KindEndpoint {
				h.Learned = append(h.Learned, v.learned[w.Key]...)
			}
			if p := v.topo.Bridges[w.Bridge].Ports[w.Port]; r.kind == policy.KindEndpoint && p != nil && !p.HasDevice() {
				h.Phase, h.Reason, h.Message = policy.PhaseDegraded, policy.ReasonNoDevice, fmt.Sprintf("port %s of bridge %s: %s", w.Port, w.Bridge,
					p.Fault())
			}
		}
	}
	if ep, ok := res.(*policy.Endpoint); ok && len(h.Endpoints) == 0 {
		if len(ep.Spec.Addresses) > 0 {
			h.Reason, h.Message = policy.ReasonElsewhere,
				"no port of a managed bridge on this host matches; it counts as a peer elsewhere, by its addresses"
		} else {
			h.Phase, h.Reason, h.Message = policy.PhasePending, policy.ReasonNoPort,
				"no port of a managed bridge on this host matches, and there are no addresses to know it by as a peer"
		}
	}
	about := v.notices.about(res, nil, v.inventory.Workloads)
	if ep, ok := res.(*policy.Endpoint); ok && ep.Spec.Mode == policy.ModeAudit {
		about = append(slices.Clip(about), policy.Warning{Code: policy.WarnAudit, Endpoint: ep.Name, AboutResource: true,
			Message: fmt.Sprintf("endpoint %q is in mode audit: what policies would deny it passes, and is recorded as AUDIT", ep.Name)})
	}
	if i := slices.IndexFunc(about, func(x policy.Warning) bool { return x.Code == policy.WarnMACContradiction }); i >= 0 {
		h.Phase, h.Reason, h.Message = policy.PhaseDegraded, policy.ReasonMACContradiction, about[i].Message
	}
	if h.Observed < res.GetMeta().Revision {
		h.Phase, h.Reason, h.Message = policy.PhasePending, policy.ReasonNotInstalled, "the change is being installed"
	}
	return fromHost(h, about)
}

// flowsTold is how long Wait takes missing flows for being on their way.
const flowsTold = 2 * time.Second

// Wait blocks until the revision of a resource is in force on this host or failed, or ctx ends; revision 0 waits for its deletion.
func (e *Engine) Wait(ctx context.Context, kind policy.Kind, name string, revision int64) (policy.Status, error) {
	r := resource{kind, name}
	var inStep time.Time // until when missing flows may be on their way; zero = none were seen
	for {
		var soon <-chan time.Time
		v := e.view.Load()
		observed, there := v.observed.Get(r.key())
		_, unsettled := v.unsettled.Get(r.key())
		if revision == 0 && !there && !unsettled {
			return policy.Status{}, nil
		}
		if revision > 0 && there && observed >= revision && (kind != policy.KindGroup && kind != policy.KindMirror || !unsettled) {
			// A group may change by others, and a mirror begins and ends.
			s := e.Status(kind, name)
			// What the switch tells of its flows comes shortly after its answer to the change.
			if s.Reason == policy.ReasonFlowsMissing && (inStep.IsZero() || time.Now().Before(inStep)) {
				if inStep.IsZero() {
					inStep = time.Now().Add(flowsTold)
				}
				soon = time.After(20 * time.Millisecond)
			} else if s.Phase != policy.PhasePending || s.Reason == policy.ReasonNoEndpoints || s.Reason == policy.ReasonNoPort ||
				s.Reason == policy.ReasonScheduled {
				return s, nil
			}
		}
		// An earlier revision's failure does not count.
		if revision > 0 && v.synced >= revision {
			if s := e.Status(kind, name); s.Phase == policy.PhaseFailed {
				return s, nil
			}
		}
		select {
		case <-ctx.Done():
			return e.Status(kind, name), ctx.Err()
		case <-v.changed:
		case <-soon:
		}
	}
}

// Workloads lists what was found on the ports, and the peers that are known by addresses only, ordered by key.
func (e *Engine) Workloads() []*policy.Workload {
	return e.view.Load().inventory.Workloads
}

// Hosts lists what is known of the host; nothing before it has been reached.
func (e *Engine) Hosts() []wire.Host {
	v := e.view.Load()
	topo := v.topo
	db := e.opt.DB.Status()
	if topo == nil {
		return []wire.Host{}
	}
	h := wire.Host{ID: topo.Host, OVSVersion: topo.OVSVersion, Connected: db.Connected, Message: db.LastError,
		Capabilities: e.capabilities(topo), Bridges: []wire.HostBridge{}}
	if db.Connected {
		h.Message = ""
	}
	h.Warnings = v.notices.all
	byPort := map[string]*policy.Workload{}
	for _, w := range v.inventory.Workloads {
		byPort[w.Bridge+"/"+w.Port] = w
	}
	for _, br := range topo.Bridges {
		hb := wire.HostBridge{Name: br.Name, DatapathType: orElse(br.DatapathType, "system"), FailMode: br.FailMode, Ports: []wire.HostPort{}}
		for _, b := range v.bridges {
			if b.cfg.Name == br.Name {
				st := b.sw.State()
				hb.Mode, hb.Connected, hb.Message = string(b.cfg.Mode), st.Connected, st.Err
				hb.Dropped = b.book.dropped()
			}
		}
		for _, p := range br.Ports {
			hp := wire.HostPort{Name: p.Name, VLAN: p.Tag}
			if len(p.Interfaces) > 0 {
				i := p.Interfaces[0]
				hp.OFPort, hp.Type, hp.Error = i.OFPort, i.Type, i.Error
			}
			if w := byPort[br.Name+"/"+p.Name]; w != nil {
				hp.Endpoint, hp.MAC = w.Key, w.MAC
			}
			hb.Ports = append(hb.Ports, hp)
		}
		slices.SortFunc(hb.Ports, func(a, b wire.HostPort) int { return strings.Compare(a.Name, b.Name) })
		for _, m := range br.Mirrors {
			hm := wire.HostMirror{Name: m.Name, Output: m.OutputPort}
			if m.OutputVLAN != nil {
				hm.Output = fmt.Sprintf("VLAN %d", *m.OutputVLAN)
			}
			if m.ExternalIDs[vswitch.MarkOwner] == vswitch.OwnerValue {
				hm.Owner = m.ExternalIDs[vswitch.MarkMirror]
			}
			hb.Mirrors = append(hb.Mirrors, hm)
		}
		h.Bridges = append(h.Bridges, hb)
	}
	slices.SortFunc(h.Bridges, func(a, b wire.HostBridge) int { return strings.Compare(a.Name, b.Name) })
	return []wire.Host{h}
}
