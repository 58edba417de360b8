package e2e

import (
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// guarded declares the addresses of a machine.
func guarded(vm *lab.VM, more string) string {
	return sprintf("kind: Endpoint\nname: %s\nspec: {match: {port: %s}, addresses: [%s, \"%s\"]%s}\n", vm.Name, vm.Port, vm.IPv4, vm.IPv6,
		more)
}

// forgery makes frames of a machine that speak as somebody else.
type forgery struct {
	t  *testing.T
	vm *lab.VM
}

func (f forgery) frame(src string, dst string, kind layers.EthernetType, upper ...gopacket.SerializableLayer) []byte {
	f.t.Helper()
	b, err := lab.CraftFrame(src, dst, kind, upper...)
	must(f.t, err)
	return b
}

func mustMAC(t *testing.T, s string) net.HardwareAddr {
	t.Helper()
	hw, err := net.ParseMAC(s)
	must(t, err)
	return hw
}

func (f forgery) arp(mac, ip string) []byte {
	return f.frame(f.vm.MAC, "ff:ff:ff:ff:ff:ff", layers.EthernetTypeARP, &layers.ARP{AddrType: layers.LinkTypeEthernet,
		Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: 2, SourceHwAddress: mustMAC(f.t, mac),
		SourceProtAddress: net.ParseIP(ip).To4(), DstHwAddress: make([]byte, 6), DstProtAddress: net.ParseIP(ip).To4()})
}

func (f forgery) udp(mac, src string, srcPort, dstPort layers.UDPPort) []byte {
	dst, kind := "10.77.0.2", layers.EthernetTypeIPv4
	var ip gopacket.SerializableLayer = &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP(src),
		DstIP: net.ParseIP(dst)}
	if strings.Contains(src, ":") {
		kind = layers.EthernetTypeIPv6
		ip = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: net.ParseIP(src), DstIP: net.ParseIP("ff02::1")}
	}
	return f.frame(mac, "ff:ff:ff:ff:ff:ff", kind, ip, &layers.UDP{SrcPort: srcPort, DstPort: dstPort}, gopacket.Payload("forged"))
}

// nd makes a router (134) or neighbour advertisement (136) or solicitation (135); option is the link-layer address in it.
func (f forgery) nd(kind uint8, src, target, option string) []byte {
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: net.ParseIP(src), DstIP: net.ParseIP("ff02::1")}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}
	var body gopacket.SerializableLayer
	hw := mustMAC(f.t, option)
	switch kind {
	case 134:
		body = &layers.ICMPv6RouterAdvertisement{HopLimit: 64, RouterLifetime: 1800}
	case 135:
		body = &layers.ICMPv6NeighborSolicitation{TargetAddress: net.ParseIP(target),
			Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: hw}}}
	default:
		body = &layers.ICMPv6NeighborAdvertisement{Flags: 0x20, TargetAddress: net.ParseIP(target),
			Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptTargetAddress, Data: hw}}}
	}
	return f.frame(f.vm.MAC, "33:33:00:00:00:01", layers.EthernetTypeIPv6, ip, icmp, body)
}

// forged are frames of vm1 that a guard refuses, by the reason.
func forged(t *testing.T, s *stage) map[string][][]byte {
	f := forgery{t, s.vm[1]}
	own, other, lla := s.vm[1].MAC, s.vm[3].MAC, policy.LinkLocal(s.vm[1].MAC).String()
	return map[string][][]byte{
		"unknown-mac":     {f.udp("02:00:00:00:0b:ad", s.vm[1].IPv4, 4000, 5000)},
		"spoofed-address": {f.udp(own, s.vm[3].IPv4, 4000, 5000), f.udp(own, s.vm[3].IPv6, 4000, 5000), f.udp(own, "fe80::1", 4000, 5000)},
		"spoofed-arp":     {f.arp(own, s.vm[3].IPv4), f.arp(other, s.vm[1].IPv4)},
		"spoofed-nd": {f.nd(136, lla, s.vm[3].IPv6, own), f.nd(136, lla, s.vm[1].IPv6, other), f.nd(135, s.vm[1].IPv6, s.vm[2].IPv6,
			other)},
		"rogue-dhcp-server": {f.udp(own, s.vm[1].IPv4, 67, 68), f.udp(own, lla, 547, 546)},
		"rogue-router":      {f.nd(134, lla, "", own)},
	}
}

// dropped is the counter of a reason.
func (s *stage) dropped(reason string) float64 {
	s.t.Helper()
	return s.metric(sprintf(`tapwall_dropped_packets_total{bridge="br0",reason="%s"}`, reason))
}

