package learn_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/internal/learn"
)

var (
	macA, macB = learn.MAC{0x52, 0x54, 0, 0, 0, 1}, learn.MAC{0x52, 0x54, 0, 0, 0, 2}
	everybody  = learn.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

func hw(m learn.MAC) net.HardwareAddr { return net.HardwareAddr(m[:]) }

func frame(t testing.TB, src learn.MAC, vlan uint16, kind layers.EthernetType, upper ...gopacket.SerializableLayer) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: hw(src), DstMAC: hw(everybody), EthernetType: kind}
	all := []gopacket.SerializableLayer{eth}
	if vlan != 0 {
		eth.EthernetType = layers.EthernetTypeDot1Q
		all = append(all, &layers.Dot1Q{VLANIdentifier: vlan, Type: kind})
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true}, append(all, upper...)...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func arp(t testing.TB, src, sender learn.MAC, op uint16, ip string) []byte {
	return frame(t, src, 0, layers.EthernetTypeARP, &layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4,
		HwAddressSize: 6, ProtAddressSize: 4, Operation: op, SourceHwAddress: hw(sender), SourceProtAddress: net.ParseIP(ip).To4(),
		DstHwAddress: make([]byte, 6), DstProtAddress: net.IP{10, 0, 0, 254}})
}

// nd is a solicitation (135) or advertisement (136); option nil = without.
func nd(t testing.TB, vlan uint16, kind, hops uint8, src, target string, option *learn.MAC) []byte {
	ip := &layers.IPv6{Version: 6, HopLimit: hops, NextHeader: layers.IPProtocolICMPv6, SrcIP: net.ParseIP(src), DstIP: net.ParseIP("ff02::1")}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}
	what := layers.ICMPv6OptSourceAddress
	if kind == 136 {
		what = layers.ICMPv6OptTargetAddress
	}
	var options layers.ICMPv6Options
	if option != nil {
		options = layers.ICMPv6Options{{Type: what, Data: hw(*option)}}
	}
	var body gopacket.SerializableLayer = &layers.ICMPv6NeighborSolicitation{TargetAddress: net.ParseIP(target), Options: options}
	if kind == 136 {
		body = &layers.ICMPv6NeighborAdvertisement{TargetAddress: net.ParseIP(target), Options: options}
	}
	return frame(t, macA, vlan, layers.EthernetTypeIPv6, ip, icmp, body)
}

func dhcp(t testing.TB, edit func(*layers.DHCPv4)) []byte {
	d := &layers.DHCPv4{Operation: layers.DHCPOpReply, HardwareType: layers.LinkTypeEthernet, HardwareLen: 6, ClientHWAddr: hw(macA),
		YourClientIP: net.IP{10, 0, 0, 9}, Options: layers.DHCPOptions{
			layers.NewDHCPOption(layers.DHCPOptMessageType, []byte{byte(layers.DHCPMsgTypeAck)}),
			layers.NewDHCPOption(layers.DHCPOptServerID, []byte{10, 0, 0, 1}),
			layers.NewDHCPOption(layers.DHCPOptLeaseTime, binary.BigEndian.AppendUint32(nil, 600)),
			layers.NewDHCPOption(layers.DHCPOptDomainName, make([]byte, 200))}}
	if edit != nil {
		edit(d)
	}
	return frame(t, macB, 0, layers.EthernetTypeIPv4, &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: layers.IPProtocolUDP,
		SrcIP: net.IP{10, 0, 0, 1}, DstIP: net.IP{255, 255, 255, 255}}, &layers.UDP{SrcPort: 67, DstPort: 68}, d)
}

