package vswitch

import (
	"net/netip"
	"strconv"
	"strings"
)

// Controller is one row of the Controller table.
type Controller struct {
	UUID        string
	Target      string // "tcp:192.0.2.1:6653", "ptcp:6653:192.0.2.1", …
	ExternalIDs map[string]string
}

// ControllerSpec is one wanted passive Controller row: the bridge listens there for OpenFlow connections. It is a value: equal specs
// want the same row.
//
// The row gets type "service", so the bridge's fail mode does not apply to it and its flows stay when the row comes and goes
// (ovs-vswitchd.conf.db(5), Controller:type). All other columns stay empty: connection_mode and max_backoff mean nothing for a row that
// waits for connections, and a rate limit of the connection would drop packet-ins that no counter of ours tells of; meters limit them.
type ControllerSpec struct {
	Bridge string
	// Port is the TCP port. No two bridges of a host can listen on one.
	Port uint16
	// Addr is the address of the host to listen on; the zero Addr is every IPv4 address. It has no zone.
	Addr netip.Addr
	// TLS: only TLS connections, with the keys of Open_vSwitch.ssl (ovs-vsctl set-ssl). Without such keys the bridge does not listen.
	TLS bool
}

// Target is the row's target column, "ptcp:PORT[:ADDR]" or "pssl:PORT[:ADDR]".
func (s ControllerSpec) Target() string {
	target := "ptcp:"
	if s.TLS {
		target = "pssl:"
	}
	target += strconv.Itoa(int(s.Port))
	switch {
	case s.Addr.Is6():
		target += ":[" + s.Addr.String() + "]"
	case s.Addr.IsValid():
		target += ":" + s.Addr.String()
	}
	return target
}

// Listens returns where a passive target listens: a port, the default included, and an address, for which 0.0.0.0 stands in where the
// target has none or a name. ok is false for every other target, and for a port that the system chooses.
func (c Controller) Listens() (at netip.AddrPort, ok bool) {
	method, rest, _ := strings.Cut(c.Target, ":")
	if method != "ptcp" && method != "pssl" {
		return at, false
	}
	port, host, _ := strings.Cut(rest, ":")
	number := uint64(6653)
	if port != "" {
		var err error
		if number, err = strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
			return at, false
		}
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		addr = netip.IPv4Unspecified()
	}
	return netip.AddrPortFrom(addr, uint16(number)), true
}

// Collide reports whether two sockets cannot listen at these places at once.
func Collide(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().Is4() == b.Addr().Is4() &&
		(a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified())
}
