package ofctrl

import (
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// presence says what is installed in one place of the flow tables.
type presence uint8

const (
	absent   presence = iota
	ours              // a flow with our cookie
	foreign           // a flow with another cookie, to be left alone
	intruder          // a flow with another cookie in a table that is ours alone
	expired           // our flow was there and went by its own timeout, as desired
)

// entry is one place of the flow tables: what is desired there and what is installed. It holds no pointers, so that a
// large table costs the garbage collector nothing.
type entry struct {
	key    key
	want   content
	have   content // valid iff there is ours
	owner  uint32  // of the desired flow; 0 = none is desired
	index  uint32  // of the desired flow among its owner's
	there  presence
	seen   uint8 // the read-back that saw the installed flow last
	queued bool  // the entry is in table.queue
	// coming: it is dirty because of the Apply under way, which is going to change that.
	coming bool
	// missed: it was dirty and not coming before its owner was replaced.
	missed bool
}

// dirty reports whether what is installed is not what is desired.
func (e *entry) dirty() bool {
	if e.owner == 0 {
		return e.there == ours || e.there == intruder
	}
	switch e.there {
	case ours:
		return e.want != e.have
	case expired:
		return false
	}
	return true
}

// empty reports whether the entry tells nothing.
func (e *entry) empty() bool {
	return e.owner == 0 && (e.there == absent || e.there == expired) && !e.queued
}

// slot is the number of an entry. It is that of another one once the entry is empty.
type slot uint32

// owner is what the flows of one owner are known by.
type owner struct {
	id    uint32
	name  string
	flows []flow.Flow
	slots []slot // of flows, in order; shorter only while flows are being added
	aside bool   // not to be sent: the switch refused a flow
}

type ref struct{ owner, index uint32 }

// table holds what is desired and what is installed, by place. The places where the two differ are its dirty ones; they are
// known at any time, so that a change costs what it touches. It is not safe for concurrent use.
type table struct {
	digester
	index   map[key]slot
	entries []entry
	free    []slot

	owners map[string]*owner
	byID   map[uint32]*owner
	lastID uint32
	// rivals are further owners that want the same flow in the same place as the entry's owner.
	rivals map[slot][]ref
	// strays are installed flows of ours that nobody desires, for their matches; they have no actions.
	strays map[slot]flow.Flow
	// queue holds at least all dirty entries, in the order in which they became so.
	queue []slot

	// own are the tables that are ours alone. If there are any, we take the place of a foreign flow in any other table, too,
	// when we desire one there, and the following are kept.
	own Tables
	// others are foreign flows in our own tables and in table 0, where every packet starts.
	others map[slot]flow.Flow
	// opaque are flows in those tables whose place is not known, because they hold fields or actions unknown to this version:
	// ours by cookie or not. They are no entries.
	opaque map[opaque]flow.Flow
	// muted are meters under which flows copy nothing, because the switch refuses the meter.
	muted map[uint32]bool

	// ordering: what becomes dirty now does so because of the Apply under way.
	ordering bool

	nDesired, nOurs, nForeign, nDirty, nBlocked int
	nComing                                     int // of nDirty
	generation                                  uint8
}

// opaque names the flows of one table and cookie, which is how they can be deleted without knowing their matches.
type opaque struct {
	table  uint8
	cookie flow.Cookie
}

func newTable(own Tables) *table {
	return &table{
		digester: newDigester(), index: map[key]slot{}, owners: map[string]*owner{}, byID: map[uint32]*owner{},
		rivals: map[slot][]ref{}, strays: map[slot]flow.Flow{}, own: own, others: map[slot]flow.Flow{}, opaque: map[opaque]flow.Flow{},
	}
}

// watched reports whether foreign flows of table id are looked at one by one.
func (t *table) watched(id uint8) bool { return t.own.Has(id) || id == 0 && t.own != (Tables{}) }

// blocked reports whether a desired flow has to stay away because of a foreign one.
func (t *table) blocked(e *entry) bool {
	return e.owner != 0 && e.there == foreign && t.own == (Tables{})
}

// reserve prepares for n more entries, if that saves growing step by step.
func (t *table) reserve(n int) {
	if len(t.index) == 0 && n > 1024 {
		t.index = make(map[key]slot, n)
		t.entries, t.free = make([]entry, 0, n), nil
	}
}

// place returns the slot of k, which is a new empty one if nothing is known of k. The caller must put something there.
func (t *table) place(k key) slot {
	if s, ok := t.index[k]; ok {
		return s
	}
	var s slot
	if n := len(t.free); n > 0 {
		s, t.free = t.free[n-1], t.free[:n-1]
	} else {
		s = slot(len(t.entries))
		t.entries = append(t.entries, entry{})
	}
	t.entries[s] = entry{key: k}
	t.index[k] = s
	return s
}

// get returns what is known of k.
func (t *table) get(k key) entry {
	if s, ok := t.index[k]; ok {
		return t.entries[s]
	}
	return entry{}
}

// count adds e's part in the table's figures, n times.
func (t *table) count(e *entry, n int) {
	if e.owner != 0 {
		t.nDesired += n
	}
	switch e.there {
	case ours:
		t.nOurs += n
	case foreign, intruder:
		t.nForeign += n
		if t.blocked(e) {
			t.nBlocked += n
		}
	}
	if e.dirty() {
		t.nDirty += n
	}
	if e.coming {
		t.nComing += n
	}
}

// mark brings e.coming up to date after a change of e, which was dirty or not before.
func (t *table) mark(e *entry, wasDirty bool) {
	e.coming = e.dirty() && (e.coming || t.ordering && !wasDirty && !e.missed)
}

// arrived ends the Apply under way: what is dirty still is missing.
func (t *table) arrived() {
	if t.nComing > 0 {
		t.eachDirty(func(_ slot, e *entry) { e.coming = false })
		t.nComing = 0
	}
}

// put makes e the entry of s.
func (t *table) put(s slot, e entry) {
	old := &t.entries[s]
	t.count(old, -1)
	e.coming = old.coming
	t.mark(&e, old.dirty())
	e.missed = false
	t.count(&e, 1)
	e.queued = old.queued
	if !e.queued && e.dirty() {
		e.queued = true
		t.queue = append(t.queue, s)
	}
	if len(t.strays) > 0 && (e.owner != 0 || e.there != ours) {
		delete(t.strays, s)
	}
	if len(t.others) > 0 && e.there != foreign && e.there != intruder {
		delete(t.others, s)
	}
	*old = e
	t.forget(s)
}

// forget frees s if it is empty.
func (t *table) forget(s slot) {
	if e := &t.entries[s]; e.empty() {
		delete(t.index, e.key)
		*e = entry{}
		t.free = append(t.free, s)
	}
}

// eachDirty calls visit for each dirty entry, in the order in which they became so. visit must not change the table.
func (t *table) eachDirty(visit func(slot, *entry)) {
	kept := t.queue[:0]
	for _, s := range t.queue {
		e := &t.entries[s]
		if e.dirty() {
			kept = append(kept, s)
			visit(s, e)
			continue
		}
		e.queued = false
		t.forget(s)
	}
	t.queue = kept
	if cap(t.queue) > 1024 && len(t.queue) < cap(t.queue)/8 {
		t.queue = slices.Clone(t.queue)
	}
}

// installed notes that the switch holds f. known says that all of f is known; otherwise its content counts as wrong.
func (t *table) installed(f *flow.Flow, isOurs, known bool) error {
	k, c, err := t.digest(f)
	if err != nil {
		return err
	}
	s := t.place(k)
	e := t.entries[s]
	e.seen, e.there, e.have = t.generation, foreign, content{}
	switch {
	case isOurs:
		e.there = ours
		if known {
			e.have = c
		}
	case t.own.Has(f.Table):
		e.there = intruder
	}
	t.put(s, e)
	if !isOurs && t.watched(f.Table) {
		t.others[s] = *f
	}
	if isOurs && e.owner == 0 {
		t.strays[s] = stray(f)
	}
	return nil
}

// stray is as much of f as a delete needs and a look at whose it is.
func stray(f *flow.Flow) flow.Flow {
	return flow.Flow{Table: f.Table, Priority: f.Priority, Cookie: f.Cookie, Match: f.Match}
}

// beginReadBack and endReadBack enclose calls of installed for everything that the switch holds; what was not seen in
// between is not there.
func (t *table) beginReadBack() {
	t.generation++
	clear(t.opaque)
}

func (t *table) endReadBack() {
	for s := range t.entries {
		if e := t.entries[s]; e.seen != t.generation && e.there != absent && e.there != expired {
			e.there, e.have = absent, content{}
			t.put(slot(s), e)
		}
	}
}
