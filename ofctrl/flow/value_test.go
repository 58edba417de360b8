package flow_test

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/ofctrl/flow"
)

// TestRandomText needs no switch: text and value are each other's inverse for whatever is valid.
func TestRandomText(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		f := randomFlow(r)
		back, err := flow.ParseFlow(f.String())
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if !f.Equal(back) || !back.Equal(f) || f.Key() != back.Key() || back.String() != f.String() {
			t.Fatalf("\n gave %s\n read %s", f, back)
		}
	}
}

func TestKey(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	// Keys tell flows apart exactly as the text of table, priority and match does.
	byKey, byText := map[flow.Key]string{}, map[string]flow.Key{}
	for range 20000 {
		f := randomFlow(r)
		f.Table, f.Priority = uint8(r.IntN(2)), uint16(r.IntN(2))
		f.Match = f.Match[:min(len(f.Match), r.IntN(3))] // short ones, so that some are the same
		text := flow.Flow{Table: f.Table, Priority: f.Priority, Match: f.Match}.String()
		key := f.Key()
		if have, ok := byKey[key]; ok && have != text {
			t.Fatalf("one key for\n%s\n%s", have, text)
		}
		if have, ok := byText[text]; ok && have != key {
			t.Fatalf("two keys for %s", text)
		}
		byKey[key], byText[text] = text, key
	}
	if len(byKey) < 1000 || len(byKey) > 19000 {
		t.Errorf("%d keys: the test says little", len(byKey))
	}
	a := flow.Flow{Match: match(term(flow.XReg0, 0x100000002))}
	b := flow.Flow{Match: match(term(flow.Reg0, 1), term(flow.Reg1, 2)), Cookie: 9, Actions: []flow.Action{flow.DecTTL{}}}
	if a.Key() != b.Key() {
		t.Error("xreg0 and the registers under it have different keys")
	}
	if a.Equal(b) {
		t.Error("flows with different actions are equal")
	}
}

func TestEqual(t *testing.T) {
	base := func() flow.Flow {
		return flow.Flow{Table: 1, Priority: 2, Cookie: 3, IdleTimeout: 4, HardTimeout: 5, Importance: 6, Flags: 7,
			Match: match(term(flow.Reg0, 1)),
			Actions: []flow.Action{flow.CT{Commit: true, Table: 9, NAT: &flow.NAT{Src: true},
				Exec: []flow.Action{flow.Load{Dst: flow.Whole(flow.CtMark), Value: 1}}},
				flow.Clone{Actions: []flow.Action{flow.Output{Port: 1}}}, flow.WriteActions{Actions: []flow.Action{flow.Output{Port: 2}}}}}
	}
	if !base().Equal(base()) {
		t.Fatal("not equal to itself")
	}
	for name, change := range map[string]func(f *flow.Flow){
		"table": func(f *flow.Flow) { f.Table++ }, "priority": func(f *flow.Flow) { f.Priority++ }, "cookie": func(f *flow.Flow) { f.Cookie++ },
		"idle": func(f *flow.Flow) { f.IdleTimeout++ }, "hard": func(f *flow.Flow) { f.HardTimeout++ },
		"importance": func(f *flow.Flow) { f.Importance++ },
		"flags":      func(f *flow.Flow) { f.Flags++ }, "match": func(f *flow.Flow) { f.Match = match(term(flow.Reg0, 2)) },
		"fewer actions": func(f *flow.Flow) { f.Actions = f.Actions[:2] },
		"nat":           func(f *flow.Flow) { ct := f.Actions[0].(flow.CT); ct.NAT = &flow.NAT{Dst: true}; f.Actions[0] = ct },
		"no nat":        func(f *flow.Flow) { ct := f.Actions[0].(flow.CT); ct.NAT = nil; f.Actions[0] = ct },
		"exec":          func(f *flow.Flow) { ct := f.Actions[0].(flow.CT); ct.Exec = nil; f.Actions[0] = ct },
		"zone":          func(f *flow.Flow) { ct := f.Actions[0].(flow.CT); ct.Zone = 1; f.Actions[0] = ct },
		"clone":         func(f *flow.Flow) { f.Actions[1] = flow.Clone{Actions: []flow.Action{flow.Output{Port: 2}}} },
		"type":          func(f *flow.Flow) { f.Actions[1] = flow.WriteActions{Actions: []flow.Action{flow.Output{Port: 1}}} },
		"simple type":   func(f *flow.Flow) { f.Actions[1] = flow.Output{Port: 1} },
	} {
		f := base()
		change(&f)
		if f.Equal(base()) || base().Equal(f) {
			t.Errorf("%s: equal", name)
		}
	}
	out := []flow.Action{flow.Output{Port: flow.PortController, MaxLen: 128}}
	ctl := []flow.Action{flow.Controller{MaxLen: 128, Reason: flow.ReasonAction}}
	metered := []flow.Action{flow.Controller{MaxLen: 128, Reason: flow.ReasonAction, MeterID: 1}}
	if !flow.ActionsEqual(out, ctl) || !flow.ActionsEqual(ctl, out) || flow.ActionsEqual(out, metered) || flow.ActionsEqual(metered, out) {
		t.Error("two ways to say CONTROLLER:128 must be equal, and no other")
	}
}

