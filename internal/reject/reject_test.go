package reject_test

import (
	"bytes"
	"net"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/internal/reject"
)

var (
	macA, macB   = net.HardwareAddr{0x52, 0x54, 0, 0, 0, 1}, net.HardwareAddr{0x52, 0x54, 0, 0, 0, 2}
	ip4A, ip4B   = net.IP{10, 0, 0, 1}, net.IP{10, 0, 0, 2}
	ip6A, ip6B   = net.ParseIP("fd00::1"), net.ParseIP("fd00::2")
	payload      = gopacket.Payload("some data")
	fixing       = gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	fragment     = func(ip *layers.IPv4) { ip.FragOffset = 8 }
	firstPart    = func(ip *layers.IPv4) { ip.Flags = layers.IPv4MoreFragments }
	withOptions  = func(ip *layers.IPv4) { ip.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 0}} }
	toEverybody  = func(ip *layers.IPv4) { ip.DstIP = net.IP{255, 255, 255, 255} }
	toGroup      = func(ip *layers.IPv4) { ip.DstIP = net.IP{224, 0, 0, 1} }
	fromNobody   = func(ip *layers.IPv4) { ip.SrcIP = net.IP{0, 0, 0, 0} }
	fromGroup    = func(ip *layers.IPv4) { ip.SrcIP = net.IP{239, 1, 1, 1} }
	fromLoopback = func(ip *layers.IPv4) { ip.SrcIP = net.IP{127, 0, 0, 1} }
)

func serialize(t testing.TB, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, fixing, ls...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func frame4(t testing.TB, change func(*layers.IPv4), ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	ip := &layers.IPv4{Version: 4, IHL: 5, TTL: 9, SrcIP: ip4A, DstIP: ip4B, Protocol: protocol(ls[0])}
	if change != nil {
		change(ip)
	}
	bind(ip, ls)
	return serialize(t, append([]gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: macA, DstMAC: macB,
		EthernetType: layers.EthernetTypeIPv4},
		ip}, ls...)...)
}

func frame6(t testing.TB, change func(*layers.IPv6), ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	ip := &layers.IPv6{Version: 6, HopLimit: 9, SrcIP: ip6A, DstIP: ip6B, NextHeader: protocol(ls[0])}
	if change != nil {
		change(ip)
	}
	bind(ip, ls)
	return serialize(t, append([]gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: macA, DstMAC: macB,
		EthernetType: layers.EthernetTypeIPv6},
		ip}, ls...)...)
}

func bind(ip gopacket.NetworkLayer, ls []gopacket.SerializableLayer) {
	for _, l := range ls {
		if x, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			_ = x.SetNetworkLayerForChecksum(ip)
		}
	}
}

func protocol(l gopacket.SerializableLayer) layers.IPProtocol {
	switch l.(type) {
	case *layers.TCP:
		return layers.IPProtocolTCP
	case *layers.UDP:
		return layers.IPProtocolUDP
	case *layers.SCTP:
		return layers.IPProtocolSCTP
	case *layers.ICMPv4:
		return layers.IPProtocolICMPv4
	case *layers.ICMPv6:
		return layers.IPProtocolICMPv6
	}
	return layers.IPProtocolGRE
}

func segment(flags string, seq, ack uint32) *layers.TCP {
	s := &layers.TCP{SrcPort: 40000, DstPort: 80, Seq: seq, Ack: ack, Window: 1000}
	for _, f := range flags {
		switch f {
		case 'S':
			s.SYN = true
		case 'A':
			s.ACK = true
		case 'F':
			s.FIN = true
		case 'R':
			s.RST = true
		case 'P':
			s.PSH = true
		}
	}
	return s
}

// decoded is the answer as an independent decoder reads it: whole, with right checksums, from B to A.
func decoded(t *testing.T, frame []byte) gopacket.Packet {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		t.Fatalf("%v in %x", e.Error(), frame)
	}
	verify(t, p)
	eth := p.LinkLayer().(*layers.Ethernet)
	if eth.SrcMAC.String() != macB.String() || eth.DstMAC.String() != macA.String() {
		t.Fatalf("from %v to %v", eth.SrcMAC, eth.DstMAC)
	}
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		if !ip.SrcIP.Equal(ip4B) || !ip.DstIP.Equal(ip4A) || int(ip.Length) != len(ip.Payload)+20 || ip.TTL != 64 {
			t.Fatalf("%+v", ip)
		}
	case *layers.IPv6:
		if !ip.SrcIP.Equal(ip6B) || !ip.DstIP.Equal(ip6A) || int(ip.Length) != len(ip.Payload) || ip.HopLimit != 64 {
			t.Fatalf("%+v", ip)
		}
	default:
		t.Fatalf("no IP: %x", frame)
	}
	return p
}

