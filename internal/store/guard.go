package store

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// guardedKV calls the embedded member so that a caller gets away when the member fails. The calls are function calls into etcd, which takes
// locks without regard to contexts, and the goroutine that failed may have held some of them.
type guardedKV struct {
	clientv3.KV
	m *member
}

// guarded runs f in a goroutine of its own, which stays behind if the member fails meanwhile.
func guarded[T any](ctx context.Context, m *member, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var zero T
	if err := m.err(); err != nil {
		return zero, err
	}
	done := make(chan result, 1)
	go func() {
		var r result
		r.value, r.err = f()
		done <- r
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-m.failed:
		return zero, m.err()
	case <-ctx.Done():
		// etcd mostly sees the end of the context by itself; if it is stuck, the caller is not.
		return zero, ctx.Err()
	}
}

// largeWrite is from how many bytes on a transaction is put into the database at once: etcd sees only what is there when it compares
// with the quota.
const largeWrite = 256 << 10

// wrote is told of a transaction of so many bytes; see largeWrite.
func (m *member) wrote(ctx context.Context, bytes int) {
	if m == nil || bytes < largeWrite {
		return
	}
	// What becomes of it is told by the next write, if it fails; this one is in the log.
	_, _ = guarded(ctx, m, func() (struct{}, error) { m.etcd.Server.Backend().ForceCommit(); return struct{}{}, nil })
}

// Get implements clientv3.KV.
func (g guardedKV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	return guarded(ctx, g.m, func() (*clientv3.GetResponse, error) { return g.KV.Get(ctx, key, opts...) })
}

// Put implements clientv3.KV.
func (g guardedKV) Put(ctx context.Context, key, val string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	return guarded(ctx, g.m, func() (*clientv3.PutResponse, error) { return g.KV.Put(ctx, key, val, opts...) })
}

// Delete implements clientv3.KV.
func (g guardedKV) Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error) {
	return guarded(ctx, g.m, func() (*clientv3.DeleteResponse, error) { return g.KV.Delete(ctx, key, opts...) })
}

// Compact implements clientv3.KV.
func (g guardedKV) Compact(ctx context.Context, rev int64, opts ...clientv3.CompactOption) (*clientv3.CompactResponse, error) {
	return guarded(ctx, g.m, func() (*clientv3.CompactResponse, error) { return g.KV.Compact(ctx, rev, opts...) })
}

// Txn implements clientv3.KV.
func (g guardedKV) Txn(ctx context.Context) clientv3.Txn {
	return &guardedTxn{Txn: g.KV.Txn(ctx), ctx: ctx, m: g.m}
}

type guardedTxn struct {
	clientv3.Txn
	ctx context.Context
	m   *member
}

// If implements clientv3.Txn.
func (t *guardedTxn) If(cs ...clientv3.Cmp) clientv3.Txn { t.Txn = t.Txn.If(cs...); return t }

// Then implements clientv3.Txn.
func (t *guardedTxn) Then(ops ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Then(ops...); return t }

// Else implements clientv3.Txn.
func (t *guardedTxn) Else(ops ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(ops...); return t }

// Commit implements clientv3.Txn.
func (t *guardedTxn) Commit() (*clientv3.TxnResponse, error) {
	return guarded(t.ctx, t.m, t.Txn.Commit)
}
