package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/test/lab"
)

// Attacks on the ends of connections: machines that trade places, a third machine that speaks about others' connections, routers in a row.

const isolatedVM2 = "kind: Policy\nname: b\nspec:\n  appliesTo: [{port: vm2}]\n  defaultDeny: {ingress: true}\n"

// say sends a datagram that is what it claims to be.
func (s *stage) say(from, to *lab.VM, srcPort, dstPort int, payload string) {
	s.t.Helper()
	s.tell(from, to, nil, to.MAC, from.IPv4, to.IPv4, srcPort, dstPort, payload)
}

// explain shows, when the test has failed, what conntrack holds with these parts, and what was dropped for which reason.
func (s *stage) explain(parts ...string) {
	s.t.Helper()
	if !s.t.Failed() {
		return
	}
	for _, e := range s.conntrack(parts...) {
		s.t.Log(e.text)
	}
	out, _ := s.Ofctl("dump-flows", "br0", "cookie=0x7a9a110200000000/0xffffffff00000000")
	s.t.Log(out)
}

// segment sends a TCP segment in a frame of its own making.
func (s *stage) segment(from *lab.VM, dstMAC, src, dst string, srcPort, dstPort int, seq, ack uint32, win uint16, flags, payload string) {
	s.t.Helper()
	tcp := func(string) (layers.IPProtocol, []gopacket.SerializableLayer) {
		has := func(f string) bool { return strings.Contains(flags, f) }
		h := &layers.TCP{SrcPort: layers.TCPPort(srcPort), DstPort: layers.TCPPort(dstPort), Seq: seq, Ack: ack, Window: win,
			SYN: has("S"), ACK: has("A"), PSH: has("P"), RST: has("R"), FIN: has("F")}
		return layers.IPProtocolTCP, []gopacket.SerializableLayer{h, gopacket.Payload(payload)}
	}
	s.send(crossing{from: from, dstMAC: dstMAC, src: src, dst: dst, ttl: 64, upper: tcp}, "")
}

// An identity that goes to another machine, or two that change places in one transaction, take no connection with them.
func TestAttackIdentitiesSwapped(t *testing.T) {
	t.Parallel()
	ids := func(vm, iface, mac string) []string {
		return []string{"--", "set", "interface", vm, "external_ids:iface-id=" + iface, `external_ids:attached-mac="` + mac + `"`}
	}
	for name, swap := range map[string]func(a, b *lab.VM) []string{
		"iface-id": func(a, b *lab.VM) []string {
			return append(ids("vm1", "if-vm2", a.MAC), ids("vm2", "if-vm1", b.MAC)...)
		},
		"mac": func(a, b *lab.VM) []string {
			return append(ids("vm1", "if-vm1", b.MAC), ids("vm2", "if-vm2", a.MAC)...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openForAttack(t, 3)
			a, b, d := s.vm[1], s.vm[2], s.vm[3]
			// Whoever is if-vm1 may be spoken to by nobody, and may speak to vm3.
			s.applyUncached("kind: Policy\nname: p\nspec:\n  appliesTo: [{port: vm1}, {port: vm2}]\n  defaultDeny: {ingress: true}\n")
			asked := s.inbox(d, 6053)
			s.say(a, d, 7000, 6053, "question")
			s.arrives(asked, "question")
			atA, atB := s.inbox(a, 7000), s.inbox(b, 7000)
			s.say(d, a, 6053, 7000, "answer")
			s.arrives(atA, "answer")
			before := strings.Join(s.flows("table=200"), "\n")
			_, err := s.Vsctl(swap(a, b)...)
			must(t, err)
			lab.Eventually(t, 5*time.Second, "tapwall has followed", func() bool {
				return strings.Join(s.flows("table=200"), "\n") != before
			})
			_, err = s.Appctl("revalidator/wait")
			must(t, err)
			// vm2 has the address of vm1 now; it did not ask. Both of its MACs are tried.
			_, err = b.Run("ip", "addr", "add", a.IPv4+"/32", "dev", "eth0")
			must(t, err)
			s.tell(d, b, nil, b.MAC, d.IPv4, a.IPv4, 6053, 7000, "to the other")
			if name != "iface-id" {
				// The guests change their addresses too.
				for vm, mac := range map[*lab.VM]string{a: b.MAC, b: a.MAC} {
					_, err = vm.Run("ip", "link", "set", "eth0", "address", mac)
					must(t, err)
				}
				a.MAC, b.MAC = b.MAC, a.MAC
				s.tell(d, b, nil, b.MAC, d.IPv4, a.IPv4, 6053, 7000, "to the other")
			}
			s.say(b, d, 7001, 6053, "control")
			s.arrives(asked, "control")
			s.say(d, b, 6053, 7001, "x")
			time.Sleep(passage)
			s.misses(atB, "to the other")
			s.explain("7000")
		})
	}
}

