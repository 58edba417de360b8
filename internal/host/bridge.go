package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// bridge is one managed bridge: its OpenFlow connection and, if it is owned, its firewall. The loop owns it; the fields below mu
// and the switch itself may be used by readers.
type bridge struct {
	cfg    BridgeConfig
	host   atomic.Pointer[string] // id of the host
	sw     *ofctrl.Switch
	cancel context.CancelFunc

	ledger *ledger // nil on a guest bridge
	// pending is what was compiled and is not installed yet.
	pending     wall.Changes
	marks       []uint64  // of ledger, as last handed over or pending
	renamed     bool      // endpoint ids changed, and the recorder has not been told
	epoch       uint64    // connection that the pickup window was decided for
	pickupUntil time.Time // zero = closed
	// unstampedUntil is when connections without their ends in ct_label have had their time; zero = there are none.
	unstampedUntil time.Time
	memory         *memory
	lastNotTakenUp uint64
	retry          backoff
	aside          map[string]refusal // by owner
	taken          bool               // it may be changed: what was there before has been looked at
	// wipe is the configuration number with which the fail mode was set, which ovs-vswitchd has to confirm; 0 = there was nothing to set, notYet = it is not set.
	wipe int64

	// Guarded by the engine's mu for readers.
	refused     map[string]refusal // aside, as of the last installation
	installedAt int64              // store revision that is installed
	err         error              // of the last attempt to install
	policies    map[string]*wall.PolicyState

	// mu guards fw against readers. Only the loop changes fw, and assignments with it.
	mu          sync.Mutex
	fw          *wall.Firewall        // nil on a guest bridge
	recalled    []pipeline.Connection // what the pickup window was opened with
	assignments wall.Assignments
	index       int
	logRate     uint32

	directory  record.Directory                  // what ids stand for, for the recorder; the loop publishes
	judged     atomic.Pointer[map[uint32]bool]   // endpoint ids that a policy applies to
	portNames  atomic.Pointer[map[uint32]string] // by OpenFlow port
	forwarders forwarders
	unfinished atomic.Pointer[[]string] // ports whose sender leaves checksums unfinished
	datapathID atomic.Uint64
	pickupOpen atomic.Bool
	notTakenUp atomic.Uint64 // packets of older connections that pickup windows dropped; lastNotTakenUp is Engine.remember's
	meterMade  atomic.Bool   // and not read since
	copies     atomic.Uint64 // packet-ins of VERDICT received
	// copiesBefore is how many of them came before this process last made the meter.
	copiesBefore atomic.Uint64
	book         *book
	others       interferences
	strays       strays
	claims       map[address]string // who declares an address, in words; the loop's
}

const notYet = -1

// lastPort is the highest port number that OVS gives to a port (OFPP_MAX of OpenFlow 1.0); in a table that nothing leads to, it is matched by nothing.
const lastPort = 0xfeff

// entryKey identifies the flow that leads into the pipeline. Without it on the switch, nothing of ours is in force.
func entryKey() flow.Flow {
	for _, f := range pipeline.Fixed(pipeline.Options{}) {
		if f.Table == pipeline.TableEntry {
			return f
		}
	}
	panic("engine: the pipeline has no entry flow")
}

