package wall

import (
	"slices"

	"github.com/tapwall/tapwall/policy"
)

// update compiles one policy again: what it applies to, what its rules match, which keep their ids.
func (f *Firewall) update(ps *policyState, c *change) {
	var subjects []*choice
	var rules []*rule
	isolates, audits, logs, auditing := [2]bool{}, [2]bool{}, false, false
	ends := int64(0)
	if p := ps.policy; p != nil {
		ends = p.EndsAt()
		subjects = f.choose(p.Spec.AppliesTo)
		for _, side := range []int{ingress, egress} {
			isolates[side] = p.Shuts(direction(side))
			audits[side] = p.Isolates(direction(side)) && !isolates[side]
			rules = f.rules(ps, side, subjects, rules)
		}
		logs, auditing = p.RecordsDefaultDeny(f.opt.Record), p.Audits()
	}
	count := func(n *int, was *bool, is bool) {
		switch {
		case is && !*was:
			*n++
		case *was && !is:
			*n--
		}
		*was = is
	}
	count(&f.auditing, &ps.auditing, auditing)
	count(&f.sampling, &ps.sampling, slices.ContainsFunc(rules, func(r *rule) bool { return r.oneOf > 0 && r.passes() }))
	count(&f.listening, &ps.listening, slices.ContainsFunc(rules, func(r *rule) bool { return r.l7 && r.passes() }))
	ps.overflow = f.overflows(ps, rules)
	if ps.overflow {
		for _, r := range rules {
			r.scope = scope{}
		}
	}
	for _, x := range subjects {
		x.subjectOf[ps] = struct{}{}
	}
	old := ps.subjects
	ps.rules = f.adopt(ps, rules, c)
	for _, x := range old {
		if !slices.Contains(subjects, x) {
			delete(x.subjectOf, ps)
			f.idle = append(f.idle, x)
		}
	}
	if ps.ends != ends {
		ps.ends, ps.changed = ends, true
		for _, x := range slices.Concat(old, subjects) {
			f.touchIsolation(x)
		}
	}
	if ps.isolates != isolates || ps.audits != audits || ps.logs != logs || !slices.Equal(old, subjects) {
		for _, x := range slices.Concat(old, subjects) {
			f.touchIsolation(x)
		}
	}
	ps.subjects, ps.isolates, ps.audits, ps.logs, ps.retell = subjects, isolates, audits, logs, true
	f.told[ps] = struct{}{}
}

// touchIsolation has the isolation of all classes looked at that are in the choice. Classes that come to be in it are looked at anyway.
func (f *Firewall) touchIsolation(x *choice) {
	for c := range x.classes {
		f.touchClass(c)
	}
}

// rules appends the rules of one direction as the policy now reads.
func (f *Firewall) rules(ps *policyState, side int, subjects []*choice, out []*rule) []*rule {
	d := direction(side)
	specs := ps.policy.Rules(d)
	for i := range specs {
		spec := &specs[i]
		peers := spec.Peers(d)
		log, quiet := ps.policy.Records(f.opt.Record, spec)
		out = append(out, &rule{
			ref: policy.RuleRef{Policy: ps.name, Direction: d, Rule: spec.Name}, side: side,
			rank: policy.RankOf(ps.policy, spec), log: log, quiet: quiet, oneOf: spec.OneOf(), l7: spec.Log.L7,
			scope: scope{subjects: subjects, any: len(peers) == 0, peers: f.choose(peers), services: policy.NewServiceSet(spec.Services)},
		})
	}
	return out
}

