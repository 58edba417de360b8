package api_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tapwall/tapwall/api"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/capture"
	"github.com/tapwall/tapwall/policy"
)

// memory is an api.Store without a disk.
type memory struct {
	mu       sync.Mutex
	revision int64
	items    map[api.Ref]policy.Resource
	notes    map[string][]byte
	err      error  // of every call, if set
	race     func() // called once, inside Commit before it looks
}

func newMemory() *memory { return &memory{revision: 1, items: map[api.Ref]policy.Resource{}} }

func (m *memory) Get(_ context.Context, kind policy.Kind, name string) (policy.Resource, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return nil, m.err
	}
	r, ok := m.items[api.Ref{Kind: kind, Name: name}]
	if !ok {
		return nil, backend.ErrNotFound
	}
	return r, nil
}

func (m *memory) List(_ context.Context, kind policy.Kind, after string, limit int) ([]policy.Resource, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return nil, 0, m.err
	}
	var out []policy.Resource
	for _, ref := range slices.SortedFunc(maps.Keys(m.items), func(a, b api.Ref) int { return cmpString(a.Name, b.Name) }) {
		if ref.Kind == kind && ref.Name > after && (limit == 0 || len(out) < limit) {
			out = append(out, m.items[ref])
		}
	}
	return out, m.revision, nil
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (m *memory) Commit(_ context.Context, changes []backend.Change) ([]policy.Resource, error) {
	if f := m.race; f != nil {
		m.race = nil
		f()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return nil, m.err
	}
	for _, c := range changes {
		if c.Guard && c.Name == "" {
			for ref, r := range m.items {
				if ref.Kind == c.Kind && r.GetMeta().Revision > *c.Expect {
					return nil, backend.ErrConflict
				}
			}
			continue
		}
		var rev int64
		if r := m.items[api.Ref{Kind: c.Kind, Name: c.Name}]; r != nil {
			rev = r.GetMeta().Revision
		}
		if known := c.Before != nil && c.Before.GetMeta().Revision == *c.Expect; !c.Guard && c.Expect != nil && *c.Expect != 0 && !known {
			return nil, fmt.Errorf("%s %s: the writer has read what he replaces and does not hand it on", c.Kind, c.Name)
		}
		if c.Expect != nil && *c.Expect != rev {
			return nil, backend.ErrConflict
		}
	}
	m.revision++
	out := make([]policy.Resource, len(changes))
	for i, c := range changes {
		ref := api.Ref{Kind: c.Kind, Name: c.Name}
		switch old := m.items[ref]; {
		case c.Guard:
		case c.Resource == nil:
			delete(m.items, ref)
		default:
			r := c.Resource.Clone()
			meta := r.GetMeta()
			meta.UID, meta.CreatedAt = "uid-"+c.Name, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			meta.Revision = m.revision
			if old != nil && equalWish(old, r) {
				meta.Revision = old.GetMeta().Revision
			}
			m.items[ref], out[i] = r, r
		}
	}
	return out, nil
}

func (m *memory) CommitNoting(ctx context.Context, changes []backend.Change, n backend.Note) ([]policy.Resource, error) {
	m.mu.Lock()
	_, there := m.notes[n.ID]
	m.mu.Unlock()
	if there != (n.Value == nil) {
		return nil, backend.ErrConflict
	}
	out, err := m.Commit(ctx, changes)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.notes == nil {
		m.notes = map[string][]byte{}
	}
	if m.notes[n.ID] = n.Value; n.Value == nil {
		delete(m.notes, n.ID)
	}
	return out, nil
}

func (m *memory) Notes(context.Context) (map[string][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.notes), m.err
}

func equalWish(a, b policy.Resource) bool {
	strip := func(r policy.Resource) string {
		r = r.Clone()
		m := r.GetMeta()
		*m = policy.Meta{Name: m.Name, Labels: m.Labels}
		text, err := policy.EncodeJSON(r)
		if err != nil {
			panic(err)
		}
		return string(text)
	}
	return strip(a) == strip(b)
}

// engine is an api.Engine whose answers tests set.
type engine struct {
	mu        sync.Mutex
	installed int64 // revisions up to this are
	hosts     []api.Host
	workloads []*policy.Workload
	warnings  []policy.Warning
	effects   []policy.Consequence
	limit     error
	unknown   []string
	flows     func(backend.FlowQuery) ([]api.FlowEntry, error)
	tracked   func(backend.ConnectionQuery) (api.Connections, error)
	traced    func(backend.TraceQuestion) (api.Trace, error)
	captures  []api.Capture
	packets   func(backend.CaptureQuery) (backend.WritePackets, error)
	dir       string   // of the files of captures
	kills     int      // not dry runs
	started   []string // mirrors
	asked     backend.ConnectionQuestion
	system    api.SystemStatus
	ready     error
	effective func(context.Context) error // nil = at once
	panics    bool
	statuses  map[string]policy.Status // by name
	planned   []backend.Change
}

func (e *engine) Status(kind policy.Kind, name string) policy.Status {
	if s, ok := e.statuses[name]; ok {
		return s
	}
	return policy.Status{Phase: policy.PhaseActive, ObservedRevision: e.installed}
}

