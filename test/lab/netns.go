// Package lab builds a throw-away network on one machine: a private Open vSwitch (userspace datapath) in a network namespace of
// its own, virtual machines as further namespaces on veth pairs, probes that send and count real traffic, and the tapwall binary under
// test. It needs root. Everything a lab makes carries its name, so that [Sweep] can remove what a crashed run left behind.
package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

const netnsDir = "/var/run/netns"

// NS is a named network namespace.
type NS struct{ Name string }

// Do runs fn on a thread that is inside the namespace. Sockets that fn opens and processes that it starts stay there; they may be
// used from anywhere afterwards.
func (ns NS) Do(fn func() error) error {
	done := make(chan error, 1)
	// A goroutine of its own: when the thread cannot go back to where it was, it must not be reused and ends with the goroutine.
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		target, err := os.Open(filepath.Join(netnsDir, ns.Name))
		if err != nil {
			done <- err
			return
		}
		defer target.Close()
		if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", ns.Name, err)
			return
		}
		err = fn()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// Run runs a command inside the namespace and returns its combined output.
func (ns NS) Run(name string, args ...string) (string, error) {
	var out []byte
	err := ns.Do(func() error {
		var err error
		out, err = exec.Command(name, args...).CombinedOutput()
		return err
	})
	if err != nil {
		return string(out), fmt.Errorf("%s %s (in %s): %w: %s", name, strings.Join(args, " "), ns.Name, err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func addNS(name string) (NS, error) {
	if err := run("ip", "netns", "add", name); err != nil {
		return NS{}, err
	}
	ns := NS{Name: name}
	_, err := ns.Run("ip", "link", "set", "lo", "up")
	return ns, err
}
