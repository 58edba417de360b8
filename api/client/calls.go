package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/policy"
)

// WriteOptions of the calls that change something.
type WriteOptions struct {
	DryRun bool
	// Wait is how long to wait until the change is installed on every connected host; 0 = do not wait. An error then matches
	// ErrNotInstalled, and the change stays.
	Wait time.Duration
	// Effective waits, within the same time, until no decision is left that a switch cached before the change. An error then matches
	// ErrNotInstalled as well.
	Effective bool
	// Revision, if not 0, is the one that the resource must have.
	Revision int64
	// Prune, for Apply: delete resources with this label (key=value) that are not among the documents.
	Prune string
	// ConfirmWithin, for Apply: undo everything after so long unless it is confirmed; 0 = it stays.
	ConfirmWithin time.Duration
}

func (o WriteOptions) query() url.Values {
	q := url.Values{}
	if o.DryRun {
		q.Set("dryRun", "true")
	}
	if o.Wait > 0 {
		q.Set("wait", "installed")
		if o.Effective {
			q.Set("wait", "effective")
		}
		q.Set("timeout", o.Wait.String())
	}
	if o.Prune != "" {
		q.Set("prune", o.Prune)
	}
	if o.ConfirmWithin != 0 {
		q.Set("confirmWithin", o.ConfirmWithin.String())
	}
	return q
}

func (o WriteOptions) header() http.Header {
	if o.Revision == 0 {
		return nil
	}
	return http.Header{"If-Match": {strconv.Quote(strconv.FormatInt(o.Revision, 10))}}
}

func path(kind policy.Kind, name string) string {
	p := "/v1/" + kind.Plural()
	if name != "" {
		p += "/" + url.PathEscape(name)
	}
	return p
}

// Get returns one resource; ErrNotFound.
func (c *Client) Get(ctx context.Context, kind policy.Kind, name string) (*Document, error) {
	var d Document
	return &d, c.call(ctx, request{method: "GET", path: path(kind, name)}, &d)
}

// List returns all resources of a kind that carry the labels (key=value or key), by name.
func (c *Client) List(ctx context.Context, kind policy.Kind, labels []string) ([]Document, error) {
	return pages[Document](ctx, c, path(kind, ""), url.Values{"label": labels, "limit": {"1000"}})
}

func pages[T any](ctx context.Context, c *Client, path string, q url.Values) ([]T, error) {
	out := []T{}
	for {
		var page struct {
			Items []T    `json:"items"`
			Next  string `json:"next"`

			Problems []string `json:"problems"`
		}
		if err := c.call(ctx, request{method: "GET", path: path, query: q}, &page); err != nil {
			return nil, err
		}
		out = append(out, page.Items...)
		for _, what := range page.Problems {
			c.onProblem(what)
		}
		if page.Next == "" {
			return out, nil
		}
		q.Set("next", page.Next)
	}
}

// Put writes a resource, given as JSON document. When the wait was too long, the resource is returned with the error.
func (c *Client) Put(ctx context.Context, kind policy.Kind, name string, document []byte, o WriteOptions) (*Document, error) {
	return c.write(ctx, request{method: "PUT", path: path(kind, name), query: o.query(), header: o.header(), body: document,
		contentType: "application/json"})
}

// Patch changes a resource by a merge patch (RFC 7386). When the wait was too long, the resource is returned with the error.
func (c *Client) Patch(ctx context.Context, kind policy.Kind, name string, patch []byte, o WriteOptions) (*Document, error) {
	return c.write(ctx, request{method: "PATCH", path: path(kind, name), query: o.query(), header: o.header(), body: patch,
		contentType: "application/merge-patch+json"})
}

// StartMirror starts a mirror that is not enabled, has ended by itself or waits for its time; ErrNotFound. When the wait was too long, the
// mirror is returned with the error.
func (c *Client) StartMirror(ctx context.Context, name string, o WriteOptions) (*Document, error) {
	return c.write(ctx, request{method: "POST", path: path(policy.KindMirror, name) + "/start", query: o.query(), header: o.header()})
}

