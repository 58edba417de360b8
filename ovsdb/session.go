package ovsdb

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/ovn-kubernetes/libovsdb/cache"
	"github.com/ovn-kubernetes/libovsdb/client"
	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// session is one connection: a library client made for it, its only monitor and the goroutines that serve it.
type session struct {
	c      *Client
	number uint64 // 1 for the first connection that worked
	lib    client.Client
	cache  *cache.TableCache
	dirty  chan struct{} // one pending value: the cache changed
	// ctx ends when the connection is lost or given up; context.Cause says why.
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// runSession connects, downloads, publishes and follows until the connection is lost. worked says that a snapshot was published.
func (c *Client) runSession(ctx context.Context, b *builder) (worked bool, err error) {
	dbModel, err := model.NewClientDBModel(databaseName, rowTypes())
	if err != nil {
		return false, err
	}
	logger := logr.FromSlogHandler(c.log.Handler())
	lib, err := client.NewOVSDBClient(dbModel,
		client.WithEndpoint(c.opts.Address), client.WithTLSConfig(c.opts.TLS), client.WithLogger(&logger))
	if err != nil {
		return false, err
	}
	s := &session{c: c, lib: lib, dirty: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancelCause(ctx)

	// The library reports a loss only to somebody who is listening at that moment.
	gone := make(chan struct{})
	stop := make(chan struct{})
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		select {
		case <-lib.DisconnectNotify():
			s.cancel(ErrLost)
			close(gone)
		case <-stop:
		}
	}()
	opened := false
	defer func() {
		s.cancel(ErrLost)
		s.close(opened, gone)
		close(stop)
		<-watching
	}()

	if err := s.open(&opened); err != nil {
		// The library keeps to itself what the schema lacks, and why a server hangs up on TLS.
		if strings.Contains(err.Error(), "validation error") || strings.HasPrefix(c.opts.Address, "ssl:") {
			ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
			defer cancel()
			if schemaErr := checkSchema(ctx, c.opts.Address, c.opts.TLS); schemaErr != nil {
				return false, schemaErr
			}
		}
		return false, err
	}
	if err := s.first(b); err != nil {
		return false, err
	}
	c.sessions++
	s.number = c.sessions
	c.setUp(s)
	c.log.Info("connected", "reconnects", s.number-1)

	probing := make(chan struct{})
	go func() {
		defer close(probing)
		s.probe()
	}()
	err = s.follow(b)
	s.cancel(err)
	reason := err.Error()
	if ctx.Err() != nil {
		reason = "" // wanted
	}
	c.setDown(reason)
	<-probing
	return true, err
}

// open connects and starts the monitor.
func (s *session) open(opened *bool) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.c.opts.Timeout)
	defer cancel()
	err := s.guard(ctx, func() error { return s.lib.Connect(ctx) })
	if err != nil {
		return s.reason(err)
	}
	*opened = true
	// The pointer is kept: the library forgets its cache the moment the connection is lost.
	s.cache = s.lib.Cache()
	if s.cache == nil {
		return ErrLost
	}
	changed := s.changed
	s.cache.AddEventHandler(&cache.EventHandlerFuncs{
		AddFunc:    func(string, model.Model) { changed() },
		UpdateFunc: func(string, model.Model, model.Model) { changed() },
		DeleteFunc: func(string, model.Model) { changed() },
	})
	monitor := s.lib.NewMonitor()
	// monitor_cond_since would save a download only from a server that remembers transactions across the connection, and the
	// library drops the errors of its updates, which are the sign of a cache gone wrong.
	monitor.Method = ovsdb.ConditionalMonitorRPC
	for table, row := range rowTypes() {
		monitor.Tables = append(monitor.Tables, client.TableMonitor{Table: table, Fields: columns(row)})
	}
	return s.reason(s.guard(ctx, func() error {
		// Without a deadline of its own: a Monitor that gives up waiting looks at its answer while another goroutine may be
		// writing it. The call ends with the answer or the connection; guard does not wait that long.
		_, err := s.lib.Monitor(context.WithoutCancel(ctx), monitor)
		return err
	}))
}

func (s *session) changed() {
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

// guard runs a call of the library on a goroutine of its own, so that neither a panic in it nor a write that ignores its context
// takes the caller with it.
func (s *session) guard(ctx context.Context, call func() error) error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				s.c.log.Error("panic in the database library", "panic", r, "stack", string(debug.Stack()))
				done <- fmt.Errorf("%w: %v", ErrLibrary, r)
			}
		}()
		done <- call()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reason prefers why the session ended over what a call said when it did.
func (s *session) reason(err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(s.ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// first publishes the first snapshot of the session. The cache is complete when Monitor has returned.
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

// probe ends the session when the server stops answering. It sends an empty transaction and not an echo: the library's Echo looks
// at its answer also when it gave up waiting for it, while another goroutine may be writing it.
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
		err := s.guard(ctx, func() error {
			_, err := s.lib.Transact(ctx)
			return err
		})
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
	ended := context.AfterFunc(s.ctx, cancel)
	defer ended()

	reply := make(chan []ovsdb.OperationResult, 1)
	err := s.guard(ctx, func() error {
		r, err := s.lib.Transact(ctx, ops...)
		reply <- r
		return err
	})
	if err != nil {
		// Also when the library says that it is not connected: it says so as well when it closed while the answer was awaited.
		return nil, fmt.Errorf("%w: %w", ErrUnknownOutcome, s.reason(err))
	}
	results := <-reply
	return results, checkResults(results, ops)
}

// checkResults turns the failure of an operation, or of the commit after them, into an *OpError. The library's Transact reports
// neither.
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

// closeTimeout bounds the wait for the library's goroutines.
const closeTimeout = time.Second

// close ends the connection and waits for the library's goroutines. A write that hangs in the kernel, because the server has
// stopped reading, also blocks the library's Close; it is left behind then, and goes when the server reads again or dies.
func (s *session) close(opened bool, gone <-chan struct{}) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.lib.Close()
	}()
	timeout := time.After(closeTimeout)
	select {
	case <-closed:
	case <-timeout:
		s.c.log.Warn("the database library does not close its connection; leaving it behind")
		return
	}
	if !opened {
		return // a Connect that failed has cleaned up after itself
	}
	select {
	case <-gone:
	case <-timeout:
	}
}
