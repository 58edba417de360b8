package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// Who has the lock of a remote host is frozen until another one has it, and thaws: it writes nothing, although its bridges can be
// reached before it knows.
func TestHosts_HolderFrozen(t *testing.T) {
	t.Parallel()
	first, second, far := &stage{Lab: lab.Require(t), t: t}, &stage{Lab: lab.Require(t), t: t}, host(t)
	for n, s := range []*stage{first, second} {
		must(t, s.Link(far.Lab, sprintf("192.0.%d.1", n+2), sprintf("192.0.%d.2", n+2)))
		must(t, os.WriteFile(filepath.Join(s.Dir, "hosts.yaml"), fmt.Appendf(nil, "hosts:\n"+
			"- {name: far, ovsdb: \"tcp:192.0.%d.2:6640\", bridges: [{name: br0, mode: owned, listen: \"ptcp:6653\"}]}\n", n+2), 0o600))
	}
	_, err := far.Vsctl("set-manager", "ptcp:6640", "--", "set", "Open_vSwitch", ".", "external_ids:system-id=far")
	must(t, err)
	first.tw, err = first.StartTapwall("--config", filepath.Join(first.Dir, "hosts.yaml"))
	must(t, err)
	first.apply("kind: Policy\nname: p\nspec:\n  appliesTo: [{port: vm2}]\n" +
		"  ingress: [{name: r, action: allow, services: [{protocol: tcp, ports: [\"5001\"]}]}]\n")
	sent := func() string {
		out, _ := first.tw.Run("status") // whose exit code says that it is not healthy
		return regexp.MustCompile(`\d+ flow-mods sent`).FindString(out)
	}
	before := sent()
	must(t, syscall.Kill(first.tw.Pid(), syscall.SIGSTOP))
	second.tw, err = second.StartTapwall("--config", filepath.Join(second.Dir, "hosts.yaml")) // both servers have given the first up then
	must(t, syscall.Kill(first.tw.Pid(), syscall.SIGCONT))
	must(t, err)
	lab.Eventually(t, 10*time.Second, "the first knows", func() bool {
		out, _ := first.tw.Run("status")
		return strings.Contains(out, "another tapwall manages this Open vSwitch") && strings.Contains(out, "OpenFlow connected")
	})
	if after := sent(); before == "" || after != before {
		t.Errorf("before %q, after %q", before, after)
	}
}
