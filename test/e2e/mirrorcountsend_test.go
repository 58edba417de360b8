package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// What a mirror has counted does not go with what counted it: with the end of a mirror, by hand or by itself, the change of a limit, of
// where it cuts and of its targets. Nobody asks in between; what is behind a change begins a second after what was before, as Open vSwitch
// counts half a second late.
func TestMirrorCountsOverChanges(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	doc := func(more, targets string) string {
		return sprintf("kind: Mirror\nname: m\nspec:\n  sources: [{port: vm1}]\n  direction: fromSource\n"+
			"  filter: {rules: [{action: accept, protocol: udp, dstPorts: [\"5001\"]}]}\n%s  targets: [%s]\n", more, targets)
	}
	const one, two, limit, short = "{port: {name: sink0, create: true}}", ", {port: {name: sink1, create: true}}",
		"  sample: {maxPacketsPerSecond: 40}\n", "  snaplen: 100\n"
	sent := map[bool]int64{} // by whether they were cut
	burst := func(short bool, ports ...string) {
		t.Helper()
		var sinks []*lab.Capture
		for _, port := range ports {
			sink, err := s.Capture(s.Switch, port)
			must(t, err)
			sinks = append(sinks, sink)
		}
		c, err := s.vm[1].Dial("udp", s.vm[2].IPv4, 5001, time.Second)
		must(t, err)
		defer c.Close()
		for range 300 {
			_, err := c.Write(make([]byte, 400))
			must(t, err)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(1500 * time.Millisecond) // until it is counted, but not until somebody looks
		for _, sink := range sinks {
			n := len(sink.Frames(lab.UDPTo(5001)))
			if n == 0 {
				t.Fatal("nothing was copied")
			}
			sent[short] += int64(n)
		}
	}
	w := &counterWatch{s, map[string]map[string]int64{}}
	holds := func(when string) {
		t.Helper()
		w.becomes(when, "m", map[string]int64{"sentPackets": sent[true] + sent[false], "cutPackets": sent[true]})
	}
	s.force(doc(short, one+two))
	burst(true, "sink0", "sink1")
	s.force(doc(short, one))
	holds("a target less")
	burst(true, "sink0")
	s.force(doc(short, one+two))
	holds("a target more")
	burst(true, "sink0", "sink1")
	s.force(doc("", one+two))
	holds("nothing is cut")
	if meters, err := s.Ofctl("dump-meters", "tw-tap-netdev"); err != nil || strings.Contains(meters, "meter=") {
		t.Errorf("meters of a mirror that has none: %v %s", err, meters)
	}
	burst(false, "sink0", "sink1")
	s.force(doc(limit+short, one))
	holds("a limit")
	burst(true, "sink0")
	s.force(doc(short, one))
	holds("no limit")
	burst(true, "sink0")
	s.tapwall("mirror", "stop", "m", "--wait") // and with it the bridge that it was on
	holds("stopped")
	s.tapwall("mirror", "start", "m", "--wait")
	s.force(doc(short+"  stopAfter: {duration: 4s}\n", one))
	burst(true, "sink0")
	s.becomes("mirror", "m", policy.PhaseStopped, policy.ReasonCompleted, "")
	holds("it has ended")
}
