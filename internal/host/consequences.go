package host

import (
	"slices"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// Judged returns the world as far as policies are enforced on this host, before changes and after them; before[i] is what changes[i] replaces. The changes
// may be in force already when the world is read, so both of its states are made. They are nil where the host is not known yet.
func (e *Engine) Judged(changes []backend.Change, before []policy.Resource) (was, now *policy.Set) {
	after := e.world()
	if after.pub.topo == nil {
		return nil, nil
	}
	earlier := after.clone()
	for i, c := range changes {
		earlier.resources.set(c.Kind, c.Name, before[i])
	}
	after.change(changes)
	if slices.ContainsFunc(changes, func(c backend.Change) bool { return c.Kind == policy.KindEndpoint }) {
		earlier.resolve()
		after.resolve()
	}
	return earlier.judged(), after.judged()
}

// resolve finds the endpoints that the world's own resources make of the ports.
func (w *world) resolve() {
	w.pub.workloads, _ = policy.ResolveWorkloads(portInfos(w.pub.topo, w.pub.bridges), ofKind[*policy.Endpoint](w.resources, policy.KindEndpoint))
}

// judged is the world as far as policies are enforced: the endpoints of bridges that have a firewall.
func (w *world) judged() *policy.Set {
	walled := map[string]bool{}
	for _, b := range w.pub.bridges {
		walled[b.cfg.Name] = b.fw != nil
	}
	s := &policy.Set{Policies: ofKind[*policy.Policy](w.resources, policy.KindPolicy), Groups: w.resources.groups()}
	for _, x := range w.pub.workloads {
		if walled[x.Bridge] {
			s.Workloads = append(s.Workloads, x)
		}
	}
	return s
}
