// Package pkitest makes certificates for tests, with the names that ovs-pki gives them: "NAME id:UUID" as common name and as the only
// subject alternative name.
package pkitest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tapwall/tapwall/internal/pki"
)

// Authority signs certificates. Its methods fail the test that made it.
type Authority struct {
	File string // its own certificate

	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes a CA whose files live as long as the test.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	a := &Authority{t: t}
	a.File, _, a.cert, a.key = a.make(name, &x509.Certificate{IsCA: true, BasicConstraintsValid: true})
	return a
}

// Issue makes a certificate of the authority that shows other, if not nil, as the CA to trust, else the authority itself. The IP
// addresses become subject alternative names beside the usual one.
func (a *Authority) Issue(name string, other *Authority, addrs ...net.IP) pki.Files {
	a.t.Helper()
	cn := name + " id:5a0b3c9e-6f8e-4c0e-9d0e-1f3b5a7c9d11"
	f := pki.Files{CA: a.File}
	f.Cert, f.Key, _, _ = a.make(cn, &x509.Certificate{DNSNames: []string{cn}, IPAddresses: addrs})
	if other != nil {
		f.CA = other.File
	}
	return f
}

func (a *Authority) make(name string, template *x509.Certificate) (
	certFile, keyFile string, cert *x509.Certificate, key *ecdsa.PrivateKey,
) {
	a.t.Helper()
	check := func(err error) {
		a.t.Helper()
		if err != nil {
			a.t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{Organization: []string{"Open vSwitch"}, CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	check(err)
	cert, err = x509.ParseCertificate(der)
	check(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	check(err)
	dir := a.t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	check(os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	check(os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return certFile, keyFile, cert, key
}