func TestAllocations(t *testing.T) {
	f,
		err := flow.ParseFlow(
		"table=205,priority=1000,ct_state=+trk-inv,ct_nw_proto=6,ct_tp_dst=5002/0xfffe,tcp,reg8=1,ct_label=0x1/0xff,dl_vlan=5," +
			"actions=set_field:1->reg0,ct(commit,zone=NXM_NX_REG1[0..15],nat(src=10.0.0.1),exec(load:1->NXM_NX_CT_MARK[])),clone(output:1)," +
			"controller(id=1,userdata=01.02),write_actions(output:2)")
	if err != nil {
		t.Fatal(err)
	}
	g := f
	g.Actions = append([]flow.Action(nil), f.Actions...)
	buf := make([]byte, 0, 512)
	for name, do := range map[string]func(){
		"AppendKey": func() { buf = f.AppendKey(buf[:0]) },
		"Equal": func() {
			if !f.Equal(g) {
				t.Error("not equal")
			}
		},
		"Match.Equal": func() {
			if !f.Match.Equal(g.Match) {
				t.Error("not equal")
			}
		},
		"Covers": func() {
			if !f.Match.Covers(g.Match) || !f.Match.Overlaps(g.Match) {
				t.Error("does not cover itself")
			}
		},
	} {
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func BenchmarkAppendKey(b *testing.B) {
	f,
		err := flow.ParseFlow(
		"table=205,priority=1000,ct_state=+trk-inv,ct_nw_proto=6,ct_tp_dst=5002/0xfffe,tcp,reg8=1,actions=conjunction(101,3/3)")
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		buf = f.AppendKey(buf[:0])
	}
}

// TestCoversOverlaps compares with a count over all packets of a small world: four bits of each of three registers.
func TestCoversOverlaps(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	fields := []flow.FieldID{flow.Reg0, flow.Reg2, flow.EthSrc}
	holds := func(m flow.Match, packet int) bool {
		for i, f := range fields {
			if term, ok := m.Get(f); ok && uint64(packet>>(4*i))&15&term.Mask.Lo != term.Value.Lo {
				return false
			}
		}
		return true
	}
	draw := func() flow.Match {
		var m flow.Match
		for _, f := range fields {
			m = m.WithMasked(f, flow.U64(r.Uint64N(16)), flow.U64(r.Uint64N(16)&r.Uint64N(16)))
		}
		return m
	}
	covers, overlaps := 0, 0
	for range 1000 {
		a, b := draw(), draw()
		wantCovers, wantOverlaps := true, false
		for packet := range 1 << 12 {
			inA, inB := holds(a, packet), holds(b, packet)
			wantCovers = wantCovers && (inA || !inB)
			wantOverlaps = wantOverlaps || inA && inB
		}
		if got := a.Covers(b); got != wantCovers {
			t.Fatalf("%q covers %q: %v", a, b, got)
		}
		if got := a.Overlaps(b); got != wantOverlaps {
			t.Fatalf("%q overlaps %q: %v", a, b, got)
		}
		if wantCovers {
			covers++
		}
		if wantOverlaps {
			overlaps++
		}
	}
	if covers < 20 || overlaps < 20 || overlaps > 980 {
		t.Errorf("%d cover and %d overlap of 1000: the test says little", covers, overlaps)
	}
}

func TestNormalize(t *testing.T) {
	for _, tt := range []struct{ in, want flow.Match }{
		{flow.Match{term(flow.Reg1, 5), masked(flow.Reg0, 0xff, 0x0f)}, match(masked(flow.Reg0, 0x0f, 0x0f), term(flow.Reg1, 5))},
		{match(term(flow.XReg1, 7), masked(flow.Reg3, 7, 15)), match(term(flow.Reg2, 0), term(flow.Reg3, 7))},
		{match(wide(flow.XXReg1, 1, 2)), match(term(flow.Reg4, 0), term(flow.Reg5, 1), term(flow.Reg6, 0), term(flow.Reg7, 2))},
		{match(term(flow.VlanTCI, 0x700a)), match(term(flow.VlanVID, 0x100a), term(flow.VlanPCP, 3))},
		{match(term(flow.VlanTCI, 0)), match(term(flow.VlanVID, 0))},
		{match(masked(flow.VlanTCI, 0x2000, 0x2000)), match(masked(flow.VlanTCI, 0x2000, 0x2000))},
		{flow.Match{{Field: flow.CtState, Value: flow.U64(0x21), Mask: flow.Ones(32)}}, match(term(flow.CtState, 0x21))},
		{flow.Match{{Field: flow.Reg0}}, nil},
		{flow.Match{{Field: 255, Value: flow.U64(1), Mask: flow.U64(1)}}, nil},
	} {
		got := tt.in.Normalize()
		if len(got) != len(tt.want) || !got.Equal(tt.want) {
			t.Errorf("%v became %v, want %v", []flow.Term(tt.in), []flow.Term(got), []flow.Term(tt.want))
		}
		if again := got.Normalize(); !again.Equal(got) {
			t.Errorf("%v changes again to %v", []flow.Term(got), []flow.Term(again))
		}
	}
}

func TestValidateMatch(t *testing.T) {
	for _, tt := range []struct {
		name string
		m    flow.Match
		msg  string
	}{
		{"order", flow.Match{term(flow.Reg1, 5), term(flow.Reg0, 5)}, "out of order"},
		{"twice", flow.Match{term(flow.Reg1, 5), term(flow.Reg1, 5)}, "given twice"},
		{"field", flow.Match{term(200, 5)}, "not a field"},
		{"empty mask", flow.Match{{Field: flow.Reg0}}, "empty mask"},
		{"wide mask", flow.Match{{Field: flow.CtState, Mask: flow.Ones(32)}}, "wider than 8 bits"},
		{"value", flow.Match{masked(flow.Reg0, 3, 1)}, "outside its mask"},
		{"mask of in_port", flow.Match{masked(flow.InPort, 1, 1)}, "cannot be masked"},
		{"arp_op", match(term(flow.EthType, flow.EthTypeARP), term(flow.ARPOp, 256)), "above 255"},
		{"frag", match(term(flow.EthType, flow.EthTypeIPv4), masked(flow.IPFrag, 2, 3)), "a later fragment is a fragment"},
		{"frag no", match(term(flow.EthType, flow.EthTypeIPv4), masked(flow.IPFrag, 0, 1)), "both bits"},
		{"erspan", match(term(flow.TunERSPANIdx, 1)), "tun_erspan_ver=1"},
		{"pcp", match(term(flow.VlanPCP, 1)), "a VLAN tag"},
		{"tci", match(term(flow.VlanTCI, 0x1001), term(flow.VlanPCP, 0)), "beside"},
		{"nd", match(term(flow.EthType, flow.EthTypeIPv6), term(flow.IPProto, 58), term(flow.ICMPv6Type, 128), wide(flow.NDTarget, 0, 1)),
			"icmp_type=135 or"},
		{"nd_tll", match(term(flow.EthType, flow.EthTypeIPv6), term(flow.IPProto, 58), term(flow.ICMPv6Type, 135), term(flow.NDTll, 1)),
			"icmp_type=136"},
		{"nd code", match(term(flow.EthType, flow.EthTypeIPv6), term(flow.IPProto, 58), term(flow.ICMPv6Type, 135), term(flow.ICMPv6Code, 1),
			term(flow.NDSll, 1)), "icmp_code=0"},
		{"ct_tp", match(masked(flow.CtState, 2, 2), term(flow.CtTpDst, 1)), "ct_nw_proto"},
		{"port", match(term(flow.InPort, 0xffff0000)), "not a port"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.m.Validate(); err == nil || !strings.Contains(err.Error(), tt.msg) {
				t.Errorf("got %v, want %q", err, tt.msg)
			}
			_ = tt.m.String() // also what is not valid prints
		})
	}
}

