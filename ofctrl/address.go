package ofctrl

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
)

// ParseAddress splits the address of a switch into its method, "unix", "tcp" or "ssl", and what net.Dial takes: a path or
// HOST:PORT. An IPv6 host stands in brackets. Errors match [ErrInvalid].
func ParseAddress(s string) (method, address string, err error) {
	method, address, ok := strings.Cut(s, ":")
	if !ok || address == "" {
		return "", "", fmt.Errorf("address %q: want unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT: %w", s, ErrInvalid)
	}
	switch method {
	case "unix":
		return method, address, nil
	case "tcp", "ssl":
		host, port, err := net.SplitHostPort(address)
		if err != nil || host == "" || port == "" {
			return "", "", fmt.Errorf("address %q: want HOST:PORT: %w", s, ErrInvalid)
		}
		return method, address, nil
	}
	return "", "", fmt.Errorf("address %q: unknown method %q: %w", s, method, ErrInvalid)
}

// dial connects to a switch. For ssl it has the TLS handshake behind it when it returns.
func dial(ctx context.Context, address string, conf *tls.Config) (net.Conn, error) {
	method, at, err := ParseAddress(address)
	if err != nil {
		return nil, err
	}
	if method != "ssl" {
		c, err := new(net.Dialer).DialContext(ctx, method, at)
		if local, ok := c.(*net.UnixConn); ok && err == nil {
			return unpoll(local)
		}
		return c, err
	}
	if conf == nil {
		return nil, fmt.Errorf("address %q: no TLS configuration: %w", address, ErrInvalid)
	}
	return (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", at)
}
