package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// entityStage is a bridge br0 with vm1 and vm2, whose own port is 10.77.0.254, and behind a patch br1 with vm3 and a station that nobody
// says anything of, 10.77.0.9.
func entityStage(t *testing.T, flags ...string) (s *stage, stranger *lab.VM) {
	t.Helper()
	s = &stage{Lab: lab.Require(t), t: t, vm: []*lab.VM{nil}}
	must(t, s.AddBridge("br0"))
	must(t, s.AddBridge("br1"))
	for _, p := range [][2]string{{"br0", "br1"}, {"br1", "br0"}} {
		_, err := s.Vsctl("add-port", p[0], "to-"+p[1], "--", "set", "interface", "to-"+p[1], "type=patch", "options:peer=to-"+p[0])
		must(t, err)
	}
	for i, bridge := range []string{"br0", "br0", "br1"} {
		vm, err := s.AddVM(sprintf("vm%d", i+1), bridge, i+1)
		must(t, err)
		s.vm = append(s.vm, vm)
	}
	stranger, err := s.AddVM("who", "br1", 9)
	must(t, err)
	for _, key := range []string{"iface-id", "attached-mac", "vm-uuid"} {
		_, err := s.Vsctl("remove", "interface", "who", "external_ids", key)
		must(t, err)
	}
	for _, vm := range append(s.vm[1:], stranger) {
		must(t, s.Serve(vm, 5001))
	}
	for _, cmd := range [][]string{{"addr", "add", "10.77.0.254/24", "dev", "br0"}, {"link", "set", "br0", "up"}} {
		_, err := s.Switch.Run("ip", cmd...)
		must(t, err)
	}
	s.tw, err = s.StartTapwall(append([]string{"--bridge", "br0=owned", "--bridge", "br1=owned"}, flags...)...)
	must(t, err)
	return s, stranger
}

// hostPings reports whether the host reaches a machine.
func (s *stage) hostPings(to string, flags ...string) bool {
	_, err := s.Switch.Run("ping", append(flags, "-c", "1", "-W", "1", to)...)
	return err == nil
}

func from(entity string) string {
	return sprintf("kind: Policy\nname: p\nspec: {appliesTo: [{port: vm1}], ingress: [{name: in, action: allow, from: [{entity: %s}]}]}\n",
		entity)
}

