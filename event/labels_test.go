package event_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/event"
)

// Labels of any size are bounded, and it is the largest that are left out.
func TestBoundedLabels(t *testing.T) {
	long := strings.Repeat("v", event.MaxLabels)
	for _, tc := range []struct{ in, want map[string]string }{
		{nil, nil},
		{map[string]string{"app": "web"}, map[string]string{"app": "web"}},
		{map[string]string{"": long}, map[string]string{"": long}},
		{map[string]string{"a": long, "vm-id": "7"}, map[string]string{"vm-id": "7"}},
		{map[string]string{"b": long[:20_000], "a": long[:20_000], "c": ""}, map[string]string{"a": long[:20_000], "c": ""}},
		{map[string]string{long: "x"}, map[string]string{}},
	} {
		if got := event.BoundedLabels(tc.in); !maps.Equal(got, tc.want) || (got == nil) != (tc.want == nil) {
			t.Errorf("%d labels of %d", len(got), len(tc.in))
		}
	}
}
