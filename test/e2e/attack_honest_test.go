package e2e

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/test/lab"
)

// What is honest and looks odd must not be cut.

// forwarding makes a machine a router that tells nobody of shorter ways.
const forwarding = "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0 " +
	"net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0"

// A forwarding endpoint that is a bridge: the machine behind it shows its own MAC.
func TestAttackHonestBridgeInside(t *testing.T) {
	t.Parallel()
	for _, forwards := range []string{"", "kind: Endpoint\nname: r\nspec: {match: {port: vm2}, forwards: true}\n",
		"kind: Endpoint\nname: r\nspec: {match: {port: vm2}, forwards: true, macs: [\"02:77:00:00:01:02\"]}\n"} {
		t.Run(sprintf("%d", len(forwards)), func(t *testing.T) {
			t.Parallel()
			s := open(t, 3)
			r := s.vm[2]
			for _, cmd := range []string{
				"ip link add name brx type bridge", "ip link set dev brx address 02:77:00:00:00:02", "ip addr flush dev eth0",
				"ip link set eth0 address 02:77:00:00:03:02", "ip link set eth0 master brx",
				"ip link set dev brx up", "ip addr add 10.77.0.2/24 dev brx",
				"ip netns add " + s.Name + "-n", "ip link add v type veth peer name eth0 address 02:77:00:00:01:02 netns " + s.Name + "-n",
				"ip link set v master brx", "ip link set v up", "ethtool -K brx tx off",
				"ip -n " + s.Name + "-n addr add 10.77.0.102/24 dev eth0", "ip -n " + s.Name + "-n link set eth0 up",
				"ip netns exec " + s.Name + "-n ethtool -K eth0 tx off",
			} {
				out, err := r.Run("sh", "-c", cmd)
				if err != nil {
					t.Fatal(cmd, out, err)
				}
			}
			nested := &lab.VM{NS: lab.NS{Name: s.Name + "-n"}, Port: "nested", IPv4: "10.77.0.102", MAC: "02:77:00:00:01:02"}
			t.Cleanup(func() { _, _ = r.Run("ip", "netns", "del", s.Name+"-n") })
			must(t, s.Serve(nested, 5001))
			if forwards != "" {
				_, _ = s.tw.RunInput(forwards, "apply", "--wait=installed", "-f", "-")
			}
			s.pickupClosed()
			time.Sleep(300 * time.Millisecond)
			for what, ok := range map[string]bool{
				"nested to vm1":     nested.CanConnect(s.vm[1].IPv4, 5001, 4*time.Second),
				"vm1 to nested":     s.vm[1].CanConnect(nested.IPv4, 5001, 4*time.Second),
				"vm1 to the bridge": s.vm[1].CanConnect(r.IPv4, 5001, 4*time.Second),
				"bridge to vm1":     r.CanConnect(s.vm[1].IPv4, 5001, 4*time.Second),
			} {
				if !ok {
					t.Errorf("no connection: %s", what)
				}
			}
			s.explain("5001")
		})
	}
}

// Large datagrams to, from and through an endpoint that forwards.
func TestAttackHonestFragments(t *testing.T) {
	t.Parallel()
	s := open(t, 3)
	s.router()
	a, r, d := s.vm[1], s.vm[2], s.vm[3]
	for _, mode := range []string{"declared"} {
		s.apply(declaredRouter)
		for _, to := range []string{r.IPv4, d.IPv4, r.IPv6, d.IPv6} {
			out, err := a.Run("ping", "-c", "3", "-i", "0.2", "-W", "2", "-s", "4000", to)
			if err != nil {
				t.Errorf("%s to %s: %s", mode, to, out)
			}
		}
	}
}

// A gateway behind an uplink sends what it gets back over the same bridge: both isolated machines judge their side, however the connection
// is used.
func TestAttackHairpinGateway(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	a, b, gw := s.vm[1], s.vm[2], s.stranger("gw", 9)
	for vm, cmd := range map[*lab.VM]string{
		a: "ip route add " + b.IPv4 + "/32 via " + gw.IPv4, b: "ip route add " + a.IPv4 + "/32 via " + gw.IPv4,
		gw: forwarding,
	} {
		out, err := vm.Run("sh", "-c", cmd)
		if err != nil {
			t.Fatal(out, err)
		}
	}
	closedA := "kind: Policy\nname: a\nspec:\n  appliesTo: [{port: vm1}]\n  defaultDeny: {ingress: true, egress: true}\n"
	closedB := "---\nkind: Policy\nname: b\nspec:\n  appliesTo: [{port: vm2}]\n  defaultDeny: {ingress: true, egress: true}\n"
	openA := closedA + "  egress:\n  - {name: o, action: allow, to: [{cidr: " + b.IPv4 + "/32}]}\n"
	openB := closedB + "  ingress:\n  - {name: i, action: allow, from: [{cidr: " + a.IPv4 + "/32}]}\n"
	s.apply(openA + openB)
	s.pickupClosed()
	tr := s.everyWay(a, b, 5001)
	answers := s.onlyAnswers(a, b, b.IPv4)
	for _, closed := range []string{closedA + openB, openA + closedB} {
		cut := s.apply(closed)
		for name, p := range tr.probes {
			s.quiet(p, cut, time.Second, name)
		}
		at := s.apply(openA + openB)
		lab.Eventually(t, 10*time.Second, "allowed again", func() bool { return tr.probes["datagrams"].ReceivedSince(at) > 10 })
	}
	got := answers.got.Load()
	lab.Eventually(t, 5*time.Second, "answers alone go on", func() bool { return answers.got.Load() > got+50 })
	answers.end()
}

