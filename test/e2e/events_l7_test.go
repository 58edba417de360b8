package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/test/lab"
)

// web has vm2 serve HTTP on a port, which answers with the status 418.
func (s *stage) web(port int, secure bool) *httptest.Server {
	s.t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusTeapot)
		if r.ContentLength < 1000 { // the switch sees an answer of several packets only if few came before it
			_, _ = w.Write(make([]byte, 20_000))
		}
	}))
	must(s.t, s.vm[2].Do(func() (err error) {
		srv.Listener, err = net.Listen("tcp", fmt.Sprint(":", port))
		return err
	}))
	if secure {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	s.t.Cleanup(srv.Close)
	return srv
}

// browse has vm1 ask for pages by one connection to an address and port of vm2.
func (s *stage) browse(srv *httptest.Server, scheme, to string, port int, body int, paths ...string) {
	s.t.Helper()
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return s.vm[1].Dial("tcp", to, port, 3*time.Second)
	}}
	if scheme == "https" {
		tr.TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		tr.TLSClientConfig.NextProtos = []string{"http/1.1"}
		tr.TLSClientConfig.MinVersion = tls.VersionTLS12
	}
	defer tr.CloseIdleConnections()
	for _, path := range paths {
		r, err := http.NewRequest(http.MethodPost, scheme+"://example.com"+path, strings.NewReader(strings.Repeat("x", body)))
		must(s.t, err)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		resp, err := tr.RoundTrip(r.WithContext(ctx))
		must(s.t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		must(s.t, err)
		_ = resp.Body.Close()
		cancel()
	}
}

// A rule with l7 says what a connection begins with, by both IP versions and after a restart: one request, one response, one hello, however
// much follows; and nothing for rules without. What it copies is bounded by connections, not by packets, and it lets nobody in.
func TestEventsRuleL7(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	plain, secure, deaf := s.web(8001, false), s.web(8002, true), s.web(8003, false)
	const rules = `
kind: Policy
name: web
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: heard, action: allow, services: [{protocol: tcp, ports: ["8001", "8002"]}], log: {l7: true}}
  - {name: sampled, action: allow, services: [{protocol: tcp, ports: ["5001"]}], log: {sample: 1/1, l7: true}}
  - {name: deaf, action: allow, services: [{protocol: tcp, ports: ["8003"]}]}
`
	s.force(rules)
	told := func(action string, n int) (out []event.Event) {
		t.Helper()
		lab.Eventually(t, 5*time.Second, fmt.Sprintf("%d events %s", n, action), func() bool {
			out = s.filed(action)
			return len(out) >= n
		})
		for _, e := range out {
			if w := e.Tapwall; e.Source.IP == "" || w.IngressRule == nil || w.IngressRule.ID != "web/ingress/heard" || w.Source.Name != "vm1" ||
				w.Destination.Name != "vm2" || w.Verdict != event.Forwarded || e.Destination.Port/10 != 800 || w.Weight != 0 {
				t.Fatalf("%+v", e)
			}
		}
		if len(out) != n {
			t.Errorf("%d events %s, want %d", len(out), action, n)
		}
		return out
	}
	connections := 0
	for round := range 2 {
		for i, to := range []string{s.vm[2].IPv4, s.vm[2].IPv6} {
			path := fmt.Sprintf("/one-%d-%d", round, i)
			s.browse(plain, "http", to, 8001, 10, path, "/two", "/three")
			s.browse(secure, "https", to, 8002, 10, "/hidden", "/hidden")
			s.browse(deaf, "http", to, 8003, 10, "/deaf")
			s.browse(plain, "http", to, 8001, 3_000_000, path+"/large")
			connections += 3
			n := 2 * (2*round + i + 1)
			requests := told(event.ActionHTTPRequest, n)
			for k, want := range []string{path, path + "/large"} {
				if e := requests[n-2+k]; e.URL.Path != want || e.URL.Domain != "example.com" || e.HTTP.Request.Method != "POST" || e.Source.IP == to ||
					e.Tapwall.CT.State[0] != "est" {
					b, _ := json.Marshal(e)
					t.Errorf("want %s: %s", want, b)
				}
			}
			for _, e := range told(event.ActionHTTPResponse, n) {
				if e.HTTP.Response.StatusCode != http.StatusTeapot || e.Destination.Port != 8001 {
					t.Errorf("%+v", e)
				}
			}
			hello := told(event.ActionClientHello, n/2)[n/2-1]
			if hello.TLS.Client == nil || hello.TLS.Client.ServerName != "example.com" || hello.TLS.NextProtocol != "http/1.1" ||
				hello.Destination.Port != 8002 {
				t.Errorf("%+v", hello.TLS)
			}
		}
		if round == 0 {
			must(t, s.tw.Stop())
			must(t, s.tw.Start())
		}
	}
	s.revalidated()
	copies, packets := s.packets("table=211", "7a.10"), s.packets("table=211")
	if copies < 3*connections || copies > 64*connections || packets < 10*copies {
		t.Errorf("%d of %d packets of %d connections were copied", copies, packets, connections)
	}
	t.Logf("%d of %d packets of %d connections were copied", copies, packets, connections)
	if n := len(s.filed(event.ActionSampled)); n != 0 {
		t.Errorf("%d packets of samples", n)
	}

	// With a sample, each packet is told of as well; what its data says is no message. When its rule goes, the connection does.
	live := s.echo(s.vm[1], s.vm[2], 5001)
	lab.Eventually(t, 5*time.Second, "packets of the sample", func() bool { return len(s.filed(event.ActionSampled)) > 50 })
	s.lossless(live, "a connection that is listened to")
	s.force(strings.Replace(rules, `ports: ["5001"]`, `ports: ["5002"]`, 1))
	before := live.Received()
	time.Sleep(500 * time.Millisecond)
	if n := live.Received() - before; n > 0 {
		t.Errorf("%d messages came back after the rule was gone", n)
	}
	told(event.ActionHTTPRequest, 8)
}
