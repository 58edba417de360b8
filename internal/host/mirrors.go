package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/unixctl"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// programmedAfter is how long ovs-vswitchd may take to report statistics of a mirror that it has programmed: two refresh periods of 5 s.
const programmedAfter = 11 * time.Second

// mirrorState is the loop's view of mirrors. Rows are written by a worker of their own, because a database transaction waits for
// ovs-vswitchd, which may be away: flows must not wait with it.
type mirrorState struct {
	plan     tap.Plan
	desired  ovsdb.Desired
	waits    bool // there is a mirror in it that waits for flows
	rows     rowWorker
	since    map[string]time.Time     // when the row with this UUID, of a mirror or its port, was first seen
	awaited  map[string]bool          // a row that ovs-vswitchd has yet to report something of
	statuses map[string]policy.Status // replaced at every turn

	software string          // version of Open vSwitch as a switch says it, "" = none has said
	open     map[string]bool // the ways back whose flows are in force

	routes      map[netip.Addr]tap.Route // the ways to collectors
	routesUntil time.Time                // when to look again; zero = there is no collector, and no target that is there already
	devices     devices
	devicesAt   time.Time // of the last look at them
}

func newMirrorState() mirrorState {
	return mirrorState{since: map[string]time.Time{}, awaited: map[string]bool{}}
}

// rowWorker applies the newest desired rows.
type rowWorker struct {
	mu      sync.Mutex
	desired ovsdb.Desired
	want    int64 // number of the newest desired state
	have    int64 // number that result belongs to
	result  ovsdb.Result
	err     error
	changed bool // a transaction was made that flows have to be nudged for
	kick    chan struct{}
}

// tendRows hands the desired rows to the worker, if they are to be looked at, and takes its results. It returns whether the newest
// desired rows are in force.
func (e *Engine) tendRows(ctx context.Context, look bool) bool {
	w := &e.mirrors.rows
	if w.kick == nil {
		w.kick = make(chan struct{}, 1)
		e.tasks.Go(func() { e.writeRows(ctx, w) })
	}
	w.mu.Lock()
	if look {
		// Also if nothing else is wanted: what is there may have changed, and is read back.
		if w.want == 0 || !reflect.DeepEqual(w.desired, e.mirrors.desired) {
			w.want++
		}
		w.desired = e.mirrors.desired
		select {
		case w.kick <- struct{}{}:
		default:
		}
	}
	done := w.have == w.want && w.err == nil
	nudge := w.changed
	w.changed = false
	w.mu.Unlock()
	if nudge {
		e.nudge(ctx)
	}
	return done
}

// nudge makes the datapath look at its cached flows again: OVS keeps copying, or not copying, along cached flows when only a Mirror
// row changes. All bridges of a datapath share the cache, so any bridge that takes a flow-mod will do, unless it is to be renewed, of which
// each has its part.
func (e *Engine) nudge(ctx context.Context) {
	for _, b := range e.bridges {
		if b.cfg.Mode == Guest && b.renews.Load() && e.canAskCaches(b.link) && e.purgeCaches(ctx) {
			return
		}
	}
	seen := map[string]bool{}
	for name, b := range e.bridges {
		kind := e.topo.Bridges[name].DatapathType
		if w := e.walls[name]; seen[kind] && !b.renews.Load() || w != nil && !w.taken {
			continue
		}
		if err := b.sw.Renew(ctx); err != nil {
			e.log.Warn("cached flows may serve an old set of mirrors until they expire", "bridge", name, "err", err)
			continue
		}
		seen[kind] = true
	}
}

// purgeCaches has the switch behind the control socket of this host throw away all that it has cached, and reports whether it has: on a
// bridge whose flow tables are somebody else's there is no other way to renew it.
func (e *Engine) purgeCaches(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, err := unixctl.Daemon{RunDir: e.opt.RunDir}.Call(ctx, "revalidator/purge")
	if err != nil {
		e.log.Warn("the switch would not throw away what it has cached", "err", err)
	}
	return err == nil
}

