package opensearch

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/spool"
)

// hostile is a sink of which the server answers as it likes.
func hostile(t *testing.T, answer http.HandlerFunc) *Sink {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	c, err := newClient(&Options{URLs: []string{server.URL}, Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.close() })
	return &Sink{o: Options{Prefix: "p"}, client: c}
}

// Answers without end, or that lead elsewhere, are errors within the time of a request and within bounds of memory.
func TestHostileAnswers(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirection was followed") }))
	defer elsewhere.Close()
	for name, answer := range map[string]http.HandlerFunc{
		"redirection": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		},
		"drop by drop": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte(" "))
				_ = http.NewResponseController(w).Flush()
				time.Sleep(50 * time.Millisecond)
			}
		},
		"bomb": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			for zeros := make([]byte, 1<<20); ; {
				if _, err := z.Write(zeros); err != nil {
					return
				}
			}
		},
		"page": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>"+strings.Repeat("x", 1<<20)) },
	} {
		s := hostile(t, answer)
		began := time.Now()
		b, err := s.client.bulk(t.Context(), bulkPath, nil)
		if err == nil {
			_, err = parseBulk(b, 1)
		}
		if took := time.Since(began); err == nil || took > 10*time.Second || len(b) > maxAnswer || len(err.Error()) > 1000 {
			t.Errorf("%s: %v after %v, %d bytes", name, err, took, len(b))
		}
	}
}

// What a server says of documents goes to the log, the status and the dead letters in a length that they can bear.
func TestLongReason(t *testing.T) {
	long := strings.Repeat("ü", 1<<20)
	items, err := parseBulk(fmt.Appendf(nil, `{"items":[{"create":{"status":400,"error":{"type":%q,"reason":%q}}}]}`, long, long), 1)
	if err != nil || len(items[0].Error.Type) > 110 || len(items[0].Error.Reason) > 1010 || !strings.HasPrefix(items[0].Error.Reason, "üü") {
		t.Error(err, len(items[0].Error.Type), len(items[0].Error.Reason))
	}
	if err := answerError(500, fmt.Appendf(nil, `{"error":%q}`, long)); len(err.Error()) > 1100 {
		t.Error(len(err.Error()))
	}
}

// Of what a server finds, only what was asked for is taken for the record.
func TestHostileHits(t *testing.T) {
	source := func(install uint32, idSeq, seq int64) string {
		b, err := event.AppendJSON(nil, &event.Event{Timestamp: time.Unix(1, 0),
			Event: event.Meta{ID: event.ID{Install: install, Epoch: 1, Sequence: idSeq}.String(), Sequence: seq}})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, tt := range map[string]struct {
		hits []string
		want int
		ok   bool
	}{
		"as asked":             {[]string{source(1, 11, 11), source(1, 12, 12)}, 2, true},
		"of another record":    {[]string{source(1, 11, 11), source(2, 12, 12)}, 1, false},
		"another number":       {[]string{source(1, 11, 12)}, 0, false},
		"before what is asked": {[]string{source(1, 10, 10)}, 0, false},
		"behind it":            {[]string{source(1, 20, 20)}, 0, false},
		"in no order":          {[]string{source(1, 12, 12), source(1, 11, 11)}, 1, false},
		"nothing":              {[]string{`null`}, 0, false},
		"no event":             {[]string{`{"event":{"id":"\u001b[2J","sequence":11}}`}, 0, false},
		"no document":          {[]string{`[]`}, 0, false},
	} {
		first := true
		s := hostile(t, func(w http.ResponseWriter, _ *http.Request) {
			hits := tt.hits
			if first {
				hits, first = []string{source(1, 11, 11)}, false // the oldest
			}
			for i := range hits {
				hits[i] = `{"_source":` + hits[i] + `,"sort":[1]}`
			}
			fmt.Fprintf(w, `{"hits":{"hits":[%s]}}`, strings.Join(hits, ","))
		})
		n := 0
		_, err := s.Search(t.Context(), 1, spool.Query{After: 10, Before: 20}, func(*event.Event) bool { n++; return true })
		if n != tt.want || (err == nil) != tt.ok {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}

// A connection that ends as the request arrives is no error of who searches; who delivers is told, for nobody knows what was done.
func TestSearchOnEndedConnection(t *testing.T) {
	var answered, broken atomic.Int32
	s := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		if _, sent := r.Header["Idempotency-Key"]; sent {
			t.Error("the key is on the wire")
		}
		if answered.Load() == 1 && broken.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
		answered.Add(1)
		fmt.Fprint(w, `{"hits":{"hits":[]}}`)
	})
	for range 2 {
		if _, err := s.client.look(t.Context(), "/_search", []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	if n := answered.Load(); n != 2 || broken.Load() == 0 {
		t.Errorf("%d answers, %d broken", n, broken.Load())
	}
	answered.Store(1)
	broken.Store(0)
	if _, err := s.client.bulk(t.Context(), bulkPath, []byte("x")); err == nil || broken.Load() != 1 {
		t.Errorf("a delivery was repeated: %v, %d", err, broken.Load())
	}
}

// A server that refuses everything fills the file of dead letters up to its bound, and not the log.
func TestRefusalsInTheLog(t *testing.T) {
	var log bytes.Buffer
	now := time.Unix(1000, 0)
	s := &Sink{o: Options{Now: func() time.Time { return now }}, log: slog.New(slog.NewTextHandler(&log, nil)), reading: t.Context()}
	var err error
	if s.letters, err = openLetters(t.TempDir(), 0); err != nil {
		t.Fatal(err)
	}
	defer s.letters.close() //nolint:errcheck // the test's
	for i := range 3000 {
		if now = now.Add(10 * time.Millisecond); !s.bury(t.Context(), doc{"p-flow-2026.11.29", fmt.Sprint(i), []byte(`{}`)}, problem{"t", "r"}) {
			t.Fatal("it is not kept")
		}
	}
	if lines := strings.Split(strings.TrimSpace(log.String()), "\n"); len(lines) != 3 || !strings.HasSuffix(lines[2], "refused=2001") {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
	if kept, _, _ := s.letters.status(); kept != 3000 {
		t.Errorf("%d are kept", kept)
	}
}
