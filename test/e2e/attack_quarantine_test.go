package e2e

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// fromPort53 sends text over a connection from port 53 of a machine to a port of another, and reports whether anything comes back soon.
func fromPort53(c net.Conn, text string) bool {
	_ = c.SetDeadline(time.Now().Add(400 * time.Millisecond))
	buf := make([]byte, len(text))
	if _, err := c.Write([]byte(text)); err != nil {
		return false
	}
	_, err := c.Read(buf)
	return err == nil
}

func dialFrom53(vm *lab.VM, network, host string, port int) (c net.Conn, err error) {
	err = vm.Do(func() (err error) {
		var local net.Addr = &net.TCPAddr{Port: 53}
		if network == "udp" {
			local = &net.UDPAddr{Port: 53}
		}
		d := net.Dialer{Timeout: 400 * time.Millisecond, LocalAddr: local, Control: func(_, _ string, c syscall.RawConn) error {
			var err error // the port may still be in use by a connection that hangs
			return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }), err)
		}}
		c, err = d.Dial(network, net.JoinHostPort(host, fmt.Sprint(port)))
		return err
	})
	return c, err
}

// A quarantine that lets DNS through lets the machine ask and gets it the answers. It lets nobody in who calls from port 53, be it by a
// connection of before.
func TestAttackQuarantineFromPort53(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	vm, resolver, attacker := s.vm[1], s.vm[2], s.vm[3]
	must(t, s.Serve(resolver, 53))
	s.hush("vm1")
	tries := map[string][2]string{"TCP": {"tcp", vm.IPv4}, "UDP": {"udp", vm.IPv4}, "TCP over IPv6": {"tcp", vm.IPv6},
		"UDP over IPv6": {"udp", vm.IPv6}}
	before := map[string]net.Conn{}
	for what, x := range tries {
		c, err := dialFrom53(attacker, x[0], x[1], 5004)
		must(t, err)
		defer c.Close()
		before[what] = c
		if !fromPort53(c, "before") {
			t.Fatalf("%s from port 53 does not work before", what)
		}
	}
	s.tapwall("quarantine", "add", "port=vm1", "--name", "cell", "--dns", "--wait")
	s.effective()
	for _, to := range []string{resolver.IPv4, resolver.IPv6} {
		s.mustConnect(vm, to, 53)
		lab.Eventually(t, 2*time.Second, "a question by UDP is answered", func() bool {
			c, err := vm.Dial("udp", to, 53, time.Second)
			must(t, err)
			defer c.Close()
			return fromPort53(c, "question")
		})
	}
	for what, x := range tries {
		if fromPort53(before[what], "after") {
			t.Errorf("%s: a connection from port 53 goes on", what)
		}
		c, err := dialFrom53(attacker, x[0], x[1], 5001)
		if err != nil {
			continue
		}
		if fromPort53(c, "new") || x[0] == "tcp" {
			t.Errorf("%s: a connection from port 53 begins", what)
		}
		c.Close()
	}
}

// A quarantined machine may ask for those of its pass list and answer them, as itself: not as a router or another machine, which they
// would then send what is for those.
func TestAttackQuarantineSpeaksAsOthers(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	vm, peer, victim := s.vm[1], s.vm[2], s.vm[3]
	s.applyUncached(guarded(vm, ", antiSpoof: off"))
	s.tapwall("quarantine", "add", "port=vm1", "--name", "cell", "--pass", peer.IPv4, "--pass", peer.IPv6, "--wait")
	s.effective()
	capture, err := s.Capture(peer.NS, "eth0")
	must(t, err)
	own := mustMAC(t, vm.MAC)
	ask := func(src string) []byte {
		body := icmp6(src, peer.IPv6, 135, make([]byte, 4), net.ParseIP(peer.IPv6), option(t, 1, vm.MAC))
		return ethernet(mustMAC(t, peer.MAC), own, nil, 0x86dd, v6(src, peer.IPv6, 255, 58, body))
	}
	answer := func(target string) []byte {
		body := icmp6(vm.IPv6, peer.IPv6, 136, []byte{0x20, 0, 0, 0}, net.ParseIP(target), option(t, 2, vm.MAC))
		return ethernet(mustMAC(t, peer.MAC), own, nil, 0x86dd, v6(vm.IPv6, peer.IPv6, 255, 58, body))
	}
	resolve := func(ip string) []byte {
		return ethernet(mustMAC(t, peer.MAC), own, nil, 0x0806, serialize(t, &layers.ARP{AddrType: layers.LinkTypeEthernet,
			Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: 1, SourceHwAddress: own,
			SourceProtAddress: net.ParseIP(ip).To4(), DstHwAddress: make([]byte, 6), DstProtAddress: net.ParseIP(peer.IPv4).To4()}))
	}
	arrived := func(sent []byte) bool {
		return len(capture.Frames(func(f lab.Frame) bool { return strings.HasPrefix(string(f.Data), string(sent)) })) > 0
	}
	lla := policy.LinkLocal(vm.MAC).String()
	as := map[string][]byte{"asks as another": ask(victim.IPv6), "asks as a router": ask("fe80::99"), "asks as nobody": ask("::"),
		"answers as another": answer(victim.IPv6), "answers as a router": answer("fe80::99"), "resolves as another": resolve(victim.IPv4)}
	for _, f := range as {
		must(t, vm.Send(f))
	}
	for what, f := range map[string][]byte{"asks": ask(vm.IPv6), "asks by its link-local address": ask(lla), "answers": answer(vm.IPv6),
		"answers for its link-local address": answer(lla), "resolves": resolve(vm.IPv4)} {
		must(t, vm.Send(f))
		lab.Eventually(t, 2*time.Second, what+" as itself", func() bool { return arrived(f) })
	}
	for what, f := range as {
		if arrived(f) {
			t.Errorf("it %s", what)
		}
	}
}

// A machine that has claimed the address of a router that was silent, and goes on claiming it, does not take the router along into its
// quarantine.
func TestAttackQuarantineSparesTheRouter(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	vm, other := s.vm[1], s.vm[2]
	router := s.stranger("gw", 9)
	s.mustConnect(other, router.IPv4, 5001) // who knows its address asks for it no more
	time.Sleep(200 * time.Millisecond)
	stop, claims := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				claims <- nil
				return
			case <-time.After(2 * time.Millisecond):
			}
			if err := vm.Send(raw("ff:ff:ff:ff:ff:ff", router.MAC, strange, "mine")); err != nil {
				claims <- err
				return
			}
		}
	}()
	lab.Eventually(t, 3*time.Second, "it is taken for the machine's", func() bool { return s.binds(router.MAC) })
	lab.Eventually(t, 5*time.Second, "who sends to the router does not reach it", func() bool { // which takes it back with each answer
		return !other.CanConnect(router.IPv4, 5001, 300*time.Millisecond)
	})
	s.tapwall("quarantine", "add", "port=vm1", "--name", "cell", "--wait")
	lab.Eventually(t, 3*time.Second, "the router is reached", func() bool { return other.CanConnect(router.IPv4, 5001, 300*time.Millisecond) })
	close(stop)
	must(t, <-claims)
	s.mustConnect(other, router.IPv4, 5001)
	s.mustNotConnect(other, vm.IPv4, 5001)
}
