package e2e

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// v6 builds an IPv6 packet of which the first header is next, with what follows as it is.
func v6(src, dst string, hops byte, next byte, rest ...[]byte) []byte {
	p := make([]byte, 40)
	p[0], p[6], p[7] = 0x60, next, hops
	copy(p[8:], net.ParseIP(src))
	copy(p[24:], net.ParseIP(dst))
	for _, r := range rest {
		p = append(p, r...)
	}
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
	return p
}

// icmp6 builds a message of ICMPv6 with its checksum.
func icmp6(src, dst string, kind byte, body ...[]byte) []byte {
	m := []byte{kind, 0, 0, 0}
	for _, b := range body {
		m = append(m, b...)
	}
	sum := uint32(58 + len(m))
	add := func(b []byte) {
		for i, x := range b {
			sum += uint32(x) << (8 * (1 - i%2))
		}
	}
	add(net.ParseIP(src))
	add(net.ParseIP(dst))
	add(m)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(m[2:], ^uint16(sum))
	return m
}

// option is one of neighbour discovery with a link-layer address (RFC 4861 §4.6.1).
func option(t *testing.T, kind byte, mac string) []byte {
	return append([]byte{kind, 1}, mustMAC(t, mac)...)
}

// oddly are frames of a guarded machine by which others take it for somebody else, in ways that a look at the usual fields misses.
func oddly(t *testing.T, vm, victim *lab.VM) map[string][]byte {
	own, lla := mustMAC(t, vm.MAC), policy.LinkLocal(vm.MAC).String()
	all, all6 := mustMAC(t, "ff:ff:ff:ff:ff:ff"), mustMAC(t, "33:33:00:00:00:01")
	frame := func(dst net.HardwareAddr, etherType uint16, payload []byte) []byte {
		return ethernet(dst, own, nil, etherType, payload)
	}
	arp := func(hardware layers.LinkType, op uint16) []byte {
		return serialize(t, &layers.ARP{AddrType: hardware, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: op, SourceHwAddress: own, SourceProtAddress: net.ParseIP(victim.IPv4).To4(), DstHwAddress: make([]byte, 6),
			DstProtAddress: net.ParseIP(victim.IPv4).To4()})
	}
	udp := func(src string, from, to layers.UDPPort) []byte {
		if strings.Contains(src, ":") {
			u := &layers.UDP{SrcPort: from, DstPort: to}
			ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: net.ParseIP(src), DstIP: net.ParseIP("ff02::1")}
			_ = u.SetNetworkLayerForChecksum(ip)
			return serialize(t, ip, u, gopacket.Payload("an answer, says who sends it"))
		}
		u := &layers.UDP{SrcPort: from, DstPort: to}
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP(src), DstIP: net.IP{255, 255, 255, 255}}
		_ = u.SetNetworkLayerForChecksum(ip)
		return serialize(t, ip, u, gopacket.Payload("an answer, says who sends it"))
	}
	target := net.ParseIP(victim.IPv6)
	advertisement := icmp6(lla, "ff02::1", 136, []byte{0x20, 0, 0, 0}, target, option(t, 2, vm.MAC))
	router := icmp6(lla, "ff02::1", 134, []byte{64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0}, option(t, 1, vm.MAC))
	nothing := []byte{58, 0, 1, 4, 0, 0, 0, 0} // hop-by-hop or destination options with padding, then ICMPv6
	fragment := func(next byte, offset, more byte) []byte { return []byte{next, 0, 0, offset<<3 | more, 0, 0, 0, 77} }
	snap := append([]byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 6}, arp(1, 2)...)
	firstDHCP := udp(vm.IPv4, 67, 68)
	firstDHCP[6] |= 0x20
	binary.BigEndian.PutUint16(firstDHCP[10:], 0)
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(firstDHCP[i:]))
	}
	binary.BigEndian.PutUint16(firstDHCP[10:], ^uint16(sum>>16+sum&0xffff))
	return map[string][]byte{
		"DHCP answer from a port that is not the server's":   frame(all, 0x0800, udp(vm.IPv4, 1067, 68)),
		"DHCP answer from the client's port":                 frame(all, 0x0800, udp(vm.IPv4, 68, 68)),
		"DHCPv6 answer from a port that is not the server's": frame(all6, 0x86dd, udp(lla, 1547, 546)),
		"DHCPv6 answer from a global address":                frame(all6, 0x86dd, udp(vm.IPv6, 547, 546)),
		"first fragment of a DHCP answer":                    frame(all, 0x0800, firstDHCP),
		"ARP of IEEE 802 hardware":                           frame(all, 0x0806, arp(6, 2)),
		"ARP request of IEEE 802 hardware":                   frame(all, 0x0806, arp(6, 1)),
		"ARP with operation 0":                               frame(all, 0x0806, arp(1, 0)),
		"ARP with operation 258":                             frame(all, 0x0806, arp(1, 258)),
		"ARP in SNAP":                                        ethernet(all, own, nil, uint16(len(snap)), snap),
		"ARP in a priority tag":                              ethernet(all, own, []tag{{0x8100, 0}}, 0x0806, arp(1, 2)),
		"ARP in two priority tags":                           ethernet(all, own, []tag{{0x8100, 0}, {0x8100, 0}}, 0x0806, arp(1, 2)),
		"ARP in a service tag":                               ethernet(all, own, []tag{{0x88a8, 0}}, 0x0806, arp(1, 2)),
		"advertisement behind hop-by-hop options":            frame(all6, 0x86dd, v6(lla, "ff02::1", 255, 0, nothing, advertisement)),
		"advertisement behind destination options":           frame(all6, 0x86dd, v6(lla, "ff02::1", 255, 60, nothing, advertisement)),
		"advertisement in an atomic fragment":                frame(all6, 0x86dd, v6(lla, "ff02::1", 255, 44, fragment(58, 0, 0), advertisement)),
		"advertisement in a first fragment":                  frame(all6, 0x86dd, v6(lla, "ff02::1", 255, 44, fragment(58, 0, 1), advertisement)),
		"own advertisement, second option another's": frame(all6, 0x86dd, v6(lla, "ff02::1", 255, 58, icmp6(lla, "ff02::1", 136,
			[]byte{0x20, 0, 0, 0}, net.ParseIP(vm.IPv6), option(t, 2, vm.MAC), option(t, 2, victim.MAC)))),
		"own advertisement, an option of no meaning before another's": frame(all6, 0x86dd, v6(lla, "ff02::1", 255, 58, icmp6(lla, "ff02::1", 136,
			[]byte{0x20, 0, 0, 0}, net.ParseIP(vm.IPv6), []byte{14, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}, option(t, 2, victim.MAC)))),
		"router advertisement behind hop-by-hop options": frame(all6, 0x86dd, v6(lla, "ff02::1", 255, 0, nothing, router)),
		"router advertisement in an atomic fragment":     frame(all6, 0x86dd, v6(lla, "ff02::1", 255, 44, fragment(58, 0, 0), router)),
		"router advertisement, headers in the first fragment alone": frame(all6, 0x86dd, v6(lla, "ff02::1", 255, 44, fragment(60, 0, 1),
			nothing)),
		"router advertisement, in the second fragment": frame(all6, 0x86dd, v6(lla, "ff02::1", 255, 44, fragment(60, 1, 0), router)),
		"redirect": frame(all6, 0x86dd, v6(lla, "ff02::1", 255, 58, icmp6(lla, "ff02::1", 137, make([]byte, 4), target,
			net.ParseIP(victim.IPv6), option(t, 2, vm.MAC)))),
		"datagram from nowhere": frame(all6, 0x86dd, udp("::", 4000, 5000)),
	}
}

