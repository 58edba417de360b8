package host_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

func TestFirstSync(t *testing.T) {
	t.Parallel()
	h := newMachine(t)
	// As an administrator makes it: nothing is said of the fail mode.
	h.ovs.Vsctl("add-br", "br0", "--", "set", "Bridge", "br0", "datapath_type=netdev")
	h.plug("br0", vms("vm1", "vm2")...)
	h.put(allow("p", "vm1", "{port: vm2}", "80"))
	r := h.start(settings{})
	if err := r.Ready(); err == nil {
		t.Error("ready at once")
	}
	r.eventually("ready", r.Ready)
	if got := strings.TrimSpace(h.ovs.Vsctl("get-fail-mode", "br0")); got != "secure" {
		t.Errorf("fail mode %q, want secure", got)
	}
	if s := r.Status(policy.KindPolicy, "p"); s.Phase != policy.PhaseActive {
		t.Errorf("ready, but the policy is %+v", s)
	}
	r.settled()
	if s := r.System(); !s.Healthy || len(s.Problems) > 0 {
		t.Errorf("settled, but %+v", s)
	}
	// Setting the fail mode wipes the flows, so flows that came before it were lost: nothing may have been sent twice.
	if n := len(r.flows(backend.FlowQuery{Table: table(pipeline.TablePickup)})); n != 0 {
		t.Errorf("%d pickup flows are left", n)
	}
	if strings.Contains(r.logs.String(), "changed by somebody else") {
		t.Error("flows were installed before the fail mode and wiped by it")
	}
}

// The error of Ready says what is being waited for.
func TestReadyTellsWhy(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.ovs.KillOVSDB()
	r := h.start(settings{store: &flakyStore{Store: h.st, delay: 200 * time.Millisecond}})
	saw := func(want string) func() error {
		return func() error {
			if err := r.Ready(); err == nil || !strings.Contains(err.Error(), want) {
				return fmt.Errorf("%v", err)
			}
			return nil
		}
	}
	r.eventually("waiting for the store and the database", saw("no connection to the Open vSwitch database at "+h.ovs.DBAddr()))
	if s := r.System(); s.Healthy || !strings.Contains(strings.Join(s.Problems, "; "), "OVSDB: connecting") {
		t.Errorf("health: %+v", s)
	}
	h.ovs.KillVswitchd()
	h.ovs.StartOVSDB()
	r.eventually("waiting for the switch", saw("bridge br0: "))
	h.ovs.StartVswitchd()
	r.eventually("ready", r.Ready)
}

// A process that finds everything as the one before left it changes nothing.
func TestRestartChangesNothing(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2", "vm3")...)
	r := h.ready(settings{})
	h.put("kind: Group\nname: g\nspec: {members: [{port: vm3}, {cidr: 10.0.0.0/8}]}\n")
	h.put(allow("p", "vm1", "{port: vm2}", "80"))
	h.put(allow("q", "vm1", "{group: g}", "80", "1000-1999"))
	r.apply(localTap)
	r.wait(policy.KindPolicy, "q", 1)
	r.settled()
	before, ids := r.flows(backend.FlowQuery{}), r.ids("q")
	if ids["ingress/in"] == 0 {
		t.Fatalf("ids of q: %v", ids)
	}
	r.stop()

	r = h.start(settings{window: time.Minute})
	r.eventually("ready", r.Ready)
	r.wait(policy.KindMirror, "tap", 1)
	if b := r.health("br0"); b.FlowMods != 0 || b.Pickup {
		t.Errorf("after the restart: %+v", b)
	}
	if n := r.db.Status().Transactions; n != 0 {
		t.Errorf("the restart made %d transactions in OVSDB", n)
	}
	if diff := diff(before, r.flows(backend.FlowQuery{})); diff != "" {
		t.Errorf("flows (-before +after):\n%s", diff)
	}
	if diff := diff(ids, r.ids("q")); diff != "" {
		t.Errorf("ids (-before +after):\n%s", diff)
	}
}

