package host

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// WarnSystemID is the code of the warnings that the host has no id but its name, and that it has another one than is in use.
const WarnSystemID policy.Code = "SYSTEM_ID"

// notices are the warnings about this host, its workloads and the Endpoint resources, by whom they concern. They are immutable.
type notices struct {
	all        []policy.Warning
	byWorkload map[string][]policy.Warning // by key
	byEndpoint map[string][]policy.Warning // by name of the Endpoint resource
}

// newNotices sorts warnings. workloads are ordered by key.
func newNotices(all []policy.Warning, workloads []*policy.Workload) notices {
	n := notices{all: all, byWorkload: map[string][]policy.Warning{}, byEndpoint: map[string][]policy.Warning{}}
	for _, x := range all {
		name := x.Endpoint
		if !x.AboutResource {
			w := workload(workloads, x.Endpoint)
			if w == nil {
				continue
			}
			n.byWorkload[w.Key] = append(n.byWorkload[w.Key], x)
			name = w.Endpoint
		}
		if name != "" {
			n.byEndpoint[name] = append(n.byEndpoint[name], x)
		}
	}
	return n
}

// workload finds a workload by its key; nil = there is none.
func workload(ordered []*policy.Workload, key string) *policy.Workload {
	i, ok := slices.BinarySearchFunc(ordered, key, func(w *policy.Workload, key string) int { return strings.Compare(w.Key, key) })
	if !ok {
		return nil
	}
	return ordered[i]
}

// about returns the warnings about what a resource selects, or names.
func (n *notices) about(r policy.Resource, groups map[string]*policy.Group, workloads []*policy.Workload) []policy.Warning {
	var selectors []policy.Selector
	if len(n.byWorkload) == 0 {
		if r, ok := r.(*policy.Endpoint); ok {
			return n.byEndpoint[r.Name]
		}
		return nil
	}
	switch r := r.(type) {
	case *policy.Endpoint:
		return n.byEndpoint[r.Name]
	case *policy.Policy:
		selectors = r.Spec.AppliesTo
	case *policy.Group:
		selectors = r.Spec.Others()
	case *policy.Mirror:
		selectors = r.Spec.Sources
	}
	selectors = policy.WithoutCIDRs(selectors)
	var out []policy.Warning
	for _, key := range slices.Sorted(maps.Keys(n.byWorkload)) {
		if policy.AnyMatches(selectors, groups, workload(workloads, key)) {
			out = append(out, n.byWorkload[key]...)
		}
	}
	return out
}

// notice gathers the warnings of now and logs the new ones.
func (e *Engine) notice(before []policy.Warning) notices {
	all := slices.Clone(e.endpointWarnings)
	for _, name := range slices.Sorted(maps.Keys(e.walls)) {
		w := e.walls[name]
		all = slices.Concat(all, w.checksumWarnings(), w.strayWarnings(), w.forwardWarnings(time.Now()), w.spoofWarnings(time.Now()),
			w.limitWarnings())
	}
	all = slices.Concat(all, e.zoneWarnings(), e.learnWarnings())
	if e.topo != nil && e.topo.HostDoubt != "" {
		all = append([]policy.Warning{{Code: WarnSystemID, Message: e.topo.HostDoubt}}, all...)
	}
	if e.hostErr != nil {
		all = append([]policy.Warning{{Code: WarnSystemID,
			Message: fmt.Sprintf("the host has the id %s now, but what is kept of it is under %q: %v",
				e.seen.Host, e.host, e.hostErr)}}, all...)
	}
	if !slices.Equal(all, before) {
		known := make(map[policy.Warning]bool, len(before))
		for _, x := range before {
			known[x] = true
		}
		for _, x := range all {
			if !known[x] {
				e.log.Warn(x.Message, "code", x.Code, "endpoint", x.Endpoint)
			}
		}
	}
	return newNotices(all, e.inventory.Workloads)
}

// mostBeside is with how many policies of its rank a written one is compared while its writer waits.
const mostBeside = 50

// Warnings are what the user should know of changed resources on this host.
func (e *Engine) Warnings(changes []backend.Change) []policy.Warning {
	return e.view.Load().with(changes).warnings(changes)
}

// warnings are those about the changed resources in a view to which the changes were made already.
func (v *view) warnings(changes []backend.Change) []policy.Warning {
	var policies []*policy.Policy
	var written []policy.Resource
	groups := map[string]bool{} // changed
	for _, c := range changes {
		switch r := c.Resource.(type) {
		case nil:
		case *policy.Policy:
			policies, written = append(policies, r), append(written, r)
		default:
			written = append(written, r)
			groups[c.Name] = c.Kind == policy.KindGroup || groups[c.Name]
		}
	}
	workloads, notices := v.inventory.Workloads, v.notices
	if v.topo != nil && slices.ContainsFunc(changes, func(c backend.Change) bool { return c.Kind == policy.KindEndpoint }) {
		found := stock(v.inventory, v.topo, v.bridgeNames(), v.resources)
		workloads = found.Workloads
		notices = newNotices(found.About(v.topo.Host), workloads)
	}
	all := policiesOn(v.force)
	set := &policy.Set{Policies: all, Groups: v.resources.groups(), Workloads: workloads}
	var out []policy.Warning
	// The cost of these grows with the changed policies times all of them. A bulk write, which may hold a revocation, does not wait for
	// them: the statuses have them afterwards (advise).
	const most = 10
	if len(policies) > 0 && len(policies) <= most {
		shadows := policy.NewShadows(set)
		for _, p := range policies {
			out = append(out, shadows.Of(p)...)
			out = append(out, shadows.Beside(p, mostBeside)...)
		}
	}
	now := time.Now()
	for _, p := range policies {
		out = append(out, policy.Expired(p, now)...)
		if p.InForce(now) {
			out = append(out, policy.NotArmed(p, now)...)
		}
	}
	for _, p := range ofKind[*policy.Policy](v.resources, policy.KindPolicy) {
		if slices.Contains(policies, p) || p.RefersTo(groups) {
			out = append(out, policy.OneFamily(p, set.Groups)...)
			if slices.Contains(policies, p) {
				out = append(out, policy.NeverMatches(p)...)
			}
		}
	}
	for i, r := range written {
		if m, is := r.(*policy.Mirror); is {
			out = append(out, policy.FilterNeverMatches(m)...)
		}
		if i < most {
			out = append(out, v.nobody(r, set.Groups, workloads)...)
		}
		for _, x := range notices.about(r, set.Groups, workloads) {
			if !slices.Contains(out, x) {
				out = append(out, x)
			}
		}
	}
	return out
}
