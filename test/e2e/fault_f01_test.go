package e2e

import (
	"bytes"
	"encoding/binary"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/test/lab"
)

// stranger is a machine on a port that is no endpoint, as behind an uplink.
func (s *stage) stranger(name string, n int) *lab.VM {
	s.t.Helper()
	vm, err := s.AddVM(name, "br0", n)
	must(s.t, err)
	_, err = s.Vsctl("--", "clear", "interface", name, "external_ids")
	must(s.t, err)
	must(s.t, s.Serve(vm, 5000, 5001, 7000))
	return vm
}

func viaTCP(src, dst layers.TCPPort, flags string) func(string) (layers.IPProtocol, []gopacket.SerializableLayer) {
	return func(payload string) (layers.IPProtocol, []gopacket.SerializableLayer) {
		tcp := &layers.TCP{SrcPort: src, DstPort: dst, Seq: 1000, Ack: 1, Window: 4096, SYN: strings.Contains(flags, "S"),
			ACK: strings.Contains(flags, "A"),
			PSH: strings.Contains(flags, "P")}
		return layers.IPProtocolTCP, []gopacket.SerializableLayer{tcp, gopacket.Payload(payload + ";")}
	}
}

// F01: a station that speaks under another's address to nobody does not open that one's door by it: what it then sends is judged as its
// own.
func TestFault_F01_ForgedReverseConnection(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	b, uplink := s.vm[2], s.stranger("up1", 9)
	s.apply(`
kind: Policy
name: b
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: web, action: allow, services: [{protocol: tcp, ports: ["5001"]}, {protocol: udp, ports: ["5001"]}]}
`)
	s.pickupClosed()
	capture, err := s.Capture(b.NS, "eth0")
	must(t, err)
	unused := "02:77:00:00:00:fe"
	round := 0
	for _, forger := range []*lab.VM{s.vm[3], uplink} {
		for _, ends := range [][2]string{{forger.IPv4, b.IPv4}, {forger.IPv6, b.IPv6}} {
			for _, to := range []string{unused, forger.MAC, b.MAC} { // whom the forged frames are addressed to
				round++
				me, it := ends[0], ends[1]
				port, name := 9000+round, sprintf("r%d", round)
				// The forged opening, then the forger's own packets, which conntrack takes for its replies.
				forged := func(upper func(string) (layers.IPProtocol, []gopacket.SerializableLayer)) {
					s.send(crossing{name: name + "-forged", from: forger, dstMAC: to, src: it, dst: me, ttl: 64, upper: upper}, "")
				}
				own := func(what string, upper func(string) (layers.IPProtocol, []gopacket.SerializableLayer)) {
					s.send(crossing{name: name + "-own-" + what, from: forger, dstMAC: b.MAC, src: me, dst: it, ttl: 64, upper: upper}, "")
				}
				up, tp := layers.UDPPort(port), layers.TCPPort(port)
				for range 4 {
					forged(viaUDP(7000, up))
					own("udp", viaUDP(up, 7000))
					forged(viaTCP(7000, tp, "S"))
					own("synack", viaTCP(tp, 7000, "SA"))
					own("syn", viaTCP(tp, 7000, "S"))
					forged(viaTCP(7000, tp, "A"))
					own("data", viaTCP(tp, 7000, "PA"))
				}
				// By the open door the same arrives, also where a connection that is forged to nobody is in the way.
				if to == unused {
					forged(viaUDP(5001, up))
				}
				own("control", viaUDP(up, 5001))
			}
		}
	}
	if n := len(s.conntrack("sport=7000", "dst=10.77.0.3")); n == 0 {
		t.Error("no connection was forged: the test tests nothing")
	}
	got := func(part string) int {
		return len(capture.Frames(func(f lab.Frame) bool { return bytes.Contains(f.Data, []byte(part)) }))
	}
	for i := range round {
		lab.Eventually(t, 5*time.Second, sprintf("what is allowed arrives, round %d", i+1),
			func() bool { return got(sprintf("r%d-own-control;", i+1)) > 0 })
	}
	time.Sleep(passage)
	for i := range round {
		t.Logf("round %d: %d", i+1, got(sprintf("r%d-own-control;", i+1)))
	}
	for _, what := range []string{"udp", "synack", "syn", "data"} {
		if n := got("-own-" + what + ";"); n != 0 {
			t.Errorf("%s: %d frames came in by the forged connection", what, n)
		}
	}
	s.mustConnect(s.vm[1], b.IPv4, 5001)
	s.mustConnect(b, s.vm[1].IPv6, 5000)
}