func TestPortMasks(t *testing.T) {
	check := func(lo, hi uint16) {
		t.Helper()
		masks := flow.PortMasks(lo, hi)
		next := uint32(lo)
		for _, m := range masks {
			size := uint32(^m.Mask) + 1
			if size&(size-1) != 0 || uint32(m.Value) != next || m.Value&^m.Mask != 0 {
				t.Fatalf("%d-%d: %#04x/%#04x does not go on at %d", lo, hi, m.Value, m.Mask, next)
			}
			next += size
		}
		if next != uint32(hi)+1 {
			t.Fatalf("%d-%d: covered to %d", lo, hi, next-1)
		}
		// Counted another way: descend the binary tree of prefixes; a node that is wholly inside is one term.
		if want := countPrefixes(0, 1<<16, uint32(lo), uint32(hi)+1); len(masks) != want {
			t.Fatalf("%d-%d: %d terms, %d would do", lo, hi, len(masks), want)
		}
	}
	check(0, 0)
	check(0, 65535)
	check(65535, 65535)
	check(1, 65534)
	check(8000, 8099)
	r := rand.New(rand.NewPCG(9, 10))
	for range 20000 {
		a, b := uint16(r.IntN(65536)), uint16(r.IntN(65536))
		check(min(a, b), max(a, b))
	}
	if got := flow.PortMasks(2, 1); got != nil {
		t.Errorf("an empty range gives %v", got)
	}
	if got := len(flow.PortMasks(1, 65534)); got != 30 {
		t.Errorf("the worst range takes %d terms", got)
	}
}