// A guarded machine is taken for nobody else by frames that are not what they are looked at for: other ports of DHCP, hardware types of
// ARP that receivers accept and the switch does not read, tags, extension headers, fragments and second options.
func TestAttackGuardByOddFrames(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	capture, err := s.Capture(s.vm[2].NS, "eth0")
	must(t, err)
	for _, more := range []string{"", ", unknownMac: judge"} {
		s.applyUncached(guarded(s.vm[1], more))
		all := oddly(t, s.vm[1], s.vm[3])
		since := time.Now()
		for _, f := range all {
			must(t, s.vm[1].Send(f))
		}
		arrived := func(sent []byte) int {
			return len(capture.Frames(func(f lab.Frame) bool { return f.At.After(since) && strings.HasPrefix(string(f.Data), string(sent)) }))
		}
		control := forgery{t, s.vm[1]}.arp(s.vm[1].MAC, s.vm[1].IPv4)
		must(t, s.vm[1].Send(control))
		lab.Eventually(t, 2*time.Second, "what is its own arrives", func() bool { return arrived(control) == 1 })
		time.Sleep(100 * time.Millisecond)
		if more != "" { // others may be behind the port, so whose MAC address an advertisement of its own names is not looked at
			delete(all, "own advertisement, an option of no meaning before another's")
		}
		for what, sent := range all {
			if arrived(sent) > 0 {
				t.Errorf("%s%s: it arrives", what, more)
			}
		}
	}
}

