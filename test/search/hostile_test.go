package search

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
)

// Whatever keys and values external_ids of a port have, they are labels, as far as a document has room for them, and no event of the port
// becomes a dead letter.
func TestHostileLabels(t *testing.T) {
	many := map[string]string{}
	for i := range 2000 {
		many[fmt.Sprintf("key.%d", i)] = "value"
	}
	all := []map[string]string{
		{"": "empty"}, {".": "dot"}, {"..": "dots"}, {".a": "first"}, {"a.": "last"}, {"a..b": "two"}, {" ": "blank"}, {"a b": "blanks"},
		{"_id": "1", "_source": "2", "_index": "x"}, {"*": "star"}, {"a": "", "a.b": "", "a.b.c": ""},
		{"\x00": "nul", "a": "\x00\x1b[2J\n"},
		{strings.Repeat("k", 300): "long"}, {strings.Repeat("k", 40_000): "longer"}, {"a": strings.Repeat("v", 40_000)},
		{"a": strings.Repeat("ü", 20_000)}, {strings.Repeat("a.", 600) + "b": "deep"},
		{`"}}` + "\n" + `{"delete":{}}`: "injected"}, {"\xff": "\xff"}, many,
		{strings.Repeat("k", event.MaxLabels): ""}, {"k": strings.Repeat("v", event.MaxLabels-1)},
	}
	r := newRig(t, "labels", nil)
	for i, labels := range all {
		e := newEvent(i)
		e.Tapwall.Source = &event.Endpoint{Name: "vm1", Labels: event.BoundedLabels(labels)}
		r.rec.Record(e)
	}
	if st := r.drained(time.Minute); st.Export.DeadLetters != 0 || st.Export.Created != int64(len(all)) {
		t.Errorf("%+v", st.Export)
	}
	for i := range all {
		if n, err := server.Count("labels-all", fmt.Sprintf(`{"term":{"source.port":%d}}`, i)); err != nil || n != 1 && i > 0 {
			t.Errorf("%d documents with the labels %.60q (%v)", n, fmt.Sprint(all[i]), err)
		}
	}
}
