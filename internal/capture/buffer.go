package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapwall/tapwall/internal/capture/pcapng"
)

// ErrEvicted says that packets fell to the bounds of a buffer before they could be read; match with errors.Is.
var ErrEvicted = errors.New("packets fell to the bounds of the buffer before they were read")

// Buffer keeps the last packets in memory, outside of Go's heap: blocks one behind the other in a ring of a fixed size, of which the system
// gives what is used. Packets go when they are older than the newest by more than the age, or when there is no room. When the capture ends
// they stay, and another one can go on with it. All methods are safe for concurrent use.
type Buffer struct {
	age time.Duration // 0 = as old as they like

	mu     sync.Mutex
	memory []byte // nil = freed
	// Positions count all bytes ever, so that block p is at p % len(memory). Where a block would not fit in front of the end there is padding.
	head, tail uint64
	packets    uint64
	evicted    uint64
	newest     int64
	parts      []part
	writing    *encoder // that the last part is of
	more       chan struct{}
	err        error // why there is no memory
}

// part is the packets from one position on that have numbers of interfaces in common.
type part struct {
	start   uint64
	section []byte // and its interfaces
	told    int    // how many
}

// padding is the kind of block that stands where nothing else fits; pcapng has none of this kind.
const padding = 0

// piece is how much is copied at once while the capture waits.
const piece = 256 << 10

// NewBuffer makes a buffer of size bytes, of which memory is taken when it is needed; if the system gives none, the capture says so.
// age 0 = packets may be as old as they like.
func NewBuffer(age time.Duration, size int64) *Buffer {
	b := &Buffer{age: age, more: make(chan struct{})}
	memory, err := unix.Mmap(-1, 0, int(size&^3), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		b.err = fmt.Errorf("a buffer of %d bytes: %w", size, err)
		return b
	}
	b.memory = memory
	return b
}

// Free gives the memory back. What is read then is nothing.
func (b *Buffer) Free() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	memory := b.memory
	b.memory, b.parts, b.writing = nil, nil, nil
	b.head, b.packets = b.tail, 0
	b.wake()
	if memory == nil {
		return nil
	}
	return unix.Munmap(memory)
}

// wake tells who follows; mu is held.
func (b *Buffer) wake() {
	close(b.more)
	b.more = make(chan struct{})
}

func (b *Buffer) keep(in *batch) (lost int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.memory == nil {
		return in.packets
	}
	b.describe(in.encoder)
	for blocks := in.blocks; ; {
		_, block, rest, ok := pcapng.Cut(blocks)
		if !ok {
			break
		}
		if len(block) > len(b.memory) {
			lost++
		} else {
			b.append(block)
		}
		blocks = rest
	}
	b.newest = max(b.newest, in.newest)
	b.expire(b.newest)
	b.wake()
	return lost
}

// describe notes the interfaces of packets that come.
func (b *Buffer) describe(e *encoder) {
	if b.writing != e {
		b.writing = e
		b.parts = append(b.parts, part{start: b.tail, section: e.appendSection(nil), told: len(e.interfaces)})
		return
	}
	if p := &b.parts[len(b.parts)-1]; p.told < len(e.interfaces) {
		// What is being read has the old one.
		p.section = append(p.section[:len(p.section):len(p.section)], e.appendInterfaces(nil, p.told)...)
		p.told = len(e.interfaces)
	}
}

// append puts a block behind the last one, and takes away what is in its place.
func (b *Buffer) append(block []byte) {
	size := uint64(len(b.memory))
	at := b.tail % size
	if room := size - at; room < uint64(len(block)) {
		b.room(room)
		binary.LittleEndian.PutUint32(b.memory[at:], padding)
		b.tail += room
		at = 0
	}
	b.room(uint64(len(block)))
	copy(b.memory[at:], block)
	b.tail += uint64(len(block))
	b.packets++
}

// room takes packets away until n bytes are free.
func (b *Buffer) room(n uint64) {
	for b.tail+n-b.head > uint64(len(b.memory)) {
		b.evict()
	}
}

// at returns the block at a position before the tail, and the position of the next one; nil = there is padding.
func (b *Buffer) at(pos uint64) (block []byte, next uint64) {
	size := uint64(len(b.memory))
	left := b.memory[pos%size:]
	if binary.LittleEndian.Uint32(left) == padding {
		return nil, pos + uint64(len(left))
	}
	n := uint64(binary.LittleEndian.Uint32(left[4:]))
	return left[:n], pos + n
}

// evict takes the oldest packet away.
func (b *Buffer) evict() {
	block, next := b.at(b.head)
	b.head = next
	if block != nil {
		b.packets--
		b.evicted++
	}
	for len(b.parts) > 1 && b.parts[1].start <= b.head {
		b.parts = b.parts[1:]
	}
}

