package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// Send puts frames on the VM's wire as they are.
func (vm *VM) Send(frames ...[]byte) error { return vm.SendAt("eth0", frames...) }

// SendAt puts frames on the wire at a device of the namespace.
func (ns NS) SendAt(device string, frames ...[]byte) error {
	return ns.Do(func() error {
		ifi, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, frame := range frames {
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Received is how many packets have come to the VM's eth0.
func (vm *VM) Received() (n int, err error) {
	err = vm.Do(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		_, counters, _ := strings.Cut(string(b), "eth0:")
		f := strings.Fields(counters)
		if len(f) < 2 {
			return errors.New("eth0 has no counters")
		}
		n, err = strconv.Atoi(f[1]) // bytes, packets, … (proc_pid_net(5))
		return err
	})
	return n, err
}

// SendTCP sends one TCP segment without a connection. flags are those of the TCP header (RFC 9293 §3.1), FIN being bit 0.
func (vm *VM) SendTCP(to *VM, srcPort, dstPort uint16, flags byte) error {
	frame, err := vm.CraftTCP(vm.IPv4, to, srcPort, dstPort, flags)
	if err != nil {
		return err
	}
	return vm.Send(frame)
}

// CraftTCP is the frame of SendTCP with an address that need not be the VM's.
func (vm *VM) CraftTCP(from string, to *VM, srcPort, dstPort uint16, flags byte) ([]byte, error) {
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.ParseIP(from), DstIP: net.ParseIP(to.IPv4)}
	tcp := &layers.TCP{SrcPort: layers.TCPPort(srcPort), DstPort: layers.TCPPort(dstPort), Seq: 1, Ack: 1, Window: 1024,
		FIN: flags&1 != 0, SYN: flags&2 != 0, RST: flags&4 != 0, PSH: flags&8 != 0, ACK: flags&16 != 0, URG: flags&32 != 0}
	return vm.frameTo(to, ip, tcp)
}

func (vm *VM) frameTo(to *VM, upper ...gopacket.SerializableLayer) ([]byte, error) {
	return CraftFrame(vm.MAC, to.MAC, layers.EthernetTypeIPv4, upper...)
}

// CraftFrame makes an untagged frame between two MAC addresses of the layers above Ethernet, with their lengths and checksums.
func CraftFrame(srcMAC, dstMAC string, t layers.EthernetType, upper ...gopacket.SerializableLayer) ([]byte, error) {
	src, err := net.ParseMAC(srcMAC)
	if err != nil {
		return nil, err
	}
	dst, err := net.ParseMAC(dstMAC)
	if err != nil {
		return nil, err
	}
	for i, l := range upper {
		ip, is := l.(gopacket.NetworkLayer)
		if next := i + 1; is && next < len(upper) {
			if c, has := upper[next].(interface {
				SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
			}); has {
				if err := c.SetNetworkLayerForChecksum(ip); err != nil {
					return nil, err
				}
			}
		}
	}
	buf := gopacket.NewSerializeBuffer()
	all := append([]gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: src, DstMAC: dst, EthernetType: t}}, upper...)
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		return nil, fmt.Errorf("craft a frame: %w", err)
	}
	return buf.Bytes(), nil
}

// TCPTo and UDPTo keep untagged IPv4 frames to a port.
func TCPTo(port uint16) func(Frame) bool { return toPort(6, port) }

// UDPTo is TCPTo for datagrams.
func UDPTo(port uint16) func(Frame) bool { return toPort(17, port) }

// TCPFrom keeps untagged IPv4 segments from a port.
func TCPFrom(port uint16) func(Frame) bool { return portAt(6, 0, port) }

// UDPFrom is TCPFrom for datagrams.
func UDPFrom(port uint16) func(Frame) bool { return portAt(17, 0, port) }

func toPort(proto byte, port uint16) func(Frame) bool { return portAt(proto, 2, port) }

func portAt(proto byte, offset int, port uint16) func(Frame) bool {
	return func(f Frame) bool {
		d := f.Data
		if len(d) < 34 || binary.BigEndian.Uint16(d[12:]) != 0x0800 || d[23] != proto {
			return false
		}
		l4 := 14 + int(d[14]&15)*4
		return len(d) >= l4+4 && binary.BigEndian.Uint16(d[l4+offset:]) == port
	}
}

// MaliciousFrames returns the frames that have ended or hung OpenFlow controllers: an IPv4 header length of 0 and of 15 words in a short
// packet, an IPv6 routing header cut short, a hop-by-hop header of length 255, and one with an option of length 254.
func (vm *VM) MaliciousFrames(to *VM) [][]byte {
	src, _ := net.ParseMAC(vm.MAC)
	dst, _ := net.ParseMAC(to.MAC)
	eth := func(etherType uint16, payload []byte) []byte {
		f := append(append([]byte{}, dst...), src...)
		f = binary.BigEndian.AppendUint16(f, etherType)
		f = append(f, payload...)
		for len(f) < 60 {
			f = append(f, 0)
		}
		return f
	}
	v4 := func(first byte) []byte {
		p := make([]byte, 24)
		p[0], p[3], p[8], p[9] = first, 24, 64, 17
		copy(p[12:], net.ParseIP(vm.IPv4).To4())
		copy(p[16:], net.ParseIP(to.IPv4).To4())
		return p
	}
	v6 := func(next byte, payload ...byte) []byte {
		p := make([]byte, 40, 48)
		p[0], p[5], p[6], p[7] = 0x60, byte(len(payload)), next, 64
		copy(p[8:], net.ParseIP(vm.IPv6))
		copy(p[24:], net.ParseIP(to.IPv6))
		return append(p, payload...)
	}
	return [][]byte{
		eth(0x0800, v4(0x40)), eth(0x0800, v4(0x4f)),
		eth(0x86dd, v6(43, 17, 4)),
		eth(0x86dd, v6(0, 17, 255, 1, 0, 0, 0, 0, 0)),
		eth(0x86dd, v6(0, 17, 0, 5, 254, 0, 0, 0, 0)),
	}
}
