package compile

import (
	"net/netip"
	"slices"

	"github.com/tapwall/tapwall/policy"
)

// update compiles one policy again: which endpoints it applies to, what its rules match, which keep their ids.
func (f *Firewall) update(ps *policyState, c *change) {
	old := ps.selections
	ps.selections, ps.groups, ps.unknown = nil, map[string]struct{}{}, nil
	var subjects []uint32
	var rules []*rule
	isolates, logs := [2]bool{}, false
	if p := ps.policy; p != nil {
		subjects = f.peers(ps, p.Spec.AppliesTo).endpoints
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
			rank: policy.RankOf(ps.policy, spec), allow: spec.Action == policy.Allow, log: spec.Log,
			space: space{subjects: subjects, services: newServiceSet(spec.Services)},
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
// no change. A rule whose action changed is another rule.
func (f *Firewall) adopt(ps *policyState, now []*rule, c *change) []*rule {
	before := make(map[string]*rule, len(ps.rules))
	byHash := make(map[string]*rule, len(ps.rules))
	for _, r := range ps.rules {
		before[r.key()] = r
	}
	// The first Compile finds the rules of earlier runs in the assignments.
	imported := f.imported.Policies[ps.name]
	importedByHash := make(map[string]string, len(imported))

	out := make([]*rule, len(now))
	for i, r := range now {
		if old := before[r.key()]; old != nil && old.allow == r.allow {
			delete(before, r.key())
			out[i] = old
		}
	}
	for _, r := range before {
		if r.id != 0 {
			byHash[r.hash+string(r.ref.Direction)] = r
		}
	}
	wanted := make(map[string]bool, len(imported))
	for _, r := range now {
		wanted[r.key()] = true
	}
	for key, a := range imported {
		if !wanted[key] {
			importedByHash[a.Hash] = key
		}
	}
	for i, r := range now {
		live := len(r.space.subjects) > 0
		hash := ""
		if out[i] == nil || !r.space.equal(&out[i].space) || r.rank != out[i].rank {
			if live {
				hash = r.space.hash(r.rank)
			}
		} else {
			hash = out[i].hash
		}
		if out[i] == nil {
			if old := byHash[hash+string(r.ref.Direction)]; live && old != nil && before[old.key()] == old && old.allow == r.allow {
				delete(before, old.key())
				out[i] = old
			}
		}
		if out[i] == nil {
			out[i] = &rule{side: r.side}
			if a, ok := imported[r.key()]; ok && live && a.Hash == hash {
				f.revive(out[i], r, a)
			} else if key, ok := importedByHash[hash]; ok && live {
				a := imported[key]
				delete(importedByHash, hash)
				a.Priority = 0
				f.revive(out[i], r, a)
			}
		}
		f.assign(out[i], r, hash, c)
	}
	for _, r := range before {
		f.retire(r, c)
	}
	return out
}

// revive gives a new object the numbers that an equal rule had in an earlier run.
func (f *Firewall) revive(r, as *rule, a RuleAssignment) {
	r.ref, r.rank, r.space, r.hash = as.ref, as.rank, as.space, a.Hash
	r.id, r.priority = a.ID, a.Priority
	r.side, r.allow = as.side, as.allow
}

// assign brings r up to date with what it now reads, keeping its id where nothing that it allowed is lost, as far as the rule itself can
// tell.
func (f *Firewall) assign(r, now *rule, hash string, c *change) {
	r.before = ruleBefore{id: r.id, rank: r.rank, space: r.space}
	c.rules = append(c.rules, r)
	renamed := r.ref != now.ref
	changed := renamed || r.log != now.log || r.rank != now.rank || !r.space.equal(&now.space)
	moved := renamed || r.rank != now.rank
	r.ref, r.rank, r.allow, r.log, r.space, r.hash = now.ref, now.rank, now.allow, now.log, now.space, hash

	live := len(r.space.subjects) > 0
	switch {
	case !live:
		f.retire(r, c)
		return
	case r.id == 0 || r.allow && !r.before.space.within(&r.space):
		f.renumber(r)
	case changed:
		f.registry.set(r.id, r.info())
		r.fresh = false
	}
	switch {
	case !r.placed:
		if moved && r.before.id != 0 {
			r.priority = 0
		}
		c.place(r)
	case moved:
		c.displace(r)
		r.priority = 0
		c.place(r)
	}
	if r.before.id != 0 && !r.placed {
		f.registry.set(r.id, r.info())
	}
}

// renumber gives a rule a new id; connections that carry the old one are judged again.
func (f *Firewall) renumber(r *rule) {
	f.registry.remove(r.id)
	r.id, r.fresh = f.number(), false
	f.registry.set(r.id, r.info())
}

// retire takes the flows of a rule away. What may come back later gets a new id: nobody would know what it had lost meanwhile.
func (f *Firewall) retire(r *rule, c *change) {
	if r.id == 0 {
		return
	}
	f.registry.remove(r.id)
	if r.placed {
		c.displace(r)
	}
	r.id, r.priority, r.hash, r.flows = 0, 0, "", nil
	c.removed(r)
}
