package wall_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/ofctrl/tables"
	"github.com/tapwall/tapwall/policy"
)

// frame builds what a machine sends; the reference and the tables look at the same.
func frame(inPort uint32, f *policy.Frame) tables.Packet {
	const to = 0x52540000ff01
	switch {
	case f.ARP != nil:
		p := tables.Packet{flow.InPort: flow.U64(uint64(inPort)), flow.EthSrc: flow.U64(macNumber(f.SrcMAC)), flow.EthDst: flow.U64(1<<48 - 1),
			flow.EthType: flow.U64(0x0806)}
		if f.ARP.IP.IsValid() {
			p.With(flow.ARPOp, flow.U64(1)).With(flow.ARPSpa, flow.FromAddr(f.ARP.IP)).With(flow.ARPSha, flow.U64(macNumber(f.ARP.MAC)))
		}
		return p
	case !f.Src.IsValid():
		return tables.Packet{flow.InPort: flow.U64(uint64(inPort)), flow.EthSrc: flow.U64(macNumber(f.SrcMAC)), flow.EthDst: flow.U64(to),
			flow.EthType: flow.U64(0x88cc)}
	}
	p := tables.IP(inPort, macNumber(f.SrcMAC), to, tables.Tuple{Src: f.Src, Dst: f.Dst, Proto: f.Proto, SrcPort: f.SrcPort,
		DstPort: f.DstPort,
		Type:    f.ICMPType}, syn)
	if nd := f.ND; nd != nil {
		p.With(flow.IPTTL, flow.U64(255)).With(flow.NDTarget, flow.FromAddr(nd.Target))
		option := flow.NDSll
		if f.ICMPType == 136 {
			option = flow.NDTll
		}
		if nd.LinkLayer != "" {
			p.With(option, flow.U64(macNumber(nd.LinkLayer)))
		}
	}
	return p
}

