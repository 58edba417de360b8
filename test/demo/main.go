// Demo is what `make demo` runs: a private switch with three virtual machines, tapwall, the documents of examples/, and real traffic that
// shows each part at work. It leaves the lab up; `make demo-down` removes it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

const (
	labName   = "twdemo"
	stateFile = "/tmp/twdemo.dir"
)

func main() {
	exit := flag.Bool("exit", false, "remove the lab at the end; the exit status says whether everything was seen")
	flag.Parse()
	var err error
	switch flag.Arg(0) {
	case "up":
		err = up(*exit)
	case "down":
		err = down()
	case "echo":
		err = echo(flag.Arg(1))
	default:
		err = errors.New("usage: demo [-exit] up|down")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// echo serves a TCP port for as long as the lab is up, so that there is something to connect to afterwards.
func echo(port string) error {
	ln, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			buf := make([]byte, 4096)
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				if _, err := c.Write(buf[:n]); err != nil {
					return
				}
			}
		}()
	}
}

func down() error {
	dir, err := os.ReadFile(stateFile)
	if errors.Is(err, os.ErrNotExist) {
		fmt.Println("no demo lab is up")
		return nil
	}
	if err != nil {
		return err
	}
	lab.Remove(labName, strings.TrimSpace(string(dir)))
	fmt.Println("demo lab removed")
	return os.Remove(stateFile)
}

func step(format string, args ...any) { fmt.Printf("\n\033[1m== "+format+"\033[0m\n", args...) }

type demo struct {
	*lab.Lab
	tw            *lab.Tapwall
	vm1, vm2, vm3 *lab.VM
	failed        []string
}

// check prints what was seen and remembers what was not as it should be.
func (d *demo) check(ok bool, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if ok {
		fmt.Println("  ok    ", what)
		return
	}
	fmt.Println("  FAILED", what)
	d.failed = append(d.failed, what)
}

func (d *demo) tapwall(args ...string) string {
	fmt.Println("$ tapwall", strings.Join(args, " "))
	out, err := d.tw.Run(args...)
	for line := range strings.Lines(out) {
		fmt.Print("  ", line)
	}
	if err != nil {
		d.check(false, "tapwall %s: %v", args[0], err)
	}
	return out
}

func up(exit bool) (err error) {
	if _, err := os.Stat(stateFile); err == nil {
		return errors.New("a demo lab is up already; make demo-down removes it")
	}
	step("a private Open vSwitch with three virtual machines")
	l, err := lab.Start(labName)
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			err = errors.Join(err, l.Close())
			_ = os.Remove(stateFile)
		}
	}()
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		_ = l.Close()
		_ = os.Remove(stateFile)
		os.Exit(130)
	}()
	if err := os.WriteFile(stateFile, []byte(l.Dir+"\n"), 0o600); err != nil {
		return err
	}
	d := &demo{Lab: l}
	if err := d.build(); err != nil {
		return err
	}
	if err := d.show(); err != nil {
		return err
	}
	fmt.Println()
	if len(d.failed) > 0 {
		err = fmt.Errorf("%d of the things to show were not seen: %s", len(d.failed), strings.Join(d.failed, "; "))
	}
	if exit || err != nil {
		return err
	}
	keep = true
	d.next()
	return nil
}

func (d *demo) build() (err error) {
	if err := d.AddBridge("br0"); err != nil {
		return err
	}
	for i, vm := range []**lab.VM{&d.vm1, &d.vm2, &d.vm3} {
		if *vm, err = d.AddVM(fmt.Sprintf("vm%d", i+1), "br0", i+1); err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		for _, port := range []string{"80", "8080"} {
			// A process of its own, because the lab stays up when this one ends.
			if _, err := d.SpawnIn((*vm).NS, fmt.Sprintf("echo-%s-%s", (*vm).Port, port), self, "echo", port); err != nil {
				return err
			}
		}
		fmt.Printf("  %s  %s  %s  %s\n", (*vm).Port, (*vm).MAC, (*vm).IPv4, (*vm).IPv6)
	}
	step("tapwall takes the bridge")
	d.tw, err = d.StartTapwall("--bridge", "br0=owned")
	if err != nil {
		return err
	}
	d.tapwall("status")
	return nil
}

