package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// applyWarned applies documents that may be warned about, and waits for the caches.
func (s *stage) applyWarned(docs string) {
	s.t.Helper()
	if out, err := s.tw.RunInput(docs, "apply", "--wait=installed", "-f", "-"); err != nil && !strings.Contains(out, "Degraded") {
		s.t.Fatalf("%v: %s", err, out)
	}
	_, err := s.Appctl("revalidator/wait")
	must(s.t, err)
	time.Sleep(150 * time.Millisecond)
}

// In the pickup window a machine that may open anything is made to answer a forged segment by a reset. The reset opens nothing.
func TestAttackPickupByReset(t *testing.T) {
	t.Parallel()
	s := ground(t, 3)
	s.wall("--pickup-window", "3s")
	s.applyUncached(isolatedVM2 + "  egress:\n  - {name: any, action: allow}\n")
	b, c := s.vm[2], s.vm[3]
	const ghost = "10.77.0.200" // an address of nobody's, which the attacker answers for
	_, err := b.Run("ip", "neigh", "replace", ghost, "lladdr", c.MAC, "dev", "eth0", "nud", "permanent")
	must(t, err)
	s.restartSwitch()
	lab.Eventually(t, 5*time.Second, "the window is open", func() bool { return len(s.flows("table=213")) > 0 })
	// What B's kernel answers, a reset without ACK, bears the number that the segment acknowledged.
	for i := range 16 {
		s.segment(c, b.MAC, ghost, b.IPv4, 9000+i, 5001, 1000, uint32(i)<<28, 65535, "A", "")
	}
	lab.Eventually(t, 10*time.Second, "the pickup window closes", func() bool { return len(s.flows("table=213")) == 0 })
	entries := s.conntrack("orig=(src=" + b.IPv4 + ",dst=" + ghost)
	if len(entries) > 0 {
		t.Log(entries[0].text)
	}
	if n := len(entries); n > 0 {
		t.Errorf("%d connections stand as if the isolated machine had opened them", n)
	}
	capture, err := s.Capture(b.NS, "eth0")
	must(t, err)
	back, err := s.Capture(c.NS, "eth0")
	must(t, err)
	for i := range 16 { // an acknowledgment to nobody makes conntrack take a quarter of all numbers from B
		s.segment(c, "02:77:00:00:00:fe", ghost, b.IPv4, 9000+i, 5001, 1000, uint32(i)<<28, 65535, "A", "")
		s.segment(c, b.MAC, ghost, b.IPv4, 9000+i, 5001, 1001, 0, 65535, "S", "")
	}
	s.segment(c, b.MAC, ghost, b.IPv4, 8999, 5001, 1001, 0, 65535, "S", "")
	time.Sleep(passage)
	if n := len(capture.Frames(lab.TCPTo(5001))); n > 0 {
		t.Errorf("%d segments reach a machine isolated for ingress, after the window", n)
	}
	s.explain("dst="+ghost, "dport=900")
	answers := back.Frames(func(f lab.Frame) bool { return lab.TCPFrom(5001)(f) && f.Data[47]&0x12 == 0x12 })
	for _, f := range answers {
		port, isn := int(binary.BigEndian.Uint16(f.Data[36:])), binary.BigEndian.Uint32(f.Data[38:])
		s.segment(c, b.MAC, ghost, b.IPv4, port, 5001, 1002, isn+1, 65535, "A", "")
		s.segment(c, b.MAC, ghost, b.IPv4, port, 5001, 1002, isn+1, 65535, "AP", "Ehello from outside")
	}
	time.Sleep(passage)
	if n := len(back.Frames(func(f lab.Frame) bool { return bytes.Contains(f.Data, []byte("hello from outside")) })); n > 0 {
		t.Errorf("a server of a machine isolated for ingress echoes: %d SYN/ACK, %d echoes", len(answers), n)
	}
	s.mustConnect(b, s.vm[1].IPv4, 5001)
	s.mustNotConnect(s.vm[1], b.IPv4, 5001)
}

