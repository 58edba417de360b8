package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/test/lab"
)

// sse reads events of a stream behind the one with the id after for some time, then breaks off in the midst, and returns their ids.
func (s *stage) sse(after string, during time.Duration) (ids []string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), during)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://tapwall/v1/events/stream?since=1h", nil)
	must(s.t, err)
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
	}
	resp, err := s.HTTP(0).Do(req)
	if err != nil {
		return nil // nothing came in this time
	}
	defer resp.Body.Close()
	id := ""
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		line := lines.Text()
		if x, ok := strings.CutPrefix(line, "id: "); ok {
			id = x
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			if !json.Valid([]byte(data)) {
				return ids // it broke off here
			}
			ids = append(ids, id)
		}
	}
	return ids
}

// Scenario 15 of events, the part of the API: a reader whose connection breaks again and again, in the midst of an event as between two,
// and who is away for longer than memory reaches, has every event once, in order, as long as it says which was its last. (Captures that
// are followed and downloaded: TestMirrorScenario12….)
func TestEventsScenario15StreamResumes(t *testing.T) {
	t.Parallel()
	s := plugged(t, 2)
	path := filepath.Join(s.Dir, "tapwall.yaml")
	must(t, os.WriteFile(path, []byte("bridges: [{name: br0, mode: owned}]\nlimits: {ring: 1024}\n"), 0o600))
	var err error
	s.tw, err = s.StartTapwall("--config", path)
	must(t, err)
	const n, perTick = 6000, 20
	frames := make([][]byte, n)
	for i := range frames {
		frames[i] = s.first(layers.IPProtocolTCP, 10_000+i)
	}
	sent := make(chan error, 1)
	go func() {
		for i := 0; i < n; i += perTick {
			if err := s.vm[1].Send(frames[i : i+perTick]...); err != nil {
				sent <- err
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		sent <- nil
	}()
	var got []string
	breaks, over := 0, false
	for quiet := 0; quiet < 3; breaks++ {
		last := ""
		if len(got) > 0 {
			last = got[len(got)-1]
		}
		more := s.sse(last, 50*time.Millisecond+rand.N(300*time.Millisecond)+lab.Late(time.Now()))
		got = append(got, more...)
		if breaks == 3 {
			time.Sleep(1500 * time.Millisecond) // more happens than memory holds
		}
		select {
		case err := <-sent:
			must(t, err)
			over = true
		default:
		}
		if quiet++; len(more) > 0 || !over {
			quiet = 0
		}
	}
	var want []string
	for line := range strings.Lines(s.tapwall("observe", "--all", "-o", "json")) {
		var e struct{ Event struct{ ID string } }
		if json.Unmarshal([]byte(line), &e) == nil && e.Event.ID != "" {
			want = append(want, e.Event.ID)
		}
	}
	if len(want) < n*9/10 || breaks < 8 {
		t.Fatalf("%d events of %d connections, %d streams", len(want), n, breaks)
	}
	if !slices.Equal(got, want) {
		seen := map[string]int{}
		for _, id := range got {
			seen[id]++
		}
		missing := slices.DeleteFunc(slices.Clone(want), func(id string) bool { return seen[id] > 0 })
		t.Errorf("%d of %d events came, %d of them different, in order: %v; missing %.5q", len(got), len(want), len(seen),
			slices.IsSorted(got), missing)
	}
	t.Logf("%d events over %d streams", len(got), breaks)
}
