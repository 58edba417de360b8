package host_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/api/wire"
	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/policy"
)

// becomes waits until a resource has a phase and a reason.
func (r *run) becomes(kind policy.Kind, name string, phase policy.Phase, reason policy.Reason) policy.Status {
	r.t.Helper()
	var s policy.Status
	r.eventually(fmt.Sprintf("%s %s is %s %s", kind, name, phase, reason), func() error {
		if s = r.Status(kind, name); s.Phase != phase || s.Reason != reason {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	return s
}

func TestPolicyStatus(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0", "guest")
	h.plug("br0", vms("vm1", "vm2")...)
	h.plug("br0", vm{name: "vm3", none: true})
	cfg := append(owned("br0"), host.BridgeConfig{Name: "guest", Mode: host.Guest})
	r := h.ready(settings{bridges: cfg})

	s := r.apply(allow("p", "vm1", "{port: vm2}", "80"))
	if s.Phase != policy.PhaseActive || len(s.Hosts) != 1 || s.Hosts[0].Host != "test" {
		t.Fatalf("%+v", s)
	}
	got := s.Hosts[0]
	if diff := diff([]string{"br0"}, got.Bridges); diff != "" {
		t.Errorf("bridges (-want +got):\n%s", diff)
	}
	if diff := diff([]string{"br0/vm1"}, got.Endpoints); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
	if len(got.Rules) != 1 || got.Rules[0].Name != "in" || got.Rules[0].ID == 0 || got.Rules[0].Flows == 0 {
		t.Errorf("rules: %+v", got.Rules)
	}

	s = r.apply(allow("macless", "vm3", "{port: vm2}", "80"))
	if s.Phase != policy.PhaseDegraded || s.Reason != policy.ReasonEndpointMACUnknown || !strings.Contains(s.Message, "vm3") {
		t.Errorf("an endpoint without a MAC: %+v", s)
	}
	s = r.apply(allow("nobody", "vm9", "{port: vm2}", "80"))
	if s.Phase != policy.PhasePending || s.Reason != policy.ReasonNoEndpoints || len(s.Warnings) != 0 {
		t.Errorf("no endpoints: %+v", s)
	}
	h.plug("br0", vms("vm9")...)
	r.becomes(policy.KindPolicy, "nobody", policy.PhaseActive, "")
	h.ovs.Vsctl("del-port", "vm9")
	r.becomes(policy.KindPolicy, "nobody", policy.PhasePending, policy.ReasonNoEndpoints)

	s = r.apply(allow("ghosts", "vm1", "{group: none}", "90"))
	if s.Phase != policy.PhaseActive || !slices.ContainsFunc(s.Warnings, func(w policy.Warning) bool {
		return strings.Contains(w.Message,
			"none")
	}) {
		t.Errorf("an unknown group: %+v", s)
	}
	r.settled()
	h.ovs.KillVswitchd()
	s = r.becomes(policy.KindPolicy, "p", policy.PhaseDegraded, policy.ReasonDisconnected)
	if !strings.Contains(s.Message, "bridge br0: ") {
		t.Errorf("disconnected: %+v", s)
	}
	if s := r.System(); s.Healthy || !strings.Contains(strings.Join(s.Problems, "; "), "bridge br0: connecting: ") {
		t.Errorf("problems: %v", s.Problems)
	}
	h.ovs.StartVswitchd()
	r.becomes(policy.KindPolicy, "p", policy.PhaseActive, "")
}

func TestNoOwnedBridge(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1")...)
	r := h.start(settings{bridges: []host.BridgeConfig{{Name: "br0", Mode: host.Guest}}})
	r.eventually("ready", r.Ready)
	if s := r.apply(allow("p", "vm1", "{port: vm1}", "80")); s.Phase != policy.PhaseDegraded || s.Reason != policy.ReasonNoOwnedBridge {
		t.Errorf("%+v", s)
	}
	if s := r.apply(localTap); s.Phase != policy.PhaseActive {
		t.Errorf("a mirror of a guest: %+v", s)
	}
	if out := h.ovs.Ofctl("dump-flows", "br0"); strings.Contains(out, "cookie") {
		t.Errorf("flows on a guest:\n%s", out)
	}
}

// Warnings are worked out behind the change and show up in the status.
func TestShadowedStatus(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	r := h.ready(settings{})
	r.apply(allow("p", "vm1", "{port: vm2}", "80"))
	const above = "kind: Policy\nname: above\nspec:\n  tier: security\n  appliesTo: [{port: vm1}]\n  ingress: [{name: none, action: deny}]\n"
	r.apply(above)
	shadowed := func() int {
		return len(slices.DeleteFunc(slices.Clone(r.Status(policy.KindPolicy, "p").Warnings), func(w policy.Warning) bool {
			return w.Code != policy.WarnShadowed || w.By == nil || w.By.Policy != "above"
		}))
	}
	is := func(n int) func() error {
		return func() error {
			if got := shadowed(); got != n {
				return fmt.Errorf("%d warnings: %+v", got, r.Status(policy.KindPolicy, "p"))
			}
			return nil
		}
	}
	r.eventually("warned", is(1))
	if ws := r.Warnings(h.changes(allow("q", "vm1", "{port: vm2}", "81"))); len(ws) != 1 || ws[0].Code != policy.WarnShadowed ||
		ws[0].Policy != "q" {
		t.Errorf("what a write is told: %+v", ws)
	}
	r.remove(policy.KindPolicy, "above")
	r.eventually("not warned any more", is(0))
}

// A name that was mistyped is told by the answer to the write, also to who does not wait.
func TestWrittenForNobody(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	r := h.ready(settings{})
	quarantine := func(match string) string {
		return "kind: Quarantine\nname: q\nspec: {match: {" + match + "}}\n"
	}
	for _, tc := range []struct {
		name, yaml string
		want       []string // CODE RULE MESSAGE
	}{
		{"known", allow("p", "vm1", "{port: vm2}", "80"), nil},
		{"to no endpoint", allow("p", "vm66", "{port: vm77}", "80"),
			[]string{"NO_ENDPOINTS  it applies to nobody here: no endpoint is chosen by port vm66"}},
		{"from nobody", allow("p", "vm1", "{port: vm77}, {labels: {app: web}}", "80"),
			[]string{"RULE_EMPTY ingress/in the rule matches nothing yet: nobody that is known is chosen by port vm77, or labels app=web"}},
		{"from somebody as well", allow("p", "vm1", "{port: vm77}, {port: vm2}", "80"), nil},
		{"from addresses", allow("p", "vm1", "{port: vm77}, {cidr: 192.0.2.0/24}", "80"), nil},
		{"held", quarantine("port: vm1"), nil},
		{"nothing held", quarantine("vm: vmm1"),
			[]string{"NO_ENDPOINTS  it holds nothing yet: no port here is chosen by vm vmm1; one that appears is held"}},
		{"an end that is far", strings.Replace(allow("p", "vm1", "{port: vm2}", "80"), "spec:", "spec:\n  expiresAt: 2999-01-01T00:00:00Z", 1),
			[]string{"NOT_ARMED"}},
	} {
		ws := r.Warnings(h.changes(tc.yaml))
		ok := len(ws) == len(tc.want)
		for i := range min(len(ws), len(tc.want)) {
			ok = ok && strings.HasPrefix(fmt.Sprintf("%s %s %s", ws[i].Code, ws[i].Rule, ws[i].Message), tc.want[i])
		}
		if !ok {
			t.Errorf("%s: %+v, want %q", tc.name, ws, tc.want)
		}
	}
}

func TestMirrorStatus(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0", "br1")
	h.plug("br0", vms("vm1", "vm2")...)
	h.plug("br1", vms("vm3")...)
	r := h.ready(settings{bridges: owned("br0", "br1")})
	spec := func(enabled bool, source, target string) string {
		return fmt.Sprintf("kind: Mirror\nname: m\nspec: {enabled: %v, sources: [%s], targets: [{port: %s}]}\n", enabled, source, target)
	}
	for _, tc := range []struct {
		name, yaml string
		phase      policy.Phase
		reason     policy.Reason
	}{
		{"made", spec(true, "{port: vm1}", "{name: ids0, create: true}"), policy.PhaseActive, ""},
		{"stopped", spec(false, "{port: vm1}", "{name: ids0, create: true}"), policy.PhaseStopped, policy.ReasonDisabled},
		{"no source", spec(true, "{port: vm9}", "{name: ids0, create: true}"), policy.PhaseDegraded, policy.ReasonSourceMissing},
		{"started again", spec(true, "{port: vm2}", "{name: ids0, create: true}"), policy.PhaseActive, ""},
		{"no target", spec(true, "{port: vm1}", "{name: none}"), policy.PhaseDegraded, policy.ReasonTargetMissing},
		{"a target that is a VM", spec(true, "{port: vm1}", "{name: vm2}"), policy.PhaseFailed, ""},
		{"corrected", spec(true, "{port: vm1}", "{name: ids0, create: true}"), policy.PhaseActive, ""},
	} {
		s := r.apply(tc.yaml)
		if s.Phase != tc.phase || tc.reason != "" && s.Reason != tc.reason {
			t.Errorf("%s: %s %s %q, want %s %s", tc.name, s.Phase, s.Reason, s.Message, tc.phase, tc.reason)
		}
		if tc.phase == policy.PhaseActive && (len(s.Hosts) != 1 || s.Hosts[0].Target["port"] != "ids0" || len(s.Hosts[0].Endpoints) != 1) {
			t.Errorf("%s: %+v", tc.name, s.Hosts)
		}
	}
	// A source that goes and comes back needs no call.
	h.ovs.Vsctl("del-port", "vm1")
	r.becomes(policy.KindMirror, "m", policy.PhaseDegraded, policy.ReasonSourceMissing)
	h.plug("br0", vms("vm1")...)
	r.becomes(policy.KindMirror, "m", policy.PhaseActive, "")
	// Somebody removes the row: it is made again.
	h.ovs.Vsctl("clear", "Bridge", "br0", "mirrors")
	r.eventually("repaired", func() error {
		if out := h.ovs.Vsctl("--bare", "--columns=name", "list", "Mirror"); !strings.Contains(out, "tapwall-m") {
			return fmt.Errorf("rows %q", out)
		}
		return nil
	})
	r.becomes(policy.KindMirror, "m", policy.PhaseActive, "")
	r.remove(policy.KindMirror, "m")
	if s := r.Status(policy.KindMirror, "m"); s.Reason != policy.ReasonNotSeen {
		t.Errorf("removed: %+v", s)
	}
}

// Open vSwitch runs 32 mirrors per bridge, others' included, and ignores further ones.
func TestMirrorLimit(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1")...)
	h.ovs.AddPort("br0", "other", 100)
	h.ovs.Vsctl("--", "--id=@m", "create", "Mirror", "name=foreign", "--", "set", "Bridge", "br0", "mirrors=@m")
	var docs []string
	for i := range ovsdb.MaxMirrors - 1 {
		docs = append(docs, fmt.Sprintf(
			"kind: Mirror\nname: m%d\nspec: {sources: [{port: vm1}], targets: [{port: {name: out%d, create: true}}]}\n", i, i+1))
	}
	r := h.ready(settings{})
	if err := r.Admit(h.changes(strings.Join(docs, "---\n"))); err != nil {
		t.Errorf("as many as there is room for: %v", err)
	}
	h.put(strings.Join(docs, "---\n"))
	last := fmt.Sprintf("m%d", len(docs)-1)
	if s := r.wait(policy.KindMirror, last, 1); s.Phase != policy.PhaseActive {
		t.Fatalf("%s: %+v", last, s)
	}
	more := "kind: Mirror\nname: more\nspec: {sources: [{port: vm1}], targets: [{port: {name: out99, create: true}}]}\n"
	if err := r.Admit(h.changes(more)); !errors.Is(err, backend.ErrLimit) || !strings.Contains(err.Error(), "MIRROR_LIMIT") {
		t.Errorf("one more: %v", err)
	}
	if err := r.Admit(append(h.changes(more), backend.Change{Kind: policy.KindMirror, Name: "m0"})); err != nil {
		t.Errorf("one for another: %v", err)
	}
	if err := r.Admit(h.changes(docs[0])); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	s := r.apply(more)
	if s.Phase != policy.PhaseFailed || s.Reason != policy.ReasonMirrorLimit {
		t.Errorf("written all the same: %+v", s)
	}
	r.remove(policy.KindMirror, "m0")
	r.becomes(policy.KindMirror, "more", policy.PhaseActive, "")
	if out := h.ovs.Vsctl("--bare", "--columns=name", "list", "Mirror"); !strings.Contains(out, "foreign") {
		t.Error("the foreign mirror is gone")
	}
}

// Staged mirrors with the same sources share one of them: 200 mirrors of 30 machines take 30, and what counts is how many sets of
// sources there are.
func TestMirrorLimitOfSourceSets(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	var names []string
	for i := range ovsdb.MaxMirrors + 1 {
		names = append(names, fmt.Sprintf("vm%d", i))
	}
	h.plug("br0", vms(names...)...)
	doc := func(i, machine int) string {
		return fmt.Sprintf("kind: Mirror\nname: m%d\nspec: {sources: [{port: vm%d}], filter: {rules: [{action: accept, protocol: tcp, "+
			"dstPorts: [\"%d\"]}]}, "+
			"targets: [{port: {name: ids%d, create: true}}]}\n", i, machine, 1000+i, i%3)
	}
	var docs []string
	for i := range 200 {
		docs = append(docs, doc(i, i%30))
	}
	r := h.ready(settings{})
	if err := r.Admit(h.changes(strings.Join(docs, "---\n"))); err != nil {
		t.Fatalf("200 mirrors of 30 machines: %v", err)
	}
	h.put(strings.Join(docs, "---\n"))
	start := time.Now()
	r.eventually("all are active", func() error {
		for i := range docs {
			if s := r.Status(policy.KindMirror, fmt.Sprintf("m%d", i)); s.Phase != policy.PhaseActive {
				return fmt.Errorf("m%d: %+v", i, s)
			}
		}
		return nil
	})
	took := time.Since(start)
	rows := len(strings.Fields(h.ovs.Vsctl("--bare", "--columns=_uuid", "find", "Mirror", "external_ids:tapwall-owner=tapwall")))
	flows := strings.Count(h.ovs.Ofctl("--no-stats", "dump-flows", "tw-tap-netdev"), "actions=")
	// A set has one flow; a mirror two for its rule, in IPv4 and IPv6, one for the rest, and two for its target; one has caches renewed.
	if want := 1 + 30 + 5*len(docs); rows != 30 || flows != want {
		t.Errorf("%d rows and %d flows, want 30 and %d", rows, flows, want)
	}
	t.Logf("%d rows and %d flows for %d mirrors after %v", rows, flows, len(docs), took.Round(time.Millisecond))
	h.put(doc(200, 30) + "---\n" + doc(201, 31))
	r.wait(policy.KindMirror, "m201", 1)
	if err := r.Admit(h.changes(doc(202, 32))); !errors.Is(err, backend.ErrLimit) || !strings.Contains(err.Error(), "share one") {
		t.Errorf("a 33rd set of sources: %v", err)
	}
	if err := r.Admit(h.changes(doc(203, 7))); err != nil {
		t.Errorf("sources that are copied already: %v", err)
	}
}

func TestMemberStatus(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	r := h.ready(settings{})
	s := r.apply("kind: Endpoint\nname: e1\nspec: {match: {port: vm1}, labels: {app: web}}\n")
	if s.Phase != policy.PhaseActive || diff([]string{"br0/vm1"}, s.Hosts[0].Endpoints) != "" || len(s.Warnings) != 0 {
		t.Errorf("endpoint: %+v", s)
	}
	s = r.apply("kind: Endpoint\nname: far\nspec: {match: {port: vm7}, labels: {app: web}, addresses: [10.0.0.7]}\n")
	if s.Phase != policy.PhaseActive || s.Reason != policy.ReasonElsewhere || s.ObservedRevision == 0 {
		t.Errorf("endpoint elsewhere: %+v", s)
	}
	s = r.apply("kind: Group\nname: g\nspec: {members: [{labels: {app: web}}, {cidr: 192.0.2.0/24}]}\n")
	if s.Phase != policy.PhaseActive || diff([]string{"br0/vm1", "endpoint/far"}, sortedStrings(s.Hosts[0].Endpoints)) != "" {
		t.Errorf("group: %+v", s)
	}
	// A second one for the same port is told so; the first, whose name begins alike, is not.
	s = r.apply("kind: Endpoint\nname: e12\nspec: {match: {port: vm1}, labels: {app: db}}\n")
	if len(s.Warnings) != 1 || s.Warnings[0].Code != policy.WarnEndpointConflict {
		t.Errorf("the second: %+v", s)
	}
	if s := r.Status(policy.KindEndpoint, "e1"); len(s.Warnings) != 0 {
		t.Errorf("the first: %+v", s)
	}
	r.apply("kind: Endpoint\nname: e123\nspec: {match: {port: vm2}, labels: {app: db}}\n")
	if s := r.Status(policy.KindEndpoint, "e1"); len(s.Warnings) != 0 {
		t.Errorf("the first: %+v", s)
	}
	// A label that arrives by OVSDB needs no call.
	h.ovs.Vsctl("set", "Interface", "vm2", "external_ids:app=web")
	r.remove(policy.KindEndpoint, "e123")
	r.eventually("vm2 joined", func() error {
		if got := sortedStrings(r.Status(policy.KindGroup, "g").Hosts[0].Endpoints); !slices.Contains(got, "br0/vm2") {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	if s := r.Status("Nonsense", "x"); s.Phase != policy.PhasePending {
		t.Errorf("an unknown kind: %+v", s)
	}
	keys := []string{}
	for _, w := range r.Workloads() {
		keys = append(keys, w.Key)
	}
	if diff := diff([]string{"endpoint/far", "vm1", "vm2"}, keys); diff != "" {
		t.Errorf("workloads (-want +got):\n%s", diff)
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0", "foreign")
	h.plug("br0", vm{name: "vm1", set: []string{"--", "set", "Port", "vm1", "tag=5"}})
	h.ovs.Vsctl("--", "--id=@m", "create", "Mirror", "name=theirs", "--", "set", "Bridge", "br0", "mirrors=@m")
	r := h.ready(settings{})
	r.apply(localTap)
	hosts := r.Hosts()
	if len(hosts) != 1 || hosts[0].ID != "test" || !hosts[0].Connected || hosts[0].Message != "" || len(hosts[0].Bridges) != 2 {
		t.Fatalf("%+v", hosts)
	}
	mine, other := hosts[0].Bridges[0], hosts[0].Bridges[1]
	if mine.Name != "br0" || mine.Mode != "owned" || !mine.Connected || mine.DatapathType != "netdev" || mine.FailMode != "secure" {
		t.Errorf("our bridge: %+v", mine)
	}
	if other.Name != "foreign" || other.Mode != "" || other.Connected {
		t.Errorf("a foreign bridge: %+v", other)
	}
	i := slices.IndexFunc(mine.Ports, func(p wire.HostPort) bool { return p.Name == "vm1" })
	if i < 0 {
		t.Fatalf("ports: %+v", mine.Ports)
	}
	if p := mine.Ports[i]; p.OFPort <= 0 || p.MAC != macOf("vm1") || p.Endpoint != "vm1" || p.VLAN == nil || *p.VLAN != 5 {
		t.Errorf("port: %+v", p)
	}
	owners := map[string]string{}
	for _, m := range mine.Mirrors {
		owners[m.Name] = m.Owner
	}
	if diff := diff(map[string]string{"theirs": "", "tapwall-tap": "tap"}, owners); diff != "" {
		t.Errorf("mirrors (-want +got):\n%s", diff)
	}
	h.ovs.KillOVSDB()
	r.eventually("disconnected", func() error {
		if h := r.Hosts()[0]; h.Connected || h.Message == "" {
			return fmt.Errorf("%+v", h)
		}
		return nil
	})
	if s := r.System(); s.Healthy || !strings.Contains(strings.Join(s.Problems, "; "), "OVSDB: connecting") {
		t.Errorf("%+v", s.Problems)
	}
}

func TestFlows(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	r := h.ready(settings{})
	r.apply(allow("p", "vm1", "{port: vm2}", "80"))
	h.ovs.Ofctl("add-flow", "br0", "table=100,priority=7,ip,actions=drop")
	entries := func(q backend.FlowQuery) map[string]int {
		got, err := r.Flows(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]int{}
		for _, f := range got {
			if f.Host != "test" || f.Bridge != "br0" {
				t.Errorf("%+v", f)
			}
			if f.Owner == ofctrl.RenewalOwner { // where this switch needs it
				continue
			}
			out[f.State+" "+f.Owner]++
			rule, ruled := strings.CutPrefix(f.Rule, "p/ingress/")
			if f.Table > 0 && !strings.Contains(f.Text, fmt.Sprintf("table=%d,", f.Table)) {
				t.Errorf("table %d: %s", f.Table, f.Text)
			}
			if f.Owner == "policy/p" && (!ruled || rule == "" || f.TableName == "") || f.State == "foreign" && f.Rule != "" {
				t.Errorf("rule %q, table %q of %s", f.Rule, f.TableName, f.Text)
			}
		}
		return out
	}
	var all map[string]int
	r.eventually("all listed, and the marks of what is not saved gone", func() error {
		all = entries(backend.FlowQuery{})
		if all["foreign "] != 1 || all["installed policy/p"] == 0 || all["installed system"] == 0 || all["installed endpoint/vm1"] == 0 ||
			len(all) != 7 {
			return fmt.Errorf("%v", all)
		}
		return nil
	})
	if got := entries(backend.FlowQuery{Owner: "policy/p"}); len(got) != 1 || got["installed policy/p"] != all["installed policy/p"] {
		t.Errorf("of a policy: %v", got)
	}
	if got := entries(backend.FlowQuery{Table: table(100)}); len(got) != 1 || got["foreign "] != 1 {
		t.Errorf("of a table: %v", got)
	}
	if got := entries(backend.FlowQuery{Match: "ct_tp_dst=80"}); got["installed policy/p"] != 2 || len(got) != 1 {
		t.Errorf("by text: %v", got)
	}
	if got, err := r.Flows(context.Background(), backend.FlowQuery{Limit: 3}); err != nil || len(got) != 3 {
		t.Errorf("limited: %d, %v", len(got), err)
	}
	if got := entries(backend.FlowQuery{Bridge: "br1"}); len(got) != 0 {
		t.Errorf("of another bridge: %v", got)
	}

	// Somebody else's flow comes before ours. That is told, and holds up nobody.
	h.ovs.Ofctl("add-flow", "br0", "cookie=0x99,priority=2,udp,actions=drop")
	r.becomes(policy.KindPolicy, "p", policy.PhaseDegraded, policy.ReasonBypassed)
	if s := r.apply(allow("p", "vm1", "{port: vm2}", "81")); s.Phase != policy.PhaseDegraded || !strings.Contains(s.Message,
		"priority=2,udp") {
		t.Errorf("behind a foreign flow: %+v", s)
	}
	if got := entries(backend.FlowQuery{Match: "ct_tp_dst=81"}); got["installed policy/p"] != 2 {
		t.Errorf("behind a foreign flow: %v", got)
	}
	if got := entries(backend.FlowQuery{Table: table(0)}); got["foreign "] != 1 || got["installed system"] != 1 {
		t.Errorf("of table 0: %v", got)
	}
	h.ovs.Ofctl("--strict", "del-flows", "br0", "priority=2,udp")
	r.becomes(policy.KindPolicy, "p", policy.PhaseActive, "")
	h.ovs.KillVswitchd()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if got, err := r.Flows(ctx, backend.FlowQuery{}); err == nil {
		t.Errorf("without a switch: %d flows", len(got))
	}
}
