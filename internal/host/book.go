package host

import (
	"context"
	"errors"
	"iter"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

const (
	// statsAge is how old counters may be that a status shows. OVS itself brings them up to date about twice a second.
	statsAge = 500 * time.Millisecond
	// A reading ahead of a bundle is of up to so many rules, because the switch takes 50 messages in a round of its main
	// loop, and the bundle is to be among them. If the change touches everything, which ports do, it is of up to so many flows: some
	// milliseconds.
	maxRulesAhead, maxFlowsAhead = 20, 1000
)

// book keeps the account of a bridge by name, also while there is no such bridge: a counter does not go back because a bridge is made anew.
type book struct {
	kick chan struct{} // something is in doubt
	// settled: nothing is any more, so what copies there are can be looked at.
	settled chan struct{}

	mu      sync.Mutex
	account account
	names   subjects
	named   bool      // names are those of what is installed
	first   []reading // what was read back before
	part    []reading // what is being read back
	// earlierHits is what an earlier process knew of hits, until it is taken up.
	earlierHits map[string]hit
	touching    scope // what the next bundle touches
	// followed is the last change that the caches have followed; for done see progress.
	followed, done uint64
	before         ofctrl.Counters // of earlier bridges of this name; those that metrics show

	turn        sync.Mutex // held while the switch is asked for a status, so that many readers ask once
	at, dropsAt time.Time  // guarded by turn

	meters mirrorMeters // of mirrors, on a tap bridge

	lostCopies atomic.Uint64 // that may or may not be lost, see watchLosses
	answers    answerCounters
	claims     claimCounters
}

func newBook() *book {
	k := &book{kick: make(chan struct{}, 1), settled: make(chan struct{}, 1), names: newSubjects()}
	k.account = newAccount(k.names.of)
	return k
}

// reopen prepares the book for a bridge of its name that has appeared.
func (k *book) reopen() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.names = newSubjects()
	k.account.subjects = k.names.of
	k.named, k.first, k.part, k.touching = false, nil, nil, scope{}
	clear(k.account.last)
	clear(k.account.probes)
}

// use has lookup say what ids of default denies stand for.
func (k *book) use(lookup func(id uint32) (wall.RuleInfo, bool)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.names.lookup = lookup
}

// readingOf is f's part in the account.
func readingOf(f *ofp.FlowStats) (reading, bool) {
	if f.Stats.Packets == 0 || f.Err != nil || !counts(f.Cookie) {
		return reading{}, false
	}
	age := uint64(f.Stats.DurationSec)*1000 + uint64(f.Stats.DurationNsec)/1e6
	return reading{place: f.Key(), table: f.Table, cookie: f.Cookie, counter: counter{f.Stats.Packets, f.Stats.Bytes},
		age: uint32(min(age, math.MaxUint32))}, true
}

// readBack takes what a connection begins with. At the start of the process it waits until it is known what the ids stand for.
func (k *book) readBack(f *ofp.FlowStats) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f != nil {
		if r, ok := readingOf(f); ok {
			k.part = append(k.part, r)
		}
		return
	}
	if k.named {
		k.account.read(k.part, true)
	} else {
		k.first = k.part
	}
	k.part = nil
}

// committed notes that a bundle is in force.
func (k *book) committed(changed iter.Seq[*flow.Flow]) {
	k.changed(func(yield func(flow.Key) bool) {
		for f := range changed {
			if !yield(f.Key()) {
				return
			}
		}
	})
}

func (k *book) changed(places iter.Seq[flow.Key]) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.account.change(k.touching, places)
	k.doubt()
}

// probed notes that a probe has met flows with these cookies.
func (k *book) probed(cookies []flow.Cookie, bytes uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.account.probe(cookies, bytes)
}

// none yields nothing.
func none(func(flow.Key) bool) {}

// doubt has followCaches look.
func (k *book) doubt() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// name takes over what is installed now.
func (w *firewall) name() {
	k, now := w.book, time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, ps := range w.compiled {
		p, _ := w.e.resources.get(policy.KindPolicy, name).(*policy.Policy)
		k.names.set(name, ps, p)
		k.account.begin(name, rulesOf(p), now)
	}
	if !k.named {
		k.named = true
		k.account.read(k.first, true)
		k.account.resume(k.earlierHits, now)
		k.first, k.earlierHits = nil, nil
	}
	k.account.forget(func(ref policy.RuleRef) bool {
		_, there := k.names.policies[ref.Policy]
		return there || ref.Policy == ""
	})
}

