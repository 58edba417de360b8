package flow_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// FuzzParseFlow: the parser never panics, points into its input when it refuses, and what it accepts is valid and is
// the fixed point of printing and reading again.
func FuzzParseFlow(f *testing.F) {
	for _, row := range goldenMatches() {
		f.Add("priority=1," + row.text + " actions=drop")
	}
	for _, row := range goldenActions() {
		f.Add("table=2, " + row.needs + " actions=" + row.text)
	}
	for _, row := range goldenHeaders() {
		f.Add(row.text)
	}
	r := rand.New(rand.NewPCG(11, 12))
	for range 50 {
		f.Add(randomFlow(r).String())
	}
	f.Add(" cookie=0x1, duration=3.25s, table=0, n_packets=1, n_bytes=2, idle_age=1, priority=1,in_port=1 actions=ct(nat")
	f.Fuzz(func(t *testing.T, line string) {
		x, err := flow.ParseFlow(line)
		if err != nil {
			var pe *flow.ParseError
			if !errors.As(err, &pe) || pe.Offset < 0 || pe.Offset > len(line) {
				t.Fatalf("%q: %v", line, err)
			}
			return
		}
		if err := x.Validate(); err != nil {
			t.Fatalf("%q: accepted but not valid: %v", line, err)
		}
		text := x.String()
		y, err := flow.ParseFlow(text)
		if err != nil {
			t.Fatalf("%q: printed as %q: %v", line, text, err)
		}
		if !x.Equal(y) || x.Key() != y.Key() {
			t.Fatalf("%q: printed as %q, read as %q", line, text, y)
		}
		if again := y.String(); again != text {
			t.Fatalf("%q: printed as %q, then as %q", line, text, again)
		}
	})
}
