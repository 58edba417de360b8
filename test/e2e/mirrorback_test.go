package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// forcedTap delivers to whom a target says, although it is somebody.
const forcedTap = "kind: Mirror\nname: back\nspec:\n  sources: [%s]\n  filter: {rules: [{action: accept, protocol: icmp}, " +
	"{action: accept, protocol: tcp, symmetric: true, dstPorts: [\"5001\"]}]}\n  targets: [%s]\n  force: true\n"

// echoes are the pings between vm1 and vm2 among the frames: what machines say to the target of a mirror is no copy.
func (s *stage) echoes(f lab.Frame) bool {
	return lab.ICMP(f) && (withMAC(s.vm[1].MAC)(f) && withMAC(s.vm[2].MAC)(f))
}

// A mirror of a whole bridge delivers to a machine of it, with the wall up: the machine gets each packet once, whatever it is, and what it
// says itself is no copy, is judged as ever, and the wall knows nothing of copies.
func TestMirrorScenarioTargetVM(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 4)
	before := s.flows("table=0")
	s.force("kind: Policy\nname: ids\nspec: {appliesTo: [{vm: uuid-vm3}], ingress: [{name: ssh, action: allow, services: " +
		"[{protocol: tcp, ports: [\"5002\"]}]}]}\n")
	if out := s.refused(strings.Replace(sprintf(forcedTap, "{bridge: br0}", "{vm: uuid-vm3}"), "force: true", "force: false", 1), "apply",
		"-f", "-"); !strings.Contains(out, "/spec/targets/0/vm") || !strings.Contains(out, "force: true") {
		t.Errorf("unforced: %s", out)
	}
	s.force(sprintf(forcedTap, "{bridge: br0}", "{vm: uuid-vm3}"))
	s.becomes("mirror", "back", policy.PhaseActive, "", "")
	if st := s.status("mirror", "back"); len(st.Warnings) != 1 || st.Warnings[0].Code != "TARGET_EXCLUDED" {
		t.Errorf("warnings: %v", st.Warnings)
	}
	drops := s.ownDrops()
	capture, err := s.Capture(s.vm[3].NS, "eth0")
	must(t, err)
	s.ping3(s.vm[1], s.vm[2])
	settle()
	if n := len(capture.Frames(s.echoes)); n != 6 {
		t.Errorf("%d copies of 3 pings between two machines, want 6", n)
	}
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	settle()
	if to, from := len(capture.Frames(lab.TCPTo(5001))), len(capture.Frames(lab.TCPFrom(5001))); to < 3 || from < 2 {
		t.Errorf("of a session %d segments and %d answers", to, from)
	}
	if n := s.ownDrops() - drops; n > 0 {
		t.Errorf("the wall dropped %d packets, of copies", n)
	}
	// The machine goes on as a machine: what it may, it does, and what it may not, it does not.
	s.ping3(s.vm[3], s.vm[1])
	s.mustConnect(s.vm[2], s.vm[3].IPv4, 5002)
	s.mustNotConnect(s.vm[2], s.vm[3].IPv4, 5003)
	settle()
	// The answers, and one copy of each request and answer, as vm1 is a source.
	if n := len(capture.Frames(func(f lab.Frame) bool { return lab.ICMP(f) && withMAC(s.vm[3].MAC)(f) })); n != 9 {
		t.Errorf("the target got %d frames of 3 pings of its own, want 3 answers and 6 copies", n)
	}
	s.unchangedByRestart()

	s.tapwall("delete", "mirror", "back", "--wait")
	s.tapwall("delete", "policy", "ids", "--wait")
	s.nothingLeft(before)
}

// nothingLeft looks at what mirrors could have left on br0 and beside it.
func (s *stage) nothingLeft(table []string) {
	s.t.Helper()
	left, err := s.Vsctl("--columns=name", "list", "mirror")
	must(s.t, err)
	bridges, err := s.Vsctl("list-br")
	must(s.t, err)
	ports, err := s.Vsctl("list-ports", "br0")
	must(s.t, err)
	if strings.TrimSpace(left) != "" || strings.Contains(bridges, "tw-tap") || strings.Contains(ports, "tw") {
		s.t.Errorf("it left mirrors %q, bridges %q, ports %q", left, bridges, ports)
	}
	if now := s.flows("table=0"); !slices.Equal(now, table) {
		s.t.Errorf("flows of table 0 of br0 before and after:\n%s---\n%s", table, now)
	}
}

