package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// Somebody puts flows of theirs into tapwall's tables, or takes its place in table 0, so that denied traffic passes. They go again at
// once, which is told; what is allowed does not notice.
func TestFault_F08_ForeignFlowsGo(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001"))
	live := s.datagrams(s.vm[1], s.vm[2], 5001, 10*time.Millisecond)
	s.running(live)
	denied := s.inbox(s.vm[2], 6002) // it does not answer: an answer would be a connection of vm2's own
	s.datagrams(s.vm[1], s.vm[2], 6002, time.Millisecond)
	before := s.table()
	ours := func() bool { return s.table() == before }
	opened := 0
	for _, hole := range [][]string{
		{"add-flow", "cookie=0xbad,table=203,priority=65535,actions=NORMAL"},
		{"add-flow", "cookie=0xbad,table=206,priority=65535,actions=load:1->NXM_NX_REG13[6..7],load:0x40000000->NXM_NX_REG12[]"},
		{"add-flow", "cookie=0xbad,table=0,priority=1,actions=NORMAL"},
		{"add-flow", "priority=1,actions=NORMAL"},
		{"mod-flows", "priority=1,actions=NORMAL", "--strict"},
	} {
		what := strings.Join(hole, " ")
		ofctl := func() {
			_, err := s.Ofctl(hole[0], "br0", hole[1:]...)
			must(t, err)
		}
		// The control: with nobody there to put it right, it is a hole.
		must(t, syscall.Kill(s.tw.Pid(), syscall.SIGSTOP))
		n := denied.count("")
		ofctl()
		lab.Eventually(t, 5*time.Second, what+": denied traffic passes while tapwall is stopped", func() bool { return denied.count("") > n })
		must(t, syscall.Kill(s.tw.Pid(), syscall.SIGCONT))
		lab.Eventually(t, 5*time.Second, what+": put right when it goes on", ours)
		opened++

		ofctl()
		s.silent(denied, time.Second, what)
		lab.Eventually(t, 5*time.Second, what+": put right", ours) // with the pickup window that a lost entry opens
	}
	s.lossless(live, "allowed datagrams meanwhile")

	// It is told: in the record, in the status and as a figure.
	if out := s.tapwall("observe", "--action", "foreign-flows-removed", "--all"); !strings.Contains(out, "table=203") {
		t.Errorf("the record does not tell of the first foreign flow:\n%s", out)
	}
	if out := s.tapwall("observe", "--action", "flows-restored", "--all"); !strings.Contains(out, "actions=NORMAL") {
		t.Errorf("the record does not tell of the changed entry:\n%s", out)
	}
	if out, err := s.tw.Run("status"); err == nil || !strings.Contains(out, "foreign flow") {
		t.Errorf("the status does not tell of foreign flows (%v):\n%s", err, out)
	}
	if n := s.metric(`tapwall_foreign_flows_removed_total{bridge="br0"}`); n != float64(2*(opened-1)) {
		t.Errorf("%g foreign flows counted, want %d", n, 2*(opened-1))
	}
	s.unchangedByRestart()
}

// silent fails when the inbox gets anything later than grace from now, watching a little longer.
func (s *stage) silent(in *inbox, grace time.Duration, what string) {
	s.t.Helper()
	from := in.count("")
	time.Sleep(grace)
	at := in.count("")
	time.Sleep(300 * time.Millisecond)
	if n := in.count("") - at; n > 0 {
		s.t.Errorf("%s: %d datagrams came later than %v", what, n, grace)
	}
	s.t.Logf("%s: %d datagrams came within %v", what, at-from, grace)
}

// A foreign flow in table 0 before ours is not tapwall's to remove, but as long as it is there nothing says that the wall stands.
func TestFault_F08_BypassInTable0(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.applyUncached(allowPorts("p", "vm2", "vm1", "5001"))
	denied := s.inbox(s.vm[2], 6002)
	s.datagrams(s.vm[1], s.vm[2], 6002, time.Millisecond)
	_, err := s.Ofctl("add-flow", "br0", "cookie=0xbad,table=0,priority=0,actions=NORMAL") // behind ours: met by nothing
	must(t, err)
	s.tapwall("status", "--ready")
	bypass := "cookie=0xbad,table=0,priority=9,udp,actions=NORMAL"
	_, err = s.Ofctl("add-flow", "br0", bypass)
	must(t, err)
	lab.Eventually(t, 3*time.Second, "not ready, and why", func() bool {
		out, err := s.tw.Run("status", "--ready")
		return err != nil && strings.Contains(out, "priority=9,udp actions=NORMAL")
	})
	if out, err := s.tw.Run("status"); err == nil || !strings.Contains(out, "priority=9,udp actions=NORMAL") {
		t.Errorf("the status does not name the flow (%v):\n%s", err, out)
	}
	if out := s.tapwall("get", "policies"); !strings.Contains(out, "Degraded") {
		t.Errorf("the policy is said to be in force:\n%s", out)
	}
	if n := s.metric(`tapwall_bypassed{bridge="br0"}`); n != 1 {
		t.Errorf("bypassed is %g", n)
	}
	if denied.count("") == 0 { // the control: it is a hole
		t.Error("denied traffic does not pass the foreign flow")
	}
	// Nothing else waits for it.
	out, err := s.tw.RunInput(strings.ReplaceAll(allowPorts("p", "vm2", "vm1", "5001"), "5001", "5003"), "apply", "--wait", "-f", "-")
	if err == nil || !strings.Contains(out, "policy/p is Degraded: Bypassed") {
		t.Errorf("a change beside the hole: %v\n%s", err, out)
	}
	_, err = s.Ofctl("del-flows", "br0", "cookie=0xbad/-1")
	must(t, err)
	s.silent(denied, time.Second, "denied datagrams")
	lab.Eventually(t, 3*time.Second, "ready again", func() bool { _, err := s.tw.Run("status", "--ready"); return err == nil })
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5003)
}
