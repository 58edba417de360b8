package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tapwall/tapwall/duration"
	"github.com/tapwall/tapwall/event"
)

type aggregateInput struct {
	FilterInput
	By     []string `query:"by,explode" doc:"What the events of a group have in common, 16 at most: src, dst, src-ip, dst-ip, sport, dport, protocol, verdict, action, reason, rule, policy, direction, bridge, mirror, node, src-label:KEY, dst-label:KEY" example:"[\"src\",\"dst\",\"dport\",\"verdict\"]"`
	Window string   `query:"window" doc:"Also by windows of this length: 10s, 5m" example:"10s"`
	Top    string   `query:"top" doc:"The largest groups, of each window: this many; default 50, at most 1000" example:"50"`

	url url.URL
}

// Resolve keeps the URL for event.ParseFilter.
func (in *aggregateInput) Resolve(ctx huma.Context) []error { in.url = ctx.URL(); return nil }

type aggregateOutput struct{ Body event.Summary }

func (s *Server) registerAggregate() {
	d := s.describe()
	huma.Register(s.api, huma.Operation{OperationID: "aggregate-events", Method: http.MethodGet, Path: "/v1/events/aggregate",
		Tags: []string{"events"}, Summary: "Count events",
		Description: "Counts the events that match, of the last 10 minutes if since is not given, by what they have in common, and " +
			"answers with the largest groups. Losses and ends of connections are not counted. At most 16384 groups are kept at once: the smaller " +
			"half of more goes to the others, and missed says of a group how many of its events may be there at most. " + filterText,
		Parameters: filterParameters(), SkipValidateParams: true,
		Responses: d.responses(schemaFor[event.Summary](d), nil, 422)}, func(ctx context.Context, in *aggregateInput) (*aggregateOutput, error) {
		q := in.url.Query()
		by, window, top, err := parseAggregate(q)
		if err != nil {
			return nil, s.problemFor(ctx, streamError(err))
		}
		if q.Get("since") == "" {
			q.Set("since", event.DefaultSince.String())
		}
		f, err := parseFilter(q)
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		a, err := event.NewAggregator(by, window)
		if err != nil {
			return nil, s.problemFor(ctx, streamError(err))
		}
		coverage, err := s.o.Events.Each(ctx, f, a.Add)
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		out := a.Summary(top)
		out.Since, out.Until, out.Coverage = f.Since, f.Until, coverage
		return &aggregateOutput{Body: out}, nil
	})
}

// parseAggregate takes what is no filter's out of q.
func parseAggregate(q url.Values) (by []string, window time.Duration, top int, err error) {
	for _, v := range q["by"] {
		by = append(by, strings.Split(v, ",")...)
	}
	top = event.DefaultTop
	if v := q.Get("top"); v != "" {
		if top, err = strconv.Atoi(v); err != nil || top < 1 || top > event.MaxTop {
			return nil, 0, 0, &event.ParamError{Param: "top", Value: v, Reason: "not between 1 and " + strconv.Itoa(event.MaxTop)}
		}
	}
	if v := q.Get("window"); v != "" {
		if window, err = duration.Parse(v); err != nil {
			return nil, 0, 0, &event.ParamError{Param: "window", Value: v, Reason: "not a duration such as 10s or 5m"}
		}
	}
	for _, own := range []string{"by", "top", "window"} {
		q.Del(own)
	}
	return by, window, top, nil
}
