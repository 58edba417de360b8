package oftest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// OVSOptions adjusts [StartOVS]. The zero value is right for most tests.
type OVSOptions struct {
	// Env is added to the environment of both daemons and all tools, as NAME=value.
	Env []string
	// VswitchdArgs are added to the command line of ovs-vswitchd.
	VswitchdArgs []string
	// NoVswitchd leaves the switch to a later call of StartVswitchd; AddBridge needs it.
	NoVswitchd bool
	// SystemID becomes Open_vSwitch.external_ids:system-id; "" = "test".
	SystemID string
}

// OVS is a private Open vSwitch. Its methods fail the test when a tool fails, so they must be called from the test's own
// goroutine unless they return an error.
type OVS struct {
	// RunDir holds every file of this switch: sockets, database, logs, pid files.
	RunDir string

	t    testing.TB
	opts OVSOptions

	mu       sync.Mutex // guards what follows
	ovsdb    *exec.Cmd
	vswitchd *exec.Cmd
}

// need returns the path of the database schema, or what is missing.
func need() (schema string, err error) {
	for _, p := range []string{"ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl", "ovs-appctl"} {
		if _, err := find(p); err != nil {
			return "", err
		}
	}
	for _, dir := range []string{os.Getenv("OVS_PKGDATADIR"), "/usr/share/openvswitch", "/usr/local/share/openvswitch"} {
		if dir == "" {
			continue
		}
		p := filepath.Join(dir, "vswitch.ovsschema")
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", errors.New("vswitch.ovsschema not found")
}

// find is exec.LookPath that also looks where daemons live: an unprivileged user seldom has sbin in PATH.
func find(program string) (string, error) {
	p, err := exec.LookPath(program)
	if err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
		if p, err2 := exec.LookPath(filepath.Join(dir, program)); err2 == nil {
			return p, nil
		}
	}
	return "", err
}

// StartOVS starts a private Open vSwitch and stops it at the end of the test. It skips the test if Open vSwitch is not
// installed, and fails it instead if the environment says CI=true. Both daemons are killed and reaped by process id.
func StartOVS(t testing.TB, opts OVSOptions) *OVS {
	t.Helper()
	schema, err := need()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("Open vSwitch is needed when CI=true: %v", err)
		}
		t.Skipf("Open vSwitch is needed: %v", err)
	}
	// Not t.TempDir: its path holds the test's name and a unix socket's path may not exceed 107 bytes.
	dir, err := os.MkdirTemp("", "tw")
	if err != nil {
		t.Fatal(err)
	}
	o := &OVS{RunDir: dir, t: t, opts: opts}
	t.Cleanup(o.close)
	if out, err := o.Tool("ovsdb-tool", "create", filepath.Join(dir, "conf.db"), schema); err != nil {
		t.Fatalf("create the database: %v\n%s", err, out)
	}
	o.StartOVSDB()
	id := opts.SystemID
	if id == "" {
		id = "test"
	}
	o.Vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".", "external_ids:system-id="+id)
	if !opts.NoVswitchd {
		o.StartVswitchd()
	}
	return o
}

func (o *OVS) env() []string {
	env := append(os.Environ(), "OVS_RUNDIR="+o.RunDir, "OVS_LOGDIR="+o.RunDir, "OVS_DBDIR="+o.RunDir, "OVS_SYSCONFDIR="+o.RunDir)
	return append(env, o.opts.Env...)
}

// DBAddr is the address of the OVSDB server: unix:PATH.
func (o *OVS) DBAddr() string { return "unix:" + filepath.Join(o.RunDir, "db.sock") }

// MgmtAddr is the OpenFlow management address of a bridge: unix:PATH.
func (o *OVS) MgmtAddr(bridge string) string {
	return "unix:" + filepath.Join(o.RunDir, bridge+".mgmt")
}

// Tool runs a program of Open vSwitch against this switch and returns all it printed.
func (o *OVS) Tool(name string, args ...string) (string, error) {
	path, err := find(name)
	if err != nil {
		return "", err
	}
	cmd := exec.Command(path, args...)
	cmd.Env = o.env()
	cmd.Dir = o.RunDir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return out.String(), nil
}