// takeStock looks at what the change to come touches: the flows that it deletes take with them what they have counted since they were
// last read. The switch gets the requests ahead of the bundle; nothing waits for the answers. A reading that would hold the bundle up is
// cut short: what of it stays has more that is unattributed, and what goes has counted for nobody since the last reading.
func (w *firewall) takeStock(ctx context.Context) {
	st := w.sw.State()
	if w.installedAt == 0 {
		w.name() // nothing has been attributed by other names
	}
	w.book.mu.Lock()
	t, going := w.touched()
	// What others have changed touches anything, and has done so already.
	spoilt := w.installedAt == 0 || st.Missing > 0 || st.Lost > 0
	t.all = t.all || spoilt
	w.book.touching = t
	w.book.mu.Unlock()
	ahead := scope{all: t.all}
	for c := range t.cookies {
		if len(going) == maxRulesAhead {
			break
		}
		going = append(going, c)
	}
	for _, c := range going {
		ahead.add(c)
	}
	nothing := !ahead.all && len(ahead.cookies) == 0
	if spoilt || nothing || t.all && st.OurFlows > maxFlowsAhead {
		return
	}
	if wait, err := w.askCounters(ctx, ahead); err == nil {
		w.e.tasks.Go(func() { _ = wait() })
	}
}

// judged are the reasons to drop that depend on policies; the others depend on ports, addresses and conntrack alone.
var judged = []pipeline.DropReason{pipeline.DropEgress, pipeline.DropIngress, pipeline.DropUndecided, pipeline.DropStaleRelated,
	pipeline.DropWrongEnd, pipeline.DropNotTakenUp}

// touched is what the change to come touches, and which rules go with them, up to maxRulesAhead. A change of how packets are classified
// touches everything.
func (w *firewall) touched() (t scope, going []flow.Cookie) {
	var changed scope
	names := &w.book.names
	endpoints := map[string]uint16{} // with their classes
	for owner, flows := range w.owners {
		name, isPolicy := wall.PolicyOf(owner)
		key, isEndpoint := wall.EndpointOf(owner)
		class, isClass := wall.ClassOf(owner)
		// No packet comes to marks, and of an endpoint something else may have changed than its flows: an address was learned of it.
		if owner == ownerMarks || isEndpoint && slices.EqualFunc(w.sw.Desired(owner), flows, flow.Flow.Equal) {
			continue
		}
		if len(changed.cookies) == 0 {
			for _, r := range judged {
				changed.add(r.Cookie())
			}
		}
		switch {
		case isClass:
			for key, a := range each(w.numbers.endpoints) {
				if a.Class == class {
					endpoints[key] = class
				}
			}
		case isPolicy:
			old := names.policies[name]
			keys, stay := old.endpoints, map[uint32]bool{}
			if ps := w.compiled[name]; ps != nil {
				keys = slices.Concat(keys, ps.Endpoints)
				for _, r := range ps.Rules {
					stay[r.ID] = true
					changed.add(pipeline.NewCookie(pipeline.CookieRule, r.ID))
				}
			}
			for _, id := range old.ids {
				c := pipeline.NewCookie(pipeline.CookieRule, id)
				if changed.add(c); !stay[id] && len(going) < maxRulesAhead {
					going = append(going, c)
				}
			}
			for _, key := range keys {
				endpoints[key] = lookUp(w.numbers.endpoints, key).Class
			}
		case isEndpoint && slices.EqualFunc(classifying(w.sw.Desired(owner)), classifying(flows), flow.Flow.Equal):
			endpoints[key] = lookUp(w.numbers.endpoints, key).Class
		default:
			return scope{all: true}, nil
		}
		if len(changed.cookies) > maxTouched {
			return scope{all: true}, nil
		}
	}
	return names.touching(changed, endpoints), going
}

// classifying are the flows of an endpoint that say who a packet is from and for.
func classifying(flows []flow.Flow) []flow.Flow {
	var out []flow.Flow
	for _, f := range flows {
		if kind, _, _ := pipeline.ParseCookie(f.Cookie); kind != pipeline.CookieDefault {
			out = append(out, f)
		}
	}
	return out
}

