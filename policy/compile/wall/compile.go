package wall

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// change is the work of one Compile.
type change struct {
	rules     []*rule    // that may differ from what the last Compile left
	place     [2][]*rule // to be put in order
	displaced [2][]*rule // to be taken out of the order, perhaps to be placed again
}

// Compile returns what differs since the last Compile. The first returns everything.
func (f *Firewall) Compile() Changes {
	var c change
	f.resolveChoices()
	for _, ps := range f.takeDirty() {
		f.update(ps, &c)
	}
	if !f.compiled {
		f.remember()
	}
	f.tallyAll(&c)
	f.reversion(&c)
	f.dropIdle()
	f.settleClasses()
	for side, es := range f.isolate() {
		for _, e := range es {
			f.closed[side][e] = struct{}{}
		}
	}
	f.renewDue()
	f.settleDefaults()
	f.settleServices()
	f.settleAddresses()
	f.countTerms()
	f.rewriteRules()
	for side := range f.order {
		f.settleOrder(side, &c)
	}
	out := Changes{Owners: map[string][]flow.Flow{}, Ends: map[string]int64{}, Policies: map[string]*PolicyState{}, Meters: f.meters(),
		Addresses: map[uint16][]string{}}
	out.Assignments = AssignmentChanges{Policies: map[string]PolicyAssignment{}, Endpoints: map[string]*EndpointAssignment{},
		Classes: map[uint16]*ClassAssignment{}, Addresses: map[string]*AddressAssignment{}, AddressNumbers: map[uint16]string{},
		ServiceNumbers: map[uint16]string{}}
	out.Uprooted, f.uprooted, out.Arrived = f.uprooted, false, f.takeArrived()
	f.forgetImported(&out)
	f.emitPolicies(&c, &out)
	f.emitEndpoints(&out)
	f.emitClasses(&out)
	f.emitAddresses(&out)
	f.emitServices(&out)
	f.emitChoices(&out)
	f.emitRetired(&out)
	f.emitSystem(&out)
	out.Assignments.Retired, f.retiredNow = f.retiredNow, map[uint32]*Station{}
	f.rested = slices.Clone(f.classes.numbers.resting)
	out.Assignments.Next, out.Assignments.Resting = f.next, f.rested
	out.Names = f.registry.take()

	for _, r := range c.rules {
		r.before = ruleBefore{r.id, r.rank, r.scope}
	}
	for x := range f.changedChoices {
		x.was, x.foreign, x.changed, x.grown, x.narrowed = x.now, false, false, false, false
	}
	clear(f.changedChoices)
	f.led = [2]bool{f.leads(egress), f.leads(ingress)}
	f.dirtyPickup, f.dirtyPorts, f.anyBorn, f.compiled = false, false, false, true
	return out
}

// takeDirty returns the policies to look at, in order of their names. Policies that lacked priorities are tried again with every
// change.
func (f *Firewall) takeDirty() []*policyState {
	if len(f.dirtyPolicies) > 0 {
		for ps := range f.overflowed {
			f.touch(ps)
		}
	}
	clear(f.overflowed)
	dirty := sortedPolicies(maps.Values(f.dirtyPolicies))
	clear(f.dirtyPolicies)
	return dirty
}

func sortedPolicies(in iter.Seq[*policyState]) []*policyState {
	return slices.SortedFunc(in, func(a, b *policyState) int { return strings.Compare(a.name, b.name) })
}

// settleOrder brings the order of one side up to date.
func (f *Firewall) settleOrder(side int, c *change) {
	for _, r := range f.order[side].update(c.displaced[side], c.place[side]) {
		r.fresh, r.owner.changed = false, true
		c.rules = append(c.rules, r)
	}
}

