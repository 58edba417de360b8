package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// A mirror that would copy its own tunnel packets is refused while the collector is reached through its bridge. One that was there before
// the way led through it does nothing, and starts when the way changes.
func TestMirrorScenario03RouteThroughSource(t *testing.T) {
	t.Parallel()
	s := open(t, 1)
	must(t, s.AddBridge("br-under"))
	ip := func(args ...string) {
		t.Helper()
		_, err := s.Switch.Run("ip", args...)
		must(t, err)
	}
	ip("link", "set", "br0", "up")
	ip("link", "set", "br-under", "up")
	ip("addr", "add", "10.99.0.1/24", "dev", "br-under")
	ip("addr", "add", "10.98.0.1/24", "dev", "br0")
	ip("route", "add", "10.97.0.0/24", "via", "10.98.0.2")
	const loop = "kind: Mirror\nname: loop\nspec: {sources: [{bridge: br0}], targets: [{vxlan: {remote: 10.97.0.9, vni: 7}}]}\n"
	refused := func(stdin string, args ...string) {
		t.Helper()
		if out := s.refused(stdin, args...); !strings.Contains(out, "10.97.0.9 is reached through") ||
			!strings.Contains(out, "/spec/sources") {
			t.Errorf("%s: %s", strings.Join(args, " "), out)
		}
		if rows, err := s.Vsctl("--columns=name", "find", "Mirror"); err != nil || strings.TrimSpace(rows) != "" {
			t.Errorf("the refused mirror has a row: %q, %v", rows, err)
		}
	}
	refused(loop, "apply", "-f", "-")
	ip("route", "replace", "10.97.0.0/24", "via", "10.99.0.2") // Open vSwitch says nothing of that
	s.force(strings.Replace(loop, "spec: {", "spec: {enabled: false, ", 1))
	s.tapwall("mirror", "start", "loop")
	s.becomes("mirror", "loop", policy.PhaseDegraded, policy.ReasonTargetUnresolved, "")
	// Back again while nothing copies: a loop that is alive until the next look can be the end of ovs-vswitchd.
	s.tapwall("mirror", "stop", "loop", "--wait")
	ip("route", "replace", "10.97.0.0/24", "via", "10.98.0.2")
	refused("", "mirror", "start", "loop")
	ip("route", "replace", "10.97.0.0/24", "via", "10.99.0.2")
	s.tapwall("mirror", "start", "loop")
	s.becomes("mirror", "loop", policy.PhaseDegraded, policy.ReasonTargetUnresolved, "")
	// A way that changed while no tapwall looked.
	must(t, s.tw.Stop())
	ip("route", "replace", "10.97.0.0/24", "via", "10.98.0.2")
	must(t, s.tw.Start())
	s.becomes("mirror", "loop", policy.PhaseFailed, policy.ReasonSourceCarriesTarget, "10.97.0.9 is reached through")
	ip("route", "replace", "10.97.0.0/24", "via", "10.99.0.2")
	s.becomes("mirror", "loop", policy.PhaseDegraded, policy.ReasonTargetUnresolved, "")
}

// Scenario 10 of mirrors: the mirror copies every port of the bridge that its tunnel leaves by. It is refused, and nothing of the running
// ones notices; with what carries the tunnel excluded, one ping gives exactly its 6 copies, though nobody listens at the collector and each
// copy is answered by an ICMP error (a mirror made by hand copies those, too: 12), and nothing goes round afterwards.
func TestMirrorScenario10LoopGuard(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	collector := s.vm[3]
	for ns, addr := range map[lab.NS]string{s.Switch: "10.98.0.1/24 dev br0", collector.NS: "10.98.0.2/24 dev eth0"} {
		_, err := ns.Run("ip", strings.Fields("addr add "+addr)...)
		must(t, err)
	}
	_, err := s.Switch.Run("ip", "link", "set", "br0", "up")
	must(t, err)
	if out, err := s.Switch.Run("ping", "-c", "1", "-W", "2", "10.98.0.2"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.ping3(s.vm[1], s.vm[2])
	s.force(tapVM1) // runs throughout
	under, err := s.Capture(collector.NS, "eth0")
	must(t, err)
	host, err := s.Capture(s.Switch, "br0")
	must(t, err)
	ids, err := s.Capture(s.Switch, "ids0")
	must(t, err)

	status, answer := s.request("PUT", "/v1/mirrors/loop",
		`{"spec": {"sources": [{"bridge": "br0"}], "targets": [{"vxlan": {"remote": "10.98.0.2", "vni": 7}}]}}`)
	if status != 422 || !strings.Contains(answer, "SOURCE_CARRIES_TARGET") || !strings.Contains(answer, "/spec/sources") {
		t.Errorf("every port of the bridge of the tunnel: %d %s", status, answer)
	}
	s.ping3(s.vm[1], s.vm[2])
	settle()
	if n, m := len(under.Frames(lab.UDPTo(4789))), len(ids.Frames(lab.ICMP)); n != 0 || m != 6 {
		t.Errorf("after it was refused %d tunnel packets came, and the mirror that runs made %d copies of 6", n, m)
	}

	s.force("kind: Mirror\nname: loop\nspec: {sources: [{bridge: br0}], exclude: [{port: br0}, {port: vm3}], " +
		"targets: [{vxlan: {remote: 10.98.0.2, vni: 7}}]}\n")
	pings := func(f lab.Frame) bool { return lab.UDPTo(4789)(f) && lab.ICMP(lab.Frame{Data: f.Data[50:]}) }
	lab.Eventually(t, 10*time.Second, "copies arrive", func() bool { // the first ones wait for the collector's address
		s.ping(s.vm[1], s.vm[2].IPv4)
		return len(under.Frames(pings)) > 0
	})
	settle()
	had := len(under.Frames(pings))
	s.ping3(s.vm[1], s.vm[2])
	settle()
	if n := len(under.Frames(pings)) - had; n != 6 {
		t.Errorf("one ping gave %d copies, want 6", n)
	}
	if n := len(host.Frames(func(f lab.Frame) bool {
		return len(f.Data) > 34 && f.Data[12] == 8 && f.Data[23] == 1 && f.Data[34] == 3
	})); n == 0 {
		t.Error("the collector did not answer that nobody listens, so nothing could go round")
	}
	time.Sleep(5 * time.Second)
	notARP := func(f lab.Frame) bool { return len(f.Data) > 14 && (f.Data[12] != 8 || f.Data[13] != 6) } // the host asks for who it knows
	before := len(under.Frames(notARP))
	time.Sleep(2 * time.Second)
	if n := len(under.Frames(notARP)) - before; n != 0 {
		t.Errorf("%d packets in 2 s on the underlay, five seconds after traffic stopped", n)
	}
}