// On a guest bridge, mirrors share a port that was there before, each with its own filter and length. Somebody who takes their flow away
// stops the copies for a moment, in which they go nowhere else, and so does a restart of the switch.
func TestMirrorScenarioTargetExistingPort(t *testing.T) {
	t.Parallel()
	s := ground(t, 3)
	must(t, s.AddTargetPort("ids1"))
	var err error
	s.tw, err = s.StartTapwall("--bridge", "br0=guest")
	must(t, err)
	before := s.flows()
	// Some are no targets, forced or not.
	must(t, s.AddTargetPort("mgmt"))
	_, err = s.Switch.Run("ip", "addr", "add", "10.66.0.1/24", "dev", "mgmt")
	must(t, err)
	for port, says := range map[string]string{"mgmt": "has an address of this host", "br0": "(LOCAL)", "vm2": "force: true"} {
		doc := sprintf("kind: Mirror\nname: bad\nspec: {sources: [{port: vm1}], snaplen: 100, targets: [{port: {name: %s}}], force: %v}\n", port,
			port != "vm2")
		if out := s.refused(doc, "apply", "--wait", "-f", "-"); !strings.Contains(out, "OutputPortTaken") || !strings.Contains(out, says) {
			t.Errorf("port %s as a target: %s", port, out)
		}
	}
	s.tapwall("delete", "mirror", "bad", "--wait")
	const doc = "---\nkind: Mirror\nname: %s\nspec: {sources: [{port: vm1}], filter: {rules: [{action: accept, protocol: %s}]}%s, targets: " +
		"[{port: {name: ids1}}%s]}\n"
	s.force(sprintf(doc, "whole", "icmp", "", ""))
	if out := s.refused(sprintf(doc, "cut", "udp", ", snaplen: 60", ", {port: {name: none1}}"), "apply", "--wait", "-f",
		"-"); !strings.Contains(
		out, "TargetMissing, no managed bridge of this host has a port none1") {
		t.Errorf("one target of two is not there: %s", out)
	}
	s.becomes("mirror", "whole", policy.PhaseActive, "", "")
	s.becomes("mirror", "cut", policy.PhaseDegraded, policy.ReasonTargetMissing, "no managed bridge of this host has a port none1")
	capture, err := s.Capture(s.Switch, "ids1")
	must(t, err)
	bystander, err := s.Capture(s.vm[3].NS, "eth0")
	must(t, err)
	s.ping3(s.vm[1], s.vm[2])
	s.say(s.vm[1], s.vm[2], 40000, 5005, strings.Repeat("x", 500))
	settle()
	if n := len(capture.Frames(lab.ICMP)); n != 6 {
		t.Errorf("%d copies of 3 pings, want 6", n)
	}
	cut := capture.Frames(lab.UDPTo(5005))
	if len(cut) != 1 || len(cut[0].Data) != 60 {
		t.Errorf("of a datagram that is cut to 60 bytes: %v", cut)
	}
	way := func() []string {
		return slices.DeleteFunc(s.flows("table=0"), func(f string) bool { return !strings.Contains(f, "pkt_mark") })
	}
	if n := len(way()); n != 2 {
		t.Errorf("flows of the way back: %q", way())
	}
	if got := s.flows(); len(got) != len(before)+2 {
		t.Errorf("flows %q, before %q", got, before)
	}

	// An agent that cleans up. Meanwhile the sources talk.
	p := s.datagrams(s.vm[1], s.vm[2], 5005, 2*time.Millisecond)
	for range 3 {
		_, err = s.Ofctl("del-flows", "br0", "cookie=0x7a9a110000000000/0xffffff0000000000")
		must(t, err)
		lab.Eventually(t, 5*time.Second, "the flows are back", func() bool { return len(way()) == 2 })
	}
	p.Hush()
	settle()
	p.Stop()
	n := len(capture.Frames(lab.UDPTo(5005)))
	lab.Eventually(t, 5*time.Second, "copies again", func() bool {
		s.say(s.vm[1], s.vm[2], 40000, 5005, "y")
		return len(capture.Frames(lab.UDPTo(5005))) > n
	})
	if sent := int(p.Sent()); p.Received() < p.Sent() || n < sent/10 { // the flows were away three times
		t.Errorf("of %d datagrams %d were answered and %d copied", sent, p.Received(), n)
	}
	if out := s.tapwall("observe", "--action", "flows-restored", "--all"); !strings.Contains(out, "changed by somebody else, were put right") {
		t.Errorf("nobody is told of the flows that went: %s", out)
	}
	if n := len(bystander.Frames(func(f lab.Frame) bool { return lab.ICMP(f) || lab.UDPTo(5005)(f) })); n > 0 {
		t.Errorf("%d frames of vm1 reached a machine that they are not for", n)
	}

	receiver, err := s.Capture(s.vm[2].NS, "eth0")
	must(t, err)
	p = s.datagrams(s.vm[1], s.vm[2], 5005, 2*time.Millisecond)
	s.KillVswitchd()
	must(t, s.StartVswitchd())
	s.becomes("mirror", "whole", policy.PhaseActive, "", "")
	capture, err = s.Capture(s.Switch, "ids1")
	must(t, err)
	lab.Eventually(t, 10*time.Second, "datagrams after a restart of the switch", func() bool {
		return len(receiver.Frames(lab.UDPTo(5005))) > 200
	})
	p.Hush()
	settle()
	p.Stop()
	if n := len(receiver.Frames(lab.UDPTo(5005))); n > int(p.Sent()) {
		t.Errorf("around a restart of the switch %d datagrams arrived, of %d", n, p.Sent())
	}
	lab.Eventually(t, 10*time.Second, "copies after a restart of the switch", func() bool {
		s.ping(s.vm[1], s.vm[2].IPv4)
		return len(capture.Frames(lab.ICMP)) > 0
	})
	settle()
	had := len(capture.Frames(lab.ICMP))
	s.ping3(s.vm[1], s.vm[2])
	settle()
	if n := len(capture.Frames(lab.ICMP)) - had; n != 6 {
		t.Errorf("%d copies of 3 pings after a restart of the switch, want 6", n)
	}
	s.tapwall("delete", "mirror", "whole", "--wait")
	s.tapwall("delete", "mirror", "cut", "--wait")
	s.nothingLeft(slices.DeleteFunc(before, func(f string) bool { return !strings.Contains(f, "table=0") && strings.Contains(f, "table=") }))
}

