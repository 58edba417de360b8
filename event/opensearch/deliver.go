package opensearch

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/spool"
)

// bulkPath asks for no more than what became of each document.
const bulkPath = "/_bulk?filter_path=items.*.status,items.*.error.type,items.*.error.reason"

// deliver sends a chunk until every record of it has its fate, or ctx ends: then it is read again by the next run.
func (s *Sink) deliver(ctx context.Context, ch *spool.Chunk) {
	var done spool.Done
	todo := make([]doc, 0, len(ch.Records))
	now := s.o.Now()
	for _, r := range ch.Records {
		d, err := docOf(s.o.Prefix, r)
		switch {
		case err != nil:
			if !s.bury(ctx, doc{json: r.JSON}, problem{"no_document", err.Error()}) {
				return
			}
			done.Dead++
		case s.tooOld(d, now):
			done.Expired++ // it would bring back an index that was deleted
		default:
			todo = append(todo, d)
		}
	}
	if !s.deliverDocs(ctx, todo, &done) {
		return
	}
	s.cursor.Done(ch, done)
}

// deliverDocs sends documents until each has its fate, and counts it. false = ctx ended before, or the sink is closed.
func (s *Sink) deliverDocs(ctx context.Context, todo []doc, done *spool.Done) bool {
	for attempt := 0; len(todo) > 0; attempt++ {
		if attempt > 0 {
			s.mu.Lock()
			s.retries++
			s.mu.Unlock()
			pause(s.reading, s.wait(attempt-1))
			if s.reading.Err() != nil {
				return false
			}
		}
		if ctx.Err() != nil {
			return false
		}
		items, err := s.attempt(ctx, todo)
		if tooLarge(err) && len(todo) > 1 || tooSlow(err) && len(todo) > smallBatch {
			s.failed(err)
			s.smaller(tooLarge(err))
			half := len(todo) / 2
			return s.deliverDocs(ctx, todo[:half], done) && s.deliverDocs(ctx, todo[half:], done)
		}
		if tooLarge(err) {
			items, err = []item{{http.StatusBadRequest, problem{"too_large", err.Error()}}}, nil
		}
		if err != nil {
			if ctx.Err() == nil {
				s.failed(err)
			}
			continue
		}
		left := todo[:0]
		var why item
		for i, it := range items {
			switch it.fate() {
			case created:
				done.Created++
			case duplicate:
				done.Duplicates++
			case dead:
				if !s.bury(ctx, todo[i], it.Error) {
					return false
				}
				done.Dead++
			case again:
				why = it
				left = append(left, todo[i])
			}
		}
		if len(left) < len(todo) {
			attempt = 0 // it goes on
		}
		todo = left
		if len(todo) > 0 {
			err := &statusError{status: why.Status, kind: why.Error.Type, reason: why.Error.Reason}
			s.failed(err)
			s.distrust(err)
		} else {
			s.succeeded()
		}
	}
	return true
}

// attempt sends one request, when it is its turn and the templates stand. It is made before, so that the server does not wait for it.
func (s *Sink) attempt(ctx context.Context, docs []doc) ([]item, error) {
	body, err := packed(docs)
	if err != nil {
		return nil, err
	}
	select {
	case <-s.tokens:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.count(1)
	begin := time.Now()
	items, err := s.send(ctx, body, len(docs))
	s.count(-1)
	s.giveBack(err == nil, len(docs) == batchRecords, time.Since(begin))
	return items, err
}

func (s *Sink) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight += n
}

// giveBack returns the right to send: one more if the server keeps up and there is more to send, one less if it failed, but one at least.
func (s *Sink) giveBack(ok, full bool, took time.Duration) {
	s.mu.Lock()
	if ok && took < slowAnswer/2 {
		s.batchSize = min(s.batchSize+s.batchSize/8, s.largest)
	}
	n := 1
	switch {
	case !ok && s.granted > 1:
		n = 0
	case ok && full && took < slowAnswer && s.granted < maxInFlight:
		n = 2
	}
	s.granted += n - 1
	s.mu.Unlock()
	for range n {
		s.tokens <- struct{}{}
	}
}

// send sends the body of so many documents.
func (s *Sink) send(ctx context.Context, body []byte, docs int) ([]item, error) {
	if err := s.trust(ctx); err != nil {
		return nil, err
	}
	answer, err := s.client.bulk(ctx, bulkPath, body)
	var items []item
	if err == nil {
		items, err = parseBulk(answer, docs)
	}
	if err != nil {
		s.distrust(err)
	}
	return items, err
}

// trust makes sure that the templates stand, before the first documents and after each failure: the server may be another one.
func (s *Sink) trust(ctx context.Context) error {
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.verified {
		return nil
	}
	if err := s.client.ensure(ctx, s.templates); err != nil {
		return err
	}
	s.verified = true
	return nil
}

func (s *Sink) distrust(err error) {
	if answered(err, http.StatusTooManyRequests) || tooLarge(err) {
		return // it is there, and busy
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	s.verified = false
}

func tooLarge(err error) bool { return answered(err, http.StatusRequestEntityTooLarge) }

// tooSlow says that the server did not answer in time: it may not manage as much at once.
func tooSlow(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// smaller has later requests smaller, for good if the server takes no larger ones.
func (s *Sink) smaller(forGood bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batchSize = max(s.batchSize/2, 64<<10)
	if forGood {
		s.largest = min(s.largest, s.batchSize)
	}
}

// bury writes a dead letter, again and again if the disk does not take it. false = ctx ended before.
func (s *Sink) bury(ctx context.Context, d doc, why problem) bool {
	for attempt := 0; ; attempt++ {
		discarded, err := s.letters.add(d, why, s.o.Now())
		s.tell(event.StageDeadLetter, "too_many", discarded)
		if err == nil {
			s.tellRefusal(d, why)
			return true
		}
		s.failed(err)
		if pause(s.reading, s.wait(attempt)); s.reading.Err() != nil || ctx.Err() != nil {
			return false
		}
	}
}

// refusalsEvery is how often the log has a refusal at most: where a mapping is wrong, every document is refused.
const refusalsEvery = 10 * time.Second

// tellRefusal logs the first dead letter, and later one now and then, with the number of all.
func (s *Sink) tellRefusal(d doc, why problem) {
	now := s.o.Now()
	s.mu.Lock()
	s.refused++
	n := s.refused
	due := now.Sub(s.refusalTold) >= refusalsEvery
	if due {
		s.refusalTold = now
	}
	s.mu.Unlock()
	if due {
		s.log.Warn("a document was refused and is kept as a dead letter", "id", d.id, "index", d.index, "type", why.Type, "reason", why.Reason,
			"refused", n)
	}
}
