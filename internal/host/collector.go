package host

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/policy/compile/tap"
)

// That a collector can be reached shows in the kernel's neighbour table: Open vSwitch counts copies as sent whether its address is resolved
// or not. The kernel resolves what somebody sends to; nobody may send there but Open vSwitch, whose own table for the userspace datapath
// says nothing before the first copy. So the kernel is asked to resolve it, by ARP or neighbour discovery, as often as routes are looked
// at. The answer, which passes the bridge, is Open vSwitch's as well, so the first copies need not wait.

// meetCollectors adds to routes whether the next hop to a collector answers. Where that is still open, it is as it was before.
func (e *Engine) meetCollectors(ways map[netip.Addr]kernelRoute, routes map[netip.Addr]tap.Route) {
	for remote, r := range routes {
		way := ways[remote]
		if r.Device == "" || r.Own != "" || way.index == 0 {
			continue
		}
		state, err := askNeighbour(way.index, way.nextHop)
		switch {
		case err != nil && !errors.Is(err, unix.ENOENT):
			e.log.Debug("whether a collector answers is not known", "collector", remote, "err", err)
			continue
		case state&unix.NUD_FAILED != 0:
			r.Fault = way.silent(remote)
		case state == unix.NUD_NONE || state&unix.NUD_INCOMPLETE != 0:
			if before := e.mirrors.routes[remote]; before.Device == r.Device {
				r.Fault = before.Fault
			}
		}
		routes[remote] = r
		if state&(unix.NUD_PERMANENT|unix.NUD_NOARP|unix.NUD_REACHABLE) == 0 {
			if err := resolveNeighbour(way.index, way.nextHop); err != nil {
				e.log.Debug("the kernel does not resolve the address of a collector", "collector", remote, "err", err)
			}
		}
	}
}

// silent says that nobody answers under the address of the next hop.
func (w *kernelRoute) silent(remote netip.Addr) string {
	asked := "ARP"
	if remote.Is6() {
		asked = "neighbour discovery"
	}
	who := "it"
	if w.nextHop != remote {
		who = "the router " + w.nextHop.String()
	}
	return who + " does not answer " + asked + " on device " + strconv.Quote(w.chain[0])
}

// ndmsg encodes struct ndmsg and the address (rtnetlink(7)).
func ndmsg(index uint32, addr netip.Addr, flags uint8) []byte {
	family := uint8(unix.AF_INET)
	if addr.Is6() {
		family = unix.AF_INET6
	}
	body := binary.NativeEndian.AppendUint32([]byte{family, 0, 0, 0}, index)
	body = append(body, 0, 0, flags, 0) // state, flags, type
	return append(body, attribute(unix.NDA_DST, addr.AsSlice())...)
}

// askNeighbour returns the state of the kernel's entry for an address, as NUD_… bits; unix.ENOENT = there is none.
func askNeighbour(index uint32, addr netip.Addr) (uint16, error) {
	answer, err := askKernel(unix.RTM_GETNEIGH, 0, ndmsg(index, addr, 0))
	if err != nil {
		return 0, err
	}
	return neighbourOf(answer)
}

// neighbourOf reads the state in an RTM_NEWNEIGH.
func neighbourOf(answer []byte) (uint16, error) {
	messages, err := syscall.ParseNetlinkMessage(answer)
	if err != nil || len(messages) == 0 || messages[0].Header.Type != unix.RTM_NEWNEIGH || len(messages[0].Data) < unix.SizeofNdMsg {
		return 0, errNetlink
	}
	return binary.NativeEndian.Uint16(messages[0].Data[8:]), nil
}

// resolveNeighbour has the kernel find out who has an address, as if somebody sent there. The entry goes as others do.
func resolveNeighbour(index uint32, addr netip.Addr) error {
	_, err := askKernel(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_ACK, slices.Clip(ndmsg(index, addr, unix.NTF_USE)))
	return err
}
