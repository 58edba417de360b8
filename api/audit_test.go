package api_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/api"
	"github.com/tapwall/tapwall/event"
)

// The log names the revision that was deleted, which is the last one.
func TestDeletionLogged(t *testing.T) {
	f := newFixture(t)
	f.must(201, "PUT", "/v1/groups/g", `{"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`)
	f.must(204, "DELETE", "/v1/groups/g", "")
	if log := f.log.String(); !strings.Contains(log, `"resource created" resource=group/g revision=2`) ||
		!strings.Contains(log, `"resource deleted" resource=group/g revision=2`) {
		t.Errorf("%s", log)
	}
}

// Each write that changes something is an event that says what became of which resource, and no other request is one.
func TestAudit(t *testing.T) {
	var got []string
	f := newFixture(t, func(o *api.Options) {
		o.Record = func(e event.Event) {
			c, m := e.Tapwall.Change, e.Event
			if c == nil || m.Dataset != event.DatasetChange || m.Outcome != "success" || c.Request != "test" || e.Class() != event.P0 {
				t.Errorf("%+v %+v", m, c)
				return
			}
			got = append(got, strings.Join(append([]string{m.Action, m.Type[0], e.Tapwall.Notice.Objects[0]}, c.Fields...), " "))
		}
	})
	said := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", what, diff)
		}
		got = nil
	}
	const yaml, patch = "Content-Type: application/yaml", "Content-Type: application/merge-patch+json"
	const group, tap = `{"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`, `{"spec":{"sources":[{"port":"p"}],"targets":[{"port":{"name":"q"}}]}}`
	f.must(201, "PUT", "/v1/groups/g", group)
	said("PUT", "resource-created creation group/g")
	f.must(200, "PUT", "/v1/groups/g", group)
	f.must(200, "PUT", "/v1/groups/g?dryRun=true", `{"spec":{"members":[]}}`)
	f.must(422, "PUT", "/v1/groups/g", `{"spec":{"members":[{"cidr":"10.0.0.0/99"}]}}`)
	f.must(412, "PUT", "/v1/groups/g", `{"spec":{"members":[]}}`, `If-Match: "999"`)
	f.must(404, "DELETE", "/v1/groups/none", "")
	f.must(200, "GET", "/v1/groups/g", "")
	said("what changes nothing")
	f.must(200, "POST", "/v1/groups/g/members", `{"add":[{"cidr":"192.0.2.0/24"}]}`, "Content-Type: application/json")
	said("members", "resource-updated change group/g /spec/members/1")
	f.must(200, "PATCH", "/v1/groups/g", `{"labels":{"a":"b"},"spec":{"onMemberRemoved":"keep"}}`, patch)
	said("PATCH", "resource-updated change group/g /labels /spec/onMemberRemoved")
	f.must(201, "PUT", "/v1/mirrors/m", tap)
	f.must(200, "PATCH", "/v1/mirrors/m", `{"spec":{"enabled":false}}`, patch)
	f.must(200, "POST", "/v1/mirrors/m/start", "")
	said("a mirror", "resource-created creation mirror/m", "resource-updated change mirror/m /spec/enabled",
		"resource-updated change mirror/m /spec/enabled")
	f.must(204, "DELETE", "/v1/mirrors/m", "")
	said("DELETE", "resource-deleted deletion mirror/m")
	f.must(200, "POST", "/v1/apply?prune=s%3D1", "kind: Group\nname: h\nlabels: {s: '1'}\nspec: {members: []}\n", yaml)
	f.must(200, "POST", "/v1/apply?prune=s%3D1", "kind: Group\nname: i\nlabels: {s: '1'}\nspec: {members: []}\n", yaml)
	said("apply", "resource-created creation group/h", "resource-created creation group/i", "resource-deleted deletion group/h")
}

// However much changes, and whatever it is called, the event of it is small, and its line steers no terminal.
func TestAuditBounds(t *testing.T) {
	var got []event.Event
	f := newFixture(t, func(o *api.Options) { o.Record = func(e event.Event) { got = append(got, e) } })
	labels := func(value string) string {
		text := map[string]string{}
		for i := range 40 {
			text[fmt.Sprintf("k%02d-%s", i, strings.Repeat("x", 40))] = value
		}
		b, err := json.Marshal(map[string]any{"labels": text, "spec": map[string]any{"members": []any{}}})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	f.must(201, "PUT", "/v1/groups/g", labels("a"))
	f.must(200, "PUT", "/v1/groups/g", labels("b"))
	doc, err := event.AppendJSON(nil, &got[1])
	if err != nil {
		t.Fatal(err)
	}
	if n := len(got[1].Tapwall.Change.Fields); n != 20 || len(doc) > 8<<10 ||
		!strings.HasSuffix(got[1].Tapwall.Notice.Message, " and 20 more") {
		t.Errorf("%d fields, %d bytes: %s", n, len(doc), got[1].Tapwall.Notice.Message)
	}
	e := event.NewWrite(event.ActionUpdated, event.Notice{Message: "policy/a\x1b[2J by ev\u202el", Count: 1}, event.Change{Revision: 7})
	line := event.Compact(&e, event.PrintOptions{})
	if strings.ContainsAny(line, "\x1b\u202e") || !strings.Contains(line, `policy/a\x1b[2J by ev\u202el`) {
		t.Errorf("%q", line)
	}
}

// Requests without the token are events: the first at once, those after it together, however many there are.
func TestUnauthorizedRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []event.Event
		f := newFixture(t, func(o *api.Options) { o.Record = func(e event.Event) { got = append(got, e) } })
		guarded := api.Guarded("a token of some length", f.server)
		ask := func(token string) int {
			r := httptest.NewRequest("DELETE", "/v1/groups/a%1b%20b", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			guarded.ServeHTTP(w, r)
			return w.Code
		}
		if code := ask("a token of some length"); code == 401 || len(got) != 0 {
			t.Fatalf("with the token: %d, %d events", code, len(got))
		}
		for range 1000 {
			if code := ask("guess"); code != 401 {
				t.Fatalf("without: %d", code)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(got) != 2 || got[0].Tapwall.Notice.Count != 1 || got[1].Tapwall.Notice.Count != 999 {
			t.Fatalf("%d events", len(got))
		}
		e := got[1]
		if e.Event.Action != event.ActionUnauthorized || e.Event.Outcome != "failure" || !slices.Contains(e.Event.Category, "authentication") ||
			e.Client == nil || e.Client.IP != "192.0.2.1" || e.User != nil ||
			!strings.HasSuffix(e.Tapwall.Notice.Message, "DELETE /v1/groups/a%1b%20b") {
			t.Errorf("%+v %+v %s", e.Event, e.Client, e.Tapwall.Notice.Message)
		}
		ask("guess") // after a pause the next is told at once again
		if len(got) != 3 {
			t.Errorf("%d events after a pause", len(got))
		}
		time.Sleep(time.Minute)
	})
}
