package fleet_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/event/record"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/fleet"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/internal/logtest"
	"github.com/tapwall/tapwall/internal/pki"
	"github.com/tapwall/tapwall/internal/pki/pkitest"
	"github.com/tapwall/tapwall/internal/store"
	"github.com/tapwall/tapwall/ofctrl/oftest"
	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
)

// site is a private Open vSwitch with the bridge br0, managed under a name.
type site struct {
	*oftest.OVS
	name    string
	address string // of the database; "" = its socket
	bridge  host.BridgeConfig
	tls     *tls.Config
	// hostFile is host.Options.HostFile.
	hostFile string
}

// newSite has endpoints vm1 and vm2, whose MACs end in n.
func newSite(t *testing.T, name, id string, n int) *site {
	t.Helper()
	s := &site{OVS: oftest.StartOVS(t, oftest.OVSOptions{SystemID: id}), name: name, bridge: host.BridgeConfig{Name: "br0", Mode: host.Owned}}
	s.AddBridge("br0", "netdev")
	for i := 1; i <= 2; i++ {
		s.AddPort("br0", fmt.Sprintf("vm%d", i), 0, fmt.Sprintf("external_ids:iface-id=%s-vm%d", name, i),
			fmt.Sprintf(`external_ids:attached-mac="52:54:00:00:%02x:%02x"`, i, n))
	}
	return s
}

// process is a tapwall that manages sites.
type process struct {
	*fleet.Fleet
	t    *testing.T
	st   *store.Store
	reg  *prometheus.Registry
	logs *logtest.Buffer
	stop func()
}

func newStore(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{DataDir: t.TempDir(), ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	return st
}

func start(t *testing.T, st *store.Store, sites ...*site) *process {
	t.Helper()
	p := &process{t: t, st: st, reg: prometheus.NewPedanticRegistry(), logs: &logtest.Buffer{}}
	log := slog.New(slog.NewTextHandler(p.logs, nil))
	rec, err := record.NewRecorder(record.Options{Host: "here", RingLen: 1024})
	if err != nil {
		t.Fatal(err)
	}
	o := fleet.Options{Version: "v0", Store: st, Recorder: rec, Logger: log, Registry: p.reg}
	ctx, cancel := context.WithCancel(context.Background())
	var tasks []func(context.Context) error
	for _, s := range sites {
		if s.address == "" {
			s.address = s.DBAddr()
		}
		log := log.With("host", s.name)
		options := ovsdb.Options{Address: s.address, Logger: log}
		if options.Lock, err = ovsdb.NewLock(options); err != nil {
			t.Fatal(err)
		}
		db, err := ovsdb.New(options)
		if err != nil {
			t.Fatal(err)
		}
		tasks = append(tasks, options.Lock.Run, db.Run)
		o.Hosts = append(o.Hosts, host.Options{Name: s.name, DB: db, Lock: options.Lock, Bridges: []host.BridgeConfig{s.bridge},
			RunDir: s.RunDir, HostFile: s.hostFile, OpenFlowTLS: s.tls, Logger: log})
	}
	if p.Fleet, err = fleet.New(o); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, run := range append(tasks, rec.Run, p.Run) {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	var once sync.Once
	p.stop = func() { once.Do(func() { cancel(); wg.Wait() }) }
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("the log:\n%s", p.logs.String())
		}
	})
	return p
}

const patience = 15 * time.Second

