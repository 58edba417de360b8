package api_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/policy"
)

// TestMergePatch holds PATCH to RFC 7386 and to the checks of PUT.
func TestMergePatch(t *testing.T) {
	const labels, spec = `{"team":"a"}`,
		`{"priority":7,"appliesTo":[{"bridge":"br0"}],"ingress":[{"name":"a","action":"allow"}],"defaultDeny":{"ingress":true}}`
	for _, tt := range []struct {
		name, patch string
		labels      string // afterwards
		spec        string
		faults      []string // pointer and beginning of the detail
	}{
		{"OK nothing", `{}`, labels, spec, nil},
		{"OK deep change", `{"spec":{"priority":5,"defaultDeny":{"egress":true}}}`, labels,
			`{"priority":5,"appliesTo":[{"bridge":"br0"}],"ingress":[{"name":"a","action":"allow"}],"defaultDeny":{"ingress":true,"egress":true}}`,
			nil},
		{"OK removal", `{"spec":{"priority":null,"ingress":null,"mode":null}}`, labels,
			`{"appliesTo":[{"bridge":"br0"}],"defaultDeny":{"ingress":true}}`, nil},
		{"OK lists are replaced", `{"spec":{"appliesTo":[{"port":"a"}]}}`, labels,
			`{"priority":7,"appliesTo":[{"port":"a"}],"ingress":[{"name":"a","action":"allow"}],"defaultDeny":{"ingress":true}}`, nil},
		{"OK labels", `{"labels":{"a":"b","team":null}}`, `{"a":"b"}`, spec, nil},
		{"OK server fields are ignored", `{"kind":"Policy","name":"web","revision":99,"uid":"x","status":{}}`, labels, spec, nil},
		{"bad name", `{"name":"other"}`, labels, spec, []string{`/name: the path says "web"`}},
		{"bad kind", `{"kind":"Group"}`, labels, spec, []string{"/kind: must be Policy here"}},
		{"bad result", `{"spec":{"appliesTo":null,"priority":70000,"x":1}}`, labels, spec,
			[]string{`/spec/x: unknown field "x"`, "/spec/priority: priority 70000 is outside", "/spec/appliesTo: is required"}},
		{"bad repeated key", `{"spec":{"priority":1,"priority":2}}`, labels, spec, []string{"/spec/priority: is given more than once"}},
		{"bad patch", `[1]`, labels, spec, []string{": a merge patch is a JSON object"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.must(201, "PUT", "/v1/policies/web", `{"labels":`+labels+`,"spec":`+spec+`}`)
			want := 200
			if tt.faults != nil {
				want = 422
			}
			var answer struct {
				Errors []struct{ Pointer, Detail string }
			}
			if err := json.Unmarshal(f.must(want, "PATCH", "/v1/policies/web", tt.patch).Body.Bytes(), &answer); err != nil {
				t.Fatal(err)
			}
			if len(answer.Errors) != len(tt.faults) {
				t.Errorf("faults %+v, want %v", answer.Errors, tt.faults)
			}
			for _, want := range tt.faults {
				if !slices.ContainsFunc(answer.Errors, func(e struct{ Pointer, Detail string }) bool {
					return strings.HasPrefix(e.Pointer+": "+
						e.Detail, want)
				}) {
					t.Errorf("faults %+v, want %s", answer.Errors, want)
				}
			}
			r, err := f.store.Get(t.Context(), policy.KindPolicy, "web")
			if err != nil {
				t.Fatal(err)
			}
			p := r.(*policy.Policy)
			if got, err := json.Marshal([]any{p.Labels, p.Spec}); err != nil || string(got) != "["+tt.labels+","+tt.spec+"]" {
				t.Errorf("stored %s, want [%s,%s] (%v)", got, tt.labels, tt.spec, err)
			}
		})
	}
}

