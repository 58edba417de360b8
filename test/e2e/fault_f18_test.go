package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// A host whose Open vSwitch has no system-id works under its name, says so, and says with which command to give it one. When it gets
// one, then or over a restart, nothing that was built on the name is lost.
func TestFault_F18_SystemIDMissing(t *testing.T) {
	t.Parallel()
	here, err := os.Hostname()
	must(t, err)
	s := &stage{Lab: lab.Require(t), t: t, vm: []*lab.VM{nil}}
	must(t, s.AddBridge("br0"))
	for i := 1; i <= 2; i++ {
		vm, err := s.AddVM(sprintf("vm%d", i), "br0", i)
		must(t, err)
		must(t, s.Serve(vm, 5001, 5002))
		s.vm = append(s.vm, vm)
	}
	systemID := func(command ...string) {
		_, err := s.Vsctl(command...)
		must(t, err)
	}
	systemID("remove", "open_vswitch", ".", "external_ids", "system-id")
	s.tw, err = s.StartTapwall("--bridge", "br0=owned", "--pickup-window", "300ms")
	must(t, err)
	a, b := s.vm[1], s.vm[2]
	s.apply(allowPorts("vm2", "vm2", "vm1", "5001"))
	s.mustConnect(a, b.IPv4, 5001)
	s.mustNotConnect(a, b.IPv4, 5002)
	s.pickupClosed()
	command := regexp.MustCompile(`warning: SYSTEM_ID: .* ovs-vsctl (set open_vswitch \. external_ids:system-id=\S+)`).FindStringSubmatch(
		s.tapwall("status"))
	if command == nil || !strings.HasSuffix(command[1], "="+here) {
		t.Fatalf("the status names no command for %s:\n%s", here, s.tapwall("status"))
	}
	if out := s.tapwall("get", "hosts"); !strings.Contains(out, here) {
		t.Errorf("hosts:\n%s", out)
	}
	log, err := os.ReadFile(filepath.Join(s.Dir, "tapwall.log"))
	must(t, err)
	if n := strings.Count(string(log), "code=SYSTEM_ID"); n != 1 {
		t.Errorf("the log says so %d times", n)
	}
	live, id := s.echo(a, b, 5001), s.rule("vm2", "allow").ID
	s.running(live)
	same := func(what, host string) {
		t.Helper()
		lab.Eventually(t, 10*time.Second, what, func() bool {
			out, err := s.tw.Run("status")
			return err == nil && strings.Contains(out, "host:    "+host+",")
		})
		if now := s.rule("vm2", "allow").ID; now != id {
			t.Errorf("%s: the rule has id %d, had %d", what, now, id)
		}
		s.mustNotConnect(a, b.IPv4, 5002)
		s.lossless(live, what)
	}
	restart := func() {
		s.tw.Kill()
		must(t, s.tw.Start())
	}
	restart()
	same("started again", here)
	systemID(strings.Fields(command[1])...)
	lab.Eventually(t, 5*time.Second, "the command helps", func() bool { return !strings.Contains(s.tapwall("status"), "SYSTEM_ID") })
	same("given its name", here)
	systemID("set", "open_vswitch", ".", "external_ids:system-id=rack7")
	same("given another while it runs", "rack7")
	restart()
	same("started again", "rack7")
	s.tw.Kill()
	systemID("set", "open_vswitch", ".", "external_ids:system-id=rack8")
	must(t, s.tw.Start())
	same("given another while it does not run", "rack8")
	systemID("set", "open_vswitch", ".", "external_ids:system-id=no/id")
	same("given an impossible one", here)
	if out := s.tapwall("status"); !strings.Contains(out, `"no/id" has a character that is not possible`) {
		t.Errorf("the status does not say what is wrong:\n%s", out)
	}
	// What it allows is still what it takes away.
	s.tapwall("delete", "policy", "vm2", "--wait")
	t0 := s.apply(allowPorts("vm2", "vm2", "vm1", "5002"))
	s.quiet(live, t0, 500*time.Millisecond, "the rule is gone")
}
