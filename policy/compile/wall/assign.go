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
	// Hash is that of what the rule matched and how it ranked when the id was given or last confirmed: a rule that comes back
	// different gets a new id, as it may have lost something in the meantime.
	Hash string `json:"hash"`
}

// EndpointAssignment holds the numbers of an endpoint.
type EndpointAssignment struct {
	// ID is the endpoint id of reg8 and reg9. It holds for this address only.
	ID uint32 `json:"id"`
	Station
	// MACs are the other addresses that it declares.
	MACs []string `json:"macs,omitempty"`
	// EgressAllow and IngressAllow are the numbers of the default allow ids; 0 = isolated in that direction.
	EgressAllow  uint32 `json:"egressAllow,omitempty"`
	IngressAllow uint32 `json:"ingressAllow,omitempty"`
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
}

// Empty reports whether there is nothing to persist.
func (c *AssignmentChanges) Empty() bool {
	return len(c.Policies) == 0 && len(c.Endpoints) == 0 && len(c.Retired) == 0
}

// Apply brings a up to date with c.
func (a *Assignments) Apply(c AssignmentChanges) {
	a.Next = c.Next
	if a.Policies == nil {
		a.Policies = map[string]PolicyAssignment{}
	}
	if a.Endpoints == nil {
		a.Endpoints = map[string]EndpointAssignment{}
	}
	for name, p := range c.Policies {
		if p == nil {
			delete(a.Policies, name)
		} else {
			a.Policies[name] = maps.Clone(p)
		}
	}
	if a.Retired == nil {
		a.Retired = map[uint32]Station{}
	}
	for id, s := range c.Retired {
		if s == nil {
			delete(a.Retired, id)
		} else {
			a.Retired[id] = *s
		}
	}
	for key, e := range c.Endpoints {
		if e == nil {
			delete(a.Endpoints, key)
		} else {
			a.Endpoints[key] = *e
		}
	}
}

// numbers returns every number that is assigned.
func (a *Assignments) numbers() map[uint32]struct{} {
	out := map[uint32]struct{}{}
	for _, p := range a.Policies {
		for _, r := range p {
			out[r.ID] = struct{}{}
		}
	}
	for _, e := range a.Endpoints {
		out[e.ID], out[e.EgressAllow], out[e.IngressAllow] = struct{}{}, struct{}{}, struct{}{}
	}
	for id := range a.Retired {
		out[id] = struct{}{}
	}
	return out
}

// assignment is what is persisted of an endpoint.
func (e *endpoint) assignment() EndpointAssignment {
	return EndpointAssignment{ID: e.id, Station: stationOf(e.w), MACs: e.w.MACs, EgressAllow: e.allow[egress],
		IngressAllow: e.allow[ingress], Forwarder: e.forwarder}
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
		out[r.key()] = RuleAssignment{ID: r.id, Priority: r.priority, Hash: r.hash}
	}
	return out
}
