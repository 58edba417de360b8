package lists

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/tapwall/tapwall/policy"
)

// Bounds of a request.
const (
	requestFor   = time.Minute // all of it
	answerFor    = 20 * time.Second
	maxRedirects = 3
)

// settled is for how long a file has to be left alone before it is believed that nobody is writing it.
const settled = 500 * time.Millisecond

// validators say which version of a list is known, for a server to answer that it is still the newest.
type validators struct {
	ETag     string `json:"etag,omitempty"`
	Modified string `json:"modified,omitempty"`
}

// fetched is the outcome of a try. text nil = it is what was known.
type fetched struct {
	text []byte
	validators
}

// fetch reads a source. Errors neither quote what was read nor what may be secret of a URL.
func (k *Keeper) fetch(ctx context.Context, from policy.GroupSource, known validators) (fetched, error) {
	if from.File != "" {
		text, err := k.readFile(ctx, from.File)
		return fetched{text: text}, err
	}
	return k.get(ctx, from.URL, known)
}

// readFile reads a file below the directory, and nothing outside, whatever links lead there.
func (k *Keeper) readFile(ctx context.Context, name string) ([]byte, error) {
	if k.o.Dir == "" {
		return nil, errors.New("the configuration names no directory for files (group-lists.dir)")
	}
	root, err := os.OpenRoot(k.o.Dir)
	if err != nil {
		return nil, fmt.Errorf("the directory cannot be opened: %w", reason(err))
	}
	defer root.Close()
	for try := 0; ; try++ {
		text, changed, err := readOnce(root, name)
		if err != nil || !changed {
			return text, err
		}
		if try == 20 {
			return nil, errors.New("it is being written all the time: write another file and rename it")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(settled):
		}
	}
}

// readOnce reads a file; changed says that somebody may be writing it.
func readOnce(root *os.Root, name string) (text []byte, changed bool, err error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // or a FIFO would hold us up
	if err != nil {
		return nil, false, fmt.Errorf("it cannot be read: %w", reason(err))
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return nil, false, fmt.Errorf("it cannot be read: %w", reason(err))
	}
	if !before.Mode().IsRegular() {
		return nil, false, errors.New("it is no regular file")
	}
	if text, err = readAll(f); err != nil {
		return nil, false, err
	}
	after, err := f.Stat()
	if err != nil {
		return nil, false, fmt.Errorf("it cannot be read: %w", reason(err))
	}
	age := time.Since(after.ModTime())
	changed = int64(len(text)) != after.Size() || !before.ModTime().Equal(after.ModTime()) || age >= 0 && age < settled
	return text, changed, nil
}

func readAll(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("it could not be read to its end: %w", plain(err))
	case len(text) > maxBytes:
		return nil, fmt.Errorf("it is longer than %d MiB", maxBytes>>20)
	}
	return text, nil
}

// reason is an error of a file without its path.
func reason(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

var (
	errForbidden = errors.New("its address is one of this machine or its link, which the configuration does not allow (group-lists.allow)")
	errPlain     = errors.New("it is not https, which the configuration does not allow (group-lists.plain-http)")
	errRedirects = fmt.Errorf("it redirects more than %d times", maxRedirects)
)

// newClient makes the client of all lists. It goes by no proxy: the addresses that may be connected to are checked where it connects.
func (k *Keeper) newClient() (*http.Client, error) {
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil || !k.mayConnect(a.Addr()) {
			return errForbidden
		}
		return nil
	}}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if k.o.CAFile != "" {
		pem, err := os.ReadFile(k.o.CAFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", k.o.CAFile)
		}
	}
	return &http.Client{
		Transport: &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: config, TLSHandshakeTimeout: answerFor,
			ResponseHeaderTimeout: answerFor, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			r.Header.Del("Referer") // it would tell the next server the query of this one
			switch {
			case len(via) > maxRedirects:
				return errRedirects
			case r.URL.Scheme != "https" && (!k.o.PlainHTTP || via[len(via)-1].URL.Scheme == "https"):
				return errPlain
			}
			return nil
		},
	}, nil
}

// metadata are the addresses under which clouds tell machines their secrets, beside those of the link.
var metadata = []netip.Addr{netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("168.63.129.16"), netip.MustParseAddr("192.0.0.192")}

// mayConnect refuses what only this machine, or its link, answers: what listens there relies on nobody else reaching it.
func (k *Keeper) mayConnect(a netip.Addr) bool {
	a = a.WithZone("").Unmap()
	if b := a.As16(); netip.MustParsePrefix("64:ff9b::/96").Contains(a) { // RFC 6052: an IPv4 address behind a translator
		return k.mayConnect(netip.AddrFrom4([4]byte(b[12:])))
	}
	if slices.ContainsFunc(k.o.Allow, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return true
	}
	return !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast() && !a.IsUnspecified() && !slices.Contains(metadata, a) &&
		!(a.Is4() && a.As4()[0] == 0)
}

func (k *Keeper) get(ctx context.Context, address string, known validators) (fetched, error) {
	ctx, cancel := context.WithTimeout(ctx, requestFor)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fetched{}, errors.New("it is no URL")
	}
	if r.URL.Scheme != "https" && !k.o.PlainHTTP {
		return fetched{}, errPlain
	}
	r.Header.Set("User-Agent", "tapwall")
	r.Header.Set("Accept", "text/plain, */*;q=0.5")
	if known.ETag != "" {
		r.Header.Set("If-None-Match", known.ETag)
	}
	if known.Modified != "" {
		r.Header.Set("If-Modified-Since", known.Modified)
	}
	resp, err := k.client.Do(r)
	if err != nil {
		return fetched{}, plain(err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotModified && known != (validators{}):
		return fetched{validators: known}, nil
	case resp.StatusCode != http.StatusOK:
		return fetched{}, fmt.Errorf("the server answers %d", resp.StatusCode)
	}
	text, err := readAll(resp.Body)
	if err != nil {
		return fetched{}, err
	}
	out := fetched{text: text}
	if v := resp.Header.Get("ETag"); len(v) < 256 {
		out.ETag = v
	}
	if v := resp.Header.Get("Last-Modified"); len(v) < 64 {
		out.Modified = v
	}
	return out, nil
}

// plain says what went wrong in words of our own: errors of net/http quote URLs and what servers sent.
func plain(err error) error {
	var dns *net.DNSError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var record tls.RecordHeaderError
	var errno syscall.Errno
	var wrapped *url.Error
	switch {
	case errors.Is(err, errForbidden):
		return errForbidden
	case errors.Is(err, errPlain):
		return errPlain
	case errors.Is(err, errRedirects):
		return errRedirects
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &wrapped) && wrapped.Timeout():
		return errors.New("the server does not answer in time")
	case errors.As(err, &dns):
		if dns.IsNotFound {
			return errors.New("the name of the server is not known")
		}
		return errors.New("the name of the server cannot be resolved now")
	case errors.As(err, &unknown):
		return errors.New("the server's certificate is by nobody who is trusted")
	case errors.As(err, &invalid):
		return errors.New("the server's certificate is not valid")
	case errors.As(err, &name):
		return errors.New("the server's certificate is for another name")
	case errors.As(err, &record):
		return errors.New("the server does not speak TLS")
	case errors.As(err, &errno):
		return errors.New(errno.Error())
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errors.New("the server ends the connection ahead of time")
	}
	return errors.New("the server's answer cannot be read")
}

// digest tells texts apart.
func digest(text []byte) [sha256.Size]byte { return sha256.Sum256(text) }
