package ofctrl

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// presence says what is installed in one place of the flow tables.
type presence uint8

const (
	absent  presence = iota
	ours             // a flow with our cookie
	foreign          // a flow with another cookie
	expired          // our flow was there and went by its own timeout, as desired
)

// entry is one place of the flow tables: what is desired there and what is installed. It holds no pointers, so that a
// large table costs the garbage collector nothing.
type entry struct {
	owner uint32 // of the desired flow; 0 = none is desired
	index uint32 // of the desired flow among its owner's
	want  content
	have  content // valid iff there is ours
	there presence
	seen  uint8 // the read-back that saw the installed flow last
	// queued: the key is in table.queue.
	queued bool
}

func (e *entry) dirty() bool {
	if e.owner == 0 {
		return e.there == ours
	}
	switch e.there {
	case ours:
		return e.want != e.have
	case expired:
		return false
	}
	return true
}

// owner is what the flows of one owner are known by.
type owner struct {
	id    uint32
	name  string
	flows []flow.Flow
	keys  []key // of flows, in order; shorter only while flows are being added
}

type ref struct{ owner, index uint32 }

// table holds what is desired and what is installed, by place. The places where the two differ are its dirty ones; they are
// known at any time, so that a change costs what it touches. It is not safe for concurrent use.
type table struct {
	digester
	entries map[key]entry
	owners  map[string]*owner
	byID    map[uint32]*owner
	lastID  uint32
	// rivals are further owners that want the same flow in the same place as the entry's owner.
	rivals map[key][]ref
	// strays are installed flows of ours that nobody desires, for their matches; they have no actions.
	strays map[key]flow.Flow
	// queue holds at least all dirty keys, in the order in which they became so.
	queue []key

	nDesired, nOurs, nForeign, nDirty, nBlocked int
	generation                                  uint8
}

func newTable() *table {
	return &table{
		digester: newDigester(), entries: map[key]entry{}, owners: map[string]*owner{}, byID: map[uint32]*owner{},
		rivals: map[key][]ref{}, strays: map[key]flow.Flow{},
	}
}

// count adds e's part in the table's figures, n times.
func (t *table) count(e *entry, n int) {
	if e.owner != 0 {
		t.nDesired += n
	}
	switch e.there {
	case ours:
		t.nOurs += n
	case foreign:
		t.nForeign += n
		if e.owner != 0 {
			t.nBlocked += n
		}
	}
	if e.dirty() {
		t.nDirty += n
	}
}

// put makes e the entry of k.
func (t *table) put(k key, e entry) {
	if old, ok := t.entries[k]; ok {
		t.count(&old, -1)
		e.queued = old.queued
	}
	t.count(&e, 1)
	if e.dirty() && !e.queued {
		e.queued = true
		t.queue = append(t.queue, k)
	}
	if e.owner != 0 || e.there != ours {
		delete(t.strays, k)
	}
	if e.owner == 0 && (e.there == absent || e.there == expired) && !e.queued {
		delete(t.entries, k)
		return
	}
	t.entries[k] = e
}

// eachDirty calls visit for each dirty place, in the order in which they became so. visit must not change the table.
func (t *table) eachDirty(visit func(key, entry)) {
	kept := t.queue[:0]
	for _, k := range t.queue {
		e := t.entries[k]
		if e.dirty() {
			kept = append(kept, k)
			continue
		}
		e.queued = false
		if e.owner == 0 && (e.there == absent || e.there == expired) {
			delete(t.entries, k)
		} else {
			t.entries[k] = e
		}
	}
	t.queue = kept
	if cap(t.queue) > 1024 && len(t.queue) < cap(t.queue)/8 {
		t.queue = slices.Clone(t.queue)
	}
	for _, k := range t.queue {
		visit(k, t.entries[k])
	}
}

// desired returns the flow that e wants and its owner.
func (t *table) desired(e entry) (*owner, *flow.Flow) {
	o := t.byID[e.owner]
	return o, &o.flows[e.index]
}

// replace gives each named owner its new flows, and returns the flows they had. On an error nothing is changed. Errors are a
// *ConflictError, or match ErrInvalid and name the flow.
func (t *table) replace(update map[string][]flow.Flow) (old map[string][]flow.Flow, err error) {
	old = make(map[string][]flow.Flow, len(update))
	for name := range update {
		old[name] = nil
		if o := t.owners[name]; o != nil {
			old[name] = o.flows
		}
	}
	if err := t.set(update); err != nil {
		if err2 := t.set(old); err2 != nil {
			panic(fmt.Sprintf("ofctrl: flows that were desired before cannot be desired again: %v", err2))
		}
		return nil, err
	}
	return old, nil
}

