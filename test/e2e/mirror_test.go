package e2e

import (
	"encoding/binary"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

const tapVM1 = `
kind: Mirror
name: tap
spec:
  sources: [{vm: uuid-vm1}]
  targets: [{port: {name: ids0, create: true}}]
`

func (s *stage) ping3(from, to *lab.VM) {
	s.t.Helper()
	if out, err := from.Run("ping", "-c", "3", "-i", "0.2", "-W", "2", to.IPv4); err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
}

// acquaint tells each of two machines the other's MAC for good: neither asks for it, not even for one that it knows, seconds later.
func (s *stage) acquaint(a, b *lab.VM) {
	s.t.Helper()
	for _, x := range [][2]*lab.VM{{a, b}, {b, a}} {
		_, err := x[0].Run("ip", "neigh", "replace", x[1].IPv4, "lladdr", x[1].MAC, "dev", "eth0", "nud", "permanent")
		must(s.t, err)
	}
}

// settle lets the last copies arrive.
func settle() {
	start := time.Now()
	time.Sleep(300 * time.Millisecond)
	time.Sleep(lab.Late(start))
}

func withMAC(mac string) func(lab.Frame) bool {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		panic(err)
	}
	return func(f lab.Frame) bool {
		return len(f.Data) >= 12 && (string(f.Data[:6]) == string(hw) || string(f.Data[6:12]) == string(hw))
	}
}

// Scenario 1 of mirrors: one machine, both directions, nobody else's traffic.
func TestMirrorScenario01LocalTap(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.ping3(s.vm[1], s.vm[2]) // resolve addresses before counting
	s.ping3(s.vm[3], s.vm[2])
	s.force(tapVM1)
	capture, err := s.Capture(s.Switch, "ids0")
	must(t, err)
	done := make(chan struct{})
	go func() { defer close(done); s.ping3(s.vm[3], s.vm[2]) }()
	s.ping3(s.vm[1], s.vm[2])
	<-done
	settle()
	frames := capture.Frames(lab.ICMP)
	if len(frames) != 6 {
		t.Errorf("the target got %d ICMP frames, want 3 requests and 3 replies", len(frames))
	}
	for i, f := range frames {
		if want := []byte{8, 0}[i%2]; f.Data[34] != want {
			t.Errorf("frame %d is of ICMP type %d, want %d: order is lost", i, f.Data[34], want)
		}
	}
	if n := len(capture.Frames(func(f lab.Frame) bool { return lab.ICMP(f) && withMAC(s.vm[3].MAC)(f) })); n != 0 {
		t.Errorf("%d frames of vm3 in the tap of vm1", n)
	}
	lab.Eventually(t, 12*time.Second, "selectedPackets rises", func() bool { return s.mirror("tap").Counters["selectedPackets"] >= 6 })
}

// Scenario 2: both ends of a conversation as sources give one copy of each frame, and a broadcast gives one.
func TestMirrorScenario02NoDuplicates(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.ping3(s.vm[1], s.vm[2])
	s.force(`
kind: Mirror
name: pair
spec:
  sources: [{port: vm1}, {port: vm2}, {port: vm3}]
  targets: [{port: {name: ids0, create: true}}]
`)
	capture, err := s.Capture(s.Switch, "ids0")
	must(t, err)
	s.ping3(s.vm[1], s.vm[2])
	settle()
	if n := len(capture.Frames(lab.ICMP)); n != 6 {
		t.Errorf("the target got %d ICMP frames, want 6", n)
	}
	_, err = s.vm[2].Run("ip", "neigh", "flush", "all")
	must(t, err)
	_, _ = s.vm[2].Run("ping", "-c", "1", "-W", "1", "10.77.0.200") // nobody answers: a broadcast request per second
	settle()
	requests := capture.Frames(func(f lab.Frame) bool {
		return len(f.Data) >= 42 && binary.BigEndian.Uint16(f.Data[12:]) == 0x0806 && f.Data[41] == 200 && f.Data[0] == 0xff
	})
	for i := 1; i < len(requests); i++ {
		if requests[i].At.Sub(requests[i-1].At) < 300*time.Millisecond {
			t.Errorf("a broadcast was copied more than once: %d copies", len(requests))
		}
	}
	if len(requests) == 0 {
		t.Error("the broadcast was not copied")
	}
}

