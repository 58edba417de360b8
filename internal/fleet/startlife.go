package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/policy"
)

// Start begins a mirror again that has ended, or whose time has not come, for who asks. One that runs, or that does not begin or end by
// itself, is left alone. It returns when that is stored and the hosts know of it.
func (f *Fleet) Start(ctx context.Context, m *policy.Mirror, who policy.Writer) error {
	if !m.HasLife() || !m.IsEnabled() {
		return nil
	}
	return f.lives.start(ctx, m, who)
}

func (l *lives) start(ctx context.Context, m *policy.Mirror, who policy.Writer) error {
	for try := 0; ; try++ {
		stored, err := l.fleet.opt.Store.Lives(ctx)
		if err != nil {
			return err
		}
		x, there := stored[m.Name]
		now := newLife(m, l.clock.mark())
		now.Started = true
		if there {
			var old life
			if err := json.Unmarshal(x.Value, &old); err == nil && old.of(m) && old.idle(m, l.clock) == nil {
				return nil
			}
		}
		text, err := json.Marshal(now)
		if err != nil {
			return err
		}
		revision, err := l.fleet.opt.Store.PutLife(ctx, m.Name, text, x.Revision)
		switch {
		case errors.Is(err, backend.ErrConflict) && try < 8:
			continue
		case err != nil:
			return err
		}
		message := fmt.Sprintf("mirror %s is started", m.Name)
		if text := who.String(); text != "" {
			message += " by " + text
		}
		l.fleet.opt.Recorder.Record(event.NewChange(event.ActionMirrorStarted, event.Notice{Message: message, Count: 1,
			Objects: []string{"mirror/" + m.Name}, By: who.By, From: who.From}))
		l.mu.Lock()
		l.begun[m.Name] = backend.Life{Value: text, Revision: revision}
		l.mu.Unlock()
		l.poke()
		return l.told(ctx, m)
	}
}

// told waits until the hosts have been told that a mirror runs, or ctx ends.
func (l *lives) told(ctx context.Context, m *policy.Mirror) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		idle := slices.ContainsFunc(l.fleet.hosts, func(e *host.Engine) bool {
			x := e.Mirror(m.Name)
			return e.Reachable() && x != nil && (x.Revision < m.Revision || x.Revision == m.Revision && x.Idle != nil)
		})
		if !idle {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
