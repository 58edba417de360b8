package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
)

type contextKey int

const (
	requestIDKey contextKey = iota
	anonymousKey
	callerKey
)

const requestIDHeader = "X-Request-Id"

// requestID returns the id that withRequestID gave the request.
func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey).(string)
	return id
}

// withRequestID takes the caller's X-Request-Id if it is harmless in a log, or makes one, and answers with it.
func withRequestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get(requestIDHeader)
		if !plainWord(id, 64) {
			id = rand.Text()[:16]
		}
		w.Header().Set(requestIDHeader, id)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), requestIDKey, id)))
	})
}

func plainWord(s string, limit int) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for _, c := range s {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// recorder remembers the status for the log. Unwrap lets http.ResponseController reach the connection below.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	if status == http.StatusNoContent {
		r.Header().Del("Content-Type") // which huma sets for every answer
	}
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Flush passes on; streams need it.
func (r *recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// observe logs every request at debug level, counts it, and turns a panic of a handler into a 500. Headers are never logged, so
// neither are tokens; queries hold none.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w}
		defer func() {
			p := recover()
			if p == http.ErrAbortHandler {
				panic(p)
			}
			if p != nil {
				s.log.ErrorContext(r.Context(), "panic in a request handler", slog.Any("panic", p), slog.String("method", r.Method),
					slog.String("path", r.URL.Path), slog.String("request", requestID(r.Context())), slog.String("stack", string(debug.Stack())))
				if rec.status == 0 {
					writeProblem(rec, r, problem(http.StatusInternalServerError, "internal error; the log of the server has it under the request id"))
				} else {
					panic(http.ErrAbortHandler) // the answer has begun, so only a broken connection can tell
				}
			}
			took := time.Since(start)
			s.metrics.observe(r, rec.status, took)
			s.log.LogAttrs(r.Context(), slog.LevelDebug, "request", slog.String("method", r.Method), slog.String("path", r.URL.Path),
				slog.String("query", r.URL.RawQuery), slog.Int("status", rec.status), slog.Int64("bytes", rec.bytes), slog.Duration("took", took),
				slog.String("remote", r.RemoteAddr), slog.String("request", requestID(r.Context())))
		}()
		next.ServeHTTP(rec, r)
	})
}

// bound ends requests that take too long, on both sides. Streams set deadlines of their own for each write. The deadline for reading is
// pushed out, since net/http takes it for the end of the client also while the answer is being made.
func bound(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Not every ResponseWriter has deadlines (tests' has none); the context bounds the handler anyway.
		ctl := http.NewResponseController(w)
		if r.URL.Path == streamPath || strings.HasPrefix(r.URL.Path, capturePath+"/") {
			_ = ctl.SetReadDeadline(time.Time{})
			next.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), requestLimit)
		defer cancel()
		_ = ctl.SetReadDeadline(time.Now().Add(requestLimit + 15*time.Second))
		_ = ctl.SetWriteDeadline(time.Now().Add(requestLimit + 15*time.Second))
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// strict refuses what huma would pass over, and reads the body of operations that take one before huma does, which answers 500 to a body
// that breaks off or is badly framed.
func strict(ctx huma.Context, next func(huma.Context)) {
	r, w := humachi.Unwrap(ctx)
	p := checkParameters(r, ctx.Operation())
	if p == nil {
		p = readBody(r, w, ctx.Operation().RequestBody != nil)
	}
	if p != nil {
		writeProblem(w, r, p)
		return
	}
	next(ctx)
}

// checkParameters refuses parameters that are empty or come twice: dryRun= of a script whose variable is unset must not write, and an
// empty If-Match not overwrite.
func checkParameters(r *http.Request, op *huma.Operation) *Problem {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return problem(http.StatusBadRequest, "the query cannot be read: %v", err)
	}
	var p *Problem
	fault := func(at *huma.Param, detail string) {
		if p == nil {
			p = problem(http.StatusUnprocessableEntity, "the input has 1 fault")
		}
		p.Errors = append(p.Errors, InputError{Parameter: at.In + "." + at.Name, Detail: detail})
		countFaults(p)
	}
	for _, at := range op.Parameters {
		values := query[at.Name]
		if at.In == "header" {
			values = r.Header.Values(at.Name)
		} else if at.In != "query" {
			continue
		}
		switch {
		case slices.Contains(values, "") && at.Name != "next": // of the first page
			fault(at, "is empty: give a value or leave it out")
		case len(values) > 1 && at.In == "query" && at.Schema.Type != huma.TypeArray:
			fault(at, "is given more than once")
		}
	}
	return p
}

// readBody replaces the body by what was read of it: all, or more than maxBody of it, which huma refuses.
func readBody(r *http.Request, w http.ResponseWriter, takes bool) *Problem {
	coding := strings.TrimSpace(strings.Join(r.Header.Values("Content-Encoding"), ", "))
	switch {
	case !takes && r.Method == http.MethodDelete && r.ContentLength != 0:
		return problem(http.StatusBadRequest, "DELETE takes no body: parameters such as dryRun go into the query")
	case !takes:
		return nil
	case coding != "" && !strings.EqualFold(coding, "identity"):
		p := problem(http.StatusUnsupportedMediaType, "send the body as it is, without Content-Encoding: %s", coding)
		p.headers = http.Header{"Accept-Encoding": {"identity"}} // RFC 9110 §15.5.16
		return p
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyReadLimit)) // afterwards huma sets it to BodyReadTimeout
	text, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	var timeout net.Error
	switch {
	case err == nil:
		r.Body = io.NopCloser(bytes.NewReader(text))
		return nil
	case errors.As(err, &timeout) && timeout.Timeout():
		return problem(http.StatusRequestTimeout, "the body did not arrive within %v", bodyReadLimit)
	}
	return problem(http.StatusBadRequest, "the body cannot be read: %v", err)
}

// harden sets headers that keep browsers from guessing, framing and caching.
func harden(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		if strings.HasPrefix(r.URL.Path, "/v1/") {
			h.Set("Cache-Control", "no-store")
		}
		next.ServeHTTP(w, r)
	})
}

// public lists the paths that need no token: they say nothing of this installation but whether it works.
func public(path string) bool {
	switch path {
	case "/", "/healthz", "/readyz", "/openapi.json", "/openapi.yaml", "/docs":
		return true
	}
	return strings.HasPrefix(path, "/docs/")
}

// requireToken lets requests through that carry the bearer token. Hashing first makes the comparison take the same time whatever the
// length and contents of what was sent. The others are recorded.
func requireToken(token string, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, sent, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(strings.TrimSpace(sent)))
		switch {
		case subtle.ConstantTimeCompare(got[:], want[:]) == 1 && strings.EqualFold(scheme, "bearer"):
		case public(r.URL.Path):
			r = r.WithContext(context.WithValue(r.Context(), anonymousKey, true))
		default:
			if s, ok := next.(*Server); ok {
				s.refusals.add(r)
			}
			p := problem(http.StatusUnauthorized, "a valid bearer token is needed here: Authorization: Bearer …")
			p.headers = http.Header{"Www-Authenticate": {`Bearer realm="tapwall"`}}
			withRequestID(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { writeProblem(w, r, p) })).ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// anonymous reports whether the request came by TCP without the token, to a public path.
func anonymous(ctx context.Context) bool { a, _ := ctx.Value(anonymousKey).(bool); return a }
