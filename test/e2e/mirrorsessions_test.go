package e2e

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// bothWays is what was copied of a session: segments of the client, and of the server.
type bothWays [2]int

// tcpSessions sorts frames of TCP to and from a port of a server by the client's port. offset is where the Ethernet header begins.
func tcpSessions(frames []lab.Frame, server uint16, offset int) map[uint16]bothWays {
	out := map[uint16]bothWays{}
	for _, f := range frames {
		if len(f.Data) < offset+38 || binary.BigEndian.Uint16(f.Data[offset+12:]) != 0x0800 || f.Data[offset+23] != 6 {
			continue
		}
		src, dst := binary.BigEndian.Uint16(f.Data[offset+34:]), binary.BigEndian.Uint16(f.Data[offset+36:])
		switch server {
		case dst:
			n := out[src]
			n[0]++
			out[src] = n
		case src:
			n := out[dst]
			n[1]++
			out[dst] = n
		}
	}
	return out
}

// sessions opens so many TCP connections one after the other, each with a message and its echo, and returns the ports of the client.
func (s *stage) sessions(from, to *lab.VM, port, n int) map[uint16]bool {
	s.t.Helper()
	out := map[uint16]bool{}
	for len(out) < n {
		c, err := from.Dial("tcp", to.IPv4, port, 3*time.Second)
		must(s.t, err)
		_ = c.SetDeadline(time.Now().Add(3 * time.Second))
		_, err = c.Write([]byte("xhello"))
		must(s.t, err)
		_, err = c.Read(make([]byte, 8))
		must(s.t, err)
		out[uint16(c.LocalAddr().(*net.TCPAddr).Port)] = true
		_ = c.Close()
	}
	return out
}

// Scenario 11 of mirrors: of 200 sessions a mirror takes about a quarter, and of those both directions, whole.
func TestMirrorScenario11Sessions(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	must(t, s.Serve(s.vm[2], 5000))
	s.ping3(s.vm[1], s.vm[2])
	const doc = "kind: Mirror\nname: %s\nspec: {sources: [{port: vm1}], %stargets: [{port: {name: %s, create: true}}]}\n---\n"
	s.force(sprintf(doc, "quarter", "sample: {sessions: 1/4}, ", "some0") + sprintf(doc, "all", "filter: {default: accept}, ", "all0"))
	s.becomes("mirror", "quarter", policy.PhaseActive, "", "")
	some, err := s.Capture(s.Switch, "some0")
	must(t, err)
	all, err := s.Capture(s.Switch, "all0")
	must(t, err)
	opened := s.sessions(s.vm[1], s.vm[2], 5000, 200)
	settle()
	whole, taken := tcpSessions(all.Frames(nil), 5000, 0), tcpSessions(some.Frames(nil), 5000, 0)
	if len(whole) != len(opened) {
		t.Fatalf("the mirror beside it saw %d of %d sessions", len(whole), len(opened))
	}
	if n := len(taken); n < 30 || n > 70 {
		t.Errorf("%d sessions of 200, want about 50", n)
	}
	for port, n := range taken {
		if n != whole[port] || n[0] == 0 || n[1] == 0 {
			t.Errorf("of the session from port %d %v segments were taken, of %v", port, n, whole[port])
		}
	}
	s.unchangedByRestart()
}

// Scenario 11 of mirrors: each of 60 sessions goes to one of two ports, whole, and each port gets its part.
func TestMirrorScenario11Balance(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	must(t, s.Serve(s.vm[2], 5000))
	s.ping3(s.vm[1], s.vm[2])
	s.force("kind: Mirror\nname: ids\nspec: {sources: [{port: vm1}], balance: {hash: symmetric}, targets: [{port: {name: one0, create: " +
		"true}}, {port: {name: two0, create: true}}]}\n")
	s.becomes("mirror", "ids", policy.PhaseActive, "", "")
	one, err := s.Capture(s.Switch, "one0")
	must(t, err)
	two, err := s.Capture(s.Switch, "two0")
	must(t, err)
	opened := s.sessions(s.vm[1], s.vm[2], 5000, 60)
	settle()
	s.dealt(opened, tcpSessions(one.Frames(nil), 5000, 0), tcpSessions(two.Frames(nil), 5000, 0))
}

