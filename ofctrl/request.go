package ofctrl

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// maxErrors bounds how many errors of one group of requests are kept: a switch that refuses one flow of a kind tends to
// refuse thousands.
const maxErrors = 16

// doChunk is how many messages are encoded between two looks at whether it is still worth while.
const doChunk = 64

// Label says what a request was, for errors.
type Label struct {
	Op     string // such as "add flow"
	Object string // the flow or meter as text
	Owner  string
}

func (l Label) requestError(i int, m *ofp.Error) *RequestError {
	return &RequestError{Op: l.Op, Index: i, Object: l.Object, Owner: l.Owner, Err: cloneError(m)}
}

// wait blocks until o has ended. If ctx ends first, o is withdrawn.
func (c *Conn) wait(ctx context.Context, o *op) error {
	select {
	case <-o.done:
	case <-ctx.Done():
		c.pending.remove(o)
		if o.err == ErrClosed { // withdrawn by this remove and not by the connection's end
			return ctx.Err()
		}
	}
	return o.err
}

// request sends one message and returns the reply, which aliases nothing. Refusals are a *RequestError.
func (c *Conn) request(ctx context.Context, what string, encode func(dst []byte, xid uint32) ([]byte, error)) (ofp.Message, error) {
	var reply ofp.Message
	o := &op{on: func(m ofp.Message) (bool, error) {
		switch m := m.(type) {
		case *ofp.Error:
			return true, Label{Op: what}.requestError(0, m)
		case *ofp.EchoReply:
			reply = &ofp.EchoReply{Header: m.Header, Data: slices.Clone(m.Data)}
		case *ofp.Unknown:
			return true, fmt.Errorf("%s answered by an unknown message: %w", what, ErrProtocol)
		default:
			reply = m
		}
		return true, nil
	}}
	if err := c.pending.start(o, 1); err != nil {
		return nil, err
	}
	defer c.pending.remove(o)
	if err := c.out.append(ctx, func(dst []byte) ([]byte, error) { return encode(dst, o.first) }); err != nil {
		return nil, c.why(err)
	}
	if err := c.wait(ctx, o); err != nil {
		return nil, err
	}
	return reply, nil
}

// why replaces ErrClosed by the reason why the connection ended.
func (c *Conn) why(err error) error {
	if errors.Is(err, ErrClosed) {
		if cause := c.Err(); cause != nil && !errors.Is(cause, ErrClosed) {
			return fmt.Errorf("%w: %w", ErrClosed, cause)
		}
	}
	return err
}

// Do sends n messages that the switch answers only if they fail, and a barrier behind them. encode appends the i-th with
// the transaction id xid; label describes it if the switch refuses it. It returns when the switch has done them all; the
// error joins up to 16 *RequestError.
func (c *Conn) Do(ctx context.Context, n int, encode func(dst []byte, xid uint32, i int) ([]byte, error), label func(i int) Label) error {
	var errs []error
	o := &op{}
	o.on = func(m ofp.Message) (bool, error) {
		i := int(m.Head().XID - o.first)
		if e, ok := m.(*ofp.Error); ok {
			if i == n {
				return true, errors.Join(append(errs, Label{Op: "barrier"}.requestError(i, e))...)
			}
			if len(errs) < maxErrors {
				errs = append(errs, label(i).requestError(i, e))
			}
			return false, nil
		}
		return i == n, errors.Join(errs...)
	}
	if err := c.pending.start(o, uint32(n)+1); err != nil {
		return err
	}
	defer c.pending.remove(o)
	var bad error
	for i := 0; i < n && bad == nil; i += doChunk {
		bad = c.out.append(ctx, func(dst []byte) ([]byte, error) {
			var err error
			for k := i; k < min(i+doChunk, n); k++ {
				if dst, err = encode(dst, o.first+uint32(k), k); err != nil {
					return dst, err
				}
			}
			return dst, nil
		})
	}
	if bad != nil && (errors.Is(bad, ErrClosed) || ctx.Err() != nil) {
		return c.why(bad)
	}
	err := c.out.append(ctx, func(dst []byte) ([]byte, error) {
		return ofp.AppendBarrierRequest(dst, o.first+uint32(n)), nil
	})
	if err != nil {
		return c.why(err)
	}
	return errors.Join(bad, c.wait(ctx, o))
}

// Barrier returns when the switch has done everything that was sent before.
func (c *Conn) Barrier(ctx context.Context) error { return c.Do(ctx, 0, nil, nil) }

// Send sends one message and does not wait: a refusal is counted in LateErrors and otherwise lost.
func (c *Conn) Send(ctx context.Context, encode func(dst []byte, xid uint32) ([]byte, error)) error {
	return c.why(c.out.append(ctx, func(dst []byte) ([]byte, error) { return encode(dst, c.pending.xids(1)) }))
}

// Multipart sends a multipart request and calls on, on the reader, for each part of the reply in order; on must not block
// and is not called any more once Multipart has returned. It returns after the last part. Refusals are a *RequestError.
func (c *Conn) Multipart(ctx context.Context, what string, encode func(dst []byte, xid uint32) ([]byte, error),
	on func(ofp.Multipart)) error {
	answer, err := c.ask(ctx, what, 1, func(dst []byte, xid uint32, _ int) ([]byte, error) { return encode(dst, xid) }, on)
	if err != nil {
		return err
	}
	return answer()
}

// ask is Multipart for n requests, n > 0, which are on their way together when it returns. Their replies come one after the other, and
// answer, which must be called, returns after the last. The first refusal ends all.
func (c *Conn) ask(
	ctx context.Context, what string, n int, encode func(dst []byte, xid uint32, i int) ([]byte, error), on func(ofp.Multipart),
) (answer func() error, err error) {
	left := n
	o := &op{on: func(m ofp.Message) (bool, error) {
		switch m := m.(type) {
		case *ofp.Error:
			return true, Label{Op: what}.requestError(0, m)
		case ofp.Multipart:
			on(m)
			if !m.MultipartHead().More {
				left--
			}
			return left == 0, nil
		}
		return true, fmt.Errorf("%s answered by %v: %w", what, m.Head().Type, ErrProtocol)
	}}
	if err := c.pending.start(o, uint32(n)); err != nil {
		return nil, err
	}
	if err := c.out.append(ctx, func(dst []byte) (_ []byte, err error) {
		for i := 0; i < n && err == nil; i++ {
			dst, err = encode(dst, o.first+uint32(i), i)
		}
		return dst, err
	}); err != nil {
		c.pending.remove(o)
		return nil, c.why(err)
	}
	return func() error {
		defer c.pending.remove(o)
		return c.wait(ctx, o)
	}, nil
}
