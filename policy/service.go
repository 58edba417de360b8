package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// IP protocol numbers (IANA) of the protocols that services narrow further.
const (
	ProtoICMP   uint8 = 1
	ProtoTCP    uint8 = 6
	ProtoUDP    uint8 = 17
	ProtoICMPv6 uint8 = 58
	ProtoSCTP   uint8 = 132
)

// protocolNames are those of protocols(5), in the spelling of most systems.
var protocolNames = map[string]uint8{
	"icmp": ProtoICMP, "igmp": 2, "ipip": 4, "tcp": ProtoTCP, "egp": 8, "igp": 9, "udp": ProtoUDP, "dccp": 33, "ipv6": 41, "rsvp": 46,
	"gre": 47, "esp": 50, "ah": 51, "icmpv6": ProtoICMPv6, "eigrp": 88, "ospf": 89, "etherip": 97, "pim": 103, "ipcomp": 108, "vrrp": 112,
	"l2tp": 115, "isis": 124, "sctp": ProtoSCTP, "udplite": 136, "mpls-in-ip": 137,
}

// otherProtocolNames are spellings of the same that are not accepted, so that one protocol has one name.
var otherProtocolNames = map[string]string{
	"ipencap": "ipip", "ip-in-ip": "ipip", "ipv6-icmp": "icmpv6", "icmp6": "icmpv6", "ipsec-esp": "esp", "ipsec-ah": "ah", "ospfigp": "ospf",
	"carp": "vrrp", "6in4": "ipv6", "sit": "ipv6", "udp-lite": "udplite",
}

// portNames are ports that have a name of their own, whatever the protocol: a fixed table, so that a policy means the same everywhere.
// Names and numbers are IANA's (RFC 6335), or say what everybody calls a range.
var portNames = map[string]PortRange{
	"ftp": {21, 21}, "ssh": {22, 22}, "telnet": {23, 23}, "smtp": {25, 25}, "dns": {53, 53}, "dhcp-server": {67, 67},
	"dhcp-client": {68, 68}, "tftp": {69, 69}, "http": {80, 80}, "kerberos": {88, 88}, "pop3": {110, 110}, "ntp": {123, 123},
	"imap": {143, 143}, "snmp": {161, 161}, "snmptrap": {162, 162}, "bgp": {179, 179}, "ldap": {389, 389}, "https": {443, 443},
	"smb": {445, 445}, "ike": {500, 500}, "syslog": {514, 514}, "dhcpv6-client": {546, 546}, "dhcpv6-server": {547, 547},
	"submission": {587, 587}, "ldaps": {636, 636}, "dns-tls": {853, 853}, "imaps": {993, 993}, "pop3s": {995, 995},
	"mssql": {1433, 1433}, "oracle": {1521, 1521}, "radius": {1812, 1813}, "nfs": {2049, 2049}, "etcd": {2379, 2380},
	"mysql": {3306, 3306}, "rdp": {3389, 3389}, "iscsi": {3260, 3260}, "diameter": {3868, 3868}, "ipsec-nat-t": {4500, 4500},
	"vxlan": {4789, 4789}, "sip": {5060, 5061}, "mdns": {5353, 5353}, "postgresql": {5432, 5432}, "amqp": {5672, 5672},
	"vnc": {5900, 5999}, "redis": {6379, 6379}, "geneve": {6081, 6081}, "kubernetes-api": {6443, 6443}, "http-alt": {8080, 8080},
	"mongodb": {27017, 27017}, "traceroute": {33434, 33534}, "unprivileged": {1024, 65535},
}

// ProtocolNames returns the names that services may have for protocols, by number.
func ProtocolNames() []string {
	names := sortedKeys(protocolNames)
	slices.SortFunc(names, func(a, b string) int { return int(protocolNames[a]) - int(protocolNames[b]) })
	return names
}

// ProtocolName returns the name of a protocol, or its number in digits.
func ProtocolName(proto uint8) string {
	for name, n := range protocolNames {
		if n == proto {
			return name
		}
	}
	return strconv.Itoa(int(proto))
}

// PortNames returns the names that services may have for ports.
func PortNames() map[string]PortRange {
	out := make(map[string]PortRange, len(portNames))
	for name, r := range portNames {
		out[name] = r
	}
	return out
}

func namedPorts(s string) (PortRange, error) {
	if r, ok := portNames[s]; ok {
		return r, nil
	}
	lower := strings.ToLower(s)
	if guess := closest(s, sortedKeys(portNames)); guess != "" {
		return PortRange{}, fmt.Errorf("unknown name %s: did you mean %q?", quote(s), guess)
	} else if r := s[0] | 0x20; r < 'a' || r > 'z' || strings.Trim(lower, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return PortRange{}, errors.New(portForm)
	}
	return PortRange{}, fmt.Errorf("unknown name %s: write the number; names are those of docs/policies.md, such as \"ssh\" or \"https\"",
		quote(s))
}

