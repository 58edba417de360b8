package capture

import (
	"io"

	"github.com/tapwall/tapwall/internal/capture/pcapng"
)

// Stream is a Keeper that writes packets to somebody who follows them: the section at once, then packets as they come, in whole blocks. A
// writer that is slow holds up this capture alone, whose ring overflows then.
type Stream struct {
	w     io.Writer
	left  int    // packets to write, if it is bounded
	ended func() // called once
	told  int    // interfaces that were written
	buf   []byte
	done  bool // nothing more is written
	err   error
}

// NewStream writes to w, at most so many packets; 0 = as many as there are. ended is called from the capture's goroutine when that many
// were written, or w takes no more.
func NewStream(w io.Writer, packets int, ended func()) *Stream {
	s := &Stream{w: w, left: packets, ended: ended}
	if packets == 0 {
		s.left = -1
	}
	return s
}

// Err is why the writer took no more; nil = it did. It is for when the capture has ended.
func (s *Stream) Err() error { return s.err }

func (s *Stream) keep(b *batch) (lost int) {
	if s.done {
		return b.packets
	}
	blocks := b.blocks
	if s.left >= 0 {
		n := 0
		for ; s.left > 0; s.left-- {
			_, block, _, ok := pcapng.Cut(blocks[n:])
			if !ok {
				break
			}
			n += len(block)
		}
		blocks = blocks[:n]
	}
	s.tick(b.encoder) // the capture calls it first; this is for interfaces that are new
	out := blocks
	if s.told < len(b.interfaces) {
		s.buf = append(b.appendInterfaces(s.buf[:0], s.told), blocks...)
		s.told, out = len(b.interfaces), s.buf
	}
	s.write(out)
	if s.left == 0 {
		s.end(b.encoder)
	}
	return 0
}

// tick writes the section, the first time.
func (s *Stream) tick(e *encoder) {
	if s.told == 0 && !s.done {
		s.told = len(e.interfaces)
		s.write(e.appendSection(nil))
	}
}

func (s *Stream) write(b []byte) {
	if s.done {
		return
	}
	if _, s.err = s.w.Write(b); s.err != nil {
		s.end(nil)
	}
}

func (s *Stream) end(*encoder) {
	if !s.done {
		s.done = true
		s.ended()
	}
}

func (s *Stream) report(*Stats) {}
