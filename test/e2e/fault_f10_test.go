package e2e

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/test/lab"
)

// crossing is one frame that a machine puts on the wire. Its payload ends in the name, by which the receiver knows it.
type crossing struct {
	name     string
	from, to *lab.VM
	dstMAC   string
	src, dst string
	ttl      uint8
	upper    func(payload string) (layers.IPProtocol, []gopacket.SerializableLayer)
	passes   bool
}

func (s *stage) send(c crossing, round string) {
	s.t.Helper()
	must(s.t, c.from.Send(s.frame(c, round)))
}

func (s *stage) frame(c crossing, round string) []byte {
	s.t.Helper()
	from, to := net.ParseIP(c.src), net.ParseIP(c.dst)
	proto, upper := c.upper(round + c.name)
	var ip gopacket.NetworkLayer
	etherType := uint16(0x86dd)
	if from.To4() != nil {
		ip, etherType = &layers.IPv4{Version: 4, TTL: c.ttl, Protocol: proto, SrcIP: from, DstIP: to}, 0x0800
	} else {
		ip = &layers.IPv6{Version: 6, HopLimit: c.ttl, NextHeader: proto, SrcIP: from, DstIP: to}
	}
	for _, l := range upper {
		if l, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			must(s.t, l.SetNetworkLayerForChecksum(ip))
		}
	}
	p := serialize(s.t, append([]gopacket.SerializableLayer{ip.(gopacket.SerializableLayer)}, upper...)...)
	return ethernet(parseMAC(s.t, c.dstMAC), parseMAC(s.t, c.from.MAC), nil, etherType, p)
}

// sendCrossings sends every frame three times, and fails if one that passes does not arrive or one that does not pass does.
func (s *stage) sendCrossings(round string, all []crossing) {
	s.t.Helper()
	captures := map[*lab.VM]*lab.Capture{}
	for _, c := range all {
		if captures[c.to] == nil {
			capture, err := s.Capture(c.to.NS, "eth0")
			must(s.t, err)
			captures[c.to] = capture
		}
	}
	arrived := func(c crossing) int {
		return len(captures[c.to].Frames(func(f lab.Frame) bool { return bytes.Contains(f.Data, []byte(round+c.name+";")) }))
	}
	for range 3 {
		for _, c := range all {
			s.send(c, round)
		}
	}
	for _, c := range all {
		if c.passes {
			lab.Eventually(s.t, 5*time.Second, round+c.name+" arrives", func() bool { return arrived(c) == 3 })
		}
	}
	time.Sleep(passage)
	for _, c := range all {
		if n := arrived(c); n > 0 && !c.passes {
			s.t.Errorf("%s%s: %d of 3 frames got through", round, c.name, n)
		}
	}
}

func viaUDP(src, dst layers.UDPPort) func(string) (layers.IPProtocol, []gopacket.SerializableLayer) {
	return func(mark string) (layers.IPProtocol, []gopacket.SerializableLayer) {
		return layers.IPProtocolUDP, []gopacket.SerializableLayer{&layers.UDP{SrcPort: src, DstPort: dst}, gopacket.Payload(mark + ";")}
	}
}

func viaICMPv6(kind, code uint8) func(string) (layers.IPProtocol, []gopacket.SerializableLayer) {
	return func(mark string) (layers.IPProtocol, []gopacket.SerializableLayer) {
		return layers.IPProtocolICMPv6, []gopacket.SerializableLayer{&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, code)},
			gopacket.Payload(append(make([]byte, 20), mark+";"...))}
	}
}

func viaIGMP(mark string) (layers.IPProtocol, []gopacket.SerializableLayer) {
	return layers.IPProtocolIGMP, []gopacket.SerializableLayer{gopacket.Payload("\x22\x00\x00\x00\x00\x00\x00\x00" + mark + ";")}
}