// resolveChoices brings the choices up to date whose workloads or groups changed.
func (f *Firewall) resolveChoices() {
	for x := range f.staleChoices {
		if f.choices.byHash[x.hash] != x {
			continue
		}
		before := x.shape()
		f.resolve(x)
		for ps := range x.subjectOf {
			f.told[ps] = struct{}{}
		}
		if x.shape() != before { // rules come to match something, or nothing any more, or another IP version
			f.rewritten[x] = struct{}{}
			for ps := range x.subjectOf {
				f.touch(ps)
			}
			for r := range x.peerOf {
				f.touch(r.owner)
			}
		}
	}
	clear(f.staleChoices)
}

// dropIdle gives up the choices that nobody uses any more.
func (f *Firewall) dropIdle() {
	for _, x := range slices.Concat(f.idle, f.newChoices) {
		f.release(x)
	}
	f.idle, f.newChoices = nil, nil
}

// rewriteRules has the flows of the rules built again that match a choice otherwise.
func (f *Firewall) rewriteRules() {
	for x := range f.rewritten {
		for r := range x.users() {
			f.rewrite(r)
		}
	}
	clear(f.rewritten)
	for x := range f.changedChoices { // rules that share may overlap now
		for r := range x.users() {
			if r.at != 0 {
				f.rewrite(r)
			}
		}
	}
}

// rewrite has the flows of a rule built again.
func (f *Firewall) rewrite(r *rule) {
	r.fresh, r.owner.changed = false, true
	f.told[r.owner] = struct{}{}
}

// emitPolicies builds the flows of the rules that changed and tells of their policies.
func (f *Firewall) emitPolicies(c *change, out *Changes) {
	for _, r := range c.rules {
		f.told[r.owner] = struct{}{}
	}
	for _, ps := range sortedPolicies(maps.Keys(f.told)) { // forms of rules are decided in this order
		f.emitPolicy(ps, out)
	}
	clear(f.told)
	clear(f.listed)
}

func (f *Firewall) emitPolicy(ps *policyState, out *Changes) {
	if ps.policy == nil {
		f.countConjunctions(ps)
		delete(f.policies, ps.name)
		if ps.installed {
			ps.installed = false
			out.Owners[OwnerPolicy(ps.name)] = f.released(OwnerPolicy(ps.name), nil)
			out.Policies[ps.name] = nil
			out.Assignments.Policies[ps.name] = nil
		}
		return
	}
	if ps.changed {
		for _, r := range ps.rules {
			if r.at != 0 { // as long as it shares
				r.at, r.fresh = 0, false
			}
		}
		for _, set := range f.sharers(ps) {
			f.share(set)
		}
		n := 0
		for _, r := range ps.rules {
			if r.id == 0 {
				continue
			}
			if !r.fresh {
				r.flows, r.fresh = f.ruleFlows(r), true
			}
			n += len(r.flows)
		}
		flows := slices.Grow([]flow.Flow(nil), n)
		for _, r := range ps.rules {
			if r.id != 0 {
				flows = append(flows, r.flows...)
			}
		}
		out.Owners[OwnerPolicy(ps.name)] = f.released(OwnerPolicy(ps.name), flows)
		if ps.ends != 0 {
			out.Ends[OwnerPolicy(ps.name)] = ps.ends
		}
		out.Assignments.Policies[ps.name] = ps.assignment()
		f.countConjunctions(ps)
	}
	ps.changed, ps.installed = false, true
	out.Policies[ps.name] = f.state(ps)
}

// emitEndpoints builds the flows of the endpoints that changed.
func (f *Firewall) emitEndpoints(out *Changes) {
	for key := range f.dirtyEndpoints {
		e := f.endpoints[key]
		_, installed := f.installed[key]
		switch {
		case e != nil:
			e.born = false
			a := e.assignment()
			out.Owners[OwnerEndpoint(key)] = f.released(OwnerEndpoint(key), f.endpointFlows(key, e))
			out.Assignments.Endpoints[key] = &a
			f.installed[key] = struct{}{}
		case installed:
			out.Owners[OwnerEndpoint(key)] = f.released(OwnerEndpoint(key), nil)
			out.Assignments.Endpoints[key] = nil
			delete(f.installed, key)
		}
	}
	clear(f.dirtyEndpoints)
}

