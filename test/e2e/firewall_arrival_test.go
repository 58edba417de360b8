package e2e

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// migrant is a stage whose vm3 and vm4 are on another switch, which br0 has an uplink to; vm1 and vm2 are on br0. vm3 may open and be
// opened to on port 5001, and nothing else.
func migrant(t *testing.T, flags ...string) *stage {
	s := ground(t, 2)
	must(t, s.AddBridge("br1"))
	for i := 3; i <= 4; i++ {
		vm, err := s.AddVM(sprintf("vm%d", i), "br1", i)
		must(t, err)
		must(t, s.Serve(vm, 5001, 5002))
		s.vm = append(s.vm, vm)
	}
	_, err := s.Vsctl("--", "add-port", "br0", "up0", "--", "set", "interface", "up0", "type=patch", "options:peer=up1",
		"--", "add-port", "br1", "up1", "--", "set", "interface", "up1", "type=patch", "options:peer=up0")
	must(t, err)
	s.neighbours()
	s.wall(flags...)
	_, err = s.tw.RunInput(`
kind: Policy
name: migrant
spec:
  appliesTo: [{port: vm3}]
  ingress:
  - {name: in, action: allow, from: [{cidr: 10.77.0.0/24}, {cidr: "fd77::/64"}], services: [{protocol: tcp, ports: ["5001"]}]}
  egress:
  - {name: out, action: allow, to: [{cidr: 10.77.0.0/24}, {cidr: "fd77::/64"}], services: [{protocol: tcp, ports: ["5001"]}]}
`, "apply", "-f", "-") // it applies to nobody yet
	must(t, err)
	return s
}

// migrate takes vm3 to br0 as a hypervisor does: the port, and a frame from its address.
func (s *stage) migrate() time.Time {
	s.t.Helper()
	vm := s.vm[3]
	_, err := s.Vsctl("--", "del-port", "br1", vm.Port, "--", "add-port", "br0", vm.Port, "--", "set", "interface", vm.Port,
		"external_ids:iface-id=if-vm3", `external_ids:attached-mac="`+vm.MAC+`"`, "external_ids:vm-uuid=uuid-vm3")
	must(s.t, err)
	at := time.Now()
	lab.Eventually(s.t, 5*time.Second, "the port is an endpoint", func() bool { return s.binds(vm.MAC) })
	s.announce(vm, vm.MAC)
	return at
}

