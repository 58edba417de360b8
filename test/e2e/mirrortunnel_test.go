package e2e

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// Addresses on the underlay of the host and of a collector.
const (
	underHost, underHost6           = "10.99.0.1", "fd99::1"
	underCollector, underCollector6 = "10.99.0.2", "fd99::2"
)

// underlay adds a bridge with addresses of the host, from which the userspace datapath sends tunnels, and a collector there.
func (s *stage) underlay() *lab.VM {
	s.t.Helper()
	must(s.t, s.AddBridge("br-under"))
	collector, err := s.AddVM("collector", "br-under", 9)
	must(s.t, err)
	for ns, commands := range map[lab.NS][]string{
		s.Switch:     {"addr add " + underHost + "/24 dev br-under", "addr add " + underHost6 + "/64 dev br-under nodad", "link set br-under up"},
		collector.NS: {"addr add " + underCollector + "/24 dev eth0", "addr add " + underCollector6 + "/64 dev eth0 nodad"},
	} {
		for _, command := range commands {
			_, err := ns.Run("ip", strings.Fields(command)...)
			must(s.t, err)
		}
	}
	// The first copies would wait for the collector's addresses to be resolved.
	for _, to := range []string{underCollector, underCollector6} {
		if out, err := s.Switch.Run("ping", "-c", "1", "-W", "2", to); err != nil {
			s.t.Fatalf("%v\n%s", err, out)
		}
	}
	return collector
}

// acquainted waits until Open vSwitch knows the collector's addresses, which it is told of when there are tunnels.
func (s *stage) acquainted() {
	s.t.Helper()
	lab.Eventually(s.t, 5*time.Second, "the collector is known", func() bool {
		known, err := s.Appctl("tnl/neigh/show")
		return err == nil && strings.Contains(known, underCollector+" ") && strings.Contains(known, underCollector6+" ")
	})
}

