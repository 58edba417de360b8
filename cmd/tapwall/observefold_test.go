package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
)

// Denials of one packet that is sent again and again are one line, which says how often; whatever differs in what is printed is another.
func TestObserveFolds(t *testing.T) {
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	denied := func(change ...func(*event.Event)) *event.Event {
		at = at.Add(time.Second)
		e := &event.Event{Timestamp: at, Event: event.Meta{Action: event.ActionVerdict, Type: []string{"connection", "denied"}},
			Source: &event.Side{IP: "10.0.0.1", Port: 4000}, Destination: &event.Side{IP: "10.0.0.2", Port: 80},
			Network: &event.Network{CommunityID: "1:a", Bytes: 74}, Observer: &event.Observer{Name: "h1"},
			Rule:    &event.Rule{ID: "web/ingress/x", Name: "x", Ruleset: "web"},
			Tapwall: event.Tapwall{Verdict: event.Dropped, Direction: "ingress", Bridge: "br0", TCP: &event.TCP{Flags: []string{"SYN"}}}}
		for _, c := range change {
			c(e)
		}
		return e
	}
	allowed := func(e *event.Event) { e.Event.Type[1], e.Tapwall.Verdict = "allowed", event.Forwarded }
	bare := func(e *event.Event) { e.Network = nil }
	other := func(e *event.Event) { e.Network.CommunityID = "1:b" }
	for name, x := range map[string]struct {
		events []*event.Event
		counts []int
	}{
		"the same":           {[]*event.Event{denied(), denied(), denied()}, []int{3}},
		"another between":    {[]*event.Event{denied(), denied(other), denied()}, []int{1, 1, 1}},
		"allowed":            {[]*event.Event{denied(allowed), denied(allowed)}, []int{1, 1}},
		"another rule":       {[]*event.Event{denied(), denied(func(e *event.Event) { e.Rule.ID = "y" })}, []int{1, 1}},
		"other flags":        {[]*event.Event{denied(), denied(func(e *event.Event) { e.Tapwall.TCP.Flags = []string{"RST"} })}, []int{1, 1}},
		"another host":       {[]*event.Event{denied(), denied(func(e *event.Event) { e.Observer.Name = "h2" })}, []int{1, 1}},
		"the other way":      {[]*event.Event{denied(), denied(func(e *event.Event) { e.Source.IP = "10.0.0.2" })}, []int{1, 1}},
		"of no connection":   {[]*event.Event{denied(bare), denied(bare)}, []int{1, 1}},
		"again after others": {[]*event.Event{denied(), denied(), denied(other), denied(other)}, []int{2, 2}},
	} {
		for _, folds := range []bool{true, false} {
			o := observer{folds: folds}
			lines := o.lines(x.events, make([]json.RawMessage, len(x.events)))
			if !folds && len(lines) != len(x.events) {
				t.Errorf("%s: folded where nobody asked", name)
			}
			for i := range lines {
				if folds && (len(lines) != len(x.counts) || lines[i].n != x.counts[i]) {
					t.Errorf("%s: line %d of %d stands for %d", name, i, len(lines), lines[i].n)
				}
			}
		}
	}
	var b strings.Builder
	p := &eventPrinter{w: &b, format: "compact", po: event.PrintOptions{Location: time.UTC, TimeFormat: time.TimeOnly}}
	o := observer{folds: true, printer: p, lost: map[string]int64{}}
	at = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	events := []*event.Event{denied(), denied(), denied()}
	for _, l := range o.lines(events, make([]json.RawMessage, 3)) {
		if err := o.take(l); err != nil {
			t.Fatal(err)
		}
	}
	want := "12:00:01: 10.0.0.1:4000 <> 10.0.0.2:80 policy-verdict:web/x INGRESS DENIED (TCP Flags: SYN), 3 times until 12:00:03\n"
	if b.String() != want || !o.newest.Equal(at) {
		t.Errorf("%q", b.String())
	}
}