// dealt fails unless each session is whole at one of two sinks, and at least a quarter of them at each.
func (s *stage) dealt(opened map[uint16]bool, one, two map[uint16]bothWays) {
	s.t.Helper()
	for port := range opened {
		a, atOne := one[port]
		b, atTwo := two[port]
		n := bothWays{a[0] + b[0], a[1] + b[1]}
		if atOne == atTwo || n[0] < 4 || n[1] < 3 { // SYN, ACK, message, FIN; SYN, message, FIN
			s.t.Errorf("the session from port %d is at the sinks with %v and %v segments", port, a, b)
		}
	}
	if len(one)+len(two) != len(opened) || 4*len(one) < len(opened) || 4*len(two) < len(opened) {
		s.t.Errorf("of %d sessions %d are at one sink and %d at the other", len(opened), len(one), len(two))
	}
}

// Scenario 11 of mirrors: when a collector falls silent, the sessions that it had go to the other one within 5 s, the mirror says which it
// is, and it gets them back when it answers again. What it is silent about is what is asked, and nothing else.
func TestMirrorScenario11BalanceProbes(t *testing.T) {
	t.Parallel()
	for probe, setting := range map[string][2]string{
		"icmp": {"net.ipv4.icmp_echo_ignore_all=1", "net.ipv4.icmp_echo_ignore_all=0"},
		"arp":  {"net.ipv4.conf.all.arp_ignore=8", "net.ipv4.conf.all.arp_ignore=0"},
	} {
		t.Run(probe, func(t *testing.T) {
			t.Parallel()
			testBalanceProbes(t, probe, setting[0], setting[1])
		})
	}
}

// testBalanceProbes has one of two collectors fall silent, and answer again, by a setting of its kernel.
func testBalanceProbes(t *testing.T, probe, silent, answers string) {
	s := openForAttack(t, 2)
	must(t, s.Serve(s.vm[2], 5000))
	must(t, s.AddBridge("br-under"))
	for _, cmd := range [][]string{{"ip", "addr", "add", "10.99.0.1/24", "dev", "br-under"}, {"ip", "link", "set", "br-under", "up"}} {
		_, err := s.Switch.Run(cmd[0], cmd[1:]...)
		must(t, err)
	}
	var captures []*lab.Capture
	var collectors []*lab.VM
	for i, addr := range []string{"10.99.0.2", "10.99.0.3"} {
		vm, err := s.AddVM(sprintf("col%d", i), "br-under", 8+i)
		must(t, err)
		_, err = vm.Run("ip", "addr", "add", addr+"/24", "dev", "eth0")
		must(t, err)
		c, err := s.Capture(vm.NS, "eth0")
		must(t, err)
		captures, collectors = append(captures, c), append(collectors, vm)
	}
	s.ping3(s.vm[1], s.vm[2])
	s.force("kind: Mirror\nname: ids\nspec: {sources: [{port: vm1}], balance: {hash: symmetric, probe: " + probe +
		"}, targets: [{vxlan: {remote: 10.99.0.2, vni: 7}}, {vxlan: {remote: 10.99.0.3, vni: 7}}]}\n")
	s.becomes("mirror", "ids", policy.PhaseActive, "", "")
	arrived := func() (at [2]map[uint16]bothWays) {
		settle()
		for i, c := range captures {
			at[i] = tcpSessions(c.Frames(lab.UDPTo(4789)), 5000, 50)
		}
		return at
	}
	// The first copies wait until the switch knows the collectors' addresses.
	lab.Eventually(t, 10*time.Second, "both collectors get copies", func() bool {
		s.sessions(s.vm[1], s.vm[2], 5000, 10)
		at := arrived()
		return len(at[0]) > 0 && len(at[1]) > 0
	})
	fresh := func(opened map[uint16]bool) (out [2]map[uint16]bothWays) {
		at := arrived()
		for i := range at {
			out[i] = map[uint16]bothWays{}
			for port := range opened {
				if n, ok := at[i][port]; ok {
					out[i][port] = n
				}
			}
		}
		return out
	}
	opened := s.sessions(s.vm[1], s.vm[2], 5000, 60)
	at := fresh(opened)
	s.dealt(opened, at[0], at[1])

	_, err := collectors[1].Run("sysctl", "-q", "-w", silent)
	must(t, err)
	silenced := time.Now()
	lab.Eventually(t, 15*time.Second, "the mirror says who is silent", func() bool {
		st := s.status("mirror", "ids")
		// Of a neighbour that is silent the kernel tells, too.
		told := st.Reason == policy.ReasonTargetDown || probe == policy.ProbeARP && st.Reason == policy.ReasonTargetUnresolved
		return st.Phase == policy.PhaseDegraded && told && strings.Contains(st.Message, "10.99.0.3")
	})
	if took := time.Since(silenced) - lab.Late(silenced); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	settle()
	opened = s.sessions(s.vm[1], s.vm[2], 5000, 60)
	if at := fresh(opened); len(at[0]) != 60 || len(at[1]) != 0 {
		t.Errorf("of 60 new sessions %d are at the one that answers and %d at the one that does not", len(at[0]), len(at[1]))
	}
	_, err = collectors[1].Run("sysctl", "-q", "-w", answers)
	must(t, err)
	s.becomes("mirror", "ids", policy.PhaseActive, "", "")
	settle()
	opened = s.sessions(s.vm[1], s.vm[2], 5000, 60)
	at = fresh(opened)
	s.dealt(opened, at[0], at[1])
}

