// Package pki makes the TLS configuration for everything that tapwall dials on a switch: the database (ssl:) and OpenFlow (ssl: to a
// pssl: listener). Both sides show a certificate; the one of the switch is checked against a CA, and against a name if there is one. Roots
// reads the authorities of any other server, too.
package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// Files names PEM files, and whom they are for. The files are read once, by Config.
type Files struct {
	Cert, Key string // what tapwall shows; the switch's CA has to know it
	CA        string // who has to have signed what the switch shows

	// ServerName is the name that the switch's certificate has to bear: as a subject alternative name (RFC 6125 §6.4; an IP address
	// too), or in the common name, which may be the whole of it or, as ovs-pki writes "NAME id:UUID", NAME.
	//
	// Without it the chain alone is checked, against CA: every certificate of that CA passes, also one of another switch. The address
	// that is dialled is never compared, because certificates of ovs-pki bear none.
	ServerName string
}

// Config reads the files. The error names the file that cannot be used.
func (f Files) Config() (*tls.Config, error) {
	if f.CA == "" || f.Cert == "" || f.Key == "" {
		return nil, errors.New("cert, key and ca are all needed")
	}
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	roots, err := Roots(f.CA)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		Certificates:       []tls.Certificate{cert},
		InsecureSkipVerify: true, // replaced by the check below, which looks at the chain in any case
		VerifyConnection: func(s tls.ConnectionState) error {
			return f.check(s.PeerCertificates, roots)
		},
	}, nil
}

// Roots reads the authorities of a file. The error names the file.
func Roots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return roots, nil
}

func (f Files) check(shown []*x509.Certificate, roots *x509.CertPool) error {
	if len(shown) == 0 {
		return errors.New("the switch shows no certificate")
	}
	leaf, between := shown[0], x509.NewCertPool()
	for _, c := range shown[1:] {
		between.AddCert(c)
	}
	// Any use: ovs-pki states none.
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return fmt.Errorf("the switch's certificate, of %q, does not pass the CA in %s: %w", leaf.Subject.CommonName, f.CA, err)
	}
	if f.ServerName == "" || leaf.VerifyHostname(f.ServerName) == nil {
		return nil
	}
	name, _, _ := strings.Cut(leaf.Subject.CommonName, " id:")
	if f.ServerName == name || f.ServerName == leaf.Subject.CommonName {
		return nil
	}
	return fmt.Errorf("the switch's certificate is of %q, not of %q", leaf.Subject.CommonName, f.ServerName)
}

const refusedCertificate = "it does not accept our certificate, which has to be signed by the CA that it trusts (ovs-vsctl get-ssl)"

// Refused says what an operator can do about a TLS connection that ended with err before the switch said anything; "" when err tells
// of something else. TLS 1.3 has no answer to our certificate (RFC 8446 §4.4.2.4): a switch that does not take it sends an alert and
// hangs up, and the alert may be lost on the way.
func Refused(err error) string {
	var op *net.OpError
	alert := errors.As(err, &op) && op.Op == "remote error"
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		alert = alert || errors.Is(err, end)
	}
	if !alert {
		return ""
	}
	if errors.As(err, &op) && op.Op == "remote error" {
		return "the switch has hung up on TLS: probably " + refusedCertificate
	}
	return "the switch has hung up on TLS: it speaks none there (tcp:), or " + refusedCertificate
}
