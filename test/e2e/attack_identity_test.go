package e2e

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/tapwall/tapwall/test/lab"
)

// A peer whose connection was revoked makes conntrack, and so tapwall's memory, forget that it opened it, by a reset that never gets
// through.
func TestAttackRevokedComesBack(t *testing.T) {
	t.Parallel()
	for _, reset := range []bool{false, true} {
		t.Run(sprintf("reset=%v", reset), func(t *testing.T) {
			t.Parallel()
			s := open(t, 3, "--pickup-window", "8s")
			out := "  egress:\n  - {name: any, action: allow}\n"
			s.apply(isolatedVM2 + out +
				"  ingress:\n  - {name: door, action: allow, from: [{port: vm3}], services: [{protocol: tcp, ports: [\"5001\"]}]}\n")
			s.pickupClosed()
			b, c := s.vm[2], s.vm[3]
			capture, err := s.Capture(c.NS, "eth0")
			must(t, err)
			push := s.push(c, b, 5001)
			own := s.echo(b, s.vm[1], 5002)
			s.running(push, own)
			cut := s.apply(isolatedVM2 + out)
			s.quiet(push, cut, time.Second, "revoked")
			if reset {
				frames := capture.Frames(lab.TCPFrom(5001))
				f := frames[len(frames)-1].Data
				port, ack := binary.BigEndian.Uint16(f[36:]), binary.BigEndian.Uint32(f[42:])
				s.segment(c, b.MAC, c.IPv4, b.IPv4, int(port), 5001, ack, 0, 1000, "R", "")
				time.Sleep(passage)
				for _, e := range s.conntrack("dport=5001") {
					t.Log(e.text)
				}
			}
			since := time.Now()
			s.remembered(since, s.vm[1].IPv4)
			text, err := os.ReadFile(filepath.Join(s.tw.DataDir(), "connections", "br0.json"))
			must(t, err)
			t.Logf("remembered: %s", text)
			s.restartSwitch()
			up := time.Now()
			lab.Eventually(t, 15*time.Second, "the isolated machine's own goes on", func() bool { return own.ReceivedSince(up) > 20 })
			s.pickupClosed()
			after := time.Now()
			time.Sleep(time.Second)
			if n, m := push.ReceivedSince(up), push.ReceivedSince(after); n > 0 {
				t.Errorf("%d messages of the revoked connection came after the restart of the switch, %d after the window", n, m)
			}
			for _, e := range s.conntrack("10.77.0.3", "port=5001") {
				t.Log(e.text)
			}
		})
	}
}

// The oldest machine of a busy host is plugged again, after more than 1,024 others were.
func TestAttackOldestReplugged(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply("kind: Policy\nname: a\nspec:\n  appliesTo: [{mac: \"02:77:00:00:00:01\"}]\n  defaultDeny: {ingress: true}\n")
	s.pickupClosed()
	answers := s.onlyAnswers(s.vm[1], s.vm[2], s.vm[2].IPv4)
	const n = 130
	rename := func(round int, add bool) {
		var args []string
		for i := range n {
			name := sprintf("d%d", i)
			if add {
				args = append(args, "--", "add-port", "br0", name)
			}
			args = append(args, "--", "set", "interface", name, sprintf("external_ids:iface-id=%s-%d", name, round))
			if add {
				args = append(args, "type=internal")
			}
		}
		_, err := s.Vsctl(args...)
		must(t, err)
	}
	for round := range 9 {
		rename(round, round == 0)
		lab.Eventually(t, 30*time.Second, "all are endpoints", func() bool {
			out, err := s.tw.Run("get", "workloads", "-o", "json")
			return err == nil && strings.Count(out, sprintf("-%d\"", round)) >= n
		})
		t.Logf("round %d: %d retired", round, len(s.flows("table=212"))-9-6)
	}
	ids := func() string { return strings.Join(s.flows("table=200"), "\n") }
	before := ids()
	_, err := s.Vsctl("--", "set", "interface", "vm1", "external_ids:iface-id=another")
	must(t, err)
	lab.Eventually(t, 5*time.Second, "the endpoint has a new id", func() bool { return ids() != before })
	time.Sleep(time.Second)
	got := answers.got.Load()
	time.Sleep(time.Second)
	if answers.got.Load() == got {
		t.Error("no answer comes any more to the machine that was plugged again")
	}
	answers.end()
	s.explain("6000")
}

