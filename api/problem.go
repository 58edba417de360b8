package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

const problemType = "application/problem+json"

// Problem is the body of every answer that is no success, as an error of handlers.
type Problem struct {
	wire.Problem[any]

	headers http.Header
}

// InputError is one fault of the input.
type InputError = wire.InputError

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders implements huma.HeadersError.
func (p *Problem) GetHeaders() http.Header { return p.headers }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return problemType }

func problem(status int, format string, args ...any) *Problem {
	return &Problem{Problem: wire.Problem[any]{Type: "about:blank", Title: http.StatusText(status), Status: status,
		Detail: fmt.Sprintf(format, args...)}}
}

// invalid is the answer to a document with faults.
func invalid(faults policy.Faults) *Problem {
	status, noun := http.StatusUnprocessableEntity, "fault"
	for _, f := range faults {
		if f.Code == policy.CodeSyntax {
			status, noun = http.StatusBadRequest, "syntax error"
			break
		}
	}
	if len(faults) != 1 {
		noun += "s"
	}
	p := problem(status, "the input has %d %s", len(faults), noun)
	for _, f := range faults {
		p.Errors = append(p.Errors, InputError{Pointer: &f.Pointer, Detail: f.Detail, Value: f.Value, Code: f.Code, Document: f.Document,
			Line: f.Line})
	}
	return p
}

// badParameter is the answer to one wrong parameter that only a handler can judge.
func badParameter(where string, value any, format string, args ...any) *Problem {
	p := problem(http.StatusUnprocessableEntity, "the input has 1 fault")
	p.Errors = []InputError{{Parameter: where, Detail: fmt.Sprintf(format, args...), Value: value}}
	return p
}

// problemFor turns an error of Store and Engine into an answer. What is not foreseen is a 500 whose cause goes to the log only.
func (s *Server) problemFor(ctx context.Context, err error) *Problem {
	var p *Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, backend.ErrNotFound):
		return problem(http.StatusNotFound, "%v", err)
	case errors.Is(err, backend.ErrConflict), errors.Is(err, backend.ErrLimit), errors.Is(err, backend.ErrTaken),
		errors.Is(err, backend.ErrUnable):
		return problem(http.StatusConflict, "%v", err)
	case errors.Is(err, backend.ErrTooLarge):
		return problem(http.StatusRequestEntityTooLarge, "%v", err)
	case errors.Is(err, backend.ErrUnavailable):
		p := problem(http.StatusServiceUnavailable, "%v", err)
		p.headers = http.Header{"Retry-After": {"5"}}
		return p
	case errors.Is(err, context.Canceled): // the client has gone, so nobody reads this, or the server stops
		return problem(http.StatusServiceUnavailable, "the request was cancelled")
	case errors.Is(err, context.DeadlineExceeded):
		return problem(http.StatusGatewayTimeout, "the request took too long")
	}
	s.log.ErrorContext(ctx, "request failed", "error", err, "request", requestID(ctx))
	return problem(http.StatusInternalServerError, "internal error; the log of the server has it under the request id")
}

// toProblem is a huma.Transformer: it gives huma's own errors the shape of ours and every problem its request id.
func toProblem(ctx huma.Context, _ string, v any) (any, error) {
	switch e := v.(type) {
	case *huma.ErrorModel:
		p := fromHuma(e)
		p.RequestID = requestID(ctx.Context())
		return p, nil
	case *Problem:
		c := *e
		c.RequestID = requestID(ctx.Context())
		return &c, nil
	}
	return v, nil
}

// fromHuma takes over what huma found wrong with parameters, headers and the size of the body.
func fromHuma(e *huma.ErrorModel) *Problem {
	p := problem(e.Status, "%s", e.Detail)
	for _, d := range e.Errors {
		if d == nil {
			continue
		}
		ie := InputError{Parameter: d.Location, Detail: d.Message}
		if d.Value != "" {
			ie.Value = d.Value
		}
		p.Errors = append(p.Errors, ie)
	}
	// huma walks a map of parameters.
	slices.SortStableFunc(p.Errors, func(a, b InputError) int { return strings.Compare(a.Parameter, b.Parameter) })
	switch n := len(p.Errors); {
	case e.Status == http.StatusRequestEntityTooLarge:
		p.Detail = fmt.Sprintf("the body is larger than %d bytes", maxBody)
	case n == 1:
		p.Detail = "the input has 1 fault"
	case n > 1:
		p.Detail = fmt.Sprintf("the input has %d faults", n)
	}
	return p
}

// writeProblem answers outside of huma: unknown paths and methods, refused tokens, panics.
func writeProblem(w http.ResponseWriter, r *http.Request, p *Problem) {
	c := *p
	c.RequestID = requestID(r.Context())
	for k, v := range p.headers {
		w.Header()[k] = v
	}
	h := w.Header()
	h.Set("Content-Type", problemType)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(c.Status)
	if r.Method != http.MethodHead {
		_ = json.NewEncoder(w).Encode(&c) // the client may have gone
	}
}

// countFaults makes the detail agree with the list.
func countFaults(p *Problem) {
	if n := len(p.Errors); n > 1 {
		p.Detail = fmt.Sprintf("the input has %d faults", n)
	}
}
