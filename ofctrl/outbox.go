package ofctrl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

const (
	// outboxSoft is how many bytes may wait before senders are held back: enough to fill a socket's buffer several times
	// over, so that the writer never starves, and little enough for memory.
	outboxSoft = 1 << 20
	// outboxHard is how many bytes of echo replies and the like may wait in addition. A peer that asks and never reads
	// would otherwise fill our memory.
	outboxHard = outboxSoft + 1<<20
)

var errOutboxFull = errors.New("peer does not read")

// outbox collects encoded messages for the writer, which takes all there are in one write.
type outbox struct {
	mu     sync.Mutex
	room   sync.Cond // broadcast when the buffer was taken, and at close
	buf    []byte
	closed bool
	ready  chan struct{} // a token while buf is not empty, or the outbox is closed
	added  chan struct{} // a token once something was added, for the reader
}

func newOutbox() *outbox {
	o := &outbox{ready: make(chan struct{}, 1), added: make(chan struct{}, 1)}
	o.room.L = &o.mu
	return o
}

// append adds what encode appends, waiting for room first. It adds nothing if encode fails. Errors are ErrClosed, those of
// ctx and those of encode.
func (o *outbox) append(ctx context.Context, encode func([]byte) ([]byte, error)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.buf) >= outboxSoft {
		stop := context.AfterFunc(ctx, func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.room.Broadcast()
		})
		defer stop()
		for len(o.buf) >= outboxSoft && !o.closed {
			if err := ctx.Err(); err != nil {
				return err
			}
			o.room.Wait()
		}
	}
	return o.add(encode)
}

// appendNow is append for the reader, which must never wait.
func (o *outbox) appendNow(encode func([]byte) ([]byte, error)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.buf) >= outboxHard {
		return errOutboxFull
	}
	return o.add(encode)
}

func (o *outbox) add(encode func([]byte) ([]byte, error)) error {
	if o.closed {
		return ErrClosed
	}
	before := len(o.buf)
	buf, err := encode(o.buf)
	if err != nil {
		o.buf = buf[:before]
		return err
	}
	o.buf = buf
	if len(o.buf) > 0 {
		o.wake()
		select {
		case o.added <- struct{}{}:
		default:
		}
	}
	return nil
}

func (o *outbox) wake() {
	select {
	case o.ready <- struct{}{}:
	default:
	}
}

// take exchanges what waits for the empty buffer spare.
func (o *outbox) take(spare []byte) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	buf := o.buf
	o.buf = spare[:0]
	o.room.Broadcast()
	return buf
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.room.Broadcast()
	o.wake()
}

// write is the writer goroutine of a Conn.
func (c *Conn) write() {
	var buf []byte
	for {
		select {
		case <-c.done:
			return
		case <-c.out.ready:
		}
		// Two buffers take turns; one that a large bundle blew up is not kept.
		if cap(buf) > 2*outboxHard {
			buf = nil
		}
		buf = c.out.take(buf)
		if len(buf) == 0 {
			continue
		}
		err := c.nc.SetWriteDeadline(time.Now().Add(c.opts.Timeout))
		if err == nil {
			_, err = c.nc.Write(buf)
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = fmt.Errorf("switch did not read for %v: %w", c.opts.Timeout, ErrProbe)
			}
			c.fail(fmt.Errorf("write: %w", err))
			return
		}
	}
}