// addBridge starts managing a bridge that has appeared. l is nil for a guest bridge: nothing is numbered on it.
func (e *Engine) addBridge(ctx context.Context, cfg BridgeConfig, l *ledger) (*bridge, error) {
	b := &bridge{cfg: cfg, policies: map[string]*wall.PolicyState{}, logRate: e.opt.EventRate, ledger: l}
	host := e.topo.Host
	b.host.Store(&host)
	endpoint := cfg.OpenFlow
	if endpoint == "" {
		endpoint = "unix:" + filepath.Join(e.opt.RunDir, cfg.Name+".mgmt")
	}
	opt := ofctrl.Options{
		OnInterference: e.interfered(b),
		Bridge:         cfg.Name, Endpoint: endpoint, TLS: e.opt.OpenFlowTLS, Logger: e.log,
		Cookie: pipeline.CookieMagic, CookieMask: pipeline.CookieMagicMask,
		MeterFirst: pipeline.MeterLog, MeterLast: pipeline.MeterStray,
		ControllerID: pipeline.ControllerID,
		NudgeFlow: flow.Flow{Table: pipeline.TableLast, Priority: 1, Cookie: pipeline.SystemCookie(pipeline.TableLast, pipeline.ItemNone),
			Match: flow.Match{}.With(flow.InPort, flow.U64(lastPort))},
		OnPacketIn: e.packetIn(b),
		BackoffMax: 250 * time.Millisecond, // a restarted switch has to be protected again at once
		// A switch that is stuck is told of soon. One that is busy is not hung up on: what it was asked for would be asked again.
		ProbeInterval: silentLimit / 2, ProbeTimeout: 10*time.Second - silentLimit/2,
	}
	b.book = e.bookOf(cfg.Name)
	b.book.reopen()
	if cfg.Mode == Owned {
		opt.Own = ofctrl.Tables{First: pipeline.TableFirst, Last: pipeline.TableLast}
		opt.OnReadBack, opt.OnCommit = b.book.readBack, b.book.committed
	}
	sw, err := ofctrl.New(opt)
	if err != nil {
		return nil, err
	}
	b.sw = sw
	if cfg.Mode == Owned {
		if b.memory, err = newMemory(e.opt.MemoryDir, cfg.Name); err != nil {
			e.log.Warn("what an earlier process knew of connections is lost", "bridge", cfg.Name, "err", err)
		}
		if err := e.newFirewall(b); err != nil {
			return nil, err
		}
	}
	// It ends with cancel, a little later than ctx: see closeLedgers.
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b.cancel = cancel
	if b.fw != nil {
		e.tasks.Go(func() { e.followCaches(run, b) })
	}
	e.tasks.Go(func() {
		if err := sw.Run(run); err != nil {
			e.log.Error("the connection to a bridge ended", "bridge", cfg.Name, "err", err)
		}
	})
	e.follow(run, sw.Wake())
	e.tasks.Go(func() { e.watchLosses(run, b) })
	e.tasks.Go(func() { e.watchChecksums(run, b) })
	if b.fw != nil {
		e.tasks.Go(func() { e.watchStrays(run, b) })
	}
	e.log.Info("managing bridge", "bridge", cfg.Name, "mode", string(cfg.Mode), "openflow", endpoint)
	return b, nil
}

// newFirewall gives the bridge a firewall that goes on from what its ledger says, with all policies and groups.
func (e *Engine) newFirewall(b *bridge) error {
	l := b.ledger
	fw, err := wall.NewFirewall(wall.Options{Bridge: b.cfg.Name, BridgeIndex: l.index, Assignments: &l.given, LogPerSecond: b.logRate})
	if err != nil {
		return err
	}
	fw.Reserve(l.bound)
	fw.SetGroups(ofKind[*policy.Group](e.resources, policy.KindGroup))
	for _, p := range ofKind[*policy.Policy](e.resources, policy.KindPolicy) {
		fw.SetPolicy(p)
	}
	b.book.use(fw.Rule)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fw, b.index = fw, l.index
	b.assignments = wall.Assignments{Next: l.given.Next, Policies: maps.Clone(l.given.Policies), Endpoints: maps.Clone(l.given.Endpoints),
		Retired: maps.Clone(l.given.Retired)}
	return nil
}

// compile brings the firewall's outcome into pending. Where that uproots connections, they are taken up.
func (b *bridge) compile(now time.Time, window time.Duration) {
	if b.compileOnce() && window > 0 {
		b.openPickup(now, window, b.memory.recall(now))
		b.compileOnce()
	}
	if marks := b.ledger.marks(); !slices.Equal(marks, b.marks) {
		flows := make([]flow.Flow, len(marks))
		for i, m := range marks {
			flows[i] = markFlow(m)
		}
		b.marks = marks
		b.pending.Owners = merge(b.pending.Owners, map[string][]flow.Flow{ownerMarks: flows})
	}
}

func (b *bridge) compileOnce() (uprooted bool) {
	b.mu.Lock()
	ch := b.fw.Compile()
	b.assignments.Apply(ch.Assignments)
	judged := b.fw.Judged()
	b.mu.Unlock()
	b.judged.Store(&judged)
	b.publishRules(ch.Names)
	b.ledger.change(ch.Assignments)
	b.renamed = b.renamed || len(ch.Assignments.Endpoints) > 0
	b.pending.Meters = ch.Meters
	b.pending.Owners = merge(b.pending.Owners, ch.Owners)
	b.pending.Policies = merge(b.pending.Policies, ch.Policies)
	return ch.Uprooted
}

func merge[K comparable, V any](into, from map[K]V) map[K]V {
	if into == nil {
		return from
	}
	maps.Copy(into, from)
	return into
}

