package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// quarantineFlows are those of quarantines.
const quarantineFlows = "cookie=0x7a9a110800000000/0xffffffff00000000"

// strange is the EtherType of frames that no stack answers (IEEE 802: local experimental).
const strange = 0x88b5

// raw makes a frame of any EtherType. mark tells it from others.
func raw(dst, src string, etherType uint16, mark string) []byte {
	d, _ := net.ParseMAC(dst)
	s, _ := net.ParseMAC(src)
	f := append(append([]byte{}, d...), s...)
	f = append(f, byte(etherType>>8), byte(etherType))
	f = append(f, mark...)
	for len(f) < 60 {
		f = append(f, 0)
	}
	return f
}

// kinds of frames that leave nobody alone: whatever the protocol, to one, to many, under one's own address and under another.
func frames(from *lab.VM, to string, own string, mark string) (out [][]byte) {
	for _, dst := range []string{to, "ff:ff:ff:ff:ff:ff", "01:80:c2:00:00:0e", "33:33:00:00:00:01", "02:77:00:00:ee:ee"} {
		for _, t := range []uint16{0x0800, 0x0806, 0x86dd, 0x88cc, 0x8100, 0x88a8, 0x8863, strange} {
			out = append(out, raw(dst, own, t, mark))
		}
	}
	return out
}

// holding says what the status of a quarantine is.
type holding struct {
	Status struct {
		Phase, Reason, Message string
		Hosts                  []struct {
			Endpoints []string
			Counters  map[string]int64
		}
	}
}

func (s *stage) quarantine(name string) (h holding) {
	s.t.Helper()
	must(s.t, json.Unmarshal([]byte(s.tapwall("get", "quarantine", name, "-o", "json")), &h))
	return h
}

// cutOff checks that nothing leaves vm or reaches it, whatever is tried.
func (s *stage) cutOff(when string, vm *lab.VM, others ...*lab.VM) {
	s.t.Helper()
	mark := fmt.Sprintf("quiet-%s-%d", strings.ReplaceAll(when, " ", "-"), time.Now().UnixNano())
	captures := map[*lab.VM]*lab.Capture{}
	for _, x := range append([]*lab.VM{vm}, others...) {
		c, err := s.Capture(x.NS, "eth0")
		must(s.t, err)
		captures[x] = c
	}
	before, err := vm.Received()
	must(s.t, err)
	second := "02:77:00:00:aa:01" // not declared, and known to NORMAL since setUp
	for range 3 {
		must(s.t, vm.Send(append(frames(vm, others[0].MAC, vm.MAC, mark), frames(vm, others[0].MAC, second, mark)...)...))
		for _, o := range others {
			must(s.t, o.Send(append(frames(o, vm.MAC, o.MAC, mark), frames(o, second, o.MAC, mark)...)...))
		}
		for _, o := range others {
			_ = o.CanConnect(vm.IPv4, 5000, 100*time.Millisecond)
			_ = vm.CanConnect(o.IPv4, 5000, 100*time.Millisecond)
			_ = vm.CanConnect(o.IPv6, 5000, 100*time.Millisecond)
		}
	}
	time.Sleep(200 * time.Millisecond)
	after, err := vm.Received()
	must(s.t, err)
	if n := after - before; n != 0 {
		s.t.Errorf("%s: %d frames reached the quarantined machine", when, n)
		for _, f := range captures[vm].Frames(nil) {
			s.t.Logf("  %x", f.Data[:min(len(f.Data), 60)])
		}
	}
	own, _ := net.ParseMAC(vm.MAC)
	other, _ := net.ParseMAC(second)
	for _, o := range others {
		for _, f := range captures[o].Frames(nil) {
			if len(f.Data) > 12 && (bytes.Equal(f.Data[6:12], own) || bytes.Equal(f.Data[6:12], other)) {
				s.t.Errorf("%s: %s got a frame of the quarantined machine: %x", when, o.Port, f.Data[:min(len(f.Data), 60)])
				break
			}
		}
	}
	// The others hear each other, floods included: what is silent is the quarantined machine alone.
	if len(others) > 1 {
		n := len(captures[others[1]].Frames(func(f lab.Frame) bool { return bytes.Contains(f.Data, []byte(mark)) }))
		if n == 0 {
			s.t.Errorf("%s: %s hears nothing of %s", when, others[1].Port, others[0].Port)
		}
	}
}

