package ovsdb

import (
	"context"
	"fmt"
	"time"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// Apply makes the rows that carry tapwall's marks, and the fail modes of the named bridges, equal to d: it compares d with the
// newest snapshot, sends the difference as one transaction, waits until ovs-vswitchd has confirmed it (Open_vSwitch.cur_cfg) and
// reports what it reads back. Nothing differs: no transaction. Rows of others are never written; marked rows that d does not want
// are removed.
//
// A spec that cannot be fulfilled gets its Code and does not hold up the others. The error is about the call as a whole:
// ErrLocked (Options.Lock), ErrNotConnected, ErrUnknownOutcome, ErrConflict, ErrNotRealized, *OpError or that of ctx. Apply is
// idempotent, so the answer to each of them is to call it again, best after the next wake-up of Subscribe (of the lock for
// ErrLocked); a change that somebody makes to our rows is a wake-up too. The Result is complete only without an error and with
// ErrNotRealized.
//
// A device made with type "internal" is a network interface of the host, on which the kernel would speak IPv6 and answer ARP for
// copies that it sees; the caller should set it up without addresses, IPv6 and ARP.
func (c *Client) Apply(ctx context.Context, d Desired) (Result, error) {
	select {
	case c.applying <- struct{}{}:
		defer func() { <-c.applying }()
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}

	if c.opts.Lock != nil {
		if err := c.opts.Lock.Err(); err != nil {
			return Result{}, err
		}
	}
	s, snap, err := c.connected()
	if err != nil {
		return Result{}, err
	}
	if snap.topo.NextCfg < c.lastCfg.Load() {
		// The answer to a transaction may overtake the snapshot that holds it.
		snap, err = c.await(ctx, s, func(t *vswitch.Topology) bool { return t.NextCfg >= c.lastCfg.Load() })
		if err != nil && ctx.Err() == nil && s.ctx.Err() == nil {
			// Somebody has put the counter back.
			c.lastCfg.Store(snap.topo.NextCfg)
		} else if err != nil {
			return Result{}, err
		}
	}

	p := makePlan(snap, d)
	result := Result{
		Bridges: p.bridges, Ports: p.portResults, Mirrors: p.results, Controllers: p.controllers, TimeoutPolicies: p.timeouts,
		Removed: p.removed, Kept: p.kept, MissingBridges: p.missing, Pending: p.pending,
	}
	target := snap.topo.NextCfg
	if len(p.ops) > 0 {
		result.Transactions = 1
		if target, err = c.commit(ctx, s, p.ops); err != nil {
			return result, err
		}
		c.log.Info("rows written", "operations", len(p.ops), "cfg", target, "removed", p.removed)
	}
	snap, err = c.await(ctx, s, func(t *vswitch.Topology) bool { return t.NextCfg >= target && t.CurCfg >= target })
	p.readBack(snap.topo, d.Mirrors)
	p.readBridges(snap.topo, err == nil)
	p.readPorts(snap.topo)
	p.readControllers(snap.topo)
	p.readTimeouts(snap.topo)
	result.Cfg, result.Generation = snap.topo.CurCfg, snap.topo.Generation
	if err != nil {
		return result, fmt.Errorf("%w: cur_cfg %d, wanted %d: %w", ErrNotRealized, snap.topo.CurCfg, target, err)
	}
	return result, nil
}

// commit sends one transaction and returns the configuration number that it got.
func (c *Client) commit(ctx context.Context, s *session, ops []ovsdb.Operation) (int64, error) {
	c.mu.Lock()
	c.status.Transactions++
	c.mu.Unlock()
	results, err := s.transact(ctx, ops)
	if err != nil {
		return 0, err
	}
	rows := results[len(ops)-1].Rows
	if len(rows) != 1 {
		return 0, fmt.Errorf("%w: the Open_vSwitch row is gone", ErrConflict)
	}
	next, ok := rows[0]["next_cfg"].(float64)
	if !ok {
		return 0, fmt.Errorf("%w: next_cfg is %v", ErrUnknownOutcome, rows[0]["next_cfg"])
	}
	c.lastCfg.Store(int64(next))
	for i, op := range ops {
		if (op.Op == ovsdb.OperationUpdate || op.Op == ovsdb.OperationMutate) && results[i].Count == 0 {
			return 0, fmt.Errorf("%w: the %s row to change is gone", ErrConflict, op.Table)
		}
	}
	return int64(next), nil
}

// await returns the first snapshot for which ok holds, or the newest one and why it stopped waiting.
func (c *Client) await(ctx context.Context, s *session, ok func(*vswitch.Topology) bool) (*snapshot, error) {
	wake, cancel := c.Subscribe()
	defer cancel()
	timeout := time.NewTimer(c.opts.Timeout)
	defer timeout.Stop()
	for {
		snap := c.current.Load()
		if ok(snap.topo) {
			return snap, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return snap, ctx.Err()
		case <-s.ctx.Done():
			return snap, fmt.Errorf("%w: %w", ErrNotConnected, context.Cause(s.ctx))
		case <-timeout.C:
			return snap, context.DeadlineExceeded
		}
	}
}
