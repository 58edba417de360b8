package host

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/unixctl"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// Codes of warnings about conntrack zones.
const (
	WarnZoneNearFull policy.Code = "CT_ZONE_NEAR_FULL" // 80 % of a limit are in use
	WarnZoneFull     policy.Code = "CT_ZONE_FULL"      // no new connection can begin there
	WarnZoneLimit    policy.Code = "CT_ZONE_LIMIT"     // somebody else has set the limit
)

// zonePoll is how often the switch is asked how full zones are.
const zonePoll = time.Second

// A zone is spoken of from zoneNear per cent of its limit on, until it is below zoneAgain.
const zoneNear, zoneAgain = 80, 70

// zoneUse is a zone that is to be spoken of.
type zoneUse struct {
	bridge string
	vlan   int
	limit  int
	code   policy.Code
}

// zoneRange is where the zones of a bridge are, by the index of the bridge, with the limits that tapwall has set there ever.
type zoneRange struct {
	bridge string
	index  int
	ours   []int
	vlans  []int // that its ports have; nil = the bridge is not tapwall's any more
}

// zoneRanges are those of all bridges that tapwall owns, or did.
func (e *Engine) zoneRanges() []zoneRange {
	var out []zoneRange
	for _, name := range slices.Sorted(maps.Keys(e.ledgers)) {
		l := e.ledgers[name]
		r := zoneRange{bridge: name, index: l.index, ours: l.limits}
		if w := e.walls[name]; w != nil && e.opt.ZoneLimit > 0 {
			r.vlans = w.vlans()
		} else if w == nil && slices.ContainsFunc(e.opt.Bridges, func(b BridgeConfig) bool { return b.Name == name && b.Mode == Owned }) {
			continue // it is away
		}
		if l.index >= 0 && (len(r.vlans) > 0 || len(r.ours) > 0) {
			out = append(out, r)
		}
	}
	return out
}