// Whatever the file of remembered connections holds, the wall comes up after a restart.
func TestAttackMemoryFileOutage(t *testing.T) {
	t.Parallel()
	s := open(t, 3, "--pickup-window", "10s")
	s.apply(isolatedVM2)
	s.pickupClosed()
	file := filepath.Join(s.tw.DataDir(), "connections", "br0.json")
	s.remembered(time.Now())
	good, err := os.ReadFile(file)
	must(t, err)
	t.Logf("%.300s", good)
	conn := func(src, dst string) map[string]any {
		return map[string]any{"Zone": 57344, "ReplyZone": 57344, "Src": src, "Dst": dst, "Initiator": 4294967295, "Responder": 0}
	}
	doc := func(cs ...any) []byte {
		b, err := json.Marshal(map[string]any{"at": time.Now(), "connections": cs})
		must(t, err)
		return b
	}
	var many []any
	for i := range 40000 {
		many = append(many, conn(sprintf("10.1.%d.%d:%d", i/250, i%250, 1000+i%60000), "10.77.0.2:80"))
	}
	for name, content := range map[string][]byte{
		"zeros": doc(map[string]any{}), "empty": nil, "full": doc(many[:16384]...),
	} {
		must(t, s.tw.Stop())
		must(t, os.WriteFile(file, content, 0o600))
		s.KillVswitchd()
		must(t, s.StartVswitchd())
		at := time.Now()
		if err := s.tw.Start(); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		up := time.Since(at)
		h := s.health()
		if name != "" && len(s.flows("table=213")) == 0 {
			t.Errorf("%s: nothing was installed before the window was over", name)
		}
		t.Logf("%s: up after %v, %d of %d flows, window %d flows", name, up.Round(time.Millisecond), h.InstalledFlows, h.DesiredFlows,
			len(s.flows("table=213")))
		if s.vm[1].CanConnect(s.vm[2].IPv4, 5001, 200*time.Millisecond) {
			t.Errorf("%s: the wall is down", name)
		}
		if !s.vm[2].CanConnect(s.vm[1].IPv4, 5001, 3*time.Second) {
			t.Errorf("%s: the isolated machine cannot connect", name)
		}
	}
}

// A file older than the connections that it tells of says nothing of those of now.
func TestAttackMemoryStale(t *testing.T) {
	t.Parallel()
	s := open(t, 3, "--pickup-window", "4s")
	s.apply(isolatedVM2)
	s.pickupClosed()
	echo := s.echo(s.vm[2], s.vm[1], 5001)
	s.running(echo)
	s.remembered(time.Now(), s.vm[1].IPv4)
	must(t, s.tw.Stop())
	file := filepath.Join(s.tw.DataDir(), "connections", "br0.json")
	text, err := os.ReadFile(file)
	must(t, err)
	var doc map[string]any
	must(t, json.Unmarshal(text, &doc))
	doc["at"] = time.Now().Add(-72 * time.Hour)
	text, err = json.Marshal(doc)
	must(t, err)
	must(t, os.WriteFile(file, text, 0o600))
	s.KillVswitchd()
	must(t, s.StartVswitchd())
	must(t, s.tw.Start())
	if n := len(s.flows("table=213")); n > 1 {
		t.Errorf("%d flows from a memory that is 3 days old", n-1)
	}
}

// The file is a link to another: neither is that one written to, nor anything else lost.
func TestAttackMemoryLink(t *testing.T) {
	t.Parallel()
	s := open(t, 2, "--pickup-window", "1s")
	s.apply(isolatedVM2)
	s.pickupClosed()
	dir := filepath.Join(s.tw.DataDir(), "connections")
	victim := filepath.Join(s.Dir, "victim")
	must(t, os.WriteFile(victim, []byte("precious"), 0o600))
	s.remembered(time.Now())
	must(t, os.Remove(filepath.Join(dir, "br0.json")))
	must(t, os.Symlink(victim, filepath.Join(dir, "br0.json")))
	must(t, os.Symlink(victim, filepath.Join(dir, "br0.json.new")))
	time.Sleep(7 * time.Second)
	if b, _ := os.ReadFile(victim); string(b) != "precious" {
		t.Errorf("the file that the link led to was overwritten: %.60q", b)
	}
	s.remembered(time.Now())
}
