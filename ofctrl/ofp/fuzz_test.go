package ofp_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
)

// frames returns messages as a switch may send them, each kind with all that it can hold.
func frames(t testing.TB) [][]byte {
	t.Helper()
	var out [][]byte
	add := func(s string) { out = append(out, setLength(unhex(t, s))) }
	for _, s := range []string{
		"06000010 00000001 00010008 00000072", "0401000c 00000004 00050001", "04010010 00000004 ffff090a 4f4e4600 0000",
		"0402000a 00000003 abcd", "0403000a 00000003 abcd",
		"04060020 00000001 0000000000000001 00000100 fe00 0000 0000014f 00000000", "0408000c 00000001 0000ffff", "04150008 00000001",
		"04190018 00000009 00000003 00000000 0000000000000005", "04040010 00000000 4f4e4600 0000074f", "04040010 00000000 00002320 00000017",
		"04040018 00000000 4f4e4600 000008fc 00000005 0005 0003", "04040010 00000000 00beef00 00000001 0102",
	} {
		add(s)
	}
	port := "00000001 00000000 020000000001 0000 70310000000000000000000000000000 00000001 00000001 00000280 00000000 00000000 00000000 " +
		"00989680 00000000"
	add("040c0000 00000000 00 00000000000000" + port)
	add("04130000 00000001 000d0001 00000000" + port + port)
	multipart := func(kind string, body []byte) {
		out = append(out, setLength(append(unhex(t, "04130000 00000001"+kind+"0000 00000000"), body...)))
	}
	var pins, flows, updates []byte
	for _, f := range golden() {
		b, err := ofp.AppendFlowMod(nil, 1, ofp.FlowAdd, &f, ofp.FlowModOptions{})
		if err != nil {
			t.Fatal(err)
		}
		body := b[flowModBody:]
		e := append(unhex(t, "0000 03 00 00000001 00000002 0001 0000 0000 0000 00000000 0000000000000001 0000000000000002 0000000000000003"),
			body...)
		flows = append(flows, entrySize(e)...)
		e = append(unhex(t, "0000 0000 0000 0001 0000 0000 0008 02 00 0000000000000009"), body...)
		updates = append(updates, entrySize(e)...)
		m, err := ofp.AppendMatch(nil, f.Match)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, setLength(append(unhex(t,
			"040b0000 00000000 0000000000000001 0064 02 03 00000001 00000002 0000 0000 0000000000000001 0000000000000002"), m...)))
		pins = append(unhex(t, "040a0000 00000007 ffffffff 0006 02 09 00000000000000aa"), m...)
		out = append(out, setLength(append(pins, 0, 0, 1, 2, 3, 4, 5, 6)))
		if len(flows) > 8000 {
			multipart("0001", flows)
			multipart("ffff", append(unhex(t, "4f4e4600 0000074e"), updates...))
			flows, updates = nil, nil
		}
	}
	multipart("0001", flows)
	multipart("ffff", append(unhex(t, "4f4e4600 0000074e"), append(updates, unhex(t, "0008000300000a0b")...)...))
	add("04040000 00000008 00002320 0000001e 0000 0007 aabbcc 00 0001 0008 00000bb8 0003 0005 0a 000000 0004 0010 00000000 " +
		"00000000000000bb 0005 0005 01 000000" +
		"0006 001c 80000004 00000003 00010204 00000005 00010004 00000006 00000000 0007 000a 010203040506 000000000000 0008 000c 00000000 " +
		"c0ffee00 00000000")
	multipart("0000", make([]byte, 1056))
	multipart("0002", make([]byte, 24))
	multipart("0003", make([]byte, 48))
	multipart("0004", make([]byte, 224))
	multipart("0006",
		unhex(t, "0038 0000 00000001 00000002 00000000 0000000000000003 0000000000000004 00000005 00000006 0000000000000007 0000000000000008"))
	multipart("0007", unhex(t, "0028 01 00 00000001 0020 0003 ffffffff ffffffff 00000000 0000 0010 00000001 0000 000000000000"))
	multipart("0009",
		unhex(t, "00000001 0038 000000000000 00000002 0000000000000003 0000000000000004 00000005 00000006 0000000000000007 0000000000000008"))
	multipart("000a", unhex(t, "0018 0005 00000001 0001 0010 00000064 0000000a 00000000"))
	multipart("000b", make([]byte, 16))
	multipart("000c", make([]byte, 16))
	return out
}

func setLength(b []byte) []byte {
	b[2], b[3] = byte(len(b)>>8), byte(len(b))
	return b
}

