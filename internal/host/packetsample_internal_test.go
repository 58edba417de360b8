package host

import (
	"net/netip"
	"testing"

	"github.com/tapwall/tapwall/internal/packet"
)

// One packet of ten, and beside them the first of each connection and what begins and ends one; the weights are what the packets were.
func TestSampler(t *testing.T) {
	frame := func(src, dst string, proto uint8, sport, dport uint16) []byte {
		f := packet.First{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst),
			Proto: proto, SrcPort: sport, DstPort: dport}
		b, err := f.Frame()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	flags := func(f byte) []byte {
		b := frame("10.0.0.1", "10.0.0.2", packet.ProtoTCP, 40000, 80)
		b[14+20+13] = f
		return b
	}
	s := newSampler(10)
	take := func(data []byte) int64 { return s.weight(data, len(data)) }
	there, back := frame("10.0.0.1", "10.0.0.2", packet.ProtoUDP, 40000, 53), frame("10.0.0.2", "10.0.0.1", packet.ProtoUDP, 53, 40000)
	if take(there) != 1 || take(frame("10.0.0.1", "10.0.0.2", packet.ProtoUDP, 40001, 53)) != 1 {
		t.Error("a first packet is left out")
	}
	var taken, weights int64
	for i := range 100 {
		if w := take([][]byte{there, back}[i%2]); w > 0 {
			taken, weights = taken+1, weights+w
		}
	}
	if taken != 10 || weights != 100 {
		t.Errorf("%d of 100 packets stand for %d", taken, weights)
	}
	for _, f := range []byte{2, 2, 0x12, 1, 0x11, 4} { // SYN, again, SYN+ACK, FIN, FIN+ACK, RST
		if take(flags(f)) != 1 {
			t.Errorf("flags %#x are left out", f)
		}
	}
	if take(flags(0x10)) != 0 {
		t.Error("an ACK is taken")
	}
	for n := range maxBegun {
		take(frame("10.0.0.3", netip.AddrFrom4([4]byte{11, 0, byte(n >> 8), byte(n)}).String(), packet.ProtoUDP, 1, 1))
	}
	if len(s.begun) > maxBegun || take(there) != 1 {
		t.Errorf("%d connections are remembered", len(s.begun))
	}
	arp := make([]byte, 60)
	arp[12], arp[13] = 8, 6
	all := newSampler(1)
	if all.weight(arp, 60) != 1 || newSampler(10).weight(arp, 60) != 0 {
		t.Error("what is no IP")
	}
}
