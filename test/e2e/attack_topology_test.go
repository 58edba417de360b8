package e2e

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/test/lab"
)

// A frame is judged in the VLAN that the bridge forwards it in, however the port came to be in that VLAN.
func TestAttackVLANModes(t *testing.T) {
	t.Parallel()
	for name, port := range map[string][]string{
		"access":                  {"tag=10"},
		"access, trunks ignored":  {"tag=10", "trunks=20,30"},
		"native untagged":         {"tag=10", "vlan_mode=native-untagged"},
		"native tagged":           {"tag=10", "vlan_mode=native-tagged"},
		"native, tags of its own": {"tag=10", "vlan_mode=native-untagged", "trunks=10,20"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := ground(t, 2, port, []string{"tag=10"})
			open, shut := s.inbox(s.vm[2], 6001), s.inbox(s.vm[2], 6002)
			s.wall()
			a, b := s.vm[1], s.vm[2]
			s.tell(a, b, nil, b.MAC, a.IPv4, b.IPv4, 4000, 6002, "before")
			s.arrives(shut, "before")
			s.applyUncached(onlyPort6001 + "---" + allowPorts("tcp", "vm2", "vm1", "5001"))
			for _, ip := range [][2]string{{a.IPv4, b.IPv4}, {a.IPv6, b.IPv6}} {
				s.tell(a, b, nil, b.MAC, ip[0], ip[1], 4001, 6002, "after untagged")
				s.tell(a, b, []tag{{0x8100, 10}}, b.MAC, ip[0], ip[1], 4002, 6002, "after tag 10")
				s.tell(a, b, []tag{{0x8100, 0}}, b.MAC, ip[0], ip[1], 4003, 6002, "after tag 0")
			}
			s.tell(a, b, nil, b.MAC, a.IPv4, b.IPv4, 4001, 6001, "allowed")
			s.arrives(open, "allowed")
			time.Sleep(passage)
			for _, mark := range []string{"after untagged", "after tag 10", "after tag 0"} {
				s.misses(shut, mark)
			}
			if name == "native tagged" { // what comes back to vm1 has a tag that it does not know
				return
			}
			// Both directions of a connection are in one conntrack zone.
			s.mustConnect(a, b.IPv4, 5001)
			s.mustNotConnect(a, b.IPv4, 5002)
		})
	}
}

// Forged ICMP: an error about a connection that does not exist, an answer nobody asked for, and messages that are neither.
func TestAttackForgedICMP(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	a, b := s.vm[1], s.vm[2]
	s.applyUncached(onlyPort6001)
	in := s.inbox(b, 6001)
	capture, err := s.Capture(b.NS, "eth0")
	must(t, err)
	_, inner := datagram(t, b.IPv4, a.IPv4, 5555, 5556, "never sent")
	icmp := func(kind, code uint8, payload []byte) []byte {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: net.ParseIP(a.IPv4), DstIP: net.ParseIP(b.IPv4)}
		return serialize(t, ip, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, code), Id: 7, Seq: 1}, gopacket.Payload(payload))
	}
	n := 0
	for _, kind := range []uint8{0, 3, 4, 5, 8, 11, 12, 13, 14, 17, 18, 40} {
		for _, payload := range [][]byte{inner, []byte("no packet inside"), nil} {
			must(t, a.Send(ethernet(parseMAC(t, b.MAC), parseMAC(t, a.MAC), nil, 0x0800, icmp(kind, 1, payload))))
			n++
		}
	}
	// ICMPv6 needs a checksum over the pseudo header.
	for _, kind := range []uint8{1, 2, 3, 4, 128, 129, 139, 140, 200} {
		ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: net.ParseIP(a.IPv6), DstIP: net.ParseIP(b.IPv6)}
		m := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}
		must(t, m.SetNetworkLayerForChecksum(ip))
		must(t, a.Send(ethernet(parseMAC(t, b.MAC), parseMAC(t, a.MAC), nil, 0x86dd, serialize(t, ip, m,
			gopacket.Payload(append([]byte{0, 0, 0, 0},
				inner...))))))
		n++
	}
	s.tell(a, b, nil, b.MAC, a.IPv4, b.IPv4, 4000, 6001, "control")
	s.arrives(in, "control")
	time.Sleep(passage)
	for _, f := range capture.Frames(nil) {
		d := f.Data
		switch binary.BigEndian.Uint16(d[12:]) {
		case 0x0800:
			if d[23] == 1 {
				t.Errorf("ICMP type %d of %d forged messages got through", d[34], n)
			}
		case 0x86dd:
			if kind := d[54]; d[20] == 58 && (kind < 130 || kind > 136) && kind != 143 {
				t.Errorf("ICMPv6 type %d of %d forged messages got through", kind, n)
			}
		}
	}
}

