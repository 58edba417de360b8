package wall_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/internal/packet"
	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ofctrl/probe"
	"github.com/tapwall/tapwall/policy"
)

// prober connects to the switch for as long as the test runs.
func (s liveSwitch) prober() *probe.Prober {
	s.t.Helper()
	var p *probe.Prober
	sw, err := ofctrl.New(ofctrl.Options{Bridge: "br0", Address: s.MgmtAddr("br0"), Cookie: pipeline.CookieMagic,
		CookieMask: pipeline.CookieMagicMask, ControllerID: pipeline.ControllerID, OnPacketIn: func(pi *ofp.PacketIn) { p.Take(pi) }})
	if err != nil {
		s.t.Fatal(err)
	}
	p = probe.New(sw)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = sw.Run(ctx) })
	s.t.Cleanup(func() { cancel(); wg.Wait() })
	for deadline := time.Now().Add(10 * time.Second); !sw.State().Ready; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatal("the switch is not connected")
		}
	}
	return p
}

// first is the packet of a talk as a probe, and the port that it comes in by.
func (w *world) first(x talk) (port uint32, f packet.First) {
	mac := func(s station) net.HardwareAddr {
		hw, err := net.ParseMAC(macOf(s.key))
		if err != nil {
			w.t.Fatalf("%v", err)
		}
		return hw
	}
	port, tag := uint32(uplink), x.vlan
	if x.from.key == bridgePort {
		port = flow.PortLocal
	}
	if l := w.local(x.from.key); l != nil {
		port = l.OFPort
		if l.VLAN != 0 {
			tag = 0
		}
	}
	return port, packet.First{SrcMAC: mac(x.from), DstMAC: mac(x.to), VLAN: uint16(tag), Src: x.tuple.Src, Dst: x.tuple.Dst,
		Proto: x.tuple.Proto, SrcPort: x.tuple.SrcPort, DstPort: x.tuple.DstPort, Type: x.tuple.Type, Code: x.tuple.Code}
}

// opens reports whether conntrack takes the packet for the first of a connection: of ICMP, requests alone are (icmp4_valid_new and
// icmp6_valid_new in OVS's conntrack-icmp.c).
func (x talk) opens() bool {
	switch x.tuple.Proto {
	case 1:
		return x.tuple.Type == 8 || x.tuple.Type == 13 || x.tuple.Type == 15
	case 58:
		return x.tuple.Type == 128
	}
	return true
}

// TestProbeAgrees asks a real switch by probes about 1,000 random pairs of policies and packets, and the reference likewise: verdict, what
// decided on both sides, and what mode audit let pass are the same. Meanwhile nothing leaves the switch and no connection is made.
func TestProbeAgrees(t *testing.T) {
	whole(t)
	t.Parallel()
	const worlds, tries = 20, 60
	s := startSwitch(t, newWorld(t))
	p := s.prober()
	var got outcomes
	dropped := 0
	for seed := range worlds {
		w := rapid.Custom(func(rt *rapid.T) *world {
			w := newWorld(t)
			if w.conjoin = seed%3 == 0; w.conjoin {
				w.start(nil)
			}
			w.randomize(rt, false)
			return w
		}).Filter(func(w *world) bool { return len(w.locals()) > 3 && len(w.policies) > 2 }).Example(seed)
		s.install(w.flows())
		s.settle()
		c := seeded(uint64(seed))
		for range tries {
			x, ok := w.genTalk(c)
			if !ok {
				t.Fatal("nobody is there")
			}
			port, first := w.first(x)
			frame, err := first.Frame()
			if err != nil {
				t.Fatal(err)
			}
			answer, err := p.Ask(t.Context(), port, frame, 200*time.Millisecond)
			for try := 0; err != nil && x.opens() && try < 3; try++ { // a switch that changes how it looks after its caches drops what comes
				answer, err = p.Ask(t.Context(), port, frame, time.Second)
			}
			if !x.opens() {
				if err == nil && answer.Judged() {
					t.Fatalf("%+v opens nothing and was judged: %+v", x, answer)
				}
				dropped++
				continue
			}
			if err != nil {
				t.Fatalf("%+v: %v", x, err)
			}
			want := w.evaluate(x)
			if w.local(x.from.key) == nil && w.local(x.to.key) == nil || !answer.Judged() {
				t.Fatalf("%+v was not judged: %+v", x, answer)
			}
			for _, ingress := range []bool{false, true} {
				side, dir, d := answer.Side(ingress), policy.Egress, want.Egress
				if ingress {
					dir, d = policy.Ingress, want.Ingress
				}
				w.sameSide(x, dir, side.Rule, d)
				if (side.Verdict == pipeline.VerdictAllow) != d.Effect.Passes() {
					t.Fatalf("%+v: the switch says %v, the reference %+v", x, side.Verdict, d)
				}
				if (side.Audited != 0) != isAudited(d) {
					t.Fatalf("%+v: mode audit lets pass %#x, the reference says %+v", x, side.Audited, d)
				}
			}
			if answer.Passes() != want.Effect.Passes() {
				t.Fatalf("%+v: passes %v, the reference says %+v", x, answer.Passes(), want)
			}
			got.add(want)
		}
	}
	t.Logf("%+v, and %d that open no connection", got, dropped)
	if got.sum() < 1000 {
		t.Errorf("%d pairs", got.sum())
	}
	got.balanced(t)
	if n := len(s.tracked()); n > 0 {
		t.Errorf("%d connections were made", n)
	}
	for i := range keys {
		if n := s.sent(i); n > 0 {
			t.Errorf("port %d was sent %d packets", i+1, n)
		}
	}
	if n := s.droppedFor(pipeline.DropEgress) + s.droppedFor(pipeline.DropIngress); n > 0 {
		t.Errorf("%d packets were counted as dropped by policy", n)
	}
}
