package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Lab is one private network. Its methods are for one goroutine; probes run on their own.
type Lab struct {
	Name   string // also the prefix of every namespace
	Dir    string // sockets, database, logs; short, because unix socket paths are
	Switch NS     // where OVS and tapwall run
	VMs    map[string]*VM

	VswitchdArgs []string // further ones of the next StartVswitchd

	mu       sync.Mutex
	cleanups []func() error
	vswitchd *exec.Cmd
	ovsdb    *exec.Cmd
	links    int
}

// VM is a network namespace whose eth0 is a port of the lab's bridge.
type VM struct {
	NS
	Port   string // name of the port on the bridge
	Bridge string
	MAC    string
	IPv4   string
	IPv6   string
}

// Require returns a started lab that is removed when the test ends. It skips without root or without OVS, with the reason; when CI=true
// that is a failure.
func Require(t testing.TB) *Lab {
	t.Helper()
	if why := missing(); why != "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("the lab cannot run: %s", why)
		}
		t.Skipf("the lab cannot run: %s", why)
	}
	l, err := Start("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			l.logTail(t)
		}
		if err := l.Close(); err != nil {
			t.Errorf("lab: %v", err)
		}
	})
	return l
}

func missing() string {
	if os.Geteuid() != 0 {
		return "it needs root for network namespaces"
	}
	for _, tool := range []string{"ip", "ethtool", "ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl"} {
		if _, err := exec.LookPath(tool); err != nil {
			return tool + " is not installed (make deps)"
		}
	}
	return ""
}

