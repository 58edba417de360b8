package ofctrl

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/tapwall/tapwall/ofctrl/ofp"
)

const (
	headerLen  = 8
	maxMessage = 1<<16 - 1

	// gatherMost is how long packet-ins wait for others at most, and gatherFirst at first, while they come thick and fast, so that they do not
	// each wake the process; thick is how close to the last ones they then come. They wait for less where more than gatherMany come at once:
	// the socket and the switch's own queue hold some 250 copies, and more would be lost.
	gatherMost  = 6 * time.Millisecond
	gatherFirst = 3 * time.Millisecond
	gatherLeast = 100 * time.Microsecond
	gatherMany  = 16
	thick       = 10 * time.Millisecond
)

// gathering is how long a reader waits for further packet-ins.
type gathering struct {
	timer *time.Timer
	wait  time.Duration
	last  time.Duration // when the last ones were all read
	n     int           // that came since
}

// next says how long to wait now, when all that came is read; 0 = not at all.
func (g *gathering) next(now time.Duration) time.Duration {
	n, near := g.n, now-g.last < thick
	g.n, g.last = 0, now
	switch {
	case !near:
		g.wait = gatherFirst
		return 0
	case n > gatherMany:
		g.wait = max(g.wait/2, gatherLeast)
	case n < gatherMany/2:
		g.wait = min(g.wait+g.wait/4, gatherMost)
	}
	return g.wait
}

// read is the reader goroutine of a Conn: it decodes and hands on one message after the other.
func (c *Conn) read() {
	r := bufio.NewReaderSize(c.nc, 2*(maxMessage+1))
	g := gathering{timer: time.NewTimer(gatherMost), wait: gatherFirst}
	defer g.timer.Stop()
	for {
		if c.unasked {
			g.n++
			if !whole(r) {
				c.gather(&g)
			}
		}
		b, err := next(r, c.greeted)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("closed by the switch: %w", io.ErrUnexpectedEOF)
			}
			c.fail(fmt.Errorf("read: %w", err))
			return
		}
		c.received.Store(int64(time.Since(c.start)))
		if err := c.dispatch(b); err != nil {
			c.fail(err)
			return
		}
		if _, err := r.Discard(len(b)); err != nil {
			c.fail(fmt.Errorf("read: %w", err))
			return
		}
	}
}

// gather waits for more packet-ins, but not while the switch is to answer something.
func (c *Conn) gather(g *gathering) {
	wait := g.next(time.Since(c.start))
	if wait == 0 || c.pending.any() {
		return
	}
	g.timer.Reset(wait)
	select {
	case <-g.timer.C:
	case <-c.out.added:
	case <-c.done:
	}
}

// whole reports whether r has a whole message in its buffer.
func whole(r *bufio.Reader) bool {
	n := r.Buffered()
	if n < headerLen {
		return false
	}
	head, _ := r.Peek(headerLen)
	return n >= int(binary.BigEndian.Uint16(head[2:]))
}

// next returns one whole message, which stays in r's buffer until it is discarded.
func next(r *bufio.Reader, greeted bool) ([]byte, error) {
	head, err := r.Peek(headerLen)
	if err != nil {
		return nil, err
	}
	if t := ofp.Type(head[1]); !greeted && t > ofp.TypeEchoReply {
		// Perhaps no OpenFlow at all, whose length would make us wait for more.
		return nil, fmt.Errorf("%v instead of a hello: %w", t, ErrProtocol)
	}
	n := int(binary.BigEndian.Uint16(head[2:]))
	if n < headerLen {
		// The next message cannot be found any more.
		return nil, fmt.Errorf("message of %d bytes: %w", n, ErrProtocol)
	}
	return r.Peek(n)
}

