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
	given     []*policy.Workload          // as given
	known     map[string]*policy.Workload // the same, by key
	selected  *selections
	groups    map[string]*policy.Group
	policies  map[string]*policyState
	choices   choices
	classes   *classes
	atlas     *atlas
	entities  *entities
	services  *services
	serial    int // of endpoints
	// maxProduct, manyClasses, maxWalked and maxSurplus are the constants of these names, but for tests.
	maxProduct, manyClasses, maxWalked, maxSurplus int

	surplus   int // of all rules
	order     [2]ordered
	pickup    bool
	used      [2]int                  // rules that have or will have a priority
	enforced  [2]int                  // rules in force that are enforced
	leading   [2][pipeline.Tiers]int  // of these the ones that lead to the next tier
	guarded   [2][pipeline.Tiers]bool // rules match that none has
	led       [2]bool                 // there were such rules when Compile last ended
	auditing  int                     // policies in mode audit
	sampling  int                     // policies with rules that sample
	listening int                     // policies with rules that want to know what is said first
	system    pipeline.Options        // of the flows last returned
	registry  *registry
	// forwarders by 1 + the index of their zones; [0] is nobody.
	forwarders [pipeline.MaxForwarders + 1]*endpoint
	retired    map[uint32]Station
	remembered []pipeline.Connection
	unstamped  bool
	grace      bool                // see SetGrace
	arriving   map[string]struct{} // keys of workloads with a pickup window of their own

	// What Compile has to look at.
	dirtyPolicies  map[string]*policyState
	dirtyEndpoints map[string]struct{}
	dirtyPorts     bool
	dirtyServices  bool
	rested         []uint16                  // as Assignments.Resting
	told           map[*policyState]struct{} // whose status may be another
	moved          map[*endpoint]struct{}    // whose choices are others
	members        map[*endpoint]struct{}    // that lost something, see reversion
	closed         [2]map[*endpoint]struct{} // that lost something of what was allowed by default
	staleChoices   map[*choice]struct{}      // to be resolved
	newChoices     []*choice
	changedChoices map[*choice]struct{} // whose now and was may differ
	renumbered     map[*choice]struct{} // whose classes are others
	readdressed    choiceSet            // whose addresses or users are others
	rewritten      map[*choice]struct{} // that rules match otherwise
	idle           []*choice            // perhaps without users
	dropped        []uint64             // hashes of choices that are no more
	dirtyPickup    bool
	dirtyRetired   bool                // ids that endpoints no longer have, or the endpoints that are there instead
	retiredNow     map[uint32]*Station // as AssignmentChanges.Retired
	uprooted       bool                // as Changes.Uprooted
	arrived        map[string]struct{} // as Changes.Arrived

	listed           map[*choice]listing       // of this Compile
	installedRetired bool                      // OwnerRetired has flows
	anyBorn          bool                      // some endpoint is born
	overflowed       map[*policyState]struct{} // without priorities
	// Keys whose endpoint was told of in Changes.
	installed map[string]struct{}
	ending    map[string]struct{} // owners of defaults that end by themselves
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
		opt: o, next: 1, maxProduct: maxProduct, manyClasses: manyClasses, maxWalked: maxWalked, maxSurplus: maxSurplus,
		endpoints: map[string]*endpoint{}, byID: map[uint32]*endpoint{}, places: map[place][]string{}, known: map[string]*policy.Workload{},
		arrived: map[string]struct{}{}, retired: map[uint32]Station{}, retiredNow: map[uint32]*Station{},
		groups: map[string]*policy.Group{}, policies: map[string]*policyState{}, registry: newRegistry(),
		overflowed: map[*policyState]struct{}{}, beyond: map[uint32]struct{}{}, held: map[string]struct{}{},
		dirtyPolicies: map[string]*policyState{}, dirtyEndpoints: map[string]struct{}{}, installed: map[string]struct{}{},
		ending:  map[string]struct{}{},
		choices: choices{map[uint64]*choice{}, map[string]*choice{}}, classes: newClasses(), entities: newEntities(o.Bridge),
		services: newServices(),
		told:     map[*policyState]struct{}{}, moved: map[*endpoint]struct{}{}, members: map[*endpoint]struct{}{},
		closed:       [2]map[*endpoint]struct{}{{}, {}},
		listed:       map[*choice]listing{},
		staleChoices: map[*choice]struct{}{}, changedChoices: map[*choice]struct{}{}, renumbered: map[*choice]struct{}{},
		readdressed: choiceSet{}, rewritten: map[*choice]struct{}{},
	}
	f.selected, f.atlas = newSelections(f.endpoints), newAtlas(f.entities.known)
	if a := o.Assignments; a != nil {
		f.next = max(f.next, a.Next)
		f.imported = Assignments{Policies: maps.Clone(a.Policies), Endpoints: maps.Clone(a.Endpoints), Addresses: maps.Clone(a.Addresses)}
		for id, s := range a.Retired {
			f.retireID(id, s)
		}
		f.reserved = a.numbers()
		f.importNumbers(a)
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
		if f.inUse(n) {
			continue
		}
		f.gave(n)
		return n
	}
}

func (f *Firewall) inUse(n uint32) bool {
	_, reserved := f.reserved[n]
	_, retired := f.retired[n]
	_, endpoint := f.byID[n]
	return reserved || retired || endpoint || f.registry.has(n) || f.registry.has(allowID(n))
}

