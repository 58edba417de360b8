package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ofctrl/probe"
	"github.com/tapwall/tapwall/policy/compile/tap"
	"github.com/tapwall/tapwall/policy/inventory"
)

// link is what any goroutine may use of a managed bridge: the connection to its switch, and what the connection's handlers have to know,
// which the loop publishes, and what they and the watchers of the bridge found out.
type link struct {
	cfg  BridgeConfig
	host atomic.Pointer[string] // id of the host
	sw   *ofctrl.Switch

	directory  record.Directory                  // what ids stand for, for the recorder
	portNames  atomic.Pointer[map[uint32]string] // by OpenFlow port
	datapathID atomic.Uint64
	others     interferences
	book       *book
	seen       seenMarks
	answers    chan answer                     // to rejected packets, to be sent
	memory     *memory                         // nil on a bridge without a wall
	index      int                             // of the bridge's conntrack zones
	judged     atomic.Pointer[map[uint32]bool] // endpoint ids that a policy applies to
	sightings  sightings
	forwarders forwarders
	spoken     claims
	spoofs     spoofs
	// guardCopies are the packet-ins of guards received.
	guardCopies atomic.Uint64
	unfinished  atomic.Pointer[[]string] // ports whose sender leaves checksums unfinished
	pickupOpen  atomic.Bool              // for the whole bridge
	renews      atomic.Bool              // what the switch has cached goes at each change
	arrivals    atomic.Bool              // workloads have pickup windows of their own
	notTakenUp  atomic.Uint64            // packets of older connections that pickup windows dropped
	held        holdings
	timeouts    timeouts
	prober      *probe.Prober
	// disagreements counts traced packets that the switch judged otherwise than the policies.
	disagreements atomic.Uint64
	meterMade     atomic.Bool   // all of logMeters, and not read since
	meterAgain    atomic.Bool   // likewise, some of them: the flows that copy under the others go on counting
	demoted       atomic.Uint64 // epoch of the connection on which another controller took the primary role
	copies        atomic.Uint64 // packet-ins received that become events
	repeats       *repeats
	watched       bool                     // the ends of its recorded connections can be told
	ends          atomic.Pointer[endsTold] // as of the last look; nil = there was nothing to look for
	reader        *messageReader
	// copiesBefore is how many of them came before this process last made the meter.
	copiesBefore atomic.Uint64
}

// bridge is one managed bridge: what its flows and meters should be, and how far that is installed. The loop owns it.
type bridge struct {
	*link
	cancel context.CancelFunc

	parts []part // what contributes to its flows
	// owners are the flows that are desired and not installed yet, by owner; nil flows = the owner is gone. meters are all that the bridge
	// should have.
	owners map[string][]flow.Flow
	meters []flow.MeterDesc

	retry       backoff
	aside       map[string]refusal // by owner
	impostors   uint64             // counted by the switch when the lock was last held
	heldEpoch   uint64             // of the connection to it then
	roleEpoch   uint64             // of the connection on which the primary role was taken
	installedAt int64              // store revision that is installed
	err         error              // of the last attempt to install
}

// part contributes to the flows of a bridge. Its methods are called by the loop.
type part interface {
	// contribute brings what is desired of the bridge up to date, given the state of its switch. It returns false as long as nothing may be
	// changed there.
	contribute(ctx context.Context, st ofctrl.State, now time.Time) bool
	// before is called ahead of each change of the switch, and after behind it.
	before(ctx context.Context)
	after(ofctrl.Result, error)
	// settle is called when all that was contributed is installed. An error says what could not be contributed.
	settle() error
}

// want adds to what is desired.
func (b *bridge) want(owners map[string][]flow.Flow) {
	if b.owners == nil {
		b.owners = map[string][]flow.Flow{}
	}
	maps.Copy(b.owners, owners)
}

// view is the bridge as it is now.
func (b *bridge) view() bridgeView {
	return bridgeView{link: b.link, wanted: b.cfg.Mode != Guest, refused: maps.Clone(b.aside), installedAt: b.installedAt, err: b.err}
}

