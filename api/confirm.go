package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tapwall/tapwall/duration"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// An apply with confirmWithin undoes itself unless it is confirmed, for those who may lock themselves out. What undoes it is written in the
// transaction of the changes, and goes in that which undoes them, so that no end of a process can part the two: whoever has the store next
// does it. A resource that somebody has changed since is left alone; nobody's later work is undone.

// Bounds of confirmWithin.
const (
	minConfirm = time.Second
	maxConfirm = 24 * time.Hour
)

// confirmPoll is how often the store is asked for confirmations that other processes began.
const confirmPoll = 5 * time.Second

// confirmation is a Confirmation as the store keeps it.
type confirmation struct {
	Since   time.Time       `json:"since"`
	Until   time.Time       `json:"until"`
	Changes []confirmChange `json:"changes"`
}

type confirmChange struct {
	Kind   policy.Kind     `json:"kind"`
	Name   string          `json:"name"`
	Before json.RawMessage `json:"before,omitempty"` // document; absent = there was none
	After  string          `json:"after,omitempty"`  // digest of what was written; absent = it was deleted
}

func (c *confirmChange) shown() ConfirmationChange {
	out := ConfirmationChange{Kind: c.Kind, Name: c.Name, Change: "updated"}
	switch {
	case c.After == "":
		out.Change = "deleted"
	case c.Before == nil:
		out.Change = "created"
	}
	return out
}

func (c *confirmation) shown(id, problem string) Confirmation {
	out := Confirmation{ID: id, Since: c.Since, Until: c.Until, Problem: problem, Changes: []ConfirmationChange{}}
	for i := range c.Changes {
		out.Changes = append(out.Changes, c.Changes[i].shown())
	}
	return out
}

// digestOf tells whether a resource is still what was written; "" = there is none.
func digestOf(r policy.Resource) string {
	if r == nil {
		return ""
	}
	sum := sha256.Sum256(wishText(r))
	return hex.EncodeToString(sum[:])
}

// newConfirmation says how to undo changes; before[i] is what changes[i] replaces.
func newConfirmation(within time.Duration, changes []backend.Change, before []policy.Resource) (c confirmation, n backend.Note, err error) {
	now := time.Now().UTC()
	c = confirmation{Since: now, Until: now.Add(within)}
	for i, x := range changes {
		one := confirmChange{Kind: x.Kind, Name: x.Name, After: digestOf(x.Resource)}
		if before[i] != nil {
			if one.Before, err = json.Marshal(struct {
				Kind   policy.Kind       `json:"kind"`
				Name   string            `json:"name"`
				Labels map[string]string `json:"labels,omitempty"`
				Spec   any               `json:"spec"`
			}{x.Kind, x.Name, before[i].GetMeta().Labels, specOf(before[i])}); err != nil {
				return c, n, err
			}
		}
		c.Changes = append(c.Changes, one)
	}
	n = backend.Note{ID: strings.ToLower(rand.Text()[:8])}
	if n.Value, err = json.Marshal(c); err == nil && len(n.Value) > backend.MaxNoteBytes {
		err = problem(http.StatusRequestEntityTooLarge,
			"what the changes replace is %d bytes, and at most %d can be undone by itself: apply less at once",
			len(n.Value), backend.MaxNoteBytes)
	}
	return c, n, err
}

// parseConfirm reads confirmWithin; 0 = there is none.
func parseConfirm(text string, dryRun bool) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := duration.Parse(text)
	if err != nil || d < minConfirm || d > maxConfirm {
		return 0, badParameter("query.confirmWithin", text, "must be from %v to 1d: %s", minConfirm, duration.Forms)
	}
	if dryRun {
		return 0, badParameter("query.confirmWithin", text, "goes with no dryRun, which changes nothing that could be undone")
	}
	return d, nil
}

// commitConfirming commits changes, of which the first are those that replace what is in before, and has them undone unless they are
// confirmed within a time; 0 = they stay.
func (s *Server) commitConfirming(ctx context.Context, changes []backend.Change, before []policy.Resource, within time.Duration,
	result *ApplyResult) ([]policy.Resource, error) {
	if within == 0 {
		return s.o.Store.Commit(ctx, changes)
	}
	own := changes[:len(before)]
	if err := s.untouched(ctx, own); err != nil {
		return nil, err
	}
	c, note, err := newConfirmation(within, own, before)
	if err != nil {
		return nil, err
	}
	stored, err := s.o.Store.CommitNoting(ctx, changes, note)
	if err != nil {
		return nil, err
	}
	result.Confirmation = new(c.shown(note.ID, ""))
	select {
	case s.began <- struct{}{}:
	default:
	}
	s.tellConfirmation(ctx, event.ActionConfirming, note.ID, c, fmt.Sprintf("what is applied is undone at %s unless it is confirmed (%s)",
		c.Until.Format(time.RFC3339), note.ID))
	return stored, nil
}

