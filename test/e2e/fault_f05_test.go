package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// remembered waits until tapwall has noted, since a moment, who opened the connections, each given by its port there.
func (s *stage) remembered(since time.Time, parts ...string) {
	s.t.Helper()
	file := filepath.Join(s.tw.DataDir(), "connections", "br0.json")
	lab.Eventually(s.t, 30*time.Second, "the connections are remembered", func() bool {
		info, err := os.Stat(file)
		text, err2 := os.ReadFile(file)
		if err != nil || err2 != nil || !info.ModTime().After(since) {
			return false
		}
		for _, p := range parts {
			if !strings.Contains(string(text), p) {
				return false
			}
		}
		return true
	})
}

// restartSwitch kills ovs-vswitchd and starts it again; conntrack is empty then.
func (s *stage) restartSwitch() time.Time {
	s.t.Helper()
	s.KillVswitchd()
	must(s.t, s.StartVswitchd())
	up := time.Now()
	lab.Eventually(s.t, 10*time.Second, "all flows are back", func() bool {
		h, ok := s.tryHealth()
		return ok && h.OpenFlow == "connected" && h.DesiredFlows > 0 && h.InstalledFlows >= h.DesiredFlows
	})
	return up
}

const isolatedB = `
kind: Policy
name: b
spec:
  appliesTo: [{port: vm2}]
  defaultDeny: {ingress: true}
`

// F05: the switch restarts and conntrack forgets who opened what. What an isolated machine opened itself goes on, by whomever it is
// spoken on, v4 and v6, during the window and after; what was opened to it and revoked stays dead; also when tapwall went down with the
// switch.
func TestFault_F05_PickupOfIsolated(t *testing.T) {
	for _, with := range []string{"switch", "tapwall and switch"} {
		t.Run(with, func(t *testing.T) {
			t.Parallel()
			s := open(t, 3, "--pickup-window", "5s")
			b, world := s.vm[2], s.stranger("up1", 9)
			s.apply(isolatedB + `
  ingress:
  - {name: door, action: allow, from: [{port: vm3}], services: [{protocol: tcp, ports: ["5000-5005"]}]}
`)
			s.pickupClosed()
			probe := func(kind string, from *lab.VM, to string, port int) *lab.Probe {
				t.Helper()
				open := func() (*lab.Probe, error) { return from.EchoTCP(to, port, 10*time.Millisecond) }
				if kind == "push" {
					open = func() (*lab.Probe, error) { return from.PushTCP(to, port) }
				}
				p, err := open()
				must(t, err)
				t.Cleanup(p.Stop)
				return p
			}
			own := map[string]*lab.Probe{}
			for name, to := range map[string]string{"endpoint v4": s.vm[1].IPv4, "endpoint v6": s.vm[1].IPv6, "world v4": world.IPv4,
				"world v6": world.IPv6} {
				own[name+", echo"], own[name+", push"] = probe("echo", b, to, 5000), probe("push", b, to, 5001)
			}
			revoked := map[string]*lab.Probe{
				"echo v4": probe("echo", s.vm[3], b.IPv4, 5002), "push v4": probe("push", s.vm[3], b.IPv4, 5003),
				"echo v6": probe("echo", s.vm[3], b.IPv6, 5004), "push v6": probe("push", s.vm[3], b.IPv6, 5005),
			}
			for _, p := range own {
				s.running(p)
			}
			for _, p := range revoked {
				s.running(p)
			}
			cut := s.apply(isolatedB)
			for name, p := range revoked {
				s.quiet(p, cut, time.Second, name)
			}
			s.remembered(time.Now(), s.vm[1].IPv4, s.vm[1].IPv6, world.IPv4, world.IPv6)

			if with != "switch" {
				s.tw.Kill()
				s.KillVswitchd()
				must(t, s.StartVswitchd())
				must(t, s.tw.Start())
			} else {
				s.restartSwitch()
			}
			up := time.Now()
			for name, p := range own {
				lab.Eventually(t, 20*time.Second, name+" goes on", func() bool { return p.ReceivedSince(up) > 20 })
			}
			s.pickupClosed()
			after := time.Now()
			for name, p := range own {
				lab.Eventually(t, 10*time.Second, name+" goes on after the window", func() bool { return p.ReceivedSince(after) > 20 })
				if p.Err() != nil {
					t.Errorf("%s: %v", name, p.Err())
				}
			}
			for name, p := range revoked {
				if n := p.ReceivedSince(cut.Add(time.Second)); n > 0 {
					t.Errorf("%s: %d messages came after the revocation", name, n)
				}
			}
			// In conntrack nothing stands reversed: B opened what it opened, and nothing of what was revoked is there.
			if n := len(s.conntrack("orig=(src="+b.IPv4+",dst="+s.vm[3].IPv4)) + len(s.conntrack("orig=(src="+b.IPv6+",dst="+s.vm[3].IPv6)); n > 0 {
				t.Errorf("%d connections stand as if the isolated machine had opened them", n)
			}
			if n := len(s.conntrack("orig=(src=" + b.IPv4 + ",dst=" + s.vm[1].IPv4)); n != 2 {
				t.Errorf("conntrack holds %d of the 2 connections that the isolated machine opened", n)
			}
		})
	}
}

