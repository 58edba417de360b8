// Package backend holds the values that the API, the engine and the store exchange: none of the three has to know the others for them.
package backend

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

// Errors of the store and the engine; match with errors.Is. The API turns them into problem responses.
var (
	ErrNotFound    = errors.New("not found")
	ErrConflict    = errors.New("the resource was changed by somebody else")
	ErrLimit       = errors.New("a limit is reached")      // of a switch: 409
	ErrTaken       = errors.New("taken already")           // by another resource: 409
	ErrUnavailable = errors.New("not available now")       // store or switch not reachable, disk full: 503
	ErrUnable      = errors.New("not possible there")      // of a host, as it is managed: 409
	ErrTooLarge    = errors.New("too large for one write") // an external etcd accepts fewer changes at once: 413
)

// FaultyError is what is wrong with one of several changes in the place where it would be in force, as far as that is known now.
type FaultyError struct {
	Change int // index
	Faults policy.Faults
}

// Error is that of the faults.
func (e *FaultyError) Error() string { return e.Faults.Error() }

// PartialError comes beside an answer that lacks what some hosts have to say. Problems name those hosts, and why.
type PartialError struct{ Problems []string }

// Error joins the problems.
func (e *PartialError) Error() string { return strings.Join(e.Problems, "; ") }

// Change is one resource that is to be written, or was. Resource nil deletes Kind/Name, or says that it is gone.
type Change struct {
	Kind     policy.Kind
	Name     string
	Resource policy.Resource
	// Expect is, of a write, the revision that the resource must have: nil = that which it has when the write begins, 0 = must not exist.
	Expect *int64
	// Before is, of a write with Expect, the resource at that revision, as the writer has read it. With it the store need not read it again.
	Before policy.Resource
	// Guard makes a write a condition of its transaction that writes nothing: the resource has revision Expect or, without a Name, no
	// resource of Kind was written after revision Expect. Resource is nil and Expect is not.
	Guard bool
}

// Note is a record that a transaction of resources writes or removes beside them: an undo that is outstanding.
type Note struct {
	ID    string
	Value []byte // nil = the note must be there, and goes
}

// MaxNoteBytes bounds the value of a note: with the changes that it goes along with, it has to fit into one transaction.
const MaxNoteBytes = 512 << 10

// Life is what the store keeps of the life of a mirror.
type Life struct {
	Value    []byte
	Revision int64
}

// Batch is what one transaction changed, or everything there is.
type Batch struct {
	// Revision is that of the store after the batch.
	Revision int64
	// Snapshot means that the batch holds every resource there is, so that what is not in it does not exist. The first batch is one, and
	// so is the one after a gap that etcd could not bridge; that one also carries deletions for what has gone in the gap.
	Snapshot bool
	// Changes are ordered by kind as policy.Kinds orders them in a snapshot, by key otherwise.
	Changes []Change
}

// MaxStateBytes bounds one value of the state that the store keeps of a host.
const MaxStateBytes = 1 << 20

// ClassQuery narrows a listing of classes of endpoints; zero fields match everything.
type ClassQuery struct {
	Bridge   string
	Endpoint string // key of a workload: the class that it is in
	Policy   string // classes that it applies to or that its rules name, with its rules alone
}

// ConnectionQuery narrows a listing, or a kill, of connections; zero fields match everything.
type ConnectionQuery struct {
	// Filter holds what is asked as of events: bridge, policy, rule, protocol, addresses and ports. Its other fields are not looked at.
	Filter event.Filter
	// Endpoint, From and To are names of endpoints: any that a workload goes by. Several are alternatives.
	Endpoint, From, To []string
	Host               string // id
	VLAN               []int
	State              []string // in any case
	// Force also asks for what delays forwarding for longer than is stated.
	Force bool
	Limit int // of what is listed; 0 = all
}

// Everything reports whether the query leaves no connection out.
func (q *ConnectionQuery) Everything() bool {
	return q.Host == "" && !q.Filter.Chooses() && len(q.Endpoint)+len(q.From)+len(q.To)+len(q.State)+len(q.VLAN) == 0
}

// ConnectionQuestion asks what the numbers in a conntrack entry, or in a ct_label alone, stand for.
type ConnectionQuestion struct {
	Entry, Label string // one of them
	Host, Bridge string // "" = any
}

// CaptureQuery asks for packets that a mirror copied.
type CaptureQuery struct {
	Mirror string
	Host   string // id; "" = the only one that has them
	// Since and Until bound when the packets came; zero = as long ago as there are any, and now.
	Since, Until time.Time
	// Follow asks for packets that come from now on, behind those since Since if that is set.
	Follow bool
	// Packets and Duration bound what is followed; 0 = they do not.
	Packets  int
	Duration time.Duration
}

// WritePackets writes packets as a pcapng stream, in whole blocks, until there are no more or ctx ends, which is no error.
type WritePackets func(ctx context.Context, w io.Writer) error

// CaptureFile is a file of packets that is open.
type CaptureFile interface {
	io.ReadCloser
	Stat() (fs.FileInfo, error)
}

// FlowQuery narrows a listing of flows; zero fields match everything.
type FlowQuery struct {
	Bridge string
	Owner  string // "policy/NAME", "mirror/NAME", "system", "endpoint/KEY"
	Table  *uint8
	Match  string // ovs-ofctl match text; flows whose text contains it
	Limit  int
}