// A SYN in the other direction of a half-open connection is new to conntrack, but its original tuple is the other's: who forges "B:22 to
// me:443" to nobody and then opens from 443 to B:22 is judged as if he wanted 443.
func TestAttackPortsExchanged(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	b, c := s.vm[2], s.vm[3]
	s.applyUncached(isolatedVM2 +
		"  ingress:\n  - {name: web, action: allow, from: [{port: vm3}], services: [{protocol: tcp, ports: [\"5005\"]}]}\n")
	const nobody, secret, public = "02:77:00:00:00:fe", 5001, 5005
	s.mustConnect(c, b.IPv4, public)
	s.mustNotConnect(c, b.IPv4, secret)
	capture, err := s.Capture(b.NS, "eth0")
	must(t, err)
	back, err := s.Capture(c.NS, "eth0")
	must(t, err)
	seg := func(dstMAC, src, dst string, sport, dport int, seq, ack uint32, flags byte, scale bool, payload string) {
		t.Helper()
		s.send(crossing{from: c, dstMAC: dstMAC, src: src, dst: dst, ttl: 64, upper: func(string) (layers.IPProtocol,
			[]gopacket.SerializableLayer) {
			h := &layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), Seq: seq, Ack: ack, Window: 65535,
				SYN: flags&2 != 0, ACK: flags&16 != 0, PSH: flags&8 != 0}
			if scale {
				h.Options = []layers.TCPOption{{OptionType: layers.TCPOptionKindWindowScale, OptionLength: 3, OptionData: []byte{14}}}
			}
			return layers.IPProtocolTCP, []gopacket.SerializableLayer{h, gopacket.Payload(payload)}
		}}, "")
	}
	toB := func(f lab.Frame) bool { return lab.TCPTo(secret)(f) && bytes.Equal(f.Data[:6], parseMAC(t, b.MAC)) }
	before := len(capture.Frames(toB))
	synack := func(f lab.Frame) bool { return lab.TCPFrom(secret)(f) && f.Data[47]&0x12 == 0x12 }
	const tries = 24
	for i := range tries {
		ghost, guess := sprintf("10.77.0.%d", 100+i), uint32(i)<<28
		_, err := b.Run("ip", "neigh", "replace", ghost, "lladdr", c.MAC, "dev", "eth0", "nud", "permanent") // as its ARP would
		must(t, err)
		seg(nobody, b.IPv4, ghost, secret, public, guess, 0, 2, true, "")
		seg(nobody, ghost, b.IPv4, public, secret, 1000, 0, 2, true, "")
		seg(nobody, ghost, b.IPv4, public, secret, 1001, guess+1, 16, false, "") // widens what conntrack takes from B
		seg(b.MAC, ghost, b.IPv4, public, secret, 1000, 0, 2, true, "")
	}
	time.Sleep(passage)
	if n := len(capture.Frames(toB)) - before; n > 0 {
		t.Errorf("%d SYNs reach the closed port", n)
	}
	answers := back.Frames(synack)
	for _, f := range answers {
		ghost := sprintf("10.77.0.%d", f.Data[33])
		isn := binary.BigEndian.Uint32(f.Data[38:])
		seg(b.MAC, ghost, b.IPv4, public, secret, 1001, isn+1, 16, false, "")
		seg(b.MAC, ghost, b.IPv4, public, secret, 1001, isn+1, 24, false, "Ehello to the closed port")
	}
	time.Sleep(passage)
	if n := len(back.Frames(func(f lab.Frame) bool { return bytes.Contains(f.Data, []byte("hello to the closed port")) })); n > 0 ||
		len(answers) > 0 {
		t.Errorf("%d SYN/ACKs come back from the closed port, and %d times its server's echo", len(answers), n)
	}
	s.explain("port=5001")
}

