package packet_test

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tapwall/tapwall/internal/packet"
)

// frame turns hexadecimal text with blanks into bytes.
func frame(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

const (
	eth4 = "020000000002 020000000001 0800 "
	eth6 = "020000000002 020000000001 86dd "
	arp  = "ffffffffffff 020000000001 0806 "
	v6a  = "20010db8000000000000000000000001 20010db8000000000000000000000002 "
	tcp  = "9cac 1538 00000001 00000000 5002 ffff 0000 0000 "
)

// ip4 is an IPv4 header 10.0.0.1 > 10.0.0.2 with a first byte, a total length, a flags-and-offset word and a protocol.
func ip4(first, length, frag, proto string) string {
	return first + "00" + length + "0001" + frag + "40" + proto + "0000 0a000001 0a000002 "
}

// The frames that kill or hang another decoder of packet-ins.
var malicious = map[string][]byte{
	"IPv4 IHL 0":                        frame(eth4 + ip4("40", "0028", "0000", "06") + tcp),
	"IPv4 IHL 15":                       frame(eth4 + ip4("4f", "0028", "0000", "06") + tcp),
	"IPv6 routing header cut short":     frame(eth6 + "60000000 0004 2b 40" + v6a + "06 02 00 01"),
	"IPv6 hop-by-hop length 255":        frame(eth6 + "60000000 0008 00 40" + v6a + "06 ff 01 04 00 00 00 00"),
	"IPv6 hop-by-hop option length 254": frame(eth6 + "60000000 0008 00 40" + v6a + "06 00 1e fe 00 00 00 00"),
}

var (
	mac1 = packet.MAC{2, 0, 0, 0, 0, 1}
	mac2 = packet.MAC{2, 0, 0, 0, 0, 2}
	ip1  = netip.MustParseAddr("10.0.0.1")
	ip2  = netip.MustParseAddr("10.0.0.2")
	ip61 = netip.MustParseAddr("2001:db8::1")
	ip62 = netip.MustParseAddr("2001:db8::2")
)

func TestDecode(t *testing.T) {
	base := func(f func(p *packet.Parsed)) packet.Parsed {
		p := packet.Parsed{Status: packet.StatusOK, HasEthernet: true, EthSrc: mac1, EthDst: mac2, EthType: packet.EtherTypeIPv4}
		f(&p)
		return p
	}
	v4 := func(f func(p *packet.Parsed)) packet.Parsed {
		return base(func(p *packet.Parsed) {
			p.IPVersion, p.Src, p.Dst, p.Proto, p.TTL = 4, ip1, ip2, packet.ProtoTCP, 64
			f(p)
		})
	}
	v6 := func(f func(p *packet.Parsed)) packet.Parsed {
		return base(func(p *packet.Parsed) {
			p.EthType = packet.EtherTypeIPv6
			p.IPVersion, p.Src, p.Dst, p.Proto, p.TTL = 6, ip61, ip62, packet.ProtoTCP, 64
			f(p)
		})
	}
	ports := func(p *packet.Parsed) {
		p.HasPorts, p.SrcPort, p.DstPort = true, 40108, 5432
		if p.Proto == packet.ProtoTCP {
			p.TCPFlags = packet.SYN
		}
	}
	broken := func(s packet.Status, l packet.Layer, err string) func(p *packet.Parsed) {
		return func(p *packet.Parsed) { p.Status, p.Layer, p.Err = s, l, err }
	}
	for _, tc := range []struct {
		name string
		data []byte
		want packet.Parsed
	}{
		{"OK tcp", frame(eth4 + ip4("45", "0028", "0000", "06") + tcp), v4(ports)},
		{"OK with frame trailer", frame(eth4 + ip4("45", "0028", "0000", "06") + tcp + "ffff ffff ffff"), v4(ports)},
		{"OK two vlan tags", frame("020000000002 020000000001 88a8 0064 8100 00c8 0800 " + ip4("45", "0028", "0000", "06") + tcp),
			v4(func(p *packet.Parsed) {
				p.VLANs, p.VLAN = 2, 100
				ports(p)
			})},
		{"OK udp", frame(eth4 + ip4("45", "001c", "0000", "11") + "9cac 1538 0008 0000"), v4(func(p *packet.Parsed) {
			p.Proto = packet.ProtoUDP
			ports(p)
		})},
		{"OK sctp", frame(eth4 + ip4("45", "0020", "0000", "84") + "9cac 1538 00000001 00000000"), v4(func(p *packet.Parsed) {
			p.Proto = packet.ProtoSCTP
			ports(p)
		})},
		{"OK icmp", frame(eth4 + ip4("45", "001c", "0000", "01") + "0301 0000 0000 0000"), v4(func(p *packet.Parsed) {
			p.Proto, p.HasICMP, p.ICMPType, p.ICMPCode = packet.ProtoICMP, true, 3, 1
		})},
		{"OK first fragment", frame(eth4 + ip4("45", "0028", "2000", "06") + tcp), v4(func(p *packet.Parsed) {
			p.Fragment = true
			ports(p)
		})},
		{"OK later fragment", frame(eth4 + ip4("45", "0028", "0003", "06") + tcp), v4(func(p *packet.Parsed) {
			p.Fragment, p.FragOffset = true, 24
		})},
		{"OK IP in IP keeps the outer addresses", frame(eth4 + ip4("45", "003c", "0000", "04") + "4500002800010000400600000b0000010b000002" +
			tcp), v4(func(p *packet.Parsed) {
			p.Proto = 4
		})},
		{"OK VXLAN is not looked into", frame(eth4 + ip4("45", "0024", "0000", "11") + "9cac 12b5 0010 0000 08000000 00000100"),
			v4(func(p *packet.Parsed) {
				p.Proto, p.HasPorts, p.SrcPort, p.DstPort = packet.ProtoUDP, true, 40108, 4789
				p.PayloadAt, p.PayloadLen = 42, 8
			})},
		{"OK payload between TCP options and padding", frame(eth4 + ip4("45", "002f", "0000", "06") +
			"9cac 1538 00000001 00000000 6010 ffff 0000 0000 01010101 616263" + "0000"), v4(func(p *packet.Parsed) {
			ports(p)
			p.TCPFlags = packet.ACK
			p.PayloadAt, p.PayloadLen = 58, 3
		})},
		{"OK payload cut by its length field", frame(eth4 + ip4("45", "05dc", "0000", "06") + tcp), v4(func(p *packet.Parsed) {
			p.Truncated = true
			ports(p)
		})},
		{"OK lldp", frame("0180c200000e 020000000001 88cc 0207"), base(func(p *packet.Parsed) {
			p.EthDst, p.EthType = packet.MAC{0x01, 0x80, 0xc2, 0, 0, 0x0e}, 0x88cc
		})},
		{"OK llc", frame("0180c2000000 020000000001 0003 424203"), base(func(p *packet.Parsed) {
			p.EthDst, p.EthType = packet.MAC{0x01, 0x80, 0xc2, 0, 0, 0}, 0
		})},
		{"OK arp", frame(arp + "0001 0800 06 04 0001 020000000001 0a000001 000000000000 0a000002"), base(func(p *packet.Parsed) {
			p.EthDst, p.EthType = packet.MAC{255, 255, 255, 255, 255, 255}, packet.EtherTypeARP
			p.Src, p.Dst, p.ARPOp = ip1, ip2, 1
		})},
		{"OK tcp6", frame(eth6 + "60000000 0014 06 40" + v6a + tcp), v6(ports)},
		{"OK icmpv6", frame(eth6 + "60000000 0008 3a 40" + v6a + "8000 0000 0001 0001"), v6(func(p *packet.Parsed) {
			p.Proto, p.HasICMP, p.ICMPType, p.ICMPID = packet.ProtoICMPv6, true, 128, 1
		})},
		{"OK all extensions", frame(eth6 + "60000000 0034 00 40" + v6a +
			"3c00 0104 00000000 2b00 0104 00000000 2c00 0000 00000000 0600 0000 00000001" + tcp), v6(ports)},
		{"OK first fragment v6", frame(eth6 + "60000000 001c 2c 40" + v6a + "0600 0001 00000001" + tcp), v6(func(p *packet.Parsed) {
			p.Fragment = true
			ports(p)
		})},
		{"OK later fragment v6", frame(eth6 + "60000000 001c 2c 40" + v6a + "0605 0010 00000001" + tcp), v6(func(p *packet.Parsed) {
			p.Fragment, p.FragOffset = true, 16
		})},
		{"OK no next header", frame(eth6 + "60000000 0001 3b 40" + v6a + "00"), v6(func(p *packet.Parsed) { p.Proto = 59 })},

		{"bad empty", nil, packet.Parsed{Layer: packet.LayerEthernet, Err: "Ethernet packet too small"}},
		{"bad 13 bytes", make([]byte, 13), packet.Parsed{Layer: packet.LayerEthernet, Err: "Ethernet packet too small"}},
		{"bad header only", frame(eth4), base(broken(packet.StatusFailed, packet.LayerIPv4, "the header is missing"))},
		{"bad vlan tag cut", frame("020000000002 020000000001 8100 0064"), base(func(p *packet.Parsed) {
			p.EthType, p.Truncated = 0x8100, true
			broken(packet.StatusFailed, packet.LayerVLAN, "802.1Q tag length 2 too short")(p)
		})},
		{"bad version", frame(eth4 + "65" + strings.Repeat("00", 19)), base(broken(packet.StatusFailed, packet.LayerIPv4, "version is not 4"))},
		{"bad version 6", frame(eth6 + "45" + strings.Repeat("00", 39)), base(func(p *packet.Parsed) {
			p.EthType = packet.EtherTypeIPv6
			broken(packet.StatusFailed, packet.LayerIPv6, "version is not 6")(p)
		})},
		{"bad arp", frame(arp + "0001 0800 06 04 0001 0200"), base(func(p *packet.Parsed) {
			p.EthDst, p.EthType, p.Truncated = packet.MAC{255, 255, 255, 255, 255, 255}, packet.EtherTypeARP, true
			broken(packet.StatusFailed, packet.LayerARP, "ARP length 10 too short, 28 expected")(p)
		})},
		{"bad tcp cut", frame(eth4 + ip4("45", "0020", "0000", "06") + "9cac 1538 00000001 00000000"), v4(func(p *packet.Parsed) {
			p.Truncated = true
			broken(packet.StatusPartial, packet.LayerTCP, "Invalid TCP header. Length 12 less than 20")(p)
		})},
		{"bad tcp absent", frame(eth4 + ip4("45", "0014", "0000", "06")), v4(broken(packet.StatusPartial, packet.LayerTCP,
			"the header is missing"))},
		{"bad tcp offset", frame(eth4 + ip4("45", "0028", "0000", "06") + "9cac 1538 00000001 00000000 1002 ffff 0000 0000"),
			v4(func(p *packet.Parsed) {
				ports(p)
				broken(packet.StatusPartial, packet.LayerTCP, "Invalid TCP data offset 1 < 5")(p)
			})},
		{"bad second extension", frame(eth6 + "60000000 000c 3c 40" + v6a + "2b00 0104 00000000 06ff 0000"), v6(func(p *packet.Parsed) {
			p.Proto = 43
			broken(packet.StatusPartial, packet.LayerIPv6Extension, "Invalid ip6-extension header. Length 4 less than specified length 2048")(p)
		})},

		{"malicious IHL 0", malicious["IPv4 IHL 0"], base(broken(packet.StatusFailed, packet.LayerIPv4,
			"Invalid (too small) IP header length (0 < 5)"))},
		{"malicious IHL 15", malicious["IPv4 IHL 15"], base(broken(packet.StatusFailed, packet.LayerIPv4,
			"Invalid IP header length > IP length (15 > 40)"))},
		{"malicious routing", malicious["IPv6 routing header cut short"], v6(func(p *packet.Parsed) {
			p.Proto = 43
			broken(packet.StatusPartial, packet.LayerIPv6Extension, "Invalid ip6-extension header. Length 4 less than specified length 24")(p)
		})},
		{"malicious hop-by-hop 255", malicious["IPv6 hop-by-hop length 255"], v6(func(p *packet.Parsed) {
			p.Proto = 0
			broken(packet.StatusPartial, packet.LayerIPv6Extension, "Invalid ip6-extension header. Length 8 less than specified length 2048")(p)
		})},
		{"malicious option 254", malicious["IPv6 hop-by-hop option length 254"], v6(func(p *packet.Parsed) {
			p.Proto = 0
			broken(packet.StatusPartial, packet.LayerIPv6Extension, "IPv6 header TLV option exceeds extension header")(p)
		})},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := packet.NewDecoder()
			var p packet.Parsed
			d.Decode(frame(eth6+"60000000 0014 06 40"+v6a+tcp), 0, &p) // what a frame before leaves behind must not show
			d.Decode(tc.data, 0, &p)
			tc.want.Length = len(tc.data)
			if diff := cmp.Diff(tc.want, p, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