func (f *Firewall) emitSystem(out *Changes) {
	if v := f.systemOptions(); !f.compiled || f.dirtyPorts || v != f.system {
		f.dirtyPickup = f.dirtyPickup || f.pickup // it judges likewise
		f.system = v
		out.Owners[OwnerSystem] = f.systemFlows(v)
	}
	if !f.dirtyPickup {
		return
	}
	out.Owners[OwnerPickup] = nil
	if f.pickup {
		for _, c := range f.remembered {
			out.Owners[OwnerPickup] = append(out.Owners[OwnerPickup], pipeline.Remembered(f.system, c)...)
		}
	}
}

// forgetImported gives up the assignments of earlier runs that nothing has claimed in the first Compile.
func (f *Firewall) forgetImported(out *Changes) {
	if f.compiled {
		return
	}
	for name := range f.imported.Policies {
		if f.policies[name] == nil {
			out.Assignments.Policies[name] = nil
		}
	}
	for key, a := range f.imported.Endpoints {
		if f.endpoints[key] == nil {
			out.Assignments.Endpoints[key] = nil
			f.retireID(a.ID, a.Station)
		}
	}
	f.forgetNumbers(out)
	f.imported, f.reserved = Assignments{}, nil
}

// state describes what became of a policy.
func (f *Firewall) state(ps *policyState) *PolicyState {
	s := &PolicyState{Subjects: namesOf(ps.subjects), Rules: slices.Grow([]RuleState(nil), len(ps.rules))}
	for _, r := range ps.rules {
		s.Rules = append(s.Rules, RuleState{Ref: r.ref, Action: r.rank.Effect, ID: r.id, Priority: cmp.Or(r.at, r.priority), Flows: len(r.flows),
			Peers: namesOf(r.scope.peers)})
	}
	warn := func(code policy.Code, rule, format string, args ...any) {
		s.Warnings = append(s.Warnings, policy.Warning{Code: code, Rule: rule, Message: fmt.Sprintf(format, args...)})
	}
	subjects := f.list(ps.subjects)
	s.Endpoints = subjects.keys
	for _, key := range subjects.cut {
		warn(WarnTooManyForwarders, "", "more than %d endpoints of bridge %s forward: connections through %s are cut where their two legs meet",
			pipeline.MaxForwarders, f.opt.Bridge, key)
	}
	if len(subjects.keys) == 0 {
		warn(WarnNoEndpoints, "", "the policy applies to no endpoint of bridge %s", f.opt.Bridge)
	}
	if len(subjects.unknown) > 0 {
		warn(WarnEndpointMACUnknown, "",
			"the MAC address of %s is unknown, so what is sent to it cannot be recognised and its ingress is not enforced; "+
				"set external_ids:attached-mac or an Endpoint with a mac", strings.Join(subjects.unknown, ", "))
	}
	for _, g := range ps.unknownGroups() {
		warn(WarnGroupUnknown, "", "group %q does not exist and selects nobody", g)
	}
	if ps.overflow {
		f.overflowed[ps] = struct{}{}
		s.Err = fmt.Errorf("policy %s: %w", ps.name, ErrTooManyRules)
		return s
	}
	for _, r := range ps.rules {
		if f.entities.foreign > 0 && slices.ContainsFunc(r.scope.peers, func(x *choice) bool { return x.now.world }) {
			warn(WarnWorldKnown, r.key(), "entity world is who is no endpoint that is known: addresses of endpoints on other bridges and hosts, "+
				"which earlier versions counted to it, are not in it; name them by labels or cidr where they are meant")
		}
		if (r.id == 0 || r.empty()) && len(subjects.keys) > 0 {
			warn(WarnRuleEmpty, r.key(), "the rule matches nothing: none of its peers is known, or its peers and services exclude each other")
		}
	}
	return s
}

// listing names the endpoints of choices.
type listing struct {
	keys    []string // in order
	unknown []string // those whose MAC is
	cut     []string // those that forward and have no number to be told apart by
}

