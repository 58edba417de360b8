package wall_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/oftest"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ofctrl/tables"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/wall"
)

// liveSwitch is a private Open vSwitch with a bridge br0, whose ports have the numbers of the universe's workloads and the uplink.
type liveSwitch struct {
	*oftest.OVS
	t *testing.T
}

func startSwitch(t *testing.T, w *world) liveSwitch {
	t.Helper()
	s := liveSwitch{oftest.StartOVS(t, oftest.OVSOptions{}), t}
	s.AddBridge("br0", "")
	s.AddPort("br0", "eth0", uplink)
	for i, k := range keys {
		s.AddPort("br0", "tap-"+k, uint32(i+1))
	}
	for _, m := range w.fw.Compile().Meters {
		b := m.Bands[0]
		s.Ofctl("add-meter", "br0", fmt.Sprintf("meter=%d pktps burst stats bands=type=drop rate=%d burst_size=%d", m.ID, b.Rate, b.Burst))
	}
	return s
}

// install replaces all flows in one bundle.
func (s liveSwitch) install(flows []flow.Flow) {
	s.t.Helper()
	file := filepath.Join(s.RunDir, "flows")
	if err := os.WriteFile(file, []byte(strings.Join(texts(flows), "\n")+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.Ofctl("--bundle", "replace-flows", "br0", file)
}

// settle waits until no cached flow is older than the installed ones.
func (s liveSwitch) settle() { s.Appctl("revalidator/wait") }

// dump returns the installed flows.
func (s liveSwitch) dump() []string {
	var out []string
	for _, line := range strings.Split(s.Ofctl("--no-stats", "--no-names", "dump-flows", "br0"), "\n") {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "cookie=") {
			out = append(out, line)
		}
	}
	slices.Sort(out)
	return out
}

// worlds are drawn by rapid, but a few only and always the same.
var worlds = rapid.Custom(func(t *rapid.T) *world {
	w := newWorld(t)
	if w.conjoin = rapid.Bool().Draw(t, "conjoin"); w.conjoin {
		w.shares = true
		w.start(nil)
	}
	w.pickup = rapid.Bool().Draw(t, "pickup")
	w.fw.SetPickup(w.pickup, nil)
	w.randomize(t, true)
	return w
})

// TestSwitchTakesEveryFlow installs worlds in one bundle each and reads them back.
func TestSwitchTakesEveryFlow(t *testing.T) {
	s := startSwitch(t, newWorld(t))
	for seed := range 12 {
		w := worlds.Example(seed)
		s.install(w.flows())
		if diff := cmp.Diff(texts(w.flows()), s.dump()); diff != "" {
			t.Fatalf("world %d (-sent +dumped):\n%s", seed, diff)
		}
	}
}

var finalRegister = regexp.MustCompile(`[,=]reg(1[123])=0x([0-9a-f]+)`)

// TestSwitchDecides lets the switch evaluate the policy tables, conjunctions and all, for packets whose conntrack fields are given, and
// compares with the reference. (ofproto/trace through ct() would leave the original tuple zero, so the trace begins behind it.)
func TestSwitchDecides(t *testing.T) {
	s := startSwitch(t, newWorld(t))
	verdicts := map[bool]int{}
	for seed := range 12 {
		w := worlds.Example(seed)
		w.t = t
		s.install(w.flows())
		c := seeded(uint64(seed))
		for range 20 {
			x, _ := w.genTalk(c)
			if x.from.key == "" { // no endpoint on the bridge
				continue
			}
			want := w.evaluate(x)
			var ends [2]wall.EndpointAssignment
			for i, end := range []station{x.from, x.to} {
				if end.key == bridgePort {
					ends[i].Class = pipeline.ClassHost
				}
			}
			if src := w.local(x.from.key); src != nil {
				ends[0] = w.assignments.Endpoints[src.Key]
			}
			if dst := w.local(x.to.key); dst != nil && dst.MAC != "" {
				ends[1] = w.assignments.Endpoints[dst.Key]
			}
			out := s.Appctl("ofproto/trace-packet-out", "br0", traceFlow(x.tuple), fmt.Sprintf(
				"load:%d->NXM_NX_REG8[],load:%d->NXM_NX_REG9[],load:%d->NXM_NX_REG14[0..15],load:%d->NXM_NX_REG14[16..31],%s", ends[0].ID,
				ends[1].ID, ends[0].Class, ends[1].Class, w.judging()))
			_, final, ok := strings.Cut(out, "Final flow: ")
			if !ok {
				t.Fatalf("trace: %s", out)
			}
			regs := map[string]uint32{}
			for _, m := range finalRegister.FindAllStringSubmatch(strings.SplitN(final, "\n", 2)[0], -1) {
				v, err := strconv.ParseUint(m[2], 16, 32)
				if err != nil {
					t.Fatal(err)
				}
				regs[m[1]] = uint32(v)
			}
			w.sameSide(x, policy.Egress, regs["11"], want.Egress)
			w.sameSide(x, policy.Ingress, regs["12"], want.Ingress)
			allowed := regs["13"]&0xf0 == 0x50
			if allowed != want.Effect.Passes() {
				t.Fatalf("%v: the switch allows %v, the reference says %+v:\n%s", x, allowed, want, out)
			}
			verdicts[allowed]++
		}
	}
	if verdicts[true] < 20 || verdicts[false] < 20 {
		t.Errorf("allowed and denied %v: too one-sided to mean anything", verdicts)
	}
}

// judging is what STATE does with the first packet of a connection, but for VERDICT.
func (w *world) judging() string {
	for _, f := range w.flows() {
		if f.Table != pipeline.TableState || f.Priority != 100 {
			continue
		}
		var out []string
		for _, a := range f.Actions[:len(f.Actions)-1] {
			out = append(out, a.String())
		}
		return strings.Join(out, ",")
	}
	w.t.Fatalf("nothing judges first packets")
	return ""
}

// traceFlow is a new connection's packet behind ct(), as ovs-appctl takes it.
func traceFlow(t tables.Tuple) string {
	family, ct, ip := "ip", "ct_nw", "nw"
	if t.Src.Is6() {
		family, ct, ip = "ipv6", "ct_ipv6", "ipv6"
	}
	own, src, dst := "", t.SrcPort, t.DstPort // as userspace conntrack has them
	switch t.Proto {
	case policy.ProtoICMP, policy.ProtoICMPv6:
		src, dst = uint16(t.Type), uint16(t.Code)
	case policy.ProtoSCTP:
		own, src, dst = fmt.Sprintf(",sctp_src=%d,sctp_dst=%d", src, dst), 0, 0
	}
	return fmt.Sprintf(
		"in_port=1,%s,nw_proto=%d%s,%s_src=%s,%s_dst=%s,ct_state=new|trk,ct_nw_proto=%d,%s_src=%s,%s_dst=%s,ct_tp_src=%d,ct_tp_dst=%d",
		family, t.Proto, own, ip, t.Src, ip, t.Dst, t.Proto, ct, t.Src, ct, t.Dst, src, dst)
}

// segment is a TCP segment between workloads i and j of a lab.
type segment struct {
	from, to         int
	srcPort, dstPort uint16
	flags            uint8
	seq, ack         uint32
	v6               bool
}

func (g segment) frame(t *testing.T) []byte {
	t.Helper()
	mac := func(i int) net.HardwareAddr {
		hw, err := net.ParseMAC(macOf(fmt.Sprint("w", i)))
		if err != nil {
			t.Fatal(err)
		}
		return hw
	}
	var ip interface {
		gopacket.SerializableLayer
		gopacket.NetworkLayer
	} = &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.IPv4(10, 0, 0, byte(g.from+1)),
		DstIP: net.IPv4(10, 0, 0, byte(g.to+1))}
	ether := layers.EthernetTypeIPv4
	if g.v6 {
		address := func(i int) net.IP { return net.ParseIP(fmt.Sprintf("fd00::%d", i+1)) }
		ip, ether = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: address(g.from), DstIP: address(g.to)},
			layers.EthernetTypeIPv6
	}
	seg := &layers.TCP{
		SrcPort: layers.TCPPort(g.srcPort), DstPort: layers.TCPPort(g.dstPort), Seq: g.seq, Ack: g.ack, Window: 65535,
		SYN: g.flags&syn != 0, ACK: g.flags&ack != 0,
	}
	if err := seg.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: mac(g.from), DstMAC: mac(g.to), EthernetType: ether}, ip, seg,
		gopacket.Payload(make([]byte, 20))); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

