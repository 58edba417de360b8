package event

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Stage is where an event was lost.
type Stage string

// The stages. The first group lies before acceptance and enters the identity of Counters; the second loses copies of events
// that were accepted.
const (
	StagePacketInMeter Stage = "packet_in_meter" // the switch's meter dropped the copy
	StageSwitchQueue   Stage = "switch_queue"    // the switch's queue towards the controller overflowed
	StageOFQueue       Stage = "of_queue"        // the recorder's queue was full, or the recorder had stopped
	StageDecode        Stage = "decode"          // a fault in tapwall itself: no malformed packet is lost here

	StageRingOverwrite Stage = "ring_overwrite" // a reader asked for events the ring had overwritten
	StageStreamClient  Stage = "stream_client"  // a reader was too slow
	StageFileQueue     Stage = "file_queue"
	StageFileIO        Stage = "file_io"
	StageSink          Stage = "sink" // a sink refused a batch
)

// BeforeAcceptance reports whether what is lost at the stage never reached the ring.
func (s Stage) BeforeAcceptance() bool {
	switch s {
	case StagePacketInMeter, StageSwitchQueue, StageOFQueue, StageDecode:
		return true
	case StageRingOverwrite, StageStreamClient, StageFileQueue, StageFileIO, StageSink:
	}
	return false
}

// Class says how much an event matters; when a mixture was lost, a loss event names the most important class.
type Class string

// The classes, most important first.
const (
	P0      Class = "P0" // deny verdicts, losses, notices
	P1      Class = "P1" // allow verdicts
	P2      Class = "P2" // packets
	NoClass Class = ""   // not known, as for what a switch dropped
)

// Class is the class of the event.
func (e *Event) Class() Class {
	if e.Event.Action == ActionLost || e.Tapwall.Notice != nil {
		return P0
	}
	switch e.Tapwall.Verdict {
	case Dropped, Rejected, Audit, Quarantined, Errored:
		return P0
	case Mirrored, Sampled:
		return P2
	case Forwarded:
	}
	return P1
}

type lossKey struct {
	stage  Stage
	reason string
}

type lossTotalKey struct {
	stage  Stage
	class  Class
	reason string
}

type pendingLoss struct {
	class       Class
	count       int64
	first, last time.Time
}

// losses counts what is lost and holds what no loss event told of yet. Its mutex is a leaf: nothing is called under it.
type losses struct {
	mu      sync.Mutex
	totals  map[lossTotalKey]int64
	byStage map[Stage]int64
	pending map[lossKey]pendingLoss
}

// add counts n lost events. Stages in quiet are counted only: those readers are told in their own stream.
func (l *losses) add(stage Stage, class Class, reason string, n int64, now time.Time, quiet bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.totals == nil {
		l.totals = make(map[lossTotalKey]int64)
		l.byStage = make(map[Stage]int64)
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
func (l *losses) take() []Loss {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) == 0 {
		return nil
	}
	out := make([]Loss, 0, len(l.pending))
	for k, p := range l.pending {
		out = append(out, Loss{Stage: string(k.stage), Class: string(p.class), Reason: k.reason, Count: p.count, First: p.first, Last: p.last})
	}
	clear(l.pending)
	slices.SortFunc(out, func(a, b Loss) int {
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

func moreImportant(a, b Class) Class {
	switch {
	case a == NoClass:
		return b
	case b == NoClass:
		return a
	case b < a:
		return b
	}
	return a
}