// Scenario 3, the part in scope: a VXLAN tunnel with the given VNI carries the inner frames unchanged.
func TestMirrorScenario03VXLAN(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	// The userspace datapath sends tunnels from an address on a bridge's LOCAL port, so the underlay is a second bridge.
	must(t, s.AddBridge("br-under"))
	collector, err := s.AddVM("collector", "br-under", 9)
	must(t, err)
	for _, cmd := range [][]string{{"ip", "addr", "add", "10.99.0.1/24", "dev", "br-under"}, {"ip", "link", "set", "br-under", "up"}} {
		_, err := s.Switch.Run(cmd[0], cmd[1:]...)
		must(t, err)
	}
	_, err = collector.Run("ip", "addr", "add", "10.99.0.2/24", "dev", "eth0")
	must(t, err)
	s.ping3(s.vm[1], s.vm[2])
	s.force(`
kind: Mirror
name: remote
spec:
  sources: [{labels: {iface-id: if-vm1}}]
  targets: [{vxlan: {remote: 10.99.0.2, vni: 129057}}]
`)
	capture, err := s.Capture(collector.NS, "eth0")
	must(t, err)
	// The first copies wait for the collector's address to be resolved.
	lab.Eventually(t, 10*time.Second, "copies arrive", func() bool {
		s.ping(s.vm[1], s.vm[2].IPv4)
		return len(capture.Frames(lab.UDPTo(4789))) > 0
	})
	settle()
	had := len(capture.Frames(lab.UDPTo(4789)))
	s.ping3(s.vm[1], s.vm[2])
	settle()
	var inner []lab.Frame
	for _, f := range capture.Frames(lab.UDPTo(4789))[had:] {
		if vni := binary.BigEndian.Uint32(f.Data[46:50]) >> 8; vni != 129057 {
			t.Errorf("VNI %d", vni)
		}
		inner = append(inner, lab.Frame{At: f.At, Data: f.Data[50:]})
	}
	pings := 0
	for _, f := range inner {
		if lab.ICMP(f) {
			pings++
			if !withMAC(s.vm[1].MAC)(f) || !withMAC(s.vm[2].MAC)(f) {
				t.Error("an inner frame has other addresses")
			}
		}
	}
	if pings != 6 {
		t.Errorf("%d ICMP copies, want 6", pings)
	}
}

// Scenario 4: start and stop act on a warm flow within a second.
func TestMirrorScenario04StartStopWarmFlow(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	stopped := strings.Replace(tapVM1, "spec:", "spec:\n  enabled: false", 1)
	s.apply(stopped)
	if p := s.mirror("tap").Phase; p != "Stopped" {
		t.Errorf("a mirror that is not enabled is %s", p)
	}
	ping := exec.Command("ping", "-i", "0.1", "-c", "120", "-q", s.vm[2].IPv4)
	must(t, s.vm[1].Do(ping.Start))
	defer func() { _ = ping.Process.Kill(); _ = ping.Wait() }()
	time.Sleep(time.Second) // warm
	s.tapwall("mirror", "start", "tap", "--wait")
	started := time.Now()
	capture, err := s.Capture(s.Switch, "ids0")
	must(t, err)
	took := lab.Eventually(t, time.Second, "the first copy arrives", func() bool { return len(capture.Frames(lab.ICMP)) > 0 })
	t.Logf("first copy %v after start answered (port captured %v after)", took.Round(time.Millisecond),
		time.Since(started).Round(time.Millisecond))
	time.Sleep(time.Second)
	// The target disappears with the mirror that made it, so this one is made beforehand and stays.
	must(t, s.AddTargetPort("ids1"))
	s.apply(strings.Replace(tapVM1, "name: ids0, create: true", "name: ids1", 1))
	capture, err = s.Capture(s.Switch, "ids1")
	must(t, err)
	lab.Eventually(t, time.Second, "copies go to the new target", func() bool { return len(capture.Frames(lab.ICMP)) > 0 })
	s.tapwall("mirror", "stop", "tap", "--wait")
	end := time.Now()
	time.Sleep(2500 * time.Millisecond)
	limit := end.Add(time.Second + lab.Late(end))
	time.Sleep(time.Until(limit.Add(time.Second)))
	late := capture.Frames(func(f lab.Frame) bool { return lab.ICMP(f) && f.At.After(limit) })
	if len(late) > 0 {
		t.Errorf("%d copies came later than 1 s after stop", len(late))
	}
	all := capture.Frames(lab.ICMP)
	t.Logf("last copy %v after stop answered", all[len(all)-1].At.Sub(end).Round(time.Millisecond))
}