// A denied datagram does not get through in pieces, and pieces open nothing for what follows.
func TestAttackFragments(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	a, b := s.vm[1], s.vm[2]
	big := strings.Repeat("x", 4000)
	shut, open := s.inbox(b, 6002), s.inbox(b, 6003)
	talk := func(port int, mark string) {
		c, err := a.Dial("udp", b.IPv4, port, time.Second)
		must(t, err)
		defer c.Close()
		for range 3 {
			_, err = c.Write([]byte(mark + big))
			must(t, err)
		}
	}
	talk(6002, "before")
	s.arrives(shut, "before")
	// The deny stands above a rule that allows everything: a later fragment has no ports that the deny could match.
	s.applyUncached(`
kind: Policy
name: vm2
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: all, action: allow, from: [{port: vm1}]}
  - {name: no-6002, action: deny, services: [{protocol: udp, ports: ["6002"]}]}
`)
	talk(6002, "after")
	s.tell(a, b, nil, b.MAC, a.IPv4, b.IPv4, 4000, 6002, "after") // the same tuple, whole
	// By hand: later pieces first, overlapping pieces, a first piece without ports.
	_, whole := datagram(t, a.IPv4, b.IPv4, 4001, 6002, "after"+big)
	for _, cuts := range [][][2]int{{{1480, 2960}, {2960, 4013}, {0, 1480}}, {{0, 8}, {8, 1480}, {1480, 2960}, {2960, 4013}},
		{{0, 1480}, {8, 1480}, {1480, 2960}, {2960, 4013}}} {
		for i, cut := range cuts {
			p := append(append([]byte{}, whole[:20]...), whole[20+cut[0]:min(20+cut[1], len(whole))]...)
			binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
			binary.BigEndian.PutUint16(p[4:], uint16(0x4242+len(cuts)))
			flags := uint16(cut[0] / 8)
			if i < len(cuts)-1 || cut[1] < 4013 {
				flags |= 0x2000
			}
			binary.BigEndian.PutUint16(p[6:], flags)
			p[10], p[11] = 0, 0
			sum := uint32(0)
			for j := 0; j < 20; j += 2 {
				sum += uint32(binary.BigEndian.Uint16(p[j:]))
			}
			for sum > 0xffff {
				sum = sum>>16 + sum&0xffff
			}
			binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
			must(t, a.Send(ethernet(parseMAC(t, b.MAC), parseMAC(t, a.MAC), nil, 0x0800, p)))
		}
	}
	s.tell(a, b, nil, b.MAC, a.IPv4, b.IPv4, 4000, 6003, "control")
	s.arrives(open, "control")
	time.Sleep(passage)
	s.misses(shut, "after")
}

// Frames of a kind that is not IP are not judged, as documented; they are counted under their own cookie. Nothing but ARP among them is
// something that a machine answers without being set up for it.
func TestAttackNonIPIsCounted(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	a, b := s.vm[1], s.vm[2]
	s.applyUncached(onlyPort6001)
	before := s.packets("table=203", "priority=0")
	for _, etherType := range []uint16{0x88b5, 0x8847, 0x8863, 0x8864, 0x22f0, 0x88e5} {
		must(t, a.Send(ethernet(parseMAC(t, b.MAC), parseMAC(t, a.MAC), nil, etherType, []byte("frame"))))
	}
	lab.Eventually(t, 3*time.Second, "all six are counted", func() bool { return s.packets("table=203", "priority=0")-before == 6 })
}

