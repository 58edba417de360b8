package api

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// maxTries bounds how often a write without preconditions is repeated because somebody else wrote in between.
const maxTries = 8

// retrySpread bounds the pause ahead of the first repetition; that of the n-th is n times as long.
const retrySpread = 5 * time.Millisecond

// giveWay pauses ahead of another try, or until ctx ends: of several who write at one pace some would lose every time.
func giveWay(ctx context.Context, try int) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(rand.N(time.Duration(try) * retrySpread)):
		return nil
	}
}

// intent makes the resource to store from what is stored now (nil = nothing), or nil to delete it. It is called again after a lost race.
type intent func(current policy.Resource) (policy.Resource, error)

// write is the parameters common to PUT, PATCH and DELETE of one resource.
type write struct {
	kind   policy.Kind
	name   string
	pre    precondition
	dryRun bool
	wait   waiting
	// place finds the place in the body of a fault found in the resource; nil = it is the same.
	place func(*policy.Fault)
	// after, if it is not nil, does what is to be done beside the store, before the answer waits.
	after func(ctx context.Context, stored policy.Resource) error
	// show makes the answer of what was written and observed; nil = the document.
	show func(policy.Resource, policy.Status) any
}

// written is the outcome: the resource (nil = deleted), whether it is new, and the result of a dry run instead.
type written struct {
	resource policy.Resource
	created  bool
	advice   func() advice // nil = none
	dry      *ApplyResult
}

// do reads, decides, checks and commits, on top of the newest state.
func (s *Server) do(ctx context.Context, w write, want intent) (written, error) {
	for try := 1; ; try++ {
		out, err := s.tryWrite(ctx, w, want)
		if !errors.Is(err, backend.ErrConflict) {
			return out, err
		}
		if w.pre.strict() {
			return out, problem(http.StatusPreconditionFailed,
				"%s was changed by somebody else at the same time; get it again and repeat the change",
				refName(w.kind, w.name))
		}
		if try == maxTries {
			return out, problem(http.StatusConflict, "%s, or something it refers to, is being changed by others; try again", refName(w.kind, w.name))
		}
		if err := giveWay(ctx, try); err != nil {
			return out, err
		}
	}
}

func (s *Server) tryWrite(ctx context.Context, w write, want intent) (written, error) {
	current, err := s.o.Store.Get(ctx, w.kind, w.name)
	if errors.Is(err, backend.ErrNotFound) {
		current, err = nil, nil
	}
	if err != nil {
		return written{}, err
	}
	if err := w.pre.check(w.kind, w.name, current); err != nil {
		return written{}, err
	}
	next, err := want(current)
	if err != nil {
		return written{}, err
	}
	var revision int64
	if current != nil {
		revision = current.GetMeta().Revision
		if next != nil && w.kind != policy.KindGroup && sameWish(current, next) { // a group, which may be long, has no defaults
			next = current.Clone() // so that writing the defaults out is no change
		}
	}
	if current != nil && next == current && !w.dryRun {
		return written{resource: current, advice: func() advice { return advice{} }}, nil
	}
	change := backend.Change{Kind: w.kind, Name: w.name, Resource: next, Expect: &revision, Before: current}
	place := func(_ int, faults policy.Faults) error {
		for i := range faults {
			if w.place != nil {
				w.place(&faults[i])
			}
		}
		return invalid(faults)
	}
	guards, err := s.checkRefs(ctx, []backend.Change{change}, place)
	if err != nil {
		return written{}, err
	}
	if err := s.admit([]backend.Change{change}, place); err != nil {
		return written{}, err
	}
	if w.dryRun {
		dry, err := s.dryRun(ctx, []backend.Change{change}, []policy.Resource{current})
		return written{dry: dry}, err
	}
	advice := s.advise(ctx, []backend.Change{change}, []policy.Resource{current})
	sign(ctx, []backend.Change{change})
	stored, err := s.o.Store.Commit(ctx, append([]backend.Change{change}, guards...))
	if err != nil {
		return written{}, err
	}
	s.audit(ctx, change, stored[0], current, nil)
	return written{resource: stored[0], created: current == nil, advice: advice}, nil
}

// admit asks the engine whether changes can be in force; place makes the answer of faults of one of them.
func (s *Server) admit(changes []backend.Change, place func(i int, faults policy.Faults) error) error {
	err := s.o.Engine.Admit(changes)
	if f := new(backend.FaultyError); errors.As(err, &f) {
		return place(f.Change, f.Faults)
	}
	return err
}

// advice is what the engine says of a write, for the answer only.
type advice struct {
	warnings     []policy.Warning
	consequences []policy.Consequence
}

