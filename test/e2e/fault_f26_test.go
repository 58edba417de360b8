package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// What docs/ says of the limits of a stateful firewall is run as it stands there.

// blocks returns the fenced code blocks of a page in docs, of one language.
func blocks(t *testing.T, page, language string) (out []string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/" + page)
	must(t, err)
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(b), -1) {
		out = append(out, m[1])
	}
	return out
}

// documented returns a policy of docs/policies.md, with and without its rule for the second connection.
func documented(t *testing.T, name string) (with, without string) {
	t.Helper()
	for _, b := range blocks(t, "policies.md", "yaml") {
		for doc := range strings.SplitSeq(b, "---\n") {
			if !strings.Contains(doc, "\nname: "+name+"\n") {
				continue
			}
			without = regexp.MustCompile(`(?m)^  - {name: second,.*\n`).ReplaceAllString(doc, "")
			if without == doc {
				t.Fatalf("policy %s has no rule named second", name)
			}
			return doc, strings.TrimSuffix(without, "  ingress:\n") // without a rule there is no list
		}
	}
	t.Fatalf("docs/policies.md has no policy %s", name)
	return "", ""
}

// commands returns the lines of the console block of a page that has the text.
func commands(t *testing.T, page, text string) (out []string) {
	t.Helper()
	for _, b := range blocks(t, page, "console") {
		if !strings.Contains(b, text) {
			continue
		}
		for line := range strings.Lines(b) {
			if cmd, ok := strings.CutPrefix(line, "$ "); ok {
				out = append(out, strings.TrimSpace(cmd))
			}
		}
		return out
	}
	t.Fatalf("docs/%s has no command with %q", page, text)
	return nil
}

// sendDatagram sends one from a port, 0 being any, and returns the port that it left from.
func sendDatagram(t *testing.T, from *lab.VM, port int, to string, toPort int) int {
	t.Helper()
	var left int
	must(t, from.Do(func() error {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		// A program that another test starts just then has the last socket until it runs.
		for end := time.Now().Add(time.Second); errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			c, err = net.ListenUDP("udp4", &net.UDPAddr{Port: port})
		}
		if err != nil {
			return err
		}
		defer c.Close()
		left = c.LocalAddr().(*net.UDPAddr).Port
		_, err = c.WriteToUDP([]byte("hello"), &net.UDPAddr{IP: net.ParseIP(to), Port: toPort})
		return err
	}))
	return left
}