// TestFault_F20_PatchIsReadAsStrictlyAsPut sends the same faults of form to both.
func TestFault_F20_PatchIsReadAsStrictlyAsPut(t *testing.T) {
	f := newFixture(t)
	f.must(201, "PUT", "/v1/groups/there", `{"spec":{"members":[{"cidr":"10.9.0.0/16"}]}}`)
	type problem struct {
		Status int
		Detail string
		Errors []struct {
			Pointer, Detail, Code string
			Line                  int
		}
	}
	for _, tt := range []struct {
		name, body string
		status     int
	}{
		{"key of the document", "{\"spec\":{\"members\":[{\"cidr\":\"10.0.0.0/8\"}]},\n\"spec\":{\"members\":[]}}", 422},
		{"key of a map", `{"labels":{"a":"b","a":"c"},"spec":{"members":[]}}`, 422},
		{"key in a list", "{\"spec\":{\"members\":[{\"cidr\":\"10.0.0.0/8\",\n\n\"cidr\":\"10.1.0.0/16\"}]}}", 422},
		{"syntax", `{"spec":{"members":[}}`, 400},
		{"two values", `{"spec":{"members":[]}}{}`, 400},
		{"no value", ` `, 400},
		{"no UTF-8", "{\"spec\":{\"members\":[]},\"labels\":{\"a\":\"\xff\"}}", 400},
		{"nested deeply", `{"spec":` + strings.Repeat(`{"a":`, 100) + `1` + strings.Repeat(`}`, 101), 422},
		{"nested very deeply", `{"spec":` + strings.Repeat(`[`, 100_000), 422},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var answers [2]problem
			for i, method := range []string{"PUT", "PATCH"} {
				w := f.call(method, "/v1/groups/there", tt.body, "Content-Type: application/json")
				if err := json.Unmarshal(w.Body.Bytes(), &answers[i]); err != nil || w.Code != tt.status {
					t.Fatalf("%s: status %d, want %d: %s (%v)", method, w.Code, tt.status, w.Body, err)
				}
			}
			if got, want := fmt.Sprint(answers[1]), fmt.Sprint(answers[0]); got != want || len(answers[0].Errors) == 0 {
				t.Errorf("PATCH: %s\nPUT:   %s", got, want)
			}
		})
	}
	// A removal that a misspelling makes none of is no success.
	for _, patch := range []string{`{"spec":{"member":null}}`, `{"label":null}`, `{"spec":null}`, `{"x":null}`} {
		f.must(422, "PATCH", "/v1/groups/there", patch)
	}
	f.must(200, "PATCH", "/v1/groups/there", `{"kind":null,"name":null,"labels":{"not-there":null},"uid":null,"status":null}`)
	// Control: what is not repeated is taken.
	f.must(200, "PATCH", "/v1/groups/there", `{"labels":{"a":"b","c":"d"},"spec":{"members":[{"cidr":"10.0.0.0/8"},{"cidr":"10.0.0.0/9"}]}}`)
	// The same in lists of documents.
	for ct, body := range map[string]string{
		"application/json": `{"items":[{"kind":"Group","name":"a","spec":{"members":[]}}],"items":[]}`,
		"application/yaml": "items:\n- {kind: Group, name: a, spec: {members: []}}\nitems: []\n",
	} {
		if w := f.must(422, "POST", "/v1/apply", body, "Content-Type: "+ct); !strings.Contains(w.Body.String(),
			`"pointer":"/items","detail":"is given more than once"`) {
			t.Errorf("%s: %s", ct, w.Body)
		}
	}
	f.must(404, "GET", "/v1/groups/a", "")
}