// list names the endpoints of choices. Many policies apply to the same one, so it is made once for all of them.
func (f *Firewall) list(choices []*choice) (l listing) {
	if len(choices) == 1 {
		if l, made := f.listed[choices[0]]; made {
			return l
		}
		defer func() { f.listed[choices[0]] = l }()
	}
	var es []*endpoint
	for _, x := range choices {
		es = union(es, x.now.endpoints)
	}
	for _, e := range es {
		if e.w.Forwards && e.forwarder == 0 {
			l.cut = append(l.cut, e.w.Key)
		}
		l.keys = append(l.keys, e.w.Key)
		if e.w.MAC == "" {
			l.unknown = append(l.unknown, e.w.Key)
		}
	}
	slices.Sort(l.keys)
	slices.Sort(l.unknown)
	return l
}

// unknownMACPerSecond is how many frames of unknown addresses a bridge may copy to the controller: enough to learn those of many guests
// that start at once, and too few to matter when one sends a flood of them.
const unknownMACPerSecond = 100

// straysPerSecond is how many packets that are no replies a bridge may copy to the controller: one shows that an endpoint forwards.
const straysPerSecond = 10

// rejectsPerSecond is how many rejected packets a bridge may copy to the controller to be answered: enough for programs that try again, and
// too few for a flood of them to keep the switch or the controller busy.
const rejectsPerSecond = 500

// guardPerSecond is how many frames that SPOOF refuses a bridge may copy to the controller: enough to say who, what and as whom.
// They fit into the switch's queue at once, which loses uncounted what does not.
const guardPerSecond = 100

// outOfStatePerSecond is how much TCP that has no place in a connection a bridge may copy to the controller: a sample, as its flows
// count it all.
const outOfStatePerSecond = 5

// addressesPerSecond is how many frames that speak of addresses a bridge may copy to the controller. Machines repeat them, so that in a
// flood others are only learned later.
const addressesPerSecond = 200

// messagesPerSecond is how many DNS messages of endpoints a bridge may copy to the controller: what some hundred busy machines say.
const messagesPerSecond = 2000

// samplesPerSecond is how many packets of sampled connections a bridge may copy to the controller, and samplesAtOnce how many at once: the
// switch has room for a hundred copies on their way, and verdicts are to find some.
const (
	samplesPerSecond = 5000
	samplesAtOnce    = 64
)

// dataPerSecond is how many packets a bridge may copy to the controller for what is said first on connections, and dataAtOnce how many at
// once.
const (
	dataPerSecond = 2000
	dataAtOnce    = 64
)

// meters returns the meters that fixed flows name.
func (f *Firewall) meters() []flow.MeterDesc {
	limited := func(id, rate, burst uint32) flow.MeterDesc {
		return flow.MeterDesc{ID: id, Flags: flow.MeterPktps | flow.MeterBurst | flow.MeterStats, Bands: []flow.Band{{Type: flow.BandDrop,
			Rate: rate, Burst: burst}}}
	}
	meter := func(id, rate uint32) flow.MeterDesc { return limited(id, rate, 2*rate) }
	out := []flow.MeterDesc{meter(pipeline.MeterLog, f.opt.LogPerSecond), meter(pipeline.MeterDeny, f.opt.LogPerSecond),
		meter(pipeline.MeterUnknownMAC, unknownMACPerSecond),
		meter(pipeline.MeterStray, straysPerSecond), meter(pipeline.MeterReject, rejectsPerSecond),
		meter(pipeline.MeterOutOfState, outOfStatePerSecond), limited(pipeline.MeterGuard, guardPerSecond, guardPerSecond),
		limited(pipeline.MeterSample, samplesPerSecond, samplesAtOnce), limited(pipeline.MeterData, dataPerSecond, dataAtOnce)}
	if f.opt.Learning {
		out = append(out, meter(pipeline.MeterLearn, addressesPerSecond))
	}
	if f.opt.DNS {
		out = append(out, meter(pipeline.MeterMessage, messagesPerSecond))
	}
	return out
}