// writeRows runs until ctx ends.
func (e *Engine) writeRows(ctx context.Context, w *rowWorker) {
	var b backoff
	met := map[netip.Addr]bool{} // collectors
	for {
		var again <-chan time.Time
		if b.pause > 0 {
			again = time.After(b.pause)
		}
		select {
		case <-ctx.Done():
			return
		case <-w.kick:
		case <-again:
		}
		w.mu.Lock()
		desired, number := w.desired, w.want
		w.mu.Unlock()
		result, err := e.opt.DB.Apply(ctx, desired)
		if ctx.Err() != nil {
			return
		}
		e.greetCollectors(ctx, &desired, met)
		ready := func(port, owner string) {
			if err := readyTarget(port); err != nil {
				e.log.Warn("the mirror's port may not deliver", "mirror", owner, "err", err)
			}
		}
		for i, r := range result.Mirrors {
			if o := desired.Mirrors[i].Output; o.Create && o.Type == "internal" && r.OutputOFPort > 0 && e.local() {
				ready(o.Port, r.Owner)
			}
		}
		for i, r := range result.Ports {
			if o := desired.Ports[i]; o.Type == "internal" && r.OFPort > 0 && e.local() {
				ready(o.Name, r.Owner)
			}
		}
		w.mu.Lock()
		w.have, w.result, w.changed = number, result, w.changed || result.Transactions > 0 || errors.Is(err, ovsdb.ErrUnknownOutcome)
		if err != nil && (w.err == nil || w.err.Error() != err.Error()) {
			e.log.Warn("mirror rows are not written, trying again", "err", err)
		}
		w.err = err
		w.mu.Unlock()
		if err != nil || result.Pending {
			b.fail(time.Now())
		} else {
			b.ok()
		}
		e.poke()
	}
}

// young reports whether a row was first seen so recently that what ovs-vswitchd has to do about it may be under way.
func (m *mirrorState) young(uuid string, now time.Time) bool {
	if _, known := m.since[uuid]; !known {
		m.since[uuid] = now
	}
	return now.Sub(m.since[uuid]) <= programmedAfter
}

// due reports whether a row's time to report has run out since the last look, or collectors may be reached another way by now.
func (m *mirrorState) due(now time.Time) bool {
	if !m.routesUntil.IsZero() && now.After(m.routesUntil) {
		return true
	}
	for uuid, since := range m.since {
		if m.awaited[uuid] && now.Sub(since) > programmedAfter {
			return true
		}
	}
	return false
}

