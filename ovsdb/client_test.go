package ovsdb_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/ovsdbtest"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

func TestNewRefusesAddresss(t *testing.T) {
	tests := []struct{ name, address, want string }{
		{"bad scheme", "udp:1.2.3.4:6640", "unknown scheme"},
		{"bad no scheme", "/run/db.sock", "want unix:"},
		{"bad relative path", "unix:db.sock", "absolute path"},
		{"bad no port", "tcp:127.0.0.1", "host:port"},
		{"bad ssl without TLS", "ssl:127.0.0.1:6640", "needs a TLS"},
		{"bad path that is no plain URL", "unix:/run/a%zz", "URL"},
		{"bad path with a fragment", "unix:/run/a#b", "URL"},
		{"OK default", "", ""},
		{"OK unix", "unix:/run/db.sock", ""},
		{"OK tcp", "tcp:127.0.0.1:6640", ""},
		{"OK tcp IPv6", "tcp:[::1]:6640", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ovsdb.New(ovsdb.Options{Address: tt.address})
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, ovsdb.ErrAddress) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want ErrAddress with %q", err, tt.want)
			}
		})
	}
}

func TestTopology(t *testing.T) {
	o := ovsdbtest.New(t)
	o.Vsctl("set", "Open_vSwitch", ".", "external_ids:system-id=host1", "ovs_version=3.1.0", "db_version=8.3.1", "--",
		"add-br", "br0", "--", "set", "Bridge", "br0", "fail_mode=secure", "protocols=OpenFlow13,OpenFlow10",
		"external_ids:a=b", "other_config:hwaddr=02:00:00:00:00:01", "--",
		"set-controller", "br0", "ptcp:0:127.0.0.1", "--",
		"add-port", "br0", "p1", "tag=10", "--", "set", "Interface", "p1", "external_ids:iface-id=id1",
		"external_ids:attached-mac=02:aa:00:00:00:01", "--",
		"add-bond", "br0", "bond0", "p2", "p3", "trunks=5,3", "vlan_mode=trunk", "--",
		"--id=@p1", "get", "Port", "p1", "--", "--id=@b", "get", "Port", "bond0", "--",
		"--id=@m", "create", "Mirror", "name=m0", "select_src_port=@p1", "select_dst_port=@p1", "output_port=@b", "select_vlan=7,4",
		"snaplen=100", "--",
		"set", "Bridge", "br0", "mirrors=@m")
	c := connected(t, o)
	got := eventually(t, c, "ports with numbers", func(s *vswitch.Topology) bool {
		b := s.Bridges["br0"]
		return s.Host == "host1" && b != nil && len(b.Ports) == 3 && b.DatapathID != "" && s.CurCfg == s.NextCfg &&
			b.Ports["bond0"].Interfaces[1].OFPort > 0 && b.Ports["p1"].Interfaces[0].OFPort > 0 && b.Ports["p1"].Interfaces[0].LinkState != ""
	})

	if got.OVSVersion == "" || got.DBVersion == "" || got.Generation == 0 || got.Structure == 0 || got.NextCfg == 0 {
		t.Errorf("incomplete: %+v", got)
	}
	tag, snaplen := 10, 100
	iface := func(name string) *vswitch.Interface {
		return &vswitch.Interface{Name: name, AdminState: "up", LinkState: "up"}
	}
	p1 := iface("p1")
	p1.ExternalIDs = map[string]string{"iface-id": "id1", "attached-mac": "02:aa:00:00:00:01"}
	br0 := iface("br0")
	br0.Type = "internal"
	want := &vswitch.Bridge{
		Name:        "br0",
		FailMode:    "secure",
		Protocols:   []string{"OpenFlow10", "OpenFlow13"},
		ExternalIDs: map[string]string{"a": "b"},
		OtherConfig: map[string]string{"hwaddr": "02:00:00:00:00:01"},
		Controllers: []vswitch.Controller{{Target: "ptcp:0:127.0.0.1"}},
		Ports: map[string]*vswitch.Port{
			"br0":   {Name: "br0", Interfaces: []*vswitch.Interface{br0}},
			"p1":    {Name: "p1", Tag: &tag, Interfaces: []*vswitch.Interface{p1}},
			"bond0": {Name: "bond0", Trunks: []int{3, 5}, VLANMode: "trunk", Interfaces: []*vswitch.Interface{iface("p2"), iface("p3")}},
		},
		Mirrors: []*vswitch.Mirror{{
			Name: "m0", SelectSrcPort: []string{"p1"}, SelectDstPort: []string{"p1"}, SelectVLAN: []int{4, 7}, OutputPort: "bond0",
			Snaplen: &snaplen,
		}},
	}
	volatile := cmp.Options{
		cmpopts.IgnoreFields(vswitch.Bridge{}, "UUID", "DatapathID"),
		cmpopts.IgnoreFields(vswitch.Controller{}, "UUID"),
		cmpopts.IgnoreFields(vswitch.Port{}, "UUID"),
		cmpopts.IgnoreFields(vswitch.Interface{}, "UUID", "OFPort", "MACInUse", "MTU", "AdminState", "LinkState"),
		cmpopts.IgnoreFields(vswitch.Mirror{}, "UUID", "Statistics"),
	}
	if diff := cmp.Diff(want, got.Bridges["br0"], volatile); diff != "" {
		t.Errorf("bridge (-want +got):\n%s", diff)
	}
	i := got.Bridges["br0"].Ports["p1"].Interfaces[0]
	if i.MACInUse == "" || i.MTU == 0 || i.AdminState == "" || i.UUID == "" {
		t.Errorf("interface without state: %+v", i)
	}

	// Bridges come and go.
	o.Vsctl("add-br", "br1")
	eventually(t, c, "br1", func(s *vswitch.Topology) bool { return s.Bridges["br1"] != nil })
	o.Vsctl("del-br", "br0")
	s := eventually(t, c, "br0 gone", func(s *vswitch.Topology) bool { return s.Bridges["br0"] == nil })
	if len(s.Bridges) != 1 {
		t.Errorf("bridges %v, want br1 only", s.Bridges)
	}
	if got.Bridges["br0"] == nil || got.Bridges["br1"] != nil {
		t.Error("an old snapshot has changed")
	}
}

