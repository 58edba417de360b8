package wall

import "maps"

// Assignments are the numbers that must survive a restart, because conntrack entries and installed flows carry them. They are plain
// values, fit for JSON.
type Assignments struct {
	// Next is a number such that no number was used, or may be in use, from it on.
	Next      uint32                        `json:"next"`
	Policies  map[string]PolicyAssignment   `json:"policies,omitempty"`  // by policy name
	Endpoints map[string]EndpointAssignment `json:"endpoints,omitempty"` // by workload key
	Retired   map[uint32]Station            `json:"retired,omitempty"`   // by endpoint id
	Classes   map[uint16]ClassAssignment    `json:"classes,omitempty"`   // by class number
	// Resting are the class numbers that were given up last. They need not outlive the process.
	Resting []uint16 `json:"-"`
	// Addresses say what choices of peers held, by their hashes.
	Addresses map[string]AddressAssignment `json:"addresses,omitempty"`
	// AddressNumbers and ServiceNumbers name what the numbers stand for. No connection carries them: a wrong one costs flow-mods.
	AddressNumbers map[uint16]string `json:"addressNumbers,omitempty"`
	ServiceNumbers map[uint16]string `json:"serviceNumbers,omitempty"`
}

// ClassAssignment holds what a class of endpoints is.
type ClassAssignment struct {
	// Choices are the hashes of what its endpoints are chosen by, sorted: who leaves or joins one while nobody looks is found out by it.
	Choices []string `json:"choices,omitempty"`
	// EgressAllow and IngressAllow are the numbers of the default allow ids; 0 = isolated in that direction without end.
	EgressAllow  uint32 `json:"egressAllow,omitempty"`
	IngressAllow uint32 `json:"ingressAllow,omitempty"`
	// EgressEnding and IngressEnding: isolated in that direction for some time.
	EgressEnding  bool `json:"egressEnding,omitempty"`
	IngressEnding bool `json:"ingressEnding,omitempty"`
}

// AddressAssignment holds what is known of the addresses of a choice.
type AddressAssignment struct {
	// Hash is that of the addresses; empty where they are in the name of the choice.
	Hash string `json:"hash,omitempty"`
	Raw  bool   `json:"raw,omitempty"`  // they are not numbered
	Kept bool   `json:"kept,omitempty"` // some left, and their connections were kept
}

// Station is where an endpoint is reached, or was under an id that it no longer has. What is at the same port with the same MAC address is
// the same station.
type Station struct {
	Port string `json:"port,omitempty"`
	MAC  string `json:"mac,omitempty"`
	VLAN int    `json:"vlan,omitempty"`
	// Retired is the number that was next when the id was retired, 0 = it is in force.
	Retired uint32 `json:"retired,omitempty"`
}

// PolicyAssignment holds the numbers of a policy's rules, by "direction/name". Rules without flows have none.
type PolicyAssignment map[string]RuleAssignment

// RuleAssignment holds the numbers of a rule.
type RuleAssignment struct {
	ID       uint32 `json:"id"`
	Priority uint16 `json:"priority"`
	// Conjunction is the number of its conjunction, an id that it had.
	Conjunction uint32 `json:"conjunction,omitempty"`
	// Pass: the rule leads to the next tier. What stands below it takes over if it is gone when an earlier run's assignments are taken up.
	Pass bool `json:"pass,omitempty"`
	// Form is how its flows are written if its lists are long.
	Form Form `json:"form,omitempty"`
	// Hash is that of what the rule named and how it ranked when the id was given or last confirmed: a rule that comes back
	// different gets a new id, as it may have lost something in the meantime.
	Hash string `json:"hash"`
}

// EndpointAssignment holds the numbers of an endpoint.
type EndpointAssignment struct {
	// ID is the endpoint id of reg8 and reg9. It holds for this address only.
	ID uint32 `json:"id"`
	Station
	// MACs are the other addresses that it declares.
	MACs  []string `json:"macs,omitempty"`
	Class uint16   `json:"class,omitempty"` // number
	// Was is the id before, 0 = none: packets that carried it may have been under way.
	Was uint32 `json:"was,omitempty"`
	// WasClass is the number of the class before, since the endpoint has its id; 0 = none.
	WasClass uint16 `json:"wasClass,omitempty"`
	Kept     bool   `json:"kept,omitempty"` // it left groups that keep connections
	// Forwarder is 1 + the index of its zones (pipeline.ForwarderZones); 0 = it does not forward.
	Forwarder int `json:"forwarder,omitempty"`
}

// AssignmentChanges are the entries of Assignments that changed.
type AssignmentChanges struct {
	Next uint32 `json:"next"`
	// Policies and Endpoints hold whole entries; nil = remove the entry.
	Policies  map[string]PolicyAssignment    `json:"policies,omitempty"`
	Endpoints map[string]*EndpointAssignment `json:"endpoints,omitempty"`
	Retired   map[uint32]*Station            `json:"retired,omitempty"`
	Classes   map[uint16]*ClassAssignment    `json:"classes,omitempty"`
	Resting   []uint16                       `json:"-"` // all of them
	Addresses map[string]*AddressAssignment  `json:"addresses,omitempty"`
	// AddressNumbers and ServiceNumbers hold what stands for what now; "" = nothing.
	AddressNumbers map[uint16]string `json:"addressNumbers,omitempty"`
	ServiceNumbers map[uint16]string `json:"serviceNumbers,omitempty"`
}

