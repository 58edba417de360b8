package main

import (
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
)

// What top counts are connections and denials; with a filter or a grouping that is about other events, all of them.
func TestTopCounts(t *testing.T) {
	events := []event.Event{
		{Event: event.Meta{Action: event.ActionVerdict, Type: []string{"connection", "allowed"}}},
		{Event: event.Meta{Action: event.ActionVerdict, Type: []string{"connection", "denied"}}},
		{Event: event.Meta{Action: event.ActionDNSQuery}},
		{Event: event.Meta{Action: event.ActionCreated}, Tapwall: event.Tapwall{Notice: &event.Notice{}}},
		{Event: event.Meta{Action: event.ActionPacket}},
	}
	for _, x := range []struct {
		every bool
		want  int64
		word  string
	}{{false, 2, "connections"}, {true, 5, "events"}} {
		c := &talkers{every: x.every, by: []string{"protocol"}, began: time.Now()}
		for i := range events {
			c.add(&events[i])
		}
		if s := c.summary(10); s.Total.Events != x.want || s.Total.Denied != 1 || c.counted() != x.word {
			t.Errorf("%v: %+v, %s", x.every, s.Total, c.counted())
		}
	}
	for want, filters := range map[bool][]event.Filter{
		false: {{}, {Verdict: []string{"DENIED"}}, {Policy: []string{"web"}}, {ToPort: []string{"443"}}},
		true:  {{Type: []string{"dns"}}, {Mirror: []string{"m"}}, {SNI: []string{"*"}}},
	} {
		for _, f := range filters {
			if aboutOthers(&f) != want {
				t.Errorf("%v: %+v", want, f)
			}
		}
	}
}
