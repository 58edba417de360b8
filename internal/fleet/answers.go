package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/policy"
)

// refreshFor is how long a reader waits for the counters of many hosts, one of which may just have begun to hang.
const refreshFor = 500 * time.Millisecond

// planConnectionsFor is for how long a plan waits for the connections of a host that is alone.
const planConnectionsFor = 3 * time.Second

// Refresh implements api.Engine.
func (f *Fleet) Refresh(ctx context.Context, kind policy.Kind) {
	if len(f.hosts) > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, refreshFor)
		defer cancel()
	}
	each(f, func(e *host.Engine) struct{} { e.Refresh(ctx, kind); return struct{}{} })
}

// Admit implements api.Engine: the first host that has no room says so.
func (f *Fleet) Admit(changes []backend.Change) error {
	changes = f.lives.judgedAll(changes)
	for _, e := range f.hosts {
		if err := e.Admit(changes); err != nil {
			return err
		}
	}
	return nil
}

// Warnings implements api.Engine.
func (f *Fleet) Warnings(changes []backend.Change) []policy.Warning {
	flat := f.flat(changes)
	return append(together(each(f, func(e *host.Engine) []policy.Warning { return e.Warnings(flat) })), f.elsewhere(changes)...)
}

// elsewhere warns of selectors that name a host which is none of this process. Another one may manage it, with the same store.
func (f *Fleet) elsewhere(changes []backend.Change) (out []policy.Warning) {
	var ids []string
	for _, e := range f.hosts {
		if e.Unknown() != "" {
			return nil // it may be that one
		}
		ids = append(ids, e.Name())
	}
	for _, c := range changes {
		if c.Resource == nil {
			continue
		}
		for _, name := range policy.HostsNamed(c.Resource) {
			if !slices.Contains(ids, name) {
				out = append(out, policy.Warning{Code: WarnNoSuchHost, Message: fmt.Sprintf("%s/%s names host %q, which this tapwall does not manage: "+
					"it has %s", strings.ToLower(string(c.Kind)), c.Name, name, strings.Join(ids, ", "))})
			}
		}
	}
	return out
}

// Consequences implements api.Engine.
func (f *Fleet) Consequences(changes []backend.Change, before []policy.Resource) []policy.Consequence {
	if !slices.ContainsFunc(changes, func(c backend.Change) bool { return c.Kind != policy.KindMirror }) {
		return nil
	}
	changes, before = f.flatBoth(changes, before)
	var was, now *policy.Set
	for _, e := range f.hosts {
		w, n := e.Judged(changes, before)
		switch {
		case w == nil:
		case was == nil:
			was, now = w, n
		default:
			was.Workloads, now.Workloads = append(was.Workloads, w.Workloads...), append(now.Workloads, n.Workloads...)
		}
	}
	if was == nil {
		return nil
	}
	return policy.Consequences(was, now)
}

// Codes of warnings.
const (
	WarnHostUnknown policy.Code = "HOST_UNKNOWN" // a plan says nothing of a host, as nothing is known of it
	WarnNoSuchHost  policy.Code = "NO_SUCH_HOST" // a selector names a host that this process does not manage
)

// Plan implements api.Engine.
func (f *Fleet) Plan(ctx context.Context, changes []backend.Change) (wire.Plan, error) {
	plan := wire.Plan{Bridges: []wire.BridgePlan{}}
	var warnings [][]policy.Warning
	flat := f.flat(changes)
	for _, e := range f.hosts {
		p, err := e.Plan(ctx, flat)
		if err != nil {
			return plan, err
		}
		plan.Bridges = append(plan.Bridges, p.Bridges...)
		warnings = append(warnings, p.Warnings)
	}
	look := planConnectionsFor
	if len(f.hosts) > 1 {
		look = refreshFor
	}
	looking, cancel := context.WithTimeout(ctx, look)
	defer cancel()
	for _, p := range each(f, func(e *host.Engine) *wire.ConnectionPlan { return e.PlanConnections(looking, changes) }) {
		plan.Connections = addConnections(plan.Connections, p)
	}
	plan.Warnings = append(together(warnings), f.elsewhere(changes)...)
	for _, what := range f.Unknown() {
		plan.Warnings = append(plan.Warnings, policy.Warning{Code: WarnHostUnknown, Message: "not in this plan: " + what})
	}
	return plan, nil
}