// FTP, TFTP, SIP and queries to a group have a second connection that conntrack does not relate to the first: the documented rule lets
// it in, and nothing else, and without the rule it is refused.
func TestFault_F26_SecondConnections(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	one, two, other := s.vm[1], s.vm[2], s.vm[3] // the isolated machine, its partner, a third
	must(t, s.Serve(one, 21, 50007, 50100))
	capture, err := s.Capture(one.NS, "eth0")
	must(t, err)
	// udp sends three datagrams to the isolated machine and says whether they arrived.
	udp := func(from *lab.VM, fromPort, toPort int) bool {
		to := func(f lab.Frame) bool {
			return lab.UDPTo(uint16(toPort))(f) && net.IP(f.Data[26:30]).String() == from.IPv4
		}
		before := len(capture.Frames(to))
		for range 3 {
			sendDatagram(t, from, fromPort, one.IPv4, toPort)
		}
		time.Sleep(passage)
		return len(capture.Frames(to)) == before+3
	}
	tcp := func(from *lab.VM, port int) bool { return from.CanConnect(one.IPv4, port, time.Second) }
	_, err = one.Run("ip", "route", "add", "239.0.0.0/8", "dev", "eth0")
	must(t, err)
	// asked is the port from which the isolated machine asked last.
	asked := 0
	for _, c := range []struct {
		policy, roles string
		first         func() bool // what opens the talk; it works in any case
		second        func() bool
		others        map[string]func() bool // what the rule must not open
	}{
		{
			"ftp", "ftp ftp-client",
			func() bool { return tcp(two, 21) },
			func() bool { return tcp(two, 50007) },
			map[string]func() bool{
				"another port": func() bool { return tcp(two, 50100) }, "another machine": func() bool { return tcp(other, 50007) },
			},
		},
		{
			"tftp-client", "tftp-client tftp",
			func() bool { asked = sendDatagram(t, one, 0, two.IPv4, 69); return udp(two, 69, asked) }, // an answer from the port that was asked
			func() bool { return udp(two, 0, asked) },
			map[string]func() bool{
				"another port": func() bool { return udp(two, 0, 5001) }, "another machine": func() bool { return udp(other, 0, asked) },
			},
		},
		{
			"phone", "phone exchange",
			func() bool { return udp(two, 5060, 5060) },
			func() bool { return udp(two, 16384, 16390) },
			map[string]func() bool{
				"another port": func() bool { return udp(two, 0, 16484) }, "another machine": func() bool { return udp(other, 0, 16390) },
			},
		},
		{
			"finder", "finder found",
			func() bool { asked = sendDatagram(t, one, 0, "239.255.255.250", 1900); return true },
			func() bool { return udp(two, 1900, asked) },
			map[string]func() bool{"another port": func() bool { return udp(two, 1900, 5001) }},
		},
	} {
		with, without := documented(t, c.policy)
		mine, its, _ := strings.Cut(c.roles, " ")
		ends := fmt.Sprintf("kind: Endpoint\nname: one\nspec: {match: {port: vm1}, labels: {role: %s}}\n---\nkind: Endpoint\nname: two\n"+
			"spec: {match: {port: vm2}, labels: {role: %s}}\n---\n",
			mine, its)
		s.applyUncached(ends + without)
		if !c.first() {
			t.Errorf("%s without the rule: the first connection does not work", c.policy)
		}
		if c.second() {
			t.Errorf("%s without the rule: the second connection works, so that the rule proves nothing", c.policy)
		}
		s.applyUncached(ends + with)
		if !c.first() || !c.second() {
			t.Errorf("%s: the documented rule does not let the second connection in", c.policy)
		}
		for what, works := range c.others {
			if works() {
				t.Errorf("%s: the rule opens %s", c.policy, what)
			}
		}
		s.tapwall("delete", "policy", c.policy, "--wait")
	}
}

var timeoutOf = regexp.MustCompile(`timeout=(\d+)`)

// remaining is how long conntrack keeps the connection whose entry has all of the parts, in seconds.
func (s *stage) remaining(parts ...string) int {
	s.t.Helper()
	left := -1
	s.t.Cleanup(func() {
		if left < 0 {
			out, _ := s.Appctl("dpctl/dump-conntrack", "-s")
			s.t.Logf("no connection with %q in\n%s", parts, out)
		}
	})
	lab.Eventually(s.t, 5*time.Second, "conntrack has "+strings.Join(parts, " "), func() bool {
		out, err := s.Appctl("dpctl/dump-conntrack", "-s")
		must(s.t, err)
	next:
		for line := range strings.Lines(out) {
			for _, p := range parts {
				if !strings.Contains(line, p) {
					continue next
				}
			}
			left, err = strconv.Atoi(timeoutOf.FindStringSubmatch(line)[1])
			must(s.t, err)
			return true
		}
		return false
	})
	return left
}

