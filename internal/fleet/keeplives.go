package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// chore is what the task that writes lives has to do about one mirror.
type chore struct {
	name    string
	value   []byte // of the life; nil = it goes
	expect  int64
	version int
	expire  *policy.Mirror // also to be deleted; nil = not
}

// outcome is what became of chores.
type outcome struct {
	done []finished
	// all is what the store has of every mirror; nil = it was not asked.
	all map[string]backend.Life
}

type finished struct {
	chore
	revision int64
	err      error
	expired  bool
}

// dirty reports whether something of an entry is not stored.
func (r *entry) dirty() bool { return r.gone || r.version != r.saved }

// due reports whether a record is to be written now.
func (l *lives) due(r *entry) bool {
	since := l.clock.up() - r.tried
	switch {
	case !r.dirty() || r.failed && since < again:
		return false
	case r.gone || r.urgent:
		return true
	}
	return since >= keeps
}

// write has the task store what is to be stored, unless it is on its way already, and read what other processes have stored.
func (l *lives) write(ctx context.Context, tasks *sync.WaitGroup) {
	if l.busy || !l.whole {
		return
	}
	var todo []chore
	for name, r := range l.known {
		c := chore{name: name, expect: r.stored, version: r.version}
		m := l.mirrors[name]
		if m != nil && !r.dying && r.expired(m, l.clock) && (!r.failed || l.clock.up()-r.tried >= again) {
			c.expire = m
		}
		switch {
		case r.gone && r.stored == 0:
			delete(l.known, name)
			continue
		case r.gone && l.due(r):
		case c.expire == nil && !l.due(r):
			continue
		default:
			text, err := json.Marshal(r.life)
			if err != nil {
				panic(err) // numbers and texts only
			}
			c.value = text
		}
		r.tried = l.clock.up()
		todo = append(todo, c)
	}
	now := l.clock.up()
	shared := l.fleet.opt.Store.Status().Kind == "external" && len(l.mirrors) > 0 && now-l.polled >= again
	if len(todo) == 0 && !shared {
		return
	}
	if shared {
		l.polled = now
	}
	l.busy = true
	tasks.Go(func() { l.kept <- l.carryOut(ctx, todo, shared) })
}

// carryOut is the task.
func (l *lives) carryOut(ctx context.Context, todo []chore, look bool) outcome {
	var o outcome
	st := l.fleet.opt.Store
	for _, c := range todo {
		f := finished{chore: c}
		if c.expire != nil {
			_, err := st.Commit(ctx, []backend.Change{{Kind: policy.KindMirror, Name: c.name, Expect: &c.expire.Revision}})
			f.expired = err == nil
			if err != nil && !errors.Is(err, backend.ErrConflict) && !errors.Is(err, backend.ErrNotFound) {
				f.err = fmt.Errorf("its ttl is over, and it cannot be deleted: %w", err)
			}
			f.revision = c.expect // what is kept of its life goes when the store tells that the mirror has gone
		} else {
			f.revision, f.err = st.PutLife(ctx, c.name, c.value, c.expect)
			look = look || errors.Is(f.err, backend.ErrConflict)
		}
		o.done = append(o.done, f)
	}
	if look {
		all, err := st.Lives(ctx)
		if err == nil {
			o.all = all
		}
	}
	return o
}

// settle takes what the task has done.
func (l *lives) settle(o outcome) {
	l.busy = false
	for _, f := range o.done {
		r := l.known[f.name]
		if r != nil {
			r.failed = f.err != nil && !errors.Is(f.err, backend.ErrConflict)
		}
		switch {
		case r == nil:
		case f.expired:
			r.dying = true
			l.fleet.opt.Recorder.Record(event.NewChange(event.ActionMirrorExpired, event.Notice{Count: 1, Objects: []string{"mirror/" + f.name},
				Message: fmt.Sprintf("mirror %s is deleted: its ttl of %s is over", f.name, f.expire.Spec.TTL),
				By:      f.expire.Writer.By, From: f.expire.Writer.From}))
		case f.expire != nil && f.err == nil:
		case errors.Is(f.err, backend.ErrConflict): // it is merged below
		case f.err != nil:
			l.fleet.opt.Logger.Warn("what became of a mirror is not stored, trying again", "mirror", f.name, "err", f.err)
		case f.value == nil && r.gone:
			delete(l.known, f.name)
		default:
			r.stored, r.saved, r.tried = f.revision, f.version, l.clock.up()
			if f.value == nil {
				r.stored = 0
			}
			if r.version == f.version {
				r.urgent = false
			}
			for _, e := range r.untold {
				l.fleet.opt.Logger.Info(e.Tapwall.Notice.Message)
				l.fleet.opt.Recorder.Record(e)
			}
			r.untold = nil
		}
	}
	if o.all == nil {
		return
	}
	for name, x := range o.all {
		if r := l.known[name]; r != nil && x.Revision > r.stored {
			l.adopt(name, x)
		}
	}
	for name, r := range l.known {
		if _, there := o.all[name]; !there && r.stored > 0 {
			r.stored = 0
			r.changed(true)
		}
	}
}