// DHCP, neighbour discovery and group membership pass unjudged, as narrow as their standards: a machine that may do nothing gets its
// lease and is found, and none of it carries anything else.
func TestFault_F10_NeighbourDiscoveryAndDHCPAreNoTunnel(t *testing.T) {
	t.Parallel()
	s := ground(t, 3)
	client, server, other := s.vm[1], s.vm[2], s.vm[3]
	_, err := s.Vsctl("clear", "interface", server.Port, "external_ids") // a station that is no endpoint
	must(t, err)
	s.wall()
	s.applyUncached(`
kind: Policy
name: nothing
spec:
  appliesTo: [{port: vm1}, {port: vm3}]
  defaultDeny: {ingress: true, egress: true}
`)
	const all, all6, everybody, snooped = "ff:ff:ff:ff:ff:ff", "33:33:00:01:00:02", "255.255.255.255", "ff02::1:2"
	offers := func(from *lab.VM, passes bool) []crossing {
		return []crossing{
			{"offer by unicast", from, client, client.MAC, from.IPv4, client.IPv4, 64, viaUDP(67, 68), passes},
			{"offer by broadcast", from, client, all, from.IPv4, everybody, 64, viaUDP(67, 68), passes},
			{"advertise", from, client, client.MAC, "fe80::2", "fe80::1", 64, viaUDP(547, 546), passes},
		}
	}
	// Twice, as a client that keeps its lease begins anew from 0.0.0.0 when it may not renew by unicast.
	for _, round := range []string{"first ", "second "} {
		s.sendCrossings(round, append(offers(server, true),
			crossing{"discover", client, server, all, "0.0.0.0", everybody, 64, viaUDP(68, 67), true},
			crossing{"solicit", client, server, all6, "fe80::1", snooped, 64, viaUDP(546, 547), true},
		))
	}
	s.sendCrossings("another endpoint's ", offers(other, false))
	for _, to := range []*lab.VM{server, other} {
		s.sendCrossings("to "+to.Port+" ", []crossing{
			{"renewal", client, to, to.MAC, client.IPv4, to.IPv4, 64, viaUDP(68, 67), false},
			{"renewal from nowhere", client, to, to.MAC, "0.0.0.0", to.IPv4, 64, viaUDP(68, 67), false},
			{"rebinding", client, to, all, client.IPv4, everybody, 64, viaUDP(68, 67), false},
			{"discover in a frame for one", client, to, to.MAC, "0.0.0.0", everybody, 64, viaUDP(68, 67), false},
			{"DHCPv6 to one", client, to, to.MAC, "fe80::1", "fe80::2", 64, viaUDP(546, 547), false},
			{"DHCPv6 to a global address", client, to, to.MAC, client.IPv6, to.IPv6, 64, viaUDP(546, 547), false},
			{"DHCPv6 from a global address", client, to, all6, client.IPv6, snooped, 64, viaUDP(546, 547), false},
			{"answer", client, to, to.MAC, client.IPv4, to.IPv4, 64, viaUDP(67, 68), false},
			{"DHCPv6 answer", client, to, to.MAC, "fe80::1", "fe80::2", 64, viaUDP(547, 546), false},

			{"solicitation", client, to, to.MAC, client.IPv6, to.IPv6, 255, viaICMPv6(135, 0), true},
			{"solicitation to all", client, to, "33:33:ff:00:00:02", client.IPv6, "ff02::1:ff00:2", 255, viaICMPv6(135, 0), true},
			{"advertisement", client, to, to.MAC, client.IPv6, to.IPv6, 255, viaICMPv6(136, 0), true},
			{"advertisement, code 1", client, to, to.MAC, client.IPv6, to.IPv6, 255, viaICMPv6(136, 1), false},
			{"forwarded solicitation", client, to, to.MAC, client.IPv6, to.IPv6, 64, viaICMPv6(135, 0), false},
			{"forwarded advertisement", client, to, to.MAC, client.IPv6, to.IPv6, 254, viaICMPv6(136, 0), false},
			{"router advertisement from a global address", client, to, to.MAC, client.IPv6, to.IPv6, 255, viaICMPv6(134, 0), false},
			{"router solicitation", client, to, "33:33:00:00:00:02", "fe80::1", "ff02::2", 255, viaICMPv6(133, 0), true},
			{"router solicitation to one", client, to, to.MAC, client.IPv6, to.IPv6, 255, viaICMPv6(133, 0), false},

			{"listener report", client, to, "33:33:00:00:00:16", "fe80::1", "ff02::16", 1, viaICMPv6(143, 0), true},
			{"listener report from afar", client, to, "33:33:00:00:00:16", "fe80::1", "ff02::16", 64, viaICMPv6(143, 0), false},
			{"listener report to one", client, to, to.MAC, client.IPv6, to.IPv6, 1, viaICMPv6(143, 0), false},
			{"listener report in a frame for one", client, to, to.MAC, "fe80::1", "ff02::16", 1, viaICMPv6(131, 0), false},
			{"IGMP", client, to, "01:00:5e:00:00:16", client.IPv4, "224.0.0.22", 1, viaIGMP, true},
			{"IGMP from afar", client, to, "01:00:5e:00:00:16", client.IPv4, "224.0.0.22", 64, viaIGMP, false},
			{"IGMP to one", client, to, to.MAC, client.IPv4, to.IPv4, 1, viaIGMP, false},
			{"IGMP in a frame for one", client, to, to.MAC, client.IPv4, "224.0.0.22", 1, viaIGMP, false},
		})
	}
	// What is declared is a server, and what is allowed is renewed.
	s.applyUncached(`
kind: Endpoint
name: vm3
spec: {match: {port: vm3}, dhcpServer: true}
---
kind: Policy
name: renewal
spec:
  appliesTo: [{port: vm1}]
  egress:
  - {name: renew, action: allow, to: [{cidr: ` + server.IPv4 + `/32}], services: [{protocol: udp, ports: ["67"]}]}
`)
	s.sendCrossings("declared ", append(offers(other, true),
		crossing{"renewal", client, server, server.MAC, client.IPv4, server.IPv4, 64, viaUDP(68, 67), true},
		crossing{"answer to the renewal", server, client, client.MAC, server.IPv4, client.IPv4, 64, viaUDP(67, 68), true},
		crossing{"other datagram", other, client, client.MAC, other.IPv4, client.IPv4, 64, viaUDP(67, 69), false},
	))
}