// The times after which conntrack forgets are those of the table in docs/operations.md, the documented commands raise them, and it is
// they that cut.
func TestFault_F26_IdleConnections(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	client, server := s.vm[1], s.vm[2]
	must(t, s.Serve(server, 5011, 5012, 5013, 5021, 5022, 5023))
	s.applyUncached("kind: Policy\nname: p\nspec: {appliesTo: [{port: vm1}], defaultDeny: {ingress: true}}")
	// talk opens one connection of each kind, to ports from base, and returns what conntrack gives each.
	talk := func(base int) map[string]int {
		open, err := client.EchoTCP(server.IPv4, base+1, time.Hour)
		must(t, err)
		t.Cleanup(open.Stop)
		half, err := client.Dial("tcp", server.IPv4, base+2, 3*time.Second)
		must(t, err)
		t.Cleanup(func() { half.Close() })
		_, err = half.Write([]byte("P")) // the server goes on sending
		must(t, err)
		must(t, half.(*net.TCPConn).CloseWrite())
		answered, err := client.EchoUDP(server.IPv4, base+3, 20*time.Millisecond)
		must(t, err)
		lab.Eventually(t, 5*time.Second, "datagrams are answered", func() bool { return answered.Received() > 2 })
		answered.Stop()
		sendDatagram(t, client, base, server.IPv4, 9) // nobody answers
		return map[string]int{
			"tcp_established": s.remaining("tcp,", fmt.Sprintf("dport=%d)", base+1), "state=ESTABLISHED"),
			"tcp_fin_wait":    s.remaining("tcp,", fmt.Sprintf("dport=%d)", base+2), "state=TIME_WAIT"), // one side has sent its FIN
			"udp_multiple":    s.remaining("udp,", fmt.Sprintf("dport=%d)", base+3)),
			"udp_first":       s.remaining("udp,", fmt.Sprintf("sport=%d,dport=9)", base)),
		}
	}
	check := func(when string, want, got map[string]int) {
		t.Helper()
		for key, w := range want {
			if got[key] > w || got[key] < w-20 { // some have run for a moment
				t.Errorf("%s: %s has %d s left of %d", when, key, got[key], w)
			}
		}
	}
	check("by default", map[string]int{"tcp_established": 86400, "tcp_fin_wait": 900, "udp_multiple": 30, "udp_first": 60}, talk(5010))

	run := func(line string) string {
		cmd := exec.Command("sh", "-c", line)
		cmd.Env = append(os.Environ(), "OVS_RUNDIR="+s.Dir) // where ovs-vsctl and ovs-appctl look by default
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
		return string(out)
	}
	raised := map[string]int{}
	for _, line := range commands(t, "operations.md", "add-zone-tp") {
		t.Log(line, strings.TrimSpace(run(line)))
		for _, kv := range regexp.MustCompile(`(\w+)=(\d+)`).FindAllStringSubmatch(line, -1) {
			raised[kv[1]], _ = strconv.Atoi(kv[2])
		}
	}
	if z := raised["zone"]; s.remaining("udp,", fmt.Sprintf("zone=%d", z)) < 0 {
		t.Errorf("no traffic is in zone %d", z)
	}
	after := talk(5020)
	for _, key := range []string{"tcp_established", "tcp_fin_wait", "udp_multiple", "udp_first"} {
		check("raised", map[string]int{key: raised[key]}, after)
	}
	s.KillVswitchd()
	must(t, s.StartVswitchd())
	lab.Eventually(t, 20*time.Second, "the machines reach each other again", func() bool {
		return client.CanConnect(server.IPv4, 5011,
			time.Second)
	})
	sendDatagram(t, client, 5030, server.IPv4, 9)
	check("after a restart", map[string]int{"udp_first": raised["udp_first"]}, map[string]int{"udp_first": s.remaining("udp,",
		"sport=5030,dport=9)")})

	// An answer that comes when the question is forgotten is refused; one that comes in time is not.
	late := func(port int, wait func()) bool {
		capture, err := s.Capture(client.NS, "eth0")
		must(t, err)
		sendDatagram(t, client, port, server.IPv4, 7777)
		wait()
		sendDatagram(t, server, 7777, client.IPv4, port)
		time.Sleep(passage)
		return len(capture.Frames(lab.UDPTo(uint16(port)))) > 0
	}
	pause := func() { time.Sleep(3 * time.Second) }
	if !late(6001, pause) {
		t.Error("an answer after 3 s of 180 does not arrive")
	}
	run("ovs-vsctl del-zone-tp netdev zone=57344") // the documented way back
	run("ovs-vsctl add-zone-tp netdev zone=57344 udp_first=1 udp_single=1 udp_multiple=1")
	if late(6002, pause) {
		t.Error("an answer after 3 s of 1 arrives")
	}
}

