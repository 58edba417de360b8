package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

type applyInput struct {
	ContentType string `header:"Content-Type" hidden:"true"`
	Prune       string `query:"prune" doc:"Delete resources with this label (key=value) that are not among the documents; every document must carry it" example:"set=web"`
	DryRun      bool   `query:"dryRun" doc:"Check everything and answer what would change, here and on the switches, but write nothing"`
	Wait        string `query:"wait" enum:"installed,effective" doc:"Answer when all changes are installed on every connected host, or have failed there; effective: and no decision is left that a switch cached before"`
	Timeout     string `query:"timeout" default:"5s" doc:"How long to wait, up to 60s; after that the answer is 504, and the changes stay" example:"5s"`
	Confirm     string `query:"confirmWithin" doc:"Undo everything when so much time has passed, unless it is confirmed (POST /v1/confirmations/{id}): from 1s to 24h, also if tapwall ends meanwhile" example:"60s"`
	RawBody     []byte
}

type applyOutput struct{ Body *ApplyResult }

func (s *Server) registerApply() {
	d := s.describe()
	var kinds []*huma.Schema
	for _, k := range policy.Kinds() {
		kinds = append(kinds, refTo(string(k)+"Request"))
	}
	one := d.named("ApplyDocument", &huma.Schema{Description: "One document; kind and name are required here", AnyOf: kinds})
	list := d.named("ApplyDocuments", &huma.Schema{Type: huma.TypeObject, Required: []string{"items"}, AdditionalProperties: false,
		Properties: map[string]*huma.Schema{
			"kind": {Type: huma.TypeString, Enum: []any{"List"}}, "next": {Type: huma.TypeString, Description: "Ignored"},
			"items": {Type: huma.TypeArray, Items: one}}})
	stream := &huma.Schema{OneOf: []*huma.Schema{one, list}, Description: "YAML documents, separated by ---"}
	many := &huma.Schema{OneOf: []*huma.Schema{{Type: huma.TypeArray, Items: one}, one, list}}
	huma.Register(s.api, huma.Operation{OperationID: "apply", Method: http.MethodPost, Path: "/v1/apply", Tags: []string{"apply"},
		Summary: "Apply several documents at once",
		Description: "All documents are checked, then written in one transaction: all or none. They may refer to each other. What is there " +
			"already is left alone, so " +
			"applying the same documents again changes nothing.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			typeYAML: {Schema: stream, Example: exampleOf(policy.KindGroup)}, typeJSON: {Schema: many, Example: []any{exampleOf(policy.KindGroup),
				exampleOf(policy.KindPolicy)}}}},
		SkipValidateBody: true, MaxBodyBytes: maxBody + 1, BodyReadTimeout: requestLimit,
		Responses: d.responses(schemaFor[ApplyResult](d), nil, 400, 408, 409, 413, 415, 422, 503, 504)}, func(ctx context.Context,
		in *applyInput) (*applyOutput, error) {
		out, err := s.apply(ctx, in)
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		return &applyOutput{Body: out}, nil
	})
}

func (s *Server) apply(ctx context.Context, in *applyInput) (*ApplyResult, error) {
	contentType, err := bodyType(in.ContentType, typeYAML, typeJSON)
	if err != nil {
		return nil, err
	}
	wait, err := parseWait(in.Wait, in.Timeout)
	if err != nil {
		return nil, err
	}
	confirm, err := parseConfirm(in.Confirm, in.DryRun)
	if err != nil {
		return nil, err
	}
	docs, err := decodeDocuments(contentType, in.RawBody)
	if err != nil {
		return nil, err
	}
	prune, err := parsePrune(in.Prune, docs)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		out, err := s.tryApply(ctx, docs, prune, in.DryRun, confirm)
		if err == nil {
			if wait.limit > 0 && !in.DryRun {
				return out, s.waitForAll(ctx, wait, out)
			}
			return out, nil
		}
		if !errors.Is(err, backend.ErrConflict) {
			return nil, err
		}
		if try == maxTries {
			return nil, problem(http.StatusConflict, "the resources are being changed by others; try again")
		}
		if err := giveWay(ctx, try); err != nil {
			return nil, err
		}
	}
}

