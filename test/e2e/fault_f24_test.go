package e2e

import (
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// said waits until the status is unhealthy, and the readiness refused, for a reason that contains each of the words.
func (s *stage) said(what string, within time.Duration, words ...string) time.Duration {
	s.t.Helper()
	return lab.Eventually(s.t, within, what, func() bool {
		status, _ := s.tw.Run("status")
		ready, err := s.tw.Run("status", "--ready")
		for _, w := range words {
			if !strings.Contains(status, w) || !strings.Contains(ready, w) {
				return false
			}
		}
		return err != nil && strings.Contains(status, "NOT healthy")
	})
}

// becomesHealthy waits until status and readiness say that all is well.
func (s *stage) becomesHealthy(what string) {
	s.t.Helper()
	lab.Eventually(s.t, 15*time.Second, what, func() bool {
		out, err := s.tw.Run("status")
		_, notReady := s.tw.Run("status", "--ready")
		return err == nil && notReady == nil && strings.Contains(out, ": healthy")
	})
}

// What a person on call would conclude from the status and the readiness is true: a switch that is stuck while nothing is pending, one
// that is down, a bridge that is gone. (A wall that is off while its switch answers is put right within milliseconds;
// TestFault_F24_WallOff of the engine has one that cannot be.)
func TestFault_F24_ReadyMeansInForce(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001"))
	s.becomesHealthy("healthy at first")

	pid := s.pidOf("vswitchd")
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	took := s.said("a stuck switch is told of, with nothing pending", 8*time.Second, "bridge br0: the switch has not answered for")
	must(t, syscall.Kill(pid, syscall.SIGCONT))
	t.Logf("a stuck switch is told of after %v", took.Round(10*time.Millisecond))
	s.becomesHealthy("healthy when it answers again")

	// A switch that is down is told of, and so is a bridge that is gone.
	s.KillVswitchd()
	s.said("a switch that is down is told of", 5*time.Second, "bridge br0: connecting")
	must(t, s.StartVswitchd())
	s.becomesHealthy("healthy when it is back")
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5002)
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)

	_, err := s.Vsctl("del-br", "br0")
	must(t, err)
	s.said("a bridge that is gone is told of", 5*time.Second, "bridge br0 does not exist")
}

// Nothing in the status looks like lag when nothing is pending.
func TestFault_F24_NoLagInWords(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001"))
	s.becomesHealthy("healthy")
	out := s.tapwall("status")
	revisions := regexp.MustCompile(`revision (\d+)`).FindAllString(out, -1)
	if len(revisions) != 1 || !strings.Contains(out, "all changes are in force (up to "+revisions[0]+")") {
		t.Errorf("the revisions in the status are %v:\n%s", revisions, out)
	}
	// While the switch cannot take a change, the lag is told.
	pid := s.pidOf("vswitchd")
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	_, waits := s.tw.RunInput(allowPorts("p", "vm2", "vm1", "5003"), "apply", "--wait", "--timeout", "1s", "-f", "-")
	out, _ = s.tw.Run("status")
	must(t, syscall.Kill(pid, syscall.SIGCONT))
	if waits == nil || !regexp.MustCompile(`changes up to revision \d+ are in force, NOT those up to \d+`).MatchString(out) {
		t.Errorf("a change waits (%v):\n%s", waits, out)
	}
	s.becomesHealthy("healthy again")
	if strings.Contains(s.tapwall("status"), "NOT") {
		t.Error("lag is told when there is none")
	}
}
