package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

const countedMirror = "---\nkind: Mirror\nname: counted\nspec:\n  sources: [{vm: uuid-vm1}]\n  filter: {rules: [%s]}\n" +
	"  targets: [{port: {name: sink0, create: true}}, {port: {name: sink1, create: true}}]\n"

const countedRow = "---\nkind: Mirror\nname: row\nspec:\n  sources: [{vm: uuid-vm1}]\n%s  targets: [{port: {name: row0, create: true}}]\n"

// counterWatch holds what mirrors said last, which they never take back.
type counterWatch struct {
	s    *stage
	last map[string]map[string]int64
}

func (w *counterWatch) look(name string) map[string]int64 {
	w.s.t.Helper()
	now := w.s.mirror(name).Counters
	for key, n := range w.last[name] {
		if now[key] < n {
			w.s.t.Errorf("%s of mirror %s went back from %d to %d", key, name, n, now[key])
		}
	}
	if now["selectedPackets"] != now["acceptedPackets"]+now["rejectedPackets"] {
		w.s.t.Errorf("mirror %s selected %d, of which it accepted %d and rejected %d", name, now["selectedPackets"], now["acceptedPackets"],
			now["rejectedPackets"])
	}
	w.last[name] = now
	return now
}

// becomes waits until the counters are these, looking all the while that none goes back, and that they stay so.
func (w *counterWatch) becomes(when, name string, want map[string]int64) {
	w.s.t.Helper()
	same := func(now map[string]int64) bool {
		for key, n := range want {
			if now[key] != n {
				return false
			}
		}
		return true
	}
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end) && !same(w.look(name)); {
		time.Sleep(200 * time.Millisecond)
	}
	time.Sleep(time.Second)
	if now := w.look(name); !same(now) {
		w.s.t.Errorf("%s: mirror %s has counted %v, want %v", when, name, now, want)
	}
}

// Scenario 9 of mirrors, the counters: they are what tcpdump sees at the sink, and none goes back when a machine is plugged anew, a sink
// goes, the filter changes, and tapwall or the switch is killed.
func TestMirrorScenario09CountersNeverGoBack(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.ping3(s.vm[1], s.vm[2])
	const icmp = "{priority: 20, action: accept, protocol: icmp}"
	const more = ", {priority: 10, action: accept, protocol: tcp, dstPorts: [\"80-8099\"]}"
	s.force(sprintf(countedMirror, icmp) + sprintf(countedRow, ""))
	s.becomes("mirror", "counted", policy.PhaseActive, "", "")
	s.becomes("mirror", "row", policy.PhaseActive, "", "")
	w := &counterWatch{s, map[string]map[string]int64{}}
	var capture *lab.Capture
	seen := 0 // at the sink, by captures that have ended
	copies := func() int { return seen + len(capture.Frames(lab.ICMP)) }
	listen := func() {
		var err error
		capture, err = s.Capture(s.Switch, "sink0")
		must(t, err)
	}
	exact := func(when string, lost int64) {
		t.Helper()
		settle()
		n := int64(copies()) + lost
		w.becomes(when, "counted", map[string]int64{"acceptedPackets": n, "sentPackets": 2 * n})
	}
	listen()
	s.ping3(s.vm[1], s.vm[2])
	if exact("at first", 0); copies() != 6 {
		t.Fatalf("%d copies of 3 pings", copies())
	}
	targets := s.mirror("counted").Targets
	if len(targets) != 2 || targets[0]["sentPackets"] != "6" || targets[1]["sentPackets"] != "6" {
		t.Errorf("targets: %v", targets)
	}

	s.tw.Kill()
	s.ping3(s.vm[1], s.vm[2]) // the flows go on
	must(t, s.tw.Start())
	if exact("tapwall killed", 0); copies() != 12 {
		t.Errorf("%d copies of 6 pings", copies())
	}

	s.force(sprintf(countedMirror, icmp+more))
	s.tw.Kill() // right behind the change
	s.ping3(s.vm[1], s.vm[2])
	must(t, s.tw.Start())
	exact("the filter changed, and tapwall killed", 0)
	s.force(sprintf(countedMirror, more[2:]+", "+icmp+", {priority: 5, action: reject, protocol: udp}"))
	s.ping3(s.vm[1], s.vm[2])
	exact("the filter changed again", 0)

	bridge := "tw-tap-netdev"
	_, err := s.Ofctl("del-flows", bridge)
	must(t, err)
	lab.Eventually(t, 5*time.Second, "flows that somebody deleted are back", func() bool {
		s.ping(s.vm[1], s.vm[2].IPv4)
		before := copies()
		s.ping(s.vm[1], s.vm[2].IPv4)
		settle()
		return copies() >= before+2
	})
	time.Sleep(time.Second)
	// What those flows had counted that nobody had read is lost, and Open vSwitch counts half a second of what it passed without flows, and
	// did not copy, for the new ones.
	lost := w.look("counted")["acceptedPackets"] - int64(copies())
	s.ping3(s.vm[1], s.vm[2])
	exact("flows deleted", lost)

	must(t, s.Unplug(s.vm[1]))
	s.becomes("mirror", "counted", policy.PhaseDegraded, policy.ReasonSourceMissing, "")
	w.look("counted")
	must(t, s.Plug(s.vm[1]))
	s.becomes("mirror", "counted", policy.PhaseActive, "", "")
	lab.Eventually(t, 5*time.Second, "the machine is back", func() bool { return s.ping(s.vm[1], s.vm[2].IPv4) })
	s.ping3(s.vm[1], s.vm[2])
	exact("plugged anew", lost)

	// What was counted until the last look outlives the switch.
	s.KillVswitchd()
	w.look("counted")
	must(t, s.StartVswitchd())
	s.becomes("mirror", "counted", policy.PhaseActive, "", "")
	lab.Eventually(t, 10*time.Second, "traffic passes again", func() bool { w.look("counted"); return s.ping(s.vm[1], s.vm[2].IPv4) })
	settle()
	time.Sleep(time.Second)
	before := w.look("counted")["acceptedPackets"]
	listen()
	seen, lost = 0, before // the restart made the device anew
	s.ping3(s.vm[1], s.vm[2])
	exact("the switch killed", lost)

	// From native to staged and back.
	lab.Eventually(t, 12*time.Second, "the row counts", func() bool { return w.look("row")["selectedPackets"] > 0 })
	for _, filter := range []string{"  filter: {default: accept}\n", "", "  enabled: false\n", ""} {
		_, _ = s.tw.RunInput(sprintf(countedRow, filter), "apply", "-f", "-") // which finds the port that is made anew still down
		if filter == "  enabled: false\n" {
			s.becomes("mirror", "row", policy.PhaseStopped, policy.ReasonDisabled, "")
		} else {
			s.becomes("mirror", "row", policy.PhaseActive, "", "")
		}
		before := w.look("row")["selectedPackets"]
		s.ping3(s.vm[1], s.vm[2])
		if filter != "  enabled: false\n" {
			lab.Eventually(t, 12*time.Second, "it counts on", func() bool { return w.look("row")["selectedPackets"] >= before+6 })
		}
	}
	exact("beside another mirror", lost)

	s.tapwall("delete", "mirror", "counted", "--wait")
	delete(w.last, "counted")
	s.force(sprintf(countedMirror, icmp))
	if n := s.mirror("counted").Counters["acceptedPackets"]; n != 0 {
		t.Errorf("a mirror that was made anew begins with %d packets", n)
	}
	s.becomes("mirror", "counted", policy.PhaseActive, "", "")
	listen()
	seen = 0
	s.ping3(s.vm[1], s.vm[2])
	exact("made anew", 0)
	if n := s.metric(`tapwall_mirror_stage_packets_total{mirror="counted",stage="sent"}`); int(n) != 2*copies() {
		t.Errorf("the metric says that %v copies were sent, want %s", n, strconv.Itoa(2*copies()))
	}
}

