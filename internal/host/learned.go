package host

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/learn"
	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// WarnAddressRefused is the code of warnings that an endpoint claims an address that it is not believed.
const WarnAddressRefused policy.Code = "ADDRESS_REFUSED"

const (
	// learnEvery is how often at most claims change what is known: flows change no more often for them, however many there are.
	learnEvery = time.Second
	// refusedFor is for how long a refusal is told of after the last claim, maxRefused bounds of how many, and maxRefusedOfOne of one
	// endpoint.
	refusedFor      = 10 * time.Minute
	maxRefused      = 256
	maxRefusedOfOne = 8
)

// learning is what a host has learned of the addresses of its endpoints. The loop owns it.
type learning struct {
	on      bool
	limits  learn.Limits
	table   *learn.Table
	next    time.Time // before that no claim is looked at
	expires time.Time // when the first address is too old; zero = none is known
	refused map[disbelief]disbelieved
	// known are the addresses, by workload, as they are shown; it is replaced with every change. host is whose they are.
	known map[string][]policy.LearnedAddress
	host  string
	kept  keptAddresses
}

// disbelief is an address that a workload is not believed; the address is invalid where there are too many of them.
type disbelief struct {
	key     string
	address netip.Addr
}

type disbelieved struct {
	by string // who has it, in words
	at time.Time
}

func newLearning(l *learn.Limits) learning {
	if l == nil {
		return learning{}
	}
	return learning{on: true, limits: *l, table: learn.NewTable(*l), refused: map[disbelief]disbelieved{}}
}

// learningDue reports whether the clock is a reason to look.
func (e *Engine) learningDue(now time.Time) bool {
	l := &e.learning
	if !l.on || now.Before(l.next) {
		return false
	}
	if !l.expires.IsZero() && !now.Before(l.expires) {
		return true
	}
	for _, w := range e.walls {
		if w.spoken.waiting() {
			return true
		}
	}
	return false
}

// learn takes what machines have said of their addresses into account, and forgets what is not so any more. That somebody is gone, or
// declares an address, counts at once.
func (e *Engine) learn(now time.Time) {
	l := &e.learning
	if !l.on {
		return
	}
	found, listens := e.stale.topology || e.stale.endpoints, e.learningDue(now)
	if !found && !listens {
		return
	}
	world := learn.NewWorld(e.inventory.Workloads, *e.self.Load())
	forgotten := l.table.Tend(world, func(bridge string) bool { return e.walls[bridge] != nil }, now)
	told := map[string]*lesson{}
	for i := range forgotten {
		l.forget(&forgotten[i], lessonOf(told, forgotten[i].Bridge), now)
	}
	heard := 0
	if listens {
		l.next = now.Add(learnEvery)
		for name, w := range e.walls {
			claims := w.spoken.take(now)
			heard += len(claims)
			keys := w.keysOf(claims)
			for _, c := range claims {
				key, known := keys[c.endpoint]
				if c.endpoint != 0 && !known {
					continue // it is gone
				}
				out := l.table.Note(world, key, name, c.vlan, c.Claim, now)
				w.book.heard(string(out.Reason))
				l.note(out, c.Source, lessonOf(told, name), now)
			}
		}
	}
	maps.DeleteFunc(l.refused, func(_ disbelief, r disbelieved) bool { return now.Sub(r.at) > refusedFor })
	for name, x := range told {
		if w := e.walls[name]; w != nil {
			x.tell(e, w)
		}
	}
	l.expires = l.table.Next()
	if heard == 0 && len(forgotten) == 0 && l.known != nil && l.host == e.topo.Host {
		return
	}
	l.host = e.topo.Host
	entries := l.table.Entries()
	l.known = shown(entries)
	by := learn.Addresses(entries)
	changed := !e.inventory.Learned(e.topo.Host, by)
	if changed {
		e.inventory = e.inventory.Learn(e.topo.Host, by)
		e.stale.learned = true
	}
	l.kept.publish(entries, changed, now)
}

// keysOf finds the workloads that made claims, by the first of their ids.
func (w *firewall) keysOf(claims []claim) map[uint32]string {
	if len(claims) == 0 {
		return nil
	}
	keys := map[uint32]string{}
	for key, a := range each(w.numbers.endpoints) {
		keys[pipeline.EndpointBase(a.ID)] = key
	}
	return keys
}

// lesson is what there is to tell of the addresses of a bridge.
type lesson struct{ learned, forgotten, refused []string }

func lessonOf(told map[string]*lesson, bridge string) *lesson {
	if told[bridge] == nil {
		told[bridge] = &lesson{}
	}
	return told[bridge]
}

// note tells of the outcome of a claim.
func (l *learning) note(out learn.Outcome, source learn.Source, told *lesson, now time.Time) {
	switch out.Reason {
	case learn.Learned:
		told.learned = append(told.learned, fmt.Sprintf("%s %s (%s)", out.Workload.Key, out.Address, source))
	case learn.Taken:
		l.refuse(disbelief{out.Workload.Key, out.Address}, out.By, told, now)
	case learn.Full:
		l.refuse(disbelief{key: out.Workload.Key}, "", told, now)
	}
}

