package wall

import (
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
	log   bool
	space space

	id       uint32 // 0 = no flows
	priority uint16 // 0 = none
	hash     string
	flows    []flow.Flow

	// before is what the last Compile left.
	before ruleBefore
	// placed: the rule is, or by the end of Compile will be, in the order of its side. fresh: flows are those of its other fields.
	placed, fresh bool
	leaving       bool // on its way out of the order, within ordered.update
}

type ruleBefore struct {
	id    uint32 // 0 = there were no flows, so nothing carries the rule's id
	rank  policy.Rank
	space space
}

func (r *rule) key() string { return string(r.ref.Direction) + "/" + r.ref.Rule }

// passes reports whether connections may carry the rule's id: it lets them pass.
func (r *rule) passes() bool { return r.rank.Effect.Passes() }

func (r *rule) info() RuleInfo { return RuleInfo{Ref: r.ref, Action: r.rank.Effect, Log: r.log} }

// policyState is a policy with what became of it.
type policyState struct {
	name       string
	policy     *policy.Policy // nil = deleted
	rules      []*rule        // in the order of the document, ingress first
	subjects   []uint32       // endpoint ids, sorted
	selections map[*selection]struct{}
	groups     map[string]struct{} // named by its rules, whether they exist or not
	unknown    []string            // of those, the ones that do not exist, sorted
	overflow   bool                // no priorities are left for its rules
	isolates   [2]bool
	logs       bool
	changed    bool // flows, priorities or ids of its rules differ from what Changes last told
	installed  bool // Changes has told of it
}
