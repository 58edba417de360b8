package api_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// TestSpecWhole walks the description: references lead somewhere, operations are documented and examples are accepted by the server itself.
func TestSpecWhole(t *testing.T) {
	f := newFixture(t)
	var doc struct {
		OpenAPI    string
		Info       struct{ Title, Version, Description string }
		Paths      map[string]map[string]json.RawMessage
		Components struct {
			Schemas map[string]json.RawMessage
		}
	}
	text := f.must(200, "GET", "/openapi.json", "").Body.Bytes()
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") || doc.Info.Version != "v1.2.3" || doc.Info.Description == "" {
		t.Errorf("%s %+v", doc.OpenAPI, doc.Info)
	}
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`"\$ref": "([^"]*)"`).FindAllSubmatch(text, -1) {
		name, ok := strings.CutPrefix(string(m[1]), "#/components/schemas/")
		if !ok || doc.Components.Schemas[name] == nil {
			t.Errorf("reference %s leads nowhere", m[1])
		}
		used[name] = true
	}
	for name := range doc.Components.Schemas {
		if !used[name] {
			t.Errorf("schema %s is used nowhere", name)
		}
	}
	for _, want := range []string{"Mirror", "Policy", "Group", "Endpoint", "PolicyList", "PolicySpec", "Rule", "Event", "EventRule",
		"Problem", "ApplyResult", "Host", "Workload", "FlowEntry", "SystemStatus"} {
		if doc.Components.Schemas[want] == nil {
			t.Errorf("there is no schema %s", want)
		}
	}

	// What writes, statuses, connections and traces answer is described field by field; of names and places the name says enough.
	plain := regexp.MustCompile(`^(kind|name|items|host|bridge|source|destination|priority|tier|action|message|ip|port|protocol|direction|` +
		`status|type|code|id|spec|bytes|packets|warnings|endpoint)$`)
	for name, raw := range doc.Components.Schemas {
		if !regexp.MustCompile(`^(Apply(Result|Item)|Plan|BridgePlan|ConnectionPlan|PlannedConnection|Confirmation(Change)?|Undone|Finding|` +
			`Warning|RuleRef|Consequence|Status|HostStatus|RuleStatus|Connection(s|End|Rule)?|Killed|Explanation|Judgement|` +
			`Trace([A-Z][a-z]+)?|(Policy|Rule|Group|Endpoint|Quarantine)Spec|Rule|Selector|Service|Passage|PassedService|DefaultDeny|GroupSource)$`).
			MatchString(name) {
			continue
		}
		var schema struct {
			Properties map[string]struct{ Description string }
		}
		if err := json.Unmarshal(raw, &schema); err != nil || len(schema.Properties) == 0 {
			t.Errorf("schema %s: %v, %d properties", name, err, len(schema.Properties))
		}
		for field, p := range schema.Properties {
			if p.Description == "" && !plain.MatchString(field) {
				t.Errorf("%s.%s has no description", name, field)
			}
		}
	}

	ids := map[string]bool{}
	for path, item := range doc.Paths {
		for method, raw := range item {
			var op struct {
				OperationID, Summary, Description string
				Tags                              []string
				Parameters                        []struct{ Name, In, Description string }
				RequestBody                       *struct {
					Content map[string]struct{ Example any }
				}
				Responses map[string]struct {
					Description string
					Content     map[string]any
				}
			}
			if err := json.Unmarshal(raw, &op); err != nil {
				t.Fatal(err)
			}
			at := strings.ToUpper(method) + " " + path
			if op.OperationID == "" || ids[op.OperationID] || op.Summary == "" || op.Description == "" || len(op.Tags) == 0 {
				t.Errorf("%s: %q %q %q: no unique id, summary, description or tag", at, op.OperationID, op.Summary, op.Description)
			}
			ids[op.OperationID] = true
			declared := 0
			for _, p := range op.Parameters {
				if p.Description == "" {
					t.Errorf("%s: parameter %s says nothing of itself", at, p.Name)
				}
				if p.In == "path" {
					declared++
				}
			}
			if want := strings.Count(path, "{"); declared != want {
				t.Errorf("%s: %d path parameters of %d are described", at, declared, want)
			}
			for code, r := range op.Responses {
				if r.Description == "" {
					t.Errorf("%s: answer %s says nothing of itself", at, code)
				}
				if code >= "400" && r.Content["application/problem+json"] == nil {
					t.Errorf("%s: answer %s is no problem", at, code)
				}
			}
			if op.Responses["500"].Description == "" || op.Responses["200"].Description == "" {
				t.Errorf("%s: answers 200 and 500 are not described", at)
			}
			if op.RequestBody != nil {
				for ct, m := range op.RequestBody.Content {
					if m.Example == nil {
						t.Errorf("%s: body %s has no example", at, ct)
					}
				}
			}
		}
	}

	// The examples work, in the order of their references.
	for _, path := range []string{"/v1/groups/{name}", "/v1/policies/{name}", "/v1/mirrors/{name}", "/v1/endpoints/{name}"} {
		for _, method := range []string{"put", "patch"} {
			var op struct {
				RequestBody struct {
					Content map[string]struct{ Example json.RawMessage }
				}
			}
			if err := json.Unmarshal(doc.Paths[path][method], &op); err != nil {
				t.Fatal(err)
			}
			body := string(op.RequestBody.Content["application/json"].Example)
			name := map[string]string{"groups": "lbs", "policies": "web", "mirrors": "web-tap", "endpoints": "vm1"}[strings.Split(path, "/")[2]]
			if w := f.call(strings.ToUpper(method), strings.Replace(path, "{name}", name, 1), body,
				"Content-Type: application/json"); w.Code/100 != 2 {
				t.Errorf("the example of %s %s: %d %s", method, path, w.Code, w.Body)
			}
		}
	}
	var op struct {
		RequestBody struct {
			Content map[string]struct{ Example json.RawMessage }
		}
	}
	if err := json.Unmarshal(doc.Paths["/v1/apply"]["post"], &op); err != nil {
		t.Fatal(err)
	}
	for ct, m := range op.RequestBody.Content { // JSON is YAML
		f.must(200, "POST", "/v1/apply", string(m.Example), "Content-Type: "+ct)
	}
}

