package host

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// firewall is the wall's part in an owned bridge: what the policies make of its flows, and what is kept about them. The loop owns it.
type firewall struct {
	*bridge
	e *Engine

	fw       *wall.Firewall
	ledger   *ledger
	numbers  numbers
	sets     numberShelf[[]string] // as wallView has them
	services map[uint16]string
	usage    []wall.Use
	policies shelf[*wall.PolicyState]     // as installed
	inForce  *inForce                     // likewise; nil = nothing yet
	compiled map[string]*wall.PolicyState // not installed yet; nil = the policy is gone
	held     []string                     // what waits for numbers
	renamed  map[string]struct{}          // endpoints whose ids changed, and the recorder has not been told
	named    map[string]uint32            // ids of endpoints that it was told
	told     []*policy.Workload           // which these were

	marks      []uint64  // of ledger, as last handed over or desired
	sheets     sheets    // of marks
	marksUntil time.Time // when marks that are not needed any more go at the latest; zero = there are none
	epoch      uint64    // connection that the pickup window was decided for
	restoring  bool      // the switch was seen to wait until its flows are restored, and what it held up has not been taken up yet
	pickups    pickups
	placed     time.Time             // when our entry flow stood for certain; zero = not known
	recalled   []pipeline.Connection // what the window was opened with
	// unstampedUntil is when connections without their ends in ct_label have had their time; zero = there are none.
	unstampedUntil time.Time
	taken          bool // the bridge may be changed: what was there before has been looked at
	// wipe is the configuration number with which the fail mode was set, which ovs-vswitchd has to confirm; 0 = there was nothing to set,
	// notYet = it is not set.
	wipe       int64
	copiesThen uint64 // packet-ins received when the last change began
	meterSets  metersSet
	strays     strays
	grace      bool // see tendGrace
	cells      *cells
	endings    endings
	claims     func() map[address]string // who declares an address, in words
}

const notYet = -1

// entryKey identifies the flow that leads into the pipeline. Without it on the switch, nothing of ours is in force.
func entryKey() flow.Flow {
	for _, f := range pipeline.Fixed(pipeline.Options{}) {
		if f.Table == pipeline.TableEntry {
			return f
		}
	}
	panic("host: the pipeline has no entry flow")
}

// addWall gives an owned bridge its wall.
func (e *Engine) addWall(b *bridge) error {
	w := &firewall{bridge: b, e: e, ledger: e.ledgers[b.cfg.Name], policies: newShelf[*wall.PolicyState](), strays: newStrays(),
		pickups: pickups{open: map[string]window{}}, renamed: map[string]struct{}{}, named: map[string]uint32{},
		endings: endings{owners: map[string]ending{}, stamps: map[flow.Key]stamp{}}}
	var err error
	if b.memory, err = newMemory(e.opt.MemoryDir, b.cfg.Name); err != nil {
		e.log.Warn("what an earlier process knew of connections is lost", "bridge", b.cfg.Name, "err", err)
	}
	b.index, b.answers = w.ledger.index, make(chan answer, maxAnswers)
	if err := w.begin(); err != nil {
		return err
	}
	b.parts = append(b.parts, w)
	e.walls[b.cfg.Name] = w
	return nil
}

// begin makes a firewall that goes on from what the ledger says, with all policies and groups.
func (w *firewall) begin() error {
	l := w.ledger
	fw, err := wall.NewFirewall(wall.Options{Bridge: w.cfg.Name, BridgeIndex: l.index, Assignments: &l.given, LogPerSecond: w.e.opt.EventRate,
		Record: w.cfg.Record, DNS: !w.cfg.NoDNS, Learning: w.e.learning.on})
	if err != nil {
		return err
	}
	fw.Reserve(l.bound)
	fw.SetGroups(ofKind[*policy.Group](w.e.resources, policy.KindGroup))
	for _, p := range policiesOn(w.e.force) {
		fw.SetPolicy(p)
	}
	w.book.use(fw.Rule)
	w.fw, w.numbers, w.sets, w.services = fw, newNumbers(&l.given), newNumberShelf[[]string](), nil
	return nil
}

// view is the wall as it is now, on the bridge as it is now.
func (w *firewall) view(b bridgeView) wallView {
	return wallView{bridgeView: b, policies: w.policies, numbers: w.numbers, index: w.index, recalled: w.recalled, strays: w.fw.Strays(),
		logRate: w.e.opt.EventRate, learning: w.e.learning.on, arriving: w.pickups.arriving(), sets: w.sets, services: w.services, usage: w.usage,
		inForce: w.inForce, cells: w.cells.views(), releasing: w.cells.releasing()}
}

// feed tells the firewall what changed.
func (w *firewall) feed(stale *work) {
	if stale.topology || stale.endpoints || stale.peers || stale.learned {
		w.setWorkloads()
	}
	w.fw.SetHost(*w.e.self.Load())
	if stale.groups {
		w.fw.SetGroups(ofKind[*policy.Group](w.e.resources, policy.KindGroup))
	}
	for name := range stale.policies {
		if p, ok := lookUp(w.e.force, name).(*policy.Policy); ok {
			w.fw.SetPolicy(p)
		} else {
			w.fw.DeletePolicy(name)
		}
	}
}