// mirrorStatus derives the status of a mirror from what was read back.
func (e *Engine) mirrorStatus(m *policy.Mirror, now time.Time) policy.Status {
	w := &e.mirrors.rows
	w.mu.Lock()
	results, rowErr, current := w.result.Mirrors, w.err, w.have == w.want
	bridges, portResults := w.result.Bridges, w.result.Ports
	w.mu.Unlock()

	h := policy.HostStatus{Host: e.topo.Host, Phase: policy.PhaseActive, Observed: m.Revision}
	info := e.mirrors.plan.Info[m.Name]
	serves := func(owner string) bool { return info.Serves(m.Name, owner) }
	h.Endpoints = info.Sources
	h.RealisedAs, h.Form, h.ExactOnce = realised(&info)
	if len(info.Targets) == 1 {
		h.Target = info.Targets[0]
	} else {
		h.Targets = info.Targets
	}
	degrade := func(phase policy.Phase, reason policy.Reason, message string) {
		if h.Phase == policy.PhaseActive || phase == policy.PhaseFailed {
			h.Phase, h.Reason, h.Message = phase, reason, message
		}
	}
	rows := 0
	var ports []string // UUIDs of where it delivers
	for _, r := range results {
		if !serves(r.Owner) {
			continue
		}
		ports = append(ports, r.OutputUUID)
		rows++
		h.Bridges = append(h.Bridges, r.Bridge)
		switch r.Code {
		case ovsdb.CodeOK:
		case ovsdb.CodePending, ovsdb.CodeHeld:
			degrade(policy.PhasePending, policy.ReasonPending, r.Message)
		case ovsdb.CodeMirrorLimit:
			degrade(policy.PhaseFailed, policy.ReasonMirrorLimit, r.Message)
		case ovsdb.CodeInvalid:
			degrade(policy.PhaseFailed, policy.ReasonInvalid, r.Message)
		case ovsdb.CodeOutputPortTaken:
			degrade(policy.PhaseFailed, policy.ReasonOutputPortTaken, r.Message)
		case ovsdb.CodeOutputMissing, ovsdb.CodeBridgeMissing, ovsdb.CodeOutputError:
			degrade(policy.PhaseDegraded, policy.ReasonTargetMissing, r.Message)
		}
		if r.OutputUUID == "" && r.OutputVLAN == 0 && r.Code == ovsdb.CodeOK {
			degrade(policy.PhaseDegraded, policy.ReasonTargetMissing, "the output port has vanished")
		}
		if len(r.MissingSources) > 0 {
			degrade(policy.PhaseDegraded, policy.ReasonSourceMissing, "no port "+strings.Join(r.MissingSources, ", "))
		}
		if r.UUID == "" {
			continue
		}
		if e.mirrors.awaited[r.UUID] = !r.Counting; !e.mirrors.young(r.UUID, now) && !r.Counting {
			degrade(policy.PhaseDegraded, policy.ReasonNotProgrammed, "ovs-vswitchd reports no statistics for the mirror")
		}
	}
	for _, r := range bridges {
		if serves(r.Owner) && r.Code != ovsdb.CodeOK {
			degrade(policy.PhaseDegraded, policy.ReasonTargetMissing, r.Message)
		}
	}
	for _, r := range portResults {
		if !serves(r.Owner) {
			continue
		}
		ports = append(ports, r.UUID)
		switch {
		case r.Code == ovsdb.CodeOK:
		case r.Code == ovsdb.CodePending:
			degrade(policy.PhasePending, policy.ReasonPending, r.Message)
		case r.Code == ovsdb.CodePortTaken:
			degrade(policy.PhaseFailed, policy.ReasonOutputPortTaken, r.Message)
		default:
			degrade(policy.PhaseDegraded, policy.ReasonTargetMissing, r.Message)
		}
	}
	ports = slices.DeleteFunc(ports, func(uuid string) bool { return uuid == "" })
	young := len(ports) == 0
	for _, uuid := range ports {
		e.mirrors.awaited[uuid] = e.mirrors.young(uuid, now)
		young = young || e.mirrors.awaited[uuid]
	}
	for _, p := range info.Problems {
		phase := policy.PhaseDegraded
		// What is missing may come back by itself; what is wrong has to be changed.
		if p.Fatal && p.Reason != policy.ReasonSourceMissing && p.Reason != policy.ReasonTargetMissing {
			phase = policy.PhaseFailed
		}
		if p.Soon && young {
			phase = policy.PhasePending
		}
		degrade(phase, p.Reason, p.Message)
	}
	for _, way := range info.Ways {
		if _, err := e.served(way.Bridge, []string{way.Owner}); err != nil {
			degrade(policy.PhaseFailed, policy.ReasonRejected, err.Error())
		}
	}
	if reason, message := e.captureFault(m.Name, now); reason == policy.ReasonPending {
		degrade(policy.PhasePending, reason, message)
	} else if reason != "" {
		degrade(policy.PhaseDegraded, reason, message)
	}
	if info.Through != "" {
		switch served, err := e.served(info.Through, append([]string{tap.MirrorOwner(m.Name)}, info.Owners...)); {
		case err != nil:
			degrade(policy.PhaseFailed, policy.ReasonRejected, err.Error())
		case info.Unfinished || !served:
			degrade(policy.PhasePending, policy.ReasonPending, "the flows of bridge "+info.Through+" are being installed")
		}
	}
	switch {
	case !m.IsEnabled() && rows == 0 && current && rowErr == nil:
		h.Phase, h.Reason, h.Message = policy.PhaseStopped, policy.ReasonDisabled, ""
	case m.Idle != nil && rows == 0 && current && rowErr == nil:
		h.Phase, h.Reason, h.Message = m.Idle.Phase, m.Idle.Reason, m.Idle.Message
	case !current || rowErr != nil:
		h.Observed = min(h.Observed, lookUp(e.observed, resource{policy.KindMirror, m.Name}.key()))
		message := "the mirror's rows are being written"
		if rowErr != nil {
			message = rowErr.Error()
		}
		h.Phase, h.Reason, h.Message = policy.PhasePending, policy.ReasonNotWritten, message
	case rows == 0 && len(info.Problems) == 0:
		degrade(policy.PhaseDegraded, policy.ReasonSourceMissing, "nothing on this host matches the sources")
	}
	return fromHost(h, append(slices.Clip(info.Warnings), e.mayGoOn(&h)...))
}