func (c *Client) write(ctx context.Context, r request) (*Document, error) {
	var d Document
	err := c.call(ctx, r, &d)
	if err == nil {
		return &d, nil
	}
	var p *Problem
	if errors.As(err, &p) && p.Status == http.StatusGatewayTimeout {
		return p.Resource, err
	}
	return nil, err
}

// EditMembers adds and removes members of a group; ErrNotFound. When the wait was too long, the answer is returned with the error, without
// its counts.
func (c *Client) EditMembers(ctx context.Context, group string, e policy.MemberEdit, o WriteOptions) (*Members, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	var m Members
	err = c.call(ctx, request{method: "POST", path: path(policy.KindGroup, group) + "/members", query: o.query(), header: o.header(),
		body: body, contentType: "application/json"}, &m)
	if err == nil {
		return &m, nil
	}
	var p *Problem
	if errors.As(err, &p) && p.Status == http.StatusGatewayTimeout && p.Resource != nil {
		d := p.Resource
		return &Members{Kind: d.Kind, Meta: d.Meta, Status: d.Status}, err
	}
	return nil, err
}

// Delete deletes a resource; ErrNotFound.
func (c *Client) Delete(ctx context.Context, kind policy.Kind, name string, o WriteOptions) error {
	return c.call(ctx, request{method: "DELETE", path: path(kind, name), query: o.query(), header: o.header()}, nil)
}

// Apply writes a set of YAML (or JSON) documents, all or none. When the wait was too long, the result is returned with the error.
func (c *Client) Apply(ctx context.Context, documents []byte, o WriteOptions) (*ApplyResult, error) {
	var r ApplyResult
	err := c.call(ctx, request{method: "POST", path: "/v1/apply", query: o.query(), body: documents, contentType: "application/yaml"}, &r)
	var p *Problem
	if errors.As(err, &p) && p.Result != nil {
		return p.Result, err
	}
	return &r, err
}

// Confirmations returns what is undone unless it is confirmed, the next first.
func (c *Client) Confirmations(ctx context.Context) ([]Confirmation, error) {
	return pages[Confirmation](ctx, c, "/v1/confirmations", url.Values{})
}

// Confirm keeps what was applied; ErrNotFound.
func (c *Client) Confirm(ctx context.Context, id string) (*Confirmation, error) {
	var x Confirmation
	return &x, c.call(ctx, request{method: "POST", path: "/v1/confirmations/" + url.PathEscape(id)}, &x)
}

// Undo undoes what was applied; ErrNotFound.
func (c *Client) Undo(ctx context.Context, id string) (*Undone, error) {
	var u Undone
	return &u, c.call(ctx, request{method: "DELETE", path: "/v1/confirmations/" + url.PathEscape(id)}, &u)
}

// OpenAPI returns the server's description of itself.
func (c *Client) OpenAPI(ctx context.Context) (json.RawMessage, error) {
	var text json.RawMessage
	err := c.call(ctx, request{method: "GET", path: "/openapi.json"}, &text)
	return text, err
}

// Status returns the health of the server.
func (c *Client) Status(ctx context.Context) (*System, error) {
	var s System
	return &s, c.call(ctx, request{method: "GET", path: "/v1/status"}, &s)
}

// Ready returns nil while everything desired is in force on every managed bridge.
func (c *Client) Ready(ctx context.Context) error {
	return c.call(ctx, request{method: "GET", path: "/readyz"}, nil)
}

// Hosts returns what is known of each Open vSwitch.
func (c *Client) Hosts(ctx context.Context) ([]Host, error) {
	return pages[Host](ctx, c, "/v1/hosts", url.Values{})
}

// Workloads returns the workloads that carry the labels.
func (c *Client) Workloads(ctx context.Context, labels []string) ([]Workload, error) {
	return pages[Workload](ctx, c, "/v1/workloads", url.Values{"label": labels})
}

// ClassQuery narrows Classes; zero fields match everything. Endpoint is the key of a workload.
type ClassQuery struct{ Bridge, Endpoint, Policy string }

// Lint returns what is wrong with rules; with unused, if it is not nil, also those that nothing has used for so long, 0 = ever.
func (c *Client) Lint(ctx context.Context, unused *time.Duration) ([]Finding, error) {
	v := url.Values{}
	if unused != nil {
		v.Set("unusedFor", unused.Truncate(time.Second).String())
	}
	return pages[Finding](ctx, c, "/v1/lint", v)
}

