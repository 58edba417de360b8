package store_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/tapwall/tapwall/internal/backend"
	"github.com/tapwall/tapwall/internal/store"
	"github.com/tapwall/tapwall/policy"
)

// authority makes certificates for both sides.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert, a.key = a.issue(t, "ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// issue writes name.pem and name-key.pem.
func (a *authority) issue(t *testing.T, name string, tmpl *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl.SerialNumber, tmpl.Subject, tmpl.NotAfter = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}, time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, b := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + "-key.pem": {Type: "PRIVATE KEY",
		Bytes: keyDER}} {
		if err := os.WriteFile(a.file(file), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestExternalTLS(t *testing.T) {
	ca := newAuthority(t)
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	ca.issue(t, "server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: both})
	ca.issue(t, "client", &x509.Certificate{ExtKeyUsage: both})
	other := newAuthority(t)
	c := startCluster(t, func(cfg *embed.Config) {
		cfg.ListenClientUrls[0].Scheme, cfg.AdvertiseClientUrls[0].Scheme = "https", "https"
		cfg.ClientTLSInfo = transport.TLSInfo{CertFile: ca.file("server.pem"), KeyFile: ca.file("server-key.pem"),
			TrustedCAFile: ca.file("ca.pem"), ClientCertAuth: true}
	})
	good := store.Options{External: []string{"https://" + c.addr}, CAFile: ca.file("ca.pem"), CertFile: ca.file("client.pem"),
		KeyFile: ca.file("client-key.pem")}
	s := open(t, good)
	put(t, s, group("a", "10.0.0.0/8"))
	if st := s.Status(); st.Kind != "external" || !st.Connected {
		t.Errorf("%+v", st)
	}
	for _, tt := range []struct {
		name   string
		change func(*store.Options)
		want   string
	}{
		{"bad no client certificate", func(o *store.Options) { o.CertFile, o.KeyFile = "", "" }, "store: etcd at https://" + c.addr +
			": remote error: tls: certificate required"},
		{"bad authority", func(o *store.Options) { o.CAFile = other.file("ca.pem") }, "store: etcd at https://" + c.addr +
			": tls: failed to verify certificate"},
		{"bad plain text", func(o *store.Options) {
			*o = store.Options{External: []string{"http://" + c.addr}, StartTimeout: o.StartTimeout}
		}, "store: etcd at http://" + c.addr + ": the endpoint speaks TLS: write https://"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := good
			o.StartTimeout = 3 * time.Second // a handshake on a busy machine
			tt.change(&o)
			s, err := store.Open(t.Context(), o)
			if err == nil {
				t.Fatal("no error", s.Close())
			}
			if !errors.Is(err, backend.ErrUnavailable) || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s…", err, tt.want)
			}
		})
	}
}

// TestExternalLimits sends more than etcd's defaults take at once.
func TestExternalLimits(t *testing.T) {
	c := startCluster(t, nil)
	s := open(t, store.Options{External: []string{"http://" + c.addr}})
	many := func(n int, spec func(*policy.Group)) []backend.Change {
		var out []backend.Change
		for i := range n {
			g := group(fmt.Sprintf("g%d", i), "10.0.0.0/8")
			spec(g)
			out = append(out, backend.Change{Kind: policy.KindGroup, Name: g.Name, Resource: g})
		}
		return out
	}
	if _, err := s.Commit(t.Context(), many(129, func(*policy.Group) {})); !errors.Is(err, backend.ErrTooLarge) {
		t.Errorf("129 changes: %v", err)
	}
	// One long text and not many short ones: encoding those takes most of the time that a busy machine has for the request. It cannot be
	// compressed.
	noise := make([]byte, 3<<19)
	_, _ = rand.Read(noise)
	huge := func(g *policy.Group) { g.Spec.Members[0].CIDR = base64.StdEncoding.EncodeToString(noise) }
	if _, err := s.Commit(t.Context(), many(2, huge)); !errors.Is(err, backend.ErrTooLarge) {
		t.Errorf("3 MB: %v", err)
	}
	if _, err := s.Commit(t.Context(), many(128, func(*policy.Group) {})); err != nil {
		t.Errorf("128 changes: %v", err)
	}
}