// countPrefixes counts the largest prefixes below [from,to) that lie within [lo,hi).
func countPrefixes(from, to, lo, hi uint32) int {
	switch {
	case hi <= from || to <= lo:
		return 0
	case lo <= from && to <= hi:
		return 1
	}
	mid := (from + to) / 2
	return countPrefixes(from, mid, lo, hi) + countPrefixes(mid, to, lo, hi)
}

func TestAddresses(t *testing.T) {
	for text, want := range map[string]flow.U128{
		"10.1.2.3": flow.U64(0x0a010203), "::ffff:10.1.2.3": flow.U64(0x0a010203), "2001:db8::1": {Hi: 0x20010db800000000, Lo: 1},
	} {
		if got := flow.FromAddr(netip.MustParseAddr(text)); got != want {
			t.Errorf("FromAddr(%s) = %x", text, got)
		}
	}
	if got := flow.FromAddr(netip.Addr{}); !got.IsZero() {
		t.Errorf("FromAddr of nothing = %x", got)
	}
	for text, want := range map[string]string{
		"10.1.2.3/8": "ip,nw_dst=10.0.0.0/8", "10.1.2.3/32": "ip,nw_dst=10.1.2.3", "0.0.0.0/0": "ip",
		"::ffff:10.0.0.0/104": "ip,nw_dst=10.0.0.0/8",
	} {
		v, mask := flow.Prefix(netip.MustParsePrefix(text))
		if got := match(term(flow.EthType, flow.EthTypeIPv4)).WithMasked(flow.IPDst, v, mask).String(); got != want {
			t.Errorf("Prefix(%s): %s, want %s", text, got, want)
		}
	}
	if v, mask := flow.Prefix(netip.MustParsePrefix("2001:db8::/33")); v != (flow.U128{Hi: 0x20010db800000000}) ||
		mask != (flow.U128{Hi: 0xffffffff80000000}) {
		t.Errorf("Prefix: %x/%x", v, mask)
	}
	if _, mask := flow.Prefix(netip.Prefix{}); !mask.IsZero() {
		t.Error("an invalid prefix has a mask")
	}
	hw := net.HardwareAddr{0, 0x11, 0x22, 0x33, 0x44, 0x55}
	if got := flow.MAC(hw); got != flow.U64(0x001122334455) || got.HardwareAddr().String() != hw.String() {
		t.Errorf("MAC = %x", got)
	}
	if got := flow.MAC(hw[:5]); !got.IsZero() {
		t.Errorf("MAC of five bytes = %x", got)
	}
	if got, err := flow.ParseMAC("00-11-22-33-44-55"); err != nil || got != flow.MAC(hw) {
		t.Errorf("ParseMAC = %x, %v", got, err)
	}
	for _, bad := range []string{"", "00:11:22:33:44", "00:11:22:33:44:55:66:77"} {
		if _, err := flow.ParseMAC(bad); err == nil {
			t.Errorf("ParseMAC(%q) is accepted", bad)
		}
	}
	a := netip.MustParseAddr("2001:db8::7")
	if got := flow.FromAddr(a).Addr6(); got != a {
		t.Errorf("Addr6 = %s", got)
	}
	if got := flow.U64(0x0a010203).Addr4().String(); got != "10.1.2.3" {
		t.Errorf("Addr4 = %s", got)
	}
}

