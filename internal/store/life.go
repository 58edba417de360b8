package store

import (
	"context"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tapwall/tapwall/internal/backend"
)

// lifePrefix is where it is kept what became of mirrors that begin and end by themselves: beside the mirrors, because a write of the mirror
// would be a new revision, and for all processes, because hosts of one mirror may have several.
const lifePrefix = root + "lives/"

// Lives returns what PutLife wrote, by the name of the mirror.
func (s *Store) Lives(ctx context.Context) (map[string]backend.Life, error) {
	out := map[string]backend.Life{}
	err := s.below(ctx, lifePrefix, func(name string, kv *mvccpb.KeyValue) {
		out[name] = backend.Life{Value: kv.Value, Revision: kv.ModRevision}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// PutLife writes the life of a mirror, or with a nil value removes it, if its revision is still expect; 0 = there is none. Else the
// error is backend.ErrConflict. It returns the new revision. It may use the space that is reserved: an end that is forgotten begins again.
func (s *Store) PutLife(ctx context.Context, mirror string, value []byte, expect int64) (int64, error) {
	if mirror == "" || strings.ContainsAny(mirror, "/\x00") {
		return 0, fmt.Errorf("store: %q cannot be the name of a mirror", mirror)
	}
	if s.space != nil {
		if err := s.space.urgent(); err != nil {
			return 0, err
		}
	}
	rctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	k := lifePrefix + mirror
	op := clientv3.OpDelete(k)
	if value != nil {
		op = clientv3.OpPut(k, string(value))
	}
	resp, err := s.client.Txn(rctx).If(clientv3.Compare(clientv3.ModRevision(k), "=", expect)).Then(op).Commit()
	if err != nil {
		return 0, s.fail(ctx, err)
	}
	s.saw(resp.Header.Revision)
	if !resp.Succeeded {
		return 0, fmt.Errorf("the life of mirror %q: %w", mirror, backend.ErrConflict)
	}
	return resp.Header.Revision, nil
}