// TestPatterns holds the patterns of the description to what the server takes.
func TestPatterns(t *testing.T) {
	f := newFixture(t)
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct {
					Pattern string
					Items   struct{ Pattern string }
				}
			}
		}
	}
	if err := json.Unmarshal(f.must(200, "GET", "/openapi.json", "").Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("a", 63)
	for _, tt := range []struct {
		schema, property, body string // %s is the value
		good, bad              []string
	}{
		{"Rule", "name", `{"spec":{"appliesTo":[{"port":"a"}],"ingress":[{"name":"%s","action":"allow"}]}}`, []string{"a", "a-1", "0", long},
			[]string{"", "A", "-a", "a-", "a.b", "a_b", long + "a"}},
		{"Service", "ports",
			`{"spec":{"appliesTo":[{"port":"a"}],"ingress":[{"name":"a","action":"allow","services":[{"protocol":"tcp","ports":["%s"]}]}]}}`,
			[]string{"1", "80", "65535", "8000-8099", "https", "http-alt"}, []string{"", "0", "httpss", "HTTPS", "080", "80-", "-80", "a",
				"80 ", "1-2-3"}},
		{"Selector", "mac", `{"spec":{"appliesTo":[{"mac":"%s"}],"ingress":[{"name":"a","action":"allow"}]}}`, []string{"52:54:00:ab:CD:ef"},
			[]string{"", "52-54-00-ab-cd-ef", "52:54:00:ab:cd", "5254.00ab.cdef"}},
		{"PortTarget", "name", `{"spec":{"sources":[{"port":"a"}],"targets":[{"port":{"name":"%s"}}]}}`, []string{"ids0", "a.b-c_D",
			"a23456789012345"}, []string{"", "-a", "a/b", "a b", "a234567890123456"}},
	} {
		p := doc.Components.Schemas[tt.schema].Properties[tt.property]
		pattern, err := regexp.Compile(p.Pattern + p.Items.Pattern)
		if err != nil || pattern.String() == "" {
			t.Fatalf("%s.%s has the pattern %q: %v", tt.schema, tt.property, pattern, err)
		}
		path := "/v1/policies/x?dryRun=true"
		if tt.schema == "PortTarget" {
			path = "/v1/mirrors/x?dryRun=true"
		}
		for good, values := range map[bool][]string{true: tt.good, false: tt.bad} {
			for _, v := range values {
				if pattern.MatchString(v) != good {
					t.Errorf("%s.%s: the pattern says %v to %q", tt.schema, tt.property, !good, v)
				}
				if w := f.call("PUT", path, strings.Replace(tt.body, "%s", v, 1)); (w.Code == 200) != good {
					t.Errorf("%s.%s: the server answers %d to %q: %s", tt.schema, tt.property, w.Code, v, w.Body)
				}
			}
		}
	}
}
