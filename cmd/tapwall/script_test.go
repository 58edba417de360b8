package main

import (
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tapwall/tapwall/internal/capture/pcapng"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tapwall": main, "tapwall-extcap": main})
}

// The command line as users see it: scripts run the program itself, with no server, with a server of its own that has no Open vSwitch,
// or with canned answers. Scripts have four commands more than usual:
//
//	exits CODE COMMAND…   runs a command that has to end with that code
//	await SOCKET          waits until somebody listens there
//	answer SOCKET DIR     answers requests with the files of DIR (see answers)
//	pcapng FILE N DROPS   writes a pcapng file of so many packets, before the last of which so many were dropped
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			// What the developer's shell has must not matter.
			e.Setenv("TAPWALL_SERVER", "unix:"+filepath.Join(e.WorkDir, "tw.sock"))
			e.Setenv("TAPWALL_TOKEN", "")
			e.Setenv("NO_COLOR", "1")
			e.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "await": await, "answer": answer, "pcapng": writePcapng},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	have := 0
	var failed *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &failed) {
		have = failed.ExitCode()
	} else {
		ts.Check(err)
	}
	if have != want {
		ts.Fatalf("it exited with %d, not %d", have, want)
	}
}

func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await SOCKET")
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("unix", ts.MkAbs(args[0]))
		if err == nil {
			ts.Check(c.Close())
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("nobody listens: %v", err)
		}
	}
}

func answer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: answer SOCKET DIR")
	}
	l, err := net.Listen("unix", ts.MkAbs(args[0]))
	ts.Check(err)
	s := &http.Server{Handler: answers(ts.MkAbs(args[1]))}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	ts.Defer(func() {
		if err := errors.Join(s.Close(), <-done); err != nil && !errors.Is(err, http.ErrServerClosed) {
			ts.Logf("answer: %v", err)
		}
	})
}

func writePcapng(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: pcapng FILE N DROPS")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	drops, err := strconv.Atoi(args[2])
	ts.Check(err)
	b := pcapng.AppendInterface(pcapng.AppendSection(nil, "test", ""), pcapng.Interface{Name: "vm1"})
	for i := range n {
		p := pcapng.Packet{Time: 1, Data: make([]byte, 61), Direction: pcapng.Inbound, Comment: "mirror=web"}
		if i == n-1 {
			p.Drops = uint64(drops)
		}
		b = pcapng.AppendPacket(b, &p)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// answers serves the file METHOD_path_of_the_request.STATUS of a directory, or METHOD_path.after=ID.STATUS for a request that continues
// a list.
type answers string

// ServeHTTP implements http.Handler.
func (dir answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.Method + strings.ReplaceAll(r.URL.Path, "/", "_")
	if after := r.URL.Query().Get("after"); after != "" {
		name += ".after=" + after
	}
	for _, status := range []int{200, 201, 204, 404, 409, 412, 422, 503, 504} {
		b, err := os.ReadFile(filepath.Join(string(dir), name+"."+strconv.Itoa(status)))
		if err != nil {
			continue
		}
		w.Header().Set("Content-Type", "application/json")
		if status >= 400 {
			w.Header().Set("Content-Type", "application/problem+json")
		}
		w.WriteHeader(status)
		_, _ = w.Write(b)
		return
	}
	http.Error(w, "no answer for "+name, http.StatusTeapot)
}
