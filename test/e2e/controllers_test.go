package e2e

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/test/lab"
)

// beside starts another tapwall on the stage's switch, with a data directory and a socket of its own, and returns how to ask it.
func (s *stage) beside(name string, flags ...string) (process *exec.Cmd, ask func(args ...string) error) {
	s.t.Helper()
	socket := "unix:" + filepath.Join(s.Dir, name+".sock")
	process, err := s.Spawn(name, append([]string{s.tw.Bin, "serve", "--ovsdb", s.DB(), "--data-dir", filepath.Join(s.Dir, name),
		"--listen", socket, "--bridge", "br0=owned"}, flags...)...)
	must(s.t, err)
	return process, func(args ...string) error {
		_, err := s.tw.Run(append([]string{"--server", socket}, args...)...)
		return err
	}
}

// A second tapwall on one switch does not start. Told to take over it manages the host, the first one changes nothing more and says why,
// and gets the host back when the second ends. Traffic that both allow loses nothing.
func TestFirewallTwoControllers(t *testing.T) {
	t.Parallel()
	s := open(t, 2, "--take-over")
	s.apply(restartPolicy)
	s.pickupClosed()
	udp := s.datagrams(s.vm[1], s.vm[2], 5001, 10*time.Millisecond)
	s.running(udp)
	before := s.flows()
	refused, _ := s.beside("second")
	var exit *exec.ExitError
	if err := refused.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("the second ended with %v", err)
	}
	if after := s.flows(); strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Errorf("a tapwall that did not start changed\n%s\nto\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}

	third, ask := s.beside("third", "--take-over")
	lab.Eventually(t, 10*time.Second, "the third is in charge", func() bool { return ask("status", "--ready") == nil })
	lab.Eventually(t, 5*time.Second, "the first says so", func() bool {
		out, _ := s.tw.Run("status")
		return strings.Contains(out, fmt.Sprintf("another tapwall manages this Open vSwitch: pid %d", third.Process.Pid))
	})
	out := s.refused(restartPolicy+
		"  - {name: more, action: allow, from: [{port: vm1}], services: [{protocol: tcp, ports: [\"5003\"]}]}\n", "apply", "--wait",
		"--timeout", "1s", "-f", "-")
	if !strings.Contains(out, "not installed everywhere after 1s") {
		t.Errorf("a change by the first: %s", out)
	}
	if n := len(s.flows("table=206,tcp")); n != 0 {
		t.Errorf("the first, or the third without any policy, has %d flows of policies", n)
	}
	must(t, third.Process.Kill())
	_ = third.Wait()
	lab.Eventually(t, 10*time.Second, "the first has the host back, with what it was told meanwhile", func() bool {
		return !s.vm[1].CanConnect(s.vm[2].IPv4, 5004, 300*time.Millisecond)
	})
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5003)
	s.lossless(udp, "traffic meanwhile")
}

// A controller that is no tapwall and claims the primary role is in nobody's way, unless tapwall was told to take over: then it is that
// which becomes read-only, and says so.
func TestFirewallTwoControllersForeign(t *testing.T) {
	t.Parallel()
	for name, takeOver := range map[string]bool{"tolerated": false, "told to take over": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var flags []string
			if takeOver {
				flags = []string{"--take-over"}
			}
			s := open(t, 2, flags...)
			s.apply(restartPolicy)
			foreign, err := ofctrl.New(ofctrl.Options{Bridge: "br0", Address: "unix:" + filepath.Join(s.Dir, "br0.mgmt"), Cookie: 0x77 << 56,
				CookieMask: 0xff << 56, MeterFirst: 1, MeterLast: 9, NudgeFlow: flow.Flow{Table: 100, Cookie: 0x77 << 56}})
			must(t, err)
			go func() { _ = foreign.Run(t.Context()) }()
			lab.Eventually(t, 5*time.Second, "the other controller is there", func() bool { return foreign.State().Ready })
			must(t, foreign.Claim(t.Context()))
			more := strings.Replace(restartPolicy, "5001-5002", "5001-5003", 1)
			if !takeOver {
				s.apply(more)
				s.mustConnect(s.vm[1], s.vm[2].IPv4, 5003)
				return
			}
			lab.Eventually(t, 5*time.Second, "the status says so", func() bool {
				out, _ := s.tw.Run("status")
				return strings.Contains(out, "another controller has taken the primary role of the bridge")
			})
			before := s.flows()
			out := s.refused(more, "apply", "--wait", "--timeout", "1s", "-f", "-")
			if !strings.Contains(out, "another controller has taken the primary role of the bridge") {
				t.Errorf("a change: %s", out)
			}
			if after := s.flows(); strings.Join(before, "\n") != strings.Join(after, "\n") {
				t.Errorf("what was\n%s\nis now\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
			}
			s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5003)
			s.mustConnect(s.vm[1], s.vm[2].IPv4, 5002)
			must(t, s.tw.Stop())
			must(t, s.tw.Start())
			lab.Eventually(t, 5*time.Second, "started again it takes over", func() bool {
				return s.vm[1].CanConnect(s.vm[2].IPv4, 5003, time.Second)
			})
			if role, err := foreign.Role(t.Context()); err != nil || role != ofp.RoleSecondary {
				t.Errorf("the other controller is %v, %v", role, err)
			}
		})
	}
}
