package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	s.apply("kind: Mirror\nname: web\nspec: {sources: [{port: vm1}, {port: vm2}], targets: [{pcap: {file: web}}]}\n")
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
	lab.Eventually(t, 3*time.Second, "the file ends with statistics of its interfaces", func() bool {
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
