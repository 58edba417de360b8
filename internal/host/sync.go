package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/inventory"
)

// sync brings everything up to date with what is known now. It is cheap when nothing changed.
func (e *Engine) sync(ctx context.Context) {
	if topo := e.named(e.opt.DB.Topology()); topo != e.topo {
		// Mirror statistics come in new snapshots of the same structure.
		e.stale.topology = e.stale.topology || e.topo == nil || topo.Structure != e.topo.Structure || topo.Host != e.topo.Host
		e.stale.mirrors = true
		if e.topo != nil && topo.Host != e.topo.Host {
			for _, b := range e.bridges {
				b.host.Store(&topo.Host)
			}
		}
		e.topo = topo
	}
	if !e.loaded || e.topo == nil {
		e.publish(false, e.waitingFor())
		return
	}
	if err := e.excluded(); err != nil {
		e.publish(false, []string{err.Error()})
		return // what changed stays stale
	}
	now := time.Now()
	e.takeWritten(now)
	e.tendSchedules(now)
	complete := e.manageBridges(ctx, now)
	if e.stale.topology || e.stale.endpoints {
		e.resolve()
	}
	e.learn(now)
	e.introduce()
	if e.meet() {
		e.stale.peers = true
	}
	if e.stale.topology {
		for name, b := range e.bridges {
			b.publishPorts(e.inventory.On(e.topo.Host, name))
		}
	}
	for _, w := range e.walls {
		w.feed(&e.stale)
	}
	e.tendTerms(now)
	if e.reroute(now) || e.learnVersion() || e.stale.learned {
		e.stale.mirrors = true
	}
	if e.prober.fresh() {
		e.stale.mirrors = true
	}
	if e.stale.mirrors || e.stale.topology {
		e.compileTaps()
		e.prober.want(ctx, &e.tasks, e.mirrors.plan.Probes)
		e.tendCaptures(ctx)
	}
	flowsDone := complete
	for _, ours := range []bool{false, true} { // copies go where a way back stands
		for _, b := range e.bridges {
			if (b.cfg.Mode == made) == ours {
				flowsDone = e.install(ctx, b, now) && flowsDone
			}
		}
		if !ours {
			e.tendWays()
		}
	}
	for _, w := range e.walls {
		w.publishEndpoints(e.inventory.Workloads)
	}
	look := e.stale.mirrors || e.stale.topology || e.mirrors.waits
	if look {
		e.mirrors.waits = e.desire()
	}
	for _, l := range e.ledgers {
		e.save(ctx, l, now)
	}
	rowsDone := e.tendRows(ctx, look)
	e.updateStatus(flowsDone, rowsDone)
	e.stale = newWork()
	e.publish(flowsDone && rowsDone && len(e.unmanaged) == 0, nil)
}

// A process that was stopped for awayAfter may have lost the lock to another one, which its connection tells within lockTold.
const (
	awayAfter = 3 * time.Second
	lockTold  = 500 * time.Millisecond
)

// woke notices, when the loop wakes, that the whole process was stopped meanwhile: it wakes every second.
func (e *Engine) woke(since time.Time) {
	if now := time.Now(); e.opt.Lock != nil && now.Sub(since) > awayAfter {
		e.away = now.Add(lockTold)
		time.AfterFunc(lockTold, e.poke)
	}
}

var errAway = errors.New("the process was stopped for a while, so the lock of the host is looked at first")

// excluded says why the host must not be changed; nil = it may. While its database is down nobody can get the lock there, so who had it
// goes on: a revocation waits for no database. That it may be out of reach for us alone, and another have the lock, shows in what that one
// does: nobody but a tapwall adds flows with our cookies.
func (e *Engine) excluded() error {
	if e.opt.Lock == nil {
		return nil
	}
	if time.Now().Before(e.away) {
		return errAway
	}
	err := e.opt.Lock.Err()
	if err == nil {
		e.entitled, e.rival = true, ""
		for _, b := range e.bridges {
			st := b.sw.State()
			b.impostors, b.heldEpoch = st.Stats.Impostors, st.Epoch
		}
		return nil
	}
	if e.entitled && !errors.Is(err, ovsdb.ErrLocked) {
		for name, b := range e.bridges {
			st := b.sw.State()
			if st.Epoch != b.heldEpoch && e.opt.Lock.Asking() {
				return err // all connections are gone: it may have been we who were away
			}
			if n := st.Stats.Impostors - b.impostors; n > 0 {
				e.entitled, e.rival = false, fmt.Sprintf("another tapwall adds flows to bridge %s (%d so far)", name, n)
				e.log.Warn(e.rival + ", so this one changes nothing until it has the lock again")
			}
		}
		if e.entitled {
			return nil
		}
	}
	e.entitled = false
	for _, b := range e.bridges {
		b.roleEpoch = 0 // who gets the host back is told to take over as before
	}
	if e.rival != "" && !errors.Is(err, ovsdb.ErrLocked) {
		err = fmt.Errorf("%s: %w", e.rival, err)
	}
	return err
}

