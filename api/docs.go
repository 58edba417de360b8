package api

import (
	"embed"
	"io/fs"
	"net/http"
)

// The pages under /docs are self-contained: they load nothing from anywhere else and render /openapi.json.
//
//go:embed docs
var docsFiles embed.FS

// docsPolicy allows the page its own files only; nothing inline, no frames.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; " +
	"form-action 'none'; frame-ancestors 'none'"

func (s *Server) registerDocs() {
	s.router.Get("/openapi.json", s.serveSpec(s.spec.json, "application/openapi+json"))
	s.router.Get("/openapi.yaml", s.serveSpec(s.spec.yaml, "application/openapi+yaml"))
	s.router.Get("/", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/docs", http.StatusFound) })
	for path, f := range map[string]struct{ name, contentType string }{
		"/docs":          {"docs/index.html", "text/html; charset=utf-8"},
		"/docs/docs.js":  {"docs/docs.js", "text/javascript; charset=utf-8"},
		"/docs/docs.css": {"docs/docs.css", "text/css; charset=utf-8"},
	} {
		body, err := fs.ReadFile(docsFiles, f.name)
		if err != nil { // the build has it or fails
			panic("api: " + err.Error())
		}
		s.router.Get(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", f.contentType)
			w.Header().Set("Content-Security-Policy", docsPolicy)
			_, _ = w.Write(body) // the client may have gone
		})
	}
}
