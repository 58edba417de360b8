package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/event"
)

const savedEvents = `{"@timestamp":"2026-11-20T22:14:05.5Z","event":{"id":"a","action":"policy-verdict","type":["connection","denied"]},` +
	`"source":{"ip":"10.0.0.1","port":4711},"destination":{"ip":"10.0.0.2","port":80},"network":{"transport":"tcp"},` +
	`"rule":{"id":"web/ingress/x","name":"x","ruleset":"web"},"tapwall":{"verdict":"DROPPED","ct":{"state":["new"]},` +
	`"source":{"name":"=cmd|x","labels":{"app":"web"}},"destination":{"name":"db"}}}

{"@timestamp":"2026-11-20T22:14:06Z","event":{"id":"b","action":"policy-verdict"},"source":{"ip":"10.0.0.3"},` +
	`"destination":{"ip":"10.0.0.2"},"network":{"transport":"udp"},"tapwall":{"verdict":"FORWARDED"},"newer":{"field":1}}
{"@timestamp":"2026-11-20T22:14:07Z","event":{"id":"c","action":"events-lost","dataset":"tapwall.loss"},` +
	`"tapwall":{"loss":{"stage":"of_queue",` +
	`"reason":"full","count":3,` +
	`"first":"2026-11-20T22:14:06Z","last":"2026-11-20T22:14:07Z"}}}
`