func (p *process) eventually(what string, ok func() error) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("not %s after %v: %v", what, patience, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (p *process) ready() *process {
	p.t.Helper()
	p.eventually("ready", p.Ready)
	return p
}

// put writes documents and returns the last one.
func (p *process) put(yaml string) policy.Resource {
	p.t.Helper()
	docs, err := policy.Load(strings.NewReader(yaml))
	if err != nil {
		p.t.Fatal(err)
	}
	var changes []backend.Change
	for _, d := range docs {
		changes = append(changes, backend.Change{Kind: d.Resource.Kind(), Name: d.Resource.GetMeta().Name, Resource: d.Resource})
	}
	out, err := p.st.Commit(p.t.Context(), changes)
	if err != nil {
		p.t.Fatal(err)
	}
	return out[len(out)-1]
}

// apply writes documents and waits for the last one on all hosts that can be reached.
func (p *process) apply(yaml string) policy.Status {
	p.t.Helper()
	last := p.put(yaml)
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	s, err := p.Wait(ctx, last.Kind(), last.GetMeta().Name, last.GetMeta().Revision)
	if err != nil {
		p.t.Fatalf("wait: %v; status %+v", err, s)
	}
	return s
}

// gates are how many flows of a site let established connections of rules through.
func (s *site) gates() int {
	return strings.Count(s.Ofctl("--no-stats", "dump-flows", "br0", "table=208"), "0x7a9a1103")
}

func on(s policy.Status, id string) policy.HostStatus {
	for _, h := range s.Hosts {
		if h.Host == id {
			return h
		}
	}
	return policy.HostStatus{}
}

func allow(name, who, port string) string {
	return fmt.Sprintf("kind: Policy\nname: %s\nspec:\n  appliesTo: [%s]\n  ingress: [{name: r, action: allow, services: [{protocol: tcp, "+
		"ports: [%q]}], log: true}]\n",
		name, who, port)
}

// Two hosts whose bridges and ports have the same names: policies, mirrors, statuses, plans, metrics and flows of the one are not the
// other's.
func TestHostsWithEqualBridges(t *testing.T) {
	t.Parallel()
	east, west := newSite(t, "east", "id-east", 1), newSite(t, "west", "id-west", 2)
	p := start(t, newStore(t), east, west).ready()

	s := p.apply(allow("one", "{port: vm1, host: id-east}", "80"))
	if s.Phase != policy.PhaseActive || !slices.Equal(on(s, "id-east").Endpoints, []string{"br0/vm1"}) ||
		len(on(s, "id-west").Endpoints) != 0 ||
		on(s, "id-west").Reason != policy.ReasonNoEndpoints {
		t.Errorf("a policy of one host: %+v", s)
	}
	if east.gates() != 1 || west.gates() != 0 {
		t.Errorf("%d and %d gates", east.gates(), west.gates())
	}
	s = p.apply(allow("both", "{port: vm2}", "81"))
	if s.Phase != policy.PhaseActive || len(s.Hosts) != 2 || east.gates() != 2 || west.gates() != 1 {
		t.Errorf("a policy of both: %d and %d gates, %+v", east.gates(), west.gates(), s)
	}
	s = p.apply("kind: Mirror\nname: tap\nspec:\n  sources: [{port: vm1, host: id-west}]\n  targets: [{port: {name: ids0, create: true}}]\n")
	if s.Phase != policy.PhaseActive || !slices.Equal(on(s, "id-west").Endpoints, []string{"br0/vm1"}) {
		t.Errorf("a mirror of one host: %+v", s)
	}
	for _, at := range []*site{east, west} {
		rows := strings.TrimSpace(at.Vsctl("--columns=name", "--format=csv", "--no-heading", "list", "Mirror"))
		if (rows != "") != (at == west) {
			t.Errorf("mirrors of %s: %q", at.name, rows)
		}
	}
	flows, err := p.Flows(t.Context(), backend.FlowQuery{Owner: "policy/both"})
	byHost := map[string]int{}
	for _, f := range flows {
		byHost[f.Host]++
	}
	if err != nil || byHost["id-east"] == 0 || byHost["id-east"] != byHost["id-west"] || len(byHost) != 2 {
		t.Errorf("flows: %v %v", byHost, err)
	}
	plan, err := p.Plan(t.Context(), []backend.Change{{Kind: policy.KindPolicy, Name: "one"}})
	if err != nil || len(plan.Bridges) != 2 || len(plan.Bridges[0].RemoveFlows) == 0 || len(plan.Bridges[1].RemoveFlows) != 0 {
		t.Errorf("plan: %+v %v", plan, err)
	}
	for name, host := range map[string]string{"here": "id-west", "nowhere": "id-wets"} {
		docs, err := policy.Load(strings.NewReader(allow(name, "{port: vm1, host: "+host+"}", "80")))
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, w := range p.Warnings([]backend.Change{{Kind: policy.KindPolicy, Name: name, Resource: docs[0].Resource}}) {
			if w.Code == fleet.WarnNoSuchHost {
				told = append(told, w.Message)
			}
		}
		if said := strings.Join(told, "; "); (said != "") != (name == "nowhere") ||
			said != "" && said != `policy/nowhere names host "id-wets", which this tapwall does not manage: it has id-east, id-west` {
			t.Errorf("a policy of %s: %q", host, said)
		}
	}
	metrics := gather(t, p.reg)
	for _, want := range []string{`tapwall_openflow_connected{bridge="br0",host="id-east"} 1`,
		`tapwall_openflow_connected{bridge="br0",host="id-west"} 1`,
		`tapwall_rule_packets_total{direction="ingress",host="id-east",policy="one",rule="r"} 0`, `tapwall_resources{kind="Policy"} 2`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in\n%s", want, metrics)
		}
	}
	if hosts := p.Hosts(); len(hosts) != 2 || hosts[0].ID != "id-east" || hosts[1].ID != "id-west" {
		t.Errorf("%+v", hosts)
	}
	if sys := p.System(); !sys.Healthy || len(sys.Hosts) != 2 {
		t.Errorf("%+v", sys)
	}
}

