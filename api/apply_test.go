package api_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/api"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

const set = `kind: Policy
name: web
labels: {set: a}
spec:
  appliesTo: [{labels: {app: web}}]
  ingress:
  - {name: lb, action: allow, from: [{group: lbs}]}
---
kind: Group
name: lbs
labels: {set: a}
spec: {members: [{labels: {role: lb}}]}
`

func apply(t *testing.T, f *fixture, query, text string) api.ApplyResult {
	t.Helper()
	w := f.must(200, "POST", "/v1/apply"+query, text, "Content-Type: application/yaml")
	var r api.ApplyResult
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// brief is "+kind/name" for created, "~" updated, "=" unchanged, "-" deleted, with the pointers of changes.
func brief(r api.ApplyResult) []string {
	out := []string{}
	for sign, items := range map[string][]api.ApplyItem{"+": r.Created, "~": r.Updated, "=": r.Unchanged, "-": r.Deleted} {
		for _, it := range items {
			s := fmt.Sprintf("%s%s/%s", sign, it.Kind, it.Name)
			for _, c := range it.Changes {
				s += fmt.Sprintf(" %s:%v>%v", c.Pointer, c.Old, c.New)
			}
			out = append(out, s)
		}
	}
	return out
}

func same(t *testing.T, r api.ApplyResult, want ...string) {
	t.Helper()
	got := map[string]bool{}
	for _, s := range brief(r) {
		got[s] = true
	}
	wanted := map[string]bool{}
	for _, s := range want {
		wanted[s] = true
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestApply(t *testing.T) {
	f := newFixture(t)
	// The policy refers to a group of the same set; a dry run writes nothing.
	f.engine.warnings = []policy.Warning{{Code: "SHADOWED", Message: "m"}}
	dry := apply(t, f, "?dryRun=true", set)
	same(t, dry, "+Policy/web", "+Group/lbs")
	if !dry.DryRun || f.store.revision != 1 || dry.Plan == nil || len(dry.Plan.Bridges[0].AddFlows) != 2 || len(dry.Warnings) != 1 {
		t.Errorf("dry run: %+v", dry)
	}
	same(t, apply(t, f, "?prune=set=a", set), "+Policy/web", "+Group/lbs")
	if f.store.revision != 2 {
		t.Errorf("two documents took %d transactions", f.store.revision-1)
	}
	same(t, apply(t, f, "?prune=set=a", set), "=Policy/web", "=Group/lbs")

	// A rule in front of the others is one addition; numbers and flags show with both values.
	changed := strings.Replace(set, "  - {name: lb, action: allow", "  - {name: ssh, action: deny}\n  - {name: lb, action: deny, log: true", 1)
	changed = strings.Replace(changed, "spec:\n  appliesTo", "spec:\n  priority: 5\n  appliesTo", 1)
	r := apply(t, f, "?dryRun=true", changed)
	same(t, r, "~Policy/web /spec/ingress/0:<nil>>map[action:deny name:ssh] /spec/ingress/1/action:allow>deny "+
		"/spec/ingress/1/log:<nil>>true /spec/priority:100>5", "=Group/lbs")
}

func TestApplyPrune(t *testing.T) {
	f := newFixture(t)
	apply(t, f, "?prune=set=a", set)
	f.must(201, "PUT", "/v1/groups/other", `{"labels":{"set":"b"},"spec":{"members":[{"vlan":3}]}}`)
	f.must(201, "PUT", "/v1/policies/user",
		`{"spec":{"appliesTo":[{"vm":"v"}],"ingress":[{"name":"x","action":"allow","from":[{"group":"lbs"}]}]}}`)
	onlyPolicy := strings.Replace(strings.SplitN(set, "---", 2)[0], "group: lbs", "group: other", 1)
	w := f.must(409, "POST", "/v1/apply?prune=set=a", onlyPolicy, "Content-Type: application/yaml")
	if !strings.Contains(w.Body.String(), "still in use by policy/user") {
		t.Errorf("%s", w.Body)
	}
	f.must(204, "DELETE", "/v1/policies/user", "")
	same(t, apply(t, f, "?prune=set=a", onlyPolicy), "~Policy/web /spec/ingress/0/from/0/group:lbs>other", "-Group/lbs")
	f.must(200, "GET", "/v1/groups/other", "")
}

// A list of members shows what came and what went, wherever it stood; their order alone shows by position.
func TestApplyDiffOfMembers(t *testing.T) {
	f := newFixture(t)
	members := func(list string) string { return "kind: Group\nname: g\nspec: {members: [" + list + "]}\n" }
	apply(t, f, "", members("{cidr: 10.0.0.0/8}, {port: a}, {port: b}, {labels: {x: y, z: w}}"))
	for list, want := range map[string]string{
		"{port: a}, {port: b}, {labels: {x: y, z: w}}":                                "~Group/g /spec/members/0:map[cidr:10.0.0.0/8]><nil>",
		"{cidr: 10.0.0.0/8}, {port: c}, {port: b}, {labels: {x: y, z: w}}":            "~Group/g /spec/members/1/port:a>c",
		"{labels: {x: y, z: w}}, {port: b}, {port: b}, {port: a}, {cidr: 10.0.0.0/8}": "~Group/g /spec/members/2:<nil>>map[port:b]",
		"{port: a}, {cidr: 10.0.0.0/8}, {port: b}, {labels: {x: y, z: w}}": "~Group/g /spec/members/0/cidr:10.0.0.0/8><nil> " +
			"/spec/members/0/port:<nil>>a /spec/members/1/cidr:<nil>>10.0.0.0/8 /spec/members/1/port:a><nil>",
	} {
		same(t, apply(t, f, "?dryRun=true", members(list)), want)
	}
}

// TestApplyForms sends one set in the forms that are accepted.
func TestApplyForms(t *testing.T) {
	group := `{"kind":"Group","name":"g","spec":{"members":[{"vlan":1}]}}`
	for name, tt := range map[string]struct{ contentType, text string }{
		"YAML":             {"application/yaml", "kind: Group\nname: g\nspec: {members: [{vlan: 1}]}\n"},
		"old YAML type":    {"text/yaml; charset=utf-8", "kind: Group\nname: g\nspec: {members: [{vlan: 1}]}\n"},
		"JSON document":    {"application/json", group},
		"JSON list":        {"application/json", " [" + group + "]"},
		"JSON items":       {"application/json", `{"kind":"List","items":[` + group + `]}`},
		"JSON in sequence": {"application/json", group + "\n" + strings.Replace(group, `"g"`, `"h"`, 1)},
		"JSON as YAML":     {"", group},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			var headers []string
			if tt.contentType != "" {
				headers = []string{"Content-Type: " + tt.contentType}
			}
			f.must(200, "POST", "/v1/apply", tt.text, headers...)
			f.must(200, "GET", "/v1/groups/g", "")
		})
	}
}

// TestDryRun of single writes.
func TestDryRun(t *testing.T) {
	f := newFixture(t)
	f.must(201, "PUT", "/v1/groups/lbs", groupBody)
	before := f.store.revision
	for _, tt := range []struct{ method, path, body, want string }{
		{"PUT", "/v1/groups/new", `{"spec":{"members":[{"vlan":3}]}}`, "+Group/new"},
		{"PUT", "/v1/groups/lbs", `{"spec":{"members":[{"vlan":3}]}}`,
			"~Group/lbs /spec/members/0/labels:map[role:lb]><nil> /spec/members/0/vlan:<nil>>3"},
		{"PUT", "/v1/groups/lbs", groupBody, "=Group/lbs"},
		{"PATCH", "/v1/groups/lbs", `{"labels":{"a":"b"}}`, "~Group/lbs /labels:<nil>>map[a:b]"},
		{"DELETE", "/v1/groups/lbs", "", "-Group/lbs"},
	} {
		w := f.must(200, tt.method, tt.path+"?dryRun=true", tt.body)
		var r api.ApplyResult
		if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		same(t, r, tt.want)
	}
	if f.store.revision != before {
		t.Error("a dry run wrote")
	}
}

func TestReadSide(t *testing.T) {
	f := newFixture(t)
	f.engine.workloads = []*policy.Workload{
		{Key: "br0/a", Bridge: "br0", Port: "a", Labels: map[string]string{"app": "web"}, LabelFrom: map[string]string{"app": "endpoint/vm1"},
			Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
		{Key: "br0/b", Bridge: "br0", Port: "b"},
		{Key: "br1/c", Bridge: "br1", Port: "c", Labels: map[string]string{"app": "web"}},
	}
	for query, want := range map[string]int{"": 3, "?label=app=web": 2, "?bridge=br0": 2, "?bridge=br0&label=app": 1, "?next=br0/a": 2,
		"?limit=1": 1} {
		var l api.List[api.Workload]
		if err := json.Unmarshal(f.must(200, "GET", "/v1/workloads"+query, "").Body.Bytes(), &l); err != nil || len(l.Items) != want {
			t.Errorf("%s: %d, %v", query, len(l.Items), err)
		}
		if query == "?limit=1" && l.Next != "br0/a" {
			t.Errorf("next %q", l.Next)
		}
	}
	f.engine.workloads = []*policy.Workload{{Key: "br0/a", Host: "h1"}, {Key: "br0/a", Host: "h2"},
		{Key: "br0/a b", Host: "h1"}, {Key: "endpoint/x", Remote: true}}
	var seen []string
	for next := ""; ; {
		var l api.List[api.Workload]
		err := json.Unmarshal(f.must(200, "GET", "/v1/workloads?limit=1&next="+url.QueryEscape(next), "").Body.Bytes(), &l)
		if err != nil || len(l.Items) != 1 || len(seen) > 4 {
			t.Fatalf("behind %q: %d, %v", next, len(l.Items), err)
		}
		if seen, next = append(seen, l.Items[0].Host+":"+l.Items[0].Key), l.Next; next == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"h1:br0/a", "h2:br0/a", "h1:br0/a b", ":endpoint/x"}, seen); diff != "" {
		t.Errorf("page by page (-want +got):\n%s", diff)
	}
	var q backend.FlowQuery
	f.engine.flows = func(got backend.FlowQuery) ([]api.FlowEntry, error) { q = got; return nil, nil }
	if w := f.must(200, "GET", "/v1/flows?table=0&owner=policy/web&match=tp_dst", ""); strings.TrimSpace(w.Body.String()) != `{"items":[]}` {
		t.Errorf("%s", w.Body)
	}
	zero := uint8(0)
	if diff := cmp.Diff(backend.FlowQuery{Owner: "policy/web", Table: &zero, Match: "tp_dst", Limit: 10000}, q); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	f.engine.flows = func(got backend.FlowQuery) ([]api.FlowEntry, error) {
		return []api.FlowEntry{{Host: "h1"}}, fmt.Errorf("flows: %w", &backend.PartialError{Problems: []string{"host h2: away"}})
	}
	if w := f.must(200, "GET", "/v1/flows", ""); !strings.Contains(w.Body.String(), `"host":"h1"`) ||
		!strings.Contains(w.Body.String(), `"problems":["host h2: away"]`) {
		t.Errorf("of two hosts one: %s", w.Body)
	}
	f.engine.unknown = []string{"host h2: not reached"}
	for _, path := range []string{"/v1/hosts", "/v1/workloads"} {
		if w := f.must(200, "GET", path, ""); !strings.Contains(w.Body.String(), `"problems":["host h2: not reached"]`) {
			t.Errorf("%s: %s", path, w.Body)
		}
	}
	f.engine.unknown = nil
	f.engine.flows = func(got backend.FlowQuery) ([]api.FlowEntry, error) { q = got; return nil, nil }
	f.must(200, "GET", "/v1/flows", "")
	if q.Table != nil {
		t.Errorf("table %d without being asked", *q.Table)
	}
	if w := f.must(200, "GET", "/v1/hosts", ""); !strings.Contains(w.Body.String(), `"id":"h1"`) {
		t.Errorf("%s", w.Body)
	}
	f.engine.system = api.SystemStatus{Version: "v9", Healthy: true}
	if w := f.must(200, "GET", "/v1/status", ""); !strings.Contains(w.Body.String(), `"version":"v9"`) {
		t.Errorf("%s", w.Body)
	}
}

// TestFault_F22_EffectsAreAnswered: every sort of write has the words in its answer, tried or done.
func TestFault_F22_EffectsAreAnswered(t *testing.T) {
	f := newFixture(t)
	f.must(201, "PUT", "/v1/groups/lbs", groupBody)
	const words = "1 endpoint becomes default-deny for ingress: vm1"
	f.engine.effects = []policy.Consequence{{Code: policy.ConsequenceIsolated, Direction: policy.Ingress, Endpoints: []string{"vm1"},
		Message: words}}
	for _, tt := range []struct{ method, path, body string }{
		{"POST", "/v1/apply?dryRun=true", "[" + groupBody + "," + groupBodyFor("a") + "]"},
		{"POST", "/v1/apply", "[" + groupBody + "," + groupBodyFor("a") + "]"},
		{"PUT", "/v1/policies/web?dryRun=true", policyBody},
		{"PUT", "/v1/policies/web", policyBody},
		{"PUT", "/v1/policies/web?wait=installed", policyBody},
		{"PATCH", "/v1/policies/web?dryRun=true", `{"labels":{"a":"b"}}`},
		{"PATCH", "/v1/policies/web", `{"labels":{"a":"b"}}`},
		{"DELETE", "/v1/policies/web?dryRun=true", ""},
	} {
		w := f.call(tt.method, tt.path, tt.body, "Content-Type: application/json")
		var got struct {
			Effects []policy.Consequence
			Status  policy.Status
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code/100 != 2 {
			t.Fatalf("%s %s: %d %v: %s", tt.method, tt.path, w.Code, err, w.Body)
		}
		result := tt.method == "POST" || strings.Contains(tt.path, "dryRun")
		said := len(got.Effects) == 1 && got.Effects[0].Message == words
		warned := len(got.Status.Warnings) == 1 && got.Status.Warnings[0] == policy.Warning{Code: policy.ConsequenceIsolated, Message: words}
		if said != result || warned == result {
			t.Errorf("%s %s: %s", tt.method, tt.path, w.Body)
		}
	}
	if w := f.must(200, "GET", "/v1/policies/web", ""); strings.Contains(w.Body.String(), words) {
		t.Errorf("the effect of a write is shown as the state: %s", w.Body)
	}
}
