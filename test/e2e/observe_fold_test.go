package e2e

import (
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/test/lab"
)

// onTerminal runs a CLI command whose output goes to a terminal, and returns what that shows.
func (s *stage) onTerminal(args ...string) string {
	s.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(s.t, err)
	defer master.Close()
	must(s.t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(s.t, err)
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(s.t, err)
	cmd := exec.Command(s.tw.Bin, args...)
	cmd.Env = append(os.Environ(), "TAPWALL_SERVER=unix:"+s.Socket(), "NO_COLOR=1")
	cmd.Stdout = slave
	must(s.t, cmd.Start())
	must(s.t, slave.Close())
	out, _ := io.ReadAll(master) // the end of a terminal is an error, EIO
	must(s.t, cmd.Wait())
	return strings.ReplaceAll(string(out), "\r\n", "\n")
}

// TestObserveFolds: a denied packet that is sent again and again is one line on a terminal, behind which there is room for others; whoever
// wants each gets each, and so does every program.
func TestObserveFolds(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.apply("kind: Policy\nname: shut\nspec: {appliesTo: [{port: vm2}], defaultDeny: {ingress: false}, ingress: [" +
		"{name: u, action: deny, services: [{protocol: udp, ports: [\"6001\", \"6002\"]}]}]}\n")
	sendDatagram(t, s.vm[1], 0, s.vm[2].IPv4, 6001)
	again := s.datagrams(s.vm[1], s.vm[2], 6002, 10*time.Millisecond)
	lab.Eventually(t, 10*time.Second, "it is sent again and again", func() bool { return again.Sent() > 40 })
	again.Stop()
	var all int
	lab.Eventually(t, 10*time.Second, "all are recorded", func() bool {
		n := len(s.events("--to-port", "6002", "--all"))
		settled := n == all && n > 20
		all = n
		return settled
	})
	folded := regexp.MustCompile(`DENIED \(UDP\), ` + strconv.Itoa(all) + ` times until `)
	out := s.onTerminal("observe", "--verdict", "DENIED", "--last", "20")
	if !folded.MatchString(out) || strings.Count(out, ":6002") != 1 || strings.Count(out, ":6001") != 1 {
		t.Errorf("of %d denials a terminal shows\n%s", all, out)
	}
	if out := s.onTerminal("observe", "--verdict", "DENIED", "--last", "20", "--no-fold"); strings.Count(out, ":6002") != 20 {
		t.Errorf("with --no-fold a terminal shows\n%s", out)
	}
	for _, args := range [][]string{{}, {"-o", "json"}} {
		out := s.tapwall(append([]string{"observe", "--verdict", "DENIED", "--last", "20"}, args...)...)
		if strings.Contains(out, "times until") || strings.Count(out, "\n") != 21 { // with that of the coverage
			t.Errorf("%v: a program gets\n%s", args, out)
		}
	}
}
