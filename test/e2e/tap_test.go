package e2e

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// A tap by hand, for ten seconds: it copies what it says and nothing else, says how to end it, ends by itself, and leaves no row, port,
// bridge, flow or document.
func TestTapForTenSeconds(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	s.ping3(s.vm[1], s.vm[2])
	everything := func() string {
		t.Helper()
		var all []string
		for _, args := range [][]string{{"list-br"}, {"--columns=name", "list", "mirror"}, {"--columns=name", "list", "port"},
			{"--columns=name", "list", "interface"}} {
			out, err := s.Vsctl(args...)
			must(t, err)
			all = append(all, strings.Join(strings.Fields(out), " "))
		}
		return strings.Join(all, "\n")
	}
	before, flows := sortedWords(everything()), s.table()
	if out := s.refused("", "tap", "vm11", "--to", "ids0"); !strings.Contains(out, "did you mean vm1?") {
		t.Errorf("a name that nobody has: %s", out)
	}
	begun := time.Now()
	out := s.tapwall("tap", "vm1", "uuid-vm2", "--port", "5001", "--proto", "tcp", "--for", "10s", "--to", "ids0", "--wait")
	name := regexp.MustCompile(`mirror/(tap-vm1-[a-z2-7]{4}) created \(Active\)`).FindStringSubmatch(out)
	if name == nil || !strings.Contains(out, "copies  what vm1, uuid-vm2 send and receive: tcp to port 5001 and back") ||
		!strings.Contains(out, "for     10s") || !strings.Contains(out, "tapwall delete mirror "+name[1]) {
		t.Fatalf("it says\n%s", out)
	}
	capture, err := s.Capture(s.Switch, "ids0")
	must(t, err)
	s.mustConnect(s.vm[3], s.vm[1].IPv4, 5001)
	s.mustConnect(s.vm[2], s.vm[3].IPv4, 5001)
	s.mustConnect(s.vm[2], s.vm[3].IPv4, 5002)
	s.ping3(s.vm[1], s.vm[2])
	settle()
	to, from := len(capture.Frames(lab.TCPTo(5001))), len(capture.Frames(lab.TCPFrom(5001)))
	if all := len(capture.Frames(nil)); to < 6 || from < 4 || all != to+from {
		t.Errorf("%d frames, of which %d go to port 5001 and %d come from there", all, to, from)
	}
	if out := s.tapwall("get", "mirrors", "-l", "by=tap", "-o", "name"); strings.TrimSpace(out) != "mirror/"+name[1] {
		t.Errorf("by its label there is %q", out)
	}
	lab.Eventually(t, 14*time.Second, "it has ended", func() bool {
		out, err := s.Vsctl("--columns=name", "list", "mirror")
		return err == nil && strings.TrimSpace(out) == ""
	})
	if took := time.Since(begun); took < 9*time.Second || took > 12*time.Second+lab.Late(begun) {
		t.Errorf("10 s took %v", took)
	}
	lab.Eventually(t, 10*time.Second, "its document has gone", func() bool {
		return strings.TrimSpace(s.tapwall("get", "mirrors", "-o", "name")) == ""
	})
	if now := sortedWords(everything()); now != before {
		t.Errorf("it left\n%s\nof\n%s", now, before)
	}
	if s.table() != flows {
		t.Error("it left flows")
	}
}

// A tap that fails at once is not said to be there, also where nobody waits for it; one that copies is.
func TestTapFailsAtOnce(t *testing.T) {
	t.Parallel()
	s := open(t, 1)
	_, err := s.Vsctl("add-port", "br0", "mon", "--", "set", "interface", "mon", "type=internal", "--", "--id=@p", "get", "port", "mon", "--",
		"--id=@m", "create", "mirror", "name=mine", "output_port=@p", "--", "add", "bridge", "br0", "mirrors", "@m")
	must(t, err)
	lab.Eventually(t, 5*time.Second, "the port is known", func() bool {
		return strings.Contains(s.tapwall("get", "hosts", "-o", "json"), `"mon"`)
	})
	if out := s.refused("", "tap", "vm1", "--to", "mon"); strings.Contains(out, "created") ||
		!strings.Contains(out, "was stored and copies nothing (Failed: OutputPortTaken") {
		t.Errorf("it says\n%s", out)
	}
	if out := s.tapwall("tap", "vm1", "--to", "ids0"); !regexp.MustCompile(`mirror/tap-vm1-\w+ created\n`).MatchString(out) {
		t.Errorf("it says\n%s", out)
	}
}

// sortedWords makes texts comparable whose parts come in any order.
func sortedWords(s string) string {
	words := strings.Fields(s)
	slices.Sort(words)
	return strings.Join(words, " ")
}