// due reports whether the clock alone is a reason to look again.
func (e *Engine) due(now time.Time) bool {
	if !e.retry.next.IsZero() && now.After(e.retry.next) {
		return true
	}
	for _, b := range e.bridges {
		if !b.retry.next.IsZero() && now.After(b.retry.next) {
			return true
		}
	}
	for _, w := range e.walls {
		if w.due(now) || w.cells.due(now) {
			return true
		}
	}
	if e.terms.due() || e.turned(now) || e.learningDue(now) {
		return true
	}
	for _, l := range e.ledgers {
		if !l.retry.next.IsZero() && now.After(l.retry.next) {
			return true
		}
	}
	return e.mirrors.due(now)
}

func (e *Engine) waitingFor() []string {
	var why []string
	if !e.loaded {
		why = append(why, "the store has not been read yet")
	}
	if e.topo == nil {
		s := e.opt.DB.Status()
		why = append(why, "no connection to the Open vSwitch database at "+s.Address+": "+orElse(s.LastError, "connecting"))
	}
	return why
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// manageBridges starts and stops managing bridges as they come and go. A bridge that cannot be managed is noted in unmanaged and costs the
// others nothing. It returns whether all that can be managed are.
func (e *Engine) manageBridges(ctx context.Context, now time.Time) bool {
	clear(e.unmanaged)
	err := e.settleHost(ctx)
	if err != nil && (e.hostErr == nil || e.hostErr.Error() != err.Error()) {
		e.log.Warn("the host's id is not settled, trying again", "host", e.seen.Host, "before", e.host, "err", err)
	}
	e.hostErr = err
	complete := true
	for name, b := range e.bridges {
		if e.topo.Bridges[name] == nil {
			e.log.Info("bridge is gone", "bridge", name)
			b.cancel()
			b.book.close(b.sw.State().Stats)
			if w := e.walls[name]; w != nil {
				w.ledger.given = *w.numbers.assignments() // compiled with the ledger's, so it is newer
			}
			delete(e.walls, name)
			delete(e.bridges, name)
			e.stale.topology = true
		}
	}
	for _, cfg := range slices.Concat(e.opt.Bridges, e.madeBridges()) {
		if e.topo.Bridges[cfg.Name] == nil || e.bridges[cfg.Name] != nil {
			continue
		}
		b, err := e.openBridge(ctx, cfg, now)
		if err != nil {
			e.unmanaged[cfg.Name] = err
			complete = complete && errors.Is(err, errTooManyBridges)
			continue
		}
		e.bridges[cfg.Name] = b
		e.stale.topology = true
	}
	if complete && e.hostErr == nil {
		e.retry.ok()
	} else {
		e.retry.fail(now)
	}
	return complete
}

func (e *Engine) openBridge(ctx context.Context, cfg BridgeConfig, now time.Time) (*bridge, error) {
	if e.host == "" {
		return nil, e.hostErr
	}
	if cfg.Mode == Owned {
		if _, err := e.ledgerOf(ctx, cfg.Name, now); err != nil {
			return nil, err
		}
	}
	return e.addBridge(ctx, cfg)
}

// errTooManyBridges says that a bridge has to do without tapwall for as long as the configuration is what it is.
var errTooManyBridges = fmt.Errorf("at most %d bridges of one host can be managed, those of earlier configurations included",
	pipeline.MaxBridges)

// errLedgerUnderWay says that a new bridge's place among the bridges is being saved.
var errLedgerUnderWay = errors.New("the first of its numbers are being saved")

// resolve derives the workloads from topology and Endpoint resources.
func (e *Engine) resolve() {
	e.inventory = stock(e.inventory, e.topo, e.found(), e.resources)
	e.endpointWarnings = e.inventory.About(e.topo.Host)
}

// stock finds what is plugged in on this host. What was found before says what need not be found again.
func stock(before inventory.Inventory, topo *vswitch.Topology, managed []string, resources catalog) inventory.Inventory {
	return before.Rebuild([]inventory.Host{{Topology: topo, Bridges: managed}}, ofKind[*policy.Endpoint](resources, policy.KindEndpoint))
}