// What is read of frames, and that whatever is not exactly a claim is none.
func TestRead(t *testing.T) {
	says := func(ip string, s learn.Source, lease time.Duration) *learn.Claim {
		return &learn.Claim{MAC: macA, Address: netip.MustParseAddr(ip), Source: s, Lease: lease}
	}
	message := func(kind layers.DHCPMsgType) func(*layers.DHCPv4) {
		return func(d *layers.DHCPv4) { d.Options[0].Data[0] = byte(kind) }
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  *learn.Claim
	}{
		{"ARP request", arp(t, macA, macA, 1, "10.0.0.5"), says("10.0.0.5", learn.ARP, 0)},
		{"ARP reply", arp(t, macA, macA, 2, "10.0.0.5"), says("10.0.0.5", learn.ARP, 0)},
		{"RARP", arp(t, macA, macA, 3, "10.0.0.5"), nil},
		{"ARP probe", arp(t, macA, macA, 1, "0.0.0.0"), nil},
		{"ARP for another", arp(t, macA, macB, 2, "10.0.0.5"), nil},
		{"ARP of a group", arp(t, macA, macA, 2, "224.0.0.5"), nil},
		{"ARP of everybody", arp(t, macA, macA, 2, "255.255.255.255"), nil},
		{"ARP of loopback", arp(t, macA, macA, 2, "127.0.0.1"), nil},
		{"ARP of a link-local address", arp(t, macA, macA, 2, "169.254.1.1"), nil},
		{"ARP from a group", arp(t, learn.MAC{1}, learn.MAC{1}, 2, "10.0.0.5"), nil},
		{"ARP from nobody", arp(t, learn.MAC{}, learn.MAC{}, 2, "10.0.0.5"), nil},
		{"ARP cut", arp(t, macA, macA, 2, "10.0.0.5")[:41], nil},

		{"solicitation", nd(t, 0, 135, 255, "fd00::5", "fd00::6", &macA), says("fd00::5", learn.ND, 0)},
		{"solicitation with a tag", nd(t, 7, 135, 255, "fd00::5", "fd00::6", &macA), says("fd00::5", learn.ND, 0)},
		{"solicitation without an option", nd(t, 0, 135, 255, "fd00::5", "fd00::6", nil), says("fd00::5", learn.ND, 0)},
		{"solicitation for another", nd(t, 0, 135, 255, "fd00::5", "fd00::6", &macB), nil},
		{"probe", nd(t, 0, 135, 255, "::", "fd00::6", nil), nil},
		{"solicitation of a link-local address", nd(t, 0, 135, 255, "fe80::5", "fd00::6", &macA), nil},
		{"solicitation that was forwarded", nd(t, 0, 135, 254, "fd00::5", "fd00::6", &macA), nil},
		{"advertisement", nd(t, 0, 136, 255, "fe80::5", "fd00::5", &macA), says("fd00::5", learn.ND, 0)},
		{"advertisement without an option", nd(t, 0, 136, 255, "fe80::5", "fd00::5", nil), says("fd00::5", learn.ND, 0)},
		{"advertisement for another", nd(t, 0, 136, 255, "fe80::5", "fd00::5", &macB), nil},
		{"advertisement of a group", nd(t, 0, 136, 255, "fe80::5", "ff02::5", &macA), nil},
		{"advertisement of a mapped address", nd(t, 0, 136, 255, "fe80::5", "::ffff:10.0.0.5", &macA), nil},
		{"advertisement cut", nd(t, 0, 136, 255, "fe80::5", "fd00::5", &macA)[:80], nil},

		{"DHCP acknowledgement", dhcp(t, nil), says("10.0.0.9", learn.DHCP, 10*time.Minute)},
		{"DHCP acknowledgement cut behind the lease", dhcp(t, nil)[:400], says("10.0.0.9", learn.DHCP, 10*time.Minute)},
		{"DHCP acknowledgement cut before it", dhcp(t, nil)[:290], nil},
		{"DHCP offer", dhcp(t, message(layers.DHCPMsgTypeOffer)), nil},
		{"DHCP refusal", dhcp(t, message(layers.DHCPMsgTypeNak)), nil},
		{"DHCP without an address", dhcp(t, func(d *layers.DHCPv4) { d.YourClientIP = net.IP{0, 0, 0, 0} }), nil},
		{"DHCP without a lease", dhcp(t, func(d *layers.DHCPv4) { d.Options = d.Options[:2] }), nil},
		{"DHCP of a client", dhcp(t, func(d *layers.DHCPv4) { d.Operation = layers.DHCPOpRequest }), nil},

		{"nothing", nil, nil},
		{"all zeros", make([]byte, 60), nil},
	} {
		got, ok := learn.Read(c.frame)
		switch {
		case ok != (c.want != nil):
			t.Errorf("%s: claims something: %v (%+v)", c.name, ok, got)
		case ok && got != *c.want:
			t.Errorf("%s: claims %+v, want %+v", c.name, got, *c.want)
		}
	}
}

