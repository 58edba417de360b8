package e2e

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// pickupPolicies name addresses, as ranges and single ones: vm2 lets vm1 in and may open to vm3, and nothing else; vm3 may open anything
// but to vm1.
const pickupPolicies = `
kind: Policy
name: vm2
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: in, action: allow, from: [{cidr: 10.77.0.0/31}, {cidr: "fd77::1/128"}], services: [{protocol: tcp, ports: ["5001-5002"]}]}
  egress:
  - {name: out, action: allow, to: [{cidr: 10.77.0.3/32}, {cidr: "fd77::3/128"}], services: [{protocol: tcp, ports: ["5001-5002"]}]}
---
kind: Policy
name: vm3
spec:
  appliesTo: [{port: vm3}]
  defaultDeny: {egress: false}
  egress:
  - {name: never, action: deny, to: [{cidr: 10.77.0.0/31}, {cidr: "fd77::/127"}], services: [{protocol: tcp, ports: ["5001-5003"]}]}
`

// pickupMatrix opens connections, in which both sides send or only the server does, that pickupPolicies allow by a rule of either side or
// by default, and that they deny.
func (s *stage) pickupMatrix() (allowed, denied map[string]*lab.Probe) {
	s.t.Helper()
	allowed, denied = map[string]*lab.Probe{}, map[string]*lab.Probe{}
	start := func(probes map[string]*lab.Probe, why string, from, to *lab.VM, ports ...int) {
		for _, host := range []string{to.IPv4, to.IPv6} {
			echo, err := from.EchoTCP(host, ports[0], 10*time.Millisecond)
			must(s.t, err)
			push, err := from.PushTCP(host, ports[len(ports)-1])
			must(s.t, err)
			s.t.Cleanup(func() { echo.Stop(); push.Stop() })
			s.running(echo, push)
			probes[why+", both send, "+host], probes[why+", the server sends, "+host] = echo, push
		}
	}
	start(allowed, "ingress rule", s.vm[1], s.vm[2], 5001, 5002)
	start(allowed, "egress rule", s.vm[2], s.vm[3], 5001, 5002)
	start(allowed, "default", s.vm[1], s.vm[3], 5001, 5002)
	start(denied, "isolated", s.vm[1], s.vm[2], 5003)
	start(denied, "egress denied", s.vm[3], s.vm[1], 5001, 5002)
	return allowed, denied
}

// takenUp checks that everything allowed has come through since then, during the window and after it, with no gap of more than
// tcpBack, and nothing else has.
func (s *stage) takenUp(since time.Time, allowed, denied map[string]*lab.Probe, captures map[*lab.VM]*lab.Capture) {
	s.t.Helper()
	for name, p := range allowed {
		lab.Eventually(s.t, 5*time.Second, name+" goes on", func() bool { return p.ReceivedSince(since) > 20 })
	}
	s.pickupClosed()
	after := time.Now()
	for name, p := range allowed {
		lab.Eventually(s.t, 5*time.Second, name+" goes on after the window", func() bool { return p.ReceivedSince(after) > 20 })
		if gap := p.MaxGap(since); gap > tcpBack+lab.Late(since) || p.Err() != nil {
			s.t.Errorf("%s: gap %v, %v", name, gap, p.Err())
		}
	}
	for name, p := range denied {
		if n := p.ReceivedSince(since); n > 0 {
			s.t.Errorf("%s: %d messages", name, n)
		}
	}
	// Not one packet: neither what the client sends nor what the server does.
	for vm, port := range map[*lab.VM]func(lab.Frame) bool{
		s.vm[2]: lab.TCPTo(5003),
		// A switch that has forgotten where vm3 is floods what vm2 may send it.
		s.vm[1]: func(f lab.Frame) bool { return f.Data[5] == 1 && (lab.TCPTo(5001)(f) || lab.TCPTo(5002)(f)) },
		s.vm[3]: func(f lab.Frame) bool { return f.Data[11] == 1 && (lab.TCPFrom(5001)(f) || lab.TCPFrom(5002)(f)) },
	} {
		if fs := captures[vm].Frames(func(f lab.Frame) bool { return f.At.After(since) && port(f) }); len(fs) > 0 {
			s.t.Errorf("%d packets of denied connections reached %s, the first %v after the switch was killed: %x", len(fs), vm.Port,
				fs[0].At.Sub(since), fs[0].Data)
		}
	}
	s.revalidated()
	must(s.t, s.vm[1].SendTCP(s.vm[2], 41000, 5001, 0x10))
	time.Sleep(passage)
	if n := len(captures[s.vm[2]].Frames(lab.TCPFrom(41000))); n > 0 {
		s.t.Error("a lone ACK passes after the window")
	}
}

func (s *stage) captures() map[*lab.VM]*lab.Capture {
	out := map[*lab.VM]*lab.Capture{}
	for _, vm := range s.vm[1:] {
		capture, err := s.Capture(vm.NS, "eth0")
		must(s.t, err)
		out[vm] = capture
	}
	return out
}

