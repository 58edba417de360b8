package ofctrl

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// bundleFlags are those of every bundle: all or nothing, in the order sent.
const bundleFlags = ofp.BundleAtomic | ofp.BundleOrdered

// Bundle is a group of flow-mods that the switch applies all together or not at all (ONF extension 230).
type Bundle struct {
	N int // of messages
	// Add appends the i-th message as a bundle-add with the given ids; see ofp.AppendBundleFlowMod.
	Add func(dst []byte, xid, bundle uint32, flags ofp.BundleFlags, i int) ([]byte, error)
	// Label describes the i-th message if the switch refuses it. It may be called on the reader.
	Label func(i int) Label
	// Committed, if set, is called on the reader when the switch says that the bundle is applied: before any later message
	// of the switch is looked at, and even if the caller of Commit has stopped waiting.
	Committed func()
	// Settled, if set, is called once when nothing more will happen to the bundle, after Committed. It must not block or
	// wait for the Conn.
	Settled func()
	// Timeout and [PerMessage] for each message together bound the wait for the barrier and for the commit reply, each; 0 = 10 s.
	Timeout time.Duration
}

// PerMessage is by how much the deadline of a request grows for each of the many things that it is about: a flow-mod of a bundle, a flow
// that is read back. Open vSwitch needs some 5 µs for each, and answers nothing else meanwhile; where tens of thousands differ in nothing
// but priority, more than a millisecond for each delete. A switch given up too early has to be read back for nothing; one that is gone
// ends its connection.
const PerMessage = 2 * time.Millisecond

// deadline is how long a request may take that is about n things and would have timeout if it were about none.
func deadline(timeout time.Duration, n int) time.Duration {
	return timeout + time.Duration(n)*PerMessage
}

// Commit applies b. Three facts about Open vSwitch decide how: an add that fails does not spoil its bundle, so all errors are read behind
// a barrier before the commit is sent; a bundle that was idle for 10 s is dropped, and a later add or commit under its id would concern
// another one, so that error aborts, too, and ids are never used twice; and the switch stops reading when its replies are not read, so
// the reader must run meanwhile, as it does.
//
// Errors: one or more *RequestError if the switch refused something, and then nothing is applied: one for each owner, by the labels, and
// up to 16 for what has none; [ErrUnknownOutcome] if the commit was sent and its answer has not come; others, if nothing was committed.
// If the answer to the commit does not come within the timeout, the connection is ended.
func (c *Conn) Commit(ctx context.Context, b Bundle) error {
	if b.Timeout <= 0 {
		b.Timeout = 10 * time.Second
	}
	b.Timeout = deadline(b.Timeout, b.N)
	// The switch answers no echo while it is busy with the bundle, which has its own deadlines.
	c.patience.Add(int64(b.Timeout))
	settled := b.Settled
	b.Settled = func() {
		c.patience.Add(-int64(b.Timeout))
		if settled != nil {
			settled()
		}
	}
	t := &transaction{b: b, staged: make(chan struct{}), owners: map[string]bool{}}
	t.op = &op{on: t.message, strict: true, onEnd: func() {
		c.pending.forget(t.op) // whoever waits may have stopped, and it holds on to all that was sent
		t.end()
	}}
	if err := c.pending.start(t.op, uint32(b.N)+4); err != nil {
		t.end()
		return err
	}
	t.id = t.op.first // as unique on the connection as a transaction id
	err := t.stage(ctx, c)
	if err == nil {
		return t.commit(ctx, c)
	}
	c.pending.remove(t.op)
	// Not waited for: whatever becomes of the discard, the bundle cannot be committed any more. Its errors are late ones.
	_ = c.out.append(context.WithoutCancel(ctx), func(dst []byte) ([]byte, error) {
		return ofp.AppendBundleControl(dst, t.discardXID(), t.id, ofp.BundleDiscardRequest, bundleFlags), nil
	})
	return c.why(err)
}

// transaction is one bundle under way. Its transaction ids are, in order: open, the adds, barrier, commit, discard.
type transaction struct {
	b  Bundle
	id uint32
	op *op

	failed     atomic.Bool   // an error has come
	broken     atomic.Bool   // and not for a message of the bundle: further ones would not get into it
	staged     chan struct{} // closed when the barrier is answered
	committing atomic.Bool   // the commit is about to be sent

	// The rest is guarded by op.mu.
	errs      []error
	owners    map[string]bool // of errs
	isStaged  bool
	stopTimer func() bool
}

func (t *transaction) barrierXID() uint32 { return t.op.first + uint32(t.b.N) + 1 }
func (t *transaction) commitXID() uint32  { return t.op.first + uint32(t.b.N) + 2 }
func (t *transaction) discardXID() uint32 { return t.op.first + uint32(t.b.N) + 3 }

