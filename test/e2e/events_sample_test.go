package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tapwall/tapwall/event"
	"github.com/tapwall/tapwall/test/lab"
)

// filed returns the events with an action in the file that events go to.
func (s *stage) filed(action string) (out []event.Event) {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(s.tw.DataDir(), "events", "events.jsonl"))
	must(s.t, err)
	for line := range strings.Lines(string(data)) {
		var e event.Event
		if json.Unmarshal([]byte(line), &e) == nil && e.Event.Action == action {
			out = append(out, e)
		}
	}
	return out
}

// talk is a connection of vm1 by its protocol, IP version and own port.
type talk struct {
	network string // tcp, udp
	v6      bool
	port    int
}

// heard counts the packets of each connection that a port of vm2 took part in, as the devices had them; way 0 is from vm1.
func heard(t *testing.T, port int, from ...*lab.Capture) map[talk][2]int {
	t.Helper()
	out := map[talk][2]int{}
	for way, c := range from {
		for _, f := range c.Frames(nil) {
			p := gopacket.NewPacket(f.Data, layers.LayerTypeEthernet, gopacket.NoCopy)
			x, ports := talk{v6: p.Layer(layers.LayerTypeIPv6) != nil}, [2]int{}
			switch l := p.TransportLayer().(type) {
			case *layers.TCP:
				x.network, ports = "tcp", [2]int{int(l.SrcPort), int(l.DstPort)}
			case *layers.UDP:
				x.network, ports = "udp", [2]int{int(l.SrcPort), int(l.DstPort)}
			default:
				continue
			}
			if x.port = ports[way]; ports[1-way] == port {
				n := out[x]
				n[way]++
				out[x] = n
			}
		}
	}
	return out
}

// exchange has vm1 open a connection to a port of vm2, say something and be answered twice.
func (s *stage) exchange(network, to string, port int) {
	s.t.Helper()
	c, err := s.vm[1].Dial(network, to, port, 3*time.Second)
	must(s.t, err)
	defer func() { _ = c.Close() }()
	must(s.t, c.SetDeadline(time.Now().Add(3*time.Second)))
	for _, text := range []string{"Eone", "Etwo"} {
		_, err = c.Write([]byte(text))
		must(s.t, err)
		_, err = io.ReadFull(c, make([]byte, 3))
		must(s.t, err)
	}
}

