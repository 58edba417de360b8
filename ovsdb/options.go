package ovsdb

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// DefaultAddress is where Debian's and upstream's packages put the database socket.
const DefaultAddress = "unix:/var/run/openvswitch/db.sock"

// Options configures a Client. The zero value connects to DefaultAddress.
type Options struct {
	// Address is "unix:/absolute/path", "tcp:host:port" or "ssl:host:port", as in ovsdb(7). Empty means DefaultAddress.
	Address string
	// TLS is required for ssl: and unused otherwise. Certificates made by ovs-pki carry no name that Go can verify; package
	// internal/pki makes a configuration that checks their chain, and a name in their own form.
	TLS *tls.Config
	// Logger receives connects, losses and repairs; nil discards.
	Logger *slog.Logger

	// Lock, if set, has to be held for Apply to write. It is run by the caller.
	Lock *Lock

	// Steal is for a Lock: it is taken from whoever has it (RFC 7047 §4.1.9), once; after that it is asked for as ever.
	Steal bool

	// BackoffMin and BackoffMax bound the pause before the next attempt, which doubles from the one to the other and starts
	// again after a connection that worked. Defaults 50 ms and 2 s. There is no last attempt.
	BackoffMin, BackoffMax time.Duration
	// ProbeInterval is how often an empty transaction proves that the server answers; default 5 s.
	ProbeInterval time.Duration
	// ProbeTimeout is how long the answer may take before the connection counts as lost; default 2 s.
	ProbeTimeout time.Duration
	// Timeout bounds every other single step: connect with the initial download, one transaction, and the wait until
	// ovs-vswitchd has caught up. Default 10 s.
	Timeout time.Duration
	// Coalesce is how long changes are gathered before a snapshot is made of them; default and maximum 2 ms.
	Coalesce time.Duration
}

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	if o.Address == "" {
		o.Address = DefaultAddress
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	set(&o.BackoffMin, 50*time.Millisecond)
	set(&o.BackoffMax, 2*time.Second)
	o.BackoffMax = max(o.BackoffMax, o.BackoffMin)
	set(&o.ProbeInterval, 5*time.Second)
	set(&o.ProbeTimeout, 2*time.Second)
	set(&o.Timeout, 10*time.Second)
	set(&o.Coalesce, maxCoalesce)
	o.Coalesce = min(o.Coalesce, maxCoalesce)
	return o
}

const maxCoalesce = 2 * time.Millisecond

func (o Options) validate() error {
	_, addr, err := splitAddress(o.Address)
	if err != nil {
		return err
	}
	// The library parses addresses as URLs, so a path with a character that a URL gives a meaning to would silently become
	// another path.
	if u, err := url.Parse(o.Address); err != nil || (u.Path != addr && u.Opaque != addr) {
		return fmt.Errorf("%w %q: characters that mean something in a URL are not supported", ErrAddress, o.Address)
	}
	if strings.HasPrefix(o.Address, "ssl:") && o.TLS == nil {
		return fmt.Errorf("%w %q: ssl needs a TLS configuration", ErrAddress, o.Address)
	}
	return nil
}

// splitAddress returns the network and address that net.Dial takes. For ssl the network is "tcp".
func splitAddress(address string) (network, addr string, err error) {
	scheme, rest, ok := strings.Cut(address, ":")
	bad := func(why string) (string, string, error) {
		return "", "", fmt.Errorf("%w %q: %s", ErrAddress, address, why)
	}
	if !ok {
		return bad("want unix:/path, tcp:host:port or ssl:host:port")
	}
	switch scheme {
	case "unix":
		if !filepath.IsAbs(rest) {
			return bad("a unix socket needs an absolute path")
		}
		return "unix", rest, nil
	case "tcp", "ssl":
		if _, port, err := net.SplitHostPort(rest); err != nil || port == "" {
			return bad("want host:port")
		}
		return "tcp", rest, nil
	default:
		return bad("unknown scheme, want unix, tcp or ssl")
	}
}

// ErrAddress says that Options.Address cannot be used.
var ErrAddress = errors.New("ovsdb: bad address")
