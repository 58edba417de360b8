package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tapwall/tapwall/internal/backend"
)

// Host state is what the process of one host must find again after a restart, such as the numbers of its rules. It has one writer: the
// process that manages the host. Keys are /tapwall/v1/hosts/<id>/state/<key>.

func statePrefix(host string) string   { return root + "hosts/" + host + "/state/" }
func journalPrefix(host string) string { return root + "hosts/" + host + "/journal/" }

// journalMark names the key that makes a journal valid.
func journalMark(host string) string { return root + "hosts/" + host + "/journal-valid" }

// GetState returns a value that PutStates wrote, or backend.ErrNotFound.
func (s *Store) GetState(ctx context.Context, host, key string) ([]byte, error) {
	if err := checkState(host, key); err != nil {
		return nil, err
	}
	rctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := s.settle(rctx, host); err != nil {
		return nil, s.fail(ctx, err)
	}
	resp, err := s.client.Get(rctx, statePrefix(host)+key, s.readOpts...)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	s.saw(resp.Header.Revision)
	if len(resp.Kvs) == 0 {
		return nil, fmt.Errorf("state %q of host %q: %w", key, host, backend.ErrNotFound)
	}
	return resp.Kvs[0].Value, nil
}

// ListStates returns all values whose key begins with prefix, by key.
func (s *Store) ListStates(ctx context.Context, host, prefix string) (map[string][]byte, error) {
	if err := checkState(host, prefix); err != nil {
		return nil, err
	}
	rctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := s.settle(rctx, host); err != nil {
		return nil, s.fail(ctx, err)
	}
	from := statePrefix(host) + prefix
	out := map[string][]byte{}
	_, err := s.scan(rctx, from, clientv3.GetPrefixRangeEnd(from), 0, 0, func(kv *mvccpb.KeyValue, _ int64) error {
		out[strings.TrimPrefix(string(kv.Key), statePrefix(host))] = kv.Value
		return nil
	})
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return out, nil
}

// PutStates writes all values, or none of them, also if the process or the machine ends in the middle; a nil value deletes its key. Values
// hold at most backend.MaxStateBytes. What fits into one transaction of etcd is one; more goes through a journal in the store that the
// next call for the host, of this process or of a later one, finishes.
func (s *Store) PutStates(ctx context.Context, host string, values map[string][]byte) error {
	for k, v := range values {
		if err := checkState(host, k); err != nil {
			return err
		}
		if k == "" || len(v) > backend.MaxStateBytes {
			return fmt.Errorf("store: state %q of host %q: the key is empty or the value of %d bytes is above %d", k, host, len(v),
				backend.MaxStateBytes)
		}
	}
	if len(values) == 0 {
		return nil
	}
	if s.space != nil {
		if err := s.space.check(); err != nil {
			return err
		}
	}
	rctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := s.settle(rctx, host); err != nil {
		return s.fail(ctx, err)
	}
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	parts := s.parts(values)
	if len(parts) == 1 {
		resp, err := s.client.Txn(rctx).Then(stateOps(host, parts[0])...).Commit()
		if err != nil {
			return s.fail(ctx, err)
		}
		s.saw(resp.Header.Revision)
		size := 0
		for _, v := range values {
			size += len(v)
		}
		s.member.wrote(ctx, size)
		return nil
	}
	if err := s.journal(rctx, host, parts); err != nil {
		return s.fail(ctx, err)
	}
	return nil
}

// checkState keeps keys of one host inside its prefix.
func checkState(host, key string) error {
	if host == "" || strings.ContainsAny(host, "/\x00") {
		return fmt.Errorf("store: %q cannot be the id of a host", host)
	}
	if strings.ContainsRune(key, 0) {
		return fmt.Errorf("store: %q cannot be the key of a state", key)
	}
	return nil
}

// stateEntry is one value in a journal; Delete because JSON cannot tell nil from empty.
type stateEntry struct {
	Key    string `json:"key"`
	Value  []byte `json:"value,omitempty"`
	Delete bool   `json:"delete,omitempty"`
}

// parts cuts values, in order of their keys, into what one transaction takes each. The sizes count the base64 of a journal.
func (s *Store) parts(values map[string][]byte) [][]stateEntry {
	var parts [][]stateEntry
	var part []stateEntry
	size := 0
	for _, k := range slices.Sorted(maps.Keys(values)) {
		v := values[k]
		n := len(k) + len(v)*4/3 + 256
		if len(part) > 0 && (len(part) >= s.maxOps-1 || size+n > s.maxBytes) { // -1: the journal entry is deleted in the same transaction
			parts, part, size = append(parts, part), nil, 0
		}
		part = append(part, stateEntry{Key: k, Value: v, Delete: v == nil})
		size += n
	}
	return append(parts, part)
}

func stateOps(host string, part []stateEntry) []clientv3.Op {
	ops := make([]clientv3.Op, len(part))
	for i, e := range part {
		if e.Delete {
			ops[i] = clientv3.OpDelete(statePrefix(host) + e.Key)
		} else {
			ops[i] = clientv3.OpPut(statePrefix(host)+e.Key, string(e.Value))
		}
	}
	return ops
}

// journal writes the parts beside the state, then the mark that makes them valid, then moves them over. The write is decided by the mark: a
// crash before it leaves parts that settle removes, a crash after it leaves parts that settle moves over.
func (s *Store) journal(ctx context.Context, host string, parts [][]stateEntry) error {
	s.journaled[host] = false // until it is empty again
	for i, part := range parts {
		value, err := json.Marshal(part)
		if err != nil {
			return err
		}
		if _, err := s.client.Put(ctx, fmt.Sprintf("%s%08d", journalPrefix(host), i), string(value)); err != nil {
			return err
		}
	}
	if _, err := s.client.Put(ctx, journalMark(host), "1"); err != nil {
		return err
	}
	return s.settleLocked(ctx, host)
}

// settle finishes or removes a journal that an earlier process left.
func (s *Store) settle(ctx context.Context, host string) error {
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	return s.settleLocked(ctx, host)
}

func (s *Store) settleLocked(ctx context.Context, host string) error {
	if s.journaled[host] {
		return nil
	}
	mark, err := s.client.Get(ctx, journalMark(host))
	if err != nil {
		return err
	}
	if len(mark.Kvs) == 0 {
		if _, err := s.client.Delete(ctx, journalPrefix(host), clientv3.WithPrefix()); err != nil {
			return err
		}
		s.journaled[host] = true
		return nil
	}
	// Parts are large, so they are read one at a time, in order.
	for {
		resp, err := s.client.Get(ctx, journalPrefix(host), clientv3.WithPrefix(), clientv3.WithLimit(1))
		if err != nil {
			return err
		}
		if len(resp.Kvs) == 0 {
			break
		}
		var part []stateEntry
		if err := json.NewDecoder(bytes.NewReader(resp.Kvs[0].Value)).Decode(&part); err != nil {
			return fmt.Errorf("%s: %w", resp.Kvs[0].Key, err)
		}
		ops := append(stateOps(host, part), clientv3.OpDelete(string(resp.Kvs[0].Key)))
		if _, err := s.client.Txn(ctx).Then(ops...).Commit(); err != nil {
			return err
		}
	}
	if _, err := s.client.Delete(ctx, journalMark(host)); err != nil {
		return err
	}
	s.journaled[host] = true
	return nil
}
