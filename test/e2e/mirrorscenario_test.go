package e2e

import (
	"bytes"
	"encoding/binary"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// Scenario 5 of mirrors: accept and reject rules with ranges of addresses and ports, by priority and direction, to a port of the host.
func TestMirrorScenario05Filter(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	for _, vm := range s.vm[2:] {
		must(t, s.Serve(vm, 22, 80, 8080, 9000))
	}
	s.ping3(s.vm[1], s.vm[2])
	s.ping3(s.vm[1], s.vm[3])
	rules := func(more string) string {
		return `
kind: Mirror
name: web
spec:
  sources: [{vm: uuid-vm1}]
  filter:
    default: reject
    rules:
    - {priority: 10, action: reject, protocol: tcp, dstPorts: ["22"], symmetric: true}
    - {priority: 20, action: accept, dst: [` + s.vm[2].IPv4 + `/32, "fd00::/8"], protocol: tcp, dstPorts: ["20-443", "8000-8099"], ` +
			`symmetric: true}
    - {priority: 20, action: accept, direction: toSource, protocol: icmp, type: 0}
    ` + more + `
  targets: [{port: {name: ids0, create: true}}]
`
	}
	flowsBefore := s.table()
	s.force(rules(""))
	s.becomes("mirror", "web", policy.PhaseActive, "", "")
	capture, err := s.Capture(s.Switch, "ids0")
	must(t, err)
	all := func(lab.Frame) bool { return true }
	count := func(keep func(lab.Frame) bool) int { return len(capture.Frames(keep)) }
	for _, port := range []int{22, 80, 8080, 9000} {
		s.mustConnect(s.vm[1], s.vm[2].IPv4, port)
		s.mustConnect(s.vm[1], s.vm[3].IPv4, port)
		s.mustConnect(s.vm[3], s.vm[2].IPv4, port) // of nobody that is a source
	}
	s.ping3(s.vm[1], s.vm[2])
	settle()
	sessions := count(lab.TCPTo(80)) + count(lab.TCPTo(8080))
	answers := count(lab.TCPFrom(80)) + count(lab.TCPFrom(8080))
	if count(lab.TCPTo(80)) < 3 || count(lab.TCPTo(8080)) < 3 || count(lab.TCPFrom(80)) < 2 || count(lab.TCPFrom(8080)) < 2 {
		t.Errorf("of the sessions that the rules accept %d and %d segments came, and %d answers", count(lab.TCPTo(80)), count(lab.TCPTo(8080)),
			answers)
	}
	replies := count(lab.ICMP)
	if replies != 3 {
		t.Errorf("%d ICMP frames, want the 3 replies", replies)
	}
	for _, f := range capture.Frames(lab.ICMP) {
		if f.Data[34] != 0 {
			t.Errorf("an ICMP frame of type %d, which went from the source", f.Data[34])
		}
	}
	if n := count(all); n != sessions+answers+replies {
		t.Errorf("%d frames, of which %d are not of what the rules accept", n, n-sessions-answers-replies)
	}
	if n := count(withMAC(s.vm[3].MAC)); n != 0 {
		t.Errorf("%d frames of vm3", n)
	}

	m := s.mirror("web").Counters
	lab.Eventually(t, 8*time.Second, "what came is counted", func() bool {
		m = s.mirror("web").Counters
		return m["acceptedPackets"] == int64(count(all))
	})
	if m["rejectedPackets"] < 10 || m["selectedPackets"] != m["acceptedPackets"]+m["rejectedPackets"] {
		t.Errorf("counters %v", m)
	}
	if n := s.metric(`tapwall_mirror_packets_total{mirror="web"}`); int64(n) < m["selectedPackets"] {
		t.Errorf("the metric says %.0f of %d packets", n, m["selectedPackets"])
	}

	// A faulty change is refused, and the mirror goes on.
	out := s.refused(strings.Replace(rules(""), s.vm[2].IPv4+"/32", "10.1.0.0/33", 1), "apply", "-f", "-")
	if !strings.Contains(out, "/spec/filter/rules/1/dst/0") || !strings.Contains(out, "outside the range 0-32") {
		t.Errorf("a prefix of 33 bits: %s", out)
	}
	before := count(lab.TCPTo(80))
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 80)
	settle()
	if count(lab.TCPTo(80)) == before {
		t.Error("the mirror stopped when a change of it was refused")
	}
	// A rule that no packet fits is told of, and changes nothing.
	said, err := s.tw.RunInput(rules(`- {priority: 1, action: reject, src: [10.0.0.0/8], dst: ["fd00::/8"]}`), "apply", "--wait", "-f", "-")
	if err != nil || strings.Count(said, "NEVER_MATCHES") != 1 || !strings.Contains(said, "src is of IPv4, dst is of IPv6") {
		t.Errorf("%v\n%s", err, said)
	}
	if out := s.tapwall("describe", "mirror", "web"); strings.Count(out, "NEVER_MATCHES") != 1 {
		t.Errorf("the status of a rule that no packet fits:\n%s", out)
	}
	// A change acts on the filter in place.
	s.force(rules(`- {priority: 5, action: accept, protocol: tcp, dstPorts: ["9000"]}`))
	s.mustConnect(s.vm[1], s.vm[3].IPv4, 9000)
	settle()
	if to, from := count(lab.TCPTo(9000)), count(lab.TCPFrom(9000)); to < 3 || from != 0 {
		t.Errorf("of a session to 9000 %d segments one way and %d the other, want only the first", to, from)
	}

	// A restart of tapwall finds nothing to do, and one of the switch is mended.
	taps := func() string {
		out, err := s.Ofctl("dump-flows", "tw-tap-netdev", "--no-stats")
		must(t, err)
		return out
	}
	flows := taps()
	s.unchangedByRestart()
	if now := taps(); now != flows {
		t.Errorf("the flows of the tap bridge differ after a restart:\n%s---\n%s", flows, now)
	}
	s.KillVswitchd()
	must(t, s.StartVswitchd())
	s.becomes("mirror", "web", policy.PhaseActive, "", "")
	capture, err = s.Capture(s.Switch, "ids0")
	must(t, err)
	lab.Eventually(t, 10*time.Second, "copies after a restart of the switch", func() bool {
		s.vm[1].CanConnect(s.vm[2].IPv4, 80, time.Second)
		s.vm[1].CanConnect(s.vm[2].IPv4, 22, time.Second)
		return count(lab.TCPFrom(80)) > 0
	})
	if n := count(lab.TCPTo(22)); n != 0 {
		t.Errorf("after a restart of the switch %d frames came that the rules reject", n)
	}

	if now := s.mirror("web").Counters; now["acceptedPackets"] <= m["acceptedPackets"] || now["rejectedPackets"] <= m["rejectedPackets"] {
		t.Errorf("counters went back from %v to %v", m, now)
	}

	s.tapwall("delete", "mirror", "web", "--wait")
	left, err := s.Vsctl("--columns=name", "list", "mirror")
	must(t, err)
	bridges, err := s.Vsctl("list-br")
	must(t, err)
	ports, err := s.Vsctl("list-ports", "br0")
	must(t, err)
	if strings.TrimSpace(left) != "" || strings.TrimSpace(bridges) != "br0" || strings.Contains(ports, "tws-") || s.table() != flowsBefore {
		t.Errorf("it left mirrors %q, bridges %q, ports %q, or flows of br0", left, bridges, ports)
	}
}

