package search

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/test/lab"
)

// stage is a lab with bridge br0, machines, and tapwall, which exports to the server through a proxy inside of the lab.
type stage struct {
	*lab.Lab
	t      *testing.T
	tw     *lab.Tapwall
	vm     []*lab.VM // vm[1] is vm1
	proxy  *lab.FaultProxy
	prefix string
}

func open(t *testing.T, prefix string, machines int) *stage {
	t.Helper()
	return openWith(t, prefix, machines, "")
}

// openWith is open with more of a configuration.
func openWith(t *testing.T, prefix string, machines int, more string) *stage {
	t.Helper()
	s := &stage{Lab: lab.Require(t), t: t, vm: []*lab.VM{nil}, prefix: prefix}
	must(t, s.AddBridge("br0"))
	for i := 1; i <= machines; i++ {
		vm, err := s.AddVM(fmt.Sprintf("vm%d", i), "br0", i)
		must(t, err)
		s.vm = append(s.vm, vm)
	}
	var err error
	s.proxy, err = lab.NewFaultProxy(server.URL, &s.Switch)
	must(t, err)
	t.Cleanup(s.proxy.Close)
	t.Cleanup(func() { must(t, server.JSON("DELETE", "/"+prefix+"-*", "", nil)) })
	config := filepath.Join(s.Dir, "tapwall.yaml")
	text := fmt.Sprintf("sinks: {opensearch: {urls: [%q], index-prefix: %s}}\n%s", s.proxy.URL, prefix, more)
	must(t, os.WriteFile(config, []byte(text), 0o600))
	s.tw, err = s.StartTapwall("--config", config, "--bridge", "br0=owned")
	must(t, err)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *stage) tapwall(args ...string) string {
	s.t.Helper()
	out, err := s.tw.Run(args...)
	if err != nil {
		s.t.Fatalf("tapwall %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// account waits until all is delivered, and holds the figures of the status to the index.
func (s *stage) account(within time.Duration) event.Counters {
	s.t.Helper()
	var c event.Counters
	var x event.SinkStatus
	lab.Eventually(s.t, within, "all is delivered", func() bool {
		c = s.counters()
		for _, sink := range c.Sinks {
			if sink.Name == "opensearch" {
				x = sink
			}
		}
		return x.Name != "" && c.Pending == 0 && x.Pending == 0 && x.Appended == c.Spool.Events
	})
	lost := int64(0)
	for stage, n := range c.Lost {
		if event.Stage(stage).BeforeAcceptance() {
			lost += n
		}
	}
	n, err := server.Count(s.prefix+"-all", "")
	must(s.t, err)
	distinct, err := server.Distinct(s.prefix+"-all", "event.id")
	must(s.t, err)
	e := x.Export
	if c.Observed != c.Accepted+lost || int64(n) != x.Appended-e.DeadLetters-e.Expired-e.Corrupt || distinct != n {
		s.t.Errorf("%d documents, %d ids; %+v, %+v", n, distinct, c, e)
	}
	return c
}

// What a rule denies is seen by whoever looks: observe, the rule's counter, the switch, and the index within seconds.
func TestEventsScenario01DenySeen(t *testing.T) {
	s := open(t, "live01", 2)
	must(t, s.Serve(s.vm[2], 23, 80))
	must(t, s.tw.Apply(`kind: Policy
name: db
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: no-telnet, action: deny, services: [{protocol: tcp, ports: ["23"]}], log: true}
  - {name: web, action: allow, services: [{protocol: tcp, ports: ["80"]}]}
`))
	if !s.vm[1].CanConnect(s.vm[2].IPv4, 80, 2*time.Second) {
		t.Fatal("what is allowed does not pass")
	}
	time.Sleep(2 * time.Second) // what is counted while flows change is nobody's
	s.denials(23, 100)
	begin := time.Now()
	var out []string
	lab.Eventually(t, 5*time.Second, "100 denials are observed", func() bool {
		out = nil
		for line := range strings.Lines(s.tapwall("observe", "--verdict", "DROPPED", "--to-port", "23", "--last", "500", "-o", "json")) {
			if strings.HasPrefix(line, "{") { // the others say where it was looked
				out = append(out, line)
			}
		}
		return len(out) == 100
	})
	for _, line := range out {
		var e event.Event
		if json.Unmarshal([]byte(line), &e) != nil || e.Rule == nil || e.Rule.ID != "db/ingress/no-telnet" {
			t.Fatalf("%s", line)
		}
	}
	query := `{"bool":{"filter":[{"term":{"rule.id":"db/ingress/no-telnet"}},{"term":{"tapwall.verdict":"DROPPED"}},
		{"term":{"source.ip":"10.77.0.0/16"}},{"range":{"source.port":{"gte":20000,"lt":20100}}}]}}`
	lab.Eventually(t, 10*time.Second, "100 documents", func() bool {
		n, err := server.Count("live01-flow", query)
		return err == nil && n == 100
	})
	t.Logf("the last of 100 denials was a document after %v", time.Since(begin).Round(time.Millisecond))
	// 100 packets, of a flow that names the rule's cookie.
	lab.Eventually(t, 10*time.Second, "the rule's counter has them", func() bool { return s.denied("db", "no-telnet") == 100 })
	out2, err := s.Ofctl("dump-flows", "br0")
	must(t, err)
	counted := 0
	for line := range strings.Lines(out2) {
		if strings.Contains(line, "n_packets=100,") {
			counted++
		}
	}
	if counted == 0 {
		t.Errorf("no flow has counted 100 packets:\n%s", out2)
	}
	s.account(20 * time.Second)
	out3 := s.tapwall("export", "test")
	if !strings.Contains(out3, "opensearch "+server.Version) || !strings.Contains(out3, "An event arrived after") {
		t.Errorf("export test:\n%s", out3)
	}
	if out := s.tapwall("export", "status"); !strings.Contains(out, "waiting 0, dead letters 0, expired 0, corrupt 0") {
		t.Errorf("export status:\n%s", out)
	}
	tested, err := server.Count("live01-audit", `{"term":{"event.action":"export-tested"}}`)
	if err != nil || tested != 1 {
		t.Errorf("%d tests are in the index (%v)", tested, err)
	}
	// A server that is away: the health says so, what is managed goes on.
	must(t, s.proxy.All(lab.Refuse))
	s.vm[1].CanConnect(s.vm[2].IPv4, 23, 100*time.Millisecond)
	lab.Eventually(t, 10*time.Second, "the status tells of it", func() bool {
		out, _ := s.tw.Run("status")
		return strings.Contains(out, "event sink opensearch: ") && strings.Contains(out, "takes nothing since")
	})
	if out, err := s.tw.Run("export", "status"); err == nil || !strings.Contains(out, "connection refused") {
		t.Errorf("export status of a server that is away: %v\n%s", err, out)
	}
	must(t, s.tw.Apply("kind: Group\nname: g\nspec: {members: [{port: vm1}]}\n"))
	if out, err := s.tw.Run("export", "test"); err == nil || !strings.Contains(out, "connection refused") {
		t.Errorf("export test of a server that is away: %v\n%s", err, out)
	}
	must(t, s.proxy.All(lab.NoFault))
	s.account(time.Minute)
}

// denied is what the status of a policy says of a rule.
func (s *stage) denied(name, rule string) int {
	s.t.Helper()
	var doc struct {
		Status struct {
			Hosts []struct {
				Rules []struct {
					Name   string
					Denied int
				}
			}
		}
	}
	must(s.t, json.Unmarshal([]byte(s.tapwall("get", "policy", name, "-o", "json")), &doc))
	for _, h := range doc.Status.Hosts {
		for _, r := range h.Rules {
			if r.Name == rule {
				return r.Denied
			}
		}
	}
	return -1
}

// Killed in the midst of traffic, tapwall goes on where it was: no event twice, none lost that was accepted.
func TestEventsScenario03KilledUnderTraffic(t *testing.T) {
	s := open(t, "live03", 2)
	must(t, s.Serve(s.vm[2], 80))
	must(t, s.tw.Apply("kind: Policy\nname: web\nspec: {appliesTo: [{port: vm2}], ingress: [{name: web, action: allow, log: true, "+
		"services: [{protocol: tcp, ports: [\"80\"]}]}], defaultDeny: {log: true}}\n"))
	var stop sync.WaitGroup
	quit := make(chan struct{})
	stop.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-quit:
				return
			default:
			}
			s.vm[1].CanConnect(s.vm[2].IPv4, 80, time.Second)
			if f, err := s.vm[1].CraftTCP(s.vm[1].IPv4, s.vm[2], uint16(1024+i%60000), 81, 2); err == nil {
				_ = s.vm[1].Send(f)
			}
		}
	})
	for range 4 {
		time.Sleep(1200 * time.Millisecond)
		s.tw.Kill()
		must(t, s.tw.Start())
	}
	close(quit)
	stop.Wait()
	s.account(time.Minute)
	if n, err := server.Count("live03-flow", `{"term":{"destination.port":81}}`); err != nil || n < 20 {
		t.Errorf("%d denials are in the index (%v)", n, err)
	}
	status, b, err := server.Do(http.MethodGet, "/live03-flow/_search?size=1&q=tapwall.verdict:FORWARDED", "")
	if err != nil || status != 200 || !strings.Contains(string(b), `"rule":{"id":"web/ingress/web"`) {
		t.Errorf("%d %s %v", status, b, err)
	}
}

