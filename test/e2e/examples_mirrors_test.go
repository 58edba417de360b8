package e2e

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/internal/packet"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

const mirrorExamples = "../../examples/mirrors/"

// inVXLAN are the frames in the datagrams to port 4789 that came to a collector, by VNI.
func inVXLAN(c *lab.Capture) map[uint32][]lab.Frame {
	out := map[uint32][]lab.Frame{}
	for _, f := range c.Frames(lab.UDPTo(4789)) {
		vni := binary.BigEndian.Uint32(f.Data[46:50]) >> 8
		out[vni] = append(out[vni], lab.Frame{At: f.At, Data: f.Data[50:]})
	}
	return out
}

// sessions counts frames by the port of the server, which is the lower one, for each IP version: "4 80".
func sessions(fs []lab.Frame) map[string]int {
	out := map[string]int{}
	var p packet.Parsed
	d := packet.NewDecoder()
	for _, f := range fs {
		d.Decode(f.Data, 0, &p)
		out[fmt.Sprint(p.IPVersion, min(p.SrcPort, p.DstPort))]++
	}
	return out
}

// examples/mirrors/vtap.yaml does what it says.
func TestMirrorExampleVTAP(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	collector := s.underlay()
	must(t, s.Serve(s.vm[1], 22, 80, 443))
	s.tapwall("apply", "--wait", "-f", mirrorExamples+"vtap.yaml")
	capture, err := s.Capture(collector.NS, "eth0")
	must(t, err)
	for _, port := range []int{22, 80, 443} {
		s.mustConnect(s.vm[2], s.vm[1].IPv4, port)
		s.mustConnect(s.vm[2], s.vm[1].IPv6, port)
		s.mustConnect(s.vm[3], s.vm[1].IPv4, port)
	}
	whole := func() bool {
		n := sessions(inVXLAN(capture)[129057])
		return n["4 80"] >= 5 && n["4 443"] >= 5 && n["6 80"] >= 5 && n["6 443"] >= 5
	}
	lab.Eventually(t, 8*time.Second, "both sessions are copied, of both versions", whole)
	settle()
	if got := sessions(inVXLAN(capture)[129057]); len(got) != 4 {
		t.Errorf("copies of other sessions: %v", got)
	}
	for _, f := range inVXLAN(capture)[129057] {
		if withMAC(s.vm[3].MAC)(f) {
			t.Error("a frame of the monitoring is copied")
		}
	}
}

// examples/mirrors/ids.yaml does what it says.
func TestMirrorExampleIDS(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.ping3(s.vm[1], s.vm[3])
	s.tapwall("apply", "--wait", "-f", mirrorExamples+"ids.yaml")
	s.becomes("mirror", "ids", policy.PhaseActive, "", "")
	capture := s.capture("ids0")
	s.ping3(s.vm[1], s.vm[2])
	s.ping3(s.vm[1], s.vm[3])
	settle()
	if n := len(capture.Frames(lab.ICMP)); n != 12 {
		t.Errorf("%d frames, want 6 between the two and 6 of one with another", n)
	}
}

// examples/mirrors/ten-minutes.yaml does what it says; for the end, two seconds take the place of the ten minutes.
func TestMirrorExampleTenMinutes(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	must(t, s.Serve(s.vm[3], 53, 80, 443))
	s.tapwall("apply", "--wait", "-f", mirrorExamples+"ten-minutes.yaml")
	s.becomes("mirror", "ten-minutes", policy.PhaseActive, "", "")
	capture := s.capture("ids0")
	for _, port := range []int{80, 443} {
		s.mustConnect(s.vm[1], s.vm[3].IPv4, port)
		s.mustConnect(s.vm[2], s.vm[3].IPv6, port)
	}
	s.say(s.vm[1], s.vm[3], 40053, 53, "a question")
	lab.Eventually(t, 8*time.Second, "sessions and the question are copied", func() bool {
		got := sessions(capture.Frames(nil))
		return got["4 443"] >= 5 && got["6 443"] >= 5 && got["4 53"] == 2 && len(got) == 3
	})
	text, err := os.ReadFile(mirrorExamples + "ten-minutes.yaml")
	must(t, err)
	soon := strings.Replace(string(text), "duration: 10m", "duration: 2s", 1)
	s.force(soon)
	lab.Eventually(t, 10*time.Second, "it ends", func() bool {
		st := s.status("mirror", "ten-minutes")
		return st.Phase == policy.PhaseStopped && st.Reason == policy.ReasonCompleted
	})
	s.tapwall("apply", "-f", mirrorExamples+"ids.yaml") // the port is there again
	s.force(soon)
	settle()
	if st := s.status("mirror", "ten-minutes"); st.Phase != policy.PhaseStopped {
		t.Errorf("applied again it is %s", st.Phase)
	}
}

