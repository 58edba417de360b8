package l7_test

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/tapwall/tapwall/internal/packet/l7"
)

const (
	tcp = 6
	udp = 17
)

func read(proto uint8, port uint16, payload []byte) *l7.Message {
	var m l7.Message
	l7.Read(proto, 40000, port, payload, &m)
	return &m
}

// answer is a response to a question for the addresses of api.example.com., by way of an alias.
func answer(t testing.TB) []byte {
	t.Helper()
	name := dnsmessage.MustNewName
	header := func(n string) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: name(n), Class: dnsmessage.ClassINET, TTL: 25}
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, Response: true},
		Questions: []dnsmessage.Question{{Name: name("api.example.com."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		Answers: []dnsmessage.Resource{
			{Header: header("api.example.com."), Body: &dnsmessage.CNAMEResource{CNAME: name("a.cdn.example.")}},
			{Header: header("a.cdn.example."), Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 7}}},
			{Header: header("a.cdn.example."), Body: &dnsmessage.AAAAResource{AAAA: [16]byte{0x20, 1, 0xd, 0xb8, 15: 1}}},
			{Header: header("a.cdn.example."), Body: &dnsmessage.TXTResource{TXT: []string{"text"}}},
			{Header: header("7.2.0.192.in-addr.arpa."), Body: &dnsmessage.PTRResource{PTR: name("host.example.")}},
		},
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hello is what crypto/tls sends first.
func hello(t testing.TB) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(client, &tls.Config{ServerName: "api.example.com", NextProtos: []string{"h2", "http/1.1"}}).Handshake()
	}()
	b := make([]byte, 4096)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	_ = server.Close()
	<-done
	return b[:n]
}

func TestDNS(t *testing.T) {
	b := answer(t)
	overTCP := append([]byte{byte(len(b) >> 8), byte(len(b))}, b...)
	for _, m := range []*l7.Message{read(udp, 53, b), read(tcp, 53, overTCP)} {
		d := &m.DNS
		if m.Kind != l7.DNSResponse || m.Err != nil || m.Truncated || d.ID != 7 || d.RCode != 0 || d.Name.String() != "api.example.com." ||
			l7.TypeName(d.Type) != "A" || d.Answers != 5 {
			t.Fatalf("%v %v: %+v", m.Kind, m.Err, d.Name)
		}
		for i, want := range []string{"api.example.com. CNAME a.cdn.example. invalid IP", "a.cdn.example. A  192.0.2.7",
			"a.cdn.example. AAAA  2001:db8::1", "a.cdn.example. TXT  invalid IP", "7.2.0.192.in-addr.arpa. PTR host.example. invalid IP"} {
			a := &d.Answer[i]
			if got := a.Name.String() + " " + l7.TypeName(a.Type) + " " + a.Data.String() + " " + a.Addr.String(); got != want || a.TTL != 25 {
				t.Errorf("%q, want %q", got, want)
			}
		}
	}
	if m := read(udp, 5353, b); m.Kind != l7.None {
		t.Errorf("of another port: %v", m.Kind)
	}
	query := append([]byte(nil), b...)
	query[2] &^= 0x80
	if m := read(udp, 53, query); m.Kind != l7.DNSQuery {
		t.Errorf("%v", m.Kind)
	}
}

// What is malformed has an error, does not hang, and gives what is in front of the fault.
func TestDNSMalformed(t *testing.T) {
	header := "\x00\x07\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"
	long := strings.Repeat("\x3f"+strings.Repeat("a", 63), 4) + "\x00" // 256 bytes
	for name, payload := range map[string]string{
		"short":                    "\x00\x07\x81",
		"name is a loop":           header + "\xc0\x0c\x00\x01\x00\x01",
		"two names are a loop":     header + "\xc0\x0e\xc0\x0c\x00\x01\x00\x01",
		"pointer behind the end":   header + "\xff\xff\x00\x01\x00\x01",
		"name too long":            header + long + "\x00\x01\x00\x01",
		"reserved label":           header + "\x80aaa\x00\x00\x01\x00\x01",
		"no answer":                header + "\x01a\x00\x00\x01\x00\x01",
		"address of three bytes":   header + "\x01a\x00\x00\x01\x00\x01\x01a\x00\x00\x01\x00\x01\x00\x00\x00\x19\x00\x03\xc0\x00\x02",
		"data behind the end":      header + "\x01a\x00\x00\x01\x00\x01\x01a\x00\x00\x05\x00\x01\x00\x00\x00\x19\xff\xff\x01b\x00",
		"65,535 questions of none": "\x00\x07\x81\x80\xff\xff\xff\xff\xff\xff\xff\xff",
	} {
		m := read(udp, 53, []byte(payload))
		if m.Err == nil || m.Kind == l7.None {
			t.Errorf("%s: no error, %v", name, m.Kind)
		}
		wantName := name == "no answer" || strings.HasPrefix(name, "address") || strings.HasPrefix(name, "data")
		if m.DNS.HasQuestion != wantName {
			t.Errorf("%s: question %v", name, m.DNS.HasQuestion)
		}
	}
	b := answer(t)
	for n := 1; n < len(b); n++ {
		if m := read(udp, 53, b[:n]); m.Err == nil {
			t.Errorf("cut at %d of %d bytes: no error", n, len(b))
		}
	}
	// More answers than are read.
	many := []byte("\x00\x07\x81\x80\x00\x00\x00\xff\x00\x00\x00\x00" +
		strings.Repeat("\x00\x00\x01\x00\x01\x00\x00\x00\x19\x00\x04\x0a\x00\x00\x01", 255))
	if m := read(udp, 53, many); m.Err != nil || !m.Truncated || m.DNS.Answers != l7.MaxAnswers {
		t.Errorf("%v %v %d", m.Err, m.Truncated, m.DNS.Answers)
	}
}