// Scenario 8: foreign mirrors stay as they are and go on copying through everything we do; one that throws ours out does not win.
func TestMirrorScenario08Coexistence(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	for _, port := range []string{"m0", "m1"} {
		must(t, s.AddTargetPort(port))
	}
	_, err := s.Vsctl("--", "--id=@o", "get", "port", "m0", "--", "--id=@s", "get", "port", "vm2", "--",
		"--id=@m", "create", "mirror", "name=m0", "select-src-port=@s", "select-dst-port=@s", "output-port=@o", "--", "add", "bridge", "br0",
		"mirrors", "@m")
	must(t, err)
	_, err = s.Vsctl("--", "--id=@o", "get", "port", "m1", "--", "--id=@m", "create", "mirror", "name=other", "select-all=true",
		"output-port=@o",
		"external-ids:ovn-owned=true", "--", "add", "bridge", "br0", "mirrors", "@m")
	must(t, err)
	foreign := func() string {
		out,
			err := s.Vsctl(
			"--columns=_uuid,name,select_all,select_src_port,select_dst_port,select_vlan,output_port,output_vlan,external_ids,snaplen", "find",
			"mirror", "name!=tap")
		must(t, err)
		var keep []string
		for _, row := range strings.Split(out, "\n\n") {
			if !strings.Contains(row, "tapwall") {
				keep = append(keep, strings.TrimSpace(row))
			}
		}
		slices.Sort(keep) // ovsdb-server answers in no order
		return strings.Join(keep, "\n\n")
	}
	before := foreign()
	capture, err := s.Capture(s.Switch, "m0")
	must(t, err)
	s.force(tapVM1)
	s.force(strings.Replace(tapVM1, "uuid-vm1", "uuid-vm3", 1))
	s.tw.Kill()
	must(t, s.tw.Start())
	must(t, s.tw.Stop())
	must(t, s.tw.Start())
	if after := foreign(); after != before {
		t.Errorf("foreign mirrors changed:\n%s\n---\n%s", before, after)
	}
	n := len(capture.Frames(lab.ICMP))
	s.ping3(s.vm[1], s.vm[2])
	settle()
	if got := len(capture.Frames(lab.ICMP)) - n; got != 6 {
		t.Errorf("the foreign mirror copied %d of 6 frames", got)
	}
	_, err = s.Vsctl("--", "--id=@x", "create", "mirror", "name=usurper", "--", "set", "bridge", "br0", "mirrors=@x")
	must(t, err)
	took := lab.Eventually(t, 5*time.Second, "our mirror is back", func() bool {
		out, err := s.Vsctl("--bare", "--columns=external_ids", "list", "mirror")
		must(t, err)
		return strings.Contains(out, "tapwall-mirror-id=tap")
	})
	t.Logf("our mirror was back after %v", took.Round(time.Millisecond))
	if out, err := s.Vsctl("--bare", "--columns=name", "find", "mirror", "name=usurper"); err != nil || !strings.Contains(out, "usurper") {
		t.Errorf("the other's mirror is gone: %v", err)
	}
	s.tapwall("delete", "mirror", "tap", "--wait")
	for i := range 31 {
		_, err := s.Vsctl("--", "--id=@m", "create", "mirror", sprintf("name=f%d", i), "--", "add", "bridge", "br0", "mirrors", "@m")
		must(t, err)
	}
	out := s.refused(tapVM1, "apply", "--wait", "-f", "-")
	if !strings.Contains(out, "MIRROR_LIMIT") {
		t.Errorf("the 33rd mirror of the bridge: %s", out)
	}
}