// addBridge starts managing a bridge that has appeared.
func (e *Engine) addBridge(ctx context.Context, cfg BridgeConfig) (*bridge, error) {
	b := &bridge{link: &link{cfg: cfg, book: e.bookOf(cfg.Name), repeats: newRepeats(), reader: newMessageReader()}}
	host := e.topo.Host
	b.host.Store(&host)
	b.renews.Store(mixesUpCaches(e.topo, cfg.Name))
	at := cfg.OpenFlow
	if at == "" {
		at = "unix:" + filepath.Join(e.opt.RunDir, cfg.Name+".mgmt")
	}
	opt := ofctrl.Options{
		OnInterference: e.interfered(b.link),
		Bridge:         cfg.Name, Address: at, TLS: e.opt.OpenFlowTLS, Logger: e.log,
		Cookie: pipeline.CookieMagic, CookieMask: pipeline.CookieMagicMask,
		MeterFirst: pipeline.MeterLog, MeterLast: pipeline.MeterLast,
		ControllerID: pipeline.ControllerID,
		NudgeFlow: flow.Flow{Table: pipeline.TableLast, Priority: 1, Cookie: pipeline.SystemCookie(pipeline.TableLast, pipeline.ItemNone),
			Match: flow.Match{}.With(flow.InPort, flow.U64(lastPort))},
		OnPacketIn: e.packetIn(b.link),
		BackoffMax: 250 * time.Millisecond, // a restarted switch has to be protected again at once
		// A switch that is stuck is told of soon. One that is busy is not hung up on: what it was asked for would be asked again.
		ProbeInterval: silentLimit / 2, ProbeTimeout: 10*time.Second - silentLimit/2,
	}
	b.book.reopen()
	switch cfg.Mode {
	case Owned:
		b.watched = e.canAskCaches(b.link)
		opt.Own = ofctrl.Tables{First: pipeline.TableFirst, Last: pipeline.TableLast}
		opt.Renewal = b.renewal(pipeline.RenewalTables...)
		opt.OnPortStatus = func(*ofp.PortStatus) {
			if b.held.portChanged() {
				e.poke()
			}
		}
		opt.OnReadBack, opt.OnCommit = func(f *ofp.FlowStats) {
			b.book.readBack(f)
			if f == nil {
				b.seen.readBack(nil)
				b.held.readBack(nil)
				b.timeouts.readBack(nil, 0)
			} else {
				b.seen.readBack(&f.Flow)
				b.held.readBack(&f.Flow)
				b.timeouts.readBack(&f.Flow, time.Duration(f.Stats.DurationSec)*time.Second+time.Duration(f.Stats.DurationNsec))
			}
		}, b.book.committed
	case made:
		opt.Own, opt.MeterFirst, opt.MeterLast = ofctrl.Tables{Last: pipeline.TableLast}, 1, lastMeter
		opt.Renewal = b.renewal(tap.TableSources)
		opt.OnReadBack, opt.OnCommit = b.book.readBack, b.book.committed
	}
	var err error
	if b.sw, err = ofctrl.New(opt); err != nil {
		return nil, err
	}
	b.prober = probe.New(b.sw)
	switch cfg.Mode {
	case Owned:
		if err := e.addWall(b); err != nil {
			return nil, err
		}
		w := e.walls[cfg.Name]
		w.cells = &cells{bridge: b, w: w, e: e}
		b.parts = append(b.parts, w.cells)
		b.parts = append(b.parts, &waysBack{bridge: b, plan: &e.mirrors.plan})
	case Guest:
		b.parts = append(b.parts, &waysBack{bridge: b, plan: &e.mirrors.plan})
	case made:
		b.parts = append(b.parts, &taps{bridge: b, e: e, plan: &e.mirrors.plan})
	}
	// It ends with cancel, a little later than ctx: see closeLedgers.
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b.cancel = cancel
	e.tasks.Go(func() {
		if err := b.sw.Run(run); err != nil {
			e.log.Error("the connection to a bridge ended", "bridge", cfg.Name, "err", err)
		}
	})
	e.follow(run, b.sw.Wake())
	if cfg.Mode == Owned {
		for _, watch := range []func(context.Context, *link){e.followCaches, e.watchLosses, e.watchChecksums, e.watchStrays,
			e.watchRole, e.answer, e.watchHeld, e.watchGuards} {
			e.tasks.Go(func() { watch(run, b.link) })
		}
	}
	e.log.Info("managing bridge", "bridge", cfg.Name, "mode", string(cfg.Mode), "openflow", at)
	return b, nil
}