// advise asks the engine while the disk and the switch do their part. The function that it returns waits for the answer. before[i] is
// what changes[i] replaces.
func (s *Server) advise(ctx context.Context, changes []backend.Change, before []policy.Resource) func() advice {
	out := make(chan advice, 1)
	go func() {
		defer close(out)
		defer func() {
			// The middleware that catches panics of handlers does not see this goroutine.
			if r := recover(); r != nil {
				s.log.ErrorContext(ctx, "panic", "error", r, "request", requestID(ctx), "stack", string(debug.Stack()))
			}
		}()
		out <- advice{s.o.Engine.Warnings(changes), s.o.Engine.Consequences(changes, before)}
	}()
	return sync.OnceValue(func() advice { return <-out })
}

// asWarnings is for documents, which have no place of their own for consequences.
func (a advice) asWarnings() []policy.Warning {
	out := slices.Clip(a.warnings)
	for _, e := range a.consequences {
		out = append(out, policy.Warning{Code: e.Code, Message: e.Message})
	}
	return out
}

// waitFor waits until revision (0 = the deletion) is installed. done is false if the time was up before that.
func (s *Server) waitFor(ctx context.Context, limit time.Duration, kind policy.Kind, name string, revision int64) (st policy.Status,
	done bool, err error) {
	wctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	st, err = s.o.Engine.Wait(wctx, kind, name, revision)
	if err == nil {
		return st, true, nil
	}
	if wctx.Err() == nil || ctx.Err() != nil { // an error of the engine, or the client has gone
		return st, false, err
	}
	return s.o.Engine.Status(kind, name), false, nil
}

// waitForCaches waits for the caches of the switches until deadline, with what they are to follow installed already.
func (s *Server) waitForCaches(ctx context.Context, deadline time.Time) error {
	wctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	err := s.o.Engine.Effective(wctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil: // the client has gone
		return ctx.Err()
	case wctx.Err() != nil:
		return problem(http.StatusGatewayTimeout,
			"installed, but the switch has not said in time that no decision is left that it cached before; such decisions end by themselves")
	}
	return problem(http.StatusGatewayTimeout,
		"installed, but it is not known whether decisions are left that a switch cached before; they end by themselves: %v", err)
}

