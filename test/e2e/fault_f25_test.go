package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// A guest leaves its checksums to a device that does not exist. Its port is named with what to do, the ports of others are not, and the
// warning goes when it has been done.
func TestFault_F25_ChecksumOffload(t *testing.T) {
	t.Parallel()
	s := open(t, 4)
	s.apply(allowPorts("vm1", "vm1", "vm2", "5001") + "---" + allowPorts("vm3", "vm3", "vm4", "5001"))
	offload := func(to string) {
		_, err := s.vm[1].Run("ethtool", "-K", "eth0", "tx", to)
		must(t, err)
	}
	honest := s.echo(s.vm[4], s.vm[3], 5001)
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	s.running(honest)
	offload("on")
	const code = "CHECKSUM_OFFLOAD"
	var status string
	lab.Eventually(t, 40*time.Second, "the status names the port", func() bool {
		s.vm[1].CanConnect(s.vm[2].IPv4, 5001, 200*time.Millisecond)
		status = s.tapwall("status")
		return strings.Contains(status, code)
	})
	for _, want := range []string{"warning: " + code + ": the sender behind port vm1 of bridge br0",
		"at the other end of vm1 run: ethtool -K DEVICE tx off"} {
		if !strings.Contains(status, want) {
			t.Errorf("the status lacks %q:\n%s", want, status)
		}
	}
	if strings.Count(status, code) != 1 {
		t.Errorf("others are named as well:\n%s", status)
	}
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001) // it is true
	if !warned(s.status("policy", "vm1").Warnings, code, "port vm1") || warned(s.status("policy", "vm3").Warnings, code, "") {
		t.Errorf("policies: %+v, %+v", s.status("policy", "vm1").Warnings, s.status("policy", "vm3").Warnings)
	}
	// On the other end, as the warning says, and not on this one.
	_, err := s.Switch.Run("ethtool", "-K", "vm1", "tx", "off")
	must(t, err)
	s.mustNotConnect(s.vm[1], s.vm[2].IPv4, 5001)
	offload("off")
	s.mustConnect(s.vm[1], s.vm[2].IPv4, 5001)
	lab.Eventually(t, 40*time.Second, "the warning goes", func() bool {
		s.vm[1].CanConnect(s.vm[2].IPv4, 5001, 200*time.Millisecond)
		return !strings.Contains(s.tapwall("status"), code)
	})
	s.lossless(honest, "a sender that finishes its checksums")
}