// Classes returns the classes of endpoints, up to 10,000.
func (c *Client) Classes(ctx context.Context, q ClassQuery) ([]Class, error) {
	v := url.Values{"limit": {"10000"}}
	for name, value := range map[string]string{"bridge": q.Bridge, "endpoint": q.Endpoint, "policy": q.Policy} {
		if value != "" {
			v.Set(name, value)
		}
	}
	return pages[Class](ctx, c, "/v1/classes", v)
}

// FlowQuery narrows Flows; zero fields match everything. Table -1 means all tables.
type FlowQuery struct {
	Bridge, Owner, Match string
	Table                int
}

// Flows reads flows back from the switches.
func (c *Client) Flows(ctx context.Context, q FlowQuery) ([]Flow, error) {
	v := url.Values{"limit": {"100000"}, "table": {strconv.Itoa(q.Table)}}
	for name, value := range map[string]string{"bridge": q.Bridge, "owner": q.Owner, "match": q.Match} {
		if value != "" {
			v.Set(name, value)
		}
	}
	return pages[Flow](ctx, c, "/v1/flows", v)
}

// ConnectionQuery chooses connections; zero fields match everything.
type ConnectionQuery struct {
	event.Filter          // bridge, policy, rule, protocol, addresses, ports and names of endpoints; nothing else of it is asked
	Host         string   // id
	VLAN         []int    // 0 = untagged
	State        []string // of the protocol
	// Force asks also for what delays the switch for more than 20 ms.
	Force bool
	Limit int // of what is listed; 0 = the server's
}