// TestQuarantine is a quarantine from its beginning to its end, with all that may happen to it: 0 frames of any EtherType leave or reach
// the port, over a restart of tapwall and of the switch; another machine is undisturbed; at the end everything is back.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	vm, a, b := s.vm[1], s.vm[2], s.vm[3]
	s.hush("vm1")
	// NORMAL has learned a second address of the machine, which nobody declares.
	must(t, vm.Send(raw("ff:ff:ff:ff:ff:ff", "02:77:00:00:aa:01", strange, "second")))
	echo, inward := s.echo(vm, a, 5001), s.echo(a, vm, 5001)
	control := s.echo(a, b, 5001)
	s.running(echo, inward, control)

	out := s.tapwall("quarantine", "add", "port=vm1", "--name", "cell", "--for", "1h", "--reason", "infected", "--wait")
	if !strings.Contains(out, "quarantine/cell added") || !strings.Contains(out, "Active") {
		t.Errorf("add says %q", out)
	}
	// Said again it is changed, and goes on having its reason.
	out = s.tapwall("quarantine", "add", "port=vm1", "--name", "cell", "--for", "2h", "--wait")
	if now := s.tapwall("get", "quarantine", "cell", "-o", "jsonpath={.spec.reason}"); !strings.Contains(out, "quarantine/cell changed") ||
		strings.TrimSpace(now) != "infected" {
		t.Errorf("the quarantine was not changed as it should: %s, reason %q", out, now)
	}
	s.effective()
	s.cutOff("at once", vm, a, b)
	if !stands(echo) {
		t.Error("a connection of the quarantined machine goes on")
	}
	if !stands(inward) {
		t.Error("a connection to the quarantined machine goes on")
	}
	lab.Eventually(t, 5*time.Second, "drops are counted in both directions", func() bool {
		c := s.quarantine("cell").Status.Hosts[0].Counters
		return c["droppedFromPackets"] > 0 && c["droppedToPackets"] > 0
	})
	lab.Eventually(t, 5*time.Second, "the first ones are recorded", func() bool {
		return strings.Contains(s.tapwall("observe", "--verdict", "QUARANTINED", "--last", "50"), "QUARANTINED")
	})
	if list := s.tapwall("quarantine", "list"); !strings.Contains(list, "br0/vm1") || !strings.Contains(list, "port=vm1") {
		t.Errorf("list:\n%s", list)
	}

	// Somebody takes the configuration away.
	_, err := s.Ofctl("mod-port", "br0", "vm1", "forward")
	must(t, err)
	lab.Eventually(t, 3*time.Second, "it is put back", func() bool { return s.noForward("vm1") })

	flows := s.flows(quarantineFlows)
	s.tw.Kill()
	s.cutOff("without tapwall", vm, a, b)
	must(t, s.tw.Start())
	s.cutOff("after a restart of tapwall", vm, a, b)
	if now := s.flows(quarantineFlows); strings.Join(now, "\n") != strings.Join(flows, "\n") {
		t.Errorf("the restart changed the flows:\n%s\n---\n%s", strings.Join(flows, "\n"), strings.Join(now, "\n"))
	}

	count, err := vm.Received()
	must(t, err)
	stop := make(chan struct{})
	flood := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				flood <- nil
				return
			case <-time.After(time.Millisecond):
			}
			if err := b.Send(raw("ff:ff:ff:ff:ff:ff", b.MAC, strange, "flood"), raw("02:77:00:00:ee:ee", b.MAC, strange, "flood")); err != nil {
				flood <- err
				return
			}
		}
	}()
	s.KillVswitchd()
	must(t, s.StartVswitchd())
	lab.Eventually(t, 20*time.Second, "active again", func() bool {
		return s.quarantine("cell").Status.Phase == "Active" && s.noForward("vm1")
	})
	time.Sleep(300 * time.Millisecond)
	close(stop)
	must(t, <-flood)
	if n, err := vm.Received(); err != nil || n != count {
		t.Errorf("%d frames reached the machine while the switch restarted (%v)", n-count, err)
	}
	s.cutOff("after a restart of the switch", vm, a, b)
	s.mustConnect(a, b.IPv4, 5000)

	// The machine goes to another port of the switch.
	must(t, s.Unplug(vm))
	lab.Eventually(t, 5*time.Second, "pending", func() bool { return s.quarantine("cell").Status.Phase == "Pending" })
	must(t, s.Plug(vm))
	lab.Eventually(t, 10*time.Second, "active on the new port", func() bool { return s.quarantine("cell").Status.Phase == "Active" })
	s.cutOff("plugged in again", vm, a, b)

	s.tapwall("quarantine", "release", "cell", "--wait")
	s.effective()
	if s.noForward("vm1") {
		t.Error("the port keeps no-forward")
	}
	s.mustConnect(vm, a.IPv4, 5000)
	s.mustConnect(a, vm.IPv4, 5000)
	s.mustConnect(b, vm.IPv6, 5000)
	if n := s.flows(quarantineFlows); len(n) != 0 {
		t.Errorf("flows are left: %v", n)
	}
}

