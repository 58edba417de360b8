package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/test/lab"
)

// documents are the events in the file that events go to.
func (s *stage) documents(want func(*event.Event) bool) (out []event.Event) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.tw.DataDir(), "events", "events*.jsonl"))
	must(s.t, err)
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(s.t, err)
		for line := range strings.Lines(string(data)) {
			var e event.Event
			if !strings.HasSuffix(line, "\n") {
				continue // it is being written
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				s.t.Fatalf("%v: %s", err, line)
			}
			if want(&e) {
				out = append(out, e)
			}
		}
	}
	return out
}

// question is a message that asks for the addresses of a name.
func question(t testing.TB, id uint16, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	n, err := dnsmessage.NewName(name)
	must(t, err)
	b, err := (&dnsmessage.Message{Header: dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: n, Type: kind, Class: dnsmessage.ClassINET}}}).Pack()
	must(t, err)
	return b
}

// answered is the answer to a question: an address, good for a second.
func answered(question []byte, addr netip.Addr) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil {
		return nil, err
	}
	m.Response = true
	if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1},
			Body: &dnsmessage.AResource{A: addr.As4()}}}
	}
	return m.Pack()
}

// resolve has a machine answer every DNS question with an address.
func (s *stage) resolve(vm *lab.VM, addr netip.Addr) {
	s.t.Helper()
	var pc net.PacketConn
	must(s.t, vm.Do(func() (err error) {
		pc, err = net.ListenPacket("udp", ":53")
		return err
	}))
	s.OnClose(pc.Close)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if b, err := answered(buf[:n], addr); err == nil {
				_, _ = pc.WriteTo(b, from)
			}
		}
	}()
}

// lookUp sends DNS questions by one socket, each after the answer to the one before, and fails without answers.
func (s *stage) lookUp(from, server *lab.VM, questions ...[]byte) {
	s.t.Helper()
	c, err := from.Dial("udp", server.IPv4, 53, time.Second)
	must(s.t, err)
	defer c.Close()
	for _, q := range questions {
		must(s.t, c.SetDeadline(time.Now().Add(3*time.Second)))
		_, err := c.Write(q)
		must(s.t, err)
		_, err = c.Read(make([]byte, 4096))
		must(s.t, err)
	}
}

// strangers are two machines that the switch knows to be no endpoints.
func (s *stage) strangers() (*lab.VM, *lab.VM) {
	s.t.Helper()
	a, b := s.stranger("up1", 9), s.stranger("up2", 10)
	lab.Eventually(s.t, 10*time.Second, "the strangers are no endpoints", func() bool {
		flows, err := s.Ofctl("dump-flows", "br0")
		must(s.t, err)
		return strings.Contains(flows, s.vm[1].MAC) && !strings.Contains(flows, a.MAC) && !strings.Contains(flows, b.MAC)
	})
	return a, b
}

// website has a machine serve HTTP on port 80 and TLS on port 443.
func (s *stage) website(vm *lab.VM) {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(s.t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(s.t, err)
	conf := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}, NextProtos: []string{"http/1.1"}}
	for _, port := range []string{":80", ":443"} {
		var ln net.Listener
		must(s.t, vm.Do(func() (err error) {
			ln, err = net.Listen("tcp", port)
			return err
		}))
		if port == ":443" {
			ln = tls.NewListener(ln, conf)
		}
		server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTeapot)
		})}
		s.OnClose(server.Close)
		go func() { _ = server.Serve(ln) }()
	}
}

// get asks for a path by a connection and waits for the answer.
func get(t testing.TB, c net.Conn, host, path string) {
	t.Helper()
	must(t, c.SetDeadline(time.Now().Add(3*time.Second)))
	_, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nUser-Agent: probe/1\r\n\r\n")
	must(t, err)
	_, err = c.Read(make([]byte, 4096))
	must(t, err)
}

