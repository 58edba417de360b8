package wall_test

import (
	"encoding/hex"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ovsdb/unixctl"
	"github.com/tapwall/tapwall/policy"
)

// injected is a packet for a real switch and what the reference says of it. Its source port or ICMP id tells it from all others.
type injected struct {
	talk
	want  policy.Decision
	label flow.U128 // that it bore when last looked at
}

// frame is the first packet of the connection or, reversed, an answer (not of TCP). The tuple's source port serves ICMP as the id.
func (w *world) frame(x talk, reply bool) (port string, frame []byte) {
	from, to, tuple := x.from, x.to, x.tuple
	if reply {
		from, to, tuple = to, from, tuple.Reversed()
	}
	port, tag := "eth0", x.vlan
	if from.key == bridgePort {
		port = "br0"
	}
	if l := w.local(from.key); l != nil {
		port = l.Port
		if l.VLAN != 0 {
			tag = 0
		}
	}
	var stack []gopacket.SerializableLayer
	mac := func(s station) net.HardwareAddr {
		v := macNumber(macOf(s.key))
		return net.HardwareAddr{byte(v >> 40), byte(v >> 32), byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
	}
	var network interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	}
	ether := layers.EthernetTypeIPv4
	if tuple.Src.Is4() {
		network = &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocol(tuple.Proto), SrcIP: tuple.Src.AsSlice(),
			DstIP: tuple.Dst.AsSlice()}
	} else {
		ether = layers.EthernetTypeIPv6
		network = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocol(tuple.Proto), SrcIP: tuple.Src.AsSlice(),
			DstIP: tuple.Dst.AsSlice()}
	}
	if tag == 0 {
		stack = append(stack, &layers.Ethernet{SrcMAC: mac(from), DstMAC: mac(to), EthernetType: ether})
	} else {
		stack = append(stack, &layers.Ethernet{SrcMAC: mac(from), DstMAC: mac(to), EthernetType: layers.EthernetTypeDot1Q},
			&layers.Dot1Q{VLANIdentifier: uint16(tag), Type: ether})
	}
	stack = append(stack, network)
	id := max(x.tuple.SrcPort, 1)
	switch tuple.Proto {
	case 1:
		stack = append(stack, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(tuple.Type, tuple.Code), Id: id})
	case 58:
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(tuple.Type, tuple.Code)}
		_ = icmp.SetNetworkLayerForChecksum(network)
		stack = append(stack, icmp, &layers.ICMPv6Echo{Identifier: id})
	case 132:
		stack = append(stack, &layers.SCTP{SrcPort: layers.SCTPPort(tuple.SrcPort), DstPort: layers.SCTPPort(tuple.DstPort)})
	case 6:
		seg := &layers.TCP{SrcPort: layers.TCPPort(tuple.SrcPort), DstPort: layers.TCPPort(tuple.DstPort), Seq: 1, Window: 65535, SYN: true}
		_ = seg.SetNetworkLayerForChecksum(network)
		stack = append(stack, seg)
	case 17:
		datagram := &layers.UDP{SrcPort: layers.UDPPort(tuple.SrcPort), DstPort: layers.UDPPort(tuple.DstPort)}
		_ = datagram.SetNetworkLayerForChecksum(network)
		stack = append(stack, datagram)
	}
	stack = append(stack, gopacket.Payload(make([]byte, 20)))
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...); err != nil {
		w.t.Fatalf("%v", err)
	}
	return port, buf.Bytes()
}

// inject makes packets arrive: first ones or answers.
func (s liveSwitch) inject(w *world, batch []injected, reply bool) {
	s.t.Helper()
	byPort := map[string][]string{}
	for _, x := range batch {
		port, frame := w.frame(x.talk, reply)
		byPort[port] = append(byPort[port], hex.EncodeToString(frame))
	}
	for port, frames := range byPort {
		for some := range slices.Chunk(frames, 50) { // a dummy port queues 100
			s.Appctl(append([]string{"netdev-dummy/receive", port}, some...)...)
		}
	}
}

// key identifies a connection of a batch in conntrack.
type key struct {
	zone     uint16
	src, dst netip.Addr
	proto    uint8
	id, port uint16
}