func TestClientHello(t *testing.T) {
	b := hello(t)
	m := read(tcp, 443, b)
	if m.Kind != l7.ClientHello || m.Err != nil || string(m.Hello.ServerName) != "api.example.com" || string(m.Hello.ALPN) != "h2" ||
		l7.VersionName(m.Hello.Version) != "1.3" {
		t.Errorf("%v %v %q %q %x", m.Kind, m.Err, m.Hello.ServerName, m.Hello.ALPN, m.Hello.Version)
	}
	if m := read(udp, 443, b); m.Kind != l7.None {
		t.Error("over UDP")
	}
	named := 0
	for n := 6; n < len(b); n++ {
		m := read(tcp, 8443, b[:n])
		if m.Kind != l7.ClientHello || !m.Short() {
			t.Fatalf("cut at %d of %d bytes: %v %v", n, len(b), m.Kind, m.Err)
		}
		if string(m.Hello.ServerName) == "api.example.com" {
			named++
		} else if len(m.Hello.ServerName) > 0 {
			t.Errorf("cut at %d bytes: %q", n, m.Hello.ServerName)
		}
	}
	if named == 0 {
		t.Error("a hello that goes on in another packet never gives its name")
	}
	bad := append([]byte(nil), b...)
	bad[43] = 200 // the session
	if m := read(tcp, 443, bad); m.Err == nil {
		t.Errorf("%+v", m.Hello)
	}
}

func TestHTTP(t *testing.T) {
	long := strings.Repeat("a", 300)
	for _, tc := range []struct {
		payload, want string
	}{
		{"GET /seen?token=secret HTTP/1.1\r\nAccept: */*\r\nhost: Example.com:8080\r\nUser-Agent:  curl/8 \r\n\r\nGET /x HTTP/1.1\r\n",
			"GET Example.com /seen curl/8"},
		{"POST http://user:pw@example.com:80/a#b HTTP/1.0\n\n", "POST example.com /a "},
		{"GET http://example.com?q HTTP/1.1\r\nHost: other\r\n\r\n", "GET example.com  "},
		{"CONNECT [2001:db8::1]:443 HTTP/1.1\r\n\r\n", "CONNECT 2001:db8::1  "},
		{"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS h * "},
		{"GET / HTTP/1.1\r\nHost: cut", "GET  / "},
		{"GET /" + long + " HTTP/1.1\r\n\r\n", "GET  /" + long[:255] + "  truncated"},
		{"GET /goes/on", "GET  /goes/on  short"},
		{"GET key\r\n", ""},
		{"GET / SIP/2.0\r\n", ""},
		{"GETS / HTTP/1.1\r\n", ""},
		{"get / HTTP/1.1\r\n", ""},
		{"GET ", ""},
		{"HTTP/1.1 404 Not Found\r\n", "404"},
		{"HTTP/1.1 200", "200"},
		{"HTTP/1.1 20", "0 short"},
		{"HTTP/1.1 2x0 OK\r\n", "0 bad"},
		{"HTTP/1.1\r\n", "0 bad"},
		{"SSH-2.0-OpenSSH\r\n", ""},
	} {
		m := read(tcp, 80, []byte(tc.payload))
		got, h := "", &m.HTTP
		switch m.Kind {
		case l7.HTTPRequest:
			got = strings.Join([]string{string(h.Method), string(h.Host), string(h.Path), string(h.UserAgent)}, " ")
		case l7.HTTPResponse:
			got = strings.Trim(strings.Join([]string{"", number(h.Status)}, ""), " ")
		case l7.None, l7.DNSQuery, l7.DNSResponse, l7.ClientHello:
		}
		switch {
		case m.Truncated:
			got += " truncated"
		case m.Short():
			got += " short"
		case m.Err != nil:
			got += " bad"
		}
		if got != tc.want {
			t.Errorf("%.40q: %q, want %q", tc.payload, got, tc.want)
		}
	}
}