// Empty reports whether there is nothing to persist.
func (c *AssignmentChanges) Empty() bool {
	return len(c.Policies)+len(c.Endpoints)+len(c.Retired)+len(c.Classes)+len(c.Addresses)+len(c.AddressNumbers)+len(c.ServiceNumbers) == 0
}

// Apply brings a up to date with c.
func (a *Assignments) Apply(c AssignmentChanges) {
	a.Next, a.Resting = c.Next, c.Resting
	a.Policies = applied(a.Policies, c.Policies, func(p PolicyAssignment) (PolicyAssignment, bool) { return maps.Clone(p), p != nil })
	a.Endpoints = applied(a.Endpoints, c.Endpoints, deref)
	a.Retired = applied(a.Retired, c.Retired, deref)
	a.Classes = applied(a.Classes, c.Classes, deref)
	a.Addresses = applied(a.Addresses, c.Addresses, deref)
	a.AddressNumbers = applied(a.AddressNumbers, c.AddressNumbers, notEmpty)
	a.ServiceNumbers = applied(a.ServiceNumbers, c.ServiceNumbers, notEmpty)
}

// Changes returns what makes them of none.
func (a *Assignments) Changes() AssignmentChanges {
	return AssignmentChanges{Next: a.Next, Resting: a.Resting, Policies: a.Policies, Endpoints: refs(a.Endpoints), Retired: refs(a.Retired),
		Classes: refs(a.Classes), Addresses: refs(a.Addresses), AddressNumbers: a.AddressNumbers, ServiceNumbers: a.ServiceNumbers}
}

func refs[K comparable, V any](in map[K]V) map[K]*V {
	out := make(map[K]*V, len(in))
	for k, v := range in {
		out[k] = &v
	}
	return out
}

// applied brings entries up to date; value returns what is to be kept of a change, false = the entry goes.
func applied[K comparable, V, C any](to map[K]V, changes map[K]C, value func(C) (V, bool)) map[K]V {
	if to == nil {
		to = map[K]V{}
	}
	for key, c := range changes {
		if v, stays := value(c); stays {
			to[key] = v
		} else {
			delete(to, key)
		}
	}
	return to
}

func deref[V any](v *V) (out V, ok bool) {
	if v != nil {
		out, ok = *v, true
	}
	return out, ok
}

func notEmpty(s string) (string, bool) { return s, s != "" }

// numbers returns every number that is assigned.
func (a *Assignments) numbers() map[uint32]struct{} {
	out := map[uint32]struct{}{}
	for _, p := range a.Policies {
		for _, r := range p {
			out[r.ID], out[r.Conjunction] = struct{}{}, struct{}{}
		}
	}
	for _, e := range a.Endpoints {
		out[e.ID] = struct{}{}
	}
	for _, c := range a.Classes {
		out[c.EgressAllow], out[c.IngressAllow] = struct{}{}, struct{}{}
	}
	for id := range a.Retired {
		out[id] = struct{}{}
	}
	return out
}

// assignment is what is persisted of an endpoint.
func (e *endpoint) assignment() EndpointAssignment {
	out := EndpointAssignment{ID: e.id, Station: stationOf(e.w), MACs: e.w.MACs, Was: e.was, WasClass: e.wasClass, Kept: e.kept,
		Forwarder: e.forwarder}
	if e.class != nil {
		out.Class = e.class.number
	}
	return out
}

// assignment is what is persisted of a class.
func (c *class) assignment() *ClassAssignment {
	out := &ClassAssignment{EgressAllow: c.allow[egress], IngressAllow: c.allow[ingress], EgressEnding: c.isolation[egress].ending(),
		IngressEnding: c.isolation[ingress].ending()}
	for _, h := range c.hashes {
		out.Choices = append(out.Choices, hexHash(h))
	}
	return out
}

// assignment is what is persisted of a choice; nil = nothing.
func (x *choice) assignment() *AddressAssignment {
	if len(x.peerOf) == 0 && !x.kept {
		return nil
	}
	out := AddressAssignment{Raw: x.address.raw, Kept: x.kept}
	if !x.constant {
		out.Hash = x.now.contentHash()
	}
	if out == (AddressAssignment{}) {
		return nil
	}
	return &out
}

// assignment is what is persisted of a policy; nil = nothing.
func (ps *policyState) assignment() PolicyAssignment {
	var out PolicyAssignment
	for _, r := range ps.rules {
		if r.id == 0 {
			continue
		}
		if out == nil {
			out = PolicyAssignment{}
		}
		out[r.key()] = RuleAssignment{ID: r.id, Conjunction: r.conj, Form: r.form, Priority: r.priority, Hash: r.hash,
			Pass: r.leads()}
	}
	return out
}
