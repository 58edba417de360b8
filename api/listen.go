package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrInUse means that something listens on the address already; match with errors.Is.
var ErrInUse = errors.New("address in use")

// ListenOptions of Listen.
type ListenOptions struct {
	// CertFile and KeyFile make a TCP listener speak TLS. They are needed beyond loopback.
	CertFile, KeyFile string
	// Token is what clients of a TCP listener must send; needed for TCP, not used on unix sockets.
	Token string
}

// Listener is a bound address of the API.
type Listener struct {
	net.Listener
	token string
	// Address is what clients give as --server: unix:PATH, http://HOST:PORT or https://HOST:PORT.
	Address string
}

// Listen binds "unix:PATH" or "tcp:HOST:PORT". A unix socket gets mode 0660 and the group of the process, or of a setgid directory; a
// socket that a dead process left is replaced, one that answers is ErrInUse. TCP needs a token, and TLS unless HOST is loopback.
func Listen(address string, o ListenOptions) (*Listener, error) {
	switch scheme, rest, _ := strings.Cut(address, ":"); {
	case scheme == "unix" && rest != "":
		return listenUnix(rest)
	case scheme == "tcp" && rest != "":
		return listenTCP(rest, o)
	}
	return nil, fmt.Errorf("listen: %q is neither unix:PATH nor tcp:HOST:PORT", address)
}

func listenUnix(path string) (*Listener, error) {
	// The kernel's limit is 108 bytes with the final zero; its own message is "invalid argument".
	if len(path) > 107 {
		return nil, fmt.Errorf("listen: the path of a unix socket has at most 107 bytes: %s", path)
	}
	switch info, err := os.Lstat(path); {
	case err == nil && info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("listen: %s exists and is no socket; tapwall does not replace it", path)
	case err == nil:
		conn, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			_ = conn.Close()
			return nil, fmt.Errorf("listen: another tapwall is listening on %s: %w", path, ErrInUse)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) { // also a live server with a full backlog, or no permission
			return nil, fmt.Errorf("listen: %s may belong to another tapwall: %w", path, err)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("listen: the socket of an earlier process cannot be removed: %w", err)
		}
	}
	// Bind under a name of our own, set the mode, then rename: at no time can others connect under a wider mode than 0660.
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	if len(tmp) > 107 {
		tmp = path
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, listenError(path, err)
	}
	l.SetUnlinkOnClose(false)
	fail := func(err error) (*Listener, error) {
		_ = l.Close()
		_ = os.Remove(tmp)
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(tmp, 0o660); err != nil {
		return fail(err)
	}
	if tmp != path {
		if err := os.Rename(tmp, path); err != nil {
			return fail(err)
		}
	}
	info, err := os.Lstat(path)
	if err != nil {
		return fail(err)
	}
	return &Listener{Listener: &unixListener{UnixListener: l, path: path, info: info}, Address: "unix:" + path}, nil
}

// unixListener removes its socket on Close, unless another process has put its own there.
type unixListener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
	once sync.Once
}

// Close implements net.Listener.
func (l *unixListener) Close() error {
	l.once.Do(func() {
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.info) {
			_ = os.Remove(l.path)
		}
	})
	return l.UnixListener.Close()
}

func listenTCP(hostport string, o ListenOptions) (*Listener, error) {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, fmt.Errorf("listen: tcp:%s: %w", hostport, err)
	}
	if o.Token == "" {
		return nil, fmt.Errorf("listen: tcp:%s: a token is needed to listen on TCP (--token-file)", hostport)
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return nil, fmt.Errorf("listen: tcp:%s: certificate and key are given together", hostport)
	}
	if o.CertFile == "" && !loopback(host) {
		return nil, fmt.Errorf("listen: tcp:%s: TLS is needed beyond loopback (--tls-cert, --tls-key)", hostport)
	}
	scheme := "http"
	var config *tls.Config
	if o.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("listen: tcp:%s: certificate: %w", hostport, err)
		}
		scheme = "https"
		config = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	}
	l, err := net.Listen("tcp", hostport)
	if err != nil {
		return nil, listenError("tcp:"+hostport, err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String()) // port 0 is chosen by the kernel
	if host == "" {
		host = "localhost"
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	return &Listener{Listener: l, token: o.Token, Address: scheme + "://" + net.JoinHostPort(host, port)}, nil
}

// loopback is false for names other than localhost: what they resolve to may change.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func listenError(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen: another program is listening on %s: %w", address, ErrInUse)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("listen: user %d may not listen on %s: %w", os.Getuid(), address, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("listen: the directory of %s does not exist: %w", address, err)
	}
	return fmt.Errorf("listen: %w", err)
}

// Serve answers requests on all listeners until ctx ends, then gives running requests a few seconds, ends streams and returns nil. It owns
// the listeners. An error of one listener ends all.
func Serve(ctx context.Context, log *slog.Logger, h http.Handler, listeners ...*Listener) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	// The context of all requests: streams end with it, so that Shutdown need not wait for them.
	base, endRequests := context.WithCancel(context.WithoutCancel(ctx))
	defer endRequests()
	errs := make(chan error, len(listeners))
	var servers []*http.Server
	for _, l := range listeners {
		handler := h
		if l.token != "" {
			handler = requireToken(l.token, h)
		}
		srv := &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: 10 * time.Second,
			ReadTimeout:       bodyReadLimit + 10*time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    64 << 10,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // handshakes of scanners and the like
			BaseContext:       func(net.Listener) context.Context { return base },
			ConnContext:       withCaller,
		}
		servers = append(servers, srv)
		go func() { errs <- srv.Serve(l) }()
		log.Info("listening", slog.String("address", l.Address))
	}
	var failed error
	running := len(servers)
	select {
	case <-ctx.Done():
	case failed = <-errs:
		running--
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
	defer cancel()
	var wg sync.WaitGroup
	for _, srv := range servers {
		wg.Go(func() {
			// Streams never become idle by themselves. One second for the others, then the common context ends.
			t := time.AfterFunc(drainLimit, endRequests)
			defer t.Stop()
			if err := srv.Shutdown(stop); err != nil {
				_ = srv.Close()
			}
		})
	}
	wg.Wait()
	for range running {
		<-errs
	}
	return failed
}