// warned returns the codes of the warnings about an Endpoint, each with how often it is there.
func (s *stage) warned(endpoint string) map[string]int {
	s.t.Helper()
	var doc struct {
		Status struct{ Warnings []struct{ Code string } }
	}
	must(s.t, json.Unmarshal([]byte(s.tapwall("get", "endpoint", endpoint, "-o", "json")), &doc))
	out := map[string]int{}
	for _, w := range doc.Status.Warnings {
		out[w.Code]++
	}
	return out
}

// Scenario 11: neighbour discovery works through a default deny of both directions; what speaks in it as somebody else is dropped and
// counted, and so is a router advertisement of a guest.
func TestFirewallScenario11NeighbourDiscovery(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.applyUncached(guarded(s.vm[1], "") + `---
kind: Policy
name: closed
spec:
  appliesTo: [{port: vm1}]
  defaultDeny: {ingress: true, egress: true}
  egress:
  - {name: peer, action: allow, to: [{port: vm2}]}
`)
	if s.ping(s.vm[1], s.vm[3].IPv6) {
		t.Error("vm1 reaches a machine that it must not")
	}
	for range 3 {
		for _, vm := range s.vm[1:3] {
			_, err := vm.Run("ip", "-6", "neigh", "flush", "all")
			must(t, err)
		}
		began := time.Now()
		if _, err := s.vm[1].Run("ping", "-6", "-c", "1", "-W", "2", s.vm[2].IPv6); err != nil {
			t.Errorf("no answer %v after the neighbours were forgotten: %v", time.Since(began), err)
		}
	}
	capture, err := s.Capture(s.vm[2].NS, "eth0")
	must(t, err)
	all := forged(t, s)
	for _, reason := range []string{"spoofed-nd", "rogue-router"} {
		before := s.dropped(reason)
		must(t, s.vm[1].Send(all[reason]...))
		lab.Eventually(t, 5*time.Second, reason+" is counted", func() bool { return s.dropped(reason) == before+float64(len(all[reason])) })
	}
	// The same from a machine that nothing is declared of arrives, so that it would be seen.
	must(t, s.vm[3].Send(forgery{t, s.vm[3]}.nd(134, policy.LinkLocal(s.vm[3].MAC).String(), "", s.vm[3].MAC)))
	from := func(vm *lab.VM) func(lab.Frame) bool {
		mac := string(mustMAC(t, vm.MAC))
		return func(f lab.Frame) bool {
			d := f.Data
			return len(d) > 54 && string(d[6:12]) == mac && d[12] == 0x86 && d[20] == 58 && d[0] == 0x33 && (d[54] == 134 || d[54] == 136)
		}
	}
	lab.Eventually(t, 2*time.Second, "another's advertisement arrives", func() bool { return len(capture.Frames(from(s.vm[3]))) == 1 })
	if n := len(capture.Frames(from(s.vm[1]))); n > 0 {
		t.Errorf("%d forged advertisements arrived", n)
	}
}