func TestInterfaceErrorIsSeen(t *testing.T) {
	o := ovsdbtest.New(t)
	c := connected(t, o)
	// ovs-vsctl fails when it waits for the bad port.
	o.Vsctl("--no-wait", "add-br", "br0", "--", "add-port", "br0", "bad0", "--", "set", "Interface", "bad0", "type=nosuch", "--", "add-port",
		"br0", "good0")
	eventually(t, c, "refused port", func(s *vswitch.Topology) bool {
		b := s.Bridges["br0"]
		if b == nil || b.Ports["bad0"] == nil || b.Ports["good0"].Interfaces[0].OFPort <= 0 {
			return false
		}
		i := b.Ports["bad0"].Interfaces[0]
		return i.OFPort == -1 && i.Error != ""
	})
}

// Counters alone leave Structure as it is, and unchanged parts are shared between snapshots.
func TestStructureIgnoresCounters(t *testing.T) {
	o := ovsdbtest.Prepare(t, nil)
	o.StartDB() // no ovs-vswitchd: nobody else changes anything
	c := connected(t, o)
	o.Vsctl("--no-wait", "add-br", "br0", "--", "add-port", "br0", "p1", "--", "--id=@m", "create", "Mirror", "name=m0", "--", "set",
		"Bridge", "br0", "mirrors=@m")
	before := eventually(t, c, "mirror", func(s *vswitch.Topology) bool {
		return s.Bridges["br0"] != nil &&
			len(s.Bridges["br0"].Mirrors) == 1
	})

	o.Vsctl("--no-wait", "set", "Mirror", "m0", "statistics:tx_packets=5", "statistics:tx_bytes=320")
	after := eventually(t, c, "counters", func(s *vswitch.Topology) bool { return s.Generation > before.Generation })
	if diff := cmp.Diff(map[string]int64{"tx_packets": 5, "tx_bytes": 320}, after.Bridges["br0"].Mirrors[0].Statistics); diff != "" {
		t.Errorf("statistics (-want +got):\n%s", diff)
	}
	if after.Structure != before.Structure {
		t.Errorf("Structure went from %d to %d by counters", before.Structure, after.Structure)
	}
	if before.Bridges["br0"].Ports["p1"] != after.Bridges["br0"].Ports["p1"] {
		t.Error("an unchanged port was made again")
	}
	if len(before.Bridges["br0"].Mirrors[0].Statistics) != 0 {
		t.Error("an old snapshot has changed")
	}

	o.Vsctl("--no-wait", "set", "Open_vSwitch", ".", "next_cfg=99")
	after2 := eventually(t, c, "next_cfg", func(s *vswitch.Topology) bool { return s.NextCfg == 99 })
	if after2.Structure != before.Structure || after2.Generation == after.Generation {
		t.Errorf("next_cfg: Structure %d → %d, Generation %d → %d", before.Structure, after2.Structure, after.Generation, after2.Generation)
	}
	o.Vsctl("--no-wait", "set", "Port", "p1", "tag=3")
	eventually(t, c, "structure", func(s *vswitch.Topology) bool {
		return s.Structure == before.Structure+1 && *s.Bridges["br0"].Ports["p1"].Tag == 3
	})
}

