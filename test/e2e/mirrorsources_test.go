package e2e

import (
	"testing"

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
	s.apply("kind: Mirror\nname: one\nspec: {sources: [{vm: uuid-vm1}], targets: [{port: {name: ids0, create: true}}]}\n")
	s.realised("one", policy.RealisedNative, true)
	s.apply("kind: Mirror\nname: two\nspec: {sources: [{vm: uuid-vm2}], targets: [{port: {name: ids0, create: true}}]}\n---\n" +
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
	ids = s.capture("ids0") // it went while the mirror had no source
	if n := s.copied(ids, func() { s.ping3(s.vm[1], s.vm[2]) }); n != 6 {
		t.Errorf("of a machine that moved %d frames were copied, want 6", n)
	}
	if n := s.copied(pair, func() { s.ping3(s.vm[1], s.vm[3]) }); n != 6 {
		t.Errorf("of two machines that are on one bridge now %d frames were copied, want 6", n)
	}
	s.realised("pair", policy.RealisedStaged, true)
}