// Scenario 8, the rest: whatever throws mirrors out, native ones and staged ones are back within 5 s and copy, tapwall's own bridge with
// them, and what is foreign is as it was. `ovs-vsctl emer-reset` takes all mirrors, controllers and fail modes; what a process that died
// has left goes when another one starts.
func TestMirrorScenario08EmergencyReset(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.ping3(s.vm[1], s.vm[2])
	const staged = "---\nkind: Mirror\nname: icmp\nspec: {sources: [{port: vm1}], filter: {rules: [{action: accept, protocol: icmp}]}, " +
		"targets: [{port: {name: icmp0, create: true}}]}\n"
	s.force(tapVM1 + staged)
	copies := func(what string) {
		t.Helper()
		began := time.Now()
		var native, filtered *lab.Capture
		lab.Eventually(t, 5*time.Second, what+": the mirrors are back", func() bool {
			var err error
			out, _ := s.Vsctl("--columns=external_ids", "list", "mirror")
			if !strings.Contains(out, "tapwall-mirror-id=tap") || !strings.Contains(out, "tapwall-mirror-id=\"sources/") {
				return false
			}
			if native, err = s.Capture(s.Switch, "ids0"); err != nil {
				return false
			}
			filtered, err = s.Capture(s.Switch, "icmp0")
			return err == nil
		})
		lab.Eventually(t, 5*time.Second-time.Since(began)+lab.Late(began), what+": both copy", func() bool {
			s.ping(s.vm[1], s.vm[2].IPv4)
			return len(native.Frames(lab.ICMP)) > 0 && len(filtered.Frames(lab.ICMP)) > 0
		})
		t.Logf("%s: copies %v after", what, time.Since(began).Round(time.Millisecond))
		settle()
		before := len(native.Frames(lab.ICMP))
		were := len(filtered.Frames(lab.ICMP))
		s.ping3(s.vm[1], s.vm[2])
		settle()
		if a, b := len(native.Frames(lab.ICMP))-before, len(filtered.Frames(lab.ICMP))-were; a != 6 || b != 6 {
			t.Errorf("%s: %d and %d copies of 6 frames", what, a, b)
		}
	}
	copies("at first")
	_, err := s.Vsctl("emer-reset")
	must(t, err)
	copies("emer-reset")
	_, err = s.Vsctl("--", "--id=@x", "create", "mirror", "name=usurper", "--", "set", "bridge", "br0", "mirrors=@x")
	must(t, err)
	copies("an outsider's set bridge mirrors")
	_, err = s.Vsctl("del-br", "tw-tap-netdev")
	must(t, err)
	copies("the tap bridge deleted")
	if out, err := s.Vsctl("--bare", "--columns=name", "find", "mirror", "name=usurper"); err != nil || !strings.Contains(out, "usurper") {
		t.Errorf("the other's mirror is gone: %v", err)
	}
	// What a process leaves that dies with a change on its way, and what another one of ours once made, is nobody's.
	s.tw.Kill()
	_, err = s.Vsctl("--", "add-port", "br0", "tws-orphan", "--", "set", "interface", "tws-orphan", "type=patch", "options:peer=twt-orphan",
		"external_ids:tapwall-owner=tapwall", "--", "set", "port", "tws-orphan", "external_ids:tapwall-owner=tapwall",
		"external_ids:tapwall-mirror-id=gone", "--", "--id=@o", "get", "port", "tws-orphan", "--", "--id=@m", "create", "mirror", "name=orphan",
		"select-all=true", "output-port=@o", "external_ids:tapwall-owner=tapwall", "external_ids:tapwall-mirror-id=gone", "--", "add", "bridge",
		"br0", "mirrors", "@m")
	must(t, err)
	must(t, s.tw.Start())
	lab.Eventually(t, 10*time.Second, "orphans are collected", func() bool {
		out, _ := s.Vsctl("--columns=name", "list", "mirror")
		ports, err := s.Vsctl("list-ports", "br0")
		return err == nil && !strings.Contains(out, "orphan") && !strings.Contains(ports, "orphan") && strings.Contains(out, "usurper")
	})
	copies("after a crash")
}

