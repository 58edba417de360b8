package ofp

import (
	"encoding/binary"
	"strconv"
)

// state is what the readers of one message share: the first error, after which all of them yield zeros and claim to be
// empty, and the first thing that was well formed but unknown.
type state struct {
	msg         string
	err         error
	unsupported error
	unknowns    int // how many
}

// reader reads big-endian values from the front of b. All its methods are safe after a failure, so that a layout can be
// read in one go and checked once.
type reader struct {
	st  *state
	b   []byte
	off int // of b[0] in the message
}

// fail records an error at the place the reader stands at.
func (r *reader) fail(field string, err error) { r.failAt(r.off, field, err) }

func (r *reader) failAt(off int, field string, err error) {
	if r.st.err == nil {
		r.st.err = &ParseError{Msg: r.st.msg, Field: field, Offset: off, Err: err}
	}
	r.b = nil
}

// unknown records something well formed that has no representation, with the number that stands for it on the wire; reading
// goes on.
func (r *reader) unknown(off int, what string, id uint64) {
	r.st.unknowns++
	if r.st.unsupported == nil {
		r.st.unsupported = &ParseError{Msg: r.st.msg, Field: what + " " + strconv.FormatUint(id, 10), Offset: off, Err: ErrUnsupported}
	}
}

// more reports whether bytes are left and nothing has failed. A loop over it must read at least one byte per turn.
func (r *reader) more() bool { return r.st.err == nil && len(r.b) > 0 }

// bytes returns the next n bytes without copying, or nil.
func (r *reader) bytes(n int, field string) []byte {
	if r.st.err != nil || n < 0 || n > len(r.b) {
		r.fail(field, ErrTruncated)
		return nil
	}
	v := r.b[:n:n]
	r.b, r.off = r.b[n:], r.off+n
	return v
}

// rest returns all that is left.
func (r *reader) rest() []byte { return r.bytes(len(r.b), "rest") }

func (r *reader) skip(n int, field string) { r.bytes(n, field) }

func (r *reader) u8(field string) uint8 {
	if b := r.bytes(1, field); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16(field string) uint16 {
	if b := r.bytes(2, field); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32(field string) uint32 {
	if b := r.bytes(4, field); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64(field string) uint64 {
	if b := r.bytes(8, field); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// sub returns a reader of the next n bytes.
func (r *reader) sub(n int, field string) reader {
	off := r.off
	return reader{st: r.st, b: r.bytes(n, field), off: off}
}

// sized reads an entry that begins with its own 16-bit length at byte at (0 or 2 or 4), which must be at least least and a
// multiple of 8, and returns a reader of the whole entry.
func (r *reader) sized(at, least int, field string) reader {
	if len(r.b) < at+2 {
		r.fail(field, ErrTruncated)
		return reader{st: r.st, off: r.off}
	}
	n := int(binary.BigEndian.Uint16(r.b[at:]))
	if n < least || n%8 != 0 {
		r.fail(field+" length", ErrLength)
		return reader{st: r.st, off: r.off}
	}
	return r.sub(n, field)
}
