package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// Bounds of what an event says of a change: places, and bytes of each.
const (
	maxAuditFields = 20
	maxAuditField  = 128
)

// audit logs and records what was changed, by whom and from where; of several processes with one store, that does so which was asked.
// Writes that changed nothing are not worth a line. changes are the fields that differ, nil = to be found out.
func (s *Server) audit(ctx context.Context, c backend.Change, stored, before policy.Resource, changes []FieldChange) {
	action, word, revision := event.ActionDeleted, "deleted", int64(0)
	if stored != nil {
		revision = stored.GetMeta().Revision
		switch {
		case before == nil:
			action, word = event.ActionCreated, "created"
		case before.GetMeta().Revision == revision:
			return
		default:
			action, word = event.ActionUpdated, "updated"
			if changes == nil {
				changes = fieldChanges(before, c.Resource)
			}
		}
	} else if before != nil {
		revision = before.GetMeta().Revision // that was the last one
	}
	name := refName(c.Kind, c.Name)
	who := s.note(ctx, "resource "+word, slog.String("resource", name), slog.Int64("revision", revision))
	fields := make([]string, 0, min(len(changes), maxAuditFields))
	for _, x := range changes[:min(len(changes), maxAuditFields)] {
		fields = append(fields, event.Cut(x.Pointer, maxAuditField))
	}
	message := fmt.Sprintf("%s, revision %d%s", name, revision, byWhom(who))
	if len(fields) > 0 {
		message += ": " + strings.Join(fields, " ")
		if n := len(changes) - len(fields); n > 0 {
			message += fmt.Sprintf(" and %d more", n)
		}
	}
	s.tell(event.NewWrite(action, event.Notice{Message: message, Count: 1, Objects: []string{name}, By: who.By, From: who.From},
		event.Change{Revision: revision, Fields: fields, Request: requestID(ctx)}))
	if q, ok := before.(*policy.Quarantine); ok && stored == nil {
		s.tell(event.NewChange(event.ActionQuarantineReleased, event.Notice{Count: 1, Objects: []string{name}, By: who.By, From: who.From,
			Message: fmt.Sprintf("quarantine %s of %s is released%s", q.Name, q.Spec.Match, byWhom(who))}))
	}
}

// note logs what somebody did, and returns who that is.
func (s *Server) note(ctx context.Context, message string, attrs ...any) policy.Writer {
	who := caller(ctx)
	s.log.InfoContext(ctx, message, append(attrs, slog.String("by", who.By), slog.String("from", who.From),
		slog.String("request", requestID(ctx)))...)
	return who
}

// auditKill does so for connections that somebody had the switches forget; which is the query that chose them.
func (s *Server) auditKill(ctx context.Context, out Killed, which string) {
	who := s.note(ctx, "connections killed", slog.Int("killed", out.Killed), slog.Int("matched", out.Matched), slog.String("which", which))
	if out.Killed > 0 {
		s.tell(event.NewChange(event.ActionKilled, event.Notice{Count: int64(out.Killed), By: who.By, From: who.From,
			Message: fmt.Sprintf("%d live connections were killed%s: %s", out.Killed, byWhom(who), event.Cut(which, 2*maxAuditField))}))
	}
}

// refusalsEvery is how often requests without the token are told of, if there are more: whoever sends them must not fill the record.
const refusalsEvery = 10 * time.Second

// refusals are the requests that came by TCP without the token. The first is told at once, those after it together.
type refusals struct {
	tell func(event.Event)

	mu      sync.Mutex
	waiting bool   // for those after the first
	untold  int64  // since the last event
	from    string // whence the last came
	what    string // and what it asked for
}

// add tells of a request, now or later. It is safe for concurrent use, and does not block.
func (x *refusals) add(r *http.Request) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.untold++
	x.from, x.what = r.RemoteAddr, event.Cut(r.Method, maxAuditField)+" "+event.Cut(r.URL.EscapedPath(), maxAuditField)
	if !x.waiting {
		x.flush()
	}
}

// flush tells of those that are untold, and looks again later; mu is held.
func (x *refusals) flush() {
	if x.waiting = x.untold > 0; !x.waiting {
		return
	}
	message := fmt.Sprintf("a request without the token was refused, from %s: %s", x.from, x.what)
	if x.untold > 1 {
		message = fmt.Sprintf("%d requests without the token were refused, the last from %s: %s", x.untold, x.from, x.what)
	}
	x.tell(event.NewRefusal(event.ActionUnauthorized, event.Notice{Message: message, Count: x.untold, From: x.from}))
	x.untold = 0
	time.AfterFunc(refusalsEvery, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.flush()
	})
}

// tell records an event of the API's own, if anybody wants it.
func (s *Server) tell(e event.Event) {
	if s.o.Record != nil {
		s.o.Record(e)
	}
}

// byWhom is the end of a sentence, or "" if nobody knows.
func byWhom(who policy.Writer) string {
	if text := who.String(); text != "" {
		return " by " + text
	}
	return ""
}
