package host

import (
	"fmt"
	"slices"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// WarnNoEndpoints is the code of the warning that what was written is for nobody on this host.
const WarnNoEndpoints = wall.WarnNoEndpoints

// nobody warns of what a written resource is for and is not here: most often a name that was mistyped, which a write that does not wait
// would not tell. Statuses have their own words for it, and fleet tells of a policy or quarantine that is for nobody on any host alone.
func (v *view) nobody(r policy.Resource, groups map[string]*policy.Group, workloads []*policy.Workload) (out []policy.Warning) {
	if v.topo == nil || len(v.walls) == 0 {
		return nil // nothing is known, or there is another thing to tell
	}
	switch r := r.(type) {
	case *policy.Policy:
		if !slices.ContainsFunc(workloads, func(w *policy.Workload) bool {
			return w.Host == v.topo.Host && v.wallOf(w.Bridge) != nil && policy.AnyMatches(r.Spec.AppliesTo, groups, w)
		}) {
			return []policy.Warning{{Code: WarnNoEndpoints, Policy: r.Name,
				Message: "it applies to nobody here: no endpoint is chosen by " + listed(r.Spec.AppliesTo)}}
		}
		for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
			for _, rule := range r.Rules(d) {
				if v.knowsNone(rule.Peers(d), workloads) {
					out = append(out, policy.Warning{Code: wall.WarnRuleEmpty, Policy: r.Name, Rule: string(d) + "/" + rule.Name,
						Message: "the rule matches nothing yet: nobody that is known is chosen by " + listed(rule.Peers(d))})
				}
			}
		}
	case *policy.Quarantine:
		for i := range v.walls {
			for _, p := range v.inventory.On(v.topo.Host, v.walls[i].cfg.Name) {
				if holds(r, &p) {
					return nil
				}
			}
		}
		out = append(out, policy.Warning{Code: WarnNoEndpoints,
			Message: fmt.Sprintf("it holds nothing yet: no port here is chosen by %s; one that appears is held", r.Spec.Match)})
	}
	return out
}

// knowsNone reports whether peers are endpoints, by what they are and not by groups or addresses, of which none is known.
func (v *view) knowsNone(peers []policy.Selector, workloads []*policy.Workload) bool {
	for i := range peers {
		s := &peers[i]
		switch s.Kind() {
		case policy.SelectLabels, policy.SelectPort, policy.SelectMAC, policy.SelectVLAN, policy.SelectBridge, policy.SelectVM,
			policy.SelectNeutronPort:
		default:
			return false
		}
		if slices.ContainsFunc(workloads, s.MatchesWorkload) || slices.ContainsFunc(v.peers, s.MatchesWorkload) {
			return false
		}
	}
	return len(peers) > 0
}

// listed is selectors in words; of many, the first ones.
func listed(selectors []policy.Selector) (out string) {
	const most = 5
	for i, s := range selectors {
		switch {
		case i == most:
			return fmt.Sprintf("%s, or %d more", out, len(selectors)-most)
		case i > 0:
			out += ", or "
		}
		out += s.String()
	}
	return out
}
