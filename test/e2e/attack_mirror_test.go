package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// Whoever listens where copies are delivered cannot speak from there: not to machines, not to other sinks, not into counters, and no bridge
// learns from it.
func TestAttack_MirrorForgedAtSinks(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	s.force("kind: Mirror\nname: native\nspec: {sources: [{port: vm1}], targets: [{port: {name: native0, create: true}}]}\n---\n" +
		"kind: Mirror\nname: staged\nspec: {sources: [{port: vm1}], filter: {default: accept}, sample: {maxPacketsPerSecond: 1000}, targets: " +
		"[{port: {name: one0, create: true}}, {port: {name: two0, create: true}}]}\n")
	const mark = 0x88b5 // for experiments
	var frames [][]byte
	for _, dst := range []string{s.vm[1].MAC, s.vm[2].MAC, "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:05"} {
		for _, src := range []string{s.vm[1].MAC, s.vm[2].MAC, "02:ba:d0:00:00:01"} {
			f, err := lab.CraftFrame(src, dst, layers.EthernetType(mark))
			must(t, err)
			frames = append(frames, append(f, make([]byte, 60)...))
		}
	}
	forged := func(f lab.Frame) bool { return len(f.Data) > 14 && f.Data[12] == mark>>8 && f.Data[13] == mark&0xff }
	sinks := []string{"native0", "one0", "two0"}
	captures := map[string]*lab.Capture{}
	for _, name := range sinks {
		captures[name] = s.capture(name)
	}
	for _, vm := range s.vm[1:] {
		c, err := s.Capture(vm.NS, "eth0")
		must(t, err)
		captures[vm.Port] = c
	}
	before := s.mirror("staged").Counters
	for _, name := range sinks {
		for range 10 {
			must(t, s.Switch.SendAt(name, frames...))
		}
	}
	settle()
	for name, c := range captures {
		if n := len(c.Frames(forged)); n != 0 {
			t.Errorf("%d forged frames came to %s", n, name)
		}
	}
	now := s.mirror("staged").Counters
	if now["selectedPackets"]-before["selectedPackets"] > 3 || now["rateDroppedPackets"] != 0 { // machines ask for routers
		t.Errorf("forged frames are counted: %v, before %v", now, before)
	}
	fdb, err := s.Appctl("fdb/show", "br0")
	must(t, err)
	if strings.Contains(fdb, "02:ba:d0:00:00:01") {
		t.Errorf("the bridge has learned from a sink:\n%s", fdb)
	}
	// What a machine sends like that is copied, which shows that the frames would be seen.
	must(t, s.vm[1].Send(frames[0]))
	lab.Eventually(t, 5*time.Second, "the same frame of a machine is copied", func() bool { return len(captures["one0"].Frames(forged)) > 0 })
	if n := s.copied(captures["two0"], func() { s.ping3(s.vm[1], s.vm[2]) }); n != 6 {
		t.Errorf("afterwards %d copies of 6", n)
	}
}