var txPackets = regexp.MustCompile(`tx pkts=(\d+)`)

// sent counts what was sent out of the port of workload i.
func (s liveSwitch) sent(i int) int {
	s.t.Helper()
	out := s.Ofctl("dump-ports", "br0", strconv.Itoa(i+1))
	m := txPackets.FindStringSubmatch(out)
	if m == nil {
		s.t.Fatalf("dump-ports: %s", out)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// delivers sends a segment and reports whether it arrived. That it did not is believed when the packet has met a flow that drops:
// dropped is the sum of the drop counters.
func (s liveSwitch) delivers(g segment) bool {
	s.t.Helper()
	arrived, dropped := s.sent(g.to), s.dropped()
	s.InjectPacket(fmt.Sprint("tap-w", g.from), g.frame(s.t))
	for range 200 {
		switch {
		case s.sent(g.to) > arrived:
			return true
		case s.dropped() > dropped:
			time.Sleep(50 * time.Millisecond) // the counter may be late and mean an earlier packet
			return s.sent(g.to) > arrived
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.t.Fatalf("%+v was neither delivered nor dropped", g)
	return false
}

var nPackets = regexp.MustCompile(`n_packets=(\d+)`)

// dropped counts the packets that met a flow with the cookie kind of drops.
func (s liveSwitch) dropped() int {
	return s.counted(pipeline.NewCookie(pipeline.CookieDrop, 0), pipeline.CookieMagicMask|0xff<<32)
}

// droppedFor counts those of one reason.
func (s liveSwitch) droppedFor(r pipeline.DropReason) int {
	return s.counted(r.Cookie(), ^flow.Cookie(0))
}

func (s liveSwitch) counted(cookie, mask flow.Cookie) int {
	s.t.Helper()
	sum := 0
	for _, line := range strings.Split(s.Ofctl("dump-flows", "br0", fmt.Sprintf("cookie=%#x/%#x", uint64(cookie), uint64(mask))), "\n") {
		if m := nPackets.FindStringSubmatch(line); m != nil {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				s.t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

// TestSwitchRevokes plays a connection through the switch's own conntrack: opened under a rule, cut when the rule goes, resumed when it
// comes back, taken over by a second rule, picked up when conntrack has forgotten it.
func TestSwitchRevokes(t *testing.T) {
	l := newLab(t, "b", "a")
	allow := func(names ...string) {
		l.put("one", func(s *policy.PolicySpec) {
			yes := true
			s.DefaultDeny = &policy.DefaultDeny{Ingress: &yes}
			for _, n := range names {
				s.Ingress = append(s.Ingress, policy.Rule{Name: n, Action: policy.Allow, From: []policy.Selector{app("b")}, Services: tcp("80")})
			}
		})
	}
	allow("x")
	s := startSwitch(t, l.world)
	install := func() {
		s.install(l.flows())
		s.settle()
	}
	install()
	expect := func(what string, want bool, g segment) {
		t.Helper()
		if got := s.delivers(g); got != want {
			t.Fatalf("%s: delivered %v, want %v\n%s\n%s", what, got, want, s.Appctl("dpctl/dump-conntrack"), strings.Join(s.dump(), "\n"))
		}
	}
	c := segment{from: 0, to: 1, srcPort: 4000, dstPort: 80}
	r := segment{from: 1, to: 0, srcPort: 80, dstPort: 4000}
	with := func(g segment, flags uint8, seq, ack uint32) segment {
		g.flags, g.seq, g.ack = flags, seq, ack
		return g
	}
	data := func(what string, want bool) {
		t.Helper()
		expect(what+", from the initiator", want, with(c, ack, 101, 201))
		expect(what+", from the responder", want, with(r, ack, 201, 101))
	}
	other := c
	other.dstPort = 81
	expect("SYN to a closed port", false, with(other, syn, 100, 0))
	expect("lone ACK", false, with(c, ack, 100, 200))
	expect("SYN", true, with(c, syn, 100, 0))
	expect("SYN+ACK", true, with(r, syn|ack, 200, 121))
	data("established", true)
	label := func(rule string) {
		t.Helper()
		e := l.class("w0").EgressAllow | pipeline.IDDefaultAllow
		ends := [2]uint32{l.assignments.Endpoints["w1"].ID, l.assignments.Endpoints["w0"].ID}
		want := fmt.Sprintf("labels=%#x%08x%08x%08x", ends[0], ends[1], e, l.rule("one", rule))
		if out := s.Appctl("dpctl/dump-conntrack"); !strings.Contains(out, want) || !strings.Contains(out, "zone=57344") {
			t.Errorf("no connection with %s in zone 57344:\n%s", want, out)
		}
	}
	label("x")

	allow()
	install()
	data("rule deleted", false)
	allow("y")
	install()
	expect("rule back, first packet from the responder", true, with(r, ack, 201, 101))
	data("rule back", true)
	label("y")
	allow("y", "z")
	install()
	allow("z")
	install()
	data("second rule allows", true)
	label("z")

	s.Appctl("dpctl/flush-conntrack")
	data("conntrack flushed", false)
	l.fw.SetPickup(true, nil)
	l.compile()
	install()
	expect("pickup window, the responder first", true, with(r, ack, 201, 101))
	data("pickup window", true)
	l.fw.SetPickup(false, nil)
	l.compile()
	install()
	data("picked up", true)
	expect("lone ACK after the window", false, with(segment{from: 0, to: 1, srcPort: 4001, dstPort: 80}, ack, 100, 200))
	label("z")
}
