package event

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// TransportName is network.transport of an IP protocol (IANA keywords in lower case), or "" for one without a common name.
func TransportName(proto uint8) string {
	switch proto {
	case 1:
		return "icmp"
	case 2:
		return "igmp"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 33:
		return "dccp"
	case 47:
		return "gre"
	case 50:
		return "esp"
	case 51:
		return "ah"
	case 58:
		return "ipv6-icmp"
	case 89:
		return "ospf"
	case 103:
		return "pim"
	case 112:
		return "vrrp"
	case 132:
		return "sctp"
	}
	return ""
}

// protocolNames are those that TransportName gives.
func protocolNames() (out []string) {
	for n := range 256 {
		if name := TransportName(uint8(n)); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// normalProtocol makes of what users write what events hold: "ICMPv6" and "58" are "ipv6-icmp", "254" stays.
func normalProtocol(s string) string {
	s = strings.ToLower(s)
	if s == "icmpv6" || s == "icmp6" {
		return "ipv6-icmp"
	}
	if n, err := strconv.ParseUint(s, 10, 8); err == nil {
		if name := TransportName(uint8(n)); name != "" {
			return name
		}
	}
	return s
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
