package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tapwall/tapwall/policy"
)

type startInput struct {
	Name    string `path:"name" doc:"Name of the mirror" example:"web"`
	IfMatch string `header:"If-Match" doc:"Only if the mirror has this ETag" example:"\"17\""`
	Wait    string `query:"wait" enum:"installed,effective" doc:"Answer when it copies on every connected host, or has failed there; effective: and no decision is left that a switch cached before"`
	Timeout string `query:"timeout" default:"5s" doc:"How long to wait, up to 60s; after that the answer is 504, and the mirror stays started" example:"5s"`
}

func (s *Server) registerStart() {
	d := s.describe()
	huma.Register(s.api, huma.Operation{OperationID: "start-mirror", Method: http.MethodPost, Path: "/v1/mirrors/{name}/start",
		Tags:    []string{policy.KindMirror.Plural()},
		Summary: "Start one mirror",
		Description: "Sets spec.enabled, if it is false. A mirror that has ended by stopAfter begins again, with all of its time, packets and " +
			"bytes, and one that waits for startAt begins at once; its ttl counts from now. One that runs is left alone.",
		Responses: d.responses(schemaFor[Document[policy.MirrorSpec]](d), exampleDocument(policy.KindMirror), 400, 404, 409, 412, 422, 503, 504)},
		func(ctx context.Context, in *startInput) (*documentOutput, error) {
			out, err := s.start(ctx, in)
			if err != nil {
				return nil, s.problemFor(ctx, err)
			}
			return out, nil
		})
}

func (s *Server) start(ctx context.Context, in *startInput) (*documentOutput, error) {
	w := write{kind: policy.KindMirror, name: in.Name}
	var err error
	if w.pre, err = parsePrecondition(in.IfMatch, ""); err != nil {
		return nil, err
	}
	if w.wait, err = parseWait(in.Wait, in.Timeout); err != nil {
		return nil, err
	}
	w.after = func(ctx context.Context, r policy.Resource) error {
		return s.o.Engine.Start(ctx, r.(*policy.Mirror), caller(ctx))
	}
	return s.answer(ctx, w, func(current policy.Resource) (policy.Resource, error) {
		if current == nil {
			return nil, problem(http.StatusNotFound, "there is no %s", refName(w.kind, in.Name))
		}
		if current.(*policy.Mirror).IsEnabled() {
			return current, nil
		}
		next := current.Clone().(*policy.Mirror)
		next.Spec.Enabled = nil
		return next, nil
	})
}