func verify(t *testing.T, p gopacket.Packet) {
	t.Helper()
	for _, l := range p.Layers() {
		if x, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			_ = x.SetNetworkLayerForChecksum(p.NetworkLayer())
		}
	}
	if err, mismatches := p.VerifyChecksums(); err != nil || len(mismatches) > 0 {
		t.Fatalf("checksums: %v %v", err, mismatches)
	}
}

// TestReset holds what a TCP segment is answered to RFC 9293 §3.5.2.
func TestReset(t *testing.T) {
	hop := func(ls ...gopacket.SerializableLayer) []byte {
		return frame6(t, func(ip *layers.IPv6) { ip.NextHeader = layers.IPProtocolIPv6Destination },
			append([]gopacket.SerializableLayer{gopacket.Payload{6, 0, 1, 4, 0, 0, 0, 0}}, ls...)...)
	}
	tagged := func(frame []byte) []byte {
		return bytes.Join([][]byte{frame[:12], {0x81, 0, 0x60, 10}, frame[12:]}, nil)
	}
	data := segment("A", 7, 99)
	for name, tt := range map[string]struct {
		frame    []byte
		seq, ack uint32
		acks     bool
		vlan     uint16
	}{
		"SYN":                    {frame: frame4(t, nil, segment("S", 7, 0)), ack: 8, acks: true},
		"SYN of IPv6":            {frame: frame6(t, nil, segment("S", 7, 0)), ack: 8, acks: true},
		"SYN with data":          {frame: frame4(t, nil, segment("S", 7, 0), payload), ack: 17, acks: true},
		"SYN at the end":         {frame: frame4(t, nil, segment("S", 0xffffffff, 0)), ack: 0, acks: true},
		"SYN and FIN":            {frame: frame4(t, nil, segment("SF", 7, 0)), ack: 9, acks: true},
		"SYN and ACK":            {frame: frame4(t, nil, segment("SA", 7, 99)), seq: 99},
		"data":                   {frame: frame4(t, nil, segment("PA", 7, 99), payload), seq: 99},
		"data of IPv6":           {frame: frame6(t, nil, segment("PA", 7, 99), payload), seq: 99},
		"FIN":                    {frame: frame4(t, nil, segment("FA", 7, 99)), seq: 99},
		"nothing set":            {frame: frame4(t, nil, segment("", 7, 0), payload), ack: 16, acks: true},
		"IPv4 options":           {frame: frame4(t, withOptions, segment("S", 7, 0)), ack: 8, acks: true},
		"IPv6 options":           {frame: hop(segment("", 7, 0), payload), ack: 16, acks: true},
		"a VLAN":                 {frame: tagged(frame4(t, nil, segment("S", 7, 0))), ack: 8, acks: true, vlan: 10},
		"a VLAN, IPv6":           {frame: tagged(frame6(t, nil, segment("S", 7, 0))), ack: 8, acks: true, vlan: 10},
		"padding":                {frame: append(frame4(t, nil, segment("", 7, 0)), make([]byte, 20)...), ack: 7, acks: true},
		"cut behind the headers": {frame: frame4(t, nil, segment("", 7, 0), gopacket.Payload(make([]byte, 1000)))[:54], ack: 1007, acks: true},
		"a first fragment":       {frame: frame4(t, firstPart, data), seq: 99},
	} {
		t.Run(name, func(t *testing.T) {
			p := decoded(t, reject.Answer(tt.frame))
			got, ok := p.TransportLayer().(*layers.TCP)
			if !ok || !got.RST || got.ACK != tt.acks || got.Seq != tt.seq || got.Ack != tt.ack || got.SrcPort != 80 || got.DstPort != 40000 ||
				got.SYN || got.FIN || got.PSH || len(got.Payload) > 0 || got.DataOffset != 5 {
				t.Errorf("%+v, want seq %d, ack %d", got, tt.seq, tt.ack)
			}
			vlan, _ := p.Layer(layers.LayerTypeDot1Q).(*layers.Dot1Q)
			if (vlan != nil) != (tt.vlan != 0) || vlan != nil && (vlan.VLANIdentifier != tt.vlan || vlan.Priority != 3) {
				t.Errorf("tag %+v, want VLAN %d", vlan, tt.vlan)
			}
		})
	}
}

