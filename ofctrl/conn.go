package ofctrl

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/internal/pki"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// ConnOptions are the inputs of [Dial] and [NewConn]. The zero value of everything but Address is usable.
type ConnOptions struct {
	Address string // mandatory for Dial: unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT
	TLS     *tls.Config
	Logger  *slog.Logger
	// ControllerID is the id under which controller actions reach this connection.
	ControllerID uint16
	// Timeout bounds dialling with handshake, and each write; 0 = 10 s.
	Timeout time.Duration
	// ProbeInterval is the silence after which an echo request is sent, 0 = 5 s, negative = no probes; ProbeTimeout is how long
	// that may take, 0 = ProbeInterval. While a bundle is under way, silence is borne for as long as that may take.
	ProbeInterval, ProbeTimeout time.Duration
	// Handlers are called for what comes unasked, in order, on the reader. They must not block or wait for this Conn.
	Handlers Handlers
}

// Handlers take the messages that a switch sends unasked; nil ones are skipped. Messages alias the read buffer where
// package ofp says so, and a packet-in is the same one each time: they must not be kept.
type Handlers struct {
	PacketIn    func(*ofp.PacketIn)
	PortStatus  func(*ofp.PortStatus)
	FlowRemoved func(*ofp.FlowRemoved)
	FlowUpdates func(*ofp.FlowUpdates)
	// MonitorPaused says that flow updates stop (true) or go on (false); some may be missing from in between.
	MonitorPaused func(bool)
}

// Conn is one OpenFlow 1.3 connection to a switch. It has one reader goroutine, which sees every message in the order in
// which the switch sent it, and one writer goroutine, so the switch is always read from while it is written to. All methods
// are safe for concurrent use.
type Conn struct {
	opts ConnOptions
	log  *slog.Logger
	nc   net.Conn
	out  *outbox

	pending  pending
	features ofp.FeaturesReply
	hello    chan struct{} // closed by the reader when version 1.3 is agreed
	// The reader's.
	greeted  bool         // hello is closed
	unasked  bool         // the last message was a packet-in
	packetIn ofp.PacketIn // that is being handed on

	done  chan struct{} // closed by fail
	fail1 sync.Once
	err   error // valid once done is closed
	wg    sync.WaitGroup

	received     atomic.Int64 // when something last arrived, in ns since start
	probed       atomic.Int64 // when the last echo request was sent, likewise; 0 = never
	patience     atomic.Int64 // deadlines of the bundles under way, in ns
	start        time.Time
	decodeErrors atomic.Uint64
	lateErrors   atomic.Uint64
}

