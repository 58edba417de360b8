package host

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// world is what plans and warnings are made from: a copy of the resources and topology as the engine sees them.
type world struct {
	resources catalog
	pub       publication
}

// world copies the maps; the resources in them are immutable.
func (e *Engine) world() world {
	e.mu.RLock()
	defer e.mu.RUnlock()
	w := world{resources: e.resources, pub: e.published}
	return w.clone()
}

func (w *world) clone() world {
	return world{resources: w.resources.clone(), pub: w.pub}
}

func (w *world) change(changes []backend.Change) {
	for _, c := range changes {
		w.resources.set(c.Kind, c.Name, c.Resource)
	}
}

// Admit asks whether there is room: ovs-vswitchd takes ovsdb.MaxMirrors mirrors per bridge, whoever made them, and ignores further ones silently.
func (e *Engine) Admit(changes []backend.Change) error {
	ours := map[string]bool{}
	for _, c := range changes {
		if _, ok := c.Resource.(*policy.Mirror); ok {
			ours[c.Name] = true
		}
	}
	if len(ours) == 0 {
		return nil
	}
	w := e.world()
	if w.pub.topo == nil {
		return nil
	}
	w.change(changes)
	plan := e.mirrorsOf(&w)
	rows := map[string]int{} // by bridge: foreign rows and the wanted ones
	for name, br := range w.pub.topo.Bridges {
		for _, m := range br.Mirrors {
			if m.ExternalIDs[vswitch.MarkOwner] != vswitch.OwnerValue {
				rows[name]++
			}
		}
	}
	for _, s := range plan.Specs {
		rows[s.Bridge]++
	}
	for _, s := range plan.Specs {
		if ours[s.Owner] && rows[s.Bridge] > ovsdb.MaxMirrors {
			return fmt.Errorf("MIRROR_LIMIT: mirror %q would be one too many for bridge %s, which takes %d, others' mirrors included: %w", s.Owner, s.Bridge, ovsdb.MaxMirrors, backend.ErrLimit)
		}
	}
	return nil
}

// mirrorsOf compiles the mirrors of a world.
func (e *Engine) mirrorsOf(w *world) tap.Plan {
	mirrors := ofKind[*policy.Mirror](w.resources, policy.KindMirror)
	return tap.Compile(tap.Input{
		Mirrors: mirrors, Groups: w.resources.groups(), Workloads: w.pub.workloads, Topology: w.pub.topo, Bridges: w.bridgeNames(),
		NoDevices: !e.local(), Routes: e.routes(mirrors, w.pub.topo),
	})
}

func (w *world) bridgeNames() []string {
	names := make([]string, 0, len(w.pub.bridges))
	for _, b := range w.pub.bridges {
		names = append(names, b.cfg.Name)
	}
	return names
}

// Plan says what changes would do here. It compiles the changed world from scratch with the numbers in use and compares texts, so it answers for
// every owner without touching what runs. Ids that would be given anew are those that the real change would give if nothing else came
// first.
func (e *Engine) Plan(ctx context.Context, changes []backend.Change) (wire.Plan, error) {
	plan := wire.Plan{Bridges: []wire.BridgePlan{}}
	now := e.world()
	w := now.clone()
	w.change(changes)
	plan.Warnings = w.warnings(changes)
	if w.pub.topo == nil {
		return plan, nil
	}
	for _, b := range w.pub.bridges {
		bp := wire.BridgePlan{Host: w.pub.topo.Host, Bridge: b.cfg.Name}
		if b.fw != nil {
			if err := planFlows(&bp, b, &now, &w, w.pub.workloads); err != nil {
				return plan, err
			}
		}
		plan.Bridges = append(plan.Bridges, bp)
		if ctx.Err() != nil {
			return plan, ctx.Err()
		}
	}
	mirrors := e.mirrorsOf(&w)
	before := specTexts(w.pub.mirrors)
	after := specTexts(mirrors.Specs)
	for i := range plan.Bridges {
		bp := &plan.Bridges[i]
		bp.AddMirrors = difference(after[bp.Bridge], before[bp.Bridge])
		bp.RemoveMirrors = difference(before[bp.Bridge], after[bp.Bridge])
	}
	return plan, nil
}