// What changes while no engine runs is found when one does: a rule that says something else now has a new id, so that connections that the
// old one allowed are judged again; one that says the same keeps its id.
func TestIDsAcrossRestarts(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	r := h.ready(settings{})
	for _, name := range []string{"changed", "same", "deleted", "again"} {
		r.apply(allow(name, "vm1", "{port: vm2}", "80"))
	}
	old := map[string]uint32{}
	for _, name := range []string{"changed", "same", "deleted", "again"} {
		old[name] = r.ids(name)["ingress/in"]
	}
	r.stop()
	h.put(allow("changed", "vm1", "{port: vm2}", "81"))
	h.put("kind: Policy\nname: same\nlabels: {a: b}\nspec:\n  appliesTo: [{port: vm1}]\n  ingress: [{name: in, action: allow, from: " +
		"[{port: vm2}], services: [{protocol: tcp, ports: ['80']}]}]\n")
	h.drop(policy.KindPolicy, "deleted")
	h.drop(policy.KindPolicy, "again")

	r = h.ready(settings{})
	gates := func() string {
		return strings.Join(r.flows(backend.FlowQuery{Table: table(pipeline.TableLiveIngress)}), "\n")
	}
	open := func(id uint32) bool {
		return strings.Contains(gates(), fmt.Sprintf("ct_label=%#x/0xffffffff actions", id))
	}
	if now := r.ids("changed")["ingress/in"]; now == old["changed"] || now == 0 || !open(now) || open(old["changed"]) {
		t.Errorf("changed: id %d, was %d; gates:\n%s", now, old["changed"], gates())
	}
	if now := r.ids("same")["ingress/in"]; now != old["same"] || !open(now) {
		t.Errorf("same: id %d, was %d", now, old["same"])
	}
	for _, gone := range []string{"deleted", "again"} {
		if s := r.Status(policy.KindPolicy, gone); s.Reason != policy.ReasonNotSeen || open(old[gone]) {
			t.Errorf("%s: %+v, gate open: %v", gone, s, open(old[gone]))
		}
	}
	// The number of what was deleted is not given again, not even to the same rule: it may have been cut since.
	r.apply(allow("again", "vm1", "{port: vm2}", "80"))
	if now := r.ids("again")["ingress/in"]; now == 0 || now == old["again"] || now == old["deleted"] || now == old["changed"] {
		t.Errorf("again: id %d, old ids %v", now, old)
	}
}

// The pickup window opens when the switch has nothing of ours, and only then.
func TestPickupWindow(t *testing.T) {
	t.Parallel()
	const opening = 3 * time.Second // long enough to be seen open on a busy machine
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1")...)
	h.put(allow("p", "vm1", "{cidr: 10.0.0.0/8}", "80"))
	r := h.start(settings{window: opening})
	pickup := func() int { return len(r.flows(backend.FlowQuery{Table: table(pipeline.TablePickup)})) }
	opened := func(when string) {
		t.Helper()
		r.eventually("open "+when, func() error {
			if b := r.health("br0"); !b.Pickup || b.OpenFlow != "connected" || b.InstalledFlows != b.DesiredFlows || pickup() == 0 {
				return fmt.Errorf("%+v", b)
			}
			return nil
		})
	}
	closed := func(when string) {
		t.Helper()
		r.settled()
		if n := pickup(); n != 0 {
			t.Errorf("%d pickup flows when closed %s", n, when)
		}
	}
	opened("at the first start")
	closed("after the first start")
	// A dummy switch gives the bridge's own port another address with every start.
	own := regexp.MustCompile(`^(cookie=0x7a9a11010000ca07, .*dl_dst=)[0-9a-f:]+`)
	flows := func() []string {
		out := r.flows(backend.FlowQuery{})
		for i := range out {
			out[i] = own.ReplaceAllString(out[i], "${1}own")
		}
		return out
	}
	normal := flows()

	r.stop()
	r = h.start(settings{window: opening})
	r.eventually("ready", r.Ready)
	if b := r.health("br0"); b.Pickup || b.FlowMods != 0 {
		t.Errorf("a restart of the engine opens the window: %+v", b)
	}

	h.ovs.KillVswitchd()
	h.ovs.StartVswitchd()
	opened("after a restart of the switch")
	closed("after a restart of the switch")

	h.ovs.Ofctl("del-flows", "br0")
	opened("after the flows were wiped")
	closed("after the flows were wiped")
	if diff := diff(normal, flows()); diff != "" {
		t.Errorf("flows (-first +last):\n%s", diff)
	}

	// One flow that somebody deletes comes back without a window.
	h.ovs.Ofctl("del-flows", "br0", "table=211")
	r.eventually("repaired", func() error {
		if n := len(r.flows(backend.FlowQuery{Table: table(pipeline.TableExit)})); n == 0 {
			return fmt.Errorf("no exit")
		}
		return nil
	})
	if r.health("br0").Pickup {
		t.Error("the window is open after a repair")
	}
}
