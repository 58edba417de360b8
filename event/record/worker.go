package record

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/spool"
	"github.com/tapwall/tapwall/internal/packet"
)

const (
	// gather is how long packet-ins may wait for others while they come thick and fast, so that they do not each wake Run, the spool and
	// every reader; thick is how close to the last ones they then come.
	gather = 25 * time.Millisecond
	thick  = 50 * time.Millisecond
)

// Run makes events until ctx ends; then it works off the queue, tells of the last losses, ends all streams, closes the spool and its
// exports and returns their errors, else nil. It must be called once.
func (r *Recorder) Run(ctx context.Context) error {
	r.fill(ctx)
	r.look()
	close(r.ready)
	k := r.newKeeper(ctx)
	tick := time.NewTicker(r.opts.LossEvery)
	defer tick.Stop()
	w := worker{r: r, slots: make([]*slot, 0, batchLen)}
	rest := time.NewTimer(gather)
	defer rest.Stop()
	ticked := func() {
		r.look()
		w.tellLosses()
		k.tick()
	}
	var last time.Time // when there was something last
	for ctx.Err() == nil {
		var over <-chan time.Time
		if w.work() {
			now := time.Now()
			more := now.Sub(last) < thick
			last = now
			if !more || !r.gather() {
				select {
				case <-tick.C: // also under constant load
					ticked()
				default:
				}
				continue
			}
			rest.Reset(gather)
			over = rest.C
		}
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-over:
		case <-tick.C:
			ticked()
		}
		r.gathered()
	}
	k.wait()
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	for w.work() {
	}
	w.tellLosses()
	r.streams.mu.Lock() // so that no stream opens after the wait
	close(r.done)
	r.streams.mu.Unlock()
	r.streams.wait()
	var errs []error
	if r.opts.Spool != nil {
		errs = append(errs, r.opts.Spool.Close()) // so that exports find all there is
	}
	errs = append(errs, k.close())
	for _, x := range r.opts.Exports {
		if err := x.Close(); err != nil {
			errs = append(errs, fmt.Errorf("sink %s: %w", x.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// gather has packet-ins wait for others until gathered, unless a batch of them waits already, or something else does.
func (r *Recorder) gather() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.given) > 0 || r.queued >= batchLen {
		return false
	}
	select {
	case <-r.wake: // it was for what is done with
	default:
	}
	r.gathering = true
	return true
}

func (r *Recorder) gathered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gathering = false
}

// worker is the part of the recorder that Run's goroutine owns.
type worker struct {
	r       *Recorder
	slots   []*slot
	given   []*event.Event
	entries []entry
	events  []*event.Event
	bad     [packet.LayerCount]int64
}

// work takes the next events and makes events of the next packet-ins, and reports whether there were any.
func (w *worker) work() bool {
	r := w.r
	ends := r.open.take(batchLen)
	r.mu.Lock()
	r.observed += int64(len(ends))
	r.pending += int64(len(ends))
	for range min(r.queued, batchLen) {
		w.slots = append(w.slots, r.queue[r.head])
		r.queue[r.head] = nil
		r.head = (r.head + 1) % len(r.queue)
		r.queued--
	}
	n := min(len(r.given), batchLen)
	w.given = append(w.given, r.given[:n]...)
	r.given = slices.Delete(r.given, 0, n)
	r.mu.Unlock()
	if len(w.slots) == 0 && n == 0 && len(ends) == 0 {
		return false
	}
	now := r.now().UTC()
	taken, failed := int64(n+len(ends)), int64(0)
	for i := range ends {
		w.entries = append(w.entries, r.builder.ended(&ends[i], now))
	}
	for _, e := range w.given {
		w.entries = append(w.entries, r.builder.finish(e, now))
	}
	for _, s := range w.slots {
		taken += s.events
		if !w.build(s, now) {
			failed += s.events
		}
	}
	w.accept(taken, failed, false)
	return true
}

// build appends the events of s. A fault costs the events of this packet-in and not the record.
func (w *worker) build(s *slot, now time.Time) (ok bool) {
	before := len(w.entries)
	defer func() {
		if p := recover(); p != nil {
			w.entries = w.entries[:before]
			ok = false
			w.r.log.Error("an event could not be made", "bridge", s.pi.Bridge, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	var layer packet.Layer
	w.entries, layer = w.r.verdicts(&s.pi, now, w.entries)
	if layer != packet.LayerNone {
		w.bad[layer]++
	}
	return true
}

// accept puts the entries into the ring, then into the figures, then to the spool and streams. taken is the number of pending events
// that these are of, failed of them could not be made. With a spool events are pending until it has them.
func (w *worker) accept(taken, failed int64, quiet bool) {
	r := w.r
	r.ring.add(w.entries)
	r.mu.Lock()
	if r.opts.Spool == nil {
		r.pending -= taken
		r.accepted += int64(len(w.entries))
	} else {
		r.pending -= failed
	}
	if failed > 0 {
		r.losses.add("", event.StageDecode, event.NoClass, "fault", failed, r.now().UTC(), false)
	}
	for i := range w.entries {
		e := w.entries[i].ev
		r.byVerdict[verdictKey{e.Event.Dataset, e.Event.Action, e.Tapwall.Verdict}]++
	}
	for l, n := range w.bad {
		r.decodeErrors[l] += n
	}
	for _, s := range w.slots {
		s.pi.Directory, s.pi.Copy = nil, nil // its bridge may be gone before the slot is used again
	}
	r.free = append(r.free, w.slots...)
	r.mu.Unlock()

	for i := range w.entries {
		w.events = append(w.events, w.entries[i].ev)
	}
	if len(w.events) > 0 {
		w.feedSpool(quiet)
		r.streams.wakeAll()
	}
	clear(w.bad[:])
	clear(w.slots)
	clear(w.given)
	clear(w.entries) // their events may leave the ring long before the next batch is as long as this
	clear(w.events)
	w.slots, w.given, w.entries, w.events = w.slots[:0], w.given[:0], w.entries[:0], w.events[:0]
}

// feedSpool has the events kept on disk.
func (w *worker) feedSpool(quiet bool) {
	s := w.r.opts.Spool
	if s == nil {
		return
	}
	b := s.Batch()
	b.Quiet = quiet
	lost := spool.Outcome{Quiet: quiet, Stage: event.StageSpoolIO, Reason: "encoding"}
	for _, e := range w.events {
		if err := b.Add(e); err != nil {
			if lost.Lost.Total() == 0 { // others of the batch are like it
				w.r.log.Error("an event cannot be kept", "id", e.Event.ID, "err", err)
			}
			lost.Lost.Add(e.Class(), 1)
		}
	}
	if lost.Lost.Total() > 0 {
		w.r.spooled(lost)
	}
	s.Append(b)
}

// tellLosses records one event for each kind of loss since the last time.
func (w *worker) tellLosses() {
	r := w.r
	now := r.now().UTC()
	for _, l := range r.losses.take() {
		w.entries = append(w.entries, r.builder.finish(lossEvent(l.host, l.Loss), now))
	}
	if n := int64(len(w.entries)); n > 0 {
		r.mu.Lock()
		r.observed += n
		r.pending += n
		r.mu.Unlock()
		w.accept(n, 0, true) // that it was not kept is not told of in turn, or it would go on for ever
	}
}