// What the tables let pass of what a guarded machine sends is what the reference lets pass, dropped for the same reason, and counted for
// the machine; in the time of grace all of it passes, and the same is told.
func TestGuardIsAsTheReferenceHasIt(t *testing.T) {
	macs := []string{macOf("w0"), "00:00:5e:00:01:01", "52:54:00:00:ee:01"}
	var addresses []netip.Addr
	for _, s := range []string{"0.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.1.9", "::", "fd00::1", "fd00::2", "fe80::1"} {
		addresses = append(addresses, netip.MustParseAddr(s))
	}
	addresses = append(addresses, policy.LinkLocal(macs[0]))
	one := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
	seen := map[policy.Spoof]int{}
	passed := 0
	check(t, func(t *rapid.T) {
		w := newWorld(t)
		draw := rapid.Bool()
		g := &policy.Guard{Demanded: draw.Draw(t, "demanded"), AnySource: draw.Draw(t, "any source"), AnyMAC: draw.Draw(t, "any MAC")}
		me := &policy.Workload{Key: "w0", Bridge: "br0", Port: "tap-w0", OFPort: 1, MAC: macs[0], Guard: g, DHCPServer: draw.Draw(t, "server")}
		if draw.Draw(t, "virtual") {
			me.MACs = macs[1:2]
		}
		if me.Forwards = g.AnySource; !g.AnyMAC {
			g.MACs = append([]string{me.MAC}, me.MACs...)
		}
		for _, a := range addresses {
			if !a.IsUnspecified() && draw.Draw(t, "own "+a.String()) {
				g.Addresses = append(g.Addresses, one(a))
			}
		}
		if draw.Draw(t, "range") {
			g.Addresses = append(g.Addresses, netip.MustParsePrefix("10.0.1.0/24"))
		}
		w.workloads["w0"] = me
		grace := draw.Draw(t, "grace")
		w.fw.SetGrace(grace)
		w.tell()
		w.compile()
		for range 40 {
			mac := rapid.SampledFrom(macs)
			address := func(v6 bool) netip.Addr {
				return rapid.SampledFrom(addresses).Filter(func(a netip.Addr) bool { return a.Is6() == v6 }).Draw(t, "address")
			}
			f := &policy.Frame{SrcMAC: mac.Draw(t, "MAC")}
			if draw.Draw(t, "own MAC") {
				f.SrcMAC = me.MAC
			}
			switch rapid.IntRange(0, 6).Draw(t, "kind") {
			case 0:
				f.ARP = &policy.ARP{MAC: mac.Draw(t, "sender"), IP: address(false)}
				if rapid.IntRange(0, 4).Draw(t, "unread") == 0 {
					f.ARP.IP = netip.Addr{}
				}
			case 1:
				f.Src, f.Dst, f.Proto = address(false), netip.MustParseAddr("255.255.255.255"), 17
				f.SrcPort, f.DstPort = 68, 67
				if draw.Draw(t, "answer") {
					f.SrcPort, f.DstPort = rapid.SampledFrom([]uint16{67, 68, 1067}).Draw(t, "port"), 68
				}
			case 2:
				f.Src, f.Dst, f.Proto = address(true), netip.MustParseAddr("ff02::1:2"), 17
				f.SrcPort, f.DstPort = 546, 547
				if draw.Draw(t, "answer") {
					f.SrcPort, f.DstPort = rapid.SampledFrom([]uint16{547, 546, 1547}).Draw(t, "port"), 546
				}
			case 3:
				f.Src, f.Dst, f.Proto = address(true), netip.MustParseAddr("ff02::1"), 58
				f.ICMPType = rapid.SampledFrom([]uint8{128, 133, 134, 143}).Draw(t, "type")
			case 4:
				f.Src, f.Dst, f.Proto = address(true), netip.MustParseAddr("ff02::1"), 58
				f.ICMPType = rapid.SampledFrom([]uint8{135, 136}).Draw(t, "type")
				f.ND = &policy.ND{Target: address(true)}
				if f.ND.Target.IsUnspecified() {
					f.ND.Target = addresses[5]
				}
				if draw.Draw(t, "option") {
					f.ND.LinkLayer = mac.Draw(t, "link layer")
				}
			case 5:
				f.Src, f.Dst, f.Proto = address(draw.Draw(t, "v6")), addresses[2], rapid.SampledFrom([]uint8{6, 17, 2}).Draw(t, "proto")
				if f.Src.Is6() {
					f.Dst = addresses[6]
				}
				f.SrcPort, f.DstPort = 4000, 80
			}
			want := me.Spoofs(f)
			r := w.sw.Fresh().Process(frame(1, f))
			var reason policy.Spoof
			counted, told := false, 0
			for _, c := range r.Cookies {
				kind, id, _ := pipeline.ParseCookie(c)
				switch {
				case kind == pipeline.CookieDrop && (pipeline.DropReason(id) == pipeline.DropUnknownMAC ||
					slices.Contains(pipeline.GuardReasons(), pipeline.DropReason(id))):
					reason = policy.Spoof(pipeline.DropReason(id).String())
				case kind == pipeline.CookieGuard:
					counted = id == pipeline.EndpointBase(w.assignments.Endpoints["w0"].ID)
				}
			}
			for _, c := range r.Copies {
				if got, _ := pipeline.ParseUserData([]byte(c.UserData)); got == pipeline.CopyGuard && c.MeterID == pipeline.MeterGuard {
					told++
				}
			}
			what := fmt.Sprintf("%+v %+v %+v", *f, f.ARP, f.ND)
			by := want != policy.NotSpoofed && want != policy.SpoofedMAC // of the guard itself
			reached := r.Visited(pipeline.TableDestination)
			switch tells := g.Tells(grace); {
			case counted != by && !(tells && want == policy.SpoofedMAC), told > 1, (told == 1) != counted:
				t.Fatalf("%s: %q, counted %v, told %d times", what, want, counted, told)
			case tells && (!reached || reason != policy.NotSpoofed):
				t.Fatalf("%s: is dropped for %q in the time of grace", what, reason)
			case !tells && (reason != want || reached != (want == policy.NotSpoofed)):
				t.Fatalf("%s: dropped for %q, want %q; passed %v", what, reason, want, reached)
			}
			if bits := register(r, pipeline.IngressRule); reached && bits&0xffff != 0 && !r.Visited(pipeline.TableIngress) {
				t.Fatalf("%s: the guard leaves %#x behind", what, bits)
			}
			if f.Src.IsValid() && f.ND == nil && f.SrcMAC == me.MAC {
				d := policy.Evaluate(w.set(), policy.Packet{Bridge: "br0", Src: me, SrcIP: f.Src, DstIP: f.Dst, Proto: f.Proto, SrcPort: f.SrcPort,
					DstPort: f.DstPort, ICMPType: f.ICMPType})
				if d.Spoof != want || (d.Effect == policy.Deny) != (want != policy.NotSpoofed) {
					t.Fatalf("%s: Evaluate says %s for %q, want %q", what, d.Effect, d.Spoof, want)
				}
			}
			if seen[want]++; reached {
				passed++
			}
		}
	})
	for _, r := range []policy.Spoof{policy.NotSpoofed, policy.SpoofedMAC, policy.SpoofedAddress, policy.SpoofedARP, policy.SpoofedND,
		policy.RogueDHCPServer, policy.RogueRouter} {
		if seen[r] == 0 {
			t.Errorf("no frame was %q", r)
		}
	}
	t.Logf("%v, %d passed", seen, passed)
}
