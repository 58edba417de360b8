package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Frame is one captured frame.
type Frame struct {
	At   time.Time
	Data []byte
}

// Capture captures every frame that a device receives, as a monitoring tool would.
type Capture struct {
	fd     int
	mu     sync.Mutex
	frames []Frame
	done   chan struct{}
}

// Capture opens a capture on a device of the namespace. Frames that the device sends itself are left out.
func (l *Lab) Capture(ns NS, device string) (*Capture, error) {
	c := &Capture{done: make(chan struct{})}
	err := ns.Do(func() error {
		ifi, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		all := int(binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff}))
		if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		// The timeout lets Close end the reader, which a close of the descriptor alone does not.
		if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50000}); err != nil {
			return err
		}
		// Without auxiliary data the kernel hands VLAN tags over out of band and the frame looks untagged.
		if err := unix.SetsockoptInt(c.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
			return err
		}
		return unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: ifi.Index})
	})
	if err != nil {
		return nil, fmt.Errorf("capture on %s: %w", device, err)
	}
	stop := make(chan struct{})
	go c.read(stop)
	l.onClose(sync.OnceValue(func() error {
		close(stop)
		<-c.done
		return unix.Close(c.fd)
	}))
	return c, nil
}

func (c *Capture) read(stop chan struct{}) {
	defer close(c.done)
	buf, oob := make([]byte, 65536), make([]byte, 256)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, oobn, _, from, err := unix.Recvmsg(c.fd, buf, oob, 0)
		// A device that was not up yet when the socket was bound says so once.
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENETDOWN) {
			continue
		}
		if err != nil {
			return
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		data := slices.Clone(buf[:n])
		if tci, ok := vlanTCI(oob[:oobn]); ok && n >= 12 {
			data = slices.Concat(buf[:12], []byte{0x81, 0, byte(tci >> 8), byte(tci)}, buf[12:n])
		}
		c.mu.Lock()
		c.frames = append(c.frames, Frame{time.Now(), data})
		c.mu.Unlock()
	}
}

// vlanTCI finds the tag in a tpacket_auxdata control message (packet(7)).
func vlanTCI(oob []byte) (uint16, bool) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, false
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 20 {
			status := binary.NativeEndian.Uint32(m.Data)
			return binary.NativeEndian.Uint16(m.Data[16:]), status&unix.TP_STATUS_VLAN_VALID != 0
		}
	}
	return 0, false
}

// Frames returns what came so far and matches keep (nil = everything).
func (c *Capture) Frames(keep func(Frame) bool) []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Frame
	for _, f := range c.frames {
		if keep == nil || keep(f) {
			out = append(out, f)
		}
	}
	return out
}

// ICMP keeps ICMP and ICMPv6 echo requests and replies, tagged or not.
func ICMP(f Frame) bool {
	d := f.Data
	if len(d) < 14 {
		return false
	}
	l3 := d[14:]
	etherType := binary.BigEndian.Uint16(d[12:])
	if etherType == 0x8100 && len(d) >= 18 {
		etherType, l3 = binary.BigEndian.Uint16(d[16:]), d[18:]
	}
	switch {
	case etherType == 0x0800 && len(l3) >= 21 && l3[9] == 1:
		t := l3[int(l3[0]&15)*4]
		return t == 0 || t == 8
	case etherType == 0x86dd && len(l3) >= 41 && l3[6] == 58:
		return l3[40] == 128 || l3[40] == 129
	}
	return false
}
