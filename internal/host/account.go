package host

import (
	"iter"
	"maps"
	"time"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/policy"
)

// counter is what flows counted.
type counter struct{ packets, bytes uint64 }

func (c counter) plus(d counter) counter { return counter{c.packets + d.packets, c.bytes + d.bytes} }

// since is what came behind an earlier reading. Who counts less than before has begun anew.
func (c counter) since(before counter) counter {
	if c.packets < before.packets || c.bytes < before.bytes {
		return c
	}
	return counter{c.packets - before.packets, c.bytes - before.bytes}
}

// without takes away what is not to count; left is what of that is still to come.
func (c counter) without(d counter) (rest, left counter) {
	now := counter{min(c.packets, d.packets), min(c.bytes, d.bytes)}
	return counter{c.packets - now.packets, c.bytes - now.bytes}, counter{d.packets - now.packets, d.bytes - now.bytes}
}

// unattributed is the name, in the place of a rule's or of a reason's, of what flows counted while it was not known for whom.
const unattributed = "unattributed"

// reading is one flow as the switch counted it.
type reading struct {
	place  flow.Key
	cookie flow.Cookie
	counter
	table uint8
	age   uint32 // milliseconds since it was made; the most that fits if it is older
}

// scope is a set of flows by what they count for.
type scope struct {
	all     bool
	cookies map[flow.Cookie]struct{}
}

func (s *scope) add(c flow.Cookie) {
	if s.cookies == nil {
		s.cookies = map[flow.Cookie]struct{}{}
	}
	s.cookies[c] = struct{}{}
}

// account turns readings of flow counters into totals that never go back: of rules, of the default deny of a policy in one direction,
// and (without a policy) of reasons to drop.
//
// Open vSwitch counts what its datapath passes along a cached flow up to half a second late, and when the flow tables have changed
// meanwhile, it counts those packets for the flows that would decide about them now: 400 packets that were delivered become 400 that a
// new deny counts (revalidate_ukey in ofproto-dpif-upcall.c). So what the flows that a change touches count until the caches have
// followed it is nobody's: it is added up under the name unattributed.
//
// Its methods are for one goroutine at a time, and must come in the order in which the switch did things.
type account struct {
	// subjects says whom a cookie counts for; a default deny counts for each policy that isolates its endpoint.
	subjects func(flow.Cookie) []policy.RuleRef
	last     map[flow.Key]reading // by place; only flows that have counted anything
	totals   map[policy.RuleRef]counter
	hits     map[policy.RuleRef]*hit            // of rules that there are
	rulesOf  map[string]map[policy.RuleRef]bool // which these are, by policy
	clock    func() time.Time
	probes   map[flow.Cookie]counter // what probes made flows count, and was not read yet

	turn  uint64                 // number of the last change
	doubt map[flow.Cookie]uint64 // the last change that touched it, if the caches have not followed that
	every uint64                 // the last change that touched everything, likewise; 0 = none
}

func newAccount(subjects func(flow.Cookie) []policy.RuleRef) account {
	return account{subjects: subjects, last: map[flow.Key]reading{}, totals: map[policy.RuleRef]counter{}, hits: map[policy.RuleRef]*hit{},
		rulesOf: map[string]map[policy.RuleRef]bool{}, clock: time.Now, probes: map[flow.Cookie]counter{},
		doubt: map[flow.Cookie]uint64{}}
}

// read takes a reading of some flows, or of the whole switch.
func (a *account) read(flows []reading, whole bool) {
	last, now := a.last, a.clock()
	if whole {
		a.last = make(map[flow.Key]reading, len(flows)) // what is not there has no past
	}
	for _, f := range flows {
		before := last[f.place]
		if before.cookie != f.cookie {
			before = reading{}
		}
		a.last[f.place] = f
		a.credit(f.cookie, f.table, f.since(before.counter), now)
	}
}

func (a *account) credit(c flow.Cookie, table uint8, n counter, now time.Time) {
	if p, there := a.probes[c]; there {
		n, a.probes[c] = n.without(p)
		if a.probes[c] == (counter{}) {
			delete(a.probes, c)
		}
	}
	if n == (counter{}) {
		return
	}
	_, doubtful := a.doubt[c]
	for _, ref := range a.subjects(c) {
		if doubtful || a.every > 0 {
			a.perhaps(ref, now)
			ref.Rule = unattributedOf(ref)
		} else {
			a.met(ref, table, n.packets, now)
		}
		a.totals[ref] = a.totals[ref].plus(n)
	}
}

// probe notes that a packet that nobody sent has met flows with these cookies: when it is read, it does not count.
func (a *account) probe(cookies []flow.Cookie, bytes uint64) {
	for _, c := range cookies {
		if counts(c) {
			a.probes[c] = a.probes[c].plus(counter{1, bytes})
		}
	}
}

// unattributedOf is the name beside a subject under which its doubtful packets stand: in parentheses, like those of defaults, where a
// rule might bear the plain one.
func unattributedOf(ref policy.RuleRef) string {
	if ref.Policy == "" {
		return unattributed
	}
	return "(" + unattributed + ")"
}

// change notes that flows have changed: those that count for touched may count what others passed, and what counted in the places is gone.
func (a *account) change(touched scope, places iter.Seq[flow.Key]) {
	if touched.all || len(touched.cookies) > 0 {
		a.turn++
	}
	if touched.all {
		a.every = a.turn
		clear(a.probes)
	}
	for c := range touched.cookies {
		a.doubt[c] = a.turn
		delete(a.probes, c)
	}
	if len(a.last) > 0 {
		for p := range places {
			delete(a.last, p)
		}
	}
}

// open is what is in doubt.
func (a *account) open() scope {
	s := scope{all: a.every > 0}
	for c := range a.doubt {
		s.add(c)
	}
	return s
}

// follow notes that the caches have followed the changes up to turn, and that everything in doubt has been read since.
func (a *account) follow(turn uint64) {
	maps.DeleteFunc(a.doubt, func(_ flow.Cookie, since uint64) bool { return since <= turn })
	if a.every <= turn {
		a.every = 0
	}
}

// forget keeps the totals from growing without end as names come and go: those that keep does not want go when there are too many.
func (a *account) forget(keep func(policy.RuleRef) bool) {
	if len(a.totals) > maxTotals {
		maps.DeleteFunc(a.totals, func(ref policy.RuleRef, _ counter) bool { return !keep(ref) })
	}
}

// maxTotals is how many totals are kept before those of rules that are gone are forgotten: about 10 MB.
const maxTotals = 1 << 16
