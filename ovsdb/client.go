package ovsdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// Client is the connection to one database. Run keeps it alive; all other methods may be called at any time, from any goroutine.
type Client struct {
	opts Options
	log  *slog.Logger

	running  atomic.Bool
	sessions uint64 // connections that worked; owned by Run
	current  atomic.Pointer[snapshot]
	ready    chan struct{} // closed with the first snapshot

	// mu guards what follows. It is never held while something blocks.
	mu      sync.Mutex
	status  Status
	session *session // nil while disconnected
	wakeups map[*wakeup]struct{}

	// applying serialises Apply: one transaction at a time, each computed from a snapshot that holds the one before.
	applying chan struct{}
	lastCfg  atomic.Int64 // highest next_cfg that a transaction of ours committed
}

// Status is the state of the connection.
type Status struct {
	Connected bool
	Address   string
	// Since is when Connected last changed; before the first connection, when the Client was made.
	Since time.Time
	// LastError says why the connection is down or was lost last, with a hint about what to do; "" if nothing ever failed.
	LastError string
	// Reconnects counts the connections after the first.
	Reconnects uint64
	// Transactions counts the write transactions that were sent.
	Transactions uint64
}

// New makes a Client; Run connects it. The error is ErrAddress.
func New(opts Options) (*Client, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	return &Client{
		opts:     opts,
		log:      opts.Logger.With("ovsdb", opts.Address),
		ready:    make(chan struct{}),
		status:   Status{Address: opts.Address, Since: time.Now()},
		wakeups:  map[*wakeup]struct{}{},
		applying: make(chan struct{}, 1),
	}, nil
}

// String names the task.
func (c *Client) String() string { return "ovsdb " + c.opts.Address }

// Ready is closed with the first complete snapshot.
func (c *Client) Ready() <-chan struct{} { return c.ready }

// Run connects, and connects again whenever the connection is lost, until ctx ends; then it returns nil. No failure of the server
// ends it, also not at the first attempt. It may run once only.
func (c *Client) Run(ctx context.Context) error {
	if !c.running.CompareAndSwap(false, true) {
		return errors.New("ovsdb: Run was called twice")
	}
	b := newBuilder(c.opts.Address)
	pause := c.opts.BackoffMin
	logged := ""
	for ctx.Err() == nil {
		worked, err := c.runSession(ctx, b)
		if ctx.Err() != nil {
			break
		}
		text := err.Error()
		if h := hint(c.opts.Address, err, worked); h != "" {
			text += " (" + h + ")"
		}
		c.setDown(text)
		// A server that stays away is one line in the log, not one per attempt.
		if worked || text != logged {
			c.log.Warn("no connection, trying again", "err", text)
		}
		logged = text
		if worked {
			pause = c.opts.BackoffMin
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, c.opts.BackoffMax)
	}
	c.setDown("")
	return nil
}

// Topology returns the newest snapshot; nil before the first. While the connection is down it is the last one before the loss.
func (c *Client) Topology() *vswitch.Topology {
	if s := c.current.Load(); s != nil {
		return s.topo
	}
	return nil
}

// Status returns the state of the connection.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

type wakeup struct{ ch chan struct{} }

// Subscribe returns a channel that receives one value after a new snapshot was published or the connection came or went. Wake-ups
// coalesce and never block the Client; look at Topology and Status after each. Call cancel when done; the channel is not closed.
func (c *Client) Subscribe() (wake <-chan struct{}, cancel func()) {
	w := &wakeup{ch: make(chan struct{}, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wakeups[w] = struct{}{}
	return w.ch, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.wakeups, w)
	}
}

func (c *Client) wakeLocked() {
	for w := range c.wakeups {
		select {
		case w.ch <- struct{}{}:
		default:
		}
	}
}

// publish makes s the newest snapshot.
func (c *Client) publish(s *snapshot) {
	old := c.current.Swap(s)
	if old == s {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old == nil {
		close(c.ready)
	}
	c.wakeLocked()
}

// setUp marks the connection as working. It comes after the first snapshot of the connection, so whoever sees Connected sees a
// topology of this connection.
func (c *Client) setUp(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.number > 1 {
		c.status.Reconnects++
	}
	c.status.Connected, c.status.Since = true, time.Now()
	c.session = s
	c.wakeLocked()
}

func (c *Client) setDown(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = nil
	if reason != "" {
		c.status.LastError = reason
	}
	if c.status.Connected {
		c.status.Connected, c.status.Since = false, time.Now()
		c.wakeLocked()
	}
}

// connected returns the live session and the newest snapshot, or ErrNotConnected.
func (c *Client) connected() (*session, *snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.current.Load()
	if c.session == nil || s == nil {
		if c.status.LastError != "" {
			return nil, nil, fmt.Errorf("%w: %s", ErrNotConnected, c.status.LastError)
		}
		return nil, nil, ErrNotConnected
	}
	return c.session, s, nil
}
