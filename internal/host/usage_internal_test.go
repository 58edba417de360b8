package host

import (
	"strings"
	"testing"

	"github.com/tapwall/tapwall/policy/compile/wall"
)

// A limit is spoken of from 80 % on, in words that change seldom.
func TestNearing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		used int
		want string
	}{
		{0, ""}, {799, ""}, {800, "80 % or more are in use of the 1000 class numbers"}, {899, "80 %"}, {950, "95 %"}, {999, "95 %"},
		{1000, "100 %"}, {1001, "100 %"},
	} {
		got := nearing(wall.Use{Limit: "class-numbers", Used: c.used, Max: 1000})
		if !strings.HasPrefix(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%d of 1000: %q, want %q", c.used, got, c.want)
		}
	}
	fw, err := wall.NewFirewall(wall.Options{Bridge: "br0"})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range fw.Usage() {
		if limits[u.Limit] == "" || u.Max == 0 {
			t.Errorf("%+v is told without words", u)
		}
	}
	if len(fw.Usage()) != len(limits) {
		t.Errorf("%d limits and words for %d", len(fw.Usage()), len(limits))
	}
}
