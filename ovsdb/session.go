package ovsdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/ovn-kubernetes/libovsdb/cache"
	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// session is one connection: its only monitor, the cache that the monitor feeds, and the goroutines that serve it.
type session struct {
	*peer
	c       *Client
	number  uint64 // 1 for the first connection that worked
	cache   *cache.TableCache
	begun   bool          // the monitor was answered; the reader's
	dirty   chan struct{} // one pending value: the cache changed
	serving sync.WaitGroup
}

// runSession connects, downloads, publishes and follows until the connection is lost. worked says that a snapshot was published.
func (c *Client) runSession(ctx context.Context, b *builder) (worked bool, err error) {
	dialing, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	conn, err := dialAddress(dialing, c.opts.Address, c.opts.TLS)
	if err != nil {
		return false, err
	}
	s := &session{c: c, peer: newPeer(ctx, conn, c.log), dirty: make(chan struct{}, 1)}
	defer func() {
		s.cancel(ErrLost)
		conn.Close()
		s.serving.Wait()
	}()
	s.serving.Go(func() { s.read(s.notified) })
	if err := s.open(dialing); err != nil {
		return false, err
	}
	if err := s.first(b); err != nil {
		return false, err
	}
	c.sessions++
	s.number = c.sessions
	c.setUp(s)
	c.log.Info("connected", "reconnects", s.number-1)

	s.serving.Go(s.probe)
	err = s.follow(b)
	s.cancel(err)
	reason := err.Error()
	if ctx.Err() != nil {
		reason = "" // wanted
	}
	c.setDown(reason)
	return true, err
}

// monitorID is what the server is to call the monitor.
const monitorID = "tapwall"

// open reads the schema, and then what is monitored. What the answers are taken for happens in the reader, in whose order updates follow.
func (s *session) open(ctx context.Context) error {
	if err := s.call(ctx, "get_schema", []any{databaseName}, s.makeCache); err != nil {
		return err
	}
	s.serving.Go(func() { s.cache.Run(s.ctx.Done()) }) // it has no handlers, and its queue would fill up
	requests := map[string]ovsdb.MonitorRequest{}
	for table, row := range rowTypes() {
		requests[table] = ovsdb.MonitorRequest{Columns: columns(row)}
	}
	// monitor_cond_since would save a download only from a server that remembers transactions across the connection.
	return s.call(ctx, ovsdb.ConditionalMonitorRPC, []any{databaseName, monitorID, requests}, func(result json.RawMessage) error {
		s.begun = true
		return s.populate(result)
	})
}

// makeCache makes an empty cache for a server with this schema.
func (s *session) makeCache(text json.RawMessage) error {
	var schema ovsdb.DatabaseSchema
	if err := json.Unmarshal(text, &schema); err != nil {
		return fmt.Errorf("get_schema: unreadable answer: %w", err)
	}
	if err := checkSchema(&schema); err != nil {
		return err
	}
	ours, err := model.NewClientDBModel(databaseName, rowTypes())
	if err != nil {
		return err
	}
	full, errs := model.NewDatabaseModel(schema, ours)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	logger := logr.FromSlogHandler(s.c.log.Handler())
	s.cache, err = cache.NewTableCache(full, nil, &logger)
	return err
}

// notified takes a notification. Of those that a server may send the monitor's alone was asked for (ovsdb-server(7), Update2 Notification).
func (s *session) notified(m rpcMessage) error {
	if m.Method != "update2" {
		return nil
	}
	var parts []json.RawMessage
	var id string
	if json.Unmarshal(m.Params, &parts) != nil || len(parts) != 2 || json.Unmarshal(parts[0], &id) != nil || id != monitorID || !s.begun {
		return fmt.Errorf("an update that was not asked for: %.80q", m.Params)
	}
	return s.populate(parts[1])
}

func (s *session) populate(updates json.RawMessage) error {
	var u ovsdb.TableUpdates2
	if err := json.Unmarshal(updates, &u); err != nil {
		return fmt.Errorf("update: %w", err)
	}
	if err := s.cache.Populate2(u); err != nil {
		return err
	}
	s.changed()
	return nil
}

func (s *session) changed() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

// first publishes the first snapshot of the session. The cache is complete when open has returned.
func (s *session) first(b *builder) error {
	for torn := 0; ; torn++ {
		err := s.update(b)
		if !errors.Is(err, errTorn) || torn == maxTorn {
			return err
		}
		select {
		case <-s.dirty:
		case <-time.After(s.c.opts.Coalesce):
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
	}
}

func (s *session) update(b *builder) error {
	t, err := readTables(s.cache)
	if err != nil {
		return err
	}
	snap, err := b.build(t)
	if err != nil {
		return err
	}
	s.c.publish(snap)
	return nil
}

// maxTorn is how many attempts in a row may find rows in motion before the cache counts as broken.
const maxTorn = 200

// follow publishes a snapshot after each burst of changes until the session ends, and returns why it did.
func (s *session) follow(b *builder) error {
	torn := 0
	var earliest time.Time
	for {
		select {
		case <-s.dirty:
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
		select {
		case <-time.After(max(s.c.opts.Coalesce, time.Until(earliest))):
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
		// Cleared before reading: a change during the reading leads to another round.
		select {
		case <-s.dirty:
		default:
		}
		start := time.Now()
		err := s.update(b)
		// A database that changes without end gets half of the time, not all of it.
		earliest = time.Now().Add(time.Since(start))
		switch {
		case err == nil:
			torn = 0
		case errors.Is(err, errTorn) && torn < maxTorn:
			torn++
			s.changed()
		default:
			return err
		}
	}
}

// probe ends the session when the server stops answering.
func (s *session) probe() {
	tick := time.NewTicker(s.c.opts.ProbeInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(s.ctx, s.c.opts.ProbeTimeout)
		err := s.call(ctx, "transact", []any{databaseName}, func(json.RawMessage) error { return nil })
		cancel()
		if err != nil && s.ctx.Err() == nil {
			s.cancel(fmt.Errorf("%w: no answer to a probe (at most %v): %w", ErrLost, s.c.opts.ProbeTimeout, err))
			return
		}
	}
}

// transact sends one transaction and returns the results of its operations. Errors: ErrNotConnected (surely not sent),
// ErrUnknownOutcome, *OpError.
func (s *session) transact(ctx context.Context, ops []ovsdb.Operation) ([]ovsdb.OperationResult, error) {
	if s.ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotConnected, context.Cause(s.ctx))
	}
	ctx, cancel := context.WithTimeout(ctx, s.c.opts.Timeout)
	defer cancel()
	var results []ovsdb.OperationResult
	err := s.call(ctx, "transact", ovsdb.NewTransactArgs(databaseName, ops...), func(result json.RawMessage) error {
		return json.Unmarshal(result, &results)
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	return results, checkResults(results, ops)
}

// checkResults turns the failure of an operation, or of the commit after them, into an *OpError.
func checkResults(results []ovsdb.OperationResult, ops []ovsdb.Operation) error {
	for i, r := range results {
		if r.Error == "" {
			continue
		}
		e := &OpError{Index: i, Code: r.Error, Details: r.Details}
		if i < len(ops) {
			e.Op, e.Table = ops[i].Op, ops[i].Table
		} else {
			e.Index, e.Op = -1, "commit"
		}
		return e
	}
	if len(results) < len(ops) {
		return fmt.Errorf("%w: %d results for %d operations", ErrUnknownOutcome, len(results), len(ops))
	}
	return nil
}