// While the switch of one host hangs, nothing about the other takes longer: not a change, not a revocation, not an answer.
func TestHostsFrozen(t *testing.T) {
	t.Parallel()
	east, west := newSite(t, "east", "id-east", 1), newSite(t, "west", "id-west", 2)
	p := start(t, newStore(t), east, west).ready()
	median := func(tag string) time.Duration {
		var took []time.Duration
		for i := range 15 {
			from := time.Now()
			if s := p.apply(allow("p", "{port: vm1, host: id-east}", fmt.Sprint(1000+i))); s.Phase != policy.PhaseActive ||
				on(s, "id-east").Phase != policy.PhaseActive {
				t.Fatalf("%s: %+v", tag, s)
			}
			took = append(took, time.Since(from))
		}
		slices.Sort(took)
		t.Logf("%s: %v", tag, took)
		return took[len(took)/2]
	}
	before := median("both run")
	west.SignalVswitchd(syscall.SIGSTOP)
	defer west.SignalVswitchd(syscall.SIGCONT)
	gone := p.apply(allow("q", "{port: vm1}", "7")) // the first one finds out
	if on(gone, "id-east").Phase != policy.PhaseActive || gone.Phase != policy.PhasePending || !strings.Contains(gone.Message,
		"host id-west: ") {
		t.Errorf("while one hangs: %+v", gone)
	}
	if during := median("one hangs"); during > 3*before+20*time.Millisecond {
		t.Errorf("a change took %v, and %v while the other host hangs", before, during)
	}
	for what, ask := range map[string]func(){
		"status":  func() { p.Status(policy.KindPolicy, "p") },
		"system":  func() { p.System() },
		"hosts":   func() { p.Hosts() },
		"plan":    func() { _, _ = p.Plan(t.Context(), []backend.Change{{Kind: policy.KindPolicy, Name: "p"}}) },
		"refresh": func() { p.Refresh(t.Context(), policy.KindPolicy) },
		"metrics": func() { gather(t, p.reg) },
	} {
		from := time.Now()
		ask()
		if took := time.Since(from); took > time.Second {
			t.Errorf("%s took %v while one host hangs", what, took)
		}
	}
	from := time.Now()
	flows, err := p.Flows(t.Context(), backend.FlowQuery{})
	var partial *backend.PartialError
	if !errors.As(err, &partial) || len(partial.Problems) != 1 || !strings.Contains(partial.Problems[0], "host id-west: ") ||
		time.Since(from) > time.Second ||
		len(flows) == 0 || slices.ContainsFunc(flows, func(f wire.FlowEntry) bool { return f.Host != "id-east" }) {
		t.Errorf("%d flows after %v: %v", len(flows), time.Since(from), err)
	}
	if err := p.Ready(); err == nil || !strings.Contains(err.Error(), "host id-west") || strings.Contains(err.Error(), "id-east") {
		t.Errorf("ready: %v", err)
	}
	west.SignalVswitchd(syscall.SIGCONT)
	p.eventually("in force on both", func() error {
		if s := p.Status(policy.KindPolicy, "q"); s.Phase != policy.PhaseActive || p.Ready() != nil {
			return fmt.Errorf("%+v, %v", s, p.Ready())
		}
		return nil
	})
	if west.gates() != 1 {
		t.Errorf("%d gates on the one that hung", west.gates())
	}
}

