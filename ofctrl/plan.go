package ofctrl

import (
	"cmp"
	"iter"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// change is one flow-mod of a bundle.
type change struct {
	key     key
	slot    slot // of key, unless it has been forgotten meanwhile
	command ofp.FlowModCommand
	owner   uint32
	flow    *flow.Flow
	foreign *flow.Flow // of somebody else, that this removes or replaces
}

// plan returns the flow-mods that turn what is installed into what is desired, in order: deletes first, so that a place is free
// before anything new is added, then adds, then changes of actions.
func (s *Switch) plan() []change {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adoptRenewal()
	some, passed := s.unsent()
	if !some && s.table.nOpaque() == 0 && !s.renewalDue {
		return nil
	}
	if passed || s.renewalDue {
		s.renew()
		s.renewalDue = false
	}
	changes := make([]change, 0, s.table.nDirty-s.table.nBlocked)
	s.table.eachDirty(func(at slot, e *entry) {
		c := change{key: e.key, slot: at, owner: e.owner}
		if f, ok := s.table.others[at]; ok {
			c.foreign = &f
		}
		switch {
		case e.owner == 0 && e.there == intruder:
			c.command, c.flow = ofp.FlowDeleteStrict, c.foreign
		case e.owner == 0:
			f := s.table.strays[at]
			f.Cookie = s.opts.Cookie
			c.command, c.flow = ofp.FlowDeleteStrict, &f
		case s.table.blocked(e) || s.table.byID[e.owner].aside:
			return
		default:
			_, c.flow = s.table.desired(e)
			c.command = ofp.FlowAdd
			switch {
			case e.there == ours && e.have.attrs == e.want.attrs:
				c.command = ofp.FlowModifyStrict
			case e.there == ours:
				// What it replaces meant something else, so it must not inherit the counters.
				f := *c.flow
				f.Flags |= flow.ResetCounts
				c.flow = &f
			case e.there == intruder:
				old := c
				old.command, old.flow, c.foreign = ofp.FlowDeleteStrict, old.foreign, nil
				changes = append(changes, old)
			}
		}
		changes = append(changes, c)
	})
	changes = s.unhide(changes)
	slices.SortFunc(changes, func(a, b change) int { return a.order(&b) })
	return changes
}

// unsent reports whether some flow differs from what is desired and can be sent, and whether one does in a table that packets pass.
func (s *Switch) unsent() (some, passed bool) {
	if s.table.nDirty == s.table.nBlocked {
		return false, false
	}
	s.table.eachDirty(func(at slot, e *entry) {
		var table uint8
		switch {
		case e.there == intruder:
			table = s.table.others[at].Table
		case e.owner == 0:
			table = s.table.strays[at].Table
		case s.table.blocked(e) || s.table.byID[e.owner].aside:
			return
		default:
			_, f := s.table.desired(e)
			table = f.Table
		}
		some, passed = true, passed || s.opts.NudgeFlow.Cookie == 0 || table != s.opts.NudgeFlow.Table
	})
	return some, passed
}

// order compares changes by when they are to be done: deletes, adds, modifies. Open vSwitch keeps flows that differ in priority alone in
// a list and looks for a flow's place from the highest priority on (lib/classifier.c), so the highest priority goes first and comes last:
// 110,000 adds to two such lists took 140 s the other way round, and 6 s like this. Deletes gain a third.
func (c *change) order(d *change) int {
	a, b := rank(c.command), rank(d.command)
	if a == 0 && b == 0 {
		c, d = d, c
	}
	return cmp.Or(a-b, int(c.flow.Priority)-int(d.flow.Priority))
}

func rank(c ofp.FlowModCommand) int {
	switch c {
	case ofp.FlowDelete, ofp.FlowDeleteStrict:
		return 0
	case ofp.FlowAdd:
		return 1
	}
	return 2
}

// replaced yields the flows whose counters begin or end with the bundle.
func replaced(changes []change) iter.Seq[*flow.Flow] {
	return func(yield func(*flow.Flow) bool) {
		for i := range changes {
			if changes[i].command != ofp.FlowModifyStrict && !yield(changes[i].flow) {
				return
			}
		}
	}
}