// TestUnreachable holds what everything but TCP is answered: a port unreachable where there are ports, with the packet quoted.
func TestUnreachable(t *testing.T) {
	udp := &layers.UDP{SrcPort: 40000, DstPort: 53}
	long := gopacket.Payload(bytes.Repeat([]byte{7}, 1400))
	echo4 := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 5}
	echo6 := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}
	port, prohibited := uint8(3), uint8(13)
	port6, prohibited6 := uint8(4), uint8(1)
	for name, tt := range map[string]struct {
		frame []byte
		code  uint8
		quote int
	}{
		"UDP":            {frame4(t, nil, udp, payload), port, 20 + 8 + 9},
		"UDP, IPv6":      {frame6(t, nil, udp, payload), port6, 40 + 8 + 9},
		"much UDP":       {frame4(t, nil, udp, long), port, 548},
		"much UDP, IPv6": {frame6(t, nil, udp, long), port6, 1232},
		"padded":         {append(frame4(t, nil, udp), make([]byte, 18)...), port, 28},
		"cut":            {frame4(t, nil, udp, long)[:100], port, 86},
		"SCTP":           {frame4(t, nil, &layers.SCTP{SrcPort: 1, DstPort: 2}), port, 32},
		"GRE":            {frame4(t, nil, payload), prohibited, 29},
		"GRE, IPv6":      {frame6(t, nil, payload), prohibited6, 49},
		"ping":           {frame4(t, nil, echo4, payload), prohibited, 37},
		"ping, IPv6":     {frame6(t, nil, echo6, payload), prohibited6, 53},
		"first fragment": {frame4(t, firstPart, udp, payload), port, 37},
	} {
		t.Run(name, func(t *testing.T) {
			at := 14
			p := decoded(t, reject.Answer(tt.frame))
			var quoted []byte
			if x, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok {
				if x.TypeCode != layers.CreateICMPv4TypeCode(3, tt.code) {
					t.Errorf("%v, want code %d", x.TypeCode, tt.code)
				}
				quoted = x.Payload
			} else if x, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok {
				if x.TypeCode != layers.CreateICMPv6TypeCode(1, tt.code) {
					t.Errorf("%v, want code %d", x.TypeCode, tt.code)
				}
				quoted = x.Payload[4:]
			}
			if !bytes.Equal(quoted, tt.frame[at:at+tt.quote]) {
				t.Errorf("%d bytes are quoted, want %d:\n%x", len(quoted), tt.quote, quoted)
			}
		})
	}
}