// Who an entity is, told by traffic: to vm1 from vm2 of its bridge, vm3 of another one, the host and a stranger.
func TestFirewallEntities(t *testing.T) {
	t.Parallel()
	s, stranger := entityStage(t)
	vm1 := s.vm[1].IPv4
	reach := func() string {
		var in []string
		for _, x := range []struct {
			name string
			ok   func() bool
		}{{"vm2", func() bool { return s.ping(s.vm[2], vm1) }}, {"vm3", func() bool { return s.ping(s.vm[3], vm1) }},
			{"host", func() bool { return s.hostPings(vm1) }}, {"stranger", func() bool { return s.ping(stranger, vm1) }}} {
			if x.ok() {
				in = append(in, x.name)
			}
		}
		return strings.Join(in, " ")
	}
	if got := reach(); got != "vm2 vm3 host stranger" { // the control
		t.Fatalf("without a policy vm1 is reached by %s", got)
	}
	s.apply("kind: Endpoint\nname: three\nspec: {match: {port: vm3}, addresses: [10.77.0.3]}")
	for entity, want := range map[string]string{
		"any": "vm2 vm3 host stranger", "world": "host stranger", "host": "host", "same-network": "vm2",
	} {
		s.apply(from(entity))
		_, err := s.Appctl("revalidator/wait")
		must(t, err)
		if got := reach(); got != want {
			t.Errorf("entity %s: vm1 is reached by %s, want %s\n%s", entity, got, want, strings.Join(s.flows("table=206"), "\n"))
		}
	}

	// The host is known by its addresses too, wherever they come from: here by way of the stranger's port.
	s.apply(from("host"))
	_, err := stranger.Run("ip", "addr", "add", "10.77.0.77/24", "dev", "eth0")
	must(t, err)
	if _, err := stranger.Run("ping", "-I", "10.77.0.77", "-c", "1", "-W", "1", vm1); err == nil {
		t.Error("an address that is not the host's passes as the host")
	}
	_, err = s.Switch.Run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1") // the host is not to answer for it on br0
	must(t, err)
	_, err = s.Switch.Run("ip", "addr", "add", "10.77.0.77/32", "dev", "lo")
	must(t, err)
	lab.Eventually(t, 5*time.Second, "an address that the host has got is the host's", func() bool {
		_, err := stranger.Run("ping", "-I", "10.77.0.77", "-c", "1", "-W", "1", vm1)
		return err == nil
	})
	_, err = s.Switch.Run("ip", "addr", "del", "10.77.0.77/32", "dev", "lo")
	must(t, err)
	lab.Eventually(t, 5*time.Second, "an address that the host has lost is not the host's", func() bool {
		_, err := stranger.Run("ping", "-I", "10.77.0.77", "-c", "1", "-W", "1", vm1)
		return err != nil
	})

	// An address that becomes an endpoint's leaves world, with its connections.
	s.apply(from("world"))
	p, err := stranger.EchoTCP(vm1, 5001, 20*time.Millisecond)
	must(t, err)
	s.running(p)
	s.apply("kind: Endpoint\nname: elsewhere\nspec: {match: {neutronPort: none}, addresses: [10.77.0.9]}")
	s.quiet(p, time.Now(), 2*time.Second, "a connection of world")
	if out := s.tapwall("describe", "policy", "p"); !strings.Contains(out, "WORLD_WITHOUT_PEERS") {
		t.Errorf("no warning that world is less than it was:\n%s", out)
	}

	// A restart changes nothing.
	before := s.flows()
	must(t, s.tw.Stop())
	must(t, s.tw.Start())
	if after := s.flows(); strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Errorf("a restart changed the flows:\n%s\nnow\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

// entityHosts are two hosts of one process, one and two, whose bridges br0 are one network, with a machine each: vm1, app=web, and vm2,
// app=db.
func entityHosts(t *testing.T, config string) (a, b *stage) {
	t.Helper()
	a, b = &stage{Lab: lab.Require(t), t: t, vm: []*lab.VM{nil}}, &stage{Lab: lab.Require(t), t: t, vm: []*lab.VM{nil}}
	for i, s := range []*stage{a, b} {
		must(t, s.AddBridge("br0"))
		_, err := s.Vsctl("set", "Open_vSwitch", ".", "external_ids:system-id="+[]string{"one", "two"}[i])
		must(t, err)
		vm, err := s.AddVM(sprintf("vm%d", i+1), "br0", i+1, sprintf("app=%s", []string{"web", "db"}[i]))
		must(t, err)
		s.vm = append(s.vm, vm)
	}
	must(t, a.Serve(a.vm[1], 5001))
	for _, cmd := range [][]string{{"link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", b.Switch.Name},
		{"link", "set", "wire", "up"}} {
		_, err := a.Switch.Run("ip", cmd...)
		must(t, err)
	}
	_, err := b.Switch.Run("ip", "link", "set", "wire", "up")
	must(t, err)
	for _, s := range []*stage{a, b} {
		_, err := s.Switch.Run("ethtool", "-K", "wire", "tx", "off")
		must(t, err)
		_, err = s.Vsctl("add-port", "br0", "wire")
		must(t, err)
	}
	if !a.ping(b.vm[1], a.vm[1].IPv4) {
		t.Fatal("the two bridges are no network")
	}
	file := filepath.Join(a.Dir, "hosts.yaml")
	must(t, os.WriteFile(file, fmt.Appendf(nil,
		"%slimits: {pickup-window: 0s}\nhosts:\n- {name: a, ovsdb: %q, bridges: [{name: br0, mode: owned}]}\n"+
			"- {name: b, ovsdb: %q, bridges: [{name: br0, mode: owned}]}\n", config, a.DB(), b.DB()), 0o600))
	a.tw, err = a.StartTapwall("--config", file)
	must(t, err)
	return a, b
}

// Two hosts of one process, their bridges one network: the labels of one's endpoints are peers on the other by their addresses, and
// world is who is on neither. So it is while one is away, and after a restart without it.
func TestFirewallEntitiesOfAllHosts(t *testing.T) {
	t.Parallel()
	a, b := entityHosts(t, "learning: {disabled: true}\n")
	reaches := func() bool { return b.vm[1].CanConnect(a.vm[1].IPv4, 5001, time.Second) }
	a.apply(`
kind: Policy
name: p
spec: {appliesTo: [{port: vm1}], ingress: [{name: in, action: allow, from: [{host: two, labels: {app: db}}]}]}
---
kind: Endpoint
name: db
spec: {match: {port: vm2}}
`)
	if reaches() {
		t.Fatal("vm2 passes as app=db, although its addresses are not known")
	}
	a.apply("kind: Endpoint\nname: db\nspec: {match: {port: vm2}, addresses: [10.77.0.2]}")
	lab.Eventually(t, 3*time.Second, "labels reach the other host", reaches)
	before := a.flows()
	must(t, a.tw.Stop())
	must(t, b.PauseOVSDB(true))
	defer func() { must(t, b.PauseOVSDB(false)) }()
	_, err := a.Spawn("tapwall", a.tw.Bin, "serve", "--ovsdb", a.DB(), "--data-dir", a.tw.DataDir(), "--listen", "unix:"+a.Socket(),
		"--config",
		filepath.Join(a.Dir, "hosts.yaml")) // it will not be ready
	must(t, err)
	lab.Eventually(t, 10*time.Second, "tapwall is there again", func() bool {
		out, err := a.tw.Run("get", "policy", "p", "-o", "json")
		var doc struct{ Status struct{ Hosts []about } }
		return err == nil && json.Unmarshal([]byte(out), &doc) == nil &&
			slices.ContainsFunc(doc.Status.Hosts, func(h about) bool { return h.Host == "one" && h.Phase == "Active" })
	})
	lab.Eventually(t, 5*time.Second, "after a restart without its host an endpoint is known", reaches)
	if after := a.flows(); strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Errorf("a restart changed the flows:\n%s\nnow\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	_, _ = a.tw.RunInput(from("world"), "apply", "--wait", "--timeout", "2s", "-f", "-") // it is not in force on the host that is away
	if a.mustNotConnect(b.vm[1], a.vm[1].IPv4, 5001); reaches() {
		t.Error("an endpoint of a host that is away is world")
	}
}