func (x *injected) key() key {
	zone, _ := pipeline.Zone(0, x.vlan)
	k := key{zone, x.tuple.Src, x.tuple.Dst, x.tuple.Proto, x.tuple.SrcPort, x.tuple.DstPort}
	if portless(k.proto) {
		k.id, k.port = 0, 0
	}
	return k
}

// portless tells the protocols of which userspace conntrack has one connection between two addresses.
func portless(proto uint8) bool { return proto == 112 || proto == policy.ProtoSCTP }

// tracked returns the labels of conntrack's connections.
func (s liveSwitch) tracked() map[key]flow.U128 {
	s.t.Helper()
	out := map[key]flow.U128{}
	for e, err := range unixctl.Entries(s.Appctl("dpctl/dump-conntrack", "-m")) {
		if err != nil {
			s.t.Fatal(err)
		}
		k := key{e.Zone, e.Orig.Src, e.Orig.Dst, e.Proto, e.Orig.SrcPort, e.Orig.DstPort}
		if k.proto == 1 || k.proto == 58 {
			k.id, k.port = e.Orig.ICMPID, 0
		}
		out[k] = flow.U128{Hi: e.LabelsHi, Lo: e.LabelsLo}
	}
	return out
}

// judgeFirst injects the first packets of connections and reads back what became of each: the ids of its connection if it passed; of
// those that did not, how many were dropped. It returns those that passed.
func (s liveSwitch) judgeFirst(w *world, batch []injected) (passed []injected) {
	s.t.Helper()
	before := s.tally()
	s.inject(w, batch, false)
	got := s.await(len(batch), before)
	entries := s.tracked()
	for i := range batch {
		x := &batch[i]
		label, ok := entries[x.key()]
		x.label = label
		if ok != x.want.Effect.Passes() {
			s.t.Fatalf("%+v: passed %v, reference says %+v", x.talk, ok, x.want)
		}
		if ok {
			w.sameSide(x.talk, policy.Egress, bits(label, pipeline.LabelEgress), x.want.Egress)
			w.sameSide(x.talk, policy.Ingress, bits(label, pipeline.LabelIngress), x.want.Ingress)
			passed = append(passed, *x)
		}
	}
	if want := (tally{len(passed), len(batch) - len(passed)}); got != want {
		s.t.Fatalf("the switch counted %+v, reference says %+v", got, want)
	}
	return passed
}

// judgeAnswers injects an answer to each connection and checks that all are dropped, or that none is: each connection then bears the ids
// of what decided before, which are in force, or of what decides now. It returns how many were moved to another rule.
func (s liveSwitch) judgeAnswers(w *world, batch []injected, pass bool) (moved int) {
	s.t.Helper()
	if len(batch) == 0 {
		return 0
	}
	before := s.tally()
	s.inject(w, batch, true)
	want := tally{dropped: len(batch)}
	if pass {
		want = tally{passed: len(batch)}
	}
	if got := s.await(len(batch), before); got != want {
		s.t.Fatalf("answers: the switch counted %+v, reference says %+v", got, want)
	}
	if !pass {
		return 0
	}
	entries := s.tracked()
	for i := range batch {
		x := &batch[i]
		label := entries[x.key()]
		if label != x.label {
			w.sameSide(x.talk, policy.Egress, bits(label, pipeline.LabelEgress), x.want.Egress)
			w.sameSide(x.talk, policy.Ingress, bits(label, pipeline.LabelIngress), x.want.Ingress)
			moved++
		}
		x.label = label
		for _, f := range []pipeline.Field{pipeline.LabelEgress, pipeline.LabelIngress} {
			if info, ok := w.fw.Rule(bits(label, f)); !ok || info.Removed || info.Action != policy.Allow && !heldByMode(x.want) {
				s.t.Fatalf("%+v goes on by %#x, which is %+v", x.talk, bits(label, f), info)
			}
		}
	}
	return moved
}

// purge forgets all cached decisions, whose packets are counted thereby; settle waits for half a second instead.
func (s liveSwitch) purge() { s.Appctl("revalidator/purge") }

// tally is how many packets left the pipeline and how many were dropped by a flow that says why.
type tally struct{ passed, dropped int }

