package wall

import (
	"net/netip"
	"slices"

	"github.com/tapwall/tapwall/policy"
)

// update compiles one policy again: which endpoints it applies to, what its rules match, which keep their ids.
func (f *Firewall) update(ps *policyState, c *change) {
	old := ps.selections
	ps.selections, ps.groups, ps.unknown = map[*selection]struct{}{}, map[string]struct{}{}, nil
	var subjects []uint32
	var rules []*rule
	isolates, logs := [2]bool{}, false
	if p := ps.policy; p != nil {
		subjects = f.peers(ps, p.Spec.AppliesTo).endpoints
		if len(subjects) > 0 && subjects[0] == 0 { // entity world is nobody that a policy could apply to
			subjects = subjects[1:]
		}
		for _, side := range []int{ingress, egress} {
			isolates[side] = p.Isolates(direction(side))
			rules = f.rules(ps, side, subjects, rules)
		}
		logs = p.LogsDefaultDeny()
	}
	slices.Sort(ps.unknown)
	ps.unknown = slices.Compact(ps.unknown)
	f.selected.release(old, ps)

	ps.overflow = false
	if f.overflows(ps, rules) {
		ps.overflow = true
		for _, r := range rules {
			r.space = space{}
		}
	}
	ps.rules = f.adopt(ps, rules, c)

	for _, id := range ps.subjects {
		if e := f.byID[id]; e != nil {
			if _, still := slices.BinarySearch(subjects, id); !still {
				delete(e.policies, ps)
				f.isolate(e, egress, ps.name, false, false)
				f.isolate(e, ingress, ps.name, false, false)
			}
		}
	}
	for _, id := range subjects {
		e := f.byID[id]
		e.policies[ps] = struct{}{}
		f.isolate(e, egress, ps.name, isolates[egress], logs)
		f.isolate(e, ingress, ps.name, isolates[ingress], logs)
	}
	ps.subjects, ps.isolates, ps.logs = subjects, isolates, logs
}

// rules appends the rules of one direction as the policy now reads.
func (f *Firewall) rules(ps *policyState, side int, subjects []uint32, out []*rule) []*rule {
	d := direction(side)
	specs := ps.policy.Rules(d)
	for i := range specs {
		spec := &specs[i]
		r := &rule{
			ref: policy.RuleRef{Policy: ps.name, Direction: d, Rule: spec.Name}, side: side,
			rank: policy.RankOf(ps.policy, spec), log: spec.Log,
			space: space{subjects: subjects, services: policy.NewServiceSet(spec.Services)},
		}
		if peers := spec.Peers(d); len(peers) == 0 {
			r.space.peers = peerSet{any: true}
		} else {
			r.space.peers = f.peers(ps, peers)
		}
		if r.space.empty() {
			r.space = space{}
		}
		out = append(out, r)
	}
	return out
}

// peers resolves selectors.
func (f *Firewall) peers(ps *policyState, selectors []policy.Selector) peerSet {
	var any bool
	var ids []uint32
	var prefixes []netip.Prefix
	var add func(sel policy.Selector)
	add = func(sel policy.Selector) {
		switch sel.Kind() {
		case policy.SelectEntity:
			any = any || sel.Entity == policy.EntityAny
			if sel.Entity == policy.EntityWorld {
				ids = append(ids, 0)
			}
		case policy.SelectCIDR:
			if p, err := sel.Prefixes(); err == nil {
				prefixes = append(prefixes, p...)
			}
		case policy.SelectGroup:
			ps.groups[sel.Group] = struct{}{}
			g := f.groups[sel.Group]
			if g == nil {
				ps.unknown = append(ps.unknown, sel.Group)
				return
			}
			for _, m := range g.Spec.Members {
				if m.Group == "" {
					add(m)
				}
			}
		case policy.SelectFQDN, "":
		default:
			x := f.selected.use(sel, ps)
			f.selected.resolve(x)
			ids, prefixes = append(ids, x.ids...), append(prefixes, x.addrs...)
		}
	}
	for _, sel := range selectors {
		add(sel)
	}
	return newPeerSet(any, ids, prefixes)
}

// overflows reports whether the priorities of a direction do not suffice for the policy's rules.
func (f *Firewall) overflows(ps *policyState, rules []*rule) bool {
	var n [2]int
	for _, r := range rules {
		if len(r.space.subjects) > 0 {
			n[r.side]++
		}
	}
	for _, r := range ps.rules {
		if r.placed {
			n[r.side]--
		}
	}
	return n[egress] > 0 && f.used[egress]+n[egress] > maxRules || n[ingress] > 0 && f.used[ingress]+n[ingress] > maxRules
}

// adopt gives the rules as they now read the identities of the rules as they were: by name, else by content, so that renaming a rule is
// no change. A rule whose action changed is another rule. On the first Compile the rules as they were are those of the earlier run.
func (f *Firewall) adopt(ps *policyState, now []*rule, c *change) []*rule {
	old := newIdentities(ps.rules, f.imported.Policies[ps.name])
	out := make([]*rule, len(now))
	for i, r := range now {
		out[i] = old.byName(r)
	}
	for i, r := range now {
		if out[i] == nil {
			out[i] = old.byContent(r)
		}
	}
	for _, r := range old.left() {
		f.retire(r, c)
	}
	for i, r := range now {
		if out[i] == nil {
			out[i] = &rule{owner: ps, side: r.side}
		}
		out[i].owner = ps
		f.assign(out[i], r, c)
	}
	return out
}

// assign brings r up to date with how it now reads, keeping its id where nothing that it allowed is lost, as far as the rule itself can
// tell.
func (f *Firewall) assign(r, now *rule, c *change) {
	c.rules = append(c.rules, r)
	moved := r.ref != now.ref || r.rank != now.rank
	changed := moved || r.log != now.log || !r.space.equal(&now.space)
	r.ref, r.rank, r.log, r.space = now.ref, now.rank, now.log, now.space
	switch {
	case r.space.empty():
		f.retire(r, c)
		return
	case r.id == 0 || r.passes() && !r.before.space.within(&r.space):
		f.renumber(r)
	case changed || !r.placed:
		f.registry.set(r.id, r.info())
		r.owner.changed, r.fresh = true, false
	}
	if changed || r.hash == "" {
		r.hash = r.space.hash(r.rank)
	}
	if r.placed && moved {
		f.displace(r, c)
	}
	if !r.placed {
		r.placed = true
		f.used[r.side]++
		c.place[r.side] = append(c.place[r.side], r)
	}
}

// displace takes a rule out of the order; its priority is lost.
func (f *Firewall) displace(r *rule, c *change) {
	r.placed, r.priority = false, 0
	f.used[r.side]--
	c.displaced[r.side] = append(c.displaced[r.side], r)
}

// renumber gives a rule a new id; connections that carry the old one are judged again.
func (f *Firewall) renumber(r *rule) {
	f.registry.remove(r.id)
	r.id = f.number()
	f.registry.set(r.id, r.info())
	r.owner.changed, r.fresh = true, false
}

// retire takes the flows of a rule away. If it comes back it gets a new id: nobody would know what it had lost meanwhile.
func (f *Firewall) retire(r *rule, c *change) {
	if r.id == 0 {
		return
	}
	f.registry.remove(r.id)
	if r.placed {
		f.displace(r, c)
	}
	r.id, r.hash, r.flows, r.fresh = 0, "", nil, false
	r.owner.changed = true
}
