package host

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
	"github.com/tapwall/tapwall/policy/inventory"
)

// What a host should be like comes from two compilers: the walls contribute flows, meters and rows of the owned bridges, the taps rows
// of mirrors, ports and bridges of our own, and the flows and meters of those. It comes into force in this order, and each turn of the
// loop goes as far as it can:
//
//  1. rows: bridges, ports, controllers and whatever else need not wait;
//  2. the bridges are managed when ovs-vswitchd runs them, and their ports have numbers;
//  3. flows and meters, per bridge;
//  4. rows that lead traffic to a bridge of ours: a mirror is held back until the flows there are in force.
//
// What goes, goes the other way round by itself: a mirror that is not desired goes at once, and a bridge with all that is on it.

// made is the Mode of bridges that tapwall makes.
const made Mode = "made"

// compileTaps compiles the mirrors anew: they are few, and a plan costs less than finding out whether one is needed.
func (e *Engine) compileTaps() {
	mirrors := ofKind[*policy.Mirror](e.resources, policy.KindMirror)
	before := e.mirrors.plan
	in := e.tapInput(mirrors, e.resources, e.topo, e.inventory, e.found(), e.mirrors.routes, e.mirrors.devices)
	in.Before, in.Open, in.Version = &before, e.mirrors.open, cmp.Or(e.mirrors.software, e.topo.OVSVersion)
	in.Silent = e.prober.take()
	e.mirrors.plan = e.tapCompiler(in)
}

// tapInput is what mirrors are compiled from, for the loop and for those who ask what if, who know of nothing before. It is safe for
// concurrent use.
func (e *Engine) tapInput(mirrors []*policy.Mirror, resources catalog, topo *vswitch.Topology, inv inventory.Inventory, bridges []string,
	routes map[netip.Addr]tap.Route, at devices,
) tap.Input {
	return tap.Input{
		Mirrors: mirrors, Groups: resources.groups(), Topology: topo, Inventory: inv, Bridges: bridges, NoDevices: !e.local(), Routes: routes,
		Guests: e.guests(), Version: topo.OVSVersion, Addressed: at.addressed, Hardware: at.hardware,
	}
}

// learnVersion notes what version of Open vSwitch runs, as a switch that is connected says, and whether that is news. The database is told
// only by the scripts that start it.
func (e *Engine) learnVersion() (news bool) {
	for _, b := range e.bridges {
		if v := b.sw.State().Software; v != "" && v != e.mirrors.software {
			e.mirrors.software, news = v, true
		}
	}
	return news
}

// guests are the configured bridges whose flows are somebody else's.
func (e *Engine) guests() (names []string) {
	for _, b := range e.opt.Bridges {
		if b.Mode == Guest {
			names = append(names, b.Name)
		}
	}
	return names
}

