package store

import (
	"context"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// notePrefix is where notes are.
const notePrefix = root + "notes/"

// CommitNoting is Commit with a note, which is written if it is new, or removed if it is there; else the error is backend.ErrConflict. What
// removes a note undoes something, so it may use the space that is reserved.
func (s *Store) CommitNoting(ctx context.Context, changes []backend.Change, n backend.Note) ([]policy.Resource, error) {
	if len(n.Value) > backend.MaxNoteBytes {
		return nil, fmt.Errorf("the note of %d bytes is above %d: %w", len(n.Value), backend.MaxNoteBytes, backend.ErrTooLarge)
	}
	return s.write(ctx, changes, &n)
}

// notePart is what a note adds to a transaction.
func notePart(n *backend.Note) (clientv3.Cmp, clientv3.Op) {
	k := notePrefix + n.ID
	if n.Value == nil {
		return clientv3.Compare(clientv3.CreateRevision(k), ">", 0), clientv3.OpDelete(k)
	}
	return clientv3.Compare(clientv3.CreateRevision(k), "=", 0), clientv3.OpPut(k, string(n.Value))
}

// Notes returns all notes, by id.
func (s *Store) Notes(ctx context.Context) (map[string][]byte, error) {
	out := map[string][]byte{}
	err := s.below(ctx, notePrefix, func(id string, kv *mvccpb.KeyValue) { out[id] = kv.Value })
	if err != nil {
		return nil, err
	}
	return out, nil
}

// below calls take with everything that is under a prefix, by what follows that.
func (s *Store) below(ctx context.Context, prefix string, take func(rest string, kv *mvccpb.KeyValue)) error {
	rctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := s.scan(rctx, prefix, clientv3.GetPrefixRangeEnd(prefix), 0, 0, func(kv *mvccpb.KeyValue, _ int64) error {
		take(strings.TrimPrefix(string(kv.Key), prefix), kv)
		return nil
	})
	if err != nil {
		return s.fail(ctx, err)
	}
	return nil
}