// Over IPv6 a collector is asked by neighbour discovery. One with a static entry, of whom nobody is asked, counts as well, and the entry
// stays.
func TestMirrorScenario11ProbeNeighbourDiscovery(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	must(t, s.AddBridge("br-under"))
	on := func(ns lab.NS, args ...string) string {
		t.Helper()
		out, err := ns.Run("ip", args...)
		must(t, err)
		return out
	}
	on(s.Switch, "addr", "add", "fd99::1/64", "dev", "br-under", "nodad")
	on(s.Switch, "link", "set", "br-under", "up")
	var collectors []*lab.VM
	for i := range 2 {
		vm, err := s.AddVM(sprintf("col%d", i), "br-under", 8+i)
		must(t, err)
		on(vm.NS, "addr", "add", sprintf("fd99::%d/64", 2+i), "dev", "eth0", "nodad")
		collectors = append(collectors, vm)
	}
	s.ping3(s.vm[1], s.vm[2])
	s.apply("kind: Mirror\nname: ids\nspec: {sources: [{port: vm1}], balance: {hash: symmetric, probe: arp}, targets: " +
		"[{vxlan: {remote: \"fd99::2\", vni: 7}}, {vxlan: {remote: \"fd99::3\", vni: 7}}]}\n")
	s.becomes("mirror", "ids", policy.PhaseActive, "", "")
	on(collectors[1].NS, "addr", "del", "fd99::3/64", "dev", "eth0")
	lab.Eventually(t, 15*time.Second, "the mirror says who is silent", func() bool {
		st := s.status("mirror", "ids")
		return st.Phase == policy.PhaseDegraded && strings.Contains(st.Message, "fd99::3") &&
			strings.Contains(st.Message, "does not answer neighbour discovery")
	})
	on(s.Switch, "neigh", "replace", "fd99::3", "lladdr", collectors[1].MAC, "dev", "br-under", "nud", "permanent")
	s.becomes("mirror", "ids", policy.PhaseActive, "", "")
	time.Sleep(5 * time.Second) // three questions, and more
	if st := s.status("mirror", "ids"); st.Phase != policy.PhaseActive {
		t.Errorf("with a static entry: %s, %s", st.Phase, st.Message)
	}
	if out := on(s.Switch, "neigh", "show", "fd99::3"); !strings.Contains(out, "PERMANENT") {
		t.Errorf("the static entry became %s", out)
	}
	on(s.Switch, "neigh", "del", "fd99::3", "dev", "br-under")
	lab.Eventually(t, 15*time.Second, "without it the collector is silent", func() bool {
		return s.status("mirror", "ids").Phase == policy.PhaseDegraded
	})
	on(collectors[1].NS, "addr", "add", "fd99::3/64", "dev", "eth0", "nodad")
	s.becomes("mirror", "ids", policy.PhaseActive, "", "")
}