// Whoever is at the other end of a tunnel, or says so, cannot send by it into the bridges, whatever form the mirror has.
func TestAttack_MirrorForgedByTunnel(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	must(t, s.AddBridge("br-under"))
	for _, cmd := range [][]string{{"addr", "add", "10.99.0.1/24", "dev", "br-under"}, {"link", "set", "br-under", "up"}} {
		_, err := s.Switch.Run("ip", cmd...)
		must(t, err)
	}
	col, err := s.AddVM("col", "br-under", 9)
	must(t, err)
	_, err = col.Run("ip", "addr", "add", "10.99.0.2/24", "dev", "eth0")
	must(t, err)
	s.ping3(s.vm[1], s.vm[2])
	const doc = "---\nkind: Mirror\nname: %s\nspec: {sources: [{port: vm1}], mtuPolicy: %s, " +
		"targets: [{vxlan: {remote: 10.99.0.2, vni: %d}}]}\n"
	_, err = s.Vsctl("set", "interface", "vm1", "mtu_request=1400")
	must(t, err)
	s.force(sprintf(doc, "staged", "truncate", 7) + sprintf(doc, "native", "fail", 8))
	s.realised("staged", policy.RealisedStaged, true)
	s.realised("native", policy.RealisedNative, true)
	forged := func(f lab.Frame) bool { return len(f.Data) > 14 && f.Data[12] == 0x88 && f.Data[13] == 0xb5 }
	at, err := s.Capture(col.NS, "eth0")
	must(t, err)
	lab.Eventually(t, 10*time.Second, "both mirrors deliver", func() bool { // the first copies wait for the collector's address
		s.ping3(s.vm[1], s.vm[2])
		return len(at.Frames(lab.UDPTo(4789))) >= 12
	})
	captures := map[string]*lab.Capture{}
	for _, vm := range s.vm[1:] {
		captures[vm.Port], err = s.Capture(vm.NS, "eth0")
		must(t, err)
	}
	c, err := col.Dial("udp", "10.99.0.1", 4789, time.Second)
	must(t, err)
	defer c.Close()
	for _, vni := range []byte{7, 8} {
		for _, dst := range []string{s.vm[2].MAC, "ff:ff:ff:ff:ff:ff"} {
			inner, err := lab.CraftFrame(s.vm[1].MAC, dst, layers.EthernetType(0x88b5))
			must(t, err)
			for range 20 {
				_, err = c.Write(append([]byte{8, 0, 0, 0, 0, 0, vni, 0}, append(inner, make([]byte, 60)...)...))
				must(t, err)
			}
		}
	}
	lab.Eventually(t, 15*time.Second, "both tunnels have taken in what was sent", func() bool {
		out, err := s.Vsctl("--bare", "--columns=statistics", "find", "interface", "type=vxlan")
		must(t, err)
		return strings.Count(out, "rx_packets=40") == 2
	})
	for name, c := range captures {
		if n := len(c.Frames(forged)); n != 0 {
			t.Errorf("%d frames came to %s by the tunnel", n, name)
		}
	}
	must(t, s.vm[1].Send(func() []byte {
		f, err := lab.CraftFrame(s.vm[1].MAC, s.vm[2].MAC, layers.EthernetType(0x88b5))
		must(t, err)
		return append(f, make([]byte, 60)...)
	}()))
	lab.Eventually(t, 5*time.Second, "such a frame of the machine itself arrives", func() bool {
		return len(captures["vm2"].Frames(forged)) > 0
	})
}

// Whatever part of a staged mirror somebody takes or turns round, it copies again within seconds, and production never notices.
func TestAttack_MirrorPartsTaken(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	s.force("kind: Mirror\nname: m\nspec: {sources: [{port: vm1}], filter: {rules: [{action: accept, protocol: icmp}]}, " +
		"sample: {maxPacketsPerSecond: 1000}, targets: [{port: {name: ids0, create: true}}]}\n")
	vsctl := func(args ...string) string {
		t.Helper()
		out, err := s.Vsctl(args...)
		must(t, err)
		return strings.TrimSpace(out)
	}
	port := func(prefix string) string {
		for _, name := range strings.Fields(vsctl("--bare", "--columns=name", "list", "port")) {
			if strings.HasPrefix(name, prefix) {
				return name
			}
		}
		t.Fatalf("there is no port %s…", prefix)
		return ""
	}
	const bridge = "tw-tap-netdev"
	good := s.datagrams(s.vm[1], s.vm[2], 5001, 5*time.Millisecond)
	s.running(good)
	for _, tt := range []struct {
		what string
		do   func()
	}{
		{"nothing is done", func() {}},
		{"the patch port on the sources' bridge is deleted", func() { vsctl("del-port", "br0", port("tws-")) }},
		{"the patch port on the tap bridge is deleted", func() { vsctl("del-port", bridge, port("twt-")) }},
		{"the sink is deleted", func() { vsctl("del-port", bridge, "ids0") }},
		{"the sink's device is set down", func() { _, err := s.Switch.Run("ip", "link", "set", "ids0", "down"); must(t, err) }},
		{"the peer is another", func() { vsctl("set", "interface", port("tws-"), "options:peer=nobody") }},
		{"the patch port gets a tag", func() { vsctl("set", "port", port("tws-"), "tag=7") }},
		{"the tap bridge's port gets a tag", func() { vsctl("set", "port", port("twt-"), "tag=7") }},
		{"the sink gets a tag", func() { vsctl("set", "port", "ids0", "tag=7") }},
		{"flows of the tap bridge are deleted", func() { _, err := s.Ofctl("del-flows", bridge); must(t, err) }},
		{"meters of the tap bridge are deleted", func() { _, err := s.Ofctl("del-meters", bridge); must(t, err) }},
		{"a flow above ours drops all", func() { _, err := s.Ofctl("add-flow", bridge, "table=0,priority=65535,actions=drop"); must(t, err) }},
		{"the tap bridge is standalone", func() { vsctl("del-fail-mode", bridge) }},
		{"the row copies to nowhere", func() {
			vsctl("clear", "mirror", strings.Fields(vsctl("--bare", "--columns=_uuid", "list", "mirror"))[0], "output_port")
		}},
		{"the row selects nothing", func() {
			row := strings.Fields(vsctl("--bare", "--columns=_uuid", "list", "mirror"))[0]
			vsctl("clear", "mirror", row, "select_src_port", "select_dst_port")
		}},
		{"the row's marks are taken", func() {
			vsctl("clear", "mirror", strings.Fields(vsctl("--bare", "--columns=_uuid", "list", "mirror"))[0], "external_ids")
		}},
		{"the tap bridge's controllers are changed", func() { vsctl("set-controller", bridge, "tcp:127.0.0.1:1") }},
		{"the sink's marks are taken", func() { vsctl("clear", "port", "ids0", "external_ids") }},
		{"the patch port's marks are taken", func() { vsctl("clear", "port", port("tws-"), "external_ids") }},
		{"the tap bridge's marks are taken", func() { vsctl("clear", "bridge", bridge, "external_ids") }},
	} {
		tt.do()
		start := time.Now()
		n := 0
		for time.Since(start) < 8*time.Second && n != 6 {
			c, err := s.Capture(s.Switch, "ids0")
			if err != nil {
				time.Sleep(50 * time.Millisecond)
				continue
			}
			n = s.copied(c, func() {
				out, err := s.vm[1].Run("ping", "-c", "3", "-i", "0.02", "-W", "1", s.vm[2].IPv4)
				if err != nil {
					t.Errorf("%s: production: %v\n%s", tt.what, err, out)
				}
			})
		}
		t.Logf("%s: %d copies after %v: %s", tt.what, n, time.Since(start).Round(time.Millisecond), s.mirror("m").Message)
		if n != 6 {
			t.Errorf("%s: %d copies of 6", tt.what, n)
		}
	}
	s.lossless(good, "production")
}