// planFlows has a firewall of its own go from now to w as the real one would: which ids are kept depends on where a rule comes from.
func planFlows(bp *wire.BridgePlan, b *bridge, now, w *world, workloads []*policy.Workload) error {
	b.mu.Lock()
	fw, err := wall.NewFirewall(wall.Options{Bridge: b.cfg.Name, BridgeIndex: b.index, Assignments: &b.assignments, LogPerSecond: b.logRate})
	recalled := b.recalled
	strays := b.fw.Strays()
	b.mu.Unlock()
	if err != nil {
		return err
	}
	fw.SetPickup(b.pickupOpen.Load(), recalled) // or its flows would all seem to go
	fw.SetUnstamped(b.sw.Has(pipeline.UnstampedFlow()))
	fw.SetStrays(strays)
	br := w.pub.topo.Bridges[b.cfg.Name]
	fw.SetWorkloads(now.pub.workloads, plainPorts(br, now.pub.workloads))
	fw.SetGroups(ofKind[*policy.Group](now.resources, policy.KindGroup))
	for _, p := range ofKind[*policy.Policy](now.resources, policy.KindPolicy) {
		fw.SetPolicy(p)
	}
	ch := fw.Compile()
	fw.SetWorkloads(workloads, plainPorts(br, workloads))
	fw.SetGroups(ofKind[*policy.Group](w.resources, policy.KindGroup))
	for name, r := range w.resources[policy.KindPolicy] {
		if now.resources[policy.KindPolicy][name] != r {
			fw.SetPolicy(r.(*policy.Policy))
		}
	}
	for name := range now.resources[policy.KindPolicy] {
		if w.resources[policy.KindPolicy][name] == nil {
			fw.DeletePolicy(name)
		}
	}
	maps.Copy(ch.Owners, fw.Compile().Owners)
	before, after := map[string]bool{}, map[string]bool{}
	live := map[uint32]bool{} // gates that are open now
	for _, owner := range b.sw.Owners() {
		for _, f := range b.sw.Desired(owner) {
			before[f.String()] = true
			if f.Table == pipeline.TableLiveEgress || f.Table == pipeline.TableLiveIngress {
				_, id, _ := pipeline.ParseCookie(f.Cookie)
				live[id] = true
			}
		}
	}
	for _, flows := range ch.Owners {
		for _, f := range flows {
			after[f.String()] = true
			if f.Table == pipeline.TableLiveEgress || f.Table == pipeline.TableLiveIngress {
				_, id, _ := pipeline.ParseCookie(f.Cookie)
				delete(live, id)
			}
		}
	}
	bp.AddFlows, bp.RemoveFlows = difference(after, before), difference(before, after)
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range live {
		if info, ok := b.fw.Rule(id); ok {
			name := info.Ref.String()
			if info.Endpoint != "" {
				name = "default allow of " + info.Endpoint
			}
			bp.RejudgedRules = append(bp.RejudgedRules, name)
		}
	}
	slices.Sort(bp.RejudgedRules)
	return nil
}

// difference lists what is in a and not in b, sorted.
func difference(a, b map[string]bool) []string {
	var out []string
	for k := range a {
		if !b[k] {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// specTexts groups descriptions of mirrors by bridge.
func specTexts(specs []vswitch.MirrorSpec) map[string]map[string]bool {
	out := map[string]map[string]bool{}
	for _, s := range specs {
		if out[s.Bridge] == nil {
			out[s.Bridge] = map[string]bool{}
		}
		out[s.Bridge][describeMirror(s)] = true
	}
	return out
}