// The bridge's own port is the world: what goes to the host and what comes from it is judged on the machine's side.
func TestAttackLocalPort(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	for _, cmd := range [][]string{{"addr", "add", "10.77.0.254/24", "dev", "br0"}, {"link", "set", "br0", "up"}} {
		_, err := s.Switch.Run("ip", cmd...)
		must(t, err)
	}
	host := &lab.VM{NS: s.Switch, Port: "br0", IPv4: "10.77.0.254"}
	must(t, s.Serve(host, 5001))
	s.mustConnect(s.vm[1], host.IPv4, 5001)
	s.mustConnect(host, s.vm[2].IPv4, 5001)
	live := s.echo(s.vm[1], host, 5001)
	s.running(live)
	t0 := s.apply(`
kind: Policy
name: vm1
spec:
  appliesTo: [{port: vm1}]
  egress:
  - {name: to-vm2, action: allow, to: [{port: vm2}]}
---
kind: Policy
name: vm2
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: from-vm1, action: allow, from: [{port: vm1}]}
`)
	s.quiet(live, t0, 500*time.Millisecond, "a connection to the host")
	s.mustNotConnect(s.vm[1], host.IPv4, 5001)
	s.mustNotConnect(host, s.vm[2].IPv4, 5001)
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.mustConnect(s.vm[2], host.IPv4, 5001)
	s.apply("kind: Policy\nname: vm2\nspec:\n  appliesTo: [{port: vm2}]\n  ingress:\n  - {name: world, action: allow, from: [{entity: " +
		"world}]}\n")
	s.mustConnect(host, s.vm[2].IPv4, 5001)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
}

// Two bridges with the same VLAN and the same addresses share nothing, and a wire between them joins them without a way round either wall.
func TestAttackTwoBridges(t *testing.T) {
	t.Parallel()
	s := &stage{Lab: lab.Require(t), t: t, vm: []*lab.VM{nil}}
	must(t, s.AddBridge("br0"))
	must(t, s.AddBridge("br1"))
	for i, bridge := range []string{"br0", "br0", "br1", "br1"} {
		vm, err := s.AddVM(sprintf("vm%d", i+1), bridge, i+1)
		must(t, err)
		must(t, s.Serve(vm, 5001, 5002))
		s.vm = append(s.vm, vm)
	}
	var err error
	s.tw, err = s.StartTapwall("--bridge", "br0=owned", "--bridge", "br1=owned", "--pickup-window", "300ms")
	must(t, err)
	s.mustNotConnect(s.vm[1], s.vm[3].IPv4, 5001)
	s.apply(allowPorts("vm2", "vm2", "vm1", "5001") + "---" + allowPorts("vm4", "vm4", "vm3", "5001"))
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.mustConnect(s.vm[3], s.vm[4].IPv4, 5001)
	s.mustNotConnect(s.vm[3], s.vm[4].IPv4, 5002)
	_, err = s.Vsctl("--", "add-port", "br0", "p0", "--", "set", "interface", "p0", "type=patch", "options:peer=p1",
		"--", "add-port", "br1", "p1", "--", "set", "interface", "p1", "type=patch", "options:peer=p0")
	must(t, err)
	lab.Eventually(t, 5*time.Second, "the wire carries", func() bool { return s.vm[1].CanConnect(s.vm[3].IPv4, 5001, 300*time.Millisecond) })
	// On the far bridge vm1 is somebody of the world, so the rule for vm3 is not for it, nor the other way round.
	s.mustNotConnect(s.vm[1], s.vm[4].IPv4, 5001)
	s.mustNotConnect(s.vm[3], s.vm[2].IPv4, 5001)
	live := s.echo(s.vm[4], s.vm[1], 5001)
	s.running(live)
	zones := map[string]bool{}
	for _, e := range s.conntrack("src="+s.vm[4].IPv4, "dport=5001") {
		_, z, _ := strings.Cut(e.text, "zone=")
		z, _, _ = strings.Cut(z, ",")
		zones[z] = true
	}
	if len(zones) != 2 {
		t.Errorf("a connection across both bridges is in zones %v, want one of each", zones)
	}
	// A rule of one bridge that goes does not touch the other.
	t0 := s.apply("kind: Policy\nname: vm1\nspec:\n  appliesTo: [{port: vm1}]\n  ingress: []\n  defaultDeny: {ingress: true}\n")
	s.quiet(live, t0, 500*time.Millisecond, "the connection across")
	s.mustConnect(s.vm[3], s.vm[4].IPv4, 5001)
}

