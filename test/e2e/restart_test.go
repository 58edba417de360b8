package e2e

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

const restartPolicy = `
kind: Policy
name: vm2
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: from-vm1, action: allow, from: [{port: vm1}], services: [{protocol: tcp, ports: ["5001-5002"]}, {protocol: udp, ports: ` +
	`["5001"]}]}
`

// tcpBack is how long a TCP stream may be silent where the switch was away for 2 s: it sends again some 0.2, 0.6, 1.4 and 3 s after what
// was not answered.
const tcpBack = 3500 * time.Millisecond

// reconnector opens a connection every 100 ms and counts how it went; for late ones, which did not open, the machine was too busy.
type reconnector struct {
	tried, opened, late atomic.Int64
	stop                chan struct{}
	attempts            sync.WaitGroup
}

func (s *stage) reconnect(from, to *lab.VM, port int) *reconnector {
	r := &reconnector{stop: make(chan struct{})}
	r.attempts.Go(func() {
		for every := time.Tick(100 * time.Millisecond); ; {
			select {
			case <-r.stop:
				return
			case <-every:
			}
			r.tried.Add(1)
			r.attempts.Go(func() {
				const most = 900 * time.Millisecond // less than the 1 s after which TCP sends a lost SYN again
				switch began := time.Now(); {
				case from.CanConnect(to.IPv4, port, most):
					r.opened.Add(1)
				case lab.Late(began) > most:
					r.late.Add(1)
				}
			})
		}
	})
	s.t.Cleanup(r.end)
	return r
}

func (r *reconnector) end() {
	select {
	case <-r.stop:
	default:
		close(r.stop)
	}
	r.attempts.Wait()
}

