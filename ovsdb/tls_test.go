package ovsdb_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tapwall/tapwall/internal/pki"
	"github.com/tapwall/tapwall/internal/pki/pkitest"
	"github.com/tapwall/tapwall/ovsdb"
	"github.com/tapwall/tapwall/ovsdb/ovsdbtest"
)

// sslDatabase is a database that speaks TLS only, with the files of a switch, and its address.
func sslDatabase(t *testing.T, sw pki.Files) (*ovsdbtest.OVS, string) {
	t.Helper()
	o := ovsdbtest.Prepare(t, nil)
	port := freePort(t)
	o.DBArgs = []string{fmt.Sprintf("--remote=pssl:%d:127.0.0.1", port),
		"--private-key=" + sw.Key, "--certificate=" + sw.Cert, "--ca-cert=" + sw.CA}
	o.StartDB()
	o.Vsctl("--no-wait", "add-br", "br0")
	return o, fmt.Sprintf("ssl:127.0.0.1:%d", port)
}

// with makes the options of a client that uses the files.
func with(t *testing.T, address string, f pki.Files) func(*ovsdb.Options) {
	t.Helper()
	config, err := f.Config()
	if err != nil {
		t.Fatal(err)
	}
	return func(o *ovsdb.Options) { o.Address, o.TLS = address, config }
}

// Certificates as ovs-pki makes them: one authority signs those of the switches, the other those of the controllers.
func TestTLSBothWays(t *testing.T) {
	switches, tapwalls := pkitest.NewAuthority(t, "switchca"), pkitest.NewAuthority(t, "controllerca")
	o, address := sslDatabase(t, switches.Issue("sw1", tapwalls))
	right := tapwalls.Issue("tapwall", switches)
	for _, name := range []string{"", "sw1"} {
		right.ServerName = name
		c := connected(t, o, with(t, address, right))
		if c.Topology().Bridges["br0"] == nil {
			t.Errorf("name %q: topology %+v", name, c.Topology())
		}
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
		t.Run(tt.what, func(t *testing.T) {
			c := run(t, o, with(t, address, tt.files))
			eventuallyStatus(t, c, tt.want)
			if c.Status().Connected || c.Topology() != nil {
				t.Error("there is a topology")
			}
		})
	}
}

// Who takes one for the other, TLS or plain text, is told.
func TestTLSMistaken(t *testing.T) {
	t.Parallel()
	switches, tapwalls := pkitest.NewAuthority(t, "switchca"), pkitest.NewAuthority(t, "controllerca")
	o, secure := sslDatabase(t, switches.Issue("sw1", tapwalls))
	listening, port := ovsdbtest.Prepare(t, nil), freePort(t)
	listening.DBArgs = []string{fmt.Sprintf("--remote=ptcp:%d:127.0.0.1", port)}
	listening.StartDB()
	c := run(t, o, func(o *ovsdb.Options) { o.Address = "tcp" + strings.TrimPrefix(secure, "ssl") })
	eventuallyStatus(t, c, "perhaps it speaks TLS there (ssl:)")
	c = run(t, listening, with(t, fmt.Sprintf("ssl:127.0.0.1:%d", port), tapwalls.Issue("tapwall", switches)))
	eventuallyStatus(t, c, "it speaks none there (tcp:)")
}
