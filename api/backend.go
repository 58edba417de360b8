// Package api serves tapwall's REST resources: huma operations on chi, problem responses (RFC 9457), server-sent events and
// the OpenAPI description. It reaches the rest of the program through the interfaces declared here.
package api

import (
	"context"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// Store keeps the resources. Writes are durable when they return. All methods are safe for concurrent use.
type Store interface {
	// Get returns backend.ErrNotFound.
	Get(ctx context.Context, kind policy.Kind, name string) (policy.Resource, error)
	// List returns resources ordered by name after the name after (exclusive), at most limit (0 = all), and the store's revision.
	List(ctx context.Context, kind policy.Kind, after string, limit int) ([]policy.Resource, int64, error)
	// Commit writes all changes in one transaction, sets UID, CreatedAt and Revision and returns the stored resources in the order of
	// changes (nil for deletions and guards). A resource whose labels and spec are those already stored is not written and keeps its
	// revision. It returns backend.ErrConflict when an Expect does not hold, or somebody else wrote at the same time, and
	// backend.ErrNotFound for the deletion of what is not there. It never tries again: what to write depends on what is there.
	Commit(ctx context.Context, changes []backend.Change) ([]policy.Resource, error)
	// CommitNoting is Commit with a note, which must be new or, with a nil Value, be there and goes; else the error is backend.ErrConflict.
	CommitNoting(ctx context.Context, changes []backend.Change, n backend.Note) ([]policy.Resource, error)
	// Notes returns all notes, by id.
	Notes(ctx context.Context) (map[string][]byte, error)
}

// Engine is what runs the resources. All methods are safe for concurrent use and answer from observed state.
type Engine interface {
	// Status of one resource as observed; a resource the engine has not seen yet is Pending.
	Status(kind policy.Kind, name string) policy.Status
	// Wait blocks until revision of the resource (or its deletion, revision 0 = the state at call time without it) is installed on every
	// connected host or failed there, or ctx ends (then ctx.Err()). It returns the status then.
	Wait(ctx context.Context, kind policy.Kind, name string, revision int64) (policy.Status, error)
	// Start begins a mirror again that has ended by itself, or whose time has not come, for who asks, and returns when that is stored. One
	// that runs, or does not begin or end by itself, is left alone.
	Start(ctx context.Context, m *policy.Mirror, who policy.Writer) error
	// Effective blocks until no decision is left that a switch of a connected host cached before the call, or ctx ends. Its error says why
	// that is not known.
	Effective(ctx context.Context) error
	// Refresh brings the counters that Status shows up to date, if they are older than half a second, or of no kind those of Hosts and
	// System. Reads ask for it, writes do not.
	Refresh(ctx context.Context, kind policy.Kind)
	// Admit says whether the switches have room for changes, as far as is known now. Its error matches backend.ErrLimit, or is a
	// *backend.FaultyError.
	Admit(changes []backend.Change) error
	// Warnings are the cheap part of Plan, asked on every write: what the user should know of the changed resources (SHADOWED, unknown
	// endpoints). It reads memory only; Plan compiles everything and is for dry runs.
	Warnings(changes []backend.Change) []policy.Warning
	// Consequences says what changes do to endpoints as a whole; before[i] is what changes[i] replaces, nil = nothing. It may be asked
	// while the changes are written, and like Warnings reads memory only.
	Consequences(changes []backend.Change, before []policy.Resource) []policy.Consequence
	// Plan says what changes would do, without doing it.
	Plan(ctx context.Context, changes []backend.Change) (Plan, error)
	// Hosts lists what is known of each host.
	Hosts() []Host
	// Workloads lists what was found on ports, ordered by key, then by host.
	Workloads() []*policy.Workload
	// Learned lists the addresses that a workload was seen to use, beside those that are declared.
	Learned(w *policy.Workload) []policy.LearnedAddress
	// Unknown names, of several hosts, those of which nothing is known yet, and why.
	Unknown() []string
	// Flows reads flows back from the switches. With a *backend.PartialError comes what the hosts that answered have.
	Flows(ctx context.Context, q backend.FlowQuery) ([]FlowEntry, error)
	// Connections lists what is tracked on the switches. With a *backend.PartialError comes what could be looked at. Errors match
	// backend.ErrLimit where looking would delay packets for too long, and backend.ErrUnable where the switch cannot be asked.
	Connections(ctx context.Context, q backend.ConnectionQuery) (Connections, error)
	// KillConnections has the switches forget connections; q.Limit bounds what is listed of them. Errors are those of Connections.
	KillConnections(ctx context.Context, q backend.ConnectionQuery, dryRun bool) (Killed, error)
	// Explain says what the numbers in a conntrack entry stand for. It reads memory only. Its error says what cannot be read of the entry.
	Explain(q backend.ConnectionQuestion) ([]Explanation, error)
	// Trace says what would happen to a packet and why. Errors are a *backend.QuestionError, or match backend.ErrUnavailable or
	// backend.ErrUnable.
	Trace(ctx context.Context, q backend.TraceQuestion) (Trace, error)
	// Captures lists the targets of a mirror, "" = of all, whose packets can be had, by mirror, host and target.
	Captures(mirror string) []wire.Capture
	// Packets returns what writes the packets that are asked for. Errors match backend.ErrNotFound, or backend.ErrUnable and say what to do.
	Packets(q backend.CaptureQuery) (backend.WritePackets, error)
	// CaptureFile opens a pcapng file of a mirror. Errors match backend.ErrNotFound or backend.ErrUnable.
	CaptureFile(mirror, host, file string) (backend.CaptureFile, error)
	// Classes lists the classes of endpoints, by host, bridge and number. It reads memory only.
	Classes(q backend.ClassQuery) []Class
	// System is the health of the whole process.
	System() SystemStatus
	// Ready reports whether every managed bridge is in force now as desired; the error says what is missing.
	Ready() error
}

// Events reads the record.
type Events interface {
	// Query returns up to f.Limit events, oldest first, from all that is kept. Its error is that of ctx, or of the disk.
	Query(ctx context.Context, f event.Filter) (event.Page, error)
	// Each visits what f chooses of all that is kept, oldest first. Its error is as that of Query.
	Each(ctx context.Context, f event.Filter, visit func(*event.Event)) ([]event.Coverage, error)
	// Subscribe follows new events that match f, after the event with id after ("" = from now). The channel is closed when ctx ends. A slow
	// reader loses events, which is counted and told by an events-lost event.
	Subscribe(ctx context.Context, f event.Filter, after string) (<-chan *event.Event, error)
}

// The documents of package wire, by the names that the descriptions use.
type (
	Plan         = wire.Plan
	BridgePlan   = wire.BridgePlan
	Host         = wire.Host
	HostBridge   = wire.HostBridge
	HostPort     = wire.HostPort
	HostMirror   = wire.HostMirror
	FlowEntry    = wire.FlowEntry
	Class        = wire.Class
	SystemStatus = wire.SystemStatus
	StoreStatus  = wire.StoreStatus
	HostHealth   = wire.HostHealth
	BridgeHealth = wire.BridgeHealth
	ApplyResult  = wire.ApplyResult
	ApplyItem    = wire.ApplyItem
	Confirmation = wire.Confirmation
	Undone       = wire.Undone

	ConfirmationChange = wire.ConfirmationChange
	FieldChange        = wire.FieldChange
	Members            = wire.Members
	Workload           = wire.Workload
	WorkloadLabel      = wire.WorkloadLabel

	Capture      = wire.Capture
	Connections  = wire.Connections
	Killed       = wire.Killed
	Explanation  = wire.Explanation
	Explanations = wire.Explanations
	Trace        = wire.Trace
	Finding      = wire.Finding
)

// Document is wire.Document.
type Document[S any] = wire.Document[S]

// List is wire.List.
type List[T any] = wire.List[T]
