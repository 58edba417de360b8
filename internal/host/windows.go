package host

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
)

// window is a pickup window: a time in which TCP connections that are older than what conntrack knows are judged instead of dropped.
type window struct {
	workload     string // key; "" = the whole bridge
	since, until time.Time
	why          string
}

// Why windows open.
const (
	whyNoPipeline = "the switch had none of tapwall's flows"
	whyPutBack    = "somebody put tapwall's flows back, as ovs-ctl does when it restarts the switch"
	whyRestored   = "the switch was restarted and its flows restored (flow-restore-wait)"
	whyForwards   = "an endpoint has begun or ceased to forward"
	whyArrived    = "its port appeared"
)

// pickups are the pickup windows of a bridge. The loop owns them.
type pickups struct {
	open   map[string]window // by workload
	untold []window          // opened, and not known to be in force
	closed []window          // whose time is up, and whose flows are perhaps not gone
}

// next is when the next one closes; zero = none is open.
func (p *pickups) next() (at time.Time) {
	for _, w := range p.open {
		if at.IsZero() || w.until.Before(at) {
			at = w.until
		}
	}
	return at
}

// all returns those that are in force or may be, that of the bridge first.
func (p *pickups) all() []wire.PickupWindow {
	var out []wire.PickupWindow
	for _, key := range slices.Sorted(maps.Keys(p.open)) {
		out = append(out, p.open[key].wire())
	}
	for _, w := range p.closed {
		if _, again := p.open[w.workload]; !again {
			out = append(out, w.wire())
		}
	}
	return out
}

func (w window) wire() wire.PickupWindow {
	return wire.PickupWindow{Workload: w.workload, Since: w.since, Until: w.until, Reason: w.why}
}

// openPickup opens the window of the bridge.
func (w *firewall) openPickup(now time.Time, why string) {
	w.begins(window{since: now, until: now.Add(w.e.opt.PickupWindow), why: why})
	w.pickupOpen.Store(true)
	w.setPickup(true, w.memory.recall(now))
}

// putBack reports whether our entry flow is younger than it would be if the switch were the one that we had put it on. Saved and restored
// flows hide a restart of the switch, in which userspace conntrack forgot everything.
func (w *firewall) putBack(ctx context.Context, now time.Time) bool {
	if w.placed.IsZero() || !onUserspace(w.e.topo, w.cfg.Name) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	entry := entryKey()
	var younger bool
	filter := ofp.FlowFilter{Table: entry.Table, Cookie: uint64(entry.Cookie), CookieMask: ^uint64(0)}
	err := w.sw.EachFlow(ctx, filter, func(f *ofp.FlowStats) {
		age := time.Duration(f.Stats.DurationSec)*time.Second + time.Duration(f.Stats.DurationNsec)
		younger = younger || age+time.Second < now.Sub(w.placed) // a second for what the two clocks may differ by
	})
	return err == nil && younger
}

func (w *firewall) setPickup(open bool, m []pipeline.Connection) {
	w.recalled = m
	w.fw.SetPickup(open, m)
}

// openArrivals opens the windows of workloads whose ports have appeared.
func (w *firewall) openArrivals(now time.Time, keys []string) {
	for _, key := range keys {
		w.begins(window{workload: key, since: now, until: now.Add(w.e.opt.PickupWindow), why: whyArrived})
	}
	w.fw.SetArrivals(w.pickups.arriving())
}

func (w *firewall) begins(x window) {
	w.pickups.open[x.workload] = x
	w.pickups.untold = append(w.pickups.untold, x)
}

// arriving are the keys of the workloads that have a window.
func (p *pickups) arriving() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(p.open)), func(key string) bool { return key == "" })
}

// closePickups closes the windows whose time is up.
func (w *firewall) closePickups(now time.Time) {
	n := len(w.pickups.closed)
	for _, key := range slices.Sorted(maps.Keys(w.pickups.open)) {
		if x := w.pickups.open[key]; !now.Before(x.until) {
			w.pickups.closed = append(w.pickups.closed, x)
			delete(w.pickups.open, key)
			if key == "" {
				w.setPickup(false, nil)
			}
		}
	}
	if len(w.pickups.closed) > n {
		w.fw.SetArrivals(w.pickups.arriving())
	}
}

// settlePickups tells of the windows that are in force now and of those that are no more.
func (w *firewall) settlePickups() {
	w.pickupOpen.Store(w.fw.Pickup()) // closed when its flows are gone, not before
	w.arrivals.Store(len(w.pickups.arriving()) > 0)
	w.tellPickups(event.ActionPickupOpened, w.pickups.untold)
	w.tellPickups(event.ActionPickupClosed, w.pickups.closed)
	w.pickups.untold, w.pickups.closed = nil, nil
}

// tellPickups records windows: one event for the bridge's, and one for all those of workloads.
func (w *firewall) tellPickups(action string, windows []window) {
	var arrivals event.Notice
	for _, x := range windows {
		if x.workload == "" {
			w.tellPickup(action, x, event.Notice{Message: "older TCP connections"})
			continue
		}
		if arrivals.Count++; len(arrivals.Objects) < ofctrl.MaxObjects {
			arrivals.Objects = append(arrivals.Objects, x.workload)
		}
	}
	if arrivals.Count > 0 {
		i := slices.IndexFunc(windows, func(x window) bool { return x.workload != "" })
		arrivals.Message = "older TCP connections of " + some(arrivals.Objects)
		w.tellPickup(action, windows[i], arrivals)
	}
}

func (w *firewall) tellPickup(action string, x window, n event.Notice) {
	at := func(t time.Time) string { return t.Format(time.TimeOnly) }
	if action == event.ActionPickupOpened {
		n.Message += fmt.Sprintf(" are taken up until %s: %s", at(x.until), x.why)
	} else {
		n.Message += fmt.Sprintf(" are no longer taken up, as they were since %s: %s", at(x.since), x.why)
	}
	w.e.log.Info(n.Message, "bridge", w.cfg.Name)
	w.e.record(w.link, action, n)
}
