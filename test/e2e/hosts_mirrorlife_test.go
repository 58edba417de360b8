package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// A mirror on two hosts ends after so many packets of both together, on both. A host that cannot be reached then copies no more when it is
// back, and neither begins again by itself.
func TestHosts_MirrorLife(t *testing.T) {
	t.Parallel()
	near, far := host(t), host(t)
	must(t, near.Link(far.Lab, "192.0.2.1", "192.0.2.2"))
	for name, s := range map[string]*stage{"near": near, "far": far} {
		_, err := s.Vsctl("set", "Open_vSwitch", ".", "external_ids:system-id="+name)
		must(t, err)
		s.ping3(s.vm[1], s.vm[2])
	}
	_, err := far.Vsctl("set-manager", "ptcp:6640:192.0.2.2")
	must(t, err)
	config := filepath.Join(near.Dir, "hosts.yaml")
	must(t, os.WriteFile(config, fmt.Appendf(nil, "hosts:\n"+
		"- {name: a, ovsdb: %q, bridges: [{name: br0, mode: owned}]}\n"+
		"- {name: b, ovsdb: \"tcp:192.0.2.2:6640\", bridges: [{name: br0, mode: owned}]}\n", near.DB()), 0o600))
	near.tw, err = near.StartTapwall("--config", config)
	must(t, err)
	far.tw = near.tw
	near.apply("kind: Mirror\nname: tap\nspec: {sources: [{port: vm1}], filter: {rules: [{action: accept, protocol: icmp}]}, " +
		"stopAfter: {packets: 60}, targets: [{port: {name: ids0}}]}\n")
	near.becomes("mirror", "tap", policy.PhaseActive, "", "")
	captures := map[*stage]*lab.Capture{near: near.capture("ids0"), far: far.capture("ids0")}
	// ping sends ten pings on a host, which are 20 packets to copy, and returns how many were.
	ping := func(s *stage) int {
		t.Helper()
		return s.copied(captures[s], func() {
			if out, err := s.vm[1].Run("ping", "-q", "-c", "10", "-i", "0.02", "-W", "2", s.vm[2].IPv4); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	takes := func(what string, n int64) {
		t.Helper()
		lab.Eventually(t, 8*time.Second, what, func() bool {
			l := near.status("mirror", "tap").Life
			return l != nil && l.Packets == n && l.LeftPackets == 60-n
		})
	}
	ended := func(s *stage, what string) {
		t.Helper()
		lab.Eventually(t, 15*time.Second, what+": no row is left", func() bool {
			out, err := s.Vsctl("--bare", "--columns=name", "list", "mirror")
			return err == nil && strings.TrimSpace(out) == ""
		})
		if n := ping(s); n != 0 {
			t.Errorf("%s: %d copies came after the end", what, n)
		}
	}
	if n, m := ping(near), ping(far); n != 20 || m != 20 {
		t.Fatalf("the hosts copied %d and %d packets of 20", n, m)
	}
	takes("both hosts count", 40)
	ping(near)
	near.becomes("mirror", "tap", policy.PhaseStopped, policy.ReasonCompleted, "it was to copy 60 packets, and took 60")
	ended(near, "near")
	ended(far, "far")

	// Each start makes the tap bridges of both hosts anew, which is waited for.
	for range 8 {
		near.tapwall("mirror", "start", "tap", "--wait")
		near.tapwall("mirror", "stop", "tap", "--wait")
	}

	// One of the two is away at the end.
	near.tapwall("mirror", "start", "tap", "--wait")
	if n, m := ping(near), ping(far); n != 20 || m != 20 {
		t.Fatalf("started again the hosts copied %d and %d packets of 20", n, m)
	}
	takes("both hosts count anew", 40)
	link := func(state string) {
		t.Helper()
		out, err := far.Switch.Run("ip", "-o", "addr", "show", "to", "192.0.2.2")
		must(t, err)
		_, err = far.Switch.Run("ip", "link", "set", "dev", strings.TrimSuffix(strings.Split(strings.Fields(out)[1], "@")[0], ":"), state)
		must(t, err)
	}
	link("down")
	ping(near)
	lab.Eventually(t, 15*time.Second, "near ends", func() bool {
		out, err := near.Vsctl("--bare", "--columns=name", "list", "mirror")
		return err == nil && strings.TrimSpace(out) == ""
	})
	if n := ping(far); n != 20 {
		t.Errorf("the host that is away copied %d packets of 20, so the test shows nothing", n)
	}
	link("up")
	ended(far, "far, back again")
	near.becomes("mirror", "tap", policy.PhaseStopped, policy.ReasonCompleted, "")
	must(t, near.tw.Stop())
	must(t, near.tw.Start())
	near.becomes("mirror", "tap", policy.PhaseStopped, policy.ReasonCompleted, "")
	ended(near, "near after a restart")
	ended(far, "far after a restart")
}
