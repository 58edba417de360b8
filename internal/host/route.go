package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/ovsdb/vswitch"
	"github.com/tapwall/tapwall/policy"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// rerouteEvery is how old the knowledge of the routes to collectors may be. The kernel's routes change without a word from Open vSwitch.
const rerouteEvery = 5 * time.Second

// reroute brings the routes to collectors, and what is known of devices, up to date and reports whether they have changed. It asks the
// kernel when something else has changed, and now and then.
func (e *Engine) reroute(now time.Time) bool {
	m := &e.mirrors
	if !e.stale.mirrors && !e.stale.topology && (m.routesUntil.IsZero() || now.Before(m.routesUntil)) {
		return false
	}
	mirrors := ofKind[*policy.Mirror](e.resources, policy.KindMirror)
	m.routesUntil = time.Time{}
	if e.local() && slices.ContainsFunc(mirrors, func(r *policy.Mirror) bool {
		return len(collectorsOf(r)) > 0 || hasTargetThere(r)
	}) {
		m.routesUntil = now.Add(rerouteEvery)
	}
	ways := e.waysTo(mirrors)
	routes := routesBy(ways, e.topo)
	e.meetCollectors(ways, routes)
	changed := !maps.Equal(routes, m.routes)
	m.routes = routes
	if m.devicesAt.Before(now.Add(-devicesAge)) {
		found := e.readDevices(mirrors)
		changed = changed || !found.equal(m.devices)
		m.devices, m.devicesAt = found, now
		if found.addressed == nil { // nobody asked
			m.devicesAt = time.Time{}
		}
	}
	return changed
}

// waysTo finds the ways by which copies leave for the collectors of mirrors, as far as they can be known here. It may be called from any
// goroutine.
func (e *Engine) waysTo(mirrors []*policy.Mirror) map[netip.Addr]kernelRoute {
	if !e.local() {
		return nil
	}
	out := map[netip.Addr]kernelRoute{}
	for _, m := range mirrors {
		for _, remote := range collectorsOf(m) {
			if _, done := out[remote]; done {
				continue
			}
			way, err := wayTo(remote)
			if err != nil {
				e.log.Debug("the way to a collector is not known", "collector", remote, "err", err)
				continue
			}
			out[remote] = way
		}
	}
	return out
}

// routesBy are the ways as mirrors are compiled with them.
func routesBy(ways map[netip.Addr]kernelRoute, topo *vswitch.Topology) map[netip.Addr]tap.Route {
	out := make(map[netip.Addr]tap.Route, len(ways))
	for remote, way := range ways {
		out[remote] = way.route(topo)
	}
	return out
}

// collectorsOf lists where the mirror's tunnels lead.
func collectorsOf(m *policy.Mirror) (out []netip.Addr) {
	for _, t := range m.Spec.Targets {
		if x, ok := t.Tunnel(); ok {
			if remote, err := netip.ParseAddr(x.Remote); err == nil {
				out = append(out, remote)
			}
		}
	}
	return out
}

// carrierOf returns the device of a chain that is a bridge or port of the topology, else the first.
func carrierOf(chain []string, topo *vswitch.Topology) string {
	for _, device := range chain {
		for name, b := range topo.Bridges {
			if _, isPort := b.Ports[device]; isPort || name == device {
				return device
			}
		}
	}
	return chain[0]
}

// kernelRoute is how this host sends to an address.
type kernelRoute struct {
	// chain is the device by which it sends, followed by those that it stands on, as a VLAN device stands on another and one end of a veth
	// pair on the other, as far as they are in this network namespace. None = there is no route.
	chain   []string
	mtu     int        // the smallest on the way, in bytes of an IP packet
	kind    uint8      // of the route: RTN_UNICAST, RTN_LOCAL, …
	index   uint32     // of the first device
	nextHop netip.Addr // the address itself, or a router's
}

// route is the way as mirrors are compiled with it.
func (w *kernelRoute) route(topo *vswitch.Topology) tap.Route {
	if len(w.chain) == 0 {
		return tap.Route{Fault: "there is no route to it"}
	}
	r := tap.Route{Device: carrierOf(w.chain, topo), MTU: w.mtu}
	switch w.kind {
	case unix.RTN_LOCAL:
		r.Own = "an address of the host itself"
	case unix.RTN_BROADCAST, unix.RTN_ANYCAST, unix.RTN_MULTICAST:
		r.Own = "an address of many"
	}
	return r
}

// wayTo asks the kernel.
func wayTo(remote netip.Addr) (w kernelRoute, err error) {
	remote = remote.Unmap()
	family := uint8(unix.AF_INET)
	if remote.Is6() {
		family = unix.AF_INET6
	}
	// struct rtmsg with the length of the destination, then RTA_DST (rtnetlink(7)).
	body := append([]byte{family, uint8(remote.BitLen()), 11: 0}, attribute(unix.RTA_DST, remote.AsSlice())...)
	answer, err := askKernel(unix.RTM_GETROUTE, 0, body)
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL) {
		return w, nil // no route, or one that says so: unreachable, prohibit, blackhole
	}
	if err != nil {
		return w, fmt.Errorf("ask for the route to %s: %w", remote, err)
	}
	if w, err = routeOf(answer); err != nil {
		return w, err
	}
	if !w.nextHop.IsValid() {
		w.nextHop = remote
	}
	for index, seen := w.index, []uint32{0}; !slices.Contains(seen, index); { // both ends of a veth pair stand on the other
		seen = append(seen, index)
		// struct ifinfomsg with the index.
		body := binary.NativeEndian.AppendUint32(make([]byte, 4, 16), index)
		if answer, err = askKernel(unix.RTM_GETLINK, 0, append(body, make([]byte, 8)...)); err != nil {
			return w, fmt.Errorf("ask for device %d: %w", index, err)
		}
		l, err := linkOf(answer)
		if err != nil {
			return w, err
		}
		if index = l.below; l.mtu > 0 && (w.mtu == 0 || l.mtu < w.mtu) {
			w.mtu = l.mtu
		}
		w.chain = append(w.chain, l.name)
	}
	return w, nil
}