// Whatever form a mirror has, its sink gets a frame of an access port as the machine sent it, without the tag of its VLAN; and filters see
// that VLAN.
func TestMirrorScenarioOneTagHandling(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	for _, vm := range s.vm[1:] {
		_, err := s.Vsctl("set", "port", vm.Port, "tag=10")
		must(t, err)
	}
	s.ping3(s.vm[1], s.vm[2])
	const mirror = "---\nkind: Mirror\nname: %s\nspec:\n  sources: [{port: vm1}]\n%s  targets: [{port: {name: %s, create: true}}]\n"
	s.force(sprintf(mirror, "native", "", "native0") + sprintf(mirror, "staged", "  filter: {default: accept}\n", "staged0") +
		sprintf(mirror, "ten", "  filter: {rules: [{action: accept, vlan: 10}]}\n", "ten0") +
		sprintf(mirror, "none", "  filter: {rules: [{action: accept, vlan: 0}]}\n", "none0") +
		sprintf(mirror, "keep", "  vlanTag: keep\n", "keep0") + sprintf(mirror, "hundred", "  vlanTag: 100\n", "hundred0"))
	captures := map[string]*lab.Capture{}
	for _, port := range []string{"native0", "staged0", "ten0", "none0", "keep0", "hundred0"} {
		c, err := s.Capture(s.Switch, port)
		must(t, err)
		captures[port] = c
	}
	s.ping3(s.vm[1], s.vm[2])
	settle()
	want := captures["native0"].Frames(lab.ICMP)
	if len(want) != 6 {
		t.Fatalf("the native mirror copied %d frames, want 6", len(want))
	}
	for _, f := range want {
		if f.Data[12] != 0x08 || f.Data[13] != 0 {
			t.Errorf("a frame with EtherType %x, want that of IPv4 and no tag", f.Data[12:14])
		}
	}
	for _, port := range []string{"staged0", "ten0"} {
		got := captures[port].Frames(lab.ICMP)
		if len(got) != len(want) {
			t.Errorf("%s got %d frames, want %d", port, len(got), len(want))
			continue
		}
		for i := range got {
			if !bytes.Equal(got[i].Data, want[i].Data) {
				t.Errorf("frame %d of %s differs from that of the native mirror:\n%x\n%x", i, port, got[i].Data, want[i].Data)
			}
		}
	}
	if n := len(captures["none0"].Frames(nil)); n != 0 {
		t.Errorf("%d frames without a VLAN, and all have one", n)
	}
	for port, vlan := range map[string]uint16{"keep0": 10, "hundred0": 100} {
		got := captures[port].Frames(lab.ICMP)
		if len(got) != len(want) {
			t.Errorf("%s got %d frames, want %d", port, len(got), len(want))
		}
		for _, f := range got {
			if binary.BigEndian.Uint16(f.Data[12:]) != 0x8100 || binary.BigEndian.Uint16(f.Data[14:])&0xfff != vlan {
				t.Errorf("a frame of %s with %x, want VLAN %d", port, f.Data[12:16], vlan)
			}
		}
	}
	flows, err := s.Ofctl("dump-flows", "tw-tap-netdev", "--no-stats")
	must(t, err)
	s.unchangedByRestart()
	if now, err := s.Ofctl("dump-flows", "tw-tap-netdev", "--no-stats"); err != nil || now != flows {
		t.Errorf("the flows of the tap bridge differ after a restart: %v\n%s---\n%s", err, flows, now)
	}
}

