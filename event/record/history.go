package record

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/spool"
)

// Recent returns up to f.Limit events that match, oldest first, of those in memory: the newest, or with f.First or f.After the oldest. A
// filter that makes no sense (see Filter.Compile) selects nothing. The events are shared and must not be changed.
func (r *Recorder) Recent(f event.Filter) event.Page {
	q, err := r.query(f)
	if err != nil {
		return event.Page{Items: []*event.Event{}}
	}
	q.memory(context.Background())
	return q.page()
}

// Query is Recent that goes on in the spool with what is not in memory any more. The error is that of ctx or of the filter; that of the
// disk is in the coverage.
func (r *Recorder) Query(ctx context.Context, f event.Filter) (event.Page, error) {
	q, err := r.query(f)
	if err != nil {
		return event.Page{}, err
	}
	places := []func(context.Context){q.memory, q.spool, q.archive}
	if q.up {
		slices.Reverse(places)
	}
	for _, look := range places {
		if !q.full() {
			look(ctx)
		}
	}
	return q.page(), ctx.Err()
}

// Each visits what f chooses of all that is kept, oldest first, whatever its Limit. The error is that of ctx or of the filter; that of the
// disk is in the coverage.
func (r *Recorder) Each(ctx context.Context, f event.Filter, visit func(*event.Event)) ([]event.Coverage, error) {
	f.First = true
	q, err := r.query(f)
	if err != nil {
		return nil, err
	}
	q.visit = visit
	q.spool(ctx)
	q.memory(ctx)
	return q.out.Coverage, ctx.Err()
}

// query collects the events that one filter chooses.
type query struct {
	r     *Recorder
	m     *event.Matcher
	ring  span
	since time.Time // of the oldest event in the ring
	after int64     // only later ones, by sequence number
	up    bool      // from the oldest on
	limit int
	visit func(*event.Event) // nil = they are collected
	found []*event.Event     // in the order in which they are looked for; one more than limit, if there is one
	out   event.Page
}

func (r *Recorder) query(f event.Filter) (*query, error) {
	m, err := f.Compile()
	if err != nil {
		return nil, err
	}
	q := &query{r: r, m: m, ring: r.ring.from(0), up: f.First || f.After != "", limit: f.Limit}
	if q.limit == 0 {
		q.limit = event.DefaultLimit
	}
	if f.After != "" {
		id, err := event.ParseID(f.After)
		if err != nil {
			return nil, err
		}
		if id.Install == r.began.Install { // else it is of another record: all of this one is behind it
			q.after = id.Sequence
		}
	}
	q.out.At = event.ID{Install: r.began.Install, Epoch: r.began.Epoch, Sequence: int64(r.began.Epoch) << seqBits}.String() // before the first
	if q.ring.start < q.ring.end {
		q.since = q.ring.at(q.ring.start).ev.Timestamp
		q.out.At = q.ring.at(q.ring.end - 1).ev.Event.ID
	}
	return q, nil
}

func (q *query) full() bool { return len(q.found) > q.limit }

// take takes an event that is chosen.
func (q *query) take(e *event.Event) {
	if q.visit != nil {
		q.visit(e)
		return
	}
	q.found = append(q.found, e)
}

// covers says that a place is looked at.
func (q *query) covers(source string, since time.Time) {
	q.out.Coverage = append(q.out.Coverage, event.Coverage{Source: source, Since: since})
	if q.out.Oldest.IsZero() || !since.IsZero() && since.Before(q.out.Oldest) {
		q.out.Oldest = since
	}
}

// memory looks into the ring.
func (q *query) memory(context.Context) {
	if q.ring.start < q.ring.end {
		q.covers(event.SourceMemory, q.since)
	}
	for i := range q.ring.end - q.ring.start {
		p := q.ring.start + i
		if !q.up {
			p = q.ring.end - 1 - i
		}
		if e := q.ring.at(p); e.seq > q.after && q.m.MatchFacts(&e.Facts) {
			if q.take(e.ev); q.full() {
				return
			}
		}
	}
}

