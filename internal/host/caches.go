package host

import (
	"context"
	"sync"
	"time"

	"github.com/tapwall/tapwall/ovsdb/unixctl"
)

// cachesFollow is how long the caches of a switch that cannot be asked are given to follow a change: several of OVS's rounds of at most
// 500 ms (other_config:max-revalidator in ovs-vswitchd.conf.db(5)).
const cachesFollow = 3 * time.Second

// followCaches ends the doubt behind each change, once the caches of the switch have followed it.
func (e *Engine) followCaches(ctx context.Context, l *link) {
	k := l.book
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.kick:
		}
		if !k.quiet(ctx) {
			return
		}
		for rest := time.Duration(0); ; {
			if !pause(ctx, rest) { // it is work for the switch, which many changes in a row must not add up to
				return
			}
			k.mu.Lock()
			turn, idle := k.account.turn, k.account.turn == k.followed
			k.mu.Unlock()
			if idle {
				break
			}
			metered, err := l.metered(ctx)
			done := l.copies.Load() + withheld(metered)
			if err == nil {
				start := time.Now()
				if !e.awaitCaches(ctx, l) {
					return
				}
				if e.canAskCaches(l) {
					rest = 2 * time.Since(start)
				}
				k.mu.Lock()
				open := k.account.open()
				k.mu.Unlock()
				start = time.Now()
				err = l.readCounters(ctx, open)
				if open.all {
					rest = max(rest, 10*time.Since(start))
				}
			}
			if err != nil {
				// The connection went; the next one tries again. What it finds that it has to change is another change.
				if !pause(ctx, time.Second) {
					return
				}
				continue
			}
			k.mu.Lock()
			k.account.follow(turn)
			k.followed, k.done = turn, done
			k.mu.Unlock()
			select {
			case k.settled <- struct{}{}:
			default:
			}
		}
	}
}

// canAskCaches reports whether the switch of the bridge is that behind the control socket of this host.
func (e *Engine) canAskCaches(l *link) bool { return l.cfg.OpenFlow == "" && e.local() }

// What is asked of the switch when its caches are waited for is in the way of further changes, so a burst of them is waited for, but not
// for ever.
const (
	changesQuiet   = 20 * time.Millisecond
	changesAtLeast = 300 * time.Millisecond
)

// quiet returns when no change has come for changesQuiet, or after changesAtLeast. It returns false when ctx ends.
func (k *book) quiet(ctx context.Context) bool {
	enough := time.NewTimer(changesAtLeast)
	defer enough.Stop()
	for {
		pause := time.NewTimer(changesQuiet)
		select {
		case <-ctx.Done():
		case <-k.kick:
			pause.Stop()
			continue
		case <-pause.C:
		case <-enough.C:
		}
		pause.Stop()
		return ctx.Err() == nil
	}
}

// awaitCaches returns when the switch has looked at all of its cached flows since it was called, or, where it cannot be asked, after the
// time that it needs. It returns false when ctx ends.
func (e *Engine) awaitCaches(ctx context.Context, l *link) bool {
	if !e.canAskCaches(l) {
		return pause(ctx, cachesFollow)
	}
	if err := e.rounds.after(ctx, func(ctx context.Context) error { return e.askCaches(ctx, []*link{l}) }); err != nil {
		return pause(ctx, cachesFollow) // away, or a switch with more than one datapath, which does not answer this
	}
	return ctx.Err() == nil
}

// Effective returns when no decision is left that the switches of the host cached before it was called. The caches of a switch that cannot
// be asked, which is another machine's, are given the time that they need. The error says why it is not known: that of ctx, or of the
// switch.
func (e *Engine) Effective(ctx context.Context) error {
	var ask []*link
	remote := false
	for _, b := range e.view.Load().bridges {
		switch {
		case !b.sw.State().Connected: // nothing is cached of what it has not been told
		case e.canAskCaches(b.link):
			ask = append(ask, b.link)
		default:
			remote = true
		}
	}
	if len(ask) > 0 {
		if err := e.rounds.after(ctx, func(ctx context.Context) error { return e.askCaches(ctx, ask) }); err != nil {
			return err
		}
	}
	if remote && !pause(ctx, cachesFollow) {
		return ctx.Err()
	}
	return nil
}

// askRounds is how many rounds of the revalidators are waited for, one after the other: the first may have begun before the change, and
// the second before the thread that took the change told the others, as it answers first (type_run in ofproto-dpif.c).
const askRounds = 3

// askCaches returns when the switch behind the control socket of this host has looked at all of its cached flows. The links are those by
// which it is hurried.
func (e *Engine) askCaches(ctx context.Context, links []*link) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for range askRounds {
		done := make(chan error, 1)
		go func() {
			_, err := unixctl.Daemon{RunDir: e.opt.RunDir}.Call(ctx, "revalidator/wait")
			done <- err
		}()
		hint := time.After(5 * time.Millisecond)
		for waiting := true; waiting; {
			select {
			case <-hint:
				for _, l := range links {
					_ = l.sw.Nudge(ctx) // so that it looks at once; it would within half a second
				}
				hint = time.After(100 * time.Millisecond) // it may have done so before the question came
			case err := <-done:
				if waiting = false; err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// cacheRounds lets many wait for the caches of one switch at the price of few.
type cacheRounds struct {
	mu    sync.Mutex
	begun uint64        // how many rounds
	ended uint64        // the last one that succeeded
	turn  chan struct{} // of the round under way, closed when it ends; nil = there is none
}

// after returns when a round that began after the call has ended. The rounds are run by those who wait, one at a time: who comes while one
// is under way shares the next. The error is that of the caller's own round, or of ctx.
func (r *cacheRounds) after(ctx context.Context, round func(context.Context) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for want := r.begun + 1; r.ended < want; {
		if turn := r.turn; turn != nil {
			r.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-turn:
			}
			r.mu.Lock()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		r.begun++
		n, turn := r.begun, make(chan struct{})
		r.turn = turn
		r.mu.Unlock()
		err := round(ctx)
		r.mu.Lock()
		close(turn)
		if r.turn = nil; err != nil {
			return err
		}
		r.ended = n
	}
	return nil
}