// What somebody says inside of a tunnel is found by who says it, with the tunnel's number.
func TestEventsTunnelledRequest(t *testing.T) {
	s := open(t, "livevx", 2)
	must(t, s.tw.Apply("kind: Mirror\nname: collector\nspec: {sources: [{port: vm2}], targets: [{events: {}}]}\n"))
	inner, err := lab.CraftFrame("02:aa:00:00:00:01", "02:aa:00:00:00:02", layers.EthernetTypeIPv4,
		&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.IP{172, 16, 0, 5}, DstIP: net.IP{172, 16, 0, 9}},
		&layers.TCP{SrcPort: 40001, DstPort: 80, ACK: true, PSH: true, Window: 100},
		gopacket.Payload("GET /secret?token=1 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: lab\r\n\r\n"))
	must(t, err)
	outer, err := lab.CraftFrame(s.vm[1].MAC, s.vm[2].MAC, layers.EthernetTypeIPv4,
		&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP(s.vm[1].IPv4), DstIP: net.ParseIP(s.vm[2].IPv4)},
		&layers.UDP{SrcPort: 50000, DstPort: 4789}, gopacket.Payload(append([]byte{8, 0, 0, 0, 1, 0xf8, 0x21, 0}, inner...)))
	must(t, err)
	must(t, s.vm[1].Send(outer))
	query := `{"bool":{"filter":[{"term":{"source.ip":"172.16.0.5"}},{"term":{"destination.port":80}},{"term":{"tapwall.tunnel.vni":129057}},
		{"term":{"tapwall.tunnel.local":"` + s.vm[1].IPv4 + `"}},{"term":{"event.action":"http-request"}},{"term":{"url.domain":"shop.example"}},
		{"term":{"tapwall.mirror":"collector"}}]}}`
	lab.Eventually(t, 10*time.Second, "the request is a document", func() bool {
		n, err := server.Count("livevx-packet", query)
		return err == nil && n == 1
	})
	s.account(20 * time.Second)
}