// A host that has never been reached is named by what lists the others.
func TestHostsNeverReached(t *testing.T) {
	t.Parallel()
	east, west := newSite(t, "east", "id-east", 1), newSite(t, "west", "id-west", 2)
	west.address = "unix:" + filepath.Join(t.TempDir(), "db.sock") // where nobody listens
	p := start(t, newStore(t), east, west)
	p.eventually("one in force", func() error {
		if why := p.Engines()[0].Health().Unready; len(why) > 0 || len(p.Hosts()) != 1 || len(p.Workloads()) != 2 {
			return fmt.Errorf("%q, %+v", why, p.Hosts())
		}
		return nil
	})
	names := func(problems []string) bool {
		return len(problems) == 1 && strings.HasPrefix(problems[0], "host west: it has not been reached yet")
	}
	if !names(p.Unknown()) {
		t.Errorf("unknown: %q", p.Unknown())
	}
	flows, err := p.Flows(t.Context(), backend.FlowQuery{})
	var partial *backend.PartialError
	if !errors.As(err, &partial) || !names(partial.Problems) || len(flows) == 0 {
		t.Errorf("%d flows, %v", len(flows), err)
	}
	plan, err := p.Plan(t.Context(), []backend.Change{{Kind: policy.KindPolicy, Name: "p"}})
	if err != nil || len(plan.Bridges) != 1 || !slices.ContainsFunc(plan.Warnings, func(w policy.Warning) bool {
		return w.Code == fleet.WarnHostUnknown && strings.Contains(w.Message, "host west")
	}) {
		t.Errorf("plan: %+v, %v", plan, err)
	}
	from := time.Now()
	if s := p.apply(allow("p", "{port: vm1}", "80")); on(s, "id-east").Phase != policy.PhaseActive || time.Since(from) > 3*time.Second {
		t.Errorf("after %v: %+v", time.Since(from), s)
	}
	if metrics := gather(t, p.reg); !strings.Contains(metrics, `tapwall_ovsdb_connected{host="west"} 0`) ||
		!strings.Contains(metrics, `tapwall_ovsdb_connected{host="id-east"} 1`) {
		t.Errorf("metrics:\n%s", metrics)
	}
}

// Of two hosts with one id the second is not managed, and both are named. A changed id is noticed and costs no connection.
func TestHostsWithOneID(t *testing.T) {
	t.Parallel()
	east, west := newSite(t, "east", "same", 1), newSite(t, "west", "same", 2)
	st := newStore(t)
	p := start(t, st, east, west)
	var second *site
	p.eventually("told", func() error {
		err := p.Ready()
		if err == nil || !strings.Contains(err.Error(), `both have the system-id "same"`) || !strings.Contains(err.Error(), "east") ||
			!strings.Contains(err.Error(), "west") {
			return fmt.Errorf("ready: %v", err)
		}
		return nil
	})
	p.eventually("one managed", func() error {
		second = west
		if strings.Contains(fmt.Sprint(p.Ready()), "east is not managed") {
			second = east
		}
		first := map[*site]*site{east: west, west: east}[second]
		if n := strings.Count(first.Ofctl("dump-flows", "br0"), "cookie=0x7a9a"); n == 0 {
			return fmt.Errorf("%s has no flows", first.name)
		}
		return nil
	})
	if n := strings.Count(second.Ofctl("dump-flows", "br0"), "cookie=0x7a9a"); n != 0 {
		t.Errorf("the second host has %d of our flows", n)
	}
	second.Vsctl("set", "open_vswitch", ".", "external_ids:system-id=other")
	p.ready()
	p.apply(allow("p", "{port: vm1}", "80"))
	connections := func() (n uint64) {
		for _, h := range p.System().Hosts {
			for _, b := range h.Bridges {
				n += b.Resyncs
			}
		}
		return n
	}
	before := connections()
	second.Vsctl("set", "open_vswitch", ".", "external_ids:system-id=third")
	p.eventually("known by the new id", func() error {
		if s := p.Status(policy.KindPolicy, "p"); on(s, "third").Phase != policy.PhaseActive || s.Phase != policy.PhaseActive {
			return fmt.Errorf("%+v", s)
		}
		return p.Ready()
	})
	if n := connections(); n != before {
		t.Errorf("a changed id cost %d resynchronisations", n-before)
	}
}

