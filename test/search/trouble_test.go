package search

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/test/lab"
)

// guarded lets vm1 reach port 80 of vm2, and says so of each connection.
const guarded = "kind: Policy\nname: web\nspec: {appliesTo: [{port: vm2}], ingress: [{name: web, action: allow, log: true, " +
	"services: [{protocol: tcp, ports: [\"80\"]}, {protocol: udp, ports: [\"80\"]}]}], defaultDeny: {log: true}}\n"

// shut is guarded without its rule.
const shut = "kind: Policy\nname: web\nspec: {appliesTo: [{port: vm2}], defaultDeny: {ingress: true, log: true}}\n"

// echoes starts a stream of UDP through the rule and waits until it runs.
func (s *stage) echoes(every time.Duration) *lab.Probe {
	s.t.Helper()
	p, err := s.vm[1].EchoUDP(s.vm[2].IPv4, 80, every)
	must(s.t, err)
	s.t.Cleanup(p.Stop)
	lab.Eventually(s.t, 5*time.Second, "the stream runs", func() bool { return p.Received() > 20 })
	return p
}

// unharmed checks that all that was sent came back.
func (s *stage) unharmed(p *lab.Probe, what string) {
	s.t.Helper()
	p.Hush()
	sent := p.Sent()
	lab.Eventually(s.t, 5*time.Second, fmt.Sprintf("the last of %d packets come back while %s", sent, what), func() bool {
		return p.Received() >= sent
	})
	s.t.Logf("%d packets came back while %s", sent, what)
}

// denials makes connections that are denied.
func (s *stage) denials(port, n int) {
	s.t.Helper()
	var frames [][]byte
	for i := range n {
		f, err := s.vm[1].CraftTCP(s.vm[1].IPv4, s.vm[2], uint16(20_000+i), uint16(port), 2)
		must(s.t, err)
		frames = append(frames, f)
	}
	must(s.t, s.vm[1].Send(frames...))
}

// The other part of scenario 2: whatever way the server is away, packets are forwarded, policies change, and what is revoked is cut.
func TestEventsScenario02TrafficWhileServerDown(t *testing.T) {
	s := open(t, "live02", 2)
	must(t, s.Serve(s.vm[2], 80))
	must(t, s.tw.Apply(guarded))
	stream := s.echoes(time.Millisecond)
	faults := []lab.Fault{lab.Hang, lab.ApplyReset}
	if scaled(0, 1) != 0 {
		faults = append(faults, lab.Refuse, lab.Status503, lab.Garbage)
	}
	for i, f := range faults {
		must(t, s.proxy.All(f))
		s.denials(1000+i, 500)
		time.Sleep(scaled(time.Second, 20*time.Second))
		begin := time.Now()
		must(t, s.tw.Apply(shut+"---\nkind: Group\nname: "+fmt.Sprintf("g%d", i)+"\nspec: {members: [{port: vm1}]}\n"))
		took := time.Since(begin)
		time.Sleep(100 * time.Millisecond) // what was under way has come
		cut := time.Now()
		time.Sleep(200 * time.Millisecond)
		if n := stream.ReceivedSince(cut); n != 0 {
			t.Errorf("fault %d: %d packets of what was revoked came back", f, n)
		}
		t.Logf("fault %d: a change took %v", f, took)
		stream.Stop()
		must(t, s.tw.Apply(guarded))
		stream = s.echoes(time.Millisecond)
	}
	time.Sleep(time.Second)
	s.unharmed(stream, "the server breaks off")
	must(t, s.proxy.All(lab.NoFault))
	s.account(time.Minute)
}

// The other part of scenario 9: while the disk of the spool is full, policies change and packets are forwarded; what is not kept is
// counted, the health says why, and with room it goes on by itself.
func TestEventsScenario09DiskFull(t *testing.T) {
	disk := t.TempDir()
	must(t, unix.Mount("tmpfs", disk, "tmpfs", 0, "size=8m"))
	t.Cleanup(func() { must(t, unix.Unmount(disk, unix.MNT_DETACH)) })
	s := openWith(t, "live09", 2, fmt.Sprintf("spool: {dir: %s}\n", filepath.Join(disk, "spool")))
	must(t, s.Serve(s.vm[2], 80))
	must(t, s.tw.Apply(guarded))
	stream := s.echoes(time.Millisecond)
	s.account(20 * time.Second)
	filler := filepath.Join(disk, "filler")
	f, err := os.Create(filler)
	must(t, err)
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	must(t, f.Close())
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	lost := func() (n int64) {
		for stage, x := range s.counters().Lost {
			if strings.HasPrefix(stage, "spool_") && event.Stage(stage).BeforeAcceptance() {
				n += x
			}
		}
		return n
	}
	lab.Eventually(t, 20*time.Second, "what is not kept is counted", func() bool {
		s.denials(81, 100)
		return lost() > 100
	})
	lab.Eventually(t, 10*time.Second, "the health says why", func() bool {
		out, _ := s.tw.Run("status")
		return strings.Contains(out, "event spool: the disk of "+disk) && strings.Contains(out, "nothing is kept")
	})
	must(t, s.tw.Apply("kind: Group\nname: g\nspec: {members: [{port: vm1}]}\n"))
	s.unharmed(stream, "the disk is full")
	must(t, s.tw.Apply(shut))
	if s.vm[1].CanConnect(s.vm[2].IPv4, 80, 300*time.Millisecond) {
		t.Error("what was revoked while the disk was full passes")
	}
	must(t, os.Remove(filler))
	lab.Eventually(t, 20*time.Second, "events are kept again", func() bool {
		s.denials(82, 1)
		n, err := server.Count("live09-flow", `{"term":{"destination.port":82}}`)
		return err == nil && n > 0
	})
	s.account(time.Minute)
	lab.Eventually(t, 20*time.Second, "the health is good again", func() bool {
		out, err := s.tw.Run("status")
		return err == nil && strings.Contains(out, ": healthy")
	})
}

// counters are those of the status.
func (s *stage) counters() event.Counters {
	s.t.Helper()
	var st struct{ Events event.Counters }
	out, _ := s.tw.Run("status", "-o", "json") // it fails while something is wrong
	_ = json.Unmarshal([]byte(out), &st)
	return st.Events
}
