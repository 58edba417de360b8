package host

import (
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// TestWayTo asks the kernel of a network namespace with routes, veth pairs and a device that stands on another.
func TestWayTo(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("root is needed for network namespaces when CI=true")
		}
		t.Skip("it needs root for network namespaces")
	}
	apart(t, func() {
		for _, cmd := range []string{
			"link set lo up",
			"link add br0 type veth peer name far", "addr add 192.0.2.1/24 dev br0", "link set br0 up", "link set far up",
			"link add v0 type veth peer name v1", "addr add 198.51.100.1/24 dev v0", "link set v0 up", "link set v1 up",
			"link add link br0 name above type macvlan", "link set above up", "-6 addr add 2001:db8:7::1/64 dev above nodad",
			"route add 203.0.113.0/24 via 192.0.2.254", "route add 203.0.113.128/25 via 198.51.100.254", "route add blackhole 203.0.113.200/32",
			"-6 route add default via 2001:db8:7::2", "-6 route add unreachable 2001:db8:dead::/48",
		} {
			if out, err := exec.Command("ip", strings.Fields(cmd)...).CombinedOutput(); err != nil {
				t.Errorf("ip %s: %v: %s", cmd, err, out)
			}
		}
		for to, want := range map[string]string{
			"192.0.2.9": "br0 far", "203.0.113.9": "br0 far", "203.0.113.129": "v0 v1", "203.0.113.200": "", "10.1.2.3": "", "192.0.2.1": "lo",
			"2001:db8:1::9": "above br0 far", "2001:db8:dead::1": "", "::ffff:192.0.2.9": "br0 far",
		} {
			got, err := wayTo(netip.MustParseAddr(to))
			if err != nil || strings.Join(got.chain, " ") != want {
				t.Errorf("to %s: %q, %v; want %q", to, got.chain, err, want)
			}
		}
	})
}

// apart runs fn in a network namespace that goes with the thread.
func apart(t *testing.T, fn func()) {
	t.Helper()
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock it, so that nothing else comes to run there
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			fn()
		}
	}()
	if <-done; err != nil {
		t.Skipf("no network namespace: %v", err)
	}
}

func TestCarrierOf(t *testing.T) {
	topo := &vswitch.Topology{Bridges: map[string]*vswitch.Bridge{"br0": {Name: "br0", Ports: map[string]*vswitch.Port{"v1": {Name: "v1"}}}}}
	for chain, want := range map[string]string{"eth0": "eth0", "br0.7 br0": "br0", "v0 v1": "v1", "x.1 x": "x.1"} {
		if got := carrierOf(strings.Fields(chain), topo); got != want {
			t.Errorf("%s: %s, want %s", chain, got, want)
		}
	}
}

// FuzzRouteAnswer: whatever a socket delivers ends in a device or an error.
func FuzzRouteAnswer(f *testing.F) {
	body := append([]byte{unix.AF_INET, 32, 11: 0}, attribute(unix.RTA_DST, []byte{127, 0, 0, 1})...)
	answer, err := askKernel(unix.RTM_GETROUTE, 0, body)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(answer)
	link, err := askKernel(unix.RTM_GETLINK, 0, slices.Concat([]byte{0, 0, 0, 0, 1, 0, 0, 0}, make([]byte, 8)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(link)
	f.Fuzz(func(_ *testing.T, text []byte) {
		_ = kernelError(text)
		_, _ = routeOf(text)
		_, _ = linkOf(text)
		_, _ = neighbourOf(text)
		_ = metricMTU(text)
	})
}
