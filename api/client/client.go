// Package client talks to a tapwall server: the CLI's way to the REST API, and a Go program's. Answers that are no success are
// *Problem errors; a server that cannot be reached is a *ConnectError with a hint. The package links nothing of the server.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/tapwall/tapwall/internal/pki"
)

// DefaultServer is where tapwall serve listens unless told otherwise.
const DefaultServer = "unix:/run/tapwall/tapwall.sock"

// Options of New.
type Options struct {
	// Token is sent to http and https servers; never to a unix socket, which needs none.
	Token string
	// CAFile verifies an https server; "" = the system's roots. ServerName is expected in its certificate; "" = the host of the server.
	CAFile, ServerName string
	// UserAgent is sent along; "" = tapwall.
	UserAgent string
	// OnProblem is told of each host that a list lacks, and why; nil = nobody is. It may be called by several goroutines.
	OnProblem func(what string)
}

// Client is safe for concurrent use.
type Client struct {
	server string // as given
	base   string // of URLs
	token  string
	agent  string
	http   *http.Client

	onProblem func(string)
}

// New makes a client of server: unix:PATH, http://HOST:PORT or https://HOST:PORT; "" = DefaultServer. It does not connect yet.
func New(server string, o Options) (*Client, error) {
	if server == "" {
		server = DefaultServer
	}
	if o.UserAgent == "" {
		o.UserAgent = "tapwall"
	}
	c := &Client{server: server, agent: o.UserAgent, onProblem: o.OnProblem}
	if c.onProblem == nil {
		c.onProblem = func(string) {}
	}
	t := &http.Transport{MaxIdleConnsPerHost: 8, IdleConnTimeout: 30 * time.Second, TLSHandshakeTimeout: 10 * time.Second}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	if path, ok := socketPath(server); ok {
		if path == "" {
			return nil, fmt.Errorf("client: the server %q has no path", server)
		}
		c.base = "http://tapwall"
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) }
	} else {
		u, err := url.Parse(server)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil {
			return nil, fmt.Errorf("client: the server %q is neither unix:PATH nor http(s)://HOST:PORT", server)
		}
		if u.Scheme == "http" && o.Token != "" && !loopback(u.Hostname()) {
			return nil, fmt.Errorf("client: a token is not sent over http beyond loopback; use https://%s", u.Host)
		}
		c.base, c.token = u.Scheme+"://"+u.Host, o.Token
		t.DialContext, t.Proxy = dialer.DialContext, http.ProxyFromEnvironment
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.ServerName}
		t.ForceAttemptHTTP2 = true
		if o.CAFile != "" {
			var err error
			if t.TLSClientConfig.RootCAs, err = pki.Roots(o.CAFile); err != nil {
				return nil, fmt.Errorf("client: CA: %w", err)
			}
		}
	}
	c.http = &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

// socketPath takes unix:PATH and unix://PATH.
func socketPath(server string) (string, bool) {
	path, ok := strings.CutPrefix(server, "unix:")
	return strings.TrimPrefix(path, "//"), ok
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Close gives idle connections back.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// ConnectError is a request that got no answer.
type ConnectError struct {
	Server string
	// Hint says what to look at; may be "".
	Hint string
	Err  error
}

// Error implements error.
func (e *ConnectError) Error() string {
	s := fmt.Sprintf("cannot reach tapwall at %s: %v", e.Server, e.Err)
	if e.Hint != "" {
		s += "\n" + e.Hint
	}
	return s
}

// Unwrap gives errors.Is the cause.
func (e *ConnectError) Unwrap() error { return e.Err }

// explain adds what to look at to an error of the connection. The end of the caller's context stays what it is.
func (c *Client) explain(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // without the URL, whose host is made up for unix sockets
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e := &ConnectError{Server: c.server, Err: err}
	path, unix := socketPath(c.server)
	var unknown x509.UnknownAuthorityError
	switch {
	case unix && errors.Is(err, fs.ErrNotExist):
		e.Hint = "The socket does not exist: is tapwall serve running, and listening there? (--server, TAPWALL_SERVER)"
	case unix && errors.Is(err, syscall.ECONNREFUSED):
		e.Hint = "Nobody listens on the socket: tapwall serve has ended; start it again."
	case unix && errors.Is(err, fs.ErrPermission):
		e.Hint = "Your user may not open the socket: run as root, or as a member of " + socketGroup(path) + "."
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Hint = "Nobody listens there: is tapwall serve running with --listen tcp:HOST:PORT?"
	case errors.As(err, &unknown):
		e.Hint = "The certificate is not signed by a known authority: give the one that signed it (--ca-file)."
	}
	return e
}

// request is one call.
type request struct {
	method, path string
	query        url.Values
	header       http.Header
	body         []byte
	contentType  string
}

// send sends a request. The caller closes the body of the answer, which is a success; all else is an error.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(r.body))
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	req.Header.Set("User-Agent", c.agent)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, c.problem(resp)
}

// Bounds of answers that are not streamed.
const (
	maxProblem = 16 << 20
	maxAnswer  = 256 << 20
)

func (c *Client) problem(resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil {
		return c.explain(err)
	}
	p := new(Problem)
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") && json.Unmarshal(text, p) == nil && p.Status != 0 {
		return p
	}
	return fmt.Errorf("%s answers %s, but not as tapwall does; is it tapwall?", c.server, resp.Status)
}

// call sends a request and decodes the answer into out; nil = there is none, or it does not matter.
func (c *Client) call(ctx context.Context, r request, out any) error {
	resp, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil || resp.StatusCode == http.StatusNoContent {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("the answer of %s cannot be read: %w", c.server, err)
	}
	return nil
}
