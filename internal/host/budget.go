package host

import (
	"fmt"
	"iter"
	"slices"
	"strconv"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// DefaultMaxFlows is how many flows the walls of a host may have together, unless Options.MaxFlows says otherwise: some 600 MB of
// ovs-vswitchd. Two of them are one prefix of a long list.
const DefaultMaxFlows = 500_000

// A write is held against the budget of the host in steps. The first is a rough bound of what the changed resources may add, from above and
// in no time; mostly that fits. Where it may not, the second looks which of them name anything that no policy named before. Where that
// may not fit either, everything is compiled as it would be and counted.

// exceeds says why the host has no room for changes; nil = it has, or they take no more of it than there is in use.
func (e *Engine) exceeds(changes []backend.Change) error {
	v := e.view.Load()
	judging := slices.ContainsFunc(changes, func(c backend.Change) bool {
		return c.Resource != nil && (c.Kind == policy.KindPolicy || c.Kind == policy.KindGroup || c.Kind == policy.KindEndpoint)
	})
	if v.topo == nil || len(v.walls) == 0 || !judging {
		return nil
	}
	desired := 0
	for i := range v.walls {
		sw := v.walls[i].sw
		desired += sw.State().Desired - len(sw.Desired(ofctrl.RenewalOwner))
	}
	add, rules := v.atMost(changes)
	fits := func(parting int) bool {
		return desired+(add+flowsPerParting*v.inForce()*parting)*len(v.walls) <= e.opt.MaxFlows && !v.nearly(rules)
	}
	if fits(len(changes)) || fits(v.parting(changes)) {
		return nil
	}
	then := v.with(changes)
	if slices.ContainsFunc(changes, func(c backend.Change) bool { return c.Kind == policy.KindEndpoint }) {
		then.resolve()
	}
	flows := 0
	for i := range v.walls {
		b := &v.walls[i]
		n, usage, failed, err := b.project(then)
		if err != nil {
			return err
		}
		flows += n
		for _, u := range usage {
			if what, bounded := refusedBeyond[u.Limit]; bounded && u.Used > u.Max && u.Used > b.used(u.Limit) {
				return fmt.Errorf("bridge %s of host %s: this takes %d of %d %s; now %d are in use: %w", b.cfg.Name, v.host, u.Used, u.Max, what,
					b.used(u.Limit), backend.ErrLimit)
			}
		}
		for _, c := range changes {
			if err := failed[c.Name]; err != nil && c.Kind == policy.KindPolicy {
				return fmt.Errorf("bridge %s of host %s: policy %q: %w; %d of egress and %d of ingress rules are in use: %w", b.cfg.Name, v.host,
					c.Name, err, b.used("egress-priorities"), b.used("ingress-priorities"), backend.ErrLimit)
			}
		}
	}
	if flows > e.opt.MaxFlows && flows > desired {
		return fmt.Errorf("host %s: this would be %d flows, and its budget is %d (limits.flows); now there are %d: %w", v.host, flows,
			e.opt.MaxFlows, desired, backend.ErrLimit)
	}
	return nil
}

// refusedBeyond are the limits beyond which something would not be enforced as it is written; beyond the others it is only dearer.
var refusedBeyond = map[string]string{
	"class-numbers":      "class numbers of endpoints",
	"egress-priorities":  "priorities of egress rules",
	"ingress-priorities": "priorities of ingress rules",
}

func (b *wallView) used(limit string) int {
	for _, u := range b.usage {
		if u.Limit == limit {
			return u.Used
		}
	}
	return 0
}

// Rough bounds of what takes flows on a bridge, from above: a rule that is multiplied out has up to 256, in both families; each of its
// elements beyond is a clause for each of up to 16 classes; a member of a group is numbered in two tables. Where classes or numbers part,
// each rule that names them has to follow.
const (
	flowsPerRule     = 512
	flowsPerElement  = 40
	flowsPerMember   = 4
	flowsPerEndpoint = 64
	flowsPerParting  = 2 // and rule in force
)

// atMost bounds how many flows changes may add on a bridge beside those of rules that follow, and says how many rules they bring.
func (v *view) atMost(changes []backend.Change) (flows, rules int) {
	for _, c := range changes {
		switch r := c.Resource.(type) {
		case *policy.Policy:
			for _, list := range [][]policy.Rule{r.Spec.Ingress, r.Spec.Egress} {
				rules += len(list)
				for i := range list {
					flows += flowsPerRule + flowsPerElement*(len(list[i].From)+len(list[i].To)+len(list[i].Services))
				}
			}
			flows += flowsPerElement * len(r.Spec.AppliesTo)
		case *policy.Group:
			flows += flowsPerMember * max(0, len(r.Spec.Members)-v.members(r.Name))
		case *policy.Endpoint:
			flows += flowsPerEndpoint + flowsPerElement*len(r.Spec.Addresses)
		}
	}
	return flows, rules
}

// inForce is how many rules are, on the bridge with most.
func (v *view) inForce() (rules int) {
	for i := range v.walls {
		rules = max(rules, v.walls[i].used("egress-priorities")+v.walls[i].used("ingress-priorities"))
	}
	return rules
}

// parting counts the changes that may part classes or numbers: all but policies whose lists other policies have, too.
func (v *view) parting(changes []backend.Change) (n int) {
	unknown := map[string]bool{}
	numbered := slices.ContainsFunc(v.walls, func(b wallView) bool { return b.used("address-numbers") > 0 })
	for _, c := range changes {
		if p, ok := c.Resource.(*policy.Policy); ok {
			for list := range listsOf(p, numbered) {
				unknown[list] = true
			}
		}
	}
	for _, r := range each(v.resources[policy.KindPolicy]) {
		if len(unknown) == 0 {
			break
		}
		for list := range listsOf(r.(*policy.Policy), numbered) {
			delete(unknown, list)
		}
	}
	parts := func(r policy.Resource) bool {
		p, ok := r.(*policy.Policy)
		if !ok {
			return r != nil
		}
		for list := range listsOf(p, numbered) {
			if unknown[list] {
				return true
			}
		}
		return false
	}
	for _, c := range changes {
		if parts(c.Resource) {
			n++
		}
	}
	return n
}

// listsOf yields what the lists of p read: who it applies to, peers and services of its rules. Peers that are addresses count where
// addresses are numbered.
func listsOf(p *policy.Policy, numbered bool) iter.Seq[string] {
	return func(yield func(string) bool) {
		if !yield(selectorsText(p.Spec.AppliesTo)) {
			return
		}
		for _, d := range [...]policy.Direction{policy.Ingress, policy.Egress} {
			for i := range p.Rules(d) {
				r := &p.Rules(d)[i]
				peers := r.Peers(d)
				if !numbered && !slices.ContainsFunc(peers, func(s policy.Selector) bool { return s.CIDR == "" }) {
					peers = nil
				}
				if len(peers) > 0 && !yield(selectorsText(peers)) || !yield(servicesText(r.Services)) {
					return
				}
			}
		}
	}
}

// selectorsText is a list by what the compiler names it by.
func selectorsText(list []policy.Selector) (out string) {
	for i := range list {
		out += list[i].String() + "\n"
	}
	return out
}

func servicesText(list []policy.Service) string {
	b := []byte("services\n")
	for i := range list {
		s := &list[i]
		b = append(append(b, s.Protocol...), 0)
		for _, ports := range [...][]string{s.Ports, s.SourcePorts} {
			for _, port := range ports {
				b = append(append(b, port...), 0)
			}
			b = append(b, ':')
		}
		for _, n := range [...]*int{s.Type, s.Code} {
			if n != nil {
				b = strconv.AppendInt(b, int64(*n), 10)
			}
			b = append(b, ':')
		}
		b = append(b, '\n')
	}
	return string(b)
}

// members is how many a group has.
func (v *view) members(name string) int {
	if g, ok := v.resources.get(policy.KindGroup, name).(*policy.Group); ok {
		return len(g.Spec.Members)
	}
	return 0
}

// nearly reports whether numbers or priorities may not suffice for so many rules more.
func (v *view) nearly(rules int) bool {
	return slices.ContainsFunc(v.walls, func(b wallView) bool {
		return slices.ContainsFunc(b.usage, func(u wall.Use) bool {
			_, bounded := refusedBeyond[u.Limit]
			return bounded && (u.Used+rules > u.Max || u.Near())
		})
	})
}

// project compiles the bridge's wall as it would be, counts its flows, and says which policies would not be in force.
func (b *wallView) project(then *view) (flows int, usage []wall.Use, failed map[string]error, err error) {
	fw, err := wall.NewFirewall(wall.Options{Bridge: b.cfg.Name, BridgeIndex: b.index, Assignments: b.numbers.assignments(),
		LogPerSecond: b.logRate, Record: b.cfg.Record, DNS: !b.cfg.NoDNS, Learning: b.learning})
	if err != nil {
		return 0, nil, nil, err
	}
	fw.SetWorkloads(then.inventory.Workloads, wall.PlainPorts(then.inventory.On(then.topo.Host, b.cfg.Name)))
	fw.SetGroups(ofKind[*policy.Group](then.resources, policy.KindGroup))
	for _, p := range ofKind[*policy.Policy](then.resources, policy.KindPolicy) {
		fw.SetPolicy(p)
	}
	ch := fw.Compile()
	for _, fs := range ch.Owners {
		flows += len(fs)
	}
	failed = map[string]error{}
	for name, ps := range ch.Policies {
		if ps != nil && ps.Err != nil {
			failed[name] = ps.Err
		}
	}
	return flows, fw.Usage(), failed, nil
}