// Scenario 9: a re-plugged source and a vanished target are seen and mended.
func TestMirrorScenario09ReplugAndTargetLoss(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.force(tapVM1)
	lab.Eventually(t, 8*time.Second, "active", func() bool { return s.mirror("tap").Phase == "Active" })
	must(t, s.Unplug(s.vm[1]))
	lab.Eventually(t, 8*time.Second, "the missing source is told", func() bool {
		m := s.mirror("tap")
		return m.Phase == "Degraded" && m.Reason == string(policy.ReasonSourceMissing)
	})
	must(t, s.Plug(s.vm[1]))
	lab.Eventually(t, 5*time.Second, "active again", func() bool { return s.mirror("tap").Phase == "Active" })
	capture, err := s.Capture(s.Switch, "ids0")
	must(t, err)
	lab.Eventually(t, 5*time.Second, "copies resume", func() bool { s.ping(s.vm[1], s.vm[2].IPv4); return len(capture.Frames(lab.ICMP)) > 0 })
	s.ping(s.vm[3], s.vm[2].IPv4)
	settle()
	// Its broadcasts reach vm1 and are rightly copied; its conversation with vm2 is not.
	if n := len(capture.Frames(func(f lab.Frame) bool { return lab.ICMP(f) && withMAC(s.vm[3].MAC)(f) })); n != 0 {
		t.Errorf("%d frames of vm3 in the tap of vm1", n)
	}

	must(t, s.AddTargetPort("ids1"))
	s.force(strings.Replace(tapVM1, "name: ids0, create: true", "name: ids1", 1))
	_, err = s.Vsctl("--", "del-port", "br0", "ids1")
	must(t, err)
	lab.Eventually(t, 8*time.Second, "the missing target is told", func() bool {
		m := s.mirror("tap")
		return m.Phase == "Degraded" && m.Reason == string(policy.ReasonTargetMissing)
	})
	must(t, s.AddTargetPort("ids1"))
	lab.Eventually(t, 5*time.Second, "active with the target back", func() bool { return s.mirror("tap").Phase == "Active" })

	capture, err = s.Capture(s.Switch, "ids1")
	must(t, err)
	s.ping3(s.vm[1], s.vm[2])
	lab.Eventually(t, 12*time.Second, "copies are counted", func() bool { return s.mirror("tap").Counters["selectedPackets"] > 0 })
	counted := s.mirror("tap").Counters["selectedPackets"]
	s.KillVswitchd()
	must(t, s.StartVswitchd())
	lab.Eventually(t, 10*time.Second, "active after the switch's restart", func() bool { return s.mirror("tap").Phase == "Active" })
	if now := s.mirror("tap").Counters["selectedPackets"]; now < counted {
		t.Errorf("the counter went back from %d to %d", counted, now)
	}
	capture, err = s.Capture(s.Switch, "ids1") // the restart made the device anew
	must(t, err)
	lab.Eventually(t, 10*time.Second, "copies after the switch's restart",
		func() bool { s.ping(s.vm[1], s.vm[2].IPv4); return len(capture.Frames(lab.ICMP)) > 0 })
}
