package oftest_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/ofctrl/oftest"
)

func TestStartOVS(t *testing.T) {
	t.Parallel()
	var dir string
	t.Run("run", func(t *testing.T) {
		start := time.Now()
		o := oftest.StartOVS(t, oftest.OVSOptions{})
		dir = o.RunDir
		o.AddBridge("br0", "")
		if n := o.AddPort("br0", "p1", 7); n != 7 {
			t.Errorf("port p1 has number %d, want 7", n)
		}
		o.AddPort("br0", "p2", 8)
		t.Logf("up with a bridge and two ports after %v", time.Since(start))
		if path := strings.TrimPrefix(o.MgmtAddr("br0"), "unix:"); len(path) > 107 {
			t.Errorf("socket path %q is too long for a unix socket", path)
		}
		if got := o.Ofctl("dump-flows", "br0"); strings.Contains(got, "cookie") {
			t.Errorf("a new bridge has flows: %s", got)
		}
		o.Ofctl("add-flow", "br0", "in_port=7,actions=output:8")
		o.InjectPacket("p1", make([]byte, 64))
		want := "n_packets=1"
		got := ""
		for range 100 { // statistics of the datapath arrive with the revalidator
			if got = o.Ofctl("dump-flows", "br0"); strings.Contains(got, want) {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if !strings.Contains(got, want) {
			t.Errorf("after one packet:\n%swant %s", got, want)
		}

		o.KillVswitchd()
		if out, err := o.OfctlErr("dump-flows", "br0"); err == nil {
			t.Errorf("ofctl works without vswitchd: %s", out)
		}
		o.StartVswitchd()
		if got := o.Ofctl("dump-flows", "br0"); strings.Contains(got, "cookie") {
			t.Errorf("flows survived a kill: %s", got)
		}
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("run directory %s is left behind: %v", dir, err)
	}
}
