package host

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/pipeline"
	"github.com/tapwall/tapwall/policy"
)

// A sender whose network device computes checksums leaves them unfinished. Over a veth or tap no device ever finishes them, and
// conntrack of the userspace datapath, which checks them, takes every TCP and UDP packet for invalid: the user sees time-outs. The
// setting is at the sender's end, in a guest or another namespace, and cannot be read from here. But the kernel says of each frame that
// a packet socket receives whether its checksum is unfinished (TP_STATUS_CSUMNOTREADY in packet(7)), so while the bridge drops packets
// as invalid, a few frames of each of its devices are looked at.

// WarnChecksums is the code of the warning about a port whose sender leaves checksums unfinished.
const WarnChecksums policy.Code = "CHECKSUM_OFFLOAD"

// What looking may cost: every checksumsEvery one request for a few counters; only when that grew, or to see whether a known port has been
// put right, packet sockets on so many devices, in turn, for so long and so many frames of each.
const (
	checksumsEvery   = 3 * time.Second
	checksumsTime    = 2 * time.Second
	checksumsDevices = 64
	checksumsFrames  = 256
)

// watchChecksums looks after the devices of an owned bridge on the userspace datapath until ctx ends.
func (e *Engine) watchChecksums(ctx context.Context, l *link) {
	if !e.local() {
		return
	}
	var dropped uint64
	var turn int // which devices are next
	known := false
	unfinished := map[string]bool{} // by port
	logged := false
	tick := time.NewTicker(checksumsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n, err := l.invalid(ctx)
		if err != nil {
			known = false
			continue
		}
		grew := known && n > dropped
		dropped, known = n, true
		devices := e.devices(l.cfg.Name)
		maps.DeleteFunc(unfinished, func(port string, _ bool) bool { return !slices.Contains(devices, port) })
		look := slices.Sorted(maps.Keys(unfinished))
		if grew {
			for range min(len(devices), checksumsDevices) {
				look = append(look, devices[turn%len(devices)])
				turn++
			}
		}
		if len(look) > 0 {
			seen, err := lookAtChecksums(ctx, look)
			if err != nil && !logged {
				logged = true
				e.log.Warn("cannot see which ports leave checksums unfinished", "bridge", l.cfg.Name, "err", err)
			}
			for port, s := range seen {
				if s.unfinished && grew {
					unfinished[port] = true
				} else if s.finished && !s.unfinished {
					delete(unfinished, port)
				}
			}
		}
		ports := slices.Sorted(maps.Keys(unfinished))
		if before := l.unfinished.Swap(&ports); before == nil && len(ports) > 0 || before != nil && !slices.Equal(*before, ports) {
			e.poke()
		}
	}
}

// invalid reads how many packets were dropped as invalid or out of state: a wrong checksum makes a packet either.
func (l *link) invalid(ctx context.Context) (n uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, checksumsEvery)
	defer cancel()
	drops := pipeline.NewCookie(pipeline.CookieDrop, 0)
	filter := ofp.FlowFilter{Table: pipeline.TableState, Cookie: uint64(drops), CookieMask: ^uint64(0xffffffff)}
	err = l.sw.EachFlow(ctx, filter, func(f *ofp.FlowStats) { n += f.Stats.Packets })
	return n, err
}

// devices lists the ports of a bridge on the userspace datapath that are devices of the system.
func (e *Engine) devices(bridge string) []string {
	v := e.view.Load()
	if v.topo == nil {
		return nil
	}
	br := v.topo.Bridges[bridge]
	if br == nil || br.DatapathType != "netdev" {
		return nil
	}
	var out []string
	for _, p := range v.inventory.On(v.topo.Host, bridge) {
		for _, i := range p.Interfaces {
			if i.System && i.HasDevice {
				out = append(out, i.Name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// checksumWarnings are those about the ports that were found on a bridge.
func (w *firewall) checksumWarnings() []policy.Warning {
	ports := w.unfinished.Load()
	if ports == nil {
		return nil
	}
	var out []policy.Warning
	for _, port := range *ports {
		x := policy.Warning{Code: WarnChecksums,
			Message: fmt.Sprintf("the sender behind port %s of bridge %s leaves the checksums of its TCP and UDP packets to "+
				"its network device, which never finishes them, so conntrack drops them as invalid; in the guest or namespace at the other end of "+
				"%s run: "+
				"ethtool -K DEVICE tx off (DEVICE is that end, such as eth0; ethtool -K %s tx off on this one does not help)", port, w.cfg.Name, port,
				port)}
		for _, ep := range w.e.inventory.Workloads {
			if ep.Bridge == w.cfg.Name && ep.Port == port {
				x.Endpoint = ep.Key
			}
		}
		out = append(out, x)
	}
	return out
}

// checksums is what was seen of a device.
type checksums struct{ finished, unfinished bool }

// lookAtChecksums watches what devices of this network namespace receive, for a bounded time and number of frames. Devices that are not
// here are left out.
func lookAtChecksums(ctx context.Context, devices []string) (map[string]checksums, error) {
	seen := map[string]checksums{}
	var sockets []unix.PollFd
	var names []string
	defer func() {
		for _, s := range sockets {
			_ = unix.Close(int(s.Fd))
		}
	}()
	slices.Sort(devices)
	for _, name := range slices.Compact(devices) {
		fd, err := packetSocket(name)
		if err != nil {
			if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EMFILE) {
				return nil, err
			}
			continue
		}
		sockets, names = append(sockets, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}), append(names, name)
	}
	frames := make([]int, len(sockets))
	for end := time.Now().Add(checksumsTime); len(sockets) > 0 && ctx.Err() == nil && time.Now().Before(end); {
		if _, err := unix.Poll(sockets, 100); err != nil && !errors.Is(err, unix.EINTR) {
			return seen, err
		}
		for i := range sockets {
			if sockets[i].Revents == 0 {
				continue
			}
			s := seen[names[i]]
			for s.receive(int(sockets[i].Fd)) {
				if frames[i]++; frames[i] >= checksumsFrames {
					sockets[i].Events = 0 // enough of it
					break
				}
			}
			seen[names[i]] = s
		}
	}
	return seen, nil
}

// packetSocket opens a socket that gets a copy of what a device receives and sends.
func packetSocket(device string) (int, error) {
	ifi, err := net.InterfaceByName(device)
	if err != nil {
		return -1, err
	}
	// Without a protocol nothing comes before the socket is bound to its device.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifi.Index})
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// receive takes note of one frame; false = there is none. Only the head of a frame is copied.
func (c *checksums) receive(fd int) bool {
	var head [24]byte // Ethernet and an IP header as far as the protocol; a tag is in the auxiliary data
	var aux [128]byte
	n, auxLen, _, from, err := unix.Recvmsg(fd, head[:], aux[:], 0)
	if err != nil {
		return false
	}
	if ll, ok := from.(*unix.SockaddrLinklayer); n < len(head) || ok && ll.Pkttype == unix.PACKET_OUTGOING {
		return true
	}
	var proto byte
	switch binary.BigEndian.Uint16(head[12:]) {
	case pipeline.EthIPv4:
		proto = head[23]
	case pipeline.EthIPv6:
		proto = head[20]
	}
	msgs, err := unix.ParseSocketControlMessage(aux[:auxLen])
	if err != nil || proto != policy.ProtoTCP && proto != policy.ProtoUDP {
		return true
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 4 {
			if binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_CSUMNOTREADY != 0 {
				c.unfinished = true
			} else {
				c.finished = true
			}
		}
	}
	return true
}
