package pki_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tapwall/tapwall/internal/pki"
	"github.com/tapwall/tapwall/internal/pki/pkitest"
)

// handshake lets a client with files meet a server with the certificate of server, and returns what the client says.
func handshake(t *testing.T, server, files pki.Files) error {
	t.Helper()
	config, err := files.Config()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(server.Cert, server.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if conn, err := l.Accept(); err == nil {
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}
	}()
	conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err == nil {
		conn.Close()
	}
	l.Close()
	<-done
	return err
}

func TestServerCertificate(t *testing.T) {
	ours, theirs := pkitest.NewAuthority(t, "ours"), pkitest.NewAuthority(t, "theirs")
	client := ours.Issue("tapwall", nil)
	sw := ours.Issue("sw1", nil, net.IPv4(192, 0, 2, 1))
	for _, tt := range []struct {
		what   string
		server pki.Files
		name   string
		want   string // "" = accepted
	}{
		{"OK chain", sw, "", ""},
		{"OK name as ovs-pki writes it", sw, "sw1", ""},
		{"OK whole common name", sw, "sw1 id:5a0b3c9e-6f8e-4c0e-9d0e-1f3b5a7c9d11", ""},
		{"OK address", sw, "192.0.2.1", ""},
		{"OK chain of another switch", ours.Issue("sw2", nil), "", ""},
		{"bad name", ours.Issue("sw2", nil), "sw1", `certificate is of "sw2 id:5a0b3c9e-6f8e-4c0e-9d0e-1f3b5a7c9d11", not of "sw1"`},
		{"bad beginning of a name", ours.Issue("sw11", nil), "sw1", `not of "sw1"`},
		{"bad address", sw, "192.0.2.2", `not of "192.0.2.2"`},
		{"bad authority", theirs.Issue("sw1", nil), "", "does not pass the CA in " + ours.File},
		{"bad authority with the name", theirs.Issue("sw1", nil), "sw1", "does not pass the CA in " + ours.File},
	} {
		t.Run(tt.what, func(t *testing.T) {
			files := client
			files.ServerName = tt.name
			err := handshake(t, tt.server, files)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// The certificates that Open vSwitch's own tool makes.
func TestOVSPKI(t *testing.T) {
	if _, err := exec.LookPath("ovs-pki"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("ovs-pki is needed when CI=true (Debian: openvswitch-common)")
		}
		t.Skip("ovs-pki is not installed (Debian: openvswitch-common)")
	}
	dir := t.TempDir()
	for _, args := range [][]string{{"init"}, {"req+sign", "sw1", "switch"}, {"req+sign", "tapwall", "controller"}} {
		cmd := exec.Command("ovs-pki", append([]string{"--dir=" + dir + "/pki", "--log=" + dir + "/log"}, args...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ovs-pki %v: %v\n%s", args, err, out)
		}
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	client := pki.Files{Cert: file("tapwall-cert.pem"), Key: file("tapwall-privkey.pem"), CA: file("pki/switchca/cacert.pem")}
	sw := pki.Files{Cert: file("sw1-cert.pem"), Key: file("sw1-privkey.pem")}
	for name, ok := range map[string]bool{"": true, "sw1": true, "sw2": false} {
		client.ServerName = name
		if err := handshake(t, sw, client); (err == nil) != ok {
			t.Errorf("name %q: %v", name, err)
		}
	}
	client.CA = file("pki/controllerca/cacert.pem")
	if err := handshake(t, sw, client); err == nil {
		t.Error("a certificate of the switches passes the CA of the controllers")
	}
}

func TestFiles(t *testing.T) {
	a := pkitest.NewAuthority(t, "a")
	good := a.Issue("tapwall", nil)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what  string
		files pki.Files
		want  string
	}{
		{"none", pki.Files{}, "all needed"},
		{"no CA", pki.Files{Cert: good.Cert, Key: good.Key}, "all needed"},
		{"missing certificate", pki.Files{Cert: "/none", Key: good.Key, CA: good.CA}, "certificate /none"},
		{"key of another", pki.Files{Cert: good.Cert, Key: a.Issue("x", nil).Key, CA: good.CA}, "does not match"},
		{"missing CA", pki.Files{Cert: good.Cert, Key: good.Key, CA: "/none"}, "/none"},
		{"empty CA", pki.Files{Cert: good.Cert, Key: good.Key, CA: empty}, "holds no certificate"},
	} {
		if _, err := tt.files.Config(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.what, err, tt.want)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, err := range []error{
		io.EOF, &net.OpError{Op: "read", Err: syscall.ECONNRESET}, &net.OpError{Op: "remote error", Err: errors.New("tls: bad")},
	} {
		if !strings.Contains(pki.Refused(err), "certificate") {
			t.Errorf("%v: nothing is said", err)
		}
	}
	for _, err := range []error{nil, errors.New("x"), &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}} {
		if s := pki.Refused(err); s != "" {
			t.Errorf("%v: %s", err, s)
		}
	}
}