// install compiles and installs whatever changed for an owned bridge, and decides about the pickup window. It returns whether
// everything desired is on the switch.
func (e *Engine) install(ctx context.Context, b *bridge, now time.Time) bool {
	st := b.sw.State()
	if b.ledger.unproven {
		if !st.Ready {
			return false // which ids are still true is known by the switch alone
		}
		if b.ledger.doubt(b.sw.Has) {
			if err := e.newFirewall(b); err != nil {
				b.failed(e, now, err)
				return false
			}
			b.setWorkloads(e.workloads, e.topo.Bridges[b.cfg.Name])
		}
	}
	b.windows(st, now, e.opt.PickupWindow)
	e.tendStrays(ctx, b, st.Ready, now)
	b.compile(now, e.opt.PickupWindow)
	held := b.fw.Held()
	if len(held) > 0 && e.await(ctx, b.ledger, now) {
		return false
	}
	if !e.takeOver(b, st, now) {
		return false
	}
	// Changing the fail mode wipes the flow tables (ovs-vswitchd.conf.db(5)) and the meters, so it goes first. That it is in the database does not mean that
	// ovs-vswitchd has done so: meters and flows that come in between may be lost. The topology's wake-up brings us back.
	if have := e.topo.Bridges[b.cfg.Name].FailMode; have != b.cfg.FailMode {
		b.wipe = notYet
		return false
	}
	if b.wipe == notYet {
		b.wipe = e.topo.NextCfg
	}
	if e.topo.CurCfg < min(b.wipe, e.topo.NextCfg) {
		return false
	}
	if !st.Ready {
		return false // what was compiled stays pending; the switch's wake-up brings us back
	}
	copies := b.copies.Load() // no copy of a pipeline that is not installed can be among them
	var result ofctrl.Result
	if len(b.pending.Owners) > 0 || st.Missing > 0 || b.err != nil || b.installedAt == 0 || len(b.aside) > 0 && now.After(b.retry.next) {
		var err error
		result, err = b.handOver(ctx, e, now)
		b.afterChange(err)
		if err != nil {
			// It stays pending: what is recorded as desired already is cheap to hand over again.
			b.failed(e, now, err)
			return false
		}
		b.pending.Owners = nil
	}
	if result.Meters > 0 {
		b.copiesBefore.Store(copies)
		b.meterMade.Store(true)
	}
	b.pickupOpen.Store(b.fw.Pickup()) // closed when its flows are gone, not before
	if len(b.aside) == 0 {
		b.retry.ok()
	}
	b.name(e)
	e.mu.Lock()
	defer e.mu.Unlock()
	b.err = nil
	b.refused = maps.Clone(b.aside)
	if len(held) == 0 {
		b.installedAt = e.revision
	}
	for name, p := range b.pending.Policies {
		if p == nil {
			delete(b.policies, name)
		} else {
			b.policies[name] = p
		}
	}
	b.pending.Policies = nil
	if len(held) > 0 {
		b.err = fmt.Errorf("the numbers that were reserved are used up: flows of %s wait until others are; what takes access away is in force", some(held))
		b.retry.fail(now)
		return false
	}
	if n := result.Added + result.Modified + result.Deleted; n > 0 {
		e.log.Debug("installed", "bridge", b.cfg.Name, "revision", e.revision, "added", result.Added, "modified", result.Modified, "deleted", result.Deleted)
	}
	return true
}

// refusal is what the switch would not take of one owner.
type refusal struct {
	flows []flow.Flow
	err   error
}

// handOver applies what is pending. An owner that the switch refuses is set aside and tried again later, or when it changes; the others are in force without it.
func (b *bridge) handOver(ctx context.Context, e *Engine, now time.Time) (ofctrl.Result, error) {
	again := now.After(b.retry.next)
	for owner, r := range b.aside {
		if _, changed := b.pending.Owners[owner]; !changed {
			if !again {
				continue
			}
			b.pending.Owners = merge(b.pending.Owners, map[string][]flow.Flow{owner: r.flows})
		}
		delete(b.aside, owner)
	}
	b.beforeChange(ctx, e)
	result, err := b.sw.Apply(ctx, ofctrl.Update{Revision: e.revision, Owners: b.pending.Owners, Meters: b.pending.Meters})
	if result.Refused == nil {
		return result, err
	}
	b.retry.fail(now)
	for _, r := range result.Refused.Refusals {
		flows, ok := b.pending.Owners[r.Owner]
		if !ok { // what had been taken before and went
			flows = b.sw.Desired(r.Owner)
		}
		b.aside = merge(b.aside, map[string]refusal{r.Owner: {flows, r.Err}})
		delete(b.pending.Owners, r.Owner)
	}
	if err == error(result.Refused) {
		err = nil
	}
	return result, err
}

