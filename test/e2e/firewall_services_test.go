package e2e

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

type upper = func(payload string) (layers.IPProtocol, []gopacket.SerializableLayer)

func udpFrom(src, dst int) upper {
	return func(payload string) (layers.IPProtocol, []gopacket.SerializableLayer) {
		return layers.IPProtocolUDP, []gopacket.SerializableLayer{&layers.UDP{SrcPort: layers.UDPPort(src), DstPort: layers.UDPPort(dst)},
			gopacket.Payload(payload + ";")}
	}
}

func synFrom(src, dst int) upper {
	return func(payload string) (layers.IPProtocol, []gopacket.SerializableLayer) {
		return layers.IPProtocolTCP, []gopacket.SerializableLayer{&layers.TCP{SrcPort: layers.TCPPort(src), DstPort: layers.TCPPort(dst),
			SYN: true, Seq: 1, Window: 1000}, gopacket.Payload(payload + ";")}
	}
}

func sctpFrom(src, dst int) upper {
	return func(payload string) (layers.IPProtocol, []gopacket.SerializableLayer) {
		return layers.IPProtocolSCTP, []gopacket.SerializableLayer{&layers.SCTP{SrcPort: layers.SCTPPort(src), DstPort: layers.SCTPPort(dst)},
			gopacket.Payload(payload + ";")}
	}
}

func icmpOf(kind, code, id uint8) upper {
	return func(payload string) (layers.IPProtocol, []gopacket.SerializableLayer) {
		return layers.IPProtocolICMPv4, []gopacket.SerializableLayer{&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, code),
			Id: uint16(id)}, gopacket.Payload(payload + ";")}
	}
}

func icmpv6Of(kind, code, id uint8) upper {
	return func(payload string) (layers.IPProtocol, []gopacket.SerializableLayer) {
		return layers.IPProtocolICMPv6, []gopacket.SerializableLayer{&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, code)},
			&layers.ICMPv6Echo{Identifier: uint16(id)}, gopacket.Payload(payload + ";")}
	}
}

func protocolOf(proto int) upper {
	return func(payload string) (layers.IPProtocol, []gopacket.SerializableLayer) {
		return layers.IPProtocol(proto), []gopacket.SerializableLayer{gopacket.Payload("\x00\x00\x08\x00" + payload + ";")}
	}
}

