package ovsdb_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/ovsdbtest"
	"github.com/tapwall/tapwall/ovsdb/vswitch"
)

// freePort returns a TCP port of the loopback address that nobody used a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestTCP(t *testing.T) {
	o := ovsdbtest.Prepare(t, nil)
	port := freePort(t)
	o.DBArgs = []string{fmt.Sprintf("--remote=ptcp:%d:127.0.0.1", port)}
	o.StartDB()
	o.Vsctl("--no-wait", "add-br", "br0")
	c := connected(t, o, func(opts *ovsdb.Options) { opts.Address = fmt.Sprintf("tcp:127.0.0.1:%d", port) })
	if c.Topology().Bridges["br0"] == nil {
		t.Errorf("topology %+v", c.Topology())
	}
}

// certificate writes a self-signed certificate and its key to dir; it is its own authority.
func certificate(t *testing.T, dir, name string) (certFile, keyFile string, pair tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth,
			x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	certFile, keyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for file, text := range map[string][]byte{certFile: certPEM, keyFile: keyPEM} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err = tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile, pair
}

func TestTLS(t *testing.T) {
	o := ovsdbtest.Prepare(t, nil)
	port := freePort(t)
	serverCert, serverKey, _ := certificate(t, o.Dir, "server")
	clientCert, _, client := certificate(t, o.Dir, "client")
	o.DBArgs = []string{fmt.Sprintf("--remote=pssl:%d:127.0.0.1", port), "--private-key=" + serverKey, "--certificate=" + serverCert,
		"--ca-cert=" + clientCert}
	o.StartDB()
	o.Vsctl("--no-wait", "add-br", "br0")
	text, err := os.ReadFile(serverCert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	address := fmt.Sprintf("ssl:127.0.0.1:%d", port)
	c := connected(t, o, func(opts *ovsdb.Options) {
		opts.Address, opts.TLS = address, &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{client}}
	})
	if c.Topology().Bridges["br0"] == nil {
		t.Errorf("topology %+v", c.Topology())
	}

	// An authority that is not the server's.
	stranger := run(t, o, func(opts *ovsdb.Options) {
		opts.Address, opts.TLS = address, &tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{client}}
	})
	eventuallyStatus(t, stranger, "certificate")
	// No client certificate: the server refuses.
	nobody := run(t, o, func(opts *ovsdb.Options) { opts.Address, opts.TLS = address, &tls.Config{RootCAs: roots} })
	eventuallyStatus(t, nobody, "")
	if nobody.Status().Connected || nobody.Topology() != nil {
		t.Error("a client without a certificate has a topology")
	}
}

func eventuallyStatus(t *testing.T, c *ovsdb.Client, text string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if s := c.Status(); s.LastError != "" && strings.Contains(s.LastError, text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("status %+v, want an error with %q", c.Status(), text)
		}
	}
}

// Ten thousand ports: the first snapshot, and one change among them.
func BenchmarkTopology10000(b *testing.B) {
	o := ovsdbtest.Prepare(b, nil)
	o.StartDB()
	o.Vsctl("--no-wait", "add-br", "br0")
	o.AddPorts("br0", 10000)
	start := time.Now()
	c := connected(b, o, func(opts *ovsdb.Options) { opts.Logger = nil })
	b.Logf("first snapshot with %d ports after %v", len(c.Topology().Bridges["br0"].Ports), time.Since(start))
	// Without ovs-vswitchd nothing is confirmed; the time from the call to the snapshot with the row is what counts.
	spec := vswitch.MirrorSpec{Owner: "m", Name: "m", Bridge: "br0", SelectSrcPort: []string{"p00001"},
		Output: vswitch.OutputSpec{Port: "p00002"}}
	wake, cancel := c.Subscribe()
	defer cancel()
	i := 0
	for b.Loop() {
		i++
		spec.SelectVLAN = []int{i % 4096}
		ctx, stop := context.WithCancel(b.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = c.Apply(ctx, ovsdb.Desired{Mirrors: []vswitch.MirrorSpec{spec}})
		}()
		for m := c.Topology().Bridges["br0"].Mirrors; len(m) == 0 || m[0].SelectVLAN[0] != i%4096; m = c.Topology().Bridges["br0"].Mirrors {
			<-wake
		}
		stop()
		<-ended
	}
}