// In the same place an honest answer must not be lost: an endpoint that gets a new id goes on getting the answers of connections that it
// opened, though it sends nothing itself.
func TestFault_F01_AnswersOverNewID(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply(`
kind: Policy
name: a
spec:
  appliesTo: [{mac: "02:77:00:00:00:01"}]
  defaultDeny: {ingress: true}
`)
	s.pickupClosed()
	push := s.push(s.vm[1], s.vm[2], 5001)
	answers := map[string]*onlyAnswers{"v4": s.onlyAnswers(s.vm[1], s.vm[2], s.vm[2].IPv4), "v6": s.onlyAnswers(s.vm[1], s.vm[2],
		s.vm[2].IPv6)}
	s.running(push)
	drops := func() int { return s.packets("0x7a9a1102", "actions=drop") }
	ids := func() string { return strings.Join(s.flows("table=200"), "\n") }
	before, dropped, lost := ids(), drops(), s.ownDrops()
	for _, id := range []string{"another", "a-third"} {
		_, err := s.Vsctl("--", "set", "interface", "vm1", "external_ids:iface-id="+id)
		must(t, err)
		lab.Eventually(t, 5*time.Second, "the endpoint has a new id", func() bool { return ids() != before })
		before = ids()
		at := time.Now()
		lab.Eventually(t, 5*time.Second, "answers go on", func() bool { return push.ReceivedSince(at) > 50 })
	}
	for name, a := range answers {
		a.end()
		if sent, got := a.sent.Load(), a.got.Load(); sent < 100 || got < sent-(s.ownDrops()-lost) {
			t.Errorf("%s: %d of %d answers came, and the switch dropped %d packets itself", name, got, sent, s.ownDrops()-lost)
		}
	}
	if n := drops() - dropped; n != 0 {
		out, _ := s.Ofctl("dump-flows", "br0")
		t.Errorf("%d packets were dropped\n%s", n, out)
	}
	if len(s.conntrack("sport=", "dport=5001")) == 0 {
		t.Error("conntrack knows nothing of the connection")
	}
	// The door is shut all the time for what the endpoint did not ask for.
	s.mustNotConnect(s.vm[2], s.vm[1].IPv4, 5001)
}

// onlyAnswers asks once by UDP and counts the answers, 200 a second.
type onlyAnswers struct {
	sent, got atomic.Int64
	server    net.PacketConn
	client    net.Conn
	stop      chan struct{}
	done      chan struct{}
}

func (s *stage) onlyAnswers(from, to *lab.VM, address string) *onlyAnswers {
	s.t.Helper()
	a := &onlyAnswers{stop: make(chan struct{}), done: make(chan struct{})}
	must(s.t, to.Do(func() (err error) {
		a.server, err = net.ListenPacket("udp", net.JoinHostPort(address, "6000"))
		return err
	}))
	var err error
	a.client, err = from.Dial("udp", address, 6000, 2*time.Second)
	must(s.t, err)
	s.t.Cleanup(func() { _, _ = a.server.Close(), a.client.Close() })
	_, err = a.client.Write([]byte("go on"))
	must(s.t, err)
	buf := make([]byte, 64)
	must(s.t, a.server.SetReadDeadline(time.Now().Add(5*time.Second)))
	_, peer, err := a.server.ReadFrom(buf)
	must(s.t, err)
	go func() {
		defer close(a.done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-a.stop:
				return
			case <-tick.C:
			}
			if _, err := a.server.WriteTo(binary.BigEndian.AppendUint64(nil, uint64(a.sent.Add(1))), peer); err != nil {
				return
			}
		}
	}()
	go func() {
		buf, seen := make([]byte, 64), map[uint64]bool{}
		for {
			n, err := a.client.Read(buf)
			if err != nil {
				return
			}
			if id := binary.BigEndian.Uint64(buf[:n]); !seen[id] {
				seen[id] = true
				a.got.Add(1)
			}
		}
	}()
	return a
}

// end stops the server and waits for what is on its way.
func (a *onlyAnswers) end() {
	close(a.stop)
	<-a.done
	for range 200 {
		if a.got.Load() >= a.sent.Load() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