// What a target does not take is told, of the target and of the mirror, and is beside what was sent.
func TestMirrorSinkDropped(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	const icmp = "{action: accept, protocol: icmp}"
	must(t, s.AddTargetPort("sink1")) // tapwall leaves those as they are
	must(t, s.AddTargetPort("row0"))
	s.force(strings.NewReplacer("sink1, create: true", "sink1", "row0, create: true", "row0").Replace(sprintf(countedMirror, icmp) +
		sprintf(countedRow, "")))
	s.becomes("mirror", "counted", policy.PhaseActive, "", "")
	s.becomes("mirror", "row", policy.PhaseActive, "", "")
	w := &counterWatch{s, map[string]map[string]int64{}}
	s.ping3(s.vm[1], s.vm[2])
	w.becomes("all is well", "counted", map[string]int64{"acceptedPackets": 6, "sentPackets": 12, "sinkDroppedPackets": 0})
	for _, port := range []string{"sink1", "row0"} {
		_, err := s.Switch.Run("ip", "link", "set", port, "down")
		must(t, err)
	}
	s.becomes("mirror", "counted", policy.PhaseDegraded, policy.ReasonTargetDown, "sink1")
	s.ping3(s.vm[1], s.vm[2])
	w.becomes("a port is down", "counted", map[string]int64{"acceptedPackets": 12, "sentPackets": 24})
	dropped := func(when string) {
		t.Helper()
		// The port of br0 gets what is flooded there, too; the output of a row nothing but copies.
		for _, target := range s.mirror("counted").Targets {
			if n, err := strconv.Atoi(target["sinkDroppedPackets"]); err != nil || (target["port"] == "sink1") != (n >= 6) {
				t.Errorf("%s: %v, %v; want 6 dropped by sink1, and none by the other", when, target, err)
			}
		}
		for _, name := range []string{"counted", "row"} {
			if n := w.look(name)["sinkDroppedPackets"]; n < 6 || n > 20 {
				t.Errorf("%s: of mirror %s %d copies were dropped, want 6, and what else was sent there", when, name, n)
			}
		}
	}
	dropped("a port is down")
	s.tw.Kill()
	must(t, s.tw.Start())
	s.becomes("mirror", "counted", policy.PhaseDegraded, policy.ReasonTargetDown, "sink1")
	w.becomes("tapwall killed", "counted", map[string]int64{"acceptedPackets": 12, "sentPackets": 24})
	dropped("tapwall killed")
}
