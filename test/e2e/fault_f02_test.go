package e2e

import (
	"bytes"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// echoAt answers datagrams from the address that they were sent to.
func (s *stage) echoAt(vm *lab.VM, address string, port int) {
	s.t.Helper()
	var c net.PacketConn
	must(s.t, vm.Do(func() (err error) {
		c, err = net.ListenPacket("udp", net.JoinHostPort(address, strconv.Itoa(port)))
		return err
	}))
	s.t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:n], from)
		}
	}()
}

// F02: an address moves from one machine to another. The other's policy decides from the first packet on, whatever the connection was
// allowed before.
func TestFault_F02_AddressMoves(t *testing.T) {
	t.Parallel()
	s := open(t, 4)
	client, first, closed, next := s.vm[1], s.vm[2], s.vm[3], s.vm[4]
	s.apply(`
kind: Policy
name: closed
spec:
  appliesTo: [{port: vm3}]
  defaultDeny: {ingress: true}
---
kind: Policy
name: next
spec:
  appliesTo: [{port: vm2}, {port: vm4}]
  ingress:
  - {name: clients, action: allow, from: [{port: vm1}], services: [{protocol: udp, ports: ["6001"]}, {protocol: tcp, ports: ["5001"]}]}
`)
	s.pickupClosed()
	vips := []string{"10.77.0.100", "fd77::100"}
	for _, vm := range []*lab.VM{first, closed, next} {
		_, err := vm.Run("sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=1", "net.ipv6.ip_nonlocal_bind=1")
		must(t, err)
		for _, vip := range vips {
			s.echoAt(vm, vip, 6001)
		}
	}
	move := func(from, to *lab.VM) {
		t.Helper()
		for _, vip := range vips {
			width := map[bool]string{true: "/32", false: "/128"}[vip == vips[0]]
			if from != nil {
				_, err := from.Run("ip", "addr", "del", vip+width, "dev", "eth0")
				must(t, err)
			}
			add := []string{"addr", "add", vip + width, "dev", "eth0"}
			if width == "/128" {
				add = append(add, "nodad")
			}
			_, err := to.Run("ip", add...)
			must(t, err)
			_, err = client.Run("ip", "neigh", "replace", vip, "lladdr", to.MAC, "dev", "eth0", "nud", "permanent")
			must(t, err)
		}
	}
	move(nil, first)
	capture, err := s.Capture(closed.NS, "eth0")
	must(t, err)
	var probes []*lab.Probe
	var tcp []*lab.Probe
	for _, vip := range vips {
		p, err := client.EchoUDP(vip, 6001, 5*time.Millisecond)
		must(t, err)
		q, err := client.EchoTCP(vip, 5001, 10*time.Millisecond)
		must(t, err)
		t.Cleanup(p.Stop)
		t.Cleanup(q.Stop)
		probes, tcp = append(probes, p), append(tcp, q)
	}
	s.running(append(probes, tcp...)...)
	toVIP := func(f lab.Frame) bool { // by TCP or UDP
		d := f.Data
		return len(d) >= 54 && (bytes.Equal(d[12:14], []byte{0x08, 0x00}) && bytes.Equal(d[30:34], net.ParseIP(vips[0]).To4()) ||
			bytes.Equal(d[12:14], []byte{0x86, 0xdd}) && d[20] != 58 && bytes.Equal(d[38:54], net.ParseIP(vips[1])))
	}
	move(first, closed)
	sent := probes[0].Sent()
	lab.Eventually(t, 5*time.Second, "more is sent", func() bool { return probes[0].Sent() > sent+100 })
	time.Sleep(passage)
	if n := len(capture.Frames(toVIP)); n != 0 {
		t.Errorf("%d frames reached the machine that the address moved to, whose policy denies them; the first is %x", n,
			capture.Frames(toVIP)[0].Data)
	}
	// Back to where the TCP connections live, they go on.
	at := time.Now()
	move(closed, first)
	lab.Eventually(t, 30*time.Second, "TCP goes on where it was", func() bool {
		return tcp[0].ReceivedSince(at) > 5 &&
			tcp[1].ReceivedSince(at) > 5
	})
	at = time.Now()
	move(first, next)
	lab.Eventually(t, 5*time.Second, "the honest move is followed", func() bool {
		return probes[0].ReceivedSince(at) > 20 && probes[1].ReceivedSince(at) > 20
	})
	if entries := s.conntrack("udp", "dport=6001"); len(entries) == 0 {
		t.Error("conntrack knows nothing of the datagrams")
	}
}
