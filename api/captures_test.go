package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/api"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/backend"
)

func TestListCaptures(t *testing.T) {
	f := newFixture(t)
	f.engine.captures = []api.Capture{{Mirror: "web", Host: "h1", Kind: "pcap", Port: "twc-1", Reading: true, Packets: 7}, {Mirror: "db"}}
	if text := f.must(200, "GET", "/v1/captures", "").Body.String(); !strings.Contains(text, `"web"`) || !strings.Contains(text, `"db"`) {
		t.Errorf("%s", text)
	}
	text := f.must(200, "GET", "/v1/captures?mirror=web", "").Body.String()
	if !strings.Contains(text, `"packets":7`) || strings.Contains(text, `"db"`) {
		t.Errorf("%s", text)
	}
	if text := f.must(200, "GET", "/v1/captures?mirror=none", "").Body.String(); !strings.Contains(text, `"items":[]`) {
		t.Errorf("%s", text)
	}
}

// What is asked for reaches the engine, and what is impossible does not.
func TestPacketsAsked(t *testing.T) {
	var events []event.Event
	f := newFixture(t, func(o *api.Options) { o.Record = func(e event.Event) { events = append(events, e) } })
	var asked backend.CaptureQuery
	calls := 0
	f.engine.packets = func(q backend.CaptureQuery) (backend.WritePackets, error) {
		asked, calls = q, calls+1
		return func(_ context.Context, w io.Writer) error {
			_, err := w.Write([]byte("packets"))
			return err
		}, nil
	}
	w := f.must(200, "GET", "/v1/captures/web?since=-30s&until=10s&host=h1", "")
	now := time.Now()
	if ago, until := now.Sub(asked.Since), now.Sub(asked.Until); asked.Mirror != "web" || asked.Host != "h1" || asked.Follow ||
		ago < 30*time.Second || ago > 32*time.Second || until < 10*time.Second || until > 12*time.Second {
		t.Errorf("asked for %+v", asked)
	}
	if h := w.Header(); h.Get("Content-Type") != "application/x-pcapng" || h.Get("Content-Disposition") != "attachment; filename=web.pcapng" ||
		w.Body.String() != "packets" {
		t.Errorf("%v %s", h, w.Body)
	}
	f.must(200, "GET", "/v1/captures/web?follow=true&since=2026-01-02T03:04:05Z&packets=5&duration=1m", "")
	if !asked.Follow || asked.Packets != 5 || asked.Duration != time.Minute || asked.Since.Year() != 2026 {
		t.Errorf("asked for %+v", asked)
	}
	if len(events) != 2 || events[0].Event.Action != event.ActionCapturesRead ||
		events[0].Tapwall.Notice.Message != "packets of mirror web of its buffer, since -30s, until 10s were read" ||
		events[0].Tapwall.Notice.Objects[0] != "mirror/web" {
		t.Errorf("events %+v", events)
	}

	calls = 0
	for _, bad := range []string{"since=yesterday", "until=x", "follow=true&until=1s", "packets=0", "duration=1x", "follow=true&packets=0",
		"follow=true&duration=-1s", "since=1s&until=5s", "since=1s&since=2s", "since=", "what=1"} {
		f.must(422, "GET", "/v1/captures/web?"+bad, "")
	}
	f.engine.packets = func(q backend.CaptureQuery) (backend.WritePackets, error) {
		if q.Mirror == "none" {
			return nil, backend.ErrNotFound
		}
		return nil, fmt.Errorf("%w: add the target buffer", backend.ErrUnable)
	}
	f.must(404, "GET", "/v1/captures/none", "")
	if w := f.must(409, "GET", "/v1/captures/web", ""); !strings.Contains(w.Body.String(), "add the target buffer") {
		t.Errorf("%s", w.Body)
	}
	if n := len(events); calls > 0 || n != 2 {
		t.Errorf("%d calls, %d events of what was refused", calls, n)
	}
}

// A stream begins at once, goes on for longer than other requests, breaks off so that the client sees it, and leaves its place to others.
func TestFollowPackets(t *testing.T) {
	f := newFixture(t)
	hc := dial(t, f)
	more := make(chan string)
	f.engine.packets = func(backend.CaptureQuery) (backend.WritePackets, error) {
		return func(ctx context.Context, w io.Writer) error {
			for {
				if _, ok := ctx.Deadline(); ok {
					return errors.New("it has a deadline")
				}
				if _, err := w.Write([]byte("section")); err != nil {
					return err
				}
				select {
				case <-ctx.Done():
					return nil
				case text := <-more:
					if text == "" {
						return errors.New("a fault")
					}
				}
			}
		}, nil
	}
	get := func() *http.Response {
		t.Helper()
		resp, err := hc.Get("http://x/v1/captures/web?follow=true")
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	var open []*http.Response
	for range 8 {
		resp := get()
		b := make([]byte, len("section"))
		if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "section" {
			t.Fatalf("%q %v", b, err)
		}
		open = append(open, resp)
	}
	resp := get()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(body), "8 clients follow packets already") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	open[0].Body.Close()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if resp = get(); resp.StatusCode == 200 {
			break
		}
		resp.Body.Close()
		if time.Now().After(deadline) {
			t.Fatal("the place was not given back")
		}
	}
	open[0] = resp
	for range open {
		more <- ""
	}
	for _, resp := range open {
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("a stream that broke off ended well")
		}
		resp.Body.Close()
	}
}

func TestCaptureFile(t *testing.T) {
	var events []event.Event
	f := newFixture(t, func(o *api.Options) { o.Record = func(e event.Event) { events = append(events, e) } })
	f.engine.dir = filepath.Join(t.TempDir(), "captures")
	const name = "web_00001_20261129120000.pcapng"
	if err := os.Mkdir(f.engine.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{name: "whole file", "../web_00002_20261129120000.pcapng": "outside", "secret": "secret"} {
		if err := os.WriteFile(filepath.Join(f.engine.dir, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := f.must(200, "GET", "/v1/captures/web/files/"+name, "")
	if h := w.Header(); w.Body.String() != "whole file" || h.Get("Content-Length") != "10" || h.Get("Content-Type") != "application/x-pcapng" {
		t.Errorf("%v %s", h, w.Body)
	}
	if w := f.must(200, "HEAD", "/v1/captures/web/files/"+name, ""); w.Body.Len() > 0 || w.Header().Get("Content-Length") != "10" {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
	for _, bad := range []string{"secret", "..", "../secret", "../web_00002_20261129120000.pcapng", "/etc/passwd", name + "\x00", name + "/",
		"web_00002_20261129120000.pcapng", "./" + name, "../captures/" + name} {
		if w := f.call("GET", "/v1/captures/web/files/"+url.PathEscape(bad), ""); w.Code != 404 || strings.Contains(w.Body.String(), "outside") {
			t.Errorf("%q: %d %s", bad, w.Code, w.Body)
		}
	}
	if len(events) != 1 || events[0].Tapwall.Notice.Message != "file "+name+" of mirror web was read" {
		t.Errorf("events %+v", events)
	}
}
