package ovsdb

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"strconv"
	"sync"
)

// rpcMessage is a request, an answer or a notification of JSON-RPC 1.0 (RFC 7047 §4).
type rpcMessage struct {
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	ID     json.RawMessage `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

func (m rpcMessage) failed() bool { return len(m.Error) > 0 && string(m.Error) != "null" }

// id is the id of an answer if it can be one of ours, else "".
func (m rpcMessage) id() (id string) {
	_ = json.Unmarshal(m.ID, &id)
	return id
}

// decoder reads messages, which follow one another without framing, and never keeps more than two of the longest.
type decoder struct {
	in   io.LimitedReader
	dec  *json.Decoder
	most int64 // bytes of one message
}

func newDecoder(r io.Reader, most int64) *decoder {
	d := &decoder{in: io.LimitedReader{R: r}, most: most}
	d.dec = json.NewDecoder(&d.in)
	return d
}

func (d *decoder) next() (m rpcMessage, err error) {
	d.in.N = d.most
	if err = d.dec.Decode(&m); err != nil && d.in.N <= 0 {
		err = fmt.Errorf("a message is longer than %d bytes", d.most)
	}
	return m, err
}

// maxMessage bounds one message of the server. The longest is all that is monitored, in the answer that begins the monitor: about 1 kB
// per port.
const maxMessage = 128 << 20

// peer is a connection to a server that may say anything. Whatever it says is looked at by one goroutine, the reader, and ends the
// connection if it makes no sense, also where it makes the library below panic: a process has many hosts, and one of them must not take
// it down.
type peer struct {
	conn net.Conn
	log  *slog.Logger
	// ctx ends when the connection is lost or given up; context.Cause says why.
	ctx    context.Context
	cancel context.CancelCauseFunc

	writing chan struct{} // held by who writes

	mu      sync.Mutex
	last    uint64
	pending map[string]request
}

// request is one that waits for its answer.
type request struct {
	take func(result json.RawMessage) error // run by the reader
	done chan error
}

// newPeer makes a peer of a connection, which the caller closes. It is of use while read runs.
func newPeer(ctx context.Context, conn net.Conn, log *slog.Logger) *peer {
	p := &peer{conn: conn, log: log, writing: make(chan struct{}, 1), pending: map[string]request{}}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	return p
}

// read takes what the server sends until that ends or makes no sense. notify gets the notifications but for echo requests, which are
// answered.
func (p *peer) read(notify func(rpcMessage) error) {
	in := newDecoder(p.conn, maxMessage)
	for {
		m, err := in.next()
		if err == nil {
			err = p.handle(m, notify)
		}
		if err != nil {
			p.cancel(fmt.Errorf("%w: %w", ErrLost, err))
			return
		}
	}
}

// handle takes one message of the server.
func (p *peer) handle(m rpcMessage, notify func(rpcMessage) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			p.log.Error("panic in the database library", "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", ErrLibrary, r)
		}
	}()
	switch m.Method {
	case "":
		return p.answer(m)
	case "echo":
		return p.send(p.ctx, map[string]any{"id": m.ID, "result": m.Params, "error": nil})
	}
	return notify(m)
}

func (p *peer) answer(m rpcMessage) (err error) {
	p.mu.Lock()
	r, ok := p.pending[m.id()]
	delete(p.pending, m.id())
	p.mu.Unlock()
	if !ok {
		return nil // whoever asked has given up
	}
	if m.failed() {
		r.done <- fmt.Errorf("the server refuses: %.200s", m.Error)
		return nil
	}
	err = ErrLibrary // should take panic
	defer func() { r.done <- err }()
	err = r.take(m.Result)
	return err
}

// call sends a request and waits until its answer has been taken, by the reader; an error of take ends the connection. When call returns
// because ctx or the connection has ended, take may be running still, or run later.
func (p *peer) call(ctx context.Context, method string, params []any, take func(result json.RawMessage) error) error {
	r := request{take, make(chan error, 1)}
	p.mu.Lock()
	p.last++
	id := strconv.FormatUint(p.last, 10)
	p.pending[id] = r
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.pending, id)
	}()
	if err := p.send(ctx, map[string]any{"id": id, "method": method, "params": params}); err != nil {
		return err
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.ctx.Done():
	}
	select {
	case err := <-r.done: // what was wrong with the answer, for one
		return err
	default:
		return context.Cause(p.ctx)
	}
}

// send writes one message. If ctx ends meanwhile, or the connection, so does the connection, of which nobody knows how much has arrived.
func (p *peer) send(ctx context.Context, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	select {
	case p.writing <- struct{}{}:
		defer func() { <-p.writing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	stop := context.AfterFunc(ctx, func() { p.conn.Close() })
	_, err = p.conn.Write(text)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		p.cancel(fmt.Errorf("%w: %w", ErrLost, err))
		return context.Cause(p.ctx)
	}
	return nil
}
