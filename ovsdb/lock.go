package ovsdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// lockName is the lock that the one tapwall of a host holds. Locks are a matter of a server, not of a database (RFC 7047 §4.1.8).
const lockName = "tapwall"

// ErrLocked: another tapwall holds the lock of this host. The text says which.
var ErrLocked = errors.New("ovsdb: another tapwall manages this Open vSwitch")

// Lock is the right to change one host, held at its database server, so that it works from anywhere. The server gives it to one
// connection at a time and passes it on when that connection ends; who waits is told. The server ties locks to
// a connection, and a Lock has one of its own.
//
// The holder writes who it is into external_ids:tapwall-holder of the Open_vSwitch row, under an assertion that it still holds the
// lock, and counts as holder only then.
type Lock struct {
	opts   Options
	log    *slog.Logger
	holder string // who we are
	wake   chan struct{}

	steal bool // of Options, until it is done; owned by Run

	running atomic.Bool
	held    atomic.Bool

	mu   sync.Mutex
	err  error     // why it is not held
	lost time.Time // when it was, with the connection; zero = long ago, or the server could not be reached since
}

// askFor is how long it may take after a loss to find out whether the server is there.
const askFor = 500 * time.Millisecond

// Asking reports whether the connection was lost while the lock was held, just now, and it is not known yet whether the server is
// down: a process that was stopped for a while finds its connections closed, and the lock another's.
func (l *Lock) Asking() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.lost.IsZero() && time.Since(l.lost) < askFor
}

// NewLock makes a Lock; Run acquires it. Of the options it uses what New uses. The error is ErrAddress.
func NewLock(opts Options) (*Lock, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	name, err := os.Hostname()
	if err != nil {
		name = "unknown host"
	}
	return &Lock{
		opts:   opts,
		log:    opts.Logger.With("ovsdb", opts.Address),
		holder: fmt.Sprintf("pid %d on %s since %s", os.Getpid(), name, time.Now().UTC().Format(time.RFC3339Nano)),
		wake:   make(chan struct{}, 1),
		steal:  opts.Steal,
		err:    ErrNotConnected,
	}, nil
}

// String names the task.
func (l *Lock) String() string { return "lock of " + l.opts.Address }

// Held reports whether the lock is held. It is false the moment the connection is lost, is known to be silent
// (Options.ProbeInterval and ProbeTimeout, 7 s by default, before a server with the default probe of 5 s gives up on us), or
// somebody steals the lock.
func (l *Lock) Held() bool { return l.held.Load() }

// Err says why the lock is not held; nil while it is. It matches ErrLocked when another holds it, else ErrNotConnected: nobody could
// be asked, and while the server is down nobody else can get the lock there either.
func (l *Lock) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Wake receives a value after Held or Err has changed. Values coalesce; it is for one receiver and is not closed.
func (l *Lock) Wake() <-chan struct{} { return l.wake }

// Run acquires the lock, waits for it while another has it, and acquires it again whenever it is lost, until ctx ends; then it
// releases the lock and returns nil. It may run once only.
func (l *Lock) Run(ctx context.Context) error {
	if !l.running.CompareAndSwap(false, true) {
		return errors.New("ovsdb: Run of a lock was called twice")
	}
	pause := l.opts.BackoffMin
	for ctx.Err() == nil {
		answered, err := l.session(ctx)
		l.unheld(ctx, err, answered)
		if answered {
			pause = l.opts.BackoffMin
		} else {
			l.unreachable()
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, l.opts.BackoffMax)
	}
	return nil
}

// unreachable ends Asking.
func (l *Lock) unreachable() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = time.Time{}
	l.poke()
}

func (l *Lock) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// unheld publishes that there is no connection; answered = there was one.
func (l *Lock) unheld(ctx context.Context, err error, answered bool) {
	if ctx.Err() != nil {
		err = ctx.Err()
	} else if h := hint(l.opts.Address, err, answered); h != "" {
		err = fmt.Errorf("%w (%s)", err, h)
	}
	l.set(fmt.Errorf("%w: %w", ErrNotConnected, err))
}

