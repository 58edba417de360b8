package record

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/tapwall/tapwall/event"
)

type lossKey struct {
	stage  event.Stage
	reason string
}

type lossTotalKey struct {
	stage  event.Stage
	class  event.Class
	reason string
}

type pendingLoss struct {
	class       event.Class
	count       int64
	first, last time.Time
}

// losses counts what is lost and holds what no loss event told of yet. Its mutex is a leaf: nothing is called under it.
type losses struct {
	mu      sync.Mutex
	totals  map[lossTotalKey]int64
	byStage map[event.Stage]int64
	pending map[lossKey]pendingLoss
}

// add counts n lost events. Stages in quiet are counted only: those readers are told in their own stream.
func (l *losses) add(stage event.Stage, class event.Class, reason string, n int64, now time.Time, quiet bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.totals == nil {
		l.totals = make(map[lossTotalKey]int64)
		l.byStage = make(map[event.Stage]int64)
		l.pending = make(map[lossKey]pendingLoss)
	}
	l.totals[lossTotalKey{stage, class, reason}] += n
	l.byStage[stage] += n
	if quiet {
		return
	}
	k := lossKey{stage, reason}
	p, ok := l.pending[k]
	if !ok {
		p = pendingLoss{class: class, first: now}
	}
	p.class = moreImportant(p.class, class)
	p.count += n
	p.last = now
	l.pending[k] = p
}

// take returns what is to be told, ordered by stage and reason, and forgets it.
func (l *losses) take() []event.Loss {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) == 0 {
		return nil
	}
	out := make([]event.Loss, 0, len(l.pending))
	for k, p := range l.pending {
		out = append(out, event.Loss{Stage: string(k.stage), Class: string(p.class), Reason: k.reason, Count: p.count, First: p.first, Last: p.last})
	}
	clear(l.pending)
	slices.SortFunc(out, func(a, b event.Loss) int {
		return cmp.Or(cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.Reason, b.Reason))
	})
	return out
}

// sums returns the totals by stage.
func (l *losses) sums() map[string]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]int64, len(l.byStage))
	for s, n := range l.byStage {
		out[string(s)] = n
	}
	return out
}

// each calls f with every total.
func (l *losses) each(f func(k lossTotalKey, n int64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, n := range l.totals {
		f(k, n)
	}
}

func moreImportant(a, b event.Class) event.Class {
	switch {
	case a == event.NoClass:
		return b
	case b == event.NoClass:
		return a
	case b < a:
		return b
	}
	return a
}
