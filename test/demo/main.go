// Demo is what `make demo` runs: a private switch with three virtual machines, tapwall, the documents of examples/, and real traffic that
// shows each part at work. It leaves the lab up; `make demo-down` removes it. `make demo-search` shows the record in OpenSearch.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

const labName = "twdemo"

func main() {
	exit := flag.Bool("exit", false, "remove the lab at the end; the exit status says whether everything was seen")
	flag.Parse()
	var err error
	switch flag.Arg(0) {
	case "up":
		if err = asRoot(); err == nil {
			err = up(*exit)
		}
	case "down":
		if err = asRoot(); err == nil {
			err = down()
		}
	case "search":
		if err = asRoot(); err == nil {
			err = search()
		}
	case "echo":
		err = echo(flag.Arg(1))
	default:
		err = errors.New("usage: demo [-exit] up|down|search")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// asRoot starts the program again under sudo if it needs to.
func asRoot() error {
	if os.Geteuid() == 0 {
		return nil
	}
	sudo, err := exec.LookPath("sudo")
	if err != nil {
		return errors.New("network namespaces need root, and there is no sudo: run it as root")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Println("network namespaces need root: going on under sudo")
	argv := append([]string{"sudo", "env", "TAPWALL_BIN=" + os.Getenv("TAPWALL_BIN"), "PATH=" + os.Getenv("PATH"), self}, os.Args[1:]...)
	return syscall.Exec(sudo, argv, os.Environ())
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

// labs returns the directories of demo labs, by the mark that each lab leaves in its own.
func labs() (dirs []string) {
	marks, _ := filepath.Glob(filepath.Join(os.TempDir(), "tw*", "lab"))
	for _, mark := range marks {
		info, err := os.Lstat(mark)
		if err != nil {
			continue
		}
		// The temporary directory is everybody's: only what root made counts.
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != 0 || !info.Mode().IsRegular() {
			continue
		}
		if b, err := os.ReadFile(mark); err == nil && strings.HasPrefix(string(b), labName+"\n") {
			dirs = append(dirs, filepath.Dir(mark))
		}
	}
	return dirs
}

func running() bool {
	names, _ := filepath.Glob("/var/run/netns/" + labName + "-*")
	return len(names) > 0
}

// remove takes down every demo lab, also one that was never finished.
func remove() {
	for _, dir := range append(labs(), filepath.Join(os.TempDir(), labName+"-none")) {
		lab.Remove(labName, dir)
	}
}

func down() error {
	if len(labs()) == 0 && !running() {
		fmt.Println("no demo lab is up")
		return nil
	}
	remove()
	if running() {
		return errors.New("some network namespaces could not be removed: see ip netns list")
	}
	fmt.Println("demo lab removed")
	return nil
}

// step prints a heading, bold on a terminal.
func step(format string, args ...any) {
	on, off := "", ""
	if info, err := os.Stdout.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == "" {
		on, off = "\033[1m", "\033[0m"
	}
	fmt.Printf("\n"+on+"== "+format+off+"\n", args...)
}

type demo struct {
	*lab.Lab
	tw            *lab.Tapwall
	vm1, vm2, vm3 *lab.VM
	seen          int
	failed        []string
}

// check prints what was seen and remembers what was not as it should be.
func (d *demo) check(ok bool, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if ok {
		fmt.Println("  ok    ", what)
		d.seen++
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
	if running() {
		return errors.New("a demo lab is up already; make demo-down removes it")
	}
	remove() // what a crash or a reboot left behind
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-interrupted
		fmt.Fprintln(os.Stderr, "\ndemo: interrupted: removing the lab")
		remove()
		// What was being made just then fails without the lab's directory; a namespace may still have come after the first sweep.
		time.Sleep(200 * time.Millisecond)
		remove()
		os.Exit(130)
	}()
	step("a private Open vSwitch with three virtual machines")
	l, err := lab.Start(labName)
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			err = errors.Join(err, l.Close())
		}
	}()
	d := &demo{Lab: l}
	if err := d.build(); err != nil {
		return err
	}
	if err := d.show(); err != nil {
		return err
	}
	fmt.Println()
	if len(d.failed) > 0 {
		return fmt.Errorf("%d of the things to show were not seen: %s", len(d.failed), strings.Join(d.failed, "; "))
	}
	if exit {
		fmt.Printf("All %d things to show were seen.\n", d.seen)
		return nil
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
	d.tw, err = d.StartTapwall("--bridge", "br0=owned", "--log-level", "info")
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
	capture, err := d.Capture(d.Switch, "ids0")
	if err != nil {
		return err
	}
	_, pingErr := d.vm1.Run("ping", "-c", "3", "-i", "0.2", "-W", "2", d.vm2.IPv4)
	d.check(pingErr == nil, "vm1 pings vm2 three times")
	_, otherErr := d.vm1.Run("ping", "-c", "3", "-i", "0.2", "-W", "2", d.vm3.IPv4)
	d.check(otherErr == nil, "vm1 pings vm3, which is not tapped, three times")
	n := 0
	for range 20 { // the last copy may be on its way
		time.Sleep(100 * time.Millisecond)
		if n = len(capture.Frames(lab.ICMP)); n >= 6 {
			break
		}
	}
	d.check(n == 6, "ids0 received %d ICMP frames (3 requests and 3 replies of vm2, none of vm3)", n)

	step("a wall: vm1 may open connections to vm2, vm2 none to vm1")
	d.check(d.vm1.CanConnect(d.vm2.IPv4, 80, 2*time.Second), "vm1 connects to vm2 port 80 (IPv4)")
	d.check(d.vm1.CanConnect(d.vm2.IPv6, 80, 2*time.Second), "vm1 connects to vm2 port 80 (IPv6)")
	d.check(!d.vm2.CanConnect(d.vm1.IPv4, 80, time.Second), "vm2 cannot connect to vm1 port 80")
	d.check(!d.vm3.CanConnect(d.vm2.IPv4, 80, time.Second), "vm3 cannot connect to vm2 port 80")

	step("a record: which rule decided")
	out := d.tapwall("observe", "--type", "verdict")
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

	if err := d.tap(); err != nil {
		return err
	}
	return d.revoke()
}

// tap copies what one machine says on one port to a file, which a program reads that knows nothing of tapwall.
func (d *demo) tap() error {
	step("a tap by hand: what vm1 says on port 80, for a minute, to a file that Wireshark reads")
	d.tapwall("tap", "vm1", "--port", "80", "--for", "1m", "--to", "web.pcapng", "--name", "by-hand", "--wait")
	d.check(d.vm1.CanConnect(d.vm2.IPv4, 80, 2*time.Second), "vm1 connects to vm2 port 80")
	d.check(d.vm1.CanConnect(d.vm2.IPv4, 8080, 2*time.Second), "vm1 connects to vm2 port 8080, which is not asked for")
	var packets string
	for range 20 { // the last packets may be on their way
		time.Sleep(100 * time.Millisecond)
		files, err := filepath.Glob(filepath.Join(d.tw.DataDir(), "captures", "web_*.pcapng"))
		if err != nil || len(files) == 0 {
			continue
		}
		out, _ := exec.Command("tshark", "-r", files[0], "-T", "fields", "-e", "frame.interface_name", "-e", "ip.src", "-e", "tcp.srcport",
			"-e", "ip.dst", "-e", "tcp.dstport", "-e", "tcp.flags.str").Output()
		if packets = string(out); strings.Count(packets, "\n") >= 6 {
			fmt.Println("$ tshark -r", files[0])
			break
		}
	}
	fmt.Print(indent(packets))
	d.check(strings.Count(packets, "\t80\t") >= 6 && strings.Count(packets, "\t80\t") == strings.Count(packets, "\n"),
		"the file holds %d packets, all of port 80", strings.Count(packets, "\n"))
	d.tapwall("delete", "mirror", "by-hand", "--wait")
	return nil
}

// revoke deletes a policy under a live connection.
func (d *demo) revoke() error {
	step("a revocation: a live connection ends with its rule, and no other does")
	console, err := d.vm1.EchoTCP(d.vm2.IPv4, 8080, 10*time.Millisecond)
	if err != nil {
		return err
	}
	defer console.Stop()
	web, err := d.vm1.EchoTCP(d.vm2.IPv4, 80, 10*time.Millisecond)
	if err != nil {
		return err
	}
	defer web.Stop()
	time.Sleep(time.Second)
	d.check(console.Received() > 50, "vm1 exchanges 100 messages a second with vm2 port 8080 (policy web-admin): %d so far",
		console.Received())
	d.check(web.Received() > 50, "and with vm2 port 80 (policy web): %d so far", web.Received())
	given := time.Now()
	d.tapwall("delete", "policy", "web-admin", "--wait")
	answered := time.Now()
	time.Sleep(time.Second)
	d.check(console.ReceivedSince(answered.Add(100*time.Millisecond)) == 0,
		"the connection to port 8080 is cut: its last message came %d ms after the command was given",
		max(0, console.LastArrival().Sub(given).Milliseconds()))
	d.check(web.ReceivedSince(answered) > 50, "the connection to port 80 did not notice: its longest gap was %d ms",
		web.MaxGap(given).Milliseconds())
	d.check(!d.vm1.CanConnect(d.vm2.IPv4, 8080, time.Second), "vm1 cannot connect to port 8080 any more")
	out := d.tapwall("observe", "--last", "2", "--to", "vm2", "--to-port", "8080")
	d.check(strings.Count(out, "DENIED") == 2, "the record says why")
	return nil
}

func indent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString("  " + line)
	}
	return b.String()
}

func (d *demo) next() {
	bin, here := d.tw.Bin, ""
	if wd, err := os.Getwd(); err == nil {
		here = wd
	}
	if rel, err := filepath.Rel(here, bin); err == nil && !strings.HasPrefix(rel, "..") {
		bin = rel
	}
	fmt.Printf("All %d things to show were seen. The lab is still up; things to try:\n\n  export TAPWALL_SERVER=unix:%s\n", d.seen, d.Socket())
	for _, l := range [][2]string{
		{bin + " observe -f", "follow the verdicts"},
		{"ip netns exec " + d.vm2.Name + " ping -c 3 " + d.vm1.IPv4, "traffic from vm2"},
		{"ip netns exec " + d.Switch.Name + " tcpdump -ni ids0", "what the tap delivers"},
		{bin + " mirror stop web-tap", "stop the tap"},
		{bin + " diff -f examples/", "what apply would do now"},
		{bin + " describe policy web", "rules with their counters"},
		{bin + " flows --owner policy/web", "the flows of one policy"},
		{"ovs-ofctl -O OpenFlow13 dump-flows " + filepath.Join(d.Dir, "br0.mgmt"), "all flows, by ovs-ofctl"},
		{"curl --unix-socket " + d.Socket() + " http://localhost/v1/status", "the API"},
	} {
		fmt.Printf("  %-70s # %s\n", l[0], l[1])
	}
	fmt.Print("\nmake demo-down removes it.\n")
}
