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

// Scenario 9 of mirrors, a sensor that listens: the port that a mirror made for it is there before the source is, stays when the source
// goes and comes back, with whatever reads it, and goes with the mirror. So do the files that tapwall writes itself.
func TestMirrorScenario09PortStays(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	must(t, s.Unplug(s.vm[1]))
	const doc = "---\nkind: Mirror\nname: %s\nspec: {sources: [{vm: uuid-vm1}]%s, targets: [%s]}\n"
	const staged = ", filter: {default: accept}"
	out, err := s.tw.RunInput(sprintf(doc, "native", "", "{port: {name: native0, create: true}}")+
		sprintf(doc, "staged", staged, "{port: {name: staged0, create: true}}")+sprintf(doc, "file", "", "{pcap: {file: kept}}"),
		"apply", "-f", "-")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	names, devices := []string{"native", "staged", "file"}, []string{"native0", "staged0"}
	waiting := func() {
		t.Helper()
		for _, name := range names {
			s.becomes("mirror", name, policy.PhaseDegraded, policy.ReasonSourceMissing, "vm uuid-vm1")
		}
	}
	waiting()
	readers, files := map[string]*exec.Cmd{}, map[string]string{}
	for _, device := range devices {
		files[device] = filepath.Join(s.Dir, device+".pcap")
		lab.Eventually(t, 5*time.Second, device+" is there and up", func() bool {
			out, err := s.Switch.Run("ip", "-o", "link", "show", "up", "dev", device)
			return err == nil && out != ""
		})
		readers[device], err = s.SpawnIn(s.Switch, "tcpdump-"+device, "tcpdump", "-i", device, "--immediate-mode", "-Q", "in", "-U", "-w",
			files[device], "icmp")
		must(t, err)
	}
	back := func() {
		t.Helper()
		must(t, s.Plug(s.vm[1]))
		for _, name := range names {
			s.becomes("mirror", name, policy.PhaseActive, "", "")
		}
		s.ping3(s.vm[1], s.vm[2])
		settle()
	}
	back()
	for range 2 {
		must(t, s.Unplug(s.vm[1]))
		waiting()
		must(t, s.tw.Stop())
		must(t, s.tw.Start())
		waiting()
		back()
	}
	for _, device := range devices {
		if err := readers[device].Process.Signal(os.Interrupt); err != nil {
			t.Errorf("who read %s has ended: %v", device, err)
		}
		_ = readers[device].Wait()
		if n := s.pingsIn(files[device]); n != 18 {
			t.Errorf("who read %s all the time saw %d frames of three times 6", device, n)
		}
	}
	kept, err := filepath.Glob(filepath.Join(s.tw.DataDir(), "captures", "kept_*"))
	must(t, err)
	n := 0
	for _, file := range kept {
		n += s.pingsIn(file)
	}
	if n != 18 {
		t.Errorf("the files %v have %d frames of three times 6", kept, n)
	}
	must(t, s.Unplug(s.vm[1]))
	waiting()
	for _, name := range names {
		s.tapwall("delete", "mirror", name, "--wait")
	}
	lab.Eventually(t, 5*time.Second, "the ports go with the mirrors", func() bool {
		out, err := s.Vsctl("--bare", "--columns=name", "list", "port")
		bridges, err2 := s.Vsctl("list-br")
		return err == nil && err2 == nil && !strings.Contains(out, "native0") && !strings.Contains(out, "staged0") &&
			!strings.Contains(out, "twc-") && strings.TrimSpace(bridges) == "br0"
	})
}

// pingsIn counts pings and their answers in a file, as tshark reads it.
func (s *stage) pingsIn(file string) int {
	s.t.Helper()
	out, err := exec.Command("tshark", "-r", file, "-Y", "icmp.type == 8 || icmp.type == 0").Output()
	if err != nil {
		s.t.Fatalf("tshark %s: %v\n%s", file, err, out)
	}
	return strings.Count(string(out), "\n")
}

// A mirror that comes to be made in another way has its port made anew, however old its row is: --wait waits until that is up.
func TestMirrorWaitFormChanges(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	const doc = "kind: Mirror\nname: m\nspec: {sources: [{vm: uuid-vm1}], %stargets: [{port: {name: ids0, create: true}}]}\n"
	s.apply(sprintf(doc, "") + "---\n" + strings.NewReplacer("m\n", "other\n", "ids0", "other0").Replace(sprintf(doc, "snaplen: 64, ")))
	time.Sleep(12 * time.Second) // the rows that both will have in common are no longer new
	for range 6 {
		for _, filter := range []string{"filter: {default: accept}, ", ""} {
			s.apply(sprintf(doc, filter))
			if st := s.status("mirror", "m"); st.Phase != policy.PhaseActive {
				t.Errorf("with %q it is %s: %s, %s", filter, st.Phase, st.Reason, st.Message)
			}
		}
	}
	s.tapwall("delete", "mirror", "m", "--wait")
}
