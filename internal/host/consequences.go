package host

import (
	"slices"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// Judged returns the world as far as policies are enforced on this host, before changes and after them; before[i] is what changes[i]
// replaces. The changes may be in force already when the world is read, so both of its states are made. They are nil where the host is
// not known yet.
func (e *Engine) Judged(changes []backend.Change, before []policy.Resource) (was, now *policy.Set) {
	v := e.view.Load()
	if v.topo == nil {
		return nil, nil
	}
	undone := slices.Clone(changes)
	for i := range undone {
		undone[i].Resource = before[i]
	}
	earlier, after := v.with(undone), v.with(changes)
	if slices.ContainsFunc(changes, func(c backend.Change) bool { return c.Kind == policy.KindEndpoint }) {
		earlier.resolve()
		after.resolve()
	}
	was, now = earlier.judged(), after.judged()
	if earlier.force == after.force {
		was.Policies = now.Policies
	}
	if slices.Equal(was.Workloads, now.Workloads) {
		was.Workloads = now.Workloads // who compares them sees at once that nothing differs
	}
	return was, now
}

// resolve finds the endpoints that the resources of a view that nobody else sees make of the ports.
func (v *view) resolve() {
	v.inventory = stock(v.inventory, v.topo, v.bridgeNames(), v.resources)
}

// judged is the view as far as policies are enforced: the endpoints of bridges that have a wall.
func (v *view) judged() *policy.Set {
	walled := map[string]bool{}
	for _, b := range v.walls {
		walled[b.cfg.Name] = true
	}
	s := &policy.Set{Policies: policiesOn(v.force), Groups: v.resources.groups()}
	for _, x := range v.inventory.Workloads {
		if walled[x.Bridge] {
			s.Workloads = append(s.Workloads, x)
		}
	}
	return s
}
