package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// ovsSave is the program by which ovs-ctl saves flows before it restarts the switch; it prints the script that restores them.
const ovsSave = "/usr/share/openvswitch/scripts/ovs-save"

// shell runs a program of Open vSwitch's that finds sockets by its environment.
func (s *stage) shell(args ...string) string {
	s.t.Helper()
	out, err := s.Switch.Run("env", append([]string{"OVS_RUNDIR=" + s.Dir, "OVS_DBDIR=" + s.Dir, "TMPDIR=" + s.Dir}, args...)...)
	must(s.t, err)
	return out
}

// The steps of `ovs-ctl restart`: save the flows, stop the switch, start it with flow-restore-wait, restore the flows, clear the flag.
// While the flag is set nothing passes: tapwall works on, says so, and leaves the flag alone, whether it finds the flows restored or
// brings them itself. Afterwards everything is enforced, allowed connections go on, and flows that were restored are not sent again.
func TestFirewallFlowRestoreWait(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]bool{"flows restored before tapwall looks": true, "tapwall is faster": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, 2, "--pickup-window", "8s")
			s.apply(restartPolicy)
			s.pickupClosed()
			echo, push := s.echo(s.vm[1], s.vm[2], 5001), s.push(s.vm[1], s.vm[2], 5002)
			s.running(echo, push)
			flag := func() string { return s.shell("ovs-vsctl", "--no-wait", "get", "Open_vSwitch", ".", "other_config") }
			script := s.shell("sh", ovsSave, "save-flows", "br0")
			if first {
				must(t, s.tw.Stop())
			}
			mods := func() uint64 { return uint64(s.health().FlowMods) }
			s.KillVswitchd()
			s.shell("ovs-vsctl", "--no-wait", "set", "Open_vSwitch", ".", "other_config:flow-restore-wait=true")
			must(t, s.StartVswitchd())
			lab.Eventually(t, 10*time.Second, "the switch listens", func() bool {
				_, err := s.Ofctl("dump-flows", "br0")
				return err == nil
			})
			restore := func() {
				if out := s.shell("sh", "-c", script); out != "" {
					t.Errorf("flows are restored: %s", out)
				}
			}
			if first {
				restore()
				go func() { _ = s.tw.Start() }() // it is not ready before the flag is cleared
			}
			lab.Eventually(t, 10*time.Second, "tapwall has the switch back", func() bool {
				h, ok := s.tryHealth()
				return ok && h.OpenFlow == "connected" && h.DesiredFlows > 0 && h.InstalledFlows >= h.DesiredFlows
			})
			s.becomes("policies", "vm2", policy.PhaseDegraded, policy.ReasonRestoreWait, "flow-restore-wait is set")
			if _, err := s.tw.Run("status", "--ready"); err == nil {
				t.Error("tapwall is ready while nothing passes")
			}
			if !first {
				restore()
				lab.Eventually(t, 10*time.Second, "what the restored flows lack is there", func() bool {
					h, ok := s.tryHealth()
					return ok && h.InstalledFlows >= h.DesiredFlows
				})
			}
			if s.vm[1].CanConnect(s.vm[2].IPv4, 5001, 500*time.Millisecond) {
				t.Error("the switch forwards, so that this test shows nothing")
			}
			if f := flag(); !strings.Contains(f, `flow-restore-wait="true"`) {
				t.Errorf("other_config is %s", f)
			}
			cleared := time.Now()
			s.shell("ovs-vsctl", "--no-wait", "remove", "Open_vSwitch", ".", "other_config", "flow-restore-wait=true")
			lab.Eventually(t, 10*time.Second, "allowed connections go on", func() bool {
				return echo.ReceivedSince(cleared) > 20 && push.ReceivedSince(cleared) > 20
			})
			s.becomes("policies", "vm2", policy.PhaseActive, "", "")
			s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5003)
			s.mustConnect(s.vm[1], s.vm[2].IPv4, 5002)
			sent := mods()
			t.Logf("%d flow-mods to %d flows", sent, len(s.flows()))
			if window := len(s.flows("table=213")); first && (window == 0 || sent > 100) {
				t.Errorf("%d flow-mods, and %d flows of the pickup window: more than the window was sent, or there is none", sent, window)
			}
			s.pickupClosed()
			s.unchangedByRestart()
		})
	}
}