// An endpoint whose addresses are declared speaks as nobody else: by MAC, ARP, IP of both families and neighbour discovery, nor as a DHCP
// server or a router; each drop is counted by reason and for the endpoint, told in its status and recorded. What it needs itself passes.
func TestGuard(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.applyUncached(guarded(s.vm[1], ""))
	for _, to := range []string{s.vm[2].IPv4, s.vm[2].IPv6} {
		_, err := s.vm[1].Run("ip", "neigh", "flush", "all")
		must(t, err)
		s.mustConnect(s.vm[1], to, 5001)
	}
	s.mustConnect(s.vm[2], s.vm[1].IPv4, 5001)
	// A new link-local address of its own is tried out and used.
	_, err := s.vm[1].Run("sh", "-c", "ip link set eth0 down; ip link set eth0 up")
	must(t, err)
	lab.Eventually(t, 10*time.Second, "it comes up again", func() bool { return s.ping(s.vm[1], s.vm[2].IPv4) })

	capture, err := s.Capture(s.vm[2].NS, "eth0")
	must(t, err)
	all := forged(t, s)
	unknown := all["unknown-mac"]
	delete(all, "unknown-mac")
	must(t, s.vm[1].Send(unknown...))
	lab.Eventually(t, 5*time.Second, "the unknown MAC is told of", func() bool { return s.warned(s.vm[1].Name)["UNKNOWN_MAC"] == 1 })
	lab.Eventually(t, 5*time.Second, "its drop is counted, by its reason or as nobody's as flows change for it", func() bool {
		return s.dropped("unknown-mac")+s.dropped("unattributed") >= 1
	})
	s.revalidated()
	time.Sleep(300 * time.Millisecond)
	before := map[string]float64{}
	total := 0
	for reason, frames := range all {
		before[reason] = s.dropped(reason)
		total += len(frames)
	}
	own := func() float64 { return s.metric(`tapwall_spoofed_packets_total{bridge="br0",endpoint="if-vm1"}`) }
	counted := own()
	for _, frames := range all {
		must(t, s.vm[1].Send(frames...))
	}
	lab.Eventually(t, 5*time.Second, "every frame is counted by its reason and for the endpoint", func() bool {
		for reason, frames := range all {
			if s.dropped(reason) != before[reason]+float64(len(frames)) {
				return false
			}
		}
		return own() == counted+float64(total)
	})
	forgedFrame := func(f lab.Frame) bool {
		for _, frames := range all {
			for _, b := range frames {
				if strings.HasPrefix(string(f.Data), string(b)) {
					return true
				}
			}
		}
		return false
	}
	all["unknown-mac"] = unknown
	if n := len(capture.Frames(forgedFrame)); n > 0 {
		t.Errorf("%d forged frames arrived", n)
	}
	lab.Eventually(t, 5*time.Second, "the endpoint's status tells of each reason", func() bool {
		return s.warned(s.vm[1].Name)["SPOOFED"] == len(all)-1
	})
	reasons := map[string]int{}
	for _, v := range s.events("--last", "100", "--verdict", "DROPPED") {
		if v.Tapwall.Source.Name != s.vm[1].Name || v.Tapwall.Direction != "egress" {
			t.Errorf("event %+v", v)
		}
		reasons[v.Rule.ID]++
	}
	for reason, frames := range all {
		if n := reasons["guard/"+reason]; reason != "unknown-mac" && n != len(frames) {
			t.Errorf("%d events of %s: %v", n, reason, reasons)
		}
	}

	// Switched off, the same arrives.
	s.applyUncached(guarded(s.vm[1], ", antiSpoof: off"))
	for _, frames := range all {
		must(t, s.vm[1].Send(frames...))
	}
	lab.Eventually(t, 3*time.Second, "without the guard, all of it arrives", func() bool {
		return len(capture.Frames(forgedFrame)) >= total+1
	})
}

// What is allowed beside passes: a virtual router's MAC and address, and all sources of one that forwards, whose ARP is still its own.
func TestGuardAllows(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	f := forgery{t, s.vm[1]}
	capture, err := s.Capture(s.vm[2].NS, "eth0")
	must(t, err)
	arrives := func(what string, frame []byte, want bool) {
		t.Helper()
		is := func(g lab.Frame) bool { return strings.HasPrefix(string(g.Data), string(frame)) }
		n := len(capture.Frames(is))
		must(t, s.vm[1].Send(frame))
		if want {
			lab.Eventually(t, 2*time.Second, what+" arrives", func() bool { return len(capture.Frames(is)) > n })
			return
		}
		time.Sleep(200 * time.Millisecond)
		if len(capture.Frames(is)) > n {
			t.Errorf("%s arrives", what)
		}
	}
	const virtual, virtualIP = "00:00:5e:00:01:01", "10.77.0.100"
	router := netip.MustParseAddr("192.0.2.9").String()
	s.applyUncached(guarded(s.vm[1], ""))
	for _, mac := range []string{s.vm[1].MAC, virtual} {
		arrives("the virtual router before it is allowed", f.udp(mac, virtualIP, 4000, 5000), false)
	}
	s.applyUncached(guarded(s.vm[1], `, macs: ["00:00:5e:00:01:01"], allowedAddresses: ["10.77.0.96/28"]`))
	arrives("the virtual router", f.udp(virtual, virtualIP, 4000, 5000), true)
	arrives("ARP of the virtual router", f.arp(virtual, virtualIP), true)
	arrives("a source outside of what is allowed", f.udp(virtual, "10.77.0.112", 4000, 5000), false)
	arrives("a routed source", f.udp(s.vm[1].MAC, router, 4000, 5000), false)
	s.applyUncached(guarded(s.vm[1], `, forwards: true`))
	arrives("a routed source of one that forwards", f.udp(s.vm[1].MAC, router, 4000, 5000), true)
	arrives("its router advertisement", f.nd(134, policy.LinkLocal(s.vm[1].MAC).String(), "", s.vm[1].MAC), true)
	arrives("ARP as another of one that forwards", f.arp(s.vm[1].MAC, s.vm[3].IPv4), false)
}