// confirmations returns those that are outstanding.
func (s *Server) confirmations(ctx context.Context) (map[string]confirmation, error) {
	notes, err := s.o.Store.Notes(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]confirmation{}
	for id, value := range notes {
		var c confirmation
		if err := json.Unmarshal(value, &c); err != nil {
			s.log.WarnContext(ctx, "a confirmation cannot be read", "confirmation", id, "err", err)
			continue
		}
		out[id] = c
	}
	return out, nil
}

// untouched says that none of the changes is of a resource that an outstanding confirmation may put back.
func (s *Server) untouched(ctx context.Context, changes []backend.Change) error {
	all, err := s.confirmations(ctx)
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(all)) {
		for _, one := range all[id].Changes {
			if slices.ContainsFunc(changes, func(c backend.Change) bool { return c.Kind == one.Kind && c.Name == one.Name }) {
				return problem(http.StatusConflict,
					"%s was changed by an apply that is undone at %s unless it is confirmed: confirm or undo it first (%s)",
					refName(one.Kind, one.Name), all[id].Until.Format(time.RFC3339), id)
			}
		}
	}
	return nil
}

type confirmationsOutput struct{ Body List[Confirmation] }

type confirmationInput struct {
	ID string `path:"id" doc:"Id of the confirmation" example:"k2jd7wqe"`
}

type confirmationOutput struct{ Body Confirmation }

type undoneOutput struct{ Body *Undone }

func (s *Server) registerConfirmations() {
	d := s.describe()
	huma.Register(s.api, huma.Operation{OperationID: "list-confirmations", Method: http.MethodGet, Path: "/v1/confirmations",
		Tags:    []string{"apply"},
		Summary: "List what is undone unless it is confirmed", Description: "What was applied with confirmWithin, the next to be undone first.",
		Responses: d.responses(schemaFor[List[Confirmation]](d), nil, 503)}, func(ctx context.Context, _ *struct{}) (*confirmationsOutput,
		error) {
		items, err := s.listConfirmations(ctx)
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		return &confirmationsOutput{Body: List[Confirmation]{Items: items}}, nil
	})
	huma.Register(s.api, huma.Operation{OperationID: "confirm", Method: http.MethodPost, Path: "/v1/confirmations/{id}",
		Tags:    []string{"apply"},
		Summary: "Confirm what was applied", Description: "The changes stay.",
		Responses: d.responses(schemaFor[Confirmation](d), nil, 404, 503)}, func(ctx context.Context,
		in *confirmationInput) (*confirmationOutput, error) {
		c, err := s.confirm(ctx, in.ID)
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		return &confirmationOutput{Body: c.shown(in.ID, "")}, nil
	})
	huma.Register(s.api, huma.Operation{OperationID: "undo", Method: http.MethodDelete, Path: "/v1/confirmations/{id}",
		Tags:        []string{"apply"},
		Summary:     "Undo what was applied, now",
		Description: "Each resource is again what it was before, but for those that somebody has changed since.",
		Responses:   d.responses(schemaFor[Undone](d), nil, 404, 409, 503)}, func(ctx context.Context, in *confirmationInput) (*undoneOutput,
		error) {
		out, err := s.undo(ctx, in.ID, "on request")
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		return &undoneOutput{Body: out}, nil
	})
}

func (s *Server) listConfirmations(ctx context.Context) ([]Confirmation, error) {
	all, err := s.confirmations(ctx)
	if err != nil {
		return nil, err
	}
	out := []Confirmation{}
	for id, c := range all {
		problem, _ := s.problems.Load(id)
		text, _ := problem.(string)
		out = append(out, c.shown(id, text))
	}
	slices.SortFunc(out, func(a, b Confirmation) int { return cmp.Or(a.Until.Compare(b.Until), cmp.Compare(a.ID, b.ID)) })
	return out, nil
}

func (s *Server) confirm(ctx context.Context, id string) (confirmation, error) {
	c, err := s.outstanding(ctx, id)
	if err != nil {
		return c, err
	}
	if _, err := s.o.Store.CommitNoting(ctx, nil, backend.Note{ID: id}); errors.Is(err, backend.ErrConflict) { // gone in this moment
		return c, problem(http.StatusNotFound, "no confirmation %q is outstanding any more", id)
	} else if err != nil {
		return c, err
	}
	s.tellConfirmation(ctx, event.ActionConfirmed, id, c, fmt.Sprintf("what was applied at %s is confirmed", c.Since.Format(time.RFC3339)))
	return c, nil
}