// A port that has just been plugged sends nothing until it is known. What is sent to it is judged only from then on: this measures for how
// long, and that nothing which began in that time goes on.
func TestAttackJustPlugged(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.apply(`
kind: Policy
name: vm2
spec:
  appliesTo: [{port: vm2}, {port: vm1}]
  ingress: []
  defaultDeny: {ingress: true}
`)
	a, b := s.vm[1], s.vm[2]
	in := s.inbox(b, 6001)
	from := s.inbox(a, 6001)
	s.neighbours()
	for round := range 3 {
		must(t, s.Unplug(b))
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			c, err := a.Dial("udp", b.IPv4, 6001, time.Second)
			if err != nil {
				return
			}
			defer c.Close()
			back, err := b.Dial("udp", a.IPv4, 6001, time.Second)
			if err != nil {
				return
			}
			defer back.Close()
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				_, _ = c.Write([]byte(sprintf("round%d", round)))
				_, _ = back.Write([]byte(sprintf("round%d", round)))
			}
		}()
		time.Sleep(100 * time.Millisecond)
		must(t, s.Plug(b))
		plugged := time.Now()
		time.Sleep(500 * time.Millisecond)
		busy := lab.Late(plugged)
		time.Sleep(busy)
		early := in.count(sprintf("round%d", round))
		time.Sleep(500 * time.Millisecond)
		late := in.count(sprintf("round%d", round)) - early
		close(stop)
		<-done
		t.Logf("round %d: %d datagrams at 1 kHz reached the machine before its wall stood, %d its own denied ones got out", round, early,
			from.count(sprintf("round%d", round)))
		if early > 250+int(busy/time.Millisecond) {
			t.Errorf("the window was open for about %d ms", early)
		}
		if late > 0 {
			t.Errorf("%d datagrams came when the wall stood", late)
		}
		if n := from.count(sprintf("round%d", round)); n > 0 {
			t.Errorf("%d datagrams of an unknown port got through", n)
		}
	}
}

// A port number that is given to another machine does not carry the rights of the one before for longer than it takes to notice.
func TestAttackPortNumberReused(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	in := s.inbox(s.vm[2], 6001)
	s.applyUncached(onlyPort6001)
	s.neighbours()
	good, bad := s.vm[1], s.vm[3]
	number, err := s.Vsctl("get", "interface", good.Port, "ofport")
	must(t, err)
	must(t, s.Unplug(bad))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		c, err := bad.Dial("udp", s.vm[2].IPv4, 6001, time.Second)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				_, _ = c.Write([]byte("usurper"))
			}
		}
	}()
	_, err = s.Vsctl("--", "del-port", "br0", good.Port, "--", "add-port", "br0", bad.Port, "--", "set", "interface", bad.Port,
		"ofport_request="+strings.TrimSpace(number), `external_ids:attached-mac="`+bad.MAC+`"`, "external_ids:iface-id=if-"+bad.Port)
	must(t, err)
	now, err := s.Vsctl("get", "interface", bad.Port, "ofport")
	must(t, err)
	if now != number {
		t.Fatalf("the switch gave port %s, not %s", now, number)
	}
	plugged := time.Now()
	time.Sleep(500 * time.Millisecond)
	busy := lab.Late(plugged)
	time.Sleep(busy)
	early := in.count("usurper")
	time.Sleep(500 * time.Millisecond)
	late := in.count("usurper") - early
	close(stop)
	<-done
	t.Logf("%d datagrams at 1 kHz passed with the rights of the machine before", early)
	if early > 250+int(busy/time.Millisecond) || late > 0 {
		t.Errorf("%d datagrams passed in the first half second, %d in the second", early, late)
	}
}

// A rule that names a machine recognises it by its port. Through a router its packets come from the router's port, so they are somebody
// of the world: a rule that allows it does not hold, which is safe; one that denies it is not met, so a deny needs the default deny or
// the addresses beside it.
func TestAttackThroughARouter(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	router := s.vm[3]
	_, err := s.Vsctl("clear", "interface", router.Port, "external_ids")
	must(t, err)
	for _, vm := range []*lab.VM{s.vm[1], s.vm[2]} {
		_, err := vm.Run("ip", "route", "replace", "10.77.0.0/24", "via", router.IPv4, "dev", "eth0", "onlink")
		must(t, err)
	}
	_, err = router.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.eth0.send_redirects=0")
	must(t, err)
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.applyUncached(allowPorts("vm2", "vm2", "vm1", "5001"))
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
	byName := "kind: Policy\nname: vm2\nspec:\n  appliesTo: [{port: vm2}]\n  defaultDeny: {ingress: false}\n  ingress:\n  - {name: r, " +
		"action: deny, from: [{port: vm1}]}\n"
	s.applyUncached(byName)
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001) // the documented limit
	s.applyUncached(strings.Replace(byName, "{port: vm1}", "{port: vm1}, {cidr: "+s.vm[1].IPv4+"/32}", 1))
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
}