// What services name passes, what differs from it in one thing does not: source ports, types of ICMP, protocols by name and number, ports
// of SCTP. A machine without policy beside gets it all.
func TestFirewallServices(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.applyUncached(`
kind: Policy
name: services
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - name: named
    action: allow
    from: [{port: vm1}]
    services:
    - {protocol: tcp, ports: [https, "5001"], sourcePorts: [unprivileged]}
    - {protocol: udp, ports: ["6000-6007"], sourcePorts: ["100-107"]}
    - {protocol: icmp, type: 8, code: 0}
    - {protocol: icmpv6, type: 128}
    - {protocol: vrrp}
    - {protocol: 47}
    - {protocol: "253"}
    - {protocol: sctp, ports: [diameter], sourcePorts: ["5000-5001"]}
`)
	a, b, open := s.vm[1], s.vm[2], s.vm[3]
	if !s.ping(a, b.IPv4) || !s.ping(a, b.IPv6) {
		t.Error("an echo request that a rule allows is not answered")
	}
	s.mustConnect(a, b.IPv4, 5001)
	s.mustConnect(a, b.IPv6, 5001)
	s.mustTimeOut(a, b.IPv4, 5002)

	var all []crossing
	add := func(name string, v6 bool, u upper, passes bool) {
		for _, to := range []*lab.VM{b, open} {
			c := crossing{name: name + " to " + to.Port, from: a, to: to, dstMAC: to.MAC, src: a.IPv4, dst: to.IPv4, ttl: 64, upper: u,
				passes: passes || to == open}
			if v6 {
				c.src, c.dst = a.IPv6, to.IPv6
			}
			all = append(all, c)
		}
	}
	for _, v6 := range []bool{false, true} {
		of := map[bool]string{false: " v4", true: " v6"}[v6]
		add("tcp from 1024"+of, v6, synFrom(1024, 443), true)
		add("tcp from 1023"+of, v6, synFrom(1023, 443), false)
		add("tcp from 1024 to another"+of, v6, synFrom(1024, 444), false)
		add("udp from 100"+of, v6, udpFrom(100, 6007), true)
		add("udp from 107"+of, v6, udpFrom(107, 6000), true)
		add("udp from 108"+of, v6, udpFrom(108, 6007), false)
		add("udp from 99"+of, v6, udpFrom(99, 6000), false)
		add("vrrp"+of, v6, protocolOf(112), true)
		add("gre"+of, v6, protocolOf(47), true)
		add("protocol 253"+of, v6, protocolOf(253), true)
		add("protocol 254"+of, v6, protocolOf(254), false)
		add("esp"+of, v6, protocolOf(50), false)
	}
	add("echo", false, icmpOf(8, 0, 1), true)
	add("timestamp", false, icmpOf(13, 0, 2), false)
	add("information", false, icmpOf(15, 0, 3), false)
	add("echo v6", true, icmpv6Of(128, 0, 4), true)
	s.sendCrossings("named ", all)

	// SCTP: each packet by its ports, in a connection that conntrack has by addresses. What it denies first must not ride on what is allowed.
	var sctp []crossing
	both := func(name string, u upper, passes bool) {
		for _, v6 := range []bool{false, true} {
			c := crossing{name: name + map[bool]string{false: " v4", true: " v6"}[v6], from: a, to: b, dstMAC: b.MAC, src: a.IPv4, dst: b.IPv4,
				ttl: 64, upper: u, passes: passes}
			if v6 {
				c.src, c.dst = a.IPv6, b.IPv6
			}
			sctp = append(sctp, c)
		}
	}
	back := func(name string, u upper, passes bool) {
		both(name, u, passes)
		for i := len(sctp) - 2; i < len(sctp); i++ {
			c := &sctp[i]
			c.from, c.to, c.dstMAC, c.src, c.dst = b, a, a.MAC, c.dst, c.src
		}
	}
	both("sctp", sctpFrom(5000, 3868), true)
	both("sctp from another", sctpFrom(5002, 3868), false)
	both("sctp to another", sctpFrom(5000, 3869), false)
	s.sendCrossings("first ", sctp)
	back("sctp answer", sctpFrom(3868, 5000), true)
	back("sctp answer from another", sctpFrom(3869, 5000), false)
	s.sendCrossings("answered ", sctp)
	s.applyUncached(strings.NewReplacer("PORT", "3869").Replace(`
kind: Policy
name: services
spec:
  appliesTo: [{port: vm2}]
  ingress: [{name: named, action: allow, services: [{protocol: sctp, ports: ["PORT"]}]}]
`))
	for i := range sctp {
		sctp[i].passes = strings.Contains(sctp[i].name, "sctp to another") || strings.Contains(sctp[i].name, "answer from another")
	}
	s.sendCrossings("another port ", sctp)
}

// What opens no connection is told, and passes with the connection that it is about whatever a rule says of its type.
func TestFirewallServicesThatNeverMatch(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	doc := `
kind: Policy
name: errors
spec:
  appliesTo: [{port: vm1}]
  egress: [{name: ask, action: allow, services: [{protocol: udp, ports: ["5999"]}]}]
  ingress: [{name: errors, action: deny, services: [{protocol: icmp, type: 3}]}]
`
	if out := s.answer(doc); !strings.Contains(out, string(policy.WarnNeverMatches)) || !strings.Contains(out, "icmp type 3") {
		t.Errorf("no warning of a rule about errors:\n%s", out)
	}
	capture, err := s.Capture(s.vm[1].NS, "eth0")
	must(t, err)
	must(t, s.vm[1].Send(s.frame(crossing{from: s.vm[1], dstMAC: s.vm[2].MAC, src: s.vm[1].IPv4, dst: s.vm[2].IPv4, ttl: 64,
		upper: udpFrom(4999, 5999)}, "closed")))
	lab.Eventually(t, 2*time.Second, "the error about a connection arrives", func() bool {
		return len(capture.Frames(func(f lab.Frame) bool {
			return len(f.Data) > 34 && f.Data[23] == 1 && f.Data[34] == 3 && bytes.Contains(f.Data, []byte("closed;"))
		})) > 0
	})
}
