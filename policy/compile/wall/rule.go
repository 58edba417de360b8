package wall

import (
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/policy"
)

// rule is a rule of a policy with what was assigned to it. It stays the same object while the policy has a rule of this name, or, after
// a renaming, of this content.
type rule struct {
	owner *policyState
	ref   policy.RuleRef
	side  int
	rank  policy.Rank // with its effect
	log   bool        // wants a record
	quiet bool        // wants none
	oneOf int         // samples one of so many connections; 0 = none
	l7    bool        // wants to know what is said first
	scope scope

	service  *service // of the scope; nil = any
	id       uint32   // 0 = no flows
	conj     uint32   // of its conjunction, as long as it has an id
	priority uint16   // 0 = none
	at       uint16   // where its flows stand if it shares them, else 0
	hash     string
	flows    []flow.Flow
	tallied  tallied

	// before is what the last Compile left.
	before ruleBefore
	// placed: the rule is, or by the end of Compile will be, in the order of its side. fresh: flows are those of its other fields.
	placed, fresh bool
	conjoined     bool // flows are a conjunction
	form          Form // where its lists are long
	surplus       int  // flows beyond what a conjunction would take, because of its form
	leaving       bool // on its way out of the order, within ordered.update
}

type ruleBefore struct {
	id    uint32 // 0 = there were no flows, so nothing carries the rule's id
	rank  policy.Rank
	scope scope
}

func (r *rule) key() string { return string(r.ref.Direction) + "/" + r.ref.Rule }

// passes reports whether connections may carry the rule's id: it lets them pass.
func (r *rule) passes() bool { return r.rank.Effect.Passes() && !r.rank.Audit }

// denies reports whether the rule takes what it matches from rules behind it.
func (r *rule) denies() bool {
	return !r.rank.Effect.Passes() && r.rank.Effect != policy.Pass && !r.rank.Audit
}

// leads reports whether the rule leads to the next tier.
func (r *rule) leads() bool { return r.rank.Effect == policy.Pass && !r.rank.Audit }

func (r *rule) info() RuleInfo {
	return RuleInfo{Ref: r.ref, Action: r.rank.Effect, Log: r.log, OneOf: r.oneOf, Audit: r.rank.Audit}
}

// digest is of what the rule matches, how it ranks and what it samples: what has changed if it differs gets another id.
func (r *rule) digest() string { return r.scope.hash(r.rank, r.oneOf) }

// empty reports whether no packet is in the rule's space.
func (r *rule) empty() bool {
	p, _ := r.peerFamilies()
	return p&familiesOfAll(&r.scope.services) == 0 ||
		!slices.ContainsFunc(r.scope.subjects, func(x *choice) bool { return len(x.now.endpoints) > 0 })
}

// lingers reports whether the rule, though empty, stands for connections that are to be kept.
func (r *rule) lingers() bool {
	return r.id != 0 && r.passes() && slices.ContainsFunc(r.scope.choices(), func(x *choice) bool { return x.now.keep })
}

// anyPeer reports whether every station is a peer.
func (r *rule) anyPeer() bool {
	return r.scope.any || slices.ContainsFunc(r.scope.peers, func(x *choice) bool { return x.now.any })
}

// peerFamilies returns the IP versions that peers may use; all: there are peers that are not told by their addresses.
func (r *rule) peerFamilies() (p families, all bool) {
	if r.scope.any {
		return bothFamilies, true
	}
	for _, x := range r.scope.peers {
		if s := x.shape(); s.any || s.world || s.host || s.endpoints {
			return bothFamilies, true
		}
		p |= x.now.fams
	}
	return p, false
}

// policyState is a policy with what became of it.
type policyState struct {
	name      string
	policy    *policy.Policy // nil = deleted
	rules     []*rule        // in the order of the document, ingress first
	subjects  []*choice
	overflow  bool // no priorities are left for its rules
	isolates  [2]bool
	audits    [2]bool // it would isolate, and is in mode audit
	auditing  bool    // it is in mode audit
	sampling  bool    // rules of it sample connections
	listening bool    // rules of it want to know what is said first
	logs      bool
	ends      int64 // in milliseconds since 1970; 0 = never
	changed   bool  // flows, priorities or ids of its rules differ from what Changes last told
	retell    bool  // its status may be another
	counted   conjunctions
	installed bool // Changes has told of it
}

// unknownGroups returns the groups that the policy names and that do not exist, sorted.
func (ps *policyState) unknownGroups() []string {
	var out []string
	note := func(xs []*choice) {
		for _, x := range xs {
			if x.unknown {
				out = append(out, x.group)
			}
		}
	}
	note(ps.subjects)
	for _, r := range ps.rules {
		note(r.scope.peers)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