// TestFault_F19_EmptyPolicies: what isolates nobody is refused however it is written. Documents from before that rule are served and can
// be deleted.
func TestFault_F19_EmptyPolicies(t *testing.T) {
	f := newFixture(t)
	const web = `"appliesTo":[{"labels":{"app":"web"}}]`
	const hint = "defaultDeny: {ingress: true}"
	for _, body := range []string{`{"spec":{` + web + `,"ingress":[]}}`, `{"spec":{` + web + `}}`, `{"spec":{` + web +
		`,"defaultDeny":{"log":true}}}`} {
		for _, query := range []string{"", "?dryRun=true"} {
			if w := f.must(422, "PUT", "/v1/policies/web"+query, body); !strings.Contains(w.Body.String(), hint) ||
				!strings.Contains(w.Body.String(), `"pointer":"/spec`) {
				t.Errorf("PUT %s: %s", body, w.Body)
			}
		}
	}
	if w := f.must(422, "POST", "/v1/apply",
		"kind: Policy\nname: web\nspec:\n  appliesTo: [{labels: {app: web}}]\n  ingress: []\n"); !strings.Contains(w.Body.String(),
		`"pointer":"/spec/ingress"`) {
		t.Errorf("apply: %s", w.Body)
	}
	f.must(201, "PUT", "/v1/policies/web", `{"spec":{`+web+`,"ingress":[{"name":"a","action":"allow"}]}}`)
	for patch, pointer := range map[string]string{
		`{"spec":{"ingress":[]}}`: "/spec/ingress", `{"spec":{"ingress":null}}`: "/spec",
		`{"spec":{"ingress":null,"defaultDeny":{"log":true}}}`: "/spec/defaultDeny",
	} {
		if w := f.must(422, "PATCH", "/v1/policies/web", patch); !strings.Contains(w.Body.String(), `"pointer":"`+pointer+`"`) ||
			!strings.Contains(w.Body.String(), hint) {
			t.Errorf("PATCH %s: %s", patch, w.Body)
		}
	}
	f.must(200, "PATCH", "/v1/policies/web", `{"spec":{"ingress":[],"defaultDeny":{"ingress":true}}}`) // what the hint says

	old := &policy.Policy{Meta: policy.Meta{Name: "old"},
		Spec: policy.PolicySpec{AppliesTo: []policy.Selector{{Labels: map[string]string{"app": "web"}}}}}
	if len(old.Validate()) == 0 {
		t.Fatal("the control is valid")
	}
	if _, err := f.store.Commit(t.Context(), []backend.Change{{Kind: policy.KindPolicy, Name: "old", Resource: old}}); err != nil {
		t.Fatal(err)
	}
	f.must(200, "GET", "/v1/policies/old", "")
	if w := f.must(200, "GET", "/v1/policies", ""); !strings.Contains(w.Body.String(), `"name":"old"`) {
		t.Errorf("the list lacks it: %s", w.Body)
	}
	f.must(201, "PUT", "/v1/groups/other", `{"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`) // asks everybody who refers to it
	f.must(422, "PATCH", "/v1/policies/old", `{"labels":{"a":"b"}}`)
	f.must(200, "PATCH", "/v1/policies/old", `{"spec":{"defaultDeny":{"ingress":true}}}`)
	if _, err := f.store.Commit(t.Context(), []backend.Change{{Kind: policy.KindPolicy, Name: "older", Resource: old}}); err != nil {
		t.Fatal(err)
	}
	f.must(204, "DELETE", "/v1/policies/older", "")
}

// TestFault_F20_BrokenBodies sends bodies by hand whose framing is wrong: the client's fault is a 400 (or 415), never a 500.
func TestFault_F20_BrokenBodies(t *testing.T) {
	f := newFixture(t)
	srv := httptest.NewServer(f.server)
	defer srv.Close()
	send := func(head, body string) *http.Response {
		t.Helper()
		c, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: x\r\n%s\r\n", head, body); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp
	}
	var gzipped strings.Builder
	z := gzip.NewWriter(&gzipped)
	_, _ = io.WriteString(z, groupBody)
	_ = z.Close()
	plain := func(body string) string { return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body) }
	for _, tt := range []struct {
		name, head, body, says string
		status                 int
	}{
		{"chunk size that is no number", "PUT /v1/groups/lbs", "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + groupBody, "cannot be read", 400},
		{"chunk longer than its size", "PUT /v1/groups/lbs", "Transfer-Encoding: chunked\r\n\r\n3\r\n" + groupBody + "\r\n0\r\n\r\n",
			"cannot be read", 400},
		{"chunks without an end", "PUT /v1/groups/lbs", fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(groupBody),
			groupBody), "cannot be read", 400},
		{"patch", "PATCH /v1/groups/lbs", "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}", "cannot be read", 400},
		{"apply", "POST /v1/apply", "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}", "cannot be read", 400},
		{"less than Content-Length says", "PUT /v1/groups/lbs", fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(groupBody)+7, groupBody),
			"cannot be read", 400},
		{"compressed", "PUT /v1/groups/lbs", "Content-Encoding: gzip\r\n" + plain(gzipped.String()), "without Content-Encoding", 415},
		{"compressed documents", "POST /v1/apply", "Content-Type: application/yaml\r\nContent-Encoding: br\r\n" + plain("kind: x"),
			"without Content-Encoding", 415},
		{"unknown content type", "PUT /v1/groups/lbs", "Content-Type: application/json5\r\n" + plain(groupBody), "application/json", 415},
		{"content type that is none", "PUT /v1/groups/lbs", "Content-Type: ;;\r\n" + plain(groupBody), "application/json", 415},
		{"deletion with a body", "DELETE /v1/groups/lbs", plain(`{"dryRun":true}`), "takes no body", 400},
		{"control", "PUT /v1/groups/lbs", fmt.Sprintf("Content-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n",
			len(groupBody), groupBody), `"lbs"`, 201},
		{"control of a deletion", "DELETE /v1/groups/lbs?dryRun=true", "Content-Length: 0\r\n\r\n", `"deleted"`, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := send(tt.head, tt.body)
			b, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != tt.status || !strings.Contains(string(b), tt.says) {
				t.Errorf("status %d, want %d, with %q: %s (%v)", resp.StatusCode, tt.status, tt.says, b, err)
			}
			if tt.status >= 400 && resp.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("not a problem: %v", resp.Header)
			}
			if tt.status == 415 && strings.Contains(tt.says, "Encoding") && resp.Header.Get("Accept-Encoding") != "identity" {
				t.Errorf("Accept-Encoding: %v", resp.Header) // RFC 9110 §12.5.3
			}
		})
	}
}

