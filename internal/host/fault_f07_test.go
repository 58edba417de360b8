package host_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// byLabel lets whoever has role=client reach a port of vm1.
const byLabel = `
kind: Policy
name: label
spec:
  appliesTo: [{port: vm1}]
  ingress: [{name: in, action: allow, from: [{labels: {role: client}}], services: [{protocol: tcp, ports: ["90"]}]}]
`

// relabel gives a port a role, as an orchestrator does.
func (h *machine) relabel(port, role string) {
	h.t.Helper()
	h.ovs.Vsctl("set", "Interface", port, "external_ids:role="+role)
}

// gated waits until exactly the given ids of rules have gates.
func (r *run) gated(what string, there []uint32, gone ...uint32) {
	r.t.Helper()
	r.eventually(what, func() error {
		text := strings.Join(append(r.flows(backend.FlowQuery{Table: table(pipeline.TableLiveEgress)}),
			r.flows(backend.FlowQuery{Table: table(pipeline.TableLiveIngress)})...), "\n")
		has := func(id uint32) bool { return strings.Contains(text, fmt.Sprintf("cookie=0x7a9a1103%08x", id)) }
		if slices.ContainsFunc(gone, has) || slices.ContainsFunc(there, func(id uint32) bool { return !has(id) }) {
			return fmt.Errorf("want gates of %#x and none of %#x in:\n%s", there, gone, text)
		}
		return nil
	})
}

// renewed waits until no endpoint is recognised by the id that one had before.
func (r *run) renewed(what, key string, before uint32) {
	r.t.Helper()
	r.eventually(what, func() error {
		text := strings.Join(r.flows(backend.FlowQuery{Table: table(pipeline.TableSource)}), "\n")
		if old := fmt.Sprintf("load:%#x->NXM_NX_REG8[]", before); strings.Contains(text, old) {
			return fmt.Errorf("endpoint %s still has the id %#x:\n%s", key, before, text)
		}
		return nil
	})
}

// end returns the id of an endpoint, as the flows have it by which it is recognised.
func (r *run) end(key string) uint32 {
	r.t.Helper()
	for _, text := range r.flows(backend.FlowQuery{Owner: "endpoint/" + key, Table: table(pipeline.TableSource)}) {
		var id uint32
		if at, _, ok := strings.Cut(text, "->NXM_NX_REG8[]"); ok {
			at = at[strings.LastIndex(at, "0x")+2:]
			if _, err := fmt.Sscanf(at, "%x", &id); err == nil {
				return id
			}
		}
	}
	r.t.Fatalf("endpoint %s has no id", key)
	return 0
}

func (r *run) id(policy string) uint32 { r.t.Helper(); return r.ids(policy)["ingress/in"] }

// Nothing waits for the store to take ids: not a new rule, not a revocation by a label, not the end of a port; with a store that refuses
// and with one that hangs. The status says what is not saved. When the store is back, it is, and a restart finds nothing to do.
func TestFault_F07_NothingWaitsForTheStore(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(s *flakyStore, on bool){
		"refuses": func(s *flakyStore, on bool) {
			s.fail(nil)
			if on {
				s.fail(errTest)
			}
		},
		"hangs": func(s *flakyStore, on bool) { s.hangPuts(on) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newMachine(t, "br0")
			h.plug("br0", vms("vm1", "vm2", "vm3")...)
			h.relabel("vm2", "client")
			h.relabel("vm3", "client")
			st := &flakyStore{Store: h.st}
			r := h.ready(settings{store: st})
			r.apply(byLabel)
			r.apply(allow("stays", "vm1", "{cidr: 192.0.2.0/24}", "80"))
			r.saved()
			stays, label := r.id("stays"), r.id("label")

			away(st, true)
			if s := r.apply(allow("new", "vm1", "{port: vm3}", "81")); s.Phase != policy.PhaseActive { // it waits until that is in force
				t.Errorf("a new policy: %+v", s)
			}
			fresh := r.id("new")
			vm2, vm3 := r.end("vm2"), r.end("vm3")
			h.relabel("vm3", "guest")
			r.renewed("revoked by a label", "vm3", vm3)
			h.ovs.Vsctl("del-port", "br0", "vm2")
			r.gated("ended with the port", []uint32{stays, fresh}, label)
			r.renewed("ended with the port", "vm2", vm2)
			if name == "refuses" {
				r.eventually("said", func() error {
					s := r.System()
					if text := strings.Join(s.Problems, "; "); s.Healthy || !strings.Contains(text, "id assignments are not saved: "+errTest.Error()) {
						return fmt.Errorf("problems: %s", text)
					}
					return nil
				})
				if err := r.Ready(); err != nil {
					t.Errorf("everything is in force, and yet: %v", err)
				}
			}
			if r.engine.Unsaved() == 0 {
				t.Error("all is saved by a store that takes nothing")
			}
			if name == "hangs" {
				return // a write that hangs comes back with its deadline
			}
			away(st, false)
			r.saved()
			r.settled()
			r.eventually("healthy", func() error { return r.unhealthy() })
			r.matchesScratch("br0")
			r.stop()
			r = h.ready(settings{})
			if n := r.health("br0").FlowMods; n != 0 {
				t.Errorf("a restart finds other ids kept than installed: %d flow-mods", n)
			}
		})
	}
}

