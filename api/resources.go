package api

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

func (s *Server) registerResources() {
	registerKind[policy.MirrorSpec](s, policy.KindMirror, "A mirror copies the traffic of chosen ports to a port or tunnel.")
	registerKind[policy.PolicySpec](s, policy.KindPolicy, "A policy is a set of firewall rules for the endpoints it applies to.")
	registerKind[policy.GroupSpec](s, policy.KindGroup, "A group is a named set of peers.")
	registerKind[policy.EndpointSpec](s, policy.KindEndpoint,
		"An endpoint resource adds labels and addresses to a port that OVSDB alone cannot tell. See /v1/workloads for what was discovered.")
	registerKind[policy.QuarantineSpec](s, policy.KindQuarantine,
		"A quarantine takes a machine or a port off the network, before conntrack and every policy, until it is deleted or its time is over.")
	s.registerMembers()
	s.registerStart()
}

type listInput struct {
	Label []string `query:"label,explode" doc:"Only resources with this label, as key=value, or key for any value. May be repeated; all must hold." example:"[\"app=web\"]"`
	Limit int      `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"At most this many"`
	Next  string   `query:"next" doc:"The next of the page before; empty = the first page"`
}

type getInput struct {
	Name string `path:"name" doc:"Name of the resource" example:"web"`
}

type putInput struct {
	Name        string `path:"name" doc:"Name of the resource" example:"web"`
	IfMatch     string `header:"If-Match" doc:"Only if the resource has this ETag; * = only if it exists" example:"\"17\""`
	IfNoneMatch string `header:"If-None-Match" doc:"* = only if it does not exist yet" example:"*"`
	ContentType string `header:"Content-Type" hidden:"true"`
	DryRun      bool   `query:"dryRun" doc:"Check everything and answer what would change, but write nothing"`
	Wait        string `query:"wait" enum:"installed,effective" doc:"Answer when the change is installed on every connected host, or has failed there; effective: and no decision is left that a switch cached before"`
	Timeout     string `query:"timeout" default:"5s" doc:"How long to wait, up to 60s; after that the answer is 504, and the change stays" example:"5s"`
	RawBody     []byte
}

type patchInput struct {
	Name        string `path:"name" doc:"Name of the resource" example:"web"`
	IfMatch     string `header:"If-Match" doc:"Only if the resource has this ETag" example:"\"17\""`
	ContentType string `header:"Content-Type" hidden:"true"`
	DryRun      bool   `query:"dryRun" doc:"Check everything and answer what would change, but write nothing"`
	Wait        string `query:"wait" enum:"installed,effective" doc:"Answer when the change is installed on every connected host, or has failed there; effective: and no decision is left that a switch cached before"`
	Timeout     string `query:"timeout" default:"5s" doc:"How long to wait, up to 60s; after that the answer is 504, and the change stays" example:"5s"`
	RawBody     []byte
}

type deleteInput struct {
	Name    string `path:"name" doc:"Name of the resource" example:"web"`
	IfMatch string `header:"If-Match" doc:"Only if the resource has this ETag" example:"\"17\""`
	DryRun  bool   `query:"dryRun" doc:"Check everything and answer what would change, but write nothing"`
	Wait    string `query:"wait" enum:"installed,effective" doc:"Answer when the resource is gone from every connected host, or that has failed; effective: and no decision is left that a switch cached before"`
	Timeout string `query:"timeout" default:"5s" doc:"How long to wait, up to 60s; after that the answer is 504, and the deletion stays" example:"5s"`
}

type documentOutput struct {
	Status   int
	ETag     string `header:"ETag" doc:"The revision; send it as If-Match to change exactly this version"`
	Location string `header:"Location" hidden:"true"`
	Body     any
}

type listOutput struct{ Body any }

