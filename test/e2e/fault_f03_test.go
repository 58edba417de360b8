package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// router makes vm2 a router with one leg between vm1 and vm3, which reach each other through it only.
func (s *stage) router() {
	s.t.Helper()
	in := func(vm *lab.VM, args ...string) {
		s.t.Helper()
		if _, err := vm.Run(args[0], args[1:]...); err != nil {
			s.t.Fatal(err)
		}
	}
	a, r, d := s.vm[1], s.vm[2], s.vm[3]
	in(r, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.send_redirects=0",
		"net.ipv4.conf.eth0.send_redirects=0",
		"net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth0.rp_filter=0")
	for _, x := range [][2]*lab.VM{{a, d}, {d, a}} {
		in(x[0], "sysctl", "-qw", "net.ipv4.conf.all.accept_redirects=0", "net.ipv4.conf.eth0.accept_redirects=0",
			"net.ipv6.conf.eth0.accept_redirects=0")
		in(x[0], "ip", "route", "add", x[1].IPv4+"/32", "via", r.IPv4)
		in(x[0], "ip", "-6", "route", "add", x[1].IPv6+"/128", "via", r.IPv6)
	}
}

const (
	declaredRouter = `
kind: Endpoint
name: router
spec: {match: {port: vm2}, forwards: true}
`
	routedSender = `
kind: Policy
name: sender
spec:
  appliesTo: [{port: vm1}]
  egress:
  - {name: out, action: allow, to: [{port: vm2}], services: [{protocol: tcp, ports: ["5001"]}, {protocol: udp, ports: ["5001"]}]}
`
	routedReceiver = `
kind: Policy
name: receiver
spec:
  appliesTo: [{port: vm3}]
  ingress:
  - {name: in, action: allow, from: [{port: vm2}], services: [{protocol: tcp, ports: ["5001"]}, {protocol: udp, ports: ["5001"]}]}
`
)

// F03: what a declared router carries crosses the bridge twice, and each crossing is judged by its own two ends: revocation at either side
// cuts, the other goes on, and nobody gets through the router what he may not.
func TestFault_F03_RouterWithOneLeg(t *testing.T) {
	t.Parallel()
	s := open(t, 4)
	s.router()
	a, d := s.vm[1], s.vm[3]
	s.apply(declaredRouter + "---" + routedSender + "---" + routedReceiver)
	s.pickupClosed()
	var probes []*lab.Probe
	for _, to := range []string{d.IPv4, d.IPv6} {
		for _, start := range []func() (*lab.Probe, error){
			func() (*lab.Probe, error) { return a.EchoTCP(to, 5001, 10*time.Millisecond) },
			func() (*lab.Probe, error) { return a.PushTCP(to, 5001) },
			func() (*lab.Probe, error) { return a.EchoUDP(to, 5001, 10*time.Millisecond) },
		} {
			p, err := start()
			must(t, err)
			t.Cleanup(p.Stop)
			probes = append(probes, p)
		}
	}
	s.running(probes...)
	on := func(what string) {
		t.Helper()
		at := time.Now()
		lab.Eventually(t, 20*time.Second, what, func() bool {
			for _, p := range probes {
				if p.ReceivedSince(at) < 10 {
					return false
				}
			}
			return true
		})
	}
	rechecks := func() int { return s.packets("table=210", "priority=0") }
	before := rechecks()
	on("routed connections live")
	if n := rechecks() - before; n > 20 {
		t.Errorf("%d packets of routed connections were judged anew", n)
	}
	for _, side := range []struct{ name, without, with string }{
		{"sender", strings.Replace(routedSender, `"5001"`, `"5009"`, 2), routedSender},
		{"receiver", strings.Replace(routedReceiver, `"5001"`, `"5009"`, 2), routedReceiver},
	} {
		cut := s.apply(side.without)
		for i, p := range probes {
			s.quiet(p, cut, time.Second, sprintf("probe %d, revoked at the %s", i, side.name))
		}
		s.apply(side.with)
		on("allowed again at the " + side.name)
	}

	// The router may open what it likes and is open itself on 5000 only. Somebody who speaks in its name first does not get in by it.
	s.apply(`
kind: Policy
name: router
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: routed, action: allow, from: [{port: vm1}]}
  - {name: open, action: allow, services: [{protocol: tcp, ports: ["5000"]}, {protocol: udp, ports: ["5000"]}]}
`)
	r, c := s.vm[2], s.vm[4]
	capture, err := s.Capture(r.NS, "eth0")
	must(t, err)
	for round, to := range []string{"02:77:00:00:00:fe", c.MAC, r.MAC} {
		for _, ends := range [][2]string{{c.IPv4, r.IPv4}, {c.IPv6, r.IPv6}} {
			mark := sprintf("f03-%d-", round)
			for range 3 {
				s.send(crossing{name: mark + "forged", from: c, dstMAC: to, src: ends[1], dst: ends[0], ttl: 64, upper: viaUDP(7000, 9000)}, "")
				s.send(crossing{name: mark + "own", from: c, dstMAC: r.MAC, src: ends[0], dst: ends[1], ttl: 64, upper: viaUDP(9000, 7000)}, "")
			}
			s.send(crossing{name: mark + "control", from: c, dstMAC: r.MAC, src: ends[0], dst: ends[1], ttl: 64, upper: viaUDP(9000, 5000)}, "")
		}
	}
	got := func(what string) int {
		return len(capture.Frames(func(f lab.Frame) bool { return strings.Contains(string(f.Data), "-"+what+";") }))
	}
	lab.Eventually(t, 5*time.Second, "what is allowed arrives", func() bool { return got("control") >= 6 })
	time.Sleep(passage)
	if n := got("own"); n != 0 {
		t.Errorf("%d datagrams came in by a connection that was forged in the router's name", n)
	}
	on("routed connections live beside it")
}

// A router that nobody declared is told of.
func TestFault_F03_UndeclaredRouter(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.router()
	s.apply(routedSender + "---" + routedReceiver)
	p, err := s.vm[1].EchoUDP(s.vm[3].IPv4, 5001, 20*time.Millisecond)
	must(t, err)
	t.Cleanup(p.Stop)
	lab.Eventually(t, 15*time.Second, "the status says FORWARDS and of whom", func() bool {
		out, _ := s.tw.Run("status")
		return strings.Contains(out, "FORWARDS") && strings.Contains(out, "vm2")
	})
	s.apply(declaredRouter)
	at := time.Now()
	lab.Eventually(t, 15*time.Second, "declared, it works", func() bool { return p.ReceivedSince(at) > 20 })
}
