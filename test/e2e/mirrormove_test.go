package e2e

import (
	"encoding/binary"
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/test/lab"
)

// A native mirror whose target another mirror shares is made staged, and its port moves to the tap bridge: the device is made anew, so who
// reads it opens it again. Of what is sent meanwhile, 1,000 packets a second, no more is missed than a second's, and nothing comes twice;
// when the other mirror goes, nothing moves back.
func TestMirrorScenario11TargetComesToBeShared(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.ping3(s.vm[1], s.vm[2])
	const doc = "kind: Mirror\nname: %s\nspec: {sources: [{port: %s}], direction: fromSource, targets: [{port: {name: ids0, create: true}}]}\n"
	s.force(sprintf(doc, "one", "vm1"))
	s.realised("one", policy.RealisedNative, true)
	index := func() (n int) {
		_ = s.Switch.Do(func() error {
			ifi, err := net.InterfaceByName("ids0")
			if err == nil {
				n = ifi.Index
			}
			return err
		})
		return n
	}
	first := index()
	captures := []*lab.Capture{s.capture("ids0")}
	const n, every = 3000, time.Millisecond
	ping := exec.Command("ping", "-i", "0.001", "-c", sprintf("%d", n), "-q", s.vm[2].IPv4)
	must(t, s.vm[1].Do(ping.Start))
	time.Sleep(500 * time.Millisecond)
	shared := make(chan error, 1)
	go func() { shared <- s.tw.Apply(sprintf(doc, "two", "vm3")) }()
	lab.Eventually(t, 5*time.Second, "the port is made anew", func() bool { now := index(); return now != 0 && now != first })
	captures = append(captures, s.capture("ids0"))
	must(t, <-shared)
	s.realised("one", policy.RealisedStaged, true)
	moved := index()
	s.tapwall("delete", "mirror", "two", "--wait")
	must(t, ping.Wait())
	settle()
	if now := index(); now != moved {
		t.Error("the port moved again when the other mirror went")
	}
	times := map[uint16]int{}
	for _, c := range captures {
		for _, f := range c.Frames(withMAC(s.vm[1].MAC)) {
			if lab.ICMP(f) && f.Data[34] == 8 {
				times[binary.BigEndian.Uint16(f.Data[40:])]++
			}
		}
	}
	missed, twice := 0, 0
	for seq := uint16(1); seq <= n; seq++ {
		switch times[seq] {
		case 0:
			missed++
		case 1:
		default:
			twice++
		}
	}
	t.Logf("of %d requests %d were missed (%v) and %d came twice", n, missed, time.Duration(missed)*every, twice)
	if missed > int(time.Second/every) || twice > 0 {
		t.Errorf("of %d requests %d were not copied and %d more than once", n, missed, twice)
	}
}