// spool looks for what is older than the ring.
func (q *query) spool(ctx context.Context) {
	if q.r.opts.Spool == nil {
		return
	}
	since, until := q.m.Times()
	sq := spool.Query{Since: since, Until: until, After: q.after, Texts: q.m.Texts(), Newest: !q.up}
	if q.ring.start < q.ring.end {
		sq.Before = q.ring.at(q.ring.start).seq
	}
	if first := q.r.opts.Spool.First(); first == 0 || sq.Before > 0 && first >= sq.Before {
		return // the ring has all of it
	}
	q.covers(event.SourceSpool, q.r.opts.Spool.Status().Oldest)
	err := q.r.opts.Spool.Scan(ctx, sq, func(rec spool.Record) bool {
		e := new(event.Event)
		if json.Unmarshal(rec.JSON, e) == nil && q.m.Match(e) { // the checksum held: what is no document was written by another version
			q.take(e)
		}
		return !q.full()
	})
	if err != nil {
		q.out.Coverage[len(q.out.Coverage)-1].Error = err.Error()
	}
}

// archiveLimit is how long an archive may take to answer.
const archiveLimit = 5 * time.Second

// archive looks for what is older than the spool, where events are exported to.
func (q *query) archive(ctx context.Context) {
	if q.r.opts.Spool == nil || q.r.opts.Spool.Whole() {
		return
	}
	first, oldest := q.r.opts.Spool.First(), q.r.opts.Spool.Status().Oldest
	if q.ring.start < q.ring.end {
		if e := q.ring.at(q.ring.start); first == 0 || e.seq < first { // a small spool
			first, oldest = e.seq, e.ev.Timestamp
		}
	}
	since, until := q.m.Times()
	if first == 0 || q.after >= first-1 || since != 0 && since >= oldest.UnixNano() {
		return // memory and spool have all of it
	}
	sq := spool.Query{Since: since, Until: until, After: q.after, Before: first, Newest: !q.up}
	for _, x := range q.r.opts.Exports {
		a, ok := x.(Archive)
		if !ok {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, archiveLimit)
		from, err := a.Search(ctx, q.r.began.Install, sq, func(e *event.Event) bool {
			if q.m.Match(e) {
				q.take(e)
			}
			return !q.full()
		})
		cancel()
		if err != nil || !from.IsZero() {
			q.covers(a.Name(), from)
		}
		if err != nil {
			q.out.Coverage[len(q.out.Coverage)-1].Error = err.Error()
		}
	}
}

// page is the answer.
func (q *query) page() event.Page {
	p := q.out
	p.Items = q.found
	if q.full() {
		p.Items = q.found[:q.limit]
		if q.up {
			p.Next = p.Items[q.limit-1].Event.ID
		}
	}
	if !q.up {
		slices.Reverse(p.Items)
	}
	if p.Items == nil {
		p.Items = []*event.Event{}
	}
	return p
}

// fill puts the newest events of earlier runs into the ring, as far as they are of the same record.
func (r *Recorder) fill(ctx context.Context) {
	if r.opts.Spool == nil {
		return
	}
	var old []entry
	err := r.opts.Spool.Scan(ctx, spool.Query{Newest: true}, func(rec spool.Record) bool {
		e := new(event.Event)
		if json.Unmarshal(rec.JSON, e) != nil {
			return true
		}
		if id, err := event.ParseID(e.Event.ID); err != nil || id.Install != r.began.Install || id.Sequence != rec.Sequence {
			return false
		}
		old = append(old, entry{ev: e, seq: rec.Sequence, Facts: event.FactsOf(e)})
		return len(old) < r.opts.RingLen
	})
	if err != nil {
		r.log.Warn("events of earlier runs are not all in memory", "err", err)
	}
	slices.Reverse(old)
	r.ring.add(old)
}

// spooled is told by the spool what became of events.
func (r *Recorder) spooled(o spool.Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending -= o.Kept + o.Lost.Total()
	r.accepted += o.Kept
	now := r.now().UTC()
	for class, n := range map[event.Class]int64{event.P0: o.Lost.P0, event.P1: o.Lost.P1, event.P2: o.Lost.P2} {
		if n > 0 {
			r.losses.add("", o.Stage, class, o.Reason, n, now, o.Quiet)
		}
	}
}
