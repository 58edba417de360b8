package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// tshark reads a file and returns the wanted fields of the packets that match, a line each.
func tshark(t *testing.T, file, filter string, fields ...string) []string {
	t.Helper()
	args := []string{"-r", file, "-Y", filter, "-T", "fields"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	cmd := exec.Command("tshark", args...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark -r %s: %v\n%s", file, err, exitText(err))
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")[:strings.Count(string(out), "\n")]
}

func exitText(err error) string {
	if e, ok := err.(*exec.ExitError); ok {
		return string(e.Stderr)
	}
	return ""
}

// captured are the files that a target wrote, the oldest first.
func (s *stage) captured(name string) []string {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.tw.DataDir(), "captures", name+"_*.pcapng"))
	must(s.t, err)
	return files
}

// Scenario 12 of mirrors, the part of files: what tapwall writes is what went by, as another program reads it, with times in nanoseconds,
// where it was taken, which way it went, and for whom.
func TestMirrorScenario12PcapFile(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 4)
	s.ping3(s.vm[1], s.vm[2])
	s.force("kind: Mirror\nname: web\nspec: {sources: [{port: vm1}, {port: vm2}], targets: [{pcap: {file: web}}]}\n")
	s.becomes("mirror", "web", policy.PhaseActive, "", "")
	if m := s.mirror("web"); m.Target["file"] == "" {
		t.Errorf("the status does not name the file: %v", m.Target)
	}
	start := time.Now()
	const n = 200
	if out, err := s.vm[1].Run("ping", "-c", sprintf("%d", n), "-i", "0.002", "-q", s.vm[2].IPv4); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.ping3(s.vm[3], s.vm[1])
	s.ping3(s.vm[3], s.vm[4]) // of nobody
	settle()
	files := s.captured("web")
	if len(files) != 1 {
		t.Fatalf("files %v", files)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	lines := tshark(t, files[0], "icmp", "frame.interface_name", "frame.interface_description", "icmp.type", "frame.packet_flags_direction",
		"frame.comment", "frame.time_epoch", "ip.src")
	if len(lines) != 2*n+6 {
		t.Errorf("%d packets, want %d and 6", len(lines), 2*n)
	}
	kinds := map[string]int{}
	last := start
	for _, line := range lines {
		f := strings.Split(line, "\t")
		kinds[strings.Join(f[:5], " ")]++
		at := epoch(t, f[5])
		if at.Before(last) || at.After(time.Now()) || at.Nanosecond()%1000 == 0 && last.Nanosecond()%1000 == 0 {
			t.Errorf("a packet at %s behind one at %s", f[5], last)
		}
		last = at
	}
	// Between two sources it is the sender's; what comes from elsewhere is that of the one who gets it.
	want := map[string]int{
		"vm1 br0/web 8 0x00000002 mirror=web": n, "vm2 br0/web 0 0x00000002 mirror=web": n,
		"vm1 br0/web 8 0x00000001 mirror=web": 3, "vm1 br0/web 0 0x00000002 mirror=web": 3}
	for k, n := range want {
		if kinds[k] != n {
			t.Errorf("%d packets of %q, want %d; all: %v", kinds[k], k, n, kinds)
		}
	}

	// Ended, it says how many there were. A restart begins another file.
	s.tapwall("delete", "mirror", "web", "--wait")
	lab.Eventually(t, 8*time.Second, "the file ends with statistics of its interfaces", func() bool {
		out, err := exec.Command("capinfos", "-M", files[0]).CombinedOutput()
		return err == nil && strings.Count(string(out), "Number of stat entries = 1") == 3
	})
	if ports, err := s.Vsctl("list-br"); err != nil || strings.TrimSpace(ports) != "br0" {
		t.Errorf("it left %q, %v", ports, err)
	}
}

// epoch reads a time of tshark.
func epoch(t *testing.T, text string) time.Time {
	t.Helper()
	d, err := time.ParseDuration(text + "s")
	if err != nil || len(text) < len("1700000000.123456789") {
		t.Fatalf("time %q, want nanoseconds", text)
	}
	return time.Unix(0, int64(d))
}

