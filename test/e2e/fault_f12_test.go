package e2e

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// announce has a machine ask for its own address under a MAC, as whatever appears on a network does.
func (s *stage) announce(vm *lab.VM, mac string) {
	s.t.Helper()
	arp := append([]byte{0, 1, 8, 0, 6, 4, 0, 1}, parseMAC(s.t, mac)...)
	arp = append(append(append(arp, 10, 77, 0, 200), make([]byte, 6)...), 10, 77, 0, 200)
	must(s.t, vm.Send(ethernet(parseMAC(s.t, "ff:ff:ff:ff:ff:ff"), parseMAC(s.t, mac), nil, 0x0806, arp)))
}

// oneWay sends ten datagrams to a port of whoever has the MAC, and returns how many of them arrived on the wire of vm.
func (s *stage) oneWay(from *lab.VM, mac string, vm *lab.VM, capture *lab.Capture, port int, mark string) int {
	s.t.Helper()
	mark = sprintf("%s;%d;", mark, time.Now().UnixNano())
	for range 10 {
		s.tell(from, vm, nil, mac, from.IPv4, vm.IPv4, 4000, port, mark)
	}
	time.Sleep(passage)
	return len(capture.Frames(func(f lab.Frame) bool {
		return bytes.Contains(f.Data, []byte(mark)) && bytes.Equal(f.Data[:6], parseMAC(s.t, mac)) &&
			binary.BigEndian.Uint16(f.Data[36:]) == uint16(port)
	}))
}

// binds reports whether what is sent to the MAC is judged as sent to an endpoint.
func (s *stage) binds(mac string) bool { return len(s.flows("table=202,dl_dst="+mac)) > 0 }

