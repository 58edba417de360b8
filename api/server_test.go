package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tapwall/tapwall/api"
	"github.com/tapwall/tapwall/internal/backend"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a server over fakes.
type fixture struct {
	t      *testing.T
	server *api.Server
	store  *memory
	engine *engine
	record *record
	log    bytes.Buffer
}

func newFixture(t *testing.T, change ...func(*api.Options)) *fixture {
	t.Helper()
	f := &fixture{t: t, store: newMemory(), record: newRecord()}
	f.engine = &engine{installed: 1 << 40, hosts: []api.Host{{ID: "h1", Connected: true, Bridges: []api.HostBridge{{Name: "br0",
		Mode: "owned"}, {Name: "br-ex"}}}}}
	o := api.Options{Store: f.store, Engine: f.engine, Events: f.record, Version: "v1.2.3", Heartbeat: time.Hour,
		Logger: slog.New(slog.NewTextHandler(&f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, c := range change {
		c(&o)
	}
	var err error
	if f.server, err = api.NewServer(o); err != nil {
		t.Fatal(err)
	}
	return f
}

// call sends one request; headers are "Name: value".
func (f *fixture) call(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	f.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("X-Request-Id", "test")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	f.server.ServeHTTP(w, r)
	return w
}

// must calls and fails unless the status is as wanted.
func (f *fixture) must(status int, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	f.t.Helper()
	w := f.call(method, path, body, headers...)
	if w.Code != status {
		f.t.Fatalf("%s %s: status %d, want %d: %s", method, path, w.Code, status, w.Body)
	}
	return w
}

const (
	groupBody  = `{"kind":"Group","name":"lbs","spec":{"members":[{"labels":{"role":"lb"}}]}}`
	policyBody = `{"spec":{"appliesTo":[{"labels":{"app":"web"}}],"ingress":[{"name":"lb","action":"allow","from":[{"group":"lbs"}],` +
		`"services":[{"protocol":"tcp","ports":["80"]}]}]}}`
)

// indented makes JSON comparable and readable.
func indented(t *testing.T, text []byte) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		t.Fatalf("no JSON: %v: %s", err, text)
	}
	return strings.TrimSpace(b.String())
}

func TestLifecycle(t *testing.T) {
	f := newFixture(t)
	w := f.must(201, "PUT", "/v1/groups/lbs", groupBody)
	if got := w.Header().Get("ETag"); got != `"2"` {
		t.Errorf("ETag %s", got)
	}
	if got := w.Header().Get("Location"); got != "/v1/groups/lbs" {
		t.Errorf("Location %s", got)
	}
	want := `{
  "kind": "Group",
  "name": "lbs",
  "uid": "uid-lbs",
  "revision": 2,
  "createdAt": "2026-01-02T03:04:05Z",
  "spec": {
    "members": [
      {
        "labels": {
          "role": "lb"
        }
      }
    ]
  },
  "status": {
    "phase": "Active",
    "observedRevision": 1099511627776
  }
}`
	if diff := cmp.Diff(want, indented(t, w.Body.Bytes())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got := f.must(200, "GET", "/v1/groups/lbs", "")
	if diff := cmp.Diff(want, indented(t, got.Body.Bytes())); diff != "" {
		t.Errorf("GET (-want +got):\n%s", diff)
	}
	// What GET answered can be sent back, and is no change.
	if again := f.must(200, "PUT", "/v1/groups/lbs", got.Body.String()); again.Header().Get("ETag") != `"2"` {
		t.Errorf("an unchanged document got ETag %s", again.Header().Get("ETag"))
	}

	f.must(201, "PUT", "/v1/policies/web", policyBody)
	// The defaults are shown, and writing them out is no change.
	shown := f.must(200, "GET", "/v1/policies/web", "")
	if !strings.Contains(shown.Body.String(), `"tier":"application"`) {
		t.Errorf("no defaults: %s", shown.Body)
	}
	if again := f.must(200, "PUT", "/v1/policies/web", shown.Body.String()); again.Header().Get("ETag") != shown.Header().Get("ETag") {
		t.Errorf("written-out defaults got ETag %s after %s", again.Header().Get("ETag"), shown.Header().Get("ETag"))
	}
	// A patch is of what was written: the new direction isolates although the answer showed egress: false.
	w = f.must(200, "PATCH", "/v1/policies/web", `{"labels":{"team":"a"},"spec":{"egress":[{"name":"dns","action":"allow"}]}}`,
		"Content-Type: application/merge-patch+json")
	if !strings.Contains(w.Body.String(), `"defaultDeny":{"ingress":true,"egress":true}`) || !strings.Contains(w.Body.String(),
		`"labels":{"team":"a"}`) {
		t.Errorf("patched: %s", w.Body)
	}

	// Preconditions.
	rev := w.Header().Get("ETag")
	f.must(412, "PUT", "/v1/policies/web", policyBody, `If-Match: "2"`)
	f.must(412, "PUT", "/v1/policies/web", policyBody, "If-None-Match: *")
	f.must(412, "PUT", "/v1/policies/other", policyBody, "If-Match: *")
	f.must(200, "PUT", "/v1/policies/web", policyBody, "If-Match: "+rev)
	f.must(412, "DELETE", "/v1/policies/web", "", "If-Match: "+rev)

	// The group is in use until the policy goes.
	w = f.must(409, "DELETE", "/v1/groups/lbs", "")
	if !strings.Contains(w.Body.String(), "policy/web /spec/ingress/0/from/0/group") {
		t.Errorf("the referrer is not named: %s", w.Body)
	}
	f.must(204, "DELETE", "/v1/policies/web", "")
	f.must(204, "DELETE", "/v1/groups/lbs", "")
	f.must(404, "DELETE", "/v1/groups/lbs", "")
	f.must(404, "GET", "/v1/groups/lbs", "")
	f.must(404, "PATCH", "/v1/groups/lbs", `{"labels":{"a":"b"}}`, "Content-Type: application/json")
}

// TestRace changes the resource between reading and writing.
func TestRace(t *testing.T) {
	f := newFixture(t)
	rev := f.must(201, "PUT", "/v1/groups/lbs", groupBody).Header().Get("ETag")
	other := func() {
		f.must(200, "PUT", "/v1/groups/lbs", `{"labels":{"by":"other"},"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`)
	}
	f.store.race = other
	f.must(412, "PATCH", "/v1/groups/lbs", `{"labels":{"by":"me"}}`, "If-Match: "+rev)
	f.store.race = other
	w := f.must(200, "PATCH", "/v1/groups/lbs", `{"labels":{"x":"me"}}`) // on top of the other
	if !strings.Contains(w.Body.String(), `"labels":{"by":"other","x":"me"}`) {
		t.Errorf("the other's change is lost: %s", w.Body)
	}
	// The group goes while a policy that refers to it is written.
	f.store.race = func() { f.must(204, "DELETE", "/v1/groups/lbs", "") }
	f.must(422, "PUT", "/v1/policies/web", policyBody)
	// And the other way round.
	f.must(201, "PUT", "/v1/groups/lbs", groupBody)
	f.store.race = func() { f.must(201, "PUT", "/v1/policies/web", policyBody) }
	f.must(409, "DELETE", "/v1/groups/lbs", "")
}

func TestList(t *testing.T) {
	f := newFixture(t)
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		f.must(201, "PUT", "/v1/groups/"+n, `{"labels":{"set":"x","n":"`+n+`"},"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`)
	}
	f.must(201, "PUT", "/v1/groups/zz", `{"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`)
	list := func(query string) (names string, next string) {
		t.Helper()
		var l api.List[api.Document[any]]
		if err := json.Unmarshal(f.must(200, "GET", "/v1/groups"+query, "").Body.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		for _, d := range l.Items {
			names += d.Name
		}
		return names, l.Next
	}
	for _, tt := range []struct{ query, want string }{
		{"", "abcdezz"}, {"?label=set=x", "abcde"}, {"?label=set=x&label=n=b", "b"}, {"?label=set", "abcde"}, {"?label=n=q", ""},
	} {
		if got, next := list(tt.query); got != tt.want || next != "" {
			t.Errorf("%s: %s, next %q; want %s", tt.query, got, next, tt.want)
		}
	}
	var all string
	for next, pages := "", 0; ; pages++ {
		got, n := list("?label=set&limit=2&next=" + next)
		all += got + "|"
		if next = n; next == "" || pages > 5 {
			break
		}
	}
	if all != "ab|cd|e|" {
		t.Errorf("pages %s", all)
	}
}

func TestWait(t *testing.T) {
	f := newFixture(t)
	f.engine.installed = 1
	go func() {
		time.Sleep(20 * time.Millisecond)
		f.engine.mu.Lock()
		defer f.engine.mu.Unlock()
		f.engine.installed = 2
	}()
	f.must(201, "PUT", "/v1/groups/lbs?wait=installed", groupBody)
	w := f.must(504, "PUT", "/v1/groups/other?wait=installed&timeout=30ms", `{"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`)
	var p struct {
		Resource struct {
			Revision int64
			Status   struct{ ObservedRevision int64 }
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Resource.Revision != 3 || p.Resource.Status.ObservedRevision != 2 {
		t.Errorf("%v: %s", err, w.Body)
	}
	w = f.must(504, "POST", "/v1/apply?wait=installed&timeout=30ms", "kind: Group\nname: x\nspec: {members: [{vlan: 1}]}",
		"Content-Type: application/yaml")
	if !strings.Contains(w.Body.String(),
		`"result":{"dryRun":false,"created":[{"kind":"Group","name":"x","revision":4,"status":{"phase":"Active","observedRevision":2}}]`) {
		t.Errorf("%s", w.Body)
	}
	f.engine.installed = 100
	f.must(204, "DELETE", "/v1/groups/x?wait=installed", "")
}

// wait=effective asks for the caches once everything is installed, and tells what is not known of them. The write stays.
func TestWaitEffective(t *testing.T) {
	f := newFixture(t)
	asked := 0
	f.engine.effective = func(context.Context) error { asked++; return nil }
	f.must(201, "PUT", "/v1/groups/lbs?wait=effective", groupBody)
	f.must(200, "PATCH", "/v1/groups/lbs?wait=effective", `{"labels":{"a":"b"}}`, "Content-Type: application/merge-patch+json")
	f.must(200, "POST", "/v1/apply?wait=effective", "kind: Group\nname: x\nspec: {members: []}", "Content-Type: application/yaml")
	f.must(204, "DELETE", "/v1/groups/x?wait=effective", "")
	if asked != 4 {
		t.Errorf("four writes asked for the caches %d times", asked)
	}
	f.must(200, "PUT", "/v1/groups/lbs?wait=installed", groupBody)
	f.must(200, "PUT", "/v1/groups/lbs?wait=effective&dryRun=true", groupBody)
	f.must(422, "PUT", "/v1/groups/lbs?wait=settled", groupBody)
	if asked != 4 {
		t.Errorf("the caches were asked for without being asked for")
	}
	for what, effective := range map[string]func(context.Context) error{
		"has not said in time": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"br0 is at lunch":      func(context.Context) error { return errors.New("br0 is at lunch") },
	} {
		f.engine.effective = effective
		w := f.must(504, "PUT", "/v1/groups/late?wait=effective&timeout=30ms", `{"spec":{"members":[{"vlan":1}]}}`)
		if text := w.Body.String(); !strings.Contains(text, "installed, but") || !strings.Contains(text, what) ||
			!strings.Contains(text, `"name":"late"`) {
			t.Errorf("%s", text)
		}
		f.must(200, "GET", "/v1/groups/late", "")
		f.must(204, "DELETE", "/v1/groups/late", "")
		w = f.must(504, "POST", "/v1/apply?wait=effective&timeout=30ms", "kind: Group\nname: y\nspec: {members: []}",
			"Content-Type: application/yaml")
		if text := w.Body.String(); !strings.Contains(text, what) || !strings.Contains(text, `"name":"y"`) {
			t.Errorf("%s", text)
		}
	}
}

// TestSpec holds api/openapi.json to what the server says of itself.
func TestSpec(t *testing.T) {
	f := newFixture(t, func(o *api.Options) { o.Version = "v1" })
	got := f.must(200, "GET", "/openapi.json", "")
	if ct := got.Header().Get("Content-Type"); ct != "application/openapi+json" {
		t.Errorf("Content-Type %s", ct)
	}
	if *update {
		if err := os.WriteFile("openapi.json", got.Body.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.Body.String()); diff != "" {
		t.Errorf("api/openapi.json is not current, run go test ./api -run TestSpec -update (-file +server):\n%s", diff)
	}
	if y := f.must(200, "GET", "/openapi.yaml", ""); !strings.Contains(y.Body.String(), "openapi: 3.1.0") {
		t.Errorf("YAML: %.200s", y.Body)
	}
}

// TestBad sends wrong requests and holds every answer to testdata/bad/NAME.json.
func TestBad(t *testing.T) {
	big := `{"spec":{"members":[` + strings.Repeat(`{"cidr":"10.0.0.0/8"},`, 10<<20/22) + `{"cidr":"10.0.0.0/8"}]}}`
	for _, tt := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
	}{
		{"unknown-field", "PUT", "/v1/policies/web", `{"spec":{"appliesTo":[{"labels":{"app":"web"}}],"ingres":[]},"metadata":{}}`, nil, 422},
		{"many-faults", "PUT", "/v1/policies/web", `{"spec":{"appliesTo":[{"labels":{"app":"web"}}],"ingress":[{"name":"a","action":"allow",` +
			`"from":[{"cidr":"10.0.0.5/24"}],"services":[{"protocol":"tcp","ports":["70000"]}]},{"name":"a","action":"pass",` +
			`"to":[{"cidr":"10.1.0.0/33"}]}]}}`, nil, 422},
		{"not-supported-yet", "PUT", "/v1/policies/p",
			`{"spec":{"appliesTo":[{"port":"a"}],"egress":[{"name":"r","action":"allow","to":[{"fqdn":"example.com"}]}]}}`, nil, 422},
		{"wrong-type", "PUT", "/v1/policies/web", `{"spec":{"appliesTo":"web","priority":"high"}}`, nil, 422},
		{"unknown-group", "PUT", "/v1/policies/web", policyBody, nil, 422},
		{"unknown-bridge", "PUT", "/v1/mirrors/m",
			`{"spec":{"sources":[{"bridge":"br-ex"},{"bridge":"br0"}],"targets":[{"port":{"name":"ids0"}}]}}`, nil, 422},
		{"other-name", "PUT", "/v1/groups/a", groupBody, nil, 422},
		{"other-kind", "PUT", "/v1/mirrors/lbs", groupBody, nil, 422},
		{"bad-name-in-path", "PUT", "/v1/groups/Web_1", `{"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`, nil, 422},
		{"no-spec", "PUT", "/v1/groups/a", `{}`, nil, 422},
		{"duplicate-key", "PUT", "/v1/groups/a", `{"spec":{"members":[]},"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`, nil, 422},
		{"syntax", "PUT", "/v1/groups/a", "{\n  \"spec\": {\"members\": [}\n}", nil, 400},
		{"syntax-unfinished", "PUT", "/v1/groups/a", `{"spec":`, nil, 400},
		{"empty-body", "PUT", "/v1/groups/a", "", nil, 400},
		{"patch-not-an-object", "PATCH", "/v1/groups/there", `[1]`, nil, 422},
		{"patch-syntax", "PATCH", "/v1/groups/there", `{"spec" 1}`, nil, 400},
		{"patch-makes-invalid", "PATCH", "/v1/groups/there", `{"name":"other","spec":{"members":[{"cidr":"10.1.0.0/33"}]}}`, nil, 422},
		{"form-content-type", "PUT", "/v1/groups/a", groupBody, []string{"Content-Type: application/x-www-form-urlencoded"}, 415},
		{"too-large", "PUT", "/v1/groups/a", big, nil, 413},
		{"stale-etag", "PUT", "/v1/groups/there", `{"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`, []string{`If-Match: "1"`}, 412},
		{"bad-etag", "PUT", "/v1/groups/there", `{"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`, []string{`If-Match: W/"1"`}, 422},
		{"unknown-parameter", "PUT", "/v1/groups/a?dryrun=true&force=1", `{"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`, nil, 422},
		{"bad-parameters", "GET", "/v1/groups?limit=0&label==x", "", nil, 422},
		{"bad-limit", "GET", "/v1/groups?limit=many", "", nil, 422},
		{"bad-next", "GET", "/v1/groups?next=%21", "", nil, 422},
		{"bad-wait", "PUT", "/v1/groups/a?wait=done", groupBody, nil, 422},
		{"bad-timeout", "PUT", "/v1/groups/lbs?wait=installed&timeout=61s", groupBody, nil, 422},
		{"bad-filter", "GET", "/v1/events?port=70000&ip=10.0.0&since=yesterday", "", nil, 422},
		{"bad-last-event-id", "GET", "/v1/events/stream", "", []string{"Last-Event-ID: nonsense"}, 422},
		{"not-there", "GET", "/v1/policies/nothing", "", nil, 404},
		{"no-such-path", "GET", "/v2/policies", "", nil, 404},
		{"no-such-method", "POST", "/v1/groups/a", "{}", nil, 405},
		{"group-in-use", "DELETE", "/v1/groups/used", "", nil, 409},
		{"group-not-for-subjects", "PUT", "/v1/groups/used", `{"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`, nil, 409},
		{"apply-duplicate", "POST", "/v1/apply",
			"kind: Group\nname: a\nspec: {members: [{vlan: 1}]}\n---\nkind: Group\nname: a\nspec: {members: [{vlan: 2}]}\n",
			[]string{"Content-Type: application/yaml"}, 422},
		{"apply-yaml-syntax", "POST", "/v1/apply", "kind: Group\nname: [a\n", []string{"Content-Type: application/yaml"}, 400},
		{"apply-json-syntax", "POST", "/v1/apply", "[{\"kind\":\"Group\"},\n {]", []string{"Content-Type: application/json"}, 400},
		{"apply-unknown-kind", "POST", "/v1/apply", "kind: policy\nname: a\n---\nname: b\nspec: {}\n",
			[]string{"Content-Type: application/yaml"}, 422},
		{"apply-unknown-group", "POST", "/v1/apply", "kind: Group\nname: b\nspec: {members: [{vlan: 1}]}\n---\nkind: Policy\nname: a\nspec:\n" +
			"  appliesTo: [{group: b}]\n  ingress:\n  - {name: x, action: allow, from: [{group: c}]}\n",
			[]string{"Content-Type: application/yaml"}, 422},
		{"apply-prune-without-label", "POST", "/v1/apply?prune=set=web", "kind: Group\nname: a\nspec: {members: [{vlan: 1}]}\n",
			[]string{"Content-Type: application/yaml"}, 422},
		{"apply-nothing", "POST", "/v1/apply", "# nothing\n", []string{"Content-Type: application/yaml"}, 422},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.must(201, "PUT", "/v1/groups/there", `{"spec":{"members":[{"cidr":"10.9.0.0/16"}]}}`)
			f.must(201, "PUT", "/v1/groups/used", `{"spec":{"members":[{"vlan":7}]}}`)
			f.must(201, "PUT", "/v1/policies/user", `{"spec":{"appliesTo":[{"group":"used"}],"ingress":[{"name":"a","action":"allow"}]}}`)
			before := f.store.revision
			w := f.call(tt.method, tt.path, tt.body, tt.headers...)
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			if ct := w.Header().Get("Content-Type"); ct != "application/problem+json" {
				t.Errorf("Content-Type %s", ct)
			}
			if f.store.revision != before {
				t.Error("something was written")
			}
			golden(t, filepath.Join("testdata", "bad", tt.name+".json"), indented(t, w.Body.Bytes())+"\n")
		})
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// TestUnavailable has the store and the engine fail in the ways they can.
func TestUnavailable(t *testing.T) {
	f := newFixture(t)
	f.must(201, "PUT", "/v1/groups/lbs", groupBody)
	f.store.err = &wrapped{backend.ErrUnavailable, "store: no space left on the file system of /x: 1 MiB free, 96 MiB needed to write safely"}
	w := f.must(503, "PUT", "/v1/groups/a", groupBodyFor("a"))
	if w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "no space left") {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
	f.must(503, "GET", "/readyz", "")
	f.must(200, "GET", "/healthz", "")
	f.store.err = &wrapped{backend.ErrTooLarge, "x"}
	f.must(413, "PUT", "/v1/groups/a", groupBodyFor("a"))
	f.store.err = io.ErrUnexpectedEOF
	w = f.must(500, "GET", "/v1/groups/lbs", "")
	if strings.Contains(w.Body.String(), "EOF") || !strings.Contains(f.log.String(), "unexpected EOF") || !strings.Contains(w.Body.String(),
		`"requestId":"test"`) {
		t.Errorf("the cause belongs into the log, not into the answer: %s", w.Body)
	}
	f.engine.panics = true
	w = f.must(500, "GET", "/v1/flows", "")
	if !strings.Contains(f.log.String(), "the engine has a bug") || strings.Contains(w.Body.String(), "bug") {
		t.Errorf("panic: %s", w.Body)
	}
}

func groupBodyFor(name string) string { return strings.Replace(groupBody, "lbs", name, 1) }

type wrapped struct {
	err  error
	text string
}

func (w *wrapped) Error() string { return w.text }
func (w *wrapped) Unwrap() error { return w.err }

func TestMetricsAndDocs(t *testing.T) {
	f := newFixture(t)
	f.must(404, "GET", "/v1/groups/x", "")
	w := f.must(200, "GET", "/metrics", "")
	if want := `tapwall_api_requests_total{code="404",method="GET",route="/v1/groups/{name}"} 1`; !strings.Contains(w.Body.String(), want) {
		t.Errorf("no %s in:\n%s", want, w.Body)
	}
	w = f.must(200, "GET", "/docs", "")
	if !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("CSP %q", w.Header().Get("Content-Security-Policy"))
	}
	for _, path := range []string{"/docs", "/docs/docs.js", "/docs/docs.css"} {
		if body := f.must(200, "GET", path, "").Body.String(); strings.Contains(body, "http://") || strings.Contains(body, "https://") ||
			strings.Contains(body, "innerHTML") {
			t.Errorf("%s refers to other places, or makes markup of text", path)
		}
	}
	f.must(302, "GET", "/", "")
	if w := f.must(200, "HEAD", "/v1/groups", ""); w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("HEAD: %v", w.Header())
	}
	if w := f.must(405, "DELETE", "/v1/groups", ""); w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("Allow: %s", w.Header().Get("Allow"))
	}
	for range 2 {
		if w := f.must(200, "GET", "/healthz", "", "X-Request-Id: a\nb"); len(w.Header().Get("X-Request-Id")) != 16 {
			t.Errorf("request id %q", w.Header().Get("X-Request-Id"))
		}
	}
	if !strings.Contains(f.log.String(), "path=/v1/groups/x") {
		t.Error("no access log at debug level")
	}
}