// One SYN forged beforehand keeps nobody from connecting.
func TestAttackForgedBeforehand(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 4)
	a, b, c, e := s.vm[1], s.vm[2], s.vm[3], s.vm[4]
	// Forged beforehand: a SYN the other way round.
	for i, to := range []*lab.VM{a, e} {
		port := 6100 + i
		s.segment(c, to.MAC, a.IPv4, b.IPv4, 5003, port, 77, 0, 1000, "S", "")
		time.Sleep(50 * time.Millisecond)
		got, err := b.Run("sh", "-c", sprintf("echo E | timeout 3 nc -p %d %s 5003 >/dev/null 2>&1; python3 - <<'X'\nimport socket\n"+
			"s=socket.socket(); s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1); s.bind(('',%d)); s.settimeout(4); s.connect(('%s',"+
			"5003)); print('open')\nX", port+100, a.IPv4, port, a.IPv4))
		if err != nil {
			t.Errorf("round %d: after one forged SYN a connection from port %d does not open: %.300s", i, port, got)
		}
	}
	s.explain("port=5003")
}

// One datagram that a third machine forged beforehand keeps a machine from ever reaching another between two fixed ports.
func TestAttackBlockFixedPorts(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	a, b, c := s.vm[1], s.vm[2], s.vm[3]
	s.applyUncached(
		"kind: Policy\nname: b\nspec:\n  appliesTo: [{port: vm2}]\n  ingress:\n  - {name: log, action: allow, from: [{port: vm1}], " +
			"services: [{protocol: udp, ports: [\"6514\"]}]}\n")
	in := s.inbox(b, 6514)
	s.say(a, b, 6513, 6514, "control")
	s.arrives(in, "control")
	s.tell(c, a, nil, a.MAC, b.IPv4, a.IPv4, 6514, 6515, "forged")
	time.Sleep(passage)
	for range 20 {
		s.say(a, b, 6515, 6514, "honest")
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(passage)
	if n := in.count("honest"); n == 0 {
		t.Error("0 of 20 allowed datagrams arrive after one forged datagram")
	}
	s.explain("6515")
}

// The machine that opened between two fixed ports is replaced by another with its address; no policy at all.
func TestAttackHonestReplacedPeer(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	a, b, c := s.vm[1], s.vm[2], s.vm[3]
	atA, atB, atC := s.inbox(a, 5182), s.inbox(b, 5182), s.inbox(c, 5182)
	s.say(b, a, 5182, 5182, "hello")
	s.arrives(atA, "hello")
	s.say(a, b, 5182, 5182, "hello too")
	s.arrives(atB, "hello too")
	_, err := b.Run("ip", "addr", "del", b.IPv4+"/24", "dev", "eth0")
	must(t, err)
	_, err = c.Run("ip", "addr", "add", b.IPv4+"/24", "dev", "eth0")
	must(t, err)
	for range 20 {
		s.tell(a, c, nil, c.MAC, a.IPv4, b.IPv4, 5182, 5182, "honest")
		time.Sleep(20 * time.Millisecond)
	}
	s.tell(a, c, nil, c.MAC, a.IPv4, b.IPv4, 5183, 5182, "control")
	s.arrives(atC, "control")
	time.Sleep(passage)
	if n := atC.count("honest"); n == 0 {
		t.Error("without any policy, 0 of 20 datagrams reach the machine that has the address now")
	}
	s.explain("5182")
}

// A station behind an uplink speaks into the connection of an endpoint whose MAC address is not known.
func TestAttackUnknownMACInjection(t *testing.T) {
	t.Parallel()
	s := ground(t, 3)
	e, a, u := s.vm[1], s.vm[2], s.vm[3]
	_, err := s.Vsctl("--", "remove", "interface", "vm1", "external_ids", "attached-mac", "--", "clear", "interface", "vm3", "external_ids")
	must(t, err)
	s.wall()
	s.applyUncached(
		"kind: Policy\nname: a\nspec:\n  appliesTo: [{port: vm2}]\n  ingress:\n  - {name: e, action: allow, from: [{port: vm1}]}\n" +
			"---\nkind: Policy\nname: out\nspec:\n  appliesTo: [{port: vm2}]\n  egress:\n  - {name: e, action: allow, to: [{port: vm1}]}\n")
	in := s.inbox(a, 6001)
	s.say(e, a, 4000, 6001, "true")
	s.arrives(in, "true")
	s.tell(u, a, nil, a.MAC, e.IPv4, a.IPv4, 4000, 6001, "too early")
	s.say(a, e, 6001, 4000, "answer")
	s.say(e, a, 4000, 6001, "again")
	s.arrives(in, "again")
	s.say(a, e, 6001, 4000, "answer")
	s.say(e, a, 4000, 6001, "third")
	s.arrives(in, "third")
	s.tell(u, a, nil, a.MAC, e.IPv4, a.IPv4, 4001, 6001, "own")
	s.tell(u, a, nil, a.MAC, e.IPv4, a.IPv4, 4000, 6001, "forged")
	s.say(e, a, 4000, 6001, "fourth")
	s.arrives(in, "fourth")
	time.Sleep(passage)
	s.misses(in, "own")
	s.misses(in, "too early")
	s.misses(in, "forged")
	s.explain("4000")
}

// A tap whose guest had no known address goes to another guest: what the first opened does not let anybody in to the second.
func TestAttackTapReused(t *testing.T) {
	t.Parallel()
	for _, known := range []bool{false, true} {
		s := ground(t, 2)
		a, b := s.vm[1], s.vm[2]
		if !known {
			_, err := s.Vsctl("--", "remove", "interface", "vm2", "external_ids", "attached-mac")
			must(t, err)
		}
		s.wall()
		s.applyWarned(isolatedVM2)
		in, ask := s.inbox(b, 7000), s.inbox(a, 6053)
		s.say(b, a, 7000, 6053, "question")
		s.arrives(ask, "question")
		s.say(a, b, 6053, 7000, "answer")
		if known {
			s.arrives(in, "answer")
		}
		// Another guest, with another address, on a tap of the same name.
		mac := "02:77:00:00:00:aa"
		_, err := b.Run("ip", "link", "set", "eth0", "address", mac)
		must(t, err)
		must(t, s.Unplug(b))
		b.MAC = mac
		_, err = s.Vsctl("--", "add-port", "br0", "vm2", "--", "set", "interface", "vm2", "external_ids:iface-id=other",
			`external_ids:attached-mac="`+mac+`"`)
		must(t, err)
		lab.Eventually(t, 5*time.Second, "the new guest is an endpoint", func() bool { return len(s.flows("table=202,dl_dst="+mac)) > 0 })
		_, err = s.Appctl("revalidator/wait")
		must(t, err)
		out := s.inbox(a, 6054)
		s.say(b, a, 7001, 6054, "control")
		s.arrives(out, "control")
		s.say(a, b, 6055, 7000, "denied")
		s.say(a, b, 6053, 7000, "by the old connection")
		time.Sleep(passage)
		s.misses(in, "denied")
		s.misses(in, "by the old connection")
		s.explain("7000")
	}
}

// Egress is revoked from a machine whose MAC address is not known: answers to it end too.
func TestAttackUnknownMACRevoked(t *testing.T) {
	t.Parallel()
	s := ground(t, 3)
	e, a := s.vm[1], s.vm[2]
	_, err := s.Vsctl("--", "remove", "interface", "vm1", "external_ids", "attached-mac")
	must(t, err)
	s.wall()
	allow := "kind: Policy\nname: e\nspec:\n  appliesTo: [{port: vm1}]\n  egress:\n  - {name: a, action: allow, to: [{port: vm2}], " +
		"services: [{protocol: udp, ports: [\"%s\"]}]}\n"
	s.applyWarned(sprintf(allow, "6000"))
	answers := s.onlyAnswers(e, a, a.IPv4)
	lab.Eventually(t, 3*time.Second, "answers come", func() bool { return answers.got.Load() > 50 })
	s.applyWarned(sprintf(allow, "6001"))
	time.Sleep(500 * time.Millisecond)
	before := answers.got.Load()
	time.Sleep(time.Second)
	if n := answers.got.Load() - before; n > 0 {
		t.Errorf("%d answers came after the revocation", n)
	}
	answers.end()
	s.explain("6000")
}
