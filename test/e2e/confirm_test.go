package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// Who locks himself out is let in again when the time is up, with tapwall killed in the middle, whether the next one begins before that or
// after; who confirms keeps what he applied.
func TestConfirmWithinUndoesALockOut(t *testing.T) {
	t.Parallel()
	s := ground(t, 3)
	s.wall()
	lockout := `
kind: Policy
name: lockout
spec:
  appliesTo: [{port: vm2}]
  ingress: [{name: others, action: allow, from: [{port: vm3}]}]
`
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	stream, control := s.datagrams(s.vm[1], s.vm[2], 5001, 10*time.Millisecond), s.echo(s.vm[3], s.vm[2], 5001)
	s.running(stream, control)
	for _, tt := range []struct {
		name  string
		pause time.Duration // for which nobody runs
	}{{"the next one begins before the time is up", 0}, {"after that", 6 * time.Second}} {
		since := time.Now()
		out, err := s.tw.RunInput(lockout, "apply", "-f", "-", "--wait", "--confirm-within", "6s")
		must(t, err)
		if !strings.Contains(out, "unless you run: tapwall confirm ") {
			t.Errorf("%s: it says %q", tt.name, out)
		}
		s.quiet(stream, time.Now(), time.Second, "locked out")
		if out, _ := s.tw.Run("status"); !strings.Contains(out, "1 resource, undone at ") {
			t.Errorf("%s: the status says nothing of it:\n%s", tt.name, out)
		}
		s.tw.Kill()
		time.Sleep(tt.pause)
		must(t, s.tw.Start())
		if tt.pause == 0 {
			s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
		}
		lab.Eventually(t, 15*time.Second, tt.name+": let in again", func() bool {
			return s.vm[1].CanConnect(s.vm[2].IPv4, 5001, 500*time.Millisecond)
		})
		if took := time.Since(since); took < 5*time.Second {
			t.Errorf("%s: let in again after %v", tt.name, took)
		}
		back := time.Now()
		lab.Eventually(t, 5*time.Second, tt.name+": the stream goes on", func() bool { return stream.LastArrival().After(back) })
		if out, err := s.tw.Run("get", "policy", "lockout"); err == nil {
			t.Errorf("%s: it is still there:\n%s", tt.name, out)
		}
	}
	s.lossless(control, "who was let in all the time")

	_, err := s.tw.RunInput(lockout, "apply", "-f", "-", "--wait", "--confirm-within", "2s")
	must(t, err)
	if out := s.tapwall("confirm"); !strings.Contains(out, "confirmed: 1 resource stays") {
		t.Errorf("it says %q", out)
	}
	time.Sleep(4 * time.Second)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.lossless(control, "who was let in all the time")
	if out := s.tapwall("get", "policy", "lockout"); !strings.Contains(out, "Active") {
		t.Errorf("confirmed, it is\n%s", out)
	}
}
