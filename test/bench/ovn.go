package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// errNoOVN says that OVN is not installed (apt-get install ovn-central ovn-host).
var errNoOVN = errors.New("OVN is not installed")

// ovn is an OVN of a lab's own, whose integration bridge is br0: databases, northd and controller, all in the lab's directory, and
// ovn-nbctl as a daemon. It ends with the lab.
type ovn struct {
	lab     *lab.Lab
	daemons []*exec.Cmd
}

func startOVN(l *lab.Lab) (_ *ovn, err error) {
	o := &ovn{lab: l}
	in := func(name string) string { return filepath.Join(l.Dir, name) }
	spawn := func(name, program string, args ...string) error {
		path, err := exec.LookPath(program)
		if err != nil {
			return errors.Join(errNoOVN, err)
		}
		cmd, err := l.Spawn(name, append([]string{"/usr/bin/env", "OVN_RUNDIR=" + l.Dir, path, "--no-chdir"}, args...)...)
		o.daemons = append(o.daemons, cmd)
		return err
	}
	for _, db := range []string{"nb", "sb"} {
		schema := "/usr/share/ovn/ovn-" + db + ".ovsschema"
		if out, err := exec.Command("ovsdb-tool", "create", in(db+".db"), schema).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: %w: %s", errNoOVN, err, out)
		}
		if err := spawn(db, "ovsdb-server", in(db+".db"), "--remote=punix:"+in(db+".sock"), "--unixctl="+in(db+".ctl")); err != nil {
			return nil, err
		}
	}
	nb, sb := "unix:"+in("nb.sock"), "unix:"+in("sb.sock")
	if err := spawn("northd", "ovn-northd", "--ovnnb-db="+nb, "--ovnsb-db="+sb); err != nil {
		return nil, err
	}
	if _, err := l.Vsctl("set", "Open_vSwitch", ".", "external_ids:ovn-remote="+sb, "external_ids:ovn-encap-type=geneve",
		"external_ids:ovn-encap-ip=127.0.0.1", "external_ids:ovn-bridge=br0",
		"external_ids:ovn-bridge-datapath-type=netdev"); err != nil {
		return nil, err
	}
	if err := spawn("controller", "ovn-controller", l.DB()); err != nil {
		return nil, err
	}
	// Without a chassis there is nothing that --wait=hv would wait for, and one that comes at the same time may be overlooked.
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		out, err := exec.Command("ovn-sbctl", "--timeout=5", "--db="+sb, "--bare", "--columns=name", "list", "chassis").CombinedOutput()
		if err == nil && len(out) > 0 {
			if out, err = exec.Command("ovn-nbctl", "--timeout=3", "--db="+nb, "--wait=hv", "sync").CombinedOutput(); err == nil {
				break
			}
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("ovn-controller makes no chassis: %w: %s", err, out)
		}
	}
	// It has to detach to be a daemon, so the lab ends it by its own pid file.
	l.OnClose(func() error {
		b, err := os.ReadFile(in("nbctl.pid"))
		if err != nil {
			return nil // it has not started
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			return err
		}
		return syscall.Kill(pid, syscall.SIGKILL)
	})
	cmd := exec.Command("ovn-nbctl", "--detach", "--no-chdir", "--db="+nb, "--pidfile="+in("nbctl.pid"), "--unixctl="+in("nbctl.ctl"))
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+l.Dir, "OVN_RUNDIR="+l.Dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %w: %s", errNoOVN, err, out)
	}
	return o, o.run([]string{"ls-add", "sw"})
}

// run has the daemon of ovn-nbctl carry out commands in one transaction and waits until all chassis have them, as `ovn-nbctl --wait=hv`
// does, but without a process for it.
func (o *ovn) run(commands ...[]string) error {
	args := []string{"--wait=hv"}
	for _, c := range commands {
		args = append(append(args, "--"), c...)
	}
	c, err := net.Dial("unix", filepath.Join(o.lab.Dir, "nbctl.ctl"))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		return err
	}
	if err := json.NewEncoder(c).Encode(map[string]any{"method": "run", "params": args, "id": 0}); err != nil {
		return err
	}
	var answer struct{ Error any }
	if err := json.NewDecoder(c).Decode(&answer); err != nil {
		return err
	}
	if answer.Error != nil {
		return fmt.Errorf("ovn-nbctl %.200q: %v", args, answer.Error)
	}
	return nil
}

// ports makes logical ports of the switch sw out of machines of the lab.
func (o *ovn) ports(vms ...string) error {
	for _, name := range vms {
		vm := o.lab.VMs[name]
		if err := o.run([]string{"lsp-add", "sw", "if-" + name},
			[]string{"lsp-set-addresses", "if-" + name, vm.MAC + " " + vm.IPv4}); err != nil {
			return err
		}
	}
	return nil
}

// memory is what all its processes have resident, in MiB.
func (o *ovn) memory() (sum int64, err error) {
	for _, d := range o.daemons {
		m, err := memory(d.Process.Pid)
		if err != nil {
			return 0, err
		}
		sum += m
	}
	return sum, nil
}

// guardByOVN lets the two machines reach each other as allowPolicy does, judged at both ends.
func guardByOVN(l *lab.Lab) error {
	o, err := startOVN(l)
	if err != nil {
		return err
	}
	if err := o.ports("vm1", "vm2"); err != nil {
		return err
	}
	commands := [][]string{{"pg-add", "pg", "if-vm1", "if-vm2"}}
	for _, side := range []struct{ direction, port, peer string }{{"to-lport", "outport", "ip4.src"}, {"from-lport", "inport",
		"ip4.dst"}} {
		for _, proto := range []string{"tcp", "udp"} {
			commands = append(commands, []string{"acl-add", "pg", side.direction, "1000", fmt.Sprintf(
				"%s == @pg && %s == {%s, %s} && %s.dst >= %d && %[5]s.dst <= %[7]d", side.port, side.peer, l.VMs["vm1"].IPv4,
				l.VMs["vm2"].IPv4, proto,
				echoPort, bulkPort), "allow-related"})
		}
		commands = append(commands, []string{"acl-add", "pg", side.direction, "1", side.port + " == @pg && ip", "drop"})
	}
	return o.run(commands...)
}

func guardByNormal(l *lab.Lab) error {
	_, err := l.Ofctl("add-flow", "br0", "actions=normal")
	return err
}
