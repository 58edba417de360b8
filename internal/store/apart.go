package store

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tapwall/tapwall/policy"
)

// The members of a large group are stored apart from it, so that a change of some of them writes and reads little:
//
//	groups/NAME               the record; instead of members it says which list and edits are in force
//	members/NAME/list         all members as of some edit
//	members/NAME/edits/N      what edit N changed
//
// A write that says what it changes puts the record and one edit. From time to time the edits are folded into the list, which leaves the
// record, and so the revision of the group, as it is. A write of the whole group begins a new list. All of this is in transactions that
// hold only while the record is as it was, so who reads record, list and edits as of one revision has the group as of that revision.

const (
	// apartFrom is the number of members from which on they are stored apart.
	apartFrom = 2000
	// foldAfter is the number of edits after which they are folded into the list, also after one of more than largeEdit members.
	foldAfter = 64
	largeEdit = 1000
	// maxEdit is how many members an edit may change that is stored as one.
	maxEdit = 4096
)

func membersPrefix(name string) string { return root + "members/" + name + "/" }
func listKey(name string) string       { return membersPrefix(name) + "list" }
func editsPrefix(name string) string   { return membersPrefix(name) + "edits/" }

func editKey(name string, n int64) string { return fmt.Sprintf("%s%016x", editsPrefix(name), n) }

// apart says in the record where the members are.
type apart struct {
	List string `json:"list"` // names the list, also when edits have been folded into it
	Edit int64  `json:"edit"` // the last edit; 0 = none since the list was written as a whole
	ID   string `json:"id"`   // of this write: no two records are the same
}

// apartSpec is the specification of such a group. A version that does not know of it refuses the field, as it should.
type apartSpec struct {
	OnMemberRemoved string              `json:"onMemberRemoved,omitempty"`
	From            *policy.GroupSource `json:"from,omitempty"`
	MembersApart    bool                `json:"membersApart"`
}

// listHead is the first line of a list; each other is a member: an address range as such, everything else as JSON.
type listHead struct {
	List    string `json:"list"`
	Edit    int64  `json:"edit"` // the edits up to this one are in it
	Members int    `json:"members"`
}

// edit is one change.
type edit struct {
	ID       string            `json:"id"`    // of the record that was put with it
	After    string            `json:"after"` // of the record before
	Of       int               `json:"of"`    // members before
	RemoveAt []int             `json:"removeAt,omitempty"`
	Add      []policy.Selector `json:"add,omitempty"`
}

func encodeList(head listHead, members []policy.Selector) ([]byte, error) {
	head.Members = len(members)
	text, err := json.Marshal(head)
	if err != nil {
		return nil, err
	}
	text = append(make([]byte, 0, len(text)+20*len(members)), text...)
	for i := range members {
		m := &members[i]
		text = append(text, '\n')
		if m.Kind() == policy.SelectCIDR && m.Except == nil && m.Host == "" && !strings.ContainsAny(m.CIDR, "{\n") {
			text = append(text, m.CIDR...)
			continue
		}
		one, err := json.Marshal(m)
		if err != nil {
			return nil, err
		}
		text = append(text, one...)
	}
	return pack(text)
}

func decodeList(value []byte) (head listHead, members []policy.Selector, err error) {
	if value, err = unpack(value); err != nil {
		return head, nil, err
	}
	first, rest, _ := strings.Cut(string(value), "\n")
	if err := decodeStrict([]byte(first), &head); err != nil {
		return head, nil, err
	}
	if head.Members < 0 || head.Members > len(value) {
		return head, nil, fmt.Errorf("the list claims %d members", head.Members)
	}
	members = make([]policy.Selector, 0, head.Members)
	for len(rest) > 0 {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		members = append(members, policy.Selector{})
		if m := &members[len(members)-1]; line[:min(1, len(line))] != "{" {
			m.CIDR = line
		} else if err := decodeStrict([]byte(line), m); err != nil {
			return head, nil, err
		}
	}
	if len(members) != head.Members {
		return head, nil, fmt.Errorf("the list has %d members, not %d", len(members), head.Members)
	}
	return head, members, nil
}

