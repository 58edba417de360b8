package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/fleet"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/internal/learn"
	"github.com/tapwall/tapwall/internal/logtest"
	"github.com/tapwall/tapwall/internal/store"
	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/oftest"
	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if n := flag.Lookup("test.parallel"); n.Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) {
		_ = n.Value.Set("6") // they wait for switches and clocks more than they work
	}
	goleak.VerifyTestMain(m,
		// started by the import of a package that etcd's server imports, for the life of the process
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

// window is the pickup window of most tests: over before it is in the way.
const window = 50 * time.Millisecond

// machine is a private Open vSwitch with a store, both of which outlive engines.
type machine struct {
	t   *testing.T
	ovs *oftest.OVS
	st  *store.Store
}

// vm is a port that the orchestrator marked as an endpoint.
type vm struct {
	name string
	mac  string // "" = one of its own
	none bool   // no MAC is known
	set  []string
}

// newMachine starts the switch and the store with the named bridges on the userspace datapath.
func newMachine(t *testing.T, bridges ...string) *machine {
	t.Helper()
	h := &machine{t: t}
	done := make(chan error, 1)
	dir := t.TempDir()
	go func() {
		var err error
		h.st, err = store.Open(context.Background(), store.Options{DataDir: dir, ReserveBytes: -1})
		done <- err
	}()
	t.Cleanup(func() {
		if h.st != nil {
			if err := h.st.Close(); err != nil {
				t.Errorf("close the store: %v", err)
			}
		}
	})
	h.ovs = oftest.StartOVS(t, oftest.OVSOptions{})
	for _, b := range bridges {
		h.ovs.AddBridge(b, "netdev")
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return h
}

// plug adds endpoints to a bridge.
func (h *machine) plug(bridge string, vms ...vm) {
	h.t.Helper()
	h.ovs.Vsctl(plugs(bridge, vms...)...)
}

// plugs are the arguments of ovs-vsctl for plug.
func plugs(bridge string, vms ...vm) []string {
	var args []string
	for _, v := range vms {
		mac := v.mac
		if mac == "" {
			mac = macOf(v.name)
		}
		args = append(args, "--", "add-port", bridge, v.name, "--", "set", "Interface", v.name, "type=dummy", "external_ids:iface-id="+v.name)
		if !v.none {
			args = append(args, "external_ids:attached-mac=\""+mac+"\"")
		}
		args = append(args, v.set...)
	}
	return args[1:]
}

// vms names plain endpoints.
func vms(names ...string) []vm {
	out := make([]vm, len(names))
	for i, n := range names {
		out[i] = vm{name: n}
	}
	return out
}

func macOf(name string) string {
	var sum uint16
	for _, c := range []byte(name) {
		sum = sum*31 + uint16(c)
	}
	return fmt.Sprintf("52:54:00:00:%02x:%02x", sum>>8, sum&0xff)
}

// run is one engine with what it needs, as one process has it: a fleet of one.
type run struct {
	*fleet.Fleet
	engine *host.Engine
	t      *testing.T
	h      *machine
	db     *ovsdb.Client
	rec    *record.Recorder
	reg    *prometheus.Registry
	logs   *logtest.Buffer
	stop   func() // waits until everything has ended
}

// settings change how start builds an engine.
type settings struct {
	block   uint32              // numbers reserved at a time; default: the engine's
	bridges []host.BridgeConfig // default: br0, owned
	store   fleet.Store         // default: the host's
	window  time.Duration
	grace   time.Duration // Options.SpoofGrace
	// tapCompiler is what makes rows and flows of mirrors; default: the engine's.
	tapCompiler func(tap.Input) tap.Plan
	// hostFile is Options.HostFile.
	hostFile string
	// learning and learnedFile are Options.Learning and LearnedFile.
	learning    *learn.Limits
	learnedFile string
	maxFlows    int // default: the engine's
}

func owned(names ...string) []host.BridgeConfig {
	var out []host.BridgeConfig
	for _, n := range names {
		out = append(out, host.BridgeConfig{Name: n, Mode: host.Owned})
	}
	return out
}

// start runs an engine until stop or the end of the test.
func (h *machine) start(s settings) *run {
	h.t.Helper()
	if s.bridges == nil {
		s.bridges = owned("br0")
	}
	if s.store == nil {
		s.store = h.st
	}
	if s.window == 0 {
		s.window = window
	}
	r := &run{t: h.t, h: h, reg: prometheus.NewPedanticRegistry(), logs: &logtest.Buffer{}}
	log := slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if r.db, err = ovsdb.New(ovsdb.Options{Address: h.ovs.DBAddr(), Logger: log}); err != nil {
		h.t.Fatal(err)
	}
	if r.rec, err = record.NewRecorder(record.Options{Host: "test", RingLen: 1024}); err != nil {
		h.t.Fatal(err)
	}
	r.Fleet, err = fleet.New(fleet.Options{Version: "v0", Store: s.store, Recorder: r.rec, Logger: log, Registry: r.reg,
		Hosts: []host.Options{{
			DB: r.db, Bridges: s.bridges, HostFile: s.hostFile, Learning: s.learning, LearnedFile: s.learnedFile, MaxFlows: s.maxFlows,
			RunDir: h.ovs.RunDir, PickupWindow: s.window,
			SpoofGrace: s.grace, Logger: log}}})
	if err != nil {
		h.t.Fatal(err)
	}
	r.engine = r.Engines()[0]
	if s.tapCompiler != nil {
		r.engine.SetTapCompiler(s.tapCompiler)
	}
	if s.block > 0 {
		r.engine.SetNumberBlock(s.block)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{r.db.Run, r.rec.Run, r.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				h.t.Errorf("run: %v", err)
			}
		})
	}
	var once sync.Once
	r.stop = func() { once.Do(func() { cancel(); wg.Wait() }) }
	h.t.Cleanup(func() {
		r.stop()
		if h.t.Failed() {
			h.t.Logf("the engine's log:\n%s", r.logs.String())
		}
	})
	return r
}