// Scenario 12: a machine asks DNS and talks TLS and HTTP to a station that is no endpoint. What it asked is in the record without anything
// being asked for, and all that it sends there then has the name, also when the answer is old. A mirror with the target events has what
// TLS and HTTP say. A station that nobody asked DNS for has its address only.
func TestEventsScenario12NamesAndMessages(t *testing.T) {
	t.Parallel()
	s := open(t, 1)
	site, other := s.strangers()
	s.resolve(other, netip.MustParseAddr(site.IPv4))
	s.website(site)
	s.website(other)
	// Two questions by one socket, as resolvers of programs do: the second is no first packet of a connection.
	s.lookUp(s.vm[1], other, question(t, 7, "api.example.com.", dnsmessage.TypeAAAA), question(t, 8, "api.example.com.", dnsmessage.TypeA))
	dns := func(action string) []event.Event {
		return s.documents(func(e *event.Event) bool { return e.Event.Action == action })
	}
	lab.Eventually(t, 10*time.Second, "questions and answers are recorded", func() bool {
		return len(dns(event.ActionDNSQuery)) == 2 && len(dns(event.ActionDNSResponse)) == 2
	})
	q, a := dns(event.ActionDNSQuery)[1], dns(event.ActionDNSResponse)[1]
	for _, e := range []event.Event{q, a} {
		if e.Source.IP != s.vm[1].IPv4 || e.Destination.Port != 53 || e.Tapwall.Source.PortName != "vm1" ||
			e.Tapwall.Verdict != event.Forwarded ||
			e.DNS.Question == nil || e.DNS.Question.Name != "api.example.com" || e.DNS.ID != "8" || e.Tapwall.Truncated {
			t.Errorf("%+v %+v", e, e.DNS)
		}
	}
	if !slices.Equal(a.DNS.ResolvedIP, []string{site.IPv4}) || a.DNS.ResponseCode != "NOERROR" {
		t.Errorf("%+v", a.DNS)
	}
	if out := s.tapwall("observe", "--action", event.ActionDNSResponse, "--last", "1"); !strings.Contains(out,
		`<- 10.77.0.10:53 dns-response ALLOWED (DNS Answer "10.77.0.9" TTL: 1 (Query api.example.com. A))`) {
		t.Error(out)
	}

	s.apply("kind: Mirror\nname: m\nspec: {sources: [{port: vm1}], targets: [{events: {}}]}\n")
	plain, err := s.vm[1].Dial("tcp", site.IPv4, 443, 3*time.Second)
	must(t, err)
	c := tls.Client(plain, &tls.Config{ServerName: "api.example.com", InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	defer c.Close()
	must(t, c.Handshake())
	get(t, c, "api.example.com", "/secret")
	time.Sleep(1500 * time.Millisecond) // the answer has expired
	get(t, c, "api.example.com", "/secret")
	web, err := s.vm[1].Dial("tcp", site.IPv4, 80, 3*time.Second)
	must(t, err)
	defer web.Close()
	get(t, web, "api.example.com:80", "/seen?token=secret")
	unnamed, err := s.vm[1].Dial("tcp", other.IPv6, 443, 3*time.Second)
	must(t, err)
	nameless := tls.Client(unnamed, &tls.Config{InsecureSkipVerify: true})
	defer nameless.Close()
	must(t, nameless.Handshake())

	mirrored := func(want func(*event.Event) bool) []event.Event {
		return s.documents(func(e *event.Event) bool { return e.Tapwall.Mirror == "m" && want(e) })
	}
	one := func(action, to string) *event.Event {
		t.Helper()
		var got []event.Event
		lab.Eventually(t, 10*time.Second, action, func() bool {
			got = mirrored(func(e *event.Event) bool {
				return e.Event.Action == action && (e.Destination.IP == to || e.Source.IP == to)
			})
			return len(got) > 0
		})
		return &got[0]
	}
	hello := one(event.ActionClientHello, site.IPv4)
	if hello.TLS.Client == nil || hello.TLS.Client.ServerName != "api.example.com" || hello.TLS.Version != "1.3" ||
		hello.TLS.NextProtocol != "http/1.1" || hello.Destination.Domain != "api.example.com" ||
		hello.Tapwall.Destination.NamesSource != event.NamesFromDNS {
		t.Errorf("%+v %+v %+v", hello, hello.TLS, hello.Tapwall.Destination)
	}
	if x := one(event.ActionHTTPRequest, site.IPv4); x.HTTP.Request.Method != "GET" || x.URL.Domain != "api.example.com" ||
		x.URL.Path != "/seen" || x.UserAgent.Original != "probe/1" {
		t.Errorf("%+v %+v %+v", x.HTTP, x.URL, x.UserAgent)
	}
	if x := one(event.ActionHTTPResponse, site.IPv4); x.HTTP.Response.StatusCode != http.StatusTeapot || x.Source.Domain != "api.example.com" {
		t.Errorf("%+v %+v", x.HTTP, x.Source)
	}
	if x := one(event.ActionClientHello, other.IPv6); x.TLS.Client != nil || x.Destination.Domain != "" {
		t.Errorf("%+v %+v", x.TLS, x.Destination)
	}
	packets := mirrored(func(e *event.Event) bool { return e.Destination != nil && e.Destination.IP == site.IPv4 })
	if len(packets) < 10 {
		t.Errorf("%d packets", len(packets))
	}
	for _, e := range packets {
		if e.Network.Transport == "tcp" && e.Destination.Domain != "api.example.com" {
			t.Errorf("at %v: %+v", e.Timestamp, e.Destination)
		}
	}
	lab.Eventually(t, 10*time.Second, "the connection itself has the name", func() bool {
		all := s.documents(func(e *event.Event) bool {
			return e.Event.Action == event.ActionVerdict && e.Destination.IP == site.IPv4 && e.Destination.Domain == "api.example.com"
		})
		return len(all) == 2 // to 443 and to 80
	})
	if out := s.tapwall("observe", "--action", event.ActionClientHello, "--to-ip", site.IPv4, "--last", "1"); !strings.Contains(out,
		"-> api.example.com(10.77.0.9):443 tls-client-hello:m MIRRORED (TLS 1.3 ClientHello SNI: api.example.com ALPN: http/1.1") {
		t.Error(out)
	}
	if all := s.documents(func(*event.Event) bool { return true }); strings.Contains(sprintf("%+v", all), "secret") {
		t.Error("the record holds what was carried")
	}
}

// Scenario 11: names that would steer a terminal or a page are text, wherever they are shown; what nobody asked for names nothing; and no
// number of names makes more of metrics than there were.
func TestEventsScenario11HostileDNS(t *testing.T) {
	t.Parallel()
	s := open(t, 1)
	site, resolver := s.strangers()
	s.website(site)
	s.resolve(resolver, netip.MustParseAddr(site.IPv4))
	named := func() string {
		t.Helper()
		s.mustConnect(s.vm[1], site.IPv4, 5000)
		last := len(s.documents(func(e *event.Event) bool { return e.Tapwall.Mirror == "m" && e.Destination.IP == site.IPv4 }))
		var got []event.Event
		s.mustConnect(s.vm[1], site.IPv4, 5000)
		lab.Eventually(t, 10*time.Second, "a packet is recorded", func() bool {
			got = s.documents(func(e *event.Event) bool { return e.Tapwall.Mirror == "m" && e.Destination.IP == site.IPv4 })
			return len(got) > last
		})
		return got[len(got)-1].Destination.Domain
	}
	s.apply("kind: Mirror\nname: m\nspec: {sources: [{port: vm1}], targets: [{events: {}}]}\n")
	// An answer that nobody asked for, to a port that somebody listens on.
	must(t, s.vm[1].Do(func() error {
		pc, err := net.ListenPacket("udp", ":40053")
		if err == nil {
			s.OnClose(pc.Close)
		}
		return err
	}))
	spoofed, err := answered(question(t, 9, "evil.example.", dnsmessage.TypeA), netip.MustParseAddr(site.IPv4))
	must(t, err)
	s.say(resolver, s.vm[1], 53, 40053, string(spoofed))
	lab.Eventually(t, 10*time.Second, "the answer that nobody asked for is recorded", func() bool {
		return len(s.documents(func(e *event.Event) bool { return e.DNS != nil && e.DNS.Type == "answer" })) > 0
	})
	if got := named(); got != "" {
		t.Errorf("an answer that nobody asked for: %q", got)
	}

	hostile := []string{"\x1b[31mred\x1b[0m", "cr\r\nlf", "nul\x00", "bidi\u202eevil", "<script>alert(1)</script>", "\x9b31m", "bad\xff\xfe",
		strings.Repeat(strings.Repeat("\x1b", 62)+".", 4) + "x"}
	for i, name := range hostile {
		s.lookUp(s.vm[1], resolver, question(t, uint16(i), name+".", dnsmessage.TypeA))
	}
	if got := named(); got != "" {
		t.Errorf("a hostile name names: %q", got)
	}
	lab.Eventually(t, 10*time.Second, "all names are recorded", func() bool {
		return len(s.documents(func(e *event.Event) bool { return e.Event.Action == event.ActionDNSQuery })) >= 2*len(hostile)
	})
	for _, format := range [][]string{{"-o", "compact"}, {"-o", "json"}} {
		out := s.tapwall(append([]string{"observe", "--all", "--color", "never"}, format...)...)
		if i := strings.IndexAny(out, "\x1b\r\x00\u009b\u202e\ufffd"); i >= 0 || !strings.Contains(out, "script") {
			t.Errorf("%v at %d: %q", format, i, out[max(0, i-200):min(len(out), i+50)])
		}
	}
	if n := len(s.documents(func(e *event.Event) bool { return e.Tapwall.Truncated })); n < 4 {
		t.Errorf("%d events say that something was too long", n)
	}

	s.lookUp(s.vm[1], resolver, question(t, 10, "Good.example.", dnsmessage.TypeA))
	if got := named(); got != "good.example" {
		t.Errorf("the next good name: %q", got)
	}
	s.series() // which is counted, too
	before := s.series()
	var many [][]byte
	last := ""
	for i := range 1000 {
		last = sprintf("n%d.%x.example", i, i*7919)
		many = append(many, question(t, uint16(i), last+".", dnsmessage.TypeA))
	}
	s.lookUp(s.vm[1], resolver, many...)
	lab.Eventually(t, 20*time.Second, "the last name is used", func() bool {
		s.lookUp(s.vm[1], resolver, many[len(many)-1]) // copies of one may have been lost
		return named() == last
	})
	for series := range s.series() {
		if _, was := before[series]; !was {
			t.Errorf("%s is new", series)
		}
	}
	if n := s.metric("tapwall_dns_cache_entries"); n != 1 {
		t.Errorf("%v addresses have names", n)
	}
}

// A flood of DNS messages costs copies, each of which is counted as lost.
func TestMessagesFlood(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	must(t, s.Serve(s.vm[2], 53))
	s.pickupClosed()
	s.revalidated()
	time.Sleep(3 * time.Second) // behind a change of flows losses are hidden by what comes late
	flood := s.datagrams(s.vm[1], s.vm[2], 53, 250*time.Microsecond)
	s.running(flood)
	copied := func() int64 {
		return int64(s.packets("table=211", "priority=10", "meter_id") + s.packets("table=212", "priority=150", "meter_id"))
	}
	asked, err := lab.CraftFrame(s.vm[1].MAC, s.vm[2].MAC, layers.EthernetTypeIPv4,
		&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP(s.vm[1].IPv4), DstIP: net.ParseIP(s.vm[2].IPv4)},
		&layers.UDP{SrcPort: 5353, DstPort: 53}, gopacket.Payload("question"))
	must(t, err)
	burst := slices.Repeat([][]byte{asked}, 2000)
	lab.Eventually(t, 60*time.Second, "the meter withholds copies", func() bool {
		must(t, s.vm[1].Send(burst...)) // however slow the machine is
		m, err := s.Ofctl("meter-stats", "br0", "meter=31260")
		must(t, err)
		_, band, _ := strings.Cut(m, "0: packet_count:")
		return band != "" && band[0] != '0'
	})
	flood.Stop()
	var st struct {
		Events struct {
			Observed, Accepted, Pending int64
			Lost                        map[string]int64
		}
	}
	dns := func() int64 {
		return int64(sum(s.series(), "tapwall_events_total", `action="dns-`))
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		want := copied() // flows count up to half a second late
		must(t, json.Unmarshal([]byte(s.tapwall("status", "-o", "json")), &st))
		got := dns()
		told := got + st.Events.Lost["packet_in_meter"] + st.Events.Lost["switch_queue"]
		doubtful := int64(s.metric("tapwall_unattributed_copies_total")) // behind the change at the start
		if told <= want && told+doubtful >= want && copied() == want {
			t.Logf("%d messages: %d events, %v lost, %d perhaps", want, got, st.Events.Lost, doubtful)
			break
		}
		if time.Now().After(end) {
			t.Fatalf("of %d copies %d are events, %v are lost, %d perhaps", want, got, st.Events.Lost, doubtful)
		}
	}
	lost := int64(0)
	for stage, n := range st.Events.Lost {
		if event.Stage(stage).BeforeAcceptance() {
			lost += n
		}
	}
	if e := st.Events; e.Observed != e.Accepted+e.Pending+lost || e.Lost["packet_in_meter"] == 0 || dns() == 0 {
		t.Errorf("%+v", e)
	}
}
