package e2e

import (
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// Scenario 6 of mirrors, what is cut is counted: each copy that is longer than its target gets it, on ways back, too, and no other;
// behind a limit only what passed it; and over restarts of tapwall and of the switch.
func TestMirrorScenario06CutsAreCounted(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	must(t, s.AddTargetPort("ids0"))
	s.ping3(s.vm[1], s.vm[2])
	const filter = "  filter: {rules: [{action: accept, protocol: icmp}]}\n"
	s.force("kind: Mirror\nname: short\nspec:\n  sources: [{port: vm1}]\n" + filter +
		"  snaplen: 64\n  targets: [{port: {name: short0, create: true}}, {port: {name: ids0}}]\n" +
		"---\nkind: Mirror\nname: whole\nspec:\n  sources: [{port: vm1}]\n" + filter + "  targets: [{port: {name: whole0, create: true}}]\n" +
		"---\nkind: Mirror\nname: slow\nspec:\n  sources: [{port: vm1}]\n  direction: fromSource\n" + filter +
		"  snaplen: 100\n  sample: {maxPacketsPerSecond: 5}\n  targets: [{port: {name: slow0, create: true}}]\n")
	s.becomes("mirror", "short", policy.PhaseActive, "", "")
	short, err := s.Capture(s.Switch, "short0")
	must(t, err)
	ids, err := s.Capture(s.Switch, "ids0")
	must(t, err)
	slow, err := s.Capture(s.Switch, "slow0")
	must(t, err)
	send := func(n, bytes string) {
		t.Helper()
		if out, err := s.vm[1].Run("ping", "-c", n, "-i", "0.05", "-W", "2", "-s", bytes, s.vm[2].IPv4); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	shorter := func(c *lab.Capture, length int) (n int64) {
		for _, f := range c.Frames(lab.ICMP) {
			if len(f.Data) == length {
				n++
			}
		}
		return n
	}
	w := &counterWatch{s, map[string]map[string]int64{}}
	send("20", "1000")
	send("7", "22") // frames of 64 bytes
	settle()
	if a, b := shorter(short, 64), shorter(ids, 64); a != 54 || b != 54 {
		t.Errorf("%d and %d copies of 64 bytes, want 54 for each target", a, b)
	}
	w.becomes("cut", "short", map[string]int64{"sentPackets": 108, "cutPackets": 80})
	w.becomes("cut", "whole", map[string]int64{"sentPackets": 54, "cutPackets": 0})
	n := shorter(slow, 100)
	if n < 1 || n >= 20 {
		t.Errorf("%d copies of 20 were cut behind the limit", n)
	}
	w.becomes("cut and limited", "slow", map[string]int64{"cutPackets": n})

	s.tw.Kill()
	must(t, s.tw.Start())
	s.becomes("mirror", "short", policy.PhaseActive, "", "")
	send("5", "1000")
	w.becomes("tapwall killed", "short", map[string]int64{"sentPackets": 128, "cutPackets": 100})
	s.restartSwitch()
	s.becomes("mirror", "short", policy.PhaseActive, "", "")
	lab.Eventually(t, 10*time.Second, "copies arrive again", func() bool {
		send("1", "22")
		return w.look("short")["sentPackets"] > 128
	})
	send("5", "1000")
	w.becomes("the switch restarted", "short", map[string]int64{"cutPackets": 120})
}