// ICMP errors about a connection of two others, sent by a third endpoint to either end, v4 and v6, pass nowhere; those of the ends do.
func TestAttackErrorsAboutOthers(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 4)
	a, b, c := s.vm[1], s.vm[2], s.vm[3]
	s.apply("kind: Endpoint\nname: r\nspec: {match: {port: vm4}, forwards: true}\n")
	s.applyUncached(isolatedVM2)
	r := s.vm[4]
	sinkA, err := s.Capture(a.NS, "eth0")
	must(t, err)
	sinkB, err := s.Capture(b.NS, "eth0")
	must(t, err)
	inA, inB := s.inbox(a, 6053), s.inbox(b, 7000)
	for i, ends := range [][2]string{{b.IPv4, a.IPv4}, {b.IPv6, a.IPv6}} {
		s.tell(b, a, nil, a.MAC, ends[0], ends[1], 7000, 6053, sprintf("question%d", i))
		s.arrives(inA, sprintf("question%d", i))
		s.tell(a, b, nil, b.MAC, ends[1], ends[0], 6053, 7000, sprintf("answer%d", i))
		s.arrives(inB, sprintf("answer%d", i))
	}
	fault := func(mark string, from, to *lab.VM, src, dst string, inner []byte) []byte {
		inner = append(inner[:len(inner):len(inner)], mark+";"...)
		if net.ParseIP(src).To4() != nil {
			ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
			return ethernet(parseMAC(t, to.MAC), parseMAC(t, from.MAC), nil, 0x0800,
				serialize(t, ip, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 3)}, gopacket.Payload(inner)))
		}
		ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolICMPv6, SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
		m := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(1, 4)}
		must(t, m.SetNetworkLayerForChecksum(ip))
		packet := serialize(t, ip, m, gopacket.Payload(append([]byte{0, 0, 0, 0}, inner...)))
		return ethernet(parseMAC(t, to.MAC), parseMAC(t, from.MAC), nil, 0x86dd, packet)
	}
	for v, ends := range [][2]string{{b.IPv4, a.IPv4}, {b.IPv6, a.IPv6}} {
		_, out := datagram(t, ends[0], ends[1], 7000, 6053, "quoted")
		_, back := datagram(t, ends[1], ends[0], 6053, 7000, "quoted")
		for _, from := range []*lab.VM{c, r} {
			own := []string{from.IPv4, from.IPv6}[v]
			for _, src := range []string{own, ends[0], ends[1]} { // under its own name and that of either end
				must(t, from.Send(fault("forged", from, b, src, ends[0], out)))
				must(t, from.Send(fault("forged", from, a, src, ends[1], back)))
				must(t, from.Send(fault("forged", from, b, src, ends[1], back))) // to the one in the other's frame
			}
		}
		must(t, a.Send(fault(sprintf("honest%d", v), a, b, ends[1], ends[0], out)))
		must(t, b.Send(fault(sprintf("honest%d", v), b, a, ends[0], ends[1], back)))
	}
	got := func(capture *lab.Capture, mark string) int {
		return len(capture.Frames(func(f lab.Frame) bool { return bytes.Contains(f.Data, []byte(mark)) }))
	}
	for _, mark := range []string{"honest0;", "honest1;"} {
		lab.Eventually(t, 3*time.Second, mark+" arrives at both", func() bool { return got(sinkA, mark) > 0 && got(sinkB, mark) > 0 })
	}
	time.Sleep(passage)
	if n := got(sinkA, "forged;") + got(sinkB, "forged;"); n > 0 {
		t.Errorf("%d errors about a connection of others got through", n)
	}
	// The connection lives on.
	s.say(a, b, 6053, 7000, "more")
	s.arrives(inB, "more")
}

