package wall

import (
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// Where a policy applies to many classes, ten rules of it would list them all ten times. So rules of one policy that have the same rank,
// and of which no packet can match two, stand at one priority and share the flows of their common clauses: such a flow is a clause of each.
// (Conjunctions of one priority that overlap are unpredictable, ovs-fields(7).) It is no better way where lists are short: a shared flow is
// sent anew when a rule comes or goes, and conjunctions make a first packet dearer.
const (
	manyClasses = 16 // more make rules share
	// maxSharers bounds the rules that share: each is compared with the others.
	maxSharers = 64
)

// sharers returns the rules of a policy that share, in sets of two and more, each in the order of priorities.
func (f *Firewall) sharers(ps *policyState) [][]*rule {
	if len(terms(ps.subjects)) <= f.manyClasses {
		return nil
	}
	in := slices.DeleteFunc(slices.Clone(ps.rules), func(r *rule) bool { return r.id == 0 || r.empty() })
	slices.SortFunc(in, func(a, b *rule) int {
		if a.side != b.side {
			return a.side - b.side
		}
		return compareRules(a, b)
	})
	var out [][]*rule
	var set []*rule
	var spaces []space
	end := func() {
		if len(set) > 1 {
			out = append(out, set)
		}
		set, spaces = nil, nil
	}
	for _, r := range in {
		s := r.scope.now()
		if r.service == nil && r.anyPeer() { // a conjunction has two dimensions at least
			end() // none may come to stand before a rule that is between
			continue
		}
		if len(set) > 0 && (set[0].side != r.side || set[0].rank != r.rank || len(set) == maxSharers ||
			slices.ContainsFunc(spaces, func(o space) bool { return o.overlaps(&s) })) {
			end()
		}
		set, spaces = append(set, r), append(spaces, s)
	}
	end()
	return out
}

// share builds the flows of rules that share. Those of shared clauses count as the first rule's. The endpoints are a clause of all.
func (f *Firewall) share(set []*rule) {
	first := set[0]
	d := dimensions(first.side)
	add := func(r *rule, c flow.Cookie, m flow.Match, actions []flow.Action) {
		r.flows = append(r.flows, flow.Flow{Table: d.table(), Priority: first.priority, Cookie: c, Match: m, Actions: actions})
	}
	type place struct {
		rule *rule
		at   int // in its flows
	}
	places := map[flow.Key]place{}
	clauses, ofAll := make([][][]flow.Match, len(set)), make([]flow.Action, len(set))
	for i, r := range set {
		r.flows, r.at, r.fresh = nil, first.priority, true
		r.conjoined, r.surplus = r == first, 0 // a packet finds their clauses at once
		clauses[i] = d.clauses(r, f.before(r))
		ofAll[i] = flow.Conjunction{ID: r.conj, Clause: 1, N: uint8(len(clauses[i]))}
	}
	for _, m := range clauses[0][0] {
		add(first, pipeline.NewCookie(pipeline.CookieClause, first.conj), m, ofAll)
	}
	var key []byte
	for i, r := range set {
		for n, matches := range clauses[i][1:] {
			clause := flow.Conjunction{ID: r.conj, Clause: uint8(n + 2), N: uint8(len(clauses[i]))}
			for _, m := range matches {
				key = flow.Flow{Match: m}.AppendKey(key[:0])
				if p, shared := places[flow.Key(key)]; shared {
					fl := &p.rule.flows[p.at]
					fl.Actions = append(fl.Actions, clause)
					continue
				}
				places[flow.Key(key)] = place{r, len(r.flows)}
				add(r, pipeline.NewCookie(pipeline.CookieClause, r.conj), m, []flow.Action{clause})
			}
		}
		cookie := pipeline.NewCookie(pipeline.CookieRule, r.id)
		add(r, cookie, flow.Match{exact(flow.ConjID, uint64(r.conj), 32)}, r.leaf())
		if r.passes() {
			r.flows = append(r.flows, pipeline.Gate(r.side == ingress, cookie, r.id))
		}
	}
}