// overflows reports whether the priorities of a direction do not suffice for the policy's rules.
func (f *Firewall) overflows(ps *policyState, rules []*rule) bool {
	var n [2]int
	for _, r := range rules {
		if slices.ContainsFunc(r.scope.subjects, func(x *choice) bool { return len(x.now.endpoints) > 0 }) {
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
		f.tally(r)
		if r.leads() {
			f.reviewPass(r)
		}
		f.use(r, scope{})
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
	renamed := !r.scope.same(&now.scope)
	resampled := r.oneOf != now.oneOf // its connections bear what has been drawn, and are drawn anew
	changed := moved || renamed || resampled || r.l7 != now.l7 || r.log != now.log || r.quiet != now.quiet
	r.ref, r.rank, r.log, r.quiet, r.oneOf, r.l7 = now.ref, now.rank, now.log, now.quiet, now.oneOf, now.l7
	if renamed {
		r.form = undecided
	}
	f.use(r, now.scope)
	switch {
	case r.empty() && (moved || renamed || !r.lingers()):
		f.retire(r, c)
		return
	case r.id == 0 || r.passes() && (resampled || r.narrowed()):
		f.renumber(r)
	case changed || !r.placed || r.empty():
		f.registry.set(r.id, r.info())
		r.owner.changed, r.fresh = true, false
	}
	if changed || r.hash == "" {
		r.hash = r.digest()
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

// use gives a rule its scope.
func (f *Firewall) use(r *rule, now scope) {
	old, service := r.scope, r.service
	for _, x := range now.peers {
		if _, ok := x.peerOf[r]; !ok {
			x.peerOf[r] = struct{}{}
			f.readdressed[x], f.changedChoices[x] = struct{}{}, struct{}{}
		}
	}
	for _, x := range old.peers {
		if !slices.Contains(now.peers, x) {
			delete(x.peerOf, r)
			f.readdressed[x], f.changedChoices[x] = struct{}{}, struct{}{}
			f.idle = append(f.idle, x)
		}
	}
	r.scope = now
	if r.service = nil; !r.empty() {
		r.service = f.services.use(now.services, r)
	}
	if service != r.service {
		f.services.release(service, r)
	}
}

// narrowed reports whether something that the rule matched it no longer matches, save for endpoints: see lose.
func (r *rule) narrowed() bool {
	if r.before.id != r.id || r.before.scope.same(&r.scope) {
		return false // what became of its choices, reversion sees
	}
	if slices.ContainsFunc(r.before.scope.choices(), func(x *choice) bool { return x.kept && !slices.Contains(r.scope.choices(), x) }) {
		return true
	}
	before, now := r.before.scope.was(), r.scope.now()
	p, q := &before.peers, &now.peers
	return !before.services.Within(&now.services) ||
		!q.any && (p.any || p.world && !q.world || p.world && len(policy.LostPrefixes(q.known, p.known)) > 0 || p.host.loses(&q.host) ||
			len(policy.LostPrefixes(p.prefixes, q.prefixes)) > 0)
}

// displace takes a rule out of the order; its priority is lost.
func (f *Firewall) displace(r *rule, c *change) {
	r.placed, r.priority = false, 0
	f.used[r.side]--
	c.displaced[r.side] = append(c.displaced[r.side], r)
}

// renumber gives a rule a new id; connections that carry the old one are judged again.
func (f *Firewall) renumber(r *rule) {
	if r.id == 0 {
		f.readdressed.add(r.scope.peers)
	}
	f.registry.remove(r.id)
	r.id = f.number()
	if !r.passes() { // it is in no connection, and what takes access away waits for nothing
		delete(f.beyond, r.id)
	}
	if r.conj == 0 {
		r.conj = r.id
	}
	f.registry.set(r.id, r.info())
	r.owner.changed, r.fresh = true, false
}

// retire takes the flows of a rule away. If it comes back it gets a new id: nobody would know what it had lost meanwhile.
func (f *Firewall) retire(r *rule, c *change) {
	if r.id == 0 {
		return
	}
	f.readdressed.add(r.scope.peers)
	f.registry.remove(r.id)
	if r.placed {
		f.displace(r, c)
	}
	r.id, r.conj, r.hash, r.flows, r.fresh, r.form = 0, 0, "", nil, false, undecided
	r.owner.changed = true
}