func (o *OVS) must(out string, err error) string {
	o.t.Helper()
	if err != nil {
		o.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// Vsctl runs ovs-vsctl against the database and returns its output.
func (o *OVS) Vsctl(args ...string) string {
	o.t.Helper()
	return o.must(o.Tool("ovs-vsctl", append([]string{"--timeout=20", "--db=" + o.DBAddr()}, args...)...))
}

// Ofctl runs ovs-ofctl with OpenFlow 1.3 and returns its output. A bridge is named by its plain name.
func (o *OVS) Ofctl(args ...string) string {
	o.t.Helper()
	return o.must(o.OfctlErr(args...))
}

// OfctlErr is Ofctl for commands that may fail.
func (o *OVS) OfctlErr(args ...string) (string, error) {
	return o.Tool("ovs-ofctl", append([]string{"-O", "OpenFlow13", "--timeout=20"}, args...)...)
}

// Appctl runs ovs-appctl against ovs-vswitchd and returns its output.
func (o *OVS) Appctl(args ...string) string {
	o.t.Helper()
	return o.must(o.AppctlErr(args...))
}

// AppctlErr is Appctl for commands that may fail.
func (o *OVS) AppctlErr(args ...string) (string, error) {
	return o.Tool("ovs-appctl", append([]string{"--timeout=20", "--target=ovs-vswitchd"}, args...)...)
}

// AddBridge adds a bridge with the datapath type "dummy" or "netdev" ("" = dummy; both forward in this process here) and
// further ovs-vsctl settings of its Bridge row, such as "protocols=OpenFlow13". It has fail_mode=secure, so it starts with
// no flows.
func (o *OVS) AddBridge(name, datapathType string, settings ...string) {
	o.t.Helper()
	if datapathType == "" {
		datapathType = "dummy"
	}
	args := []string{"add-br", name, "--", "set", "Bridge", name, "datapath_type=" + datapathType, "fail_mode=secure"}
	o.Vsctl(append(args, settings...)...)
}

// AddPort adds a dummy port with a fixed OpenFlow number (0 = let the switch choose) and further ovs-vsctl settings of
// its Interface row, and returns its number.
func (o *OVS) AddPort(bridge, port string, number uint32, settings ...string) uint32 {
	o.t.Helper()
	args := []string{"add-port", bridge, port, "--", "set", "Interface", port, "type=dummy"}
	if number != 0 {
		args = append(args, "ofport_request="+strconv.FormatUint(uint64(number), 10))
	}
	o.Vsctl(append(args, settings...)...)
	text := strings.TrimSpace(o.Vsctl("get", "Interface", port, "ofport"))
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		o.t.Fatalf("ofport of %s: %v", port, err)
	}
	return uint32(n)
}

// InjectPacket makes frame arrive at a dummy port.
func (o *OVS) InjectPacket(port string, frame []byte) {
	o.t.Helper()
	o.Appctl("netdev-dummy/receive", port, hex.EncodeToString(frame))
}

// StartOVSDB starts the database server; it must not be running.
func (o *OVS) StartOVSDB() {
	o.t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	sock := filepath.Join(o.RunDir, "db.sock")
	_ = os.Remove(sock)
	o.ovsdb = o.spawn("ovsdb-server", filepath.Join(o.RunDir, "conf.db"), "--remote=punix:"+sock,
		"--unixctl="+filepath.Join(o.RunDir, "ovsdb.ctl"), "--no-chdir", "--log-file="+filepath.Join(o.RunDir, "ovsdb.log"),
		"--verbose=console:off")
	o.await(sock)
}

// KillOVSDB ends the database server with SIGKILL.
func (o *OVS) KillOVSDB() {
	o.mu.Lock()
	defer o.mu.Unlock()
	kill(&o.ovsdb)
}

// StartVswitchd starts ovs-vswitchd, which must not be running, and returns when it has taken up the database.
func (o *OVS) StartVswitchd() {
	o.t.Helper()
	o.mu.Lock()
	args := []string{o.DBAddr(), "--pidfile=" + filepath.Join(o.RunDir, "ovs-vswitchd.pid"),
		"--enable-dummy=override", "--disable-system", "--no-chdir",
		"--log-file=" + filepath.Join(o.RunDir, "vswitchd.log"), "--verbose=console:off"}
	o.vswitchd = o.spawn("ovs-vswitchd", append(args, o.opts.VswitchdArgs...)...)
	o.mu.Unlock()
	// A change that ovs-vsctl waits for: done when the switch has configured itself.
	o.Vsctl("set", "Open_vSwitch", ".", "external_ids:started="+strconv.FormatInt(time.Now().UnixNano(), 10))
}

// KillVswitchd ends ovs-vswitchd with SIGKILL: its sockets stay behind, refusing connections, until it is started again.
func (o *OVS) KillVswitchd() {
	o.mu.Lock()
	defer o.mu.Unlock()
	kill(&o.vswitchd)
}

// SignalVswitchd sends a signal to ovs-vswitchd: SIGSTOP makes it hang, SIGCONT go on.
func (o *OVS) SignalVswitchd(sig syscall.Signal) {
	o.t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.vswitchd == nil {
		o.t.Fatal("ovs-vswitchd is not running")
	}
	if err := o.vswitchd.Process.Signal(sig); err != nil {
		o.t.Fatal(err)
	}
}

func (o *OVS) spawn(name string, args ...string) *exec.Cmd {
	o.t.Helper()
	path, err := find(name)
	if err != nil {
		o.t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env, cmd.Dir = o.env(), o.RunDir
	// A session of its own, so that a Ctrl-C at the test does not reach it before the cleanup.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		o.t.Fatalf("start %s: %v", name, err)
	}
	return cmd
}

// await waits until something listens at path: the socket's file is there a moment before.
func (o *OVS) await(path string) {
	o.t.Helper()
	for range 2000 {
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	o.t.Fatalf("nothing listens at %s after 10 s", path)
}

func kill(cmd **exec.Cmd) {
	if *cmd == nil {
		return
	}
	_ = (*cmd).Process.Kill()
	_ = (*cmd).Wait()
	*cmd = nil
}

func (o *OVS) close() {
	o.mu.Lock()
	kill(&o.vswitchd)
	kill(&o.ovsdb)
	o.mu.Unlock()
	if o.t.Failed() {
		log, _ := os.ReadFile(filepath.Join(o.RunDir, "vswitchd.log"))
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, "|WARN|") || strings.Contains(line, "|ERR|") || strings.Contains(line, "|EMER|") {
				o.t.Logf("vswitchd: %s", line)
			}
		}
	}
	_ = os.RemoveAll(o.RunDir)
}