// A MAC that the endpoint does not declare is no way round its wall: it is told of, taken for the endpoint's while it is seen there, and
// nobody else's for that. What is declared is the endpoint's from the first packet on.
func TestFault_F12_SeveralMACsBehindAPort(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 4)
	client, host, other, plain := s.vm[1], s.vm[2], s.vm[3], s.vm[4]
	_, err := s.Vsctl("clear", "interface", plain.Port, "external_ids")
	must(t, err)
	capture, err := s.Capture(host.NS, "eth0")
	must(t, err)
	const nested, undeclared = "02:77:00:00:01:01", "02:77:00:00:01:02"
	s.applyUncached(onlyPort6001 + "---" + allowPorts("tcp", "vm2", "vm1", "5001"))
	told := func(mac string) bool {
		out := s.tapwall("get", "policy", "vm2", "-o", "json")
		return strings.Contains(out, "UNKNOWN_MAC") && strings.Contains(out, mac) && strings.Contains(out, "port "+host.Port)
	}
	if told(nested) {
		t.Error("told of a MAC that nobody has seen")
	}
	s.announce(host, nested)
	lab.Eventually(t, 5*time.Second, "the MAC is told of", func() bool { return told(nested) })
	if out := s.tapwall("status", "-o", "json"); !strings.Contains(out, "UNKNOWN_MAC") {
		t.Error("the status of the host does not tell of it")
	}
	_, err = s.Appctl("revalidator/wait")
	must(t, err)
	if n := s.oneWay(client, nested, host, capture, 6002, "denied"); n > 0 {
		t.Errorf("%d of 10 denied datagrams reached the MAC behind the port", n)
	}
	if n := s.oneWay(client, nested, host, capture, 6001, "allowed"); n != 10 {
		t.Errorf("%d of 10 allowed datagrams reached the MAC behind the port", n)
	}
	// A restart of tapwall forgets nothing of it.
	must(t, s.tw.Stop())
	must(t, s.tw.Start())
	if n := s.health().FlowMods; n > 0 || !s.binds(nested) || !told(nested) {
		t.Errorf("after a restart: %d flow-mods, bound %v, told %v", n, s.binds(nested), told(nested))
	}
	// It goes with whoever uses it: to another machine, and to a station that is none of ours.
	other4, err := s.Capture(other.NS, "eth0")
	must(t, err)
	s.announce(other, nested)
	lab.Eventually(t, 5*time.Second, "the address moves", func() bool {
		return s.oneWay(client, nested, other, other4, 6002, "moved") == 10
	})
	s.announce(host, nested)
	lab.Eventually(t, 5*time.Second, "the address comes back", func() bool {
		return s.oneWay(client, nested, host, capture, 6002,
			"back") == 0
	})
	s.announce(plain, nested)
	lab.Eventually(t, 5*time.Second, "the address is nobody's", func() bool { return !s.binds(nested) })

	// An address that somebody has is not taken.
	s.announce(host, other.MAC)
	lab.Eventually(t, 5*time.Second, "the spoofed MAC is told of", func() bool { return told(other.MAC) })
	s.announce(other, other.MAC)
	other2 := s.inbox(other, 6002)
	s.tell(client, other, nil, other.MAC, client.IPv4, other.IPv4, 4000, 6002, "to its owner")
	s.arrives(other2, "to its owner")

	// Declared, it is judged without having been seen, and what is not declared is dropped. No connection notices.
	live := s.echo(client, host, 5001)
	s.running(live)
	s.applyUncached(`
kind: Endpoint
name: vm2
spec: {match: {port: vm2}, macs: ["` + nested + `"]}
`)
	if !s.binds(nested) {
		t.Error("the declared MAC is not recognised")
	}
	if n := s.oneWay(client, nested, host, capture, 6002, "declared"); n > 0 {
		t.Errorf("%d of 10 denied datagrams reached the declared MAC", n)
	}
	drops := s.packets("table=201", "cookie=0x7a9a11020000000e")
	in := s.inbox(client, 7000)
	for _, mac := range []string{nested, undeclared, host.MAC} {
		etherType, p := datagram(t, host.IPv4, client.IPv4, 4000, 7000, "from "+mac)
		must(t, host.Send(ethernet(parseMAC(t, client.MAC), parseMAC(t, mac), nil, etherType, p)))
	}
	s.arrives(in, "from "+nested)
	s.arrives(in, "from "+host.MAC)
	lab.Eventually(t, 5*time.Second, "the undeclared MAC is told of", func() bool { return told(undeclared) })
	lab.Eventually(t, 5*time.Second, "the drop is counted", func() bool { return s.packets("table=201", "cookie=0x7a9a11020000000e") > drops })
	s.misses(in, "from "+undeclared)
	s.lossless(live, "a connection while a MAC is declared")
	// Taken out of the list, the MAC is nobody's.
	s.applyUncached("kind: Endpoint\nname: vm2\nspec: {match: {port: vm2}, unknownMac: drop}\n")
	if s.binds(nested) {
		t.Error("a MAC that is declared no more is still recognised")
	}
	s.lossless(live, "a connection while a MAC is taken away")
}

// The name of a port goes to another machine: what the Endpoint says of the old one is not for it.
func TestFault_F12_ContradictionGivesNoLabels(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	s.apply(`
kind: Endpoint
name: trusted
spec: {match: {port: vm1}, mac: "` + s.vm[1].MAC + `", labels: {role: trusted}}
---
kind: Policy
name: vm2
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: trusted, action: allow, from: [{labels: {role: trusted}}]}
`)
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	_, err := s.Vsctl("set", "interface", "vm1", `external_ids:attached-mac="02:77:00:00:01:01"`)
	must(t, err)
	lab.Eventually(t, 5*time.Second, "the contradiction is told of", func() bool {
		out := s.tapwall("get", "endpoint", "trusted", "-o", "json")
		return strings.Contains(out, "MAC_CONTRADICTION") && strings.Contains(out, "Degraded")
	})
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.mustNotConnect(s.vm[3], s.vm[2].IPv4, 5001)
	if out := s.tapwall("get", "workloads", "-o", "json"); strings.Contains(out, "trusted") {
		t.Error("a stranger has the labels")
	}
	_, err = s.Vsctl("set", "interface", "vm1", `external_ids:attached-mac="`+s.vm[1].MAC+`"`)
	must(t, err)
	lab.Eventually(t, 5*time.Second, "the machine is back", func() bool { return s.vm[1].CanConnect(s.vm[2].IPv4, 5001, time.Second) })
}