// expire takes away what is too old at a time.
func (b *Buffer) expire(now int64) {
	if b.age == 0 || b.memory == nil {
		return
	}
	for b.head < b.tail {
		if block, _ := b.at(b.head); block != nil && pcapng.TimeOf(block) >= now-int64(b.age) {
			return
		}
		b.evict()
	}
}

func (b *Buffer) tick(*encoder) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expire(time.Now().UnixNano())
}

func (b *Buffer) end(*encoder) {}

func (b *Buffer) report(s *Stats) { b.Held(s) }

// Held says in s what it holds now.
func (b *Buffer) Held(s *Stats) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		s.Failing = b.err.Error()
	}
	s.Held, s.HeldSize, s.Evicted = b.packets, b.tail-b.head, b.evicted
	s.Oldest = time.Time{}
	for pos := b.head; pos < b.tail; {
		var block []byte
		if block, pos = b.at(pos); block != nil {
			s.Oldest = time.Unix(0, pcapng.TimeOf(block))
			break
		}
	}
	if b.packets > 0 && s.Newest.IsZero() {
		s.Newest = time.Unix(0, b.newest)
	}
}

// Save writes the packets between two times, both inclusive and zero = open, as a pcapng stream, the oldest first and at most so many; 0 =
// all. Packets that come meanwhile are not in it, and are not held up. The error matches ErrEvicted if some of them had to go first, or is
// that of w.
func (b *Buffer) Save(w io.Writer, since, until time.Time, packets int) error {
	r, err := b.reader(w, since, until, packets)
	if err != nil {
		return err
	}
	b.mu.Lock()
	end := b.tail
	b.mu.Unlock()
	_, err = r.upTo(end)
	return err
}

// Follow is Save that goes on with packets as they come, at most so many (0 = as many as there are), until ctx ends or the buffer is freed.
func (b *Buffer) Follow(ctx context.Context, w io.Writer, since time.Time, packets int) error {
	r, err := b.reader(w, since, time.Time{}, packets)
	if err != nil {
		return err
	}
	for {
		b.mu.Lock()
		end, wait, freed := b.tail, b.more, b.memory == nil
		b.mu.Unlock()
		if done, err := r.upTo(end); err != nil || done || freed {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wait:
		}
	}
}

// reader reads a buffer for one who writes it somewhere.
type reader struct {
	b            *Buffer
	w            io.Writer
	pos          uint64
	since, until time.Time
	left         int // packets, if they are bounded
	bounded      bool
	section      []byte // that was written last, as it was
	buf          []byte
}

// reader begins to read, and writes a section, so that there is one if there are no packets. packets 0 = as many as there are.
func (b *Buffer) reader(w io.Writer, since, until time.Time, packets int) (*reader, error) {
	b.mu.Lock()
	r := &reader{b: b, w: w, pos: b.head, since: since, until: until, left: packets, bounded: packets > 0}
	r.buf = r.describe(r.buf)
	b.mu.Unlock()
	if len(r.buf) == 0 {
		r.buf = pcapng.AppendSection(r.buf, "tapwall", "")
	}
	_, err := w.Write(r.buf)
	return r, err
}

// upTo writes the packets before end; done: those that were asked for are written.
func (r *reader) upTo(end uint64) (done bool, err error) {
	for more := true; more && !done && err == nil; done = r.bounded && r.left == 0 {
		more, err = r.piece(end)
	}
	return done, err
}

// describe appends the section that the packets at the position are of, or what is new of it; mu is held.
func (r *reader) describe(b []byte) []byte {
	var section []byte
	for _, p := range r.b.parts {
		if p.start > r.pos {
			break
		}
		section = p.section
	}
	old := r.section
	r.section = section
	if len(section) >= len(old) && len(old) > 0 && &section[0] == &old[0] || string(old) == string(section[:min(len(old), len(section))]) {
		return append(b, section[len(old):]...)
	}
	return append(b, section...)
}

// piece writes the next packets before end, and returns whether there may be more.
func (r *reader) piece(end uint64) (more bool, err error) {
	b := r.b
	b.mu.Lock()
	if b.memory == nil {
		b.mu.Unlock()
		return false, nil
	}
	if r.pos < b.head && b.head <= b.tail {
		err = ErrEvicted
	}
	r.buf = r.buf[:0]
	for err == nil && r.pos < min(end, b.tail) && len(r.buf) < piece && (!r.bounded || r.left > 0) {
		r.buf = r.describe(r.buf)
		var block []byte
		if block, r.pos = b.at(r.pos); block == nil {
			continue
		}
		if at := time.Unix(0, pcapng.TimeOf(block)); at.Before(r.since) || !r.until.IsZero() && at.After(r.until) {
			continue
		}
		r.left--
		r.buf = append(r.buf, block...)
	}
	more = err == nil && r.pos < min(end, b.tail)
	b.mu.Unlock()
	if len(r.buf) > 0 {
		_, err = r.w.Write(r.buf)
	}
	return more, err
}
