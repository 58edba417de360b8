package e2e

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/tapwall/tapwall/test/lab"
)

// byRole lets clients reach one port of vm2, and everybody another one.
const byRole = `
kind: Policy
name: p
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: clients, action: allow, from: [{labels: {role: client}}], services: [{protocol: tcp, ports: ["5001"]}]}
  - {name: all, action: allow, services: [{protocol: tcp, ports: ["5003"]}]}
`

// relabel gives a machine another role, as an orchestrator does.
func (s *stage) relabel(vm *lab.VM, role string) {
	s.t.Helper()
	_, err := s.Vsctl("set", "interface", vm.Port, "external_ids:role="+role)
	must(s.t, err)
}

// stops waits until nothing has come back to the probe for a while.
func (s *stage) stops(p *lab.Probe, what string) {
	s.t.Helper()
	start := time.Now()
	lab.Eventually(s.t, 10*time.Second, what+" is cut", func() bool {
		return time.Since(start) > time.Second && time.Since(p.LastArrival()) > time.Second
	})
	s.t.Logf("%s: silent %v after the change", what, p.LastArrival().Sub(start).Round(time.Millisecond))
}

// withoutStore is what has to hold while the store takes nothing: access ends by a label and with a port, whoever comes to the place of
// a removed port inherits nothing, and all other access goes on, for old connections and new ones. vm1, vm3 and vm4 are clients of vm2.
func (s *stage) withoutStore(away func()) {
	s.t.Helper()
	for _, vm := range []*lab.VM{s.vm[1], s.vm[3], s.vm[4]} {
		s.relabel(vm, "client")
	}
	s.applyUncached(byRole)
	for _, vm := range []*lab.VM{s.vm[1], s.vm[3], s.vm[4]} {
		s.mustConnect(vm, s.vm[2].IPv4, 5001)
	}
	kept, relabelled, removed := s.echo(s.vm[1], s.vm[2], 5001), s.echo(s.vm[3], s.vm[2], 5001), s.echo(s.vm[4], s.vm[2], 5001)
	s.running(kept, relabelled, removed)
	s.becomesHealthy("healthy before")
	away()

	s.relabel(s.vm[3], "guest")
	s.stops(relabelled, "a connection whose machine lost its label")
	s.mustNotConnect(s.vm[3], s.vm[2].IPv4, 5001)
	s.mustConnect(s.vm[3], s.vm[2].IPv4, 5003)

	out, err := s.Vsctl("get", "interface", "vm4", "ofport")
	must(s.t, err)
	ofport := strings.TrimSpace(out)
	must(s.t, s.Unplug(s.vm[4]))
	vm5, err := s.AddVM("vm5", "br0", 5)
	must(s.t, err)
	_, err = s.Vsctl("set", "interface", "vm5", "ofport_request="+ofport)
	must(s.t, err)
	lab.Eventually(s.t, 5*time.Second, "the new machine is at the place of the removed one", func() bool {
		out, err := s.Vsctl("get", "interface", "vm5", "ofport")
		return err == nil && strings.TrimSpace(out) == ofport
	})
	s.vm[4] = vm5
	s.neighbours()
	lab.Eventually(s.t, 10*time.Second, "the new machine is an endpoint", func() bool {
		return vm5.CanConnect(s.vm[2].IPv4, 5003,
			300*time.Millisecond)
	})
	s.mustNotConnect(vm5, s.vm[2].IPv4, 5001)
	if n := removed.ReceivedSince(time.Now().Add(-500 * time.Millisecond)); n > 0 {
		s.t.Errorf("%d messages came to a machine that was unplugged", n)
	}

	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.lossless(kept, "a connection that nothing was taken from")
}

