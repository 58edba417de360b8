package api_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/event"
)

func TestAggregate(t *testing.T) {
	f := newFixture(t)
	f.record.add("e1", "e2", "e3")
	var s event.Summary
	if err := json.Unmarshal(f.must(200, "GET", "/v1/events/aggregate?by=rule,action&by=verdict&top=5&window=1h&not.verdict=DENIED",
		"").Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	if len(s.By) != 3 || s.Total.Events != 3 || len(s.Rows) != 1 || s.Rows[0].Values[1] != "policy-verdict" || s.Since.IsZero() ||
		len(s.Coverage) != 1 || s.Others.Events != 0 {
		t.Errorf("%+v", s)
	}
	if got := f.record.filter; got.Not == nil || got.Not.Verdict[0] != "DENIED" || got.Since.IsZero() {
		t.Errorf("asked for %+v", got)
	}
	for query, want := range map[string]string{"": "query.by", "by=sauce": "query.by", "by=src&top=0": "query.top",
		"by=src&top=1001": "query.top",
		"by=src&window=x": "query.window", "by=src&window=1ms": "query.window", "by=src&verdict=X": "query.verdict", "by=src&x=1": "query.x"} {
		if body := f.must(422, "GET", "/v1/events/aggregate?"+query, "").Body.String(); !strings.Contains(body, `"`+want+`"`) {
			t.Errorf("%s: %s", query, body)
		}
	}
}
