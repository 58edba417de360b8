package ofctrl

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
)

// ParseEndpoint splits the address of a switch into its method, "unix", "tcp" or "ssl", and what net.Dial takes: a path or
// HOST:PORT. An IPv6 host stands in brackets. Errors match [ErrInvalid].
func ParseEndpoint(s string) (method, address string, err error) {
	method, address, ok := strings.Cut(s, ":")
	if !ok || address == "" {
		return "", "", fmt.Errorf("endpoint %q: want unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT: %w", s, ErrInvalid)
	}
	switch method {
	case "unix":
		return method, address, nil
	case "tcp", "ssl":
		host, port, err := net.SplitHostPort(address)
		if err != nil || host == "" || port == "" {
			return "", "", fmt.Errorf("endpoint %q: want HOST:PORT: %w", s, ErrInvalid)
		}
		return method, address, nil
	}
	return "", "", fmt.Errorf("endpoint %q: unknown method %q: %w", s, method, ErrInvalid)
}

// dial connects to a switch. For ssl it has the TLS handshake behind it when it returns.
func dial(ctx context.Context, endpoint string, conf *tls.Config) (net.Conn, error) {
	method, address, err := ParseEndpoint(endpoint)
	if err != nil {
		return nil, err
	}
	if method != "ssl" {
		return new(net.Dialer).DialContext(ctx, method, address)
	}
	if conf == nil {
		return nil, fmt.Errorf("endpoint %q: no TLS configuration: %w", endpoint, ErrInvalid)
	}
	return (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", address)
}