// Two routers in a row, both declared: what goes through them is revoked at either of them, and nobody else gets in by it.
func TestAttackTwoRoutersInARow(t *testing.T) {
	t.Parallel()
	s := open(t, 5)
	a, r1, r2, d, c := s.vm[1], s.vm[2], s.vm[3], s.vm[4], s.vm[5]
	run := func(vm *lab.VM, cmd string) {
		t.Helper()
		if out, err := vm.Run("sh", "-c", cmd); err != nil {
			t.Fatal(cmd, out, err)
		}
	}
	for _, vm := range []*lab.VM{r1, r2} {
		run(vm, forwarding)
	}
	route := func(vm *lab.VM, to, via *lab.VM) {
		run(vm, "sysctl -qw net.ipv4.conf.all.accept_redirects=0 net.ipv4.conf.eth0.accept_redirects=0; "+
			"ip route add "+to.IPv4+"/32 via "+via.IPv4)
	}
	route(a, d, r1)
	route(r1, d, r2)
	route(d, a, r2)
	route(r2, a, r1)
	s.apply("kind: Endpoint\nname: r1\nspec: {match: {port: vm2}, forwards: true}\n---\n" +
		"kind: Endpoint\nname: r2\nspec: {match: {port: vm3}, forwards: true}\n")
	hop := func(name, at, from string) string {
		return sprintf("kind: Policy\nname: %s\nspec:\n  appliesTo: [{port: %s}]\n  ingress:\n"+
			"  - {name: in, action: allow, from: [{port: %s}]}\n", name, at, from)
	}
	out := "kind: Policy\nname: a\nspec:\n  appliesTo: [{port: vm1}]\n  defaultDeny: {ingress: true}\n" +
		"  egress:\n  - {name: out, action: allow, to: [{port: vm2}]}\n"
	all := []string{out, hop("r1", "vm2", "vm1"), hop("r2", "vm3", "vm2"), hop("d", "vm4", "vm3")}
	s.apply(strings.Join(all, "---\n"))
	s.pickupClosed()
	probes := []*lab.Probe{s.echo(a, d, 5001), s.push(a, d, 5002), s.datagrams(a, d, 5001, 10*time.Millisecond)}
	s.running(probes...)
	for i, closed := range map[int]string{1: hop("r1", "vm2", "vm5"), 2: hop("r2", "vm3", "vm5")} { // the outer ones: TestFault_F03
		cut := s.apply(closed)
		for k, p := range probes {
			s.quiet(p, cut, time.Second, sprintf("probe %d, revoked at hop %d", k, i))
		}
		at := s.apply(all[i])
		lab.Eventually(t, 20*time.Second, "allowed again", func() bool { return probes[2].ReceivedSince(at) > 10 })
	}
	// A stranger speaks for each of them to each of them.
	capture, err := s.Capture(d.NS, "eth0")
	must(t, err)
	sinkA, err := s.Capture(a.NS, "eth0")
	must(t, err)
	for _, to := range []*lab.VM{a, r1, r2, d} {
		for _, x := range [][2]*lab.VM{{a, d}, {d, a}} {
			for range 2 {
				s.tell(c, to, nil, to.MAC, x[0].IPv4, x[1].IPv4, 5777, 5888, "forged;")
				s.tell(c, to, nil, to.MAC, x[0].IPv4, x[1].IPv4, 5888, 5777, "forged;")
			}
		}
	}
	time.Sleep(passage)
	for _, k := range []*lab.Capture{capture, sinkA} {
		if n := len(k.Frames(func(f lab.Frame) bool { return bytes.Contains(f.Data, []byte("forged;")) })); n > 0 {
			t.Errorf("%d forged datagrams got through", n)
		}
	}
	at := time.Now()
	lab.Eventually(t, 5*time.Second, "datagrams live on", func() bool { return probes[2].ReceivedSince(at) > 10 })
}

// A machine that sends under the gateway's address takes nothing from others for longer than until the gateway's next frame.
func TestAttackGatewayAddressClaimed(t *testing.T) {
	t.Parallel()
	s := openForAttack(t, 3)
	a, c, gw := s.vm[1], s.vm[3], s.vm[2]
	_, err := s.Vsctl("--", "clear", "interface", "vm2", "external_ids")
	must(t, err)
	s.applyUncached("kind: Policy\nname: c\nspec:\n  appliesTo: [{port: vm3}]\n  defaultDeny: {ingress: true}\n" +
		"---\nkind: Policy\nname: a\nspec:\n  appliesTo: [{port: vm1}]\n  egress:\n  - {name: w, action: allow, to: [{entity: world}]}\n")
	in := s.inbox(gw, 6001)
	s.say(a, gw, 4000, 6001, "before")
	s.arrives(in, "before")
	etherType, p := datagram(t, c.IPv4, "10.77.0.99", 1, 1, "mine")
	for range 5 {
		must(t, c.Send(ethernet(parseMAC(t, "02:77:00:00:00:fe"), parseMAC(t, gw.MAC), nil, etherType, p)))
		time.Sleep(30 * time.Millisecond)
	}
	lab.Eventually(t, 5*time.Second, "the gateway is the gateway again", func() bool {
		// More than once: the switch may learn from the other's frames when it counts them, up to half a second late.
		s.tell(gw, a, nil, a.MAC, gw.IPv4, a.IPv4, 9, 9, "here I am")
		s.say(a, gw, 4001, 6001, "after")
		return in.count("after") > 0
	})
}
