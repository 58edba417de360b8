package ofctrl

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// desired returns the flow that e wants, as it is to be installed, and its owner.
func (t *table) desired(e *entry) (*owner, *flow.Flow) {
	o := t.byID[e.owner]
	return o, t.wire(&o.flows[e.index])
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
		t.restore(old)
		return nil, err
	}
	return old, nil
}

// restore undoes a replace.
func (t *table) restore(old map[string][]flow.Flow) {
	if err := t.set(old); err != nil {
		panic(fmt.Sprintf("ofctrl: flows that were desired before cannot be desired again: %v", err))
	}
}

// giveBack gives an owner back what it had, but for places that others have now. What it was to have and is on the switch just so, it
// keeps: that had been another owner's, which has given it up, so nobody wants it to go.
func (t *table) giveBack(name string, old []flow.Flow) {
	o := t.owners[name]
	var flows []flow.Flow
	kept := map[slot]bool{}
	for i, s := range o.slots {
		if e := &t.entries[s]; e.there == ours && !e.dirty() {
			flows, kept[s] = append(flows, o.flows[i]), true
		}
	}
	for i := range old {
		k, c, err := t.digest(t.wire(&old[i]))
		if err != nil {
			panic(fmt.Sprintf("ofctrl: a flow that was desired before cannot be encoded: %v", err))
		}
		if s, ok := t.index[k]; ok {
			e := &t.entries[s]
			taken := e.owner != 0 && e.want != c && (e.owner != o.id || len(t.rivals[s]) > 0)
			if taken || kept[s] {
				continue
			}
		}
		flows = append(flows, old[i])
	}
	t.restore(map[string][]flow.Flow{name: flows})
}

func (t *table) set(update map[string][]flow.Flow) error {
	names := slices.Sorted(maps.Keys(update)) // so that a conflict is always told the same way
	gone := make([]owner, 0, len(names))
	for _, name := range names {
		if o := t.owners[name]; o != nil {
			gone = append(gone, *o)
			for i, s := range o.slots {
				t.unwant(s, ref{o.id, uint32(i)})
			}
			o.slots, o.flows, o.aside = nil, nil, false
		}
	}
	var err error
	for _, name := range names {
		if err = t.want(name, update[name]); err != nil {
			break
		}
	}
	// What nobody took over is to go from the switch. A slot may stand here twice, so it may have been freed by now.
	for _, o := range gone {
		for i, s := range o.slots {
			e := t.entries[s]
			if e.owner != 0 || e.key == (key{}) {
				continue
			}
			t.put(s, e)
			if e.there == ours {
				t.strays[s] = stray(&o.flows[i])
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

// unwant withdraws one desired flow. The entry stays, with its bookkeeping undone, until set knows whether somebody takes it
// over.
func (t *table) unwant(s slot, r ref) {
	e := &t.entries[s]
	if rs, ok := t.rivals[s]; ok {
		if e.owner == r.owner && e.index == r.index {
			e.owner, e.index = rs[0].owner, rs[0].index
			rs = rs[1:]
		} else {
			rs = slices.DeleteFunc(rs, func(x ref) bool { return x == r })
		}
		if len(rs) == 0 {
			delete(t.rivals, s)
		} else {
			t.rivals[s] = rs
		}
		return
	}
	t.count(e, -1)
	dirty := e.dirty()
	e.missed = dirty && !e.coming
	e.owner, e.index, e.want = 0, 0, content{}
	if e.there == expired {
		e.there = absent
	}
	t.mark(e, dirty)
	t.count(e, 1)
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
	t.reserve(len(flows))
	o.flows, o.slots = flows, make([]slot, 0, len(flows))
	for i := range flows {
		f := &flows[i]
		k, c, err := t.digest(t.wire(f))
		if err != nil {
			return fmt.Errorf("%s of %s: %w: %w", f.String(), name, ErrInvalid, err)
		}
		s := t.place(k)
		switch e := t.entries[s]; {
		case e.owner == 0:
			e.owner, e.index, e.want = o.id, uint32(i), c
			t.put(s, e)
		case e.want == c:
			t.rivals[s] = append(t.rivals[s], ref{o.id, uint32(i)})
		default:
			other, g := t.desired(&e)
			return &ConflictError{Owner: other.name, Other: name, Flow: *g, OtherFlow: *f}
		}
		o.slots = append(o.slots, s)
	}
	return nil
}