// Names that others chose do not lead astray: of ports, which may be any text, of what is to be made, and of files.
func TestAttack_MirrorNames(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	for _, name := range []string{`a"b`, "-x", "é", "$(x)", "a,b", "a\x1b[31m"} {
		_, err := s.Vsctl("--", "add-port", "br0", name, "--", "set", "interface", name, "type=internal")
		must(t, err)
	}
	const doc = "kind: Mirror\nname: m\nspec: {sources: [{bridge: br0}], targets: [%s]}\n"
	s.force(sprintf(doc, "{pcap: {file: all}}"))
	for _, args := range [][]string{{"get", "mirrors"}, {"describe", "mirror", "m"}} {
		if out := s.tapwall(args...); strings.Contains(out, "\x1b") {
			t.Errorf("%v prints an escape sequence: %q", args, out)
		}
	}
	for target, want := range map[string]string{
		"{port: {name: tw-tap-netdev, create: true}}":  "/spec/targets/0/port/name: names that begin with tw-tap-",
		"{port: {name: tws-0123456789, create: true}}": "/spec/targets/0/port/name: names that begin with tws-",
		"{port: {name: -x, create: true}}":             "/spec/targets/0/port/name: must be a device name",
		"{pcap: {file: ../all}}":                       "/spec/targets/0/pcap/file: must be the name of a file",
		"{pcap: {file: -all}}":                         "/spec/targets/0/pcap/file: must be the name of a file",
		"{port: {name: br0, create: true}}":            "br0 is the LOCAL port of the bridge",
		"{port: {name: ovs-netdev, create: true}}":     "refused port ovs-netdev: it does not say why",
		"{port: {name: lo, create: true}}":             "refused port lo: could not open network device",
	} {
		doc := strings.Replace(sprintf(doc, target), "name: m\n", "name: other\n", 1)
		if out := s.refused(doc, "apply", "--wait", "-f", "-"); !strings.Contains(out, want) {
			t.Errorf("%s: %s", target, out)
		}
	}
	before := s.mirror("m").Counters["selectedPackets"]
	s.ping3(s.vm[1], s.vm[2])
	lab.Eventually(t, 8*time.Second, "the mirror beside them goes on", func() bool {
		return s.mirror("m").Counters["selectedPackets"] >= before+6
	})
}
