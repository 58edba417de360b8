package host

import (
	"fmt"
	"slices"
	"time"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/ofctrl"
)

// silentLimit is how long a switch may owe an answer before it is said to be stuck.
const silentLimit = 2 * time.Second

// linkTrouble says what is wrong with the connection to a switch; "" = nothing.
func linkTrouble(st ofctrl.State) string {
	switch {
	case !st.Ready: // what is installed is known from an earlier connection only
		return "connecting: " + orElse(st.Err, "first attempt")
	case st.Silent >= silentLimit:
		return fmt.Sprintf("the switch has not answered for %d s", int(st.Silent.Seconds()))
	}
	return ""
}

// restoreWait is for vswitch.Topology.RestoreWait, which is not tapwall's to clear.
const restoreWait = "Open_vSwitch.other_config:flow-restore-wait is set, as by a restart of Open vSwitch: the switch forwards " +
	"nothing until that is cleared"

// troubles lists why the bridge cannot be relied on now, as far as the switch and the topology tell. What the last attempt to install
// found is in view.problems.
func (v *view) troubles(b bridgeView) []string {
	st := b.sw.State()
	if why := linkTrouble(st); why != "" {
		return []string{why}
	}
	if b.cfg.Mode != Owned {
		return nil
	}
	var out []string
	if v.topo.RestoreWait {
		out = append(out, restoreWait)
	}
	if b.installedAt == 0 {
		out = append(out, "the flows are being installed for the first time")
	}
	if br := v.topo.Bridges[b.cfg.Name]; br != nil && br.FailMode != b.cfg.FailMode {
		out = append(out, fmt.Sprintf("the fail mode is %q instead of %q", br.FailMode, b.cfg.FailMode))
	}
	if b.installedAt > 0 && (st.Missing > 0 || st.Blocked > 0) && !b.sw.Has(entryKey()) {
		out = append(out, "the wall is off: the flow of table 0 that leads into it is missing")
	}
	if err := b.bypass(); err != nil {
		out = append(out, err.Error())
	}
	if st.Missing > 0 {
		out = append(out, fmt.Sprintf("%d flows are missing, or there and not desired", st.Missing))
	}
	if st.Blocked > 0 {
		out = append(out, fmt.Sprintf("%d flows are kept out by flows of others in their places", st.Blocked))
	}
	return out
}

// problems lists all that keeps the managed bridges from being in force as desired.
func (v *view) allProblems() []string {
	out := slices.Clone(v.problems)
	for _, b := range v.bridges {
		for _, why := range v.troubles(b) {
			out = append(out, fmt.Sprintf("bridge %s: %s", b.cfg.Name, why))
		}
	}
	return out
}

// Unknown says why nothing is known of the host yet; "" = it has been reached since tapwall started.
func (e *Engine) Unknown() string {
	if e.view.Load().topo != nil {
		return ""
	}
	if db := e.opt.DB.Status(); !db.Connected {
		return "it has not been reached yet: " + orElse(db.LastError, "first attempt")
	}
	return "it is being read for the first time"
}

// Reachable reports whether the host's database and switches answer. A bridge that tapwall makes does not count: it is on the switch
// of the others, and while it is new it does not answer yet.
func (e *Engine) Reachable() bool {
	v := e.view.Load()
	if v.topo == nil || !e.opt.DB.Status().Connected {
		return false
	}
	for _, b := range v.bridges {
		if b.cfg.Mode != made && linkTrouble(b.sw.State()) != "" {
			return false
		}
	}
	return true
}

// Health is what is known of the connections to the host, all that keeps it from being in force now as desired, and what else somebody
// should look at.
type Health struct {
	wire.HostHealth
	// Unready lists what is not in force as desired; empty, once everything has been in force, it is.
	Unready []string
	// Concerns are the problems beside those.
	Concerns []string
}

// Health reports from observed state.
func (e *Engine) Health() Health {
	v := e.view.Load()
	h := Health{HostHealth: wire.HostHealth{Host: v.host, OVSDB: "connected", Desired: v.revision}, Unready: v.allProblems()}
	if db := e.opt.DB.Status(); !db.Connected {
		h.OVSDB = "connecting: " + orElse(db.LastError, "first attempt")
		h.Concerns = append(h.Concerns, "OVSDB: "+h.OVSDB)
	}
	if len(h.Unready) == 0 && !v.ready {
		h.Unready = []string{"the first synchronisation is under way"}
	}
	if h.Installed = h.Desired; len(v.bridges) < len(e.opt.Bridges) {
		h.Installed = 0 // one has not been seen, does not exist, or is another tapwall's to manage
	}
	for _, b := range v.bridges {
		for _, what := range b.others.problems(time.Now()) {
			h.Concerns = append(h.Concerns, fmt.Sprintf("bridge %s: %s", b.cfg.Name, what))
		}
		if why := b.sw.State().MeterErr; why != "" {
			h.Concerns = append(h.Concerns,
				fmt.Sprintf("bridge %s: the wall stands, but the record is degraded: packets are judged and not copied, "+
					"as the switch refuses a meter: %s", b.cfg.Name, why))
		}
		if b.cfg.Mode == Owned {
			h.Installed = min(h.Installed, b.installedAt)
			if br := v.topo.Bridges[b.cfg.Name]; br != nil && b.installedAt > 0 {
				for _, what := range triesTaken(br) {
					h.Concerns = append(h.Concerns, fmt.Sprintf("bridge %s: %s", b.cfg.Name, what))
				}
			}
		}
		bridge := b.health()
		if b.cfg.Mode == Owned {
			bridge.CopyLimit = e.opt.EventRate
		}
		h.Bridges = append(h.Bridges, bridge)
	}
	h.Warnings = v.notices.all
	h.Concerns = append(h.Concerns, v.unsaved...)
	return h
}

func (b bridgeView) health() wire.BridgeHealth {
	st := b.sw.State()
	h := wire.BridgeHealth{Bridge: b.cfg.Name, Mode: string(b.cfg.Mode), OpenFlow: orElse(linkTrouble(st), "connected"),
		DesiredFlows: st.Desired, InstalledFlows: st.OurFlows,
		FlowMods: st.Stats.FlowModsSent, Resyncs: st.Stats.Resyncs, Pickup: b.pickupOpen.Load(), Pickups: b.pickups,
		NotTakenUp: b.notTakenUp.Load(), Dropped: b.book.dropped()}
	switch {
	case b.cfg.Mode != Owned:
	case !b.watched:
		h.ConnectionEnds = "ends of connections are not told: " + errEndsRemote
	default:
		h.ConnectionEnds = b.ends.Load().String()
	}
	for _, r := range b.refused {
		h.Message = r.err.Error()
	}
	if b.err != nil {
		h.Message = b.err.Error()
	}
	return h
}