// Scenario 12: tapwall is killed under load. Established and new traffic does not notice; the restart finds nothing to do, and no counter
// goes back: what passed meanwhile counts. `make soak` runs all of its 30 s.
func TestFirewallScenario12ControllerKilled(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply(restartPolicy)
	s.pickupClosed()
	echo, push := s.echo(s.vm[1], s.vm[2], 5001), s.push(s.vm[1], s.vm[2], 5002)
	udp := s.datagrams(s.vm[1], s.vm[2], 5001, time.Millisecond)
	s.running(echo, push, udp)
	lab.Eventually(t, 3*time.Second, "the rule counts", func() bool { return s.rule("vm2", "from-vm1").Packets > 0 })
	const byRule, byReason = "tapwall_rule_packets_total{", "tapwall_dropped_packets_total{"
	samples := func() map[string]float64 {
		all, err := s.scrape()
		must(t, err)
		return all
	}
	allowed, denied := s.reconnect(s.vm[1], s.vm[2], 5002), s.reconnect(s.vm[1], s.vm[2], 5003)
	lab.Eventually(t, 5*time.Second, "connections are denied", func() bool { return denied.tried.Load() > 5 })
	counted, before := samples(), s.flows()
	rule, sent, killed := s.rule("vm2", "from-vm1").Packets, udp.Sent(), time.Now()
	s.tw.Kill()
	time.Sleep(whole(30*time.Second, 8*time.Second))
	started := time.Now()
	must(t, s.tw.Start())
	t.Logf("ready again after %v", time.Since(started).Round(time.Millisecond))
	meanwhile := uint64(udp.Sent() - sent)
	lab.Eventually(t, 10*time.Second, "what passed meanwhile is counted", func() bool {
		return s.rule("vm2", "from-vm1").Packets >= rule+meanwhile
	})
	allowed.end()
	denied.end()
	if n := allowed.opened.Load(); n+allowed.late.Load() != allowed.tried.Load() || n < 80 {
		t.Errorf("%d of %d allowed connections opened, %d were late", n, allowed.tried.Load(), allowed.late.Load())
	}
	if denied.opened.Load() != 0 || denied.tried.Load() < 80 {
		t.Errorf("%d of %d denied connections opened", denied.opened.Load(), denied.tried.Load())
	}
	s.lossless(echo, "established TCP")
	s.lossless(udp, "established UDP")
	if gap := push.MaxGap(killed); gap > 300*time.Millisecond+lab.Late(killed) || push.Err() != nil {
		t.Errorf("what the server pushes stood still for %v: %v", gap, push.Err())
	}
	if after := s.flows(); strings.Join(after, "\n") != strings.Join(before, "\n") {
		t.Errorf("the flow table differs after the restart:\n%s\n---\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if n := s.health().FlowMods; n != 0 {
		t.Errorf("the restart sent %d flow-mods", n)
	}
	compared, now := 0, samples()
	for name, n := range counted {
		if strings.Contains(name, "unattributed") {
			continue // a restart counts it for the rule, see docs/policies.md
		}
		if strings.HasPrefix(name, byRule) || strings.HasPrefix(name, byReason) {
			if compared++; now[name] < n {
				t.Errorf("%s went back from %g to %g", name, n, now[name])
			}
		}
	}
	if compared < 2 {
		t.Error("no counters of rules and drops were compared")
	}
}

// A restart with nothing changed writes nothing to OVSDB either, with a mirror in place.
func TestRestartWritesNothing(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply(restartPolicy + `
---
kind: Mirror
name: tap
spec:
  sources: [{port: vm2}]
  targets: [{port: {name: ids0, create: true}}]
`)
	s.pickupClosed()
	cfg := func() string {
		out, err := s.Vsctl("get", "Open_vSwitch", ".", "next_cfg")
		must(t, err)
		return strings.TrimSpace(out)
	}
	must(t, s.tw.Stop())
	before := cfg()
	must(t, s.tw.Start())
	s.tapwall("get", "mirrors")
	time.Sleep(time.Second)
	if after := cfg(); after != before {
		t.Errorf("next_cfg went from %s to %s", before, after)
	}
	if n := s.health().FlowMods; n != 0 {
		t.Errorf("the restart sent %d flow-mods", n)
	}
}

// Scenario 13: the switch is killed. Everything is back within 2 s of its socket, denied traffic never passes, TCP survives, and when
// the pickup window is over a lone ACK is dropped again.
func TestFirewallScenario13SwitchKilled(t *testing.T) {
	t.Parallel()
	s := open(t, 2, "--pickup-window", "6s")
	s.apply(restartPolicy)
	// A connection that is picked up must be older than the window of the first start.
	s.pickupClosed()
	echo, push := s.echo(s.vm[1], s.vm[2], 5001), s.push(s.vm[1], s.vm[2], 5002)
	udp := s.datagrams(s.vm[1], s.vm[2], 5001, 10*time.Millisecond)
	s.running(echo, push, udp)
	capture, err := s.Capture(s.vm[2].NS, "eth0")
	must(t, err)
	never := s.datagrams(s.vm[1], s.vm[2], 5003, time.Millisecond)
	t0 := time.Now()
	s.KillVswitchd()
	time.Sleep(500 * time.Millisecond)
	must(t, s.StartVswitchd())
	up := time.Now()
	fresh := make(chan time.Duration, 1)
	go func() {
		for end := up.Add(10 * time.Second); time.Now().Before(end); {
			if s.vm[1].CanConnect(s.vm[2].IPv4, 5001, 100*time.Millisecond) {
				break
			}
		}
		fresh <- time.Since(up)
	}()
	back := lab.Eventually(t, 2*time.Second, "all flows are back", func() bool {
		h, ok := s.tryHealth()
		return ok && h.OpenFlow == "connected" && h.DesiredFlows > 0 && h.InstalledFlows >= h.DesiredFlows
	})
	t.Logf("flows back %v after the switch's restart, a new connection %v after", back.Round(time.Millisecond),
		(<-fresh).Round(time.Millisecond))
	lab.Eventually(t, 5*time.Second, "probes go on", func() bool {
		return echo.ReceivedSince(up) > 20 && push.ReceivedSince(up) > 20 && udp.ReceivedSince(up) > 20
	})
	for name, p := range map[string]*lab.Probe{"echo": echo, "push": push, "datagrams": udp} {
		most := tcpBack
		if p == udp {
			most = 3 * time.Second
		}
		if gap := p.MaxGap(t0); gap > most+lab.Late(t0) || p.Err() != nil {
			t.Errorf("%s: gap %v, %v", name, gap, p.Err())
		} else {
			t.Logf("%s: gap %v", name, gap.Round(time.Millisecond))
		}
	}
	if n := len(capture.Frames(lab.UDPTo(5003))); n != 0 {
		t.Errorf("%d of %d denied datagrams passed", n, never.Sent())
	}
	must(t, s.vm[1].SendTCP(s.vm[2], 41000, 5004, 0x10)) // a lone ACK to a denied port, inside the window
	lab.Eventually(t, 15*time.Second, "the pickup flows are gone", func() bool { return len(s.flows("table=213")) == 0 })
	s.revalidated()                                      // cached flows of the window live some ms longer
	must(t, s.vm[1].SendTCP(s.vm[2], 41001, 5001, 0x10)) // to an allowed port, after the window
	time.Sleep(300 * time.Millisecond)
	for _, f := range capture.Frames(nil) {
		if lab.TCPFrom(41001)(f) {
			t.Error("a lone ACK passed after the window")
		}
	}
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5003)
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	if es := s.conntrack("src="+s.vm[1].IPv4, "dport=5002"); len(es) != 1 || uint32(es[0].label) != s.rule("vm2", "from-vm1").ID {
		t.Errorf("the picked-up stream does not carry its rule: %v", es)
	}
}