// An entry that the store still has after it stopped being true brings no id back to life, although the rule reads as it did then: in
// between the id stood for more (vm3, too), and what it had let in then has been revoked. What did not change keeps its ids.
func TestFault_F07_StaleEntries(t *testing.T) {
	t.Parallel()
	for name, crashed := range map[string]bool{"revoked before the restart": false, "revoked while nobody looked": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newMachine(t, "br0")
			h.plug("br0", vms("vm1", "vm2", "vm3")...)
			h.relabel("vm2", "client")
			st := &flakyStore{Store: h.st}
			r := h.ready(settings{store: st})
			r.apply(byLabel)
			r.apply(allow("stays", "vm1", "{port: vm2}", "80"))
			r.saved()
			stays, label := r.id("stays"), r.id("label")
			st.fail(errTest)
			flows := r.flows(backend.FlowQuery{Owner: "policy/label"})
			vm2, vm3 := r.end("vm2"), r.end("vm3")
			h.relabel("vm3", "client")
			r.eventually("granted", func() error {
				if slices.Equal(flows, r.flows(backend.FlowQuery{Owner: "policy/label"})) {
					return fmt.Errorf("still %q", flows)
				}
				return nil
			})
			if now := [3]uint32{r.id("label"), r.end("vm2"), r.end("vm3")}; now != [3]uint32{label, vm2, vm3} {
				t.Errorf("a grant took something: ids %#x", now)
			}
			if !crashed {
				h.relabel("vm3", "guest")
				r.renewed("revoked", "vm3", vm3)
			}
			r.stop()
			if crashed {
				h.relabel("vm3", "guest")
			}
			r = h.ready(settings{})
			r.renewed("not revived", "vm3", vm3)
			if now := [3]uint32{r.id("label"), r.id("stays"), r.end("vm2")}; now != [3]uint32{label, stays, vm2} {
				t.Errorf("what lost nothing has other ids: %#x, were %#x", now, [3]uint32{label, stays, vm2})
			}
			r.saved()
			r.matchesScratch("br0")
		})
	}
}

// When even the reserved numbers are used up, what takes access away happens all the same; only what carries a new number waits, and the
// status says what.
func TestFault_F07_NumbersUsedUp(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2", "vm3")...)
	h.relabel("vm2", "client")
	h.relabel("vm3", "client")
	st := &flakyStore{Store: h.st}
	r := h.ready(settings{store: st, block: 128})
	r.apply(byLabel)
	r.saved()
	label := r.id("label")
	st.fail(errTest)
	var big strings.Builder
	big.WriteString("kind: Policy\nname: big\nspec:\n  appliesTo: [{port: vm2}]\n  ingress:\n")
	for i := range 160 {
		fmt.Fprintf(&big, "  - {name: r%d, action: allow, from: [{cidr: 10.0.%d.0/24}]}\n", i, i)
	}
	rev := h.put(big.String())
	said := func() error {
		s := r.Status(policy.KindPolicy, "big")
		text := strings.Join(r.System().Problems, "; ")
		if s.Phase == policy.PhaseActive || !strings.Contains(text, "used up") || !strings.Contains(text, "policy/big") ||
			!strings.Contains(text, errTest.Error()) {
			return fmt.Errorf("%s: %s; problems: %.500s", s.Phase, s.Reason, text)
		}
		return nil
	}
	r.eventually("said", said)
	if err := r.Ready(); err == nil {
		t.Error("ready with flows that wait")
	}
	n := len(r.flows(backend.FlowQuery{Owner: "policy/big"}))
	if n == 0 {
		t.Error("what could be installed is not")
	}
	vm3 := r.end("vm3")
	h.relabel("vm3", "guest")
	r.renewed("revoked", "vm3", vm3)

	st.fail(nil)
	if s := r.wait(policy.KindPolicy, "big", rev); s.Phase != policy.PhaseActive {
		t.Errorf("when the store is back: %+v", s)
	}
	if now := len(r.flows(backend.FlowQuery{Owner: "policy/big"})); now <= n {
		t.Errorf("%d flows, were %d", now, n)
	}
	r.gated("as before", []uint32{label})
	r.eventually("healthy", func() error { return r.unhealthy() })
	r.matchesScratch("br0")
}

// A bridge that is deleted and made again while the store is away is walled again, with the same conntrack zones, from memory.
func TestFault_F07_BridgeMadeAgain(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0", "br1")
	h.plug("br1", vms("vm1", "vm2")...)
	st := &flakyStore{Store: h.st}
	r := h.ready(settings{store: st, bridges: owned("br0", "br1")})
	r.apply(allow("p", "vm1", "{port: vm2}", "80"))
	r.saved()
	id, zone := r.id("p"), r.zone("br1")
	st.fail(errTest)
	st.failList(errTest)
	h.ovs.Vsctl("del-br", "br1")
	r.eventually("gone", func() error {
		if err := r.Ready(); err == nil || !strings.Contains(err.Error(), "br1 does not exist") {
			return fmt.Errorf("%v", err)
		}
		return nil
	})
	h.ovs.Vsctl(append([]string{"add-br", "br1", "--", "set", "Bridge", "br1", "datapath_type=netdev", "--"},
		plugs("br1", vms("vm1", "vm2")...)...)...)
	r.eventually("ready", r.Ready)
	r.gated("walled", []uint32{id})
	if now := r.zone("br1"); now != zone || zone == "" {
		t.Errorf("conntrack zone %s, was %s", now, zone)
	}
	st.fail(nil)
	r.saved()
	r.eventually("healthy", func() error { return r.unhealthy() })
}

// zone returns the conntrack zone of a bridge's untagged frames.
func (r *run) zone(bridge string) string {
	for _, f := range r.flows(backend.FlowQuery{Bridge: bridge, Table: table(pipeline.TableSource), Match: "in_port=LOCAL,vlan_tci=0x0000"}) {
		before, _, _ := strings.Cut(f, "->NXM_NX_REG10[0..15]")
		return before[strings.LastIndex(before, "load:")+len("load:"):]
	}
	return ""
}
