package opensearch

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/opensearch-project/opensearch-go/v4/opensearchtransport"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/pki"
)

const (
	defaultTimeout = 30 * time.Second
	maxAnswer      = 64 << 20
)

// errNotOpenSearch says that something answered that does not speak as OpenSearch does, such as a proxy with a page of its own.
var errNotOpenSearch = errors.New("the answer is not one of OpenSearch")

// client speaks to any of the nodes. It repeats nothing but what only reads: whether another request may be is known above.
type client struct {
	t    *opensearchtransport.Client
	idle func() // closes connections that nobody uses
	// timeout is how long a request with its answer may take.
	timeout time.Duration
}

func newClient(o *Options) (*client, error) {
	cfg := opensearchtransport.Config{
		Username: o.Username, Header: http.Header{}, DisableRetry: true,
		// Nodes are tried by the requests themselves; nothing else runs in the background.
		HealthCheck: opensearchtransport.NoOpHealthCheck, NodeStatsInterval: -1, MaxRetryClusterHealth: -1, ActiveListCap: -1,
	}
	for _, s := range o.URLs {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("urls: %q is not a URL such as https://192.0.2.1:9200", s)
		}
		if u.User != nil {
			return nil, errors.New("urls: a password has no place in a URL, where logs show it: use username and password-file")
		}
		cfg.URLs = append(cfg.URLs, u)
	}
	if len(cfg.URLs) == 0 {
		return nil, errors.New("urls: none is given")
	}
	var err error
	if cfg.Password, err = secret("password-file", o.PasswordFile); err != nil {
		return nil, err
	}
	key, err := secret("api-key-file", o.APIKeyFile)
	if err != nil {
		return nil, err
	}
	switch {
	case key != "" && (o.Username != "" || cfg.Password != ""):
		return nil, errors.New("api-key-file and username exclude each other")
	case key != "":
		cfg.Header.Set("Authorization", "ApiKey "+key)
	case (o.Username == "") != (cfg.Password == ""):
		return nil, errors.New("username and password-file need each other")
	}
	tlsConfig, err := o.TLS.config()
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // net/http says so
	transport.TLSClientConfig = tlsConfig
	transport.MaxIdleConnsPerHost = maxInFlight + 1
	cfg.Transport = transport
	t, err := opensearchtransport.New(cfg)
	if err != nil {
		return nil, err
	}
	return &client{t, transport.CloseIdleConnections, o.Timeout}, nil
}

// secret reads one that is alone in a file.
func secret(key, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path) //nolint:gosec // the operator's
	if err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	s := strings.TrimSpace(string(b))
	if s == "" || strings.ContainsAny(s, "\r\n") {
		return "", fmt.Errorf("%s: %s does not hold one line", key, path)
	}
	return s, nil
}

// config reads the files; empty names leave what is the default.
func (t TLS) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		var err error
		if c.RootCAs, err = pki.Roots(t.CA); err != nil {
			return nil, fmt.Errorf("tls-ca: %w", err)
		}
	}
	if t.Cert != "" || t.Key != "" {
		cert, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("tls-cert, tls-key: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

// ask sends a request with a body of JSON, nil = none, and reads the answer. The error is a *statusError if the server did not do it;
// with any other it is not known whether it has.
func (c *client) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	return c.send(ctx, method, path, body, http.Header{"Content-Type": {"application/json"}})
}

// look is ask for a request that only reads: where the server closed the connection that was idle until now, as one does that restarts, it
// is made once more by another. (net/http takes a key without a value for that, and does not send it.)
func (c *client) look(ctx context.Context, path string, body []byte) ([]byte, error) {
	return c.send(ctx, http.MethodPost, path, body, http.Header{"Content-Type": {"application/json"}, "Idempotency-Key": nil})
}

// bulk is ask for the compressed body of a bulk request.
func (c *client) bulk(ctx context.Context, path string, body []byte) ([]byte, error) {
	return c.send(ctx, http.MethodPost, path, body, http.Header{"Content-Type": {"application/x-ndjson"}, "Content-Encoding": {"gzip"}})
}

func (c *client) send(ctx context.Context, method, path string, body []byte, header http.Header) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, path, r)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header = header
	}
	res, err := c.t.Stream(req)
	if res != nil {
		defer res.Body.Close() //nolint:errcheck // read only
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" { // whatever was asked, it is the address that people can mend
		return nil, fmt.Errorf("the server cannot be reached: %w", op)
	}
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err == nil && res.StatusCode != http.StatusOK {
		err = answerError(res.StatusCode, answer)
	}
	return answer, err
}

func (c *client) close() error {
	err := c.t.Close()
	c.idle()
	return err
}

// statusError is an answer that is no success.
type statusError struct {
	status int
	kind   string // error.type, "" = it does not say
	reason string
}

func (e *statusError) Error() string {
	switch {
	case e.status == http.StatusUnauthorized:
		return "HTTP 401: " + strings.TrimPrefix(e.kind+": ", ": ") + e.reason +
			" (see username and password-file, or api-key-file, of sinks.opensearch)"
	case e.kind != "":
		return fmt.Sprintf("HTTP %d: %s: %s", e.status, e.kind, e.reason)
	case e.reason != "":
		return fmt.Sprintf("HTTP %d: %s", e.status, e.reason)
	}
	return fmt.Sprintf("HTTP %d (%s)", e.status, http.StatusText(e.status))
}

// answered says whether err is an answer with a status.
func answered(err error, status int) bool {
	var e *statusError
	return errors.As(err, &e) && e.status == status
}

// problem is OpenSearch's error object; older ones and proxies give a text.
type problem struct {
	Type   string `json:"type"`
	Reason string `json:"reason"`
}

// UnmarshalJSON keeps the beginning of long texts: they go to the log, the status and the dead letters.
func (p *problem) UnmarshalJSON(b []byte) (err error) {
	if len(b) > 0 && b[0] == '"' {
		err = json.Unmarshal(b, &p.Reason)
	} else {
		type plain problem
		err = json.Unmarshal(b, (*plain)(p))
	}
	p.Type, p.Reason = event.Cut(p.Type, 100), event.Cut(p.Reason, 1000)
	return err
}

func answerError(status int, answer []byte) error {
	var a struct {
		Error problem `json:"error"`
	}
	if json.Unmarshal(answer, &a) != nil || a.Error == (problem{}) {
		return &statusError{status: status, reason: short(answer)}
	}
	return &statusError{status: status, kind: a.Error.Type, reason: a.Error.Reason}
}

// short is the beginning of an answer that is not understood.
func short(answer []byte) string {
	return event.Cut(strings.Join(strings.Fields(string(answer[:min(len(answer), 4096)])), " "), 200)
}