// registerKind registers the five operations of one kind. S is its specification, for the description only.
func registerKind[S any](s *Server, kind policy.Kind, about string) {
	plural, single := kind.Plural(), strings.ToLower(string(kind))
	path := "/v1/" + plural
	tags := []string{plural}
	d := s.describe()
	doc, list := schemaFor[Document[S]](d), schemaFor[List[Document[S]]](d)
	apply := schemaFor[ApplyResult](d)
	body := d.requestBody(requestSchema[S](d, kind), exampleOf(kind), typeJSON)
	patch := d.requestBody(refTo(string(kind)+"Patch"), patchExampleOf(kind), typeMergePatch, typeJSON)
	either := &huma.Schema{OneOf: []*huma.Schema{doc, apply}}

	huma.Register(s.api, huma.Operation{OperationID: "list-" + plural, Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "List " + plural, Description: about + " The list is ordered by name.",
		Responses: d.responses(list, nil, 422, 503)}, func(ctx context.Context, in *listInput) (*listOutput, error) {
		s.o.Engine.Refresh(ctx, kind)
		out, err := s.list(ctx, kind, in)
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		return &listOutput{Body: out}, nil
	})
	huma.Register(s.api, huma.Operation{OperationID: "get-" + single, Method: http.MethodGet, Path: path + "/{name}", Tags: tags,
		Summary: "Get one " + single, Description: "The spec has its defaults written out; the status is what was observed.",
		Responses: d.responses(doc, exampleDocument(kind), 404, 503)}, func(ctx context.Context, in *getInput) (*documentOutput, error) {
		r, err := s.o.Store.Get(ctx, kind, in.Name)
		if err != nil {
			return nil, s.problemFor(ctx, notFound(err, kind, in.Name))
		}
		s.o.Engine.Refresh(ctx, kind)
		return &documentOutput{Status: http.StatusOK, ETag: etag(r.GetMeta().Revision), Body: s.document(r, nil)}, nil
	})
	putDone := d.responses(either, exampleDocument(kind), 400, 408, 412, 413, 415, 422, 409, 503, 504)
	putDone["201"] = d.ok("The resource is new", doc, nil)
	huma.Register(s.api, huma.Operation{OperationID: "put-" + single, Method: http.MethodPut, Path: path + "/{name}", Tags: tags,
		Summary: "Create or replace one " + single,
		Description: "Labels and spec become exactly those of the body. uid, revision, createdAt and status may be in the body, so that what " +
			"GET answered can be " +
			"edited and sent back, but are ignored: use If-Match to change only the version you have seen. A body that asks for what is there " +
			"already writes " +
			"nothing and keeps the revision. status.warnings tells what is valid but suspicious, such as a rule that can never match " +
			"(SHADOWED). With dryRun the answer is an ApplyResult.",
		RequestBody: body, SkipValidateBody: true, MaxBodyBytes: maxBody + 1, BodyReadTimeout: requestLimit,
		Responses: putDone}, func(ctx context.Context, in *putInput) (*documentOutput, error) {
		out, err := s.put(ctx, kind, in)
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		return out, nil
	})
	huma.Register(s.api, huma.Operation{OperationID: "patch-" + single, Method: http.MethodPatch, Path: path + "/{name}", Tags: tags,
		Summary: "Change some fields of one " + single,
		Description: "A JSON merge patch (RFC 7386) of labels and spec as they were written, without the defaults that GET shows. With " +
			"dryRun the answer is an ApplyResult.",
		RequestBody: patch, SkipValidateBody: true, MaxBodyBytes: maxBody + 1, BodyReadTimeout: requestLimit,
		Responses: d.responses(either, exampleDocument(kind), 400, 404, 408, 412, 413, 415, 422, 409, 503, 504)}, func(ctx context.Context,
		in *patchInput) (*documentOutput, error) {
		out, err := s.patch(ctx, kind, in)
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		return out, nil
	})
	gone := d.responses(apply, nil, 400, 404, 409, 412, 422, 503, 504)
	gone["200"].Description = "dryRun: what would change"
	gone["204"] = &huma.Response{Description: "Deleted"}
	huma.Register(s.api, huma.Operation{OperationID: "delete-" + single, Method: http.MethodDelete, Path: path + "/{name}", Tags: tags,
		DefaultStatus: http.StatusNoContent,
		Summary:       "Delete one " + single, Description: "Deleting a group that others refer to is a 409 that names them.",
		Responses: gone}, func(ctx context.Context, in *deleteInput) (*documentOutput, error) {
		out, err := s.delete(ctx, kind, in)
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		return out, nil
	})
}

func notFound(err error, kind policy.Kind, name string) error {
	if errors.Is(err, backend.ErrNotFound) {
		return problem(http.StatusNotFound, "there is no %s", refName(kind, name))
	}
	return err
}

// list reads pages of the store until limit resources carry the labels.
func (s *Server) list(ctx context.Context, kind policy.Kind, in *listInput) (*List[Document[any]], error) {
	match, err := parseLabels(in.Label)
	if err != nil {
		return nil, err
	}
	after, err := base64.RawURLEncoding.DecodeString(in.Next)
	if err != nil {
		return nil, badParameter("query.next", in.Next, "must be the next of an earlier page")
	}
	out := &List[Document[any]]{Items: []Document[any]{}}
	for last := string(after); ; {
		// One more than is asked for tells whether there is a next page.
		page, _, err := s.o.Store.List(ctx, kind, last, in.Limit+1)
		if err != nil {
			return nil, err
		}
		for _, r := range page {
			if !match.matches(r.GetMeta().Labels) {
				continue
			}
			if len(out.Items) == in.Limit {
				out.Next = base64.RawURLEncoding.EncodeToString([]byte(out.Items[in.Limit-1].Name))
				return out, nil
			}
			out.Items = append(out.Items, s.document(r, nil))
		}
		if len(page) <= in.Limit {
			return out, nil
		}
		last = page[len(page)-1].GetMeta().Name
	}
}

// labelMatch is the label filter; an empty value with any set means that the key is enough.
type labelMatch []struct {
	key, value string
	any        bool
}

func parseLabels(params []string) (labelMatch, error) {
	var out labelMatch
	for _, p := range params {
		k, v, found := strings.Cut(p, "=")
		if k == "" {
			return nil, badParameter("query.label", p, "must be key=value, or key")
		}
		out = append(out, struct {
			key, value string
			any        bool
		}{k, v, !found})
	}
	return out, nil
}