func TestMissingSocketThenAppears(t *testing.T) {
	o := ovsdbtest.Prepare(t, nil)
	c := run(t, o)
	for range 2 {
		for deadline := time.Now().Add(10 * time.Second); !strings.Contains(c.Status().LastError, "no socket at "+
			o.Socket()); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("status %+v", c.Status())
			}
		}
		time.Sleep(50 * time.Millisecond) // several attempts
	}
	if s := c.Status(); s.Connected || c.Topology() != nil || s.Address != o.Address() {
		t.Errorf("status %+v, topology %v", s, c.Topology())
	}
	o.StartDB()
	eventually(t, c, "snapshot", func(s *vswitch.Topology) bool { return s != nil && c.Status().Connected })
	if s := c.Status(); s.Reconnects != 0 {
		t.Errorf("%d reconnects, want 0: it was the first connection", s.Reconnects)
	}
	select {
	case <-c.Ready():
	default:
		t.Error("not ready with a snapshot")
	}
}

func TestRefusedConnection(t *testing.T) {
	o := ovsdbtest.Prepare(t, nil)
	o.StartDB()
	o.KillDB() // leaves the socket file
	c := run(t, o)
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(c.Status().LastError,
		"nothing listens on"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("status %+v", c.Status())
		}
	}
}

// TestPermission runs itself as another user, because root may open every socket.
func TestPermission(t *testing.T) {
	if path := os.Getenv("OVSDB_TEST_SOCKET"); path != "" {
		c, err := ovsdb.New(ovsdb.Options{Address: "unix:" + path})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = c.Run(t.Context()) }()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			if strings.Contains(c.Status().LastError, "no permission for "+path) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("status %+v", c.Status())
			}
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	o := ovsdbtest.Prepare(t, nil)
	o.StartDB()
	exe, err := os.CreateTemp("", "ovsdbtest")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(exe.Name())
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exe.Write(self); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(exe.Chmod(0o755), exe.Close(), os.Chmod(o.Dir, 0o755), os.Chmod(o.Socket(), 0o600)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe.Name(), "-test.run=^TestPermission$")
	cmd.Dir = "/"
	cmd.Env = []string{"OVSDB_TEST_SOCKET=" + o.Socket()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestUninitialisedDatabase(t *testing.T) {
	o := ovsdbtest.Prepare(t, nil)
	o.StartDB()
	o.Delete("Open_vSwitch")
	c := run(t, o)
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(c.Status().LastError,
		"no Open_vSwitch row"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("status %+v", c.Status())
		}
	}
	if c.Topology() != nil {
		t.Error("a topology of nothing was published")
	}
	o.Vsctl("--no-wait", "init")
	eventually(t, c, "snapshot", func(s *vswitch.Topology) bool { return s != nil })
}

