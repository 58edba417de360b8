package record_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/event/record"
)

// dialogue hands packets to a recorder, at a time that goes on.
type dialogue struct {
	t  *testing.T
	r  *record.Recorder
	at time.Time
}

func (d *dialogue) say(from, to netip.AddrPort, payload []byte) *event.Event {
	d.t.Helper()
	transport := "tcp"
	if from.Port() == 53 || to.Port() == 53 {
		transport = "udp"
	}
	d.r.HandleCopy("br0", record.PacketIn{Data: carrying(d.t, transport, from, to, payload), Time: d.at, Copy: &record.MirrorCopy{Mirror: "m",
		Source: &event.Endpoint{PortName: "tap1"}}})
	settle(d.t, d.r)
	items := d.r.Recent(event.Filter{}).Items
	return items[len(items)-1]
}

// domain is what the address is called in an event of a packet that a client sends to it.
func (d *dialogue) domain(client, addr netip.Addr) string {
	d.t.Helper()
	e := d.say(netip.AddrPortFrom(client, 50000), netip.AddrPortFrom(addr, 443), nil)
	back := d.say(netip.AddrPortFrom(addr, 443), netip.AddrPortFrom(client, 50000), nil)
	if e.Destination.Domain != back.Source.Domain {
		d.t.Errorf("%q there and %q back", e.Destination.Domain, back.Source.Domain)
	}
	if s := e.Tapwall.Destination; (e.Destination.Domain != "") != (s != nil && s.NamesSource == "dns") {
		d.t.Errorf("%+v of %q", s, e.Destination.Domain)
	}
	return e.Destination.Domain
}

// A client's own question and the answer to it name addresses for that client; nothing else does.
func TestDomains(t *testing.T) {
	r, _ := start(t, record.Options{})
	d := &dialogue{t, r, noon}
	other := netip.MustParseAddr("10.0.0.6")
	if got := d.domain(client.Addr(), api); got != "" {
		t.Fatal(got)
	}
	answer := dns(t, 7, "API.example.com", api)
	d.say(server, client, answer)
	if got := d.domain(client.Addr(), api); got != "" {
		t.Errorf("an answer without a question: %q", got)
	}
	d.say(client, server, dns(t, 7, "api.example.com"))
	for what, spoofed := range map[string]func(){
		"another id":     func() { d.say(server, client, dns(t, 8, "api.example.com", api)) },
		"another name":   func() { d.say(server, client, dns(t, 7, "evil.example.com", api)) },
		"another server": func() { d.say(netip.MustParseAddrPort("10.0.0.3:53"), client, answer) },
		"another client": func() { d.say(server, netip.AddrPortFrom(other, client.Port()), answer) },
		"another port":   func() { d.say(server, netip.AddrPortFrom(client.Addr(), 39002), answer) },
		"dropped": func() {
			r.HandlePacketIn("br0", record.PacketIn{Data: carrying(t, "udp", server, client, answer), Time: d.at,
				Verdicts: []record.VerdictSide{ingressDrop}})
		},
	} {
		if spoofed(); d.domain(client.Addr(), api) != "" || d.domain(other, api) != "" {
			t.Error(what)
		}
	}
	d.say(server, client, answer)
	if got := d.domain(client.Addr(), api); got != "api.example.com" {
		t.Errorf("%q", got)
	}
	if got := d.domain(other, api); got != "" {
		t.Errorf("for another client: %q", got)
	}
	d.say(server, client, dns(t, 7, "api.example.com", netip.MustParseAddr("192.0.2.8")))
	if got := d.domain(client.Addr(), netip.MustParseAddr("192.0.2.8")); got != "" {
		t.Errorf("the question had its answer: %q", got)
	}
	line := event.Compact(d.say(client, netip.AddrPortFrom(api, 443), nil), event.PrintOptions{Location: time.UTC})
	if !strings.Contains(line, "tap1(10.0.0.5):39001 -> api.example.com(192.0.2.7):443 packet-mirrored") {
		t.Error(line)
	}
	// Used within the hour, the name stays; a name that nobody uses goes with its answer.
	for range 5 {
		d.at = d.at.Add(59 * time.Minute)
		if got := d.domain(client.Addr(), api); got != "api.example.com" {
			t.Errorf("%v later: %q", d.at.Sub(noon), got)
		}
	}
	d.at = d.at.Add(61 * time.Minute)
	if got := d.domain(client.Addr(), api); got != "" {
		t.Errorf("long after: %q", got)
	}
	for _, wait := range []time.Duration{59 * time.Second, 61 * time.Second} {
		d.say(client, server, dns(t, 9, "api.example.com"))
		d.say(server, client, dns(t, 9, "api.example.com", api)) // TTL 25 s
		d.at = d.at.Add(wait)
		if got := d.domain(client.Addr(), api); (got != "") != (wait < time.Minute) {
			t.Errorf("after %v: %q", wait, got)
		}
		d.at = d.at.Add(2 * time.Hour)
	}
	d.say(client, server, dns(t, 9, "api.example.com"))
	d.at = d.at.Add(31 * time.Second)
	d.say(server, client, dns(t, 9, "api.example.com", api))
	if got := d.domain(client.Addr(), api); got != "" {
		t.Errorf("an answer that is late: %q", got)
	}
	for _, name := range []string{"\x1b[31mred", "a b", "<script>", "ex\u00e4mple", "a\xff"} {
		d.say(client, server, dns(t, 10, name))
		d.say(server, client, dns(t, 10, name, api))
		if got := d.domain(client.Addr(), api); got != "" {
			t.Errorf("%q names the address: %q", name, got)
		}
	}
}