// set publishes why the lock is not held; nil = it is.
func (l *Lock) set(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if (err == nil) == (l.err == nil) && (err == nil || err.Error() == l.err.Error()) {
		return
	}
	switch {
	case !errors.Is(err, ErrNotConnected):
		l.lost = time.Time{}
	case l.held.Load():
		l.lost = time.Now()
		time.AfterFunc(askFor, l.poke)
	}
	l.err = err
	l.held.Store(err == nil)
	switch {
	case err == nil:
		l.log.Info("the lock of the host is held", "holder", l.holder)
	case !errors.Is(err, context.Canceled):
		l.log.Warn("the lock of the host is not held", "err", err)
	}
	l.poke()
}

// lockSession is one connection. Its loop owns everything but the decoder.
type lockSession struct {
	l       *Lock
	conn    net.Conn
	granted bool // the server has given us the lock
	stole   bool // it was asked for by steal
	pending int  // requests without an answer
	silence *time.Timer
}

// session runs one connection until it ends or ctx does; answered says that the server granted or queued the request.
func (l *Lock) session(ctx context.Context) (answered bool, err error) {
	dialing, cancel := context.WithTimeout(ctx, l.opts.Timeout)
	defer cancel()
	conn, err := dialAddress(dialing, l.opts.Address, l.opts.TLS)
	if err != nil {
		return false, err
	}
	messages, stop := make(chan rpcMessage), make(chan struct{})
	var readErr error // valid once messages is closed
	go func() {
		defer close(messages)
		in := newDecoder(conn, maxLockMessage)
		for {
			var m rpcMessage
			if m, readErr = in.next(); readErr != nil {
				return
			}
			select {
			case messages <- m:
			case <-stop:
				return
			}
		}
	}()
	defer func() {
		close(stop)
		conn.Close()
		for range messages {
		}
	}()
	defer func() { l.unheld(ctx, err, answered) }() // before the connection is closed: with TLS that may take seconds

	s := &lockSession{l: l, conn: conn, silence: time.NewTimer(l.opts.Timeout)}
	defer s.silence.Stop()
	probe := time.NewTicker(l.opts.ProbeInterval)
	defer probe.Stop()
	method := "lock"
	if s.stole = l.steal; s.stole {
		method = "steal"
	}
	if err := s.request("lock", method, lockName); err != nil {
		return false, err
	}
	ended := ctx.Done()
	for {
		select {
		case m, open := <-messages:
			if !open {
				return answered, readErr
			}
			err := s.handle(m)
			answered = answered || m.Method == "" // an answer to a request of ours
			if errors.Is(err, errReleased) {
				return answered, nil
			}
			if err != nil {
				return answered, err
			}
		case <-probe.C:
			if s.pending == 0 {
				if err := s.transact("probe", selectHolder); err != nil {
					return answered, err
				}
			}
		case <-s.silence.C:
			if s.pending > 0 {
				return answered, fmt.Errorf("%w: no answer within %v", ErrLost, l.opts.ProbeTimeout)
			}
		case <-ended:
			if !s.granted {
				return answered, nil
			}
			ended = nil
			l.unheld(ctx, nil, true)
			if err := s.transact("release", assertLock, forgetHolder); err != nil {
				return answered, err
			}
		}
	}
}

// errReleased ends a session that has said goodbye.
var errReleased = errors.New("released")

// The operations (RFC 7047 §5.2). The Open_vSwitch table has one row at most.
var (
	assertLock   = map[string]any{"op": "assert", "lock": lockName}
	selectHolder = map[string]any{"op": "select", "table": tableRoot, "where": []any{}, "columns": []string{"external_ids"}}
	forgetHolder = map[string]any{"op": "mutate", "table": tableRoot, "where": []any{},
		"mutations": []any{[]any{"external_ids", "delete", []any{"set", []string{vswitch.MarkHolder}}}}}
)

func nameHolder(holder string) any {
	return map[string]any{"op": "mutate", "table": tableRoot, "where": []any{}, "mutations": []any{
		// Inserting into a map does not replace a key that exists.
		[]any{"external_ids", "delete", []any{"set", []string{vswitch.MarkHolder}}},
		[]any{"external_ids", "insert", []any{"map", []any{[]string{vswitch.MarkHolder, holder}}}},
	}}
}

func (s *lockSession) transact(id string, ops ...any) error {
	return s.request(id, "transact", append([]any{databaseName}, ops...)...)
}

func (s *lockSession) request(id, method string, params ...any) error {
	if s.pending++; s.pending == 1 {
		s.silence.Reset(s.l.opts.ProbeTimeout)
	}
	return s.send(map[string]any{"id": id, "method": method, "params": params})
}

