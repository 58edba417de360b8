package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// concession is what an undo gives up for what others have done since, each beside those before it. It must come about: else who has
// locked himself out stays so.
type concession int

const (
	nothing    concession = iota
	references            // may be to what is gone, which then is nobody, with a warning
	created               // groups that were created stay, as others refer to them
	groups                // stay as they are: they would contain themselves, or are not any more what others use them for
)

// undo puts back what an apply changed. The error is a 404 if it is not outstanding any more.
func (s *Server) undo(ctx context.Context, id, why string) (*Undone, error) {
	given := nothing
	for try := 1; ; try++ {
		c, err := s.outstanding(ctx, id)
		if err != nil {
			return nil, err
		}
		out, changes, before, err := s.reverse(ctx, c, given)
		if err != nil {
			return nil, err
		}
		guards, err := s.checkRefs(ctx, changes, func(_ int, faults policy.Faults) error {
			other := slices.ContainsFunc(faults, func(f policy.Fault) bool { return f.Code != policy.CodeUnknownRef })
			if given < references || other && given < groups {
				return invalid(faults)
			}
			return nil
		})
		if p := (*Problem)(nil); errors.As(err, &p) && p.Status < http.StatusInternalServerError && given < groups {
			given++
			continue
		}
		if err != nil {
			return nil, err
		}
		sign(ctx, changes)
		stored, err := s.o.Store.CommitNoting(ctx, append(slices.Clip(changes), guards...), backend.Note{ID: id})
		if errors.Is(err, backend.ErrConflict) && try < maxTries {
			continue
		}
		if err != nil {
			return nil, err
		}
		for i := range changes {
			s.audit(ctx, changes[i], stored[i], before[i], nil)
		}
		s.tellConfirmation(ctx, event.ActionUndone, id, c, fmt.Sprintf("what was applied at %s is undone, %s: %s", c.Since.Format(time.RFC3339),
			why,
			summary(out)))
		return out, nil
	}
}

// outstanding returns a confirmation, or a 404.
func (s *Server) outstanding(ctx context.Context, id string) (confirmation, error) {
	all, err := s.confirmations(ctx)
	if err != nil {
		return confirmation{}, err
	}
	c, ok := all[id]
	if !ok {
		return c, problem(http.StatusNotFound, "no confirmation %q is outstanding: it was confirmed, its time was up, or it never was", id)
	}
	return c, nil
}

// reverse makes the changes that undo c.
func (s *Server) reverse(ctx context.Context, c confirmation, given concession) (
	out *Undone, changes []backend.Change, before []policy.Resource, err error) {
	out = &Undone{Restored: []ConfirmationChange{}, Left: []ConfirmationChange{}}
	for i := range c.Changes {
		one := &c.Changes[i]
		now, err := s.o.Store.Get(ctx, one.Kind, one.Name)
		if err != nil && !errors.Is(err, backend.ErrNotFound) {
			return nil, nil, nil, err
		}
		if err != nil {
			now = nil
		}
		if digestOf(now) != one.After || one.Kind == policy.KindGroup && (given >= groups || given >= created && one.Before == nil) {
			out.Left = append(out.Left, one.shown())
			continue
		}
		change := backend.Change{Kind: one.Kind, Name: one.Name, Expect: new(int64), Before: now}
		if now != nil {
			*change.Expect = now.GetMeta().Revision
		}
		if one.Before != nil {
			docs, err := policy.DecodeJSON(bytes.NewReader(one.Before))
			if err != nil || len(docs) != 1 {
				return nil, nil, nil, fmt.Errorf("%s as it was cannot be read: %w", refName(one.Kind, one.Name), err)
			}
			change.Resource = docs[0].Resource
		}
		out.Restored = append(out.Restored, one.shown())
		changes, before = append(changes, change), append(before, now)
	}
	return out, changes, before, nil
}

// summary says in words what was put back.
func summary(u *Undone) string {
	text := fmt.Sprintf("%d resources are as before", len(u.Restored))
	if len(u.Restored) == 1 {
		text = "1 resource is as before"
	}
	if len(u.Left) > 0 {
		var names []string
		for _, c := range u.Left {
			names = append(names, refName(c.Kind, c.Name))
		}
		text += fmt.Sprintf(", %d were changed since, or do not go with what was, and stay: %s", len(u.Left), strings.Join(names, ", "))
	}
	return text
}

// tellConfirmation logs and records what happened to one.
func (s *Server) tellConfirmation(ctx context.Context, action, id string, c confirmation, message string) {
	var objects []string
	for i := range c.Changes {
		if len(objects) < 10 {
			objects = append(objects, refName(c.Changes[i].Kind, c.Changes[i].Name))
		}
	}
	who := s.note(ctx, message, slog.String("confirmation", id))
	s.tell(event.NewChange(action, event.Notice{Message: message + byWhom(who), Count: int64(len(c.Changes)), Objects: objects, By: who.By,
		From: who.From}))
}

// Run undoes what is not confirmed in time, also what an earlier process, or another one with the same store, began. It ends with ctx.
func (s *Server) Run(ctx context.Context) error {
	due := map[string]time.Time{} // with the monotonic clock, so that a clock that is set ends nothing early
	for {
		next := s.undoDue(ctx, due)
		select {
		case <-ctx.Done():
			return nil
		case <-s.began:
		case <-time.After(next):
		}
	}
}

// String names the task in errors.
func (s *Server) String() string { return "API" }

// undoDue undoes what is due, and returns when to look again.
func (s *Server) undoDue(ctx context.Context, due map[string]time.Time) time.Duration {
	all, err := s.confirmations(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.log.DebugContext(ctx, "confirmations are not known", "err", err)
		}
		return confirmPoll
	}
	maps.DeleteFunc(due, func(id string, _ time.Time) bool { _, there := all[id]; return !there })
	next := confirmPoll
	for id, c := range all {
		if due[id].IsZero() {
			due[id] = time.Now().Add(time.Until(c.Until))
		}
		left := time.Until(due[id])
		if left > 0 {
			next = min(next, left)
			continue
		}
		_, err := s.undo(context.WithValue(ctx, callerKey, policy.Writer{By: "tapwall itself"}), id, "as nobody confirmed it in time")
		if p := (*Problem)(nil); err == nil || errors.As(err, &p) && p.Status == http.StatusNotFound {
			continue
		}
		if before, _ := s.problems.Swap(id, err.Error()); ctx.Err() == nil && before != err.Error() {
			s.log.ErrorContext(ctx, "what was not confirmed in time could not be undone; trying again", "confirmation", id, "err", err)
		}
		next = min(next, time.Second)
	}
	s.problems.Range(func(id, _ any) bool {
		if _, there := all[id.(string)]; !there {
			s.problems.Delete(id)
		}
		return true
	})
	return next
}