// hush keeps the host itself from talking on the device of a port, past the switch.
func (s *stage) hush(port string) {
	s.t.Helper()
	_, err := s.Switch.Run("sysctl", "-qw", "net.ipv6.conf."+port+".disable_ipv6=1")
	must(s.t, err)
}

// effective waits until the switch has thrown away what it had cached.
func (s *stage) effective() {
	for range 2 {
		if _, err := s.Appctl("revalidator/wait"); err != nil {
			break
		}
	}
}

// noForward reports whether the switch says that it sends nothing to a port.
func (s *stage) noForward(port string) bool {
	s.t.Helper()
	out, err := s.Ofctl("dump-ports-desc", "br0")
	must(s.t, err)
	_, rest, ok := strings.Cut(out, "("+port+")")
	if !ok {
		return false
	}
	config, _, _ := strings.Cut(rest, "state:")
	return strings.Contains(config, "NO_FWD")
}

// stands reports whether nothing comes back any more.
func stands(p *lab.Probe) bool {
	since := time.Now()
	time.Sleep(400 * time.Millisecond)
	return p.ReceivedSince(since) == 0
}

// way is an attempt to connect.
type way struct {
	from *lab.VM
	to   string
	port int
}

// noneConnect is mustNotConnect for several at once.
func (s *stage) noneConnect(ways ...way) {
	s.t.Helper()
	s.effective()
	connected := make([]bool, len(ways))
	var all sync.WaitGroup
	for i, w := range ways {
		all.Go(func() { connected[i] = w.from.CanConnect(w.to, w.port, 700*time.Millisecond) })
	}
	all.Wait()
	for i, w := range ways {
		if connected[i] {
			s.t.Errorf("%s can connect to %s port %d", w.from.Port, w.to, w.port)
		}
	}
}