// A machine with two ports that answers by the other one is cut off until it routes by source, as documented, be the other port in the
// same VLAN or in another.
func TestFault_F26_TwoPorts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, vlan, subnet string
		reason             uint32
	}{
		{"another VLAN", "tag=20", "10.78.0.", 0x10}, // out-of-state-syn-ack: in a zone that has seen no SYN
		{"the same VLAN", "tag=10", "10.77.0.10", 8}, // ingress-policy: that of the other port decides
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := ground(t, 2, []string{"tag=10"}, []string{"tag=10"})
			client, server := s.vm[1], s.vm[2]
			run := func(ns lab.NS, line string) {
				f := strings.Fields(line)
				_, err := ns.Run(f[0], f[1:]...)
				must(t, err)
			}
			for i, vm := range []*lab.VM{client, server} {
				leg, mac := vm.Port+"b", fmt.Sprintf("02:77:00:00:01:%02x", i+1)
				run(s.Switch, fmt.Sprintf("ip link add %s type veth peer name eth1 address %s netns %s", leg, mac, vm.Name))
				run(s.Switch, "ethtool -K "+leg+" tx off")
				run(s.Switch, "ip link set "+leg+" up")
				run(vm.NS, "ethtool -K eth1 tx off")
				run(vm.NS, fmt.Sprintf("ip addr add %s%d/24 dev eth1 noprefixroute", c.subnet, i+1))
				run(vm.NS, "ip link set eth1 up")
				for _, dev := range []string{"all", "eth0", "eth1"} { // it answers ARP by the port that has the address, and takes packets from either
					run(vm.NS, fmt.Sprintf("sysctl -qw net.ipv4.conf.%s.rp_filter=0 net.ipv4.conf.%[1]s.arp_ignore=1", dev))
				}
				_, err := s.Vsctl("--", "add-port", "br0", leg, c.vlan, "--", "set", "interface", leg, "external_ids:iface-id=if-"+leg,
					`external_ids:attached-mac="`+mac+`"`)
				must(t, err)
			}
			// The way back is by the other port: to the client's other leg, whose MAC need not be asked for.
			run(server.NS, "ip route add "+client.IPv4+"/32 dev eth1")
			to := client.MAC
			if c.vlan != "tag=10" {
				to = "02:77:00:00:01:01"
			}
			run(server.NS, "ip neigh replace "+client.IPv4+" lladdr "+to+" dev eth1 nud permanent")
			capture, err := s.Capture(s.Switch, "vm2b")
			must(t, err)
			s.mustConnect(client, server.IPv4, 5001)
			lab.Eventually(t, 3*time.Second, "without the wall the answer comes by the other port",
				func() bool { return len(capture.Frames(lab.TCPFrom(5001))) > 0 })
			s.wall()
			const allow = "kind: Policy\nname: p\nspec: {appliesTo: [{port: vm2}%s], ingress: [{name: in, action: allow, services: [{protocol: " +
				"tcp, ports: [\"5001\"]}]}]}\n---\n" +
				"kind: Policy\nname: other\nspec: {appliesTo: [{port: vm2b}], defaultDeny: {ingress: true}}"
			if c.vlan == "tag=10" {
				s.applyUncached(sprintf(allow, ", {port: vm2b}"))
				s.mustConnect(client, server.IPv4, 5001)
			}
			s.applyUncached(sprintf(allow, ""))
			drops := func() int { return s.packets(fmt.Sprintf("cookie=0x7a9a1102%08x", c.reason)) }
			dropped := drops()
			s.mustNotConnect(client, server.IPv4, 5001)
			lab.Eventually(t, 5*time.Second, "the drop is counted", func() bool { return drops() > dropped })
			lines := commands(t, "policies.md", "ip rule")
			if len(lines) != 2 {
				t.Fatal("two commands were documented")
			}
			for _, line := range lines {
				run(server.NS, strings.ReplaceAll(line, "default via 10.77.0.1", "default via "+client.IPv4))
			}
			s.mustConnect(client, server.IPv4, 5001)
		})
	}
}

// When the answer has come and the switch has revalidated, as documented, no cached decision is left.
func TestFault_F26_CachedDecisions(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	with := allowPorts("p", "vm2", "vm1", "5001")
	for range 5 {
		s.applyUncached(with)
		p := s.datagrams(s.vm[1], s.vm[2], 5001, time.Millisecond)
		lab.Eventually(t, 5*time.Second, "datagrams come back", func() bool { return p.Received() > 100 })
		s.apply("kind: Policy\nname: p\nspec: {appliesTo: [{port: vm2}], defaultDeny: {ingress: true}}")
		s.revalidated()
		sent := p.Sent() // later ones do not pass
		lab.Eventually(t, 5*time.Second, "more are sent", func() bool { return p.Sent() > sent+300 })
		p.Stop()
		if n := p.Received(); n > sent+1 { // one may have been on its way into the figure
			t.Errorf("%d datagrams came back of %d that were sent before the caches had followed", n, sent)
		}
	}
}