// Scenario 6 of mirrors, the part in scope: copies are cut, and what is copied is not.
func TestMirrorScenario06Snaplen(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	s.force("kind: Mirror\nname: cut\nspec: {sources: [{port: vm1}], snaplen: 64, targets: [{port: {name: cut0, create: true}}]}\n")
	capture, err := s.Capture(s.Switch, "cut0")
	must(t, err)
	if out, err := s.vm[1].Run("ping", "-c", "3", "-i", "0.2", "-s", "1000", "-W", "2", s.vm[2].IPv4); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	settle()
	frames := capture.Frames(lab.ICMP)
	if len(frames) != 6 {
		t.Errorf("%d frames, want 6", len(frames))
	}
	for _, f := range frames {
		if length := binary.BigEndian.Uint16(f.Data[16:]); len(f.Data) != 64 || length != 1028 {
			t.Errorf("a frame of %d bytes, want 64, of an IP packet of %d, want 1028", len(f.Data), length)
		}
	}
}

// A filter and a snaplen work into a tunnel, too: each datagram has the VNI, and the first bytes of what the filter accepts.
func TestMirrorScenario06SnaplenTunnel(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	must(t, s.AddBridge("br-under"))
	collector, err := s.AddVM("collector", "br-under", 9)
	must(t, err)
	for _, cmd := range [][]string{{"ip", "addr", "add", "10.99.0.1/24", "dev", "br-under"}, {"ip", "link", "set", "br-under", "up"}} {
		_, err := s.Switch.Run(cmd[0], cmd[1:]...)
		must(t, err)
	}
	_, err = collector.Run("ip", "addr", "add", "10.99.0.2/24", "dev", "eth0")
	must(t, err)
	s.ping3(s.vm[1], s.vm[2])
	s.force("kind: Mirror\nname: far\nspec: {sources: [{port: vm1}], snaplen: 64, filter: {rules: [{action: accept, protocol: icmp, type: " +
		"8}]}, " +
		"targets: [{vxlan: {remote: 10.99.0.2, vni: 77}}]}\n")
	capture, err := s.Capture(collector.NS, "eth0")
	must(t, err)
	lab.Eventually(t, 10*time.Second, "copies arrive", func() bool { // the first ones wait for the collector's address
		s.ping(s.vm[1], s.vm[2].IPv4)
		return len(capture.Frames(lab.UDPTo(4789))) > 0
	})
	settle()
	had := len(capture.Frames(lab.UDPTo(4789)))
	s.ping3(s.vm[1], s.vm[2])
	settle()
	frames := capture.Frames(lab.UDPTo(4789))[had:]
	if len(frames) != 3 {
		t.Errorf("%d datagrams, want the 3 requests", len(frames))
	}
	for _, f := range frames {
		if vni := binary.BigEndian.Uint32(f.Data[46:50]) >> 8; len(f.Data) != 114 || vni != 77 || !lab.ICMP(lab.Frame{Data: f.Data[50:]}) ||
			binary.BigEndian.Uint16(f.Data[16:]) != 100 {
			t.Errorf("a datagram of %d bytes, IP %d, VNI %d", len(f.Data), binary.BigEndian.Uint16(f.Data[16:]), vni)
		}
	}
}

