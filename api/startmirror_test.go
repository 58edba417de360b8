package api_test

import (
	"slices"
	"strings"
	"testing"
)

// Start enables a mirror that is not, has the engine begin one again, and leaves its document alone otherwise.
func TestStartMirror(t *testing.T) {
	f := newFixture(t)
	const spec = `"sources":[{"port":"vm1"}],"targets":[{"port":{"name":"ids0"}}],"stopAfter":{"duration":"10m"}`
	on := f.must(201, "PUT", "/v1/mirrors/on", `{"spec":{`+spec+`}}`).Header().Get("ETag")
	off := f.must(201, "PUT", "/v1/mirrors/off", `{"spec":{`+spec+`,"enabled":false}}`).Header().Get("ETag")
	if w := f.must(200, "POST", "/v1/mirrors/on/start", ""); w.Header().Get("ETag") != on {
		t.Errorf("the start of what is enabled wrote revision %s, and it was %s", w.Header().Get("ETag"), on)
	}
	f.must(412, "POST", "/v1/mirrors/off/start", "", `If-Match: "1"`)
	w := f.must(200, "POST", "/v1/mirrors/off/start?wait=installed", "", "If-Match: "+off)
	if w.Header().Get("ETag") == off || !strings.Contains(w.Body.String(), `"enabled":true`) {
		t.Errorf("what was not enabled is, after its start: %s", w.Body)
	}
	f.must(404, "POST", "/v1/mirrors/none/start", "")
	if got := f.engine.started; !slices.Equal(got, []string{"on", "off"}) {
		t.Errorf("the engine started %q", got)
	}
}