// SetWorkloads replaces the workloads of all bridges, local and remote, and the ports of the bridge that are not workloads. Workloads
// are immutable; their order does not matter.
func (f *Firewall) SetWorkloads(workloads []*policy.Workload, ports []Port) {
	if !slices.Equal(ports, f.ports) {
		f.ports, f.dirtyPorts = slices.Clone(ports), true
		f.setHost(localOf(ports), f.entities.host.addresses)
	}
	// Most changes are of few, and the others are the same pointers in the same order.
	old, more := f.given, workloads
	for len(old) > 0 && len(more) > 0 && old[0] == more[0] {
		old, more = old[1:], more[1:]
	}
	for len(old) > 0 && len(more) > 0 && old[len(old)-1] == more[len(more)-1] {
		old, more = old[:len(old)-1], more[:len(more)-1]
	}
	f.given = slices.Clone(workloads)
	now := make(map[string]*policy.Workload, len(more))
	var changed []string
	for _, w := range more {
		now[w.Key] = w
		if old := f.known[w.Key]; old != w && (old == nil || !reflect.DeepEqual(old, w)) {
			changed = append(changed, w.Key)
		}
	}
	for _, w := range old {
		if now[w.Key] == nil {
			changed = append(changed, w.Key)
		}
	}
	before := f.known
	defer func() {
		for _, w := range old {
			delete(f.known, w.Key)
		}
		maps.Copy(f.known, now)
	}()
	slices.Sort(changed) // ids are given in this order
	for _, key := range changed {
		w := now[key]
		local := w
		if w != nil && !f.here(w) {
			local = nil
		}
		was := f.endpoints[key]
		f.setEndpoint(key, local)
		if local != nil {
			f.noteArrival(key, local, before)
		}
		f.selected.replace(key, w, was, f.staleMembers, f.staleAddresses)
		f.entities.count(before[key], -1)
		f.entities.count(w, 1)
	}
	f.staleWorlds()
}

func (f *Firewall) staleMembers(x *choice) {
	x.staleMembers = true
	f.staleChoices[x] = struct{}{}
}

func (f *Firewall) staleAddresses(x *choice) {
	x.staleAddresses = true
	f.staleChoices[x] = struct{}{}
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
		if f.groups[g.Name] != g {
			changed[g.Name] = struct{}{}
		}
	}
	for name := range f.groups {
		if now[name] == nil {
			changed[name] = struct{}{}
		}
	}
	f.groups = now
	for name := range changed {
		if x := f.choices.groups[name]; x != nil {
			f.staleAddresses(x)
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

// Rule says what an id stands for: a rule, the default of a class, or the default of sides without one. Ids that were removed are
// known for a while. It is safe for concurrent use.
func (f *Firewall) Rule(id uint32) (RuleInfo, bool) { return f.registry.get(id) }

// Assignments returns all assignments as of the last Compile.
func (f *Firewall) Assignments() *Assignments {
	a := &Assignments{Next: f.next, Policies: map[string]PolicyAssignment{}, Endpoints: map[string]EndpointAssignment{},
		Resting: f.rested, Classes: map[uint16]ClassAssignment{}, Addresses: map[string]AddressAssignment{}, AddressNumbers: map[uint16]string{},
		ServiceNumbers: map[uint16]string{}}
	for n, c := range f.classes.byNumber {
		a.Classes[n] = *c.assignment()
	}
	for _, x := range f.choices.byHash {
		if v := x.assignment(); v != nil {
			a.Addresses[hexHash(x.hash)] = *v
		}
	}
	for _, r := range f.atlas.regions {
		if r.number != 0 {
			a.AddressNumbers[r.number] = hexHash(r.hash())
		}
	}
	for key, n := range f.services.parts {
		a.ServiceNumbers[n] = hexHash(hashOf(key))
	}
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
		if p.Host {
			out = f.hostFlows(out, p)
			continue
		}
		out = appendSource(out, f.opt.BridgeIndex, pipeline.SystemCookie(pipeline.TableSource, pipeline.ItemPort), pipeline.Identity{},
			p)
	}
	return out
}

func (f *Firewall) systemOptions() pipeline.Options {
	o := pipeline.Options{BridgeIndex: f.opt.BridgeIndex, Pickup: f.pickup, Arrivals: f.arrivals(), Unstamped: f.unstamped,
		GuardGroupFrames: f.enforced[ingress]+f.enforced[egress] > 0, AuditPolicies: f.auditing > 0,
		Samples: f.sampling > 0, Messages: f.listening > 0, Passes: f.leads(ingress) || f.leads(egress), Learning: f.opt.Learning, DNS: f.opt.DNS,
		Records: f.opt.Record.Connections == policy.RecordAll}
	for _, e := range f.endpoints {
		o.TrackUnmanaged = o.TrackUnmanaged || e.w.MAC == ""
		o.Forwarders = o.Forwarders || e.forwarder != 0
		o.AuditEndpoints = o.AuditEndpoints || e.w.Audit
		o.Guards = o.Guards || e.w.Guard != nil
	}
	for _, c := range f.classes.byNumber {
		o.GuardGroupFrames = o.GuardGroupFrames || c.isolation[ingress].is()
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