// attribute encodes one attribute, whose value is of a multiple of four bytes.
func attribute(kind uint16, value []byte) []byte {
	out := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	return append(binary.NativeEndian.AppendUint16(out, kind), value...)
}

// askKernel sends one request of rtnetlink, with flags beside NLM_F_REQUEST, and returns the answer. An error is a syscall.Errno as the
// kernel says it.
func askKernel(kind, flags uint16, body []byte) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	// The kernel answers within the call that asks; the timeout is for the case that it does not.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return nil, err
	}
	msg := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	msg = binary.NativeEndian.AppendUint16(msg, kind)
	msg = binary.NativeEndian.AppendUint16(msg, unix.NLM_F_REQUEST|flags)
	msg = append(append(msg, make([]byte, 8)...), body...) // sequence number and port: one question, one answer
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	answer := make([]byte, 1<<16)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return nil, err
	}
	return answer[:n], kernelError(answer[:n])
}

var errNetlink = errors.New("an answer of rtnetlink that cannot be read")

// kernelError is what an NLMSG_ERROR says.
func kernelError(answer []byte) error {
	messages, err := syscall.ParseNetlinkMessage(answer)
	switch {
	case err != nil || len(messages) == 0:
		return errNetlink
	case messages[0].Header.Type != unix.NLMSG_ERROR:
		return nil
	case len(messages[0].Data) < 4:
		return errNetlink
	}
	if no := -int32(binary.NativeEndian.Uint32(messages[0].Data)); no != 0 {
		return syscall.Errno(no)
	}
	return nil // what was asked for with NLM_F_ACK is done
}

// attributesOf returns the attributes of an answer of one kind.
func attributesOf(answer []byte, kind uint16) ([]syscall.NetlinkRouteAttr, error) {
	messages, err := syscall.ParseNetlinkMessage(answer)
	if err != nil || len(messages) == 0 || messages[0].Header.Type != kind {
		return nil, errNetlink
	}
	attrs, err := syscall.ParseNetlinkRouteAttr(&messages[0])
	if err != nil {
		return nil, errNetlink
	}
	return attrs, nil
}

// routeOf reads an RTM_NEWROUTE: device, kind, next hop and MTU.
func routeOf(answer []byte) (w kernelRoute, err error) {
	messages, err := syscall.ParseNetlinkMessage(answer)
	if err != nil || len(messages) == 0 || len(messages[0].Data) < unix.SizeofRtMsg {
		return w, errNetlink
	}
	w.kind = messages[0].Data[7] // rtm_type
	attrs, err := attributesOf(answer, unix.RTM_NEWROUTE)
	for _, a := range attrs {
		switch {
		case a.Attr.Type == unix.RTA_OIF && len(a.Value) == 4:
			w.index = binary.NativeEndian.Uint32(a.Value)
		case a.Attr.Type == unix.RTA_GATEWAY:
			w.nextHop, _ = netip.AddrFromSlice(a.Value)
		case a.Attr.Type == unix.RTA_METRICS:
			w.mtu = metricMTU(a.Value)
		}
	}
	return w, err
}

// metricMTU finds the MTU among the metrics of a route, which are attributes themselves; 0 = it has none.
func metricMTU(b []byte) int {
	for len(b) >= unix.SizeofRtAttr {
		n, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if n < unix.SizeofRtAttr || n > len(b) {
			return 0
		}
		if kind == unix.RTAX_MTU && n >= unix.SizeofRtAttr+4 {
			return int(binary.NativeEndian.Uint32(b[unix.SizeofRtAttr:]))
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return 0
}

// netDevice is a device of the kernel.
type netDevice struct {
	name  string
	below uint32 // index of the one that it stands on in this namespace, 0 = none
	mtu   int
}

// linkOf reads an RTM_NEWLINK.
func linkOf(answer []byte) (l netDevice, err error) {
	attrs, err := attributesOf(answer, unix.RTM_NEWLINK)
	elsewhere := false
	for _, a := range attrs {
		switch {
		case a.Attr.Type == unix.IFLA_IFNAME:
			l.name = unix.ByteSliceToString(a.Value)
		case a.Attr.Type == unix.IFLA_LINK && len(a.Value) == 4:
			l.below = binary.NativeEndian.Uint32(a.Value)
		case a.Attr.Type == unix.IFLA_MTU && len(a.Value) == 4:
			l.mtu = int(binary.NativeEndian.Uint32(a.Value))
		case a.Attr.Type == unix.IFLA_LINK_NETNSID:
			elsewhere = true
		}
	}
	if elsewhere {
		l.below = 0
	}
	if err == nil && l.name == "" {
		err = errNetlink
	}
	return l, err
}
