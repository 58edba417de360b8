package client_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tapwall/tapwall/api"
	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/store"
	"github.com/tapwall/tapwall/policy"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

// engine is an api.Engine that has everything installed.
type engine struct {
	slow bool
	told func(problem string)
}

func (e engine) Status(policy.Kind, string) policy.Status {
	return policy.Status{Phase: policy.PhaseActive}
}

func (e engine) Wait(ctx context.Context, k policy.Kind, name string, _ int64) (policy.Status, error) {
	if e.slow {
		<-ctx.Done()
		return e.Status(k, name), ctx.Err()
	}
	return e.Status(k, name), nil
}
func (engine) Start(context.Context, *policy.Mirror, policy.Writer) error            { return nil }
func (engine) Effective(context.Context) error                                       { return nil }
func (engine) Warnings([]backend.Change) []policy.Warning                            { return nil }
func (engine) Consequences([]backend.Change, []policy.Resource) []policy.Consequence { return nil }
func (engine) Admit([]backend.Change) error                                          { return nil }
func (engine) Refresh(context.Context, policy.Kind)                                  {}
func (engine) Plan(context.Context, []backend.Change) (api.Plan, error) {
	return api.Plan{Bridges: []api.BridgePlan{{Host: "h1", Bridge: "br0", AddFlows: []string{"table=206"}}}}, nil
}
func (engine) Hosts() []api.Host {
	return []api.Host{{ID: "h1", Connected: true, Bridges: []api.HostBridge{{Name: "br0", Mode: "owned",
		Ports: []api.HostPort{{Name: "tap1"}}}}}}
}
func (engine) Learned(*policy.Workload) []policy.LearnedAddress { return nil }

func (engine) Workloads() []*policy.Workload {
	return []*policy.Workload{{Key: "br0/tap1", Bridge: "br0", Labels: map[string]string{"app": "web"},
		LabelFrom: map[string]string{"app": "ovsdb"}}}
}
func (engine) Unknown() []string { return []string{"host west: it has not been reached yet"} }
func (engine) Classes(q backend.ClassQuery) []api.Class {
	return []api.Class{{Bridge: q.Bridge, Number: 16}}
}

func (engine) Captures(string) []api.Capture { return nil }

func (engine) Packets(backend.CaptureQuery) (backend.WritePackets, error) {
	return nil, backend.ErrNotFound
}

func (engine) CaptureFile(string, string, string) (backend.CaptureFile, error) {
	return nil, backend.ErrNotFound
}

func (engine) Flows(_ context.Context, q backend.FlowQuery) ([]api.FlowEntry, error) {
	return []api.FlowEntry{{Bridge: q.Bridge, State: "installed", Text: "table=0"}}, nil
}
func (engine) Connections(_ context.Context, q backend.ConnectionQuery) (api.Connections, error) {
	return api.Connections{Items: []client.Connection{{Bridge: q.Filter.Bridge[0], State: q.State[0], Zone: q.VLAN[0], Host: q.Host}},
		Matched: 2, Problems: []string{fmt.Sprint(q.Endpoint, q.From, q.To, q.Filter.Port, q.Force, q.Limit)}}, nil
}
func (e engine) KillConnections(ctx context.Context, q backend.ConnectionQuery, dryRun bool) (api.Killed, error) {
	return api.Killed{DryRun: dryRun, Killed: 1}, nil
}
func (engine) Trace(_ context.Context, q backend.TraceQuestion) (api.Trace, error) {
	return api.Trace{Verdict: "deny", Problems: []string{fmt.Sprintf("%s %s %d %d %d %d %v", q.From, q.To, q.Proto, q.DstPort, q.Type,
		q.Family,
		q.Probe)}}, nil
}

func (engine) Explain(q backend.ConnectionQuestion) ([]api.Explanation, error) {
	return []api.Explanation{{Connection: client.Connection{Bridge: q.Bridge, Host: q.Host, Label: q.Label, State: q.Entry}}}, nil
}
func (engine) System() api.SystemStatus { return api.SystemStatus{Version: "v1", Healthy: true} }
func (engine) Ready() error             { return errors.New("bridge br0 is not in sync") }

// record gives the same two events to everybody, then ends.
type record struct{}

func (record) Query(context.Context, event.Filter) (event.Page, error) {
	return event.Page{Items: events()}, nil
}

func (record) Each(_ context.Context, _ event.Filter, visit func(*event.Event)) ([]event.Coverage, error) {
	for _, e := range events() {
		visit(e)
	}
	return nil, nil
}

func (record) Subscribe(_ context.Context, _ event.Filter, after string) (<-chan *event.Event, error) {
	ch := make(chan *event.Event, 2)
	for _, e := range events() {
		if e.Event.ID > after {
			ch <- e
		}
	}
	close(ch)
	return ch, nil
}

func events() []*event.Event {
	return []*event.Event{{Event: event.Meta{ID: "e1"}}, {Event: event.Meta{ID: "e2"}}}
}