func TestSchemaWithoutColumn(t *testing.T) {
	o := ovsdbtest.Prepare(t, func(schema map[string]any) {
		tables := schema["tables"].(map[string]any)
		delete(tables["Mirror"].(map[string]any)["columns"].(map[string]any), "snaplen")
		delete(tables["Interface"].(map[string]any)["columns"].(map[string]any), "error")
		tables["Port"].(map[string]any)["columns"].(map[string]any)["tag"] = map[string]any{"type": "string"}
	})
	o.StartDB()
	c := run(t, o)
	for deadline := time.Now().Add(10 * time.Second); c.Status().LastError == ""; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("status %+v", c.Status())
		}
	}
	for _, want := range []string{"missing Interface.error, Mirror.snaplen", "Port.tag: want *int, have string", "2.13"} {
		if got := c.Status().LastError; !strings.Contains(got, want) {
			t.Errorf("%q does not contain %q", got, want)
		}
	}
}

// watchFor calls check with every snapshot that a subscriber sees until the test ends.
func watchFor(t *testing.T, c *ovsdb.Client, check func(*vswitch.Topology) error) (seen *atomic.Int64) {
	t.Helper()
	seen = new(atomic.Int64)
	wake, cancel := c.Subscribe()
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if s := c.Topology(); s != nil {
				seen.Add(1)
				if err := check(s); err != nil {
					t.Errorf("generation %d: %v", s.Generation, err)
					return
				}
			}
			select {
			case <-wake:
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-ended
		cancel()
	})
	return seen
}

func TestServerRestarts(t *testing.T) {
	o := ovsdbtest.New(t)
	args := []string{"add-br", "br0", "--", "--id=@m", "create", "Mirror", "name=m0", "select_all=true", "--", "set", "Bridge", "br0",
		"mirrors=@m", "--", "set-controller", "br0", "ptcp:0:127.0.0.1"}
	for i := range 20 {
		args = append(args, "--", "add-port", "br0", fmt.Sprintf("p%d", i))
	}
	o.Vsctl(args...)
	c := connected(t, o)
	full := func(s *vswitch.Topology) error {
		b := s.Bridges["br0"]
		if b == nil || len(b.Ports) < 21 || len(b.Mirrors) != 1 || len(b.Controllers) != 1 {
			return fmt.Errorf("incomplete: %+v", b)
		}
		for name, p := range b.Ports {
			if len(p.Interfaces) != 1 || p.Interfaces[0].Name != name {
				return fmt.Errorf("port %s is incomplete: %+v", name, p)
			}
		}
		return nil
	}
	eventually(t, c, "all ports", func(s *vswitch.Topology) bool { return full(s) == nil && s.CurCfg == s.NextCfg })
	seen := watchFor(t, c, full)

	// A restart with an addition while the client cannot look; and more drops than a cache that is purged per monitor survives.
	for i := range 22 {
		before := c.Status()
		o.KillDB()
		eventually(t, c, "loss", func(*vswitch.Topology) bool { s := c.Status(); return !s.Connected || s.Reconnects > before.Reconnects })
		if i == 0 {
			s := c.Status()
			if s.LastError == "" || s.Since.Before(before.Since) {
				t.Errorf("status after the loss: %+v", s)
			}
			if full(c.Topology()) != nil {
				t.Error("the last topology is gone with the connection")
			}
		}
		o.StartDB()
		eventually(t, c, "reconnect", func(*vswitch.Topology) bool {
			s := c.Status()
			return s.Connected && s.Reconnects == before.Reconnects+1
		})
		if err := full(c.Topology()); err != nil {
			t.Fatal(err)
		}
		if i%7 == 0 {
			o.Vsctl("--no-wait", "add-port", "br0", fmt.Sprintf("late%d", i))
			eventually(t, c, "changes after the reconnect", func(s *vswitch.Topology) bool {
				return s.Bridges["br0"].Ports[fmt.Sprintf("late%d",
					i)] != nil
			})
		}
	}
	if seen.Load() < 22 {
		t.Errorf("the subscriber saw %d snapshots", seen.Load())
	}
	if got := len(c.Topology().Bridges["br0"].Ports); got != 25 {
		t.Errorf("%d ports, want 25", got)
	}
}

