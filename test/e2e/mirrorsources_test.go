package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// twoBridges has vm1 and vm2 on br0 and vm3 on br1; patch ports pa of br0 and pb of br1 connect the bridges.
func twoBridges(t *testing.T) *stage {
	t.Helper()
	s := ground(t, 2)
	must(t, s.AddBridge("br1"))
	vm3, err := s.AddVM("vm3", "br1", 3)
	must(t, err)
	s.vm = append(s.vm, vm3)
	_, err = s.Vsctl("--", "add-port", "br0", "pa", "--", "set", "interface", "pa", "type=patch", "options:peer=pb",
		"--", "add-port", "br1", "pb", "--", "set", "interface", "pb", "type=patch", "options:peer=pa")
	must(t, err)
	s.neighbours()
	s.tw, err = s.StartTapwall("--bridge", "br0=guest", "--bridge", "br1=guest")
	must(t, err)
	s.ping3(s.vm[1], s.vm[2])
	s.ping3(s.vm[1], s.vm[3])
	return s
}

// copied is how many ICMP frames came to a port while f ran.
func (s *stage) copied(c *lab.Capture, f func()) int {
	s.t.Helper()
	before := len(c.Frames(lab.ICMP))
	f()
	settle()
	return len(c.Frames(lab.ICMP)) - before
}

// capture captures at a port of the switch.
func (s *stage) capture(port string) *lab.Capture {
	s.t.Helper()
	c, err := s.Capture(s.Switch, port)
	must(s.t, err)
	return c
}

// realised holds the status of a mirror to a form and to whether it copies exactly once.
func (s *stage) realised(name, form string, once bool) {
	s.t.Helper()
	hosts := s.status("mirror", name).Hosts
	if len(hosts) != 1 || hosts[0].RealisedAs != form || hosts[0].Form == "" || hosts[0].ExactOnce == nil || *hosts[0].ExactOnce != once {
		s.t.Errorf("mirror %s: %+v, want %s, exactly once %t: %+v", name, hosts, form, once, s.status("mirror", name).Warnings)
	}
}

// Scenario 2: mirrors with one target in common deliver a copy each; a mirror of machines on two bridges is one mirror, which says where it
// cannot copy exactly once.
func TestMirrorScenario02OneTargetSeveralBridges(t *testing.T) {
	t.Parallel()
	s := twoBridges(t)
	s.force("kind: Mirror\nname: one\nspec: {sources: [{vm: uuid-vm1}], targets: [{port: {name: ids0, create: true}}]}\n")
	s.realised("one", policy.RealisedNative, true)
	s.force("kind: Mirror\nname: two\nspec: {sources: [{vm: uuid-vm2}], targets: [{port: {name: ids0, create: true}}]}\n---\n" +
		"kind: Mirror\nname: all\nspec: {sources: [{vm: uuid-vm1}, {vm: uuid-vm3}], direction: fromSource, " +
		"targets: [{port: {name: all0, create: true}}]}\n---\n" +
		"kind: Mirror\nname: pair\nspec: {sources: [{vm: uuid-vm1}, {vm: uuid-vm3}], targets: [{port: {name: pair0, create: true}}]}\n")
	for _, name := range []string{"one", "two", "all", "pair"} {
		s.becomes("mirror", name, policy.PhaseActive, "", "")
		s.realised(name, policy.RealisedStaged, name != "pair")
	}
	ids, all, pair := s.capture("ids0"), s.capture("all0"), s.capture("pair0")
	if n := s.copied(ids, func() { s.ping3(s.vm[1], s.vm[2]) }); n != 12 {
		t.Errorf("two mirrors into one port delivered %d frames, want 12", n)
	}
	if n := s.copied(ids, func() { s.ping3(s.vm[3], s.vm[2]) }); n != 6 {
		t.Errorf("one of two mirrors into one port delivered %d frames, want 6", n)
	}
	if n := s.copied(all, func() { s.ping3(s.vm[1], s.vm[3]) }); n != 6 {
		t.Errorf("what machines on two bridges sent was copied %d times, want 6", n)
	}
	if n := s.copied(pair, func() { s.ping3(s.vm[1], s.vm[3]) }); n != 12 {
		t.Errorf("a packet from one bridge to the other was copied %d times altogether, and the status says that it may be twice", n)
	}

	// A machine that moves to another bridge is followed, and the form stays when the reason goes.
	s.tapwall("delete", "mirror", "two", "--wait")
	s.realised("one", policy.RealisedStaged, true)
	must(t, s.Unplug(s.vm[1]))
	s.vm[1].Bridge = "br1"
	must(t, s.Plug(s.vm[1]))
	s.becomes("mirror", "one", policy.PhaseActive, "", "")
	s.becomes("mirror", "pair", policy.PhaseActive, "", "")
	if n := s.copied(ids, func() { s.ping3(s.vm[1], s.vm[2]) }); n != 6 {
		t.Errorf("of a machine that moved %d frames were copied, want 6", n)
	}
	if n := s.copied(pair, func() { s.ping3(s.vm[1], s.vm[3]) }); n != 6 {
		t.Errorf("of two machines that are on one bridge now %d frames were copied, want 6", n)
	}
	s.realised("pair", policy.RealisedStaged, true)
}