// renewal has what the switch caches of the tables renewed with each change, where it may mix that up.
func (l *link) renewal(tables ...uint8) *ofctrl.Renewal {
	return &ofctrl.Renewal{Needed: l.renews.Load, Number: pipeline.RenewalNumber,
		Flows: func(n uint16) []flow.Flow { return pipeline.RenewalFlows(n, tables...) }}
}

// lastPort is the highest port number that OVS gives to a port (OFPP_MAX of OpenFlow 1.0); in a table that nothing leads to, it is
// matched by nothing.
const lastPort = 0xfeff

// lastMeter is the highest id that a meter on a bridge of our own may have.
const lastMeter = 0xffff

// install installs whatever changed. It returns whether everything desired is on the switch.
func (e *Engine) install(ctx context.Context, b *bridge, now time.Time) bool {
	b.renews.Store(mixesUpCaches(e.topo, b.cfg.Name)) // it may be another switch by now
	st := b.sw.State()
	for _, p := range b.parts {
		if !p.contribute(ctx, st, now) {
			return false
		}
	}
	if e.idle(b, st) {
		return true
	}
	if !st.Ready {
		return false // what was compiled stays desired; the switch's wake-up brings us back
	}
	if err := e.takeRole(ctx, b, st); err != nil {
		b.failed(e, now, err)
		return false
	}
	if len(b.owners) > 0 || st.Missing > 0 || b.err != nil || b.installedAt == 0 || len(b.aside) > 0 && now.After(b.retry.next) {
		b.wantAgain(now)
		for _, p := range b.parts {
			p.before(ctx)
		}
		result, err := b.handOver(ctx, e.revision, now)
		for _, p := range b.parts {
			p.after(result, err)
		}
		if errors.Is(err, ofp.IsSecondary) {
			b.demoted.Store(st.Epoch)
			err = fmt.Errorf("%w (%w)", errDemoted, err)
		}
		if err != nil {
			// It stays desired: what the switch's reconciler knows of it already is cheap to hand over again.
			b.failed(e, now, err)
			return false
		}
		b.owners = nil
		if n := result.Added + result.Modified + result.Deleted; n > 0 {
			e.log.Debug("installed", "bridge", b.cfg.Name, "revision", e.revision, "added", result.Added, "modified", result.Modified, "deleted",
				result.Deleted)
		}
	}
	if len(b.aside) == 0 {
		b.retry.ok()
	}
	b.err = nil
	for _, p := range b.parts {
		b.err = errors.Join(b.err, p.settle())
	}
	if b.err != nil {
		b.retry.fail(now)
		return false
	}
	b.installedAt = e.revision
	return true
}

// refusal is what the switch would not take of one owner.
type refusal struct {
	flows []flow.Flow
	err   error
}

// wantAgain looks after what was set aside: it is tried again when it is time, and forgotten when something else is desired.
func (b *bridge) wantAgain(now time.Time) {
	again := now.After(b.retry.next)
	for owner, r := range b.aside {
		_, changed := b.owners[owner]
		if !changed && !again {
			continue
		}
		if !changed {
			b.want(map[string][]flow.Flow{owner: r.flows})
		}
		delete(b.aside, owner)
	}
}

// handOver applies what is desired. An owner that the switch refuses is set aside; the others are in force without it.
func (b *bridge) handOver(ctx context.Context, revision int64, now time.Time) (ofctrl.Result, error) {
	result, err := b.sw.Apply(ctx, ofctrl.Update{Revision: revision, Owners: b.owners, Meters: b.meters})
	if result.Refused == nil {
		return result, err
	}
	b.retry.fail(now)
	for _, r := range result.Refused.Refusals {
		flows, ok := b.owners[r.Owner]
		if !ok { // what had been taken before and went
			flows = b.sw.Desired(r.Owner)
		}
		if b.aside == nil {
			b.aside = map[string]refusal{}
		}
		b.aside[r.Owner] = refusal{flows, r.Err}
		delete(b.owners, r.Owner)
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
	b.err = err
}

// publishPorts tells what the numbers of the ports stand for.
func (b *bridge) publishPorts(ports []inventory.Port) {
	names := map[uint32]string{}
	for _, p := range ports {
		for _, i := range p.Interfaces {
			if i.OFPort > 0 {
				names[i.OFPort] = p.Name
			}
		}
	}
	b.portNames.Store(&names)
}