// examples/mirrors/balanced.yaml does what it says.
func TestMirrorExampleBalanced(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	first := s.underlay()
	second, err := s.AddVM("collector2", "br-under", 10)
	must(t, err)
	_, err = second.Run("ip", "addr", "add", "10.99.0.3/24", "dev", "eth0")
	must(t, err)
	must(t, s.Serve(s.vm[2], 80))
	if out, err := s.Switch.Run("ping", "-c", "1", "-W", "2", "10.99.0.3"); err != nil { // the first copies would wait for its address
		t.Fatalf("%v\n%s", err, out)
	}
	s.tapwall("apply", "--wait", "-f", mirrorExamples+"balanced.yaml")
	var captures []*lab.Capture
	for _, c := range []*lab.VM{first, second} {
		capture, err := s.Capture(c.NS, "eth0")
		must(t, err)
		captures = append(captures, capture)
	}
	dial := func(n int) {
		for range n {
			s.mustConnect(s.vm[1], s.vm[2].IPv4, 80)
		}
		settle()
	}
	// clients are the ports of those whose sessions a collector got, since a time.
	clients := func(i int, since time.Time) map[uint16]bool {
		out := map[uint16]bool{}
		var p packet.Parsed
		d := packet.NewDecoder()
		for _, f := range inVXLAN(captures[i])[7] {
			if d.Decode(f.Data, 0, &p); f.At.After(since) && p.Proto == packet.ProtoTCP {
				out[max(p.SrcPort, p.DstPort)] = true
			}
		}
		return out
	}
	var begun time.Time
	// Open vSwitch asks for the address of a collector when it has a copy for it, which is lost then.
	lab.Eventually(t, 10*time.Second, "copies come to both", func() bool {
		dial(3)
		return len(clients(0, begun)) > 0 && len(clients(1, begun)) > 0
	})
	begun = time.Now()
	dial(40)
	var a, b map[uint16]bool
	lab.Eventually(t, 8*time.Second, "copies of all forty sessions have come", func() bool {
		a, b = clients(0, begun), clients(1, begun)
		return len(a)+len(b) >= 40
	})
	for port := range a {
		if b[port] {
			t.Errorf("the session of port %d went to both", port)
		}
	}
	if len(a) < 8 || len(b) < 8 || len(a)+len(b) != 40 {
		t.Errorf("%d and %d sessions of 40", len(a), len(b))
	}
	_, err = second.Run("ip", "link", "set", "eth0", "down")
	must(t, err)
	lab.Eventually(t, 10*time.Second, "a collector that does not answer is told of", func() bool {
		return s.status("mirror", "balanced").Reason == policy.ReasonTargetDown
	})
	begun = time.Now()
	dial(20)
	if n := len(clients(0, begun)); n != 20 {
		t.Errorf("the collector that is left got %d sessions of 20", n)
	}
}

// examples/mirrors/pcap-ring.yaml does what it says, with the commands that stand in it; TestMirrorScenario12PcapFile and ...Buffer have
// the bounds.
func TestMirrorExamplePcapRing(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.ping3(s.vm[1], s.vm[2])
	s.tapwall("apply", "--wait", "-f", mirrorExamples+"pcap-ring.yaml")
	s.becomes("mirror", "pcap-ring", policy.PhaseActive, "", "")
	s.ping3(s.vm[1], s.vm[2])
	s.ping3(s.vm[2], s.vm[3])
	icmp := func(file string) int { return len(tshark(t, file, "icmp", "ip.src")) }
	saved := filepath.Join(t.TempDir(), "saved.pcapng")
	lab.Eventually(t, 8*time.Second, "the buffer has six packets of the machine", func() bool {
		s.tapwall("capture", "save", "pcap-ring", "--since", "-30s", "-w", saved, "--force")
		return icmp(saved) == 6
	})
	var list struct {
		Items []struct {
			Kind  string
			Files []struct{ Name string }
		}
	}
	must(t, json.Unmarshal([]byte(s.tapwall("capture", "list", "-o", "json")), &list))
	for _, c := range list.Items {
		if c.Kind == "pcap" && len(c.Files) == 1 {
			got := filepath.Join(t.TempDir(), "got.pcapng")
			s.tapwall("capture", "get", "pcap-ring", c.Files[0].Name, "-w", got)
			if n := icmp(got); n != 6 {
				t.Errorf("%d packets in the file", n)
			}
			return
		}
	}
	t.Errorf("no file in %+v", list)
}
