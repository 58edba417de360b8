package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// docs/jobs.md is run as it stands there: the documents are files of the name in their first line, the commands of a console block are
// given to a shell, and each line that the page shows of an answer has to come, in this order, but for numbers. "…" stands for any text,
// in a line of its own for any lines.
func TestFiveJobs(t *testing.T) {
	t.Parallel()
	s := &stage{Lab: lab.Require(t), t: t}
	must(t, s.AddBridge("br0"))
	vm := map[int]*lab.VM{}
	for _, n := range []int{1, 2, 7, 9} {
		var err error
		vm[n], err = s.AddVM(sprintf("vm%d", n), "br0", n)
		must(t, err)
		must(t, s.Serve(vm[n], 22, 80, 5432))
	}
	var err error
	s.tw, err = s.StartTapwall("--bridge", "br0=owned")
	must(t, err)
	text, err := os.ReadFile("../../docs/jobs.md")
	must(t, err)
	page := page{stage: s, dir: t.TempDir()}
	both := func(check func(from *lab.VM, to string, port int), from, to, port int) {
		t.Helper()
		check(vm[from], vm[to].IPv4, port)
		check(vm[from], vm[to].IPv6, port)
	}
	// after is what happens behind the console blocks of a section.
	after := map[string][]func(){
		"Why can vm7 not reach vm9 on port 5432?": {
			func() { both(s.mustNotConnect, 7, 9, 5432) }, func() { both(s.mustConnect, 7, 9, 5432) },
		},
		"Cut off this VM now": {
			func() {
				s.mustConnect(vm[1], vm[2].IPv4, 80)
				s.mustNotConnect(vm[7], vm[2].IPv4, 80)
				both(s.mustNotConnect, 2, 7, 80)
			},
			func() { both(s.mustConnect, 7, 2, 80) },
		},
		"Allow ssh from one network only, and log the rest": {func() {
			both(s.mustConnect, 2, 9, 22)
			both(s.mustConnect, 9, 7, 80)
			// What is counted just behind a change is nobody's.
			lab.Eventually(t, 10*time.Second, "both rules are hit", func() bool {
				s.mustConnect(vm[1], vm[7].IPv4, 22)
				s.mustNotConnect(vm[9], vm[7].IPv4, 22)
				return s.rule("ssh", "from-admins").Packets > 0 && s.rule("ssh-others", "others").Packets > 0
			})
		}},
		"Try a policy without enforcing it": {func() { both(s.mustConnect, 2, 7, 80) }},
	}
	for section := range strings.SplitSeq(string(text), "\n## ") {
		title, _, _ := strings.Cut(section, "\n")
		page.after = after[title]
		page.run(section)
		if len(page.after) > 0 {
			t.Errorf("docs/jobs.md, %s: %d checks were not made", title, len(page.after))
		}
		delete(after, title)
	}
	for title := range after {
		t.Errorf("docs/jobs.md has no section %q", title)
	}
}

// page is a page of docs/ that is being run.
type page struct {
	*stage
	dir   string
	after []func() // what is still to be done behind the next console blocks
}

var fenced = regexp.MustCompile("(?ms)^```(yaml|console)\n(.*?)^```$")

// run does what a section says.
func (p *page) run(section string) {
	p.t.Helper()
	for _, m := range fenced.FindAllStringSubmatch(section, -1) {
		if m[1] == "yaml" {
			if name, ok := strings.CutPrefix(m[2][:strings.IndexByte(m[2], '\n')], "# "); ok {
				must(p.t, os.WriteFile(filepath.Join(p.dir, name), []byte(m[2]), 0o600))
			}
			continue
		}
		for i, command := range strings.Split("\n"+m[2], "\n$ ") {
			if line, shown, _ := strings.Cut(command, "\n"); i > 0 {
				p.command(line, strings.Split(strings.TrimSpace(shown), "\n"))
			}
		}
		if len(p.after) > 0 {
			p.after[0]()
			p.after = p.after[1:]
		}
	}
}

var (
	exitCode = regexp.MustCompile(`# exit code (\d+)`)
	numbers  = regexp.MustCompile(`[0-9]+`)
	months   = regexp.MustCompile(`^[A-Z][a-z]{2} +#`)
)

// sameButNumbers is what two lines have in common that differ in numbers, month and the width of columns.
func sameButNumbers(line string) string {
	return months.ReplaceAllString(strings.Join(strings.Fields(numbers.ReplaceAllString(line, "#")), " "), "Mon #")
}

// command runs a line and holds what it prints against what is shown. It may take some time until it prints that.
func (p *page) command(line string, shown []string) {
	p.t.Helper()
	want := "0"
	if m := exitCode.FindStringSubmatch(line); m != nil {
		want = m[1]
	}
	var out string
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		cmd := exec.Command("bash", "-c", line)
		cmd.Dir = p.dir
		bin, err := filepath.Abs(filepath.Dir(os.Getenv("TAPWALL_BIN")))
		must(p.t, err)
		cmd.Env = append(os.Environ(), "TAPWALL_SERVER=unix:"+p.Socket(), "PATH="+bin+":"+os.Getenv("PATH"))
		b, err := cmd.CombinedOutput()
		out = string(b)
		code := 0
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			code = exit.ExitCode()
		} else {
			must(p.t, err)
		}
		if strconv.Itoa(code) == want && shows(out, shown) {
			return
		}
		if time.Now().After(end) || !strings.Contains(line, "observe") && !strings.Contains(line, "lint") {
			p.t.Fatalf("$ %s\nexit code %d, and should be %s; printed\n%s\nand the page shows\n%s", line, code, want, out, strings.Join(shown, "\n"))
		}
	}
}

// looksLike reports whether a line is what is shown, in which "…" stands for any text.
func looksLike(line, shown string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(sameButNumbers(shown)), "…", ".*")
	return regexp.MustCompile("^" + pattern + "$").MatchString(sameButNumbers(line))
}

// shows reports whether out is what is shown.
func shows(out string, shown []string) bool {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i := 0; ; i++ {
		switch {
		case len(shown) == 0:
			return i == len(lines)
		case shown[0] == "…":
			shown = shown[1:]
			for len(shown) > 0 && i < len(lines) && !looksLike(lines[i], shown[0]) {
				i++
			}
			if len(shown) == 0 {
				return true
			}
		}
		if i >= len(lines) || !looksLike(lines[i], shown[0]) {
			return false
		}
		shown = shown[1:]
	}
}
