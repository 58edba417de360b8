package api_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/api"
)

// dial serves the fixture on a unix socket and returns a client of it.
func dial(t *testing.T, f *fixture) *http.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "t.sock")
	l, err := api.Listen("unix:"+path, api.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, f, l)
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// follow opens a stream and returns its lines, without the first sign of life.
func follow(t *testing.T, hc *http.Client, query string, headers ...string) (*http.Response, <-chan string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://x/v1/events/stream"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Set(k, v)
	}
	resp, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(lines)
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			select {
			case lines <- s.Text():
			case <-t.Context().Done():
			}
		}
	}()
	t.Cleanup(func() { resp.Body.Close(); <-done })
	return resp, lines
}

func take(t *testing.T, lines <-chan string, n int) []string {
	t.Helper()
	var out []string
	for len(out) < n {
		select {
		case l, ok := <-lines:
			if !ok {
				t.Fatalf("the stream ended after %q", out)
			}
			out = append(out, l)
		case <-time.After(5 * time.Second):
			t.Fatalf("only %q", out)
		}
	}
	return out
}

func TestSSE(t *testing.T) {
	f := newFixture(t)
	hc := dial(t, f)
	f.record.add("e1", "e2", "e3")
	resp, lines := follow(t, hc, "?policy=web&port=80", "Last-Event-ID: e1")
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Errorf("Content-Type %s", ct)
	}
	got := take(t, lines, 2+4+4) // the sign of life, then what came after e1
	f.record.add("e4")
	got = append(got, take(t, lines, 4)...)
	for i, l := range got {
		if strings.HasPrefix(l, "data: ") && strings.Contains(l, `"rule":{"id":"web/ingress/a\nb"`) {
			got[i] = "data"
		}
	}
	want := []string{": alive", "",
		"id: e2", "event: policy-verdict", "data", "",
		"id: e3", "event: policy-verdict", "data", "",
		"id: e4", "event: policy-verdict", "data", ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"web"}, f.record.filter.Policy); diff != "" || f.record.filter.Port[0] != "80" {
		t.Errorf("filter: %+v", f.record.filter)
	}
}

func TestNDJSON(t *testing.T) {
	f := newFixture(t, func(o *api.Options) { o.Heartbeat = 20 * time.Millisecond })
	hc := dial(t, f)
	resp, lines := follow(t, hc, "", "Accept: application/x-ndjson")
	if ct := resp.Header.Get("Content-Type"); ct != "application/x-ndjson" {
		t.Errorf("Content-Type %s", ct)
	}
	for _, l := range take(t, lines, 3) { // signs of life go on while nothing happens
		if l != "" {
			t.Errorf("line %q", l)
		}
	}
	f.record.add("e1")
	for {
		if l := take(t, lines, 1)[0]; l != "" {
			if !strings.Contains(l, `"id":"e1"`) {
				t.Errorf("line %q", l)
			}
			break
		}
	}
}

// TestStreamLimit has one client too many, which gets in once another has gone.
func TestStreamLimit(t *testing.T) {
	f := newFixture(t, func(o *api.Options) { o.MaxStreams = 2 })
	hc := dial(t, f)
	first, _ := follow(t, hc, "")
	follow(t, hc, "")
	get := func() *http.Response {
		resp, err := hc.Get("http://x/v1/events/stream")
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	resp := get()
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(body), "2 clients follow events already") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	first.Body.Close()
	deadline := time.Now().Add(5 * time.Second)
	for {
		resp := get()
		resp.Body.Close()
		if resp.StatusCode == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the slot was not given back")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestEventsQuery(t *testing.T) {
	f := newFixture(t)
	f.record.add("e1")
	w := f.must(200, "GET", "/v1/events?verdict=DROPPED&from-ip=10.0.0.0/8&limit=5&first=true", "")
	if !strings.Contains(w.Body.String(), `"items":[{"@timestamp"`) {
		t.Errorf("%s", w.Body)
	}
	if f.record.filter.Limit != 5 || !f.record.filter.First || f.record.filter.FromIP[0] != "10.0.0.0/8" {
		t.Errorf("filter %+v", f.record.filter)
	}
}
