package store

import (
	"context"
	"errors"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// FailAfter makes every request after the next n fail before it is sent, as if the process had ended there.
func FailAfter(s *Store, n int) { s.client.KV = &failingKV{KV: s.client.KV, left: n} }

// CountRequests counts the transactions and reads from now on.
func CountRequests(s *Store) *atomic.Int64 {
	c := &countingKV{KV: s.client.KV}
	s.client.KV = c
	return &c.n
}

type countingKV struct {
	clientv3.KV
	n atomic.Int64
}

func (c *countingKV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	c.n.Add(1)
	return c.KV.Get(ctx, key, opts...)
}

func (c *countingKV) Txn(ctx context.Context) clientv3.Txn {
	c.n.Add(1)
	return c.KV.Txn(ctx)
}

type failingKV struct {
	clientv3.KV
	left int
}

var errEnded = errors.New("ended by the test")

func (f *failingKV) spent() bool { f.left--; return f.left < 0 }

func (f *failingKV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	if f.spent() {
		return nil, errEnded
	}
	return f.KV.Get(ctx, key, opts...)
}

func (f *failingKV) Put(ctx context.Context, key, val string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	if f.spent() {
		return nil, errEnded
	}
	return f.KV.Put(ctx, key, val, opts...)
}

func (f *failingKV) Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error) {
	if f.spent() {
		return nil, errEnded
	}
	return f.KV.Delete(ctx, key, opts...)
}

func (f *failingKV) Txn(ctx context.Context) clientv3.Txn {
	if f.spent() {
		return failingTxn{}
	}
	return f.KV.Txn(ctx)
}

type failingTxn struct{}

func (t failingTxn) If(...clientv3.Cmp) clientv3.Txn        { return t }
func (t failingTxn) Then(...clientv3.Op) clientv3.Txn       { return t }
func (t failingTxn) Else(...clientv3.Op) clientv3.Txn       { return t }
func (t failingTxn) Commit() (*clientv3.TxnResponse, error) { return nil, errEnded }