func (w *firewall) setWorkloads() {
	ports, ws := w.e.inventory.On(w.e.topo.Host, w.cfg.Name), w.e.inventory.Workloads
	w.claims = sync.OnceValue(func() map[address]string { return newClaims(w.cfg.Name, ports, ws) }) // seldom needed
	w.strays.bridge, w.strays.workloads = w.cfg.Name, ws
	w.fw.SetWorkloads(slices.Concat(ws, w.e.peers), wall.PlainPorts(ports))
}

// contribute compiles whatever changed, and decides about the pickup window.
func (w *firewall) contribute(ctx context.Context, st ofctrl.State, now time.Time) bool {
	if w.ledger.unproven {
		if !st.Ready {
			return false // which ids are still true is known by the switch alone
		}
		if w.ledger.doubt(!w.sw.Has(entryKey()), w.seen.has) {
			if err := w.begin(); err != nil {
				w.failed(w.e, now, err)
				return false
			}
			w.setWorkloads()
		}
	}
	w.windows(ctx, st, now)
	w.tendGrace(now)
	w.noteLimit()
	w.tendStrays(ctx, st.Ready, now)
	w.tendEndings(st, now)
	w.compile(now)
	w.held = w.fw.Held()
	if len(w.held) > 0 && w.e.await(ctx, w.ledger, now) {
		return false
	}
	return w.takeOver(st, now) && w.failMode()
}

// failMode reports whether ovs-vswitchd has the fail mode that is desired. Changing it wipes the flow tables (ovs-vswitchd.conf.db(5))
// and the meters, so it goes first. That it is in the database does not mean that ovs-vswitchd has done so: meters and flows that come
// in between may be lost. The topology's wake-up brings us back.
func (w *firewall) failMode() bool {
	topo := w.e.topo
	if topo.Bridges[w.cfg.Name].FailMode != w.cfg.FailMode {
		w.wipe = notYet
		return false
	}
	if w.wipe == notYet {
		w.wipe = topo.NextCfg
	}
	return topo.CurCfg >= min(w.wipe, topo.NextCfg)
}

// compile brings the firewall's outcome into what is desired. Where that uproots connections, or somebody arrives with some, they are
// taken up.
func (w *firewall) compile(now time.Time) {
	if uprooted, arrived := w.compileOnce(now); w.e.opt.PickupWindow > 0 && (uprooted || len(arrived) > 0) {
		if uprooted {
			w.openPickup(now, whyForwards)
		}
		w.openArrivals(now, arrived)
		w.compileOnce(now)
	}
	if marks := w.ledger.marks(); !slices.Equal(marks, w.marks) && !w.canWait(marks, now) {
		w.marks, w.sheets = marks, w.sheets.with(marks)
		w.want(map[string][]flow.Flow{ownerMarks: w.sheets.flows()})
	}
}

// canWait reports whether nothing but the removal of marks is to be done. That goes along with the next change, or comes after marksFor:
// a mark too many costs nothing, and a bundle of its own would be in the way of the next change.
func (w *firewall) canWait(marks []uint64, now time.Time) bool {
	more := slices.ContainsFunc(marks, func(m uint64) bool { _, there := slices.BinarySearch(w.marks, m); return !there })
	if more || len(w.owners) > 0 || !w.marksUntil.IsZero() && now.After(w.marksUntil) {
		w.marksUntil = time.Time{}
		return false
	}
	if w.marksUntil.IsZero() {
		w.marksUntil = now.Add(marksFor)
	}
	return true
}

// marksFor is for how long a mark may stay that is not needed any more.
const marksFor = time.Second

func (w *firewall) compileOnce(now time.Time) (uprooted bool, arrived []string) {
	ch := w.fw.Compile()
	w.numbers, w.usage = w.numbers.with(ch.Assignments), w.fw.Usage()
	for n, sets := range ch.Addresses {
		if sets == nil {
			w.sets = w.sets.Delete(n)
		} else {
			w.sets = w.sets.Set(n, sets)
		}
	}
	if ch.Services != nil {
		w.services = ch.Services
	}
	judged := w.fw.Judged()
	w.judged.Store(&judged)
	w.publishRules(ch.Names)
	w.ledger.change(ch.Assignments)
	for key := range ch.Assignments.Endpoints {
		w.renamed[key] = struct{}{}
	}
	w.meters = ch.Meters
	w.wantEnding(ch, now)
	if w.compiled == nil {
		w.compiled = ch.Policies
	} else {
		maps.Copy(w.compiled, ch.Policies)
	}
	return ch.Uprooted, ch.Arrived
}

// before implements part: it takes stock of what the change touches, see takeStock.
func (w *firewall) before(ctx context.Context) {
	w.copiesThen = w.copies.Load() // no copy of a pipeline that is not installed can be among them
	w.takeStock(ctx)
}

