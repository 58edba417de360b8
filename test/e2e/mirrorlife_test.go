package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

const lifeTap = `
kind: Mirror
name: tap
spec:
  sources: [{vm: uuid-vm1}]
  %s
  targets: [{port: {name: ids0, create: true}}]
`

// noTap checks that nothing of a mirror is on the switch.
func (s *stage) noTap() {
	s.t.Helper()
	rows, err := s.Vsctl("--columns=name", "--format=csv", "--no-headings", "find", "mirror", "external_ids:tapwall-owner!=\"\"")
	must(s.t, err)
	ports, err := s.Vsctl("--columns=name", "list", "port")
	must(s.t, err)
	bridges, err := s.Vsctl("list-br")
	must(s.t, err)
	if strings.TrimSpace(rows) != "" || strings.Contains(ports, "ids0") || strings.Contains(ports, "tws-") || strings.Contains(bridges,
		"tw-tap") {
		s.t.Errorf("of the mirror are left rows %q, bridges %q, ports\n%s", rows, bridges, ports)
	}
}

// A mirror ends when its time is over, and is kept. Neither a restart, of a process that died and was away at the end, nor the same
// document begins it again; mirror start does, and so does a change of it.
func TestMirrorLifeDuration(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	begun := time.Now()
	doc := sprintf(lifeTap, "stopAfter: {duration: 3s}")
	s.apply(doc)
	lab.Eventually(t, time.Second, "when it began and will end is told", func() bool {
		life := s.status("mirror", "tap").Life
		return life != nil && life.BeganAt != nil && life.EndsAt != nil && life.EndsAt.Sub(*life.BeganAt) == 3*time.Second
	})
	spec := s.tapwall("get", "mirror", "tap", "-o", "jsonpath={.items[*].spec}{.items[*].revision}")
	capture, err := s.Capture(s.Switch, "ids0")
	must(t, err)
	s.ping3(s.vm[1], s.vm[2])
	settle()
	if n := len(capture.Frames(lab.ICMP)); n != 6 {
		t.Errorf("%d copies while it runs, want 6", n)
	}
	s.becomes("mirror", "tap", policy.PhaseStopped, policy.ReasonCompleted, "it was to copy for 3s")
	if took := time.Since(begun); took > 6*time.Second+lab.Late(begun) {
		t.Errorf("3 s took %v", took)
	}
	s.noTap()
	if now := s.tapwall("get", "mirror", "tap", "-o", "jsonpath={.items[*].spec}{.items[*].revision}"); now != spec {
		t.Errorf("the document is\n%s and was\n%s", now, spec)
	}
	s.apply(doc)
	must(t, s.tw.Stop())
	must(t, s.tw.Start())
	s.becomes("mirror", "tap", policy.PhaseStopped, policy.ReasonCompleted, "tapwall mirror start tap")
	s.noTap()

	// By hand, and its end comes while tapwall is dead.
	if out := s.tapwall("mirror", "start", "tap", "--wait"); !strings.Contains(out, "Active") {
		t.Errorf("start answers %q", out)
	}
	s.tells("mirror-started", "mirror tap is started by root (uid 0)")
	capture, err = s.Capture(s.Switch, "ids0")
	must(t, err)
	s.ping3(s.vm[1], s.vm[2])
	settle()
	if n := len(capture.Frames(lab.ICMP)); n != 6 {
		t.Errorf("%d copies after it was started by hand, want 6", n)
	}
	s.tw.Kill()
	time.Sleep(3 * time.Second)
	must(t, s.tw.Start())
	s.becomes("mirror", "tap", policy.PhaseStopped, policy.ReasonCompleted, "")
	lab.Eventually(t, 5*time.Second, "what the dead process left is removed", func() bool {
		out, err := s.Vsctl("--columns=name", "list", "mirror")
		return err == nil && strings.TrimSpace(out) == ""
	})
	s.noTap()

	s.apply(sprintf(lifeTap, "stopAfter: {duration: 2d}"))
	s.becomes("mirror", "tap", policy.PhaseActive, "", "")
	s.tells("mirror-began", "has begun to copy")
	s.tells("mirror-ended", "it was to copy for 3s")
}