// TestQuarantinePassList: whom the pass list names is reached in both directions, by the services that it says, and nobody else; floods are
// kept away all the same, but for who asks for the machine's address; over a restart of the switch.
func TestQuarantinePassList(t *testing.T) {
	t.Parallel()
	s := open(t, 4, "--pickup-window", "3s")
	vm, a, b, resolver := s.vm[1], s.vm[2], s.vm[3], s.vm[4]
	s.hush("vm1")
	must(t, s.Serve(resolver, 53))
	must(t, vm.Send(raw("ff:ff:ff:ff:ff:ff", "02:77:00:00:aa:01", strange, "second")))
	s.apply("kind: Endpoint\nname: e1\nspec: {match: {port: vm1}, addresses: [10.77.0.1, \"fd77::1\"]}\n")
	passing := s.echo(vm, a, 5001)
	inward := s.echo(a, vm, 5002)
	cut := s.echo(vm, b, 5001)
	s.running(passing, inward, cut)
	s.tapwall("quarantine", "add", "port=vm1", "--name", "cell", "--dns", "--pass", a.IPv4, "--wait")
	check := func(when string) {
		t.Helper()
		s.effective()
		for range 2 { // ARP is asked anew from both sides
			_, _ = vm.Run("ip", "neigh", "flush", "all")
			_, _ = a.Run("ip", "neigh", "flush", "all")
			_, _ = resolver.Run("ip", "neigh", "flush", "all")
			s.mustConnect(a, vm.IPv4, 5000)
			s.mustConnect(vm, a.IPv4, 5000)
			s.mustConnect(vm, resolver.IPv4, 53)
			s.mustConnect(vm, resolver.IPv6, 53)
		}
		s.noneConnect(way{vm, resolver.IPv4, 5000}, way{vm, b.IPv4, 5000}, way{b, vm.IPv4, 5000}, way{a, vm.IPv6, 5000},
			way{b, vm.IPv6, 5000})
		mark := fmt.Sprintf("not-for-you-%d", time.Now().UnixNano())
		got, err := s.Capture(vm.NS, "eth0")
		must(t, err)
		heard, err := s.Capture(a.NS, "eth0")
		must(t, err)
		for _, o := range []*lab.VM{b, resolver} {
			must(t, o.Send(append(frames(o, vm.MAC, o.MAC, mark), frames(o, "02:77:00:00:aa:01", o.MAC, mark)...)...))
		}
		must(t, vm.Send(append(frames(vm, a.MAC, vm.MAC, mark+"-out"), frames(vm, a.MAC, "02:77:00:00:aa:01", mark+"-out")...)...))
		time.Sleep(200 * time.Millisecond)
		marked := func(f lab.Frame) bool { return bytes.Contains(f.Data, []byte(mark)) }
		for _, f := range got.Frames(marked) {
			t.Errorf("%s: reached the machine: %x", when, f.Data)
		}
		for _, f := range heard.Frames(func(f lab.Frame) bool { return bytes.Contains(f.Data, []byte(mark+"-out")) }) {
			t.Errorf("%s: left the machine: %x", when, f.Data)
		}
		if len(heard.Frames(marked)) == 0 {
			t.Errorf("%s: the others do not hear each other", when)
		}
	}
	check("at once")
	if stands(passing) || stands(inward) {
		t.Error("a connection of the pass list stands still")
	}
	if !stands(cut) {
		t.Error("a connection that is not of the pass list goes on")
	}
	s.KillVswitchd()
	must(t, s.StartVswitchd())
	lab.Eventually(t, 20*time.Second, "active again", func() bool { return s.quarantine("cell").Status.Phase == "Active" })
	s.pickupClosed()
	check("after a restart of the switch")

	// The same without the list is one write, and the other way round.
	s.tapwall("quarantine", "add", "port=vm1", "--name", "cell", "--wait")
	s.effective()
	s.cutOff("without the list", vm, a, b)
	s.tapwall("quarantine", "add", "port=vm1", "--name", "cell", "--pass", a.IPv4+":tcp/5000", "--wait")
	s.effective()
	s.mustConnect(vm, a.IPv4, 5000)
	s.mustNotConnect(vm, a.IPv4, 5001)
	s.tapwall("quarantine", "release", "cell", "--wait")
	s.mustConnect(vm, b.IPv4, 5000)
	s.mustConnect(b, vm.IPv4, 5000)
	s.mustConnect(b, vm.IPv6, 5000)
}

// TestQuarantineEnds: its time is over also while tapwall is down, and a clock that is set does not end it.
func TestQuarantineEnds(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	vm, a := s.vm[1], s.vm[2]
	s.tapwall("quarantine", "add", "uuid-vm1", "--for", "4s", "--wait")
	s.effective()
	s.mustNotConnect(a, vm.IPv4, 5000)
	lab.Eventually(t, 10*time.Second, "it has ended", func() bool {
		h := s.quarantine("uuid-vm1")
		return h.Status.Phase == "Stopped" && h.Status.Reason == "Expired"
	})
	s.effective()
	s.mustConnect(a, vm.IPv4, 5000)
	s.mustConnect(vm, a.IPv4, 5000)

	s.tapwall("quarantine", "add", "uuid-vm1", "--for", "6s", "--wait")
	s.effective()
	s.mustNotConnect(a, vm.IPv4, 5000)
	// The record says who it was and whence, also at the end that came by itself.
	who := regexp.MustCompile(`by root \(uid 0\), from unix socket, process \d+`)
	recorded := func(action string) {
		t.Helper()
		if out := s.tapwall("observe", "--action", action, "--last", "10"); !strings.Contains(out, "uuid-vm1") || !who.MatchString(out) {
			t.Errorf("%s is not recorded:\n%s", action, out)
		}
	}
	recorded("quarantine-began")
	recorded("quarantine-ended")
	s.tw.Kill()
	s.mustNotConnect(a, vm.IPv4, 5000)
	time.Sleep(6 * time.Second)
	s.mustNotConnect(a, vm.IPv4, 5000) // nobody is there to end it
	must(t, s.tw.Start())
	lab.Eventually(t, 10*time.Second, "it has ended", func() bool { return !s.noForward("vm1") && len(s.flows(quarantineFlows)) == 0 })
	s.effective()
	s.mustConnect(a, vm.IPv4, 5000)
	recorded("quarantine-ended") // by a process that did not write it
	s.tapwall("quarantine", "release", "uuid-vm1", "--wait")
	recorded("quarantine-released")
}

