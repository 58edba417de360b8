package fleet_test

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tapwall/tapwall/policy"
)

// The database is out of reach for who has the lock, and for nobody else, while OpenFlow is not: a second one gets the lock, and the
// first lets go of the switch as soon as that shows there.
func TestHostsLockBehindABrokenPath(t *testing.T) {
	t.Parallel()
	far := newSite(t, "far", "id-far", 1)
	direct := far.DBAddr()
	path := filepath.Join(t.TempDir(), "db.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	var relays sync.WaitGroup
	relays.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("unix", strings.TrimPrefix(direct, "unix:"))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			open = append(open, conn, up)
			mu.Unlock()
			for _, ends := range [][2]net.Conn{{conn, up}, {up, conn}} {
				relays.Go(func() {
					_, _ = io.Copy(ends[0], ends[1])
					_ = ends[0].Close()
				})
			}
		}
	})
	cut := sync.OnceFunc(func() {
		_ = l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			_ = c.Close()
		}
	})
	t.Cleanup(func() { cut(); relays.Wait() })

	far.address = "unix:" + path
	first := start(t, newStore(t), far).ready()
	first.apply(allow("p", "{port: vm1}", "80"))
	far.address = direct
	second := start(t, newStore(t), far)
	second.eventually("waiting", func() error {
		if err := second.Ready(); err == nil || !strings.Contains(err.Error(), "another tapwall manages this Open vSwitch") {
			return fmt.Errorf("%v", err)
		}
		return nil
	})
	cut()
	second.eventually("in charge", second.Ready)
	second.apply(allow("q", "{port: vm2}", "443"))
	first.eventually("out", func() error {
		if err := first.Ready(); err == nil || !strings.Contains(err.Error(), "another tapwall adds flows to bridge br0") {
			return fmt.Errorf("ready: %v", err)
		}
		return nil
	})
	// What the first wishes now is not carried out, and the second has nothing to put right any more.
	mods := func(p *process) uint64 { return p.System().Hosts[0].Bridges[0].FlowMods }
	second.eventually("quiet", second.Ready)
	a, b := mods(first), mods(second)
	first.put(allow("p", "{port: vm1}", "81"))
	first.eventually("told of the change", func() error {
		if s := first.Status(policy.KindPolicy, "p"); s.Phase == policy.PhaseActive {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	second.apply(allow("r", "{port: vm2}", "444"))
	if n, m := mods(first), mods(second); n != a || m-b > 20 || far.gates() != 2 {
		t.Errorf("the first sent %d flow-mods, the second %d; %d gates", n-a, m-b, far.gates())
	}
}