// observeSaved runs observe on what was saved.
func observeSaved(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("TZ", "UTC")
	file := filepath.Join(t.TempDir(), "saved.jsonl")
	if err := os.WriteFile(file, []byte(savedEvents), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, bad bytes.Buffer
	code = run(t.Context(), append([]string{"observe", "--input-file", file}, args...), strings.NewReader(savedEvents), &out, &bad)
	return code, out.String(), bad.String()
}

// Saved events are filtered and printed as those of a server are, in every format.
func TestObserveFormats(t *testing.T) {
	for args, want := range map[string]string{
		"--time-format rfc3339nano -o compact --verdict denied": "",
		"-o json --verdict DENIED --field-mask source.ip,tapwall.source.labels.app": `{"source":{"ip":"10.0.0.1"},"tapwall":{"source":` +
			`{"labels":{"app":"web"}}}}` + "\n",
		"-o json --not --protocol tcp --not --type loss --field-mask event.id":                    `{"event":{"id":"b"}}` + "\n",
		"-o json --first 1 --field-mask event.id":                                                 `{"event":{"id":"a"}}` + "\n",
		"-o json --last 1 --field-mask event.id":                                                  `{"event":{"id":"c"}}` + "\n",
		"-o json --since 2026-11-20T22:14:06Z --until 2026-11-20T22:14:06Z --field-mask event.id": `{"event":{"id":"b"}}` + "\n",
		"-o dict --verdict DENIED --field-mask event.type,rule": "event.type: connection,denied\nrule.id: web/ingress/x\nrule.name: x\n" +
			"rule.ruleset: web\n",
		"-o csv --verdict DENIED --field-mask event.id,tapwall.source.name,event.type": "event.id,tapwall.source.name,event.type\n" +
			"a,'=cmd|x,\"connection,denied\"\n",
		"-o table --time-format unix --numeric": "4 lines",
	} {
		code, out, stderr := observeSaved(t, strings.Fields(args)...)
		if code != 0 || want != "" && out != want && !strings.HasPrefix(args, "-o table") {
			t.Errorf("%s: %d %s\n got %q\nwant %q", args, code, stderr, out, want)
		}
		if strings.HasPrefix(args, "-o table") && len(strings.Split(strings.TrimSpace(out), "\n")) != 4 {
			t.Errorf("%s:\n%s", args, out)
		}
	}
	_, counts, _ := observeSaved(t, "--aggregate", "dst-ip,verdict,src-label:app", "--top", "1")
	if lines := strings.Split(strings.TrimSpace(counts), "\n"); len(lines) != 3 || !strings.HasPrefix(lines[0], "DST_IP") ||
		strings.Join(strings.Fields(lines[1])[:5], " ") != "10.0.0.2 DENIED web 1 1" || !strings.HasPrefix(lines[2], "(others)") {
		t.Error(counts)
	}
	_, out, _ := observeSaved(t, "-o", "csv")
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || len(rows) != 4 || len(rows[1]) != len(csvColumns) {
		t.Errorf("%v, %v", rows, err)
	}
	_, out, _ = observeSaved(t, "-o", "json") // what this version does not know stays
	if !strings.Contains(out, `"newer":{"field":1}`) {
		t.Error(out)
	}
	_, out, stderr := observeSaved(t, "-o", "ek")
	for line := range strings.Lines(out) {
		if !json.Valid([]byte(line)) {
			t.Errorf("%q", line)
		}
	}
	if strings.Count(out, "\n") != 4 || !strings.Contains(stderr, "about no packet: 1 event") {
		t.Errorf("%s%s", out, stderr)
	}
	if code, _, stderr := observeSaved(t, "--verdict", "ALLOWED", "--fail-on-loss"); code != exitEventsLost ||
		!strings.Contains(stderr, "3 events") {
		t.Errorf("%d %s", code, stderr)
	}
	var bad bytes.Buffer
	if code := run(t.Context(), []string{"observe", "--input-file", "-"}, strings.NewReader("{}\n"), &bytes.Buffer{}, &bad); code != 1 ||
		!strings.Contains(bad.String(), "standard input: line 1 is no event") {
		t.Errorf("%d %s", code, bad.String())
	}
	// What is damaged, as the end of a file that is written to, hides nothing else.
	first, rest, _ := strings.Cut(savedEvents, "\n")
	for _, args := range [][]string{{"--last", "50"}, {"--all"}, {"--first", "50"}, {"--aggregate", "verdict"}} {
		whole, torn := &bytes.Buffer{}, &bytes.Buffer{}
		bad.Reset()
		run(t.Context(), append([]string{"observe", "--input-file", "-"}, args...), strings.NewReader(savedEvents), whole, &bytes.Buffer{})
		code := run(t.Context(), append([]string{"observe", "--input-file", "-"}, args...),
			strings.NewReader(first+"\nnonsense\n"+rest+first[:20]), torn, &bad)
		if code != 1 || torn.String() != whole.String() || !strings.Contains(bad.String(), "line 2 is no event") ||
			!strings.Contains(bad.String(), "nor are 1 others") {
			t.Errorf("%v: %d %s\n%s\nwant\n%s", args, code, bad.String(), torn, whole)
		}
	}
}

// FuzzObserveFormats puts any text into every format: no control character but line ends comes out, and a CSV is one.
func FuzzObserveFormats(f *testing.F) {
	for _, s := range []string{"web1", "\x1b]0;owned\x07", "a\r\nb", "\u202e", "\xff\xfe", "=1+1", "\x00", `"`, "a,b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := &event.Event{Event: event.Meta{Action: s}, Source: &event.Side{IP: s, Domain: s}, Destination: &event.Side{IP: s},
			Network: &event.Network{Transport: s, CommunityID: s}, Rule: &event.Rule{ID: s, Name: s},
			DNS:     &event.DNS{ID: s, Question: &event.Question{Name: s}},
			Tapwall: event.Tapwall{Source: &event.Endpoint{Name: s, Labels: map[string]string{s: s}}, Notice: nil}}
		raw, err := event.AppendJSON(nil, e)
		if err != nil {
			t.Skip()
		}
		for _, format := range observeFormats {
			var out bytes.Buffer
			p := eventPrinter{w: &screen{&out}, format: format, po: event.PrintOptions{Node: true, Rule: true}}
			for range 2 {
				if err := p.print(line{e, raw, 1, e.Timestamp}); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.flush(); err != nil {
				t.Fatal(err)
			}
			if text := strings.ReplaceAll(out.String(), "\n", ""); unsafeText(text) {
				t.Fatalf("%s prints %q", format, text)
			}
			if format == "csv" {
				if rows, err := csv.NewReader(&out).ReadAll(); err != nil || len(rows) != 3 {
					t.Fatalf("%q: %v", rows, err)
				}
			}
		}
	})
}
