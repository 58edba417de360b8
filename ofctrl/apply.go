package ofctrl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// maxRounds bounds how often one Apply sends again because others interfered or because flows of owners that are not in the
// update were refused.
const maxRounds = 4

// Apply records what is desired and makes it so: meters first, then one atomic bundle of what differs from what is
// installed, then meters that are of no more use. Nothing is sent if nothing differs. The cost follows the owners of u and
// what else is missing, not the total.
//
// Errors, all but the last kind with u recorded:
//   - [ErrNotConnected]: nothing was sent; apply again when Wake tells.
//   - [ErrUnknownOutcome]: the bundle may or may not be in force. The next Apply knows.
//   - [ErrForeignFlow], a *[ForeignError]: flows of u's owners (of any owner, if u has none) are left out; all else is
//     installed.
//   - a *[RequestError] whose Owner is not in u: a flow that was recorded earlier is refused. That owner stays as it is on
//     the switch until its flows are replaced; all else is installed.
//   - an error of ctx or of the connection, or a *[RequestError] without Object: nothing is installed.
//   - [ErrConflict], [ErrInvalid], or a *[RequestError] ([ErrRejected]) for u's own owners and meters: nothing of u is
//     installed, nothing of u is recorded: it is as if Apply had not been called.
//
// A meter that the switch refuses is no error: flows that copy under it are installed without their copies, see [State.MeterErr].
//
// Calls are served one at a time.
func (s *Switch) Apply(ctx context.Context, u Update) (Result, error) {
	if err := s.take(ctx); err != nil {
		return Result{}, err
	}
	defer s.release()
	undo, err := s.record(u)
	if err != nil {
		return s.result(Result{}), err
	}
	var r Result
	var odd []error // refusals of flows of others than u's owners
	for range maxRounds {
		conn := s.current()
		if conn == nil {
			return s.result(r), errors.Join(append(odd, ErrNotConnected)...)
		}
		again, err := s.round(ctx, conn, &r)
		switch blame := s.blame(err, u); {
		case err == nil && !again:
			return s.result(r), errors.Join(append(odd, s.blocked(u))...)
		case blame == blameUpdate:
			undo()
			return s.result(r), err
		case blame == blameOthers:
			odd = append(odd, err)
		case err != nil:
			return s.result(r), errors.Join(append(odd, err)...)
		}
	}
	return s.result(r), errors.Join(append(odd, fmt.Errorf("flows keep being changed by somebody else: %w", ErrUnknownOutcome))...)
}

func (s *Switch) result(r Result) Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Installed = s.installed
	return r
}

// record makes u the desired state and returns what takes that back. An error changes nothing.
func (s *Switch) record(u Update) (undo func(), err error) {
	for name, flows := range u.Owners {
		for i := range flows {
			if flows[i].Cookie&s.opts.CookieMask != s.opts.Cookie {
				return nil, fmt.Errorf("%s of %s has a foreign cookie: %w", flows[i].String(), name, ErrInvalid)
			}
		}
	}
	meters, err := s.checkMeters(u.Meters)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, err := s.table.replace(u.Owners)
	if err != nil {
		return nil, err
	}
	oldRevision, oldMeters, oldRejected := s.revision, s.meters.want, maps.Clone(s.rejected)
	s.revision = u.Revision
	if meters != nil {
		s.meters.setWant(meters)
		s.table.mute(s.meters.muted())
	}
	for name := range u.Owners {
		if o := s.table.owners[name]; o != nil {
			delete(s.rejected, o.id)
		}
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.table.restore(old)
		s.revision, s.rejected = oldRevision, oldRejected
		s.meters.setWant(oldMeters)
		s.table.mute(s.meters.muted())
	}, nil
}

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
	if s.table.nDirty == 0 && s.table.nOpaque() == 0 {
		return nil
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
		case s.table.blocked(e) || s.rejected[e.owner] != nil:
			return
		default:
			_, c.flow = s.table.desired(e)
			c.command = ofp.FlowAdd
			switch {
			case e.there == ours && e.have.attrs == e.want.attrs:
				c.command = ofp.FlowModifyStrict
			case e.there == ours || e.there == intruder:
				// What it replaces meant something else, so it must not inherit the counters. (The flag OFPFF_RESET_COUNTS would do, too, but
				// Open vSwitch shows it with the flow for ever.)
				old := c
				old.command, old.flow, c.foreign = ofp.FlowDeleteStrict, old.foreign, nil
				if old.flow == nil {
					f := stray(c.flow)
					f.Cookie = s.opts.Cookie
					old.flow = &f
				}
				changes = append(changes, old)
			}
		}
		changes = append(changes, c)
	})
	changes = s.unhide(changes)
	slices.SortFunc(changes, func(a, b change) int { return a.order(&b) })
	return changes
}