// The guard holds whatever else is done: an address that is taken from a machine ends its connections from it at once, be the endpoint in
// mode audit; and nothing forged gets through while the switch restarts, the port comes anew or tapwall is killed.
func TestAttackGuardThroughChanges(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	vm, other := s.vm[1], s.vm[2]
	s.applyUncached(guarded(vm, ""))
	out, in, control := s.echo(vm, other, 5001), s.echo(other, vm, 5001), s.echo(s.vm[3], other, 5002)
	s.running(out, in, control)
	_, err := vm.Run("ip", "address", "add", "10.77.0.50/24", "dev", "eth0")
	must(t, err)
	moved := *vm
	moved.IPv4 = "10.77.0.50"
	_, err = s.tw.RunInput(guarded(&moved, ", mode: audit"), "apply", "-f", "-", "--wait=effective")
	must(t, err)
	if !stands(out) || !stands(in) {
		t.Error("a connection from an address that is the machine's no more goes on")
	}
	s.mustConnect(other, moved.IPv4, 5001)
	s.mustNotConnect(other, vm.IPv4, 5001)
	s.running(control)

	capture, err := s.Capture(other.NS, "eth0")
	must(t, err)
	f := forgery{t, vm}
	forged := [][]byte{f.arp(vm.MAC, vm.IPv4), f.udp(vm.MAC, s.vm[3].IPv6, 4000, 5000), f.arp(s.vm[3].MAC, moved.IPv4),
		f.udp(vm.MAC, vm.IPv4, 67, 68)}
	own := f.arp(vm.MAC, moved.IPv4)
	stop, flood := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				flood <- nil
				return
			case <-time.After(time.Millisecond):
			}
			if err := vm.Send(append(forged, own)...); err != nil {
				flood <- err
				return
			}
		}
	}()
	arrived := func(since time.Time, frames ...[]byte) int {
		return len(capture.Frames(func(g lab.Frame) bool {
			for _, b := range frames {
				if g.At.After(since) && strings.HasPrefix(string(g.Data), string(b)) {
					return true
				}
			}
			return false
		}))
	}
	again := func(what string) {
		t.Helper()
		since := time.Now()
		lab.Eventually(t, 20*time.Second, what+": what is its own arrives", func() bool { return arrived(since, own) > 20 })
	}
	again("before")
	s.KillVswitchd()
	must(t, s.StartVswitchd())
	again("the switch is back")
	must(t, s.Unplug(vm))
	time.Sleep(100 * time.Millisecond)
	must(t, s.Plug(vm))
	again("the port is back")
	s.tw.Kill()
	again("without tapwall")
	s.KillVswitchd()
	must(t, s.StartVswitchd())
	must(t, s.tw.Start())
	again("all is back")
	close(stop)
	must(t, <-flood)
	if n := arrived(time.Time{}, forged...); n > 0 {
		t.Errorf("%d forged frames arrived", n)
	}
}