// What goes wrong with files costs packets in the files, which are counted, and nothing else: a full disk, a device that is taken away, a
// process that is killed, a file that somebody removes, a mirror that would write what another one writes.
func TestCaptureFilesInTrouble(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	dir := filepath.Join(s.tw.DataDir(), "captures")
	must(t, os.MkdirAll(dir, 0o700))
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	s.OnClose(func() error { return unix.Unmount(dir, unix.MNT_DETACH) })
	doc := "kind: Mirror\nname: web\nspec: {sources: [{port: vm1}], targets: [{pcap: {file: web, rotate: 100kB, keep: 3}}, " +
		"{port: {name: ids0, create: true}}]}\n"
	s.force(doc)
	s.becomes("mirror", "web", policy.PhaseActive, "", "")
	out := s.refused("kind: Mirror\nname: other\nspec: {sources: [{port: vm2}], targets: [{pcap: {file: web.pcapng}}]}\n", "apply", "-f", "-")
	if !strings.Contains(out, `mirrors "other" and "web" would both write`) {
		t.Errorf("two mirrors with one file: %s", out)
	}
	sink, err := s.Capture(s.Switch, "ids0")
	must(t, err)
	ping := func(n int) {
		t.Helper()
		out, err := s.vm[1].Run("ping", "-c", sprintf("%d", n), "-i", "0.002", "-s", "1000", "-q", s.vm[2].IPv4)
		if err != nil || !strings.Contains(out, " 0% packet loss") {
			t.Errorf("production suffers: %v\n%s", err, out)
		}
	}
	written := func() (n int) {
		for _, f := range s.captured("web") {
			n += len(tshark(t, f, "icmp", "frame.number"))
		}
		return n
	}

	// They are bounded, in size and number.
	ping(200) // 430 kB
	lab.Eventually(t, 8*time.Second, "the last packets are written", func() bool {
		files := s.captured("web")
		for _, f := range files {
			if info, err := os.Stat(f); err == nil && info.Size() > 100_000 {
				t.Errorf("%s has %d bytes", f, info.Size())
			}
		}
		if len(files) != 3 {
			return false
		}
		last := tshark(t, files[2], "icmp.type == 0", "icmp.seq")
		return len(last) > 0 && last[len(last)-1] == "200"
	})

	// The disk is full.
	filler := filepath.Join(dir, "filler")
	_, _ = exec.Command("dd", "if=/dev/zero", "of="+filler, "bs=4k").CombinedOutput()
	ping(100)
	s.becomes("mirror", "web", policy.PhaseDegraded, policy.ReasonCaptureFailed, "no space left")
	for _, f := range s.captured("web") {
		tshark(t, f, "icmp", "frame.number") // can be read
	}
	must(t, os.Remove(filler))
	time.Sleep(1100 * time.Millisecond) // it is tried again
	ping(10)
	s.becomes("mirror", "web", policy.PhaseActive, "", "")
	var drops int
	for _, f := range s.captured("web") {
		for _, line := range tshark(t, f, "frame", "frame.drop_count") {
			if n, err := strconv.Atoi(line); err == nil {
				drops += n
			}
		}
	}
	if lost := s.status("mirror", "web").Hosts[0].Targets[0]["lost"]; lost != sprintf("%d", drops) || drops == 0 {
		t.Errorf("%d packets are told of as dropped, and %s were lost", drops, lost)
	}
	if n := len(sink.Frames(lab.ICMP)); n != 2*310 {
		t.Errorf("the other target got %d frames, want %d", n, 2*310)
	}

	// The device is taken away and made again, by tapwall.
	port := s.status("mirror", "web").Hosts[0].Targets[0]["port"]
	_, err = s.Switch.Run("ip", "link", "del", port)
	if err != nil { // Open vSwitch's own devices cannot always be
		_, err = s.Vsctl("del-port", port)
	}
	must(t, err)
	lab.Eventually(t, 20*time.Second, "packets are captured again", func() bool {
		before := written()
		_, _ = s.vm[1].Run("ping", "-c", "5", "-i", "0.002", "-q", s.vm[2].IPv4) // the userspace datapath drops some while its ports change
		settle()
		return written() > before
	})

	lab.Eventually(t, 10*time.Second, "the userspace datapath is done with its ports", func() bool {
		out, err := s.vm[1].Run("ping", "-c", "20", "-i", "0.002", "-q", s.vm[2].IPv4)
		return err == nil && strings.Contains(out, " 0% packet loss")
	})

	// Killed, it leaves files that can be read, and goes on in another one.
	ping(20)
	time.Sleep(200 * time.Millisecond)
	s.tw.Kill()
	files := s.captured("web")
	last := files[len(files)-1]
	if n := len(tshark(t, last, "icmp", "frame.number")); n == 0 {
		t.Error("nothing is left in the file")
	}
	must(t, s.tw.Start())
	s.becomes("mirror", "web", policy.PhaseActive, "", "")
	ping(20)
	lab.Eventually(t, 8*time.Second, "another file has what comes", func() bool {
		files := s.captured("web")
		return files[len(files)-1] != last && len(files) <= 3 && len(tshark(t, files[len(files)-1], "icmp", "frame.number")) >= 40
	})

	// A file that somebody removes is begun anew.
	for _, f := range s.captured("web") {
		must(t, os.Remove(f))
	}
	time.Sleep(1200 * time.Millisecond)
	ping(20)
	lab.Eventually(t, 8*time.Second, "there is a file again", func() bool { return written() == 40 })
}
