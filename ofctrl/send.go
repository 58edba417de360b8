package ofctrl

import (
	"context"
	"errors"
	"fmt"

	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// send commits changes in one bundle, counted of which are not those of a renewal. The error is a *RefusedError if it is about flows of
// owners.
func (s *Switch) send(ctx context.Context, conn *Conn, changes []change, counted int) error {
	settled := make(chan struct{})
	s.underway = settled
	s.mu.Lock()
	s.counters.BundlesSent++
	s.counters.FlowModsSent += uint64(counted)
	s.mu.Unlock()
	tooLong := -1 // for a bundle
	err := conn.Commit(ctx, Bundle{
		N: len(changes),
		Add: func(dst []byte, xid, bundle uint32, flags ofp.BundleFlags, i int) ([]byte, error) {
			c := &changes[i]
			var opt ofp.FlowModOptions
			switch c.command {
			case ofp.FlowModifyStrict:
				opt.CookieMask = ^uint64(0) // if somebody has replaced it, it is not ours any more
			case ofp.FlowDelete:
				opt.CookieMask = ^uint64(0)
			case ofp.FlowDeleteStrict:
				if c.foreign == nil { // else whoever's it is by now
					opt.CookieMask = uint64(s.opts.CookieMask)
				}
			}
			dst, err := ofp.AppendBundleFlowMod(dst, xid, bundle, flags, c.command, c.flow, opt)
			if err != nil {
				tooLong = i
			}
			return dst, err
		},
		Label: func(i int) Label { return s.label(&changes[i]) },
		Committed: func() {
			s.committed(changes)
			if s.opts.OnCommit != nil {
				s.opts.OnCommit(replaced(changes))
			}
		},
		Settled: func() { close(settled) },
		Timeout: s.opts.Timeout,
	})
	if err == nil {
		var gone []string
		n := 0
		for i := range changes {
			if f := changes[i].foreign; f != nil {
				if n++; n <= MaxObjects {
					gone = append(gone, f.String())
				}
			}
		}
		s.interfered(ForeignFlows, n, gone)
	}
	if errors.Is(err, ErrRejected) {
		s.mu.Lock()
		s.counters.BundlesRejected++
		s.mu.Unlock()
	}
	if tooLong >= 0 && changes[tooLong].owner != 0 {
		c := &changes[tooLong]
		owner := s.label(c).Owner
		return &RefusedError{[]Refusal{{owner, *c.flow, fmt.Errorf("a flow of %s in table %d: %w: %w", owner, c.flow.Table, ErrInvalid, err)}}}
	}
	return refusals(err, changes)
}

func (s *Switch) label(c *change) Label {
	l := Label{Op: "add flow", Object: c.flow.String()}
	switch c.command {
	case ofp.FlowModifyStrict:
		l.Op = "modify flow"
	case ofp.FlowDelete, ofp.FlowDeleteStrict:
		l.Op = "delete flow"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.table.byID[c.owner]; o != nil {
		l.Owner = o.name
	}
	return l
}

// committed notes on the reader what a bundle has changed, before it sees what the switch reports next. What the switch
// reported of others since the plan was made happened before the bundle.
func (s *Switch) committed(changes []change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range changes {
		c := &changes[i]
		if c.foreign != nil {
			s.counters.ForeignRemoved++
		}
		if c.command == ofp.FlowDelete {
			delete(s.table.opaque, opaque{c.flow.Table, c.flow.Cookie})
			continue
		}
		at := c.slot
		if s.table.entries[at].key != c.key {
			at = s.table.place(c.key)
		}
		e := s.table.entries[at]
		switch c.command {
		case ofp.FlowAdd:
			if e.there == foreign && c.foreign == nil {
				s.log.Warn("flow of somebody else was replaced: it came while ours was on its way", "flow", c.flow.String())
			}
			e.there, e.have = ours, e.want
		case ofp.FlowModifyStrict:
			if e.there == ours { // else deleted or replaced before: modified nothing
				e.have = e.want
			}
		case ofp.FlowDeleteStrict:
			if e.there == ours || e.there == intruder {
				e.there, e.have = absent, content{}
			}
		}
		s.table.put(at, e)
	}
	s.settleLocked()
}