// message is called on the reader.
func (t *transaction) message(m ofp.Message) (last bool, err error) {
	xid := m.Head().XID
	switch m := m.(type) {
	case *ofp.Error:
		t.failed.Store(true)
		if xid == t.commitXID() {
			// The cause came before, with the transaction id of the message at fault.
			if len(t.errs) == 0 {
				t.refused(t.requestError(xid, m))
			}
			return true, errors.Join(t.errs...)
		}
		t.refused(t.requestError(xid, m))
		if xid == t.barrierXID() {
			t.stagedNow()
		}
	case *ofp.BarrierReply:
		if xid == t.barrierXID() {
			t.stagedNow()
		}
	case *ofp.BundleReply:
		if xid != t.commitXID() || m.Kind != ofp.BundleCommitReply {
			break
		}
		if !t.committing.Load() {
			return true, fmt.Errorf("commit answered before it was asked for: %w", ErrProtocol)
		}
		if t.b.Committed != nil {
			t.b.Committed()
		}
		return true, nil
	}
	return false, nil
}

// refused keeps e, unless it tells nothing new.
func (t *transaction) refused(e *RequestError) {
	switch {
	case e.Owner == "" && len(t.errs) >= maxErrors, t.owners[e.Owner]:
		return
	case e.Owner != "":
		t.owners[e.Owner] = true
	}
	t.errs = append(t.errs, e)
}

func (t *transaction) stagedNow() {
	if !t.isStaged {
		t.isStaged = true
		close(t.staged)
	}
}

// end is called when nothing more will happen.
func (t *transaction) end() {
	if t.stopTimer != nil {
		t.stopTimer()
	}
	t.b.Settled()
}

func (t *transaction) requestError(xid uint32, m *ofp.Error) *RequestError {
	i := int(xid-t.op.first) - 1
	if i >= 0 && i < t.b.N {
		return t.b.Label(i).requestError(i, m)
	}
	t.broken.Store(true)
	switch {
	case i < 0:
		return Label{Op: "open bundle"}.requestError(0, m)
	case xid == t.barrierXID():
		return Label{Op: "barrier"}.requestError(i, m)
	}
	return Label{Op: "commit bundle"}.requestError(i, m)
}

// stage sends everything up to the barrier and waits for its answer. It returns nil iff the bundle may be committed.
func (t *transaction) stage(ctx context.Context, c *Conn) error {
	err := c.out.append(ctx, func(dst []byte) ([]byte, error) {
		return ofp.AppendBundleControl(dst, t.op.first, t.id, ofp.BundleOpenRequest, bundleFlags), nil
	})
	for i := 0; i < t.b.N && err == nil && !t.broken.Load(); i += doChunk {
		err = c.out.append(ctx, func(dst []byte) ([]byte, error) {
			var err error
			for k := i; k < min(i+doChunk, t.b.N) && err == nil; k++ {
				dst, err = t.b.Add(dst, t.op.first+1+uint32(k), t.id, bundleFlags, k)
			}
			return dst, err
		})
	}
	if err != nil {
		return err
	}
	err = c.out.append(ctx, func(dst []byte) ([]byte, error) {
		return ofp.AppendBarrierRequest(dst, t.barrierXID()), nil
	})
	if err != nil {
		return err
	}
	timeout := time.NewTimer(t.b.Timeout)
	defer timeout.Stop()
	select {
	case <-t.staged:
	case <-t.op.done:
		return t.op.err
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout.C:
		return fmt.Errorf("no answer to the barrier of a bundle within %v: %w", t.b.Timeout, context.DeadlineExceeded)
	}
	if t.failed.Load() {
		t.op.mu.Lock()
		defer t.op.mu.Unlock()
		return errors.Join(t.errs...)
	}
	return nil
}

// commit sends the commit request and waits for its answer. From here on the bundle's fate is the switch's.
func (t *transaction) commit(ctx context.Context, c *Conn) error {
	t.committing.Store(true)
	t.op.mu.Lock()
	t.stopTimer = time.AfterFunc(t.b.Timeout, func() {
		c.fail(fmt.Errorf("no answer to a commit within %v: %w", t.b.Timeout, ErrUnknownOutcome))
	}).Stop
	t.op.mu.Unlock()
	err := c.out.append(context.WithoutCancel(ctx), func(dst []byte) ([]byte, error) {
		return ofp.AppendBundleControl(dst, t.commitXID(), t.id, ofp.BundleCommitRequest, bundleFlags), nil
	})
	if err != nil { // the connection is gone
		c.pending.remove(t.op)
		return c.why(err)
	}
	select {
	case <-t.op.done:
		if err := t.op.err; errors.Is(err, ErrClosed) {
			return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
		}
		return t.op.err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, ctx.Err())
	}
}