// F05: at the first take-over of a busy bridge nothing is known. A default then keeps no connection whose other orientation is denied,
// and how much that cut is told.
func TestFault_F05_FirstTakeOver(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.apply(isolatedB + `
  ingress:
  - {name: door, action: allow, from: [{port: vm1}], services: [{protocol: tcp, ports: ["5001"]}]}
`)
	must(t, s.tw.Stop())
	must(t, os.RemoveAll(filepath.Join(s.tw.DataDir(), "connections")))
	_, err := s.Ofctl("del-flows", "br0")
	must(t, err)
	_, err = s.Ofctl("add-flow", "br0", "priority=0,actions=NORMAL")
	must(t, err)
	allowed := s.echo(s.vm[1], s.vm[2], 5001)
	denied := []*lab.Probe{s.echo(s.vm[3], s.vm[2], 5001), s.push(s.vm[3], s.vm[2], 5002), s.echo(s.vm[1], s.vm[2], 5003)}
	s.running(append(denied, allowed)...)
	must(t, s.tw.Start())
	up := time.Now()
	lab.Eventually(t, 10*time.Second, "what a rule allows goes on", func() bool { return allowed.ReceivedSince(up) > 20 })
	s.pickupClosed()
	for i, p := range denied {
		if n := p.ReceivedSince(up.Add(time.Second)); n > 0 {
			t.Errorf("denied connection %d: %d messages came", i, n)
		}
	}
	at := time.Now()
	lab.Eventually(t, 5*time.Second, "it goes on after the window", func() bool { return allowed.ReceivedSince(at) > 20 })
	if h := s.health(); h.NotTakenUp == 0 {
		t.Error("the status does not tell what the window cut")
	}
}

// A window of 0 s is none: the pickup tables stay empty, and what is older than conntrack's memory is dropped.
func TestFault_F05_NoWindow(t *testing.T) {
	t.Parallel()
	s := open(t, 2, "--pickup-window", "0s")
	s.apply(isolatedB + `
  ingress:
  - {name: door, action: allow, from: [{port: vm1}], services: [{protocol: tcp, ports: ["5001"]}, {protocol: udp, ports: ["5001"]}]}
`)
	echo, udp := s.echo(s.vm[1], s.vm[2], 5001), s.datagrams(s.vm[1], s.vm[2], 5001, 10*time.Millisecond)
	s.running(echo, udp)
	up := s.restartSwitch()
	lab.Eventually(t, 10*time.Second, "datagrams go on", func() bool { return udp.ReceivedSince(up) > 20 })
	if n := len(s.flows("table=213")); n != 0 {
		t.Errorf("%d flows of a pickup window", n)
	}
	if n := echo.ReceivedSince(up); n > 0 {
		t.Errorf("%d messages of a TCP connection from before the restart came through", n)
	}
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
}