// decodeDocuments reads and checks a set of documents as a whole.
func decodeDocuments(contentType string, text []byte) ([]policy.Document, error) {
	if contentType == typeJSON {
		if f := policy.SyntaxOfJSON(text); f != nil {
			return nil, invalid(policy.Faults{withColumn(*f, text)})
		}
		// A list is fine, too: {"items": …} without the braces.
		if b := bytes.TrimLeft(text, " \t\r\n"); len(b) > 0 && b[0] == '[' {
			text = slices.Concat([]byte(`{"items":`), text, []byte("}"))
		}
	}
	docs, err := policy.Load(bytes.NewReader(text))
	var faults policy.Faults
	if errors.As(err, &faults) {
		return nil, invalid(faults)
	}
	if err != nil {
		return nil, err
	}
	if len(docs) == 0 {
		return nil, problem(http.StatusUnprocessableEntity, "there is no document in the body")
	}
	for _, d := range docs {
		m := d.Resource.GetMeta()
		*m = policy.Meta{Name: m.Name, Labels: m.Labels}
	}
	return docs, nil
}

// pruneLabel is key=value; the zero value prunes nothing.
type pruneLabel struct{ key, value string }

// parsePrune also asks that every document carries the label: one that does not would be deleted by the next apply of the same set.
func parsePrune(param string, docs []policy.Document) (pruneLabel, error) {
	if param == "" {
		return pruneLabel{}, nil
	}
	k, v, ok := strings.Cut(param, "=")
	if !ok || k == "" || v == "" {
		return pruneLabel{}, badParameter("query.prune", param, "must be key=value")
	}
	var faults policy.Faults
	for _, d := range docs {
		if m := d.Resource.GetMeta(); m.Labels[k] != v {
			faults = append(faults, policy.Fault{Pointer: "/labels", Document: d.Index, Line: d.Line,
				Detail: fmt.Sprintf("%s needs the label %s=%s to be applied with prune", refName(d.Resource.Kind(), m.Name), k, v)})
		}
	}
	if len(faults) > 0 {
		return pruneLabel{}, invalid(faults)
	}
	return pruneLabel{k, v}, nil
}

func (s *Server) tryApply(ctx context.Context, docs []policy.Document, prune pruneLabel, dryRun bool,
	confirm time.Duration) (*ApplyResult, error) {
	current, err := s.snapshot(ctx, docs, prune)
	if err != nil {
		return nil, err
	}
	var changes []backend.Change
	var before []policy.Resource
	var index []int // document of a change; -1 = pruned
	result := newResult(dryRun)
	inSet := map[Ref]bool{}
	for i, d := range docs {
		ref := Ref{d.Resource.Kind(), d.Resource.GetMeta().Name}
		inSet[ref] = true
		var revision int64
		old := current[ref]
		if old != nil {
			if revision = old.GetMeta().Revision; sameWish(old, d.Resource) {
				result.Unchanged = append(result.Unchanged, ApplyItem{Kind: ref.Kind, Name: ref.Name, Revision: revision})
				continue
			}
		}
		changes = append(changes, backend.Change{Kind: ref.Kind, Name: ref.Name, Resource: d.Resource, Expect: &revision, Before: old})
		before, index = append(before, old), append(index, i)
	}
	var gone []backend.Change
	for ref, r := range current {
		if m := r.GetMeta(); prune.key != "" && !inSet[ref] && m.Labels[prune.key] == prune.value {
			gone = append(gone, backend.Change{Kind: ref.Kind, Name: ref.Name, Expect: &m.Revision, Before: r})
		}
	}
	slices.SortFunc(gone, func(a, b backend.Change) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) })
	for _, c := range gone {
		changes, before, index = append(changes, c), append(before, current[Ref{c.Kind, c.Name}]), append(index, -1)
	}
	place := func(i int, faults policy.Faults) error {
		d := docs[index[i]]
		for j := range faults {
			faults[j].Document = d.Index
		}
		return invalid(faults)
	}
	guards, err := s.checkRefs(ctx, changes, place)
	if err != nil {
		return nil, err
	}
	if err := s.admit(changes, place); err != nil {
		return nil, err
	}
	if dryRun {
		dry, err := s.dryRun(ctx, changes, before)
		if err != nil {
			return nil, err
		}
		dry.Unchanged = result.Unchanged
		return dry, nil
	}
	if len(changes) == 0 {
		return result, nil
	}
	advice := s.advise(ctx, slices.Clip(changes), before)
	sign(ctx, changes)
	stored, err := s.commitConfirming(ctx, append(slices.Clip(changes), guards...), before, confirm, result)
	if err != nil {
		return nil, err
	}
	for i, c := range changes {
		s.audit(ctx, c, stored[i], before[i], addTo(result, c, before[i], stored[i]))
	}
	a := advice()
	result.Warnings, result.Effects = a.warnings, a.consequences
	return result, nil
}

