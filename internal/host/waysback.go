package host

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// waysBack is the part of the taps in a bridge of somebody else: the flows that hand copies to ports there. On an owned bridge it stands
// beside the wall, which comes first.
type waysBack struct {
	*bridge
	plan *tap.Plan
	last map[string][]flow.Flow // contributed, by owner
}

// contribute implements part.
func (w *waysBack) contribute(context.Context, ofctrl.State, time.Time) bool {
	now := w.plan.Flows[w.cfg.Name].Owners
	if changed := changedOwners(w.last, now); len(changed) > 0 {
		w.want(changed)
	}
	w.last = now
	return true
}

// before, after and settle implement part: nothing is accounted for.
func (w *waysBack) before(context.Context)     {}
func (w *waysBack) after(ofctrl.Result, error) {}
func (w *waysBack) settle() error              { return nil }

// idle reports whether a guest bridge has and wants none of our flows, so that nothing waits for its connection.
func (e *Engine) idle(b *bridge, st ofctrl.State) bool {
	return b.cfg.Mode == Guest && len(e.mirrors.plan.Flows[b.cfg.Name].Owners) == 0 && len(b.owners) == 0 && st.OurFlows == 0
}

// openWays are the ways back whose flows are on the switch, by key. As long as nobody knows, because the bridge is not connected, a way
// is as it was, and open after a start of this process: what is sent there in vain is dropped, and one that stood would have to be built
// again.
func (e *Engine) openWays() map[string]bool {
	out := map[string]bool{}
	for key, way := range e.mirrors.plan.Ways {
		b, flows := e.bridges[way.Bridge], e.mirrors.plan.Flows[way.Bridge].Owners[way.Owner]
		if b == nil || len(flows) == 0 {
			continue
		}
		open := e.mirrors.open == nil || e.mirrors.open[key]
		if b.sw.State().Ready {
			open = !slices.ContainsFunc(flows, func(f flow.Flow) bool { return !b.sw.Has(f) })
		}
		if open {
			out[key] = true
		}
	}
	return out
}

// tendWays has copies sent on the ways back that stand now, and on no others. It is called between the installation of the flows at their
// ends and of those at their beginnings.
func (e *Engine) tendWays() {
	if open := e.openWays(); !maps.Equal(open, e.mirrors.open) {
		e.mirrors.open = open
		e.compileTaps()
	}
}