// What must not be answered, and what cannot be.
func TestNoAnswer(t *testing.T) {
	syn, udp := segment("S", 7, 0), &layers.UDP{SrcPort: 1, DstPort: 2}
	good := frame4(t, nil, syn)
	change := func(frame []byte, at int, b ...byte) []byte {
		out := bytes.Clone(frame)
		copy(out[at:], b)
		return out
	}
	icmp4 := func(kind uint8) []byte {
		return frame4(t, nil, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0)}, payload)
	}
	icmp6 := func(kind uint8) []byte {
		return frame6(t, nil, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}, payload)
	}
	six := frame6(t, nil, udp)
	part := func(offset byte) []byte {
		return frame6(t, func(ip *layers.IPv6) { ip.NextHeader = layers.IPProtocolIPv6Fragment },
			gopacket.Payload{17, 0, 0, offset | 1, 0, 0, 0, 1}, udp)
	}
	for name, frame := range map[string][]byte{
		"nothing": nil, "half a frame": good[:13], "half of IP": good[:30], "half of TCP": good[:50],
		"a RST": frame4(t, nil, segment("R", 7, 0)), "a RST with ACK": frame4(t, nil, segment("RA", 7, 9)),
		"a RST, IPv6":     frame6(t, nil, segment("R", 7, 0)),
		"unreachable":     icmp4(3),
		"source quench":   icmp4(4),
		"redirect":        icmp4(5),
		"time exceeded":   icmp4(11),
		"bad parameter":   icmp4(12),
		"echo reply":      icmp4(0),
		"unreachable, 6":  icmp6(1),
		"too big, 6":      icmp6(2),
		"exceeded, 6":     icmp6(3),
		"bad, 6":          icmp6(4),
		"unknown, 6":      icmp6(100),
		"echo reply, 6":   icmp6(129),
		"redirect, 6":     icmp6(137),
		"a fragment":      frame4(t, fragment, udp),
		"a fragment, 6":   part(8),
		"to everybody":    frame4(t, toEverybody, syn),
		"to a group":      frame4(t, toGroup, udp),
		"from nobody":     frame4(t, fromNobody, udp),
		"from a group":    frame4(t, fromGroup, udp),
		"from loopback":   frame4(t, fromLoopback, udp),
		"to a group, 6":   frame6(t, func(ip *layers.IPv6) { ip.DstIP = net.ParseIP("ff02::1") }, udp),
		"from a group, 6": frame6(t, func(ip *layers.IPv6) { ip.SrcIP = net.ParseIP("ff02::1") }, udp),
		"from nobody, 6":  frame6(t, func(ip *layers.IPv6) { ip.SrcIP = net.IPv6zero }, udp),
		"broadcast":       change(good, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"multicast":       change(good, 0, 1, 0, 0x5e),
		"from many":       change(good, 6, 1),
		"from no address": change(good, 6, 0, 0, 0, 0, 0, 0),
		"ARP":             change(good, 12, 8, 6),
		"version 5":       change(good, 14, 0x55),
		"short header":    change(good, 14, 0x44),
		"short length":    change(good, 16, 0, 10),
		"short segment":   change(good, 46, 0x40),
		"long segment":    change(good, 46, 0xf0),
		"version 4 in 6":  change(six, 14, 0x40),
		"options that do not end": frame6(t, func(ip *layers.IPv6) { ip.NextHeader = layers.IPProtocolIPv6Destination },
			gopacket.Payload{17, 9, 1, 4, 0, 0, 0, 0}, udp),
		"a tag and nothing": append(bytes.Clone(good[:12]), 0x81, 0, 0, 1),
	} {
		if got := reject.Answer(frame); got != nil {
			t.Errorf("%s is answered by %x", name, got)
		}
	}
	for name, frame := range map[string][]byte{"good": good, "six": six, "first part": part(0)} {
		if reject.Answer(frame) == nil {
			t.Errorf("%s is not answered, so what was changed in it proves nothing", name)
		}
	}
}

// FuzzAnswer holds any frame to what must be true of every answer: it can be read, goes back to where the frame came from, keeps its tags,
// is no longer than the standards allow, and is not answered itself, so that no two switches can keep each other busy.
func FuzzAnswer(f *testing.F) {
	f.Add(frame4(f, nil, segment("S", 7, 0)))
	f.Add(frame6(f, nil, segment("PA", 7, 9), payload))
	f.Add(frame4(f, withOptions, &layers.UDP{SrcPort: 1, DstPort: 2}, payload))
	f.Add(frame6(f, nil, &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}, payload))
	f.Add(frame6(f, func(ip *layers.IPv6) { ip.NextHeader = layers.IPProtocolIPv6Fragment },
		gopacket.Payload{17, 0, 0, 1, 0, 0, 0, 1}, &layers.UDP{SrcPort: 1, DstPort: 2}))
	f.Fuzz(func(t *testing.T, frame []byte) {
		before := bytes.Clone(frame)
		got := reject.Answer(frame)
		if !bytes.Equal(frame, before) {
			t.Fatal("the frame was changed")
		}
		if got == nil {
			return
		}
		if !bytes.Equal(got[0:6], frame[6:12]) || !bytes.Equal(got[6:12], frame[0:6]) || got[0]&1 != 0 {
			t.Fatalf("%x is answered to %x", frame, got[:12])
		}
		p := gopacket.NewPacket(got, layers.LayerTypeEthernet, gopacket.Default)
		switch ip := p.NetworkLayer().(type) {
		case *layers.IPv4:
			if ip.Length > 576 || int(ip.Length) != 20+len(ip.Payload) {
				t.Fatalf("an answer of %d bytes, %d behind the header", ip.Length, len(ip.Payload))
			}
		case *layers.IPv6:
			if ip.Length > 1240 || int(ip.Length) != len(ip.Payload) {
				t.Fatalf("an answer of %d bytes, %d behind the header", ip.Length, len(ip.Payload))
			}
		default:
			t.Fatalf("%x is no IP", got)
		}
		verify(t, p)
		if again := reject.Answer(got); again != nil {
			t.Fatalf("the answer %x is answered by %x", got, again)
		}
	})
}