// snapshot reads the present versions of the documents, or all resources if some may have to be pruned.
func (s *Server) snapshot(ctx context.Context, docs []policy.Document, prune pruneLabel) (map[Ref]policy.Resource, error) {
	out := map[Ref]policy.Resource{}
	kinds := map[policy.Kind]bool{}
	// Reads of single keys cost what there is of them, most often nothing; one of everything costs what others have written, too.
	const few = 256
	for _, d := range docs {
		k, name := d.Resource.Kind(), d.Resource.GetMeta().Name
		if len(docs) > few || prune.key != "" {
			kinds[k] = true
			continue
		}
		r, err := s.o.Store.Get(ctx, k, name)
		if err != nil && !errors.Is(err, backend.ErrNotFound) {
			return nil, err
		}
		if err == nil {
			out[Ref{k, name}] = r
		}
	}
	for _, k := range policy.Kinds() {
		if !kinds[k] && prune.key == "" {
			continue
		}
		all, _, err := s.o.Store.List(ctx, k, "", 0)
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			out[Ref{k, r.GetMeta().Name}] = r
		}
	}
	return out, nil
}

func newResult(dryRun bool) *ApplyResult {
	return &ApplyResult{DryRun: dryRun, Created: []ApplyItem{}, Updated: []ApplyItem{}, Unchanged: []ApplyItem{}, Deleted: []ApplyItem{}}
}

// addTo sorts one change into the result, and returns the fields that differ, of updates; stored is nil for deletions and dry runs.
func addTo(r *ApplyResult, c backend.Change, before, stored policy.Resource) []FieldChange {
	item := ApplyItem{Kind: c.Kind, Name: c.Name}
	if stored != nil {
		item.Revision = stored.GetMeta().Revision
	}
	switch {
	case c.Resource == nil:
		r.Deleted = append(r.Deleted, item)
	case before == nil:
		r.Created = append(r.Created, item)
	default:
		item.Changes = fieldChanges(before, c.Resource)
		if len(item.Changes) == 0 {
			r.Unchanged = append(r.Unchanged, item)
		} else {
			r.Updated = append(r.Updated, item)
		}
	}
	return item.Changes
}

// dryRun answers for changes that have passed every check.
func (s *Server) dryRun(ctx context.Context, changes []backend.Change, before []policy.Resource) (*ApplyResult, error) {
	out := newResult(true)
	for i, c := range changes {
		addTo(out, c, before[i], nil)
	}
	plan, err := s.o.Engine.Plan(ctx, changes)
	if err != nil {
		return nil, err
	}
	if plan.Bridges == nil {
		plan.Bridges = []BridgePlan{}
	}
	out.Warnings, plan.Warnings = plan.Warnings, nil
	out.Effects = s.o.Engine.Consequences(changes, before)
	out.Plan = &plan
	return out, nil
}

// waitForAll waits for every resource under one deadline and notes what was observed. What is stored unchanged may still not be in
// force: an earlier wait may have been too short.
func (s *Server) waitForAll(ctx context.Context, wait waiting, r *ApplyResult) error {
	deadline := time.Now().Add(wait.limit)
	late := 0
	for _, items := range [][]ApplyItem{r.Created, r.Updated, r.Unchanged, r.Deleted} {
		for i := range items {
			it := &items[i]
			// Past the deadline one last look, so that the answer has the status of everything.
			st, done, err := s.waitFor(ctx, max(time.Until(deadline), time.Millisecond), it.Kind, it.Name, it.Revision)
			if err != nil {
				return err
			}
			it.Status = &st
			if !done {
				late++
			}
		}
	}
	var err error
	if late > 0 {
		err = problem(http.StatusGatewayTimeout, "the changes are stored, but %d of them not installed everywhere after %v", late, wait.limit)
	} else if wait.effective {
		err = s.waitForCaches(ctx, deadline)
	}
	var p *Problem
	if errors.As(err, &p) {
		p.Result = r
	}
	return err
}