// The rule samples one of four connections: of those it has their beginning and each of their packets, both ways, also of connections that
// are older than tapwall's present run, and of the others nothing. What the events stand for is what was sent.
func TestEventsSampledConnections(t *testing.T) {
	t.Parallel()
	s := open(t, 2)
	const rules = `
kind: Policy
name: web
spec:
  appliesTo: [{port: vm2}]
  ingress:
  - {name: some, action: allow, services: [{protocol: tcp, ports: ["5001"]}, {protocol: udp, ports: ["5001"]}]%s}
  - {name: plain, action: allow, services: [{protocol: tcp, ports: ["5002"]}]}
`
	s.force(fmt.Sprintf(rules, ", log: {sample: 1/4}"))
	sent, answered := s.capture("vm1"), s.capture("vm2")
	const each = 100
	var live []*lab.Probe
	for range 12 { // one of them at least is drawn, but for 3 of 100 times, and none is silent
		p, err := s.vm[1].EchoTCP(s.vm[2].IPv4, 5001, 100*time.Millisecond)
		must(t, err)
		t.Cleanup(p.Stop)
		live = append(live, p)
	}
	for range each {
		for _, to := range []string{s.vm[2].IPv4, s.vm[2].IPv6} {
			s.exchange("tcp", to, 5001)
			s.exchange("udp", to, 5001)
		}
		s.exchange("tcp", s.vm[2].IPv4, 5002)
	}
	time.Sleep(time.Second) // the copy of the last is on its way
	must(t, s.tw.Stop())
	time.Sleep(300 * time.Millisecond)
	must(t, s.tw.Start())
	lab.Eventually(t, 10*time.Second, "tapwall listens again", func() bool { return len(s.flows("table=228")) == 1 })
	between := len(s.filed(event.ActionSampled))
	for _, p := range live {
		s.lossless(p, "a connection of before")
	}
	lab.Eventually(t, 10*time.Second, "connections of before go on being sampled", func() bool {
		return len(s.filed(event.ActionSampled)) > between
	})
	for range each / 5 {
		s.exchange("tcp", s.vm[2].IPv4, 5001)
	}
	for _, p := range live {
		p.Stop()
	}

	var got map[talk][2]int
	told := func() map[talk][2]int {
		got = map[talk][2]int{}
		for _, e := range s.filed(event.ActionSampled) {
			if e.Tapwall.CT == nil || e.Source == nil || e.Network == nil || e.Destination == nil {
				b, _ := json.Marshal(e)
				t.Fatalf("%s", b)
			}
			x, way := talk{e.Network.Transport, e.Network.Type == "ipv6", e.Source.Port}, 0
			if slices.Contains(e.Tapwall.CT.State, "rpl") {
				way = 1
			}
			n := got[x]
			n[way]++
			got[x] = n
			if w := e.Tapwall; e.Destination.Port != 5001 || w.Weight != 4 || w.Verdict != event.Sampled || e.Event.Dataset != event.DatasetPacket ||
				e.Rule.ID != "web/ingress/some" || w.IngressRule.ID != "web/ingress/some" || w.EgressRule.ID != "/egress/default-allow" ||
				w.Source.Name != "vm1" || w.Destination.Name != "vm2" || e.Network.CommunityID == "" {
				t.Fatalf("%+v", e)
			}
		}
		return got
	}
	lab.Eventually(t, 10*time.Second, "what was sent last is recorded", func() bool {
		n := len(told())
		time.Sleep(500 * time.Millisecond)
		return n > 0 && len(told()) == n
	})
	all, plain := heard(t, 5001, sent, answered), heard(t, 5002, sent, answered)
	packets, estimate, drawn := 0, 0, map[string]int{}
	missed := 0 // of those that were live while tapwall was away
	for x, n := range all {
		packets += n[0] + n[1]
		if is, ok := got[x]; ok {
			estimate += 4 * (n[0] + n[1])
			drawn[fmt.Sprint(x.network, x.v6)]++
			if is != n {
				missed++
			}
			if is[0] == 0 || is[1] == 0 || is[0] > n[0] || is[1] > n[1] {
				t.Errorf("%+v: %v events of %v packets", x, is, n)
			}
			delete(got, x)
		}
	}
	// 432 connections: 108 are expected, and four times the deviation is 36.
	total := 0
	for _, n := range drawn {
		total += n
	}
	if len(all) < (4*each+each/5+len(live))*9/10 || math.Abs(float64(total)-float64(len(all))/4) > 36 || len(drawn) != 4 || len(got) != 0 {
		t.Errorf("%d of %d connections: %v; %v are of none", total, len(all), drawn, got)
	}
	if missed > len(live) {
		t.Errorf("of %d connections packets are missing", missed)
	}
	if r := float64(estimate) / float64(packets); r < 0.6 || r > 1.4 {
		t.Errorf("%d packets are told to be %d", packets, estimate)
	}
	begun := map[string]int{}
	for _, e := range s.filed(event.ActionVerdict) {
		if e.Tapwall.Verdict == event.Forwarded && (e.Destination.Port == 5001 || e.Destination.Port == 5002) {
			begun[fmt.Sprint(e.Rule.Name, " ", e.Tapwall.Weight)]++
		}
	}
	if begun["some 4"] != total || begun["plain 0"] != len(plain) || len(plain) != each || len(begun) != 2 {
		t.Errorf("beginnings %v of %d and %d connections", begun, total, len(plain))
	}
	t.Logf("%d of %d connections %v, %d packets told to be %d", total, len(all), drawn, packets, estimate)

	// A rule that samples no more takes back what was drawn, and nobody has lost anything.
	p := s.echo(s.vm[1], s.vm[2], 5001)
	for range 20 {
		s.exchange("udp", s.vm[2].IPv4, 5001)
	}
	s.force(fmt.Sprintf(rules, ""))
	time.Sleep(time.Second)
	before := len(s.filed(event.ActionSampled))
	for range 20 {
		s.exchange("tcp", s.vm[2].IPv4, 5001)
	}
	time.Sleep(time.Second)
	if after := len(s.filed(event.ActionSampled)); after != before || len(s.flows("table=228")) != 0 {
		t.Errorf("%d more packets of a rule that does not sample", after-before)
	}
	s.lossless(p, "a connection while its rule stops sampling")
}
