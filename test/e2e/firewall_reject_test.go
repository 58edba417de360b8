package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// mustBeRefused tries a TCP connection, which has to fail with a reset within a second.
func (s *stage) mustBeRefused(from *lab.VM, to string, port int) {
	s.t.Helper()
	start := time.Now()
	c, err := from.Dial("tcp", to, port, 3*time.Second)
	if err == nil {
		_ = c.Close()
	}
	if took := time.Since(start); !errors.Is(err, syscall.ECONNREFUSED) || took > time.Second+lab.Late(start) {
		s.t.Errorf("%s to %s port %d: %v after %v, want a refusal", from.Port, to, port, err, took)
	}
}

// mustBeUnreachable sends a datagram, for which the socket has to get an error within a second.
func (s *stage) mustBeUnreachable(from *lab.VM, to string, port int) {
	s.t.Helper()
	c, err := from.Dial("udp", to, port, time.Second)
	must(s.t, err)
	defer c.Close()
	start := time.Now()
	_, err = c.Write([]byte("hello"))
	must(s.t, err)
	must(s.t, c.SetReadDeadline(start.Add(3*time.Second)))
	_, err = c.Read(make([]byte, 10))
	if took := time.Since(start); !errors.Is(err, syscall.ECONNREFUSED) || took > time.Second+lab.Late(start) {
		s.t.Errorf("%s to %s port %d: %v after %v, want a refusal", from.Port, to, port, err, took)
	}
}

func (s *stage) answers(outcome string) float64 {
	return s.metric(`tapwall_reject_answers_total{bridge="br0",outcome="` + outcome + `"}`)
}

// What a rule rejects is answered at once: TCP by a reset, UDP by an error that names the port, by the rules of the sender as by those of
// the receiver, and both by IPv4 and IPv6. A deny of the other side stays silent. It is recorded and counted. Without tapwall it is
// dropped.
func TestFirewallRejectTellsTheSender(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.applyUncached(`
kind: Policy
name: web
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: "no", action: reject, services: [{protocol: tcp, ports: ["5000", "5003"]}, {protocol: udp}, {protocol: icmp}, {protocol: ` +
		`icmpv6}], log: true}
  - {name: never, action: deny, services: [{protocol: tcp, ports: ["5003"]}]}
  - {name: "yes", action: allow, services: [{protocol: tcp, ports: ["5000-5002"]}]}
---
kind: Policy
name: office
spec:
  appliesTo: [{port: vm3}]
  defaultDeny: {egress: false}
  egress:
  - {name: not-there, action: reject, services: [{protocol: tcp, ports: ["5002", "5004"]}, {protocol: udp}]}
`)
	a, b, c := s.vm[1], s.vm[2], s.vm[3]
	capture, err := s.Capture(b.NS, "eth0")
	must(t, err)
	s.mustConnect(a, b.IPv4, 5001)
	for _, to := range []string{b.IPv4, b.IPv6} {
		s.mustBeRefused(a, to, 5000)
		s.mustBeUnreachable(a, to, 5000)
		s.mustTimeOut(a, to, 5003)
		s.mustTimeOut(a, to, 5004) // by default
	}
	for _, to := range []string{a.IPv4, a.IPv6} {
		s.mustBeRefused(c, to, 5002)
		s.mustBeUnreachable(c, to, 5002)
	}
	s.mustConnect(c, a.IPv4, 5001)
	s.mustTimeOut(c, b.IPv4, 5004) // its sender rejects it and its receiver denies it
	for _, to := range []string{b.IPv4, b.IPv6} {
		if out, err := a.Run("ping", "-c", "1", "-W", "2", to); err == nil || !strings.Contains(string(out), "rohibited") &&
			!strings.Contains(string(out), "filtered") {
			t.Errorf("ping %s: %v\n%s", to, err, out)
		}
	}
	if n := len(capture.Frames(lab.TCPTo(5000))) + len(capture.Frames(lab.UDPTo(5000))); n > 0 {
		t.Errorf("%d rejected packets arrived", n)
	}
	if n := len(capture.Frames(lab.TCPTo(5001))); n == 0 {
		t.Error("the capture saw nothing, so it proves nothing")
	}
	lab.Eventually(t, 5*time.Second, "what was rejected is recorded as that", func() bool {
		for _, v := range s.events("--verdict", "REJECTED", "--last", "50") {
			if v.Rule.ID == "web/ingress/no" && v.Network.Transport == "tcp" {
				return true
			}
		}
		return false
	})
	lab.Eventually(t, 10*time.Second, "rules count what they reject", func() bool {
		return s.counted("web").rules["no"] > 3 && s.counted("office").rules["not-there"] > 2
	})
	if n := s.answers("sent"); n < 10 {
		t.Errorf("%v answers were sent", n)
	}

	s.tw.Kill()
	s.mustTimeOut(a, b.IPv4, 5000)
	s.mustConnect(a, b.IPv4, 5001)
}