// Rows that disappear while the connection is down are gone afterwards.
func TestDeletedWhileDisconnected(t *testing.T) {
	o := ovsdbtest.Prepare(t, nil)
	o.StartDB()
	o.Vsctl("--no-wait", "add-br", "br0", "--", "add-port", "br0", "p1", "--", "add-port", "br0", "p2")
	c := connected(t, o)
	before := c.Topology()
	p1 := strings.TrimSpace(o.Vsctl("get", "port", "p1", "_uuid"))
	o.KillDB()
	eventually(t, c, "loss", func(*vswitch.Topology) bool { return !c.Status().Connected })
	o.Transact(fmt.Sprintf(`["Open_vSwitch",{"op":"mutate","table":"Bridge","where":[],"mutations":[["ports","delete",["uuid",%q]]]}]`, p1))
	o.StartDB()
	s := eventually(t, c, "reconnect", func(s *vswitch.Topology) bool { return c.Status().Connected && s != before })
	if ports := s.Bridges["br0"].Ports; ports["p1"] != nil || ports["p2"] == nil {
		t.Errorf("ports %v", ports)
	}
	if s.Bridges["br0"].Ports["p2"] != before.Bridges["br0"].Ports["p2"] {
		t.Error("an equal row became another value")
	}
}

func TestHangIsNoticed(t *testing.T) {
	o := ovsdbtest.Prepare(t, nil)
	o.StartDB()
	o.Vsctl("--no-wait", "add-br", "br0")
	c := connected(t, o, func(opts *ovsdb.Options) {
		// A shorter time would take a busy server for one that hangs.
		opts.ProbeInterval, opts.ProbeTimeout, opts.Timeout = 50*time.Millisecond, time.Second, time.Second
	})
	o.FreezeDB()
	start := time.Now()
	eventually(t, c, "loss", func(*vswitch.Topology) bool { return !c.Status().Connected })
	t.Logf("noticed after %v", time.Since(start))
	if got := c.Status().LastError; !strings.Contains(got, "probe") {
		t.Errorf("LastError %q", got)
	}
	if _, err := c.Apply(t.Context(), ovsdb.Desired{}); !errors.Is(err, ovsdb.ErrNotConnected) {
		t.Errorf("Apply while the server hangs: %v", err)
	}
	time.Sleep(2 * time.Second) // some attempts that the kernel accepts and the server does not answer
	o.ThawDB()
	start = time.Now()
	eventually(t, c, "recovery", func(*vswitch.Topology) bool { return c.Status().Connected })
	t.Logf("recovered after %v", time.Since(start))
	o.Vsctl("--no-wait", "add-br", "br1")
	eventually(t, c, "changes", func(s *vswitch.Topology) bool { return s.Bridges["br1"] != nil })
}

// Every transaction is seen whole or not at all.
func TestNoHalfTransactions(t *testing.T) {
	const n = 40
	o := ovsdbtest.Prepare(t, nil)
	o.StartDB()
	o.Vsctl("--no-wait", "add-br", "br0")
	c := connected(t, o)
	watchFor(t, c, func(s *vswitch.Topology) error {
		b := s.Bridges["br0"]
		if b == nil || len(b.Ports) != 1 && len(b.Ports) != 1+n {
			return fmt.Errorf("%d ports", len(b.Ports))
		}
		if id := b.ExternalIDs["ports"]; len(b.Ports) == 1+n && id != "many" || len(b.Ports) == 1 && id == "many" {
			return fmt.Errorf("%d ports with %q", len(b.Ports), id)
		}
		return nil
	})
	var add, del []string
	for i := range n {
		add = append(add, "--", "add-port", "br0", fmt.Sprintf("p%d", i))
		del = append(del, "--", "del-port", "br0", fmt.Sprintf("p%d", i))
	}
	for range 30 {
		o.Vsctl(append([]string{"--no-wait", "set", "Bridge", "br0", "external_ids:ports=many"}, add...)...)
		o.Vsctl(append([]string{"--no-wait", "set", "Bridge", "br0", "external_ids:ports=none"}, del...)...)
	}
	eventually(t, c, "the end", func(s *vswitch.Topology) bool { return s.Bridges["br0"].ExternalIDs["ports"] == "none" })
}
