package e2e

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// piped starts tapwall with a pipe as standard output, whose other end is for who reads it.
func (s *stage) piped(args ...string) (*exec.Cmd, *os.File) {
	s.t.Helper()
	r, w, err := os.Pipe()
	must(s.t, err)
	cmd := s.command(args...)
	cmd.Stdout = w
	must(s.t, cmd.Start())
	s.t.Cleanup(func() {
		_ = r.Close()
		_ = cmd.Process.Kill()
	})
	must(s.t, w.Close())
	return cmd, r
}

// command is tapwall, to be started; what it says on standard error is kept.
func (s *stage) command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.tw.Bin, args...)
	cmd.Env = append(os.Environ(), "TAPWALL_SERVER=unix:"+s.Socket())
	cmd.Stderr = new(saying)
	return cmd
}

// exits waits for the end of a command, which must be a good one, and returns what it said.
func (s *stage) exits(cmd *exec.Cmd, within time.Duration) string {
	s.t.Helper()
	timer := time.AfterFunc(within, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	said := cmd.Stderr.(*saying).String()
	if err != nil {
		s.t.Errorf("%q ended with %v: %s", cmd.Args, err, said)
	}
	return said
}

// await reads lines until one holds text.
func (s *stage) await(r *bufio.Reader, text string) (line string) {
	s.t.Helper()
	found := make(chan error, 1)
	var seen []string
	go func() {
		for {
			got, err := r.ReadString('\n')
			line = got
			seen = append(seen, got)
			if err != nil || strings.Contains(got, text) {
				found <- err
				return
			}
		}
	}()
	select {
	case err := <-found:
		if err != nil {
			s.t.Fatalf("no %q in %q: %v", text, seen, err)
		}
	case <-time.After(10 * time.Second):
		s.t.Fatalf("no %q within 10 s", text)
	}
	return line
}

// Scenario 12 of mirrors, as people see it: tshark reads the pipe that tapwall capture writes, with the names of interfaces, and has a
// packet within a second. Interrupted, capture leaves a file that can be read, and says how many packets are in it.
func TestMirrorScenario12LiveInTshark(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	s.ping3(s.vm[1], s.vm[2])
	s.force("kind: Mirror\nname: web\nspec: {sources: [{port: vm1}], targets: [{port: {name: ids0, create: true}}]}\n")
	s.becomes("mirror", "web", policy.PhaseActive, "", "")
	from, r := s.piped("capture", "web", "-w", "-")
	reader := exec.Command("tshark", "-l", "-n", "-i", "-", "-c", "6", "-Y", "icmp", "-T", "fields",
		"-e", "frame.interface_name", "-e", "ip.src")
	reader.Stdin = r
	out, err := reader.StdoutPipe()
	must(t, err)
	errs, err := reader.StderrPipe()
	must(t, err)
	must(t, reader.Start())
	t.Cleanup(func() { _ = reader.Process.Kill() })
	must(t, r.Close())
	s.await(bufio.NewReader(errs), "Capturing on")
	time.Sleep(time.Second) // its dissectors are being loaded
	start := time.Now()
	s.ping3(s.vm[1], s.vm[2])
	lines := bufio.NewReader(out)
	first := s.await(lines, "vm1\t"+s.vm[1].IPv4)
	if took := time.Since(start); took > time.Second+lab.Late(start) {
		t.Errorf("the first packet took %v", took)
	}
	t.Logf("first packet %q after %v", first, time.Since(start))
	s.await(lines, "vm1\t"+s.vm[2].IPv4)
	must(t, reader.Wait())
	if said := s.exits(from, 3*time.Second); !strings.Contains(said, "written, 0 dropped") {
		t.Errorf("it says %s", said)
	}

	// Nobody reads, and no packet comes: it ends all the same.
	quiet, end := s.piped("capture", "web")
	must(t, end.Close())
	s.exits(quiet, 3*time.Second)

	file := filepath.Join(t.TempDir(), "web.pcapng")
	cmd := s.command("capture", "web", "-w", file)
	must(t, cmd.Start())
	lab.Eventually(t, 8*time.Second, "it writes", func() bool {
		info, err := os.Stat(file)
		return err == nil && info.Size() > 0
	})
	s.ping3(s.vm[1], s.vm[2])
	settle()
	must(t, cmd.Process.Signal(os.Interrupt))
	if said := s.exits(cmd, 3*time.Second); !regexp.MustCompile(`^\d+ packets in .*web.pcapng written, 0 dropped\n$`).MatchString(said) {
		t.Errorf("it says %q", said)
	}
	if n := len(tshark(t, file, "icmp", "ip.src")); n != 6 {
		t.Errorf("%d packets in the file, want 6", n)
	}
	info, err := os.Stat(file)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the mode of the file is %v", info.Mode())
	}
	if out := s.refused("", "capture", "web", "-w", file); !strings.Contains(out, "is there already") {
		t.Errorf("%s", out)
	}
}

