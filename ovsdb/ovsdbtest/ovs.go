// Package ovsdbtest runs a private Open vSwitch for tests: a real ovsdb-server and ovs-vswitchd with the dummy datapath, unprivileged,
// with every file in a temporary directory of its own. Servers can be killed, frozen and started again.
package ovsdbtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Schema is where packages install the schema.
const Schema = "/usr/share/openvswitch/vswitch.ovsschema"

// OVS is one private Open vSwitch. Methods fail the test that made it. It is not safe for concurrent use.
type OVS struct {
	Dir string // run directory: db.sock, pid files, control sockets, logs

	// RealTunnels leaves the device types other than "dummy" real: a tunnel can be refused then, but bridges need
	// datapath_type=dummy and ports type=dummy. Set it before StartSwitch.
	RealTunnels bool

	// DBArgs are further arguments of ovsdb-server. Set them before StartDB.
	DBArgs []string

	t      testing.TB
	db, sw *daemon
}

type daemon struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// New starts both servers and initialises the database. They end with the test. A machine without the binaries skips the test,
// with CI=true it fails.
func New(t testing.TB) *OVS {
	t.Helper()
	o := Prepare(t, nil)
	o.StartDB()
	o.StartSwitch()
	return o
}

// Prepare makes the directory and the database and starts nothing. A non-nil edit changes the schema first.
func Prepare(t testing.TB, edit func(schema map[string]any)) *OVS {
	t.Helper()
	for _, name := range []string{"ovsdb-server", "ovsdb-tool", "ovs-vswitchd", "ovs-vsctl", "ovsdb-client", "ovs-appctl", "ovs-ofctl"} {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%s is not installed", name)
			}
			t.Skipf("%s is not installed (Debian: openvswitch-switch)", name)
		}
	}
	// Not t.TempDir: its path holds the test's name and may be longer than a socket address can be.
	dir, err := os.MkdirTemp("", "ovs")
	if err != nil {
		t.Fatal(err)
	}
	o := &OVS{Dir: dir, t: t}
	t.Cleanup(func() {
		o.KillSwitch()
		o.KillDB()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})

	text, err := os.ReadFile(Schema)
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		var schema map[string]any
		if err := json.Unmarshal(text, &schema); err != nil {
			t.Fatal(err)
		}
		edit(schema)
		if text, err = json.Marshal(schema); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "schema")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	o.run("ovsdb-tool", "create", filepath.Join(dir, "conf.db"), file)
	return o
}

// Socket is the path of the database socket.
func (o *OVS) Socket() string { return filepath.Join(o.Dir, "db.sock") }

// Address is the database as an OVSDB address.
func (o *OVS) Address() string { return "unix:" + o.Socket() }

// StartDB starts ovsdb-server and waits until it serves the database.
func (o *OVS) StartDB() {
	o.t.Helper()
	o.db = o.start("ovsdb-server", append([]string{filepath.Join(o.Dir, "conf.db"),
		"--remote=punix:" + o.Socket(), "--unixctl=" + filepath.Join(o.Dir, "ovsdb.ctl")}, o.DBArgs...)...)
	o.wait("ovsdb-server", func() bool {
		return o.command("ovs-vsctl", "--db="+o.Address(), "--timeout=5", "--no-wait", "init").Run() == nil
	})
}

// Transact changes the database while no server has it: a transaction as RFC 7047 §4.1.3 has its params.
func (o *OVS) Transact(params string) string {
	o.t.Helper()
	return o.run("ovsdb-tool", "transact", filepath.Join(o.Dir, "conf.db"), params)
}

// StartSwitch starts ovs-vswitchd and waits until it answers on its control socket.
func (o *OVS) StartSwitch() {
	o.t.Helper()
	dummy := "--enable-dummy=override"
	if o.RealTunnels {
		dummy = "--enable-dummy"
	}
	o.sw = o.start("ovs-vswitchd", o.Address(), dummy, "--disable-system", "--pidfile")
	// The pid file is there before the control socket listens.
	o.wait("ovs-vswitchd", func() bool { return o.command("ovs-appctl", "version").Run() == nil })
}

// KillDB and KillSwitch end a server as a crash would; a server that does not run is none of their business.
func (o *OVS) KillDB() { o.db = o.db.kill() }

// KillSwitch is documented with KillDB.
func (o *OVS) KillSwitch() {
	o.sw = o.sw.kill()
	os.Remove(filepath.Join(o.Dir, "ovs-vswitchd.pid"))
}

// FreezeDB stops ovsdb-server without closing its connections; ThawDB lets it go on.
func (o *OVS) FreezeDB() { o.db.signal(o.t, syscall.SIGSTOP) }

// ThawDB is documented with FreezeDB.
func (o *OVS) ThawDB() { o.db.signal(o.t, syscall.SIGCONT) }

// Vsctl runs ovs-vsctl and returns its output without the final newline.
func (o *OVS) Vsctl(args ...string) string {
	o.t.Helper()
	return o.run("ovs-vsctl", append([]string{"--db=" + o.Address(), "--timeout=20"}, args...)...)
}

// Appctl runs ovs-appctl against ovs-vswitchd.
func (o *OVS) Appctl(args ...string) string {
	o.t.Helper()
	return o.run("ovs-appctl", args...)
}