// start serves a real store on a unix socket.
func start(t testing.TB, e engine) *client.Client {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := api.NewServer(api.Options{Store: s, Engine: e, Events: record{}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := api.Listen("unix:"+filepath.Join(t.TempDir(), "t.sock"), api.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- api.Serve(ctx, nil, srv, l) }()
	c, err := client.New(l.Address, client.Options{OnProblem: e.told})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

const group = `{"spec":{"members":[{"cidr":"10.0.0.0/8"}]}}`

func TestCalls(t *testing.T) {
	var problems []string
	c := start(t, engine{told: func(what string) { problems = append(problems, what) }})
	ctx := t.Context()
	d, err := c.Put(ctx, policy.KindGroup, "g", []byte(group), client.WriteOptions{Wait: time.Second})
	if err != nil || d.Name != "g" || d.Revision == 0 || d.Status.Phase != policy.PhaseActive || !strings.Contains(string(d.Spec),
		"10.0.0.0/8") {
		t.Fatalf("put: %+v, %v", d, err)
	}
	if _, err := c.Put(ctx, policy.KindGroup, "g", []byte(group), client.WriteOptions{Revision: d.Revision + 1}); !errors.Is(err,
		client.ErrConflict) {
		t.Errorf("stale: %v", err)
	}
	if d, err = c.Patch(ctx, policy.KindGroup, "g", []byte(`{"labels":{"a":"b"}}`), client.WriteOptions{Revision: d.Revision}); err != nil ||
		d.Labels["a"] != "b" {
		t.Errorf("patch: %+v, %v", d, err)
	}
	var p *client.Problem
	_, err = c.Put(ctx, policy.KindGroup, "g", []byte(`{"spec":{"members":[{"cidr":"10.0.0.0/33"},{"vlan":5000}]}}`), client.WriteOptions{})
	if !errors.As(err, &p) || !errors.Is(err, client.ErrInvalid) || len(p.Errors) != 2 || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("invalid: %v", err)
	}
	r, err := c.Apply(ctx, []byte("kind: Group\nname: h\nlabels: {a: b}\nspec: {members: [{vlan: 5}]}\n"), client.WriteOptions{DryRun: true,
		Prune: "a=b"})
	if err != nil || len(r.Created) != 1 || len(r.Deleted) != 1 || r.Plan == nil {
		t.Errorf("apply: %+v, %v", r, err)
	}
	if all, err := c.List(ctx, policy.KindGroup, []string{"a=b"}); err != nil || len(all) != 1 {
		t.Errorf("list: %v, %v", all, err)
	}
	if err := c.Delete(ctx, policy.KindGroup, "g", client.WriteOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := c.Get(ctx, policy.KindGroup, "g"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("get: %v", err)
	}
	if hosts, err := c.Hosts(ctx); err != nil || len(hosts) != 1 || hosts[0].Bridges[0].Ports[0].Name != "tap1" {
		t.Errorf("hosts: %+v, %v", hosts, err)
	}
	if w, err := c.Workloads(ctx, []string{"app=web"}); err != nil || len(w) != 1 || w[0].Labels["app"].From != "ovsdb" {
		t.Errorf("workloads: %+v, %v", w, err)
	}
	if len(problems) != 2 || problems[0] != "host west: it has not been reached yet" { // of both lists
		t.Errorf("problems: %q", problems)
	}
	q := client.ConnectionQuery{Filter: event.Filter{Bridge: []string{"br0"}, Endpoint: []string{"a"}, FromName: []string{"b"},
		ToName: []string{"c"}, Port: []string{"5"}, Limit: 9}, State: []string{"S"}, VLAN: []int{7}, Host: "h1", Force: true, Limit: 3}
	if x, err := c.Connections(ctx, q); err != nil || x.Matched != 2 || len(x.Items) != 1 ||
		x.Items[0] != (client.Connection{Bridge: "br0", State: "S", Zone: 7, Host: "h1"}) || x.Problems[0] != "[a] [b] [c] [5] true 3" {
		t.Errorf("%+v, %v", x, err)
	}
	if k, err := c.KillConnections(ctx, q, false, true); err != nil || !k.DryRun || k.Killed != 1 {
		t.Errorf("%+v, %v", k, err)
	}
	if k, err := c.KillConnections(ctx, client.ConnectionQuery{}, true, false); err != nil || k.DryRun || k.Killed != 1 {
		t.Errorf("%+v, %v", k, err)
	}
	if _, err := c.KillConnections(ctx, client.ConnectionQuery{}, false, false); err == nil {
		t.Error("a kill of nothing in particular")
	}
	if x, err := c.ExplainConnection(ctx, "", "0x1", "h1", "br0"); err != nil || len(x) != 1 ||
		x[0].Connection != (client.Connection{Bridge: "br0", Host: "h1", Label: "0x1"}) {
		t.Errorf("%+v, %v", x, err)
	}
	if x, err := c.Trace(ctx, client.TraceQuery{From: "a", To: "b", Protocol: "icmpv6", Type: 135, VLAN: -1, Family: 6,
		NoProbe: true}); err != nil ||
		x.Verdict != "deny" || x.Problems[0] != "a b 58 0 135 6 false" {
		t.Errorf("%+v, %v", x, err)
	}
	if f, err := c.Flows(ctx, client.FlowQuery{Bridge: "br0", Table: -1}); err != nil || len(f) != 1 || f[0].Bridge != "br0" {
		t.Errorf("flows: %+v, %v", f, err)
	}
	if s, err := c.Status(ctx); err != nil || !s.Healthy {
		t.Errorf("status: %+v, %v", s, err)
	}
	if err := c.Ready(ctx); err == nil || !strings.Contains(err.Error(), "bridge br0 is not in sync") {
		t.Errorf("ready: %v", err)
	}
	if page, raw, err := c.Events(ctx, event.Filter{Limit: 5}); err != nil || len(page.Items) != 2 || len(raw) != 2 {
		t.Errorf("events: %+v, %v", page, err)
	}
	if s, err := c.Aggregate(ctx, event.Filter{}, []string{"src", "dst"}, time.Minute, 7); err != nil ||
		s.Total.Events != 2 || len(s.By) != 2 {
		t.Errorf("aggregate: %+v, %v", s, err)
	}
	var got []string
	enough := errors.New("enough")
	err = c.Follow(ctx, event.Filter{}, "e1", func(e *event.Event, _ []byte) error { got = append(got, e.Event.ID); return enough },
		func(err error) { t.Errorf("it broke: %v", err) })
	if !errors.Is(err, enough) || len(got) != 1 || got[0] != "e2" {
		t.Errorf("follow: %v, %v", got, err)
	}
}

// TestNotInstalled waits in vain; the change is there.
func TestNotInstalled(t *testing.T) {
	c := start(t, engine{slow: true})
	_, err := c.Put(t.Context(), policy.KindGroup, "g", []byte(group), client.WriteOptions{Wait: 20 * time.Millisecond})
	var p *client.Problem
	if !errors.Is(err, client.ErrNotInstalled) || !errors.As(err, &p) || p.Resource == nil || p.Resource.Name != "g" {
		t.Errorf("%v", err)
	}
	if _, err := c.Get(t.Context(), policy.KindGroup, "g"); err != nil {
		t.Error(err)
	}
}

func TestConnectErrors(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	for _, tt := range []struct {
		name, server, want string
		is                 error
	}{
		{"no socket", "unix:" + dir + "/none.sock", "is tapwall serve running", fs.ErrNotExist},
		{"dead socket", "unix:" + dead, "tapwall serve has ended", nil},
		{"nobody there", "http://127.0.0.1:1", "is tapwall serve running with --listen tcp", nil},
		{"not tapwall", other.URL, "is it tapwall?", nil},
		{"unknown authority", secure.URL, "give the one that signed it (--ca-file)", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := client.New(tt.server, client.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, err = c.Status(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestNewBad(t *testing.T) {
	for server, o := range map[string]client.Options{
		"unix:":                 {},
		"br0":                   {},
		"ftp://x":               {},
		"https://user:pw@x":     {},
		"https://x/v1":          {},
		"http://192.0.2.1:80":   {Token: "t"},
		"https://192.0.2.1:80/": {CAFile: "/does/not/exist"},
		"https://192.0.2.1:81":  {CAFile: os.Args[0]},
	} {
		if _, err := client.New(server, o); err == nil {
			t.Errorf("%s %+v: no error", server, o)
		}
	}
}

// BenchmarkPut is one PUT of a policy over the unix socket, with 1,000 policies present, into the real store.
func BenchmarkPut(b *testing.B) {
	c := start(b, engine{})
	var docs strings.Builder
	for i := range 1000 {
		docs.WriteString("---\n" + strings.Replace(strings.Replace(policyYAML, "NAME", "p"+strconv.Itoa(i), 1), "PORT", "80", 1))
	}
	if _, err := c.Apply(b.Context(), []byte(docs.String()), client.WriteOptions{}); err != nil {
		b.Fatal(err)
	}
	body := `{"spec":{"appliesTo":[{"labels":{"app":"web"}}],"ingress":[{"name":"a","action":"allow","services":[{"protocol":"tcp",` +
		`"ports":["PORT"]}]}]}}`
	for i := 0; b.Loop(); i++ {
		if _, err := c.Put(b.Context(), policy.KindPolicy, "p5", []byte(strings.Replace(body, "PORT", strconv.Itoa(1+i%60000), 1)),
			client.WriteOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

const policyYAML = `kind: Policy
name: NAME
spec:
  appliesTo: [{labels: {app: web}}]
  ingress:
  - {name: a, action: allow, services: [{protocol: tcp, ports: ["PORT"]}]}
`