// Wireshark's own way: a tshark that finds tapwall in its folder of extcap programs lists mirrors as interfaces and reads packets of one.
func TestExtcap(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	s.ping3(s.vm[1], s.vm[2])
	s.force("kind: Mirror\nname: web\nspec: {sources: [{port: vm1}], targets: [{port: {name: ids0, create: true}}]}\n")
	s.becomes("mirror", "web", policy.PhaseActive, "", "")
	dir := t.TempDir()
	bin, err := filepath.Abs(s.tw.Bin)
	must(t, err)
	must(t, os.Symlink(bin, filepath.Join(dir, "tapwall-extcap")))
	folders, err := exec.Command("tshark", "-G", "folders").Output()
	must(t, err)
	folder := regexp.MustCompile(`(?m)^Extcap path:\s+(.*)$`).FindSubmatch(folders)
	if folder == nil {
		t.Fatalf("tshark has no folder of extcap programs:\n%s", folders)
	}
	tshark := func(args ...string) *exec.Cmd {
		// As root it heeds no WIRESHARK_EXTCAP_DIR, so the folder is another one for it.
		cmd := exec.Command("unshare", slices.Concat([]string{"-m", "sh", "-c", `mount --bind "$0" "$1" && shift && exec tshark "$@"`, dir,
			string(folder[1])}, args)...)
		cmd.Env = append(os.Environ(), "TAPWALL_SERVER=unix:"+s.Socket(), "HOME="+dir)
		return cmd
	}
	list, err := tshark("-D").CombinedOutput()
	if err != nil || !regexp.MustCompile(`tapwall-web \(tapwall: mirror web\)`).Match(list) {
		t.Fatalf("%v\n%s", err, list)
	}
	if out, err := tshark("-i", "tapwall-web", "-L").CombinedOutput(); err != nil || !strings.Contains(string(out), "EN10MB") {
		t.Errorf("its link types: %v\n%s", err, out)
	}
	for _, args := range [][]string{{"-i", "tapwall-web"}, {"-i", "tapwall", "-o", "extcap.tapwall.mirror:web"}} {
		cmd := tshark(append(args, "-l", "-n", "-c", "3", "-T", "fields", "-e", "frame.interface_name", "-e", "icmp.type", "-e", "ip.src")...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		must(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		for start, ended := time.Now(), false; !ended; {
			s.ping3(s.vm[1], s.vm[2])
			select {
			case err := <-done:
				if ended = true; err != nil {
					t.Errorf("%q: %v\n%s", args, err, errs.String())
				}
			case <-time.After(200 * time.Millisecond):
				if time.Since(start) > 20*time.Second {
					t.Fatalf("%q: no packets\n%s%s", args, out.String(), errs.String())
				}
			}
		}
		// One of them may be ARP.
		if n := strings.Count(out.String(), s.vm[1].IPv4) + strings.Count(out.String(), s.vm[2].IPv4); n < 1 ||
			strings.Count(out.String(), "\n") != 3 {
			t.Errorf("%q: packets of the mirror: %d of 3\n%s%s", args, n, out.String(), errs.String())
		}
		t.Logf("%q:\n%s", args, out.String())
	}
	lab.Eventually(t, 8*time.Second, "nobody follows the mirror any more", func() bool {
		out, err := exec.Command("pgrep", "-f", s.Socket()+".*--fifo").Output()
		return err != nil && len(out) == 0
	})
}

// A tap that is written here: it holds what it says and nothing else, and whatever ends it leaves no row, port, bridge, flow or document.
func TestTapToStdout(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	s.ping3(s.vm[1], s.vm[2])
	left := func() string {
		t.Helper()
		out, err := s.Vsctl("--columns=name", "list", "port")
		must(t, err)
		mirrors, err := s.Vsctl("--columns=name", "list", "mirror")
		must(t, err)
		return sortedWords(out + mirrors + s.tapwall("get", "mirrors", "-o", "name"))
	}
	before, flows := left(), s.table()
	clean := func(how string, within time.Duration) {
		t.Helper()
		lab.Eventually(t, within, how+": nothing is left", func() bool { return left() == before && s.table() == flows })
	}
	made := func(cmd *exec.Cmd) {
		t.Helper()
		lab.Eventually(t, 10*time.Second, "somebody follows", func() bool {
			return strings.Contains(cmd.Stderr.(*saying).String(), "mirror/t made")
		})
	}
	start := func(args ...string) (*exec.Cmd, *os.File) {
		t.Helper()
		return s.piped(append([]string{"tap", "vm1", "--proto", "icmp", "--name", "t"}, args...)...)
	}

	file := filepath.Join(t.TempDir(), "local.pcapng")
	cmd := s.command("tap", "vm1", "--proto", "icmp", "--name", "t", "-w", file, "--for", "3s")
	must(t, cmd.Start())
	made(cmd)
	s.ping3(s.vm[1], s.vm[2])
	s.ping3(s.vm[2], s.vm[3])
	s.mustConnect(s.vm[3], s.vm[1].IPv4, 5001)
	if said := s.exits(cmd, 10*time.Second); !strings.Contains(said, "6 packets in "+file+" written, 0 dropped") {
		t.Errorf("it says %s", said)
	}
	if n := len(tshark(t, file, "icmp", "ip.src")); n != 6 || len(tshark(t, file, "frame", "ip.src")) != n {
		t.Errorf("%d packets of ICMP, want 6 and no others", n)
	}
	clean("its time is over", 3*time.Second)

	cmd, r := start("-w", "-", "--packets", "4")
	made(cmd)
	s.ping3(s.vm[1], s.vm[2])
	packets, err := io.ReadAll(r)
	must(t, err)
	s.exits(cmd, 3*time.Second)
	must(t, os.WriteFile(file, packets, 0o600))
	if n := len(tshark(t, file, "icmp", "ip.src")); n != 4 {
		t.Errorf("%d packets, want 4", n)
	}
	clean("it had so many packets", 3*time.Second)

	cmd, r = start("-w", "-")
	made(cmd)
	must(t, r.Close())
	s.exits(cmd, 5*time.Second)
	clean("nobody reads", 3*time.Second)

	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		cmd, _ = start("-w", "-")
		made(cmd)
		must(t, cmd.Process.Signal(signal))
		s.exits(cmd, 5*time.Second)
		clean(signal.String(), 3*time.Second)
	}

	cmd, _ = start("-w", "-", "--for", "3s")
	made(cmd)
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if left() == before {
		t.Error("killed, it has deleted the mirror: what is there to be seen?")
	}
	clean("killed", 12*time.Second)
}

// saying is what a program says, while it says it.
type saying struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (s *saying) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *saying) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}
