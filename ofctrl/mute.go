package ofctrl

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// copies reports whether f copies packets under one of the meters.
func copies(f *flow.Flow, ids map[uint32]bool) bool {
	return slices.ContainsFunc(f.Actions, func(a flow.Action) bool {
		c, ok := a.(flow.Controller)
		return ok && ids[c.MeterID]
	})
}

// wire returns f as it is to be installed: without the copies under meters that are refused.
func (t *table) wire(f *flow.Flow) *flow.Flow {
	if len(t.muted) == 0 || !copies(f, t.muted) {
		return f
	}
	quiet := *f
	quiet.Actions = slices.DeleteFunc(slices.Clone(f.Actions), func(a flow.Action) bool {
		c, ok := a.(flow.Controller)
		return ok && t.muted[c.MeterID]
	})
	return &quiet
}

// mute sets the meters under which nothing is to be copied.
func (t *table) mute(ids map[uint32]bool) {
	if maps.Equal(ids, t.muted) {
		return
	}
	turned := maps.Clone(ids)
	for id := range t.muted {
		turned[id] = !turned[id]
	}
	t.muted = ids
	t.eachCopying(turned, func(e *entry, f *flow.Flow) {
		_, c, err := t.digest(t.wire(f))
		if err != nil {
			panic(fmt.Sprintf("ofctrl: %s cannot be encoded without its copies: %v", f, err))
		}
		e.want = c
	})
}

// resend has the desired flows that copy under a meter installed anew.
func (t *table) resend(id uint32) {
	t.eachCopying(map[uint32]bool{id: true}, func(*entry, *flow.Flow) {})
}

// eachCopying calls change for the entries of the desired flows that copy under the meters, which then are to be installed anew: as adds,
// so that their counters begin where those of the meter do.
func (t *table) eachCopying(ids map[uint32]bool, change func(*entry, *flow.Flow)) {
	for _, o := range t.owners {
		for i, at := range o.slots {
			if f := &o.flows[i]; copies(f, ids) {
				e := t.entries[at]
				change(&e, f)
				e.have = content{}
				t.put(at, e)
			}
		}
	}
}