// Scenario 7 of mirrors: a limit holds for the copies of one mirror, and for nothing and nobody else.
func TestMirrorScenario07RateLimit(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	const mirror = "---\nkind: Mirror\nname: %s\nspec:\n  sources: [{port: vm1}]\n  direction: fromSource\n%s  targets: [{port: {name: %s," +
		" create: true}}]\n"
	s.force(sprintf(mirror, "slow", "  filter: {rules: [{action: accept, protocol: icmp}]}\n  sample: {maxPacketsPerSecond: 5}\n", "slow0") +
		sprintf(mirror, "whole", "  filter: {rules: [{action: accept, protocol: icmp}]}\n", "whole0"))
	slow, err := s.Capture(s.Switch, "slow0")
	must(t, err)
	whole, err := s.Capture(s.Switch, "whole0")
	must(t, err)
	out, err := s.vm[1].Run("ping", "-c", "60", "-i", "0.05", "-W", "2", s.vm[2].IPv4)
	if err != nil || !strings.Contains(out, " 0% packet loss") {
		t.Errorf("production suffers: %v\n%s", err, out)
	}
	settle()
	n := len(slow.Frames(lab.ICMP))
	if n < 5 || n > 25 {
		t.Errorf("%d copies in 3 s, want at most 5 a second", n)
	}
	if n := len(whole.Frames(lab.ICMP)); n != 60 {
		t.Errorf("the mirror without a limit copied %d of 60", n)
	}
	lab.Eventually(t, 8*time.Second, "what the limit dropped is counted", func() bool {
		c := s.mirror("slow").Counters
		return c["acceptedPackets"] == 60 && c["rateDroppedPackets"] == int64(60-n)
	})
	s.unchangedByRestart()
	s.force(sprintf(mirror, "slow", "  filter: {rules: [{action: accept, protocol: icmp}]}\n  sample: {maxPacketsPerSecond: 1000}\n", "slow0"))
	before := len(slow.Frames(lab.ICMP))
	if out, err := s.vm[1].Run("ping", "-c", "20", "-i", "0.02", "-W", "2", s.vm[2].IPv4); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	settle()
	if n := len(slow.Frames(lab.ICMP)) - before; n != 20 {
		t.Errorf("with a higher limit %d of 20 were copied", n)
	}
}

// Scenario 11 of mirrors, the part in scope: several targets get everything, each once.
func TestMirrorScenario11FanOut(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	s.force("kind: Mirror\nname: both\nspec: {sources: [{port: vm1}, {port: vm2}], " +
		"targets: [{port: {name: one0, create: true}}, {port: {name: two0, create: true}}]}\n")
	s.becomes("mirror", "both", policy.PhaseActive, "", "")
	one, err := s.Capture(s.Switch, "one0")
	must(t, err)
	two, err := s.Capture(s.Switch, "two0")
	must(t, err)
	s.ping3(s.vm[1], s.vm[2])
	settle()
	a, b := one.Frames(lab.ICMP), two.Frames(lab.ICMP)
	if len(a) != 6 || len(b) != 6 {
		t.Errorf("%d and %d copies, want 6 and 6", len(a), len(b))
	}
	for i := range min(len(a), len(b)) {
		if !bytes.Equal(a[i].Data, b[i].Data) {
			t.Errorf("copy %d differs", i)
		}
	}
	// One target less leaves the other alone.
	s.force("kind: Mirror\nname: both\nspec: {sources: [{port: vm1}, {port: vm2}], snaplen: 100, targets: [{port: {name: two0, create: " +
		"true}}]}\n")
	s.ping3(s.vm[1], s.vm[2])
	settle()
	if n := len(two.Frames(lab.ICMP)); n != 12 {
		t.Errorf("%d copies, want 12", n)
	}
	if ports, err := s.Vsctl("list-ports", "tw-tap-netdev"); err != nil || strings.Contains(ports, "one0") {
		t.Errorf("the port that is no target any more: %q, %v", ports, err)
	}
}