// Dial connects to a switch and makes the connection ready: version 1.3 agreed, features known, packet-ins enabled in the
// extended format. Errors match [ErrVersion], [ErrProtocol] or those of package net.
func Dial(ctx context.Context, opts ConnOptions) (*Conn, error) {
	if opts.Timeout <= 0 {
		opts.Timeout = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	nc, err := dial(ctx, opts.Address, opts.TLS)
	if err != nil {
		return nil, err
	}
	c, err := NewConn(ctx, nc, opts)
	if err != nil && strings.HasPrefix(opts.Address, "ssl:") {
		if why := pki.Refused(err); why != "" {
			err = fmt.Errorf("%w (%s)", err, why)
		}
	}
	return c, err
}

// NewConn is Dial over a transport that is there already; it takes over nc and closes it on failure.
func NewConn(ctx context.Context, nc net.Conn, opts ConnOptions) (*Conn, error) {
	if opts.Timeout <= 0 {
		opts.Timeout = 10 * time.Second
	}
	if opts.ProbeInterval == 0 {
		opts.ProbeInterval = 5 * time.Second
	}
	if opts.ProbeTimeout <= 0 {
		opts.ProbeTimeout = opts.ProbeInterval
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Conn{
		opts: opts, log: opts.Logger, nc: nc, out: newOutbox(),
		hello: make(chan struct{}), done: make(chan struct{}), start: time.Now(),
	}
	c.wg.Go(c.read)
	c.wg.Go(c.write)
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	if err := c.handshake(ctx); err != nil {
		c.fail(err)
		c.wg.Wait()
		// What ended the connection says more than that the handshake did not get its answer.
		if errors.Is(err, ErrClosed) {
			err = c.err
		}
		return nil, fmt.Errorf("handshake: %w", err)
	}
	if opts.ProbeInterval > 0 {
		c.wg.Go(c.probe)
	}
	return c, nil
}

// handshake follows OpenFlow 1.3.5 §6.3.1: hellos cross, then features, then what makes the switch send packet-ins.
func (c *Conn) handshake(ctx context.Context) error {
	// Our bitmap names 1.3 alone: nothing else can be decoded, so nothing else must be agreed on.
	if err := c.out.append(ctx, func(dst []byte) ([]byte, error) {
		return ofp.AppendHello(dst, c.pending.xids(1), ofp.Version13), nil
	}); err != nil {
		return err
	}
	select {
	case <-c.hello:
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("no hello: %w", ctx.Err())
	}
	m, err := c.request(ctx, "features request", func(dst []byte, xid uint32) ([]byte, error) {
		return ofp.AppendFeaturesRequest(dst, xid), nil
	})
	if err != nil {
		return err
	}
	features, ok := m.(*ofp.FeaturesReply)
	if !ok {
		return fmt.Errorf("features request answered by %v: %w", m.Head().Type, ErrProtocol)
	}
	c.features = *features
	// The management socket of a bridge sends no packet-ins before miss_send_len is set.
	return c.Do(ctx, 3, func(dst []byte, xid uint32, i int) ([]byte, error) {
		switch i {
		case 0:
			return ofp.AppendSetConfig(dst, xid, 0, 0xffff), nil
		case 1:
			return ofp.AppendSetPacketInFormat(dst, xid, ofp.FormatNXM2), nil
		}
		return ofp.AppendSetControllerID(dst, xid, c.opts.ControllerID), nil
	}, func(i int) Label {
		return Label{Op: []string{"set config", "set packet-in format", "set controller id"}[i]}
	})
}

// Features is what the switch told of itself.
func (c *Conn) Features() ofp.FeaturesReply { return c.features }

// Done is closed when the connection is of no more use; Err tells why then.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is nil until Done is closed, and then says why.
func (c *Conn) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// DecodeErrors counts messages that could not be decoded and were left out.
func (c *Conn) DecodeErrors() uint64 { return c.decodeErrors.Load() }

// LateErrors counts error messages that belong to no pending request, such as those of packet-outs.
func (c *Conn) LateErrors() uint64 { return c.lateErrors.Load() }

// Close ends the connection and waits for its goroutines. It must not be called by a handler.
func (c *Conn) Close() error {
	c.fail(ErrClosed)
	c.wg.Wait()
	return nil
}

// fail ends the connection for the first reason given; everything that waits for it gets that.
func (c *Conn) fail(err error) {
	c.fail1.Do(func() {
		c.err = err
		close(c.done)
		c.nc.Close() // ends read and write
		c.out.close()
		c.pending.fail(fmt.Errorf("%w: %w", ErrClosed, err))
	})
}

// probe sends an echo request into silence and ends the connection if it stays silent. Anything received counts as life:
// a busy switch may hold an answer back behind a long bundle, which has a deadline of its own.
func (c *Conn) probe() {
	interval, timeout := c.opts.ProbeInterval, c.opts.ProbeTimeout
	t := time.NewTimer(interval)
	defer t.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-t.C:
		}
		if rest := interval - c.silence(); rest > 0 {
			t.Reset(rest)
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		c.probed.Store(int64(time.Since(c.start)))
		payload := []byte("tapwall")
		m, err := c.request(ctx, "echo request", func(dst []byte, xid uint32) ([]byte, error) {
			return ofp.AppendEchoRequest(dst, xid, payload)
		})
		cancel()
		switch reply, ok := m.(*ofp.EchoReply); {
		case err != nil && c.silence() < max(timeout, time.Duration(c.patience.Load())):
			// Not answered yet, but alive.
		case err != nil:
			c.fail(fmt.Errorf("silent for %v: %w", c.silence().Round(time.Millisecond), ErrProbe))
			return
		case !ok || !bytes.Equal(reply.Data, payload):
			c.fail(fmt.Errorf("echo answered by %v: %w", m.Head().Type, ErrProtocol))
			return
		}
		t.Reset(interval)
	}
}

// Silent returns for how long nothing has arrived, if an echo request has been sent since then; else 0.
func (c *Conn) Silent() time.Duration {
	if c.probed.Load() <= c.received.Load() {
		return 0
	}
	return c.silence()
}

func (c *Conn) silence() time.Duration {
	return time.Since(c.start) - time.Duration(c.received.Load())
}