// Ofctl runs an ovs-ofctl command on a bridge.
func (o *OVS) Ofctl(command, bridge string, args ...string) string {
	o.t.Helper()
	return o.OfctlAt(command, "unix:"+filepath.Join(o.Dir, bridge+".mgmt"), args...)
}

// OfctlAt runs an ovs-ofctl command at an OpenFlow address such as "tcp:127.0.0.1:6653".
func (o *OVS) OfctlAt(command, address string, args ...string) string {
	o.t.Helper()
	return o.run("ovs-ofctl", append([]string{command, address}, args...)...)
}

// Dump prints the rows of one table, or of all, as ovsdb-client does.
func (o *OVS) Dump(table ...string) string {
	o.t.Helper()
	return o.run("ovsdb-client", append([]string{"--format=list", "dump", o.Address(), "Open_vSwitch"}, table...)...)
}

// Delete deletes every row of a table.
func (o *OVS) Delete(table string) {
	o.t.Helper()
	o.run("ovsdb-client", "transact", o.Address(), `["Open_vSwitch",{"op":"delete","table":"`+table+`","where":[]}]`)
}

// AddPorts adds ports "p00000", "p00001", … to a bridge in one transaction, without ovs-vsctl's cost per port.
func (o *OVS) AddPorts(bridge string, n int) {
	o.t.Helper()
	ops := []any{"Open_vSwitch"}
	refs := make([][]string, 0, n)
	for i := range n {
		name, p := fmt.Sprintf("p%05d", i), fmt.Sprintf("port%d", i)
		refs = append(refs, []string{"named-uuid", p})
		ops = append(ops,
			map[string]any{"op": "insert", "table": "Interface", "uuid-name": "i" + p, "row": map[string]any{"name": name}},
			map[string]any{"op": "insert", "table": "Port", "uuid-name": p, "row": map[string]any{"name": name,
				"interfaces": []string{"named-uuid", "i" + p}}})
	}
	ops = append(ops, map[string]any{"op": "mutate", "table": "Bridge", "where": [][]string{{"name", "==", bridge}},
		"mutations": []any{[]any{"ports", "insert", []any{"set", refs}}}})
	text, err := json.Marshal(ops)
	if err != nil {
		o.t.Fatal(err)
	}
	conn, err := net.Dial("unix", o.Socket())
	if err != nil {
		o.t.Fatal(err)
	}
	defer conn.Close()
	var reply struct {
		Result []struct{ Error, Details string }
		Error  any
	}
	if _, err := fmt.Fprintf(conn, `{"method":"transact","id":1,"params":%s}`, text); err != nil {
		o.t.Fatal(err)
	}
	if err := json.NewDecoder(conn).Decode(&reply); err != nil {
		o.t.Fatal(err)
	}
	for _, r := range reply.Result {
		if r.Error != "" {
			o.t.Fatal(r.Error, r.Details)
		}
	}
	if reply.Error != nil {
		o.t.Fatal(reply.Error)
	}
}

// Select returns the rows of a table whose name column has one of the given values, as the server's JSON with every column. That
// includes _version, which changes with every write to a row.
func (o *OVS) Select(table string, names ...string) string {
	o.t.Helper()
	ops := []any{"Open_vSwitch"}
	for _, n := range names {
		ops = append(ops, map[string]any{"op": "select", "table": table, "where": [][]string{{"name", "==", n}}})
	}
	text, err := json.Marshal(ops)
	if err != nil {
		o.t.Fatal(err)
	}
	return o.run("ovsdb-client", "transact", o.Address(), string(text))
}

// Log returns the log of "ovs-vswitchd" or "ovsdb-server".
func (o *OVS) Log(name string) string {
	text, err := os.ReadFile(filepath.Join(o.Dir, name+".out"))
	if err != nil {
		o.t.Fatal(err)
	}
	return string(text)
}

func (o *OVS) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+o.Dir, "OVS_LOGDIR="+o.Dir, "OVS_DBDIR="+o.Dir, "OVS_SYSCONFDIR="+o.Dir, "PATH="+
		os.Getenv("PATH")+":/usr/sbin")
	return cmd
}

func (o *OVS) run(name string, args ...string) string {
	o.t.Helper()
	cmd := o.command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		o.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSuffix(string(out), "\n")
}

func (o *OVS) start(name string, args ...string) *daemon {
	o.t.Helper()
	log, err := os.OpenFile(filepath.Join(o.Dir, name+".out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		o.t.Fatal(err)
	}
	defer log.Close()
	d := &daemon{cmd: o.command(name, args...), done: make(chan struct{})}
	d.cmd.Stdout, d.cmd.Stderr = log, log
	// Also a test binary that is killed leaves nothing behind.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		defer close(d.done)
		// The signal comes when the thread ends that started the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := d.cmd.Start()
		started <- err
		if err == nil {
			_ = d.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		o.t.Fatal(err)
	}
	return d
}

func (o *OVS) wait(what string, ok func() bool) {
	o.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			o.t.Fatal(fmt.Sprintf("%s did not come up:\n", what), o.Log(what))
		}
	}
}

func (d *daemon) kill() *daemon {
	if d != nil {
		_ = d.cmd.Process.Kill()
		<-d.done
	}
	return nil
}

func (d *daemon) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}
