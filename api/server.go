package api

import (
	"errors"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tapwall/tapwall/event"
)

// Limits of the API.
const (
	maxBody       = 10 << 20
	maxWait       = 60 * time.Second
	requestLimit  = maxWait + 15*time.Second
	bodyReadLimit = 30 * time.Second
	drainLimit    = time.Second     // for running requests at shutdown, then their contexts end
	shutdownLimit = 5 * time.Second // then their connections are cut

	defaultMaxStreams = 64
	defaultHeartbeat  = 15 * time.Second
	streamWriteLimit  = 10 * time.Second

	streamPath = "/v1/events/stream"
)

// Options of NewServer. Store, Engine and Events are mandatory.
type Options struct {
	Store  Store
	Engine Engine
	Events Events
	// Export is the server that events are exported to; nil = none.
	Export Export
	// Record takes events of the API's own, and does not block; nil = nobody does.
	Record func(event.Event)
	// Registry is served as /metrics and gets the API's own metrics; nil = an empty one.
	Registry *prometheus.Registry
	// Logger gets every change at info, every request at debug; nil = discard.
	Logger *slog.Logger
	// Version is shown in the OpenAPI description; "" = dev.
	Version string
	// MaxStreams bounds how many clients follow events at once; 0 = 64.
	MaxStreams int
	// Heartbeat is how often a silent stream shows that it is alive; 0 = 15 s.
	Heartbeat time.Duration
}

// Server answers the REST API. It is an http.Handler; authentication belongs to the listener (Listen, Serve).
type Server struct {
	o       Options
	log     *slog.Logger
	router  *chi.Mux
	api     huma.API
	metrics *metrics
	streams chan struct{} // one token for each stream
	// followers is the same of packets.
	followers chan struct{}
	spec      openAPI

	began    chan struct{} // a confirmation is outstanding, see Run
	problems sync.Map      // why confirmations could not be undone, by id
	refusals refusals
}

// NewServer builds the handler.
func NewServer(o Options) (*Server, error) {
	if o.Store == nil || o.Engine == nil || o.Events == nil {
		return nil, errors.New("api: Store, Engine and Events are mandatory")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	if o.MaxStreams == 0 {
		o.MaxStreams = defaultMaxStreams
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = defaultHeartbeat
	}
	s := &Server{o: o, log: o.Logger, router: chi.NewMux(), streams: make(chan struct{}, o.MaxStreams),
		followers: make(chan struct{}, maxFollowers), began: make(chan struct{}, 1)}
	s.refusals.tell = s.tell
	var err error
	if s.metrics, err = newMetrics(o.Registry); err != nil {
		return nil, err
	}
	s.router.Use(withRequestID, s.observe, harden, bound, middleware.GetHead)
	s.router.NotFound(func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, r, problem(http.StatusNotFound, "there is nothing at %s; see /docs", r.URL.Path))
	})
	s.router.MethodNotAllowed(s.methodNotAllowed)

	s.api = humachi.New(s.router, config(o.Version))
	s.api.UseMiddleware(strict)
	s.registerResources()
	s.registerApply()
	s.registerConfirmations()
	s.registerRead()
	s.registerConnections()
	s.registerTrace()
	s.registerLint()
	s.registerEvents()
	s.registerAggregate()
	s.registerCaptures()
	s.registerExport()
	if err := s.finishSpec(); err != nil {
		return nil, err
	}
	s.router.Method(http.MethodGet, "/metrics", promhttp.HandlerFor(o.Registry,
		promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn)}))
	s.registerDocs()
	return s, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.router.ServeHTTP(w, r) }

// config of huma: our own documentation pages, errors and schema names, nothing added to bodies.
func config(version string) huma.Config {
	c := huma.DefaultConfig("tapwall", version)
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", ""
	c.CreateHooks = nil
	c.Transformers = []huma.Transformer{toProblem}
	c.RejectUnknownQueryParameters = true
	c.Components = &huma.Components{
		Schemas: huma.NewMapRegistry("#/components/schemas/", schemaName),
		SecuritySchemes: map[string]*huma.SecurityScheme{
			"token": {Type: "http", Scheme: "bearer",
				Description: "On TCP listeners. The unix socket needs none: who may open it is decided by its mode and group."},
		},
	}
	c.Security = []map[string][]string{{"token": {}}, {}}
	return c
}

// schemaName names schemas as the documents do: Policy for Document[policy.PolicySpec], PolicyList for a page of these. What package event
// declares is prefixed, as it has a Rule and an Endpoint of its own.
func schemaName(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	name := huma.DefaultSchemaNamer(t, hint)
	if inner, ok := strings.CutPrefix(name, "ListDocument"); ok {
		return strings.TrimSuffix(inner, "Spec") + "List"
	}
	if inner, ok := strings.CutPrefix(name, "Document"); ok {
		return strings.TrimSuffix(inner, "Spec")
	}
	if inner, ok := strings.CutPrefix(name, "List"); ok && inner != "" && t.Kind() == reflect.Struct {
		return inner + "List"
	}
	if strings.HasSuffix(t.PkgPath(), "/event") && name != "Event" {
		return "Event" + name
	}
	return name
}

// methodNotAllowed names the methods that the path has.
func (s *Server) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		probe := m
		if m == http.MethodHead {
			probe = http.MethodGet
		}
		if s.router.Match(chi.NewRouteContext(), probe, r.URL.Path) {
			allowed = append(allowed, m)
		}
	}
	p := problem(http.StatusMethodNotAllowed, "%s does not take %s, but %s", r.URL.Path, r.Method, strings.Join(allowed, ", "))
	p.headers = http.Header{"Allow": {strings.Join(allowed, ", ")}}
	writeProblem(w, r, p)
}
