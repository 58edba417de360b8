// Package unixctl talks to the control socket of a running Open vSwitch daemon, as ovs-appctl(8) does: commands and answers are text.
// It also reads the connection tracking table that way, because no protocol offers it.
package unixctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrNotRunning: there is no pid file, or nobody listens on the socket that it leads to.
	ErrNotRunning = errors.New("unixctl: daemon is not running")
	// ErrTooLarge: the answer is longer than Daemon.MaxReply.
	ErrTooLarge = errors.New("unixctl: answer is too large")
)

// Error is a refusal by the daemon, in its words.
type Error struct {
	Method string
	Text   string
}

func (e *Error) Error() string { return "unixctl: " + e.Method + ": " + e.Text }

// DefaultRunDir is the run directory of Debian's and upstream's packages.
const DefaultRunDir = "/var/run/openvswitch"

// defaultMaxReply holds a connection table of more than a million entries.
const defaultMaxReply = 256 << 20

// Daemon names a daemon by where its pid file is. The zero value is the system's ovs-vswitchd. Its methods may be called at the same
// time; each call makes its own connection, because the socket changes its name with every restart of the daemon.
type Daemon struct {
	RunDir string // "" means DefaultRunDir
	Name   string // "" means "ovs-vswitchd"
	// MaxReply bounds the answer in bytes; 0 means 256 MiB.
	MaxReply int64
}

// Socket returns the path of the control socket that the pid file leads to. The error matches ErrNotRunning when there is none.
func (d Daemon) Socket() (string, error) {
	dir, name := d.RunDir, d.Name
	if dir == "" {
		dir = DefaultRunDir
	}
	if name == "" {
		name = "ovs-vswitchd"
	}
	text, err := os.ReadFile(filepath.Join(dir, name+".pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	if err != nil {
		return "", fmt.Errorf("unixctl: %w", err)
	}
	pid, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 31)
	if err != nil {
		return "", fmt.Errorf("unixctl: %s.pid holds no process id: %w", filepath.Join(dir, name), err)
	}
	return filepath.Join(dir, fmt.Sprintf("%s.%d.ctl", name, pid)), nil
}

// Call sends one command and returns the answer as it came, usually with a final newline. Errors: *Error, ErrNotRunning, ErrTooLarge, that
// of ctx, or of the socket. A command that failed in another way than *Error and ErrNotRunning may have been carried out.
func (d Daemon) Call(ctx context.Context, method string, args ...string) (string, error) {
	path, err := d.Socket()
	if err != nil {
		return "", err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return "", fmt.Errorf("%w: %w", ErrNotRunning, err)
	case err != nil:
		return "", fmt.Errorf("unixctl: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	limit := d.MaxReply
	if limit <= 0 {
		limit = defaultMaxReply
	}
	text, err := call(conn, limit, method, args)
	var refused *Error
	if err != nil && !errors.As(err, &refused) && ctx.Err() != nil {
		return "", fmt.Errorf("unixctl: %s: %w", method, ctx.Err())
	}
	return text, err
}

// call speaks JSON-RPC 1.0 as the daemons do: no framing, all arguments strings, one text as result or error.
func call(conn io.ReadWriter, limit int64, method string, args []string) (string, error) {
	if args == nil {
		args = []string{}
	}
	request := struct {
		ID     int      `json:"id"`
		Method string   `json:"method"`
		Params []string `json:"params"`
	}{1, method, args}
	encoder := json.NewEncoder(conn)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(request); err != nil {
		return "", fmt.Errorf("unixctl: %s: %w", method, err)
	}
	in := &io.LimitedReader{R: conn, N: limit}
	var reply struct {
		Result *string         `json:"result"`
		Error  json.RawMessage `json:"error"`
	}
	if err := json.NewDecoder(in).Decode(&reply); err != nil {
		if in.N <= 0 {
			return "", fmt.Errorf("%w: %s: more than %d bytes", ErrTooLarge, method, limit)
		}
		return "", fmt.Errorf("unixctl: %s: %w", method, err)
	}
	if len(reply.Error) > 0 && string(reply.Error) != "null" {
		var text string
		if json.Unmarshal(reply.Error, &text) != nil {
			text = string(reply.Error)
		}
		return "", &Error{Method: method, Text: strings.TrimSpace(text)}
	}
	if reply.Result == nil {
		return "", fmt.Errorf("unixctl: %s: answer without a result", method)
	}
	return *reply.Result, nil
}

// ReadCounter returns the total of one coverage counter, see "coverage/show". An unknown name is an *Error.
func (d Daemon) ReadCounter(ctx context.Context, name string) (uint64, error) {
	text, err := d.Call(ctx, "coverage/read-counter", name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("unixctl: counter %s: %w", name, err)
	}
	return n, nil
}

// Datapaths returns the names of the datapaths, such as "netdev@ovs-netdev", sorted as the daemon does.
func (d Daemon) Datapaths(ctx context.Context) ([]string, error) {
	text, err := d.Call(ctx, "dpctl/dump-dps")
	return strings.Fields(text), err
}