// Hosts implements api.Engine.
func (f *Fleet) Hosts() []wire.Host {
	out := []wire.Host{}
	for _, e := range f.hosts {
		out = append(out, e.Hosts()...)
	}
	slices.SortStableFunc(out, func(a, b wire.Host) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// Workloads implements api.Engine. A peer that several hosts know by its addresses is listed once, and not at all where it is on one of
// them.
func (f *Fleet) Workloads() []*policy.Workload {
	if len(f.hosts) == 1 {
		return f.hosts[0].Workloads()
	}
	var out []*policy.Workload
	local, remote := map[string]bool{}, map[string]bool{}
	for _, e := range f.hosts {
		for _, w := range e.Workloads() {
			if !w.Remote {
				local[w.Endpoint] = true
				out = append(out, w)
			}
		}
	}
	for _, e := range f.hosts {
		for _, w := range e.Workloads() {
			if w.Remote && !local[w.Endpoint] && !remote[w.Key] {
				remote[w.Key] = true
				out = append(out, w)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b *policy.Workload) int {
		return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.Host, b.Host))
	})
	return out
}

// Learned implements api.Engine.
func (f *Fleet) Learned(w *policy.Workload) []policy.LearnedAddress {
	for _, e := range f.hosts {
		if !w.Remote && e.Name() == w.Host {
			return e.Learned(w.Key)
		}
	}
	return nil
}

// Flows implements api.Engine. Of several hosts those that do not answer are named by a *backend.PartialError beside what the others
// answered, or by an error alone if none did.
func (f *Fleet) Flows(ctx context.Context, q backend.FlowQuery) ([]wire.FlowEntry, error) {
	if len(f.hosts) == 1 {
		return f.hosts[0].Flows(ctx, q)
	}
	out := []wire.FlowEntry{}
	err := f.ask(ctx, "", func(ctx context.Context, e *host.Engine) (func(), error) {
		flows, err := e.Flows(ctx, q)
		return func() { out = append(out, flows...) }, err
	})
	if q.Limit > 0 && len(out) > q.Limit {
		out = out[:q.Limit]
	}
	return out, err
}

// Classes implements api.Engine.
func (f *Fleet) Classes(q backend.ClassQuery) []wire.Class {
	out := []wire.Class{}
	for _, e := range f.hosts {
		out = append(out, e.Classes(q)...)
	}
	slices.SortStableFunc(out, func(a, b wire.Class) int { return strings.Compare(a.Host, b.Host) })
	return out
}

// Unknown implements api.Engine. A process with one host, of which nothing is known, has no list that would lack something.
func (f *Fleet) Unknown() (out []string) {
	if len(f.hosts) == 1 {
		return nil
	}
	for _, e := range f.hosts {
		if why := e.Unknown(); why != "" {
			out = append(out, fmt.Sprintf("host %s: %s", called(e.Name()), why))
		}
	}
	return out
}

// System implements api.Engine.
func (f *Fleet) System() wire.SystemStatus {
	s := wire.SystemStatus{Version: f.opt.Version, Store: f.opt.Store.Status(), Events: f.opt.Recorder.Counters(), Hosts: []wire.HostHealth{}}
	for _, e := range f.hosts {
		h := e.Health()
		s.Hosts = append(s.Hosts, h.HostHealth)
		s.Problems = append(s.Problems, f.about(e, append(h.Unready, h.Concerns...))...)
	}
	if s.Store.Message != "" {
		s.Problems = append(s.Problems, "store: "+s.Store.Message)
	}
	if sp := s.Events.Spool; sp != nil && sp.Error != "" {
		s.Problems = append(s.Problems, "event spool: "+sp.Error)
	}
	for _, sink := range s.Events.Sinks {
		if sink.Error != "" {
			s.Problems = append(s.Problems, "event sink "+sink.Name+": "+sink.Error)
		}
	}
	s.Healthy = len(s.Problems) == 0
	return s
}

// about says which host problems are about, where that is a question.
func (f *Fleet) about(e *host.Engine, problems []string) []string {
	if len(f.hosts) == 1 {
		return problems
	}
	out := make([]string, len(problems))
	for i, p := range problems {
		out[i] = fmt.Sprintf("host %s: %s", e.Name(), p)
	}
	return out
}

// Ready implements api.Engine.
func (f *Fleet) Ready() error {
	var missing []string
	for _, e := range f.hosts {
		missing = append(missing, f.about(e, e.Health().Unready)...)
	}
	if len(missing) > 0 {
		return errors.New(strings.Join(missing, "; "))
	}
	return nil
}

// Status implements api.Engine.
func (f *Fleet) Status(kind policy.Kind, name string) policy.Status {
	s := f.merge(each(f, func(e *host.Engine) policy.Status { return e.Status(kind, name) }))
	return f.lives.status(kind, name, f.withList(kind, name, s))
}

// merge makes one status of those of all hosts: the worst of them, but for hosts that have nothing to do with the resource while others
// have.
func (f *Fleet) merge(parts []policy.Status) policy.Status {
	if len(parts) == 1 {
		return parts[0]
	}
	var out policy.Status
	worst := -1
	var warnings [][]policy.Warning
	for i, s := range parts {
		if len(s.Hosts) == 0 {
			s.Hosts = []policy.HostStatus{{Host: f.hosts[i].Name(), Phase: s.Phase, Reason: s.Reason, Message: s.Message,
				Observed: s.ObservedRevision}}
		}
		out.Hosts = append(out.Hosts, s.Hosts...)
		warnings = append(warnings, s.Warnings)
		if i == 0 || s.ObservedRevision < out.ObservedRevision {
			out.ObservedRevision = s.ObservedRevision
		}
		if worst < 0 || badness(s) > badness(parts[worst]) {
			worst = i
		}
	}
	out.Phase, out.Reason, out.Message, out.Warnings = parts[worst].Phase, parts[worst].Reason, parts[worst].Message, together(warnings)
	if out.Message != "" && out.Phase != policy.PhaseActive && !indifferent(parts[worst]) {
		out.Message = fmt.Sprintf("host %s: %s", out.Hosts[worst].Host, out.Message)
	}
	return out
}

// indifferent reports whether a host has nothing that the resource is about.
func indifferent(s policy.Status) bool {
	switch s.Reason {
	case policy.ReasonNoEndpoints, policy.ReasonNoPort, policy.ReasonElsewhere:
		return true
	case policy.ReasonSourceMissing:
		return len(s.Hosts) == 1 && len(s.Hosts[0].Endpoints) == 0
	}
	return false
}

// badness orders statuses. Hosts that have nothing to do with a resource do not count beside one that has.
func badness(s policy.Status) int {
	if indifferent(s) {
		return 0
	}
	return 1 + slices.Index([]policy.Phase{policy.PhaseActive, policy.PhaseStopped, policy.PhasePending, policy.PhaseDegraded,
		policy.PhaseFailed}, s.Phase)
}

// outOfReach is how often it is looked whether a host is still there to wait for.
const outOfReach = 100 * time.Millisecond

// Wait implements api.Engine. A host that cannot be reached is not waited for, unless there is no other; the status says so.
func (f *Fleet) Wait(ctx context.Context, kind policy.Kind, name string, revision int64) (policy.Status, error) {
	s, err := f.wait(ctx, kind, name, revision)
	if s.Phase == "" || kind != policy.KindGroup || revision == 0 {
		return f.lives.status(kind, name, s), err
	}
	if r := f.roster.Load().Raw(name); err == nil && r != nil && r.Spec.From != nil {
		f.awaitList(ctx, kind, name)
		s, err = f.wait(ctx, kind, name, revision) // with what the list holds
	}
	return f.withList(kind, name, s), err
}

func (f *Fleet) wait(ctx context.Context, kind policy.Kind, name string, revision int64) (policy.Status, error) {
	if len(f.hosts) == 1 {
		return f.hosts[0].Wait(ctx, kind, name, revision)
	}
	type answer struct {
		status policy.Status
		err    error
	}
	answers := each(f, func(e *host.Engine) answer {
		ctx, cancel := whileReachable(ctx, e)
		defer cancel()
		s, err := e.Wait(ctx, kind, name, revision)
		if err != nil && errors.Is(context.Cause(ctx), errUnreachable) {
			err = nil
		}
		return answer{s, err}
	})
	var parts []policy.Status
	var err error
	for _, a := range answers {
		parts = append(parts, a.status)
		err = cmp.Or(err, a.err)
	}
	if there := func(s policy.Status) bool { return s.Phase != "" }; revision == 0 && err == nil && !slices.ContainsFunc(parts, there) {
		return policy.Status{}, nil
	}
	return f.merge(parts), err
}

// Effective implements api.Engine. A host that cannot be reached is not waited for.
func (f *Fleet) Effective(ctx context.Context) error {
	errs := each(f, func(e *host.Engine) error {
		ctx, cancel := whileReachable(ctx, e)
		defer cancel()
		err := e.Effective(ctx)
		if err != nil && errors.Is(context.Cause(ctx), errUnreachable) {
			return nil
		}
		if err != nil && len(f.hosts) > 1 {
			return fmt.Errorf("host %s: %w", e.Name(), err)
		}
		return err
	})
	return errors.Join(errs...)
}

// whileReachable returns a context that ends with the cause errUnreachable when the host cannot be reached. cancel must be called.
func whileReachable(ctx context.Context, e *host.Engine) (_ context.Context, cancel func()) {
	ctx, end := context.WithCancelCause(ctx)
	go func() {
		for e.Reachable() {
			select {
			case <-ctx.Done():
				return
			case <-time.After(outOfReach):
			}
		}
		end(errUnreachable)
	}()
	return ctx, func() { end(nil) }
}

var errUnreachable = errors.New("the host cannot be reached")

// collector reports the metrics of all hosts.
type collector struct {
	fleet   *Fleet
	metrics *host.Metrics
}

var resources = prometheus.NewDesc("tapwall_resources", "Resources by kind.", []string{"kind"}, nil)

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	c.metrics.Describe(out)
	out <- resources
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	c.fleet.Refresh(ctx, policy.KindPolicy)
	called := map[string]int{}
	for _, e := range c.fleet.hosts {
		called[e.Name()]++
	}
	for _, e := range c.fleet.hosts {
		// A host that was never reached goes by its name in the configuration, which may be the id of another: one of the two, or none at all.
		if called[e.Name()] < 2 || e.Unknown() == "" {
			e.Collect(c.metrics, out)
		}
	}
	for _, kind := range policy.Kinds() {
		n := 0
		for _, e := range c.fleet.hosts {
			n = max(n, e.Resources(kind))
		}
		out <- prometheus.MustNewConstMetric(resources, prometheus.GaugeValue, float64(n), string(kind))
	}
}