// deadlines is a ResponseWriter that remembers the last deadline for reading.
type deadlines struct {
	*httptest.ResponseRecorder
	read time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error { d.read = t; return nil }

// A deadline for the body that goes on after the body has arrived would end, as net/http has it, the request: no wait could be longer
// than it.
func TestWaitOutlivesTheBody(t *testing.T) {
	f := newFixture(t)
	f.engine.installed = 1
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	f.server.ServeHTTP(w, httptest.NewRequest("PUT", "/v1/groups/lbs?wait=installed&timeout=10ms", strings.NewReader(groupBody)))
	if left := time.Until(w.read); w.Code != 504 || left < 60*time.Second {
		t.Errorf("status %d, and %v are left for waiting: %s", w.Code, left, w.Body)
	}
}

// TestParametersAreStrict: a parameter whose value is missing, or that comes twice, is refused rather than taken for something else.
func TestParametersAreStrict(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"?dryRun=", "?dryRun", "?wait=", "?timeout=", "?dryRun=true&dryRun=false", "?dryRun=true;x", "?dryRun=%zz"} {
		if w := f.call("PUT", "/v1/groups/lbs"+path, groupBody); w.Code/100 != 4 || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("PUT %s: %d %s", path, w.Code, w.Body)
		}
	}
	for _, path := range []string{"/v1/groups?limit=", "/v1/groups?limit=1&limit=2", "/v1/groups?label=", "/v1/events?limit=",
		"/v1/events?until=&verdict=DROPPED", "/v1/flows?owner=", "/v1/hosts?limit=1",
		"/v1/status?limit=1", "/v1/groups/lbs?limit=1"} {
		f.must(422, "GET", path, "")
	}
	f.must(404, "GET", "/v1/groups/lbs", "") // nothing was written
	f.must(201, "PUT", "/v1/groups/lbs?dryRun=false", groupBody)
	for _, etag := range []string{"", `"2`, "-2", "+2", `"2" "3"`, `"99999999999999999999"`} {
		f.must(422, "PUT", "/v1/groups/lbs", groupBody, "If-Match: "+etag)
	}
	for _, etag := range []string{`"2"`, "2", `"1", "2"`, "*"} {
		f.must(200, "PUT", "/v1/groups/lbs", groupBody, "If-Match: "+etag)
	}
	f.must(200, "GET", "/v1/groups?label=a&label=b&next=", "")
	if w := f.must(204, "DELETE", "/v1/groups/lbs", ""); w.Header().Get("Content-Type") != "" {
		t.Errorf("an answer without content has the type %s", w.Header().Get("Content-Type"))
	}
}