// recordFrames has tcpdump write what a device receives; the function that is returned ends it and has tshark read the fields of each
// packet that a display filter accepts.
func (s *stage) recordFrames(ns lab.NS, device string) (read func(filter string, fields ...string) [][]string) {
	s.t.Helper()
	for _, tool := range []string{"tcpdump", "tshark"} {
		if _, err := exec.LookPath(tool); err != nil {
			s.t.Skipf("%s is not installed (make deps)", tool)
		}
	}
	file := filepath.Join(s.Dir, device+".pcap")
	cmd, err := s.SpawnIn(ns, "tcpdump-"+device, "tcpdump", "-i", device, "--immediate-mode", "-Q", "in", "-U", "-w", file)
	must(s.t, err)
	lab.Eventually(s.t, 5*time.Second, "tcpdump listens", func() bool {
		log, err := exec.Command("cat", filepath.Join(s.Dir, "tcpdump-"+device+".log")).Output()
		return err == nil && bytes.Contains(log, []byte("listening on"))
	})
	return func(filter string, fields ...string) (packets [][]string) {
		s.t.Helper()
		settle()
		_ = cmd.Process.Signal(syscall.SIGINT)
		_ = cmd.Wait()
		args := []string{"-r", file, "-Y", filter, "-T", "fields"}
		for _, f := range fields {
			args = append(args, "-e", f)
		}
		out, err := exec.Command("tshark", args...).Output()
		if err != nil {
			s.t.Fatalf("tshark: %v\n%s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			packets = append(packets, strings.Split(strings.TrimRight(line, "\n"), "\t"))
		}
		return packets
	}
}

// encapsulation is how a tunnel looks to tshark: the layers around the frame, the bytes that they take, and the fields that name the
// tunnel.
type encapsulation struct {
	name, target string
	layers       string
	bytes        int
	fields       map[string]string
}

// encapsulations are all kinds of tunnels.
func encapsulations() (out []encapsulation) {
	for _, ip := range []struct {
		version, remote, layer string
		more                   int
	}{{"4", underCollector, "ip", 0}, {"6", underCollector6, "ipv6", 20}} {
		add := func(name, target, layers string, bytes int, fields map[string]string) {
			out = append(out, encapsulation{name + ip.version, fmt.Sprintf(target, ip.remote), "eth:ethertype:" + ip.layer + ":" + layers, bytes +
				ip.more, fields})
		}
		add("vxlan", "{vxlan: {remote: %q, vni: 129057}}", "udp:vxlan", 50, map[string]string{"vxlan.vni": "129057", "udp.dstport": "4789"})
		add("geneve", "{geneve: {remote: %q, vni: 88}}", "udp:geneve", 50, map[string]string{"geneve.vni": "0x000058", "udp.dstport": "6081"})
		add("gre", "{gre: {remote: %q, key: 77}}", "gre", 42, map[string]string{"gre.key": "0x0000004d"})
		add("erspan1", "{erspan: {remote: %q, version: 1, session: 102, index: 102}}", "gre:erspan", 50,
			map[string]string{"erspan.version": "1", "erspan.spanid": "102", "erspan.index": "102"})
		add("erspan2", "{erspan: {remote: %q, session: 5, hardwareId: 10}}", "gre:erspan", 54,
			map[string]string{"erspan.version": "2", "erspan.spanid": "5", "erspan.hw": "10"})
	}
	return out
}

// Scenario 3 of mirrors: tunnels of every kind, over IPv4 and IPv6, carry the frames as a local sink gets them, without the tag of the
// access ports, under the identifiers that the mirrors name.
func TestMirrorScenario03Tunnels(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]string{"native": ", mtuPolicy: fail", "staged": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, 2)
			collector := s.underlay()
			for _, vm := range s.vm[1:] {
				_, err := s.Vsctl("set", "port", vm.Port, "tag=10")
				must(t, err)
				_, err = s.Switch.Run("ip", "link", "set", vm.Port, "mtu", "1400") // what no tunnel here has to cut
				must(t, err)
			}
			lab.Eventually(t, 5*time.Second, "the database has the MTU", func() bool {
				out, err := s.Vsctl("get", "interface", "vm1", "mtu")
				return err == nil && strings.TrimSpace(out) == "1400"
			})
			s.ping3(s.vm[1], s.vm[2])
			docs := "kind: Mirror\nname: local\nspec: {sources: [{port: vm1}], targets: [{port: {name: ids0, create: true}}]}\n"
			for _, w := range encapsulations() {
				docs += sprintf("---\nkind: Mirror\nname: %s\nspec: {sources: [{port: vm1}], targets: [%s]%s}\n", w.name, w.target, more)
			}
			s.force(docs)
			for _, w := range encapsulations() {
				s.becomes("mirror", w.name, policy.PhaseActive, "", "")
			}
			s.acquainted()
			local, err := s.Capture(s.Switch, "ids0")
			must(t, err)
			far, err := s.Capture(collector.NS, "eth0")
			must(t, err)
			read := s.recordFrames(collector.NS, "eth0")
			s.ping3(s.vm[1], s.vm[2])
			packets := read("icmp", "frame.protocols", "frame.len", "vxlan.vni", "geneve.vni", "gre.key", "erspan.version", "erspan.spanid",
				"erspan.index", "erspan.hw", "udp.dstport", "vlan.id", "icmp.type", "eth.src")
			names := []string{"", "", "vxlan.vni", "geneve.vni", "gre.key", "erspan.version", "erspan.spanid", "erspan.index", "erspan.hw",
				"udp.dstport"}
			frames := local.Frames(lab.ICMP)
			if len(frames) != 6 {
				t.Fatalf("the local sink got %d frames, want 6", len(frames))
			}
			for _, w := range encapsulations() {
				n := 0
				for _, p := range packets {
					is := strings.HasPrefix(p[0], w.layers+":eth:ethertype:ip:icmp")
					for i, field := range names {
						is = is && (w.fields[field] == "" || w.fields[field] == p[i])
					}
					if is && p[10] == "" && p[1] == fmt.Sprint(len(frames[0].Data)+w.bytes) {
						n++
					}
				}
				if n != 6 {
					t.Errorf("%s: tshark sees %d packets as the mirror says, want 6", w.name, n)
				}
			}
			if t.Failed() {
				for _, p := range packets {
					t.Log(p)
				}
			}
			// Behind the headers of each tunnel is each frame of the local sink, byte by byte.
			for i, want := range frames {
				n := len(far.Frames(func(f lab.Frame) bool { return bytes.HasSuffix(f.Data, want.Data) }))
				if n != len(encapsulations()) {
					t.Errorf("frame %d of the local sink came through %d tunnels of %d", i, n, len(encapsulations()))
				}
			}
		})
	}
}
