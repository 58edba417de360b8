package ofctrl_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/internal/pki"
	"github.com/tapwall/tapwall/internal/pki/pkitest"
	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
)

// A bridge that listens for TLS only, with certificates as ovs-pki makes them.
func TestTLSBothWays(t *testing.T) {
	t.Parallel()
	switches, tapwalls := pkitest.NewAuthority(t, "switchca"), pkitest.NewAuthority(t, "controllerca")
	o := startOVS(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	sw := switches.Issue("sw1", tapwalls)
	o.Vsctl("set-ssl", sw.Key, sw.Cert, sw.CA, "--",
		"--id=@c", "create", "Controller", fmt.Sprintf(`target="pssl:%d:127.0.0.1"`, port), "type=service", "--",
		"add", "Bridge", "br0", "controller", "@c")
	address := fmt.Sprintf("ssl:127.0.0.1:%d", port)

	right := tapwalls.Issue("tapwall", switches)
	right.ServerName = "sw1"
	opts := options(address)
	if opts.TLS, err = right.Config(); err != nil {
		t.Fatal(err)
	}
	s := run(t, opts)
	s.ready()
	if res := s.apply(ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": flows(100)}}); res.Added != 100 || res.Installed != 1 {
		t.Errorf("result %+v", res)
	}
	if n := count(o); n != 100 {
		t.Errorf("%d flows, want 100", n)
	}

	named := right
	named.ServerName = "sw2"
	for _, tt := range []struct {
		what  string
		files pki.Files
		want  string
	}{
		{"certificate that the switch does not know", switches.Issue("tapwall", switches), "does not accept our certificate"},
		{"switch of another authority", tapwalls.Issue("tapwall", tapwalls), "does not pass the CA in " + tapwalls.File},
		{"switch of another name", named, `not of "sw2"`},
	} {
		config, err := tt.files.Config()
		if err != nil {
			t.Fatal(err)
		}
		c, err := ofctrl.Dial(t.Context(), ofctrl.ConnOptions{Address: address, TLS: config})
		if err == nil {
			c.Close()
			t.Errorf("%s: connected", tt.what)
		} else if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.what, err, tt.want)
		} else {
			t.Logf("%s: %v", tt.what, err)
		}
	}
}
