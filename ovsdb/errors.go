package ovsdb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"

	"github.com/tapwall/tapwall/internal/pki"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrNotConnected: there is no connection, or no snapshot yet. Nothing was sent.
	ErrNotConnected = errors.New("ovsdb: not connected")
	// ErrUnknownOutcome: the transaction was sent and no answer came. It may or may not have been committed; call Apply again
	// after the next snapshot.
	ErrUnknownOutcome = errors.New("ovsdb: outcome of the transaction is unknown")
	// ErrConflict: somebody changed the rows between the snapshot and the transaction, so it was not committed, or in part had
	// nothing to act on. Call Apply again after the next snapshot.
	ErrConflict = errors.New("ovsdb: rows changed meanwhile")
	// ErrNotRealized: the rows are committed, but ovs-vswitchd did not confirm them in time (Open_vSwitch.cur_cfg < next_cfg).
	// It is probably not running.
	ErrNotRealized = errors.New("ovsdb: ovs-vswitchd has not taken the configuration over")
	// ErrSchema: the server's schema lacks something that is needed. The error is a *SchemaError.
	ErrSchema = errors.New("ovsdb: the server's schema does not fit")
	// ErrLost: the connection ended.
	ErrLost = errors.New("ovsdb: connection lost")
	// ErrLibrary: the library panicked in a call and the panic was caught.
	ErrLibrary = errors.New("ovsdb: library failure")
)

// OpError is one failed operation of a transaction, and with it the whole transaction failed (RFC 7047 §4.1.3).
type OpError struct {
	Index   int    // position in the transaction, -1 when the commit failed
	Op      string // "insert", "mutate", …; "commit" when the commit failed
	Table   string
	Code    string // RFC 7047 error string such as "constraint violation"
	Details string
}

func (e *OpError) Error() string {
	what := e.Op
	if e.Table != "" {
		what += " " + e.Table
	}
	if e.Details != "" {
		return fmt.Sprintf("ovsdb: %s: %s: %s", what, e.Code, e.Details)
	}
	return fmt.Sprintf("ovsdb: %s: %s", what, e.Code)
}

// Is matches ErrConflict when the failure comes from another writer: a precondition of ours did not hold (a wait operation that
// timed out), or a row that a reference or a unique name stands for came or went.
func (e *OpError) Is(target error) bool {
	if target != ErrConflict {
		return false
	}
	switch e.Code {
	case "timed out":
		return e.Op == "wait"
	case "referential integrity violation", "constraint violation":
		return e.Index < 0
	}
	return false
}

// SchemaError lists what the server's schema lacks. It matches ErrSchema.
type SchemaError struct {
	Version string   // version of the server's schema
	Missing []string // "Mirror.snaplen", or "Mirror" for a whole table
	Other   []string // columns of another type, as "Mirror.snaplen: want …, have …"
}

func (e *SchemaError) Error() string {
	var parts []string
	if len(e.Missing) > 0 {
		parts = append(parts, "missing "+strings.Join(e.Missing, ", "))
	}
	parts = append(parts, e.Other...)
	return fmt.Sprintf("%v: schema %s of %s: %s", ErrSchema, e.Version, databaseName, strings.Join(parts, "; "))
}

// Unwrap makes errors.Is(err, ErrSchema) hold.
func (e *SchemaError) Unwrap() error { return ErrSchema }

// hint says what an operator can do about err, or "". A server that has answered hangs up for reasons of its own.
func hint(address string, err error, answered bool) string {
	_, addr, _ := splitAddress(address)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("no socket at %s: is ovsdb-server running, and is this its socket? (Debian: systemctl start openvswitch-switch)", addr)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("no permission for %s: run as root, or as a member of the group that owns the socket", addr)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("nothing listens on %s: ovsdb-server is down or does not have this remote", addr)
	case !answered && strings.HasPrefix(address, "ssl:") && pki.Refused(err) != "":
		return pki.Refused(err)
	case !answered && strings.HasPrefix(address, "tcp:") && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
		return "the server hangs up on plain text: perhaps it speaks TLS there (ssl:)"
	case errors.Is(err, ErrSchema):
		return "Open vSwitch 2.13 or newer is needed; an old database file is upgraded with ovsdb-tool convert"
	case errors.Is(err, errNoRoot):
		return "start ovs-vswitchd by ovs-ctl, or run ovs-vsctl --no-wait init"
	}
	return ""
}