// Scenario 13, with rules that name addresses: the switch is killed, with tapwall or without. What is allowed goes on, whoever opened it
// and whoever sends; of what is denied not one packet passes, from the first.
func TestFirewallScenario13PickupMatrix(t *testing.T) {
	t.Parallel()
	for name, forgets := range map[string]bool{"tapwall remembers": false, "nobody remembers": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, 3, "--pickup-window", "5s")
			s.pickupClosed()
			allowed, denied := s.pickupMatrix()
			s.applyUncached(pickupPolicies)
			captures := s.captures()
			cut := time.Now()
			if forgets {
				must(t, s.tw.Stop())
				must(t, os.RemoveAll(filepath.Join(s.tw.DataDir(), "connections")))
			}
			s.KillVswitchd()
			must(t, s.StartVswitchd())
			up := time.Now()
			if forgets {
				must(t, s.tw.Start())
			} else {
				back := lab.Eventually(t, 2*time.Second, "all flows are back", func() bool {
					h, ok := s.tryHealth()
					return ok && h.OpenFlow == "connected" && h.DesiredFlows > 0 && h.InstalledFlows >= h.DesiredFlows
				})
				t.Logf("flows back %v after the switch's restart", back.Round(time.Millisecond))
			}
			s.takenUp(cut, allowed, denied, captures)
			t.Logf("%d connections live on %v after the switch's restart", len(allowed), time.Since(up).Round(time.Millisecond))
		})
	}
}

// Scenario 13 as ovs-ctl restarts the switch: the flows are saved before and restored, under flow-restore-wait, before tapwall gets a word
// in. It finds its flows in place and a conntrack that has forgotten everything.
func TestFirewallScenario13FlowsRestored(t *testing.T) {
	t.Parallel()
	s := open(t, 3, "--pickup-window", "5s")
	s.pickupClosed()
	allowed, denied := s.pickupMatrix()
	s.applyUncached(pickupPolicies)
	captures, cut := s.captures(), time.Now()
	saved, err := s.Ofctl("dump-flows", "br0", "--no-stats", "--no-names")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(s.Dir, "saved"), []byte(saved), 0o600))
	must(t, syscall.Kill(s.tw.Pid(), syscall.SIGSTOP))
	_, err = s.Vsctl("--no-wait", "set", "Open_vSwitch", ".", "other_config:flow-restore-wait=true")
	must(t, err)
	s.KillVswitchd()
	must(t, s.StartVswitchd())
	lab.Eventually(t, 5*time.Second, "the flows are restored", func() bool {
		_, err := s.Ofctl("replace-flows", "br0", filepath.Join(s.Dir, "saved"))
		return err == nil
	})
	must(t, syscall.Kill(s.tw.Pid(), syscall.SIGCONT))
	_, err = s.Vsctl("--no-wait", "remove", "Open_vSwitch", ".", "other_config", "flow-restore-wait")
	must(t, err)
	lab.Eventually(t, 5*time.Second, "a window opens", func() bool { return len(s.health().Pickups) == 1 })
	s.takenUp(cut, allowed, denied, captures)
}

// Scenario 17: tapwall takes over a bridge with live traffic. What policy allows is not reset, what it denies is cut within a second, and
// when the window is over no flow of it is left.
func TestFirewallScenario17TakeOver(t *testing.T) {
	t.Parallel()
	s := open(t, 3, "--pickup-window", "5s")
	s.apply(pickupPolicies)
	// As a bridge that has never seen tapwall, which has its policies already.
	must(t, s.tw.Stop())
	must(t, os.RemoveAll(filepath.Join(s.tw.DataDir(), "connections")))
	_, err := s.Ofctl("del-flows", "br0")
	must(t, err)
	_, err = s.Ofctl("add-flow", "br0", "priority=0,actions=NORMAL")
	must(t, err)
	allowed, denied := s.pickupMatrix()
	udp := s.datagrams(s.vm[1], s.vm[3], 5001, time.Millisecond)
	s.running(udp)
	captures := s.captures()
	at := time.Now()
	must(t, s.tw.Start())
	lab.Eventually(t, 5*time.Second, "the wall stands", func() bool { return len(s.flows("table=213")) > 0 })
	stands := time.Now()
	s.revalidated() // packets that cached decisions let pass until then are not the wall's
	cut := time.Now()
	if took := cut.Sub(stands); took > time.Second+lab.Late(stands) {
		t.Errorf("denied connections may have gone on for %v", took)
	}
	for name, p := range denied {
		if n := p.ReceivedSince(stands.Add(time.Second + lab.Late(stands))); n > 0 {
			t.Errorf("%s: %d messages came later than a second after the wall stood", name, n)
		}
	}
	s.takenUp(cut, allowed, denied, captures)
	for name, p := range allowed {
		if gap := p.MaxGap(at); gap > tcpBack+lab.Late(at) {
			t.Errorf("%s: gap %v", name, gap)
		}
	}
	s.lossless(udp, "datagrams")
	if n := len(s.flows("table=213")); n > 0 {
		t.Errorf("%d flows of the window are left", n)
	}
}
