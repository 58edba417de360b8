package tables_test

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/tables"
)

// Both directions of a session get one number, numbers of two bases have nothing to do with each other, and what is no IP gets 0.
func TestMultipathIsSymmetric(t *testing.T) {
	choose := func(basis uint16, links uint32) *tables.Switch {
		return tables.With([]flow.Flow{{Actions: []flow.Action{
			flow.Multipath{Fields: flow.HashSymmetricL3L4, Basis: basis, Links: links, Dst: flow.Whole(flow.Reg2)},
		}}})
	}
	four, other := choose(0, 4), choose(1, 4)
	number := func(s *tables.Switch, p tables.Packet) uint64 {
		r := s.Process(p)
		return r.Fields[flow.Reg2].Lo
	}
	rapid.Check(t, func(t *rapid.T) {
		addr := func(label string) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, label)}) }
		s := tables.Tuple{Src: addr("src"), Dst: addr("dst"), Proto: rapid.SampledFrom([]uint8{1, 6, 17, 132}).Draw(t, "proto"),
			SrcPort: rapid.Uint16().Draw(t, "from"), DstPort: rapid.Uint16().Draw(t, "to")}
		if a, b := number(four, tables.IP(1, 1, 2, s, 0)), number(four, tables.IP(2, 2, 1, s.Reversed(), 0)); a != b || a > 3 {
			t.Fatalf("%v has %d, and back %d", s, a, b)
		}
		if a, b := number(four, tables.IP(1, 1, 2, s, 0)), number(four, tables.IP(7, 9, 8, s, 2)); a != b {
			t.Fatalf("%v has %d, and elsewhere %d", s, a, b)
		}
	})
	var both [4][4]int
	for i := range 1600 {
		s := tables.Tuple{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Proto: 6, SrcPort: uint16(30000 + i),
			DstPort: 443}
		both[number(four, tables.IP(1, 1, 2, s, 0))][number(other, tables.IP(1, 1, 2, s, 0))]++
	}
	for a := range both {
		for b, n := range both[a] {
			if n < 60 || n > 140 { // 100 ± 4 standard deviations
				t.Errorf("%d of 1600 sessions have %d and %d, want about 100", n, a, b)
			}
		}
	}
	if n := number(four, tables.Packet{flow.EthType: flow.U64(flow.EthTypeARP), flow.ARPSpa: flow.U64(5)}); n != 0 {
		t.Errorf("ARP has %d", n)
	}
}