// Connections that a reject comes over end for whoever sends, by numbers that he believes; in mode audit nothing happens to them.
func TestFirewallRejectEndsConnections(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	doc := func(mode string) string {
		return sprintf(`
kind: Policy
name: later
spec:
  mode: %s
  appliesTo: [{port: vm2}]
  defaultDeny: {ingress: false}
  ingress: [{name: over, action: reject, services: [{protocol: tcp, ports: ["5001", "5002"]}, {protocol: udp}], log: true}]
`, mode)
	}
	a, b := s.vm[1], s.vm[2]
	four, served := s.echo(a, b, 5001), s.push(a, b, 5002) // of the second, the server alone sends
	p, err := a.EchoTCP(b.IPv6, 5001, 10*time.Millisecond)
	must(t, err)
	t.Cleanup(p.Stop)
	other := s.echo(a, b, 5003)
	s.running(four, served, p, other)
	s.applyUncached(doc("audit")) // a cached decision makes no record
	s.mustConnect(a, b.IPv4, 5002)
	lab.Eventually(t, 5*time.Second, "what would be rejected is recorded", func() bool {
		return len(s.events("--verdict", "AUDIT", "--last", "10")) > 0
	})
	s.lossless(four, "what would be rejected")

	s.applyUncached(doc("enforce"))
	for name, x := range map[string]*lab.Probe{"IPv4": four, "IPv6": p} {
		lab.Eventually(t, 2*time.Second, name+": the client is told", func() bool { return errors.Is(x.Err(), syscall.ECONNRESET) })
	}
	s.mustBeRefused(a, b.IPv4, 5001)
	s.lossless(other, "what is not rejected")
	// The server's end of each is told too, also where it alone sends.
	lab.Eventually(t, 5*time.Second, "the server is told", func() bool {
		out, err := b.Run("ss", "-Htn", "state", "established", "sport = :5001 or sport = :5002")
		must(t, err)
		return strings.TrimSpace(string(out)) == ""
	})
}

// Nothing answers a reset or an error: not one about an established connection, nor one out of nothing.
func TestFirewallRejectDoesNotAnswerAnswers(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	a, b := s.vm[1], s.vm[2]
	connect := func() *net.TCPConn {
		c, err := a.Dial("tcp", b.IPv4, 5001, 3*time.Second)
		must(t, err)
		return c.(*net.TCPConn)
	}
	first, second := connect(), connect()
	defer second.Close()
	s.applyUncached(`
kind: Policy
name: shut
spec:
  appliesTo: [{port: vm2}]
  ingress: [{name: all, action: reject}]
`)
	capture, err := s.Capture(a.NS, "eth0")
	must(t, err)
	dropped := func() int { return s.packets("cookie=0x7a9a1102") }
	before := dropped()
	must(t, first.SetLinger(0))
	must(t, first.Close()) // a reset
	for _, u := range []upper{icmpOf(3, 3, 1), icmpOf(11, 0, 2), icmpOf(5, 0, 3), icmpOf(0, 0, 4)} {
		s.send(crossing{from: a, dstMAC: b.MAC, src: a.IPv4, dst: b.IPv4, ttl: 64, upper: u}, "error")
	}
	for _, u := range []upper{icmpv6Of(1, 4, 5), icmpv6Of(3, 0, 6), icmpv6Of(129, 0, 7)} {
		s.send(crossing{from: a, dstMAC: b.MAC, src: a.IPv6, dst: b.IPv6, ttl: 64, upper: u}, "error")
	}
	must(t, a.SendTCP(b, 40001, 5001, 0x14)) // RST, ACK
	lab.Eventually(t, 5*time.Second, "all of that is dropped", func() bool { return dropped() >= before+9 })
	lab.Eventually(t, 5*time.Second, "the reset of a connection was not answered", func() bool { return s.answers("unanswerable") == 1 })
	if n := s.answers("sent"); n > 0 {
		t.Errorf("%v answers were sent", n)
	}
	if fs := capture.Frames(func(f lab.Frame) bool {
		return f.Data[12] == 8 && f.Data[13] == 0 || f.Data[12] == 0x86 && (f.Data[20] == 6 || f.Data[20] == 58 && f.Data[54] < 128)
	}); len(fs) > 0 {
		t.Errorf("%d frames came back, the first %x", len(fs), fs[0].Data)
	}

	_, err = second.Write([]byte("hello"))
	must(t, err)
	lab.Eventually(t, 2*time.Second, "data is answered by a reset", func() bool {
		return len(capture.Frames(func(f lab.Frame) bool { return lab.TCPFrom(5001)(f) && f.Data[47]&4 != 0 })) > 0
	})
}