const portForm = `must be a port like "80", a range like "8000-8099" or a name like "https"`

// Number returns the number of the protocol. The error says what is allowed.
func (p Protocol) Number() (uint8, error) {
	s := string(p)
	if n, ok := protocolNames[s]; ok {
		return n, nil
	}
	if isDigits(strings.TrimPrefix(s, "-")) {
		n, err := strconv.ParseUint(s, 10, 64)
		switch {
		case err != nil || n > 255:
			return 0, fmt.Errorf("protocol %s is outside the range 1-255", shorten(s))
		case s[0] == '0' && s != "0":
			return 0, fmt.Errorf("write the number without leading zeros: %d", n)
		case n == 0:
			return 0, errors.New("0 announces hop-by-hop options of IPv6 and is no protocol: write the number of the protocol behind them")
		}
		return uint8(n), nil
	}
	lower := strings.ToLower(s)
	if _, ok := protocolNames[lower]; ok {
		return 0, fmt.Errorf("unknown protocol %s: write %s", quote(s), lower)
	}
	if name, ok := otherProtocolNames[lower]; ok {
		return 0, fmt.Errorf("unknown protocol %s: write %s", quote(s), name)
	}
	if guess := closest(s, ProtocolNames()); guess != "" {
		return 0, fmt.Errorf("unknown protocol %s: did you mean %s?", quote(s), guess)
	}
	return 0, fmt.Errorf("unknown protocol %s: must be a number or one of %s", quote(s), orList(ProtocolNames()))
}

// UnmarshalJSON takes a text or a number.
func (p *Protocol) UnmarshalJSON(b []byte) error { return textOrNumber(b, (*string)(p)) }

// textOrNumber reads either into a text.
func textOrNumber(b []byte, to *string) error {
	var n json.Number
	if len(b) > 0 && b[0] != '"' {
		if err := json.Unmarshal(b, &n); err != nil {
			return err
		}
		*to = string(n)
		return nil
	}
	return json.Unmarshal(b, to)
}

// hasPorts reports whether services of the protocol may name ports.
func hasPorts(proto uint8) bool { return proto == ProtoTCP || proto == ProtoUDP || proto == ProtoSCTP }

func isSCTP(p Protocol) bool {
	n, err := p.Number()
	return err == nil && n == ProtoSCTP
}

func isICMP(proto uint8) bool { return proto == ProtoICMP || proto == ProtoICMPv6 }

// parsePorts reads a list of ports; nil = there are none.
func parsePorts(texts []string) ([]PortRange, error) {
	var out []PortRange
	for _, text := range texts {
		r, err := ParsePortRange(text)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return joinRanges(out), nil
}

// ParsedService is a service in numbers. What is nil is not restricted.
type ParsedService struct {
	Proto       uint8
	Ports       []PortRange // destination; sorted, without overlaps, adjacent ranges joined
	SourcePorts []PortRange // likewise
	Type, Code  *uint8      // of ICMP or ICMPv6
}

// ParseService reads a service. It fails only on services that Validate refuses.
func ParseService(s *Service) (out ParsedService, err error) {
	if out.Proto, err = s.Protocol.Number(); err != nil {
		return out, err
	}
	if out.Ports, err = parsePorts(s.Ports); err != nil {
		return out, err
	}
	if out.SourcePorts, err = parsePorts(s.SourcePorts); err != nil {
		return out, err
	}
	if (out.Ports != nil || out.SourcePorts != nil) && !hasPorts(out.Proto) {
		return out, fmt.Errorf("%s has no ports", s.Protocol)
	}
	for _, x := range [...]struct {
		from *int
		to   **uint8
	}{{s.Type, &out.Type}, {s.Code, &out.Code}} {
		switch {
		case x.from == nil:
		case !isICMP(out.Proto):
			return out, fmt.Errorf("%s has no types and codes", s.Protocol)
		case *x.from < 0 || *x.from > 255:
			return out, fmt.Errorf("%d is outside the range 0-255", *x.from)
		default:
			n := uint8(*x.from)
			*x.to = &n
		}
	}
	if out.Code != nil && out.Type == nil {
		return out, errors.New("a code goes with a type")
	}
	return out, nil
}

// protoFamily returns the IP version that a protocol belongs to, 0 for both: number 1 in IPv6 is not ICMP, nor 58 in IPv4.
func protoFamily(proto uint8) int {
	switch proto {
	case ProtoICMP:
		return 4
	case ProtoICMPv6:
		return 6
	}
	return 0
}
