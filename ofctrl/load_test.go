package ofctrl_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tapwall/tapwall/ofctrl"
	"github.com/tapwall/tapwall/ofctrl/flow"
	"github.com/tapwall/tapwall/ofctrl/ofp"
	"github.com/tapwall/tapwall/ofctrl/oftest"
)

// TestManyRefusals has the switch refuse thousands of messages: a client that does not read meanwhile would block for ever,
// since the switch stops reading when its answers pile up.
func TestManyRefusals(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	s := run(t, options(o.MgmtAddr("br0")))
	s.ready()
	const n = 30_000
	bad := flows(n)
	for i := range bad {
		bad[i].Actions = []flow.Action{flow.Group{ID: 4711}}
	}
	_, err := s.Apply(t.Context(), ofctrl.Update{Revision: 1, Owners: map[string][]flow.Flow{"a": bad}})
	if !errors.Is(err, ofp.BadOutGroup) {
		t.Errorf("in a bundle: %v", err)
	}
	if c := count(o); c != 0 {
		t.Errorf("%d flows on the switch", c)
	}

	conn, err := ofctrl.Dial(t.Context(), ofctrl.ConnOptions{Address: o.MgmtAddr("br0")})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = conn.Do(t.Context(), n, func(dst []byte, xid uint32, i int) ([]byte, error) {
		return ofp.AppendFlowMod(dst, xid, ofp.FlowAdd, &bad[i], ofp.FlowModOptions{})
	}, func(i int) ofctrl.Label { return ofctrl.Label{Op: "add", Object: fmt.Sprint(i)} })
	var re *ofctrl.RequestError
	if !errors.As(err, &re) || re.Index != 0 || re.Object != "0" || re.Err.Code != ofp.BadOutGroup {
		t.Errorf("one by one: %v", err)
	}
	if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != 1 && len(joined.Unwrap()) != 16 {
		t.Errorf("errors kept: %T", err)
	}
	if err := conn.Barrier(t.Context()); err != nil {
		t.Errorf("the connection afterwards: %v", err)
	}
}

// TestConcurrentApply applies from several goroutines, with queries between.
func TestConcurrentApply(t *testing.T) {
	t.Parallel()
	o := startOVS(t)
	s := run(t, options(o.MgmtAddr("br0")))
	s.ready()
	all := flows(400)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			name := fmt.Sprint("owner", g)
			for i := range 25 {
				u := ofctrl.Update{Revision: int64(g*25 + i), Owners: map[string][]flow.Flow{name: all[g*100 : g*100+4*i+4]}}
				if _, err := s.Apply(t.Context(), u); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if err := s.Nudge(t.Context()); err != nil {
					t.Errorf("nudge: %v", err)
				}
				if _, err := s.Flows(t.Context()); err != nil {
					t.Errorf("flows: %v", err)
				}
				s.State()
			}
		})
	}
	wg.Wait()
	st := s.State()
	if n := count(o); n != 400 || st.OurFlows != 400 || st.Missing != 0 || st.Stats.LostFlows != 0 || st.Stats.Resyncs != 1 {
		t.Errorf("%d flows, %+v", n, st)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "switch"}, NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"switch.test"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f := oftest.NewFake(oftest.FakeOptions{DatapathID: 5})
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for range 2 {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { _ = f.Serve(c) })
		}
	})
	address := "ssl:" + net.JoinHostPort("127.0.0.1", fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	conn, err := ofctrl.Dial(t.Context(), ofctrl.ConnOptions{Address: address, TLS: &tls.Config{RootCAs: pool, ServerName: "switch.test"}})
	if err != nil {
		t.Fatal(err)
	}
	if id := conn.Features().DatapathID; id != 5 {
		t.Errorf("datapath id %d, want 5", id)
	}
	conn.Close()
	_, err = ofctrl.Dial(t.Context(), ofctrl.ConnOptions{Address: address, TLS: &tls.Config{ServerName: "switch.test"}})
	if unknown := (x509.UnknownAuthorityError{}); !errors.As(err, &unknown) {
		t.Errorf("with an unknown authority: %v", err)
	}
}