func (q ConnectionQuery) values() url.Values {
	f := q.Filter
	f.Limit = 0
	v := f.Values()
	for _, vlan := range q.VLAN {
		v.Add("vlan", strconv.Itoa(vlan))
	}
	for _, state := range q.State {
		v.Add("state", state)
	}
	if q.Host != "" {
		v.Set("host", q.Host)
	}
	if q.Force {
		v.Set("force", "true")
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

// Connections lists what the switches track.
func (c *Client) Connections(ctx context.Context, q ConnectionQuery) (*Connections, error) {
	var out Connections
	return &out, c.call(ctx, request{method: "GET", path: "/v1/connections", query: q.values()}, &out)
}

// KillConnections has the switches forget connections, or says which those would be. With all, it is those that q leaves out none of.
func (c *Client) KillConnections(ctx context.Context, q ConnectionQuery, all, dryRun bool) (*Killed, error) {
	v := q.values()
	if all {
		v.Set("all", "true")
	}
	if dryRun {
		v.Set("dryRun", "true")
	}
	var out Killed
	return &out, c.call(ctx, request{method: "DELETE", path: "/v1/connections", query: v}, &out)
}

// ExplainConnection says what the numbers in a conntrack entry, or in a ct_label alone, stand for, on each bridge that it may be of. host
// and bridge narrow that; "" = any.
func (c *Client) ExplainConnection(ctx context.Context, entry, label, host, bridge string) ([]Explanation, error) {
	v := url.Values{}
	for name, value := range map[string]string{"entry": entry, "label": label, "host": host, "bridge": bridge} {
		if value != "" {
			v.Set(name, value)
		}
	}
	return pages[Explanation](ctx, c, "/v1/connections/explain", v)
}

// TraceQuery asks what would happen to a packet. Empty fields leave the choice to the server, as do Type and VLAN below 0.
type TraceQuery struct {
	From, To, Protocol, Port, FromPort string
	Type, Code, Family, VLAN           int
	FromIP, ToIP, Host, Bridge         string
	NoProbe                            bool
}

// Trace says what would happen to a packet, and why.
func (c *Client) Trace(ctx context.Context, q TraceQuery) (*Trace, error) {
	v := url.Values{}
	for name, value := range map[string]string{"from": q.From, "to": q.To, "protocol": q.Protocol, "port": q.Port, "from-port": q.FromPort,
		"from-ip": q.FromIP, "to-ip": q.ToIP, "host": q.Host, "bridge": q.Bridge} {
		if value != "" {
			v.Set(name, value)
		}
	}
	for name, n := range map[string]int{"type": q.Type, "vlan": q.VLAN} {
		if n >= 0 {
			v.Set(name, strconv.Itoa(n))
		}
	}
	for name, n := range map[string]int{"code": q.Code, "family": q.Family} {
		if n != 0 {
			v.Set(name, strconv.Itoa(n))
		}
	}
	if q.NoProbe {
		v.Set("probe", "false")
	}
	var out Trace
	return &out, c.call(ctx, request{method: "GET", path: "/v1/trace", query: v}, &out)
}

// Events returns one page of the record, and each event as the server wrote it.
func (c *Client) Events(ctx context.Context, f event.Filter) (*event.Page, []json.RawMessage, error) {
	var raw struct {
		event.Page
		Items []json.RawMessage `json:"items"`
	}
	if err := c.call(ctx, request{method: "GET", path: "/v1/events", query: f.Values()}, &raw); err != nil {
		return nil, nil, err
	}
	page := raw.Page
	for _, text := range raw.Items {
		e := new(event.Event)
		if err := json.Unmarshal(text, e); err != nil {
			return nil, nil, fmt.Errorf("event of %s: %w", c.server, err)
		}
		page.Items = append(page.Items, e)
	}
	return &page, raw.Items, nil
}

// Aggregate counts the events that f chooses by what they have in common; zero = the server's.
func (c *Client) Aggregate(ctx context.Context, f event.Filter, by []string, window time.Duration, top int) (*event.Summary, error) {
	q := f.Values()
	for _, of := range []string{"limit", "first"} {
		q.Del(of)
	}
	q["by"] = by
	if window > 0 {
		q.Set("window", window.String())
	}
	if top > 0 {
		q.Set("top", strconv.Itoa(top))
	}
	var out event.Summary
	return &out, c.call(ctx, request{method: "GET", path: "/v1/events/aggregate", query: q}, &out)
}

// errEnded says that the server closed a stream.
var errEnded = errors.New("the server ended the stream")

// Bounds of the time before a stream that broke is taken up again.
const firstRetry, lastRetry = 250 * time.Millisecond, 5 * time.Second

// Follow calls visit with every new event that matches f, after the event with id after ("" = from now), until ctx ends (then nil) or
// visit returns an error. raw is the document as the server wrote it. A stream that ends or breaks is taken up again where it broke, also
// over a restart of the server; broke is told why, and with nil that it goes on. A refusal, such as of a filter, is an error at once, and
// so is a server that cannot be reached to begin with.
func (c *Client) Follow(ctx context.Context, f event.Filter, after string, visit func(e *event.Event, raw []byte) error,
	broke func(error)) error {
	q := f.Values()
	for _, of := range []string{"limit", "first", "until", "since"} {
		q.Del(of)
	}
	connected, wait := false, firstRetry
	up := func() {
		if connected && wait != firstRetry {
			broke(nil)
		}
		connected, wait = true, firstRetry
	}
	for {
		err := c.followOnce(ctx, q, &after, up, visit)
		var stopped *visitError
		var refused *Problem
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &stopped):
			return stopped.error
		case !connected, errors.As(err, &refused) && refused.Status < http.StatusInternalServerError:
			return err
		}
		if wait == firstRetry {
			broke(err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		wait = min(2*wait, lastRetry)
	}
}

// visitError is what a visitor returned.
type visitError struct{ error }

// followOnce reads one stream and moves after along. It calls up once it is connected.
func (c *Client) followOnce(ctx context.Context, q url.Values, after *string, up func(), visit func(*event.Event, []byte) error) error {
	h := http.Header{"Accept": {"application/x-ndjson"}}
	if *after != "" {
		h.Set("Last-Event-ID", *after)
	}
	resp, err := c.send(ctx, request{method: "GET", path: "/v1/events/stream", query: q, header: h})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	up()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue // a sign of life
		}
		var e event.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("event stream of %s: %w", c.server, err)
		}
		if err := visit(&e, line); err != nil {
			return &visitError{err}
		}
		*after = e.Event.ID
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("event stream of %s: %w", c.server, err)
	}
	return fmt.Errorf("%s: %w", c.server, errEnded)
}