// A host that is managed over the network: its bridge listens by a row that tapwall adds and, when the bridge is no longer managed,
// removes. Rows of others, and all flows, stay.
func TestHostsPassiveController(t *testing.T) {
	t.Parallel()
	far := newSite(t, "far", "id-far", 1)
	far.network(t)
	far.Vsctl("--id=@c", "create", "Controller", fmt.Sprintf(`target="ptcp:%d:127.0.0.1"`, freePort(t)), "connection_mode=out-of-band", "--",
		"add", "Bridge", "br0", "controller", "@c")
	foreign := far.Vsctl("--columns=_uuid,target,connection_mode,type,external_ids", "list", "Controller")
	port := far.bridge.Listen.Port
	st := newStore(t)
	p := start(t, st, far).ready()
	if s := p.apply(allow("p", "{port: vm1}", "80")); s.Phase != policy.PhaseActive || far.gates() != 1 {
		t.Errorf("over the network: %d gates, %+v", far.gates(), s)
	}
	if rows := far.Vsctl("--columns=target,type,external_ids", "--format=csv", "--no-heading", "list", "Controller"); !strings.Contains(rows,
		fmt.Sprintf(`"""ptcp:%d:127.0.0.1""",service,`, port)) || !strings.Contains(rows, "tapwall") {
		t.Errorf("rows: %s", rows)
	}
	made := "kind: Mirror\nname: m\nspec:\n  sources: [{port: vm1}]\n  targets: [{port: {name: ids0, create: true}}]\n"
	if s := p.apply(made); s.Phase != policy.PhaseFailed ||
		s.Reason != policy.ReasonNoLocalDevices || !strings.Contains(s.Message, "localDevices") || len(p.Hosts()[0].Capabilities) != 0 {
		t.Errorf("a port to be made far away: %+v", s)
	}
	if _, err := p.Connections(t.Context(), backend.ConnectionQuery{}); !errors.Is(err, backend.ErrUnable) {
		t.Errorf("connections of a host without a control socket: %v", err)
	}
	if k, err := p.KillConnections(t.Context(), backend.ConnectionQuery{}, false); !errors.Is(err, backend.ErrUnable) || k.Killed > 0 {
		t.Errorf("a kill there: %+v, %v", k, err)
	}
	p.eventually("saved", func() error { // its marks are flows, too
		if n := strings.Count(far.Ofctl("dump-flows", "br0", "table=229"), "cookie"); n > 0 {
			return fmt.Errorf("%d marks", n)
		}
		return nil
	})
	flows := far.Ofctl("--no-stats", "dump-flows", "br0")
	p.stop()
	if now := far.Ofctl("--no-stats", "dump-flows", "br0"); now != flows {
		t.Errorf("flows after tapwall's end:\n%s\nbefore:\n%s", now, flows)
	}

	// Without the bridge in its configuration.
	far.bridge = host.BridgeConfig{Name: "br9", Mode: host.Owned}
	p = start(t, st, far)
	p.eventually("released", func() error {
		if rows := far.Vsctl("--columns=_uuid,target,connection_mode,type,external_ids", "list", "Controller"); rows != foreign {
			return fmt.Errorf("rows:\n%s\nwant\n%s", rows, foreign)
		}
		return nil
	})
	if now := far.Ofctl("--no-stats", "dump-flows", "br0"); now != flows {
		t.Errorf("flows after the row has gone:\n%s\nbefore:\n%s", now, flows)
	}
}

// network makes the site one that is reached over the network.
func (s *site) network(t *testing.T) {
	t.Helper()
	db := freePort(t)
	if out, err := s.Tool("ovs-appctl", "--target="+s.RunDir+"/ovsdb.ctl", "ovsdb-server/add-remote", fmt.Sprintf("ptcp:%d:127.0.0.1",
		db)); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.address = fmt.Sprintf("tcp:127.0.0.1:%d", db)
	port := freePort(t)
	s.bridge.Listen = &vswitch.ControllerSpec{Bridge: "br0", Port: uint16(port), Addr: netip.MustParseAddr("127.0.0.1")}
	s.bridge.OpenFlow = fmt.Sprintf("tcp:127.0.0.1:%d", port)
}