func entrySize(b []byte) []byte {
	b[0], b[1] = byte(len(b)>>8), byte(len(b))
	return b
}

// checkDecode decodes b and fails the test if an error is none of those that are promised.
func checkDecode(t testing.TB, b []byte) ofp.Message {
	t.Helper()
	m, err := ofp.Decode(b)
	checkError(t, err)
	if (m == nil) != (err != nil) {
		t.Fatalf("message %+v with error %v", m, err)
	}
	if m != nil && int(m.Head().Length) != len(b) {
		t.Fatalf("message of %d bytes says %d", len(b), m.Head().Length)
	}
	return m
}

func checkError(t testing.TB, err error) {
	t.Helper()
	var pe *ofp.ParseError
	if err != nil && (!errors.As(err, &pe) || !errors.Is(err, ofp.ErrTruncated) && !errors.Is(err, ofp.ErrLength) &&
		!errors.Is(err, ofp.ErrUnsupported) && !errors.Is(err, ofp.ErrValue)) {
		t.Fatalf("error %T %v", err, err)
	}
}

// The corpus itself must be good, or fuzzing starts from noise.
func TestFramesDecode(t *testing.T) {
	kinds := map[string]bool{}
	for _, b := range frames(t) {
		m, err := ofp.Decode(b)
		if err != nil {
			t.Errorf("%v\n%x", err, b)
			continue
		}
		kinds[typeName(m)] = true
		if r, ok := m.(*ofp.FlowStatsReply); ok {
			for _, f := range r.Flows {
				if f.Err != nil {
					t.Error(f.Err)
				}
			}
		}
	}
	if len(kinds) < 26 {
		t.Errorf("only %d kinds of messages: %v", len(kinds), kinds)
	}
}

func FuzzDecode(f *testing.F) {
	for _, b := range frames(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		checkDecode(t, b)
		if len(b) >= 4 && len(b) <= 0xffff {
			checkDecode(t, setLength(bytes.Clone(b))) // so that most inputs get past the length
			var p ofp.PacketIn
			ok, err := ofp.DecodePacketIn(&p, b)
			checkError(t, err)
			if !ok && err != nil {
				t.Fatal("an error for a message that is no packet-in")
			}
		}
	})
}

// What decodes without anything unknown must encode again, to something that decodes to the same.
func FuzzMatch(f *testing.F) {
	for _, m := range matches() {
		b, err := ofp.AppendMatch(nil, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, n, err := ofp.DecodeMatch(b)
		checkError(t, err)
		if err != nil {
			return
		}
		if n < 8 || n%8 != 0 || n > len(b) {
			t.Fatalf("match of %d bytes in %d", n, len(b))
		}
		again, err := ofp.AppendMatch(nil, m)
		if err != nil {
			t.Fatalf("%v: %v", m, err)
		}
		m2, _, err := ofp.DecodeMatch(again)
		if diff := cmp.Diff(m, m2); diff != "" || err != nil {
			t.Fatalf("%v (-first +second)\n%s", err, diff)
		}
	})
}

func FuzzActions(f *testing.F) {
	for _, a := range actions() {
		b, err := ofp.AppendInstructions(nil, a.actions)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, decode := range []func([]byte) ([]flow.Action, error){ofp.DecodeInstructions, ofp.DecodeActions} {
			as, err := decode(b)
			checkError(t, err)
			if err != nil {
				continue
			}
			again, err := ofp.AppendInstructions(nil, as)
			if err != nil {
				// A switch may say what it would not take, such as a metadata mask of 0.
				if !errors.Is(err, ofp.ErrValue) && !errors.Is(err, ofp.ErrLength) {
					t.Fatalf("%v: %v", as, err)
				}
				continue
			}
			as2, err := ofp.DecodeInstructions(again)
			if err != nil {
				t.Fatalf("%v: %v", as, err)
			}
			if diff := cmp.Diff(as, as2, cmpAddr); diff != "" {
				t.Fatalf("(-first +second)\n%s", diff)
			}
		}
	})
}

