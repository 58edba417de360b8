package lab

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func (l *Lab) env() []string {
	return append(os.Environ(), "OVS_RUNDIR="+l.Dir, "OVS_LOGDIR="+l.Dir, "OVS_DBDIR="+l.Dir, "OVS_SYSCONFDIR="+l.Dir)
}

// DB is the address of the lab's OVSDB server.
func (l *Lab) DB() string { return "unix:" + filepath.Join(l.Dir, "db.sock") }

func (l *Lab) tool(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = l.env()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// Vsctl runs ovs-vsctl against the lab's database.
func (l *Lab) Vsctl(args ...string) (string, error) {
	return l.tool("ovs-vsctl", append([]string{"--timeout=10", "--db=" + l.DB()}, args...)...)
}

// Ofctl runs ovs-ofctl with OpenFlow 1.3; bridge is put behind the command.
func (l *Lab) Ofctl(command, bridge string, args ...string) (string, error) {
	return l.tool("ovs-ofctl", append([]string{"-O", "OpenFlow13", command, filepath.Join(l.Dir, bridge+".mgmt")}, args...)...)
}

// Appctl runs ovs-appctl against vswitchd.
func (l *Lab) Appctl(args ...string) (string, error) {
	return l.tool("ovs-appctl", append([]string{"-T", "10"}, args...)...)
}

// Spawn starts a program of the lab in the switch's namespace with its output in DIR/NAME.log; it is killed when the lab closes.
func (l *Lab) Spawn(name string, argv ...string) (*exec.Cmd, error) {
	return l.SpawnIn(l.Switch, name, argv...)
}

// SpawnIn is Spawn in another namespace.
func (l *Lab) SpawnIn(ns NS, name string, argv ...string) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(l.Dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = l.env(), log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := ns.Do(cmd.Start); err != nil {
		return nil, err
	}
	l.onClose(func() error { Kill(cmd); return nil })
	return cmd, os.WriteFile(filepath.Join(l.Dir, name+".pid"), fmt.Appendln(nil, cmd.Process.Pid), 0o600)
}

// Kill ends a process the hard way and reaps it.
func Kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func (l *Lab) startOVS() error {
	if _, err := l.tool("ovsdb-tool", "create", filepath.Join(l.Dir, "conf.db"), "/usr/share/openvswitch/vswitch.ovsschema"); err != nil {
		return err
	}
	if err := l.StartOVSDB(); err != nil {
		return err
	}
	if _, err := l.Vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".", "external_ids:system-id="+l.Name); err != nil {
		return err
	}
	return l.StartVswitchd()
}

// StartOVSDB starts the database server. As ovs-ctl does it, it listens also where its rows say (ovs-vsctl set-manager, set-ssl).
func (l *Lab) StartOVSDB() (err error) {
	l.ovsdb, err = l.Spawn("ovsdb", "ovsdb-server", filepath.Join(l.Dir, "conf.db"), "--remote=p"+l.DB(),
		"--unixctl="+filepath.Join(l.Dir, "ovsdb.ctl"), "--no-chdir", "--remote=db:Open_vSwitch,Open_vSwitch,manager_options",
		"--private-key=db:Open_vSwitch,SSL,private_key", "--certificate=db:Open_vSwitch,SSL,certificate",
		"--bootstrap-ca-cert=db:Open_vSwitch,SSL,ca_cert")
	if err != nil {
		return err
	}
	return awaitSocket(filepath.Join(l.Dir, "db.sock"))
}

// KillOVSDB ends the database server without warning.
func (l *Lab) KillOVSDB() { Kill(l.ovsdb) }

// StartVswitchd starts the switch and returns when it has taken up its configuration.
func (l *Lab) StartVswitchd() (err error) {
	argv := []string{"ovs-vswitchd", l.DB(), "--pidfile=" + filepath.Join(l.Dir, "ovs-vswitchd.pid"), "--no-chdir"}
	l.vswitchd, err = l.Spawn("vswitchd", append(argv, l.VswitchdArgs...)...)
	if err != nil {
		return err
	}
	_, err = l.Vsctl("set", "Open_vSwitch", ".", "external_ids:hostname=lab")
	return err
}

// VswitchdPid is the process id of the switch.
func (l *Lab) VswitchdPid() int { return l.vswitchd.Process.Pid }

// KillVswitchd ends the switch without warning; its bridges' sockets vanish when it is started again.
func (l *Lab) KillVswitchd() { Kill(l.vswitchd) }

// PauseVswitchd freezes the switch (SIGSTOP) or lets it go on.
func (l *Lab) PauseVswitchd(stop bool) error {
	if stop {
		return l.vswitchd.Process.Signal(syscall.SIGSTOP)
	}
	return l.vswitchd.Process.Signal(syscall.SIGCONT)
}

// PauseOVSDB freezes the database server (SIGSTOP) or lets it go on.
func (l *Lab) PauseOVSDB(stop bool) error {
	if stop {
		return l.ovsdb.Process.Signal(syscall.SIGSTOP)
	}
	return l.ovsdb.Process.Signal(syscall.SIGCONT)
}

func awaitSocket(path string) error {
	for range 1000 {
		if c, err := net.Dial("unix", path); err == nil {
			return c.Close()
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("%s did not appear within 5 s", path)
}