// Protocols without ports pass between machines that may talk, and not where one side is closed; nor does an answer to the wrong one.
func TestAttackPortlessProtocols(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 4)
	a, b, c, open := s.vm[1], s.vm[2], s.vm[3], s.vm[4]
	s.applyUncached(isolatedVM2)
	captures := map[*lab.VM]*lab.Capture{}
	for _, vm := range s.vm[1:] {
		var err error
		captures[vm], err = s.Capture(vm.NS, "eth0")
		must(t, err)
	}
	put := func(from, to *lab.VM, proto int, src, dst, mark string) {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocol(proto), SrcIP: net.ParseIP(src), DstIP: net.ParseIP(dst)}
		packet := serialize(t, ip, gopacket.Payload("\x00\x00\x08\x00\x00\x00\x00\x01"+mark+";"))
		must(t, from.Send(ethernet(parseMAC(t, to.MAC), parseMAC(t, from.MAC), nil, 0x0800, packet)))
	}
	got := func(vm *lab.VM, mark string) int {
		return len(captures[vm].Frames(func(f lab.Frame) bool { return bytes.Contains(f.Data, []byte(mark+";")) }))
	}
	for _, proto := range []int{4, 41, 47, 50, 51, 89, 112, 132, 136} { // IPIP, 6in4, GRE, ESP, AH, OSPF, VRRP, SCTP, UDP-Lite
		p := sprintf("p%d-", proto)
		for range 2 {
			put(a, open, proto, a.IPv4, open.IPv4, p+"honest")
			put(a, b, proto, a.IPv4, b.IPv4, p+"denied")
			put(c, a, proto, b.IPv4, a.IPv4, p+"in b's name")
			put(a, b, proto, a.IPv4, b.IPv4, p+"after it")
			put(c, open, proto, b.IPv4, c.IPv4, p+"in b's name to another")
			put(c, b, proto, c.IPv4, b.IPv4, p+"denied")
		}
		put(b, a, proto, b.IPv4, a.IPv4, p+"own")
	}
	time.Sleep(passage)
	for _, proto := range []int{4, 41, 47, 50, 51, 89, 112, 132, 136} {
		p := sprintf("p%d-", proto)
		for _, mark := range []string{"denied", "after it"} {
			if n := got(b, p+mark); n > 0 {
				t.Errorf("%d packets of protocol %d got through: %s", n, proto, mark)
			}
		}
		t.Logf("protocol %d: %d honest, %d own", proto, got(open, p+"honest"), got(a, p+"own"))
	}
	if got(open, "p47-honest") == 0 {
		t.Error("GRE between machines without policy does not pass")
	}
}

// Segments that a third machine forges in the name of either end, to anybody, end no TCP connection.
func TestAttackForgedSegments(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 4)
	a, b, c, e := s.vm[1], s.vm[2], s.vm[3], s.vm[4]
	echo, push := s.echo(b, a, 5001), s.push(b, a, 5002)
	s.running(echo, push)
	for _, server := range []int{5001, 5002} {
		var client int
		_, tuple, _ := strings.Cut(s.conntrack(sprintf("dport=%d", server))[0].text, "sport=")
		_, err := fmt.Sscan(strings.SplitN(tuple, ",", 2)[0], &client)
		must(t, err)
		for _, to := range []*lab.VM{a, b, e} {
			for _, flags := range []string{"S", "SA", "R", "FA", "A"} {
				s.segment(c, to.MAC, a.IPv4, b.IPv4, server, client, 77, 78, 1000, flags, "")
				s.segment(c, to.MAC, b.IPv4, a.IPv4, client, server, 77, 78, 1000, flags, "")
			}
		}
	}
	at := time.Now()
	lab.Eventually(t, 5*time.Second, "both live on", func() bool { return echo.ReceivedSince(at) > 50 && push.ReceivedSince(at) > 50 })
}

// Whatever the file of remembered connections holds, the wall comes up with it.
func TestAttackMemoryFile(t *testing.T) {
	t.Parallel()
	s := open(t, 2, "--pickup-window", "2s")
	s.apply(isolatedVM2)
	s.remembered(time.Now())
	file := filepath.Join(s.tw.DataDir(), "connections", "br0.json")
	for name, content := range map[string]string{
		"syntax": "{", "another document": "[]", "no text": strings.Repeat("\x00\xff", 5000),
		"two families": `{"at":"2026-01-01T00:00:00Z","connections":[` +
			`{"Zone":57344,"ReplyZone":57344,"Src":"10.77.0.1:80","Dst":"[fd77::1]:80","Initiator":4294967295}]}`,
	} {
		must(t, s.tw.Stop())
		must(t, os.WriteFile(file, []byte(content), 0o600))
		s.KillVswitchd()
		must(t, s.StartVswitchd())
		must(t, s.tw.Start())
		if s.vm[1].CanConnect(s.vm[2].IPv4, 5001, 200*time.Millisecond) {
			t.Errorf("%s: the wall is down", name)
		}
		s.mustConnect(s.vm[2], s.vm[1].IPv4, 5001)
	}
}
