package api_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/api"
)

// certificate writes a self-signed one for localhost and 127.0.0.1.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY",
		Bytes: keyDER}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func TestListenBad(t *testing.T) {
	dir := t.TempDir()
	live := filepath.Join(dir, "live.sock")
	l, err := api.Listen("unix:"+live, api.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	long := strings.Repeat("x", 120)
	for _, tt := range []struct {
		name, address string
		o             api.ListenOptions
		want          string
		is            error
	}{
		{"bad scheme", "http://x", api.ListenOptions{}, `listen: "http://x" is neither unix:PATH nor tcp:HOST:PORT`, nil},
		{"bad empty", "", api.ListenOptions{}, `listen: "" is neither unix:PATH nor tcp:HOST:PORT`, nil},
		{"bad live server", "unix:" + live, api.ListenOptions{}, "listen: another tapwall is listening on " + live, api.ErrInUse},
		{"bad file", "unix:" + file, api.ListenOptions{}, "listen: " + file + " exists and is no socket", nil},
		{"bad no directory", "unix:" + dir + "/none/x.sock", api.ListenOptions{}, "listen: the directory of " + dir +
			"/none/x.sock does not exist", os.ErrNotExist},
		{"bad long path", "unix:/" + long, api.ListenOptions{}, "listen: the path of a unix socket has at most 107 bytes", nil},
		{"bad no token", "tcp:127.0.0.1:0", api.ListenOptions{}, "listen: tcp:127.0.0.1:0: a token is needed to listen on TCP", nil},
		{"bad no TLS", "tcp:0.0.0.0:0", api.ListenOptions{Token: "x"}, "listen: tcp:0.0.0.0:0: TLS is needed beyond loopback", nil},
		{"bad no TLS, all addresses", "tcp::0", api.ListenOptions{Token: "x"}, "listen: tcp::0: TLS is needed beyond loopback", nil},
		{"bad certificate alone", "tcp:127.0.0.1:0", api.ListenOptions{Token: "x", CertFile: "c"},
			"listen: tcp:127.0.0.1:0: certificate and key are given together", nil},
		{"bad certificate file", "tcp:127.0.0.1:0", api.ListenOptions{Token: "x", CertFile: file, KeyFile: file},
			"listen: tcp:127.0.0.1:0: certificate: ", nil},
		{"bad port", "tcp:127.0.0.1", api.ListenOptions{Token: "x"}, "listen: tcp:127.0.0.1: address 127.0.0.1: missing port", nil},
		{"bad port in use", "tcp:" + taken.Addr().String(), api.ListenOptions{Token: "x"}, "listen: another program is listening on tcp:" +
			taken.Addr().String(), api.ErrInUse},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := api.Listen(tt.address, tt.o)
			if err == nil {
				l.Close()
				t.Fatal("no error")
			}
			if !strings.HasPrefix(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got  %v\nwant %s…", err, tt.want)
			}
		})
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file in the way: %q, %v", text, err)
	}
}

// TestListenStale takes over the socket of a process that was killed, and leaves alone the one of a successor at Close.
func TestListenStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := api.Listen("unix:"+path, api.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v", info.Mode())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	successor, err := api.Listen("unix:"+path, api.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the successor's socket: %v", err)
	}
	successor.Close()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left after Close: %v", err)
	}
}

// serve runs the server of a fixture on listeners until the test ends.
func serve(t *testing.T, f *fixture, ls ...*api.Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- api.Serve(ctx, nil, f.server, ls...) }()
	t.Cleanup(func() {
		cancel()
		start := time.Now()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		if took := time.Since(start); took >= 5*time.Second { // shutdownLimit, which cuts what has not ended by itself
			t.Errorf("shutdown took %v", took)
		}
	})
}

func TestToken(t *testing.T) {
	cert, key := certificate(t)
	f := newFixture(t)
	f.engine.ready = errors.New("bridge br0 is not in sync")
	l, err := api.Listen("tcp:127.0.0.1:0", api.ListenOptions{Token: "s3cret", CertFile: cert, KeyFile: key})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, f, l)
	pool := x509.NewCertPool()
	text, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(text)
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer hc.CloseIdleConnections()
	for _, tt := range []struct {
		path, auth string
		status     int
		body       string
	}{
		{"/v1/groups", "", 401, "a valid bearer token is needed"},
		{"/v1/groups", "Bearer wrong", 401, ""},
		{"/v1/groups", "Basic s3cret", 401, ""},
		{"/v1/groups", "s3cret", 401, ""},
		{"/metrics", "", 401, ""},
		{"/docsx", "", 401, ""},
		{"/v1/groups", "Bearer s3cret", 200, "items"},
		{"/v1/groups", "bearer s3cret", 200, "items"},
		{"/healthz", "", 200, "ok"},
		{"/docs", "", 200, "<html"},
		{"/openapi.json", "", 200, "openapi"},
		{"/readyz", "", 503, "not ready; /v1/status has the reasons"},
		{"/readyz", "Bearer s3cret", 503, "bridge br0 is not in sync"},
	} {
		req, err := http.NewRequest("GET", l.Address+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.auth != "" {
			req.Header.Set("Authorization", tt.auth)
		}
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != tt.status || !strings.Contains(string(body), tt.body) || tt.path == "/readyz" && tt.auth == "" &&
			strings.Contains(string(body), "br0") {
			t.Errorf("%s with %q: %d %s", tt.path, tt.auth, resp.StatusCode, body)
		}
		if tt.status == 401 && (resp.Header.Get("WWW-Authenticate") == "" || resp.Header.Get("Content-Type") != "application/problem+json") {
			t.Errorf("%s with %q: %v", tt.path, tt.auth, resp.Header)
		}
	}
	if strings.Contains(f.log.String(), "s3cret") {
		t.Error("the token is in the log")
	}
}
