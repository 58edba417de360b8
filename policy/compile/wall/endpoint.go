package wall

import (
	"maps"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// sides are the two directions, as indices. They are those of the rules that judge: egress those of the initiator, ingress those of
// the responder.
const (
	egress = iota
	ingress
)

func direction(side int) policy.Direction {
	if side == ingress {
		return policy.Ingress
	}
	return policy.Egress
}

// endpoint is a workload of the bridge.
type endpoint struct {
	w    *policy.Workload
	id   uint32
	born bool // in this Compile: no connection carries its id yet
	// forwarder is 1 + the index of the zones of a forwarding endpoint, 0 for others.
	forwarder int
	// allow are the numbers of the default allow ids, 0 where isolated.
	allow [2]uint32
	// policies that apply to it. isolating are those of them that isolate it, by name, with whether they log.
	policies  map[*policyState]struct{}
	isolating [2]map[string]bool
}

// place is where frames to an endpoint are recognised.
type place struct {
	vlan int // 0 = in every VLAN
	mac  string
}

// setEndpoint brings the endpoint of a workload up to date; w nil = the workload is gone or not on the bridge. It reports whether the
// endpoint id changed.
func (f *Firewall) setEndpoint(key string, w *policy.Workload) (moved bool) {
	e := f.endpoints[key]
	if e == nil && w == nil {
		return false
	}
	f.dirtyEndpoints[key] = struct{}{}
	// Under another address it is another station: what was allowed to the old one must not be inherited by who takes its place.
	if e != nil && (w == nil || !sameStation(e.w, w)) {
		f.removeEndpoint(key, e)
		e, moved = nil, true
	}
	if w == nil {
		return moved
	}
	if e == nil {
		e = f.addEndpoint(key, w)
		moved = true
	}
	if e.w.MAC != w.MAC { // from unknown to known
		f.dirtyRetired = true
		for ps := range e.policies {
			f.touch(ps)
		}
	}
	if (e.forwarder != 0) != w.Forwards {
		f.setForwarder(e, w.Forwards)
	}
	if e.w.MAC != w.MAC || !slices.Equal(e.w.MACs, w.MACs) {
		f.leavePlaces(e.w, key)
	}
	e.w = w
	f.takePlaces(w, key)
	return moved
}

// setForwarder gives an endpoint zones of its own or takes them back.
func (f *Firewall) setForwarder(e *endpoint, forwards bool) {
	f.forwarders[e.forwarder] = nil
	e.forwarder = 0
	for n := 1; forwards && n <= pipeline.MaxForwarders; n++ {
		if f.forwarders[n] == nil {
			e.forwarder, f.forwarders[n] = n, e
			break
		}
	}
	f.uprooted = f.uprooted || !e.born
	for ps := range e.policies {
		f.touch(ps) // for the warning
	}
}

// sameStation reports whether b is reached in every way that a was, as far as that is known: under an address that is taken away, others
// must not find what was allowed to it.
func sameStation(a, b *policy.Workload) bool {
	lost := func(mac string) bool { return !slices.Contains(b.MACs, mac) }
	return a.VLAN == b.VLAN && (a.MAC == b.MAC || a.MAC == "") && !slices.ContainsFunc(a.MACs, lost)
}

func (f *Firewall) addEndpoint(key string, w *policy.Workload) *endpoint {
	e := &endpoint{w: w, policies: map[*policyState]struct{}{}}
	known, ok := f.imported.Endpoints[key]
	if ok = ok && sameStation(&policy.Workload{MAC: known.MAC, MACs: known.MACs, VLAN: known.VLAN}, w); ok {
		e.id, e.allow = known.ID, [2]uint32{egress: known.EgressAllow, ingress: known.IngressAllow}
		if n := known.Forwarder; n > 0 && n <= pipeline.MaxForwarders && w.Forwards && f.forwarders[n] == nil {
			e.forwarder, f.forwarders[n] = n, e
		}
	} else {
		if known.ID != 0 {
			f.retireID(known.ID, known.Station)
		}
		e.id, e.born, f.anyBorn = f.number(), true, true
	}
	f.dirtyRetired = true
	f.endpoints[key], f.byID[e.id] = e, e
	return e
}

func (f *Firewall) removeEndpoint(key string, e *endpoint) {
	f.leavePlaces(e.w, key)
	f.retireID(e.id, stationOf(e.w))
	f.forwarders[e.forwarder] = nil
	delete(f.endpoints, key)
	delete(f.byID, e.id)
	for side := range e.allow {
		f.registry.remove(denyID(side, e.id))
		f.registry.remove(allowID(e.allow[side]))
	}
}

// takePlaces and leavePlaces keep, for each place, the keys that claim it. If there are several, the first in order gets the frames.
func (f *Firewall) takePlaces(w *policy.Workload, key string) {
	for _, mac := range macs(w) {
		at := place{w.VLAN, mac}
		keys := f.places[at]
		i, found := slices.BinarySearch(keys, key)
		if found {
			continue
		}
		f.places[at] = slices.Insert(slices.Clone(keys), i, key)
		f.touchPlace(at)
	}
}

func (f *Firewall) leavePlaces(w *policy.Workload, key string) {
	for _, mac := range macs(w) {
		at := place{w.VLAN, mac}
		keys := f.places[at]
		i, found := slices.BinarySearch(keys, key)
		if !found {
			continue
		}
		if len(keys) == 1 {
			delete(f.places, at)
			continue
		}
		f.places[at] = slices.Delete(slices.Clone(keys), i, i+1)
		f.touchPlace(at)
	}
}

func (f *Firewall) touchPlace(at place) {
	for _, k := range f.places[at] {
		f.dirtyEndpoints[k] = struct{}{}
	}
}

func denyID(side int, endpoint uint32) uint32 {
	if side == ingress {
		return pipeline.IDDefaultDeny | pipeline.IDIngress | endpoint
	}
	return pipeline.IDDefaultDeny | endpoint
}

// allowID is the id of a default allow; 0 has none.
func allowID(number uint32) uint32 {
	if number == 0 {
		return 0
	}
	return pipeline.IDDefaultAllow | number
}

// isolated returns the policy that a default deny is attributed to and whether it is recorded.
func (e *endpoint) isolated(side int) (by string, log, ok bool) {
	for name, l := range e.isolating[side] {
		if !ok || name < by {
			by = name
		}
		log, ok = log || l, true
	}
	return by, log, ok
}

// isolate notes whether a policy isolates the endpoint.
func (f *Firewall) isolate(e *endpoint, side int, name string, isolates, log bool) {
	was, did := e.isolating[side][name]
	if log = log && isolates; did == isolates && was == log {
		return
	}
	if e.isolating[side] == nil {
		e.isolating[side] = map[string]bool{}
	}
	if isolates {
		e.isolating[side][name] = log
	} else {
		delete(e.isolating[side], name)
	}
	f.dirtyEndpoints[e.w.Key] = struct{}{}
}

// settleDefaults gives each changed endpoint the ids of its defaults.
func (f *Firewall) settleDefaults() {
	for _, key := range slices.Sorted(maps.Keys(f.dirtyEndpoints)) {
		e := f.endpoints[key]
		if e == nil {
			continue
		}
		for side := range e.allow {
			ref := policy.RuleRef{Direction: direction(side)}
			if by, log, ok := e.isolated(side); ok {
				f.registry.remove(allowID(e.allow[side]))
				e.allow[side] = 0
				ref.Policy, ref.Rule = by, policy.RuleDefaultDeny
				f.registry.set(denyID(side, e.id), RuleInfo{Ref: ref, Action: policy.Deny, Log: log, Endpoint: key})
				continue
			}
			f.registry.remove(denyID(side, e.id))
			if e.allow[side] == 0 {
				e.allow[side] = f.number()
			}
			ref.Rule = policy.RuleDefaultAllow
			f.registry.set(allowID(e.allow[side]), RuleInfo{Ref: ref, Action: policy.Allow, Endpoint: key})
		}
	}
}

// renew gives the default allow of an endpoint a new id, because a rule now denies something that it allowed.
func (f *Firewall) renew(e *endpoint, side int) {
	f.registry.remove(allowID(e.allow[side]))
	e.allow[side] = 0
	f.dirtyEndpoints[e.w.Key] = struct{}{}
}

// endpointFlows returns all flows of the endpoint.
func (f *Firewall) endpointFlows(key string, e *endpoint) []flow.Flow {
	var out []flow.Flow
	cookie := pipeline.NewCookie(pipeline.CookieEndpoint, e.id)
	for _, ofport := range append([]uint32{e.w.OFPort}, e.w.Members...) {
		out = appendSource(out, f.opt.BridgeIndex, cookie, e.id, Port{OFPort: ofport, VLAN: e.w.VLAN + e.w.Native, Tagged: e.w.VLAN == 0})
	}
	out = append(out, f.macFlows(key, e, cookie)...)
	if _, arriving := f.arriving[key]; arriving {
		pipeline.Arrive(out)
	}
	if e.w.DHCPServer {
		out = append(out, pipeline.DHCPServer(e.id)...)
	}
	_, macKnown := parseMAC(e.w.MAC)
	out = append(out, pipeline.Bind(cookie, e.id, macKnown, e.forwarder != 0)...)
	if e.forwarder != 0 {
		in, outgoing := pipeline.ForwarderZones(f.opt.BridgeIndex, e.forwarder-1)
		out = append(out, pipeline.Legs(cookie, e.id, in, outgoing)...)
	}
	for side := range e.allow {
		id, effect := allowID(e.allow[side]), policy.Allow
		_, log, isolated := e.isolated(side)
		if isolated {
			id, effect = denyID(side, e.id), policy.Deny
		}
		d, cookie := dimensions(side), pipeline.NewCookie(pipeline.CookieDefault, id)
		out = append(out, flow.Flow{
			Table: d.table(), Priority: pipeline.PriorityDefault, Cookie: cookie, Match: d.subject(e.id),
			Actions: pipeline.Decide(side == ingress, verdict(effect), id, log),
		})
		if !isolated {
			out = append(out, pipeline.Gate(side == ingress, cookie, id))
		}
	}
	return out
}
