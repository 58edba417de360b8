package lab

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Fault says what becomes of a request that a FaultProxy got.
type Fault int

// The faults.
const (
	NoFault    Fault = iota
	Refuse           // nobody listens
	Hang             // it is taken, and never answered
	Status503        // answered by the proxy
	Status429        // likewise
	Garbage          // a page of HTML with status 200
	ApplyReset       // the server acts on it, and the connection breaks before the answer
)

// FaultProxy stands before a server and does to requests what servers and networks do.
type FaultProxy struct {
	URL    string
	target string
	ns     *NS
	server *http.Server
	gate   chan struct{} // closed when hanging requests may end

	mu       sync.Mutex
	fault    func(*http.Request) Fault
	items    func(id string) (status int, kind string) // fate of single documents; nil = the server's
	requests map[string]int                            // by method and path, without the query
	bulk     int                                       // documents that came
	broken   map[string]bool                           // ids of those of requests that broke off
	addr     string
}

// NewFaultProxy listens on loopback of a namespace (nil = that of the process).
func NewFaultProxy(target string, ns *NS) (*FaultProxy, error) {
	p := &FaultProxy{target: target, ns: ns, requests: map[string]int{}, broken: map[string]bool{},
		gate: make(chan struct{}), addr: "127.0.0.1:0"}
	return p, p.listen()
}

func (p *FaultProxy) listen() error {
	var l net.Listener
	open := func() (err error) {
		l, err = net.Listen("tcp", p.addr)
		return err
	}
	err := error(nil)
	if p.ns == nil {
		err = open()
	} else {
		err = p.ns.Do(open)
	}
	if err != nil {
		return err
	}
	p.addr = l.Addr().String()
	p.URL = "http://" + p.addr
	u, err := url.Parse(p.target)
	if err != nil {
		return err
	}
	back := httputil.NewSingleHostReverseProxy(u)
	back.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	serve := func(w http.ResponseWriter, r *http.Request) { p.serve(back, w, r) }
	p.server = &http.Server{Handler: http.HandlerFunc(serve), ReadHeaderTimeout: time.Minute}
	go p.server.Serve(l) //nolint:errcheck // ends with Close
	return nil
}

// Close ends it.
func (p *FaultProxy) Close() {
	p.mu.Lock()
	select {
	case <-p.gate:
	default:
		close(p.gate)
	}
	p.mu.Unlock()
	_ = p.server.Close()
}

// All has the same fault for all requests, until the next call.
func (p *FaultProxy) All(f Fault) error { return p.Some(f, func(*http.Request) bool { return true }) }

// Some has a fault for the requests that match; the others pass. Refuse is for all or none.
func (p *FaultProxy) Some(f Fault, match func(*http.Request) bool) error {
	p.mu.Lock()
	p.fault = func(r *http.Request) Fault {
		if match(r) {
			return f
		}
		return NoFault
	}
	close(p.gate)
	p.gate = make(chan struct{})
	p.mu.Unlock()
	if f == Refuse {
		return p.server.Close()
	}
	if p.server != nil && p.refuses() {
		return p.listen()
	}
	return nil
}

func (p *FaultProxy) refuses() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	refused := false
	dial := func() error {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", p.addr)
		if err != nil {
			refused = true
			return nil
		}
		return c.Close()
	}
	if p.ns == nil {
		_ = dial()
	} else {
		_ = p.ns.Do(dial)
	}
	return refused
}

// Items has f say the fate of single documents: a status other than 0 is answered for it, with an error of the kind, and the server does
// not get it.
func (p *FaultProxy) Items(f func(id string) (status int, kind string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.items = f
}

// Requests counts those of a method and the beginning of a path.
func (p *FaultProxy) Requests(method, path string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, c := range p.requests {
		if strings.HasPrefix(k, method+" "+path) {
			n += c
		}
	}
	return n
}

// Broken counts the documents, each once, of bulk requests that ApplyReset was done to.
func (p *FaultProxy) Broken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.broken)
}

// BulkDocuments counts the documents of all bulk requests.
func (p *FaultProxy) BulkDocuments() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bulk
}

func (p *FaultProxy) serve(back http.Handler, w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.requests[r.Method+" "+r.URL.Path]++
	fault, items, gate := NoFault, p.items, p.gate
	if p.fault != nil {
		fault = p.fault(r)
	}
	p.mu.Unlock()
	if r.URL.Path == "/_bulk" {
		b, err := plain(r)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		p.mu.Lock()
		p.bulk += bytes.Count(b, []byte("\n")) / 2
		if fault == ApplyReset {
			for line := range bytes.Lines(b) {
				if id := idOf(line); id != "" {
					p.broken[id] = true
				}
			}
		}
		p.mu.Unlock()
		if items != nil && fault == NoFault {
			p.serveItems(back, w, r, b, items)
			return
		}
	}
	switch fault {
	case NoFault, Refuse:
		back.ServeHTTP(w, r)
	case Hang:
		select {
		case <-r.Context().Done():
		case <-gate:
		}
		panic(http.ErrAbortHandler)
	case Status503:
		http.Error(w, `{"error":"unavailable","status":503}`, http.StatusServiceUnavailable)
	case Status429:
		http.Error(w, `{"error":{"type":"circuit_breaking_exception","reason":"busy"},"status":429}`, http.StatusTooManyRequests)
	case Garbage:
		fmt.Fprint(w, "<html><body>It works!</body></html>")
	case ApplyReset:
		back.ServeHTTP(&recorder{header: http.Header{}}, r)
		panic(http.ErrAbortHandler)
	}
}

// plain reads a body that may be compressed, and leaves it plain.
func plain(r *http.Request) ([]byte, error) {
	var src io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, err
		}
		src = z
		r.Header.Del("Content-Encoding")
	}
	b, err := io.ReadAll(src)
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	return b, err
}

// idOf is the id that the first line of a document names, "" = it is another line.
func idOf(line []byte) string {
	var action struct {
		Create struct {
			ID string `json:"_id"`
		} `json:"create"`
	}
	_ = json.Unmarshal(line, &action)
	return action.Create.ID
}

// serveItems answers for some documents itself and lets the server have the others.
func (p *FaultProxy) serveItems(back http.Handler, w http.ResponseWriter, r *http.Request, body []byte, items func(string) (int, string)) {
	r.Header.Del("Accept-Encoding") // the answer is read here
	lines := bytes.SplitAfter(body, []byte("\n"))
	var rest bytes.Buffer
	var own []any // nil = the server's answer
	for i := 0; i+1 < len(lines); i += 2 {
		if status, kind := items(idOf(lines[i])); status != 0 {
			why := map[string]string{"type": kind, "reason": "asked for"}
			own = append(own, map[string]any{"create": map[string]any{"status": status, "error": why}})
			continue
		}
		own = append(own, nil)
		rest.Write(lines[i])
		rest.Write(lines[i+1])
	}
	var theirs struct {
		Items []any `json:"items"`
	}
	if rest.Len() > 0 {
		r.Body, r.ContentLength = io.NopCloser(&rest), int64(rest.Len())
		rec := &recorder{header: http.Header{}}
		back.ServeHTTP(rec, r)
		if rec.status != 0 && rec.status != http.StatusOK {
			w.WriteHeader(rec.status)
			_, _ = w.Write(rec.body.Bytes())
			return
		}
		if err := json.Unmarshal(rec.body.Bytes(), &theirs); err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
	}
	for i := range own {
		if own[i] == nil && len(theirs.Items) > 0 {
			own[i], theirs.Items = theirs.Items[0], theirs.Items[1:]
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"items": own})
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