func (s *lockSession) send(v any) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(s.l.opts.ProbeTimeout)); err != nil {
		return err
	}
	return json.NewEncoder(s.conn).Encode(v)
}

// handle takes one message of the server.
func (s *lockSession) handle(m rpcMessage) error {
	switch m.Method {
	case "":
		return s.answer(m)
	case "echo":
		return s.send(map[string]any{"id": m.ID, "result": m.Params, "error": nil})
	case "locked", "stolen":
		if name := m.lock(); name != lockName {
			return fmt.Errorf("%s notification for lock %.40q", m.Method, name)
		}
		return s.grant(m.Method == "locked")
	}
	return nil // nothing that we asked for
}

// grant follows what the server says of the lock.
func (s *lockSession) grant(granted bool) error {
	s.granted = granted
	if granted {
		return s.transact("hold", assertLock, nameHolder(s.l.holder))
	}
	s.l.set(fmt.Errorf("%w (who it is is not known yet)", ErrLocked))
	if s.stole { // what was stolen twice is not given back by itself
		s.stole = false
		if err := s.request("unlock", "unlock", lockName); err != nil {
			return err
		}
		return s.request("lock", "lock", lockName)
	}
	return s.transact("probe", selectHolder)
}

func (s *lockSession) answer(m rpcMessage) error {
	if s.pending--; s.pending < 0 {
		return errors.New("an answer to no request")
	}
	s.silence.Reset(s.l.opts.ProbeTimeout)
	if m.id() == "unlock" {
		return nil
	}
	if m.failed() {
		return fmt.Errorf("request %s is refused: %.200s", m.id(), m.Error)
	}
	switch m.id() {
	case "lock":
		var r struct{ Locked bool }
		if err := json.Unmarshal(m.Result, &r); err != nil {
			return fmt.Errorf("answer to lock: %w", err)
		}
		s.l.steal = s.l.steal && !r.Locked
		return s.grant(r.Locked)
	case "hold":
		_, err := m.operations()
		if errors.Is(err, errNotOwner) {
			return nil // stolen meanwhile, which the server also says
		}
		if err == nil && s.granted {
			s.l.set(nil)
		}
		return err
	case "probe":
		holder, err := m.operations()
		if err == nil && !s.granted && holder != "" && holder != s.l.holder {
			s.l.set(fmt.Errorf("%w: %s", ErrLocked, printable(holder)))
		}
		return err
	case "release":
		return errReleased
	}
	return fmt.Errorf("an answer to %.40q, which was not asked", m.id())
}

// maxLockMessage bounds one message of the server: the external_ids of one row, or a few words.
const maxLockMessage = 1 << 20

// lock is the name in a locked or stolen notification; "" = there is none.
func (m rpcMessage) lock() string {
	var params []string
	if json.Unmarshal(m.Params, &params) != nil || len(params) != 1 {
		return ""
	}
	return params[0]
}

var errNotOwner = errors.New("the lock is not ours")

// operations reads the results of a transaction: the holder that a select has found, "" for none. The error tells of the first
// operation that failed; it matches errNotOwner when that was the assertion (RFC 7047 §5.2.10).
func (m rpcMessage) operations() (holder string, err error) {
	var results []*struct {
		Error, Details string
		Rows           []struct {
			ExternalIDs []json.RawMessage `json:"external_ids"`
		}
	}
	if err := json.Unmarshal(m.Result, &results); err != nil {
		return "", fmt.Errorf("results of a transaction: %w", err)
	}
	for _, r := range results {
		switch {
		case r == nil: // not carried out, because of the one that failed
		case r.Error == "not owner":
			return "", errNotOwner
		case r.Error != "":
			return "", fmt.Errorf("%.80s: %.200s", r.Error, r.Details)
		case len(r.Rows) > 0 && len(r.Rows[0].ExternalIDs) == 2:
			var pairs [][2]string // ["map", [[key, value], …]] (RFC 7047 §5.1)
			if err := json.Unmarshal(r.Rows[0].ExternalIDs[1], &pairs); err != nil {
				return "", fmt.Errorf("external_ids: %w", err)
			}
			for _, p := range pairs {
				if p[0] == vswitch.MarkHolder {
					holder = p[1]
				}
			}
		}
	}
	return holder, nil
}

// printable keeps what others may have written from doing harm in a terminal.
func printable(s string) string {
	if quoted := fmt.Sprintf("%.200q", s); len(quoted) != len(s)+2 {
		return quoted
	}
	return s
}