func TestBuild(t *testing.T) {
	m := flow.Match{}.With(flow.EthType, flow.U64(flow.EthTypeIPv4)).With(flow.IPProto, flow.U64(flow.ProtoTCP)).
		WithCt(flow.CtTrk|flow.CtNew, flow.CtInv).
		WithPrefix(flow.IPSrc, netip.MustParsePrefix("10.1.2.3/8")).WithPrefix(flow.IPDst, netip.MustParsePrefix("0.0.0.0/0")).
		WithSub(flow.SubField{Field: flow.Reg8, Ofs: 4, Bits: 8}, 0x1ab).WithSub(flow.SubField{Field: flow.Reg8, Ofs: 31, Bits: 1}, 1).
		WithSub(flow.SubField{Field: flow.CtLabel, Ofs: 96, Bits: 32}, 7)
	if err := m.Validate(); err != nil {
		t.Error(err)
	}
	const want = "ct_state=+new-inv+trk,ct_label=0x7000000000000000000000000/0xffffffff000000000000000000000000,tcp," +
		"reg8=0x80000ab0/0x80000ff0,nw_src=10.0.0.0/8"
	if got := m.String(); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if got := m.WithSub(flow.SubField{Field: flow.Reg8, Ofs: 4, Bits: 8}, 2).String(); !strings.Contains(got, "reg8=0x80000020/0x80000ff0") {
		t.Errorf("replaced: %s", got)
	}
	if got := flow.Set(flow.EthDst, flow.U64(0xffff000000000001)).String(); got != "set_field:00:00:00:00:00:01->eth_dst" {
		t.Error(got)
	}
}