// TestQuarantineFullDisk: where not a byte is left for the store, a machine can be cut off all the same, and an allow can be taken away;
// both take effect on the switch. All else is refused.
func TestQuarantineFullDisk(t *testing.T) {
	t.Parallel()
	s := ground(t, 3)
	dir := filepath.Join(s.Dir, "small")
	must(t, os.Mkdir(dir, 0o700))
	must(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=320m"))
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	s.wall("--data-dir", dir)
	vm, a, b := s.vm[1], s.vm[2], s.vm[3]
	s.hush("vm1")
	const isolated = "kind: Policy\nname: isolated\nspec: {appliesTo: [{port: vm2}], defaultDeny: {ingress: true}}\n"
	s.applyUncached(isolated + "---\n" + allowPorts("open", "vm2", "vm3", "5001"))
	echo, allowed := s.echo(vm, b, 5001), s.echo(b, a, 5001)
	s.running(echo, allowed)
	s.becomesHealthy("healthy before")
	time.Sleep(1500 * time.Millisecond) // etcd has written its database
	fill(t, filepath.Join(dir, "other-data"), 0)
	s.refused("kind: Group\nname: g\nspec: {members: [{port: vm1}]}\n", "apply", "-f", "-")

	s.tapwall("quarantine", "add", "port=vm1", "--name", "cell", "--for", "1h", "--wait")
	s.tapwall("delete", "policy", "open", "--wait")
	s.effective()
	s.cutOff("on a full disk", vm, a, b)
	s.stops(allowed, "the connection of the deleted policy")
	s.mustNotConnect(b, a.IPv4, 5001)
	if !stands(echo) {
		t.Error("a connection of the quarantined machine goes on")
	}
	must(t, os.Remove(filepath.Join(dir, "other-data")))
	s.becomesHealthy("healthy with space again")
	s.unchangedByRestart()
	s.cutOff("after a restart of tapwall", vm, a, b)
	s.mustNotConnect(b, a.IPv4, 5001)
}

// TestQuarantineTrunk: of a port that carries VLANs no frame comes or goes either, tagged or not, in whichever VLAN.
func TestQuarantineTrunk(t *testing.T) {
	t.Parallel()
	s := ground(t, 4, nil, []string{"tag=10"}, []string{"tag=20"}, []string{"tag=10"})
	s.wall()
	trunk := s.vm[1]
	s.hush("vm1")
	tagged := func(vlan byte, mark string) []byte {
		return raw("ff:ff:ff:ff:ff:ff", trunk.MAC, 0x8100, "\x00"+string(vlan)+"\x88\xb5"+mark)
	}
	arrives := func(vm *lab.VM, mark string, send func() error) bool {
		t.Helper()
		c, err := s.Capture(vm.NS, "eth0")
		must(t, err)
		for range 5 {
			must(t, send())
			time.Sleep(10 * time.Millisecond)
		}
		return len(c.Frames(func(f lab.Frame) bool { return bytes.Contains(f.Data, []byte(mark)) })) > 0
	}
	try := func(when string, want bool) {
		t.Helper()
		for vlan, vm := range map[byte]*lab.VM{10: s.vm[2], 20: s.vm[3]} {
			if got := arrives(vm, when+"-from", func() error { return trunk.Send(tagged(vlan, when+"-from")) }); got != want {
				t.Errorf("%s: a frame of VLAN %d leaves the trunk: %v", when, vlan, got)
			}
			for _, dst := range []string{"ff:ff:ff:ff:ff:ff", trunk.MAC, "02:77:00:00:ee:ee"} {
				f := raw(dst, vm.MAC, strange, when+"-to")
				if got := arrives(trunk, when+"-to", func() error { return vm.Send(f) }); got != want {
					t.Errorf("%s: a frame of VLAN %d to %s reaches the trunk: %v", when, vlan, dst, got)
				}
			}
		}
		other := raw("ff:ff:ff:ff:ff:ff", s.vm[2].MAC, strange, when+"-beside")
		if !arrives(s.vm[4], when+"-beside", func() error { return s.vm[2].Send(other) }) {
			t.Errorf("%s: the others do not hear each other", when)
		}
	}
	try("before", true)
	s.tapwall("quarantine", "add", "port=vm1", "--name", "cell", "--wait")
	s.effective()
	try("held", false)
	s.tapwall("quarantine", "release", "cell", "--wait")
	s.effective()
	try("released", true)
}

// TestQuarantineBond: of a bond nothing comes or goes by any of its interfaces, whichever of them is in use, also when that changes.
func TestQuarantineBond(t *testing.T) {
	t.Parallel()
	s := ground(t, 4)
	a, b, c, d := s.vm[1], s.vm[2], s.vm[3], s.vm[4]
	must(t, s.Unplug(a))
	must(t, s.Unplug(b))
	// a and b are the two wires of one machine, which has the address of a.
	_, err := s.Vsctl("--", "add-bond", "br0", "bond1", a.Port, b.Port, "bond_mode=active-backup", "--",
		"set", "interface", b.Port, "external_ids:iface-id=if-bond", `external_ids:attached-mac="`+a.MAC+`"`)
	must(t, err)
	s.wall()
	s.hush(a.Port)
	s.hush(b.Port)
	use := func(wire *lab.VM) {
		t.Helper()
		lab.Eventually(t, 5*time.Second, "the bond uses "+wire.Port, func() bool {
			_, err := s.Appctl("bond/set-active-member", "bond1", wire.Port)
			return err == nil
		})
	}
	// arrives reports which machines get one of a few frames.
	arrives := func(mark string, from *lab.VM, frame []byte, at ...*lab.VM) (got []bool) {
		t.Helper()
		var captures []*lab.Capture
		for _, vm := range at {
			x, err := s.Capture(vm.NS, "eth0")
			must(t, err)
			captures = append(captures, x)
		}
		for range 5 {
			must(t, from.Send(frame))
			time.Sleep(10 * time.Millisecond)
		}
		for _, x := range captures {
			got = append(got, len(x.Frames(func(f lab.Frame) bool { return bytes.Contains(f.Data, []byte(mark)) })) > 0)
		}
		return got
	}
	try := func(when string, used, idle *lab.VM, want bool) {
		t.Helper()
		for _, wire := range []*lab.VM{used, idle} {
			for _, dst := range []string{"ff:ff:ff:ff:ff:ff", c.MAC} {
				mark := when + "-from-" + wire.Port + "-" + dst
				got := arrives(mark, wire, raw(dst, a.MAC, strange, mark), c)[0]
				if got != want && (wire == used || got) { // what comes by the other wire, a switch drops in any case
					t.Errorf("%s: a frame to %s leaves by %s: %v", when, dst, wire.Port, got)
				}
			}
		}
		for _, dst := range []string{"ff:ff:ff:ff:ff:ff", a.MAC, "02:77:00:00:ee:ee"} {
			mark := when + "-to-" + dst
			if got := arrives(mark, c, raw(dst, c.MAC, strange, mark), used, idle); got[0] != want || got[1] {
				t.Errorf("%s: a frame to %s reaches the wire in use: %v, the other: %v", when, dst, got[0], got[1])
			}
		}
		mark := when + "-beside"
		if !arrives(mark, c, raw("ff:ff:ff:ff:ff:ff", c.MAC, strange, mark), d)[0] {
			t.Errorf("%s: the others do not hear each other", when)
		}
	}
	use(a)
	try("free", a, b, true)
	s.tapwall("quarantine", "add", "port=bond1", "--name", "cell", "--wait")
	s.effective()
	for _, wire := range []*lab.VM{a, b} {
		if !s.noForward(wire.Port) {
			t.Errorf("%s has no no-forward", wire.Port)
		}
	}
	try("held", a, b, false)
	use(b)
	try("held by the other wire", b, a, false)
	s.tapwall("quarantine", "release", "cell", "--wait")
	s.effective()
	try("released", b, a, true)
}
