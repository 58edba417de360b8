package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/host"
)

// Connections implements api.Engine. Of several hosts those that were not looked at are named by a *backend.PartialError, as in Flows.
func (f *Fleet) Connections(ctx context.Context, q backend.ConnectionQuery) (wire.Connections, error) {
	out := wire.Connections{Items: []wire.Connection{}}
	err := f.ask(ctx, q.Host, func(ctx context.Context, e *host.Engine) (func(), error) {
		c, err := e.Connections(ctx, q)
		return func() {
			out.Items = append(out.Items, c.Items...)
			out.Matched += c.Matched
		}, err
	})
	if q.Limit > 0 && len(out.Items) > q.Limit {
		out.Items = out.Items[:q.Limit]
	}
	return out, err
}

// KillConnections implements api.Engine, likewise.
func (f *Fleet) KillConnections(ctx context.Context, q backend.ConnectionQuery, dryRun bool) (wire.Killed, error) {
	out := wire.Killed{Connections: wire.Connections{Items: []wire.Connection{}}, DryRun: dryRun}
	err := f.ask(ctx, q.Host, func(ctx context.Context, e *host.Engine) (func(), error) {
		k, err := e.KillConnections(ctx, q, dryRun)
		return func() {
			out.Items, out.Notes = append(out.Items, k.Items...), append(out.Notes, k.Notes...)
			out.Matched += k.Matched
			out.Killed += k.Killed
		}, err
	})
	return out, err
}

// Explain implements api.Engine.
func (f *Fleet) Explain(q backend.ConnectionQuestion) ([]wire.Explanation, error) {
	var out []wire.Explanation
	for _, e := range f.hosts {
		x, err := e.Explain(q)
		if err != nil {
			return nil, err
		}
		out = append(out, x...)
	}
	return out, nil
}

// ask asks all hosts, or the one with the id, at the same time, and takes what they say in their order. Its error is that of Flows.
func (f *Fleet) ask(ctx context.Context, id string, question func(context.Context, *host.Engine) (take func(), err error)) error {
	type answer struct {
		take func()
		err  error
	}
	partial := &backend.PartialError{}
	if id == "" {
		partial.Problems = f.Unknown()
	}
	var errs []error
	for i, a := range each(f, func(e *host.Engine) answer {
		if id != "" && e.Name() != id {
			return answer{}
		}
		ctx, cancel := whileReachable(ctx, e)
		defer cancel()
		take, err := question(ctx, e)
		if err != nil && errors.Is(context.Cause(ctx), errUnreachable) {
			err = fmt.Errorf("%w: %w", backend.ErrUnavailable, errUnreachable)
		}
		return answer{take, err}
	}) {
		var some *backend.PartialError
		switch {
		case a.take == nil:
			continue
		case errors.As(a.err, &some):
			partial.Problems = append(partial.Problems, f.about(f.hosts[i], some.Problems)...)
		case a.err != nil && len(f.hosts) > 1:
			errs = append(errs, fmt.Errorf("host %s: %w", f.hosts[i].Name(), a.err))
			partial.Problems = append(partial.Problems, errs[len(errs)-1].Error())
			continue
		case a.err != nil:
			return a.err
		}
		a.take()
	}
	switch {
	case len(errs) == len(f.hosts) || len(errs) > 0 && id != "" || ctx.Err() != nil:
		return errors.Join(append(errs, ctx.Err())...)
	case len(partial.Problems) > 0:
		return partial
	}
	return nil
}

// addConnections adds what is planned for the connections of a host to that of others; nil = nothing.
func addConnections(sum, more *wire.ConnectionPlan) *wire.ConnectionPlan {
	if sum == nil || more == nil {
		return cmp.Or(sum, more)
	}
	sum.Cut, sum.Kept, sum.Moved = sum.Cut+more.Cut, sum.Kept+more.Kept, sum.Moved+more.Moved
	sum.Allowed, sum.Untold = sum.Allowed+more.Allowed, sum.Untold+more.Untold
	sum.Cuts, sum.Allows = append(sum.Cuts, more.Cuts...), append(sum.Allows, more.Allows...)
	sum.Cuts, sum.Allows = sum.Cuts[:min(len(sum.Cuts), wire.MaxPlanned)], sum.Allows[:min(len(sum.Allows), wire.MaxPlanned)]
	sum.Problems = append(sum.Problems, more.Problems...)
	return sum
}
