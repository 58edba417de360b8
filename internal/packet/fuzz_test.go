package packet_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tapwall/tapwall/internal/packet"
)

func seeds() [][]byte {
	out := [][]byte{
		frame(eth4 + ip4("45", "0028", "0000", "06") + tcp),
		frame("020000000002 020000000001 8100 0064 0800 " + ip4("45", "0028", "2000", "11") + tcp),
		frame(arp + "0001 0800 06 04 0001 020000000001 0a000001 000000000000 0a000002"),
		frame(eth6 + "60000000 0034 00 40" + v6a + "3c00 0104 00000000 2b00 0104 00000000 2c00 0000 00000000 0600 0000 00000001" + tcp),
		frame(eth6 + "60000000 0008 3a 40" + v6a + "8000 0000 0001 0001"),
		frame(eth4 + ip4("45", "0020", "0000", "84") + "9cac 1538 00000001 00000000"),
	}
	for _, f := range malicious {
		out = append(out, f)
	}
	return out
}

// check fails on a Parsed that contradicts its own documentation.
func check(t *testing.T, data []byte, wireLen int, p *packet.Parsed) {
	t.Helper()
	fail := func(what string) { t.Errorf("%s: %x\n%+v", what, data, *p) }
	ok := p.Status == packet.StatusOK
	if ok != (p.Layer == packet.LayerNone) || ok != (p.Err == "") {
		fail("status, layer and error disagree")
	}
	if !ok && p.Status != packet.StatusPartial && p.Status != packet.StatusFailed {
		fail("bad status")
	}
	if (p.Status == packet.StatusPartial) != (!ok && p.Src.IsValid()) {
		fail("partial must mean that addresses are valid")
	}
	if int(p.Layer) >= packet.LayerCount || strings.HasPrefix(p.Layer.String(), "layer(") {
		fail("bad layer")
	}
	if len(p.Err) > 120 || !utf8.ValidString(p.Err) {
		fail("bad error text")
	}
	if p.Length != max(wireLen, len(data)) {
		fail("bad length")
	}
	if wireLen > len(data) && !p.Truncated {
		fail("a cut frame must be marked")
	}
	if p.Src.IsValid() != p.Dst.IsValid() || p.IPVersion != 0 && !p.Src.IsValid() {
		fail("addresses")
	}
	if p.Src.IsValid() && (p.IPVersion == 6) != p.Src.Is6() {
		fail("family")
	}
	if (p.HasPorts || p.HasICMP) && (p.IPVersion == 0 || p.FragOffset != 0) {
		fail("ports without IP, or in a later fragment")
	}
	if at, n := p.PayloadAt, p.PayloadLen; n < 0 || (at == 0) != (n == 0) || at+n > len(data) ||
		n > 0 && (!ok || !p.HasPorts || at < 14+20+8) {
		fail("payload")
	}
	if p.HasPorts && p.HasICMP {
		fail("both ports and ICMP")
	}
	if id := p.CommunityID(); (id != "") != (p.IPVersion != 0) || id != "" && len(id) != packet.CommunityIDLen {
		fail("community id " + id)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s, 0)
		f.Add(s, 9000)
	}
	d := packet.NewDecoder()
	f.Fuzz(func(t *testing.T, data []byte, wireLen int) {
		wireLen &= 0xffff
		if len(data) > packet.MaxBytes {
			data = data[:packet.MaxBytes]
		}
		var p, again packet.Parsed
		d.Decode(data, wireLen, &p)
		check(t, data, wireLen, &p)
		packet.NewDecoder().Decode(data, wireLen, &again)
		if p != again {
			t.Errorf("an earlier frame shows: %x\n%+v\n%+v", data, p, again)
		}
	})
}

// TestMutated decodes 200,000 frames that differ from good and malicious ones in some bytes and in length.
func TestMutated(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	all := seeds()
	d := packet.NewDecoder()
	var p packet.Parsed
	count := map[packet.Status]int{}
	for range 200_000 {
		data := append([]byte(nil), all[rng.IntN(len(all))]...)
		for range rng.IntN(6) {
			data[rng.IntN(len(data))] = byte(rng.Uint32())
		}
		data = data[:rng.IntN(len(data)+1)]
		d.Decode(data, 0, &p)
		check(t, data, 0, &p)
		count[p.Status]++
		if t.Failed() {
			return
		}
	}
	for _, s := range []packet.Status{packet.StatusOK, packet.StatusPartial, packet.StatusFailed} {
		if count[s] < 1000 {
			t.Errorf("only %d frames %v: the mutation is too weak to mean anything", count[s], s)
		}
	}
}

func TestLongFrame(t *testing.T) {
	data := append(frame(eth4+ip4("45", "2328", "0000", "06")+tcp), make([]byte, 9000)...)
	var p packet.Parsed
	packet.NewDecoder().Decode(data, 0, &p)
	if p.Status != packet.StatusOK || !p.Truncated || p.Length != len(data) || p.DstPort != 5432 {
		t.Errorf("got %+v", p)
	}
	for _, tags := range []int{200, 2000} { // a frame of nothing but VLAN tags ends
		data := append(frame("020000000002 020000000001"), []byte(strings.Repeat("\x81\x00\x00\x64", tags))...)
		packet.NewDecoder().Decode(data, 0, &p)
		if p.Status != packet.StatusFailed || p.Layer != packet.LayerVLAN {
			t.Errorf("%d tags: got %+v", tags, p)
		}
	}
}

func TestDecodeAllocates(t *testing.T) {
	d := packet.NewDecoder()
	var p packet.Parsed
	for _, s := range []string{
		eth4 + ip4("45", "0028", "0000", "06") + tcp,
		eth4 + ip4("45", "001c", "0000", "11") + "9cac 1538 0008 0000",
		eth6 + "60000000 0014 06 40" + v6a + tcp,
		eth6 + "60000000 0024 2b 40" + v6a + "2c00 0104 00000000 0600 0000 00000001" + tcp,
		arp + "0001 0800 06 04 0001 020000000001 0a000001 000000000000 0a000002",
	} {
		data := frame(s)
		d.Decode(data, 0, &p) // options keep their room
		if n := testing.AllocsPerRun(1000, func() { d.Decode(data, 0, &p) }); n != 0 {
			t.Errorf("%v allocations for %s", n, s)
		}
		if p.Status != packet.StatusOK {
			t.Errorf("%+v", p)
		}
	}
}

func TestTCPFlags(t *testing.T) {
	if got := packet.TCPFlags(packet.SYN | packet.ACK); got != "SYN,ACK" {
		t.Errorf("got %s", got)
	}
	if got := packet.TCPFlags(0x1ff); got != "FIN,SYN,RST,PSH,ACK,URG,ECE,CWR,NS" {
		t.Errorf("got %s", got)
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, s := range map[string]string{
		"tcp":  eth4 + ip4("45", "0028", "0000", "06") + tcp,
		"tcp6": eth6 + "60000000 0014 06 40" + v6a + tcp,
		"bad":  eth4 + ip4("40", "0028", "0000", "06") + tcp,
	} {
		b.Run(name, func(b *testing.B) {
			d, data := packet.NewDecoder(), frame(s)
			var p packet.Parsed
			b.ReportAllocs()
			for b.Loop() {
				d.Decode(data, 0, &p)
			}
		})
	}
}