func (l *learning) forget(f *learn.Forgotten, told *lesson, now time.Time) {
	told.forgotten = append(told.forgotten, fmt.Sprintf("%s %s", f.Key, f.Address))
	if f.By != "" {
		l.refuse(disbelief{f.Key, f.Address}, f.By, told, now)
	}
}

func (l *learning) refuse(x disbelief, by string, told *lesson, now time.Time) {
	old, known := l.refused[x]
	switch {
	case known:
	case len(l.refused) >= maxRefused || l.refusals(x.key) >= maxRefusedOfOne:
		return
	case x.address.IsValid():
		told.refused = append(told.refused, fmt.Sprintf("%s %s, which %s", x.key, x.address, by))
	default:
		told.refused = append(told.refused, x.key+": it has too many")
	}
	if known {
		by = old.by // a warning that changes with every claim says nothing
	}
	l.refused[x] = disbelieved{by, now}
}

// refusals counts those of a workload.
func (l *learning) refusals(key string) (n int) {
	for x := range l.refused {
		if x.key == key {
			n++
		}
	}
	return n
}

// tell records what was learned, forgotten and refused: an event of each sort, at most one a second.
func (x *lesson) tell(e *Engine, w *firewall) {
	for _, of := range []struct {
		action, one, many string
		objects           []string
	}{
		{event.ActionAddressLearned, "address was learned", "addresses were learned", x.learned},
		{event.ActionAddressForgotten, "address is not known any more", "addresses are not known any more", x.forgotten},
		{event.ActionAddressRefused, "address is claimed and not believed", "addresses are claimed and not believed", x.refused},
	} {
		n := len(of.objects)
		if n == 0 {
			continue
		}
		few := of.objects[:min(n, ofctrl.MaxObjects)]
		e.log.Info(counted(n, of.one, of.many), "bridge", w.cfg.Name, "objects", few)
		e.record(w.link, of.action, event.Notice{Message: counted(n, of.one, of.many), Count: int64(n), Objects: few})
	}
}

// shown are entries as statuses have them. They are in order.
func shown(entries []learn.Entry) map[string][]policy.LearnedAddress {
	out := map[string][]policy.LearnedAddress{}
	for i := range entries {
		x := &entries[i]
		out[x.Key] = append(out[x.Key], policy.LearnedAddress{Address: x.Address.String(), Source: string(x.Source), Since: x.Since,
			Seen: x.Seen, Until: x.Until})
	}
	return out
}

// learnWarnings tell of endpoints that claim addresses that they are not believed.
func (e *Engine) learnWarnings() (out []policy.Warning) {
	l := &e.learning
	for _, x := range slices.SortedFunc(maps.Keys(l.refused), func(a, b disbelief) int {
		if c := strings.Compare(a.key, b.key); c != 0 {
			return c
		}
		return a.address.Compare(b.address)
	}) {
		w := workload(e.inventory.Workloads, x.key)
		if w == nil {
			continue
		}
		text := fmt.Sprintf("port %s of bridge %s uses the address %s, which %s, so it is not learned: rules know the endpoint by it nowhere",
			w.Port, w.Bridge, x.address, l.refused[x].by)
		if !x.address.IsValid() {
			text = fmt.Sprintf("port %s of bridge %s uses more addresses than are learned of an endpoint (%d), or of a host (%d): rules know it by "+
				"the first of them", w.Port, w.Bridge, l.limits.PerEndpoint, l.limits.PerHost)
		}
		out = append(out, policy.Warning{Code: WarnAddressRefused, Endpoint: x.key, Message: text})
	}
	return out
}

// Learned are the addresses that were learned of a workload, by its key.
func (e *Engine) Learned(key string) []policy.LearnedAddress { return e.view.Load().learned[key] }

// learnedOn counts the addresses that were learned of the endpoints of a bridge.
func (v *view) learnedOn(bridge string) (n int) {
	for key, list := range v.learned {
		if w := workload(v.inventory.Workloads, key); w != nil && w.Bridge == bridge {
			n += len(list)
		}
	}
	return n
}

// claimCounters count claims by what became of them.
type claimCounters struct{ learned, seen, taken, full, outside, stranger, spoofed, declared, metered atomic.Uint64 }

// all returns the counters by the names that metrics give them.
func (c *claimCounters) all() map[string]*atomic.Uint64 {
	return map[string]*atomic.Uint64{"learned": &c.learned, "seen": &c.seen, "taken": &c.taken, "full": &c.full, "outside": &c.outside,
		"stranger": &c.stranger, "spoofed": &c.spoofed, "declared": &c.declared, "metered": &c.metered}
}

// heard counts a claim.
func (k *book) heard(outcome string) {
	if n := k.claims.all()[outcome]; n != nil {
		n.Add(1)
	}
}