func (e *engine) Wait(ctx context.Context, kind policy.Kind, name string, revision int64) (policy.Status, error) {
	for {
		e.mu.Lock()
		done := revision <= e.installed
		e.mu.Unlock()
		if done {
			return e.Status(kind, name), nil
		}
		select {
		case <-ctx.Done():
			return e.Status(kind, name), ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func (e *engine) Effective(ctx context.Context) error {
	if e.effective == nil {
		return nil
	}
	return e.effective(ctx)
}

func (e *engine) Start(_ context.Context, m *policy.Mirror, who policy.Writer) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.started = append(e.started, m.Name)
	return nil
}

func (e *engine) Refresh(context.Context, policy.Kind) {}

func (e *engine) Admit([]backend.Change) error { return e.limit }

func (e *engine) Warnings([]backend.Change) []policy.Warning { return e.warnings }

func (e *engine) Consequences([]backend.Change, []policy.Resource) []policy.Consequence {
	return e.effects
}

func (e *engine) Plan(_ context.Context, changes []backend.Change) (api.Plan, error) {
	e.planned = changes
	p := api.Plan{Bridges: []api.BridgePlan{{Host: "h1", Bridge: "br0"}}, Warnings: e.warnings}
	for _, c := range changes {
		p.Bridges[0].AddFlows = append(p.Bridges[0].AddFlows, fmt.Sprintf("table=206, %s", c.Name))
	}
	return p, nil
}

func (e *engine) Hosts() []api.Host             { return e.hosts }
func (e *engine) Workloads() []*policy.Workload { return e.workloads }

func (e *engine) Learned(w *policy.Workload) (out []policy.LearnedAddress) {
	for _, a := range w.Learned {
		out = append(out, policy.LearnedAddress{Address: a.String(), Source: "arp"})
	}
	return out
}
func (e *engine) Unknown() []string        { return e.unknown }
func (e *engine) System() api.SystemStatus { return e.system }
func (e *engine) Ready() error             { return e.ready }

func (e *engine) Classes(q backend.ClassQuery) []api.Class {
	return []api.Class{{Host: "h1", Bridge: "br0", Number: 16, Endpoints: []string{"vm1"}, Policies: []string{q.Policy}}}
}

func (e *engine) Flows(_ context.Context, q backend.FlowQuery) ([]api.FlowEntry, error) {
	if e.panics {
		panic("the engine has a bug")
	}
	if e.flows == nil {
		return nil, nil
	}
	return e.flows(q)
}

func (e *engine) Connections(_ context.Context, q backend.ConnectionQuery) (api.Connections, error) {
	return e.tracked(q)
}

func (e *engine) KillConnections(_ context.Context, q backend.ConnectionQuery, dryRun bool) (api.Killed, error) {
	c, err := e.tracked(q)
	if !dryRun {
		e.kills++
	}
	return api.Killed{Connections: c, DryRun: dryRun, Killed: c.Matched}, err
}

func (e *engine) Trace(_ context.Context, q backend.TraceQuestion) (api.Trace, error) {
	if e.traced == nil {
		return api.Trace{Verdict: "allow"}, nil
	}
	return e.traced(q)
}

func (e *engine) Captures(mirror string) (out []api.Capture) {
	for _, c := range e.captures {
		if mirror == "" || c.Mirror == mirror {
			out = append(out, c)
		}
	}
	return out
}

func (e *engine) Packets(q backend.CaptureQuery) (backend.WritePackets, error) { return e.packets(q) }

func (e *engine) CaptureFile(mirror, _, file string) (backend.CaptureFile, error) {
	f, err := capture.Open(e.dir, mirror, file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%q: %w", file, backend.ErrNotFound)
	}
	return f, err
}

func (e *engine) Explain(q backend.ConnectionQuestion) ([]api.Explanation, error) {
	e.asked = q
	if strings.Contains(q.Entry+q.Label, "bad") {
		return nil, errors.New("unixctl: bad conntrack entry")
	}
	return nil, nil
}

// record is an api.Events over a growing slice.
type record struct {
	mu     sync.Mutex
	events []*event.Event
	more   chan struct{} // closed and replaced at every addition
	filter event.Filter  // of the last call
}

func newRecord() *record { return &record{more: make(chan struct{})} }

func (r *record) add(ids ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		r.events = append(r.events, &event.Event{Event: event.Meta{ID: id, Action: "policy-verdict"}, Rule: &event.Rule{ID: "web/ingress/a\nb"}})
	}
	close(r.more)
	r.more = make(chan struct{})
}

func (r *record) Query(_ context.Context, f event.Filter) (event.Page, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.filter = f
	return event.Page{Items: slices.Clone(r.events)}, nil
}

func (r *record) Each(_ context.Context, f event.Filter, visit func(*event.Event)) ([]event.Coverage, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.filter = f
	for _, e := range r.events {
		visit(e)
	}
	return []event.Coverage{{Source: event.SourceMemory}}, nil
}

func (r *record) Subscribe(ctx context.Context, f event.Filter, after string) (<-chan *event.Event, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.filter = f
	next := len(r.events)
	if after != "" {
		i := slices.IndexFunc(r.events, func(e *event.Event) bool { return e.Event.ID == after })
		if i < 0 {
			return nil, &event.ParamError{Param: "after", Value: after, Reason: "not an event id"}
		}
		next = i + 1
	}
	ch := make(chan *event.Event)
	go func() {
		defer close(ch)
		for {
			r.mu.Lock()
			batch, more := r.events[next:], r.more
			next = len(r.events)
			r.mu.Unlock()
			for _, e := range batch {
				select {
				case ch <- e:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-more:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch, nil
}
