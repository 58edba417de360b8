package flow

import (
	"errors"
	"fmt"
	"strings"
)

// Errors of this package, for errors.Is.
var (
	// ErrSyntax is text that is not a flow, match or action.
	ErrSyntax = errors.New("flow: bad syntax")
	// ErrInvalid is a flow, match or action that no switch would take: a prerequisite is missing, a mask or value is
	// wider than its field, instructions are out of order.
	ErrInvalid = errors.New("flow: invalid")

	errHexBytes = errors.New("bytes are pairs of hexadecimal digits: 01.02.ff")
)

// A ParseError says where in the text something is wrong. errors.Is matches ErrSyntax or ErrInvalid.
type ParseError struct {
	Offset int    // of Token in the text, in bytes
	Token  string // what cannot be understood, possibly shortened
	Msg    string // why
	Err    error  // ErrSyntax, or what Validate found
}

// Error returns one line: flow: at 17, "tp_dst=70000": does not fit into 16 bits.
func (e *ParseError) Error() string {
	return fmt.Sprintf("flow: at %d, %q: %s", e.Offset, e.Token, e.Msg)
}

// Unwrap returns the sentinel.
func (e *ParseError) Unwrap() error { return e.Err }

// maxToken bounds what of the input an error repeats.
const maxToken = 60

func errorAt(off int, token, format string, args ...any) error {
	if len(token) > maxToken {
		token = token[:maxToken] + "…"
	}
	return &ParseError{Offset: off, Token: token, Msg: fmt.Sprintf(format, args...), Err: ErrSyntax}
}

// item is one key, key=value, key:value, key(value) or key(value)->rest of a list.
type item struct {
	key   string
	value string
	rest  string // check_pkt_larger(1500)->NXM_NX_REG0[0]: what follows ->
	delim byte   // '=', ':', '(' or 0 for a bare key
	off   int    // of key in the whole text
	valAt int    // of value in the whole text
	text  string // all of it
}

func (it *item) errorf(format string, args ...any) error {
	return errorAt(it.off, it.text, format, args...)
}

// bare reports an error if the item has a value.
func (it *item) bare() error {
	if it.delim != 0 {
		return it.errorf("takes no value")
	}
	return nil
}

// scanner splits a list at commas and blanks as ovs-ofctl does: parentheses and their like hold a value together.
type scanner struct {
	s   string // the rest
	off int    // of s in the whole text
}

func (sc *scanner) skip(n int) { sc.s, sc.off = sc.s[n:], sc.off+n }

const separators = ", \t\r\n"

// next returns the next item; ok is false at the end.
func (sc *scanner) next() (it item, ok bool, err error) {
	sc.skip(len(sc.s) - len(strings.TrimLeft(sc.s, separators)))
	if sc.s == "" {
		return item{}, false, nil
	}
	it.off = sc.off
	n := strings.IndexAny(sc.s, separators+"=:()")
	if n < 0 {
		n = len(sc.s)
	}
	it.key = sc.s[:n]
	end := n
	switch {
	case n == len(sc.s) || strings.IndexByte(separators, sc.s[n]) >= 0:
	case sc.s[n] == ')':
		return item{}, false, errorAt(sc.off+n, sc.s[n:], "closing parenthesis without an opening one")
	case sc.s[n] == '(':
		it.delim = '('
		n++
		size := closing(sc.s[n:])
		if size < 0 {
			return item{}, false, errorAt(sc.off, sc.s, "closing parenthesis is missing")
		}
		it.value, it.valAt = sc.s[n:n+size], sc.off+n
		end = n + size + 1
		if tail := sc.s[end:]; strings.HasPrefix(tail, "->") {
			size := strings.IndexAny(tail, separators)
			if size < 0 {
				size = len(tail)
			}
			it.rest = tail[2:size]
			end += size
		} else if tail != "" && strings.IndexByte(separators, tail[0]) < 0 {
			return item{}, false, errorAt(sc.off+end, tail, "comma is missing")
		}
	default:
		it.delim = sc.s[n]
		n++
		size, depth := 0, 0
		for ; n+size < len(sc.s); size++ {
			c := sc.s[n+size]
			if depth == 0 && strings.IndexByte(separators, c) >= 0 {
				break
			}
			switch c {
			case '(':
				depth++
			case ')':
				if depth--; depth < 0 {
					return item{}, false, errorAt(sc.off+n+size, sc.s[n+size:], "closing parenthesis without an opening one")
				}
			}
		}
		if depth > 0 {
			return item{}, false, errorAt(sc.off, sc.s, "closing parenthesis is missing")
		}
		it.value, it.valAt = sc.s[n:n+size], sc.off+n
		end = n + size
	}
	it.text = sc.s[:end]
	if it.key == "" {
		return item{}, false, errorAt(it.off, it.text, "a name is missing")
	}
	sc.skip(end)
	return it, true, nil
}

// closing returns where the parenthesis that is open before s closes, or -1.
func closing(s string) int {
	depth := 1
	for i := range len(s) {
		switch s[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}