func (d *demo) show() error {
	step("apply the documents of examples/")
	d.tapwall("apply", "--wait", "-f", "examples/")
	d.tapwall("get", "mirrors")
	d.tapwall("get", "policies")

	step("a tap: what vm2 sends and receives arrives at port ids0")
	sink, err := d.Capture(d.Switch, "ids0")
	if err != nil {
		return err
	}
	_, pingErr := d.vm1.Run("ping", "-c", "3", "-i", "0.2", "-W", "2", d.vm2.IPv4)
	d.check(pingErr == nil, "vm1 pings vm2 three times")
	_, otherErr := d.vm1.Run("ping", "-c", "3", "-i", "0.2", "-W", "2", d.vm3.IPv4)
	d.check(otherErr == nil, "vm1 pings vm3, which is not tapped, three times")
	time.Sleep(200 * time.Millisecond)
	n := len(sink.Frames(lab.ICMP))
	d.check(n == 6, "ids0 received %d ICMP frames (3 requests and 3 replies of vm2, none of vm3)", n)

	step("a wall: vm1 may open connections to vm2, vm2 none to vm1")
	d.check(d.vm1.CanConnect(d.vm2.IPv4, 80, 2*time.Second), "vm1 connects to vm2 port 80 (IPv4)")
	d.check(d.vm1.CanConnect(d.vm2.IPv6, 80, 2*time.Second), "vm1 connects to vm2 port 80 (IPv6)")
	d.check(!d.vm2.CanConnect(d.vm1.IPv4, 80, time.Second), "vm2 cannot connect to vm1 port 80")
	d.check(!d.vm3.CanConnect(d.vm2.IPv4, 80, time.Second), "vm3 cannot connect to vm2 port 80")

	step("a record: which rule decided")
	out := d.tapwall("observe", "--last", "10")
	for _, rule := range []string{"from-clients", "not-from-web", "default-deny"} {
		d.check(strings.Contains(out, rule), "the record names %s", rule)
	}

	step("the flows and connections behind it, as the switch shows them")
	flows, err := d.Ofctl("dump-flows", "br0", "--no-stats", "table=208")
	if err != nil {
		return err
	}
	fmt.Println("$ ovs-ofctl dump-flows br0 table=208   (one gate per live rule)")
	fmt.Print(indent(flows))
	ct, err := d.Appctl("dpctl/dump-conntrack")
	if err != nil {
		return err
	}
	fmt.Println("$ ovs-appctl dpctl/dump-conntrack   (the label carries the rules that allowed it)")
	fmt.Print(indent(ct))

	step("a revocation: a live connection ends with its rule")
	probe, err := d.vm1.EchoTCP(d.vm2.IPv4, 8080, 10*time.Millisecond)
	if err != nil {
		return err
	}
	defer probe.Stop()
	time.Sleep(time.Second)
	d.check(probe.Received() > 50, "vm1 exchanges messages with vm2 port 8080 (%d so far)", probe.Received())
	d.tapwall("delete", "policy", "web", "--wait")
	deleted := time.Now()
	// Nobody selects vm2 any more, so the connection may go on: it is judged anew and allowed by default.
	time.Sleep(time.Second)
	d.check(probe.ReceivedSince(deleted) > 50, "with the whole policy gone nothing isolates vm2: the connection goes on")
	closed := strings.ReplaceAll(mustRead("examples/one-way.yaml"), `ports: ["80", "8000-8099"]`, `ports: ["80"]`)
	if err := d.tw.Apply(closed); err != nil {
		return err
	}
	cut := time.Now()
	fmt.Println("$ tapwall apply --wait -f -   (the policy again, now without port 8080)")
	time.Sleep(time.Second)
	silent := probe.LastArrival().Sub(cut)
	d.check(probe.ReceivedSince(cut.Add(500*time.Millisecond)) == 0, "the connection to port 8080 is silent; last message %v after the answer", silent.Round(time.Millisecond))
	d.check(d.vm1.CanConnect(d.vm2.IPv4, 80, 2*time.Second), "port 80 is still open")
	return nil
}

func mustRead(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
	return string(b)
}

func indent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString("  " + line)
	}
	return b.String()
}

func (d *demo) next() {
	bin, _ := filepath.Abs(d.tw.Bin)
	fmt.Printf(`The lab is up. Things to try:

  export TAPWALL_SERVER=unix:%s OVS_RUNDIR=%s
  %s observe -f                                   # follow the verdicts
  ip netns exec %s ping %s               # traffic from vm1
  ip netns exec %s tcpdump -ni ids0               # what the tap delivers
  %s describe policy web
  %s flows --owner policy/web
  ovs-ofctl -O OpenFlow13 dump-flows %s
  curl --unix-socket %s http://localhost/v1/status

make demo-down removes it.
`, d.Socket(), d.Dir, bin, d.vm1.Name, d.vm2.IPv4, d.Switch.Name, bin, bin, filepath.Join(d.Dir, "br0.mgmt"), d.Socket())
}
