package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/event"
)

// Trouble of an export stands on lines of its own, and what a server said breaks none.
func TestExportTexts(t *testing.T) {
	since := time.Date(2026, 11, 29, 8, 0, 0, 0, time.Local)
	sink := client.Sink{Name: "opensearch", Target: "http://[::1]:9200", Written: 5, Pending: 2, Error: "HTTP 500: a\nb",
		Export: event.ExportStatus{Created: 4, Duplicates: 1, DeadLetters: 3, Lag: 4, Retries: 6, FailingSince: since, LettersKept: 3}}
	want := `opensearch to http://[::1]:9200: delivered 5 (1 of them sent twice, kept once), waiting 2, dead letters 3, expired 0, corrupt 0
  4s behind
  takes nothing since 2026-11-29 08:00:00, 6 requests sent again: HTTP 500: a\nb
  3 dead letters are kept, 0.0 KiB: tapwall export replay-dlq sends them again
`
	var out bytes.Buffer
	if err := exportTexts(&out, []client.Sink{sink}); err != nil || out.String() != want {
		t.Errorf("%v\ngot  %s\nwant %s", err, out.String(), want)
	}
}
