package e2e

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/test/lab"
)

// icmpError crafts an ICMP error of either family from one machine to another about a datagram that the other sent: that the port cannot be
// reached or, with an MTU, that it was too big.
func icmpError(t *testing.T, from, to *lab.VM, v6 bool, srcPort, dstPort, mtu int) []byte {
	t.Helper()
	udp := []byte{byte(srcPort >> 8), byte(srcPort), byte(dstPort >> 8), byte(dstPort), 0x05, 0xc0, 0, 0}
	var upper []gopacket.SerializableLayer
	etherType := layers.EthernetTypeIPv4
	if v6 {
		etherType = layers.EthernetTypeIPv6
		a, b := netip.MustParseAddr(to.IPv6).As16(), netip.MustParseAddr(from.IPv6).As16()
		inner := append(append([]byte{0x60, 0, 0, 0, 0x05, 0xc0, 17, 64}, a[:]...), b[:]...)
		code := layers.CreateICMPv6TypeCode(1, 4)
		if mtu > 0 {
			code = layers.CreateICMPv6TypeCode(2, 0)
		}
		upper = append(upper, &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolICMPv6, SrcIP: net.ParseIP(from.IPv6),
			DstIP: net.ParseIP(to.IPv6)}, &layers.ICMPv6{TypeCode: code},
			gopacket.Payload(append(append(binary.BigEndian.AppendUint32(nil, uint32(mtu)), inner...), udp...)))
	} else {
		a, b := netip.MustParseAddr(to.IPv4).As4(), netip.MustParseAddr(from.IPv4).As4()
		inner := append(append([]byte{0x45, 0, 0x05, 0xd4, 0, 1, 0x40, 0, 64, 17, 0, 0}, a[:]...), b[:]...)
		var sum uint32
		for i := 0; i < len(inner); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(inner[i:]))
		}
		binary.BigEndian.PutUint16(inner[10:], ^uint16(sum>>16+sum&0xffff))
		code := layers.CreateICMPv4TypeCode(3, 3)
		if mtu > 0 {
			code = layers.CreateICMPv4TypeCode(3, 4)
		}
		upper = append(upper, &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: net.ParseIP(from.IPv4),
			DstIP: net.ParseIP(to.IPv4)}, &layers.ICMPv4{TypeCode: code, Seq: uint16(mtu)}, gopacket.Payload(append(inner, udp...)))
	}
	frame, err := lab.CraftFrame(from.MAC, to.MAC, etherType, upper...)
	must(t, err)
	return frame
}

// unreachable keeps untagged ICMP errors that something cannot be reached.
func unreachable(f lab.Frame) bool {
	d := f.Data
	return len(d) > 54 && (d[12] == 0x08 && d[13] == 0 && d[23] == 1 && d[34] == 3 || d[12] == 0x86 && d[20] == 58 && d[54] == 1)
}

// Scenario 8: ICMP errors reach who they are for through a default deny, as part of the connection that they are about, and only then.
func TestFirewallScenario08ICMPErrors(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.applyUncached(`
kind: Policy
name: closed
spec:
  appliesTo: [{port: vm2}]
  defaultDeny: {ingress: true}
`)
	if s.ping(s.vm[1], s.vm[2].IPv4) {
		t.Fatal("vm2 is open")
	}
	capture, err := s.Capture(s.vm[2].NS, "eth0")
	must(t, err)
	invalid := func() int { return s.packets("table=204", "priority=200,", "actions=drop") }
	for _, v6 := range []bool{false, true} {
		to, family := s.vm[1].IPv4, "-4"
		if v6 {
			to, family = s.vm[1].IPv6, "-6"
		}
		// Nobody serves port 4000: its machine says so.
		c, err := s.vm[2].Dial("udp", to, 4000, time.Second)
		must(t, err)
		_, err = c.Write([]byte("x"))
		must(t, err)
		must(t, c.SetReadDeadline(time.Now().Add(time.Second)))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: a closed port is told as %v", family, err)
		}
		_ = c.Close()

		// A live exchange: an error that it is too big lowers what its sender takes for the MTU of the path.
		c, err = s.vm[2].Dial("udp", to, 5000, time.Second)
		must(t, err)
		_, err = c.Write([]byte("x"))
		must(t, err)
		must(t, c.SetReadDeadline(time.Now().Add(2*time.Second)))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Errorf("%s: no answer from an open port: %v", family, err)
		}
		port := c.LocalAddr().(*net.UDPAddr).Port
		mtu := func() int {
			out, err := s.vm[2].Run("ip", family, "route", "get", to)
			must(t, err)
			if m := regexp.MustCompile(`mtu (\d+)`).FindStringSubmatch(out); m != nil {
				n, _ := strconv.Atoi(m[1])
				return n
			}
			return 0
		}
		if n := mtu(); n != 0 {
			t.Fatalf("%s: the path has an MTU of %d already", family, n)
		}
		must(t, s.vm[1].Send(icmpError(t, s.vm[1], s.vm[2], v6, port, 5000, 1300)))
		lab.Eventually(t, 2*time.Second, "the MTU of the path is lowered", func() bool { return mtu() == 1300 })
		_ = c.Close()

		// The same about a datagram that vm2 never sent, by the machine that it would have been for and by another.
		s.revalidated()
		before, seen := invalid(), len(capture.Frames(unreachable))
		for _, from := range []*lab.VM{s.vm[1], s.vm[3]} {
			must(t, from.Send(icmpError(t, from, s.vm[2], v6, 4444, 5000, 0)))
		}
		lab.Eventually(t, 3*time.Second, "both forged errors are counted as invalid", func() bool { return invalid() == before+2 })
		if n := len(capture.Frames(unreachable)); n != seen || seen == 0 {
			t.Errorf("%s: %d errors were delivered, %d before the forged ones", family, n, seen)
		}
	}
}