// What others do to our flows is noticed and mended; what is theirs stays.
func TestForeignHands(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply(restartPolicy)
	foreign := "cookie=0x1234,table=100,priority=7,ip,nw_dst=192.0.2.1,actions=drop"
	_, err := s.Ofctl("add-flow", "br0", foreign)
	must(t, err)
	want := len(s.flows("table=205")) + len(s.flows("table=206"))
	_, err = s.Ofctl("del-flows", "br0", "table=206")
	must(t, err)
	took := lab.Eventually(t, 3*time.Second, "deleted flows are back", func() bool {
		return len(s.flows("table=205"))+len(s.flows("table=206")) == want
	})
	t.Logf("flows back after %v", took)
	s.apply(strings.Replace(restartPolicy, "5001-5002", "5001-5003", 1))
	if got := s.flows("table=100"); len(got) != 1 || !strings.Contains(got[0], "cookie=0x1234") {
		t.Errorf("the foreign flow is now %q", got)
	}
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5004)
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5003)
}

// A database server that restarts or hangs costs nothing but time.
func TestOVSDBRestartAndHang(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply(restartPolicy)
	echo := s.echo(s.vm[1], s.vm[2], 5001)
	s.running(echo)
	s.KillOVSDB()
	time.Sleep(300 * time.Millisecond)
	must(t, s.StartOVSDB())
	s.apply(strings.Replace(restartPolicy, "5001-5002", "5001-5003", 1))
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5003)
	must(t, s.PauseOVSDB(true))
	// Rules need no database.
	s.applyUncached(restartPolicy)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5003)
	must(t, s.PauseOVSDB(false))
	vm3, err := s.AddVM("vm3", "br0", 3)
	must(t, err)
	must(t, s.Serve(vm3, 5001))
	lab.Eventually(t, 15*time.Second, "a port that came after the hang works", func() bool {
		return s.vm[1].CanConnect(vm3.IPv4, 5001,
			time.Second)
	})
	s.lossless(echo, "traffic meanwhile")
}

// A new port passes nothing until its flows stand, and that is soon.
func TestNewPort(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply(restartPolicy)
	_, err := s.AddVM("vm3", "br0", 3)
	must(t, err)
	added := time.Now()
	lab.Eventually(t, 2*time.Second, "the port is classified", func() bool {
		return strings.Contains(strings.Join(s.flows("table=202"), "\n"), "02:77:00:00:00:03")
	})
	t.Logf("flows of a new port stand %v after ovs-vsctl returned", time.Since(added).Round(time.Millisecond))
	if s.ping(s.VMs["vm3"], s.vm[2].IPv4) {
		t.Error("the new machine reaches an isolated one")
	}
	if !s.ping(s.VMs["vm3"], s.vm[1].IPv4) {
		t.Error("the new machine does not reach an open one")
	}
}