// Sources by VLAN beside others, by address and by label: each packet once, whatever selects it, and they follow without an API call.
func TestMirrorScenarioSourcesFollow(t *testing.T) {
	t.Parallel()
	s := ground(t, 4, nil, []string{"tag=10"}, []string{"tag=10"})
	_, err := s.Vsctl("set", "port", "vm4", "tag=10") // moves to VLAN 0 below
	must(t, err)
	s.wall()
	s.ping3(s.vm[2], s.vm[3])
	_, err = s.tw.RunInput("kind: Endpoint\nname: four\nspec: {match: {port: vm4}, addresses: [10.77.0.4]}\n---\n"+
		"kind: Mirror\nname: mixed\nspec: {sources: [{vlan: 10}, {port: vm1}, {port: vm2}], targets: [{port: {name: mixed0, create: "+
		"true}}]}\n---\n"+
		"kind: Mirror\nname: cidr\nspec: {sources: [{cidr: 10.77.0.4/31}], targets: [{port: {name: cidr0, create: true}}]}\n---\n"+
		"kind: Mirror\nname: label\nspec: {sources: [{labels: {role: db}}], targets: [{port: {name: label0, create: true}}]}\n",
		"apply", "-f", "-")
	must(t, err)
	s.becomes("mirror", "mixed", policy.PhaseActive, "", "")
	s.realised("mixed", policy.RealisedStaged, true)
	s.becomes("mirror", "cidr", policy.PhaseActive, "", "")
	s.becomes("mirror", "label", policy.PhaseDegraded, policy.ReasonSourceMissing, "role=db")
	mixed, cidr := s.capture("mixed0"), s.capture("cidr0")
	if n := s.copied(mixed, func() { s.ping3(s.vm[2], s.vm[3]) }); n != 6 {
		t.Errorf("in the VLAN, one end also by port: %d copies, want 6", n)
	}
	if n := s.copied(mixed, func() { s.ping3(s.vm[3], s.vm[4]) }); n != 6 {
		t.Errorf("in the VLAN: %d copies, want 6", n)
	}
	if n := len(cidr.Frames(lab.ICMP)); n != 6 {
		t.Errorf("of the endpoint with the address: %d copies, want 6", n)
	}
	_, err = s.Vsctl("clear", "port", "vm4", "tag", "--", "set", "interface", "vm4", "external_ids:role=db")
	must(t, err)
	s.becomes("mirror", "label", policy.PhaseActive, "", "")
	label := s.capture("label0")
	if n := s.copied(mixed, func() { s.ping3(s.vm[1], s.vm[4]) }); n != 6 {
		t.Errorf("of the port without a VLAN: %d copies, want 6", n)
	}
	if n := len(label.Frames(lab.ICMP)); n != 6 {
		t.Errorf("of the port that has the label now: %d copies, want 6", n)
	}
	// The address is another's now, which is where the mirror goes.
	s.force("kind: Endpoint\nname: four\nspec: {match: {port: vm3}, addresses: [10.77.0.4], antiSpoof: \"off\"}\n")
	lab.Eventually(t, 5*time.Second, "the mirror follows the address", func() bool {
		m := s.mirror("cidr")
		return m.Phase == "Active" && slices.Equal(m.Endpoints, []string{"br0/vm3"})
	})
	if n := s.copied(cidr, func() { s.ping3(s.vm[2], s.vm[3]) }); n != 6 {
		t.Errorf("of who has the address now: %d copies, want 6", n)
	}
	s.unchangedByRestart()
}

// A bond is a source like any port.
func TestMirrorScenarioSourcesBond(t *testing.T) {
	t.Parallel()
	s := ground(t, 1)
	bonded, err := s.AddVM("vm2", "br0", 2)
	must(t, err)
	s.vm = append(s.vm, bonded)
	must(t, s.Unplug(bonded))
	_, err = s.Switch.Run("ip", "link", "add", "spare", "type", "veth", "peer", "name", "eth1", "netns", bonded.Name)
	must(t, err)
	_, err = s.Switch.Run("ip", "link", "set", "spare", "up")
	must(t, err)
	_, err = bonded.Run("ip", "link", "set", "eth1", "up")
	must(t, err)
	_, err = s.Vsctl("add-bond", "br0", "bond0", "vm2", "spare", "bond_mode=active-backup",
		"other_config:bond-primary=vm2")
	must(t, err)
	s.tw, err = s.StartTapwall("--bridge", "br0=guest")
	must(t, err)
	lab.Eventually(t, 10*time.Second, "the bond forwards", func() bool { return s.ping(s.vm[1], bonded.IPv4) })
	s.force("kind: Mirror\nname: bond\nspec: {sources: [{port: bond0}], targets: [{port: {name: bond0tap, create: true}}]}\n")
	s.becomes("mirror", "bond", policy.PhaseActive, "", "")
	s.realised("bond", policy.RealisedNative, true)
	capture := s.capture("bond0tap")
	if n := s.copied(capture, func() { s.ping3(s.vm[1], bonded) }); n != 6 {
		t.Errorf("of a bond %d frames were copied, want 6", n)
	}
}