// Frames broken in the ways that lines and bugs break them must end in a message or an error, and soon.
func TestMutatedFrames(t *testing.T) {
	good := frames(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	decoded, refused := 0, 0
	for range 100_000 {
		b := bytes.Clone(good[rnd.IntN(len(good))])
		for range 1 + rnd.IntN(4) {
			switch i := rnd.IntN(len(b)); rnd.IntN(6) {
			case 0: // a flipped bit
				b[i] ^= 1 << rnd.IntN(8)
			case 1: // an extreme byte
				b[i] = []byte{0, 1, 4, 7, 8, 0x7f, 0x80, 0xff}[rnd.IntN(8)]
			case 2: // cut
				if b = b[:i]; i < ofp.HeaderLen {
					b = append(b, make([]byte, ofp.HeaderLen)...)
				}
			case 3: // repeated
				b = append(b, b[i:]...)
			case 4: // a 16-bit length
				if i+1 < len(b) {
					n := rnd.IntN(70)
					b[i], b[i+1] = 0, byte(n)
				}
			case 5: // a piece of another frame
				o := good[rnd.IntN(len(good))]
				copy(b[i:], o[rnd.IntN(len(o)):])
			}
			if len(b) > 0xffff {
				b = b[:0xffff]
			}
		}
		if rnd.IntN(20) > 0 {
			setLength(b)
		}
		if checkDecode(t, b) != nil {
			decoded++
		} else {
			refused++
		}
	}
	// Both must be common, or the mutations are too mild or too wild to show anything.
	if decoded < 5000 || refused < 5000 {
		t.Errorf("%d decoded, %d refused", decoded, refused)
	}
}

// What selects connections is on the wire as it was given: read back by the properties' own lengths.
func FuzzAppendCTFlush(f *testing.F) {
	f.Add(uint8(17), []byte{10, 0, 0, 1}, []byte{10, 0, 0, 2}, uint16(1025), uint16(53), uint16(0), uint8(0), uint8(0), uint16(5), false, true)
	f.Add(uint8(1), []byte{10, 0, 0, 1}, []byte{10, 0, 0, 2}, uint16(0), uint16(0), uint16(7), uint8(8), uint8(0), uint16(0), true, false)
	f.Add(uint8(58), make([]byte, 16), []byte{15: 1}, uint16(0), uint16(0), uint16(7), uint8(128), uint8(1), uint16(9), false, false)
	f.Fuzz(func(t *testing.T, proto uint8, src, dst []byte, sport, dport, id uint16, typ, code uint8, zone uint16, any, reply bool) {
		want := ofp.CTTuple{SrcPort: sport, DstPort: dport, ICMPID: id, ICMPType: typ, ICMPCode: code}
		want.Src, _ = netip.AddrFromSlice(src)
		want.Dst, _ = netip.AddrFromSlice(dst)
		c := ofp.CTFlush{Proto: proto, Orig: want, Zone: zone, AnyZone: any}
		if reply {
			c.Orig, c.Reply = ofp.CTTuple{}, want
		}
		b, err := ofp.AppendCTFlush([]byte("before"), 9, c)
		if err != nil {
			if !errors.Is(err, ofp.ErrValue) || string(b) != "before" {
				t.Fatalf("%q, %v", b, err)
			}
			return
		}
		b = b[len("before"):]
		u16 := binary.BigEndian.Uint16
		if len(b)%8 != 0 || int(u16(b[2:])) != len(b) || b[16] != proto {
			t.Fatalf("%x", b)
		}
		// props calls on for each property; between them there is padding to 8 bytes.
		props := func(b []byte, on func(kind uint16, body []byte)) {
			for len(b) > 0 {
				n := int(u16(b[2:]))
				on(u16(b), b[4:n])
				b = b[(n+7)/8*8:]
			}
		}
		var got ofp.CTTuple
		zoned := false
		props(b[24:], func(kind uint16, body []byte) {
			if kind == 2 {
				if zoned = true; u16(body) != zone {
					t.Fatalf("zone %d of %d", u16(body), zone)
				}
				return
			}
			if (kind == 1) != reply {
				t.Fatalf("tuple of kind %d", kind)
			}
			props(body[4:], func(kind uint16, body []byte) {
				switch kind {
				case 0:
					got.Src = netip.AddrFrom16([16]byte(body))
				case 1:
					got.Dst = netip.AddrFrom16([16]byte(body))
				case 2:
					got.SrcPort = u16(body)
				case 3:
					got.DstPort = u16(body)
				case 4:
					got.ICMPID = u16(body)
				case 5:
					got.ICMPType = body[0]
				case 6:
					got.ICMPCode = body[0]
				}
			})
		})
		// An address of zeros is left out, which is the same.
		for _, a := range []*netip.Addr{&want.Src, &want.Dst, &got.Src, &got.Dst} {
			if !a.IsValid() {
				*a = netip.IPv6Unspecified()
			}
			*a = netip.AddrFrom16(a.As16())
		}
		if zoned == any || got != want {
			t.Fatalf("%+v on the wire, of %+v", got, want)
		}
	})
}