func (t *table) set(update map[string][]flow.Flow) error {
	names := slices.Sorted(maps.Keys(update)) // so that a conflict is always told the same way
	gone := make([]owner, 0, len(names))
	for _, name := range names {
		if o := t.owners[name]; o != nil {
			gone = append(gone, *o)
			for i, k := range o.keys {
				t.unwant(k, ref{o.id, uint32(i)})
			}
			o.keys, o.flows = nil, nil
		}
	}
	var err error
	for _, name := range names {
		if err = t.want(name, update[name]); err != nil {
			break
		}
	}
	// What nobody took over is to go from the switch.
	for _, o := range gone {
		for i, k := range o.keys {
			e := t.entries[k]
			if e.owner != 0 {
				continue
			}
			t.put(k, e)
			if e.there == ours {
				t.strays[k] = stray(&o.flows[i])
			}
		}
	}
	for _, name := range names {
		if o := t.owners[name]; o != nil && len(o.flows) == 0 {
			delete(t.owners, name)
			delete(t.byID, o.id)
		}
	}
	return err
}

// stray is as much of f as a delete needs.
func stray(f *flow.Flow) flow.Flow {
	return flow.Flow{Table: f.Table, Priority: f.Priority, Match: f.Match}
}

// unwant withdraws one desired flow. The entry is left without bookkeeping of strays, which set does once it is known that
// nobody takes it over.
func (t *table) unwant(k key, r ref) {
	e := t.entries[k]
	if rs, ok := t.rivals[k]; ok {
		if e.owner == r.owner && e.index == r.index {
			e.owner, e.index = rs[0].owner, rs[0].index
			rs = rs[1:]
			t.entries[k] = e
		} else {
			rs = slices.DeleteFunc(rs, func(x ref) bool { return x == r })
		}
		if len(rs) == 0 {
			delete(t.rivals, k)
		} else {
			t.rivals[k] = rs
		}
		return
	}
	t.count(&e, -1)
	e.owner, e.index, e.want = 0, 0, content{}
	if e.there == expired {
		e.there = absent
	}
	t.count(&e, 1)
	t.entries[k] = e
}

// want adds the flows of an owner that has none.
func (t *table) want(name string, flows []flow.Flow) error {
	if len(flows) == 0 {
		return nil
	}
	o := t.owners[name]
	if o == nil {
		t.lastID++
		o = &owner{id: t.lastID, name: name}
		t.owners[name], t.byID[o.id] = o, o
	}
	o.flows, o.keys = flows, make([]key, 0, len(flows))
	for i := range flows {
		f := &flows[i]
		k, c, err := t.digest(f)
		if err != nil {
			return fmt.Errorf("%s of %s: %w: %w", f.String(), name, ErrInvalid, err)
		}
		e := t.entries[k]
		switch {
		case e.owner == 0:
			e.owner, e.index, e.want = o.id, uint32(i), c
			t.put(k, e)
		case e.want == c:
			t.rivals[k] = append(t.rivals[k], ref{o.id, uint32(i)})
		default:
			other, g := t.desired(e)
			return &ConflictError{Owner: other.name, Other: name, Flow: *g, OtherFlow: *f}
		}
		o.keys = append(o.keys, k)
	}
	return nil
}

// installed notes that the switch holds f. known says that all of f is known; otherwise its content counts as wrong.
func (t *table) installed(f *flow.Flow, isOurs, known bool) (key, error) {
	k, c, err := t.digest(f)
	if err != nil {
		return k, err
	}
	e := t.entries[k]
	e.seen = t.generation
	e.there = foreign
	if isOurs {
		e.there, e.have = ours, c
		if !known {
			e.have = content{}
		}
	}
	t.put(k, e)
	if isOurs && e.owner == 0 {
		t.strays[k] = stray(f)
	}
	return k, nil
}

// beginReadBack and endReadBack enclose calls of installed for everything that the switch holds; what was not seen in
// between is not there.
func (t *table) beginReadBack() { t.generation++ }

func (t *table) endReadBack() {
	for k, e := range t.entries {
		if e.seen != t.generation && (e.there == ours || e.there == foreign) {
			e.there, e.have = absent, content{}
			t.put(k, e)
		}
	}
}