// With a full disk what removes access happens, and the status says what is not saved. With space again all is saved, and a restart
// changes nothing.
func TestFault_F07_FullDiskRevokes(t *testing.T) {
	t.Parallel()
	s := ground(t, 4)
	dir := filepath.Join(s.Dir, "small")
	must(t, os.Mkdir(dir, 0o700))
	must(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=300m"))
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	s.wall("--data-dir", dir)
	other := filepath.Join(dir, "other-data")
	s.withoutStore(func() {
		fill(t, other, 20<<20)
		out, err := s.tw.RunInput("kind: Group\nname: g\nspec: {members: [{port: vm1}]}\n", "apply", "-f", "-")
		if err == nil || !strings.Contains(out, "no space left") {
			t.Errorf("a document was written to a full disk: %v %s", err, out)
		}
	})
	out, err := s.tw.Run("status")
	if err == nil || !strings.Contains(out, "id assignments are not saved: store: no space left") {
		t.Errorf("status (%v):\n%s", err, out)
	}
	if out, err := s.tw.Run("status", "--ready"); err != nil {
		t.Errorf("everything is in force, and yet: %s", out)
	}
	must(t, os.Remove(other))
	s.becomesHealthy("healthy with space again")
	s.unchangedByRestart()
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.mustNotConnect(s.vm[3], s.vm[2].IPv4, 5001)
	s.mustNotConnect(s.vm[4], s.vm[2].IPv4, 5001)
}

// fill makes a file that takes all the space of its file system but so many bytes.
func fill(t *testing.T, name string, leave int64) {
	t.Helper()
	f, err := os.Create(name)
	must(t, err)
	defer f.Close()
	lab.Eventually(t, 5*time.Second, "the disk is full", func() bool { // etcd may be taking space for its next log
		var st syscall.Statfs_t
		must(t, syscall.Statfs(filepath.Dir(name), &st))
		return syscall.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-leave) == nil
	})
}

// The same with an external etcd that is down; and a bridge that is deleted and made again meanwhile is walled again.
func TestFault_F07_StoreAwayRevokes(t *testing.T) {
	t.Parallel()
	s := ground(t, 4)
	dir := t.TempDir()
	stop := s.etcd(dir)
	s.wall("--store", "http://127.0.0.1:2379")
	s.withoutStore(func() { stop() })
	again := []string{"--", "del-br", "br0", "--", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"}
	for i, role := range map[int]string{1: "client", 2: "server", 3: "guest"} {
		vm := s.vm[i]
		again = append(again, "--", "add-port", "br0", vm.Port, "--", "set", "interface", vm.Port, "external_ids:iface-id=if-"+vm.Port,
			`external_ids:attached-mac="`+vm.MAC+`"`, "external_ids:role="+role)
	}
	_, err := s.Vsctl(again...)
	must(t, err)
	lab.Eventually(t, 10*time.Second, "the bridge that was made again is walled", func() bool {
		mode, err := s.Vsctl("get", "bridge", "br0", "fail_mode")
		h, ok := s.tryHealth()
		return err == nil && strings.TrimSpace(mode) == "secure" && ok && h.OpenFlow == "connected" && h.DesiredFlows > 40 &&
			h.DesiredFlows == h.InstalledFlows
	})
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.mustNotConnect(s.vm[3], s.vm[2].IPv4, 5001)
	stop = s.etcd(dir)
	s.becomesHealthy("healthy with the store back")
	s.applyUncached(allowPorts("p", "vm2", "vm3", "5001"))
	s.mustConnect(s.vm[3], s.vm[2].IPv4, 5001)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
	stop()
}

// etcd starts a member in the namespace of the switch, where tapwall runs, and returns what stops it. It listens on addresses, too.
func (s *stage) etcd(dir string, addresses ...string) (stop func()) {
	s.t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel = dir, "panic"
	client, peer := url.URL{Scheme: "http", Host: "127.0.0.1:2379"}, url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	for _, a := range addresses {
		client.Host = a + ":2379"
		cfg.ListenClientUrls = append(cfg.ListenClientUrls, client)
	}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.UnsafeNoFsync, cfg.TickMs, cfg.ElectionMs = true, 10, 100
	var member *embed.Etcd
	must(s.t, s.Switch.Do(func() (err error) {
		member, err = embed.StartEtcd(cfg)
		return err
	}))
	select {
	case <-member.Server.ReadyNotify():
	case <-time.After(20 * time.Second):
		member.Close()
		s.t.Fatal("etcd does not start")
	}
	stopped := false
	stop = func() {
		if !stopped {
			member.Close()
		}
		stopped = true
	}
	s.t.Cleanup(stop)
	return stop
}
