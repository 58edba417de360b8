package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/test/lab"
)

// observed is what observe prints as JSON, by id and in its order.
func (s *stage) observed(args ...string) (events map[string]event.Event, order []string) {
	s.t.Helper()
	events = map[string]event.Event{}
	for line := range strings.Lines(s.tapwall(append([]string{"observe", "-o", "json"}, args...)...)) {
		var e event.Event
		if json.Unmarshal([]byte(line), &e) == nil {
			events[e.Event.ID] = e
			order = append(order, e.Event.ID)
		}
	}
	return events, order
}

// The record outlives tapwall: what was recorded before it was killed is found after, each event once, and a torn end costs nothing that
// was there before.
func TestEventsOutliveTapwall(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	must(t, s.Serve(s.vm[2], 80))
	s.apply("kind: Policy\nname: web\nspec: {appliesTo: [{port: vm2}], ingress: [{name: web, action: allow, log: true, " +
		"services: [{protocol: tcp, ports: [\"80\"]}]}], defaultDeny: {log: true}}\n")
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 80)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 81)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 82)
	var before map[string]event.Event
	lab.Eventually(t, 5*time.Second, "three connections are in the record", func() bool {
		before, _ = s.observed("--all", "--action", "policy-verdict")
		return len(before) >= 3
	})
	status := s.tapwall("status")
	if !strings.Contains(status, "\nspool:   ") || !strings.Contains(status, "0 lost") {
		t.Errorf("status:\n%s", status)
	}

	s.tw.Kill()
	files, err := filepath.Glob(filepath.Join(s.tw.DataDir(), "spool", "*.events"))
	must(t, err)
	if len(files) == 0 {
		t.Fatal("nothing was spooled")
	}
	last, err := os.OpenFile(files[len(files)-1], os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	if _, err := last.Write([]byte("half of a record")); err != nil {
		t.Fatal(err)
	}
	must(t, last.Close())
	must(t, s.tw.Start())

	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 83)
	var after map[string]event.Event
	var order []string
	lab.Eventually(t, 10*time.Second, "a new denial is in the record", func() bool {
		after, order = s.observed("--all", "--action", "policy-verdict")
		for _, e := range after {
			if e.Destination != nil && e.Destination.Port == 83 {
				return true
			}
		}
		return false
	})
	if len(order) != len(after) {
		t.Errorf("%d events, %d of them different", len(order), len(after))
	}
	for id, e := range before {
		if fmt.Sprint(after[id].Event) != fmt.Sprint(e.Event) || after[id].Rule == nil || after[id].Rule.ID != e.Rule.ID {
			t.Errorf("before %+v\nafter %+v", e, after[id])
		}
	}
	lab.Eventually(t, 5*time.Second, "the torn end is told of", func() bool {
		lost, _ := s.observed("--all", "--action", "events-lost")
		return len(lost) == 1
	})
	lab.Eventually(t, 5*time.Second, "the file has the events of the record, each once", func() bool {
		_, order := s.observed("--all")
		var lines []string
		for _, e := range s.documents(func(*event.Event) bool { return true }) {
			lines = append(lines, e.Event.ID)
		}
		return len(order) > 5 && slices.Equal(order, lines)
	})
	if out := s.tapwall("export", "status"); !strings.Contains(out, "events.jsonl: delivered ") ||
		!strings.Contains(out, "expired 0, corrupt 0") {
		t.Errorf("export status:\n%s", out)
	}
}
