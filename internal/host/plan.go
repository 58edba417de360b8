package host

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// Admit asks whether there is room, and whether mirrors can be what they say: ovs-vswitchd takes ovsdb.MaxMirrors mirrors per bridge,
// whoever made them, and ignores further ones silently. And a wall has a budget of flows, see exceeds.
func (e *Engine) Admit(changes []backend.Change) error {
	if err := e.exceeds(changes); err != nil {
		return err
	}
	ours := map[string]bool{}
	for _, c := range changes {
		if _, ok := c.Resource.(*policy.Mirror); ok {
			ours[c.Name] = true
		}
	}
	if len(ours) == 0 {
		return nil
	}
	v := e.view.Load().with(changes)
	if err := v.bufferMemory(ours); err != nil {
		return err
	}
	if err := v.sharedFile(ours); err != nil {
		return err
	}
	if v.topo == nil {
		return nil
	}
	plan := e.mirrorsOf(v)
	if err := faulty(changes, plan); err != nil {
		return err
	}
	rows := map[string]int{} // by bridge: foreign rows and the wanted ones
	for name, br := range v.topo.Bridges {
		for _, m := range br.Mirrors {
			if m.ExternalIDs[vswitch.MarkOwner] != vswitch.OwnerValue {
				rows[name]++
			}
		}
	}
	for _, s := range plan.Specs {
		rows[s.Bridge]++
	}
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		for _, s := range plan.Specs {
			if !plan.Info[name].Serves(name, s.Owner) || rows[s.Bridge] <= ovsdb.MaxMirrors {
				continue
			}
			return fmt.Errorf(
				"%v: mirror %q would need one mirror of Open vSwitch too many on bridge %s, which takes %d, others' included (now %d); "+
					"mirrors with a filter share one if their sources, exclude and direction are the same: %w",
				ovsdb.CodeMirrorLimit, name, s.Bridge, ovsdb.MaxMirrors, rows[s.Bridge], backend.ErrLimit)
		}
	}
	return nil
}

// faulty says what is wrong with places of the first mirror of which that is known now.
func faulty(changes []backend.Change, plan tap.Plan) error {
	for i, c := range changes {
		if c.Kind != policy.KindMirror || c.Resource == nil {
			continue
		}
		var faults policy.Faults
		for _, p := range plan.Info[c.Name].Problems {
			if p.At != "" {
				faults = append(faults, policy.Fault{Pointer: p.At, Detail: p.Message, Code: p.Reason.Code()})
			}
		}
		if len(faults) > 0 {
			return &backend.FaultyError{Change: i, Faults: faults}
		}
	}
	return nil
}

// mirrorsOf compiles the mirrors of a view.
func (e *Engine) mirrorsOf(v *view) tap.Plan {
	mirrors := ofKind[*policy.Mirror](v.resources, policy.KindMirror)
	return e.tapCompiler(e.tapInput(mirrors, v.resources, v.topo, v.inventory, v.bridgeNames(), routesBy(e.waysTo(mirrors), v.topo),
		e.readDevices(mirrors)))
}

// Plan says what changes would do here. It compiles the changed world from scratch with the numbers in use and compares texts, so it
// answers for every owner without touching what runs. Ids that would be given anew are those that the real change would give if nothing
// else came first.
func (e *Engine) Plan(ctx context.Context, changes []backend.Change) (wire.Plan, error) {
	plan := wire.Plan{Bridges: []wire.BridgePlan{}}
	now := e.view.Load()
	then := now.with(changes)
	plan.Warnings = then.warnings(changes)
	if now.topo == nil {
		return plan, nil
	}
	if slices.ContainsFunc(changes, func(c backend.Change) bool { return c.Kind == policy.KindEndpoint }) {
		then.resolve()
	}
	walls := now.walls
	for _, b := range now.bridges {
		bp := wire.BridgePlan{Host: now.host, Bridge: b.cfg.Name}
		if len(walls) > 0 && walls[0].link == b.link {
			if err := walls[0].plan(&bp, now, then); err != nil {
				return plan, err
			}
			walls = walls[1:]
		}
		plan.Bridges = append(plan.Bridges, bp)
		if ctx.Err() != nil {
			return plan, ctx.Err()
		}
	}
	mirrors := e.mirrorsOf(then)
	before := specTexts(now.rows)
	after := specTexts(mirrors.Specs)
	for i := range plan.Bridges {
		bp := &plan.Bridges[i]
		bp.AddMirrors = difference(after[bp.Bridge], before[bp.Bridge])
		bp.RemoveMirrors = difference(before[bp.Bridge], after[bp.Bridge])
	}
	return plan, nil
}

// plan has a firewall of its own go from now to then as the real one would: which ids are kept depends on where a rule comes from.
func (b wallView) plan(bp *wire.BridgePlan, now, then *view) error {
	fw, err := wall.NewFirewall(wall.Options{Bridge: b.cfg.Name, BridgeIndex: b.index, Assignments: b.numbers.assignments(),
		LogPerSecond: b.logRate, Record: b.cfg.Record, DNS: !b.cfg.NoDNS, Learning: b.learning})
	if err != nil {
		return err
	}
	fw.SetPickup(b.pickupOpen.Load(), b.recalled) // or its flows would all seem to go
	fw.SetArrivals(b.arriving)
	fw.SetUnstamped(b.sw.Has(pipeline.UnstampedFlow()))
	fw.SetStrays(b.strays)
	plain := func(v *view) []wall.Port { return wall.PlainPorts(v.inventory.On(now.topo.Host, b.cfg.Name)) }
	fw.SetHost(now.self)
	fw.SetWorkloads(now.everybody(), plain(now))
	fw.SetGroups(ofKind[*policy.Group](now.resources, policy.KindGroup))
	for _, p := range policiesOn(now.force) {
		fw.SetPolicy(p)
	}
	ch := fw.Compile()
	fw.SetWorkloads(then.everybody(), plain(then))
	fw.SetGroups(ofKind[*policy.Group](then.resources, policy.KindGroup))
	for _, p := range policiesOn(then.force) {
		if lookUp(now.force, p.Name) != policy.Resource(p) {
			fw.SetPolicy(p)
		}
	}
	for name := range each(now.force) {
		if lookUp(then.force, name) == nil {
			fw.DeletePolicy(name)
		}
	}
	maps.Copy(ch.Owners, fw.Compile().Owners)
	before, after := map[string]bool{}, map[string]bool{}
	live := map[uint32]bool{} // gates that are open now
	for _, owner := range b.sw.Owners() {
		if owner == ownerMarks || owner == ofctrl.RenewalOwner { // they come and go by themselves
			continue
		}
		for _, f := range b.sw.Desired(owner) {
			f.HardTimeout = 0 // of what ends by itself: it grows shorter
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
	for id := range live {
		if info, ok := fw.Rule(id); ok {
			name := info.Ref.String()
			if info.Endpoint != "" {
				name = "default allow of " + info.Endpoint
				if a, ok := b.numbers.endpoints.Get(info.Endpoint); ok {
					name = "default allow of " + some(fw.Members(a.Class))
				}
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
