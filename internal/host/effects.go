package host

import (
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// Effects implements api.Engine. The changes may be in force already when the world is read, so both of its states are made.
func (e *Engine) Effects(changes []backend.Change, before []policy.Resource) []policy.Effect {
	kinds := map[policy.Kind]bool{}
	for _, c := range changes {
		kinds[c.Kind] = true
	}
	if delete(kinds, policy.KindMirror); len(kinds) == 0 {
		return nil
	}
	now := e.world()
	if now.pub.topo == nil {
		return nil
	}
	was := now.clone()
	for i, c := range changes {
		was.resources.set(c.Kind, c.Name, before[i])
	}
	now.change(changes)
	if kinds[policy.KindEndpoint] {
		was.resolve()
		now.resolve()
	}
	return policy.Effects(was.judged(), now.judged())
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