// A target that is a machine is followed: without a link, unplugged, on another bridge, with its device gone. Meanwhile the other target of
// the mirror gets everything.
func TestMirrorScenarioTargetVMFollowed(t *testing.T) {
	t.Parallel()
	s := ground(t, 3)
	must(t, s.AddBridge("br1"))
	var err error
	s.tw, err = s.StartTapwall("--bridge", "br0=owned", "--bridge", "br1=guest", "--pickup-window", "300ms")
	must(t, err)
	s.pickupClosed()
	before := s.flows("table=0")
	s.force(sprintf(forcedTap, "{vm: uuid-vm1}", "{vm: uuid-vm3}, {port: {name: also0, create: true}}"))
	s.becomes("mirror", "back", policy.PhaseActive, "", "")
	also, err := s.Capture(s.Switch, "also0")
	must(t, err)
	target, err := s.Capture(s.vm[3].NS, "eth0")
	must(t, err)
	// both counts what arrives of three pings, at the machine and at the other port.
	both := func(what string, atMachine int) {
		t.Helper()
		settle()
		m, a := len(target.Frames(s.echoes)), len(also.Frames(s.echoes))
		s.ping3(s.vm[1], s.vm[2])
		settle()
		if m, a = len(target.Frames(s.echoes))-m, len(also.Frames(s.echoes))-a; m != atMachine || a != 6 {
			t.Errorf("%s: %d copies at the machine, want %d, and %d at the other target, want 6", what, m, atMachine, a)
		}
	}
	both("at first", 6)

	_, err = s.vm[3].Run("ip", "link", "set", "eth0", "down")
	must(t, err)
	s.becomes("mirror", "back", policy.PhaseDegraded, policy.ReasonTargetDown, "target vm3 of bridge br0: it has no link (link_state is down)")
	both("without a link", 0)
	_, err = s.vm[3].Run("ip", "link", "set", "eth0", "up")
	must(t, err)
	s.becomes("mirror", "back", policy.PhaseActive, "", "")
	both("with a link again", 6)

	must(t, s.Unplug(s.vm[3]))
	s.becomes("mirror", "back", policy.PhaseDegraded, policy.ReasonTargetMissing, "no managed bridge of this host has a port of the machine "+
		"uuid-vm3")
	both("unplugged", 0)
	must(t, s.Plug(s.vm[3]))
	s.becomes("mirror", "back", policy.PhaseActive, "", "")
	both("plugged again", 6)
	must(t, s.Unplug(s.vm[3]))
	s.vm[3].Bridge = "br1"
	must(t, s.Plug(s.vm[3]))
	lab.Eventually(t, 5*time.Second, "followed to the other bridge", func() bool {
		m := s.mirror("back")
		return m.Phase == string(policy.PhaseActive) && strings.Contains(s.tapwall("get", "mirror", "back", "-o", "json"), `"bridge": "br1"`)
	})
	both("on another bridge", 6)
	if now := s.flows("table=0"); !slices.Equal(now, before) {
		t.Errorf("the way back on the bridge that the target left: %q, before %q", now, before)
	}

	_, err = s.Switch.Run("ip", "link", "del", "vm3")
	must(t, err)
	s.becomes("mirror", "back", policy.PhaseDegraded, policy.ReasonTargetMissing, "target vm3 of bridge br1: ")
	settle()
	a := len(also.Frames(s.echoes))
	s.ping3(s.vm[1], s.vm[2])
	settle()
	if n := len(also.Frames(s.echoes)) - a; n != 6 {
		t.Errorf("with the device of one target gone the other got %d copies, want 6", n)
	}
	s.tapwall("delete", "mirror", "back", "--wait")
	s.nothingLeft(before)
	if ports, err := s.Vsctl("list-ports", "br1"); err != nil || strings.Contains(ports, "tw") {
		t.Errorf("left on br1: %q, %v", ports, err)
	}
}
