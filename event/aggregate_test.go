package event_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/event"
)

// TestAggregate holds counts to those of a map, and the sum of rows and others to all.
func TestAggregate(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		by := rapid.SliceOfNDistinct(rapid.SampledFrom(append(event.Groupings(), "src-label:app", "dst-label:app")), 1, 3,
			rapid.ID[string]).Draw(rt, "by")
		a, err := event.NewAggregator(by, 0)
		if err != nil {
			rt.Fatal(err)
		}
		want := map[string]int64{}
		n := int64(0)
		for range rapid.IntRange(0, 60).Draw(rt, "events") {
			e := drawEvent(rt)
			e.Tapwall.Loss = nil
			a.Add(e)
			n++
			one, _ := event.NewAggregator(by, 0)
			one.Add(e)
			want[strings.Join(one.Summary(1).Rows[0].Values, "|")]++
		}
		top := rapid.IntRange(1, 5).Draw(rt, "top")
		s := a.Summary(top)
		if s.Total.Events != n || len(s.Rows) != min(top, len(want)) {
			rt.Fatalf("%d rows of %d, total %+v of %d", len(s.Rows), len(want), s.Total, n)
		}
		sum, last := s.Others.Events, int64(1<<62)
		for _, r := range s.Rows {
			if r.Events != want[strings.Join(r.Values, "|")] || r.Missed != 0 || r.Events > last {
				rt.Errorf("%+v, want %d", r, want[strings.Join(r.Values, "|")])
			}
			sum, last = sum+r.Events, r.Events
		}
		if sum != n {
			rt.Errorf("rows and others are %d of %d", sum, n)
		}
	})
}

// TestAggregateBounded: of more groups than are kept the large ones are there, what each may miss is stated and true, and nothing goes
// uncounted.
func TestAggregateBounded(t *testing.T) {
	a, err := event.NewAggregator([]string{"dport", "src"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	const scan = 5 * event.MaxGroups
	add := func(name string, port int) {
		a.Add(&event.Event{Timestamp: noon, Source: &event.Side{IP: name}, Destination: &event.Side{Port: port}})
	}
	for i := range scan {
		add(fmt.Sprint("10.0.", i/65000), i%65000+1)
		if i%100 == 0 {
			add("talker", 443)
		}
		if i > scan/2 && i%50 == 0 { // comes later
			add("late", 80)
		}
	}
	s := a.Summary(2)
	sum := s.Others.Events
	for _, r := range s.Rows {
		sum += r.Events
	}
	if sum != s.Total.Events || s.Total.Events < scan {
		t.Errorf("%d of %d", sum, s.Total.Events)
	}
	truth := map[string]int64{"443": scan/100 + 1, "80": (scan/2 - 1) / 50}
	for _, r := range s.Rows {
		if n := truth[r.Values[0]]; n == 0 || r.Events > n || r.Events+r.Missed < n {
			t.Errorf("%+v, in truth %d", r, n)
		}
	}
}

func TestAggregateWindow(t *testing.T) {
	a, err := event.NewAggregator([]string{"dst"}, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 25 {
		a.Add(&event.Event{Timestamp: noon.Add(time.Duration(i) * time.Second), Destination: &event.Side{IP: fmt.Sprint(i % 2)},
			Event: event.Meta{Type: []string{"denied"}}, Tapwall: event.Tapwall{Weight: 3}, Network: &event.Network{Bytes: 100}})
	}
	s := a.Summary(1)
	if len(s.Rows) != 3 || s.Rows[0].Events != 5 || !s.Rows[1].Window.Equal(noon.Truncate(10*time.Second).Add(10*time.Second)) ||
		s.Total != (event.Figures{Events: 25, Denied: 25, Packets: 75, Bytes: 2500}) || s.Others.Events != 12 {
		t.Errorf("%+v", s)
	}
	for _, by := range [][]string{nil, {"sauce"}, {"src-label:"}} {
		if _, err := event.NewAggregator(by, 0); len(event.ParamErrors(err)) != 1 {
			t.Errorf("%v: %v", by, err)
		}
	}
	if _, err := event.NewAggregator([]string{"src"}, time.Millisecond); err == nil {
		t.Error("a window of a millisecond is taken")
	}
}

// A question cannot ask for tables of any width: 16,384 groups of 10,000 texts each would be gigabytes.
func TestAggregateBounds(t *testing.T) {
	_, err := event.NewAggregator(slices.Repeat([]string{"src"}, event.MaxBy+1), 0)
	if err == nil || err.Error() != `by: "src,…" is the first of 17: give 16 at most` {
		t.Error(err)
	}
	if _, err := event.NewAggregator(slices.Repeat([]string{"src"}, event.MaxBy), 0); err != nil {
		t.Error(err)
	}
}