// A mirror whose sources change goes on: each packet of a source that stays is copied once, whatever changes meanwhile.
func TestMirrorScenarioChangeWithoutAGap(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.ping3(s.vm[1], s.vm[2])
	doc := func(sources string, port int) string {
		return sprintf("kind: Mirror\nname: m\nspec: {sources: [%s], direction: fromSource, filter: {rules: [{action: accept, protocol: icmp}, "+
			"{action: accept, protocol: tcp, dstPorts: [\"%d\"]}]}, targets: [{port: {name: ids0, create: true}}]}\n", sources, port)
	}
	s.force(doc("{port: vm1}", 1))
	s.becomes("mirror", "m", policy.PhaseActive, "", "")
	capture, err := s.Capture(s.Switch, "ids0")
	must(t, err)
	const n = 1000
	ping := exec.Command("ping", "-i", "0.003", "-c", sprintf("%d", n), "-q", s.vm[2].IPv4)
	must(t, s.vm[1].Do(ping.Start))
	for i, sources := range []string{"{port: vm1}, {port: vm3}", "{vm: uuid-vm1}", "{port: vm1}", "{bridge: br0}",
		"{port: vm1}, {vm: uuid-vm3}"} {
		time.Sleep(200 * time.Millisecond)
		s.force(doc(sources, 2+i))
	}
	must(t, ping.Wait())
	settle()
	times := map[uint16]int{}
	for _, f := range capture.Frames(withMAC(s.vm[1].MAC)) {
		if lab.ICMP(f) && f.Data[34] == 8 {
			times[binary.BigEndian.Uint16(f.Data[40:])]++
		}
	}
	missed, twice := 0, 0
	for seq := uint16(1); seq <= n; seq++ {
		switch times[seq] {
		case 0:
			missed++
		case 1:
		default:
			twice++
		}
	}
	if missed > 0 || twice > 0 {
		t.Errorf("of %d requests %d were not copied and %d more than once", n, missed, twice)
	}
}

// examples/filtered-tap.yaml does what it says.
func TestMirrorScenarioExampleFiltered(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	must(t, s.Serve(s.vm[3], 443, 53, 80))
	s.force("kind: Endpoint\nname: web\nspec: {match: {port: vm1}, labels: {app: web}}\n")
	_, err := s.vm[2].Run("ip", "addr", "add", "10.77.9.2/16", "dev", "eth0")
	must(t, err)
	s.ping3(s.vm[1], s.vm[3])
	s.tapwall("apply", "--wait", "-f", "../../examples/filtered-tap.yaml")
	s.becomes("mirror", "web-https", policy.PhaseActive, "", "")
	capture, err := s.Capture(s.Switch, "https0")
	must(t, err)
	for _, port := range []int{443, 80} {
		s.mustConnect(s.vm[1], s.vm[3].IPv4, port)
		s.mustConnect(s.vm[2], s.vm[3].IPv4, port) // no web server
	}
	s.say(s.vm[1], s.vm[3], 40053, 53, "a question")
	lab.Eventually(t, 8*time.Second, "question and answer are copied", func() bool {
		return len(capture.Frames(lab.UDPTo(53))) == 1 && len(capture.Frames(lab.UDPFrom(53))) == 1
	})
	settle()
	https, answers := len(capture.Frames(lab.TCPTo(443))), len(capture.Frames(lab.TCPFrom(443)))
	if https < 3 || answers < 2 {
		t.Errorf("of the session on 443 %d segments and %d answers were copied", https, answers)
	}
	if n := len(capture.Frames(nil)); n != https+answers+2 {
		t.Errorf("%d frames, %d of which the rules do not accept", n, n-https-answers-2)
	}
}