// askCounters asks for a reading of what t counts, which goes into the account on the reader; see [ofctrl.Switch.AskFlows].
func (l *link) askCounters(ctx context.Context, t scope) (wait func() error, err error) {
	filters := []ofp.FlowFilter{{Table: ofp.AllTables, Cookie: uint64(pipeline.CookieMagic),
		CookieMask: uint64(pipeline.CookieMagicMask | uncounted)}}
	if !t.all && len(t.cookies) > 0 {
		filters = filters[:0]
		for c := range t.cookies {
			filters = append(filters, ofp.FlowFilter{Table: ofp.AllTables, Cookie: uint64(c), CookieMask: ^uint64(0)})
		}
	}
	k := l.book
	var flows []reading
	return l.sw.AskFlows(ctx, filters, func(f *ofp.FlowStats) {
		if r, ok := readingOf(f); ok {
			flows = append(flows, r)
		}
	}, func() {
		lost := l.cfg.Mode != made && l.sw.State().Lost > 0 // copies are counted for their mirror in any case
		k.mu.Lock()
		defer k.mu.Unlock()
		if lost && k.account.every == 0 {
			// Somebody has changed our flows, and it is not put right yet.
			k.account.change(scope{all: true}, none)
			k.doubt()
		}
		k.account.read(flows, t.all)
		flows = flows[:0]
	})
}

func (l *link) readCounters(ctx context.Context, t scope) error {
	wait, err := l.askCounters(ctx, t)
	if err != nil {
		return err
	}
	return wait()
}

// changedBy ends what firewall.takeStock began: other bundles touch nothing. Of one with an unknown outcome nobody knows when it comes
// into force.
func (k *book) changedBy(err error) {
	if errors.Is(err, ofctrl.ErrUnknownOutcome) {
		k.mu.Lock()
		k.touching.all = true
		k.mu.Unlock()
		k.changed(none)
		return
	}
	k.mu.Lock()
	k.touching = scope{}
	k.mu.Unlock()
}

// refresh reads the counters of the bridge, unless that was done a moment ago.
func (l *link) refresh(ctx context.Context) {
	k := l.book
	k.turn.Lock()
	defer k.turn.Unlock()
	if !k.isNamed() || time.Since(k.at) < statsAge {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_ = l.readCounters(ctx, scope{all: true}) // if it fails, what there is stays; the status says that the bridge is not connected
	k.at = time.Now()
}

func (k *book) isNamed() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.named
}

// refreshDrops reads the counters of what is dropped, by reason: a few flows, that the switch finds by their cookies.
func (l *link) refreshDrops(ctx context.Context) {
	k := l.book
	k.turn.Lock()
	defer k.turn.Unlock()
	if !k.isNamed() || time.Since(k.at) < statsAge || time.Since(k.dropsAt) < statsAge {
		return
	}
	var drops scope
	for _, r := range pipeline.DropReasons() {
		drops.add(r.Cookie())
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_ = l.readCounters(ctx, drops)
	k.dropsAt = time.Now()
}

// close takes over the counters of a connection that ends for good, its bridge being gone.
func (k *book) close(last ofctrl.Counters) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.before.FlowModsSent += last.FlowModsSent
	k.before.LostFlows += last.LostFlows
	k.before.LostMeters += last.LostMeters
	k.before.ForeignRemoved += last.ForeignRemoved
}

// earlier returns what earlier bridges of the name counted.
func (k *book) earlier() ofctrl.Counters {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.before
}

func (k *book) total(ref policy.RuleRef) counter {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.account.totals[ref]
}

// drops returns the packets dropped, by reason; nothing for a guest bridge.
func (k *book) drops() map[string]uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.names.lookup == nil {
		return nil
	}
	out := map[string]uint64{}
	for _, r := range pipeline.DropReasons() {
		out[r.String()] = 0
	}
	for reason := range out {
		out[reason] = k.account.totals[policy.RuleRef{Rule: reason}].packets
	}
	if n := k.account.totals[policy.RuleRef{Rule: unattributed}]; n.packets > 0 {
		out[unattributed] = n.packets
	}
	return out
}

// dropped is drops without the reasons that nothing was dropped for; nil = nothing was.
func (k *book) dropped() map[string]uint64 {
	out := k.drops()
	maps.DeleteFunc(out, func(_ string, n uint64) bool { return n == 0 })
	if len(out) == 0 {
		return nil
	}
	return out
}

// bookOf returns the book of a bridge.
func (e *Engine) bookOf(name string) *book {
	if e.books[name] == nil {
		e.books = maps.Clone(e.books) // readers have the other one
		e.books[name] = newBook()
		e.books[name].earlierHits = e.recallHits(name)
	}
	return e.books[name]
}
