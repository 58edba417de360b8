package wall

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// Firewall compiles the firewall of one bridge. The Set methods note what changed; Compile says what that means. It is for one
// goroutine, save for Rule.
//
// After NewFirewall with the assignments of an earlier run, everything must be set before the first Compile: what is missing then is
// taken for deleted.
type Firewall struct {
	opt  Options
	next uint32 // number

	imported Assignments         // of earlier runs; empty after the first Compile
	reserved map[uint32]struct{} // the numbers in imported
	compiled bool                // at least once
	bounded  bool                // numbers from bound on wait; see Reserve
	bound    uint32
	beyond   map[uint32]struct{} // numbers given that wait
	held     map[string]struct{} // owners whose flows wait

	ports     []Port
	endpoints map[string]*endpoint // by workload key
	byID      map[uint32]*endpoint
	places    map[place][]string
	strays    map[string][]Stray          // by workload key
	known     map[string]*policy.Workload // as given
	selected  *selections
	groups    map[string]*policy.Group
	policies  map[string]*policyState
	order     [2]ordered
	pickup    bool
	used      [2]int           // rules that have or will have a priority
	system    pipeline.Options // of the flows last returned
	registry  *registry
	// forwarders by 1 + the index of their zones; [0] is nobody.
	forwarders [pipeline.MaxForwarders + 1]*endpoint
	retired    map[uint32]Station
	remembered []pipeline.Connection
	unstamped  bool
	arriving   map[string]struct{} // keys of workloads with a pickup window of their own

	// What Compile has to look at.
	dirtyPolicies  map[string]*policyState
	dirtyEndpoints map[string]struct{}
	dirtyPorts     bool
	dirtyPickup    bool
	dirtyRetired   bool                // ids that endpoints no longer have, or the endpoints that are there instead
	retiredNow     map[uint32]*Station // as AssignmentChanges.Retired
	uprooted       bool                // as Changes.Uprooted
	arrived        map[string]struct{} // as Changes.Arrived

	installedRetired bool                      // OwnerRetired has flows
	anyBorn          bool                      // some endpoint is born
	overflowed       map[*policyState]struct{} // without priorities
	// Keys whose endpoint was told of in Changes.
	installed map[string]struct{}
}

// NewFirewall returns the firewall of a bridge that has no workloads and no policies yet. It fails on options that make no sense.
func NewFirewall(o Options) (*Firewall, error) {
	if o.Bridge == "" {
		return nil, errors.New("firewall: no bridge")
	}
	if _, err := pipeline.Zone(o.BridgeIndex, 0); err != nil {
		return nil, fmt.Errorf("firewall of bridge %s: %w", o.Bridge, err)
	}
	if o.LogPerSecond == 0 {
		o.LogPerSecond = DefaultLogPerSecond
	}
	f := &Firewall{
		opt: o, next: 1,
		endpoints: map[string]*endpoint{}, byID: map[uint32]*endpoint{}, places: map[place][]string{}, known: map[string]*policy.Workload{},
		arrived: map[string]struct{}{}, retired: map[uint32]Station{}, retiredNow: map[uint32]*Station{},
		groups: map[string]*policy.Group{}, policies: map[string]*policyState{}, registry: newRegistry(),
		overflowed: map[*policyState]struct{}{}, beyond: map[uint32]struct{}{}, held: map[string]struct{}{},
		dirtyPolicies: map[string]*policyState{}, dirtyEndpoints: map[string]struct{}{}, installed: map[string]struct{}{},
	}
	f.selected = newSelections(func(key string) (uint32, bool) {
		e, ok := f.endpoints[key]
		if !ok {
			return 0, false
		}
		return e.id, true
	})
	if a := o.Assignments; a != nil {
		f.next = max(f.next, a.Next)
		f.imported = Assignments{Policies: maps.Clone(a.Policies), Endpoints: maps.Clone(a.Endpoints)}
		for id, s := range a.Retired {
			f.retireID(id, s)
		}
		f.reserved = a.numbers()
		f.opt.Assignments = nil
	}
	return f, nil
}

// number returns a number that nothing carries. After half a billion they begin again at 1, leaving out those in force or lately
// removed; conntrack has long forgotten the others.
func (f *Firewall) number() uint32 {
	for {
		n := f.next
		if f.next++; f.next > pipeline.MaxNumber {
			f.next = 1
		}
		_, reserved := f.reserved[n]
		_, retired := f.retired[n]
		if _, endpoint := f.byID[n]; reserved || retired || endpoint || f.registry.has(n) || f.registry.has(allowID(n)) {
			continue
		}
		f.gave(n)
		return n
	}
}