func decodeStrict(text []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

// unpack undoes pack.
func unpack(value []byte) ([]byte, error) {
	if !bytes.HasPrefix(value, []byte{0x1f, 0x8b}) {
		return value, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(value))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// apply makes of a group the one after an edit.
func (e *edit) apply(g *policy.Group) (*policy.Group, error) {
	c := &policy.MemberChange{Added: e.Add, RemovedAt: e.RemoveAt}
	if e.Of != len(g.Spec.Members) {
		return nil, fmt.Errorf("an edit of %d members does not fit to %d", e.Of, len(g.Spec.Members))
	}
	last := -1
	for _, i := range e.RemoveAt {
		if i <= last || i >= e.Of {
			return nil, fmt.Errorf("an edit removes member %d after %d of %d", i, last, e.Of)
		}
		last = i
		c.Removed = append(c.Removed, g.Spec.Members[i])
	}
	return g.Changed(c), nil
}

// errIncomplete says that list and edits are not as the record says: what belongs together is written together, so somebody else has been
// at them.
var errIncomplete = errors.New("members are missing")

// readApart adds to g, which was read without, the members as of revision. from is an earlier version, if one is known.
func (s *Store) readApart(ctx context.Context, g *policy.Group, a *apart, from sharedValue, revision int64) (folded int64, err error) {
	edits := func(list []*edit, at int64, base *policy.Group, id string) (*policy.Group, error) {
		for _, e := range list {
			if id != "" && e.After != id {
				return nil, errIncomplete
			}
			id = e.ID
			if base, err = e.apply(base); err != nil {
				return nil, err
			}
		}
		if at+int64(len(list)) != a.Edit || id != "" && id != a.ID {
			return nil, errIncomplete
		}
		return base, nil
	}
	if old, ok := from.resource.(*policy.Group); ok && from.apart != nil && from.apart.List == a.List && from.apart.Edit < a.Edit {
		resp, err := s.client.Get(ctx, editKey(g.Name, from.apart.Edit+1), append(s.readOpts, clientv3.WithRev(revision),
			clientv3.WithRange(clientv3.GetPrefixRangeEnd(editsPrefix(g.Name))))...)
		if err != nil {
			return 0, &requestError{err}
		}
		if list, err := readEdits(resp); err == nil {
			if now, err := edits(list, from.apart.Edit, old, from.apart.ID); err == nil {
				g.Spec.Members, g.Spec.Change = now.Spec.Members, now.Spec.Change
				return from.folded, nil
			}
		}
	}
	resp, err := s.client.Get(ctx, membersPrefix(g.Name), append(s.readOpts, clientv3.WithRev(revision), clientv3.WithPrefix())...)
	if err != nil {
		return 0, &requestError{err}
	}
	n := len(resp.Kvs)
	if n == 0 || string(resp.Kvs[n-1].Key) != listKey(g.Name) { // edits/… sorts before list
		return 0, errIncomplete
	}
	head, members, err := decodeList(resp.Kvs[n-1].Value)
	if err != nil {
		return 0, err
	}
	resp.Kvs = resp.Kvs[:n-1]
	list, err := readEdits(resp)
	if err != nil {
		return 0, err
	}
	if head.List != a.List {
		return 0, errIncomplete
	}
	now, err := edits(list, head.Edit, &policy.Group{Spec: policy.GroupSpec{Members: members}}, "")
	if err != nil {
		return 0, err
	}
	g.Spec.Members = now.Spec.Members
	return head.Edit, nil
}

func readEdits(resp *clientv3.GetResponse) ([]*edit, error) {
	out := make([]*edit, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		out[i] = new(edit)
		if err := decodeStrict(kv.Value, out[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", kv.Key, err)
		}
	}
	return out, nil
}

// encodeApart adds to rec, and to what is written, where the members of g are. ok is false for a group that is stored as one.
func encodeApart(rec *record, g *policy.Group, old stored) (ops []clientv3.Op, size int, ok bool, err error) {
	id := uuid.NewString()
	if change, known := g.Spec.Since(membersOf(old)); known && old.Apart != nil &&
		len(change.Added)+len(change.RemovedAt) <= min(maxEdit, len(g.Spec.Members)) {
		rec.Apart = &apart{List: old.Apart.List, Edit: old.Apart.Edit, ID: id}
		if len(change.Added)+len(change.RemovedAt) == 0 {
			rec.Apart.ID = old.Apart.ID // that of the last edit
		} else {
			rec.Apart.Edit++
			value, err := json.Marshal(edit{ID: id, After: old.Apart.ID, Of: len(old.group.Spec.Members), RemoveAt: change.RemovedAt,
				Add: change.Added})
			if err != nil {
				return nil, 0, false, err
			}
			ops, size = append(ops, clientv3.OpPut(editKey(g.Name, rec.Apart.Edit), string(value))), len(value)
		}
	} else if len(g.Spec.Members) >= apartFrom {
		rec.Apart = &apart{List: id, ID: id}
		value, err := encodeList(listHead{List: id}, g.Spec.Members)
		if err != nil {
			return nil, 0, false, err
		}
		ops, size = append(ops, clientv3.OpPut(listKey(g.Name), string(value))), len(value)
		if old.Apart != nil {
			ops = append(ops, clientv3.OpDelete(editsPrefix(g.Name), clientv3.WithPrefix()))
		}
	} else {
		if old.Apart != nil {
			ops = append(ops, deleteMembers(g.Name))
		}
		return ops, 0, false, nil
	}
	rec.Spec, err = json.Marshal(apartSpec{OnMemberRemoved: g.Spec.OnMemberRemoved, From: g.Spec.From, MembersApart: true})
	return ops, size, true, err
}

func deleteMembers(name string) clientv3.Op {
	return clientv3.OpDelete(membersPrefix(name), clientv3.WithPrefix())
}

// membersOf is what a change of members may be known against.
func membersOf(old stored) *policy.GroupSpec {
	if old.group == nil {
		return &policy.GroupSpec{}
	}
	return &old.group.Spec
}

// fold puts the edits of a group into its list, in the background: nobody waits for it, and who writes meanwhile wins.
func (s *Store) fold(name string, v sharedValue) {
	g, ok := v.resource.(*policy.Group)
	if !ok || v.apart == nil {
		return
	}
	if c := g.Spec.Change; v.apart.Edit-v.folded < foldAfter && (c == nil || len(c.Added)+len(c.RemovedAt) <= largeEdit) {
		return
	}
	if !s.folding.CompareAndSwap(false, true) {
		return // the next edit asks again
	}
	s.wg.Go(func() {
		defer s.folding.Store(false)
		ctx, cancel := context.WithTimeout(s.client.Ctx(), requestTimeout)
		defer cancel()
		value, err := encodeList(listHead{List: v.apart.List, Edit: v.apart.Edit}, g.Spec.Members)
		var resp *clientv3.TxnResponse
		if err == nil {
			resp, err = s.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key(policy.KindGroup, name)), "=", g.Revision)).Then(
				clientv3.OpPut(listKey(name), string(value)),
				clientv3.OpDelete(editsPrefix(name), clientv3.WithRange(editKey(name, v.apart.Edit+1)))).Commit()
		}
		if err != nil {
			if s.client.Ctx().Err() == nil {
				s.log.Warn("edits of a group could not be folded", slog.String("group", name), slog.Any("error", err))
			}
			return
		}
		if !resp.Succeeded {
			return // the group is another by now
		}
		s.shared.folded(key(policy.KindGroup, name), v.apart)
		s.member.wrote(ctx, len(value))
	})
}