// tells waits until an event of an action is recorded, which comes when what it is about is stored.
func (s *stage) tells(action, what string) {
	s.t.Helper()
	lab.Eventually(s.t, 3*time.Second, action+" is recorded: "+what, func() bool {
		return strings.Contains(s.tapwall("observe", "--action", action, "--last", "10"), what)
	})
}

// A mirror waits for its time, and begins at once when it is started by hand. When its time to live is over it is deleted.
func TestMirrorLifeStartAndTTL(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	start := time.Now().Add(3 * time.Second)
	s.apply(sprintf(lifeTap, "startAt: "+at(start)+"\n  stopAfter: {duration: 1h}"))
	s.becomes("mirror", "tap", policy.PhasePending, policy.ReasonScheduled, "it begins at")
	s.noTap()
	time.Sleep(time.Until(start))
	lab.Eventually(t, time.Second, "it begins when it should", func() bool { return s.mirror("tap").Phase == string(policy.PhaseActive) })

	s.apply(sprintf(lifeTap, "startAt: "+at(start.Add(time.Hour))+"\n  ttl: 6s"))
	s.becomes("mirror", "tap", policy.PhasePending, policy.ReasonScheduled, "")
	s.noTap()
	s.tapwall("mirror", "start", "tap", "--wait")
	if st := s.status("mirror", "tap"); st.Phase != policy.PhaseActive || st.Life == nil || st.Life.DeletedAt == nil {
		t.Errorf("started by hand it is %s %s, %+v", st.Phase, st.Reason, st.Life)
	}
	if out := s.tapwall("observe", "--action", "mirror-started", "--last", "10"); !strings.Contains(out,
		"mirror tap is started by root (uid 0)") {
		t.Errorf("who started it is not recorded:\n%s", out)
	}
	s.tw.Kill()
	must(t, s.tw.Start())
	lab.Eventually(t, 10*time.Second, "it is deleted", func() bool {
		out, err := s.tw.Run("get", "mirrors", "-o", "name")
		return err == nil && strings.TrimSpace(out) == ""
	})
	lab.Eventually(t, 2*time.Second, "and gone from the switch", func() bool {
		out, err := s.Vsctl("--columns=name", "list", "mirror")
		return err == nil && strings.TrimSpace(out) == ""
	})
	s.noTap()
	s.tells("mirror-expired", "its ttl of 6s is over")
}

// A mirror ends after so many packets, counted also over a restart; it may be what comes within a second more.
func TestMirrorLifePackets(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	s.apply(sprintf(lifeTap, "filter: {rules: [{action: accept, protocol: icmp}]}\n  stopAfter: {packets: 100}"))
	ping := func(n int) {
		t.Helper()
		if out, err := s.vm[1].Run("ping", "-q", "-c", sprintf("%d", n), "-i", "0.01", "-W", "2", s.vm[2].IPv4); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	ping(20)
	lab.Eventually(t, 5*time.Second, "what it took is told", func() bool {
		l := s.status("mirror", "tap").Life
		return l != nil && l.Packets == 40 && l.LeftPackets == 60
	})
	s.tw.Kill()
	ping(5)
	must(t, s.tw.Start())
	lab.Eventually(t, 10*time.Second, "what it took is told after a restart", func() bool {
		l := s.status("mirror", "tap").Life
		return l != nil && l.Packets == 50 && l.LeftPackets == 50
	})
	ping(30)
	s.becomes("mirror", "tap", policy.PhaseStopped, policy.ReasonCompleted, "it was to copy 100 packets, and took 1") // 100 to 110
	s.noTap()
	s.tapwall("mirror", "start", "tap", "--wait")
	ping(20)
	lab.Eventually(t, 5*time.Second, "it counts anew", func() bool {
		l := s.status("mirror", "tap").Life
		return l != nil && l.Packets == 40
	})
}