// What is remembered is bounded, the names used last stay, and no metric gets a label more.
func TestDomainsBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	r, _ := start(t, record.Options{Registry: registry, RingLen: 16})
	figures := func() (series int, entries float64) {
		all, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			series += len(f.GetMetric())
			if f.GetName() == "tapwall_dns_cache_entries" {
				entries = f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return series, entries
	}
	d := &dialogue{t, r, noon}
	say := func(from, to netip.AddrPort, message []byte) {
		r.HandleCopy("br0", record.PacketIn{Data: carrying(t, "udp", from, to, message), Time: noon, Copy: &record.MirrorCopy{Mirror: "m"}})
	}
	who := func(c int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(c)}), 39001)
	}
	ask := func(c, n int) netip.Addr {
		addr := netip.AddrFrom4([4]byte{11, byte(n >> 16), byte(n >> 8), byte(n)})
		name := fmt.Sprintf("n%d.example", n)
		say(who(c), server, dns(t, uint16(n), name))
		say(server, who(c), dns(t, uint16(n), name, addr))
		return addr
	}
	first, second := ask(0, 0), ask(1, 1)
	settle(t, r)
	before, _ := figures()
	keeps := func(n int) {
		settle(t, r)
		if got := d.domain(who(0).Addr(), first); got != "n0.example" {
			t.Fatalf("after %d names: %q", n, got)
		}
	}
	const greedy = 99 // one client, who asks more than all others
	for n := 2; n < 20_000; n++ {
		if ask(greedy, n); n%1000 == 0 {
			settle(t, r)
		}
	}
	keeps(20_000)
	if _, entries := figures(); entries != 8192+2 || d.domain(who(1).Addr(), second) != "n1.example" {
		t.Errorf("%v names, of which one client has 8,192 at most", entries)
	}
	for n := 2; n < 70_000; n++ {
		if ask(n%16, n); n%1000 == 0 {
			keeps(n)
		}
	}
	settle(t, r)
	series, entries := figures()
	if entries != 65_536 || series != before+1 { // packet-mirrored has come
		t.Errorf("%v names, %d series and %d before", entries, series, before)
	}
	if got := d.domain(who(1).Addr(), second); got != "" {
		t.Errorf("the name that was not used for longest: %q", got)
	}
	questions := func(who func(n int) netip.AddrPort, want int) { // without answers
		t.Helper()
		for n := range 20_000 {
			if say(who(n), server, dns(t, uint16(n), fmt.Sprintf("q%d.example", n))); n%1000 == 0 {
				settle(t, r)
			}
		}
		settle(t, r)
		if got := r.QuestionsWaiting(); got != want {
			t.Errorf("%d questions wait, want %d", got, want)
		}
	}
	questions(func(int) netip.AddrPort { return who(greedy) }, 1024)
	questions(func(n int) netip.AddrPort { return who(n % 16) }, 8192)
}