// checkRefs finds references of the changed resources that lead nowhere after the changes, and references of others that the changes would
// break. The guards keep both findings true until the commit. faulty turns the faults of change i into an error.
func (s *Server) checkRefs(ctx context.Context, changes []backend.Change, faulty func(i int, faults policy.Faults) error) (
	[]backend.Change, error) {
	v := view{server: s, ctx: ctx, changed: map[string]policy.Resource{}, found: map[string]*policy.Group{}}
	inSet := map[string]bool{}
	for _, c := range changes {
		inSet[refName(c.Kind, c.Name)] = true
		if c.Kind == policy.KindGroup {
			v.changed[c.Name] = c.Resource
		}
	}
	var errs []error
	for i, c := range changes {
		if c.Resource == nil {
			continue
		}
		r := c.Resource
		if change, ok := memberChange(c.Before, r); ok { // the others were looked at when they came
			r = &policy.Group{Meta: *r.GetMeta(), Spec: policy.GroupSpec{Members: change.Added}}
		}
		if faults := policy.ValidateRefs(r, v.lookup()); len(faults) > 0 {
			if err := faulty(i, faults); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if v.err != nil {
		return nil, v.err
	}
	if len(errs) > 0 {
		return nil, mergeProblems(errs)
	}
	guards := v.guards()

	if !slices.ContainsFunc(changes, narrows) {
		return guards, nil
	}
	// A group goes, or gets what cannot be used everywhere: ask those who refer to it, or to a group that contains it.
	var broken []brokenRef
	affected := map[string]bool{}
	for name := range v.changed {
		affected[name] = true
	}
	for _, kind := range []policy.Kind{policy.KindGroup, policy.KindPolicy, policy.KindMirror} {
		all, revision, err := s.o.Store.List(ctx, kind, "", 0)
		if err != nil {
			return nil, err
		}
		if kind == policy.KindGroup {
			policy.Holders(affected, groupsOf(all))
		}
		for _, r := range all {
			name := refName(kind, r.GetMeta().Name)
			if inSet[name] || !refersTo(r, affected) {
				continue
			}
			for _, f := range policy.ValidateRefs(r, policy.Lookup{Group: v.group}) {
				broken = append(broken, brokenRef{name, f.Pointer, f.Detail})
			}
		}
		guards = append(guards, backend.Change{Kind: kind, Expect: &revision, Guard: true})
	}
	if v.err != nil {
		return nil, v.err
	}
	if len(broken) > 0 {
		return nil, inUse(broken)
	}
	return guards, nil
}

// narrows reports whether a change may break references of others to a group: it goes, or gets address ranges or groups.
func narrows(c backend.Change) bool {
	if c.Kind != policy.KindGroup || c.Resource == nil {
		return c.Kind == policy.KindGroup
	}
	if c.Expect != nil && *c.Expect == 0 {
		return false // nobody refers to what was not there
	}
	now := c.Resource.(*policy.Group)
	old, _ := c.Before.(*policy.Group)
	if old == nil {
		old = &policy.Group{}
	}
	return now.HasCIDR() && !old.HasCIDR() ||
		slices.ContainsFunc(now.Spec.Nested(), func(name string) bool { return !slices.Contains(old.Spec.Nested(), name) })
}

func groupsOf(all []policy.Resource) []*policy.Group {
	out := make([]*policy.Group, len(all))
	for i, r := range all {
		out[i] = r.(*policy.Group)
	}
	return out
}

// brokenRef is a reference that a change would break.
type brokenRef struct{ resource, pointer, detail string }

// inUse is the 409 that names who refers to a group.
func inUse(broken []brokenRef) *Problem {
	const show = 10
	var names []string
	var errs []InputError
	for _, b := range broken {
		if !slices.Contains(names, b.resource) {
			names = append(names, b.resource)
		}
		errs = append(errs, InputError{Detail: b.resource + " " + b.pointer + ": " + b.detail})
	}
	more := ""
	if n := len(names) - show; n > 0 {
		names, more = names[:show], fmt.Sprintf(" and %d more", n)
	}
	out := problem(http.StatusConflict, "still in use by %s%s: change or delete them first, or all in one apply", strings.Join(names, ", "),
		more)
	out.Errors = errs
	return out
}

func refersTo(r policy.Resource, groups map[string]bool) bool {
	return slices.ContainsFunc(policy.Refs(r), func(ref policy.Ref) bool {
		return ref.Kind == policy.KindGroup && groups[ref.Name]
	})
}

// mergeProblems makes one answer of several.
func mergeProblems(errs []error) error {
	var out *Problem
	for _, err := range errs {
		var p *Problem
		if !errors.As(err, &p) {
			return err
		}
		if out == nil {
			out = p
			continue
		}
		out.Errors = append(out.Errors, p.Errors...)
	}
	countFaults(out)
	return out
}

// view is the store as it would be after the changes.
type view struct {
	server  *Server
	ctx     context.Context
	changed map[string]policy.Resource // groups; nil = deleted
	found   map[string]*policy.Group   // read from the store; nil = not there
	bridges func() (map[string]bool, bool)
	err     error
}

func (v *view) lookup() policy.Lookup {
	return policy.Lookup{Group: v.group, Bridge: v.bridge}
}

// bridge reports whether a bridge of that name is managed, or might be. Few resources name one, and the answer takes more than all other
// checks.
func (v *view) bridge(name string) bool {
	if v.bridges == nil {
		v.bridges = sync.OnceValues(v.server.managedBridges)
	}
	bridges, known := v.bridges()
	return !known || bridges[name]
}

func (v *view) group(name string) (*policy.Group, bool) {
	if r, ok := v.changed[name]; ok {
		if r == nil {
			return nil, false
		}
		return r.(*policy.Group), true
	}
	if g, ok := v.found[name]; ok {
		return g, g != nil
	}
	r, err := v.server.o.Store.Get(v.ctx, policy.KindGroup, name)
	if err != nil {
		if !errors.Is(err, backend.ErrNotFound) && v.err == nil {
			v.err = err
		}
		v.found[name] = nil
		return nil, false
	}
	g := r.(*policy.Group)
	v.found[name] = g
	return g, true
}

// guards make the commit fail if a group that was relied upon has changed.
func (v *view) guards() []backend.Change {
	var out []backend.Change
	for name, g := range v.found {
		if g != nil {
			out = append(out, backend.Change{Kind: policy.KindGroup, Name: name, Expect: &g.Revision, Guard: true})
		}
	}
	return out
}

// managedBridges is known only if this process manages all hosts and sees all of them: then a bridge that is not there is a mistake.
func (s *Server) managedBridges() (map[string]bool, bool) {
	hosts := s.o.Engine.Hosts()
	if len(hosts) == 0 || s.o.Engine.System().Store.Kind == "external" {
		return nil, false
	}
	out := map[string]bool{}
	for _, h := range hosts {
		if !h.Connected {
			return nil, false
		}
		for _, b := range h.Bridges {
			if b.Mode != "" {
				out[b.Name] = true
			}
		}
	}
	return out, true
}