func (s liveSwitch) tally() (out tally) {
	s.t.Helper()
	for line := range strings.Lines(s.Ofctl("dump-flows", "br0")) {
		m := countedFlow.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		cookie, _ := strconv.ParseUint(m[1], 0, 64)
		table, _ := strconv.Atoi(m[2])
		n, _ := strconv.Atoi(m[3])
		if table == int(pipeline.TableExit) {
			out.passed += n
		}
		if kind, _, ok := pipeline.ParseCookie(flow.Cookie(cookie)); ok && kind == pipeline.CookieDrop {
			out.dropped += n
		}
	}
	return out
}

var countedFlow = regexp.MustCompile(`cookie=(0x[0-9a-f]+),.* table=(\d+),.* n_packets=(\d+),`)

// await waits until the switch has counted n packets more than before and returns what it counted of them.
func (s liveSwitch) await(n int, before tally) tally {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; s.purge() {
		now := s.tally()
		now.passed, now.dropped = now.passed-before.passed, now.dropped-before.dropped
		if now.passed+now.dropped >= n {
			return now
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("of %d packets %+v", n, now)
		}
	}
}

// batch draws and counts connections that no earlier one is like; seen has those of protocols that have one connection between two
// addresses.
func (w *world) batch(c chooser, of *outcomes, n int, id *uint16, seen map[key]bool) (out []injected) {
	for len(out) < n {
		x, ok := of.seldom(w, c)
		if !ok {
			return nil
		}
		*id++
		in := injected{talk: x}
		if k := in.key(); portless(k.proto) {
			back := k
			back.src, back.dst = k.dst, k.src
			if seen[k] || seen[back] {
				continue
			}
			seen[k] = true
		}
		in.tuple.SrcPort = *id
		in.want = w.evaluate(in.talk)
		of.add(in.want)
		out = append(out, in)
	}
	return out
}

// TestSwitchJudgesInjectedPackets injects 2,000 first packets into a switch and reads the verdict on each back from its conntrack and
// its counters. Between them worlds change, and answers on the connections of before are judged again.
func TestSwitchJudgesInjectedPackets(t *testing.T) {
	whole(t)
	t.Parallel()
	const worlds, steps, tries = 12, 3, 60
	s := startSwitch(t, newWorld(t))
	var first outcomes
	var went, moved, cut int
	id := uint16(10000)
	for seed := range worlds {
		h := rapid.Custom(func(rt *rapid.T) *history {
			h := &history{world: newWorld(t)}
			h.randomize(rt, false)
			return h
		}).Filter(func(h *history) bool { return len(h.locals()) > 3 && len(h.policies) > 2 }).Example(seed)
		c := seeded(uint64(seed))
		s.Appctl("dpctl/flush-conntrack")
		s.install(h.flows())
		s.purge()
		var live []injected
		seen := map[key]bool{}
		for n := range steps {
			batch := h.batch(c, &first, tries, &id, seen)
			for _, x := range s.judgeFirst(h.world, batch) {
				if x.tuple.Proto != 6 { // that would take a handshake
					live = append(live, x)
				}
			}
			s.judgeAnswers(h.world, live, true)

			rapid.Custom(func(rt *rapid.T) string { return h.restate(rt).name }).Example(seed*steps + n)
			h.compile()
			s.install(h.flows())
			s.purge()
			var denied []injected
			for i := range live {
				live[i].want = h.evaluate(live[i].talk)
			}
			live = slices.DeleteFunc(live, func(x injected) bool {
				if !x.want.Effect.Passes() {
					denied = append(denied, x)
				}
				return !x.want.Effect.Passes()
			})
			s.judgeAnswers(h.world, denied, false)
			moved += s.judgeAnswers(h.world, live, true)
			went, cut = went+len(live), cut+len(denied)
		}
	}
	t.Logf("first packets %+v; after changes %d connections went on, %d of them by another rule, and %d were cut", first, went, moved, cut)
	if first.sum() < 2000 {
		t.Errorf("only %d first packets", first.sum())
	}
	first.balanced(t)
	if went < 200 || moved < 5 || cut < 15 {
		t.Errorf("%d connections went on, %d by another rule, and %d were cut: hardly tested", went, moved, cut)
	}
}