// Start makes a lab. An empty name gives one of its own to each call, so that labs run beside each other.
func Start(name string) (*Lab, error) {
	if why := missing(); why != "" {
		return nil, errors.New(why)
	}
	startMetronome()
	Sweep()
	dir, err := os.MkdirTemp("", "tw")
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = fmt.Sprintf("tw%d-%s", os.Getpid(), strings.TrimPrefix(filepath.Base(dir), "tw"))
	}
	l := &Lab{Name: name, Dir: dir, VMs: map[string]*VM{}}
	l.onClose(func() error { return os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "lab"), []byte(name+"\n"+strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if l.Switch, err = l.namespace(name + "-sw"); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if err := l.startOVS(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) namespace(name string) (NS, error) {
	ns, err := addNS(name)
	if err == nil {
		l.onClose(func() error { return run("ip", "netns", "del", name) })
	}
	return ns, err
}

// OnClose has f called when the lab closes, before what was made earlier is removed.
func (l *Lab) OnClose(f func() error) { l.onClose(f) }

func (l *Lab) onClose(f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cleanups = append(l.cleanups, f)
}

// Close removes everything, newest first. It is idempotent.
func (l *Lab) Close() error {
	l.mu.Lock()
	todo := l.cleanups
	l.cleanups = nil
	l.mu.Unlock()
	var errs []error
	for i := len(todo) - 1; i >= 0; i-- {
		errs = append(errs, todo[i]())
	}
	return errors.Join(errs...)
}

// Sweep removes what labs of processes that are gone left behind: their processes (by the pid files in their directory, if the process
// still runs from there), namespaces and directories. Labs with a name of their own (the demo) are not touched.
func Sweep() {
	marks, _ := filepath.Glob(filepath.Join(os.TempDir(), "tw*", "lab"))
	for _, mark := range marks {
		b, err := os.ReadFile(mark)
		f := strings.Fields(string(b))
		if err != nil || len(f) != 2 || !strings.HasPrefix(f[0], "tw"+f[1]+"-") {
			continue
		}
		pid, err := strconv.Atoi(f[1])
		if err != nil || syscall.Kill(pid, 0) == nil {
			continue
		}
		Remove(f[0], filepath.Dir(mark))
	}
}

// Remove takes down a lab of another process by its name and directory. Its processes are those that were started with the directory in
// their environment, whether or not they got as far as leaving a pid file.
func Remove(name, dir string) {
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, p := range environs {
		pid, err := strconv.Atoi(strings.Split(p, "/")[2])
		if err != nil || pid <= 1 || pid == os.Getpid() {
			continue
		}
		if env, _ := os.ReadFile(p); strings.Contains(string(env), "OVS_RUNDIR="+dir+"\x00") {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	names, _ := filepath.Glob(filepath.Join(netnsDir, name+"-*"))
	for _, n := range names {
		_ = run("ip", "netns", "del", filepath.Base(n))
	}
	_ = os.RemoveAll(dir)
}

// logTail prints what the programs of the lab had to say, without the noise: requests, and what is normal for OVS.
func (l *Lab) logTail(t testing.TB) {
	logs, _ := filepath.Glob(filepath.Join(l.Dir, "*.log"))
	for _, f := range logs {
		b, _ := os.ReadFile(f)
		var keep []string
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, "msg=request") || strings.Contains(line, "|INFO|") || strings.Contains(line, "transacting operations") {
				continue
			}
			keep = append(keep, line[:min(len(line), 400)])
		}
		keep = keep[max(0, len(keep)-40):]
		if len(keep) > 0 {
			t.Logf("--- end of %s\n%s", filepath.Base(f), strings.Join(keep, ""))
		}
	}
}

// Link connects the switch namespaces of two labs, each under an address of its own. A lab may be linked to several.
func (l *Lab) Link(other *Lab, here, there string) error {
	l.links, other.links = l.links+1, other.links+1
	near, far := fmt.Sprintf("link%d", l.links), fmt.Sprintf("link%d", other.links)
	if _, err := l.Switch.Run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", other.Switch.Name); err != nil {
		return err
	}
	for _, end := range []struct {
		NS
		device, here, there string
	}{{l.Switch, near, here, there}, {other.Switch, far, there, here}} {
		if _, err := end.Run("ip", "addr", "add", end.here, "peer", end.there, "dev", end.device); err != nil {
			return err
		}
		if _, err := end.Run("ip", "link", "set", end.device, "up"); err != nil {
			return err
		}
	}
	return nil
}

// AddBridge makes a bridge with the userspace datapath. Further arguments go to the same ovs-vsctl call.
func (l *Lab) AddBridge(name string, extra ...string) error {
	_, err := l.Vsctl(append([]string{"--", "add-br", name, "--", "set", "bridge", name, "datapath_type=netdev"}, extra...)...)
	return err
}

// AddVM makes a namespace with an address on bridge. n (1..250) gives it 10.77.0.n/24, fd77::n/64 and a MAC. The port carries the
// external_ids that a hypervisor sets: iface-id, attached-mac, vm-uuid; more as key=value.
func (l *Lab) AddVM(name, bridge string, n int, externalIDs ...string) (*VM, error) {
	ns, err := l.namespace(l.Name + "-" + name)
	if err != nil {
		return nil, err
	}
	vm := &VM{NS: ns, Port: name, Bridge: bridge, MAC: fmt.Sprintf("02:77:00:00:00:%02x", n), IPv4: fmt.Sprintf("10.77.0.%d", n),
		IPv6: fmt.Sprintf("fd77::%x", n)}
	for _, cmd := range [][]string{
		{"ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "address", vm.MAC, "netns", ns.Name},
		{"ethtool", "-K", name, "tx", "off"},
		{"ip", "link", "set", name, "up"},
	} {
		if _, err := l.Switch.Run(cmd[0], cmd[1:]...); err != nil {
			return nil, err
		}
	}
	for _, cmd := range [][]string{
		{"ethtool", "-K", "eth0", "tx", "off"},
		{"sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0", "net.ipv6.conf.eth0.dad_transmits=0",
			"net.ipv6.conf.eth0.router_solicitations=0"}, // what nobody asked for is in no count
		{"ip", "addr", "add", vm.IPv4 + "/24", "dev", "eth0"},
		{"ip", "addr", "add", vm.IPv6 + "/64", "dev", "eth0", "nodad"},
		{"ip", "link", "set", "eth0", "up"},
	} {
		if _, err := vm.Run(cmd[0], cmd[1:]...); err != nil {
			return nil, err
		}
	}
	l.VMs[name] = vm
	return vm, l.Plug(vm, externalIDs...)
}

// Plug adds the VM's port to its bridge, as a hypervisor does at start.
func (l *Lab) Plug(vm *VM, externalIDs ...string) error {
	args := []string{"--", "add-port", vm.Bridge, vm.Port, "--", "set", "interface", vm.Port, "external_ids:iface-id=if-" + vm.Port,
		`external_ids:attached-mac="` + vm.MAC + `"`, "external_ids:vm-uuid=uuid-" + vm.Port}
	for _, kv := range externalIDs {
		args = append(args, "external_ids:"+kv)
	}
	_, err := l.Vsctl(args...)
	return err
}

// Unplug removes the VM's port from the bridge; the veth stays.
func (l *Lab) Unplug(vm *VM) error {
	_, err := l.Vsctl("--", "del-port", vm.Bridge, vm.Port)
	return err
}

// AddTargetPort adds an internal port to br0 that a mirror can deliver to, up and silent.
func (l *Lab) AddTargetPort(name string) error {
	if _, err := l.Vsctl("--", "add-port", "br0", name, "--", "set", "interface", name, "type=internal"); err != nil {
		return err
	}
	if _, err := l.Switch.Run("sysctl", "-qw", "net.ipv6.conf."+name+".disable_ipv6=1"); err != nil {
		return err
	}
	_, err := l.Switch.Run("ip", "link", "set", name, "up", "arp", "off")
	return err
}