func (b *bridge) failed(e *Engine, now time.Time, err error) {
	if errors.Is(err, context.Canceled) {
		return // the end of the process
	}
	if b.err == nil || b.err.Error() != err.Error() {
		e.log.Warn("not installed, trying again", "bridge", b.cfg.Name, "err", err)
	}
	b.retry.fail(now)
	e.mu.Lock()
	defer e.mu.Unlock()
	b.err = err
}

// unstampedFor is for how long after an upgrade connections may be found whose ends an earlier version did not write down.
const unstampedFor = 10 * time.Minute

// windows opens the pickup window, in which connections that are older than the installed flows are judged instead of dropped, when a connection finds the
// switch without our pipeline (first start, restart of the switch, wiped flows), and closes it when the time is up. It does the same for connections that an
// earlier version committed, when it finds that version's pipeline.
func (b *bridge) windows(st ofctrl.State, now time.Time, window time.Duration) {
	if st.Ready && (st.Epoch != b.epoch || st.Lost > 0) {
		switch there := b.sw.Has(entryKey()); {
		case !there && window > 0:
			b.openPickup(now, window, b.memory.recall(now))
		case there && st.Epoch != b.epoch && (!b.sw.Has(pipeline.Stamps()) || b.sw.Has(pipeline.UnstampedFlow())):
			b.unstampedUntil = now.Add(unstampedFor)
			b.setUnstamped(true)
		}
		b.epoch = st.Epoch
	}
	if !b.pickupUntil.IsZero() && !now.Before(b.pickupUntil) {
		b.pickupUntil = time.Time{}
		b.setPickup(false, nil)
	}
	if !b.unstampedUntil.IsZero() && !now.Before(b.unstampedUntil) {
		b.unstampedUntil = time.Time{}
		b.setUnstamped(false)
	}
}

func (b *bridge) openPickup(now time.Time, window time.Duration, m []pipeline.Connection) {
	b.pickupUntil = now.Add(window)
	b.pickupOpen.Store(true)
	b.setPickup(true, m)
}

func (b *bridge) setPickup(open bool, m []pipeline.Connection) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recalled = m
	b.fw.SetPickup(open, m)
}

func (b *bridge) setUnstamped(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fw.SetUnstamped(on)
}

// setWorkloads hands the firewall its ports and publishes what the recorder needs to name them.
func (b *bridge) setWorkloads(ws []*policy.Workload, br *vswitch.Bridge) {
	names := map[uint32]string{}
	for _, p := range br.Ports {
		for _, i := range p.Interfaces {
			if i.OFPort > 0 {
				names[uint32(i.OFPort)] = p.Name
			}
		}
	}
	b.portNames.Store(&names)
	if b.fw == nil {
		return
	}
	b.claims = newClaims(br, ws)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fw.SetWorkloads(ws, plainPorts(br, ws))
}

// plainPorts lists the ports of an owned bridge that are not endpoints and may pass traffic: uplinks, tunnels, patch ports, LOCAL. The outputs of our
// own mirrors only receive.
func plainPorts(br *vswitch.Bridge, ws []*policy.Workload) []wall.Port {
	endpoint := map[string]bool{}
	for _, w := range ws {
		if w.Bridge == br.Name && !w.Remote {
			endpoint[w.Port] = true
		}
	}
	var out []wall.Port
	for _, p := range br.Ports {
		if endpoint[p.Name] || p.ExternalIDs[vswitch.MarkOwner] == vswitch.OwnerValue {
			continue
		}
		vlan, trunk := access(p)
		for _, i := range p.Interfaces {
			if i.HasDevice() { // one that comes back is somebody's: the topology will say whose
				out = append(out, wall.Port{Name: i.Name, OFPort: uint32(i.OFPort), VLAN: vlan, Tagged: trunk})
			}
		}
	}
	return out
}

// access returns the VLAN of a port's untagged frames and whether it takes tagged ones (Port.vlan_mode in ovs-vswitchd.conf.db(5)). The tags that
// a dot1q-tunnel port takes are its customer's and not those that the bridge forwards by, so what carries one could not be judged.
func access(p *vswitch.Port) (vlan int, trunk bool) {
	if p.Tag != nil {
		vlan = *p.Tag
	}
	switch p.VLANMode {
	case "access", "dot1q-tunnel":
		return vlan, false
	case "trunk":
		return 0, true
	case "native-tagged", "native-untagged":
		return vlan, true
	}
	return vlan, p.Tag == nil // trunks beside a tag are ignored
}

// some spells the first of many.
func some(names []string) string {
	const few = 5
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}
