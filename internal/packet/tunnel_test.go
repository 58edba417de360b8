package packet_test

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/internal/packet"
)

// wrapped is a frame that carries the frame inner behind a header of its tunnel.
func wrapped(t testing.TB, port uint16, header, inner []byte) []byte {
	t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: []byte{192, 0, 2, 1}, DstIP: []byte{192, 0, 2, 2}}
	udp := &layers.UDP{SrcPort: 50000, DstPort: layers.UDPPort(port)}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	eth := &layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 1}, DstMAC: []byte{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv4}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, udp,
		gopacket.Payload(append(bytes.Clone(header), inner...))); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// What is inside is found where its tunnel's RFC says that it is, and nowhere else.
func TestInside(t *testing.T) {
	inner := bytes.Repeat([]byte{0xab}, 60)
	for _, c := range []struct {
		name, header string
		port         uint16
		kind         string
	}{
		{"vxlan", "0800000000000700", 4789, "vxlan"},
		{"vxlan without a VNI", "0000000000000700", 4789, ""},
		{"geneve", "0000655800000700", 6081, "geneve"},
		{"geneve with an option", "0200655800000700" + "0102030405060708", 6081, "geneve"},
		{"geneve of another version", "4000655800000700", 6081, ""},
		{"geneve with IP inside", "0000080000000700", 6081, ""},
		{"geneve whose options are longer than it", "3f00655800000700", 6081, ""},
		{"another port", "0800000000000700", 4790, ""},
		{"a part of a header", "08000000", 4789, ""},
	} {
		header, err := hex.DecodeString(c.header)
		if err != nil {
			t.Fatal(err)
		}
		body := inner
		if len(header) < 8 {
			body = nil
		}
		frame := wrapped(t, c.port, header, body)
		var p packet.Parsed
		packet.NewDecoder().Decode(frame, 0, &p)
		got, in, ok := packet.Inside(frame, &p)
		if ok != (c.kind != "") {
			t.Errorf("%s: %v", c.name, ok)
			continue
		}
		want := packet.Tunnel{Type: c.kind, VNI: 7, Source: netip.MustParseAddr("192.0.2.1"), Destination: netip.MustParseAddr("192.0.2.2")}
		if ok && (got != want || !bytes.Equal(in, inner)) {
			t.Errorf("%s: %+v, %x", c.name, got, in)
		}
	}
}

func FuzzInside(f *testing.F) {
	f.Add(wrapped(f, 4789, []byte{8, 0, 0, 0, 0, 0, 7, 0}, seeds()[0]))
	f.Add(wrapped(f, 6081, []byte{1, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 3, 4}, seeds()[0]))
	d := packet.NewDecoder()
	f.Fuzz(func(t *testing.T, frame []byte) {
		var p packet.Parsed
		d.Decode(frame, 0, &p)
		for range 3 {
			_, inner, ok := packet.Inside(frame, &p)
			if !ok {
				return
			}
			if len(inner) >= len(frame) || len(inner) == 0 {
				t.Fatalf("%d bytes are in %d", len(inner), len(frame))
			}
			frame = inner
			d.Decode(frame, 0, &p)
		}
	})
}