// OpenFlow over TLS, where both sides show a certificate: with a wrong one on either side nothing is changed, and who refused is told.
func TestHostsTLS(t *testing.T) {
	t.Parallel()
	far := newSite(t, "far", "id-far", 1)
	far.network(t)
	far.bridge.Listen.TLS = true
	far.bridge.OpenFlow = strings.Replace(far.bridge.OpenFlow, "tcp:", "ssl:", 1)
	switches, tapwalls := pkitest.NewAuthority(t, "switchca"), pkitest.NewAuthority(t, "controllerca")
	sw := switches.Issue("sw1", tapwalls)
	far.Vsctl("set-ssl", sw.Key, sw.Cert, sw.CA)
	right := tapwalls.Issue("tapwall", switches)
	right.ServerName = "sw1"
	other := right
	other.ServerName = "sw2"
	st := newStore(t)
	for _, tc := range []struct {
		what  string
		files pki.Files
		want  string // of Ready's error; "" = none
	}{
		{"that the switch does not know", switches.Issue("tapwall", switches), "does not accept our certificate"},
		{"of another switch", other, `not of "sw2"`},
		{"of another authority", tapwalls.Issue("tapwall", tapwalls), "does not pass the CA"},
		{"that is right", right, ""},
	} {
		var err error
		if far.tls, err = tc.files.Config(); err != nil {
			t.Fatal(err)
		}
		p := start(t, st, far)
		p.eventually("a certificate "+tc.what, func() error {
			if err := p.Ready(); (err == nil) != (tc.want == "") || !strings.Contains(fmt.Sprint(err), tc.want) {
				return fmt.Errorf("ready: %v", err)
			}
			return nil
		})
		if flows := strings.Count(far.Ofctl("dump-flows", "br0"), "0x7a9a"); (flows > 0) != (tc.want == "") {
			t.Errorf("a certificate %s: %d flows", tc.what, flows)
		}
		p.stop()
	}
}

// One tapwall per host, also over the network: the second names the first, changes nothing, and takes over when the first ends.
func TestHostsLock(t *testing.T) {
	t.Parallel()
	far := newSite(t, "far", "id-far", 1)
	first := start(t, newStore(t), far).ready()
	first.apply(allow("p", "{port: vm1}", "80"))
	far.network(t)
	second := start(t, newStore(t), far)
	second.eventually("told who has the host", func() error {
		if err := second.Ready(); err == nil || !strings.Contains(err.Error(),
			fmt.Sprintf("another tapwall manages this Open vSwitch: pid %d on ", os.Getpid())) {
			return fmt.Errorf("ready: %v", err)
		}
		return nil
	})
	if h := second.System().Hosts[0]; h.Desired == 0 || h.Installed != 0 {
		t.Errorf("in force by the second: revision %d of %d", h.Installed, h.Desired)
	}
	if far.gates() != 1 || first.Ready() != nil {
		t.Errorf("%d gates, the first says %v", far.gates(), first.Ready())
	}
	first.apply(allow("q", "{port: vm2}", "80"))
	if far.gates() != 2 {
		t.Errorf("%d gates", far.gates())
	}
	first.stop()
	second.ready()
	if far.gates() != 0 {
		t.Errorf("%d gates of the first under the second", far.gates())
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Twenty switches in one process.
func TestHostsTwenty(t *testing.T) {
	const n = 20
	sites := make([]*site, n)
	for i := range sites {
		sites[i] = newSite(t, fmt.Sprintf("h%d", i), fmt.Sprintf("id-%d", i), i)
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	from := time.Now()
	p := start(t, newStore(t), sites...).ready()
	took := time.Since(from)
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("ready after %v; %d kB and %d goroutines per host, the store included", took.Round(time.Millisecond),
		(int64(after.HeapAlloc)-int64(before.HeapAlloc))/n/1024, (runtime.NumGoroutine()-goroutines)/n)

	from = time.Now()
	if s := p.apply(allow("p", "{port: vm1}", "80")); s.Phase != policy.PhaseActive || len(s.Hosts) != n {
		t.Errorf("%+v", s)
	}
	t.Logf("in force on all after %v", time.Since(from).Round(time.Millisecond))
	for _, s := range sites {
		if s.gates() != 1 {
			t.Errorf("%s has %d gates", s.name, s.gates())
		}
	}
	sites[7].KillVswitchd()
	from = time.Now()
	s := p.apply("kind: Policy\nname: p\nspec:\n  appliesTo: [{port: vm1}]\n  ingress: [{name: r, action: deny}]\n")
	t.Logf("revoked on all others after %v", time.Since(from).Round(time.Millisecond))
	if s.Phase == policy.PhaseActive || !strings.Contains(s.Message, "host id-7") {
		t.Errorf("with one host away: %s %s", s.Phase, s.Message)
	}
	for i, s := range sites {
		if i != 7 && s.gates() != 0 {
			t.Errorf("%s still has %d gates", s.name, s.gates())
		}
	}
}

func gather(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			fmt.Fprintf(&out, "%s{%s} %v\n", f.GetName(), strings.Join(labels, ","), m.GetGauge().GetValue()+m.GetCounter().GetValue())
		}
	}
	return out.String()
}
