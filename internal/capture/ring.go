// Package capture reads what network devices receive, by AF_PACKET rings, and keeps it: in pcapng files, in memory, or for who listens. It
// knows devices and the names of what sends and receives there, and nothing of mirrors.
//
// Each capture has a ring of its own in the kernel, which is its queue: whoever is too slow, a disk or a client, loses packets of his own
// and holds up nobody. The kernel counts them, and they are told where packets are missing.
package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The size of a ring. A block is handed over when it is full or blockTimeout has passed since its first packet; the largest packet fits
// into one.
const (
	blockSize    = 1 << 18
	blocks       = 16
	blockTimeout = 50 * time.Millisecond
)

// ringMemory is what a ring takes, in bytes.
const ringMemory = blockSize * blocks

// frame is one that a device received. Its data are those of the ring.
type frame struct {
	time   int64 // when the kernel got it, ns since 1970
	length int   // on the wire; data may be cut
	data   []byte
	tag    uint32 // the VLAN tag that the kernel keeps beside the data, TPID above TCI; 0 = none
}

// ring is a TPACKET_V3 ring of a device. It is for one goroutine, but for interrupt.
type ring struct {
	device string
	index  int // of the device
	file   *os.File
	conn   syscall.RawConn
	memory []byte
	next   int // block
}

// errDown says that the device is down or gone: nothing comes while it is.
var errDown = errors.New("the device is down or gone")

// openRing begins to capture what a device receives, whoever it is for. What it sends itself is left out.
func openRing(device string) (r *ring, err error) {
	index, _, err := find(device)
	if err != nil {
		return nil, err
	}
	// Protocol 0: nothing is received before the socket is bound to the device.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	set := func(what string, e error) {
		if err == nil && e != nil {
			err = fmt.Errorf("device %s: %w", device, os.NewSyscallError(what, e))
		}
	}
	set("PACKET_VERSION", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3))
	set("PACKET_IGNORE_OUTGOING", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
	set("PACKET_RX_RING", unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq3{Block_size: blockSize,
		Block_nr: blocks, Frame_size: blockSize, Frame_nr: blocks, Retire_blk_tov: uint32(blockTimeout / time.Millisecond)}))
	if err != nil {
		return nil, err
	}
	r = &ring{device: device, index: index}
	if r.memory, err = unix.Mmap(fd, 0, ringMemory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	set("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: index}))
	set("PACKET_ADD_MEMBERSHIP", unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
		&unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}))
	if err != nil {
		_ = unix.Munmap(r.memory)
		return nil, err
	}
	r.file = os.NewFile(uintptr(fd), "packets of "+device)
	if r.conn, err = r.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func htons(n uint16) uint16 { return binary.NativeEndian.Uint16([]byte{byte(n >> 8), byte(n)}) }

// wait returns when there is a block to be had (nil), until has come (os.ErrDeadlineExceeded), ctx has ended and the ring was interrupted
// for that, or the device is not up (errDown).
func (r *ring) wait(ctx context.Context, until time.Time) error {
	if err := r.file.SetReadDeadline(until); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err() // else the interruption would come behind the new deadline
	}
	var trouble error
	err := r.conn.Read(func(fd uintptr) bool {
		if r.ready() {
			return true
		}
		// The kernel reports once that the device went down, and goes on if it comes up again under the same number.
		if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && n != 0 {
			trouble = fmt.Errorf("%w: %w", errDown, unix.Errno(n))
		}
		return trouble != nil
	})
	return errors.Join(err, trouble)
}

// status is the word by which the kernel and we hand a block to each other.
func (r *ring) status() *uint32 {
	desc := (*unix.TpacketBlockDesc)(unsafe.Pointer(&r.memory[r.next*blockSize]))
	return (*uint32)(unsafe.Pointer(&desc.Hdr[0]))
}

func (r *ring) ready() bool { return atomic.LoadUint32(r.status())&unix.TP_STATUS_USER != 0 }

// take calls f with each frame of the next block, if it is there, and gives the block back. It returns whether there was one.
func (r *ring) take(f func(frame)) bool {
	if !r.ready() {
		return false
	}
	walk(r.memory[r.next*blockSize:(r.next+1)*blockSize], f)
	atomic.StoreUint32(r.status(), unix.TP_STATUS_KERNEL)
	r.next = (r.next + 1) % blocks
	return true
}

// Offsets in a block's header (struct tpacket_block_desc with tpacket_hdr_v1) and in a packet's (struct tpacket3_hdr), which are followed
// by what they describe.
const (
	blockPackets = 12
	blockFirst   = 16

	packetNext    = 0
	packetSec     = 4
	packetNsec    = 8
	packetSnaplen = 12
	packetLen     = 16
	packetStatus  = 20
	packetMAC     = 24
	packetTCI     = 32
	packetTPID    = 36
	packetHeader  = 48
)

// walk calls f with each frame of a block. What does not fit into the block ends it.
func walk(block []byte, f func(frame)) {
	word := func(b []byte, at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	at := uint64(word(block, blockFirst))
	for range word(block, blockPackets) {
		if at+packetHeader > uint64(len(block)) {
			return
		}
		p := block[at:]
		mac, snaplen := uint64(binary.NativeEndian.Uint16(p[packetMAC:])), uint64(word(p, packetSnaplen))
		if mac+snaplen > uint64(len(p)) {
			return
		}
		fr := frame{time: int64(word(p, packetSec))*1e9 + int64(word(p, packetNsec)), length: int(word(p, packetLen)),
			data: p[mac : mac+snaplen : mac+snaplen]}
		if s := word(p, packetStatus); s&unix.TP_STATUS_VLAN_VALID != 0 {
			tpid := uint32(unix.ETH_P_8021Q)
			if s&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
				tpid = uint32(binary.NativeEndian.Uint16(p[packetTPID:]))
			}
			fr.tag = tpid<<16 | word(p, packetTCI)&0xffff
		}
		f(fr)
		next := uint64(word(p, packetNext))
		if next == 0 {
			return
		}
		at += next
	}
}

// drops returns how many packets the kernel had no room for since the last call.
func (r *ring) drops() (uint64, error) {
	var stats *unix.TpacketStatsV3
	var err error
	e := r.conn.Control(func(fd uintptr) {
		stats, err = unix.GetsockoptTpacketStatsV3(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	})
	if err = errors.Join(e, os.NewSyscallError("PACKET_STATISTICS", err)); err != nil {
		return 0, err
	}
	return uint64(stats.Drops), nil
}

// up reports whether the device is up again; err: it is not the one that was opened any more.
func (r *ring) up() (up bool, err error) {
	index, up, err := find(r.device)
	if err == nil && index != r.index {
		err = fmt.Errorf("%w: device %s is another one now", errDown, r.device)
	}
	return up, err
}

// find returns the number of a device, and whether it is up.
func find(device string) (index int, up bool, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, false, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(device)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req)
		index = int(req.Uint32())
	}
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req)
		up = req.Uint16()&unix.IFF_UP != 0
	}
	if err != nil {
		return 0, false, fmt.Errorf("%w: device %s: %w", errDown, device, err)
	}
	return index, up, nil
}

// interrupt makes wait return.
func (r *ring) interrupt() { _ = r.file.SetReadDeadline(time.Unix(1, 0)) }

func (r *ring) close() error {
	return errors.Join(r.file.Close(), unix.Munmap(r.memory))
}
