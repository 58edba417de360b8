package e2e

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/test/lab"
)

// sendAt puts a frame on the wire at a device, as whoever listens there could.
func sendAt(t *testing.T, ns lab.NS, device string, frames ...[]byte) {
	t.Helper()
	must(t, ns.Do(func() error {
		ifi, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index}); err != nil {
				return err
			}
		}
		return nil
	}))
}

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
		for _, src := range []string{s.vm[1].MAC, s.vm[2].MAC, "02:bad:1:1:1:1"} {
			if src == "02:bad:1:1:1:1" {
				src = "02:ba:d0:00:00:01"
			}
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
			sendAt(t, s.Switch, name, frames...)
		}
	}
	settle()
	for name, c := range captures {
		if n := len(c.Frames(forged)); n != 0 {
			t.Errorf("%d forged frames came to %s", n, name)
		}
	}
	if now := s.mirror("staged").Counters; now["selectedPackets"] != before["selectedPackets"] || now["rateDroppedPackets"] != 0 {
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

// api is a client of the unix socket that keeps its connections.
func (s *stage) api() *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", s.Socket())
		}}}
}

// call returns the status of an answer, 0 = there was none.
func call(c *http.Client, method, path, body string) int {
	req, err := http.NewRequest(method, "http://tapwall"+path, strings.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// Many write, start, stop and delete the same mirrors at once, and tapwall is killed again and again while they do. Nobody gets an answer
// that blames tapwall, and what is written last is what the switch has, and nothing else.
func TestAttack_MirrorRaces(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	good := s.datagrams(s.vm[1], s.vm[2], 5001, 5*time.Millisecond)
	s.running(good)
	forms := []string{
		`{"sources": [{"port": "vm1"}], "targets": [{"port": {"name": "ids%d", "create": true}}]}`,
		`{"sources": [{"port": "vm1"}], "filter": {"default": "accept"}, "targets": [{"port": {"name": "ids%d", "create": true}}]}`,
		`{"sources": [{"bridge": "br0"}], "sample": {"maxPacketsPerSecond": 100}, "targets": [{"port": {"name": "ids%d", "create": true}}, ` +
			`{"pcap": {"file": "f%[1]d"}}]}`,
		`{"sources": [{"port": "vm2"}], "stopAfter": {"duration": "1s"}, "targets": [{"port": {"name": "ids%d", "create": true}}]}`,
		`{"sources": [{"port": "vm1"}], "targets": [{"rspan": {"vlan": 10%d, "acknowledgeFlooding": true}}]}`,
	}
	var faults, answers atomic.Int64
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			c := s.api()
			for {
				select {
				case <-stop:
					return
				default:
				}
				i := rand.N(3)
				path, doc := sprintf("/v1/mirrors/m%d", i), sprintf(forms[rand.N(len(forms))], i)
				wait := []string{"", "?wait=installed&timeout=2s"}[rand.N(2)]
				code := 0
				switch rand.N(5) {
				case 0, 1:
					code = call(c, "PUT", path+wait, `{"spec": `+doc+`}`)
				case 2:
					code = call(c, "DELETE", path+wait, "")
				case 3:
					code = call(c, "POST", path+"/start"+wait, "")
				case 4:
					code = call(c, "PATCH", path+wait, `{"spec": {"enabled": false}}`)
				}
				if answers.Add(1); code == 500 {
					faults.Add(1)
				}
				if code == 0 {
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	for range whole(20, 4) {
		time.Sleep(1500 * time.Millisecond)
		s.tw.Kill()
		must(t, s.tw.Start())
	}
	close(stop)
	all.Wait()
	t.Logf("%d answers", answers.Load())
	if n := faults.Load(); n != 0 || answers.Load() < 100 {
		t.Errorf("%d of %d answers were 500", n, answers.Load())
	}
	s.tapwall("delete", "mirror", "m0", "m1", "m2", "--ignore-not-found", "--wait")
	lab.Eventually(t, 10*time.Second, "nothing is left", func() bool {
		rows, err := s.Vsctl("--bare", "--columns=name", "list", "mirror")
		bridges, err2 := s.Vsctl("list-br")
		ports, err3 := s.Vsctl("list-ports", "br0")
		floods, err4 := s.Vsctl("get", "bridge", "br0", "flood_vlans")
		left := strings.TrimSpace(rows) + strings.ReplaceAll(strings.TrimSpace(bridges), "br0", "") +
			strings.Trim(strings.TrimSpace(floods), "[]") + strings.Join(strings.Fields(ports), "")
		return err == nil && err2 == nil && err3 == nil && err4 == nil && left == "vm1vm2"
	})
	s.force("kind: Mirror\nname: last\nspec: {sources: [{port: vm1}], filter: {default: accept}, " +
		"targets: [{port: {name: last0, create: true}}]}\n")
	if n := s.copied(s.capture("last0"), func() { s.ping3(s.vm[1], s.vm[2]) }); n != 6 {
		t.Errorf("afterwards %d copies of 6", n)
	}
	s.lossless(good, "production")
	log, err := os.ReadFile(filepath.Join(s.Dir, "tapwall.log"))
	must(t, err)
	if strings.Contains(string(log), "panic") {
		t.Error("tapwall panicked")
	}
}

// As many writes of one mirror as a client can send: tapwall stays small and answers others, a mirror beside it misses nothing, and in the
// end the last write is in force.
func TestAttack_MirrorWriteStorm(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 2)
	s.ping3(s.vm[1], s.vm[2])
	s.force("kind: Mirror\nname: calm\nspec: {sources: [{port: vm1}], filter: {rules: [{action: accept, protocol: icmp}]}, " +
		"targets: [{port: {name: calm0, create: true}}]}\n")
	calm := s.capture("calm0")
	before := s.resident()
	var writes, refused atomic.Int64
	var slowest time.Duration
	end := time.Now().Add(whole(60*time.Second, 5*time.Second))
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			c := s.api()
			for i := 0; time.Now().Before(end); i++ {
				doc := sprintf(`{"spec": {"sources": [{"port": "vm1"}], "snaplen": %d, "filter": {"default": "accept"}, `+
					`"targets": [{"port": {"name": "storm0", "create": true}}]}}`, 100+(4*i+w)%1000)
				if code := call(c, "PUT", "/v1/mirrors/storm", doc); code == 200 || code == 201 {
					writes.Add(1)
				} else {
					refused.Add(1)
				}
			}
		})
	}
	copies := s.copied(calm, func() {
		c := s.api()
		for time.Now().Before(end) {
			start := time.Now()
			if code := call(c, "GET", "/v1/mirrors/calm", ""); code != 200 {
				t.Errorf("GET during the storm: %d", code)
			}
			slowest = max(slowest, time.Since(start))
			s.ping3(s.vm[1], s.vm[2])
		}
		all.Wait()
	})
	pings := copies / 6
	s.force("kind: Mirror\nname: storm\nspec: {sources: [{port: vm1}], snaplen: 60, targets: [{port: {name: storm0, create: true}}]}\n")
	c := s.capture("storm0")
	s.ping3(s.vm[1], s.vm[2])
	settle()
	cut := c.Frames(lab.ICMP)
	if len(cut) != 6 || len(cut[0].Data) != 60 {
		t.Errorf("after the storm %d copies of 6", len(cut))
	}
	t.Logf("%d writes, %d refused, the slowest read %v, %d kB more, %d pings of three copied", writes.Load(), refused.Load(),
		slowest.Round(time.Millisecond), s.resident()-before, pings)
	if refused.Load()*20 > writes.Load() {
		t.Errorf("%d of %d writes without preconditions were refused", refused.Load(), writes.Load()+refused.Load())
	}
	if copies%6 != 0 || copies == 0 {
		t.Errorf("the mirror beside it made %d copies, which is not six of each ping of three", copies)
	}
	if grown := s.resident() - before; grown > 100<<10 {
		t.Errorf("tapwall grew by %d KiB", grown)
	}
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
