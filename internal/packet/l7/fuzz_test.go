package l7_test

import (
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/tapwall/tapwall/internal/packet/l7"
)

func number(n int) string { return strconv.Itoa(n) }

// check fails on a Message that contradicts its own documentation.
func check(t *testing.T, payload []byte, m *l7.Message) {
	t.Helper()
	if m.Kind == l7.None && (m.Err != nil || m.Truncated) {
		t.Errorf("a fault of nothing: %x", payload)
	}
	d, h := &m.DNS, &m.HTTP
	switch m.Kind {
	case l7.DNSQuery, l7.DNSResponse:
		if d.Answers < 0 || d.Answers > l7.MaxAnswers || d.HasQuestion && d.Name.Length == 0 {
			t.Errorf("%x: %+v", payload, d)
		}
		for _, a := range d.Answer[:d.Answers] {
			if a.Name.Length == 0 || l7.TypeName(a.Type) == "" || a.Addr.IsValid() && a.Data.Length > 0 {
				t.Errorf("%x: %+v", payload, a)
			}
		}
	case l7.ClientHello:
		if n := len(m.Hello.ServerName) + len(m.Hello.ALPN); n > len(payload) {
			t.Errorf("%x: %d bytes of names", payload, n)
		}
	case l7.HTTPRequest:
		if len(h.Method) == 0 || len(h.Host) > 256 || len(h.Path) > 256 || len(h.UserAgent) > 256 {
			t.Errorf("%x: %+v", payload, h)
		}
	case l7.HTTPResponse:
		if h.Status < 0 || h.Status > 999 {
			t.Errorf("%x: %+v", payload, h)
		}
	case l7.None:
	}
}

func seeds(t testing.TB) [][]byte {
	return [][]byte{
		answer(t), hello(t),
		[]byte("GET /seen?x HTTP/1.1\r\nHost: Example.com:8080\r\nUser-Agent: curl\r\n\r\n"), []byte("HTTP/1.1 404 Not Found\r\n"),
		[]byte("CONNECT [::1]:443 HTTP/1.1\r\n\r\n"),
		[]byte("\x00\x07\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"),
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range seeds(f) {
		for n := range s {
			f.Add(true, uint16(53), s[:n])
		}
		f.Add(false, uint16(53), s)
		f.Add(false, uint16(443), s)
	}
	f.Fuzz(func(t *testing.T, isUDP bool, port uint16, payload []byte) {
		proto := uint8(tcp)
		if isUDP {
			proto = udp
		}
		if len(payload) > 1600 {
			payload = payload[:1600]
		}
		check(t, payload, read(proto, port, payload))
	})
}

// TestMutated reads 200,000 payloads that differ from good ones in some bytes and in length.
func TestMutated(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	all := seeds(t)
	var m l7.Message
	good, bad := map[l7.Kind]int{}, map[l7.Kind]int{}
	for range 200_000 {
		payload := append([]byte(nil), all[rng.IntN(len(all))]...)
		for range rng.IntN(4) {
			payload[rng.IntN(len(payload))] = byte(rng.Uint32())
		}
		if rng.IntN(2) == 0 {
			payload = payload[:rng.IntN(len(payload)+1)]
		}
		ports := [2]uint16{53, 443}
		l7.Read([]uint8{tcp, udp, tcp}[rng.IntN(3)], ports[rng.IntN(2)], 40000, payload, &m)
		check(t, payload, &m)
		if m.Err == nil {
			good[m.Kind]++
		} else {
			bad[m.Kind]++
		}
		if t.Failed() {
			return
		}
	}
	for _, k := range []l7.Kind{l7.DNSQuery, l7.DNSResponse, l7.ClientHello, l7.HTTPRequest, l7.HTTPResponse} {
		if good[k] < 10 || bad[k] < 10 {
			t.Errorf("of kind %v %d were good and %d bad: the mutation is too weak to mean anything", k, good[k], bad[k])
		}
	}
}

func TestReadAllocates(t *testing.T) {
	for _, s := range append(seeds(t)[:5], []byte("nothing of interest"), make([]byte, 1400)) {
		var m l7.Message
		for _, port := range []uint16{53, 443} {
			l7.Read(tcp, port, 40000, s, &m)
			if m.Err != nil {
				continue
			}
			if n := testing.AllocsPerRun(100, func() { l7.Read(tcp, port, 40000, s, &m) }); n != 0 {
				t.Errorf("%v allocations for %.20q", n, s)
			}
		}
		l7.Read(udp, 53, 40000, s, &m)
		if n := testing.AllocsPerRun(100, func() { l7.Read(udp, 53, 40000, s, &m) }); n != 0 && m.Err == nil {
			t.Errorf("%v allocations for %.20q as DNS", n, s)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	all := seeds(b)
	for _, bench := range []struct {
		name    string
		proto   uint8
		port    uint16
		payload []byte
	}{{"dns", udp, 53, all[0]}, {"tls", tcp, 443, all[1]}, {"http", tcp, 80, all[2]}, {"nothing", tcp, 80, make([]byte, 1400)}} {
		b.Run(bench.name, func(b *testing.B) {
			var m l7.Message
			b.ReportAllocs()
			for b.Loop() {
				l7.Read(bench.proto, 40000, bench.port, bench.payload, &m)
			}
		})
	}
}