// ready starts an engine and waits until everything is in force and the pickup window is closed.
func (h *machine) ready(s settings) *run {
	h.t.Helper()
	r := h.start(s)
	r.eventually("ready", func() error { return r.Ready() })
	r.settled()
	return r
}

// settled waits until no pickup window is open and everything desired is installed.
func (r *run) settled() {
	r.t.Helper()
	r.eventually("settled", func() error {
		for _, h := range r.System().Hosts {
			for _, b := range h.Bridges {
				if b.Pickup || len(b.Pickups) > 0 || b.Message != "" || b.OpenFlow != "connected" || b.Mode == "owned" && (b.DesiredFlows == 0 ||
					b.InstalledFlows != b.DesiredFlows) {
					return fmt.Errorf("%+v", b)
				}
			}
		}
		return nil
	})
}

// patience is how long anything may take that has to happen.
const patience = 10 * time.Second

func (r *run) eventually(what string, ok func() error) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("not %s after %v: %v", what, patience, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// put writes documents in one transaction and returns the last one's revision.
func (h *machine) put(yaml string) int64 {
	h.t.Helper()
	rev, err := h.tryPut(yaml)
	if err != nil {
		h.t.Fatal(err)
	}
	return rev
}

func (h *machine) tryPut(yaml string) (int64, error) {
	changes, err := parse(yaml)
	if err != nil {
		return 0, err
	}
	out, err := h.st.Commit(context.Background(), changes)
	if err != nil {
		return 0, err
	}
	return out[len(out)-1].GetMeta().Revision, nil
}

func parse(yaml string) ([]backend.Change, error) {
	docs, err := policy.Load(strings.NewReader(yaml))
	if err != nil {
		return nil, err
	}
	var changes []backend.Change
	for _, d := range docs {
		changes = append(changes, backend.Change{Kind: d.Resource.Kind(), Name: d.Resource.GetMeta().Name, Resource: d.Resource})
	}
	return changes, nil
}

func (h *machine) changes(yaml string) []backend.Change {
	h.t.Helper()
	c, err := parse(yaml)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func (h *machine) drop(kind policy.Kind, name string) {
	h.t.Helper()
	if _, err := h.st.Commit(context.Background(), []backend.Change{{Kind: kind, Name: name}}); err != nil {
		h.t.Fatal(err)
	}
}

// wait is Wait with patience.
func (r *run) wait(kind policy.Kind, name string, revision int64) policy.Status {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := r.Wait(ctx, kind, name, revision)
	if err != nil {
		r.t.Fatalf("wait for %s %s at %d: %v; status %+v", kind, name, revision, err, s)
	}
	return s
}

// apply writes one document and waits until it is in force.
func (r *run) apply(yaml string) policy.Status {
	r.t.Helper()
	c := r.h.changes(yaml)
	rev := r.h.put(yaml)
	last := c[len(c)-1]
	return r.wait(last.Kind, last.Name, rev)
}

// remove deletes a resource and waits until it is out of force.
func (r *run) remove(kind policy.Kind, name string) {
	r.t.Helper()
	r.h.drop(kind, name)
	r.wait(kind, name, 0)
}

// flows returns what is installed on a bridge as the engine prints it, sorted.
func (r *run) flows(q backend.FlowQuery) []string {
	r.t.Helper()
	entries, err := r.Flows(context.Background(), q)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if e.State == "installed" && e.Owner != "unsaved" && e.Owner != ofctrl.RenewalOwner { // what comes and goes by itself
			out = append(out, e.Text)
		}
	}
	slices.Sort(out)
	return out
}

// health is what System says of one bridge.
func (r *run) health(bridge string) wire.BridgeHealth {
	r.t.Helper()
	for _, h := range r.System().Hosts {
		for _, b := range h.Bridges {
			if b.Bridge == bridge {
				return b
			}
		}
	}
	return wire.BridgeHealth{}
}

// ids returns the ids of a policy's rules by "direction/name".
func (r *run) ids(name string) map[string]uint32 {
	out := map[string]uint32{}
	for _, h := range r.Status(policy.KindPolicy, name).Hosts {
		for _, rule := range h.Rules {
			out[string(rule.Direction)+"/"+rule.Name] = rule.ID
		}
	}
	return out
}

// local is the number of a bridge's own port.
const local = 0xfffffffe

// kept is what the store keeps of a bridge.
type kept struct {
	index int
	wall.Assignments
}

// saved waits until the store has what it is to keep.
func (r *run) saved() {
	r.t.Helper()
	r.eventually("saved", func() error {
		if n := r.engine.Unsaved(); n > 0 {
			return fmt.Errorf("%d assignments are not", n)
		}
		return nil
	})
}

// kept reads the numbers as a restarted process would.
func (r *run) kept(bridge string) kept {
	r.t.Helper()
	r.saved()
	all, err := r.h.st.ListStates(context.Background(), "test", "bridge/"+bridge+"/")
	if err != nil {
		r.t.Fatal(err)
	}
	k := kept{Assignments: wall.Assignments{Policies: map[string]wall.PolicyAssignment{}, Endpoints: map[string]wall.EndpointAssignment{},
		Retired: map[uint32]wall.Station{}, Classes: map[uint16]wall.ClassAssignment{}, Addresses: map[string]wall.AddressAssignment{},
		AddressNumbers: map[uint16]string{}, ServiceNumbers: map[uint16]string{}}}
	for key, value := range all {
		key = strings.TrimPrefix(key, "bridge/"+bridge+"/")
		kind, name := "", ""
		for _, prefix := range []string{"policy/", "endpoint/", "retired/", "class/", "addresses/", "number/address/", "number/service/"} {
			if rest, ok := strings.CutPrefix(key, prefix); ok {
				kind, name = prefix, rest
			}
		}
		var n uint32
		_, scan := fmt.Sscan(name, &n)
		var err error
		switch kind {
		case "policy/":
			err = taken(value, k.Policies, name)
		case "endpoint/":
			err = taken(value, k.Endpoints, name)
		case "addresses/":
			err = taken(value, k.Addresses, name)
		case "retired/":
			err = errors.Join(scan, taken(value, k.Retired, n))
		case "class/":
			err = errors.Join(scan, taken(value, k.Classes, uint16(n)))
		case "number/address/":
			err = errors.Join(scan, taken(value, k.AddressNumbers, uint16(n)))
		case "number/service/":
			err = errors.Join(scan, taken(value, k.ServiceNumbers, uint16(n)))
		default:
			switch key {
			case "next":
				err = json.Unmarshal(value, &k.Next)
			case "index":
				err = json.Unmarshal(value, &k.index)
			}
		}
		if err != nil {
			r.t.Fatalf("%s: %v", key, err)
		}
	}
	return k
}

func taken[K comparable, V any](value []byte, into map[K]V, key K) error {
	var v V
	err := json.Unmarshal(value, &v)
	into[key] = v
	return err
}

func sortedStrings(s []string) []string { return slices.Sorted(slices.Values(s)) }

// allow is a policy of one ingress rule.
func allow(name, to, from string, ports ...string) string {
	p, _ := json.Marshal(ports)
	return fmt.Sprintf(`
kind: Policy
name: %s
spec:
  appliesTo: [{port: %s}]
  ingress: [{name: in, action: allow, from: [%s], services: [{protocol: tcp, ports: %s}]}]
`, name, to, from, p)
}

// diff is cmp.Diff.
func diff[T any](want, got T) string { return cmp.Diff(want, got) }

// flakyStore fails or delays on demand.
type flakyStore struct {
	fleet.Store
	mu    sync.Mutex
	err   error // of PutStates
	hang  bool  // PutStates comes back when its context ends
	list  error // of ListStates
	delay time.Duration
}

func (s *flakyStore) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// hangPuts makes PutStates hang, as with a cluster that is cut off.
func (s *flakyStore) hangPuts(hang bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hang = hang
}

func (s *flakyStore) PutStates(ctx context.Context, host string, values map[string][]byte) error {
	s.mu.Lock()
	err, hang := s.err, s.hang
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	return s.Store.PutStates(ctx, host, values)
}

func (s *flakyStore) failList(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = err
}

func (s *flakyStore) ListStates(ctx context.Context, host, prefix string) (map[string][]byte, error) {
	s.mu.Lock()
	err := s.list
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return s.Store.ListStates(ctx, host, prefix)
}

func (s *flakyStore) Watch(ctx context.Context, from int64) <-chan backend.Batch {
	in := s.Store.Watch(ctx, from)
	if s.delay == 0 {
		return in
	}
	out := make(chan backend.Batch)
	go func() {
		defer close(out)
		for b := range in {
			select {
			case <-time.After(s.delay):
			case <-ctx.Done():
				return
			}
			select {
			case out <- b:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

var errTest = errors.New("no space on the test's disk")