// order compares changes by when they are to be done: deletes, adds, modifies. Open vSwitch keeps flows that differ in priority alone in a list
// and looks for a flow's place from the highest priority on (lib/classifier.c), so the highest priority goes first and comes last: 110,000 adds
// to two such lists took 140 s the other way round, and 6 s like this. Deletes gain a third.
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

// round sends the difference once. It reports whether there still is one that can be sent.
func (s *Switch) round(ctx context.Context, conn *Conn, r *Result) (again bool, err error) {
	s.mu.Lock()
	before, _ := s.meters.diff()
	s.mu.Unlock()
	if err := s.sendMeters(ctx, conn, before); err != nil {
		return false, err
	}
	r.Meters += len(before)
	if changes := s.plan(); len(changes) > 0 {
		if err := s.send(ctx, conn, changes); err != nil {
			return false, err
		}
		r.Bundles++
		for _, c := range changes {
			switch c.command {
			case ofp.FlowAdd:
				r.Added++
			case ofp.FlowModifyStrict:
				r.Modified++
			default:
				r.Deleted++
			}
		}
	}
	s.mu.Lock()
	_, after := s.meters.diff()
	s.mu.Unlock()
	if err := s.sendMeters(ctx, conn, after); err != nil {
		return false, err
	}
	r.Meters += len(after)

	s.mu.Lock()
	flows, meters := s.changed, s.changedMeters
	s.changed, s.changedMeters = changed{}, changed{}
	r.Meters += s.meters.made
	s.meters.made = 0
	s.mu.Unlock()
	s.interfered(ChangedFlows, flows.count, flows.objects)
	s.interfered(ChangedMeters, meters.count, meters.objects)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Lost = 0
	s.settleLocked()
	again = s.table.nOpaque() > 0 || s.meters.missing() > 0
	if s.table.nDirty == s.table.nBlocked {
		return again, nil
	}
	s.table.eachDirty(func(_ slot, e *entry) {
		again = again || e.owner == 0 || !s.table.blocked(e) && s.rejected[e.owner] == nil
	})
	return again, nil
}

// send commits changes in one bundle.
func (s *Switch) send(ctx context.Context, conn *Conn, changes []change) error {
	settled := make(chan struct{})
	s.underway = settled
	s.mu.Lock()
	s.counters.BundlesSent++
	s.counters.FlowModsSent += uint64(len(changes))
	s.mu.Unlock()
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
			return ofp.AppendBundleFlowMod(dst, xid, bundle, flags, c.command, c.flow, opt)
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
	return err
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

type blame int

const (
	blameNobody blame = iota
	blameUpdate
	blameOthers
)

// blame finds out whose flows a refusal is about. Flows of owners that are not in u are set aside.
func (s *Switch) blame(err error, u Update) blame {
	if !errors.Is(err, ErrRejected) {
		if errors.Is(err, ofp.ErrValue) || errors.Is(err, ofp.ErrLength) {
			return blameUpdate // cannot be encoded in its bundle: nothing was committed
		}
		return blameNobody
	}
	verdict := blameNobody
	for _, e := range requestErrors(err) {
		if _, mine := u.Owners[e.Owner]; mine || e.Owner == "" && u.Meters != nil && e.Object != "" {
			return blameUpdate
		}
		if e.Owner == "" {
			continue // not about a flow
		}
		s.mu.Lock()
		if o := s.table.owners[e.Owner]; o != nil {
			s.rejected[o.id] = e
			verdict = blameOthers
		}
		s.mu.Unlock()
	}
	return verdict
}

// requestErrors returns all *RequestError that err joins.
func requestErrors(err error) []*RequestError {
	switch e := err.(type) {
	case *RequestError:
		return []*RequestError{e}
	case interface{ Unwrap() []error }:
		var out []*RequestError
		for _, err := range e.Unwrap() {
			out = append(out, requestErrors(err)...)
		}
		return out
	case interface{ Unwrap() error }:
		return requestErrors(e.Unwrap())
	}
	return nil
}

// blocked returns a *ForeignError if flows of u's owners are in the places of foreign flows.
func (s *Switch) blocked(u Update) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table.nBlocked == 0 {
		return nil
	}
	var found *ForeignError
	s.table.eachDirty(func(_ slot, e *entry) {
		if !s.table.blocked(e) {
			return
		}
		o, f := s.table.desired(e)
		if _, ok := u.Owners[o.name]; !ok && len(u.Owners) > 0 {
			return
		}
		if found == nil {
			found = &ForeignError{Owner: o.name, Flow: *f}
		}
		found.Count++
	})
	if found == nil {
		return nil // not a typed nil
	}
	return found
}
