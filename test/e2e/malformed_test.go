package e2e

import (
	"maps"
	"math/rand/v2"
	"net"
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

// sum adds the series of a metric that have a label.
func sum(series map[string]float64, metric, label string) (n float64) {
	for key, v := range series {
		if strings.HasPrefix(key, metric+"{") && strings.Contains(key, label) {
			n += v
		}
	}
	return n
}

// Scenario 10: of 10,000 frames, good ones and such as are broken in one way or another, each is an event of a mirror that copies them.
// Those that are broken, and no others, are counted as such and say so; tapwall goes on as ever.
func TestEventsScenario10MalformedFrames(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	from, to := s.vm[1], s.vm[2]
	s.ping3(from, to)
	s.apply("kind: Mirror\nname: m\nspec: {sources: [{port: vm1}], direction: fromSource, targets: [{events: {}}]}\n")
	rng := rand.New(rand.NewPCG(1, 2))
	udp := func(port uint16, payload []byte) []byte {
		f, err := lab.CraftFrame(from.MAC, to.MAC, layers.EthernetTypeIPv4, &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP,
			SrcIP: net.ParseIP(from.IPv4), DstIP: net.ParseIP(to.IPv4)}, &layers.UDP{SrcPort: layers.UDPPort(30000 + rng.IntN(30000)),
			DstPort: layers.UDPPort(port)}, gopacket.Payload(payload))
		must(t, err)
		return f
	}
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	query := question(t, 7, "api.example.com.", dnsmessage.TypeA)
	broken := from.MaliciousFrames(to)
	kinds := []struct {
		bad  bool
		make func() []byte
	}{
		{true, func() []byte { return broken[0] }}, // IHL 0
		{true, func() []byte { return broken[1] }}, // IHL 15
		{true, func() []byte { return broken[2] }}, // IPv6 headers that are cut, too long, or have such options
		{true, func() []byte { return broken[3] }},
		{true, func() []byte { return broken[4] }},
		{true, func() []byte { // a name that points to itself
			return udp(53, append(random(2), "\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"...))
		}},
		{true, func() []byte { return udp(53, query[:1+rng.IntN(len(query)-1)]) }},
		{true, func() []byte { // a TCP header longer than the packet
			f, err := from.CraftTCP(from.IPv4, to, 30000, 80, 16)
			must(t, err)
			f[14+20+12] = 15 << 4
			return f
		}},
		{true, func() []byte { // random bytes where an IPv4 header should be, but for the version
			f := append(udp(9, nil)[:14], random(60)...)
			f[14] = f[14]&15 | 7<<4
			return f
		}},
		{true, func() []byte { return udp(9, nil)[:14+rng.IntN(20)] }}, // no IPv4 header, or a piece of one
		{false, func() []byte { return udp(53, query) }},
		{false, func() []byte { // Geneve with 252 bytes of options, whatever they are
			return udp(6081, append([]byte{63, 0, 0x65, 0x58, 0, 0, 1, 0}, random(252+60)...))
		}},
		{false, func() []byte { return udp(9, random(rng.IntN(1400))) }},
		{false, func() []byte {
			f, err := from.CraftTCP(from.IPv4, to, uint16(30000+rng.IntN(30000)), 80, 16)
			must(t, err)
			return append(f, 0, 0)
		}},
	}
	before, pid := s.series(), s.tw.Pid()
	if before["go_goroutines"] == 0 {
		t.Fatal("the number of goroutines is not known")
	}
	const all, batch = 10_000, 100
	want, bad := 0, 0
	for n := 0; n < all; n += batch {
		var frames [][]byte
		for range batch {
			k := kinds[rng.IntN(len(kinds))]
			frames = append(frames, k.make())
			if k.bad {
				bad++
			}
		}
		must(t, from.Send(frames...))
		want += batch
		lab.Eventually(t, 20*time.Second, sprintf("%d frames are events", want), func() bool {
			now := s.series()
			return sum(now, "tapwall_events_total", `verdict="MIRRORED"`)-sum(before, "tapwall_events_total", `verdict="MIRRORED"`) >= float64(want)
		})
	}
	isBad := func(e *event.Event) bool {
		d := e.Tapwall.Decode
		return d != nil && d.Status != "ok" && d.Layer != "" && d.Error != ""
	}
	count := func(keep func(*event.Event) bool) (n int) { return len(s.documents(keep)) }
	lab.Eventually(t, 20*time.Second, "those that are broken say so", func() bool {
		return count(func(e *event.Event) bool { return e.Tapwall.Mirror == "m" && isBad(e) }) == bad
	})
	// DNS messages that pass are in the record a second time, by the flow that copies them.
	after := s.series()
	got, events := sum(after, "tapwall_decode_errors_total", "")-sum(before, "tapwall_decode_errors_total", ""), count(isBad)
	if bad < all/2 || int(got) != events {
		t.Errorf("%v errors are counted, %d events of all and %d of the mirror say so", got, events, bad)
	}
	layersSeen := slices.Collect(maps.Keys(after))
	for _, layer := range []string{"ipv4", "ipv6_extension", "tcp", "dns"} {
		if !slices.Contains(layersSeen, `tapwall_decode_errors_total{layer="`+layer+`"}`) {
			t.Errorf("no error at %s", layer)
		}
	}
	if s.tw.Pid() != pid {
		t.Error("tapwall was restarted")
	}
	lab.Eventually(t, 10*time.Second, "no goroutine is left behind", func() bool {
		return s.series()["go_goroutines"] <= before["go_goroutines"]+2
	})
	must(t, from.Send(udp(53, question(t, 8, "good.example.", dnsmessage.TypeA))))
	lab.Eventually(t, 10*time.Second, "the next good frame is read", func() bool {
		return count(func(e *event.Event) bool {
			return e.Tapwall.Mirror == "m" && e.DNS != nil && e.DNS.Question != nil && e.DNS.Question.Name == "good.example" && !isBad(e)
		}) == 1
	})
}