// A machine arrives with its connections: what the policy allows goes on within 2 s, whoever opened it and whoever sends, also of those
// that this switch knew as an outsider's; what it denies is cut at once; when the window is over, a lone ACK opens nothing.
func TestFirewallArrival(t *testing.T) {
	t.Parallel()
	s := migrant(t, "--pickup-window", "4s")
	allowed, denied := map[string]*lab.Probe{}, map[string]*lab.Probe{}
	m := s.vm[3]
	for _, far := range []*lab.VM{s.vm[4], s.vm[2]} {
		for _, way := range [][2]*lab.VM{{m, far}, {far, m}} {
			for family, host := range map[string]string{"v4": way[1].IPv4, "v6": way[1].IPv6} {
				name := way[0].Port + " to " + way[1].Port + " " + family
				start := func(probes map[string]*lab.Probe, port int) {
					e, err := way[0].EchoTCP(host, port, 10*time.Millisecond)
					must(t, err)
					p, err := way[0].PushTCP(host, port)
					must(t, err)
					t.Cleanup(func() { e.Stop(); p.Stop() })
					s.running(e, p)
					probes[name+" echo"], probes[name+" push"] = e, p
				}
				start(allowed, 5001)
				start(denied, 5002)
			}
		}
	}
	capture, err := s.Capture(m.NS, "eth0")
	must(t, err)
	at := s.migrate()
	windows := s.health().Pickups
	for name, p := range allowed {
		lab.Eventually(t, 2*time.Second+lab.Late(at), name+" goes on", func() bool { return p.ReceivedSince(at.Add(100*time.Millisecond)) > 20 })
	}
	t.Logf("all %d go on %v after the port came", len(allowed), time.Since(at).Round(time.Millisecond))
	if len(windows) != 1 || windows[0].Workload != "if-vm3" || windows[0].Reason != "its port appeared" ||
		windows[0].Until.Sub(windows[0].Since) != 4*time.Second {
		t.Errorf("windows %+v", windows)
	}
	if n := len(s.flows("table=213")); n != 1 {
		t.Errorf("%d flows in PICKUP during the window", n)
	}
	// Of others nothing is taken up meanwhile, and of the migrant only what it may have.
	must(t, s.vm[4].SendTCP(s.vm[2], 41000, 5001, 0x10))
	must(t, s.vm[4].SendTCP(m, 41001, 5002, 0x10))
	must(t, m.SendTCP(s.vm[4], 41002, 5002, 0x10))
	others, err := s.Capture(s.vm[2].NS, "eth0")
	must(t, err)
	s.pickupClosed()
	s.revalidated()
	must(t, s.vm[4].SendTCP(m, 41003, 5001, 0x10))
	must(t, m.SendTCP(s.vm[4], 41004, 5001, 0x10))
	time.Sleep(passage)
	for port := uint16(41000); port <= 41004; port++ {
		towards := func(f lab.Frame) bool { return lab.TCPFrom(port)(f) && bytes.Equal(f.Data[:6], parseMAC(t, m.MAC)) }
		if n := len(capture.Frames(towards)); n > 0 {
			t.Errorf("the lone ACK from port %d reached the migrant", port)
		}
		if n := len(others.Frames(lab.TCPFrom(port))); n > 0 {
			t.Errorf("the lone ACK from port %d reached another", port)
		}
		if es := s.conntrack(sprintf("sport=%d", port)); len(es) > 0 {
			t.Errorf("the lone ACK from port %d opened a connection: %s", port, es[0].text)
		}
	}
	for name, p := range denied {
		if n := p.ReceivedSince(at.Add(passage + lab.Late(at))); n > 0 {
			t.Errorf("%s, which is denied: %d messages", name, n)
		}
	}
	after := time.Now()
	lab.Eventually(t, 3*time.Second, "all go on without a window", func() bool {
		for _, p := range allowed {
			if p.ReceivedSince(after) < 20 {
				return false
			}
		}
		return true
	})
	for name, p := range allowed {
		if gap := p.MaxGap(at); gap > 2*time.Second+lab.Late(at) || p.Err() != nil {
			t.Errorf("%s: gap %v, %v", name, gap, p.Err())
		}
	}
	if w := s.health().Pickups; len(w) > 0 {
		t.Errorf("windows %+v when closed", w)
	}
	s.mustConnect(s.vm[4], m.IPv4, 5001)
	s.mustNotConnect(s.vm[4], m.IPv4, 5002)
	out := s.tapwall("observe", "--last", "1000", "--action", "pickup-window-opened", "--action", "pickup-window-closed")
	for _, words := range []string{"are taken up until", "are no longer taken up"} {
		if words = "older TCP connections of if-vm3 " + words; !strings.Contains(out, words) {
			t.Errorf("no event says %q", words)
		}
	}
}

// No window opens for who was there: not at a restart of tapwall, nor with other labels, nor with another address.
func TestFirewallArrivalOnlyOfPorts(t *testing.T) {
	t.Parallel()
	s := open(t, 2, "--pickup-window", "2s")
	s.apply(isolatedVM2)
	s.pickupClosed()
	for name, change := range map[string]func(){
		"restart": func() { must(t, s.tw.Stop()); must(t, s.tw.Start()) },
		"relabel": func() { s.relabel(s.vm[1], "other") },
		"new address": func() {
			_, err := s.Vsctl("set", "interface", "vm1", `external_ids:attached-mac="02:77:00:00:00:77"`)
			must(t, err)
		},
	} {
		before := s.health().InstalledFlows
		change()
		s.apply("kind: Group\nname: fence\nspec: {members: [{cidr: 10.0.0.0/8}]}\n") // what was changed before is in force
		if n := len(s.flows("table=213")); n > 0 || len(s.health().Pickups) > 0 {
			t.Errorf("%s: a window is open, %d flows (%d before)", name, n, before)
		}
	}
	must(t, s.Unplug(s.vm[1]))
	lab.Eventually(t, 5*time.Second, "it is gone", func() bool { return !s.binds("02:77:00:00:00:77") })
	must(t, s.Plug(s.vm[1]))
	lab.Eventually(t, 5*time.Second, "the control: a port that appears has one", func() bool { return len(s.flows("table=213")) == 1 })
}
