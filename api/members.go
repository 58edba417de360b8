package api

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tapwall/tapwall/policy"
)

type membersInput struct {
	Name        string `path:"name" doc:"Name of the group" example:"lbs"`
	IfMatch     string `header:"If-Match" doc:"Only if the group has this ETag" example:"\"17\""`
	ContentType string `header:"Content-Type" hidden:"true"`
	DryRun      bool   `query:"dryRun" doc:"Check everything and answer what would change, but write nothing"`
	Wait        string `query:"wait" enum:"installed,effective" doc:"Answer when the change is installed on every connected host, or has failed there; effective: and no decision is left that a switch cached before"`
	Timeout     string `query:"timeout" default:"5s" doc:"How long to wait, up to 60s; after that the answer is 504, and the change stays" example:"5s"`
	RawBody     []byte
}

func (s *Server) registerMembers() {
	d := s.describe()
	result, edit := schemaFor[Members](d), schemaFor[policy.MemberEdit](d)
	d.schemas.Map()["MemberEdit"].MinProperties = new(1)
	example := map[string]any{"add": []any{map[string]any{"cidr": "198.51.100.0/24"}}, "remove": []any{map[string]any{"cidr": "10.0.5.0/24"}}}
	answer := exampleDocument(policy.KindGroup)
	delete(answer, "spec")
	answer["members"], answer["added"], answer["removed"], answer["present"], answer["absent"] = 2, 1, 1, 0, 0
	ok := d.responses(&huma.Schema{OneOf: []*huma.Schema{result, schemaFor[ApplyResult](d)}}, answer,
		400, 404, 408, 412, 413, 415, 422, 409, 503, 504)
	huma.Register(s.api, huma.Operation{OperationID: "edit-members", Method: http.MethodPost, Path: "/v1/groups/{name}/members",
		Tags:    []string{policy.KindGroup.Plural()},
		Summary: "Add and remove members of one group",
		Description: "Says only what changes, so that its cost follows that and not the size of the group. It is done on top of the newest " +
			"version, so two who change different members at the same time do not hinder each other. To add what is a member already, " +
			"and to remove what is none, is no fault and is counted. New members come behind the others; an address range is the same " +
			"however it is written. " +
			"With dryRun the answer is an ApplyResult.",
		RequestBody: d.requestBody(edit, example, typeJSON), SkipValidateBody: true, MaxBodyBytes: maxBody + 1,
		BodyReadTimeout: requestLimit, Responses: ok}, func(ctx context.Context, in *membersInput) (*documentOutput, error) {
		out, err := s.editMembers(ctx, in)
		if err != nil {
			return nil, s.problemFor(ctx, err)
		}
		return out, nil
	})
}

func (s *Server) editMembers(ctx context.Context, in *membersInput) (*documentOutput, error) {
	if _, err := bodyType(in.ContentType, typeJSON); err != nil {
		return nil, err
	}
	w := write{kind: policy.KindGroup, name: in.Name, dryRun: in.DryRun}
	var err error
	if w.pre, err = parsePrecondition(in.IfMatch, ""); err != nil {
		return nil, err
	}
	if w.wait, err = parseWait(in.Wait, in.Timeout); err != nil {
		return nil, err
	}
	edit, faults := policy.CheckMemberEdit(in.RawBody)
	if len(faults) > 0 {
		for i := range faults {
			faults[i] = withColumn(faults[i], in.RawBody)
		}
		return nil, invalid(faults)
	}
	var done policy.MemberCount
	var addedAt []int
	w.place = func(f *policy.Fault) { f.Pointer = placeInEdit(f.Pointer, addedAt) }
	w.show = func(r policy.Resource, st policy.Status) any {
		if st.Phase == "" {
			st.Phase = policy.PhasePending
		}
		return Members{Kind: policy.KindGroup, Meta: *r.GetMeta(), Members: len(r.(*policy.Group).Spec.Members), Added: done.Added,
			Removed: done.Removed, Present: done.Present, Absent: done.Absent, Status: st}
	}
	return s.answer(ctx, w, func(current policy.Resource) (policy.Resource, error) {
		if current == nil {
			return nil, problem(http.StatusNotFound, "there is no %s", refName(w.kind, in.Name))
		}
		var next *policy.Group
		next, done, addedAt = current.(*policy.Group).Edit(edit)
		if n := len(next.Spec.Members); n > policy.MaxMembers && done.Added > 0 {
			return nil, invalid(policy.Faults{{Pointer: "/add", Code: policy.CodeTooLarge,
				Detail: fmt.Sprintf("%s would have %d members, more than %d", refName(w.kind, in.Name), n, policy.MaxMembers)}})
		}
		return next, nil
	})
}

// placeInEdit is the place in an edit of a fault that was found in the members that it adds.
func placeInEdit(pointer string, addedAt []int) string {
	rest, ok := strings.CutPrefix(pointer, "/spec/members/")
	if !ok {
		return pointer
	}
	index, rest, _ := strings.Cut(rest, "/")
	if i, err := strconv.Atoi(index); err == nil && i < len(addedAt) {
		index = strconv.Itoa(addedAt[i])
	}
	return strings.TrimSuffix("/add/"+index+"/"+rest, "/")
}

// memberChange returns by what a write changes the members of a group, if it says so, and the rest of the group stays.
func memberChange(before, after policy.Resource) (*policy.MemberChange, bool) {
	old, ok := before.(*policy.Group)
	now, ok2 := after.(*policy.Group)
	if !ok || !ok2 || old == nil || now == nil || old.Spec.OnMemberRemoved != now.Spec.OnMemberRemoved ||
		!reflect.DeepEqual(old.Spec.From, now.Spec.From) || !maps.Equal(old.Labels, now.Labels) {
		return nil, false
	}
	return now.Spec.Since(&old.Spec)
}

// diffMembers lists the fields that differ between two versions of a group, as diff does.
func diffMembers(before *policy.Group, c *policy.MemberChange) []FieldChange {
	var out []FieldChange
	at := func(i int) string { return "/spec/members/" + strconv.Itoa(i) }
	for k, i := range c.RemovedAt {
		out = append(out, FieldChange{Pointer: at(i), Old: c.Removed[k]})
	}
	first := len(before.Spec.Members) - len(c.RemovedAt)
	for k := range c.Added {
		out = append(out, FieldChange{Pointer: at(first + k), New: c.Added[k]})
	}
	return slices.Clip(out)
}
