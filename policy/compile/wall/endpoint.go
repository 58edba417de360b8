package wall

import (
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
	w      *policy.Workload
	serial int    // in order of appearance in this run
	id     uint32 // the low bits count how often it had to be another; see pipeline.EndpointGenerations
	born   bool   // in this Compile: no connection carries its id yet
	gone   bool   // it is no more
	was    uint32 // id before, whose packets may still be under way; 0 = none
	// wasClass is the number of the class before, since the endpoint has this id; 0 = none. Packets that carried it may still be under way.
	wasClass uint16
	// forwarder is 1 + the index of the zones of a forwarding endpoint, 0 for others.
	forwarder int
	choices   []*choice // that it is in, by hash
	key       uint64    // their hashes exclusive-or'ed
	class     *class
	open      [2]bool // allowed by default when Compile last ended
	// beneath: an earlier run left it isolated for some time. If that was over before it came back, it was allowed by default.
	beneath [2]bool
	kept    bool // it left groups that keep the connections of members that leave
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
		f.retell(e)
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
	f.retell(e) // for the warning
}

// retell has the status of the policies that apply to an endpoint told again.
func (f *Firewall) retell(e *endpoint) {
	for _, x := range e.choices {
		for ps := range x.subjectOf {
			f.told[ps] = struct{}{}
		}
	}
}

// sameStation reports whether b is reached in every way that a was, as far as that is known: under an address that is taken away, others
// must not find what was allowed to it.
func sameStation(a, b *policy.Workload) bool {
	lost := func(mac string) bool { return !slices.Contains(b.MACs, mac) }
	return a.VLAN == b.VLAN && (a.MAC == b.MAC || a.MAC == "") && !slices.ContainsFunc(a.MACs, lost)
}

func (f *Firewall) addEndpoint(key string, w *policy.Workload) *endpoint {
	f.serial++
	e := &endpoint{w: w, serial: f.serial}
	known, ok := f.imported.Endpoints[key]
	// Of what class an endpoint was is known by the word of the class alone: without it, anything may have been taken from it.
	if ok = ok && sameStation(&policy.Workload{MAC: known.MAC, MACs: known.MACs, VLAN: known.VLAN}, w) &&
		f.classes.byNumber[known.Class] != nil; ok {
		e.id, e.was, e.wasClass, e.kept = known.ID, known.Was, known.WasClass, known.Kept
		c := f.classes.byNumber[known.Class]
		e.class, c.endpoints[e] = c, struct{}{}
		for side := range e.open {
			e.open[side], e.beneath[side] = c.allow[side] != 0, c.beneath[side]
		}
		if n := known.Forwarder; n > 0 && n <= pipeline.MaxForwarders && w.Forwards && f.forwarders[n] == nil {
			e.forwarder, f.forwarders[n] = n, e
		}
	} else {
		if known.ID != 0 {
			f.retireID(known.ID, known.Station)
		}
		e.id, e.born, f.anyBorn = f.endpointNumber(), true, true
	}
	f.dirtyRetired = true
	f.endpoints[key], f.byID[e.id] = e, e
	f.moved[e] = struct{}{}
	return e
}

// endpointNumber returns an id for an endpoint that begins: the first of a block of which it has all.
func (f *Firewall) endpointNumber() uint32 {
	for {
		n := (f.next + pipeline.EndpointGenerations - 1) &^ (pipeline.EndpointGenerations - 1)
		if n == 0 || n+pipeline.EndpointGenerations-1 > pipeline.MaxNumber {
			f.next, n = 1, pipeline.EndpointGenerations
		}
		f.next = n + pipeline.EndpointGenerations
		free := true
		for g := n; g < f.next; g++ {
			free = free && !f.inUse(g)
		}
		if free {
			if last := n + pipeline.EndpointGenerations - 1; f.bounded && !before(last, f.bound) {
				f.beyond[n] = struct{}{} // the one that is in cookies
			}
			return n
		}
	}
}

// renew gives an endpoint another id, so that all its connections are judged again.
func (f *Firewall) renew(e *endpoint) {
	delete(f.byID, e.id)
	f.dirtyEndpoints[e.w.Key] = struct{}{}
	e.was, e.wasClass, e.kept = e.id, 0, false
	if e.id++; e.id%pipeline.EndpointGenerations == 0 {
		f.retireID(e.was, stationOf(e.w))
		e.id, e.was, f.dirtyRetired = f.endpointNumber(), 0, true
	}
	f.byID[e.id] = e
}

func (f *Firewall) removeEndpoint(key string, e *endpoint) {
	f.leavePlaces(e.w, key)
	f.retireID(e.id, stationOf(e.w))
	f.forwarders[e.forwarder] = nil
	delete(f.endpoints, key)
	delete(f.byID, e.id)
	e.gone = true
	f.desert(e)
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

// endpointFlows returns all flows of the endpoint.
func (f *Firewall) endpointFlows(key string, e *endpoint) []flow.Flow {
	var out []flow.Flow
	cookie, who := pipeline.NewCookie(pipeline.CookieEndpoint, pipeline.EndpointBase(e.id)), e.identity()
	for _, ofport := range append([]uint32{e.w.OFPort}, e.w.Members...) {
		out = appendSource(out, f.opt.BridgeIndex, cookie, who, Port{OFPort: ofport, VLAN: e.w.VLAN + e.w.Native, Tagged: e.w.VLAN == 0})
	}
	out = append(out, f.macFlows(key, e, cookie)...)
	if _, arriving := f.arriving[key]; arriving {
		pipeline.Arrive(out)
	}
	if e.w.Audit && !e.class.shut() {
		out = append(out, pipeline.AuditEndpoint(cookie, e.id)...)
	}
	if e.w.DHCPServer {
		out = append(out, pipeline.DHCPServer(e.id, f.opt.Learning)...)
	}
	_, macKnown := parseMAC(e.w.MAC)
	out = append(out, pipeline.Bind(cookie, who, macKnown, e.forwarder != 0)...)
	if e.was != 0 {
		out = append(out, pipeline.Reclassify(cookie, e.was)...)
	}
	if e.wasClass != 0 && e.wasClass != e.class.number { // numbers that rest are given when no others are left
		out = append(out, pipeline.ReclassifyMoved(cookie, pipeline.Identity{Endpoint: e.id, Class: e.wasClass})...)
	}
	if e.forwarder != 0 {
		in, outgoing := pipeline.ForwarderZones(f.opt.BridgeIndex, e.forwarder-1)
		out = append(out, pipeline.Legs(cookie, e.id, in, outgoing)...)
	}
	return out
}

func (e *endpoint) identity() pipeline.Identity {
	return pipeline.Identity{Endpoint: e.id, Class: e.class.number}
}
