package lab

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// buildOnce compiles the program under test; TAPWALL_BIN names a ready one instead.
var buildOnce = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("TAPWALL_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", err
	}
	root := filepath.Dir(strings.TrimSpace(string(out)))
	bin := filepath.Join(root, "bin", "tapwall")
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/tapwall")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build tapwall: %w: %s", err, out)
	}
	return bin, nil
})

// Tapwall is the program under test, running in a lab.
type Tapwall struct {
	lab  *Lab
	args []string
	cmd  *exec.Cmd
	Bin  string
}

// Socket is the path of the API's unix socket.
func (l *Lab) Socket() string { return filepath.Join(l.Dir, "tapwall.sock") }

// HTTP is a client of the API at any URL, over the socket, with a connection for each request. timeout is that of a request; 0 = none.
func (l *Lab) HTTP(timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{
		DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", l.Socket())
		}}}
}

// StartTapwall runs `tapwall serve` for the lab's OVS with further flags and returns when it is ready.
func (l *Lab) StartTapwall(flags ...string) (*Tapwall, error) {
	bin, err := buildOnce()
	if err != nil {
		return nil, err
	}
	return l.StartTapwallFrom(bin, flags...)
}

// StartTapwallFrom is StartTapwall with another binary, such as that of an earlier version.
func (l *Lab) StartTapwallFrom(bin string, flags ...string) (*Tapwall, error) {
	t := &Tapwall{lab: l, Bin: bin, args: append([]string{bin, "serve", "--ovsdb", l.DB(), "--data-dir", l.dataDir(),
		"--listen", "unix:" + l.Socket(), "--log-level", "debug"}, flags...)}
	return t, t.Start()
}

// Start starts it (again) and waits until it says that it is ready.
func (t *Tapwall) Start() (err error) {
	if t.cmd, err = t.lab.Spawn("tapwall", t.args...); err != nil {
		return err
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		out, err := t.Run("status", "--ready")
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || t.cmd.Process.Signal(syscall.Signal(0)) != nil {
			return fmt.Errorf("tapwall is not ready: %w: %s", err, out)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Kill ends it with SIGKILL.
func (t *Tapwall) Kill() { Kill(t.cmd) }

// Stop ends it with SIGTERM and returns how it exited.
func (t *Tapwall) Stop() error {
	if err := t.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	return t.cmd.Wait()
}

// Pid is the process id.
func (t *Tapwall) Pid() int { return t.cmd.Process.Pid }

// Run runs a CLI command against it and returns its output, standard error behind standard output.
func (t *Tapwall) Run(args ...string) (string, error) { return t.RunInput("", args...) }

// RunInput is Run with standard input.
func (t *Tapwall) RunInput(stdin string, args ...string) (string, error) {
	cmd := exec.Command(t.Bin, args...)
	cmd.Env = append(os.Environ(), "TAPWALL_SERVER=unix:"+t.lab.Socket())
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// Apply applies documents and waits until they are installed.
func (t *Tapwall) Apply(docs string) error {
	out, err := t.RunInput(docs, "apply", "--wait", "-f", "-")
	if err != nil {
		return fmt.Errorf("apply: %w: %s", err, out)
	}
	return nil
}

func (l *Lab) dataDir() string { return filepath.Join(l.Dir, "data") }

// DataDir is where the process keeps its data.
func (t *Tapwall) DataDir() string { return t.lab.dataDir() }
