package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

// openAPI renders the description when it is first asked for: that takes some 50 ms, which would delay every start.
type openAPI struct{ json, yaml func() ([]byte, error) }

// OpenAPI returns the OpenAPI 3.1 description, indented, as /openapi.json serves it.
func (s *Server) OpenAPI() ([]byte, error) { return s.spec.json() }

// describer makes the parts of the description that huma cannot derive from handlers whose bodies are checked by package policy.
type describer struct{ schemas huma.Registry }

func (s *Server) describe() describer { return describer{s.api.OpenAPI().Components.Schemas} }

// schemaFor returns a reference to the schema of T.
func schemaFor[T any](d describer) *huma.Schema {
	t := reflect.TypeFor[T]()
	return d.schemas.Schema(t, true, t.Name())
}

func (d describer) ok(description string, schema *huma.Schema, example any) *huma.Response {
	r := &huma.Response{Description: description}
	if schema != nil {
		r.Content = map[string]*huma.MediaType{typeJSON: {Schema: schema, Example: example}}
	}
	return r
}

// responses documents the answer and the problems of an operation; 401 and 500 are everywhere.
func (d describer) responses(schema *huma.Schema, example any, problems ...int) map[string]*huma.Response {
	out := map[string]*huma.Response{"200": d.ok("OK", schema, example)}
	why := map[int]string{
		400: "The body is not JSON or YAML, which the detail says at which line and column; or it cannot be read, or none is taken",
		401: "TCP only: no valid token",
		404: "There is no such resource",
		408: "The body did not arrive in time",
		409: "Others refer to the resource, or are changing it",
		412: "If-Match or If-None-Match does not hold: somebody else was first",
		413: "The body is larger than 10 MiB, or holds more documents than the store takes at once",
		415: "Another Content-Type is needed",
		422: "The input has faults; errors lists every one, nothing was written",
		500: "A fault of tapwall; the log has it under the request id",
		503: "The store or a switch cannot be reached, or the disk is full; nothing was written",
		504: "Stored, but not installed everywhere in time; resource or result has the status",
	}
	for _, code := range append(problems, 401, 500) {
		out[strconv.Itoa(code)] = &huma.Response{Description: why[code],
			Content: map[string]*huma.MediaType{problemType: {Schema: schemaFor[Problem](d)}}}
	}
	return out
}

func (d describer) requestBody(schema *huma.Schema, example any, types ...string) *huma.RequestBody {
	b := &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{}}
	for _, t := range types {
		b.Content[t] = &huma.MediaType{Schema: schema, Example: example}
	}
	return b
}

// finishSpec adds the notes to the schemas.
func (s *Server) finishSpec() error {
	api := s.api.OpenAPI()
	api.Info.Description = "Taps, firewall and record for Open vSwitch. Resources are documents of kind, name, labels and spec; the " +
		"server adds uid, revision, createdAt and the " +
		"status it observed. Errors are problem details (RFC 9457) that list every fault. Reachable by unix socket, or by TCP with a bearer " +
		"token."
	api.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	api.Servers = []*huma.Server{
		{URL: "/", Description: "Where this description comes from; by default a unix socket, /run/tapwall/tapwall.sock, whose clients need " +
			"a host name but no token: http://localhost"},
		{URL: "https://{host}:{port}", Description: "A TCP listener", Variables: map[string]*huma.ServerVariable{"host": {Default: "localhost"},
			"port": {Default: "7443"}}},
	}
	api.Tags = []*huma.Tag{
		{Name: "mirrors", Description: "Taps"}, {Name: "policies", Description: "The wall"}, {Name: "groups", Description: "Named sets of peers"},
		{Name: "endpoints", Description: "Labels and addresses for ports"}, {Name: "apply", Description: "Several documents at once"},
		{Name: "events", Description: "The record"}, {Name: "flows", Description: "What is on the switches"},
		{Name: "connections", Description: "What the switches track"},
		{Name: "captures", Description: "Packets that mirrors copied"},
		{Name: "hosts", Description: "Switches and what is plugged in"},
		{Name: "status", Description: "Health"},
	}
	schemas := api.Components.Schemas.Map()
	delete(schemas, "ErrorModel") // of huma; our Transformer replaces them
	delete(schemas, "ErrorDetail")
	for _, n := range append(schemaNotes(), answerNotes()...) {
		if err := n.apply(schemas); err != nil {
			return fmt.Errorf("api: OpenAPI notes: %w", err)
		}
	}
	book := schemaBook(schemas)
	book.tighten()
	book.patches()
	for path, item := range api.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Put, item.Post, item.Patch, item.Delete} {
			if op == nil {
				continue
			}
			if public(path) {
				op.Security = []map[string][]string{{}}
			}
			parameters(op)
			if r := op.Responses["204"]; r != nil {
				r.Content, r.Headers = nil, nil // those of the 200, which huma takes to be the same
			}
			if op.RequestBody != nil {
				delete(op.RequestBody.Content, "application/octet-stream") // what huma makes of RawBody
			}
		}
	}
	s.spec.json = sync.OnceValues(func() ([]byte, error) {
		text, err := json.MarshalIndent(api, "", "  ")
		return append(text, '\n'), err
	})
	s.spec.yaml = sync.OnceValues(api.YAML)
	return nil
}

// note says of a property what its Go type cannot.
type note struct {
	at   string // Schema.property
	text string
	enum []any
	min  *float64
	max  *float64
	// shape is a pattern of the text, or of each text of a list.
	shape string
	as    func() *huma.Schema // what the field is, where its Go type does not say
}

func (n note) apply(schemas map[string]*huma.Schema) error {
	name, field, _ := strings.Cut(n.at, ".")
	s := schemas[name]
	if s == nil || s.Properties[field] == nil {
		return fmt.Errorf("there is no %s", n.at)
	}
	p := s.Properties[field]
	if p.Ref != "" {
		// A description beside $ref is allowed in OpenAPI 3.1, but huma leaves it out.
		p = &huma.Schema{AllOf: []*huma.Schema{{Ref: p.Ref}}}
		s.Properties[field] = p
	}
	if n.as != nil {
		p = n.as()
		s.Properties[field] = p
	}
	p.Description = n.text
	if n.enum != nil {
		p.Enum = n.enum
	}
	if n.shape != "" {
		of := p
		if p.Items != nil {
			of = p.Items
		}
		of.Pattern = n.shape
	}
	if n.min != nil {
		p.Minimum, p.Maximum = n.min, n.max
	}
	return nil
}

func (s *Server) serveSpec(render func() ([]byte, error), contentType string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := render()
		if err != nil {
			writeProblem(w, r, s.problemFor(r.Context(), err))
			return
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body) // the client may have gone
	}
}