func (m labelMatch) matches(labels map[string]string) bool {
	for _, c := range m {
		if v, ok := labels[c.key]; !ok || !c.any && v != c.value {
			return false
		}
	}
	return true
}

func (s *Server) put(ctx context.Context, kind policy.Kind, in *putInput) (*documentOutput, error) {
	if _, err := bodyType(in.ContentType, typeJSON); err != nil {
		return nil, err
	}
	w := write{kind: kind, name: in.Name, dryRun: in.DryRun}
	var err error
	if w.pre, err = parsePrecondition(in.IfMatch, in.IfNoneMatch); err != nil {
		return nil, err
	}
	if w.wait, err = parseWait(in.Wait, in.Timeout); err != nil {
		return nil, err
	}
	next, err := decodeDocument(kind, in.Name, in.RawBody)
	if err != nil {
		return nil, err
	}
	return s.answer(ctx, w, func(policy.Resource) (policy.Resource, error) { return next, nil })
}

func (s *Server) patch(ctx context.Context, kind policy.Kind, in *patchInput) (*documentOutput, error) {
	if _, err := bodyType(in.ContentType, typeMergePatch, typeJSON); err != nil {
		return nil, err
	}
	w := write{kind: kind, name: in.Name, dryRun: in.DryRun}
	var err error
	if w.pre, err = parsePrecondition(in.IfMatch, ""); err != nil {
		return nil, err
	}
	if w.wait, err = parseWait(in.Wait, in.Timeout); err != nil {
		return nil, err
	}
	patch, err := parsePatch(kind, in.RawBody)
	if err != nil {
		return nil, err
	}
	return s.answer(ctx, w, func(current policy.Resource) (policy.Resource, error) {
		if current == nil {
			return nil, problem(http.StatusNotFound, "there is no %s", refName(kind, in.Name))
		}
		text, err := patchDocument(current, patch)
		if err != nil {
			return nil, err
		}
		next, err := decodeDocument(kind, in.Name, text)
		return next, withoutLines(err)
	})
}

func (s *Server) delete(ctx context.Context, kind policy.Kind, in *deleteInput) (*documentOutput, error) {
	w := write{kind: kind, name: in.Name, dryRun: in.DryRun}
	var err error
	if w.pre, err = parsePrecondition(in.IfMatch, ""); err != nil {
		return nil, err
	}
	if w.wait, err = parseWait(in.Wait, in.Timeout); err != nil {
		return nil, err
	}
	return s.answer(ctx, w, func(current policy.Resource) (policy.Resource, error) {
		if current == nil {
			return nil, problem(http.StatusNotFound, "there is no %s", refName(kind, in.Name))
		}
		return nil, nil
	})
}

// document is what is answered of a resource that was written.
func (w *write) document(r policy.Resource, st policy.Status) any {
	if w.show != nil {
		return w.show(r, st)
	}
	return documentWith(r, st)
}

// answer writes, waits if asked to, and makes the response.
func (s *Server) answer(ctx context.Context, w write, want intent) (*documentOutput, error) {
	res, err := s.do(ctx, w, want)
	if err != nil {
		return nil, err
	}
	if res.dry != nil {
		return &documentOutput{Status: http.StatusOK, Body: res.dry}, nil
	}
	var revision int64
	if res.resource != nil {
		revision = res.resource.GetMeta().Revision
	}
	if w.after != nil {
		if err := w.after(ctx, res.resource); err != nil {
			return nil, err
		}
	}
	var st policy.Status
	if w.wait.limit > 0 {
		deadline := time.Now().Add(w.wait.limit)
		var done bool
		st, done, err = s.waitFor(ctx, w.wait.limit, w.kind, w.name, revision)
		if err != nil {
			return nil, err
		}
		if !done {
			err = problem(http.StatusGatewayTimeout,
				"the change of %s is stored, but not installed everywhere after %v; its status tells what is missing", refName(w.kind, w.name),
				w.wait.limit)
		} else if w.wait.effective {
			err = s.waitForCaches(ctx, deadline)
		}
		if err != nil {
			var p *Problem
			if !errors.As(err, &p) {
				return nil, err
			}
			if res.resource != nil {
				p.Resource = w.document(res.resource, addWarnings(st, res.advice().asWarnings()))
			}
			return nil, p
		}
	}
	if res.resource == nil {
		return &documentOutput{Status: http.StatusNoContent}, nil
	}
	out := &documentOutput{Status: http.StatusOK, ETag: etag(revision)}
	if w.wait.limit == 0 {
		st = s.o.Engine.Status(w.kind, w.name)
	}
	out.Body = w.document(res.resource, addWarnings(st, res.advice().asWarnings()))
	if res.created {
		out.Status = http.StatusCreated
		out.Location = fmt.Sprintf("/v1/%s/%s", w.kind.Plural(), w.name)
	}
	return out, nil
}
