package host_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/host"
	"github.com/tapwall/tapwall/policy"
)

// The system-id comes, changes and goes, while the engine runs and while it does not. What the flows and connections carry stays what it
// was, and whatever was kept under an id that the host takes over is not mixed into it.
func TestFault_F18_HostIDChanges(t *testing.T) {
	t.Parallel()
	here, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	set := func(id string) {
		if id == "" {
			h.ovs.Vsctl("remove", "Open_vSwitch", ".", "external_ids", "system-id")
			return
		}
		h.ovs.Vsctl("set", "Open_vSwitch", ".", "external_ids:system-id="+id)
	}
	states := func(id string) map[string][]byte {
		all, err := h.st.ListStates(context.Background(), id, "")
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	stray := map[string][]byte{"bridge/br0/next": []byte("7"), "bridge/br0/policy/p": []byte("{}"), "bridge/br9/index": []byte("3")}
	if err := h.st.PutStates(context.Background(), "id1", stray); err != nil {
		t.Fatal(err)
	}
	conf := settings{hostFile: filepath.Join(t.TempDir(), "hosts", "h", "host-id")} // whose directory is not there yet
	set("")
	r := h.ready(conf)
	s := r.System().Hosts[0]
	if s.Host != here || len(s.Warnings) != 1 || s.Warnings[0].Code != host.WarnSystemID ||
		!strings.HasSuffix(s.Warnings[0].Message, "ovs-vsctl set open_vswitch . external_ids:system-id="+here) {
		t.Errorf("without a system-id: %+v", s)
	}
	if n := strings.Count(r.logs.String(), "external_ids:system-id of the Open vSwitch database is not set"); n != 1 {
		t.Errorf("the log says so %d times", n)
	}
	r.apply(allow("p", "vm1", "{port: vm2}", "80"))
	installed := func() string {
		return strings.Join(r.flows(backend.FlowQuery{Bridge: "br0"}), "\n")
	}
	id, flows := r.ids("p")["ingress/in"], installed()
	same := func(what, host string) {
		t.Helper()
		r.eventually(what, func() error {
			if s := r.System().Hosts[0]; s.Host != host || len(states(host)) == 0 {
				return fmt.Errorf("host %s", s.Host)
			}
			return nil
		})
		r.settled()
		if now := r.ids("p")["ingress/in"]; now != id {
			t.Errorf("%s: the rule has id %d, had %d", what, now, id)
		}
		if d := diff(flows, installed()); d != "" {
			t.Errorf("%s: flows (-want +got):\n%s", what, d)
		}
		if _, ok := states(host)["bridge/br9/index"]; ok {
			t.Errorf("%s: what was kept under the id before is still there", what)
		}
	}
	restart := func() {
		r.stop()
		r = h.ready(conf)
	}
	same("without an id", here)
	restart()
	same("without an id, started again", here)
	set("id1")
	same("given an id while running", "id1")
	if s := r.System().Hosts[0]; len(s.Warnings) != 0 || len(states(here)) != 0 {
		t.Errorf("with an id: %+v; under the name are %d", s, len(states(here)))
	}
	restart()
	same("started again", "id1")
	r.stop()
	set("id2")
	r = h.ready(conf)
	same("given another while stopped", "id2")
	set("no/id")
	same("given an impossible one", here)
	if s := r.System().Hosts[0]; len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0].Message, `"no/id" has a character`) {
		t.Errorf("with an impossible id: %+v", s)
	}
	// New numbers go on from where they were.
	r.apply(allow("q", "vm2", "{port: vm1}", "80"))
	if now := r.ids("q")["ingress/in"]; now <= id || now > id+100 {
		t.Errorf("the next rule has id %d after %d", now, id)
	}
}

// While what is kept cannot move, it is used where it is; nothing stops, and the status says so.
func TestFault_F18_HostIDCannotMove(t *testing.T) {
	t.Parallel()
	h := newMachine(t, "br0")
	h.plug("br0", vms("vm1", "vm2")...)
	st := &flakyStore{Store: h.st}
	r := h.ready(settings{store: st, hostFile: filepath.Join(t.TempDir(), "host-id")})
	r.apply(allow("p", "vm1", "{port: vm2}", "80"))
	id := r.ids("p")["ingress/in"]
	st.failList(errors.New("the store is away"))
	h.ovs.Vsctl("set", "Open_vSwitch", ".", "external_ids:system-id=id1")
	r.eventually("told", func() error {
		if s := r.System().Hosts[0]; len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0].Message,
			`id1 now, but what is kept of it is under "test": the store is away`) {
			return fmt.Errorf("%+v", s.Warnings)
		}
		return nil
	})
	r.apply(allow("q", "vm2", "{port: vm1}", "80"))
	r.becomes(policy.KindPolicy, "q", policy.PhaseActive, "")
	if now := r.ids("q")["ingress/in"]; now <= id || now > id+100 {
		t.Errorf("the next rule has id %d after %d", now, id)
	}
	st.failList(nil)
	r.eventually("moved", func() error {
		all, err := h.st.ListStates(context.Background(), "id1", "bridge/br0/policy/")
		if err != nil || len(all) != 2 || len(r.System().Hosts[0].Warnings) != 0 {
			return fmt.Errorf("%d policies, %v", len(all), err)
		}
		return nil
	})
}