// Answers have the tag that the port expects: none at an access port, that of the packet at a trunk.
func TestFirewallRejectInVLANs(t *testing.T) {
	t.Parallel()
	s := ground(t, 3, []string{"tag=10"}, []string{"tag=10"})
	s.wall()
	s.applyUncached(`
kind: Policy
name: shut
spec:
  appliesTo: [{port: vm2}]
  ingress: [{name: all, action: reject}]
`)
	a, b, trunk := s.vm[1], s.vm[2], s.vm[3]
	capture, err := s.Capture(trunk.NS, "eth0")
	must(t, err)
	for _, to := range []string{b.IPv4, b.IPv6} {
		s.mustBeRefused(a, to, 5001)
		s.mustBeUnreachable(a, to, 5001)
	}
	etherType, packet := datagram(t, trunk.IPv4, b.IPv4, 4000, 5001, "from a trunk")
	must(t, trunk.Send(ethernet(parseMAC(t, b.MAC), parseMAC(t, trunk.MAC), []tag{{0x8100, 10}}, etherType, packet)))
	lab.Eventually(t, 2*time.Second, "the answer has the tag of the question", func() bool {
		return len(capture.Frames(func(f lab.Frame) bool {
			return len(f.Data) > 42 && binary.BigEndian.Uint32(f.Data[12:]) == 0x8100000a && bytes.HasPrefix(f.Data[16:], []byte{8, 0}) &&
				f.Data[27] == 1 && bytes.Equal(f.Data[38:40], []byte{3, 3}) && bytes.Contains(f.Data, []byte("from a trunk"))
		})) == 1
	})
}

// Two that reject each other get one answer to each packet that they send, and nothing of each other.
func TestFirewallRejectOfBothSides(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.applyUncached(`
kind: Policy
name: shut
spec:
  appliesTo: [{port: vm1}, {port: vm2}]
  ingress: [{name: in, action: reject}]
  egress: [{name: out, action: reject}]
`)
	a, b := s.vm[1], s.vm[2]
	errorsAt := func(vm *lab.VM) func() int {
		c, err := s.Capture(vm.NS, "eth0")
		must(t, err)
		return func() int { return len(c.Frames(func(f lab.Frame) bool { return f.Data[12] == 8 && f.Data[13] == 0 })) }
	}
	atA, atB := errorsAt(a), errorsAt(b)
	for i := range 20 {
		s.send(crossing{from: a, dstMAC: b.MAC, src: a.IPv4, dst: b.IPv4, ttl: 64, upper: udpFrom(4000+i, 5001)}, "a")
		s.send(crossing{from: b, dstMAC: a.MAC, src: b.IPv4, dst: a.IPv4, ttl: 64, upper: synFrom(4000+i, 5001)}, "b")
	}
	lab.Eventually(t, 5*time.Second, "each packet is answered", func() bool { return atA() == 20 && atB() == 20 })
	time.Sleep(300 * time.Millisecond)
	if x, y := atA(), atB(); x != 20 || y != 20 || s.answers("sent") != 40 {
		t.Errorf("%d and %d answers to 20 packets each, %v sent", x, y, s.answers("sent"))
	}
}

// A flood of what is rejected is answered as far as the meter goes; others notice nothing.
func TestFirewallRejectFlood(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.applyUncached(`
kind: Policy
name: web
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: "no", action: reject, services: [{protocol: udp}]}
  - {name: "yes", action: allow, services: [{protocol: tcp, ports: ["5001"]}]}
`)
	a, b := s.vm[1], s.vm[2]
	allowed := s.echo(s.vm[3], b, 5001)
	s.running(allowed)
	var frames [][]byte
	for i := range 100 {
		frames = append(frames, s.frame(crossing{from: a, dstMAC: b.MAC, src: a.IPv4, dst: b.IPv4, ttl: 64, upper: udpFrom(1024+i, 5001)},
			"flood"))
	}
	start := time.Now()
	sent := 0
	for ; sent < 5000; time.Sleep(5 * time.Millisecond) {
		for due := int(2000 * time.Since(start).Seconds()); sent < due; sent += len(frames) {
			must(t, a.Send(frames...))
		}
	}
	took := time.Since(start)
	s.lossless(allowed, "beside a flood of what is rejected")
	if gap, most := allowed.MaxGap(start), 500*time.Millisecond+lab.Late(start); gap > most {
		t.Errorf("an allowed stream stopped for %v", gap)
	}
	// A busy machine may take its time for the flood; then the meter, which lets 1,000 at once and 500 a second pass, withholds less.
	most := 1000 + 500*(took.Seconds()+1)
	if withheld := float64(sent) - most; withheld > 0 {
		lab.Eventually(t, 15*time.Second, "what the meter withholds is counted", func() bool { return s.answers("metered") >= withheld/2 })
	}
	if n := s.answers("sent"); n < 100 || n > most {
		t.Errorf("%v of %d packets were answered in %v, want at most %v", n, sent, took, most)
	}
	s.mustBeUnreachable(a, b.IPv4, 5002)
}
