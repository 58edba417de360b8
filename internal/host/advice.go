package host

import (
	"context"
	"reflect"
	"slices"
	"time"

	"github.com/tapwall/tapwall/policy"
)

// shadows holds the warnings about the rules of each policy: those that can never match, and those that forget one version of IP. They are
// advice, and looking for them costs more than installing the change that they are about, so they are worked out behind it. They are
// immutable.
type shadows struct {
	// byPolicy is what was found for a revision of the policy.
	byPolicy map[string]found
}

type found struct {
	policy   *policy.Policy
	warnings []policy.Warning
}

// of returns the warnings about p's own rules, as far as they are known for this revision of it.
func (s *shadows) of(p *policy.Policy) []policy.Warning {
	if f := s.byPolicy[p.Name]; f.policy == p {
		return f.warnings
	}
	return nil
}

// manyBeside is with how many policies of its rank each is compared.
const manyBeside = 1000

// advise looks for shadowed rules whenever policies, groups or workloads changed, until ctx ends.
func (e *Engine) advise(ctx context.Context) {
	looked := &view{}
	for {
		v := e.view.Load()
		todo := v.differ(looked)
		var groups map[string]*policy.Group
		var all *policy.Shadows
		if len(todo) > 0 {
			groups = v.resources.groups()
			all = policy.NewShadows(&policy.Set{
				Policies: policiesOn(v.force), Groups: groups, Workloads: v.inventory.Workloads,
			})
		}
		results := map[string]found{}
		for _, p := range todo {
			if ctx.Err() != nil {
				return
			}
			f := found{policy: p, warnings: append(policy.OneFamily(p, groups), policy.NeverMatches(p)...)}
			start := time.Now()
			for _, x := range slices.Concat(all.Of(p), all.Beside(p, manyBeside)) {
				if x.Policy == p.Name {
					f.warnings = append(f.warnings, x)
				}
			}
			results[p.Name] = f
			// Advice is never urgent: it may have a twentieth of a core.
			if !pause(ctx, 19*time.Since(start)) {
				return
			}
		}
		if len(todo) > 0 || looked.resources[policy.KindPolicy] != v.resources[policy.KindPolicy] {
			before, next := e.shadows.Load(), &shadows{byPolicy: map[string]found{}}
			for name := range each(v.resources[policy.KindPolicy]) {
				next.byPolicy[name] = before.byPolicy[name]
				if f, ok := results[name]; ok {
					next.byPolicy[name] = f
				}
			}
			e.shadows.Store(next)
		}
		looked = v
		select {
		case <-ctx.Done():
			return
		case <-v.changed:
		}
		// A burst of changes is looked at once, when it is over or has gone on for long.
		for until := time.Now().Add(5 * time.Second); ; {
			before := e.view.Load()
			if !pause(ctx, 200*time.Millisecond) {
				return
			}
			if e.view.Load() == before || time.Now().After(until) {
				break
			}
		}
	}
}

// pause waits, and reports whether ctx is still alive then.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// differ lists the policies that have to be looked at again since before: those that changed, that refer to a group which did, or apply to
// workloads that did. A policy that covers another one's rules is found when the other one is looked at, so any change makes all of them
// stale, too, unless there are many: then those that it covers are told when they are written next.
func (v *view) differ(before *view) []*policy.Policy {
	const few = 20
	same := func(kind policy.Kind) bool { return v.resources[kind] == before.resources[kind] }
	ports := sameWorkloads(v.inventory.Workloads, before.inventory.Workloads)
	if same(policy.KindPolicy) && v.force == before.force && same(policy.KindGroup) && ports {
		return nil
	}
	all := ofKind[*policy.Policy](v.resources, policy.KindPolicy)
	if len(all) <= few || before.resources == nil {
		return all
	}
	var moved []*policy.Workload
	if !ports {
		if moved = differing(v.inventory.Workloads, before.inventory.Workloads); len(moved) > few {
			return all
		}
	}
	groups, regrouped := v.resources.groups(), map[string]bool{}
	if !same(policy.KindGroup) {
		old := before.resources.groups()
		for name, g := range groups {
			regrouped[name] = old[name] != g
		}
		for name := range old {
			regrouped[name] = old[name] != groups[name]
		}
	}
	var out []*policy.Policy
	for _, p := range all {
		if before.resources.get(policy.KindPolicy, p.Name) != policy.Resource(p) || p.RefersTo(regrouped) ||
			slices.ContainsFunc(moved, func(w *policy.Workload) bool { return policy.AnyMatches(p.Spec.AppliesTo, groups, w) }) {
			out = append(out, p)
		}
	}
	return out
}

// differing returns the workloads of either list, both by key, that are not the same in the other.
func differing(a, b []*policy.Workload) (out []*policy.Workload) {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	for _, pair := range [...][2][]*policy.Workload{{a, b}, {b, a}} {
		for _, w := range pair[0] {
			if o := workload(pair[1], w.Key); o == nil || o != w && !reflect.DeepEqual(o, w) {
				out = append(out, w)
			}
		}
	}
	return out
}

// sameWorkloads compares by identity of the slice: workloads are resolved anew only when something changed.
func sameWorkloads(a, b []*policy.Workload) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
