package record_test

import (
	"bytes"
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
)

// carrying is a packet of TCP or UDP with a payload.
func carrying(t testing.TB, transport string, src, dst netip.AddrPort, payload []byte) []byte {
	t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice(), Protocol: layers.IPProtocolUDP}
	var upper gopacket.SerializableLayer = &layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}
	if transport == "tcp" {
		ip.Protocol = layers.IPProtocolTCP
		upper = &layers.TCP{SrcPort: layers.TCPPort(src.Port()), DstPort: layers.TCPPort(dst.Port()), ACK: true, PSH: true}
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 5: 1},
		DstMAC: net.HardwareAddr{2, 5: 2}, EthernetType: layers.EthernetTypeIPv4}, ip, upper, gopacket.Payload(payload)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// dns is a message about the addresses of name, which may hold any byte but a dot, with answers.
func dns(t testing.TB, id uint16, name string, answers ...netip.Addr) []byte {
	t.Helper()
	n := dnsmessage.MustNewName(name + ".")
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: id, Response: answers != nil},
		Questions: []dnsmessage.Question{{Name: n, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	for _, a := range answers {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: n, Class: dnsmessage.ClassINET, TTL: 25},
			Body: &dnsmessage.AResource{A: a.As4()}})
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// recorded is what r makes of a packet that a mirror copied.
func recorded(t testing.TB, r *record.Recorder, data []byte) *event.Event {
	t.Helper()
	r.HandleCopy("br0", record.PacketIn{Data: data, Time: noon, Copy: &record.MirrorCopy{Mirror: "m"}})
	settle(t, r)
	items := r.Recent(event.Filter{}).Items
	return items[len(items)-1]
}

var (
	client = netip.MustParseAddrPort("10.0.0.5:39001")
	server = netip.MustParseAddrPort("10.0.0.2:53")
	api    = netip.MustParseAddr("192.0.2.7")
)

// What an application says in a packet is in its document and in the line for people, and no document is much longer than a kilobyte.
func TestMessages(t *testing.T) {
	r, _ := start(t, record.Options{Host: "node1"})
	long := strings.Repeat(strings.Repeat("a", 62)+".", 3) + strings.Repeat("b", 62)
	port := func(n uint16) netip.AddrPort { return netip.AddrPortFrom(server.Addr(), n) }
	for _, tc := range []struct {
		name      string
		data      []byte
		action    string
		fields    string // of the document
		line      string // its end
		truncated bool
	}{
		{"query", carrying(t, "udp", client, server, dns(t, 7, "api.example.com")), event.ActionDNSQuery,
			`"dns":{"id":"7","type":"query","question":{"name":"api.example.com","type":"A"}}`,
			"dns-query:m MIRRORED (DNS Query api.example.com. A)", false},
		{"answer", carrying(t, "udp", server, client, dns(t, 7, "api.example.com", api)), event.ActionDNSResponse,
			`"dns":{"id":"7","type":"answer","question":{"name":"api.example.com","type":"A"},"response_code":"NOERROR","answers":[{"name":` +
				`"api.example.com","type":"A","ttl":25,"data":"192.0.2.7"}],"resolved_ip":["192.0.2.7"]}`,
			`dns-response:m MIRRORED (DNS Answer "192.0.2.7" TTL: 25 (Query api.example.com. A))`, false},
		{"many answers", carrying(t, "udp", server, client, dns(t, 7, long, api, api, api, api, api, api)), event.ActionDNSResponse,
			`"resolved_ip":["192.0.2.7","192.0.2.7","192.0.2.7","192.0.2.7"]}`, ". A))", true},
		{"hostile name", carrying(t, "udp", server, client, dns(t, 7, "\x1b[31m\r\n\x00\u202e<script>\xff", api)), event.ActionDNSResponse,
			`"name":"\\x1b[31m\\r\\n\\x00\\u202e\u003cscript\u003e\\xff"`, `(Query \x1b[31m\r\n\x00\u202e<script>\xff. A))`, false},
		{"name of 255 bytes that nobody can read", carrying(t, "udp", client, server, dns(t, 7, strings.Repeat(strings.Repeat("\x01", 63)+".",
			3)+strings.Repeat("\x02", 60))), event.ActionDNSQuery, `"truncated":true`, ". A)", true},
		{"request", carrying(t, "tcp", client, port(80), []byte("GET /seen?token=secret HTTP/1.1\r\nHost: example.com\r\n"+
			"User-Agent: curl/8\r\n\r\n")), event.ActionHTTPRequest,
			`"http":{"request":{"method":"GET"}},"url":{"domain":"example.com","path":"/seen"},` +
				`"user_agent":{"original":"curl/8"}`, "http-request:m MIRRORED (HTTP/1 GET http://example.com/seen)", false},
		{"response", carrying(t, "tcp", port(80), client, []byte("HTTP/1.1 404 Not Found\r\n")), event.ActionHTTPResponse,
			`"http":{"response":{"status_code":404}}`, "http-response:m MIRRORED (HTTP/1 404)", false},
		{"nothing", carrying(t, "tcp", port(80), client, []byte("data")), event.ActionPacket, `"action":"packet-mirrored"`,
			"packet-mirrored:m MIRRORED (TCP Flags: PSH, ACK)", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := recorded(t, r, tc.data)
			doc, err := event.AppendJSON(nil, e)
			if err != nil || !json.Valid(doc) || len(doc) > 1700 {
				t.Errorf("%d bytes, %v: %s", len(doc), err, doc)
			}
			line := event.Compact(e, event.PrintOptions{Location: time.UTC})
			if e.Event.Action != tc.action || !bytes.Contains(doc, []byte(tc.fields)) || !strings.HasSuffix(line, tc.line) ||
				e.Tapwall.Truncated != tc.truncated || e.Tapwall.Decode.Status != "ok" || bytes.Contains(doc, []byte("secret")) {
				t.Errorf("%s\n%s", line, doc)
			}
			for _, bad := range []string{"\x1b", "\r", "\n", "\x00", "\u202e"} {
				if strings.Contains(line, bad) || bytes.Contains(doc, []byte(bad)) {
					t.Errorf("%q: %s\n%s", bad, line, doc)
				}
			}
		})
	}
	if c := r.Counters(); len(c.DecodeErrors) != 0 {
		t.Errorf("%v", c.DecodeErrors)
	}
}

// A message with a fault is counted as a packet that could not be read whole; one that goes on elsewhere, or was cut on its way, is not.
func TestMessagesThatEndEarly(t *testing.T) {
	r, _ := start(t, record.Options{})
	loop := carrying(t, "udp", server, client, []byte("\x00\x07\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"))
	if d := recorded(t, r, loop).Tapwall.Decode; d.Status != "partial" || d.Layer != "dns" || d.Error == "" {
		t.Errorf("%+v", d)
	}
	hello := carrying(t, "tcp", client, netip.MustParseAddrPort("192.0.2.7:443"), []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
	if e := recorded(t, r, hello); e.Tapwall.Decode.Status != "partial" || e.Tapwall.Decode.Layer != "tls" ||
		e.TLS == nil || e.TLS.Version != "1.2" {
		t.Errorf("%+v", e)
	}
	query := carrying(t, "udp", client, server, dns(t, 7, "api.example.com"))
	if e := recorded(t, r, query[:60]); e.Tapwall.Decode.Status != "ok" || !e.Tapwall.Truncated || e.DNS == nil {
		t.Errorf("%+v", e)
	}
	if c := r.Counters(); len(c.DecodeErrors) != 1 || c.DecodeErrors["dns"] != 1 {
		t.Errorf("%v", c.DecodeErrors)
	}
}
