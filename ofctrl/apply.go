package ofctrl

import (
	"context"
	"errors"
	"fmt"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

const (
	// maxRounds bounds how often one Apply sends again because others interfered.
	maxRounds = 4
	// maxRefused bounds how often one Apply sends again without those whose flows were refused. One round finds all that are refused as
	// they are put into the bundle, and one that is refused by the commit.
	maxRefused = 64
)

// Apply records what is desired and installs all of it that the switch takes: meters first, then one atomic bundle of what differs from
// what is installed, then meters that are of no more use. Nothing is sent if nothing differs. The cost follows the owners of u and what
// else is missing, not the total.
//
// The flows of one owner are taken together or not at all. An owner of u with a flow that the switch refuses stays as it was, and so does
// what is desired of it, until it is in an Update again, but for places that others have taken; a flow that another owner has given up to
// it stays, too. A refused owner that is not in u, whose flows were recorded earlier, stays as it is on the switch until it is in an
// Update or the connection is made anew. [Result.Refused] names all that this Apply found.
//
// Errors, all but the last kind with u recorded:
//   - [Result.Refused] itself ([ErrRejected], or [ErrInvalid] for what does not fit a bundle), if nothing else is wrong: all else is
//     installed. It is joined to the following ones.
//   - [ErrForeignFlow], a *[ForeignError]: flows of u's owners (of any owner, if u has none) are left out; all else is installed.
//   - [ErrNotConnected]: nothing was sent; apply again when Wake tells.
//   - [ErrUnknownOutcome]: the bundle may or may not be in force. The switch is read back if its answer does not come, so the next Apply
//     knows, and sends what is missing then.
//   - an error of ctx or of the connection, or a *[RequestError] that is about no owner's flow: nothing of the bundle is installed.
//   - [ErrConflict], [ErrInvalid]: nothing is sent and nothing recorded; it is as if Apply had not been called.
//
// A meter that the switch refuses is no error: flows that copy under it are installed without their copies, see [State.MeterErr].
//
// Calls are served one at a time.
func (s *Switch) Apply(ctx context.Context, u Update) (Result, error) {
	if err := s.take(ctx); err != nil {
		return Result{}, err
	}
	defer s.release()
	old, err := s.record(u)
	if err != nil {
		return s.result(Result{}), err
	}
	var r Result
	for rounds, refusals := 0, 0; rounds < maxRounds; {
		conn := s.current()
		if conn == nil {
			return s.result(r), r.err(ErrNotConnected)
		}
		again, err := s.round(ctx, conn, &r)
		var refused *RefusedError
		switch {
		case errors.As(err, &refused) && refusals < maxRefused:
			refusals++
			s.setAside(refused, old, &r)
		case err != nil:
			return s.result(r), r.err(err)
		case !again:
			return s.result(r), r.err(s.blocked(u))
		default:
			rounds++
		}
	}
	return s.result(r), r.err(fmt.Errorf("flows keep being changed by somebody else: %w", ErrUnknownOutcome))
}

// result ends an Apply.
func (s *Switch) result(r Result) Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applying = false
	s.table.arrived()
	clear(s.meters.coming)
	r.Installed = s.installed
	return r
}

// record makes u the desired state and returns the flows that its owners had. An error changes nothing.
func (s *Switch) record(u Update) (old map[string][]flow.Flow, err error) {
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
	s.table.ordering = true
	defer func() { s.table.ordering = false }()
	if old, err = s.table.replace(u.Owners); err != nil {
		s.table.arrived()
		return nil, err
	}
	s.applying, s.revision = true, u.Revision
	if meters != nil {
		s.meters.setWant(meters)
		s.table.mute(s.meters.muted())
	}
	for name := range u.Owners {
		delete(s.refused, name)
	}
	return old, nil
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
		added, modified, deleted := s.counted(changes)
		if err := s.send(ctx, conn, changes, added+modified+deleted); err != nil {
			return false, err
		}
		r.Bundles++
		r.Added += added
		r.Modified += modified
		r.Deleted += deleted
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
	some, _ := s.unsent()
	return some || s.table.nOpaque() > 0 || s.meters.missing() > 0, nil
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