// after implements part.
func (w *firewall) after(result ofctrl.Result, err error) {
	w.book.changedBy(err)
	if err != nil {
		return
	}
	var now metersSet
	for i, id := range logMeters {
		now[i] = w.sw.MeterSets(id)
	}
	switch some, all := now.since(w.meterSets); {
	case all:
		w.copiesBefore.Store(w.copiesThen)
		w.meterMade.Store(true)
	case some:
		w.meterAgain.Store(true)
	}
	w.meterSets = now
}

// settle implements part: what was compiled is installed.
func (w *firewall) settle() error {
	if w.placed.IsZero() {
		w.placed = time.Now()
	}
	w.settlePickups()
	w.name()
	for name, p := range w.compiled {
		if p == nil {
			w.policies = w.policies.Delete(name)
		} else {
			w.policies = w.policies.Set(name, p)
		}
	}
	w.compiled = nil
	w.inForce = &inForce{w.e.revision, w.e.resources, w.e.force, w.e.inventory}
	if len(w.held) > 0 {
		return fmt.Errorf("the numbers that were reserved are used up: flows of %s wait until others are; what takes access away is in force",
			some(w.held))
	}
	return nil
}

// rows adds what the wall wants of the database.
func (w *firewall) rows(d *ovsdb.Desired) {
	if !w.taken {
		return // the bridge keeps what it has
	}
	d.FailModes[w.cfg.Name] = w.cfg.FailMode
	d.TableNames[w.cfg.Name] = namesOfTables()
	d.TablePrefixes[w.cfg.Name] = tries
	w.zoneTimeouts(d)
}

// tries are the fields for which look-ups in the tables SPOOF, ADDRESS_SOURCE and ADDRESS_DESTINATION use tries: without them, the
// datapath's flows get as many bits of an address as the longest prefix anywhere in a table has, and each prefix length costs each first
// packet.
var tries = map[int][]string{201: {"ipv6_src", "nw_src"}, 214: {"ct_ipv6_src", "ct_nw_src"}, 215: {"ct_ipv6_dst", "ct_nw_dst"}}

// triesTaken says for which tables of a bridge somebody else has written other prefixes; they stay.
func triesTaken(br *vswitch.Bridge) (out []string) {
	for _, table := range slices.Sorted(maps.Keys(tries)) {
		if row, there := br.FlowTables[table]; there && !slices.Equal(row.Prefixes, tries[table]) {
			out = append(out, fmt.Sprintf("the prefixes of table %d are %q, as somebody else wrote, and not %q: first packets cost more where "+
				"rules have many addresses", table, strings.Join(row.Prefixes, ","), strings.Join(tries[table], ",")))
		}
	}
	return out
}

// namesOfTables are those of the tables that are tapwall's alone; table 0 is shared.
func namesOfTables() map[int]string {
	out := map[int]string{}
	for number, name := range pipeline.TableNames() {
		if number >= pipeline.TableFirst {
			out[int(number)] = name
		}
	}
	return out
}

// due reports whether the clock alone is a reason to look again.
func (w *firewall) due(now time.Time) bool {
	for _, at := range []time.Time{w.strays.next, w.pickups.next(), w.unstampedUntil, w.marksUntil} {
		if !at.IsZero() && now.After(at) {
			return true
		}
	}
	return w.endingsDue(now) || w.grace && !now.Before(w.graceUntil())
}

// unstampedFor is for how long after an upgrade connections may be found whose ends an earlier version did not write down.
const unstampedFor = 10 * time.Minute

// windows opens the pickup window, in which connections that are older than the installed flows are judged instead of dropped, when a
// connection finds the switch without our pipeline (first start, restart of the switch, wiped flows) or with one that somebody else put
// there, and closes it when the time is up.
// It does the same for connections that an earlier version committed, when it finds that version's pipeline.
func (w *firewall) windows(ctx context.Context, st ofctrl.State, now time.Time) {
	if st.Ready && (st.Epoch != w.epoch || st.Lost > 0) {
		switch there := w.sw.Has(entryKey()); {
		case !there && w.e.opt.PickupWindow > 0:
			w.openPickup(now, whyNoPipeline)
			w.placed = time.Time{}
		case there && st.Epoch != w.epoch && w.e.opt.PickupWindow > 0 && w.putBack(ctx, now):
			w.openPickup(now, whyPutBack)
			w.placed = time.Time{}
		case there && st.Epoch != w.epoch && (!w.sw.Has(pipeline.Stamps()) || w.sw.Has(pipeline.UnstampedFlow())):
			w.unstampedUntil = now.Add(unstampedFor)
			w.fw.SetUnstamped(true)
		}
		w.epoch = st.Epoch
	}
	switch waiting := w.e.topo.RestoreWait; {
	case !waiting && w.restoring && st.Ready && w.e.opt.PickupWindow > 0:
		w.openPickup(now, whyRestored) // what was held up begins now
		w.restoring = false
	case waiting:
		w.restoring = true
	}
	w.closePickups(now)
	if !w.unstampedUntil.IsZero() && !now.Before(w.unstampedUntil) {
		w.unstampedUntil = time.Time{}
		w.fw.SetUnstamped(false)
	}
}