// mayGoOn warns of copies of running traffic that go on behind the end of a mirror, on bridges whose flow tables are somebody else's.
func (e *Engine) mayGoOn(h *policy.HostStatus) (out []policy.Warning) {
	for _, name := range h.Bridges {
		if b := e.bridges[name]; b != nil && b.cfg.Mode == Guest && b.renews.Load() && !e.canAskCaches(b.link) {
			out = append(out, policy.Warning{Code: tap.WarnCopiesMayGoOn, Message: fmt.Sprintf("Open vSwitch %s may go on copying running traffic "+
				"of bridge %s when the mirror is stopped, until that traffic pauses for 10 s; 2.17.8, 3.0.5, 3.1.3 and 3.2.0 do not",
				e.topo.OVSVersion, name)})
		}
	}
	return out
}

// realised says how a mirror is made, why so, and whether it makes one copy of each packet.
func realised(info *tap.Info) (as, why string, once *bool) {
	if len(info.Sources) == 0 {
		return "", "", nil
	}
	as = policy.RealisedNative
	if info.Form.Staged {
		as = policy.RealisedStaged
	}
	exact := len(info.Twice) == 0
	return as, info.Form.Because, &exact
}

// forget drops what is kept of rows that are gone.
func (m *mirrorState) forget(rows map[string]bool) {
	maps.DeleteFunc(m.since, func(uuid string, _ time.Time) bool { return !rows[uuid] })
	maps.DeleteFunc(m.awaited, func(uuid string, _ bool) bool { return !rows[uuid] })
}

// describeMirror prints a wanted mirror in one line, for plans.
func describeMirror(s vswitch.MirrorSpec) string {
	var b strings.Builder
	fmt.Fprintf(&b, "mirror %s on %s:", s.Name, s.Bridge)
	if s.SelectAll {
		b.WriteString(" select_all=true")
	}
	list := func(column string, ports []string) {
		if len(ports) > 0 {
			fmt.Fprintf(&b, " %s=%s", column, strings.Join(ports, ","))
		}
	}
	list("select_src_port", s.SelectSrcPort)
	list("select_dst_port", s.SelectDstPort)
	if len(s.SelectVLAN) > 0 {
		fmt.Fprintf(&b, " select_vlan=%v", s.SelectVLAN)
	}
	if s.Snaplen > 0 {
		fmt.Fprintf(&b, " snaplen=%d", s.Snaplen)
	}
	if s.OutputVLAN > 0 {
		fmt.Fprintf(&b, " output_vlan=%d", s.OutputVLAN)
		return b.String()
	}
	fmt.Fprintf(&b, " output_port=%s", s.Output.Port)
	if s.Output.Create {
		fmt.Fprintf(&b, " (type %s", s.Output.Type)
		for _, k := range slices.Sorted(maps.Keys(s.Output.Options)) {
			fmt.Fprintf(&b, " %s=%s", k, s.Output.Options[k])
		}
		b.WriteString(")")
	}
	return b.String()
}