// FuzzRead: no frame does harm, and what is read of one can be believed as far as a frame by itself shows.
func FuzzRead(f *testing.F) {
	for _, b := range [][]byte{arp(f, macA, macA, 1, "10.0.0.5"), nd(f, 7, 135, 255, "fd00::5", "fd00::6", &macA),
		nd(f, 0, 136, 255, "fe80::5", "fd00::5", &macA), dhcp(f, nil)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, ok := learn.Read(data)
		if !ok {
			return
		}
		a := c.Address
		if !a.IsValid() || a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.Zone() != "" || a.Is4In6() {
			t.Errorf("claims %v", a)
		}
		if c.MAC[0]&1 != 0 || c.MAC == (learn.MAC{}) {
			t.Errorf("claimed by %v", c.MAC)
		}
		if c.Source != learn.DHCP && (learn.MAC(data[6:12]) != c.MAC || c.Lease != 0) || c.Source == learn.DHCP && c.Lease <= 0 {
			t.Errorf("%x claims %+v", data, c)
		}
		if (c.Source == learn.ARP || c.Source == learn.DHCP) != a.Is4() {
			t.Errorf("%s claims %v", c.Source, a)
		}
		for _, n := range []int{14, 41, 60, 85, len(data) / 2} { // who cuts it makes no other claim of it
			if n > len(data) {
				continue
			}
			if less, ok := learn.Read(data[:n]); ok && (less.MAC != c.MAC || less.Address != c.Address || less.Source != c.Source) {
				t.Errorf("cut to %d bytes it claims %+v instead of %+v", n, less, c)
			}
		}
	})
}

// What is spoken is read whether it is true or not, and Read believes nothing that Spoken reads otherwise.
func TestSpoken(t *testing.T) {
	for name, x := range map[string]struct {
		frame []byte
		mac   learn.MAC
		ip    string // "" = nothing
	}{
		"OK ARP as another":         {arp(t, macA, macB, 2, "10.0.0.1"), macB, "10.0.0.1"},
		"OK ARP as itself":          {arp(t, macA, macA, 1, "10.0.0.1"), macA, "10.0.0.1"},
		"OK advertisement":          {nd(t, 7, 136, 255, "fe80::1", "fd00::1", &macB), macB, "fd00::1"},
		"OK no option":              {nd(t, 0, 136, 255, "fe80::1", "fd00::1", nil), macA, "fd00::1"},
		"OK solicitation":           {nd(t, 0, 135, 255, "fd00::2", "fd00::1", &macB), macB, "fd00::2"},
		"OK probe":                  {nd(t, 0, 135, 255, "::", "fd00::1", nil), macA, "fd00::1"},
		"OK hop limit of elsewhere": {nd(t, 0, 136, 3, "fe80::1", "fd00::1", &macB), macB, "fd00::1"},
		"bad router advertisement":  {nd(t, 0, 134, 255, "fe80::1", "fd00::1", nil), learn.MAC{}, ""},
		"bad short ARP":             {arp(t, macA, macB, 2, "10.0.0.1")[:40], learn.MAC{}, ""},
		"bad nothing":               {nil, learn.MAC{}, ""},
	} {
		c, ok := learn.Spoken(x.frame)
		if ok != (x.ip != "") || ok && (c.MAC != x.mac || c.Address != netip.MustParseAddr(x.ip)) {
			t.Errorf("%s: %+v %v", name, c, ok)
		}
		for n := range x.frame { // cut anywhere
			learn.Spoken(x.frame[:n])
		}
		if believed, ok := learn.Read(x.frame); ok && believed != c {
			t.Errorf("%s: believed %+v, spoken %+v", name, believed, c)
		}
	}
}
