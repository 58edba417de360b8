package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/api/client"
	"github.com/tapwall/tapwall/test/lab"
)

// When an answer to wait=effective has come, the very next packet is judged by the new rules, in either direction of the change, also where
// the switch has hot caches of the old ones: 60 times of 60. The control is wait=installed, by whose answer the switch may still go by what
// it had cached.
func TestWaitEffectiveFirstPacket(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.neighbours()
	open, shut := allowPorts("p", "vm2", "vm1", "5001"), allowPorts("p", "vm2", "vm1", "5002")
	s.apply(shut)
	s.pickupClosed()
	api, err := client.New("unix:"+s.Socket(), client.Options{})
	must(t, err)
	capture, err := s.Capture(s.vm[2].NS, "eth0")
	must(t, err)
	hot := s.datagrams(s.vm[1], s.vm[2], 5001, time.Millisecond) // keeps the caches of what is denied, or allowed, hot
	lab.Eventually(t, 5*time.Second, "datagrams are sent", func() bool { return hot.Sent() > 100 })
	port := 20000
	first := func(docs string, effective bool) (sent func() bool) {
		_, err := api.Apply(t.Context(), []byte(docs), client.WriteOptions{Wait: 10 * time.Second, Effective: effective})
		must(t, err)
		port++
		p := uint16(port)
		s.say(s.vm[1], s.vm[2], port, 5001, "first")
		return func() bool { return len(capture.Frames(lab.UDPFrom(p))) > 0 }
	}
	const tries = 60
	for _, effective := range []bool{true, false} {
		var allowed, denied []func() bool
		for range tries {
			allowed = append(allowed, first(open, effective))
			denied = append(denied, first(shut, effective))
		}
		late := first(open, true) // what was sent before has arrived by then, if it passed
		lab.Eventually(t, 5*time.Second, "the last packet arrives", late)
		s.apply(shut)
		passed := func(of []func() bool) (n int) {
			for _, arrived := range of {
				if arrived() {
					n++
				}
			}
			return n
		}
		t.Logf("effective %t: of %d first packets, %d that the new rules allow passed, and %d that they deny", effective, tries, passed(allowed),
			passed(denied))
		if effective && (passed(allowed) != tries || passed(denied) != 0) {
			t.Error("not every first packet behind the answer was judged by the new rules")
		}
	}
}

// A switch that cannot be asked is told of: the write is installed and stays, and the exit code is that of a wait that was too short.
func TestWaitEffectiveUnanswered(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply(allowPorts("p", "vm2", "vm1", "5001"))
	pid := filepath.Join(s.Dir, "ovs-vswitchd.pid") // leads to the control socket
	must(t, os.Rename(pid, pid+".away"))
	out, err := s.tw.RunInput(allowPorts("p", "vm2", "vm1", "5002"), "apply", "--wait=effective", "-f", "-")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 4 || !strings.Contains(out, "installed, but it is not known whether decisions are left") {
		t.Errorf("%v: %s", err, out)
	}
	must(t, os.Rename(pid+".away", pid))
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5002)
	s.tapwall("delete", "policy", "p", "--wait=effective")
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
}
