package e2e

import (
	"bytes"
	"encoding/json"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// fragment keeps untagged fragments of IPv4.
func fragment(f lab.Frame) bool {
	d := f.Data
	return len(d) > 34 && d[12] == 0x08 && d[13] == 0 && (d[20]&0x3f != 0 || d[21] != 0)
}

// Scenario 10: fragmented datagrams pass where a connection stands or a rule has no ports; as the first of a connection under a rule with
// ports, where the switch can do that, which the host's capabilities say; where they are denied, never.
func TestFirewallScenario10Fragments(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.applyUncached(`
kind: Policy
name: ports
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: allow, action: allow, from: [{port: vm1}], services: [{protocol: udp, ports: ["5001"]}]}
---
kind: Policy
name: addresses
spec:
  appliesTo: [{port: vm3}]
  ingress:
  - {name: allow, action: allow, from: [{port: vm1}]}
`)
	big := bytes.Repeat([]byte("fragment"), 5000/8)
	// exchange sends a datagram and reports whether it comes back whole.
	exchange := func(c net.Conn, data []byte, within time.Duration) bool {
		_, err := c.Write(data)
		must(t, err)
		must(t, c.SetReadDeadline(time.Now().Add(within)))
		buf := make([]byte, 65536)
		n, err := c.Read(buf)
		return err == nil && bytes.Equal(buf[:n], data)
	}
	dial := func(to *lab.VM, port int) net.Conn {
		c, err := s.vm[1].Dial("udp", to.IPv4, port, time.Second)
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	there, err := s.Capture(s.vm[2].NS, "eth0")
	must(t, err)
	if !exchange(dial(s.vm[3], 5001), big, 2*time.Second) {
		t.Error("a fragmented datagram does not pass a rule without ports")
	}
	if n := len(there.Frames(fragment)); n > 0 {
		t.Errorf("%d fragments for vm3 came to vm2", n)
	}

	denied := func() int64 { return s.counted("ports").counters["defaultDenyIngressPackets"] }
	before := denied()
	for range 3 {
		if exchange(dial(s.vm[2], 5002), big, 300*time.Millisecond) {
			t.Error("a fragmented datagram to a denied port is answered")
		}
	}
	lab.Eventually(t, 3*time.Second, "the fragments are counted as denied", func() bool { return denied() >= before+3 })
	if n := len(there.Frames(fragment)); n > 0 {
		t.Errorf("%d fragments of denied datagrams were delivered", n)
	}

	live := dial(s.vm[2], 5001)
	if !exchange(live, []byte("small"), 2*time.Second) || !exchange(live, big, 2*time.Second) {
		t.Error("a fragmented datagram does not pass on a live connection")
	}

	var hosts struct {
		Items []struct{ Capabilities []string }
	}
	out := s.tapwall("get", "hosts", "-o", "json")
	must(t, json.Unmarshal([]byte(out), &hosts))
	if len(hosts.Items) != 1 {
		t.Fatalf("hosts: %s", out)
	}
	can := slices.Contains(hosts.Items[0].Capabilities, "firstFragments")
	before = denied()
	if got := exchange(dial(s.vm[2], 5001), big, time.Second); got != can {
		t.Errorf("a fragmented first datagram passes: %v, and the capabilities are %q", got, hosts.Items[0].Capabilities)
	}
	if !can {
		lab.Eventually(t, 3*time.Second, "the fragments without ports are counted as denied", func() bool { return denied() > before })
	}
}