// vlans are those in which ports of the bridge have endpoints or stations: access VLANs, native ones, and 0 for untagged frames. Further
// ones that only trunks carry are not known.
func (w *firewall) vlans() []int {
	out := []int{0}
	for _, p := range w.e.inventory.On(w.e.topo.Host, w.cfg.Name) {
		out = append(out, p.VLAN)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// noteLimit has it known what limits are tapwall's. It comes before they are set.
func (w *firewall) noteLimit() {
	if n := w.e.opt.ZoneLimit; n > 0 && !slices.Contains(w.ledger.limits, n) {
		w.ledger.limits = append(slices.Clip(w.ledger.limits), n)
		w.ledger.note(stateLimits, w.ledger.limits)
	}
}

// watchZones keeps the limits of conntrack zones as configured and tells of zones that are nearly full, until ctx ends. The switch forgets
// limits when it restarts.
func (e *Engine) watchZones(ctx context.Context) {
	if !e.local() {
		return
	}
	daemon := unixctl.Daemon{RunDir: e.opt.RunDir}
	told, failed := map[uint16]policy.Code{}, ""
	for pause(ctx, zonePoll) {
		v := e.view.Load()
		if v.topo == nil || len(v.zones) == 0 {
			continue
		}
		var all []unixctl.ZoneLimit
		err := func() (err error) {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			all, err = e.keepLimits(ctx, daemon, v)
			return err
		}()
		if err != nil {
			if failed != err.Error() && ctx.Err() == nil {
				failed = err.Error()
				e.log.Warn("limits of conntrack zones are not kept", "err", err)
			}
			continue
		}
		failed = ""
		e.tellZones(v, all, told)
	}
}

// zoneDatapath is the datapath of the owned bridges, which has the zones: "" = there are none, or several.
func (v *view) zoneDatapath() string {
	var kinds []string
	for _, b := range v.walls {
		if br := v.topo.Bridges[b.cfg.Name]; br != nil {
			kinds = append(kinds, orElse(br.DatapathType, kernelDatapath))
		}
	}
	slices.Sort(kinds)
	if kinds = slices.Compact(kinds); len(kinds) != 1 {
		return ""
	}
	return kinds[0] + "@ovs-" + kinds[0]
}

// keepLimits sets and removes limits, and returns those that there are in zones of tapwall's.
func (e *Engine) keepLimits(ctx context.Context, daemon unixctl.Daemon, v *view) ([]unixctl.ZoneLimit, error) {
	datapath := v.zoneDatapath()
	if datapath == "" {
		return nil, nil
	}
	there, err := daemon.ZoneLimits(ctx, datapath)
	if err != nil {
		return nil, err
	}
	limits := map[uint16]int{}
	for _, l := range there {
		limits[l.Zone] = l.Limit
	}
	var set, del []uint16
	for _, r := range v.zones {
		base := pipeline.ZoneBase(r.index)
		wanted := map[uint16]bool{}
		for _, vlan := range r.vlans {
			wanted[base+uint16(vlan)] = true
		}
		for zone, limit := range limits {
			if !wanted[zone] && zone >= base && zone-base < 4096 && slices.Contains(r.ours, limit) {
				del = append(del, zone)
			}
		}
		for zone := range wanted {
			if limit, is := limits[zone]; !is || limit != e.opt.ZoneLimit && slices.Contains(r.ours, limit) {
				set = append(set, zone)
			}
		}
	}
	slices.Sort(set)
	slices.Sort(del)
	if len(set) > 0 {
		if err := daemon.SetZoneLimits(ctx, datapath, e.opt.ZoneLimit, set); err != nil {
			return nil, err
		}
	}
	if len(del) > 0 {
		if err := daemon.DeleteZoneLimits(ctx, datapath, del); err != nil {
			return nil, err
		}
	}
	if len(set)+len(del) > 0 {
		return daemon.ZoneLimits(ctx, datapath)
	}
	return there, nil
}

// tellZones notes which zones are nearly full, and has an event of each that has become so. told is what was said of a zone last.
func (e *Engine) tellZones(v *view, all []unixctl.ZoneLimit, told map[uint16]policy.Code) {
	var now []zoneUse
	for _, l := range all {
		i := slices.IndexFunc(v.zones, func(r zoneRange) bool {
			base := pipeline.ZoneBase(r.index)
			return r.vlans != nil && l.Zone >= base && l.Zone-base < 4096
		})
		if i < 0 || l.Limit <= 0 {
			continue
		}
		r := v.zones[i]
		at := zoneUse{bridge: r.bridge, vlan: int(l.Zone - pipeline.ZoneBase(r.index)), limit: l.Limit}
		if !slices.Contains(r.ours, l.Limit) {
			at.code = WarnZoneLimit
			now = append(now, at)
		}
		before, share := told[l.Zone], l.Count*100/l.Limit
		code := before
		switch {
		case l.Count >= l.Limit:
			code = WarnZoneFull
		case share >= zoneNear, before != "" && share >= zoneAgain:
			code = WarnZoneNearFull
		default:
			code = ""
		}
		if told[l.Zone] = code; code == "" {
			continue
		}
		at.code = code
		now = append(now, at)
		if b := v.wallOf(r.bridge); b != nil && code != before && (code == WarnZoneFull || before == "") {
			action := event.ActionZoneNearFull
			if code == WarnZoneFull {
				action = event.ActionZoneFull
			}
			e.log.Warn(at.String(), "connections", l.Count)
			e.record(b.link, action, event.Notice{Message: at.String(), Count: int64(l.Count)})
		}
	}
	if old := e.zoneUse.Load(); old == nil || !slices.Equal(*old, now) {
		e.zoneUse.Store(&now)
		e.poke()
	}
}

// String says it in words.
func (z zoneUse) String() string {
	what := fmt.Sprintf("the conntrack zone of VLAN %d", z.vlan)
	switch z.code {
	case WarnZoneFull:
		return fmt.Sprintf("%s is full: it has all of the %d connections that it may have, so new ones fail until others end", what, z.limit)
	case WarnZoneLimit:
		return fmt.Sprintf("%s has a limit of %d that tapwall has not set, and leaves", what, z.limit)
	}
	return fmt.Sprintf("%s is nearly full: it has %d %% or more of the %d connections that it may have", what, zoneAgain, z.limit)
}

// zoneWarnings are about zones that are full, or nearly.
func (e *Engine) zoneWarnings() (out []policy.Warning) {
	use := e.zoneUse.Load()
	if use == nil {
		return nil
	}
	for _, z := range *use {
		out = append(out, policy.Warning{Code: z.code, Message: fmt.Sprintf("bridge %s: %s", z.bridge, z)})
	}
	return out
}

// zoneTimeouts adds the timeout policies of the bridge's zones.
func (w *firewall) zoneTimeouts(d *ovsdb.Desired) {
	br := w.e.topo.Bridges[w.cfg.Name]
	if len(w.e.opt.Timeouts) == 0 || br == nil {
		return
	}
	for _, vlan := range w.vlans() {
		d.TimeoutPolicies = append(d.TimeoutPolicies, vswitch.TimeoutPolicySpec{Owner: w.cfg.Name, DatapathType: br.DatapathType,
			Zone: int(pipeline.ZoneBase(w.index)) + vlan, Timeouts: w.e.opt.Timeouts})
	}
}