// found are the managed bridges that somebody else made, by name.
func (e *Engine) found() []string {
	var names []string
	for name, b := range e.bridges {
		if b.cfg.Mode != made {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// desire puts the rows together. It returns whether there is a mirror that has to wait for flows.
func (e *Engine) desire() (waits bool) {
	plan := &e.mirrors.plan
	d := ovsdb.Desired{Bridges: plan.Bridges, Ports: plan.Ports, Mirrors: slices.Clone(plan.Specs), FailModes: map[string]string{},
		TableNames: map[string]map[int]string{}, TablePrefixes: map[string]map[int][]string{}}
	for i := range d.Mirrors {
		m := &d.Mirrors[i]
		m.Hold = slices.ContainsFunc(plan.Info[m.Owner].Behind, func(bridge string) bool { return !e.inForce(bridge) })
		waits = waits || m.Hold
	}
	for _, cfg := range e.opt.Bridges {
		if cfg.Mode == Owned {
			d.TableNames[cfg.Name] = nil // they keep theirs until the bridge is taken over
		}
	}
	for _, w := range e.walls {
		w.rows(&d)
	}
	for _, name := range slices.Sorted(maps.Keys(e.bridges)) {
		if listen := e.bridges[name].cfg.Listen; listen != nil {
			d.Controllers = append(d.Controllers, *listen)
		}
	}
	e.mirrors.desired = d
	return waits
}

// inForce reports whether the flows that the taps want of a bridge are known, which takes the numbers of its ports, and installed.
func (e *Engine) inForce(bridge string) bool {
	b := e.bridges[bridge]
	return b != nil && len(e.mirrors.plan.Flows[bridge].Owners) > 0 && b.err == nil && b.installedAt > 0 && len(b.owners) == 0 &&
		len(b.aside) == 0
}

// served reports whether the flows that owners have on a bridge of our own are in force; the error says why the switch would not take them.
func (e *Engine) served(bridge string, owners []string) (bool, error) {
	b := e.bridges[bridge]
	if b == nil || b.err != nil || b.installedAt == 0 {
		return false, nil
	}
	for _, o := range owners {
		if r, refused := b.aside[o]; refused {
			return false, r.err
		}
		if _, waiting := b.owners[o]; waiting {
			return false, nil
		}
	}
	return true, nil
}

// madeBridges are the bridges of our own that are desired and there.
func (e *Engine) madeBridges() []BridgeConfig {
	var out []BridgeConfig
	for _, s := range e.mirrors.plan.Bridges {
		if br := e.topo.Bridges[s.Name]; br != nil && br.ExternalIDs[vswitch.MarkOwner] == vswitch.OwnerValue {
			cfg := BridgeConfig{Name: s.Name, Mode: made, FailMode: br.FailMode}
			i := 0 // there is one for each datapath type, and none takes another's place when that goes
			if vswitch.DatapathName(s.DatapathType) != "system" {
				i = 1
			}
			if e.opt.Taps != nil {
				e.opt.Taps(&cfg, i)
			}
			out = append(out, cfg)
		}
	}
	return out
}

// taps is the part of the taps in a bridge of our own.
type taps struct {
	*bridge
	e    *Engine
	plan *tap.Plan
	last map[string][]flow.Flow // contributed, by owner
}

// contribute implements part.
func (t *taps) contribute(context.Context, ofctrl.State, time.Time) bool {
	now := t.plan.Flows[t.cfg.Name]
	if now.Meters == nil {
		now.Meters = []flow.MeterDesc{} // none, which is not the same as nothing said of them
	}
	changed := changedOwners(t.last, now.Owners)
	if !slices.EqualFunc(t.meters, now.Meters, sameMeter) {
		changed[ownerMeters] = nil // it has no flows: meters alone are a change, too
	}
	if len(changed) > 0 {
		t.want(changed)
	}
	t.last, t.meters = now.Owners, now.Meters
	return true
}

// uids are those of mirrors that are given by name.
func (t *taps) uids(names map[uint32]string) map[uint32]string {
	out := make(map[uint32]string, len(names))
	for n, name := range names {
		if m, ok := t.e.resources.get(policy.KindMirror, name).(*policy.Mirror); ok {
			out[n] = m.UID
		}
	}
	return out
}

// changedOwners are the flows of owners that differ; nil = the owner is gone.
func changedOwners(before, now map[string][]flow.Flow) map[string][]flow.Flow {
	changed := map[string][]flow.Flow{}
	for owner, flows := range now {
		if old, there := before[owner]; !there || !slices.EqualFunc(old, flows, flow.Flow.Equal) {
			changed[owner] = flows
		}
	}
	for owner := range before {
		if _, still := now[owner]; !still {
			changed[owner] = nil
		}
	}
	return changed
}

// ownerMeters stands for the meters of a bridge of our own.
const ownerMeters = "meters"

func sameMeter(a, b flow.MeterDesc) bool {
	return a.ID == b.ID && a.Flags == b.Flags && slices.Equal(a.Bands, b.Bands)
}

// before implements part: what the switch has counted until now is for the mirrors as they were until now, and goes with the flows and
// meters that go; what it counts from here on is for the mirrors as they are to be. What it passes between this and the bundle, some
// milliseconds, counts for nobody where flows go.
func (t *taps) before(ctx context.Context) {
	if t.installedAt > 0 {
		v := t.e.view.Load()
		mirrors := mirrorsByName(v.resources)
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		t.e.takeMeters(ctx, t.link, mirrors, v.taps)
		_ = t.readCounters(ctx, scope{all: true}) // if it fails, what there is counts
		t.e.counts.readFlows(t.cfg.Name, t.book, mirrors, v.taps)
	}
	t.book.countMirrors(t.uids(t.plan.Numbers), t.uids(t.plan.Limits), t.uids(t.plan.Cuts), func() (map[policy.RuleRef]counter, time.Time) {
		return t.e.counts.earlier(t.cfg.Name)
	})
}

// after implements part: what was read ahead is written down, in case this process ends now.
func (t *taps) after(ofctrl.Result, error) {
	t.e.tasks.Go(func() { t.e.refreshMirrors(t.e.saving, true) })
}

// settle implements part: everything could be contributed.
func (t *taps) settle() error { return nil }
