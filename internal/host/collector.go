package host

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/policy/compile/tap"
)

// That a collector can be reached shows in the kernel's neighbour table: Open vSwitch counts copies as sent whether its address is resolved
// or not. The kernel resolves what somebody sends to; nobody may send there but Open vSwitch, whose own table for the userspace datapath
// says nothing before the first copy. So the kernel is asked to resolve it, by ARP or neighbour discovery, as often as routes are looked
// at, and once more when the tunnel stands: the answer, which passes the bridge, is Open vSwitch's as well then, so the first copies need
// not wait.

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

// greeting is how long rows wait for collectors that are new to say who they are, and as long for the switch to look at answers.
const greeting = 200 * time.Millisecond

// greetCollectors asks the collectors of tunnels that have been made, and are not among met, for their addresses, and adds them there. What
// the switch has cached from before the tunnel would have it overlook the answers.
func (e *Engine) greetCollectors(ctx context.Context, d *ovsdb.Desired, met map[netip.Addr]bool) {
	if !e.local() {
		return
	}
	remotes := map[netip.Addr]bool{}
	add := func(options map[string]string) {
		if remote, err := netip.ParseAddr(options["remote_ip"]); err == nil {
			remotes[remote] = true
		}
	}
	for i := range d.Mirrors {
		add(d.Mirrors[i].Output.Options)
	}
	for i := range d.Ports {
		add(d.Ports[i].Options)
	}
	maps.DeleteFunc(met, func(remote netip.Addr, _ bool) bool { return !remotes[remote] })
	maps.DeleteFunc(remotes, func(remote netip.Addr, _ bool) bool { return met[remote] })
	if len(remotes) == 0 {
		return
	}
	maps.Copy(met, remotes)
	ask := func(within time.Duration) error {
		caches, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		followed := e.Effective(caches)
		answers, cancel := context.WithTimeout(ctx, greeting)
		defer cancel()
		var all sync.WaitGroup
		for remote := range remotes {
			all.Go(func() {
				if err := meet(answers, remote); err != nil {
					e.log.Debug("the first copies may wait for the collector", "collector", remote, "err", err)
				}
			})
		}
		all.Wait()
		return followed
	}
	if ask(greeting) != nil { // a busy switch
		e.tasks.Go(func() { _ = ask(10 * time.Second) })
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
func ndmsg(index uint32, addr netip.Addr, state uint16, flags uint8) []byte {
	family := uint8(unix.AF_INET)
	if addr.Is6() {
		family = unix.AF_INET6
	}
	body := binary.NativeEndian.AppendUint32([]byte{family, 0, 0, 0}, index)
	body = binary.NativeEndian.AppendUint16(body, state)
	body = append(body, flags, 0) // and the type
	return append(body, attribute(unix.NDA_DST, addr.AsSlice())...)
}

// askNeighbour returns the state of the kernel's entry for an address, as NUD_… bits; unix.ENOENT = there is none.
func askNeighbour(index uint32, addr netip.Addr) (uint16, error) {
	answer, err := askKernel(unix.RTM_GETNEIGH, 0, ndmsg(index, addr, 0, 0))
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
	_, err := askKernel(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_ACK, ndmsg(index, addr, 0, unix.NTF_USE))
	return err
}

// meet asks who has the address of the next hop to a collector, by ARP or neighbour discovery, and waits for the answer until ctx ends. It
// is the kernel that asks, for an entry which it knows as it does for one that it has not heard of for long: copies go on meanwhile. A
// neighbour of whom nobody is asked, as of a static entry, is there.
func meet(ctx context.Context, collector netip.Addr) error {
	way, err := wayTo(collector)
	if err != nil {
		return err
	}
	if way.index == 0 {
		return errors.New("there is no route to it")
	}
	state, err := askNeighbour(way.index, way.nextHop)
	switch {
	case err != nil && !errors.Is(err, unix.ENOENT):
		return err
	case state&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0:
		return nil
	case state&(unix.NUD_REACHABLE|unix.NUD_STALE|unix.NUD_DELAY) != 0:
		_, err = askKernel(unix.RTM_NEWNEIGH, unix.NLM_F_REPLACE|unix.NLM_F_ACK, ndmsg(way.index, way.nextHop, unix.NUD_PROBE, 0))
	case state&unix.NUD_PROBE != 0:
		err = nil // it is being asked
	default:
		err = resolveNeighbour(way.index, way.nextHop)
	}
	for err == nil {
		if !pause(ctx, neighbourLook) {
			return errors.New(way.silent(collector))
		}
		if state, err = askNeighbour(way.index, way.nextHop); state&unix.NUD_REACHABLE != 0 {
			return nil
		}
	}
	return err
}

// neighbourLook is how often it is looked whether a neighbour has answered.
const neighbourLook = 10 * time.Millisecond
