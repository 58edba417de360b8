package ofp

import (
	"errors"
	"strconv"
)

// What went wrong with a message; match with errors.Is.
var (
	// ErrTruncated: the bytes end before what they announce.
	ErrTruncated = errors.New("truncated")
	// ErrLength: a length field is impossible, or a message would exceed 65,535 bytes.
	ErrLength = errors.New("bad length")
	// ErrUnsupported: well formed, but of a kind that this package does not know.
	ErrUnsupported = errors.New("unsupported")
	// ErrValue: a value that the protocol cannot carry or does not allow.
	ErrValue = errors.New("invalid value")
)

// ParseError tells where decoding stopped. It unwraps to one of [ErrTruncated], [ErrLength], [ErrUnsupported] and
// [ErrValue].
type ParseError struct {
	Msg    string // the message, such as OFPT_PACKET_IN
	Field  string // what was being read
	Offset int    // bytes from the start of the message
	Err    error
}

// Error names the place and the cause.
func (e *ParseError) Error() string {
	return e.Msg + ": " + e.Field + " at byte " + strconv.Itoa(e.Offset) + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *ParseError) Unwrap() error { return e.Err }