// dispatch hands b to the request it answers or to the handler of its type. An error ends the connection.
func (c *Conn) dispatch(b []byte) error {
	c.unasked = false
	m, err := c.decode(b)
	if err != nil {
		// Framing holds, so the message can be left out. A request that it answers must not wait for ever.
		c.decodeErrors.Add(1)
		xid := binary.BigEndian.Uint32(b[4:])
		c.log.Warn("malformed message", "xid", xid, "length", len(b), "err", err)
		if !c.greeted {
			return c.negotiate(nil, err)
		}
		if p := c.pending.find(xid); p != nil {
			return p.malformed(err)
		}
		return nil
	}
	if !c.greeted {
		return c.negotiate(m, nil)
	}
	switch m := m.(type) {
	case *ofp.EchoRequest:
		return c.echo(m)
	case *ofp.PacketIn:
		c.unasked = true
		if c.opts.Handlers.PacketIn != nil {
			c.opts.Handlers.PacketIn(m)
		}
		return nil
	case *ofp.PortStatus:
		if c.opts.Handlers.PortStatus != nil {
			c.opts.Handlers.PortStatus(m)
		}
		return nil
	case *ofp.FlowRemoved:
		if c.opts.Handlers.FlowRemoved != nil {
			c.opts.Handlers.FlowRemoved(m)
		}
		return nil
	case *ofp.MonitorPaused:
		if c.opts.Handlers.MonitorPaused != nil {
			c.opts.Handlers.MonitorPaused(true)
		}
		return nil
	case *ofp.MonitorResumed:
		if c.opts.Handlers.MonitorPaused != nil {
			c.opts.Handlers.MonitorPaused(false)
		}
		return nil
	case *ofp.Hello:
		return nil // a second hello means nothing (§6.3.1)
	}
	xid := m.Head().XID
	if p := c.pending.find(xid); p != nil {
		p.message(m)
		return nil
	}
	switch m := m.(type) {
	case *ofp.FlowUpdates:
		if c.opts.Handlers.FlowUpdates != nil {
			c.opts.Handlers.FlowUpdates(m)
		}
	case *ofp.Error:
		c.lateErrors.Add(1)
		c.log.Debug("error for no pending request", "xid", xid, "err", m)
	default:
		c.log.Debug("unexpected message", "type", m.Head().Type, "xid", xid)
	}
	return nil
}

// decode is ofp.Decode, but for packet-ins, which share the memory of one.
func (c *Conn) decode(b []byte) (ofp.Message, error) {
	if c.greeted {
		if ok, err := ofp.DecodePacketIn(&c.packetIn, b); ok {
			return &c.packetIn, err
		}
	}
	return ofp.Decode(b)
}

// negotiate takes the first messages of a connection: a hello that offers 1.3, or what ends it.
func (c *Conn) negotiate(m ofp.Message, err error) error {
	switch m := m.(type) {
	case *ofp.Hello:
		if !m.Supports(ofp.Version13) {
			err = fmt.Errorf("switch speaks %v with versions %#x: %w", m.Version, m.Versions, ErrVersion)
			break
		}
		close(c.hello)
		c.greeted = true
		return nil
	case *ofp.Error:
		// Open vSwitch that is limited to other versions sends this before its own hello.
		err = fmt.Errorf("hello refused: %w: %w", ErrVersion, cloneError(m))
	case *ofp.EchoRequest:
		return c.echo(m)
	case nil:
		err = fmt.Errorf("instead of a hello: %w: %w", ErrProtocol, err)
	default:
		err = fmt.Errorf("%v instead of a hello: %w", m.Head().Type, ErrProtocol)
	}
	return err
}

func (c *Conn) echo(m *ofp.EchoRequest) error {
	err := c.out.appendNow(func(dst []byte) ([]byte, error) { return ofp.AppendEchoReply(dst, m) })
	if err != nil {
		return fmt.Errorf("echo reply: %w", err)
	}
	return nil
}

// cloneError copies what aliases the read buffer.
func cloneError(e *ofp.Error) *ofp.Error {
	return &ofp.Error{Header: e.Header, Code: e.Code, Data: slices.Clone(e.Data)}
}
