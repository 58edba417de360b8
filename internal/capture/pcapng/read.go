package pcapng

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// maxBlock bounds what is taken for a block: the longest frame with more options than tapwall writes.
const maxBlock = 1 << 20

// headerLen is that of a block's type and length, and minBlock the length of an empty one.
const (
	headerLen = 8
	minBlock  = 12
)

// ErrCorrupt says that what was read is no block.
var ErrCorrupt = errors.New("not a pcapng block")

// Cut returns the first block of b, with its type, and what follows it; ok is false if there is no whole one.
func Cut(b []byte) (kind uint32, block, rest []byte, ok bool) {
	if len(b) < minBlock {
		return 0, nil, b, false
	}
	n := le.Uint32(b[4:])
	if n < minBlock || n%4 != 0 || uint64(n) > uint64(len(b)) {
		return 0, nil, b, false
	}
	return le.Uint32(b), b[:n], b[n:], true
}

// packetHead is the length of what precedes the data of an enhanced packet block.
const packetHead = 28

// TimeOf returns when the packet of an enhanced packet block was captured, in ns since 1970.
func TimeOf(block []byte) int64 {
	if len(block) < packetHead {
		return 0
	}
	return int64(uint64(le.Uint32(block[12:]))<<32 | uint64(le.Uint32(block[16:])))
}

// InterfaceOf returns the number of the interface of an enhanced packet block.
func InterfaceOf(block []byte) uint32 {
	if len(block) < packetHead {
		return 0
	}
	return le.Uint32(block[8:])
}

// DropCountOf returns how many packets were lost since the one before, as an enhanced packet block tells of its own interface.
func DropCountOf(block []byte) (n uint64) {
	if len(block) < packetHead+4 {
		return 0
	}
	last := uint64(len(block) - 4) // the length, again
	captured := uint64(le.Uint32(block[20:]))
	for at := packetHead + (captured+3)&^3; at+4 <= last; {
		code, size := le.Uint16(block[at:]), uint64(le.Uint16(block[at+2:]))
		at += 4
		if code == optEnd || at+size > last {
			break
		}
		if code == optPacketDropCount && size == 8 {
			n += le.Uint64(block[at:])
		}
		at += (size + 3) &^ 3
	}
	return n
}

// Reader takes a stream apart into whole blocks, which it does not look into.
type Reader struct {
	r   *bufio.Reader
	buf []byte
}

// NewReader reads from r.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 1<<18)} }

// Next returns the next block and its type. The block is good until the next call. io.EOF: there are no more; io.ErrUnexpectedEOF: the last
// one is not whole.
func (r *Reader) Next() (kind uint32, block []byte, err error) {
	head, err := r.r.Peek(headerLen)
	if err != nil {
		if err == io.EOF && len(head) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	kind, n := le.Uint32(head), le.Uint32(head[4:])
	if n < minBlock || n%4 != 0 || n > maxBlock {
		return 0, nil, fmt.Errorf("%w: a length of %d bytes", ErrCorrupt, n)
	}
	if int(n) > cap(r.buf) {
		r.buf = make([]byte, n)
	}
	r.buf = r.buf[:n]
	if _, err := io.ReadFull(r.r, r.buf); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	if last := le.Uint32(r.buf[n-4:]); last != n {
		return 0, nil, fmt.Errorf("%w: lengths of %d and %d bytes", ErrCorrupt, n, last)
	}
	return kind, r.buf, nil
}

// Buffered reports whether a next block has come already, at least in part.
func (r *Reader) Buffered() bool { return r.r.Buffered() > 0 }
