package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
)

type contextKey int

const (
	requestIDKey contextKey = iota
	anonymousKey
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

// bound ends requests that take too long, on both sides. Streams set deadlines of their own for each write.
func bound(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == streamPath {
			next.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), requestLimit)
		defer cancel()
		// Not every ResponseWriter has deadlines (tests' has none); the context bounds the handler anyway.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(requestLimit + 15*time.Second))
		next.ServeHTTP(w, r.WithContext(ctx))
	})
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
// length and contents of what was sent.
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
