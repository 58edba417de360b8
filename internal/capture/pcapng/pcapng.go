// Package pcapng appends the blocks of pcapng files (draft-ietf-opsawg-pcapng) to bytes, and takes streams of them apart again. It knows
// Ethernet and nanoseconds, and does no I/O of its own.
//
// It is for the path of every packet that is captured: a block is appended to a buffer that its caller keeps, so that one write carries
// many, a ring in memory holds the very bytes that a file gets, and nothing is allocated. docs/dependencies.md has what a library costs
// there.
package pcapng

import (
	"encoding/binary"
	"time"
)

// Types of blocks.
const (
	TypeSection    = 0x0A0D0D0A
	TypeInterface  = 1
	TypeStatistics = 5
	TypePacket     = 6
)

// Options, and what is written for them.
const (
	optEnd     = 0
	optComment = 1

	optSectionOS          = 3
	optSectionApplication = 4

	optInterfaceName        = 2
	optInterfaceDescription = 3
	optInterfaceResolution  = 9
	nanoseconds             = 9 // 10^-9 s

	optPacketFlags     = 2
	optPacketDropCount = 4

	optStatisticsStart    = 2
	optStatisticsEnd      = 3
	optStatisticsReceived = 4
	optStatisticsDropped  = 5
)

const (
	byteOrderMagic   = 0x1A2B3C4D
	linkTypeEthernet = 1
	unknownLength    = ^uint64(0)
	maxOption        = 1<<16 - 1
)

var le = binary.LittleEndian

// begin starts a block; end, given what begin returned, finishes it.
func begin(b []byte, kind uint32) (out []byte, at int) {
	return le.AppendUint32(le.AppendUint32(b, kind), 0), len(b)
}

func end(b []byte, at int) []byte {
	length := uint32(len(b) - at + 4)
	le.PutUint32(b[at+4:], length)
	return le.AppendUint32(b, length)
}

// pad fills up what was appended since at, which is where something aligned begins, to 32 bits.
func pad(b []byte, at int) []byte {
	for (len(b)-at)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func option(b []byte, code uint16, length int) []byte {
	return le.AppendUint16(le.AppendUint16(b, code), uint16(length))
}

// text appends a text; none if it is empty.
func text(b []byte, code uint16, s string) []byte {
	if s == "" {
		return b
	}
	s = s[:min(len(s), maxOption)]
	b = option(b, code, len(s))
	return pad(append(b, s...), len(b))
}

func number(b []byte, code uint16, n uint64) []byte { return le.AppendUint64(option(b, code, 8), n) }

// stamp appends a time as blocks have it: the upper half first.
func stamp(b []byte, ns int64) []byte {
	return le.AppendUint32(le.AppendUint32(b, uint32(uint64(ns)>>32)), uint32(ns))
}

// AppendSection begins a section: interfaces are numbered from 0 again.
func AppendSection(b []byte, application, comment string) []byte {
	b, at := begin(b, TypeSection)
	b = le.AppendUint32(b, byteOrderMagic)
	b = le.AppendUint16(le.AppendUint16(b, 1), 0) // version 1.0
	b = le.AppendUint64(b, unknownLength)
	b = text(b, optComment, comment)
	b = text(b, optSectionOS, "Linux")
	b = text(b, optSectionApplication, application)
	return end(option(b, optEnd, 0), at)
}

// Interface is where packets were captured.
type Interface struct{ Name, Description, Comment string }

// AppendInterface describes the next interface of the section.
func AppendInterface(b []byte, i Interface) []byte {
	b, at := begin(b, TypeInterface)
	b = le.AppendUint16(le.AppendUint16(b, linkTypeEthernet), 0)
	b = le.AppendUint32(b, 0) // packets are not cut here
	b = text(b, optComment, i.Comment)
	b = text(b, optInterfaceName, i.Name)
	b = text(b, optInterfaceDescription, i.Description)
	b = append(option(b, optInterfaceResolution, 1), nanoseconds, 0, 0, 0)
	return end(option(b, optEnd, 0), at)
}

// Direction is which way a packet went, seen from its interface.
type Direction uint32

// The values of Direction, as epb_flags has them.
const (
	Unknown  Direction = 0
	Inbound  Direction = 1
	Outbound Direction = 2
)

// Packet is one of an interface.
type Packet struct {
	Interface uint32
	Time      int64 // ns since 1970
	Length    int   // bytes on the wire, of which Data are the first
	Data      []byte
	Direction Direction
	// Drops is how many packets were lost before this one, since the last one of the interface.
	Drops   uint64
	Comment string
}

// AppendPacket appends an enhanced packet block.
func AppendPacket(b []byte, p *Packet) []byte {
	b, at := begin(b, TypePacket)
	b = le.AppendUint32(b, p.Interface)
	b = stamp(b, p.Time)
	b = le.AppendUint32(le.AppendUint32(b, uint32(len(p.Data))), uint32(max(p.Length, len(p.Data))))
	b = pad(append(b, p.Data...), at)
	b = text(b, optComment, p.Comment)
	if p.Direction != Unknown {
		b = le.AppendUint32(option(b, optPacketFlags, 4), uint32(p.Direction))
	}
	if p.Drops > 0 {
		b = number(b, optPacketDropCount, p.Drops)
	}
	return end(option(b, optEnd, 0), at)
}

// Statistics is what was counted at an interface.
type Statistics struct {
	Start, End        time.Time
	Received, Dropped uint64 // what was dropped is not in what was received
}

// AppendStatistics tells of an interface, usually at the end.
func AppendStatistics(b []byte, iface uint32, s Statistics) []byte {
	b, at := begin(b, TypeStatistics)
	b = le.AppendUint32(b, iface)
	b = stamp(b, s.End.UnixNano())
	b = stamp(option(b, optStatisticsStart, 8), s.Start.UnixNano())
	b = stamp(option(b, optStatisticsEnd, 8), s.End.UnixNano())
	b = number(b, optStatisticsReceived, s.Received+s.Dropped)
	b = number(b, optStatisticsDropped, s.Dropped)
	return end(option(b, optEnd, 0), at)
}

// MaxStatistics is the most that AppendStatistics appends, in bytes.
const MaxStatistics = 80
