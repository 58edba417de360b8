package record

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/tapwall/tapwall/event"
)

type lossKey struct {
	host   string // whose switch, or packet-ins, they were of; "" = of the process
	stage  event.Stage
	reason string
}

type lossTotalKey struct {
	host   string // as above
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
func (l *losses) add(host string, stage event.Stage, class event.Class, reason string, n int64, now time.Time, quiet bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.totals == nil {
		l.totals = make(map[lossTotalKey]int64)
		l.byStage = make(map[event.Stage]int64)
		l.pending = make(map[lossKey]pendingLoss)
	}
	l.totals[lossTotalKey{host, stage, class, reason}] += n
	l.byStage[stage] += n
	if quiet {
		return
	}
	k := lossKey{host, stage, reason}
	p, ok := l.pending[k]
	if !ok {
		p = pendingLoss{class: class, first: now}
	}
	p.class = moreImportant(p.class, class)
	p.count += n
	p.last = now
	l.pending[k] = p
}

// hostLoss is a loss and the host that it is of.
type hostLoss struct {
	host string
	event.Loss
}

// take returns what is to be told, ordered by stage, reason and host, and forgets it.
func (l *losses) take() []hostLoss {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) == 0 {
		return nil
	}
	out := make([]hostLoss, 0, len(l.pending))
	for k, p := range l.pending {
		out = append(out, hostLoss{k.host, event.Loss{
			Stage: string(k.stage), Class: string(p.class), Reason: k.reason, Count: p.count, First: p.first, Last: p.last,
		}})
	}
	clear(l.pending)
	slices.SortFunc(out, func(a, b hostLoss) int {
		return cmp.Or(cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.host, b.host))
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