// SetWorkloads replaces the workloads of all bridges, local and remote, and the ports of the bridge that are not workloads. Workloads
// are immutable; their order does not matter.
func (f *Firewall) SetWorkloads(workloads []*policy.Workload, ports []Port) {
	if !slices.Equal(ports, f.ports) {
		f.ports, f.dirtyPorts = slices.Clone(ports), true
	}
	now := make(map[string]*policy.Workload, len(workloads))
	var changed []string
	for _, w := range workloads {
		now[w.Key] = w
		if old := f.known[w.Key]; old != w && (old == nil || !reflect.DeepEqual(old, w)) {
			changed = append(changed, w.Key)
		}
	}
	for key := range f.known {
		if now[key] == nil {
			changed = append(changed, key)
		}
	}
	before := f.known
	f.known = now
	slices.Sort(changed) // ids are given in this order
	for _, key := range changed {
		w := now[key]
		local := w
		if w != nil && !f.here(w) {
			local = nil
		}
		moved := f.setEndpoint(key, local)
		if local != nil {
			f.noteArrival(key, local, before)
		}
		f.selected.replace(key, w, moved, f.touch)
	}
}

func (f *Firewall) here(w *policy.Workload) bool {
	return !w.Remote && w.Bridge == f.opt.Bridge && w.VLAN >= 0 && w.VLAN <= 4095
}

// SetGroups replaces the groups. They are immutable.
func (f *Firewall) SetGroups(groups []*policy.Group) {
	now := make(map[string]*policy.Group, len(groups))
	changed := map[string]struct{}{}
	for _, g := range groups {
		now[g.Name] = g
		if old := f.groups[g.Name]; old != g && (old == nil || !reflect.DeepEqual(old.Spec, g.Spec)) {
			changed[g.Name] = struct{}{}
		}
	}
	for name := range f.groups {
		if now[name] == nil {
			changed[name] = struct{}{}
		}
	}
	f.groups = now
	if len(changed) == 0 {
		return
	}
	for _, ps := range f.policies {
		for name := range ps.groups {
			if _, ok := changed[name]; ok {
				f.touch(ps)
				break
			}
		}
	}
}

// SetPolicy adds or replaces a policy. It must be valid and is immutable.
func (f *Firewall) SetPolicy(p *policy.Policy) {
	ps := f.policies[p.Name]
	if ps == nil {
		ps = &policyState{name: p.Name}
		f.policies[p.Name] = ps
	}
	ps.policy = p
	f.touch(ps)
}

// DeletePolicy removes a policy; one that does not exist is no fault.
func (f *Firewall) DeletePolicy(name string) {
	if ps := f.policies[name]; ps != nil {
		ps.policy = nil
		f.touch(ps)
	}
}

// SetPickup opens or closes the pickup window. While it is open, remembered are the TCP connections whose
// initiators are known.
func (f *Firewall) SetPickup(on bool, remembered []pipeline.Connection) {
	f.dirtyPickup = f.dirtyPickup || on || f.pickup
	f.pickup, f.remembered = on, remembered
}

// SetUnstamped says whether connections that a version stamped which did not write their ends down may still be there.
func (f *Firewall) SetUnstamped(on bool) { f.unstamped = on }

// Pickup reports whether the pickup window is open.
func (f *Firewall) Pickup() bool { return f.pickup }

// Rule says what an id stands for: a rule, the default of an endpoint, or the default of sides without one. Ids that were removed are
// known for a while. It is safe for concurrent use.
func (f *Firewall) Rule(id uint32) (RuleInfo, bool) { return f.registry.get(id) }

// Assignments returns all assignments as of the last Compile.
func (f *Firewall) Assignments() *Assignments {
	a := &Assignments{Next: f.next, Policies: map[string]PolicyAssignment{}, Endpoints: map[string]EndpointAssignment{}}
	for name, ps := range f.policies {
		if p := ps.assignment(); p != nil {
			a.Policies[name] = p
		}
	}
	for key, e := range f.endpoints {
		a.Endpoints[key] = e.assignment()
	}
	a.Retired = maps.Clone(f.retired)
	return a
}

// touch has Compile look at a policy.
func (f *Firewall) touch(ps *policyState) { f.dirtyPolicies[ps.name] = ps }

// systemFlows returns the flows that belong to no resource.
func (f *Firewall) systemFlows(o pipeline.Options) []flow.Flow {
	out := pipeline.Fixed(o)
	for _, p := range f.ports {
		out = appendSource(out, f.opt.BridgeIndex, pipeline.SystemCookie(pipeline.TableSource, pipeline.ItemPort), 0, p)
	}
	return out
}

func (f *Firewall) systemOptions() pipeline.Options {
	o := pipeline.Options{BridgeIndex: f.opt.BridgeIndex, Pickup: f.pickup, Arrivals: f.arrivals(), Unstamped: f.unstamped,
		GuardGroupFrames: len(f.order[ingress].rules)+len(f.order[egress].rules) > 0}
	for _, e := range f.endpoints {
		o.TrackUnmanaged = o.TrackUnmanaged || e.w.MAC == ""
		o.Forwarders = o.Forwarders || e.forwarder != 0
		o.GuardGroupFrames = o.GuardGroupFrames || len(e.isolating[ingress]) > 0
	}
	return o
}

func parseMAC(s string) (uint64, bool) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return 0, false
	}
	return flow.MAC(hw).Lo, true
}
