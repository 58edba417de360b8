// Package api serves tapwall's REST resources: huma operations on chi, problem responses (RFC 9457), server-sent events and
// the OpenAPI description. It reaches the rest of the program through the interfaces declared here.
package api

import (
	"context"
	"errors"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

// Errors of Store and Engine that handlers turn into problem responses; match with errors.Is.
var (
	ErrNotFound    = errors.New("not found")
	ErrConflict    = errors.New("the resource was changed by somebody else")
	ErrLimit       = errors.New("a limit is reached")        // of a switch: 409
	ErrUnavailable = errors.New("not available now")       // store or switch not reachable, disk full: 503
	ErrTooLarge    = errors.New("too large for one write") // an external etcd accepts fewer changes at once: 413
)

// Change is one write of a transaction. Resource nil deletes Kind/Name.
type Change struct {
	Kind     policy.Kind
	Name     string
	Resource policy.Resource
	// Expect is the revision the resource must have: nil = any, 0 = must not exist.
	Expect *int64
	// Guard makes this a condition of the transaction that writes nothing: the resource has revision Expect or, without a Name, no
	// resource of Kind was written after revision Expect. Resource is nil and Expect is not.
	Guard bool
}

// Store keeps the resources. Writes are durable when they return. All methods are safe for concurrent use.
type Store interface {
	// Get returns ErrNotFound.
	Get(ctx context.Context, kind policy.Kind, name string) (policy.Resource, error)
	// List returns resources ordered by name after the name after (exclusive), at most limit (0 = all), and the store's revision.
	List(ctx context.Context, kind policy.Kind, after string, limit int) ([]policy.Resource, int64, error)
	// Commit writes all changes in one transaction, sets UID, CreatedAt and Revision and returns the stored resources in the order of
	// changes (nil for deletions and guards). A resource whose labels and spec are those already stored is not written and keeps its
	// revision. It returns ErrConflict when an Expect does not hold and ErrNotFound for the deletion of what is not there.
	Commit(ctx context.Context, changes []Change) ([]policy.Resource, error)
}

// Engine is what runs the resources. All methods are safe for concurrent use and answer from observed state.
type Engine interface {
	// Status of one resource as observed; a resource the engine has not seen yet is Pending.
	Status(kind policy.Kind, name string) policy.Status
	// Wait blocks until revision of the resource (or its deletion, revision 0 = the state at call time without it) is installed on every
	// connected host or failed there, or ctx ends (then ctx.Err()). It returns the status then.
	Wait(ctx context.Context, kind policy.Kind, name string, revision int64) (policy.Status, error)
	// Refresh brings the counters that Status shows up to date, if they are older than half a second. Reads ask for it, writes do not.
	Refresh(ctx context.Context, kind policy.Kind)
	// Admit says whether the switches have room for changes, as far as is known now. Its error matches ErrLimit.
	Admit(changes []Change) error
	// Warnings are the cheap part of Plan, asked on every write: what the user should know of the changed resources (SHADOWED, unknown
	// endpoints). It reads memory only; Plan compiles everything and is for dry runs.
	Warnings(changes []Change) []policy.Warning
	// Plan says what changes would do, without doing it.
	Plan(ctx context.Context, changes []Change) (Plan, error)
	// Hosts lists what is known of each host.
	Hosts() []Host
	// Workloads lists the endpoints seen, ordered by key.
	Workloads() []*policy.Workload
	// Flows reads flows back from the switches.
	Flows(ctx context.Context, q FlowQuery) ([]FlowEntry, error)
	// System is the health of the whole process.
	System() SystemStatus
	// Ready reports whether every managed bridge is in sync at least once; the error says what is missing.
	Ready() error
}

// Events reads the record.
type Events interface {
	// Query returns up to f.Limit events, oldest first, from what is kept in memory.
	Query(f event.Filter) event.Page
	// Subscribe follows new events that match f, after the event with id after ("" = from now). The channel is closed when ctx ends. A slow
	// reader loses events, which is counted and told by an events-lost event.
	Subscribe(ctx context.Context, f event.Filter, after string) (<-chan *event.Event, error)
}

// Plan is the answer to a dry run: flows and rows that would be added (+) and removed (-), as ovs-ofctl and ovs-vsctl print them.
type Plan struct {
	Bridges  []BridgePlan     `json:"bridges"`
	Warnings []policy.Warning `json:"warnings,omitempty"`
}

// BridgePlan is the part of one bridge.
type BridgePlan struct {
	Host          string   `json:"host"`
	Bridge        string   `json:"bridge"`
	AddFlows      []string `json:"addFlows,omitempty"`
	RemoveFlows   []string `json:"removeFlows,omitempty"`
	AddMirrors    []string `json:"addMirrors,omitempty"`
	RemoveMirrors []string `json:"removeMirrors,omitempty"`
	// CutRules lists rules whose live connections would be judged again (and cut unless another rule allows them).
	CutRules []string `json:"rejudgedRules,omitempty"`
}

// Host is one OVS instance.
type Host struct {
	ID         string       `json:"id"`
	OVSVersion string       `json:"ovsVersion"`
	Connected  bool         `json:"connected"`
	Message    string       `json:"message,omitempty"`
	Bridges    []HostBridge `json:"bridges"`
}

// HostBridge is one bridge of a host; foreign bridges are listed with mode "".
type HostBridge struct {
	Name         string       `json:"name"`
	Mode         string       `json:"mode,omitempty"` // owned | guest | ""
	DatapathType string       `json:"datapathType"`
	FailMode     string       `json:"failMode"`
	Connected    bool         `json:"connected"`
	Message      string       `json:"message,omitempty"`
	Ports        []HostPort   `json:"ports"`
	Mirrors      []HostMirror `json:"mirrors,omitempty"`
}

// HostPort is one port.
type HostPort struct {
	Name     string `json:"name"`
	OFPort   int64  `json:"ofport"`
	Type     string `json:"type,omitempty"`
	VLAN     *int   `json:"vlan,omitempty"`
	MAC      string `json:"mac,omitempty"`
	Endpoint string `json:"endpoint,omitempty"` // key of the workload
	Error    string `json:"error,omitempty"`
}

// HostMirror is one mirror row, ours or foreign.
type HostMirror struct {
	Name   string `json:"name"`
	Owner  string `json:"owner,omitempty"` // Mirror resource; "" = foreign
	Output string `json:"output,omitempty"`
}

// FlowQuery narrows Flows; zero fields match everything.
type FlowQuery struct {
	Bridge string
	Owner  string // "policy/NAME", "mirror/NAME", "system", "endpoint/KEY"
	Table  *uint8
	Match  string // ovs-ofctl match text; flows whose text contains it
	Limit  int
}

// FlowEntry is one flow, desired and/or installed.
type FlowEntry struct {
	Host    string `json:"host"`
	Bridge  string `json:"bridge"`
	Owner   string `json:"owner"`
	State   string `json:"state"` // installed | missing (desired, not on the switch) | foreign (on the switch, not ours)
	Text    string `json:"flow"`  // as ovs-ofctl dump-flows prints it, without statistics
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// SystemStatus is the health of the process.
type SystemStatus struct {
	Version  string         `json:"version"`
	Healthy  bool           `json:"healthy"`
	Problems []string       `json:"problems,omitempty"`
	Store    StoreStatus    `json:"store"`
	Hosts    []HostHealth   `json:"hosts"`
	Events   event.Counters `json:"events"`
}

// StoreStatus is the health of the store.
type StoreStatus struct {
	Kind      string `json:"kind"` // embedded | external
	Connected bool   `json:"connected"`
	Revision  int64  `json:"revision"`
	Message   string `json:"message,omitempty"`
}

// HostHealth is the health of the connections to one host.
type HostHealth struct {
	Host      string         `json:"host"`
	OVSDB     string         `json:"ovsdb"` // connected | connecting: reason
	Desired   int64          `json:"desiredRevision"`
	Installed int64          `json:"installedRevision"`
	Bridges   []BridgeHealth `json:"bridges"`
}

// BridgeHealth is the health of one OpenFlow connection.
type BridgeHealth struct {
	Bridge         string `json:"bridge"`
	Mode           string `json:"mode"`
	OpenFlow       string `json:"openflow"` // connected | connecting: reason
	DesiredFlows   int    `json:"desiredFlows"`
	InstalledFlows int    `json:"installedFlows"`
	FlowMods       uint64 `json:"flowMods"` // sent since start
	Resyncs        uint64 `json:"resyncs"`
	Pickup         bool   `json:"pickup"` // the window for connections from before a restart is open
	Message        string `json:"message,omitempty"`
}
